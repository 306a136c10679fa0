"""The laws of the kernel, each under its name. The details are tested with the modules.

The laws of scopes and groups stand in `test_timeouts.py` and `test_groups.py`, those of one waiter
and of closing in `test_poller.py`, that of Ctrl-C in `test_lifecycle.py`, also under their names.
"""

import contextvars
import gc
import math
import random
import socket
import threading
import time

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
from tests.helpers.driving import (
    FULL,
    failing,
    files,
    go,
    in_a_thread,
    in_threads,
    sleeper,
    standard,
    turn,
)

# Order --------------------------------------------------------------------------------------------


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
    vt = virtual_time(selector=standard(selector))
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


@pytest.mark.hazard("H62")
def test_law_order_equal_deadlines_fire_in_the_order_they_were_set():
    order = []

    def child(n):
        yield Sleep(at=5)
        order.append(n)

    def main():
        for n in range(1000):
            spawn(child, n)
        yield

    go(main)
    assert order == list(range(1000))


# Start --------------------------------------------------------------------------------------------


@pytest.mark.hazard("H19")
@pytest.mark.hazard("H41")
@pytest.mark.parametrize("kind", ["generator", "coroutine"])
def test_law_start_a_cancelled_task_still_runs_to_its_first_trap(kind):
    closed = []

    def child(n, sock):
        with sock:
            try:
                yield Sleep(1)
                closed.append("not reached")
            finally:
                closed.append(n)

    async def coroutine(n, sock):
        with sock:
            try:
                await Sleep(1)
                closed.append("not reached")
            finally:
                closed.append(n)

    def main():
        pairs = [socket.socketpair() for _ in range(100)]
        f = child if kind == "generator" else coroutine
        tasks = [spawn(f, n, a) for n, (a, _) in enumerate(pairs)]
        for task in tasks:
            task.cancel()
        yield
        yield
        assert closed == list(range(100))
        for task, (a, b) in zip(tasks, pairs, strict=True):
            assert a.fileno() == -1
            assert b.recv(1) == b""
            b.close()
            with pytest.raises(TaskCancelled):
                yield from task

    go(main)


# Ownership ----------------------------------------------------------------------------------------


def test_law_ownership_the_spawner_is_the_parent_unless_another_is_named():
    def child():
        mine = spawn(sleeper)
        root = spawn(sleeper, 5, parent=current_scheduler().main)
        yield
        assert mine.parent is current_task()
        assert root.parent is current_scheduler().main
        return root

    def main():
        task = spawn(child)
        assert task.parent is current_task() is current_scheduler().main
        root = yield from task
        assert not root.done

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
    def child():
        spawn(sleeper, 3)
        yield
        return "of the child"

    def parent():
        spawn(child)
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


@pytest.mark.hazard("H41")
def test_law_ownership_cancelling_a_completing_task_keeps_its_outcome():
    def child():
        try:
            yield Sleep(100)
        finally:
            yield Sleep(0.5)

    def parent():
        spawn(child)
        yield
        return "outcome"

    def main():
        task = spawn(parent)
        yield Sleep(1)
        assert task.state == "completing"
        task.cancel("first")
        yield
        task.cancel("second")
        result = yield from task
        assert not task.cancelled
        return result, now()

    assert go(main) == ("outcome", 1.5)


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
    log = []

    def daemon():
        try:
            yield Sleep(100)
        except Cancelled as exc:
            log.append((now(), exc.reason))
            raise

    def parent():
        spawn(daemon, daemon=True)
        spawn(sleeper, 3)
        yield Sleep(1)
        return "result"

    def main():
        return (yield from spawn(parent)), now()

    assert go(main) == ("result", 3)
    assert log == [(3, "daemon of parent#2, which ended")]


@pytest.mark.hazard("H49")
def test_law_ownership_the_scheduler_holds_every_live_task():
    done, wakes = [], []

    def arm(wake):
        wakes.append(wake)
        return list

    def child(n):
        yield Sleep(1)
        yield Suspend(arm, "x")
        done.append(n)

    def main():
        for n in range(1000):
            spawn(child, n)
        for _ in range(5):
            gc.collect()
            yield Sleep(0.3)
        gc.collect()
        for wake in wakes:
            wake()
        wakes.clear()
        yield

    go(main)
    assert done == list(range(1000))


