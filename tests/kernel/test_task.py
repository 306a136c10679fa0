"""Tasks: starting, joining, ending, their families, and what is left of them."""

import contextvars
import gc
import logging
import re
import subprocess
import sys
import types
import weakref
from collections import deque

import pytest

import corolib
from corolib import (
    Cancelled,
    Lock,
    RunFinished,
    Scheduler,
    Sleep,
    Suspend,
    Task,
    TaskCancelled,
    TaskGroup,
    current_scheduler,
    current_task,
    first,
    gather,
    now,
    run,
    spawn,
)
from corolib.scopes import Interrupts
from corolib.task import call_site
from corolib.testing import virtual_time
from tests.helpers.driving import failing, go, in_a_thread, sleeper
from tests.helpers.garbage import garbage_of

# Starting ----------------------------------------------------------------------------------------


def test_spawn_takes_a_function_and_arguments_or_the_call_itself():
    def main():
        a = spawn(sleeper, 1, "a")
        b = spawn(sleeper(2, "b"))
        return (yield from a), (yield from b)

    assert go(main) == ("a", "b")
    assert go(sleeper(1, "c")) == "c"


def test_names_numbers_and_places():
    def main():
        named = spawn(sleeper, name="nap")
        plain = spawn(sleeper)
        assert (named.name, named.id, named.label) == ("nap", 2, "nap#2")
        assert plain.label == "sleeper#3"
        assert plain.parent is current_task() and current_task().parent is None
        assert current_task().children == [named, plain]
        assert current_scheduler().tasks == [current_task(), named, plain]
        file, line = plain.spawned_at.rsplit(":", 1)
        assert file == __file__ and int(line) == main.__code__.co_firstlineno + 2
        yield

    go(main)
    go(main)  # ids belong to the scheduler: they begin anew


def test_states():
    def child():
        assert task.state == "running"
        yield
        yield Sleep(1)
        spawn(sleeper)

    def main():
        nonlocal task
        task = spawn(child)
        seen = [task.state]
        yield
        seen.append(task.state)
        yield
        seen.append(task.state)
        assert repr(task) == f"<Task child#2 waiting Sleep(1.0), spawned at {task.spawned_at}>"
        yield Sleep(1.5)
        seen.append(task.state)
        with pytest.raises(RuntimeError, match=r"child#2 is not done yet: `result = yield from"):
            task.result
        with pytest.raises(RuntimeError, match="not done yet"):
            task.exception
        assert not task.done and task.stack() == []
        yield from task
        seen.append(task.state)
        assert task.done and task.result is None and task.exception is None
        assert repr(task) == f"<Task child#2 done, spawned at {task.spawned_at}>"
        return seen

    task = None
    assert go(main) == ["ready", "ready", "waiting", "completing", "done"]


def test_a_context_of_ones_own():
    var = contextvars.ContextVar("var", default="outside")

    def child():
        yield
        return var.get()

    def main():
        context = contextvars.copy_context()
        context.run(var.set, "inside")
        return (yield from spawn(child, context=context)), (yield from spawn(child))

    assert go(main) == ("inside", "outside")


def test_a_parent_that_is_done_is_refused_and_nothing_is_started():
    def main():
        task = spawn(sleeper)
        yield from task
        body = sleeper()
        with pytest.raises(RuntimeError, match=r"sleeper#2 is done"):
            spawn(body, parent=task)
        assert len(current_scheduler().tasks) == 1

    go(main)


def test_a_parent_of_another_run_is_refused():
    kept = []

    def first():
        kept.append(spawn(Suspend(lambda wake: list, "x", outside=True).__iter__()))
        scheduler = Scheduler(**virtual_time())
        try:
            with pytest.raises(RuntimeError, match="of another run"):
                scheduler.spawn(sleeper, parent=kept[0])
        finally:
            scheduler.close()
        kept[0].cancel()
        yield

    go(first)


def test_a_completing_parent_takes_children():
    def parent():
        spawn(sleeper, 1)
        yield
        return "outcome"

    def main():
        task = spawn(parent)
        yield Sleep(0.5)
        spawn(sleeper, 5, parent=task)
        spawn(sleeper, 50, parent=task, daemon=True)
        return (yield from task), now()

    assert go(main) == ("outcome", 5.5)


