"""A task: one generator (or coroutine) being run, its place in the family, and its outcome.

The fields in the first group below are the scheduler's, the poller's and the scopes' working
memory; what programs use are the properties and methods. Stepping, waking, ending: all of that is
done by the scheduler, which this module does not know.
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Callable, Generator, Iterator
from functools import partial

from corolib.errors import Cancelled, Deadlock, TaskCancelled
from corolib.kinds import Any, Generic, TypeVar
from corolib.reports import line_of, not_runnable
from corolib.running import Services, current_task
from corolib.scopes import CO_COROUTINE, CO_GENERATOR, Scope
from corolib.traps import waits, watched

T = TypeVar("T")

CLOSINGS = 100  # yields that a body may do in `finally` while it is being closed for good
_KERNEL = ("corolib.scheduler", "corolib.hosting", "corolib.poller")
LIBRARY = ("corolib.",)


class Task(Scope, Generic[T]):
    """The handle of a task, made by `spawn()` and `run()`.

    `result = yield from task` waits until the task and its children are done and returns what its
    body returned, or raises what left it: the exception itself, or `TaskCancelled`. A joiner that
    is interrupted leaves the task running.

    Attributes:
        name, id: `label` joins them to `echo#3`. Ids count up from 1 in each scheduler.
        parent: the task that owns this one, None for main.
        daemon: True if the task does not keep its parent from ending.
        spawned_at: "file:line" of the call that made it.
    """

    __slots__ = (
        "__weakref__",
        "_site",
        "armed",
        "attached",
        "body",
        "body_over",
        "cancelled",
        "daemon",
        "debts",
        "delivered",
        "done",
        "doomed",
        "failure",
        "family",
        "forced",
        "holds",
        "id",
        "innermost",
        "joiners",
        "name",
        "outcome",
        "overdue",
        "parent",
        "pending",
        "reason",
        "requested",
        "resume",
        "returned",
        "scheduler",
        "send",
        "swallowed",
        "taken",
        "timer",
        "wait",
    )

    def __init__(
        self,
        scheduler: Services,
        body: Any,
        new: bool,
        name: str,
        number: int,
        daemon: bool,
        run: Callable[..., Any],
        site: tuple[types.CodeType, int],
    ) -> None:
        # What the next step resumes the body with, and how. `wait` is the trap it is parked in.
        self.send = body.send
        self.resume = run if new else partial(_begin, self, run)
        self.outcome: tuple[Any, BaseException | None] | None = None  # of the last wait
        self.wait: Any = None
        self.armed: Any = None  # what the undo of the wait needs
        # Interruption: the task as a scope, those inside it, whether a wait must look at them.
        self.reason = self.delivered = self.timer = None
        self.requested = self.overdue = self.doomed = False
        self.swallowed = 0
        self.innermost: Scope | None = None  # None: no scope but the task itself
        self.pending = False
        self.forced: BaseException | None = None  # thrown whatever the scopes say: Ctrl-C
        # Family and outcome.
        self.family: dict[int, Task[Any]] | None = None
        self.attached = 0  # children that are not daemons
        self.joiners: dict[Task[Any] | Callable[..., object], None] | None = None
        self.debts: list[Task[Any]] | None = None  # must be gone before the next wait is made
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
        self._site = site

    @property
    def label(self) -> str:
        """Name and id, as reports write them: `echo#3`."""
        return f"{self.name}#{self.id}"

    @property
    def spawned_at(self) -> str:
        """Where the task was made, as file:line."""
        code, lasti = self._site
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
            del error, self  # the traceback holds this frame: that would be a cycle

    @property
    def exception(self) -> BaseException | None:
        """What left the body (a `TaskCancelled` if it was cancelled), or None if it returned.

        RuntimeError before the task is done.
        """
        if not self.done:
            raise RuntimeError(
                f"task {self.label} is not done yet: `result = yield from task` waits"
            )
        # Made anew for each that asks: kept, it and the task would hold each other.
        return TaskCancelled(self, self.reason) if self.cancelled else self.failure

    def cancel(self, reason: object = None) -> None:
        """Ask the task and its children to end; does not wait.

        The task gets one `Cancelled` at the wait it is in, or at its next. Asking again changes
        nothing, and a task that is done stays as it is.

        Raises:
            RuntimeError: called from another thread; `call_soon_threadsafe(task.cancel)` may be.
        """
        if not self.done:
            self.scheduler.interrupt(self, self, reason)

    @waits
    def stop(self) -> Generator[Any, Any, T | None]:
        """Wait until the task, asked to cancel, is really gone, and its children too.

        Returns:
            None if it ended cancelled; what its body returned if that was faster.

        Raises:
            What left the body, other than the cancel. Deadlock: the caller stops itself or an
            ancestor. Cancelled: the wait was interrupted; the task's cancel stands.
        """
        self.refuse_circle(current_task())
        self.cancel()
        try:
            return (yield from self)
        except TaskCancelled as exc:
            if exc.task is not self:
                raise
            return None
        finally:
            del self  # see `result`

    def __iter__(self) -> Generator[Any, Any, T]:
        trap = Join()
        trap.task = self
        try:
            value: T = yield trap
            return value
        finally:
            del self, trap  # see `result`

    __await__ = __iter__

    def watch(self, call: Callable[[Any, BaseException | None], object]) -> Callable[[], object]:
        """Have `call(value, error)` called when the task is done; returns the undo.

        Who watches takes the outcome: a failure is not reported.
        """
        if self.done:
            call(self.returned, self.exception)
            return _nothing
        if self.joiners is None:
            self.joiners = {}
        self.joiners[call] = None
        return lambda: self.joiners and self.joiners.pop(call, None)

    def held_by(self) -> tuple[Task[Any]]:
        """Return what is to be given as `holder=` of a wait for the task: itself."""
        return (self,)

    def refuse_circle(self, joiner: Task[Any]) -> None:
        """Raise Deadlock if `joiner` is this task or one of its descendants."""
        if joiner is not self and not self.family:
            return  # nobody's ancestor
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
        child.parent = self
        if self.family is None:
            self.family = {child.id: child}
        else:
            self.family[child.id] = child
        if not child.daemon:
            self.attached += 1

    def part(self, child: Task[Any]) -> None:
        """Take `child`, which is done, out of the family."""
        assert self.family is not None
        del self.family[child.id]
        if not child.daemon:
            self.attached -= 1

    def end_body(self, value: Any, error: BaseException | None) -> None:
        """Note how the body ended, and let go of everything that only the body needed."""
        self.body = self.send = self.outcome = self.armed = self.debts = None
        self.resume = _over  # the context may hold anything: let go of it
        self.body_over = True
        self.returned = value
        if error is not None:
            if isinstance(error, Cancelled) and error.mark is self.delivered is not None:
                self.cancelled = True
            else:
                self.failure = error

    def knows_its_frames(self) -> bool:
        """Return whether `stack()` can be complete: nothing foreign hides what is below it."""
        body = self.body
        while body is not None:
            body, known = _below(body)
            if not known:
                return False
        return True

    def stack(self) -> list[types.FrameType]:
        """Return the frames of the task, outermost first: where it stands, through `yield from`,
        `await` and `async for`; of a running task, the calls it is in. Empty when the body is over.
        """
        frames = list(_frames(self.body))
        if frames and self.scheduler.current is self:
            frames = _running(frames[0]) or frames
        return [frame for frame in frames if frame.f_code is not watched.__code__]

    def __repr__(self) -> str:
        doing = f" {self.wait!r}" if self.state == "waiting" else ""
        return f"<Task {self.label} {self.state}{doing}, spawned at {self.spawned_at}>"


class Join:
    """The wait for the end of a task. `Suspend` could say it, at four times the cost."""

    __slots__ = ("task",)  # and no `__init__`, which would be half of what the object costs

    task: Task[Any]

    def holder(self) -> tuple[Task[Any]]:
        return self.task.held_by()

    def __repr__(self) -> str:
        return f"join {self.task.label}"


class _GiveWay:
    """The wait of a bare `yield`: the task is in the queue already."""

    def __repr__(self) -> str:
        return "give way"


GIVE_WAY = _GiveWay()


def is_maker(f: Any) -> bool:
    """Return whether a call of `f` can only return a body that is new: nobody else has it.

    That is so of generator functions and of `async def`; the checks of `body_of` take longer.
    """
    return (
        type(f) is types.FunctionType and f.__code__.co_flags & (CO_GENERATOR | CO_COROUTINE) != 0
    )


def body_of(caller: str, f: Any, args: tuple[Any, ...]) -> Any:
    """Return what `f(*args)` returns, or `f` itself, if a task can be made of it; or raise."""
    made = f(*args) if callable(f) else f
    if isinstance(made, types.GeneratorType | types.CoroutineType):
        if _is_begun(made):
            raise RuntimeError(
                f"{caller}() got {made.__name__}(), which was started before: make a new one"
            )
    elif not (hasattr(made, "send") and hasattr(made, "throw") and hasattr(made, "close")):
        raise TypeError(not_runnable(caller, f, made))
    if made is f and args:
        raise TypeError(f"{caller}() got a started call and arguments: write `{caller}(f, x)`")
    return made


def _is_begun(body: Any) -> bool:
    """Return whether a generator or coroutine has been stepped before, or is over.

    One that has not begun refuses any value but None, and stays as it is. Its frame would say it
    too; but to ask for that makes an object of it, 176 bytes that stay as long as the task.
    """
    if isinstance(body, types.GeneratorType):
        suspended = body.gi_suspended
    elif isinstance(body, types.CoroutineType):
        suspended = body.cr_suspended
    else:
        return False
    if suspended:
        return True
    try:
        body.send(body)
    except TypeError:
        return False
    except Exception:  # it runs, or is over
        pass
    return True


def users_part(error: BaseException, library: tuple[str, ...] = _KERNEL) -> BaseException:
    """Return `error` without the frames by which the library reached the user's code: those of the
    kernel, or all of its own, `LIBRARY`, where a wait could not be made.

    They say nothing, and they would tie the error and the task into a cycle.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(library):
        trace = trace.tb_next
    return error.with_traceback(trace)


