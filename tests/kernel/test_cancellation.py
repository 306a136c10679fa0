"""Cancellation: cancels, deadlines, shields, the grace, and what comes of those who swallow them.

The `with` blocks that programs use are made of the scopes tested here; `Bound` is the least of
them.
"""

import math

import pytest

from corolib import (
    Cancelled,
    RunFinished,
    ScopeError,
    Sleep,
    Suspend,
    TaskCancelled,
    current_scheduler,
    current_task,
    now,
    run,
    spawn,
)
from corolib.testing import virtual_time
from tests.helpers.driving import go, sleeper, swallow
from tests.helpers.inside import Bound, caught_by, timers_set


class Foreign:
    """Steps a generator as compiled code does: nobody sees what it delegates to."""

    def __init__(self, body):
        self.send, self.throw, self.close = body.send, body.throw, body.close

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)


# One request --------------------------------------------------------------------------------------


def test_a_block_left_in_time_is_not_cancelled_later():
    def main():
        with Bound(5) as bound:
            yield Sleep(4)
        yield Sleep(100)
        return bound.expired, now()

    assert go(main) == (False, 104)


def test_a_block_that_was_never_left_ends_with_the_body_of_its_task():
    def body():
        Bound(5).__enter__()
        yield Sleep(1)
        assert current_task().innermost is not None

    def main():
        task = spawn(body)
        yield from task
        assert task.innermost is None
        yield Sleep(10)

    go(main)


def test_a_block_left_before_its_cancel_was_delivered_was_in_time():
    def main():
        with Bound() as bound:
            bound.cancel()
        yield Sleep(1)
        return bound.expired

    assert go(main) is False


def test_the_reason_is_carried_by_the_exception():
    def main():
        with Bound() as bound:
            bound.cancel("tea")
            with pytest.raises(Cancelled, match=r"^tea$") as caught:
                yield
            assert caught.value.reason == "tea"
            raise caught.value

    go(main)


def test_asking_again_changes_nothing():
    log = []

    def main():
        with Bound() as bound:
            bound.cancel("first")
            bound.cancel("second")
            try:
                yield Sleep(1)
            except Cancelled as exc:
                log.append(exc.reason)
                bound.cancel("third")
                yield Sleep(0.5)  # clean-up, undisturbed
                raise
        assert bound.expired
        yield Sleep(1)

    go(main)
    assert log == ["first"]


def test_a_task_in_a_bare_yield_gets_the_cancel_there():
    log = []

    def giver():
        try:
            log.append("gives way")
            yield
            log.append("went on")
        except Cancelled:
            log.append("cancelled")
            raise

    def main():
        task = spawn(giver)
        killer = spawn(kill, task)
        yield from killer
        yield

    def kill(task):
        assert log == ["gives way"]
        task.cancel()
        yield

    go(main)
    assert log == ["gives way", "cancelled"]


def test_a_request_while_the_task_runs_is_delivered_at_its_next_wait_which_is_not_made():
    armed = []

    def main():
        with Bound() as bound:
            bound.cancel()
            yield Suspend(armed.append, "never armed")
        return bound.expired

    assert go(main) is True
    assert armed == []


def test_an_undo_that_raises_is_reported_and_the_cancel_delivered_all_the_same():
    lost = []

    def undo():
        raise ValueError("undo")

    def main():
        with Bound(1) as bound:
            yield Suspend(lambda wake: undo, "x", outside=True)
        return bound.expired

    assert go(main, on_task_error=lambda task, exc: lost.append((task.name, str(exc)))) is True
    assert lost == [("main", "undo")]


def test_a_block_that_something_foreign_hides_is_interrupted_as_any_other():
    def hidden():
        with Bound(5) as bound:
            yield Sleep(60)
        return bound.expired, now()

    def main():
        return (yield from Foreign(hidden()))

    assert go(main) == (True, 5)


@pytest.mark.parametrize("through", ["a wrapper", "an async generator"])
def test_a_block_left_open_by_a_source_is_refused_wherever_the_consumer_waits(through):
    class Wrapper:
        def __await__(self):
            return pause().__await__()

    async def pause():
        await Sleep(60)

    async def pauses():
        await Sleep(60)
        yield

    def source():
        with Bound(5):
            yield 1

    async def main():
        for _ in source():
            with pytest.raises(ScopeError, match="has yielded to its consumer"):
                await (Wrapper() if through == "a wrapper" else anext(pauses()))

    go(main)


