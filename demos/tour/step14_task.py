"""The tasks of step 14 of the tour: a task is an object, which can be joined and cancelled.

The scheduler that runs them is in `step14_join.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from demos.tour.step11_timers import Coro

if TYPE_CHECKING:
    from demos.tour.step14_join import Scheduler

Wake = Callable[..., None]  # wake(value=None, error=None)
Undo = Callable[[], object]


class BusyError(RuntimeError):
    """Another task already waits for this file, in the same direction."""


class Cancelled(BaseException):
    """The task was asked to end. Not an Exception, so that `except Exception` lets it pass."""


@dataclass
class Suspend:
    """Wait until somebody calls `wake`: `arm(wake)` tells it to somebody, and returns the undo."""

    arm: Callable[[Wake], Undo]


class Task:
    """A generator being run: what its next step gets, what it waits for, and how it ended."""

    def __init__(self, scheduler: Scheduler, body: Coro[Any]) -> None:
        self.scheduler = scheduler
        self.body = body
        self.name = getattr(body, "__name__", "?")
        self.value: Any = None  # the next step resumes the body with this,
        self.error: BaseException | None = None  # or with that
        self.wait: Any = None  # the trap it is parked in; None: it is ready, or running
        self.undo: Undo = nothing  # takes the wait back
        self.pending = False  # it was cancelled, and does not know it yet
        self.joiners: list[Wake] = []
        self.done = False
        self.returned: Any = None
        self.failure: BaseException | None = None

    def cancel(self) -> None:
        """Ask the task to end: it gets a `Cancelled` at the wait it is in, or at its next."""
        if self.wait is None:
            self.pending = True
        else:
            self.undo()
            self.scheduler.resume(self, None, Cancelled())

    def __iter__(self) -> Generator[Suspend, Any, Any]:
        """Join the task: `result = yield from task`."""
        return (yield Suspend(self.join))

    def join(self, wake: Wake) -> Undo:
        if self.done:
            wake(self.returned, self.failure)
            return nothing
        self.joiners.append(wake)
        return partial(self.joiners.remove, wake)


def nothing() -> None:
    """The undo of a wait that is over at once."""
