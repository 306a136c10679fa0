"""A benchmark: corolib's servers and tasks beside everything else people would pick.

    $ python3 -m demos.bench --quick
    $ python3 -m demos.bench --workloads 'echo-1k-*' lines --contestants epoll uvloop_streams
    $ python3 -m demos.bench --exact --workloads echo-1k-100 tls bulk

Each server runs on one core, the load on another, and what is compared is the server's CPU time
for a message. Each contestant is measured in pairs with corolib, back to back; a ratio is the
median of these, with its 95 % interval. Where that is wider than 5 %, the clock decides nothing,
and the exact counters do: `--exact` counts the instructions and system calls of servers, with
valgrind and strace; without `--workloads`, of an echo of 1 KiB on 50 connections.

What is not installed is named and left out: `pip install 'corolib[bench]'`, or from a clone
`pip install -e '.[bench]'`, has all of it. The table is printed, and written beside a JSON file and
a chart.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from demos.bench import chart, exact, table
from demos.bench.contestants import SERVERS, TASKS, Contestant, interpreter
from demos.bench.measuring import fits, measure
from demos.bench.processes import cache, cores, load_command
from demos.bench.serve import allow_many_files
from demos.bench.workloads import WORKLOADS, Exchanges, IdleTasks, Import, Repeated, Workload
from demos.start import start

OPTIONS: dict[str, dict[str, Any]] = {
    "--quick": {"action": "store_true", "help": "a few workloads, a minute or two"},
    "--exact": {"action": "store_true", "help": "count instructions and system calls instead"},
    "--record": {"action": "store_true", "help": "write down corolib's own exact figures"},
    "--list": {"action": "store_true", "help": "name the workloads and the contestants"},
    "--workloads": {"nargs": "+", "metavar": "NAME", "help": "only these; NAME may be a pattern"},
    "--contestants": {"nargs": "+", "metavar": "NAME", "help": "only these, beside the reference"},
    "--reference": {
        "default": "corolib_streams",
        "metavar": "NAME",
        "help": "the server that the others are compared with; default: %(default)s",
    },
    "--pairs": {"type": int, "help": "default: 101; a claim takes 31; with --quick 7"},
    "--seconds": {"type": float, "help": "of one sample; default: 0.06"},
    "--chart": {"metavar": "NAME", "help": "the workload on the chart; default: echo-1k-100"},
    "--out": {"metavar": "FOLDER", "help": "for bench.json, .md, .svg; default: a cache folder"},
}


def main(options: argparse.Namespace) -> None:
    if sys.platform != "linux":
        sys.exit("the benchmark needs Linux: it reads /proc, and uses epoll")
    allow_many_files()
    for name in options.contestants or []:
        if not any(fnmatch(each.name, name) for each in SERVERS + TASKS):
            sys.exit(f"no contestant is called {name}; --list names them all")
    if options.list:
        list_all()
    elif options.record or options.exact:
        if tool := exact.missing_tool():
            sys.exit(f"{tool} is needed to count, and is not installed")
        if options.record:
            exact.record(say)
        else:
            workloads = [e for e in select(options) if type(e) is Exchanges]
            servers = [each for each in SERVERS if chosen(each, options)]
            report = exact.report(workloads, servers, say)
            write(options, "exact", report, table.exact(report))
    else:
        report = run(options)
        write(options, "bench", report, table.markdown(report), draw(report, options.chart))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what the options ask for; return the report."""
    pairs = options.pairs or (7 if options.quick else 101)
    seconds = options.seconds or 0.06  # many short samples: what disturbs one disturbs its pair
    done = []
    for workload in select(options):
        alike = TASKS if isinstance(workload, Repeated | IdleTasks | Import) else SERVERS
        reference = alike[0]
        for each in alike:
            if each.name == options.reference and fits(workload, each):
                reference = each
        others = [
            each
            for each in alike
            if each != reference and chosen(each, options) and fits(workload, each)
        ]
        results = measure(workload, reference, others, pairs, seconds, say)
        kind = type(workload).__name__
        done.append({**asdict(workload), "kind": kind, "results": [asdict(e) for e in results]})
    libraries = {e.library: e for e in SERVERS if e.installed and e.version}
    return {
        "interpreter": interpreter(),
        "machine": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cores": cores(),
        "load": "in Python" if "-m" in load_command(False) else "in C",
        "pairs": pairs,
        "seconds": seconds,
        "versions": {name: each.version for name, each in libraries.items()},
        "left_out": sorted({each.library for each in SERVERS if not each.installed}),
        "workloads": done,
    }


def select(options: argparse.Namespace) -> list[Workload]:
    """Return the workloads that are asked for."""
    if not options.workloads and options.exact:
        return [exact.ECHO]
    if not options.workloads:
        return [each for each in WORKLOADS if each.quick or not options.quick]
    for name in options.workloads:
        if not any(fnmatch(each.name, name) for each in WORKLOADS):
            sys.exit(f"no workload is called {name}; --list names them all")
    return [e for e in WORKLOADS if any(fnmatch(e.name, name) for name in options.workloads)]


def chosen(contestant: Contestant, options: argparse.Namespace) -> bool:
    """Tell whether a contestant takes part: it is asked for, and installed."""
    if not contestant.installed:
        return False
    if options.contestants:
        return any(fnmatch(contestant.name, name) for name in options.contestants)
    return options.exact or not contestant.asked


def draw(report: dict[str, Any], name: str | None) -> str:
    """Return the chart of the workload of this name, or of the first one."""
    by_name = {each["name"]: each for each in report["workloads"]}
    wanted = by_name.get(name or "echo-1k-100", report["workloads"][0])
    return chart.svg(wanted, f"{report['interpreter']}; {wanted['results'][0]['title']} = 1")


def write(options: argparse.Namespace, name: str, report: object, text: str, svg: str = "") -> None:
    print(text)
    folder = Path(options.out) if options.out else cache()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    (folder / f"{name}.md").write_text(text)
    if svg:
        (folder / f"{name}.svg").write_text(svg)
    say(f"written: {folder}/{name}.json, .md" + (", .svg" if svg else ""))


def list_all() -> None:
    print("workloads")
    for workload in WORKLOADS:
        print(f"  {workload.name:18} {workload.title}")
    for title, contestants in (("servers", SERVERS), ("tasks", TASKS)):
        print(title)
        for each in contestants:
            missing = "" if each.installed else f": left out, {each.library} is not installed"
            print(f"  {each.name:18} {each.title}{missing}")


def say(text: str) -> None:
    """Tell what is going on, beside the results."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    start(main, __doc__, arguments=OPTIONS)