# Several requests ---------------------------------------------------------------------------------


@pytest.mark.hazard("H36")
def test_of_two_requests_at_a_wait_the_outermost_wins():
    def main():
        with Bound() as outer:
            with Bound() as middle:
                with Bound() as inner:
                    inner.cancel()
                    middle.cancel()
                    yield
                pytest.fail("the inner scope is abandoned")
            return_to_middle = middle.expired
            yield
        return outer.expired, return_to_middle, inner.expired

    assert go(main) == (False, True, False)


@pytest.mark.hazard("H36")
def test_an_outer_request_waits_until_the_inner_scope_has_caught_its_own():
    log = []

    def main():
        with Bound() as outer:
            with Bound() as inner:
                inner.cancel("inner")
                try:
                    yield
                except Cancelled as exc:
                    log.append(exc.reason)
                    outer.cancel("outer")
                    yield Sleep(0.1)  # not cut
                    log.append(now())
                    raise
            assert inner.expired
            try:
                yield
            except Cancelled as exc:
                log.append(exc.reason)
                raise
        return outer.expired

    assert go(main) is True
    assert log == ["inner", 0.1, "outer"]


@pytest.mark.hazard("H36")
def test_a_request_between_delivery_and_the_step_waits_too():
    """Both deadlines come in one turn, the inner one first."""
    log = []

    def child():
        with Bound(at=6) as outer:
            with Bound(at=5) as inner:
                yield Sleep(100)
            log.append((inner.expired, now()))
            yield Sleep(100)
        log.append((outer.expired, now()))

    vt = virtual_time()

    def main():
        spawn(child)
        yield
        yield
        vt["clock"].move(7)
        yield Sleep(50)

    run(main, **vt)
    assert log == [(True, 7), (True, 7)]


def test_a_scope_that_is_being_left_because_of_an_outer_one_no_longer_matters():
    log = []

    def main():
        with Bound() as outer:
            with Bound(0.1) as inner:
                outer.cancel()
                try:
                    yield
                finally:
                    yield Sleep(0.5)  # its deadline passes
                    log.append(now())
        return outer.expired, inner.expired

    assert go(main) == (True, False)
    assert log == [0.5]


def test_a_deadline_opened_in_clean_up_works_as_ever():
    log = []

    def child():
        try:
            yield Sleep(100)
        finally:
            with Bound(0.25) as bound:
                yield Sleep(100)
            log.append((bound.expired, now()))
            yield Sleep(0.25)
            log.append(now())

    def main():
        task = spawn(child)
        yield Sleep(1)
        task.cancel()
        yield from task.stop()
        assert task.exception.task is task

    go(main)
    assert log == [(True, 1.25), 1.5]


def test_cancelling_the_task_goes_through_every_scope():
    seen, bounds = [], []

    def child():
        with Bound(50) as outer:
            with Bound(60) as inner:
                bounds.extend((outer, inner))
                try:
                    yield Sleep(100)
                except Cancelled as exc:
                    seen.append(caught_by(current_task(), exc))
                    raise
        seen.append("not reached")

    def main():
        task = spawn(child)
        yield Sleep(1)
        yield from task.stop()
        assert isinstance(task.exception, TaskCancelled)

    go(main)
    assert seen == [True]
    assert not any(bound.expired for bound in bounds)


# The grace ----------------------------------------------------------------------------------------


@pytest.mark.hazard("H39")
def test_after_the_grace_the_wait_and_every_further_one_raise_until_the_target_is_left():
    times = []

    def child():
        with Bound() as bound:
            bound.cancel()
            for _ in range(5):
                try:
                    yield Sleep(100)
                except Cancelled as exc:
                    times.append(now() if caught_by(bound, exc) else exc)
            with Bound(50):
                yield  # also from within a scope opened later
        assert bound.expired
        times.append("left")
        yield Sleep(1)
        times.append(now())

    go(child, grace=3)
    assert times == [0, 3, 3, 3, 3, "left", 4]


@pytest.mark.parametrize("grace", [0, 0.0])
def test_without_grace_clean_up_cannot_wait_at_all(grace):
    log = []

    def child():
        try:
            yield Sleep(100)
        finally:
            try:
                yield
            except Cancelled:
                log.append("cut")
                raise

    def main():
        task = spawn(child)
        yield Sleep(1)
        yield from task.stop()
        return now()

    assert go(main, grace=grace) == 1
    assert log == ["cut"]


