"""Wrong lines, and what is said of them: the error that leaves a program, and its notes."""

import gc
from pathlib import Path
from typing import Any

from tests.helpers.driving import go

HEADER = """
from functools import partial
import asyncio
import corolib
from corolib import *

def slow(x=1):
    yield
    return x

def echo(stream):
    yield

def plain(stream=None):
    return None

@waits
def marked(x):
    yield

def main():
    queue = Queue(3); event = Event(); port = 7007
    yield
    {}
"""
COROUTINE = HEADER.replace("def main", "async def main").replace("    yield\n    {}", "    {}")


def said_of(line: str, folder: Path, header: str = HEADER, **values: Any) -> tuple[str, list[str]]:
    """Return what a task says that comes to a line: its error, and the notes on it.

    Args:
        line: also several lines, in a function that has a queue, an event and a port.
        header: COROUTINE for an `async def`.
        values: further names that the line may use.
    """
    # Of a name that was there before, the lines would be the old ones.
    path = folder / f"app{len(list(folder.iterdir()))}.py"
    path.write_text(header.replace("{}", line.replace("\n", "\n    ")))
    names: dict[str, Any] = {"__name__": "app", **values}
    exec(compile(path.read_text(), str(path), "exec"), names)
    names.update(values)
    try:
        go(names["main"])
    except Exception as exc:
        found = str(exc), list(getattr(exc, "__notes__", ()))
    else:
        raise AssertionError(f"nothing is said of {line}")
    names.clear()
    gc.collect()
    return found
