"""The calls that other threads leave for the scheduler: in order, announced, and without loss.

Threads are joined before a test ends. Where a test lets real time pass it bounds turns and
selector calls, not seconds.
"""

import errno
import os
import select
import sys
import threading
from collections import deque

import pytest

from corolib import Cancelled, RunFinished, Scheduler, Sleep, current_scheduler, now, run
from corolib.kernel.callqueue import CallQueue, WakeupEvent, WakeupPair
from corolib.testing import open_files, virtual_time
from tests.helpers.driving import FULL, LONG, in_a_thread, in_threads, turn, until
from tests.helpers.inside import (
    call_queue_of,
    poller_of,
    remake_selector,
    replace_read,
    replace_signal_read,
    replace_write,
    selector_of,
    sockets_of_pair,
    wakeup_file_of,
    when_it_sleeps,
)
from tests.helpers.sockets import is_open

# By itself ----------------------------------------------------------------------------------------


@pytest.fixture(params=["eventfd", "pair"])
def queue(request, monkeypatch):
    if request.param == "pair":
        monkeypatch.delattr(os, "eventfd")
    box = CallQueue()
    box.open()
    yield box
    if not box.closed:
        box.close()


def announced(queue):
    return bool(select.select(list(queue.files()), [], [], 0)[0])


def test_a_call_is_kept_and_announced_and_the_announcement_can_be_taken_off(queue):
    assert not announced(queue)
    queue.put(print, ("x",))
    assert announced(queue)
    queue.drain()
    assert not announced(queue)
    assert list(queue.calls) == [(print, ("x",))]


@pytest.mark.hazard("H65")
def test_many_calls_are_announced_once(queue):
    write, written = wakeup_file_of(queue).write, []
    replace_write(queue, lambda data: written.append(write(data)))
    for _ in range(10_000):
        queue.put(print, ())
    assert len(written) == 1
    assert len(queue.calls) == 10_000
    queue.drain()
    queue.put(print, ())
    assert len(written) == 2


def test_where_there_is_no_eventfd_a_pair_announces_calls_and_signals(monkeypatch):
    monkeypatch.delattr(os, "eventfd")
    queue = CallQueue()
    queue.open()
    assert isinstance(wakeup_file_of(queue), WakeupPair)
    assert len(queue.files()) == 1
    os.write(queue.wakeup_fd(), b"s")
    assert announced(queue)
    queue.drain()
    assert not announced(queue)
    queue.close()


@pytest.mark.hazard("H65")
def test_a_full_pipe_is_success(monkeypatch):
    monkeypatch.delattr(os, "eventfd")
    queue = CallQueue()
    queue.open()
    _, writer = sockets_of_pair(wakeup_file_of(queue))
    with pytest.raises(BlockingIOError):
        while True:
            writer.send(b"x" * 4096)
    queue.put(print, ())
    assert announced(queue)
    assert len(queue.calls) == 1
    while announced(queue):  # each turn takes a part of it
        queue.drain()
    queue.put(print, ())
    assert announced(queue)
    queue.close()


@pytest.mark.hazard("H65")
def test_a_full_eventfd_is_success_too():
    queue = CallQueue()
    queue.open()
    file = wakeup_file_of(queue)
    assert isinstance(file, WakeupEvent)
    file.write((2**64 - 2).to_bytes(8, sys.byteorder))
    queue.put(print, ())
    assert announced(queue)
    queue.drain()
    assert not announced(queue)
    queue.drain()  # in vain, which is no error
    queue.close()


@pytest.mark.hazard("H65")
def test_a_call_left_while_announcements_are_taken_off_does_not_silence_the_next(queue):
    queue.put(print, (1,))
    read = wakeup_file_of(queue).read

    def read_and_let_another_thread_in(size):
        read(size)
        queue.put(print, (2,))

    replace_read(queue, read_and_let_another_thread_in)
    queue.drain()
    assert len(queue.calls) == 2
    queue.calls.clear()
    queue.put(print, (3,))
    assert announced(queue)


