"""Cancel at every step: a program is run again and again, and each task cancelled at each step.

The runs are made in virtual time, and are repeatable. Here is no test framework.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

from corolib.kernel import (
    Scheduler,
    Task,
    TaskCancelled,
    brief,
    current_scheduler,
    name_of,
    told,
    waits,
)
from corolib.testing.clocks import JumpingSelector, VirtualClock
from corolib.testing.leaks import open_files

Shot = tuple[int, int]
"""The number of a step, before which to cancel, and the id of the task."""

PATIENCE = 10.0
"""Real seconds for which a run may wait for a file before it counts as hung."""

MOST_STEPS = 100_000
"""Steps of one run: one that takes more counts as endless."""


def cancel_everywhere(
    scenario: Callable[[], Generator[Any, Any, Any]],
    *,
    pairs: bool = False,
    every: int = 1,
    target: Callable[[Task[Any]], bool] | None = None,
    only: Sequence[Shot] | None = None,
    **options: Any,
) -> int:
    """Run a scenario again and again, cancelling one task at one step in each run.

    First it runs undisturbed. Then once for each step, and each task that is alive there, with
    that task cancelled just before that step; with `pairs`, also once for each two tasks and steps
    that are possible after the first cancel. Time is virtual, so each run goes the same way up to
    the cancel. In each run these must hold:

    - it ends: no deadlock, no hang, and the scenario returns, having checked what it wants to;
    - no task fails: nothing is reported to `on_task_error`;
    - nothing is left: no task, file, registration or timer; no waiter in any of the things that
      the scenario returns (locks, queues: whatever has `waiters`); no file descriptor open.

    Write scenarios so that every wake-up counts: as many tokens as there are survivors, and no
    more. A lost one is then a deadlock, which a spare one would hide.

    Args:
        scenario: a generator function without arguments, the main task. Joins the tasks that may
            be cancelled through `survivors`. Returns the things to look at, in a tuple, or None.
        pairs: also cancel two tasks.
        every: make only every so many-th of these runs, always the same ones.
        target: says of a task whether it may be cancelled; by default any but the main task.
        only: make one run, with these cancels: to repeat what a failure names.
        options: further arguments of `Scheduler`.

    Returns:
        The number of runs in which something was cancelled.

    Raises:
        AssertionError: something did not hold; says what, in which run, and how to repeat it.

    Example:
        >>> import corolib
        >>> def scenario():
        ...     lock = corolib.Lock()
        ...     def work():
        ...         with (yield from lock):
        ...             yield
        ...     yield from survivors([corolib.spawn(work) for _ in range(3)])
        ...     return (lock,)
        >>> cancel_everywhere(scenario) > 10
        True
        >>> cancel_everywhere(scenario, pairs=True) > 100
        True

    Source: SQLite's tests, which fail each allocation and each write in turn.
    """
    sweep = _Sweep(scenario, target or (lambda task: task.parent is not None), options)
    if only is not None:
        return min(1, sweep.run(tuple(only)))
    count = 0

    def is_chosen() -> bool:
        nonlocal count
        count += 1
        return count % every == 0

    sweep.run(())
    for shot in list(sweep.shots):
        if is_chosen():
            sweep.run((shot,))
        elif pairs:
            sweep.look((shot,))
        if pairs:
            for second in list(sweep.shots):
                if is_chosen():
                    sweep.run((shot, second))
    return sweep.runs


@waits
def survivors(tasks: Sequence[Task[Any]]) -> Generator[Any, Any, list[Any]]:
    """Wait until all these tasks are done; return the results of those that were not cancelled.

    Raises:
        What left one of them, other than the cancel. Cancelled: the wait was cancelled.

    Example:
        >>> import corolib
        >>> from corolib.testing import virtual_time
        >>> def main():
        ...     tasks = [corolib.spawn(corolib.Sleep(n).__iter__()) for n in (1, 2)]
        ...     tasks[0].cancel()
        ...     return (yield from survivors(tasks))
        >>> corolib.run(main, **virtual_time())
        [None]
    """
    results = []
    for task in tasks:
        try:
            results.append((yield from task))
        except TaskCancelled as exc:
            if exc.task is not task:
                raise
    return results


class _CancellingQueue:
    """A queue of ready tasks that counts steps, and makes the given cancels before their steps."""

    def __init__(
        self, shots: Sequence[Shot], target: Callable[[Task[Any]], bool], looks: bool
    ) -> None:
        self._queue: deque[Task[Any]] = deque()
        self._shots = deque(shots)
        self._target = target
        # Whether to note which cancels are possible, which takes time at each step.
        self._looks = looks
        self._cancelled: set[int] = set()
        self.step = 0
        # The cancels that are possible after the last one that was asked for.
        self.possible: list[Shot] = []

    def append(self, task: Task[Any]) -> None:
        self._queue.append(task)

    def popleft(self) -> Task[Any]:
        self.step += 1
        if self.step == MOST_STEPS + 1:
            # Once: what is left in the queue is taken out when the run is closed.
            raise AssertionError(f"it goes on after {MOST_STEPS} steps")
        while self._shots and self._shots[0][0] == self.step:
            _, number = self._shots.popleft()
            for task in self._targets():
                if task.id == number:
                    task.cancel(f"cancelled before step {self.step}")
                    self._cancelled.add(number)
        if self._looks and not self._shots:
            numbers = [task.id for task in self._targets()]
            left = [number for number in numbers if number not in self._cancelled]
            self.possible += [(self.step, number) for number in left]
        return self._queue.popleft()

    def _targets(self) -> list[Task[Any]]:
        return [task for task in current_scheduler().tasks if self._target(task)]

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def cancelled(self) -> int:
        """How many tasks were cancelled."""
        return len(self._cancelled)


class _Impatient(JumpingSelector):
    """Does not wait for a file for ever."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None:
            return super().select(timeout)
        found = self._inner.select(PATIENCE)
        if not found:
            raise AssertionError(f"no file has become ready in {PATIENCE:g} s")
        return found