def test_tasks_spawned_before_the_run_belong_to_main():
    log = []

    def early():
        log.append("early")
        yield Sleep(1)
        log.append(now())

    scheduler = Scheduler(**virtual_time())
    task = scheduler.spawn(early)

    def main():
        log.append("main")
        assert task.parent is current_task()
        yield

    scheduler.run(main)
    assert log == ["early", "main", 1]


def test_a_scheduler_runs_once():
    scheduler = Scheduler(**virtual_time())
    scheduler.run(sleeper)
    for call in (scheduler.run, scheduler.spawn):
        with pytest.raises(RunFinished, match="has ended"):
            call(sleeper)
    with pytest.raises(RunFinished):
        scheduler.turn()


@pytest.mark.hazard("H19")
def test_a_parent_cancelled_at_once_still_starts_its_children():
    log = []

    def child():
        try:
            log.append("begun")
            yield
        finally:
            log.append("ended")

    def parent():
        spawn(child)
        yield

    def main():
        task = spawn(parent)
        yield
        task.cancel()
        yield Sleep(1)

    go(main)
    assert log == ["begun", "ended"]


# Joining -----------------------------------------------------------------------------------------


def test_every_joiner_gets_the_result_in_the_turn_it_is_there():
    def joiner(task):
        return (yield from task), now()

    def main():
        task = spawn(sleeper, 1, "value")
        joiners = [spawn(joiner, task) for _ in range(3)]
        found = []
        for each in joiners:
            found.append((yield from each))
        found.append((yield from joiner(task)))  # it is done: at once
        return found

    assert go(main) == [("value", 1)] * 4


def test_every_joiner_gets_the_exception_itself():
    error = ValueError("x")

    def joiner(task):
        with pytest.raises(ValueError) as caught:
            yield from task
        return caught.value

    def main():
        task = spawn(failing, 0, error)
        a, b = spawn(joiner, task), spawn(joiner, task)
        assert (yield from a) is (yield from b) is error
        assert (yield from joiner(task)) is error
        assert task.exception is error
        with pytest.raises(ValueError):
            task.result

    go(main)


def test_a_joiner_that_is_cancelled_leaves_the_task_running():
    """And is not kept by it."""

    def joiner(task):
        yield from task

    def main():
        task = spawn(sleeper, 5, "value")
        joining = spawn(joiner, task)
        yield Sleep(1)
        yield from joining.stop()
        assert not task.done and not task.joiners
        dead = weakref.ref(joining)
        gc.disable()
        try:
            del joining
            yield
            assert dead() is None
        finally:
            gc.enable()
        return (yield from task), now()

    assert go(main) == ("value", 5)


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


def test_stop_returns_when_the_task_is_really_gone():
    def slow():
        spawn(lingering)
        try:
            yield Sleep(100)
        finally:
            yield Sleep(0.25)

    def lingering():
        try:
            yield Sleep(100)
        finally:
            yield Sleep(0.75)

    def main():
        task = spawn(slow)
        yield Sleep(1)
        assert (yield from task.stop()) is None
        assert task.done
        assert (yield from task.stop()) is None
        return now()

    assert go(main) == 1.75


def test_stop_of_a_task_that_was_faster_returns_its_result():
    def main():
        task = spawn(sleeper, 1, "result")
        yield Sleep(2)
        return (yield from task.stop())

    assert go(main) == "result"


def test_stop_passes_on_a_cancel_that_was_not_its_own():
    """The body of the task ended with the TaskCancelled of a third one."""

    def child(third):
        try:
            yield Sleep(100)
        finally:
            yield from third

    def main():
        third = spawn(sleeper, 50)
        task = spawn(child, third)
        yield Sleep(1)
        third.cancel()
        with pytest.raises(TaskCancelled) as caught:
            yield from task.stop()
        assert caught.value.task is third

    go(main)