def test_signals_have_a_pair_of_which_one_end_can_be_their_number(queue):
    os.write(queue.wakeup_fd(), b"s")
    assert announced(queue)
    for drain in queue.files().values():
        drain()
    assert not announced(queue)
    assert queue.wakeup_fd() not in queue.files()
    assert not any(map(os.get_blocking, [queue.wakeup_fd(), *queue.files()]))
    assert not any(map(os.get_inheritable, [queue.wakeup_fd(), *queue.files()]))


@pytest.mark.hazard("H66")
def test_a_closed_queue_takes_nothing_more_and_keeps_what_it_had(queue):
    queue.put(print, (1,))
    queue.close()
    with pytest.raises(RunFinished):
        queue.put(print, (2,))
    assert list(queue.calls) == [(print, (1,))]
    queue.close()


@pytest.mark.hazard("H66")
def test_a_call_that_the_closer_took_meanwhile_is_late_all_the_same(queue):
    """Between the append and the look at `closed` the closer has emptied the queue."""

    class Emptied(deque):
        def append(self, call):
            pass

    queue.close()
    queue.calls = Emptied()
    with pytest.raises(RunFinished):
        queue.put(print, ())


@pytest.mark.hazard("H66")
def test_only_who_closes_takes_calls_out():
    """It counts them first; one that is taken out by its own thread meanwhile would be missing."""

    class Closing(deque):
        def append(self, call):
            super().append(call)
            queue.close()

    queue = CallQueue()
    queue.calls = Closing()
    with pytest.raises(RunFinished):
        queue.put(int, ())
    assert len(queue.calls) == 1
    with pytest.raises(RunFinished):  # from now on nothing is left, which nobody would look at
        queue.put(int, ())
    assert len(queue.calls) == 1


@pytest.mark.hazard("H65")
def test_a_queue_that_is_closed_while_a_call_is_announced_is_no_error(queue):
    write = wakeup_file_of(queue).write

    def closed_meanwhile(data):
        queue.close()
        return write(data)

    replace_write(queue, closed_meanwhile)
    queue.put(print, ())
    assert len(queue.calls) == 1


def test_what_a_thread_announces_never_gets_into_a_file_that_has_the_same_number_now(tmp_path):
    """The thread has begun to write when the run ends, and another file is opened after that."""
    queue = CallQueue()
    queue.open()
    real = [wakeup_file_of(queue).write]
    fd = wakeup_file_of(queue).fileno()

    def write_late(data):
        queue.close()
        with open(tmp_path / "file", "wb", buffering=0) as file:
            assert file.fileno() != fd
            real.pop()(data)

    replace_write(queue, write_late)
    queue.put(print, ())
    assert (tmp_path / "file").read_bytes() == b""
    assert not is_open(fd)


def test_an_eventfd_that_cannot_be_had_leaves_nothing_open(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "eventfd", refuse)
    before = open_files()
    queue = CallQueue()
    with pytest.raises(OSError, match="Too many"):
        queue.open()
    assert open_files() == before
    monkeypatch.undo()
    queue.open()  # another try is made
    queue.put(print, ())
    assert announced(queue)
    queue.close()
    assert open_files() == before


def test_an_exception_while_the_announcements_are_taken_off_silences_nobody(queue):
    """A signal handler of the program's may raise anywhere in the scheduler's wait."""
    read = wakeup_file_of(queue).read

    def struck(size):
        read(size)
        raise KeyError("the handler's")

    queue.put(int, ())
    replace_read(queue, struck)
    with pytest.raises(KeyError):
        queue.drain()
    assert not announced(queue)
    queue.put(int, ())
    assert announced(queue)


# Without memory -----------------------------------------------------------------------------------

SHORT = [errno.ENOMEM, errno.ENOBUFS, errno.EIO]


