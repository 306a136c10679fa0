"""Measuring: pairs of processes, of one contestant and the one it is compared with.

A pair is two processes that have just been started. Samples of both are taken in turn, and the
pair's ratio is the median of theirs. The processes of the next pair are new ones, since two runs of
one program differ by a few parts in a hundred, whatever is sampled within a run: by where its
memory happens to lie. So the spread of the pairs' ratios, and the interval that is made of it, is
that of runs; and a machine that is slower for a minute is slower for all contestants, which take
turns.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from demos.bench.contestants import SERVERS, TASKS, Contestant, interpreter
from demos.bench.processes import Child, Failed, Load, Server, cores, load_command
from demos.bench.statistics import interval, median, wide
from demos.bench.workloads import (
    Exchanges,
    Growth,
    IdleConnections,
    IdleTasks,
    Import,
    Latency,
    Repeated,
    Workload,
)

SAMPLES = 4  # of each process of a pair, ...
LASTS = 1.0  # ... unless these seconds are over before
LONGEST = 120  # seconds for one contestant in one workload: then there are no more pairs
LATENCY = 1.0  # seconds of a sample at the least: a thousandth of the exchanges must be several

# What one sample says. "cost" is what is compared: seconds of CPU for a unit, of latency, or bytes.
Sample = dict[str, float]
Sampler = Callable[[], Sample]


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    pairs: int = 9
    seconds: float = 0.06  # of a sample: what disturbs one disturbs few
    shipped: bool = True  # whether servers are also measured with the allocator as shipped


@dataclass
class Figures:
    """What was found for a contestant, and how its reference compares with it."""

    medians: Sample = field(default_factory=dict)
    ratios: list[float] = field(default_factory=list)  # the reference's cost to this one's: a pair
    ratio: float | None = None  # the median of these
    interval: tuple[float, float] | None = None  # in which the true ratio is, with 95 % certainty
    wide: bool = False  # too much so to decide anything


@dataclass
class Result:
    """One contestant in one workload: with the allocator settled, and as shipped."""

    contestant: str
    title: str
    fair: Figures = field(default_factory=Figures)
    shipped: Figures | None = None
    failed: str = ""


# Samplers -------------------------------------------------------------------------------------


@contextmanager
def opened(
    workload: Workload, contestant: Contestant, seconds: float, shipped: bool = False
) -> Generator[Sampler]:
    """Start what is needed, and give the function that takes a sample of so many seconds."""
    if isinstance(workload, Latency):
        with exchanging(workload, contestant, shipped) as take:
            seconds = max(seconds, LATENCY)
            most = take(f"time {seconds / 2}")["per_second"]
            rate = most * workload.share
            yield lambda: late(take(f"rate {rate} {seconds}"), rate)
    elif isinstance(workload, Exchanges):
        with exchanging(workload, contestant, shipped) as take:
            take(f"time {seconds / 2}")  # to get warm
            yield lambda: take(f"time {seconds}")
    elif isinstance(workload, Repeated):
        with working(contestant) as worker:
            worker.tell(f"{workload.job} {max(workload.number // 10, 10)}")  # to get warm
            yield lambda: repeat(worker, workload)
    elif isinstance(workload, Growth):
        yield lambda: grow(workload, contestant)
    elif isinstance(workload, IdleTasks):
        yield lambda: idle_tasks(workload, contestant)
    elif isinstance(workload, IdleConnections):
        yield lambda: idle_connections(workload, contestant)
    elif isinstance(workload, Import):
        yield lambda: importing(workload, contestant)


@contextmanager
def exchanging(
    workload: Exchanges, contestant: Contestant, shipped: bool
) -> Generator[Callable[[str], Sample]]:
    """Start a server and the load on it, and give the function that takes a sample by an order."""
    core, other = cores()
    with (
        Server(contestant.name, workload.job, core, shipped=shipped) as server,
        load_on(server, workload, other) as load,
    ):

        def take(order: str) -> Sample:
            cpu, faults = server.cpu(), server.faults()
            run = load.order(order)
            cpu, faults = server.cpu() - cpu, server.faults() - faults
            units = run.exchanges * workload.units
            return {
                "cost": cpu / units,
                "per_second": units / run.seconds,
                "faults": faults / units,
                "server_busy": cpu / run.seconds,
                "load_busy": run.cpu / run.seconds,
                "p50": run.p50 / 1e6,
                "p99": run.p99 / 1e6,
                "p999": run.p999 / 1e6,
            }

        yield take


def late(sample: Sample, rate: float) -> Sample:
    """Return a sample in which the slowest hundredth is what is compared."""
    return sample | {"cost": sample["p99"], "rate": rate}


def load_on(server: Server, workload: Exchanges, core: int | None) -> Load:
    w = workload
    numbers = (w.connections, w.idle, w.send, w.expect, w.line)
    return Load(server.port, w.kind, *numbers, core=core)


def working(contestant: Contestant, *options: str) -> Child:
    command = [sys.executable, "-m", "demos.bench.work", contestant.name, *options]
    return Child(command, cores()[0])


def repeat(worker: Child, workload: Repeated) -> Sample:
    return {"cost": float(worker.tell(f"{workload.job} {workload.number}")) / workload.number}


def grow(workload: Growth, contestant: Contestant) -> Sample:
    with working(contestant) as worker:
        told = worker.tell(f"growth {workload.number} {workload.collector}")
    *phases, memory = map(float, told.split())
    each = [seconds / workload.number for seconds in phases]
    named = dict(zip(("start", "wake", "sleep", "cancel"), each, strict=True))
    return {"cost": sum(each), **named, "bytes": memory}


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


def importing(workload: Import, contestant: Contestant) -> Sample:
    statement = workload.statement.format(contestant.library or contestant.name)
    program = f"import time; t = time.process_time(); {statement}; print(time.process_time() - t)"
    with Child([sys.executable, "-c", program], cores()[0]) as child:
        return {"cost": float(child.read())}


# Comparing ------------------------------------------------------------------------------------


def fits(workload: Workload, contestant: Contestant) -> bool:
    """Tell whether the contestant has this workload's jobs, for so many connections."""
    if isinstance(workload, Import):
        return contestant.name in (contestant.library, "asyncio")
    if not set(workload.jobs) <= contestant.jobs(workload.folder):
        return False
    if isinstance(workload, Exchanges):
        return workload.connections + workload.idle <= contestant.most
    return not (isinstance(workload, IdleConnections) and contestant.compiled)


