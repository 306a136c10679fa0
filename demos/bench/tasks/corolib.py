"""corolib with generators."""

from __future__ import annotations

from collections.abc import Callable

from corolib import Coro, Event, Lock, Queue, Sleep, run, to_thread
from corolib import spawn as start
from corolib import timeout as within
from demos.bench.tasks import LOCKERS, LONG, SWITCHERS, nothing, pause


def switch(n: int) -> None:
    def switcher() -> Coro[None]:
        for _ in range(n // SWITCHERS):
            yield

    def main() -> Coro[None]:
        for _ in range(SWITCHERS):
            start(switcher)
        yield

    run(main)


def spawn(n: int) -> None:
    def task() -> Coro[None]:
        return
        yield

    def main() -> Coro[None]:
        for _ in range(n):
            yield from start(task)

    run(main)


def sleeper(number: int) -> Coro[None]:
    yield Sleep(pause(number))


def sleepers(n: int) -> None:
    def main() -> Coro[None]:
        for number in range(n):
            start(sleeper, number)
        yield

    run(main)


def handover(n: int) -> None:
    def main() -> Coro[None]:
        queue: Queue[int] = Queue(1)

        def produce() -> Coro[None]:
            for item in range(n):
                yield from queue.put(item)

        start(produce)
        for _ in range(n):
            yield from queue.get()

    run(main)


def timeout(n: int) -> None:
    def main() -> Coro[None]:
        for _ in range(n):
            with within(5):
                yield

    run(main)


def long() -> Coro[None]:
    yield Sleep(LONG)


def cancel(n: int) -> None:
    def main() -> Coro[None]:
        for _ in range(n):
            task = start(long)
            yield
            yield from task.stop()

    run(main)


def lock(n: int) -> list[int]:
    order: list[int] = []

    def main() -> Coro[None]:
        mutex = Lock()

        def locker(number: int) -> Coro[None]:
            for _ in range(n // LOCKERS):
                with (yield from mutex):
                    order.append(number)
                    yield

        for number in range(LOCKERS):
            start(locker, number)
        yield

    run(main)
    return order


def thread(n: int) -> None:
    def main() -> Coro[None]:
        for _ in range(n):
            yield from to_thread(nothing)

    run(main)


def event(n: int, mark: Callable[[], None]) -> None:
    def main() -> Coro[None]:
        happened = Event()
        mark()
        tasks = [start(happened.wait) for _ in range(n)]
        yield
        mark()
        happened.set()
        for task in tasks:
            yield from task
        mark()

    run(main)


def shutdown(n: int, mark: Callable[[], None]) -> None:
    def parent() -> Coro[None]:
        for _ in range(n):
            start(long)
        yield Sleep(LONG)

    def main() -> Coro[None]:
        mark()
        family = start(parent)
        yield  # it begins
        yield  # its children do
        mark()
        yield from family.stop()
        mark()

    run(main)
