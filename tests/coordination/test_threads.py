"""Threads: `to_thread`, `from_thread`, and `wait_future`."""

import asyncio
import concurrent.futures
import contextvars
import math
import os
import signal
import sys
import threading

import pytest

import corolib
from corolib import (
    Queue,
    QueueShutDown,
    RunFinished,
    Scheduler,
    Sleep,
    TaskCancelled,
    current_scheduler,
    current_task,
    first,
    from_thread,
    gather,
    move_on_after,
    run,
    spawn,
    to_thread,
    wait_future,
)
from corolib.coordination.threads import ThreadEnd, current_threads, future_done, lookup
from corolib.testing import VirtualClock, survivors, virtual_time
from tests.helpers.driving import LONG, Gate, our_threads, strike, turns, until
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import requests_of
from tests.helpers.programs import python

pytestmark = pytest.mark.usefixtures("no_thread_remains")

# To a thread --------------------------------------------------------------------------------------


def test_a_function_runs_in_a_daemon_thread_and_its_value_comes_back():
    def work(a, b):
        thread = threading.current_thread()
        return a + b, thread.daemon, thread.name

    def main():
        return (yield from to_thread(work, 1, 2))

    assert run(main) == (3, True, "corolib-thread-1")


def test_other_tasks_go_on_while_a_thread_works():
    gate = Gate("done")

    def other():
        yield from until(gate.begun.is_set)
        gate.go.set()

    def main():
        spawn(other)
        return (yield from to_thread(gate))

    assert run(main) == "done"


def test_an_async_def_awaits_a_thread():
    async def main():
        return await to_thread(pow, 2, 5)

    assert run(main) == 32


def test_what_the_function_raises_comes_back_with_its_traceback_and_without_a_cycle():
    def work():
        raise KeyError("x")

    def main():
        try:
            yield from to_thread(work)
        except KeyError as exc:
            names, trace = [], exc.__traceback__
            while trace is not None:
                names.append(trace.tb_frame.f_code.co_name)
                trace = trace.tb_next
            return names[-1], "run" in names

    assert run(main) == ("work", False)


def fail(*_):
    raise KeyError("x")


def failing_call():
    with pytest.raises(KeyError):
        yield from to_thread(fail)


def failing_call_that_nobody_waits_for():
    gate = Gate()
    task = spawn(to_thread(lambda: fail(gate())))
    yield from until(gate.begun.is_set)
    yield from task.stop()
    gate.go.set()
    yield from until(lambda: current_threads().stats()["running"] == 0)


def failing_task_of_a_thread():
    def task():
        yield
        fail()

    with pytest.raises(KeyError):
        yield from to_thread(from_thread, current_scheduler(), task)


def failing_future():
    def settle(future):
        yield
        future.set_exception(KeyError("x"))

    future = concurrent.futures.Future()
    spawn(settle, future)
    try:
        yield from wait_future(future)
    except KeyError:
        pass
    finally:
        del future


def cancelled_future():
    future = concurrent.futures.Future()
    future.cancel()
    try:
        yield from wait_future(future)
    except concurrent.futures.CancelledError:
        pass
    finally:
        del future


@pytest.mark.parametrize(
    "scenario",
    [
        failing_call,
        failing_call_that_nobody_waits_for,
        failing_task_of_a_thread,
        failing_future,
        cancelled_future,
    ],
)
def test_a_failure_leaves_no_cycle(scenario):
    assert garbage_of(scenario) == []


def test_what_cannot_be_called_is_an_ordinary_failure():
    def main():
        yield from to_thread(42)

    with pytest.raises(
        TypeError, match=r"^to_thread\(\) got 42: give a function and its arguments, `to_t"
    ):
        run(main)


@pytest.mark.hazard("H46")
@pytest.mark.parametrize("kind", [StopIteration, GeneratorExit])
def test_a_stop_iteration_of_the_job_arrives_wrapped(kind):
    def work():
        raise kind(42)

    def main():
        with pytest.raises(RuntimeError, match=rf"work raised {kind.__name__}") as caught:
            yield from to_thread(work)
        assert isinstance(caught.value.__cause__, kind)
        return "not early"

    assert run(main) == "not early"


@pytest.mark.hazard("H46")
def test_a_stop_iteration_is_a_value_like_others_on_every_way():
    thing = StopIteration(42)

    def task():
        yield
        return thing

    def work(scheduler, end):
        end.put(from_thread(scheduler, task))
        return end.get()

    def main():
        queue = Queue(2)
        yield from queue.put(thing)
        last = yield from to_thread(work, current_scheduler(), ThreadEnd(queue))
        return [last, (yield from queue.get()), (yield from to_thread(lambda: thing))]

    assert run(main) == [thing] * 3


def test_system_exit_in_a_thread_ends_the_run():
    def main():
        yield from to_thread(sys.exit, 3)

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 3


def test_functions_whose_code_would_not_run_in_the_thread_are_refused():
    def generator():
        yield

    async def coroutine():
        pass

    def main():
        for f, what in ((generator, "generator"), (coroutine, "coroutine")):
            with pytest.raises(TypeError, match=rf"to_thread\(\) got .*returned a {what}.*spawn"):
                yield from to_thread(f)

    run(main)


