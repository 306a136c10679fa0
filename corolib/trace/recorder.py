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
from importlib import import_module
from itertools import chain
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
    attribute,
    class_name,
    default_selector,
    find_cycle,
    handle_signal,
    handles_signals,
    holders,
    name_of,
    plain,
    signal_named,
    variables_of,
)
from corolib.trace.messages import BITS, PLAIN, is_ours, left_at, words_of
from corolib.trace.watching import (
    Holds,
    Labels,
    NotingCancellation,
    NotingQueue,
    NotingTimers,
    in_ns,
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
SIGNAL = signal_named("COROLIB_TRACE_SIGNAL")  # that has a trace written at once
# Imported before the first event: in the middle of a run it would take longer than many turns.
NEEDED = ("ast", "inspect", "corolib.advice.dropped", "corolib.advice.mistakes")
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
        self.notes: dict[int, _Notes] = {}  # by the number of the task
        self.delivered: int | None = None  # the task that a cancel was delivered to just now
        self.codes: dict[int, CodeType] = {}  # of the program, by address
        self.unread: list[tuple[int, Any]] = []  # tasks and their bodies, whose code is new
        self.latest = 0  # ns: when files were reported last, or, since then, anything was noted
        self.labels = Labels()
        self.deadlocked = False
        self.failed = 0  # tasks
        self.first_failed: str | None = None
        self.ours: set[str] = set()  # files of code that are the library's
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
            self.turn_begins()
        self.latest = clock()
        self.add((kind, self.latest, *fields))
        if len(self.kept) > self.trace.full:
            self.trace.trim()

    def turn_begins(self) -> None:
        """The first event of a turn is about to be noted: nothing else says that one begins."""
        self.seen_turn = self._turns
        self.add(("turn", clock(), self._turns, len(self._ready)))
        if self.unread:  # between turns: no step, and no wait that is being made, is longer for it
            self.read_code()

    # The run ----------------------------------------------------------------------------------

    def open(self) -> None:
        if not self.begun:
            self.begun = True
            with suppress(Exception):  # there may be no file number left
                for name in NEEDED:
                    import_module(name)
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
        self.queue = NotingQueue(self, super().make_ready_queue(make))
        return self.queue

    def poll(self, timeout: float | None, deadline: float) -> None:
        self.note("poll", timeout)
        self.phase = "poll"
        try:
            super().poll(timeout, deadline)
        finally:
            if self.phase == "poll":  # the selector has failed
                self.reported([])
            self.phase = "step"
            self._poller._append = self.queue.append

    def reported(self, files: list[tuple[int, int]]) -> None:
        """The selector reports files, as `in_full` has them. Their tasks are made ready next."""
        if self.phase == "poll":  # else the poller asks for itself
            self.phase = "io"
            self.latest = clock()
            first = tuple(chain.from_iterable(files[:64]))
            self.add(("polled", self.latest, first, len(files)))
            self._poller._append = self.queue.append_reported

    def _step(self, count: int) -> None:
        if self._turns != self.seen_turn:
            self.turn_begins()
        super()._step(count)
        if len(self.kept) > self.trace.full:
            self.trace.trim()

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
        self.notes[task.id] = _Notes()

    def make_stepper(self, context: Context) -> Callable[..., Any]:
        inner = super().make_stepper(context)
        every, ours = self.notes, self.ours
        details = self.trace.stacks or self.trace.values

        def step(f: Callable[..., Any], value: Any) -> Any:
            """Note that a step begins, of which `f(value)` is the first instruction; and how it
            ends. All that takes time is left for `in_full`.
            """
            task: Any = self.current
            number, add = task.id, self.add
            notes = every[number]
            notes.steps = n = notes.steps + 1
            if f is task.send:
                add(("step", clock(), number, n, "send", None, None))
            else:
                add(("step", clock(), number, n, "throw", *words_of(value)))
                if self.delivered == number:
                    self.delivered = None
            body: Any = None
            last = frame = None
            suspended = False
            try:
                trap = inner(f, value)
                suspended = True
                if type(trap) is ReadWait:  # as most are
                    notes.why, name = "io", "ReadWait"
                    entry = trap.entry
                    on = number_of(trap.file) if entry is None or not entry.reads else entry.fd
                else:
                    notes.why, name, on = self.told(trap)
                # Which body, of those that delegate to each other, is the program's innermost?
                body, last = task.body, notes.innermost
                if last is not None and (frame := last.gi_frame) is not None:
                    # It has not ended, and those above it are as they were.
                    body = last.gi_yieldfrom
                else:
                    notes.innermost = notes.code = frame = None
                while body is not None:
                    if type(body) is GeneratorType:
                        code, below = body.gi_code, body.gi_yieldfrom
                    else:
                        code, below = _below(body)
                        if code is None:
                            break
                    file = code.co_filename
                    if file not in ours and not self.is_ours(number, body, code):
                        notes.innermost = body if type(body) is GeneratorType else None
                        notes.code, frame = code, frame_of(body)
                    body = below
                at = None if frame is None else frame.f_lasti
                stack, values = self.details(task, notes, frame) if details else (None, None)
                add = self.add  # the step itself may have been the last event that is taken
                add(("yield", clock(), number, name, on, notes.code, at, stack, values))
            except BaseException as exc:
                if not suspended:  # else a Ctrl-C has come meanwhile, and the body has not ended
                    self.body_ends(exc)
                # A traceback holds this frame: it must not hold the body or the task.
                del f, value, task, body, last, frame
                raise
            return trap

        return step

    def is_ours(self, number: int, body: Any, code: CodeType) -> bool:
        """Return whether a body of a task is the library's. New code of the program's is read soon.

        By the address, for a hash of code looks at all of it.
        """
        if is_ours(code):
            self.ours.add(code.co_filename)
            return True
        if id(code) not in self.codes:
            self.codes[id(code)] = code
            self.unread.append((number, body))
        return False

    def told(self, trap: Any) -> tuple[str, str, dict[str, Any] | None]:
        """Return why a wait for this trap will end, what it is called, and what is waited for."""
        if trap is None:
            return "yield", "", None
        name = class_name(trap)
        try:
            why, on = self.waits_for(type(trap), trap)
        except Exception:  # it may be anything: the scheduler refuses it in a moment
            return "other", name, None
        return why, name, on

    def read_code(self) -> None:
        """Tell what is wrong in the code that tasks have come to for the first time."""
        unread, self.unread = self.unread, []
        with suppress(Exception):  # it may not have been imported
            from corolib.advice.dropped import found_in

            for number, body in unread:
                frame = frame_of(body)
                if frame is None:
                    continue
                code = frame.f_code
                lines = {line for _, _, line in code.co_lines()}
                for line, call, kind, cure, _ in found_in(frame.f_globals, code.co_filename):
                    if line in lines and kind != "method":
                        self.note("lint", number, "never run", code, line, call, cure)

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

    def details(
        self, task: Task[Any], notes: _Notes, frame: FrameType | None
    ) -> tuple[list[tuple[CodeType, int]] | None, dict[str, Any] | None]:
        """Return the stack of a task and the values of its variables, if they are asked for."""
        stack = self.stack(task.body) if self.trace.stacks else None
        if frame is None or not self.trace.values:
            return stack, None
        return stack, self.changed(notes, frame)

    def stack(self, body: Any) -> list[tuple[CodeType, int]]:
        """Return all frames of a suspended body, outermost first."""
        found = []
        while body is not None and (frame := frame_of(body)) is not None:
            found.append((frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno))
            _, body = _below(body)
        return found

    def changed(self, notes: _Notes, frame: FrameType) -> dict[str, Any]:
        """Return the local variables that are not as they were told last, in short.

        Of another function than the last, these are all.
        """
        code, before = notes.told
        now = {name: shown(value) for name, value in variables_of(frame).items()}
        notes.told = frame.f_code, now
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
        self.notes.pop(task.id, None)
        return super().task_done(task)

    def report_failure(self, task: Task[Any] | None, error: BaseException) -> None:
        super().report_failure(task, error)
        self.trace.cause()

    def woken(self, task: Any) -> None:
        """A task, or one that waits in its place, is about to be put into the ready queue."""
        number = task.id
        try:
            notes = self.notes[number]
        except KeyError:  # it is done, and nothing comes of this
            notes = _Notes()
            notes.why = "other"
        running, phase, why = self.current, self.phase, notes.why
        if type(task) is ProxyWaiter:
            notes.proxied = _OF_PHASE.get(phase, "other")
            return
        by = None if running is None else running.id
        if why == "new":
            pass
        elif self.delivered == number:
            why, self.delivered = "cancel", None
        elif phase == "call":
            why = self.origin if self.origin in ("thread", "signal") else why
        elif phase in _OF_PHASE:
            why = _OF_PHASE[phase]
        elif running is None:
            why = notes.proxied or why
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
        code = frame.f_code
        line = frame.f_lineno or code.co_firstlineno
        self.note("mark", task, str(name), values, code, line)

    def time(self, at: float) -> int | None:
        """Return a time of the scheduler's clock, in ns since the trace began; None: no time that
        comes or that has been.
        """
        return in_ns(at - self.t0_clock)


class _Notes:
    """What is known of one task until it is done."""

    __slots__ = ("code", "innermost", "proxied", "steps", "told", "why")

    def __init__(self) -> None:
        self.steps = 0  # that it has taken
        self.why = "new"  # why its next wake will have come
        self.proxied = ""  # why the wait of who waited in its place has ended last
        # The innermost of its generators that is the program's, and which code that runs.
        self.innermost: Any = None
        self.code: CodeType | None = None
        # The variables told last, and of which function.
        self.told: tuple[CodeType | None, dict[str, Any]] = (None, {})


class _Call(partial[Any]):
    """A call from outside of the tasks, and from where it came."""

    origin: str


def _below(body: Any) -> tuple[Any, Any]:
    """Return the code that a suspended body runs, and what it delegates to."""
    for of_code, of_next, _ in _BODIES:
        code = attribute(body, of_code)
        if type(code) is CodeType:  # an object may answer every attribute
            return code, attribute(body, of_next)
    return None, None


def frame_of(body: Any) -> Any:
    """Return the frame that a suspended body stands in; None: it stands in none."""
    if type(body) is GeneratorType:
        return body.gi_frame
    frames = (attribute(body, name) for _, _, name in _BODIES)
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
