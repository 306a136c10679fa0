"""Groups, gather, race, as_completed and map_concurrent: the law of groups, and the rest."""

import gc
import math
import re
import sys
from itertools import islice

import pytest

from corolib import (
    Cancelled,
    Deadlock,
    Queue,
    ScopeError,
    Sleep,
    Suspend,
    TaskCancelled,
    TaskGroup,
    as_completed,
    current_scheduler,
    current_task,
    first_success,
    gather,
    map_concurrent,
    move_on_after,
    now,
    race,
    shield,
    spawn,
    started,
    timeout,
    waits,
)
from corolib.kernel.waits import DEBUG
from corolib.testing import cancel_everywhere, survivors
from tests.helpers.driving import FULL, failing, go, lose, names, sleeper, turn
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import await_first, set_budget


def stubborn(seconds, exc=None, log=None):
    """Sleep for ever; clean up for `seconds`, and fail then if asked to."""
    try:
        yield Sleep(math.inf)
    finally:
        yield Sleep(seconds)
        if log is not None:
            log.append(now())
        if exc is not None:
            raise exc


# The law ------------------------------------------------------------------------------------------


def test_law_groups_a_group_is_a_scope():
    def main():
        with TaskGroup() as g:
            assert current_task().innermost is g
            g.spawn(sleeper, 1, "a")
            g.spawn(sleeper, 2, "b")
            assert len(g.tasks) == 2 and all(t.parent is current_task() for t in g.tasks)
            results = yield from g
            assert g.tasks == []
        assert current_task().innermost is None
        return results, now()

    assert go(main) == (["a", "b"], 2)


def test_law_groups_the_first_failure_cancels_the_siblings():
    log = []

    def main():
        with pytest.raises(ExceptionGroup) as caught:
            with TaskGroup() as g:
                g.spawn(stubborn, 0.5, None, log)
                g.spawn(failing, 1, KeyError("x"))
                g.spawn(stubborn, 0.25, None, log)
                yield from g
        assert [repr(e) for e in caught.value.exceptions] == ["KeyError('x')"]
        assert str(caught.value) == "1 of 3 tasks failed (1 sub-exception)"
        return now()

    assert go(main) == 1.5  # they are gone before it is raised
    assert log == [1.25, 1.5]


def test_law_groups_a_body_that_waits_for_anything_else_is_cancelled_when_they_are_gone():
    log = []

    def main():
        with pytest.raises(ExceptionGroup):
            with TaskGroup() as g:
                g.spawn(stubborn, 0.5, None, log)
                g.spawn(failing, 1, KeyError("x"))
                try:
                    yield Sleep(60)
                finally:
                    log.append(("body", now()))
        yield Sleep(10)
        return now()

    assert go(main) == 11.5
    assert log == [1.5, ("body", 1.5)]


@pytest.mark.hazard("H58")
def test_law_groups_the_failures_are_raised_in_spawn_order():
    def main():
        with pytest.raises(ExceptionGroup) as caught:
            with TaskGroup() as g:
                g.spawn(stubborn, 0.5, KeyError("a"))
                g.spawn(sleeper)
                g.spawn(stubborn, 0.1, KeyError("b"))
                g.spawn(failing, 1, KeyError("c"))
                yield from g
        assert str(caught.value).startswith("3 of 4 tasks failed")
        return [e.args[0] for e in caught.value.exceptions]

    assert go(main) == ["a", "b", "c"]


@pytest.mark.hazard("H58")
def test_law_groups_a_body_that_raises_leaves_with_its_own_exception_unwrapped():
    kept = []

    def main():
        error = KeyError("A")
        with pytest.raises(KeyError) as caught:
            with TaskGroup() as g:
                g.spawn(stubborn, 0.5, ValueError("B"))
                g.spawn(stubborn, 0.25, ValueError("C"))
                g.spawn(stubborn, 0.1)
                yield Sleep(1)
                raise error
        assert caught.value is error
        kept.append(error)
        assert now() == 1 and len(current_task().children) == 3
        yield  # the next wait first waits for them
        assert now() == 1.5 and current_task().children == []

    _, lost = lose(main)
    assert lost == [("stubborn", "C"), ("stubborn", "B")]
    notes = kept[0].__notes__
    assert len(notes) == 2
    assert notes[0].endswith("of the group failed as well: ValueError: C")
    assert notes[1].startswith("task stubborn#")


@pytest.mark.hazard("H58")
def test_a_body_that_raises_out_of_run_waits_for_its_tasks_without_another_wait():
    lost, log = [], []

    def main():
        with TaskGroup() as g:
            g.spawn(stubborn, 0.5, ValueError("B"), log)
            g.spawn(stubborn, 0.5, ValueError("C"), log)
            yield Sleep(1)
            raise KeyError("A")

    with pytest.raises(KeyError, match="A") as caught:
        go(main, on_task_error=lambda task, exc: lost.append(str(exc)))
    assert lost == ["B", "C"] and log == [1.5, 1.5]
    assert len(caught.value.__notes__) == 2


def test_law_groups_a_failure_before_the_body_raised_is_reported_and_noted_too():
    def main():
        try:
            with TaskGroup() as g:
                g.spawn(failing, 1, ValueError("B"))
                try:
                    yield Sleep(60)
                except Cancelled:
                    raise KeyError("A") from None
        except KeyError as exc:
            return exc.__notes__

    notes, lost = lose(main)
    assert lost == [("failing", "B")]
    assert notes == ["task failing#2 of the group failed as well: ValueError: B"]


def test_law_groups_a_block_left_without_a_wait_for_it_is_an_error_always():
    def main():
        with pytest.raises(RuntimeError) as one:
            with TaskGroup() as g:
                g.spawn(stubborn, 0.5, name="work")
                yield
        with pytest.raises(RuntimeError) as two:
            with TaskGroup() as g:
                g.spawn(sleeper, name="a")
                g.spawn(sleeper, name="b")
                yield
        with pytest.raises(RuntimeError) as none:
            with TaskGroup() as g:
                task = g.spawn(sleeper)
                yield from task
        with pytest.raises(RuntimeError) as empty:
            with TaskGroup() as g:
                pass
        assert current_task().innermost is None
        return [str(x.value) for x in (one, two, none, empty)]

    text = "TaskGroup block ended without `yield from group`"
    assert go(main) == [
        text + "; 1 task was running (work#2) and was cancelled",
        text + "; 2 tasks were running (a#3, b#4) and were cancelled",
        text,
        text,
    ]


