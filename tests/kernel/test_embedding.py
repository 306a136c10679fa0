"""A scheduler inside another loop: what that loop is told, and what nothing of it may miss."""

import asyncio
import gc
import math
import selectors
import signal
import socket
import threading

import pytest

from corolib import (
    Cancelled,
    ClosedError,
    Deadlock,
    Event,
    ReadWait,
    Scheduler,
    Sleep,
    Suspend,
    current_scheduler,
    from_thread,
)
from corolib.testing import VirtualClock
from tests.helpers.inside import poller_of, remake_selector


class Outer:
    """Another loop: it watches the scheduler's number, and knows its next deadline."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.turns = 0
        self.changes = 0
        self.selector = selectors.DefaultSelector()
        scheduler.embed(self.changed)
        self.number = scheduler.fileno()
        self.selector.register(self.number, selectors.EVENT_READ)

    def changed(self):
        self.changes += 1
        self.selector.close()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.scheduler.fileno(), selectors.EVENT_READ)

    def go_on(self, done, most=100):
        """Take turns until `done()`; at most so many, each for a reason."""
        scheduler = self.scheduler
        while not done():
            if not scheduler.has_work:
                left = scheduler.next_deadline() - scheduler.clock()
                assert self.selector.select(min(max(left, 0), 10)) or left <= 10, "nothing happens"
            scheduler.turn(0)
            self.turns += 1
            assert self.turns < most


@pytest.fixture
def scheduler():
    scheduler = Scheduler()
    yield scheduler
    scheduler.close()


def test_files_and_times_are_told_by_the_number_and_the_deadline(scheduler, pair):
    a, b = pair
    got = []

    def reader():
        yield ReadWait(a)
        got.append(a.recv(100))
        yield Sleep(0.01)
        got.append("slept")

    outer = Outer(scheduler)
    task = scheduler.spawn(reader)
    outer.go_on(lambda: not scheduler.has_work)
    assert scheduler.next_deadline() > scheduler.clock()
    b.send(b"hello")
    outer.go_on(lambda: task.done)
    assert got == [b"hello", "slept"]
    assert scheduler.tasks == []


def test_what_is_asked_between_two_turns_makes_the_number_readable(scheduler):
    event, log = Event(), []

    def waiter():
        try:
            yield from event.wait()
            log.append("set")
            yield Sleep(1000)
        except Cancelled:
            log.append("cancelled")
            raise

    outer = Outer(scheduler)
    task = scheduler.spawn(waiter)
    assert outer.selector.select(0)  # a task was spawned
    outer.go_on(lambda: task.state == "waiting")
    assert not outer.selector.select(0)
    event.set()
    assert outer.selector.select(0)
    outer.go_on(lambda: log == ["set"])
    assert not outer.selector.select(0)
    task.cancel()
    assert outer.selector.select(0)
    outer.go_on(lambda: task.done)
    scheduler.call_at(scheduler.clock(), log.append, "called")
    assert outer.selector.select(0)
    outer.go_on(lambda: "called" in log)
    assert log == ["set", "cancelled", "called"]


def test_a_file_that_is_closed_between_two_turns_makes_the_number_readable(scheduler, pair):
    a, _ = pair

    def reader():
        with pytest.raises(ClosedError):
            yield ReadWait(a)
        return "closed"

    outer = Outer(scheduler)
    task = scheduler.spawn(reader)
    outer.go_on(lambda: task.state == "waiting")
    assert not outer.selector.select(0)
    scheduler.close_file(a)
    assert outer.selector.select(0)
    outer.go_on(lambda: task.done)
    assert task.result == "closed"


def test_a_reader_that_is_told_to_look_again_makes_the_number_readable(scheduler, pair):
    a, _ = pair
    readable = ReadWait(a)

    def reader():
        yield readable
        with pytest.raises(BlockingIOError):
            a.recv(1)

    outer = Outer(scheduler)
    task = scheduler.spawn(reader)
    outer.go_on(lambda: task.state == "waiting")
    scheduler.wake_reader(readable)
    assert outer.selector.select(0)
    outer.go_on(lambda: task.done)


def test_another_thread_is_heard(scheduler):
    outer = Outer(scheduler)

    def double(x):
        yield
        return 2 * x

    got = []
    thread = threading.Thread(target=lambda: got.append(from_thread(scheduler, double, 21)))
    thread.start()
    outer.go_on(lambda: scheduler.stats()["spawned"] and not scheduler.tasks)
    thread.join()
    assert got == [42]


def test_the_loop_is_told_when_the_selector_was_remade(scheduler, pair):
    a, b = pair

    def reader():
        yield ReadWait(a)
        return a.recv(100)

    outer = Outer(scheduler)
    task = scheduler.spawn(reader)
    outer.go_on(lambda: task.state == "waiting")
    for count in range(1, 11):
        remake_selector(scheduler)
        assert outer.changes == count
    assert not outer.selector.select(0)
    b.send(b"x")
    outer.go_on(lambda: task.done)
    assert task.result == b"x"


def test_what_a_loop_raises_that_cannot_watch_the_new_number_is_reported():
    reported = []
    scheduler = Scheduler(on_task_error=lambda task, exc: reported.append(exc))
    failure = KeyError("what the loop raises")

    def changed():
        raise failure

    scheduler.embed(changed)
    remake_selector(scheduler)
    assert reported == [failure]
    scheduler.close()


def test_a_dump_signal_is_refused_for_between_two_turns_it_would_end_the_process():
    scheduler = Scheduler(dump_signal=signal.SIGINT)
    with pytest.raises(ValueError, match="heard within turns only"):
        scheduler.embed(lambda: None)
    scheduler.close()


def test_as_many_turns_as_events(scheduler, pair):
    """Nobody polls: the other loop wakes for each message once, and then sleeps."""
    a, b = pair

    def echo():
        while True:
            yield ReadWait(a)
            a.send(a.recv(100))

    outer = Outer(scheduler)
    scheduler.spawn(echo)
    outer.go_on(lambda: not scheduler.has_work)
    before = outer.turns
    for _ in range(100):
        b.send(b"x")
        outer.go_on(lambda: not scheduler.has_work and not outer.selector.select(0), 1000)
        b.recv(100)
    assert outer.turns - before == 100


def test_a_selector_without_a_number_says_so():
    scheduler = Scheduler(selector=selectors.SelectSelector)
    with pytest.raises(RuntimeError, match="not open: call `open\\(\\)`"):
        scheduler.fileno()
    scheduler.open()
    with pytest.raises(NotImplementedError, match="SelectSelector has no number"):
        scheduler.fileno()
    scheduler.close()


def test_the_next_deadline_is_that_of_the_next_timer():
    clock = VirtualClock(5)
    scheduler = Scheduler(clock=clock)
    assert scheduler.next_deadline() == math.inf
    assert not scheduler.has_work
    scheduler.spawn(Sleep(3).__iter__())
    assert scheduler.has_work
    scheduler.turn(0)
    assert scheduler.next_deadline() == 8
    assert not scheduler.has_work
    clock.move(3)
    scheduler.turn(0)
    assert scheduler.tasks == []
    scheduler.close()


def test_a_deadlock_can_be_asked_for_and_is_never_raised_by_a_turn(scheduler):
    def stuck():
        yield Suspend(lambda wake: lambda: None, "nothing")

    assert scheduler.deadlock() is None
    task = scheduler.spawn(stuck)
    assert scheduler.deadlock() is None
    scheduler.turn(0)
    found = scheduler.deadlock()
    assert isinstance(found, Deadlock)
    assert "stuck#1  nothing" in str(found)
    with scheduler.hold():
        assert scheduler.deadlock() is None
    task.cancel()
    scheduler.turn(0)
    assert scheduler.deadlock() is None


def test_an_async_generator_that_a_turn_leaves_half_way_is_closed_in_a_later_one(scheduler):
    log = []

    async def numbers():
        try:
            yield 1
        finally:
            await Sleep(0)
            log.append("closed")

    async def main():
        async for _ in numbers():
            break

    scheduler.spawn(main)
    for _ in range(10):
        scheduler.turn(0)
        gc.collect()
    assert log == ["closed"]


def test_in_the_loop_of_asyncio(scheduler):
    def serve(sock):
        with sock:
            while True:
                yield ReadWait(sock)
                data = sock.recv(100)
                if not data:
                    return "served"
                sock.send(data.upper())

    async def main():
        loop = asyncio.get_running_loop()
        timer = None

        def take_a_turn():
            nonlocal timer
            scheduler.turn(0)
            if timer is not None:
                timer.cancel()
            left = scheduler.next_deadline() - scheduler.clock()
            if scheduler.has_work:
                timer = loop.call_soon(take_a_turn)
            elif left < math.inf:
                timer = loop.call_later(left, take_a_turn)

        scheduler.embed(lambda: None)
        loop.add_reader(scheduler.fileno(), take_a_turn)
        a, b = socket.socketpair()
        a.setblocking(False)
        task = scheduler.spawn(serve, a)
        reader, writer = await asyncio.open_connection(sock=b)
        for word in (b"one", b"two"):
            writer.write(word)
            assert await reader.read(100) == word.upper()
        writer.close()
        await writer.wait_closed()
        while not task.done:
            await asyncio.sleep(0)
        loop.remove_reader(scheduler.fileno())
        return task.result

    assert asyncio.run(main()) == "served"


def test_a_run_beside_it_is_refused_and_nothing_is_left_open(scheduler):
    def main():
        yield
        with pytest.raises(RuntimeError, match="already runs in this thread"):
            current_scheduler().turn()

    task = scheduler.spawn(main)
    for _ in range(3):
        scheduler.turn(0)
    assert task.result is None
    assert poller_of(scheduler).entries == {}
