"""In strict mode, nothing here is touched.

>>> 1 + 1
2
"""

import asyncio

import pytest

from corolib import spawn


@pytest.fixture
def pytests_own():
    yield 7


def test_a_plain_function(pytests_own):
    assert pytests_own == 7


def test_asyncio():
    async def main():
        await asyncio.sleep(0)
        return 1

    assert asyncio.run(main()) == 1


def test_what_fails_by_itself_fails_as_ever():
    """
    call fails: Failed: on purpose
    """
    pytest.fail("on purpose")


@pytest.fixture
def spawns():
    return spawn(print)


@pytest.fixture
def fails():
    raise RuntimeError("on purpose")


def test_a_fixture_that_should_be_corolibs(spawns):
    """
    setup fails: no scheduler runs in this thread
    shows: a fixture that spawns, or waits, is a `@corolib.testing.fixture`
    """


def test_a_fixture_that_fails_by_itself(fails):
    """
    setup fails: RuntimeError: on purpose
    """
