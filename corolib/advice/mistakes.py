"""A note on an error that leaves a task, if it is one that newcomers make: with the right line.

`data = stream.recv(100)` without `yield from` is no error. `data.decode()` is one: a generator has
no such attribute. That leaves the task, and only then, where it costs nothing else anything, is it
looked at: which call was not run, and how its line should be. In the same way a name of another
library's is noticed, and a call of what cannot be called.

What is noticed when a wrong thing is yielded, or spawned, is in the kernel's `diagnostics.py`.
What fails here is passed over by who asks: an error without its note is better than another error.
"""

from __future__ import annotations

import re
import sys
from types import CoroutineType, FunctionType, GeneratorType
from typing import TYPE_CHECKING, Any

from corolib.advice.arguments import given_call, refused_call, text_of
from corolib.advice.foreign import (
    ASYNCIO,
    FUNCTIONS,
    MODULES,
    NAMES,
    SERVER,
    SLEEP,
    asyncio_cure,
    for_async,
    member_cure,
)
from corolib.advice.places import (
    Place,
    flags_of,
    frames,
    is_of_library,
    name_in,
    places,
    raiser_of,
)
from corolib.advice.uses import (
    AWAITED,
    begun_block,
    misused,
    not_ready,
    repeated_call,
    taken_for_its_result,
    unpiped,
)
from corolib.kernel.frames import CO_COROUTINE, CO_GENERATOR, LIBRARY, variables_of
from corolib.kernel.safely import Block, attribute, brief, class_name, module_of, name_of, plain

if TYPE_CHECKING:
    import ast

WAITS = CO_GENERATOR | CO_COROUTINE


_OF_CALLS = ("generator", "coroutine", "await", "'bool' object is not iterable")
"""What messages of Python's have in them when a call that waits was not run, or not first."""


_BYTES = re.compile(
    "bytes-like object is required, not 'str'|bytes or a tuple of bytes, not str|str to bytes$|"
    'a bytes-like object, str found|expected str instance, bytes found|not "bytes"\\) to str$'
)
"""What Python says where bytes and text meet."""


def note_on(error: BaseException) -> str | None:
    """Return the note for an error, None if nothing is known of it."""
    if isinstance(error, BlockingIOError):
        return not_ready(error)
    if type(error) is NameError:
        if error.name in sys.modules["corolib"].__all__:
            return f"Write `from corolib import {error.name}`"
        cure = None if error.name in MODULES else NAMES.get(str(error.name))
        return cure and _as_there(error, f"In corolib: {cure}")
    if isinstance(error, AttributeError):
        thing = error.obj
        if isinstance(thing, GeneratorType | CoroutineType):
            return _forgotten(error, name_of(thing).lstrip("_"))
        if thing is None:
            return unpiped(error) or (_asyncios(error) if error.name == "create_future" else None)
        if type(thing) is Block:
            return begun_block(error)
        cures = FUNCTIONS.get(name_of(thing)) if is_of_library(thing) else None
        asks = type(thing) is FunctionType and is_of_library(thing) and not cures
        if asks and not flags_of(thing) & WAITS:
            asked = name_of(thing)
            return f"{asked} was not called: write `{asked}().{error.name}`"
        if cures or is_of_library(type(thing)):
            name = str(error.name)
            cure = (cures or {}).get(name) or member_cure(type(thing), name)
            if not cure and class_name(thing) in AWAITED:
                return taken_for_its_result(error)
            return cure and _as_there(error, f"In corolib: {cure}")
        return None
    text = _awaiting(error)
    if isinstance(error, TypeError):
        return _of_a_type_error(error, text)
    if isinstance(error, KeyError):
        key = error.args[0] if error.args else None
        waits = isinstance(key, GeneratorType | CoroutineType)
        return _forgotten(error, name_of(key).lstrip("_")) if waits else None
    if text.startswith("a scheduler already runs in this thread: use spawn"):
        return _run_in_a_task(error)
    if "`" in text or "corolib" in text:
        # It is one of ours, and says by itself what to write.
        return None
    if isinstance(error, ValueError):
        if "to unpack" not in text:
            return None
        return _forgotten(error, unpacked=True) or taken_for_its_result(error, unpacked=True)
    if "event loop" not in text:
        return None
    return _asyncios(error) or _as_there(error, f"{ASYNCIO}. To sleep: `{SLEEP}`")


def _of_a_type_error(error: TypeError, text: str) -> str | None:
    refused = refused_call(error, text)
    if refused is not None:
        message, right = refused
        if message != text and type(error) is TypeError:
            error.args = (message,)
        if right:
            return right
    gives_none = re.match(r"(\w+)\(\) waits, and gives no items\.", text)
    if gives_none and (right := repeated_call(error, gives_none[1])):
        error.args = (f"{gives_none[0]} Write `{right}`",)
        return None
    raiser = raiser_of(error)
    if raiser is not None and raiser.f_code.co_name == "recv" and "'>' not supported" in text:
        if module_of(raiser).startswith(LIBRARY):  # which checks nothing else of what it is given
            most = brief(variables_of(raiser).get("most"))
            error.args = (f"recv() takes a whole number, not {most}",)
            return None
    if text == "cannot unpack non-iterable Stream object":
        right = "Write `stream = yield from ...`; `stream.peer` is who is there"
        return _as_there(error, f"One stream is read and written. {right}")
    wrongly = misused(error, text)
    if wrongly or "`" in text or "corolib" in text:
        return wrongly
    if any(word in text for word in _OF_CALLS):
        forgotten = _forgotten(error)
        if forgotten:
            return forgotten
    if _BYTES.search(text) and "encode()" not in text:
        return 'What is received and sent is bytes: b"..." is bytes, and `data.decode()` is text'
    if any(re.search(rf"\b{each}\b", text) for each in AWAITED):
        return taken_for_its_result(error)
    return _called(error) if text.endswith("object is not callable") else None


