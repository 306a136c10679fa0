"""The public names: where each is found, and what is written about it."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any, NamedTuple

import corolib
from demos.extra import extra

OTHERS = ("corolib.testing", "corolib.trace", "corolib.interop")
OWN_MODULES = ("corolib.interop.psycopg", "corolib.interop.redis")  # imported by their own names
TITLES = {  # of the groups of names, in the order of the reference
    "corolib.kernel": "Tasks, waits and errors",
    "corolib.coordination": "Groups, timeouts, locks, queues, threads, signals",
    "corolib.net": "Streams, servers and datagrams",
    "corolib.system": "Programs, processes and systemd",
    "corolib.testing": "Testing: corolib.testing",
    "corolib.trace": "Traces: corolib.trace",
    "corolib.interop": "Other libraries: corolib.interop",
    "corolib.interop.psycopg": "PostgreSQL: corolib.interop.psycopg",
    "corolib.interop.redis": "Redis: corolib.interop.redis",
}


class Name(NamedTuple):
    """A public name: `module` is what it is imported from, `group` a key of `TITLES`."""

    module: str
    name: str
    group: str
    thing: Any
    doc: str

    @property
    def line(self) -> str:
        """The first line of what is written about it."""
        return self.doc.partition("\n")[0]


def names() -> dict[str, Name]:
    """Return all public names, by themselves; one that is taken has its module before it, as
    `redis.Subscription`.
    """
    packages = packages_of(ast.parse(Path(corolib.__file__).read_text("utf-8")))
    found: dict[str, Name] = {}
    for module in ("corolib", *OTHERS, *OWN_MODULES):
        with extra("docs"):
            package = importlib.import_module(module)
        for name in listed(package):
            thing = getattr(package, name)
            group = packages[name] if module == "corolib" else module
            made = Name(module, name, group, thing, doc_of(name, thing))
            if name not in found:
                found[name] = made
            elif found[name].thing is not thing:
                key = f"{module.rpartition('.')[2]}.{name}"
                found[key] = made
    return found


def listed(package: Any) -> list[str]:
    """Return the public names of a module: what it lists, or else the classes that it defines."""
    if hasattr(package, "__all__"):
        return list(package.__all__)
    return [
        name
        for name, thing in vars(package).items()
        if inspect.isclass(thing) and thing.__module__ == package.__name__ and name[0] != "_"
    ]


def packages_of(tree: ast.Module) -> dict[str, str]:
    """Return the package that each name of corolib comes from."""
    return {
        alias.name: ".".join((node.module or "").split(".")[:2])
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def doc_of(name: str, thing: Any) -> str:
    """Return the docstring of a class or function, or the string below a variable."""
    if inspect.isclass(thing) or inspect.isroutine(thing):
        return inspect.getdoc(thing) or ""
    for module in [m for n, m in sorted(sys.modules.items()) if n.startswith("corolib.")]:
        if vars(module).get(name) is thing and (doc := below(name, inspect.getsource(module))):
            return doc
    return ""


def below(name: str, source: str) -> str:
    """Return the string that stands below the assignment to `name`, or the comment above it."""
    body = ast.parse(source).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if not (isinstance(target, ast.Name) and target.id == name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            return inspect.cleandoc(str(after.value.value))
        lines = source.splitlines()[: node.lineno - 1]
        comment: list[str] = []
        while lines and lines[-1].startswith("# "):
            comment.insert(0, lines.pop()[2:])
        return "\n".join(comment)
    return ""
