"""Lines of source, and how the line of a call should be."""

import linecache
import warnings
from types import FunctionType

import pytest

from corolib.kernel.source import (
    corrected,
    corrected_at,
    is_given_up,
    line_at,
    lines_of,
    parsing,
    ticked_at,
    tree_of,
    word_for,
)


def line_with(text, call, word="yield from"):
    """Return the corrected line for the call that is written so in a text of lines."""
    before, found, _ = text.partition(call)
    assert found
    first, last = before.count("\n"), (before + call).count("\n")
    column = len(before.rpartition("\n")[2].encode())
    end = len((before + call).rpartition("\n")[2].encode())
    return corrected(text.splitlines(), (first + 1, last + 1, column, end), word)


@pytest.mark.parametrize(
    ("text", "call", "right"),
    [
        ("    s.send(1)", "s.send(1)", "yield from s.send(1)"),
        ("    s.send(1)  # all", "s.send(1)", "yield from s.send(1)  # all"),
        ("x = f()", "f()", "x = yield from f()"),
        ("return f()", "f()", "return (yield from f())"),
        ("if x == f():", "f()", "if x == (yield from f()):"),
        ("x == f()", "f()", "x == (yield from f())"),
        ("if x <= f()", "f()", "if x <= (yield from f())"),
        ("y = x != f()", "f()", "y = x != (yield from f())"),
        ("while data := s.recv(9):", "s.recv(9)", "while data := (yield from s.recv(9)):"),
        ("print(f(), 2)", "f()", "print((yield from f()), 2)"),
        ("x = f().y", "f()", "x = (yield from f()).y"),
        ("with f() as x:", "f()", "with (yield from f()) as x:"),
        ("ä = 'ü', f('ö'), 1", "f('ö')", "ä = 'ü', (yield from f('ö')), 1"),
        ("x = f(\n    1,\n    2,\n)", "f(\n    1,\n    2,\n)", "x = yield from f( 1, 2, )"),
        ("x = [f(i) for i in y]", "f(i)", "x = yield from gather(*[f(i) for i in y])"),
        ("x = [f(5) for i in y]", "f(5)", "for i in y: value = yield from f(5)"),
        ("x = [1 + f(i) for i in y]", "f(i)", "for i in y: value = yield from f(i)"),
        ("x = {f(i) for i in y}", "f(i)", "for i in y: value = yield from f(i)"),
        ("x = sum(f(i) for i in y)", "f(i)", "for i in y: value = yield from f(i)"),
        ("x = {f(i) for i in y if i}", "f(i)", ""),
        ("x = {f(i, j) for i in y for j in y}", "f(i, j)", ""),
        ("x = {1 + i for i in y}", "i for", ""),
        (f"x = {{f(i) for i in y + {'x' * 90}}}", "f(i)", ""),
        ("x = [i for i in f()]", "f()", "x = [i for i in (yield from f())]"),
        ("x = g(\n    f(),\n)", "f()", "yield from f()"),
        ("if g(\n    f()\n):\n    pass", "f()", "yield from f()"),
        ("if f():\n    pass", "f()", "if (yield from f()):"),
        ("x = g(\n    f('" + "y" * 99 + "'),\n)", "f('" + "y" * 99 + "')", ""),
        ("x = " + "y" * 90 + " + f(1)", "f(1)", "yield from f(1)"),
        ("x = f('" + "y" * 99 + "')", "f('" + "y" * 99 + "')", ""),
    ],
)
def test_a_line_is_shown_as_it_should_be(text, call, right):
    assert line_with(text, call) == right


def test_the_word_is_that_of_the_function():
    async def coroutine(): ...
    async def generator():
        yield

    assert line_with("x = f()", "f()", "await") == "x = await f()"
    assert line_with("if f():", "f()", "run") == "if run(f()):"
    assert line_with("f(1).run()  # all", "f(1)", "run") == "run(f(1))  # all"
    assert [word_for(f.__code__) for f in (coroutine, generator, line_with)] == [
        "await",
        "await",
        "yield from",
    ]
    assert line_with("[f(i) for i in x]", "f(i)", "await") == "[(await f(i)) for i in x]"
    assert word_for(compile("f()", "app.py", "exec")) == "run"


