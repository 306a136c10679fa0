"""Queues: order, bounds, hand-over, shutdown, and what a cancel does not lose."""

import gc
import math
import queue as standard

import pytest

from corolib import (
    Cancelled,
    Deadlock,
    Event,
    LifoQueue,
    PriorityQueue,
    Queue,
    QueueEmpty,
    QueueFull,
    QueueShutDown,
    Sleep,
    Topic,
    current_scheduler,
    first,
    move_on_after,
    run,
    spawn,
)
from corolib.testing import survivors
from tests.helpers.driving import FULL, get_all, go
from tests.helpers.garbage import garbage_of

KINDS = [Queue, PriorityQueue, LifoQueue]


def put_all(queue, items):
    for item in items:
        yield from queue.put(item)


# Order and bounds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3, math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_every_item_arrives_once(kind, size):
    def main():
        queue, got = kind(size), []
        consumers = [spawn(get_all, queue, got) for _ in range(3)]
        yield from survivors([spawn(put_all, queue, range(n, n + 50)) for n in (0, 50)])
        queue.shutdown()
        yield from survivors(consumers)
        assert queue.waiters == 0
        return sorted(got)

    assert go(main) == list(range(100))


@pytest.mark.parametrize("size", [0, 1, 2, math.inf])
def test_one_producer_and_one_consumer_keep_the_order(size):
    def main():
        queue, got = Queue(size), []
        consumer = spawn(get_all, queue, got)
        yield from put_all(queue, range(200))
        queue.shutdown()
        yield from consumer
        return got

    assert go(main) == list(range(200))


@pytest.mark.parametrize(
    ("kind", "order"), [(Queue, [2, 3, 1]), (PriorityQueue, [1, 2, 3]), (LifoQueue, [1, 3, 2])]
)
def test_the_kind_says_which_item_comes_first(kind, order):
    queue = kind(3)
    for item in (2, 3, 1):
        queue.put_nowait(item)
    assert [queue.get_nowait() for _ in range(3)] == order


def test_what_a_comparison_raises_goes_to_who_puts_or_gets():
    def main():
        for way in (PriorityQueue.put_nowait, PriorityQueue.put):
            queue = PriorityQueue(2)
            queue.put_nowait(2)
            with pytest.raises(TypeError, match="not supported between"):
                yield from way(queue, "x")
        queue = PriorityQueue(2)
        for item in (1, 2):
            queue.put_nowait(item)
        bad = spawn(queue.put("x"))
        yield
        assert (yield from queue.get()) == 1  # which lets the putter in
        with pytest.raises(TypeError, match="not supported between"):
            yield from bad

    go(main, on_task_error=lambda task, exc: None)


