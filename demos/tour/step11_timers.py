"""Step 11 of the tour: timers, a queue of ready tasks, and turns of three acts.

    $ python3 -m demos.tour.step11_timers --tick 1
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007
    tick
    tick

A task that waits for a time runs beside those that wait for clients.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, TypeVar

from demos.start import at_least, start
from demos.tour.listening import listen

T = TypeVar("T")
Coro = Generator[Any, Any, T]
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


@dataclass
class ReadWait:
    """Wait until a file can be read."""

    file: socket.socket


@dataclass
class WriteWait:
    """Wait until a file can be written."""

    file: socket.socket


@dataclass
class Sleep:
    """Wait until so many seconds have passed."""

    seconds: float


class Scheduler:
    """Runs tasks, in turns of three acts: wait, expire, step."""

    def __init__(self) -> None:
        self.ready: deque[Coro[Any]] = deque()  # first come, first served
        self.timers: list[tuple[float, int, Coro[Any]]] = []  # a heap: the soonest comes first
        self.count = 0  # equal deadlines keep their order
        self.readers: dict[socket.socket, Coro[Any]] = {}
        self.writers: dict[socket.socket, Coro[Any]] = {}
        self.selector = selectors.DefaultSelector()

    def spawn(self, task: Coro[Any]) -> None:
        self.ready.append(task)

    def run(self, main: Coro[Any]) -> None:
        self.spawn(main)
        while self.ready or self.timers or self.readers or self.writers:
            self.turn()

    def turn(self) -> None:
        # Act 1: wait.
        for key, events in self.selector.select(self.patience()):
            if events & READ:
                self.ready.append(self.readers.pop(key.data))
            if events & WRITE:
                self.ready.append(self.writers.pop(key.data))
            self.watch(key.data)
        # Act 2: expire.
        while self.timers and self.timers[0][0] <= time.monotonic():
            self.ready.append(heappop(self.timers)[2])
        # Act 3: step.
        for _ in range(len(self.ready)):
            self.step(self.ready.popleft())

    def patience(self) -> float | None:
        """Return how long to wait for files; None is for ever."""
        if self.ready:
            return 0
        return max(self.timers[0][0] - time.monotonic(), 0) if self.timers else None

    def step(self, task: Coro[Any]) -> None:
        """Resume a task, and park it according to the trap that it yields."""
        try:
            trap = task.send(None)
        except StopIteration:
            return
        if isinstance(trap, ReadWait):
            self.readers[trap.file] = task
            self.watch(trap.file)
        elif isinstance(trap, WriteWait):
            self.writers[trap.file] = task
            self.watch(trap.file)
        elif isinstance(trap, Sleep):
            self.count += 1
            heappush(self.timers, (time.monotonic() + trap.seconds, self.count, task))
        else:  # a bare `yield`: give way
            self.ready.append(task)

    def watch(self, file: socket.socket) -> None:
        """Tell the selector in which directions somebody waits for a file now."""
        events = READ * (file in self.readers) | WRITE * (file in self.writers)
        if file in self.selector.get_map():
            self.selector.unregister(file)
        if events:
            self.selector.register(file, events, file)


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


def accept_clients(listener: socket.socket, spawn: Callable[[Coro[None]], object]) -> Coro[None]:
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


def main(options: argparse.Namespace) -> None:
    with listen(options) as listener:
        listener.setblocking(False)
        scheduler = Scheduler()
        scheduler.spawn(tick(options.tick))
        scheduler.run(accept_clients(listener, scheduler.spawn))


TICK = {"--tick": {"type": at_least(0.0, 3600.0), "default": 5, "help": "default: %(default)s"}}

if __name__ == "__main__":
    start(main, __doc__, port=7007, arguments=TICK)
