"""Tools for testing programs that run on corolib.

    run(main, **virtual_time())     a program whose clock jumps instead of waiting
    cancel_everywhere(scenario)     a program in which each task is cancelled at each step
    @test(clock="virtual")          a test that waits, for unittest, pytest and scripts
    @fixture, give(value)           what a test needs, whose setup and teardown may wait
    TestCase, Runner                what these are made of

With pytest a test that waits is a generator function or an `async def` with the marker `corolib`:
see `pytest_corolib.py`, the plugin, which stands beside the package and uses what is here.

Looks at everything below; nothing in the library knows it. The library's own tests have their
helpers elsewhere: what is here is for those who use the library.

    cases, fixtures -> runner -> alarm, clocks, leaks     sweeps -> clocks, leaks
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from corolib.testing.clocks import JumpingSelector, VirtualClock, virtual_time
from corolib.testing.fixtures import fixture
from corolib.testing.leaks import open_files
from corolib.testing.runner import Runner, give
from corolib.testing.sweeps import cancel_everywhere, survivors

if TYPE_CHECKING:
    from corolib.testing.cases import TestCase, test
else:

    def __getattr__(name):
        """Import what needs `unittest` when it is first asked for."""
        if name not in ("TestCase", "test"):
            raise AttributeError(f"module 'corolib.testing' has no attribute {name!r}")
        from corolib.testing import cases

        return getattr(cases, name)


__all__ = [
    "JumpingSelector",
    "Runner",
    "TestCase",
    "VirtualClock",
    "cancel_everywhere",
    "fixture",
    "give",
    "open_files",
    "survivors",
    "test",
    "virtual_time",
]
