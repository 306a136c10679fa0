"""What a run changes in the process around it, and puts back: signals, forks, async generators."""

import functools
import gc
import itertools
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from contextvars import ContextVar
from types import SimpleNamespace

import pytest

import corolib
from corolib import (
    Cancelled,
    Scheduler,
    Sleep,
    Suspend,
    current_scheduler,
    current_task,
    now,
    open_signal_receiver,
    run,
    spawn,
)
from corolib.kernel.hooks import ProcessHooks, uninterrupted
from corolib.testing import VirtualClock, open_files, virtual_time
from tests.helpers.driving import FULL, go, strike
from tests.helpers.inside import (
    Bound,
    after_fork,
    before_fork,
    drop,
    fork_in_child,
    in_child,
    signal_module,
    when_it_sleeps,
)
from tests.helpers.programs import python, pythons

pytestmark = pytest.mark.usefixtures("default_sigint")

SIGNALS = signal_module()

# Handlers -----------------------------------------------------------------------------------------


def test_a_handler_of_the_programs_own_stays_in_place():
    got = []
    signal.signal(signal.SIGINT, lambda signum, frame: got.append(signum))
    try:

        def main():
            strike()
            yield Sleep(0.01)
            return "not interrupted"

        assert corolib.run(main) == "not interrupted"
        assert got == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_handlers_wakeup_fd_and_asyncgen_hooks_are_put_back():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    hooks = sys.get_asyncgen_hooks()
    try:

        def main():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
            assert sys.get_asyncgen_hooks() != hooks
            yield

        corolib.run(main)
        assert signal.set_wakeup_fd(before) == writer
        assert sys.get_asyncgen_hooks() == hooks
    finally:
        os.close(reader)
        os.close(writer)


def test_a_run_in_a_thread_that_threading_does_not_know_is_not_taken_for_the_main_one():
    program = """
        import _thread

        import corolib

        def main():
            yield
            done.release()

        done = _thread.allocate_lock()
        done.acquire()
        _thread.start_new_thread(corolib.run, (main,))
        assert done.acquire(timeout=60)
        import threading

        print(threading.current_thread() is threading.main_thread())
    """
    assert python(program) == (0, "True\n", "")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="has no concurrent.interpreters")
def test_the_main_thread_of_a_subinterpreter_is_like_any_other_thread():
    inside = """
        import signal
        import corolib

        def refused(f, *args, **options):
            try:
                f(*args, **options)
            except RuntimeError as exc:
                print(exc)

        def echo(stream):
            yield from stream.sendall((yield from stream.recv(9)))

        def main():
            refused(corolib.open_signal_receiver, signal.SIGTERM)
            with corolib.listen_tcp("127.0.0.1", 0) as listener:
                server = listener.serve(echo)
                port = listener.addresses[0][1]
                with (yield from corolib.open_tcp("localhost", port)) as stream:
                    yield from stream.sendall(b"hello")
                    print((yield from stream.recv(9)))
                yield from server.stop()
            return (yield from corolib.to_thread(abs, -1))

        print(corolib.run(main, measure=True, trace=lambda event: None))
        refused(corolib.run, main, dump_signal=signal.SIGUSR1)
        refused(corolib.run_workers, 1, main)
        refused(corolib.run, main, watchdog=1)
    """
    program = f"""
        import signal
        import textwrap
        from concurrent import interpreters

        interpreter = interpreters.create()
        interpreter.exec(textwrap.dedent({inside!r}))
        interpreter.close()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.set_wakeup_fd(-1) == -1
    """
    status, out, err = python(program)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [
        line.split(" works only in the main thread of the main inter")[0] for line in lines
    ] == [
        "open_signal_receiver()",
        "b'hello'",
        "1",
        "dump_signal=",
        "run_workers()",
        "watchdog= works only in the main interpreter",
    ]