def test_a_task_may_end_with_an_exception_as_its_value():
    def child():
        yield
        return ValueError("value")

    def main():
        return (yield from spawn(child))

    assert str(go(main)) == "value"


# Families ----------------------------------------------------------------------------------------


def test_run_returns_when_the_children_of_main_are_done():
    log = []

    def child():
        yield Sleep(3)
        log.append(now())

    def main():
        spawn(child)
        yield
        return "result"

    assert go(main) == "result"
    assert log == [3]


def test_the_children_of_a_failed_task_are_told_why():
    reasons = []

    def child():
        try:
            yield Sleep(100)
        except Cancelled as exc:
            reasons.append(exc.reason)
            raise

    def parent():
        spawn(child)
        spawn(child, daemon=True)
        yield Sleep(1)
        if fail:
            raise ValueError

    def main():
        try:
            yield from spawn(parent)
        except ValueError:
            pass

    fail = True
    go(main)
    assert reasons == ["parent#2, its parent, ended"] * 2


def test_a_daemon_alone_is_cancelled_with_the_body():
    def parent():
        spawn(sleeper, 100, daemon=True)
        yield Sleep(1)

    def main():
        yield from spawn(parent)
        return now()

    assert go(main) == 1


def test_a_daemon_that_ends_first_keeps_nobody():
    def main():
        spawn(sleeper, 1, daemon=True)
        spawn(sleeper, 2)
        yield Sleep(3)
        return now()

    assert go(main) == 3


def test_a_daemon_that_spawns_a_daemon_beside_it_keeps_nobody():
    def daemon(n):
        try:
            yield Sleep(100)
        finally:
            if n:
                spawn(daemon, n - 1, daemon=True, parent=current_task().parent)

    def main():
        spawn(daemon, 3, daemon=True)
        yield Sleep(1)

    go(main)


def test_children_are_cancelled_oldest_first_and_deep():
    log = []

    def child(name):
        if name == "a":
            spawn(child, "aa")
        try:
            yield Sleep(100)
        finally:
            log.append(name)

    def main():
        spawn(child, "a")
        spawn(child, "b")
        yield Sleep(1)
        current_task().cancel()
        yield

    with pytest.raises(TaskCancelled):
        go(main)
    assert sorted(log) == ["a", "aa", "b"] and log.index("a") < log.index("b")


# Failures ----------------------------------------------------------------------------------------


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


def test_a_hook_may_end_the_program():
    def hook(task, exc):
        raise SystemExit(5)

    def main():
        spawn(failing, 0, ValueError("x"))
        yield Sleep(100)

    with pytest.raises(SystemExit) as caught:
        go(main, on_task_error=hook)
    assert caught.value.code == 5


def test_a_callback_may_end_the_program():
    def leave():
        raise SystemExit(6)

    def main():
        current_scheduler().call_soon_threadsafe(leave)
        yield Sleep(100)

    with pytest.raises(SystemExit) as caught:
        go(main)
    assert caught.value.code == 6


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


def test_run_may_be_called_again_after_any_end():
    for error in (ValueError, SystemExit, KeyboardInterrupt):
        with pytest.raises(error):
            go(failing, 0, error())
        assert go(sleeper, 1, "fine") == "fine"


# Re-entry and threads ----------------------------------------------------------------------------


@pytest.mark.hazard("H47")
def test_a_task_that_steps_itself_gets_pythons_error():
    def main():
        with pytest.raises(ValueError, match="already executing"):
            body.send(None)
        yield Sleep(1)
        return "fine"

    body = main()
    assert go(body) == "fine"


@pytest.mark.hazard("H47")
def test_a_scheduler_of_another_thread_refuses_to_turn_or_spawn():
    said = []
    scheduler = Scheduler(**virtual_time())

    def thread():
        for call in (scheduler.turn, lambda: scheduler.run(sleeper), lambda: scheduler.spawn(list)):
            try:
                call()
            except RuntimeError as exc:
                said.append(str(exc))

    in_a_thread(thread)
    scheduler.close()
    assert len(said) == 3 and all("from_thread(scheduler, f, *args)" in text for text in said)


