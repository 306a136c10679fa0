"""Timers: a heap of calls to make when their time has come.

A call is the list `[deadline, number, f, arg]`. The number counts up, so equal deadlines keep the
order in which they were set, and a comparison never reaches the functions. A cancelled call stays
in the heap as a husk; when husks outnumber the living (and a thousand), they are swept out.

Knows no clock and no tasks. Imports nothing from corolib.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any

SPARE_HUSKS = 1000  # 100 KB; sweeping more often would cost more than it gives back


class Timers:
    """The calls to come, soonest first."""

    __slots__ = ("_count", "_husks", "_now", "heap")

    def __init__(self) -> None:
        self.heap: list[list[Any]] = []
        self._count = 0
        self._husks = 0
        self._now = -inf  # of the last `expire`

    def __len__(self) -> int:
        return len(self.heap) - self._husks

    def set(self, deadline: float, f: Callable[[Any], object], arg: Any) -> list[Any]:
        """Have `f(arg)` called when `deadline` has passed; return the call, for `cancel`."""
        self._count += 1
        if deadline < self._now:
            deadline = self._now  # long past: not before what is due already
        call = [deadline, self._count, f, arg]
        heappush(self.heap, call)
        return call

    def cancel(self, call: list[Any]) -> None:
        """Take a call back. One that was made, or taken back before, stays so."""
        if call[2] is None:
            return
        call[2] = call[3] = None
        self._husks += 1
        if self._husks > SPARE_HUSKS and self._husks > len(self.heap) // 2:
            self.heap[:] = [call for call in self.heap if call[2] is not None]
            heapify(self.heap)
            self._husks = 0

    def next(self) -> float:
        """Return the soonest deadline, `math.inf` when there is none."""
        heap = self.heap
        while heap and heap[0][2] is None:
            heappop(heap)
            self._husks -= 1
        return heap[0][0] if heap else inf

    def expire(self, now: float) -> None:
        """Make the calls whose deadline is not after `now`, in order."""
        heap = self.heap
        self._now = now
        last = self._count  # a call set by one of these calls is for the next turn
        while heap and heap[0][0] <= now and heap[0][1] <= last:
            call = heappop(heap)
            f, arg = call[2], call[3]
            if f is None:
                self._husks -= 1
                continue
            call[2] = call[3] = None
            f(arg)
