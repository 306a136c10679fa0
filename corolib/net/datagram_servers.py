"""Servers of datagrams: a handler for each, and whom it is wise to answer.

    run(serve_udp, echo, "127.0.0.1", 7007)             SIGTERM and Ctrl-C stop it gracefully

    server = sock.serve(echo, rate=1000)                sock: a `DatagramSocket`; does not wait
    report = yield from server.stop(grace=5)

The address of a datagram's sender can be forged. So its answer may hit somebody who has not asked,
or another service, which answers in turn, for ever. What there is against that is here, and is on
unless the program switches it off: the keywords are explained at `DatagramSocket.serve`.

How datagrams are received and sent is in `datagrams.py`, how a server stops in `serving.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any, Unpack

from corolib.coordination.timeouts import move_on_after
from corolib.kernel import (
    ClosedError,
    Runnable,
    Scheduler,
    Task,
    brief,
    is_a,
    public,
    waits,
)
from corolib.net.datagrams import DatagramSocket, open_udp
from corolib.net.handlers import DATAGRAM, check_handler
from corolib.net.limits import DatagramLimits as DatagramLimits
from corolib.net.limits import checked_for_datagrams
from corolib.net.network import address_text, refusal, source_of
from corolib.net.resolving import Port
from corolib.net.serving import Serving, StopReport, release, to_the_end

Answer = bytes | bytearray | memoryview | None
DatagramHandler = Callable[[bytes, Any], Answer | Runnable[Answer]]
"""What is called with each datagram and the address of its sender, and returns the answer."""

BYTES = (bytes, bytearray, memoryview)

SERVICES = 1024
"""Ports below belong to the services of a system; nobody asks from there (CERT CA-1996-01)."""

FRAME = 18
"""Bytes of a datagram that the smallest frame of Ethernet has room for, over IPv4: on the wire so
short an answer is no longer than a question of no bytes."""

WINDOW = 1.0
"""Seconds in which the answers to one source are counted."""

SOURCES = 10_000
"""Sources whose answers are counted, in a megabyte. When there are more, counting begins anew."""


class ServedPorts:
    """The ports of UDP that a run serves; lives as long as the run."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.ports: Counter[int | None] = Counter()

    def end(self) -> None:
        self.ports.clear()


