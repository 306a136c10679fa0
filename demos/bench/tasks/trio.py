"""trio. It has no way to join one task: an event, set at its end, is cheaper than a nursery."""

from __future__ import annotations

from collections.abc import Callable

import trio

from demos.bench.tasks import LOCKERS, LONG, SWITCHERS, nothing, pause


def switch(n: int) -> None:
    async def switcher() -> None:
        for _ in range(n // SWITCHERS):
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(SWITCHERS):
                nursery.start_soon(switcher)

    trio.run(main)


def spawn(n: int) -> None:
    async def task(done: trio.Event) -> None:
        done.set()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                done = trio.Event()
                nursery.start_soon(task, done)
                await done.wait()

    trio.run(main)


def sleepers(n: int) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(n):
                nursery.start_soon(trio.sleep, pause(number))

    trio.run(main)


def handover(n: int) -> None:
    async def main() -> None:
        sending, receiving = trio.open_memory_channel[int](1)

        async def produce() -> None:
            for item in range(n):
                await sending.send(item)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            for _ in range(n):
                await receiving.receive()

    trio.run(main)


def timeout(n: int) -> None:
    async def main() -> None:
        for _ in range(n):
            with trio.fail_after(5):
                await trio.lowlevel.checkpoint()

    trio.run(main)


def cancel(n: int) -> None:
    async def task(scope: trio.CancelScope, done: trio.Event) -> None:
        with scope:
            await trio.sleep(LONG)
        done.set()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                scope, done = trio.CancelScope(), trio.Event()
                nursery.start_soon(task, scope, done)
                await trio.lowlevel.checkpoint()
                scope.cancel()
                await done.wait()

    trio.run(main)


def lock(n: int) -> list[int]:
    order: list[int] = []

    async def main() -> None:
        mutex = trio.Lock()

        async def locker(number: int) -> None:
            for _ in range(n // LOCKERS):
                async with mutex:
                    order.append(number)
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for number in range(LOCKERS):
                nursery.start_soon(locker, number)

    trio.run(main)
    return order


def thread(n: int) -> None:
    async def main() -> None:
        for _ in range(n):
            await trio.to_thread.run_sync(nothing)

    trio.run(main)


def event(n: int, mark: Callable[[], None]) -> None:
    async def main() -> None:
        happened = trio.Event()
        mark()
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(happened.wait)
            await begun()
            mark()
            happened.set()
        mark()

    trio.run(main)


def shutdown(n: int, mark: Callable[[], None]) -> None:
    async def main() -> None:
        mark()
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(trio.sleep, LONG)
            await begun()
            mark()
            nursery.cancel_scope.cancel()
        mark()

    trio.run(main)


async def begun() -> None:
    """Wait until all tasks have run: those of one round of its scheduler run in any order."""
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
