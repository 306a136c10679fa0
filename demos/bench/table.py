"""The results as Markdown: a table for each workload."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

WIDE = "†"
BOUND = "‡"
NOTES = {
    WIDE: "the interval is wider than 5 %: take more pairs, or see what `--exact` counts",
    BOUND: "the load was busier than the server: messages per second say little",
}


def markdown(report: dict[str, Any]) -> str:
    """Return the whole report of a run."""
    parts = [
        "# Benchmark",
        f"{report['interpreter']}, {report['machine']}. {report['pairs']} pairs of processes; "
        f"servers on core {report['cores'][0]}, load ({report['load']}) on core "
        f"{report['cores'][1]}.",
    ]
    if report["left_out"]:
        parts.append("Left out, since not installed: " + ", ".join(report["left_out"]) + ".")
    if report["versions"]:
        named = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
        parts.append(named + ".")
    for workload in report["workloads"]:
        parts += [f"## {heading(workload)}", one(workload), *failures(workload)]
    text = "\n\n".join(parts)
    notes = [f"{sign} {note}." for sign, note in NOTES.items() if sign in text]
    return "\n\n".join([text, *notes]) + "\n"


def one(workload: dict[str, Any]) -> str:
    """Return the table of one workload, the cheapest contestant first."""
    heads, cells = COLUMNS[workload["kind"]]
    reference = workload["results"][0]["title"]
    heads = ["contestant", *heads, f"{reference} costs, of it", "95 % interval"]
    good = [each for each in workload["results"] if not each["failed"]]
    both = any(each["shipped"] for each in good)
    if both:
        heads += ["as shipped, µs each", "of it", "page faults each"]
    rows = []
    for each in sorted(good, key=lambda each: float(each["fair"]["medians"]["cost"])):
        fair = each["fair"]
        row = [each["title"], *cells(fair["medians"]), ratio(fair), bounds(fair)]
        rows.append(row + (as_shipped(each["shipped"]) if both else []))
    return table(heads, rows)


def heading(workload: dict[str, Any]) -> str:
    title: str = workload["title"]
    return title[0].upper() + title[1:]


def failures(workload: dict[str, Any]) -> list[str]:
    failed = [each for each in workload["results"] if each["failed"]]
    return [f"{each['title']} failed: {each['failed']}" for each in failed]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratio(figures: dict[str, Any]) -> str:
    if figures["ratio"] is None:
        return ""
    return f"{figures['ratio']:.2f}" + (WIDE if figures["wide"] else "")


def bounds(figures: dict[str, Any]) -> str:
    return "{:.2f} to {:.2f}".format(*figures["interval"]) if figures["interval"] else ""


def as_shipped(figures: dict[str, Any] | None) -> list[str]:
    if figures is None:
        return ["", "", ""]
    found = figures["medians"]
    shown = "" if figures["ratio"] is None else f"{figures['ratio']:.2f}"
    return [micro(found["cost"]), shown, f"{found['faults']:.2f}"]


# The columns between the contestant and the ratio, for each kind of workload ----------------------


def exchange_cells(found: dict[str, float]) -> list[str]:
    bound = BOUND if found["load_busy"] > found["server_busy"] else ""
    return [micro(found["cost"]), f"{found['per_second']:,.0f}{bound}"]


def latency_cells(found: dict[str, float]) -> list[str]:
    times = [micro(found[name], 0) for name in ("p50", "p99", "p999")]
    return [*times, f"{found['rate']:,.0f}", f"{found['server_busy'] * 100:.0f} %"]


def time_cells(found: dict[str, float]) -> list[str]:
    return [micro(found["cost"])]


def growth_cells(found: dict[str, float]) -> list[str]:
    times = [micro(found[name]) for name in ("start", "wake", "sleep", "cancel")]
    return [*times, f"{found['bytes']:,.0f}"]


def memory_cells(found: dict[str, float]) -> list[str]:
    return [f"{found['cost']:,.0f}", f"{found['python']:,.0f}"]


def micro(seconds: float, digits: int = 2) -> str:
    return f"{seconds * 1e6:,.{digits}f}"


GROWTH = ["start on an event, µs each", "wake and join", "start asleep", "cancel", "bytes each"]
COLUMNS = {
    "Exchanges": (["server's CPU, µs each", "each second"], exchange_cells),
    "Latency": (["p50, µs", "p99, µs", "p99.9, µs", "each second", "busy"], latency_cells),
    "Repeated": (["CPU, µs each"], time_cells),
    "Growth": (GROWTH, growth_cells),
    "Import": (["CPU, µs"], time_cells),
    "IdleTasks": (["bytes, all", "bytes, Python's"], memory_cells),
    "IdleConnections": (["bytes, all", "bytes, Python's"], memory_cells),
}


def exact(report: dict[str, Any]) -> str:
    """Return the report of the exact counters."""
    parts = ["# Exact counters", f"{report['interpreter']}. The shared waits are included."]
    for workload in report["workloads"]:
        good = [each for each in workload["results"] if not each["failed"]]
        rows = [
            [each["title"], f"{each['instructions']:,.0f}", calls(each["calls"])]
            for each in sorted(good, key=lambda each: float(each["instructions"]))
        ]
        parts.append(f"## {heading(workload)}, for each {workload['unit']}")
        parts.append(table(["contestant", "user instructions", "system calls"], rows))
        parts += failures(workload)
    return "\n\n".join(parts) + "\n"


def calls(counts: dict[str, float]) -> str:
    total = sum(counts.values())
    return f"{total:.2f}: " + ", ".join(f"{name} {count:.2f}" for name, count in counts.items())