class _Inspection:
    """Looks, at the very end of a run, at what is left of it."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.left: list[str] = []

    def end(self) -> None:
        scheduler = self._scheduler
        self.left += [f"task {task!r}" for task in scheduler.tasks]
        # The timer of the sweep is the library's own.
        timers = len(scheduler.timers) - scheduler._poller.sweeping
        files = scheduler.stats()["files"]
        self.left += [f"{n} {what}" for n, what in ((timers, "timers"), (files, "files")) if n]


class _Sweep:
    """The runs of one scenario."""

    def __init__(
        self,
        scenario: Callable[[], Generator[Any, Any, Any]],
        target: Callable[[Task[Any]], bool],
        options: dict[str, Any],
    ) -> None:
        self._scenario = scenario
        self._target = target
        self._options = options
        self.runs = 0
        # The cancels that were possible in the last run, after its own.
        self.shots: list[Shot] = []

    def run(self, shots: tuple[Shot, ...]) -> int:
        """Make one run, and count it if all its cancels were made; return how many were."""
        clock = VirtualClock()
        # A third cancel is never made.
        queue = _CancellingQueue(shots, self._target, looks=len(shots) < 2)
        complaints: list[str] = []
        before = open_files()
        scheduler = Scheduler(
            clock=clock,
            selector=lambda: _Impatient(selectors.DefaultSelector(), clock),
            ready=lambda: queue,
            on_task_error=lambda task, exc: complaints.append(f"{task!r} failed: {exc!r}"),
            **self._options,
        )
        inspection = scheduler.run_local(_Inspection)
        things: Any = None
        cause: BaseException | None = None
        try:
            things = scheduler.run(self._scenario)
        except Exception as exc:
            cause = exc
            complaints.append(f"the run ended with {told(exc)}")
        finally:
            scheduler.close()
        complaints += [f"left: {what}" for what in inspection.left]
        complaints += [f"left: waiters of {thing!r}" for thing in things or () if thing.waiters]
        if cause is None and (opened := open_files() - before):
            complaints.append(f"left: open file descriptors {sorted(opened)}")
        if complaints:
            raise AssertionError(self._describe(shots, complaints)) from cause
        self.shots = queue.possible
        self.runs += bool(shots) and queue.cancelled == len(shots)
        return queue.cancelled

    def look(self, shots: tuple[Shot, ...]) -> None:
        """Make a run that does not count, to see which cancels are possible after these."""
        runs = self.runs
        self.run(shots)
        self.runs = runs

    def _describe(self, shots: tuple[Shot, ...], complaints: list[str]) -> str:
        name = name_of(self._scenario, brief(self._scenario))
        how = ", ".join(f"task {task} before step {step}" for step, task in shots)
        lines = [
            f"{name}: with {f'{how} cancelled' if shots else 'nothing cancelled'}:",
            *(f"  {line}" for line in complaints),
            f"to repeat it: cancel_everywhere({name}, only={list(shots)!r})",
        ]
        return "\n".join(lines)
