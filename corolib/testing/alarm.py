"""A call that is made in a thread when some real seconds are over. No test is known here.

A limit on a scheduler's clock says nothing of a step that never ends, and a virtual clock nothing
of seconds at all.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable


class Alarm:
    """`with Alarm(seconds, call): ...` makes the call if the block takes longer. None: no limit."""

    def __init__(self, seconds: float | None, call: Callable[[], object]) -> None:
        self._timer = None if seconds is None else threading.Timer(seconds, call)

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.name = "corolib-alarm"
            self._timer.start()

    def __exit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()


def stack_of(thread: int) -> str:
    """Return where a thread is just now, as a traceback says it."""
    return "".join(traceback.format_stack(sys._current_frames().get(thread)))
