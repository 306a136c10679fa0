"""A run of each step of the tour that has tasks, recorded: what the players on its page show.

The last step runs on corolib, which records it. The others have small schedulers of their own. A
`Recording` stands around such a one and notes its events as corolib's recorder would: it wraps the
body of each task that is spawned, the queue of ready tasks, and the selector. The steps know
nothing of it.

The clients are in the same thread. When the scheduler would sleep, the next of them acts: so each
run goes alike.
"""

from __future__ import annotations

import inspect
import linecache
import selectors
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, redirect_stdout, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from corolib import TaskCancelled, current_scheduler, run
from corolib.trace import Trace, mark
from corolib.trace.events import EVENTS, Codes, Event, written
from corolib.trace.page import packed, rows_of
from corolib.trace.recorder import clock, shown
from corolib.trace.sentences import WORDS
from demos.pictures import story
from demos.tour import (
    step09_handlers,
    step10_generators,
    step11_timers,
    step14_join,
    step15_compute,
    step17_corolib,
)

ROOT = Path(__file__).resolve().parents[2]
TICK = 0.02  # seconds between two ticks
MOST = 6000  # primes are counted up to here
MUCH = 40_000  # bytes that Bob sends: more than the small buffers hold
SOON = 1.0  # seconds in which a packet has come that was sent on this machine
_MASKS = {1: "r", 2: "w", 3: "rw"}

SILENT = "nobody has anything more to say"

MARKS = {"mark": "Outside, meanwhile: {name}."}
TASKS = MARKS | {  # where a task has no children
    "over returned": "{task} {went} and returned, after {span}.",
    "over failed": "{task} ran for {span}{from} and raised {error}.",
}
AT_ONCE = {  # where there is no queue
    "step first": "{task} is next: the scheduler starts it.",
    "spawn": "{by} spawns {task} at {where}. The first step of it is taken at once.",
}


class Run(NamedTuple):
    """What was recorded: `picture` is that of the step; `words` differ from those of corolib."""

    picture: str
    title: str
    tasks: dict[int, list[Any]]
    code: list[list[Any]]
    events: list[Event]
    words: dict[str, str]


HANDLERS = MARKS | {  # where handlers are called, and no tasks are resumed
    "spawn main": "The handler {task} is added at {where}.",
    "spawn": "{by} adds the handler {task} at {where}.",
    "step first": "The loop calls the handler {task}.",
    "step send": "The loop calls the handler {task}.",
    "yield read": "{task} wants to be called when fd {fd} can be read.",
    "yield write": "{task} wants to be called when fd {fd} can be written.",
    "over returned": "{task} ran for {span}, and wants nothing more: it is taken out and closed.",
    "poll for ever": "The loop sleeps until a file is ready for what its handler wants.",
}


class Over(BaseException):
    """Nobody acts any more: the recording ends here."""


# The recording of a small scheduler ---------------------------------------------------------------


