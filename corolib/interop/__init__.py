"""Doors to other libraries and programs. Nothing in corolib knows what is here.

from corolib.interop import ReadinessDriver     generators that say for which file they wait

readiness
"""

from corolib.interop.readiness import ReadinessDriver

__all__ = ["ReadinessDriver"]
