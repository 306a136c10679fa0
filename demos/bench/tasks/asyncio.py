"""asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from demos.bench.tasks import LOCKERS, LONG, SWITCHERS, nothing, pause

Runner = Callable[[Coroutine[Any, Any, None]], None]


def switch(n: int, run: Runner = asyncio.run) -> None:
    async def switcher() -> None:
        for _ in range(n // SWITCHERS):
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*[switcher() for _ in range(SWITCHERS)])

    run(main())


def spawn(n: int, run: Runner = asyncio.run) -> None:
    async def task() -> None:
        return

    async def main() -> None:
        for _ in range(n):
            await asyncio.create_task(task())

    run(main())


def sleepers(n: int, run: Runner = asyncio.run) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(n):
                group.create_task(asyncio.sleep(pause(number)))

    run(main())


def handover(n: int, run: Runner = asyncio.run) -> None:
    async def main() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def produce() -> None:
            for item in range(n):
                await queue.put(item)

        producer = asyncio.create_task(produce())
        for _ in range(n):
            await queue.get()
        await producer

    run(main())


def timeout(n: int, run: Runner = asyncio.run) -> None:
    async def main() -> None:
        for _ in range(n):
            async with asyncio.timeout(5):
                await asyncio.sleep(0)

    run(main())


def cancel(n: int, run: Runner = asyncio.run) -> None:
    async def main() -> None:
        for _ in range(n):
            task = asyncio.create_task(asyncio.sleep(LONG))
            await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass

    run(main())


def lock(n: int, run: Runner = asyncio.run) -> list[int]:
    order: list[int] = []

    async def main() -> None:
        mutex = asyncio.Lock()

        async def locker(number: int) -> None:
            for _ in range(n // LOCKERS):
                async with mutex:
                    order.append(number)
                    await asyncio.sleep(0)

        await asyncio.gather(*[locker(number) for number in range(LOCKERS)])

    run(main())
    return order


def thread(n: int, run: Runner = asyncio.run) -> None:
    async def main() -> None:
        for _ in range(n):
            await asyncio.to_thread(nothing)

    run(main())


def event(n: int, mark: Callable[[], None], run: Runner = asyncio.run) -> None:
    async def main() -> None:
        happened = asyncio.Event()
        mark()
        tasks = [asyncio.create_task(happened.wait()) for _ in range(n)]
        await asyncio.sleep(0)
        mark()
        happened.set()
        for task in tasks:
            await task
        mark()

    run(main())


def shutdown(n: int, mark: Callable[[], None], run: Runner = asyncio.run) -> None:
    async def main() -> None:
        mark()
        tasks = [asyncio.create_task(asyncio.sleep(LONG)) for _ in range(n)]
        await asyncio.sleep(0)
        mark()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        mark()

    run(main())