def test_a_run_for_which_too_few_calls_can_be_nested_changes_nothing():
    program = """
        import signal
        import sys
        import corolib

        def main():
            yield

        def depth():
            frame, number = sys._getframe(1), 0
            while frame is not None:
                frame, number = frame.f_back, number + 1
            return number

        hooks, limit, left, failed = sys.get_asyncgen_hooks(), sys.getrecursionlimit(), 1, 0
        while True:
            try:
                sys.setrecursionlimit(depth() + left)
                corolib.run(main)
                break
            except RecursionError:
                failed += 1
            finally:
                sys.setrecursionlimit(limit)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, left
            assert signal.set_wakeup_fd(-1) == -1, left
            assert sys.get_asyncgen_hooks() == hooks, left
            left += 1
        print(failed > 5)
    """
    assert python(program) == (0, "True\n", "")


@pytest.mark.parametrize("raises", [KeyboardInterrupt, OSError])
def test_all_is_put_back_where_to_undo_one_thing_fails(raises):
    def main():
        yield

    class Files(Scheduler):
        failures = 1

        def close_files(self):
            super().close_files()
            while self.failures:
                self.failures -= 1
                raise raises("in the end")

    with pytest.raises(raises, match="in the end"):
        Files().run(main)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1


# Signals of the program's own ---------------------------------------------------------------------


@pytest.mark.hazard("H72")
def test_what_a_signal_handler_raises_during_the_wait_is_delivered_to_main(selector):
    def fire():
        os.kill(os.getpid(), signal.SIGUSR1)

    def handler(signum, frame):
        raise ValueError("out of a handler")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        log = []

        def ticker():
            for _ in range(3):
                yield Sleep(0.001)
            log.append("the others go on")

        def main():
            task = spawn(ticker)
            with pytest.raises(ValueError, match="out of a handler"):
                thread = when_it_sleeps(current_scheduler(), fire)
                yield Sleep(1000)
            thread.join()
            yield from task
            return "whole"

        assert corolib.run(main, selector=selector) == "whole"
        assert log == ["the others go on"]
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.hazard("H72")
def test_many_signals_neither_shorten_a_sleep_nor_turn_the_loop():
    count = 10_000 if FULL else 1_000
    got = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: got.append(signum))
    try:

        def shoot():
            for _ in range(count):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

        def main():
            gun = threading.Thread(target=shoot)
            began = corolib.now()
            gun.start()
            while gun.is_alive():
                yield Sleep(0.05)
            yield Sleep(0.05)
            assert corolib.now() - began >= 0.05
            gun.join()

        corolib.run(main)
        assert got
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_turn_without_a_main_lets_a_handlers_exception_out():
    def handler(signum, frame):
        raise ValueError("nobody to deliver it to")

    before = signal.signal(signal.SIGUSR1, handler)
    scheduler = corolib.Scheduler()
    try:
        with pytest.raises(ValueError, match="nobody"):
            thread = when_it_sleeps(scheduler, os.kill, os.getpid(), signal.SIGUSR1)
            scheduler.turn()
    finally:
        thread.join()
        scheduler.close()
        signal.signal(signal.SIGUSR1, before)


def test_a_wake_from_a_signal_handler_ends_the_wait_of_the_selector():
    """SIGUSR1 and no wake-up fd: only the wake itself can end the wait."""
    box = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: box.pop()("from the handler"))
    try:

        def main():
            when_it_sleeps(current_scheduler(), os.kill, os.getpid(), signal.SIGUSR1)
            return (yield Suspend(lambda wake: box.append(wake) or int, "x", outside=True))

        with pytest.MonkeyPatch.context() as patch:
            name = "corolib.kernel.hooks.signal.set_wakeup_fd"
            patch.setattr(name, lambda *args, **options: -1)
            assert corolib.run(main) == "from the handler"
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("what", ["cancel", "spawn"])
def test_a_plain_call_from_a_signal_handler_ends_the_wait(what):
    """A program with a SIGINT handler of its own has no wake-up fd: the call itself must wake."""
    log = []

    def extra():
        log.append("spawned")
        corolib.current_scheduler().main.cancel()
        yield

    def handler(signum, frame):
        if what == "cancel":
            corolib.current_scheduler().main.cancel()
        else:
            spawn(extra)

    def main():
        thread = when_it_sleeps(current_scheduler(), os.kill, os.getpid(), signal.SIGINT)
        try:
            yield Sleep(1000)
        finally:
            thread.join()

    signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(corolib.TaskCancelled):
            corolib.run(main)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert log == (["spawned"] if what == "spawn" else [])


