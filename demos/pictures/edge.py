"""The picture of level and edge: what is in the buffer when the step asks, and what it is told."""

from __future__ import annotations

import argparse
import io
import socket
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, NamedTuple
from unittest import mock

from demos.drawing import MARGIN, WIDTH, document, dot, rect, text, title_lines
from demos.pictures.moment import title_of
from demos.tour import step07_edge

SCENE = "Ten bytes, three looks; five more, a look. Above: the buffer."
LOOKS = 4  # in each of the three ways
COLUMN = (WIDTH - 2 * MARGIN) / LOOKS
CHIP, CELL, ROW = 46, 70, 104  # the width of five bytes; the heights of a look, and of a way


class Look(NamedTuple):
    """What was there, and what was told."""

    buffer: str
    told: str


def record() -> dict[str, list[Look]]:
    """Run the step, and return its looks under the title of each way."""
    seen: list[Look] = []

    def watched(look: Callable[..., str]) -> Callable[..., str]:
        def peek(poller: Any, sock: socket.socket, size: int) -> str:
            try:
                buffer = sock.recv(100, socket.MSG_PEEK).decode()
            except BlockingIOError:
                buffer = ""
            seen.append(Look(buffer, look(poller, sock, size)))
            return seen[-1].told

        return peek

    with (
        mock.patch.object(step07_edge, "look", watched(step07_edge.look)),
        mock.patch.object(step07_edge, "look_and_empty", watched(step07_edge.look_and_empty)),
        redirect_stdout(io.StringIO()) as said,
    ):
        step07_edge.main(argparse.Namespace())
    titles = [line for line in said.getvalue().splitlines() if not line.startswith(" ")]
    return {title: seen[LOOKS * n : LOOKS * n + LOOKS] for n, title in enumerate(titles)}


def draw() -> str:
    """Run the step, and return the picture."""
    title = title_of(step07_edge.__name__)
    ways = record()
    top = 30 + 21 * len(title_lines(title))
    parts = [text(MARGIN, top, SCENE, "small", "soft")]
    for row, (way, looks) in enumerate(ways.items()):
        y = top + 28 + row * ROW
        parts.append(text(MARGIN, y, way[0].upper() + way[1:], "head"))
        for column, look in enumerate(looks):
            parts += cell(MARGIN + column * COLUMN, y + 9, look)
    told = "; ".join(f"{way}: {', '.join(look.told for look in ways[way])}" for way in ways)
    return document(top + 16 + len(ways) * ROW, title, f"{SCENE} {told}.", parts)


def cell(x: float, y: float, look: Look) -> list[str]:
    """Return one look: the buffer, and below it what was told and read."""
    parts = [rect(x, y, COLUMN - 6, CELL, "panel", 5)]
    for place, at in enumerate(range(0, len(look.buffer), 5)):
        left = x + 5 + place * (CHIP + 4)
        parts.append(rect(left, y + 6, CHIP, 20, "work", 4))
        words = look.buffer[at : at + 5]
        parts.append(text(left + CHIP / 2, y + 20, words, "inside", "inside", "middle"))
    told, _, what = look.told.partition(" reads ")
    if what:
        parts.append(dot(x + 10, y + 40, "ready"))
        parts.append(text(x + 18, y + 44, f"{told} reads", "small", "ready"))
        parts.append(text(x + 6, y + 61, what.replace(" and ", " "), "small"))
    else:
        parts.append(text(x + 6, y + 44, told, "small", "stuck" if look.buffer else "soft"))
    return parts
