"""Servers: a handler for each connection, with limits, and an end that lets it finish.

    run(serve_tcp, echo, "127.0.0.1", 7007)             SIGTERM and Ctrl-C stop it gracefully

    listener = listen_tcp("127.0.0.1", 7007)            does not wait; also before any run
    server = listener.serve(echo, max_connections=500)  does not wait
    report = yield from server.stop(grace=5)            who had to be cancelled, and where it stood

Each connection is a task of its own, a child of the server's. It counts as open, and its stream
stays open, until that task *and its children* are done. A failure of a handler is reported with
its peer, and concerns nobody else.

How sockets are opened and connections accepted is in `listening.py`, how limits are checked in
`limits.py`, who is idle or slow in `progress.py`, and what is logged in `peer_log.py`. How a server
stops is in `serving.py`, and what signals do to all servers of a run in `stopping.py`. Several
processes that serve one listener are in `system/workers.py`.
"""

from __future__ import annotations

import errno
import math
import os
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Unpack

from corolib.coordination.first import first
from corolib.coordination.tasksets import call_here
from corolib.kernel import (
    CancelScope,
    ClosedError,
    Runnable,
    Sleep,
    Suspend,
    Task,
    Wake,
    attribute,
    brief,
    check_count,
    class_module,
    class_name,
    is_a,
    public,
    told,
    trace_of,
    waits,
)
from corolib.net.handlers import STREAM, check_handler
from corolib.net.limits import Limits, checked
from corolib.net.listening import BACKLOG, PAUSE, Listening, inherited, tcp_sockets, unix_socket
from corolib.net.network import address_text, source_of, tcp_options, unix_path
from corolib.net.progress import Progress, Watch
from corolib.net.proxy_header import Proxies, ProxyHeaderError, read_header
from corolib.net.serving import Serving, StopReport, release, to_the_end
from corolib.net.streams import (
    IncompleteRead,
    LimitExceeded,
    Stream,
    break_off,
    held_back,
    introduce,
    received,
)
from corolib.net.tls import is_cut_off

Handler = Callable[[Stream], Runnable[Any]]
"""What is called with each connection: a generator function or an `async def`."""

PEERS = (LimitExceeded, IncompleteRead)
"""Failures that clients can bring about at will."""

GONE = (
    *(errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ENETDOWN, errno.ENETUNREACH),
)
"""Numbers that say, as a ConnectionError does, that the peer is there no more."""


