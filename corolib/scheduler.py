"""The kernel: the loop that runs tasks, and the meaning of every trap.

A task is a generator. The scheduler resumes it, it runs to its next `yield`, and what it yields
there, a trap, says when it wants to be resumed again. One resume is a *step*; one round of the
scheduler is a *turn*, in three acts:

    wait     for files, at most until the next timer; not at all while a task is ready
    expire   the timers whose time has come
    step     every task that was ready when the act began, first come, first served

So a task made ready during a turn runs in the next one, and files and timers are looked at in
every turn, however busy the tasks are. Whatever happens, happens to one task: an exception raised
on its behalf, a bad trap or a file that cannot be watched, is thrown into it at its `yield`.

A task is in one of five states. *Ready*: in the queue, with the value or the error that its next
step resumes it with. *Running*. *Waiting*: `task.wait` is its trap, and every trap has an undo
that takes the wait back. *Completing*: its body is over, its children are not. *Done*.

Where the rest is: tasks in `task.py`, what may interrupt them in `scopes.py`, files in
`poller.py`, their urgent data in `urgent.py`, times in `timers.py`, what `Suspend` and a join mean
in `wakes.py`, calls from other threads in `inbox.py`, the plain calls and the end of a run in
`hosting.py`, the base class of the scheduler, what a run changes around it in `surroundings.py`,
and the wording of complaints in `reports.py`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from math import inf

from corolib.hosting import FORKED, ErrorHook, Host, ReadyQueue
from corolib.kinds import Any, TypeVar
from corolib.poller import Selector, default_selector
from corolib.reports import wrong_yield
from corolib.running import Runnable, register, unknown_keyword
from corolib.sockets import NETWORK, Network
from corolib.surroundings import Surroundings
from corolib.task import GIVE_WAY, LIBRARY, Join, Task, body_of, call_site, is_maker, users_part
from corolib.traps import (
    DEBUG,
    ReadWait,
    Sleep,
    Suspend,
    Trap,
    UrgentWait,
    Wake,
    WriteWait,
    check_number,
)
from corolib.urgent import Urgent
from corolib.wakes import StandIn, Suspensions

T = TypeVar("T")

LONGEST_WAIT = 2e6  # seconds, 23 days; selectors refuse more than 24.8


class Scheduler(Host):
    """Runs tasks in the thread that made it: one `run()`, or any number of `turn()`s.

    Args:
        clock: returns the time in seconds and never goes backwards.
        selector: makes a `selectors.BaseSelector`, which the scheduler remakes and closes.
        ready: makes the queue of ready tasks.
        grace: seconds that clean-up may wait after an interrupt; `math.inf`: any time.
        on_task_error: called as `f(task, exc)` with a failure that nobody takes; by default it
            is logged as an error of the logger "corolib.task".
        dump_signal: a signal that prints `report()` on stderr, also while the program waits.
        network: opens sockets and looks names up: a `corolib.sockets.Network`.
    """

    __slots__ = ("_dump_signal", "_suspensions", "_undos", "_urgent")

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        selector: Selector = default_selector,
        ready: Callable[[], ReadyQueue] = deque,
        grace: float = 1.0,
        on_task_error: ErrorHook | None = None,
        dump_signal: int | None = None,
        network: Network = NETWORK,
    ) -> None:
        for name, make in (("selector", selector), ("ready", ready)):
            if not callable(make):
                raise TypeError(f"{name}={make!r}: give a class or a function that makes one")
        super().__init__(clock, grace, selector, ready(), on_task_error, network)
        self._dump_signal = dump_signal
        self._suspensions = Suspensions(self, self._stuck)
        self._urgent = Urgent(self, self._poller.bells)
        # The meaning of each trap: how a task is parked in it, and how that is taken back.
        self._parks.update(
            {
                ReadWait: self._poller.wait_read,
                WriteWait: self._poller.wait_write,
                UrgentWait: self._urgent.wait,
                Sleep: self._sleep,
                Suspend: self._suspensions.wait,
                Join: self._suspensions.join,
                StandIn: lambda stand_in, _: None,
            }
        )
        self._undos: dict[type, Callable[[Task[Any]], object]] = {
            ReadWait: self._poller.undo_read,
            WriteWait: self._poller.undo_write,
            UrgentWait: self._urgent.undo,
            type(GIVE_WAY): lambda task: True,
            type(None): lambda task: False,  # a signal handler woke it at this very moment
            Sleep: self._undo_sleep,
            Suspend: self._suspensions.undo,
            Join: self._suspensions.undo_join,
        }

    # The loop ---------------------------------------------------------------------------------

    def run(self, f: Callable[..., Runnable[T]] | Runnable[T], /, *args: Any) -> T:
        """Run `f(*args)` as the main task until all tasks are done; see `corolib.run`."""
        self._refuse_reentry()
        with Surroundings(self, self._dump_signal) as self._around:
            register.scheduler = self
            try:
                main = self.main = self._new_task(body_of("run", f, args), False)
                main.taken = True
                for task in [t for t in self._tasks.values() if t is not main and not t.parent]:
                    main.adopt(task)  # spawned before the run
                self._loop()
                while self._close_asyncgens():
                    self._loop()
            finally:
                self._finish()
                register.scheduler = self.current = None
        if self._ctrl_c.pending and self._fatal is None:  # in the last moment
            self._fatal = KeyboardInterrupt()
        try:
            if self._fatal is not None:
                raise self._fatal
            return main.result  # type: ignore[no-any-return]
        finally:
            del self, main  # the traceback holds this frame: that would be a cycle

    def turn(self, timeout: float = inf) -> None:
        """Do one turn, waiting for files at most `timeout` seconds; for embedding and tests.

        Never raises `Deadlock`; but SystemExit and KeyboardInterrupt that leave a task.
        """
        self._refuse_reentry()
        self.open()
        register.scheduler = self
        try:
            deadline = self.clock() + check_number(timeout, "turn()", "a duration")
            self._loop(deadline, once=True)
        finally:
            register.scheduler = self.current = None
        fatal, self._fatal = self._fatal, None
        if fatal is not None:
            raise fatal

    def _loop(self, until: float = inf, *, once: bool = False) -> None:
        """Do turns until every task is done; or one, that does not wait beyond the time `until`."""
        tasks, ready, stuck, timers = self._tasks, self._ready, self._stuck, self.timers
        calls, poller, ctrl_c = self._inbox.calls, self._poller, self._ctrl_c
        while True:  # CPython 3.11 makes a loop fast that ends in a jump, not in a test
            if not (ready or once) and len(stuck) == len(tasks) and self._is_deadlock():
                self._break_deadlock()
            # Act 1: wait.
            if ctrl_c.second:  # and a task has swallowed it
                raise KeyboardInterrupt
            self._turns += 1
            self.asleep = True  # from here on a wake must also end the wait
            if not (ready or calls):
                deadline = min(until, timers.next())
                if deadline == inf:
                    self._poll(None, deadline)
                else:
                    self._poll(min(max(deadline - self.clock(), 0), LONGEST_WAIT), deadline)
            elif poller.entries:
                self._poll(0, until)
            self.asleep = False
            called = len(calls)
            if called:
                self._make_calls()
            # Act 2: expire.
            if timers.soonest != inf and timers.soonest <= (now := self.clock()):
                timers.expire(now)
            # Act 3: step.
            count = len(ready)
            self._steps += count
            self._step(count)
            if poller.entries and (count or called):
                self._stepped = True
                if not self._sweeping:
                    self._sweep_later(self.clock())
            if once or not tasks:
                return

    def _poll(self, timeout: float | None, deadline: float) -> None:
        """Wait for files. What a signal handler of the program's raises meanwhile is main's."""
        try:
            self._poller.poll(timeout, deadline)
        except BaseException as exc:
            if self._ctrl_c.second or self.main is None:
                raise
            self._force_main(exc)

    def _step(self, count: int) -> None:
        """Step the `count` tasks that have been in the queue longest, and park each."""
        ready, parks, poller = self._ready, self._parks, self._poller
        for _ in (None,) * count:  # at half the price of counting, for 8 bytes each
            task = self.current = ready.popleft()
            task.wait = None
            try:
                if task.outcome is None:
                    resume = task.resume  # as a method, a slot is looked up the slow way
                    trap = resume(task.send, None)
                else:
                    trap = self._step_with(task)
            except StopIteration as stop:
                self._body_over(task, stop.value, None)
                continue
            except BaseException as exc:
                self._body_over(task, None, exc)
                continue
            if task.pending and self._hold_up(task, trap):
                continue  # the wait is not made at all, or later
            if trap is None:  # give way, without a call
                task.wait = GIVE_WAY
                ready.append(task)
                continue
            kind = type(trap)
            try:
                if kind is ReadWait:  # most waits of all, and a call is a twentieth of an echo
                    entry = trap.entry
                    if entry is None:  # a new trap, perhaps for a file that is known
                        try:
                            entry = poller.entries[trap.file.fileno()]
                            ref = entry.ref  # as a method, a slot is looked up the slow way
                            if ref() is not trap.file:
                                entry = None
                        except (AttributeError, KeyError, TypeError):
                            pass  # a new file, or none at all: the poller finds out
                    if (
                        entry is not None
                        and entry.reader is None
                        and entry.hears
                        and entry.poller is poller
                    ):
                        entry.reader = task
                        task.wait = trap
                        task.armed = entry
                        continue
                try:
                    park = parks[kind]
                except Exception:
                    park = self._wrong_yield
                park(task, trap)
            except BaseException as exc:
                if self._ctrl_c.second or self._forked:
                    raise
                self.resume(task, None, users_part(exc, LIBRARY))
        # From Python 3.12 on, the frame of a body that failed keeps this frame: let go of the task.
        task = trap = park = entry = ref = resume = self.current = None  # type: ignore[assignment]

    def _step_with(self, task: Task[Any]) -> Any:
        """Step a task with the outcome of its wait: a value, or an error."""
        (value, error), task.outcome = task.outcome, None  # type: ignore[misc]
        try:
            if error is None:
                return task.resume(task.send, value)
            return task.resume(task.body.throw, error)
        finally:
            del value, error, task  # its traceback holds this frame: that would be a cycle

    def _hold_up(self, task: Task[Any], trap: Any) -> bool:
        """Look closer at a wait before it is made; return whether something else came first."""
        if self._forked:
            self._wrong_yield(task, trap)  # which stops it
        return self._interrupts.deliver(task) or self._suspensions.put_off(task, trap)

    # What the traps mean ----------------------------------------------------------------------
    # Those for files are the poller's, but for the one in `_step` that is made most: a `ReadWait`
    # for a file that is known. That of `UrgentWait` is in urgent.py, those of `Suspend` and `Join`
    # in wakes.py.

    def _sleep(self, task: Task[Any], trap: Sleep) -> None:
        now = self.clock()
        deadline: Any = trap.at if trap.seconds is None else now + trap.seconds
        if deadline <= now:
            task.wait = GIVE_WAY
            self._ready.append(task)
            return
        task.wait = trap
        task.armed = None if deadline == inf else self.timers.set(deadline, self._slept, task)

    def _slept(self, task: Task[Any]) -> None:
        self.resume(task, None, None)

    def _undo_sleep(self, task: Task[Any]) -> None:
        if task.armed is not None:
            self.timers.cancel(task.armed)

    def arm(self, trap: Trap, wake: Wake) -> Callable[[], object]:
        """Make the wait `trap` in the place of another one: `wake` ends it. Returns the undo."""
        if type(trap) is Suspend:
            undo = trap.arm(wake)
            return partial(self.call, undo, ()) if callable(undo) else undo
        assert self.current is not None
        stand_in: Any = StandIn(self.current, wake)
        park = self._parks.get(type(trap)) or self._wrong_yield
        park(stand_in, trap)

        def take_back() -> None:
            stand_in.wake = None
            if stand_in.wait is not None:
                self.take_back(stand_in)

        return take_back

    def _wrong_yield(self, task: Task[Any], thing: object) -> None:
        if self._forked:
            with suppress(StopIteration):  # its clean-up runs; and what leaves it, leaves `run()`
                task.resume(task.body.throw, RuntimeError(FORKED))
            raise RuntimeError(FORKED)
        raise TypeError(wrong_yield(task, thing))

    def resume(self, task: Task[Any], value: Any, error: BaseException | None) -> None:
        """Make `task` ready: its next step gets `value`, or `error` if there is one."""
        queued = task.wait is GIVE_WAY
        task.wait = task.armed = None
        task.outcome = None if error is None and value is None else (value, error)
        if not queued:
            self._ready.append(task)

    def take_back(self, task: Task[Any]) -> bool:
        """Undo the wait of `task` as if it had never been made; False if a result came first."""
        return self._undos[type(task.wait)](task) is not False

    # Families and outcomes --------------------------------------------------------------------

    def start(
        self,
        f: Callable[..., Runnable[T]] | Runnable[T],
        args: tuple[Any, ...],
        name: str | None,
        daemon: bool,
        parent: Task[Any] | None,
        context: Context | None,
    ) -> Task[T]:
        """Start a task; see `corolib.spawn`. Between two steps its parent is the main task."""
        given = parent is not None or context is not None
        if given and not (isinstance(parent, Task | None) and isinstance(context, Context | None)):
            raise TypeError(f"spawn() got parent={parent!r}, context={context!r}: not of that kind")
        parent = parent or self.current or self.main
        if parent is not None and (parent.done or parent.scheduler is not self):
            raise RuntimeError(f"task {parent.label} is done, or of another run: no parent for it")
        new = is_maker(f)
        body: Any = f(*args) if new else body_of("spawn", f, args)  # type: ignore[operator]
        task: Task[T] = self._new_task(body, new, name, daemon, context, 4)
        if parent is not None:
            parent.adopt(task)
            if parent.body_over and (
                parent.requested or parent.failure is not None or not parent.attached
            ):
                self._interrupts.request(task, task, f"{parent.label}, its parent, ended")
        return task

    def _new_task(
        self,
        body: Any,
        new: bool,
        name: str | None = None,
        daemon: bool = False,
        context: Context | None = None,
        depth: int = 2,
    ) -> Task[Any]:
        """Make a task of `body`; `new` says that nobody else has it. For `depth` see `call_site`:
        somebody calls the library, which calls `start()`.
        """
        self._spawned += 1
        if not name:
            name = body.__name__ if new else str(getattr(body, "__name__", type(body).__name__))
        run = (copy_context() if context is None else context).run
        if DEBUG:
            run = self._timed(run)
        task: Task[Any] = Task(self, body, new, name, self._spawned, daemon, run, call_site(depth))
        self._tasks[task.id] = task
        self._ready.append(task)
        if self.asleep:  # called by a signal handler: it must also end the wait
            self._inbox.put(int, ())
        return task

    def _body_over(self, task: Task[Any], value: Any, error: BaseException | None) -> None:
        """The body returned `value` or raised `error`; the task is done when its children are."""
        if self._forked:
            raise error or RuntimeError(FORKED)
        if task.body_over:
            return  # it was given up while it was in the queue
        if task.pending or task.innermost is not None or task.timer is not None:
            self._interrupts.leave_all(task)
        if task.holds:
            for thing in list(task.holds):
                thing.orphaned(task)
        task.end_body(value, error and users_part(error))
        if self._ctrl_c.second:
            raise KeyboardInterrupt
        if error is not None:
            if isinstance(error, SystemExit | KeyboardInterrupt):
                self._end(error)
            self._cancel_all(task.children, f"{task.label}, its parent, ended")
        if not task.family:
            self._done(task)
            return
        self._stuck.add(task)
        if not task.attached:
            self._cancel_all(task.children, f"daemon of {task.label}, which ended")

    def _done(self, task: Task[Any]) -> None:
        """Publish the outcome of `task`; its parent may be done by that, and so on upwards."""
        while True:
            del self._tasks[task.id]
            task.done = True
            joiners = task.joiners
            if joiners is not None:
                task.joiners = None  # being told, none of them is taken out any more
                for joiner in joiners:
                    self._suspensions.tell(joiner, task)
            if task.failure is not None and not (joiners or task.taken):
                self.report_failure(task, task.failure)
            parent = task.parent
            if parent is None:
                return
            parent.part(task)
            if not parent.body_over:
                return
            if parent.family:
                if not parent.attached and not task.daemon:
                    self._cancel_all(parent.children, f"daemon of {parent.label}, which ended")
                return
            self._stuck.discard(parent)
            task = parent

    def give_up(self, task: Task[Any]) -> None:
        """Step `task` no more: it swallows every interrupt. It is closed when the run ends."""
        self._given_up.append((f"{task!r} swallowed every interrupt", task.body))
        text = f"task {task.label} swallowed every interrupt and was given up; let Cancelled pass"
        self._body_over(task, None, RuntimeError(text))

    def _cancel_all(self, tasks: list[Task[Any]], reason: str) -> None:
        for task in tasks:
            self._interrupts.request(task, task, reason)


def run(
    f: Callable[..., Runnable[T]] | Runnable[T],
    /,
    *args: Any,
    clock: Callable[[], float] = time.monotonic,
    selector: Selector = default_selector,
    ready: Callable[[], ReadyQueue] = deque,
    grace: float = 1.0,
    on_task_error: ErrorHook | None = None,
    dump_signal: int | None = None,
    network: Network = NETWORK,
    **unknown: Any,
) -> T:
    """Run `f(*args)` as the main task of a new scheduler; returns when all tasks are done.

    Args:
        f: a generator function or an `async def`; or what a call of one returned.
        clock, selector, ready, grace, on_task_error, dump_signal, network: see `Scheduler`.

    Returns:
        What the body of the main task returned.

    Raises:
        What left the main task, when its children were cancelled and are done too.
        SystemExit, KeyboardInterrupt: left any task; or Ctrl-C. The first Ctrl-C is raised in
            the main task at its wait; a second one during the clean-up ends the run on the spot.
        Deadlock: no task can ever run again.
        TaskCancelled: the main task was cancelled.
        RuntimeError: a scheduler already runs in this thread.
        TypeError: `f` gives no generator or coroutine, or a keyword is none of the scheduler's.

    Example:
        >>> import corolib
        >>> def add(a, b):
        ...     yield corolib.Sleep(0.001)
        ...     return a + b
        >>> corolib.run(add, 2, 3)
        5
    """
    if unknown:
        raise TypeError(unknown_keyword("run", f, unknown))
    scheduler = Scheduler(
        clock=clock,
        selector=selector,
        ready=ready,
        grace=grace,
        on_task_error=on_task_error,
        dump_signal=dump_signal,
        network=network,
    )
    try:
        return scheduler.run(f, *args)
    finally:
        scheduler.close()  # the run does that, if it begins
        del scheduler
