"""The scheduler: the loop that runs tasks, what every trap means, how tasks begin and end.

A task is a generator. It runs to its next `yield`, and what it yields there, a trap, says when it
wants to be resumed. One resume is a *step*; one round of the loop is a *turn*, in three acts:

    wait     for files, at most until the next timer; not at all while a task is ready
    expire   the timers whose time has come
    step     every task that was ready when the act began, first come, first served

So what a step makes ready runs in the next turn, and files and timers are looked at in every turn,
however busy the tasks are. What goes wrong for one task, a bad trap or a file that cannot be
watched, is thrown into that task at its `yield`.

A task is *ready*; *running*; *waiting*: `task.wait` is its trap, and every wait can be taken back;
*completing*: its body is over, its children are not; or *done*.

The loop, the traps and the tasks are read from top to bottom. The plain calls that follow stand
each by itself, with `run()` at the foot. How a part of the scheduler works is said in its own file.
"""

from __future__ import annotations

import time
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from math import inf
from typing import Any, Never, Protocol, TypeVar, TypeVarTuple

from corolib.kernel.bodies import body_of, is_maker
from corolib.kernel.callqueue import CallQueue
from corolib.kernel.cancellation import Cancellation, Scope
from corolib.kernel.checks import check_callable, check_clock, check_number
from corolib.kernel.context import LOOK, Pace, Runnable, no_parent, unknown_keyword
from corolib.kernel.diagnostics import Diagnostics, ErrorHook, deadlock, dump, wrong_yield
from corolib.kernel.errors import Deadlock, RunFinished, ScopeError
from corolib.kernel.frames import LIBRARY, Site, call_site, users_part
from corolib.kernel.lifecycle import FORKED, L, Lifecycle
from corolib.kernel.observing import DEFAULT_TRACE, observed
from corolib.kernel.poller import UNKNOWN, Poller, Selector, default_selector
from corolib.kernel.safely import Block, brief, is_a, kind_of, name_of
from corolib.kernel.suspend import Enqueue, ProxyWaiter, Suspensions, serve
from corolib.kernel.task import GIVE_WAY, Join, Task
from corolib.kernel.timers import Timers
from corolib.kernel.traps import (
    HasFileno,
    ReadWait,
    Sleep,
    Suspend,
    Trap,
    UrgentWait,
    Wake,
    WriteWait,
)
from corolib.kernel.urgent import Urgent
from corolib.kernel.waits import DEBUG, Documented, public

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ReadyQueue(Protocol):
    """What `ready=` makes: a scheduling policy. A `deque` is first come, first served."""

    def append(self, task: Task[Any], /) -> None: ...
    def popleft(self) -> Task[Any]: ...
    def __len__(self) -> int: ...


