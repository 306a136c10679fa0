"""What moves on the connections of a server: who is idle, who is slow, and who makes room.

    watch = Watch(scheduler, limits, opened, counts, shares=True)
    watch.took_one()        one more connection is open
    watch.lost_one()        one has ended
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

from corolib.kernel import Scheduler, Wake
from corolib.net.network import traffic
from corolib.net.streams import (
    Stream,
    is_between,
    is_sending,
    received,
    waits_for_data,
    waits_for_peer,
)

if TYPE_CHECKING:
    from corolib.net.limits import Limits

QUARTERS = 4
"""Looks in the time of a limit: who is idle is cancelled at most a quarter late."""

RATE_WINDOW = 30.0
"""Seconds over which a rate is measured: a pause of a few seconds, as radio links make, is none."""

SOON = 0.1
"""Seconds until one looks if somebody waits, and nobody is idle: ten looks a second cost little."""

SLICE = 200
"""Connections that are looked at in one turn: one or two milliseconds' worth."""

ROUNDING = 1e-6
"""Part of a limit that is forgiven, since times that are added up are not exact."""


class Progress:
    """What is known of the progress of one connection. There is one of these for each idle client:
    it holds nothing that can be had elsewhere.
    """

    __slots__ = (
        *("between", "closing", "counted", "cut", "received", "since", "stream", "task"),
        *("traffic", "unsent"),
    )

    def __init__(self, stream: Stream, since: float) -> None:
        self.stream = stream
        self.task: Any = None
        # When something was seen to have moved last; at first, when it was accepted.
        self.since = since
        # What the kernel kept for the peer when it was looked at last.
        self.unsent = 0
        # How many bytes had come then, whole records of TLS or not.
        self.received = 0
        # How many bytes the peer had taken and sent in all, and when that was counted; with a least
        # rate only.
        self.traffic = 0, 0
        self.counted = since
        # Whether the task is that of `aclose()`.
        self.closing = False
        # Whether it was cancelled by a `Watch`, and by whomever, between two messages.
        self.cut = self.between = False

    def cancel(self, reason: str) -> None:
        """Ask the task to end."""
        self.between = is_between(self.stream)
        self.task.cancel(reason)

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


