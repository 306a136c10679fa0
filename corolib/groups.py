"""Several tasks at once, and several waits at once.

    with TaskGroup() as g:                        a, b = yield from gather(f(), g())
        g.spawn(f, x)                             index, value = yield from race(f(), g())
        results = yield from g                    index, value = yield from first(trap, trap)

None of them is left while a task that it has cancelled still runs. All but `first` look at tasks
only through `task.watch`; `first` asks the scheduler to make each wait in its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import Context, ContextVar, copy_context
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from corolib.errors import Cancelled, ScopeError
from corolib.reports import no_undo
from corolib.running import Runnable, current_scheduler, current_task, spawn, tired
from corolib.scopes import Block
from corolib.task import Task, body_of
from corolib.traps import (
    Coro,
    ReadWait,
    Sleep,
    Suspend,
    Trap,
    Waiting,
    Wake,
    WriteWait,
    forgive,
    waits,
)

if TYPE_CHECKING:
    from corolib.running import Services

T = TypeVar("T")


class TaskGroup(Block):
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
            the body is interrupted where it waits, or the wait for the group raises. The
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
            _check_limit("TaskGroup", limit)
        self._results: list[Any] = []  # of all tasks, by their place in the order of spawning
        self._live: dict[int, Task[Any]] = {}
        self._failures: dict[int, tuple[Task[Any], BaseException]] = {}
        self._ended = False
        self._body_error: BaseException | None = None
        self._wake: Wake | None = None
        self._limit = limit
        self._free = limit or 0
        self._line: dict[Wake, None] = {}  # the tasks that wait for their turn

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
        self,
        f: Callable[..., Runnable[T]] | Runnable[T],
        args: tuple[Any, ...],
        name: str | None,
        context: Context | None,
    ) -> Task[T]:
        if self.task is None or self._ended or self._failures:
            state = "failed" if self._failures else "ended" if self._ended else "not begun"
            raise RuntimeError(f"this group has {state}: no task can be spawned into it")
        scheduler = self.task.scheduler
        if self._limit is None:
            return scheduler.spawn(f, *args, name=name, parent=self.task, context=context)
        if not callable(f):
            body_of("spawn", f, args)  # a mistake shows here, not when it gets its turn
        name = name or getattr(f, "__name__", type(f).__name__)
        body = self._in_turn(f, args)
        return scheduler.spawn(body, name=name, parent=self.task, context=context)

    def _in_turn(self, f: Any, args: tuple[Any, ...]) -> Generator[Any, Any, Any]:
        """Run `f(*args)` when fewer than `limit` tasks do so."""
        scheduler = current_scheduler()
        if self._free:
            self._free -= 1
        else:
            try:
                yield Suspend(self._stand_in_line, f"its turn in a group of {self._limit}")
            except BaseException:
                if not callable(f):
                    forgive(f)  # it was made, and is never begun
                raise
        try:
            result = yield from _call(f, args)
        except BaseException:
            # Later: the group is told first, and if it has failed nobody gets the turn.
            scheduler.call_soon_threadsafe(self._pass_on)
            raise
        self._pass_on()
        return result

    def _pass_on(self) -> None:
        """Give a turn to the task that has been in the line longest."""
        if self._line:
            wake = next(iter(self._line))
            del self._line[wake]
            wake()
        else:
            self._free += 1

    def _stand_in_line(self, wake: Wake) -> Callable[[], object]:
        self._line[wake] = None
        return lambda: self._line.pop(wake, None)

    def _add(self, task: Task[Any]) -> None:
        if self._ended:
            raise RuntimeError("this group has ended: no task can be spawned into it")
        place = len(self._results)
        self._results.append(None)
        self._live[place] = task
        task.watch(partial(self._gone, place, task))
        if self._failures:  # meanwhile, while it was about to call `started`
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
            self._body_error = None  # whose traceback holds the group: no cycle
        elif self._wake is not None:
            wake, self._wake = self._wake, None
            wake()
        elif self._failures and self.task is not None:
            self.task.scheduler.interrupt(self.task, self)

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
            Cancelled: the wait was interrupted; the task is cancelled.
            RuntimeError: the group has failed or ended.
        """
        handshake = _Handshake(self, f, args, name)
        task = handshake.alive()
        try:
            return (yield Suspend(handshake.arm, f"started() of {task.label}", holder=task.held_by))
        except BaseException:
            handshake.over = True
            _leave_behind(task.scheduler.current or task, [task], "its start was interrupted")
            raise
        finally:
            del task, handshake  # the traceback holds this frame: that would be a cycle

    def __enter__(self) -> TaskGroup:
        self.begin(1)
        return self

    def __iter__(self) -> Generator[Any, Any, list[Any]]:
        if current_task() is not self.task or self._ended:
            raise RuntimeError("a group is waited for by the task that owns it, inside its block")
        give_way = tired()
        while self._live or give_way:
            yield Suspend(self._arm, _Words("the tasks of a group", self), holder=self._live.values)
            give_way = False
        self._ended = True
        if self._failures:
            raise self._group()
        return self._results

    __await__ = __iter__

    def _arm(self, wake: Wake) -> Callable[[], object]:
        if self._live:
            self._wake = wake
        else:
            wake()
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
    ) -> None:
        complaint = self._leave(kind, error)
        if complaint is not None:
            try:
                raise complaint from None
            finally:
                del complaint, error, trace, self  # the traceback holds this frame: no cycle

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None
    ) -> BaseException | None:
        """Leave the block by `error`; returns what is to be raised instead, if anything is."""
        owner = self.task
        if owner is None:
            return None  # left before
        joined, self._ended = self._ended, True
        left = self.tasks
        misuse = None
        try:
            owner.scheduler.leave(self, kind)
        except ScopeError as exc:
            misuse = exc.with_traceback(None)
        _leave_behind(owner, left, "the block of its group was left")
        if isinstance(error, Cancelled) and error.mark is self.delivered is not None:
            return self._group()
        complaint: BaseException | None = None
        if error is None:
            complaint = misuse or (None if joined else RuntimeError(_not_waited_for(left)))
        elif misuse is not None:
            error.add_note(f"and: {misuse}")
        self._body_error = error or complaint
        failures, self._failures = self._failures, {}
        for _, (task, failure) in sorted(failures.items()):
            self._note(task, failure)
        if not left:
            self._body_error = None
        return complaint

    async def __aenter__(self) -> TaskGroup:
        self.begin(1)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and not self._ended:
            try:
                await self
            except BaseException as exc:
                self.__exit__(type(exc), exc, exc.__traceback__)
                raise
        self.__exit__(kind, error, trace)

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