def test_outside_of_a_run_the_plain_calls_say_so():
    calls = (
        lambda: spawn(sleeper),
        now,
        current_task,
        current_scheduler,
        lambda: corolib.close(0),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match=r"no scheduler runs in this thread.*from_thread"):
            call()


def test_in_a_callback_no_task_is_running():
    said = []

    def call():
        try:
            current_task()
        except RuntimeError as exc:
            said.append(str(exc))
        said.append(spawn(sleeper).parent)

    def main():
        current_scheduler().call_soon_threadsafe(call)
        yield Sleep(1)
        return current_task()

    main_task = go(main)
    assert said == [
        "no task is running: this was called between two steps, in a callback",
        main_task,
    ]


# StopIteration and depth -------------------------------------------------------------------------


@pytest.mark.hazard("H46")
def test_a_task_may_return_stop_iteration():
    def child():
        yield
        return StopIteration("value")

    def main():
        value = yield from spawn(child)
        yield
        return value

    value = go(main)
    assert isinstance(value, StopIteration) and value.args == ("value",)


@pytest.mark.hazard("H46")
@pytest.mark.parametrize("waits", [False, True])
def test_a_task_that_raises_stop_iteration_has_failed(waits):
    def child():
        if waits:
            yield
        raise StopIteration("early")
        yield

    def main():
        with pytest.raises(RuntimeError, match="raised StopIteration") as caught:
            yield from spawn(child)
        assert isinstance(caught.value.__cause__, StopIteration)
        return "fine"

    assert go(main) == "fine"


@pytest.mark.hazard("H46")
@pytest.mark.parametrize("how", ["value", "error"])
def test_a_wake_may_carry_stop_iteration(how):
    def arm(wake):
        wake(**{how: StopIteration("carried")})
        return list

    def child():
        value = yield Suspend(arm, "x")
        return "after", value

    def main():
        if how == "value":
            word, value = yield from spawn(child)
            assert word == "after" and isinstance(value, StopIteration)
        else:
            with pytest.raises(RuntimeError, match="raised StopIteration"):
                yield from spawn(child)
        return "fine"

    assert go(main) == "fine"


@pytest.mark.hazard("H53")
def test_deep_delegation_fails_in_the_task_and_not_in_the_loop():
    """900 levels work, 5000 do not; in a thread, where the stack begins empty."""
    results = []

    def deep(n):
        if n:
            return (yield from deep(n - 1))
        yield
        yield Sleep(1)
        return "bottom"

    def ticker():
        for _ in range(20):
            yield
        return "ticked"

    def main():
        ticks = spawn(ticker)
        results.append((yield from spawn(deep, 900)))
        task = spawn(deep, 5000)
        try:
            yield from task
        except RecursionError as exc:
            results.append(type(exc))
        results.append((yield from ticks))

    in_a_thread(lambda: go(main))
    assert results == ["bottom", RecursionError, "ticked"]


# What is left of them ----------------------------------------------------------------------------


def leaves_returning():
    def child():
        yield Sleep(0.1)
        yield Suspend(lambda wake: wake() or list, "x")

    for _ in range(250):
        spawn(child)
    yield


def leaves_failing():
    for _ in range(250):
        spawn(failing, 0, ValueError("x"))
    yield


def leaves_failing_at_once():
    def child():
        raise ValueError
        yield

    for _ in range(250):
        spawn(child)
    yield


def leaves_cancelled():
    def child():
        try:
            yield Sleep(10)
        finally:
            yield Sleep(0.1)

    for n in range(250):
        task = spawn(child)
        if n % 2:
            yield
        task.cancel()
    del task


def leaves_joined():
    def child(error):
        yield Sleep(0.1)
        if error:
            raise ValueError

    for n in range(250):
        try:
            yield from spawn(child, n % 2)
        except ValueError:
            pass


def leaves_stopped():
    def child():
        try:
            yield Sleep(10)
        finally:
            yield

    for _ in range(250):
        yield from spawn(child).stop()


def leaves_failing_clean_up():
    def child():
        try:
            yield Sleep(10)
        finally:
            raise ValueError("clean-up")

    for _ in range(250):
        task = spawn(child)
        yield
        task.cancel()
    del task