@pytest.mark.found("N22")
@pytest.mark.parametrize("number", SHORT)
def test_a_call_that_cannot_be_announced_at_once_is_announced_later(queue, number, monkeypatch):
    write, tries, pauses = wakeup_file_of(queue).write, [], []

    def short(data):
        tries.append(data)
        if len(tries) < 4:
            raise OSError(number, os.strerror(number))
        return write(data)

    monkeypatch.setattr("corolib.kernel.callqueue.time.sleep", pauses.append)
    replace_write(queue, short)
    queue.put(print, ())
    assert announced(queue)
    assert len(tries) == 4 and pauses == sorted(pauses) and 0 < sum(pauses) < 0.01


@pytest.mark.found("N22")
def test_a_call_that_cannot_be_announced_at_all_does_not_silence_the_next(queue, monkeypatch):
    def short(data):
        raise OSError(errno.ENOBUFS, "No buffer space available")

    pauses = []
    monkeypatch.setattr("corolib.kernel.callqueue.time.sleep", pauses.append)
    write = wakeup_file_of(queue).write
    replace_write(queue, short)
    queue.put(print, (1,))
    assert not announced(queue) and 0.1 < sum(pauses) < 1
    replace_write(queue, write)
    queue.put(print, (2,))
    assert announced(queue)
    assert len(queue.calls) == 2


@pytest.mark.found("N22")
@pytest.mark.parametrize("number", SHORT)
@pytest.mark.parametrize("whose", ["calls", "signals"])
def test_a_wake_up_that_cannot_be_read_ends_nothing_loses_nothing_and_does_not_spin(
    number, whose, caplog
):
    """For five seconds of virtual time each read fails. Meanwhile other threads leave calls."""
    made, tries = [], []

    def main():
        scheduler = current_scheduler()
        box = call_queue_of(scheduler)
        began = now()

        def read(size):
            tries.append(now())
            if now() < began + 5:
                raise OSError(number, os.strerror(number))
            return real(size)

        if whose == "calls":
            real = wakeup_file_of(box).read
            replace_read(box, read)
        else:
            real = replace_signal_read(scheduler, read)
            os.write(scheduler.wakeup_fd(), b"s")
        for n in range(100):
            in_a_thread(lambda n=n: scheduler.call_soon_threadsafe(made.append, n))
            turns = turn()
            yield Sleep(0.1)
            assert turn() - turns <= 10
        assert not announced(box)

    with caplog.at_level("WARNING", "corolib.task"):
        run(main, **virtual_time())
    assert made == list(range(100))
    assert 50 < len(tries) < 300
    said = [record.getMessage() for record in caplog.records]
    assert 4 <= len(said) <= 6 and os.strerror(number) in said[0]


@pytest.mark.found("N22")
@pytest.mark.parametrize("remade", [True, False])
def test_a_wake_up_file_is_watched_again_after_the_pause(remade, selector):
    """Whether the selector was made anew meanwhile, or has itself no memory for it at first."""
    tries, refused = [], []

    def read(size):
        tries.append(size)
        if len(tries) == 1:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return real(size)

    def main():
        nonlocal real
        scheduler = current_scheduler()
        real = wakeup_file_of(call_queue_of(scheduler)).read
        replace_read(call_queue_of(scheduler), read)
        if not remade:
            register = selector_of(poller_of(scheduler)).register

            def refuse(fd, events):
                if len(refused) < 3:
                    refused.append(fd)
                    raise OSError(errno.ENOSPC, "No space left on device")
                return register(fd, events)

            selector_of(poller_of(scheduler)).register = refuse
        in_a_thread(lambda: scheduler.call_soon_threadsafe(int))
        yield from until(lambda: tries)
        if remade:
            remake_selector(scheduler)
        while len(tries) < 2:
            before = turn()
            yield Sleep(0.3)
            assert turn() - before < 20
        in_a_thread(lambda: scheduler.call_soon_threadsafe(made.append, "heard"))
        yield from until(lambda: made)

    real, made = None, []
    run(main, selector=selector)
    assert len(refused) == (0 if remade else 3)


# Calls from threads -------------------------------------------------------------------------------


