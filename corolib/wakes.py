"""The `wake` that `Suspend` hands out: good for one result, from any thread, at any time.

Whoever pops the task from a list of one has the say: a wake, or the scheduler that takes the wait
back. `list.pop` is atomic, against other threads and against signal handlers, so nothing here
takes a lock.

Imports nothing from corolib at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from corolib.task import Task


class Kernel(Protocol):
    """What a wake needs of the scheduler."""

    def at_once(self) -> bool: ...
    def woken(self, task: Task[Any], value: Any, error: BaseException | None) -> None: ...
    def call_soon_threadsafe(self, f: Callable[..., object], /, *args: Any) -> None: ...


class OneWake:
    """Call it as `wake(value=None, error=None)`; see `corolib.Suspend`."""

    __slots__ = ("_claim", "_kernel", "taken_back", "undo")

    def __init__(self, kernel: Kernel, task: Task[Any]) -> None:
        self._kernel = kernel
        self._claim = [task]
        self.undo: Callable[[], object] | None = None
        self.taken_back = False

    def claim(self) -> Task[Any] | None:
        """Return the task to the first that asks, None to all others."""
        try:
            return self._claim.pop()
        except IndexError:
            return None

    def __call__(self, value: Any = None, error: BaseException | None = None) -> None:
        kernel = self._kernel
        at_once = kernel.at_once()
        task = self.claim()
        if task is None:
            return
        self.undo = None  # it may hold this very wake: no cycle
        if at_once:
            kernel.woken(task, value, error)
        else:
            kernel.call_soon_threadsafe(kernel.woken, task, value, error)
