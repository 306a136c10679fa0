"""Marks for functions and classes: `@waits`, `@public`, and the type `Documented`.

`@waits` marks a generator function that is called with `yield from`. `await` works with it too,
and in debug mode a call that never runs is noticed. `@public` marks what `corolib` exports, and
`Documented` lets `dir()` show what is meant for programs.

How tasks run such functions is not known here: nothing else is imported from corolib.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, ForwardRef, ParamSpec, TypeVar

from corolib.kernel.safely import brief

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")

DEBUG = sys.flags.dev_mode or os.environ.get("COROLIB_DEBUG", "0") not in ("", "0")
"""Debug mode, decided at import: `python -X dev`, or COROLIB_DEBUG=1 in the environment."""


TRACE = os.environ.get("COROLIB_TRACE") or None
"""The default of `run(trace=)`, decided at import: where a trace of each run goes."""


def public(thing: T) -> T:
    """Let a class or a function that `corolib` exports say so: its module is `corolib`.

    A traceback then shows the name that programs import, and a file may move. The price is that
    `inspect.getsource()` does not find such a class. The annotations of a class say which module
    they are from: `typing.get_type_hints()` looks up their names there.
    """
    if isinstance(thing, type) and (hints := thing.__annotations__):
        thing.__annotations__ = {
            name: ForwardRef(
                str(getattr(hint, "__forward_arg__", hint)),
                is_argument=False,
                module=thing.__module__,
                is_class=True,
            )
            for name, hint in hints.items()
        }
    thing.__module__ = "corolib"
    return thing


class Documented(type):
    """The type of public classes that other modules of the library use as well.

    `dir()` of one shows what `__documented__` names, and no working fields; of a subclass, all its
    own names too.
    """

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> Documented:
        if "__documented__" in namespace:
            namespace["__dir__"] = _dir_of_instance
        return super().__new__(cls, name, bases, namespace, **options)

    def __dir__(cls) -> list[str]:
        documented = [each for each in cls.__mro__ if "__documented__" in vars(each)]
        ours = {base for each in documented for base in each.__mro__}
        names = {name for name in super().__dir__() if name.startswith("__")}
        names.update(*(vars(each)["__documented__"].split() for each in documented))
        names.update(*(vars(each) for each in cls.__mro__ if each not in ours))
        return sorted(names)


def _dir_of_instance(self: object) -> list[str]:
    return sorted({*dir(type(self)), *getattr(self, "__dict__", ())})


class Waiting(Generator[Any, Any, T_co], Awaitable[T_co]):
    """The type of what a `@waits` function returns: fit for `yield from` and for `await`."""


@public
def waits(function: Callable[P, Generator[Any, Any, T]]) -> Callable[P, Waiting[T]]:
    """Mark a generator function that is called with `yield from`, so that `await` works too.

    In debug mode a call whose result is dropped before it was run warns, with the line of the
    call: `RuntimeWarning: recv() was called at app.py:39 but never run; did you forget ...`.

    Args:
        function: a generator function, or one that returns a generator.

    Example:
        >>> import corolib
        >>> @waits
        ... def double(x):
        ...     yield
        ...     return 2 * x
        >>> def main():
        ...     return (yield from double(21))
        >>> corolib.run(main)
        42
    """
    marked: Any = types.coroutine(function)
    return _watch(marked) if DEBUG else marked


if DEBUG:
    # A mark may die when the interpreter ends. Then nothing is imported any more, and no file read.
    import atexit
    import linecache
    import warnings

    _files: set[str] = set()  # in which marked functions were called

    @atexit.register
    def _read_files() -> None:
        for filename in _files:
            linecache.getlines(filename)


class _Mark:
    """Is held by a generator that has not begun, and warns if it dies with it."""

    __slots__ = ("filename", "lineno", "name", "stepped")

    def __init__(self, name: str, filename: str, lineno: int) -> None:
        self.name, self.filename, self.lineno = name, filename, lineno
        self.stepped = False

    def __del__(self) -> None:
        if self.stepped:
            return
        line = ""
        with suppress(Exception):
            line = linecache.getline(self.filename, self.lineno).strip()
        place = f"{os.path.basename(self.filename)}:{self.lineno}"
        text = (
            f"{self.name}() was called at {place} but never run; did you forget `yield from`?"
            f"{f'  -> {brief(line)}' if line else ''}"
        )
        warnings.warn_explicit(text, RuntimeWarning, self.filename, self.lineno)


@types.coroutine
def watched(inner: Generator[Any, Any, T], mark: _Mark) -> Generator[Any, Any, T]:
    """Run `inner`, and tell the mark that it has begun. (Frames of this are not shown.)"""
    mark.stepped = True
    return (yield from inner)


def forgive(call: Any) -> None:
    """Close a generator or coroutine that was never begun, so that it does not complain."""
    prefix = "gi" if isinstance(call, types.GeneratorType) else "cr"
    frame = getattr(call, f"{prefix}_frame", None)
    if frame is None or getattr(call, f"{prefix}_suspended") or getattr(call, f"{prefix}_running"):
        return
    if frame.f_code is watched.__code__:
        frame.f_locals["mark"].stepped = True
    call.close()


def _watch(function: Callable[P, Any]) -> Callable[P, Any]:
    """Return `function` so that what it returns warns when it is dropped before its first step."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        caller = sys._getframe(1)
        while caller.f_back and caller.f_globals.get("__name__", "").startswith("corolib."):
            caller = caller.f_back
        name = function.__name__.lstrip("_")
        filename = caller.f_code.co_filename
        _files.add(filename)
        mark = _Mark(name, filename, caller.f_lineno)
        outer: Any = watched(function(*args, **kwargs), mark)
        outer.__name__, outer.__qualname__ = function.__name__, function.__qualname__
        return outer

    return call
