"""The code around an error, read from its source: which calls are there, and what they call.

    for place in places(error): ...     the program's own functions, the innermost first

What was meant by it is not known here: that is in `mistakes.py`, `arguments.py` and `uses.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from types import CodeType, FrameType, FunctionType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

from corolib.kernel.frames import CO_GENERATOR, LIBRARY
from corolib.kernel.safely import attribute, class_name, module_of, plain, trace_of
from corolib.kernel.source import corrected, tree_of, word_for

if TYPE_CHECKING:
    import ast

TAKERS = {
    *("as_completed", "first", "first_success", "from_thread", "gather", "race", "run", "spawn"),
    *("start", "to_process", "to_thread"),
}
"""What is given a call, or a function with its arguments."""

FRAMES = 10  # of a traceback, the innermost, that are looked at
WRAPPERS = 10  # around a function that are looked into: an object may answer every attribute
READ = 64  # lines that are kept, so that one that fails again and again is read once


class Line:
    """A line of a function, read from its source, and what of the function it uses.

    Attributes:
        calls: the calls in it, or that made what it uses, each with the word in front of it, or
            nothing: "yield from", "await", "yield". For those that are given to `spawn()` and its
            like it is "given".
        uses: what is iterated, awaited or entered in it: the node that does, and the thing.
        things: the names and attributes in it, the longest first: `a.b.c`, `a.b`, `a`; without
            those that have a word in front of them.
        unpacked: the calls, by their `id`, that several names are assigned to: `a, b = f()`.
    """

    def __init__(self, code: CodeType, lineno: int) -> None:
        import ast
        import inspect
        import textwrap

        if code.co_name == "<module>":
            lines, first = inspect.findsource(code)[0], 0
        else:
            lines, first = inspect.getsourcelines(code)
        self.lines = textwrap.dedent("".join(lines)).splitlines()
        self.line = lineno - max(first - 1, 0)
        nodes = list(ast.walk(tree_of(self.lines)))
        before = {}
        used = set()
        self._around: dict[int, ast.AST] = {}  # what a call has in front of it: `yield from f()`
        self._assigned: dict[int, str] = {}  # what a call is assigned to
        self.unpacked: set[int] = set()
        for node in nodes:
            match node:
                case ast.YieldFrom() | ast.Await() | ast.Yield():
                    before[id(node.value)] = _WORDS[class_name(node)]
                    self._around[id(node.value)] = node
                case ast.Name(id=name, ctx=ast.Load(), lineno=self.line):
                    used.add(name)
                case ast.Assign(targets=[ast.Name(id=name), *_]):
                    self._assigned[id(node.value)] = name
                case ast.Assign(targets=[ast.Tuple() | ast.List(), *_]):
                    self.unpacked.add(id(node.value))
        found = [each for each in nodes if isinstance(each, ast.Call)]
        found.sort(key=lambda call: (call.lineno, call.col_offset))
        given = {id(arg) for call in found if name_in(call.func) in TAKERS for arg in call.args}
        self.calls = [
            (call, "given" if id(call) in given else before.get(id(call), ""))
            for call in found
            if self._has(call) or (call.lineno < self.line and self._assigned.get(id(call)) in used)
        ]
        self.uses = [
            (node, thing) for node in nodes for thing in _used_by(node) if self._has(thing)
        ]
        self.things: list[ast.expr] = [
            node
            for node in nodes
            if isinstance(node, ast.Name | ast.Attribute)
            if isinstance(node.ctx, ast.Load) and self._has(node) and id(node) not in before
        ]

    def _has(self, node: ast.expr) -> bool:
        return node.lineno <= self.line <= (node.end_lineno or node.lineno)

    def assigned_to(self, node: Any) -> str:
        """Return `x = ` if a call is assigned to `x`, with a word in front of it or without."""
        name = self._assigned.get(id(self._around.get(id(node), node)))
        return f"{name} = " if name else ""

    def are_beside(self, calls: list[Any]) -> bool:
        """Return whether calls stand in one row, none in another."""
        rows = {row for each in calls for row in (each.lineno, each.end_lineno)}
        ordered = sorted(calls, key=lambda each: each.col_offset)
        apart = all(a.end_col_offset <= b.col_offset for a, b in pairwise(ordered))
        return len(rows) == 1 and apart

    def with_words(self, calls: list[Any], word: str) -> str:
        """Return the line of the first of these calls, with a word in front of each.

        Args:
            calls: in their order; if there are several they stand in one line.
        """
        first, *others = calls
        lines, row, column = list(self.lines), first.lineno - 1, first.col_offset
        for call in reversed(others):
            line, end = lines[row].encode(), call.end_col_offset
            made = b"(%s %s)" % (word.encode(), line[call.col_offset : end])
            lines[row] = (line[: call.col_offset] + made + line[end:]).decode()
        return corrected(lines, (row + 1, first.end_lineno, column, first.end_col_offset), word)

    def with_text(self, node: Any, text: str = "", word: str = "") -> str:
        """Return the line of a node, with a word in front of that, or a text in its place."""
        position = (node.lineno, node.end_lineno, node.col_offset, node.end_col_offset)
        return corrected(self.lines, position, word, text)


_WORDS = {"YieldFrom": "yield from", "Await": "await", "Yield": "yield"}


def _used_by(node: ast.AST) -> list[ast.expr]:
    """Return what a node iterates, awaits or enters."""
    import ast

    match node:
        case ast.YieldFrom(value=thing) | ast.Await(value=thing):
            return [thing]
        case ast.For(iter=thing) | ast.AsyncFor(iter=thing):
            return [thing]
        case ast.With(items=items) | ast.AsyncWith(items=items):
            return [item.context_expr for item in items]
    return []


@lru_cache(READ)
def _line(code: CodeType, lineno: int) -> Line | None:
    """Return a line, None if there is no source. It costs a parse: clients may make it fail."""
    try:
        return Line(code, lineno)
    except (OSError, SyntaxError):
        return None


class Place:
    """The function in which an error was raised, or passed: its frame, and the line there."""

    def __init__(self, frame: FrameType, line: Line) -> None:
        self.frame = frame
        self.line = line
        self.word = word_for(frame.f_code)

    def value_of(self, node: ast.AST) -> Any:
        """Return what a name stands for, a constant, or an attribute that nothing has to be called
        for; None if that is not known.
        """
        import ast
        import inspect

        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                for names in (self.frame.f_locals, self.frame.f_globals, self.frame.f_builtins):
                    if node.id in names:
                        return names[node.id]
            case ast.Attribute():
                owner = self.value_of(node.value)
                found = inspect.getattr_static(owner, node.attr, None)
                return found.__get__(owner) if isinstance(found, MemberDescriptorType) else found
        return None

    def function_of(self, call: ast.Call) -> Any:
        """Return what is called, also if it is a method of what a class makes in the same line."""
        import ast
        import inspect

        match call.func:
            case ast.Attribute(value=ast.Call(func=maker), attr=name):
                kind = self.value_of(maker)
                return inspect.getattr_static(kind, name, None) if isinstance(kind, type) else None
        return self.value_of(call.func)

    def owner_of(self, call: ast.Call) -> Any:
        """Return whose method is called; None if it is none."""
        owner = getattr(call.func, "value", None)
        return None if owner is None else self.value_of(owner)


def places(error: BaseException, name: str = "") -> Iterator[Place]:
    """Yield where an error was raised, the innermost first: only the program's own functions; and
    only those that know a name, if one is given.
    """
    for frame, lineno in frames(error):
        code = frame.f_code
        if name and name not in (*code.co_names, *code.co_varnames, *code.co_freevars):
            continue
        line = _line(code, lineno)
        if line is not None:
            yield Place(frame, line)


def frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames of the program's own functions and their lines, the innermost first."""
    trace, found = trace_of(error), []
    # An error that is about to leave `run()` has not yet passed its caller.
    outer = trace and trace.tb_frame
    while outer is not None and module_of(outer).startswith(LIBRARY):
        outer = outer.f_back
        if outer is not None and _is_a_programs(outer):
            found.append((outer, outer.f_lineno))
    while trace is not None:
        if _is_a_programs(trace.tb_frame):
            found.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    yield from reversed(found[-FRAMES:])


