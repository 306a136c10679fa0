"""Step 10 of the tour: generators that yield what they wait for, and twenty lines that run them.

    $ python3 -m demos.tour.step10_generators
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007

`echo` reads from top to bottom again, as in step 1, and all clients are served in one thread.
"""

from __future__ import annotations

import argparse
import selectors
import socket
from collections.abc import Callable, Generator
from dataclasses import dataclass

from demos.start import start
from demos.tour.listening import listen


@dataclass
class ReadWait:
    """Wait until a file can be read."""

    file: socket.socket


@dataclass
class WriteWait:
    """Wait until a file can be written."""

    file: socket.socket


Task = Generator[ReadWait | WriteWait, None, None]
Spawn = Callable[[Task], None]


class Scheduler:
    """Runs tasks: the selector is the list of who waits for what."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def spawn(self, task: Task) -> None:
        self.step(task)

    def run(self, main: Task) -> None:
        self.spawn(main)
        while self.selector.get_map():
            for key, _ in self.selector.select():
                self.selector.unregister(key.fileobj)
                self.step(key.data)

    def step(self, task: Task) -> None:
        try:
            trap = task.send(None)
        except StopIteration:
            return
        reads = isinstance(trap, ReadWait)
        event = selectors.EVENT_READ if reads else selectors.EVENT_WRITE
        self.selector.register(trap.file, event, task)


def echo(conn: socket.socket) -> Task:
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


def accept_clients(listener: socket.socket, spawn: Spawn) -> Task:
    """Start a task for each client that connects."""
    while True:
        yield ReadWait(listener)
        conn, _ = listener.accept()
        conn.setblocking(False)
        spawn(echo(conn))


def main(options: argparse.Namespace) -> None:
    with listen(options) as listener:
        scheduler = Scheduler()
        scheduler.run(accept_clients(listener, scheduler.spawn))


if __name__ == "__main__":
    start(main, __doc__, port=7007)
