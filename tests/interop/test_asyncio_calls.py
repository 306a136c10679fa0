"""asyncio on both sides: its libraries called from tasks, and corolib as a guest in its loop."""

import asyncio
import contextvars
import gc
import os
import selectors
import threading
import time
from contextlib import suppress

import pytest

from corolib import (
    Cancelled,
    CancelScope,
    Event,
    Queue,
    RunFinished,
    Scheduler,
    Sleep,
    TaskCancelled,
    current_scheduler,
    current_threads,
    gather,
    listen_tcp,
    move_on_after,
    now,
    run,
    spawn,
    timeout,
    to_thread,
    wait_future,
)
from corolib.interop import asyncio_calls, open_asyncio, run_in_asyncio
from tests.helpers.driving import LONG, sleeper, until
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import remake_selector

var = contextvars.ContextVar("var", default="unset")


def in_thread(f):
    """Run a task function, whose asyncio has a thread of its own."""
    return run(f)


def in_guest(f):
    """Run a task function inside asyncio."""
    return asyncio.run(run_in_asyncio(f))


both = pytest.mark.parametrize("run_it", [in_thread, in_guest])


async def double(x):
    await asyncio.sleep(0)
    return 2 * x


async def fail(error):
    await asyncio.sleep(0)
    raise error


# Calls into asyncio -------------------------------------------------------------------------------


@both
def test_values_and_exceptions_cross_unchanged(run_it):
    error = KeyError("mine")

    def main():
        with open_asyncio() as aio:
            assert (yield from gather(*[aio(double(n)) for n in range(100)])) == [
                2 * n for n in range(100)
            ]
            with pytest.raises(KeyError) as caught:
                yield from aio(fail(error))
            assert caught.value is error
            with pytest.raises(asyncio.CancelledError):
                yield from aio(fail(asyncio.CancelledError()))
            return threading.get_ident()

    assert run_it(main) == threading.get_ident()


@both
def test_an_async_def_of_corolib_calls_it_too_and_other_awaitables_are_taken(run_it):
    class Ready:
        def __await__(self):
            return (yield from asyncio.sleep(0, "ready").__await__())

    async def main():
        with open_asyncio() as aio:
            return await aio(Ready())

    assert run_it(main) == "ready"


@both
def test_context_variables_cross_and_stay_the_callers(run_it):
    async def look():
        found = var.get()
        var.set("changed there")
        return found

    def main():
        var.set("of the task")
        with open_asyncio() as aio:
            assert (yield from aio(look())) == "of the task"
            assert var.get() == "of the task"

    run_it(main)


@both
def test_what_waits_in_asyncio_keeps_nobody_waiting_here(run_it):
    ticks = []

    async def slow():
        for _ in range(2000):
            if len(ticks) >= 4:
                return
            await asyncio.sleep(0.005)

    def tick():
        while True:
            ticks.append(now())
            yield Sleep(0.005)

    def main():
        spawn(tick, daemon=True)
        with open_asyncio() as aio:
            yield from aio(slow())

    run_it(main)
    assert len(ticks) >= 4


@both
def test_a_cancelled_wait_cancels_the_asyncio_task_and_waits_until_it_is_gone(run_it):
    log = []

    async def slow():
        log.append("begun")
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            log.append("cancelled")
            await asyncio.sleep(0.02)
            log.append("gone")
            raise

    def cancel(scope):
        while not log:
            yield Sleep(0.001)
        scope.cancel()

    def main():
        with open_asyncio() as aio:
            with CancelScope() as scope:
                spawn(cancel, scope)
                yield from aio(slow())
            assert scope.cancelled_caught
            assert log == ["begun", "cancelled", "gone"]
            assert (yield from aio(double(1))) == 2

    run_it(main)


@both
def test_clean_up_there_takes_no_longer_than_the_grace(run_it):
    begun, over = [], []

    async def stubborn():
        begun.append(0)
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)
                if over:
                    return

    def main():
        with open_asyncio() as aio:
            task = spawn(aio(stubborn()))
            while not begun:
                yield Sleep(0.001)
            current_scheduler().grace = 0.05
            with timeout(LONG):
                yield from task.stop()
            over.append(0)

    run_it(main)


@both
def test_a_failure_that_nobody_waits_for_any_more_is_reported(run_it, caplog):
    begun = []

    async def fails_when_cancelled():
        begun.append(0)
        try:
            await asyncio.sleep(100)
        finally:
            raise KeyError("while it ended")

    def main():
        with open_asyncio() as aio:
            task = spawn(aio(fails_when_cancelled()))
            while not begun:
                yield Sleep(0.001)
            yield from task.stop()

    run_it(main)
    assert "while it ended" in caplog.text
    assert "after its caller was cancelled" in caplog.text


