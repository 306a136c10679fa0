"""The recorder: a scheduler that notes each moment, and changes nothing.

`TracedScheduler` overrides the methods that the scheduler has for this. What has no such method is
replaced in this one scheduler, by its like that notes too: the ready queue, the timers, the
selector, the scopes as they are left, and the locks that a task holds. Blocks and queues are made
by the program, so three methods of their classes are swapped while a trace is being made, and put
back behind it: see `watching.py`.

So a run that is not traced has none of this, and the loop never asks whether somebody watches.

An event keeps no object of the program's alive: it is made of numbers, words and code objects. No
`repr` but one of a built-in type is asked for.
"""

from __future__ import annotations

import sys
import time
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from socket import socket
from types import CodeType, FrameType, GeneratorType
from typing import TYPE_CHECKING, Any

from corolib.kernel import (
    Cancelled,
    Deadlock,
    Enqueue,
    Join,
    ProxyWaiter,
    ReadWait,
    Scheduler,
    Scope,
    Sleep,
    Suspend,
    Task,
    UrgentWait,
    WriteWait,
    class_name,
    default_selector,
    find_cycle,
    handle_signal,
    handles_signals,
    holders,
    name_of,
    plain,
    signal_named,
)
from corolib.trace.lints import never_run, variables_of
from corolib.trace.messages import BITS, PLAIN, is_ours, is_programs, left_at, words_of
from corolib.trace.watching import (
    Holds,
    Labels,
    NotingCancellation,
    NotingQueue,
    NotingTimers,
    noting_selector,
    swap_in,
    swap_out,
)

if TYPE_CHECKING:
    from corolib.trace.traces import Trace

_BODIES = (  # what a suspended body, of whatever kind, runs and delegates to, and where it stands
    ("gi_code", "gi_yieldfrom", "gi_frame"),
    ("cr_code", "cr_await", "cr_frame"),
    ("ag_code", "ag_await", "ag_frame"),
)
_WORDS: dict[type, str] = {ReadWait: "read", WriteWait: "write", UrgentWait: "urgent"}
_OF_PHASE = {"poll": "io", "io": "io", "timer": "timer"}  # why a wait ends in it
_SIZED = (list, tuple, dict, set, frozenset, bytearray)
LONGEST = 60  # characters of a value
NEVER = 1e18  # ns: thirty years
SIGNAL = signal_named("COROLIB_TRACE_SIGNAL")  # that has a trace written at once
clock = time.perf_counter_ns


