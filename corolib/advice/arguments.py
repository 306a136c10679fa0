"""A call of ours that was refused for its arguments: how it should have been written.

    open_tcp(host, 443, ssl=True)           Write `yield from open_tcp(host, 443, tls=True)`
    serve_tcp("127.0.0.1", 7007, echo)      Write `yield from serve_tcp(echo, "127.0.0.1", 7007)`

It is read from the source when the error leaves a task, so that right calls pay nothing. Which
keywords of other libraries mean which of ours is in `keywords.py`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from inspect import Parameter, Signature
from types import FunctionType
from typing import TYPE_CHECKING, Any

from corolib.advice.keywords import IDLE, keyword_cure, keywords_of, parameters_of
from corolib.advice.places import (
    TAKERS,
    Place,
    flags_of,
    is_of_library,
    name_in,
    places,
    raiser_of,
)
from corolib.kernel.frames import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, LIBRARY
from corolib.kernel.safely import attribute, class_name, is_a, module_of
from corolib.kernel.source import BOUNDS

if TYPE_CHECKING:
    import ast

TIMED = {"acquire", "wait"}
"""Methods that other libraries give a time: `event.wait(5)`."""

PROGRAMS = {"open_process", "run_process"}
"""What takes a program and its arguments as one list."""

_PYTHONS_OWN = re.compile(r"\(\) (got (an unexpected|multiple|some)|missing|takes .*given)")


def refused_call(error: BaseException, text: str) -> tuple[str, str] | None:
    """Return the message and the note if a function of ours was given wrong arguments.

    The message is that of the error, with the name by which the program calls the function.
    """
    found = re.match(r"([\w.]+)\(", text)
    if found is None or "its keywords are the scheduler's own" in text:
        return None
    own = _PYTHONS_OWN.search(text)
    raiser = raiser_of(error)
    ours = raiser is not None and module_of(raiser).startswith(LIBRARY)
    if not own and not ours:
        return None
    # A class may be called by another name: that of one that is derived from it.
    made = found[1].endswith(".__init__")
    name = found[1].removesuffix(".__init__").rpartition(".")[2]
    for place in places(error, "" if made else name):
        if not ours and place.frame is not raiser:
            return None
        calls = [
            _Call.of(place, call, before, name)
            for call, before in place.line.calls
            if made or name in (name_in(each) for each in (call.func, *call.args[:1]))
        ]
        refused = [each for each in calls if each is not None and each.is_named(name, found[1])]
        if not refused:
            continue
        if own:
            text = f"{refused[0].name}({text[found.end() :]}"
        rights = (each.correction(given_as_value=not own) for each in reversed(refused))
        return text, next(filter(None, rights), refused[-1].shape() if own else "")
    return None


class _Call:
    """A call of a function of ours: `f(x)`, or `run(f, x)`, which is another way to write it."""

    def __init__(
        self, place: Place, call: ast.Call, before: str, function: Any, name: str, first: int
    ) -> None:
        self.place, self.call, self.before = place, call, before
        self.function, self.name, self.first = function, name, first
        self.waits = bool(flags_of(function) & (CO_GENERATOR | CO_COROUTINE))

    @classmethod
    def of(cls, place: Place, call: ast.Call, before: str, name: str) -> _Call | None:
        """Return the call of ours that an expression is; None if it is none.

        Args:
            name: that of what has refused its arguments.
        """
        if name_in(call.func) in TAKERS - {name} and call.args:
            inner = call.args[0]
            function = place.value_of(inner)
            if callable(function) and is_of_library(function):
                return cls(place, call, "given", function, name_in(inner), 1)
        function = place.function_of(call)
        if not callable(function) or not is_of_library(function):
            return None
        return cls(place, call, before, function, name_in(call.func), 0)

    def is_named(self, name: str, qualified: str) -> bool:
        """Return whether a message means this call: by the name of what is called, or of what makes
        an object of that class.
        """
        by = attribute(attribute(self.function, "__init__"), "__qualname__")
        return name == self.name or qualified == by

    def shape(self) -> str:
        """Return how it is called: its signature, with the word in front of it if it waits."""
        shown = [
            each.replace(
                annotation=each.empty,
                default=each.empty if class_name(each.default) == "Unsaid" else each.default,
            )
            for each in parameters_of(self.function)
        ]
        word = self.place.word if self.waits else ""
        func = self.call.args[0] if self.first else self.call.func
        call = f"{text_of(func)}{Signature(shown)}"
        return f"In corolib: {f'run({call})' if word == 'run' else f'{word} {call}'.lstrip()}"

    def correction(self, given_as_value: bool) -> str:
        """Return the note with the right line; nothing if it is not known.

        Args:
            given_as_value: whether it is a value that was refused, so that a function that was
                called, where it should have been given, may be the mistake.
        """
        import ast

        right = copy.deepcopy(self.call)
        if self.name in PROGRAMS and len(right.args) > 1:
            right.args = [ast.List(right.args)]
        instead = self._bounded() or self._without_a_thread()
        if given_as_value:
            instead = instead or self._without_yield()
        if instead:
            return instead
        self._parameters = parameters_of(self.function)
        seconds = why = ""
        by_name = {each.arg for each in self.call.keywords}
        for keyword in list(right.keywords):
            cure = self._cure_of(keyword.arg)
            if cure is None:
                continue
            if cure in keywords_of(self.function):
                keyword.arg = cure
            elif cure == IDLE[-1] and self.waits:
                right.keywords.remove(keyword)
                seconds = text_of(keyword.value)
            elif cure.startswith("leave it out"):
                right.keywords.remove(keyword)
                why = f"{cure[0].upper()}{cure[1:]}. "
            else:
                return f"In corolib, {cure}"
        if self.name in TIMED and len(right.args) == 1 and "timeout" not in by_name:
            seconds = text_of(right.args.pop())
        self._with_function(right, given_as_value)
        args = right.args[self.first :]
        right.args[self.first :] = self._ordered(args) or args
        if ast.dump(right) == ast.dump(self.call):
            return ""
        self._fill(right)
        word = self.place.word if self.waits and not self.before else ""
        line = self.place.line.with_text(self.call, text_of(right), word)
        if seconds:
            if line.startswith(("with ", "for ", "while ", "if ")):
                return f"Put `with timeout({seconds}):` around it"
            line = f"with timeout({seconds}): {line}"
        return f"{why}Write `{line}`"

    def _cure_of(self, word: str | None) -> str | None:
        """Return the cure of a keyword that the function has not."""
        known = keywords_of(self.function)
        return None if word is None or word in known else keyword_cure(word, known)

    def _bounded(self) -> str:
        """Return the note for `timeout(5, q.get())`: it is no function of a call."""
        import ast

        inner = next((each for each in self.call.args if isinstance(each, ast.Call)), None)
        enough = 1 if self.name == "shield" else 2
        if self.name not in BOUNDS or inner is None or len(self.call.args) < enough:
            return ""
        others = ", ".join(text_of(each) for each in self.call.args if each is not inner)
        target = self.place.line.assigned_to(self.call)
        word = "yield from" if self.place.word == "run" else self.place.word
        line = f"with {self.name}({others}): {target}{word} {text_of(inner)}"
        return f"It bounds a block: write `{line}`"

    def _without_a_thread(self) -> str:
        """Return the note for `to_thread(q.get())`: that waits by itself."""
        if self.name not in ("to_process", "to_thread", "wait_future") or self.first:
            return ""
        name, text = given_call(self.place, self.call)
        if not text:
            return ""
        line = self.place.line.with_text(self.call, text, "" if self.before else self.place.word)
        return f"{name}() waits by itself. Write `{line}`"

    def _without_yield(self) -> str:
        """Return the note for `run(main())` where `main` is an ordinary function."""
        import ast

        inner = self.call.args[0] if self.call.args else None
        if self.name not in ("run", "spawn") or not isinstance(inner, ast.Call):
            return ""
        called = self.place.function_of(inner)
        others = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
        if type(called) is not FunctionType or flags_of(called) & others:
            return ""
        return (
            f"{name_in(inner.func)}() has no `yield`, so it is not a generator function, and its "
            "body has already run"
        )

    def _with_function(self, right: ast.Call, given_as_value: bool) -> None:
        """Give the function itself where its call was given: `to_thread(print("x"))`; and its
        keywords by `partial`.
        """
        import ast

        place = next((i for i, each in enumerate(self._parameters) if each.name in FUNCTIONS), None)
        if place is None or len(right.args) <= place + self.first:
            return
        place += self.first
        inner = right.args[place]
        many = any(each.kind is Parameter.VAR_POSITIONAL for each in self._parameters)
        if isinstance(inner, ast.Call):
            called = self.place.function_of(inner)
            waits = flags_of(called) & (CO_GENERATOR | CO_COROUTINE)
            if self.name in ("run", "spawn") and not waits:
                return  # they take calls too
            if (given_as_value or waits) and not isinstance(called, type):
                more = inner.args if many else []
                right.args[place : place + 1] = [inner.func, *more]
        elif many and not self.first:
            known = keywords_of(self.function)
            # What is in `**options` is not known.
            lost = [each for each in right.keywords if each.arg and each.arg not in known]
            if lost:
                right.keywords = [each for each in right.keywords if each not in lost]
                right.args[place] = ast.Call(ast.Name("partial"), [inner], lost)

    def _ordered(self, args: list[ast.expr]) -> list[ast.expr] | None:
        """Return the arguments in the order of the parameters; None if it is not known."""
        import ast

        if any(isinstance(each, ast.Starred) for each in args):
            return None
        wanted = [
            each.name
            for each in self._parameters
            if each.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        ]
        by_name = {each.arg for each in self.call.keywords}
        wanted = [name for name in wanted if name in KINDS and name not in by_name]
        left = list(self._apart(args, wanted))
        found: dict[str, ast.expr] = {}
        for name in wanted:
            fitting = (each for each in left if self._fits(name, each))
            if (best := next(fitting, None)) is not None:
                found[name] = best
                left.remove(best)
        ports = [each.value for each in self.call.keywords if each.arg == "port"]
        needs_host = any(
            each.name == "host" and each.default is each.empty for each in self._parameters
        )
        by_port = needs_host and any(self._fits("port", each) for each in ports)
        if left or not (found or by_port) or (None in by_name and len(found) < len(wanted)):
            return None
        if "host" in wanted and (by_port or "port" in found):
            found.setdefault("host", ast.Constant("127.0.0.1"))
        while wanted and wanted[-1] not in found:
            wanted.pop()
        return [found.get(name) or ast.Constant(...) for name in wanted]

    def _apart(self, args: list[ast.expr], wanted: list[str]) -> Iterable[ast.expr]:
        """Yield the arguments, host and port each by itself: also of `("::1", 80)`, "::1:80"."""
        import ast

        for each in args:
            both = "host" in wanted and "port" in wanted
            if both and isinstance(each, ast.Tuple) and len(each.elts) == 2:
                yield from each.elts
            elif both and isinstance(each, ast.Constant) and _is_place(each.value):
                host, _, port = str(each.value).rpartition(":")
                yield ast.Constant(host.strip("[]"))
                yield ast.Constant(int(port))
            else:
                yield each

    def _fits(self, name: str, node: ast.expr) -> bool:
        import ast

        if isinstance(node, ast.Lambda):
            return name in FUNCTIONS
        if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.ListComp):
            return name == "items"
        value = self.place.value_of(node)
        return value is not None and KINDS[name](value)

    def _fill(self, right: ast.Call) -> None:
        """Show in the call what else it needs: `limit=...`."""
        import ast

        given = {each.arg for each in right.keywords}
        for each in () if None in given else self._parameters:
            if each.kind is Parameter.KEYWORD_ONLY and each.default is Parameter.empty:
                if each.name not in given:
                    right.keywords.append(ast.keyword(each.name, ast.Constant(...)))


def given_call(place: Place, call: ast.Call) -> tuple[str, str]:
    """Return the name and the text of what waits and is given to a call, as `f(x)` or as `f, x`;
    nothing if it does not wait.
    """
    import ast

    if not call.args:
        return "", ""
    inner, *args = call.args
    if isinstance(inner, ast.Call):
        function = place.function_of(inner)
    else:
        function = place.value_of(inner)
        inner = ast.Call(inner, args, call.keywords)
    flags, text = flags_of(function), text_of(inner)
    if flags & CO_COROUTINE and place.word != "await":
        text = f"spawn({text})"
    return (name_in(inner.func), text) if flags & (CO_GENERATOR | CO_COROUTINE) else ("", "")


FUNCTIONS = {"f", "handler"}


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[^/]*:\d+", value) is not None


def _is_port(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and value.isdigit()
    )


KINDS: dict[str, Callable[[Any], bool]] = {
    "f": callable,
    "handler": callable,
    "host": lambda value: isinstance(value, str) and not _is_port(value),
    "port": _is_port,
    "path": lambda value: is_a(value, (str, bytes)) or hasattr(type(value), "__fspath__"),
    "items": lambda value: hasattr(type(value), "__iter__") and not is_a(value, (str, bytes)),
}
"""What an argument of these names can be."""


def text_of(node: ast.AST) -> str:
    """Return an expression as people write it: strings in double quotes, dots for what is left."""
    import ast

    text = ast.unparse(node)
    return text if '"' in text or "\\" in text else text.replace("'", '"')
