"""What `Suspend` means: its wait, and the `wake` it hands out. And the wait for a task's end.

A wake is good for one result, from any thread, at any time. Whoever pops the task from a list of
one has the say: a wake, or the scheduler that takes the wait back. `list.pop` is atomic, against
other threads and against signal handlers, so nothing here takes a lock. A join needs none of that:
tasks end in the scheduler's own thread, and never in a signal handler.

Imports from corolib the words, tasks, and the wording of one complaint.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from functools import partial
from types import FrameType

from corolib.kinds import TYPE_CHECKING, Any, Protocol
from corolib.reports import no_error, no_undo
from corolib.task import LIBRARY, Join, Task, users_part
from corolib.traps import Suspend

if TYPE_CHECKING:
    from corolib.traps import Wake


class Kernel(Protocol):
    """What suspended tasks need of the scheduler."""

    asleep: bool
    thread: int

    def check_open(self) -> None: ...
    def resume(self, task: Task[Any], value: Any, error: BaseException | None) -> None: ...
    def call_soon_threadsafe(self, f: Callable[..., object], /, *args: Any) -> None: ...
    def call(
        self, f: Callable[..., object], args: tuple[Any, ...], task: Task[Any] | None = None
    ) -> None: ...
    def report_failure(self, task: Task[Any] | None, error: BaseException) -> None: ...


class Suspensions:
    """The tasks in a `Suspend` or a join. `stuck` are those that only another task can set going.

    A set, and not a count: a signal handler that wakes one may come between the reading and the
    writing of a count.
    """

    def __init__(self, kernel: Kernel, stuck: set[Task[Any]]) -> None:
        self.kernel = kernel
        self._stuck = stuck

    def wait(self, task: Task[Any], trap: Suspend[Any]) -> None:
        """Park `task` until the `wake` that the trap's `arm` is given is called."""
        task.wait = trap
        wake = task.armed = OneWake(self, task)
        if not trap.outside:
            self._stuck.add(task)
        arm = trap.arm  # as a method, a slot is looked up the slow way
        try:
            undo = arm(wake)
        except BaseException as exc:
            error = users_part(exc, LIBRARY)
            if wake.claim() is not None:
                self.woken(task, None, error)
            elif wake.taken_back:  # `arm` has cancelled the task, and then failed
                self.kernel.report_failure(task, error)
            else:  # `arm` has woken the task, and then failed
                task.outcome = (None, error)
            del error, task  # the frame of `arm` holds this one: that would be a cycle
            return
        if wake.taken_back:  # `arm` has cancelled the task
            self.kernel.call(undo, (), task)
        elif callable(undo):
            wake.undo = undo if task.armed is wake else None
        elif wake.claim() is not None:
            self.woken(task, None, TypeError(no_undo(trap, undo)))

    def join(self, task: Task[Any], trap: Join) -> None:
        """Park `task` until the one that it joins is done."""
        whom = trap.task
        if whom is task or whom.family:
            whom.refuse_circle(task)
        if whom.scheduler is not task.scheduler and not whom.done:  # its end comes from outside
            self.wait(task, Suspend(whom.watch, repr(trap), holder=trap.holder))
            return
        task.wait = trap
        task.armed = whom
        if whom.done:
            self.tell(task, whom)
            return
        self._stuck.add(task)
        if whom.joiners is None:
            whom.joiners = {task: None}
        else:
            whom.joiners[task] = None

    def tell(self, joiner: Any, whom: Task[Any]) -> None:
        """Hand the outcome of `whom` to a task that joins it, or to a call that watches it."""
        error = whom.exception if whom.cancelled or whom.failure is not None else None
        if type(joiner) is not Task:
            joiner(whom.returned, error)
            return
        # It may be interrupted by one told before it; and, up to here, by a signal handler, for
        # which a call would be one moment more.
        if joiner.armed is whom:
            joiner.wait = joiner.armed = None
            self._stuck.discard(joiner)
            self.kernel.resume(joiner, whom.returned, error)

    def undo_join(self, task: Task[Any]) -> None:
        """Take the wait of `task` for the end of another one back."""
        self._stuck.discard(task)
        joiners = task.armed.joiners
        if joiners is not None:
            joiners.pop(task, None)

    def put_off(self, task: Task[Any], trap: Any) -> bool:
        """Before `task` makes the wait `trap`, let it wait until those that it owes are gone.

        Returns whether there are any. See `task.debts`.
        """
        debts = [each for each in task.debts or () if not each.done]
        task.debts = None
        if not debts:
            return False

        def arm(wake: Wake) -> Callable[[], object]:
            def gone(one: Task[Any], value: Any, error: BaseException | None) -> None:
                left.remove(one)
                if not left:
                    wake()

            def undo() -> None:
                for forget in undos:
                    forget()
                task.debts = left  # they still come before the next wait
                task.send = task.body.send

            left = debts.copy()
            undos = [each.watch(partial(gone, each)) for each in debts]
            return undo

        def send(value: Any) -> Any:
            """Step the task: as if its body had yielded the trap just now."""
            task.send = task.body.send
            return trap

        what = "the end of " + ", ".join(each.label for each in debts)
        self.wait(task, Suspend(arm, what, holder=debts.copy))
        task.send = send
        return True

    def woken(self, task: Task[Any], value: Any, error: BaseException | None) -> None:
        """End the wait of a task whose wake was claimed."""
        self._stuck.discard(task)
        if error is None and task.outcome is not None:  # what `arm` has raised since
            _, error = task.outcome
        self.kernel.resume(task, value, error)

    def undo(self, task: Task[Any]) -> bool:
        """Take the wait of `task` back; False if a result is on its way already."""
        wake = task.armed
        if wake is None or wake.claim() is None:  # None: woken by a signal handler just now
            return False
        self._stuck.discard(task)
        wake.taken_back = True
        undo, wake.undo = wake.undo, None
        if undo is not None:
            self.kernel.call(undo, (), task)
        return True


