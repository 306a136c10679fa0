"""The network, as the library sees it: the one object that opens sockets and looks names up.

    network().socket(AF_INET, SOCK_STREAM)      a new socket, not blocking
    network().adopt(fd)                         one that somebody else has opened
    network().getaddrinfo("example.org", 80)    blocks: call it in a thread

Library code calls nothing but the methods of the sockets it gets here, and waits for them with
`ReadWait` and `WriteWait`. So `run(network=...)` can put another network in the place of this
one: a test's, whose sockets misbehave on purpose, or a simulated one.

Nothing here waits. Which addresses to try, and waiting for them, is in `resolving.py`; what listens
and connects is in `listening.py`, `connecting.py` and `datagrams.py`.
"""

from __future__ import annotations

import errno
import io
import math
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

try:
    import fcntl
    import termios
except ImportError:  # pragma: no cover - this is Windows: nobody knows what the kernel keeps
    fcntl = termios = None  # type: ignore[assignment]

from corolib.kernel import OwnedSocket, brief, check_number, close, public, running_scheduler

Socket = socket.socket
AddressInfo = tuple[int, int, int, str, Any]
"""What a lookup finds: family, type, protocol, canonical name, address."""

NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
"""With these flags a lookup is instant: it takes numeric addresses only."""

SUN_PATH = 108 if sys.platform == "linux" else 104
"""Bytes for the path of a Unix socket and the zero at its end."""

KEEPIDLE: int = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0))
"""The option that macOS has under another name."""

PROBES = 4
"""How often a peer that is silent is asked whether it is still there, in a `keepalive`."""

MAPPED = "::ffff:"
"""How the address of an IPv4 host begins on a socket of IPv6 (RFC 4291, 2.5.5.2)."""

CREDENTIALS = "iII"
"""The struct ucred of unix(7)."""

TIOCOUTQ: int = getattr(termios, "TIOCOUTQ", 0)
"""Asks how many bytes a socket keeps for its peer."""

SIOCOUTQNSD = 0x894B if sys.platform == "linux" else TIOCOUTQ
"""Asks Linux how many of them have not been sent."""

TCP_INFO_SIZE = 8 + 24 * 4 + 4 * 8
"""Bytes of struct tcp_info of Linux, up to and with the two counts of bytes."""

RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing waits for nothing, and resets the connection."""

PAUSES = 0.001, 0.05
"""Seconds between two tries, at first and at most: soon, and twenty times a second at no cost."""


@public
class Network:
    """Opens sockets and looks names up: what `run(network=...)` and `Scheduler` hold.

    The network of the operating system. For another one derive from it.
    """

    def socket(self, family: int, kind: int, proto: int = 0) -> Socket:
        """Return a new socket, not blocking, which child processes do not inherit."""
        sock = ListeningSocket(family, kind, proto)
        sock.setblocking(False)
        return sock

    def adopt(self, fd: int) -> Socket:
        """Return the open socket `fd` as an object, which owns it from here on; not blocking.

        All programs that have this socket find it not blocking. Child processes of ours no longer
        inherit it. OSError if it is no socket: then it stays the caller's.
        """
        sock = ListeningSocket(fileno=fd)
        sock.setblocking(False)
        sock.set_inheritable(False)
        return sock

    def getaddrinfo(
        self,
        host: str | bytes | None,
        port: str | int,
        family: int = 0,
        kind: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        """Return the addresses of a name, as `socket.getaddrinfo`: blocks, for seconds it may be,
        but not if the flags are `NUMERIC`.

        ValueError if no port has this number (the system would take another one for it), or if
        this cannot be the name of a host. TypeError if the port is None, for which the system would
        take any: that is 0.
        """
        if not isinstance(port, int | str) or isinstance(port, bool):
            text = "give a number, 0 for any free one, or the name of a service"
            raise TypeError(f"port {brief(port)} of {brief(host)}: {text}")
        if isinstance(port, str) and port.isdecimal():
            port = int(port)
        if isinstance(port, int) and not 0 <= port <= 65535:
            raise ValueError(f"port {port} of {brief(host)}: ports have numbers from 0 to 65535")
        try:
            found: list[Any] = socket.getaddrinfo(host, port, family, kind, proto, flags)
        except UnicodeError as exc:
            # The codec "idna", which writes a name as the DNS does, has refused it.
            text = "a name has parts of 1 to 63 characters, with single dots between them"
            why = f"{exc.__cause__ or exc}; {text}"
            raise ValueError(f"{brief(host)} cannot be a host: {why}") from None
        return found


class ListeningSocket(socket.socket):
    """A socket that the library has opened: what it accepts nobody else holds."""

    __slots__ = ()

    def accept(self) -> tuple[socket.socket, Any]:
        fd, peer = self._accept()  # type: ignore[attr-defined]  # a test pins this private name
        # As numbers: those of `socket.socket` are enums, which cost 11 000 instructions to make.
        plain: Any = super(socket.socket, self)
        try:
            return OwnedSocket(plain.family, plain.type, plain.proto, fileno=fd), peer
        except BaseException:
            os.close(fd)
            raise


# Messages call it what it is to users.
ListeningSocket.__name__ = "socket"

NETWORK = Network()
"""The network of the operating system."""


def network() -> Network:
    """Return the network of the run in this thread, that of the operating system outside of one."""
    scheduler = running_scheduler()
    given: Any = None if scheduler is None else scheduler.network
    return given or NETWORK


def discard(sock: Socket) -> None:
    """Close a socket; also where no scheduler runs any more, and nobody waits for it."""
    if running_scheduler() is None:
        sock.close()
    else:
        close(sock)


def tcp_options(
    who: str, keepalive: float | None, user_timeout: float | None
) -> list[tuple[int, int, int]]:
    """Return the options that sockets of TCP get: level, number, value.

    Small messages are sent at once, and a peer that has vanished is noticed, if only after hours.
    What the two keywords mean is said at `open_tcp`; TypeError or ValueError if they are no
    numbers of seconds.
    """
    tcp = socket.IPPROTO_TCP
    options = [(tcp, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if keepalive is not None:
        idle = _whole(f"{who}(keepalive=)", keepalive, 1, 32767)
        options.append((tcp, KEEPIDLE, idle))
        options.append((tcp, socket.TCP_KEEPINTVL, -(-idle // PROBES)))
        options.append((tcp, socket.TCP_KEEPCNT, PROBES))
    if user_timeout is not None:
        most = _whole(f"{who}(user_timeout=)", user_timeout, 1000, 2**31 - 1)
        options.append((tcp, socket.TCP_USER_TIMEOUT, most))
    return options


def _whole(what: str, value: float, unit: int, most: int) -> int:
    """Return a duration in whole parts of a second, at least one."""
    number = check_number(value, what, "a duration")
    if number <= 0:
        text = "give a number of seconds, more than 0, or None"
        raise ValueError(f"{what} got {brief(value)}: {text}")
    return math.ceil(min(number * unit, most))


@public
class PeerCredentials(NamedTuple):
    """The peer of a Unix socket, by the kernel's word and not the peer's.

    `pid` is the number of its process at that time (a number may be used again), `uid` and `gid`
    are the user and the group that it had.
    """

    pid: int
    uid: int
    gid: int


def peer_credentials(sock: Socket) -> PeerCredentials:
    """Return who is on the other side of a Unix socket."""
    if sock.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        raise io.UnsupportedOperation("only Unix sockets have peer credentials, on Linux")
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(CREDENTIALS))
    return PeerCredentials(*struct.unpack(CREDENTIALS, data))


def reset(sock: Socket) -> None:
    """Close a socket so that a TCP connection is reset: the other side is told of it, what it has
    not got yet is thrown away, and the port of this side is free at once.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    discard(sock)


def has_met_itself(sock: Socket, address: Any) -> bool:
    """Return whether a socket is connected to itself.

    So it is if nobody was at `address`, on this machine, and the system chose that very port for
    our end. For TCP its request is its own answer (RFC 9293, 3.5: a simultaneous open).
    """
    own = sock.getsockname()
    return isinstance(own, tuple) and own[1] == address[1] and own == sock.getpeername()


def named(error: OSError, what: str) -> OSError:
    """Return `error` made anew, so that it says what it is about."""
    kind = socket.gaierror if isinstance(error, socket.gaierror) else OSError
    if error.errno is None:
        return kind(f"{error}: {what}")
    return kind(error.errno, f"{error.strerror}: {what}")


