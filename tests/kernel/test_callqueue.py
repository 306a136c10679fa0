"""The inbox and the wakes: what other threads leave for the scheduler, in order and without loss.

Threads are joined before a test ends. Where a test lets real time pass it bounds turns and
selector calls, not seconds.
"""

import contextlib
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from dis import opname

import pytest

import corolib
from corolib import (
    Cancelled,
    ClosedError,
    Queue,
    ReadWait,
    RunFinished,
    Scheduler,
    Sleep,
    Suspend,
    TaskCancelled,
    close,
    current_scheduler,
    first,
    move_on_after,
    now,
    run,
    spawn,
)
from corolib.inbox import Inbox
from corolib.testing import virtual_time
from corolib.wakes import OneWake
from tests.helpers.driving import FULL, go, in_a_thread, in_threads
from tests.helpers.inside import is_polling, reader_of, replace_reader, suspended, writer_of

THREADS = 8
CALLS = 50_000 if FULL else 5_000


@pytest.fixture
def inbox():
    box = Inbox()
    box.open()
    yield box
    if not box.closed:
        box.close()


@pytest.fixture
def eager():
    """Threads that change often: more interleavings, and nobody waits long for the interpreter."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def announced(inbox):
    return bool(select.select([inbox.fileno()], [], [], 0)[0])


class Once:
    """The reader of an inbox that lets another thread in after its first `recv`."""

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


# The inbox by itself --------------------------------------------------------------------------


def test_a_call_is_kept_and_announced_and_the_announcement_can_be_taken_off(inbox):
    assert not announced(inbox)
    inbox.put(print, ("x",))
    assert announced(inbox)
    inbox.drain()
    assert not announced(inbox)
    assert list(inbox.calls) == [(print, ("x",))]


@pytest.mark.hazard("H65")
def test_many_calls_are_announced_by_one_byte(inbox):
    for _ in range(10_000):
        inbox.put(print, ())
    assert len(reader_of(inbox).recv(100)) == 1
    assert len(inbox.calls) == 10_000


@pytest.mark.hazard("H65")
def test_a_full_pipe_is_success(inbox):
    with pytest.raises(BlockingIOError):
        while True:
            writer_of(inbox).send(b"x" * 4096)
    inbox.put(print, ())
    assert announced(inbox)
    assert len(inbox.calls) == 1
    inbox.drain()
    assert not announced(inbox)
    inbox.put(print, ())
    assert announced(inbox)


@pytest.mark.hazard("H65")
def test_a_call_left_while_announcements_are_taken_off_does_not_silence_the_next(inbox):
    inbox.put(print, (1,))
    replace_reader(inbox, Once(reader_of(inbox), lambda: inbox.put(print, (2,))))
    inbox.drain()
    assert len(inbox.calls) == 2
    inbox.calls.clear()
    inbox.put(print, (3,))
    assert announced(inbox)


def test_the_writer_can_serve_as_the_wake_up_number_of_signals(inbox):
    assert inbox.wakeup_fd() == writer_of(inbox).fileno()
    assert inbox.wakeup_fd() != inbox.fileno()
    assert not writer_of(inbox).getblocking()
    assert not reader_of(inbox).getblocking()


@pytest.mark.hazard("H66")
def test_a_closed_inbox_takes_nothing_more_and_keeps_what_it_had(inbox):
    inbox.put(print, (1,))
    inbox.close()
    with pytest.raises(RunFinished):
        inbox.put(print, (2,))
    assert list(inbox.calls) == [(print, (1,))]


@pytest.mark.hazard("H66")
def test_a_call_that_the_closer_took_meanwhile_is_late_all_the_same(inbox):
    """Between the append and the look at `closed` the closer has emptied the queue."""

    class Emptied(deque):
        def append(self, call):
            pass

    inbox.close()
    inbox.calls = Emptied()
    with pytest.raises(RunFinished):
        inbox.put(print, ())


@pytest.mark.hazard("H65")
def test_a_writer_that_is_being_closed_is_no_error(inbox):
    writer_of(inbox).close()
    inbox.put(print, ())
    assert len(inbox.calls) == 1


def test_taking_announcements_off_while_the_writer_is_closed_ends(inbox):
    inbox.put(print, ())
    writer_of(inbox).close()
    inbox.drain()
    inbox.drain()
    assert len(inbox.calls) == 1


# Calls from threads ---------------------------------------------------------------------------


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


@pytest.mark.hazard("H66")
def test_only_who_closes_takes_calls_out():
    """It counts them first; one that is taken out by its own thread meanwhile would be missing."""

    class Closing(deque):
        def append(self, call):
            super().append(call)
            inbox.close()

    inbox = Inbox()
    inbox.calls = Closing()
    with pytest.raises(RunFinished):
        inbox.put(int, ())
    assert len(inbox.calls) == 1
    with pytest.raises(RunFinished):  # from now on nothing is left, which nobody would look at
        inbox.put(int, ())
    assert len(inbox.calls) == 1


def test_an_exception_while_the_announcements_are_taken_off_makes_nobody_deaf(inbox):
    """A signal handler of the program's may raise anywhere in the scheduler's wait."""

    class Struck:
        def recv(self, most):
            reader.recv(most)
            raise KeyError("the handler's")

    inbox.put(int, ())
    reader = reader_of(inbox)
    replace_reader(inbox, Struck())
    with pytest.raises(KeyError):
        inbox.drain()
    replace_reader(inbox, reader)
    assert not announced(inbox)
    inbox.put(int, ())
    assert announced(inbox)


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


# Wakes ----------------------------------------------------------------------------------------


class Source:
    """Something to suspend for: keeps the wakes it was given and counts the undos."""

    def __init__(self):
        self.wakes = []
        self.undone = 0

    def arm(self, wake):
        self.wakes.append(wake)
        return self.undo

    def undo(self):
        self.undone += 1

    def wait(self):
        return Suspend(self.arm, "a source", outside=True)


@pytest.mark.hazard("H66")
@pytest.mark.parametrize("do", [lambda call: call(), in_a_thread], ids=["here", "in a thread"])
def test_a_wake_for_a_cancelled_wait_is_late_and_the_next_wait_gets_its_own_result(do):
    source = Source()

    def wait():
        try:
            yield source.wait()
        except Cancelled:
            pass
        return (yield source.wait())

    def main():
        task = spawn(wait)
        yield
        yield
        task.cancel()
        assert source.undone == 1
        yield
        yield
        assert len(source.wakes) == 2
        do(lambda: source.wakes[0]("old"))
        yield
        yield
        assert task.state == "waiting"
        do(lambda: [wake("new") for wake in source.wakes])
        assert (yield from task) == "new"
        assert source.undone == 1

    run(main)


@pytest.mark.parametrize("do", [lambda call: call(), in_a_thread], ids=["here", "in a thread"])
def test_a_wake_hands_over_a_value_or_an_error(do, selector):
    source = Source()

    def wait():
        return (yield source.wait())

    def main():
        one, two = spawn(wait), spawn(wait)
        yield
        yield
        do(lambda: source.wakes[0]("value"))
        do(lambda: source.wakes[1](error=ZeroDivisionError("carried")))
        assert (yield from one) == "value"
        with pytest.raises(ZeroDivisionError, match="carried"):
            yield from two
        with pytest.raises(KeyError, match="at once"):
            yield Suspend(lambda wake: do(lambda: wake(error=KeyError("at once"))) or list, "x")

    run(main, selector=selector)


def test_only_the_first_wake_counts():
    source = Source()

    def arm(wake):
        wake("first")
        wake("second")
        wake(error=ZeroDivisionError("third"))
        return lambda: pytest.fail("an undo after a wake")

    def wait(trap):
        first = yield trap
        yield Sleep(0)
        return first

    def main():
        task = spawn(wait, source.wait())
        yield
        yield
        source.wakes[0]("first")
        source.wakes[0]("second")
        source.wakes[0](error=ZeroDivisionError("third"))
        assert (yield from task) == "first"
        assert source.undone == 0
        return (yield from wait(Suspend(arm, "x")))

    assert go(main) == "first"


@pytest.mark.hazard("H66")
def test_of_many_threads_that_wake_one_task_one_is_heard():
    source = Source()
    rounds = 200

    def wait():
        return (yield source.wait())

    def main():
        for _ in range(rounds):
            source.wakes.clear()
            task = spawn(wait)
            yield
            yield
            barrier = threading.Barrier(4)

            def wake(number, barrier=barrier):
                barrier.wait()
                source.wakes[0](number)

            threads, raised = in_threads(4, wake)
            assert (yield from task) in range(4)
            for thread in threads:
                thread.join()
            assert raised == []
            yield

    run(main)


class FakeKernel:
    """A kernel, and the table of suspended tasks in it."""

    def __init__(self, asleep):
        self.kernel = self
        self.asleep = asleep
        self.thread = threading.get_ident()
        self.log = []

    def check_open(self):
        self.log.append("asked")

    def woken(self, task, value, error):
        self.log.append(("woken", task, value, error))

    def call_soon_threadsafe(self, f, *args):
        self.log.append(("later", f, *args))


def test_a_wake_that_may_not_act_at_once_leaves_a_call():
    kernel = FakeKernel(asleep=True)
    wake = OneWake(kernel, "task")
    wake("value")
    wake("again")
    assert kernel.log == ["asked", ("later", kernel.woken, "task", "value", None), "asked"]
    assert wake.claim() is None


def test_a_claimed_wake_does_nothing():
    kernel = FakeKernel(asleep=False)
    wake = OneWake(kernel, "task")
    assert wake.claim() == "task"
    wake("value")
    assert kernel.log == []


@pytest.mark.hazard("H44")
@pytest.mark.parametrize("trap", [Sleep(1), ReadWait], ids=["value", "error"])
def test_a_stand_in_whose_wake_raises_ends_nothing_else(trap, pair):
    a, _ = pair
    lost, called = [], []

    def wake(value=None, error=None):
        called.append((value, type(error)))
        raise ZeroDivisionError("in a wake")

    def main():
        wait = ReadWait(a) if trap is ReadWait else trap
        current_scheduler().arm(wait, wake)
        yield Sleep(0.5)
        close(a)  # who waits for it is woken with an error
        yield Sleep(1)
        return "went on"

    hook = lambda task, exc: lost.append((task.name, str(exc)))  # noqa: E731
    assert run(main, on_task_error=hook, **virtual_time()) == "went on"
    assert called == [(None, ClosedError if trap is ReadWait else type(None))]
    assert lost == [("main", "in a wake")]


def test_a_second_ctrl_c_in_the_wake_of_a_stand_in_leaves_the_run():
    log = []

    def wake(value=None, error=None):
        signal.raise_signal(signal.SIGINT)
        log.append("one is heard later")
        signal.raise_signal(signal.SIGINT)
        log.append("never")

    def main():
        current_scheduler().arm(Sleep(1), wake)
        try:
            yield Sleep(60)
        finally:
            log.append("closed")

    with pytest.raises(KeyboardInterrupt):
        run(main, **virtual_time())
    assert log == ["one is heard later", "closed"]


# A wake in a signal handler -----------------------------------------------------------------------


def struck(n, scenario):
    """Run `scenario(wakes)`, a generator function, and at its `n`th moment, as a signal handler
    would, call each wake that is in `wakes` then. Return whether there are as many moments.

    Moments are where Python itself calls its handlers: behind calls, at the beginning of functions,
    and at the end of each round of a loop; here those in the library.
    """
    wakes, left, last = [], n, {}

    def trace(frame, event, arg):
        nonlocal left
        if not frame.f_code.co_filename.startswith(corolib.__path__[0]):
            return None
        frame.f_trace_opcodes = True
        done = last.get(frame)
        last[frame] = frame.f_lasti
        if event != "opcode" or done is None:
            return trace
        left -= opname[frame.f_code.co_code[done]].startswith(("RESUME", "CALL", "JUMP_BACKWARD"))
        if left < 0:
            sys.settrace(None)
            while wakes:
                wakes.pop()("struck")
        return trace

    def main():
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            yield from scenario(wakes)
        finally:
            sys.settrace(before)

    # A thread has a trace of its own, so that whoever measures this one loses nothing.
    thread = threading.Thread(target=run, args=(main,), kwargs=virtual_time())
    thread.start()
    thread.join()
    return left < 0


def until_struck(wakes):
    """The trap of a wait that adds its wake to `wakes`."""

    def arm(wake):
        wakes.append(wake)
        return lambda: wake in wakes and wakes.remove(wake)

    return Suspend(arm, "the signal", outside=True)


def cancelled_meanwhile(wakes):
    steps = []

    def child():
        try:
            steps.append((yield until_struck(wakes)))
            yield Sleep(9)
        except Cancelled:
            steps.append("cancelled")
            raise

    task = spawn(child)
    yield
    yield
    task.cancel()
    with pytest.raises(TaskCancelled):
        yield from task
    assert steps in (["cancelled"], ["struck", "cancelled"])


def timed_out_meanwhile(wakes):
    got = None
    with move_on_after(1) as scope:
        got = yield until_struck(wakes)
    assert (scope.expired, got) in ((True, None), (False, "struck"))
    begun = now()
    yield Sleep(1)
    assert now() == begun + 1


def one_of_several(wakes):
    queue = Queue(1)
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        index, value = yield from first(until_struck(wakes), queue.getting(), ReadWait(a), Sleep(1))
        assert (index, value) in ((0, "struck"), (3, None))
        assert queue.waiters == 0
        assert (yield from first(ReadWait(a), Sleep(1))) == (1, None)  # nobody else waits for it


def joined_meanwhile(wakes):
    """What is joined ends at any moment of a join: made, taken back, made again."""
    got = []

    def child():
        return (yield until_struck(wakes))

    def joiner(task):
        got.append((yield from task))

    task = spawn(child)
    cancelled, last = spawn(joiner, task), spawn(joiner, task)
    with move_on_after(1) as scope:
        got.append((yield from task))
    cancelled.cancel()
    if wakes:
        wakes.pop()("struck")
    assert (yield from task) == "struck"  # again, or for the first time
    yield from last
    yield
    assert got == ["struck"] * (3 - scope.expired - cancelled.cancelled)
    assert task.joiners is None
    assert not suspended(current_scheduler())


def joiner_cancelled_meanwhile(wakes):
    """A task that joins another is cancelled at any moment, also while it is being told."""

    def child():
        for _ in range(3):
            yield

    def joiner(task):
        try:
            yield from task
        except Cancelled:
            pass  # nothing that comes later is cut short without an error
        began = now()
        yield
        yield Sleep(1)
        assert now() >= began + 1

    task = spawn(joiner, spawn(child))
    wakes.append(task.cancel)
    with contextlib.suppress(TaskCancelled):
        yield from task


@pytest.mark.parametrize(
    "scenario",
    [
        cancelled_meanwhile,
        timed_out_meanwhile,
        one_of_several,
        joined_meanwhile,
        joiner_cancelled_meanwhile,
    ],
)
def test_a_wake_in_a_signal_handler_may_come_at_any_moment(scenario):
    assert not struck(10**6, scenario)  # and from now on Python 3.12 tells of all moments
    n = 0
    while struck(n, scenario):
        n += 1
    assert n > 100
