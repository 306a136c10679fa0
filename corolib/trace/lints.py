"""Mistakes that can be seen in the code of a task, and that nothing else would tell.

A generator function that is called where the result is used for nothing does nothing: in front of
the call a `yield from` is missing. Python is silent about that, and so is the run.

The code is looked at when a task first waits in it. What a name stands for is looked up in the
task's frame; nothing of the program is called.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from itertools import takewhile
from types import CodeType, FrameType, FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

from corolib.trace.messages import is_ours, names_of, order_of

GENERATOR, COROUTINE = 0x20, 0x80  # flags of code, as in `inspect`
ASYNC = COROUTINE | 0x200
_CALLS = ("CALL", "CALL_KW", "CALL_FUNCTION_EX")
_MEMBERS = ("LOAD_ATTR", "LOAD_METHOD")
_LOADS = (*_MEMBERS, "LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_FAST")


_KEPT = (GetSetDescriptorType, MemberDescriptorType)  # what the interpreter itself keeps


def never_run(frame: FrameType) -> Iterator[tuple[int, str, str]]:
    """Yield each call of a function that waits whose result nothing is done with: its line, what
    is called, and what to write.
    """
    for line, names in dropped_calls(frame.f_code):
        name = ".".join(names)
        kind = _kind_of(_meant(frame, names))
        word = "await" if frame.f_code.co_flags & ASYNC else "yield from"
        if kind & COROUTINE and word == "yield from":
            yield line, name, f"yield from spawn({name}(...))"
        elif kind:
            yield line, name, f"{word} {name}(...)"


def dropped_calls(code: CodeType) -> Iterator[tuple[int, list[str]]]:
    """Yield the line of each call whose result is dropped, and the names that say what is called:
    of `self.door.open()` they are these three.
    """
    before: list[dis.Instruction] = []
    for instruction in dis.get_instructions(code):
        if instruction.opname == "POP_TOP" and before and before[-1].opname in _CALLS:
            line, _ = begin = _begin_of(before[-1])
            names = _names_at(begin, before)
            if line and names:
                yield line, names
        before.append(instruction)


def _names_at(begin: tuple[int, int], instructions: list[Any]) -> list[str]:
    """Return the names that the code loads which begins there, if the last instruction does."""
    names: list[str] = []
    for each in takewhile(lambda each: _begin_of(each) >= begin, reversed(instructions)):
        if _begin_of(each) == begin and each.opname.startswith(_LOADS):
            names.insert(0, each.argval)
            if each.opname not in _MEMBERS:
                return names
    return []


def _begin_of(instruction: Any) -> tuple[int, int]:
    """Return line and column in which that begins of which an instruction is a part."""
    position = instruction.positions
    if position is None or position.col_offset is None:  # Python may be told not to keep them
        return 0, 0
    return position.lineno, position.col_offset


def variables_of(frame: FrameType) -> dict[str, Any]:
    """Return the local variables of a function that is suspended."""
    kept = frame.f_locals
    found = dict(kept)
    if type(kept) is dict:  # pragma: no cover - before Python 3.13
        kept.clear()  # else the frame would keep them alive for as long as it lives
    return found


def _meant(frame: FrameType, names: list[str]) -> Any:
    """Return what names stand for, None if that is not known without a call."""
    first, *members = names
    known = (variables_of(frame), frame.f_globals, frame.f_builtins)
    thing = next((each[first] for each in known if first in each), None)
    for member in members:
        thing = _member(thing, member)
    return thing


def _member(thing: Any, name: str) -> Any:
    """Return a member of a thing, None if it has none or a call has to say."""
    kinds = order_of(thing if type(thing) is type else type(thing))
    own: Any
    own = next((names["__dict__"] for kind in kinds if "__dict__" in (names := names_of(kind))), 0)
    if type(own) in _KEPT and name in (names := own.__get__(thing)):
        return names[name]
    found = next((names[name] for kind in kinds if name in (names := names_of(kind))), None)
    return found.__get__(thing) if type(found) is MemberDescriptorType else found


def _kind_of(thing: Any) -> int:
    """Return the flags of a function that waits; 0: it is none, or that is not known.

    What a decorator of the program's makes of it, it may run.
    """
    if type(thing) in (staticmethod, classmethod):
        thing = thing.__func__
    if type(thing) is FunctionType and is_ours(thing.__code__):
        thing = vars(thing).get("__wrapped__", thing)  # of `@waits`
    flags = thing.__code__.co_flags if type(thing) is FunctionType else 0
    return flags & (GENERATOR | COROUTINE)
