"""Endings at random moments: programs that fork, with receivers, threads and children, and signals.

What is played, and how to play a round again, is said in `tests/helpers/endings.py`.
"""

import random
import sys

import pytest

from tests.helpers.children import outside
from tests.helpers.driving import FULL
from tests.helpers.programs import ROOT, unmeasured

ROUNDS = 40  # in each part


@pytest.mark.found("T1")
@pytest.mark.hazard("H71")
@pytest.mark.skipif(not FULL, reason="the full sweep plays them: each run is another one")
@pytest.mark.parametrize("part", range(25))
def test_forks_kills_and_interrupts_at_random_moments_leave_nothing_behind(part):
    """Each run plays other rounds. One that fails says how to repeat it."""
    first = random.SystemRandom().randrange(10**6)
    command = [sys.executable, "-m", "tests.helpers.endings", str(first), str(ROUNDS)]
    # From Python 3.14 on coverage takes a lock at the first call of each function. A child that is
    # forked while another thread has it would wait for it for ever.
    done = outside(command, timeout=900, env=unmeasured(), cwd=ROOT)
    assert done.stdout == f"{ROUNDS} rounds from {first} on, 0 wrong\n", done.stderr
    assert done.returncode == 0
