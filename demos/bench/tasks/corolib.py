"""corolib with generators."""

from __future__ import annotations

from collections.abc import Callable

from corolib import Coro, Lock, Queue, Sleep, run, to_thread
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


def lock(n: int) -> None:
    def main() -> Coro[None]:
        mutex = Lock()

        def locker() -> Coro[None]:
            for _ in range(n // LOCKERS):
                with (yield from mutex):
                    yield

        for _ in range(LOCKERS):
            start(locker)
        yield

    run(main)


def thread(n: int) -> None:
    def main() -> Coro[None]:
        for _ in range(n):
            yield from to_thread(nothing)

    run(main)


def idle(n: int, measure: Callable[[], None]) -> None:
    def main() -> Coro[None]:
        for _ in range(n):
            start(long, daemon=True)
        yield Sleep(0)
        measure()

    run(main)
