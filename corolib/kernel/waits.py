"""Marks for functions and classes: `@waits`, `@opens`, `@asks`, `@public`, `Documented`.

`@waits` marks a generator function that is called with `yield from`. `await` works with it too,
and in debug mode a call that never runs is noticed. `@opens` marks one whose result has methods:
what the call returns says what was forgotten if these are looked for there. `@asks` marks a method
that is never meant without its call. `@public` marks what `corolib` exports, and the metaclass
`Documented` lets `dir()` show what is meant for programs.

How tasks run such functions is not known here. How a line should be is in `source.py`.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import nullcontext
from typing import Any, ForwardRef, ParamSpec, TypeVar

from corolib.kernel.safely import brief, class_name, module_of, name_of
from corolib.kernel.source import (
    called_at,
    corrected_at,
    is_given_up,
    is_next_in,
    line_of,
    lines_of,
    loop_over,
    ticked_at,
    word_for,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")


def _debug_mode() -> bool:
    """Return whether somebody looks who wants to be told of mistakes: at a terminal, or at tests.

    pytest captures stderr, so there its plugin is the sign; COROLIB_DEBUG="" takes that away.
    """
    asked = os.environ.get("COROLIB_DEBUG")
    if sys.flags.optimize or asked == "0":
        return False
    if asked is None and "pytest_corolib" in sys.modules:
        return True
    return bool(asked) or sys.flags.dev_mode or os.isatty(2)


DEBUG = _debug_mode()
"""Debug mode, decided at import: on if stderr is a terminal, under pytest with corolib's plugin,
with `python -X dev`, and with COROLIB_DEBUG=1 in the environment; never with `python -O` or
COROLIB_DEBUG=0."""


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


def asks(function: F) -> F:
    """Mark a method that asks how something stands: `event.is_set()`.

    Without the call, `if event.is_set:`, it would be true at all times. So its truth is refused.
    """
    return _Asks(function)  # type: ignore[return-value]


class _Asks:
    """What stands for such a method in the class."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function
        self.__doc__ = function.__doc__
        self.__name__, self.__qualname__ = function.__name__, function.__qualname__

    def __get__(self, thing: object, kind: type | None = None) -> Any:
        return self if thing is None else _Question(self.__wrapped__, thing)


class _Question:
    """A method that asks, of one object."""

    __slots__ = ("__self__", "_function")

    def __init__(self, function: Callable[[Any], Any], thing: object) -> None:
        self._function = function
        self.__self__ = thing

    def __call__(self) -> Any:
        return self._function(self.__self__)

    def __bool__(self) -> bool:
        raise TypeError(f"{self} is a method: write `{self._function.__name__}()`")

    def __repr__(self) -> str:
        return f"{self._function.__name__} of {brief(self.__self__)}"


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
        names = {name for name in super().__dir__() if name.startswith("__")} - {"__documented__"}
        names.update(*(vars(each)["__documented__"].split() for each in documented))
        names.update(*(vars(each) for each in cls.__mro__ if each not in ours))
        return sorted(names)


def _dir_of_instance(self: object) -> list[str]:
    return sorted({*dir(type(self)), *getattr(self, "__dict__", ())})


class Waiting(Generator[Any, Any, T_co], Awaitable[T_co]):
    """The type of what a `@waits` function returns: fit for `yield from` and for `await`."""

    __slots__ = ()


