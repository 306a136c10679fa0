"""What an exception says, and where it left a body: found out without asking the program anything.

A class of the program's may put its exceptions into words by code of its own, and what they were
made of may be anything. So an exception is only put into words where Python does that, or corolib,
and where what it is made of is plain.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from corolib.kernel import Task, TaskCancelled, class_name, trace_of

PLAIN = (int, float, bool, str, bytes, type(None))
"""The types of values that are shown as they are written."""

BITS = 180  # of a number that is shown in full
LONGEST = 180  # characters of what an exception says

_CORO = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_DEMO = os.path.join(_CORO, "demo") + os.sep  # programs, though they come with the library
_PYTHON = os.path.dirname(os.__file__) + os.sep, "<frozen "

# What the interpreter itself knows of a class and of an exception, whatever these say of it.
order_of = vars(type)["__mro__"].__get__
names_of = vars(type)["__dict__"].__get__
_STR = "__str__"
_args: Callable[[BaseException], tuple[Any, ...]] = vars(BaseException)["args"].__get__


def _of_a_cancel(error: BaseException) -> tuple[Any, ...]:
    args = _args(error)
    plain = type(error) is TaskCancelled and args and type(args[0]) is Task
    return args[1:] if plain else (error,)


def _fields(kind: Any, *names: str) -> Callable[[BaseException], tuple[Any, ...]]:
    """Return what tells `args` of an exception, and fields that the interpreter keeps in it."""
    found = [vars(kind)[name].__get__ for name in names]
    return lambda error: (*_args(error), *(field(error) for field in found))


_MADE_OF: tuple[tuple[type, Callable[[BaseException], tuple[Any, ...]]], ...] = (
    *((kind, _args) for kind in (BaseException, KeyError, AttributeError, NameError)),
    (OSError, _fields(OSError, "errno", "strerror", "filename", "filename2")),
    (ImportError, _fields(ImportError, "msg")),
    (UnicodeDecodeError, _fields(UnicodeDecodeError, "encoding", "object", "reason")),
    (UnicodeEncodeError, _fields(UnicodeEncodeError, "encoding", "object", "reason")),
    (BaseExceptionGroup, lambda error: _args(error)[:1]),
    (TaskCancelled, _of_a_cancel),
)
"""Classes whose way to put an exception into words may be gone, and what the words are made of."""


def message_of(error: BaseException) -> str | None:
    """Return the first line of what an exception says, in short; None: nothing, or not known."""
    order = order_of(type(error))
    kind, words = next((kind, names_of(kind)[_STR]) for kind in order if _STR in names_of(kind))
    made_of = next((found for each, found in _MADE_OF if each is kind), None)
    try:
        if made_of is None or not all(map(_is_plain, made_of(error))):
            return None
        text, _, more = words(error).strip().partition("\n")
    except Exception:  # the fields do not go together
        return None
    if len(text) > LONGEST or more:
        text = f"{text[: LONGEST - 3]}..."
    return None if text in ("", "None") else text


def words_of(error: BaseException) -> tuple[str, str | None]:
    """Return the name of the class of an exception, and what it says."""
    return class_name(error), message_of(error)


def left_at(error: BaseException) -> tuple[CodeType | None, int | None]:
    """Return code and line of the program's own that an exception has left innermost.

    It may have been raised before, elsewhere: then that is what the library has called, or what
    frames are in that were there already.
    """
    found: tuple[CodeType | None, int | None] = None, None
    frames: set[FrameType] = set()
    trace = trace_of(error)
    while trace is not None:
        frame, code = trace.tb_frame, trace.tb_frame.f_code
        if frame in frames or (frames and is_ours(code)):
            break
        if is_programs(code):
            frames.add(frame)
            found = code, trace.tb_lineno or code.co_firstlineno
        trace = trace.tb_next
    return found


def is_ours(code: CodeType) -> bool:
    """Return whether code is the library's own, and no program's."""
    file = code.co_filename
    return file.startswith(_CORO) and not file.startswith(_DEMO)


def is_programs(code: CodeType) -> bool:
    """Return whether code is the program's, and neither the library's nor Python's."""
    return not is_ours(code) and not code.co_filename.startswith(_PYTHON)


def _is_plain(value: object) -> bool:
    kind = type(value)
    if kind is int:
        return value.bit_length() <= BITS  # type: ignore[attr-defined, no-any-return]
    return kind in PLAIN
