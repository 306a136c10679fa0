"""The scheduler: what can be run, how tasks begin, their steps, and turns by hand."""

import contextlib
import contextvars
import math
import select
import selectors
import weakref
from collections import deque

import pytest

import corolib
from corolib import (
    RunFinished,
    Scheduler,
    Sleep,
    Suspend,
    Task,
    current_scheduler,
    current_task,
    first,
    now,
    run,
    spawn,
)
from corolib.testing import virtual_time
from tests.helpers.driving import double, go, in_a_thread, sleeper, turn, turns
from tests.helpers.inside import Bound, remake_selector

# Starting -----------------------------------------------------------------------------------------


def test_spawn_takes_a_function_and_arguments_or_the_call_itself():
    def main():
        a = spawn(sleeper, 1, "a")
        b = spawn(sleeper(2, "b"))
        return (yield from a), (yield from b)

    assert go(main) == ("a", "b")
    assert go(sleeper(1, "c")) == "c"


def test_a_coroutine_itself_can_be_run():
    async def main():
        await Sleep(1)
        return now()

    assert go(main()) == 1


def test_from_a_generator_an_async_def_is_spawned():
    async def child(x):
        return await double(x)

    def main():
        return (yield from spawn(child, 3))

    assert go(main) == 6


def test_a_body_that_only_looks_like_a_generator_will_do():
    class Body:
        def __init__(self):
            self.inner = sleeper()
            self.send, self.throw, self.close = (
                self.inner.send,
                self.inner.throw,
                self.inner.close,
            )

    def main():
        task = spawn(Body())
        assert task.label == "Body#2"
        yield from task

    go(main)


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


def test_a_task_that_a_signal_handler_spawns_meanwhile_has_a_number_of_its_own():
    struck = []

    class Striking(Scheduler):
        def make_stepper(self, context):
            if self.current is not None and not struck:
                struck.append(True)
                spawn(sleeper, 1)  # what a handler would do that is called here
            return super().make_stepper(context)

    def main():
        task = spawn(sleeper, 2)
        assert len({task.id for task in current_scheduler().tasks}) == 3
        yield from task

    scheduler = Striking(**virtual_time())
    scheduler.run(main)
    assert struck
    scheduler.close()


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


def test_an_async_def_that_is_dropped_by_a_failed_spawn_does_not_complain():
    async def child():
        await Sleep(1)

    def main():
        done = spawn(double, 1)
        yield from done
        coroutine = child()
        with pytest.raises(RuntimeError, match="is done"):
            spawn(coroutine, parent=done)
        coroutine.close()

    go(main)


# One body and two tasks ---------------------------------------------------------------------------


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


# Steps --------------------------------------------------------------------------------------------


@pytest.mark.hazard("H47")
def test_a_task_that_steps_itself_gets_pythons_error():
    def main():
        with pytest.raises(ValueError, match="already executing"):
            body.send(None)
        yield Sleep(1)
        return "fine"

    body = main()
    assert go(body) == "fine"


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


def test_a_task_may_end_with_an_exception_as_its_value():
    def child():
        yield
        return ValueError("value")

    def main():
        return (yield from spawn(child))

    assert str(go(main)) == "value"


def test_generator_exit_raised_by_a_body_is_a_failure():
    lost = []

    def child():
        yield
        raise GeneratorExit

    def main():
        spawn(child)
        yield Sleep(1)
        return "fine"

    assert go(main, on_task_error=lambda task, exc: lost.append(type(exc))) == "fine"
    assert lost == [GeneratorExit]


@pytest.mark.parametrize("then", ["waits", "returns", "fails"])
@pytest.mark.parametrize("what", ["value", "error"])
def test_what_ended_a_wait_is_kept_no_longer_than_the_task_keeps_it(what, then):
    class Given(Exception):
        pass

    wakes, given, seen = [], [], []

    def taker():
        try:
            yield Suspend(lambda wake: wakes.append(wake) or (lambda: None), "something")
        except Given:
            pass
        if then == "waits":
            yield
        elif then == "fails":
            raise ValueError

    def main():
        task = spawn(taker)
        task.watch(lambda value, error: None)  # so that nobody is told of a failure
        yield
        yield
        thing = Given()
        given.append(weakref.ref(thing))
        wakes[0](**{what: thing})
        del thing
        yield
        seen.append(given[0]())

    go(main)
    assert seen == [None]


# Runs and turns -----------------------------------------------------------------------------------


def test_a_scheduler_runs_once():
    scheduler = Scheduler(**virtual_time())
    scheduler.run(sleeper)
    for call in (scheduler.run, scheduler.spawn):
        with pytest.raises(RunFinished, match="has ended"):
            call(sleeper)
    with pytest.raises(RunFinished):
        scheduler.turn()


