"""Tasks: their states, who joins them, their families, and what is left of them."""

import gc
import re
import subprocess
import sys
import types
import weakref
from typing import Any

import pytest

from corolib import (
    Cancelled,
    ReadWait,
    Scheduler,
    Sleep,
    Suspend,
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
from corolib.kernel.cancellation import Cancellation
from corolib.kernel.frames import call_site
from corolib.testing import virtual_time
from corolib.trace import Trace
from tests.helpers.driving import double, failing, go, in_a_thread, sleeper, turn
from tests.helpers.garbage import garbage_of
from tests.helpers.odd import misnamed

# States and frames --------------------------------------------------------------------------------


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


def test_frames_are_shown_through_await_and_async_for():
    async def numbers():
        await inner()
        yield 1

    async def inner():
        await double(1)

    async def child():
        async for _ in numbers():
            pass

    def main():
        task = spawn(child)
        yield Sleep(0.5)
        names = [frame.f_code.co_name for frame in task.stack()]
        yield from task
        assert task.stack() == []
        return names

    assert go(main) == ["child", "numbers", "inner", "double"]


@pytest.mark.parametrize("how", ["asend", "athrow", "aclose"])
def test_frames_are_shown_through_the_other_steps_of_an_async_generator(how):
    async def numbers():
        try:
            yield 1
        except KeyError:
            pass
        finally:
            await Sleep(1)
        yield 2

    async def child():
        agen = numbers()
        await agen.__anext__()
        if how == "asend":
            await agen.asend(None)
        elif how == "athrow":
            await agen.athrow(KeyError())
        else:
            await agen.aclose()
        await agen.aclose()

    def main():
        task = spawn(child)
        yield Sleep(0.5)
        names = [frame.f_code.co_name for frame in task.stack()]
        yield from task
        return names

    assert go(main)[:2] == ["child", "numbers"]


class Anything:
    """An iterator that answers every attribute, as a stand-in for something else may."""

    def __getattr__(self, name):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if now() > 0:
            raise StopIteration
        return Sleep(1)

    def send(self, value):
        return next(self)


@pytest.mark.parametrize("traced", [False, True])
def test_what_answers_every_attribute_is_the_end_of_a_stack(traced):
    def child():
        yield from Anything()

    def main():
        task = spawn(child)
        yield Sleep(0.5)
        assert [frame.f_code.co_name for frame in task.stack()] == ["child"]
        yield from task

    run(main, trace=Trace(stacks=True) if traced else None, **virtual_time())


class Nothing(Anything):
    """An iterator that refuses every attribute that it lacks, and by an error of its own."""

    def __getattr__(self, name):
        raise ValueError(name)


@pytest.mark.parametrize("traced", [False, True])
def test_what_refuses_every_attribute_is_the_end_of_a_stack(traced):
    def child():
        yield from Nothing()
        return "went on"

    def main():
        task = spawn(child)
        yield Sleep(0.5)
        assert [frame.f_code.co_name for frame in task.stack()] == ["child"]
        assert "child" in current_scheduler().report()
        return (yield from task)

    trace = Trace(stacks=True) if traced else None
    assert run(main, trace=trace, **virtual_time()) == "went on"


def test_a_call_that_nobody_made_has_a_site_all_the_same():
    """There are fewer frames than usual where C calls the library in a thread of its own."""
    code, _ = call_site(10**6)
    assert code is sys._getframe().f_code


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


# Joining ------------------------------------------------------------------------------------------


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


def test_a_joiner_that_swallows_every_cancel_is_given_up_and_the_task_goes_on():
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


def test_a_join_that_a_signal_handler_broke_off_ends_no_later_wait_of_its_task():
    """Whatever a handler of the program's raises in the kernel, is raised in the task."""

    class Strikes(dict):
        def __setitem__(self, joiner, none):
            super().__setitem__(joiner, none)
            raise ValueError("from a signal handler")

    def main():
        task = spawn(sleeper, 1)
        task.joiners = Strikes({lambda value, error: None: None})
        with pytest.raises(ValueError, match="from a signal handler"):
            yield from task
        yield Sleep(2)
        return now()

    assert go(main) == 2


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
        assert not current_task().await_first

    go(main)
    assert log == ["gone", "value"]


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


@pytest.mark.parametrize("how", ["joined", "stopped"])
def test_a_task_that_is_done_is_joined_and_stopped_without_a_wait_but_for_every_64th(how):
    def main():
        task = spawn(sleeper, 1, "value")
        yield Sleep(2)
        before = turn()
        for _ in range(640):
            assert (yield from (task if how == "joined" else task.stop())) == "value"
        return turn() - before

    assert go(main) == 10


# Stopping -----------------------------------------------------------------------------------------


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


def test_a_task_of_another_scheduler_can_be_stopped():
    here, there = Scheduler(**virtual_time()), Scheduler(**virtual_time())
    task = there.spawn(sleeper)
    there.turn(0)
    stopping = here.spawn(task.stop)
    while not stopping.done:
        here.turn(0)
        there.turn(0)
    assert task.cancelled and stopping.result is None
    here.close()
    there.close()


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


# Families -----------------------------------------------------------------------------------------


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


def test_many_daemons_are_each_cancelled_once(monkeypatch):
    asked = []
    request_all = Cancellation.request_all

    def counted(self, tasks, reason):
        asked.extend(tasks)
        request_all(self, tasks, reason)

    monkeypatch.setattr(Cancellation, "request_all", counted)

    def daemon():
        yield Sleep(1000)

    def main():
        for _ in range(300):
            spawn(daemon, daemon=True)
        yield

    run(main, **virtual_time())
    assert len(asked) == 300


# async def ----------------------------------------------------------------------------------------


def test_tasks_can_be_awaited():
    async def child(x):
        await Sleep(1)
        return x

    async def main():
        a, b = spawn(child, "a"), spawn(child("b"))
        return await a, await b

    assert go(main) == ("a", "b")


def test_a_generator_task_can_be_awaited():
    def child():
        yield Sleep(1)
        raise ValueError("child")

    async def main():
        with pytest.raises(ValueError, match="child"):
            await spawn(child)
        task = spawn(child)
        assert await task.stop() is None

    go(main)


def test_cancel_and_clean_up():
    log = []

    async def child():
        try:
            await Sleep(100)
        except Cancelled as exc:
            log.append(exc.reason)
            raise
        finally:
            await Sleep(0.5)
            log.append(now())

    async def main():
        task = spawn(child)
        await Sleep(1)
        task.cancel("why")
        with pytest.raises(TaskCancelled):
            await task

    go(main)
    assert log == ["why", 1.5]


def test_an_async_generator_is_consumed():
    async def count(n):
        for i in range(n):
            await Sleep(1)
            yield i

    async def main():
        return [i async for i in count(3)], now()

    assert go(main) == ([0, 1, 2], 3)


# What is left of them -----------------------------------------------------------------------------


def leaves_returning():
    def child():
        yield Sleep(0.1)
        yield Suspend(lambda wake: wake() or list, "x")

    for _ in range(250):
        spawn(child)
    yield


def leaves_woken():
    waiting = []

    def arm(wake):
        waiting.append(wake)
        return lambda: waiting.remove(wake)

    def child():
        yield Suspend(arm, "x", outside=True)

    for _ in range(250):
        spawn(child)
        yield
        waiting.pop()()
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


def one(trap):
    yield trap


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
        leaves_woken,
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


# Names -------------------------------------------------------------------------------------------


@misnamed
def odd(x=None):
    yield
    return x


@misnamed
async def odd_coroutine():
    return 1


@misnamed
class Odd:
    def __repr__(self):
        raise RuntimeError("no repr")


THING: Any = Odd()


def yields(thing):
    yield thing


def is_stepped_twice():
    call = odd()
    spawn(call)
    yield from spawn(call)


def is_spawned_when_begun():
    call = odd()
    next(call)
    spawn(call)
    yield


def spawns(thing):
    spawn(thing)
    yield


@pytest.mark.parametrize(
    ("main", "args", "said"),
    [
        (yields, [odd()], "the generator odd()"),
        (yields, [odd_coroutine()], "the coroutine odd()"),
        (yields, [Odd], "not a trap"),
        (yields, [Odd()], "yielded a odd (whose repr fails)"),
        (spawns, [misnamed(lambda: 3)], "it has no `yield`"),
        (spawns, [Odd()], "got a odd (whose repr fails)"),
        (is_spawned_when_begun, [], "got odd(), which was started before"),
        (is_stepped_twice, [], "odd() was given to two tasks"),
        (yields, [Suspend(lambda wake: THING, THING)], "returned a odd (whose repr fails)"),
        (yields, [ReadWait(Odd())], "a odd is not a file"),
    ],
)
def test_who_has_a_name_that_cannot_be_written_is_named_all_the_same(main, args, said):
    with pytest.raises((TypeError, RuntimeError), match=re.escape(said)):
        run(main, *args)


def test_a_task_whose_function_has_a_name_that_cannot_be_written():
    def main():
        tasks = [spawn(odd, 1), spawn(odd(2)), spawn(odd_coroutine)]
        yield
        assert "odd#2" in current_scheduler().report()
        assert [task.label for task in tasks] == ["odd#2", "odd#3", "odd#4"]
        return (yield from gather(*tasks))

    async def reads():
        return [x async for x in odd_numbers()]

    @misnamed
    async def odd_numbers():
        yield 1

    assert run(main) == [1, 2, 1]
    assert run(reads) == [1]
