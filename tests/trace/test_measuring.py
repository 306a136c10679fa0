"""Measures of tasks and of the loop, with a clock that the tests move."""

import time

import pytest

from corolib import Sleep, current_scheduler, run, spawn
from corolib.trace import MeasuredScheduler, Measures, Trace, measuring
from tests.helpers.driving import sleeper


@pytest.fixture
def work(monkeypatch):
    """Return what lets time go by, as a computation would."""
    now = [1000.0]
    monkeypatch.setattr(measuring, "clock", lambda: now[0])

    def work(seconds):
        now[0] += seconds

    return work


def test_steps_are_measured_task_by_task(work):
    def busy():
        work(0.25)
        yield
        work(2.0)
        yield
        work(0.5)

    def main():
        task = spawn(busy)
        assert current_scheduler().measured(task) == Measures()
        yield from task
        return current_scheduler().measured(task), current_scheduler().stats()

    found, stats = run(main, measure=True)
    assert found == Measures(3, 2.75, found.cpu, 2.0, found.where)
    line = busy.__code__.co_firstlineno + 4
    assert found.where == f"test_measuring.py:{line}"
    assert found.cpu >= 0
    assert stats["busy"] == 2.75
    assert stats["longest_step"] == stats["lag"] == 2.0
    assert stats["tasks"] == 1


def test_the_lag_is_the_longest_turn_of_the_last_minute(work):
    seen = []

    def main():
        scheduler = current_scheduler()
        for seconds in (5, 1, 0, 30, 30, 61):
            spawn(hog, seconds / 2)
            spawn(hog, seconds / 2)
            yield
            yield
            yield
            stats = scheduler.stats()
            seen.append(stats["lag"])
            assert 0 < stats["lag_mean"] < stats["lag"]

    def hog(seconds):
        work(seconds)
        yield

    run(main, measure=True)
    # What is older than a minute is forgotten.
    assert seen == [5, 5, 5, 30, 30, 61]


def test_a_turn_that_goes_on_counts_as_far_as_it_has_come(work):
    def main():
        work(3)
        return current_scheduler().stats()
        yield

    stats = run(main, measure=True)
    assert stats["lag"] == stats["lag_mean"] == 3
    assert stats["busy"] == 0


def test_what_the_loop_sleeps_is_idle():
    def main():
        yield Sleep(0.01)
        return current_scheduler().stats()

    stats = run(main, measure=True)
    assert stats["idle"] > 0.005


def test_what_lies_between_two_turns_of_a_guest_is_idle_and_no_lag(work):
    def main():
        work(2)
        yield
        work(1)

    scheduler = MeasuredScheduler()
    scheduler.spawn(main)
    scheduler.turn(0)
    work(30)  # the other loop sleeps
    scheduler.turn(0)
    scheduler.close()
    stats = scheduler.stats()
    assert (stats["busy"], stats["idle"]) == (3, 30)
    assert (stats["lag"], stats["lag_mean"]) == (2, 1.5)


def test_the_processor_computes_less_than_a_step_takes_that_sleeps():
    def main():
        time.sleep(0.02)
        yield
        return current_scheduler().measured(current_scheduler().main)

    found = run(main, measure=True)
    assert found.cpu < found.busy


def test_a_report_names_who_computed_the_longest(work):
    def main():
        spawn(sleeper, 0.001)
        work(2)
        yield
        return current_scheduler().report()

    report = run(main, measure=True)
    assert "measured, in seconds: busy=2.000000 idle=0.000000 longest_step=2.000000" in report
    rows = report[report.index("measured") :].splitlines()
    assert rows[1].startswith("  main#1  1 steps  busy 2.000000")
    assert "longest 2.000000 which ended at test_measuring.py:" in rows[1]
    assert rows[2].startswith("  sleeper#2")


def test_a_run_is_measured_and_traced(work):
    def main():
        work(1)
        yield
        return type(current_scheduler()), current_scheduler().stats()["busy"]

    trace = Trace()
    kind, busy = run(main, measure=True, trace=trace)
    assert issubclass(kind, MeasuredScheduler)
    assert busy == 1
    assert trace.events[-1]["kind"] == "end"
