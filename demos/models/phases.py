"""The two phases of reading, in each of the five models, measured and drawn.

    $ python3 -m demos.models.phases --svg phases.svg
    blocking        recv() sleeps 30.214 ms, and copies: 0.041 ms
    non-blocking    30.108 ms, 21563 calls in vain; recv() copies: 0.022 ms
    ...

Some data comes after a while. Phase 1 is the time until it is there, phase 2 the time in which it
is copied to the program. What differs is what the program does meanwhile: asleep, asking, or free;
where it is free, it counts, which shows that it was. `README.md` here says more about the models.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from demos.drawing import MARGIN, WIDTH, document, line, picture_file, rect, text
from demos.models.completions import open_completions
from demos.start import at_least, start

SIZE = 64_000  # bytes: so many that the copy can be measured
SPLIT = 330  # x: where the picture has phase 2
THICK, ROW, TOP = 22, 74, 92
TITLE = "Five ways to read: two phases"


class Phases(NamedTuple):
    """What a model does in each phase, and for how long."""

    name: str
    first: str  # "asleep", "asking" or "free"
    by: str  # what it waits by
    waited: float  # seconds
    copied: float  # seconds
    number: int = 0  # of calls in vain; or how far it has counted meanwhile
    second: str = "recv() copies"


class Sender:
    """Sends the data a while after `begin()`, from a thread, and notes when that was."""

    def __init__(self, sock: socket.socket, delay: float) -> None:
        self.began = self.sent = 0.0
        self.go = threading.Event()
        self.thread = threading.Thread(target=self.send, args=(sock, delay))
        self.thread.start()

    def begin(self) -> None:
        self.began = time.perf_counter()
        self.go.set()

    def send(self, sock: socket.socket, delay: float) -> None:
        self.go.wait()
        time.sleep(delay)
        self.sent = time.perf_counter()
        sock.sendall(bytes(SIZE))


def copy(conn: socket.socket) -> float:
    """Read what is there; return the seconds of this one call."""
    began = time.perf_counter()
    conn.recv(SIZE)
    return time.perf_counter() - began


def blocking(conn: socket.socket, sender: Sender) -> Phases:
    sender.begin()
    conn.recv(SIZE)
    over = time.perf_counter()
    sender.thread.join()
    waited, copied = sender.sent - sender.began, over - sender.sent
    return Phases("blocking", "asleep", "in recv()", waited, copied)


def nonblocking(conn: socket.socket, sender: Sender) -> Phases:
    conn.setblocking(False)
    vain = 0
    while True:
        began = time.perf_counter()
        try:
            conn.recv(SIZE)
        except BlockingIOError:
            vain += 1
            if vain == 1:
                sender.begin()
            continue
        copied = time.perf_counter() - began
        return Phases("non-blocking", "asking", "recv()", began - sender.began, copied, vain)


def multiplexing(conn: socket.socket, sender: Sender) -> Phases:
    sender.begin()
    select.select([conn], [], [])
    waited = time.perf_counter() - sender.began
    return Phases("multiplexing", "asleep", "in select()", waited, copy(conn))


def signal_driven(conn: socket.socket, sender: Sender) -> Phases:
    from fcntl import F_GETFL, F_SETFL, F_SETOWN, fcntl

    told: list[float] = []
    before = signal.signal(signal.SIGIO, lambda *_: told.append(time.perf_counter()))
    try:
        fcntl(conn, F_SETOWN, os.getpid())
        fcntl(conn, F_SETFL, fcntl(conn, F_GETFL) | os.O_ASYNC)
        sender.begin()
        count = 1
        while not told:
            count += 1
        waited = told[0] - sender.began
        return Phases("signal-driven", "free", "until SIGIO", waited, copy(conn), count)
    finally:
        fcntl(conn, F_SETFL, fcntl(conn, F_GETFL) & ~os.O_ASYNC)
        signal.signal(signal.SIGIO, before)


def asynchronous(conn: socket.socket, sender: Sender) -> Phases:
    io = open_completions()
    told: list[float] = []
    io.recv(conn, bytearray(SIZE), lambda _: told.append(time.perf_counter()))
    waiting = threading.Thread(target=lambda: [then(count) for then, count in io.wait()])
    waiting.start()
    sender.begin()
    count = 1
    while not told:
        count += 1
    waiting.join()
    io.close()
    sender.thread.join()
    waited, copied = sender.sent - sender.began, told[0] - sender.sent
    second = f"{io.name} copies"
    return Phases("asynchronous", "free", "until it is told", waited, copied, count, second)


MODELS: tuple[Callable[[socket.socket, Sender], Phases], ...] = (
    blocking,
    nonblocking,
    multiplexing,
    signal_driven,
    asynchronous,
)


def measure(delay: float = 0.03) -> list[Phases]:
    """Read once in each of the five ways, with so many seconds until the data comes."""
    found = []
    for model in MODELS:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            sender = Sender(theirs, delay)
            try:
                found.append(model(ours, sender))
            finally:
                sender.go.set()
                sender.thread.join()
    return found


def spell(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms" if seconds < 0.001 else f"{seconds * 1e3:.1f} ms"


def what(phases: Phases) -> str:
    """Say what a program does in phase 1."""
    if phases.first == "asking":
        return f"asks: {phases.number} calls in vain"
    if phases.first == "free":
        return f"free {phases.by}; counts to {phases.number}"
    return f"asleep {phases.by}"


def draw(five: list[Phases]) -> str:
    """Return the five diagrams: a row for each model, phase 1 to the left, phase 2 to the right."""
    parts = [
        text(MARGIN, 52, "1: until data is there", "head", "soft"),
        text(SPLIT, 52, "2: copying it", "head", "soft"),
        line([(SPLIT - 8, 62), (SPLIT - 8, TOP + ROW * len(five) - 16)], "edge", 1, dashed=True),
    ]
    for number, phases in enumerate(five):
        y = TOP + number * ROW
        parts.append(text(MARGIN, y, phases.name, "head"))
        parts.append(text(SPLIT - 16, y, spell(phases.waited), "small", "soft", "end"))
        parts.append(text(WIDTH - MARGIN, y, spell(phases.copied), "small", "soft", "end"))
        parts += first_phase(phases, MARGIN, y + 7, SPLIT - 16 - MARGIN)
        parts.append(text(MARGIN, y + 44, what(phases), "small"))
        own = phases.second.startswith("recv")
        width = WIDTH - MARGIN - SPLIT
        if own:
            parts.append(rect(SPLIT, y + 7, width, THICK, "stuck"))
        else:
            parts += free(SPLIT, y + 7, width)
        parts.append(text(SPLIT, y + 44, phases.second, "small"))
    y = TOP + ROW * len(five) + 4
    for at, kind, words in (
        (MARGIN, "wait", "asleep"),
        (100, "work", "asking"),
        (184, "stuck", "stands still for the copy"),
    ):
        parts += [rect(at, y - 10, 14, 12, kind), text(at + 20, y, words, "small", "soft")]
    parts += [*free(374, y - 10, 14, 12), text(394, y, "free", "small", "soft")]
    about = (
        "Blocking sleeps in both phases, non-blocking asks in the first, multiplexing sleeps in "
    )
    about += "select, signal-driven is free in the first, and asynchronous is free in both."
    return document(y + 20, TITLE, about, parts)


def first_phase(phases: Phases, x: float, y: float, width: float) -> list[str]:
    if phases.first == "free":
        return free(x, y, width)
    if phases.first == "asleep":
        return [rect(x, y, width, THICK, "wait")]
    each = width / 24  # one stroke stands for many calls
    return [rect(x + n * each, y, each - 4, THICK, "work", 1) for n in range(24)]


def free(x: float, y: float, width: float, height: float = THICK) -> list[str]:
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
    return [line(corners, "ready", 1.5, dashed=True)]


def main(options: argparse.Namespace) -> None:
    if not hasattr(os, "O_ASYNC"):
        sys.exit("there is no SIGIO here: this needs a system of the Unix family")
    five = measure(options.delay)
    for phases in five:
        first = f"{spell(phases.waited)}, {what(phases)}"
        print(f"{phases.name:<16}{first}; {phases.second}: {spell(phases.copied)}")
    if options.svg:
        options.svg.write_text(draw(five), encoding="utf-8")


if __name__ == "__main__":
    svg = {"type": picture_file, "metavar": "FILE", "help": "draw them, too"}
    delay = {"type": at_least(0.0, 10.0), "default": 0.03, "help": "seconds; default: %(default)s"}
    start(main, __doc__, arguments={"--svg": svg, "--delay": delay})