def leaves_joined_while_cancelled():
    def joiner():
        yield from spawn(sleeper, 10)

    for _ in range(250):
        task = spawn(joiner)
        yield
        yield
        task.cancel()
    del task


def leaves_wrong_yields():
    def child():
        yield 5

    for _ in range(250):
        spawn(child)
    yield


def leaves_failing_waits():
    def arm(wake):
        raise ValueError

    def arm_that_wakes(wake):
        wake()
        raise ValueError

    def joins_itself():
        yield from current_task()

    for n in range(250):
        spawn((one(Suspend(arm, "x")), one(Suspend(arm_that_wakes, "x")), joins_itself())[n % 3])
    yield


def one(trap):
    yield trap


def leaves_families():
    def parent(fail):
        spawn(sleeper, 0.1)
        spawn(sleeper, 10, daemon=True)
        yield Sleep(0.05)
        if fail:
            raise ValueError

    for n in range(250):
        spawn(parent, n % 2)
    yield


@pytest.mark.hazard("H55")
@pytest.mark.parametrize(
    "scenario",
    [
        leaves_returning,
        leaves_failing,
        leaves_failing_at_once,
        leaves_cancelled,
        leaves_joined,
        leaves_stopped,
        leaves_failing_clean_up,
        leaves_joined_while_cancelled,
        leaves_wrong_yields,
        leaves_failing_waits,
        leaves_families,
    ],
    ids=lambda f: f.__name__,
)
def test_tasks_leave_no_cycles(scenario):
    assert garbage_of(scenario) == []


# Suspend -----------------------------------------------------------------------------------------


def test_what_arm_raises_is_raised_at_the_yield_and_nothing_is_left():
    kept = []

    def arm(wake):
        kept.append(wake)
        raise ValueError("arm")

    def main():
        with pytest.raises(ValueError, match="arm"):
            yield Suspend(arm, "x")
        kept[0]("late")
        yield Sleep(1)
        return "fine"

    assert go(main) == "fine"


@pytest.mark.parametrize("do", [lambda call: call(), in_a_thread], ids=["here", "in a thread"])
def test_arm_may_wake_and_then_fail(do):
    def arm(wake):
        do(lambda: wake("value"))
        raise ValueError("arm")

    def main():
        with pytest.raises(ValueError, match="arm"):
            yield Suspend(arm, "x")
        yield Sleep(1)
        return "fine"

    assert go(main) == "fine"


def test_a_call_that_nobody_made_has_a_site_all_the_same():
    """There are fewer frames than usual where C calls the library in a thread of its own."""
    code, _ = call_site(10**6)
    assert code is sys._getframe().f_code


def test_arm_must_return_a_function():
    def main():
        with pytest.raises(TypeError, match=r"arm of x returned 5: it must return the undo"):
            yield Suspend(lambda wake: 5, "x")
        assert (yield Suspend(lambda wake: wake("value"), "x")) == "value"  # no longer needed

    go(main)


@pytest.mark.parametrize("undo_fails", [False, True])
def test_arm_may_cancel_its_own_task(undo_fails):
    log, lost = [], []

    def undo():
        log.append("undone")
        if undo_fails:
            raise ValueError("undo")

    def arm(wake):
        current_task().cancel()
        return undo

    def child():
        try:
            yield Suspend(arm, "x")
        except Cancelled:
            log.append("cancelled")
            yield Sleep(0.5)
            log.append(now())
            raise

    def main():
        with pytest.raises(TaskCancelled):
            yield from spawn(child)

    go(main, on_task_error=lambda task, exc: lost.append(str(exc)))
    assert log == ["undone", "cancelled", 0.5]
    assert lost == ["undo"] * undo_fails


def test_arm_may_cancel_its_own_task_and_fail():
    """The cancel is not lost, and neither is the failure."""
    lost = []

    def arm(wake):
        current_task().cancel()
        raise ValueError("arm")

    def main():
        with pytest.raises(TaskCancelled):
            yield from spawn(iter(Suspend(arm, "x")))

    go(main, on_task_error=lambda task, exc: lost.append(str(exc)))
    assert lost == ["arm"]


