"""corolib with `async def`."""

from __future__ import annotations

from collections.abc import Callable

from corolib import Event, Lock, Queue, Sleep, run, to_thread
from corolib import spawn as start
from corolib import timeout as within
from demos.bench.tasks import LOCKERS, LONG, SWITCHERS, nothing, pause


def switch(n: int) -> None:
    async def switcher() -> None:
        for _ in range(n // SWITCHERS):
            await Sleep(0)

    async def main() -> None:
        for _ in range(SWITCHERS):
            start(switcher)

    run(main)


def spawn(n: int) -> None:
    async def task() -> None:
        return

    async def main() -> None:
        for _ in range(n):
            await start(task)

    run(main)


async def sleeper(number: int) -> None:
    await Sleep(pause(number))


def sleepers(n: int) -> None:
    async def main() -> None:
        for number in range(n):
            start(sleeper, number)

    run(main)


def handover(n: int) -> None:
    async def main() -> None:
        queue: Queue[int] = Queue(1)

        async def produce() -> None:
            for item in range(n):
                await queue.put(item)

        start(produce)
        for _ in range(n):
            await queue.get()

    run(main)


def timeout(n: int) -> None:
    async def main() -> None:
        for _ in range(n):
            with within(5):
                await Sleep(0)

    run(main)


async def long() -> None:
    await Sleep(LONG)


def cancel(n: int) -> None:
    async def main() -> None:
        for _ in range(n):
            task = start(long)
            await Sleep(0)
            await task.stop()

    run(main)


def lock(n: int) -> list[int]:
    order: list[int] = []

    async def main() -> None:
        mutex = Lock()

        async def locker(number: int) -> None:
            for _ in range(n // LOCKERS):
                async with mutex:
                    order.append(number)
                    await Sleep(0)

        for number in range(LOCKERS):
            start(locker, number)

    run(main)
    return order


def thread(n: int) -> None:
    async def main() -> None:
        for _ in range(n):
            await to_thread(nothing)

    run(main)


def event(n: int, mark: Callable[[], None]) -> None:
    async def main() -> None:
        happened = Event()
        mark()
        tasks = [start(happened.wait) for _ in range(n)]
        await Sleep(0)
        mark()
        happened.set()
        for task in tasks:
            await task
        mark()

    run(main)


def shutdown(n: int, mark: Callable[[], None]) -> None:
    async def parent() -> None:
        for _ in range(n):
            start(long)
        await Sleep(LONG)

    async def main() -> None:
        mark()
        family = start(parent)
        await Sleep(0)  # it begins
        await Sleep(0)  # its children do
        mark()
        await family.stop()
        mark()

    run(main)
