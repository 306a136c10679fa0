"""What a trace says of a run, event by event; and the laws that hold for each run there can be."""

import contextlib
import gc
import logging
import math
import os
import select
import selectors
import socket
import subprocess
import sys
import threading
import time
import types
import weakref
from collections import deque
from pathlib import Path

import pytest

from corolib import (
    CancelScope,
    Deadlock,
    Event,
    Lock,
    PriorityQueue,
    Queue,
    ReadWait,
    Scheduler,
    Semaphore,
    Sleep,
    Suspend,
    TaskGroup,
    Topic,
    UrgentWait,
    WriteWait,
    current_scheduler,
    current_task,
    first,
    from_thread,
    gather,
    move_on_after,
    run,
    shield,
    spawn,
    timeout,
    to_thread,
)
from corolib.kernel import DEFAULT_TRACE, find_cycle
from corolib.kernel.poller import default_selector
from corolib.testing import virtual_time
from corolib.trace import EVENTS, State, Trace, mark, replay, sentence
from corolib.trace.events import WHYS
from tests.helpers.driving import FULL, sleeper, strike, swallow, turns
from tests.helpers.inside import methods_are_swapped, parts_of
from tests.helpers.random_programs import program

ROOT = Path(__file__).resolve().parents[2]


def traced(main, *args, trace=None, **options):
    """Run `main` in virtual time; return its trace. What leaves the run is in `trace.left`."""
    trace = trace or Trace()
    trace.left = None
    options = {**virtual_time(), "on_task_error": lambda task, exc: None, **options}
    try:
        run(main, *args, trace=trace, **options)
    except Exception as exc:
        trace.left = exc
    return trace


def of(trace, *kinds):
    """Return the events of these kinds, as what is in them beside the time."""
    events = [event for event in trace.events if event["kind"] in kinds]
    for event in events:
        del event["i"], event["ns"]
        if len(kinds) == 1:
            del event["kind"]
    return events


def whys(trace, number):
    return [event["why"] for event in of(trace, "wake") if event["task"] == number]


def waits_of(trace, number=1):
    """Return what a task has waited for."""
    return [event["on"] for event in of(trace, "yield") if event["task"] == number]


# The laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hundred", range(20 if FULL else 1))
def test_laws_on_random_programs(hundred):
    for seed in range(100 * hundred, 100 * hundred + 100):
        trace = traced(program(seed))
        check_laws(trace, seed)


def check_laws(trace, seed):
    events, codes = trace.events, trace.header["code"]
    state = State()
    woken = {}
    snapshots = {}
    for i, event in enumerate(events):
        kind = event["kind"]
        fields = set(event) - {"i", "ns", "kind"}
        assert event["i"] == i
        assert fields <= set(EVENTS[kind]), (seed, event)
        if kind == "step":
            assert state.running is None, (seed, event)
            assert state.ready[0] == event["task"], (seed, event)
            assert woken.pop(event["task"]) == 1, (seed, event)
        elif kind == "wake":
            woken[event["task"]] = woken.get(event["task"], 0) + 1
            assert event["why"] in WHYS
        elif kind == "turn":
            assert state.running is None
        if i % 50 == seed % 50:
            snapshots[i] = state.copy()
        assert event["ns"] >= state.ns
        state.apply(event)
        assert sentence(event, state, codes)[0] != "{"
    assert woken == {}, seed
    assert {task.state for task in state.tasks.values()} == {"done"}, seed
    assert (state.running, state.ready, state.polling, state.watched) == (None, [], False, {})
    assert state.locks == {}
    for i, snapshot in snapshots.items():
        for event in events[i:]:
            snapshot.apply(event)
        assert snapshot.view() == state.view(), seed
    half = len(events) // 2
    assert replay(events, half).i == half
    assert replay(events, len(events)).view() == state.view()


def test_the_random_programs_do_a_little_of_everything():
    kinds, reasons = set(), set()
    for seed in range(30):
        trace = traced(program(seed))
        kinds |= {event["kind"] for event in trace.events}
        reasons |= {event["why"] for event in of(trace, "wake")}
    assert kinds >= set(EVENTS) - {"mark", "deadlock", "lint"}
    assert reasons >= set(WHYS) - {"signal", "thread"}


# Each kind of event -------------------------------------------------------------------------------


SECOND = {"until": 1_000_000_000, "for": 1_000_000_000}


