"""Lines of those who wait, first come, first served; and what all things that have one share.

A thing that tasks wait for keeps their wakes in a `Line`. Who waits has joined it, who is
interrupted leaves it by the undo, and who is served is taken from its head:

    wake, item = line.popitem(last=False)

Imports no scheduler; what makes one wait is in `sync.py`, `queues.py` and their like.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from corolib.kernel import Wake

WaitQueue = OrderedDict[Wake, Any]
"""Those who wait, first come first, each with what it waits with. Both ends and the leaving of
any one cost the same however long the line is, which is true of neither deque nor dict."""


def enqueue(line: WaitQueue, wake: Wake, item: Any = None) -> Callable[[], object]:
    """Stand in the line with `item`; returns the undo."""
    line[wake] = item
    return lambda: line.pop(wake, None)  # a `partial` costs three times as much to make


def wake_all(
    line: WaitQueue, value: Any = None, error: Callable[[], BaseException | None] | None = None
) -> None:
    """Let all go that stand in the line, each with `value`, or with what `error()` returns.

    An exception is made for each of them: one that is raised in many places collects the
    tracebacks of all.
    """
    while line:
        wake, _ = line.popitem(last=False)
        wake(value, None if error is None else error())


def nothing() -> None:
    """The undo of a wait that was over at once."""


class Awaited:
    """What all of them share: a name for reports, a line, and a repr that shows both.

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
        return f"<{' '.join((type(self).__name__, self.name or hex(id(self)), *more))}>"

    @abstractmethod
    def _state(self) -> str: ...

    def __repr__(self) -> str:
        waiting = f", {self.waiters} waiting" if self.waiters else ""
        return self.title(self._state() + waiting)
