"""Scopes: the stretches of a task that can be interrupted, and which interrupt is due.

Cancelling a task, a deadline, the end of a grace and the failure of a group are one operation:
*interrupt this scope*. A task is the outermost of its scopes; each `with timeout(...)` or
`with shield()` opens one inside, linked by `outer`. In the life of an interrupt

- it is *requested*: somebody asked; asking again changes nothing;
- it is *delivered*: `Cancelled` was thrown at a wait inside the scope. From here until the scope
  is left the interrupt is under way, and clean-up may wait for the length of the grace;
- it is *overdue*: the grace is over, and every further wait inside raises `Cancelled`.

One rule decides among several: the outermost that may, since what lies inside is abandoned
anyway. It may not while an interrupt further in is under way (that scope first catches its own),
nor across a shield that still holds. A scope that was open inside another when that one's
interrupt was delivered is *doomed*: it is being left, so its own requests no longer matter. Scopes
opened later, by the clean-up, work as ever.

How an exception gets into a task at all, how a wait is undone, and what becomes of a task that is
given up is the scheduler's: see `Kernel`. Imports from corolib only the words.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import sys
from collections.abc import Callable
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType

from corolib.errors import Cancelled, ScopeError
from corolib.kinds import TYPE_CHECKING, Any, Protocol
from corolib.reports import brief, line_of, where
from corolib.running import current_task, register

if TYPE_CHECKING:
    from corolib.task import Task
    from corolib.timers import Timers

CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x200  # as in `inspect`
CO_ITERABLE_COROUTINE = 0x100  # a generator that `types.coroutine` was given
_SUSPENDABLE = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE
_ENTERING = frozenset(["__enter__", "__aenter__", "enter_context", "enter_async_context"])
_CONTEXTLIB = vars(contextlib)
_GENERATORS = (GeneratorType, CoroutineType, AsyncGeneratorType)
SWALLOWS = 100  # overdue interrupts that a task may swallow before it is given up


class Scope:
    """One stretch of one task. A task is itself the outermost of its scopes.

    Most blocks are left with nothing having happened: what they never set, they have from here.
    """

    __slots__ = tuple[str, ...]()  # a task has slots for most of these, a block has a dict
    outer: Scope | None = None
    requested: bool = False
    reason: object = None
    delivered: object = None  # the mark of its `Cancelled`, as soon as there was one
    swallowed: int = 0  # interrupts after the end of the grace
    overdue: bool = False
    doomed: bool = False
    shield: float | None = None  # seconds that it may put off what comes from outside
    timer: list[Any] | None = None  # the end of the grace, or of the shield


class Block(Scope):
    """A scope that is a `with` block, with what its messages need: where it began."""

    task: Task[Any] | None = None  # while it is open
    frame: FrameType | None = None  # whose block it is, while it is open
    waited_for: str | None = None  # the wait at which the interrupt was delivered
    _code: CodeType | None = None
    _lasti: int

    def begin(self, depth: int) -> Task[Any]:
        """Make this the innermost scope of the running task. The block is `depth` frames up."""
        if self._code is not None:
            raise RuntimeError(f"{self!r} was entered before: make a new one for each block")
        scheduler = register.scheduler
        task = scheduler.current if scheduler is not None else None
        self.task = task = task or current_task()  # which says why there is none
        place = frame = sys._getframe(depth + 1)
        code = frame.f_code
        kind = code.co_flags & _SUSPENDABLE
        its_own = kind == CO_GENERATOR or (kind and code.co_name not in _ENTERING)
        if not its_own or frame.f_back.f_globals is _CONTEXTLIB:  # type: ignore[union-attr]
            frame, place = _owner(frame)
            code = place.f_code
        self.frame = frame
        self._code, self._lasti = code, place.f_lasti
        self.outer = task.innermost or task
        self.timer = self.delivered = None  # what is read of every block: faster than the class's
        task.innermost = self
        return task

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
        if frame is None or task is None or not frame.f_code.co_flags & _SUSPENDABLE:
            return False
        if not task.knows_its_frames() or frame in task.stack():
            return False
        # A helper that opened the block and is over does not count. Its frame cannot say so; but
        # only a generator that is not over refers to it. To find out takes as long as a garbage
        # collection, and is asked once for each such block.
        if any(isinstance(owner, _GENERATORS) for owner in gc.get_referrers(frame)):
            return True
        self.frame = None
        return False


class Kernel(Protocol):
    """What interrupts need of the scheduler."""

    clock: Callable[[], float]
    grace: float
    timers: Timers

    def take_back(self, task: Task[Any]) -> bool: ...
    def resume(self, task: Task[Any], value: Any, error: BaseException | None) -> None: ...
    def give_up(self, task: Task[Any]) -> None: ...


class Interrupts:
    """Requests, deliveries and graces of all tasks of one scheduler."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def request(self, task: Task[Any], scope: Scope, reason: object) -> None:
        """Ask `task` to leave `scope`; if that is the task itself, its children as well."""
        todo = [(task, scope)]
        while todo:
            task, scope = todo.pop()
            if task.done or (scope.requested and not task.body_over):
                continue
            if scope is task:
                todo += [(child, child) for child in reversed(task.children)]
            if not scope.requested:
                scope.requested = True
                scope.reason = reason
            if not task.body_over:
                self._look(task)

    def force(self, task: Task[Any], error: BaseException) -> None:
        """Throw `error` at the wait of `task`, or at its next, whatever the scopes say: Ctrl-C."""
        task.forced = error
        self._look(task)

    def cut_short(self, task: Task[Any]) -> None:
        """Let `task` wait no more at all: no shield, and its grace is over."""
        for scope in chain(task):
            if scope is not task:
                scope.shield = None
        task.requested = task.overdue = True
        self._look(task)

    def _look(self, task: Task[Any]) -> None:
        """Something is asked of `task`: deliver it if the task is waiting, or at its next wait."""
        task.pending = True
        wait = task.wait
        if wait is not None:
            self.deliver(task, wait)

    def deliver(self, task: Task[Any], wait: object = None) -> bool:
        """Throw what is due at the `wait` that `task` is in, or is about to make; return if so.

        A signal handler may wake it at any moment until the wait is taken back.
        """
        kernel = self._kernel
        error = task.forced
        target: Scope = task
        if error is None:
            found, shields = due(task)
            for shield in shields:  # each puts something off, and its time begins to run
                if shield.timer is None and shield.shield != math.inf:
                    assert shield.shield is not None
                    end = kernel.clock() + shield.shield
                    shield.timer = kernel.timers.set(end, self._worn, (task, shield))
            if found is None:
                return False
            target = found
        if wait is not None and not kernel.take_back(task):
            return False  # a result came first; the interrupt is due at the next wait
        task.forced = None
        if error is None and isinstance(target, Block) and target.is_astray():
            error = astray(target)
            self._take_off(target)
        task.pending = has_something_pending(task)
        if error is None:
            if target.overdue:
                target.swallowed += 1
                if target.swallowed > SWALLOWS:
                    kernel.give_up(task)
                    return True
            else:
                if kernel.grace != math.inf:
                    end = kernel.clock() + kernel.grace
                    target.timer = kernel.timers.set(end, self._over, (task, target))
                if isinstance(target, Block):
                    target.waited_for = None if wait is None else brief(wait)
            doom(task, target)
            error = Cancelled(target.reason, target.delivered)
        kernel.resume(task, None, error)
        return True

    def _over(self, whose: tuple[Task[Any], Scope]) -> None:
        """The grace is over: from now on every wait inside the scope raises `Cancelled`."""
        task, scope = whose
        scope.overdue = True
        self._look(task)

    def _worn(self, whose: tuple[Task[Any], Scope]) -> None:
        """A shield has put something off for as long as it may."""
        task, shield = whose
        shield.shield = None
        self._look(task)

    def leave(self, block: Block, kind: type[BaseException] | None) -> None:
        """Take `block`, which an exception of that kind leaves, off again.

        ScopeError if another block is still open inside it; but not from a generator that is
        thrown away, which has no say in the order.
        """
        task = block.task
        assert task is not None
        if task.innermost is block and block.timer is None and not task.pending:  # the steady path
            task.innermost = None if block.outer is task else block.outer
            block.outer = block.frame = block.task = None
            return
        inner = self._take_off(block)
        block.task = None  # which may end with what leaves the block: no cycle
        if inner is not None and kind is not GeneratorExit:
            raise ScopeError(
                f"{block!r}, opened in {block.opened_in}, is left while {inner!r}, opened in "
                f"{inner.opened_in}, is still open inside it"
            )

    def _take_off(self, block: Block) -> Block | None:
        """Take `block` off; returns the one that is open right inside it."""
        task = block.task
        assert task is not None
        if block.timer is not None:
            self._kernel.timers.cancel(block.timer)
        outer, block.outer, block.frame = block.outer, None, None  # which hold it: no cycle
        if task.innermost is block:
            task.innermost = None if outer is task else outer
            task.pending = has_something_pending(task)
            return None
        for inner in chain(task):
            if isinstance(inner, Block) and inner.outer is block:
                inner.outer = outer
                task.pending = has_something_pending(task)
                return inner
        return None  # it was taken off before, or the task is over, and with it all its blocks

    def check(self, task: Task[Any]) -> None:
        """Refuse a block that is astray, at the wait that `task` is about to make: debug mode."""
        for block in chain(task):
            if isinstance(block, Block) and block.is_astray():
                self.force(task, astray(block))
                self._take_off(block)

    def leave_all(self, task: Task[Any]) -> None:
        """The body of `task` is over, and every scope with it."""
        for scope in chain(task):
            self._stop_timer(scope)
        task.innermost = None
        task.pending = False
        task.forced = None

    def _stop_timer(self, scope: Scope) -> None:
        if scope.timer is not None:
            self._kernel.timers.cancel(scope.timer)


