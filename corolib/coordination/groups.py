"""Several tasks at once: groups, `gather`, `race`, `as_completed`, `map_concurrent`.

    with TaskGroup() as g:                        a, b = yield from gather(f(), g())
        g.spawn(f, x)                             index, value = yield from race(f(), g())
        results = yield from g                    for step in as_completed(f(), g()): ...

None of them is left while a task that it has cancelled still runs. How tasks end they learn from
`task.watch` alone. Several waits of one task are in `first.py`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import Context, ContextVar, copy_context
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar
from weakref import ref

from corolib.coordination.locks import Semaphore
from corolib.coordination.waitqueue import WaitQueue, enqueue, nothing
from corolib.kernel import (
    CancelScope,
    Coro,
    Runnable,
    ScopeError,
    Suspend,
    Task,
    Waiting,
    Wake,
    body_of,
    check_count,
    current_scheduler,
    current_task,
    forgive,
    must_yield,
    public,
    serve,
    spawn,
    waits,
)

T = TypeVar("T")


@public
class TaskGroup(CancelScope):
    """Tasks that belong together: one fails, all are cancelled; and the block ends when all have.

    `with TaskGroup() as g: g.spawn(f, x); ...; results = yield from g`. The last line may not be
    left out: a `with` block cannot wait by itself. In an `async def`, `async with` does it.

    What comes back is the list of what the tasks returned, in the order in which they were
    spawned, and None for a task that somebody cancelled by itself.

    Args:
        limit: how many of the tasks may run at a time; the others wait for their turn in order.
            A task that never gets it is never started: its function is not called.

    Raises:
        ExceptionGroup: tasks failed. The first failure cancels the others; when they are gone,
            the body is cancelled where it waits, or the wait for the group raises. The
            failures are in the order of spawning.
        RuntimeError: the block was left without `yield from group`.
        What the body raises leaves the block as it is. The tasks are cancelled; the next wait of
            the task that owns the group first waits until they are gone. What they raise
            meanwhile goes to `on_task_error` and is noted on the body's exception.

    Example:
        >>> import corolib
        >>> def double(x):
        ...     yield
        ...     return 2 * x
        >>> def main():
        ...     with TaskGroup() as g:
        ...         g.spawn(double, 1)
        ...         g.spawn(double, 2)
        ...         return (yield from g)
        >>> corolib.run(main)
        [2, 4]

    Source: N. J. Smith, "Notes on structured concurrency" (2018); asyncio.TaskGroup.
    """

    def __init__(self, *, limit: int | None = None) -> None:
        if limit is not None:
            check_count(limit, "TaskGroup(limit=)", 1)
        # The results of all tasks, by their place in the order of spawning.
        self._results: list[Any] = []
        self._live: dict[int, Task[Any]] = {}
        self._failures: dict[int, tuple[Task[Any], BaseException]] = {}
        self._ended = False
        self._body_error: BaseException | None = None
        self._wake: Wake | None = None
        self._limit = limit
        # Without a limit nobody asks for a turn.
        self._turns = Semaphore(limit or 0)

    @property
    def tasks(self) -> list[Task[Any]]:
        """The tasks that are not done, oldest first."""
        return list(self._live.values())

    def spawn(
        self,
        f: Callable[..., Runnable[T]] | Runnable[T],
        /,
        *args: Any,
        name: str | None = None,
        context: Context | None = None,
    ) -> Task[T]:
        """Start a task in the group; does not wait. Its parent is the task that owns the group.

        Raises:
            RuntimeError: a task of the group has failed, or its block has ended or not begun.
            TypeError: as for `corolib.spawn`.
        """
        task = self._start(f, args, name, context)
        self._add(task)
        return task

    def _start(
        self, f: Any, args: tuple[Any, ...], name: str | None, context: Context | None
    ) -> Task[Any]:
        if self.task is None or self._ended or self._failures:
            state = "failed" if self._failures else "ended" if self._ended else "not begun"
            refusal = RuntimeError(f"this group has {state}: no task can be spawned into it")
            # If it leaves the block, the failure that is behind it leaves in its place.
            refusal.group = self  # type: ignore[attr-defined]
            raise refusal
        scheduler = self.task.scheduler
        if self._limit is None:
            return scheduler.spawn(f, *args, name=name, parent=self.task, context=context)
        if not callable(f):
            # A mistake is raised here, and not when the task gets its turn.
            body_of("spawn", f, args)
        name = name or getattr(f, "__name__", type(f).__name__)
        body = self._in_turn(f, args)
        return scheduler.spawn(body, name=name, parent=self.task, context=context)

    def _in_turn(self, f: Any, args: tuple[Any, ...]) -> Generator[Any, Any, Any]:
        """Run `f(*args)` when fewer than `limit` tasks do so."""
        scheduler, turns = current_scheduler(), self._turns
        if not turns.take(current_task()):
            try:
                yield Suspend(turns.acquiring().arm, f"its turn in a group of {self._limit}")
            except BaseException:
                if not callable(f):
                    # The generator was made, and is never begun.
                    forgive(f)
                raise
        try:
            result = yield from call_here(f, args)
        except BaseException:
            # Later, so that the group learns of it first: if it has failed, nobody gets the turn.
            scheduler.call_soon_threadsafe(turns.release)
            raise
        turns.release()
        return result

    def _add(self, task: Task[Any]) -> None:
        if self._ended:
            raise RuntimeError("this group has ended: no task can be spawned into it")
        place = len(self._results)
        self._results.append(None)
        self._live[place] = task
        task.watch(partial(self._gone, place, task))
        if self._failures:
            # The group failed while the task was about to call `started`.
            task.cancel("the group has failed")

    def _gone(self, place: int, task: Task[Any], value: Any, error: BaseException | None) -> None:
        """A task is done."""
        del self._live[place]
        self._results[place] = value
        if error is not None and not task.cancelled:
            if self._ended:
                self._note(task, error)
            else:
                if not self._failures:
                    for sibling in self.tasks:
                        sibling.cancel(f"{task.label}, of the same group, failed")
                self._failures[place] = task, error
        if self._live:
            return
        if self._ended:
            # The traceback of the body's error holds the group, which would be a cycle.
            self._body_error = None
        elif self._wake is not None:
            wake, self._wake = self._wake, None
            wake()
        elif self._failures and self.task is not None:
            self.task.scheduler.cancel_scope(self.task, self)

    def _note(self, task: Task[Any], error: BaseException) -> None:
        """Report a failure that cannot leave the block any more."""
        if self._body_error is not None:
            self._body_error.add_note(f"task {task.label} of the group failed as well: {error!r}")
        task.scheduler.report_failure(task, error)

    @waits
    def start(
        self, f: Callable[..., Runnable[Any]], /, *args: Any, name: str | None = None
    ) -> Generator[Any, Any, Any]:
        """Wait until a task, spawned in the group, calls `started(value)`; returns the value.

        Until then the task is the caller's: what it raises, this call raises.

        Raises:
            What left the task before it called `started`; RuntimeError if it ended without.
            Cancelled: the wait was cancelled; the task is cancelled.
            RuntimeError: the group has failed or ended.
        """
        context = copy_context()
        task = self._start(f, args, name, context)
        handshake = _Handshake(self, task)
        context.run(_handshake.set, handshake)
        try:
            what = f"started() of {task.label}"
            return (yield Suspend(handshake.arm, what, holder=[task].copy))
        except BaseException:
            handshake.over = True
            leave_behind(task.scheduler.current or task, [task], "its start was cancelled")
            raise
        finally:
            # The traceback of a failure holds this frame, which would be a cycle.
            del task, handshake

    def __enter__(self) -> TaskGroup:
        self.begin(1)
        return self

    def __iter__(self) -> Generator[Any, Any, list[Any]]:
        if current_task() is not self.task:
            raise RuntimeError("a group is waited for by the task that owns it, inside its block")
        if self._ended:
            raise RuntimeError("this group has ended: it was waited for before")
        wait = self._live or must_yield()
        while wait:
            yield Suspend(self._arm, ("the tasks of a group", self), holder=self._live.values)
            wait = self._live
        self._ended = True
        if self._failures:
            raise self._group()
        return self._results

    __await__ = __iter__

    def _arm(self, wake: Wake) -> Callable[[], object]:
        if not self._live:
            wake()
            return nothing
        self._wake = wake
        return self._disarm

    def _disarm(self) -> None:
        self._wake = None

    def _group(self) -> BaseException:
        """Return the failures as one exception, and forget them."""
        failures = [error for _, (_, error) in sorted(self._failures.items())]
        self._failures = {}
        return BaseExceptionGroup(f"{len(failures)} of {len(self._results)} tasks failed", failures)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        leaving = self._leave(kind, error)
        if leaving is error:
            return False
        if leaving is None:
            return True
        try:
            raise leaving from None
        finally:
            # The traceback holds this frame, which would be a cycle.
            del leaving, error, trace, self

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None
    ) -> BaseException | None:
        """Leave the block by `error`, or by None; returns by what it is left in truth."""
        owner = self.task
        if owner is None:
            # The block was left before.
            return error
        joined, self._ended = self._ended, True
        left = self.tasks
        misuse = None
        try:
            owner.scheduler.cancellation.leave(self, kind)
        except ScopeError as exc:
            misuse = exc.with_traceback(None)
        leave_behind(owner, left, "the block of its group was left")
        if self.is_left_by(error):
            # Without failures: the body was given them before.
            return self._group() if self._failures else None
        if self._failures and getattr(error, "group", None) is self:
            error = self._group()
        if error is None:
            error = misuse or (None if joined else RuntimeError(_not_waited_for(left)))
        elif misuse is not None:
            error.add_note(f"and: {misuse}")
        self._body_error = error
        failures, self._failures = self._failures, {}
        for _, (task, failure) in sorted(failures.items()):
            self._note(task, failure)
        if not left:
            self._body_error = None
        return error

    async def __aenter__(self) -> TaskGroup:
        self.begin(1)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if error is None and not self._ended:
            try:
                await self
            except BaseException as exc:
                self.__exit__(type(exc), exc, exc.__traceback__)
                raise
        return self.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        state = "ended" if self._ended else "failed" if self._failures else "open"
        return f"<TaskGroup {state}, {len(self._live)} of {len(self._results)} tasks running>"


def _not_waited_for(left: list[Task[Any]]) -> str:
    """Return the complaint about a group whose block was left without a wait for it."""
    text = "TaskGroup block ended without `yield from group`"
    if not left:
        return text
    were = "task was" if len(left) == 1 else "tasks were"
    names = ", ".join(task.label for task in left)
    return f"{text}; {len(left)} {were} running ({names}) and {were.split()[1]} cancelled"


def leave_behind(owner: Task[Any], tasks: list[Task[Any]], reason: str) -> None:
    """Cancel tasks; the next wait of `owner` first waits until they are gone."""
    left = [task for task in tasks if not task.done]
    for task in left:
        task.cancel(reason)
    if left:
        owner.await_first = [*(owner.await_first or ()), *left]
        owner.pending = True


class _Handshake:
    """What `group.start` waits with, and `started` answers."""

    def __init__(self, group: TaskGroup, task: Task[Any]) -> None:
        # The context of the task holds this object, which would be a cycle.
        self.task = ref(task)
        # Whether nobody waits for the answer any more.
        self.over = False
        self._group = group
        self._answers: list[Any] = []
        self._wake: Wake | None = None

    def arm(self, wake: Wake) -> Callable[[], object]:
        if self._answers:
            # The task has called `started` before the wait was made.
            wake(self._answers[0])
            return nothing
        self._wake = wake
        task = self.task()
        assert task is not None, "`start` holds it"
        silent = f"task {task.label} ended without calling started()"
        return task.watch(lambda value, error: wake(error=error or RuntimeError(silent)))

    def answer(self, task: Task[Any], value: Any) -> None:
        if self._answers:
            raise RuntimeError("started() was called before: once is enough")
        self._answers.append(value)
        if self.over:
            return
        self._group._add(task)
        if self._wake is not None:
            self._wake(value)


_handshake: ContextVar[_Handshake | None] = ContextVar("corolib_handshake", default=None)


@public
def started(value: Any = None) -> None:
    """Tell the task that waits in `group.start(f, ...)` for the caller that it is ready.

    Does not wait. In a task that was spawned otherwise it does nothing, so that one function
    serves both ways.

    Raises:
        RuntimeError: it was called before.

    Example:
        >>> import corolib
        >>> def service():
        ...     yield
        ...     started("ready")
        ...     yield corolib.Sleep(0.001)
        >>> def main():
        ...     with TaskGroup() as g:
        ...         value = yield from g.start(service)
        ...         yield from g
        ...     return value
        >>> corolib.run(main)
        'ready'

    Source: trio's nursery.start.
    """
    handshake, task = _handshake.get(), current_task()
    if handshake is not None and handshake.task() is task:
        handshake.answer(task, value)


class _TaskSet:
    """Tasks whose ends are noted, for as long as somebody holds this set."""

    def __init__(self, tasks: list[Task[Any]]) -> None:
        self.tasks = tasks
        # Those whose failures are to be reported. An earlier failure was reported, or taken.
        self._mine = {task for task in tasks if not task.done}
        # The places of those that have ended and that nobody was given yet.
        self._ended: deque[int] = deque()
        # Those who wait for the next end.
        self._waiting: WaitQueue = OrderedDict()
        self._left = len(tasks)
        self._closed = False
        end = partial(_TaskSet._end, ref(self))
        self._undos = [task.watch(partial(end, place)) for place, task in enumerate(tasks)]

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

    def dismiss(self) -> Coro[None]:
        """Cancel those that still run and wait until they are gone; report what they raise.

        Closed from outside, it cannot wait, and does not.
        """
        try:
            self._cancel()
            while self._left and not self._closed:
                self._ended.clear()
                yield from self._next_place()
        finally:
            self.let_go()

    def _cancel(self) -> None:
        for task in self.tasks:
            task.cancel("another task has decided it")

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


def _begin(calls: Iterable[Any]) -> _TaskSet:
    """Start the calls, if all of them are what can be started."""
    calls = [call if isinstance(call, Task) else body_of("spawn", call, ()) for call in calls]
    return _TaskSet([call if isinstance(call, Task) else spawn(call) for call in calls])


def call_here(f: Any, args: tuple[Any, ...]) -> Generator[Any, Any, Any]:
    """Run `f(*args)`, a generator function or an `async def`, in the running task."""
    body = body_of("spawn", f, args)
    return (yield from body if hasattr(body, "__iter__") else body.__await__())


@public
def gather(*calls: Any) -> Waiting[list[Any]]:
    """Wait until all are done: `a, b = yield from gather(f(), g())`.

    The calls begin at once, as tasks beside the caller; a task may be given as well. What comes
    back is the list of what they returned.

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
        ...     return (yield from gather(double(1), double(2)))
        >>> corolib.run(main)
        [2, 4]

    Source: asyncio.gather, whose failures leave the others running.
    """
    return _gather(_begin(calls))


@waits
def _gather(all_of: _TaskSet) -> Generator[Any, Any, list[Any]]:
    try:
        for _ in range(len(all_of.tasks)):
            (yield from all_of.next()).result  # noqa: B018 - raises the failure
        return [task.returned for task in all_of.tasks]
    except BaseException:
        yield from all_of.dismiss()
        raise
    finally:
        # The traceback of a failure holds this frame, which would be a cycle.
        del all_of


@public
def race(*calls: Any) -> Waiting[tuple[int, Any]]:
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
        ...     return (yield from race(after(10), after(0.001)))
        >>> corolib.run(main)
        (1, 0.001)
    """
    if not calls:
        raise ValueError("race() without any call has no winner")
    return _race(_begin(calls))


