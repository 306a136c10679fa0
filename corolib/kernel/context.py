"""What runs in this thread: its scheduler, and the plain calls that ask for it.

This is the way in for everything that does not wait. A run writes its scheduler into `_current` for
its time; `current_task()`, `spawn()`, `now()` and `close()` find it there. What waits goes through
the trap `Suspend` instead. What the calls do is the scheduler's business, which is not imported.
"""

from __future__ import annotations

# This is `threading.local`, without the rest of `threading`, which takes long to import.
from _thread import _local
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextvars import Context
from typing import TYPE_CHECKING, Any, Never, TypeVar, TypeVarTuple

from corolib.kernel.safely import brief, name_of
from corolib.kernel.traps import HasFileno
from corolib.kernel.waits import public

if TYPE_CHECKING:
    from corolib.kernel.scheduler import Scheduler
    from corolib.kernel.task import Task

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Runnable = Generator[Any, Any, T] | Coroutine[Any, Any, T]

BUDGET = 64  # operations without a wait between two that give way; a turn costs a few of them
LOOK = 4  # of these between two looks at the clock; a look costs about a tenth of one
LONG = 0.001  # seconds after which a step is to end at the next such operation


class _Current(_local):
    """One slot a thread: the scheduler that runs in it, or None."""

    scheduler: Scheduler | None = None


_current = _Current()


def running_scheduler() -> Scheduler | None:
    """Return the scheduler that runs in this thread, None if there is none."""
    return _current.scheduler


@public
def current_scheduler() -> Scheduler:
    """Return the scheduler that runs in this thread.

    Raises:
        RuntimeError: none does.

    Example:
        >>> import corolib
        >>> def main():
        ...     yield
        ...     return corolib.current_scheduler().stats()["tasks"]
        >>> corolib.run(main)
        1
    """
    scheduler = _current.scheduler
    if scheduler is None:
        raise RuntimeError(
            "no scheduler runs in this thread: call this from a task, under corolib.run(...); "
            "another thread uses from_thread(scheduler, f, *args)"
        )
    return scheduler


@public
def current_task() -> Task[Any]:
    """Return the task that is running, that is, the caller's.

    Raises:
        RuntimeError: no scheduler runs in this thread, or it is between two steps (in a callback).

    Example:
        >>> import corolib
        >>> def main():
        ...     yield
        ...     return corolib.current_task().label
        >>> corolib.run(main)
        'main#1'
    """
    # If there is none, `current_scheduler()` says why.
    task = (_current.scheduler or current_scheduler()).current
    if task is None:
        raise RuntimeError("no task is running: this was called between two steps, in a callback")
    return task


@public
def spawn(
    f: Callable[[*Ts], Runnable[T]] | Runnable[T],
    /,
    *args: *Ts,
    name: str | None = None,
    daemon: bool = False,
    parent: Task[Any] | None = None,
    context: Context | None = None,
    **unknown: Never,
) -> Task[T]:
    """Start a task beside the caller and return its handle; does not wait.

    `spawn(f, *args)` calls `f`, a generator function or an `async def`; `spawn(f(args))` takes what
    such a call returned. The task takes its first step when all that are ready now have been
    stepped, always, even if it is cancelled before. The caller is its parent: it is done only when
    its children are. So tasks that each spawn a successor and end are all kept: write a loop, or
    give the successor another parent.

    Args:
        name: for reports; by default the function's name.
        daemon: cancelled when the parent's body and its other children are done.
        parent: another task to be the parent (`current_scheduler().main` is the root).
        context: the `contextvars` context to run in, instead of a copy of the caller's.

    Returns:
        The task: `result = yield from task` waits for it. You may drop it.

    Raises:
        TypeError: `f` gives no generator or coroutine, or a keyword is not one of the four.
        RuntimeError: no scheduler runs in this thread; the generator was already started; the
            parent is done.

    Example:
        >>> import corolib
        >>> def double(x):
        ...     yield
        ...     return 2 * x
        >>> def main():
        ...     task = corolib.spawn(double, 21)
        ...     return (yield from task)
        >>> corolib.run(main)
        42
    """
    if unknown:
        raise TypeError(unknown_keyword("spawn", f, unknown))
    # If there is none, `current_scheduler()` says why.
    scheduler = _current.scheduler or current_scheduler()
    return scheduler.start(f, args, name, daemon, parent, context)


