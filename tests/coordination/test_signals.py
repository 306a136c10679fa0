"""Signals as a stream of values: `open_signal_receiver`."""

import math
import signal
import threading
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2

import pytest

from corolib import (
    Event,
    Scheduler,
    Sleep,
    current_scheduler,
    first,
    open_signal_receiver,
    run,
    spawn,
    timeout,
)
from corolib.testing import virtual_time
from tests.helpers.driving import in_a_thread, strike
from tests.helpers.inside import receivers_of, when_it_sleeps
from tests.helpers.programs import python

USED = (SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2)


@pytest.fixture(autouse=True)
def handlers_are_put_back():
    before = signal.signal(SIGINT, signal.default_int_handler)
    handlers = [signal.getsignal(signum) for signum in USED]
    yield
    assert [signal.getsignal(signum) for signum in USED] == handlers
    fd = signal.set_wakeup_fd(-1)
    assert fd == -1
    signal.signal(SIGINT, before)


@pytest.fixture
def counted():
    """Handlers from before, for USR1 and USR2, that note what they get."""
    seen = []
    before = {n: signal.signal(n, lambda n, frame: seen.append(n)) for n in (SIGUSR1, SIGUSR2)}
    yield seen
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_signals_come_as_values_in_their_order():
    def main():
        with open_signal_receiver(SIGHUP, SIGTERM) as received:
            for signum in (SIGTERM, SIGHUP, SIGHUP):
                strike(signum)
            found = []
            for _ in range(3):
                found.append((yield from received))
            return found

    found = run(main)
    assert found == [SIGTERM, SIGHUP, SIGHUP]
    assert [signum.name for signum in found] == ["SIGTERM", "SIGHUP", "SIGHUP"]


def test_a_waiting_task_is_woken_from_the_selectors_wait(selector):
    def main():
        with open_signal_receiver(SIGHUP) as received:
            when_it_sleeps(current_scheduler(), strike, SIGHUP)
            return (yield from received)

    assert run(main, selector=selector) == SIGHUP


def test_a_signal_that_another_thread_was_interrupted_by_wakes_the_selector_too():
    """Also where `run` itself did not touch SIGINT, and so has not set the wake-up file."""

    def own(signum, frame):
        pass

    def hit():  # the thread has the signal: the main thread's wait is not interrupted
        signal.pthread_kill(threading.get_ident(), SIGUSR1)
        done.wait(60)

    def main():
        with open_signal_receiver(SIGUSR1) as received:
            assert signal.set_wakeup_fd(current_scheduler().wakeup_fd()) != -1
            thread = threading.Timer(0.01, hit)
            thread.start()
            found = yield from received
            done.set()
            thread.join()
        assert signal.set_wakeup_fd(-1) == -1
        return found

    done = threading.Event()
    signal.signal(SIGINT, own)
    try:
        assert run(main) == SIGUSR1
    finally:
        signal.signal(SIGINT, signal.default_int_handler)


def test_async_for_goes_through_the_signals():
    async def main():
        found = []
        with open_signal_receiver(SIGHUP, SIGTERM) as received:
            strike(SIGHUP)
            strike(SIGTERM)
            async for signum in received:
                found.append(signum)
                if signum == SIGTERM:
                    break
        return found

    assert run(main) == [SIGHUP, SIGTERM]


def test_a_coroutine_awaits_one():
    async def main():
        with open_signal_receiver(SIGHUP) as received:
            strike(SIGHUP)
            return await received

    assert run(main) == SIGHUP


@pytest.mark.hazard("H64")
def test_more_signals_than_the_wake_up_pipe_holds_are_all_received(capfd):
    def receive(received, count):
        found = []
        for _ in range(count):
            found.append((yield from received))
        return found

    def main():
        with open_signal_receiver(SIGUSR1) as many, open_signal_receiver(SIGUSR2) as one:
            tasks = spawn(receive, many, 2000), spawn(receive, one, 1)
            yield
            for _ in range(2000):  # in one step: the pipe is not read meanwhile
                strike(SIGUSR1)
            strike(SIGUSR2)
            return (yield from tasks[0]), (yield from tasks[1])

    assert run(main) == ([SIGUSR1] * 2000, [SIGUSR2])
    assert capfd.readouterr().err == ""


def test_a_storm_of_signals_makes_one_call_into_the_scheduler(monkeypatch):
    calls, call_soon = [], Scheduler.call_soon_threadsafe

    def noting(*args):
        calls.append(args)
        call_soon(*args)

    def main():
        monkeypatch.setattr(Scheduler, "call_soon_threadsafe", noting)
        with open_signal_receiver(SIGUSR1) as received:
            for _ in range(100):
                strike(SIGUSR1)
            for _ in range(100):
                yield from received
        return len(calls)

    assert run(main) == 1


def test_several_waiters_are_served_first_come_first_served():
    log = []

    def receive(received, name):
        log.append((name, (yield from received)))

    def main():
        with open_signal_receiver(SIGHUP, SIGTERM) as received:
            tasks = [spawn(receive, received, name) for name in "abc"]
            yield
            assert repr(tasks[0].wait) == "receive SIGHUP, SIGTERM"
            yield from tasks[1].stop()
            strike(SIGTERM)
            strike(SIGHUP)
            yield from tasks[0]
            yield from tasks[2]

    run(main)
    assert log == [("a", SIGTERM), ("c", SIGHUP)]


