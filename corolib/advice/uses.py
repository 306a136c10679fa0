"""A thing that was used as what it is not: `yield from event`, `for line in stream`, `with Lock`.

Python says that it is not iterable, or no context manager; or that a task has no `decode`; or that
a socket would block. Here the line is found that was meant, from its source and what its names
stand for.
"""

from __future__ import annotations

import os
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from corolib.advice.arguments import text_of
from corolib.advice.foreign import (
    BLOCKS,
    ITERATED,
    OPEN_TCP,
    REPEATED,
    for_async,
    waiting_call,
)
from corolib.advice.places import Place, flags_of, is_of_library, name_in, places
from corolib.kernel.frames import CO_COROUTINE, CO_GENERATOR
from corolib.kernel.safely import attribute, class_name, name_of, plain
from corolib.kernel.source import BOUNDS, LOOPS, loop_over

if TYPE_CHECKING:
    import ast

_COMPLAINTS = (
    (r"'([\w.]+)' object is not iterable", ("YieldFrom", "For")),
    (r"object ([\w.]+) can't be used in 'await'", ("Await",)),
    (r"'([\w.]+)' object can't be awaited", ("Await",)),
    (r"'async for' requires an object with __aiter__ method, got ([\w.]+)", ("AsyncFor",)),
    (r"'([\w.]+)' object does not support the context manager", ("With",)),
    (r"'([\w.]+)' object does not support the asynchronous", ("AsyncWith",)),
)


def misused(error: BaseException, text: str) -> str | None:
    """Return the note if an error says that something cannot be iterated, awaited or entered."""
    if "'Block' object" in text or text.endswith("got Block"):
        return begun_block(error)
    for pattern, uses in _COMPLAINTS:
        found = re.match(pattern, text)
        place = next(places(error), None) if found else None
        if found is None or place is None:
            continue
        kind = found[1].rpartition(".")[2]
        for node, thing in place.line.uses:
            if class_name(node) not in uses:
                continue
            # `for item in (yield from queue):` means the loop over its items.
            around = (each for each, waited in place.line.uses if waited is node)
            loops = [each for each in around if class_name(each) == "For"]
            notes = (_cure(place, each, thing, kind) for each in (*loops, node))
            if note := next(filter(None, notes), None):
                return note
    return None


def _cure(place: Place, node: Any, thing: ast.expr, kind: str) -> str | None:
    import ast

    text, use = text_of(thing), class_name(node)
    waits = use in ("YieldFrom", "Await")
    if isinstance(thing, ast.Call):
        made: Any = place.function_of(thing)
        name = name_in(thing.func)
        if name in LOOPS and is_of_library(made):
            return f"Write `{loop_over(name, text, place.word)}`"
        if not isinstance(made, type):
            return _of_a_plain_call(place, node, thing, made) if waits else None
    elif isinstance(thing, ast.Constant) and type(thing.value) in (int, float):
        before = "await" if use == "Await" else "yield"
        return f"Write `{before} Sleep({text})`" if waits else None
    else:
        made = place.value_of(thing)
        if callable(made) and kind in _CALLABLES:
            return _of_a_function(place, node, thing, made)
        made = type(made)
    home = plain(attribute(made, "__module__"))
    if waits and home in ("_queue", "_thread", "queue", "threading"):
        name = "Lock" if kind == "lock" else kind
        return f"It is made for threads. Write `from corolib import {name}`"
    if not is_of_library(made) or name_of(made) != kind:
        return None
    if use == "AsyncWith":
        if kind in BOUNDS:
            return f"It bounds a block without `async`: write `with {kind}(...):`"
        return None
    if kind in BOUNDS and waits:
        return f"{kind}() bounds a block: write `with {text}:`"
    if use == "Await" and hasattr(made, "__aenter__"):
        return f"Write `async with {text}:`"
    if use in ("For", "AsyncFor"):
        target = text_of(node.target)
        if place.word == "await" and hasattr(made, "__aiter__"):
            return f"Write `async for {target} in {text}:`"
        cures = (ITERATED.get(name_of(each)) for each in made.__mro__)
        cure = next((each for each in cures if each), None)
        return cure and f"Write `{cure.format(x=target, it=text, word=place.word)}`"
    call = waiting_call(made)
    if waits and call:
        return f"Write `{place.line.with_text(thing, f'{text}.{call}')}`"
    return None


def repeated_call(error: BaseException, name: str) -> str:
    """Return what takes the place of a loop over the call of `name`, which gives one item:
    `for conn in listener.accept():`; nothing if it is not known.
    """
    import ast

    for place in places(error) if name in REPEATED else ():
        for node, thing in place.line.uses:
            if isinstance(node, ast.For) and isinstance(thing, ast.Call):
                target, made = text_of(node.target), place.function_of(thing)
                if name_in(thing.func) == name and is_of_library(made):
                    return REPEATED[name].format(x=target, it=text_of(thing), word=place.word)
    return ""


