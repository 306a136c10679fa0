"""All messages of corolib, read from its sources: what is raised, logged or said on stderr.

What stands in braces in the source is shown as `…`. The page has the messages that tell a person
something.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import corolib

LIBRARY = Path(corolib.__file__).parent
ADVICE = ("corolib.advice.", "corolib.kernel.diagnostics")
"""Modules that do nothing but explain mistakes."""
LOGGED = {"warning", "error", "info", "critical", "warn", "log_refusal"}
ERRORS = (  # how the names of their classes end
    *("Error", "Busy", "Deadlock", "Finished", "Cancelled", "Exceeded", "Read", "Ask", "Lost"),
    *("Empty", "Full", "ShutDown"),
)
INSIDE = {"BlockingIOError", "BrokenBarrierError"}  # which corolib itself catches
SAID, WARNED, EXITED = "What is said of a mistake", "What is logged", "What the commands say"
SHORTEST = 2  # words of a message; of what is returned, which may be anything, one more


class Message(NamedTuple):
    """One message. `kind` is the class that is raised, or one of the kinds above, and `owner` the
    class or function that it comes from.
    """

    kind: str
    text: str
    module: str
    owner: str


def messages() -> list[Message]:
    """Return all messages, each once, in the order of kind and text."""
    found: dict[tuple[str, str], Message] = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(LIBRARY.parent).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        tree = ast.parse(path.read_text("utf-8"))
        for owner, function in functions(tree):
            for kind, text in in_function(function, owner):
                found.setdefault((kind, text), Message(kind, text, module, owner))
    return sorted(found.values(), key=lambda each: (each.kind, each.text.lower()))


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Give what a module consists of: each statement, with the class or function that it is."""
    for node in tree.body:
        name = getattr(node, "name", "")
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                member = getattr(inner, "name", "")
                yield (name if member.startswith("_") or not member else f"{name}.{member}"), inner
        else:
            yield name, node


def in_function(function: ast.AST, owner: str = "") -> Iterator[tuple[str, str]]:
    """Give the kind and the text of each message in a piece of source."""
    kinds = (ast.Assign, ast.Call, ast.Raise, ast.Return)
    nodes = [node for node in ast.walk(function) if isinstance(node, kinds)]
    assigned = [node for node in nodes if isinstance(node, ast.Assign)]
    raised = [node.exc for node in nodes if isinstance(node, ast.Raise)]
    own = owner if owner.endswith(ERRORS) else ""  # what an exception says by itself
    if own and isinstance(function, ast.FunctionDef):
        for text in (text for each in function.args.defaults for text in texts(each, Values())):
            yield own, text
    for node in nodes:
        if node in raised:
            continue  # what is looked at is the statement
        kind, given = kind_of(node.exc if isinstance(node, ast.Raise) else node)
        for text in (text for each in given for text in texts(each, Values(assigned, node))):
            words = len(re.findall("[A-Za-z']+", text))
            if words >= SHORTEST + (kind == SAID) and not text.startswith("<"):
                yield (own or kind) if kind == SAID else kind, " ".join(text.split())


class Values:
    """What names stand for in a statement of a function: what was assigned to them before."""

    def __init__(self, assigned: Sequence[ast.Assign] = (), at: ast.AST | None = None) -> None:
        self._line, self._column = getattr(at, "lineno", 0), getattr(at, "col_offset", 0)
        self._assigned = assigned

    def texts_of(self, name: str) -> Iterator[str]:
        """Give the texts that a name may be: the last, and those before it that are in branches."""
        for each in sorted(self._assigned, key=lambda each: -each.lineno):
            if each.lineno < self._line and any(
                isinstance(target, ast.Name) and target.id == name for target in each.targets
            ):
                yield from [*texts(each.value, Values(self._assigned, each))] or ["…"]
                if each.col_offset <= self._column:
                    break


def kind_of(node: ast.AST | None) -> tuple[str, list[ast.expr]]:
    """Return what kind of message a piece of source makes, and what it is made of."""
    if isinstance(node, ast.Return) and node.value is not None:
        last = node.value.values[-1] if isinstance(node.value, ast.BoolOp) else node.value
        return SAID, [last, *(last.args if isinstance(last, ast.Call) else ())]
    if not isinstance(node, ast.Call):
        return "", []
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name == "exit":
        return EXITED, node.args
    if name in LOGGED:
        return WARNED, node.args
    if name == "_wrong":
        return "TypeError, ValueError", node.args[-1:]
    if name[:1].isupper() and name.endswith(ERRORS) and name not in INSIDE:
        return name, node.args
    return "", []


def texts(node: ast.expr, values: Values) -> Iterator[str]:
    """Give the texts that an expression may be; what is computed is shown as `…`."""
    if isinstance(node, ast.IfExp):
        yield from [*texts(node.body, values)] or ["…"]
        yield from [*texts(node.orelse, values)] or ["…"]
    elif isinstance(node, ast.BinOp):
        yield from joined([node.left, node.right], values)
    elif isinstance(node, ast.Name):
        yield from values.texts_of(node.id)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.sub(r"%[a-z.\d]+", "…", node.value)  # of what is logged
    elif isinstance(node, ast.JoinedStr):
        yield from joined(node.values, values)


def joined(parts: list[ast.expr], values: Values) -> Iterator[str]:
    """Give the texts that expressions make when one follows the other."""
    if not parts:
        yield ""
        return
    first = parts[0].value if isinstance(parts[0], ast.FormattedValue) else parts[0]
    known = [*texts(first, values)]
    if isinstance(first, ast.Name) and not all(" " in text or "…" in text for text in known):
        known = []  # single words are put in, which may be many
    for begin in known or ["…"]:
        for rest in joined(parts[1:], values):
            yield begin + rest


def page(found: list[Message], public: set[str]) -> str:
    """Return the page that lists all messages."""
    parts = [
        "# All messages",
        "The messages that corolib raises, logs or prints, read from its sources, with the "
        "function that each comes from. `…` stands for a name, a number or a place that is put in. "
        "To find a message, search for some words of it.",
        "Most messages say what to write. [Wrong lines, right lines](mistakes.md) shows the most "
        "frequent ones with their programs.",
    ]
    kind = ""
    for number, each in enumerate(found):
        if each.kind != kind:
            kind = each.kind
            parts.append(f"## {kind}\n")
        name = each.owner.partition(".")[0]
        where = f"[`{each.owner}`]({name}.md)" if name in public else f"`{each.module}`"
        parts.append(f'- <a id="m{number}"></a>`` {each.text} `` from {where}')
    return "\n".join(parts) + "\n"
