"""Step 15 of the tour: one task computes, and all others stand still.

    $ python3 -m demos.tour.step15_compute
    at once: 2262 primes; meanwhile 0 ticks
    giving way: 2262 primes; meanwhile 31 ticks

The same work twice: in one step, and in many. How often another task, which wants to go on every
thousandth of a second, could do so meanwhile, shows the difference.
"""

from __future__ import annotations

import argparse

from demos.start import start
from demos.tour.step11_timers import Coro, Sleep
from demos.tour.step14_join import Scheduler

MOST = 20_000


def is_prime(number: int) -> bool:
    return number > 1 and all(number % d for d in range(2, int(number**0.5) + 1))


def primes(most: int) -> int:
    """Return how many primes there are below `most`."""
    return sum(map(is_prime, range(most)))


def at_once(most: int) -> Coro[int]:
    return primes(most)
    yield


def giving_way(most: int) -> Coro[int]:
    count = 0
    for number in range(most):
        count += is_prime(number)
        if number % 100 == 0:
            yield
    return count


def ticks(scheduler: Scheduler, work: Coro[int]) -> Coro[tuple[int, int]]:
    """Do the work in a task; return its result, and how often another task could tick."""
    count = 0

    def tick() -> Coro[None]:
        nonlocal count
        while True:
            yield Sleep(0.001)
            count += 1

    other = scheduler.spawn(tick())
    result = yield from scheduler.spawn(work)
    other.cancel()
    return result, count


def main(options: argparse.Namespace) -> None:
    for title, work in [("at once", at_once), ("giving way", giving_way)]:
        scheduler = Scheduler()
        result, count = scheduler.run(ticks(scheduler, work(MOST)))
        print(f"{title}: {result} primes; meanwhile {count} ticks")


if __name__ == "__main__":
    start(main, __doc__)
