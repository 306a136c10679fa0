"""`async def`: as tasks, awaiting traps, tasks and library functions; async generators."""

import asyncio
import gc

import pytest

from corolib import (
    Cancelled,
    ReadWait,
    Scheduler,
    Sleep,
    Suspend,
    TaskCancelled,
    WriteWait,
    current_scheduler,
    now,
    run,
    spawn,
)
from tests.helpers.driving import double, go
from tests.helpers.inside import drop


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


def test_library_functions_can_be_awaited_and_delegated_to():
    async def coroutine():
        return await double(await double(1))

    def generator():
        return (yield from double((yield from double(1))))

    assert go(coroutine) == go(generator) == 4


def test_tasks_can_be_awaited():
    async def child(x):
        await Sleep(1)
        return x

    async def main():
        a, b = spawn(child, "a"), spawn(child("b"))
        return await a, await b

    assert go(main) == ("a", "b")


def test_a_coroutine_itself_can_be_run():
    async def main():
        await Sleep(1)
        return now()

    assert go(main()) == 1


def test_from_a_generator_an_async_def_is_spawned():
    async def child(x):
        return await double(x)

    def main():
        return (yield from spawn(child, 3))

    assert go(main) == 6


def test_a_generator_task_can_be_awaited():
    def child():
        yield Sleep(1)
        raise ValueError("child")

    async def main():
        with pytest.raises(ValueError, match="child"):
            await spawn(child)
        task = spawn(child)
        assert await task.stop() is None

    go(main)


def test_cancel_and_clean_up():
    log = []

    async def child():
        try:
            await Sleep(100)
        except Cancelled as exc:
            log.append(exc.reason)
            raise
        finally:
            await Sleep(0.5)
            log.append(now())

    async def main():
        task = spawn(child)
        await Sleep(1)
        task.cancel("why")
        with pytest.raises(TaskCancelled):
            await task

    go(main)
    assert log == ["why", 1.5]


def test_an_async_generator_is_consumed():
    async def count(n):
        for i in range(n):
            await Sleep(1)
            yield i

    async def main():
        return [i async for i in count(3)], now()

    assert go(main) == ([0, 1, 2], 3)


def test_frames_are_shown_through_await_and_async_for():
    async def numbers():
        await inner()
        yield 1

    async def inner():
        await double(1)

    async def child():
        async for _ in numbers():
            pass

    def main():
        task = spawn(child)
        yield Sleep(0.5)
        names = [frame.f_code.co_name for frame in task.stack()]
        yield from task
        assert task.stack() == []
        return names

    assert go(main) == ["child", "numbers", "inner", "double"]


@pytest.mark.parametrize("how", ["asend", "athrow", "aclose"])
def test_frames_are_shown_through_the_other_steps_of_an_async_generator(how):
    async def numbers():
        try:
            yield 1
        except KeyError:
            pass
        finally:
            await Sleep(1)
        yield 2

    async def child():
        agen = numbers()
        await agen.__anext__()
        if how == "asend":
            await agen.asend(None)
        elif how == "athrow":
            await agen.athrow(KeyError())
        else:
            await agen.aclose()
        await agen.aclose()

    def main():
        task = spawn(child)
        yield Sleep(0.5)
        names = [frame.f_code.co_name for frame in task.stack()]
        yield from task
        return names

    assert go(main)[:2] == ["child", "numbers"]


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


def test_an_async_generator_dropped_after_the_run_harms_nothing():
    left, kept = Left(), []

    async def main():
        kept.append(left.numbers())

    go(main)
    kept.clear()  # it never began: there is nothing to close
    gc.collect()
    assert left.log == []


def test_a_future_of_asyncio_is_refused():
    loop = asyncio.new_event_loop()
    try:
        future = loop.create_future()

        async def awaits():
            await future

        def yields():
            yield future

        for f in (awaits, yields):
            with pytest.raises(TypeError, match=r"It is asyncio's, and corolib cannot wait for it"):
                go(f)
    finally:
        loop.close()


def test_asyncio_sleep_is_refused_or_fails_in_the_task():
    async def main():
        with pytest.raises((RuntimeError, TypeError)):
            await asyncio.sleep(1)
        await asyncio.sleep(0)  # a bare yield, here as there
        await Sleep(1)
        return "fine"

    assert go(main) == "fine"


def test_a_bare_yield_of_an_awaitable_is_a_turn():
    class GiveWay:
        def __await__(self):
            yield

    async def main():
        turn = current_scheduler().stats()["turns"]
        await GiveWay()
        return current_scheduler().stats()["turns"] - turn

    assert go(main) == 1


def test_an_async_def_that_is_dropped_by_a_failed_spawn_does_not_complain():
    async def child():
        await Sleep(1)

    def main():
        done = spawn(double, 1)
        yield from done
        coroutine = child()
        with pytest.raises(RuntimeError, match="is done"):
            spawn(coroutine, parent=done)
        coroutine.close()

    go(main)


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


def test_an_async_generator_that_is_dropped_after_the_end_of_a_run_is_left_alone():
    async def numbers():
        yield 1

    scheduler = Scheduler()
    scheduler.close()
    drop(scheduler, numbers())
    assert scheduler.tasks == []