def _leave_behind(owner: Task[Any], tasks: list[Task[Any]], reason: str) -> None:
    """Cancel tasks; the next wait of `owner` first waits until they are gone."""
    left = [task for task in tasks if not task.done]
    for task in left:
        task.cancel(reason)
    if left:
        owner.debts = [*(owner.debts or ()), *left]
        owner.pending = True


def _check_limit(who: str, limit: int) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(
            f"{who}(limit={limit!r}): a number of tasks, at least 1, must be able to run"
        )


class _Handshake:
    """What `group.start` waits with, and `started` answers."""

    def __init__(self, group: TaskGroup, f: Any, args: tuple[Any, ...], name: str | None) -> None:
        context = copy_context()
        context.run(_handshake.set, self)
        self._group = group
        self.task = ref(group._start(f, args, name, context))  # its context holds us: no cycle
        self.over = False  # nobody waits for the answer any more
        self._answers: list[Any] = []
        self._wake: Wake | None = None
        self._undo: Callable[[], object] | None = None

    def arm(self, wake: Wake) -> Callable[[], object]:
        if self._answers:  # before the wait was made
            wake(self._answers[0])
        else:
            self._wake = wake
            self._undo = self.alive().watch(self._ended)
        return self._disarm

    def _disarm(self) -> Wake | None:
        undo, wake = self._undo, self._wake
        self._undo = self._wake = None
        if undo is not None:
            undo()
        return wake

    def alive(self) -> Task[Any]:
        task = self.task()
        assert task is not None  # `start` holds it
        return task

    def _ended(self, value: Any, error: BaseException | None) -> None:
        wake = self._disarm()
        assert wake is not None
        text = f"task {self.alive().label} ended without calling started()"
        wake(error=error or RuntimeError(text))

    def answer(self, value: Any) -> None:
        if self._answers:
            raise RuntimeError("started() was called before: once is enough")
        self._answers.append(value)
        if self.over:
            return
        self._group._add(self.alive())
        wake = self._disarm()
        if wake is not None:
            wake(value)


_handshake: ContextVar[_Handshake | None] = ContextVar("corolib_handshake", default=None)


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
    handshake = _handshake.get()
    if handshake is not None and handshake.task() is current_task():
        handshake.answer(value)


