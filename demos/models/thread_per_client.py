"""One thread for each client: the blocking server, with as many places to sleep as clients.

    $ python3 -m demos.models.thread_per_client
    totals on 127.0.0.1 port 7050; try: nc 127.0.0.1 7050

Each thread waits for one client, in `recv()`, as `blocking.py` does. A thread is cheaper than a
process, and all see the same memory: easy to share, easy to spoil. The kernel decides when one is
interrupted by another, which in Python can be between any two instructions; so what they share
needs locks. Here they share nothing but the set of connections.
"""

from __future__ import annotations

import argparse
import signal
import socket
from contextlib import suppress
from threading import Thread

from corolib.demo.start import start
from demos.models.blocking import talk
from demos.models.job import accept, listen


def session(conn: socket.socket, open_ones: set[socket.socket]) -> None:
    """Serve one client, in a thread that ends with it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it has to wake the main thread
    with suppress(OSError):
        talk(conn)
    open_ones.discard(conn)


def serve(listener: socket.socket, open_ones: set[socket.socket]) -> None:
    """Start a thread for each client, for ever."""
    while True:
        conn = accept(listener)
        open_ones.add(conn)
        try:
            Thread(target=session, args=(conn, open_ones)).start()
        except RuntimeError:  # there are too many threads: this client is turned away
            open_ones.discard(conn)
            conn.close()


def main(options: argparse.Namespace) -> None:
    open_ones: set[socket.socket] = set()
    with listen(options) as listener:
        try:
            serve(listener, open_ones)
        finally:
            for conn in list(open_ones):
                with suppress(OSError):
                    conn.shutdown(socket.SHUT_RDWR)  # its thread wakes up to an end of file


if __name__ == "__main__":
    start(main, __doc__, port=7050)