def measure(
    workload: Workload,
    reference: Contestant,
    others: Sequence[Contestant],
    plan: Plan,
    say: Callable[[str], None],
) -> list[Result]:
    """Measure the workload: the reference first, then each other in pairs with it.

    The others take turns, pair by pair, and one process of the reference serves for a pair with
    each of them. As shipped, every second pair is taken: that column is no claim.
    """
    found = Found(reference, others)
    pairs = min(plan.pairs, workload.most_pairs)
    for number in range(pairs):
        say(f"{workload.name}: {number + 1} of {pairs}")
        both = plan.shipped and type(workload) is Exchanges and number % 2 == 0
        for shipped in (False, True) if both else (False,):
            with opened(workload, reference, plan.seconds, shipped) as sample:
                for other in found.remaining(number):
                    begun = time.monotonic()
                    try:
                        with opened(workload, other, plan.seconds, shipped) as theirs:
                            found.add(other, shipped, take(sample, theirs))
                    except Failed as exc:
                        found.failed[other] = str(exc)
                    found.spent[other] += time.monotonic() - begun
                if not others:
                    found.add_own(shipped, sample())
    return found.results()


Pair = list[tuple[Sample, Sample]]  # the samples of one: the reference's, and the other's


class Found:
    """What has been measured of a workload so far."""

    def __init__(self, reference: Contestant, others: Sequence[Contestant]) -> None:
        self.all = [reference, *others]
        self.own: dict[bool, list[Sample]] = {}
        self.pairs: dict[tuple[Contestant, bool], list[Pair]] = {}
        self.failed: dict[Contestant, str] = {}
        self.spent = dict.fromkeys(others, 0.0)  # seconds

    def remaining(self, number: int) -> list[Contestant]:
        """Return of whom one more pair is taken; it is another one each time who comes first."""
        start = number % max(len(self.spent), 1)
        return [
            other
            for other in [*self.all[1 + start :], *self.all[1 : 1 + start]]
            if other not in self.failed and self.spent[other] < LONGEST
        ]

    def add(self, other: Contestant, shipped: bool, pair: Pair) -> None:
        self.pairs.setdefault((other, shipped), []).append(pair)
        for mine, _ in pair:
            self.add_own(shipped, mine)

    def add_own(self, shipped: bool, sample: Sample) -> None:
        self.own.setdefault(shipped, []).append(sample)

    def results(self) -> list[Result]:
        return [
            Result(
                each.name,
                each.title,
                self.figures(each, False) or Figures(),
                self.figures(each, True),
                self.failed.get(each, ""),
            )
            for each in self.all
        ]

    def figures(self, contestant: Contestant, shipped: bool) -> Figures | None:
        if contestant == self.all[0]:
            samples = self.own.get(shipped, [])
            return Figures(medians(samples)) if samples else None
        pairs = self.pairs.get((contestant, shipped), [])
        if not pairs:
            return None
        figures = Figures(medians([theirs for pair in pairs for _, theirs in pair]))
        if all(theirs["cost"] > 0 for pair in pairs for _, theirs in pair):  # memory may be none
            figures.ratios = [
                median([mine["cost"] / theirs["cost"] for mine, theirs in pair]) for pair in pairs
            ]
            figures.ratio = median(figures.ratios)
            figures.interval = interval(figures.ratios)
            figures.wide = figures.interval is not None and wide(figures.ratios)
        return figures


