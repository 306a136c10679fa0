"""A line on stderr that tells how far a program is; where stderr is no terminal, none.

    spawn(show, lambda: f"{done} of {count}", daemon=True)

As a daemon it ends with the task that has spawned it, and leaves nothing behind.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from corolib import Coro, Sleep

EVERY = 0.2  # seconds
WIPE = "\r\x1b[K"


def show(line: Callable[[], str]) -> Coro[None]:
    """Show what `line()` returns, again and again."""
    try:
        while sys.stderr.isatty():
            print(WIPE + line(), end="", file=sys.stderr, flush=True)
            yield Sleep(EVERY)
    finally:
        wipe()


def wipe() -> None:
    """Make room for something else, until the line is shown again."""
    if sys.stderr.isatty():
        print(WIPE, end="", file=sys.stderr, flush=True)