class _Crew:
    """Tasks whose ends are taken note of, as long as the crew is held by somebody."""

    def __init__(self, calls: Iterable[Any]) -> None:
        self._mine: set[Task[Any]] = set()
        self._undos: list[Callable[[], object]] = []
        self.tasks: list[Task[Any]] = []
        calls = [call if isinstance(call, Task) else body_of("spawn", call, ()) for call in calls]
        self.tasks = [call if isinstance(call, Task) else spawn(call) for call in calls]
        self._ended: deque[int] = deque()
        self._wake: Wake | None = None
        self._left = len(self.tasks)
        # Whose failures are to be reported: an earlier one was, or had a taker of its own.
        self._mine = {task for task in self.tasks if not task.done}
        end = partial(_Crew._end, ref(self))
        self._undos = [task.watch(partial(end, place)) for place, task in enumerate(self.tasks)]

    @staticmethod
    def _end(crew: ref[_Crew], place: int, value: Any, error: BaseException | None) -> None:
        self = crew()
        assert self is not None  # else it had let go
        self._left -= 1
        self._ended.append(place)
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake()

    def next(self) -> Generator[Any, Any, Task[Any]]:
        """Wait until another one has ended; returns it, and with it the care for its failure."""
        try:
            yield from self._next_end()
            task = self.tasks[self._ended.popleft()]
            self._mine.discard(task)
            return task
        finally:
            del self  # see `_gather`

    def _next_end(self) -> Generator[Any, Any, None]:
        try:
            if not self._ended or tired():
                yield Suspend(self._arm, _Words("the next end of", self), holder=self._running)
        finally:
            del self  # see `_gather`

    def _arm(self, wake: Wake) -> Callable[[], object]:
        if self._ended:
            wake()
        else:
            self._wake = wake
        return self._disarm

    def _disarm(self) -> None:
        self._wake = None

    def _running(self) -> list[Task[Any]]:
        return [task for task in self.tasks if not task.done]

    def dismiss(self) -> Coro[None]:
        """Cancel those that still run and wait until they are gone; report what they raise."""
        try:
            self._cancel()
            while self._left:
                self._ended.clear()
                yield from self._next_end()
        finally:
            self.let_go()

    def _cancel(self) -> None:
        for task in self.tasks:
            task.cancel("another task has decided it")

    def let_go(self) -> None:
        """Take no more note of the tasks; report the failures that nobody was given."""
        for undo in self._undos:
            undo()
        tasks, mine = self.tasks, self._mine
        self._undos, self.tasks, self._mine = [], [], set()
        for task in tasks:
            if task in mine and task.done and task.failure is not None:
                mine.discard(task)
                task.scheduler.report_failure(task, task.failure)

    __del__ = let_go  # of a loop that was left, or a `gather` without `yield from`

    def __repr__(self) -> str:
        return ", ".join(task.label for task in self._running())


class _Words:
    """Words that are put together only when a report asks for them."""

    __slots__ = ("_begin", "_thing")

    def __init__(self, begin: str, thing: object) -> None:
        self._begin = begin
        self._thing = thing

    def __str__(self) -> str:
        return f"{self._begin} {self._thing!r}"


def _call(f: Any, args: tuple[Any, ...]) -> Generator[Any, Any, Any]:
    """Run `f(*args)`, a generator function or an `async def`, in the running task."""
    body = body_of("spawn", f, args)
    return (yield from body if hasattr(body, "__iter__") else body.__await__())


def gather(*calls: Any) -> Waiting[list[Any]]:
    """Wait until all are done: `a, b = yield from gather(f(), g())`.

    The calls begin at once, as tasks beside the caller; a task may be given as well. What comes
    back is the list of what they returned.

    Raises:
        The first failure itself, when the others were cancelled and are gone; further ones are
            reported to `on_task_error`. `TaskCancelled` if one was cancelled.
        Cancelled: the wait was interrupted; all were cancelled and are gone.

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
    return _gather(_Crew(calls))


@waits
def _gather(crew: _Crew) -> Generator[Any, Any, list[Any]]:
    try:
        for _ in range(len(crew.tasks)):
            (yield from crew.next()).result  # noqa: B018 - raises the failure
        return [task.returned for task in crew.tasks]
    except BaseException:
        yield from crew.dismiss()
        raise
    finally:
        del crew  # the traceback holds this frame: that would be a cycle


def race(*calls: Any) -> Waiting[tuple[int, Any]]:
    """Wait for the first to end: `index, value = yield from race(f(), g())`.

    That may be a failure as well. The others are cancelled, and gone when this returns. Not for
    queues and locks: what a loser had obtained is lost; see `first`.

    Raises:
        What left the task that ended first; ValueError without any call.
        Cancelled: the wait was interrupted; all were cancelled and are gone.

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
    return _race(_Crew(calls))


@waits
def _race(crew: _Crew) -> Generator[Any, Any, tuple[int, Any]]:
    winner: Task[Any] | None = None
    try:
        try:
            winner = yield from crew.next()
            place = crew.tasks.index(winner)
        finally:
            yield from crew.dismiss()
        return place, winner.result
    finally:
        del crew, winner  # see `_gather`


