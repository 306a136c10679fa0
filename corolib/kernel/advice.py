"""A note on an error that leaves a task, if it is one that newcomers make: with the right line.

`data = stream.recv(100)` without `yield from` is no error. `data.decode()` is one: a generator has
no such attribute. That leaves the task, and only then, where it costs nothing else anything, is it
looked at: which call was not run, and how its line should be. In the same way a name of another
library's is noticed, and a call of what cannot be called.

What is noticed when a wrong thing is yielded, or spawned, is in `diagnostics.py`. Nothing here may
fail: an error without its note is better than another error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from types import CoroutineType, FrameType, FunctionType, GeneratorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

from corolib.kernel.frames import CO_COROUTINE, CO_GENERATOR, LIBRARY
from corolib.kernel.safely import attribute, class_module, class_name, is_a, name_of, note, trace_of
from corolib.kernel.source import corrected, word_for

if TYPE_CHECKING:
    import ast

MISTAKES = (AttributeError, NameError, TypeError, ValueError, RuntimeError)
TAKERS = {"as_completed", "first", "first_success", "gather", "race", "run", "spawn"}
BOUNDS = {"move_on_after", "shield", "timeout"}
FRAMES = 10  # of a traceback, the innermost, that are looked at


def explained(error: BaseException) -> BaseException:
    """Return `error`, with a note if it is a mistake that is known."""
    if is_a(error, MISTAKES):
        try:
            text = _note(error)
            if text and text not in (attribute(error, "__notes__") or ()):
                note(error, text)
        except Exception:
            pass
    return error


def _note(error: BaseException) -> str | None:
    """Return the note for an error, None if nothing is known of it."""
    from corolib.kernel.foreign import ASYNCIO, MODULES, NAMES, SLEEP, member_cure

    if type(error) is NameError:
        cure = None if error.name in MODULES else NAMES.get(str(error.name))
        return cure and _as_there(error, f"In corolib: {cure}")
    if isinstance(error, AttributeError):
        thing = error.obj
        if isinstance(thing, GeneratorType | CoroutineType):
            return _forgotten(error, name_of(thing).lstrip("_"))
        if _is_ours(thing):
            cure = member_cure(type(thing), str(error.name))
            return cure and _as_there(error, f"In corolib: {cure}")
        return None
    text = str(error)
    block = re.match(r"'(?:corolib\.)?(\w+)' object does not support the asynchronous", text)
    if block and block[1] in BOUNDS:
        return f"It bounds a block without `async`: write `with {block[1]}(...):`"
    if "`" in text or "corolib" in text:
        # It is one of ours, and says by itself what to write.
        return None
    if isinstance(error, TypeError):
        if any(word in text for word in ("generator", "coroutine", "await")):
            return _forgotten(error) or _needless(error)
        if text.endswith("object is not iterable"):
            return _needless(error)
        if text.endswith("object is not callable"):
            return _called(error)
        return _arguments(error, text)
    if isinstance(error, ValueError):
        return _forgotten(error) if "to unpack" in text else None
    if "event loop" not in text:
        return None
    return _as_there(error, f"{ASYNCIO}. To sleep: `{SLEEP}`")


def _as_there(error: BaseException, text: str) -> str:
    """Return what to write, with `await` if the program's function at hand is an `async def`."""
    from corolib.kernel.foreign import for_async

    frame = next(_frames(error), (None, 0))[0]
    return for_async(text) if frame and frame.f_code.co_flags & CO_COROUTINE else text


def _is_ours(thing: Any) -> bool:
    module = class_module(thing)
    return module == "corolib" or module.startswith(LIBRARY)


# The code around an error -------------------------------------------------------------------------


class Place:
    """The function in which an error was raised, or passed: its frame, its line, its source.

    Attributes:
        calls: the calls in it, each with the word in front of it, or nothing: "yield from",
            "await", "yield". Those that are given to `spawn()` and its like are not among them.
        used: the names that its line uses.
    """

    def __init__(self, frame: FrameType, lineno: int) -> None:
        import ast
        import inspect
        import textwrap

        self.frame = frame
        lines, first = inspect.getsourcelines(frame.f_code)
        self.lines = textwrap.dedent("".join(lines)).splitlines()
        self.line = lineno - max(first - 1, 0)
        tree = ast.parse("\n".join(self.lines))
        before = {}
        for node in ast.walk(tree):
            for kind, word in (
                (ast.YieldFrom, "yield from"),
                (ast.Await, "await"),
                (ast.Yield, "yield"),
            ):
                if isinstance(node, kind):
                    before[id(node.value)] = word
        found = [each for each in ast.walk(tree) if isinstance(each, ast.Call)]
        found.sort(key=lambda call: (call.lineno, call.col_offset))
        given = {id(arg) for call in found if _name_of(call.func) in TAKERS for arg in call.args}
        self.calls = [(call, before.get(id(call), "")) for call in found if id(call) not in given]
        self.used = set()
        self.assigned: dict[int, str] = {}  # what a call is assigned to
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.lineno == self.line:
                self.used.add(node.id)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.assigned[id(node.value)] = node.targets[0].id

    def is_here(self, call: ast.Call) -> bool:
        """Return whether a call is in the line of the error, or made what that line uses."""
        here = call.lineno <= self.line <= (call.end_lineno or call.lineno)
        return here or (call.lineno < self.line and self.assigned.get(id(call)) in self.used)

    def value_of(self, node: ast.AST) -> Any:
        """Return what a name stands for, or an attribute that nothing has to be called for."""
        import ast
        import inspect

        if isinstance(node, ast.Name):
            for names in (self.frame.f_locals, self.frame.f_globals):
                if node.id in names:
                    return names[node.id]
        if isinstance(node, ast.Attribute):
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
                return inspect.getattr_static(kind, name, None) if type(kind) is type else None
        return self.value_of(call.func)

    def owner_of(self, call: ast.Call) -> Any:
        """Return whose method is called."""
        return self.value_of(getattr(call.func, "value", call.func))