@pytest.mark.hazard("H63")
def test_a_second_ctrl_c_in_an_uninterrupted_block_is_raised_after_the_step():
    log = []

    def main():
        strike()
        with uninterrupted:
            strike()
            log.append("made, and known")
        log.append("the step goes on")
        yield
        log.append("not reached")

    def twice():
        strike()
        with uninterrupted, uninterrupted:
            pass
        with pytest.raises(KeyboardInterrupt):
            strike()
        yield

    with pytest.raises(KeyboardInterrupt):
        run(main)
    assert log == ["made, and known", "the step goes on"]
    with pytest.raises(KeyboardInterrupt):
        run(twice)


@pytest.mark.hazard("H63")
def test_a_second_ctrl_c_does_not_wait_for_the_block_of_another_thread():
    begun, go = threading.Event(), threading.Event()

    def work():
        with uninterrupted:
            begun.set()
            go.wait()

    def main():
        assert begun.wait(60)
        strike()
        with pytest.raises(KeyboardInterrupt):
            strike()
        go.set()
        yield

    thread = threading.Thread(target=work)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(main)
    thread.join()


@pytest.mark.found("T1")
def test_a_second_ctrl_c_during_a_fork_is_not_ignored():
    """What is raised while a process forks, Python prints and forgets."""
    log = []

    def main():
        before_fork()
        after_fork()
        strike()
        before_fork()
        strike()
        log.append("forked")
        after_fork()
        yield
        log.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        run(main)
    assert log == ["forked"]


@pytest.mark.found("T1")
def test_a_second_ctrl_c_as_soon_as_a_fork_begins_leaves_its_signals_blocked():
    """Before the first line of what is done then. The handlers of a child are not yet its own."""
    program = """
        import os, signal, sys
        import corolib
        from corolib.kernel import hooks

        def main():
            signal.raise_signal(signal.SIGINT)
            sys.setprofile(strike)
            child = os.fork()
            sys.setprofile(None)
            if child == 0:
                os._exit(len(blocked))
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            yield

        def strike(frame, event, arg):
            name = frame.f_code.co_name
            if (name, event) == ("_before_fork", "call"):
                signal.raise_signal(signal.SIGINT)
            elif (name, event) == ("_in_child", "call"):
                blocked.update(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

        blocked = set()
        try:
            corolib.run(main)
        except KeyboardInterrupt:
            print("interrupted")
    """
    status, out, err = python(program)
    assert (status, out) == (0, "1\ninterrupted\n")
    assert "Exception ignored" not in err


# The signal that prints all tasks -----------------------------------------------------------------


def test_dump_signal_prints_all_tasks_while_the_program_waits(capfd):
    def sleeper():
        yield Sleep(1000)

    def ask(scheduler, tasks):
        os.kill(os.getpid(), signal.SIGUSR1)
        for task in tasks:
            scheduler.call_soon_threadsafe(task.cancel)

    def main():
        tasks = [current_task(), spawn(sleeper)]
        scheduler = current_scheduler()
        thread = when_it_sleeps(scheduler, ask, scheduler, tasks)
        with suppress(Cancelled):
            yield Sleep(500)
        thread.join()

    before = signal.getsignal(signal.SIGUSR1)
    corolib.run(main, dump_signal=signal.SIGUSR1)
    err = capfd.readouterr().err
    assert "main#1  Sleep(500.0)" in err
    assert "sleeper#2  Sleep(1000.0)" in err
    assert "in sleeper at" in err
    assert signal.getsignal(signal.SIGUSR1) is before


def test_dump_signal_is_refused_outside_the_main_thread():
    caught = []

    def work():
        with pytest.raises(RuntimeError, match="only in the main thread") as info:
            corolib.run(lambda: (yield), dump_signal=signal.SIGUSR1)
        caught.append(info.value)

    thread = threading.Thread(target=work)
    before = open_files()
    thread.start()
    thread.join()
    assert caught and open_files() == before