def test_the_callers_context_is_carried_over_and_its_copy_stays_the_threads():
    var = contextvars.ContextVar("var", default="none")

    def task():
        yield
        return var.get()

    def work(scheduler):
        found = var.get(), from_thread(scheduler, task)
        var.set("the thread's")
        return *found, from_thread(scheduler, task)

    def main():
        var.set("the task's")
        found = yield from to_thread(work, current_scheduler())
        return found, var.get()

    expected = ("the task's", "the task's", "the thread's")
    assert run(main) == (expected, "the task's")


def test_calls_are_bounded_and_their_queue_is_visible():
    gates = [Gate(number) for number in range(5)]
    order = []

    def call(gate):
        order.append((yield from to_thread(gate)))

    def main():
        threads = current_threads()
        threads.limit = 2
        tasks = [spawn(call, gate) for gate in gates]
        yield from until(lambda: gates[1].begun.is_set() and threads.stats()["queued"] == 3)
        stats = threads.stats()
        shown = [repr(task.wait) for task in tasks]
        for number, gate in enumerate(gates):
            gate.go.set()
            yield from tasks[number]
        return threads.limit, stats, shown

    limit, stats, shown = run(main)
    assert limit == 2
    assert stats == {
        "limit": 2,
        "threads": 2,
        "running": 2,
        "abandoned": 0,
        "queued": 3,
        "lookups": 0,
        "lookups_queued": 0,
    }
    assert "to_thread(" in shown[0] and " in corolib-thread-" in shown[0]
    assert shown[4].endswith("in the queue")
    assert order == [0, 1, 2, 3, 4]


def test_the_default_limit_is_forty():
    barrier = threading.Barrier(40)

    def main():
        tasks = [spawn(to_thread(barrier.wait, LONG)) for _ in range(40)]
        for task in tasks:
            yield from task
        return current_threads().stats()["limit"], len(our_threads())

    assert run(main) == (40, 40)


def test_the_limit_can_be_raised_and_lowered_while_calls_wait():
    gates = [Gate() for _ in range(4)]

    def main():
        threads = current_threads()
        threads.limit = 1
        tasks = [spawn(to_thread(gate)) for gate in gates]
        yield from until(lambda: threads.stats()["queued"] == 3)
        threads.limit = 3
        yield from until(lambda: gates[2].begun.is_set())
        assert threads.stats()["threads"] == 3
        threads.limit = 1
        for gate in gates[:3]:
            gate.go.set()
        for task in tasks[:3]:
            yield from task
        yield from until(lambda: threads.stats()["threads"] == 1)
        gates[3].go.set()
        yield from tasks[3]
        for wrong, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
            with pytest.raises(error, match="the limit of threads takes"):
                threads.limit = wrong

    run(main)


def test_threads_without_work_end_themselves():
    def main():
        threads = current_threads()
        threads.jobs.idle = 0.001
        yield from to_thread(int)
        (thread,) = our_threads() or [None]
        yield from until(lambda: threads.stats()["threads"] == 0)
        if thread is not None:
            thread.join(LONG)
        assert not our_threads()
        return (yield from to_thread(lambda: threading.current_thread().name))

    assert run(main) == "corolib-thread-2"


def test_a_free_thread_is_used_again():
    def main():
        names = []
        for _ in range(5):
            names.append((yield from to_thread(lambda: threading.current_thread().name)))
            yield from until(lambda: current_threads().stats()["running"] == 0)
        return names

    assert run(main) == ["corolib-thread-1"] * 5


def test_of_the_free_threads_that_which_became_free_last_is_taken():
    """So those that are not needed any more can end."""

    def name():
        return threading.current_thread().name

    def main():
        gates = [Gate() for _ in range(3)]
        tasks = [spawn(to_thread(gate)) for gate in gates]
        yield from until(lambda: gates[2].begun.is_set())
        found = []
        for number in (2, 0, 1):
            gates[number].go.set()
            yield from tasks[number]
        for _ in range(20):
            found.append((yield from to_thread(name)))
        return found

    assert run(main) == ["corolib-thread-2"] * 20


@pytest.mark.parametrize("count", [1, 30])
def test_a_thread_is_free_before_its_outcome_is_there(count):
    """Else who gets the outcome and calls again would need one thread more, now and then."""

    def call():
        for _ in range(50):
            yield from to_thread(int)

    def main():
        for _ in range(count):
            yield from call()
        return len(our_threads())

    assert run(main) == 1


def test_a_thread_that_is_given_a_job_just_as_it_has_waited_long_enough_does_it(monkeypatch):
    class Late:
        """The lock that a free thread waits for. It is let go when that has given up waiting."""

        def __init__(self):
            self.lock = threading.Lock()
            self.waits = self.releases = 0
            self.given = threading.Event()

        def acquire(self, *timeout):
            self.waits += bool(timeout)
            if timeout and self.waits == 2:
                assert self.given.wait(LONG)
                return False
            return self.lock.acquire(*timeout)

        def release(self):
            self.lock.release()
            self.releases += 1
            if self.releases == 2:
                self.given.set()

    def main():
        threads = current_threads()
        monkeypatch.setattr("corolib.coordination.thread_pool.allocate_lock", Late)
        yield from to_thread(int)
        value = yield from to_thread(pow, 2, 5)
        (worker,) = threads.jobs.workers
        return value, worker.lock.given.is_set(), len(our_threads())

    assert run(main) == (32, True, 1)