def bind_hint(error: OSError, port: int) -> str:
    """Return what to do about an address that could not be bound, as the end of its message."""
    if error.errno == errno.EADDRINUSE:
        return ". Another program has that port: take another one, or 0 for any"
    if error.errno == errno.EACCES and port < 1024:
        return ". A port below 1024 needs a permission: take one above, or 0 for any"
    return ""


def refusal(error: OSError | MemoryError) -> OSError:
    """Return what the system has refused, as it says so: also if Python has found no memory."""
    if isinstance(error, OSError):
        return error
    return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def unix_path(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str | bytes:
    """Return a path for a Unix socket as the system takes it.

    OSError (ENAMETOOLONG) for one that is too long for it, ValueError for one that it would end at
    a zero byte. A name that begins with one has no file, and may be a byte longer.
    """
    found = os.fspath(path)
    data = os.fsencode(found)
    most = SUN_PATH if data.startswith(b"\0") else SUN_PATH - 1
    if len(data) > most:
        text = f"a path of {len(data)} bytes; a Unix socket can have {most}"
        cure = "write it relative to the current folder, or choose a folder further up"
        raise OSError(errno.ENAMETOOLONG, f"{text}: {cure}", found)
    if b"\0" in data[1:] and not data.startswith(b"\0"):
        raise ValueError(f"{brief(found)}: no path can have a zero byte, but at its beginning")
    return found


def address_text(address: Any) -> str:
    """Return an address as messages name it: `127.0.0.1:80`, `[fe80::1%2]:80`, `'/tmp/path'`; that
    of a Unix socket without a name is empty.
    """
    if not isinstance(address, tuple):
        return repr(address) if address else "an unnamed socket"
    host, port = address[:2]
    scope = f"%{address[3]}" if len(address) == 4 and address[3] else ""
    return f"[{host}{scope}]:{port}" if ":" in host else f"{host}:{port}"


def pauses() -> Iterator[float]:
    """Yield the seconds to sleep between tries of what nothing tells when to try it again.

    That is a Unix socket whose other side has a full queue: its listener or its receiver. Or one
    that the system says it has connected, and has not.
    """
    pause, longest = PAUSES
    while True:
        yield pause
        pause = min(2 * pause, longest)


def source_of(address: Any) -> Any:
    """Return what stands for who is behind an address: for one of IPv6 the first half of it, since
    the other half is chosen freely by each host (RFC 4291, 2.5.4); for credentials the user.
    """
    if isinstance(address, PeerCredentials):
        return address.uid
    if not isinstance(address, tuple):
        return address
    host = plain_host(address[0])
    if ":" not in host:
        return host
    net = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]
    return f"{socket.inet_ntop(socket.AF_INET6, net + bytes(8))}/64"


def plain_host(host: str) -> str:
    """Return the address of a host of IPv4 as it is written, also on a socket of both families."""
    return host[len(MAPPED) :] if host.startswith(MAPPED) and "." in host else host


def unsent(sock: Any) -> int:
    """Return how many bytes the kernel keeps until the peer makes room for them; 0 if nobody knows.

    Of TCP this counts what was not acknowledged, of a Unix socket what was not read.
    """
    return _counted(sock, TIOCOUTQ)


def not_sent(sock: Any) -> int:
    """Return how many of these bytes have not left yet, for the peer has no room for them.

    A peer that has got all may acknowledge the last of it some hundredths of a second later. Where
    the system is not Linux, that counts, too.

    Source: SIOCOUTQNSD in linux/sockios.h; delayed acknowledgements in RFC 9293, 3.8.6.3.
    """
    return _counted(sock, SIOCOUTQNSD)


def _counted(sock: Any, request: int) -> int:
    count = bytes(4)
    # This may be no socket of the system's.
    with suppress(AttributeError, OSError):
        count = fcntl.ioctl(sock, request, count)
    return int.from_bytes(count, sys.byteorder)


def traffic(stream: Any) -> tuple[int, int]:
    """Return how many bytes the peer has acknowledged since a stream's connection began, and how
    many it has sent. 0 if nobody knows: it is closed, no TCP, or the system is not Linux.

    Source: `struct tcp_info` in tcp(7), tcpi_bytes_acked and tcpi_bytes_received.
    """
    with suppress(OSError, ValueError, AttributeError, struct.error):
        info = stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        taken, come = struct.unpack_from("=QQ", info, TCP_INFO_SIZE - 16)
        return taken, come
    return 0, 0
