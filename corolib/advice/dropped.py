"""Calls that are statements, and make a generator that nobody runs: `greet(stream)` alone.

Of corolib's functions, and of those with `@waits`, debug mode notices it when it happens. Of other
generator functions Python says nothing. So when a run begins in debug mode, the sources of the
program are looked through once. (A trace looks at the code of tasks, when they have run: there it
is known what `self.door.open()` calls.) What is looked for is

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
from operator import itemgetter
from types import (
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any

from corolib.kernel.frames import CO_GENERATOR
from corolib.kernel.safely import attribute, class_module, is_a, module_of, name_of, plain
from corolib.kernel.source import corrected, lines_of

if TYPE_CHECKING:
    import ast

    Functions = list[ast.FunctionDef | ast.AsyncFunctionDef]

CALLED = {"abort", "cancel", "clear", "close", "kill", "release", "reset", "set", "shutdown"}
"""Methods that are meant to be called where they stand as a statement."""

DEPTH = 3
"""Calls in calls that are followed: what debug mode puts around them counts, too."""

seen: set[str] = set()  # files


def warn_of_dropped_calls(things: Iterable[Any]) -> None:
    """Warn of such statements in the modules of some functions and calls, and in what of the
    program's these use.
    """
    todo = [name for thing in things for name in _modules_of(thing)]
    while todo:
        name = todo.pop()
        module = sys.modules.get(name)
        file = plain(attribute(module, "__file__"))
        if not isinstance(module, ModuleType) or not file or file in seen:
            continue
        seen.add(file)
        if _is_a_programs(name, file):
            todo += [each for value in vars(module).values() for each in _modules_used(value)]
            look_at(vars(module), file)


def _modules_of(thing: Any, depth: int = 0) -> list[str]:
    """Return the names of the modules that a function is from, or a call and what it was given."""
    if not is_a(thing, (GeneratorType, CoroutineType)):
        return [_home_of(thing)]
    frame = thing.gi_frame if is_a(thing, GeneratorType) else thing.cr_frame
    if frame is None or depth > DEPTH:
        return []
    given = frame.f_locals.values()
    return [module_of(frame), *(m for each in given for m in _modules_of(each, depth + 1))]


def _home_of(thing: Any) -> str:
    """Return the name of the module of a function, or of the class of another thing.

    Nothing is asked of other things, which may answer anything.
    """
    if is_a(thing, partial):
        return _home_of(thing.func)
    plainly = is_a(thing, (FunctionType, MethodType, type))
    return plain(attribute(thing, "__module__")) if plainly else class_module(thing)


def _modules_used(value: Any) -> list[str]:
    """Return the name of the module that a function or a class is from, or of a module."""
    if is_a(value, ModuleType):
        return [name_of(value)]
    return [_home_of(value)] if is_a(value, (FunctionType, type)) else []


def _is_a_programs(name: str, file: str) -> bool:
    root = name.partition(".")[0]
    others = root == "corolib" or (root in sys.stdlib_module_names and root != "__main__")
    return not (others or "site-packages" in file or "dist-packages" in file)


def look_at(names: dict[str, Any], file: str) -> None:
    """Warn of what is wrong in a file, whose names stand for these things."""
    import warnings

    found: list[tuple[str, int]] = []
    with suppress(Exception):  # clients may have no source, or one that cannot be parsed any more
        found = sorted(_texts(names, file), key=itemgetter(1))
    for text, lineno in found:
        warnings.warn_explicit(text, RuntimeWarning, file, lineno)


def _texts(names: dict[str, Any], file: str) -> Iterator[tuple[str, int]]:
    """Yield what is said of a file, and of which lines."""
    import ast

    lines = lines_of(file)
    for node, functions, thing in _statements(ast.parse("".join(lines)).body, names, [], None):
        place = f"{os.path.basename(file)}:{node.lineno}"
        if isinstance(node, ast.Attribute):
            yield f"`{thing}` at {place} is not called. Write `{thing}()`", node.lineno
            continue
        word = "yield from" if functions else "run"
        if functions and isinstance(functions[-1], ast.AsyncFunctionDef):
            word = "await"
        position: Any = node.lineno, node.end_lineno, node.col_offset, node.end_col_offset
        right = corrected(lines, position, word)
        text = f"{thing}() at {place} makes a generator that never runs; did you forget `{word}`?"
        yield f"{text} Write `{right}`" if right else text, node.lineno


def _statements(
    body: list[ast.stmt], names: dict[str, Any], functions: Functions, owner: Any
) -> Iterator[tuple[ast.expr, Functions, str]]:
    """Yield what is wrong, the functions around it, and what it calls.

    Args:
        names: those of the module.
        owner: the class around it, None if there is none.
    """
    import ast

    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _statements(node.body, names, [*functions, node], owner)
                continue
            case ast.ClassDef(name=name):
                inner = None if functions or owner else names.get(name)
                yield from _statements(node.body, names, functions, inner)
                continue
            case ast.Expr(value=ast.Attribute(attr=attr) as thing) if attr in CALLED:
                yield thing, functions, ast.unparse(thing)
            case ast.Expr(value=thing) | ast.If(test=thing) | ast.While(test=thing):
                while isinstance(thing, ast.UnaryOp | ast.NamedExpr):
                    thing = thing.operand if isinstance(thing, ast.UnaryOp) else thing.value
                if isinstance(thing, ast.Call) and _makes(thing.func, names, functions, owner):
                    yield thing, functions, ast.unparse(thing.func)
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, field, []), names, functions, owner)
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _statements(part.body, names, functions, owner)


def _makes(func: ast.expr, names: dict[str, Any], functions: Functions, owner: Any) -> bool:
    """Return whether what is called is known to be a generator function."""
    import ast
    import inspect

    match func:
        case ast.Name(id=name):
            for function in reversed(functions):
                bound = [node for each, node in _bound_in(function) if each == name]
                if bound:
                    return len(bound) == 1 and _is_generator_function(bound[0])
            found = names.get(name)
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=attr) if owner:
            found = inspect.getattr_static(owner, attr, None)
        case ast.Attribute(value=ast.Name(id=name), attr=attr):
            if any(name == each for function in functions for each, _ in _bound_in(function)):
                return False
            found = inspect.getattr_static(names.get(name), attr, None)
        case _:
            return False
    found = attribute(found, "__func__") or found
    return type(found) is FunctionType and found.__code__.co_flags & CO_GENERATOR != 0


def _bound_in(function: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield the names that a function may give to something of its own, and where it does so."""
    import ast

    for node in ast.walk(function):
        match node:
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name, node
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) if node is not function:
                yield name, node
            case ast.alias(name=name, asname=other):
                yield other or name, node


def _is_generator_function(node: ast.AST) -> bool:
    """Return whether something is a generator function, with nothing around it."""
    import ast

    if not isinstance(node, ast.FunctionDef) or node.decorator_list:
        return False
    todo: list[ast.AST] = [*node.body]
    for each in todo:
        if isinstance(each, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(each)
    return False
