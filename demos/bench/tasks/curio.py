"""curio. Its kernel looks through all ready tasks whenever one is woken, so many are slow."""

from __future__ import annotations

from collections.abc import Callable

import curio

from demos.bench.tasks import LOCKERS, LONG, SWITCHERS, nothing, pause


def switch(n: int) -> None:
    async def switcher() -> None:
        for _ in range(n // SWITCHERS):
            await curio.sleep(0)

    async def main() -> None:
        async with curio.TaskGroup() as group:
            for _ in range(SWITCHERS):
                await group.spawn(switcher)

    curio.run(main)


def spawn(n: int) -> None:
    async def task() -> None:
        return

    async def main() -> None:
        for _ in range(n):
            await (await curio.spawn(task)).join()

    curio.run(main)


def sleepers(n: int) -> None:
    async def main() -> None:
        async with curio.TaskGroup() as group:
            for number in range(n):
                await group.spawn(curio.sleep, pause(number))

    curio.run(main)


def handover(n: int) -> None:
    async def main() -> None:
        queue = curio.Queue(1)

        async def produce() -> None:
            for item in range(n):
                await queue.put(item)

        producer = await curio.spawn(produce)
        for _ in range(n):
            await queue.get()
        await producer.join()

    curio.run(main)


def timeout(n: int) -> None:
    async def main() -> None:
        for _ in range(n):
            async with curio.timeout_after(5):
                await curio.sleep(0)

    curio.run(main)


def cancel(n: int) -> None:
    async def main() -> None:
        for _ in range(n):
            task = await curio.spawn(curio.sleep, LONG)
            await curio.sleep(0)
            await task.cancel()

    curio.run(main)


def lock(n: int) -> list[int]:
    order: list[int] = []

    async def main() -> None:
        mutex = curio.Lock()

        async def locker(number: int) -> None:
            for _ in range(n // LOCKERS):
                async with mutex:
                    order.append(number)
                    await curio.sleep(0)

        async with curio.TaskGroup() as group:
            for number in range(LOCKERS):
                await group.spawn(locker, number)

    curio.run(main)
    return order


def thread(n: int) -> None:
    async def main() -> None:
        for _ in range(n):
            await curio.run_in_thread(nothing)

    curio.run(main)


def event(n: int, mark: Callable[[], None]) -> None:
    async def main() -> None:
        happened = curio.Event()
        mark()
        tasks = [await curio.spawn(happened.wait) for _ in range(n)]
        await curio.sleep(0)
        mark()
        await happened.set()
        for task in tasks:
            await task.join()
        mark()

    curio.run(main)


def shutdown(n: int, mark: Callable[[], None]) -> None:
    async def main() -> None:
        mark()
        tasks = [await curio.spawn(curio.sleep, LONG) for _ in range(n)]
        await curio.sleep(0)
        mark()
        for task in tasks:
            await task.cancel(blocking=False)
        for task in tasks:
            await task.wait()
        mark()

    curio.run(main)
