"""How the cost of one ready client grows with the silent ones, as a picture with two log scales."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from demos.drawing import MARGIN, WIDTH, document, dot, line, text

if TYPE_CHECKING:
    from demos.models.ready import Cost

LEFT, RIGHT, TOP, BOTTOM, FOOT = 54, 108, 86, 330, 62
COLOURS = {"select": "stuck", "poll": "work", "epoll": "ready"}
TITLE = "Which of many clients is ready?"


def draw(rows: Sequence[Cost], names: Sequence[str]) -> str:
    """Return the picture of the costs of each call, in microseconds, for so many idle clients."""
    every = [value for row in rows for value in row.costs if value is not None]
    low, high = floor(log10(min(every))), max(ceil(log10(max(every))), floor(log10(min(every))) + 1)
    first, last = log10(rows[0].clients), log10(rows[-1].clients)

    def across(count: float) -> float:
        return LEFT + (log10(count) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return BOTTOM - (log10(value) - low) / (high - low) * (BOTTOM - TOP)

    parts = [
        text(MARGIN, 50, "µs until it is known who is ready,", "small", "soft"),
        text(MARGIN, 66, "and one message is read; both scales are logarithmic", "small", "soft"),
    ]
    for power in range(low, high + 1):
        y = up(10**power)
        parts.append(line([(LEFT, y), (WIDTH - RIGHT, y)], "edge", 0.5))
        parts.append(text(LEFT - 8, y + 4, f"{10.0**power:g}", "small", "soft", "end"))
    for row in rows:
        words = f"{row.clients:,}".replace(",", " ")
        parts.append(text(across(row.clients), BOTTOM + 20, words, "small", "soft", "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(text(middle, BOTTOM + 42, "idle clients", "small", "soft", "middle"))
    labels: list[tuple[float, str, str, float]] = []
    for place, name in enumerate(names):
        known = [(r.clients, cost) for r in rows if (cost := r.costs[place]) is not None]
        points = [(across(count), up(value)) for count, value in known]
        parts.append(line(points, COLOURS[name], 2.5))
        parts += [dot(x, y, COLOURS[name]) for x, y in points]
        if not known:
            continue
        words = f"{name} {known[-1][1]:.1f}"
        x, y = points[-1]
        if len(known) < len(rows):
            parts.append(line([(x + 9, y - 7), (x + 9, y + 7)], COLOURS[name], 2.5))
            ends = f"{words}, ends at 1 024"
            parts.append(text(x + 12, y - 13, ends, "text", COLOURS[name], "end"))
        else:
            labels.append((y, words, COLOURS[name], x))
    for y, words, colour, x in apart(labels):
        parts.append(text(x + 10, y + 4, words, "text", colour))
    about = "Curves of select, poll and epoll: the first two grow with the idle clients."
    return document(BOTTOM + FOOT, TITLE, about, parts)


def apart(labels: list[tuple[float, str, str, float]]) -> list[tuple[float, str, str, float]]:
    """Return labels of which none is less than a line above the next."""
    placed: list[tuple[float, str, str, float]] = []
    for y, *rest in sorted(labels):
        if placed:
            y = max(y, placed[-1][0] + 17)
        placed.append((y, *rest))  # type: ignore[arg-type]
    return placed
