"""What all servers have: a task, handlers that are under way, and an end that lets them finish.

    class Server(Serving): ...                  `_serve()` takes in what comes, until it is to stop

    report = yield from server.stop(grace=5)    who had to be cancelled, and where it stood

A server for TCP and Unix sockets is in `servers.py`, one for datagrams in `datagram_servers.py`;
what signals do to all servers of a run is in `stopping.py`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from corolib.coordination.locks import Event
from corolib.coordination.tasksets import leave_behind
from corolib.kernel import (
    Deadlock,
    Documented,
    Suspend,
    Task,
    TaskCancelled,
    check_number,
    current_scheduler,
    current_task,
    doing,
    name_of,
    public,
    spawn,
    waits,
    where,
)
from corolib.net.network import address_text
from corolib.net.peer_log import PeerLog, server_log
from corolib.net.stopping import Servers

NAMED = 20
"""Handlers that the text of a report names."""


class CancelledHandler(NamedTuple):
    """One handler that had to be cancelled: its task, its peer, where it stood and why."""

    task: str
    peer: Any
    where: str
    doing: str

    def __str__(self) -> str:
        return f"{self.task} for {address_text(self.peer)} at {self.where}: {self.doing}"


@public
class StopReport(NamedTuple):
    """The end of a server: how many handlers `finished`, and those that were `cancelled`."""

    finished: int
    cancelled: Sequence[CancelledHandler]

    def __str__(self) -> str:
        text = f"{self.finished} finished, {len(self.cancelled)} had to be cancelled"
        lines = [text, *map(str, self.cancelled[:NAMED])]
        if len(self.cancelled) > NAMED:
            lines.append(f"and {len(self.cancelled) - NAMED} more")
        return "\n  ".join(lines)


class Serving(metaclass=Documented):
    """A server of any kind. What derives from it says what it takes in, and how it stops that.

    Args:
        place: its addresses, as messages name them.
        grace: seconds that handlers are given to finish, where `stop()` names no other time.
    """

    __documented__ = "stop"
    task: Task[None]
    # Called with what leaves a handler and with whom that was for; None: it is logged.
    _on_error: Callable[[BaseException, Any], object] | None

    def __init__(self, place: str, grace: float) -> None:
        self._scheduler = current_scheduler()
        self.place = place
        self.log = server_log()
        self.peer_log = PeerLog(place, self._scheduler)
        self.grace = grace
        # What is under way: each has a `task` and a `peer`, says whether it is `closing`, its
        # handler over, and takes a `cancel(reason)`.
        self._open: OrderedDict[Any, None] = OrderedDict()
        self._cut_call: list[Any] | None = None
        self._counts: dict[str, int] = {}
        # Handlers that have finished since it began to stop.
        self._finished = 0
        self._cancelled: list[CancelledHandler] = []
        # Whether the body of the task is over, and whether a signal has stopped the server.
        self._over = self._signalled = False
        self.stopping = Event("stopping")

    def _begin_task(self, handler: object) -> None:
        """Begin to serve, by a task that is named after the handler."""
        self.name = name_of(handler)
        self.task = spawn(self._serve, name=f"serve {self.name}")
        self._servers = self._scheduler.run_local(Servers)
        self._servers.add(self)

    @abstractmethod
    def _serve(self) -> Generator[Any, Any, None]:
        """Take in what comes, and at the end set `_over` and call `_stop_accepting()`."""

    @abstractmethod
    def _stop_accepting(self) -> None:
        """Take nothing in any more, set `stopping`, and call `_settle()`."""

    @abstractmethod
    def abandon(self) -> None:
        """Close all that is open, since the run is over: no task does it any more."""

    # What is under way ------------------------------------------------------------------------

    @abstractmethod
    def _ended(self, each: Any) -> None:
        """What was under way is over: it is done, and its children are."""

    def _not_begun(self, each: Any) -> None:
        """What was to be under way could not be begun whole, for want of memory: end it."""
        if each not in self._open:
            return
        try:
            task = each.task
            if task is not None:
                if task.joiners:
                    task.joiners.pop(each, None)
                task.cancel("nobody would learn of its end")
        finally:
            self._ended(each)

    # Failures ---------------------------------------------------------------------------------

    def _note_failure(self, error: BaseException, whom: Any) -> None:
        """Count what has left a handler, and report it: `whom` is what the hook is told."""
        self._counts["failed"] += 1
        # Later: what the hook raises is then reported, and reaches nobody. Without the memory for
        # that it is just counted.
        report = self._on_error or self._log_failure
        with suppress(MemoryError):
            self._scheduler.call_soon_threadsafe(report, error, whom)

    @abstractmethod
    def _log_failure(self, error: BaseException, whom: Any) -> None:
        """Log what has left a handler."""

    # Stopping ---------------------------------------------------------------------------------

    @waits
    def stop(self, grace: float | None = None) -> Generator[Any, Any, StopReport]:
        """Wait until the server has ended: it takes nothing new from now on; handlers may finish.

        `stopping` is set. Handlers that are not done after the grace are cancelled, and waited for:
        one that is in `shield(...)` then for as long as that holds, in `shield(math.inf)` to the
        end of the block. Asking again can only shorten the grace.

        Args:
            grace: seconds, instead of the server's own `grace`; `math.inf` for any time.

        Returns:
            A report: `finished`, and `cancelled`, which names each handler that had to be
            cancelled: `task`, `peer`, `where` it stood and what it was `doing`.

        Raises:
            Deadlock: called by a handler of this server, for whose end it would wait. Write
                `spawn(server.stop(), parent=current_scheduler().main)`.
            What the server failed with: its socket was shut down, for instance.
            Cancelled: the wait was cancelled; the server stops all the same.
        """
        self._refuse_handlers()
        self._stop_within(grace)
        try:
            yield from self._end()
        except TaskCancelled:
            # Somebody has cancelled the server's task.
            pass
        return self._report()

    def _refuse_handlers(self) -> None:
        task: Task[Any] | None = current_task()
        while task is not None:
            if task is self.task:
                raise Deadlock(
                    f"a handler waits for the end of {self!r}, which comes only after its own: "
                    "write `spawn(server.stop(), parent=current_scheduler().main)`"
                )
            task = task.parent

    def _stop_within(self, grace: float | None) -> None:
        """Begin to stop; the handlers have `grace` seconds from now."""
        if grace is None:
            grace = self.grace
        deadline = self._scheduler.clock() + check_number(grace, "stop()", "a duration")
        self._stop_accepting()
        call = self._cut_call
        if self._open and deadline < (math.inf if call is None else call[0]):
            self._forget_cut()
            self._cut_call = self._scheduler.call_at(deadline, self._cut, None)

    def _cut(self, _: None) -> None:
        """The grace is over: cancel what is left, and write down who it was."""
        self._cut_call = None
        # Those that an earlier grace has cancelled, and that are not gone yet.
        known = {report.task for report in self._cancelled}
        for each in list(self._open):
            task = each.task
            if not each.closing and task.label not in known:
                found = CancelledHandler(task.label, each.peer, where(task), doing(task))
                self._cancelled.append(found)
            each.cancel("the server stops")

    def _forget_cut(self) -> None:
        if self._cut_call is not None:
            self._scheduler.timers.cancel(self._cut_call)
            self._cut_call = None

    def _settle(self) -> None:
        """If nothing is under way, no grace is needed any more; and the server may have ended."""
        if self._open:
            return
        self._forget_cut()
        if self._over:
            self._leave()
            is_new = self._servers.ended(self)
            if is_new and self._signalled and self._cancelled and self.grace:
                # Nobody may look at what `run()` returns. Without a grace it is what was asked for.
                self.log.warning("%s: stopped: %s", self.place, self._report())

    def under_way(self) -> tuple[int, int]:
        """Return how many handlers are, and how many connections are only being closed."""
        closing = sum(each.closing for each in self._open)
        return len(self._open) - closing, closing

    def _leave(self) -> None:
        """Let go of what lasts to the end: the last that was under way is over."""

    def stop_for_signal(self) -> None:
        """Begin to stop, since a signal ends the run."""
        self._signalled = True
        self._stop_within(None)

    def _report(self) -> StopReport:
        return StopReport(self._finished, tuple(self._cancelled))

    # Waiting for the end ----------------------------------------------------------------------

    def __iter__(self) -> Generator[Any, Any, StopReport]:
        self._refuse_handlers()
        return (yield from self._end())

    __await__ = __iter__

    def _ending(self) -> Suspend[None]:
        return Suspend(self.task.watch, f"the end of {self!r}", holder=[self.task].copy)

    def _end(self) -> Generator[Any, Any, StopReport]:
        yield self._ending()
        return self._report()


def release(counts: Counter[Any], source: Any) -> None:
    """Count one less of a source, which may not have been counted yet."""
    left = counts[source] - 1
    if left > 0:
        counts[source] = left
    else:
        counts.pop(source, None)


def to_the_end(server: Serving) -> Generator[Any, Any, StopReport]:
    """Wait until a server has ended, which ends with this wait."""
    try:
        return (yield from server)
    finally:
        owner = server.task.parent
        assert owner is not None
        leave_behind(owner, [server.task], "its owner went on")
