"""What a server logs about its peers: a bounded number of lines, without their control characters.

    log = PeerLog("127.0.0.1:7007", now)
    log.warn("LimitExceeded", "the peer %s: %s", peer, error)   one line of each kind in 10 s
    log.fail(error, "the handler for %s failed", peer)          now and then with the traceback
    log.close()                                                 says what was left out

Who provokes failures in a loop would fill a disk. So of each kind one is logged, and the others are
counted; the next line of that kind says how many they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from corolib.kernel import LateModule, told, trace_of
from corolib.net.listening import server_log

if TYPE_CHECKING:
    import logging
    import traceback
else:
    logging, traceback = LateModule("logging"), LateModule("traceback")

EVERY = 10.0
"""Seconds between two lines of one kind: with ten kinds they are sixty lines a minute."""

TRACEBACK_EVERY = 600.0
"""The same for tracebacks, which are a dozen lines each."""


class PeerLog:
    """The lines of one server.

    Args:
        place: the addresses of the server, with which each line begins.
        clock: tells the time in seconds.
    """

    def __init__(self, place: str, clock: Callable[[], float]) -> None:
        self._place = place
        self._clock = clock
        self._log = server_log()
        # Of each kind: when it was logged last, and how many were left out since then.
        self._kinds: dict[str, tuple[float, int]] = {}
        # When the traceback of a kind was logged last.
        self._traced: dict[str, float] = {}

    def warn(self, kind: str, text: str, *args: object) -> None:
        """Log a warning, unless one of its kind was logged a short time ago."""
        self._report(kind, logging.WARNING, text, args)

    def fail(self, error: BaseException, text: str, *args: object) -> None:
        """Log an error of the program's in the same way, now and then with its traceback."""
        kind = _kind_of(error)
        now = self._clock()
        if now >= self._traced.get(kind, -math.inf) + TRACEBACK_EVERY:
            if self._report(kind, logging.ERROR, text, args, error):
                self._traced[kind] = now
        else:
            self._report(kind, logging.ERROR, f"{text}: %s", (*args, told(error)))

    def close(self) -> None:
        """Say what was left out since the last line of each kind."""
        for kind, (_, more) in self._kinds.items():
            if more:
                self._write(logging.WARNING, "%s%s", (kind, _left_out(more)), None)
        self._kinds.clear()

    def _report(
        self,
        kind: str,
        level: int,
        text: str,
        args: tuple[object, ...],
        error: BaseException | None = None,
    ) -> bool:
        last, more = self._kinds.get(kind, (-math.inf, 0))
        now = self._clock()
        if now < last + EVERY:
            self._kinds[kind] = last, more + 1
            return False
        self._kinds[kind] = now, 0
        self._write(level, f"{text}{_left_out(more)}" if more else text, args, error)
        return True

    def _write(
        self, level: int, text: str, args: tuple[object, ...], error: BaseException | None
    ) -> None:
        if not self._log.isEnabledFor(level):
            return
        message = f"{self._place}: {text % tuple(map(printable, args))}"
        info = None if error is None else (type(error), error, trace_of(error))
        record = self._log.makeRecord(self._log.name, level, __file__, 0, message, (), info)
        if error is not None:
            record.exc_text = _traceback(error)
        self._log.handle(record)


def _left_out(more: int) -> str:
    return f" ({more} more of this kind since the last line)"


def _kind_of(error: BaseException) -> str:
    """Return what kind of failure an error is: its class, and the line that has raised it."""
    trace = trace_of(error)
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__name__}{where}"


def printable(thing: object) -> str:
    """Return `str(thing)` with what is not printable as escapes: a peer may have sent it, to write
    lines of its own into a log, or on the terminal of who reads it.
    """
    text = str(thing)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _traceback(error: BaseException) -> str:
    """Return the traceback of an error as text; only its own line breaks are left as they are."""
    lines = []
    for part in traceback.format_exception(error):
        head, *rest = part.strip("\n").split("\n")
        # A frame has its source lines, indented, below it; and a message further lines, perhaps.
        lines += [head, *(line if line.startswith(" ") else f"    {line}" for line in rest)]
    return "\n".join(map(printable, lines))
