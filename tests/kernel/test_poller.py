"""The poller: waits for files, registrations, closing, and what numbers and `dup` can do to them.

Real sockets on loopback. `yield` by itself is one turn, in which files are looked at, so most
tests count turns and selector calls and know no seconds.
"""

import contextlib
import errno
import fcntl
import functools
import gc
import os
import random
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import warnings
import weakref
from collections import Counter, deque

import pytest

import corolib.kernel.poller
from corolib import (
    BusyError,
    Cancelled,
    ClosedError,
    ReadWait,
    Scheduler,
    Sleep,
    Suspend,
    WriteWait,
    close,
    current_scheduler,
    now,
    run,
    spawn,
)
from corolib.kernel import OwnedSocket
from corolib.kernel.poller import EARLY, IN, OUT, PAUSE, Epoll, Poller, default_selector, number
from corolib.kernel.timers import Timers
from corolib.testing import VirtualClock, virtual_time
from tests.helpers.driving import FULL, files, in_a_thread, outcome, standard, turns
from tests.helpers.inside import (
    SWEEP_EVERY,
    SWEEP_SLICE,
    call_queue_of,
    poller_of,
    registered,
    remake_selector,
    selector_of,
    sweep,
    wait_write,
)
from tests.helpers.sockets import empty, fill, is_open, make_pair

EPOLLS = [selectors.EpollSelector, default_selector]


epolls = pytest.mark.parametrize("epoll", EPOLLS, ids=["EpollSelector", "default"])


class Counted(selectors.BaseSelector):
    """A selector that counts what is asked of it, and notes which numbers were open then."""

    def __init__(self, inner, calls, unregistered):
        self.inner = inner
        self.calls = calls
        self.unregistered = unregistered
        if hasattr(inner, "pairs"):
            self.pairs = self._pairs

    def _pairs(self, timeout):
        self.calls["select"] += 1
        return self.inner.pairs(timeout)

    def select(self, timeout=None):
        self.calls["select"] += 1
        return self.inner.select(timeout)

    def register(self, fileobj, events, *data):
        self.calls["register"] += 1
        return self.inner.register(fileobj, events, *data)

    def modify(self, fileobj, events, *data):
        self.calls["modify"] += 1
        return self.inner.modify(fileobj, events, *data)

    def unregister(self, fileobj):
        self.calls["unregister"] += 1
        self.unregistered.append((fileobj, is_open(fileobj)))
        return self.inner.unregister(fileobj)

    def get_map(self):
        return self.inner.get_map()

    def fileno(self):
        return self.inner.fileno()

    def close(self):
        self.inner.close()


class Counting:
    """What `selector=` takes: makes selectors that all count into `calls`."""

    def __init__(self, make):
        self.make = make
        self.calls = Counter()
        self.unregistered = []

    def __call__(self):
        self.calls["make"] += 1
        return Counted(self.make(), self.calls, self.unregistered)

    def changes(self):
        return {k: self.calls[k] for k in ("make", "register", "modify", "unregister")}


def pair_at(fd):
    """Two connected sockets, the first with the number `fd`, which must be free."""
    assert not is_open(fd)
    a, b = make_pair()
    if b.fileno() == fd:
        a, b = b, a
    if a.fileno() != fd:
        a, old = socket.socket(fileno=fcntl.fcntl(a, fcntl.F_DUPFD_CLOEXEC, fd)), a
        a.setblocking(False)
        old.close()
    assert a.fileno() == fd
    return a, b


def occupy(fd):
    """Give the number `fd`, which must be free, to a file of no interest."""
    assert not is_open(fd)
    null = os.open("/dev/null", os.O_RDONLY)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)


def ticker(seen):
    """Note the number of every turn this is stepped in."""
    while True:
        seen.append(current_scheduler().stats()["turns"])
        yield


def missed(seen):
    """The turns in which the ticker was not stepped."""
    return set(range(seen[0], seen[-1] + 1)) - set(seen)


def drive(main, *args, most=10, **options):
    """Run `main` as `run()` would, until nothing was stepped in `most` turns: when a guard is
    missing, the test fails and does not hang.
    """
    scheduler = Scheduler(**options)
    idle = 0
    try:
        task = scheduler.spawn(main, *args)
        while not task.done:
            before = scheduler.stats()["steps"]
            scheduler.turn(2)
            idle = 0 if scheduler.stats()["steps"] > before else idle + 1
            assert idle < most, scheduler.report()
        return task.result
    finally:
        scheduler.close()


def drive_virtually(main, *args, selector=default_selector):
    return drive(main, *args, **virtual_time(selector=standard(selector)))


# Waiting and waking -------------------------------------------------------------------------------


def test_a_reader_wakes_when_there_is_data_and_not_before(pair, selector):
    a, b = pair

    def main():
        task = spawn(outcome, ReadWait(a))
        yield from turns(5)
        assert task.state == "waiting"
        b.send(b"x")
        yield from turns(2)
        assert task.result == "woken"
        assert a.recv(10) == b"x"

    run(main, selector=selector)


def test_a_writer_wakes_when_there_is_room_and_not_before(pair, selector):
    a, b = pair

    def main():
        fill(a)
        task = spawn(outcome, WriteWait(a))
        yield from turns(5)
        assert task.state == "waiting"
        empty(b)
        yield from turns(2)
        assert task.result == "woken"

    run(main, selector=selector)


def test_a_reader_wakes_at_end_of_file(pair, selector):
    a, b = pair

    def main():
        task = spawn(outcome, ReadWait(a))
        yield from turns(2)
        b.close()
        yield from turns(2)
        assert task.result == "woken"
        assert a.recv(10) == b""

    run(main, selector=selector)


def test_a_pipe_can_be_waited_for_in_both_directions_of_a_pair(selector):
    r, w = os.pipe()
    os.set_blocking(w, False)

    def main():
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(w, b"x" * 4096)
        task = spawn(outcome, WriteWait(w))
        yield from turns(4)
        assert task.state == "waiting"
        os.read(r, 65536)
        yield from turns(2)
        assert task.result == "woken"
        assert files() == 0

    try:
        run(main, selector=selector)
    finally:
        os.close(r)
        os.close(w)


def test_a_writer_of_a_pipe_wakes_when_its_reader_is_gone(selector):
    r, w = os.pipe()
    os.set_blocking(w, False)

    def main():
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(w, b"x" * 4096)
        task = spawn(outcome, WriteWait(w))
        yield from turns(2)
        os.close(r)
        yield from turns(2)
        assert task.result == "woken"
        with pytest.raises(BrokenPipeError):
            os.write(w, b"x")

    try:
        run(main, selector=selector)
    finally:
        os.close(w)


# Registrations ------------------------------------------------------------------------------------


def test_a_write_wait_on_a_socket_with_room_is_not_registered(pair, selector):
    counting = Counting(selector)

    def main():
        before = counting.changes()
        yield WriteWait(pair[0])
        assert counting.changes() == before
        assert files() == 0

    run(main, selector=counting)


def test_a_write_wait_with_room_takes_one_turn(pair, selector):
    def main():
        stats = current_scheduler().stats
        before = stats()["turns"]
        yield WriteWait(pair[0])
        assert stats()["turns"] == before + 1

    run(main, selector=selector)


def test_without_poll_a_write_wait_is_registered_and_works(pair, monkeypatch):
    a, b = pair
    monkeypatch.delattr(corolib.kernel.poller.select, "poll")
    counting = Counting(selectors.SelectSelector)

    def main():
        before = counting.calls["register"]
        yield WriteWait(a)
        assert counting.calls["register"] == before + 1
        fill(a)
        task = spawn(outcome, WriteWait(a))
        yield from turns(3)
        assert task.state == "waiting"
        empty(b)
        yield from turns(2)
        assert task.result == "woken"

    run(main, selector=counting)


def test_a_failure_while_a_socket_is_asked_for_room_spoils_no_later_answer(pair, monkeypatch):
    a, _ = pair
    c, d = make_pair()
    scheduler = Scheduler()
    poll = select.poll
    failed = []

    class FailsOnce:
        """As when a signal handler of the program's raises inside `poll()`."""

        def __init__(self):
            self.asker = poll()

        def __getattr__(self, name):
            return getattr(self.asker, name)

        def poll(self, timeout):
            if not failed:
                failed.append(self)
                raise ValueError("from a signal handler")
            return self.asker.poll(timeout)

    monkeypatch.setattr(select, "poll", FailsOnce)
    with c, d, contextlib.closing(scheduler):
        fill(c)
        first = scheduler.spawn(outcome, WriteWait(a))
        second = scheduler.spawn(outcome, WriteWait(c))
        for _ in range(4):
            scheduler.turn(0)
        assert isinstance(first.result, ValueError)
        assert second.state == "waiting"


def test_to_ask_a_socket_for_room_takes_no_time(pair, monkeypatch):
    a, b = pair
    poll = select.poll
    times = []

    class Noting:
        def __init__(self):
            self.asker = poll()
            self.register = self.asker.register

        def poll(self, timeout):
            times.append(timeout)
            return self.asker.poll(timeout)

    monkeypatch.setattr(select, "poll", Noting)

    def main():
        b.send(b"x")
        yield ReadWait(a)
        a.recv(1)
        for _ in range(3):
            yield WriteWait(a)

    run(main)
    assert times == [0, 0, 0]


def test_what_asks_a_watched_socket_for_room_is_made_once_and_not_for_its_successor(
    pair, monkeypatch
):
    a, b = pair
    poll = select.poll
    made = []

    def counted():
        made.append(poll())
        return made[-1]

    monkeypatch.setattr(select, "poll", counted)

    def main():
        b.send(b"x")
        yield ReadWait(a)
        a.recv(1)
        for _ in range(5):
            yield WriteWait(a)
        assert len(made) == 1
        fill(a)
        task = spawn(outcome, WriteWait(a))
        yield from turns(2)
        assert task.state == "waiting"
        assert len(made) == 1
        empty(b)
        yield from task
        c, d = make_pair()
        with d:
            fd = a.fileno()
            a.close()
            os.dup2(c.fileno(), fd)
            c.close()
            with socket.socket(fileno=fd) as successor:
                with pytest.raises(ValueError, match="the socket is blocking"):
                    yield WriteWait(successor)

    run(main)


