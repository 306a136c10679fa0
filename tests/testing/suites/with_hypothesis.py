"""Beside hypothesis: each example is a run of its own."""

import pytest

hypothesis = pytest.importorskip("hypothesis")

from corolib import Sleep, current_scheduler, now, spawn
from corolib.testing import fixture, give

pytestmark = pytest.mark.corolib(clock="virtual")
quick = hypothesis.settings(
    max_examples=10,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
seconds = hypothesis.strategies.integers(1, 1000)


@quick
@hypothesis.given(seconds)
def test_each_has_its_own_clock(n):
    yield Sleep(n)
    assert now() == n


class TestMethods:
    @quick
    @hypothesis.given(seconds)
    async def test_async(self, n):
        await Sleep(n)
        assert now() == n


@fixture
def home():
    yield give(current_scheduler())


@quick
@hypothesis.given(seconds)
def test_on_the_runner_of_its_fixture(home, n):
    yield Sleep(n)
    assert current_scheduler() is home


@quick
@hypothesis.given(seconds)
def test_a_lost_failure(n):
    """call fails: (?s)nobody joined them.*n=1.*ZeroDivisionError"""

    def child():
        yield
        1 / 0

    spawn(child)
    yield
