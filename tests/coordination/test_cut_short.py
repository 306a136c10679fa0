"""What outlives a run that was cut short, a lock or a queue, works in the next one: found entry T6.

Each scenario is run and cut short: by `close()` after every step of a task, or by two Ctrl-C that
come in the middle of a turn. Then the same thing is used in a new run.
"""

import signal
from concurrent.futures import Future
from itertools import islice

import pytest

from corolib import (
    Barrier,
    BoundedSemaphore,
    CancelScope,
    Condition,
    Event,
    LifoQueue,
    Lock,
    PriorityQueue,
    Queue,
    QueueShutDown,
    Result,
    RLock,
    RunFinished,
    Semaphore,
    Sleep,
    TaskGroup,
    ThreadEnd,
    Topic,
    current_task,
    current_threads,
    every,
    first,
    gather,
    now,
    open_signal_receiver,
    spawn,
    timeout,
    to_thread,
    wait_future,
)
from tests.helpers.cuts import CUTS, close_after, cut_short_everywhere
from tests.helpers.driving import get_all, strike, turns

pytestmark = pytest.mark.usefixtures("default_sigint")


# What is acquired ---------------------------------------------------------------------------------


def three_hold_it(lock, done):
    def hold(n):
        with (yield from lock):
            yield
            done.append(n)

    def choose():
        index, held = yield from first(lock.acquiring(), Sleep(100))
        with held:
            yield
            done.append(index)

    for n in range(3):
        spawn(hold, n)
    spawn(choose)
    yield


def it_can_be_had(lock, done):
    """As often as in the beginning, and not once more."""
    tasks = [spawn(three_hold_it, lock, done)]
    for task in tasks:
        yield from task
    if isinstance(lock, Semaphore):
        assert lock.value == 2
    else:
        assert getattr(lock, "lock", lock).owner is None


@pytest.mark.found("T6")
@CUTS
@pytest.mark.parametrize("make", [Lock, RLock, lambda: Semaphore(2), lambda: BoundedSemaphore(2)])
def test_a_lock_can_be_had_after_a_run_that_was_cut_short(cut, make):
    cut_short_everywhere(cut, make, three_hold_it, it_can_be_had)


@pytest.mark.found("T6")
@CUTS
def test_a_lock_that_is_released_in_a_clean_up_can_be_had(cut):
    """The clean-up runs as its task: `release()` asks who calls."""

    def work(lock, done):
        def hold():
            yield from lock.acquire()
            try:
                yield
            finally:
                lock.release()

        for _ in range(3):
            spawn(hold)
        yield

    cut_short_everywhere(cut, Lock, work, it_can_be_had)


@pytest.mark.found("T6")
@CUTS
def test_a_lock_that_nobody_has_released_says_who_held_it(cut):
    def work(lock, done):
        def hold():
            yield from lock.acquire()
            done.append(current_task().label)
            yield
            lock.release()
            done.clear()

        for _ in range(2):
            spawn(hold)
        yield

    def check(lock, done):
        if done:
            with pytest.raises(RuntimeError, match=f"{done[0]}, which held it, ended without"):
                yield from lock
            told.append(done[0])
        else:
            yield from lock

    told = []
    cut_short_everywhere(cut, Lock, work, check)
    assert len(set(told)) == 2


@pytest.mark.found("T6")
@CUTS
@pytest.mark.parametrize("kind", [Lock, RLock])
def test_a_condition_can_be_used_after_a_run_that_was_cut_short(cut, kind):
    def work(condition, done):
        def wait(n):
            with (yield from condition):
                yield from condition.wait_for(lambda: done)
                done.append(n)

        def notify():
            yield
            yield
            with (yield from condition):
                done.append("news")
                condition.notify(1)
                condition.notify_all()

        for n in range(3):
            spawn(wait, n)
        yield from spawn(notify)

    def check(condition, done):
        assert condition.lock.owner is None
        done.clear()
        with timeout(10):
            yield from work(condition, done)

    cut_short_everywhere(cut, lambda: Condition(kind()), work, check)


# What is told -------------------------------------------------------------------------------------


@pytest.mark.found("T6")
@CUTS
def test_an_event_wakes_those_of_the_next_run_and_nobody_else(cut):
    def work(event, done):
        def wait():
            yield from event.wait()
            done.append("woken")

        for _ in range(3):
            spawn(wait)
        yield
        yield
        event.set()
        yield

    def check(event, done):
        event.clear()
        done.clear()
        yield from spawn(work, event, done)
        yield
        assert done == ["woken"] * 3

    cut_short_everywhere(cut, Event, work, check)


