"""How demos open their ports, and the line that they print when a client comes.

    with open_ports("localhost", 7007) as ports:        one for each address of the name: two
        for tcp, udp in ports: ...

What is served there is in the demos themselves. Those with a `Listener` of corolib's, which knows
all of this, need the line alone: `listener.serve(handler, accept=announce)`.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

NO_SUCH = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # IPv6, say, is switched off
LINES = 10  # that are printed in a second

_printed: deque[float] = deque(maxlen=LINES)


class Port(NamedTuple):
    """One number at one address, for both transports; neither socket blocks."""

    tcp: socket.socket  # which listens
    udp: socket.socket

    @property
    def number(self) -> int:
        return port_of(self.tcp)


@contextmanager
def open_ports(host: str, number: int) -> Iterator[list[Port]]:
    """Open a port, for TCP and UDP, on each address of a host; number 0 is any that is free.

    They are closed behind the block. SystemExit, with one line: they cannot be had.
    """
    with opened(host, number, [socket.SOCK_STREAM, socket.SOCK_DGRAM]) as rows:
        yield [Port(*row) for row in rows]


@contextmanager
def open_listeners(host: str, number: int) -> Iterator[list[socket.socket]]:
    """As `open_ports`, for TCP alone."""
    with opened(host, number, [socket.SOCK_STREAM]) as rows:
        yield [listener for (listener,) in rows]


@contextmanager
def opened(
    host: str, number: int, kinds: list[socket.SocketKind]
) -> Iterator[list[list[socket.socket]]]:
    """Open sockets of some kinds on each address of a host, all with one number."""
    with ExitStack() as stack:
        yield open_all(stack, host, number, kinds)


def open_all(
    stack: ExitStack, host: str, number: int, kinds: list[socket.SocketKind], tries: int = 3
) -> list[list[socket.socket]]:
    """Do that, onto a stack; SystemExit, with one line, if it cannot be done."""
    try:
        return bind_all(stack, host, number, kinds)
    except (OSError, OverflowError, UnicodeError) as exc:
        stack.close()
        if number == 0 and tries > 1:  # perhaps it was free for the first of them only
            return open_all(stack, host, number, kinds, tries - 1)
        # What `create_server` adds to its message names the address once more.
        text = (getattr(exc, "strerror", None) or str(exc)).partition(" (while ")[0]
        sys.exit(f"cannot listen on {host} port {number}: {text}")


def bind_all(
    stack: ExitStack, host: str, number: int, kinds: list[socket.SocketKind]
) -> list[list[socket.socket]]:
    """Do that once; OSError: no address is here, or another one than such is not to be had."""
    infos = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)
    rows: list[list[socket.socket]] = []
    missing: OSError | None = None
    for family, address in dict.fromkeys((info[0], info[4]) for info in infos):
        row: list[socket.socket] = []
        try:
            for kind in kinds:
                row.append(stack.enter_context(bind(family, kind, address, number)))
                number = port_of(row[0])
        except OSError as exc:
            if row or exc.errno not in NO_SUCH:
                raise
            missing = exc
        else:
            rows.append(row)
    if missing is not None and not rows:
        raise missing
    return rows


def bind(
    family: int, kind: socket.SocketKind, address: tuple[Any, ...], number: int
) -> socket.socket:
    """Return a socket on this address, but with this number; if it is for TCP, it listens."""
    address = (address[0], number, *address[2:])
    if kind == socket.SOCK_STREAM:
        sock = socket.create_server(address, family=family, backlog=1024)
    else:
        sock = socket.socket(family, kind)
        try:
            sock.bind(address)
        except BaseException:
            sock.close()
            raise
    sock.setblocking(False)
    return sock


def port_of(sock: socket.socket) -> int:
    """Return the number of a socket's port."""
    number: int = sock.getsockname()[1]
    return number


def announce(peer: Any) -> bool:
    """Say that a client has come, to who is looking: where stderr is no terminal, nothing is said.

    In a crowd it names ten in a second. Lets in whoever comes.
    """
    if sys.stderr is not None and sys.stderr.isatty():
        now = time.monotonic()
        if len(_printed) < LINES or now - _printed[0] > 1:
            _printed.append(now)
            host, port, *_ = peer
            print(f"a client: {host} port {port}", file=sys.stderr, flush=True)
    return True
