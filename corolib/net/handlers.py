"""Whether what a server was given can be its handler: asked when it is made.

    check_handler("serve_tcp", echo, STREAM)        TypeError names `echo`, its line, and the cure

Else the first client would find out. How many arguments a function takes, and whether it can return
anything, is read from its code. Of what else can be called nothing is known before it is called.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Generator
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

from corolib.kernel import brief, forgive, function_at, name_of

# Flags of code, as in `inspect`.
VARARGS, GENERATOR, COROUTINE, ASYNC_GENERATOR = 0x04, 0x20, 0x80, 0x200


class Kind(NamedTuple):
    """What a handler has to be, in words; what it is called with; whether it has to wait."""

    what: str
    arguments: tuple[str, ...]
    hint: str
    waits: bool


STREAM = Kind(
    "a generator function of one stream",
    ("stream",),
    "the stream is read and written, and `stream.peer` is who has connected",
    True,
)
DATAGRAM = Kind(
    "a function of a datagram and a sender",
    ("data", "sender"),
    "what it returns is the answer",
    False,
)


def check_handler(caller: str, handler: Any, kind: Kind) -> None:
    """Raise TypeError if a handler is none of that kind, as far as can be seen."""
    if not callable(handler):
        text = f"{caller}() got {brief(handler)}: give {kind.what}"
        if isinstance(handler, Generator | Coroutine):
            name = name_of(handler)
            text = (
                f"{caller}() got the call {name}(...): give the function, `{caller}({name}, ...)`"
            )
            forgive(handler)
        raise TypeError(text)
    if kind.waits and isinstance(handler, type) and not hasattr(handler, "send"):
        raise TypeError(
            f"{caller}() got the class {name_of(handler)}: give {kind.what}, or the method of an "
            f"object, as `{name_of(handler)}().handle` may be"
        )
    function, bound = handler, 0
    if type(function) is MethodType:
        function, bound = function.__func__, 1
    if type(function) is not FunctionType:
        return
    takes = _arguments(function, bound)
    if not takes.least <= len(kind.arguments) <= takes.most or takes.keywords:
        raise TypeError(
            f"{caller}() calls {function_at(handler)} with ({', '.join(kind.arguments)}), but it "
            f"takes ({', '.join(takes.names)}): {_cure(handler, takes, kind)}"
        )
    code = function.__code__
    if code.co_flags & ASYNC_GENERATOR:
        raise TypeError(
            f"{caller}() got {function_at(handler)}, which has both `async` and `yield`: it is one "
            "or the other. Use `await` instead of `yield`"
        )
    if kind.waits and not code.co_flags & (GENERATOR | COROUTINE) and _returns_nothing(code):
        raise TypeError(
            f"{caller}() got {function_at(handler)}: it has no `yield`, so it is not a generator "
            "function. What waits has `yield from` in front: "
            "`data = yield from stream.recv(65536)`"
        )


# How other libraries call what a stream is and has: a handler that takes these needs no more.
THEIRS = {
    *("address", "addr", "client_addr", "client_address", "peer", "peername", "sender"),
    *("writer", "w", "client_writer"),
}


def _cure(handler: Any, takes: _Arguments, kind: Kind) -> str:
    """Return what to do about a handler that takes something else than it is given."""
    name, given = name_of(handler), kind.arguments
    bound = type(handler) is MethodType
    if takes.names[:1] == ("self",):
        owner = name_of(handler, which="__qualname__").rpartition(".")[0].rpartition(".")[2]
        return f"give the method of an object, as `{owner}().{name}` is"
    more = [*takes.names[len(given) : takes.least], *takes.keywords]
    if more and name.isidentifier() and not THEIRS & set(more):
        rest = ", ".join(f"{each}=..." for each in more)
        if given[0] in more:  # which is not the first
            rest = ", ".join(each for each in takes.names[: takes.least] if each not in given)
        return f"give it the rest by `partial({name}, {rest})`, of functools"
    right = f"lambda {', '.join(given)}: ..."
    if name.isidentifier():
        right = f"def {name}({', '.join(('self', *given) if bound else given)}): ..."
    return f"{kind.hint}. Write `{right}`"


class _Arguments(NamedTuple):
    """What a function takes: how many arguments, their names, and those that need a keyword."""

    least: int
    most: float
    names: tuple[str, ...]
    keywords: tuple[str, ...]


def _arguments(function: FunctionType, bound: int) -> _Arguments:
    code = function.__code__
    count = code.co_argcount
    more = code.co_varnames[count : count + code.co_kwonlyargcount]
    keywords = tuple(name for name in more if name not in (function.__kwdefaults__ or ()))
    least = count - len(function.__defaults__ or ()) - bound
    most = math.inf if code.co_flags & VARARGS else count - bound
    return _Arguments(least, most, code.co_varnames[bound:count] + keywords, keywords)


def _returns_nothing(code: CodeType) -> bool:
    """Return whether a function has no `return` with a value."""
    import dis

    before = None
    for each in dis.get_instructions(code):
        if each.opname in ("RETURN_VALUE", "RETURN_CONST"):
            value = before if each.opname == "RETURN_VALUE" else each
            if value is None or "CONST" not in value.opname or value.argrepr != "None":
                return False
        before = each
    return True