def test_the_steady_path_of_an_echo_changes_no_registration(pair, selector):
    a, b = pair
    counting = Counting(selector)

    def echo():
        while True:
            yield ReadWait(a)
            a.send(a.recv(100))

    def main():
        task = spawn(echo)
        b.send(b"0")
        yield ReadWait(b)
        assert b.recv(100) == b"0"
        before = counting.changes()
        for n in range(1, 100):
            b.send(b"%d" % n)
            yield ReadWait(b)
            assert b.recv(100) == b"%d" % n
        assert counting.changes() == before
        task.cancel()

    run(main, selector=counting)


def test_the_registration_of_a_writer_is_kept_from_one_wait_to_the_next(pair, selector):
    a, b = pair
    counting = Counting(selector)

    def writer():
        for _ in range(5):
            fill(a)
            yield WriteWait(a)

    def main():
        task = spawn(writer)
        yield from turns(2)
        before = counting.changes()
        for _ in range(4):
            empty(b)
            yield from turns(2)
            assert task.state == "waiting"
        assert counting.changes() == before
        empty(b)
        yield from task

    run(main, selector=counting)


def test_pipes_and_numbers_are_registered_at_each_wait_and_unregistered_at_each_wake(selector):
    counting = Counting(selector)
    for form in (lambda fd: fd, lambda fd: os.fdopen(fd, "rb", buffering=0, closefd=False)):
        r, w = os.pipe()
        file = form(r)

        def main():
            for _ in range(3):
                before = counting.changes()
                os.write(w, b"x")
                yield ReadWait(file)
                assert os.read(r, 10) == b"x"
                assert files() == 0
                assert registered() == set()
                after = counting.changes()
                assert after["register"] == before["register"] + 1
                assert after["unregister"] == before["unregister"] + 1

        try:
            run(main, selector=counting)
        finally:
            os.close(w)
            os.close(r)


@pytest.mark.parametrize("kind", ["socket", "pipe"])
def test_who_waits_with_a_trap_can_be_woken_in_vain_and_the_file_is_left_as_after_any_wake(
    selector, kind
):
    a, b = make_pair() if kind == "socket" else map(os.fdopen, os.pipe(), "rw")

    def main():
        trap = ReadWait(a)
        task = spawn(reader, trap)
        yield
        yield
        scheduler = current_scheduler()
        scheduler.wake_reader(ReadWait(a))  # another trap
        scheduler.wake_reader(WriteWait(a))
        assert task.wait is trap
        before = scheduler.stats()["files"]
        scheduler.wake_reader(trap)
        scheduler.wake_reader(trap)
        yield
        assert task.done
        return before, scheduler.stats()["files"]

    def reader(trap):
        yield trap

    with a, b:
        assert run(main, selector=selector) == (1, 1 if kind == "socket" else 0)


# One waiter ---------------------------------------------------------------------------------------


@pytest.mark.hazard("H06")
def test_law_one_waiter_the_second_reader_is_told_at_once_and_the_first_undisturbed(pair, selector):
    a, b = pair

    def first():
        yield ReadWait(a)
        return a.recv(1)

    def main():
        one = spawn(first, name="early")
        two = spawn(outcome, ReadWait(a))
        yield from turns(2)
        error = two.result
        assert isinstance(error, BusyError)
        assert one.label in str(error)
        assert "test_poller.py:" in str(error)
        assert "to read this file" in str(error)
        assert one.state == "waiting"
        b.send(b"12")
        assert (yield from one) == b"1"
        assert (yield from spawn(first)) == b"2"

    run(main, selector=selector)


def test_law_one_waiter_holds_for_writers_too(pair, selector):
    a, b = pair

    def main():
        fill(a)
        one = spawn(outcome, WriteWait(a))
        two = spawn(outcome, WriteWait(a))
        yield from turns(3)
        assert isinstance(two.result, BusyError)
        assert "to write this file" in str(two.result)
        assert one.state == "waiting"
        empty(b)  # now there is room, but the first has not been woken yet
        three = spawn(outcome, WriteWait(a))
        yield from turns(2)
        assert one.result == "woken"
        assert three.result == "woken"

    run(main, selector=selector)


def test_law_one_waiter_a_second_writer_is_refused_though_there_is_room(pair, selector):
    a, b = pair

    def main():
        fill(a)
        one = spawn(outcome, WriteWait(a))
        yield from turns(2)
        two = outcome(WriteWait(a))
        task = spawn(two)
        empty(b)
        # The turn to come wakes the first before the second asks; so ask within this step.
        scheduler = current_scheduler()
        with pytest.raises(BusyError):
            wait_write(scheduler, task, WriteWait(a))
        yield from turns(3)
        assert one.result == task.result == "woken"

    run(main, selector=selector)


@pytest.mark.hazard("H07")
def test_a_reader_and_a_writer_of_one_file_are_woken_each_by_its_own_event(pair, selector):
    a, b = pair

    def main():
        fill(a)
        reader = spawn(outcome, ReadWait(a))
        writer = spawn(outcome, WriteWait(a))
        yield from turns(3)
        assert files() == 1
        b.send(b"x")
        yield from turns(3)
        assert reader.result == "woken"
        assert writer.state == "waiting"
        assert a.recv(10) == b"x"
        empty(b)
        again = spawn(outcome, ReadWait(a))
        yield from turns(3)
        assert writer.result == "woken"
        assert again.state == "waiting"
        b.send(b"y")
        assert (yield from again) == "woken"

    run(main, selector=selector)


@pytest.mark.hazard("H07")
def test_waking_the_writer_first_leaves_the_reader_armed(pair, selector):
    a, b = pair

    def main():
        fill(a)
        writer = spawn(outcome, WriteWait(a))
        reader = spawn(outcome, ReadWait(a))
        yield from turns(3)
        empty(b)
        yield from turns(3)
        assert writer.result == "woken"
        assert reader.state == "waiting"
        b.send(b"x")
        yield from turns(2)
        assert reader.result == "woken"

    run(main, selector=selector)


@pytest.mark.hazard("H08")
def test_a_reset_wakes_the_reader_and_the_writer_in_the_same_turn(selector):
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    server.setblocking(False)
    steps = {}

    def use(trap, call):
        yield trap
        steps[call.__name__] = current_scheduler().stats()["turns"]
        try:
            return call()
        except OSError as exc:
            return exc.errno

    def receive():
        return server.recv(10)

    def send():
        return server.send(b"x")

    def main():
        fill(server)
        reader = spawn(use, ReadWait(server), receive)
        writer = spawn(use, WriteWait(server), send)
        yield from turns(3)
        assert reader.state == writer.state == "waiting"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        got = yield from reader
        put = yield from writer
        assert got in (b"", errno.ECONNRESET)
        assert put in (errno.ECONNRESET, errno.EPIPE)
        assert steps["receive"] == steps["send"]

    with listener, client, server:
        drive(main, selector=selector)


@pytest.mark.parametrize("waits_to", [ReadWait, WriteWait])
def test_a_reset_wakes_whoever_is_alone(selector, waits_to):
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    server.setblocking(False)

    def main():
        fill(server)
        task = spawn(outcome, waits_to(server))
        yield from turns(3)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert (yield from task) == "woken"

    with listener, client, server:
        drive(main, selector=selector)


@pytest.mark.hazard("H08")
def test_a_reader_of_a_pipe_wakes_when_its_writer_is_gone(selector):
    """On epoll that is a hang-up alone, without anything to read."""
    r, w = os.pipe()

    def main():
        task = spawn(outcome, ReadWait(r))
        yield from turns(2)
        os.close(w)
        yield from turns(2)
        assert task.result == "woken"
        assert os.read(r, 10) == b""

    try:
        drive(main, selector=selector)
    finally:
        os.close(r)


@pytest.mark.hazard("H08")
@pytest.mark.parametrize("event", ["EPOLLERR", "EPOLLHUP", "EPOLLPRI"])
def test_what_is_neither_readable_nor_writable_concerns_both_waiters(pair, event):
    a, _ = pair
    told = []

    class Telling(Epoll):
        def __init__(self):
            super().__init__()
            self.pairs = lambda timeout: [told.pop()] if told else []

    def main():
        fill(a)
        reader = spawn(outcome, ReadWait(a))
        writer = spawn(outcome, WriteWait(a))
        yield from turns(2)
        told.append((a.fileno(), getattr(select, event)))
        yield from turns(2)
        assert reader.result == writer.result == "woken"

    drive(main, selector=Telling)


def test_a_file_and_its_number_share_the_waits(pair, selector):
    a, b = pair

    def main():
        fill(a)
        for reads, writes in ((a, a.fileno()), (a.fileno(), a)):
            writer = spawn(outcome, WriteWait(writes))
            reader = spawn(outcome, ReadWait(reads))
            second = spawn(outcome, ReadWait(writes))
            third = spawn(outcome, WriteWait(reads))
            yield from turns(3)
            assert isinstance(second.result, BusyError)
            assert isinstance(third.result, BusyError)
            assert files() == 1
            b.send(b"x")
            yield from turns(2)
            assert reader.result == "woken"
            assert writer.state == "waiting"
            assert a.recv(5) == b"x"
            empty(b)
            yield from turns(2)
            assert writer.result == "woken"
            fill(a)

    run(main, selector=selector)


