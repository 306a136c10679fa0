"""One event loop: tasks that read like the blocking server, and one thread that waits for all.

    $ python3 -m demos.models.event_loop
    totals on 127.0.0.1 port 7050; try: nc 127.0.0.1 7050

Underneath it is I/O multiplexing, as in `multiplexing.py`: the scheduler sleeps in one call for all
clients. But what one client is at is not kept in an object that is stepped from outside: it is the
place where its task waits, in a `yield from`. Between two of these nobody interrupts a task, so
what tasks share needs no locks; and a task costs a few kilobytes.

Compare `talk` with the one of `blocking.py`, line by line.
"""

from __future__ import annotations

import argparse

from corolib import Coro, Listener, Stream, listen_tcp, run
from corolib.demo.start import start
from demos.models.job import CHUNK, Totals, announce


def talk(stream: Stream) -> Coro[None]:
    """Serve one client until it has no more."""
    totals = Totals()
    while data := (yield from stream.recv(CHUNK)):
        yield from stream.sendall(totals.answers(data))


def serve(listener: Listener) -> Coro[None]:
    """Start a task for each client, until Ctrl-C; then nobody is waited for."""
    yield from listener.serve(talk, grace=0)


def main(options: argparse.Namespace) -> None:
    with listen_tcp(options.host, options.port) as listener:
        announce(*listener.addresses[0][:2])
        run(serve, listener)


if __name__ == "__main__":
    start(main, __doc__, port=7050)
