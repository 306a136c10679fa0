"""What `run(trace=, watchdog=, measure=)` asks for: a scheduler that lets itself be watched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from corolib.kernel import DEFAULT_TRACE, Scheduler, brief, check_number
from corolib.trace.measuring import MeasuredScheduler
from corolib.trace.traces import Trace


def observe(
    trace: Any, watchdog: float | None, measure: bool, options: Mapping[str, Any]
) -> Scheduler:
    """Return the scheduler of a run that is watched in one way at least.

    Args:
        trace, watchdog, measure: see `corolib.run`.
        options: see `Scheduler`.

    Raises:
        TypeError: `trace` is no path, no Trace and nothing that can be called.
        RuntimeError: `watchdog` is asked for in a subinterpreter.
        ValueError: `watchdog` is too short or too long; or no trace can be written there.
    """
    if watchdog is not None:
        # Subinterpreters of their own lock have no faulthandler and no daemon threads; and to look
        # at the frames of threads from there has ended Python 3.12 and 3.13 in a crash.
        try:
            from corolib.trace.watchdog import LONGEST, SHORTEST, Watchdog
        except ImportError:
            raise RuntimeError("watchdog= works only in the main interpreter") from None
        if not SHORTEST <= check_number(watchdog, "watchdog=", "a duration") <= LONGEST:
            raise ValueError(
                f"watchdog={brief(watchdog)}: give the seconds that a step may take, from "
                f"{SHORTEST:g} to {LONGEST:g}"
            )
    make: Callable[..., Scheduler] = MeasuredScheduler if measure else Scheduler
    if trace is not None:
        make = partial(tracing(trace).scheduler, measure=measure)
    scheduler = make(**options)
    if watchdog is not None:
        scheduler.run_local(partial(Watchdog, seconds=watchdog))
    return scheduler


def tracing(trace: Any) -> Trace:
    """Return the Trace that `run(trace=)` asks for.

    Raises:
        TypeError: this is no path, no Trace and nothing that can be called.
        ValueError: no trace can be written there.
    """
    if isinstance(trace, Trace):
        return trace
    if isinstance(trace, str | os.PathLike) or callable(trace):
        try:
            return Trace(trace)
        except ValueError as exc:
            if trace is not DEFAULT_TRACE.trace:
                raise
            raise ValueError(f"COROLIB_TRACE in the environment: {exc}") from None
    raise TypeError(f"trace={brief(trace)}: give a path, a Trace, or a function of one event")
