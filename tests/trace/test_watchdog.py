"""The watchdog tells of a step that does not end: which task, and the line it is in."""

import ctypes
import faulthandler
import logging
import math
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from corolib import Sleep, current_scheduler, run, spawn, to_thread
from corolib.kernel import where
from corolib.trace import Trace
from tests.helpers.driving import LONG, sleeper

SPAN = 0.01


def spin(caplog, enough):
    """Compute until the log says so."""
    while not enough(caplog.text):
        pass


def test_a_step_of_python_that_does_not_end_is_told_once_with_its_line(caplog):
    def hog():
        yield
        spin(caplog, lambda text: "hog#2" in text)
        ends = time.monotonic() + 3 * SPAN
        while time.monotonic() < ends:
            pass

    def main():
        yield from spawn(hog)

    run(main, watchdog=SPAN)
    start = "task hog#2 has not come to an end of its step for "
    told = [text for text in caplog.messages if text.startswith(start)]
    assert len(told) == 1
    lines = told[0].splitlines()
    # From the task's first frame inward.
    assert lines[1].endswith("in hog")
    assert f'"{__file__}"' in lines[1]
    assert any(line.endswith("in spin") for line in lines)


def test_a_call_of_c_that_keeps_the_interpreter_is_told_with_its_line(tmp_path, monkeypatch):
    path = tmp_path / "stderr"
    sleep = ctypes.PyDLL(None).usleep  # which keeps the interpreter
    with open(path, "w") as file:
        monkeypatch.setattr(sys, "stderr", file)

        def hog():
            yield
            for _ in range(10):
                sleep(900_000)
                if "in hog" in path.read_text():
                    return

        run(hog, watchdog=SPAN)
    assert 'test_watchdog.py", line' in path.read_text()


def test_no_stacks_are_printed_while_python_runs(monkeypatch):
    """To tell of a step may take long."""
    calls, last = [], []
    told = threading.Event()

    def warning(text, *_args):
        if "has not come" in text:  # and no slow step, of which debug mode tells
            last.append(calls[-1])
            told.set()

    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda _: calls.append("wound up"))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: calls.append("off"))
    monkeypatch.setattr(logging.getLogger("corolib.task"), "warning", warning)

    def hog():
        yield
        told.wait(LONG)

    run(hog, watchdog=SPAN)
    assert set(last) == {"off"}
    assert "wound up" in calls


def test_a_callback_that_does_not_end_is_told_with_its_line(caplog):
    def main():
        current_scheduler().call_soon_threadsafe(spin, caplog, lambda text: "a callback" in text)
        yield Sleep(0.001)

    run(main, watchdog=SPAN)
    assert "in spin" in caplog.text


def test_a_flight_recorder_writes_when_a_step_does_not_end(tmp_path):
    path = tmp_path / "stall.jsonl"
    page = path.with_suffix(".json")

    def main():
        yield
        while not page.exists():
            pass

    run(main, watchdog=SPAN, trace=Trace(page, last=50))


def test_a_loop_that_sleeps_is_left_alone(caplog, monkeypatch):
    """Time passes only while it sleeps: on a busy machine a step may take longer than the span."""
    asleep, enough, schedulers = [], threading.Event(), []

    def monotonic():
        asleep.extend(each for each in schedulers if each.polling)
        if len(asleep) == 20:
            enough.set()
        return len(asleep) * SPAN / 4

    monkeypatch.setattr("corolib.trace.watchdog.time", SimpleNamespace(monotonic=monotonic))

    def main():
        schedulers.append(current_scheduler())
        yield from to_thread(enough.wait, LONG)

    run(main, watchdog=SPAN)
    assert len(asleep) >= 20
    assert "has not come" not in caplog.text


def test_it_is_refused_where_there_is_no_faulthandler(monkeypatch):
    monkeypatch.setitem(sys.modules, "faulthandler", None)  # as in most subinterpreters
    monkeypatch.delitem(sys.modules, "corolib.trace.watchdog", raising=False)
    with pytest.raises(RuntimeError, match=r"^watchdog= works only in the main interpreter$"):
        run(sleeper, 0, watchdog=SPAN)


@pytest.mark.parametrize("seconds", [0, -1, 1e-9, 1e12, math.inf])
def test_a_span_is_one_that_a_thread_can_watch(seconds):
    with pytest.raises(ValueError, match="the seconds that a step may take"):
        run(where, watchdog=seconds)
    with pytest.raises(TypeError):
        run(where, watchdog="1")