# A policy ----------------------------------------------------------------------------------------


def test_a_scheduling_policy_is_a_small_class():
    class OldestLast(deque):
        def popleft(self):
            return self.pop()

    order = []

    def child(n):
        order.append(n)
        yield

    def main():
        for n in range(3):
            spawn(child, n)
        yield Sleep(1)

    go(main, ready=OldestLast)
    assert order == [2, 1, 0]


def test_turns_by_hand():
    scheduler = Scheduler(**virtual_time())
    task = scheduler.spawn(sleeper, 1, "result")
    assert isinstance(task, Task)
    assert scheduler.main is None and task.parent is None
    scheduler.turn(0)
    assert task.state == "waiting"
    scheduler.turn(0.5)
    assert not task.done
    scheduler.turn()
    assert task.result == "result"
    with pytest.raises(TypeError, match=r"turn\(\)"):
        scheduler.turn("x")
    scheduler.close()


def test_a_scheduler_of_turns_closes_what_is_left_while_its_clean_up_still_finds_it_open(capsys):
    """Later, each would raise RunFinished where the garbage collector drops it."""
    ended = []

    def holder(lock):
        with (yield from lock):
            yield Sleep(100)
        raise AssertionError("nobody goes on after the end")

    def both():
        yield from gather(sleeper(), sleeper())

    def starter():
        with TaskGroup() as group:
            yield from group.start(sleeper)

    def owner():
        try:
            with TaskGroup(limit=1) as group:
                group.spawn(sleeper)
                group.spawn(sleeper)
                yield from group
        finally:
            ended.append(current_scheduler())

    scheduler = Scheduler(**virtual_time(), on_task_error=lambda *failure: ended.append(failure))
    lock = Lock("left")
    tasks = [scheduler.spawn(holder, lock, name=name) for name in "ab"]
    tasks += [scheduler.spawn(f) for f in (owner, both, starter)]
    for _ in range(4):
        scheduler.turn(0)
    scheduler.close()
    assert ended == [scheduler]
    assert all(task.body is None for task in tasks)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 10 and all("was abandoned; it is closed now" in line for line in said)
    assert "<Task a#1 waiting Sleep(100.0), spawned at" in said[-1]
    scheduler.close()  # once more says nothing
    assert capsys.readouterr().err == ""


def test_a_wake_that_the_last_turn_did_not_come_to_is_no_failure(capsys):
    def waiter():
        yield from first(Suspend(lambda wake: wakes.append(wake) or list, "news"), Sleep(100))

    wakes, reported = [], []
    scheduler = Scheduler(**virtual_time(), on_task_error=lambda *failure: reported.append(failure))
    scheduler.spawn(waiter)
    scheduler.turn(0)
    in_a_thread(lambda: wakes[0]("too late"))
    scheduler.close()
    assert reported == []
    assert "waiter#1" in capsys.readouterr().err


# What a stranger found ----------------------------------------------------------------------


def test_one_generator_given_to_two_tasks_is_refused_in_the_second():
    def body():
        yield Sleep(1)
        return now()

    def main():
        once = body()
        first, second = spawn(once), spawn(once)
        with pytest.raises(RuntimeError, match=r"body\(\) was given to two tasks"):
            yield from second
        return (yield from first)

    assert run(main, **virtual_time()) == 1


def test_a_generator_that_is_over_before_its_second_task_begins_is_refused_there():
    def body():
        return "once"
        yield

    def main():
        once = body()
        first, second = spawn(once), spawn(once)
        with pytest.raises(RuntimeError, match=r"body\(\) was given to two tasks"):
            yield from second
        return (yield from first)

    assert run(main) == "once"


def test_one_coroutine_given_to_two_tasks_is_refused_in_the_second():
    async def body():
        await Sleep(1)

    def main():
        once = body()
        first, second = spawn(once), spawn(once)
        with pytest.raises(RuntimeError, match="was given to two tasks"):
            yield from second
        yield from first

    run(main, **virtual_time())


