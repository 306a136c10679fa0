"""Cancel at every step: each scenario is run once per step and task, and once per pair.

Every wake-up counts in them: tokens are given out one by one, to somebody who waits, and no spare
one. `COROLIB_SWEEP=full` makes all runs; otherwise a fixed tenth of them is made.
"""

import ast
import functools
import math
import os
import re
import selectors
import socket
from threading import BrokenBarrierError

import pytest

from corolib import (
    Barrier,
    BoundedSemaphore,
    Cancelled,
    CancelScope,
    Condition,
    Event,
    LifoQueue,
    Lock,
    PriorityQueue,
    Queue,
    QueueShutDown,
    ReadWait,
    Result,
    RLock,
    Semaphore,
    Sleep,
    TaskCancelled,
    TaskGroup,
    Topic,
    WriteWait,
    current_scheduler,
    every,
    first,
    first_success,
    gather,
    move_on_after,
    now,
    race,
    run,
    shield,
    spawn,
    started,
    timeout,
)
from corolib.testing import cancel_everywhere, survivors, sweeps
from tests.helpers.driving import FULL
from tests.helpers.inside import LossyLock, impatient, queue_of

EVERY = 1 if FULL else 50
SCENARIOS = {}


def scenario(f):
    """Enter a scenario into the table."""
    SCENARIOS[f.__name__] = f
    return f


@functools.cache
def injections(name):
    """Sweep one scenario; return the number of runs in which something was cancelled."""
    return cancel_everywhere(SCENARIOS[name], pairs=True, every=EVERY)


def feed(tasks, give, *args):
    """Call `give` again and again until all tasks are done; complain if it does not help."""
    for _ in range(100):
        if all(task.done for task in tasks):
            return
        yield from give(*args)
        yield
    raise AssertionError("a survivor still waits")


def spawn_all(n, f, *args):
    return [spawn(f, k, *args) for k in range(n)]


# Locks and semaphores -----------------------------------------------------------------------------


@scenario
def lock():
    lock, inside = Lock(), []

    def work(n):
        for _ in range(2):
            with (yield from lock):
                assert not inside
                inside.append(n)
                try:
                    yield
                finally:
                    inside.remove(n)

    yield from survivors(spawn_all(4, work))
    assert lock.owner is None
    return (lock,)


@scenario
def rlock():
    lock, inside = RLock(), []

    def work(n):
        with (yield from lock):
            assert not inside
            inside.append(n)
            try:
                with (yield from lock):
                    yield
            finally:
                inside.remove(n)
            yield

    yield from survivors(spawn_all(4, work))
    assert lock.owner is None
    return (lock,)


@scenario
def lock_of_async_tasks():
    lock = Lock()

    async def work(n):
        async with lock:
            await Sleep(0.1)

    yield from survivors(spawn_all(4, work))
    assert lock.owner is None
    return (lock,)


@scenario
def lock_whose_holder_ends():
    lock, told = Lock(), []

    def careless():
        yield from lock
        yield
        yield

    def work(n):
        try:
            with (yield from lock):
                yield
        except RuntimeError:
            told.append(n)
        return n

    careless = spawn(careless)
    tasks = spawn_all(3, work)
    alive = yield from survivors(tasks)
    assert careless.done and set(told) == set(alive)
    return (lock,)


@scenario
def semaphore():
    two, inside = Semaphore(2), []

    def work(n):
        with (yield from two):
            inside.append(n)
            assert len(inside) <= 2
            try:
                yield
                yield
            finally:
                inside.remove(n)

    yield from survivors(spawn_all(4, work))
    assert two.value == 2
    return (two,)


@scenario
def semaphore_tokens():
    tokens, taken = Semaphore(0), []
    given = 0

    def take(n):
        yield from tokens.acquire()
        taken.append(n)
        yield

    def give():
        nonlocal given
        if tokens.waiters:
            tokens.release()
            given += 1
        yield

    yield from feed(spawn_all(4, take), give)
    assert given == len(taken) and tokens.value == 0
    return (tokens,)


