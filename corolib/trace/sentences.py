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
from corolib.trace.state import OWN, State, TaskState

QUEUED = "goes to {queue}."

WORDS = {
    "run": "The run begins.",
    "end": "The run is over: {reason}.{failures}",
    "turn 0": "Turn {n} begins. No task is ready yet.",
    "turn 1": "Turn {n} begins. 1 task is ready.",
    "turn": "Turn {n} begins. {ready} tasks are ready.",
    "poll now": "Tasks are ready, so the scheduler does not sleep: "
    "it only asks the selector which files are ready.",
    "poll due": "A timer is due, so the scheduler does not sleep: "
    "it only asks the selector which files are ready.",
    "poll for ever": "No task is ready, and no timer is set: "
    "the scheduler sleeps until a file is ready.",
    "poll": "No task is ready, and the next timer is due in {span}: "
    "the scheduler sleeps until then, or until a file is ready.",
    "polled none": "The selector reports that no file is ready.",
    "polled": "The selector reports: {files}.",
    "watch": "From now on the selector watches whether fd {fd} can be {mask}.",
    "watch own": "From now on the selector watches fd {fd} for the scheduler itself: "
    "signals and other threads wake it by that.",
    "unwatch": "The selector does not watch fd {fd} any more.",
    "spawn": "{by} spawns {task} at {where}. The new task does not run at once.",
    "spawn main": "{task} is made at {where}.",
    "wake new": "{task} is new, and " + QUEUED,
    "wake yield": "{task} gave way and waits for nothing: it " + QUEUED,
    "wake at once": "{task} need not wait after all: it " + QUEUED,
    "wake io": "Now {what}. {task} waited for that, and " + QUEUED,
    "wake timer": "The time that {task} waited for has come: {task} " + QUEUED,
    "wake join": "{task} waited for the end of {what}, and " + QUEUED,
    "wake lock": "{task} was the first to wait for {lock} and holds it now: {task} " + QUEUED,
    "wake refused": "{by} ended and did not release {lock}. {task} was the first to wait for it: "
    "{task} gets an error instead, and " + QUEUED,
    "wake ended": "{by} ends the wait of {task}{wish}: {task} " + QUEUED,
    "wake cancel": "{task} does not wait any more, and " + QUEUED,
    "wake thread": "Another thread has ended the wait of {task}: {task} " + QUEUED,
    "wake signal": "A signal handler has ended the wait of {task}: {task} " + QUEUED,
    "step first": "{task} is next{queued}: the scheduler starts it.",
    "step send": "{task} is next{queued}: the scheduler resumes it{where}.",
    "step throw": "{task} is next{queued}: the scheduler resumes it{where} by raising {error}.",
    "yield": "{task} ran for {span}{from}{to} and gave way: it can go on after the others.",
    "yield read": "{task} ran for {span}{from}{to} and yielded {trap}(fd {fd}). "
    "It is parked: nothing runs it until fd {fd} can be read.",
    "yield write": "{task} ran for {span}{from}{to} and yielded {trap}(fd {fd}). "
    "It is parked: nothing runs it until fd {fd} can be written.",
    "yield urgent": "{task} ran for {span}{from}{to} and yielded {trap}(fd {fd}). "
    "It is parked: nothing runs it until fd {fd} has urgent data.",
    "yield until": "{task} ran for {span}{from}{to} and yielded {trap}. "
    "It is parked: nothing runs it until the clock says {at}.",
    "yield for": "{task} ran for {span}{from}{to} and yielded {trap}. "
    "It is parked: nothing runs it in the next {pause}.",
    "yield for ever": "{task} ran for {span}{from}{to} and yielded {trap}. "
    "It is parked for ever: only a cancel ends that.",
    "yield join": "{task} ran for {span}{from}{to}. "
    "It is parked: nothing runs it until {what} is done.",
    "yield what": "{task} ran for {span}{from}{to}. It is parked, and waits{wish}{holders}.",
    "yield other": "{task} ran for {span}{from}{to} and yielded {trap}.",
    "over returned": "{task} {went} and returned, after {span}.{held}{children}",
    "over failed": "{task} ran for {span}{from} and failed{at} with {error}.{held}{children}",
    "over cancelled": "{task} ran for {span}{from} and ended, for it was cancelled."
    "{held}{children}",
    "done returned": "{task} is done.",
    "done failed": "{task} is done: it failed with {error}.",
    "done cancelled": "{task} is done: it was cancelled.",
    "done abandoned": "{task} is left as it is: the run ends without it.",
    "cancel.ask task": "{by} cancels {task}{reason}.",
    "cancel.ask children": "{by} cancels the children of {task}{reason}. Its own body is over.",
    "cancel.ask": '{by} cancels the block "{label}" of {task}{reason}.',
    "cancel.deliver task": "The wait of {task}{wish} is undone: "
    "{error} will be raised there instead, so that the task ends.",
    "cancel.deliver": "The wait of {task}{wish} is undone: "
    '{error} will be raised there instead, so that the task leaves the block "{label}".',
    "scope.enter": '{task} enters the block "{label}".',
    "scope.leave caught": '{task} leaves the block "{label}", '
    "which catches the exception that was raised for it.",
    "scope.leave": '{task} leaves the block "{label}".',
    "timer.set": "Timer {id} is set for {for}: it is due when the clock says {at}.",
    "timer.set never": "Timer {id} is set for {for}, and is never due.",
    "timer.fire": "Timer {id} is due.",
    "timer.fire late": "Timer {id} is due, {late} late.",
    "timer.cancel": "Timer {id} is taken back.",
    "lock.take": "{task} holds {label} now.",
    "lock.give": "{task} releases {label}.",
    "queue.put to": "{by} puts an item into {label}. {to} waited for one, and gets it.",
    "queue.put": "{by} puts an item into {label}, which has {items} now.",
    "queue.get": "{by} takes an item out of {label}, which has {items} now.",
    "call": "The scheduler calls {function}, as {origin} asked for.",
    "deadlock": "A deadlock: no task can ever go on. All of them are cancelled.",
    "deadlock cycle": "A deadlock: {cycle}. No task can ever go on, and all of them are cancelled.",
    "lint never run": "A mistake in the source, {where}: {call}() does nothing there, for nobody "
    "runs what it returns. Write `{cure}`.",
    "mark": "{by} notes: {name}.",
    "mark data": "{by} notes: {name} ({data}).",
}