def test_a_life_from_the_spawn_to_the_end():
    def child():
        yield Sleep(1)
        return "value"

    def main():
        return (yield from spawn(child))

    trace = traced(main)
    told = of(trace, "spawn", "step", "yield", "over", "done", "wake")
    for event in told:
        for name in ("code", "line"):
            event.pop(name, None)
    nobody = {"daemon": False}
    assert told == [
        {"kind": "spawn", "task": 1, "name": "main", **nobody},
        {"kind": "wake", "task": 1, "why": "new"},
        {"kind": "step", "task": 1, "n": 1, "via": "send"},
        {"kind": "spawn", "task": 2, "name": "child", "parent": 1, **nobody},
        {"kind": "wake", "task": 2, "why": "new", "by": 1},
        {"kind": "yield", "task": 1, "trap": "Join", "on": {"join": 2}},
        {"kind": "step", "task": 2, "n": 1, "via": "send"},
        {"kind": "yield", "task": 2, "trap": "Sleep", "on": SECOND},
        {"kind": "wake", "task": 2, "why": "timer"},
        {"kind": "step", "task": 2, "n": 2, "via": "send"},
        {"kind": "over", "task": 2, "how": "returned"},
        {"kind": "done", "task": 2, "how": "returned"},
        {"kind": "wake", "task": 1, "why": "join", "by": 2},
        {"kind": "step", "task": 1, "n": 2, "via": "send"},
        {"kind": "over", "task": 1, "how": "returned"},
        {"kind": "done", "task": 1, "how": "returned"},
    ]
    code = trace.header["code"]
    line = child.__code__.co_firstlineno + 1
    assert [
        code[event["code"]] + [event["line"]] for event in of(trace, "yield") if event["task"] == 2
    ] == [[child.__qualname__, __file__, line - 1, line]]
    assert of(trace, "end") == [{"reason": "returned"}]
    assert trace.header["tasks"][2] == [
        "child",
        1,
        f"{__file__}:{main.__code__.co_firstlineno + 1}",
    ]


def test_the_loop_is_told_turn_by_turn():
    def main():
        yield
        yield Sleep(2)
        yield from Event().wait()

    trace = traced(main)
    ready = [each["ready"] for each in of(trace, "turn")]
    assert [each["n"] for each in of(trace, "turn")] == list(range(1, len(ready) + 1))
    assert ready[:3] == [1, 1, 0]
    assert {"timeout": 2.0} in of(trace, "poll")
    assert waits_of(trace) == [
        {},
        {"until": 2 * 10**9, "for": 2 * 10**9},
        {"what": "wait for Event 1"},
    ]
    assert whys(trace, 1) == ["new", "yield", "timer", "cancel"]
    assert of(trace, "deadlock") == [{"tasks": [1], "cycle": []}]
    assert of(trace, "end") == [{"reason": "Deadlock"}]
    assert isinstance(trace.left, Deadlock)


def test_who_waits_for_its_children_is_said_too():
    def main():
        spawn(sleeper, 1)
        spawn(sleeper, 2)
        return
        yield

    trace = traced(main)
    over = next(event["i"] for event in trace.events if event["kind"] == "over")
    assert replay(trace.events, over).waits_for() == {1: [2, 3]}
    assert replay(trace.events, over).task(1).state == "completing"


def test_a_daemon_is_waited_for_when_the_other_children_are_done():
    def main():
        spawn(sleeper, 2, daemon=True)
        spawn(sleeper, 1)
        return
        yield

    trace = traced(main)
    over, other, *_ = (event["i"] for event in trace.events if event["kind"] == "over")
    assert replay(trace.events, over).waits_for()[1] == [3]
    assert replay(trace.events, other + 1).waits_for()[1] == [2]


def test_a_sleep_without_end_is_said_to_have_none():
    def main():
        with move_on_after(1):
            yield Sleep(math.inf)

    assert waits_of(traced(main)) == [{"until": None}]


def test_deadlines_and_events_are_on_one_clock():
    def main():
        yield Sleep(0.001)

    trace = Trace()
    trace.t0 -= 10**12  # it was made long ago
    run(main, trace=trace)
    step = next(event for event in trace.events if event["kind"] == "step")
    (until,) = [event["on"]["until"] for event in trace.events if event["kind"] == "yield"]
    assert until + 1000 >= step["ns"] + 1_000_000


