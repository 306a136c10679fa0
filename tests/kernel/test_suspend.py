"""What `Suspend` means: arming, undoing, and a wake that counts once, wherever it comes from."""

import contextlib
import random
import signal
import socket
import sys
import threading
from collections import OrderedDict

import pytest

import corolib
from corolib import (
    Cancelled,
    ClosedError,
    Lock,
    Queue,
    ReadWait,
    Sleep,
    Suspend,
    TaskCancelled,
    TaskGroup,
    close,
    current_scheduler,
    current_task,
    first,
    move_on_after,
    now,
    run,
    shield,
    spawn,
)
from corolib.kernel import in_queue, serve
from corolib.kernel.suspend import SuspendWake
from corolib.testing import survivors, virtual_time
from tests.helpers.driving import FULL, go, in_a_thread, in_threads
from tests.helpers.inside import suspended
from tests.helpers.moments import Moment

# Arming -------------------------------------------------------------------------------------------


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


# Wakes --------------------------------------------------------------------------------------------


class Source:
    """Something to suspend for: keeps the wakes it was given and counts the undos."""

    def __init__(self):
        self.wakes = []
        self.undone = 0

    def arm(self, wake):
        self.wakes.append(wake)
        return self.undo

    def undo(self):
        self.undone += 1

    def wait(self):
        return Suspend(self.arm, "a source", outside=True)


@pytest.mark.parametrize("do", [lambda call: call(), in_a_thread], ids=["here", "in a thread"])
def test_a_wake_hands_over_a_value_or_an_error(do, selector):
    source = Source()

    def wait():
        return (yield source.wait())

    def main():
        one, two = spawn(wait), spawn(wait)
        yield
        yield
        do(lambda: source.wakes[0]("value"))
        do(lambda: source.wakes[1](error=ZeroDivisionError("carried")))
        assert (yield from one) == "value"
        with pytest.raises(ZeroDivisionError, match="carried"):
            yield from two
        with pytest.raises(KeyError, match="at once"):
            yield Suspend(lambda wake: do(lambda: wake(error=KeyError("at once"))) or list, "x")

    run(main, selector=selector)


def test_only_the_first_wake_counts():
    source = Source()

    def arm(wake):
        wake("first")
        wake("second")
        wake(error=ZeroDivisionError("third"))
        return lambda: pytest.fail("an undo after a wake")

    def wait(trap):
        first = yield trap
        yield Sleep(0)
        return first

    def main():
        task = spawn(wait, source.wait())
        yield
        yield
        source.wakes[0]("first")
        source.wakes[0]("second")
        source.wakes[0](error=ZeroDivisionError("third"))
        assert (yield from task) == "first"
        assert source.undone == 0
        return (yield from wait(Suspend(arm, "x")))

    assert go(main) == "first"


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


@pytest.mark.hazard("H66")
@pytest.mark.parametrize("do", [lambda call: call(), in_a_thread], ids=["here", "in a thread"])
def test_a_wake_for_a_cancelled_wait_is_late_and_the_next_wait_gets_its_own_result(do):
    source = Source()

    def wait():
        try:
            yield source.wait()
        except Cancelled:
            pass
        return (yield source.wait())

    def main():
        task = spawn(wait)
        yield
        yield
        task.cancel()
        assert source.undone == 1
        yield
        yield
        assert len(source.wakes) == 2
        do(lambda: source.wakes[0]("old"))
        yield
        yield
        assert task.state == "waiting"
        do(lambda: [wake("new") for wake in source.wakes])
        assert (yield from task) == "new"
        assert source.undone == 1

    run(main)


@pytest.mark.hazard("H66")
def test_of_many_threads_that_wake_one_task_one_is_heard():
    source = Source()
    rounds = 200

    def wait():
        return (yield source.wait())

    def main():
        for _ in range(rounds):
            source.wakes.clear()
            task = spawn(wait)
            yield
            yield
            barrier = threading.Barrier(4)

            def wake(number, barrier=barrier):
                barrier.wait()
                source.wakes[0](number)

            threads, raised = in_threads(4, wake)
            assert (yield from task) in range(4)
            for thread in threads:
                thread.join()
            assert raised == []
            yield

    run(main)


@pytest.mark.parametrize("seed", range(3))
def test_wakes_from_threads_and_cancels_race_without_a_loss(seed):
    """Whoever comes first wins, the other is void, and no task is stepped twice for one wait."""
    rng = random.Random(seed)
    outcomes = {"woken": 0, "cancelled": 0}

    def waiter(wakes):
        try:
            yield Suspend(lambda wake: wakes.append(wake) or int, "a race", outside=True)
            outcomes["woken"] += 1
        except corolib.Cancelled:
            outcomes["cancelled"] += 1
            raise

    def main():
        for _ in range(200):
            wakes = []
            tasks = [spawn(waiter, wakes) for _ in range(5)]
            while len(wakes) < 5:
                yield
            todo = list(wakes)
            rng.shuffle(todo)
            thread = threading.Thread(target=lambda todo=todo: [wake() for wake in todo])
            thread.start()
            for task in tasks:
                task.cancel()
            yield
            thread.join()
            for task in tasks:
                try:
                    yield from task
                except corolib.TaskCancelled:
                    pass
        return "done"

    assert corolib.run(main) == "done"
    assert sum(outcomes.values()) == 1000