@pytest.mark.parametrize("wrong", [9, 1000, "SIGUSR1"])
def test_a_wrong_dump_signal_leaves_nothing_changed(wrong):
    before = open_files()
    with pytest.raises((OSError, ValueError, TypeError)):
        corolib.run(lambda: (yield), dump_signal=wrong)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
    assert open_files() == before


# Forks --------------------------------------------------------------------------------------------


@pytest.mark.hazard("H71")
def test_a_forked_child_neither_harms_the_parent_nor_uses_its_scheduler():
    program = """
        import os, signal, socket, sys
        import corolib
        from corolib import ReadWait, Sleep, spawn

        pairs = [socket.socketpair() for _ in range(100)]
        log = []

        def reader(a):
            a.setblocking(False)
            yield ReadWait(a)
            return a.recv(10)

        def in_child():
            yield Sleep(0.001)
            return "a new scheduler runs"

        def main():
            tasks = [spawn(reader, a) for a, b in pairs]
            yield
            pid = os.fork()
            if pid == 0:
                try:
                    try:
                        spawn(reader, pairs[0][0])
                    except RuntimeError as exc:
                        print("refused:", exc)
                    print(corolib.run(in_child))
                    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
                    sys.exit(7)
                finally:
                    print("finally", flush=True)
            _, status = os.waitpid(pid, 0)
            print("child ended with", os.waitstatus_to_exitcode(status))
            for a, b in pairs:
                b.send(b"x")
            got = 0
            for task in tasks:
                got += (yield from task) == b"x"
            print("served", got)

        corolib.run(main)
        for a, b in pairs:
            a.close()
            b.close()
    """
    status, out, err = python(program)
    assert err == ""
    assert out.splitlines() == [
        "refused: no scheduler runs in this thread: call this from a task, under corolib.run(...); "
        "another thread uses from_thread(scheduler, f, *args)",
        "a new scheduler runs",
        "finally",
        "child ended with 7",
        "served 100",
    ]
    assert status == 0


def test_a_child_that_is_forked_in_a_callback_is_told_and_nothing_is_stepped_there():
    program = """
        import os
        import corolib

        def main():
            corolib.current_scheduler().call_soon_threadsafe(os.fork)
            try:
                yield corolib.Sleep(0.05)
            except Exception as exc:
                print("stepped in the child:", exc, flush=True)
            os.wait()
            print("parent done")

        try:
            corolib.run(main)
        except RuntimeError as exc:
            print(exc, flush=True)
    """
    status, out, err = python(program)
    text = "this scheduler belongs to the parent process; in a forked child, run() makes a new one"
    assert (status, out.splitlines(), err) == (0, [text, "parent done"], "")


CALLBACKS = ["call_soon_threadsafe(fork)", "call_at(0, fork, 0)"]
RAISED = {"SystemExit(3)": 3, "KeyError": 1, "KeyboardInterrupt": -2}


@functools.cache
def forked_in_a_callback():
    """Return what comes of each program in which a callback forks and raises something there."""
    program = """
        import os
        import corolib
        from corolib import Cancelled, Sleep, current_scheduler

        def fork(*args):
            if os.fork() == 0:
                raise RAISED

        def main():
            current_scheduler().CALLBACK
            try:
                yield Sleep(0.05)
            except (Exception, Cancelled) as exc:
                print("stepped in the child:", exc, flush=True)
            print(os.waitstatus_to_exitcode(os.wait()[1]))

        corolib.run(main, on_task_error=print)
    """
    cases = list(itertools.product(CALLBACKS, RAISED))
    texts = [program.replace("CALLBACK", a).replace("RAISED", b) for a, b in cases]
    return dict(zip(cases, pythons(texts), strict=True))


@pytest.mark.found("T1")
@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("callback", CALLBACKS)
def test_what_a_callback_raises_in_a_child_that_it_has_forked_leaves_the_run(raised, callback):
    """And no task is stepped with it: the tasks are the parent's."""
    ended, out, err = forked_in_a_callback()[callback, raised]
    assert (ended, out) == (0, f"{RAISED[raised]}\n")
    assert ("KeyError" in err) == (raised == "KeyError")


