"""In strict mode, nothing here is touched.

>>> 1 + 1
2
"""

import asyncio

import pytest


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
