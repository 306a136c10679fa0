"""Tools for testing programs that run on corolib.

    run(main, **virtual_time())     a program whose clock jumps instead of waiting
    cancel_everywhere(scenario)     a program in which each task is cancelled at each step

Looks at everything below; nothing in the library knows it. The library's own tests have their
helpers elsewhere: what is here is for those who use the library.

    sweeps -> clocks, leaks
"""

from __future__ import annotations

from corolib.testing.clocks import JumpingSelector, VirtualClock, virtual_time
from corolib.testing.leaks import open_files
from corolib.testing.sweeps import cancel_everywhere, survivors

__all__ = [
    "JumpingSelector",
    "VirtualClock",
    "cancel_everywhere",
    "open_files",
    "survivors",
    "virtual_time",
]
