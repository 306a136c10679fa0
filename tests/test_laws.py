"""The laws of the kernel, each under its name. The details are tested with the modules."""

import contextvars
import gc
import math
import socket
import threading

import pytest

from corolib import (
    Cancelled,
    Deadlock,
    ReadWait,
    RunFinished,
    Scheduler,
    Sleep,
    Suspend,
    TaskCancelled,
    WriteWait,
    current_scheduler,
    current_task,
    now,
    run,
    spawn,
)
from corolib.testing import virtual_time
from tests.helpers.driving import failing, files, go, in_a_thread, sleeper, turn

# Order -------------------------------------------------------------------------------------------


def test_law_order_ready_tasks_run_first_come_first_served():
    order = []

    def child(n):
        for _ in range(3):
            order.append(n)
            yield

    def main():
        for n in range(4):
            spawn(child, n)
        yield

    go(main)
    assert order == [0, 1, 2, 3] * 3


def test_law_order_a_task_made_ready_during_a_turn_runs_in_the_next():
    turns = {}

    def child(name, wake_next=None):
        turns[name] = turn()
        yield
        turns[name + " again"] = turn()

    def waiter(wakes):
        yield Suspend(lambda wake: wakes.append(wake) or list, "x")
        turns["woken"] = turn()

    def main():
        wakes = []
        spawn(waiter, wakes)
        yield
        yield
        turns["main"] = turn()
        spawn(child, "spawned")
        wakes[0]()
        yield

    go(main)
    assert turns == {
        "main": turns["main"],
        "spawned": turns["main"] + 1,
        "woken": turns["main"] + 1,
        "spawned again": turns["main"] + 2,
    }


@pytest.mark.hazard("H51")
@pytest.mark.parametrize("spinners", [2, 10_000])
def test_law_order_files_and_timers_are_looked_at_every_turn(spinners, selector, pair):
    a, b = pair
    vt = virtual_time(selector=selector)
    served = {}

    def spinner():
        while "timer" not in served or "file" not in served:
            yield

    def reader():
        yield ReadWait(a)
        served["file"] = turn()

    def timed():
        yield Sleep(5)
        served["timer"] = turn()

    def main():
        spawn(reader)
        spawn(timed)
        for _ in range(spinners):
            spawn(spinner)
        for _ in range(5):
            yield
        assert served == {}
        b.send(b"x")
        vt["clock"].move(5)
        began = turn()
        yield
        yield
        assert served == {"file": began + 1, "timer": began + 1}

    run(main, **vt)


def test_law_order_equal_deadlines_fire_in_the_order_they_were_set():
    order = []

    def child(n):
        yield Sleep(at=5)
        order.append(n)

    def main():
        for n in range(100):
            spawn(child, n)
        yield

    go(main)
    assert order == list(range(100))


# Start -------------------------------------------------------------------------------------------


@pytest.mark.hazard("H19")
def test_law_start_a_cancelled_task_still_runs_to_its_first_trap():
    log = []

    def child(sock):
        with sock:
            log.append("begun")
            yield Sleep(1)
            log.append("not reached")

    def main():
        pairs = [socket.socketpair() for _ in range(100)]
        for a, _ in pairs:
            spawn(child, a).cancel()
        yield
        yield
        yield
        for a, b in pairs:
            assert a.fileno() == -1
            assert b.recv(1) == b""
            b.close()

    go(main)
    assert log == ["begun"] * 100


# Ownership ---------------------------------------------------------------------------------------


def test_law_ownership_the_spawner_is_the_parent_unless_another_is_named():
    def child():
        mine = spawn(sleeper)
        root = spawn(sleeper, parent=current_scheduler().main)
        yield
        assert mine.parent is current_task()
        assert root.parent is current_scheduler().main

    def main():
        task = spawn(child)
        assert task.parent is current_task() is current_scheduler().main
        yield from task

    go(main)


def test_law_ownership_what_callbacks_and_threads_spawn_belongs_to_main():
    parents = []

    def child():
        parents.append(current_task().parent)
        yield

    def main():
        scheduler = current_scheduler()
        scheduler.call_at(1, lambda arg: spawn(child), None)
        in_a_thread(lambda: scheduler.call_soon_threadsafe(spawn, child))
        yield Sleep(2)
        assert parents == [current_task()] * 2

    go(main)


def test_law_ownership_done_means_body_and_children():
    def parent():
        spawn(sleeper, 3)
        yield Sleep(1)
        return "outcome"

    def main():
        task = spawn(parent)
        yield Sleep(2)
        assert (task.state, task.done) == ("completing", False)
        result = yield from task
        assert now() == 3
        return result

    assert go(main) == "outcome"