@pytest.mark.parametrize("limit", [None, 2])
def test_law_groups_spawning_into_a_failed_or_ended_group_raises(limit):
    async def coroutine():
        pass

    def main():
        g = TaskGroup(limit=limit)
        with pytest.raises(RuntimeError, match="this group has not begun: no task can be spawned"):
            g.spawn(sleeper)
        with g:
            yield from g
            with pytest.raises(RuntimeError, match="this group has ended"):
                g.spawn(sleeper)
        with pytest.raises(RuntimeError, match="this group has ended"):
            g.spawn(sleeper)
        with pytest.raises(ExceptionGroup):
            with TaskGroup(limit=limit) as g:
                g.spawn(failing, 1, KeyError())
                g.spawn(stubborn, 0.5)
                with shield():
                    yield Sleep(1.25)
                with pytest.raises(RuntimeError, match="this group has failed"):
                    g.spawn(coroutine())  # closed: it does not say that nobody awaited it
                with pytest.raises(RuntimeError, match="this group has failed"):
                    g.spawn(sleeper)
                with pytest.raises(RuntimeError, match="this group has failed"):
                    yield from g.start(sleeper)
                yield from g

    go(main)


@pytest.mark.found("T4")
@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize("how", ["spawn", "start"])
def test_a_refused_spawn_leaves_the_block_as_the_failure_that_is_behind_it(limit, how):
    """Siblings clean up meanwhile; the task waits for them before it goes on."""
    ended = []

    def tidy():
        try:
            yield Sleep(100)
        finally:
            yield Sleep(0.5)
            ended.append(now())

    def main():
        with pytest.raises(ExceptionGroup) as caught:
            with TaskGroup(limit=limit) as g:
                g.spawn(failing, 1, KeyError("cause"))
                g.spawn(tidy)
                with shield():
                    yield Sleep(1.25)
                if how == "spawn":
                    g.spawn(sleeper)
                else:
                    yield from g.start(sleeper)
        assert [repr(e) for e in caught.value.exceptions] == ["KeyError('cause')"]
        yield
        assert ended == [1.5]

    go(main)


def test_a_refusal_by_another_group_is_the_bodys_own_error():
    def main():
        with pytest.raises(RuntimeError, match="this group has ended"):
            with TaskGroup() as ended:
                yield from ended
            with TaskGroup() as g:
                g.spawn(failing, 1, KeyError())
                g.spawn(stubborn, 0.5)
                with shield():
                    yield Sleep(1.25)
                ended.spawn(sleeper)

    failed = []
    go(main, on_task_error=lambda task, exc: failed.append(exc))
    assert [type(exc) for exc in failed] == [KeyError]


def test_law_groups_with_a_limit_a_task_that_never_got_its_turn_is_never_started():
    called = []

    def work(n):
        called.append(n)
        return failing(1, KeyError(n)) if n == 0 else stubborn(0.5)

    def main():
        with pytest.raises(ExceptionGroup) as caught:
            with TaskGroup(limit=2) as g:
                tasks = [g.spawn(work, n) for n in range(6)]
                yield
                yield
                assert called == [0, 1]
                yield from g
        assert [str(e) for e in caught.value.exceptions] == ["0"]
        assert all(task.cancelled for task in tasks[1:])

    go(main)
    assert called == [0, 1]


# Groups: limits -----------------------------------------------------------------------------------