def take(first: Sampler, second: Sampler) -> Pair:
    """Take samples of both in turn: A B, B A, A B, ... so that neither is always the later one."""
    taken: Pair = []
    until = time.monotonic() + LASTS
    while len(taken) < SAMPLES and (not taken or time.monotonic() < until):
        if len(taken) % 2:
            b = second()
            a = first()
        else:
            a = first()
            b = second()
        taken.append((a, b))
    return taken


def medians(samples: Sequence[Sample]) -> Sample:
    return {name: median([each[name] for each in samples]) for name in samples[0]}


# The report -----------------------------------------------------------------------------------

Match = tuple[Workload, Contestant, list[Contestant]]  # what, the reference, and the others


def report(matches: Sequence[Match], plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure all of this; return what is written to `bench.json`."""
    done = []
    begun, load_before = time.monotonic(), os.getloadavg()[0]
    for workload, reference, others in matches:
        results = measure(workload, reference, others, plan, say)
        kind = type(workload).__name__
        done.append({**asdict(workload), "kind": kind, "results": [asdict(e) for e in results]})
    return {
        **surroundings(),
        "load": "in Python" if "-m" in load_command(False) else "in C",
        "busy_before": load_before,  # processes that ran beside, at the mean of a minute
        "minutes": (time.monotonic() - begun) / 60,
        **asdict(plan),
        "versions": versions(),
        "left_out": left_out(),
        "workloads": done,
    }


def versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed."""
    return {each.library: each.version for each in SERVERS if each.installed and each.version}


def left_out() -> list[str]:
    """Return what is not installed."""
    return sorted({each.missing for each in [*SERVERS, *TASKS] if each.missing})


def surroundings() -> dict[str, Any]:
    """Return what this machine is, as far as it matters."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    kernel = platform.release().partition("-")[0]
    return {
        "interpreter": interpreter(),
        "optimized": "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
        "machine": f"{platform.system()} {kernel}, {platform.machine()}",
        "processor": models[0] if models else "",
        "libc": " ".join(platform.libc_ver()).strip(),
        "cores": cores(),
    }