@both
def test_a_call_that_was_never_begun_is_closed(run_it):
    def main():
        with open_asyncio() as aio:
            task = spawn(aio(double(1)))
            task.cancel()
            with pytest.raises(TaskCancelled):
                yield from task
            with move_on_after(0):
                yield from aio(double(1))
        with pytest.raises(RuntimeError, match="is over"):
            yield from aio(double(1))

    run_it(main)
    gc.collect()  # a coroutine that nobody awaited would warn, which is an error


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_stops_a_loop_is_the_callers_and_the_loop_goes_on(kind):
    def main():
        with open_asyncio() as aio:
            with pytest.raises(kind):
                yield from aio(fail(kind(3)))
            return (yield from aio(double(21)))

    assert run(main) == 42


def test_a_call_made_while_the_block_ends_is_refused_or_cancelled():
    """It must not wait for a loop that is closed, at whichever moment it comes."""

    def call(aio):
        with suppress(RuntimeError, asyncio.CancelledError):
            yield from aio(double(1))

    def main():
        for turns in range(40):
            with open_asyncio() as aio:
                task = spawn(call, aio)
                for _ in range(turns % 8):
                    yield Sleep(0.0002)
            yield from task

    run(main)


def test_open_blocks_take_no_place_of_other_threads():
    def work():
        with open_asyncio() as aio:
            yield from aio(double(1))
            assert (yield from to_thread(int, "7")) == 7

    def main():
        current_threads().limit = 1
        yield from gather(*[work() for _ in range(5)])

    run(main)


def test_a_call_without_a_block_says_how_it_is_used():
    def main():
        with pytest.raises(RuntimeError, match="with open_asyncio"):
            yield from open_asyncio()(double(1))

    run(main)


async def nested(queue):
    await queue.get()


@both
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda queue: queue.get(), r"aio\(\) got Queue.get, which waits in corolib \(get from"),
        (lambda queue: Sleep(1), r"aio\(\) got Sleep, which waits in corolib \(Sleep\(1.0\)\)"),
        (nested, r"aio\(\) got nested, which waits in corolib \(get from <Queue"),
        (sleeper, r"aio\(\) got sleeper, which waits in corolib \(a generator\): .*`yield from f"),
    ],
)
def test_what_waits_in_corolib_is_not_for_asyncio(run_it, make, text):
    def main():
        with open_asyncio() as aio:
            with pytest.raises(TypeError, match=text):
                yield from aio(make(Queue(1)))
            with pytest.raises(RuntimeError, match=r"^its own$"):
                yield from aio(fail(RuntimeError("its own")))

    run_it(main)


def test_what_is_no_body_is_told_by_the_name_of_the_call():
    with pytest.raises(TypeError, match=r"^run_in_asyncio\(\) got 5: .*`run_in_asyncio\(f, x\)`"):
        asyncio.run(run_in_asyncio(5))


def test_the_thread_ends_with_the_block_and_what_is_left_in_it_is_cancelled():
    log, begun = [], []

    async def for_ever():
        begun.append(0)
        try:
            await asyncio.sleep(1000)
        finally:
            log.append("left behind")

    async def begin():
        log.append(asyncio.create_task(for_ever()))
        await asyncio.sleep(0)

    def main():
        with open_asyncio() as aio:
            yield from aio(begin())
            waiter = spawn(aio(for_ever()))
            yield from until(lambda: len(begun) == 2)
        with pytest.raises(asyncio.CancelledError):
            yield from waiter

    before = threading.active_count()
    run(main)
    assert log[1:] == ["left behind", "left behind"]
    assert threading.active_count() <= before + 1  # a free thread of the pool


def test_a_block_without_any_call_and_one_that_is_left_at_once():
    def main():
        with open_asyncio():
            pass
        with open_asyncio():
            yield
        with pytest.raises(KeyError):
            with open_asyncio():
                raise KeyError
        yield

    run(main)


def test_a_loop_that_cannot_be_made_is_an_error_of_each_call(monkeypatch):
    def refuse():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio, "Runner", refuse)

    def main():
        with open_asyncio() as aio:
            for _ in range(2):
                with pytest.raises(OSError, match="Too many open files"):
                    yield from aio(double(1))

    run(main)