class TracedScheduler(Scheduler):
    """A scheduler that tells a trace what it does."""

    def __init__(self, trace: Trace, **options: Any) -> None:
        self.trace = trace
        self.add = trace.add  # takes an event
        self.kept = trace.kept
        self.phase = "step"  # or poll, io, timer, call: what the loop is doing
        self.seen_turn = 0
        self.begun = self.ended = False
        self.unhandle: Callable[[], object] = lambda: None
        self.whys: dict[int, str] = {}  # of each task, why its next wake will have come
        self.proxied: dict[int, str] = {}  # of a task in whose place somebody waited
        self.delivered: int | None = None  # the task that a cancel was delivered to just now
        self.stepped: dict[int, int] = {}  # how many steps each task has taken
        # Of each task, the variables told last, and of which function.
        self.told: dict[int, tuple[CodeType | None, dict[str, Any]]] = {}
        self.unread: list[tuple[int, Any]] = []  # tasks and their bodies, whose code is new
        self.labels = Labels()
        self.deadlocked = False
        self.failed = 0  # tasks
        self.first_failed: str | None = None
        # Of code, the lines of its instructions; None: it is the library's. By the address, for a
        # hash of code looks at all of it; and to ask a frame for its line takes as long as a wake.
        self.codes: dict[int, tuple[CodeType, dict[int, int] | None]] = {}
        selector = options.get("selector", default_selector)
        if callable(selector):  # else it is refused
            options["selector"] = noting_selector(self, selector)
        super().__init__(**options)
        self.t0_clock, trace.t0 = self.clock(), clock()  # so that events and deadlines agree
        timers = NotingTimers(self)
        self.timers = self._poller._timers = timers
        self.cancellation = NotingCancellation(self)

    def note(self, kind: str, *fields: object) -> None:
        """Tell the trace of an event that happens now."""
        if self._turns != self.seen_turn:
            self.turn_begins(len(self._ready))
        self.add((kind, clock(), *fields))
        if len(self.kept) > self.trace.full:
            self.trace.trim()

    def turn_begins(self, ready: int) -> None:
        """The first event of a turn is about to be noted: nothing else says that one begins."""
        self.seen_turn = self._turns
        if len(self.kept) > self.trace.full:
            self.trace.trim()
        self.add(("turn", clock(), self._turns, ready))
        if self.unread:  # between turns: no step, and no wait that is being made, is longer for it
            self.read_code()

    # The run ----------------------------------------------------------------------------------

    def open(self) -> None:
        if not self.begun:
            self.begun = True
            swap_in()
            self.trace.begin(self)
            self.note("run", len(self._tasks))
            if SIGNAL is not None and handles_signals():
                self.unhandle = handle_signal(SIGNAL, lambda *_: self.trace.write_now())
        super().open()

    def close_files(self) -> None:
        super().close_files()
        if self.begun and not self.ended:
            self.ended = True
            self.unhandle()
            swap_out()
            for task in self.tasks:
                self.note("done", task.id, "abandoned", None, None)
            reason, message = self._reason()
            self.note("end", reason, message, self.failed or None, self.first_failed)
            self.trace.end(reason)

    def disown(self) -> None:
        """This is a forked child: what it does is nobody's trace."""
        super().disown()
        if self.begun and not self.ended:
            self.ended = True
            swap_out()
        self.trace.stop(self)

    def _reason(self) -> tuple[str, str | None]:
        """Return how the run ends: a word or the class of an exception, and what that says."""
        main = self.main
        if self.deadlocked:
            return "Deadlock", None
        if main is None:  # another loop has made the turns
            error = sys.exception()
            return ("closed", None) if error is None else words_of(error)
        told = main.failure is not None or (main.done and not main.cancelled)
        error = main.failure if told else sys.exception()
        return ("returned", None) if error is None else words_of(error)

    # The loop ---------------------------------------------------------------------------------

    def make_ready_queue(self, make: Callable[[], Any]) -> Any:
        return NotingQueue(self, super().make_ready_queue(make))

    def poll(self, timeout: float | None, deadline: float) -> None:
        self.note("poll", timeout)
        self.phase = "poll"
        try:
            super().poll(timeout, deadline)
        finally:
            if self.phase == "poll":  # the selector has failed
                self.reported([])
            self.phase = "step"

    def reported(self, files: list[list[Any]]) -> None:
        """The selector reports files. Their tasks are made ready next."""
        if self.phase == "poll":  # else the poller asks for itself
            self.phase = "io"
            self.note("polled", files[:64], len(files))

    def make_calls(self) -> None:
        before, self.phase = self.phase, "call"
        try:
            super().make_calls()
        finally:
            self.phase = before

    def call_soon_threadsafe(self, f: Callable[..., object], /, *args: Any) -> None:
        ours = get_ident() == self.thread
        origin = f"thread {name_of_thread()}" if not ours else "signal" if self.polling else "task"
        call = _Call(f)
        call.origin = origin
        super().call_soon_threadsafe(call, *args)

    def call(
        self, f: Callable[..., object], args: tuple[Any, ...], task: Task[Any] | None = None
    ) -> None:
        if type(f) is _Call:
            self.origin = f.origin.partition(" ")[0]
            self.note("call", f.origin, name_of(f.func))
            f = f.func
        super().call(f, args, task)

    def deadlock(self) -> Deadlock | None:
        found = super().deadlock()
        if found is not None and not self.deadlocked:
            self.deadlocked = True
            tasks = self.tasks
            cycle = [task.id for task in find_cycle(tasks, holders)]
            self.note("deadlock", [task.id for task in tasks], cycle)
        return found

    # The tasks --------------------------------------------------------------------------------

    def task_made(self, task: Task[Any]) -> None:
        super().task_made(task)
        task.holds = Holds(self, task.id)
        parent = task.parent
        code, line = task.site[0], int(task.spawned_at.rpartition(":")[2])
        over = None if parent is None else parent.id
        name = plain(task.name)
        self.trace.name_task(task.id, name, over, f"{code.co_filename}:{line}")
        self.note("spawn", task.id, name, over, task.daemon, code, line)
        self.whys[task.id] = "new"

    def make_stepper(self, context: Context) -> Callable[..., Any]:
        inner = super().make_stepper(context)

        stepped = self.stepped

        def step(f: Callable[..., Any], value: Any) -> Any:
            """Note that a step begins, of which `f(value)` is the first instruction; and how it
            ends.
            """
            task = self.current
            assert task is not None
            number = task.id
            n = stepped[number] = stepped.get(number, 0) + 1
            if f is task.send:
                self.add(("step", clock(), number, n, "send", None, None))
            else:
                self.add(("step", clock(), number, n, "throw", *words_of(value)))
            if self.delivered == number:
                self.delivered = None
            try:
                trap = inner(f, value)
            except BaseException as exc:
                self.body_ends(exc)
                raise
            finally:
                # A traceback may hold this frame: it must not hold the body or the task.
                del f, value, task
            self.yields(trap)
            return trap

        return step

    def yields(self, trap: Any) -> None:
        """The running task has yielded a trap, or what is none."""
        task = self.current
        assert task is not None
        number = task.id
        kind: type = type(trap)
        on: dict[str, Any] = {}
        if trap is None:
            self.whys[number], name = "yield", ""
        elif kind is ReadWait:  # as most are: with no call that can be left out
            self.whys[number], name = "io", "ReadWait"
            file = trap.file
            on["read"] = file.fileno() if type(file) is socket else number_of(file)
        else:
            name = class_name(trap)
            try:
                self.whys[number], on = self.waits_for(kind, trap)
            except Exception:  # it may be anything: the scheduler refuses it in a moment
                self.whys[number] = "other"
        # Which body, of those that delegate to each other, is the innermost of the program's own?
        body: Any = task.body
        innermost: Any = None
        code: Any
        lines: Any = None
        while body is not None:
            if type(body) is GeneratorType:
                code, below = body.gi_code, body.gi_yieldfrom
            else:
                code, below = _below(body)
                if code is None:
                    break
            try:
                _, found = self.codes[id(code)]
            except KeyError:
                _, found = self.codes[id(code)] = code, None if is_ours(code) else {}
                self.unread.append((number, body))
            if found is not None:
                innermost, lines = body, found
            body = below
        line = code = frame = None
        if innermost is not None and (frame := frame_of(innermost)) is not None:
            code, at = frame.f_code, frame.f_lasti
            line = lines.get(at)
            if line is None:
                line = lines[at] = frame.f_lineno
        trace = self.trace
        stack = self.stack(task.body) if trace.stacks else None
        values = self.changed(number, frame) if trace.values and frame is not None else None
        self.add(("yield", clock(), number, name, on, code, line, stack, values))

    def read_code(self) -> None:
        """Tell what is wrong in the code that tasks have come to for the first time."""
        unread, self.unread = self.unread, []
        for number, body in unread:
            frame = frame_of(body)
            if frame is None or not is_programs(frame.f_code):
                continue
            with suppress(Exception):  # what the names stand for may be anything
                for line, call, cure in never_run(frame):
                    self.note("lint", number, "never run", frame.f_code, line, call, cure)

    def waits_for(self, kind: type, trap: Any) -> tuple[str, dict[str, Any]]:
        """Return why a wait for this trap will end, and what is waited for."""
        word = _WORDS.get(kind)
        if word is not None:
            return "io", {word: number_of(trap.file)}
        if kind is Join:
            return "join", {"join": trap.task.id}
        if kind is Sleep:
            if trap.at is not None:
                return "timer", {"until": self.time(trap.at)}
            until = self.time(self.clock() + trap.seconds)
            if until is None:
                return "timer", {"until": None}
            # The timer is set a moment later, and so it is due a moment later.
            return "timer", {"until": until, "for": round(trap.seconds * 1e9)}
        if kind is Enqueue:
            trap = trap.general()
        if type(trap) is not Suspend:
            return "other", {}
        why, what = self.labels.what(trap.what)
        found: dict[str, Any] = {"what": what}
        known = [] if trap.holder is None else _holders(trap.holder)
        if known:
            found["holders"] = known
        return why, found

    def stack(self, body: Any) -> list[tuple[CodeType, int]]:
        """Return all frames of a suspended body, outermost first."""
        found = []
        while body is not None and (frame := frame_of(body)) is not None:
            found.append((frame.f_code, frame.f_lineno))
            _, body = _below(body)
        return found

    def changed(self, number: int, frame: FrameType) -> dict[str, Any]:
        """Return the local variables that are not as they were told last, in short.

        Of another function than the last, these are all.
        """
        code, before = self.told.get(number, (None, {}))
        now = {name: shown(value) for name, value in variables_of(frame).items()}
        self.told[number] = frame.f_code, now
        if code is not frame.f_code:
            return now
        return {name: value for name, value in now.items() if before.get(name) != value}

    def body_ends(self, error: BaseException) -> None:
        """A step has ended with the body."""
        task = self.current
        assert task is not None
        now = clock()
        if type(error) is StopIteration:
            self.add(("over", now, task.id, "returned", None, None, None, None))
        elif type(error) is Cancelled and task.is_left_by(error):
            self.add(("over", now, task.id, "cancelled", None, None, None, None))
        else:
            self.add(("over", now, task.id, "failed", *words_of(error), *left_at(error)))

    def give_up(self, task: Task[Any]) -> None:
        self.note("over", task.id, "failed", "RuntimeError", None, None, None)
        super().give_up(task)

    def task_done(self, task: Task[Any]) -> Task[Any] | None:
        failure = task.failure
        how = "cancelled" if task.cancelled else "returned" if failure is None else "failed"
        error = (None, None) if failure is None else words_of(failure)
        self.note("done", task.id, how, *error)
        if how == "failed" and task is not self.main:  # that is how the run ends
            self.failed += 1
            self.first_failed = self.first_failed or f"{plain(task.name)}#{task.id}"
        for kept in (self.whys, self.proxied, self.stepped, self.told):
            kept.pop(task.id, None)
        return super().task_done(task)

    def report_failure(self, task: Task[Any] | None, error: BaseException) -> None:
        super().report_failure(task, error)
        self.trace.cause()

    def woken(self, task: Any) -> None:
        """A task, or one that waits in its place, is about to be put into the ready queue."""
        number = task.id
        if self.phase == "io" and self.delivered is None and self.whys.get(number) == "io":
            self.add(("wake", clock(), number, "io", None))  # as most are
            return
        if type(task) is ProxyWaiter:
            self.proxied[number] = _OF_PHASE.get(self.phase, "other")
            return
        running = self.current
        by = None if running is None else running.id
        phase, why = self.phase, self.whys.get(number, "other")
        if why == "new":
            pass
        elif self.delivered == number:
            why, self.delivered = "cancel", None
        elif phase == "call":
            why = self.origin if self.origin in ("thread", "signal") else why
        elif phase in _OF_PHASE:
            why = _OF_PHASE[phase]
        elif running is None:
            why = self.proxied.get(number, why)
        elif running is task and why != "yield":
            why = "at once"
        if phase != "step":
            by = None
        self.add(("wake", clock(), number, why, by))  # the first of a turn is always another

    # Cancels, and what the program says itself ------------------------------------------------

    def cancel_asked(self, task: Task[Any], scope: Scope, reason: object) -> None:
        running = self.current
        by = None if running is None or running.body_over else running.id
        number, label = self.labels.scope(task, scope)
        self.note("cancel.ask", task.id, number, label, by, _reason(reason))
        super().cancel_asked(task, scope, reason)

    def cancel_delivered(self, task: Task[Any], scope: Scope, error: BaseException) -> None:
        number, label = self.labels.scope(task, scope)
        self.note("cancel.deliver", task.id, number, label, class_name(error))
        self.delivered = task.id
        super().cancel_delivered(task, scope, error)

    def note_mark(self, name: str, data: dict[str, Any], frame: FrameType) -> None:
        """The program has something to say, in the line where `frame` is."""
        task = None if self.current is None else self.current.id
        values = {key: shown(value) for key, value in data.items()}
        self.note("mark", task, str(name), values, frame.f_code, frame.f_lineno)

    def time(self, at: float) -> int | None:
        """Return a time of the scheduler's clock, in ns since the trace began; None: no time that
        comes or that has been.
        """
        ns = (at - self.t0_clock) * 1e9
        return round(ns) if -NEVER < ns < NEVER else None


