"""corolib with raw traps, the one for reading made once for each connection."""

from __future__ import annotations

import socket

from corolib import Coro, ReadWait, WriteWait, run
from demos.bench.servers.corolib_traps import serve


def handle_echo(conn: socket.socket) -> Coro[None]:
    reading = ReadWait(conn)
    with conn:
        while True:
            yield reading
            data = conn.recv(65536)
            if not data:
                return
            while data:
                try:
                    data = data[conn.send(data) :]
                except BlockingIOError:  # the kernel's buffer is full
                    yield WriteWait(conn)


def echo(listener: socket.socket) -> None:
    run(serve, listener, handle_echo)
