"""Cancel scopes as programs use them: cancelled by anybody, with deadlines that move."""

import inspect
import math
import random
import signal
import threading

import pytest

from corolib import (
    Cancelled,
    CancelScope,
    Event,
    ScopeError,
    Sleep,
    TaskCancelled,
    TaskGroup,
    current_effective_deadline,
    current_scheduler,
    current_task,
    first_success,
    gather,
    map_concurrent,
    move_on_after,
    now,
    race,
    run,
    shield,
    spawn,
    started,
    timeout,
)
from tests.helpers.driving import go, lose, sleeper

SCOPES = [CancelScope, TaskGroup, lambda: timeout(50), lambda: move_on_after(50), shield]
kinds = pytest.mark.parametrize(
    "make", SCOPES, ids=["scope", "group", "timeout", "move_on", "shield"]
)


def reason_at(wait):
    """Wait; return the reason of what cancels that, and raise it again."""
    heard = []

    def waiter():
        try:
            yield from wait
        except Cancelled as exc:
            heard.append(exc.reason)
            raise

    return heard, waiter()


# cancel() -----------------------------------------------------------------------------------------


@kinds
def test_anybody_can_have_a_block_left(make):
    def main():
        scope = make()
        spawn(canceller, scope)
        heard, waiter = reason_at(Sleep(60))
        assert not scope.cancel_called
        with scope:
            yield from waiter
        assert scope.cancel_called and scope.cancelled_caught
        assert not getattr(scope, "expired", False)
        yield Sleep(1)
        return heard, now()

    def canceller(scope):
        yield Sleep(2)
        scope.cancel("enough")
        scope.cancel("asked again")
        assert scope.cancel_called and not scope.cancelled_caught

    assert go(main) == (["enough"], 3.0)


@kinds
def test_who_cancels_the_block_it_is_in_leaves_it_at_its_next_wait(make):
    def main():
        log = []
        with make() as scope:
            scope.cancel()
            log.append("still here")
            yield
            log.append("never")
        return log, scope.cancelled_caught

    assert go(main) == (["still here"], True)


@kinds
def test_a_block_that_is_left_before_its_next_wait_was_not_cut_short(make):
    def main():
        with make() as scope:
            scope.cancel()
        yield
        return scope.cancel_called, scope.cancelled_caught

    assert go(main) == (True, False)


@kinds
def test_a_block_cancelled_before_it_begins_is_left_at_its_first_wait(make):
    def main():
        scope = make()
        scope.cancel("early")
        scope.cancel("asked again")
        assert scope.cancel_called
        heard, waiter = reason_at(Sleep(60))
        with scope:
            yield from waiter
        return heard, scope.cancelled_caught, now()

    assert go(main) == (["early"], True, 0.0)


@kinds
def test_to_cancel_a_block_that_was_left_changes_nothing(make):
    def main():
        with make() as scope:
            if isinstance(scope, TaskGroup):
                yield from scope
        scope.cancel()
        scope.deadline = now() + 1
        yield Sleep(2)
        return scope.cancel_called

    assert go(main) is False


def test_a_cancel_of_an_inner_block_leaves_the_outer_ones_alone():
    def main():
        with CancelScope() as outer:
            with CancelScope() as inner:
                inner.cancel()
                yield Sleep(1)
            yield Sleep(1)
        return inner.cancelled_caught, outer.cancel_called, now()

    assert go(main) == (True, False, 1.0)


def test_an_exception_of_the_body_leaves_a_block_that_is_cancelled():
    def main():
        with CancelScope() as scope:
            try:
                scope.cancel()
                yield
            finally:
                raise KeyError("clean-up")

    with pytest.raises(KeyError):
        go(main)


def test_another_thread_is_refused_and_told_the_way():
    def main():
        raised = []

        def meddle(scope):
            for attempt in (scope.cancel, lambda: setattr(scope, "deadline", 1)):
                try:
                    attempt()
                except RuntimeError as exc:
                    raised.append("call_soon_threadsafe" in str(exc))

        with CancelScope() as scope:
            thread = threading.Thread(target=meddle, args=(scope,))
            thread.start()
            thread.join()
            yield
            return raised, scope.cancel_called

    assert go(main) == ([True, True], False)


def into_the_past(scope):
    scope.deadline = 0


@pytest.mark.parametrize("act", [CancelScope.cancel, into_the_past])
def test_a_signal_handler_may_act_while_the_loop_waits(act):
    def main():
        with CancelScope() as scope:
            signal.signal(signal.SIGALRM, lambda *_: act(scope))
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            yield Sleep(60)
        return scope.cancelled_caught

    before = signal.getsignal(signal.SIGALRM)
    try:
        assert run(main) is True
    finally:
        signal.signal(signal.SIGALRM, before)


