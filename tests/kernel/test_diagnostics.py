"""What is found, put into words: who, what, where, and what to write instead; and failures that
nobody takes.
"""

import asyncio
import concurrent.futures
import contextlib
import gc
import logging
import math
import random
import re

import pytest

import corolib
from corolib import (
    BusyError,
    Deadlock,
    ReadWait,
    Scheduler,
    Sleep,
    Stream,
    Suspend,
    WriteWait,
    current_scheduler,
    current_task,
    now,
    run,
    shield,
    spawn,
    timeout,
    waits,
)
from corolib.testing import virtual_time
from tests.helpers.driving import FULL, failing, go, line, sleeper, turn
from tests.helpers.inside import at_yield
from tests.helpers.programs import python

# What a task yields -------------------------------------------------------------------------------


def complaint(f):
    """Run `f`; return what the TypeError that it gets at its `yield` says."""
    with pytest.raises(TypeError) as caught:
        go(f)
    return str(caught.value)


@pytest.mark.hazard("H45")
def test_a_generator_yielded():
    def main():
        x = yield sleeper()
        return x

    assert complaint(main) == (
        f"task main#1 at {line(main, 1)} did `x = yield sleeper()`: that hands the scheduler the "
        "generator sleeper() instead of running it. Write `x = yield from sleeper()`"
    )


@waits
def marked():
    yield Sleep(1)


@pytest.mark.hazard("H45")
def test_a_marked_generator_yielded_says_the_same_and_nothing_more():
    def main():
        yield marked()

    assert complaint(main) == (
        f"task main#1 at {line(main, 1)} did `yield marked()`: that hands the scheduler the "
        "generator marked() instead of running it. Write `yield from marked()`"
    )
    gc.collect()


@pytest.mark.hazard("H45")
def test_a_generator_yielded_on_a_line_that_does_not_show_it():
    def main():
        x = yield (sleeper())
        return x

    def other():
        thing = sleeper()
        yield (thing)

    assert "instead of running it. Write `" in complaint(main)
    assert "did `yield (thing)`" in complaint(other)


def test_a_generator_yielded_by_code_without_a_source():
    names = {"sleeper": sleeper}
    exec("def main():\n    x = yield sleeper()\n    return x\n", names)
    assert complaint(names["main"]) == (
        "task main#1 at <string>:2 did `yield sleeper()`: that hands the scheduler the generator "
        "sleeper() instead of running it. Write `yield from sleeper()`"
    )


def test_a_line_of_source_that_cannot_be_read_is_left_out(monkeypatch):
    import linecache

    def no_file_is_free(filename):
        raise OSError("no file is free")

    def slow():
        yield

    def main():
        try:
            yield slow()
        except TypeError as exc:
            return str(exc)

    with monkeypatch.context() as patch:
        patch.setattr(linecache, "getlines", no_file_is_free)
        text = run(main)
    assert "did `yield slow()`" in text
    assert text.endswith("Write `yield from slow()`")


def test_the_yield_that_hands_something_over_is_found_in_a_line():
    def several():
        said = "yield"; yield 1; x = [(yield 2), said]  # fmt: skip  # noqa: E702
        yield [
            "it has several lines",
        ]
        return x

    frames = several()
    next(frames)
    behind = "1; x = [(yield 2), said]  # fmt: skip  # noqa: E702"
    assert at_yield(frames.gi_frame) == ('said = "yield"; ', f" {behind}")
    next(frames)
    behind = "2), said]  # fmt: skip  # noqa: E702"
    assert at_yield(frames.gi_frame) == ('said = "yield"; yield 1; x = [(', f" {behind}")
    next(frames)
    assert at_yield(frames.gi_frame) == ("", "")  # it has several lines
    assert at_yield(None) == ("", "")
    names = {}
    exec("def unknown(): yield 1", names)
    frames = names["unknown"]()
    next(frames)
    assert at_yield(frames.gi_frame) == ("", "")
    # A file that has changed meanwhile.
    code = compile("def unknown(): yield 1", __file__, "exec")
    exec(code, names)
    frames = names["unknown"]()
    next(frames)
    assert at_yield(frames.gi_frame) == ("", "")


async def coroutine():
    await Sleep(1)


def test_a_coroutine_yielded():
    def main():
        yield coroutine()

    text = complaint(main)
    assert "the coroutine coroutine() instead of running it" in text
    assert text.endswith("Write `yield from spawn(coroutine())`")
    gc.collect()