def test_turns_are_given_first_come_first_served():
    log = []

    def work(n):
        log.append(("begin", n, now()))
        yield Sleep(1)
        return n

    def main():
        with TaskGroup(limit=2) as g:
            for n in range(5):
                g.spawn(work, n)
            yield
            yield
            assert [repr(t.wait) for t in g.tasks[2:]] == ["its turn in a group of 2"] * 3
            return (yield from g)

    assert go(main) == [0, 1, 2, 3, 4]
    assert log == [("begin", n, n // 2) for n in range(5)]


def test_a_turn_that_was_given_to_a_task_that_is_then_cancelled_is_handed_on():
    log = []

    def work(n):
        log.append(n)
        yield Sleep(1)

    def main():
        with TaskGroup(limit=1) as g:
            a, b, c, d = (g.spawn(work, n) for n in range(4))
            yield Sleep(0.5)
            c.cancel()  # in the queue
            yield from a
            b.cancel()  # it has just been given its turn, and begins
            yield from g
        assert b.cancelled and c.cancelled and not d.cancelled
        return now()

    assert go(main) == 2
    assert log == [0, 1, 3]


def test_a_group_with_a_limit_runs_calls_and_async_functions_and_names_them(recwarn):
    async def coroutine(x):
        await Sleep(1)
        return x

    @waits
    def marked(x):
        yield Sleep(1)
        return x

    class Foreign:
        """As compiled coroutines are: it can be awaited and stepped, not iterated over."""

        def __init__(self):
            self.inner = coroutine("foreign")

        def __await__(self):
            return self.inner.__await__()

        def send(self, value):
            return self.inner.send(value)

        def throw(self, *exc):
            return self.inner.throw(*exc)

        def close(self):
            self.inner.close()

    def main():
        with TaskGroup(limit=1) as g:
            tasks = [
                g.spawn(coroutine, "a"),
                g.spawn(coroutine("b")),
                g.spawn(sleeper(1, "c")),
                g.spawn(marked("d")),
                g.spawn(Foreign()),
                g.spawn(sleeper, 1, "e", name="named"),
            ]
            said = names(tasks)
            results = yield from g
        with move_on_after(1.5), TaskGroup(limit=1) as g:  # what never begins does not complain
            for call in (sleeper(5), coroutine("b"), marked("d"), sleeper(3)):
                g.spawn(call)
            yield from g
        return said, results

    said, results = go(main)
    assert said == ["coroutine", "coroutine", "sleeper", "marked", "Foreign", "named"]
    assert results == ["a", "b", "c", "d", "foreign", "e"]
    gc.collect()
    assert not recwarn.list


def test_mistakes_of_a_spawn_into_a_group_show_at_once():
    def main():
        with TaskGroup(limit=1) as g:
            with pytest.raises(TypeError, match=r"spawn\(\) got 5"):
                g.spawn(5)
            yield from g
        with TaskGroup() as g:
            with pytest.raises(TypeError, match=r"spawn\(\) got None from"):
                g.spawn(lambda: None)
            yield from g

    go(main)
    for bad in (0, -1, True, 2.5, math.inf, "2"):
        with pytest.raises((ValueError, TypeError), match=r"TaskGroup\(limit=\) takes a"):
            TaskGroup(limit=bad)


# Groups: the body and the wait --------------------------------------------------------------------


def test_a_task_cancelled_alone_leaves_none_and_disturbs_nobody():
    def main():
        with TaskGroup() as g:
            task = g.spawn(sleeper, 1, "a")
            g.spawn(sleeper, 2, "b")
            yield
            task.cancel()
            return (yield from g)

    assert go(main) == [None, "b"]


def test_a_task_that_joins_a_cancelled_one_has_failed():
    def main():
        with pytest.raises(ExceptionGroup) as caught:
            with TaskGroup() as g:
                victim = g.spawn(sleeper, 5)
                g.spawn(joiner, victim)
                yield Sleep(1)
                victim.cancel()
                yield from g
        assert isinstance(caught.value.exceptions[0], TaskCancelled)

    def joiner(task):
        yield from task

    go(main)


def test_a_group_is_waited_for_by_its_owner_inside_its_block():
    text = "a group is waited for by the task that owns it, inside its block"

    def other(g):
        with pytest.raises(RuntimeError, match=text):
            yield from g
        yield

    def main():
        with TaskGroup() as g:
            yield from spawn(other, g)
            yield from g
            with pytest.raises(RuntimeError, match="this group has ended: it was waited for befor"):
                yield from g
        with pytest.raises(ExceptionGroup):
            with TaskGroup() as g:
                g.spawn(failing, 1, KeyError())
                try:
                    yield from g
                finally:
                    with pytest.raises(RuntimeError, match="this group has ended: it was waited"):
                        yield from g
        with pytest.raises(RuntimeError, match=text):
            yield from g
        with pytest.raises(RuntimeError, match=text):
            yield from TaskGroup()

    go(main)


def test_a_task_that_is_spawned_at_the_last_moment_is_waited_for():
    def other(g):
        yield Sleep(1)
        yield  # the task of the group ends meanwhile, and its owner is woken
        assert g.tasks == []
        g.spawn(sleeper, 1, "late")

    def main():
        with TaskGroup() as g:
            spawn(other, g)
            g.spawn(sleeper, 1, "early")
            return (yield from g)

    assert go(main) == ["early", "late"]


def test_nested_groups():
    def main():
        with pytest.raises(ExceptionGroup) as caught:
            with TaskGroup() as outer:
                outer.spawn(stubborn, 0.5)
                with TaskGroup() as inner:
                    inner.spawn(failing, 1, KeyError("inner"))
                    inner.spawn(stubborn, 0.25)
                    yield from inner
        assert [repr(e) for e in caught.value.exceptions] == ["KeyError('inner')"]
        assert now() == 1.25
        yield
        assert now() == 1.75  # for those of the outer group

    go(main)


def test_the_failure_of_an_outer_group_cancels_the_wait_for_an_inner_one():
    def main():
        with pytest.raises(ExceptionGroup, match="1 of 1"):
            with TaskGroup() as outer:
                outer.spawn(failing, 1, KeyError("outer"))
                with TaskGroup() as inner:
                    inner.spawn(stubborn, 0.25, ValueError("inner"))
                    yield from inner
        assert now() == 1
        yield
        return now()

    assert lose(main) == (1.25, [("stubborn", "inner")])


def test_a_timeout_around_a_group_bounds_it_and_one_inside_bounds_the_wait():
    def main():
        with move_on_after(1) as scope:
            with TaskGroup() as g:
                g.spawn(stubborn, 0.5)
                yield from g
        assert scope.expired and now() == 1 and g.tasks
        yield
        assert now() == 1.5 and not g.tasks
        with TaskGroup() as g:
            g.spawn(sleeper, 5, "x")
            with move_on_after(1) as scope:
                yield from g
            assert scope.expired and now() == 2.5
            return (yield from g), now()

    assert go(main) == (["x"], 6.5)


def test_the_timeout_of_a_group_says_what_was_waited_for():
    def main():
        with pytest.raises(TimeoutError) as caught:
            with timeout(1), TaskGroup() as g:
                g.spawn(sleeper, 5)
                yield from g
        return str(caught.value)

    assert go(main).endswith(
        "expired while waiting for the tasks of a group <TaskGroup open, 1 of 1 tasks running>"
    )


def test_a_failure_while_the_body_runs_without_waiting_shows_at_its_next_wait():
    def main():
        with pytest.raises(ExceptionGroup):
            with TaskGroup() as g:
                g.spawn(failing, 0, KeyError())
                yield
                yield
                # has failed by now, and the cancel is due
                yield Sleep(60)
        assert now() == 0
        with pytest.raises(ExceptionGroup):
            with TaskGroup() as g:
                yield from g.spawn(failing, 1, KeyError())  # the group is told first
        with pytest.raises(RuntimeError, match="without `yield from group`") as caught:
            with TaskGroup() as g:
                g.spawn(failing, 1, KeyError("x"))
                with shield():
                    yield Sleep(1.5)
        return caught.value.__notes__[0][-31:]

    result, lost = lose(main)
    assert result == "p failed as well: KeyError: 'x'"
    assert lost == [("failing", "'x'")]


def test_a_failure_while_the_body_is_in_a_shield_waits_for_its_end():
    def main():
        with pytest.raises(ExceptionGroup):
            with TaskGroup() as g:
                g.spawn(failing, 1, KeyError())
                with shield():
                    yield Sleep(1.5)
                assert now() == 1.5
                yield Sleep(60)
        assert now() == 1.5
        with pytest.raises(ExceptionGroup):
            with TaskGroup() as g:
                g.spawn(failing, 1, KeyError())
                with shield():
                    yield from g
        return now()

    assert go(main) == 2.5


def test_a_body_that_swallows_the_cancel_still_gets_the_failures_from_the_wait():
    def main():
        with pytest.raises(ExceptionGroup):
            with TaskGroup() as g:
                g.spawn(failing, 1, KeyError())
                try:
                    yield Sleep(60)
                except Cancelled:
                    pass
                yield from g

    go(main)


def test_a_body_that_takes_the_failures_while_it_is_cancelled_has_dealt_with_them():
    def takes(g):
        try:
            yield Sleep(60)
        finally:
            with pytest.raises(ExceptionGroup):
                yield from g

    def main():
        with TaskGroup() as g:
            g.spawn(failing, 1, KeyError())
            yield from takes(g)
        assert current_task().innermost is None
        yield Sleep(1)
        yield from spawn(asynchronous)
        return now()

    async def asynchronous():
        async with TaskGroup() as g:
            g.spawn(failing, 1, KeyError())
            await waits(takes)(g)

    assert go(main) == 3


def test_the_next_wait_after_a_group_is_cancelled_and_the_one_after_it_waits_again():
    def main():
        with move_on_after(1.5):
            try:
                with TaskGroup() as g:
                    g.spawn(stubborn, 0.75)
                    g.spawn(stubborn, 0.25)
                    yield Sleep(1)
                    raise KeyError
            except KeyError:
                task = current_task()
                current_scheduler().call_at(1.1, lambda _: said.append(repr(task.wait)), None)
                yield Sleep(60)
        assert now() == 1.5 and len(g.tasks) == 1
        wakes = []
        value = yield Suspend(lambda wake: (wakes.append(wake), wake("its own"), list)[2], "x")
        assert value == "its own" and now() == 1.75 and g.tasks == []

    said = []
    go(main)
    assert said == ["the end of stubborn#2, stubborn#3"]


def test_a_put_off_wait_for_many_names_a_few():
    def main():
        try:
            with TaskGroup() as g:
                for _ in range(1000):
                    g.spawn(stubborn, 0.5)
                yield Sleep(0)
                raise KeyError
        except KeyError:
            task = current_task()
            current_scheduler().call_at(0.1, lambda _: said.append(repr(task.wait)), None)
            yield Sleep(0)
        assert now() == 0.5

    said = []
    go(main)
    names = ", ".join(f"stubborn#{number}" for number in range(2, 7))
    assert said == [f"the end of {names} and 995 more"]


def test_a_put_off_wait_of_two_groups_waits_for_both_and_a_wrong_yield_is_told_after_it():
    def main():
        for seconds in (0.75, 0.25):
            with pytest.raises(KeyError):
                with TaskGroup() as g:
                    g.spawn(stubborn, seconds)
                    yield
                    yield
                    raise KeyError
        assert now() == 0.75  # the second group's first wait waited for the first
        with pytest.raises(TypeError, match=r"Did you mean `yield Sleep\(5\)`"):
            yield 5
        return now()

    assert go(main) == 1.0


def test_tasks_that_are_gone_by_the_next_wait_put_nothing_off():
    def main():
        with pytest.raises(KeyError):
            with TaskGroup() as g:
                task = g.spawn(stubborn, 0)
                yield Sleep(1)
                raise KeyError
        await_first(current_task(), task)
        task.done = True
        try:
            assert current_task().pending
            before = turn()
            yield
            assert turn() == before + 1
        finally:
            task.done = False
        yield Sleep(1)

    go(main)


def test_a_deadlock_report_names_the_tasks_that_are_waited_for():
    def main():
        with pytest.raises(KeyError):
            with TaskGroup() as g:
                g.spawn(clinging, name="clings")
                yield
                yield
                raise KeyError
        yield Sleep(1)

    def clinging():
        with shield(math.inf):
            yield Suspend(lambda wake: list, "nothing")

    with pytest.raises(Deadlock, match=r"main#1 +the end of clings#2") as caught:
        go(main)
    assert "nothing" in str(caught.value)

    def other():
        with TaskGroup() as g:
            g.spawn(clinging, name="clings")
            yield from g

    with pytest.raises(Deadlock, match=r"the tasks of a group <.*\(held by clings#2\)"):
        go(other)


def test_a_cancelled_owner_takes_its_tasks_with_it():
    log = []

    def owner():
        with TaskGroup() as g:
            g.spawn(stubborn, 0.5, None, log)
            yield from g

    def main():
        task = spawn(owner)
        yield Sleep(1)
        yield from task.stop()
        return task.cancelled, now()

    assert go(main) == (True, 1.5)
    assert log == [1.5]


def test_a_group_left_out_of_order_is_refused():
    def main():
        yield
        g = TaskGroup().__enter__()
        inner = timeout(5)
        inner.__enter__()
        with pytest.raises(ScopeError, match="is left while timeout of 5 s"):
            g.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        g = TaskGroup().__enter__()
        inner = timeout(5)
        inner.__enter__()
        error = KeyError("own")
        g.__exit__(KeyError, error, None)  # passes
        assert "is left while timeout of 5 s" in error.__notes__[0]
        inner.__exit__(None, None, None)
        assert current_task().innermost is None
        assert not g.__exit__(None, None, None)  # once more changes nothing

    go(main)


def test_a_generator_with_an_open_group_may_be_thrown_away():
    def source():
        with TaskGroup() as g:
            g.spawn(sleeper, 60)
            yield g

    def main():
        g = next(source())
        yield
        assert g.tasks == [] and current_task().innermost is None
        yield Sleep(1)

    go(main)


def test_async_with_waits_for_the_group():
    async def main():
        async with TaskGroup() as g:
            g.spawn(sleeper, 1, "a")
        assert now() == 1
        async with TaskGroup() as g:
            g.spawn(sleeper, 1, "a")
            assert await g == ["a"]
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as g:
                g.spawn(failing, 1, KeyError())
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as g:
                g.spawn(failing, 1, KeyError())
                await Sleep(60)
        with pytest.raises(KeyError):
            async with TaskGroup() as g:
                g.spawn(stubborn, 0.5)
                await Sleep(1)
                raise KeyError
        with move_on_after(1) as scope:
            async with TaskGroup() as g:
                g.spawn(sleeper, 60)
        assert scope.expired
        async with TaskGroup() as g:
            g.spawn(failing, 1, KeyError())
            try:
                await Sleep(60)
            except Cancelled:
                with pytest.raises(ExceptionGroup):
                    await g

    go(main)


def test_async_with_cancelled_by_its_own_failure_while_it_gives_way():
    async def main():
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as g:
                task = g.spawn(failing, 1, KeyError())
                with pytest.raises(KeyError):
                    await task
                set_budget(current_scheduler(), 1)
        assert current_task().innermost is None

    go(main)


def test_a_group_shows_its_state():
    def main():
        g = TaskGroup()
        said = [repr(g)]
        with pytest.raises(ExceptionGroup):
            with g:
                g.spawn(failing, 1, KeyError())
                g.spawn(stubborn, 1)
                said.append(repr(g))
                with shield():
                    yield Sleep(1.5)
                said.append(repr(g))
                yield from g
        said.append(repr(g))
        return said

    assert go(main) == [
        "<TaskGroup open, 0 of 0 tasks running>",
        "<TaskGroup open, 2 of 2 tasks running>",
        "<TaskGroup failed, 1 of 2 tasks running>",
        "<TaskGroup ended, 0 of 2 tasks running>",
    ]


# start and started --------------------------------------------------------------------------------


def service(before=1.0, value="ready", after=1.0):
    yield Sleep(before)
    started(value)
    yield Sleep(after)
    return "served"


@pytest.mark.parametrize("limit", [None, 1])
def test_start_waits_until_the_task_says_so(limit):
    def main():
        with TaskGroup(limit=limit) as g:
            value = yield from g.start(service, name="named")
            assert (value, now()) == ("ready", 1) and names(g.tasks) == ["named"]
            return (yield from g), now()

    assert go(main) == (["served"], 2)


def test_a_failure_before_started_is_the_callers():
    def main():
        with TaskGroup() as g:
            with pytest.raises(KeyError, match="early"):
                yield from g.start(failing, 1, KeyError("early"))
            yield from g
        return now()

    assert go(main) == 1


def test_a_failure_after_started_is_the_groups():
    def late():
        started()
        yield Sleep(1)
        raise KeyError

    def main():
        with pytest.raises(ExceptionGroup):
            with TaskGroup() as g:
                assert (yield from g.start(late)) is None
                yield from g

    go(main)


def test_an_end_without_started_is_an_error():
    def main():
        with TaskGroup() as g:
            with pytest.raises(RuntimeError, match=r"^task sleeper#2 ended without calling start"):
                yield from g.start(sleeper)
            with pytest.raises(TaskCancelled):
                spawn(killer)
                yield from g.start(sleeper, name="victim")
            yield from g

    def killer():
        yield
        next(t for t in current_scheduler().tasks if t.name == "victim").cancel()

    go(main)


def test_started_twice_is_an_error():
    def twice():
        yield
        started(1)
        with pytest.raises(RuntimeError, match="was called before: once is enough"):
            started(2)
        yield

    def main():
        with TaskGroup() as g:
            assert (yield from g.start(twice)) == 1
            yield from g

    go(main)


def test_started_does_nothing_in_a_task_that_was_spawned_otherwise():
    def parent():
        yield from spawn(service)  # it inherits the context of the one that is being started
        started("mine")
        yield

    def main():
        assert (yield from spawn(service)) == "served"
        with TaskGroup() as g:
            g.spawn(service)
            assert (yield from g.start(parent)) == "mine"
            yield from g

    go(main)


def test_a_start_that_is_cancelled_cancels_the_task_and_waits_for_it():
    log = []

    def main():
        with TaskGroup() as g:
            with move_on_after(1) as scope:
                yield from g.start(stubborn, 0.5, None, log)
            assert scope.expired and now() == 1
            yield
            assert now() == 1.5 and log == [1.5]
            with move_on_after(0):
                yield from g.start(shy)
            assert (yield from g) == [None]  # it has said so before the caller heard of it

    def shy():
        started("too late")  # nobody waits: does nothing
        yield

    go(main)


def test_a_start_in_a_task_that_first_waits_for_others_gets_an_early_answer():
    def quick(value):
        started(value)
        yield Sleep(1)

    def main():
        with pytest.raises(KeyError):
            with TaskGroup() as g:
                g.spawn(stubborn, 0.5)
                yield
                yield
                raise KeyError
        with TaskGroup() as g:
            assert (yield from g.start(quick, "early")) == "early"
            assert now() == 0.5
            yield from g

    go(main)


def test_a_group_that_fails_meanwhile_cancels_the_start():
    def main():
        with pytest.raises(ExceptionGroup) as caught:
            with TaskGroup() as g:
                g.spawn(failing, 1, KeyError())
                yield from g.start(service, 5)
        assert len(caught.value.exceptions) == 1 and now() == 1

    go(main)


def test_a_task_that_answers_after_the_group_has_failed_is_cancelled():
    def main():
        with pytest.raises(ExceptionGroup, match="1 of 3"):
            with TaskGroup() as g:
                g.spawn(failing, 1, KeyError())
                g.spawn(stubborn, 0.5)
                assert (yield from g.start(service, 1.25, "late", 60)) == "late"
                yield from g
        return now()

    assert go(main) == 1.5


def test_an_answer_and_the_last_end_in_the_same_turn():
    def main():
        with pytest.raises(ExceptionGroup, match="1 of 2"):
            with TaskGroup() as g:
                g.spawn(failing, 1, KeyError())
                yield from g.start(service, 1, "late", 60)
                yield Sleep(60)
        yield
        return now()

    assert go(main) == 1


def test_what_fails_after_the_failures_were_raised_is_reported():
    def late():
        yield Sleep(1)
        started()
        yield from stubborn(0.5, ValueError("late"))

    def main():
        with pytest.raises(ExceptionGroup, match="1 of 2"):
            with TaskGroup() as g:
                g.spawn(failing, 1, KeyError())
                yield from g.start(late)
                yield Sleep(60)
        yield
        return now()

    assert lose(main) == (1.5, [("late", "late")])


def test_an_answer_that_nobody_waits_for_any_more_does_nothing():
    def tidy():
        try:
            yield Sleep(60)
        finally:
            started("too late")

    def main():
        with TaskGroup() as g:
            with move_on_after(1):
                yield from g.start(tidy)
            assert (yield from g) == []

    go(main)


def test_an_answer_to_a_group_that_has_ended_fails():
    def other(g):
        with pytest.raises(RuntimeError, match="this group has ended"):
            yield from g.start(service)

    def main():
        with TaskGroup() as g:
            spawn(other, g)
            yield
            yield
            yield from g
        yield Sleep(2)

    go(main)


def test_a_start_in_a_deadlock_names_the_task():
    def main():
        with TaskGroup() as g:
            yield from g.start(lambda: (yield Suspend(lambda wake: list, "nothing")), name="lazy")

    with pytest.raises(Deadlock, match=r"main#1 +started\(\) of lazy#2 "):
        go(main)


# gather -------------------------------------------------------------------------------------------


def test_gather_returns_what_all_returned_in_order():
    async def coroutine(x):
        await Sleep(1)
        return x

    def main():
        task = spawn(sleeper, 3, "task")
        done = spawn(sleeper, 0, "done")
        yield Sleep(0.5)
        assert (yield from gather()) == []
        results = yield from gather(sleeper(2, "a"), coroutine("b"), task, done, task, sleeper())
        return results, now()

    assert go(main) == (["a", "b", "task", "done", "task", None], 3)


@pytest.mark.found("E2")
@pytest.mark.parametrize("collect", [gather, race, first_success, as_completed])
def test_what_takes_calls_refuses_a_function_and_shows_its_call(collect):
    said = (
        rf"^{collect.__name__}\(\) takes calls, and got (sleeper\(\) \(.*:\d+\)|type\(\)): write `"
    )

    def main(*calls):
        yield from collect(*calls)

    def one(x):
        yield

    for calls, right in [
        ([sleeper, 2, "a"], "sleeper(2, 'a')"),
        ([sleeper(1), sleeper, sleeper(2)], "sleeper(...), sleeper(), sleeper(...)"),
        ([sleeper, one], "sleeper(), one(...)"),
        ([type], "type()"),
    ]:
        with pytest.raises(TypeError, match=f"{said}{re.escape(f'{collect.__name__}({right})')}`$"):
            go(main, *calls)

    def beside_a_task():
        yield from collect(spawn(sleeper), sleeper)

    right = re.escape(f"{collect.__name__}(task, sleeper())`")
    with pytest.raises(TypeError, match=right):
        go(beside_a_task)

    def other(queue):
        yield from collect(queue.get)

    right = rf"got get\(\): write `{collect.__name__}\(get\(\)\)`"
    with pytest.raises(TypeError, match=right):
        go(other, Queue(1))


def test_gather_raises_the_first_failure_itself_when_the_others_are_gone():
    error = KeyError("x")
    log = []

    def main():
        given = spawn(stubborn, 0.25, None, log)
        with pytest.raises(KeyError) as caught:
            yield from gather(stubborn(0.5, None, log), failing(1, error), given)
        assert caught.value is error and current_task().children == []
        return now()

    assert go(main) == 1.5
    assert log == [1.25, 1.5]


@pytest.mark.hazard("H58")
def test_further_failures_of_a_gather_are_reported_once_each():
    def main():
        twice = spawn(stubborn, 0.25, ValueError("twice"))
        with pytest.raises(KeyError, match="first"):
            yield from gather(
                stubborn(0.5, ValueError("later")),
                twice,
                failing(1, KeyError("first")),
                failing(1, ValueError("at the same time")),
                twice,
            )

    assert lose(main)[1] == [
        ("stubborn", "later"),
        ("stubborn", "twice"),
        ("failing", "at the same time"),
    ]


def test_the_same_failing_task_twice_is_reported_never():
    def main():
        task = spawn(failing, 1, KeyError("x"))
        with pytest.raises(KeyError):
            yield from gather(task, task)
        with pytest.raises(KeyError):
            yield from gather(task, sleeper())  # done before, and taken before

    go(main)


def test_a_failure_from_before_a_gather_is_not_reported_again():
    def main():
        a, b = spawn(failing, 1, KeyError("a")), spawn(failing, 1, KeyError("b"))
        yield Sleep(2)
        with pytest.raises(KeyError, match="a"):
            yield from gather(a, b)

    assert lose(main)[1] == [("failing", "'a'"), ("failing", "'b'")]


def test_gather_takes_from_the_moment_of_the_call():
    def main():
        waiting = gather(failing(1, KeyError("x")), sleeper(5))
        yield Sleep(3)
        with pytest.raises(KeyError):
            yield from waiting

    go(main)


def test_a_cancelled_gather_leaves_nothing_behind():
    log = []

    def main():
        with move_on_after(1) as scope:
            yield from gather(stubborn(0.5, None, log), stubborn(0.25, None, log))
        assert scope.expired and current_task().children == []
        return now()

    assert go(main) == 1.5
    assert log == [1.25, 1.5]


def test_a_gather_whose_patience_ends_lets_go_and_what_fails_later_is_reported():
    def main():
        with move_on_after(1):
            yield from gather(
                clinging(0.5, ValueError("during")), clinging(5, ValueError("after")), sleeper(60)
            )
        assert now() == 2 and len(current_task().children) == 1
        yield Sleep(10)

    def clinging(seconds, exc):
        with shield(math.inf):
            yield Sleep(1 + seconds)
        raise exc

    assert lose(main, grace=1)[1] == [("clinging", "during"), ("clinging", "after")]


def test_a_cancelled_task_in_a_gather_is_a_failure():
    def main():
        task = spawn(sleeper, 5)
        current_scheduler().call_at(1, lambda _: task.cancel("enough"), None)
        with pytest.raises(TaskCancelled, match="enough"):
            yield from gather(sleeper(60), task)
        return now()

    assert go(main) == 1


def test_a_gather_of_something_else_starts_nothing():
    begun = []

    def begin():
        begun.append(1)
        yield

    def main():
        for function in (gather, race, as_completed):
            with pytest.raises(TypeError, match=rf"^{function.__name__}\(\) got 5"):
                function(begin(), 5)
        yield Sleep(1)

    go(main)
    gc.collect()
    assert begun == []


def test_a_gather_that_is_not_waited_for_hides_no_failure(recwarn):
    def main():
        gather(failing(1, KeyError("x")))
        as_completed(failing(1, KeyError("y")))
        yield Sleep(2)

    assert lose(main)[1] == [("failing", "'x'"), ("failing", "'y'")]
    if DEBUG:
        for name in ("gather()", "as_completed()"):
            assert f"{name} was called at test_groups.py" in str(
                recwarn.pop(RuntimeWarning).message
            )
    assert not recwarn.list


def test_a_gather_in_a_deadlock_names_who_is_waited_for():
    def stuck():
        yield Suspend(lambda wake: list, "nothing")

    def main():
        yield from gather(sleeper(1), stuck(), stuck())

    with pytest.raises(Deadlock, match=r"main#1 +the next end of stuck#3, stuck#4"):
        go(main)


def steps_of(f, *args):
    """The number of Python calls that `go(f, *args)` makes."""
    count = 0

    def profile(frame, event, arg):
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        go(f, *args)
    finally:
        sys.setprofile(before)
    return count


def gathers(n):
    assert len((yield from gather(*[sleeper(1) for _ in range(n)]))) == n


def groups(n):
    with TaskGroup(limit=10) as g:
        for _ in range(n):
            g.spawn(sleeper, 0)
        assert len((yield from g)) == n


def completes(n):
    for step in as_completed(*[sleeper(i % 7) for i in range(n)]):
        yield from step


def races(n):
    assert (yield from race(*[sleeper(n - i) for i in range(n)]))[0] == n - 1


def maps(n):
    assert len((yield from map_concurrent(sleeper, [0] * n, limit=10))) == n


def failures(n):
    with pytest.raises(ExceptionGroup):
        with TaskGroup() as g:
            for _ in range(n):
                g.spawn(sleeper, 5)
            g.spawn(failing, 1, KeyError())
            yield from g


@pytest.mark.parametrize("f", [gathers, groups, completes, races, maps, failures])
def test_the_cost_grows_with_the_number_of_calls_and_no_faster(f):
    few, many = (500, 10_000) if FULL else (100, 1_000)
    go(f, few)
    assert steps_of(f, many) < 1.3 * (many / few) * steps_of(f, few)


def test_thousands_of_calls():
    go(gathers, 10_000 if FULL else 3_000)


@pytest.mark.hazard("H40")
@pytest.mark.parametrize("begin", [lambda waiting: None, lambda waiting: waiting.throw(KeyError())])
@pytest.mark.parametrize(
    "function",
    [gather, race, lambda *calls: map_concurrent(lambda call: call, calls, limit=2)],
    ids=["gather", "race", "map_concurrent"],
)
def test_one_that_is_closed_cancels_its_tasks_and_does_not_wait(function, begin):
    log = []

    def main():
        waiting = function(stubborn(0.5, None, log), stubborn(0.25, ValueError("x"), log))
        next(waiting)
        yield Sleep(1)
        begin(waiting)  # it may be waiting for the losers already
        waiting.close()
        assert now() == 1 and len(current_task().children) == 2
        yield Sleep(1)
        assert current_task().children == []

    assert [text for _, text in lose(main)[1]] == ["x"]
    assert log == [1.25, 1.5]


# race ---------------------------------------------------------------------------------------------


def test_race_returns_the_first_that_ends_when_the_losers_are_gone():
    log = []

    def main():
        result = yield from race(stubborn(0.5, None, log), sleeper(1, "won"), sleeper(2))
        assert current_task().children == []
        return result, now()

    assert go(main) == ((1, "won"), 1.5)
    assert log == [1.5]


def test_race_raises_when_the_first_that_ends_has_failed():
    def main():
        with pytest.raises(KeyError, match="first"):
            yield from race(
                stubborn(0.5, ValueError("loser")), failing(1, KeyError("first")), sleeper(2)
            )
        task = spawn(sleeper, 60)
        current_scheduler().call_at(2, lambda _: task.cancel(), None)
        with pytest.raises(TaskCancelled):
            yield from race(task, sleeper(60))

    assert lose(main)[1] == [("stubborn", "loser")]


def test_race_of_two_in_one_turn_takes_one_and_reports_the_failure_of_the_other():
    def main():
        return (yield from race(sleeper(1, "a"), failing(1, KeyError("b"))))

    assert lose(main) == ((0, "a"), [("failing", "'b'")])


def test_race_with_tasks_given_twice_and_with_none():
    def main():
        task = spawn(sleeper, 1, "x")
        assert (yield from race(task, task)) == (0, "x")
        assert (yield from race(sleeper(5), task)) == (1, "x")
        with pytest.raises(ValueError, match=r"race\(\) without any call has no winner"):
            race()

    go(main)


def test_a_cancelled_race_leaves_nothing_behind():
    def main():
        with move_on_after(1):
            yield from race(stubborn(0.5), stubborn(0.25))
        assert current_task().children == []
        with move_on_after(1):  # cancelled while it waits for the losers
            yield from race(stubborn(60), sleeper(0.5, "won"))
        yield Sleep(10)

    go(main)


# as_completed -------------------------------------------------------------------------------------


def test_as_completed_gives_results_and_failures_as_they_come():
    log = []

    def main():
        task = spawn(sleeper, 2, "task")
        for step in as_completed(sleeper(3, "c"), task, failing(1, KeyError("x")), task):
            try:
                log.append(((yield from step), now()))
            except KeyError as exc:
                log.append((repr(exc), now()))
        assert list(as_completed()) == []

    go(main)
    assert log == [("KeyError('x')", 1), ("task", 2), ("task", 2), ("c", 3)]


def test_a_loop_that_is_left_leaves_the_others_running_and_hides_no_failure():
    def main():
        slow = spawn(sleeper, 3, "slow")
        bad, worse = failing(1, KeyError("same turn")), failing(2, KeyError("later"))
        for step in as_completed(sleeper(1, "first"), slow, bad, worse):
            assert (yield from step) == "first"
            break
        del step
        return (yield from slow)

    assert lose(main) == ("slow", [("failing", "'same turn'"), ("failing", "'later'")])


def test_a_cancelled_step_lets_the_tasks_go_on():
    def main():
        task = spawn(sleeper, 2, "x")
        for step in as_completed(task):
            with move_on_after(1) as scope:
                yield from step
        assert scope.expired
        return (yield from task)

    assert go(main) == "x"


def test_steps_that_are_taken_at_once_get_the_ends_in_their_order():
    def main():
        steps = list(as_completed(sleeper(3, "c"), sleeper(1, "a"), sleeper(1, "b")))
        return (yield from gather(*steps)), now()

    assert go(main) == (["a", "b", "c"], 3)


@pytest.mark.hazard("H35")
def test_a_step_that_was_given_an_end_and_is_then_cancelled_has_it():
    def end(chosen):
        yield Sleep(1)
        chosen.append(current_task())
        return "a"

    def main():
        chosen = []
        one, two = as_completed(spawn(end, chosen), sleeper(2, "b"))
        one, two = spawn(one), spawn(two)
        yield Sleep(1)
        yield  # the end was handed to the first; its step comes in this turn, or came
        one.cancel()
        return (yield from two), (yield from one)

    assert go(main) == ("b", "a")


@pytest.mark.hazard("H37")
def test_whichever_step_is_cancelled_the_others_get_the_earliest_ends():
    def scenario():
        got = []

        def take(step):
            got.append((yield from step))

        names = "abcd"
        steps = as_completed(*[sleeper(n, name) for n, name in enumerate(names)])
        yield from survivors([spawn(take, step) for step in islice(steps, 3)])
        got.append((yield from next(steps)))
        assert "".join(got) == names[: len(got)]

    runs = cancel_everywhere(scenario, target=lambda task: task.name == "take", pairs=True)
    assert runs > 20


def test_as_completed_works_with_await():
    async def main():
        return [await step for step in as_completed(sleeper(2, "b"), sleeper(1, "a"))]

    assert go(main) == ["a", "b"]


def test_thousands_that_are_done_already_give_way_now_and_then():
    def main():
        tasks = [spawn(sleeper, 0) for _ in range(1000)]
        yield Sleep(1)
        before = turn()
        for step in as_completed(*tasks):
            yield from step
        return turn() - before

    assert 1000 // 64 <= go(main) <= 1000 // 64 + 1


# The end of the run -------------------------------------------------------------------------------


def in_a_group(*calls):
    with TaskGroup() as g:
        for call in calls:
            g.spawn(call)
        yield from g


def in_the_body_of_a_group(*calls):
    with TaskGroup() as g:
        for call in calls:
            g.spawn(call)
        yield Sleep(60)


def one_after_the_other(*calls):
    for step in as_completed(*calls):
        yield from step


def none_is_waited_for(*calls):
    held = as_completed(*calls)
    yield Sleep(60)
    del held


def alone(*calls):
    for call in calls:
        spawn(call)
    yield Sleep(60)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("x")])