def test_law_ownership_cancelling_a_completing_task_keeps_its_outcome():
    def parent():
        spawn(sleeper, 100)
        yield
        return "outcome"

    def main():
        task = spawn(parent)
        yield Sleep(1)
        task.cancel()
        return (yield from task), now()

    assert go(main) == ("outcome", 1)


def test_law_ownership_cancelling_a_parent_cancels_its_children():
    tasks = []

    def parent(depth):
        tasks.append(current_task())
        if depth:
            spawn(parent, depth - 1)
        yield Sleep(100)

    def main():
        task = spawn(parent, 5)
        yield Sleep(1)
        assert (yield from task.stop()) is None
        assert len(tasks) == 6 and all(task.cancelled for task in tasks)
        return now()

    assert go(main) == 1


def test_law_ownership_a_daemon_goes_when_body_and_other_children_are_done():
    def parent():
        spawn(sleeper, 100, daemon=True)
        spawn(sleeper, 3)
        yield Sleep(1)

    def main():
        yield from spawn(parent)
        return now()

    assert go(main) == 3


@pytest.mark.hazard("H49")
def test_law_ownership_the_scheduler_holds_every_live_task():
    done = []

    def child():
        yield Sleep(1)
        done.append(1)

    def main():
        for _ in range(100):
            spawn(child)
        yield
        gc.collect()
        yield Sleep(5)

    go(main)
    assert len(done) == 100


@pytest.mark.hazard("H54")
def test_law_ownership_joining_oneself_or_an_ancestor_is_a_deadlock_at_the_join():
    def child(ancestor):
        with pytest.raises(Deadlock, match="joins"):
            yield from ancestor
        with pytest.raises(Deadlock, match="joins itself"):
            yield from current_task()
        return "fine"

    def main():
        return (yield from spawn(child, current_task()))

    assert go(main) == "fine"


# Failure -----------------------------------------------------------------------------------------


def test_law_failure_cancels_the_children_then_the_taker_gets_it():
    log, error = [], ValueError("x")

    def child():
        try:
            yield Sleep(100)
        finally:
            yield Sleep(0.5)
            log.append(now())

    def parent():
        spawn(child)
        yield Sleep(1)
        raise error

    def main():
        with pytest.raises(ValueError) as caught:
            yield from spawn(parent)
        assert caught.value is error
        log.append(now())

    go(main)
    assert log == [1.5, 1.5]


@pytest.mark.hazard("H48")
def test_law_failure_without_a_taker_is_reported_in_that_turn_once():
    lost, raised = [], []

    def child():
        yield
        raised.append(turn())
        raise ValueError("x")

    def main():
        task = spawn(child)
        yield Sleep(5)
        with pytest.raises(ValueError):
            yield from task

    go(main, on_task_error=lambda task, exc: lost.append((task.label, turn())))
    assert lost == [("child#2", raised[0])]


def test_law_failure_a_requested_cancel_is_never_reported():
    def main():
        task = spawn(sleeper, 100)
        yield
        task.cancel()
        yield Sleep(1)
        assert task.done

    go(main)


def test_law_failure_joining_a_cancelled_task_raises_task_cancelled():
    def main():
        task = spawn(sleeper, 100)
        yield
        task.cancel("why")
        with pytest.raises(TaskCancelled) as caught:
            yield from task
        assert (caught.value.task, caught.value.reason) == (task, "why")

    go(main)


def test_law_failure_of_main_leaves_run_after_its_children_have_finished():
    log = []

    def child():
        try:
            yield Sleep(100)
        finally:
            yield Sleep(0.5)
            log.append(now())

    def main():
        spawn(child)
        yield Sleep(1)
        raise ValueError("main")

    with pytest.raises(ValueError, match="main"):
        go(main)
    assert log == [1.5]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_law_failure_system_exit_in_any_task_ends_the_run(error):
    log = []

    def child():
        try:
            yield Sleep(100)
        finally:
            log.append(now())

    def main():
        spawn(child)
        spawn(failing, 1, error("x"))
        yield Sleep(100)

    with pytest.raises(error):
        run(main, **virtual_time(), on_task_error=lambda task, exc: None)
    assert log == [1]


@pytest.mark.hazard("H44")
def test_law_failure_of_the_scheduler_on_behalf_of_a_task_is_thrown_into_it():
    def main():
        for trap in (ReadWait(-1), ReadWait("x"), WriteWait(10**9), WriteWait(object()), 5, "x"):
            with pytest.raises((TypeError, ValueError, OSError)):
                yield trap
        return "fine"

    assert go(main) == "fine"


