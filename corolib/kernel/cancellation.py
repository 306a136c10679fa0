"""Cancellation: what it takes to cancel a scope fairly.

A *scope* is a stretch of a task that can be cancelled. The task is the outermost of its scopes.
Each `with timeout(...)`, `with shield()` or group opens one inside, linked by `outer`. Cancelling a
task, a deadline, the failure of a group and the end of a run are one operation: cancel this scope.

What can go wrong. Two scopes are cancelled at once, and the wrong one catches: an inner timeout
takes the blame of an outer one, or a task that was cancelled goes on. A cancel is repeated, and
cuts the clean-up that the first one began. A cancel is swallowed, and its task never ends. A wait
is cancelled when its result is already there, and the result is lost. A generator yields to its
consumer from inside a block, and the block bounds somebody else. So these are the rules:

1.  A cancel is a *request*, an object. The scope keeps it, and the `Cancelled` that is thrown
    carries the very same object. The scope whose request it is catches it, and no other.
2.  A scope has one request. To ask again changes nothing.
3.  A request is *delivered* once, as `Cancelled` at the wait that the task is in or makes next.
    That wait is undone first. If its result came first, the result is delivered, and the request
    waits for the next wait.
4.  From then on, until the scope is left, its clean-up may wait for the length of the grace. After
    that the request is *overdue*, and every further wait raises `Cancelled`.
5.  A task that swallows a hundred overdue ones is given up.
6.  Of several requests the outermost is delivered, since what lies inside is left anyway.
7.  But not while a request further in is under way: that scope first catches its own.
8.  And not across a shield that still holds. The first request that it puts off starts its time.
9.  A scope that was open inside the one whose request is delivered is *abandoned*: it is being
    left, and its own request no longer matters. Scopes that the clean-up opens later work as ever.
10. What must leave the task at once, Ctrl-C, is *forced*: no scope has a say in it.
11. A block that is open in a generator which has yielded to its consumer is *astray*. It is refused
    with `ScopeError`, in the consumer.

12. A block is left by the task that has entered it. If another task runs its generator meanwhile,
    that task is refused with `ScopeError`, at the latest where it leaves the block.

How an exception gets into a task at all, how a wait is undone, and what becomes of a task that is
given up is said in `scheduler.py`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable
from math import inf
from types import (
    AsyncGeneratorType,
    CodeType,
    CoroutineType,
    FrameType,
    GeneratorType,
    TracebackType,
)
from typing import TYPE_CHECKING, Any, Self

from corolib.kernel.checks import check_number
from corolib.kernel.context import _current, current_task
from corolib.kernel.diagnostics import where
from corolib.kernel.errors import Cancelled, ScopeError
from corolib.kernel.frames import CO_GENERATOR, LIBRARY, SUSPENDABLE, knows_its_frames, line_of
from corolib.kernel.safely import brief, class_name, is_a, module_of
from corolib.kernel.waits import Documented, public

if TYPE_CHECKING:
    from corolib.kernel.scheduler import Scheduler
    from corolib.kernel.task import Task

_CONTEXTLIB = vars(contextlib)
_ENTERING = frozenset(["__enter__", "__aenter__", "enter_context", "enter_async_context"])
_GENERATORS = (GeneratorType, CoroutineType, AsyncGeneratorType)
SWALLOWS = 100  # overdue `Cancelled` that a task may swallow before it is given up


class CancelRequest:
    """A request that a task leave a scope: from the asking until the scope is left (rule 1)."""

    __slots__ = ("delivered", "grace_ends", "overdue", "reason", "spared", "swallowed", "timer")

    def __init__(self, reason: object) -> None:
        self.reason = reason
        self.spared = False  # an operation that need not wait was spared: see `spare`
        self.delivered = False  # `Cancelled` was thrown: the request is under way
        self.grace_ends: float | None = None  # the time; None once there is a timer for it
        self.timer: list[Any] | None = None  # the end of the grace
        self.overdue = False  # its grace is over
        self.swallowed = 0  # of the `Cancelled` thrown after that


class Scope:
    """One stretch of one task. A task is itself the outermost of its scopes.

    Most blocks are left with nothing having happened: what they never set, they have from here.
    """

    # A task has slots for most of these, a block has a dict.
    __slots__ = tuple[str, ...]()
    outer: Scope | None = None
    cancel_request: CancelRequest | None = None
    abandoned: bool = False  # a scope further out is being left, and this one with it (rule 9)
    shield: float | None = None  # seconds that it may put off what comes from outside (rule 8)
    timer: list[Any] | None = None  # the deadline
    shield_timer: list[Any] | None = None  # the end of the shield
    names_wait = False  # its message says what the task was waiting for
    waited_for: str | None = None  # that, in words

    def is_left_by(self, error: BaseException | None) -> bool:
        """Return whether `error` is the `Cancelled` of this very scope's request (rule 1)."""
        mine = self.cancel_request
        if mine is None or type(error) is not Cancelled:
            return False
        return getattr(error, "cancel_request", None) is mine