@pytest.mark.parametrize(
    "together",
    [
        in_a_group,
        in_the_body_of_a_group,
        gather,
        race,
        one_after_the_other,
        none_is_waited_for,
        alone,
    ],
)
def test_what_ends_the_run_is_seen_there_and_not_reported_as_well(together, error):
    lost = []

    def main():
        yield from together(stubborn(0.5), failing(1, error), stubborn(0.25, KeyError("other")))

    with pytest.raises(type(error)) as caught:
        go(main, on_task_error=lambda task, exc: lost.append(exc))
    assert caught.value is error
    assert [repr(exc) for exc in lost] == ["KeyError('other')"]


# map_concurrent -----------------------------------------------------------------------------------


def test_map_concurrent_keeps_the_order_and_the_limit_and_takes_items_as_it_goes():
    busy, most, taken = 0, 0, []

    def items():
        for n in range(20):
            taken.append(n)
            yield n

    def work(n):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        assert len(taken) <= 3 + sum(done)
        yield Sleep(20 - n)
        busy -= 1
        done.append(1)
        return 2 * n

    done = []

    def main():
        return (yield from map_concurrent(work, items(), limit=3))

    assert go(main) == [2 * n for n in range(20)]
    assert most == 3


def test_map_concurrent_takes_async_functions_few_items_and_none():
    async def work(n):
        await Sleep(1)
        return n + 1

    def main():
        assert (yield from map_concurrent(work, [], limit=3)) == []
        assert (yield from map_concurrent(work, [1], limit=3)) == [2]
        tasks = []
        current_scheduler().call_at(1.5, lambda _: tasks.extend(current_tasks()), None)
        assert (yield from map_concurrent(work, range(5), limit=2)) == [1, 2, 3, 4, 5]
        return names(tasks), now()

    def current_tasks():
        return scheduler[0].tasks

    scheduler = []

    def outer():
        scheduler.append(current_scheduler())
        return (yield from main())

    assert go(outer) == (["outer", "work", "work"], 4)


