"""Several tasks whose results are taken: `gather`, `race`, `as_completed` and others.

    a, b = yield from gather(f(), g())
    index, value = yield from race(f(), g())
    index, value = yield from first_success(f(), g(), stagger=0.25)
    for step in as_completed(f(), g()): value = yield from step
    results = yield from map_concurrent(f, items, limit=10)

None of them is left while a task that it has cancelled still runs. How tasks end they learn from
`task.watch` alone. Groups, which are blocks, are in `groups.py`; several waits of one task are in
`first.py`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, takewhile
from math import inf
from typing import Any, Literal, TypeVar, overload
from weakref import ref

from corolib.coordination.timeouts import move_on_after
from corolib.coordination.waitqueue import WaitQueue, enqueue, nothing
from corolib.kernel import (
    Cancelled,
    Coro,
    Runnable,
    Steps,
    Suspend,
    Task,
    Waiting,
    Wake,
    body_of,
    brief,
    check_count,
    check_number,
    class_name,
    forgive,
    function_at,
    is_a,
    must_yield,
    name_of,
    now,
    public,
    serve,
    spawn,
    waits,
)

A = TypeVar("A")
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")

Call = Runnable[T] | Task[T]
"""What is started as a task, or is one already."""


def passed_on(error: BaseException | None, what: str) -> object:
    """Return why tasks are cancelled: that of the `Cancelled` by which `what` is left, or that."""
    if is_a(error, Cancelled):
        return error.reason  # type: ignore[union-attr]
    by = "" if error is None else f" by {class_name(error)}"
    return f"{what} was left{by}"


def leave_behind(owner: Task[Any], tasks: list[Task[Any]], reason: object) -> None:
    """Cancel tasks; the next wait of `owner` first waits until they are gone."""
    left = [task for task in tasks if not task.done]
    for task in left:
        task.cancel(reason)
    if left:
        owner.await_first = [*(owner.await_first or ()), *left]
        owner.pending = True


class _TaskSet:
    """Tasks whose ends are noted, for as long as somebody holds this set.

    Their failures are reported unless somebody was given them; or not at all, if to fail is one of
    the outcomes that are asked for.
    """

    def __init__(self, tasks: list[Task[Any]], reports: bool = True) -> None:
        self._reports = reports
        self.tasks: list[Task[Any]] = []
        # Those whose failures are to be reported. An earlier failure was reported, or taken.
        self._mine: set[Task[Any]] = set()
        # The places of those that have ended and that nobody was given yet.
        self._ended: deque[int] = deque()
        # Those who wait for the next end.
        self._waiting: WaitQueue = OrderedDict()
        self._left = 0
        self._closed = False
        self._undos: list[Callable[[], object]] = []
        for task in tasks:
            self.add(task)

    def add(self, task: Task[Any]) -> None:
        """Take one more task into the set."""
        end = partial(_TaskSet._end, ref(self), len(self.tasks))
        self.tasks.append(task)
        self._left += 1
        if self._reports and not task.done:
            self._mine.add(task)
        self._undos.append(task.watch(end))

    @staticmethod
    def _end(tasks: ref[_TaskSet], place: int, value: Any, error: BaseException | None) -> None:
        self = tasks()
        assert self is not None, "a set that is dropped watches no task any more"
        self._left -= 1
        if self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            serve(waiter, place)
        else:
            self._ended.append(place)

    def next(self) -> Generator[Any, Any, Task[Any]]:
        """Wait until another one has ended; returns it, and with it the care for its failure."""
        try:
            task = self.tasks[(yield from self._next_place())]
            self._mine.discard(task)
            return task
        finally:
            # As in `_gather`: no cycle.
            del self

    def _next_place(self) -> Generator[Any, Any, int]:
        try:
            if self._ended and not must_yield():
                return self._ended.popleft()
            place: int
            place = yield Suspend(self._arm, ("the next end of", self), holder=self._running)
            return place
        except GeneratorExit:
            self._closed = True
            raise
        finally:
            # As in `_gather`: no cycle.
            del self

    def _arm(self, wake: Wake) -> Callable[[], object]:
        if self._ended:
            wake(self._ended.popleft())
            return nothing
        return enqueue(self._waiting, wake, None)

    def _running(self) -> list[Task[Any]]:
        return [task for task in self.tasks if not task.done]

    def dismiss(self, reason: object) -> Coro[None]:
        """Cancel those that still run and wait until they are gone; report what they raise.

        Closed from outside, it cannot wait, and does not.
        """
        try:
            self._cancel(reason)
            while self._left and not self._closed:
                self._ended.clear()
                yield from self._next_place()
        finally:
            self.let_go()

    def _cancel(self, reason: object) -> None:
        for task in self.tasks:
            task.cancel(reason)

    def let_go(self) -> None:
        """Watch the tasks no more; report the failures that nobody was given."""
        for undo in self._undos:
            undo()
        tasks, mine = self.tasks, self._mine
        self._undos, self.tasks, self._mine = [], [], set()
        for task in tasks:
            if task in mine and task.done and task.failure is not None:
                mine.discard(task)
                task.scheduler.report_failure(task, task.failure)

    # Of a loop over `as_completed` that was left, or of a `gather` without `yield from`.
    __del__ = let_go

    def __repr__(self) -> str:
        return ", ".join(task.label for task in self._running())


def _begin(caller: str, calls: Iterable[Any], reports: bool = True) -> _TaskSet:
    """Start the calls, if all of them are what can be started."""
    return _TaskSet([_start(call) for call in _checked(caller, calls)], reports)


def _checked(caller: str, calls: Iterable[Any]) -> list[Any]:
    """Return the calls, if all of them are tasks or what can be started."""
    calls = tuple(calls)
    try:
        for call in calls:
            if _is_function(call):
                raise TypeError(_not_called(caller, call, calls))
        return [call if isinstance(call, Task) else body_of(caller, call, ()) for call in calls]
    except TypeError:
        for call in calls:
            for each in call if isinstance(call, list) else [call]:
                forgive(each)  # this error is enough
        raise


def _is_function(call: Any) -> bool:
    return callable(call) and not hasattr(call, "send")


def _not_called(caller: str, f: Any, calls: Sequence[Any]) -> str:
    """Return the message for a function among calls: what follows one may be its arguments."""
    shown = []
    for place, call in enumerate(calls):
        if _is_function(call):
            rest = calls[place + 1 :]
            args = takewhile(lambda each: not callable(each) and not hasattr(each, "send"), rest)
            given = ", ".join(map(brief, args)) or ("..." if _takes_something(call) else "")
            shown.append(f"{name_of(call, brief(call))}({given})")
        elif isinstance(call, Task):
            shown.append("task")
        elif hasattr(call, "send"):
            shown.append(f"{name_of(call).lstrip('_')}(...)")
    right = f"{caller}({', '.join(shown)})"
    return f"{caller}() takes calls, and got {function_at(f)}: write `{right}`"


def _takes_something(function: Any) -> bool:
    """Return whether a function has to be given something."""
    from inspect import signature

    try:
        return any(
            each.default is each.empty and each.kind < each.VAR_POSITIONAL
            for each in signature(function).parameters.values()
        )
    except Exception:
        return False  # not every function can say what it takes


def _start(call: Any) -> Task[Any]:
    return call if isinstance(call, Task) else spawn(call)


def call_here(caller: str, f: Any, args: tuple[Any, ...]) -> Generator[Any, Any, Any]:
    """Run `f(*args)`, a generator function or an `async def`, in the running task."""
    body = body_of(caller, f, args)
    return (yield from body if hasattr(body, "__iter__") else body.__await__())


@overload
def gather(
    a: Call[T1], b: Call[T2], /, *, return_exceptions: Literal[False] = False
) -> Waiting[tuple[T1, T2]]: ...
@overload
def gather(
    a: Call[T1], b: Call[T2], c: Call[T3], /, *, return_exceptions: Literal[False] = False
) -> Waiting[tuple[T1, T2, T3]]: ...
@overload
def gather(
    a: Call[T1],
    b: Call[T2],
    c: Call[T3],
    d: Call[T4],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Waiting[tuple[T1, T2, T3, T4]]: ...
@overload
def gather(*calls: Call[T], return_exceptions: Literal[False] = False) -> Waiting[list[T]]: ...
@overload
def gather(
    a: Call[T1], b: Call[T2], /, *, return_exceptions: Literal[True]
) -> Waiting[tuple[T1 | BaseException, T2 | BaseException]]: ...
@overload
def gather(
    a: Call[T1], b: Call[T2], c: Call[T3], /, *, return_exceptions: Literal[True]
) -> Waiting[tuple[T1 | BaseException, T2 | BaseException, T3 | BaseException]]: ...
@overload
def gather(
    a: Call[T1], b: Call[T2], c: Call[T3], d: Call[T4], /, *, return_exceptions: Literal[True]
) -> Waiting[
    tuple[T1 | BaseException, T2 | BaseException, T3 | BaseException, T4 | BaseException]
]: ...
@overload
def gather(
    *calls: Call[T], return_exceptions: Literal[True]
) -> Waiting[list[T | BaseException]]: ...
@public
def gather(*calls: Any, return_exceptions: bool = False) -> Waiting[Any]:
    """Wait until all are done: `a, b = yield from gather(f(), g())`.

    The calls begin at once, as tasks beside the caller; a task may be given as well. What comes
    back is the list of what they returned; type checkers see a tuple of up to four, so that each
    result has its own type.

    Args:
        return_exceptions: whether a failure stands in the list, in the place of what its task would
            have returned, cancels nobody and is not reported.

    Raises:
        The first failure itself, when the others were cancelled and are gone; further ones are
            reported to `on_task_error`. `TaskCancelled` if one was cancelled.
        Cancelled: the wait was cancelled; all were cancelled and are gone.

    Example:
        >>> import corolib
        >>> def double(x):
        ...     yield
        ...     return 2 * x
        >>> def main():
        ...     return (yield from corolib.gather(double(1), double(2)))
        >>> corolib.run(main)
        [2, 4]

    Source: asyncio.gather, whose failures leave the others running.
    """
    return _gather(_begin("gather", calls, not return_exceptions), return_exceptions)


@waits
def _gather(all_of: _TaskSet, return_exceptions: bool) -> Generator[Any, Any, list[Any]]:
    failed = None
    try:
        for _ in range(len(all_of.tasks)):
            ended = yield from all_of.next()
            if not return_exceptions:
                failed = ended
                ended.result  # noqa: B018 - raises the failure
                failed = None
        return [
            task.returned if (error := task.exception) is None else error for task in all_of.tasks
        ]
    except BaseException as exc:
        if failed is None:
            reason = passed_on(exc, "its gather()")
        else:
            what = "was cancelled" if failed.cancelled else "failed"
            reason = f"{failed.label}, of the same gather(), {what}"
        yield from all_of.dismiss(reason)
        raise
    finally:
        # The traceback of a failure holds this frame, which would be a cycle.
        del all_of
        ended = failed = error = None  # type: ignore[assignment]


@overload
def race(a: Call[T1], b: Call[T2], /) -> Waiting[tuple[int, T1 | T2]]: ...
@overload
def race(a: Call[T1], b: Call[T2], c: Call[T3], /) -> Waiting[tuple[int, T1 | T2 | T3]]: ...
@overload
def race(
    a: Call[T1], b: Call[T2], c: Call[T3], d: Call[T4], /
) -> Waiting[tuple[int, T1 | T2 | T3 | T4]]: ...
@overload
def race(*calls: Call[T]) -> Waiting[tuple[int, T]]: ...
@public
def race(*calls: Any) -> Waiting[Any]:
    """Wait for the first to end: `index, value = yield from race(f(), g())`.

    That may be a failure as well. The others are cancelled, and gone when this returns. Not for
    queues and locks: what a loser had obtained is lost; see `first`.

    Raises:
        What left the task that ended first; ValueError without any call.
        Cancelled: the wait was cancelled; all were cancelled and are gone.

    Example:
        >>> import corolib
        >>> def after(seconds):
        ...     yield corolib.Sleep(seconds)
        ...     return seconds
        >>> def main():
        ...     return (yield from corolib.race(after(10), after(0.001)))
        >>> corolib.run(main)
        (1, 0.001)
    """
    if not calls:
        raise ValueError("race() without any call has no winner")
    return _race(_begin("race", calls))


@waits
def _race(rivals: _TaskSet) -> Generator[Any, Any, tuple[int, Any]]:
    winner: Task[Any] | None = None
    try:
        try:
            winner = yield from rivals.next()
        except BaseException as exc:
            yield from rivals.dismiss(passed_on(exc, "its race()"))
            raise
        place = rivals.tasks.index(winner)
        yield from rivals.dismiss(f"{winner.label}, of the same race(), ended first")
        return place, winner.result
    finally:
        # As in `_gather`: no cycle.
        del rivals, winner


@overload
def first_success(
    a: Call[T1], b: Call[T2], /, *, stagger: float = 0
) -> Waiting[tuple[int, T1 | T2]]: ...
@overload
def first_success(
    a: Call[T1], b: Call[T2], c: Call[T3], /, *, stagger: float = 0
) -> Waiting[tuple[int, T1 | T2 | T3]]: ...
@overload
def first_success(
    a: Call[T1], b: Call[T2], c: Call[T3], d: Call[T4], /, *, stagger: float = 0
) -> Waiting[tuple[int, T1 | T2 | T3 | T4]]: ...
@overload
def first_success(*calls: Call[T], stagger: float = 0) -> Waiting[tuple[int, T]]: ...
@public
@waits
def first_success(*calls: Any, stagger: float = 0) -> Generator[Any, Any, tuple[int, Any]]:
    """Wait for the first that returns: `index, value = yield from first_success(f(), g())`.

    The calls begin one after the other, `stagger` seconds apart, or as soon as one has failed. When
    one has returned, those under way are cancelled, and gone when this returns; those whose turn
    never came are not begun. If two return at the same moment, the second result is lost: see
    `race`. No failure is reported to `on_task_error`.

    Args:
        stagger: seconds; `math.inf`: one after the other, each when the one before has failed.

    Raises:
        ExceptionGroup: all have failed; in the order of the calls. ValueError without any call.
        TypeError, ValueError: `stagger` is no number, or NaN.
        Cancelled: the wait was cancelled; all were cancelled and are gone.

    Example:
        >>> import corolib
        >>> def after(seconds):
        ...     yield corolib.Sleep(seconds)
        ...     return 1 / seconds
        >>> def main():
        ...     return (yield from corolib.first_success(after(0), after(0.5), stagger=10))
        >>> corolib.run(main)
        (1, 2.0)

    Source: RFC 8305 (Happy Eyeballs), for any calls.
    """
    stagger = check_number(stagger, "first_success(stagger=)", "a duration")
    if not calls:
        raise ValueError("first_success() without any call has no winner")
    todo = deque(_checked("first_success", calls))
    rivals = _TaskSet([], reports=False)
    errors: dict[int, BaseException] = {}
    begin = -inf  # the next one
    reason: object = None
    task: Task[Any] | None
    try:
        while len(errors) < len(calls):
            if todo and now() >= begin:
                rivals.add(_start(todo.popleft()))
                begin = now() + stagger
                continue
            task = None
            with move_on_after(at=begin if todo else inf):
                task = yield from rivals.next()
            if task is None:
                continue
            error = task.exception
            if error is None:
                reason = f"{task.label}, of the same first_success(), succeeded first"
                return rivals.tasks.index(task), task.returned
            errors[rivals.tasks.index(task)] = error
            begin = -inf
        raise BaseExceptionGroup(
            f"none of {len(calls)} calls has succeeded", [errors[place] for place in sorted(errors)]
        )
    except BaseException as exc:
        reason = passed_on(exc, "its first_success()")
        raise
    finally:
        for call in todo:
            if isinstance(call, Task):
                rivals.add(call)
            else:
                forgive(call)
        yield from rivals.dismiss(reason)
        # As in `_gather`: no cycle.
        del rivals, errors
        task = error = None


@public
def as_completed(*calls: Call[T]) -> Iterator[Waiting[T]]:
    """Take results as they come: `for step in as_completed(*tasks): value = yield from step`.

    Each step waits for the next task to end and returns what it returned. Leaving the loop early
    leaves the other tasks running.

    Raises:
        (a step) What left that task. Cancelled: the wait was cancelled; the tasks go on.

    Example:
        >>> import corolib
        >>> def after(seconds):
        ...     yield corolib.Sleep(seconds)
        ...     return seconds
        >>> def main():
        ...     order = []
        ...     for step in corolib.as_completed(after(0.02), after(0.001)):
        ...         order.append((yield from step))
        ...     return order
        >>> corolib.run(main)
        [0.001, 0.02]

    Source: asyncio.as_completed.
    """
    begun = _begin("as_completed", calls)
    steps = (_step(begun) for _ in begun.tasks)
    return Steps("as_completed", steps.__next__)


@waits
def _step(begun: _TaskSet) -> Generator[Any, Any, Any]:
    try:
        return (yield from begun.next()).result
    finally:
        # As in `_gather`: no cycle.
        del begun


@public
@waits
def map_concurrent(
    f: Callable[[A], Runnable[T]], items: Iterable[A], *, limit: int
) -> Generator[Any, Any, list[T]]:
    """Wait until `f(item)` has run for each item, at most `limit` at a time.

    `results = yield from map_concurrent(fetch, urls, limit=10)`: in the order of the items, of
    which no more are taken than are being worked on.

    Args:
        f: a generator function or an `async def`.
        items: any iterable, also an endless one that is left by a failure.
        limit: how many may run at a time.

    Raises:
        The first failure itself, when the others were cancelled and are gone.
        TypeError, ValueError: the limit is no whole number, or less than 1.
        Cancelled: the wait was cancelled; all were cancelled and are gone.

    Example:
        >>> import corolib
        >>> def double(x):
        ...     yield
        ...     return 2 * x
        >>> def main():
        ...     return (yield from corolib.map_concurrent(double, range(5), limit=2))
        >>> corolib.run(main)
        [0, 2, 4, 6, 8]
    """
    check_count(limit, "map_concurrent(limit=)", 1)
    jobs = enumerate(items)
    results: dict[int, T] = {}

    def work(job: tuple[int, A] | None) -> Generator[Any, Any, None]:
        while job is not None:
            place, item = job
            results[place] = yield from call_here("map_concurrent", f, (item,))
            job = next(jobs, None)

    name = name_of(f)
    begun = list(islice(jobs, limit))
    yield from gather(*[spawn(work, job, name=name) for job in begun])
    return [results[place] for place in sorted(results)]