@waits
def _race(rivals: _TaskSet) -> Generator[Any, Any, tuple[int, Any]]:
    winner: Task[Any] | None = None
    try:
        try:
            winner = yield from rivals.next()
            place = rivals.tasks.index(winner)
        finally:
            yield from rivals.dismiss()
        return place, winner.result
    finally:
        # As in `_gather`: no cycle.
        del rivals, winner


@public
def as_completed(*calls: Any) -> Iterator[Waiting[Any]]:
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
        ...     for step in as_completed(after(0.02), after(0.001)):
        ...         order.append((yield from step))
        ...     return order
        >>> corolib.run(main)
        [0.001, 0.02]

    Source: asyncio.as_completed.
    """
    begun = _begin(calls)
    return (_step(begun) for _ in begun.tasks)


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
    f: Callable[[Any], Runnable[T]], items: Iterable[Any], *, limit: int
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
        ...     return (yield from map_concurrent(double, range(5), limit=2))
        >>> corolib.run(main)
        [0, 2, 4, 6, 8]
    """
    check_count(limit, "map_concurrent(limit=)", 1)
    jobs = enumerate(items)
    results: dict[int, T] = {}

    def work(job: tuple[int, Any] | None) -> Generator[Any, Any, None]:
        while job is not None:
            place, item = job
            results[place] = yield from call_here(f, (item,))
            job = next(jobs, None)

    name = getattr(f, "__name__", None)
    begun = list(islice(jobs, limit))
    yield from gather(*[spawn(work, job, name=name) for job in begun])
    return [results[place] for place in sorted(results)]
