"""Measuring: pairs of samples, back to back, of one contestant and the one it is compared with."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field

from demos.bench.contestants import Contestant
from demos.bench.processes import Child, Failed, Load, Server, cores
from demos.bench.statistics import interval, median, wide
from demos.bench.workloads import (
    Exchanges,
    IdleConnections,
    IdleTasks,
    Import,
    Latency,
    Repeated,
    Workload,
)

LONGEST = 120  # seconds for one contestant: then there are no more pairs
LATENCY = 0.5  # seconds of a sample at the least: a hundredth of the exchanges must be many

# What one sample says. "cost" is what is compared: seconds of CPU for a unit, of latency, or bytes.
Sample = dict[str, float]
Sampler = Callable[[], Sample]


@dataclass
class Result:
    """What was found for one contestant: the medians, and how its reference compares with it."""

    contestant: str
    title: str
    medians: Sample = field(default_factory=dict)
    pairs: int = 0
    ratio: float | None = None  # the reference's cost to this one's
    interval: tuple[float, float] | None = None  # in which the true ratio is, with 95 % certainty
    wide: bool = False  # too much so to decide anything
    failed: str = ""


# Samplers -------------------------------------------------------------------------------------


@contextmanager
def opened(
    workload: Workload, contestant: Contestant, seconds: float, rate: float = 0.0
) -> Generator[Sampler]:
    """Start what is needed, and give the function that takes a sample of so many seconds."""
    if isinstance(workload, Exchanges):
        with exchanging(workload, contestant, seconds, rate) as sampler:
            yield sampler
    elif isinstance(workload, Repeated):
        with working(contestant) as worker:
            worker.tell(f"{workload.job} {workload.number // 10}")  # to get warm
            yield lambda: repeat(worker, workload)
    elif isinstance(workload, IdleTasks):
        yield lambda: idle_tasks(workload, contestant)
    elif isinstance(workload, IdleConnections):
        yield lambda: idle_connections(workload, contestant)
    else:
        yield lambda: importing(contestant)


@contextmanager
def exchanging(
    workload: Exchanges, contestant: Contestant, seconds: float, rate: float
) -> Generator[Sampler]:
    core, other = cores()
    with (
        Server(contestant.name, workload.job, core) as server,
        load_on(server, workload, other) as load,
    ):

        def sample() -> Sample:
            before = server.cpu()
            run = load.order(f"rate {rate} {seconds}" if rate else f"time {seconds}")
            cpu = server.cpu() - before
            units = run.exchanges * workload.units
            return {
                "cost": run.p99 / 1e6 if rate else cpu / units,
                "cpu": cpu / units,
                "per_second": units / run.seconds,
                "server_busy": cpu / run.seconds,
                "load_busy": run.cpu / run.seconds,
                "p50": run.p50 / 1e6,
                "p99": run.p99 / 1e6,
                "p999": run.p999 / 1e6,
            }

        load.order(f"time {seconds / 2}")  # to get warm
        yield sample


def load_on(server: Server, workload: Exchanges, core: int | None) -> Load:
    w = workload
    numbers = (w.connections, w.idle, w.send, w.expect, w.line)
    return Load(server.port, w.kind, *numbers, core=core)


def working(contestant: Contestant, *options: str) -> Child:
    command = [sys.executable, "-m", "demos.bench.work", contestant.name, *options]
    return Child(command, cores()[0])


def repeat(worker: Child, workload: Repeated) -> Sample:
    return {"cost": float(worker.tell(f"{workload.job} {workload.number}")) / workload.number}


def idle_tasks(workload: IdleTasks, contestant: Contestant) -> Sample:
    found = []
    for options in ([], ["--memory"]):
        with working(contestant, *options) as worker:
            found.append(float(worker.tell(f"idle {workload.number}")))
    return {"cost": found[0], "python": found[1]}


def idle_connections(workload: IdleConnections, contestant: Contestant) -> Sample:
    # They have exchanged a byte: what a handler holds of the last message would be counted too.
    found = []
    for memory in (False, True):
        with Server(contestant.name, workload.job, memory=memory) as server:
            used = server.in_use if memory else server.resident
            with Load(server.port, "tcp", 1, 0, 1, 1):
                before = used()
                with Load(server.port, "tcp", 1, workload.number - 1, 1, 1):
                    found.append((used() - before) / workload.number)
    return {"cost": found[0], "python": found[1]}


def importing(contestant: Contestant) -> Sample:
    library = contestant.library or contestant.name
    program = (
        f"import time; t = time.process_time(); import {library}; print(time.process_time() - t)"
    )
    with Child([sys.executable, "-c", program], cores()[0]) as child:
        return {"cost": float(child.read())}


# Comparing ------------------------------------------------------------------------------------


def fits(workload: Workload, contestant: Contestant) -> bool:
    """Tell whether the contestant has this workload's job, for so many connections."""
    if isinstance(workload, Import):
        return contestant.name in (contestant.library, "asyncio")
    folder = "tasks" if isinstance(workload, Repeated | IdleTasks) else "servers"
    if workload.job not in contestant.jobs(folder):
        return False
    if isinstance(workload, Exchanges):
        return workload.connections + workload.idle <= contestant.most
    return True