@public
class Listener(Listening):
    """Sockets that listen: made by `listen_tcp()` and `listen_unix()`, inside or outside of a run.

    `server = listener.serve(handler)` serves what comes in; `stream = yield from listener.accept()`
    waits for one connection, for those who write a loop of their own. `with listener:` closes it
    at the end of the block. `addresses` are those of its sockets, in order.

    Args:
        sockets: stream sockets that listen. The listener owns them from here on, and makes them
            non-blocking.
        file: the file of a Unix socket, to be removed when the listener is closed.
        backlog: what `listen()` was called with, for `stats()`.

    Example:
        >>> import corolib
        >>> def main():
        ...     with corolib.listen_tcp("127.0.0.1", 0) as listener:
        ...         client = yield from corolib.open_tcp(*listener.addresses[0])
        ...         server = yield from listener.accept()
        ...         with client, server:
        ...             yield from client.sendall(b"hello")
        ...             return (yield from server.recv(100))
        >>> corolib.run(main)
        b'hello'

    Source: trio's and curio's listeners.
    """

    __documented__ = "serve"
    _served = False

    def serve(self, handler: Handler, **limits: Unpack[Limits]) -> Server:
        """Serve connections, by a task of its own; does not wait. The caller owns the server.

        Args:
            handler: called with each connection, a `Stream`; a generator function or an `async
                def`. When it and its children are done the stream is closed: gracefully after a
                return, at once after a failure or a cancel.
            max_connections: while as many are open, no more are accepted; they wait in the backlog.
                By default the limit of open files less 64, or half of it if it is below 128: a
                program whose handlers open files gives a smaller number. The servers of a run that
                give none share this number.
            evict_idle: when the server is full and a client waits, the connection that has been
                idle longest is cancelled, if it has been for at least so many seconds, by default
                10; None: it is not. Idle is as for `idle_timeout`.
            max_per_address: connections that one address may have open, or one network of IPv6
                (/64), or on a Unix socket one user; more are closed at once. By default any number.
            min_rate: bytes that have to move in a second, on average over half a minute, while the
                handler waits for the peer; a connection with fewer is cancelled. While the server
                is full, a client waits and no connection is idle, the average over `evict_idle`
                seconds counts. A connection without any is idle, and one in `stream.more()`,
                between two messages, is not slow. By default there is no such limit. It holds for
                TCP on Linux.
            accept: called with the address of each peer, or, on a Unix socket, with its
                `PeerCredentials`; a false answer closes the connection.
            idle_timeout: seconds without a byte in either direction, after which the handler is
                cancelled; found at most a quarter late. Bytes that the peer takes from those which
                the kernel keeps for it count, too; this is seen in lumps of up to some hundred KB.
                After as many more seconds the stream is closed, in case that the handler has
                swallowed its `Cancelled`, or is shielded from it.
            max_line: the `max_line` of the streams: bytes that a line may have.
            max_message: their `max_message`: bytes that `readexactly()` and `readuntil()` read. By
                default the former is not bounded, and the latter by `max_line`.
            tls: the server's `ssl.SSLContext`. The handshake is part of the connection's task.
            handshake: seconds that it may take; by default 10. When the server stops, one that the
                client has not begun ends at once.
            on_error: called as `f(exc, stream)` with what leaves a handler, or a child that no task
                joins. By default it is logged to "corolib.server" with the peer's
                address: an error with a traceback, or a warning where clients can bring it about (a
                timeout, a line too long, a bad handshake). Of each kind there is one line in ten
                seconds at most; the next one says how many were left out. A peer that resets its
                connection, ends TLS without a close_notify, leaves in the handshake or cannot be
                reached any more, is counted, and is no failure.
            proxy_from: the balancers that are trusted, as addresses and networks:
                `["10.0.0.0/8"]`; "unix" is every peer of a Unix socket. Each of their connections
                begins with a header of the PROXY protocol, version 1 or 2, before TLS. It has the
                client's address: that is `stream.peer`, and `accept` and `max_per_address` apply to
                it. A connection without a correct header is closed within the time of `handshake`.
                A header from any other peer is data.
            grace: seconds that handlers are given to finish, where `stop()` names no other time;
                by default 5.
            drain: seconds that a peer is given to read the rest, and to end, after the handler has
                returned, while nothing moves; by default 5.
            drain_limit: seconds for that in all; by default 60.

        Raises:
            TypeError, ValueError: a limit is not of its kind, or there is none of this name; the
                handler has no `yield`, or does not take one argument.
            RuntimeError: no scheduler runs in this thread; the listener is served already.
            ClosedError: the listener is closed.
        """
        known = checked("serve", limits)
        check_handler("serve", handler, STREAM)
        if self._served:
            raise RuntimeError(f"{self!r} is served already: a listener has one server")
        if self.closed:
            raise ClosedError(f"{self!r} cannot be served any more")
        server = Server(self, handler, known, shares="max_connections" not in limits)
        self._served = True
        return server