@pytest.mark.parametrize("selector", [default_selector, selectors.SelectSelector])
def test_files_are_told_by_their_numbers(selector):
    a, b = socket.socketpair()
    fds = {}

    def reader():
        yield ReadWait(a)
        assert a.recv(10) == b"x"

    def main():
        for end in (a, b):
            end.setblocking(False)
        fds.update(a=a.fileno(), b=b.fileno())
        task = spawn(reader)
        yield
        yield WriteWait(b)
        b.send(b"x")
        yield from task
        with move_on_after(0.01):
            yield ReadWait(b.fileno())

    with a, b:
        trace = traced(main, clock=time.monotonic, selector=selector)
        fa, fb = fds["a"], fds["b"]
        assert waits_of(trace, 2) == [{"read": fa}]
        assert whys(trace, 2) == ["new", "io"]
        assert {"write": fb} in waits_of(trace)
        assert whys(trace, 1)[:3] == ["new", "yield", "at once"]
        assert {"files": [[fa, "r"]], "count": 1} in of(trace, "polled")
        assert {"fd": fb} in of(trace, "unwatch")
        assert "corolib itself (sweep)" in [event["for"] for event in of(trace, "timer.set")]
        assert {"fd": fa, "mask": "r", "task": 2} in of(trace, "watch")
        kinds = [event["kind"] for event in trace.events]
        reported = kinds.index("polled", kinds.index("watch"))
        wakes = [e["i"] for e in trace.events if e["kind"] == "wake" and e["why"] == "io"]
        assert any(i < wakes[0] for i in [reported])
        assert trace.left is None


@pytest.mark.parametrize("selector", [default_selector, selectors.SelectSelector])
def test_times_rise_where_files_that_are_watched_no_more_are_reported_together(selector):
    def reader(fd):
        yield ReadWait(fd)

    def main():
        with contextlib.ExitStack() as stack:
            pipes = [os.pipe() for _ in range(3)]
            for fd in [fd for pipe in pipes for fd in pipe]:
                stack.callback(os.close, fd)
            tasks = [spawn(reader, fd) for fd, _ in pipes]
            yield
            for _, fd in pipes:
                os.write(fd, b"x")
            for task in tasks:
                yield from task

    trace = traced(main, clock=time.monotonic, selector=selector)
    assert trace.left is None
    assert {"count": 3} in [{"count": event["count"]} for event in of(trace, "polled")]
    assert len(of(trace, "unwatch")) >= 3
    times = [event["ns"] for event in trace.events]
    assert times == sorted(times)


def test_a_file_that_is_waited_for_in_both_directions_is_watched_in_both():
    a, b = socket.socketpair()

    def reader():
        yield ReadWait(a)

    def main():
        for end in (a, b):
            end.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                a.send(bytes(65536))
        task = spawn(reader)
        yield
        with move_on_after(0.01):
            yield WriteWait(a)
        b.send(b"x")
        yield from task

    with a, b:
        trace = traced(main, clock=time.monotonic, selector=default_selector)
        assert trace.left is None
        masks = [event["mask"] for event in of(trace, "watch") if event["fd"] == a.fileno()]
    assert masks == ["r", "rw", "r"]


def test_files_that_are_none_have_no_number():
    class Odd:
        def fileno(self):
            raise OSError("odd")

    def main():
        for file in (Odd(), object(), "text"):
            with pytest.raises((OSError, TypeError)):
                yield ReadWait(file)
        with pytest.raises((OSError, TypeError, NotImplementedError)):
            yield UrgentWait(Odd())
        with pytest.raises(TypeError):
            yield 17

    trace = traced(main)
    assert trace.left is None
    assert waits_of(trace) == [{"read": -1}] * 3 + [{"urgent": -1}, {}]
    assert of(trace, "step")[1]["error"] == "OSError"
    assert [event["trap"] for event in of(trace, "yield")][-1] == "int"


