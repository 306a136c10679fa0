"""The events of a trace: which kinds there are, what each one says, and how one is written down.

While a program runs, an event is a tuple `(kind, ns, ...)` of numbers, words and code objects, with
the fields that `EVENTS` names in their order. What takes time to put into words is left for who
reads it: see `in_full`. Written down it is a dictionary: `i` counts from 0, `ns` is since the
beginning of the trace, a field that is None is left out, and a code object is its number in the
table `code`.

Nothing of the scheduler is known here.
"""

from __future__ import annotations

from types import CodeType
from typing import Any

SCHEMA = "corolib-trace/1"

EVENTS: dict[str, tuple[str, ...]] = {
    "run": ("tasks",),  # how many were spawned before it
    # "returned", "closed", or the class of what leaves the run, and what that says; how many tasks
    # failed, and the first: `echo#3`.
    "end": ("reason", "message", "failed", "first"),
    "turn": ("n", "ready"),  # how many are ready
    "poll": ("timeout",),  # seconds; None: for ever
    "polled": ("files", "count"),  # [[fd, "r"]...], 64 at most, of so many
    # The selector is told; "r", "w", "rw". `own`: by this the scheduler itself is woken.
    "watch": ("fd", "mask", "task", "own"),
    "unwatch": ("fd",),
    "spawn": ("task", "name", "parent", "daemon", "code", "line"),
    "wake": ("task", "why", "by"),  # it is put into the ready queue, by the task that was running
    # Its nth, by `send` or `throw`: then with an error's class, and what that says if it is plain.
    "step": ("task", "n", "via", "error", "message"),
    "yield": ("task", "trap", "on", "code", "line", "stack", "locals"),
    # Its body: returned, failed, cancelled; and where it failed.
    "over": ("task", "how", "error", "message", "code", "line"),
    "done": ("task", "how", "error", "message"),  # and its children
    "cancel.ask": ("task", "scope", "label", "by", "reason"),  # scope 0 is the task itself
    "cancel.deliver": ("task", "scope", "label", "error"),
    "scope.enter": ("task", "scope", "label", "at"),  # `at`: the deadline, as in timer.set
    "scope.leave": ("task", "scope", "label", "caught"),
    "timer.set": ("id", "at", "for"),  # ns on the scheduler's clock since the trace began
    "timer.fire": ("id", "late"),  # by so many ns of the scheduler's clock
    "timer.cancel": ("id",),
    "lock.take": ("lock", "label", "task"),
    "lock.give": ("lock", "label", "task"),
    "queue.put": ("queue", "label", "task", "length", "to"),  # `to`: it was handed to this task
    "queue.get": ("queue", "label", "task", "length"),
    "call": ("from", "function"),  # from "thread NAME", "signal" or "task"
    "deadlock": ("tasks", "cycle"),
    # What is wrong in the program, and where: so far "never run", a call that was meant to wait.
    "lint": ("task", "lint", "code", "line", "call", "cure"),
    "mark": ("task", "name", "data", "code", "line"),
}
"""Each kind of event, and the fields that it has besides `i`, `kind` and `ns`, in their order."""

WHYS = (
    *("new", "yield", "at once", "io", "timer", "join", "lock", "queue", "event", "other"),
    *("cancel", "thread", "signal"),
)
"""Why a task is put into the ready queue."""

# What `epoll` reports: bits, and what stands for them. 4 and more: an error, or a hang-up.
_REPORTS = {1: "r", 4: "w", 5: "rw"}

Event = dict[str, Any]


class Codes:
    """The code objects that events name, numbered as they come."""

    def __init__(self) -> None:
        # By the address: a hash of code looks at all of it.
        self._numbers: dict[int, tuple[int, CodeType]] = {}
        self.table: list[list[Any]] = []  # by number: qualified name, file, first line
        self._lines: list[dict[int, int | None]] = []  # by number, of the offsets of instructions

    def number(self, code: CodeType) -> int:
        found = self._numbers.get(id(code))
        if found is None:
            found = self._numbers[id(code)] = len(self.table), code
            self.table.append([code.co_qualname, code.co_filename, code.co_firstlineno])
            self._lines.append(
                {at: line for first, end, line in code.co_lines() for at in range(first, end, 2)}
            )
        return found[0]

    def line(self, code: CodeType, at: int) -> int:
        """Return the line of the instruction at an offset; the first of code without lines."""
        return self._lines[self.number(code)].get(at) or code.co_firstlineno

    def files(self) -> list[str]:
        """Return the files of the code, in the order in which they were first named."""
        return list(dict.fromkeys(file for _, file, _ in self.table))


def in_full(event: tuple[Any, ...], codes: Codes) -> tuple[Any, ...]:
    """Return an event as `EVENTS` lays it out.

    The recorder leaves short what is there most: of a `yield` the wait to read a file is the number
    of that, none is None, and the line is the offset of the instruction; of a `polled` the files
    are `(fd, bits, fd, bits...)`, with the bits of epoll.
    """
    if event[0] == "yield":
        kind, ns, task, trap, on, code, at, *rest = event
        on = {} if on is None else {"read": on} if type(on) is int else on
        line = None if code is None else codes.line(code, at)
        return (kind, ns, task, trap, on, code, line, *rest)
    if event[0] == "polled":
        kind, ns, numbers, count = event
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return (kind, ns, [[fd, _REPORTS.get(bits, "rw")] for fd, bits in pairs], count)
    return event


def decode(event: tuple[Any, ...], i: int, t0: int, codes: Codes) -> Event:
    """Return the event number `i` of the recorder's as it is written down."""
    return written(in_full(event, codes), i, t0, codes)


def written(event: tuple[Any, ...], i: int, t0: int, codes: Codes) -> Event:
    """Return the event number `i`, which is laid out as `EVENTS` says, as it is written down."""
    kind, ns, *values = event
    found: Event = {"i": i, "ns": ns - t0, "kind": kind}
    for name, value in zip(EVENTS[kind], values, strict=True):
        if value is None:
            continue
        if name == "code":
            value = codes.number(value)
        elif name == "stack":
            value = [[codes.number(code), line] for code, line in value]
        found[name] = value
    return found