def close_for_good(body: Any) -> None:
    """Close a generator that was never to be closed from outside; its `finally` blocks run.

    Each `yield` in them answers one GeneratorExit with a RuntimeError, and asks for one more.
    """
    for _ in range(CLOSINGS):
        try:
            body.close()
            return
        except RuntimeError:
            continue


def _begin(task: Task[Any], run: Callable[..., Any], send: Callable[[Any], Any], value: Any) -> Any:
    """Take the first step of a body that others may have; all other steps are `run` itself."""
    task.resume = run
    try:
        if _is_begun(task.body):
            raise RuntimeError(
                f"{task.body.__name__}() was given to two tasks: call it once for each"
            )
        return run(send, value)
    finally:
        del task, run, send, value  # see `Task.result`


def call_site(depth: int) -> tuple[types.CodeType, int]:
    """Return code and instruction of the innermost caller outside the library.

    It is `depth` frames up, or further: to look at each of them costs as much as all the rest. To
    find the line takes longer, and is left to those that ask: `Task.spawned_at`.
    """
    try:
        frame = sys._getframe(depth)
    except ValueError:  # C made the call, and nobody's frame is behind it
        frame = sys._getframe(1)
    while frame.f_globals.get("__package__") == "corolib" and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def _nothing() -> None:
    """The undo of what needs none."""