@public
class Server(Serving):
    """A server on a listener: `listener.serve(handler)` makes it.

    `report = yield from server` waits until it has ended; a wait that is cancelled leaves it
    running. SIGTERM, unless the program handles it, and Ctrl-C stop it, as they do all servers of
    the run: see `serve_tcp`.

    Attributes:
        listener: what it serves; closed when it has ended.
        task: the server's own task, of which those of the handlers are children. To cancel it,
            or the task that owns it, cancels the handlers too, with no time to finish but for the
            grace of the run.
        stopping: an `Event` that is set when the server takes no more connections. Handlers that
            go on for long wait for it, and end.
    """

    __documented__ = "stats"

    def __init__(
        self, listener: Listener, handler: Handler, limits: Limits, *, shares: bool
    ) -> None:
        super().__init__(listener.place, limits["grace"])
        self.listener = listener
        self._handler = handler
        self._limits = limits
        self._accept = limits["accept"]
        self._max_line = limits["max_line"]
        self._max_message = limits["max_message"]
        self._share = limits["max_per_address"]
        self._proxies: Proxies | None = limits["proxy_from"]  # type: ignore[assignment]
        # What waits for the first byte of a proxy or of a handshake, and on which stream.
        self._silent: dict[CancelScope, Stream] = {}
        self._picks = bool(self._proxies or self._accept is not None or self._share is not None)
        # How many are open of each source, and of which each is, if that is limited.
        self._sources: Counter[Any] = Counter()
        self._source_of: dict[Stream, Any] = {}
        self._tls: Any = limits["tls"]
        self._on_error = limits["on_error"]
        # Until when those who come are not taken by another process.
        self._crowded_until = -math.inf
        names = ("accepted", "refused", "crowded", "failed", "reset", "idle", "evicted", "slow")
        self._counts = dict.fromkeys((*names, "full"), 0)
        self._watch = Watch(self._scheduler, limits, self._open, self._counts, shares=shares)
        self.listener.ran_out = self._watch.places.make_room
        self._begin_task(handler)

    # Accepting --------------------------------------------------------------------------------

    def _serve(self) -> Generator[Any, Any, None]:
        try:
            while True:
                try:
                    if self._watch.is_full():
                        self._counts["full"] += 1
                        if self._watch.shares:
                            text = "%s connections are open, all `ulimit -n` bears; others wait"
                            self.peer_log.warn("full", text, self._watch.places.taken)
                        yield from self._wait_for_room()
                    # Nothing here refers to the stream: one that does not get as far is closed.
                    self._begin((yield from self.listener.take()))
                    continue
                except MemoryError as exc:
                    # What the system lacks is known where it was asked; here, what Python does.
                    self.listener.report(exc)
                yield Sleep(PAUSE)
        except ClosedError:
            if not self.listener.closed:
                raise
        finally:
            self._over = True
            self._stop_accepting()

    def _is_full(self) -> bool:
        return self._watch.is_full() and not self.stopping.is_set()

    def _wait_for_room(self) -> Generator[Any, Any, None]:
        """Wait until one more may be open. If nobody is idle for long, somebody has to leave."""
        what = "a place for one more connection"
        place: Suspend[None] = Suspend(
            self._wait_for_place, what, holder=lambda: [c.task for c in self._open]
        )
        if self._limits["evict_idle"] is None:
            while self._is_full():
                yield place
            return
        # Nobody has to leave for somebody who may never come.
        while self._is_full():
            try:
                if (yield from self._is_somebody_there(place)):
                    break
                continue
            except OSError as exc:
                if self.listener.is_dead(exc):
                    raise
                self.listener.report(exc)
            yield Sleep(PAUSE)
        while self._is_full():
            self._watch.make_room()
            yield from first(place, Sleep(self._watch.tick))

    def _is_somebody_there(self, place: Suspend[None]) -> Generator[Any, Any, bool]:
        """Wait until somebody has come; return False if there may be a place, or another process,
        which serves the same sockets, has taken whoever it was.
        """
        arrivals, clock = self.listener.arrivals, self._scheduler.clock
        index, _ = yield from first(place, *arrivals)
        # In a crowd, one pause is enough for many: other processes have no place, either.
        if index and clock() >= self._crowded_until:
            index, _ = yield from first(place, Sleep(PAUSE))
            if index:
                index, _ = yield from first(place, *arrivals, Sleep(0.001))
            self._crowded_until = clock() + PAUSE
        return 1 <= index <= len(arrivals)

    def _wait_for_place(self, wake: Wake) -> Callable[[], object]:
        watch = self._watch
        watch.places.waiting[watch] = wake
        return lambda: watch.places.waiting.pop(watch, None)

    def _stop_accepting(self) -> None:
        self.stopping.set()
        self.listener.close()
        for scope, stream in self._silent.items():
            if not _has_begun(stream):
                scope.cancel("the server stops")
        wake = self._watch.places.waiting.pop(self._watch, None)
        if wake is not None:
            wake()
        self._settle()

    def _leave(self) -> None:
        self._watch.places.watches.pop(self._watch, None)

    def _begin(self, stream: Stream) -> None:
        """Give a new connection to its handler."""
        self._counts["accepted"] += 1
        stream.server = self
        if self._max_line is not None:
            stream.max_line = self._max_line
        if self._max_message is not None:
            stream.max_message = self._max_message
        body: Any = self._handler if self._tls is None else self._handle_tls
        connection = None
        try:
            if self._picks:
                if self._proxies and self._proxies.trusts(stream.peer):
                    body = self._handle_proxied
                elif not self._is_welcome(stream):
                    self._close(stream)
                    return
            # Whatever needs memory is done before there is a task, as far as that can be.
            connection = _Connection(self, stream)
            self._open[connection] = None
            self._watch.took_one()
            # Our own task's place is named: to look for it each time would cost 9000 instructions.
            task = self._scheduler.start(body, (stream,), self.name, site=self.task.site)
            connection.task = task
            task.watch(connection)
        except Exception as exc:
            # The predicate has failed, the handler is no generator function, or memory is short.
            try:
                self._not_begun(connection)
                self._leave_source(stream)
            finally:
                self._close(stream)
                self._note_failure(exc, stream)

    def _is_welcome(self, stream: Stream) -> bool:
        """Return whether a new connection is to be served; else count it."""
        who = _who(stream)
        if self._accept is not None and not self._accept(who):
            self._counts["refused"] += 1
            return False
        if self._share is not None:
            source = source_of(who)
            if self._sources[source] >= self._share:
                self._counts["crowded"] += 1
                return False
            # First: what is not counted may be released.
            self._source_of[stream] = source
            self._sources[source] += 1
        return True

    def _leave_source(self, stream: Stream) -> None:
        """A connection is over: it counts for its source no more, if it did."""
        if stream in self._source_of:
            release(self._sources, self._source_of.pop(stream))

    def _handle_proxied(self, stream: Stream) -> Generator[Any, Any, Any]:
        """Learn from a proxy who the client is, and serve that, if it is welcome."""
        within = self._limits["handshake"]
        begun = self._scheduler.clock()
        peer = yield from read_header(stream, within, self._silent)
        if peer is None:
            # It has only looked whether somebody listens; or it has nobody to be served yet.
            self._counts["reset"] += stream.ended
            self._close(stream)
            return None
        introduce(stream, peer)
        if not self._is_welcome(stream):
            self._close(stream)
            return None
        if self._tls is None:
            return (yield from call_here("serve", self._handler, (stream,)))
        left = within - (self._scheduler.clock() - begun)
        return (yield from self._handle_tls(stream, left))

    def _handle_tls(self, stream: Stream, within: float | None = None) -> Generator[Any, Any, Any]:
        if within is None:
            within = self._limits["handshake"]
        with CancelScope() as hello:
            self._silent[hello] = stream
            try:
                yield from stream.start_tls(self._tls, server_side=True, within=within)
            finally:
                del self._silent[hello]
        if hello.cancelled_caught:
            return None
        return (yield from call_here("serve", self._handler, (stream,)))

    # The end of a connection ------------------------------------------------------------------

    def _note_outcome(
        self, connection: _Connection, value: Any, error: BaseException | None
    ) -> None:
        """A handler has ended: count that, and report a failure, or an answer that is not sent."""
        if connection.task.cancelled:
            return
        # Its listener is closed when it stops: to ask `stopping` takes four calls.
        if self.listener.closed and not self._cancelled:
            self._finished += 1
        if error is not None:
            self._judge(error, connection)
        elif type(value) in (bytes, bytearray, str) and value:
            self.peer_log.warn(
                f"{self.name}() returned",
                "%s() returned %s, which is not sent: write `yield from stream.sendall(data)`",
                *(self.name, brief(value)),
            )

    def _judge(self, error: BaseException, connection: _Connection) -> None:
        """Count what has left a handler or a child of it, and report it if it is a failure."""
        if is_a(error, (SystemExit, KeyboardInterrupt)):
            return
        stream, leaves = connection.stream, _leaves(error)
        ours = all(_is_of(stream, each) for each in leaves)
        if ours and connection.closed and all(is_a(each, ClosedError) for each in leaves):
            # It was cut before, and is counted as that.
            return
        if ours and all(map(_is_gone, leaves)):
            self._counts["reset"] += not connection.gone
            connection.gone = True
        else:
            self._note_failure(error, stream)

    def _log_failure(self, error: BaseException, stream: Stream) -> None:
        peer, leaves = address_text(stream.peer), _leaves(error)
        if all(_is_up_to_peer(stream, each) for each in leaves):
            text = "; ".join(map(told, leaves))
            self.peer_log.warn(class_name(leaves[0]), "the peer %s: %s", peer, text)
        else:
            self.peer_log.fail(error, "the handler for %s failed", peer)

    def _close(self, stream: Stream) -> None:
        """Close a stream. If that fails, somebody has closed its number: one failure more."""
        try:
            stream.close()
        except OSError as exc:
            self._note_failure(exc, stream)

    def _ended(self, connection: _Connection) -> None:
        del self._open[connection]
        if self._share is not None:
            self._leave_source(connection.stream)
        self._watch.lost_one()
        self._settle()

    def abandon(self) -> None:
        """Close all connections, since the run is over: no task does it any more."""
        self.listener.close()
        for connection in list(self._open):
            connection.close()

    def stats(self) -> dict[str, Any]:
        """Return counts and limits; does not wait.

        Counts: `accepted`, of which `refused` by `accept=` and `crowded` by `max_per_address=`,
        still `open`, `failed` (what `on_error` is called with) and `reset` (their peers were gone).
        Of those that were cancelled: `idle` by `idle_timeout=`, `evicted` to make room, and `slow`
        by `min_rate=`. `full`: how often accepting stopped at `max_connections`; `lost`, gone
        before they were accepted; `pauses` of accepting for want of files. Limits by their names,
        None where there is none.
        """
        names = ["max_connections", "max_per_address", "evict_idle", "idle_timeout", "min_rate"]
        names += ["max_line", "max_message", "handshake", "grace", "drain", "drain_limit"]
        return {
            **self._counts,
            "open": len(self._open),
            "lost": self.listener.lost,
            "pauses": self.listener.pauses,
            "backlog": self.listener.backlog,
            **{name: self._limits[name] for name in names},  # type: ignore[literal-required]
        }

    def __repr__(self) -> str:
        state = "ended" if self.task.done else "stopping" if self.stopping.is_set() else "serving"
        return f"<Server on {self.place}, {state}, {len(self._open)} open>"


