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

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from corolib.errors import Cancelled

if TYPE_CHECKING:
    from corolib.task import Task
    from corolib.timers import Timers

SWALLOWS = 100  # overdue interrupts that a task may swallow before it is given up


class Scope:
    """One stretch of one task. A task is itself the outermost of its scopes."""

    __slots__ = (
        "delivered",
        "doomed",
        "outer",
        "overdue",
        "reason",
        "requested",
        "shield",
        "swallowed",
        "timer",
    )

    def __init__(self, shield: float | None = None) -> None:
        self.outer: Scope | None = None
        self.requested = False
        self.reason: object = None
        self.delivered: object = None  # the mark of its `Cancelled`, as soon as there was one
        self.swallowed = 0  # interrupts after the end of the grace
        self.overdue = False
        self.doomed = False
        self.shield = shield  # seconds that it may put off what comes from outside; None: no shield
        self.timer: list[Any] | None = None  # the end of the grace, or of the shield


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
            scope.shield = None
        task.requested = task.overdue = True
        self._look(task)

    def _look(self, task: Task[Any]) -> None:
        """Something is asked of `task`: deliver it if the task is waiting, or at its next wait."""
        task.pending = True
        if task.wait is not None:
            self.deliver(task)

    def deliver(self, task: Task[Any]) -> bool:
        """Throw what is due at the wait that `task` is in, or is about to make; return if so."""
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
        if task.wait is not None and not kernel.take_back(task):
            return False  # a result came first; the interrupt is due at the next wait
        task.forced = None
        task.pending = any(s.requested for s in chain(task))
        if error is None:
            if target.overdue:
                target.swallowed += 1
                if target.swallowed > SWALLOWS:
                    kernel.give_up(task)
                    return True
            elif kernel.grace != math.inf:
                end = kernel.clock() + kernel.grace
                target.timer = kernel.timers.set(end, self._over, (task, target))
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

    def enter(self, task: Task[Any], scope: Scope) -> None:
        """Make `scope` the innermost of `task`."""
        scope.outer = task.innermost or task
        task.innermost = scope

    def leave(self, task: Task[Any], scope: Scope) -> None:
        """Take `scope`, the innermost of `task`, off again."""
        assert scope.outer is not None, "a task cannot be left"
        self._stop_timer(scope)
        task.innermost = None if scope.outer is task else scope.outer
        task.pending = task.forced is not None or any(s.requested for s in chain(task))

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


def chain(task: Task[Any]) -> list[Scope]:
    """Return the scopes of `task`, innermost first; the last is the task itself."""
    scopes = []
    scope: Scope | None = task.innermost or task
    while scope is not None:
        scopes.append(scope)
        scope = scope.outer
    return scopes


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