def test_a_wait_for_a_signal_is_no_deadlock_and_can_be_timed_out():
    def main():
        with open_signal_receiver(SIGHUP) as received:
            with pytest.raises(TimeoutError, match="while waiting for receive SIGHUP"):
                with timeout(5):
                    yield from received
            threading.Timer(0.005, strike, [SIGHUP]).start()
            return (yield from received)  # nothing else to wait for

    assert run(main, **virtual_time()) == SIGHUP


def test_a_signal_can_be_one_of_several_waits_and_is_not_lost_when_another_wins():
    def main():
        event = Event()
        with open_signal_receiver(SIGHUP) as received:
            event.set()
            won = yield from first(event.waiting(), received.receiving())
            strike(SIGHUP)
            return won[0], (yield from first(Sleep(math.inf), received.receiving()))

    assert run(main) == (0, (1, SIGHUP))


def test_ctrl_c_goes_to_a_receiver_and_afterwards_to_the_run_again():
    def main():
        with open_signal_receiver(SIGINT) as received:
            strike(SIGINT)
            assert (yield from received) == SIGINT
        strike(SIGINT)
        with pytest.raises(KeyboardInterrupt):
            yield Sleep(60)
        return "done"

    assert run(main) == "done"


# The block ----------------------------------------------------------------------------------------


def test_the_handlers_are_put_back_when_the_block_ends(counted):
    def main():
        before = signal.getsignal(SIGUSR1)
        fd = signal.set_wakeup_fd(current_scheduler().wakeup_fd())
        with pytest.raises(KeyError):
            with open_signal_receiver(SIGUSR1, SIGUSR2):
                assert signal.getsignal(SIGUSR1) is not before
                raise KeyError
        assert signal.getsignal(SIGUSR1) is before
        assert signal.set_wakeup_fd(fd) == fd
        yield
        strike(SIGUSR1)

    run(main)
    assert counted == [SIGUSR1]


def test_what_nobody_received_is_sent_to_the_handlers_from_before(counted):
    def main():
        with open_signal_receiver(SIGUSR1, SIGUSR2) as received:
            for signum in (SIGUSR1, SIGUSR2, SIGUSR1, SIGUSR1, SIGUSR2):
                strike(signum)
            yield from received
            assert counted == []

    run(main)
    assert counted == [SIGUSR2, SIGUSR1]


def test_all_is_given_back_also_if_a_handler_raises(counted):
    def raising(signum, frame):
        raise KeyError("the handler's")

    def main():
        with pytest.raises(KeyError, match="the handler's"):
            with open_signal_receiver(SIGUSR1, SIGUSR2):
                strike(SIGUSR1)
                strike(SIGUSR2)
        yield

    signal.signal(SIGUSR1, raising)
    run(main)
    assert counted == [SIGUSR2]


def test_waits_outside_of_the_block_are_refused():
    def receive(received):
        yield from received

    def main():
        received = open_signal_receiver(SIGHUP)
        with pytest.raises(RuntimeError, match="is not open: receive inside"):
            yield from received
        with received:
            task = spawn(receive, received)
            yield
        with pytest.raises(RuntimeError, match=r"<SignalReceiver of SIGHUP> is not open"):
            yield from task
        with pytest.raises(RuntimeError, match="used before"), received:
            pass

    run(main)


def test_a_signal_has_one_receiver():
    def main():
        with open_signal_receiver(SIGHUP):
            with pytest.raises(RuntimeError, match=r"SIGHUP is received by .* already"):
                with open_signal_receiver(SIGTERM, SIGHUP):
                    pass
            assert signal.getsignal(SIGTERM) is signal.SIG_DFL
            with open_signal_receiver(SIGTERM, SIGTERM) as received:  # another one may be open
                strike(SIGTERM)
                yield from received
        with open_signal_receiver(SIGHUP) as received:
            strike(SIGHUP)
            return (yield from received)

    assert run(main) == SIGHUP


def test_blocks_of_different_signals_may_end_in_any_order():
    def main():
        one, two = open_signal_receiver(SIGUSR1), open_signal_receiver(SIGUSR2)
        one.__enter__()
        two.__enter__()
        one.__exit__()
        strike(SIGUSR2)
        assert (yield from two) == SIGUSR2
        two.__exit__()
        assert not receivers_of(current_scheduler())

    run(main)


def test_a_block_that_was_never_left_ends_with_the_run(counted):
    kept = []

    def main():
        kept.append(open_signal_receiver(SIGUSR1))
        kept[0].__enter__()
        yield

    run(main)
    strike(SIGUSR1)
    assert counted == [SIGUSR1]


def test_real_time_signals_are_plain_numbers():
    number = signal.SIGRTMIN + 3

    def main():
        with open_signal_receiver(number) as received:
            strike(number)
            return (yield from received), repr(received)

    assert run(main) == (number, f"<SignalReceiver of signal {int(number)}>")