def raiser_of(error: BaseException) -> FrameType | None:
    """Return the frame that raised an error: the innermost, whosever it is."""
    trace = trace_of(error)
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace and trace.tb_frame


def _is_a_programs(frame: FrameType) -> bool:
    module = module_of(frame)
    return not module.startswith(LIBRARY) and module.partition(".")[0] not in _PYTHONS


_PYTHONS = sys.stdlib_module_names - {"__main__"}


def is_of_library(thing: Any) -> bool:
    """Return whether a class or a function is corolib's."""
    module = plain(attribute(thing, "__module__"))
    return module == "corolib" or module.startswith(LIBRARY)


def name_in(node: ast.AST) -> str:
    """Return the last name of what is called: `recv` of `stream.recv`."""
    return getattr(node, "attr", getattr(node, "id", ""))


def flags_of(function: Any) -> int:
    """Return what kind of function it is, also of a method, or of one that is marked; else 0."""
    for name in (*("__wrapped__",) * WRAPPERS, "__func__"):
        inner = attribute(function, name)
        function = function if inner is None else inner
    if type(function) is not FunctionType:
        return 0
    # `gather()` is an ordinary function that returns a generator.
    hints = attribute(function, "__annotations__") or {}
    waits = plain(hints.get("return")).startswith(("Generator", "Waiting"))
    return CO_GENERATOR if waits else function.__code__.co_flags
