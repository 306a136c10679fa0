"""Datagrams: messages that arrive whole or not at all, over UDP or Unix sockets.

    with (yield from open_udp("192.0.2.1", 53)) as sock:            one other side
        yield from sock.send(question)
        answer = yield from sock.recv()

    with (yield from open_udp(local=("127.0.0.1", 5353))) as sock:  whoever sends
        data, address = yield from sock.recvfrom()
        yield from sock.sendto(data, address)

A datagram may be lost on the way, come twice, or after one that was sent later; neither side
learns of it. There is no end of the file: `b""` is a datagram like any other.

Connections, on which data arrives in order, are in `streams.py`; how names are looked up is in
`resolving.py`.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Unpack

from corolib.kernel import (
    ClosedError,
    LateModule,
    ReadWait,
    Sleep,
    WriteWait,
    brief,
    file_name,
    must_yield,
    opens,
    public,
    waits,
    with_trace,
)
from corolib.net.network import (
    Socket,
    bind_hint,
    discard,
    has_met_itself,
    network,
    pauses,
    unix_path,
)
from corolib.net.packet_info import Address, packet_info
from corolib.net.resolving import (
    Path,
    Port,
    Source,
    candidates,
    check_host,
    check_pair,
    failure,
    resolve,
)

if TYPE_CHECKING:
    from corolib.net import datagram_servers
else:
    datagram_servers = LateModule("corolib.net.datagram_servers")

Choice = tuple[int, int, Any, Any, bool]
"""Family, protocol, address of this side, of the other, and whether it is of both families."""

DATAGRAM = 65535
"""Bytes of the longest datagram: UDP's lengths have 16 bits."""

PAUSE = 0.01
"""Seconds until an error is raised that may stay, because the socket is broken or the system has no
memory: who passes over it tries a hundred times a second, and does not spin."""

SHORTAGE = (errno.ENOBUFS, errno.ENOMEM)
"""What sending fails with when the system has no memory for it."""

NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT)
"""What a socket of both families fails with where there is one family only."""

PATIENCE = 8
"""Waits after a read in vain, until the next read is tried without one. Under load most of these
succeed, and each saves a turn, the half of an echo. Otherwise an exception is paid for each so many
waits."""