def test_a_loop_that_fails_at_its_end_is_reported(monkeypatch, caplog):
    class Failing(asyncio.Runner):  # type: ignore[misc]
        def close(self):
            super().close()
            raise KeyError("at its end")

    monkeypatch.setattr(asyncio, "Runner", Failing)

    def main():
        with open_asyncio() as aio:
            yield from aio(double(1))

    run(main)
    assert "at its end" in caplog.text


def test_a_run_that_is_cut_short_stops_the_loop():
    scheduler = Scheduler(grace=0.01)
    begun = threading.Event()

    async def for_ever():
        begun.set()
        await asyncio.sleep(1000)

    def task():
        with open_asyncio() as aio:
            yield from aio(for_ever())

    scheduler.spawn(task)
    while not begun.is_set():
        scheduler.turn(0.01)
    scheduler.close()
    for _ in range(1000):
        if not any("asyncio" in thread.name for thread in threading.enumerate()):
            break
        time.sleep(0.001)


def test_the_loop_of_a_run_that_ended_meanwhile_ends_too(monkeypatch):
    """The thread comes too late to say that its loop is there."""
    made = threading.Event()

    class Late(asyncio.Runner):  # type: ignore[misc]
        def get_loop(self):
            made.wait(5)
            return super().get_loop()

    monkeypatch.setattr(asyncio, "Runner", Late)
    scheduler = Scheduler(grace=0.01)

    def task():
        with open_asyncio():
            yield Sleep(100)

    scheduler.spawn(task)
    for _ in range(3):
        scheduler.turn(0)
    scheduler.close()
    made.set()


def test_it_needs_a_scheduler():
    with pytest.raises(RuntimeError):
        open_asyncio()


def test_a_door_that_is_not_there():
    import corolib.interop

    with pytest.raises(AttributeError, match="no attribute 'open_trio'"):
        corolib.interop.open_trio()
    assert corolib.interop.open_asyncio is asyncio_calls.open_asyncio


def test_a_call_names_itself_in_reports():
    async def slow():
        await asyncio.sleep(100)

    def main():
        with open_asyncio() as aio:
            task = spawn(aio(slow()))
            while not str(task.wait).startswith("asyncio"):
                yield Sleep(0.001)
            report = current_scheduler().report()
            yield from task.stop()
        return report

    assert "asyncio: test_a_call_names_itself_in_reports.<locals>.slow" in run(main)


def test_nothing_is_left_in_cycles():
    async def raise_one():
        raise KeyError

    def main():
        with open_asyncio() as aio:
            yield from aio(double(1))
            with pytest.raises(KeyError):
                yield from aio(raise_one())
            with move_on_after(0.001):
                yield from aio(asyncio.sleep(1))

    real = {"clock": time.monotonic, "selector": selectors.DefaultSelector}
    assert garbage_of(main, rest=0, **real) == []


# The guest ----------------------------------------------------------------------------------------


def echo(stream):
    while data := (yield from stream.recv(100)):
        yield from stream.sendall(data)


def test_a_server_as_guest_takes_one_turn_for_each_event(monkeypatch):
    """10 000 echoes, also after the selector was remade ten times; nobody polls."""
    turns = 0
    real = Scheduler.turn

    def turn(scheduler, timeout):
        nonlocal turns
        turns += 1
        real(scheduler, timeout)

    monkeypatch.setattr(Scheduler, "turn", turn)
    rounds = 1000 if os.environ.get("COROLIB_SWEEP") == "full" else 100
    ready = []

    def serve():
        listener = listen_tcp("127.0.0.1", 0)
        server = listener.serve(echo)
        ready.append((listener.addresses[0], current_scheduler()))
        yield from server

    async def main():
        guest = asyncio.create_task(run_in_asyncio(serve))
        while not ready:
            await asyncio.sleep(0)
        address, scheduler = ready[0]
        reader, writer = await asyncio.open_connection(*address[:2])
        for part in range(10):
            before = turns
            for _ in range(rounds):
                writer.write(b"x")
                assert await reader.read(10) == b"x"
            assert turns - before <= rounds + 20, part
            remake_selector(scheduler)
        writer.close()
        guest.cancel()
        with pytest.raises(asyncio.CancelledError):
            await guest

    asyncio.run(main())


def test_times_are_kept_and_nothing_turns_meanwhile(monkeypatch):
    turns = []
    real = Scheduler.turn
    monkeypatch.setattr(Scheduler, "turn", lambda *args: turns.append(0) or real(*args))

    def main():
        began = now()
        yield Sleep(0.05)
        return now() - began

    assert asyncio.run(run_in_asyncio(main)) >= 0.05
    assert len(turns) <= 5


