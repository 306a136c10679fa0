"""Runs that are cut short after every turn: a tool of the tests of what outlives them."""

from collections.abc import Callable
from typing import Any

import pytest

from corolib import Coro, Scheduler, run, spawn
from corolib.testing import virtual_time
from tests.helpers.driving import go, strike
from tests.helpers.inside import queues_of


class Cut(Exception):
    """No turn is left in which the scenario could be cut short."""


def close_after(turns: int, work: Any, *args: Any) -> None:
    """Run tasks for so many turns, and close the scheduler."""
    lost: list[BaseException] = []
    options: Any = {**virtual_time(), "on_task_error": lambda task, exc: lost.append(exc)}
    scheduler = Scheduler(**options)
    scheduler.spawn(work, *args)
    try:
        for _ in range(turns):
            if not scheduler.tasks:
                raise Cut
            scheduler.turn()
    finally:
        scheduler.close()
    assert lost == []


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
    cut: Callable[..., None], make: Callable[[], Any], work: Any, check: Any
) -> None:
    """Cut `work(thing)` short after 0, 1, 2 ... turns, and each time use the thing once more."""
    for turns in range(100):
        thing = make()
        done: list[Any] = []
        try:
            cut(turns, work, thing, done)
        except Cut:
            return
        for queue in queues_of(thing):
            assert not queue, f"somebody still waits after {turns} turns"
        go(check, thing, done)
    raise AssertionError("the scenario has no end")


CUTS = pytest.mark.parametrize("cut", [close_after, interrupt_after])
