"""Which scheduler a run has: a plain one, or one that lets itself be watched at its work.

The tools for that stand above the kernel, and are imported where a run asks for them. So a run that
asks for none has nothing of them, and the loop never asks whether somebody watches.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corolib.kernel.scheduler import Scheduler


class DefaultTrace:
    """What `run(trace=)` is where it is not given: `trace` as it is when the run begins.

    That is COROLIB_TRACE of the environment, as it was at import; but while
    `python3 -m corolib trace` runs a program, what records that.
    """

    def __init__(self, trace: object) -> None:
        self.trace = trace

    def __repr__(self) -> str:
        return "COROLIB_TRACE"


DEFAULT_TRACE = DefaultTrace(os.environ.get("COROLIB_TRACE") or None)


def observed(
    kind: type[Scheduler],
    *,
    trace: object = DEFAULT_TRACE,
    watchdog: float | None = None,
    measure: bool = False,
    **options: Any,
) -> Scheduler:
    """Return a scheduler with these options: a `kind`, or what `trace.observing` makes instead."""
    trace = _asked_for(trace)
    if trace is None and watchdog is None and not measure:
        return kind(**options)
    from corolib.trace.observing import observe

    return observe(trace, watchdog, measure, options)


def check_trace(trace: object) -> None:
    """Refuse what `run(trace=)` would: for who forks, and has each child record a run by it.

    Which process had the first right to a path is known from now on: a child's has its number.
    """
    trace = _asked_for(trace)
    if trace is not None:
        from corolib.trace.observing import tracing

        tracing(trace)


def _asked_for(trace: object) -> object:
    return trace.trace if isinstance(trace, DefaultTrace) else trace
