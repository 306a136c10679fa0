"""The tool that makes mistakes and looks whether the tests notice them: `.ci/mutants.py`."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.driving import FULL

ROOT = Path(__file__).resolve().parents[2]

SOURCE = """\
def is_low(number):
    return number < 10


def drain(items):
    while items:
        items.pop()
"""

TEST = """\
from box.bottle import drain, is_low


def test_low():
    assert is_low(3)
    assert not is_low(20)


def test_drained():
    items = [1, 2, 3]
    drain(items)
    assert items == []
"""

EQUIVALENT = """\
# What this list is.

# The number is even.
box/bottle.py is_low
- return number < 10
+ return number < 11

# It was once.
box/bottle.py is_high
- return number > 10
+ return number > 11
"""


@pytest.fixture
def mutants(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / ".ci")
    return importlib.import_module("mutants")


@pytest.fixture
def tool(tmp_path):
    """Call the tool in a small project of its own; return its exit status and what it prints."""
    project = tmp_path / "project"
    for name, text in {
        "box/__init__.py": "",
        "box/bottle.py": SOURCE,
        "tests/test_bottle.py": TEST,
        ".ci/equivalent-mutants.txt": EQUIVALENT,
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    shutil.copy(ROOT / ".ci" / "mutants.py", project / ".ci")

    def call(*args):
        command = [sys.executable, project / ".ci" / "mutants.py", *args]
        command += ["--tests", "tests", "--cache", tmp_path / "cache", "--patience", "1"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        return done.returncode, done.stdout

    return call


@pytest.mark.skipif(not FULL, reason="the full sweep makes mutants, one of which hangs")
def test_a_killed_a_hanging_a_surviving_and_an_equivalent_mutant_are_told_apart(tool):
    status, printed = tool("box", "--least", "67")
    assert re.search(
        r"^killed box/bottle.py:2 .* by tests/test_bottle.py::test_low$", printed, re.M
    )
    assert re.search(r"^timeout box/bottle.py:7 ", printed, re.M)
    survivor = (
        r"^box/bottle.py:2 \((\w+)\)\nsurvived 1 tests: 1 of tests/test_bottle.py\n"
        r"box/bottle.py is_low\n- return number < 10\n\+ return number <= 10\n"
    )
    name = re.search(survivor, printed, re.M)[1]
    assert re.search(r"^in total +1 +1 +1 +1$", printed, re.M)
    assert "66.7 % of 3 killed" in printed
    assert "no mutant of these files:\nbox/bottle.py is_high\n- return number > 10\n" in printed
    assert status == 1

    status, printed = tool("box", "--mutant", name)
    assert "measuring" not in printed
    assert re.search(rf"^survived box/bottle.py:2 \({name}\)", printed, re.M)
    assert status == 1
    status, printed = tool("--only", "box/bottle.py:2", "--least", "33")
    assert re.search(r"^in total +1 +0 +2 +0$", printed, re.M)
    assert status == 0


CHANGES = {
    "f(x)": ["pass"],
    "y = x": ["pass"],
    "y: int = x": ["pass"],
    "del x": ["pass"],
    "raise x": ["pass"],
    "yield": ["pass"],
    "yield from x": ["pass"],
    "x += y": ["pass", "x -= y"],
    "return x": ["return None"],
    "return": [],
    "return None": [],
    "return x < y == z": ["return None", "return x <= y == z", "return x < y != z"],
    "return x is not (y)": ["return None", "return x is (y)"],
    "return x not in y": ["return None", "return x in y"],
    "return x and y or z": ["return None", "return x or y or z", "return x and y and z"],
    "return not x": ["return None", "return x"],
    "return x - y": ["return None", "return x + y"],
    "if x: continue": ["if True: continue", "if False: continue", "if x: break"],
    "return y if x else z": ["return None", "return y if True else z", "return y if False else z"],
    "return True": ["return None", "return False"],
    "return 1": ["return None", "return 2", "return 0"],
    "return f(7)": ["return None", "return f(8)", "return f(6)"],
    "f(x, y=z)": ["pass", "f(x, **{})"],
    "assert x is not None": [],
    "x: int": [],
    'f(f"{x + 1}")': ["pass"],
    "f()  # excluded": [],
    "f(\n    x\n)": ["pass"],
    "if f(\n    x\n): f()": ["if (True", "if (False", "): pass"],
}


@pytest.mark.parametrize(("statement", "changed"), CHANGES.items())
def test_what_is_done_to_a_statement(mutants, statement, changed):
    source = f"def f():\n    while x:\n        {statement}\n".encode()
    excluded = {3} if "excluded" in statement else set()
    found = mutants.Finder("box.py", source, excluded).mutants.values()
    assert sorted(mutant.new_line for mutant in found) == sorted(changed)
    for mutant in found:
        assert mutant.scope == "f"
        assert mutant.applied_to(source).count(b"\n") == source.count(b"\n")
        compile(mutant.applied_to(source), "box.py", "exec")


def test_what_is_there_for_type_checkers_or_to_be_imported_is_left_alone(mutants):
    source = b"""\
class Door(Protocol):
    def open(self, wide: bool = False) -> Literal[1]: ...
T = TypeVar("T", covariant=True)
NAMES = ("a", "b")
def open(door: Annotated[Door, 1]) -> Literal[True]: ...
"""
    assert mutants.Finder("box.py", source, set()).mutants == {}


def test_mutants_that_look_the_same_are_numbered(mutants):
    source = b"def f():\n    g()\n    g()\n"
    first, second = mutants.Finder("box.py", source, set()).mutants.values()
    assert first.text == "box.py f\n- g()\n+ pass"
    assert second.text == "box.py f #2\n- g()\n+ pass"
    assert (first.place, second.place) == ("box.py:2", "box.py:3")


def test_each_file_gives_its_share_and_the_same_ones_for_the_same_seed(mutants):
    def find(name, count):
        source = "def f():\n" + "".join(f"    g{n}()\n" for n in range(count))
        return list(mutants.Finder(name, source.encode(), set()).mutants.values())

    files = [find("a.py", 60), find("b.py", 30), find("c.py", 10)]
    drawn = list(mutants.draw(files, 10, seed=1))
    assert "".join(mutant.path[0] for mutant in drawn) == "aaaaaabbbc"
    assert list(mutants.draw(files, 10, seed=1)) == drawn
    assert list(mutants.draw(files, 10, seed=2)) != drawn
    assert len(list(mutants.draw(files, 1000, seed=1))) == 100


def test_an_equivalent_mutant_without_a_reason_is_refused(mutants, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("box.py f\n- g()\n+ pass\n")
    with pytest.raises(SystemExit, match="no reason"):
        mutants.read_equivalents(path)
