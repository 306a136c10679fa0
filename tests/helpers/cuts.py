"""Runs that are cut short after every step: a tool of the tests of what outlives them."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from corolib import Coro, Scheduler, run, spawn
from corolib.testing import virtual_time
from tests.helpers.driving import go, strike
from tests.helpers.inside import queues_of


class Cut(Exception):
    """No step is left after which the scenario could be cut short."""


class OneByOne(deque[Any]):
    """The ready tasks of a scheduler that steps no more than one in a turn."""

    def __len__(self) -> int:
        return min(1, super().__len__())


def close_after(steps: int, work: Any, *args: Any, **options: Any) -> None:
    """Run tasks for so many steps, in the order as ever, and close the scheduler."""
    lost: list[BaseException] = []
    options = {**(options or virtual_time()), "on_task_error": lambda task, exc: lost.append(exc)}
    scheduler = Scheduler(ready=OneByOne, **options)
    scheduler.spawn(work, *args)
    try:
        for _ in range(steps):
            if not scheduler.tasks:
                raise Cut
            scheduler.turn()
    finally:
        scheduler.close()
    assert lost == []


def close_in_time_after(steps: int, work: Any, *args: Any) -> None:
    """As `close_after`, in real time, for what talks to other threads and programs."""
    close_after(steps, work, *args, clock=time.monotonic, grace=0.01)


def interrupt_after(turns: int, work: Any, *args: Any) -> None:
    """Run tasks until two Ctrl-C come, after so many turns, between two steps of one turn."""
    lost: list[BaseException] = []

    def main() -> Coro[None]:
        task = spawn(work, *args)
        for _ in range(turns):
            yield
            if task.done:
                raise Cut
        strike()
        strike()

    options: Any = {**virtual_time(), "on_task_error": lambda task, exc: lost.append(exc)}
    with pytest.raises(KeyboardInterrupt):
        run(main, **options)
    assert lost == []


def cut_short_everywhere(
    cut: Callable[..., None],
    make: Callable[[], Any],
    work: Any,
    check: Any,
    go: Callable[..., Any] = go,
    every: int = 1,
) -> None:
    """Cut `work(thing)` short after 0, 1, 2 ... steps, and each time use the thing once more.

    `every`: of so many steps one is tried, where each takes long.
    """
    for steps in range(0, 1000, every):
        thing = make()
        done: list[Any] = []
        try:
            cut(steps, work, thing, done)
        except Cut:
            return
        for queue in queues_of(thing):
            assert not queue, f"somebody still waits after {steps} steps"
        go(check, thing, done)
    raise AssertionError("the scenario has no end")


CUTS = pytest.mark.parametrize("cut", [close_after, interrupt_after])
