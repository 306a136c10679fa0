"""`Runner`, `test` and `TestCase`, without pytest's plugin; and what they are made of."""

import os
import re
import signal
import socket
import sys
import threading
import time
import unittest
from types import SimpleNamespace

import pytest

import corolib.testing
import pytest_corolib
from corolib import (
    Deadlock,
    Event,
    ReadWait,
    Sleep,
    TaskCancelled,
    current_scheduler,
    current_task,
    gather,
    now,
    run,
    shield,
    spawn,
)
from corolib.testing import Runner, TestCase, VirtualClock, fixture, give, open_files, test
from corolib.testing import runner as module
from corolib.testing.alarm import Alarm
from corolib.testing.leaks import Leaks, child_processes, describe
from corolib.testing.runner import Part, end_the_process
from tests.helpers.driving import LONG, sleeper, strike

virtual = {"clock": "virtual"}


# Runs ---------------------------------------------------------------------------------------------


def test_several_runs_on_one_scheduler_and_tasks_live_on_between_them():
    log = []

    def ticker():
        while True:
            log.append(now())
            yield Sleep(1)

    def main(seconds):
        yield Sleep(seconds)
        return now()

    with Runner(clock="virtual") as runner:
        part = Part(runner, gives_a(ticker), (), gives=True)
        part.begin()
        assert runner.run(main, 1.5) == 1.5
        assert runner.run(main, 2) == 3.5
        part.end()
    assert log == [0, 1, 2, 3]


def gives_a(child):
    """Return the fixture that has spawned a daemon, and gives its task."""

    def fixture():
        task = spawn(child, daemon=True)
        yield give(task)

    return fixture


def test_the_clock_may_be_a_function_and_the_selector_ones_own():
    clock = VirtualClock(5)
    asked = []

    def main():
        yield
        return now()

    import selectors

    def selector():
        asked.append("selector")
        return selectors.DefaultSelector()

    with Runner(clock=clock, selector=selector, grace=0.5) as runner:
        assert runner.run(main) == 5
        assert runner.scheduler.grace == 0.5
    assert asked == ["selector"]


def test_what_is_called_need_not_be_a_function():
    class Body:
        def __call__(self):
            return sleeper(5, "slept")

    with Runner(clock="virtual") as runner:
        assert runner.run(Body()) == "slept"
        assert runner.run(sleeper(1, "made before")) == "made before"
        with pytest.raises(TypeError, match="has no `yield`"):
            runner.run(lambda: None)


def test_a_run_inside_a_run_is_refused_and_nothing_is_begun():
    begun = []

    def inner():
        begun.append(1)
        yield

    def outer(runner):
        yield
        runner.run(inner)

    with Runner() as runner:
        with pytest.raises(
            RuntimeError, match=r"inner cannot begin in here: a scheduler already runs"
        ):
            runner.run(outer, runner)
    assert begun == []


def test_a_cancelled_run():
    def main():
        current_task().cancel("enough")
        yield

    with Runner() as runner, pytest.raises(TaskCancelled, match="enough"):
        runner.run(main)


def test_children_may_linger_for_any_time():
    ended = []

    def child():
        yield Sleep(1e5)
        ended.append(now())

    def main():
        spawn(child)
        yield

    with Runner(clock="virtual", linger=float("inf")) as runner:
        runner.run(main)
    assert ended == [1e5]


def test_a_failure_beside_children_who_will_not_end():
    def child():
        try:
            yield Sleep(1e5)
        finally:
            with shield(10):
                yield Sleep(2)

    def main():
        spawn(child)
        yield Sleep(1)
        raise KeyError("main")

    with Runner(clock="virtual", linger=1) as runner:
        with pytest.raises(KeyError) as caught:
            runner.run(main)
    assert any("stop it, or make it a daemon" in note for note in caught.value.__notes__)


