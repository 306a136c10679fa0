"""Step 14 of the tour: a task can wait for another one; and no fault of the ancestors is left.

    $ python3 -m demos.tour.step14_join
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007

What is new since step 13 is the trap `Suspend`, and the join that is made of it. The tasks are in
`step14_task`. What the three steps have mended is shown by `faults`.
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
from demos.tour.step14_task import BusyError, Cancelled, Suspend, Task, Undo, nothing

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def report(task: Task, error: BaseException) -> None:
    """Say that a task failed, if nobody joins it."""
    print(f"task {task.name} failed: {error!r}", file=sys.stderr)


class Scheduler:
    """Runs tasks, in turns of three acts: wait, expire, step."""

    def __init__(self, on_task_error: Callable[[Task, BaseException], object] = report) -> None:
        self.on_task_error = on_task_error
        self.tasks: set[Task] = set()
        self.main: Task | None = None
        self.ready: deque[Task] = deque()  # first come, first served
        self.timers: list[list[Any]] = []  # a heap of [deadline, count, task]
        self.count = 0  # equal deadlines keep their order
        self.readers: dict[socket.socket, Task] = {}
        self.writers: dict[socket.socket, Task] = {}
        self.selector = selectors.DefaultSelector()
        # The meaning of each trap: how a task is parked in it.
        self.handlers: dict[type, Callable[[Task, Any], Undo]] = {
            ReadWait: partial(self.wait_file, self.readers),
            WriteWait: partial(self.wait_file, self.writers),
            Sleep: self.sleep,
            Suspend: self.suspend,
            type(None): self.give_way,
        }

    def spawn(self, body: Coro[Any]) -> Task:
        task = Task(self, body)
        self.tasks.add(task)
        self.ready.append(task)
        return task

    def run(self, body: Coro[Any]) -> Any:
        main = self.main = self.spawn(body)
        while self.tasks:
            self.turn()
        if main.failure is not None:
            raise main.failure
        return main.returned

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
            task = heappop(self.timers)[2]
            if task is not None:  # None: the wait was taken back
                self.resume(task)
        # Act 3: step.
        for _ in range(len(self.ready)):
            self.step(self.ready.popleft())

    def patience(self) -> float | None:
        """Return how long to wait for files; None is for ever."""
        if self.ready:
            return 0
        return max(self.timers[0][0] - time.monotonic(), 0) if self.timers else None

    def step(self, task: Task) -> None:
        """Resume a task with its value or its error, and park it according to its trap."""
        error, task.error = task.error, None
        try:
            trap = task.body.throw(error) if error else task.body.send(task.value)
        except StopIteration as stop:
            self.body_over(task, stop.value, None)
        except (Exception, Cancelled) as exc:
            self.body_over(task, None, exc)
        else:
            self.park(task, trap)

    def park(self, task: Task, trap: object) -> None:
        task.wait = trap
        try:
            if task.pending:
                task.pending = False
                raise Cancelled
            task.undo = self.handlers.get(type(trap), self.wrong_yield)(task, trap)
        except (Exception, Cancelled) as exc:
            self.resume(task, None, exc)  # it gets that at its `yield`

    def resume(self, task: Task, value: Any = None, error: BaseException | None = None) -> None:
        """Make a task ready: its next step gets `value`, or `error` if there is one."""
        task.wait = None
        task.value, task.error = value, error
        self.ready.append(task)

    def body_over(self, task: Task, value: Any, error: BaseException | None) -> None:
        task.done, task.returned, task.failure = True, value, error
        self.tasks.remove(task)
        for wake in task.joiners:
            wake(value, error)
        if isinstance(error, Exception) and not (task.joiners or task is self.main):
            self.on_task_error(task, error)

    # What the traps mean. Each returns the undo of the wait.

    def wait_file(self, waiting: dict[socket.socket, Task], task: Task, trap: Any) -> Undo:
        if trap.file in waiting:
            raise BusyError(f"another task already waits for this: {trap}")
        waiting[trap.file] = task
        try:
            self.watch(trap.file)
        except Exception:
            del waiting[trap.file]  # a closed file, say: the task gets the error
            raise
        return partial(self.unwait_file, waiting, trap.file)

    def unwait_file(self, waiting: dict[socket.socket, Task], file: socket.socket) -> None:
        del waiting[file]
        self.watch(file)

    def watch(self, file: socket.socket) -> None:
        """Tell the selector in which directions somebody waits for a file now."""
        events = READ * (file in self.readers) | WRITE * (file in self.writers)
        if file in self.selector.get_map():
            self.selector.unregister(file)
        if events:
            self.selector.register(file, events, file)

    def sleep(self, task: Task, trap: Sleep) -> Undo:
        self.count += 1
        timer = [time.monotonic() + trap.seconds, self.count, task]
        heappush(self.timers, timer)
        return partial(timer.__setitem__, 2, None)

    def suspend(self, task: Task, trap: Suspend) -> Undo:
        def wake(value: Any = None, error: BaseException | None = None) -> None:
            if task.wait is trap:  # only the first call counts
                self.resume(task, value, error)

        return trap.arm(wake)

    def give_way(self, task: Task, trap: None) -> Undo:
        self.resume(task)
        return nothing

    def wrong_yield(self, task: Task, thing: object) -> Undo:
        raise TypeError(f"yielded {thing!r}, which is not a trap")


def main(options: argparse.Namespace) -> None:
    with listen(options) as listener:
        listener.setblocking(False)
        scheduler = Scheduler()
        scheduler.spawn(tick(options.tick))
        scheduler.run(accept_clients(listener, scheduler.spawn))


if __name__ == "__main__":
    start(main, __doc__, port=7007, arguments=TICK)