def test_a_generator_that_has_begun_is_left_alone():
    log = []

    def half_way():
        try:
            yield "first"
            yield "second"
        finally:
            log.append("closed")

    def main():
        other = half_way()
        next(other)
        with pytest.raises(TypeError, match="instead of running it"):
            yield other
        assert log == [] and next(other) == "second"
        with pytest.raises(TypeError, match="instead of running it"):
            yield itself
        yield Sleep(1)
        return "fine"

    itself = main()
    assert go(itself) == "fine"


class Fileno:
    def fileno(self):
        return 0

    def __repr__(self):
        return "<a file>"


class Awaitable:
    def __await__(self):
        yield

    def __repr__(self):
        return "<an awaitable>"


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (0.5, "0.5, which is not a trap. Did you mean `yield Sleep(0.5)`?"),
        (5, "5, which is not a trap. Did you mean `yield Sleep(5)`?"),
        (True, "True, which is not a trap. A task yields ReadWait, WriteWait, Sleep, Suspend, or"),
        ("x", "'x', which is not a trap. A task yields ReadWait, WriteWait, Sleep, Suspend, or"),
        (Sleep, "Did you mean `yield Sleep(...)`, an instance of it?"),
        (ReadWait, "Did you mean `yield ReadWait(...)`, an instance of it?"),
        (len, "<built-in function len>, which is not a trap. Was it to be called?"),
        (Fileno(), "<a file>, which is not a trap. Did you mean `yield ReadWait(...)` or"),
        (Awaitable(), "In a generator, an `async def` is called with `yield from spawn(f, *args)`"),
        (concurrent.futures.Future(), "Write `yield from wait_future(...)`"),
        ("x" * 1000, "'" + "x" * 96 + "..., which is not a trap"),
    ],
    ids=lambda value: re.sub(" at 0x.*", "", str(value))[:20],
)
def test_other_things_yielded(thing, text):
    def main():
        yield thing

    said = complaint(main)
    assert said.startswith(f"task main#1 at {line(main, 1)} yielded ")
    assert text in said


def test_a_task_yielded():
    def main():
        yield spawn(sleeper)

    assert complaint(main).endswith("Write `yield from` in front of it")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (corolib.Event, "Did you mean `yield from event.wait()`?"),
        (lambda: corolib.Barrier(2), "Did you mean `yield from barrier.wait()`?"),
        (lambda: corolib.Queue(1), "Did you mean `yield from queue.get()`?"),
        (lambda: corolib.PriorityQueue(1), "Did you mean `yield from queue.get()`?"),
        (corolib.Lock, "Write `yield from` in front of it"),
        (corolib.Condition, "Write `yield from` in front of it"),
        (corolib.Result, "Write `yield from` in front of it"),
        (
            lambda: corolib.Topic(1),
            "A task yields ReadWait, WriteWait, Sleep, Suspend, or nothing. What it gives back "
            "stands after `return`",
        ),
    ],
)
def test_what_is_waited_for_by_a_method_yielded_itself(make, text):
    def main():
        yield make()

    assert complaint(main).endswith(f"which is not a trap. {text}")


def test_a_thing_yielded_whose_repr_fails():
    class Nasty:
        def __repr__(self):
            raise ValueError

    def main():
        yield Nasty()

    assert "yielded a Nasty (whose repr fails), which is not a trap" in complaint(main)


@pytest.mark.parametrize(("length", "shown"), [(100, "x" * 100), (101, "x" * 97 + "...")])
def test_a_thing_yielded_whose_repr_is_long(length, shown):
    class Long:
        def __repr__(self):
            return "x" * length

    def main():
        yield Long()

    assert f" yielded {shown}, which is not a trap" in complaint(main)


def test_a_wrong_yield_in_a_delegate_names_its_line():
    def inner():
        yield 5

    def main():
        yield from inner()

    assert complaint(main).startswith(f"task main#1 at {line(inner, 1)} yielded 5")


def test_a_wrong_yield_of_a_body_without_frames_is_named_by_its_spawn():
    class Body:
        """As good as a generator, written in C, say."""

        def send(self, value):
            return 5

        def throw(self, error):
            raise error

        def close(self):
            pass

    with pytest.raises(TypeError, match=r"task Body#1 at its end \(spawned at .* yielded 5"):
        run(Body())


def test_a_future_of_asyncio_is_refused():
    loop = asyncio.new_event_loop()
    try:
        future = loop.create_future()

        async def awaits():
            await future

        def yields():
            yield future

        for f in (awaits, yields):
            with pytest.raises(TypeError, match=r"It is asyncio's, and corolib cannot wait for it"):
                go(f)
    finally:
        loop.close()


def test_asyncio_sleep_is_refused_or_fails_in_the_task():
    async def main():
        with pytest.raises((RuntimeError, TypeError)):
            await asyncio.sleep(1)
        await asyncio.sleep(0)  # a bare yield, here as there
        await Sleep(1)
        return "fine"

    assert go(main) == "fine"


