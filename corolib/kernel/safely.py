"""What is asked of the program's objects to report on them, and what is written to its exceptions.

All of it may fail: a `__repr__` that raises, a frozen exception that takes no note, a proxy that
raises whatever one asks it. And a text may be as long as what it shows is large. The library asks
in order to report something else, and must not fail with it. So it asks here, and nowhere else.

Imports nothing else from corolib.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

LONGEST = 100  # characters of a repr in a message
LONGEST_TOLD = 300  # and of what an exception says, which is a message already

# What an exception's class says of `__traceback__` and the like, and a `__setattr__` that refuses,
# do not count here: these are the ways of the interpreter itself, which cannot fail.
_trace = vars(BaseException)["__traceback__"]
_context = vars(BaseException)["__context__"]
# And what a metaclass says of `__name__`, and a subclass of `str` of its text.
_name = vars(type)["__name__"]
_module = vars(type)["__module__"]
_text = str.__str__


def brief(thing: object) -> str:
    """Return a short repr, also of a thing whose repr fails."""
    kind = type(thing)
    try:
        if kind is str or kind is bytes or kind is bytearray:
            thing = thing[: LONGEST + 1]  # type: ignore[index]
        text = repr(thing)
    except Exception:
        text = f"a {class_name(thing)} (whose repr fails)"
    return _cut(text, LONGEST)


def told(error: BaseException) -> str:
    """Return what an exception says, as the last line of its traceback does, but for its length."""
    kind = class_name(error)
    try:
        text = str(error)
    except Exception:
        text = "(whose str fails)"
    return _cut(f"{kind}: {text}" if text else kind, LONGEST_TOLD)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def name_of(f: object, otherwise: str | None = None, *, which: str = "__name__") -> str:
    """Return the name of a function, or of that in a `partial`; else `otherwise`, or its kind."""
    for each in (f, attribute(f, "func")):
        if name := plain(attribute(each, which)):
            return name
    return otherwise or class_name(f)


def plain(name: object) -> str:
    """Return a name as no more than a string; nothing if it is none.

    It may be of a subclass, whose methods fail.
    """
    return _text(name) if is_a(name, str) else ""


def class_name(thing: object) -> str:
    """Return the name of the class of a thing."""
    return plain(_name.__get__(type(thing)))


def class_module(thing: object) -> str:
    """Return the name of the module of the class of a thing; of a class without one, nothing."""
    return plain(_module.__get__(type(thing)))


def is_a(thing: object, kind: type | tuple[type, ...]) -> bool:
    """Return whether a thing is of a kind. `isinstance` asks the thing itself, too."""
    return issubclass(type(thing), kind)


def kind_of(thing: object, kinds: Iterable[type]) -> Any:
    """Return the first of some classes of which a thing is, or from which its own is derived."""
    return next((kind for kind in kinds if is_a(thing, kind)), None)


def attribute(thing: object, name: str) -> Any:
    """Return an attribute of a thing, None if it has none or fails to say."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def note(error: BaseException, text: str) -> None:
    """Add a note to an exception, if that can be done."""
    with suppress(Exception):
        error.add_note(text)


def trace_of(error: BaseException) -> TracebackType | None:
    """Return the traceback of an exception."""
    return _trace.__get__(error)  # type: ignore[no-any-return]


def with_trace(error: E, trace: TracebackType | None) -> E:
    """Give an exception another traceback, and return it."""
    _trace.__set__(error, trace)
    return error


def context_of(error: BaseException) -> BaseException | None:
    """Return the exception that was being handled when this one was raised."""
    return _context.__get__(error)  # type: ignore[no-any-return]


def set_context(error: BaseException, context: BaseException | None) -> None:
    """Let another exception be the one that was being handled."""
    _context.__set__(error, context)


def module_of(frame: FrameType) -> str:
    """Return the name of the module whose code runs in a frame; of code without one, nothing."""
    return plain(frame.f_globals.get("__name__"))


class Block(Generic[T]):
    """A `with` block that is made of two calls.

    One that `contextlib.contextmanager` makes writes to the exception that leaves it.
    """

    def __init__(self, begin: Callable[[], T], end: Callable[[], object]) -> None:
        self._begin = begin
        self._end = end

    def __enter__(self) -> T:
        return self._begin()

    def __exit__(self, *_: object) -> None:
        self._end()