@pytest.mark.hazard("H71")
def test_after_a_fork_in_a_callback_the_child_makes_no_other_call_and_steps_nobody():
    """Whose time has come meanwhile, or who is ready: the fork took long, and there is more."""
    clock, made = VirtualClock(), []

    def fork(scheduler):
        fork_in_child(scheduler)
        clock.move(10)

    def other():
        yield
        made.append("stepped")

    def main():
        scheduler = current_scheduler()
        spawn(other)
        yield
        scheduler.call_soon_threadsafe(fork, scheduler)
        scheduler.call_soon_threadsafe(made.append, "called")
        yield Sleep(5)
        made.append("woken")

    with pytest.raises(RuntimeError, match="belongs to the parent process"):
        run(main, clock=clock)
    assert made == []


STATEMENTS = ["yield", "yield 42", "return"]
BLOCKS = ["contextlib.nullcontext()", "shield()", "timeout(60)"]


@functools.cache
def forked_in_a_task():
    """Return what comes of each program in which a task forks in a block, and the child goes on."""
    program = """
        import contextlib
        import os
        import corolib
        from corolib import shield, spawn, timeout

        parent = os.getpid()

        def other():
            while True:
                yield
                if os.getpid() != parent:
                    print("stepped in the child", flush=True)

        def main():
            spawn(other, daemon=True)
            yield
            with BLOCK:
                child = os.fork() == 0
            try:
                if child:
                    STATEMENT
                else:
                    os.wait()
            finally:
                print("clean-up in the", "child" if child else "parent", flush=True)

        try:
            scheduler = corolib.Scheduler()
            scheduler.run(main)
        except RuntimeError as exc:
            print(exc, flush=True)
            try:
                scheduler.turn()
            except RuntimeError as exc:
                print("again:", exc, flush=True)
            raise SystemExit from None
        print("parent done")
    """
    cases = list(itertools.product(BLOCKS, STATEMENTS))
    texts = [program.replace("BLOCK", a).replace("STATEMENT", b) for a, b in cases]
    return dict(zip(cases, pythons(texts), strict=True))


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("block", BLOCKS)
def test_a_forked_child_that_goes_on_gets_an_error_and_no_other_task_is_stepped(block, statement):
    status, out, err = forked_in_a_task()[block, statement]
    text = "this scheduler belongs to the parent process; in a forked child, run() makes a new one"
    assert out.splitlines() == [
        *("clean-up in the child", text, f"again: {text}"),
        *("clean-up in the parent", "parent done"),
    ]
    assert (status, err) == (0, "")


def test_a_child_that_a_signal_handler_forks_while_the_parent_waits_is_told_too():
    status, out, err = python("""
        import os
        import signal
        import sys
        from corolib import Sleep, run

        def fork(*args):
            if os.fork() == 0:
                raise KeyError
            os.wait()

        def main():
            signal.signal(signal.SIGUSR1, fork)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            yield Sleep(0.5)

        signal.signal(signal.SIGALRM, lambda *args: os.kill(os.getpid(), signal.SIGUSR1))
        try:
            run(main)
        except RuntimeError as exc:
            print(exc, flush=True)
            sys.exit()
        print("parent done")
    """)
    text = "this scheduler belongs to the parent process; in a forked child, run() makes a new one"
    assert (status, out.splitlines(), err) == (0, [text, "parent done"], "")


def test_schedulers_that_never_ran_survive_a_fork():
    """In a program of its own: from Python 3.15 on, a process with threads may not fork when
    warnings are errors, and pytest has one.
    """
    program = """
        import os
        import corolib

        schedulers = [corolib.Scheduler(), corolib.Scheduler()]
        pid = os.fork()
        if pid == 0:
            refused = 0
            try:
                for scheduler in schedulers:
                    try:
                        scheduler.turn(0)
                    except RuntimeError:
                        refused += 1
            finally:
                os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
        for scheduler in schedulers:
            scheduler.turn(0)
            scheduler.close()
    """
    assert python(program) == (0, "", "")