def as_completed(*calls: Any) -> Iterator[Waiting[Any]]:
    """Take results as they come: `for step in as_completed(*tasks): value = yield from step`.

    Each step waits for the next task to end and returns what it returned. Leaving the loop early
    leaves the other tasks running.

    Raises:
        (a step) What left that task. Cancelled: the wait was interrupted; the tasks go on.

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
    crew = _Crew(calls)
    return (_step(crew) for _ in crew.tasks)


@waits
def _step(crew: _Crew) -> Generator[Any, Any, Any]:
    try:
        return (yield from crew.next()).result
    finally:
        del crew  # see `_gather`


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
        ValueError: the limit is less than one.
        Cancelled: the wait was interrupted; all were cancelled and are gone.

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
    _check_limit("map_concurrent", limit)
    jobs = enumerate(items)
    results: dict[int, T] = {}

    def work(job: tuple[int, Any] | None) -> Generator[Any, Any, None]:
        while job is not None:
            place, item = job
            results[place] = yield from _call(f, (item,))
            job = next(jobs, None)

    name = getattr(f, "__name__", None)
    begun = list(islice(jobs, limit))
    yield from gather(*[spawn(work, job, name=name) for job in begun])
    return [results[place] for place in sorted(results)]


@waits
def first(*traps: Trap) -> Generator[Any, Any, tuple[int, Any]]:
    """Wait for the first of several waits: `index, value = yield from first(trap, trap)`.

    `yield from first(q.getting(), event.waiting(), ReadWait(sock), Sleep(1))`: exactly one is
    taken; the others are undone there and then, as if they had never been made, before the task
    goes on. So an item stays in its queue, and a lock with its holder.

    Args:
        traps: the traps themselves, not the functions over them: `q.getting()`, not `q.get()`.

    Raises:
        What the wait that came first raises; BusyError and the like of any of them, at once.
        Cancelled: the wait was interrupted; none was taken.
        TypeError: one is no trap; ValueError without any.

    Example:
        >>> import corolib
        >>> def main():
        ...     return (yield from first(corolib.Sleep(10), corolib.Sleep(0.001)))
        >>> corolib.run(main)
        (1, None)

    Source: choice over events in Concurrent ML (J. Reppy, 1991); libdill's choose.
    """
    if not traps:
        raise ValueError("first() without any trap would wait for ever")
    for trap in traps:
        if not isinstance(trap, ReadWait | WriteWait | Sleep | Suspend):
            name = getattr(trap, "__name__", type(trap).__name__)
            raise TypeError(
                f"first() takes traps, such as ReadWait(sock), Sleep(1) or q.getting(), not {name}"
            )
    choice = _Choice(traps)
    taken: tuple[int, Any]
    taken = yield Suspend(choice.arm, choice, holder=choice.holders, outside=choice.outside)
    return taken


class _Choice:
    """Several waits of which one is to be taken."""

    def __init__(self, traps: tuple[Trap, ...]) -> None:
        self._traps = traps
        self._undos: dict[int, Callable[[], object]] = {}
        self._wake: Wake | None = None  # None: decided, or not yet begun
        # A file or a time can always come from outside; a Suspend says it of itself.
        self.outside = not all(isinstance(t, Suspend) and not t.outside for t in traps)

    def arm(self, wake: Wake) -> Callable[[], object]:
        self._wake = wake
        scheduler = current_scheduler()
        try:
            for n, trap in enumerate(self._traps):
                undo = scheduler.arm(trap, partial(self._woken, scheduler, n))
                if self._wake is None:
                    break  # this one was ready at once
                if not callable(undo):
                    raise TypeError(no_undo(trap, undo))
                self._undos[n] = undo
        except BaseException:
            self._undo_all()
            raise
        return self._undo_all

    def _woken(
        self, scheduler: Services, n: int, value: Any = None, error: BaseException | None = None
    ) -> None:
        """A wake of one of the waits. The decision is made in the scheduler's own thread."""
        if scheduler.at_once():
            self._decide(n, value, error)
        else:
            scheduler.call_soon_threadsafe(self._decide, n, value, error)

    def _decide(self, n: int, value: Any, error: BaseException | None) -> None:
        if self._wake is not None:
            wake = self._wake
            self._undos.pop(n, None)  # it is over, and is not to be undone
            self._undo_all()
            wake((n, value), error)

    def _undo_all(self) -> None:
        self._wake = None
        while self._undos:
            self._undos.popitem()[1]()

    def holders(self) -> list[Task[Any]]:
        return [
            task
            for trap in self._traps
            if isinstance(trap, Suspend) and trap.holder is not None
            for task in trap.holder()
        ]

    def __str__(self) -> str:
        return "the first of " + ", ".join(map(repr, self._traps))