@pytest.mark.parametrize("how", ["failed", "cancelled", "only daemons left"])
def test_a_child_that_comes_after_the_end_of_its_parents_body_is_cancelled(how):
    log = []

    def late():
        try:
            yield Sleep(1000)
        finally:
            log.append(("late", now()))

    def lingers():
        try:
            yield Sleep(1000)
        finally:
            yield Sleep(0.5)

    def parent():
        spawn(lingers, daemon=how == "only daemons left")
        yield
        if how == "failed":
            raise ValueError
        if how == "cancelled":
            yield Sleep(1000)

    def main():
        task = spawn(parent)
        yield
        yield
        if how == "cancelled":
            task.cancel()
        yield
        yield
        assert task.state == "completing"
        spawn(late, parent=task, daemon=how == "only daemons left")
        try:
            yield from task
        except (ValueError, TaskCancelled):
            pass
        return now()

    assert run(main, **virtual_time()) == 0.5
    assert log == [("late", 0)]


def test_the_reason_of_a_cancel_is_that_of_the_first_request():
    def child():
        try:
            yield Sleep(1000)
        finally:
            yield Sleep(0.1)

    def parent():
        spawn(child)
        yield Sleep(1000)

    def main():
        task = spawn(parent)
        yield
        task.cancel("one")
        yield
        assert task.state == "completing"
        task.cancel("two")
        with pytest.raises(TaskCancelled) as info:
            yield from task
        return info.value.reason

    assert run(main, **virtual_time()) == "one"


def test_many_daemons_are_each_cancelled_once(monkeypatch):
    asked = []
    request = Interrupts.request

    def counted(self, task, scope, reason):
        asked.append(task)
        request(self, task, scope, reason)

    monkeypatch.setattr(Interrupts, "request", counted)

    def daemon():
        yield Sleep(1000)

    def main():
        for _ in range(300):
            spawn(daemon, daemon=True)
        yield

    run(main, **virtual_time())
    assert len(asked) == 300


def test_a_running_task_shows_the_calls_it_is_in():
    def deep():
        return [frame.f_code.co_name for frame in current_task().stack()]

    def outer():
        yield
        return deep()

    def main():
        names = yield from outer()
        return names

    assert run(main) == ["main", "outer", "deep"]


def test_the_frames_of_a_task_that_runs_in_another_thread_end_at_its_body():
    box = []

    def main():
        task = current_task()
        in_a_thread(lambda: box.extend(task.stack()))
        yield

    run(main)
    assert [frame.f_code.co_name for frame in box] == ["main"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"clock": 5},
        {"selector": 5},
        {"ready": []},
        {"on_task_error": "log"},
        {"grace": "1"},
    ],
)
def test_an_option_of_the_wrong_kind_is_named(wrong):
    with pytest.raises(TypeError, match=next(iter(wrong))):
        run(lambda: (yield), **wrong)


def test_a_negative_grace_a_wrong_parent_and_a_wrong_context_are_refused():
    with pytest.raises(ValueError, match="grace=-1"):
        run(lambda: (yield), grace=-1)

    def main():
        with pytest.raises(TypeError, match="parent=5"):
            spawn(main, parent=5)
        with pytest.raises(TypeError, match="context=5"):
            spawn(main, context=5)
        with pytest.raises(TypeError, match="an error is an exception"):
            yield Suspend(lambda wake: wake(error=5), "a wrong error")

    run(main)


def test_a_joiner_that_is_cancelled_by_one_who_is_told_before_it_gets_that_and_nothing_else():
    seen = []

    def short():
        yield

    def join(task):
        try:
            seen.append((yield from task))
        except Cancelled:
            seen.append("cancelled")
            for _ in range(3):
                seen.append((yield))
            raise

    def main():
        task = spawn(short)
        task.watch(lambda value, error: joiner.cancel())
        joiner = spawn(join, task)
        with pytest.raises(TaskCancelled):
            yield from joiner

    run(main)
    assert seen == ["cancelled", None, None, None]


