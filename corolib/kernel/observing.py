"""Which scheduler a run has: a plain one, or one that lets itself be watched at its work.

The tools for that stand above the kernel, and are imported where a run asks for them. So a run that
asks for none has nothing of them, and the loop never asks whether somebody watches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corolib.kernel.waits import TRACE

if TYPE_CHECKING:
    from corolib.kernel.scheduler import Scheduler


def observed(
    kind: type[Scheduler],
    *,
    trace: object = TRACE,
    watchdog: float | None = None,
    measure: bool = False,
    **options: Any,
) -> Scheduler:
    """Return a scheduler with these options: a `kind`, or what `trace.observing` makes instead."""
    if trace is None and watchdog is None and not measure:
        return kind(**options)
    from corolib.trace.observing import observe

    return observe(trace, watchdog, measure, options)


def check_trace(trace: object) -> None:
    """Refuse what `run(trace=)` would: for who forks, and has each child record a run by it.

    Which process had the first right to a path is known from now on: a child's has its number.
    """
    if trace is not None:
        from corolib.trace.observing import tracing

        tracing(trace)
