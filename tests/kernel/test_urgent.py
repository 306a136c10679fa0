"""Urgent data: `UrgentWait`, on real TCP connections and on every selector.

`yield` by itself is one turn. A watch fires in one turn and its task is stepped in the next, so
three turns after an urgent byte was sent its waiter must have it.
"""

import errno
import os
import re
import select
import selectors
import socket
import struct
import threading

import pytest

from corolib import (
    BusyError,
    ClosedError,
    Deadlock,
    Event,
    ReadWait,
    Scheduler,
    Sleep,
    TaskCancelled,
    UrgentWait,
    WriteWait,
    close,
    current_scheduler,
    first,
    move_on_after,
    run,
    spawn,
)
from corolib.testing import cancel_everywhere, open_files, survivors, virtual_time
from tests.helpers.driving import FULL, files, outcome, standard, turn, turns
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import fork_in_child
from tests.helpers.sockets import make_tcp


@pytest.fixture
def tcp():
    a, b = make_tcp()
    with a, b:
        yield a, b


def urge(a, b, byte=b"!"):
    """Send an urgent byte, and stay until it has arrived."""
    a.send(byte, socket.MSG_OOB)
    poll = select.poll()
    poll.register(b, select.POLLPRI)
    assert poll.poll(60_000)


def take(sock):
    """Wait for an urgent byte and return it."""
    yield UrgentWait(sock)
    return sock.recv(1, socket.MSG_OOB)


def conditions(sock, mask):
    """Return which of these conditions the socket is in."""
    poll = select.poll()
    poll.register(sock, mask)
    return sum(event for _, event in poll.poll(0))


def is_urgent(sock):
    return conditions(sock, select.POLLPRI) == select.POLLPRI


# Waiting and waking -------------------------------------------------------------------------------


def test_an_urgent_byte_is_waited_for_and_taken(tcp, selector):
    a, b = tcp

    def main():
        before, open_before = files(), open_files()
        task = spawn(take, b)
        yield from turns(5)
        assert task.state == "waiting"
        assert files() == before + 1
        assert repr(task.wait) == f"UrgentWait(<socket fd={b.fileno()}>)"
        urge(a, b)
        assert (yield from task) == b"!"
        assert files() == before
        assert open_files() == open_before

    run(main, selector=selector)


def test_ordinary_data_are_not_urgent(tcp, selector):
    a, b = tcp

    def main():
        task = spawn(take, b)
        a.send(b"much")
        yield ReadWait(b)
        yield from turns(5)
        assert task.state == "waiting"
        urge(a, b)
        assert (yield from task) == b"!"
        assert b.recv(100) == b"much"

    run(main, selector=selector)


def test_one_urgent_byte_among_others_while_another_task_reads(tcp, selector):
    a, b = tcp

    def read():
        got = b""
        while True:
            yield ReadWait(b)
            data = b.recv(100)
            if not data:
                return got
            got += data

    def main():
        reader, watcher = spawn(read), spawn(take, b)
        yield from turns(2)
        a.send(b"one ")
        a.send(b"two!", socket.MSG_OOB)  # the last byte is the urgent one
        assert (yield from watcher) == b"!"
        a.send(b" three")
        yield from turns(3)
        assert reader.state == "waiting"
        a.shutdown(socket.SHUT_WR)
        assert (yield from reader) == b"one two three"

    run(main, selector=selector)


def test_a_reader_a_writer_and_a_waiter_for_urgent_data_on_one_file(tcp, selector):
    a, b = tcp

    def main():
        sent = 0
        while conditions(b, select.POLLOUT):
            with pytest.raises(BlockingIOError):
                while True:
                    sent += b.send(b"x" * 65536)
            yield Sleep(0.01)  # some of it may go on its way meanwhile, and make room
        tasks = [spawn(outcome, kind(b)) for kind in (ReadWait, WriteWait, UrgentWait)]
        reader, writer, watcher = tasks
        yield from turns(5)
        assert [task.state for task in tasks] == ["waiting"] * 3
        urge(a, b)
        assert (yield from watcher) == "woken"
        assert [reader.state, writer.state] == ["waiting"] * 2
        a.send(b"data")
        assert (yield from reader) == "woken"
        assert writer.state == "waiting"
        while sent:
            yield ReadWait(a)
            sent -= len(a.recv(1 << 20))
        assert (yield from writer) == "woken"

    run(main, selector=selector)