@pytest.mark.hazard("H54")
@pytest.mark.parametrize("how", ["join", "stop"])
def test_law_ownership_joining_oneself_or_an_ancestor_is_a_deadlock_at_the_join(how):
    def join(task):
        return task if how == "join" else task.stop()

    def child():
        with pytest.raises(Deadlock, match=r"^task child#3 joins main#1, its ancestor"):
            yield from join(current_scheduler().main)
        with pytest.raises(Deadlock, match=r"^task child#3 joins itself, which is done only when"):
            yield from join(current_task())
        yield Sleep(1)
        return "fine"

    def parent():
        return (yield from spawn(child))

    def main():
        return (yield from spawn(parent))

    assert go(main) == "fine"


# Failure ------------------------------------------------------------------------------------------


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
        with pytest.raises(ValueError):  # a later join still raises it
            yield from task
        gc.collect()

    go(main, on_task_error=lambda task, exc: lost.append((task.label, str(exc), turn())))
    assert lost == [("child#2", "x", raised[0])]


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
        for _ in range(2):
            with pytest.raises(
                TaskCancelled, match=r"^task sleeper#2 was cancelled: why$"
            ) as caught:
                yield from task
            assert (caught.value.task, caught.value.reason) == (task, "why")
        assert isinstance(task.exception, TaskCancelled)
        other = spawn(sleeper, 100)
        other.cancel()
        with pytest.raises(TaskCancelled, match=r"^task sleeper#3 was cancelled$"):
            yield from other

    go(main)


def test_law_failure_of_main_leaves_run_after_its_children_have_finished():
    """It is not reported as well."""
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

    with pytest.raises(ValueError, match="main") as caught:
        go(main)
    assert log == [1.5]
    assert "in main" in str(caught.getrepr(style="native"))


@pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt("stop")])
@pytest.mark.parametrize("joined", [False, True])
def test_law_failure_system_exit_in_any_task_ends_the_run(error, joined):
    log = []

    def child():
        try:
            yield Sleep(100)
        finally:
            yield Sleep(0.5)
            log.append(now())

    def main():
        spawn(child)
        task = spawn(failing, 1, error)
        if joined:
            yield from task
        yield Sleep(100)

    with pytest.raises(type(error)) as caught:
        run(main, **virtual_time(), on_task_error=lambda task, exc: None)
    assert caught.value is error
    assert log == [1.5]


@pytest.mark.hazard("H44")
def test_law_failure_of_the_scheduler_on_behalf_of_a_task_is_thrown_into_it():
    def main():
        for trap in (ReadWait(-1), ReadWait("x"), WriteWait(10**9), WriteWait(object()), 5, "x"):
            with pytest.raises((TypeError, ValueError, OSError)):
                yield trap
        return "fine"

    assert go(main) == "fine"


# Cancellation -------------------------------------------------------------------------------------


@pytest.mark.hazard("H41")
def test_law_cancellation_is_one_cancelled_at_the_wait_or_the_next():
    """Asking again changes nothing, before the delivery and after it."""
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
        assert task.cancel("first") is None
        task.cancel("second")
        yield Sleep(0.1)
        task.cancel("during the clean-up")
        yield from task
        return task.cancel_request.reason

    assert go(main) == "first"
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
            before = len(undone)
            task.cancel()
            assert len(undone) - before == isinstance(trap, Suspend)  # at the request
            yield from task.stop()
        assert current_scheduler().stats()["timers"] <= 1

    go(main, grace=math.inf)
    assert log == [(0, 0), (1, 0), (1, 0)]


