"""What other libraries call the things of corolib: the tables by which errors are explained."""

from __future__ import annotations

from collections.abc import Iterable

from corolib.advice.foreign import MEMBERS, NAMES
from corolib.advice.keywords import KEYWORDS

KEYWORD = "keyword"


def rows() -> Iterable[tuple[str, str, str]]:
    """Give each name: what it belongs to, the name, and what to write in corolib."""
    for name, cure in sorted(NAMES.items(), key=lambda row: row[0].lower()):
        yield "", name, cure
    for kind, members in sorted(MEMBERS.items()):
        for name, cure in sorted(members.items(), key=lambda row: row[0].lower()):
            yield kind, name, cure
    for name, cures in sorted(KEYWORDS.items()):
        yield KEYWORD, name, ", or ".join(c if " " in c else f"{c}=" for c in cures)


def page() -> str:
    """Return the page: a table of functions and classes, one for each class of ours, and one of
    keywords.
    """
    parts = [
        "# Other names",
        "Names of asyncio, trio, curio, threading, queue and socket, and what to write in corolib. "
        "An error that such a name causes says the same.",
    ]
    before = None
    for owner, name, cure in rows():
        if owner != before:
            titles = {"": "Functions and classes", KEYWORD: "Keywords"}
            parts.append(f"\n## {titles.get(owner, f'Of a {owner}')}\n")
            parts += ["| there | in corolib |", "| --- | --- |"]
            before = owner
        shown = cure if " " in cure and owner == KEYWORD else f"`{cure}`"
        parts.append(
            f"| `{name}{'=' * (owner == KEYWORD)}` | {shown.replace('|', chr(92) + '|')} |"
        )
    return "\n".join(parts) + "\n"
