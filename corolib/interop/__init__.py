"""Interfaces to other libraries and programs. Nothing below in corolib knows what is here.

    ReadinessDriver         drives generators that say for which file they wait
    open_asyncio()          calls libraries of asyncio's
    run_in_asyncio(f)       runs corolib in a program of asyncio's

`corolib.interop.psycopg` (PostgreSQL) and `corolib.interop.redis` are imported by their names.

    psycopg -> readiness        asyncio_calls       redis
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from corolib.interop.readiness import ReadinessDriver

if TYPE_CHECKING:
    from corolib.interop.asyncio_calls import open_asyncio, run_in_asyncio
else:

    def __getattr__(name):
        """Import what needs asyncio when it is first asked for."""
        if name not in ("open_asyncio", "run_in_asyncio"):
            raise AttributeError("module 'corolib.interop' has no attribute " + repr(name))
        from corolib.interop import asyncio_calls

        return getattr(asyncio_calls, name)


__all__ = ["ReadinessDriver", "open_asyncio", "run_in_asyncio"]
