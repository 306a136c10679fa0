"""What `Suspend` means: its wait, and the `wake` it hands out.

A wake is good for one result, from any thread, at any time. Whoever pops the task from a list of
one has the say: a wake, or the scheduler that takes the wait back. `list.pop` is atomic, against
other threads and against signal handlers, so nothing here takes a lock.

Imports from corolib the words, tasks, and the wording of one complaint.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from corolib.kernel.diagnostics import no_error, no_undo
from corolib.kernel.frames import LIBRARY, users_part
from corolib.kernel.task import Task
from corolib.kernel.traps import Suspend

if TYPE_CHECKING:
    from corolib.kernel.scheduler import Scheduler
    from corolib.kernel.traps import Wake


class Suspensions:
    """The tasks in a `Suspend`. `suspended` are those that only another task can set going.

    A set, and not a count: a signal handler that wakes one may come between the reading and the
    writing of a count.
    """

    def __init__(self, scheduler: Scheduler, suspended: set[Task[Any]]) -> None:
        self.scheduler = scheduler
        self._suspended = suspended

    def wait(self, task: Task[Any], trap: Suspend[Any]) -> None:
        """Park `task` until the `wake` that the trap's `arm` is given is called."""
        task.wait = trap
        wake = task.wait_state = SuspendWake(self, task)
        if not trap.outside:
            self._suspended.add(task)
        arm = trap.arm  # as a method, a slot is looked up the slow way
        try:
            undo = arm(wake)
        except BaseException as exc:
            error = users_part(exc, LIBRARY)
            if wake.claim() is not None:
                self.woken(task, None, error)
            elif wake.taken_back:  # `arm` has cancelled the task, and then failed
                self.scheduler.report_failure(task, error)
            else:  # `arm` has woken the task, and then failed
                task.outcome = (None, error)
            del error, task  # the frame of `arm` holds this one: that would be a cycle
            return
        if wake.taken_back:  # `arm` has cancelled the task
            self.scheduler.call(undo, (), task)
        elif callable(undo):
            wake.undo = undo if task.wait_state is wake else None
        elif wake.claim() is not None:
            self.woken(task, None, TypeError(no_undo(trap, undo)))

    def await_those_first(self, task: Task[Any], trap: Any) -> bool:
        """Before `task` makes the wait `trap`, let it wait until those that it owes are gone.

        Returns whether there are any. See `task.await_first`.
        """
        await_first = [each for each in task.await_first or () if not each.done]
        task.await_first = None
        if not await_first:
            return False

        def arm(wake: Wake) -> Callable[[], object]:
            def gone(one: Task[Any], value: Any, error: BaseException | None) -> None:
                left.remove(one)
                if not left:
                    wake()

            def undo() -> None:
                for forget in undos:
                    forget()
                task.await_first = left  # they still come before the next wait
                task.send = task.body.send

            left = await_first.copy()
            undos = [each.watch(partial(gone, each)) for each in await_first]
            return undo

        def send(value: Any) -> Any:
            """Step the task: as if its body had yielded the trap just now."""
            task.send = task.body.send
            return trap

        what = "the end of " + ", ".join(each.label for each in await_first)
        self.wait(task, Suspend(arm, what, holder=await_first.copy))
        task.send = send
        return True

    def woken(self, task: Task[Any], value: Any, error: BaseException | None) -> None:
        """End the wait of a task whose wake was claimed."""
        self._suspended.discard(task)
        if error is None and task.outcome is not None:  # what `arm` has raised since
            _, error = task.outcome
        self.scheduler.resume(task, value, error)

    def undo(self, task: Task[Any]) -> bool:
        """Take the wait of `task` back; False if a result is on its way already."""
        wake = task.wait_state
        if wake is None or wake.claim() is None:  # None: woken by a signal handler just now
            return False
        self._suspended.discard(task)
        wake.taken_back = True
        undo, wake.undo = wake.undo, None
        if undo is not None:
            self.scheduler.call(undo, (), task)
        return True


class ProxyWaiter:
    """Waits for a file or a time in the place of a task that waits for several things at once, or
    for a watch (see urgent.py).

    To the poller and to the loop it looks like a task; its step is the call of `wake`, with no
    task running. What that raises is reported.
    """

    __slots__ = ("wait_state", "outcome", "task", "wait", "wake")
    pending = False
    body_over = True  # what leaves its step, a second Ctrl-C, is raised again by the next turn

    def __init__(self, task: Task[Any], wake: Wake) -> None:
        self.task = task
        self.wake: Wake | None = wake
        self.wait: Any = None
        self.wait_state: Any = None
        self.outcome: Any = None

    @property
    def label(self) -> str:
        return self.task.label

    @property
    def spawned_at(self) -> str:
        return self.task.spawned_at

    @property
    def body(self) -> ProxyWaiter:
        return self

    def stack(self) -> list[FrameType]:
        return self.task.stack()

    def resume(self, step: Callable[[Any], object], value: Any) -> ProxyWaiter:
        step(value)
        return self

    def send(self, value: Any, error: BaseException | None = None) -> None:
        scheduler = self.task.scheduler
        scheduler.current = None
        if self.wake is not None:
            scheduler.call(self.wake, (value, error), self.task)

    def throw(self, error: BaseException) -> None:
        self.send(None, error)


class SuspendWake:
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
        scheduler = home.scheduler
        at_once = not scheduler.polling and get_ident() == scheduler.thread
        if not at_once:
            scheduler.check_open()
        try:
            task = self._claim.pop()
        except IndexError:
            return
        self.undo = None  # it may hold this very wake: no cycle
        if at_once:
            home.woken(task, value, error)
        else:
            scheduler.call_soon_threadsafe(home.woken, task, value, error)