@pytest.mark.parametrize(
    "line",
    [
        *("f()", "return f()", "assert f()", "assert x, f()", "raise f()", "del f()[0]"),
        *("x = f()", "x += f()", "x: int = f()", "x = y = f()", "x = (y := f())", "x[f()] = 1"),
        *("not f()", "-f()", "x = not f()", "f() + 1", "1 + f()", "2 ** f()", "x @ f()"),
        *("f() or x", "x and f()", "x if f() else y", "f() == 1", "1 < f() < 3", "x in f()"),
        *("g(f())", "g(x, f(), y)", "g(x=f())", "g(*f())", "g(**f())", "x = *f(), 1", "f(), 1"),
        *("x[f()]", "x[f():]", "f()[0]", "f().x", "f().x()", "f()()", "[f()]", "{f(): f}"),
        *('f"{f()}"', 'f"{f()!r:>9}"', 'x = f"a {f()} b"', "yield f()", "yield f(), 1", "f(); x"),
        *("yield from f().strip()", "x = yield from f() + 1", "return (yield from f()[0])"),
        *(
            "x = yield f().strip()",
            "x = lambda y=f(): y",
            "x = [y for y in f()]",
            "for x in f(): y",
        ),
        *(
            "return [f(i) for i in y]",
            "if x: f()",
            "with f() as x: y",
            "while f(): y",
            "x = f()  # ",
        ),
    ],
)
def test_a_line_that_is_shown_can_be_compiled(line):
    for word in ("yield from", "await"):
        text = line.replace("yield from", word)
        call = "f(i)" if "f(i)" in text else "f()"
        right = line_with(f"def main():\n    {text}", call, word)
        assert f"{word} {call}" in right or f"{word} gather(*[f(i)" in right
        prefix = "async " if word == "await" else ""
        compile(f"{prefix}def main():\n    {right}", "app.py", "exec")


@pytest.mark.parametrize(
    ("text", "call", "right"),
    [
        ("x = yield from f().strip()", "f()", "x = (yield from f()).strip()"),
        ("x = (yield from f().strip())", "f()", "x = ((yield from f()).strip())"),
        ("x = yield from 1 + f()", "f()", "x = 1 + (yield from f())"),
        ("x = yield f()[0]", "f()", "x = (yield from f())[0]"),
        ("x = yield from f().recv(1)", "f()", "x = yield from (yield from f()).recv(1)"),
        ("yield from g(f())", "f()", "yield from g((yield from f()))"),
        ("spawn(lambda: f())", "f()", ""),
    ],
)
def test_a_word_that_stands_too_early_is_moved_to_the_call(text, call, right):
    assert line_with(text, call) == right


def test_where_there_is_no_source_nothing_is_shown(monkeypatch):
    assert corrected([], (1, 1, 0, 3), "await") == ""
    assert corrected_at(compile("f()", "nowhere.py", "exec"), 10**6) == ""
    assert ticked_at(compile("for x in y: pass", "nowhere.py", "exec"), 8, "x") == ""
    assert ticked_at(compile("f()", "nowhere.py", "exec"), 10**6, "x") == ""
    assert line_at("nowhere.py", 1) == ""
    assert line_at(__file__, 1).startswith('"""Lines of source')
    monkeypatch.setattr(linecache, "getlines", lambda filename: 1 / 0)
    assert lines_of(__file__) == []


def test_what_python_warns_of_in_a_source_is_not_said_again_but_by_two_threads_at_once():
    def parsed():
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            assert tree_of(["x = '\\d'\n"]).body
            filters = warnings.filters[:]
        return len(found), filters

    alone, filters = parsed()
    with parsing:
        assert parsed() == (1, filters)
    assert alone == 0


def test_of_code_that_keeps_no_positions_nothing_is_known_to_be_given_up():
    def stands():
        yield

    units = len(stands.__code__.co_code) // 2
    unknown = bytes(0xF8 | min(units - at, 8) - 1 for at in range(0, units, 8))
    bare = stands.__code__.replace(co_linetable=unknown)
    body = FunctionType(bare, {})()
    next(body)
    frame = body.gi_frame
    assert {*bare.co_positions()} == {(None, None, None, None)}
    assert not is_given_up(bare, frame.f_lasti, frame)
    body.close()
