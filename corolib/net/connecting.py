"""Connecting: `open_tcp` and `open_unix` wait until there is a connection and return its stream.

    stream = yield from open_tcp("example.org", 443, tls=True)
    stream = yield from open_unix("/run/service.sock")

A name may have many addresses, of two families, of which some do not answer. They are raced as in
RFC 8305: one attempt is begun after the other, 250 ms apart or as soon as one has failed, the
families in turn; the first to be connected wins, and the sockets of all others are closed: that is
`first_success`. Where there is one address, the caller's own task connects to it.

How names are looked up is in `resolving.py`. Connections that others make to this program are in
`listening.py` and `servers.py`.
"""

from __future__ import annotations

import errno
import math
import os
import socket
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from corolib.coordination.tasksets import first_success
from corolib.coordination.threads import to_thread
from corolib.kernel import (
    ClosedError,
    Coro,
    LateModule,
    Scheduler,
    Sleep,
    Trap,
    WriteWait,
    brief,
    check_number,
    current_scheduler,
    must_yield,
    opens,
    public,
    waits,
    with_trace,
)
from corolib.net.network import (
    AddressInfo,
    Socket,
    address_text,
    discard,
    has_met_itself,
    named,
    network,
    pauses,
    reset,
    tcp_options,
    unix_path,
)
from corolib.net.resolving import Path, Port, Source, candidates, check_host, check_pair, failure
from corolib.net.streams import Stream

if TYPE_CHECKING:
    import ssl
else:
    ssl = LateModule("ssl")

DELAY = 0.25
"""Seconds between the beginnings of two attempts, as RFC 8305 recommends."""


@public
@opens
def open_tcp(
    host: str,
    port: Port,
    *,
    tls: ssl.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    source: Source | None = None,
    family: int = 0,
    delay: float = DELAY,
    keepalive: float | None = None,
    user_timeout: float | None = None,
) -> Generator[Any, Any, Stream]:
    """Wait until there is a TCP connection to a host, and return its stream.

    `stream = yield from open_tcp("example.org", 443, tls=True)`. If the name has several
    addresses they are raced, as in RFC 8305. There is no limit of time but that of the system,
    minutes it may be: put `with timeout(...)` around it. `TCP_NODELAY` is set.

    Args:
        host: a name, or an address: "127.0.0.1", "::1", "fe80::1%eth0".
        port: a number, or the name of a service.
        tls: an `ssl.SSLContext`, or True for `ssl.create_default_context()`, which is made once
            in a run: the stream is returned when the handshake is done.
        server_hostname: whose certificate is expected, if not that of `host`.
        source: the address and port to connect from; port 0: any. Only addresses of its family
            are tried.
        family: `AF_INET` or `AF_INET6`, to try only these.
        delay: seconds until the next address is tried beside those that have not answered yet;
            `math.inf`: one after the other.
        keepalive: seconds of silence until the other side is asked for a sign of life. If none
            comes for as long again, the connection fails. None: the system's times, two hours.
        user_timeout: seconds until it fails if what was sent is not acknowledged, or the other side
            does not read (Linux). None: the system's time, a quarter of an hour.

    Raises:
        OSError: no address could be connected to: ConnectionRefusedError and the like. If several
            failed, it names all; its `__cause__` is the `ExceptionGroup` of them, and it is of
            their kind if they are of one kind.
        socket.gaierror: an OSError: the name has no address, or nobody can say.
        ssl.SSLError: an OSError: the handshake failed, or the certificate is not the right one.
        ValueError: no port has this number; `host` cannot be a name; `server_hostname` without
            `tls`. TypeError: `host` is no str, `source` no pair.
        Cancelled: the wait was cancelled; no socket is left open. A lookup that is under way
            goes on in its thread, unheeded.

    Example:
        >>> import corolib, socket
        >>> def main(listener):
        ...     stream = yield from corolib.open_tcp(*listener.getsockname())
        ...     with stream, listener.accept()[0] as conn:
        ...         yield from stream.sendall(b"hello")
        ...         return conn.recv(10)
        >>> with socket.create_server(("127.0.0.1", 0)) as listener:
        ...     corolib.run(main, listener)
        b'hello'

    Source: RFC 8305 (Happy Eyeballs 2), RFC 5482 (user timeout), tcp(7); trio.open_tcp_stream.
    """
    check_host("open_tcp()", host)
    delay = check_number(delay, "open_tcp(delay=)", "a duration")
    check_pair("open_tcp(source=)", source)
    options = tcp_options("open_tcp", keepalive, user_timeout)
    context = yield from _context("open_tcp", tls, server_hostname)
    found = yield from candidates(host, port, source, family, socket.SOCK_STREAM)
    attempts = [_attempt(info, source_address, options) for info, source_address in found]
    sock = yield from _race(f"{host}:{port}", attempts, delay)
    if server_hostname is None:
        server_hostname = host.partition("%")[0].rstrip(".")
    return (yield from _secured(Stream(sock), context, server_hostname))