class Recording:
    """Notes what a scheduler of the tour does.

    Args:
        scheduler: a new one.
        lines: taken by `story.Recorder`, in whose place this can be.
        script: what happens outside: words, and what does it. `("", None)` lets time pass.
    """

    def __init__(self, scheduler: Any, *lines: str, script: Iterable[Act] = ()) -> None:
        self.scheduler = scheduler
        self.script = deque(script)
        self.events: list[tuple[Any, ...]] = []
        self.tasks: dict[int, list[Any]] = {}
        self.bodies: list[Body | Handler] = []
        self.running: list[Body | Handler] = []  # a step may be taken within another one
        self.turns = 0
        if hasattr(scheduler, "spawn"):
            self._spawn = scheduler.spawn
            scheduler.spawn = self.spawn
        else:
            self._add = scheduler.add
            scheduler.add = self.add
        scheduler.selector = NotingSelector(self, scheduler.selector)
        if hasattr(scheduler, "ready"):
            scheduler.ready = NotingQueue(self)
        if hasattr(scheduler, "turn"):
            self._turn = scheduler.turn
            scheduler.turn = self.turn
        if hasattr(scheduler, "call_soon_threadsafe"):
            self._call = scheduler.call_soon_threadsafe
            scheduler.call_soon_threadsafe = self.call
        self.note("run", 0)

    def note(self, kind: str, *fields: object) -> None:
        nothing = [None] * (len(EVENTS[kind]) - len(fields))  # of what only corolib knows
        self.events.append((kind, clock(), *fields, *nothing))

    def running_number(self) -> int | None:
        return self.running[-1].number if self.running else None

    def run(self, *main: Any) -> Any:
        reason = "returned"
        try:
            return self.scheduler.run(*main)
        except Over:
            reason = SILENT
        finally:
            self.note("end", reason)
            for body in self.bodies:
                body.inner.close()

    def made(self, name: str, frame: FrameType) -> int:
        """Note that something is made there; return its number."""
        number = len(self.tasks) + 1
        parent = self.running_number()
        self.tasks[number] = [name, parent, f"{frame.f_code.co_filename}:{frame.f_lineno}"]
        self.note("spawn", number, name, parent, False, frame.f_code, frame.f_lineno)
        return number

    def spawn(self, body: Any) -> Any:
        """In the place of the scheduler's own."""
        number = self.made(body.__name__, sys._getframe(1))
        noted = Body(self, number, body)
        self.bodies.append(noted)
        task = self._spawn(noted)
        if hasattr(task, "cancel"):
            task.cancel = self.noting_cancel(number, task.cancel)
        return task

    def add(self, handler: Any) -> None:
        """In the place of a loop's own."""
        number = self.made(type(handler).__name__, sys._getframe(1))
        noted = Handler(self, number, handler)
        self.bodies.append(noted)
        self._add(noted)

    def noting_cancel(self, number: int, cancel: Callable[[], None]) -> Callable[[], None]:
        def noting() -> None:
            self.note("cancel.ask", number, 0, self.label(number), self.running_number(), None)
            cancel()

        return noting

    def label(self, number: int) -> str:
        return f"{self.tasks[number][0]}#{number}"

    def turn(self) -> None:
        self.turns += 1
        self.note("turn", self.turns, len(self.scheduler.ready))
        self._turn()

    def call(self, f: Callable[..., object], *args: object) -> None:
        def noting() -> None:
            self.note("call", "thread", "wake")
            f(*args)

        self._call(noting)

    def recorded(self, picture: str, title: str = "", words: dict[str, str] = TASKS) -> Run:
        codes = Codes()
        t0 = self.events[0][1]
        events = [written(event, i, t0, codes) for i, event in enumerate(self.events)]
        return Run(picture, title, self.tasks, codes.table, events, words)


class Body:
    """The body of a task, which notes when it is resumed, and to which line it comes."""

    def __init__(self, recording: Recording, number: int, inner: Any) -> None:
        self.recording = recording
        self.number = number
        self.inner = inner
        self.__name__ = inner.__name__
        self.steps = 0
        self.on: dict[str, Any] = {}  # what it waits for
        self.why = "new"  # it is made ready

    def send(self, value: Any) -> Any:
        return self.resume("send", None, value)

    def throw(self, error: BaseException) -> Any:
        return self.resume("throw", type(error).__name__, error)

    def resume(self, via: str, error: str | None, value: Any) -> Any:
        recording = self.recording
        self.steps += 1
        recording.note("step", self.number, self.steps, via, error)
        recording.running.append(self)
        try:
            trap = getattr(self.inner, via)(value)
        except BaseException as exc:
            name = type(exc).__name__
            how = {"StopIteration": "returned", "Cancelled": "cancelled"}.get(name, "failed")
            for kind in ("over", "done"):
                recording.note(kind, self.number, how, name if how == "failed" else None)
            raise
        finally:
            recording.running.pop()
        self.why, self.on = what_of(trap, recording)
        code, line, values = place_of(self.inner)
        name = "" if trap is None else type(trap).__name__
        recording.note("yield", self.number, name, self.on, code, line, None, values)
        return trap


class Handler:
    """A handler of the step that has them, which notes when it is called, and what it wants."""

    def __init__(self, recording: Recording, number: int, inner: Any) -> None:
        self.recording = recording
        self.number = number
        self.inner = inner
        self.fileno, self.wants = inner.fileno, inner.wants
        self.calls = 0
        self.told()

    def handle(self) -> None:
        self.calls += 1
        self.recording.note("step", self.number, self.calls, "send", None)
        self.recording.running.append(self)
        self.inner.handle()
        self.recording.running.pop()
        if self.wants():
            self.told()
        else:
            for kind in ("over", "done"):
                self.recording.note(kind, self.number, "returned", None)

    def told(self) -> None:
        wants = "read" if self.wants() == selectors.EVENT_READ else "write"
        code = self.inner.handle.__code__
        plain = {name: value for name, value in vars(self.inner).items() if not callable(value)}
        values = {name: shown(value) for name, value in plain.items()}
        on = {wants: self.fileno()}
        line = code.co_firstlineno
        self.recording.note("yield", self.number, "handle", on, code, line, None, values)

    def close(self) -> None:
        self.inner.close()


