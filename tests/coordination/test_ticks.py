"""`every`: a rhythm that stays, whatever the body of the loop takes."""

import math

import pytest

from corolib import Cancelled, Sleep, every, move_on_after, now, spawn

pytestmark = pytest.mark.corolib(clock="virtual")


def ticks(period, busy, count):
    """Return the times and what was missed; the body of the loop takes `busy[n]`."""
    found = []
    for tick in every(period):
        missed = yield from tick
        found.append((now(), missed))
        if len(found) == count:
            return found
        yield Sleep(busy[len(found) - 1])
    raise AssertionError("it goes on for ever")


def test_ticks_come_one_period_after_the_other():
    found = yield from ticks(2, [0, 1, 1.9], 4)
    assert found == [(2.0, 0), (4.0, 0), (6.0, 0), (8.0, 0)]


def test_ticks_that_were_missed_come_as_one_and_the_rhythm_stays():
    found = yield from ticks(1, [1.5, 0, 3.25, 0], 5)
    assert found == [(1.0, 0), (2.5, 0), (3.0, 0), (6.25, 2), (7.0, 0)]


def test_a_body_that_takes_exactly_a_period_misses_nothing():
    found = yield from ticks(1, [1, 1, 1], 4)
    assert found == [(1.0, 0), (2.0, 0), (3.0, 0), (4.0, 0)]


def test_rounding_neither_loses_a_tick_nor_counts_one_twice():
    found = yield from ticks(0.1, [0] * 999, 1000)
    assert [missed for _, missed in found] == [0] * 1000
    assert found[-1][0] == pytest.approx(100)


def test_a_late_tick_gives_way_to_other_tasks():
    log = []

    def other():
        log.append("other")
        yield

    rhythm = every(1)
    yield Sleep(5)
    spawn(other)
    log.append((yield from next(rhythm)))
    assert log == ["other", 4]


def test_a_tick_that_is_cancelled_still_comes():
    rhythm = every(1)
    with move_on_after(0.5):
        yield from next(rhythm)
    assert now() == 0.5
    assert (yield from next(rhythm)) == 0
    assert now() == 1


@pytest.mark.filterwarnings("ignore:the loop at")
def test_a_loop_that_waits_for_no_tick_is_refused():
    def loops():
        for _ in every(1):
            pass
        yield

    with pytest.raises(TypeError, match="none was waited for: write `for tick in every"):
        yield from spawn(loops)


@pytest.mark.filterwarnings("ignore:the loop at")
def test_a_loop_may_leave_many_ticks_out():
    for tick, n in zip(every(1), range(200), strict=False):
        if n % 100:  # there is nothing to do
            continue
        yield from tick
    assert now() == 2


@pytest.mark.filterwarnings("ignore:.*never run")
def test_ticks_may_be_left_out():
    rhythm = every(1)
    for _ in range(10):
        next(rhythm)
    while now() < 20:
        next(rhythm)
        yield Sleep(0.5)
    assert (yield from next(rhythm)) == 19


def test_it_can_be_cancelled_and_awaited():
    log = []

    async def ticker():
        try:
            for tick in every(1):
                log.append(await tick)
        except Cancelled:
            log.append("cancelled")
            raise

    task = spawn(ticker)
    yield Sleep(2.5)
    yield from task.stop()
    assert log == [0, 0, "cancelled"]


@pytest.mark.parametrize("wrong", [0, -1, math.nan, "1", None])
def test_a_period_is_a_number_above_zero(wrong):
    with pytest.raises((TypeError, ValueError), match=r"every\(\)"):
        every(wrong)
    yield