@public
class Scheduler(metaclass=Documented):
    """Runs tasks in the thread that made it: one `run()`, or any number of `turn()`s.

    Args:
        clock: returns the time in seconds and never goes backwards. One that may jump forwards is
            looked at once a second; or, if it has an attribute `longest_wait`, after those seconds.
        selector: makes a `selectors.BaseSelector`, which the scheduler remakes and closes.
        ready: makes the queue of ready tasks.
        grace: seconds that clean-up may wait after a cancel; `math.inf`: any time.
        on_task_error: called as `f(task, exc)` with a failure that nobody takes; by default it
            is logged as an error of the logger "corolib.task".
        dump_signal: a signal that prints `report()` on stderr, also while the program waits.
        network: opens sockets and looks names up: a `corolib.Network`.

    Attributes:
        main: the task that `run()` made.
        current: the task that is running, None between two steps.
    """

    __slots__ = (
        "__weakref__",
        *("budget", "clock", "current", "grace", "main", "network", "pace", "thread"),  # for all
        *("_ready", "_spawned", "_suspended", "_tasks"),  # the tasks
        *("_callqueue", "_diagnostics", "_lifecycle", "_poller", "_suspensions", "_urgent"),
        *("cancellation", "timers"),  # the parts, with those above
        *("_handlers", "_awaken", "_undos"),  # the meaning of the traps
        *("_steps", "_turns", "_longest_wait", "polling"),  # the loop
        "embedded",  # another loop around it
    )
    __documented__ = (
        "call_soon_threadsafe clock close current deadlock embed fileno grace has_work hold main "
        "network next_deadline open report run spawn stats tasks turn"
    )

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        selector: Selector = default_selector,
        ready: Callable[[], ReadyQueue] = deque,
        grace: float = 1.0,
        on_task_error: ErrorHook | None = None,
        dump_signal: int | None = None,
        network: object = None,
    ) -> None:
        check_callable(selector, "selector", "a class or a function that makes one")
        check_callable(ready, "ready", "a class or a function that makes one")
        self._longest_wait = check_clock(clock)
        if isinstance(network, type) or not (network is None or hasattr(network, "getaddrinfo")):
            raise TypeError(f"network={brief(network)}: give a Network, or what is derived from it")
        self.clock = clock
        self.network = network
        self.grace = check_number(grace, "grace=", "a duration")
        if self.grace < 0:
            raise ValueError(f"grace={brief(grace)}: clean-up cannot be given less than no time")
        self.thread = get_ident()
        self.main: Task[Any] | None = None
        self.current: Task[Any] | None = None
        self.budget = LOOK  # operations that need not wait, until one has to ask: `must_yield()`
        self.pace = Pace()
        # True while the loop may be in the selector: what a signal handler asks must also end that
        # wait. And for ever after the end: no wake can act then.
        self.polling = False
        self.embedded = False  # another loop makes the turns: see `embed`
        self._ready = self.make_ready_queue(ready)
        self._tasks: dict[int, Task[Any]] = {}  # all that are not done, by id
        self._suspended: set[Task[Any]] = set()  # those that only another task can set going
        self._spawned = self._turns = self._steps = 0
        self.timers = Timers()
        self.cancellation = Cancellation(self)
        self._callqueue = CallQueue()
        self._poller = Poller(selector, self._ready, clock, self.timers)
        self._urgent = Urgent(self, self._poller.watches)
        self._suspensions = Suspensions(self, self._suspended)
        self._diagnostics = Diagnostics(self, on_task_error)
        self._lifecycle = Lifecycle(self, dump_signal)
        # The meaning of each trap: how a task begins to wait for it, and how that is taken back.
        self._handlers: dict[type, Callable[[Any, Any], object]] = {
            ReadWait: self._poller.wait_read,
            WriteWait: self._poller.wait_write,
            UrgentWait: self._urgent.wait,
            Sleep: self._sleep,
            Suspend: self._suspensions.wait,
            Enqueue: self._suspensions.enqueue,
            Join: self._join,
            ProxyWaiter: lambda proxy, _: None,
        }
        self._awaken = self.make_ready  # bound once, and not for each sleep
        self._undos: dict[type, Callable[[Task[Any]], object]] = {
            ReadWait: self._poller.undo_read,
            WriteWait: self._poller.undo_write,
            UrgentWait: self._urgent.undo,
            Sleep: self._undo_sleep,
            Suspend: self._suspensions.undo,
            Enqueue: self._suspensions.undo_enqueue,
            Join: self._undo_join,
            type(GIVE_WAY): lambda task: True,
            type(None): lambda task: False,  # a signal handler woke it at this very moment
        }

    # The loop ---------------------------------------------------------------------------------

    def run(self, f: Callable[[*Ts], Runnable[T]] | Runnable[T], /, *args: *Ts) -> T:
        """Run `f(*args)` as the main task until all tasks are done; see `corolib.run`."""
        self._lifecycle.refuse_reentry()
        with self._lifecycle:
            main = self.main = self.make_task(body_of("run", f, args), False, call_site(1))
            main.taken = True
            # What was spawned before the run becomes main's.
            for task in [t for t in self._tasks.values() if t is not main and not t.parent]:
                main.adopt(task)
            self._loop()
            while self._lifecycle.close_asyncgens():
                self._loop()
        try:
            self._lifecycle.raise_fatal()
            return main.result  # type: ignore[no-any-return]
        finally:
            # What is raised has a traceback, which holds this frame.
            del self, main

    def turn(self, timeout: float = inf) -> None:
        """Do one turn, waiting for files at most `timeout` seconds; for embedding and tests.

        Never raises `Deadlock`; but SystemExit and KeyboardInterrupt that leave a task.
        """
        self._lifecycle.refuse_reentry()
        timeout = check_number(timeout, "turn()", "a duration")
        with Block(self._lifecycle.begin_turn, self._lifecycle.end_turn):
            if self.embedded:  # a turn that does not poll would leave it announced
                self._callqueue.drain_if_announced()
            self._loop(self.clock() + timeout, once=True)
        self._lifecycle.raise_fatal()

    def _loop(self, until: float = inf, *, once: bool = False) -> None:
        """Do turns until every task is done; or one, that does not wait beyond the time `until`."""
        tasks, ready, suspended, timers = self._tasks, self._ready, self._suspended, self.timers
        calls, poller, ctrl_c = self._callqueue.calls, self._poller, self._lifecycle.ctrl_c
        # CPython 3.11 makes a loop fast that ends in a jump, and not one that ends in a test.
        while True:
            if not (ready or once) and len(suspended) == len(tasks) and self._is_deadlock():
                self._lifecycle.break_deadlock()
            # Act 1: wait.
            # A task may have swallowed the second Ctrl-C.
            if ctrl_c.second:
                raise KeyboardInterrupt
            self._turns += 1
            self.polling = True
            if not (ready or calls):
                deadline = min(until, timers.next())
                if deadline == inf:
                    self.poll(None, deadline)
                else:
                    wait = deadline - self.clock()
                    if not 0 <= wait <= self._longest_wait:
                        wait = self._longest_wait if wait > 0 else 0
                        deadline = self.clock() + wait
                    self.poll(wait, deadline)
            elif poller.entries:
                self.poll(0, until)
            self.polling = False
            called = len(calls)
            if called:
                self.make_calls()
            # Act 2: expire.
            if timers.soonest != inf and timers.soonest <= (now := self.clock()):
                timers.expire(now)
            # Act 3: step.
            count = len(ready)
            self._steps += count
            self._step(count)
            if poller.entries and (count or called):
                poller.used = True
                if not poller.sweeping:
                    poller.sweep_later(self.clock())
            if once or not tasks:
                return

    def poll(self, timeout: float | None, deadline: float) -> None:
        """Wait for files. What is raised meanwhile, as by a signal handler, is main's."""
        try:
            self._poller.poll(timeout, deadline)
        except BaseException as exc:
            if self._lifecycle.forked:
                raise RuntimeError(FORKED) from None
            if self._lifecycle.ctrl_c.second or self.main is None:
                raise
            self._lifecycle.force_main(exc)

    def make_calls(self) -> None:
        """Make the calls that came from other threads, in order; not those that come meanwhile."""
        calls = self._callqueue.calls
        for _ in range(len(calls)):
            f, args = calls.popleft()
            self.call(f, args)

    def _step(self, count: int) -> None:
        """Step the `count` tasks that have been in the queue longest, and begin their waits.

        `entry.ref()` and `task.resume()` would look the slot up the slow way: hence the locals.
        """
        ready, handlers, poller = self._ready, self._handlers, self._poller
        # This costs half as much as to count, and 8 bytes for each.
        for _ in (None,) * count:
            task = self.current = ready.popleft()
            task.wait = None
            try:
                resume = task.resume
                if task.outcome is None:
                    trap = resume(task.send, None)
                else:
                    (value, error), task.outcome = task.outcome, None
                    if error is None:
                        trap = resume(task.send, value)
                    else:
                        trap = resume(task.body.throw, error)
                    value = error = None  # what the task lets go of is gone before the next step
            except StopIteration as stop:
                value = error = None
                self._body_over(task, stop.value, None)
                continue
            except BaseException as exc:
                value = error = None
                self._body_over(task, None, exc)
                continue
            if task.pending and self._look_closer(task, trap):
                continue
            if trap is None:
                task.wait = GIVE_WAY
                ready.append(task)
                continue
            kind = type(trap)
            try:
                # Most waits of all are for a file that is known. They are made here, for a call is
                # a twentieth of an echo. For what else it may be, the poller finds out.
                if kind is ReadWait:
                    entry = trap.entry
                    if entry is None:
                        try:
                            entry = poller.entries[trap.file.fileno()]
                            ref = entry.ref
                            if ref() is not trap.file:
                                entry = UNKNOWN
                        except (AttributeError, KeyError, TypeError, ValueError):
                            entry = UNKNOWN
                    if entry.reader is None and entry.reads and entry.poller is poller:
                        entry.reader = task
                        task.wait = trap
                        task.wait_state = entry
                        continue
                try:
                    handle = handlers[kind]
                except Exception:
                    handle = self._wrong_yield
                handle(task, trap)
            except BaseException as exc:
                if self._lifecycle.ctrl_c.second or self._lifecycle.forked:
                    raise
                self.make_ready(task, None, users_part(exc, LIBRARY))
        # From Python 3.12 on, the frame of a body that failed keeps this frame: let go of the task.
        self.current = task = None  # type: ignore[assignment]
        trap = handle = entry = ref = resume = None  # type: ignore[assignment]

    def _look_closer(self, task: Task[Any], trap: Any) -> bool:
        """Look closer at a wait before it is made; return whether something else came first."""
        if self._lifecycle.forked:
            self._lifecycle.stop_in_child(task)
        return self.cancellation.deliver(task) or self._suspensions.await_those_first(task, trap)

    def make_ready(
        self, task: Task[Any], value: Any = None, error: BaseException | None = None
    ) -> None:
        """Make `task` ready: its next step gets `value`, or `error` if there is one."""
        queued = task.wait is GIVE_WAY
        task.wait = task.wait_state = None
        task.outcome = None if error is None and value is None else (value, error)
        if not queued:
            self._ready.append(task)

    def take_back(self, task: Task[Any]) -> bool:
        """Undo the wait of `task` as if it had never been made; False if a result came first."""
        return self._undos[type(task.wait)](task) is not False

    # What the traps mean ----------------------------------------------------------------------
    # Here are `Sleep` and the join. See poller.py, urgent.py and suspend.py for the others.

    def _sleep(self, task: Task[Any], trap: Sleep) -> None:
        now = self.clock()
        deadline: Any = trap.at if trap.seconds is None else now + trap.seconds
        if deadline <= now:
            task.wait = GIVE_WAY
            self._ready.append(task)
            return
        task.wait = trap
        task.wait_state = None if deadline == inf else self.timers.set(deadline, self._awaken, task)

    def _undo_sleep(self, task: Task[Any]) -> None:
        if task.wait_state is not None:
            self.timers.cancel(task.wait_state)

    def _join(self, task: Task[Any], trap: Join) -> None:
        joined = trap.task
        if joined is task or joined.family:
            joined.refuse_circle(task)
        if joined.scheduler is not self and not joined.done:
            self._suspensions.wait(task, Suspend(trap.arm, trap, holder=trap.holder))
            return
        task.wait = trap
        task.wait_state = joined
        if joined.done:
            self._tell_joiner(task, joined)
            return
        self._suspended.add(task)
        if joined.joiners is None:
            joined.joiners = {}
        joined.joiners[task] = None

    def _tell_joiner(self, joiner: Any, joined: Task[Any]) -> None:
        """Tell a task that joins another one, or a call that watches it, that it is done."""
        if type(joiner) is not Task:
            self.call(joiner, (joined.returned, joined.exception), joined)
        # It may have been cancelled by one that was told before it, or by a signal handler. A call
        # would be one more moment at which such a handler may come.
        elif joiner.wait_state is joined:
            joiner.wait = joiner.wait_state = None
            serve(joiner)

    def _undo_join(self, task: Task[Any]) -> None:
        self._suspended.discard(task)
        joiners = task.wait_state.joiners
        if joiners is not None:
            joiners.pop(task, None)

    def _wrong_yield(self, task: Task[Any], thing: object) -> None:
        """This is no trap, or of a class derived from one: that means what its parent does."""
        if self._lifecycle.forked:
            self._lifecycle.stop_in_child(task)
        kind, parent = type(thing), kind_of(thing, self._handlers)
        if parent is None:
            raise TypeError(wrong_yield(task, thing))
        self._handlers[kind], self._undos[kind] = self._handlers[parent], self._undos[parent]
        self._handlers[kind](task, thing)

    # How tasks begin and end ------------------------------------------------------------------

    def start(
        self,
        f: Callable[..., Runnable[T]] | Runnable[T],
        args: tuple[Any, ...],
        name: str | None = None,
        daemon: bool = False,
        parent: Task[Any] | None = None,
        context: Context | None = None,
        site: Site | None = None,
    ) -> Task[T]:
        """Start a task; see `corolib.spawn`. Between two steps its parent is the main task."""
        given = parent is not None or context is not None
        if given and not (isinstance(parent, Task | None) and isinstance(context, Context | None)):
            raise TypeError(no_parent(parent, context))
        parent = parent or self.current or self.main
        if parent is not None and (parent.done or parent.scheduler is not self):
            raise RuntimeError(f"task {parent.label} is done, or of another run: no parent for it")
        new = is_maker(f)
        body: Any = f(*args) if new else body_of("spawn", f, args)  # type: ignore[operator]
        site = site or call_site(3)
        task: Task[T] = self.make_task(body, new, site, name, daemon, context, parent)
        if (
            parent is not None
            and parent.body_over
            and (parent.cancel_request or parent.failure is not None or not parent.attached)
        ):
            self.cancellation.request(task, task, f"{parent.label}, its parent, ended")
        return task

    def make_task(
        self,
        body: Any,
        new: bool,
        site: Site,
        name: str | None = None,
        daemon: bool = False,
        context: Context | None = None,
        parent: Task[Any] | None = None,
    ) -> Task[Any]:
        """Make a ready task of `body`; if `new`, nobody else has it. `site`: see `call_site`."""
        number = self._spawned = self._spawned + 1  # its own, whatever a signal handler spawns
        name = str(name) if name else body.__name__ if new else name_of(body)
        step = self.make_stepper(copy_context() if context is None else context)
        task: Task[Any] = Task(self, body, new, name, number, daemon, step, site)
        self._tasks[number] = task
        try:
            if parent is not None:
                parent.adopt(task)
            self.task_made(task)
            self._ready.append(task)
        except MemoryError:
            self.task_done(task)  # else all would wait for one that is never stepped
            raise
        if self.polling:
            self._callqueue.wake_loop()
        return task

    def make_stepper(self, context: Context) -> Callable[..., Any]:
        """Return `step`: `step(body.send, value)` returns the next trap, or raises how it ended."""
        return self._diagnostics.timed(context.run) if DEBUG else context.run

    def _body_over(self, task: Task[Any], value: Any, error: BaseException | None) -> None:
        """The body returned `value` or raised `error`; the task is done when its children are."""
        lifecycle = self._lifecycle
        if lifecycle.forked:
            raise error or RuntimeError(FORKED)
        if task.body_over:
            return
        forced = task.forced
        if task.pending or task.innermost is not None:
            self.cancellation.leave_all(task)
        if task.holds:
            for thing in list(task.holds):
                thing.orphaned(task)
        task.end_body(value, error)
        if lifecycle.ctrl_c.second:
            raise lifecycle.ctrl_c.ends_all(error)
        if forced is not None and task is self.main and not isinstance(forced, ScopeError):
            lifecycle.end(forced)  # Ctrl-C: it has not waited again
        if error is not None:
            if not task.cancelled and is_a(error, (SystemExit, KeyboardInterrupt)):
                lifecycle.end(error)
            if task.family:
                self.cancellation.request_all(task.children, f"{task.label}, its parent, ended")
        if task.family:
            self._suspended.add(task)
            if not task.attached:
                self.cancellation.request_all(task.children, f"daemon of {task.label}, which ended")
            return
        done: Task[Any] | None = task
        while done is not None:
            done = self.task_done(done)

    def task_done(self, task: Task[Any]) -> Task[Any] | None:
        """Publish the outcome of `task`. Returns its parent, if that is done by it as well."""
        del self._tasks[task.id]
        task.done = True
        # They are taken away first: while they are told, no undo takes one of them out.
        joiners = task.joiners
        if joiners is not None:
            task.joiners = None
            for joiner in joiners:
                self._tell_joiner(joiner, task)
        if task.failure is not None and not (joiners or task.taken):
            self.report_failure(task, task.failure)
        parent = task.parent
        if parent is None:
            return None
        del parent.family[task.id]  # type: ignore[union-attr]
        if not task.daemon:
            parent.attached -= 1
        if not parent.body_over:
            return None
        if parent.family:
            if not parent.attached and not task.daemon:
                reason = f"daemon of {parent.label}, which ended"
                self.cancellation.request_all(parent.children, reason)
            return None
        self._suspended.discard(parent)
        return parent

    def give_up(self, task: Task[Any]) -> None:
        """Step `task` no more: it swallows every `Cancelled`. It is closed when the run ends."""
        self._lifecycle.given_up.append((f"{task!r} swallowed every Cancelled", task.body))
        text = f"task {task.label} swallowed every Cancelled and was given up; let Cancelled pass"
        self._body_over(task, None, RuntimeError(text))

    # What a recorder overrides ----------------------------------------------------------------
    # Each of these is a moment in the life of a task or of the loop, and so are `poll`,
    # `make_calls`, `make_stepper` and `task_done` above. A subclass that overrides one calls it
    # too.

    def make_ready_queue(self, make: Callable[[], ReadyQueue]) -> ReadyQueue:
        """Return the queue of ready tasks: `append` makes one ready, `popleft` begins a step."""
        return make()

    def task_made(self, task: Task[Any]) -> None:
        """A task was made, which is made ready next."""

    def cancel_asked(self, task: Task[Any], scope: Scope, reason: object) -> None:
        """Somebody has asked `task` to leave `scope`, which may be the task itself."""

    def cancel_delivered(self, task: Task[Any], scope: Scope, error: BaseException) -> None:
        """The wait of `task` was taken back; `error` is thrown at it, to leave `scope`."""

    # What programs and library modules may ask ------------------------------------------------

    def spawn(
        self,
        f: Callable[[*Ts], Runnable[T]] | Runnable[T],
        /,
        *args: *Ts,
        name: str | None = None,
        daemon: bool = False,
        parent: Task[Any] | None = None,
        context: Context | None = None,
    ) -> Task[T]:
        """Start a task; see `corolib.spawn`."""
        self.check_usable()
        return self.start(f, args, name, daemon, parent, context)

    @property
    def tasks(self) -> list[Task[Any]]:
        """All tasks that are not done, oldest first."""
        return list(self._tasks.values())

    def cancel_scope(self, task: Task[Any], scope: Scope, reason: object = None) -> None:
        """Ask `task` to leave `scope`; if that is the task itself, its children as well."""
        self.check_usable()
        if self.polling:
            self._callqueue.put(self.cancellation.request, (task, scope, reason))
        else:
            self.cancellation.request(task, scope, reason)

    def arm(self, trap: Trap, wake: Wake) -> Callable[[], object]:
        """Make the wait `trap` in the place of another one: `wake` ends it. Returns the undo."""
        if isinstance(trap, Suspend):
            undo = trap.arm(wake)
            return partial(self.call, undo, ()) if callable(undo) else undo
        assert self.current is not None
        proxy: Any = ProxyWaiter(self.current, wake)
        handle = self._handlers.get(type(trap)) or self._wrong_yield
        handle(proxy, trap)

        def take_back() -> None:
            proxy.wake = None
            if proxy.wait is not None:
                self.take_back(proxy)

        return take_back

    def run_local(self, factory: Callable[[Scheduler], L]) -> L:
        """Return what a module keeps for the run; `factory(self)` makes it, its `end()` ends it."""
        return self._lifecycle.run_local(factory)

    def call_at(self, deadline: float, f: Callable[[Any], object], arg: Any) -> list[Any]:
        """Have `f(arg)` called when `deadline` has come; return the call, for `timers.cancel`."""
        if self.polling:
            self._callqueue.wake_loop()
        return self.timers.set(deadline, lambda arg: self.call(f, (arg,)), arg)

    def close_file(self, file: HasFileno | int) -> None:
        """Close a file and wake who waits for it; see `corolib.close`."""
        self.check_usable()
        self._poller.close_file(file)
        if self.polling:
            self._callqueue.wake_loop()

    def wake_reader(self, trap: Trap) -> None:
        """Have the task that waits with this `ReadWait`, if there is one, look again."""
        self._poller.wake_reader(trap)
        if self.polling:
            self._callqueue.wake_loop()

    def hold(self) -> Block[None]:
        """Say that a wake will come from where the library cannot see: meanwhile no `Deadlock`."""
        return Block(partial(self._lifecycle.hold, 1), partial(self._lifecycle.hold, -1))

    def report(self) -> str:
        """Return all tasks as text: what each does, where it stands, where it was spawned."""
        return dump(self._tasks.values(), repr(self))

    def stats(self) -> dict[str, float]:
        """Return counts, by name; and `longest_step` in seconds, measured in debug mode, and with
        `run(measure=True)`, which adds more: see `corolib.trace.MeasuredScheduler`.
        """
        return self._diagnostics.stats()

    def __repr__(self) -> str:
        return "<Scheduler {tasks} tasks, {ready} ready, {timers} timers, {files} files>".format(
            **self._diagnostics.stats()
        )

    # Calls from outside the tasks -------------------------------------------------------------

    def call_soon_threadsafe(self, f: Callable[..., object], /, *args: Any) -> None:
        """Have `f(*args)` called in the next turn, from any thread or signal handler.

        Raises RunFinished if the run has ended.
        """
        self._callqueue.put(f, args)

    def check_usable(self) -> None:
        """Refuse a call out of another thread, of a forked child, or after the end of the run."""
        if self._lifecycle.forked:
            raise RuntimeError(FORKED)
        if get_ident() != self.thread:
            raise RuntimeError(
                "this scheduler runs in another thread: use from_thread(scheduler, f, *args) "
                "or scheduler.call_soon_threadsafe(f, *args)"
            )
        if self._callqueue.closed:
            raise RunFinished

    def at_once(self) -> bool:
        """Return whether a wake may act now: in our own thread, while the loop does not wait."""
        self._callqueue.check_open()  # after the run, none may
        return not self.polling and get_ident() == self.thread

    def call(
        self, f: Callable[..., object], args: tuple[Any, ...], task: Task[Any] | None = None
    ) -> None:
        """Make a call outside of any step. A failure is reported, as of `task` or of main."""
        try:
            f(*args)
        except BaseException as exc:
            self._diagnostics.call_failed(task, exc)
        if self._lifecycle.forked:
            raise RuntimeError(FORKED)

    def report_failure(self, task: Task[Any] | None, error: BaseException) -> None:
        """Hand a failure that nobody takes to the hook. What leaves `run()` is seen there."""
        self._diagnostics.report_failure(task, error)

    # For another loop around this one ---------------------------------------------------------

    def open(self) -> None:
        """Make the selector and the wake-up files, if they are not made.

        `run()` and `turn()` do that while they handle Ctrl-C. Else one that came meanwhile would
        leave both to the garbage collector, where the finalizer of a socket swallows the next one.
        """
        self._callqueue.open()
        self._poller.open(self._callqueue.files())

    def embed(self, changed: Callable[[], object]) -> None:
        """Prepare for another loop in the same thread, which calls `turn(0)` when it is time.

        It is time when `fileno()` can be read, at `next_deadline()`, and while `has_work`; ask for
        the last two after each turn. What is asked of the scheduler between turns makes the number
        readable; what needs a running one, as `stream.close()` does, is left for the next turn with
        `call_soon_threadsafe()`. When the number stands for another file, `changed()` is called.
        """
        self._lifecycle.refuse_dump_signal()
        self.open()
        self._poller.remade = partial(self.call, changed, ())
        self.embedded = True
        self.polling = True

    def fileno(self) -> int:
        """Return the number to watch: it can be read when a turn has something to do.

        Raises RuntimeError before `open()`, NotImplementedError if the selector has no number.
        """
        return self._poller.selector_fileno()

    def next_deadline(self) -> float:
        """Return when the next timer is due, on `clock`; `math.inf` when there is none."""
        return self.timers.next()

    @property
    def has_work(self) -> bool:
        """Whether the next turn has something to do without waiting for a file or a time."""
        return bool(self._ready or self._callqueue.calls)

    def deadlock(self) -> Deadlock | None:
        """Return what `run()` would raise now because no task can ever run again; or None."""
        if self._ready or len(self._suspended) < len(self._tasks) or not self._tasks:
            return None
        return Deadlock(deadlock(self._tasks.values())) if self._is_deadlock() else None

    def close(self) -> None:
        """Close all that is left, as after a `run()`; for schedulers used by `turn()`.

        Raises:
            RuntimeError: called by a task or a callback of this scheduler.
            SystemExit, KeyboardInterrupt: left a body that was closed, or came in the last turn.
        """
        self._lifecycle.close()

    def close_files(self) -> None:
        """Give back the selector and the wake-up files, and make the calls that are left."""
        self._callqueue.close()
        self.polling = True
        # What was left before is made, and `RunFinished` tells it that it is late.
        while self._callqueue.calls:
            self.make_calls()
        self._poller.close()

    def disown(self) -> None:
        """This is a forked child: make no call for the tasks of the parent, and no wait."""
        self._handlers.clear()
        self._callqueue.calls.clear()

    def wakeup_fd(self) -> int:
        """Return the number to which `signal.set_wakeup_fd` may have signals written."""
        return self._callqueue.wakeup_fd()

    @property
    def is_closed(self) -> bool:
        return self._callqueue.closed

    def _is_deadlock(self) -> bool:
        """Return whether nothing can make a task ready: a signal handler may just have done it."""
        waits = len(self.timers) > self._poller.sweeping  # but for the timer of the sweep
        return not (self._ready or self._callqueue.calls or self._lifecycle.holds or waits)


