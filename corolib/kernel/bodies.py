"""What a task can be made of: generators and coroutines, new ones, and how one is closed for good.

Knows no task. Imports from corolib the words, and the wording of one complaint.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from types import CoroutineType, FunctionType, GeneratorType
from typing import Any

from corolib.kernel.diagnostics import not_runnable
from corolib.kernel.frames import CO_COROUTINE, CO_GENERATOR
from corolib.kernel.safely import is_a, name_of
from corolib.kernel.waits import DEBUG, PendingCall, forgive

CLOSINGS = 100  # yields that a body may do in `finally` while it is closed for good


def is_maker(f: Any) -> bool:
    """Return whether what `f` returns can only be a new body. The checks of `body_of` cost more."""
    return type(f) is FunctionType and f.__code__.co_flags & (CO_GENERATOR | CO_COROUTINE) != 0


def body_of(caller: str, f: Any, args: tuple[Any, ...]) -> Any:
    """Return what `f(*args)` returns, or `f` itself, if a task can be made of it; or raise."""
    if caller == "run":
        check_sources([f, *args])
    made = f(*args) if callable(f) else f
    if isinstance(made, PendingCall):
        made = made.body
    if isinstance(made, GeneratorType | CoroutineType):
        if is_begun(made):
            raise RuntimeError(
                f"{caller}() got {name_of(made)}(), which was started before: make a new one"
            )
    elif not (hasattr(made, "send") and hasattr(made, "throw") and hasattr(made, "close")):
        raise TypeError(not_runnable(caller, f, made))
    if args and not callable(f):
        raise TypeError(f"{caller}() got a started call and arguments: write `{caller}(f, x)`")
    return made


def check_sources(things: list[Any]) -> None:
    """In debug mode, warn of calls in the sources of functions that make a generator and drop it.

    It is done where a run begins, and not in a step: to read the sources takes a while. Who has
    become another user may not read the library's any more: that is no reason to end a run.
    """
    if not DEBUG:
        return
    with suppress(ImportError):
        from corolib.advice.dropped import warn_of_dropped_calls

        warn_of_dropped_calls([each.body if is_a(each, PendingCall) else each for each in things])


def is_begun(body: Any) -> bool:
    """Return whether a generator or coroutine has been stepped before, or is over.

    One that has not begun refuses any value but None, and stays as it is. Its frame would say it
    too, but to ask for a frame makes an object of 176 bytes, which stays as long as the task.
    """
    if isinstance(body, GeneratorType):
        suspended = body.gi_suspended
    elif isinstance(body, CoroutineType):
        suspended = body.cr_suspended
    else:
        return False
    if suspended:
        return True
    try:
        body.send(body)
    except TypeError:
        return False
    except Exception:
        pass
    return True


def close_for_good(body: Any) -> None:
    """Close a body, again after each `yield` in its `finally` blocks: that is a RuntimeError."""
    forgive(body)  # one that has not begun was not forgotten by the program
    for _ in range(CLOSINGS):
        try:
            body.close()
            return
        except RuntimeError as exc:
            if getattr(body, "gi_frame", getattr(body, "cr_frame", None)) is None:
                if is_ignored(exc):  # by one that it waited for
                    return
                raise  # it is over: the error is its own


def is_ignored(error: BaseException | None) -> bool:
    """Return whether Python says that a generator or coroutine yields instead of being closed."""
    return type(error) is RuntimeError and str(error).endswith("ignored GeneratorExit")


class Quietly:
    """For a block that closes bodies and drops them. One that nothing can close is known by then.

    Python tries once more when it is dropped, and would say so. If a second Ctrl-C leaves this in
    place, that does no harm.
    """

    def __enter__(self) -> None:
        self._before = sys.unraisablehook
        sys.unraisablehook = self

    def __exit__(self, *exc: object) -> None:
        if sys.unraisablehook is self:
            sys.unraisablehook = self._before

    def __call__(self, what: Any) -> None:
        if not is_ignored(what.exc_value):
            self._before(what)
