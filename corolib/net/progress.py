"""What moves on the connections of a server: who is idle, who is slow, and who makes room.

    watch = Watch(scheduler, limits, opened, counts)
    watch.begin()           there are `enough` connections to look at; and end(): there are none
    watch.make_room()       the server is full, and somebody waits

Judged is what has moved, and not how long something takes. Nothing is noted when something moves,
for that would be a part of every echo: now and then all connections are looked at. With no limit
that needs it, and while less than half the places are taken, nobody looks.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from corolib.kernel import Scheduler, Task
from corolib.net.network import traffic
from corolib.net.streams import Stream, received, waits_for_peer

if TYPE_CHECKING:
    from corolib.net.limits import Limits

QUARTERS = 4
"""Looks in the time of a limit: who is idle is cancelled at most a quarter late."""

RATE_WINDOW = 30.0
"""Seconds over which a rate is measured: a pause of a few seconds, as radio links make, is none."""

SLICE = 200
"""Connections that are looked at in one turn: one or two milliseconds' worth."""

ROUNDING = 1e-6
"""Part of a limit that is forgiven, since times that are added up are not exact."""


class Progress:
    """What is known of the progress of one connection. There is one of these for each idle client:
    it holds nothing that can be had elsewhere.
    """

    __slots__ = (
        *("closing", "counted", "cut", "received", "since", "stream", "task", "traffic"),
        "unsent",
    )

    def __init__(self, stream: Stream, task: Task[Any], since: float) -> None:
        self.stream = stream
        self.task = task
        # When something was seen to have moved last; at first, when it was accepted.
        self.since = since
        # What the kernel kept for the peer when it was looked at last.
        self.unsent = 0
        # How many bytes had come then, whole records of TLS or not.
        self.received = 0
        # How many bytes had moved in all, and when that was counted; with a least rate only.
        self.traffic = 0
        self.counted = since
        # Whether the task is that of `aclose()`.
        self.closing = False
        # Whether it was cancelled by a `Watch`.
        self.cut = False

    @abstractmethod
    def close(self) -> None:
        """Close the stream, since the task was asked to end and has not."""

    def has_moved(self, now: float) -> bool:
        """Return whether something has moved since this was asked last."""
        stream = self.stream
        moved, stream.moved = bool(stream.moved), False
        before, self.received = self.received, received(stream)
        moved |= self.received != before
        # The kernel takes megabytes at a time. If the peer reads, they get less meanwhile.
        before, self.unsent = self.unsent, stream.unsent()
        moved |= self.unsent < before
        if moved:
            self.since = now
        return moved


