"""What a step of the tour does in a few lines, one after another, recorded and drawn.

A small program is run by the scheduler of the step, and each line that matters is noted when its
turn has come, with who is ready, and who waits for what, after it.
"""

from __future__ import annotations

import inspect
import linecache
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from demos.drawing import MARGIN, WIDTH, document, rect, shortened, text, title_lines
from demos.pictures.moment import TOUR, title_of
from demos.tour import step12_errors, step13_cancel, step14_join, step16_threads
from demos.tour.step11_timers import Coro, ReadWait, Sleep
from demos.tour.step12_errors import BusyError
from demos.tour.step14_task import Suspend
from demos.tour.step16_threads import elsewhere

CHIP, ROW = 92, 43  # the width of a name, and from one row to the next
SCHEDULER, THREAD = "scheduler", "a thread"
LOOP, SELECT = "for key, events in ", "self.selector.select("


class Row(NamedTuple):
    """A line that was run, by whom, and how things stood when the next one's turn came."""

    who: str
    code: str
    state: str


class Recorder:
    """Notes lines while they run; `shown` are their beginnings."""

    def __init__(self, scheduler: Any, *shown: str) -> None:
        self.scheduler = scheduler
        self.shown = shown
        self.rows: list[Row] = []
        self.last: FrameType | None = None  # in which the last line still runs

    def run(self, main: Coro[Any]) -> None:
        before = sys.gettrace()
        threading.settrace(self.trace)
        sys.settrace(self.trace)
        try:
            self.scheduler.run(main)
        finally:
            sys.settrace(before)
            threading.settrace(before)

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        file = frame.f_code.co_filename
        if file != __file__ and Path(file).parent != TOUR:
            return None
        code = linecache.getline(file, frame.f_lineno).strip()
        new = event == "line" and code.startswith(self.shown)
        new = new and not (code.startswith(LOOP) and self.scheduler.ready)  # then it is no wait
        if self.last and (new or self.is_over(frame, event)):
            self.last = None
            self.rows[-1] = self.rows[-1]._replace(state=state_of(self.scheduler))
        if new:
            self.last = frame
            words = code.partition("  #")[0]
            words = words.removeprefix(LOOP)[:-1] if words.startswith(LOOP) else words
            self.rows.append(Row(who_runs(frame), words, ""))
        return self.trace

    def is_over(self, frame: FrameType, event: str) -> bool:
        """Tell whether the last line is over, or something else begins before it is.

        A thread and the scheduler do not wait for each other: after a line of a thread, or while
        the scheduler waits, whoever is heard of first ends it.
        """
        who, code, _ = self.rows[-1]
        beside = who == THREAD or code.startswith(SELECT)
        return beside or (frame is self.last and event in ("line", "return"))


def who_runs(frame: FrameType) -> str:
    """Return the name of the task, if a task runs; a generator that another one calls is its."""
    if threading.current_thread() is not threading.main_thread():
        return THREAD
    name = SCHEDULER
    each: FrameType | None = frame
    while each is not None and each.f_code.co_flags & inspect.CO_GENERATOR:
        name, each = each.f_code.co_name, each.f_back
    return name


def state_of(scheduler: Any) -> str:
    """Return in words who is ready, and who waits for what."""
    ready = [task.name for task in scheduler.ready]
    files = {**scheduler.readers, **scheduler.writers}
    waits = [f"{task.name} (file)" for task in files.values()]
    timers = [task for *_, task in scheduler.timers]
    waits += [f"{task.name} (time)" if task else "nobody (an empty timer)" for task in timers]
    named = sorted(scheduler.tasks, key=lambda task: str(task.name))
    waits += [f"{task.name} (wake)" for task in named if is_suspended(task)]
    called = ["one"] if getattr(scheduler, "calls", ()) else []
    parts = (("ready", ready), ("waits", waits), ("calls", called))
    return (
        "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names)
        or "nobody is left"
    )


def is_suspended(task: Any) -> bool:
    return isinstance(getattr(task, "wait", None), Suspend)


# The programs: the first line of each says what happens -------------------------------------------


Record = Callable[..., Any]  # makes a `Recorder`, or what can be in its place


