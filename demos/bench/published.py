"""What the guide shows: which figures, how they are recorded, and how they are written there.

    $ python3 -m demos.bench --record          everything: the clock, and the exact counters
    $ python3 -m demos.bench --record exact    what corolib's own programs take, counted exactly
    $ python3.14 -m demos.bench --record newer  beside asyncio alone, on a newer Python
    $ python3 -m demos.bench --record text     the page again, from what is recorded

The figures are kept in `recorded.json`, the chart in `echo.svg`. In `demos/guide/speed.md` each
table stands between two comments, `<!-- recorded: NAME -->` and `<!-- end -->`; a test holds that
it shows what is recorded. What other libraries take, counted exactly, is kept until one of them,
the interpreter or the programs in `servers/` change.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from demos.bench import chart, exact
from demos.bench.contestants import HERE, SERVERS, TASKS, Contestant
from demos.bench.measuring import Match, Plan, fits, left_out, report, versions
from demos.bench.table import bounds, micro, ratio, table
from demos.bench.workloads import WORKLOADS, Growth

PAGE = Path(__file__).parents[1] / "guide" / "speed.md"
CHART = HERE / "echo.svg"

PAIRS = 6  # the fewest that have an interval of 95 %
# Whose exact counts are shown beside those of corolib's own programs.
COUNTED = [each.name for each in SERVERS if each.name not in (*exact.OURS, "epoll_c", "threads")]

PEERS = (
    "asyncio_protocol",
    "asyncio_streams",
    "uvloop_protocol",
    "uvloop_streams",
    "curio",
    "trio",
    "trio_sockets",
    "trio_readable",
    "gevent",
)
TASK_PEERS = ("asyncio", "uvloop", "curio", "trio", "gevent")
EXECUTORS = ("asyncio_executor", "uvloop_executor")
GROWTH = ("growth-1000", "growth-10000", "growth-100000", "growth-rarely")

# The workloads that are shown, and beside whom corolib is measured in each; *: beside all.
SHOWN: dict[str, tuple[str, ...]] = {
    "echo-1k-100": ("*",),
    **dict.fromkeys(
        ("echo-1k-1", "echo-64k-100", "lines", "bulk", "close", "tls", "udp"), ("epoll", *PEERS)
    ),
    "idle-connection": PEERS,
    "latency-busy": (*PEERS[:4], "trio", "trio_sockets"),
    **dict.fromkeys(("switch", "spawn", "cancel", "lock", "handover", "timeout"), TASK_PEERS),
    "thread": (*TASK_PEERS, *EXECUTORS),
    **dict.fromkeys(("shutdown", "idle-task", "import", "import-all"), TASK_PEERS),
    **dict.fromkeys(GROWTH, ("asyncio", "uvloop")),
}

SERVER_TITLES = {
    "echo-1k-100": "echo of 1 KiB, 100 connections",
    "echo-1k-1": "echo of 1 KiB, one connection",
    "echo-64k-100": "echo of 64 KiB, 100 connections",
    "lines": "lines of 64 B, 16 in flight",
    "bulk": "1 MiB to each who asks",
    "close": "connect, echo of 1 KiB, close",
    "tls": "echo of 1 KiB over TLS",
    "udp": "UDP echo of 1 KiB",
    "idle-connection": "memory of an idle connection",
}
TASK_TITLES = {
    "switch": "give way",
    "spawn": "spawn a task and join it",
    "cancel": "cancel a task that sleeps",
    "shutdown": "cancel 10 000 that sleep",
    "lock": "a lock, handed over among ten tasks",
    "handover": "hand over through `Queue(1)`",
    "timeout": "a timeout around one give-way",
    "thread": "call a function in a thread",
    "idle-task": "memory of an idle task",
    "import": "`import`",
    "import-all": "`from ... import *`",
}

# On a newer Python, beside what comes with it: there nothing has to be installed.
NEWER_SERVERS = ("asyncio_protocol", "asyncio_streams")
NEWER_TASKS = ("asyncio", "asyncio_eager", "asyncio_executor")
NEWER: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(SERVER_TITLES, NEWER_SERVERS),
    **dict.fromkeys(TASK_TITLES, NEWER_TASKS),
}


# Recording ------------------------------------------------------------------------------------


def missing() -> list[str]:
    """Return what has to be installed before the guide's figures can be recorded."""
    to_install = [name for name in left_out() if not name.startswith("Python ")]
    return [*to_install, *filter(None, [exact.missing_tool()])]


