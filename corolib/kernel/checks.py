"""What a caller gives, checked and put into words: numbers, counts, files, clocks.

Imports from corolib how a text is made of a thing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable
from math import inf

from corolib.kernel.safely import brief, class_name

MOST = sys.float_info.max
LONGEST_WAIT = 2e6  # seconds, which are 23 days; selectors refuse more than 24.8 days
LOOK_EVERY = 1.0  # seconds between two looks at a clock that may jump
USUAL = 2**30  # seconds, which are 34 years: an int below it needs no closer look


def file_name(file: object) -> str:
    """Return a file in the few words that messages use: `<socket fd=6>`, `<int fd=3>`."""
    if isinstance(file, int):
        return f"<int fd={file}>"
    try:
        number = file.fileno()  # type: ignore[attr-defined]
    except Exception:
        return brief(file)
    return f"<{class_name(file)} {'closed' if number == -1 else f'fd={number}'}>"


def check_number(value: float, who: object, what: str) -> float:
    """Return `value`, a duration or a deadline, as a float, or raise TypeError or ValueError.

    `who`, an object being made, and `what` begin the message: "Sleep() got '1' as a duration".
    """
    kind = type(value)
    if (kind is int and 0 <= value < USUAL) or (kind is float and -MOST < value < MOST):
        return float(value)
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(
            f"{_call_of(who, what)} got {brief(value)} as {what}: "
            f"write a number of seconds, not a {class_name(value)}"
        )
    try:
        number = float(value)
    except OverflowError:
        # An int beyond the range of floats is as good as for ever, or long past.
        number = inf if value > 0 else -MOST
    if number != number or number == -inf:
        raise ValueError(
            f"{_call_of(who, what)} got {brief(value)} as {what}: only finite numbers and "
            "math.inf will do"
        )
    return number


def _call_of(who: object, what: str) -> str:
    """Return how messages name the call that makes `who`: `Sleep(at=)`."""
    at = "at=" if what == "a deadline" else ""
    return who if isinstance(who, str) else f"{class_name(who)}({at})"


def check_count(value: int, who: str, least: int, other: str = "") -> int:
    """Return `value`, a number of things, or raise TypeError or ValueError.

    `who` begins the message: "Semaphore() takes a whole number, at least 0, not 1.5". `other` is
    what else it takes: "math.inf or ".
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and value >= least:
        return value
    text = f"{who} takes {other}a whole number, at least {least}, not {brief(value)}"
    raise ValueError(text) if whole else TypeError(text)


def check_callable(value: object, keyword: str, what: str) -> None:
    """Raise TypeError if what was given for a keyword cannot be called; `what` ends the message."""
    if not callable(value):
        raise TypeError(f"{keyword}={brief(value)}: give {what}")


def check_keywords(caller: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise TypeError if there is a keyword that is not known; the message says which is meant."""
    for word in given:
        if word not in known:
            from corolib.advice.keywords import refused_keyword

            raise TypeError(refused_keyword(caller, word, known))


def check_clock(clock: object) -> float:
    """Check what was given for `clock=`; return for how many seconds one may wait without it."""
    check_callable(clock, "clock", "a function")
    if clock is time.monotonic:
        return LONGEST_WAIT
    return min(getattr(clock, "longest_wait", LOOK_EVERY), LONGEST_WAIT)
