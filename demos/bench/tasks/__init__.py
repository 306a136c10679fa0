"""What tasks cost without any network. A file is a contestant; a function in it does a job n times.

    switch(n)     100 tasks give way, n times in all
    spawn(n)      a task is started and joined, n times, one after the other
    sleepers(n)   n tasks sleep, each until a time of its own
    handover(n)   n items through a queue that holds one
    timeout(n)    a timeout around one give-way, n times
    cancel(n)     a task that sleeps is cancelled and gone, n times
    lock(n)       10 tasks take a lock in turn, n times in all, and give way while they hold it
    thread(n)     a function that does nothing is called in a thread, n times
    idle(n, measure)   measure() is called while n tasks sleep

What a library has no word for is left out. `demos.bench.work` runs them.
"""

from __future__ import annotations

SWITCHERS = 100
LOCKERS = 10
LONG = 1000.0  # seconds


def pause(number: int) -> float:
    """Return how long a sleeper sleeps: something between 10 and 210 ms, in no order."""
    return 0.01 + number * 7919 % 1000 / 5000


def nothing() -> None:
    """What is called in a thread."""