def errors(record: Record = Recorder) -> Any:
    """Two tasks wait for one socket. The second one is told."""
    shown: tuple[str, ...]
    shown = ("yield ReadWait(ours)", "waiting[trap.file] =", "raise BusyError", "self.resume(task,")
    shown += ("except BusyError:", "theirs.send(", LOOP, "self.resume(self.r", "ours.recv(")
    scheduler = step12_errors.Scheduler()

    def first() -> Coro[None]:
        yield ReadWait(ours)
        ours.recv(100)

    def second() -> Coro[None]:
        try:
            yield ReadWait(ours)
        except BusyError:
            theirs.send(b"hello")

    ours, theirs = socket.socketpair()
    with ours, theirs, scheduler.selector:
        recorder = record(scheduler, *shown)
        scheduler.spawn(first())
        recorder.run(second())
    return recorder


def cancel(record: Record = Recorder) -> Any:
    """A task sleeps for an hour. Another one cancels it."""
    shown = ("yield Sleep(", "heappush(", "sleeping.cancel(", "self.undo()", "self.scheduler.res")
    scheduler = step13_cancel.Scheduler()
    tidied = []

    def sleeper() -> Coro[None]:
        try:
            yield Sleep(3600)
        finally:
            tidied.append(True)

    def main() -> Coro[None]:
        yield
        sleeping.cancel()

    with scheduler.selector:
        recorder = record(scheduler, *shown, "tidied.append(", "self.body_over(task, exc)")
        sleeping = scheduler.spawn(sleeper())
        recorder.run(main())
    return recorder


def join(record: Record = Recorder) -> Any:
    """One task waits for another one, and gets what it returns."""
    shown = ("task = scheduler.spawn(", "value = yield from task", "self.joiners.append(")
    scheduler = step14_join.Scheduler()

    def double(number: int) -> Coro[int]:
        yield
        return 2 * number

    def main() -> Coro[Any]:
        task = scheduler.spawn(double(21))
        value = yield from task
        return value

    with scheduler.selector:
        recorder = record(scheduler, *shown, "return 2 * number", "wake(value,", "return value")
        recorder.run(main())
    return recorder


def thread_wakes(record: Record = Recorder) -> Any:
    """A task has a thread work, and goes on when that is done."""
    shown: tuple[str, ...]
    shown = ("value = yield from", "pool.submit(", LOOP, "return 42", "self.calls.append(")
    shown += ("self.there.send(", "self.here.recv(", "self.calls.popleft()", "return value")
    asleep = threading.Event()

    class Scheduler(step16_threads.Scheduler):
        """It says when it is going to wait, so that the thread is never done before."""

        def patience(self) -> float | None:
            if not self.ready:
                asleep.set()
            return super().patience()

    def main() -> Coro[Any]:
        value = yield from elsewhere(scheduler, pool, work)
        return value

    def work() -> int:
        asleep.wait()
        return 42

    scheduler = Scheduler()
    with ThreadPoolExecutor(1) as pool, scheduler.selector:
        recorder = record(scheduler, *shown)
        recorder.run(main())
    return recorder


STORIES: dict[str, tuple[Callable[..., Any], ModuleType]] = {
    "errors": (errors, step12_errors),
    "cancel": (cancel, step13_cancel),
    "join": (join, step14_join),
    "thread_wakes": (thread_wakes, step16_threads),
}


def draw(name: str) -> str:
    """Run the program of that name, and return the picture."""
    program, module = STORIES[name]
    return drawn(title_of(module.__name__), (program.__doc__ or "").strip(), program().rows)


def drawn(title: str, scene: str, rows: list[Row]) -> str:
    top = 30 + 21 * len(title_lines(title))
    parts = [text(MARGIN, top, scene, "small", "soft")]
    x = MARGIN + CHIP + 10
    for number, row in enumerate(rows):
        y = top + 14 + number * ROW
        colour = {SCHEDULER: "ready", THREAD: "stuck"}.get(row.who, "work")
        parts.append(rect(MARGIN, y, CHIP, 20, colour, 9))
        parts.append(text(MARGIN + CHIP / 2, y + 14, row.who, "inside", "inside", "middle"))
        parts.append(text(x, y + 14, shortened(row.code, WIDTH - MARGIN - x, "code"), "code"))
        parts.append(text(x, y + 31, row.state, "small", "soft"))
    told = "; ".join(f"{row.who}: {row.code} ({row.state})" for row in rows)
    return document(top + 14 + len(rows) * ROW + 4, title, f"{scene} {told}", parts)
