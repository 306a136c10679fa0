"""The code around an error, read from its source: which calls are there, and what they call.

    for place in places(error): ...     the program's own functions, the innermost first

What was meant by it is not known here: that is in `advice.py`, `arguments.py` and `uses.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType, FunctionType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

from corolib.kernel.frames import CO_GENERATOR, LIBRARY
from corolib.kernel.safely import attribute, module_of, plain, trace_of
from corolib.kernel.source import corrected, word_for

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

class Place:
    """The function in which an error was raised, or passed: its frame, its line, its source.

    Attributes:
        calls: the calls in it, each with the word in front of it, or nothing: "yield from",
            "await", "yield". For those that are given to `spawn()` and its like it is "given".
        used: the names that its line uses.
    """

    def __init__(self, frame: FrameType, lineno: int) -> None:
        import ast
        import inspect
        import textwrap

        self.frame = frame
        self.word = word_for(frame.f_code)
        lines, first = inspect.getsourcelines(frame)
        self.lines = textwrap.dedent("".join(lines)).splitlines()
        self.line = lineno - max(first - 1, 0)
        self.tree = ast.parse("\n".join(self.lines))
        before = {}
        self.around: dict[int, ast.AST] = {}  # what a call has in front of it: `yield from f()`
        for node in ast.walk(self.tree):
            for kind, word in (
                (ast.YieldFrom, "yield from"),
                (ast.Await, "await"),
                (ast.Yield, "yield"),
            ):
                if isinstance(node, kind):
                    before[id(node.value)] = word
                    self.around[id(node.value)] = node
        found = [each for each in ast.walk(self.tree) if isinstance(each, ast.Call)]
        found.sort(key=lambda call: (call.lineno, call.col_offset))
        given = {id(arg) for call in found if name_in(call.func) in TAKERS for arg in call.args}
        self.calls = [
            (call, "given" if id(call) in given else before.get(id(call), "")) for call in found
        ]
        self.used = set()
        self.assigned: dict[int, str] = {}  # what a call is assigned to
        for node in ast.walk(self.tree):
            match node:
                case ast.Name(id=name, ctx=ast.Load(), lineno=self.line):
                    self.used.add(name)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.assigned[id(node.value)] = node.targets[0].id

    def is_here(self, node: Any) -> bool:
        """Return whether a call is in the line of the error, or made what that line uses."""
        here = node.lineno <= self.line <= (node.end_lineno or node.lineno)
        return here or (node.lineno < self.line and self.assigned.get(id(node)) in self.used)

    def assigned_to(self, node: Any) -> str:
        """Return `x = ` if a call is assigned to `x`, with a word in front of it or without."""
        name = self.assigned.get(id(self.around.get(id(node), node)))
        return f"{name} = " if name else ""

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
        """Return whose method is called."""
        return self.value_of(getattr(call.func, "value", call.func))

    def line_with(self, node: Any, text: str = "", word: str = "") -> str:
        """Return the line of a node, with a word in front of that, or a text in its place."""
        position = (node.lineno, node.end_lineno, node.col_offset, node.end_col_offset)
        return corrected(self.lines, position, word, text)


def places(error: BaseException) -> Iterator[Place]:
    """Yield where an error was raised, the innermost first: only the program's own functions."""
    for frame, lineno in frames(error):
        try:
            yield Place(frame, lineno)
        except (OSError, SyntaxError):
            continue


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
    waits = str(function.__annotations__.get("return")).startswith(("Generator", "Waiting"))
    return CO_GENERATOR if waits else function.__code__.co_flags
