"""What a trace tells of exceptions: what they say, if that asks nothing of the program; where."""

import gc
import json
import math
import weakref

import pytest

from corolib import Lock, Sleep, TaskCancelled, current_task, gather, run, spawn
from corolib.trace import Trace, replay
from corolib.trace.messages import LONGEST, message_of
from tests.helpers.driving import sleeper
from tests.trace.test_events import of, traced


class Silent:
    """A thing that is not to be asked anything."""

    def __repr__(self):
        raise AssertionError

    def __eq__(self, other):
        raise AssertionError

    __str__ = __repr__

    def __hash__(self):
        raise AssertionError


class Plain(ValueError):
    pass


class Own(ValueError):
    def __str__(self):
        raise AssertionError


class Changed(TaskCancelled):
    reason = property(lambda self: 1 / 0)


def error_of(f, *args):
    try:
        f(*args)
    except Exception as exc:
        return exc


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no such colour"), "no such colour"),
        (Plain("no such colour"), "no such colour"),
        (ValueError("one", 2), "('one', 2)"),
        (KeyError("name"), "'name'"),
        (FileNotFoundError(2, "No such file", "a.txt"), "[Errno 2] No such file: 'a.txt'"),
        (ConnectionResetError(104, "reset"), "[Errno 104] reset"),
        (
            error_of(json.loads, "{"),
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (error_of(getattr, object(), "colour"), "'object' object has no attribute 'colour'"),
        (error_of(eval, "colour"), "name 'colour' is not defined"),
        (error_of(__import__, "colours"), "No module named 'colours'"),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (
            UnicodeEncodeError("ascii", "\xe9", 0, 1, "no such letter"),
            "'ascii' codec can't encode character '\\xe9' in position 0: no such letter",
        ),
        (ExceptionGroup("both", [Own(), Plain(Silent())]), "both (2 sub-exceptions)"),
        (ValueError("  two\nlines"), "two..."),
        (ValueError("x" * 1000), "x" * (LONGEST - 3) + "..."),
    ],
)
def test_what_an_exception_says(error, text):
    assert message_of(error) == text


def test_neither_the_class_of_an_exception_is_asked_nor_what_that_says_of_its_parts():
    class Meta(type):
        def __getattribute__(cls, name):
            raise AssertionError

        __eq__ = __hash__ = __getattribute__

    class Odd(Exception, metaclass=Meta):
        args = __traceback__ = property(lambda self: 1 / 0)

    assert message_of(Odd("no such colour")) == "no such colour"


def test_what_says_nothing_or_would_have_to_be_asked():
    for error in (
        *(ValueError(), ValueError(""), ValueError(None), ValueError(2**200), ValueError([])),
        *(ValueError(Silent()), Plain("text", Silent()), Own("text")),
        *(OSError(2, Silent()), OSError(2, "No such file", Silent()), KeyError(Silent())),
        *(type("Described", (ValueError,), {"__str__": Silent()})("text"), SyntaxError("text")),
        *(TaskCancelled(), TaskCancelled("task"), UnicodeDecodeError.__new__(UnicodeDecodeError)),
    ):
        assert message_of(error) is None

    def main():
        task = current_task()
        assert message_of(TaskCancelled(task, "no more")).endswith(" was cancelled: no more")
        for error in (TaskCancelled(task, Silent()), Changed(task, "no more")):
            assert message_of(error) is None
        yield

    run(main)


def test_an_exception_that_cannot_be_put_into_words_says_nothing():
    error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    error.object = "no bytes"  # some Pythons refuse that in words, some read it as bytes
    try:
        text = str(error)
    except TypeError:
        text = None
    assert message_of(error) == text


def fails():
    raise ValueError("no such colour")


def test_a_failure_is_told_with_its_line_and_the_lines_of_who_gets_it():
    def child():
        number = 1
        yield
        fails()
        return number

    def main():
        try:
            yield from spawn(child)
        finally:
            word = "text"  # is told no more: the exception leaves this function in another line
            del word

    trace = traced(main, trace=Trace(values=True, stacks=True))
    told = {"how": "failed", "error": "ValueError", "message": "no such colour"}
    code = trace.header["code"]
    over = of(trace, "over")
    places = [[code[event.pop("code")][0], event.pop("line")] for event in over]
    assert over == [{"task": 2, **told}, {"task": 1, **told}]
    assert places == [
        ["fails", fails.__code__.co_firstlineno + 1],
        [main.__qualname__, main.__code__.co_firstlineno + 2],
    ]
    assert of(trace, "done") == [{"task": 2, **told}, {"task": 1, **told}]
    assert of(trace, "end") == [
        {"reason": "ValueError", "message": "no such colour", "failed": 1, "first": "child#2"}
    ]
    states = [replay(trace.events, e["i"]) for e in trace.events if e["kind"] == "over"]
    task = states[0].task(2)
    assert (task.message, task.line) == ("no such colour", places[0][1])
    assert (task.locals, task.changed, task.stack) == ({}, [], None)
    assert states[1].task(1).stack is None
    assert replay(trace.events, len(trace.events)).failed == 1


def test_an_exception_that_is_raised_again_has_left_the_line_where_that_was():
    def main():
        try:
            yield Sleep(math.nan)
        except ValueError as exc:
            error = exc
        yield
        raise error

    (over,) = of(traced(main), "over")
    assert over["line"] == main.__code__.co_firstlineno + 6


def test_the_line_is_of_the_program_and_not_of_what_it_called_of_python():
    def main():
        yield
        json.loads("{")

    (over,) = of(traced(main), "over")
    assert over["line"] == main.__code__.co_firstlineno + 2


def test_what_fails_in_the_library_alone_has_no_line():
    def forgetful(lock):
        yield from lock.acquire()

    def main():
        lock = Lock("till")
        spawn(forgetful, lock)
        spawn(lock.acquire)
        yield

    (failed,) = [event for event in of(traced(main), "over") if event["how"] == "failed"]
    assert failed["message"].startswith("<Lock till>: task forgetful#2, which held it, ended")
    assert "line" not in failed


def test_a_cancel_is_told_with_its_reason():
    def joins(task):
        yield from task

    def main():
        task = spawn(sleeper, 100)
        other = spawn(joins, task)
        yield
        yield
        task.cancel("no more")
        yield from gather(other, return_exceptions=True)
        silent = spawn(sleeper, 100)
        yield
        silent.cancel(Silent())
        yield

    trace = traced(main)
    assert trace.left is None
    thrown = [event for event in of(trace, "step") if event["via"] == "throw"]
    assert [(each["error"], each.get("message")) for each in thrown] == [
        ("Cancelled", "no more"),
        ("Cancelled", None),
    ]
    failed = [event for event in of(trace, "over") if event["how"] == "failed"]
    assert [(each["error"], each.get("message")) for each in failed] == [
        ("TaskCancelled", "task sleeper#2 was cancelled: no more")
    ]


def test_a_run_that_returns_says_who_failed():
    def main():
        for _ in range(3):
            spawn(sleeper, "no number")
        yield

    trace = traced(main)
    assert of(trace, "end") == [{"reason": "returned", "failed": 3, "first": "sleeper#2"}]


def test_a_trace_keeps_no_failure():
    seen = []

    class Thing(Exception):
        pass

    def child():
        error = Thing("text")
        seen.append(weakref.ref(error))
        yield
        raise error

    def main():
        spawn(child)
        yield Sleep(0.001)

    trace = Trace()
    run(main, trace=trace, on_task_error=lambda task, exc: None)
    gc.collect()
    assert [ref() for ref in seen] == [None]
    assert of(trace, "done")[0]["message"] == "text"