@pytest.mark.found("T2")
def test_threads_that_cannot_be_started_fail_all_calls_that_nobody_would_come_to():
    """One thread is at work, and waits for the call that would need another one."""

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    def second():
        with pytest.raises(RuntimeError, match="can't start new thread"):
            yield from to_thread(int)
        return "told"

    def first_job(scheduler):
        current.starter.start = refuse
        return from_thread(scheduler, second)

    def main():
        nonlocal current
        current = current_threads()
        current.limit = 1
        task = spawn(to_thread(first_job, current_scheduler()))
        yield
        waiting = spawn(to_thread(int))
        yield from until(lambda: waiting.done or task.done)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            yield from waiting
        return (yield from task)

    current = None
    assert run(main, on_task_error=lambda *_: None) == "told"


def test_a_thread_that_cannot_be_started_is_an_error_only_if_there_is_no_other():
    gate = Gate("first")

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    def main():
        threads = current_threads()
        start, threads.starter.start = threads.starter.start, refuse
        with pytest.raises(RuntimeError, match="can't start new thread"):
            yield from to_thread(int)
        assert threads.stats()["queued"] == threads.stats()["threads"] == 0
        threads.starter.start = start
        one = spawn(to_thread(gate))
        yield from until(gate.begun.is_set)
        threads.starter.start = refuse
        two = spawn(to_thread(pow, 2, 3))
        yield from until(lambda: threads.stats()["queued"] == 1)
        gate.go.set()
        return (yield from one), (yield from two)

    assert run(main) == ("first", 8)


@pytest.mark.hazard("H72")
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_signal_handler_that_cancels_a_call_just_as_one_is_begun_stops_nothing(which):
    """It comes while the pool is being changed, in the same thread."""
    gate = Gate("done")

    def main():
        threads = current_threads()
        threads.limit = 1
        busy = spawn(to_thread(gate))
        yield from until(gate.begun.is_set)
        queued = [spawn(to_thread(int)) for _ in range(3)]
        yield from until(lambda: threads.stats()["queued"] == 3)
        start = threads.starter.start

        def struck(*args):
            strike(signal.SIGUSR1)
            return start(*args)

        threads.starter.start = struck
        before = signal.signal(signal.SIGUSR1, lambda *_: queued[which].cancel())
        threads.limit = 2
        signal.signal(signal.SIGUSR1, before)
        gate.go.set()
        found = yield from survivors([busy, *queued])
        return found, threads.stats()["queued"]

    assert run(main) == (["done", 0, 0], 0)


# Cancelled calls ----------------------------------------------------------------------------------


@pytest.mark.hazard("H66")
def test_a_result_that_comes_late_reaches_no_stranger():
    gates = [Gate("old"), Gate("new")]

    def main():
        task = spawn(to_thread(gates[0]))
        yield from until(gates[0].begun.is_set)
        assert (yield from task.stop()) is None
        assert current_threads().stats()["abandoned"] == 1
        task = spawn(to_thread(gates[1]))
        yield from until(gates[1].begun.is_set)
        gates[0].go.set()
        yield from until(lambda: current_threads().stats()["abandoned"] == 0)
        assert not task.done
        gates[1].go.set()
        return (yield from task)

    assert run(main) == "new"


def test_a_cancelled_call_that_had_not_begun_never_runs():
    gate, called = Gate(), []

    def main():
        threads = current_threads()
        threads.limit = 1
        one = spawn(to_thread(gate))
        yield from until(gate.begun.is_set)
        two = spawn(to_thread(called.append, "two"))
        three = spawn(to_thread(called.append, "three"))
        yield from until(lambda: threads.stats()["queued"] == 2)
        yield from two.stop()
        assert threads.stats()["queued"] == 1
        gate.go.set()
        yield from one
        yield from three

    run(main)
    assert called == ["three"]


def test_a_failure_that_comes_after_the_cancel_is_reported():
    gate, reported = Gate(KeyError("late")), []

    def main():
        task = spawn(to_thread(gate), name="caller")
        yield from until(gate.begun.is_set)
        yield from task.stop()
        gate.go.set()
        yield from until(lambda: reported)

    run(main, on_task_error=lambda task, exc: reported.append((task.name, exc)))
    [(name, error)] = reported
    assert name == "caller" and isinstance(error, KeyError)
    assert "went on after its caller, caller#2, was cancelled" in error.__notes__[0]


@pytest.mark.hazard("H66")
def test_a_result_that_was_handed_over_before_the_cancel_is_delivered():
    gate, got = Gate("kept"), []

    def caller():
        got.append((yield from to_thread(gate)))
        yield

    def main():
        task = spawn(caller)
        yield from until(gate.begun.is_set)
        gate.go.set()
        for thread in our_threads():
            current_threads().jobs.end()  # so that the end of the thread says: handed over
            thread.join(LONG)
        yield  # the call is made in this turn, and the task is ready
        task.cancel()
        with pytest.raises(TaskCancelled):
            yield from task

    run(main)
    assert got == ["kept"]


