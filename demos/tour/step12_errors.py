"""Step 12 of the tour: what goes wrong concerns one task, and is told to it.

    $ python3 -m demos.tour.step12_errors
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007

A task is an object now, and an error can be thrown into it, at its `yield`. How a task is parked in
a trap stands in a table.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from typing import Any

from demos.start import start
from demos.tour.listening import listen
from demos.tour.step11_timers import TICK, Coro, ReadWait, Sleep, WriteWait, accept_clients, tick

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class BusyError(RuntimeError):
    """Another task already waits for this file, in the same direction."""


class Task:
    """A generator being run, and what its next step gets."""

    def __init__(self, body: Coro[Any]) -> None:
        self.body = body
        self.name = getattr(body, "__name__", "?")
        self.error: BaseException | None = None  # the next step resumes the body with this


def report(task: Task, error: BaseException) -> None:
    """Say that a task failed."""
    print(f"task {task.name} failed: {error!r}", file=sys.stderr)


class Scheduler:
    """Runs tasks, in turns of three acts: wait, expire, step."""

    def __init__(self, on_task_error: Callable[[Task, BaseException], object] = report) -> None:
        self.on_task_error = on_task_error
        self.tasks: set[Task] = set()
        self.ready: deque[Task] = deque()  # first come, first served
        self.timers: list[tuple[float, int, Task]] = []  # a heap
        self.count = 0  # equal deadlines keep their order
        self.readers: dict[socket.socket, Task] = {}
        self.writers: dict[socket.socket, Task] = {}
        self.selector = selectors.DefaultSelector()
        # The meaning of each trap: how a task is parked in it.
        self.handlers: dict[type, Callable[[Task, Any], None]] = {
            ReadWait: partial(self.wait_file, self.readers),
            WriteWait: partial(self.wait_file, self.writers),
            Sleep: self.sleep,
            type(None): self.give_way,
        }

    def spawn(self, body: Coro[Any]) -> Task:
        task = Task(body)
        self.tasks.add(task)
        self.ready.append(task)
        return task

    def run(self, body: Coro[Any]) -> None:
        self.spawn(body)
        while self.tasks:
            self.turn()

    def turn(self) -> None:
        # Act 1: wait.
        for key, events in self.selector.select(self.patience()):
            if events & READ:
                self.resume(self.readers.pop(key.data))
            if events & WRITE:
                self.resume(self.writers.pop(key.data))
            self.watch(key.data)
        # Act 2: expire.
        while self.timers and self.timers[0][0] <= time.monotonic():
            self.resume(heappop(self.timers)[2])
        # Act 3: step.
        for _ in range(len(self.ready)):
            self.step(self.ready.popleft())

    def patience(self) -> float | None:
        """Return how long to wait for files; None is for ever."""
        if self.ready:
            return 0
        return max(self.timers[0][0] - time.monotonic(), 0) if self.timers else None

    def step(self, task: Task) -> None:
        """Resume a task, with its error if it has one; park it according to its trap."""
        error, task.error = task.error, None
        try:
            trap = task.body.throw(error) if error else task.body.send(None)
        except StopIteration:
            self.body_over(task, None)
        except Exception as exc:
            self.body_over(task, exc)
        else:
            self.park(task, trap)

    def park(self, task: Task, trap: object) -> None:
        try:
            self.handlers.get(type(trap), self.wrong_yield)(task, trap)
        except Exception as exc:
            self.resume(task, exc)  # it gets that at its `yield`

    def resume(self, task: Task, error: BaseException | None = None) -> None:
        """Make a task ready; if there is an error, its next step gets that."""
        task.error = error
        self.ready.append(task)

    def body_over(self, task: Task, error: BaseException | None) -> None:
        self.tasks.remove(task)
        if isinstance(error, Exception):
            self.on_task_error(task, error)

    # What the traps mean.

    def wait_file(self, waiting: dict[socket.socket, Task], task: Task, trap: Any) -> None:
        if trap.file in waiting:
            raise BusyError(f"another task already waits for this: {trap}")
        waiting[trap.file] = task
        try:
            self.watch(trap.file)
        except Exception:
            del waiting[trap.file]  # a closed file, say: the task gets the error
            raise

    def watch(self, file: socket.socket) -> None:
        """Tell the selector in which directions somebody waits for a file now."""
        events = READ * (file in self.readers) | WRITE * (file in self.writers)
        if file in self.selector.get_map():
            self.selector.unregister(file)
        if events:
            self.selector.register(file, events, file)

    def sleep(self, task: Task, trap: Sleep) -> None:
        self.count += 1
        heappush(self.timers, (time.monotonic() + trap.seconds, self.count, task))

    def give_way(self, task: Task, trap: None) -> None:
        self.resume(task)

    def wrong_yield(self, task: Task, thing: object) -> None:
        raise TypeError(f"yielded {thing!r}, which is not a trap")


def main(options: argparse.Namespace) -> None:
    with listen(options) as listener:
        listener.setblocking(False)
        scheduler = Scheduler()
        scheduler.spawn(tick(options.tick))
        scheduler.run(accept_clients(listener, scheduler.spawn))


if __name__ == "__main__":
    start(main, __doc__, port=7007, arguments=TICK)
