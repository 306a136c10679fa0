"""Calls that are statements, and make a generator that nobody runs: `greet(stream)` alone.

Of corolib's functions, and of those with `@waits`, debug mode notices it when it happens, and of
`async def` Python does. Of other generator functions nothing is said. So when a run begins in debug
mode, the sources of the program are looked through once. A trace asks for what is wrong in the code
of its tasks: all of it, for there it may be seen before it happens. What is looked for is

    greet(stream)           greet() is a generator function: `yield from greet(stream)`
    if not greet(stream):   a generator is always true
    task.cancel             what does nothing without its call

Only what is certain is told of: a name that a function could have given to something else is passed
over. What is not the program's own, Python's and what is installed, is not looked at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from types import (
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any, NamedTuple

from corolib.kernel.frames import CO_COROUTINE, CO_GENERATOR, LIBRARY, variables_of
from corolib.kernel.safely import attribute, class_module, is_a, module_of, plain
from corolib.kernel.source import corrected, lines_of, tree_of

if TYPE_CHECKING:
    import ast

    # The functions around a statement, each with the names that it binds, and where.
    Functions = list[tuple[ast.FunctionDef | ast.AsyncFunctionDef, dict[str, list[ast.AST | None]]]]

CALLED = {"abort", "cancel", "clear", "close", "kill", "release", "reset", "set", "shutdown"}
"""Methods that are meant to be called where they stand as a statement."""

DEPTH = 3
"""Calls in calls that are followed: what debug mode puts around them counts, too."""

MARKS = f"{LIBRARY}kernel.waits"  # where `@waits` and `@opens` make another function of one

seen: set[str] = set()  # files that were warned of, if anything is wrong there
known: dict[str, list[Found]] = {}  # by file

# What a module has by now, whatever it says of its attributes. So one that is loaded when it is
# asked for the first of them is not loaded by this.
_names_of = vars(ModuleType)["__dict__"].__get__


class Found(NamedTuple):
    """A statement that does nothing.

    Attributes:
        thing: what it calls.
        kind: what that is: "generator", "marked", "coroutine"; or "method", which is not called.
        cure: what to write.
        text: all of it, in words.
    """

    line: int
    thing: str
    kind: str
    cure: str
    text: str


def warn_of_dropped_calls(things: Iterable[Any]) -> None:
    """Warn of such statements in the modules of some functions and calls, and in what of the
    program's these use.
    """
    todo = [name for thing in things for name in _modules_of(thing)]
    while todo:
        name = todo.pop()
        names = _names_in(sys.modules.get(name))
        file = plain(names.get("__file__"))
        if not file or file in seen:
            continue
        seen.add(file)
        if _is_a_programs(name, file):
            todo += [each for value in names.values() for each in _modules_used(value)]
            look_at(names, file)


def _names_in(module: Any) -> dict[str, Any]:
    """Return what the names of a module stand for; none if it is no module."""
    return dict(_names_of(module) or {}) if is_a(module, ModuleType) else {}


def _modules_of(thing: Any, depth: int = 0) -> list[str]:
    """Return the names of the modules that a function is from, or a call and what it was given."""
    if not is_a(thing, (GeneratorType, CoroutineType)):
        return [_home_of(thing)]
    frame = thing.gi_frame if is_a(thing, GeneratorType) else thing.cr_frame
    if frame is None or depth > DEPTH:
        return []
    given = variables_of(frame).values()
    return [module_of(frame), *(m for each in given for m in _modules_of(each, depth + 1))]


def _home_of(thing: Any) -> str:
    """Return the name of the module of a function, or of the class of another thing.

    Nothing is asked of other things, which may answer anything.
    """
    if is_a(thing, partial):
        thing = attribute(thing, "func")
    plainly = is_a(thing, (FunctionType, MethodType, type))
    return plain(attribute(thing, "__module__")) if plainly else class_module(thing)


def _modules_used(value: Any) -> list[str]:
    """Return the name of the module that a function or a class is from, or of a module."""
    if is_a(value, ModuleType):
        return [plain(_names_in(value).get("__name__"))]
    return [_home_of(value)] if is_a(value, (FunctionType, type)) else []


def _is_a_programs(name: str, file: str) -> bool:
    root = name.partition(".")[0]
    others = root == "corolib" or (root in sys.stdlib_module_names and root != "__main__")
    return not (others or "site-packages" in file or "dist-packages" in file)


def look_at(names: dict[str, Any], file: str) -> None:
    """Warn of what is wrong in a file, whose names stand for these things."""
    import warnings

    for found in found_in(names, file):
        if found.kind in ("generator", "method"):  # others are told of when it happens
            warnings.warn_explicit(found.text, RuntimeWarning, file, found.line)


def found_in(names: dict[str, Any], file: str) -> list[Found]:
    """Return what is wrong in a file, whose names stand for these things. It is read once."""
    found = known.get(file)
    if found is None:
        found = []
        with suppress(Exception):  # there may be no source, or one that cannot be parsed any more
            if _is_a_programs(plain(names.get("__name__")), file):
                found = sorted(_all_in(names, file))
        known[file] = found
    return found


def _all_in(names: dict[str, Any], file: str) -> Iterator[Found]:
    import ast

    lines = lines_of(file)
    for node, functions, kind in _statements(tree_of(lines).body, names, [], None):
        line, thing = node.lineno, ast.unparse(getattr(node, "func", node))
        place = f"{os.path.basename(file)}:{line}"
        if kind == "method":
            text = f"`{thing}` at {place} is not called. Write `{thing}()`"
            yield Found(line, thing, kind, f"{thing}()", text)
            continue
        word = "yield from" if functions else "run"
        if functions and isinstance(functions[-1][0], ast.AsyncFunctionDef):
            word = "await"
        call = f"spawn({ast.unparse(node)})" if (kind, word) == ("coroutine", "yield from") else ""
        position: Any = line, node.end_lineno, node.col_offset, node.end_col_offset
        right = corrected(lines, position, word, call)
        text = f"{thing}() at {place} makes a generator that never runs; did you forget `{word}`?"
        text = f"{text} Write `{right}`" if right else text
        yield Found(line, thing, kind, right or f"{word} {thing}(...)", text)


def _statements(
    body: list[ast.stmt], names: dict[str, Any], functions: Functions, owner: Any
) -> Iterator[tuple[ast.expr, Functions, str]]:
    """Yield what is wrong, the functions around it, and the kind of what it calls.

    Args:
        names: those of the module.
        owner: the class around it, None if there is none.
    """
    import ast

    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                inside = [*functions, (node, bound_in(node))]
                yield from _statements(node.body, names, inside, owner)
                continue
            case ast.ClassDef(name=name):
                inner = None if functions or owner else names.get(name)
                yield from _statements(node.body, names, functions, inner)
                continue
            case ast.Expr(value=ast.Attribute(attr=attr) as thing) if attr in CALLED:
                yield thing, functions, "method"
            case ast.Expr(value=thing) | ast.If(test=thing) | ast.While(test=thing):
                while isinstance(thing, ast.UnaryOp | ast.NamedExpr):
                    thing = thing.operand if isinstance(thing, ast.UnaryOp) else thing.value
                if isinstance(thing, ast.Call):
                    kind = _kind_of(thing.func, names, functions, owner)
                    if kind:
                        yield thing, functions, kind
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, field, []), names, functions, owner)
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _statements(part.body, names, functions, owner)


def _kind_of(func: ast.expr, names: dict[str, Any], functions: Functions, owner: Any) -> str:
    """Return what kind of function is called, if it is known to be one that waits."""
    import ast
    import inspect

    match func:
        case ast.Name(id=name):
            for _, own in reversed(functions):
                if bound := own.get(name):
                    return _kind_of_node(bound[0]) if len(bound) == 1 else ""
            found = names.get(name)
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=attr) if owner:
            found = inspect.getattr_static(owner, attr, None)
        case ast.Attribute(value=ast.Name(id=name), attr=attr):
            if any(name in own for _, own in functions):
                return ""
            found = inspect.getattr_static(names.get(name), attr, None)
        case _:
            return ""
    found = attribute(found, "__func__") or found
    if type(found) is not FunctionType:
        return ""
    if found.__globals__.get("__name__") == MARKS and "__wrapped__" in vars(found):
        return "marked"
    flags = found.__code__.co_flags
    return "generator" if flags & CO_GENERATOR else "coroutine" if flags & CO_COROUTINE else ""


def bound_in(function: ast.AST) -> dict[str, list[ast.AST | None]]:
    """Return the names that a function may give to something of its own, and where it does so: None
    for what has the name in a scope within it alone.
    """
    import ast

    scopes = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    found: dict[str, list[ast.AST | None]] = {}
    todo = [(each, True) for each in ast.iter_child_nodes(function)]
    for node, own in todo:
        match node:
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                pass
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                pass
            case ast.ClassDef(name=name) | ast.ExceptHandler(name=name):
                pass
            case ast.MatchAs(name=name) | ast.MatchStar(name=name) | ast.MatchMapping(rest=name):
                pass
            case ast.alias(name=path, asname=other):
                name = other or path.partition(".")[0]
            case _:
                name = None
        if name:
            found.setdefault(name, []).append(node if own else None)
        own = own and not isinstance(node, scopes)
        todo += [(each, own) for each in ast.iter_child_nodes(node)]
    return found


def _kind_of_node(node: ast.AST | None) -> str:
    """Return what kind of function something is, if it waits and nothing is around it."""
    import ast

    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.decorator_list:
        return ""
    is_async = isinstance(node, ast.AsyncFunctionDef)
    todo: list[ast.AST] = [*node.body]
    for each in todo:
        if isinstance(each, ast.Yield | ast.YieldFrom):
            return "" if is_async else "generator"
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(each)
    return "coroutine" if is_async else ""