def test_a_byte_that_is_not_taken_ends_the_next_wait_at_once_and_keeps_nobody_busy(tcp, selector):
    a, b = tcp

    def main():
        urge(a, b)
        for _ in range(3):
            yield UrgentWait(b)
        before = turn()
        yield Sleep(0.02)  # while nobody waits for it, it wakes nobody
        assert turn() <= before + 3
        assert (yield from take(b)) == b"!"
        task = spawn(take, b)
        yield from turns(5)
        assert task.state == "waiting"
        task.cancel()

    run(main, selector=selector)


def test_the_last_urgent_byte_counts(tcp):
    a, b = tcp

    def main():
        a.send(b"1", socket.MSG_OOB)
        a.send(b"2", socket.MSG_OOB)
        a.send(b"x")
        yield ReadWait(b)  # both have come before
        assert (yield from take(b)) == b"2"
        assert b.recv(100) == b"x"

    run(main)


def test_among_the_others_an_ordinary_recv_stops_in_front_of_it(tcp):
    a, b = tcp
    b.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    def main():
        a.send(b"ab!", socket.MSG_OOB)
        a.send(b"cd")
        yield UrgentWait(b)
        with pytest.raises(OSError):
            b.recv(1, socket.MSG_OOB)
        assert b.recv(100) == b"ab"
        yield UrgentWait(b)  # it is still to come
        assert b.recv(100) in (b"!", b"!cd")
        task = spawn(outcome, UrgentWait(b))
        yield from turns(5)
        assert task.state == "waiting"
        task.cancel()

    run(main)


def test_an_error_of_the_connection_ends_the_wait_and_its_end_of_file_does_not(tcp, selector):
    a, b = tcp

    def main():
        task = spawn(take, b)
        a.shutdown(socket.SHUT_WR)
        yield ReadWait(b)
        assert b.recv(1) == b""
        yield from turns(5)
        assert task.state == "waiting"
        a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        a.close()  # a reset
        with pytest.raises(OSError):
            yield from task

    run(main, selector=selector)


def test_a_busy_program_sees_urgent_data_too(tcp):
    """Files are looked at in every turn, also when nothing but urgent data is waited for."""
    a, b = tcp

    def main():
        task = spawn(take, b)
        yield
        urge(a, b)
        for _ in range(5):
            yield
            if task.done:
                break
        assert task.result == b"!"

    run(main)


def test_a_thread_may_send_it_while_the_program_sleeps(tcp, selector):
    a, b = tcp

    def main():
        thread = threading.Thread(target=a.send, args=(b"!", socket.MSG_OOB))
        thread.start()
        assert (yield from take(b)) == b"!"
        thread.join()

    run(main, selector=selector)


def test_many_wait_each_for_its_own():
    def main():
        pairs = [make_tcp() for _ in range(20)]
        tasks = [spawn(take, b) for _, b in pairs]
        yield from turns(2)
        assert files() == 20
        for n, (a, b) in reversed(list(enumerate(pairs))):
            urge(a, b, bytes([n]))
        for n, task in enumerate(tasks):
            assert (yield from task) == bytes([n])
        for pair in pairs:
            for sock in pair:
                sock.close()

    run(main)


def test_it_can_be_awaited(tcp):
    a, b = tcp

    async def main():
        urge(a, b)
        await UrgentWait(b)
        return b.recv(1, socket.MSG_OOB)

    assert run(main) == b"!"


def test_a_number_and_a_file_object_of_ones_own_will_do(tcp):
    a, b = tcp

    class Wrapper:
        def fileno(self):
            return b.fileno()

    def main():
        for file in (b.fileno(), Wrapper()):
            task = spawn(outcome, UrgentWait(file))
            yield from turns(3)
            assert task.state == "waiting"
            urge(a, b)
            assert (yield from task) == "woken"
            assert b.recv(1, socket.MSG_OOB) == b"!"

    run(main)