def _has_begun(stream: Stream) -> bool:
    """Return whether something has come on a stream, also if nobody has read it yet."""
    if received(stream):
        return True
    try:
        return bool(stream.socket.recv(1, socket.MSG_PEEK))
    except OSError:  # nothing, or the client is gone
        return False


class _Connection(Progress):
    """One open connection. It is called when its task, the handler's, and the children are done."""

    __slots__ = ("closed", "gone", "server")

    def __init__(self, server: Server, stream: Stream) -> None:
        Progress.__init__(self, stream, server._scheduler.clock() - server._watch.late)
        self.server = server
        # Whether it is counted as reset, and whether the server has closed the stream itself.
        self.gone = self.closed = False

    def __call__(self, value: Any, error: BaseException | None) -> None:
        server, stream = self.server, self.stream
        goes_on = False
        try:
            if not self.closing:
                server._note_outcome(self, value, error)
            elif error is not None and is_a(error, OSError):
                # `aclose()` passes over all failures but that of the close itself, and an alert.
                server._note_failure(error, stream)
            # TLS ends each direction by a close_notify of its own.
            ended = stream.ended and stream.tls is None
            if error is None and not (self.closing or ended):
                self.closing = True
                limits = server._limits
                draining = stream.aclose(limits["drain_limit"], quiet=limits["drain"])
                self.task = server._scheduler.spawn(draining, parent=server.task)
                self.task.watch(self)
                goes_on = True
                return
            if self.cut and (held_back(stream) if self.between else stream.unsent()):
                # Else the kernel would keep it for a peer that does not take it. One that has got a
                # whole message may just not have acknowledged it: a reset would take it away again.
                stream.reset()
            if error is not None:
                self._break_off()
        finally:
            # This is the end of it also if something of that has failed, for want of memory.
            if not goes_on:
                try:
                    server._close(stream)
                finally:
                    server._ended(self)

    @property
    def peer(self) -> Any:
        return self.stream.peer

    def close(self) -> None:
        self.closed = True
        self._break_off()
        self.server._close(self.stream)

    def _break_off(self) -> None:
        """Note that what the handler has sent is not all: it has not returned, nor was it cancelled
        between two messages.
        """
        if not (self.between and self.task.cancelled):
            break_off(self.stream)

    def child_failed(self, task: Task[Any] | None, error: BaseException) -> None:
        """Note what has left a child of the handler, as if it had left that."""
        break_off(self.stream)
        self.server._judge(error, self)