@scenario
def bounded_semaphore():
    two = BoundedSemaphore(2)

    async def work(n):
        async with two:
            await Sleep(0.1)

    yield from survivors(spawn_all(5, work))
    assert two.value == 2
    return (two,)


# Conditions ---------------------------------------------------------------------------------------


@scenario
def condition():
    news, items, taken = Condition(), [], []

    def consume(n):
        with (yield from news):
            yield from news.wait_for(lambda: items)
            taken.append(items.pop())
        yield

    def give():
        with (yield from news):
            if news.waiters and not items:
                items.append(1)
                news.notify()

    yield from feed(spawn_all(5, consume), give)
    assert news.lock.owner is None
    return news, news.lock


@scenario
def condition_whose_lock_is_held_long():
    news, tokens = Condition(), []

    def consume(n):
        with (yield from news):
            yield from news.wait_for(lambda: tokens)
            tokens.pop()

    def disturb(n):
        for _ in range(2):
            with (yield from news):
                yield
                yield
            yield

    def give():
        with (yield from news):
            if news.waiters and not tokens:
                tokens.append(1)
                news.notify()
            yield  # who is notified waits for the lock now, and may be cancelled there

    yield from feed(spawn_all(3, consume) + spawn_all(1, disturb), give)
    assert news.lock.owner is None
    return news, news.lock


@scenario
def condition_of_an_rlock_and_notify_all():
    news, gate = Condition(RLock()), []

    def work(n):
        with (yield from news):
            with (yield from news):
                while not gate:
                    yield from news.wait()
                yield
            assert news.lock.owner is not None

    tasks = spawn_all(4, work)
    yield Sleep(1)
    with (yield from news):
        gate.append(1)
        news.notify_all()
    yield from survivors(tasks)
    assert news.lock.owner is None
    return news, news.lock


@scenario
def two_conditions_of_one_lock():
    lock, buffer = Lock(), []
    not_full, not_empty = Condition(lock), Condition(lock)

    def put(item):
        with (yield from lock):
            yield from not_full.wait_for(lambda: not buffer)
            buffer.append(item)
            not_empty.notify()

    def get():
        with (yield from lock):
            yield from not_empty.wait_for(lambda: buffer)
            not_full.notify()
            return buffer.pop()

    def produce(n):
        for k in range(2):
            yield from put((n, k))

    def consume(n):
        for _ in range(2):
            yield from get()
            yield

    producers, consumers = spawn_all(2, produce), spawn_all(2, consume)

    def help_out():
        yield Sleep(1)
        if all(task.done for task in producers) and not buffer and not_empty.waiters:
            yield from put("spare")
        elif all(task.done for task in consumers) and buffer:
            yield from get()

    yield from feed(producers + consumers, help_out)
    assert lock.owner is None
    return lock, not_full, not_empty


@scenario
def timeout_around_a_condition():
    news, woken = Condition(), []

    def work(n):
        with (yield from news):
            with move_on_after(1) as limit:
                yield from news.wait()
                woken.append(n)
            assert news.lock.owner is not None
        return limit.expired

    def notify():
        yield Sleep(1)  # at the very moment at which the limits expire
        with (yield from news):
            news.notify(2)
            yield

    yield from survivors([*spawn_all(4, work), spawn(notify)])
    assert news.lock.owner is None
    return news, news.lock


# Events, barriers, results ------------------------------------------------------------------------


@scenario
def event():
    event = Event()

    def wait(n):
        yield from event.wait()
        yield

    tasks = spawn_all(5, wait)
    yield
    yield
    event.set()
    event.clear()
    yield
    event.set()
    yield from survivors(tasks)
    return (event,)


@scenario
def barrier():
    barrier = Barrier(2)

    def meet(n):
        for _ in range(2):
            assert (yield from barrier.wait()) in (0, 1)
            yield

    def help_out():
        yield Sleep(1)
        if barrier.waiters:
            yield from barrier.wait()

    yield from feed(spawn_all(5, meet), help_out)
    return (barrier,)