def test_locks_and_queues_say_who_has_them_and_who_hands_over():
    def holder(lock):
        with (yield from lock):
            yield Sleep(1)

    def getter(queue):
        return (yield from queue.get())

    def main():
        lock, queue, event = Lock("till"), Queue(1), Event()
        spawn(holder, lock)
        second = spawn(holder, lock)
        third = spawn(getter, queue)
        spawn(event.wait)
        yield
        yield from queue.put(1)
        event.set()
        yield from third
        yield from queue.put(2)
        assert queue.get_nowait() == 2
        yield from second

    trace = traced(main)
    assert trace.left is None
    assert of(trace, "lock.take", "lock.give") == [
        {"kind": f"lock.{what}", "lock": 1, "label": "Lock till", "task": task}
        for what, task in (("take", 2), ("give", 2), ("take", 3), ("give", 3))
    ]
    assert waits_of(trace, 3)[0] == {"what": "acquire Lock till", "holders": [2]}
    assert waits_of(trace, 4)[0] == {"what": "get from Queue 2"}
    assert waits_of(trace, 5)[0] == {"what": "wait for Event 3"}
    assert [whys(trace, n)[1] for n in (3, 4, 5)] == ["lock", "queue", "event"]
    put = {"queue": 2, "label": "Queue 2", "task": 1}
    assert of(trace, "queue.put") == [{**put, "length": 0, "to": 4}, {**put, "length": 1}]
    assert of(trace, "queue.get") == [{**put, "length": 0}]


def test_a_deadlock_names_its_cycle():
    def one(a, b):
        with (yield from a):
            yield
            with (yield from b):
                pass

    def main():
        a, b = Lock("a"), Lock("b")
        spawn(one, a, b)
        spawn(one, b, a)
        yield from Event("never").wait()

    trace = traced(main)
    assert of(trace, "deadlock") == [{"tasks": [1, 2, 3], "cycle": [2, 3]}]
    at = next(event["i"] for event in trace.events if event["kind"] == "deadlock")
    waits = replay(trace.events, at).waits_for()
    assert waits == {1: [], 2: [3], 3: [2]}
    assert find_cycle(waits, waits.__getitem__) == [2, 3]
    none = {1: [2, 3], 2: [3], 3: []}
    assert find_cycle(none, none.__getitem__) == []


def test_a_lock_whose_holder_has_ended_is_nobodys():
    def forgetful(lock):
        yield from lock

    def main():
        yield from spawn(forgetful, Lock("till"))

    trace = traced(main)
    assert [event["task"] for event in of(trace, "lock.take")] == [2]
    over = next(event["i"] for event in trace.events if event["kind"] == "over")
    assert replay(trace.events, over - 1).locks == {1: ["Lock till", 2]}
    assert replay(trace.events, over).locks == {}


def test_cancels_and_blocks():
    def child():
        yield Sleep(100)

    def main():
        task = spawn(child)
        yield
        task.cancel("no more")
        yield
        with pytest.raises(TimeoutError), timeout(1):
            yield Sleep(100)
        with CancelScope() as scope, shield():
            yield
        del scope
        with TaskGroup() as g:
            g.spawn(sleeper, 1)
            yield from g

    trace = traced(main)
    assert trace.left is None
    assert of(trace, "cancel.ask") == [
        {"task": 2, "scope": 0, "label": "child#2", "by": 1, "reason": "no more"},
        {"task": 1, "scope": 1, "label": "timeout of 1 s", "reason": "the deadline has passed"},
    ]
    assert [event["task"] for event in of(trace, "cancel.deliver")] == [2, 1]
    assert [event["label"] for event in of(trace, "scope.enter")] == [
        "timeout of 1 s",
        "CancelScope",
        "shield",
        "TaskGroup",
    ]
    left = [(event["label"], event["caught"]) for event in of(trace, "scope.leave")]
    assert left == [
        ("timeout of 1 s", True),
        ("shield", False),
        ("CancelScope", False),
        ("TaskGroup", False),
    ]
    assert of(trace, "done")[0] == {"task": 2, "how": "cancelled"}
    assert {"for": "timeout of main#1", "at": 1_000_000_000, "id": 2} in of(trace, "timer.set")


def test_a_timer_that_fires_late_says_by_how_much():
    options = virtual_time()

    def main():
        spawn(sleeper, 1)
        yield
        options["clock"].move(30)  # as a long step does
        yield

    trace = traced(main, **options)
    assert of(trace, "timer.fire") == [{"id": 1, "late": 29_000_000_000}]
    assert trace.header["clock"] == "VirtualClock"
    real = traced(sleeper, -1e300, clock=time.monotonic, selector=default_selector)
    assert of(real, "timer.fire") == []
    assert "clock" not in real.header