# The public calls ---------------------------------------------------------------------------------


@public
def listen_tcp(
    host: str | Sequence[str] | None = None,
    port: int | str | None = None,
    *,
    family: int = 0,
    backlog: int = BACKLOG,
    reuse_port: bool = False,
    keepalive: float | None = None,
    user_timeout: float | None = None,
    fd: int | Sequence[int] | None = None,
) -> Listener:
    """Open sockets that listen for TCP connections: `listener = listen_tcp("127.0.0.1", 7007)`.

    Does not wait, but looks names up on the spot, as `socket.create_server` does: call it at the
    start, also before `run()`, and before a fork that several processes shall serve it after.

    Args:
        host: a name or an address, or several; None for all of this machine. A name that has
            several addresses is listened for on each, IPv6 and IPv4, with one port.
        port: a number, or the name of a service; 0 for a free one, see `listener.addresses`.
        family: `socket.AF_INET` or `AF_INET6`, to have no addresses of the other kind.
        backlog: connections that may wait to be accepted.
        reuse_port: share the port with other sockets that ask for it too; the kernel deals
            connections out among them.
        keepalive, user_timeout: seconds until a client that has vanished is noticed, with nothing
            under way and with something: see `open_tcp`.
        fd: instead of host and port: the number, or numbers, of inherited sockets that listen.

    Raises:
        OSError: the address is in use, or is not this machine's; `socket.gaierror`: the name is
            not known. Then nothing is left open.
        ValueError: an inherited socket is not a TCP socket that listens; it stays the caller's. Or
            there is no host, as "" is none, or one that cannot be a name; no port has this number.
        TypeError: neither a port nor inherited sockets are given, or both.

    Example:
        >>> import corolib
        >>> with corolib.listen_tcp("127.0.0.1", 0) as listener:
        ...     host, port = listener.addresses[0]
        >>> host
        '127.0.0.1'

    Source: socket.create_server, trio.open_tcp_listeners.
    """
    if (port is None) == (fd is None) or (host is not None and fd is not None):
        raise TypeError("listen_tcp() takes a host and a port, or sockets that listen, as fd=")
    if fd is not None:
        options = tcp_options("listen_tcp", keepalive, user_timeout)
        return Listener(inherited(fd, (socket.AF_INET, socket.AF_INET6), "listen_tcp", options))
    assert port is not None
    return _listen_tcp(
        "listen_tcp", host, port, family, backlog, reuse_port, keepalive, user_timeout
    )