@pytest.mark.hazard("H67")
def test_a_full_pool_delays_no_lookup_and_all_its_callers_can_be_cancelled_at_once():
    import socket

    gate = Gate()

    def main():
        threads = current_threads()
        threads.limit = 8
        tasks = [spawn(to_thread(gate)) for _ in range(40)]
        yield from until(lambda: threads.stats()["running"] == 8)
        found = yield from lookup(socket.getaddrinfo, "localhost", 80)
        assert found
        for task in tasks:
            task.cancel()
        for _ in range(2):  # turns, not seconds: the cancel, and the end of each task
            yield
        assert all(task.done for task in tasks)
        stats = threads.stats()
        gate.go.set()
        return stats["running"], stats["abandoned"], stats["queued"]

    assert run(main) == (8, 8, 0)
    assert not our_threads()


def test_lookups_have_a_small_pool_of_their_own_with_a_queue():
    gate = Gate()

    def main():
        tasks = [spawn(lookup(gate)) for _ in range(10)]
        yield from until(lambda: current_threads().stats()["lookups"] == 8)
        stats = current_threads().stats()
        gate.go.set()
        for task in tasks:
            yield from task
        return stats["lookups_queued"], stats["running"]

    assert run(main) == (2, 0)


@pytest.mark.found("N6")
def test_lookups_that_nobody_waits_for_do_not_count():
    gate = Gate()

    def main():
        for _ in range(20):
            with move_on_after(0.001):
                yield from lookup(gate)
        stats = current_threads().stats()
        found = yield from lookup(pow, 2, 3)
        gate.go.set()
        return found, stats["lookups"], stats["lookups_queued"]

    assert run(main) == (8, 20, 0)


@pytest.mark.found("N6")
def test_a_lookup_that_nobody_waits_for_does_not_count_after_a_from_thread_either():
    gates = Gate(), Gate()

    def task():
        return
        yield

    def job(scheduler):
        gates[0]()
        from_thread(scheduler, task)
        gates[1]()

    def main():
        current_threads().lookup_limit = 1
        lost = spawn(lookup(job, current_scheduler()))
        yield from until(gates[0].begun.is_set)
        yield from lost.stop()
        gates[0].go.set()
        yield from until(gates[1].begun.is_set)
        found = yield from lookup(pow, 2, 3)
        gates[1].go.set()
        yield from until(lambda: current_threads().stats()["lookups"] == 0)
        gate = Gate()
        spawn(lookup(gate))
        spawn(lookup(int))
        yield from until(gate.begun.is_set)
        queued = current_threads().stats()["lookups_queued"]
        gate.go.set()
        return found, queued

    assert run(main) == (8, 1)


@pytest.mark.found("N6")
def test_the_number_of_lookups_can_be_set():
    gate = Gate()

    def main():
        threads = current_threads()
        assert threads.lookup_limit == 8
        threads.lookup_limit = 2
        tasks = [spawn(lookup(gate)) for _ in range(3)]
        yield from until(lambda: threads.stats()["lookups_queued"] == 1)
        counts = [threads.stats()["lookups"]]
        threads.lookup_limit = 3
        counts.append(threads.stats()["lookups"])
        gate.go.set()
        for task in tasks:
            yield from task
        with pytest.raises(ValueError, match="the limit of threads takes"):
            threads.lookup_limit = 0
        return counts

    assert run(main) == [2, 3]


# The end of the run -------------------------------------------------------------------------------


@pytest.mark.hazard("H67")
def test_a_thread_that_still_runs_at_the_end_is_named_and_left_behind(capfd):
    gate = Gate("too late")

    def caller():
        yield from to_thread(gate)

    def main():
        task = spawn(caller)
        yield from until(gate.begun.is_set)
        yield from task.stop()
        return "ended"

    assert run(main, grace=0.01) == "ended"
    said = capfd.readouterr().err
    assert "corolib: corolib-thread-1 still runs" in said
    assert "called by caller#2; it is left behind" in said
    gate.go.set()  # its late result finds the run over, and says nothing
    for thread in our_threads():
        thread.join(LONG)
    assert capfd.readouterr().err == ""


@pytest.mark.hazard("H67")
def test_the_end_waits_for_threads_that_end_within_the_grace(capfd):
    gate = Gate()

    def main():
        task = spawn(to_thread(gate))
        yield from until(gate.begun.is_set)
        yield from task.stop()
        threading.Timer(0.01, gate.go.set).start()

    run(main, grace=math.inf)
    assert not our_threads()
    assert capfd.readouterr().err == ""


@pytest.mark.hazard("H67")
def test_a_program_with_a_thread_that_never_ends_exits():
    status, out, err = python(
        """
        import corolib, threading

        class Job:
            def __init__(self):
                self.begun = threading.Event()
                self.__qualname__ = "job"

            def __call__(self):
                self.begun.set()
                threading.Event().wait()

        def main():
            job = Job()
            task = corolib.spawn(corolib.to_thread(job), name="caller")
            while not job.begun.is_set():
                yield corolib.Sleep(0.001)
            yield from task.stop()
            return task.done

        print(corolib.run(main, grace=0.01))
        """
    )
    assert (status, out) == (0, "True\n")
    assert "corolib-thread-1 still runs job, called by caller#2; it is left behind" in err
    assert err.count("\n") == 1


