"""Pairs of connected sockets, and what is done to them: a tool of the tests."""

import contextlib
import os
import socket
import struct

from corolib import Stream


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, non-blocking."""
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    return a, b


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two sockets that are connected over the loopback interface, and send at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def make_tcp() -> tuple[socket.socket, socket.socket]:
    """Return such two, non-blocking."""
    a, b = tcp_pair()
    a.setblocking(False)
    b.setblocking(False)
    return a, b


def make_streams() -> tuple[Stream, Stream]:
    """Return streams over two connected sockets."""
    a, b = make_pair()
    return Stream(a), Stream(b)


def is_open(fd: int) -> bool:
    """Return whether a number is that of an open file."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def fill(sock: socket.socket) -> None:
    """Send until the kernel takes no more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(b"x" * 65536)


def empty(sock: socket.socket) -> None:
    """Receive all that is there."""
    with contextlib.suppress(BlockingIOError):
        while sock.recv(1 << 20):
            pass


def reset(sock: socket.socket) -> None:
    """Close a connection so that the other side gets ECONNRESET."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def can_forge() -> bool:
    """Return whether this user may send datagrams with any address in them."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()
    except OSError:
        return False
    return True


def forge(data: bytes, sender: tuple[str, int], receiver: tuple[str, int]) -> None:
    """Send a datagram over IPv4 as if `sender` did; see `can_forge`."""
    size = 8 + len(data)
    # No checksum, which means that there is none; that of the first header Linux writes itself.
    udp = struct.pack("!HHHH", sender[1], receiver[1], size, 0) + data
    hosts = socket.inet_aton(sender[0]) + socket.inet_aton(receiver[0])
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, socket.IPPROTO_UDP, 0) + hosts
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(ip + udp, receiver)


class Wiretap:
    """Hears all datagrams over IPv4 that come to this machine; see `can_forge`.

    `with Wiretap(*ports) as tap:` hears those between these ports; `tap.heard()` are the ports of
    sender and receiver of each that has come since, in order.
    """

    def __init__(self, *ports: int) -> None:
        self.ports = ports
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.sock.setblocking(False)

    def heard(self) -> list[tuple[int, int]]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self.sock.recv(65535)
                header = (packet[0] & 15) * 4
                sender, receiver = struct.unpack("!HH", packet[header : header + 4])
                if sender in self.ports and receiver in self.ports:
                    found.append((sender, receiver))
        return found

    def __enter__(self) -> "Wiretap":
        return self

    def __exit__(self, *error: object) -> None:
        self.sock.close()