def _listen_tcp(
    caller: str,
    host: str | Sequence[str] | None,
    port: int | str,
    family: int,
    backlog: int,
    reuse_port: bool,
    keepalive: float | None,
    user_timeout: float | None,
) -> Listener:
    """Do it for `caller`, which messages name."""
    options = tcp_options(caller, keepalive, user_timeout)
    check_count(backlog, f"{caller}(backlog=)", 0)
    given = f"{caller}({brief(host)}, {brief(port)})"
    if isinstance(host, int):
        raise TypeError(f"{given}: the host comes first, then the port")
    hosts = (host,) if host is None or isinstance(host, str) else tuple(host)
    if not hosts or "" in hosts:
        raise ValueError(f"{given}: no host; None is all of this machine")
    return Listener(tcp_sockets(hosts, port, family, backlog, reuse_port, options), backlog=backlog)


@public
def listen_unix(
    path: str | bytes | os.PathLike[str] | None = None,
    *,
    mode: int | None = None,
    backlog: int = BACKLOG,
    fd: int | Sequence[int] | None = None,
) -> Listener:
    """Open a Unix socket that listens on a path: `listener = listen_unix("/run/app.sock")`.

    Does not wait. A file that a server left behind which is gone is replaced; one on which
    somebody listens is not. The file is removed when the listener is closed, wherever the program
    has gone meanwhile.

    Args:
        path: of the file to make. One that begins with a zero byte is a name without a file.
        mode: permissions of the file, such as `0o660`, in force before anybody can connect; by
            default what the umask leaves.
        backlog: connections that may wait to be accepted.
        fd: instead of a path: the number, or numbers, of inherited sockets that listen.

    Raises:
        OSError: the path is in use, by a server or by a file of another kind, or not accessible,
            or too long.
        ValueError: an inherited socket is not a Unix socket that listens; it stays the caller's.
            Or the path is empty, or has a zero byte inside; or `mode` has more than permissions, as
            660 without 0o has, or is given for a name without a file.
        TypeError: neither a path nor inherited sockets are given, or both.

    Example:
        >>> import corolib, os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "app.sock")
        ...     with corolib.listen_unix(path, mode=0o600) as listener:
        ...         made = oct(os.stat(path).st_mode & 0o777)
        ...     left = os.path.exists(path)
        >>> made, left
        ('0o600', False)

    Source: trio's and asyncio's Unix listeners.
    """
    if (path is None) == (fd is None):
        raise TypeError("listen_unix() takes a path, or sockets that listen, as fd=")
    if fd is not None:
        return Listener(inherited(fd, (socket.AF_UNIX,), "listen_unix"))
    assert path is not None
    return _listen_unix("listen_unix", path, mode, backlog)


