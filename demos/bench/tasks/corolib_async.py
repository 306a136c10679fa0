"""corolib with `async def`."""

from __future__ import annotations

from collections.abc import Callable

from corolib import Lock, Queue, Sleep, run, to_thread
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


def lock(n: int) -> None:
    async def main() -> None:
        mutex = Lock()

        async def locker() -> None:
            for _ in range(n // LOCKERS):
                async with mutex:
                    await Sleep(0)

        for _ in range(LOCKERS):
            start(locker)

    run(main)


def thread(n: int) -> None:
    async def main() -> None:
        for _ in range(n):
            await to_thread(nothing)

    run(main)


def idle(n: int, measure: Callable[[], None]) -> None:
    async def main() -> None:
        for _ in range(n):
            start(long, daemon=True)
        await Sleep(0.01)
        measure()

    run(main)
