"""A watchdog: a thread that says which task does not come to its next `yield`, and in which line.

    run(main, watchdog=0.5)

Nothing is added to the loop: the thread looks at the number of the turn and at the task that runs,
some times in that span, and seldom while the loop sleeps. A call of C that does not let go of the
interpreter stops this thread too. For that case each look winds up a clock of `faulthandler`, which
needs no interpreter, and prints the stacks if the next look does not come. It reads them without a
lock, which could end Python in a crash if that ran; so a look may be half a second late at least.

There is one such clock in a process, and it does not say what it was set to. So while a watchdog
watches, what a program has itself asked of `faulthandler.dump_traceback_later` does not happen, nor
afterwards; that is what pytest's `faulthandler_timeout` asks for.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any

from corolib.kernel import Scheduler, Task, attribute

LOOKS = 4  # in the span that a step may take
# What a span may be, in seconds. A thread that computes keeps the interpreter for 5 ms: in a span
# not longer than that each look would be late. And no thread can wait for ever.
SHORTEST, LONGEST = 0.01, 86_400.0
LATE = 0.5  # seconds that a look may be late at least, before the stacks are printed
_FRAMES = ("gi_frame", "cr_frame", "ag_frame")


class Watchdog:
    """Watches the steps of one scheduler, from its making to `end()`.

    A step that takes longer is told once, as a warning of the logger "corolib.task"; and a trace
    that is written on cause is written.

    Args:
        scheduler: whose steps are watched.
        seconds: how long a step may take, from `SHORTEST` to `LONGEST`.
    """

    def __init__(self, scheduler: Scheduler, *, seconds: float) -> None:
        self._scheduler = scheduler
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="corolib-watchdog", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        scheduler, seconds = self._scheduler, self._seconds
        seen: Any = None
        since, told, pause = 0.0, False, seconds / LOOKS
        while True:
            with suppress(Exception):  # stderr may be no file
                faulthandler.dump_traceback_later(pause + max(seconds, LATE))
            over = self._over.wait(pause)
            faulthandler.cancel_dump_traceback_later()  # before anything that takes its time
            if over:
                break
            task = scheduler.current
            now = time.monotonic()
            looked = scheduler._turns, None if task is None else task.id
            if scheduler.polling or looked != seen:
                # It sleeps since the last look at least, and is not watched so closely.
                pause = seconds if scheduler.polling and looked == seen else seconds / LOOKS
                seen, since, told = looked, now, False
            elif not told and now - since >= seconds and scheduler._turns:
                told = True
                self._tell(task, now - since)
            del task

    def _tell(self, task: Task[Any] | None, took: float) -> None:
        """Say what goes on, and where; and have a flight recorder write what led to it."""
        import logging

        who = "a callback" if task is None else f"task {task.label}"
        text = "%s has not come to an end of its step for %.3f s; all other tasks wait:\n%s"
        stack = stack_of(task, self._scheduler.thread)
        logging.getLogger("corolib.task").warning(text, who, took, stack)
        trace = attribute(self._scheduler, "trace")
        if trace is not None:
            trace.cause()


def stack_of(task: Task[Any] | None, thread: int) -> str:
    """Return the stack of a thread as text, from the task's first frame inward."""
    frames = list(traceback.walk_stack(sys._current_frames().get(thread)))[::-1]
    body = None if task is None else task.body
    first = next((frame for name in _FRAMES if (frame := attribute(body, name))), None)
    for i, (frame, _) in enumerate(frames):
        if frame is first:
            frames = frames[i:]
            break
    return "".join(traceback.StackSummary.extract(iter(frames)).format()).rstrip()