class _Call(partial[Any]):
    """A call from outside of the tasks, and from where it came."""

    origin: str


def _below(body: Any) -> tuple[Any, Any]:
    """Return the code that a suspended body runs, and what it delegates to."""
    for of_code, of_next, _ in _BODIES:
        code = getattr(body, of_code, None)
        if type(code) is CodeType:  # an object may answer every attribute
            return code, getattr(body, of_next)
    return None, None


def frame_of(body: Any) -> Any:
    """Return the frame that a suspended body stands in; None: it stands in none."""
    if type(body) is GeneratorType:
        return body.gi_frame
    frames = (getattr(body, name, None) for _, _, name in _BODIES)
    return next((each for each in frames if type(each) is FrameType), None)


def number_of(file: Any) -> int:
    """Return the number of a file, -1 if it has none or fails to say."""
    if type(file) is int:
        return file
    try:
        number = file.fileno()
    except Exception:
        return -1
    return number if type(number) is int else -1


def shown(value: object) -> str:
    """Return a value as a trace may show it: plain ones as they are written, of others the kind,
    and of containers the length. It asks no object of the program's anything.
    """
    kind = type(value)
    if kind in PLAIN:
        if kind is str or kind is bytes:
            value = value[: LONGEST + 1]  # type: ignore[index]
        elif kind is int and value.bit_length() > BITS:  # type: ignore[attr-defined]
            return f"<int of {value.bit_length()} bits>"  # type: ignore[attr-defined]
        text = repr(value)
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    if kind in _SIZED:
        return f"<{class_name(value)} of {len(value)}>"  # type: ignore[arg-type]
    return f"<{class_name(value)}>"


def _reason(reason: object) -> str | None:
    """Return the reason of a cancel, in words."""
    if reason is None:
        return None
    return reason[: 2 * LONGEST] if type(reason) is str else shown(reason)


def _holders(holder: Callable[[], Any]) -> list[int]:
    """Return the tasks that a wait says it depends on. It is the program's that says it."""
    try:
        return [task.id for task in holder() if isinstance(task, Task)]
    except Exception:
        return []


def name_of_thread() -> str:
    """Return the name of the thread that calls, if that has one."""
    threading = sys.modules.get("threading")
    return "?" if threading is None else str(threading.current_thread().name)