# Deadlines ----------------------------------------------------------------------------------------


@pytest.mark.found("T19")
@kinds
def test_a_deadline_can_be_moved_and_taken_away(make):
    def main():
        log = []
        scope = make()
        scope.deadline = 10
        with scope:
            scope.deadline -= 5
            scope.deadline += 2
            try:
                yield Sleep(60)
            finally:
                log.append(now())
        log.append(scope.cancelled_caught)
        with make() as scope:
            scope.deadline = now() + 1
            scope.deadline = None
            assert scope.deadline == math.inf
            yield Sleep(30)
            if isinstance(scope, TaskGroup):
                yield from scope
        return [*log, now(), scope.cancel_called]

    def caught():
        try:
            return (yield from main())
        except TimeoutError as exc:
            return str(exc)

    if isinstance(make(), timeout):
        expected = "timeout of at=7.0, opened in main (test_scopes.py:"
        assert go(caught).startswith(expected)
    else:
        assert go(main) == [7.0, True, 37.0, False]


@pytest.mark.found("T19")
def test_a_timeout_that_is_prolonged_in_time_does_not_expire():
    def main():
        with timeout(1) as scope:
            for _ in range(5):
                scope.deadline = now() + 1
                yield Sleep(0.9)
        return scope.expired, scope.remaining(), now()

    expired, left, at = go(main)
    assert not expired and left == pytest.approx(0.1) and at == pytest.approx(4.5)


def test_a_deadline_that_has_passed_is_not_taken_back():
    def main():
        with move_on_after(1) as scope:
            try:
                yield Sleep(60)
            finally:
                scope.deadline = 100
        return scope.expired, scope.cancelled_caught, now()

    assert go(main) == (True, True, 1.0)


def test_a_deadline_moved_into_the_past_cancels_at_once():
    def main():
        with move_on_after(5) as scope:
            scope.deadline = -1
            assert scope.cancel_called
            yield
        return scope.expired

    assert go(main)


def test_a_deadline_that_comes_after_a_cancel_is_not_to_blame():
    def main():
        with timeout(1) as scope:
            try:
                scope.cancel()
                yield
            finally:
                with shield(math.inf):
                    yield Sleep(5)
        return scope.expired, scope.cancelled_caught

    assert go(main) == (False, True)


def test_a_timeout_that_is_cancelled_raises_nothing():
    def main():
        with timeout(5) as scope:
            scope.cancel()
            yield Sleep(1)
        return scope.expired, scope.cancelled_caught

    assert go(main) == (False, True)


@pytest.mark.parametrize("wrong", [math.nan, -math.inf, "5", True])
def test_a_deadline_is_a_number(wrong):
    with pytest.raises((TypeError, ValueError), match=r"move_on_after\.deadline"):
        move_on_after(1).deadline = wrong


def test_no_timer_is_left_however_a_block_ends():
    def main():
        for make in SCOPES:
            with make() as scope:
                scope.deadline = 1000
                scope.cancel()
                yield
        with pytest.raises(ScopeError):
            with CancelScope() as outer:
                outer.deadline = 1000
                inner = move_on_after(1000).__enter__()
        inner.__exit__(None, None, None)
        return current_scheduler().stats()["timers"]

    assert go(main) == 0


def test_no_timer_is_left_of_a_block_whose_task_is_over():
    def forgets():
        move_on_after(1000).__enter__()
        yield

    def main():
        yield from spawn(forgets)
        return current_scheduler().stats()["timers"]

    assert go(main) == 0


def test_a_deadline_moved_from_elsewhere_after_the_block_was_left():
    """The call comes a turn later than the end of the block."""

    def main():
        scheduler = current_scheduler()
        with CancelScope() as scope:
            scheduler.polling = True
            scope.deadline = 5
            scheduler.polling = False
        yield
        yield
        return scheduler.stats()["timers"], scope.cancel_called

    assert go(main) == (0, False)


# Reasons ------------------------------------------------------------------------------------------


def test_the_reason_of_a_deadline():
    def main():
        heard, waiter = reason_at(Sleep(60))
        with move_on_after(1):
            yield from waiter
        return heard

    assert go(main) == ["the deadline has passed"]


def test_the_reason_of_a_stop():
    def main():
        heard, waiter = reason_at(Sleep(60))
        task = spawn(waiter, name="it")
        yield
        yield from task.stop()
        with pytest.raises(TaskCancelled, match=r"task it#2 was cancelled: stop\(\) was called"):
            yield from task
        return heard

    assert go(main) == ["stop() was called"]


