"""`every`: a rhythm that stays, whatever the body of the loop takes."""

import math

import pytest

from corolib import Cancelled, Sleep, every, move_on_after, now, spawn
from tests.helpers.driving import go


def ticks(period, busy, count):
    """Return the times and what was missed; the body of the loop takes `busy[n]`."""

    def main():
        found = []
        for tick in every(period):
            missed = yield from tick
            found.append((now(), missed))
            if len(found) == count:
                return found
            yield Sleep(busy[len(found) - 1])
        raise AssertionError("it goes on for ever")

    return go(main)


def test_ticks_come_one_period_after_the_other():
    assert ticks(2, [0, 1, 1.9], 4) == [(2.0, 0), (4.0, 0), (6.0, 0), (8.0, 0)]


def test_ticks_that_were_missed_come_as_one_and_the_rhythm_stays():
    assert ticks(1, [1.5, 0, 3.25, 0], 5) == [(1.0, 0), (2.5, 0), (3.0, 0), (6.25, 2), (7.0, 0)]


def test_a_body_that_takes_exactly_a_period_misses_nothing():
    assert ticks(1, [1, 1, 1], 4) == [(1.0, 0), (2.0, 0), (3.0, 0), (4.0, 0)]


def test_rounding_neither_loses_a_tick_nor_counts_one_twice():
    found = ticks(0.1, [0] * 999, 1000)
    assert [missed for _, missed in found] == [0] * 1000
    assert found[-1][0] == pytest.approx(100)


def test_a_late_tick_gives_way_to_other_tasks():
    def main():
        log = []

        def other():
            log.append("other")
            yield

        rhythm = every(1)
        yield Sleep(5)
        spawn(other)
        log.append((yield from next(rhythm)))
        return log

    assert go(main) == ["other", 4]


def test_a_tick_that_is_cancelled_still_comes():
    def main():
        rhythm = every(1)
        with move_on_after(0.5):
            yield from next(rhythm)
        at = now()
        return at, (yield from next(rhythm)), now()

    assert go(main) == (0.5, 0, 1.0)


def test_it_can_be_cancelled_and_awaited():
    async def ticker(log):
        try:
            for tick in every(1):
                log.append(await tick)
        except Cancelled:
            log.append("cancelled")
            raise

    def main():
        log = []
        task = spawn(ticker, log)
        yield Sleep(2.5)
        yield from task.stop()
        return log

    assert go(main) == [0, 0, "cancelled"]


@pytest.mark.parametrize("wrong", [0, -1, math.nan, "1", None])
def test_a_period_is_a_number_above_zero(wrong):
    def main():
        with pytest.raises((TypeError, ValueError), match=r"every\(\)"):
            every(wrong)
        yield

    go(main)
