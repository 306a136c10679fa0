"""corolib: network servers written as plain generators.

A task yields `ReadWait(sock)` or `WriteWait(sock)`; a scheduler on the standard `selectors` module
resumes it when the socket is ready. If it can wait, it has `yield` in front: `yield` a trap,
`yield from` a function. If it cannot wait, it is an ordinary call.

What is public is listed here; everything else may change.
"""

from corolib.errors import (
    BusyError,
    Cancelled,
    ClosedError,
    Deadlock,
    RunFinished,
    ScopeError,
    TaskCancelled,
)
from corolib.running import close, current_scheduler, current_task, now, spawn
from corolib.scheduler import Scheduler, run
from corolib.task import Task
from corolib.traps import Coro, ReadWait, Sleep, Suspend, WriteWait, waits

__version__ = "0.1.0"

__all__ = [
    "BusyError",
    "Cancelled",
    "ClosedError",
    "Coro",
    "Deadlock",
    "ReadWait",
    "RunFinished",
    "Scheduler",
    "ScopeError",
    "Sleep",
    "Suspend",
    "Task",
    "TaskCancelled",
    "WriteWait",
    "close",
    "current_scheduler",
    "current_task",
    "now",
    "run",
    "spawn",
    "waits",
]