# Cancellation ------------------------------------------------------------------------------------


def test_law_cancellation_is_one_cancelled_at_the_wait_or_the_next():
    log = []

    def child():
        for _ in range(3):
            try:
                yield Sleep(0.3)
                log.append("slept")
            except Cancelled:
                log.append("cancelled")

    def main():
        task = spawn(child)
        yield Sleep(0.1)
        assert task.cancel() is None
        task.cancel()
        yield from task

    go(main)
    assert log == ["cancelled", "slept", "slept"]


def test_law_cancellation_the_wait_is_undone_first(pair):
    a, _ = pair
    log = []

    def child(trap):
        try:
            yield trap
        except Cancelled:
            log.append((len(undone), files()))
            raise

    undone = []

    def main():
        for trap in (ReadWait(a), Suspend(lambda wake: lambda: undone.append(1), "x"), Sleep(9)):
            task = spawn(child, trap)
            yield
            yield
            yield from task.stop()
        assert current_scheduler().stats()["timers"] <= 1

    go(main, grace=math.inf)
    assert log == [(0, 0), (1, 0), (1, 0)]


@pytest.mark.hazard("H35")
def test_law_cancellation_a_result_that_was_given_comes_first():
    log = []

    def child():
        log.append((yield suspended))
        try:
            yield
        finally:
            log.append("then")

    wakes = []
    suspended = Suspend(lambda wake: wakes.append(wake) or list, "x")

    def main():
        task = spawn(child)
        yield
        yield
        wakes[0]("result")
        task.cancel()
        yield Sleep(1)
        assert task.cancelled

    go(main)
    assert log == ["result", "then"]


@pytest.mark.hazard("H39")
def test_law_cancellation_clean_up_may_wait_for_the_grace_and_no_longer():
    log = []

    def child():
        try:
            yield Sleep(100)
        finally:
            yield Sleep(0.9)
            log.append(now())
            yield Sleep(0.9)
            log.append("not reached")

    def main():
        task = spawn(child)
        yield
        yield from task.stop()
        return now()

    assert go(main) == 1
    assert log == [0.9]


@pytest.mark.hazard("H40")
def test_law_cancellation_who_swallows_a_hundred_is_given_up(capsys):
    lost, rounds = [], []

    def deaf():
        while True:
            try:
                yield Sleep(1000)
            except Cancelled:
                rounds.append(now())

    def main():
        spawn(deaf).cancel()
        yield Sleep(10)

    go(main, on_task_error=lambda task, exc: lost.append(task.name))
    assert lost == ["deaf"] and len(rounds) == 101
    assert "deaf#2" in capsys.readouterr().err


# Never starved -----------------------------------------------------------------------------------


@pytest.mark.hazard("H51")
def test_law_never_starved_a_task_that_never_waits_long_leaves_the_others_their_turns():
    ticks = []

    def greedy():
        for n in range(1000):
            yield Sleep(0) if n % 2 else None

    def ticker():
        while True:
            ticks.append(turn())
            yield

    def main():
        spawn(ticker, daemon=True)
        yield from spawn(greedy)

    go(main)
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks))) and len(ticks) >= 1000


def test_law_never_starved_a_cancel_reaches_a_task_that_only_gives_way():
    def greedy():
        while True:
            yield

    def main():
        task = spawn(greedy)
        yield
        yield
        began = turn()
        assert (yield from task.stop()) is None
        return turn() - began

    assert go(main) <= 2


# Deadlock ----------------------------------------------------------------------------------------


@pytest.mark.hazard("H54")
def test_law_deadlock_leaves_run_when_all_tasks_have_finished():
    log = []

    def child():
        try:
            yield Suspend(lambda wake: list, "nothing")
        finally:
            yield Sleep(0.5)
            log.append(now())

    def main():
        yield from spawn(child)

    with pytest.raises(Deadlock, match="child#2  nothing"):
        go(main)
    assert log == [0.5]


def test_law_deadlock_not_while_a_task_sleeps_for_ever_or_waits_for_a_file(pair):
    """Both are taken back after many turns in which nothing was ready."""
    a, _ = pair

    def stuck():
        yield Suspend(lambda wake: list, "nothing")

    for trap in (Sleep(math.inf), ReadWait(a)):

        def forever():
            yield trap

        scheduler = Scheduler(**virtual_time())

        def main():
            tasks = spawn(stuck), spawn(forever)
            yield Sleep(1)
            thread = threading.Thread(
                target=scheduler.call_soon_threadsafe, args=(current_task().cancel,)
            )
            thread.start()
            thread.join()
            for task in tasks:
                yield from task

        with pytest.raises(TaskCancelled):
            scheduler.run(main)