def unknown_keyword(caller: str, f: object, unknown: Mapping[str, object]) -> str:
    """Return the message for keywords that were meant for the task function itself."""
    from corolib.advice.keywords import misplaced_keyword

    return misplaced_keyword(caller, name_of(f, "f"), f, next(iter(unknown)))


def no_parent(parent: object, context: object) -> str:
    """Return the message for a `spawn` that was given another parent or context than there are."""
    return f"spawn() got parent={brief(parent)}, context={brief(context)}: not of that kind"


@public
def now() -> float:
    """Return the time on the scheduler's clock, in seconds: monotonic, with no fixed beginning.

    Raises:
        RuntimeError: no scheduler runs in this thread.

    Example:
        >>> import corolib
        >>> def main():
        ...     deadline = corolib.now() + 0.01
        ...     yield corolib.Sleep(at=deadline)
        ...     return corolib.now() >= deadline
        >>> corolib.run(main)
        True
    """
    return current_scheduler().clock()


class Pace:
    """How long the step that is under way has lasted, for operations that need not wait.

    Nobody notes when a step begins, for that would be a part of every echo. The first look at the
    clock in a step notes the time, and a later one finds out how long that was ago.
    """

    __slots__ = ("_began", "_left", "_stride", "_task", "_turn")

    def __init__(self) -> None:
        # The step that was looked at last, and when it was looked at first.
        self._turn = 0
        self._task: int | None = None
        self._began = 0.0
        # Operations until one gives way however fast they are, and until the next look.
        self._left = BUDGET
        self._stride = LOOK

    def allows(self, scheduler: Scheduler) -> bool:
        """Return whether the step may go on; if so, renew the budget up to the next look."""
        now = scheduler.clock()
        task = scheduler.current
        # The number, since a task that is over is not to be kept.
        number = None if task is None else task.id
        if scheduler._turns != self._turn or number != self._task:
            self._turn, self._task, self._began = scheduler._turns, number, now
        elif now >= self._began + LONG:
            # Somebody computes for long between two operations: now each of them looks.
            self._stride = 1
            return False
        else:
            self._stride = min(2 * self._stride, LOOK)
        self._left -= self._stride
        if self._left <= 0:
            return False
        scheduler.budget = self._stride
        return True

    def begin(self, scheduler: Scheduler) -> None:
        """Give the whole budget to what comes next, since the step ends."""
        self._left = BUDGET
        scheduler.budget = self._stride


def must_yield(scheduler: Scheduler | None = None) -> bool:
    """Return whether an operation that could succeed at once should give way all the same.

    That is so of every 64th of all tasks together, and of one whose step has lasted for about a
    millisecond. So no task keeps the others from their turn, whatever it finds ready. One that is
    about to be cancelled is let pass once.

    Who knows the scheduler that runs here may say it: to look it up is most of the price.
    """
    scheduler = scheduler or _current.scheduler or current_scheduler()
    # It may be below 0, if a stream has counted in another thread.
    scheduler.budget -= 1
    if scheduler.budget > 0 or scheduler.pace.allows(scheduler):
        return False
    scheduler.pace.begin(scheduler)
    task = scheduler.current
    return not (task is not None and task.pending and scheduler.cancellation.spare(task))


@public
def close(file: HasFileno | int) -> None:
    """Close a file and wake the tasks that wait for it with `ClosedError`; does not wait.

    Nothing comes in between, so no other file can get the number meanwhile. To close a file object
    that is closed already changes nothing. A file that no task waits for may as well be closed by
    its own `close()` or by `with`.

    Args:
        file: a socket, another file object, or the number of an open file.

    Raises:
        RuntimeError: no scheduler runs in this thread.
        TypeError: this is no file.
        OSError: what the file's own `close()` raises.

    Example:
        >>> import corolib, socket
        >>> def reader(sock):
        ...     try:
        ...         yield corolib.ReadWait(sock)
        ...     except corolib.ClosedError:
        ...         return "woken"
        >>> def main():
        ...     a, b = socket.socketpair()
        ...     a.setblocking(False)
        ...     task = corolib.spawn(reader, a)
        ...     yield
        ...     corolib.close(a)
        ...     b.close()
        ...     return (yield from task)
        >>> corolib.run(main)
        'woken'
    """
    current_scheduler().close_file(file)