@pytest.mark.found("T6")
@CUTS
def test_a_barrier_waits_for_as_many_as_ever(cut):
    def work(barrier, done):
        def come():
            done.append((yield from barrier.wait()))

        for _ in range(3):
            yield from [None]
            spawn(come)
        yield

    def check(barrier, done):
        done.clear()
        yield from spawn(work, barrier, done)
        assert sorted(done) == [0, 1, 2]

    cut_short_everywhere(cut, lambda: Barrier(3), work, check)


@pytest.mark.found("T6")
@CUTS
def test_a_result_can_be_set_in_the_next_run(cut):
    def work(result, done):
        def wait():
            done.append((yield from result))

        for _ in range(3):
            spawn(wait)
        yield
        yield
        result.set("value")
        yield

    def check(result, done):
        if result.done:
            assert (yield from result) == "value"
        else:
            yield from spawn(work, result, done)
            assert done == ["value"] * 3

    cut_short_everywhere(cut, Result, work, check)


# What is handed on --------------------------------------------------------------------------------


QUEUES = pytest.mark.parametrize("kind", [Queue, LifoQueue, PriorityQueue])


@pytest.mark.found("T6")
@CUTS
@QUEUES
@pytest.mark.parametrize("size", [0, 1, 2])
def test_no_item_of_a_queue_is_lost_or_got_twice(cut, kind, size):
    def work(queue, done):
        def put(n):
            for item in range(n, n + 4):
                yield from queue.put(item)
                done.append(("put", item))

        def get():
            for _ in range(2):
                done.append(("got", (yield from queue.get())))
                queue.task_done()
                _, item = yield from first(queue.getting(), Sleep(100))
                done.append(("got", item))
                queue.task_done()

        for n in (0, 10):
            spawn(get)
            spawn(put, n)
        spawn(queue.join())
        yield

    def check(queue, done):
        put = [item for what, item in done if what == "put"]
        got = [item for what, item in done if what == "got"]
        while len(queue):
            got.append((yield from queue.get()))
            queue.task_done()
        assert sorted(got) == sorted(put)
        yield from queue.join()
        done.clear()
        yield from spawn(work, queue, done)
        assert len(done) == 16

    cut_short_everywhere(cut, lambda: kind(size), work, check)


@pytest.mark.found("T6")
@CUTS
def test_a_pool_of_things_in_a_queue_stays_whole(cut):
    """What a task was given just before the end it takes, and its clean-up gives it back."""

    def make():
        pool = Queue(2)
        for thing in "ab":
            pool.put_nowait(thing)
        return pool

    def work(pool, done):
        def use():
            thing = yield from pool.get()
            try:
                yield
            finally:
                pool.put_nowait(thing)

        for _ in range(5):
            spawn(use)
        yield

    def check(pool, done):
        assert len(pool) == 2
        yield from spawn(work, pool, done)
        assert {pool.get_nowait(), pool.get_nowait()} == {"a", "b"}

    cut_short_everywhere(cut, make, work, check)


@pytest.mark.found("T6")
@CUTS
@pytest.mark.parametrize("overflow", ["wait", "drop_old"])
def test_a_topic_has_no_subscribers_of_a_run_that_was_cut_short(cut, overflow):
    def work(topic, done):
        def subscribe():
            with topic.subscribe() as news:
                got = []
                done.append(got)
                yield from get_all(news, got)

        def publish():
            for item in range(3):
                yield from topic.publish(item)

        for _ in range(2):
            spawn(subscribe, daemon=True)
        yield
        spawn(publish)
        yield from publish()

    def check(topic, done):
        assert "with 0 subscribers" in repr(topic)
        done.clear()
        with TaskGroup() as g:
            g.spawn(work, topic, done)
            yield from g
        assert [len(got) for got in done] == [6, 6] or overflow == "drop_old"
        topic.shutdown()
        with pytest.raises(QueueShutDown):
            yield from topic.publish(1)

    cut_short_everywhere(cut, lambda: Topic(1, overflow), work, check)


# What belongs to its run --------------------------------------------------------------------------


@pytest.mark.found("T6")
@CUTS
@pytest.mark.parametrize("how", ["join", "stop", "cancel", "gather", "watch"])
def test_who_waits_for_a_task_of_a_run_that_was_cut_short_is_told(cut, how):
    def work(tasks, done):
        tasks.append(spawn(turns, 3))
        tasks.append(spawn(Sleep(100).__iter__()))
        yield from turns(5)
        tasks[1].cancel()

    def ask(tasks, done):
        for task in tasks:
            if task.done:
                continue
            with pytest.raises(RunFinished):
                if how == "join":
                    yield from task
                elif how == "stop":
                    yield from task.stop()
                elif how == "cancel":
                    task.cancel()
                elif how == "gather":
                    yield from gather(task)
                else:
                    task.watch(done.append)

    cut_short_everywhere(cut, list, work, ask)