def test_a_guest_that_is_cancelled_cleans_up_first():
    log = []

    def main():
        try:
            yield Sleep(100)
        except Cancelled as exc:
            log.append(exc.reason)
            yield Sleep(0.01)
            log.append("clean")
            raise

    async def program():
        guest = asyncio.create_task(run_in_asyncio(main))
        await asyncio.sleep(0.01)
        guest.cancel()
        await asyncio.sleep(0)
        guest.cancel()  # asking again changes nothing
        with pytest.raises(asyncio.CancelledError):
            await guest
        return "goes on"

    assert asyncio.run(program()) == "goes on"
    assert log == ["the wait in asyncio was cancelled", "clean"]


def test_a_wait_that_is_dropped_closes_its_tasks(capsys):
    log = []

    def main():
        try:
            yield Sleep(100)
        finally:
            log.append("closed")

    async def program():
        call = run_in_asyncio(main)
        call.send(None)
        await asyncio.sleep(0)
        call.close()
        await asyncio.sleep(0)

    asyncio.run(program())
    assert log == ["closed"]
    assert "was abandoned" in capsys.readouterr().err


def test_all_its_tasks_are_done_when_it_returns():
    log = []

    def child():
        yield Sleep(0.01)
        log.append("child")

    def main():
        spawn(child)
        return "main"
        yield

    assert asyncio.run(run_in_asyncio(main)) == "main"
    assert log == ["child"]


def test_what_leaves_the_main_task_leaves_the_wait():
    def main():
        yield
        raise KeyError("main")

    with pytest.raises(KeyError, match="main"):
        asyncio.run(run_in_asyncio(main))


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_run_ends_the_wait_and_its_tasks(kind):
    log = []

    def child():
        yield
        raise kind(3)

    def main():
        try:
            spawn(child)
            yield Sleep(100)
        finally:
            log.append("main")

    async def program():
        with pytest.raises(kind):
            await run_in_asyncio(main)

    asyncio.run(program())
    assert log == ["main"]


def test_asyncio_may_set_what_a_task_waits_for():
    event = Event()

    def main():
        yield from event.wait()
        return "set"

    async def program():
        guest = asyncio.create_task(run_in_asyncio(main))
        await asyncio.sleep(0.01)
        event.set()
        return await guest

    assert asyncio.run(program()) == "set"


def test_two_guests_one_after_another_and_side_by_side():
    def nap(seconds):
        yield Sleep(seconds)
        return seconds

    async def program():
        one = await run_in_asyncio(nap, 0.001)
        return one, await asyncio.gather(
            run_in_asyncio(nap, 0.02), run_in_asyncio(nap, 0.01, grace=0.5)
        )

    assert asyncio.run(program()) == (0.001, [0.02, 0.01])


def test_a_guest_needs_a_loop_and_a_selector_with_a_number():
    def main():
        yield

    with pytest.raises(RuntimeError, match="no running event loop"):
        run_in_asyncio(main).send(None)

    async def program():
        with pytest.raises(NotImplementedError, match="no number"):
            await run_in_asyncio(main, selector=selectors.SelectSelector)
        with pytest.raises(TypeError, match=r"^run_in_asyncio\(\) got None"):
            await run_in_asyncio(lambda: None)

    asyncio.run(program())


def test_a_thread_finds_its_way_into_a_guest():
    from corolib import from_thread

    def add(a, b):
        yield
        return a + b

    def main():
        scheduler = current_scheduler()
        return (yield from to_thread(from_thread, scheduler, add, 1, 2))

    assert asyncio.run(run_in_asyncio(main)) == 3


# Futures ------------------------------------------------------------------------------------------


def test_a_future_is_cancelled_with_its_wait_if_asked():
    from concurrent.futures import Future

    def main(cancel):
        future = Future()
        with move_on_after(0.001):
            yield from wait_future(future, cancel=cancel)
        return future.cancelled()

    assert run(main, True) is True
    assert run(main, False) is False


def test_what_is_late_for_a_run_is_dropped():
    """A coroutine that ends after the run: nobody is there to be told."""
    scheduler = Scheduler()
    calls = []

    def main():
        with open_asyncio() as aio:
            yield from aio(double(1))
        calls.append(aio)

    scheduler.spawn(main)
    while not calls:
        scheduler.turn(0.01)
    scheduler.close()
    with pytest.raises(RunFinished):
        scheduler.call_soon_threadsafe(print)