def _places(error: BaseException) -> Iterator[Place]:
    """Yield where an error was raised, the innermost first: only the program's own functions."""
    for frame, lineno in _frames(error):
        try:
            yield Place(frame, lineno)
        except (OSError, SyntaxError):
            continue


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames of the program's own functions and their lines, the innermost first."""
    trace, found = trace_of(error), []
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if not module.startswith(LIBRARY) and module.partition(".")[0] not in _PYTHONS:
            found.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    yield from reversed(found[-FRAMES:])


_PYTHONS = sys.stdlib_module_names - {"__main__"}


def _name_of(node: ast.AST) -> str:
    """Return the last name of what is called: `recv` of `stream.recv`."""
    return getattr(node, "attr", getattr(node, "id", ""))


def _flags(function: Any) -> int:
    """Return what kind of function it is, also of a method, or of one that is marked; else 0."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    function = getattr(function, "__func__", function)
    if type(function) is not FunctionType:
        return 0
    # `gather()` is an ordinary function that returns a generator.
    waits = str(function.__annotations__.get("return")).startswith(("Generator", "Waiting"))
    return CO_GENERATOR if waits else function.__code__.co_flags


def _is_method(member: Any) -> bool:
    return isinstance(member, FunctionType) or hasattr(member, "__wrapped__")


# What may be meant --------------------------------------------------------------------------------


def _forgotten(error: BaseException, name: str = "") -> str | None:
    """Return the note if a call that waits was not run, or not as it must be: of the function
    with that name, if one is given, or of any.
    """
    for place in _places(error):
        word = word_for(place.frame.f_code)
        for call, before in reversed(place.calls):
            called = _name_of(call.func)
            function = place.function_of(call)
            flags = _flags(function)
            known = called.lstrip("_") == name if name else flags & (CO_GENERATOR | CO_COROUTINE)
            if not known or not place.is_here(call):
                continue
            if flags & CO_COROUTINE and word == "yield from":
                if getattr(function, "__module__", "").startswith("asyncio"):
                    from corolib.kernel.foreign import asyncio_cure

                    return asyncio_cure(name_of(function, which="__qualname__"))
                return (
                    f"{called}() is an `async def`: a generator calls it with "
                    f"`yield from spawn({called}, *args)`"
                )
            if before == "await" and flags & CO_GENERATOR:
                return f"{called}() is a generator function: to await it, put `@waits` above it"
            if not before:
                position = (call.lineno, call.end_lineno, call.col_offset, call.end_col_offset)
                right = corrected(place.lines, position, word)  # type: ignore[arg-type]
                return f"{called}() waits, and was not run. Write `{right or f'{word} {called}()'}`"
    return None


def _needless(error: BaseException) -> str | None:
    """Return the note if something of ours was waited for that cannot wait."""
    import ast

    for place in _places(error):
        for call, before in place.calls:
            function = place.value_of(call.func)
            plain = function is not None and not _flags(function) & (CO_GENERATOR | CO_COROUTINE)
            if before and plain and place.is_here(call) and _is_ours(place.owner_of(call)):
                what = ast.unparse(call)
                if _name_of(call.func) in BOUNDS:
                    return f"{_name_of(call.func)}() bounds a block: write `with {what}:`"
                return f"{_name_of(call.func)}() cannot wait: write `{what}`, without `{before}`"
    return None


def _called(error: BaseException) -> str | None:
    """Return the note if a plain value of ours was called."""
    from corolib.kernel.foreign import member_cure

    for place in _places(error):
        for call, _ in place.calls:
            owner, name = place.owner_of(call), _name_of(call.func)
            if place.is_here(call) and _is_ours(owner):
                if _is_method(place.value_of(call.func)):
                    continue
                cure = member_cure(type(owner), f"{name}()")
                what = _as_there(error, cure or name)
                return f"{class_name(owner)}.{name} is no method. In corolib: {what}"
    return None


def _arguments(error: BaseException, text: str) -> str | None:
    """Return the note if a function of ours was given wrong arguments: which it takes."""
    import inspect

    found = re.match(r"([\w.]+)\(\) (?:got|missing|takes)", text)
    if found is None:
        return None
    name = found[1].removesuffix(".__init__").rpartition(".")[2]
    for place in _places(error):
        for call, _ in place.calls:
            function = place.value_of(call.func)
            made_by = getattr(getattr(function, "__init__", None), "__qualname__", None)
            if (called := _name_of(call.func)) != name and made_by != found[1]:
                continue
            if not place.is_here(call):
                continue
            if getattr(function, "__module__", "").partition(".")[0] != "corolib":
                continue
            taken = inspect.signature(function)
            shown = [
                each.replace(
                    annotation=each.empty,
                    default=each.empty if type(each.default) is object else each.default,
                )
                for each in taken.parameters.values()
                if each.name not in ("self", "unknown")
            ]
            plain = taken.replace(parameters=shown, return_annotation=taken.empty)
            return f"In corolib: {called}{plain}"
    return None
