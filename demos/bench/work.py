"""Run one contestant's tasks, in a process of its own:

    $ echo switch 100000 | python3 -m demos.bench.work asyncio
    0.053

For each line of the input, a job and a number, it prints the seconds of CPU that the job took,
without those in which a loop begins and ends; for `shutdown` those from when all slept until all
were gone. Further words are

    idle N              the bytes of memory that each of N sleeping tasks takes: what the system
                        sees, or, with `--memory`, what Python has in use as `tracemalloc` counts it
    growth N COLLECTOR  for N tasks the seconds of CPU until all wait for an event, until all have
                        been woken and joined, until all sleep, until all are cancelled and gone;
                        and the bytes for each that waits for the event

COLLECTOR says what the program does about the garbage collector: a key of `COLLECTORS`.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from types import ModuleType

from demos.bench import allocator
from demos.bench.tasks import check_turns

Many = Callable[[int, Callable[[], None]], None]  # a job with many tasks at a time


COLLECTORS: dict[str, Callable[[], None]] = {
    "default": lambda: None,
    "rarely": lambda: gc.set_threshold(100_000),  # new objects before it looks, instead of 700
    "frozen": gc.freeze,  # never at what is there now, before the tasks are
    "off": gc.disable,
}


def work(name: str, traced: bool) -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # for libraries that have something to say
    tasks = importlib.import_module(f"demos.bench.tasks.{name}")
    if traced:
        tracemalloc.start()
    for line in sys.stdin:
        job, number, *rest = line.split()
        gc.collect()
        if job == "idle":
            found = [idle(tasks.shutdown, int(number), traced)]
        elif job == "growth":
            found = growth(tasks, int(number), *rest)
        elif job == "shutdown":
            found = [phases(tasks.shutdown, int(number), time.process_time)[1]]
        else:
            found = [seconds(getattr(tasks, job), int(number))]
        print(*found, file=out, flush=True)


def seconds(job: Callable[[int], list[int] | None], number: int) -> float:
    """Return what the job takes more than doing it no times: its loop's beginning and end."""
    start = time.process_time()
    job(0)
    between = time.process_time()
    order = job(number)
    end = time.process_time()
    if job.__name__ == "lock":
        check_turns(order or [])
    return (end - between) - (between - start)


def phases(job: Many, number: int, measure: Callable[[], float]) -> tuple[float, float]:
    """Return by how much what is measured grows until all tasks wait, and from then until all are
    gone.
    """
    found: list[float] = []
    job(number, lambda: found.append(measure()))
    begun, waiting, gone = found
    return waiting - begun, gone - waiting


def idle(job: Many, number: int, traced: bool) -> float:
    def used() -> int:
        return tracemalloc.get_traced_memory()[0] if traced else resident(os.getpid())

    job(1, lambda: None)
    gc.collect()
    return phases(job, number, used)[0] / number


def growth(tasks: ModuleType, number: int, collector: str) -> list[float]:
    tasks.event(10, lambda: None)
    tasks.shutdown(10, lambda: None)
    gc.collect()
    COLLECTORS[collector]()
    memory: list[int] = []

    def measure() -> float:
        memory.append(resident(os.getpid()))
        return time.process_time()

    found = [*phases(tasks.event, number, measure)]
    gc.collect()
    found += phases(tasks.shutdown, number, time.process_time)
    return [*found, (memory[1] - memory[0]) / number]


def resident(pid: int) -> int:
    """Return how many bytes of memory a process has for itself."""
    with open(f"/proc/{pid}/statm") as file:
        _, pages, shared, *_ = map(int, file.read().split())
    return (pages - shared) * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    words = sys.argv[1:]
    if "--as-shipped" not in words:
        allocator.settle()
    work(words[0], "--memory" in words)