def astray(block: Block) -> ScopeError:
    """Return the complaint about a block that was left open by a `yield` to a consumer."""
    assert block.task is not None
    return ScopeError(
        f"{block!r}, opened in {block.opened_in}, is still open in a generator that has yielded to "
        f"its consumer, at {where(block.task)}: it would bound the consumer. Yield values outside "
        "the block"
    )


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
        suspendable = each.f_code.co_flags & _SUSPENDABLE
        ours = each.f_globals.get("__name__", "").startswith("corolib.")
        if ours and not suspendable:
            return frame, frame  # the scheduler: it steps something foreign, without such frames
        caller = each.f_back
        assert caller is not None  # the scheduler is one
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
    return bool(task.forced or task.debts) or any(scope.requested for scope in chain(task))


def due(task: Task[Any]) -> tuple[Scope | None, list[Scope]]:
    """Return the scope whose interrupt is to be thrown at this wait, or None; and the shields
    that put one off.
    """
    target: Scope | None = None
    shields: list[Scope] = []  # those passed on the way out
    holding: list[Scope] = []  # those of them that put something off
    under_way = False
    for scope in chain(task):
        wants = scope.overdue or (
            scope.requested and not (scope.delivered or scope.doomed or under_way)
        )
        if wants and shields:
            holding = list(shields)
        elif wants:
            target = scope
        under_way = under_way or scope.delivered is not None
        if scope.shield is not None:
            shields.append(scope)
    return target, holding


def doom(task: Task[Any], target: Scope) -> None:
    """Note that `target` is being left, and with it everything inside."""
    target.delivered = target.delivered or object()
    scopes = chain(task)
    for scope in scopes[: scopes.index(target)]:
        scope.doomed = True