def test_two_objects_with_one_number_share_its_waits(pair, selector):
    a, b = pair

    class Wrapper:
        def fileno(self):
            return a.fileno()

    one, two = Wrapper(), Wrapper()

    def main():
        first = spawn(outcome, ReadWait(one))
        second = spawn(outcome, ReadWait(two))
        third = spawn(outcome, ReadWait(a))
        yield from turns(3)
        assert isinstance(second.result, BusyError)
        assert isinstance(third.result, BusyError)
        b.send(b"x")
        yield from turns(2)
        assert first.result == "woken"
        assert files() == 0

    run(main, selector=selector)


# What cannot be waited for ------------------------------------------------------------------------


class Told:
    """A file object whose `fileno()` returns or raises what it is told."""

    def __init__(self, answer):
        self.answer = answer

    def fileno(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def __repr__(self):
        return f"Told({self.answer!r})"


def closed_socket():
    sock = socket.socket()
    sock.close()
    return sock


BAD = {
    "minus one": (lambda: -1, ValueError),
    "not open": (lambda: 10**6, OSError),
    "beyond int": (lambda: 2**31, ValueError),
    "huge": (lambda: 10**30, ValueError),
    "negative": (lambda: -(10**30), ValueError),
    "string": (lambda: "x", TypeError),
    "none": (lambda: None, TypeError),
    "true": (lambda: True, TypeError),
    "false": (lambda: False, TypeError),
    "float": (lambda: 3.0, TypeError),
    "object": (object, TypeError),
    "class": (lambda: socket.socket, TypeError),
    "closed socket": (closed_socket, ClosedError),
    "fileno is str": (lambda: Told("7"), TypeError),
    "fileno is None": (lambda: Told(None), TypeError),
    "fileno is float": (lambda: Told(0.5), TypeError),
    "fileno is -1": (lambda: Told(-1), ClosedError),
    "fileno is -2": (lambda: Told(-2), ValueError),
    "fileno is huge": (lambda: Told(10**30), ValueError),
    "fileno raises": (lambda: Told(ZeroDivisionError("no number")), ZeroDivisionError),
}


@pytest.mark.hazard("H11")
@pytest.mark.parametrize("trap", [ReadWait, WriteWait])
@pytest.mark.parametrize("what", BAD)
def test_what_is_no_file_is_refused_in_the_task_that_yields_it(selector, what, trap):
    make, expected = BAD[what]
    ticks = []

    def bad():
        with pytest.raises(expected) as caught:
            yield trap(make())
        if what.startswith("fileno is") and expected is TypeError:
            assert "which is not a number" in str(caught.value)
        assert "bad" in [entry.name for entry in caught.traceback]  # at its `yield`
        return "went on"

    def main():
        spawn(ticker, ticks, daemon=True)
        task = spawn(bad)
        assert (yield from task) == "went on"
        assert files() == 0
        yield from turns(2)

    drive(main, selector=selector)
    assert not missed(ticks)
    assert len(ticks) >= 3


@pytest.mark.hazard("H11")
@pytest.mark.parametrize("trap", [ReadWait, WriteWait])
def test_an_object_whose_number_is_not_open_concerns_its_task_alone(selector, trap):
    def main():
        number = os.dup(0)
        os.close(number)
        task = spawn(outcome, trap(Told(number)))
        yield from turns(5)
        if selector is selectors.PollSelector:  # reports such a number as ready for everything
            assert task.result == "woken" or isinstance(task.result, OSError)
        else:
            assert isinstance(task.result, OSError)
            assert task.result.errno == errno.EBADF
        assert files() == 0

    drive(main, selector=selector)


@pytest.mark.hazard("H14")
@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize("trap", [ReadWait, WriteWait])
def test_a_blocking_socket_is_refused_and_the_cure_named(selector, timeout, trap):
    a, b = socket.socketpair()
    a.settimeout(timeout)
    ticks = []

    def main():
        spawn(ticker, ticks, daemon=True)
        task = spawn(outcome, trap(a))
        yield from turns(3)
        assert isinstance(task.result, ValueError)
        assert "setblocking(False)" in str(task.result)
        assert task.result.__context__ is None
        assert files() == 0
        a.setblocking(False)
        b.send(b"x")
        assert (yield from spawn(outcome, trap(a))) == "woken"
        yield

    with a, b:
        run(main, selector=selector)
    assert not missed(ticks)


@pytest.mark.hazard("H14")
@pytest.mark.parametrize("trap", [ReadWait, WriteWait])
def test_a_blocking_socket_is_refused_also_beside_a_wait_for_its_number(pair, selector, trap):
    a, _ = pair
    other = {ReadWait: WriteWait, WriteWait: ReadWait}[trap]

    def main():
        fill(a)
        spawn(outcome, other(a.fileno()), daemon=True)
        yield from turns(2)
        a.setblocking(True)
        task = spawn(outcome, trap(a))
        yield from turns(3)
        assert isinstance(task.result, ValueError)

    run(main, selector=selector)


@pytest.mark.hazard("H72")
@pytest.mark.parametrize("trap", [ReadWait, WriteWait])
def test_what_a_signal_handler_raises_while_a_wait_is_made_is_the_tasks(pair, trap):
    a, _ = pair
    struck = []

    class Alarm(Exception):
        pass

    class File:
        def fileno(self):
            if not struck:
                struck.append(True)
                signal.raise_signal(signal.SIGUSR1)
            return a.fileno()

    def handler(signum, frame):
        raise Alarm

    def main():
        with pytest.raises(Alarm):
            yield trap(File())

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        run(main)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert struck


ALWAYS_READY = ["/etc/hostname", "/dev/null", "/dev/zero", "/dev/urandom", "/proc/self/status"]


@pytest.mark.hazard("H10")
@pytest.mark.parametrize("path", ALWAYS_READY)
def test_regular_files_and_devices(selector, path):
    ticks = []

    def main(file, fd):
        spawn(ticker, ticks, daemon=True)
        for form in (file, fd):
            task = spawn(outcome, ReadWait(form))
            yield from turns(3)
            if selector in EPOLLS:
                assert isinstance(task.result, PermissionError)
                assert task.result.errno == errno.EPERM
                assert "to_thread" in str(task.result)
            else:
                assert task.result == "woken"
            assert files() == 0
            assert registered() == set()

    with open(path, "rb", buffering=0) as file:
        run(main, file, file.fileno(), selector=selector)
    assert not missed(ticks)


@pytest.mark.hazard("H10")
def test_writing_to_a_device_that_is_always_ready(selector):
    def main(file):
        task = spawn(outcome, WriteWait(file))
        yield from turns(3)
        if selector in EPOLLS:
            assert "to_thread" in str(task.result)
        else:
            assert task.result == "woken"

    with open("/dev/null", "wb", buffering=0) as file:
        run(main, file, selector=selector)


@epolls
def test_a_file_that_cannot_be_watched_does_not_disturb_a_wait_for_the_same_number(pair, epoll):
    """The number of a socket that is waited for is laid over with a device behind our back."""
    a, _ = pair

    def main():
        fill(a)
        writer = spawn(outcome, WriteWait(a))
        yield from turns(2)
        with open("/dev/null", "rb") as null:
            os.dup2(null.fileno(), a.fileno())
        reader = spawn(outcome, ReadWait(a))
        yield from turns(3)
        assert isinstance(reader.result, OSError)
        writer.cancel()
        yield from turns(2)
        assert writer.done
        assert files() == 0

    drive_virtually(main, selector=epoll)


# False reports ------------------------------------------------------------------------------------


class Liar(Counted):
    """Reports whatever `lie(key)` says of each registered file, at once, and nothing else."""

    lie = staticmethod(lambda key: key.events)

    def __init__(self, inner):
        self.inner = inner

    def register(self, fileobj, events):
        return self.inner.register(fileobj, events)

    def modify(self, fileobj, events):
        return self.inner.modify(fileobj, events)

    def unregister(self, fileobj):
        return self.inner.unregister(fileobj)

    def select(self, timeout=None):
        told = [(key, self.lie(key)) for key in list(self.inner.get_map().values())]
        return [(key, events) for key, events in told if events]


@pytest.mark.hazard("H12")
def test_thousands_of_false_reports_wake_a_task_once_each_and_end_no_read(pair, selector):
    a, b = pair
    steps, most = 0, 10_000 if FULL else 1_000

    def patient():
        nonlocal steps
        while True:
            yield ReadWait(a)
            steps += 1
            try:
                return a.recv(10)
            except BlockingIOError:
                pass

    def main():
        spawn(outcome, ReadWait(b), daemon=True)
        task = spawn(patient)
        yield
        while steps < most:
            before = steps
            yield
            assert steps <= before + 1  # once a turn
        assert task.state in ("waiting", "ready")
        b.send(b"real")
        assert (yield from task) == b"real"

    run(main, selector=lambda: Liar(standard(selector)()))
    assert steps >= most


@pytest.mark.hazard("H12")
def test_false_reports_at_random_lose_no_data(selector):
    chance = random.Random(12)
    pairs = [make_pair() for _ in range(8)]
    rounds = 10_000 if FULL else 1000

    class RandomLiar(Liar):
        def lie(self, key):
            return chance.choice((0, 0, 1, 2, 3))  # also what nobody asked for

    def receive(sock, count):
        got = b""
        while len(got) < count:
            yield ReadWait(sock)
            try:
                data = sock.recv(100)
            except BlockingIOError:
                continue
            assert data
            got += data
        return got

    def send(sock, data):
        for n in range(len(data)):
            yield WriteWait(sock)
            sock.send(data[n : n + 1])
            for _ in range(chance.randrange(3)):
                yield

    def main():
        sent = [bytes(chance.randrange(256) for _ in range(rounds // 10)) for _ in pairs]
        tasks = [spawn(receive, a, len(data)) for (a, _), data in zip(pairs, sent, strict=True)]
        for (_, b), data in zip(pairs, sent, strict=True):
            spawn(send, b, data)
        for task, data in zip(tasks, sent, strict=True):
            assert (yield from task) == data

    with contextlib.ExitStack() as stack:
        for sock in sum(pairs, ()):
            stack.enter_context(sock)
        run(main, selector=lambda: RandomLiar(standard(selector)()))


# Closing through the library ----------------------------------------------------------------------


@pytest.mark.hazard("H01")
def test_law_close_through_the_library_wakes_both_waiters_with_nothing_in_between(pair, selector):
    a, _ = pair
    counting = Counting(selector)

    def main():
        fill(a)
        fd = a.fileno()
        reader = spawn(outcome, ReadWait(a))
        writer = spawn(outcome, WriteWait(a))
        yield from turns(2)
        assert registered() == {fd}
        close(a)
        assert a.fileno() == -1
        assert registered() == set()
        assert files() == 0
        assert counting.unregistered[-1] == (fd, True)  # the number was still ours
        yield  # one turn
        for task in (reader, writer):
            assert isinstance(task.result, ClosedError)
            assert task.result.errno == errno.EBADF
        assert reader.result is not writer.result  # each has its own, with its own traceback

    run(main, selector=counting)


@pytest.mark.parametrize("kind", ["socket", "pipe"])
def test_closing_what_nobody_waits_for_and_closing_it_again(selector, kind):
    r, w = os.pipe()
    os.close(w)
    file = os.fdopen(r, "rb", buffering=0)
    if kind == "socket":
        file.close()
        file = socket.socket()

    def main():
        number = file.fileno()
        close(file)
        assert not is_open(number)
        close(file)  # silent: it is closed already
        yield

    with file:
        run(main, selector=selector)


def test_closing_a_number_that_nobody_waits_for(selector):
    r, w = os.pipe()

    def main():
        close(r)
        assert not is_open(r)
        with pytest.raises(OSError) as caught:
            close(r)
        assert caught.value.errno == errno.EBADF
        yield

    run(main, selector=selector)
    os.close(w)


@pytest.mark.parametrize("kind", ["file object", "number"])
def test_closing_a_pipe_wakes_who_waits_for_it(selector, kind):
    r, w = os.pipe()
    file = os.fdopen(r, "rb", buffering=0) if kind == "file object" else r

    def main():
        task = spawn(outcome, ReadWait(file))
        yield from turns(2)
        close(file)
        yield
        assert isinstance(task.result, ClosedError)
        assert not is_open(r)
        assert files() == 0

    try:
        run(main, selector=selector)
    finally:
        os.close(w)


def test_closing_a_number_wakes_who_waits_for_the_socket(selector):
    a, b = make_pair()

    def main():
        task = spawn(outcome, ReadWait(a))
        yield from turns(2)
        close(a.fileno())
        yield
        assert isinstance(task.result, ClosedError)

    with b:
        run(main, selector=selector)
    a.detach()


def test_closing_again_through_the_library_wakes_who_waits_for_a_file_closed_behind_its_back(pair):
    a, _ = pair

    def main():
        task = spawn(outcome, ReadWait(a))
        yield from turns(2)
        a.close()
        close(a)
        yield
        assert isinstance(task.result, ClosedError)
        assert files() == 0

    run(main)


def test_closing_a_stranger_with_the_number_of_a_dead_file_wakes_nobody_else(pair, selector):
    """The waiter of the dead file is told sooner or later, the stranger is closed at once."""
    a, _ = pair

    def main():
        task = spawn(outcome, ReadWait(a))
        yield from turns(2)
        fd = a.fileno()
        a.close()
        c, d = pair_at(fd)
        with d:
            close(c)
            assert c.fileno() == -1
            assert isinstance((yield from task), ClosedError)

    drive_virtually(main, selector=selector)


@pytest.mark.parametrize("what", [True, None, "x", object()])
def test_closing_what_is_no_file_is_refused(what, monkeypatch):
    closed = []
    monkeypatch.setattr(corolib.kernel.poller.os, "close", closed.append)

    def main():
        with pytest.raises(TypeError):
            close(what)
        yield

    run(main)
    assert closed == []


# Closing behind its back --------------------------------------------------------------------------


@pytest.mark.hazard("H01")
def test_law_close_behind_its_back_is_noticed_within_two_seconds(pair, selector):
    a, _ = pair

    def main():
        fill(a)
        fd = a.fileno()
        reader = spawn(outcome, ReadWait(a))
        writer = spawn(outcome, WriteWait(a))
        yield from turns(2)
        a.close()
        before = now()
        reader_error = yield from reader
        writer_error = yield from writer
        assert now() - before <= 2
        for error, trap in ((reader_error, "ReadWait"), (writer_error, "WriteWait")):
            assert isinstance(error, ClosedError)
            assert error.errno == errno.EBADF
            assert trap in str(error)
        assert reader_error is not writer_error
        assert fd not in registered()
        assert files() == 0

    drive_virtually(main, selector=selector)


@pytest.mark.hazard("H01")
def test_law_close_behind_its_back_leaves_the_waiter_cancellable(pair, selector):
    a, _ = pair

    def wait():
        try:
            yield ReadWait(a)
        except Cancelled:
            return "cancelled"

    def main():
        task = spawn(wait)
        yield from turns(2)
        a.close()
        task.cancel()
        yield
        assert task.done
        assert files() == 0
        assert registered() == set()

    drive(main, selector=selector)


@pytest.mark.hazard("H01")
@pytest.mark.parametrize("first", ["reader", "writer"])
def test_law_close_behind_its_back_and_one_cancel_leaves_the_other_its_error(pair, selector, first):
    a, _ = pair

    def main():
        fill(a)
        tasks = {"reader": spawn(outcome, ReadWait(a)), "writer": spawn(outcome, WriteWait(a))}
        yield from turns(2)
        a.close()
        tasks.pop(first).cancel()
        [(_, other)] = tasks.items()
        before = now()
        assert isinstance((yield from other), ClosedError)
        assert now() - before <= 2
        assert files() == 0

    drive_virtually(main, selector=selector)


@epolls
def test_where_a_cancel_finds_the_file_closed_the_other_waiter_is_told_at_once(pair, epoll):
    a, _ = pair
    fill(a)

    def main():
        reader = spawn(outcome, ReadWait(a))
        writer = spawn(outcome, WriteWait(a))
        yield from turns(2)
        a.close()
        reader.cancel()
        yield from turns(2)
        assert isinstance(writer.result, ClosedError)

    drive(main, selector=epoll)


@pytest.mark.hazard("H01")
def test_law_close_behind_its_back_does_not_spin(pair, selector):
    a, _ = pair
    counting = Counting(selector)

    def main():
        task = spawn(outcome, ReadWait(a))
        yield from turns(2)
        a.close()
        before = counting.calls["select"]
        yield Sleep(0.05)
        # Idle takes one call; select and poll also notice, and look at each file alone.
        assert counting.calls["select"] - before <= (3 if selector in EPOLLS else 5)
        task.cancel()

    drive(main, selector=counting)


def test_a_socket_closed_while_nobody_waits_leaves_the_table_within_two_seconds(selector):
    a, b = make_pair()

    def main():
        b.send(b"x")
        yield ReadWait(a)
        a.recv(5)
        yield
        assert files() == 1
        a.close()
        before = now()
        while files():
            assert now() - before <= 2
            yield Sleep(0.1)
        assert registered() == set()

    with a, b:
        drive_virtually(main, selector=selector)


def test_files_closed_behind_its_back_are_found_in_slices(pair):
    pairs = [make_pair() for _ in range(5)]

    def main():
        for a, b in pairs:
            b.send(b"x")
            yield ReadWait(a)
            a.recv(5)
        assert files() == 5
        pairs[1][0].close()
        pairs[4][0].close()
        poller = poller_of(current_scheduler())
        assert poller.sweep(2) is True  # from the newest to the oldest
        assert files() == 4
        assert poller.sweep(1) is True
        assert files() == 4
        assert poller.sweep(2) is False
        assert files() == 3
        assert poller.sweep(5) is False

    with contextlib.ExitStack() as stack:
        for sock in sum(pairs, ()):
            stack.enter_context(sock)
        run(main, selector=selectors.EpollSelector)


@pytest.mark.parametrize("slice_", [1, 2, 1000])
def test_law_close_holds_for_many_files_swept_in_slices(monkeypatch, slice_):
    monkeypatch.setattr(SWEEP_SLICE, slice_)
    pairs = [make_pair() for _ in range(6)]

    def main():
        tasks = [spawn(outcome, ReadWait(a)) for a, _ in pairs]
        yield from turns(3)
        for a, _ in pairs[::2]:
            a.close()
        before = now()
        for task in tasks[::2]:
            assert isinstance((yield from task), ClosedError)
        assert now() - before <= 2
        assert files() == 3
        for task, (_, b) in zip(tasks[1::2], pairs[1::2], strict=True):
            b.send(b"x")
            assert (yield from task) == "woken"

    with contextlib.ExitStack() as stack:
        for sock in sum(pairs, ()):
            stack.enter_context(sock)
        drive_virtually(main, selector=selectors.EpollSelector)


def test_the_sweep_leaves_bare_numbers_alone(selector):
    r, w = os.pipe()

    def main():
        task = spawn(outcome, ReadWait(r))
        yield Sleep(3 * SWEEP_EVERY)
        assert task.state == "waiting"
        os.write(w, b"x")
        assert (yield from task) == "woken"

    try:
        drive_virtually(main, selector=selector)
    finally:
        os.close(r)
        os.close(w)


class Asked(OwnedSocket):
    """A socket that counts the questions for its number."""

    asked = 0

    def fileno(self):
        self.asked += 1
        return super().fileno()


def test_the_sweep_passes_over_sockets_that_only_the_library_holds(pair):
    a, b = (Asked(fileno=sock.detach()) for sock in pair)
    a.setblocking(False)

    def main():
        with a, b:
            task = spawn(outcome, ReadWait(a))
            yield from turns(3)
            asked = a.asked
            for _ in range(10):
                yield Sleep(1)
            assert a.asked == asked
            b.send(b"x")
            assert (yield from task) == "woken"

    drive_virtually(main)


def test_law_close_holds_for_a_file_that_is_closed_in_the_turn_in_which_it_is_first_waited_for(
    selector,
):
    """No file was waited for before that turn, and no task is stepped after it."""
    a, b = make_pair()

    def closing():
        a.close()
        yield Suspend(lambda wake: lambda: None, "nothing")

    def main():
        reader, closer = spawn(outcome, ReadWait(a)), spawn(closing)
        assert isinstance((yield from reader), ClosedError)
        assert now() <= 2
        closer.cancel()

    with b:
        drive_virtually(main, selector=selector)


def test_a_file_closed_by_a_callback_is_noticed_though_no_task_is_stepped():
    a, b = make_pair()

    def main():
        with b:
            scheduler = current_scheduler()
            task = spawn(outcome, ReadWait(a))
            yield from turns(2)
            scheduler.call_soon_threadsafe(lambda: scheduler.call_at(now() + 5, close_it, None))
            return (yield from task)

    def close_it(_):
        a.close()
        current_scheduler().call_soon_threadsafe(int)

    assert isinstance(run(main, **virtual_time()), ClosedError)


@pytest.mark.parametrize("nth", [0, 3, 7])
@pytest.mark.parametrize("turn", range(18))
def test_law_close_holds_between_any_two_slices_of_a_slow_sweep(monkeypatch, nth, turn):
    """Each turn takes a tenth of a second, and a sweep takes eight of them."""
    monkeypatch.setattr(SWEEP_SLICE, 1)
    pairs = [make_pair() for _ in range(8)]
    clock = VirtualClock()

    def busy():
        while True:
            clock.move(0.1)
            yield

    def main():
        tasks = [spawn(outcome, ReadWait(a)) for a, _ in pairs]
        worker = spawn(busy)
        yield Sleep(at=4 + turn / 10)  # not in the first sweep
        pairs[nth][0].close()
        closed = now()
        assert isinstance((yield from tasks[nth]), ClosedError)
        assert now() - closed <= 2
        for task in (worker, *tasks):
            task.cancel()

    with contextlib.ExitStack() as stack:
        for sock in sum(pairs, ()):
            stack.enter_context(sock)
        drive(main, clock=clock)


def test_an_idle_scheduler_does_not_look_for_closed_files_again_and_again(pair):
    a, _ = pair
    counting = Counting(selectors.EpollSelector)

    def main():
        task = spawn(outcome, ReadWait(a))
        yield from turns(2)
        before = counting.calls["select"]
        yield Sleep(1000)
        assert counting.calls["select"] - before <= 5
        task.cancel()

    run(main, **virtual_time(selector=counting))


# Sockets that nobody holds any more ---------------------------------------------------------------


def test_a_socket_that_is_dropped_unclosed_is_not_kept_alive(selector):
    a, b = make_pair()
    b.send(b"x")

    def main():
        nonlocal a
        yield ReadWait(a)
        a.recv(5)
        assert files() == 1
        fd = a.fileno()
        watch = weakref.ref(a)
        yield  # the trap is gone
        assert fd in registered()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            a = None
            gc.collect()
        assert watch() is None
        assert files() == 0
        assert fd not in registered()
        assert not is_open(fd)

    with b:
        run(main, selector=selector)


def test_a_dropped_socket_does_not_take_the_next_file_of_its_number_out_of_the_table(selector):
    a, b = make_pair()
    b.send(b"x")

    def main():
        nonlocal a
        yield ReadWait(a)
        a.recv(5)
        yield
        assert files() == 1
        fd = a.fileno()
        a.close()
        c, d = pair_at(fd)
        with c, d:
            task = spawn(outcome, ReadWait(c))
            yield from turns(2)
            a = None
            gc.collect()
            assert files() == 1
            d.send(b"y")
            yield from turns(2)
            assert task.result == "woken"

    with b:
        run(main, selector=selector)


def test_an_owned_socket_that_is_dropped_in_another_thread_is_found_by_the_sweep(pair):
    a, b = pair
    held = [OwnedSocket(fileno=a.detach())]
    held[0].setblocking(False)

    def main():
        b.send(b"x")
        yield ReadWait(held[0])
        held[0].recv(5)
        yield  # the trap is gone
        assert files() == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            in_a_thread(held.clear)
        assert files() == 1
        yield Sleep(2 * SWEEP_EVERY)
        assert files() == 0

    drive_virtually(main)


# Numbers that are used again ----------------------------------------------------------------------


@pytest.mark.hazard("H02")
@pytest.mark.parametrize("waited", [False, True])
def test_a_number_used_again_is_seen_as_another_file(selector, waited):
    a, b = make_pair()

    def main():
        if waited:
            old = spawn(outcome, ReadWait(a))
        else:
            b.send(b"x")
            yield ReadWait(a)
            a.recv(5)
            assert files() == 1  # the registration is kept
        yield from turns(2)
        fd = a.fileno()
        a.close()
        c, d = pair_at(fd)
        with c, d:
            task = spawn(outcome, ReadWait(c))
            yield
            if waited:
                yield
                assert isinstance(old.result, ClosedError)
            yield from turns(2)
            assert task.state == "waiting"
            d.send(b"y")
            yield from turns(2)
            assert task.result == "woken"
            assert c.recv(5) == b"y"
            assert files() <= 1

    with a, b:
        drive(main, selector=selector)


@pytest.mark.hazard("H02")
@pytest.mark.parametrize("direction", [ReadWait, WriteWait])
@pytest.mark.parametrize("far", [False, True], ids=["small", "large"])
def test_the_number_of_a_pipe_used_again_is_seen_by_its_inode(selector, far, direction):
    if far and selector is selectors.SelectSelector:
        number = 1000
    else:
        number = 2000 if far else 200
    r, w = os.pipe()
    os.dup2(r, number)
    one, two = make_pair()

    def main():
        old = spawn(outcome, ReadWait(number))
        yield from turns(2)
        os.dup2(one.fileno(), number)  # a closed pipe, and a stranger with its number
        task = spawn(outcome, direction(number))
        yield from turns(4)
        assert isinstance(old.result, ClosedError)
        if direction is ReadWait:
            assert task.state == "waiting"
            two.send(b"x")
            yield from turns(2)
        assert task.result == "woken"
        assert files() == 0

    with one, two:
        try:
            drive(main, selector=selector)
        finally:
            for fd in (r, w, number):
                os.close(fd)


def test_a_number_waited_for_and_then_used_by_a_socket_is_seen_as_another_file(selector):
    r, w = os.pipe()

    def main():
        old = spawn(outcome, ReadWait(r))
        yield from turns(2)
        os.close(r)
        c, d = pair_at(r)
        with c, d:
            task = spawn(outcome, ReadWait(c))
            yield from turns(3)
            assert isinstance(old.result, OSError)
            d.send(b"x")
            yield from turns(2)
            assert task.result == "woken"

    try:
        drive(main, selector=selector)
    finally:
        os.close(w)


def test_a_closed_number_can_be_cancelled(selector):
    r, w = os.pipe()

    def main():
        task = spawn(outcome, ReadWait(r))
        yield from turns(2)
        os.close(r)
        task.cancel()
        yield
        assert task.done
        assert files() == 0

    try:
        drive(main, selector=selector)
    finally:
        os.close(w)


@pytest.mark.hazard("H03")
def test_many_cancelled_waits_leave_the_number_free_for_the_next_file(selector):
    rounds = 1000 if FULL else 100
    answered = 0

    def victim(a):
        nonlocal answered
        try:
            yield ReadWait(a)
        except Cancelled:
            assert files() == 0
            assert registered() == set()
            fd = a.fileno()
            a.close()
            c, d = pair_at(fd)
            with c, d:
                d.send(b"x")
                yield ReadWait(c)
                assert c.recv(5) == b"x"
                answered += 1
                close(c)

    def main():
        for _ in range(rounds):
            a, b = make_pair()
            with a, b:
                task = spawn(victim, a)
                yield
                yield
                task.cancel()
                while not task.done:
                    yield
            assert files() == 0

    drive(main, selector=selector)
    assert answered == rounds


@pytest.mark.hazard("H05")
@pytest.mark.parametrize("how", ["library", "bare"])
def test_an_event_for_a_file_closed_in_the_same_turn_wakes_no_stranger(selector, how):
    a, a_peer = make_pair()
    c, c_peer = make_pair()
    new = []

    def closer():
        yield ReadWait(a)
        fd = c.fileno()
        close(c) if how == "library" else c.close()
        new.extend(pair_at(fd))
        stranger = spawn(outcome, ReadWait(new[0]))
        yield from turns(6)
        assert stranger.state == "waiting"
        new[1].send(b"x")
        yield from turns(2)
        assert stranger.result == "woken"

    def main():
        task = spawn(closer)
        other = spawn(outcome, ReadWait(c))
        yield from turns(2)
        a_peer.send(b"1")
        c_peer.send(b"1")
        yield from task
        assert other.result == "woken" or isinstance(other.result, ClosedError)

    with a, a_peer, c, c_peer:
        drive(main, selector=selector)
    for sock in new:
        sock.close()


# What epoll does not forget -----------------------------------------------------------------------


@pytest.mark.hazard("H04")
@epolls
@pytest.mark.parametrize("how", ["woken", "cancelled", "waiting"])
def test_a_registration_kept_alive_by_dup_neither_spins_nor_deafens(epoll, how):
    a, b = make_pair()
    c, d = make_pair()
    counting = Counting(epoll)

    def main():
        task = spawn(outcome, ReadWait(a))
        yield from turns(2)
        if how == "woken":
            b.send(b"x")
            assert (yield from task) == "woken"
            assert a.recv(5) == b"x"
        elif how == "cancelled":
            task.cancel()
            yield from turns(2)
        else:  # as nobody cancels it: gone when it is told
            pass
        number = a.fileno()
        twin = a.dup()
        a.close()
        occupy(number)
        with twin:
            live = spawn(outcome, ReadWait(c))
            yield from turns(2)
            b.send(b"y")
            before = counting.calls["select"]
            yield Sleep(0.05)
            # One that disarms, `EARLY` that make it suspect (epoll's own pairs: one), one that
            # sleeps; `waiting` steps its task once more.
            calls = counting.calls["select"] - before
            assert calls <= (3 if epoll is default_selector else EARLY + 2) + (how == "waiting")
            before = counting.calls["select"]
            yield Sleep(0.05)
            assert counting.calls["select"] - before == 1
            assert live.state == "waiting"
            d.send(b"z")
            yield from turns(2)
            assert live.result == "woken"
            assert task.done
            os.close(number)

    with a, b, c, d:
        drive(main, selector=counting)


@pytest.mark.hazard("H04")
@epolls
def test_a_stale_registration_under_a_number_used_again_does_not_spin_for_ever(epoll):
    """A closed socket lives on in a `dup`, and epoll reports it under the number of another."""
    a, b = make_pair()
    wakes = 0

    def patient(sock):
        nonlocal wakes
        while True:
            yield ReadWait(sock)
            wakes += 1
            try:
                return sock.recv(10)
            except BlockingIOError:
                pass

    scheduler = Scheduler(clock=lambda: time, selector=epoll)
    time = 0.0
    b.send(b"x")
    first = scheduler.spawn(patient, a)
    for _ in range(3):
        scheduler.turn(0)
    assert first.result == b"x"
    number = a.fileno()
    twin = a.dup()
    a.close()
    c, d = pair_at(number)
    with b, c, d, twin, contextlib.closing(scheduler):
        task = scheduler.spawn(patient, c)
        for _ in range(3):
            scheduler.turn(0)
        b.send(b"y")
        for _ in range(100):
            time += 0.05  # two seconds and more
            scheduler.turn(0)
        before = wakes
        for _ in range(100):
            scheduler.turn(0)
        assert wakes == before
        d.send(b"z")
        for _ in range(3):
            scheduler.turn(0)
        assert task.result == b"z"


@pytest.mark.parametrize(
    ("what", "make"),
    [
        ("poll is absent", selectors.SelectSelector),
        ("poll is absent", selectors.EpollSelector),
        ("select fails", selectors.SelectSelector),
    ],
)
def test_a_sweep_that_cannot_look_for_stale_registrations_still_finds_closed_files(
    pair, monkeypatch, what, make
):
    """A number is in doubt, and a file is closed bare between two looks of the selector."""
    if what == "poll is absent":
        monkeypatch.delattr(corolib.kernel.poller.select, "poll")
    a, b = make_pair()
    c, _ = pair
    scheduler = Scheduler(selector=make)
    poller = poller_of(scheduler)
    with a, b, contextlib.closing(scheduler):
        for sock in (a, c):
            scheduler.spawn(outcome, ReadWait(sock))
        scheduler.turn(0)
        [first, second] = scheduler.tasks
        a.close()
        poller.sweep(1000)
        scheduler.turn(0)
        assert isinstance(first.result, ClosedError)
        c.close()
        assert poller.sweep(1000) is False
        scheduler.turn(0)
        assert isinstance(second.result, ClosedError)
        assert scheduler.stats()["files"] == 0


@pytest.mark.hazard("H04")
@epolls
def test_closing_through_the_library_leaves_nothing_in_epoll_for_a_dup_to_keep(epoll):
    a, b = make_pair()
    counting = Counting(epoll)

    def main():
        b.send(b"x")
        yield ReadWait(a)
        with a.dup():
            close(a)
            b.send(b"y")
            before = counting.calls["select"]
            yield Sleep(0.1)
            assert counting.calls["select"] - before == 1
            assert counting.calls["make"] == 1

    with b:
        drive(main, selector=counting)


@epolls
def test_a_file_that_epoll_still_holds_can_be_waited_for_again(epoll):
    """The number, given back to the same open file, cannot be added: epoll is made anew."""
    a, b = make_pair()
    other, other_peer = make_pair()
    counting = Counting(epoll)

    def main():
        bystander = spawn(outcome, ReadWait(other))
        b.send(b"x")
        yield ReadWait(a)
        assert a.recv(5) == b"x"
        number = a.fileno()
        twin = a.dup()
        a.close()
        sweep(current_scheduler(), 1000)
        assert files() == 1
        os.dup2(twin.fileno(), number)
        with twin, socket.socket(fileno=number) as again:
            again.setblocking(False)
            task = spawn(outcome, ReadWait(again))
            yield from turns(3)
            assert task.state == "waiting"
            assert counting.calls["make"] == 2
            b.send(b"y")
            yield from turns(2)
            assert task.result == "woken"
            assert bystander.state == "waiting"
            other_peer.send(b"z")
            yield from turns(2)
            assert bystander.result == "woken"

    with b, other, other_peer:
        drive(main, selector=counting)


@epolls
def test_a_number_that_was_laid_over_is_registered_again(epoll):
    """`dup2` over a registered socket: epoll has forgotten it, the table has not."""
    a, b = make_pair()
    c, d = make_pair()

    def main():
        b.send(b"x")
        yield ReadWait(a)
        fill(c)
        os.dup2(c.fileno(), a.fileno())
        writer = spawn(outcome, WriteWait(a))
        reader = spawn(outcome, ReadWait(a))
        yield from turns(3)
        assert writer.state == reader.state == "waiting"
        d.send(b"x")
        empty(d)
        yield from turns(2)
        assert writer.result == reader.result == "woken"

    with a, b, c, d:
        drive(main, selector=epoll)


@epolls
def test_making_the_selector_anew_tells_the_waiters_of_files_closed_meanwhile(epoll):
    a, b = make_pair()
    c, d = make_pair()

    def main():
        gone = spawn(outcome, ReadWait(a))
        stays = spawn(outcome, ReadWait(c))
        yield from turns(2)
        a.close()
        remake_selector(current_scheduler())
        yield from turns(2)
        assert isinstance(gone.result, ClosedError)
        assert stays.state == "waiting"
        assert registered() == {c.fileno()}
        d.send(b"x")
        yield from turns(2)
        assert stays.result == "woken"

    with b, c, d:
        drive(main, selector=epoll)


@epolls
def test_a_selector_made_anew_knows_no_file_that_nobody_waits_for(pair, epoll):
    a, b = pair
    trap = ReadWait(a)

    def main():
        b.send(b"x")
        yield trap
        assert a.recv(5) == b"x"
        assert files() == 1
        remake_selector(current_scheduler())
        assert files() == 0
        task = spawn(outcome, trap)
        yield from turns(2)
        assert registered() == {a.fileno()}
        b.send(b"y")
        yield from turns(2)
        assert task.result == "woken"

    drive(main, selector=epoll)


def test_a_trap_whose_wait_could_not_be_taken_back_is_registered_anew(pair):
    a, b = pair
    trap = ReadWait(a)
    scheduler = Scheduler()
    scheduler.open()
    selector = selector_of(poller_of(scheduler))
    unregister = selector.unregister

    def fails(fd):
        unregister(fd)
        raise ZeroDivisionError("from a signal handler")

    with contextlib.closing(scheduler):
        first = scheduler.spawn(outcome, trap)
        scheduler.turn(0)
        selector.unregister = fails
        with pytest.raises(ZeroDivisionError):
            first.cancel()
        selector.unregister = unregister
        second = scheduler.spawn(outcome, trap)
        scheduler.turn(0)
        b.send(b"x")
        for _ in range(2):
            scheduler.turn(0)
        assert second.result == "woken"


# What nobody waits for ----------------------------------------------------------------------------


def test_returns_that_used_up_their_time_are_not_early(pair, selector):
    counting = Counting(selector)
    scheduler = Scheduler(selector=counting)
    with contextlib.closing(scheduler):
        task = scheduler.spawn(outcome, ReadWait(pair[0]))
        for _ in range(5 * EARLY):
            scheduler.turn(0.001)
        assert task.state == "waiting"
        assert counting.calls["make"] == 1


def test_sleeping_in_small_pieces_makes_no_selector_anew(pair, selector):
    counting = Counting(selector)

    def main():
        task = spawn(outcome, ReadWait(pair[0]))
        for _ in range(5 * EARLY):
            yield Sleep(0.001)
        assert counting.calls["make"] == 1
        task.cancel()

    run(main, selector=counting)


@pytest.mark.hazard("H09")
def test_a_hang_up_that_nobody_waits_for_does_not_spin(pair, selector):
    a, b = pair
    counting = Counting(selector)

    def main():
        b.send(b"x")
        yield ReadWait(a)
        assert a.recv(5) == b"x"
        b.close()
        before = counting.calls["select"]
        yield Sleep(0.05)
        assert counting.calls["select"] - before <= 3
        assert files() == 0  # disarmed
        yield ReadWait(a)
        assert a.recv(5) == b""

    drive(main, selector=counting)


def test_data_that_nobody_waits_for_does_not_spin_and_is_not_lost(pair, selector):
    a, b = pair
    counting = Counting(selector)

    def main():
        b.send(b"x")
        yield ReadWait(a)
        before = counting.calls["select"]
        yield Sleep(0.05)
        assert counting.calls["select"] - before <= 3
        yield ReadWait(a)
        assert a.recv(5) == b"x"

    drive(main, selector=counting)


# When select() itself fails -----------------------------------------------------------------------


def test_when_select_fails_only_the_waiter_of_the_bad_file_gets_the_error():
    r, w = os.pipe()
    a, b = make_pair()

    def main():
        bad = spawn(outcome, ReadWait(r))
        good = spawn(outcome, ReadWait(a))
        yield from turns(2)
        os.close(r)
        yield from turns(3)
        assert isinstance(bad.result, OSError)
        assert bad.result.errno == errno.EBADF
        assert good.state == "waiting"
        assert registered() == {a.fileno()}
        b.send(b"x")
        yield from turns(2)
        assert good.result == "woken"

    with a, b:
        try:
            drive(main, selector=selectors.SelectSelector)
        finally:
            os.close(w)


def test_a_number_beyond_what_select_can_take_is_an_error_in_its_waiter_alone(pair):
    a, b = pair
    c, d = make_pair()
    high = socket.socket(fileno=fcntl.fcntl(c, fcntl.F_DUPFD_CLOEXEC, 1500))
    high.setblocking(False)

    def main():
        good = spawn(outcome, ReadWait(a))
        bad = spawn(outcome, ReadWait(high))
        yield from turns(4)
        assert isinstance(bad.result, ValueError)
        assert good.state == "waiting"
        b.send(b"x")
        yield from turns(2)
        assert good.result == "woken"

    with c, d, high:
        drive(main, selector=selectors.SelectSelector)


def test_a_failure_of_the_selector_that_no_file_explains_reaches_the_main_task(pair):
    class Broken(Counted):
        def __init__(self):
            super().__init__(selectors.EpollSelector(), Counter(), [])
            self.broken = False

        def select(self, timeout=None):
            if made[0] is self and self.broken:
                self.broken = False
                raise KeyError("of its own")
            return super().select(timeout)

    made = []

    def make():
        made.append(Broken())
        return made[-1]

    def main():
        task = spawn(outcome, ReadWait(pair[0]))
        yield
        made[0].broken = True
        with pytest.raises(KeyError, match="of its own"):
            yield Sleep(100)
        assert task.state == "waiting"
        task.cancel()

    run(main, selector=make)


@pytest.mark.parametrize("fd", [0, 2**31 - 1])
def test_every_number_that_a_file_may_have_will_do(fd):
    assert number(ReadWait(fd)) == fd


# What the system refuses --------------------------------------------------------------------------


class Refusals:
    """What `selector=` takes: makes epolls that fail as often, and with what, as the lists say."""

    def __init__(self):
        self.make, self.register, self.pairs, self.calls = [], [], [], Counter()

    def __call__(self):
        self.say("make")
        return Refusing(self)

    def say(self, name):
        self.calls[name] += 1
        if getattr(self, name):
            number = getattr(self, name).pop(0)
            raise OSError(number, os.strerror(number)) if number else MemoryError


class Refusing(Epoll):
    def __init__(self, refusals):
        super().__init__()
        real = self.pairs
        self.refusals = refusals

        def pairs(timeout):
            refusals.say("pairs")
            return real(timeout)

        self.pairs = pairs

    def register(self, fd, mask):
        self.refusals.say("register")
        super().register(fd, mask)


@pytest.fixture
def refusals():
    return Refusals()


def reads_in_spite_of(refusals, pair, most, refuse):
    """Call `refuse()` while a task waits to read, and another begins to; both get their data."""
    a, b = pair
    c, d = make_pair()

    def reader(sock):
        yield ReadWait(sock)
        return sock.recv(9)

    def main():
        first = spawn(reader, a)
        yield from turns(2)
        refuse()
        second = spawn(reader, c)
        before = current_scheduler().stats()["turns"]
        b.send(b"x")
        d.send(b"y")
        assert (yield from first) == b"x"
        assert (yield from second) == b"y"
        assert current_scheduler().stats()["turns"] - before <= most

    with c, d, pytest.MonkeyPatch.context() as patch:
        patch.setattr("corolib.kernel.poller.REPORT_EVERY", 1000.0)  # a busy machine takes a while
        run(main, selector=refusals)


SHORT = errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.EIO


@pytest.mark.found("N22")
@pytest.mark.parametrize("number", [*SHORT, errno.EBADF, None])
def test_a_selector_that_fails_as_a_whole_is_asked_again(pair, refusals, number, caplog):
    # One that says EBADF is asked without a file, too, and made anew. None: Python has no memory.
    reads_in_spite_of(refusals, pair, 20, lambda: refusals.pairs.extend([number] * 6))
    assert not refusals.pairs
    assert len(caplog.records) == 1


@pytest.mark.found("N22")
@pytest.mark.parametrize("number", SHORT)
def test_a_file_that_cannot_be_registered_just_now_is_registered_later(
    pair, refusals, number, caplog
):
    reads_in_spite_of(refusals, pair, 20, lambda: refusals.register.extend([number] * 3))
    assert not refusals.register
    assert refusals.calls["register"] <= 3 + 4
    assert len(caplog.records) == 1


@pytest.mark.found("N22")
def test_after_any_number_of_false_claims_that_it_is_there_a_file_is_heard(pair, refusals):
    claims = [errno.EEXIST] * 9
    reads_in_spite_of(refusals, pair, 40, lambda: refusals.register.extend(claims))


@pytest.mark.found("N22")
def test_a_selector_that_cannot_be_made_anew_is_made_later(pair, refusals, caplog):
    def refuse():
        refusals.make.extend([errno.EMFILE] * 3)
        refusals.register.append(errno.EINVAL)  # of the wake-up pipe
        remake_selector(current_scheduler())

    reads_in_spite_of(refusals, pair, 30, refuse)
    assert refusals.calls["make"] == 5
    assert len(caplog.records) == 1


@pytest.mark.found("N22")
def test_a_file_that_turns_out_to_be_none_when_it_is_registered_later_is_an_error(pair, refusals):
    def main():
        refusals.register.extend([errno.ENOMEM, errno.EPERM])
        task = spawn(outcome, ReadWait(pair[0]))
        yield Sleep(0.2)
        assert isinstance(task.result, PermissionError)
        assert files() == 0

    run(main, selector=refusals)


@pytest.mark.found("N22")
def test_a_wait_that_was_refused_can_be_taken_back(pair, refusals):
    def main():
        refusals.register.append(errno.ENOMEM)
        yield from spawn(outcome, ReadWait(pair[0])).stop()
        assert files() == 0
        calls = refusals.calls["register"]
        yield Sleep(0.2)
        assert refusals.calls["register"] == calls

    run(main, selector=refusals)


@contextlib.contextmanager
def poller_with_wakeup(drain, clock):
    """Yield a poller by itself, whose wake-up file calls `drain`, and can be read; its timers."""
    timers = Timers()
    poller = Poller(default_selector, deque(), lambda: clock[0], timers)
    wakeup, end = make_pair()
    with wakeup, end, contextlib.closing(poller):
        poller.open({wakeup.fileno(): drain})
        end.send(b"x")
        yield poller, timers


@pytest.mark.found("N22")
def test_a_wake_up_that_cannot_be_read_is_read_later_and_not_in_each_turn(refusals, caplog):
    drained, clock = [], [0.0]

    def drain():
        drained.append(clock[0])
        raise OSError(errno.EIO, "refused")

    with poller_with_wakeup(drain, clock) as (poller, timers):
        for _ in range(100):
            poller.poll(0, 0.0)
            clock[0] += PAUSE / 10
            timers.expire(clock[0])
    assert 9 <= len(drained) <= 10
    assert len(caplog.records) == 1


class Alarm:
    """What may be a signal handler: a function, a method, or something that is called."""

    def method(self, signum, frame):
        raise TimeoutError("from a signal handler")

    def __call__(self, *args):
        raise TimeoutError("from a signal handler")


def once(signum, frame):
    signal.signal(signum, signal.SIG_DFL)
    raise TimeoutError("from a signal handler")


@pytest.mark.found("N22")
@pytest.mark.parametrize(
    "handler",
    [
        once,
        Alarm().method,
        Alarm(),
        functools.partial(Alarm.method, None),
        lambda *args: once(*args),
    ],
)
def test_what_a_signal_handler_raises_is_no_refusal_of_the_system(pair, caplog, handler):
    def interrupt():
        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.raise_signal(signal.SIGALRM)
        finally:
            signal.signal(signal.SIGALRM, before)

    class Refuses(selectors.SelectSelector):
        def register(self, fd, *rest):
            if fd == pair[0].fileno():
                interrupt()
            return super().register(fd, *rest)

        def select(self, timeout=None):
            if interrupts:
                interrupts.pop()
                interrupt()
            return super().select(timeout)

    def main():
        with pytest.raises(TimeoutError, match="handler"):
            yield ReadWait(pair[0])
        interrupts.append(1)
        with pytest.raises(TimeoutError, match="handler"):
            yield Sleep(10)

    interrupts = []
    run(main, selector=Refuses)
    with poller_with_wakeup(interrupt, [0.0]) as (poller, _):
        for _ in range(2):  # it is still watched
            with pytest.raises(TimeoutError, match="handler"):
                poller.poll(0, 0.0)
    assert not caplog.records


def test_a_poller_that_is_closed_waits_for_nothing_and_says_so():
    with poller_with_wakeup(lambda: None, [0.0]) as (poller, _):
        poller.close()
        with pytest.raises(ValueError, match="closed"):
            poller.poll(0, 0.0)


# The table by itself ------------------------------------------------------------------------------


def test_epoll_is_told_of_numbers_and_tells_pairs(pair):
    a, b = pair
    with contextlib.closing(Epoll()) as epoll:
        fd = a.fileno()
        assert epoll.pairs(0) == []
        epoll.register(fd, selectors.EVENT_READ)
        assert epoll.pairs(0) == []
        b.send(b"x")
        assert epoll.pairs(0) == [(fd, IN)]
        epoll.modify(fd, selectors.EVENT_READ | selectors.EVENT_WRITE)
        assert epoll.pairs(0) == [(fd, IN | OUT)]
        epoll.modify(fd, selectors.EVENT_WRITE)
        assert epoll.pairs(0) == [(fd, OUT)]
        epoll.unregister(fd)
        assert epoll.pairs(0) == []
        assert is_open(epoll.fileno())
    with pytest.raises(ValueError, match="closed"):
        epoll.pairs(0)


def test_a_poller_by_itself_makes_its_selector_anew(pair):
    a, b = pair
    counting = Counting(default_selector)
    poller = Poller(counting, deque(), lambda: 0.0, Timers())
    wakeup, end = socket.socketpair()
    poller.open({wakeup.fileno(): lambda: None})
    # Of the one that is registered here the table knows nothing.
    selector_of(poller).register(a.fileno(), selectors.EVENT_READ)
    b.send(b"x")
    poller.poll(0, None)
    assert counting.calls["make"] == 2
    poller.poll(0, None)
    assert counting.calls["make"] == 2
    poller.close()
    wakeup.close()
    end.close()


def test_three_early_returns_in_a_row_and_no_fewer_make_the_selector_anew():
    class Hasty(selectors.SelectSelector):
        def select(self, timeout=None):
            return super().select(0)

    counting = Counting(Hasty)
    poller = Poller(counting, deque(), lambda: 1.0, Timers())
    wakeup, end = make_pair()

    def made_after(polls, timeout=1.0, deadline=2.0):
        for _ in range(polls):
            poller.poll(timeout, deadline)
        return counting.calls["make"]

    with wakeup, end, contextlib.closing(poller):
        poller.open({wakeup.fileno(): lambda: empty(wakeup)})
        assert made_after(EARLY - 1) == 1
        assert made_after(5 * EARLY, timeout=0) == 1  # these were to return at once
        assert made_after(5 * EARLY, deadline=1.0) == 1  # these are late enough
        assert made_after(1) == 2
        assert made_after(EARLY - 1) == 2  # counted from the beginning
        assert made_after(1) == 3
        assert made_after(EARLY - 1) == 3
        end.send(b"x")
        assert made_after(1) == 3  # had something to report
        assert made_after(EARLY - 1) == 3
        assert made_after(1) == 4


def test_a_scheduler_that_is_closed_knows_no_file(pair, capsys):
    scheduler = Scheduler()
    scheduler.spawn(outcome, ReadWait(pair[0]))
    scheduler.turn(0)
    assert scheduler.stats()["files"] == 1
    scheduler.close()
    assert scheduler.stats()["files"] == 0
    assert "was abandoned" in capsys.readouterr().err


# Many connections ---------------------------------------------------------------------------------


@pytest.fixture
def all_numbers():
    """As many file numbers as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(hard, 20_000) if hard != resource.RLIM_INFINITY else 20_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def echo(sock):
    while True:
        yield ReadWait(sock)
        data = sock.recv(100)
        if not data:
            return
        sock.send(data)


def cost_of(f):
    """The number of Python's lines and calls, of its own and of C's, that `f()` takes."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        count += event == "line"
        return trace

    def profile(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    before, profiled = sys.gettrace(), sys.getprofile()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        f()
    finally:
        sys.setprofile(profiled)
        sys.settrace(before)
    assert count > 10
    return count


def with_idle(count, f):
    """`f(scheduler, sock, peer)` beside `count` idle connections; time stands still."""
    pairs = [make_pair() for _ in range(count + 1)]
    scheduler = Scheduler(clock=lambda: 0.0)
    try:
        for a, _ in pairs:
            scheduler.spawn(echo, a)
        for _ in range(3):
            scheduler.turn(0)
        assert scheduler.stats()["files"] == count + 1
        return f(scheduler, *pairs[count // 2])
    finally:
        scheduler.close()
        for a, b in pairs:
            a.close()
            b.close()


@pytest.mark.hazard("H79")
@pytest.mark.parametrize("make", [*EPOLLS, selectors.PollSelector])
def test_thousands_of_connections_are_held_and_each_answered(all_numbers, make):
    count = (all_numbers - 500) // 2
    if not FULL:
        count = min(count, 2000)
    counting = Counting(make)
    pairs = [make_pair() for _ in range(count)]

    def main():
        tasks = [spawn(echo, a) for a, _ in pairs]
        yield from turns(2)
        assert files() == count
        for n, (_, b) in enumerate(pairs):
            b.send(b"%d" % n)
        yield from turns(count // 1000 + 3)
        for n, (_, b) in enumerate(pairs):
            assert b.recv(100) == b"%d" % n
        assert counting.calls["make"] == 1
        wakeups = call_queue_of(current_scheduler()).files()
        assert counting.calls["register"] == count + len(wakeups)
        for _, b in pairs:
            b.close()
        for task in tasks:
            yield from task

    try:
        run(main, selector=counting)
    finally:
        for a, b in pairs:
            a.close()
            b.close()


@pytest.mark.hazard("H79")
def test_one_more_echo_costs_the_same_beside_any_number_of_idle_connections():
    def cost(scheduler, _, peer):
        def once():
            peer.send(b"x")
            scheduler.turn(0)
            assert peer.recv(5) == b"x"

        once()
        return cost_of(once)

    assert with_idle(10, cost) == with_idle(1000, cost)


@pytest.mark.hazard("H79")
@pytest.mark.parametrize("state", ["waited for", "never waited for", "no longer waited for"])
def test_closing_costs_the_same_beside_any_number_of_idle_connections(state):
    def cost(scheduler, sock, _):
        other, peer = make_pair()
        if state == "waited for":
            other, sock = sock, other
        elif state == "no longer waited for":
            task = scheduler.spawn(outcome, ReadWait(other))
            for _ in range(2):
                scheduler.turn(0)
            task.cancel()
            scheduler.turn(0)
        if state == "waited for":
            sock.close()
        cost = cost_of(lambda: scheduler.close_file(other))
        peer.close()
        return cost

    assert with_idle(10, cost) == with_idle(1000, cost)


@pytest.mark.hazard("H79")
def test_a_turn_of_other_tasks_costs_the_same_beside_any_number_of_idle_connections():
    def cost(scheduler, *_):
        scheduler.spawn(turns, 10)
        scheduler.turn(0)
        return cost_of(lambda: scheduler.turn(0))

    assert with_idle(10, cost) == with_idle(1000, cost)


def close_again(scheduler, sock, peer):
    other, end = make_pair()
    other.close()
    end.close()
    return cost_of(lambda: scheduler.close_file(other))


def test_closing_what_is_closed_already_looks_through_nothing_else():
    """However many files are waited for, closing one again costs the same."""
    assert with_idle(5, close_again) == with_idle(500, close_again)


# A trap that is used again ------------------------------------------------------------------------


def again_and_again(trap, count):
    for _ in range(count):
        yield trap
        trap.file.recv(1)


def test_a_trap_that_is_used_again_belongs_to_the_scheduler_that_runs(pair):
    """One that has noted its file must not make another wait on its table."""
    a, b = pair
    trap = ReadWait(a)

    def wait(count):
        for _ in range(count):
            yield trap
            last = a.recv(1)
        return last

    first = Scheduler()
    try:
        b.send(b"xyz")
        task = first.spawn(wait, 3)
        while not task.done:
            first.turn()
        b.send(b"12")
        assert run(wait, 2) == b"2"
        b.send(b"3")
        task = first.spawn(wait, 1)
        while not task.done:
            first.turn()
        assert task.result == b"3"
    finally:
        first.close()
    b.send(b"4")
    assert run(wait, 1) == b"4"
    assert repr(trap) == repr(ReadWait(a))


def test_a_trap_that_two_schedulers_use_at_once_wakes_the_task_of_each(pair):
    a, b = pair
    trap = ReadWait(a)
    ended = []

    def wait(name):
        yield trap
        ended.append(name)

    first, second = Scheduler(), Scheduler()
    for scheduler, name in ((first, "first"), (second, "second")):
        scheduler.spawn(wait, name)
        scheduler.turn(0)
    b.send(b"x")
    for scheduler in (second, first):
        scheduler.turn(0)
        scheduler.turn(0)
    assert ended == ["second", "first"]
    first.close()
    second.close()


def test_a_trap_used_again_for_a_file_closed_behind_our_back_raises_within_two_seconds(pair):
    a, b = pair
    trap = ReadWait(a)

    def main():
        b.send(b"x")
        yield trap
        a.recv(1)
        a.close()
        before = now()
        with pytest.raises(ClosedError):
            yield trap
        assert now() - before <= 2
        with pytest.raises(ClosedError):
            yield trap

    run(main, **virtual_time())


def test_a_trap_used_again_after_its_number_went_to_another_file_concerns_only_its_own(pair):
    a, b = pair
    trap = ReadWait(a)

    def main():
        b.send(b"x")
        yield trap
        number = a.fileno()
        a.close()
        c, d = socket.socketpair()
        with c, d:
            assert number in (c.fileno(), d.fileno())
            mine, other = (c, d) if c.fileno() == number else (d, c)
            mine.setblocking(False)
            other.send(b"y")
            yield ReadWait(mine)
            with pytest.raises(ClosedError):
                yield trap
            assert mine.recv(1) == b"y"

    run(main)


def test_a_second_task_that_uses_the_same_trap_is_told_that_it_is_busy(pair):
    a, b = pair
    trap = ReadWait(a)

    def main():
        b.send(b"x")
        yield trap
        a.recv(1)
        other = spawn(again_and_again, trap, 1)
        yield
        with pytest.raises(BusyError, match="already waiting to read"):
            yield trap
        b.send(b"x")
        yield from other

    run(main)


@pytest.mark.parametrize("trap", [ReadWait, WriteWait])
def test_a_closed_pipe_object_is_a_closed_file(trap):
    """Its `fileno()` raises a ValueError, which says nothing of waiting."""
    r, w = os.pipe()
    with open(r, "rb", buffering=0) as file, open(w, "wb", buffering=0):
        pass

    def main():
        with pytest.raises(ClosedError, match="the file is closed"):
            yield trap(file)

    run(main)