@pytest.mark.found("T6")
@CUTS
@pytest.mark.parametrize("kind", [CancelScope, TaskGroup])
def test_a_block_of_a_run_that_was_cut_short_was_left(cut, kind):
    def work(blocks, done):
        with kind() as block:
            blocks.append(block)
            if kind is TaskGroup:
                for _ in range(2):
                    block.spawn(turns, 3)
                yield from block
            else:
                yield from turns(3)

    def ask(blocks, done):
        for block in blocks:
            block.cancel("too late")
            block.deadline = 0
            if kind is TaskGroup:
                with pytest.raises(RuntimeError, match="this group has ended"):
                    block.spawn(turns, 1)
                with pytest.raises(RuntimeError, match="waited for by the task that owns it"):
                    yield from block
        yield

    cut_short_everywhere(cut, list, work, ask)


@pytest.mark.found("T6")
@CUTS
def test_a_subscription_of_a_run_that_was_cut_short_is_over(cut):
    """One that was made and not entered can be entered in the next run."""

    def work(things, done):
        topic = Topic(9)
        things[:] = topic, topic.subscribe()

        def read():
            with topic.subscribe() as news:
                things.append(news)
                yield from get_all(news, done)

        spawn(read, daemon=True)
        for item in range(2):
            yield
            yield from topic.publish(item)

    def check(things, done):
        for news in things[2:]:
            with pytest.raises(QueueShutDown):
                while True:
                    yield from news.get()
        if things:
            with things[1] as news:
                yield from things[0].publish("new")
                assert (yield from news.get()) == "new"

    cut_short_everywhere(cut, list, work, check)


@pytest.mark.found("T6")
@CUTS
def test_a_deadline_of_a_run_that_was_cut_short_moves_nothing(cut):
    def work(scopes, done):
        with timeout(100) as scope:
            scopes.append(scope)
            for seconds in 50, 10, None, 5:
                scope.deadline = None if seconds is None else now() + seconds
                yield

    def check(scopes, done):
        with timeout(100) as scope:
            for each in scopes:
                each.deadline = now()
                each.deadline = now() + 1
                each.cancel()
            yield Sleep(10)
        assert not scope.expired

    cut_short_everywhere(cut, list, work, check)


@pytest.mark.found("T6")
@CUTS
def test_a_future_is_waited_for_in_the_next_run(cut):
    def work(futures, done):
        def wait(future):
            done.append((yield from wait_future(future)))

        for future in futures:
            spawn(wait, future)
        for future in futures:
            yield
            future.set_result("value")

    def check(futures, done):
        del done[:]
        for future in futures:
            if not future.done():
                future.set_result("value")
            assert (yield from wait_future(future)) == "value"
        yield from turns(2)
        assert done == []

    cut_short_everywhere(cut, lambda: [Future(), Future()], work, check)


@pytest.mark.found("T6")
def test_ticks_go_on_in_the_next_run():
    def work(ticks, done):
        ticks.append(every(1))
        for tick in ticks[0]:
            done.append((yield from tick))
            if len(done) == 3:
                return

    def check(ticks, done):
        for tick in islice(ticks[0], 2) if ticks else ():
            yield from tick

    cut_short_everywhere(close_after, list, work, check)


@pytest.mark.found("T6")
def test_the_threads_of_a_run_that_was_cut_short_do_no_more_work():
    def work(threads, done):
        threads.append(current_threads())
        yield from gather(to_thread(int), to_thread(int))

    def ask(threads, done):
        for each in threads:
            each.limit = 3
            assert each.stats()["running"] == each.stats()["queued"] == 0
        yield

    cut_short_everywhere(close_after, list, work, ask)


@pytest.mark.found("T6")
@CUTS
def test_a_signal_receiver_of_a_run_that_was_cut_short_is_closed_and_no_failure(cut):
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def work(receivers, done):
        with open_signal_receiver(signal.SIGUSR1) as received:
            receivers.append(received)
            for _ in range(3):
                strike(signal.SIGUSR1)
                assert (yield from received) == signal.SIGUSR1

    def ask(receivers, done):
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        for received in receivers:
            with pytest.raises(RuntimeError, match="is not open"):
                yield from received

    try:
        cut_short_everywhere(cut, list, work, ask)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.found("T6")
def test_the_end_of_a_queue_for_threads_of_a_run_that_was_cut_short_says_so():
    def work(ends, done):
        queue = Queue(1)
        ends.append(ThreadEnd(queue))
        for n in range(3):
            yield from to_thread(ends[0].put, n)
            assert (yield from queue.get()) == n

    def ask(ends, done):
        for end in ends:
            with pytest.raises(RunFinished):
                yield from to_thread(end.put, 1)

    cut_short_everywhere(close_after, list, work, ask)