def test_a_scheduler_that_is_driven_by_turns_ends_its_threads_when_it_is_closed():
    gate = Gate()

    def caller():
        yield from to_thread(gate)

    scheduler = Scheduler(grace=LONG)
    scheduler.spawn(caller)
    scheduler.turn(0)
    assert gate.begun.wait(LONG)
    gate.go.set()
    scheduler.close()  # the outcome, which waits for the next turn, finds nobody
    assert not our_threads()


@pytest.mark.found("T1")
def test_a_child_that_a_job_has_forked_ends_when_the_job_does():
    """Its only thread is the pool's, which would wait for another job."""
    status, out, err = python(
        """
        import corolib, os
        from corolib import current_threads, run, to_thread

        def fork():
            return os.fork()

        def main():
            current_threads().jobs.idle = 1e6
            child = yield from to_thread(fork)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        print(run(main))
        """,
        *("-W", "ignore"),
    )
    assert (status, out, err) == (0, "0\n", "")


@pytest.mark.found("T1")
def test_after_a_fork_in_a_thread_of_ours_that_ends_with_its_job():
    """What is done in the child, done here, where it can be measured."""
    gate = Gate("value")

    def main():
        jobs = current_threads().jobs
        jobs.idle = 1e6
        task = spawn(to_thread(gate))
        yield from until(gate.begun.is_set)
        jobs.on_fork()
        gate.go.set()
        (thread,) = our_threads()
        thread.join(LONG)
        assert not thread.is_alive()
        return (yield from task)

    assert run(main) == "value"


@pytest.mark.hazard("H63")
def test_two_ctrl_c_at_any_call_of_the_pools_leave_no_thread_that_never_ends(default_sigint):
    """Who lets a thread go has taken it out of those that are free: nobody else would do it.

    At the places at which signals come: where a function begins, and where a call has returned.
    """

    def work():
        current_threads().jobs.idle = 0.01  # so that who is still known ends soon
        yield from gather(to_thread(int), to_thread(int))
        sys.setprofile(profile)
        yield from gather(to_thread(int), to_thread(int))
        current_threads().limit = 1

    def profile(frame, event, arg):
        nonlocal left
        here = frame.f_code.co_filename.endswith("thread_pool.py")
        if here and event in ("call", "c_return"):
            left -= 1
            if left < 0:
                sys.setprofile(None)
                strike()
                strike()

    places, interrupted = 0, True
    while interrupted:
        left = places
        try:
            run(work)
            interrupted = False
        except KeyboardInterrupt:
            places += 1
        finally:
            sys.setprofile(None)
        for thread in our_threads():
            thread.join(LONG)
            assert not thread.is_alive(), places
    assert places > 30


# From a thread ------------------------------------------------------------------------------------


def call_from_thread(*args):
    """Call `from_thread(*args)` in a thread of our own; return the thread and its outcome."""
    outcome = []

    def work():
        try:
            outcome.append(from_thread(*args))
        except BaseException as exc:
            outcome.append(exc)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, outcome


def test_a_thread_runs_a_task_as_a_child_of_main_and_gets_its_value():
    async def task(x):
        await Sleep(0)
        return x, current_task().parent is current_scheduler().main

    def main():
        yield Sleep(0)
        return (yield from to_thread(from_thread, current_scheduler(), task, 7))

    assert run(main) == (7, True)


def test_a_task_of_a_thread_keeps_the_run_from_ending():
    gate = Gate()

    def task():
        yield from to_thread(gate)
        return "done"

    def main():
        outcome.append(call_from_thread(current_scheduler(), task))
        yield from until(gate.begun.is_set)
        threading.Timer(0.01, gate.go.set).start()

    outcome = []
    run(main)
    [(thread, values)] = outcome
    thread.join(LONG)
    assert values == ["done"]


def test_what_leaves_the_task_is_raised_in_the_thread_and_not_reported():
    def failing():
        yield
        raise KeyError("x")

    def cancelled():
        current_task().cancel("enough")
        yield

    def work(scheduler):
        with pytest.raises(KeyError):
            from_thread(scheduler, failing)
        with pytest.raises(TaskCancelled, match="enough"):
            from_thread(scheduler, cancelled)
        with pytest.raises(TypeError, match="generator function"):
            from_thread(scheduler, print)

    reported = []

    def main():
        yield from to_thread(work, current_scheduler())

    run(main, on_task_error=lambda *failure: reported.append(failure))
    assert reported == []


def test_from_thread_is_refused_where_it_would_wait_for_itself():
    def task():
        yield

    def main():
        with pytest.raises(RuntimeError, match=r"blocks the thread.*use `yield from spawn"):
            from_thread(current_scheduler(), task)
        yield

    run(main)
    scheduler = Scheduler()
    with pytest.raises(RuntimeError, match="this one is a scheduler's"):  # between two turns
        from_thread(scheduler, task)
    scheduler.close()


def test_from_thread_is_refused_in_a_signal_handler():
    caught = []

    def handler(signum, frame):
        try:
            from_thread(scheduler, Sleep)
        except RuntimeError as exc:
            caught.append(str(exc))

    def main():
        nonlocal scheduler
        scheduler = current_scheduler()
        os.kill(os.getpid(), signal.SIGUSR1)
        yield from until(lambda: caught)

    scheduler = None
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        run(main)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "a signal handler uses call_soon_threadsafe" in caught[0]


