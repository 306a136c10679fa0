"""Tests and fixtures that other libraries should have run, and ours that others have run."""

import asyncio
import unittest

import pytest

from corolib import Sleep, now
from corolib.testing import fixture, give
from pytest_corolib import CLAIMS


def runs_on_asyncio(f):
    """Say that a fixture is asyncio's, as pytest-asyncio does."""
    vars(f)[CLAIMS[0]] = True
    return f


@pytest.fixture
@runs_on_asyncio
async def theirs():
    await asyncio.sleep(0.001)
    return 1


@pytest.fixture
async def nobodys():
    await asyncio.sleep(0.001)
    return 2


@fixture
def ours():
    yield Sleep(0.001)
    yield give(3)


@pytest.mark.corolib
def test_theirs_is_left_to_them(theirs, ours):
    yield Sleep(0)
    assert (theirs, ours) == (1, 3)


def test_so_are_all_if_the_test_is_theirs(ours, theirs, nobodys):
    assert (ours, theirs, nobodys) == (3, 1, 2)


@pytest.mark.corolib
def test_nobodys_is_ours(nobodys):
    """
    setup fails: no running event loop
    shows: corolib ran it: a fixture of another's says so, as `@pytest_asyncio.fixture`
    """
    yield


@pytest.mark.corolib
async def test_their_waits():
    """
    call fails: no running event loop
    shows: corolib ran it: a test of another's says so, as `@pytest.mark.asyncio`
    """
    await asyncio.sleep(0.001)


def test_our_waits():
    """
    call fails: Task got bad yield
    shows: if it is to run on corolib: `@pytest.mark.corolib`, or `corolib_mode = auto`
    """

    async def body():
        await Sleep(1)

    asyncio.run(body())


def test_our_waits_among_others():
    """
    call fails: Task got bad yield
    shows: if it is to run on corolib: `@pytest.mark.corolib`
    """

    async def body():
        async with asyncio.TaskGroup() as group:
            group.create_task(waits())

    async def waits():
        await Sleep(1)

    asyncio.run(body())


class Plain(unittest.TestCase):
    @pytest.mark.corolib(clock="virtual")
    def test_a_generator(self):
        """call fails: AssertionError: 3600"""
        yield Sleep(3600)
        self.assertEqual(now(), 1)

    @pytest.mark.corolib(clock="virtual")
    async def test_an_async_def(self):
        """call fails: AssertionError: 3600"""
        await Sleep(3600)
        self.assertEqual(now(), 1)


@pytest.mark.corolib
class OnAsyncio(unittest.IsolatedAsyncioTestCase):
    async def test_stays_there(self):
        await asyncio.sleep(0.001)