@pytest.mark.parametrize(
    ("signums", "error", "says"),
    [
        ((), TypeError, "at least one signal"),
        (("SIGHUP",), TypeError, "no signal's number"),
        ((True,), TypeError, "no signal's number"),
        ((4711,), ValueError, "there is no such signal"),
    ],
)
def test_what_is_no_signal_is_refused_at_the_call(signums, error, says):
    def main():
        with pytest.raises(error, match=says):
            open_signal_receiver(*signums)
        yield

    run(main)


def test_a_signal_that_cannot_be_handled_is_refused_and_nothing_stays():
    def main():
        with pytest.raises(OSError):
            with open_signal_receiver(SIGHUP, signal.SIGKILL):
                pass
        assert signal.getsignal(SIGHUP) is signal.SIG_DFL
        yield

    run(main)


def test_it_is_refused_outside_of_the_main_thread_and_of_a_run():
    def main():
        with pytest.raises(RuntimeError, match="only in the main thread"):
            open_signal_receiver(SIGHUP)
        yield
        return "refused"

    told = []
    in_a_thread(lambda: told.append(run(main)))
    assert told == ["refused"]
    with pytest.raises(RuntimeError, match="no scheduler runs"):
        open_signal_receiver(SIGHUP)


# Forked children ----------------------------------------------------------------------------------

# They run in programs of their own: from Python 3.15 on, a process with threads may not fork when
# warnings are errors, and pytest has one.


@pytest.mark.found("T1")
def test_in_a_forked_child_the_handlers_are_those_from_before_and_no_signal_is_written():
    """It is forked in the block, and in a thread; its signals are nothing to the parent."""
    status, out, err = python(
        """
        import os, signal, threading
        from corolib import open_signal_receiver, run, to_thread

        def own(signum, frame):
            seen.append(signum)

        def fork():
            child = os.fork()
            if child == 0:
                assert signal.getsignal(signal.SIGUSR1) is own
                assert signal.getsignal(signal.SIGINT) is own
                assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
                assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
                assert signal.set_wakeup_fd(-1) == -1
                os.kill(os.getpid(), signal.SIGUSR1)
                assert seen == [signal.SIGUSR1]
                os.kill(os.getpid(), signal.SIGHUP)
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status)

        def main():
            signals = signal.SIGHUP, signal.SIGUSR1
            with open_signal_receiver(*signals) as received, open_signal_receiver(signal.SIGINT):
                found = [fork(), (yield from to_thread(fork))]
                assert seen == []
                assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL
                assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
                os.kill(os.getpid(), signal.SIGHUP)
                return found, (yield from received).name

        seen = []
        signal.signal(signal.SIGUSR1, own)
        signal.signal(signal.SIGINT, own)
        print(run(main))
        """,
        *("-W", "ignore"),
    )
    assert (status, out, err) == (0, "([-1, -1], 'SIGHUP')\n", "")


@pytest.mark.found("T1")
def test_a_pool_of_forked_processes_ends_while_a_signal_receiver_is_open():
    status, out, err = python(
        """
        import multiprocessing, signal, time
        from corolib import open_signal_receiver, run, to_thread

        def block(conn):
            conn.send("begun")
            time.sleep(1000)

        def work():
            fork = multiprocessing.get_context("fork")
            ours, theirs = fork.Pipe()
            with fork.Pool(2) as pool:
                for _ in range(2):
                    pool.apply_async(block, [theirs])
                return [ours.recv() for _ in range(2)]

        def main():
            with open_signal_receiver(signal.SIGTERM):
                return (yield from to_thread(work))

        print(run(main))
        """,
        *("-W", "ignore"),
    )
    assert (status, out, err) == (0, "['begun', 'begun']\n", "")


@pytest.mark.found("T1")
def test_a_signal_that_is_sent_to_a_child_at_once_is_not_taken_for_the_parents():
    """In the child it comes before anything that the library can do there."""
    status, out, err = python(
        """
        import os, signal
        os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
        from corolib import open_signal_receiver, run

        def main():
            with open_signal_receiver(signal.SIGTERM):
                child = os.fork()
                if child == 0:
                    os._exit(7)
                yield
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        print(run(main))
        """
    )
    assert (status, out, err) == (0, "-15\n", "")


@pytest.mark.found("T1")
def test_a_child_that_leaves_the_block_receives_nothing_of_what_the_parent_has_noted():
    status, out, err = python(
        """
        import os, signal, sys
        from corolib import open_signal_receiver, run, spawn

        def receive(received):
            yield from received

        def main():
            with open_signal_receiver(signal.SIGTERM) as noted, open_signal_receiver(1) as other:
                task = spawn(receive, other)
                yield
                signal.raise_signal(signal.SIGTERM)
                child = os.fork()
                if child == 0:
                    sys.exit(7)  # through both blocks
                task.cancel()
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (yield from noted).name

        print(run(main))
        """,
        *("-W", "ignore"),
    )
    assert (status, out, err) == (0, "(7, 'SIGTERM')\n", "")