# What is refused ----------------------------------------------------------------------------------


def test_a_second_waiter_is_refused_and_the_first_is_not_disturbed(tcp, selector):
    a, b = tcp

    def main():
        task = spawn(take, b, name="watcher")
        yield
        text = (
            rf"UrgentWait\(<(socket|int) fd={b.fileno()}>\): task watcher#2 "
            r"\(test_urgent.py:\d+\) is already waiting for urgent data of this file"
        )
        with pytest.raises(BusyError, match=text):
            yield UrgentWait(b)
        with pytest.raises(BusyError, match=text):
            yield from first(Sleep(60), UrgentWait(b.fileno()))
        assert files() == 1
        urge(a, b)
        assert (yield from task) == b"!"

    run(main, selector=selector)


def test_what_is_no_file_is_refused(tcp, tmp_path):
    b = tcp[1]
    path = tmp_path / "regular"
    path.touch()

    def refused(trap, kind, text):
        with pytest.raises(kind, match=text):
            yield trap

    def main():
        before = open_files()
        with open(path) as regular:
            yield from refused(UrgentWait(regular), PermissionError, r"UrgentWait\(<TextIO")
        unused = max(map(int, open_files())) + 100
        yield from refused(UrgentWait(unused), OSError, rf"UrgentWait\(<int fd={unused}>\): Bad ")
        yield from refused(UrgentWait("x"), TypeError, r"UrgentWait\('x'\): a str is not a file")
        yield from refused(UrgentWait(-1), ValueError, r"UrgentWait\(-1\): no file has")
        b.setblocking(True)
        yield from refused(UrgentWait(b), ValueError, "the socket is blocking")
        b.close()
        yield from refused(UrgentWait(b), ClosedError, "the file is closed")
        assert open_files() < before
        assert files() == 0

    run(main)


def test_without_epoll_it_says_what_is_missing(tcp, monkeypatch):
    def main():
        monkeypatch.delattr(select, "epoll")
        text = re.escape(
            f"UrgentWait(<socket fd={tcp[1].fileno()}>): urgent data can be waited for with epoll "
            "only, which Linux has; there any selector will do"
        )
        with pytest.raises(NotImplementedError, match=text):
            yield UrgentWait(tcp[1])
        assert files() == 0

    run(main, selector=selectors.SelectSelector)


def test_a_selector_that_refuses_the_watch_leaves_nothing_behind(tcp):
    class Full(selectors.SelectSelector):
        full = False

        def register(self, *args):
            if self.full:
                raise OSError(errno.EPERM, "not this one")
            return super().register(*args)

    def main():
        before = open_files()
        Full.full = True
        error = yield from outcome(UrgentWait(tcp[1]))
        assert error.errno == errno.EPERM
        assert open_files() == before  # though the error is held, and its traceback
        Full.full = False
        urge(*tcp)
        assert (yield from take(tcp[1])) == b"!"

    run(main, selector=Full)


def test_the_class_in_the_place_of_a_trap_is_explained():
    def main():
        yield UrgentWait

    with pytest.raises(TypeError, match=r"Did you mean `yield UrgentWait\(\.\.\.\)`"):
        run(main)


# Closing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closes", [close, lambda sock: close(sock.detach())], ids=["sock", "fd"])
def test_close_wakes_all_who_wait_for_the_file(tcp, selector, closes):
    b = tcp[1]
    fd = b.fileno()

    def main():
        before = open_files()
        waits = [ReadWait(fd), UrgentWait(fd)]
        tasks = [spawn(outcome, wait) for wait in waits]
        yield
        closes(b)
        yield
        for task, wait in zip(tasks, waits, strict=True):
            assert isinstance(task.result, ClosedError)
            assert str(task.result).endswith(f"{wait!r}: the file was closed during the wait")
        assert files() == 0
        assert len(before - open_files()) == 1

    run(main, selector=selector)