def test_waits_in_other_words():
    class Thing:
        def __repr__(self):
            raise AssertionError("no repr of the program's is asked for")

    def bad():
        raise ValueError

    def waiting(what, holder=None):
        def arm(wake):
            current_scheduler().call_at(0, lambda _: wake(), None)
            return lambda: None

        return Suspend(arm, what, holder=holder)

    def main():
        me = current_task()
        yield waiting("a shout")
        yield waiting(("see", Thing()), lambda: [me, None])
        yield waiting(Thing(), bad)
        yield from first(Sleep(1), Queue(1).getting())
        with TaskGroup() as g:
            g.spawn(sleeper, 1)
            yield from g
        yield from gather(sleeper(1), sleeper(2))
        semaphore = Semaphore(0, "s")
        with move_on_after(1):
            yield from semaphore
        with move_on_after(1):
            yield from PriorityQueue(1, "p").get()

    trace = traced(main)
    assert trace.left is None
    assert waits_of(trace) == [
        {"what": "a shout"},
        {"what": "see a Thing", "holders": [1]},
        {"what": "a Thing"},
        {"what": "the first of several"},
        {"what": "the tasks of a group", "holders": [2]},
        *[{"what": "the next end of several tasks", "holders": left} for left in ([3, 4], [4])],
        {"what": "acquire Semaphore s"},
        {"what": "get from PriorityQueue p"},
    ]


def test_who_waits_in_the_place_of_a_task_is_not_woken_itself(pair):
    a, b = pair
    b.send(b"x")
    trace = traced(lambda: first(ReadWait(a), Event().waiting()), clock=time.monotonic)
    assert trace.left is None
    assert whys(trace, 1) == ["new", "io"]


def test_calls_from_outside_say_from_where():
    def answer():
        yield
        return 42

    def main():
        scheduler = current_scheduler()
        event = Event()

        def ask():
            return from_thread(scheduler, answer)

        assert (yield from to_thread(ask)) == 42
        scheduler.call_soon_threadsafe(event.set)
        yield from event.wait()

    trace = traced(main)
    assert trace.left is None
    calls = of(trace, "call")
    assert {call["from"].split()[0] for call in calls} == {"thread", "task"}
    assert calls[-1] == {"from": "task", "function": "set"}
    assert whys(trace, 1) == ["new", "thread", "event"]
    assert waits_of(trace)[0] == {"what": "a call in a thread"}


def test_ctrl_c_is_a_call_of_a_signal_handler():
    def main():
        strike()
        with pytest.raises(KeyboardInterrupt):
            yield Sleep(1)

    trace = traced(main)
    assert trace.left is None
    assert "ctrl_c" in of(trace, "call")[0]["function"]
    assert "cancel" in whys(trace, 1)


def test_a_task_that_swallows_every_cancel_is_over_without_a_step():
    def main():
        task = spawn(swallow, 1000)
        yield
        task.cancel()
        yield Sleep(2)

    trace = traced(main)
    over = [event for event in of(trace, "over") if event["task"] == 2]
    assert over == [{"task": 2, "how": "failed", "error": "RuntimeError"}]


def test_marks_are_shown_without_asking_the_program_anything():
    class Thing:
        def __repr__(self):
            raise AssertionError

    def main():
        mark("begins", text="x" * 100, raw=b"ab", whole=2**500, real=1.5, no=None)
        mark("goes on", thing=Thing(), many=[1, 2], empty={})
        yield
        mark("ends")

    trace = traced(main)
    assert trace.left is None
    one, two, three = of(trace, "mark")
    assert one["name"] == "begins"
    assert one["data"] == {
        "text": repr("x" * 61)[:57] + "...",
        "raw": "b'ab'",
        "whole": "<int of 501 bits>",
        "real": "1.5",
        "no": "None",
    }
    assert two["data"] == {"thing": "<Thing>", "many": "<list of 2>", "empty": "<dict of 0>"}
    codes = trace.header["code"]
    for each in (one, two, three):
        assert codes[each.pop("code")][0].endswith("main")
    first = main.__code__.co_firstlineno
    assert [each.pop("line") - first for each in (one, two, three)] == [1, 2, 4]
    assert three == {"task": 1, "name": "ends", "data": {}}
    mark("outside of a run", x=1)
    run(lambda: (mark("not traced") for _ in [1]), trace=None)


