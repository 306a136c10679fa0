"""Ticks: `every(seconds)`, for what is done again and again.

    for tick in every(1.0):
        missed = yield from tick
        ...

One wait for one time is `Sleep`; what bounds a wait is in `timeouts.py`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from corolib.kernel import (
    Sleep,
    Steps,
    Waiting,
    brief,
    check_number,
    current_scheduler,
    public,
    waits,
)

UNUSED = 500  # ticks that may be taken and not waited for: a loop may leave some out


@public
def every(seconds: float) -> Iterator[Waiting[int]]:
    """Tick in a fixed rhythm: `for tick in every(1.0): missed = yield from tick`.

    Each `tick` waits until its time has come: one period after the call of `every()`, two, three,
    whatever the body of the loop takes. It returns how many ticks were missed since the last one,
    because the body took longer than the period: they come as one, at once, and the rhythm stays.

    Args:
        seconds: the period.

    Raises:
        TypeError, ValueError: the period is no number, or not above 0.
        TypeError: a loop takes a thousand ticks and waits for none, nor for anything else.
        RuntimeError: no scheduler runs in this thread.
        (a tick) Cancelled: the wait was cancelled.

    Example:
        >>> import corolib
        >>> from corolib.testing import virtual_time
        >>> def main():
        ...     times = []
        ...     for tick in corolib.every(2):
        ...         missed = yield from tick
        ...         times.append((corolib.now(), missed))
        ...         if len(times) == 3:
        ...             return times
        ...         yield corolib.Sleep(5 if len(times) == 1 else 0)
        >>> corolib.run(main, **virtual_time())
        [(2.0, 0), (7.0, 1), (8.0, 0)]

    Source: timerfd_create(2), whose reads count the expirations.
    """
    period = check_number(seconds, "every()", "a period")
    if period <= 0:
        raise ValueError(f"every() got {brief(seconds)} as a period: it must be above 0")
    rhythm = _Rhythm(period, current_scheduler().clock())
    return Steps("every", rhythm.next)


class _Rhythm:
    """A beginning, a period, and how many ticks there were."""

    def __init__(self, period: float, begin: float) -> None:
        self._period, self._begin = period, begin
        self._ticks = 0
        # How many were given since one was waited for; and the turn when there were too many.
        self._given, self._turn = 0, -1.0

    def next(self) -> Waiting[int]:
        """Return the next tick. A loop that takes one after the other, and waits for none and for
        nothing else, would never end.
        """
        self._given += 1
        if self._given > UNUSED:
            turn = current_scheduler().stats()["turns"]
            if turn == self._turn:
                raise TypeError(
                    f"every() has given {2 * UNUSED} ticks, and none was waited for: write "
                    "`for tick in every(...): missed = yield from tick`"
                )
            self._given, self._turn = 0, turn
        return self.tick()

    @waits
    def tick(self) -> Generator[Any, Any, int]:
        self._given = 0
        before = self._ticks
        yield Sleep(at=self._begin + (before + 1) * self._period)
        passed = (current_scheduler().clock() - self._begin) / self._period
        # The last of them may be there a rounding error too early.
        self._ticks = max(before + 1, int(passed))
        return self._ticks - before - 1
