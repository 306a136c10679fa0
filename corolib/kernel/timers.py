"""Timers: calls to make when their time has come. Knows no clock and no tasks.

A call is the list `[deadline, number, f, arg]`. The number counts up, so equal deadlines keep the
order in which they were set, and a comparison never reaches the functions. A cancelled call stays
as a husk. When husks outnumber the living, and a thousand, they are swept out.

A call is put into the heap when somebody must know what comes next, and until then into a list.
Most are cancelled before that, and a heap costs more than all the rest of them together.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any

SPARE_HUSKS = 1000  # 100 KB; sweeping more often would cost more than it gives back


class Timers:
    """The calls to come. None is due before the time `soonest`."""

    __slots__ = ("_count", "_fresh", "_heap", "_husks", "_now", "soonest")

    def __init__(self) -> None:
        self._heap: list[list[Any]] = []
        self._fresh: list[list[Any]] = []  # set since the last look at the heap
        self._count = 0
        self._husks = 0
        self._now = -inf  # the time of the last `expire`
        self.soonest = inf

    def __len__(self) -> int:
        return self.size - self._husks

    @property
    def size(self) -> int:
        """How many calls are kept, the husks among them."""
        return len(self._heap) + len(self._fresh)

    def set(self, deadline: float, f: Callable[[Any], object], arg: Any) -> list[Any]:
        """Have `f(arg)` called when `deadline` has passed; return the call, for `cancel`.

        A deadline that is long past does not come before what is due already.
        """
        self._count += 1
        if deadline < self._now:
            deadline = self._now
        if deadline < self.soonest:
            self.soonest = deadline
        call = [deadline, self._count, f, arg]
        self._fresh.append(call)
        return call

    def cancel(self, call: list[Any]) -> None:
        """Take a call back. One that was made, or taken back before, stays so."""
        if call[2] is None:
            return
        call[2] = call[3] = None
        self._husks += 1
        if self._husks > SPARE_HUSKS and self._husks > self.size // 2:
            self._sweep()

    def _sweep(self) -> None:
        for calls in (self._heap, self._fresh):
            calls[:] = [call for call in calls if call[2] is not None]
        heapify(self._heap)
        self._husks = 0

    def next(self) -> float:
        """Return the soonest deadline, `math.inf` when there is none."""
        heap, fresh = self._heap, self._fresh
        # One by one, since a wake in a signal handler may come here, which cancels and sweeps.
        while fresh:
            heappush(heap, fresh.pop())
        while heap and heap[0][2] is None:
            heappop(heap)
            self._husks -= 1
        self.soonest = heap[0][0] if heap else inf
        return self.soonest

    def expire(self, now: float) -> None:
        """Make the calls that are due at `now`, in order. What they set is for the next turn."""
        self._now = now
        self.next()
        heap, last = self._heap, self._count
        while heap and heap[0][0] <= now and heap[0][1] <= last:
            call = heappop(heap)
            f, arg = call[2], call[3]
            if f is None:
                self._husks -= 1
                continue
            call[2] = call[3] = None
            f(arg)
        self.next()