class StandIn:
    """Waits for a file or a time in the place of a task that waits for several things at once, or
    for a bell (see urgent.py).

    To the poller and to the loop it looks like a task; its step is the call of `wake`, with no
    task running. What that raises is reported.
    """

    __slots__ = ("armed", "outcome", "task", "wait", "wake")
    pending = False
    body_over = True  # what leaves its step, a second Ctrl-C, is raised again by the next turn

    def __init__(self, task: Task[Any], wake: Wake) -> None:
        self.task = task
        self.wake: Wake | None = wake
        self.wait: Any = None
        self.armed: Any = None
        self.outcome: Any = None

    @property
    def label(self) -> str:
        return self.task.label

    @property
    def spawned_at(self) -> str:
        return self.task.spawned_at

    @property
    def body(self) -> StandIn:
        return self

    def stack(self) -> list[FrameType]:
        return self.task.stack()

    def resume(self, step: Callable[[Any], object], value: Any) -> StandIn:
        step(value)
        return self

    def send(self, value: Any, error: BaseException | None = None) -> None:
        scheduler: Any = self.task.scheduler
        scheduler.current = None
        if self.wake is not None:
            scheduler.call(self.wake, (value, error), self.task)

    def throw(self, error: BaseException) -> None:
        self.send(None, error)


class OneWake:
    """Call it as `wake(value=None, error=None)`; see `corolib.Suspend`."""

    __slots__ = ("_claim", "_home", "taken_back", "undo")

    def __init__(self, home: Suspensions, task: Task[Any]) -> None:
        self._home = home
        self._claim = [task]
        self.undo: Callable[[], object] | None = None
        self.taken_back = False

    def claim(self) -> Task[Any] | None:
        """Return the task to the first that asks, None to all others."""
        try:
            return self._claim.pop()
        except IndexError:
            return None

    def __call__(self, value: Any = None, error: BaseException | None = None) -> None:
        if error is not None and not isinstance(error, BaseException):
            raise TypeError(no_error(error))
        home = self._home
        kernel = home.kernel
        at_once = not kernel.asleep and get_ident() == kernel.thread
        if not at_once:
            kernel.check_open()
        try:
            task = self._claim.pop()
        except IndexError:
            return
        self.undo = None  # it may hold this very wake: no cycle
        if at_once:
            home.woken(task, value, error)
        else:
            kernel.call_soon_threadsafe(home.woken, task, value, error)