def test_values_are_told_when_they_change():
    def main():
        number, name = 1, "a"
        yield
        number += 1
        yield
        yield from inner(name)

    def inner(text):
        yield
        return text

    trace = traced(main, trace=Trace(values=True, stacks=True))
    told = [event["locals"] for event in of(trace, "yield")]
    cell = {"inner": "<function>"}
    assert told == [{"number": "1", "name": "'a'", **cell}, {"number": "2"}, {"text": "'a'"}]
    stacks = [event["stack"] for event in of(trace, "yield")]
    code = trace.header["code"]
    assert [[code[n][0].rpartition(".")[2] for n, _ in stack] for stack in stacks] == [
        ["main"],
        ["main"],
        ["main", "inner"],
    ]
    states = [replay(trace.events, e["i"]) for e in trace.events if e["kind"] == "yield"]
    assert states[1].task(1).locals == {"number": "2", "name": "'a'", **cell}
    assert states[1].task(1).changed == ["number"]
    assert states[2].task(1).locals == {"text": "'a'"}


def test_async_functions_stand_somewhere_too():
    async def numbers():
        for n in range(2):
            await Sleep(1)
            yield n

    async def main():
        async for _ in numbers():
            pass

    class Foreign:
        """A body that has no frames."""

        def send(self, value):
            raise StopIteration

        throw = close = send

    def both():
        yield from spawn(main)
        yield from spawn(Foreign())

    trace = traced(both)
    assert trace.left is None
    lines = {event["line"] for event in of(trace, "yield") if event["task"] == 2}
    assert len(lines) == 1
    foreign = traced(lambda: Foreign())
    assert of(foreign, "over")[0]["how"] == "returned"


def test_code_without_lines_stands_where_it_begins():
    def child():
        mark("begun")
        yield
        raise ValueError

    bare = types.FunctionType(child.__code__.replace(co_linetable=b""), globals())

    def main():
        with contextlib.suppress(ValueError):
            yield from spawn(bare)

    trace = traced(main, trace=Trace(stacks=True))
    first = child.__code__.co_firstlineno
    found = [event for event in of(trace, "mark", "yield", "over") if event["task"] == 2]
    assert [event["line"] for event in found] == [first] * 3
    assert [line for _, line in found[1]["stack"]] == [first]
    assert replay(trace.events, len(trace.events) - 1).task(2).line == first


def test_what_only_the_library_runs_stands_nowhere():
    def main():
        event = Event()
        spawn(event.wait)
        yield
        event.set()

    event = next(each for each in of(traced(main), "yield") if each["task"] == 2)
    assert "line" not in event


# What is left as it is ----------------------------------------------------------------------------


def test_a_plain_run_has_plain_parts_and_after_a_trace_all_is_put_back():
    def main():
        yield
        return methods_are_swapped(), parts_of(current_scheduler())

    kinds = {"scheduler": Scheduler, "ready": deque}
    swapped, parts = run(main, trace=None)
    assert not swapped
    assert {name: parts[name] for name in kinds} == kinds
    trace = Trace()
    swapped, traced_parts = run(main, trace=trace)
    assert swapped
    assert {name for name in parts if traced_parts[name] is parts[name]} == {"poller"}
    assert not methods_are_swapped()


def test_two_traces_at_a_time_and_the_last_puts_the_methods_back():
    one, two = Trace(), Trace()
    schedulers = [trace.scheduler() for trace in (one, two)]
    for scheduler in schedulers:
        assert scheduler.deadlock() is None
        scheduler.spawn(turns, 3)
        scheduler.turn(0)
        scheduler.turn(0)
        scheduler.reported([[0, "r"]])  # asked by the poller for itself
    schedulers[0].close()
    assert methods_are_swapped()
    schedulers[1].close()
    assert not methods_are_swapped()
    assert of(one, "done") == [{"task": 1, "how": "abandoned"}]
    assert of(one, "end") == [{"reason": "closed"}]
    assert replay(one.events, 1000).ready == []
    assert {event["kind"] for event in one.events} == {event["kind"] for event in two.events}


def test_a_run_that_was_refused_is_no_trace(tmp_path):
    def main():
        with pytest.raises(RuntimeError, match="already runs"):
            run(sleeper, 0, trace=tmp_path / "inner.jsonl")
        yield

    run(main, trace=None)
    assert list(tmp_path.iterdir()) == []