@pytest.mark.hazard("H66")
def test_from_thread_after_the_run_raises_run_finished():
    def main():
        yield
        return current_scheduler()

    scheduler = run(main)
    thread, outcome = call_from_thread(scheduler, main)
    thread.join(LONG)
    assert isinstance(outcome[0], RunFinished)


@pytest.mark.hazard("H66")
def test_the_thread_of_a_run_that_has_ended_is_a_thread_like_others():
    """And its number may have passed to a new thread, which never saw that run."""

    def main():
        yield
        return current_scheduler()

    scheduler = run(main)
    with pytest.raises(RunFinished):
        from_thread(scheduler, main)


@pytest.mark.hazard("H66")
def test_a_thread_learns_that_its_task_was_given_up(capfd):
    def stubborn():
        while True:
            try:
                yield Sleep(math.inf)
            except corolib.Cancelled:
                pass

    def main():
        calls.append(call_from_thread(current_scheduler(), stubborn))
        yield from until(lambda: len(current_scheduler().tasks) > 1)
        raise KeyError

    calls = []
    with pytest.raises(KeyError):
        run(main, grace=0.01, on_task_error=lambda *_: None)
    [(thread, outcome)] = calls
    thread.join(LONG)
    assert "swallowed every Cancelled" in str(outcome[0])
    assert "swallowed every Cancelled" in capfd.readouterr().err


@pytest.mark.hazard("H66")
def test_a_closed_scheduler_answers_the_threads_that_wait_for_it():
    def task():
        yield Sleep(math.inf)

    scheduler = Scheduler()
    thread, outcome = call_from_thread(scheduler, task)
    while not scheduler.tasks:
        scheduler.turn(0.001)
    scheduler.close()
    thread.join(LONG)
    assert isinstance(outcome[0], RunFinished)


@pytest.mark.hazard("H66")
def test_a_request_that_the_run_did_not_come_to_is_answered():
    scheduler = Scheduler()
    thread, outcome = call_from_thread(scheduler, Sleep)
    while not requests_of(scheduler):
        pass
    scheduler.close()
    thread.join(LONG)
    assert isinstance(outcome[0], RunFinished)


@pytest.mark.hazard("H66")
def test_a_worker_that_asks_while_the_run_ends_gets_run_finished_at_once(capfd):
    gate = Gate()

    def task():
        yield

    def work(scheduler):
        gate()
        try:
            from_thread(scheduler, task)
        except RunFinished:
            told.append("finished")

    def main():
        threads = current_threads()
        caller = spawn(to_thread(work, current_scheduler()))
        yield from until(gate.begun.is_set)
        yield from caller.stop()
        join = threads.starter.join

        def let_go(*args):
            gate.go.set()
            return join(*args)

        threads.starter.join = let_go

    told = []
    run(main, grace=LONG)
    assert told == ["finished"]
    assert capfd.readouterr().err == ""


def test_from_thread_when_only_clean_up_is_left_raises_run_finished():
    told = []

    def task():
        yield

    def work(scheduler):
        try:
            from_thread(scheduler, task)
        except RunFinished:
            told.append("finished")

    async def numbers():
        try:
            yield 1
        finally:
            await to_thread(work, current_scheduler())

    kept = numbers()

    async def main():
        await kept.__anext__()

    run(main)
    assert told == ["finished"]


# Threads that wait for threads --------------------------------------------------------------------


@pytest.mark.found("T2")
@pytest.mark.parametrize("depth", [1, 3])
def test_a_thread_that_waits_in_from_thread_does_not_count(depth):
    """A full pool, each thread of which waits for a task that needs a thread, and so on."""

    def task(scheduler, depth):
        return (yield from to_thread(job, scheduler, depth - 1))

    def job(scheduler, depth):
        all_there.wait(LONG)
        return 1 + from_thread(scheduler, task, scheduler, depth) if depth else 0

    def main():
        current_threads().limit = 4
        tasks = [spawn(to_thread(job, current_scheduler(), depth)) for _ in range(4)]
        found = []
        for each in tasks:
            found.append((yield from each))
        yield from until(lambda: current_threads().stats()["threads"] <= 4)
        return found

    all_there = threading.Barrier(4)
    assert run(main) == [depth] * 4


@pytest.mark.found("T2")
def test_a_thread_that_comes_back_from_from_thread_counts_again_and_goes_on_at_once():
    """It may hold what the one that has its place waits for: so it does not wait for a place."""
    gate, second = Gate(), Gate()

    def wait():
        yield from until(second.begun.is_set)

    def first_job(scheduler):
        from_thread(scheduler, wait)
        gate()

    def main():
        threads = current_threads()
        threads.limit = 1
        tasks = [spawn(to_thread(first_job, current_scheduler())), spawn(to_thread(second))]
        yield from until(gate.begun.is_set)
        last = spawn(to_thread(int))
        yield from turns(3)
        stats = threads.stats()
        second.go.set()
        yield from tasks[1]
        yield from turns(3)
        still = threads.stats()["queued"]
        gate.go.set()
        yield from tasks[0]
        yield from last
        return stats["running"], stats["queued"], still

    assert run(main) == (2, 1, 1)