def _over(*_: object) -> None:
    """The step of a task that was given up while it was in the queue."""
    raise StopIteration


def _running(outermost: types.FrameType) -> list[types.FrameType]:
    """Return the frames of this thread from `outermost` inwards, less those that ask for them."""
    frames: list[types.FrameType] = []
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame is not outermost:
        frames.append(frame)
        frame = frame.f_back
    if frame is None:
        return []  # it runs in another thread
    while frames and frames[0].f_globals.get("__name__", "").startswith("corolib."):
        del frames[0]
    return [outermost, *reversed(frames)]


def _frames(body: Any) -> Iterator[types.FrameType]:
    """Yield the frames of a suspended body and of all that it delegates to, outermost first."""
    while body is not None:
        for kind in _KINDS:
            frame = getattr(body, f"{kind}_frame", None)
            if frame is not None:
                yield frame
        body, _ = _below(body)


_KINDS = ("gi", "cr", "ag")


def _below(body: Any) -> tuple[Any, bool]:
    """Return what a suspended body delegates to, or None; and whether that could be seen at all.

    The awaitables of async generators and of `coroutine.__await__()` name what they run to nobody
    but the garbage collector.
    """
    for name in ("gi_yieldfrom", "cr_await", "ag_await"):
        if hasattr(body, name):
            return getattr(body, name), True
    if type(body).__name__ in (
        "async_generator_asend",
        "async_generator_athrow",
        "coroutine_wrapper",
    ):
        kinds = (types.AsyncGeneratorType, types.CoroutineType)
        return next(it for it in gc.get_referents(body) if isinstance(it, kinds)), True
    return None, False
