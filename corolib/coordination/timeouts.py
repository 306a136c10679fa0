"""Timeouts and shields: `with` blocks that bound how long a task may take.

    with timeout(5): ...                      TimeoutError after five seconds
    with move_on_after(5) as scope: ...       leaves the block; then scope.expired
    with shield(): ...                        puts off every cancel from outside
    @timeout(5)                               bounds each call of a function

A block bounds its own task only: a task spawned inside is not timed out by it, unless the block
encloses the wait for its group. How a cancel is requested and delivered is the kernel's matter, and
stands in `cancellation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial, wraps
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from corolib.kernel import (
    Cancelled,
    CancelScope,
    body_of,
    check_number,
    class_name,
    current_scheduler,
    public,
    waits,
)

P = ParamSpec("P")
R = TypeVar("R")


class _Deadline(CancelScope):
    """What the two timeouts share: a deadline that they are made with."""

    __documented__ = "expired remaining"

    def __init__(self, seconds: float | None = None, *, at: float | None = None) -> None:
        self.planned = True
        if at is None:
            self._seconds = None if seconds is None else check_number(seconds, self, "a duration")
        elif seconds is None:
            self._deadline = check_number(at, self, "a deadline")
        else:
            name = class_name(self)
            raise TypeError(f"{name}() takes a duration, or a deadline as at=, not both")

    def __call__(self, f: Callable[P, R]) -> Callable[P, R]:
        """Bound each call of a generator function or an `async def`: `@timeout(5)` above it.

        Then `yield from` and `await` both work with it.
        """

        @waits
        @wraps(f)
        def bounded(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
            call = body_of(class_name(self), partial(f, **kwargs) if kwargs else f, args)
            seconds, at = self._seconds, self._deadline
            block = type(self)(at=at) if seconds is None else type(self)(seconds)
            with block:
                block.opened_at(f)
                return (yield from call)

        return bounded  # type: ignore[return-value]

    @property
    def expired(self) -> bool:
        """Whether the block was cut short by its deadline."""
        return self.is_late and self.cancelled_caught

    def remaining(self) -> float:
        """Return the seconds until the deadline: 0 when it has passed, `math.inf` without limit.

        Raises:
            RuntimeError: no scheduler runs in this thread.
        """
        # Before the block has begun the deadline is not known yet.
        if self._deadline == inf:
            return inf if self._seconds is None else max(0.0, self._seconds)
        return max(0.0, self._deadline - current_scheduler().clock())

    def __repr__(self) -> str:
        limit = f"{self._seconds:g} s" if self._seconds is not None else f"at={self._deadline}"
        return f"{class_name(self)} of {limit}"


@public
class timeout(_Deadline):  # noqa: N801 - reads as a statement: `with timeout(5):`
    """Bound a block in time: `with timeout(5): ...`, or `with timeout(at=deadline): ...`.

    The deadline is looked at whenever the task waits. A block that was left before its cancel was
    delivered was in time; one whose deadline has passed before it begins is cancelled at its first
    wait.

    Args:
        seconds: how long the block may take; None and `math.inf` are no limit.
        at: a deadline on the clock of `now()`.

    Raises:
        TimeoutError: where the block is left, and only by the block whose deadline it was. Says
            how long, where the block began, and what the task was waiting for.
        TypeError, ValueError: not a number, NaN, or minus infinity.
        ScopeError: blocks are left out of order, or a value was yielded to a consumer (`for x in
            generator`) from inside the block.

    Example:
        >>> import corolib
        >>> from corolib.testing import virtual_time
        >>> def main():
        ...     try:
        ...         with corolib.timeout(5):
        ...             yield corolib.Sleep(60)
        ...     except TimeoutError:
        ...         return corolib.now()
        >>> corolib.run(main, **virtual_time())
        5.0

    Source: trio's cancel scopes, asyncio.timeout.
    """

    __documented__ = ""
    names_wait = True
    # To find it in the class at each exit would take longer.
    end = CancelScope.__exit__

    # For type checkers: who writes `with timeout(5): return x` is not told that more can follow.
    def __exit__(  # type: ignore[override]
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if not self.end(kind, error, trace):
            return False
        if not self.is_late:
            return True
        waited = "" if self.waited_for is None else f" while waiting for {self.waited_for}"
        late = TimeoutError(f"{self!r}, opened in {self.opened_in}, expired{waited}")
        if isinstance(error, Cancelled) and error.bytes_sent is not None:
            late.bytes_sent = error.bytes_sent  # type: ignore[attr-defined]
        try:
            raise late from error
        finally:
            # Its traceback holds this frame, which would be a cycle.
            del late


@public
class move_on_after(_Deadline):  # noqa: N801 - reads as a statement
    """Bound a block in time and go on behind it: `with move_on_after(5) as scope: ...`.

    Afterwards `scope.expired` says whether the block was cut short. For the rest see `timeout`.

    Example:
        >>> import corolib
        >>> from corolib.testing import virtual_time
        >>> def main():
        ...     with corolib.move_on_after(5) as scope:
        ...         yield corolib.Sleep(60)
        ...     return scope.expired
        >>> corolib.run(main, **virtual_time())
        True

    Source: trio.move_on_after.
    """


@public
class shield(CancelScope):  # noqa: N801 - reads as a statement
    """Put off every cancel from outside until the block ends: `with shield(): ...`.

    Args:
        seconds: how long at most, from the moment at which the first cancel is put off; by
            default the grace of the run. `math.inf`: without bound.

    Raises:
        TypeError, ValueError: not a number, NaN, or minus infinity.
        ScopeError: as for `timeout`.

    Example:
        >>> import corolib
        >>> from corolib.testing import virtual_time
        >>> def careful(log):
        ...     with corolib.shield():
        ...         yield corolib.Sleep(0.5)
        ...         log.append("whole")
        >>> def main():
        ...     log = []
        ...     task = corolib.spawn(careful, log)
        ...     yield
        ...     yield from task.stop()
        ...     return log
        >>> corolib.run(main, **virtual_time())
        ['whole']

    Source: trio's shielded cancel scopes.
    """

    __documented__ = ""

    def __init__(self, seconds: float | None = None) -> None:
        if seconds is not None:
            self.shield = check_number(seconds, self, "a duration")

    def __enter__(self) -> Self:
        task = self.begin(1)
        if self.shield is None:
            self.shield = task.scheduler.grace
        return self

    if TYPE_CHECKING:

        def __exit__(self, *exc: object) -> bool | None: ...  # type: ignore[override]

    def __repr__(self) -> str:
        return "shield"
