"""Generators that say for which file they wait: `ReadinessDriver`."""

import gc
import os
import select
import selectors
import socket
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from corolib import (
    BusyError,
    Cancelled,
    ClosedError,
    ReadWait,
    Scheduler,
    Sleep,
    current_scheduler,
    move_on_after,
    run,
    spawn,
    timeout,
)
from corolib.interop import ReadinessDriver
from corolib.testing import cancel_everywhere, survivors
from tests.helpers.garbage import everything, garbage_of
from tests.helpers.inside import poller_of

EITHER = EVENT_READ | EVENT_WRITE


class Counting(selectors.DefaultSelector):
    """A selector that notes what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def register(self, file, events, data=None):
        self.told.append(("register", file, events))
        return super().register(file, events, data)

    def unregister(self, file):
        self.told.append(("unregister", file))
        return super().unregister(file)

    def modify(self, file, events, data=None):
        self.told.append(("modify", file, events))
        return super().modify(file, events, data)


def read_bytes(fd, log=None):
    """Return the next bytes of a file."""
    came = yield EVENT_READ
    if log is not None:
        log.append(came)
    return os.read(fd, 100)


@pytest.mark.parametrize("pipes", [False, True])
def test_it_waits_for_what_the_generator_asks_and_returns_its_value(pipes, pair):
    if pipes:
        reader, writer = os.pipe()
    else:
        reader, writer = (sock.fileno() for sock in pair)
    log = []

    def writes():
        log.append((yield EVENT_WRITE))
        os.write(writer, b"hello")
        return "written"

    def main():
        with ReadinessDriver() as driver, ReadinessDriver() as other:
            task = spawn(driver.drive(read_bytes(reader, log), reader))
            yield
            log.append((yield from other.drive(writes(), writer)))
            return (yield from task)

    assert run(main) == b"hello"
    assert log == [EVENT_WRITE, "written", EVENT_READ]
    os.fstat(reader)  # both are open still
    os.fstat(writer)
    if pipes:
        os.close(reader)
        os.close(writer)


def test_of_either_the_one_that_came_is_sent(pair):
    a, b = pair
    log = []

    def talks():
        log.append((yield EITHER))  # there is room
        while True:
            try:
                a.send(bytes(65536))
            except BlockingIOError:
                break
        log.append((yield EITHER))  # there is none, but something to read
        return a.recv(10)

    def answer():
        yield
        yield
        b.send(b"stop")

    def main():
        spawn(answer)
        with ReadinessDriver() as driver:
            return (yield from driver.drive(talks(), a.fileno()))

    assert run(main) == b"stop"
    assert log == [EVENT_WRITE, EVENT_READ]


def test_the_file_is_registered_once_for_many_waits_and_generators(pair):
    a, b = pair
    made = []

    def selector():
        made.append(Counting())
        return made[-1]

    def main():
        with ReadinessDriver() as driver:
            for _ in range(20):
                task = spawn(driver.drive(read_bytes(a.fileno()), a.fileno()))
                yield
                yield
                b.send(b"x")
                assert (yield from task) == b"x"

    run(main, selector=selector)
    ours = [told for told in made[0].told if told[1] == a.fileno()]
    assert ours == [("register", a.fileno(), EVENT_READ), ("unregister", a.fileno())]


def test_a_generator_that_does_not_wait_gives_way_now_and_then():
    turns = 0

    def at_once():
        return 7
        yield

    def count():
        nonlocal turns
        while True:
            turns += 1
            yield

    def main():
        spawn(count, daemon=True)
        with ReadinessDriver() as driver:
            for _ in range(1000):
                assert (yield from driver.drive(at_once())) == 7

    run(main)
    assert turns > 5


def test_the_file_may_change_in_the_middle(pair):
    a, b = pair
    c, d = socket.socketpair()

    def both():
        yield a.fileno(), EVENT_READ
        first = a.recv(10)
        yield c.fileno(), EVENT_READ
        return first + c.recv(10)

    def main():
        b.send(b"one ")
        d.send(b"two")
        with ReadinessDriver() as driver:
            value = yield from driver.drive(both())
        assert not poller_of(current_scheduler()).entries
        return value

    with c, d:
        assert run(main) == b"one two"


def test_a_file_that_the_generator_names_may_be_another_one_with_the_same_number(pair):
    """As libpq does it, which closes a connection and begins anew, without TLS."""
    a, b = pair

    def connects(fd):
        yield fd, EVENT_READ
        assert os.read(fd, 10) == b"one"
        c, d = socket.socketpair()
        with c, d:
            os.dup2(c.fileno(), fd)
            assert not select.select([fd], [], [], 0)[0]
            d.send(b"two")
            yield fd, EVENT_READ
            return os.read(fd, 10)

    def main():
        fd = os.dup(a.fileno())
        b.send(b"one")
        with ReadinessDriver() as driver, timeout(30):
            try:
                return (yield from driver.drive(connects(fd)))
            finally:
                os.close(fd)

    assert run(main) == b"two"


def test_after_an_error_of_the_generator_the_registration_is_given_back(pair):
    """Its library may have closed the file: another one with its number is not taken for it."""
    a, b = pair

    def fails(fd):
        yield EVENT_READ
        os.close(fd)
        raise OSError("connection lost")

    def main():
        driver = ReadinessDriver()
        fd = os.dup(a.fileno())
        b.send(b"x")
        with pytest.raises(OSError, match="connection lost"):
            yield from driver.drive(fails(fd), fd)
        assert not poller_of(current_scheduler()).entries
        c, d = socket.socketpair()
        with c, d:
            assert fd in (c.fileno(), d.fileno())
            theirs, ours = (c, d) if c.fileno() == fd else (d, c)
            theirs.setblocking(False)
            ours.send(b"new")
            yield ReadWait(theirs)
            assert theirs.recv(10) == b"new"

    run(main)


@pytest.mark.parametrize(
    ("asked", "fd"),
    [
        *((0, 5), (4, 5), (None, 5), ("r", 5), (EVENT_READ, None), ((5, 0), None)),
        *(((None, 1), None), (("x", 1), None), ((5, 1, 2), 5)),
    ],
)
def test_what_cannot_be_waited_for_is_refused(asked, fd):
    def odd():
        yield asked

    def main():
        with ReadinessDriver() as driver:
            yield from driver.drive(odd(), fd)

    with pytest.raises(ValueError, match="the generator yielded"):
        run(main)


def test_a_number_that_no_file_has_is_an_error_of_the_task():
    def main():
        generator = read_bytes(99_999)
        with ReadinessDriver() as driver, pytest.raises(OSError, match="Bad file descriptor"):
            yield from driver.drive(generator, 99_999)
        generator.close()

    run(main)


def test_a_cancelled_wait_leaves_the_generator_where_it_stands(pair):
    a, b = pair
    log = []

    def patient():
        while not (yield EVENT_READ):
            log.append("nothing came")
        return a.recv(10)

    def main():
        with ReadinessDriver() as driver:
            generator = patient()
            with move_on_after(0.001) as scope:
                yield from driver.drive(generator, a.fileno())
            assert scope.expired
            b.send(b"late")
            return (yield from driver.drive(generator, a.fileno()))

    assert run(main) == b"late"
    assert log == ["nothing came"]


def test_close_wakes_who_waits_and_the_next_drive_registers_anew(pair):
    a, b = pair

    def main():
        driver = ReadinessDriver()
        generator = read_bytes(a.fileno())
        task = spawn(driver.drive(generator, a.fileno()))
        yield
        yield
        driver.close()
        driver.close()
        with pytest.raises(ClosedError):
            yield from task
        generator.close()
        b.send(b"again")
        return (yield from driver.drive(read_bytes(a.fileno()), a.fileno()))

    assert run(main) == b"again"


def test_another_task_that_waits_for_the_same_file_is_not_disturbed(pair):
    a, b = pair

    def main():
        with ReadinessDriver() as driver:
            task = spawn(driver.drive(read_bytes(a.fileno()), a.fileno()))
            yield
            yield
            generator = read_bytes(a.fileno())
            with pytest.raises(BusyError):
                yield from driver.drive(generator, a.fileno())
            generator.close()
            b.send(b"mine")
            return (yield from task)

    assert run(main) == b"mine"


def test_it_can_be_dropped_and_closed_after_the_run_and_never_closes_the_file(pair):
    a, b = pair
    kept = []

    def main(drop):
        driver = ReadinessDriver()
        b.send(b"x")
        yield from driver.drive(read_bytes(a.fileno()), a.fileno())
        if drop:
            del driver
            gc.collect()
            assert not poller_of(current_scheduler()).entries
        else:
            kept.append(driver)

    run(main, True)
    run(main, False)
    kept[0].close()
    assert a.fileno() != -1
    os.fstat(a.fileno())
    b.send(b"alive")
    assert a.recv(10) == b"alive"


def test_cancel_everywhere():
    def scenario():
        a, b = socket.socketpair()
        c, d = socket.socketpair()
        got = []

        def talks(fd, other):
            came = yield EITHER
            assert came
            yield fd, EVENT_WRITE
            os.write(fd, b"x")
            while not (yield EVENT_READ):
                pass
            got.append(os.read(fd, 1))
            yield other, EVENT_WRITE

        def client(sock, other):
            generator = talks(sock.fileno(), other.fileno())
            with ReadinessDriver() as driver:
                try:
                    yield from driver.drive(generator, sock.fileno())
                finally:
                    generator.close()

        with a, b, c, d:
            for sock in (a, b, c, d):
                sock.setblocking(False)
            tasks = [spawn(client, a, c), spawn(client, b, d)]
            yield Sleep(1)
            for sock in (a, b):  # so that who is left gets something to read
                if not os.get_inheritable(sock.fileno()):
                    sock.send(b"y")
            yield from survivors(tasks)
            assert all(got)

    assert cancel_everywhere(scenario, pairs=True) > 30


def test_nothing_is_left_in_cycles(pair):
    a, b = pair

    def main():
        with ReadinessDriver() as driver:
            for _ in range(3):
                b.send(b"x")
                yield from driver.drive(read_bytes(a.fileno()), a.fileno())

    assert garbage_of(main, everything) == []


def test_a_scheduler_that_is_closed_in_the_middle_leaves_the_file_open(pair):
    a, _ = pair
    driver = ReadinessDriver()
    scheduler = Scheduler()
    log = []

    def waits():
        try:
            yield EVENT_READ
        finally:
            log.append("closed")

    def task():
        generator = waits()
        try:
            yield from driver.drive(generator, a.fileno())
        except Cancelled:
            log.append("cancelled")
        finally:
            generator.close()

    scheduler.spawn(task)
    scheduler.turn(0)
    scheduler.close()
    driver.close()
    assert log == ["closed"]
    os.fstat(a.fileno())