def test_the_reason_of_a_failed_sibling_in_tasks_and_body():
    def fails():
        yield Sleep(1)
        raise KeyError

    def main():
        heard, waiter = reason_at(Sleep(60))
        mine, here = reason_at(Sleep(60))
        with pytest.raises(ExceptionGroup):
            with TaskGroup() as g:
                g.spawn(fails)
                g.spawn(waiter)
                yield from here
        return heard + mine

    assert go(main) == ["fails#2, of the same group, failed"] * 2


def test_the_reason_that_was_given():
    def main():
        heard, waiter = reason_at(Sleep(60))
        task = spawn(waiter)
        yield
        task.cancel(reason := object())
        yield
        return heard == [reason]

    assert go(main)


def group_of(call):
    with TaskGroup() as g:
        g.spawn(call)
        yield from g


def start_of(call):
    with TaskGroup() as g:
        yield from g.start(lambda: call)


def map_of(call):
    yield from map_concurrent(lambda item: call, [1], limit=1)


@pytest.mark.parametrize("over", [gather, race, first_success, group_of, start_of, map_of])
@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_reason_is_passed_on_to_the_tasks_that_are_waited_for(over, how):
    def main():
        heard, waiter = reason_at(Sleep(60))
        task = spawn(over(waiter))
        if how == "cancel":
            yield
            task.cancel("enough")
            yield from task.stop()
        else:
            with move_on_after(1):
                yield from gather(task)
        return heard

    assert go(main) == ["the deadline has passed" if how == "deadline" else "enough"]


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_the_reason_of_what_another_of_the_same_gather_has_decided(end):
    def ends():
        yield Sleep(1)
        if end == "fail":
            raise KeyError
        current_task().cancel()
        yield

    def main():
        heard, waiter = reason_at(Sleep(60))
        with pytest.raises(KeyError if end == "fail" else TaskCancelled):
            yield from gather(waiter, ends())
        return heard

    what = "failed" if end == "fail" else "was cancelled"
    assert go(main) == [f"ends#3, of the same gather(), {what}"]


def test_the_reason_of_those_that_lose():
    def main():
        heard, waiter = reason_at(Sleep(60))
        yield from race(waiter, sleeper(1))
        lost, waiter = reason_at(Sleep(60))
        yield from first_success(waiter, sleeper(1))
        return heard + lost

    assert go(main) == [
        "sleeper#3, of the same race(), ended first",
        "sleeper#5, of the same first_success(), succeeded first",
    ]


def test_the_reason_of_tasks_whose_group_is_left_by_a_failure_of_its_body():
    def main():
        heard, waiter = reason_at(Sleep(60))
        with pytest.raises(KeyError):
            with TaskGroup() as g:
                g.spawn(waiter)
                yield
                raise KeyError
        yield
        return heard

    assert go(main) == ["the block of its group was left by KeyError"]


def test_the_reason_of_a_task_that_comes_into_a_group_which_has_failed():
    def slow():
        try:
            yield Sleep(60)
        finally:
            with shield(5):
                yield Sleep(5)

    def fails():
        yield Sleep(1)
        raise KeyError

    def service(wait):
        yield Sleep(2)
        started()
        yield from wait

    def main():
        heard, waiter = reason_at(Sleep(60))
        with pytest.raises(ExceptionGroup):
            with TaskGroup() as g:
                g.spawn(slow)
                g.spawn(fails)
                yield from g.start(service, waiter)
                yield from g
        return heard

    assert go(main) == ["fails#3, of the same group, failed"]


def test_the_reason_of_a_task_that_comes_into_a_group_which_is_cancelled():
    def main():
        heard, waiter = reason_at(Sleep(60))
        with TaskGroup() as g:
            g.cancel("enough")
            try:
                yield
            finally:
                g.spawn(waiter)
        yield
        return heard

    assert go(main) == ["enough"]


# Groups -------------------------------------------------------------------------------------------


def test_a_group_that_is_cancelled_ends_its_tasks_and_its_body():
    def main():
        log = []

        def child():
            try:
                yield Sleep(60)
            except Cancelled as exc:
                log.append(exc.reason)
                raise
            finally:
                with shield():
                    yield Sleep(0.5)
                log.append(now())

        with TaskGroup() as g:
            g.spawn(child)
            g.spawn(child)
            spawn(late, g)
            log.append((yield from g))
        log.append("left")
        yield  # first waits for the tasks
        return log, now(), g.cancelled_caught, g.tasks

    def late(g):
        yield Sleep(1)
        g.cancel("enough")

    expected = ["enough", "enough", "left", 1.5, 1.5]
    assert go(main) == (expected, 1.5, True, [])