@scenario
def result():
    result = Result()

    def wait(n):
        assert (yield from result) == 42
        yield

    tasks = spawn_all(5, wait)
    yield
    yield
    result.set(42)
    yield from survivors(tasks)
    return (result,)


@scenario
def result_that_fails():
    result = Result()

    def wait(n):
        try:
            yield from result
        except LookupError:
            yield
        else:
            raise AssertionError("no error")

    tasks = spawn_all(5, wait)
    yield
    yield
    result.fail(LookupError())
    yield from survivors(tasks)
    return (result,)


# Queues -------------------------------------------------------------------------------------------


def transfer(queue):
    """Two producers, two consumers: what was put is what was got, each item once."""
    put, got = [], []

    def produce(n):
        for k in range(3):
            yield from queue.put((n, k))
            put.append((n, k))

    def consume(n):
        try:
            while True:
                got.append((yield from queue.get()))
                yield
        except QueueShutDown:
            return

    producers, consumers = spawn_all(2, produce), spawn_all(2, consume)

    def help_out():
        yield Sleep(1)
        if all(task.done for task in consumers) and queue.waiters + len(queue):
            got.append(queue.get_nowait())

    yield from feed(producers, help_out)
    queue.shutdown()
    yield from survivors(consumers)
    while len(queue):
        got.append(queue.get_nowait())
    assert sorted(put) == sorted(got)
    return (queue,)


@scenario
def queue_0():
    return (yield from transfer(Queue(0)))


@scenario
def queue_1():
    return (yield from transfer(Queue(1)))


@scenario
def queue_unbounded():
    return (yield from transfer(Queue(math.inf)))


@scenario
def queue_priority():
    return (yield from transfer(PriorityQueue(1)))


@scenario
def queue_lifo():
    return (yield from transfer(LifoQueue(2)))


@scenario
def queue_shutdown():
    full, empty = Queue(1), Queue(1)
    full.put_nowait("first")

    def put(n):
        try:
            yield from full.put(n)
        except QueueShutDown:
            yield

    def get(n):
        try:
            yield from empty.get()
        except QueueShutDown:
            yield

    tasks = spawn_all(2, put) + spawn_all(2, get)
    yield
    yield
    full.shutdown(immediate=True)
    empty.shutdown()
    yield from survivors(tasks)
    return full, empty


@scenario
def queue_join():
    queue = Queue(math.inf)
    for n in range(4):
        queue.put_nowait(n)

    def work(n):
        while True:
            yield from queue.get()
            try:
                yield
            finally:
                queue.task_done()

    def join(n):
        yield from queue.join()

    workers = [spawn(work, n, daemon=True) for n in range(2)]
    joiners = spawn_all(2, join)

    def help_out():
        yield Sleep(1)
        if all(task.done for task in workers) and len(queue):
            queue.get_nowait()
            queue.task_done()

    yield from feed(joiners, help_out)
    for worker in workers:
        yield from worker.stop()
    return (queue,)


@scenario
def first_of_two_queues():
    left, right = Queue(0), Queue(1)
    put, got = [], []

    def produce(n, queue):
        for k in range(2):
            yield from queue.put((n, k))
            put.append((n, k))

    def consume(n):
        while True:
            index, item = yield from first(left.getting(), right.getting(), Sleep(5))
            if index == 2:
                return
            got.append(item)

    consumers = spawn_all(2, consume)
    producers = [spawn(produce, 0, left), spawn(produce, 1, right)]

    def help_out():
        yield Sleep(1)
        if all(task.done for task in consumers):
            for queue in (left, right):
                if queue.waiters + len(queue):
                    got.append(queue.get_nowait())

    yield from feed(producers, help_out)
    yield from survivors(consumers)
    if len(right):
        got.append(right.get_nowait())
    assert sorted(put) == sorted(got)
    return left, right


