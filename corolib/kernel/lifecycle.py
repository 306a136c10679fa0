"""How a run begins, what ends it early, what is left of it; and what lives as long as a run.

A run changes the signals, the hooks for async generators and the thread's scheduler for its time
(`hooks.py`), and puts them back. It ends when every task is done. What ends it early is *fatal*:
SystemExit or KeyboardInterrupt that leaves a task, a deadlock, Ctrl-C. Then all tasks are
cancelled, and when they are done the fatal error leaves `run()`. What does not end even so is
closed, and named on stderr.

To step tasks (but for one in a forked child), to make their waits and to wait for files is the
scheduler's. What the process around it has to be told is in `hooks.py`; here is what follows from
it.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from corolib.kernel.asked import announce, answer_if_asked
from corolib.kernel.bodies import Quietly, close_for_good, is_begun
from corolib.kernel.context import _current
from corolib.kernel.diagnostics import explained, to_stderr
from corolib.kernel.errors import Deadlock, RunFinished
from corolib.kernel.frames import call_site, line_of, programs_lines
from corolib.kernel.hooks import CtrlC, ProcessHooks, tell_of_fork, told_of_forks, uninterrupted
from corolib.kernel.safely import context_of, is_a, name_of, set_context, trace_of
from corolib.kernel.task import Task
from corolib.kernel.waits import warn_within

if TYPE_CHECKING:
    from types import TracebackType

    from corolib.kernel.scheduler import Scheduler

FORKED = "this scheduler belongs to the parent process; in a forked child, run() makes a new one"

warn_within(uninterrupted)


class RunLocal(Protocol):
    """What a module keeps for the length of a run: see `Scheduler.run_local`.

    It may have a method `put_off(raise_ctrl_c)`, which is called when Ctrl-C has come. Where that
    returns True, it calls `raise_ctrl_c()` later, and main hears nothing of it until then.
    """

    def end(self) -> None: ...


L = TypeVar("L", bound=RunLocal)

INSIDE_ASYNCIO = (
    "run() was called inside a running loop of asyncio's, which stands still until the run is "
    "over. Write `await asyncio.to_thread(corolib.run, f)`, for a run in a thread; or, for one in "
    "that loop, `await run_in_asyncio(f)`, of corolib.interop"
)
warned_of_asyncio = False


class Lifecycle:
    """The beginning and the end of the runs of one scheduler: `with lifecycle: ...` is a run."""

    def __init__(self, scheduler: Scheduler, dump_signal: int | None) -> None:
        self._scheduler = scheduler
        self._hooks = ProcessHooks(self, dump_signal)
        self._run_locals: dict[Any, Any] = {}
        # In the order in which they began: a set has one that differs from run to run.
        self._asyncgens: weakref.WeakKeyDictionary[AsyncGenerator[Any, Any], None]
        self._asyncgens = weakref.WeakKeyDictionary()
        self.fatal: BaseException | None = None  # leaves run() when all tasks are done
        self.ctrl_c = CtrlC()
        self.forked = False
        self.holds = 0  # blocks of `hold()` that are open
        self.given_up: list[tuple[str, Any]] = []  # what, and its body
        tell_of_fork(self)

    def __enter__(self) -> None:
        warn_of_asyncio()
        self._hooks.install(self._scheduler.open, self._scheduler.close_files)
        _current.scheduler = self._scheduler

    def __exit__(self, *exc: object) -> None:
        try:
            self._finish()
        finally:
            _current.scheduler = self._scheduler.current = None
            self._hooks.remove()
        # Ctrl-C may have come in the last moment.
        if self.ctrl_c.pending and self.fatal is None:
            self.fatal = KeyboardInterrupt()

    def begin_turn(self) -> None:
        """Change for one turn what a run changes."""
        self._hooks.install(self._scheduler.open)
        _current.scheduler = self._scheduler

    def end_turn(self) -> None:
        """Put back what was changed for one turn."""
        scheduler = self._scheduler
        _current.scheduler = scheduler.current = None
        # In another loop, a wake must be announced from now on.
        scheduler.polling = scheduler.embedded or scheduler.is_closed
        self._hooks.remove()

    def raise_fatal(self) -> None:
        """Raise what has ended the run early."""
        fatal, self.fatal = self.fatal, None
        try:
            if fatal is not None:
                raise fatal
        finally:
            # The error's traceback holds this frame: they would be a cycle.
            del fatal, self

    def refuse_reentry(self) -> None:
        """Refuse a run or a turn inside another one."""
        if _current.scheduler is not None:
            raise RuntimeError(
                "a scheduler already runs in this thread: use spawn(f, *args), or, to wait for it, "
                "`yield from f(*args)`"
            )
        self._scheduler.check_usable()

    def refuse_dump_signal(self) -> None:
        """Refuse to be embedded: between two turns the signal would end the process."""
        if self._hooks.dump_signal is not None:
            raise ValueError(
                "dump_signal= is heard within turns only: in another loop, handle the signal "
                "there, and print `scheduler.report()`"
            )

    # What ends it early -----------------------------------------------------------------------

    def end(self, error: BaseException) -> None:
        """Cancel all tasks; when they are done, `error` leaves `run()`."""
        if self.fatal is None or is_a(self.fatal, Deadlock):
            self.fatal = error
        roots = [task for task in self._scheduler.tasks if not task.parent]
        self._scheduler.cancellation.request_all(roots, "the run ends")

    def force_main(self, error: BaseException) -> None:
        """Throw `error` into main, at its wait; if its body is over, end the run with it."""
        main = self._scheduler.main
        if main is None or main.body_over:
            self.end(error)
        else:
            self._scheduler.cancellation.force(main, error)

    def hold(self, more: int) -> None:
        self.holds += more

    def break_deadlock(self) -> None:
        """No task can ever run again: end the run.

        If it is ending already, even the clean-up of the tasks waits for ever: cut that short.
        """
        scheduler = self._scheduler
        if self.fatal is None:
            found = scheduler.deadlock()
            if found is not None:  # else a signal handler has just left a call, or woken one
                self.end(found)
        else:
            for task in [task for task in scheduler.tasks if not task.body_over]:
                scheduler.cancellation.cut_short(task)

    def on_ctrl_c(self) -> None:
        self.ctrl_c.strike()
        with suppress(RunFinished):
            self._scheduler.call_soon_threadsafe(self._put_off_ctrl_c)

    def _put_off_ctrl_c(self) -> None:
        """Raise it in main; or when the servers have stopped, if there are any."""
        for local in list(self._run_locals.values()):
            put_off = getattr(local, "put_off", None)
            if put_off is not None and put_off(self._force_ctrl_c):
                return
        self._force_ctrl_c()

    def _force_ctrl_c(self) -> None:
        self.force_main(self.ctrl_c.take())

    def on_dump(self) -> None:
        if not answer_if_asked(living):
            to_stderr(self._scheduler.report())

    def announce(self, signum: int) -> Callable[[], object]:
        return announce(signum)

    # What lives as long as a run --------------------------------------------------------------

    def run_local(self, factory: Callable[[Scheduler], L]) -> L:
        """See `Scheduler.run_local`."""
        found = self._run_locals.get(factory)
        if found is None:
            # Another thread may be faster: then what that one has made is taken.
            found = self._run_locals.setdefault(factory, factory(self._scheduler))
        return found  # type: ignore[no-any-return]

    def _end_run_locals(self) -> None:
        """End what modules keep, the last first; each is still found while it ends.

        One that a second Ctrl-C has kept from that is ended when the scheduler is closed.
        """
        while self._run_locals and not self.forked:
            factory, local = next(reversed(self._run_locals.items()))
            self._scheduler.call(local.end, ())
            del self._run_locals[factory]

    # What is left -----------------------------------------------------------------------------

    def _finish(self) -> None:
        """Close what the run has left open, and report how main failed if that leaves by no way."""
        self._abandon()
        main = self._scheduler.main
        failure = None if main is None or self.forked else main.failure
        if failure is not None and self.fatal is not None:
            self._scheduler.report_failure(main, failure)

    def close(self) -> None:
        """See `Scheduler.close`."""
        if _current.scheduler is self._scheduler:
            raise RuntimeError("close() was called by a task or a callback: cancel the tasks there")
        self.give_back()
        if self._scheduler.main is None:  # else that leaves `run()`
            self.raise_fatal()

    def leave_run(self) -> None:
        """The last that `run()` does, whatever leaves it; called in its frame."""
        self.give_back()
        error = sys.exception()
        trace = None if error is None else trace_of(error)
        # Else it is one that the program is handling while it calls `run()`.
        if trace is not None and trace.tb_frame is sys._getframe(1):
            shorten(error, trace)
        if error is not None:
            explained(error)

    def give_back(self) -> None:
        """Close what is left, tasks and files, if the end of a run has not done that."""
        try:
            self._abandon_all()
        finally:
            self._scheduler.close_files()

    def _abandon_all(self) -> None:
        """Close what is left, as at the end of a run, from outside of one.

        And put back what the end of a run would have put back: a second Ctrl-C may have come there.
        """
        outer = _current.scheduler
        try:
            _current.scheduler = self._scheduler
            self._abandon()
        finally:
            _current.scheduler = None if outer is self._scheduler else outer
            self._scheduler.current = None
            self._hooks.remove()

    def _abandon(self) -> None:
        """End the run-locals; close the bodies that did not end by themselves, and name them.

        A lock or a queue may be used in the next run. So first the waits are taken back, and who
        was given something takes it, as before a cancel. What the run-locals close, nobody waits
        for.
        """
        if self.forked:
            return
        scheduler = self._scheduler
        tasks = scheduler.tasks
        names = {task: f"{task!r} was abandoned" for task in tasks}
        for task in self._take_waits_back(tasks):
            scheduler.current = task
            self._call_last(_step_last, task, task)
        scheduler.current = None
        self._end_run_locals()
        tasks = scheduler.tasks  # also those that were spawned in these steps
        left = [task for task in reversed(tasks) if task.body]
        bodies = [(None, *each) for each in self.given_up]
        bodies += [(task, names.get(task, f"{task!r} has not begun"), task.body) for task in left]
        self.given_up = []
        # From here on no cancel looks at them.
        for task in left:
            task.end_body(None, None)
        with Quietly():
            while bodies:
                whose, what, body = bodies.pop(0)
                to_stderr(f"corolib: {what}; it is closed now")
                scheduler.current = whose
                self._call_last(close_for_good, body)
                del body
        for task in tasks:
            for thing in list(task.holds or ()):
                thing.orphaned(task)

    def _call_last(
        self, f: Callable[[Any], object], thing: Any, task: Task[Any] | None = None
    ) -> None:
        """Make a call. What else is left is done also if it ends the run, as Ctrl-C does."""
        try:
            self._scheduler.call(f, (thing,), task)
        except (SystemExit, KeyboardInterrupt) as exc:
            if self.forked:
                raise
            self.fatal = self.fatal or exc

    def _take_waits_back(self, tasks: list[Task[Any]]) -> list[Task[Any]]:
        """Take the waits of all tasks back. Return those that have been given something."""
        ready = self._scheduler._ready
        served: list[Task[Any]] = []
        while len(ready):
            task = ready.popleft()
            # The others give way, have not begun, are over, or are proxies.
            if task.wait is None and is_begun(task.body):
                served.append(task)
        for task in tasks:
            if task.wait is not None:
                self._scheduler.take_back(task)
                task.wait = None
        return served

    # Async generators -------------------------------------------------------------------------

    def on_new_asyncgen(self, agen: Any) -> None:
        """Note an async generator that a task begins."""
        self._asyncgens[agen] = None
        task = self._scheduler.current
        if task is not None:
            agen.__qualname__ = name = _Name(name_of(agen, which="__qualname__"))
            name.resume = task.resume

    def on_dropped_asyncgen(self, agen: Any) -> None:
        """Close an async generator that was dropped half-way; called by the garbage collector."""
        with suppress(RunFinished):
            self._scheduler.call_soon_threadsafe(self._close_asyncgen, agen)

    def _close_asyncgen(self, agen: Any) -> None:
        """Have a task close it, in the context of the task that has begun it."""
        task = self._scheduler.make_task(aclose(agen), True, call_site(1), "aclose")
        if isinstance(agen.__qualname__, _Name):
            task.resume = agen.__qualname__.resume

    def close_asyncgens(self) -> bool:
        """Start tasks for the async generators that were left half-way; return if there are any."""
        scheduler = self._scheduler
        # The last tasks may have dropped some: these left a call.
        scheduler.make_calls()
        left, self._asyncgens = list(self._asyncgens), weakref.WeakKeyDictionary()
        for agen in left:
            self._close_asyncgen(agen)
        for task in scheduler.tasks:
            end = scheduler.clock() + scheduler.grace
            scheduler.timers.set(end, lambda task: task.cancel("the run ends"), task)
        return bool(scheduler.tasks)

    # Fork -------------------------------------------------------------------------------------

    def on_fork(self) -> None:
        """This is a child process: the tasks are the parent's, so do nothing for them here.

        The wake-up files are the parent's too: what was read here, it would miss.
        """
        self.forked = True
        self._scheduler.disown()
        for task in self._scheduler.tasks:
            # What awaits itself first is looked at, whatever it yields.
            task.await_first = [task]
            task.pending = True
        self._scheduler.close_files()
        self._hooks.remove()
        _current.scheduler = None

    def stop_in_child(self, task: Task[Any]) -> None:
        """Stop a task of the parent's that was running when a child was forked; in the child.

        Its clean-up runs. What leaves the task leaves `run()`.
        """
        with suppress(StopIteration):
            task.resume(task.body.throw, RuntimeError(FORKED))
        raise RuntimeError(FORKED)

    def wakeup_fd(self) -> int:
        """Return the number to which signals are written: see `hooks.py`."""
        return self._scheduler.wakeup_fd()


def living() -> list[Scheduler]:
    """Return the schedulers of this process that have tasks, the oldest first."""
    found = [each._scheduler for each in told_of_forks() if type(each) is Lifecycle]
    return [each for each in found if each.tasks]


def warn_of_asyncio() -> None:
    """Warn, once in this process, if a loop of asyncio's runs in this thread.

    It is not refused: in the cell of a notebook, which has such a loop, it is what people want.
    """
    global warned_of_asyncio
    running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    if warned_of_asyncio or running_loop is None or running_loop() is None:
        return
    warned_of_asyncio = True
    import warnings

    code, lasti = call_site(1)
    warnings.warn_explicit(INSIDE_ASYNCIO, RuntimeWarning, code.co_filename, line_of(code, lasti))


def shorten(error: BaseException | None, trace: TracebackType) -> None:
    """Have a Ctrl-C that leaves a function of the library show that and the program's own lines.

    An error that was being handled is shown as well, but not that something was cancelled.
    """
    if error is not None and is_a(error, KeyboardInterrupt):
        trace.tb_next = programs_lines(trace.tb_next)
        while (context := context_of(error)) is not None and not is_a(context, Exception):
            set_context(error, context_of(context))


def _step_last(task: Task[Any]) -> None:
    """Let a task take what it was given. The wait that it would make next is not made."""
    (value, error), task.outcome = task.outcome or (None, None), None
    try:
        if error is None:
            task.resume(task.send, value)
        else:
            task.resume(task.body.throw, error)
    except StopIteration as stop:
        task.end_body(stop.value, None)
    except BaseException as exc:
        task.end_body(None, exc)
        if not task.cancelled:
            raise
    finally:
        # The error's traceback holds this frame: they would be a cycle.
        del error, task


class _Name(str):
    """The name of an async generator, and how the task that has begun it is stepped.

    The generator itself has to say that: when it is dropped, weak references to it are dead.
    """

    __slots__ = ("resume",)
    resume: Callable[..., Any]


async def aclose(agen: AsyncGenerator[Any, Any]) -> None:
    """Run the `finally` blocks of an async generator."""
    await agen.aclose()