class NastyMeta(type):
    def __hash__(cls):
        raise ValueError("hash")

    def __eq__(cls, other):
        raise ValueError("eq")


def nasty_things():
    """Return objects whose every method fails, and some that lie."""

    def fail(*args):
        raise ValueError("nasty")

    names = ("__repr__", "__str__", "__eq__", "__hash__", "__bool__", "__getattr__", "__iter__")
    names += ("__len__", "__call__", "__format__")
    things = [type("Nasty", (), {name: fail})() for name in names]
    things.append(type("AllNasty", (), dict.fromkeys(names, fail))())
    things.append(type("NastyClass", (), {"__class__": property(fail)})())
    things.append(type("NastyFile", (), {"fileno": property(fail)})())
    things.append(type("NastyAwait", (), {"__await__": property(fail)})())
    things.append(NastyMeta("Meta", (), {})())
    things.append(NastyMeta("MetaItself", (), {}))
    things.append(type("Nameless", (), {"__module__": 5})())
    return things


class LyingMeta(type):
    """Claims to be a trap."""

    def __hash__(cls):
        return hash(Sleep)

    def __eq__(cls, other):
        return True


def wrong_traps():
    """Return traps made of wrong things."""

    def changed(trap, name, thing):
        setattr(trap, name, thing)
        return trap

    yield LyingMeta("Liar", (), {})()
    for thing in nasty_things():
        yield ReadWait(thing)
        yield WriteWait(thing)
        yield changed(Suspend(list, "x"), "arm", thing)
    for thing in (None, "x", b"x", 1.5, -1, True, 2**31, 2**100, 10**9, [], ()):
        yield ReadWait(thing)
        yield WriteWait(thing)
        yield changed(Suspend(list, "x"), "arm", thing)
    yield changed(Sleep(1), "seconds", "x")


@pytest.mark.hazard("H44")
def test_thousands_of_wrong_yields_and_the_ticker_never_misses():
    """Each is an error in the task; no turn is lost, and a sleeper is stepped when it is due."""
    draw = random.Random(44)
    fixed = [5, -1.5, "x", b"x", True, Sleep, ValueError, ValueError("x"), (), [], {}, object()]
    fixed += [len, int, lambda: None, Ellipsis, NotImplemented, range(3), 1j, *nasty_things()]
    traps = list(wrong_traps())
    makers = [
        lambda: draw.choice(fixed),
        lambda: draw.choice(fixed),
        sleeper,
        marked,
        coroutine,
        lambda: draw.random(),
        lambda: draw.getrandbits(70),
        lambda: draw.randbytes(5),
        lambda: [draw.random()],
    ]
    ticks, count = [], 10_000 if FULL else 2_000

    def fuzz():
        for n in range(count):
            wrong_trap = n % 10 == 0
            thing = draw.choice(traps) if wrong_trap else draw.choice(makers)()
            try:
                yield thing
            except TypeError:
                pass
            except Exception as exc:
                if not wrong_trap:
                    return type(thing).__name__, exc
            else:
                return type(thing).__name__, "not refused"
        return None

    def ticker():
        while True:
            ticks.append(turn())
            yield

    def main():
        spawn(ticker, daemon=True)
        return (yield from spawn(fuzz))

    assert go(main) is None
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
    assert len(ticks) >= count


# What spawn() and run() are given -----------------------------------------------------------------


def plain():
    return None


def test_a_function_that_returns_another_one_which_it_should_have_called():
    def main():
        yield
        spawn(lambda stream: plain, None)

    said = r"^<lambda>\(\) \(.*\) returned the function plain\(\) \(.*\), which was not called: "
    with pytest.raises(TypeError, match=said + r"write `plain\(\.\.\.\)` there$"):
        go(main)


def test_not_a_generator_function():
    def main():
        for call, name in ((spawn, "spawn"), (run, "run")):
            with pytest.raises((TypeError, RuntimeError)) as caught:
                call(plain)
            if call is spawn:
                assert str(caught.value) == (
                    f"{name}() got None from plain() ({line(plain, 0)}): it has no `yield`, so it "
                    "is not a generator function, and its body has already run"
                )
        yield

    go(main)
    with pytest.raises(
        TypeError,
        match=r"^run\(\) got None from plain\(\) \(test_diagnostics.py:\d+\): it has no `yield`",
    ):
        run(plain)


@pytest.mark.parametrize("thing", [None, 5, "x", iter(())])
def test_not_a_function_at_all(thing):
    with pytest.raises(TypeError, match=r"run\(\) got .*: give a generator function and its arg"):
        run(thing)


def test_a_nameless_function():
    import functools

    with pytest.raises(TypeError, match=r"run\(\) got None from plain\(\)"):
        run(functools.partial(plain))