def test_in_a_forked_child_the_wait_that_comes_next_is_refused():
    """What a fork does in the child, done here, where it can be measured."""

    def main():
        fork_in_child(corolib.current_scheduler())
        yield Sleep(1)

    with pytest.raises(RuntimeError, match="belongs to the parent process"):
        corolib.run(main)

    def ends():
        fork_in_child(corolib.current_scheduler())
        return
        yield

    with pytest.raises(RuntimeError, match="belongs to the parent process"):
        corolib.run(ends)
    guarded = []

    def guards():
        fork_in_child(corolib.current_scheduler())
        try:
            yield
        finally:
            guarded.append("its clean-up runs, before anything of the parent's")

    def catches():
        fork_in_child(corolib.current_scheduler())
        try:
            yield
        except RuntimeError:
            return

    def leaves_a_block():
        with Bound():
            fork_in_child(corolib.current_scheduler())
        yield
        guarded.append("went on")

    for body in (guards, catches, leaves_a_block):
        with pytest.raises(RuntimeError, match="belongs to the parent process"):
            corolib.run(body)
    assert len(guarded) == 1
    idle = corolib.Scheduler()
    fork_in_child(idle)
    with pytest.raises(RuntimeError, match="belongs to the parent process"):
        idle.turn()
    idle.close()


def test_a_fork_between_the_yield_and_the_wait_is_told_too():
    """As a signal handler may do; here by what the scheduler looks the trap up with."""

    class Forks(type):
        def __hash__(cls):
            if scheduler is not None:
                fork_in_child(scheduler)
            return super().__hash__()

    class Odd(Sleep, metaclass=Forks):
        pass

    def main():
        nonlocal scheduler
        scheduler = current_scheduler()
        yield Odd(1)

    scheduler = None
    with pytest.raises(RuntimeError, match="belongs to the parent process"):
        run(main)


def test_calls_that_were_left_for_the_parent_are_not_made_in_a_forked_child():
    made = []

    def main():
        scheduler = current_scheduler()
        scheduler.call_soon_threadsafe(made.append, "in the child")
        fork_in_child(scheduler)
        yield

    with pytest.raises(RuntimeError, match="belongs to the parent process"):
        run(main)
    assert made == []


def test_when_a_wake_forks_the_child_steps_none_of_the_tasks_that_are_ready():
    stepped = []

    def other():
        yield Sleep(1)
        stepped.append("other")

    def main():
        scheduler = current_scheduler()
        spawn(other)

        def wake(value=None, error=None):
            fork_in_child(scheduler)

        yield Suspend(lambda _: scheduler.arm(Sleep(1), wake), "the fork", outside=True)

    with pytest.raises(RuntimeError, match="belongs to the parent process"):
        run(main, **virtual_time())
    assert stepped == []


@pytest.mark.found("T1")
def test_signals_are_written_elsewhere_at_the_end_only_if_they_still_come_to_us():
    """The program may have said where to; or the end of a turn, where a receiver stays open."""
    a, b = socket.socketpair()
    b.setblocking(False)
    scheduler = Scheduler()

    def receive():
        with open_signal_receiver(signal.SIGUSR1) as received:
            yield from received

    def main():
        signal.set_wakeup_fd(b.fileno())
        yield

    with a, b:
        scheduler.spawn(receive)
        scheduler.turn(0)
        scheduler.close()
        assert signal.set_wakeup_fd(-1) == -1
        run(main)
        assert signal.set_wakeup_fd(-1) == b.fileno()


@pytest.mark.found("T1")
def test_in_a_forked_child_no_signal_is_written_anywhere():
    """Not to our own file, nor to the one from before, which is the parent's just as well."""
    program = """
        import os, signal, socket
        import corolib

        def child_of(fork):
            child = os.fork()
            if child == 0:
                os._exit(100 + signal.set_wakeup_fd(-1))
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        def main():
            yield
            return child_of(os.fork)

        a, b = socket.socketpair()
        b.setblocking(False)
        assert signal.set_wakeup_fd(b.fileno()) == -1
        print(corolib.run(main), child_of(os.fork) - b.fileno())
        assert signal.set_wakeup_fd(-1) == b.fileno()
    """
    assert python(program) == (0, "99 100\n", "")


