"""Echo, with the functions `accept` and `read`, which were callbacks of a selector.

    $ python3 -m demos.cookbook.accept_read
    echo on 127.0.0.1 port 1234; try: nc 127.0.0.1 1234

The old shape, `old/accept_read.py`, called `send` and hoped that it would take everything. In a
callback there is little else to do: it cannot wait, so what is left would have to be kept somewhere
until another callback comes for it. A generator waits where it stands: the inner loop of `read`.
"""

from __future__ import annotations

import argparse
import socket

from corolib import Coro, ReadWait, Sleep, WriteWait, gather, run, spawn
from demos.ports import announce, open_listeners
from demos.start import start


def accept(listener: socket.socket) -> Coro[None]:
    while True:
        yield ReadWait(listener)
        try:
            conn, peer = listener.accept()
        except OSError:  # that client is gone, or no file number is free
            yield Sleep(0.05)
            continue
        announce(peer)
        conn.setblocking(False)
        spawn(read, conn)


def read(conn: socket.socket) -> Coro[None]:
    with conn:
        try:
            while True:
                yield ReadWait(conn)
                try:
                    data = conn.recv(1000)
                except BlockingIOError:  # woken for nothing
                    continue
                if not data:
                    return
                while data:
                    try:
                        data = data[conn.send(data) :]
                    except BlockingIOError:
                        yield WriteWait(conn)
        except OSError:
            pass  # the client is gone


def main(options: argparse.Namespace) -> None:
    with open_listeners(options.host, options.port) as listeners:
        host, port, *_ = listeners[0].getsockname()
        print(f"echo on {host} port {port}; try: nc {host} {port}", flush=True)
        run(lambda: gather(*map(accept, listeners)))


if __name__ == "__main__":
    start(main, __doc__, port=1234)