def test_a_rendezvous_keeps_the_producer_until_somebody_takes_the_item():
    def main():
        queue, log = Queue(0), []

        def produce():
            for n in range(2):
                yield from queue.put(n)
                log.append(f"put {n}")

        task = spawn(produce)
        yield
        yield
        assert log == [] and len(queue) == 0 and queue.waiters == 1
        assert (yield from queue.get()) == 0
        yield
        assert log == ["put 0"]
        with pytest.raises(QueueFull):
            queue.put_nowait(5)
        assert queue.get_nowait() == 1
        getter = spawn(queue.get())
        yield
        queue.put_nowait(7)
        yield from task
        return log, (yield from getter)

    assert go(main) == (["put 0", "put 1"], 7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bounded_queue_never_holds_more_than_its_size(kind):
    def main():
        queue, most = kind(3), 0
        producers = [spawn(put_all, queue, range(20)) for _ in range(4)]
        while not all(task.done for task in producers):
            yield
            most = max(most, len(queue))
            for _ in range(min(2, len(queue))):
                queue.get_nowait()
        return most

    assert go(main) == 3


def test_getters_and_putters_are_served_in_the_order_in_which_they_came():
    def main():
        queue, log = Queue(1), []

        def get(n):
            log.append((n, (yield from queue.get())))

        getters = [spawn(get, n) for n in range(3)]
        yield
        for item in "abc":
            queue.put_nowait(item)
        yield from survivors(getters)
        putters = [spawn(queue.put(n)) for n in range(4)]
        yield
        log += [queue.get_nowait() for _ in range(4)]
        yield from survivors(putters)
        return log

    assert go(main) == [(0, "a"), (1, "b"), (2, "c"), 0, 1, 2, 3]


@pytest.mark.parametrize("kind", [*KINDS, Topic])
def test_the_size_must_be_said_and_be_one(kind):
    with pytest.raises(TypeError):
        kind()
    takes = rf"^{kind.__name__}\(\) takes math\.inf or a whole number, at least {kind is Topic:d}"
    for size in (None, "1", 1.5, True, math.nan):
        with pytest.raises(TypeError, match=takes):
            kind(size)
    with pytest.raises(ValueError, match=f"{takes}, not -1"):
        kind(-1)


def test_a_queue_that_is_empty_is_true_all_the_same():
    assert Queue(1)
    assert len(Queue(1)) == 0


def test_nowait_raises_what_the_standard_queue_raises():
    queue = Queue(1, "jobs")
    with pytest.raises(standard.Empty, match="<Queue jobs 0 of 1 items> has no item") as empty:
        queue.get_nowait()
    queue.put_nowait(1)
    with pytest.raises(standard.Full, match="<Queue jobs 1 of 1 items> has no room") as full:
        queue.put_nowait(2)
    assert empty.type is QueueEmpty and full.type is QueueFull


def test_the_repr_shows_items_and_waiters():
    def main():
        queue = Queue(math.inf, "q")
        task = spawn(queue.get())
        yield
        assert repr(queue) == "<Queue q 0 of any number of items, 1 waiting>"
        queue.shutdown()
        with pytest.raises(QueueShutDown, match="<Queue q> was shut down; to end there: `exc"):
            yield from task
        assert repr(queue) == "<Queue q 0 of any number of items, shut down>"

    go(main, on_task_error=lambda task, exc: None)


def test_what_can_be_had_at_once_gives_way_only_now_and_then():
    def main():
        queue = Queue(1)
        before = current_scheduler().stats()["steps"]
        for n in range(320):
            yield from queue.put(n)
            assert (yield from queue.get()) == n
        return current_scheduler().stats()["steps"] - before

    assert go(main) == 10


# The traps ----------------------------------------------------------------------------------------


def test_the_traps_can_be_one_of_several_waits():
    def main():
        queue, event = Queue(1), Event()
        assert (yield from first(queue.getting(), Sleep(1))) == (1, None)
        assert (yield from first(queue.putting("a"), event.waiting())) == (0, None)
        assert (yield from first(queue.putting("b"), Sleep(1))) == (1, None)
        assert (yield from first(event.waiting(), queue.getting())) == (1, "a")
        assert (len(queue), queue.waiters) == (0, 0)
        queue.shutdown()
        for trap in (queue.getting(), queue.putting("c")):
            with pytest.raises(QueueShutDown):
                yield from first(event.waiting(), trap)
        return event.waiters

    assert go(main) == 0


def test_a_loser_of_first_gets_nothing():
    def main():
        one, other = Queue(0), Queue(0)
        task = spawn(first(one.getting(), other.getting()))
        yield
        yield
        one.put_nowait(1)
        with pytest.raises(QueueFull):
            other.put_nowait(2)
        return (yield from task)

    assert go(main) == (0, 1)


# Cancelled ----------------------------------------------------------------------------------------


@pytest.mark.hazard("H37")
def test_a_getter_that_was_given_an_item_gets_it_before_the_cancel():
    def main():
        queue, log = Queue(1), []

        def consume():
            item = yield from queue.get()
            log.append(item)
            try:
                yield
            except Cancelled:
                log.append("cancelled")
                raise

        task = spawn(consume)
        yield
        queue.put_nowait("item")
        task.cancel()
        yield from survivors([task])
        return log

    assert go(main) == ["item", "cancelled"]


@pytest.mark.hazard("H37")
@pytest.mark.hazard("H43")
def test_a_cancelled_getter_or_putter_has_left_the_queue():
    def main():
        queue = Queue(1)
        getters = [spawn(queue.get()) for _ in range(2)]
        yield
        getters[0].cancel()
        queue.put_nowait("for the second")
        assert (yield from survivors(getters)) == ["for the second"]
        queue.put_nowait(0)
        putters = [spawn(queue.put(n)) for n in (1, 2)]
        yield
        putters[0].cancel()
        assert queue.waiters == 1
        got = [queue.get_nowait(), queue.get_nowait()]
        yield from survivors(putters)
        for _ in range(10_000 if FULL else 1_000):
            with move_on_after(0):
                yield from queue.get()
            yield from first(queue.getting(), Sleep(0))
        return got, queue.waiters

    assert go(main) == ([0, 2], 0)


@pytest.mark.hazard("H46")
@pytest.mark.parametrize("size", [0, 1])
def test_a_queue_may_hold_a_stop_iteration(size):
    items = [StopIteration(7), StopIteration, GeneratorExit(), QueueShutDown("a value"), (1, 2)]

    def main():
        queue, got = Queue(size), []
        task = spawn(put_all, queue, items)
        for _ in items:
            got.append((yield from queue.get()))
        yield from task
        trap = spawn(put_all, queue, items)
        for _ in items:
            got.append((yield queue.getting()))
        yield from trap
        return got

    assert go(main) == [*items, *items]


@pytest.mark.hazard("H54")
@pytest.mark.parametrize(
    ("wait", "what"),
    [
        (lambda: Queue(1, "q").get(), "get from <Queue q>"),
        (lambda: Queue(0, "q").put(1), "put into <Queue q>"),
    ],
)
def test_a_queue_that_nobody_uses_is_a_deadlock_that_says_so(wait, what):
    def main():
        yield from wait()

    with pytest.raises(Deadlock) as caught:
        go(main)
    assert f"main#1  {what}  at main (test_queues.py:" in str(caught.value)


# Joining and shutting down ------------------------------------------------------------------------


def test_join_waits_until_each_item_was_reported_as_done():
    def main():
        queue, log = Queue(math.inf), []
        yield from queue.join()  # nothing was put

        def work():
            while True:
                yield from queue.get()
                yield Sleep(1)
                log.append("done")
                queue.task_done()

        worker = spawn(work, daemon=True)
        for n in range(3):
            queue.put_nowait(n)
        joiners = [spawn(queue.join()) for _ in range(2)]
        yield from queue.join()
        assert log == ["done"] * 3
        yield from survivors(joiners)
        for _ in range(130):  # at once, and now and then all the same after a turn
            yield from queue.join()
        with pytest.raises(ValueError, match="more often than items were put"):
            queue.task_done()
        worker.cancel()

    go(main)


@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_tells_all_who_wait_in_vain(immediate):
    def main():
        full, empty, told = Queue(1), Queue(1), []
        full.put_nowait("kept")

        def wait(what):
            try:
                yield from what
            except QueueShutDown:
                told.append(1)

        spawn(wait, full.put(1))
        spawn(wait, full.put(2))
        spawn(wait, empty.get())
        joiner = spawn(full.join())
        yield
        for queue in (full, empty):
            assert not queue.is_shut
            queue.shutdown(immediate)
            queue.shutdown(immediate)
            assert queue.is_shut
        yield
        assert told == [1, 1, 1]
        with pytest.raises(QueueShutDown):
            full.put_nowait(3)
        with pytest.raises(QueueShutDown):
            yield from full.put(3)
        assert len(full) == (0 if immediate else 1)
        if not immediate:
            assert (yield from full.get()) == "kept"
            full.task_done()
        with pytest.raises(QueueShutDown):
            full.get_nowait()
        with pytest.raises(QueueShutDown):
            yield from full.get()
        yield from joiner

    go(main)


def test_a_shutdown_that_throws_items_away_compares_none():
    queue = PriorityQueue(3)
    for item in ((1,), (2, "a"), (2, None)):
        queue.put_nowait(item)
    with pytest.raises(TypeError, match="not supported between"):
        queue.get_nowait()
    queue.shutdown(immediate=True)
    assert len(queue) == 0


def test_async_for_ends_at_the_shutdown():
    queue, got = Queue(1), []

    async def consume():
        async for item in queue:
            got.append(item)
        return "end"

    def main():
        task = spawn(consume)
        yield from put_all(queue, range(5))
        queue.shutdown()
        return (yield from task)

    assert go(main) == "end"
    assert got == [0, 1, 2, 3, 4]


# Cost ---------------------------------------------------------------------------------------------


def test_a_put_whose_item_cannot_be_compared_leaves_no_cycle_of_references():
    def main():
        queue = PriorityQueue(2)
        queue.put_nowait(1)
        queue.put_nowait(2)
        putter = spawn(queue.put("x"))
        yield
        yield from queue.get()
        yield
        assert isinstance(putter.exception, TypeError)

    assert garbage_of(main) == []


def test_queues_leave_no_cycle_of_references():
    def main():
        gc.collect()
        gc.disable()
        try:
            for kind in KINDS:
                queue, got = kind(0), []
                task = spawn(get_all, queue, got)
                yield from put_all(queue, range(3))
                with move_on_after(0.1):
                    yield from queue.join()
                queue.shutdown()
                yield from task
            topic = Topic(1)
            with topic.subscribe() as news:
                yield from topic.publish(1)
                yield from news.get()
            del queue, task, topic, news
            yield  # the step in which the last cancel was delivered knows it to its end
            return [x for x in gc.get_objects() if isinstance(x, Queue | Topic)]
        finally:
            gc.enable()

    assert go(main) == []


def test_a_shutdown_that_throws_away_what_is_done_already_lets_joiners_go():
    def main():
        queue = Queue(5)
        queue.put_nowait(1)
        queue.put_nowait(2)
        queue.get_nowait()
        queue.task_done()
        queue.task_done()
        queue.shutdown(immediate=True)
        yield from queue.join()
        return "joined"

    assert run(main) == "joined"
