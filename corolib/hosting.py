"""What a scheduler is to the world around its loop: other threads, signals, forks, reports.

The base class of `Scheduler`. It holds the parts (timers, poller, inbox, the table of tasks) and
answers the plain calls; nothing here steps a task or waits. Those calls that rooms may make are
the protocol `Services` in `running.py`.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context

from corolib.errors import Deadlock, RunFinished
from corolib.inbox import FINISHED, Inbox
from corolib.kinds import Any, Protocol
from corolib.poller import Poller, Selector
from corolib.reports import deadlock, dump, slow_step
from corolib.running import RIDES, R, Runnable, Services, T, register
from corolib.scopes import Interrupts, Scope
from corolib.sockets import Network
from corolib.surroundings import CtrlC, Surroundings, tell_of_fork
from corolib.task import Task, close_for_good
from corolib.timers import Timers
from corolib.traps import HasFileno, Trap, Wake, check_number

SWEEP_EVERY = 1.5  # seconds between two looks for files closed behind our back; of the two that
# are promised, half a one is left for its slices: ten turns when 20 000 files are open
SWEEP_SLICE = 2000  # files a turn: about 0.2 ms
SLOW_STEP = 0.05  # seconds; a longer step is reported in debug mode
FORKED = "this scheduler belongs to the parent process; in a forked child, run() makes a new one"

ErrorHook = Callable[[Task[Any] | None, BaseException], object]


class ReadyQueue(Protocol):
    """What `ready=` makes: a scheduling policy. A `deque` is first come, first served."""

    def append(self, task: Task[Any], /) -> None: ...
    def popleft(self) -> Task[Any]: ...
    def __len__(self) -> int: ...


class Host:
    """The parts of a scheduler and its plain calls."""

    __slots__ = (
        "__weakref__",
        "_around",
        "_ctrl_c",
        "_fatal",
        "_forked",
        "_given_up",
        "_holds",
        "_hook",
        "_inbox",
        "_interrupts",
        "_longest_step",
        "_parks",
        "_poller",
        "_ready",
        "_rooms",
        "_spawned",
        "_stepped",
        "_steps",
        "_stuck",
        "_sweeping",
        "_tasks",
        "_turns",
        "asleep",
        "clock",
        "current",
        "grace",
        "leave",
        "main",
        "network",
        "rides",
        "thread",
        "timers",
    )

    def __init__(
        self,
        clock: Callable[[], float],
        grace: float,
        selector: Selector,
        ready: ReadyQueue,
        on_task_error: ErrorHook | None,
        network: Network,
    ) -> None:
        for name, f in (("clock", clock), ("on_task_error", on_task_error or _log_task_error)):
            if not callable(f):
                raise TypeError(f"{name}={f!r}: give a function")
        if not isinstance(network, Network):
            raise TypeError(f"network={network!r}: give a Network, or what is derived from it")
        self.clock = clock
        self.network = network
        self.grace = check_number(grace, "grace=", "a duration")
        if self.grace < 0:
            raise ValueError(f"grace={grace!r}: clean-up cannot be given less than no time")
        self.timers = Timers()
        self.main: Task[Any] | None = None
        self.current: Task[Any] | None = None
        self.thread = get_ident()
        self._ready = ready
        self._poller = Poller(selector, ready, clock)
        self._inbox = Inbox()
        self._ctrl_c = CtrlC()
        self._hook = on_task_error or _log_task_error
        self._around: Surroundings | None = None
        self._tasks: dict[int, Task[Any]] = {}  # all that are not done, by id
        self._stuck: set[Task[Any]] = set()  # those that only another task can set going
        self._given_up: list[tuple[str, Any]] = []
        self._fatal: BaseException | None = None  # leaves run() when all tasks are done
        self._interrupts = Interrupts(self)
        self.leave = self._interrupts.leave
        self._parks: dict[type, Callable[[Task[Any], Any], object]] = {}
        self._holds = 0
        self.asleep = False  # in the selector, or for ever, after the end: no wake can act now
        self._stepped = self._sweeping = self._forked = False
        self.rides = RIDES  # operations that need not wait, until one gives way: `running.tired`
        self._rooms: dict[Any, Any] = {}
        self._spawned = self._turns = self._steps = 0
        self._longest_step = 0.0
        tell_of_fork(self)

    @abstractmethod
    def start(
        self,
        f: Callable[..., Runnable[T]] | Runnable[T],
        args: tuple[Any, ...],
        name: str | None,
        daemon: bool,
        parent: Task[Any] | None,
        context: Context | None,
    ) -> Task[T]: ...
    @abstractmethod
    def arm(self, trap: Trap, wake: Wake) -> Callable[[], object]: ...
    @abstractmethod
    def take_back(self, task: Task[Any]) -> bool: ...
    @abstractmethod
    def resume(self, task: Task[Any], value: Any, error: BaseException | None) -> None: ...
    @abstractmethod
    def give_up(self, task: Task[Any]) -> None: ...
    @abstractmethod
    def _new_task(self, body: Any, new: bool, name: str | None = None) -> Task[Any]: ...
    @abstractmethod
    def _cancel_all(self, tasks: list[Task[Any]], reason: str) -> None: ...

    def spawn(
        self,
        f: Callable[..., Runnable[T]] | Runnable[T],
        /,
        *args: Any,
        name: str | None = None,
        daemon: bool = False,
        parent: Task[Any] | None = None,
        context: Context | None = None,
    ) -> Task[T]:
        """Start a task; see `corolib.spawn`."""
        self._check_thread()
        return self.start(f, args, name, daemon, parent, context)

    @property
    def tasks(self) -> list[Task[Any]]:
        """All tasks that are not done, oldest first."""
        return list(self._tasks.values())

    def interrupt(self, task: Task[Any], scope: Scope, reason: object = None) -> None:
        """Ask `task` to leave `scope`; if that is the task itself, its children as well."""
        self._check_thread()
        if self.asleep:  # called by a signal handler: it must also end the wait
            self._inbox.put(self._interrupts.request, (task, scope, reason))
        else:
            self._interrupts.request(task, scope, reason)

    def room(self, kind: Callable[[Services], R]) -> R:
        """Return what a module keeps for the length of the run, made by `kind(scheduler)`.

        When the run ends, its `end()` is called.
        """
        room = self._rooms.get(kind)
        if room is None:
            services: Any = self  # the Scheduler, which is all of it
            room = self._rooms.setdefault(kind, kind(services))  # a thread may have been faster
        return room  # type: ignore[no-any-return]

    def _end_rooms(self) -> None:
        """End what modules keep, last come, first ended; each is still found while it ends."""
        while self._rooms and not self._forked:
            kind, room = next(reversed(self._rooms.items()))
            try:
                self.call(room.end, ())
            finally:
                del self._rooms[kind]

    def call_at(self, deadline: float, f: Callable[[Any], object], arg: Any) -> list[Any]:
        """Have `f(arg)` called when `deadline` has come; return the call, for `cancel_call`."""
        return self.timers.set(deadline, lambda arg: self.call(f, (arg,)), arg)

    def cancel_call(self, call: list[Any]) -> None:
        """Take back a call that `call_at` returned; one that was made stays so."""
        self.timers.cancel(call)

    def call_soon_threadsafe(self, f: Callable[..., object], /, *args: Any) -> None:
        """Have `f(*args)` called in the next turn; from any thread or signal handler.

        Raises:
            RunFinished: the run has ended.
        """
        self._inbox.put(f, args)

    def check_open(self) -> None:
        """Raise RunFinished if the run has ended."""
        if self._inbox.closed:
            raise RunFinished(FINISHED)

    def at_once(self) -> bool:
        """Return whether a wake may act now: in our own thread, and not out of a signal handler
        that came while the loop decides whether to wait.
        """
        self.check_open()
        return not self.asleep and get_ident() == self.thread

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Say that a wake will come from where the library cannot see: meanwhile no `Deadlock`.

        `with current_scheduler().hold(): yield Suspend(...)`
        """
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    def close_file(self, file: HasFileno | int) -> None:
        """Close a file and wake who waits for it; see `corolib.close`."""
        self._check_thread()
        self._poller.close_file(file)

    def wake_reader(self, trap: Trap) -> None:
        """Have the task that waits with this `ReadWait`, if there is one, look again."""
        self._poller.wake_reader(trap)

    def report(self) -> str:
        """Return all tasks as text: what each does, where it stands, where it was spawned."""
        return dump(self._tasks.values(), repr(self))

    def stats(self) -> dict[str, float]:
        """Return counts: turns, steps, spawned, tasks, ready, timers, files; and `longest_step`
        in seconds, which is measured in debug mode only.
        """
        return {
            "turns": self._turns,
            "steps": self._steps,
            "spawned": self._spawned,
            "tasks": len(self._tasks),
            "ready": len(self._ready),
            "timers": len(self.timers),
            "files": len(self._poller.entries),
            "longest_step": self._longest_step,
        }

    def __repr__(self) -> str:
        return (
            f"<Scheduler {len(self._tasks)} tasks, {len(self._ready)} ready, "
            f"{len(self.timers)} timers, {len(self._poller.entries)} files>"
        )

    def wakeup_fd(self) -> int:
        return self._inbox.wakeup_fd()

    def on_ctrl_c(self) -> None:
        self._ctrl_c.strike()
        if not self._inbox.closed:
            self._inbox.put(lambda: self._force_main(self._ctrl_c.take()), ())

    def on_dump(self) -> None:
        print(self.report(), file=sys.stderr, flush=True)

    def on_dropped_asyncgen(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Close an async generator that was dropped half-way; called by the garbage collector."""
        try:
            self._inbox.put(lambda: self._new_task(aclose(agen), True, "aclose"), ())
        except RunFinished:
            pass

    def _sweep_later(self, last: float) -> None:
        """Plan a sweep, for some time after `last`, the beginning of the last one or now. None is
        planned while nothing runs here: then hardly a file is closed.
        """
        self._sweeping = True
        self.timers.set(last + SWEEP_EVERY, self._sweep, None)

    def _sweep(self, began: float | None) -> None:
        """Look through some files for closed ones, and go on in the next turn if there are more."""
        if began is None:
            began = self.clock()
            self._stepped = False
        if self._poller.sweep(SWEEP_SLICE):
            self.timers.set(self.clock(), self._sweep, began)
        elif self._stepped:  # what was seen first may have been closed since
            self._sweep_later(began)
        else:
            self._sweeping = False

    def call(
        self, f: Callable[..., object], args: tuple[Any, ...], task: Task[Any] | None = None
    ) -> None:
        """Make a call outside of any step. A failure is reported, as of `task` or of main.

        But not that of a call which was left for a run that has ended meanwhile: it is too late.
        """
        try:
            f(*args)
        except (SystemExit, KeyboardInterrupt) as exc:
            if self._ctrl_c.second:
                raise
            self._end(exc)
        except BaseException as exc:
            if self._inbox.closed and isinstance(exc, RunFinished):
                return
            if task is None:
                exc.add_note("(raised in a callback of the scheduler's, not in a task)")
            self.report_failure(task or self.main, exc)

    def _make_calls(self) -> None:
        """Make the calls that came from other threads, in order; not those that come meanwhile."""
        calls = self._inbox.calls
        for _ in range(len(calls)):
            f, args = calls.popleft()
            self.call(f, args)

    def _timed(self, resume: Callable[..., Any]) -> Callable[..., Any]:
        """Return `resume` with a look at the clock before and after: debug mode."""

        def timed(f: Callable[..., Any], value: Any) -> Any:
            began = self.clock()
            try:
                return resume(f, value)
            finally:
                del f, value  # see `_step`
                if self.current is not None and self.current.innermost is not None:
                    self._interrupts.check(self.current)
                took = self.clock() - began
                self._longest_step = max(self._longest_step, took)
                if took > SLOW_STEP and self.current is not None:
                    _log().warning(slow_step(self.current, took))

        return timed

    def _check_thread(self) -> None:
        if self._forked:
            raise RuntimeError(FORKED)
        if get_ident() != self.thread:
            raise RuntimeError(
                "this scheduler runs in another thread: use from_thread(scheduler, f, *args) "
                "or scheduler.call_soon_threadsafe(f, *args)"
            )
        if self._inbox.closed:
            raise RunFinished(FINISHED)

    def _refuse_reentry(self) -> None:
        if register.scheduler is not None:
            raise RuntimeError("a scheduler already runs in this thread: use spawn(f, *args)")
        self._check_thread()

    def report_failure(self, task: Task[Any] | None, error: BaseException) -> None:
        """Hand a failure that nobody takes to the hook; if that fails, both go to stderr.

        What leaves `run()` is seen there.
        """
        if error is self._fatal:
            return
        current, self.current = self.current, None  # what the hook spawns is main's
        try:
            self._hook(task, error)
        except (SystemExit, KeyboardInterrupt) as exc:
            if self._ctrl_c.second:
                raise
            self._end(exc)
        except BaseException as exc:
            for each in (error, exc):  # this needs no import, which may be what has failed
                sys.__excepthook__(type(each), each, each.__traceback__)
        finally:
            self.current = current

    # The end of the run -----------------------------------------------------------------------

    def _end(self, error: BaseException) -> None:
        """Cancel all tasks; when they are done, `error` leaves `run()`."""
        if self._fatal is None or isinstance(self._fatal, Deadlock):
            self._fatal = error
        self._cancel_all([t for t in self._tasks.values() if not t.parent], "the run ends")

    def _force_main(self, error: BaseException) -> None:
        """Throw `error` into main, at its wait; if its body is over, end the run with it."""
        if self.main is None or self.main.body_over:
            self._end(error)
        else:
            self._interrupts.force(self.main, error)

    def _is_deadlock(self) -> bool:
        """Return whether nothing at all can make a task ready. (The sweep's timer cannot.)"""
        return not (
            self._ready or self._inbox.calls or self._holds or len(self.timers) > self._sweeping
        )

    def _break_deadlock(self) -> None:
        if self._fatal is None:
            self._end(Deadlock(deadlock(self._tasks.values())))
        else:  # even their clean-up waits for ever
            for task in [t for t in self._tasks.values() if not t.body_over]:
                self._interrupts.cut_short(task)

    def _finish(self) -> None:
        """Close what the run has left open, and report how main failed if that leaves by no way."""
        self._abandon()
        failure = None if self.main is None or self._forked else self.main.failure
        if failure is not None and self._fatal is not None:
            self.report_failure(self.main, failure)

    def _abandon(self) -> None:
        """End the rooms; close the bodies that did not end by themselves, and name them."""
        if self._forked:
            return
        self._end_rooms()
        left = [task for task in reversed(self.tasks) if task.body]
        bodies = self._given_up + [(f"{task!r} was abandoned", task.body) for task in left]
        self._given_up = []
        for task in left:
            task.end_body(None, None)  # from here on no interrupt looks at it
        for what, body in bodies:
            print(f"corolib: {what}; it is closed now", file=sys.stderr)
            self.call(close_for_good, (body,))

    def _close_asyncgens(self) -> bool:
        """Start tasks for the async generators that were left half-way; return if there are any."""
        assert self._around is not None
        self._make_calls()  # some were dropped by the last tasks
        left = list(self._around.asyncgens)
        self._around.asyncgens.clear()
        for agen in left:
            self._new_task(aclose(agen), True, "aclose")
        for task in self._tasks.values():
            self.timers.set(self.clock() + self.grace, lambda task: task.cancel(), task)
        return bool(self._tasks)

    def open(self) -> None:
        """Make the selector and the wake-up pipe, if they are not made.

        `run()` and `turn()` do that, not the constructor, and `run()` when it handles Ctrl-C: one
        that came in between would leave them to the garbage collector, where the finalizer of a
        socket swallows the next.
        """
        self._inbox.open()
        self._poller.open(self._inbox.fileno(), self._inbox.drain)

    def close(self) -> None:
        """Give back the selector and the wake-up pipe; for schedulers used by `turn()`.

        The bodies of tasks that are not done are closed, and named on stderr, as after a `run()`.
        """
        services: Any = self  # see `room`
        outer, register.scheduler = register.scheduler, services
        try:
            self._abandon()
        finally:
            register.scheduler = outer
        self._inbox.close()
        self.asleep = True
        while self._inbox.calls:  # left before: they learn from `RunFinished` that they are late
            self._make_calls()
        self._poller.close()

    def on_fork(self) -> None:
        """This is a child process: the tasks are the parent's, so do nothing for them here."""
        self._forked = True
        self._parks.clear()  # which is enough for all waits that are made by a call
        for task in self._tasks.values():
            task.debts = [task]  # is never paid: so whatever it yields is looked at, in any scope
            task.pending = True
        self._inbox.calls.clear()
        if self._around is not None:
            self._around.__exit__()
        register.scheduler = None


def _log_task_error(task: Task[Any] | None, error: BaseException) -> None:
    """Log a failure that nobody takes: the default of `on_task_error=`."""
    who = "a callback" if task is None else f"task {task.label}, spawned at {task.spawned_at},"
    _log().error("%s failed", who, exc_info=error)


def _log() -> Any:
    import logging

    return logging.getLogger("corolib.task")


async def aclose(agen: AsyncGenerator[Any, Any]) -> None:
    """Run the `finally` blocks of an async generator."""
    await agen.aclose()
