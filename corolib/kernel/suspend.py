"""What `Suspend` means: its wait, and the `wake` it hands out. And the wait in a queue.

All that is not a file, a time or the end of a task is waited for in this way. The waiting task
gives its `arm` a function, `wake`, and whoever has the result calls it. Neither knows anything of
the other.

What can go wrong. Two threads wake one task, and it gets two results. A wake comes when the task
has long gone on, and ends another wait. A signal handler wakes between any two instructions of the
loop, and the loop then sleeps in the selector although a task is ready. A wait is cancelled while
another thread wakes it: the result is lost, or the task gets both. An undo is called after a wake,
and takes back what was handed over with it. `arm` wakes, cancels its own task or fails, before
anybody knows the undo. So these are the rules:

1.  A wake is good for one result. The task lies in a list of one, and whoever pops it has the say:
    a call of the wake, or the scheduler that takes the wait back. `list.pop` is atomic, against
    other threads and against signal handlers, so nothing here takes a lock.
2.  A wake belongs to one wait, and not to the task. All calls but the first do nothing, however
    late they come.
3.  It may be called from any thread and any signal handler. In the scheduler's own thread it makes
    the task ready at once. In another thread, and while the loop may be in the selector, it leaves
    a call in the call queue, which also ends the wait for files. After the end of the run it raises
    `RunFinished`.
4.  The undo is called once, and only when the wait is taken back. It is never called after a wake.
5.  `arm` may call its wake. The undo that it returns is then not needed.
6.  `arm` may cancel its own task. Its undo is then called as soon as `arm` returns it.
7.  What `arm` raises, the task gets at its `yield`: after a wake, in the place of the value. An
    `arm` that neither wakes nor returns an undo has failed, too. If `arm` has cancelled the task,
    the cancel is delivered, and the failure is reported.

The same wait serves two things of the scheduler's own. A task may have something to *await first*:
tasks that must be gone before it makes its next wait. And a *proxy waiter* makes a wait for a file
or a time in the place of a task that waits for something else as well.

Most waits for what another task does are plainer than that: the task stands in a queue, first come,
first served. For these there is the trap `Enqueue`. It has neither a wake nor an undo: the task
itself is in the queue, and rule 1 holds as it stands. Whoever takes the task out of the queue has
the say: who serves it, or the scheduler that takes the wait back.

Who is woken when, in what order, is the business of what is built on this: see `coordination/`.
"""

from __future__ import annotations

from _thread import get_ident
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from corolib.kernel.diagnostics import no_error, no_undo, some
from corolib.kernel.frames import LIBRARY, users_part
from corolib.kernel.task import Task
from corolib.kernel.traps import Suspend

if TYPE_CHECKING:
    from corolib.kernel.scheduler import Scheduler
    from corolib.kernel.traps import Wake