OUTSIDE = "Code outside of the tasks"
ITEMS = ("no item", "1 item")
"""How many items are in a queue, if there are so few."""

NAMED = 5  # tasks, of many
NOTABLE = 2_000_000  # ns: a selector that counts milliseconds may well be late by one
ACQUIRE = "acquire "  # so begins what is waited for, if tasks hold it
_VERBS = ("acquire", "get", "put", "publish", "join", "receive")
_NOUNS = ("a", "an", "the", "its", "input", "TLS")
_MASKS = {"r": "read", "w": "written", "rw": "read or written"}


def sentence(event: Event, state: State, codes: Sequence[Sequence[Any]]) -> str:
    """Return what an event means, in a sentence or two.

    Args:
        event: one event of a trace.
        state: as it is after this event: `replay(events, event["i"])`.
        codes: `header["code"]` of the trace.
    """
    key, values = chosen(event, state, codes)
    return WORDS[key].format_map(values) + _passed(*state.gap)


def _passed(ns: int, how: str) -> str:
    """Return that time has passed of which no event tells, if that is much."""
    what = ": the failure was looked into, or reported" if how == "failed" else ""
    return f" Since the event before, {span(ns)} have passed{what}." if ns >= NOTABLE else ""


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
        return "no line of the program"
    return f"{os.path.basename(codes[code][1])}:{line}"


def waits_in_words(on: dict[str, Any], state: State, unknown: str = "?") -> str:
    """Return what a task waits for, in a few words."""
    for name, words in (("read", "can be read"), ("write", "can be written")):
        if name in on:
            return f"fd {on[name]} {words}"
    if "urgent" in on:
        return f"fd {on['urgent']} has urgent data"
    if "join" in on:
        return state.label(on["join"])
    return str(on.get("what", unknown))


def wish_in_words(what: str) -> str:
    """Return what a wait is for, as it is said behind "waits"; nothing if that is not known.

    A wait of the program's own may be called anything.
    """
    first, _, rest = what.partition(" ")
    if first == "wait":
        return f" {rest}"
    if first in _VERBS:
        return f" to {what}"
    if first in _NOUNS:
        return f" for {what}"
    return f" ({what})" if what else ""


def error_in_words(event: Event) -> str:
    """Return the error of an event as a traceback ends with it, but for a full stop."""
    error = event.get("error", "")
    return f"{error}: {event['message'].removesuffix('.')}" if "message" in event else error


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
    values["files"] = ", ".join(
        f"fd {fd} can be read (the scheduler's own)"
        if state.watched.get(fd) == OWN
        else f"fd {fd} can be {_MASKS[mask]}"
        for fd, mask in event["files"]
    )
    return "polled" if event["files"] else "polled none"


