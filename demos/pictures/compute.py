"""The picture of the step that computes: when the work runs, and when the other task can tick."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from demos.drawing import MARGIN, WIDTH, document, rect, text, title_lines
from demos.pictures.moment import title_of
from demos.tour import step15_compute
from demos.tour.step14_join import Scheduler

SCENE = "Blue: the work runs. Green: another task, which sleeps for 1 ms."
BAR, ROW = 16, 78  # the height of a row of bars, and from one way to the next
THIN = 1.5  # the width of what takes no time


class Step(NamedTuple):
    """A step of a task, in seconds since its scheduler began."""

    task: str
    began: float
    ended: float


class Way(NamedTuple):
    """What was measured of one way to do the work."""

    name: str
    steps: list[Step]
    ticks: int


class Watched(Scheduler):
    """Notes when each task is stepped."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.began = time.perf_counter()

    def step(self, task: Any) -> None:
        began = time.perf_counter() - self.began
        super().step(task)
        self.steps.append(Step(task.name, began, time.perf_counter() - self.began))


def measure(most: int = step15_compute.MOST) -> list[Way]:
    """Do the work in both ways."""
    ways = []
    for work in (step15_compute.at_once, step15_compute.giving_way):
        scheduler = Watched()
        with scheduler.selector:
            _, ticks = scheduler.run(step15_compute.ticks(scheduler, work(most)))
        ways.append(Way(work.__name__, scheduler.steps, ticks))
    return ways


def draw(ways: list[Way]) -> str:
    """Return the picture: time runs to the right, by the same scale in both."""
    title = title_of(step15_compute.__name__)
    top = 30 + 21 * len(title_lines(title))
    parts = [text(MARGIN, top, SCENE, "small", "soft")]
    whole = max(step.ended for way in ways for step in way.steps)
    scale = (WIDTH - 2 * MARGIN) / whole
    told = []
    for number, way in enumerate(ways):
        y = top + 28 + number * ROW
        last = max(step.ended for step in way.steps)
        words = f"{way.ticks} ticks in {last * 1e3:.0f} ms"
        parts.append(text(MARGIN, y, f"{way.name}()", "head"))
        parts.append(text(WIDTH - MARGIN, y, words, "head", "ink", "end"))
        for row, (task, colour) in enumerate(((way.name, "work"), ("tick", "ready"))):
            at = y + 8 + row * (BAR + 5)
            parts.append(rect(MARGIN, at, last * scale, BAR, "wait", 2))
            for step in way.steps:
                if step.task == task:
                    width = max((step.ended - step.began) * scale, THIN)
                    parts.append(rect(MARGIN + step.began * scale, at, width, BAR, colour, 0))
        told.append(f"{way.name}: {words}")
    return document(top + 12 + len(ways) * ROW, title, f"{SCENE} {'; '.join(told)}.", parts)
