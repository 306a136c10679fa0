"""A benchmark: corolib's servers and tasks beside those of other libraries.

    $ python3 -m demos.bench --quick
    $ python3 -m demos.bench --workloads 'echo-1k-*' lines --contestants epoll uvloop_streams
    $ python3 -m demos.bench --exact --workloads echo-1k-100 tls bulk

Each server runs on one core, the load on another, and what is compared is the server's CPU time
for a message. Each contestant is measured in pairs of new processes, its own and corolib's, in
turns; a ratio is the median of these, with its 95 % interval. Where that is wide, the exact
counters decide: `--exact` counts the instructions and system calls of servers, with valgrind and
strace; without `--workloads`, of an echo of 1 KiB on 50 connections.

Every process begins with the C library's allocator in one state: `allocator.py` says why. For
servers a second column tells what they take as shipped.

What is not installed is named and left out: in a checkout, `pip install -e '.[bench]'` has all of
it. The table is printed, and written beside a JSON file and a chart.

You hold that a figure is wrong? Measure it where you are, with enough pairs:

    $ python3 -m demos.bench --workloads echo-1k-100 --contestants asyncio_protocol --pairs 31

and send the `bench.json` that it names: it holds each pair, the versions, and what the machine is.
You hold that a contestant is written badly? It is one file in `servers/` or `tasks/`: mend it, and
send it with the `bench.json` of before and after.

HTTP is left out: corolib has no server for it but a demo, and what would be compared are parsers.
So are TLS handshakes, of which nearly all is OpenSSL's arithmetic.
"""

from __future__ import annotations

import argparse
import json
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from demos.bench import chart, exact, published, table
from demos.bench.compiler import cache
from demos.bench.contestants import SERVERS, TASKS, Contestant
from demos.bench.measuring import Match, Plan, fits, report
from demos.bench.serve import allow_many_files
from demos.bench.workloads import WORKLOADS, Exchanges, Workload
from demos.start import at_least, start

OPTIONS: dict[str, dict[str, Any]] = {
    "--quick": {"action": "store_true", "help": "a few workloads and pairs, a minute or two"},
    "--exact": {"action": "store_true", "help": "count instructions and system calls instead"},
    "--record": {
        "nargs": "?",
        "const": "all",
        "choices": ["all", "exact", "newer", "text"],
        "help": "write down what the guide shows: all of it, corolib's exact figures, those of a "
        "newer Python, or the text",
    },
    "--list": {"action": "store_true", "help": "name the workloads and the contestants"},
    "--workloads": {"nargs": "+", "metavar": "NAME", "help": "only these; NAME may be a pattern"},
    "--contestants": {"nargs": "+", "metavar": "NAME", "help": "only these, beside the reference"},
    "--reference": {
        "default": "corolib_streams",
        "metavar": "NAME",
        "help": "the server that the others are compared with; default: %(default)s",
    },
    "--pairs": {"type": at_least(1, 1000), "help": "default: 9; --record 6, --quick 3"},
    "--seconds": {
        "type": at_least(0.001, 60.0),
        "default": Plan.seconds,
        "help": "of one sample; default: 0.06",
    },
    "--settled": {
        "action": "store_true",
        "help": "leave out the column of what servers take as shipped",
    },
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
    elif options.record:
        record(options)
    elif options.exact:
        if tool := exact.missing_tool():
            sys.exit(f"{tool} is needed to count, and is not installed")
        workloads = [e for e in select(options) if type(e) is Exchanges]
        servers = [each for each in SERVERS if chosen(each, options)]
        found = exact.report(workloads, servers, say)
        write(options, "exact", found, table.exact(found))
    else:
        pairs = options.pairs or (3 if options.quick else Plan.pairs)
        plan = Plan(pairs, options.seconds, not (options.settled or options.quick))
        found = report([match(each, options) for each in select(options)], plan, say)
        write(options, "bench", found, table.markdown(found), draw(found, options.chart))


def record(options: argparse.Namespace) -> None:
    plan = Plan(options.pairs or published.PAIRS, options.seconds)
    if options.record == "text":
        published.write()
    elif options.record == "newer":
        published.record_newer(plan, say)
    elif options.record == "exact":
        if tool := exact.missing_tool():
            sys.exit(f"{tool} is needed to count, and is not installed")
        published.record_exact(say)
        published.write()
    elif missing := published.missing():
        sys.exit(f"the guide shows all contestants; not installed: {', '.join(missing)}")
    else:
        published.record(plan, say)


def match(workload: Workload, options: argparse.Namespace) -> Match:
    """Return who is measured in this workload, and who is the reference."""
    alike = SERVERS if workload.folder == "servers" else TASKS
    fitting = [each for each in alike if fits(workload, each)]
    reference = next((each for each in fitting if each.name == options.reference), alike[0])
    return workload, reference, [e for e in fitting if e != reference and chosen(e, options)]


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
            missing = f": left out, {each.missing} is not installed" if each.missing else ""
            print(f"  {each.name:18} {each.title}{missing}")


def say(text: str) -> None:
    """Tell what is going on, beside the results."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    start(main, __doc__, arguments=OPTIONS)