@pytest.mark.found("T2")
def test_all_of_forty_threads_may_wait_for_threads():
    def task():
        return (yield from to_thread(threading.get_ident))

    def job(scheduler, barrier):
        barrier.wait(LONG)
        return from_thread(scheduler, task)

    def main():
        barrier = threading.Barrier(40)
        tasks = [spawn(to_thread(job, current_scheduler(), barrier)) for _ in range(40)]
        for each in tasks:
            yield from each
        return "done"

    assert run(main) == "done"


def swallowing(log):
    """A task that a thread asks for, and that tells how it ended."""
    try:
        yield Sleep(math.inf)
    except corolib.Cancelled as exc:
        log.append(exc.reason)
        raise


@pytest.mark.found("T12")
def test_a_cancelled_call_cancels_what_its_thread_waits_for():
    log, told, reported = [], [], []

    def job(scheduler):
        try:
            from_thread(scheduler, swallowing, log)
        except TaskCancelled as exc:
            told.append(exc.reason)
            raise

    def main():
        task = spawn(to_thread(job, current_scheduler()), name="caller")
        yield from until(lambda: len(current_scheduler().tasks) == 3)
        yield from task.stop()
        yield from until(lambda: current_threads().stats()["abandoned"] == 0)

    run(main, on_task_error=lambda *failure: reported.append(failure))
    assert log == told == ["caller#2, whose call this is, was cancelled"]
    assert reported == []


@pytest.mark.found("T12")
def test_a_cancelled_call_cancels_what_its_thread_asks_for_next():
    gate, log, reported = Gate(), [], []

    def quick():
        log.append("begun")
        yield
        log.append("not reached")

    def job(scheduler):
        gate()
        from_thread(scheduler, quick)

    def main():
        with move_on_after(0.01):
            yield from to_thread(job, current_scheduler())
        gate.go.set()
        yield from until(lambda: current_threads().stats()["abandoned"] == 0)

    run(main, on_task_error=lambda *failure: reported.append(failure))
    assert log == ["begun"]
    assert reported == []


@pytest.mark.found("T12")
def test_a_thread_whose_call_was_cancelled_cleans_up_within_the_grace():
    """As a task: one cancel, and then time to clean up, which is not endless."""
    clock, log, begun = VirtualClock(), [], []

    def clean_up():
        begun.append("clean-up")
        yield Sleep(1)
        log.append(f"cleaned up at {clock():g}")

    def hang_on():
        begun.append("hanging on")
        yield Sleep(math.inf)

    def job(scheduler):
        for ask in (hang_on, clean_up, hang_on, hang_on):
            try:
                from_thread(scheduler, ask)
            except TaskCancelled:
                log.append(f"cancelled at {clock():g}")

    def main():
        task = spawn(to_thread(job, current_scheduler()))
        yield from long(begun, 1)
        yield from task.stop()
        yield from long(begun, 2)
        clock.move(1)
        yield from long(begun, 3)
        clock.move(1.5)
        yield from turns(5)
        assert len(log) == 2
        clock.move(0.5)
        yield from long(log, 4)

    def long(events, count):
        """Wait without a clock until there are so many."""
        while len(events) < count:
            yield

    run(main, grace=3, clock=clock)
    assert begun == ["hanging on", "clean-up", "hanging on", "hanging on"]
    assert log == ["cancelled at 0", "cleaned up at 1", "cancelled at 3", "cancelled at 3"]


@pytest.mark.found("T12")
def test_with_an_endless_grace_a_thread_may_clean_up_as_long_as_it_takes():
    log = []

    def clean_up():
        yield Sleep(5)
        log.append("cleaned up")

    def job(scheduler):
        with pytest.raises(TaskCancelled):
            from_thread(scheduler, swallowing, log)
        from_thread(scheduler, clean_up)

    def main():
        task = spawn(to_thread(job, current_scheduler()))
        yield from until(lambda: len(current_scheduler().tasks) == 3)
        yield from task.stop()
        yield from until(lambda: len(log) == 2)

    run(main, grace=math.inf, **virtual_time())


@pytest.mark.found("T12")
def test_a_cancel_also_reaches_what_a_thread_asks_of_another_scheduler():
    log, reported = [], []
    other = Scheduler()

    def job():
        with pytest.raises(TaskCancelled, match="whose call this is, was cancelled"):
            from_thread(other, swallowing, log)

    def serve():
        scheduler = other
        while not log:
            scheduler.turn(0.01)

    def main():
        task = spawn(to_thread(job))
        yield from until(lambda: other.tasks)
        yield from task.stop()
        yield from until(lambda: current_threads().stats()["abandoned"] == 0)

    outer = []
    thread = threading.Thread(target=lambda: outer.append(run(main)))
    thread.start()
    serve()
    thread.join(LONG)
    other.close()
    assert log == ["to_thread#2, whose call this is, was cancelled"]
    assert reported == []


@pytest.mark.parametrize("begun", [True, False])
def test_a_handler_that_raises_ends_the_threads_wait_and_cancels_the_task(begun):
    """Only the main thread runs signal handlers, so here it is the one that calls."""
    log, ready, go = [], threading.Event(), threading.Event()
    box = []

    def strike_main():  # and no other thread, or the main thread sleeps on
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        assert go.wait(LONG)

    def task():
        try:
            strike_main()
            yield Sleep(math.inf)
        finally:
            log.append(current_task().cancel_request.reason)

    def run_it():
        def main():
            box.append(current_scheduler())
            ready.set()
            yield from until(go.is_set)
            yield from until(lambda: len(current_scheduler().tasks) == 1)

        run(main)

    def handler(signum, frame):
        go.set()
        raise FloatingPointError("from the handler")

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=run_it)
    thread.start()
    assert ready.wait(LONG)
    try:
        with pytest.raises(FloatingPointError, match="from the handler"):
            if begun:
                from_thread(box[0], task)
            else:
                from_thread(box[0], strike_main)
        thread.join(LONG)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert log == (["the thread that waited for it was interrupted"] if begun else [])