@scenario
def first_of_a_lock_and_a_time():
    lock = Lock()

    def work(n):
        index, held = yield from first(lock.acquiring(), Sleep(1))
        if index == 0:
            with held:
                yield Sleep(0.5)

    yield from survivors(spawn_all(4, work))
    assert lock.owner is None
    return (lock,)


@scenario
def queue_async_for():
    queue, got = Queue(1), []

    async def consume(n):
        async for item in queue:
            got.append(item)

    tasks = spawn_all(4, consume)
    for n in range(8):
        with move_on_after(1):
            yield from queue.put(n)
    queue.shutdown()
    yield from survivors(tasks)
    return (queue,)


@scenario
def timeout_around_a_queue():
    queue, got = Queue(0), []

    def consume(n):
        try:
            with timeout(1):
                got.append((yield from queue.get()))
        except TimeoutError:
            yield

    def produce():
        put = 0
        yield Sleep(1)  # at the very moment at which the limits expire
        for n in range(2):
            with move_on_after(1):
                yield from queue.put(n)
                put += 1
        return put

    tasks = spawn_all(4, consume)
    done = yield from survivors([spawn(produce)])
    yield from survivors(tasks)
    assert not done or done == [len(got)]
    return (queue,)


@scenario
def topic():
    topic, heard = Topic(1), []

    def listen(n):
        with topic.subscribe() as news:
            for _ in range(2):
                heard.append((yield from news.get()))
                yield

    def publish(n):
        for k in range(2):
            yield from topic.publish((n, k))

    yield from survivors(spawn_all(3, listen) + spawn_all(2, publish))
    yield from topic.publish("nobody hears this, and it does not wait")
    return (topic,)


@scenario
def topic_that_is_shut_down():
    topic = Topic(1)

    def listen(n):
        with topic.subscribe() as news:
            try:
                while True:
                    yield from news.get()
            except QueueShutDown:
                yield

    def publish(n):
        for k in range(2):
            yield from topic.publish((n, k))

    ears = spawn_all(3, listen)
    yield from survivors(spawn_all(2, publish))
    topic.shutdown()
    yield from survivors(ears)
    return (topic,)


@scenario
def topic_that_drops():
    topic = Topic(1, "drop_old")

    def listen(n):
        with topic.subscribe() as news:
            while (yield from news.get()) != "end":
                yield
                yield

    ears = spawn_all(3, listen)
    yield
    for n in range(3):
        yield from topic.publish(n)
        yield
    yield from topic.publish("end")
    yield from survivors(ears)
    return (topic,)


# Scopes, tasks, sleeps, files ---------------------------------------------------------------------


@scenario
def timeout_around_a_lock():
    lock = Lock()

    def work(n):
        with move_on_after(1):
            with (yield from lock):
                yield Sleep(0.5)

    yield from survivors(spawn_all(4, work))
    assert lock.owner is None
    return (lock,)


@scenario
def nested_timeouts():
    def work(n):
        expired = 0
        try:
            with timeout(2):
                with move_on_after(1 + n / 2) as inner:  # 1, 1.5, 2: the last at the same moment
                    yield Sleep(5)
                expired += inner.expired
                yield Sleep(5)
        except TimeoutError:
            expired += 1
        assert expired in (1, 2)
        yield

    yield from survivors(spawn_all(3, work))


@scenario
def shields():
    begun, whole = [], []

    def work(n):
        with shield(math.inf):
            begun.append(n)
            yield
            yield Sleep(0.1)
            whole.append(n)
        yield

    yield from survivors(spawn_all(4, work))
    assert begun == [0, 1, 2, 3] and whole == begun


@scenario
def clean_up_that_waits():
    ended = []

    def work(n):
        try:
            yield Sleep(1)
        except Cancelled:
            yield Sleep(0.1)
            ended.append(n)
            raise
        ended.append(n)

    yield from survivors(spawn_all(4, work))
    assert sorted(ended) == [0, 1, 2, 3]