@pytest.mark.hazard("H47")
def test_a_scheduler_of_another_thread_refuses_to_turn_or_spawn(pair):
    said = []
    scheduler = Scheduler(**virtual_time())
    calls = [
        *(scheduler.turn, lambda: scheduler.run(sleeper), lambda: scheduler.spawn(list)),
        lambda: scheduler.close_file(pair[0]),
    ]

    def thread():
        for call in calls:
            try:
                call()
            except RuntimeError as exc:
                said.append(str(exc))

    in_a_thread(thread)
    scheduler.close()
    assert len(said) == 4 and all("from_thread(scheduler, f, *args)" in text for text in said)


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


def test_what_another_loop_watches_can_be_read_when_there_is_something_to_do():
    scheduler = Scheduler()
    with pytest.raises(RuntimeError, match=r"call `open\(\)` first"):
        scheduler.fileno()
    with contextlib.closing(scheduler):
        changed = []
        scheduler.embed(lambda: changed.append(scheduler.fileno()))
        watched = [scheduler.fileno()]
        assert select.select(watched, [], [], 0)[0] == []
        scheduler.spawn(turns, 1)
        assert select.select(watched, [], [], 0)[0] == watched
        scheduler.turn(0)
        assert scheduler.has_work
        scheduler.turn(0)
        assert not scheduler.has_work
        scheduler.turn(0)
        assert select.select(watched, [], [], 0)[0] == []
        scheduler.spawn(turns, 1)
        assert select.select(watched, [], [], 0)[0] == watched
        assert changed == []
        remake_selector(scheduler)
        assert changed == [scheduler.fileno()]
    with contextlib.closing(Scheduler(selector=selectors.SelectSelector)) as scheduler:
        scheduler.open()
        with pytest.raises(NotImplementedError, match="SelectSelector has no number"):
            scheduler.fileno()


def test_cancels_work_between_turns():
    scheduler = Scheduler(**virtual_time(), ready=deque)
    log = []

    def child():
        try:
            yield Sleep(100)
        finally:
            log.append("clean")

    task = scheduler.spawn(child)
    scheduler.turn(0)
    task.cancel("between")
    scheduler.turn(0)
    assert log == ["clean"] and task.cancelled
    scheduler.close()


def test_a_turn_lets_system_exit_of_a_task_out_once():
    def leaves():
        yield
        raise SystemExit(3)

    scheduler = corolib.Scheduler()
    scheduler.spawn(leaves)
    scheduler.turn(0)
    with pytest.raises(SystemExit):
        scheduler.turn(0)

    def main():
        yield
        return "healthy"

    assert scheduler.run(main) == "healthy"


# What a scheduler is made of ----------------------------------------------------------------------


def test_a_cancel_at_a_wait_that_is_not_made_delays_no_other_task():
    stepped = []

    def cancelled():
        with Bound() as bound:
            yield
            bound.cancel()
            stepped.append(turn())
            yield Sleep(1)

    def other():
        yield
        stepped.append(turn())

    def main():
        spawn(cancelled)
        spawn(other)
        yield Sleep(5)

    go(main)
    assert len(stepped) == 2 and stepped[0] == stepped[1]


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


def test_a_scheduling_policy_may_ask_what_it_orders_for_all_that_a_task_tells():
    asked = set()

    class Asking(deque):
        def append(self, task):
            asked.add((task.name, task.id, task.parent, task.daemon, task.done, task.state))
            super().append(task)

    def main():
        return (yield from first(Sleep(1), Sleep(2)))

    assert go(main, ready=Asking) == (0, None)
    assert {name for name, *_ in asked} == {"main"}


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


@pytest.mark.parametrize("grace", [math.nan, -math.inf])
def test_a_grace_that_is_no_duration_is_refused(grace):
    with pytest.raises(ValueError, match="grace="):
        run(iter, (), grace=grace)


@pytest.mark.parametrize("what", ["ready", "family"])
def test_a_task_for_which_there_is_no_memory_was_never_made(what):
    class Full(deque):
        def append(self, task):
            if task.name == "sleeper" and what == "ready":
                raise MemoryError
            super().append(task)

    class Childless(dict):
        def __setitem__(self, number, task):
            raise MemoryError

    def main():
        if what == "family":
            current_task().family = Childless()
        with pytest.raises(MemoryError):
            spawn(sleeper, 9)
        assert not current_task().children
        assert current_scheduler().tasks == [current_task()]
        return now()
        yield

    assert go(main, ready=Full) == 0