def test_without_grace_a_wait_of_clean_up_begun_in_the_turn_of_the_delivery_is_cut_too():
    log = []

    def child():
        try:
            yield
        finally:
            try:
                yield Sleep(100)
            except Cancelled:
                log.append(now())
                raise

    def main():
        task = spawn(child)
        yield from spawn(kill, task)
        with pytest.raises(TaskCancelled):
            yield from task

    def kill(task):
        task.cancel()
        yield

    go(main, grace=0)
    assert log == [0]


def test_an_infinite_grace_never_cuts_clean_up():
    def child():
        try:
            yield Sleep(1)
        finally:
            yield Sleep(1e9)

    def main():
        task = spawn(child)
        yield
        yield from task.stop()
        return now()

    assert go(main, grace=math.inf) == 1e9


def test_the_grace_of_a_scope_left_in_time_cuts_nothing_later():
    def main():
        with Bound(1) as bound:
            try:
                yield Sleep(100)
            finally:
                yield Sleep(0.5)
        yield Sleep(100)
        return bound.expired, now()

    assert go(main) == (True, 101.5)


def test_a_cancel_sets_no_timer_if_clean_up_does_not_wait():
    def main():
        tasks = [spawn(sleeper, 1000) for _ in range(10)]
        yield Sleep(1)
        for task in tasks:
            task.cancel()
        assert timers_set(current_scheduler()) == 0
        yield
        assert timers_set(current_scheduler()) == 0
        return [task.state for task in tasks]

    assert go(main) == ["done"] * 10


def test_the_grace_begins_at_the_delivery_and_not_when_clean_up_waits():
    options = virtual_time()

    def child():
        try:
            yield Sleep(100)
        finally:
            options["clock"].move(0.75)  # clean-up that takes time, and does not wait
            try:
                yield Sleep(0.5)
            finally:
                times.append(now())

    def main():
        task = spawn(child)
        yield Sleep(1)
        yield from task.stop()

    times = []
    go(main, **options)
    assert times == [2]


# Those who swallow --------------------------------------------------------------------------------


def test_swallowing_fewer_is_forgiven():
    def main():
        task = spawn(swallow, 100)
        yield Sleep(1)
        return (yield from task.stop())

    assert go(main) == 100


def test_what_was_swallowed_in_one_scope_does_not_count_in_the_next():
    """Clean-up that outlasts the grace each time swallows nothing: it lets `Cancelled` pass."""

    def main():
        for _ in range(150):
            with Bound(1) as bound:
                try:
                    yield Sleep(100)
                finally:
                    yield Sleep(100)
            assert bound.expired
        return now()

    assert go(main) == 300


def test_a_task_that_is_given_up_takes_its_children_along(capsys):
    def parent():
        spawn(child)
        yield from swallow(1000)

    def child():
        yield Sleep(1e6)

    def main():
        task = spawn(parent)
        yield Sleep(1)
        with pytest.raises(RuntimeError, match="swallowed"):
            yield from task.stop()
        return now()

    assert go(main) == 2
    assert "parent#2" in capsys.readouterr().err


def test_the_wait_at_which_a_task_is_given_up_is_not_made(capsys):
    made = []

    def arm(wake):
        made.append(now())
        return lambda: None

    def main():
        task = spawn(swallow, 1000, lambda: Suspend(arm, "x", outside=True))
        yield
        with pytest.raises(RuntimeError, match="given up"):
            yield from task.stop()
        assert now() == 1
        yield Sleep(5)

    go(main)
    assert made == [0, 0]  # the one that was cancelled, and one of the clean-up
    assert "swallow#2" in capsys.readouterr().err


def test_a_task_that_was_given_up_is_not_given_up_again_when_it_is_cancelled_again(capsys):
    def child():
        with Bound(shield=10):
            yield Sleep(5)

    def body():
        spawn(child)
        yield from swallow(101)  # the first, and a hundred that are overdue
        with Bound(shield=1):
            yield Sleep(1000)

    def main():
        task = spawn(body)
        yield
        task.cancel()
        yield Sleep(3)
        assert task.state == "completing"
        task.cancel()
        assert task.state == "completing"
        with pytest.raises(RuntimeError, match="given up"):
            yield from task

    go(main)
    assert capsys.readouterr().err.count("swallowed every Cancelled") == 1


