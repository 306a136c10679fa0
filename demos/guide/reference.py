"""The reference: a page of Markdown for each public name, made of signature and docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from demos.guide.names import TITLES, Name

SECTIONS = ("Args", "Attributes", "Units", "Returns", "Raises", "Example", "Examples", "Source")
WIDTH = 80  # characters of a signature in one line


def contents(names: dict[str, Name]) -> str:
    """Return the page that lists all names."""
    parts = [
        "# Reference",
        "Every public name, with the first line of what is written about it. What is not listed "
        "here may change. What is not imported has a page, too: [the command line]"
        "(command-line.md), [the plugin for pytest](pytest-plugin.md).",
    ]
    for group, title in TITLES.items():
        parts.append(f"## {title}")
        rows = [f"| [`{n.name}`]({key}.md) | {n.line} |" for key, n in names.items()
                if n.group == group]  # fmt: skip
        parts.append("\n".join(["| name | |", "| --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def page_of(key: str, name: Name) -> str:
    """Return the page of one name, which has that title."""
    parts = [
        f"# {key}",
        fence(f"from {name.module} import {name.name}"),
        *described(name.name, name.thing, name.doc, 2),
    ]
    if inspect.isclass(name.thing):
        for member, thing in members(name.thing):
            parts.append(f"## `{name.name}.{member}`")
            parts += described(member, thing, inspect.getdoc(thing) or "", 3)
    parts.append(f"All names of this kind: [{TITLES[name.group]}](contents.md).")
    return "\n\n".join(parts) + "\n"


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Give the public methods and properties that corolib has written."""
    for member in sorted(dir(cls)):
        if member.startswith("_"):
            continue
        owner = next(base for base in cls.__mro__ if member in vars(base))
        thing = inspect.getattr_static(cls, member)
        if owner.__module__.startswith("corolib") and (
            isinstance(thing, property | staticmethod | classmethod) or inspect.isroutine(thing)
        ):
            if inspect.getdoc(thing):
                yield member, thing


def described(name: str, thing: Any, doc: str, level: int) -> list[str]:
    """Return the signature and the docstring, whose sections are headings of this level."""
    parts = []
    if isinstance(thing, property):
        parts.append("A property.")
    elif isinstance(thing, staticmethod | classmethod):
        parts.append(fence(signature(name, thing.__func__)))
    elif inspect.isclass(thing) or inspect.isroutine(thing):
        parts.append(fence(signature(name, thing)))
    return [*parts, *sections(doc, level)]


def fence(text: str, kind: str = "python") -> str:
    return f"```{kind}\n{text}\n```"


class Plain:
    """Something that is shown as it was written."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def plain(annotation: object) -> Plain:
    is_text = isinstance(annotation, str)
    return Plain(str(annotation) if is_text else inspect.formatannotation(annotation))


def shown(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return a parameter with readable words for its type and its default."""
    empty, default = parameter.empty, parameter.default
    if default is not empty and (inspect.isclass(default) or inspect.isroutine(default)):
        parameter = parameter.replace(default=Plain(f"{default.__module__}.{default.__name__}"))
    elif default is not empty and repr(default).startswith("<"):
        parameter = parameter.replace(default=Plain("..."))
    if parameter.annotation is empty:
        return parameter
    return parameter.replace(annotation=plain(parameter.annotation))


def signature(name: str, thing: Any) -> str:
    """Return how a thing is called, in one line if that is not too long."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return name
    kinds = [shown(p) for p in found.parameters.values() if p.name not in ("self", "unknown")]
    result = found.return_annotation
    if inspect.isclass(thing) or result is inspect.Signature.empty:
        result = inspect.Signature.empty
    else:
        result = plain(result)
    whole = f"{name}{inspect.Signature(kinds, return_annotation=result)}"
    if len(whole) <= WIDTH or not kinds:
        return whole
    # A line for each parameter: what `inspect` writes for one alone is what it is in the whole.
    lines, seen = [], {p.kind for p in kinds}
    for p in kinds:
        if p.kind is p.KEYWORD_ONLY and "*" not in lines and p.VAR_POSITIONAL not in seen:
            lines.append("*")
        lines.append(str(p))
    tail = "" if result is inspect.Signature.empty else f" -> {result}"
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + f"){tail}"


def sections(doc: str, level: int) -> Iterator[str]:
    """Give the parts of a docstring as Markdown."""
    heading = "#" * level
    body: list[str] = []
    title = ""
    for line in [*doc.splitlines(), "Source:"]:
        match = re.match(rf"({'|'.join(SECTIONS)})(?: \([\w ]+\))?:(?: |$)(.*)", line)
        if match is None:
            body.append(line)
            continue
        if any(map(str.strip, body)):
            if title:
                yield f"{heading} {title}"
            yield section(title, body)
        title, rest = match[1], match[2]
        body = [rest] if rest else []


def section(title: str, body: list[str]) -> str:
    """Return what stands under a heading."""
    text = inspect.cleandoc("\n" + "\n".join(body)) if title else "\n".join(body)
    if title in ("Example", "Examples"):
        return fence(text.strip("\n"), "pycon")
    if title in ("Args", "Attributes", "Raises", "Units"):
        return "\n".join(entries(text))
    return text


def entries(text: str) -> Iterator[str]:
    """Give the items of a list: each line that is not indented begins one."""
    for line in text.splitlines():
        if not line.strip():
            continue
        if line.startswith(" "):
            yield f"  {line.strip()}"
            continue
        name, colon, rest = line.partition(": ")
        if not colon and line.endswith(":"):
            name, colon = line[:-1], ":"
        code = colon and len(name) < 60 and "`" not in name and not name.startswith("What ")
        yield f"- `{name}`: {rest}" if code else f"- {line}"
