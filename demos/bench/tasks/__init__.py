"""What tasks cost without any network. A file is a contestant; a function in it does a job n times.

    switch(n)     100 tasks give way, n times in all
    spawn(n)      a task is started and joined, n times, one after the other
    sleepers(n)   n tasks sleep, each until a time of its own
    handover(n)   n items through a queue that holds one
    timeout(n)    a timeout around one give-way, n times
    cancel(n)     a task that sleeps is cancelled and gone, n times
    lock(n)       10 tasks take a lock in turn, n times in all, and give way while they hold it;
                  it returns the numbers of the tasks in the order in which they had it
    thread(n)     a function that does nothing is called in a thread, n times

And with many tasks at a time; `mark()` is called at the beginning, when all of them wait, and when
all are gone:

    event(n, mark)      n tasks wait for one event, which is then set, and are joined
    shutdown(n, mark)   n tasks sleep, and are cancelled all together, as when a server ends

What a library has no word for is left out. `demos.bench.work` runs them.
"""

from __future__ import annotations

from collections.abc import Sequence

SWITCHERS = 100
LOCKERS = 10
LONG = 1000.0  # seconds


def pause(number: int) -> float:
    """Return how long a sleeper sleeps: something between 10 and 210 ms, in no order."""
    return 0.01 + number * 7919 % 1000 / 5000


def nothing() -> None:
    """What is called in a thread."""


def check_turns(order: Sequence[int]) -> None:
    """Raise ValueError unless the lock was handed from each task to the next.

    A lock that its last holder takes again is nothing that the others waited for: it is never
    handed over, and costs next to nothing.
    """
    first = list(order[:LOCKERS])
    if sorted(first) != list(range(LOCKERS)) or list(order) != first * (len(order) // LOCKERS):
        raise ValueError(f"the lock was not taken in turn: {', '.join(map(str, order[:30]))}, ...")
