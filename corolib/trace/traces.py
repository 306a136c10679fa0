"""A trace: where events go while a run is recorded, and what is made of them in the end.

    run(main, trace="out.html")             a page, written when the run ends
    run(main, trace="out.jsonl")            events, one a line, written as they come
    run(main, trace="out.json")             for Perfetto
    run(main, trace="-")                    sentences on stderr
    trace = Trace(); run(main, trace=trace) then trace.events
    run(main, trace=f)                      f(event) for each
    run(main, trace=Trace("crash-%p.html", last=20_000))    a page, if something goes wrong

What is noted is in `recorder.py`; how it is written down in `files.py` and `page.py`.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Any

from corolib.kernel import (
    Scheduler,
    attribute,
    brief,
    check_count,
    class_name,
    name_of,
    running_scheduler,
    to_stderr,
    told,
)
from corolib.trace.events import SCHEMA, Codes, Event, decode, in_full
from corolib.trace.files import LineWriter, lines_of
from corolib.trace.measuring import MeasuredScheduler
from corolib.trace.page import page_of
from corolib.trace.perfetto import perfetto_of
from corolib.trace.recorder import TracedScheduler, clock, name_of_thread
from corolib.trace.sentences import sentence
from corolib.trace.state import DONE_KEPT, State

PAGE_KEEPS = 100_000  # events, unless `last=` says another number
CAUSES = 3  # of which a trace is written, if it is only on cause
LINES = ".jsonl"  # the form that is written as events come
FORMS: dict[str, Callable[[dict[str, Any], Sequence[Event]], str]] = {
    ".html": page_of,
    LINES: lines_of,
    ".json": perfetto_of,
}
"""What makes the text of a file, by the suffix of its path."""

_FIRST = os.getpid()  # the process that has imported this: others are forked children of it
_written: dict[str, int] = {}  # how many runs of this process have written to a path


class Trace:
    """A recording of one run: `run(main, trace=Trace("out.html", values=True))`.

    Args:
        to: a path, whose suffix decides: `.html` is a page, `.jsonl` the events, `.json` is for
            Perfetto; `%p` in it becomes the pid, a second run of the process writes `out-2.html`,
            and a forked child `out-4711.html`. "-" is text on stderr. A callable gets each event, a
            tuple as `EVENTS` describes it. None: the events are kept, for `events` and `dump()`.
        last: keep only so many events, the last ones. A page or a file for Perfetto is then written
            only on cause: an exception leaves the run; a failure is taken by nobody, or the
            watchdog tells of a step (of these the first three); or the signal comes that
            COROLIB_TRACE_SIGNAL names in the environment, `USR2` say. Without it a page keeps
            100 000, and is written always. It changes nothing where events are handed on as they
            come: to `.jsonl`, "-" or a callable.
        values: note local variables, too: those that changed, if they are of a plain type.
        stacks: note all frames of a task at each yield, and not the innermost of the program's.
        source: put the source of what ran into the file.

    Raises:
        ValueError: another suffix, or a folder that does not exist.

    Example:
        >>> import corolib
        >>> from corolib.trace import Trace
        >>> def main():
        ...     yield
        >>> trace = Trace()
        >>> corolib.run(main, trace=trace)
        >>> [event["kind"] for event in trace.events if event.get("task") == 1]
        ['spawn', 'wake', 'step', 'yield', 'wake', 'step', 'over', 'done']
    """

    def __init__(
        self,
        to: str | os.PathLike[str] | Callable[[tuple[Any, ...]], object] | None = None,
        *,
        last: int | None = None,
        values: bool = False,
        stacks: bool = False,
        source: bool = True,
    ) -> None:
        if last is not None:
            check_count(last, "Trace(last=)", 1)
        self.to: Any = to if to is None or callable(to) else os.fspath(to)
        self.values = values
        self.stacks = stacks
        self.source = source
        self.codes = Codes()
        # Name, parent, site of all that are named, if the events are kept here.
        self.tasks: dict[int, list[Any]] = {}
        self.t0 = clock()
        self._header: dict[str, Any] = {}
        self.kept: deque[tuple[Any, ...]] = deque()
        self._last = last  # events that are to be kept; None: all
        self._dropped = 0
        self.path = ""  # of the file, when it is known
        self.on_cause = False
        self._causes = 0
        self._used = False
        self._sink: Any = None
        self.add: Callable[[tuple[Any, ...]], object] = self.kept.append
        if isinstance(self.to, str) and self.to != "-":
            suffix = suffix_of(self.to, "trace=", ' or "-" for text on stderr')
            folder = os.path.dirname(self.to) or "."
            if not os.path.isdir(folder):
                raise ValueError(f"trace={brief(self.to)}: there is no folder {brief(folder)}")
            self.to = os.path.abspath(self.to)  # the program may go to another folder
            self.on_cause = last is not None and suffix != LINES
            if last is None and suffix == ".html":
                self._last = PAGE_KEEPS
        # With more than so many, some are dropped: a call for each would cost more than the event.
        self.full = inf if self._last is None else self._last + 100

    def scheduler(self, *, measure: bool = False, **options: Any) -> Scheduler:
        """Return a scheduler that this records, for those who call `turn()`.

        Args:
            measure: whether it measures, too: see `corolib.run`.
            options: see `corolib.Scheduler`.

        Raises:
            RuntimeError: it has recorded another one.
        """
        if self._used:
            raise RuntimeError("this Trace has recorded a run before: make a new one for each")
        self._used = True
        kind = TracedAndMeasured if measure else TracedScheduler
        return kind(self, **options)

    @property
    def events(self) -> list[Event]:
        """What was recorded, as dictionaries: copies, and those that are kept."""
        first, events = self._dropped, list(self.kept)
        if self._last is not None and len(events) > self._last:
            first += len(events) - self._last
            del events[: -self._last]
        return [decode(event, first + n, self.t0, self.codes) for n, event in enumerate(events)]

    @property
    def header(self) -> dict[str, Any]:
        """What a file begins with: of which run, and the names of the tasks and of the code."""
        return self.recorded()[0]

    def recorded(self) -> tuple[dict[str, Any], list[Event]]:
        """Return header and events, for `write`. It costs no more than the events do."""
        events = self.events  # which number the code
        return self._whole_header(events), events

    def dump(self, to: str | os.PathLike[str]) -> str:
        """Write what there is now, in the form that the suffix says; return the path."""
        path = os.fspath(to).replace("%p", str(os.getpid()))
        suffix_of(path, "dump: ")
        write(path, *self.recorded())
        return path

    # For the recorder -------------------------------------------------------------------------

    def begin(self, scheduler: TracedScheduler) -> None:
        """A run begins, which `scheduler` tells of by `add`."""
        kind = class_name(scheduler._poller._make)
        self._header = {
            "schema": SCHEMA,
            "t0_ns": self.t0,
            "wall_t0": time.time(),
            "pid": os.getpid(),
            "argv": list(sys.argv),
            "python": sys.version.split()[0],
            "corolib": sys.modules["corolib"].__version__,
            "selector": kind,
        }
        if scheduler.clock is not time.monotonic:  # deadlines are no times of the events
            self._header["clock"] = name_of(scheduler.clock)
        thread = name_of_thread()
        if thread not in ("?", "MainThread"):
            self._header["thread"] = thread
        if self.to == "-":
            self._use(scheduler, _Text(self.t0, self.codes, self._header.get("thread")))
        elif callable(self.to):
            f = self.to
            self._use(scheduler, lambda event: f(in_full(event, self.codes)))
        elif self.to is not None and self.to.endswith(LINES):
            self.path = free_path(self.to)
            self._try(self._open_lines, scheduler)
            if not self.path:
                self.to = None
        elif self.to is not None and not can_be_written(self.to.replace("%p", str(os.getpid()))):
            # Rather said now than after a long run.
            to_stderr(
                f"corolib: the trace will not be written: {self.to} cannot be made or changed"
            )
            self.to = None

    def _open_lines(self, scheduler: TracedScheduler) -> None:
        self._use(scheduler, LineWriter(self.path, self._header, self.t0, self.codes))

    def _use(self, scheduler: TracedScheduler, sink: Any) -> None:
        """Hand events on to `sink` until it fails; those that came before, too."""

        def add(event: tuple[Any, ...]) -> None:
            try:
                sink(event)
            except Exception as exc:
                path, to = self.path, self.to
                self.stop(scheduler)
                if isinstance(sink, LineWriter):
                    to_stderr(f"corolib: the trace in {path} ends early: {told(exc)}")
                else:
                    _log(f"{brief(to)} failed: the trace ends, and the program goes on", exc)

        self._sink = sink
        before = list(self.kept)
        self.kept.clear()
        self.tasks.clear()
        scheduler.add = self.add = add
        for event in before:
            self.add(event)

    def stop(self, scheduler: TracedScheduler) -> None:
        """Take no more events. What was written stays as it is, and is no trace of the run."""
        self.path, self.to = "", None
        scheduler.add = self.add = lambda event: None
        if isinstance(self._sink, LineWriter):
            self._sink.leave()
        self._sink = None

    def end(self, reason: str) -> None:
        """The run is over: write what is to be written. If that fails, the run is as it was."""
        if self.path.endswith(LINES):
            self._try(self._sink.close, self._sources())
        elif self.on_cause:
            if reason not in ("returned", "closed"):
                self.cause()
        else:
            self._write()

    def cause(self) -> None:
        """Something has gone wrong: now is the time to write what led to it."""
        if self.on_cause and self._causes < CAUSES:
            self._causes += 1
            self.write_now()

    def write_now(self) -> None:
        """Write what there is, while the run goes on, and say where. What is written as it comes
        is there already.
        """
        if isinstance(self.to, str) and not self.path.endswith(LINES):
            self._write()
            if self.path:
                to_stderr(f"corolib: a trace was written to {self.path}")

    def _write(self) -> None:
        if isinstance(self.to, str) and self.to != "-":
            self.path = free_path(self.to)
            self._try(self.dump, self.path)

    def _try(self, f: Callable[..., object], *args: object) -> None:
        try:
            f(*args)
        except Exception as exc:
            to_stderr(f"corolib: the trace could not be written to {self.path}: {told(exc)}")
            self.path = ""

    def name_task(self, number: int, name: str, parent: int | None, site: str) -> None:
        """A task is spawned. Who hands events on has its name from them."""
        if self._sink is None:
            self.tasks[number] = [name, parent, site]

    def trim(self) -> None:
        """Drop what is more than is to be kept."""
        kept, last = self.kept, self._last
        assert last is not None
        excess = len(kept) - last
        for _ in (None,) * excess:
            kept.popleft()
        self._dropped += excess
        if len(self.tasks) > 2 * last + 100:
            self._forget_tasks()

    def _forget_tasks(self) -> None:
        """Of a service that runs for ever, keep the names of those tasks that can be met again."""
        scheduler = running_scheduler()
        living = set() if scheduler is None else {task.id for task in scheduler.tasks}
        for event in list(self.kept):
            living.update(value for value in event[2:] if type(value) is int)
        self.tasks = {number: task for number, task in self.tasks.items() if number in living}

    def _whole_header(self, events: Sequence[Event]) -> dict[str, Any]:
        return {
            **self._header,
            "dropped": events[0]["i"] if events else 0,
            "tasks": self.tasks,
            "code": self.codes.table,
            "source": self._sources(),
        }

    def _sources(self) -> dict[str, str]:
        if not self.source:
            return {}
        import linecache

        found = {}
        for file in self.codes.files():
            with suppress(Exception):  # it cannot be read
                found[file] = "".join(linecache.getlines(file))
        return {file: text for file, text in found.items() if text}


class TracedAndMeasured(MeasuredScheduler, TracedScheduler):
    """A scheduler that tells a trace what it does, and measures."""


class _Text:
    """Writes each event as a sentence on stderr, and of a run in another thread in which."""

    def __init__(self, t0: int, codes: Codes, thread: str | None) -> None:
        self._t0 = t0
        self._codes = codes
        self._where = f"[{thread}] " if thread else ""
        self._state = State()
        self._count = 0

    def __call__(self, event: tuple[Any, ...]) -> None:
        found = decode(event, self._count, self._t0, self._codes)
        self._count += 1
        done = self._state.done
        if found["kind"] == "done" and len(done) == DONE_KEPT:  # forget who ended long ago
            self._state.tasks.pop(done[0], None)
        self._state.apply(found)
        said = sentence(found, self._state, self._codes.table)
        print(f"{found['ns'] / 1e6:10.3f} ms  {self._where}{said}", file=sys.stderr)


def mark(name: str, /, **data: Any) -> None:
    """Note something of the program's own in the trace of this run; nothing if there is none.

    Args:
        name: what happened.
        data: values to be shown with it, as a trace shows values: of other than plain types, only
            which type.

    Example:
        >>> from corolib.trace import mark
        >>> mark("cache emptied", items=12)
    """
    scheduler: Any = running_scheduler()
    note = attribute(scheduler, "note_mark")
    if note is not None:
        note(name, data, sys._getframe(1))


def suffix_of(path: str, what: str = "", more: str = "") -> str:
    """Return the suffix of a path, which says in what form a trace is written there.

    Raises:
        ValueError: it is none of `FORMS`. The message begins with `what`, and ends with `more`.
    """
    suffix = os.path.splitext(path)[1]
    if suffix not in FORMS:
        forms = ".html for a page, .jsonl for events, .json for Perfetto"
        raise ValueError(f"{what}{brief(path)}: the suffix is {forms}{more}")
    return suffix


def write(path: str, header: dict[str, Any], events: Sequence[Event]) -> None:
    """Write a trace down in the form that the suffix of the path says; all of it, or nothing."""
    text = FORMS[suffix_of(path)](header, events)
    file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - what could not be opened stays
    try:
        with file:
            file.write(text)
    except BaseException:
        with suppress(OSError):
            os.remove(path)
        raise


def can_be_written(path: str) -> bool:
    """Return whether a file can be made at this path, or the one that is there changed."""
    path = os.path.realpath(path)  # what a link leads to may be still to be made
    if os.path.exists(path):
        return not os.path.isdir(path) and os.access(path, os.W_OK)
    return os.access(os.path.dirname(path), os.W_OK | os.X_OK)


def free_path(path: str) -> str:
    """Return where to write: the path itself the first time in this process, then `out-2.html`.

    In a forked child it is `out-4711.html`, with the number of the process: the path itself is its
    parent's.
    """
    process = os.getpid()
    if process != _FIRST and "%p" not in path:
        path = "-%p".join(os.path.splitext(path))
    path = path.replace("%p", str(process))
    count = _written[path] = _written.get(path, 0) + 1
    if count == 1:
        return path
    stem, suffix = os.path.splitext(path)
    return f"{stem}-{count}{suffix}"


def _log(text: str, error: Exception) -> None:
    import logging

    logging.getLogger("corolib.trace").error(text, exc_info=error)