async def async_generator():
    yield 1


def test_an_async_generator_function():
    with pytest.raises(
        TypeError,
        match=r"an async generator from async_generator\(\) \(test_\w+.py:\d+\): it has both",
    ):
        run(async_generator)
    with pytest.raises(TypeError, match=r"an async generator from async_gen.*`await Sleep\(1\)`$"):
        run(async_generator())


@pytest.mark.parametrize("f", [sleeper, coroutine])
def test_a_call_that_was_started_before(f):
    body = f()
    body.send(None)
    with pytest.raises(RuntimeError, match=rf"run\(\) got {f.__name__}\(\), which was started bef"):
        run(body)
    body.close()
    with pytest.raises(RuntimeError, match="which was started before: make a new one"):
        run(body)


def test_a_call_and_arguments():
    with pytest.raises(TypeError, match=r"a started call and arguments: write `run\(f, x\)`"):
        run(sleeper(), 1)


def test_unknown_keywords():
    def main():
        with pytest.raises(TypeError) as caught:
            spawn(sleeper, key=1)
        assert str(caught.value) == (
            "spawn() has no keyword 'key': its keywords are the scheduler's own. "
            "If 'key' is for sleeper(), write `spawn(sleeper(..., key=...))`"
        )
        yield

    go(main)
    with pytest.raises(
        TypeError, match=r"^run\(\) has no keyword 'key'.*`run\(sleeper\(\.\.\., key="
    ):
        run(sleeper, key=1)


# Who waits already --------------------------------------------------------------------------------


def test_two_readers_name_the_first_and_its_line(pair):
    a, _ = pair

    def reader():
        yield ReadWait(a)

    def main():
        first = spawn(reader)
        yield
        with pytest.raises(RuntimeError) as caught:
            yield ReadWait(a)
        assert type(caught.value).__name__ == "BusyError"
        assert str(caught.value) == (
            f"ReadWait(<socket fd={a.fileno()}>): task reader#2 ({line(reader, 1)}) is already "
            "waiting to read this file. Let one task do that for all"
        )
        first.cancel()
        yield

    go(main)


def test_a_call_of_the_librarys_is_found_where_it_was_spawned(pair):
    """It stands in no line of the program's, and where it stands in the library helps nobody."""

    def main():
        with Stream(pair[0]) as stream:
            task = spawn(stream.recv(9))
            yield
            yield
            said = []
            for again in (stream.recv(9), ReadWait(pair[0])):
                with pytest.raises(BusyError) as caught:
                    yield from again
                said.append(str(caught.value))
            yield from task.stop()
            return said

    line = main.__code__.co_firstlineno + 2
    for text in run(main):
        assert f"task recv#2 (a call spawned at test_diagnostics.py:{line}) is" in text


# Looking at tasks ---------------------------------------------------------------------------------


def test_report_shows_families_waits_places_and_frames():
    def inner():
        yield Sleep(5)

    def child():
        yield from inner()

    def completing():
        spawn(sleeper, name="last")
        return
        yield

    def main():
        tasks = spawn(child, name="a"), spawn(child, name="b", daemon=True), spawn(completing)
        yield
        yield
        text = current_scheduler().report().splitlines()
        assert text[0] == repr(current_scheduler())
        body = f"{__file__}:{inner.__code__.co_firstlineno + 1}"
        assert text[1] == f"  main#1  running  spawned at {current_task().spawned_at}"
        assert f"    a#2  Sleep(5.0)  spawned at {tasks[0].spawned_at}" in text
        assert f"    b#3 (daemon)  Sleep(5.0)  spawned at {tasks[1].spawned_at}" in text
        assert f"        in inner at {body}" in text
        assert any(row.startswith("    completing#4  completing, waits for last#5") for row in text)
        assert any(row.startswith("      last#5  Sleep(1.0)") for row in text)
        assert repr(current_scheduler()) == "<Scheduler 5 tasks, 0 ready, 3 timers, 0 files>"
        stats = current_scheduler().stats()
        assert (stats["tasks"], stats["ready"], stats["timers"], stats["spawned"]) == (5, 0, 3, 5)

    go(main)


def test_a_report_survives_things_that_cannot_be_shown():
    class Nasty:
        def __str__(self):
            raise ValueError("nasty")

        __repr__ = __str__

    def child():
        yield Suspend(lambda wake: list, Nasty(), outside=True)

    def main():
        task = spawn(child)
        yield
        yield
        assert "child#2" in current_scheduler().report()
        assert "child#2" in repr(task)
        task.cancel()
        yield

    go(main)


