"""A moment of a step, as a picture: who waits where, what is ready, what is in the selector.

There is a row for each socket of the server. To the left is what the kernel knows of it; in the
middle what the selector was asked, if there is one; to the right who waits for it. Below is the one
thread that waits for all of them, and what is ready.
"""

from __future__ import annotations

from demos.drawing import (
    MARGIN,
    SIZES,
    WIDTH,
    document,
    dot,
    line,
    rect,
    shortened,
    text,
    title_lines,
    width_of,
)
from demos.pictures.moment import Moment, Wait

LEFT, MIDDLE, RIGHT = MARGIN, 192, 276  # x of the columns
KERNEL, CHIP, PROGRAM = 158, 66, WIDTH - MARGIN - RIGHT  # their widths
CELL, ROW = 44, 54  # the height of a cell, and from one row to the next
SCENE = "Ann is silent, Bob does not read, Cleo says hello, Dan connects."


def draw(moment: Moment) -> str:
    """Return the picture."""
    top = 30 + 21 * len(title_lines(moment.title))
    rows = ["listener", *moment.accepted]
    timers = [wait for wait in moment.waits if "Sleep" in wait.call]
    parts = [
        text(MARGIN, top, SCENE, "small", "soft"),
        text(LEFT, top + 30, "Sockets", "head", "soft"),
    ]
    first = top + 42
    end = first + ROW * len(rows)
    asked = moment.asked()
    programmed = False
    if moment.selector:
        parts.append(text(MIDDLE, top + 30, "Selector", "head", "soft"))
        parts.append(rect(MIDDLE - 7, first - 5, CHIP + 14, end - first, "panel", 8))
    for number, name in enumerate(rows):
        y = first + number * ROW
        mine = [wait for wait in moment.waits if wait.on == name]
        handler = moment.selector.get(name, ((), ""))[1]
        there = bool(mine or handler)
        programmed = programmed or there
        if name in asked:
            reaches = RIGHT if there else MIDDLE
            parts.append(line([(LEFT + KERNEL, y + CELL / 2), (reaches, y + CELL / 2)], "wait", 2))
        parts += kernel_cell(moment, name, y)
        if name in moment.selector:
            parts += chip(y, " ".join(moment.selector[name][0]))
        if mine:
            parts += program_cell(RIGHT, y, PROGRAM, mine[0])
        elif handler:
            parts += cell(RIGHT, y, PROGRAM, handler, "called when it is ready")
    if programmed:
        parts.append(text(RIGHT, top + 30, "Who waits", "head", "soft"))
    y = end
    for wait in moment.waits:
        if not wait.on and wait not in timers:
            if moment.selector:
                x = MIDDLE + CHIP / 2
                parts.insert(0, line([(x, end - 8), (x, y + 8)], "wait", 2))
            parts += program_cell(LEFT, y + 4, WIDTH - 2 * MARGIN, wait)
            y += ROW + 4
    for wait in timers:
        parts += cell(LEFT, y, KERNEL, "the clock", "not yet")
        parts.append(line([(LEFT + KERNEL, y + CELL / 2), (RIGHT, y + CELL / 2)], "wait", 2))
        parts += chip(y, "time")
        parts += program_cell(RIGHT, y, PROGRAM, wait)
        y += ROW
    words, about = verdict(moment)
    for number, (said, colour) in enumerate(words):
        parts.append(text(MARGIN, y + 16 + 20 * number, said, "text", colour))
    return document(y + 10 + 20 * len(words), moment.title, about, parts)


def cell(x: float, y: float, width: float, name: str, about: str, kind: str = "small") -> list[str]:
    return [
        rect(x, y, width, CELL, "panel", 5),
        text(x + 8, y + 18, name, "head"),
        text(x + 8, y + 35, shortened(about, width - 14, kind), kind, "soft"),
    ]


def kernel_cell(moment: Moment, name: str, y: float) -> list[str]:
    """Return what the kernel knows of a socket."""
    can = moment.can()[name]
    if name == "listener":
        about = f"queue: {', '.join(moment.queue)}" if moment.queue else "its queue is empty"
    elif "write" not in can:
        about = "no room to write"
    else:
        about = "data has come" if "read" in can else "no data"
    parts = cell(LEFT, y, KERNEL, name, about)
    if name in moment.ready():
        parts.append(dot(LEFT + KERNEL - 50, y + 14, "ready"))
        parts.append(text(LEFT + KERNEL - 8, y + 18, "ready", "small", "ready", "end"))
    elif name in moment.unheard():
        parts.append(text(LEFT + KERNEL - 8, y + 18, "unheard", "small", "stuck", "end"))
    return parts


def chip(y: float, words: str) -> list[str]:
    """Return what the selector was asked about a socket."""
    lines = words.split()
    height = 8 + 14 * len(lines)
    top = y + (CELL - height) / 2
    parts = [rect(MIDDLE, top, CHIP, height, "work", 9)]
    for number, word in enumerate(lines):
        at = top + 4 + SIZES["inside"] - 1 + 14 * number
        parts.append(text(MIDDLE + CHIP / 2, at, word, "inside", "inside", "middle"))
    return parts


def program_cell(x: float, y: float, width: float, wait: Wait) -> list[str]:
    """Return who waits, and in which call."""
    whole = width_of(wait.code, "code") <= width - 14
    parts = cell(x, y, width, wait.who, wait.code if whole and x == LEFT else wait.call, "code")
    kind = f"{wait.kind}, waits" if not wait.on and wait.kind != "task" else wait.kind
    parts.append(text(x + width - 8, y + 18, kind, "small", "soft", "end"))
    return parts


def verdict(moment: Moment) -> tuple[list[tuple[str, str]], str]:
    """Say what is ready, and what is so in vain; and all of the picture in words."""
    ready, unheard = moment.ready(), moment.unheard()
    said = []
    if ready:
        said.append((f"Ready: {', '.join(ready)}.", "ready"))
    if unheard:
        said.append((f"Nobody waits for: {', '.join(unheard)}.", "stuck"))
    if held_up := moment.held_up():
        said.append((f"Not read from, as they do not read: {', '.join(held_up)}.", "soft"))
    waits = [f"{w.who} ({w.kind}) in {w.code!r}" for w in moment.waits]
    asked = [f"{name}: {' and '.join(ways)}" for name, (ways, _) in moment.selector.items()]
    about = f"Who waits: {'; '.join(waits)}. "
    about += f"In the selector: {'; '.join(asked)}. " if asked else "There is no selector. "
    return said, about + " ".join(words for words, _ in said)
