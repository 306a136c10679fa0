"""What a task can yield: the traps as objects, made, shown and awaited."""

import socket
import sys

import pytest

from corolib import (
    BusyError,
    ReadWait,
    Sleep,
    Suspend,
    UrgentWait,
    WriteWait,
    first,
    move_on_after,
    now,
    run,
    spawn,
)
from tests.helpers.driving import go, turn


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Sleep(), TypeError, "either a duration, Sleep(0.5), or a deadline, Sleep(at=t)"),
        (lambda: Sleep(1, at=2), TypeError, "either a duration"),
        (lambda: Sleep("1"), TypeError, "Sleep() got '1' as a duration: write a number of seconds"),
        (lambda: Sleep(True), TypeError, "not a bool"),
        (lambda: Sleep(at=None), TypeError, "either"),
        (lambda: Sleep(at="x"), TypeError, "Sleep(at=) got 'x' as a deadline"),
        (lambda: Sleep(float("nan")), ValueError, "only finite numbers and math.inf will do"),
        (lambda: Sleep(float("-inf")), ValueError, "Sleep() got -inf as a duration"),
        (lambda: Sleep([]), TypeError, "not a list"),
        (lambda: Suspend(5, "x"), TypeError, "arm must be a function of `wake`, not 5"),
    ],
)
def test_traps_made_of_wrong_things(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)


def test_reprs():
    assert repr(Sleep(1)) == "Sleep(1.0)" and repr(Sleep(at=2)) == "Sleep(at=2.0)"
    assert repr(Suspend(list, "acquire <Lock B>")) == "acquire <Lock B>"
    assert repr(ReadWait(3)) == "ReadWait(<int fd=3>)"
    assert repr(WriteWait(None)) == "WriteWait(None)"

    def main():
        task = spawn(giver)
        yield
        assert repr(task.wait) == "give way"
        yield from task

    def giver():
        yield
        yield

    go(main)


def test_traps_can_be_awaited(pair):
    a, b = pair

    async def main():
        await Sleep(1)
        await WriteWait(a)
        a.send(b"x")
        await ReadWait(b)
        assert await Suspend(lambda wake: wake("woken") or list, "x") == "woken"
        return b.recv(5), now()

    assert go(main) == (b"x", 1)


def test_a_bare_yield_of_an_awaitable_is_a_turn():
    class GiveWay:
        def __await__(self):
            yield

    async def main():
        before = turn()
        await GiveWay()
        return turn() - before

    assert go(main) == 1


# Traps of a program's own -------------------------------------------------------------------------


class Nap(Sleep):
    """Waits for twice as long."""

    def __init__(self, seconds):
        super().__init__(2 * seconds)


class Readable(ReadWait):
    pass


class MoreReadable(Readable):
    """A trap by more than one step, and with a dict of its own."""

    def __repr__(self):
        raise RuntimeError("no repr")


class Writable(WriteWait):
    pass


class Urgent(UrgentWait):
    pass


class Once(Suspend):
    def __init__(self, value):
        super().__init__(lambda wake: wake(value), "a value")


@pytest.fixture
def connected():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        b, _ = listener.accept()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


@pytest.mark.found("T17")
def test_a_subclass_of_a_trap_waits_as_the_trap_does(connected):
    a, b = connected

    def main():
        yield Nap(1)
        assert (yield from Once("x")) == "x"
        assert (yield Once("y")) == "y"
        for wait in (Readable, MoreReadable):
            for _ in range(3):
                task = spawn(send_later, b"z")
                yield wait(b)
                assert b.recv(10) == b"z"
                yield from task
        yield Writable(b)
        with move_on_after(1):
            while True:
                yield Writable(b)
                b.send(bytes(100_000))
        return now()

    def send_later(data):
        yield
        a.send(data)

    assert go(main) == 3


@pytest.mark.found("T17")
@pytest.mark.skipif(sys.platform != "linux", reason="needs epoll")
def test_a_subclass_of_the_wait_for_urgent_data_waits_for_it(connected):
    a, b = connected

    def main():
        a.send(b"!", socket.MSG_OOB)
        yield Urgent(b)
        return b.recv(1, socket.MSG_OOB)

    assert run(main) == b"!"


@pytest.mark.found("T17")
@pytest.mark.parametrize(
    "make",
    [
        lambda sock: Nap(60),
        Readable,
        MoreReadable,
        Urgent,
        lambda sock: type("Never", (Suspend,), {})(lambda wake: int, "nothing"),
    ],
)
def test_the_wait_of_a_subclass_of_a_trap_is_taken_back(connected, make):
    _, b = connected

    def main():
        for _ in range(2):
            with move_on_after(1) as scope:
                yield make(b)
            assert scope.expired
            index, _ = yield from first(make(b), Sleep(1))
            assert index == 1
        return now()

    assert go(main) == 4


@pytest.mark.found("T17")
def test_who_comes_second_is_told_of_the_wait_of_a_subclass(connected):
    _, b = connected

    def main():
        task = spawn(iter(Readable(b)))
        yield
        for wait in (MoreReadable, ReadWait):
            with pytest.raises(BusyError, match="is already waiting to read this file"):
                yield wait(b)
        with pytest.raises(BlockingIOError):
            while True:
                b.send(bytes(100_000))
        full = spawn(iter(Writable(b)))
        yield
        with pytest.raises(BusyError, match="is already waiting to write this file"):
            yield Writable(b)
        yield from task.stop()
        yield from full.stop()

    go(main)


@pytest.mark.found("T17")
def test_a_class_that_cannot_be_looked_up_is_refused_in_its_task():
    class Kind(type):
        def __hash__(cls):
            raise RuntimeError("no hash")

    class Odd(Sleep, metaclass=Kind):
        pass

    def main():
        with pytest.raises(RuntimeError, match="no hash"):
            yield Odd(1)

    go(main)
