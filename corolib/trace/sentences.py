"""Sentences: what an event means, for people who learn how the scheduler works.

The words are one table, which the page has too. Which of them are chosen, and what is put in, is
written twice: here, and in the page's own language. A test compares the two.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from corolib.trace.events import Event
from corolib.trace.state import State, TaskState

QUEUED = "goes to the end of the ready queue, place {place}."

WORDS = {
    "run": "The run begins.",
    "end": "The run is over: {reason}.",
    "turn 0": "Turn {n} begins. No task is ready yet.",
    "turn 1": "Turn {n} begins. 1 task is ready.",
    "turn": "Turn {n} begins. {ready} tasks are ready.",
    "poll now": "The scheduler looks which files are ready, and does not wait: tasks are ready.",
    "poll due": "The scheduler looks which files are ready, and does not wait: a timer is due.",
    "poll for ever": "Nobody is ready, and no timer is set: "
    "the scheduler sleeps until a file is ready.",
    "poll": "Nobody is ready, and the next timer is due in {span}: "
    "the scheduler sleeps at most so long.",
    "polled none": "The selector reports no file.",
    "polled": "The selector reports: {files}.",
    "watch": "The selector is told to watch fd {fd}, to be {mask}.",
    "unwatch": "The selector is told to watch fd {fd} no more.",
    "spawn": "{by} spawns {task} at {where}. "
    "It takes its first step when those before it have had theirs.",
    "spawn main": "{task} is made at {where}.",
    "wake new": "{task} is new, and " + QUEUED,
    "wake yield": "{task} gave way: it waits for nothing, and " + QUEUED,
    "wake at once": "{task} need not wait, for what it asked for is there. It " + QUEUED,
    "wake io": "What {task} waited for has happened: {what}. It " + QUEUED,
    "wake timer": "The time that {task} waited for has come. It " + QUEUED,
    "wake join": "{what} is done, and {task} waited for that. It " + QUEUED,
    "wake lock": "{by} lets go, and {task} was the first in line: {what}. "
    "It has it now, and " + QUEUED,
    "wake refused": "{by} has ended and gives nothing back, so {task}, the first in line, "
    "gets an error instead: {what}. It " + QUEUED,
    "wake queue": "{by} ends the wait of {task}: {what}. It " + QUEUED,
    "wake event": "{by} ends the wait of {task}: {what}. It " + QUEUED,
    "wake other": "{by} ends the wait of {task}. It " + QUEUED,
    "wake cancel": "The wait of {task} is taken back, and Cancelled is waiting for it. It "
    + QUEUED,
    "wake thread": "Another thread has ended the wait of {task}. It " + QUEUED,
    "wake signal": "A signal handler has ended the wait of {task}. It " + QUEUED,
    "step first": "{task} is next{queued}: the scheduler starts it.",
    "step send": "{task} is next{queued}: the scheduler resumes it at {where}.",
    "step throw": "{task} is next{queued}: the scheduler resumes it at {where} by raising {error}.",
    "yield": "{task} ran for {span}{from} to {where} and gave way: it can go on, after the others.",
    "yield read": "{task} ran for {span}{from} to {where} and yielded {trap}(fd {fd}). "
    "It is parked: nothing runs it until fd {fd} can be read.",
    "yield write": "{task} ran for {span}{from} to {where} and yielded {trap}(fd {fd}). "
    "It is parked: nothing runs it until fd {fd} can be written.",
    "yield urgent": "{task} ran for {span}{from} to {where} and yielded {trap}(fd {fd}). "
    "It is parked: nothing runs it until fd {fd} has urgent data.",
    "yield until": "{task} ran for {span}{from} to {where} and yielded {trap}. "
    "It is parked: nothing runs it until the clock says {at}.",
    "yield for ever": "{task} ran for {span}{from} to {where} and yielded {trap}. "
    "It is parked for ever: only a cancel ends that.",
    "yield join": "{task} ran for {span}{from} to {where}. "
    "It is parked: nothing runs it until {what} is done.",
    "yield what": "{task} ran for {span}{from} to {where}. It is parked, and waits: {what}.",
    "yield held": "{task} ran for {span}{from} to {where}. "
    "It is parked, and waits: {what}, which depends on {holders}.",
    "yield other": "{task} ran for {span}{from} to {where} and yielded {trap}.",
    "over returned": "{task} ran for {span}{from} and returned. "
    "It is done when its children are, if it has any.",
    "over failed": "{task} ran for {span}{from} and raised {error}. "
    "Its children, if any, are cancelled.",
    "over cancelled": "{task} ran for {span}{from} and ended, as it was asked to.",
    "over held": "{task} ran for {span}{from} and ended. It still held {held}: "
    "nobody gives that back any more.",
    "done returned": "{task} is done.",
    "done failed": "{task} is done: {error} left it.",
    "done cancelled": "{task} is done: it was cancelled.",
    "done abandoned": "{task} is left as it is: the run ends without it.",
    "cancel.ask task": "{by} asks {task} to end: {reason}.",
    "cancel.ask": "{by} asks {task} to leave the block {label}: {reason}.",
    "cancel.deliver task": "The wait that {task} was in is undone. "
    "{error} will be raised there, so that it ends.",
    "cancel.deliver": "The wait that {task} was in is undone. "
    "{error} will be raised there, so that it leaves {label}.",
    "scope.enter": "{task} enters the block {label}.",
    "scope.leave caught": "{task} leaves the block {label}, "
    "which catches the Cancelled that was meant for it.",
    "scope.leave": "{task} leaves the block {label}.",
    "timer.set": "The timer {id} is set, for {for}: it is due when the clock says {at}.",
    "timer.set never": "The timer {id} is set, for {for}, and is never due.",
    "timer.fire": "The clock says that the timer {id} is due.",
    "timer.cancel": "The timer {id} is taken back.",
    "lock.take": "{task} holds {label} now.",
    "lock.give": "{task} gives {label} back.",
    "queue.put to": "{by} puts an item into {label}. It is handed to {to}, who waited for one.",
    "queue.put": "{by} puts an item into {label}, which has {length} now.",
    "queue.get": "{by} takes an item out of {label}, which has {length} now.",
    "call": "A call from outside of the tasks is made ({from}): {function}.",
    "deadlock": "No task can ever run again: a deadlock. All are cancelled.",
    "deadlock cycle": "No task can ever run again, for some wait for each other: {cycle}. "
    "All are cancelled.",
    "mark": "{by} notes: {name}.",
    "mark data": "{by} notes: {name} ({data}).",
}

_MASKS = {"r": "read", "w": "written", "rw": "read or written"}


def sentence(event: Event, state: State, codes: Sequence[Sequence[Any]]) -> str:
    """Return what an event means, in a sentence or two.

    Args:
        event: one event of a trace.
        state: as it is after this event: `replay(events, event["i"])`.
        codes: `header["code"]` of the trace.
    """
    key, values = chosen(event, state, codes)
    return WORDS[key].format_map(values)


def chosen(event: Event, state: State, codes: Sequence[Sequence[Any]]) -> tuple[str, Values]:
    """Return which of the words an event has, by their key, and what is put in."""
    kind = event["kind"]
    values = {name: value for name, value in event.items() if isinstance(value, str | int)}
    if event.get("task"):
        values["task"] = state.label(event["task"])
    values["by"] = state.label(event.get("by"))
    make = _MORE.get(kind)
    return kind if make is None else make(event, state, values, codes), values


def span(ns: int) -> str:
    """Return a time in words: `18 µs`."""
    if ns < 1000:
        return f"{ns} ns"
    if ns < 1_000_000:
        return f"{(ns + 500) // 1000} µs"
    unit, size = ("ms", 100_000) if ns < 1_000_000_000 else ("s", 100_000_000)
    tenths = (ns + size // 2) // size
    return f"{tenths // 10}.{tenths % 10} {unit}"


def place(codes: Sequence[Sequence[Any]], code: int, line: int) -> str:
    """Return a place in the program: `chat.py:41`."""
    if not 0 <= code < len(codes):
        return "its end"
    return f"{os.path.basename(codes[code][1])}:{line}"


def waits_in_words(on: dict[str, Any], state: State) -> str:
    """Return what a task waits for, in a few words."""
    for name, words in (("read", "can be read"), ("write", "can be written")):
        if name in on:
            return f"fd {on[name]} {words}"
    if "urgent" in on:
        return f"fd {on['urgent']} has urgent data"
    if "join" in on:
        return state.label(on["join"])
    return str(on.get("what", "?"))


# Which words, and what is put in ------------------------------------------------------------------

Values = dict[str, Any]
Table = Sequence[Sequence[Any]]


def _turn(event: Event, state: State, values: Values, codes: Table) -> str:
    return f"turn {event['ready']}" if event["ready"] < 2 else "turn"


def _poll(event: Event, state: State, values: Values, codes: Table) -> str:
    timeout = event.get("timeout")
    if timeout is None:
        return "poll for ever"
    if timeout == 0:
        return "poll now" if state.ready else "poll due"
    values["span"] = span(math.floor(timeout * 1e9))
    return "poll"


def _polled(event: Event, state: State, values: Values, codes: Table) -> str:
    values["files"] = ", ".join(f"fd {fd} can be {_MASKS[mask]}" for fd, mask in event["files"])
    return "polled" if event["files"] else "polled none"


def _watch(event: Event, state: State, values: Values, codes: Table) -> str:
    values["mask"] = _MASKS[event["mask"]]
    return "watch"


def _spawn(event: Event, state: State, values: Values, codes: Table) -> str:
    values["where"] = place(codes, event["code"], event["line"])
    values["by"] = state.label(event.get("parent"))
    return "spawn" if event.get("parent") else "spawn main"


def _wake(event: Event, state: State, values: Values, codes: Table) -> str:
    task = state.task(event["task"])
    values["place"] = state.ready.index(task.id) + 1
    values["what"] = waits_in_words(task.on, state)
    if event["why"] == "lock" and event.get("by") and state.task(event["by"]).how:
        return "wake refused"
    return f"wake {event['why']}"


def _step(event: Event, state: State, values: Values, codes: Table) -> str:
    task = state.task(event["task"])
    values["where"] = place(codes, task.code, task.line)
    values["queued"] = "" if task.queued < 0 else f", after {span(task.queued)} in the queue"
    return "step first" if event["n"] == 1 else f"step {event['via']}"


def _yield(event: Event, state: State, values: Values, codes: Table) -> str:
    task = state.task(event["task"])
    on = event["on"]
    _ran(task, values, codes)
    values["where"] = place(codes, task.code, task.line)
    if event["trap"] == "":
        return "yield"
    for name in ("read", "write", "urgent"):
        if name in on:
            values["fd"] = on[name]
            return f"yield {name}"
    if "until" in on:
        if on["until"] is None:
            return "yield for ever"
        values["at"] = span(on["until"])
        return "yield until"
    if "join" not in on and "what" not in on:
        return "yield other"
    values["what"] = waits_in_words(on, state)
    if "join" in on:
        return "yield join"
    values["holders"] = ", ".join(state.label(each) for each in on.get("holders", ()))
    return "yield held" if values["holders"] else "yield what"


def _over(event: Event, state: State, values: Values, codes: Table) -> str:
    task = state.task(event["task"])
    _ran(task, values, codes)
    values["held"] = ", ".join(task.held)
    return "over held" if task.held else f"over {event['how']}"


def _done(event: Event, state: State, values: Values, codes: Table) -> str:
    return f"done {event['how']}"


def _ask(event: Event, state: State, values: Values, codes: Table) -> str:
    values["reason"] = event.get("reason", "no reason is given")
    return "cancel.ask" if event["scope"] else "cancel.ask task"


def _deliver(event: Event, state: State, values: Values, codes: Table) -> str:
    return "cancel.deliver" if event["scope"] else "cancel.deliver task"


def _leave(event: Event, state: State, values: Values, codes: Table) -> str:
    return "scope.leave caught" if event["caught"] else "scope.leave"


def _set(event: Event, state: State, values: Values, codes: Table) -> str:
    if "at" not in event:
        return "timer.set never"
    values["at"] = span(event["at"])
    return "timer.set"


def _put(event: Event, state: State, values: Values, codes: Table) -> str:
    values["by"] = state.label(event.get("task"))
    if "to" in event:
        values["to"] = state.label(event["to"])
        return "queue.put to"
    return str(event["kind"])


def _deadlock(event: Event, state: State, values: Values, codes: Table) -> str:
    cycle = event["cycle"]
    values["cycle"] = ", ".join(
        f"{state.label(one)} waits for {state.label(other)} ({_wish(state.task(one), state)})"
        for one, other in zip(cycle, [*cycle[1:], *cycle[:1]], strict=True)
    )
    return "deadlock cycle" if cycle else "deadlock"


def _wish(task: TaskState, state: State) -> str:
    """Return why a task of a cycle waits for the next."""
    if task.state == "completing":
        return "its child"
    return "its end" if "join" in task.on else waits_in_words(task.on, state)


def _mark(event: Event, state: State, values: Values, codes: Table) -> str:
    values["by"] = state.label(event.get("task"))
    values["data"] = ", ".join(f"{name}={value}" for name, value in event["data"].items())
    return "mark data" if event["data"] else "mark"


def _ran(task: TaskState, values: Values, codes: Table) -> None:
    """How long its last step was, and where that began."""
    values["span"] = span(task.ran)
    code, line = task.began
    known = task.steps > 1 and code >= 0
    values["from"] = f" from {place(codes, code, line)}" if known else ""


_MORE = {
    "turn": _turn,
    "poll": _poll,
    "polled": _polled,
    "watch": _watch,
    "spawn": _spawn,
    "wake": _wake,
    "step": _step,
    "yield": _yield,
    "over": _over,
    "done": _done,
    "cancel.ask": _ask,
    "cancel.deliver": _deliver,
    "scope.leave": _leave,
    "timer.set": _set,
    "queue.put": _put,
    "queue.get": _put,
    "deadlock": _deadlock,
    "mark": _mark,
}
