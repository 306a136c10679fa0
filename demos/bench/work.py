"""Run one contestant's tasks, in a process of its own:

    $ echo switch 100000 | python3 -m demos.bench.work asyncio
    0.053

For each line of the input, a job and a number, it prints the seconds of CPU that the job took. For
`idle` it prints the bytes of memory that each of so many tasks takes: what the system sees, or,
with `--memory`, what Python has in use as `tracemalloc` counts it.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time
import tracemalloc
from collections.abc import Callable


def work(name: str, traced: bool) -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # for libraries that have something to say
    tasks = importlib.import_module(f"demos.bench.tasks.{name}")
    if traced:
        tracemalloc.start()
    for line in sys.stdin:
        job, number = line.split()
        if job == "idle":
            found = idle(tasks.idle, int(number), traced)
        else:
            gc.collect()
            start = time.process_time()
            getattr(tasks, job)(int(number))
            found = time.process_time() - start
        print(found, file=out, flush=True)


def idle(job: Callable[..., None], number: int, traced: bool) -> float:
    def used() -> int:
        return tracemalloc.get_traced_memory()[0] if traced else resident(os.getpid())

    found: list[int] = []
    job(1, used)
    gc.collect()
    before = used()
    job(number, lambda: found.append(used()))
    return (found[0] - before) / number


def resident(pid: int) -> int:
    """Return how many bytes of memory a process has for itself."""
    with open(f"/proc/{pid}/statm") as file:
        _, pages, shared, *_ = map(int, file.read().split())
    return (pages - shared) * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    work(sys.argv[1], "--memory" in sys.argv)
