"""The calls that other threads leave for the scheduler: in order, announced, and without loss.

Threads are joined before a test ends. Where a test lets real time pass it bounds turns and
selector calls, not seconds.
"""

import select
import sys
import threading
import time
from collections import deque

import pytest

from corolib import Cancelled, RunFinished, Scheduler, Sleep, current_scheduler, run
from corolib.kernel.callqueue import CallQueue
from tests.helpers.driving import FULL, in_threads
from tests.helpers.inside import is_polling, reader_of, replace_reader, writer_of

# By itself ----------------------------------------------------------------------------------------


@pytest.fixture
def queue():
    box = CallQueue()
    box.open()
    yield box
    if not box.closed:
        box.close()


def announced(queue):
    return bool(select.select([queue.fileno()], [], [], 0)[0])


def test_a_call_is_kept_and_announced_and_the_announcement_can_be_taken_off(queue):
    assert not announced(queue)
    queue.put(print, ("x",))
    assert announced(queue)
    queue.drain()
    assert not announced(queue)
    assert list(queue.calls) == [(print, ("x",))]


@pytest.mark.hazard("H65")
def test_many_calls_are_announced_by_one_byte(queue):
    for _ in range(10_000):
        queue.put(print, ())
    assert len(reader_of(queue).recv(100)) == 1
    assert len(queue.calls) == 10_000


@pytest.mark.hazard("H65")
def test_a_full_pipe_is_success(queue):
    with pytest.raises(BlockingIOError):
        while True:
            writer_of(queue).send(b"x" * 4096)
    queue.put(print, ())
    assert announced(queue)
    assert len(queue.calls) == 1
    queue.drain()
    assert not announced(queue)
    queue.put(print, ())
    assert announced(queue)


class Once:
    """The reader of a call queue that lets another thread in after its first `recv`."""

    def __init__(self, reader, meanwhile):
        self.reader = reader
        self.meanwhile = meanwhile

    def recv(self, count):
        data = self.reader.recv(count)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return data

    def fileno(self):
        return self.reader.fileno()

    def close(self):
        self.reader.close()


@pytest.mark.hazard("H65")
def test_a_call_left_while_announcements_are_taken_off_does_not_silence_the_next(queue):
    queue.put(print, (1,))
    replace_reader(queue, Once(reader_of(queue), lambda: queue.put(print, (2,))))
    queue.drain()
    assert len(queue.calls) == 2
    queue.calls.clear()
    queue.put(print, (3,))
    assert announced(queue)


def test_the_writer_can_serve_as_the_wake_up_number_of_signals(queue):
    assert queue.wakeup_fd() == writer_of(queue).fileno()
    assert queue.wakeup_fd() != queue.fileno()
    assert not writer_of(queue).getblocking()
    assert not reader_of(queue).getblocking()


@pytest.mark.hazard("H66")
def test_a_closed_queue_takes_nothing_more_and_keeps_what_it_had(queue):
    queue.put(print, (1,))
    queue.close()
    with pytest.raises(RunFinished):
        queue.put(print, (2,))
    assert list(queue.calls) == [(print, (1,))]


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
def test_a_writer_that_is_being_closed_is_no_error(queue):
    writer_of(queue).close()
    queue.put(print, ())
    assert len(queue.calls) == 1


def test_taking_announcements_off_while_the_writer_is_closed_ends(queue):
    queue.put(print, ())
    writer_of(queue).close()
    queue.drain()
    queue.drain()
    assert len(queue.calls) == 1


def test_an_exception_while_the_announcements_are_taken_off_silences_nobody(queue):
    """A signal handler of the program's may raise anywhere in the scheduler's wait."""

    class Struck:
        def recv(self, most):
            reader.recv(most)
            raise KeyError("the handler's")

    queue.put(int, ())
    reader = reader_of(queue)
    replace_reader(queue, Struck())
    with pytest.raises(KeyError):
        queue.drain()
    replace_reader(queue, reader)
    assert not announced(queue)
    queue.put(int, ())
    assert announced(queue)


# Calls from threads -------------------------------------------------------------------------------


THREADS = 8


CALLS = 50_000 if FULL else 5_000


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
            assert done.wait(20), "a wake-up was lost"

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

        def leave(number):
            while not is_polling(scheduler):
                time.sleep(0.001)
            scheduler.call_soon_threadsafe(main_task.cancel, "from afar")

        threads, raised = in_threads(1, leave)
        main_task = scheduler.main
        with pytest.raises(Cancelled, match=r"^from afar$"):
            yield Sleep(1000)
        threads[0].join()
        assert raised == []
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