@public
@opens
def open_unix(
    path: Path,
    *,
    tls: ssl.SSLContext | bool | None = None,
    server_hostname: str | None = None,
) -> Generator[Any, Any, Stream]:
    """Wait until there is a connection to a Unix socket, and return its stream.

    `stream = yield from open_unix("/run/service.sock")`. While the queue of the listener is full
    it asks again, up to twenty times a second, for the system does not tell when there is room.

    Args:
        path: where the socket is; one that begins with a zero byte is in no folder (Linux).
        tls: an `ssl.SSLContext`, or True: see `open_tcp`.
        server_hostname: whose certificate is expected.

    Raises:
        OSError: nobody listens there (ConnectionRefusedError), there is no such path
            (FileNotFoundError), or it is too long.
        ssl.SSLError: the handshake failed.
        ValueError: with `tls` but without `server_hostname`, if the context wants to check it.
        Cancelled: the wait was cancelled; no socket is left open.

    Example:
        >>> import corolib, socket, tempfile, os
        >>> def main(listener):
        ...     stream = yield from corolib.open_unix(listener.getsockname())
        ...     with stream, listener.accept()[0] as conn:
        ...         yield from stream.sendall(b"hello")
        ...         return conn.recv(10)
        >>> with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        ...     listener.bind(os.path.join(folder, "socket"))
        ...     listener.listen()
        ...     corolib.run(main, listener)
        b'hello'

    Source: unix(7); asyncio.open_unix_connection.
    """
    context = yield from _context("open_unix", tls, server_hostname)
    address = unix_path(path)
    info = (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", address)
    sock = yield from _race(repr(address), [_attempt(info, None, [])], math.inf)
    return (yield from _secured(Stream(sock), context, server_hostname))


# One attempt, and the race of several -------------------------------------------------------------


def _attempt(
    info: AddressInfo, source: Any, options: list[tuple[int, int, int]]
) -> Generator[Trap, Any, Socket]:
    """Connect to one address. Its failure names the address."""
    family, kind, proto, _, address = info
    try:
        sock = network().socket(family, kind, proto)
        try:
            for option in options:
                sock.setsockopt(*option)
            if source is not None:
                sock.bind(source)
            yield from _connect(sock, address)
            if has_met_itself(sock, address):
                reset(sock)
                raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        except BaseException:
            discard(sock)
            raise
    except ClosedError:
        raise
    except OSError as exc:
        raise named(exc, address_text(address)) from None
    return sock


def _connect(sock: Socket, address: Any) -> Generator[Trap, Any, None]:
    """Wait until `sock` is connected to `address`, or raise why it is not."""
    pause = pauses()
    while True:
        try:
            sock.connect(address)
            return
        except InterruptedError:
            # A signal came: the system goes on with it.
            break
        except BlockingIOError as exc:
            if exc.errno != errno.EAGAIN:
                break
        # The queue of the listener is full, and nothing has begun.
        yield Sleep(next(pause))
    while True:
        yield WriteWait(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        try:
            sock.getpeername()
            return
        except OSError as exc:
            # This number says that it neither is connected nor has failed: woken in vain.
            if exc.errno != errno.ENOTCONN:
                raise
        # It may be so at once again.
        yield Sleep(next(pause))


def _race(
    what: str, attempts: Sequence[Generator[Trap, Any, Socket]], delay: float
) -> Generator[Any, Any, Socket]:
    """Wait until one attempt has a connection, and return its socket; those of others are closed.

    The only attempt is made in the caller's own task: there is nothing to race.
    """
    if len(attempts) == 1:
        if must_yield():
            yield
        return (yield from attempts[0])
    connected: list[Socket] = []

    def connect(attempt: Generator[Trap, Any, Socket]) -> Generator[Trap, Any, Socket]:
        sock = yield from attempt
        connected.append(sock)
        return sock

    failures: Sequence[Exception] = ()
    try:
        try:
            _, sock = yield from first_success(*map(connect, attempts), stagger=delay)
            connected.remove(sock)
            return sock
        except ExceptionGroup as exc:
            failures = [with_trace(each, None) for each in exc.exceptions]
        raise failure(f"cannot connect to {what}", failures)
    finally:
        # Two may have been connected at the same moment.
        for sock in connected:
            discard(sock)
        # A traceback holds this frame, which would be a cycle.
        del failures


# TLS ----------------------------------------------------------------------------------------------


class DefaultTLSContext:
    """The TLS context for those who bring none of their own; lives as long as the run."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.context: ssl.SSLContext | None = None

    def end(self) -> None:
        self.context = None


@waits
def _context(
    caller: str, tls: ssl.SSLContext | bool | None, server_hostname: str | None
) -> Generator[Any, Any, ssl.SSLContext | None]:
    """Wait for the TLS context that is meant; None: no TLS.

    The default one is made in a thread, once in a run: with its import and the certificates of
    all authorities it takes 50 ms.
    """
    if not tls:
        if server_hostname is not None:
            raise ValueError(f"{caller}(server_hostname=...) is for TLS: add tls=True")
        return None
    if tls is not True:
        if not hasattr(tls, "wrap_bio"):
            text = "give True, or an ssl.SSLContext, as ssl.create_default_context() makes one"
            raise TypeError(f"{caller}(tls={brief(tls)}): {text}")
        return tls
    default = current_scheduler().run_local(DefaultTLSContext)
    if default.context is None:
        default.context = yield from to_thread(_default_context)
    return default.context


def _default_context() -> ssl.SSLContext:
    """Make the default context; in a thread, where `ssl` is imported too."""
    return ssl.create_default_context()


def _secured(
    stream: Stream, context: ssl.SSLContext | None, server_hostname: str | None
) -> Coro[Stream]:
    """Wait until TLS is up on a new connection, or close it."""
    if context is not None:
        try:
            yield from stream.start_tls(context, server_hostname=server_hostname)
        except BaseException:
            stream.close()
            raise
    return stream
