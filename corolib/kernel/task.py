"""A task: one generator (or coroutine) being run, its place in the family, and its outcome.

Programs use the properties and methods. The fields are working memory of the scheduler, the poller
and the scopes. To step, wake and end a task is the scheduler's.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from corolib.kernel.bodies import is_begun
from corolib.kernel.cancellation import CancelRequest, Scope
from corolib.kernel.context import current_task, must_yield
from corolib.kernel.diagnostics import explained
from corolib.kernel.errors import Deadlock, TaskCancelled
from corolib.kernel.frames import Site, frames_of, line_of, users_part
from corolib.kernel.safely import brief, name_of, plain, trace_of, with_trace
from corolib.kernel.waits import Documented, public, waits

if TYPE_CHECKING:
    from corolib.kernel.scheduler import Scheduler

T = TypeVar("T")


@public
class Task(Scope, Generic[T], metaclass=Documented):
    """The handle of a task, made by `spawn()` and `run()`.

    `result = yield from task` waits until the task and its children are done and returns what its
    body returned, or raises what left it: the exception itself, or `TaskCancelled`. A joiner that
    is cancelled leaves the task running.

    Attributes:
        name, id: `label` joins them to `echo#3`. Ids count up from 1 in each scheduler.
        parent: the task that owns this one, None for main.
        daemon: True if the task does not keep its parent from ending.
        wait: the trap that it waits in; None while it does not wait, or is ready with a result.
        done: True when the task has ended, and its children too.
    """

    __slots__ = (
        "__weakref__",
        *("body", "outcome", "resume", "send", "wait", "wait_state"),  # the next step, and the wait
        *("abandoned", "cancel_request", "forced", "innermost", "pending"),  # cancellation
        *("attached", "await_first", "body_over", "cancelled", "daemon", "done", "failure"),
        *("family", "holds", "joiners", "parent", "raised", "returned", "taken"),  # and outcome
        *("site", "id", "name", "scheduler"),  # who it is
    )
    __documented__ = (
        "cancel children daemon done exception id label name parent result spawned_at stack state "
        "stop wait"
    )

    def __init__(
        self,
        scheduler: Scheduler,
        body: Any,
        new: bool,
        name: str,
        number: int,
        daemon: bool,
        run: Callable[..., Any],
        site: Site,
    ) -> None:
        # What the next step resumes the body with, and how; and the trap that it is parked in.
        self.send = body.send
        self.resume = run if new else partial(_begin, self, run)
        self.outcome: tuple[Any, BaseException | None] | None = None  # of the last wait
        self.wait: Any = None
        self.wait_state: Any = None  # what the undo of the wait needs
        # Cancellation: the task as a scope, those inside it, whether a wait must look at them.
        self.cancel_request: CancelRequest | None = None
        self.abandoned = False
        self.innermost: Scope | None = None  # None: no scope but the task itself
        self.pending = False
        self.forced: BaseException | None = None  # thrown whatever the scopes say: Ctrl-C
        # Family and outcome.
        self.family: dict[int, Task[Any]] | None = None
        self.attached = 0  # children that are not daemons
        self.joiners: dict[Task[Any] | Callable[..., object], None] | None = None
        self.await_first: list[Task[Any]] | None = None  # must be gone before the next wait is made
        self.holds: dict[Any, None] | None = None  # locks: told when the body ends without release
        self.taken = False  # somebody will look at the outcome although nobody joins
        self.body_over = False
        self.done = False
        self.cancelled = False  # ended by the cancel that was asked for
        self.returned: Any = None
        self.failure: BaseException | None = None
        self.scheduler = scheduler
        self.body = body
        self.name = name
        self.id = number
        self.parent: Task[Any] | None = None
        self.daemon = daemon
        self.site = site

    @property
    def label(self) -> str:
        """Name and id: `echo#3`."""
        return f"{plain(self.name)}#{self.id}"

    @property
    def spawned_at(self) -> str:
        """Where the task was made: "file:line" of the call."""
        code, lasti = self.site
        return f"{code.co_filename}:{line_of(code, lasti)}"

    @property
    def children(self) -> list[Task[Any]]:
        """The children that are not done, oldest first."""
        return list(self.family.values()) if self.family else []

    @property
    def state(self) -> str:
        """`ready`, `running`, `waiting`, `completing` (only its children still run) or `done`."""
        if self.done:
            return "done"
        if self.body_over:
            return "completing"
        if self.scheduler.current is self:
            return "running"
        return "ready" if self.wait is None or self.wait is GIVE_WAY else "waiting"

    @property
    def result(self) -> T:
        """What the body returned; raises what left it, or RuntimeError before the task is done."""
        error = self.exception
        try:
            if error is not None:
                raise error
            return self.returned  # type: ignore[no-any-return]
        finally:
            # The error's traceback holds this frame. It must not hold the error, or the task.
            del error, self

    @property
    def exception(self) -> BaseException | None:
        """What left the body, or `TaskCancelled`; None if it returned. RuntimeError until then."""
        if not self.done:
            raise RuntimeError(
                f"task {self.label} is not done yet: `result = yield from task` waits"
            )
        # Made anew for each that asks: if it were kept, it and the task would hold each other.
        if self.cancelled and self.cancel_request is not None:
            return TaskCancelled(self, self.cancel_request.reason)
        return None if self.failure is None else with_trace(self.failure, self.raised)

    def cancel(self, reason: object = None) -> None:
        """Ask the task and its children to end; does not wait.

        The task gets one `Cancelled` at the wait it is in, or at its next. Asking again changes
        nothing, and a task that is done stays as it is. In another thread this is a RuntimeError:
        use `call_soon_threadsafe(task.cancel)`.
        """
        if not self.done:
            self.scheduler.cancel_scope(self, self, reason)

    @waits
    def stop(self) -> Generator[Any, Any, T | None]:
        """Wait until the task, asked to cancel, is really gone, and its children too.

        Returns None if it ended cancelled, or what its body returned if that was faster.

        Raises:
            What left the body, other than the cancel. Deadlock: the caller stops itself or an
            ancestor. Cancelled: the wait was cancelled; the task's cancel stands.
        """
        self.refuse_circle(current_task())
        self.cancel("stop() was called")
        trap = Join()
        trap.task = self
        try:
            if not self.done or must_yield():
                yield trap
            if self.failure is not None:
                raise with_trace(self.failure, self.raised)
            return self.returned  # type: ignore[no-any-return]
        finally:
            del self, trap  # see `result`

    def __iter__(self) -> Generator[Any, Any, T]:
        trap = Join()
        trap.task = self
        try:
            if not self.done or must_yield():
                yield trap
            if self.cancelled or self.failure is not None:
                return self.result
            return self.returned  # type: ignore[no-any-return]
        finally:
            del self, trap  # see `result`

    __await__ = __iter__

    def watch(self, call: Callable[[Any, BaseException | None], object]) -> Callable[[], object]:
        """Take the outcome: have `call(value, error)` called at the end. Returns the undo.
        A method `call.child_failed(task, error)` takes what nobody takes of the descendants'."""
        if self.done:
            call(self.returned, self.exception)
            return int  # an undo that has nothing to do
        if self.scheduler.polling:
            self.scheduler.at_once()  # raises RunFinished if it never will be done
        if self.joiners is None:
            self.joiners = {}
        self.joiners[call] = None
        return lambda: self.joiners and self.joiners.pop(call, None)

    def refuse_circle(self, joiner: Task[Any]) -> None:
        """Raise Deadlock if `joiner` is this task or one of its descendants."""
        if joiner is not self and not self.family:
            return
        ancestor: Task[Any] | None = joiner
        while ancestor is not None:
            if ancestor is self:
                whom = "itself" if joiner is self else f"{self.label}, its ancestor"
                raise Deadlock(
                    f"task {joiner.label} joins {whom}, which is done only when {joiner.label} is"
                )
            ancestor = ancestor.parent

    def adopt(self, child: Task[Any]) -> None:
        """Make `child` one of the family."""
        if self.family is None:
            self.family = {}
        self.family[child.id] = child
        if not child.daemon:
            self.attached += 1
        child.parent = self  # last: who has one is in its family

    def end_body(self, value: Any, error: BaseException | None) -> None:
        """Note how the body ended, and let go of what only the body needed, its context too."""
        self.body = self.send = self.outcome = self.wait_state = self.await_first = None
        self.resume = _over
        self.body_over = True
        self.returned = value
        if error is not None:
            if self.is_left_by(error):
                self.cancelled = True
            else:
                self.failure = explained(users_part(error))
                self.raised: types.TracebackType | None = trace_of(error)

    def stack(self) -> list[types.FrameType]:
        """Return where the task stands, or the calls it is in: frames, the outermost first.

        They go through `yield from`, `await` and `async for`. There are none when the body is over.
        """
        return frames_of(self.body, self.scheduler.current is self)

    def __repr__(self) -> str:
        doing = f" {brief(self.wait)}" if self.state == "waiting" else ""
        return f"<Task {self.label} {self.state}{doing}, spawned at {self.spawned_at}>"


class Join:
    """The wait for the end of a task. `Suspend` could say it, at four times the cost.

    It brings nothing: who has waited looks at the task.
    """

    # There is no `__init__`: it would be half of what the object costs.
    __slots__ = ("task",)
    task: Task[Any]

    def arm(self, wake: Callable[[], object]) -> Callable[[], object]:
        return self.task.watch(lambda value, error: wake())

    def holder(self) -> tuple[Task[Any]]:
        return (self.task,)

    def __repr__(self) -> str:
        return f"join {self.task.label}"


class _GiveWay:
    """The wait of a bare `yield`: the task is in the queue already."""

    def __repr__(self) -> str:
        return "give way"


GIVE_WAY = _GiveWay()


def _begin(task: Task[Any], run: Callable[..., Any], send: Callable[[Any], Any], value: Any) -> Any:
    """Take the first step of a body that others may have; all other steps are `run` itself."""
    task.resume = run
    try:
        if is_begun(task.body):
            raise RuntimeError(
                f"{name_of(task.body)}() was given to two tasks: call it once for each"
            )
        return run(send, value)
    finally:
        del task, run, send, value  # see `Task.result`


def _over(*_: object) -> None:
    """The step of a task that was given up while it was in the queue."""
    raise StopIteration