class Suspensions:
    """The tasks in a `Suspend`. `suspended` are those that only another task can set going.

    They are a set and not a count: a signal handler that wakes one of them may come between the
    reading and the writing of a count.
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
        # Called as `trap.arm(wake)`, a slot is looked up the slow way.
        arm = trap.arm
        try:
            undo = arm(wake)
        except BaseException as exc:  # rule 7
            error = users_part(exc, LIBRARY)
            if wake.claim() is not None:
                self.woken(task, None, error)
            elif wake.taken_back:
                self.scheduler.report_failure(task, error)
            else:
                task.outcome = (None, error)
            # The error holds the frame of `arm`, and that holds this one: they would be a cycle.
            del error, task
            return
        if wake.taken_back:  # rule 6
            self.scheduler.call(undo, (), task)
        elif callable(undo):
            wake.undo = undo if task.wait_state is wake else None  # rule 5
        elif wake.claim() is not None:  # rule 7
            self.woken(task, None, TypeError(no_undo(trap, undo)))

    def await_those_first(self, task: Task[Any], trap: Any) -> bool:
        """Let `task` wait for what it awaits first, and make the wait `trap` only then.

        Returns whether there is anything. If this wait is cancelled, what is left of it still comes
        before the next one. See `task.await_first`.
        """
        await_first = {each: None for each in task.await_first or () if not each.done}
        task.await_first = None
        if not await_first:
            return False

        def arm(wake: Wake) -> Callable[[], object]:
            def gone(one: Task[Any], value: Any, error: BaseException | None) -> None:
                del left[one]
                if not left:
                    wake()

            def undo() -> None:
                for forget in undos:
                    forget()
                task.await_first = list(left)
                task.send = task.body.send

            left = await_first.copy()
            undos = [each.watch(partial(gone, each)) for each in await_first]
            return undo

        def send(value: Any) -> Any:
            """Step the task, as if its body had yielded the trap just now.

            Meanwhile what it would have stood in a queue for may have become free.
            """
            task.send = task.body.send
            return trap.general() if type(trap) is Enqueue else trap

        what = "the end of " + some([each.label for each in await_first])
        self.wait(task, Suspend(arm, what, holder=lambda: list(await_first)))
        task.send = send
        return True

    def woken(self, task: Task[Any], value: Any, error: BaseException | None) -> None:
        """End the wait of a task whose wake was claimed.

        What `arm` has raised since then comes before the value (rule 7).
        """
        self._suspended.discard(task)
        if error is None and task.outcome is not None:
            _, error = task.outcome
        self.scheduler.make_ready(task, value, error)

    def undo(self, task: Task[Any]) -> bool:
        """Take the wait of `task` back; False if a result is on its way already (rules 1 and 4).

        If a signal handler has woken it just now, there is not even a wake any more.
        """
        wake = task.wait_state
        if wake is None or wake.claim() is None:
            return False
        self._suspended.discard(task)
        wake.taken_back = True
        undo, wake.undo = wake.undo, None
        if undo is not None:
            self.scheduler.call(undo, (), task)
        return True

    def enqueue(self, task: Task[Any], trap: Enqueue) -> None:
        """Park `task` in a queue until it is served."""
        trap.queue[task] = trap.item
        self._suspended.add(task)
        task.wait = trap

    def undo_enqueue(self, task: Task[Any]) -> bool:
        """Take `task` out of its queue; False if it was served already (rule 1)."""
        if task.wait.queue.pop(task, self) is self:
            return False
        self._suspended.discard(task)
        return True


class Enqueue:
    """The wait in a queue until one is served. `Suspend` could say it, at three times the cost."""

    # There is no `__init__`: see `Join`.
    __slots__ = ("general", "item", "queue")
    queue: OrderedDict[Any, Any]
    item: Any
    general: Callable[[], Suspend[Any]]

    def holder(self) -> Iterable[Task[Any] | None]:
        holder = self.general().holder
        return () if holder is None else holder()

    def __repr__(self) -> str:
        return repr(self.general())


def in_queue(
    queue: OrderedDict[Any, Any], general: Callable[[], Suspend[Any]], item: Any = None
) -> Enqueue:
    """Return the trap with which a task stands in `queue`, with `item`, until it is served.

    To be yielded at once by who has found that there is something to wait for. `general()` returns
    the trap for the same wait that finds it out by itself.
    """
    trap = Enqueue()
    trap.queue = queue
    trap.item = item
    trap.general = general
    return trap


def serve(waiter: Task[Any] | Wake, value: Any = None, error: BaseException | None = None) -> None:
    """End the wait of one that was just taken out of a queue: a task, or a wake that stood there.

    In another thread, and while the loop may be in the selector, a call is left (rule 3).
    """
    if not isinstance(waiter, Task):
        waiter(value, error)
        return
    scheduler = waiter.scheduler
    if scheduler.polling or get_ident() != scheduler.thread:
        scheduler.call_soon_threadsafe(scheduler._suspensions.woken, waiter, value, error)
        return
    # This is `woken()`, at a third of its price.
    scheduler._suspended.discard(waiter)
    waiter.wait = None
    if value is not None or error is not None:
        waiter.outcome = (value, error)
    scheduler._ready.append(waiter)


class ProxyWaiter:
    """Waits for a file or a time in the place of a task, and calls a wake when the wait ends.

    To the poller and to the loop it looks like a task. Its step is the call of `wake`, with no task
    running. What that raises is reported.
    """

    __slots__ = ("wait_state", "outcome", "task", "wait", "wake")
    pending = False
    # Only a second Ctrl-C leaves its step. It ends no body, and the next turn raises it again.
    body_over = True

    def __init__(self, task: Task[Any], wake: Wake) -> None:
        self.task = task
        self.wake: Wake | None = wake
        self.wait: Any = None
        self.wait_state: Any = None
        self.outcome: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)  # for messages, and for who orders the queue by name

    @property
    def body(self) -> ProxyWaiter:
        return self

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
    """The wake of one wait (rule 2): call it as `wake(value=None, error=None)`."""

    __slots__ = ("_claim", "_home", "taken_back", "undo")

    def __init__(self, home: Suspensions, task: Task[Any]) -> None:
        self._home = home
        self._claim = [task]
        self.undo: Callable[[], object] | None = None
        self.taken_back = False

    def claim(self) -> Task[Any] | None:
        """Return the task to the first that asks, None to all others (rule 1)."""
        try:
            return self._claim.pop()
        except IndexError:
            return None

    def __call__(self, value: Any = None, error: BaseException | None = None) -> None:
        if error is not None and not isinstance(error, BaseException):
            raise TypeError(no_error(error))
        home = self._home
        scheduler = home.scheduler
        at_once = scheduler.at_once()  # rule 3
        try:
            task = self._claim.pop()
        except IndexError:
            return
        # The undo may hold this very wake: they would be a cycle.
        self.undo = None
        if at_once:
            home.woken(task, value, error)
        else:
            scheduler.call_soon_threadsafe(home.woken, task, value, error)
