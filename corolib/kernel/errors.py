"""The exceptions of corolib. Their meaning only: who raises them, and when, is said there.

Those of queues and streams are in the files of queues and streams.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from corolib.kernel.safely import class_name
from corolib.kernel.waits import public

if TYPE_CHECKING:
    from corolib.kernel.task import Task


@public
class Cancelled(BaseException):
    """Raised at a task's wait when the task, or a block around the wait, is cancelled.

    A `BaseException`, so that `except Exception` does not swallow it. Let it pass: clean up in
    `finally`, or catch it and raise it again. `reason` is what the caller of `cancel()` gave.
    """

    bytes_sent: int | None = None  # by the `sendall()` that was cancelled, if it was one
    # Only the scope that has this very request catches the exception: see cancellation.py. Where
    # the exception is made it is set: an `__init__` would cost more than all the rest.
    __slots__ = ("cancel_request",)
    cancel_request: object

    @property
    def reason(self) -> Any:
        return self.args[0] if self.args else None


@public
class TaskCancelled(Exception):
    """Raised where a task is joined that was cancelled: an ordinary failure for the joiner.

    `task` is the joined task, `reason` what the caller of `cancel()` gave.
    """

    @property
    def task(self) -> Task[Any]:
        return self.args[0]  # type: ignore[no-any-return]

    @property
    def reason(self) -> Any:
        return self.args[1] if len(self.args) > 1 else None

    def __str__(self) -> str:
        try:
            because = "" if self.reason is None else f": {self.reason}"
        except Exception:
            because = f": a {class_name(self.reason)} (whose str fails)"
        return f"task {self.task.label} was cancelled{because}"


@public
class Deadlock(RuntimeError):
    """Raised by `run()` when no task can ever run again, and at a join of oneself or an ancestor.

    The message lists each task, what it waits for, who holds that, where, and the cycle.
    """


@public
class BusyError(RuntimeError):
    """Raised at a wait for a file when another task already waits for it in that direction."""


@public
class ClosedError(OSError):
    """Raised at a wait for a file that is closed, or that is closed during the wait.

    Its `errno` is EBADF, as the operating system would have said.
    """

    def __init__(self, message: str) -> None:
        super().__init__(errno.EBADF, message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strerror,), vars(self)


@public
class ScopeError(RuntimeError):
    """Raised when `with` blocks that bound a task are left out of order or by another task."""


@public
class RunFinished(RuntimeError):
    """Raised by a call into a scheduler whose run has ended, for instance from a late thread."""

    def __init__(self, message: str = "the scheduler's run has ended") -> None:
        super().__init__(message)