@pytest.mark.found("T1")
def test_a_forked_child_has_none_of_the_files_that_wake_its_parent():
    """What it read there the parent would miss, and what it wrote would wake the parent."""
    program = """
        import os, threading
        import corolib
        from corolib.testing import open_files

        before = open_files()
        scheduler = corolib.Scheduler()
        scheduler.turn(0)
        assert len(open_files() - before) >= 3
        child = os.fork()
        if child == 0:
            try:
                scheduler.call_soon_threadsafe(print, "in the child")
            except corolib.RunFinished:
                os._exit(len(open_files() - before))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        made = []
        thread = threading.Thread(target=scheduler.call_soon_threadsafe, args=(made.append, 1))
        thread.start()
        while not made:
            scheduler.turn(60)
        thread.join()
        scheduler.close()
        assert open_files() == before
    """
    assert python(program) == (0, "", "")


@pytest.mark.found("T1")
def test_signals_that_a_run_handles_wait_while_a_child_is_forked():
    def blocked():
        return signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def main():
        before_fork()
        assert blocked() == {signal.SIGINT, signal.SIGUSR1}
        after_fork()
        assert blocked() == set()
        yield

    before_fork()
    assert blocked() == set()
    after_fork()
    run(main, dump_signal=signal.SIGUSR1)


@pytest.mark.found("T1")
@pytest.mark.parametrize("strike", [1, 2])
def test_what_a_signal_handler_raises_during_a_fork_leaves_no_signal_blocked(strike, monkeypatch):
    """Python calls handlers when the mask is looked at, and when it is set."""
    calls, set_mask = [], SIGNALS.pthread_sigmask

    def struck(how, signums):
        found = set_mask(how, signums)
        calls.append(how)
        if len(calls) == strike:
            raise KeyError("the handler's")
        return found

    def main():
        with monkeypatch.context() as patch:
            patch.setattr(SIGNALS, "pthread_sigmask", struck)
            with pytest.raises(KeyError):
                before_fork()
            after_fork()
        yield

    run(main)
    assert len(calls) == (1 if strike == 1 else 3)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@pytest.mark.found("T1")
def test_what_a_run_has_changed_is_put_back_in_a_child_once():
    def main():
        with uninterrupted:
            in_child()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        signal.signal(signal.SIGUSR1, mine)
        yield

    def mine(signum, frame):
        pass

    with pytest.raises(RuntimeError, match="belongs to the parent process"):
        run(main, dump_signal=signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is mine  # which the end of the run has left alone
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)


# Async generators ---------------------------------------------------------------------------------


class Left:
    """An async generator with clean-up that waits."""

    def __init__(self, seconds=0.5):
        self.log = []
        self.seconds = seconds

    async def numbers(self):
        try:
            yield 1
            yield 2
        finally:
            await Sleep(self.seconds)
            self.log.append(now())


def test_an_async_generator_dropped_half_way_is_closed_by_a_task():
    left = Left()

    async def main():
        async for _ in left.numbers():
            break
        gc.collect()
        await Sleep(0.25)
        assert [task.name for task in current_scheduler().tasks] == ["main", "aclose"]
        await Sleep(10)
        assert left.log == [0.5]

    go(main)


def test_an_async_generator_kept_half_way_is_closed_at_the_end_of_the_run():
    left, kept = Left(), []

    async def main():
        kept.append(left.numbers())
        await kept[0].__anext__()
        await Sleep(1)

    go(main)
    assert left.log == [1.5]


def test_that_clean_up_is_bounded_by_the_grace():
    left, kept = Left(1e9), []

    async def main():
        kept.append(left.numbers())
        await kept[0].__anext__()

    go(main, grace=3)
    assert left.log == []


@pytest.mark.parametrize("ends", ["waits for ever", "fails"])
def test_that_clean_up_may_hang_or_fail(ends, capsys):
    kept, lost = [], []

    async def numbers():
        try:
            yield 1
        finally:
            if ends == "fails":
                raise ValueError("from finally")
            await Suspend(lambda wake: list, "nothing", outside=False)

    async def main():
        kept.append(numbers())
        await kept[0].__anext__()
        return "fine"

    assert go(main, on_task_error=lambda task, exc: lost.append(str(exc))) == "fine"
    assert lost == (["from finally"] if ends == "fails" else [])


