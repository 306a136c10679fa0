"""Those who wait, first come, first served: order, leaving, and what a long queue costs."""

import gc
from collections import OrderedDict
from signal import SIGHUP

import pytest

from corolib import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Event,
    LifoQueue,
    Lock,
    PriorityQueue,
    Queue,
    Result,
    RLock,
    Semaphore,
    Sleep,
    TaskGroup,
    Topic,
    first,
    move_on_after,
    open_signal_receiver,
    run,
    spawn,
)
from corolib.testing import survivors
from tests.helpers.driving import FULL, hold, sleeper
from tests.helpers.inside import queue_of, queues_of, turns_of

pytestmark = pytest.mark.corolib(clock="virtual")

LOCKS = [Lock, RLock, Semaphore, BoundedSemaphore, Condition]


@pytest.mark.parametrize("kind", LOCKS)
def test_waiters_are_served_in_the_order_in_which_they_came(kind):
    lock, log = kind(), []
    yield from survivors([spawn(hold, lock, 1, log, n) for n in range(5)])
    assert log == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", LOCKS)
def test_who_releases_and_acquires_again_comes_after_those_who_wait(kind):
    lock, log = kind(), []

    def work(name):
        for _ in range(2):
            with (yield from lock):
                log.append(name)
                yield

    yield from survivors([spawn(work, name) for name in "ab"])
    assert "".join(log) == "abab"


@pytest.mark.hazard("H43")
@pytest.mark.parametrize("kind", LOCKS)
def test_a_cancelled_waiter_has_left_the_queue_at_once(kind):
    lock, seen = kind(), []
    queue = lock.lock if kind is Condition else lock

    def wait():
        try:
            yield from lock
        finally:
            seen.append(queue.waiters)

    with (yield from lock):
        for _ in range(1000):
            task = spawn(wait)
            yield
            assert queue.waiters == 1
            yield from task.stop()
    assert set(seen) == {0}
    assert len(seen) == 1000


@pytest.mark.hazard("H43")
@pytest.mark.parametrize("kind", [Lock, RLock, Semaphore])
def test_queueing_up_and_leaving_many_times_leaves_nothing(kind):
    def visit(lock, times):
        for _ in range(times):
            with move_on_after(0.001):
                yield from lock
            yield from first(lock.acquiring(), Sleep(0.001))

    lock = kind()
    with (yield from lock):
        yield from spawn(visit, lock, 10)
        gc.collect()
        before = len(gc.get_objects())
        yield from spawn(visit, lock, 50_000 if FULL else 2_000)
        gc.collect()
        assert lock.waiters == 0
        assert len(gc.get_objects()) - before < 1000  # cancelled timers, at most so many


def test_those_who_wait_for_their_turn_are_in_a_queue_that_costs_the_same_however_long():
    with TaskGroup(limit=1) as g:
        for _ in range(3):
            g.spawn(sleeper)
        yield
        yield
        # The first of a dict is found behind all that were first before: counts do not show it.
        turns = turns_of(g)
        assert turns.waiters == 2 and isinstance(queue_of(turns), OrderedDict)
        yield from g


@pytest.mark.parametrize(
    "make",
    [
        *LOCKS,
        *(Event, Result, lambda: Barrier(2), lambda: Topic(1)),
        *(lambda: Queue(1), lambda: PriorityQueue(1), lambda: LifoQueue(1)),
    ],
)
def test_to_leave_the_middle_of_a_queue_costs_the_same_however_long_it_is(make):
    for queue in queues_of(make()):
        assert type(queue) is OrderedDict  # a subclass would take and remove the slow way


def test_the_head_of_a_long_queue_is_found_at_once():
    def main():
        yield
        with open_signal_receiver(SIGHUP) as received:
            return type(queue_of(received))  # a dict would be looked through from its beginning

    assert run(main) is OrderedDict
