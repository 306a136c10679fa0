"""Clients that are nothing but sockets, in the same run as the server that they talk to."""

import socket
from collections.abc import Generator
from typing import Any

from corolib import ReadWait


def dial(
    server: Any, number: int = 0, source: str | None = None, buffer: int | None = None
) -> socket.socket:
    """Return a socket that is connected to a server or a listener: blocking until here.

    Without a `buffer` of its own size the kernel adapts that to how fast it is read, which in
    virtual time is at once. Then the sender learns of what was read in lumps of megabytes.
    """
    address = getattr(server, "listener", server).addresses[number]
    sock = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    if source is not None:
        sock.bind((source, 0))
    sock.connect(address)
    sock.setblocking(False)
    return sock


def everything(sock: socket.socket) -> Generator[Any, Any, bytes]:
    """Wait for all that comes until the end of the file; `ConnectionResetError` counts as one."""
    data = b""
    while True:
        yield ReadWait(sock)
        try:
            more = sock.recv(65536)
        except ConnectionResetError:
            more = b""
        if not more:
            return data
        data += more
