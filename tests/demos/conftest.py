"""What the tests of the demos share."""

import pytest

from tests.helpers.programs import Template


@pytest.fixture(scope="package", autouse=True)
def template():
    """Programs that end by themselves are forks of one process."""
    with Template():
        yield
