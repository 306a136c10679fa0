"""What can be said of a run at one of its events: `replay(events, i)`, the reducer.

A state knows the events and nothing of a scheduler, so a trace that was read from a file has the
same states as one that is being made. The page has the same reducer in its own language, and a test
compares the two.

A task is `unknown` until the first event about it, if what came before was dropped; then `ready`,
`running`, `waiting`, `completing` (its body is over, its children are not) or `done`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from corolib.trace.events import Event

DONE_KEPT = 20  # of the tasks that are done, so many of the last are named in `done`
OWN = "own"  # what is watched for the scheduler itself
NOTHING: dict[str, Any] = {}


class TaskState:
    """The state of one task. Times are in nanoseconds."""

    __slots__ = (
        *("id", "name", "parent", "daemon"),
        *("state", "since"),  # and since when
        *("why", "by"),  # it was woken
        *("trap", "on", "code", "line", "stack"),  # of its last yield
        *("locals", "changed"),  # variables, and the names of those that changed
        *("steps", "ran", "busy", "ready", "waiting"),  # `ran`: its last step
        *("began", "queued"),  # that, in which code and line; and for how long it was ready before
        *("longest", "longest_at"),  # step, and the event at which that ended
        *("how", "error", "message"),  # it ended
        "held",  # locks that it had not given back then
        *("asked", "scopes"),  # whether it was asked to end; those that it is in, [number, label]
    )

    def __init__(self, number: int, name: str, parent: int | None = None) -> None:
        self.id = number
        self.name = name
        self.parent = parent
        self.daemon = False
        self.state = "unknown"
        self.since = 0
        self.why = self.trap = self.how = self.error = self.message = ""
        self.by: int | None = None
        self.on: dict[str, Any] = NOTHING
        self.code = self.line = -1
        self.stack: list[list[int]] | None = None
        self.locals: dict[str, Any] = NOTHING
        self.changed: list[str] = []
        self.steps = self.busy = self.ready = self.waiting = self.longest = 0
        self.longest_at = -1
        self.began = [-1, -1]
        self.ran = self.queued = -1  # not known
        self.held: list[str] = []
        self.asked = False
        self.scopes: list[list[Any]] = []

    @property
    def label(self) -> str:
        return f"{self.name}#{self.id}"

    def change(self, state: str, ns: int) -> int:
        """Enter another state; return how long the last one was."""
        took = ns - self.since
        if self.state == "ready":
            self.ready += took
        elif self.state in ("waiting", "completing"):
            self.waiting += took
        elif self.state == "running":
            self.busy += took
        self.state, self.since = state, ns
        return took


class State:
    """The scheduler after an event: who is ready, running, waiting, and for what."""

    __slots__ = (
        *("i", "ns", "turn", "polling", "timeout"),
        *("gap", "how"),  # the time before this event in which nothing is known to have run
        *("ended", "failed", "first_failed"),  # how the run did; how many tasks failed, and which
        *("tasks", "ready", "running", "done", "done_count"),
        *("timers", "watched", "locks", "queues", "selecting", "polls", "named"),
    )

    def __init__(self, tasks: Mapping[int, Sequence[Any]] | None = None) -> None:
        self.i = -1
        self.ns = self.turn = 0
        self.polling = False
        self.timeout: float | None = None  # of that
        self.gap: tuple[int, str] = 0, ""  # in ns, and how what was over before it had ended
        self.how = ""  # something has ended, by this event
        self.ended = self.first_failed = ""
        self.failed = 0  # known when the run has ended
        self.tasks: dict[int, TaskState] = {}
        self.ready: list[int] = []  # the oldest first
        self.running: int | None = None
        self.done: list[int] = []  # the last ones, the last of them at the end
        self.done_count = 0
        self.timers: dict[int, list[Any]] = {}  # when, and for what
        self.watched: dict[int, str] = {}
        self.locks: dict[int, list[Any]] = {}  # label, and who holds it
        self.queues: dict[int, list[Any]] = {}  # label, and length
        self.selecting = self.polls = 0  # ns in the selector, and since when
        self.named = tasks or {}  # all tasks of the trace: names of those whose spawn was dropped

    def copy(self) -> State:
        """Return a state that does not change with this one."""
        other = copy.copy(self)
        other.tasks = {}
        for number, task in self.tasks.items():
            other.tasks[number] = twin = copy.copy(task)
            twin.scopes = list(task.scopes)
        other.ready, other.done = list(self.ready), list(self.done)
        for name in ("timers", "watched", "locks", "queues"):
            setattr(other, name, dict(getattr(self, name)))
        return other

    def task(self, number: int) -> TaskState:
        """Return the task of this number; one that was never heard of gets its name."""
        found = self.tasks.get(number)
        if found is None:
            name, parent = self.named.get(number, ("?", None))[:2]
            found = self.tasks[number] = TaskState(number, name, parent)
            found.since = self.ns
        return found

    def label(self, number: int | None) -> str:
        """Return how a task is called where a sentence begins: `echo#3`."""
        return self.task(number).label if number else "The scheduler"

    def view(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        found = {name: getattr(self, name) for name in self.__slots__ if name != "named"}
        found["tasks"] = {
            number: {name: getattr(task, name) for name in task.__slots__}
            for number, task in self.tasks.items()
        }
        return found

    def apply(self, event: Event) -> None:
        """Become the state after the next event."""
        idle = self.i >= 0 and self.running is None and not self.polling
        self.gap = event["ns"] - self.ns if idle else 0, self.how
        self.i, self.ns, self.how = event["i"], event["ns"], event.get("how", "")
        change = _CHANGES.get(event["kind"])
        if change is not None:
            change(self, event)

    def holders(self, task: TaskState) -> list[int]:
        """Return who holds now what a task waits for: of a lock that is not who did at first."""
        what = task.on.get("what", "")
        if what.startswith(("acquire Lock ", "acquire RLock ")):
            return [holder for label, holder in self.locks.values() if what == f"acquire {label}"]
        return [each for each in task.on.get("holders", []) if self.task(each).state != "done"]

    def waits_for(self) -> dict[int, list[int]]:
        """Return whom each task waits for, as far as that is known."""
        found: dict[int, list[int]] = {}
        for task in self.tasks.values():
            if task.state == "waiting":
                joined = [task.on["join"]] if "join" in task.on else []
                found[task.id] = joined + self.holders(task)
            elif task.state == "completing":
                found[task.id] = self.awaited(task.id)
        return found

    def children(self, number: int) -> list[TaskState]:
        """Return the children of a task that are not done."""
        return [x for x in self.tasks.values() if x.parent == number and x.state != "done"]

    def awaited(self, number: int) -> list[int]:
        """Return for which children the end of a task waits: daemons are cancelled when the others
        are done, and only then it waits for them.
        """
        found = self.children(number)
        return [each.id for each in found if not each.daemon] or [each.id for each in found]


def replay(
    events: Sequence[Event], i: int, tasks: Mapping[int, Sequence[Any]] | None = None
) -> State:
    """Return the state after event `i` of a trace: a pure function, the reference of all readers.

    Args:
        events: as `Trace.events` has them.
        i: a number of an event. Before the first, and behind the last, is the first and the last.
        tasks: `header["tasks"]`: the names of tasks of which the trace has only a part.
    """
    state = State(tasks)
    for event in events:
        if event["i"] > i:
            break
        state.apply(event)
    return state


# What each kind of event changes ------------------------------------------------------------------


def _turn(state: State, event: Event) -> None:
    state.turn = event["n"]


def _poll(state: State, event: Event) -> None:
    state.polling = True
    state.timeout = event.get("timeout")
    state.polls = event["ns"]


def _polled(state: State, event: Event) -> None:
    if state.polling:
        state.selecting += event["ns"] - state.polls
    state.polling = False


def _end(state: State, event: Event) -> None:
    state.ended = event["reason"]
    state.failed, state.first_failed = event.get("failed", 0), event.get("first", "")
    state.polling = False


def _watch(state: State, event: Event) -> None:
    state.watched[event["fd"]] = OWN if event.get("own") else event["mask"]


def _unwatch(state: State, event: Event) -> None:
    state.watched.pop(event["fd"], None)


def _spawn(state: State, event: Event) -> None:
    task = TaskState(event["task"], event["name"], event.get("parent"))
    task.daemon = event["daemon"]
    task.code, task.line = event["code"], event["line"]
    task.state, task.since = "ready", event["ns"]
    task.why = "new"
    state.tasks[task.id] = task


def _wake(state: State, event: Event) -> None:
    task = state.task(event["task"])
    task.why, task.by = event["why"], event.get("by")
    state.ready.append(task.id)
    task.change("ready", event["ns"])


def _step(state: State, event: Event) -> None:
    task = state.task(event["task"])
    if task.id in state.ready:
        state.ready.remove(task.id)
    was_ready = task.state == "ready"
    took = task.change("running", event["ns"])
    task.queued = took if was_ready else -1
    task.steps = event["n"]
    task.began = [task.code, task.line]
    state.running = task.id


def _stop(state: State, event: Event, next_state: str) -> TaskState:
    """The task that runs does so no more."""
    task = state.task(event["task"])
    if task.state == "running":
        task.ran = task.change(next_state, event["ns"])
        if task.ran > task.longest:
            task.longest, task.longest_at = task.ran, event["i"]
    else:
        task.change(next_state, event["ns"])
    if state.running == task.id:
        state.running = None
    return task


def _yield(state: State, event: Event) -> None:
    task = _stop(state, event, "waiting")
    task.trap, task.on = event["trap"], event["on"]
    before, told = task.code, event.get("locals", NOTHING)
    task.code, task.line = event.get("code", -1), event.get("line", -1)
    task.locals = {**task.locals, **told} if task.code == before else told
    task.changed = list(told)
    task.stack = event.get("stack")


def _over(state: State, event: Event) -> None:
    task = _stop(state, event, "completing")
    if task.id in state.ready:
        state.ready.remove(task.id)
    # A lock that it holds is nobody's from now on.
    task.held = [label for label, holder in state.locks.values() if holder == task.id]
    state.locks = {lock: held for lock, held in state.locks.items() if held[1] != task.id}
    _end_of(task, event)
    if "code" in event:
        if task.code != event["code"]:
            task.locals, task.changed = NOTHING, []  # of another function
        task.code, task.line, task.stack = event["code"], event["line"], None


def _end_of(task: TaskState, event: Event) -> None:
    task.how, task.error = event["how"], event.get("error", "")
    task.message = event.get("message", "")


def _done(state: State, event: Event) -> None:
    task = _stop(state, event, "done")
    if task.id in state.ready:
        state.ready.remove(task.id)
    _end_of(task, event)
    state.done = [*state.done[1 - DONE_KEPT :], task.id]
    state.done_count += 1


def _ask(state: State, event: Event) -> None:
    if event["scope"] == 0:
        state.task(event["task"]).asked = True


def _enter(state: State, event: Event) -> None:
    state.task(event["task"]).scopes.append([event["scope"], event["label"]])


def _leave(state: State, event: Event) -> None:
    task = state.task(event["task"])
    task.scopes = [each for each in task.scopes if each[0] != event["scope"]]


def _set(state: State, event: Event) -> None:
    state.timers[event["id"]] = [event.get("at"), event["for"]]


def _unset(state: State, event: Event) -> None:
    state.timers.pop(event["id"], None)


def _take(state: State, event: Event) -> None:
    state.locks[event["lock"]] = [event["label"], event["task"]]


def _give(state: State, event: Event) -> None:
    state.locks.pop(event["lock"], None)


def _move(state: State, event: Event) -> None:
    state.queues[event["queue"]] = [event["label"], event["length"]]


_CHANGES = {
    "turn": _turn,
    "poll": _poll,
    "polled": _polled,
    "end": _end,
    "watch": _watch,
    "unwatch": _unwatch,
    "spawn": _spawn,
    "wake": _wake,
    "step": _step,
    "yield": _yield,
    "over": _over,
    "done": _done,
    "cancel.ask": _ask,
    "scope.enter": _enter,
    "scope.leave": _leave,
    "timer.set": _set,
    "timer.fire": _unset,
    "timer.cancel": _unset,
    "lock.take": _take,
    "lock.give": _give,
    "queue.put": _move,
    "queue.get": _move,
}