def test_the_cycle_of_a_deadlock_beside_others_is_named():
    def hears(sock):
        yield ReadWait(sock)

    def left(tasks):
        yield
        yield from tasks[1]

    def right(tasks):
        yield
        yield from tasks[0]

    def main():
        tasks = []
        tasks += [spawn(left, tasks), spawn(right, tasks)]
        yield from gather(*tasks)

    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b:
        for options in ({}, virtual):
            with Runner(**options) as runner:
                part = Part(runner, gives_a(lambda: hears(a)), (), gives=True)
                part.begin()
                with pytest.raises(Deadlock, match=r"(?s)main#3 can never go on.*cycle: "):
                    runner.run(main)
                part.end()


def test_leaving_the_block_ends_what_was_not_ended_and_raises_what_is_left():
    log = []

    def needed(fails):
        yield give(1)
        log.append("torn down")
        if fails:
            raise LookupError("in teardown")

    with Runner() as runner:
        Part(runner, needed, (False,), gives=True).begin()
    assert log == ["torn down"]
    with pytest.raises(ExceptionGroup, match="nobody joined them") as caught, Runner() as runner:
        Part(runner, needed, (True,), gives=True).begin()
    assert str(caught.value.exceptions[0]) == "in teardown"


def test_what_nobody_took_is_a_note_of_what_leaves_the_block():
    with pytest.raises(KeyError) as caught, Runner() as runner:
        Part(runner, gives_a(sleeper), (), gives=True).begin()
        runner.scheduler.call_soon_threadsafe(lambda: 1 / 0)
        raise KeyError
    assert re.match("and nobody took .*ZeroDivisionError", caught.value.__notes__[0])


def test_a_failure_in_a_callback_when_nothing_runs():
    with pytest.raises(ExceptionGroup, match="nobody joined them"), Runner() as runner:
        runner.run(sleeper, 0)
        runner.scheduler.call_soon_threadsafe(lambda: 1 / 0)


def test_leaks_are_raised_or_are_a_note():
    kept = []

    def leaky():
        kept.append(socket.socketpair())
        yield

    with pytest.raises(AssertionError, match="left behind:\n  open file"), Runner() as runner:
        runner.run(leaky)
    with pytest.raises(KeyError) as caught, Runner() as runner:
        runner.run(leaky)
        raise KeyError
    assert "left behind:\n  open file" in caught.value.__notes__[0]
    with Runner(leaks="tasks") as runner:
        runner.run(leaky)
    for pair in kept:
        for sock in pair:
            sock.close()


def test_ctrl_c_is_raised_when_the_run_is_cleaned_up_and_the_next_one_works(default_sigint):
    log = []

    def child():
        try:
            yield Sleep(LONG)
        finally:
            log.append("child left")

    def main():
        spawn(child)
        try:
            yield
            strike()
            yield Sleep(LONG)
        finally:
            log.append("main left")

    with Runner() as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.run(main)
        assert runner.run(sleeper, 0, "as ever") == "as ever"
    assert log == ["main left", "child left"]