class Graph:
    """Tasks of which each waits for others: `edges` says by name for whom, and counts the asking.

    `asleep` sleeps, and None stands for what nobody knows.
    """

    def __init__(self, edges):
        self.edges = edges
        self.tasks = {None: None}
        self.asked = 0

    def wait_for(self, name):
        def holder():
            self.asked += 1
            return [self.tasks[each] for each in self.edges[name]]

        return Suspend(lambda wake: list, f"what {name} waits for", holder=holder)

    def wait(self, name):
        yield self.wait_for(name)

    def lost(self, **waits):
        """Return who, in a report, can never go on. `waits` are other functions to wait with."""

        def main():
            self.tasks["asleep"] = spawn(sleeper, 100)
            for name in self.edges:
                self.tasks[name] = spawn(waits.get(name, self.wait), name, name=name)
            yield
            yield
            lines = current_scheduler().report().splitlines()
            for task in current_task().children:
                task.cancel()
            head = "can never go on, though others run:"
            return lines[lines.index(head) + 1 :] if head in lines else []

        return [row.split("#")[0].strip() for row in run(main, **virtual_time())]


@pytest.mark.found("T15")
@pytest.mark.parametrize(
    ("edges", "lost"),
    [
        ({"a": "b", "b": "a"}, ["a", "b", "cycle: a"]),
        ({"a": "b", "b": "a", "c": "b", "d": "c"}, ["a", "b", "c", "d", "cycle: a"]),
        ({"c": "ab", "a": "b", "b": "a"}, ["c", "a", "b", "cycle: a"]),
        ({"a": "b", "b": ["a", "asleep"], "c": "a"}, []),
        ({"a": "b", "b": ["a", None], "c": "a"}, []),
        ({"a": "b", "b": ["asleep"]}, []),
        ({"a": "b", "b": []}, []),
    ],
)
def test_a_report_tells_who_can_never_go_on_though_others_run(edges, lost):
    assert Graph(edges).lost() == lost


def with_a_deadline(graph, name):
    with contextlib.suppress(TimeoutError), timeout(50), shield():
        yield graph.wait_for(name)


def in_a_parent_with_a_deadline(graph, name):
    with timeout(50):
        graph.tasks[name] = task = spawn(graph.wait, name)
        yield from task


def outside(graph, name):
    trap = graph.wait_for(name)
    yield Suspend(trap.arm, trap.what, holder=trap.holder, outside=True)


def cancelled_in_a_shield(graph, name):
    current_task().cancel()
    with shield(50):
        yield graph.wait_for(name)


@pytest.mark.found("T15")
@pytest.mark.parametrize(
    "wait", [with_a_deadline, in_a_parent_with_a_deadline, outside, cancelled_in_a_shield]
)
def test_who_may_yet_be_cut_short_or_woken_from_outside_is_not_lost(wait):
    graph = Graph({"a": "b", "b": "a"})
    assert graph.lost(b=lambda name: wait(graph, name)) == []


@pytest.mark.found("T15")
def test_a_block_without_an_end_saves_nobody():
    def without_end(name):
        with timeout(None), timeout(math.inf), shield():
            yield graph.wait_for(name)

    graph = Graph({"a": "b", "b": "a"})
    assert graph.lost(b=without_end) == ["a", "b", "cycle: a"]


@pytest.mark.found("T15")
@pytest.mark.parametrize("end", ["0", "asleep"])
def test_who_is_lost_is_found_by_asking_each_a_few_times(end):
    graph = Graph({"0": [end]} | {str(n): [str(n - 1)] for n in range(1, 300)})
    assert len(graph.lost()) == (301 if end == "0" else 0)
    assert graph.asked <= 5 * 300


# Failures that nobody takes -----------------------------------------------------------------------


@pytest.mark.hazard("H48")
def test_a_failure_waits_for_the_children_and_is_reported_when_the_task_is_done():
    lost = []

    def child():
        try:
            yield Sleep(100)
        finally:
            yield Sleep(0.5)

    def parent():
        spawn(child)
        yield Sleep(1)
        raise ValueError("x")

    def main():
        spawn(parent)
        yield Sleep(5)

    go(main, on_task_error=lambda task, exc: lost.append((task.name, now())))
    assert lost == [("parent", 1.5)]


def test_the_failure_of_a_task_whose_joiner_has_gone_is_reported():
    lost = []

    def late():
        yield Sleep(2)
        raise ValueError("late")

    def joiner(task):
        yield from task

    def main():
        task = spawn(late)
        joining = spawn(joiner, task)
        yield Sleep(1)
        yield from joining.stop()
        yield Sleep(5)

    go(main, on_task_error=lambda task, exc: lost.append((task.name, str(exc))))
    assert lost == [("late", "late")]


