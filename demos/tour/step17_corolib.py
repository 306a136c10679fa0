"""Step 17 of the tour: the same tasks, run by corolib.

    $ python3 -m demos.tour.step17_corolib --tick 1
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007
    tick
    tick

`echo`, `accept_clients` and `tick` are those of step 11, line by line; but `spawn` is no longer
handed on, since corolib's finds the scheduler by itself.
"""

from __future__ import annotations

import argparse
import socket

from corolib import Coro, ReadWait, Sleep, WriteWait, run, spawn
from demos.start import start
from demos.tour.listening import listen
from demos.tour.step11_timers import TICK


def echo(conn: socket.socket) -> Coro[None]:
    """Send back what a client sends, until it has no more."""
    with conn:
        while True:
            yield ReadWait(conn)
            data = conn.recv(65536)
            if not data:
                return
            while data:
                try:
                    data = data[conn.send(data) :]
                except BlockingIOError:  # the kernel's buffer is full
                    yield WriteWait(conn)


def accept_clients(listener: socket.socket) -> Coro[None]:
    """Start a task for each client that connects."""
    while True:
        yield ReadWait(listener)
        try:
            conn, _ = listener.accept()
        except OSError:  # no file number is free: the client stays in the queue, so do not spin
            yield Sleep(0.05)
            continue
        conn.setblocking(False)
        spawn(echo(conn))


def tick(seconds: float) -> Coro[None]:
    """Show that the time passes."""
    while True:
        yield Sleep(seconds)
        print("tick", flush=True)


def serve(listener: socket.socket, seconds: float) -> Coro[None]:
    """The main task: what `run()` begins with."""
    spawn(tick(seconds))
    yield from accept_clients(listener)


def main(options: argparse.Namespace) -> None:
    with listen(options) as listener:
        listener.setblocking(False)
        run(serve, listener, options.tick)


if __name__ == "__main__":
    start(main, __doc__, port=7007, arguments=TICK)
