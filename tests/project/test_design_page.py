"""The design chapter: what it follows through the source happens, and what it names exists."""

import ast
import re
import socket
import sys
from pathlib import Path

import pytest

import corolib
from corolib.kernel.waits import DEBUG

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "demos" / "guide" / "design.md").read_text("utf-8")


def section(title):
    """Return the text of one section."""
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def sleeper():
    yield corolib.Sleep(60)


def stopped(noted):
    task = corolib.spawn(sleeper)
    yield
    yield
    with noted:
        yield from task.stop()


def echoed_once(noted):
    def echo(stream):
        while data := (yield from stream.recv(65536)):
            yield from stream.sendall(data)

    ours, client = socket.socketpair()
    ours.setblocking(False)
    with client, corolib.Stream(ours) as stream:
        task = corolib.spawn(echo, stream)
        for _ in range(2):  # the first message makes what is made once
            client.send(b"hello")
            with noted:
                yield corolib.Sleep(0.01)
            assert client.recv(100) == b"hello"
            noted.calls, before = [], noted.calls
        noted.calls = before
        yield from task.stop()


class Noted:
    """Which functions of corolib's were called inside the block, in order, each with its file."""

    def __init__(self):
        self.calls = []

    def note(self, frame, event, arg):
        code = frame.f_code
        file = Path(code.co_filename)
        if event == "call" and file.is_relative_to(ROOT / "corolib"):
            self.calls.append((file.relative_to(ROOT / "corolib").as_posix(), code.co_qualname))

    def __enter__(self):
        sys.setprofile(self.note)

    def __exit__(self, *exc):
        sys.setprofile(None)


@pytest.mark.skipif(DEBUG, reason="debug mode puts generators of its own in between")
@pytest.mark.parametrize(
    ("title", "program"),
    [("One message, followed", echoed_once), ("One cancel, followed", stopped)],
    ids=["message", "cancel"],
)
def test_the_design_follows_what_really_happens(title, program):
    """The functions of the table are called, in its order; others may be called in between."""
    rows = re.findall(r"^\| .* \| `([\w/]+\.py)` \| `([\w.]+)` \|$", section(title), re.MULTILINE)
    assert len(rows) > 5
    noted = Noted()
    corolib.run(program, noted)
    rest = iter(noted.calls)
    assert [row for row in rows if row not in rest] == [], noted.calls


def test_the_functions_that_the_design_names_exist():
    named = re.findall(r"`([A-Z]\w+)\.(\w+)`", PAGE)
    defined = set()
    for path in (ROOT / "corolib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                inner = (each for each in node.body if isinstance(each, ast.FunctionDef))
                defined |= {(node.name, each.name) for each in inner}
    assert len(named) > 15
    assert [name for name in named if name not in defined] == []
    parts = re.findall(r"^\| `(\w+)` \| `(kernel/\w+\.py)` \|", PAGE, re.MULTILINE)
    assert len(parts) >= 7
    for name, file in parts:
        assert f"\nclass {name}:" in (ROOT / "corolib" / file).read_text("utf-8")


def test_the_table_of_the_layers_has_all_packages():
    rows = re.findall(r"^\| \d \| (.*?) \|", section("The layers"), re.MULTILINE)
    there = {path.parent.name for path in (ROOT / "corolib").glob("*/__init__.py")}
    assert set(re.findall(r"`(\w+)/`", " ".join(rows))) == there


def test_the_reading_guide_names_the_packages_and_what_the_kernel_is_made_of():
    guide = section("In which order to read the source")
    there = {path.stem for path in (ROOT / "corolib" / "kernel").glob("*.py")}
    words = {"__init__", "asked", "bodies", "checks", "context", "diagnostics", "errors", "frames"}
    words |= {"late", "observing", "safely", "source", "waits"}
    assert words <= there
    assert set(re.findall(r"`kernel/(\w+)\.py`", guide)) == there - words
    for package in re.findall(r"`(\w+)/`", guide):
        assert (ROOT / "corolib" / package).is_dir()
