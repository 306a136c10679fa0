"""What becomes of a program when the operating system says no: some cells of the matrix."""

import random
import sys

import pytest

from tests.helpers.driving import FULL
from tests.net.system_errors.cells import KINDS, Program, calls_of, cells, reason_to_skip, try_all

MANY = 60 if FULL else 3
"""Cells of each program, of some hundreds: others on each Python, and each time the same."""


@pytest.fixture(scope="module", autouse=True)
def strace():
    if reason := reason_to_skip():
        pytest.skip(reason)


@pytest.mark.found("N22")
@pytest.mark.parametrize("kind", KINDS)
def test_a_program_lives_answers_rests_and_is_brief_whatever_the_system_refuses(kind):
    program = Program("corolib", kind).__enter__()
    every = cells("corolib", kind, calls_of(program))
    sample = random.Random(sys.version_info.minor).sample(every, MANY)
    verdicts = list(try_all(sample, program))
    assert [str(verdict) for verdict in verdicts if verdict.unexpected()] == []
    assert any(verdict.reached for verdict in verdicts)