def test_map_concurrent_leaves_endless_items_at_the_first_failure():
    def endless():
        n = 0
        while True:
            yield n
            n += 1

    def work(n):
        yield Sleep(1)
        if n == 7:
            raise KeyError(n)

    def main():
        with pytest.raises(KeyError, match="7"):
            yield from map_concurrent(work, endless(), limit=3)
        assert current_task().children == []

    go(main)


def test_map_concurrent_with_items_that_fail():
    begun = []

    def items(n):
        yield from range(n)
        raise KeyError("items")

    def work(n):
        begun.append(n)
        yield Sleep(1)

    def main():
        with pytest.raises(KeyError, match="items"):
            yield from map_concurrent(work, items(1), limit=2)
        assert begun == []
        with pytest.raises(KeyError, match="items"):
            yield from map_concurrent(work, items(3), limit=2)
        for bad in (0, True, 1.5, math.inf):
            with pytest.raises((ValueError, TypeError), match="map_concurrent"):
                yield from map_concurrent(work, [], limit=bad)

    go(main)


# What is left behind ------------------------------------------------------------------------------


def fails(seconds):
    yield Sleep(seconds)
    raise KeyError("x")


def unclean():
    try:
        yield Sleep(math.inf)
    finally:
        yield Sleep(0.5)
        raise ValueError("x")


