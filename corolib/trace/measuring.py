"""Measures: how long tasks compute, how long the loop sleeps, how late a ready task may come.

    run(main, measure=True)         then current_scheduler().stats() and .measured(task)

What is measured is real time, whatever clock the scheduler has. A run that is not measured has
another class, and no look at a clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from math import inf
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from corolib.kernel import Scheduler, Task, where

MINUTE = 60  # seconds of the past that the lag is told of
SHOWN = 10  # tasks in a report: those that computed the longest
clock = time.perf_counter


class Measures(NamedTuple):
    """The times of one task. Units: seconds.

    Attributes:
        steps: how often it was resumed.
        busy: how long these steps took together, by the clock on the wall.
        cpu: how long the processor computed in them. The rest was waiting: for a lock of threads,
            a disk, a `time.sleep()`; or for a processor.
        longest: the longest step.
        where: where that ended, "app.py:12".
    """

    steps: int = 0
    busy: float = 0.0
    cpu: float = 0.0
    longest: float = 0.0
    where: str = ""


class _Count:
    """What is counted of one task; as in `Measures`."""

    __slots__ = ("busy", "cpu", "longest", "steps", "where")

    def __init__(self) -> None:
        self.steps = 0
        self.busy = self.cpu = self.longest = 0.0
        self.where = ""


class MeasuredScheduler(Scheduler):
    """A scheduler that measures its tasks and itself: `run(measure=True)`.

    `stats()` has more then, in seconds:

        busy            in steps of tasks
        idle            in the selector, asleep; of a guest, also what lies between its turns, in
                        which the other loop sleeps or computes
        longest_step    of any task
        lag             the longest turn of the last minute: so long may a ready task have waited
        lag_mean        the mean of the turns of the last minute

    and `report()` names the tasks that computed the longest.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._counts: WeakKeyDictionary[Task[Any], _Count] = WeakKeyDictionary()
        self._busy = self._idle = self._longest = 0.0
        self._turn_seen = 0
        self._turn_began: float | None = None  # None: no task was stepped since the last poll
        self._left: float | None = None  # since when another loop has the thread
        # Of each second in which turns ended: which, the longest, all together, how many.
        self._seconds: deque[tuple[int, float, float, int]] = deque()
        super().__init__(*args, **options)

    def make_stepper(self, context: Context) -> Callable[..., Any]:
        inner = super().make_stepper(context)
        count = _Count()
        cpu_clock = time.thread_time

        def step(f: Callable[..., Any], value: Any) -> Any:
            began = clock()
            if self._turns != self._turn_seen:
                self._turn_ends(began)
                self._turn_seen, self._turn_began = self._turns, began
            cpu = cpu_clock()
            try:
                return inner(f, value)
            finally:
                # A traceback may hold this frame: it must not hold the body or the task.
                del f, value
                count.cpu += cpu_clock() - cpu
                took = clock() - began
                count.busy += took
                self._busy += took
                if not count.steps and self.current is not None:
                    self._counts[self.current] = count
                count.steps += 1
                if took > count.longest:
                    count.longest = took
                    self._longest = max(self._longest, took)
                    count.where = "" if self.current is None else where(self.current)

        return step

    def turn(self, timeout: float = inf) -> None:
        if self._left is not None:
            self._idle += clock() - self._left
            self._left = None
        try:
            super().turn(timeout)
        finally:
            self._left = clock()
            self._turn_ends(self._left)

    def poll(self, timeout: float | None, deadline: float) -> None:
        began = clock()
        self._turn_ends(began)
        try:
            super().poll(timeout, deadline)
        finally:
            self._idle += clock() - began

    def _turn_ends(self, now: float) -> None:
        if self._turn_began is None:
            return
        took, self._turn_began = now - self._turn_began, None
        seconds, second = self._seconds, int(now)
        longest, total, turns = took, took, 1
        if seconds and seconds[-1][0] == second:
            _, longest, total, turns = seconds.pop()
            longest, total, turns = max(longest, took), total + took, turns + 1
        seconds.append((second, longest, total, turns))
        while seconds[0][0] <= second - MINUTE:
            seconds.popleft()

    def measured(self, task: Task[Any]) -> Measures:
        """Return what a task has taken until now, or had taken when it ended."""
        count = self._counts.get(task)
        if count is None:
            return Measures()
        return Measures(*(getattr(count, name) for name in Measures._fields))

    def stats(self) -> dict[str, float]:
        now = clock()
        # A turn that goes on counts as far as it has come.
        running = 0.0 if self._turn_began is None else now - self._turn_began
        seconds = [each for each in self._seconds if each[0] > int(now) - MINUTE]
        turns = sum(each[3] for each in seconds)
        return {
            **super().stats(),
            "busy": self._busy,
            "idle": self._idle,
            "longest_step": self._longest,
            "lag": max([running, *(each[1] for each in seconds)]),
            "lag_mean": sum(each[2] for each in seconds) / turns if turns else running,
        }

    def report(self) -> str:
        stats = self.stats()
        words = " ".join(
            f"{name}={stats[name]:.6f}" for name in ("busy", "idle", "longest_step", "lag")
        )
        lines = [super().report(), f"measured, in seconds: {words}"]
        each = sorted(self.tasks, key=lambda task: self.measured(task).busy, reverse=True)
        for task in each[:SHOWN]:
            found = self.measured(task)
            place = f" which ended at {found.where}" if found.where else ""
            lines.append(
                f"  {task.label}  {found.steps} steps  busy {found.busy:.6f}  "
                f"cpu {found.cpu:.6f}  longest {found.longest:.6f}{place}"
            )
        return "\n".join(lines)