def _awaiting(error: BaseException) -> str:
    """Return what an error says; one of ours has from now on `await` where it was made in an
    `async def`.
    """
    text = str(error)
    raiser = raiser_of(error)
    ours = raiser is not None and module_of(raiser).startswith(LIBRARY)
    if (ours or text.startswith("task ")) and error.args == (text,):
        shown = re.sub("`[^`]+`", lambda found: _as_there(error, found[0]), text)
        if shown != text:
            error.args = (shown,)
        return shown
    return text


def _as_there(error: BaseException, text: str) -> str:
    """Return what to write, with `await` if the program's function at hand is an `async def`."""
    frame = next(frames(error), (None, 0))[0]
    return for_async(text) if frame and frame.f_code.co_flags & CO_COROUTINE else text


# What may be meant --------------------------------------------------------------------------------


def _forgotten(error: BaseException, name: str = "", unpacked: bool = False) -> str | None:
    """Return the note if a call that waits was not run, or not as it must be: of the function
    with that name, if one is given, or of any.

    Args:
        unpacked: only a call that several names are assigned to.
    """
    for place in places(error):
        word = place.word
        for call, before in reversed(place.line.calls):
            called, function = name_in(call.func), place.function_of(call)
            mapped = function is map and len(call.args) == 2
            if mapped:
                called, function = name_in(call.args[0]), place.value_of(call.args[0])
            flags = flags_of(function)
            known = called.lstrip("_") == name if name else flags & WAITS
            if not known or before == "given" or (unpacked and id(call) not in place.line.unpacked):
                continue
            if flags & CO_COROUTINE and word == "yield from":
                if plain(attribute(function, "__module__")).startswith("asyncio"):
                    return asyncio_cure(name_of(function, which="__qualname__"))
                return (
                    f"{called}() is an `async def`: a generator calls it with "
                    f"`yield from spawn({called}, *args)`"
                )
            marked = is_of_library(function) or attribute(function, "__wrapped__") is not None
            if before == "await" and flags & CO_GENERATOR and not marked:
                return f"{called}() is a generator function: to await it, put `@waits` above it"
            if not before and called.startswith("serve_") and is_of_library(function):
                return _as_there(error, f"{called}() returns when it ends. Write `{SERVER}`")
            if not before:
                right = place.line.with_words(_with_others(place, call), word)
                if mapped:
                    items, made = text_of(call.args[1]), text_of(call.args[0])
                    right = f"for item in {items}: {word} {made}(item)"
                lock = getattr(call.func, "value", None)
                if called == "acquire" and lock and right.startswith("async with ("):
                    right = place.line.with_text(call, text_of(lock))
                return f"{called}() waits, and was not run. Write `{right or f'{word} {called}()'}`"
    return None


def _asyncios(error: BaseException) -> str | None:
    """Return the note if something of asyncio's was called, which looks for its loop."""
    for place in places(error):
        for call, _ in place.line.calls:
            function = place.function_of(call)
            if plain(attribute(function, "__module__")).partition(".")[0] == "asyncio":
                return _as_there(error, asyncio_cure(name_of(function, which="__qualname__")))
    return None


def _with_others(place: Place, call: ast.Call) -> list[ast.Call]:
    """Return a call with those beside it that wait and were not run either, in their order."""
    found = [call]
    for each, before in place.line.calls:
        if before or not flags_of(place.function_of(each)) & WAITS:
            continue
        if place.line.are_beside([each, *found]):
            found.append(each)
    return sorted(found, key=lambda each: each.col_offset)


def _run_in_a_task(error: BaseException) -> str | None:
    """Return the note if a task called `run(f, x)`: it waits for `f(x)` itself."""
    for place in places(error):
        for call, before in place.line.calls:
            if name_in(call.func) == "run" and place.word != "run":
                text, word = given_call(place, call)[1], "" if before else place.word
                return f"Write `{place.line.with_text(call, text, word)}`" if text else None
    return None


def _called(error: BaseException) -> str | None:
    """Return the note if a plain value of ours was called."""
    for place in places(error):
        for call, _ in place.line.calls:
            owner, name = place.owner_of(call), name_in(call.func)
            if is_of_library(type(owner)):
                if _is_method(place.value_of(call.func)):
                    continue
                cure = member_cure(type(owner), f"{name}()")
                what = _as_there(error, cure or name)
                return f"{class_name(owner)}.{name} is no method. In corolib: {what}"
    return None


def _is_method(member: Any) -> bool:
    return isinstance(member, FunctionType) or attribute(member, "__wrapped__") is not None
