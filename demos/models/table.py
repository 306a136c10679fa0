"""The figures as a table for the terminal: a heading, a row for each server, what to notice."""

from __future__ import annotations

import textwrap

from demos.models.measure import Figures

COLUMNS = (
    ("server", "", 20),
    ("at once", "clients", 9),
    ("time", "s", 9),
    ("CPU", "ms", 9),
    ("memory", "MB", 9),
    ("system calls", "", 14),
)
NOTICE = """
    To notice: the blocking server takes as long as all pauses together, for it serves one client at
    a time; the others take as long as one client's. Non-blocking polling pays for that with CPU
    time and with calls in vain (without strace, which slows it, they would be many more), a process
    per client with memory. Of those that wait for all clients in one place, SIGIO does not say who
    is meant, multiplexing does, and who is told of completions makes the fewest calls.
"""


def row(*cells: str) -> str:
    """Return a line: the first cell to the left, the others to the right of their columns."""
    first, *others = zip(cells, COLUMNS, strict=True)
    return f"{first[0]:<{first[1][2]}}" + "".join(f"{text:>{c[2]}}" for text, c in others)


def heading() -> str:
    names, units, widths = zip(*COLUMNS, strict=True)
    return f"{row(*names)}\n{row(*units).rstrip()}\n{'-' * sum(widths)}"


def line(figures: Figures) -> str:
    return row(
        figures.server.name,
        str(figures.at_once),
        f"{figures.seconds:.2f}",
        f"{figures.cpu * 1e3:.0f}",
        f"{figures.memory / 1e6:.1f}",
        "no strace" if figures.calls is None else f"{figures.calls:,}".replace(",", " "),
    )


def notice() -> str:
    return textwrap.fill(" ".join(NOTICE.split()), sum(width for _, _, width in COLUMNS))