THREADS = 8


CALLS = 50_000 if FULL else 2_000


@pytest.fixture
def eager():
    """Threads that change often: more interleavings, and nobody waits long for the interpreter."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.hazard("H65")
def test_calls_from_eight_threads_are_all_made_in_the_order_of_each_thread(selector, capfd, eager):
    made = [[] for _ in range(THREADS)]

    def main():
        scheduler = current_scheduler()

        def leave(number):
            for n in range(CALLS):
                scheduler.call_soon_threadsafe(made[number].append, n)

        threads, raised = in_threads(THREADS, leave)
        while any(thread.is_alive() for thread in threads):  # busy
            yield
        for thread in threads:
            thread.join()
        yield  # the last calls are made in this turn
        assert raised == []

    run(main, selector=selector)
    for numbers in made:
        assert numbers == list(range(CALLS))
    assert capfd.readouterr() == ("", "")


@pytest.mark.hazard("H65")
def test_calls_from_eight_threads_wake_an_idle_loop_again_and_again(selector, eager):
    """Each thread waits until its call was made: one lost wake-up and nothing moves any more."""
    calls = 300
    made = []
    scheduler = Scheduler(selector=selector)

    def leave(number):
        for n in range(calls):
            done = threading.Event()
            scheduler.call_soon_threadsafe(lambda n=n, done=done: (made.append(n), done.set()))
            assert done.wait(LONG), "a wake-up was lost"

    try:
        threads, raised = in_threads(THREADS, leave)
        while len(made) < THREADS * calls and not raised:
            scheduler.turn(40)  # idle most of the time: the threads wait for it
        for thread in threads:
            thread.join()
    finally:
        scheduler.close()
    assert raised == []


@pytest.mark.hazard("H65")
def test_an_idle_loop_wakes_for_a_call_of_another_thread(selector):
    def main():
        scheduler = current_scheduler()

        call = scheduler.call_soon_threadsafe
        thread = when_it_sleeps(scheduler, call, scheduler.main.cancel, "from afar")
        with pytest.raises(Cancelled, match=r"^from afar$"):
            yield Sleep(1000)
        thread.join()
        return "woken"

    assert run(main, selector=selector) == "woken"


@pytest.mark.hazard("H65")
def test_a_storm_of_calls_costs_an_idle_loop_few_turns():
    def main():
        scheduler = current_scheduler()
        before = scheduler.stats()["turns"]
        made = []
        for n in range(10_000):
            scheduler.call_soon_threadsafe(made.append, n)
        yield
        assert made == list(range(10_000))
        yield Sleep(0.01)
        assert scheduler.stats()["turns"] - before <= 5

    run(main)


@pytest.mark.hazard("H65")
def test_calls_left_by_a_call_are_made_in_the_next_turn():
    made = []

    def again(n):
        made.append(n)
        if n < 3:
            scheduler.call_soon_threadsafe(again, n + 1)

    scheduler = Scheduler()
    try:
        scheduler.call_soon_threadsafe(again, 0)
        for count in range(1, 5):
            scheduler.turn(0)
            assert made == list(range(count))
    finally:
        scheduler.close()


def test_calls_left_before_the_end_are_made_or_refused_and_never_lost():
    """Threads that go on over the end of the run: what was accepted was made."""
    made = []
    accepted = []
    began = threading.Event()

    def leave(scheduler, number):
        for n in range(1_000_000):
            try:
                scheduler.call_soon_threadsafe(made.append, (number, n))
            except RunFinished:
                return
            accepted.append((number, n))
            if n == 100:
                began.set()
        raise AssertionError("never refused")

    def main():
        scheduler = current_scheduler()
        threads, raised = in_threads(4, lambda number: leave(scheduler, number))
        while not began.is_set():
            yield
        return threads, raised

    threads, raised = run(main)
    for thread in threads:
        thread.join()
    assert raised == []
    assert set(accepted) <= set(made)
    assert len(made) == len(set(made))
