"""Objects of the program that refuse what is asked of them: what is said of them all the same."""

import ast
import functools
from pathlib import Path

import pytest

import corolib
from corolib.kernel import (
    brief,
    class_module,
    class_name,
    is_a,
    name_of,
    note,
    told,
    trace_of,
    with_trace,
)
from corolib.kernel.safely import attribute, context_of, kind_of, module_of, plain, set_context
from tests.helpers.odd import ODD, Nameless, Silent, misnamed

PACKAGE = Path(corolib.__file__).parent
ONLY_THERE = {"add_note", "with_traceback", "__traceback__", "__context__", "__notes__"}
NAMES = {"__name__", "__qualname__", "__module__"}
# These read the names of the library's own functions; or hand one over as it is.
NAMES_THEIR_OWN = {"__init__.py", "__main__.py", "waits.py", "lifecycle.py", "scheduler.py"}
NAMES_THEIR_OWN |= {"start.py"}


class Proxy:
    """Raises whatever one asks it, as an unbound proxy of some web frameworks does."""

    def __getattribute__(self, name):
        raise RuntimeError("working outside of the context")


def test_a_text_is_short_whatever_it_is_of():
    assert brief("x") == "'x'"
    for thing in ("x" * 10**6, b"x" * 10**6, bytearray(10**6), list(range(1000))):
        assert len(brief(thing)) == 100
        assert brief(thing).endswith("...")
    assert brief(Silent()) == "a Silent (whose repr fails)"
    assert "Proxy" in brief(Proxy())
    assert "Nameless" in brief(Nameless)


def test_what_an_exception_says_is_short_too():
    assert told(ValueError("a")) == "ValueError: a"
    assert told(ValueError()) == "ValueError"
    assert told(Silent()) == "Silent: (whose str fails)"
    assert told(Nameless("a")) == "Nameless: a"
    assert len(told(ValueError("x" * 10**6))) == 300


def test_names_of_functions():
    assert name_of(brief) == "brief"
    assert name_of(functools.partial(brief, "x" * 10**6)) == "brief"
    assert name_of(functools.partial(functools.partial(brief))) == "brief"
    assert name_of(Proxy()) == "Proxy"
    assert name_of(Proxy(), "f") == "f"
    assert name_of(Silent.__repr__, which="__qualname__") == "Silent.__repr__"


def test_names_are_plain_strings_whatever_they_were():
    def function():
        yield

    misnamed(function)
    kind = misnamed(type("Kind", (), {}), "Kind")
    for name, expected in [
        (name_of(function), "odd"),
        (name_of(functools.partial(function)), "odd"),
        (name_of(function(), which="__qualname__"), "odd.q"),
        (class_name(kind()), "Kind"),
        (class_module(kind()), "nowhere"),
        (plain(None), ""),
    ]:
        assert type(name) is str
        assert name == expected


@pytest.mark.parametrize("kind", ODD)
def test_an_exception_can_be_asked_and_told_whatever_it_refuses(kind):
    error = kind()
    note(error, "a note")
    assert with_trace(error, None) is error
    assert trace_of(error) is None
    cause = KeyError()
    set_context(error, cause)
    assert context_of(error) is cause
    assert is_a(error, Exception)
    assert not is_a(error, KeyError)
    assert kind_of(error, [KeyError, kind]) is kind
    attribute(error, "args")


def test_a_note_is_added_where_that_can_be_done():
    error = ValueError()
    note(error, "a note")
    assert error.__notes__ == ["a note"]


def test_the_module_of_code_without_one():
    frames = []
    for name in (None, "mine"):
        exec(
            "frames.append(sys._getframe())",
            {"frames": frames, "sys": __import__("sys"), "__name__": name},
        )
    assert [module_of(frame) for frame in frames] == ["", "mine"]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_nothing_else_writes_to_exceptions_or_asks_things_for_their_text(path):
    """What is the library's own may be asked: `self` and a task."""
    if path.name == "safely.py" or path.parent.name == "testing":
        return
    only_there = ONLY_THERE | (set() if path.name in NAMES_THEIR_OWN else NAMES)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            assert node.attr not in only_there, f"line {node.lineno}"
        elif isinstance(node, ast.Attribute):
            assert node.attr not in ONLY_THERE, f"line {node.lineno}"
        elif isinstance(node, ast.FormattedValue) and node.conversion == ord("r"):
            assert ast.unparse(node.value) in ("self", "task"), f"line {node.lineno}"