def test_close_comes_between_the_watch_and_the_task(tcp):
    """In one and the same turn the watch fires and, before its task is stepped, the file goes."""
    a, b = tcp

    def main():
        task = spawn(outcome, UrgentWait(b))
        yield from turns(2)
        urge(a, b)
        yield  # the scheduler looks at the files and steps this task first
        close(b)
        yield
        assert isinstance(task.result, ClosedError)
        yield from turns(3)

    run(main)


def test_close_also_wakes_those_whose_file_was_closed_behind_its_back(tcp):
    b = tcp[1]
    c, d = make_tcp()

    def main():
        tasks = [spawn(outcome, UrgentWait(sock)) for sock in (d, b)]
        yield from turns(2)
        b.close()
        close(b)
        yield from turns(2)
        assert isinstance(tasks[1].result, ClosedError)
        assert tasks[0].state == "waiting"
        urge(c, d)
        assert (yield from tasks[0]) == "woken"

    with c, d:
        run(main)


@pytest.mark.parametrize("dup", [False, True], ids=["closed", "with a dup"])
@pytest.mark.parametrize("kind", ["socket", "number"])
def test_a_file_closed_behind_our_back_is_found_by_the_sweep(tcp, kind, dup, selector):
    b = tcp[1]
    file = b if kind == "socket" else b.fileno()
    other = b.dup() if dup else None

    def main():
        before = open_files()
        task = spawn(outcome, UrgentWait(file))
        yield from turns(3)
        b.close()
        yield Sleep(2)
        assert isinstance(task.result, ClosedError)
        assert re.fullmatch(
            r"(\[Errno \d+\] )?UrgentWait\(<(socket closed|int fd=\d+)>\): the file was closed "
            "during the wait",
            str(task.result),
        )
        assert files() == 0
        assert len(before - open_files()) == 1
        assert open_files() < before

    run(main, **virtual_time(selector=standard(selector)))
    if other:
        other.close()


def test_a_dup_of_a_closed_file_fires_no_watch_twice(tcp):
    """The dup keeps the closed socket in the epoll; its urgent byte must not keep us busy."""
    a, b = tcp

    def main():
        with b.dup() as other:
            task = spawn(outcome, UrgentWait(b))
            yield from turns(2)
            b.close()
            urge(a, other)
            yield from turns(3)
            assert isinstance(task.result, ClosedError)
            before = turn()
            yield Sleep(0.02)
            assert turn() <= before + 3

    run(main)


def test_another_file_with_the_number_of_a_closed_one_can_be_waited_for(tcp):
    b = tcp[1]
    c, d = make_tcp()

    def main():
        lost = spawn(outcome, UrgentWait(b))
        yield
        fd = b.detach()
        os.dup2(d.fileno(), fd)  # closes `b`
        with socket.socket(fileno=fd) as e:
            e.setblocking(False)
            task = spawn(take, e)
            yield from turns(2)
            assert isinstance(lost.result, ClosedError)
            assert task.state == "waiting"
            urge(c, d)
            assert (yield from task) == b"!"

    with c, d:
        run(main)


def test_closing_the_scheduler_closes_the_watches(tcp):
    before = open_files()
    scheduler = Scheduler()
    task = scheduler.spawn(take, tcp[1])
    scheduler.turn(0)
    assert task.state == "waiting"
    scheduler.close()
    assert open_files() == before


def test_a_forked_child_keeps_no_watch_open(tcp):
    def main():
        spawn(take, tcp[1])
        yield
        fork_in_child(current_scheduler())
        yield

    before = open_files()
    with pytest.raises(RuntimeError, match="belongs to the parent"):
        run(main)
    assert open_files() == before


# Cancellation, and several waits at once ----------------------------------------------------------


def test_a_cancelled_wait_is_as_if_it_had_not_been_made(tcp, selector):
    a, b = tcp

    def main():
        before = open_files()
        task = spawn(take, b)
        yield from turns(2)
        yield from task.stop()
        assert files() == 0
        assert open_files() == before
        urge(a, b)
        assert (yield from take(b)) == b"!"

    run(main, selector=selector)