def test_a_task_can_be_given_up_while_it_gives_way(capsys):
    """The shield ends while the task is in the ready queue: it must not be stepped again."""
    vt = virtual_time()

    def deaf():
        yield from swallow(101)
        with Bound(shield=5):
            while True:
                try:
                    yield
                except Cancelled:
                    pytest.fail("there are no more of them")

    def main():
        task = spawn(deaf)
        yield Sleep(1)
        task.cancel()
        with pytest.raises(RuntimeError, match="swallowed every Cancelled"):
            yield from task
        yield Sleep(1)
        return "fine"

    def ticker():
        while True:
            yield Sleep(0)
            vt["clock"].move(0.1)

    def both():
        spawn(ticker, daemon=True)
        return (yield from spawn(main))

    assert run(both, **vt) == "fine"
    assert capsys.readouterr().err.count("closed now") == 1


# Shields ------------------------------------------------------------------------------------------


def test_a_shield_puts_off_until_its_block_ends():
    log = []

    def child():
        with Bound(shield=1):
            yield Sleep(0.7)
            log.append(now())
        try:
            yield Sleep(10)
        except Cancelled:
            log.append(now())
            raise

    def main():
        task = spawn(child)
        yield
        yield from task.stop()

    go(main)
    assert log == [0.7, 0.7]


def test_a_shield_puts_off_at_most_its_time_counted_from_the_request():
    log = []

    def child():
        with Bound(shield=1):
            yield Sleep(2)
            log.append(now())
            yield Sleep(2)

    def main():
        task = spawn(child)
        yield Sleep(2.5)
        yield from task.stop()
        return now()

    assert go(main) == 3.5
    assert log == [2]


def test_a_shield_of_no_time_puts_off_nothing():
    def child():
        with Bound(shield=0):
            yield Sleep(10)

    def main():
        task = spawn(child)
        yield Sleep(1)
        yield from task.stop()
        return now()

    assert go(main) == 1


def test_a_shield_without_bound_puts_off_for_any_time():
    log = []

    def child():
        with Bound(shield=math.inf):
            yield Sleep(1e6)
            log.append(now())
        yield

    def main():
        task = spawn(child)
        yield
        yield from task.stop()

    go(main)
    assert log == [1e6]


def test_a_shield_can_itself_be_cancelled():
    def main():
        with Bound(3, shield=math.inf) as bound:
            yield Sleep(100)
        return bound.expired, now()

    assert go(main) == (True, 3)


def test_of_nested_shields_each_must_give_way():
    def child():
        with Bound(shield=1):
            with Bound(shield=3):
                yield Sleep(100)

    def main():
        task = spawn(child)
        yield
        yield from task.stop()
        return now()

    assert go(main) == 3


def test_a_shield_outside_of_a_scope_protects_it_only_from_further_out():
    def child():
        with Bound(2) as middle:
            with Bound(shield=math.inf):
                with Bound(1) as inner:
                    yield Sleep(100)
                log.append((inner.expired, now()))
                yield Sleep(5)
                log.append(now())
            yield Sleep(100)
        log.append((middle.expired, now()))

    log = []
    go(child)
    assert log == [(True, 1), 6, (True, 6)]


def test_the_inner_of_two_requests_gets_through_when_a_shield_holds_the_outer_back():
    log = []

    def child():
        with Bound(shield=math.inf):
            with Bound() as inner:
                inner.cancel()
                current_task().cancel()
                yield
            log.append(inner.expired)
            yield Sleep(2)
            log.append(now())
        yield

    def main():
        with pytest.raises(TaskCancelled):
            yield from spawn(child)

    go(main)
    assert log == [True, 2]


def test_a_shield_in_clean_up_puts_off_the_end_of_the_grace():
    log = []

    def child():
        try:
            yield Sleep(100)
        finally:
            with Bound(shield=2):
                yield Sleep(2.5)
                log.append(now())
            yield

    def main():
        task = spawn(child)
        yield
        yield from task.stop()
        return now()

    assert go(main) == 2.5  # the grace ends at 1, the shield 2 after that
    assert log == [2.5]