@public
class CancelScope(Scope, metaclass=Documented):
    """A block that anybody can have left: `with CancelScope() as scope: ...`, `scope.cancel()`.

    Timeouts, shields and groups are such blocks too. Leaving one by its own cancel raises nothing
    behind it; but see `timeout`. A block serves once, and bounds its own task only.

    Attributes:
        cancel_called: whether the block was asked to be left, by `cancel()` or by its deadline.
        cancelled_caught: whether it was left by that, and not before it came to that.
        deadline: when the block is cancelled, on the clock of `now()`; `math.inf`: never. It can be
            moved at any time, and taken away with None. What has been cancelled stays so.

    Example:
        >>> import corolib
        >>> def main():
        ...     with corolib.CancelScope() as scope:
        ...         corolib.current_scheduler().call_soon_threadsafe(scope.cancel)
        ...         yield corolib.Sleep(60)
        ...     return scope.cancelled_caught
        >>> corolib.run(main)
        True

    Source: the cancel scopes of trio and anyio.
    """

    __documented__ = "cancel cancel_called cancelled_caught deadline"
    task: Task[Any] | None = None  # while it is open
    frame: FrameType | None = None  # whose block it is, while it is open
    cancelled_caught: bool = False
    is_late = False  # its deadline is what has cancelled it
    planned = False  # when it begins there is a deadline to watch, or it was cancelled before
    _seconds: float | None = None  # from its beginning to its deadline
    _deadline: float = inf
    _code: CodeType | None = None
    _lasti: int

    @property
    def cancel_called(self) -> bool:
        return self.cancel_request is not None

    @property
    def deadline(self) -> float:
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float | None) -> None:
        who = f"{class_name(self)}.deadline"
        self._deadline = inf if deadline is None else check_number(deadline, who, "a deadline")
        self._seconds = None
        self.planned = True
        self._do_now(self._move_timer)

    def cancel(self, reason: object = None) -> None:
        """Ask that the block be left; does not wait.

        Its task gets one `Cancelled`, with the reason, at the wait that it is in or makes next, and
        the block catches that. Asking again changes nothing, and neither does asking when the block
        was left. One that has not begun is cancelled at its first wait. In another thread this is a
        RuntimeError: use `call_soon_threadsafe(scope.cancel)`.
        """
        if self._code is None and self.cancel_request is None:
            self.cancel_request = CancelRequest(reason)
            self.planned = True
        self._do_now(self.ask, reason)

    def ask(self, reason: object) -> None:
        """Ask the task to leave the block, which it is in."""
        assert self.task is not None
        self.task.scheduler.cancellation.request(self.task, self, reason)

    def _do_now(self, f: Callable[..., object], *args: object) -> None:
        """Make a call that is about the open block: now, if this is not a signal handler."""
        if self.task is None:
            return
        scheduler = self.task.scheduler
        scheduler.check_usable()
        if scheduler.polling:
            scheduler.call_soon_threadsafe(self._do_now, f, *args)
        else:
            f(*args)

    def __enter__(self) -> Self:
        self.begin(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if self.task is None:
            # The block was left before.
            return False
        self.task.scheduler.cancellation.leave(self, kind)
        if self.cancel_request is None:
            return False
        self.cancelled_caught = self.is_left_by(error)
        return self.cancelled_caught

    def begin(self, depth: int) -> Task[Any]:
        """Make this the innermost scope of the running task. The block is `depth` frames up."""
        if self._code is not None:
            raise RuntimeError(f"{self!r} was entered before: make a new one for each block")
        scheduler = _current.scheduler
        task = scheduler.current if scheduler is not None else None
        # If there is none, `current_task()` says why.
        self.task = task = task or current_task()
        frame = place = sys._getframe(depth + 1)
        code = frame.f_code
        kind = code.co_flags & SUSPENDABLE
        its_own = kind == CO_GENERATOR or (kind and code.co_name not in _ENTERING)
        if not its_own or frame.f_back.f_globals is _CONTEXTLIB:  # type: ignore[union-attr]
            frame, place = _owner(frame)
            code = place.f_code
        self.frame = frame
        self._code, self._lasti = code, place.f_lasti
        self.outer = task.innermost or task
        planned = self.planned
        asked_before = self.cancel_request if planned else None
        # These are read of every block, and an instance's are faster to read than the class's.
        self.timer = self.cancel_request = None
        task.innermost = self
        if planned:
            # What follows is `_move_timer` too: a call would be a fiftieth of a timeout.
            scheduler = task.scheduler
            now = scheduler.clock()
            seconds = self._seconds
            deadline = self._deadline = self._deadline if seconds is None else now + seconds
            if asked_before is not None:
                self.ask(asked_before.reason)
            elif deadline <= now:
                _expire(self)
            elif deadline != inf:
                self.timer = scheduler.timers.set(deadline, _expire, self)
        return task

    def _move_timer(self) -> None:
        task = self.task
        assert task is not None
        if self.timer is not None:
            task.scheduler.timers.cancel(self.timer)
            self.timer = None
        if self.cancel_request is None:
            if self._deadline <= task.scheduler.clock():
                _expire(self)
            elif self._deadline != inf:
                self.timer = task.scheduler.timers.set(self._deadline, _expire, self)

    def opened_at(self, f: Any) -> None:
        """Name `f`, which the block is around, where messages say where the block began."""
        while hasattr(f, "__wrapped__"):
            f = f.__wrapped__
        if hasattr(f, "__code__"):
            self._code, self._lasti = f.__code__, 0

    @property
    def opened_in(self) -> str:
        """Where the block began: `handler (server.py:12)`."""
        assert self._code is not None
        line = line_of(self._code, self._lasti)
        return f"{self._code.co_name} ({os.path.basename(self._code.co_filename)}:{line})"

    def is_astray(self) -> bool:
        """Return whether the block belongs to a generator that its task does not run just now.

        That is one which has yielded to a consumer from inside the block, so that the block would
        bound the consumer.
        """
        frame, task = self.frame, self.task
        if frame is None or task is None or not frame.f_code.co_flags & SUSPENDABLE:
            return False
        if (
            _is_frame_of(frame, task.body)
            or frame in task.stack()
            or not knows_its_frames(task.body)
        ):
            return False
        # A helper that opened the block and is over does not count. Its frame cannot say so; but
        # only a generator that is not over refers to it. To find out takes as long as a garbage
        # collection, and is asked once for each such block.
        if any(is_a(owner, _GENERATORS) for owner in gc.get_referrers(frame)):
            return True
        self.frame = None
        return False


def _expire(scope: CancelScope) -> None:
    """The deadline of a block has passed."""
    if scope.cancel_request is None:
        scope.is_late = True
        scope.ask("the deadline has passed")


class Cancellation:
    """Requests, deliveries and graces of all tasks of one scheduler."""

    __slots__ = ("_scheduler",)

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def request(self, task: Task[Any], scope: Scope, reason: object) -> None:
        """Ask `task` to leave `scope`; if that is the task itself, its children as well."""
        if scope is task and task.family:
            self.request_all([task], reason)
        elif scope.cancel_request is None and not task.done:  # rule 2
            self._ask(task, scope, reason)

    def request_all(self, tasks: list[Task[Any]], reason: object) -> None:
        """Ask all these tasks, and all below them, to end."""
        todo = tasks[::-1]
        while todo:
            task = todo.pop()
            asked = task.cancel_request is not None
            if task.done or (asked and not task.body_over):
                continue  # rule 2
            if task.family:
                todo += reversed(task.family.values())
            if not asked:
                self._ask(task, task, reason)

    def _ask(self, task: Task[Any], scope: Scope, reason: object) -> None:
        scope.cancel_request = CancelRequest(reason)
        self._scheduler.cancel_asked(task, scope, reason)
        if not task.body_over:
            self._look(task)

    def force(self, task: Task[Any], error: BaseException) -> None:
        """Throw `error` at the wait of `task` or at its next, whatever the scopes say (rule 10)."""
        task.forced = error
        self._look(task)

    def cut_short(self, task: Task[Any]) -> None:
        """Let `task` wait no more at all: no shield, and its grace is over."""
        for scope in chain(task):
            if scope is not task:
                scope.shield = None
        if task.cancel_request is None:
            task.cancel_request = CancelRequest("the run is cut short")
        task.cancel_request.overdue = True
        self._look(task)

    def _look(self, task: Task[Any]) -> None:
        """Something is asked of `task`: deliver it if the task is waiting, or at its next wait."""
        task.pending = True
        wait = task.wait
        if wait is not None:
            self.deliver(task, wait)

    def deliver(self, task: Task[Any], wait: object = None) -> bool:
        """Throw what is due at the `wait` that `task` is in, or is about to make; return if so.

        A signal handler may wake the task at any moment until the wait is taken back.
        """
        scheduler, scope = self._scheduler, None
        error = task.forced
        if error is None:
            scope, shields = due(task)
            for each in shields:
                self._start_time_of(task, each)
            if scope is None:
                if wait is None:
                    self._start_graces(task)
                return False
        strays = scope if isinstance(scope, CancelScope) and scope.is_astray() else None
        if strays is not None and self._refuse_elsewhere(strays):
            return self.deliver(task, wait)
        if wait is not None and not scheduler.take_back(task):
            return False  # rule 3: a result came first
        if strays is not None:
            error = astray(strays)
            self._take_off(strays)
        if error is not None:
            task.forced = None
            task.pending = has_something_pending(task)
        else:
            assert scope is not None
            error = self._cancelled(task, scope, wait)
            if error is None:
                scheduler.give_up(task)
                return True
        scheduler.cancel_delivered(task, scope or task, error)
        scheduler.make_ready(task, None, error)
        return True

    def _refuse_elsewhere(self, scope: CancelScope) -> bool:
        """Refuse a block whose generator another task runs by now, in that; return if one does."""
        tasks = self._scheduler.tasks
        other = next((each for each in tasks if scope.frame in each.stack()), None)
        if other is None:
            return False
        self._take_off(scope)
        self.force(other, of_another(scope, "is open in", other))
        scope.task = None
        return True

    def _cancelled(self, task: Task[Any], scope: Scope, wait: object) -> Cancelled | None:
        """Return what is thrown into `task` so that it leaves `scope`; None: it never will."""
        scheduler, request = self._scheduler, scope.cancel_request
        assert request is not None
        if request.overdue:
            request.swallowed += 1
            if request.swallowed > SWALLOWS:
                return None  # rule 5
        else:
            if scheduler.grace != inf:
                request.grace_ends = scheduler.clock() + scheduler.grace
            if scope.names_wait and wait is not None:
                scope.waited_for = brief(wait)
        request.delivered = True
        inner = task.innermost
        while inner is not None and inner is not scope:  # rule 9
            inner.abandoned = True
            inner = inner.outer
        error = Cancelled() if request.reason is None else Cancelled(request.reason)
        error.cancel_request = request
        return error

    def _start_graces(self, task: Task[Any]) -> None:
        """The clean-up of `task` makes a wait: set the timers of the graces (rule 4).

        Most clean-up never waits, so none is set before.
        """
        for scope in chain(task):
            request = scope.cancel_request
            if request is not None and request.grace_ends is not None:
                end, request.grace_ends = request.grace_ends, None
                request.timer = self._scheduler.timers.set(end, self._grace_over, (task, request))

    def _grace_over(self, whose: tuple[Task[Any], CancelRequest]) -> None:
        """From now on every wait inside the scope raises `Cancelled` (rule 4)."""
        task, request = whose
        request.overdue = True
        self._look(task)

    def _start_time_of(self, task: Task[Any], shield: CancelScope) -> None:
        """A shield puts something off: its time begins to run, if it does not yet (rule 8)."""
        if shield.shield_timer is None and shield.shield != inf:
            assert shield.shield is not None
            end = self._scheduler.clock() + shield.shield
            shield.shield_timer = self._scheduler.timers.set(end, self._shield_over, (task, shield))

    def _shield_over(self, whose: tuple[Task[Any], Scope]) -> None:
        """A shield has put something off for as long as it may (rule 8)."""
        task, shield = whose
        shield.shield = None
        self._look(task)

    def spare(self, task: Task[Any]) -> bool:
        """Return whether an operation of `task` that need not wait is not to give way either.

        It would be cut short there, although what it asks for is at hand. Each request that is due
        lets one pass: so `move_on_after(0)` gets what there is, and who never waits is cut short
        all the same.
        """
        scope, _ = due(task)
        request = None if scope is None else scope.cancel_request
        if request is None or request.spared:
            return False
        request.spared = True
        return True

    def leave(self, scope: CancelScope, kind: type[BaseException] | None) -> None:
        """Take a block, which an exception of that kind leaves, off again.

        ScopeError if another block is still open inside it, or if another task leaves it; but not
        from a generator that is thrown away, which has no say in that.
        """
        task, running = scope.task, self._scheduler.current
        assert task is not None
        if scope.timer is not None:
            self._scheduler.timers.cancel(scope.timer)
        # As a rule nothing has happened, and it is the innermost.
        if task.innermost is scope and running is task and not task.pending:
            task.innermost = None if scope.outer is task else scope.outer
            scope.outer = scope.frame = scope.task = None
            return
        inner = self._take_off(scope)
        refused = None
        if running is not task and running is not None:
            refused = of_another(scope, "is left by", running)
        # The task may end with what leaves the block, which refers to the block: no cycle.
        scope.task = None
        if kind is GeneratorExit:
            return
        if refused is not None:
            raise refused
        if inner is not None:
            raise ScopeError(
                f"{brief(scope)}, opened in {scope.opened_in}, is left while {brief(inner)}, "
                f"opened in {inner.opened_in}, is still open inside it"
            )

    def _take_off(self, scope: CancelScope) -> CancelScope | None:
        """Take `scope` off; returns the one that is open right inside it.

        None if it was taken off before, or if the task is over, and all its blocks with it.
        """
        task = scope.task
        assert task is not None
        self._stop_timers(scope)
        # They refer to the block, so it lets go of them: no cycle.
        outer, scope.outer, scope.frame = scope.outer, None, None
        if task.innermost is scope:
            task.innermost = None if outer is task else outer
            task.pending = has_something_pending(task)
            return None
        for inner in chain(task):
            if isinstance(inner, CancelScope) and inner.outer is scope:
                inner.outer = outer
                task.pending = has_something_pending(task)
                return inner
        return None

    def check(self, task: Task[Any]) -> None:
        """Refuse a block that is astray at the wait that `task` is about to make: debug mode."""
        for scope in chain(task):
            if isinstance(scope, CancelScope) and scope.is_astray():
                self.force(task, astray(scope))
                self._take_off(scope)

    def leave_all(self, task: Task[Any]) -> None:
        """The body of `task` is over, and every scope with it."""
        scope: Scope | None = task.innermost or task
        while scope is not None:
            self._stop_timers(scope)
            scope = scope.outer
        task.innermost = task.forced = None
        task.pending = False

    def _stop_timers(self, scope: Scope) -> None:
        request = scope.cancel_request
        if request is not None and request.timer is not None:
            self._scheduler.timers.cancel(request.timer)
        for timer in (scope.timer, scope.shield_timer):
            if timer is not None:
                self._scheduler.timers.cancel(timer)


def astray(scope: CancelScope) -> ScopeError:
    """Return the complaint about a block left open by a `yield` to a consumer (rule 11)."""
    assert scope.task is not None
    return ScopeError(
        f"{brief(scope)}, opened in {scope.opened_in}, is still open in a generator that has "
        f"yielded to its consumer, at {where(scope.task)}: it would bound the consumer. Yield "
        "values outside the block"
    )


def of_another(scope: CancelScope, does: str, other: Task[Any]) -> ScopeError:
    """Return the complaint about a block that one task has entered, and another is in (rule 12)."""
    assert scope.task is not None
    return ScopeError(
        f"{brief(scope)}, opened in {scope.opened_in} by task {scope.task.label}, {does} task "
        f"{other.label}: a block bounds the task that has entered it, and no other"
    )


def _is_frame_of(frame: FrameType, body: Any) -> bool:
    """Return whether a frame is one of a generator, or of those that it delegates to. A quick look,
    which does not see all.
    """
    while type(body) is GeneratorType:
        if body.gi_frame is frame:
            return True
        body = body.gi_yieldfrom
    return False


def _owner(frame: FrameType) -> tuple[FrameType, FrameType]:
    """Return whose block a block is that begins in `frame`; and the frame to be named for it.

    It is the innermost generator or coroutine that can wait, or yield to a consumer, with the block
    open. A plain function cannot: when the task waits, it is over. Nor can what only enters the
    block for its caller: `__aenter__`, `enter_async_context`, and the generator of a context
    manager of contextlib.

    A context manager that is used as a decorator of a generator function is held open, from Python
    3.15 on, by a generator in contextlib. Its line says nothing: named is what it entered.
    """
    place = each = frame
    while True:
        suspendable = each.f_code.co_flags & SUSPENDABLE
        ours = module_of(each).startswith(LIBRARY)
        if ours and not suspendable:
            # This is the scheduler. It steps something foreign, which has no such frames.
            return frame, frame
        caller = each.f_back
        assert caller is not None
        if not ours:
            if each.f_globals is not _CONTEXTLIB:
                place = each
            if suspendable and not _only_enters(each, caller):
                return each, place
        each = caller


def _only_enters(frame: FrameType, caller: FrameType) -> bool:
    """Return whether a generator or coroutine enters blocks for its caller, and then is left."""
    return frame.f_code.co_name in _ENTERING or (
        caller.f_globals is _CONTEXTLIB and caller.f_code.co_name in _ENTERING
    )


def chain(task: Task[Any]) -> list[Scope]:
    """Return the scopes of `task`, innermost first; the last is the task itself."""
    scopes = []
    scope: Scope | None = task.innermost or task
    while scope is not None:
        scopes.append(scope)
        scope = scope.outer
    return scopes


def has_something_pending(task: Task[Any]) -> bool:
    """Return whether a wait of `task` needs a closer look."""
    scope: Scope | None = task.innermost or task
    while scope is not None:
        if scope.cancel_request is not None:
            return True
        scope = scope.outer
    return bool(task.forced or task.await_first)


def due(task: Task[Any]) -> tuple[Scope | None, list[CancelScope]]:
    """Return the scope whose request is to be delivered at this wait, or None.

    With it come the shields that put a request off.
    """
    if task.innermost is None:  # it has no blocks, as most that are cancelled
        mine = task.cancel_request
        return (task if mine and (mine.overdue or not mine.delivered) else None), []
    target: Scope | None = None
    shields: list[CancelScope] = []  # those passed on the way out
    holding: list[CancelScope] = []  # those of them that put something off
    under_way = False
    scope: Scope | None = task.innermost
    while scope is not None:
        request = scope.cancel_request
        if request is not None:
            fresh = not (request.delivered or scope.abandoned or under_way)  # rules 3, 9, 7
            if request.overdue or fresh:
                if shields:
                    holding = shields.copy()  # rule 8
                else:
                    target = scope  # rule 6
            under_way = under_way or request.delivered
        if scope.shield is not None:
            assert isinstance(scope, CancelScope)
            shields.append(scope)
        scope = scope.outer
    return target, holding


@public
def current_effective_deadline() -> float:
    """Return when a wait that the caller makes here would be cancelled, on the clock of `now()`.

    That is the soonest deadline of the blocks around the caller. `math.inf`: there is none.
    `-math.inf`: it would be cancelled at once, as the caller is asked to leave already. A shield
    puts the deadlines outside of it off, for as long as it may. During the clean-up after a cancel
    the end of the grace counts.

    Raises:
        RuntimeError: no scheduler runs in this thread, or no task of it.

    Example:
        >>> import corolib
        >>> def main():
        ...     with corolib.timeout(at=8), corolib.timeout(at=5):
        ...         yield
        ...         return corolib.current_effective_deadline()
        >>> corolib.run(main, clock=lambda: 0)
        5.0

    Source: trio.current_effective_deadline.
    """
    task = current_task()
    if task.forced is not None:
        return -inf
    ends = []
    under_way = False
    for scope in chain(task):
        request = scope.cancel_request
        at_rest = not (under_way or scope.abandoned)  # rules 7, 9
        if request is None:
            end = scope.deadline if isinstance(scope, CancelScope) and at_rest else inf
        else:
            end = _end_of(request, at_rest)
            under_way = under_way or request.delivered
        ends.append((scope, end))
    soonest = asked = inf  # of the scopes so far: where it is cancelled, and where that is asked
    now = task.scheduler.clock()
    for scope, end in reversed(ends):
        if scope.shield is not None:
            timer = scope.shield_timer
            held_until = max(asked, now) + scope.shield if timer is None else timer[0]
            soonest = max(soonest, held_until)  # rule 8
        soonest = min(soonest, end)
        asked = min(asked, end)
    return soonest


def _end_of(request: CancelRequest, at_rest: bool) -> float:
    """Return when a wait is cancelled for a request, at which the scope was at rest or not."""
    if request.overdue or (at_rest and not request.delivered):
        return -inf
    if request.timer is not None:
        return request.timer[0]  # type: ignore[no-any-return]
    return inf if request.grace_ends is None else request.grace_ends