def test_the_scheduler_of_a_forked_child_tells_nothing():
    trace, other = Trace(), Trace()
    scheduler, idle = trace.scheduler(), other.scheduler()
    scheduler.spawn(turns, 1)
    scheduler.turn(0)
    before = len(trace.events)
    for each in (scheduler, idle):
        each.disown()
        assert not methods_are_swapped()
        each.close()
    assert len(trace.events) == before
    assert other.events == []


def test_queues_and_blocks_of_another_run_are_not_told():
    trace = Trace()
    scheduler = trace.scheduler()
    scheduler.spawn(turns, 1)
    scheduler.turn(0)

    def main():
        queue = Queue(1)
        with move_on_after(5):
            yield from queue.put(1)
            yield from queue.get()

    run(main, trace=None)
    topic = Topic(1)
    queue = Queue(1)
    queue.put_nowait(1)
    assert queue.get_nowait() == 1
    assert repr(topic)
    scheduler.close()
    assert not of(trace, "queue.put", "queue.get", "scope.enter")


def test_a_trace_holds_no_object_of_the_program():
    class Thing:
        pass

    seen = []

    def main():
        thing = Thing()
        lock = Lock()
        seen.extend([weakref.ref(thing), weakref.ref(lock)])
        with (yield from lock):
            yield Sleep(1)

    trace = traced(main, trace=Trace(values=True))
    gc.collect()
    assert [ref() for ref in seen] == [None, None]
    assert trace.events


def test_failures_have_the_tracebacks_that_they_have_without_a_trace():
    def fails():
        yield
        raise ValueError("x")

    def main():
        yield from spawn(fails)

    def lines(trace):
        try:
            run(main, trace=trace)
        except ValueError as exc:
            found, frame = [], exc.__traceback__
            while frame is not None:
                found.append((frame.tb_frame.f_code.co_qualname, frame.tb_lineno))
                frame = frame.tb_next
            return found

    assert lines(Trace())[1:] == lines(None)[1:]


def test_a_task_is_freed_with_its_run_without_a_collection():
    gc.collect()
    gc.disable()
    try:
        seen = []

        def main():
            seen.append(weakref.ref(current_task()))
            with pytest.raises(ZeroDivisionError):
                yield from spawn(lambda: (1 / 0 for _ in [1]))

        run(main, trace=Trace(lambda event: None))
        assert seen[0]() is None or gc.collect() >= 0
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")
def test_a_selector_that_fails_has_reported_nothing_and_is_made_anew():
    made = []

    def make():
        made.append(default_selector())
        if len(made) == 1:
            closed = select.epoll()
            closed.close()
            made[0].pairs = closed.poll
        return made[-1]

    trace = traced(sleeper, 0.01, clock=time.monotonic, selector=make)
    assert trace.left is None
    assert len(made) > 2
    assert of(trace, "polled")[0] == {"files": [], "count": 0}
    assert len(of(trace, "poll")) == len(of(trace, "polled"))