def test_an_async_generator_left_when_main_fails_is_closed_too():
    left, kept = Left(), []

    async def main():
        kept.append(left.numbers())
        await kept[0].__anext__()
        raise ValueError("main")

    with pytest.raises(ValueError, match="main"):
        go(main)
    assert left.log == [0.5]


def test_an_async_generator_that_the_last_step_drops_is_closed_as_well():
    closed = []

    async def source():
        try:
            yield 1
        finally:
            await Sleep(0.01)
            closed.append("closed")

    async def main():
        async for _ in source():
            await Sleep(0.001)
            raise KeyError  # the unwinding drops the generator, and main was the last task

    with pytest.raises(KeyError):
        run(main)
    assert closed == ["closed"]


def test_an_async_generator_dropped_after_the_run_harms_nothing():
    left, kept = Left(), []

    async def main():
        kept.append(left.numbers())

    go(main)
    kept.clear()  # it never began: there is nothing to close
    gc.collect()
    assert left.log == []


def test_an_async_generator_that_is_dropped_after_the_end_of_a_run_is_left_alone():
    async def numbers():
        yield 1

    scheduler = Scheduler()
    scheduler.close()
    drop(scheduler, numbers())
    assert scheduler.tasks == []


BEGUN_BY = ContextVar("begun by")


@pytest.mark.found("T12")
@pytest.mark.parametrize("left", ["dropped", "in a circle", "at the end"])
def test_an_async_generator_left_half_way_is_closed_in_the_context_of_its_task(left):
    """So it may put back what it has set, and sees what its task has set since."""
    log, kept = [], []

    async def numbers():
        token = BEGUN_BY.set("generator")
        try:
            yield 1
        finally:
            await Sleep(0.5)
            log.append(BEGUN_BY.get())
            BEGUN_BY.reset(token)
            log.append(BEGUN_BY.get())

    async def begin():
        BEGUN_BY.set("task")
        agen = numbers()
        await agen.__anext__()
        if left == "in a circle":
            circle = [agen]
            circle.append(circle)
        elif left == "at the end":
            kept.append(agen)
        BEGUN_BY.set("task, later")

    async def main():
        BEGUN_BY.set("main")
        await spawn(begin)
        gc.collect()
        if left != "at the end":
            await Sleep(1)
            assert log == ["task, later", "task"]
        assert BEGUN_BY.get() == "main"

    go(main)
    assert log == ["task, later", "task"]


def test_an_async_generator_that_a_callback_has_begun_is_closed_as_well():
    left = Left()

    def main():
        agen = left.numbers()

        def begin():
            with pytest.raises(StopIteration):
                agen.__anext__().send(None)

        current_scheduler().call_soon_threadsafe(begin)
        yield Sleep(1)

    go(main)
    assert left.log == [1.5]


@pytest.mark.hazard("H63")
def test_a_ctrl_c_while_the_hooks_are_removed_leaves_none_of_them():
    calls = []

    def close_files():
        calls.append("close")
        if len(calls) == 1:
            raise KeyboardInterrupt

    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        owner = SimpleNamespace(
            on_ctrl_c=lambda: None,
            on_new_asyncgen=lambda agen: None,
            on_dropped_asyncgen=lambda agen: None,
            wakeup_fd=a.fileno,
        )
        hooks = ProcessHooks(owner, None)
        hooks.install(lambda: None, close_files)
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        with pytest.raises(KeyboardInterrupt):
            hooks.remove()
    assert calls == ["close", "close"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
    assert sys.get_asyncgen_hooks() == (None, None)


@pytest.mark.hazard("H63")
def test_a_program_that_only_imports_corolib_hears_a_ctrl_c_that_comes_while_it_forks():
    """Python ignores what is raised in a function that is called for a fork."""
    status, out, err = python(
        """
        import _thread, os
        os.register_at_fork(after_in_parent=_thread.interrupt_main)
        import corolib
        try:
            if os.fork() == 0:
                os._exit(0)
        except KeyboardInterrupt:
            print("heard")
        """
    )
    assert (status, out, err) == (0, "heard\n", "")