@scenario
def join_and_stop():
    def child():
        try:
            yield Sleep(1)
        finally:
            yield

    def parent(n):
        one, other = spawn(child), spawn(child)
        yield
        yield from one.stop()
        try:
            yield from other
        except TaskCancelled:
            yield

    yield from survivors(spawn_all(2, parent))


@scenario
def joins_of_one_task():
    """Each joiner gets the outcome or its own cancel, and takes nothing from the others."""

    def child():
        yield Sleep(2)
        return "value"

    def join(n):
        try:
            with move_on_after(1):
                yield from task
            assert (yield from task) == (yield from task) == "value"
        except TaskCancelled:
            assert task.cancelled

    task = spawn(child)
    yield from survivors([task, *spawn_all(3, join)])
    assert task.joiners is None


@scenario
def sleeps():
    def nap(n):
        for k in range(3):
            try:
                yield Sleep(n + k)
            except Cancelled:
                yield
                raise

    yield from survivors(spawn_all(3, nap))


@scenario
def files():
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)

        def ping():
            for _ in range(4):
                yield WriteWait(a)
                a.send(b"x")
                yield ReadWait(a)
                a.recv(1)
            a.shutdown(socket.SHUT_WR)

        def pong():
            while data := (yield ReadWait(b)) or b.recv(1):
                yield WriteWait(b)
                b.send(data)

        # Who is cancelled hangs up, so the other one gets the end of file, or a broken pipe.
        def guarded(f, sock):
            try:
                yield from f()
            except (BrokenPipeError, ConnectionResetError):
                pass
            finally:
                sock.shutdown(socket.SHUT_RDWR)

        yield from survivors([spawn(guarded, ping, a), spawn(guarded, pong, b)])


