"""What only the garbage collector finds after a scenario: a tool of the tests for cycles."""

import gc
from collections.abc import Callable, Iterable
from typing import Any

from corolib import Coro, Sleep, run
from corolib.testing import virtual_time


def ours(garbage: Iterable[object]) -> list[str]:
    """Return the names of the types of corolib's objects, and of generators, in `garbage`."""
    return sorted(
        type(x).__name__
        for x in garbage
        if type(x).__module__.startswith("corolib") or hasattr(x, "gi_frame")
    )


def everything(garbage: Iterable[object]) -> list[str]:
    """Return the names of the types of all that is in `garbage`."""
    return sorted(type(x).__name__ for x in garbage)


def garbage_of(
    scenario: Callable[[], Coro[object]],
    of_interest: Callable[[Iterable[object]], list[str]] = ours,
    *,
    rest: float = 50,
    **options: Any,
) -> list[str]:
    """Run the scenario in a task; return what only the garbage collector finds afterwards.

    Before it looks, it lets `rest` seconds pass: in virtual time, if `options` do not say more.
    """

    def main() -> Coro[list[str]]:
        gc.collect()
        gc.freeze()  # what is alive by now is looked at no more, which took most of the time
        for _ in range(2):  # the first fills the caches
            gc.collect()
            gc.disable()
            try:
                yield from scenario()
                yield Sleep(rest)
                yield
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                found = of_interest(gc.garbage)
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
        return found

    options = {**virtual_time(), "on_task_error": lambda task, exc: None, **options}
    return run(main, **options)
