"""The network, as the library sees it: the one object that opens sockets and looks names up.

    network().socket(AF_INET, SOCK_STREAM)      a new socket, not blocking
    network().adopt(fd)                         one that somebody else has opened
    network().getaddrinfo("example.org", 80)    blocks: call it in a thread

Library code calls nothing but the methods of the sockets it gets here, and waits for them with
`ReadWait` and `WriteWait`. So `run(network=...)` can put another network in the place of this
one: a test's, whose sockets misbehave on purpose, or a simulated one.

Imports from corolib only `running.py`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from corolib.running import close, register

Socket = socket.socket
AddressInfo = tuple[int, int, int, str, Any]
"""What a lookup finds: family, type, protocol, canonical name, address."""

NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV  # these flags make a lookup instant

PAUSES = 0.001, 0.05  # seconds: the first asks soon, the last twenty times a second at no cost


class Network:
    """Opens sockets and looks names up: what `run(network=...)` and `Scheduler` hold.

    The network of the operating system. For another one derive from it.
    """

    def socket(self, family: int, kind: int, proto: int = 0) -> Socket:
        """Return a new socket, not blocking, which child processes do not inherit."""
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        return sock

    def adopt(self, fd: int) -> Socket:
        """Return the open socket `fd` as an object, which owns it from here on; not blocking.

        All programs that have this socket find it not blocking. Child processes of ours no longer
        inherit it. OSError if it is no socket: then it stays the caller's.
        """
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        sock.set_inheritable(False)
        return sock

    def getaddrinfo(
        self,
        host: str | bytes | None,
        port: str | int | None,
        family: int = 0,
        kind: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        """Return the addresses of a name, as `socket.getaddrinfo`: blocks, for seconds it may be,
        but not if the flags are `NUMERIC`.

        ValueError if no port has this number: the system would take another one for it.
        """
        if isinstance(port, str) and port.isdecimal():
            port = int(port)
        if isinstance(port, int) and not 0 <= port <= 65535:
            raise ValueError(f"port {port} of {host!r}: ports have numbers from 0 to 65535")
        found: list[Any] = socket.getaddrinfo(host, port, family, kind, proto, flags)
        return found


NETWORK = Network()
"""The network of the operating system."""


def network() -> Network:
    """Return the network of the run in this thread, that of the operating system outside of one."""
    scheduler = register.scheduler
    return NETWORK if scheduler is None else scheduler.network


def discard(sock: Socket) -> None:
    """Close a socket; also where no scheduler runs any more, and nobody waits for it."""
    if register.scheduler is None:
        sock.close()
    else:
        close(sock)


def named(error: OSError, what: str) -> OSError:
    """Return `error` made anew, so that it says what it is about."""
    kind = socket.gaierror if isinstance(error, socket.gaierror) else OSError
    if error.errno is None:
        return kind(f"{error}: {what}")
    return kind(error.errno, f"{error.strerror}: {what}")


def address_text(address: Any) -> str:
    """Return an address as messages name it: `127.0.0.1:80`, `[fe80::1%2]:80`, `'/tmp/path'`."""
    if not isinstance(address, tuple):
        return repr(address)
    host, port = address[:2]
    scope = f"%{address[3]}" if len(address) == 4 and address[3] else ""
    return f"[{host}{scope}]:{port}" if ":" in host else f"{host}:{port}"


def pauses() -> Iterator[float]:
    """Yield the seconds to sleep between tries of what nothing tells when to try it again.

    That is a Unix socket whose other side has a full queue: its listener or its receiver.
    """
    pause, longest = PAUSES
    while True:
        yield pause
        pause = min(2 * pause, longest)
