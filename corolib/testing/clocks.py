"""A clock that jumps instead of waiting, and the selector that moves it. No task is known here."""

from __future__ import annotations

import math
import selectors
from collections.abc import Callable, Mapping
from typing import Any

from corolib.kernel import Selector


class VirtualClock:
    """A clock that stands still until it is moved. Call it for the time in seconds."""

    longest_wait = math.inf
    """It never jumps while a selector waits: it is the selector that moves it."""

    def __init__(self, start: float = 0.0) -> None:
        self.time = start

    def __call__(self) -> float:
        return self.time

    def move(self, seconds: float) -> None:
        """Move forward, by the least possible step if `seconds` would be lost in rounding."""
        self.time = max(self.time + seconds, math.nextafter(self.time, math.inf))


class JumpingSelector(selectors.BaseSelector):
    """A selector that moves the clock instead of waiting for a time.

    A file that is ready comes first. With no time to wait for, it really waits for a file.
    """

    def __init__(self, inner: selectors.BaseSelector, clock: VirtualClock) -> None:
        self._inner = inner
        self._clock = clock

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def close(self) -> None:
        self._inner.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = self._inner.select(None if timeout is None else 0)
        if not found and timeout is not None and timeout > 0:
            self._clock.move(timeout)
        return found

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()


def virtual_time(
    start: float = 0.0, selector: Selector = selectors.DefaultSelector
) -> dict[str, Callable[[], Any]]:
    """Return arguments for `run()` or `Scheduler()` with which time passes without waiting.

    When no task is ready and no file is, the clock jumps to the next deadline. Files are real:
    data that another process has not sent yet does not hold the clock back. A thread at work does
    not either. While a task gives way in a loop, something is always ready, and no time passes.

    Example:
        >>> import corolib
        >>> def year():
        ...     yield corolib.Sleep(365 * 86400)
        ...     return corolib.now()
        >>> corolib.run(year, **virtual_time())
        31536000.0
    """
    clock = VirtualClock(start)
    return {"clock": clock, "selector": lambda: JumpingSelector(selector(), clock)}