class FakeScheduler:
    """A scheduler, and its table of suspended tasks."""

    def __init__(self, polling):
        self.scheduler = self
        self.polling = polling
        self.log = []

    def at_once(self):
        self.log.append("asked")
        return not self.polling

    def woken(self, task, value, error):
        self.log.append(("woken", task, value, error))

    def call_soon_threadsafe(self, f, *args):
        self.log.append(("later", f, *args))


def test_a_wake_that_may_not_act_at_once_leaves_a_call():
    scheduler = FakeScheduler(polling=True)
    wake = SuspendWake(scheduler, "task")
    wake("value")
    wake("again")
    assert scheduler.log == ["asked", ("later", scheduler.woken, "task", "value", None), "asked"]
    assert wake.claim() is None


def test_a_claimed_wake_does_nothing():
    scheduler = FakeScheduler(polling=False)
    wake = SuspendWake(scheduler, "task")
    assert wake.claim() == "task"
    wake("value")
    assert scheduler.log == ["asked"]


# In a queue ---------------------------------------------------------------------------------------


def stand_in(queue, item=None):
    """Wait in a queue until served."""

    def general():
        raise AssertionError("nobody asks")

    return (yield in_queue(queue, general, item))


@pytest.mark.parametrize("do", [lambda call: call(), in_a_thread], ids=["here", "in a thread"])
@pytest.mark.parametrize("error", [None, ValueError("no more")], ids=["value", "error"])
def test_who_stands_in_a_queue_gets_what_it_is_served(do, error):
    def child(queue, n, got):
        try:
            got.append((yield from stand_in(queue, n)))
        except ValueError as exc:
            got.append(exc)

    def main():
        queue, got = OrderedDict(), []
        tasks = [spawn(child, queue, n, got) for n in range(3)]
        yield
        assert list(queue.items()) == list(zip(tasks, range(3), strict=True))
        assert suspended(current_scheduler()) == set(tasks)
        while queue:
            waiter, item = queue.popitem(last=False)
            do(lambda: serve(waiter, item, error))
        yield from survivors(tasks)
        assert not suspended(current_scheduler())
        return got

    assert go(main) == ([0, 1, 2] if error is None else [error] * 3)


def test_who_was_served_in_a_thread_gets_that_before_a_cancel():
    def child(queue, got):
        got.append((yield from stand_in(queue)))
        try:
            yield Sleep(1)
        except Cancelled:
            got.append("cancelled")
            raise

    def main():
        queue, got = OrderedDict(), []
        task = spawn(child, queue, got)
        yield
        waiter, _ = queue.popitem()
        in_a_thread(lambda: serve(waiter, "served"))
        task.cancel()
        yield from task.stop()
        return got

    assert go(main) == ["served", "cancelled"]


def test_what_became_free_while_other_tasks_were_awaited_first_is_had_at_once():
    """A body has left its group by an exception: its next wait first waits for the children."""

    def child():
        try:
            yield Sleep(9)
        finally:
            with shield():
                yield Sleep(1)

    def work(lock, got):
        with pytest.raises(LookupError):
            with TaskGroup() as g:
                g.spawn(child)
                yield
                raise LookupError
        with (yield from lock):
            got.append(now())

    def main():
        lock, got = Lock("A"), []
        with (yield from lock):
            task = spawn(work, lock, got)
            yield
            yield
            assert repr(task.wait).startswith("the end of child")
            assert lock.waiters == 0
        yield from task
        return got

    assert go(main) == [1]


# Who waits in the place of a task -----------------------------------------------------------------


@pytest.mark.hazard("H44")
@pytest.mark.parametrize("trap", [Sleep(1), ReadWait], ids=["value", "error"])
def test_a_proxy_waiter_whose_wake_raises_ends_nothing_else(trap, pair):
    a, _ = pair
    lost, called = [], []

    def wake(value=None, error=None):
        called.append((value, type(error)))
        raise ZeroDivisionError("in a wake")

    def main():
        wait = ReadWait(a) if trap is ReadWait else trap
        current_scheduler().arm(wait, wake)
        yield Sleep(0.5)
        close(a)  # who waits for it is woken with an error
        yield Sleep(1)
        return "went on"

    hook = lambda task, exc: lost.append((task.name, str(exc)))  # noqa: E731
    assert run(main, on_task_error=hook, **virtual_time()) == "went on"
    assert called == [(None, ClosedError if trap is ReadWait else type(None))]
    assert lost == [("main", "in a wake")]