def test_a_handler_that_raises_when_the_run_is_over_is_not_masked(monkeypatch):
    from corolib.coordination.threads import Request

    def main():
        yield
        return current_scheduler()

    class Threads:
        def ask(self, request):
            raise FloatingPointError

    scheduler = run(main)
    monkeypatch.setattr(Scheduler, "run_local", lambda self, kind: Threads())
    request = Request(scheduler, main, ())
    with pytest.raises(FloatingPointError):
        request.make()


# A queue's end for threads ------------------------------------------------------------------------


def test_threads_put_into_a_queue_and_take_out_of_it():
    def double(source, sink):
        count = 0
        while True:
            try:
                item = source.get()
            except QueueShutDown:
                return count
            sink.put(2 * item)
            count += 1

    def main():
        source, sink = Queue(1), Queue(0)
        worker = spawn(to_thread(double, ThreadEnd(source), ThreadEnd(sink)))
        found = []
        for number in range(20):
            yield from source.put(number)
            found.append((yield from sink.get()))
        source.shutdown()
        return found, (yield from worker)

    assert run(main) == ([2 * number for number in range(20)], 20)


# Futures ------------------------------------------------------------------------------------------


def test_a_future_is_waited_for_and_its_result_comes_back():
    gate = Gate("value")

    def main(pool):
        done = pool.submit(pow, 2, 3)
        concurrent.futures.wait([done])
        future = pool.submit(gate)
        task = spawn(wait_future(future))
        yield from until(gate.begun.is_set)
        gate.go.set()
        return (yield from wait_future(done)), (yield from task), (yield from wait_future(future))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert run(main, pool) == (8, "value", "value")


def test_a_future_that_failed_or_was_cancelled_raises():
    def main():
        failed, cancelled, stopped = (concurrent.futures.Future() for _ in range(3))
        failed.set_exception(KeyError("x"))
        cancelled.cancel()
        stopped.set_exception(StopIteration(1))
        with pytest.raises(KeyError):
            yield from wait_future(failed)
        with pytest.raises(concurrent.futures.CancelledError):
            yield from wait_future(cancelled)
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            yield from wait_future(stopped)

    run(main)


def test_a_cancelled_wait_leaves_the_future_as_it_was():
    def main():
        future = concurrent.futures.Future()
        with move_on_after(1) as scope:
            yield from wait_future(future)
        assert scope.expired and not future.cancelled()
        failing = concurrent.futures.Future()
        task = spawn(wait_future(failing))
        yield
        assert "Future" in repr(task.wait)
        yield from task.stop()
        failing.set_exception(KeyError("still in the future"))
        other = spawn(wait_future(future))
        yield
        future.set_result("later")
        return (yield from other)

    reported = []
    assert run(main, on_task_error=lambda *f: reported.append(f), **virtual_time()) == "later"
    assert reported == []


def test_a_future_can_be_one_of_several_waits():
    def main():
        futures = [concurrent.futures.Future() for _ in range(2)]
        threading.Timer(0.001, futures[1].set_result, ["two"]).start()
        return (yield from first(*map(future_done, futures)))

    assert run(main) == (1, "two")


def test_two_tasks_may_make_the_same_wait_for_a_future():
    def waiter(trap):
        return (yield trap)

    def main():
        future = concurrent.futures.Future()
        trap = future_done(future)
        tasks = [spawn(waiter, trap) for _ in range(2)]
        yield
        yield
        future.set_result("both")
        for _ in range(3):  # the callback, the step of each, and one to look
            yield
        done = [task.done and task.result for task in tasks]
        for task in tasks:
            task.cancel()
        return done

    assert run(main) == ["both", "both"]


def test_what_is_no_such_future_is_refused():
    def main():
        for wrong in (42, asyncio.Future(loop=loop)):
            with pytest.raises(TypeError, match=r"takes a concurrent\.futures\.Future, not"):
                yield from wait_future(wrong)

    loop = asyncio.new_event_loop()
    run(main)
    loop.close()


@pytest.mark.hazard("H66")
def test_a_future_that_is_done_after_the_run_harms_nobody(caplog):
    future = concurrent.futures.Future()

    def main():
        spawn(wait_future(future), daemon=True)
        yield

    run(main)
    future.set_result("too late")
    assert caplog.records == []


def test_ctrl_c_ends_a_program_by_its_signal_in_debug_mode_too():
    program = """
        import os, signal
        from corolib import run, to_thread

        def main():
            yield from to_thread(os.kill, os.getpid(), signal.SIGINT)
            yield from to_thread(signal.pause)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        run(main)
    """
    status, _, err = python(program, COROLIB_DEBUG="1")
    assert status == -signal.SIGINT and err.endswith("KeyboardInterrupt\n")
