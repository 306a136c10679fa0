"""`first_success`, and `gather` that collects failures. (For the others see `test_groups.py`.)"""

import math

import pytest

from corolib import (
    Cancelled,
    Sleep,
    TaskCancelled,
    current_scheduler,
    first_success,
    gather,
    move_on_after,
    now,
    shield,
    spawn,
)
from tests.helpers.driving import failing, sleeper
from tests.helpers.garbage import garbage_of

pytestmark = pytest.mark.corolib(clock="virtual")

# gather(return_exceptions=True) -------------------------------------------------------------------


def test_gather_can_collect_failures_in_the_place_of_results():
    boom = ValueError("boom")
    task = spawn(sleeper, 60)
    task.cancel("given up")
    calls = [sleeper(3, "c"), failing(1, boom), task, sleeper(2)]
    c, error, gone, none = yield from gather(*calls, return_exceptions=True)
    assert error is boom and isinstance(gone, TaskCancelled) and gone.reason == "given up"
    assert (c, none, now()) == ("c", None, 3.0)


def test_gather_that_collects_is_cancelled_as_a_whole():
    with move_on_after(1):
        yield from gather(sleeper(5), failing(0.5, KeyError()), return_exceptions=True)
    assert (now(), len(current_scheduler().tasks)) == (1.0, 1)


# first_success ------------------------------------------------------------------------------------


def test_the_first_that_returns_wins_and_failures_are_passed_over():
    found = yield from first_success(failing(1, KeyError()), sleeper(3), sleeper(2, "b"))
    assert (found, now(), len(current_scheduler().tasks)) == ((2, "b"), 2.0, 1)


def test_a_loser_is_gone_before_it_returns():
    log = []

    def loser():
        try:
            yield Sleep(60)
        finally:
            with shield():
                yield Sleep(0.5)
            log.append(now())

    found = yield from first_success(loser(), sleeper(1, "b"))
    assert (found, log, now()) == ((1, "b"), [1.5], 1.5)


def test_calls_begin_one_after_the_other_or_when_one_has_failed():
    log = []

    def call(name, seconds, error=None):
        log.append((name, now()))
        yield Sleep(seconds)
        if error:
            raise error
        return name

    calls = [call("a", 9), call("b", 0.5, OSError()), call("c", 9), call("d", 1), call("e", 1)]
    found = yield from first_success(*calls, stagger=2)
    assert (found, now()) == ((3, "d"), 5.5)
    assert log == [("a", 0.0), ("b", 2.0), ("c", 2.5), ("d", 4.5)]


def test_with_an_endless_stagger_each_waits_for_the_failure_of_the_one_before():
    calls = [failing(5, KeyError()), failing(5, KeyError()), sleeper(5, "c"), sleeper(1)]
    assert (yield from first_success(*calls, stagger=math.inf)) == (2, "c")
    assert now() == 15


def test_when_none_succeeds_all_failures_are_raised_in_the_order_of_the_calls():
    cancelled = spawn(sleeper, 60)
    cancelled.cancel()
    calls = [failing(2, KeyError("a")), failing(1, ValueError("b")), cancelled]
    with pytest.raises(ExceptionGroup, match="none of 3 calls has succeeded") as caught:
        yield from first_success(*calls)
    assert [type(error) for error in caught.value.exceptions] == [
        KeyError,
        ValueError,
        TaskCancelled,
    ]


def test_tasks_may_be_given_and_lose_as_well():
    tasks = [spawn(sleeper, 5), spawn(sleeper, 1, "b"), spawn(sleeper, 6)]
    found = yield from first_success(sleeper(0.5, "a"), *tasks, stagger=10)
    assert (found, [task.cancelled for task in tasks]) == ((0, "a"), [True, True, True])


def test_a_failure_that_comes_after_the_decision_is_passed_over_too():
    def fails():
        try:
            yield Sleep(60)
        finally:
            raise KeyError("late")

    assert (yield from first_success(fails(), sleeper(1, "b"))) == (1, "b")


def test_a_cancelled_wait_cancels_all_and_begins_no_more():
    log = []

    def call(name):
        log.append(name)
        try:
            yield Sleep(60)
        except Cancelled:
            log.append("cancelled")
            raise

    with move_on_after(3):
        yield from first_success(call("a"), call("b"), call("c"), stagger=2)
    assert (log, len(current_scheduler().tasks)) == (["a", "b", "cancelled", "cancelled"], 1)


@pytest.mark.parametrize("wrong", [math.nan, "1", None])
def test_a_stagger_is_a_duration(wrong):
    with pytest.raises((TypeError, ValueError), match="stagger"):
        yield from first_success(sleeper(), stagger=wrong)


def test_without_any_call_there_is_no_winner():
    with pytest.raises(ValueError, match="no winner"):
        yield from first_success()
    with pytest.raises(TypeError, match=r"^first_success\(\) got 3"):
        yield from first_success(sleeper(), 3)


def test_nothing_is_left_for_the_garbage_collector():
    def fails(seconds):
        yield Sleep(seconds)
        raise KeyError

    def main():
        yield from first_success(fails(0), sleeper(1))
        try:
            yield from first_success(fails(0), fails(1))
        except ExceptionGroup:
            pass
        yield from gather(fails(0), return_exceptions=True)

    assert garbage_of(lambda: main()) == []