def test_a_second_ctrl_c_in_the_wake_of_a_proxy_waiter_leaves_the_run(default_sigint):
    log = []

    def wake(value=None, error=None):
        signal.raise_signal(signal.SIGINT)
        log.append("one is heard later")
        signal.raise_signal(signal.SIGINT)
        log.append("never")

    def main():
        current_scheduler().arm(Sleep(1), wake)
        try:
            yield Sleep(60)
        finally:
            log.append("closed")

    with pytest.raises(KeyboardInterrupt):
        run(main, **virtual_time())
    assert log == ["one is heard later", "closed"]


# A wake in a signal handler -----------------------------------------------------------------------


def struck(n, scenario):
    """Run `scenario(wakes)`, a generator function, and at its `n`th moment, as a signal handler
    would, call each wake that is in `wakes` then. Return whether there are as many moments.
    """
    wakes = []

    def strike():
        while wakes:
            wakes.pop()("struck")

    def main():
        before = sys.gettrace()
        sys.settrace(moment.trace)
        try:
            yield from scenario(wakes)
        finally:
            sys.settrace(before)

    moment = Moment(n, strike)
    # A thread has a trace of its own, so that whoever measures this one loses nothing.
    thread = threading.Thread(target=run, args=(main,), kwargs=virtual_time())
    thread.start()
    thread.join()
    return moment.come


def until_struck(wakes):
    """The trap of a wait that adds its wake to `wakes`."""

    def arm(wake):
        wakes.append(wake)
        return lambda: wake in wakes and wakes.remove(wake)

    return Suspend(arm, "the signal", outside=True)


def cancelled_meanwhile(wakes):
    steps = []

    def child():
        try:
            steps.append((yield until_struck(wakes)))
            yield Sleep(9)
        except Cancelled:
            steps.append("cancelled")
            raise

    task = spawn(child)
    yield
    yield
    task.cancel()
    with pytest.raises(TaskCancelled):
        yield from task
    assert steps in (["cancelled"], ["struck", "cancelled"])


def cancelled_twice_meanwhile(wakes):
    for _ in range(2):
        yield from cancelled_meanwhile(wakes)


def timed_out_meanwhile(wakes):
    got = None
    with move_on_after(1) as scope:
        got = yield until_struck(wakes)
    assert (scope.expired, got) in ((True, None), (False, "struck"))
    begun = now()
    yield Sleep(1)
    assert now() == begun + 1


def timed_out_twice_meanwhile(wakes):
    for _ in range(2):
        yield from timed_out_meanwhile(wakes)


def one_of_several(wakes):
    queue = Queue(1)
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        index, value = yield from first(until_struck(wakes), queue.getting(), ReadWait(a), Sleep(1))
        assert (index, value) in ((0, "struck"), (3, None))
        assert queue.waiters == 0
        assert (yield from first(ReadWait(a), Sleep(1))) == (1, None)  # nobody else waits for it


def joined_meanwhile(wakes):
    """What is joined ends at any moment of a join: made, taken back, made again."""
    got = []

    def child():
        return (yield until_struck(wakes))

    def joiner(task):
        got.append((yield from task))

    task = spawn(child)
    cancelled, last = spawn(joiner, task), spawn(joiner, task)
    with move_on_after(1) as scope:
        got.append((yield from task))
    cancelled.cancel()
    if wakes:
        wakes.pop()("struck")
    assert (yield from task) == "struck"  # again, or for the first time
    yield from last
    yield
    assert got == ["struck"] * (3 - scope.expired - cancelled.cancelled)
    assert task.joiners is None
    assert not suspended(current_scheduler())


def joiner_cancelled_meanwhile(wakes):
    """A task that joins another is cancelled at any moment, also while it is being told."""

    def child():
        for _ in range(3):
            yield

    def joiner(task):
        try:
            yield from task
        except Cancelled:
            pass  # nothing that comes later is cut short without an error
        began = now()
        yield
        yield Sleep(1)
        assert now() >= began + 1

    task = spawn(joiner, spawn(child))
    wakes.append(task.cancel)
    with contextlib.suppress(TaskCancelled):
        yield from task


def cancelled_in_a_queue_meanwhile(wakes):
    """A task that waits for a lock is cancelled at any moment, also while it is given the lock."""
    lock, got = Lock(), []

    def child():
        with (yield from lock):
            got.append("lock")
            yield Sleep(1)

    with (yield from lock):
        task, other = spawn(child), spawn(child)
        yield
        wakes.append(task.cancel)
        yield
    yield from other
    with contextlib.suppress(TaskCancelled):
        yield from task
    assert got[-1] == "lock"
    assert lock.owner is None
    assert lock.waiters == 0
    assert not suspended(current_scheduler())


@pytest.mark.parametrize(
    "scenario",
    [
        cancelled_twice_meanwhile,
        cancelled_in_a_queue_meanwhile,
        timed_out_twice_meanwhile,
        one_of_several,
        joined_meanwhile,
        joiner_cancelled_meanwhile,
    ],
)
def test_a_wake_in_a_signal_handler_may_come_at_any_moment(scenario):
    assert not struck(10**6, scenario)  # and from now on Python 3.12 tells of all moments
    n = 0
    while struck(n, scenario):
        n += 1 if FULL else 7
    assert n > 100
