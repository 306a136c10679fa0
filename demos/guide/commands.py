"""The reference of what is not imported: the command line, and the plugin for pytest."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import sys
from typing import Any

from corolib.__main__ import command
from demos.extra import extra

with extra("docs"):
    import pytest_corolib

COMMANDS = {
    "serve": "Serve with a handler of yours: host and port, a Unix socket, or what systemd opened.",
    "run": "Run a function of yours, in debug mode.",
    "demo echo": "An echo server, to try the library with.",
    "demo time": "The time and the date, on two ports.",
    "trace": "Record what a program does, and make a page of it.",
    "convert": "Make a page of events that were recorded before.",
    "ps": "Show what the tasks of a program do that runs now.",
}


class Terminal(io.StringIO):
    """What a command prints is kept: it leaves alone what seems to be a terminal."""

    def isatty(self) -> bool:
        return True


def help_of(words: list[str]) -> str:
    """Return what a command says with `--help`."""
    said, before = Terminal(), dict(os.environ)
    os.environ.update(COLUMNS="96", NO_COLOR="1")
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            command([*words, "--help"])
    finally:
        os.environ.clear()
        os.environ.update(before)
    return said.getvalue().strip("\n")


def command_line() -> str:
    """Return the page of `python3 -m corolib`."""
    parts = [
        "# The command line",
        "`python3 -m corolib` has these commands. Below each stands its `--help`.",
        f"```text\n{help_of([])}\n```",
    ]
    for name, text in COMMANDS.items():
        parts += [f"## `python3 -m corolib {name}`", text, f"```text\n{help_of(name.split())}\n```"]
    parts += [
        "## The exit status",
        inspect.cleandoc(sys.modules["corolib.__main__"].__doc__ or "")
        .partition("Exit status: ")[2]
        .partition(" What the servers")[0]
        .replace("\n", " ")
        .join(("It is ", "")),
    ]
    return "\n\n".join(parts) + "\n"


def plugin() -> str:
    """Return the page of the plugin for pytest."""
    text = inspect.cleandoc(pytest_corolib.__doc__ or "")
    shape = text.partition("\n\n")[2].partition("\n\n")[0]
    keywords = pytest_corolib.MARKER.partition(": ")[2]
    parts = [
        "# The plugin for pytest",
        "It comes with corolib, and pytest loads it by itself. [Testing](../demos/guide/testing.md)"
        " shows how it is used.",
        f"```python\n{inspect.cleandoc(shape)}\n```",
        "## The marker",
        f"`@pytest.mark.{pytest_corolib.MARKER.partition(':')[0]}`: {keywords}",
        "## Settings of the ini file",
        "\n".join(
            ["| setting | meaning | default |", "| --- | --- | --- |"]
            + [
                f"| `{name}` | {text} | {f'`{default}`' if default else 'none'} |"
                for name, (text, default) in pytest_corolib.INI.items()
            ]
        ),
        "## Fixtures",
        "\n".join(
            f"- `{name}`: {inspect.getdoc(inspect.unwrap(thing))}" for name, thing in fixtures()
        ),
    ]
    return "\n\n".join(parts) + "\n"


def fixtures() -> list[tuple[str, Any]]:
    """Return the fixtures that the plugin has."""
    found = vars(pytest_corolib).items()
    return [(name, thing) for name, thing in found if "ixture" in type(thing).__name__]
