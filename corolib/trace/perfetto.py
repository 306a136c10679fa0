"""A trace for Perfetto: what `ui.perfetto.dev` and `chrome://tracing` open.

One track is the scheduler's, with its steps and the time in the selector. One is each task's, on
which running, ready and waiting follow each other. An arrow leads from the step, or the select,
that woke a task to the step that ran for that.

Source: the "Trace Event Format" of Chromium's catapult project.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from corolib.trace.events import Event
from corolib.trace.sentences import place, waits_in_words
from corolib.trace.state import State

PID = 1
SCHEDULER = 1  # the number of its track
FIRST = 1000  # of the tracks of tasks: the task's number on top of it


def perfetto_of(header: dict[str, Any], events: Sequence[Event]) -> str:
    """Return the trace in the "Trace Event Format"."""
    return json.dumps({"traceEvents": _Tracks(header).of(events), "displayTimeUnit": "ns"})


class _Tracks:
    def __init__(self, header: dict[str, Any]) -> None:
        self._codes = header["code"]
        self._state = State(header["tasks"])
        self._found: list[dict[str, Any]] = []
        self._named: set[int] = set()
        self._flows = 0
        self._selected: int | None = None
        self._woken: dict[int, tuple[int, int]] = {}  # flow and time at which it begins

    def of(self, events: Sequence[Event]) -> list[dict[str, Any]]:
        self._name(SCHEDULER, "scheduler")
        for event in events:
            self._take(event)
            self._state.apply(event)
        last = events[-1]["ns"] if events else 0
        for task in self._state.tasks.values():
            if task.state != "done":
                self._close(task.id, last)
        # Slices in the order of their beginning, the outer before the inner.
        self._found.sort(key=lambda each: (each.get("ts", -1), -each.get("dur", 0)))
        return self._found

    def _take(self, event: Event) -> None:
        kind, ns, state = event["kind"], event["ns"], self._state
        number: Any = event.get("task")
        if kind in ("wake", "step", "yield", "over", "done"):
            self._close(number, ns)
        if kind == "wake":
            self._begin_flow(number, ns, event["why"])
        elif kind == "step":
            self._count("ready", ns, len(state.ready) - 1)
        elif kind in ("yield", "over"):
            task = state.task(number)
            if task.state == "running":
                self._slice(task.label, SCHEDULER, task.since, ns, {})
                self._end_flow(number, task.since)
        elif kind == "polled":
            if state.polling:
                self._slice("select", SCHEDULER, state.polls, ns, {"files": event["count"]})
                self._selected = max(state.polls, ns - 1)  # the last moment of that
        elif kind in ("mark", "cancel.ask", "cancel.deliver", "deadlock", "end"):
            self._instant(event)

    def _close(self, number: Any, ns: int) -> None:
        """A task leaves the state that it is in: that was a slice."""
        task = self._state.task(number)
        track = FIRST + number
        if number not in self._named:
            self._named.add(number)
            self._name(track, f"#{number} {task.name}")
        args: dict[str, Any] = {}
        if task.state == "running":
            name = "run"
        elif task.state == "ready":
            name, args = "runnable", {"why": task.why}
        elif task.state == "waiting":
            name = task.trap or "give way"
            args = {"for": waits_in_words(task.on, self._state)}
        elif task.state == "completing":
            name = "its children"
        else:
            return
        args["at"] = place(self._codes, task.code, task.line)
        self._slice(name, track, task.since, ns, args)

    def _begin_flow(self, number: Any, ns: int, why: str) -> None:
        """Begin an arrow in the step or the select that wakes a task, if this is one."""
        if self._state.running not in (None, number):
            began = ns
        elif why == "io" and self._selected is not None:
            began = self._selected
        else:
            return
        self._flows += 1
        self._woken[number] = (self._flows, began)

    def _end_flow(self, number: Any, began: int) -> None:
        """The step that an arrow leads to is known, and so are both ends."""
        flow = self._woken.pop(number, None)
        if flow is not None:
            name, ns = flow
            both = {"cat": "wake", "id": name, "tid": SCHEDULER}
            self._add("s", "wake", ts=ns / 1000, **both)
            self._add("f", "wake", ts=began / 1000, bp="e", **both)

    def _name(self, track: int, name: str) -> None:
        self._add("M", "thread_name", tid=track, args={"name": name})

    def _slice(self, name: str, track: int, began: int, ns: int, args: dict[str, Any]) -> None:
        took = (ns - began) / 1000
        self._add("X", name, tid=track, ts=began / 1000, dur=took, args=args)

    def _count(self, name: str, ns: int, value: int) -> None:
        self._add("C", name, ts=ns / 1000, args={name: max(value, 0)})

    def _instant(self, event: Event) -> None:
        name = event.get("name") or event.get("reason") or event.get("label") or ""
        number = event.get("task")
        track = SCHEDULER if number is None else FIRST + number
        self._add("i", f"{event['kind']} {name}".rstrip(), tid=track, ts=event["ns"] / 1000, s="t")

    def _add(self, phase: str, name: str, **more: Any) -> None:
        self._found.append({"ph": phase, "name": name, "pid": PID, **more})