@pytest.mark.hazard("H35")
@pytest.mark.parametrize("do", [lambda call: call(), in_a_thread], ids=["here", "in a thread"])
def test_law_cancellation_a_result_that_was_given_comes_first(do):
    log, wakes = [], []

    def arm(wake):
        wakes.append(wake)
        return lambda: pytest.fail("an undo after a wake")

    def child():
        log.append((yield Suspend(arm, "x", outside=True)))
        try:
            yield
        finally:
            log.append("then")

    def main():
        task = spawn(child)
        yield
        yield
        do(lambda: wakes[0]("result"))
        task.cancel()
        wakes[0]("late")
        assert (yield from task.stop()) is None
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
            yield
            log.append(now())
            yield Sleep(0.9)
            log.append("not reached")

    def main():
        task = spawn(child)
        yield
        task.cancel("first")
        yield Sleep(0.5)
        task.cancel("second")  # which cuts nothing
        with pytest.raises(TaskCancelled, match="first"):
            yield from task
        return now()

    assert go(main) == 1
    assert log == [0.9]


@pytest.mark.hazard("H40")
def test_law_cancellation_who_swallows_a_hundred_is_given_up(capsys):
    """It is reported once, and when the run ends closed and named."""
    log, lost = [], []

    def deaf():
        try:
            while True:
                try:
                    yield Sleep(1000)
                except Cancelled:
                    log.append(now())
        finally:
            log.append("closed")

    def main():
        task = spawn(deaf)
        yield Sleep(1)
        task.cancel()
        yield Sleep(10)
        assert task.done and "closed" not in log
        assert lost == [task.exception]
        yield

    go(main, on_task_error=lambda task, exc: lost.append(exc))
    assert log == [1] + [2] * 100 + ["closed"]
    assert [(type(exc), str(exc)) for exc in lost] == [
        (
            RuntimeError,
            "task deaf#2 swallowed every Cancelled and was given up; let Cancelled pass",
        )
    ]
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "deaf#2" in printed and "swallowed every Cancelled; it is closed now" in printed


# Never starved ------------------------------------------------------------------------------------


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


# Deadlock -----------------------------------------------------------------------------------------


@pytest.mark.hazard("H54")
def test_law_deadlock_leaves_run_when_all_tasks_have_finished():
    log = []

    def child():
        try:
            yield Suspend(lambda wake: list, "nothing")
        finally:
            yield Sleep(0.5)
            log.append(("child", now()))

    def main():
        try:
            yield from spawn(child)
        finally:
            yield Sleep(0.25)
            log.append(("main", now()))

    with pytest.raises(Deadlock, match="child#2  nothing"):
        go(main)
    assert log == [("main", 0.25), ("child", 0.5)]


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


# Time ---------------------------------------------------------------------------------------------


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


@pytest.mark.hazard("H60")
@pytest.mark.parametrize("keyword", ["seconds", "at"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (math.nan, ValueError),
        (-math.inf, ValueError),
        ("1", TypeError),
        (b"1", TypeError),
        (True, TypeError),
        (False, TypeError),
        ([], TypeError),
        (object(), TypeError),
        (1j, TypeError),
    ],
)
def test_law_time_what_is_no_duration_is_an_error_in_the_task(keyword, value, error):
    def main():
        with pytest.raises(error):
            yield Sleep(**{keyword: value})
        yield Sleep(0)
        return "went on"

    assert go(main) == "went on"


def test_law_time_a_deadline_is_not_a_duration():
    def main():
        yield Sleep(2.5)
        assert now() == 3.5
        yield Sleep(at=7)
        assert now() == 7
        yield Sleep(at=3)  # long past
        return now()

    assert go(main, **virtual_time(start=1)) == 7


@pytest.mark.hazard("H61")
def test_law_time_a_real_clock_never_wakes_early(selector):
    """And a sleep takes two turns at the most."""
    chance = random.Random(61)
    lengths = [chance.uniform(0.0001, 0.005) for _ in range(1000 if FULL else 100)]

    def main():
        before = turn()
        for length in lengths:
            began = time.monotonic()
            yield Sleep(length)
            assert time.monotonic() - began >= length
        return turn() - before

    assert run(main, selector=selector) <= 2 * len(lengths) + 10