def test_a_second_ctrl_c_gives_up_what_does_not_end(default_sigint, capsys):
    def stubborn():
        while True:
            try:
                yield Sleep(LONG)
            finally:
                strike()
                yield Sleep(LONG)

    def main():
        yield
        strike()
        strike()

    runner = Runner()
    with pytest.raises(KeyboardInterrupt):
        runner.run(main)
    with pytest.raises(KeyboardInterrupt):
        runner.run(stubborn)
    with pytest.raises(KeyboardInterrupt):
        runner.close()
    assert "abandoned" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"clock": "lunar"}, "Runner\\(\\): clock='lunar': give 'real', 'virtual', or a function"),
        ({"leaks": "tasks sockets"}, "leaks='sockets': there are tasks, timers, files, threads"),
        ({"linger": float("nan")}, "linger="),
    ],
)
def test_options_that_cannot_be_meant(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        Runner(**options)


# The wall -----------------------------------------------------------------------------------------


def test_a_step_that_never_ends_is_told():
    told = []
    gate = threading.Event()

    def on_hang(text):
        told.append(text)
        gate.set()

    def main():
        assert gate.wait(LONG)
        yield

    module.LAST_SECONDS, before = 0.05, module.LAST_SECONDS
    try:
        with Runner() as runner:
            runner.on_hang = on_hang
            with pytest.raises(TimeoutError, match="the limit `wall`; its step was then at"):
                runner.run(waits_after(main), wall=0.05)
    finally:
        module.LAST_SECONDS = before
    assert told == ["body took more than 0.05 s, the limit `wall`, and does not end"]


def waits_after(main):
    def body():
        yield from main()
        yield Sleep(LONG)

    return body


def test_who_swallows_the_interrupt_has_the_same_time_again():
    told = []

    def main():
        try:
            yield Sleep(LONG)
        except TimeoutError:
            yield from until_told()

    def until_told():
        while not told:
            yield Sleep(0.001)

    with Runner() as runner:
        runner.on_hang = told.append
        runner.run(main, wall=0.05)
    assert len(told) == 1


def test_the_end_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(os, "_exit", lambda status: print(f"exit {status}"))
    monkeypatch.setattr(sys, "__stderr__", None)
    end_the_process("it hangs")
    assert capsys.readouterr().out.endswith("exit 1\n")


def test_the_end_of_the_process_shows_all_threads(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "_exit", lambda status: None)
    with open(tmp_path / "err", "w+") as err:
        monkeypatch.setattr(sys, "__stderr__", err)
        end_the_process("it hangs")
        err.seek(0)
        assert re.match(r"corolib: it hangs\n(?s:.*)hread .*most recent call first", err.read())


def test_the_end_of_the_session_shows_what_was_captured(monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(module, "end_the_process", ended.append)
    capture = SimpleNamespace(
        suspend_global_capture=lambda in_: None, read_global_capture=lambda: ("out\n", "err\n")
    )
    for plugin in (capture, None):
        manager = SimpleNamespace(getplugin={"capturemanager": plugin}.get)
        pytest_corolib.end_the_session(SimpleNamespace(pluginmanager=manager), "it hangs")
    assert ended == ["it hangs", "it hangs"]
    assert capsys.readouterr().err == "out\nerr\n"


def test_an_alarm_that_is_none_has_no_thread():
    threads = threading.active_count()
    with Alarm(None, None):
        assert threading.active_count() == threads
    rung = threading.Event()
    with Alarm(0, rung.set):
        assert rung.wait(LONG)
    assert threading.active_count() == threads


# What is left -------------------------------------------------------------------------------------


def test_a_number_that_is_another_files_now_is_seen():
    one, two = os.pipe()
    with Runner(leaks=()) as runner:
        leaks = Leaks(["files"], runner.scheduler)
        os.close(one)
        os.close(two)
        again = os.pipe()
        try:
            assert set(again) == {one, two}
            assert len(leaks.look_around()) == 2
        finally:
            for number in again:
                os.close(number)


def test_where_files_cannot_be_seen_there_are_none(monkeypatch):
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    assert open_files() == set()


def test_a_file_without_a_name_is_its_number():
    assert describe(1_000_000) == "1000000"


def test_child_processes_that_end_meanwhile(monkeypatch):
    def gone(path):
        raise ProcessLookupError

    monkeypatch.setattr("pathlib.Path.read_text", gone)
    assert child_processes() == set()


def test_a_look_around_finds_nothing_where_nothing_is():
    with Runner(leaks=()) as runner:
        leaks = Leaks(["tasks", "timers", "files", "threads", "children"], runner.scheduler)
        leaks.look_at_scheduler()
        assert leaks.look_around() == []
        assert leaks.new_tasks() == []


# Without pytest -----------------------------------------------------------------------------------


def test_a_plain_function_is_made():
    @test(clock="virtual", timeout=10)
    def waits(a, *, b):
        """As it was."""
        yield Sleep(9)
        return a, b

    @test
    async def awaits():
        await Sleep(0)

    assert waits(1, b=2) == (1, 2)
    assert waits.__doc__ == "As it was."
    assert awaits() is None
    with pytest.raises(RuntimeError, match="awaits cannot begin in here: a scheduler already runs"):
        run(calls(awaits))


def calls(f):
    yield
    f()


def test_what_no_test_can_be_made_of():
    async def agen():
        yield 1

    for f in (print, agen):
        with pytest.raises(TypeError, match="give a generator function or an `async def`"):
            test(f)
    with pytest.raises(TypeError, match="has no keyword 'colour': there are clock, timeout"):
        test(colour="red")
    with pytest.raises(TypeError, match="timeout="):
        test(timeout="long")
    with pytest.raises(TypeError, match="it can wait for nothing: use"):
        fixture(calls(1).send)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        corolib.testing.nothing


def test_the_decorator_is_no_test():
    assert test.__test__ is False
    assert "test" in corolib.testing.__all__


class Case(TestCase):
    __test__ = False  # for pytest
    options = virtual

    def setUp(self):
        self.log = []
        self.addCleanup(self.clean_up, "last")
        yield Sleep(1)

    def clean_up(self, word):
        yield Sleep(1)
        self.log.append((word, now()))

    def tearDown(self):
        self.log.append("torn down")

    def test_it(self):
        self.addCleanup(self.log.append, "plain")
        for n in range(2):
            with self.subTest(n=n):
                yield Sleep(1)
                assert n == 0

    def test_plain(self):
        pass

    def test_stuck(self):
        yield from Event().wait()

    def test_stuck_at_the_end(self):
        spawn(Event().wait())
        yield

    def test_ended_by_a_child(self):
        def child():
            yield Sleep(3)
            sys.exit("enough")

        spawn(child)
        yield

    def test_interrupted(self):
        yield
        raise KeyboardInterrupt


def test_the_methods_of_a_case_wait_in_one_task():
    case = Case("test_it")
    result = case.run()
    assert len(result.failures) == 1 and "(n=1)" in str(result.failures[0][0])
    assert result.errors == []
    assert case.log == ["torn down", "plain", ("last", 4)]
    assert "corolib/testing" not in result.failures[0][1]


def test_a_case_that_never_waits():
    class Plain(TestCase):
        def test_it(self):
            self.log = self.runner

    case = Plain("test_it")
    assert case.run().wasSuccessful()
    assert case.log is case.runner


def test_a_case_may_be_debugged():
    case = Case("test_plain")
    case.debug()
    assert case.log == ["torn down", ("last", 2)]


def test_a_stuck_method_is_cancelled_and_the_others_are_called():
    case = Case("test_stuck")
    result = case.run()
    assert "Deadlock: no task can ever run again" in result.errors[0][1]
    assert len(result.errors) == 1
    assert case.log == ["torn down", ("last", 2)]


def test_a_stuck_child_is_seen_at_the_end(capsys):
    result = Case("test_stuck_at_the_end").run()
    assert "test_stuck_at_the_end is over; it waits for wait#2" in result.errors[0][1]
    assert len(result.errors) == 1
    assert capsys.readouterr().err == ""


def test_a_child_that_exits_at_the_end(capsys):
    result = Case("test_ended_by_a_child").run()
    assert "SystemExit: enough" in result.errors[0][1]
    assert capsys.readouterr().err == ""


def test_ctrl_c_in_a_method_leaves_run(capsys):
    with pytest.raises(KeyboardInterrupt):
        Case("test_interrupted").run()


def test_the_options_of_a_case_are_checked():
    class Wrong(TestCase):
        options = dict(clok="virtual")  # noqa: C408, RUF012

        test_it = print

    with pytest.raises(TypeError, match=r"Wrong\.options has no keyword 'clok'"):
        Wrong("test_it").run()
    Wrong.options = {"wall": 5}
    with pytest.raises(TypeError, match="`wall` is for single functions"):
        Wrong("test_it").run()


def test_unittest_finds_and_runs_them():
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Case)
    assert suite.countTestCases() == 6


def test_giving_outside_of_a_fixture():
    def main():
        yield give(1)

    with pytest.raises(RuntimeError, match="main#1, which is no fixture"):
        run(main)
    assert repr(give(1)) == "the end of what it was given to"
    assert list(give(1).holder()) == []


def test_turns_are_bounded_in_time_on_the_real_clock_and_no_time_is_lost():
    with Runner() as runner:
        before = time.monotonic()
        runner.run(sleeper, 0.01)
        assert time.monotonic() - before >= 0.01
        assert current_scheduler_is_free()


def current_scheduler_is_free():
    with pytest.raises(RuntimeError):
        current_scheduler()
    return True
