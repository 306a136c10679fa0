"""What a task can be made of: generators and coroutines, new ones, and how one is closed for good.

Knows no task. Imports from corolib the words, and the wording of one complaint.
"""

from __future__ import annotations

from types import CoroutineType, FunctionType, GeneratorType
from typing import Any

from corolib.kernel.diagnostics import not_runnable
from corolib.kernel.frames import CO_COROUTINE, CO_GENERATOR

CLOSINGS = 100  # yields that a body may do in `finally` while it is being closed for good


def is_maker(f: Any) -> bool:
    """Return whether a call of `f` can only return a body that is new: nobody else has it.

    That is so of generator functions and of `async def`; the checks of `body_of` take longer.
    """
    return type(f) is FunctionType and f.__code__.co_flags & (CO_GENERATOR | CO_COROUTINE) != 0


def body_of(caller: str, f: Any, args: tuple[Any, ...]) -> Any:
    """Return what `f(*args)` returns, or `f` itself, if a task can be made of it; or raise."""
    made = f(*args) if callable(f) else f
    if isinstance(made, GeneratorType | CoroutineType):
        if is_begun(made):
            raise RuntimeError(
                f"{caller}() got {made.__name__}(), which was started before: make a new one"
            )
    elif not (hasattr(made, "send") and hasattr(made, "throw") and hasattr(made, "close")):
        raise TypeError(not_runnable(caller, f, made))
    if made is f and args:
        raise TypeError(f"{caller}() got a started call and arguments: write `{caller}(f, x)`")
    return made


def is_begun(body: Any) -> bool:
    """Return whether a generator or coroutine has been stepped before, or is over.

    One that has not begun refuses any value but None, and stays as it is. Its frame would say it
    too; but to ask for that makes an object of it, 176 bytes that stay as long as the task.
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
    except Exception:  # it runs, or is over
        pass
    return True


def close_for_good(body: Any) -> None:
    """Close a generator that was never to be closed from outside; its `finally` blocks run.

    Each `yield` in them answers one GeneratorExit with a RuntimeError, and asks for one more.
    """
    for _ in range(CLOSINGS):
        try:
            body.close()
            return
        except RuntimeError:
            continue