def _watch(event: Event, state: State, values: Values, codes: Table) -> str:
    values["mask"] = _MASKS[event["mask"]]
    return "watch own" if event.get("own") else "watch"


def _spawn(event: Event, state: State, values: Values, codes: Table) -> str:
    values["where"] = place(codes, event["code"], event["line"])
    values["by"] = state.label(event.get("parent"))
    return "spawn" if event.get("parent") else "spawn main"


def _wake(event: Event, state: State, values: Values, codes: Table) -> str:
    task, why = state.task(event["task"]), event["why"]
    at = state.ready.index(task.id) + 1
    first = "the ready queue, where it is first"
    values["queue"] = first if at == 1 else f"the end of the ready queue, place {at}"
    what = task.on.get("what", "")
    values["wish"] = wish_in_words(what)
    if why in ("io", "join"):
        unknown = "a file is ready" if why == "io" else "another task"
        values["what"] = waits_in_words(task.on, state, unknown)
    elif why == "lock" and what.startswith(ACQUIRE):
        values["lock"] = what.removeprefix(ACQUIRE)
        return "wake refused" if event.get("by") and state.task(event["by"]).how else "wake lock"
    elif why in ("lock", "queue", "event", "other"):
        return "wake ended"
    return f"wake {why}"


def _step(event: Event, state: State, values: Values, codes: Table) -> str:
    task = state.task(event["task"])
    values["where"] = _place(" at", codes, task.code, task.line)
    values["queued"] = "" if task.queued < 0 else f", after {span(task.queued)} in the queue"
    values["error"] = error_in_words(event)
    return "step first" if event["n"] == 1 else f"step {event['via']}"


def _yield(event: Event, state: State, values: Values, codes: Table) -> str:
    task = state.task(event["task"])
    on = event["on"]
    _ran(task, values, codes)
    values["to"] = _place(" to", codes, task.code, task.line)
    if values["to"] and task.steps > 1 and _is_back(task):
        values["from"], values["to"] = "", f"{values['to']} again"
    if event["trap"] == "":
        return "yield"
    for name in ("read", "write", "urgent"):
        if name in on:
            values["fd"] = on[name]
            return f"yield {name}"
    if "until" in on:
        if on["until"] is None:
            return "yield for ever"
        if "for" in on:
            values["pause"] = span(max(on["for"], 0))
            return "yield for"
        values["at"] = span(on["until"])
        return "yield until"
    if "join" in on:
        values["what"] = waits_in_words(on, state)
        return "yield join"
    if "what" not in on:
        return "yield other"
    values["wish"] = wish_in_words(on["what"])
    holders = _names(on.get("holders", []), state)
    held = f", held by {holders}" if on["what"].startswith(ACQUIRE) else f" ({holders})"
    values["holders"] = held if holders else ""
    return "yield what"


def _over(event: Event, state: State, values: Values, codes: Table) -> str:
    task, how = state.task(event["task"]), event["how"]
    _ran(task, values, codes)
    values["at"] = _place(" at", codes, event.get("code", -1), task.line)
    if values["at"] and _is_back(task):
        values["from"] = ""
    values["error"] = error_in_words(event)
    held = ", ".join(task.held)
    values["held"] = f" It still held {held}: nobody gives that back any more." if held else ""
    values["children"] = _children(task, how, state)
    values["went"] = f"went on{values['from']}" if task.steps > 1 else "ran"
    return f"over {how}"


def _children(task: TaskState, how: str, state: State) -> str:
    """Return what becomes of the children of a task whose body has just ended."""
    daemons: list[int] = []
    found: list[int] = []
    for each in state.children(task.id):
        (daemons if each.daemon and how == "returned" else found).append(each.id)
    if how == "returned":
        words = "It is done when its child {} is.", "It is done when its children are: {}."
    else:
        words = "Its child {} is cancelled.", "Its children are cancelled: {}."
    text = " " + words[len(found) > 1].format(_names(found, state)) if found else ""
    if daemons:
        text += f" Daemons are not waited for, but cancelled: {_names(daemons, state)}."
    return text


def _done(event: Event, state: State, values: Values, codes: Table) -> str:
    return f"done {event['how']}"


