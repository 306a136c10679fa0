"""Mistakes in the code of a task that a trace tells: calls that wait, and that nobody runs."""

import functools
import linecache
import weakref
from types import SimpleNamespace

import pytest

from corolib import Event, Lock, Queue, Sleep, run, spawn
from corolib.trace import Trace, lints
from tests.helpers.driving import sleeper, turns
from tests.trace.test_events import of, traced


def background(function):
    @functools.wraps(function)
    def begin(*args):
        return spawn(function, *args)

    return begin


@background
def later():
    yield


async def fetch(number):
    await Sleep(number)


class Silent:
    def __getattribute__(self, name):
        raise AssertionError

    wait = property(__getattribute__)


class Unknown:
    @property
    def __dict__(self):
        raise AssertionError


class Door:
    __slots__ = ("gate", "lock")

    def __init__(self):
        self.lock = Lock()
        self.gate = self

    def open(self, *who):
        yield

    @staticmethod
    def knock():
        yield

    @classmethod
    def build(cls):
        yield


def mistaken(door, queue, one, silent, unknown):
    def local():
        yield one

    yield
    if one is None:  # what is not reached is told, too
        turns(1)
        turns(
            len(
                "text",
            ),
        )
        door.open(*[1], **one)
        door.gate.open(2)
        door.knock()
        door.build()
        Door.knock()
        door.lock.acquire()
        queue.put(1)
        one.more.turns(3)
        fetch(1)
        local()
        # From here on nothing is wrong, or nothing is known.
        later()
        len("text")
        [turns][0](6)
        made = turns(4)
        made.close()
        door.lock.locked()
        silent.wait()
        unknown.wait()
        one.nothing()
        nowhere()  # noqa: F821
        turns(5).close()
    yield from turns(1)


async def mistaken_too():
    await Sleep(0)
    if Door is None:
        fetch(0)


def told(trace):
    code = trace.header["code"]
    lines = {}
    for event in of(trace, "lint"):
        file = code[event["code"]][1]
        text = linecache.getline(file, event["line"]).strip()
        assert event["lint"] == "never run"
        lines[text] = event["cure"]
    return lines


@pytest.mark.filterwarnings("ignore:.*never run")
def test_a_call_that_waits_and_that_nobody_runs_is_told_with_its_line():
    def main():
        one = SimpleNamespace(more=SimpleNamespace(turns=turns))
        task = spawn(mistaken, Door(), Queue(1), one, Silent(), Unknown())
        yield
        yield from spawn(mistaken_too)
        task.cancel()

    trace = traced(main)
    assert trace.left is None
    assert told(trace) == {
        "turns(1)": "yield from turns(...)",
        "turns(": "yield from turns(...)",
        "door.open(*[1], **one)": "yield from door.open(...)",
        "door.gate.open(2)": "yield from door.gate.open(...)",
        "door.knock()": "yield from door.knock(...)",
        "door.build()": "yield from door.build(...)",
        "Door.knock()": "yield from Door.knock(...)",
        "door.lock.acquire()": "yield from door.lock.acquire(...)",
        "queue.put(1)": "yield from queue.put(...)",
        "one.more.turns(3)": "yield from one.more.turns(...)",
        "fetch(1)": "yield from spawn(fetch(...))",
        "local()": "yield from local(...)",
        "fetch(0)": "await fetch(...)",
    }


def test_it_is_told_once_however_many_tasks_there_are_and_between_turns():
    def child():
        yield Sleep(1)
        if Door is None:
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
        if Door is None:
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


def test_what_cannot_be_looked_at_is_left_out(monkeypatch):
    def fails(frame):
        raise ValueError

    monkeypatch.setattr("corolib.trace.recorder.never_run", fails)
    assert run(sleeper, 0, "value", trace=Trace()) == "value"


def test_without_columns_nothing_is_known(monkeypatch):
    def main():
        turns(1)
        yield Event().wait

    for position in (None, SimpleNamespace(lineno=1, col_offset=None)):
        instructions = [
            SimpleNamespace(opname=opname, argval="turns", positions=position)
            for opname in ("LOAD_GLOBAL", "CALL", "POP_TOP")
        ]
        monkeypatch.setattr(lints.dis, "get_instructions", lambda code, found=instructions: found)
        assert list(lints.dropped_calls(main.__code__)) == []