@public
class DatagramServer(Serving):
    """A server of datagrams on a socket: `sock.serve(handler)` makes it.

    `report = yield from server` waits until it has ended, and `yield from server.stop(grace=5)`
    stops it: it takes no more datagrams, and handlers that wait may finish. For both, and for what
    signals do, see `Server`.

    Attributes:
        sock: the `DatagramSocket` that it serves; closed when it has ended.
        task: the server's own task, of which those of handlers that wait are children.
        stopping: an `Event` that is set when the server takes no more datagrams.
    """

    __documented__ = "stats"

    def __init__(
        self,
        sock: DatagramSocket,
        send: Callable[[Any, Any], object],
        handler: DatagramHandler,
        limits: DatagramLimits,
    ) -> None:
        self._limits: Any = checked_for_datagrams("serve", limits)
        check_handler("serve", handler, DATAGRAM)
        super().__init__(address_text(sock.local), self._limits["grace"])
        self.sock = sock
        self._send = send
        self._handler: Any = handler
        self._on_error = self._limits["on_error"]
        self._rate, self._amplify = self._limits["rate"], self._limits["amplify"]
        # How many handlers wait for each source.
        self._waiting: Counter[Any] = Counter()
        # How many answers each source has got since the clock showed `_since`.
        self._answers: dict[Any, int] = {}
        self._since = -math.inf
        names = ("received", "limited", "dropped", "answered", "withheld", "unsent", "failed")
        self._counts = dict.fromkeys((*names, "errors"), 0)
        # The block in which datagrams are received, and whether that goes on.
        self._receiving: move_on_after | None = None
        self._taking = True
        self._ports = self._scheduler.run_local(ServedPorts).ports
        self._begin_task(handler)

    # Questions --------------------------------------------------------------------------------

    def _serve(self) -> Generator[Any, Any, None]:
        sock = self.sock
        port = port_of(sock.local)
        self._ports[port] += 1
        # Whether receiving has failed when it was tried last.
        failing = False
        try:
            with move_on_after(None) as self._receiving:
                while self._taking:
                    try:
                        data, sender = yield from sock.recvfrom()
                    except ClosedError:
                        # By the program.
                        return
                    except (OSError, MemoryError) as exc:
                        # A complaint about an earlier answer, if it is the only one.
                        self._counts["errors"] += 1
                        if failing:
                            why = refusal(exc)
                            self.peer_log.warn("receiving", "nothing is received: %s", why)
                        failing = True
                    else:
                        failing = False
                        self._handle(data, sender)
        except GeneratorExit:
            # The run is cut short.
            self.abandon()
            raise
        finally:
            self._over = True
            self._receiving = None
            self._ports[port] -= 1
            self._stop_accepting()

    def _handle(self, data: bytes, sender: Any) -> None:
        """Give a datagram to the handler, if there is room for it."""
        counts = self._counts
        counts["received"] += 1
        question = None
        try:
            source = source_of(sender)
            now = self._scheduler.clock()
            if now >= self._since + WINDOW or len(self._answers) >= SOURCES:
                self._since = now
                self._answers.clear()
            elif self._answers.get(source, 0) >= self._rate:
                self._limit(source)
                return
            waiting = len(self._open)
            if waiting and (
                waiting >= self._limits["max_waiting"]
                or self._waiting[source] >= self._limits["max_per_address"]
            ):
                counts["dropped"] += 1
                return
            made = self._handler(data, sender)
            if not hasattr(made, "send"):
                self._answer(made, len(data), sender, source)
                return
            question = _Question(self, data, sender, source)
            self._open[question] = None
            self._waiting[source] += 1
            # As of each task that a server begins, the place is where that was begun.
            task = question.task = self._scheduler.start(made, (), site=self.task.site)
            task.watch(question)
        except Exception as exc:
            try:
                self._not_begun(question)
            finally:
                self._note_failure(exc, sender)

    # Answers ----------------------------------------------------------------------------------

    def _answer(self, answer: Answer, asked: int, sender: Any, source: Any) -> None:
        """Send an answer to a question of so many bytes, if it is wise to."""
        if answer is None:
            return
        if not isinstance(answer, BYTES):
            cure = "; text has encode()" if isinstance(answer, str) else ""
            what = f"an answer is bytes, or None{cure}"
            raise TypeError(f"the handler of {self!r} returned {brief(answer)}: {what}")
        counts = self._counts
        if not self._may_get(sender, len(answer), asked):
            counts["withheld"] += 1
            return
        got = self._answers.get(source, 0)
        if got >= self._rate:
            # It has asked often while the handlers waited.
            self._limit(source)
            return
        self._answers[source] = got + 1
        try:
            self._send(answer, sender)
        except OSError:
            # There is no room, or no way there: datagrams may get lost.
            counts["unsent"] += 1
        else:
            counts["answered"] += 1

    def _may_get(self, sender: Any, size: int, asked: int) -> bool:
        """Return whether a sender may get an answer of this size."""
        port = port_of(sender)
        if port is None:
            return bool(sender)
        if (port < SERVICES or self._ports.get(port)) and not self._limits["services"]:
            return False
        if size <= asked * self._amplify or size <= FRAME or is_here(sender[0]):
            return True
        if self._amplify == math.inf:
            # Also of a question of no bytes.
            return True
        text = "amplify: an answer of %s bytes to a question of %s was withheld"
        self.peer_log.warn("amplify", text, size, asked)
        return False

    def _limit(self, source: Any) -> None:
        self._counts["limited"] += 1
        self.peer_log.warn("rate", "rate: %s is answered no more in this second", source)

    def _ended(self, question: _Question) -> None:
        del self._open[question]
        release(self._waiting, question.source)
        self._settle()

    def _log_failure(self, error: BaseException, sender: Any) -> None:
        self.peer_log.fail(error, "the handler for %s failed", address_text(sender))

    # Stopping ---------------------------------------------------------------------------------

    def _stop_accepting(self) -> None:
        self._taking = False
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            self._scheduler.cancel_scope(self.task, receiving, "the server stops")
        self.stopping.set()
        self._settle()

    def _leave(self) -> None:
        self.sock.close()

    def abandon(self) -> None:
        """Close the socket, since the run is over: no task does it any more."""
        self.sock.close()

    # What is seen of it -----------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return counts and limits; does not wait.

        Counts of datagrams: `received`, of which `limited` by `rate=`, `dropped` for want of a
        place, `waiting` in their handlers just now, and `failed`. Of answers: `answered`,
        `withheld` since the sender may be a service or the answer is too long, and `unsent` for
        want of room or of a way. `errors` of receiving. Limits by their names.
        """
        names = ("rate", "amplify", "services", "max_waiting", "max_per_address", "grace")
        limits = {name: self._limits[name] for name in names}
        return {**self._counts, "waiting": len(self._open), **limits}

    def __repr__(self) -> str:
        state = "ended" if self.task.done else "serving" if self._taking else "stopping"
        return f"<DatagramServer on {self.place}, {state}, {len(self._open)} waiting>"


@public
@waits
def serve_udp(
    handler: DatagramHandler,
    host: str | None,
    port: Port,
    *,
    family: int = 0,
    **limits: Unpack[DatagramLimits],
) -> Generator[Any, Any, StopReport]:
    """Wait until a server, for UDP, has ended: `run(serve_udp, echo, "127.0.0.1", 7007)`.

    For what ends it, and for what comes back, see `serve_tcp`.

    Args:
        handler: called with each datagram and the address of its sender; returns the answer, bytes,
            or None. An ordinary function, or one that waits.
        host, port, family: see `open_udp(local=(host, port))`.
        rate, amplify, services, max_waiting, max_per_address, on_error, grace: the limits, see
            `DatagramSocket.serve`. With `run`: `run(serve_udp(echo, host, port, rate=10))`.

    Raises:
        OSError: the address cannot be bound; `socket.gaierror`: the name is not known.
        Cancelled: the wait was cancelled; the server is ended, and gone before the next wait.

    Example:
        >>> import corolib
        >>> def echo(data, sender):
        ...     return data
        >>> def main():
        ...     with corolib.move_on_after(0.01):
        ...         yield from corolib.serve_udp(echo, "127.0.0.1", 0, rate=1000)
        >>> corolib.run(main)
    """
    # What cannot be served is found before anything is opened.
    checked_for_datagrams("serve_udp", limits, "family")
    check_handler("serve_udp", handler, DATAGRAM)
    with (yield from open_udp(local=(host, port), family=family)) as sock:
        return (yield from to_the_end(sock.serve(handler, **limits)))


class _Question:
    """A datagram whose handler waits. It is called when that and its children are done."""

    __slots__ = ("asked", "peer", "server", "source", "task")
    # As a connection has it whose handler is over.
    closing = False

    def __init__(self, server: DatagramServer, data: bytes, sender: Any, source: Any) -> None:
        self.server = server
        self.asked = len(data)
        self.peer = sender
        self.source = source
        self.task: Any = None

    def __call__(self, answer: Any, error: BaseException | None) -> None:
        server = self.server
        try:
            if error is None:
                server._answer(answer, self.asked, self.peer, self.source)
        except Exception as exc:
            error = exc
        try:
            if not self.task.cancelled:
                server._finished += not server._taking and not server._cancelled
                if error is not None and not is_a(error, (SystemExit, KeyboardInterrupt)):
                    server._note_failure(error, self.peer)
        finally:
            server._ended(self)

    def cancel(self, reason: str) -> None:
        self.task.cancel(reason)

    def child_failed(self, task: Task[Any] | None, error: BaseException) -> None:
        """Note what has left a child of the handler, as if it had left that."""
        self.server._note_failure(error, self.peer)


def port_of(address: Any) -> int | None:
    """Return the port of an address, None for that of a Unix socket."""
    return address[1] if isinstance(address, tuple) else None


def is_here(host: str) -> bool:
    """Return whether an address is the loopback interface's, which nobody elsewhere can forge."""
    return host.startswith("127.") or host == "::1"