def _listen_unix(
    caller: str, path: str | bytes | os.PathLike[str], mode: int | None, backlog: int
) -> Listener:
    """Do it for `caller`, which messages name."""
    if path in ("", b""):
        raise ValueError(f"{caller}({brief(path)}): the path is empty")
    if mode is not None and mode > 0o777:
        raise ValueError(f"{caller}(mode={mode}) is {mode:#o}: write it in octal, as in 0o660")
    check_count(backlog, f"{caller}(backlog=)", 0)
    name = unix_path(path)
    if mode is not None and name[:1] in ("\0", b"\0"):
        text = "what begins with a zero byte is no file and has no permissions; leave mode= out"
        raise ValueError(f"{caller}({brief(name)}, mode={mode:#o}): {text}")
    sock, file = unix_socket(name, mode, backlog)
    return Listener([sock], file=file, backlog=backlog)


@public
@waits
def serve_tcp(
    handler: Handler,
    host: str | Sequence[str] | None,
    port: int | str,
    *,
    family: int = 0,
    backlog: int = BACKLOG,
    reuse_port: bool = False,
    keepalive: float | None = None,
    user_timeout: float | None = None,
    **limits: Unpack[Limits],
) -> Generator[Any, Any, StopReport]:
    """Wait until a server, for TCP connections, has ended: `run(serve_tcp, echo, host, port)`.

    It ends when it is told to. By SIGTERM, unless the program handles that, or by Ctrl-C: then all
    servers of the run stop as by `server.stop()`, whichever tasks they are in. After SIGTERM the
    report is returned, and tasks that have waited for a server go on; when they are over, all that
    still runs is cancelled, and `run()` returns. A second SIGTERM changes nothing. Ctrl-C is raised
    in the main task when all servers have ended; a second one ends the run on the spot, whoever is
    shielded. All that needs `run()` in the main thread. Or by `task.cancel()`, or a block around
    this call: the handlers are cancelled with it. A handler finds the server as `stream.server`.

    Args:
        handler: called with each connection, a `Stream`; a generator function or an `async def`.
        host, port, family, backlog, reuse_port, keepalive, user_timeout: see `listen_tcp`.
        max_connections, accept, idle_timeout, max_line, tls, handshake, on_error, grace, drain,
            drain_limit, max_message, max_per_address, evict_idle, min_rate, proxy_from: the limits,
            see `Listener.serve`. With `run`: `run(serve_tcp(echo, host, port, grace=10))`.

    Returns:
        The report of the stop; see `Server.stop`.

    Raises:
        OSError: the address cannot be listened on.
        Cancelled: the wait was cancelled; the server is ended, and gone before the next wait.

    Example:
        >>> import corolib
        >>> def echo(stream):
        ...     while data := (yield from stream.recv(65536)):
        ...         yield from stream.sendall(data)
        >>> def main():
        ...     with corolib.move_on_after(0.01):
        ...         yield from corolib.serve_tcp(echo, "127.0.0.1", 0, max_connections=100)
        >>> corolib.run(main)

    Source: asyncio.start_server, trio.serve_tcp; the graceful stop is nginx's.
    """
    # What cannot be served is found before anything is opened.
    others = ("family", "backlog", "reuse_port", "keepalive", "user_timeout")
    checked("serve_tcp", limits, *others)
    check_handler("serve_tcp", handler, STREAM)
    with _listen_tcp(
        "serve_tcp", host, port, family, backlog, reuse_port, keepalive, user_timeout
    ) as listener:
        return (yield from to_the_end(listener.serve(handler, **limits)))