def test_a_failure_stops_no_unrelated_task():
    log = []

    def other():
        for n in range(5):
            yield Sleep(1)
            log.append(n)

    def main():
        spawn(other)
        spawn(failing, 0, ValueError("x"))
        yield Sleep(10)
        return "fine"

    assert go(main, on_task_error=lambda task, exc: None) == "fine"
    assert log == [0, 1, 2, 3, 4]


def test_by_default_a_failure_is_logged_with_name_place_and_traceback(caplog):
    def main():
        spawn(failing, 0, ValueError("the text"))
        yield Sleep(1)

    run(main, **virtual_time())
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("corolib.task", logging.ERROR)
    place = f"{__file__}:{main.__code__.co_firstlineno + 1}"
    assert record.getMessage() == f"task failing#2, spawned at {place}, failed"
    assert isinstance(record.exc_info[1], ValueError)
    assert "the text" in caplog.text and "in failing" in caplog.text
    assert "scheduler.py" not in caplog.text.split("Traceback")[1]
    assert logging.getLogger("corolib").handlers == []
    assert logging.getLogger("corolib.task").handlers == []


def test_by_default_the_failure_of_a_callback_is_logged_too(caplog):
    def fail(arg):
        raise ValueError(arg)

    def main():
        current_scheduler().call_at(1, fail, "from a timer")
        current_scheduler().call_soon_threadsafe(fail, "from a call")
        yield Sleep(2)
        return "fine"

    assert run(main, **virtual_time()) == "fine"
    assert [str(r.exc_info[1]) for r in caplog.records] == ["from a call", "from a timer"]


def test_without_a_main_task_the_failure_belongs_to_a_callback(caplog):
    scheduler = Scheduler(**virtual_time())
    scheduler.call_soon_threadsafe(int, "x")
    scheduler.turn(0)
    scheduler.close()
    (record,) = caplog.records
    assert record.getMessage() == "a callback failed"


def test_a_call_that_comes_when_the_run_has_ended_is_no_failure(caplog):
    """A timer's or a thread's call that the end has overtaken: nothing went wrong in it."""
    scheduler = Scheduler()
    scheduler.close()
    scheduler.call(scheduler.spawn, (sleeper,))
    assert not caplog.records


def test_a_hook_that_raises_puts_both_on_stderr_and_the_loop_goes_on(capsys):
    def hook(task, exc):
        raise KeyError("from the hook")

    def main():
        spawn(failing, 0, ValueError("from the task"))
        yield Sleep(1)
        return "fine"

    assert go(main, on_task_error=hook) == "fine"
    err = capsys.readouterr().err
    assert "ValueError: from the task" in err and "KeyError: 'from the hook'" in err


def test_a_hook_may_spawn_and_what_it_spawns_belongs_to_main():
    log = []

    def alert(text):
        yield Sleep(1)
        log.append((text, current_task().parent.name))

    def hook(task, exc):
        with pytest.raises(RuntimeError, match="between two steps"):
            current_task()
        spawn(alert, str(exc))

    def main():
        spawn(failing, 0, ValueError("x"))
        yield Sleep(5)

    go(main, on_task_error=hook)
    assert log == [("x", "main")]


# Deadlocks ----------------------------------------------------------------------------------------


class Lock:
    """The least of a lock: who holds it, and who waits."""

    def __init__(self, name):
        self.name = name
        self.owner = None
        self.waiters = []

    def acquire(self):
        task = current_task()
        if self.owner is not None:
            yield Suspend(self.queue_up, f"acquire <Lock {self.name}>", holder=lambda: [self.owner])
        self.owner = task

    def queue_up(self, wake):
        self.waiters.append(wake)
        return lambda: self.waiters.remove(wake)


@pytest.mark.hazard("H54")
def test_two_locks_taken_crosswise():
    a, b = Lock("A"), Lock("B")

    def left():
        yield from a.acquire()
        yield
        yield from b.acquire()

    def right():
        yield from b.acquire()
        yield
        yield from a.acquire()

    def main():
        tasks = spawn(left), spawn(right)
        for task in tasks:
            yield from task

    with pytest.raises(Deadlock) as caught:
        go(main)
    assert str(caught.value).splitlines() == [
        "no task can ever run again:",
        f"  main#1   join left#2                          at main ({line(main, 3)})",
        f"  left#2   acquire <Lock B>  (held by right#3)  at acquire ({line(Lock.acquire, 3)})",
        f"  right#3  acquire <Lock A>  (held by left#2)   at acquire ({line(Lock.acquire, 3)})",
        "  cycle: left#2 -> right#3 -> left#2",
        "  (if a thread or a signal handler of yours will wake one of them, say so: "
        "`with current_scheduler().hold():`)",
    ]


