"""Time, and limits in time."""

import time

import pytest

from corolib import Event, Sleep, current_scheduler, move_on_after, now, spawn

pytestmark = pytest.mark.corolib


def test_the_clock_is_real_by_default():
    before = time.monotonic()
    yield
    assert before <= now() <= time.monotonic()


@pytest.mark.corolib(clock=iter(range(10_000)).__next__)
def test_a_clock_of_ones_own():
    first = now()
    yield
    assert first < now() < 10_000


@pytest.mark.corolib(clock="virtual", timeout=60)
class TestVirtual:
    """The options of a function come before those of its class."""

    def test_in_time(self):
        yield Sleep(59)

    def test_too_late(self):
        """
        call fails: (?s)TimeoutError: timeout of 60 s, opened in test_too_late.*Sleep\\(61
        shows: the clock is virtual
        shows: beside#2
        """
        spawn(Event().wait, name="beside")
        yield Sleep(61)

    @pytest.mark.corolib(timeout=5)
    def test_its_own(self):
        """call fails: TimeoutError: timeout of 5 s, opened in test_its_own"""
        yield Sleep(6)

    def test_a_deadlock_is_none_of_the_limits_matter(self):
        """call fails: Deadlock: no task can ever run again"""
        yield from Event().wait()

    def test_blocks_inside(self):
        with move_on_after(10) as scope:
            yield Sleep(100)
        assert scope.expired
        assert now() == 10


@pytest.mark.corolib(timeout=0.05)
def test_a_limit_on_the_real_clock():
    """call fails: TimeoutError: timeout of 0.05 s"""
    with current_scheduler().hold():
        yield from Event().wait()


@pytest.mark.corolib(clock="virtual", wall=0.1)
def test_the_wall():
    """call fails: (?s)took more than 0.1 s, the limit `wall`; its step was then at"""
    with current_scheduler().hold():
        yield from Event().wait()


@pytest.mark.corolib(clock="virtual", wall=0.1)
def test_the_wall_when_the_body_is_over():
    """call fails: took more than 0.1 s, the limit `wall`"""

    def child():
        with current_scheduler().hold():
            while True:
                yield

    spawn(child)
    yield


@pytest.mark.corolib(wall=60)
def test_within_the_wall():
    yield
