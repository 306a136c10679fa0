"""Mistakes in the code of a task that a trace tells: calls that wait, and that nobody runs.

Which calls these are is tested with the finder, in `tests/advice/test_dropped.py`.
"""

import ast
import linecache
import weakref
from collections.abc import Generator

import pytest

from corolib import Lock, Sleep, run, spawn
from corolib.trace import Trace
from tests.helpers.driving import sleeper, turns
from tests.trace.test_events import of, traced


async def fetch(number):
    await Sleep(number)


lock = Lock()


def mistaken():
    def local():
        yield
        turns(0)  # nobody has come to this code

    yield
    if lock is None:  # what is not reached is told, too
        turns(1)
        turns(
            len(
                "text",
            ),
        )
        lock.acquire()
        fetch(1)
        local()
        spawn.cancel  # it makes nothing that could be run
    yield from turns(1)


async def mistaken_too():
    await Sleep(0)
    if lock is None:
        fetch(0)


def told(trace):
    code = trace.header["code"]
    lines = {}
    for event in of(trace, "lint"):
        file = code[event["code"]][1]
        text = linecache.getline(file, event["line"]).strip()
        assert event["lint"] == "never run"
        lines[text] = event["call"], event["cure"]
    return lines


@pytest.mark.filterwarnings("ignore:.*never run", "ignore:.*is not called")
def test_a_call_that_waits_and_that_nobody_runs_is_told_with_its_line():
    def main():
        task = spawn(mistaken)
        yield
        yield from spawn(mistaken_too)
        task.cancel()

    trace = traced(main)
    assert trace.left is None
    assert told(trace) == {
        "turns(1)": ("turns", "yield from turns(1)"),
        "turns(": ("turns", 'yield from turns( len( "text", ), )'),
        "lock.acquire()": ("lock.acquire", "yield from lock.acquire()"),
        "fetch(1)": ("fetch", "yield from spawn(fetch(1))"),
        "local()": ("local", "yield from local()"),
        "fetch(0)": ("fetch", "await fetch(0)"),
    }


def test_it_is_told_once_however_many_tasks_there_are_and_between_turns():
    def child():
        yield Sleep(1)
        if lock is None:
            turns(1)

    def main():
        tasks = [spawn(child) for _ in range(3)]
        for task in tasks:
            yield from task

    trace = traced(main)
    kinds = [event["kind"] for event in trace.events]
    assert kinds.count("lint") == 1
    assert kinds[kinds.index("lint") - 1] == "turn"
    assert of(trace, "lint")[0]["task"] == 2


def test_a_body_that_is_over_before_it_is_looked_at_is_left_alone():
    trace = Trace()
    scheduler = trace.scheduler()

    def main():
        yield
        if lock is None:
            turns(1)

    scheduler.spawn(main)
    scheduler.turn(0)
    scheduler.close()
    scheduler.read_code()
    assert not of(trace, "lint")


@pytest.mark.parametrize("values", [False, True])
def test_what_a_task_has_let_go_of_is_not_kept_by_its_trace(values):
    def main():
        lock = Lock()
        seen = weakref.ref(lock)
        yield
        lock.locked()
        del lock
        return seen()

    assert run(main, trace=Trace(values=values)) is None


@pytest.mark.parametrize("values", [False, True])
def test_the_names_of_a_program_that_awaits_at_its_top_stay(values):
    lines = ["import os", "os.getpid()", "await Sleep(0)", "await Sleep(0)", "x = 5"]
    code = compile("\n".join(lines), "program.py", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {"Sleep": Sleep}
    run(eval(code, names), trace=Trace(values=values))
    assert names["x"] == 5


@pytest.mark.parametrize("values", [False, True])
def test_what_the_program_has_got_from_locals_stays(values):
    def main():
        a = 5
        names = locals()
        abs(a)
        yield
        yield
        return names["a"]

    assert run(main, trace=Trace(values=values)) == 5


def test_a_body_that_answers_no_question_runs_traced_as_well():
    class Body(Generator):
        waits = 2

        def send(self, value):
            if not self.waits:
                raise StopIteration(5)
            self.waits -= 1

        def throw(self, *error):
            raise error[0]

        def __getattr__(self, name):
            raise ValueError(name)

    def main():
        return (yield from Body())

    assert run(main, trace=Trace(stacks=True)) == 5


def test_what_cannot_be_looked_at_is_left_out(monkeypatch):
    def fails(names, file):
        raise OSError

    monkeypatch.setattr("corolib.advice.dropped.found_in", fails)
    assert run(sleeper, 0, "value", trace=Trace()) == "value"
