"""Several waits at once, of which exactly one is taken: `first`.

    index, value = yield from first(q.getting(), event.waiting(), ReadWait(sock), Sleep(1))

Here one task makes all the waits, and the scheduler keeps them in its place. What starts a task for
each, and cancels those that lose, is `race` in `groups.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeVar, overload

from corolib.coordination.queues import Queue
from corolib.kernel import (
    ReadWait,
    Scheduler,
    Sleep,
    Suspend,
    Task,
    Trap,
    UrgentWait,
    Waiting,
    Wake,
    WriteWait,
    brief,
    current_scheduler,
    forgive,
    name_of,
    no_error,
    no_undo,
    public,
    waits,
)

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")

TRAPS = {
    "acquire": "`lock.acquiring()`",
    "get": "`q.getting()`",
    "publish": "`topic.publishing(item)`",
    "put": "`q.putting(item)`",
    "recv": "`ReadWait(stream.socket)`",
    "wait": "`event.waiting()`",
    "Event": "`event.waiting()`",
    "Lock": "`lock.acquiring()`",
    "Queue": "`q.getting()`",
}
"""What takes the place of what is given instead of a trap."""

Plain = ReadWait | WriteWait | UrgentWait | Sleep
"""The traps whose value is None."""


@overload
def first(a: Suspend[T1], b: Suspend[T2], /) -> Waiting[tuple[int, T1 | T2]]: ...
@overload
def first(
    a: Suspend[T1], b: Suspend[T2], c: Suspend[T3], /
) -> Waiting[tuple[int, T1 | T2 | T3]]: ...
@overload
def first(
    a: Suspend[T1], b: Suspend[T2], c: Suspend[T3], d: Suspend[T4], /
) -> Waiting[tuple[int, T1 | T2 | T3 | T4]]: ...
@overload
def first(*traps: Suspend[T]) -> Waiting[tuple[int, T]]: ...
@overload
def first(
    a: Suspend[T1] | Plain, b: Suspend[T2] | Plain, /
) -> Waiting[tuple[int, T1 | T2 | None]]: ...
@overload
def first(
    a: Suspend[T1] | Plain, b: Suspend[T2] | Plain, c: Suspend[T3] | Plain, /
) -> Waiting[tuple[int, T1 | T2 | T3 | None]]: ...
@overload
def first(
    a: Suspend[T1] | Plain,
    b: Suspend[T2] | Plain,
    c: Suspend[T3] | Plain,
    d: Suspend[T4] | Plain,
    /,
) -> Waiting[tuple[int, T1 | T2 | T3 | T4 | None]]: ...
@overload
def first(*traps: Suspend[T] | Plain) -> Waiting[tuple[int, T | None]]: ...
@public
@waits
def first(*traps: Trap) -> Generator[Any, Any, tuple[int, Any]]:
    """Wait for the first of several waits: `index, value = yield from first(trap, trap)`.

    `yield from first(q.getting(), event.waiting(), ReadWait(sock), Sleep(1))`: exactly one is
    taken; the others are undone there and then, as if they had never been made, before the task
    goes on. So an item stays in its queue, and a lock with its holder.

    A wait that can end at once is taken, and those behind it are not made. The waits must
    not end each other, as do the two ends of one queue, a topic and one's own subscription, or two
    subscriptions to one topic of size 0.

    Args:
        traps: the traps themselves, not the functions over them: `q.getting()`, not `q.get()`.

    Raises:
        What the wait that came first raises; BusyError and the like of any of them, at once.
        Cancelled: the wait was cancelled; none was taken.
        TypeError: one is no trap. ValueError: there is none, or both ends of one queue.

    Example:
        >>> import corolib
        >>> def main():
        ...     return (yield from corolib.first(corolib.Sleep(10), corolib.Sleep(0.001)))
        >>> corolib.run(main)
        (1, None)

    Source: choice over events in Concurrent ML (J. Reppy, 1991); libdill's choose.
    """
    _check(traps)
    several = _FirstOf(traps)
    taken: tuple[int, Any]
    taken = yield Suspend(several.arm, several, holder=several.holders, outside=several.outside)
    return taken


def _check(traps: tuple[Trap, ...]) -> None:
    """Refuse what `first` cannot decide: no trap at all, no traps, or both ends of one queue."""
    if not traps:
        raise ValueError("first() without any trap would wait for ever")
    ends: dict[int, tuple[object, Trap]] = {}
    for trap in traps:
        if not isinstance(trap, ReadWait | WriteWait | UrgentWait | Sleep | Suspend):
            name = name_of(trap)
            for each in traps:
                forgive(each)  # this error is enough
            cure = f": write {TRAPS[name]}" if name in TRAPS else ""
            raise TypeError(
                "first() takes traps, such as ReadWait(sock), Sleep(1) or q.getting(), not "
                f"{name}{cure}"
            )
        match trap:
            case Suspend(what=(verb, Queue() as queue)):
                other_verb, other = ends.setdefault(id(queue), (verb, trap))
                if other_verb != verb:
                    both = f"{brief(other)} and {brief(trap)}"
                    raise ValueError(f"first() got {both}: they would meet, and both be taken")


class _FirstOf:
    """Several waits of which one is to be taken."""

    def __init__(self, traps: tuple[Trap, ...]) -> None:
        self._traps = traps
        self._undos: dict[int, Callable[[], object]] = {}
        # None means that it is decided, or has not begun.
        self._wake: Wake | None = None
        # The numbers of those whose wakes have come: these are not to be undone.
        self._over: set[int] = set()
        # A file or a time can always come from outside; a Suspend says it of itself.
        self.outside = not all(isinstance(t, Suspend) and not t.outside for t in traps)

    def arm(self, wake: Wake) -> Callable[[], object]:
        self._wake = wake
        scheduler = current_scheduler()
        try:
            for n, trap in enumerate(self._traps):
                undo = scheduler.arm(trap, partial(self._woken, scheduler, n))
                if n in self._over:
                    # This one was ready at once.
                    break
                if not callable(undo):
                    raise TypeError(no_undo(trap, undo))
                if self._wake is None:
                    # Its `arm` has woken an earlier one.
                    undo()
                    break
                self._undos[n] = undo
        except BaseException:
            self._undo_all()
            raise
        return self._undo_all

    def _woken(
        self, scheduler: Scheduler, n: int, value: Any = None, error: BaseException | None = None
    ) -> None:
        """A wake of one of the waits. The decision is made in the scheduler's own thread."""
        if error is not None and not isinstance(error, BaseException):
            raise TypeError(no_error(error))
        if scheduler.at_once():
            self._decide(n, value, error)
        else:
            scheduler.call_soon_threadsafe(self._decide, n, value, error)

    def _decide(self, n: int, value: Any, error: BaseException | None) -> None:
        self._over.add(n)
        if self._wake is not None:
            self._wake((n, value), error)
            self._undos.pop(n, None)
            self._undo_all()

    def _undo_all(self) -> None:
        self._wake = None
        while self._undos:
            self._undos.popitem()[1]()

    def holders(self) -> list[Task[Any] | None]:
        """Return those on which the end depends; with None if it may come from elsewhere, too."""
        found: list[Task[Any] | None] = []
        for trap in self._traps:
            known = trap.holder() if isinstance(trap, Suspend) and trap.holder else ()
            found += list(known) or [None]
        return found

    def __str__(self) -> str:
        return "the first of " + ", ".join(map(brief, self._traps))