@scenario
def groups():
    """A task of the group that is cancelled alone is no failure; its owner takes all with it."""
    inside = []

    def member(n):
        inside.append(n)
        try:
            yield Sleep(1 + n)
        finally:
            try:
                yield
            finally:
                inside.remove(n)

    def owner(n):
        with TaskGroup(limit=2) as group:
            for k in range(3):
                group.spawn(member, 10 * n + k)
            yield from group
        assert not any(k // 10 == n for k in inside)

    yield from survivors(spawn_all(2, owner))
    assert inside == []


@scenario
def gathers_and_races():
    running = []

    def part(n):
        running.append(n)
        try:
            yield Sleep(n)
            return n
        finally:
            try:
                yield
            finally:
                running.remove(n)

    def work(n):
        try:
            assert (yield from gather(part(1), part(2))) == [1, 2]
            assert (yield from race(part(2), part(1))) in [(1, 1), (0, 2)]
        except TaskCancelled:  # of one of the parts, alone
            yield

    yield from survivors(spawn_all(2, work))
    assert running == []


@scenario
def scopes_that_others_cancel():
    """Who cancels a block, moves its deadline or is in it may end at any moment."""
    lock = Lock()

    def work(n, scopes):
        with CancelScope() as scope:
            scopes.append(scope)
            with (yield from lock):
                with shield():
                    yield Sleep(0.1)
                yield Sleep(1000)
        assert scope.cancelled_caught
        scopes.remove(scope)
        yield

    def end(n, scopes):
        while True:
            yield Sleep(0.3)
            for scope in list(scopes):
                if n:
                    scope.cancel("enough")
                else:
                    scope.deadline = now() + 0.2

    scopes = []
    tasks = spawn_all(3, work, scopes)
    enders = spawn_all(2, end, scopes)
    for task in tasks:
        while not task.done:
            yield Sleep(0.2)
            for scope in list(scopes):
                scope.cancel()
    yield from survivors(tasks)
    for task in enders:
        yield from task.stop()
    assert lock.owner is None
    return (lock,)


@scenario
def groups_that_are_cancelled():
    running = []

    def part(n):
        running.append(n)
        try:
            yield Sleep(n)
        finally:
            with shield():
                yield
            running.remove(n)

    def work(n):
        with TaskGroup(limit=2) as g:
            g.deadline = now() + 2
            for each in (1, 5, 9):
                g.spawn(part, each)
            if n:
                g.cancel("enough")
            yield from g
        yield
        assert g.tasks == []

    yield from survivors(spawn_all(2, work))
    assert running == []


@scenario
def a_barrier_that_is_broken():
    told = []

    def party(n):
        try:
            yield from barrier.wait()
        except BrokenBarrierError:
            told.append(n)
            yield

    def breaker():
        yield Sleep(1)
        barrier.abort()
        yield Sleep(1)
        barrier.reset()

    barrier = Barrier(5)
    tasks = [*spawn_all(4, party), spawn(breaker)]
    yield Sleep(3)
    barrier.reset()
    yield from survivors(tasks)
    return (barrier,)


@scenario
def first_success_with_a_stagger():
    running = []

    def part(n, good):
        running.append(n)
        try:
            yield Sleep(n)
            if not good:
                raise ValueError
            return n
        finally:
            running.remove(n)

    def work(n):
        calls = [part(1, False), part(5, True), part(2, True)]
        try:
            found = yield from first_success(*calls, stagger=n)
            assert found in [(1, 5), (2, 2)]
        except ExceptionGroup:  # parts were cancelled alone
            yield

    yield from survivors(spawn_all(2, work))
    assert running == []


@scenario
def gather_that_collects():
    def part(n):
        yield Sleep(1)
        if n == 1:
            raise ValueError
        return n

    def work(n):
        found = yield from gather(part(0), part(1), part(2), return_exceptions=True)
        assert isinstance(found[1], ValueError | TaskCancelled)
        assert [each for each in found if not isinstance(each, Exception)] in (
            [[0, 2], [0], [2], []]
        )

    yield from survivors(spawn_all(2, work))


@scenario
def ticks_and_bounded_functions():
    @move_on_after(2.5)
    def ticker(log):
        for tick in every(1):
            log.append((yield from tick))

    def work(n):
        log = []
        yield from ticker(log)
        assert log == [0, 0]

    yield from survivors(spawn_all(3, work))


@scenario
def a_group_that_is_cancelled_while_a_task_starts():
    running = []

    def service(n):
        running.append(n)
        try:
            yield Sleep(1)
            started(n)
            yield Sleep(60)
        finally:
            with shield():
                yield
            running.remove(n)

    def work(n):
        with TaskGroup() as g:
            g.deadline = now() + 1 + n
            try:
                g.spawn(service, 10 + n)
                yield from g.start(service, n)
                g.cancel("enough")
                yield from g
            except TaskCancelled:  # the service, alone
                g.cancel()
        yield
        assert g.tasks == []

    yield from survivors(spawn_all(2, work))
    assert running == []


@scenario
def calls_that_are_bounded():
    @timeout(1.5)
    async def slow(n):
        await Sleep(n)
        return n

    def work(n):
        outcomes = yield from gather(slow(1), slow(2), return_exceptions=True)
        assert outcomes[0] == 1 or isinstance(outcomes[0], TaskCancelled)
        assert isinstance(outcomes[1], TimeoutError | TaskCancelled)

    yield from survivors(spawn_all(2, work))


# The sweeps ---------------------------------------------------------------------------------------


@pytest.mark.hazard("H35")
@pytest.mark.hazard("H37")
@pytest.mark.hazard("H38")
@pytest.mark.parametrize("name", SCENARIOS)
def test_cancelled_at_every_step_nothing_is_lost(name):
    assert injections(name) > 0


def test_there_were_enough_injections():
    assert len(SCENARIOS) >= 20
    total = sum(injections(name) for name in SCENARIOS)
    assert total >= (50_000 if FULL else 1_000)


# The tool itself ----------------------------------------------------------------------------------


def lossy():
    lock = LossyLock()

    def work():
        with (yield from lock):
            yield

    yield from survivors([spawn(work) for _ in range(3)])
    return (lock,)


def test_a_lost_wake_up_is_found_and_the_message_repeats_it():
    with pytest.raises(AssertionError, match=r"lossy: with task . before step . cancelled:") as one:
        cancel_everywhere(lossy)
    message = str(one.value)
    only = re.search(r"to repeat it: cancel_everywhere\(lossy, only=(.*)\)", message)[1]
    with pytest.raises(AssertionError) as again:
        cancel_everywhere(lossy, only=ast.literal_eval(only))
    assert [re.sub("0x[0-9a-f]+", "", text) for text in (str(again.value), message)] == [
        re.sub("0x[0-9a-f]+", "", message)
    ] * 2


def test_runs_are_counted_in_which_something_was_cancelled():
    def tick():
        task = spawn(twice)
        yield from survivors([task])

    def twice():
        yield
        yield

    assert cancel_everywhere(tick) == 3  # before each of its steps
    assert cancel_everywhere(tick, target=lambda task: False) == 0
    assert cancel_everywhere(tick, only=[(2, 2)]) == 1
    assert cancel_everywhere(tick, only=[(2, 99)]) == 0
    assert cancel_everywhere(tick, every=2) == 1
    assert cancel_everywhere(tick, target=lambda task: task.name == "twice", pairs=True) == 3


def leaves_a_file():
    kept.append(os.open(os.devnull, os.O_RDONLY))
    yield


def leaves_a_registration():
    a, b = socket.socketpair()
    kept.extend((a, b))
    a.setblocking(False)
    b.send(b"x")
    yield ReadWait(a)


def leaves_a_timer():
    current_scheduler().call_at(1e6, print, None)
    yield


def leaves_a_waiter():
    event = Event()
    queue_of(event)[print] = None
    yield
    return (event,)


def fails_in_a_task():
    def child():
        yield
        raise LookupError("child")

    spawn(child)
    yield


def fails():
    yield
    raise LookupError("main")


def waits_for_ever():
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        yield ReadWait(a)


def goes_on_for_ever():
    while True:
        yield


def test_a_file_is_waited_for_in_real_time_when_nothing_else_can_happen():
    selector = impatient(selectors.DefaultSelector())
    a, b = socket.socketpair()
    with a, b, selector:
        selector.register(a, selectors.EVENT_READ)
        b.send(b"x")
        assert [key.fileobj for key, _ in selector.select(None)] == [a]


kept = []


@pytest.mark.parametrize(
    ("scenario", "complaint"),
    [
        (leaves_a_file, "left: open file descriptors"),
        (leaves_a_registration, "left: 1 files"),
        (leaves_a_timer, "left: 1 timers"),
        (leaves_a_waiter, "left: waiters of <Event"),
        (fails_in_a_task, r"<Task child#2 .* failed: LookupError\('child'\)"),
        (fails, "the run ended with LookupError: main"),
        (waits_for_ever, "the run ended with AssertionError: no file has become ready"),
        (goes_on_for_ever, "the run ended with AssertionError: it goes on after 1000 steps"),
    ],
)
def test_what_is_left_or_fails_is_named(scenario, complaint, monkeypatch):
    monkeypatch.setattr(sweeps, "PATIENCE", 0.05)
    monkeypatch.setattr(sweeps, "MOST_STEPS", 1000)
    with pytest.raises(
        AssertionError, match=f"{scenario.__name__}: with nothing cancelled:\n  {complaint}"
    ):
        cancel_everywhere(scenario)
    while kept:
        file = kept.pop()
        os.close(file) if isinstance(file, int) else file.close()


def test_survivors_raises_what_a_task_raises_also_if_it_is_a_cancel_of_another():
    def child():
        other = spawn(Sleep(1).__iter__())
        other.cancel()
        yield from other

    def main():
        task = spawn(child)
        with pytest.raises(TaskCancelled) as caught:
            yield from survivors([task])
        assert caught.value.task is not task
        with pytest.raises(LookupError):
            yield from survivors([spawn(fails)])

    run(main)