def measure(
    workload: Workload,
    reference: Contestant,
    others: Iterable[Contestant],
    pairs: int,
    seconds: float,
    say: Callable[[str], None],
) -> list[Result]:
    """Measure the workload: the reference first, then each other in pairs with it."""
    timed = not isinstance(workload, IdleTasks | IdleConnections)
    if not timed:
        pairs = 1
    rate = 0.0
    if isinstance(workload, Latency):
        seconds = max(seconds, LATENCY)
        rate = capacity(workload, seconds) / 2
    results = []
    own: list[Sample] = []
    with opened(workload, reference, seconds, rate) as sample:
        for other in others:
            say(f"{workload.name}: {other.title}")
            result = Result(other.name, other.title)
            results.append(result)
            try:
                with opened(workload, other, seconds, rate) as other_sample:
                    taken = take(sample, other_sample, pairs)
            except Failed as exc:
                result.failed = str(exc)
                continue
            own.extend(mine for mine, _ in taken)
            summarize(result, [theirs for _, theirs in taken])
            if all(theirs["cost"] > 0 for _, theirs in taken):  # memory may be found where it was
                compare(result, [mine["cost"] / theirs["cost"] for mine, theirs in taken], timed)
        own = own or [sample() for _ in range(pairs)]
    first = Result(reference.name, reference.title)
    summarize(first, own)
    for result in [first, *results]:
        if rate:
            result.medians["rate"] = rate
    return [first, *results]


def take(first: Sampler, second: Sampler, pairs: int) -> list[tuple[Sample, Sample]]:
    """Take samples of both in turn: A B, B A, A B, ... so that neither is always the later one."""
    taken: list[tuple[Sample, Sample]] = []
    until = time.monotonic() + LONGEST
    for number in range(pairs):
        if taken and time.monotonic() > until:
            break
        if number % 2:
            b = second()
            a = first()
        else:
            a = first()
            b = second()
        taken.append((a, b))
    return taken


def summarize(result: Result, samples: list[Sample]) -> None:
    result.pairs = len(samples)
    result.medians = {name: median([each[name] for each in samples]) for name in samples[0]}


def compare(result: Result, ratios: list[float], timed: bool) -> None:
    result.ratio = median(ratios)
    result.interval = interval(ratios)
    result.wide = timed and wide(ratios)


def capacity(workload: Latency, seconds: float) -> float:
    """Return how many exchanges a second asyncio's protocol makes at the most."""
    with opened(workload, Contestant("asyncio_protocol", ""), 2 * seconds) as sample:
        return sample()["per_second"]
