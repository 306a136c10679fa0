"""Tests for unittest, which pytest runs as well."""

import unittest

import pytest

from corolib import Event, Sleep, now, spawn
from corolib.testing import TestCase, test


@test(clock="virtual", timeout=7200)
def test_a_function():
    yield Sleep(3600)
    assert now() == 3600


@test(clock="virtual")
def test_with_a_fixture_of_pytests(tmp_path):
    yield Sleep(1)
    assert tmp_path.exists()


@pytest.mark.parametrize("n", [1, 2])
@test
async def test_with_parameters(n):
    await Sleep(0)
    assert n in (1, 2)


@test(clock="virtual", timeout=1)
def test_too_late():
    """call fails: timeout of 1 s, opened in test_too_late"""
    yield Sleep(2)


@test(clock="virtual")
def test_a_lost_failure():
    """call fails: (?s)nobody joined them.*ZeroDivisionError"""

    def child():
        yield
        1 / 0

    spawn(child)
    yield Sleep(1)


class Plain(unittest.TestCase):
    @test(clock="virtual")
    def test_a_method(self):
        yield Sleep(3600)
        self.assertEqual(now(), 3600)


class Waiting(TestCase):
    options = {"clock": "virtual", "timeout": 100}

    def setUp(self):
        yield Sleep(1)
        self.child = spawn(Sleep(1e6).__iter__(), daemon=True)

    async def tearDown(self):
        await Sleep(1)

    def test_a_method(self):
        yield Sleep(10)
        self.assertEqual(now(), 11)

    async def test_an_async_method(self):
        await Sleep(10)
        self.assertEqual(now(), 11)

    def test_a_plain_method(self):
        self.assertEqual(self.child.name, "__iter__")

    def test_too_late(self):
        """call fails: timeout of 100 s"""
        yield Sleep(101)

    def test_deadlock(self):
        """call fails: Deadlock"""
        yield from self.child.stop()
        yield from Event().wait()

    def test_children(self):
        """call fails: the body of test_children is over; it waits for __iter__#3, spawned at"""
        yield
        spawn(Sleep(1e6).__iter__())

    def test_skip(self):
        """skipped"""
        yield
        self.skipTest("not today")

    @unittest.expectedFailure
    def test_expected_failure(self):
        """xfailed"""
        yield
        self.fail()

    @unittest.skip("never")
    def test_skipped(self):
        """skipped"""
        yield