def begun_block(error: BaseException) -> str | None:
    """Return the note if what a call returned is a block that was not begun by `with`."""
    for place in places(error):
        for call, _ in place.line.calls:
            if name_in(call.func) in BLOCKS and is_of_library(place.function_of(call)):
                name = place.line.assigned_to(call).removesuffix(" = ") or "news"
                return f"It is the beginning of a block: write `with {text_of(call)} as {name}:`"
    return None


def unpiped(error: BaseException) -> str | None:
    """Return the note if what a process was not given was used: `process.stdout.read()`."""
    import ast

    for place in places(error):
        for call, _ in place.line.calls:
            match call.func:
                case ast.Attribute(value=ast.Attribute(value=owner, attr=name)) if name in PIPES:
                    if class_name(place.value_of(owner)) == "Process":
                        right = f"open_process([...], {name}=subprocess.PIPE)"
                        return f"process.{name} is None. Write `process = {place.word} {right}`"
    return None


def taken_for_its_result(error: BaseException, unpacked: bool = False) -> str | None:
    """Return the note if a task was used as if it were what it returns: `task + 1`.

    Args:
        unpacked: only one that several names are assigned to.
    """
    for place in places(error):
        line = place.line
        spawns = [call for call, before in line.calls if not before and _is_spawn(call)]
        for node in (*line.things, *spawns):
            if unpacked and id(node) not in line.unpacked:
                continue
            value = place.value_of(node)
            kind = class_name(value) if is_of_library(type(value)) else ""
            kind = "Task" if node in spawns else kind
            if kind in AWAITED:
                right = line.with_words([node], place.word)
                return f"A {kind} is not what it returns. Write `{right}`"
    return None


def _is_spawn(call: ast.Call) -> bool:
    return name_in(call.func) == "spawn"


def not_ready(error: BaseException) -> str | None:
    """Return the note if a file that does not block was used without a wait: `sock.recv(100)`.

    Only the innermost function of the program's is looked at: if that raises the error by itself,
    no file did.
    """
    import ast

    for place in islice(places(error), 1):
        for call, _ in reversed(place.line.calls):
            name, owner = name_in(call.func), getattr(call.func, "value", None)
            if name == "connect" and owner is not None:
                right = for_async(OPEN_TCP) if place.word == "await" else OPEN_TCP
                return f"In corolib: {right}"
            trap = "ReadWait" if name in READS else "WriteWait" if name in WRITES else None
            file = owner if place.owner_of(call) is not os else next(iter(call.args), None)
            if trap and isinstance(file, ast.expr):
                word = "await" if place.word == "await" else "yield"
                return f"Write `{word} {trap}({text_of(file)})` in front of it"
    return None


READS = {"accept", "read", "readinto", "recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg"}
WRITES = {"send", "sendall", "sendmsg", "sendto", "write"}
"""What is called of sockets and of `os`, and of which side they are."""

AWAITED = ("Result", "Task")
"""What returns something by `yield from` itself."""

PIPES = ("stderr", "stdin", "stdout")
_CALLABLES = {
    *("function", "method", "builtin_function_or_method", "type", "Documented", "_Question"),
    *("_Asks", "ABCMeta"),
}


def _of_a_function(place: Place, node: Any, thing: ast.expr, made: Any) -> str | None:
    """Return the note if a function, or a class, was not called."""
    text, name = text_of(thing), name_in(thing)
    use = class_name(node)
    if isinstance(made, type):
        if not is_of_library(made):
            return None
        if use in ("YieldFrom", "Await"):
            return (
                f"{name} is a class: write `{'await' if use == 'Await' else 'yield'} {text}(...)`"
            )
        return f"{name} is a class: write `{place.line.with_text(thing, f'{text}(...)')}`"
    if use in ("YieldFrom", "Await") and not flags_of(made) & (CO_GENERATOR | CO_COROUTINE):
        right = place.line.with_text(node, f"{text}()")
        return f"{name} was not called, and cannot wait: write `{right}`"
    if name in LOOPS and is_of_library(made):
        return f"Write `{loop_over(name, '', place.word)}`"
    return f"{name} was not called: write `{place.line.with_text(thing, f'{text}()')}`"


def _of_a_plain_call(place: Place, node: Any, call: ast.Call, made: Any) -> str | None:
    """Return the note if the call of a function that cannot wait was waited for."""
    import ast

    plain = made is not None and not flags_of(made) & (CO_GENERATOR | CO_COROUTINE)
    given = (*call.args, *call.keywords)
    if not plain or any(isinstance(each, ast.Call) for arg in given for each in ast.walk(arg)):
        return None  # or what has failed may be a call in its arguments
    before = "await" if isinstance(node, ast.Await) else "yield from"
    return f"{name_in(call.func)}() cannot wait: write `{text_of(call)}`, without `{before}`"