def test_a_cancelled_group_may_be_left_without_a_wait_for_it():
    def main():
        with TaskGroup() as g:
            task = g.spawn(sleeper, 60)
            g.cancel()
        yield
        return task.cancelled, g.cancelled_caught

    assert go(main) == (True, False)


def test_a_task_spawned_into_a_cancelled_group_takes_its_first_step_and_ends():
    def main():
        begun = []

        def child():
            begun.append(1)
            yield Sleep(60)

        with TaskGroup() as g:
            g.cancel()
            task = g.spawn(child)
        yield
        return begun, task.cancelled

    assert go(main) == ([1], True)


def test_a_task_that_waits_for_its_turn_in_a_cancelled_group_never_begins():
    def main():
        begun = []

        def child():
            begun.append(1)
            yield Sleep(60)

        with TaskGroup(limit=1) as g:
            for _ in range(3):
                g.spawn(child)
            yield Sleep(1)
            g.cancel()
            yield from g
        yield
        return begun

    assert go(main) == [1]


def test_a_failure_that_came_before_leaves_a_cancelled_group():
    def fails():
        try:
            yield Sleep(60)
        finally:
            raise KeyError("clean-up")

    def main(wait):
        with pytest.raises(ExceptionGroup) as caught:
            with TaskGroup() as g:
                g.spawn(fails)
                yield
                g.cancel()
                if wait:
                    with shield():
                        yield Sleep(0.5)
                else:
                    with CancelScope(), shield():
                        yield Sleep(0.5)
        assert [str(e) for e in caught.value.exceptions] == ["'clean-up'"]
        return True

    assert go(main, True)
    assert go(main, False)


def test_a_failure_that_comes_after_the_block_was_left_is_reported():
    def fails():
        try:
            yield Sleep(60)
        finally:
            yield
            raise KeyError("clean-up")

    def main():
        with TaskGroup() as g:
            g.spawn(fails)
            yield
            g.cancel()
            yield from g
        yield
        return g.cancelled_caught

    assert lose(main) == (True, [("fails", "'clean-up'")])


def test_a_group_has_a_deadline():
    def main():
        with TaskGroup() as g:
            g.deadline = 3
            task = g.spawn(sleeper, 60)
            yield from g
        yield
        return now(), task.cancelled, task.exception.reason

    assert go(main) == (3.0, True, "the deadline has passed")


def test_a_cancelled_group_in_async_with():
    async def main():
        async with TaskGroup() as g:
            task = g.spawn(sleeper, 60)
            g.spawn(late, g)
        await Sleep(0)
        return task.cancelled, g.cancelled_caught, now()

    def late(g):
        yield Sleep(1)
        g.cancel()

    assert go(main) == (True, True, 1.0)


def test_a_service_that_starts_in_a_group_that_is_cancelled_meanwhile():
    def service():
        yield Sleep(2)
        started("up")
        yield Sleep(60)

    def starts(g):
        return (yield from g.start(service))

    def main():
        with TaskGroup() as g:
            starter = spawn(starts, g)
            yield Sleep(1)
            g.cancel()
            with shield(math.inf):
                assert (yield from starter) == "up"
                yield
                (late,) = [t for t in current_scheduler().tasks if t.name == "service"] or [None]
        return late

    assert go(main) is None


# Where one stands ---------------------------------------------------------------------------------

deadline = current_effective_deadline


def test_the_effective_deadline_is_the_soonest_around():
    def main():
        found = [deadline()]
        with move_on_after(5), move_on_after(3), timeout(None), CancelScope():
            found.append(deadline())
            with move_on_after(9):
                found.append(deadline())
        with shield(math.inf), CancelScope() as scope:
            scope.deadline = 4
            found.append(deadline())
        yield
        return found

    assert go(main) == [math.inf, 3.0, 3.0, 4.0]


def test_the_effective_deadline_where_the_caller_is_asked_to_leave():
    def main():
        with CancelScope() as scope:
            scope.cancel()
            found = [deadline()]
            with shield(math.inf):
                found.append(deadline())
            with shield(2):
                found.append(deadline())
                yield Sleep(1)
                found.append(deadline())
        current_task().cancel()
        found.append(deadline())
        try:
            yield
        except Cancelled:
            found.append(deadline())
            try:
                with timeout(0.1) as inner:
                    found.append(deadline())
                    yield Sleep(60)
            except TimeoutError:
                assert inner.expired
            found.append(deadline())
            try:
                yield Sleep(60)
            except Cancelled:
                found.append(deadline())
        return found

    inf = math.inf
    assert go(main) == [-inf, inf, 2.0, 2.0, -inf, 2.0, 1.1, 2.0, -inf]