@public
def run(
    f: Callable[[*Ts], Runnable[T]] | Runnable[T],
    /,
    *args: *Ts,
    clock: Callable[[], float] = time.monotonic,
    selector: Selector = default_selector,
    ready: Callable[[], ReadyQueue] = deque,
    grace: float = 1.0,
    on_task_error: ErrorHook | None = None,
    dump_signal: int | None = None,
    network: object = None,
    trace: object = DEFAULT_TRACE,
    watchdog: float | None = None,
    measure: bool = False,
    **unknown: Never,
) -> T:
    """Run `f(*args)` as the main task of a new scheduler; returns when all tasks are done.

    Args:
        f: a generator function or an `async def`; or what a call of one returned.
        clock, selector, ready, grace, on_task_error, dump_signal, network: see `Scheduler`.
        trace: a file to record the run in, or what else `corolib.trace` says; None: nothing.
        watchdog: seconds, 0.01 or more; a step that takes longer is logged, with the line it is in.
        measure: whether to measure how long tasks and turns take, for `stats()`.

    Returns: what the body of the main task returned.

    Raises:
        What left the main task, when its children were cancelled and are done too.
        SystemExit, KeyboardInterrupt: left any task; or Ctrl-C. The first Ctrl-C is raised in
            the main task at its wait; a second one during the clean-up ends the run on the spot.
        Deadlock: no task can ever run again. TaskCancelled: the main task was cancelled.
        RuntimeError: a scheduler already runs in this thread.
        TypeError: `f` gives no generator or coroutine, or a keyword is none of `run`'s.

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
    scheduler = observed(
        Scheduler,
        trace=trace,
        watchdog=watchdog,
        measure=measure,
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
        # The run does that too, if it begins.
        scheduler._lifecycle.leave_run()
        del scheduler
