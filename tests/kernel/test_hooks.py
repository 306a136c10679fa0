"""What a run changes around it, and puts back: Ctrl-C, signals, forks, threads."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path

import pytest

import corolib
from corolib import ReadWait, Sleep, Suspend, spawn
from corolib.testing import virtual_time

FULL = os.environ.get("COROLIB_SWEEP") == "full"
RUNS = 500 if FULL else 50  # for each of four seeds
ROOT = str(Path(__file__).resolve().parents[2])


def open_files():
    return len(os.listdir("/proc/self/fd"))


def strike():
    os.kill(os.getpid(), signal.SIGINT)


def python(source):
    """Run a program in a process of its own; return its status, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,  # below that of the test itself
    )
    complaints = [  # debug mode says so when the machine is slow
        line for line in done.stderr.splitlines() if "all other tasks waited meanwhile" not in line
    ]
    return done.returncode, done.stdout, "\n".join(complaints)


@pytest.fixture(autouse=True)
def default_sigint():
    """A shell that runs tests in the background may have SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


# Ctrl-C -------------------------------------------------------------------------------------


def test_law_ctrl_c_is_raised_in_main_at_its_wait():
    log = []

    def child():
        try:
            yield Sleep(1000)
        finally:
            yield Sleep(0.5)
            log.append("child cleaned up")

    def main():
        spawn(child)
        yield
        try:
            strike()
            log.append("not in the middle of a step")
            yield Sleep(1000)
        finally:
            log.append("main cleaned up")

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main, **virtual_time())
    assert log == ["not in the middle of a step", "main cleaned up", "child cleaned up"]


def test_law_ctrl_c_does_not_mind_shields():
    def main():
        with corolib.shield(float("inf")):
            strike()
            yield Sleep(1000)

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main, **virtual_time())


def test_a_ctrl_c_reaches_a_main_that_was_given_a_result_at_its_next_wait():
    log = []

    def main():
        log.append((yield Suspend(lambda wake: (wake("value"), strike(), int)[2], "a result")))
        yield Sleep(1000)

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main, **virtual_time())
    assert log == ["value"]


def test_law_ctrl_c_after_mains_body_cancels_its_children_and_leaves_run():
    log = []

    def child():
        try:
            strike()
            yield Sleep(1000)
        finally:
            log.append("cleaned up")

    def main():
        spawn(child)
        yield

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main, **virtual_time())
    assert log == ["cleaned up"]


def test_law_ctrl_c_that_main_catches_lets_counting_start_anew():
    caught = []

    def main():
        for _ in range(3):
            try:
                strike()
                yield Sleep(1000)
            except KeyboardInterrupt:
                caught.append("one")
            yield
        return "went on"

    assert corolib.run(main, **virtual_time()) == "went on"
    assert caught == ["one"] * 3


@pytest.mark.hazard("H63")
def test_law_second_ctrl_c_during_the_clean_up_is_raised_on_the_spot(capfd):
    log = []

    def main():
        try:
            strike()
            yield Sleep(1000)
        finally:
            strike()
            log.append("never said")
            yield

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main, **virtual_time())
    assert log == []
    assert "main#1" not in capfd.readouterr().err  # its body ended by the second


@pytest.mark.hazard("H63")
def test_law_second_ctrl_c_before_the_first_was_delivered_abandons_and_names_the_rest(capfd):
    closed = []

    def other():
        try:
            yield Sleep(1000)
        finally:
            closed.append("other")
            yield Sleep(1)  # no time for that any more
            closed.append("after one more GeneratorExit")

    def main():
        spawn(other, name="left_over")
        yield
        strike()
        strike()
        yield Sleep(1000)

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main, **virtual_time())
    assert closed == ["other"]
    err = capfd.readouterr().err
    assert "left_over#2" in err and "abandoned" in err


def test_a_second_ctrl_c_that_a_task_swallows_ends_the_run_when_its_body_ends():
    def main():
        try:
            strike()
            strike()
        except KeyboardInterrupt:
            pass
        yield

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main)


def test_a_second_ctrl_c_while_a_wait_is_made_ends_the_run():
    class File:
        def fileno(self):
            strike()
            strike()

    log = []

    def main():
        try:
            yield ReadWait(File())
        except BaseException as exc:
            log.append(type(exc))
            raise

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main)
    assert log == [GeneratorExit]  # its body is closed, and nothing is thrown into it


def test_a_second_ctrl_c_in_a_hook_or_a_callback_is_not_reported_but_raised():
    def main():
        scheduler = corolib.current_scheduler()
        strike()
        scheduler.call_at(corolib.now(), lambda _: strike(), None)
        scheduler.call_soon_threadsafe(strike)
        yield Sleep(1000)

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main, **virtual_time())

    def fails():
        raise ValueError
        yield

    def parent():
        spawn(fails)
        strike()
        yield Sleep(1000)

    with pytest.raises(KeyboardInterrupt):
        corolib.run(parent, on_task_error=lambda task, exc: strike(), **virtual_time())


def test_a_ctrl_c_in_the_last_moment_still_leaves_run():
    def main():
        strike()
        return "done before it could be delivered"
        yield

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main)


def test_a_ctrl_c_while_the_run_gives_its_files_back_still_leaves_run(monkeypatch):
    from corolib.poller import Poller

    close = Poller.close

    def interrupted(self):
        strike()
        close(self)

    monkeypatch.setattr(Poller, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        corolib.run(lambda: (yield))


def test_two_ctrl_cs_in_one_arm_end_the_run_on_the_spot():
    def arm(wake):
        strike()
        strike()

    def main():
        yield Suspend(arm, "two interrupts")

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main)


def test_an_async_generator_dropped_after_an_abandoned_run_is_let_go():
    kept = []

    async def numbers():
        try:
            yield 1
        finally:
            kept.append("closed")

    async def main():
        agen = numbers()
        kept.append(agen)
        await agen.__anext__()
        strike()
        strike()

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main)
    kept.clear()  # its finalizer finds a scheduler that takes no more calls


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


@pytest.mark.hazard("H63")
@pytest.mark.parametrize("seed", range(4))
def test_interrupts_at_random_moments_leave_run_once_and_leave_nothing_behind(seed):
    """A real signal at a random microsecond of a run that never ends by itself."""
    program = f"""
        import gc, os, random, signal, sys, threading, time
        import corolib
        from corolib import Sleep, spawn

        signal.signal(signal.SIGINT, signal.default_int_handler)
        rng = random.Random({seed})
        started = ended = interrupts = 0

        def child():
            global started, ended
            started += 1
            try:
                while True:
                    yield Sleep(0.0001)
            finally:
                yield
                ended += 1

        def main():
            for _ in range(3):
                spawn(child)
            while True:
                yield

        def shoot(delay):
            time.sleep(delay)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        corolib.run(lambda: (yield))
        base = len(os.listdir("/proc/self/fd"))
        for _ in range({RUNS}):
            gun = threading.Thread(target=shoot, args=(rng.random() * 0.002,))
            try:
                gun.start()
                corolib.run(main)
            except KeyboardInterrupt:
                interrupts += 1
            gun.join()
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == base
        print(interrupts, started == ended)
    """
    status, out, err = python(program)
    assert (status, out, err) == (0, f"{RUNS} True\n", "")


@pytest.mark.hazard("H63")
def test_an_interrupt_at_any_line_of_the_beginning_leaves_no_file_to_the_garbage_collector():
    """A socket's finalizer swallows the KeyboardInterrupt that comes while it runs: the next run
    would never have heard of it.
    """
    program = """
        import gc, os, signal, sys
        import corolib

        signal.signal(signal.SIGINT, signal.default_int_handler)

        def trace(frame, event, arg):
            global left
            left -= event == "line"
            if left < 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
            return trace

        def main():
            sys.settrace(None)
            yield

        def files():
            return set(os.listdir("/proc/self/fd"))

        corolib.run(main)
        gc.disable()
        base, lines, interrupted = files(), 0, True
        while interrupted:
            left = lines
            sys.settrace(trace)
            try:
                corolib.run(main)
                interrupted = False
            except KeyboardInterrupt:
                lines += 1
            assert len(files()) == len(base), (lines, files() - base)
            gc.collect()
            # Up to CPython 3.12 a trace function that raises may leak the frame that it looks at,
            # and with it a scheduler: each would make the next beginning longer.
            corolib.surroundings._schedulers.clear()
        print(lines > 100)
    """
    assert python(program) == (0, "True\n", "")


# Other signals ------------------------------------------------------------------------------


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
            timer = threading.Timer(0.05, fire)
            timer.start()
            with pytest.raises(ValueError, match="out of a handler"):
                yield Sleep(1000)
            timer.join()
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
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    scheduler = corolib.Scheduler()
    try:
        timer.start()
        with pytest.raises(ValueError, match="nobody"):
            scheduler.turn()
    finally:
        timer.join()
        scheduler.close()
        signal.signal(signal.SIGUSR1, before)


def test_a_wake_from_a_signal_handler_ends_the_wait_of_the_selector():
    """SIGUSR1 and no wake-up fd: only the wake itself can end the wait."""
    box = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: box.pop()("from the handler"))
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    try:

        def main():
            timer.start()
            return (yield Suspend(lambda wake: box.append(wake) or int, "x", outside=True))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signal, "set_wakeup_fd", lambda *args, **options: -1)
            assert corolib.run(main) == "from the handler"
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


def test_dump_signal_prints_all_tasks_while_the_program_waits(capfd):
    def sleeper():
        yield Sleep(1000)

    def main():
        task = spawn(sleeper)
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        yield Sleep(0.2)
        timer.join()
        task.cancel()

    before = signal.getsignal(signal.SIGUSR1)
    corolib.run(main, dump_signal=signal.SIGUSR1)
    err = capfd.readouterr().err
    assert "main#1  Sleep(0.2)" in err
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
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            yield Sleep(1000)
        finally:
            timer.join()

    signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(corolib.TaskCancelled):
            corolib.run(main)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert log == (["spawned"] if what == "spawn" else [])


def test_a_second_ctrl_c_that_a_task_swallows_ends_the_run_with_the_turn():
    def stubborn():
        try:
            strike()
            strike()
        except BaseException:
            pass
        yield Sleep(1000)

    def main():
        spawn(stubborn)
        yield Sleep(1000)

    def clock():
        return 0.0  # time stands still: only the swallowed interrupt can end this

    with pytest.raises(KeyboardInterrupt):
        corolib.run(main, clock=clock)


def test_a_turn_lets_system_exit_of_a_task_out_once():
    def leaves():
        yield
        raise SystemExit(3)

    scheduler = corolib.Scheduler()
    scheduler.spawn(leaves)
    scheduler.turn(0)
    with pytest.raises(SystemExit):
        scheduler.turn(0)

    def main():
        yield
        return "healthy"

    assert scheduler.run(main) == "healthy"


# Forks --------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("statement", ["yield", "return"])
@pytest.mark.parametrize("block", ["contextlib.nullcontext()", "shield()", "timeout(60)"])
def test_a_forked_child_that_goes_on_gets_an_error_and_no_other_task_is_stepped(block, statement):
    program = f"""
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
            with {block}:
                child = os.fork() == 0
            try:
                if child:
                    {statement}
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
            os._exit(0)
        print("parent done")
    """
    status, out, err = python(program)
    text = "this scheduler belongs to the parent process; in a forked child, run() makes a new one"
    assert out.splitlines() == [
        *("clean-up in the child", text, f"again: {text}"),
        *("clean-up in the parent", "parent done"),
    ]
    assert (status, err) == (0, "")


def test_a_scheduler_that_never_ran_survives_a_fork():
    scheduler = corolib.Scheduler()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            scheduler.turn()
        except RuntimeError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    scheduler.turn(0)
    scheduler.close()


def test_in_a_forked_child_the_wait_that_comes_next_is_refused():
    """What a fork does in the child, done here, where it can be measured."""

    def main():
        corolib.current_scheduler().on_fork()
        yield Sleep(1)

    with pytest.raises(RuntimeError, match="belongs to the parent process"):
        corolib.run(main)

    def ends():
        corolib.current_scheduler().on_fork()
        return
        yield

    with pytest.raises(RuntimeError, match="belongs to the parent process"):
        corolib.run(ends)
    guarded = []

    def guards():
        corolib.current_scheduler().on_fork()
        try:
            yield
        finally:
            guarded.append("its clean-up runs, before anything of the parent's")

    def catches():
        corolib.current_scheduler().on_fork()
        try:
            yield
        except RuntimeError:
            return

    for body in (guards, catches):
        with pytest.raises(RuntimeError, match="belongs to the parent process"):
            corolib.run(body)
    assert len(guarded) == 1
    idle = corolib.Scheduler()
    idle.on_fork()
    with pytest.raises(RuntimeError, match="belongs to the parent process"):
        idle.turn()
    idle.close()


# Threads ------------------------------------------------------------------------------------


def test_law_threads_one_scheduler_per_thread_and_each_its_own():
    results = []

    def main(name):
        yield Sleep(0.001)
        return name

    def work(name):
        results.append(corolib.run(main, name))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 2, 3, 4]


def test_law_threads_plain_calls_from_another_thread_are_refused():
    errors = []

    def work(task, scheduler):
        for call in (
            task.cancel,
            lambda: spawn(lambda: (yield)),
            lambda: scheduler.spawn(lambda: (yield)),
            lambda: scheduler.close_file(0),
            scheduler.turn,
            corolib.current_task,
            corolib.now,
        ):
            try:
                call()
            except RuntimeError as exc:
                errors.append(str(exc))

    def main():
        thread = threading.Thread(
            target=work, args=(corolib.current_task(), corolib.current_scheduler())
        )
        thread.start()
        thread.join()
        yield
        return "unharmed"

    assert corolib.run(main) == "unharmed"
    assert len(errors) == 7
    assert all("from_thread" in text for text in errors)


def test_law_threads_call_soon_threadsafe_hands_a_cancel_over():
    def sleeper():
        yield Sleep(1000)

    def main():
        task = spawn(sleeper)
        scheduler = corolib.current_scheduler()
        thread = threading.Thread(
            target=lambda: scheduler.call_soon_threadsafe(task.cancel, "from afar")
        )
        thread.start()
        with pytest.raises(corolib.TaskCancelled, match="from afar"):
            yield from task
        thread.join()

    corolib.run(main)


def test_law_threads_calls_after_the_run_raise_run_finished():
    box = []

    def main():
        box.append(corolib.current_scheduler())

        def arm(wake):
            box.append(wake)
            wake()
            return int

        yield Suspend(arm, "a wake to keep")

    corolib.run(main)
    scheduler, wake = box
    for call in (
        wake,
        lambda: scheduler.call_soon_threadsafe(print),
        lambda: scheduler.run(main),
        scheduler.turn,
    ):
        with pytest.raises(corolib.RunFinished):
            call()


def test_calls_left_when_the_run_ends_are_made_and_their_failures_reported():
    made, errors = [], []

    def fails():
        raise ValueError

    def main():
        scheduler = corolib.current_scheduler()
        scheduler.call_soon_threadsafe(made.append, 1)
        scheduler.call_soon_threadsafe(fails)
        return
        yield

    corolib.run(main, on_task_error=lambda task, exc: errors.append((task.name, type(exc))))
    assert made == [1]
    assert errors == [("main", ValueError)]


def test_run_inside_a_task_is_refused():
    def main():
        with pytest.raises(RuntimeError, match=r"use spawn\(f, \*args\)"):
            corolib.run(main)
        yield
        return "unharmed"

    assert corolib.run(main) == "unharmed"


def test_a_run_leaves_no_file_behind(pair, selector):
    a, b = pair

    def main():
        b.send(b"x")
        yield ReadWait(a)

    before = open_files()
    for _ in range(10):
        corolib.run(main, selector=selector)
    assert open_files() == before


@pytest.mark.parametrize("seed", range(3))
def test_wakes_from_threads_and_cancels_race_without_a_loss(seed):
    """Whoever comes first wins, the other is void, and no task is stepped twice for one wait."""
    rng = random.Random(seed)
    outcomes = {"woken": 0, "cancelled": 0}

    def waiter(wakes):
        try:
            yield Suspend(lambda wake: wakes.append(wake) or int, "a race", outside=True)
            outcomes["woken"] += 1
        except corolib.Cancelled:
            outcomes["cancelled"] += 1
            raise

    def main():
        for _ in range(200):
            wakes = []
            tasks = [spawn(waiter, wakes) for _ in range(5)]
            while len(wakes) < 5:
                yield
            todo = list(wakes)
            rng.shuffle(todo)
            thread = threading.Thread(target=lambda todo=todo: [wake() for wake in todo])
            thread.start()
            for task in tasks:
                task.cancel()
            yield
            thread.join()
            for task in tasks:
                try:
                    yield from task
                except corolib.TaskCancelled:
                    pass
        return "done"

    assert corolib.run(main) == "done"
    assert sum(outcomes.values()) == 1000


@pytest.mark.hazard("H63")
def test_nothing_is_called_when_a_scheduler_dies_in_which_a_ctrl_c_could_be_lost():
    scheduler = corolib.Scheduler()
    references = weakref.getweakrefs(scheduler)
    assert references
    assert [each.__callback__ for each in references] == [None] * len(references)
    scheduler.close()


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
