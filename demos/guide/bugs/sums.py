"""Four clients ask for sums, and each should have its answer within a few milliseconds."""

from corolib import Coro, Event, Sleep, every, run, spawn
from corolib.trace import mark


def total(numbers: int) -> int:
    found = 0
    for number in range(numbers):
        found += number * number
    return found


def client(opened: Event, numbers: int) -> Coro[None]:
    yield from opened.wait()  # the questions come, all at the same time
    answer = total(numbers)
    mark("answered", numbers=numbers, answer=answer)
    yield Sleep(0.001)  # the answer is sent


def heartbeat() -> Coro[None]:
    for tick in every(0.002):
        missed = yield from tick
        mark("still here", missed=missed)


def service() -> Coro[None]:
    spawn(heartbeat, daemon=True)
    opened = Event("opened")
    for numbers in (10, 500_000, 20, 30):
        spawn(client, opened, numbers)
    yield Sleep(0.003)
    opened.set()


if __name__ == "__main__":
    run(service)