@public
class DatagramSocket:
    """A socket whose messages arrive whole: `recvfrom`, `sendto`; connected: `recv`, `send`.

    Made by `open_udp()` and `open_unix_datagrams()`. `with sock:` closes it at the end of the
    block. One task may receive, a second one gets `BusyError`; any number may send.

    Over a connected UDP socket the network's complaints come back (ICMP: nobody listens there, no
    way to that host). Each is raised once, as an OSError, by the next call that receives or sends
    anything: so it is about an earlier datagram. One that is being sent then was not sent. The
    socket goes on working. A socket that is not connected learns nothing.

    Args:
        sock: a socket of the kind SOCK_DGRAM, which it owns from here on.

    Attributes:
        socket: the socket itself, for its options: `sock.socket.setsockopt(...)`.
        truncated: whether the last datagram that came was longer than what was asked for. Its
            rest is lost.

    Example:
        >>> import corolib, socket
        >>> def main():
        ...     a, b = map(corolib.DatagramSocket, socket.socketpair(type=socket.SOCK_DGRAM))
        ...     with a, b:
        ...         yield from a.send(b"hello")
        ...         yield from a.send(b"")
        ...         return [(yield from b.recv()), (yield from b.recv())]
        >>> corolib.run(main)
        [b'hello', b'']

    Source: RFC 1122, 4.1.3.3 (who sends is told of errors); udp(7), unix(7).
    """

    __slots__ = (
        *("_asker", "_calls", "_patience", "_reading", "_writer_waits", "_writing"),
        *("socket", "truncated"),
    )

    def __init__(self, sock: Socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.truncated = False
        # What receives and sends: the socket, or what is told at which address it was asked.
        self._calls: Any = packet_info(sock) or sock
        self._reading = ReadWait(sock)
        self._writing = WriteWait(sock)
        self._writer_waits = False
        # Who has sent the last datagram, until it is answered.
        self._asker: Any = None
        # Waits to make until a read is tried without one.
        self._patience = PATIENCE

    @waits
    def recvfrom(self, most: int = DATAGRAM) -> Generator[Any, Any, tuple[bytes, Any]]:
        """Wait for a datagram, and return it and the address of its sender.

        That is None for a Unix socket without a name. On a UDP socket that is bound to all
        addresses of this machine, 0.0.0.0 or ::, `address.local` is the one that it was sent to
        (None for a group's), and `sendto()` to `address` answers from there: a connected client
        takes no answer from elsewhere. See `truncated`.

        Args:
            most: bytes to take of it.

        Raises:
            BusyError: another task receives from this socket.
            ClosedError: the socket is closed, or was closed during the wait.
            ConnectionRefusedError and other OSErrors: a complaint of the network's about an
                earlier datagram; see above. A server passes over them. (After each that follows
                another there is a pause of 10 ms.)
            ValueError: `most` is negative. MemoryError: there is no room for a datagram just now.
            Cancelled: the wait was cancelled; no datagram was taken.
        """
        if most < 0:
            raise ValueError(f"recvfrom({most}): a datagram has no bytes at least")
        while True:
            # Whether there is another one, the last one did not say: see `PATIENCE`.
            if not self._patience and must_yield():
                self._patience = 1
            if left := self._patience:
                # This refuses a second receiver.
                yield self._reading
                self._patience = left - 1
            try:
                got: tuple[bytes, Any] = self._calls.recvfrom(most + 1)
            except (BlockingIOError, InterruptedError):
                # Woken in vain.
                self._patience = PATIENCE
                continue
            except (OSError, MemoryError):
                if self.socket.fileno() == -1:
                    yield from self._refuse()
                self._patience = PATIENCE + 1
                if left > PATIENCE:
                    # The last one failed as well: who passes over that must not spin.
                    yield Sleep(PAUSE)
                raise
            data, self._asker = got
            self.truncated = len(data) > most
            return (data[:most], self._asker) if self.truncated else got

    @waits
    def recv(self, most: int = DATAGRAM) -> Generator[Any, Any, bytes]:
        """Wait for a datagram, and return it: for connected sockets. See `recvfrom`."""
        data, _ = yield from self.recvfrom(most)
        return data

    @waits
    def sendto(
        self, data: bytes | bytearray | memoryview, address: Any
    ) -> Generator[Any, Any, None]:
        """Wait until the system has taken a datagram for `address`, whole.

        That it has left this machine is not said, and nobody will say that it has arrived. Several
        tasks may send at the same time.

        The address of a sender can be forged. Then the answer cannot be sent, or it reaches and
        may harm a third party. `serve()` has limits for that. A loop of your own ignores each
        OSError.

        Args:
            data: at most 65507 bytes over IPv4 (and not many more than 1400 are wise).
            address: as `recvfrom` returned it, for an answer from where it was asked; (host, port)
                or the path of a Unix socket. A name is looked up at each call: to send many,
                connect the socket.

        Raises:
            OSError: the datagram is too long (EMSGSIZE), the system has no memory (ENOBUFS, after
                a pause of 10 ms), nobody listens on a Unix socket. Or nothing can be sent to the
                address, which its sender can bring about: its port is 0 (EINVAL), it is a broadcast
                (EACCES), there is no way to it (ENETUNREACH, EHOSTUNREACH), or a firewall refuses
                it (EPERM). And see above.
            TypeError: the address is not a host and a port; ValueError: it cannot be one.
            ClosedError: the socket is closed, or was closed during the wait.
            Cancelled: the wait was cancelled; the datagram was not sent.
        """
        # The short way of an answer: its address needs no look, and receiving has given way.
        if address is self._asker is not None:
            self._asker = None
            try:
                self._calls.sendto(data, address)
                return
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                if self.socket.fileno() == -1:
                    yield from self._refuse()
                raise
        family = self.socket.family
        if not isinstance(address, Address) and family in (socket.AF_INET, socket.AF_INET6):
            pair = isinstance(address, tuple) and len(address) > 1
            if not pair or not isinstance(address[0], str):
                text = "give a host and a port, ('127.0.0.1', 5353)"
                raise TypeError(f"sendto() got {brief(address)} as the address: {text}")
            if not _is_numeric(family, address[0]):
                flags = socket.AI_V4MAPPED if family == socket.AF_INET6 else 0
                found = yield from resolve(address[0], address[1], family, socket.SOCK_DGRAM, flags)
                address = next(iter(found))[4]
        yield from self._put(lambda: self._calls.sendto(data, address))

    @waits
    def send(self, data: bytes | bytearray | memoryview) -> Generator[Any, Any, None]:
        """Wait until the system has taken a datagram for the other side: for connected sockets.

        See `sendto`.
        """
        yield from self._put(lambda: self.socket.send(data))

    def serve(
        self,
        handler: datagram_servers.DatagramHandler,
        **limits: Unpack[datagram_servers.DatagramLimits],
    ) -> datagram_servers.DatagramServer:
        """Have each datagram answered, by a task of its own; does not wait.

        `server = sock.serve(lambda data, sender: data)`. The caller owns the server, and the server
        the socket. An answer leaves from the address that was asked. An answer that cannot be sent
        is dropped, and a failure concerns one datagram. The sender can forge the address that the
        answer goes to: most of the limits are for that.

        Args:
            handler: called with each datagram and the address of its sender; returns the answer,
                bytes, or None. An ordinary function, or one that waits, a generator function or an
                `async def`: then it is a task of its own.
            rate: answers that one address gets in a second, and one network of IPv6 (/64). Further
                datagrams are not handled. That also stops two services that answer each other for
                ever.
            amplify: how many times longer than its question an answer may be. A longer one is
                withheld, unless it goes to this machine itself: it could be aimed at somebody else.
                18 bytes are always allowed. `math.inf`: any.
            services: answer also to the ports of services: those below 1024, and those of servers
                of this run. Only for protocols in which an answer is never taken for a question,
                as DNS and NTP.
            max_waiting: handlers that may wait at the same time; further datagrams are dropped.
            max_per_address: those of one address or network.
            on_error: called as `f(exc, sender)` with an exception that leaves a handler; by default
                it is logged to "corolib.server", at most one line of each kind in ten seconds.
            grace: seconds that handlers are given to finish, where `stop()` names no other time.

        Raises:
            TypeError, ValueError: a limit is not of its kind, or there is none of this name.
            RuntimeError: no scheduler runs in this thread.
            ClosedError: the socket is closed.

        Source: RFC 8085, section 5 (UDP usage guidelines); CERT CA-1996-01; RFC 9000, section 8.
        """
        if self.socket.fileno() == -1:
            raise self._closed()
        return datagram_servers.DatagramServer(self, self._calls.sendto, handler, limits)

    def _put(self, send: Callable[[], object]) -> Generator[Any, Any, None]:
        """Call `send` until there is room for what it sends."""
        if must_yield():
            yield
        pause = pauses()
        waited = False
        while True:
            if self.socket.fileno() == -1:
                yield from self._refuse()
            try:
                send()
                return
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as exc:
                if exc.errno in SHORTAGE:
                    yield Sleep(PAUSE)
                raise
            if waited or self._writer_waits:
                # The queue of a receiver on this machine is full, which is no matter of our own
                # socket's; or another task has the wait for this one.
                yield Sleep(next(pause))
                continue
            waited = self._writer_waits = True
            try:
                yield self._writing
            finally:
                self._writer_waits = False

    def _refuse(self) -> Generator[Any, Any, None]:
        """Refuse what cannot be done on a closed socket; a task that is to end is ended instead."""
        yield
        raise self._closed() from None

    def _closed(self) -> ClosedError:
        return ClosedError(f"{self!r}: it was closed")

    @property
    def local(self) -> Any:
        """The address of this side; None if it has none, or is closed."""
        return _answer(self.socket.getsockname)

    @property
    def peer(self) -> Any:
        """The address of the other side; None if the socket is not connected, or is closed."""
        return _answer(self.socket.getpeername)

    def close(self) -> None:
        """Close the socket; does not wait. Tasks that wait for it get `ClosedError`."""
        discard(self.socket)

    def __enter__(self) -> DatagramSocket:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<DatagramSocket over {file_name(self.socket)}>"


@public
@opens
def open_udp(
    host: str | None = None,
    port: Port | None = None,
    *,
    local: Source | None = None,
    family: int = 0,
) -> Generator[Any, Any, DatagramSocket]:
    """Wait until the names are looked up, and return a new UDP socket.

    `open_udp(host, port)` is connected: it sends to that address and receives from nobody else.
    `open_udp(local=(host, port))` has an address that others may send to. Without either it can
    send to anybody, and receive what is answered. Nothing but the lookup waits.

    For other options make the socket yourself, and a `DatagramSocket` of it.

    Args:
        host, port: the other side: a name or an address, a number or the name of a service. Of
            several addresses the first is taken to which there is a way from here.
        local: address and port of this side. `None` as address: all of this machine's, of IPv6 and
            IPv4 (those of "0.0.0.0" and "::" are of one family). Port 0: any.
        family: `AF_INET` or `AF_INET6`, to take only such an address. Without any address: IPv4.

    Raises:
        OSError: the local address is in use or none of this machine's; there is no way to the
            other side. If several addresses failed, it names all: see `open_tcp`.
        socket.gaierror: an OSError: a name has no address, or nobody can say.
        TypeError: a host without a port; `local` is no pair.
        Cancelled: the wait was cancelled; no socket is left open.

    Example:
        >>> import corolib
        >>> def main():
        ...     with (yield from corolib.open_udp(local=("127.0.0.1", 0))) as server:
        ...         with (yield from corolib.open_udp(*server.local)) as client:
        ...             yield from client.send(b"hello")
        ...             data, address = yield from server.recvfrom()
        ...             return data, address == client.local
        >>> corolib.run(main)
        (b'hello', True)

    Source: RFC 768; udp(7).
    """
    if (host is None) != (port is None):
        raise TypeError("open_udp(host, port): give both, or none and local=(host, port)")
    if host is not None:
        check_host("open_udp()", host)
    check_pair("open_udp(local=)", local)
    if must_yield():
        yield
    found = yield from _choices(host, port, local, family)
    failures: list[OSError] = []
    try:
        for each in found:
            try:
                return _open(*each)
            except OSError as exc:
                failures.append(with_trace(exc, None))
                if each[4] and exc.errno not in NO_IPV6:
                    break
        raise failure("cannot open a UDP socket", failures)
    finally:
        # A traceback holds this frame, which would be a cycle.
        del failures


@public
def open_unix_datagrams(path: Path | None = None, *, local: Path | None = None) -> DatagramSocket:
    """Return a new Unix socket for datagrams; does not wait.

    `open_unix_datagrams("/run/log.sock")` is connected: see `open_udp`. Nobody can answer a socket
    that has no path of its own. The file of `local` stays when the socket is closed: remove it.

    Args:
        path: where the other side is.
        local: where this side is to be, a new file; "" for a name that the system makes (Linux).

    Raises:
        OSError: there is such a file already (EADDRINUSE), or no such folder; there is nobody at
            `path` (FileNotFoundError, ConnectionRefusedError), or it is no datagram socket.

    Example:
        >>> import corolib
        >>> def main():
        ...     with corolib.open_unix_datagrams(local="") as server:
        ...         with corolib.open_unix_datagrams(server.local, local="") as client:
        ...             yield from client.send(b"hello")
        ...             data, address = yield from server.recvfrom()
        ...             return data, address == client.local
        >>> corolib.run(main)
        (b'hello', True)

    Source: unix(7).
    """
    own, other = (None if each is None else unix_path(each) for each in (local, path))
    return _open(socket.AF_UNIX, 0, own, other, False)


def _choices(
    host: str | None, port: Port | None, local: Source | None, family: int
) -> Generator[Any, Any, list[Choice]]:
    """Wait until it is known what `open_udp` can open; it takes the first that it can."""
    if host is not None and port is not None:
        both = yield from candidates(host, port, local, family, socket.SOCK_DGRAM)
        return [(info[0], info[2], source, info[4], False) for info, source in both]
    if local is None:
        return [(family or socket.AF_INET, 0, None, None, False)]
    infos = yield from resolve(*local, family, socket.SOCK_DGRAM, socket.AI_PASSIVE)
    found: list[Choice] = [(info[0], info[2], info[4], None, False) for info in infos]
    if local[0] is None and not family:
        # One socket of IPv6 is enough for both; or where there is none, one of IPv4.
        six: list[Choice] = [(*each[:4], True) for each in found if each[0] == socket.AF_INET6]
        found = six + [each for each in found if each[0] != socket.AF_INET6]
    return found


def _open(family: int, proto: int, own: Any, other: Any, both: bool) -> DatagramSocket:
    """Return a socket that is bound to `own` and connected to `other`, if they are not None.

    Args:
        both: whether one of IPv6 is to be of IPv4 too.
    """
    receiving, sending = f"receive on {_named(own)}", f"send to {_named(other)}"
    doing = "open a socket" if own is other is None else receiving if other is None else sending
    try:
        sock = network().socket(family, socket.SOCK_DGRAM, proto)
        try:
            if own is not None:
                doing = receiving
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
                sock.bind(own)
            if other is not None:
                doing = sending
                sock.connect(other)
        except BaseException:
            discard(sock)
            raise
    except OSError as exc:
        hint = bind_hint(exc, own[1]) if isinstance(own, tuple) and doing is receiving else ""
        raise OSError(exc.errno, f"cannot {doing}: {exc.strerror or exc}{hint}") from None
    if other is not None and has_met_itself(sock, other) and not (own and own[1]):
        # The next one gets another port, since this one has that.
        with sock:
            return _open(family, proto, own, other, both)
    return DatagramSocket(sock)


def _named(address: Any) -> str:
    """Return an address as messages name it where somebody has given it."""
    return f"{address[0]} port {address[1]}" if isinstance(address, tuple) else brief(address)


def _is_numeric(family: int, host: str) -> bool:
    """Return whether the system need not look `host` up, which would stop the whole program."""
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        # After a ValueError it could not be a name either.
        return False
    return True


def _answer(ask: Callable[[], Any]) -> Any:
    """Return what a socket says of itself, None if it says nothing."""
    try:
        return ask() or None
    except OSError:
        return None
