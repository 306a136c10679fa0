"""The figures as a picture: for each server a row of four bars, each with its figure below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from demos.drawing import MARGIN, WIDTH, document, rect, text
from demos.models.measure import Figures

COLUMN, BAR, THICK = 112, 100, 10  # x: from one bar to the next, the longest; y: a bar
ROW = 58  # from one server to the next
GROUPS = ("Five ways to wait for data", "Three ways to build a server")
TITLE = "The same clients, eight servers"
REMARKS = (
    "Calls are counted with strace, which slows a server:",
    "polling gets to ask much less often than it would.",
)


class Panel(NamedTuple):
    colour: str
    title: str
    figure: Callable[[Figures], float | None]
    spell: Callable[[float], str]


def spell_seconds(value: float) -> str:
    return f"{value:.3f} s"


def spell_milliseconds(value: float) -> str:
    return f"{value * 1e3:.0f} ms"


def spell_megabytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB"


def spell_count(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


PANELS = (
    Panel("work", "Time", lambda f: f.seconds, spell_seconds),
    Panel("stuck", "CPU", lambda f: f.cpu, spell_milliseconds),
    Panel("ready", "Memory", lambda f: f.memory, spell_megabytes),
    Panel("edge", "System calls", lambda f: f.calls, spell_count),
)


def bar(x: float, y: float, panel: Panel, value: float | None, most: float) -> list[str]:
    """Return a bar on its track, and its value below it."""
    parts = [rect(x, y, BAR, THICK, "panel")]
    if value is None:
        return [*parts, text(x, y + THICK + 14, "no strace", "small", "soft")]
    width = max(1.5, BAR * value / most) if most else 1.5
    parts.append(rect(x, y, width, THICK, panel.colour, min(3, width / 2)))
    return [*parts, text(x, y + THICK + 14, panel.spell(value), "small")]


def draw(groups: Sequence[Sequence[Figures]], what: str, where: str) -> str:
    """Return the picture, a whole SVG document."""
    everyone = [figures for group in groups for figures in group]
    most = {panel: max(panel.figure(f) or 0 for f in everyone) for panel in PANELS}
    xs = [MARGIN + place * COLUMN for place in range(len(PANELS))]
    parts = [text(x, 58, panel.title, "head") for x, panel in zip(xs, PANELS, strict=True)]
    y = 90.0
    for title, group in zip(GROUPS, groups, strict=True):
        parts.append(text(MARGIN, y, title, "text", "soft"))
        y += 24
        for figures in group:
            parts.append(text(MARGIN, y, figures.server.name, "head"))
            about = figures.server.waits
            parts.append(text(WIDTH - MARGIN, y, about, "small", "soft", "end"))
            for x, panel in zip(xs, PANELS, strict=True):
                parts += bar(x, y + 8, panel, panel.figure(figures), most[panel])
            y += ROW
        y += 14
    parts += [
        text(MARGIN, y + 18 * number, words, "small", "soft")
        for number, words in enumerate((f"{what}.", f"{where}.", *REMARKS))
    ]
    about = "Time, CPU, memory and system calls of eight servers, all with their children."
    return document(y + 72, TITLE, about, parts)