def _ask(event: Event, state: State, values: Values, codes: Table) -> str:
    values["reason"] = f" (reason: {event['reason']})" if "reason" in event else ""
    if event["scope"]:
        return "cancel.ask"
    return "cancel.ask children" if state.task(event["task"]).how else "cancel.ask task"


def _deliver(event: Event, state: State, values: Values, codes: Table) -> str:
    values["wish"] = wish_in_words(state.task(event["task"]).on.get("what", ""))
    return "cancel.deliver" if event["scope"] else "cancel.deliver task"


def _leave(event: Event, state: State, values: Values, codes: Table) -> str:
    return "scope.leave caught" if event["caught"] else "scope.leave"


def _set(event: Event, state: State, values: Values, codes: Table) -> str:
    if "at" not in event:
        return "timer.set never"
    values["at"] = span(event["at"])
    return "timer.set"


def _fire(event: Event, state: State, values: Values, codes: Table) -> str:
    late = event.get("late", 0)
    values["late"] = span(late)
    return "timer.fire late" if late >= NOTABLE else "timer.fire"


def _move(event: Event, state: State, values: Values, codes: Table) -> str:
    values["by"] = _whoever(event, state)
    if "to" in event:
        values["to"] = state.label(event["to"])
        return "queue.put to"
    length = event["length"]
    values["items"] = ITEMS[length] if length < len(ITEMS) else f"{length} items"
    return str(event["kind"])


def _call(event: Event, state: State, values: Values, codes: Table) -> str:
    origin = event["from"]
    words = {"signal": "a signal handler", "task": "a task"}
    values["origin"] = words.get(origin, f"the {origin}")
    return "call"


def _deadlock(event: Event, state: State, values: Values, codes: Table) -> str:
    cycle = event["cycle"]
    values["cycle"] = "; ".join(
        f"{state.label(one)} waits{_wait(state.task(one), state.label(other))}"
        for one, other in zip(cycle, [*cycle[1:], *cycle[:1]], strict=True)
    )
    return "deadlock cycle" if cycle else "deadlock"


def _wait(task: TaskState, other: str) -> str:
    """Return for what of another task a task of a cycle waits."""
    if task.state == "completing":
        return f" for its child {other}"
    what = task.on.get("what", "")
    if what.startswith(ACQUIRE):
        return f" to {what}, held by {other}"
    return f" for {other}{wish_in_words(what)}"


def _end(event: Event, state: State, values: Values, codes: Table) -> str:
    words = {"returned": "the main task returned", "closed": "the scheduler was closed"}
    reason, failed = event["reason"], event.get("failed", 0)
    values["reason"] = words.get(reason) or error_in_words({**event, "error": reason})
    values["failures"] = ""
    if failed:
        first = event["first"]
        values["failures"] = (
            f" 1 task failed: {first}."
            if failed == 1
            else f" {failed} tasks failed, {first} first."
        )
    return "end"


def _lint(event: Event, state: State, values: Values, codes: Table) -> str:
    values["where"] = place(codes, event["code"], event["line"])
    return f"lint {event['lint']}"


def _mark(event: Event, state: State, values: Values, codes: Table) -> str:
    values["by"] = _whoever(event, state)
    values["data"] = ", ".join(f"{name}={value}" for name, value in event["data"].items())
    return "mark data" if event["data"] else "mark"


def _ran(task: TaskState, values: Values, codes: Table) -> None:
    """How long its last step was, and where that began."""
    values["span"] = "some time" if task.ran < 0 else span(task.ran)
    values["from"] = _place(" from", codes, *task.began) if task.steps > 1 else ""


def _place(word: str, codes: Table, code: int, line: int) -> str:
    """Return a place in the program with a word in front, or nothing if it is not known."""
    return f"{word} {place(codes, code, line)}" if code >= 0 else ""


def _is_back(task: TaskState) -> bool:
    """Return whether a task is in the line again in which its last step began."""
    return [task.code, task.line] == task.began


def _whoever(event: Event, state: State) -> str:
    return state.label(event["task"]) if "task" in event else OUTSIDE


def _names(tasks: Sequence[int], state: State) -> str:
    """Return the names of some tasks."""
    names = [state.label(task) for task in tasks[:NAMED]]
    return ", ".join(names) + (f" and {len(tasks) - NAMED} more" if len(tasks) > NAMED else "")


_MORE = {
    "end": _end,
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
    "timer.fire": _fire,
    "queue.put": _move,
    "queue.get": _move,
    "call": _call,
    "deadlock": _deadlock,
    "lint": _lint,
    "mark": _mark,
}