def what_of(trap: Any, recording: Recording) -> tuple[str, dict[str, Any]]:
    """Return why the wait for a trap ends, and what is waited for."""
    kind = type(trap).__name__
    if kind in ("ReadWait", "WriteWait"):
        return "io", {"read" if kind == "ReadWait" else "write": trap.file.fileno()}
    if kind == "Sleep":
        since = clock() - recording.events[0][1]
        return "timer", {"until": since + round(trap.seconds * 1e9)}
    if kind == "Suspend":
        other = getattr(trap.arm, "__self__", None)
        if other is not None:
            return "join", {"join": other.body.number}
        return "other", {"what": "until somebody calls wake"}
    return "yield", {}


def place_of(body: Any) -> tuple[CodeType | None, int | None, dict[str, str]]:
    """Return the innermost place of the program in a suspended body, and its variables."""
    frame: FrameType | None = None
    while inspect.isgenerator(body):
        if body.gi_frame is not None and not body.gi_code.co_filename.endswith("_task.py"):
            frame = body.gi_frame
        body = body.gi_yieldfrom
    if frame is None:
        return None, None, {}
    values = {name: shown(value) for name, value in frame.f_locals.items()}
    return frame.f_code, frame.f_lineno, values


class NotingQueue(deque[Any]):
    """The ready queue of a step."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording.scheduler.ready)
        self.recording = recording

    def append(self, task: Any) -> None:
        body: Body = getattr(task, "body", task)
        error = getattr(task, "error", None)
        why = body.why
        if type(error).__name__ == "Cancelled":
            why = "cancel"
        elif error is not None and why != "join":
            why = "other"
        super().append(task)
        self.recording.note("wake", body.number, why, self.recording.running_number())


class NotingSelector:
    """The selector of a step. When it would sleep, the next one outside acts."""

    def __init__(self, recording: Recording, inner: Any) -> None:
        self.recording = recording
        self.inner = inner

    def get_map(self) -> Any:
        return self.inner.get_map()

    def register(self, file: Any, mask: int, data: Any = None) -> None:
        self.inner.register(file, mask, data)
        self.recording.note("watch", file.fileno(), _MASKS[mask], self.recording.running_number())

    def modify(self, file: Any, mask: int, data: Any) -> None:
        self.inner.modify(file, mask, data)
        self.recording.note("watch", file.fileno(), _MASKS[mask], self.recording.running_number())

    def unregister(self, file: Any) -> None:
        self.recording.note("unwatch", self.inner.unregister(file).fd)

    def select(self, timeout: float | None = None) -> Any:
        recording = self.recording
        recording.note("poll", timeout)
        found = self.inner.select(0)
        if not found and timeout != 0:
            found = self.act(timeout)
        files = [[key.fd, _MASKS[mask]] for key, mask in found]
        recording.note("polled", files, len(files))
        return found

    def act(self, timeout: float | None) -> Any:
        if not self.recording.script:
            return self.inner.select(timeout)
        words, f = self.recording.script.popleft()
        if f is None:
            return self.inner.select(timeout)
        if words:
            self.recording.note("mark", None, words, {})
        f()
        return self.inner.select(SOON)


# What happens outside -----------------------------------------------------------------------------


Act = tuple[str, Callable[[], object] | None]  # words, and what does it
PASS: Act = ("", None)  # time passes, until the next timer


def clients(listener: socket.socket, stack: ExitStack) -> list[Act]:
    """Return what three clients do: Ann is quick, Bob sends a lot and reads late, Cleo is silent
    at first.
    """
    ann, bob, cleo = (stack.enter_context(socket.socket()) for _ in range(3))
    bob.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    address = listener.getsockname()

    def flood() -> None:
        bob.setblocking(False)
        rest = bytes(MUCH)
        with suppress(BlockingIOError):
            while rest:
                rest = rest[bob.send(rest) :]

    def drain() -> None:
        with suppress(BlockingIOError):
            while bob.recv(65536):
                pass

    def leave(client: socket.socket) -> None:
        client.recv(100)  # or the connection would be broken off, and not closed
        client.close()

    return [
        ("Ann connects", lambda: ann.connect(address)),
        ("Bob connects", lambda: bob.connect(address)),
        ("Ann says hello", lambda: ann.sendall(b"hello")),
        ("Cleo connects", lambda: cleo.connect(address)),
        ("Bob sends a lot, and does not read", flood),
        ("Cleo says hello, too", lambda: cleo.sendall(b"hello, too")),
        ("Ann has her answer, and leaves", partial(leave, ann)),
        ("Bob reads at last", drain),
        ("Cleo has hers, and leaves", partial(leave, cleo)),
    ]


def end() -> None:
    raise Over


END: Act = ("", end)


def listening(stack: ExitStack) -> socket.socket:
    """Return a listening socket whose connections hold little."""
    listener = stack.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


# The runs -----------------------------------------------------------------------------------------


def handlers() -> Iterator[Run]:
    with ExitStack() as stack:
        loop = step09_handlers.Loop()
        stack.enter_context(loop.selector)
        listener = listening(stack)
        recording = Recording(loop, script=[*clients(listener, stack), END])
        loop.add(step09_handlers.Acceptor(loop, listener))
        recording.run()
        yield recording.recorded("handlers", words=HANDLERS)


def generators() -> Iterator[Run]:
    with ExitStack() as stack:
        scheduler = step10_generators.Scheduler()
        stack.enter_context(scheduler.selector)
        listener = listening(stack)
        recording = Recording(scheduler, script=[*clients(listener, stack), END])
        recording.run(step10_generators.accept_clients(listener, scheduler.spawn))
        yield recording.recorded("generators", words=TASKS | AT_ONCE)


def timers() -> Iterator[Run]:
    with ExitStack() as stack:
        scheduler = step11_timers.Scheduler()
        stack.enter_context(scheduler.selector)
        listener = listening(stack)
        listener.setblocking(False)
        recording = Recording(scheduler, script=[*with_a_tick(clients(listener, stack)), END])
        scheduler.spawn(step11_timers.tick(TICK))
        recording.run(step11_timers.accept_clients(listener, scheduler.spawn))
        yield recording.recorded("timers")


def with_a_tick(acts: list[Act]) -> list[Act]:
    return [*acts[:3], PASS, *acts[3:]]


def stories() -> Iterator[Run]:
    """The programs whose pictures tell a story: their players do, event by event."""
    for picture, (program, _) in story.STORIES.items():
        recording = program(Recording)
        yield recording.recorded(picture, (program.__doc__ or "").strip())


def compute() -> Iterator[Run]:
    for work in (step15_compute.at_once, step15_compute.giving_way):
        scheduler = step14_join.Scheduler()
        with scheduler.selector:
            recording = Recording(scheduler)
            recording.run(step15_compute.ticks(scheduler, work(MOST)))
        yield recording.recorded("compute", f"{work.__name__}()")


def on_corolib() -> Iterator[Run]:
    with ExitStack() as stack:
        listener = listening(stack)
        listener.setblocking(False)
        acts = deque(with_a_tick(clients(listener, stack)))

        class Selector(selectors.DefaultSelector):
            """As `NotingSelector` has it, but that corolib's recorder does the noting."""

            def select(self, timeout: float | None = None) -> Any:
                found = super().select(0)
                if found or timeout == 0:
                    return found
                if not acts:
                    main = current_scheduler().main
                    assert main is not None
                    main.cancel(SILENT)
                    return []
                words, f = acts.popleft()
                if f is None:
                    return super().select(timeout)
                mark(words)
                f()
                return super().select(SOON)

        trace = Trace(values=True)
        with suppress(TaskCancelled):
            run(step17_corolib.serve, listener, TICK, trace=trace, selector=Selector)
        header = trace.header
        yield Run("corolib", "", header["tasks"], header["code"], trace.events, MARKS)


def runs() -> list[Run]:
    """Record all."""
    found: list[Run] = []
    with redirect_stdout(StringIO()):  # what the steps print
        for program in (handlers, generators, timers, stories, compute, on_corolib):
            found += program()
    return found


def script_of(found: list[Run]) -> str:
    """Return the runs as the players read them: a script, which a page that is a file can load."""
    source: dict[str, str] = {}
    rows = []
    for each in found:
        code = [[name, short(file), line] for name, file, line in each.code]
        for _, file, _ in each.code:
            source[short(file)] = "".join(linecache.getlines(file))
        tasks = {number: [name, parent, short(site)] for number, (name, parent, site)
                 in each.tasks.items()}  # fmt: skip
        rows.append({
            "picture": each.picture, "title": each.title, "words": each.words, "first": 0,
            "header": {"tasks": tasks, "code": code}, "rows": rows_of(each.events),
        })  # fmt: skip
    data = {"kinds": EVENTS, "words": WORDS, "source": source, "runs": rows}
    return f'const RUNS = "{packed(data)}";\n'


def short(file: str) -> str:
    """Return where a file of the repository is in it."""
    return file.removeprefix(f"{ROOT}/")