@public
def waits(function: Callable[P, Generator[Any, Any, T]]) -> Callable[P, Waiting[T]]:
    """Mark a generator function that is called with `yield from`, so that `await` works too.

    In debug mode a call whose result is dropped before it was run warns, once for each line of
    code: `RuntimeWarning: recv() was called at app.py:39 but never run; did you forget ...`.

    Args:
        function: a generator function, or one that returns a generator.

    Example:
        >>> import corolib
        >>> @corolib.waits
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


def opens(function: Callable[P, Generator[Any, Any, T]]) -> Callable[P, Waiting[T]]:
    """Mark a generator function as `@waits` does, whose result is used by its attributes.

    So are `open_tcp()`, `listener.accept()`, `run_process()`. What a call returns is not the
    result. If it is used as if it were, it raises an error that shows the right line, in every
    mode. That costs some microseconds for a call, which opening something is worth.
    """
    made: Any = _watch(types.coroutine(function)) if DEBUG else function

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> PendingCall[T]:
        return PendingCall(function.__name__, made(*args, **kwargs), sys._getframe(1))

    return call


class PendingCall(Waiting[T_co]):
    """What a call of an `@opens` function returns: the call, which has not been run yet.

    Attributes:
        body: the generator that does it.
    """

    __slots__ = ("__name__", "_site", "body")

    def __init__(self, name: str, body: Generator[Any, Any, T_co], frame: types.FrameType) -> None:
        self.__name__ = name
        self.body = body
        self._site = frame.f_code, frame.f_lasti

    def __iter__(self) -> Generator[Any, Any, T_co]:
        return self.body

    def __await__(self) -> Generator[Any, Any, T_co]:
        return (yield from self.body)

    def send(self, value: Any) -> Any:
        return self.body.send(value)

    def throw(self, *error: Any) -> Any:
        return self.body.throw(*error)

    def close(self) -> None:
        self.body.close()

    def __getattr__(self, name: str) -> Any:
        error = AttributeError(self._complaint(f"it has no {brief(name)} yet"))
        error.name, error.obj = name, self
        raise error

    def __enter__(self) -> T_co:
        raise TypeError(self._complaint("there is nothing yet that `with` could close"))

    def __exit__(self, *exc: object) -> None:
        """Is never called; without it `with` would not ask `__enter__`."""

    def __aenter__(self) -> T_co:
        raise TypeError(self._complaint("there is nothing yet that `with` could close", True))

    __aexit__ = __exit__

    def _complaint(self, what: str, entered: bool = False) -> str:
        """Return what is wrong. `entered`: it is in an `async with`, and what it gives belongs in a
        `with`.
        """
        forgive(self)  # this error is enough
        word = word_for(self._site[0])
        right = corrected_at(*self._site) or f"{word} {self.__name__}(...)"
        if entered:
            begin = right.find(f"({word} ")
            right = f"with {right[begin:]}" if begin >= 0 else f"with ({right}) as it:"
        return f"{self.__name__}() was called without `{word}`, so {what}. Write `{right}`"

    def __repr__(self) -> str:
        return f"<{self.__name__}(), which has not been run: write `yield from` in front of it>"


SKIPPED = {PendingCall.__await__.__code__}
"""The code of generators that do nothing but run another one: their frames are not shown."""


class _Mark:
    """Is held by a generator, and knows whether that has begun."""

    __slots__ = ("code", "lasti", "name", "stepped")

    def __init__(self, name: str, code: types.CodeType, lasti: int) -> None:
        self.name, self.code, self.lasti = name, code, lasti
        self.stepped = False

    def refuse_loop(self, frame: types.FrameType) -> None:
        """Raise TypeError if what steps the generator takes its traps for items, as `for` does."""
        code = frame.f_code
        if code is self.code and code.co_code[frame.f_lasti] in TAKE_ITEMS:
            right = corrected_at(code, self.lasti) or f"yield from {self.name}()"
            raise TypeError(f"{self.name}() waits, and gives no items. Write `{right}`")


class _WarningMark(_Mark):
    """Warns if it dies with a generator that has not begun.

    A second Ctrl-C that were raised here would be ignored. So it is put off; and a line warns once,
    its later calls have marks at whose end no line of Python runs.
    """

    __slots__ = ()

    def __del__(self) -> None:
        if not self.stepped:
            with _block[0]:
                frame = sys._getframe().f_back
                if not is_given_up(self.code, self.lasti, frame) and not self._is_left_over(frame):
                    self._warn()

    def _is_left_over(self, frame: types.FrameType | None) -> bool:
        """Return whether it is the last that a loop took, which may have been left without it: it
        does not make room for the next one.
        """
        in_a_loop = self.code.co_code[self.lasti] == FOR_ITER
        return in_a_loop and not is_next_in(self.code, self.lasti, frame)

    def _warn(self) -> None:
        filename, lineno = self.code.co_filename, line_of(self.code, self.lasti)
        line = self.name, filename, lineno
        if line in _told:
            return
        _told.add(line)
        place = f"{os.path.basename(filename)}:{lineno}"
        if self.code.co_code[self.lasti] == FOR_ITER:
            text = f"the loop at {place} does not wait for each {self.name}, as it has to."
            right = ticked_at(self.code, self.lasti, "missed" if self.name == "tick" else "value")
        else:
            text = (
                f"{self.name}() was called at {place} but never run; did you forget "
                f"`{word_for(self.code)}`?"
            )
            right = corrected_at(self.code, self.lasti)
            called = called_at(self.code, self.lasti).lstrip("[{(*")
            if called != self.name and hasattr(builtins, called):  # `list(map(queue.put, items))`
                right = f"for item in items: {word_for(self.code)} {self.name}(item)"
        if right:
            text += f" Write `{right}`"
        warnings.warn_explicit(text, RuntimeWarning, filename, lineno)


_told: set[tuple[str, str, int]] = set()  # functions, and the lines that have warned of them
_block: list[Any] = [nullcontext()]


def warn_within(block: Any) -> None:
    """Let the warnings be written in a `with` block: one in which no Ctrl-C is raised."""
    _block[0] = block


if DEBUG:
    # A mark may die when the interpreter ends. Then nothing is imported any more, and no file read.
    import atexit
    import builtins
    import warnings
    from opcode import opmap

    TAKE_ITEMS = {
        opmap[name] for name in ("FOR_ITER", "UNPACK_SEQUENCE", "UNPACK_EX", "LIST_EXTEND")
    }

    FOR_ITER, POP_TOP = opmap["FOR_ITER"], opmap["POP_TOP"]
    CALLS = {number for name, number in opmap.items() if name.startswith("CALL")}

    _files: set[str] = set()  # in which marked functions were called
    lines_of("")  # which imports now: Python 3.11 forgets at an import that Ctrl-C ends a program

    @atexit.register
    def _read_files() -> None:
        for filename in _files:
            lines_of(filename)


def notice_dropped(kind: type) -> None:
    """In debug mode, warn of a statement that calls a class and does not `yield` what that makes:
    `Sleep(1)`. It is dropped by the instruction behind the call.
    """
    if DEBUG:
        kind.__del__ = _warn_of_statement  # type: ignore[attr-defined]


class Steps(Iterator[Waiting[T]]):
    """What gives one wait after the other to a loop: `for step in as_completed(f(), g()):`.

    Args:
        maker: the name of the function that returns this, one of `LOOPS`.
        make: returns the next wait, or raises StopIteration.
    """

    __slots__ = ("_make", "maker")

    def __init__(self, maker: str, make: Callable[[], Waiting[T]]) -> None:
        self.maker, self._make = maker, make

    def __next__(self) -> Waiting[T]:
        return self._make()


def _warn_of_statement(made: Any) -> None:
    frame = sys._getframe().f_back
    if frame is None:  # the interpreter ends
        return
    code, lasti = frame.f_code, frame.f_lasti
    if code.co_code[lasti] != POP_TOP or module_of(frame).startswith("corolib."):
        return
    before = code.co_code[lasti - 2 : 0 : -2]
    if next((each for each in before if each), None) not in CALLS:
        return
    loop = isinstance(made, Steps)
    name, lineno = made.maker if loop else class_name(made), line_of(code, lasti)
    line = name, code.co_filename, lineno
    with _block[0]:
        # What is no call of the class gives what it has kept: `waits.pop()`.
        if line not in _told and called_at(code, lasti) == name:
            _told.add(line)
            place = f"{os.path.basename(code.co_filename)}:{lineno}"
            word = word_for(code)
            if loop:
                text = f"{name}() was called at {place} without a loop, so nothing waits"
                shown = corrected_at(code, lasti, "for")
                right = loop_over(name, shown[4:], word) if shown.startswith("for ") else ""
            else:
                text = f"{name}(...) was made at {place} and not yielded, so nothing waits"
                right = corrected_at(code, lasti, "await" if word == "await" else "yield")
                right = f"def main(): {right}" if right and word == "run" else right
            text += f". Write `{right}`" if right else ""
            warnings.warn_explicit(text, RuntimeWarning, *line[1:])


@types.coroutine
def watched(inner: Generator[Any, Any, T], mark: _Mark) -> Generator[Any, Any, T]:
    """Run `inner`, and tell the mark that it has begun. (Frames of this are not shown.)"""
    mark.stepped = True
    mark.refuse_loop(sys._getframe(1))
    return (yield from inner)


SKIPPED.add(watched.__code__)


def forgive(call: Any) -> None:
    """Close a generator or coroutine that was never begun, so that it does not complain."""
    if isinstance(call, PendingCall):
        call = call.body
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
        inner = function(*args, **kwargs)
        caller = sys._getframe(1)
        while caller.f_back and module_of(caller).startswith("corolib."):
            caller = caller.f_back
        _files.add(caller.f_code.co_filename)
        name = name_of(function).lstrip("_")
        line = name, caller.f_code.co_filename, caller.f_lineno
        kind = _Mark if line in _told else _WarningMark
        mark = kind(name, caller.f_code, caller.f_lasti)
        outer: Any = watched(inner, mark)
        outer.__name__, outer.__qualname__ = function.__name__, function.__qualname__
        return outer

    return call
