"""Tests that are wrapped as hypothesis does it, which may not be installed."""

import functools
import socket

import pytest

from corolib import Sleep, current_scheduler, now
from corolib.testing import fixture, give

pytestmark = pytest.mark.corolib(clock="virtual")
kept = []


class Handle:
    def __init__(self, inner_test):
        self.inner_test = inner_test


def twice(f):
    """Run a test twice."""

    @functools.wraps(f)
    def wrapper(*args, **kwargs):
        for _ in range(2):
            wrapper.hypothesis.inner_test(*args, **kwargs)

    wrapper.hypothesis = Handle(f)
    return wrapper


@twice
def test_each_has_its_own_clock():
    yield Sleep(5)
    assert now() == 5


@fixture
def home():
    yield give(current_scheduler())


@twice
def test_on_the_runner_of_its_fixture(home):
    yield Sleep(5)
    assert now() in (5, 10)
    assert current_scheduler() is home


@twice
def test_leaks_are_looked_for_in_each():
    """call fails: (?s)left behind:.*open file"""
    kept.append(socket.create_server(("127.0.0.1", 0)))
    yield


def test_tidy_up():
    assert len(kept) == 1
    kept.pop().close()