@public
@waits
def serve_unix(
    handler: Handler,
    path: str | bytes | os.PathLike[str],
    *,
    mode: int | None = None,
    backlog: int = BACKLOG,
    **limits: Unpack[Limits],
) -> Generator[Any, Any, StopReport]:
    """Wait until a server, on a Unix socket, has ended: `run(serve_unix, echo, "/run/app.sock")`.

    For what ends it, and for what comes back, see `serve_tcp`.

    Args:
        handler: called with each connection, a `Stream`; a generator function or an `async def`.
        path, mode, backlog: see `listen_unix`.
        max_connections, accept, idle_timeout, max_line, tls, handshake, on_error, grace, drain,
            drain_limit, max_message, max_per_address, evict_idle, min_rate, proxy_from: the limits,
            see `Listener.serve`.

    Raises:
        OSError: the path cannot be listened on.
        Cancelled: the wait was cancelled; the server is ended, and gone before the next wait.
    """
    checked("serve_unix", limits, "mode", "backlog")
    check_handler("serve_unix", handler, STREAM)
    with _listen_unix("serve_unix", path, mode, backlog) as listener:
        return (yield from to_the_end(listener.serve(handler, **limits)))


def _who(stream: Stream) -> Any:
    """Return who has connected: an address, or, where that says nothing, the credentials."""
    return stream.peer if isinstance(stream.peer, tuple) else stream.peer_credentials


def _leaves(error: BaseException) -> list[BaseException]:
    """Return the errors of a group, and of the groups inside it; or the error alone."""
    found: list[BaseException] = []
    left = [error]
    while left:
        each = left.pop()
        if is_a(each, BaseExceptionGroup):
            left += reversed(each.exceptions)  # type: ignore[attr-defined]
        else:
            found.append(each)
    return found


def _is_up_to_peer(stream: Stream, error: BaseException) -> bool:
    """Return whether a failure is one that the client can bring about at will: time that is over,
    or what its connection, and no other one of the handler's, says of what it sent.
    """
    if is_a(error, (TimeoutError, ProxyHeaderError)):
        return True
    known = is_a(error, PEERS) or class_module(error) == "ssl"
    return known and all(each is stream for each in _streams_of(error))


def _is_gone(error: BaseException) -> bool:
    """Return whether `error` says that the peer is there no more."""
    if not is_a(error, OSError):
        return False
    number = attribute(error, "errno")
    return is_a(error, ConnectionError) or number in GONE or is_cut_off(error)


def _is_of(stream: Stream, error: BaseException) -> bool:
    """Return whether `error` was raised by a method of `stream`, and not by another connection's
    that the handler has.
    """
    return any(each is stream for each in _streams_of(error))


def _streams_of(error: BaseException) -> Iterator[Stream]:
    """Yield the streams in whose methods an error was raised, if there are any."""
    trace = trace_of(error)
    while trace is not None:
        one: Any = trace.tb_frame.f_locals.get("self")
        if is_a(one, Stream):
            yield one
        trace = trace.tb_next