def scenario_group():
    with TaskGroup(limit=2) as g:
        for _ in range(5):
            g.spawn(sleeper)
        yield from g


def scenario_group_that_fails():
    with TaskGroup() as g:
        g.spawn(fails, 1)
        g.spawn(unclean)
        yield from g


def scenario_group_that_cancels_its_body():
    with TaskGroup() as g:
        g.spawn(fails, 1)
        yield Sleep(5)


def scenario_group_left_by_an_exception():
    with TaskGroup() as g:
        g.spawn(unclean)
        yield Sleep(1)
        raise KeyError


def scenario_group_left_too_early():
    with TaskGroup() as g:
        g.spawn(sleeper)
        yield


def scenario_group_in_a_timeout():
    with timeout(1), TaskGroup() as g:
        g.spawn(sleeper, 5)
        yield from g


def scenario_start():
    with TaskGroup() as g:
        yield from g.start(service)
        yield from g


def scenario_start_that_fails():
    with TaskGroup() as g:
        yield from g.start(fails, 1)


def scenario_start_of_what_fails_later():
    def late():
        yield
        started()
        raise KeyError("x")

    with TaskGroup() as g:
        yield from g.start(late)
        yield from g


def scenario_start_that_is_cancelled():
    with TaskGroup() as g:
        with move_on_after(1):
            yield from g.start(sleeper, 5)
        yield from g