def record(plan: Plan, say: Callable[[str], None]) -> None:
    """Measure everything that the guide shows, and write it down."""
    save({"clock": rounded(report(matches(), plan, say))})
    record_exact(say)
    record_peers(say)
    write()


def record_newer(plan: Plan, say: Callable[[str], None]) -> None:
    """Measure corolib beside asyncio, with the Python that runs this, and write it down."""
    save({"newer": rounded(report(matches(NEWER), plan, say))})
    write()


def record_exact(say: Callable[[str], None]) -> None:
    """Count what corolib's own programs take, and write it down."""
    save({"build": exact.build(), "programs": exact.record(exact.OURS, say)})


def record_peers(say: Callable[[str], None]) -> None:
    """Count what others take, unless that is recorded for just these, and write it down."""
    others = [f"{name} {number}" for name, number in versions().items() if name != "corolib"]
    of = " ".join([exact.build(), *others, programs_hash()])
    if exact.recorded().get("peers", {}).get("of") != of:
        save({"peers": {"of": of, "programs": exact.record(COUNTED, say)}})


def programs_hash() -> str:
    """Return what tells the others' programs from any others."""
    digest = hashlib.sha256()
    for each in sorted((HERE / "servers").glob("*.py")):
        if not each.name.startswith("corolib"):
            digest.update(each.read_bytes())
    return digest.hexdigest()[:16]


def matches(shown: dict[str, tuple[str, ...]] = SHOWN) -> list[Match]:
    by_name = {each.name: each for each in WORKLOADS}
    found = []
    for name, names in shown.items():
        workload = by_name[name]
        reference, *others = SERVERS if workload.folder == "servers" else TASKS
        chosen = [e for e in others if e.name in names or ("*" in names and not e.asked)]
        fitting = [each for each in chosen if each.installed and fits(workload, each)]
        found.append((workload, reference, fitting))
    return found


def save(part: dict[str, Any]) -> None:
    """Write a part down in the place of the one that is recorded."""
    text = json.dumps((exact.recorded() if exact.RECORDED.exists() else {}) | part)
    for begin in (
        '"clock"',
        '"newer"',
        '"peers"',
        '"programs"',
        '{"name"',
        '{"contestant"',
        '{"instructions"',
    ):
        text = text.replace(begin, "\n" + begin)  # a line for each result
    exact.RECORDED.write_text(text + "\n")


