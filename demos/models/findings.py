"""What a table says, in sentences: each is computed from the figures that are in it.

Figures are compared as the table shows them. So what looks equal there is called equal here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from demos.models.clients import Job
from demos.models.measure import Figures


class Column(NamedTuple):
    """A figure of the table: its name, its unit, its width, and how it is written."""

    name: str
    unit: str
    width: int
    figure: Callable[[Figures], float | None]
    digits: int  # after the point

    def shown(self, figures: Figures) -> float | None:
        """Return the figure as precisely as the table has it."""
        value = self.figure(figures)
        return None if value is None else round(value, self.digits)

    def spell(self, value: float) -> str:
        return f"{value:,.{self.digits}f}".replace(",", " ")

    def words(self, figures: Figures) -> str:
        return f"{figures.server.name}, {self.spell(self.shown(figures) or 0)} {self.unit}".rstrip()


AT_ONCE = Column("at once", "clients", 9, lambda f: f.at_once, 0)
TIME = Column("time", "ms", 12, lambda f: f.seconds * 1e3, 1)
CPU = Column("CPU", "ms", 11, lambda f: f.cpu * 1e3, 1)
MEMORY = Column("memory", "MB", 9, lambda f: f.memory / 1e6, 1)
CALLS = Column("system calls", "", 14, lambda f: f.calls, 0)


def findings(job: Job, groups: Sequence[Sequence[Figures]]) -> list[str]:
    """Return what is to be noticed in the table of a job."""
    everyone = [figures for group in groups for figures in group]
    found = [in_turn(job, everyone)]
    found.append(extremes(CPU, "CPU time", "least", everyone))
    found.append(extremes(MEMORY, "memory", "least", everyone))
    if all(figures.calls is not None for figures in everyone):
        found.append(extremes(CALLS, "system calls", "fewest", everyone))
    named = {figures.server.module: figures for figures in everyone}
    if {"thread_per_client", "event_loop"} <= named.keys():
        found.append(compared(named["thread_per_client"], named["event_loop"]))
    return found


def in_turn(job: Job, everyone: Sequence[Figures]) -> str:
    """Say what it costs in time to serve one client after another."""
    if job.clients == 1:
        return "There was one client, and nobody waited for another: " + span(everyone)
    alone = [figures for figures in everyone if figures.at_once == 1]
    others = [figures for figures in everyone if figures.at_once > 1]
    text = "; ".join(f"{TIME.words(figures)}" for figures in alone)
    text = f"One client at a time: {text}. " if alone else ""
    if others:
        most = max(figures.at_once for figures in others)
        text += f"Up to {most} of {job.clients} at once: {span(others)}"
        fewer = [f"{f.server.name}, {f.at_once}" for f in others if f.at_once < most]
        text += f" Fewer at once: {'; '.join(fewer)}." if fewer else ""
    if job.pause:
        one = job.lines * job.pause * 1e3
        rest = (job.clients - 1) * (job.lines - 1) * job.pause * 1e3
        text += (
            f" The pauses of one client are {TIME.spell(one)} ms. With one client at a time they "
            f"add up to {TIME.spell(one + rest)} ms: the first pause of each passes in the queue."
        )
    return text.strip()


def span(some: Sequence[Figures]) -> str:
    """Say between which times these servers are."""
    quickest = min(some, key=lambda figures: TIME.shown(figures) or 0)
    slowest = max(some, key=lambda figures: TIME.shown(figures) or 0)
    if TIME.shown(quickest) == TIME.shown(slowest):
        return f"{TIME.spell(TIME.shown(quickest) or 0)} ms."
    return f"from {TIME.words(quickest)}, to {TIME.words(slowest)}."


def extremes(column: Column, what: str, least: str, everyone: Sequence[Figures]) -> str:
    """Name who has most of a thing and who has least, and how often one goes into the other."""
    high = max(everyone, key=lambda figures: column.shown(figures) or 0)
    low = min(everyone, key=lambda figures: column.shown(figures) or 0)
    top, bottom = column.shown(high) or 0, column.shown(low) or 0
    if top == bottom:
        return f"The same {what} for all: {column.spell(top)} {column.unit}".rstrip() + "."
    times = f", {top / bottom:.1f} times as much" if bottom else ""
    return f"The {least} {what}: {column.words(low)}; the most: {column.words(high)}{times}."


def compared(threads: Figures, events: Figures) -> str:
    """Compare a thread for each client with one loop for all."""
    parts = []
    for column, better in ((TIME, "quicker"), (CPU, "less CPU time")):
        ours, theirs = column.shown(threads) or 0, column.shown(events) or 0
        who = "threads" if ours < theirs else "the event loop" if theirs < ours else "neither"
        numbers = f"{column.spell(ours)} and {column.spell(theirs)} {column.unit}"
        parts.append(f"{better}: {who} ({numbers})")
    return f"A thread for each client, and one event loop: {'; '.join(parts)}."