# Threads ------------------------------------------------------------------------------------------


@pytest.mark.hazard("H47")
def test_law_threads_one_scheduler_a_thread():
    def main():
        scheduler = current_scheduler()
        for call in (lambda: run(sleeper), lambda: scheduler.run(sleeper), scheduler.turn):
            with pytest.raises(RuntimeError, match=r"already runs in this thread: use spawn\("):
                call()
            assert current_scheduler() is scheduler
            assert current_task() is scheduler.main
            yield Sleep(1)
        gc.collect()  # a scheduler that was made for nothing has closed its files
        results = []
        threads, raised = in_threads(4, lambda n: results.append(go(sleeper, 1, n)))
        for thread in threads:
            thread.join()
        assert raised == []
        yield
        return sorted(results)

    assert go(main) == [0, 1, 2, 3]


@pytest.mark.hazard("H41")
def test_law_threads_only_wake_and_call_soon_threadsafe_may_come_from_outside():
    said, called = [], []

    def main():
        scheduler, task = current_scheduler(), current_task()
        calls = (
            task.cancel,
            lambda: spawn(sleeper),
            lambda: scheduler.spawn(sleeper),
            lambda: scheduler.close_file(0),
            scheduler.turn,
            current_task,
            now,
        )

        def thread(wake):
            for call in calls:
                try:
                    call()
                except RuntimeError as exc:
                    said.append(str(exc))
            scheduler.call_soon_threadsafe(called.append, "called")
            wake("woken")

        def arm(wake):
            other = threading.Thread(target=thread, args=(wake,))
            other.start()
            return other.join

        value = yield Suspend(arm, "x", outside=True)
        yield Sleep(1)  # unharmed
        return value

    assert go(main) == "woken"
    assert called == ["called"]
    assert len(said) == 7 and all("from_thread(scheduler, f, *args)" in text for text in said)
    assert "call_soon_threadsafe" in said[0]


def test_law_threads_a_wake_from_the_own_thread_acts_at_once():
    def main():
        wakes = []
        task = spawn(outcome_of, Suspend(lambda wake: wakes.append(wake) or list, "x"))
        yield
        yield
        assert task.state == "waiting"
        wakes[0]("value")
        assert task.state == "ready"
        yield
        assert task.result == "value"

    def outcome_of(trap):
        return (yield trap)

    go(main)


@pytest.mark.hazard("H66")
@pytest.mark.parametrize("do", [lambda call: call(), in_a_thread], ids=["here", "in a thread"])
def test_law_threads_after_the_run_calls_say_so(do):
    scheduler, wakes, said = Scheduler(**virtual_time()), [], []

    def wait():
        yield Suspend(lambda wake: wakes.append(wake) or list, "what never comes", outside=True)

    def main():
        task = spawn(wait)
        yield Suspend(lambda wake: wakes.append(wake) or wake() or list, "x")
        yield
        task.cancel()

    scheduler.run(main)
    assert len(wakes) == 2

    def late():
        for call in (*wakes, lambda: scheduler.call_soon_threadsafe(print)):
            with pytest.raises(RunFinished):
                call()
            said.append(call)

    do(late)
    assert len(said) == 3
    for call in (lambda: scheduler.run(main), scheduler.turn):
        with pytest.raises(RunFinished):
            call()


# Context ------------------------------------------------------------------------------------------


@pytest.mark.hazard("H56")
def test_law_context_every_task_has_its_own_copy_of_the_spawners():
    var = contextvars.ContextVar("var", default=None)

    def child(n):
        assert var.get() == "main"
        var.set(n)
        for _ in range(5):
            yield
            assert var.get() == n
        yield Sleep(1)
        assert var.get() == n
        return (yield from spawn(grandchild, n))

    def grandchild(n):
        assert var.get() == n
        var.set("grandchild")
        yield

    def main():
        var.set("main")
        tasks = [spawn(child, n) for n in range(100)]
        for task in tasks:
            yield from task
        assert var.get() == "main"

    var.set("runner")
    go(main)
    assert var.get() == "runner"
