"""Private names of corolib's stand in one file of the tests, so that a change of one is one edit.

A private name begins with one underscore. Tests may have some of their own: of `self`, `cls` and
`super()`. Those of the standard library that are meant to be used are listed.
"""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve()
TESTS = HERE.parents[1]
FILES = sorted({*TESTS.rglob("*.py")} - {TESTS / "helpers" / "inside.py", HERE})

OWN = {"self", "cls", "super()"}
STANDARD = {"os._exit", "sys._getframe"}
ANY = re.compile(r"(?<!\bself\.)(?<!\bcls\.)(?<!\bsuper\(\)\.)(?<!\w)_[A-Za-z]")
"""What may begin one: a source without it need not be parsed, and most have none."""

IN_TEXT = re.compile(r"\bcorolib(\.\w+)*\._[a-z]\w*|from corolib.* import .*\b_[a-z]\w*")


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_"


def private_names(source):
    """Return the private names of others that a source uses."""
    found = []
    for node in ast.walk(ast.parse(source if ANY.search(source) else "")):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if ast.unparse(node.value) not in OWN and ast.unparse(node) not in STANDARD:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("corolib"):
            found += [alias.name for alias in node.names if is_private(alias.name)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [match[0] for match in IN_TEXT.finditer(node.value)]  # of a program, say
            if node.value.isidentifier() and is_private(node.value) and node.value != "_exit":
                found.append(node.value)  # for `setattr`
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_private_names_are_used_in_one_file_of_the_tests(path):
    assert private_names(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("stream._file.recv(1)", ["stream._file"]),
        ("current_scheduler()._poller.entries", ["current_scheduler()._poller"]),
        ("self._mine + cls._mine + super()._mine + self.x.__dict__", []),
        ("self.stream._file", ["self.stream._file"]),
        ("os._exit(0)", []),
        ("from corolib.system.workers import Worker, _end_with", ["_end_with"]),
        ("from _thread import get_ident", []),
        (
            "monkeypatch.setattr('corolib.system.process_pool._new_pool', make)",
            ["corolib.system.process_pool._new_pool"],
        ),
        ("monkeypatch.setattr(workers, '_end_with', print)", ["_end_with"]),
        ("monkeypatch.setattr(os, '_exit', print)", []),
        ("program = 'corolib.hooks._schedulers.clear()'", ["corolib.hooks._schedulers"]),
        ("program = 'from corolib.x import _y'", ["from corolib.x import _y"]),
    ],
)
def test_the_reader_of_private_names_sees_every_kind(source, found):
    assert private_names(source) == found