def test_workers_that_are_left_without_work_are_told_how_to_end_with_the_others():
    def worker():
        yield Suspend(lambda wake: list, "get from <Queue>")

    def main(workers):
        for _ in range(workers):
            spawn(worker)
        yield

    with pytest.raises(Deadlock) as caught:
        go(main, 1)
    assert "may end with them: `spawn(f, daemon=True)`" in str(caught.value)
    with pytest.raises(Deadlock) as caught:
        go(worker)
    assert "daemon" not in str(caught.value)


@pytest.mark.hazard("H54")
def test_a_wait_alone_is_a_deadlock_and_says_where():
    def main():
        yield Suspend(lambda wake: list, "wait <Event>")

    with pytest.raises(Deadlock) as caught:
        go(main)
    rows = str(caught.value).splitlines()
    assert rows[1] == f"  main#1  wait <Event>  at main ({line(main, 1)})"
    assert len(rows) == 3  # no cycle


@pytest.mark.hazard("H54")
def test_a_main_that_waits_for_its_children_is_shown():
    def child():
        yield Suspend(lambda wake: list, "wait <Event>")

    def main():
        spawn(child)
        return
        yield

    with pytest.raises(Deadlock, match=r"main#1   completing, waits for child#2"):
        go(main)


@pytest.mark.parametrize(
    ("count", "named"),
    [(5, "a#2, a#3, a#4, a#5, a#6  "), (7, "a#2, a#3, a#4, a#5, a#6 and 2 more  ")],
)
def test_of_many_children_the_first_five_are_named(count, named):
    def a():
        yield Suspend(lambda wake: list, "x")

    def main():
        for _ in range(count):
            spawn(a)
        return
        yield

    with pytest.raises(Deadlock) as caught:
        go(main)
    assert f"completing, waits for {named}" in str(caught.value)


@pytest.mark.hazard("H54")
def test_no_deadlock_while_something_outside_may_wake():
    """A wait marked `outside`, `hold()`, a timer, a call that is due: all of them may."""

    def outside():
        yield Suspend(later, "x", outside=True)

    def later(wake):
        import threading

        thread = threading.Thread(target=wake)
        thread.start()
        return thread.join

    def held():
        with current_scheduler().hold():
            yield Suspend(later, "x")

    def timer():
        yield Suspend(lambda wake: current_scheduler().call_at(5, wake, None) and list, "x")

    def call():
        scheduler = current_scheduler()
        yield Suspend(lambda wake: scheduler.call_soon_threadsafe(wake) or list, "x")

    for f in (outside, held, timer, call):
        go(f)


@pytest.mark.hazard("H54")
def test_hold_ends_with_its_block():
    def main():
        with current_scheduler().hold():
            yield
        yield Suspend(lambda wake: list, "x")

    with pytest.raises(Deadlock):
        go(main)


def test_a_deadlock_report_survives_a_holder_and_a_name_that_fail():
    log = []

    def fail():
        raise ValueError("nasty")

    class Nasty:
        __str__ = __repr__ = lambda self: fail()

    def child(what, holder):
        try:
            yield Suspend(lambda wake: list, what, holder=holder)
        finally:
            log.append("cleaned")

    def main():
        spawn(child, Nasty(), None)
        spawn(child, "x", fail)
        spawn(child, "x", lambda: 5)
        spawn(child, "x", lambda: [[5]])
        return
        yield

    with pytest.raises(Deadlock, match="no task can ever run again"):
        go(main)
    assert log == ["cleaned"] * 4


def test_a_long_chain_without_a_cycle_is_looked_through():
    def link(n):
        if n:
            yield from spawn(link, n - 1)
        else:
            yield Suspend(lambda wake: list, "the end")

    with pytest.raises(Deadlock) as caught:
        go(link, 50)
    assert "cycle" not in str(caught.value) and "the end" in str(caught.value)


def test_the_report_of_a_large_deadlock_stays_small():
    def stuck():
        yield Suspend(lambda wake: int, "a wake that never comes")

    def main():
        for _ in range(1000):
            spawn(stuck)
        yield

    with pytest.raises(Deadlock) as info:
        run(main)
    text = str(info.value)
    assert "main#1" in text
    assert "and 995 more" in text
    assert len(text) < 1000 * 150


# Text in proportion -------------------------------------------------------------------------------


def successors(depth):
    """Run a task that spawns its successor and ends, and so on; return the report of the last."""
    texts = []

    def link(left):
        yield
        if left:
            spawn(link, left - 1)
        else:
            texts.append(current_scheduler().report())

    go(link, depth)
    return texts[0]