def test_shields_put_the_effective_deadline_off():
    def main():
        found = []
        with move_on_after(2), shield(100), move_on_after(10), shield(5):
            # The inner shield begins to hold at 2, for the outermost, and is over at 10.
            found.append(deadline())
            with move_on_after(4):
                found.append(deadline())
        with move_on_after(2), shield(5), shield(100):
            found.append(deadline())
        yield
        return found

    assert go(main) == [10.0, 4.0, 102.0]


def test_the_effective_deadline_during_a_clean_up():
    def main():
        found = []
        with move_on_after(10), move_on_after(1), CancelScope() as abandoned:
            abandoned.deadline = 1.2
            try:
                yield Sleep(60)
            finally:
                found.append(deadline())
                abandoned.cancel()
                found.append(deadline())
                with CancelScope() as inner:
                    inner.cancel()
                    found.append(deadline())
        return found

    assert go(main) == [2.0, 2.0, -math.inf]
    assert go(main, grace=math.inf) == [math.inf, math.inf, -math.inf]


def test_the_effective_deadline_when_ctrl_c_has_come():
    def main():
        current_scheduler().cancellation.force(current_task(), KeyboardInterrupt())
        found.append(deadline())
        yield

    found = []
    with pytest.raises(KeyboardInterrupt):
        go(main)
    assert found == [-math.inf]


def test_what_a_wait_does_agrees_with_the_effective_deadline():
    """Nested blocks of all kinds, at random: the wait ends when it was said that it would."""
    chance = random.Random(7)

    def nest(depth, log):
        expected = deadline()
        if not depth:
            try:
                yield from Event().wait()
            except Cancelled:
                log.append((expected, now()))
                raise
        seconds = chance.choice([0.5, 1, 1.5, 2, 3, 5])
        kind = chance.choice([move_on_after, move_on_after, shield, CancelScope])
        with kind() if kind is CancelScope else kind(seconds) as scope:
            if kind is CancelScope and chance.random() < 0.1:
                scope.cancel()
            yield from nest(depth - 1, log)

    def main():
        log = []
        with move_on_after(20):
            yield from nest(chance.randrange(1, 7), log)
        return log

    for _ in range(300):
        ((expected, at),) = go(main)
        assert at == max(expected, 0)


def test_it_needs_a_task():
    with pytest.raises(RuntimeError, match="no scheduler runs"):
        deadline()


# Decorators ---------------------------------------------------------------------------------------


@timeout(2)
def slow(seconds, value=None):
    """As documented."""
    yield Sleep(seconds)
    return value


@move_on_after(2)
async def slow_too(seconds):
    await Sleep(seconds)
    return "in time"


def test_a_timeout_bounds_each_call_of_a_generator_function():
    def main():
        found = [(yield from slow(1, value="a")), (yield from spawn(slow, 1, "b"))]
        with pytest.raises(TimeoutError) as caught:
            yield from slow(3)
        return found, str(caught.value)

    found, text = go(main)
    assert found == ["a", "b"]
    line = inspect.unwrap(slow).__code__.co_firstlineno
    assert text == (
        f"timeout of 2 s, opened in slow (test_scopes.py:{line}), expired while waiting for "
        "Sleep(3.0)"
    )
    assert slow.__name__ == "slow" and slow.__doc__ == "As documented."


def test_a_decorated_async_def_is_awaited_and_may_be_left_early():
    async def main():
        return await slow_too(1), await slow_too(5), await slow(1, "c")

    assert go(main) == ("in time", None, "c")


def test_what_is_decorated_may_have_a_deadline_and_other_decorators():
    deadline = 7

    def main():
        found = []
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"timeout of at=7\.0, opened in inner"):
                yield from outer()
            found.append(now())
        return found

    def inner():
        yield Sleep(60)

    outer = timeout(at=deadline)(timeout(None)(inner))
    assert go(main) == [7.0, 7.0]


def test_a_callable_without_code_of_its_own_can_be_bounded():
    class Callable:
        def __call__(self):
            yield Sleep(60)

    def main():
        yield from move_on_after(1)(Callable())()
        return now()

    assert go(main) == 1.0


def test_a_plain_function_is_refused_when_it_is_called():
    @timeout(5)
    def plain(x=1):
        return x

    def main():
        with pytest.raises(
            TypeError,
            match=r"timeout\(\) got 1 from plain\(\) \(test_scopes.py:\d+\): it has no `yield`",
        ):
            yield from plain()

    go(main)
