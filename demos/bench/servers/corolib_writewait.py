"""corolib with raw traps, and a wait before every send, needed or not."""

from __future__ import annotations

import socket

from corolib import Coro, ReadWait, WriteWait, run
from demos.bench.servers.corolib_traps import serve


def handle_echo(conn: socket.socket) -> Coro[None]:
    with conn:
        while True:
            yield ReadWait(conn)
            data = conn.recv(65536)
            if not data:
                return
            while data:
                yield WriteWait(conn)
                try:
                    data = data[conn.send(data) :]
                except BlockingIOError:  # woken for nothing: wait again
                    continue


def echo(listener: socket.socket) -> None:
    run(serve, listener, handle_echo)
