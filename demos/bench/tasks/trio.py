"""trio. It has no way to join one task: a nursery around it does that."""

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
    async def task() -> None:
        return

    async def main() -> None:
        for _ in range(n):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(task)

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
    async def main() -> None:
        for _ in range(n):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, LONG)
                await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

    trio.run(main)


def lock(n: int) -> None:
    async def main() -> None:
        mutex = trio.Lock()

        async def locker() -> None:
            for _ in range(n // LOCKERS):
                async with mutex:
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for _ in range(LOCKERS):
                nursery.start_soon(locker)

    trio.run(main)


def thread(n: int) -> None:
    async def main() -> None:
        for _ in range(n):
            await trio.to_thread.run_sync(nothing)

    trio.run(main)


def idle(n: int, measure: Callable[[], None]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(trio.sleep, LONG)
            await trio.sleep(0.01)
            measure()
            nursery.cancel_scope.cancel()

    trio.run(main)