def test_a_cancel_between_the_watch_and_the_task_takes_nothing(tcp):
    a, b = tcp

    def main():
        task = spawn(take, b)
        yield from turns(2)
        urge(a, b)
        yield  # see `test_close_comes_between_the_watch_and_the_task`
        assert task.state == "waiting"
        task.cancel()
        with pytest.raises(TaskCancelled):
            yield from task
        assert is_urgent(b)
        assert (yield from take(b)) == b"!"

    run(main)


def test_a_timeout_ends_it(tcp):
    def main():
        with move_on_after(5) as scope:
            yield UrgentWait(tcp[1])
        assert scope.expired
        assert files() == 0

    run(main, **virtual_time())


def test_it_can_be_one_of_several_waits(tcp, selector):
    a, b = tcp

    def main():
        waits = UrgentWait(b), ReadWait(b), Sleep(60)
        urge(a, b)
        assert (yield from first(*waits)) == (0, None)
        assert b.recv(1, socket.MSG_OOB) == b"!"
        a.send(b"x")
        assert (yield from first(*waits)) == (1, None)
        assert b.recv(1) == b"x"
        assert (yield from first(UrgentWait(b), Sleep(0.001))) == (1, None)
        assert files() == 0
        task = spawn(outcome, first(*waits))
        yield
        close(b)
        with pytest.raises(ClosedError):
            yield from first(*waits)
        yield
        task.cancel()

    run(main, selector=selector)


def test_a_wait_for_urgent_data_is_no_deadlock_and_hides_none(tcp):
    a, b = tcp

    def main():
        stuck = spawn(Event().wait())
        thread = threading.Thread(target=a.send, args=(b"!", socket.MSG_OOB))
        thread.start()
        assert (yield from take(b)) == b"!"
        thread.join()
        yield from stuck

    with pytest.raises(Deadlock, match="wait"):
        run(main)


def taken_once():
    """Two tasks on one connection, one of which waits for the urgent byte; what the cancelled one
    has not taken is still there.
    """
    a, b = make_tcp()
    with a, b:
        got = []

        def watch():
            yield UrgentWait(b)
            got.append(b.recv(1, socket.MSG_OOB))

        def read():
            yield ReadWait(b)
            got.append(b.recv(100))

        tasks = [spawn(watch), spawn(read)]
        yield from turns(2)
        a.send(b"data")
        urge(a, b)
        yield from survivors(tasks)
        if b"!" not in got:
            assert is_urgent(b)
            got.append(b.recv(1, socket.MSG_OOB))
        if b"data" not in got:
            got.append(b.recv(100))
        assert sorted(got) == [b"!", b"data"]


def taken_by_one_of_two():
    """Two tasks that wait for whatever comes first."""
    pairs = [make_tcp(), make_tcp()]
    got = []

    def either(own, others):
        n, _ = yield from first(UrgentWait(own), ReadWait(others), Sleep(10))
        if n == 0:
            got.append(own.recv(1, socket.MSG_OOB))
        elif n == 1:
            got.append(others.recv(100))

    (a, b), (c, d) = pairs
    tasks = [spawn(either, b, d), spawn(either, d, b)]
    yield from turns(2)
    urge(a, b)
    urge(c, d, b"?")
    yield from survivors(tasks)
    for sock, byte in ((b, b"!"), (d, b"?")):
        assert is_urgent(sock) != (byte in got)
    for sock in (a, b, c, d):
        sock.close()


@pytest.mark.parametrize("scenario", [taken_once, taken_by_one_of_two])
def test_cancelled_at_any_step_nothing_is_lost_and_nothing_left(scenario):
    assert cancel_everywhere(scenario) > 5
    assert cancel_everywhere(scenario, pairs=True, every=1 if FULL else 10) > 1


def test_nothing_is_left_to_the_garbage_collector():
    def scenario():
        a, b = make_tcp()
        with a, b:
            urge(a, b)
            yield from take(b)
            task = spawn(take, b)
            yield from turns(2)
            yield from task.stop()
            task = spawn(take, b)
            yield from turns(2)
            try:
                yield from spawn(take, b)
            except BusyError:
                pass
            close(b)
            yield
            assert isinstance(task.exception, ClosedError)
            try:
                yield from spawn(take, b)
            except ClosedError:
                pass

    assert garbage_of(scenario) == []
