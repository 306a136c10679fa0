"""The figures as a table for the terminal: a heading, and a row for each server."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from demos.models.findings import AT_ONCE, CALLS, CPU, MEMORY, TIME
from demos.models.measure import Figures

COLUMNS = (AT_ONCE, TIME, CPU, MEMORY, CALLS)
NAMES = 20  # the width of the first column
WIDTH = NAMES + sum(column.width for column in COLUMNS)
KEPT = "\N{NO-BREAK SPACE}"  # within a number: no line ends there


def row(name: str, cells: Sequence[str]) -> str:
    """Return a line: the name to the left, the cells to the right of their columns."""
    places = zip(cells, COLUMNS, strict=True)
    return f"{name:<{NAMES}}" + "".join(f"{text:>{column.width}}" for text, column in places)


def heading() -> str:
    names = row("server", [column.name for column in COLUMNS])
    units = row("", [column.unit for column in COLUMNS]).rstrip()
    return f"{names}\n{units}\n{'-' * WIDTH}"


def line(figures: Figures) -> str:
    values = [(column, column.shown(figures)) for column in COLUMNS]
    cells = ["no strace" if value is None else column.spell(value) for column, value in values]
    return row(figures.server.name, cells)


def paragraph(sentences: Sequence[str]) -> str:
    """Return sentences as a list, within the width of the table."""
    whole = (re.sub(r"(\d) (\d)", rf"\1{KEPT}\2", text) for text in sentences)  # 1 024
    wrapped = (textwrap.wrap(text, WIDTH - 2, break_on_hyphens=False) for text in whole)
    return "\n".join("- " + "\n  ".join(lines) for lines in wrapped).replace(KEPT, " ")
