"""Exact counters: the instructions and the system calls that a message takes.

A server is run twice, with different numbers of messages; the difference is what messages cost, and
what starting costs cancels out. The kernel's instructions are not counted, its calls are. Figures
repeat to about one part in a hundred, whatever else the machine does; where the code lies moves
them by as much, since the length of a path decides how names fall into tables. So corolib's own
programs are counted in copies with paths of several lengths, and the median is taken.

What they take is recorded in `recorded.json`, with the interpreter that it was recorded on: another
build takes other numbers of instructions. A test holds to these figures.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demos.bench.contestants import Contestant, interpreter
from demos.bench.measuring import fits, load_on
from demos.bench.processes import ROOT, Failed, Server
from demos.bench.statistics import median
from demos.bench.workloads import Exchanges

RECORDED = Path(__file__).with_name("recorded.json")
OURS = ("corolib_traps", "corolib_once", "corolib_streams", "corolib_async", "corolib_writewait")
ECHO = Exchanges("echo", "echo of 1 KiB, 50 connections", job="echo", connections=50)
FEW, MANY = 500, 2500  # exchanges
REST = 0.2  # seconds in which a server that nobody is connected to does next to nothing
LAYOUTS = 3  # copies of corolib in which its own programs are counted
LARGE = 1 << 18  # bytes of an exchange, above which a tenth of them tells as much

Figures = dict[str, Any]  # "instructions": a number; "calls": for each system call, how many


def missing_tool() -> str:
    """Return the name of a tool that is needed and not there, or ""."""
    return next((name for name in ("valgrind", "strace") if shutil.which(name) is None), "")


def figures(name: str, workload: Exchanges = ECHO) -> Figures:
    """Return what a message costs this contestant."""
    with layouts(LAYOUTS if name in OURS else 0) as roots:
        counts = []
        for root in roots:
            compile_modules(name, workload, root)
            counts.append(instructions(name, workload, root))
    return {"instructions": median(counts), "calls": system_calls(name, workload)}


@contextmanager
def layouts(copies: int) -> Generator[Sequence[Path]]:
    """Make copies of what servers need, at paths of different lengths; none: give the original."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = shutil.ignore_patterns("__pycache__")  # of each Python that ever ran here
        roots = [Path(folder) / ("x" * (3 + 7 * number)) for number in range(copies)]
        for root in roots:
            for part in ("corolib", "demos/bench"):
                shutil.copytree(ROOT / part, root / part, ignore=compiled)
        yield roots or [ROOT]


def compile_modules(name: str, workload: Exchanges, root: Path = ROOT) -> None:
    """Run the server once, uncounted: else one of two runs would compile its modules, and the other
    find them compiled, which looks like thousands of instructions for each message.
    """
    with Server(name, workload.job, root=root) as server:
        exchange(server, workload, 1)


def instructions(name: str, workload: Exchanges = ECHO, root: Path = ROOT) -> float:
    """Return the user instructions for a message, or whatever else the workload counts."""
    few, many = rounds(workload)
    with ThreadPoolExecutor(2) as pool:  # side by side: neither's speed matters
        counts = pool.map(lambda n: counted_instructions(name, workload, n, root), (few, many))
        less, more = counts
    return (more - less) / (many - few) / workload.units


def rounds(workload: Exchanges) -> tuple[int, int]:
    """Return how many exchanges the two runs make."""
    few = FEW if workload.send + workload.expect < LARGE else FEW // 10
    more = 10 if workload.idle else 1  # ten thousand beginnings and ends vary by as much
    return few, few * MANY // FEW * more


def counted_instructions(name: str, workload: Exchanges, count: int, root: Path) -> int:
    tool = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
    with Server(name, workload.job, tool=tool, root=root) as server:
        exchange(server, workload, count)
        server.errors.seek(0)
        found = re.search(r"Collected : (\d+)", server.errors.read())
    if found is None:
        raise Failed(f"valgrind gave no count for {name}")
    return int(found[1])


def system_calls(name: str, workload: Exchanges = ECHO) -> dict[str, float]:
    """Return the system calls for a message, by name, but for those that hardly occur."""
    few, many = rounds(workload)
    with ThreadPoolExecutor(2) as pool:
        less, more = pool.map(lambda n: counted_calls(name, workload, n), (few, many))
    units = (many - few) * workload.units
    calls = {each: (more[each] - less.get(each, 0)) / units for each in sorted(more)}
    return {each: round(count, 3) for each, count in calls.items() if count >= 0.001}


def counted_calls(name: str, workload: Exchanges, count: int) -> dict[str, int]:
    with tempfile.NamedTemporaryFile("r") as out:
        tool = ("strace", "-I", "2", "-c", "-f", "-o", out.name)
        with Server(name, workload.job, tool=tool) as server:
            exchange(server, workload, count)
        rows = [line.split() for line in out.read().splitlines()]
    counts = {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit()}
    counts.pop("total", None)
    if not counts:
        raise Failed(f"strace gave no table for {name}")
    return counts


def exchange(server: Server, workload: Exchanges, count: int) -> None:
    """Make so many exchanges with the server, and end it, when all have left: else it would be
    told to end in the middle of that, each time in another place.
    """
    with load_on(server, workload, core=None) as load:
        load.order(f"count {count}")
    used = -1.0
    for _ in range(50):  # some are never quite at rest
        if (now := server.cpu()) - used < REST / 20:
            break
        used = now
        time.sleep(REST)
    server.end(server.pid)


def report(
    workloads: list[Exchanges], contestants: list[Contestant], say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the figures of these contestants in these workloads."""
    done = []
    for workload in workloads:
        results = [result(workload, each, say) for each in contestants if fits(workload, each)]
        done.append({**asdict(workload), "rounds": rounds(workload), "results": results})
    return {"interpreter": interpreter(), "build": build(), "workloads": done}


def result(
    workload: Exchanges, contestant: Contestant, say: Callable[[str], None]
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "contestant": contestant.name,
        "title": contestant.title,
        "failed": "",
    }
    try:
        found |= figures(contestant.name, workload)
        said = f"{found['instructions']:,.0f} instructions"
    except Failed as exc:
        said = found["failed"] = str(exc)
    say(f"{workload.name}: {contestant.title}: {said}")
    return found


# The recorded figures -------------------------------------------------------------------------


def build() -> str:
    """Return what tells this interpreter from any other: its version, and a hash of its files."""
    files = {os.path.realpath(sys.executable)}
    try:
        maps = Path("/proc/self/maps").read_text()
        files |= set(re.findall(r"/\S*/libpython\S*", maps))  # where it is a shared library
    except OSError:
        pass
    digest = hashlib.sha256()
    for each in sorted(files):
        digest.update(Path(each).read_bytes())
    return f"{sys.version.split()[0]} {digest.hexdigest()[:16]}"


def record(names: Sequence[str], say: Callable[[str], None]) -> dict[str, Figures]:
    """Return what is recorded of these contestants."""
    programs = {}
    for number, name in enumerate(names, 1):
        say(f"exact: {number} of {len(names)}, {name}")
        programs[name] = figures(name)
    return programs


def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def reason_not_to_compare() -> str:
    """Return why the recorded figures say nothing here, or ""."""
    if tool := missing_tool():
        return f"{tool} is not installed"
    if not RECORDED.exists():
        return "nothing is recorded: python3 -m demos.bench --record exact"
    if build() != recorded()["build"]:
        return f"recorded with another interpreter, {recorded()['build']}; this is {build()}"
    return ""