def test_a_join_that_a_signal_handler_broke_off_ends_no_later_wait_of_its_task():
    """Whatever a handler of the program's raises in the kernel, is raised in the task."""

    class Strikes(dict):
        def __setitem__(self, joiner, none):
            super().__setitem__(joiner, none)
            raise ValueError("from a signal handler")

    def main():
        task = spawn(sleeper, 1)
        task.joiners = Strikes()
        with pytest.raises(ValueError, match="from a signal handler"):
            yield from task
        yield Sleep(2)
        return now()

    assert go(main) == 2


def test_a_joiner_that_swallows_every_interrupt_is_given_up_and_the_task_goes_on():
    given_up = []

    def join(task):
        while True:
            try:
                yield from task
            except Cancelled:
                pass

    def main():
        task = spawn(sleeper, 5, "value")
        joiner = spawn(join, task)
        yield
        joiner.cancel()
        assert (yield from task) == "value"
        assert given_up == ["join"]
        assert joiner.done and task.joiners is None

    go(main, on_task_error=lambda task, exc: given_up.append(task.name))


def test_a_join_is_none_of_the_waits_of_which_the_first_is_taken():
    def main():
        task = spawn(sleeper, 1, "value")
        for thing in (task, next(iter(task))):
            with pytest.raises(TypeError, match=r"^first\(\) takes traps, .* not (Task|Join)$"):
                yield from first(thing, Sleep(9))
        assert not task.joiners
        return (yield from task)

    assert go(main) == "value"


def test_a_body_that_left_its_group_waits_for_that_before_its_join():
    log = []

    def slow():
        try:
            yield Sleep(9)
        finally:
            yield Sleep(0.5)
            log.append("gone")

    def main():
        task = spawn(sleeper, 0.1, "value")
        with pytest.raises(ValueError, match="x"):
            with TaskGroup() as group:
                group.spawn(slow)
                yield
                raise ValueError("x")
        log.append((yield from task))

    go(main)
    assert log == ["gone", "value"]


SCHEDULED_AT_EXIT = """
import atexit
from corolib import Scheduler, current_task
def main():
    print(current_task())
    yield
atexit.register(Scheduler().run, main)
"""


def test_a_run_that_no_python_has_called_has_a_task_that_says_where_it_is_from():
    done = subprocess.run(
        [sys.executable, "-c", SCHEDULED_AT_EXIT], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert re.fullmatch(r"<Task main#1 running, spawned at .*scheduler\.py:\d+>\n", done.stdout)


# Tasks of other runs, and things that fail when they are put into words --------------------------


def test_a_task_of_another_scheduler_can_be_joined_and_each_stays_in_its_own():
    here, there = Scheduler(**virtual_time()), Scheduler(**virtual_time())
    schedulers = []

    def work():
        yield
        yield
        return "done"

    def joiner(task):
        value = yield from task
        schedulers.append(current_scheduler())
        yield
        return value

    task = there.spawn(work)
    joining = here.spawn(joiner, task)
    cancelled = here.spawn(joiner, task)
    here.turn(0)
    cancelled.cancel()
    while not joining.done:
        there.turn(0)
        here.turn(0)
    assert joining.result == "done"
    assert schedulers == [here]
    assert here.tasks == there.tasks == []
    assert task.joiners is None
    here.close()
    there.close()


def test_a_reason_that_cannot_be_put_into_words_ends_nothing():
    class Rude:
        def __str__(self):
            raise ValueError("no words for it")

    def main():
        task = spawn(sleeper)
        yield
        task.cancel(Rude())
        with pytest.raises(TaskCancelled, match=r"was cancelled: a Rude \(whose str fails\)$"):
            yield from task
        return "still here"

    assert run(main) == "still here"


def test_a_task_spawned_by_code_without_lines_says_where_that_code_begins():
    def spawner():
        return spawn(sleeper)

    bare = types.FunctionType(spawner.__code__.replace(co_linetable=b""), globals())

    def main():
        task = bare()
        assert task.spawned_at == f"{__file__}:{spawner.__code__.co_firstlineno}"
        task.cancel()
        yield

    run(main)
