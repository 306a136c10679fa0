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
