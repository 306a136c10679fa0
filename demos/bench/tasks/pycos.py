"""pycos, whose scheduler has a thread of its own."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pycos

from demos.bench.tasks import LOCKERS, SWITCHERS, pause


def switch(n: int) -> None:
    def switcher(task: Any = None) -> Generator[Any, Any, None]:
        for _ in range(n // SWITCHERS):
            yield

    def main(task: Any = None) -> Generator[Any, Any, None]:
        for each in [pycos.Task(switcher) for _ in range(SWITCHERS)]:
            yield each.finish()

    pycos.Task(main).value()


def spawn(n: int) -> None:
    def started(task: Any = None) -> Generator[Any, Any, None]:
        yield

    def main(task: Any = None) -> Generator[Any, Any, None]:
        for _ in range(n):
            yield pycos.Task(started).finish()

    pycos.Task(main).value()


def sleepers(n: int) -> None:
    def sleeper(number: int, task: Any = None) -> Generator[Any, Any, None]:
        yield task.sleep(pause(number))

    def main(task: Any = None) -> Generator[Any, Any, None]:
        for each in [pycos.Task(sleeper, number) for number in range(n)]:
            yield each.finish()

    pycos.Task(main).value()


def lock(n: int) -> list[int]:
    order: list[int] = []

    def main(task: Any = None) -> Generator[Any, Any, None]:
        mutex = pycos.Lock()

        def locker(number: int, task: Any = None) -> Generator[Any, Any, None]:
            for _ in range(n // LOCKERS):
                yield mutex.acquire()
                order.append(number)
                yield
                mutex.release()
                yield  # else who released it would take it again

        for each in [pycos.Task(locker, number) for number in range(LOCKERS)]:
            yield each.finish()

    pycos.Task(main).value()
    return order