def test_a_shield_that_was_left_ends_nothing_later():
    def child():
        with Bound() as bound:
            with Bound(shield=1):
                bound.cancel()
                yield Sleep(0.5)
            yield
        assert bound.expired
        with Bound(shield=5):
            yield Sleep(10)
        return now()

    assert go(child) == 10.5


# Results and cancels ------------------------------------------------------------------------------


def wake_later(wakes):
    for _ in range(3):
        yield
    for wake in wakes:
        wake("woken")


def give_way():
    yield


def every_kind_of_wait(log, wait):
    """A body for the sweep; `wait` looks at whether a wait may return."""
    try:
        yield from wait(give_way())
        with Bound(20):
            yield from wait(Sleep(1))
            with Bound(0.5):
                yield from wait(Sleep(50))
            wakes = []
            spawn(wake_later, wakes)
            got = yield from wait(Suspend(lambda wake: wakes.append(wake) or list, "w"))
            assert got == "woken"
            yield from wait(spawn(swallow, 2, lambda: Sleep(0.5)))
            with Bound(5):
                yield from wait(give_way())
                yield from wait(Suspend(lambda wake: wake(1) or list, "at once"))
        yield from wait(Sleep(1))
        log.append("end")
    finally:
        log.append("clean")
        yield Sleep(0.5)
        log.append("cleaned")


def sweep_once(turns, order):
    log, given, wrong = [], [], []
    clock = virtual_time()["clock"]
    task = None

    def wait(trap):
        late = bool(given)
        value = yield from trap
        if given:
            if late or given[0] is not True:
                wrong.append((turns, log[:], given[:], trap))
            given[0] = "taken"
        return value

    def ask():
        if "clean" not in log:
            given.append(task.wait is None and task.state == "ready")
        log.append("asked")
        task.cancel()

    def ticker():
        for n in range(100):
            clock.move(0.25)
            if n == turns:
                if order == "call":
                    current_scheduler().call_soon_threadsafe(ask)
                else:
                    ask()
            yield

    def main():
        nonlocal task
        if order == "before":
            spawn(ticker)
        task = spawn(every_kind_of_wait, log, wait)
        if order != "before":
            spawn(ticker)
        yield

    go(main, clock=clock)
    assert wrong == []
    assert log.count("clean") == 1 and task.innermost is None
    if log.index("asked") < log.index("clean") and "end" not in log:
        assert task.cancelled and log[-1] == "cleaned"
        return "cancelled"
    if task.cancelled:  # at the wait in `finally`, which was no clean-up yet
        assert log in (["end", "clean", "asked"], ["asked", "end", "clean"])
        return "cancelled at the end"
    return "returned"


@pytest.mark.hazard("H35")
@pytest.mark.parametrize("order", ["before", "after", "call"])
def test_a_cancel_at_any_step_ends_the_task_at_its_next_wait(order):
    """No wait made after the request returns, except the one whose result was already there."""
    ends = {sweep_once(n, order) for n in range(60)}
    assert ends == {"cancelled", "cancelled at the end", "returned"}


def test_a_task_that_ends_without_waiting_again_was_cancelled_too_late():
    def child(wakes):
        yield Suspend(lambda wake: wakes.append(wake) or list, "x", outside=True)
        return "result"

    def main():
        wakes = []
        task = spawn(child, wakes)
        yield
        yield
        wakes[0]()
        task.cancel()
        result = yield from task
        assert not task.cancelled
        return result

    assert go(main) == "result"


def test_a_task_woken_by_its_timer_gets_that_first():
    log = []

    def child():
        yield Sleep(1)
        log.append("slept")
        yield Sleep(1)
        log.append("slept again")

    def main():
        task = spawn(child)
        yield
        yield  # the child's timer is set: the next one comes after it
        current_scheduler().call_at(1, lambda task: task.cancel(), task)
        yield Sleep(5)
        assert task.cancelled

    go(main)
    assert log == ["slept"]


@pytest.mark.hazard("H34")
def test_except_exception_does_not_swallow_a_cancel():
    rounds = []

    def child():
        while True:
            rounds.append(now())
            try:
                yield Sleep(9)
            except Exception:
                pass

    def main():
        task = spawn(child)
        yield Sleep(10)
        yield from task.stop()
        return now()

    assert go(main) == 10
    assert rounds == [0, 9]


# What leaves a task -------------------------------------------------------------------------------


