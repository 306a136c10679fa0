"""What servers log: a bounded number of lines, without the control characters of peers.

    log = PeerLog("127.0.0.1:7007", scheduler)                  of one server
    log.warn("LimitExceeded", "the peer %s: %s", peer, error)   one line of each kind in 10 s
    log.fail(error, "the handler for %s failed", peer)          now and then with the traceback

Who provokes failures in a loop would fill a disk. So of each kind one is logged, and the others are
counted, for all servers of a run together, since a peer chooses among them; the next line of that
kind says how many they were, or the end of the run.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from corolib.kernel import LateModule, Scheduler, Throttle, class_name, told, trace_of

if TYPE_CHECKING:
    import logging
    import traceback
else:
    logging, traceback = LateModule("logging"), LateModule("traceback")

EVERY = 10.0
"""Seconds between two lines of one kind: with ten kinds they are sixty lines a minute."""

TRACEBACK_EVERY = 600.0
"""The same for tracebacks, which are a dozen lines each."""

PAUSE_EVERY = 1.0
"""The same for lines on a pause of accepting, which concerns the whole program."""


@functools.cache
def server_log() -> logging.Logger:
    """Return where servers report to, and have everything imported that a report needs: later,
    there may be no file number left to import it with.

    Python imports some of what writes a traceback when it writes the first one.
    """
    import logging
    import traceback

    try:
        raise RuntimeError
    except RuntimeError:
        traceback.format_exc()
    return logging.getLogger("corolib.server")


class Lines:
    """The lines that the servers of a run may log; lives as long as the run."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.all = Throttle(scheduler.clock, EVERY)
        self.tracebacks = Throttle(scheduler.clock, TRACEBACK_EVERY)
        self.pauses = Throttle(scheduler.clock, PAUSE_EVERY)

    def end(self) -> None:
        """Say what was left out since the last line of each kind."""
        for kind, more in self.all.left_out():
            server_log().warning("%s%s", printable(kind), _left_out(more))


class PeerLog:
    """The lines of one server.

    Args:
        place: the addresses of the server, with which each line begins.
        scheduler: that of its run.
    """

    def __init__(self, place: str, scheduler: Scheduler) -> None:
        self._place = place
        self._log = server_log()
        self._lines = scheduler.run_local(Lines)

    def warn(self, kind: str, text: str, *args: object) -> None:
        """Log a warning, unless one of its kind was logged a short time ago."""
        more = self._lines.all.passes(kind)
        if more is not None:
            self._write(logging.WARNING, text, args, more)

    def fail(self, error: BaseException, text: str, *args: object) -> None:
        """Log an error of the program's in the same way, now and then with its traceback."""
        kind = _kind_of(error)
        more = self._lines.all.passes(kind)
        if more is None:
            return
        if self._lines.tracebacks.passes(kind) is None:
            self._write(logging.ERROR, f"{text}: %s", (*args, told(error)), more)
        else:
            self._write(logging.ERROR, text, args, more, error)

    def _write(
        self,
        level: int,
        text: str,
        args: tuple[object, ...],
        more: int,
        error: BaseException | None = None,
    ) -> None:
        if not self._log.isEnabledFor(level):
            return
        said = text % tuple(map(printable, args))
        message = f"{self._place}: {said}{_left_out(more) if more else ''}"
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
    return f"{class_name(error)}{where}"


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