def test_a_ready_queue_of_the_programs_own_decides():
    class Stack(list):
        popleft = list.pop

    order = []

    def child(n):
        order.append(n)
        yield

    def main():
        for n in range(3):
            spawn(child, n)
        yield

    trace = traced(main, ready=Stack)
    assert order == [2, 1, 0]
    assert [event["task"] for event in of(trace, "step")][2:4] != [2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # idle ones of others
def test_a_forked_child_is_nobodys_trace(tmp_path):
    def main():
        pid = os.fork()
        if pid == 0:
            try:
                yield
            finally:
                os._exit(0 if not methods_are_swapped() else 1)
        yield
        assert os.waitpid(pid, 0)[1] == 0

    trace = traced(main, trace=Trace(tmp_path / "out.jsonl"))
    assert trace.left is None
    text = (tmp_path / "out.jsonl").read_text()
    assert text.count('"kind":"end"') == 1


# Where events go ----------------------------------------------------------------------------------


def test_a_callable_gets_each_event_and_one_that_fails_ends_the_trace(caplog):
    got = []
    assert run(sleeper, 0, "value", trace=got.append) == "value"
    assert [event[0] for event in got][-1] == "end"
    assert all(len(event) == 2 + len(EVENTS[event[0]]) for event in got)

    begun = []
    scheduler = Trace(begun.append).scheduler()
    scheduler.spawn(turns, 1)
    scheduler.turn(0)
    scheduler.close()
    assert [event[0] for event in begun][:3] == ["spawn", "wake", "run"]

    seen = []

    def fails(event):
        seen.append(event[0])
        if event[0] == "step":
            raise ValueError("no more")

    with caplog.at_level(logging.ERROR, "corolib.trace"):
        assert run(sleeper, 0, "value", trace=fails) == "value"
    assert len(caplog.records) == 1
    assert "fails" in caplog.messages[0]
    assert "the program goes on" in caplog.text
    assert seen[-1] == "step"


def test_source_that_cannot_be_read_is_left_out(tmp_path, monkeypatch):
    def fails(file):
        raise OSError("no file is free")

    monkeypatch.setattr("linecache.getlines", fails)
    assert run(sleeper, 0, "value", trace=tmp_path / "out.jsonl") == "value"
    assert (tmp_path / "out.jsonl").read_text().endswith('{"source":{}}\n')


def test_of_a_step_without_end_the_last_events_are_kept_too():
    def main():
        for number in range(1000):
            mark("again", number=number)
        return len(trace.kept)
        yield

    trace = Trace(last=50)
    assert run(main, trace=trace) <= 200
    assert len(trace.events) == 50
    assert trace.events[-1]["i"] == trace.header["dropped"] + 49


def test_what_is_no_place_for_a_trace_is_refused_before_the_run(tmp_path):
    for to in ("out.txt", "out", tmp_path / "x.png"):
        with pytest.raises(ValueError, match=r"\.html.*\.jsonl.*\.json"):
            run(sleeper, 0, trace=to)
    with pytest.raises(ValueError, match="no folder"):
        run(sleeper, 0, trace=tmp_path / "nowhere" / "out.html")
    with pytest.raises(TypeError, match="trace=17"):
        run(sleeper, 0, trace=17)
    with pytest.raises(ValueError, match="last="):
        Trace(last=0)


def test_the_last_events_are_kept_and_the_names_of_all_that_they_speak_of():
    def main():
        keeper = spawn(sleeper, 1000, name="keeper")
        for _ in range(300):
            yield from spawn(sleeper, 1)
        yield from keeper

    trace = traced(main, trace=Trace(last=50))
    events, header = trace.events, trace.header
    assert len(events) == 50
    assert [event["i"] for event in events] == list(
        range(header["dropped"], header["dropped"] + 50)
    )
    assert len(header["tasks"]) < 160
    state = replay(events, events[0]["i"], header["tasks"])
    assert state.task(1).name == "main"
    assert state.task(2).label == "keeper#2"
    assert state.task(2).state == "unknown"
    assert state.task(2000).label == "?#2000"
    assert replay(events, events[-1]["i"], header["tasks"]).task(2).state == "done"


ENVIRONMENT = """
import corolib, sys
def main():
    yield
assert "corolib.trace" not in sys.modules
corolib.run(main)
assert "corolib.trace" in sys.modules
try:
    corolib.run(main, trace=None)
    corolib.run(lambda: (1 / 0 for _ in [1]))
except ZeroDivisionError:
    pass
"""


def test_the_environment_has_the_default(tmp_path, monkeypatch):
    to = tmp_path / "out-%p.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", ENVIRONMENT],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COROLIB_TRACE": str(to)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert names[0].endswith("-2.jsonl")
    monkeypatch.setattr(DEFAULT_TRACE, "trace", str(tmp_path / "nowhere" / "out.html"))
    with pytest.raises(ValueError, match=r"^COROLIB_TRACE in the environment: trace=.*no folder"):
        run(sleeper, 0)
    second = (tmp_path / names[0]).read_text().splitlines()
    assert any('"reason":"ZeroDivisionError"' in line for line in second)


def test_threads_without_the_module_have_no_name(monkeypatch):
    from corolib.trace import recorder

    monkeypatch.setitem(sys.modules, "threading", None)
    assert recorder.name_of_thread() == "?"
    monkeypatch.undo()
    assert recorder.name_of_thread() == threading.current_thread().name


def test_a_wake_of_a_task_that_is_done_is_noted_and_ends_nothing():
    """As of one that a signal handler cancels while it is given a lock."""

    def main():
        task = spawn(turns, 1)
        yield from task
        current_scheduler().woken(task)

    last = [each for each in traced(main).events if each["kind"] == "wake"][-1]
    assert (last["task"], last["why"]) == (2, "other")