class Places:
    """The places of all servers of a run, which have the files of the process together; lives as
    long as the run.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        # How many connections are open in all.
        self.taken = 0
        self.watches: dict[Watch, None] = {}
        # What wakes the servers that wait for a place.
        self.waiting: dict[Watch, Wake] = {}

    def is_free(self) -> None:
        """Have all who wait look, for whom there may be a place."""
        for watch in [watch for watch in self.waiting if not watch.is_full()]:
            self.waiting.pop(watch)()

    def make_room(self) -> None:
        """Cancel the connection that has been idle longest, of whatever server."""
        make_room(list(self.watches))

    def relax(self) -> None:
        """Have the next looks bear as much as ever, since somebody makes room."""
        for watch in self.watches:
            watch.pressed = False

    def end(self) -> None:
        self.watches.clear()


class Watch:
    """Looks at the connections of a server, and cancels those that its limits do not bear.

    Args:
        scheduler: sets the timers, and tells the time.
        limits: `idle_timeout`, `evict_idle`, `min_rate` and `max_connections` concern it.
        opened: the connections that are open. Their order is that of `since`, while it looks.
        counts: counts by name: of `idle`, `evicted` and `slow`.
        shares: whether its places are those of all servers of the run.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        limits: Limits,
        opened: OrderedDict[Progress, None],
        counts: dict[str, int],
        *,
        shares: bool,
    ) -> None:
        self._scheduler = scheduler
        self.places = scheduler.run_local(Places)
        self.places.watches[self] = None
        self.shares = shares
        self._opened = opened
        self._counts = counts
        self._idle = limits["idle_timeout"] or math.inf
        self._rate = limits["min_rate"] or 0
        self._evict = limits["evict_idle"] or math.inf
        self._most = limits["max_connections"] or math.inf
        # How many places are taken when one looks.
        self._enough = 1.0
        if self._idle == math.inf and not self._rate:
            self._enough = math.inf if self._evict == math.inf else self._most / 2
        window = RATE_WINDOW if self._rate else math.inf
        self.tick = min(self._idle, self._evict, window) / QUARTERS
        # How many connections are counted as open.
        self._taken = 0
        # The next look, if there is one, and when it is to be.
        self._timer: Any = None
        self._planned = math.inf
        # Seconds by which looks came late.
        self.late = 0.0
        # Until when nobody has to make room, since somebody takes leave who had to.
        self.content = -math.inf
        # Whether somebody waits for a place, and nobody was idle: the next look bears less.
        self.pressed = False

    # When to look -----------------------------------------------------------------------------

    def now(self) -> float:
        """Return the time, without that in which the program itself stood still. What peers did
        meanwhile has not been read yet.
        """
        clock = self._scheduler.clock()
        return clock - self.late - max(clock - self._planned, 0)

    def is_full(self) -> bool:
        """Return whether there is no place for another connection."""
        return (self.places.taken if self.shares else self._taken) >= self._most

    def took_one(self) -> None:
        """Note that one more connection is open: look from now on, if there are enough of them."""
        self._count()
        places = self.places
        if self._timer is None and self._enough <= (places.taken if self.shares else self._taken):
            for watch in places.watches:
                watch._begin()

    def lost_one(self) -> None:
        """Note that a connection has ended; look no more when it was the last."""
        self._count()
        self.content = -math.inf
        if self._timer is not None and not self._taken:
            self._scheduler.timers.cancel(self._timer)
            self._timer, self._planned = None, math.inf
        if self.places.waiting:
            self.places.is_free()

    def _count(self) -> None:
        """Count what is open. One more or less would not do: a beginning may fail before this."""
        many = len(self._opened)
        self.places.taken += many - self._taken
        self._taken = many

    def _begin(self) -> None:
        taken = self.places.taken if self.shares else self._taken
        if self._timer is None and self._taken and taken >= self._enough:
            self._look_at(self._scheduler.clock() + self.tick, None)

    def _look_at(self, deadline: float, rest: Iterable[Any] | None) -> None:
        self._timer = self._scheduler.timers.set(deadline, self._look, rest)
        self._planned = deadline

    def press(self) -> None:
        """Bear less at the next look, and look soon: of a crowd that is slow, each has to be found
        that makes room for one who waits.
        """
        self.pressed = True
        soon = self._scheduler.clock() + SOON
        if self._timer is not None and self._planned > soon:
            self._scheduler.timers.cancel(self._timer)
            self._look_at(soon, None)

    def _look(self, rest: Iterable[Any] | None) -> None:
        """Look at all connections, so many in each turn; `rest` are those that are left of them."""
        clock, now = self._scheduler.clock(), self.now()
        self.late = clock - now
        self._timer, self._planned = None, math.inf
        rest = iter(list(self._opened)) if rest is None else rest
        batch = list(islice(rest, SLICE))
        for connection in batch:
            if connection in self._opened:
                self._judge(connection, now)
        if len(batch) == SLICE:
            self._look_at(clock, rest)
        else:
            self.pressed = False
            self._begin()

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
        """Cut a connection whose peer lets too little move, and was waited for at each look. One on
        which nothing has moved is idle, for which there are other limits.
        """
        stream = connection.stream
        reads = waits_for_data(connection.task, stream)
        window = now - connection.counted
        enough = min(self._evict, RATE_WINDOW) if self.pressed else RATE_WINDOW
        waited = reads or connection.unsent
        if waited and window < enough * (1 - ROUNDING):
            return
        connection.counted = now
        before, connection.traffic = connection.traffic, traffic(stream)
        if not waited:  # for the peer: its task is to be stepped, or waits for something else
            return
        taken, come = (after - old for after, old in zip(connection.traffic, before, strict=True))
        least = self._rate * window
        # Who has taken nearly all is not slow, however little that was.
        rest = connection.unsent
        takes_slowly = taken < least and (is_sending(stream) or taken + rest >= least)
        if (takes_slowly and taken + come) or (reads and 0 < come < least):
            reason = f"less than {self._rate:g} bytes a second for {window:.0f} s"
            if not self._cancel(connection, "slow", reason):
                connection.close()
            if self.pressed:
                # One place was wanted. It may take leave for as long as one that was idle may.
                self.content = now + enough
                self.places.relax()

    def _cancel(self, connection: Progress, count: str, reason: str) -> bool:
        """Ask the task of a connection to end; return False if somebody has done so before."""
        if connection.task.cancel_request is not None:
            return False
        self._counts[count] += 1
        connection.cut = True
        connection.cancel(reason)
        return True

    # Making room ------------------------------------------------------------------------------

    def make_room(self) -> None:
        """Make room on this server, or, if it shares its places, on any."""
        if self.shares:
            self.places.make_room()
        else:
            make_room([self])

    def idlest(self, now: float) -> Progress | None:
        """Return the connection that has been idle longest, if that is long enough. It is one whose
        handler waits for its peer, if there is any.
        """
        found = None
        for connection in list(islice(self._opened, SLICE)):
            if connection.has_moved(now):
                # Behind the end none has been idle for long.
                self._opened.move_to_end(connection)
            elif now - connection.since < self._evict * (1 - ROUNDING):
                break
            elif connection.closing or waits_for_peer(connection.task, connection.stream):
                return connection
            else:
                found = found or connection
        return found

    def evict(self, connection: Progress, now: float) -> None:
        """Have a connection make room. It may take leave, for as long as it had to be idle, before
        another one has to.
        """
        reason = f"idle for {now - connection.since:.0f} s, and the server is full"
        if not self._cancel(connection, "evicted", reason):
            connection.close()
        # After the same time it is looked at again.
        connection.since = now
        self._opened.move_to_end(connection)
        self.content = now + self._evict


def make_room(watches: Iterable[Watch]) -> None:
    """Cancel the connection that has been idle longest of those that some servers have."""
    times = {watch: watch.now() for watch in watches}
    if any(now < watch.content for watch, now in times.items()):
        return
    longest, found = -math.inf, None
    for watch, now in times.items():
        connection = watch.idlest(now)
        if connection is not None and now - connection.since > longest:
            longest, found = now - connection.since, (watch, connection, now)
    if found is not None:
        watch, connection, now = found
        watch.evict(connection, now)
    else:
        for watch in times:
            watch.press()