def test_law_deadlock_never_by_turn():
    scheduler = Scheduler(**virtual_time())

    def stuck():
        yield Suspend(lambda wake: list, "nothing")

    task = scheduler.spawn(stuck)
    for _ in range(3):
        scheduler.turn(0)
    assert task.state == "waiting"
    task.cancel()
    scheduler.turn(0)
    assert task.done
    scheduler.close()


# Time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, -1, -0.0, 5e-324, 0.1, 2**31 / 1000, 1e10, 1e300, 10**400])
def test_law_time_any_duration_is_accepted_and_no_sleep_ends_early(seconds):
    def main():
        before = now()
        with_limit = min(float(min(seconds, 2e300)), 1e9)
        task = spawn(sleeper, seconds)
        yield Sleep(with_limit)
        if with_limit < seconds:
            task.cancel()
        else:
            yield from task
            assert now() - before >= with_limit

    go(main)


@pytest.mark.parametrize(
    ("seconds", "error"),
    [(math.nan, ValueError), (-math.inf, ValueError), ("1", TypeError), (True, TypeError)],
)
def test_law_time_what_is_no_duration_is_an_error_in_the_task(seconds, error):
    def main():
        with pytest.raises(error):
            yield Sleep(seconds)
        with pytest.raises(error):
            yield Sleep(at=seconds)
        return "fine"

    assert go(main) == "fine"


def test_law_time_a_deadline_is_not_a_duration():
    def main():
        yield Sleep(5)
        yield Sleep(at=7)
        first = now()
        yield Sleep(at=3)  # long past
        return first, now()

    assert go(main, **virtual_time(start=1)) == (7, 7)


def test_law_time_a_real_clock_never_wakes_early():
    def main():
        for n in range(20):
            before = now()
            yield Sleep(n / 10_000)
            assert now() - before >= n / 10_000
        return current_scheduler().stats()["turns"]

    assert run(main) <= 2 * 20 + 2


# Threads -----------------------------------------------------------------------------------------


@pytest.mark.hazard("H47")
def test_law_threads_one_scheduler_a_thread():
    def main():
        with pytest.raises(RuntimeError, match="already runs in this thread"):
            run(sleeper)
        results = []
        in_a_thread(lambda: results.append(go(sleeper, 1, "other")))
        yield
        return results

    assert go(main) == ["other"]


def test_law_threads_only_wake_and_call_soon_threadsafe_may_come_from_outside():
    said = []

    def main():
        scheduler, task = current_scheduler(), current_task()
        wakes = []

        def thread():
            for call in (task.cancel, lambda: scheduler.spawn(sleeper), lambda: spawn(sleeper)):
                try:
                    call()
                except RuntimeError as exc:
                    said.append(str(exc))
            scheduler.call_soon_threadsafe(said.append, "called")
            wakes[0]("woken")

        def arm(wake):
            wakes.append(wake)
            other = threading.Thread(target=thread)
            other.start()
            return other.join

        return (yield Suspend(arm, "x", outside=True))

    assert go(main) == "woken"
    assert len(said) == 4 and said[3] == "called"
    assert all("thread" in text for text in said[:3])


def test_law_threads_a_wake_from_the_own_thread_acts_at_once():
    def main():
        wakes = []
        task = spawn(iter(Suspend(lambda wake: wakes.append(wake) or list, "x")))
        yield
        yield
        assert task.state == "waiting"
        wakes[0]()
        assert task.state == "ready"
        yield

    go(main)


def test_law_threads_after_the_run_calls_say_so():
    kept = []

    def main():
        kept.append(current_scheduler())
        yield Suspend(lambda wake: kept.append(wake) or wake() or list, "x")

    go(main)
    with pytest.raises(RunFinished):
        kept[0].call_soon_threadsafe(print)
    with pytest.raises(RunFinished):
        kept[1]()


# Context -----------------------------------------------------------------------------------------


@pytest.mark.hazard("H56")
def test_law_context_every_task_has_its_own_copy_of_the_spawners():
    var = contextvars.ContextVar("var", default=0)

    def child(n):
        assert var.get() == "main"
        var.set(n)
        yield
        assert var.get() == n

    def main():
        var.set("main")
        for n in range(10):
            spawn(child, n)
        yield Sleep(1)
        assert var.get() == "main"

    go(main)
    assert var.get() == 0
