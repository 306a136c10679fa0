"""Wait queues: who waits, first come, first served; and what all objects that have one share.

An object that tasks wait for keeps them in a `WaitQueue`: the task itself if it waits for nothing
else, or the wake that a `Suspend` was given, as in `first`. Whose wait is cancelled is taken out,
and the first is served:

    yield in_queue(queue, general)                      the task stands there
    undo = enqueue(queue, wake)                         a wake stands there
    waiter, item = queue.popitem(last=False)            the first of both
    serve(waiter, value)

When a task waits, and what for, is not known here: that is in `locks.py`, `queues.py` and the
others.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from corolib.kernel import Task, Wake, class_name, serve

WaitQueue = OrderedDict[Task[Any] | Wake, Any]
"""Those who wait, first come first, each with what it waits with. To add one, to take the first and
to remove any one cost the same however many there are. That is true of neither deque nor dict."""


def enqueue(queue: WaitQueue, wake: Wake, item: Any = None) -> Callable[[], object]:
    """Put a wake at the end of the queue, with `item`; returns the undo."""
    queue[wake] = item
    # A `partial` costs three times as much to make.
    return lambda: queue.pop(wake, None)


def wake_all(
    queue: WaitQueue, value: Any = None, error: Callable[[], BaseException | None] | None = None
) -> None:
    """Wake all that wait, each with `value`, or with what `error()` returns.

    An exception is made for each of them: one that is raised in many places collects the
    tracebacks of all.
    """
    while queue:
        waiter, _ = queue.popitem(last=False)
        serve(waiter, value, None if error is None else error())


def nothing() -> None:
    """The undo of a wait that was over at once."""


class Waitable:
    """What all objects share that tasks wait for: a name for reports, a wait queue, and a repr.

    Args:
        name: for reports.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._waiting: WaitQueue = OrderedDict()

    @property
    def waiters(self) -> int:
        """How many waits for it are under way."""
        return len(self._waiting)

    def title(self, *more: str) -> str:
        """Return kind and name, as reports write them: `<Lock B>`; and in it what is given."""
        return f"<{' '.join((class_name(self), self.name or hex(id(self)), *more))}>"

    @abstractmethod
    def _state(self) -> str: ...

    def __repr__(self) -> str:
        waiting = f", {self.waiters} waiting" if self.waiters else ""
        return self.title(self._state() + waiting)