class Watch:
    """Looks at the connections of a server, and cancels those that its limits do not bear.

    Args:
        scheduler: sets the timers, and tells the time.
        limits: `idle_timeout`, `evict_idle`, `min_rate` and `max_connections` concern it.
        opened: the connections that are open. Their order is that of `since`, while it looks.
        counts: counts by name: of `idle`, `evicted` and `slow`.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        limits: Limits,
        opened: OrderedDict[Any, None],
        counts: dict[str, int],
    ) -> None:
        self._scheduler = scheduler
        self._opened = opened
        self._counts = counts
        self._idle = limits["idle_timeout"] or math.inf
        self._rate = limits["min_rate"] or 0
        self._evict = limits["evict_idle"] or math.inf
        # How many there are when one looks.
        self.enough = 1.0
        if self._idle == math.inf and not self._rate:
            # It takes twice as many to be full.
            most = limits["max_connections"]
            self.enough = math.inf if self._evict == math.inf or most is None else most / 2
        window = RATE_WINDOW if self._rate else math.inf
        self.tick = min(self._idle, self._evict, window) / QUARTERS
        # The next look, if there is one, and when it is to be.
        self.timer: Any = None
        self._planned = math.inf
        # Seconds by which looks came late.
        self.late = 0.0
        # Until when nobody has to make room, since somebody takes leave who had to.
        self.content = -math.inf

    # When to look -----------------------------------------------------------------------------

    def now(self) -> float:
        """Return the time, without that in which the program itself stood still. What peers did
        meanwhile has not been read yet.
        """
        clock = self._scheduler.clock()
        return clock - self.late - max(clock - self._planned, 0)

    def begin(self) -> None:
        """Look from now on: there are `enough` connections."""
        self._look_at(self._scheduler.clock() + self.tick, None)

    def end(self) -> None:
        """Look no more: the last connection has ended."""
        self._scheduler.timers.cancel(self.timer)
        self.timer, self._planned = None, math.inf

    def _look_at(self, deadline: float, rest: Iterable[Any] | None) -> None:
        self.timer, self._planned = self._scheduler.timers.set(deadline, self._look, rest), deadline

    def _look(self, rest: Iterable[Any] | None) -> None:
        """Look at all connections, so many in each turn; `rest` are those that are left of them."""
        clock, now = self._scheduler.clock(), self.now()
        self.late = clock - now
        self.timer, self._planned = None, math.inf
        rest = iter(list(self._opened)) if rest is None else rest
        batch = list(islice(rest, SLICE))
        for connection in batch:
            if connection in self._opened:
                self._judge(connection, now)
        if len(batch) == SLICE:
            self._look_at(clock, rest)
        elif len(self._opened) >= self.enough:
            self._look_at(clock + self.tick, None)

    # What is found ----------------------------------------------------------------------------

    def _judge(self, connection: Progress, now: float) -> None:
        if connection.has_moved(now):
            self._opened.move_to_end(connection)
        if connection.closing:
            # How long that may take is bounded by `drain=` and `drain_limit=`.
            return
        quiet = now - connection.since
        if quiet >= 2 * self._idle * (1 - ROUNDING):
            connection.close()
        elif quiet >= self._idle * (1 - ROUNDING):
            self._cancel(connection, "idle", f"idle for {self._idle:g} s")
        if self._rate:
            self._judge_rate(connection, now)

    def _judge_rate(self, connection: Progress, now: float) -> None:
        """Cut a connection whose peer lets too little move, and is waited for. One on which nothing
        has moved is idle, for which there are other limits.
        """
        window = now - connection.counted
        if window < RATE_WINDOW * (1 - ROUNDING):
            return
        connection.counted = now
        before, connection.traffic = connection.traffic, traffic(connection.stream)
        slow = 0 < connection.traffic - before < self._rate * window
        if slow and waits_for_peer(connection.task, connection.stream):
            reason = f"less than {self._rate:g} bytes a second for {window:.0f} s"
            if not self._cancel(connection, "slow", reason):
                connection.close()

    def _cancel(self, connection: Progress, count: str, reason: str) -> bool:
        """Ask the task of a connection to end; return False if somebody has done so before."""
        if connection.task.cancel_request is not None:
            return False
        self._counts[count] += 1
        connection.cut = True
        connection.task.cancel(reason)
        return True

    # Making room ------------------------------------------------------------------------------

    def make_room(self) -> None:
        """Cancel the connection that has been idle longest, if that is long enough.

        It is one whose handler waits for its peer, if there is any. It may take leave, for as long
        again, before another one has to.
        """
        now = self.now()
        if now < self.content:
            return
        found = None
        for connection in list(islice(self._opened, SLICE)):
            if connection.has_moved(now):
                # Behind the end none has been idle for long.
                self._opened.move_to_end(connection)
            elif now - connection.since < self._evict * (1 - ROUNDING):
                break
            elif connection.closing or waits_for_peer(connection.task, connection.stream):
                found = connection
                break
            else:
                found = found or connection
        if found is None:
            return
        reason = f"idle for {now - found.since:.0f} s, and the server is full"
        if not self._cancel(found, "evicted", reason):
            found.close()
        # After the same time it is looked at again.
        found.since = now
        self._opened.move_to_end(found)
        self.content = now + self._evict