def test_cancelled_that_nobody_asked_for_is_an_ordinary_failure():
    lost = []

    def child():
        yield
        raise Cancelled("mine")

    def main():
        task = spawn(child)
        yield Sleep(1)
        assert task.done and not task.cancelled
        assert isinstance(task.exception, Cancelled)

    go(main, on_task_error=lambda task, exc: lost.append((task.name, exc.reason)))
    assert lost == [("child", "mine")]


def test_cancelled_of_another_task_is_an_ordinary_failure_too():
    lost, kept = [], []

    def victim():
        try:
            yield Sleep(5)
        except Cancelled as exc:
            kept.append(exc)
            raise

    def thief():
        yield
        raise kept[0]

    def main():
        task = spawn(victim)
        yield
        yield from task.stop()
        assert task.cancelled
        other = spawn(thief)
        yield Sleep(1)
        assert not other.cancelled

    go(main, on_task_error=lambda task, exc: lost.append(task.name))
    assert lost == ["thief"]


def test_a_cancelled_task_that_returns_has_returned():
    def main():
        task = spawn(swallow, 1)
        yield
        return (yield from task.stop()), task.cancelled, task.result

    assert go(main) == (1, False, 1)


def test_a_cancelled_task_whose_clean_up_raises_has_failed():
    lost = []

    def child():
        try:
            yield Sleep(5)
        finally:
            raise ValueError("clean-up")

    def main():
        task = spawn(child)
        yield
        task.cancel()
        yield Sleep(1)
        with pytest.raises(ValueError, match="clean-up"):
            yield from task
        other = spawn(child)
        yield
        with pytest.raises(ValueError, match="clean-up"):  # and is not reported
            yield from other.stop()

    go(main, on_task_error=lambda task, exc: lost.append(str(exc)))
    assert lost == ["clean-up"]


@pytest.mark.hazard("H58")
def test_errors_during_clean_up_mask_nothing():
    lost = []

    def child(error):
        try:
            yield Sleep(100)
        finally:
            raise error

    def main():
        spawn(child, ValueError("B"))
        spawn(child, ValueError("C"))
        yield Sleep(1)
        raise KeyError("A")

    with pytest.raises(KeyError, match="A"):
        run(main, **virtual_time(), on_task_error=lambda task, exc: lost.append(str(exc)))
    assert lost == ["B", "C"]


# The table of cancels -----------------------------------------------------------------------------


@pytest.mark.hazard("H41")
def test_cancel_oneself():
    def child():
        current_task().cancel("me")
        yield

    def main():
        with pytest.raises(TaskCancelled, match="me") as caught:
            yield from spawn(child)
        assert caught.value.reason == "me"

    go(main)


@pytest.mark.hazard("H41")
def test_cancel_main_itself():
    def main():
        current_task().cancel("me")
        yield

    with pytest.raises(TaskCancelled, match=r"^task main#1 was cancelled: me$"):
        go(main)


@pytest.mark.hazard("H41")
@pytest.mark.parametrize("how", ["returned", "failed", "cancelled"])
def test_cancel_finished_leaves_it_as_it_is(how):
    def child():
        yield
        if how == "failed":
            raise ValueError("failed")
        if how == "cancelled":
            current_task().cancel("before")
            yield
        return "returned"

    def main():
        task = spawn(child)
        yield Sleep(1)
        before = repr(task.exception)
        task.cancel("late")
        yield
        assert repr(task.exception) == before
        request = task.cancel_request
        assert (request and request.reason) == ("before" if how == "cancelled" else None)

    go(main, on_task_error=lambda task, exc: None)


@pytest.mark.hazard("H41")
def test_cancel_after_the_run_leaves_it_as_it_is_or_says_so():
    kept = []

    def main():
        kept.append(current_task())
        yield

    go(main)
    try:
        kept[0].cancel()
    except RunFinished:
        pass
    assert kept[0].done and not kept[0].cancelled


@pytest.mark.hazard("H41")
def test_cancel_while_completing_reaches_children_spawned_after_an_earlier_cancel():
    def parent():
        yield from swallow(1)
        spawn(sleeper)  # after the cancel was delivered: not touched by it
        return "outcome"

    def sleeper():
        yield Sleep(100)

    def main():
        task = spawn(parent)
        yield Sleep(1)
        task.cancel()
        yield Sleep(1)
        assert task.state == "completing"
        task.cancel()
        return (yield from task), now()

    assert go(main) == ("outcome", 2)


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