@pytest.mark.found("T10")
def test_the_report_of_a_long_chain_of_tasks_is_short():
    text = successors(20_000)
    assert "(19997 more, each the parent of the next)" in text
    assert len(text) < 2000
    assert text.count("completing") == 3
    assert "link#20001  running" in text


@pytest.mark.found("T10")
def test_a_short_chain_of_tasks_is_shown_whole():
    text = successors(3)
    assert text.count("completing") == 3
    assert "more" not in text


@pytest.mark.found("T10")
def test_a_family_of_many_levels_has_a_margin_that_ends_somewhere():
    """What grows with the square of the depth is no text that anybody reads."""
    lengths = []

    def level(left):
        if left:
            yield from spawn(level, left - 1)
        else:
            lengths.append(len(current_scheduler().report()))
            yield

    for depth in (100, 200, 400):
        go(level, depth)
    assert lengths[2] - lengths[1] < 2.1 * (lengths[1] - lengths[0])


@pytest.mark.found("T10")
def test_two_chains_are_counted_apart():
    def main():
        for _ in range(2):
            spawn(link, 10)
        yield Sleep(1)
        return current_scheduler().report()

    def link(left):
        yield
        if left:
            spawn(link, left - 1)
        else:
            yield Sleep(5)

    assert go(main).count("(7 more, each the parent of the next)") == 2


def test_a_long_name_does_not_widen_the_lines_of_the_others():
    def main():
        spawn(Suspend(lambda wake: int, "nothing").__iter__(), name="x" * 5000)
        for _ in range(100):
            spawn(Suspend(lambda wake: int, "nothing").__iter__())
        yield

    with pytest.raises(Deadlock) as info:
        run(main)
    assert len(str(info.value)) < 2 * 5000 + 103 * 300


def test_a_holder_is_named_beside_one_whose_label_begins_alike():
    """`w#1` is not named by a line that names `w#10`."""

    def waits_for(holder):
        yield Suspend(lambda wake: int, "the lock of w#10", holder=lambda: [holder])

    def w():
        yield from spawn(waits_for, current_task())

    with pytest.raises(Deadlock) as info:
        run(w)
    assert "(held by w#1)" in str(info.value)


# Slow steps ---------------------------------------------------------------------------------------


SLOW = """
    import corolib, logging
    from corolib.testing import virtual_time
    logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
    vt = virtual_time()
    def compute():
        yield
        vt["clock"].move(0.2)
        yield
        vt["clock"].move(0.04)
        yield
        vt["clock"].move(0.3)
    def main():
        yield from corolib.spawn(compute)
        return corolib.current_scheduler().stats()["longest_step"]
    print(corolib.run(main, **vt))
"""


@pytest.mark.found("T12")
def test_a_slow_step_of_which_nobody_can_be_told_is_no_failure_of_the_task():
    program = SLOW.replace("def main", "import sys; sys.stderr.close()\n    def main")
    status, out, _ = python(program, slow_steps=True, COROLIB_DEBUG="1")
    assert (status, round(float(out), 3)) == (0, 0.3)


@pytest.mark.hazard("H52")
def test_a_slow_step_is_named_in_debug_mode():
    _, out, err = python(SLOW, slow_steps=True, COROLIB_DEBUG="1")
    assert round(float(out), 3) == 0.3
    rows = err.splitlines()
    assert len(rows) == 2
    assert rows[0].startswith("corolib.task WARNING task compute#2 took 0.200 s for one step")
    assert "all other tasks waited meanwhile" in rows[0] and "to_thread(f)" in rows[0]
    assert rows[1].startswith("corolib.task WARNING task compute#2 took 0.300 s")
    _, out, err = python(SLOW, slow_steps=True, COROLIB_DEBUG="0")
    assert (float(out), err) == (0, "")


SLOW_HOOK = """
    import corolib, logging, time
    logging.basicConfig(format="%(message)s")
    moved = [0.0]
    def handler(stream):
        yield from stream.recv(100)
    def accept(peer):
        moved[0] += 0.2
        return True
    def main():
        with corolib.listen_tcp("127.0.0.1", 0) as listener:
            server = listener.serve(handler, accept=accept)
            with (yield from corolib.open_tcp(*listener.addresses[0])) as stream:
                yield from stream.sendall(b"x")
                yield from stream.recv(100)
            yield from server.stop()
    corolib.run(main, clock=lambda: time.monotonic() + moved[0])
"""


def test_of_a_slow_step_of_the_librarys_own_nothing_is_said_that_would_help_nobody():
    _, _, err = python(SLOW_HOOK, slow_steps=True, COROLIB_DEBUG="1")
    (row,) = [row for row in err.splitlines() if row.startswith("task serve handler#2 took 0.2")]
    assert row.endswith("all other tasks waited meanwhile")
