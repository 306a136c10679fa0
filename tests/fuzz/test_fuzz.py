"""The inputs that are kept, for each target, and some new ones."""

import random
import sys

import pytest

from tests.fuzz.__main__ import main
from tests.fuzz.inputs import HERE, changed, kept, tried
from tests.fuzz.targets import TARGETS
from tests.helpers.driving import FULL

NEW = 2000 if FULL else 30
"""How many new inputs are tried, always the same ones."""


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_kept_comes_to_something(name):
    inputs = kept(name, "corpus") + kept(name, "cases")
    assert inputs
    for data in inputs:
        assert TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_new_inputs_come_to_several_things(name):
    count, came_to = tried(TARGETS[name], name, random.Random(1), lambda count: count < NEW)
    assert count == NEW
    assert len(came_to) > 1


def test_all_that_is_kept_has_a_target():
    for kind in ("corpus", "cases"):
        assert {path.name for path in (HERE / kind).glob("*")} <= set(TARGETS)


def test_a_finding_says_what_the_input_was():
    def target(data):
        raise RecursionError

    with pytest.raises(RecursionError) as caught:
        tried(target, "resp", random.Random(1), lambda count: True)
    assert caught.value.__notes__[0].startswith("the input was b")


def test_inputs_do_not_grow_for_ever():
    pool, rng = [b"", b"a", b"x" * 5000], random.Random(1)
    for _ in range(1000):
        pool.append(changed(pool, rng))
    assert max(map(len, pool)) == 5000


def test_one_command_lists_the_targets(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tests.fuzz"])
    assert main() == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == sorted(TARGETS)
