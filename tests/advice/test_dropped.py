"""Statements that make a generator and drop it: told of where a run begins in debug mode."""

import gc
import importlib
import sys
import warnings
import weakref
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

import corolib
from corolib import Lock, run
from corolib.advice import dropped
from corolib.kernel import check_sources, forgive
from corolib.kernel.waits import DEBUG, opens
from tests.helpers.programs import at_terminal

HEADER = """
from corolib import *

def greet(stream):
    yield from stream.sendall(b"hello")

def plain(stream):
    return greet(stream)

@waits
def marked(stream):
    yield

async def fetch(stream):
    pass

async def items():
    yield

lock = Lock()

class Room:
    def join(self, name):
        yield
        {method}

    @staticmethod
    def tell(name):
        yield

    def count(self):
        return 5

class Hall(Room):
    def open(self):
        yield
        self.tell("x")

room = Room()

def main(stream, greeting=None):
    yield
    {line}
"""

WRONG = {
    "greet(stream)": "yield from greet(stream)",
    "if greet(stream): pass": "if (yield from greet(stream)): pass",
    "while not greet(stream): pass": "while not (yield from greet(stream)): pass",
    "if (x := greet(stream)): pass": "if (x := (yield from greet(stream))): pass",
    "room.tell(5)": "yield from room.tell(5)",
    "Room.tell(5)": "yield from Room.tell(5)",
    "this.greet(stream)": "yield from this.greet(stream)",
    "try:\n    pass\nexcept OSError:\n    greet(1)": "yield from greet(1)",
    "try:\n    pass\nfinally:\n    greet(1)": "yield from greet(1)",
    "for x in ():\n    pass\nelse:\n    with x:\n        greet(1)": "yield from greet(1)",
    "match stream:\n    case 5: greet(1)": "case 5: (yield from greet(1))",
    "def inner():\n    greet(1)": "yield from greet(1)",
    "def inner():\n    yield\ninner()": "yield from inner()",
    "def inner():\n    x = 5 + (yield)\ndef other():\n    inner()": "yield from inner()",
    "async def inner():\n    greet(1)": "await greet(1)",
    "stream.task.cancel": "stream.task.cancel()",
    "stream.close; yield": "stream.close()",
}
RIGHT = [
    "yield from greet(stream)",
    "x = greet(stream)",
    "greet(stream).close()",
    "plain(stream)",
    "print(greet(stream))",
    "marked(stream).close()",
    "room.count()",
    "room.other()",
    "stream.greet()",
    "nobody(stream)",
    "[greet][0](stream)",
    "stream.name",
    # These may be something else.
    "def inner(greet):\n    greet(5)",
    "from other import tell as greet\ngreet(stream)",
    "import greet.more\ngreet(stream)",
    "async def greet(): pass\nx = greet()\nif x: greet(5)",
    "try:\n    pass\nexcept OSError as greet:\n    greet(5)",
    "match stream:\n    case greet: greet(5)",
    "match stream:\n    case [*greet]: greet(5)",
    "match stream:\n    case {**greet}: greet(5)",
    # These are bound in a scope within.
    "class Inner:\n    def plain(self):\n        yield\nplain(stream)",
    "def inner():\n    def plain():\n        yield\nplain(stream)",
    "for greet in (print,):\n    greet(5)",
    "room = print\nroom.tell(5)",
    "def inner():\n    yield\ninner = print\ninner()",
    "@partial(plain)\ndef inner():\n    yield\ninner()",
    "@partial(plain)\nasync def inner():\n    pass\ninner()",
    "async def greet():\n    yield\ngreet()",
    "async def inner():\n    lambda: (yield)\ninner()",
    "items()",
    "def inner():\n    def innermost():\n        yield\n    lambda: (yield)\ninner()",
    "class inner:\n    def greet(self):\n        self.greet()\ninner()",
    "def inner():\n    class Room:\n        def count(self):\n            self.tell()",
]


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Return a function that imports a module of a text; all of them are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def imported(text, name=""):
        name = name or f"program{len(names)}"
        names.append(name)
        tmp_path.joinpath(f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        module = importlib.import_module(name)
        module.this = module
        return module

    yield imported
    for name in names:
        sys.modules.pop(name, None)
    forget()


def forget():
    """Let all files be looked at once more."""
    dropped.seen.clear()
    dropped.known.clear()


def told(*things):
    """Return what is warned of because of some functions."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        dropped.warn_of_dropped_calls(things)
    return [str(each.message) for each in found]


def program(line="pass", method="pass"):
    line = line.replace("\n", "\n    ")
    return HEADER.replace("{line}", line).replace("{method}", method)


@pytest.mark.found("E1")
@pytest.mark.parametrize("line", WRONG)
def test_a_statement_that_drops_a_generator_is_shown_as_it_should_be(line, imported):
    module = imported(program(line))
    (text, other) = told(module.main)[::-1]
    assert "self.tell() at program0.py" in other
    assert text.endswith(f" Write `{WRONG[line]}`")
    assert "makes a generator that never runs; did you forget" in text or "is not called" in text
    assert told(module.main) == [], "once"


@pytest.mark.parametrize("line", RIGHT)
def test_what_may_be_meant_is_not_told_of(line, imported):
    assert len(told(imported(program(line)).main)) == 1  # that of Hall


FOUND = {  # for a trace: of these a run tells when it happens
    "marked(stream)": ("marked", "yield from marked(stream)"),
    "lock.acquire()": ("marked", "yield from lock.acquire()"),
    "open_tcp('a', 5)": ("marked", "yield from open_tcp('a', 5)"),
    "fetch(stream)": ("coroutine", "yield from spawn(fetch(stream))"),
    "async def inner():\n    fetch(5)": ("coroutine", "await fetch(5)"),
    "async def inner():\n    lambda: (yield)\ninner()": (
        "coroutine",
        "yield from spawn(inner())",
    ),
}


@pytest.mark.parametrize("line", FOUND)
def test_what_is_told_of_when_it_happens_is_found_and_not_warned_of(line, imported):
    module = imported(program(line))
    kind, cure = FOUND[line]
    first, found = dropped.found_in(vars(module), module.__file__)
    assert first.kind == "generator"
    assert found.cure == cure
    if DEBUG or kind == "coroutine":  # else nothing is around what is marked
        assert found.kind == kind
        assert len(told(module.main)) == 1


@pytest.mark.found("E1")
def test_a_method_is_found_in_its_class_and_in_those_above(imported):
    texts = told(imported(program(method="self.tell(name)")).main)
    assert [each.partition(" makes")[0] for each in texts] == [
        "self.tell() at program0.py:25",
        "self.tell() at program0.py:37",
    ]


def test_at_the_top_of_a_file_it_is_to_be_run(imported):
    text = "def main():\n    yield\n\nmain()\n"
    (said,) = told(imported(text).main)
    assert said == (
        "main() at program0.py:4 makes a generator that never runs; did you forget `run`? Write "
        "`run(main())`"
    )


LONG = f"def main():\n    yield\n\ndef other():\n    main({'5 + ' * 30}5)\n"


def test_a_line_that_is_too_long_is_not_shown(imported):
    module = imported(LONG)
    (said,) = told(module.main)
    assert said.endswith("did you forget `yield from`?")
    (found,) = dropped.found_in(vars(module), module.__file__)
    assert found.cure == "yield from main(...)"


def test_modules_are_found_by_what_a_run_is_given_and_by_what_they_use(imported):
    text = "def helper():\n    yield\n\ndef other():\n    helper()\n"
    imported(text, "helped")
    imported("import helped\nclass Used:\n    pass\n", "using")
    module = imported("from using import Used\ndef main(*args):\n    yield\n", "begins")
    awaited, opened = _waiting(module.main), opens(_given)(module.main)
    for things in (
        [module.main],
        [partial(module.main, 5)],
        [module.main()],
        [print, module.main],
        [_given(module.main)],
        [module.Used()],
        [_given(module.Used())],
        [awaited],
        [opened.body],
        [_given(_given(_given(module.main)))],
    ):
        assert len(told(*things)) == 1
        forget()
    awaited.close()
    forgive(opened)


def _given(f):
    yield f


async def _waiting(f):
    pass


def test_a_call_stays_as_it_was():
    call = opens(_given)(5)
    told(call.body)
    check_sources([call])
    assert next(call) == 5


def test_who_may_not_read_the_library_any_more_is_not_told(monkeypatch):
    monkeypatch.setattr("corolib.kernel.bodies.DEBUG", True)
    monkeypatch.setitem(sys.modules, "corolib.advice.dropped", None)
    assert check_sources([_given]) is None


def test_what_a_call_was_given_can_be_let_go_of():
    thing = Lock()
    seen = weakref.ref(thing)
    call = _dropping(thing, seen)
    told(call)
    del thing
    assert next(call) is None


def _dropping(thing, seen):
    del thing
    yield seen()


def test_of_the_names_of_a_function_a_list_is_made_once(imported, monkeypatch):
    calls = []
    monkeypatch.setattr(dropped, "bound_in", lambda node: calls.append(node) or {})
    lines = [f"x{n}(stream)" for n in range(50)]
    told(imported(program("\n".join([*lines, "def inner():", *(f"    {x}" for x in lines)]))).main)
    assert calls and len(calls) == len(set(calls))


def test_the_warnings_that_python_has_of_a_source_are_its_own(imported):
    module = imported("# none yet\ndef main():\n    yield\n")
    text = "def main():\n    yield\n    main()\nx = '\\d' is 5\n"
    Path(module.__file__).write_text(text)
    assert [text.partition(" ")[0] for text in told(module.main)] == ["main()"]


def test_modules_are_asked_nothing(imported, monkeypatch):
    class Module(ModuleType):
        def __getattribute__(self, name):
            raise AssertionError(name)

    class NoModule:
        __class__ = ModuleType
        __slots__ = ()
        __file__ = "x.py"

    module = imported("def helper():\n    yield\n\ndef main():\n    yield\n    helper()\n")
    module.odd = odd = Module("odd")
    vars(ModuleType)["__dict__"].__get__(odd)["__file__"] = "odd.py"
    monkeypatch.setitem(sys.modules, "odd", odd)
    monkeypatch.setitem(sys.modules, "fake", NoModule())
    module.fake = lambda: None
    module.fake.__module__ = "fake"
    assert len(told(module.main)) == 1
    dropped.seen.discard("odd.py")


def test_calls_in_calls_are_followed_so_far_and_those_that_are_over_are_not(imported):
    module = imported(program())
    over = _given(module.main)
    over.close()
    deep = module.main
    for _ in range(dropped.DEPTH + 2):
        deep = _given(deep)
    assert told(over) == told(deep) == []


def test_what_is_not_the_programs_own_is_not_looked_at(imported, tmp_path, monkeypatch):
    module = imported(program())
    assert dropped.found_in({**vars(module), "__name__": "queue.shapes"}, module.__file__) == []
    forget()
    for name in ("site-packages", "dist-packages"):
        monkeypatch.setattr(module, "__file__", f"/usr/lib/{name}/x.py")
        assert told(module.main) == []
    looked = []
    monkeypatch.setattr(dropped, "look_at", lambda names, file: looked.append(file))
    forget()
    dropped.warn_of_dropped_calls([corolib.run, warnings.warn, told, 5])
    assert __file__ in looked
    assert not [file for file in looked if "corolib/corolib/" in file or "/lib/python" in file]


def test_without_a_source_nothing_is_said(imported, monkeypatch):
    module = imported(program("greet(stream)"))
    monkeypatch.setattr(dropped, "lines_of", lambda file: ["def main(:"])
    assert told(module.main) == []
    forget()
    monkeypatch.setattr(dropped, "lines_of", lambda file: [])
    assert told(module.main) == []


def test_a_run_looks_in_debug_mode_only(imported):
    module = imported("def helper():\n    yield\n\ndef main():\n    yield\n    helper()\n")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        run(module.main)
        run(module.main)
        gc.collect()
    assert len(found) == DEBUG


@pytest.mark.found("E1")
def test_it_is_told_at_a_terminal_before_the_program_begins(tmp_path):
    path = tmp_path / "app.py"
    text = "from corolib import *\n\ndef say():\n    yield\n\ndef main():\n    print('begins')\n"
    path.write_text(f"{text}    yield\n    say()\n\nrun(main)\n")
    shown = at_terminal(path)
    assert shown.index("Write `yield from say()`") < shown.index("begins")