def rounded(value: Any) -> Any:
    """Return the same with four digits of each number: the rest is noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value


# The page -------------------------------------------------------------------------------------


def write() -> None:
    """Write what is recorded into the page, and draw the chart."""
    recorded = exact.recorded()
    PAGE.write_text(shown(PAGE.read_text("utf-8"), recorded), "utf-8")
    CHART.write_text(picture(recorded))


def shown(text: str, recorded: dict[str, Any]) -> str:
    """Return the page with the tables of what is recorded."""

    def fill(found: re.Match[str]) -> str:
        return f"{found[1]}{TABLES[found[2]](recorded)}\n{found[3]}"

    pattern = r"(<!-- recorded: (\w+) -->\n).*?(<!-- end -->)"
    return re.sub(pattern, fill, text, flags=re.DOTALL)


def picture(recorded: dict[str, Any]) -> str:
    clock = recorded["clock"]
    about = f"{clock['interpreter']}; allocator settled; corolib streams = 1"
    return chart.svg(workload(clock, "echo-1k-100"), about)


def workload(clock: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in clock["workloads"] if each["name"] == name)
    return found


def where(recorded: dict[str, Any]) -> str:
    """Return the sentence that says on what the figures were recorded."""
    clock = recorded["clock"]
    how = "with" if clock["optimized"] else "without"
    versions = ", ".join(f"{name} {number}" for name, number in clock["versions"].items())
    return textwrap.fill(
        f"{clock['interpreter']} (configured {how} `--enable-optimizations`), {clock['libc']}, "
        f"{clock['machine']}, {clock['processor']}; "
        f"{versions}. {pairs(clock)}",
        100,
    )


def pairs(clock: dict[str, Any]) -> str:
    """Return the sentence that says of how many pairs the figures are."""
    many = min(clock["pairs"], Growth.most_pairs)
    return (
        f"Medians of {clock['pairs']} pairs of processes; of {many} for many tasks at a time, "
        "one for memory."
    )


def echo(recorded: dict[str, Any]) -> str:
    heads = ["server", "µs each", "streams take, of it", "95 % interval"]
    heads += ["as shipped, µs", "of it", "page faults"]
    rows = []
    found = workload(recorded["clock"], "echo-1k-100")["results"]
    for each in sorted(found, key=lambda each: float(each["fair"]["medians"]["cost"])):
        fair, shipped = each["fair"], each["shipped"]
        cells = [micro(fair["medians"]["cost"], 1), ratio(fair), bounds(fair)]
        cells += [micro(shipped["medians"]["cost"], 1), ratio(shipped)]
        rows.append([name(each), *cells, f"{shipped['medians']['faults']:.1f}"])
    return table(heads, rows)


def counted(recorded: dict[str, Any]) -> str:
    titles = {each.name: each.title for each in SERVERS}
    programs = recorded["programs"] | recorded["peers"]["programs"]
    rows = []
    for key, found in sorted(programs.items(), key=lambda item: float(item[1]["instructions"])):
        title = titles[key]
        calls = sum(found["calls"].values())
        shown = f"**{title}**" if key in exact.OURS else title
        rows.append([shown, spaced(found["instructions"]), f"{calls:.1f}"])
    return table(["server", "user instructions", "system calls"], rows)


def servers(recorded: dict[str, Any]) -> str:
    """Return a table of ratios: as shipped in brackets, where that was measured."""
    return ratios(recorded["clock"], SERVER_TITLES, ("epoll", *PEERS), SERVERS)


def tasks(recorded: dict[str, Any]) -> str:
    return ratios(recorded["clock"], TASK_TITLES, (*TASK_PEERS, *EXECUTORS), TASKS)


def newer(recorded: dict[str, Any]) -> str:
    """Return the two tables of ratios on a newer Python, and which that is."""
    clock = recorded["newer"]
    parts = [
        textwrap.fill(f"{clock['interpreter']}. {pairs(clock)}", 100),
        ratios(clock, SERVER_TITLES, NEWER_SERVERS, SERVERS),
        ratios(clock, TASK_TITLES, NEWER_TASKS, TASKS),
    ]
    return "\n\n".join(parts)


def ratios(
    clock: dict[str, Any],
    named: dict[str, str],
    peers: Sequence[str],
    pool: Sequence[Contestant],
) -> str:
    titles = {each.name: each.title for each in pool}
    rows = []
    for name, title in named.items():
        results = {e["contestant"]: e for e in workload(clock, name)["results"]}
        rows.append([title, *[both(results.get(each)) for each in peers]])
    return table(["", *[titles[each] for each in peers]], rows)


def both(result: dict[str, Any] | None) -> str:
    if result is None or result["failed"]:
        return ""
    if result["shipped"] is None:
        return ratio(result["fair"])
    return f"{ratio(result['fair'])} ({ratio(result['shipped'])})"


def latency(recorded: dict[str, Any]) -> str:
    rows = []
    found = workload(recorded["clock"], "latency-busy")["results"]
    for each in sorted(found, key=lambda each: float(each["fair"]["medians"]["cost"])):
        medians = each["fair"]["medians"]
        times = [spaced(medians[part] * 1e6) for part in ("p50", "p99", "p999")]
        rows.append([name(each), spaced(medians["rate"]), *times, ratio(each["fair"])])
        rows[-1].append(bounds(each["fair"]))
    heads = ["server", "requests a second", "p50, µs", "p99, µs", "p99.9, µs"]
    return table([*heads, "streams' p99, of it", "95 % interval"], rows)


def growth(recorded: dict[str, Any]) -> str:
    titles = ("1 000", "10 000", "100 000", "100 000, `gc.set_threshold(100_000)`")
    rows = []
    for key, title in zip(GROWTH, titles, strict=True):
        for each in workload(recorded["clock"], key)["results"]:
            medians = each["fair"]["medians"]
            times = [micro(medians[part], 1) for part in ("start", "wake", "sleep", "cancel")]
            rows.append([title, name(each), *times, spaced(medians["bytes"])])
    heads = ["tasks", "", "start, on an event", "wake, join", "start, asleep", "cancel", "bytes"]
    return table(heads, rows)


def spaced(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def name(result: dict[str, Any]) -> str:
    title: str = result["title"]
    return f"**{title}**" if result["contestant"].startswith("corolib") else title


TABLES = {
    "where": where,
    "echo": echo,
    "counted": counted,
    "servers": servers,
    "tasks": tasks,
    "latency": latency,
    "growth": growth,
    "newer": newer,
}
