"""Groups: tasks that belong together, and end with their block.

    with TaskGroup() as g:
        g.spawn(f, x)
        value = yield from g.start(service)     until it calls `started(value)`
        results = yield from g

How tasks end a group learns from `task.watch` alone. What takes the results of several tasks
without a block is in `tasksets.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextvars import Context, ContextVar, copy_context
from functools import partial
from types import CoroutineType, TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple
from weakref import ref

from corolib.coordination.locks import Semaphore
from corolib.coordination.tasksets import call_here, leave_behind, passed_on
from corolib.coordination.waitqueue import nothing
from corolib.kernel import (
    CancelScope,
    Runnable,
    ScopeError,
    Suspend,
    Task,
    Wake,
    attribute,
    body_of,
    check_count,
    current_scheduler,
    current_task,
    forgive,
    must_yield,
    name_of,
    note,
    public,
    some,
    told,
    trace_of,
    waits,
    with_trace,
)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NOTED = 5  # failures of tasks that are noted on the error of the body


@public
class TaskGroup(CancelScope):
    """Tasks that belong together: one fails, all are cancelled; and the block ends when all have.

    `with TaskGroup() as g: g.spawn(f, x); ...; results = yield from g`. The last line may not be
    left out: a `with` block cannot wait by itself. In an `async def`, `async with` does it.

    The result is the list of the tasks' results, in the order in which they were spawned, and None
    for a task that was cancelled by itself.

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
        ...     with corolib.TaskGroup() as g:
        ...         g.spawn(double, 1)
        ...         g.spawn(double, 2)
        ...         return (yield from g)
        >>> corolib.run(main)
        [2, 4]

    Source: N. J. Smith, "Notes on structured concurrency" (2018); asyncio.TaskGroup.
    """

    __documented__ = "spawn start tasks"

    def __init__(self, *, limit: int | None = None) -> None:
        if limit is not None:
            check_count(limit, "TaskGroup(limit=)", 1)
        # The results of all tasks, by their place in the order of spawning.
        self._results: list[Any] = []
        self._live: dict[int, Task[Any]] = {}
        self._failures: dict[int, tuple[Task[Any], BaseException]] = {}
        self._cause = ""  # the first of them, in words
        self._ended = False
        self._was_cancelled = False  # by `cancel()` or its deadline, and not by a failure
        self._body_error: BaseException | None = None
        self._noted = 0  # failures of tasks that its notes tell of, or would
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
        f: Callable[[*Ts], Runnable[T]] | Runnable[T],
        /,
        *args: *Ts,
        name: str | None = None,
        context: Context | None = None,
    ) -> Task[T]:
        """Start a task in the group; does not wait. Its parent is the task that owns the group.

        Raises:
            RuntimeError: a task of the group has failed, or its block has ended or not begun. `f`
                is closed, if it is a generator or a coroutine.
            TypeError: as for `corolib.spawn`.
        """
        task = self._start(f, args, name, context)
        self._add(task)
        return task

    def cancel(self, reason: object = None) -> None:
        """Ask the body and all tasks of the group to end; does not wait.

        The body gets `Cancelled` at the wait that it is in or makes next. The block is left
        without an exception, also without `yield from group`; but with the failures of tasks, if
        there were any by then. A task that is spawned into it afterwards is cancelled too.
        Otherwise this is `CancelScope.cancel`.

        Where a block around the group closes what its tasks use, end the group's block by `yield
        from group`: it waits until they are gone. Without that the next wait does, which is later.
        """
        super().cancel(reason)

    def ask(self, reason: object) -> None:
        """Ask the body to leave the block, and all tasks to end."""
        self._was_cancelled = True
        for task in self.tasks:
            task.cancel(reason)
        super().ask(reason)

    def _start(
        self, f: Any, args: tuple[Any, ...], name: str | None, context: Context | None
    ) -> Task[Any]:
        if self.task is None or self._ended or self._failures:
            state = "failed" if self._failures else "ended" if self._ended else "not begun"
            if not callable(f):
                # The error is enough: that it was never awaited is no other mistake.
                forgive(f)
            cure = "" if self.task else ". It begins with its block: write `with TaskGroup() as g:`"
            refusal = RuntimeError(f"this group has {state}: no task can be spawned into it{cure}")
            # If it leaves the block, the failure that is behind it leaves in its place.
            refusal.group = self  # type: ignore[attr-defined]
            raise refusal
        scheduler = self.task.scheduler
        if self._limit is None:
            return scheduler.spawn(f, *args, name=name, parent=self.task, context=context)
        if not callable(f):
            # A mistake is raised here, and not when the task gets its turn.
            body_of("spawn", f, args)
        name = name or name_of(f)
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
            result = yield from call_here("spawn", f, args)
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
            task.cancel(self._cause)
        elif self._was_cancelled:
            assert self.cancel_request is not None
            task.cancel(self.cancel_request.reason)

    def _gone(self, place: int, task: Task[Any], value: Any, error: BaseException | None) -> None:
        """A task is done."""
        del self._live[place]
        self._results[place] = value
        if error is not None and not task.cancelled:
            if self._ended:
                self._note(task, error)
            else:
                if not self._failures:
                    self._cause = f"{task.label}, of the same group, failed"
                    for sibling in self.tasks:
                        sibling.cancel(self._cause)
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
            super().ask(self._cause)

    def _note(self, task: Task[Any], error: BaseException) -> None:
        """Report a failure that cannot leave the block any more."""
        if self._body_error is not None:
            self._noted += 1
            if self._noted <= NOTED:
                text = f"task {task.label} of the group failed as well: {told(error)}"
                note(self._body_error, text)
            elif self._noted == NOTED + 1:
                note(self._body_error, "and so did more of them, which are reported")
        task.scheduler.report_failure(task, error)

    @waits
    def start(
        self, f: Callable[[*Ts], Runnable[Any]], /, *args: *Ts, name: str | None = None
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
        except BaseException as exc:
            handshake.over = True
            leave_behind(task.scheduler.current or task, [task], passed_on(exc, "its start()"))
            raise
        finally:
            # The traceback of a failure holds this frame, which would be a cycle.
            del task, handshake

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

    def __exit__(  # type: ignore[override] # as with `timeout`
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
            misuse = with_trace(exc, None)
        if left:
            leave_behind(owner, left, passed_on(error, "the block of its group"))
        if self.is_left_by(error):
            self.cancelled_caught = True
            # Without failures: the body was given them before, or there were none.
            return self._group() if self._failures else None
        if self._was_cancelled and error is None and misuse is None:
            return self._group() if self._failures else None
        if self._failures and attribute(error, "group") is self:
            error = self._group()
        if error is None:
            error = misuse or (None if joined else RuntimeError(_not_waited_for(left, owner)))
        elif misuse is not None:
            note(error, f"and: {misuse}")
        self._body_error = error
        failures, self._failures = self._failures, {}
        for _, (task, failure) in sorted(failures.items()):
            self._note(task, failure)
        if not left:
            self._body_error = None
        return error

    async def __aenter__(self) -> Self:
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
                if self.__exit__(type(exc), exc, trace_of(exc)):
                    return True
                raise
        return self.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        state = "ended" if self._ended else "failed" if self._failures else "open"
        return f"<TaskGroup {state}, {len(self._live)} of {len(self._results)} tasks running>"


def _not_waited_for(left: list[Task[Any]], owner: Task[Any]) -> str:
    """Return the complaint about a group whose block was left without a wait for it."""
    text = "TaskGroup block ended without `yield from group`"
    if isinstance(owner.body, CoroutineType):
        text = (
            "TaskGroup block ended without `await group`: write `async with TaskGroup() as group:`"
        )
    if not left:
        return text
    were = "task was" if len(left) == 1 else "tasks were"
    names = some([task.label for task in left])
    return f"{text}; {len(left)} {were} running ({names}) and {were.split()[1]} cancelled"


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
        return task.watch(
            lambda value, error: wake(error=RuntimeError(silent) if error is None else error)
        )

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
        ...     corolib.started("ready")
        ...     yield corolib.Sleep(0.001)
        >>> def main():
        ...     with corolib.TaskGroup() as g:
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
