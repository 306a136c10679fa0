"""The same three tasks one after another, in threads, and as events: measured, and drawn.

Each task works for a moment, waits, works, waits, and works. The waits are of different lengths.
The first lane is an ordinary program, the second has a thread for each task, the third is one
thread, in which corolib runs three tasks. Work is blue, green, or orange; waiting is grey.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from corolib import Coro, Sleep, TaskGroup, run
from demos.drawing import MARGIN, WIDTH, document, rect, text

WORK = 0.012  # seconds of the processor
WAITS = ((0.05, 0.09), (0.07, 0.05), (0.09, 0.07))  # seconds, of each task
COLOURS = ("work", "ready", "stuck")
TITLE = "Three tasks, three ways to run them"
BAR, GAP = 16, 5  # y: a row of a lane, and between two


class Segment(NamedTuple):
    """A stretch of work, in seconds since the lane began."""

    task: int
    began: float
    ended: float


class Lane(NamedTuple):
    """What was measured: the stretches of work, and when each task was over."""

    name: str
    segments: list[Segment]
    seconds: float


class Clock:
    """Notes who works when."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.segments: list[Segment] = []

    def work(self, task: int, seconds: float) -> None:
        """Keep the processor busy for so long."""
        began = time.perf_counter()
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        since = (began - self.began, time.perf_counter() - self.began)
        self.segments.append(Segment(task, *since))

    def lane(self, name: str) -> Lane:
        return Lane(name, sorted(self.segments), time.perf_counter() - self.began)


def plainly(clock: Clock, task: int, scale: float) -> None:
    """Be one task, in a program or in a thread of its own."""
    for pause in WAITS[task]:
        clock.work(task, WORK * scale)
        time.sleep(pause * scale)
    clock.work(task, WORK * scale)


def as_generator(clock: Clock, task: int, scale: float) -> Coro[None]:
    """Be the same task: only the wait differs."""
    for pause in WAITS[task]:
        clock.work(task, WORK * scale)
        yield Sleep(pause * scale)
    clock.work(task, WORK * scale)


def one_after_another(scale: float) -> Lane:
    clock = Clock()
    for task in range(len(WAITS)):
        plainly(clock, task, scale)
    return clock.lane("One after another")


def in_threads(scale: float) -> Lane:
    clock = Clock()
    tasks = range(len(WAITS))
    threads = [threading.Thread(target=plainly, args=(clock, task, scale)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return clock.lane("A thread for each")


def as_events(scale: float) -> Lane:
    def main(clock: Clock) -> Coro[None]:
        with TaskGroup() as group:
            for task in range(len(WAITS)):
                group.spawn(as_generator, clock, task, scale)
            yield from group

    clock = Clock()
    run(main, clock)
    return clock.lane("Events, in one thread")


LANES: tuple[Callable[[float], Lane], ...] = (one_after_another, in_threads, as_events)


def measure(scale: float = 1.0) -> list[Lane]:
    """Run the three lanes; `scale` makes all work and all waits shorter or longer."""
    return [lane(scale) for lane in LANES]


def draw(lanes: list[Lane]) -> str:
    """Return the picture: time runs to the right, by the same scale in all lanes."""
    whole = max(lane.seconds for lane in lanes)
    width = WIDTH - 2 * MARGIN
    parts = [text(MARGIN, 52, "Each works, waits, works, waits, and works.", "small", "soft")]
    y = 80.0
    for lane in lanes:
        parts.append(text(MARGIN, y, lane.name, "head"))
        words = f"{lane.seconds * 1e3:.0f} ms"
        parts.append(text(WIDTH - MARGIN, y, words, "head", "ink", "end"))
        y += 8
        rows = len(COLOURS) if lane.name == "A thread for each" else 1
        for row in range(rows):
            mine = [s for s in lane.segments if rows == 1 or s.task == row]
            first = min(s.began for s in mine) if rows > 1 else 0.0
            last = max(s.ended for s in mine)
            scale = width / whole
            parts.append(rect(MARGIN + first * scale, y, (last - first) * scale, BAR, "wait", 2))
            for s in mine:
                length = max((s.ended - s.began) * scale, 1.5)
                parts.append(rect(MARGIN + s.began * scale, y, length, BAR, COLOURS[s.task], 1))
            y += BAR + GAP
        y += 25
    x = float(MARGIN)
    for number, colour in enumerate((*COLOURS, "wait"), 1):
        words = "waiting" if colour == "wait" else f"task {number}"
        parts += [rect(x, y - 14, 14, 12, colour), text(x + 20, y - 4, words, "small", "soft")]
        x += 84
    spelled = "; ".join(f"{lane.name}: {lane.seconds * 1e3:.0f} ms" for lane in lanes)
    about = f"Three tasks that mostly wait. {spelled}. Threads and events wait for all at once."
    return document(y + 12, TITLE, about, parts)