def scenario_gather():
    yield from gather(sleeper(), sleeper())


def scenario_gather_that_fails():
    yield from gather(sleeper(5), fails(1), fails(1))


def scenario_gather_in_a_timeout():
    with timeout(1):
        yield from gather(sleeper(5), unclean())


def scenario_as_completed_in_a_timeout():
    with timeout(1):
        for step in as_completed(sleeper(5), unclean()):
            yield from step


def scenario_gather_whose_losers_are_waited_for_in_a_timeout():
    with timeout(1):
        yield from gather(sleeper(0.8), fails(0.7), unclean())


def scenario_race():
    yield from race(sleeper(5), sleeper(1), stubborn(0.5))


def scenario_race_that_fails():
    yield from race(sleeper(5), fails(1))


def scenario_as_completed():
    for step in as_completed(sleeper(2), sleeper(1)):
        yield from step


def scenario_as_completed_that_fails():
    for step in as_completed(sleeper(2), fails(1)):
        yield from step


def scenario_map():
    yield from map_concurrent(sleeper, [0, 1, 2], limit=2)


@pytest.mark.hazard("H55")
@pytest.mark.parametrize(
    "scenario",
    [value for name, value in list(globals().items()) if name.startswith("scenario_")],
)
def test_nothing_is_left_to_the_garbage_collector(scenario):
    def many():
        for _ in range(1000 if FULL else 100):
            spawn(scenario)
        yield

    assert garbage_of(many) == []
