"""Runs tests, and what they need, on one scheduler: one after another, while other tasks live on.

    with Runner(clock="virtual") as runner:
        runner.run(test_it)                 until the task of `test_it` is done

A test, and the setup and teardown of what it needs, is a *part*: a task that the runner drives, by
`Scheduler.turn()`, until it is done, or until it gives something with `yield give(value)` and waits
to be told to go on. While one part is driven it is in the *foreground*, and the scheduler's main
task; the others live on. Between two parts nothing runs.

What makes a run fail: what leaves the body; a deadlock; children that are still at work when the
body is over; a limit in time; the failures that no task took. What fails is said after the part was
cancelled, and is gone.

Here are neither pytest nor unittest.
"""

from __future__ import annotations

import math
import os
import threading
import time
import types
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from corolib.coordination.timeouts import timeout as timeout_block
from corolib.kernel import (
    Deadlock,
    RunFinished,
    Scheduler,
    Suspend,
    Task,
    Wake,
    body_of,
    check_number,
    check_sources,
    current_scheduler,
    current_task,
    doing,
    name_of,
    never_again,
    running_scheduler,
    where,
)
from corolib.testing.alarm import Alarm, stack_of
from corolib.testing.clocks import virtual_time
from corolib.testing.leaks import KINDS, Leaks

if TYPE_CHECKING:
    from corolib.trace import Trace

T = TypeVar("T")

LINGER = 5.0
"""Seconds, of the test's clock, in which children may end when the body is over."""

DEFAULT_LEAKS = "tasks timers files"

LOOK_EVERY = 0.2
"""Real seconds after which it is looked whether the part in front can never go on."""

LAST_SECONDS = 2.0
"""Real seconds that a step may take beyond the limit `wall`, before the process is ended."""

OPTIONS = ("clock", "timeout", "wall", "leaks")


class Runner:
    """Runs test functions on one scheduler: `with Runner() as runner: runner.run(f, *args)`.

    Leaving the block ends everything, and raises what was left: failures that nobody took, and
    leaks.

    Args:
        clock: "real"; "virtual", see `virtual_time()`; or a function that returns the seconds.
        leaks: which of "tasks", "timers", "files", "threads" and "children" must not be left, in
            one string or in several.
        linger: seconds in which the children of a body that is over may end; `math.inf`: any time.
        trace: a `corolib.trace.Trace` that records what the scheduler does.
        scheduler_options: further arguments of `Scheduler`.

    Attributes:
        scheduler: the scheduler, for all runs.
        failures: the exceptions that left tasks and that nobody took, since the last run. A test
            that means them looks at them and clears the list.

    Example:
        >>> import corolib
        >>> def nap(seconds):
        ...     yield corolib.Sleep(seconds)
        ...     return corolib.now()
        >>> with Runner(clock="virtual") as runner:
        ...     print(runner.run(nap, 3600), runner.run(nap, 60))
        3600.0 3660.0
    """

    def __init__(
        self,
        *,
        clock: str | Callable[[], float] = "real",
        leaks: str | Iterable[str] = DEFAULT_LEAKS,
        linger: float = LINGER,
        trace: Trace | None = None,
        **scheduler_options: Any,
    ) -> None:
        check_options("Runner()", {"clock": clock, "leaks": leaks})
        options: dict[str, Any] = {"on_task_error": self._note_failure}
        if callable(clock):
            options["clock"] = clock
        elif clock == "virtual":
            options.update(virtual_time())
        make: Callable[..., Scheduler] = Scheduler if trace is None else trace.scheduler
        self.scheduler = make(**{**options, **scheduler_options})
        self.trace = trace
        self.failures: list[BaseException] = []
        self.linger = check_number(linger, "linger=", "a duration")
        self.on_hang: Callable[[str], object] = end_the_process
        self.foreground: Part | None = None
        self.parts = self.scheduler.run_local(_Parts).parts
        self._leaks = Leaks(leaks_of(leaks), self.scheduler)
        # With a clock of its own, a turn that is bounded in time would move that clock.
        self._waits_for_ever = clock != "real" or "selector" in scheduler_options
        self._next_look = 0.0

    def run(
        self,
        f: Callable[..., Any],
        /,
        *args: Any,
        timeout: float | None = None,
        wall: float | None = None,
        name: str | None = None,
    ) -> Any:
        """Run `f(*args)` as a task until it and its children are done; others live on.

        Args:
            f: a generator function, or an `async def`.
            timeout: seconds on the scheduler's clock, for all of it.
            wall: real seconds. A test that is over that is interrupted at its wait; if it never
                waits, the process is ended, with the stacks of all threads.
            name: of the task.

        Returns: what the body returned.

        Raises:
            What left the body. TimeoutError. Deadlock: it can never go on, whatever others do.
            RuntimeError: children were still at work when it was over, and did not end.
            ExceptionGroup: tasks failed, and nobody joined them.
        """
        __tracebackhide__ = True
        return Part(self, f, args, timeout=timeout, wall=wall, name=name).finish()

    def drive(self, part: Part, reached: Callable[[], bool]) -> None:
        """Do turns until `reached()`; if anything is raised meanwhile, cancel the part first."""
        __tracebackhide__ = True
        scheduler = self.scheduler
        scheduler.main, self.foreground = part.task, part
        self._next_look = time.monotonic() + LOOK_EVERY
        try:
            while not reached():
                left = part.time_left()
                if not scheduler.has_work:
                    self._refuse_deadlock(part.task)
                scheduler.turn(left if self._waits_for_ever else min(left, LOOK_EVERY))
                part.look_for_the_end()
        except BaseException:
            self._end(part)
            raise
        finally:
            scheduler.main = self.foreground = None

    def _refuse_deadlock(self, task: Task[Any]) -> None:
        """Raise Deadlock if nothing can go on; or, now and then, if this task cannot."""
        scheduler = self.scheduler
        found = scheduler.deadlock()
        # To look at every wait would take long where there are many tasks.
        for_ever = self._waits_for_ever and scheduler.next_deadline() == math.inf
        now = time.monotonic()
        if found is None and (for_ever or now >= self._next_look):
            self._next_look = now + LOOK_EVERY
            text = never_again(task, scheduler.tasks)
            found = None if text is None else Deadlock(text)
        if found is not None:
            raise found

    def _end(self, part: Part) -> None:
        """Cancel what a part does, and wait until it is gone. A second Ctrl-C gives it up."""
        part.cancel("the test ends")
        with suppress(BaseException):
            while not (part.is_at_rest or self.scheduler.deadlock()):
                self.scheduler.turn()

    def settle(self, leaks: Leaks) -> None:
        """Let tasks that are new go on until they are done, but no longer than they may linger."""
        scheduler = self.scheduler
        end = scheduler.clock() + self.linger
        while leaks.new_tasks() and scheduler.clock() < end and not scheduler.deadlock():
            scheduler.turn(min(LOOK_EVERY, end - scheduler.clock()))

    def _note_failure(self, task: Task[Any] | None, error: BaseException) -> None:
        if task is not None:
            error.add_note(f"task {task.label}, spawned at {task.spawned_at}")
        self.failures.append(error)

    def raise_failures(self) -> None:
        """Raise what nobody took, if there is anything."""
        __tracebackhide__ = True
        failures = self.failures.copy()
        self.failures.clear()
        if failures:
            raise BaseExceptionGroup("tasks failed, and nobody joined them", failures)

    def note_failures(self, error: BaseException) -> None:
        """What nobody took is no second failure beside `error`: it is a note."""
        for each in self.failures:
            notes = "; ".join(getattr(each, "__notes__", ()))
            error.add_note(f"and nobody took {each!r} ({notes})")
        self.failures.clear()

    def close(self, leaks: Leaks | None = None) -> list[str]:
        """End everything. Return what was left, in words: what is new to `leaks`."""
        leaks = leaks or self._leaks
        scheduler = self.scheduler
        try:
            for part in reversed(list(self.parts.values())):  # as a rule they were ended before
                try:
                    part.end()
                except Exception as exc:
                    self.failures.append(exc)
            self.settle(leaks)
            leaks.look_at_scheduler()
            while scheduler._lifecycle.close_asyncgens() and self._run_out():
                pass
        finally:
            scheduler.close()
        return leaks.look_around()

    def _run_out(self) -> bool:
        """Do turns until no task is left; return False if they would wait for ever."""
        while self.scheduler.tasks:
            if self.scheduler.deadlock():
                return False
            self.scheduler.turn()
        return True

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        left = self.close()
        if error is None:
            self.raise_failures()
            if left:
                raise AssertionError(left_behind(left))
            return
        self.note_failures(error)
        if left:
            error.add_note(left_behind(left))


class Part:
    """A task that a runner drives: to its end, or to each `give` and then to its end.

    Args:
        gives: whether it may give something: it is the setup and teardown of what a test needs.
        cancel: ends what it does just now, for one that may give more than once; then it gives
            again. By default the task is cancelled.
    """

    def __init__(
        self,
        runner: Runner,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        timeout: float | None = None,
        wall: float | None = None,
        name: str | None = None,
        gives: bool = False,
        cancel: Callable[[str], object] | None = None,
    ) -> None:
        self.runner = runner
        self.name = name or name_of(f)
        if running_scheduler() is not None:
            raise RuntimeError(
                f"{self.name} cannot begin in here: a scheduler already runs in this thread. "
                "A test asks for what it needs as an argument"
            )
        check_sources([f])  # now, since it is no part of a step
        self.gives = gives
        self.again = cancel is not None
        self._cancel = cancel
        self.report = ""  # all tasks, if there are others, when something left the body
        self._timeout = timeout
        self._limit: Limit | None = None  # the last that was set
        self._wall = wall
        self._given: Any = None
        self._returned: Any = None
        self._wake: Wake | None = None  # while it waits to be told to go on
        self._fatal: BaseException | None = None  # Ctrl-C, or SystemExit
        self._broken: Part | None = None  # what it stands on has failed
        self._told = False  # its failure was raised as that of another part
        self._late: Exception | None = None  # it took too long
        self._timer: list[Any] | None = None  # while its children may linger
        self._reacted = threading.Event()
        self._over = threading.Event()
        inner = f.func if isinstance(f, partial) else f
        code = getattr(inner, "__code__", None)
        scheduler = runner.scheduler
        site = None if code is None else (code, 0)
        self.place = f"{self.name}" if code is None else _place(code)
        self.task = scheduler.start(self._body, (f, args), self.name, site=site)
        runner.parts[self.task] = self
        self.task.watch(self._ended)

    # The task ---------------------------------------------------------------------------------

    @types.coroutine
    def _body(self, f: Callable[..., Any], args: tuple[Any, ...]) -> Generator[Any, Any, Any]:
        __tracebackhide__ = True
        try:
            with self.bounded(self._timeout, self.place):
                self._returned = yield from body_of("run", f, args)
        except BaseException as exc:
            if len(self.runner.scheduler.tasks) > 1:  # else the traceback says it all
                self.report = self.runner.scheduler.report()
            if self.gives and isinstance(exc, TypeError) and "not a trap" in str(exc):
                exc.add_note("to hand a value to the test: `yield give(...)`")
            # These would end the run, and with it what other tests need.
            if isinstance(exc, KeyboardInterrupt | SystemExit):
                self._fatal = exc
                for child in current_task().children:
                    child.cancel("the test ends")
                return
            raise

    def hand_over(self, value: object, wake: Wake) -> None:
        """The task gives a value, and waits for `wake`."""
        if not self.gives:
            raise RuntimeError(f"give() was called by {self.name}, a test: only fixtures give")
        if self._over.is_set() and not self.again:
            raise RuntimeError(f"{self.name} gives twice: a fixture gives once, then tears down")
        self._given = value
        self._wake = wake

    def _ended(self, value: object, error: BaseException | None) -> None:
        """The task is done. If the part in front stands on it, that ends with what it failed of."""
        self.runner.parts.pop(self.task, None)
        front = self.runner.foreground
        if self.task.failure is not None and front is not None and front is not self:
            front._broken = self
            front.cancel(f"{self.name}, which it needs, failed")

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is under way: it waits to be told to go on, or is done."""
        return self.task.done or self._wake is not None

    @property
    def _has_returned(self) -> bool:
        """Whether its body has returned something. Children may still be at work.

        If it has failed, they are being cancelled, and the failure is raised when they are gone.
        """
        task = self.task
        return task.body_over and task.failure is None and not task.cancelled

    def cancel(self, reason: str) -> None:
        """Have it end what it does just now; does not wait."""
        (self._cancel or self.task.cancel)(reason)

    # Its driver -------------------------------------------------------------------------------

    def begin(self) -> Any:
        """Go on to what it gives, or to the end of its body; return what it gave or returned."""
        __tracebackhide__ = True
        self._drive(lambda: self.is_at_rest or self._has_returned)
        if self._wake is not None:
            return self._given
        if self.task.done or self._fatal is not None:
            self._raise_outcome()
        return self._returned

    def send(self, value: Any) -> Any:
        """Go on to the next that it gives, which the task was told to with `value`."""
        __tracebackhide__ = True
        wake, self._wake = self._wake, None
        assert wake is not None
        wake(value)
        return self.begin()

    def end(self, limit: float | None = None) -> None:
        """Go on to the end. What only returned something is cancelled, and so are its children.

        Args:
            limit: real seconds; then it is cancelled.
        """
        __tracebackhide__ = True
        self._over.set()
        if self.task.done:
            # If it was cancelled, others say why.
            if not (self._told or self.task.cancelled):
                self._raise_outcome()
            return
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()
        else:
            self.task.cancel("what it was made for is over")
        with Alarm(limit, partial(self._soon, self._take_too_long, limit)):
            self._drive(lambda: self.task.done)
        if wake is None and self.task.failure is None and self._late is None:
            self.runner.raise_failures()
        else:
            self._raise_outcome()

    def finish(self) -> Any:
        """Go on to the end; return what the body returned."""
        __tracebackhide__ = True
        try:
            with Alarm(self._wall, self._watch_the_wall):
                try:
                    self._drive(lambda: self.task.done)
                finally:
                    self._reacted.set()
                    self._over.set()
        except BaseException as exc:
            self.runner.note_failures(exc)
            raise
        return self._raise_outcome()

    def bounded(self, seconds: float | None, place: str) -> AbstractContextManager[object]:
        """Return a block for the task, which may take so many seconds; None is no limit.

        Who drives looks at the time: if it were a timer, nothing would be a deadlock.
        """
        if seconds is None:
            return nullcontext()
        self._limit = Limit(seconds, place)
        return self._limit

    def time_left(self) -> float:
        """Return the seconds that it may still take. If there are none, cancel the block."""
        limit = self._limit
        if limit is None or limit.task is None or limit.cancel_request is not None:
            return math.inf
        scheduler = self.runner.scheduler
        left = limit.ends - scheduler.clock()
        if left <= 0:
            limit.is_late = True
            scheduler.cancel_scope(self.task, limit)
            return math.inf
        return left

    def _drive(self, reached: Callable[[], bool]) -> None:
        __tracebackhide__ = True
        self.runner.drive(self, reached)

    def look_for_the_end(self) -> None:
        """If the body is over and children are at work, give them some time; cancel them then."""
        task = self.task
        if task.state == "completing" and self._timer is None and self.runner.linger < math.inf:
            if self.gives and not self._over.is_set():
                return  # it has returned something, and what it spawned lives on
            scheduler = self.runner.scheduler
            end = scheduler.clock() + self.runner.linger
            self._timer = scheduler.timers.set(end, self._end_children, None)
        elif task.done and self._timer is not None:
            self.runner.scheduler.timers.cancel(self._timer)

    def _end_children(self, _: None) -> None:
        children = [each for each in self.task.children if not each.daemon]
        names = [f"{each.label}, spawned at {each.spawned_at}" for each in children]
        self._late = self._late or RuntimeError(
            f"the body of {self.name} is over; it waits for {'; '.join(names)}: "
            "stop it, or make it a daemon"
        )
        self.task.cancel("the body is over")

    def _take_too_long(self, limit: float) -> None:
        self._late = TimeoutError(
            f"the teardown of {self.name} took more than {limit:g} s: {doing(self.task)}, "
            f"at {where(self.task)}"
        )
        self.task.cancel("the teardown takes too long")

    def _soon(self, f: Callable[..., object], *args: object) -> None:
        """Have `f(*args)` called by the loop; in another thread."""
        with suppress(RunFinished):
            self.runner.scheduler.call_soon_threadsafe(f, *args)

    def _watch_the_wall(self) -> None:
        """The real seconds are over: interrupt it once; if that does not help, end the process.

        Runs in the thread of the alarm.
        """
        assert self._wall is not None
        text = f"{self.name} took more than {self._wall:g} s, the limit `wall`"
        stack = stack_of(self.runner.scheduler.thread)
        error = TimeoutError(f"{text}; its step was then at\n{stack}")
        self._soon(self._interrupt, error)
        if not (self._reacted.wait(LAST_SECONDS) and self._over.wait(self._wall)):
            self.runner.on_hang(f"{text}, and does not end")

    def _interrupt(self, error: Exception) -> None:
        self._reacted.set()
        if self.task.body_over:
            self._late = error
            self.task.cancel("the limit `wall` is over")
        else:
            self.runner.scheduler.cancellation.force(self.task, error)

    # How it went ------------------------------------------------------------------------------

    def _raise_outcome(self) -> Any:
        """Return what the body returned, or raise what made the part fail."""
        __tracebackhide__ = True
        error = self._outcome()
        try:
            if error is not None:
                self.runner.note_failures(error)
                raise error
            self.runner.raise_failures()
            return self._returned
        finally:
            # Its traceback holds this frame: they would be a cycle.
            del error, self

    def _outcome(self) -> BaseException | None:
        task = self.task
        if self._fatal is not None:
            error, self._fatal = self._fatal, None
            return error
        if task.failure is not None:
            if self._late is not None:
                task.failure.add_note(f"and: {self._late}")
            return task.failure
        if self._broken is not None and task.cancelled:
            self._broken._told = True
            return self._broken.task.failure
        return self._late or task.exception


class _Parts:
    """The parts of a scheduler that are not done, by their tasks: as long as the run."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.parts: dict[Task[Any], Part] = {}

    def end(self) -> None:
        self.parts.clear()


class Limit(timeout_block):
    """A timeout of a test, which names the test as the place where it was opened."""

    def __init__(self, seconds: float, place: str) -> None:
        super().__init__()
        self.seconds = seconds
        self._place = place

    def __enter__(self) -> Limit:
        super().__enter__()
        self.ends = current_scheduler().clock() + self.seconds
        return self

    @property
    def opened_in(self) -> str:
        return self._place

    def __repr__(self) -> str:
        return f"timeout of {self.seconds:g} s"


def give(value: T) -> Suspend[T]:
    """Hand a value to the test, and wait until that is over: `yield give(value)` in a fixture.

    Returns a trap. What stands behind it is the teardown. All of a fixture is one task: a group or
    a timeout may be open around the `give`. If a child of that group fails, the test is cancelled
    at its wait, and fails with what left the fixture.

    Raises (at the `yield`):
        RuntimeError: not a fixture gives, or it gives twice.

    Example:
        >>> import corolib
        >>> from corolib.testing import fixture
        >>> @fixture
        ... def server():
        ...     listener = corolib.listen_tcp("127.0.0.1", 0)
        ...     running = listener.serve(handler)
        ...     yield give(listener.addresses[0])
        ...     yield from running.stop()
    """
    part: list[Part] = []

    def arm(wake: Wake) -> Callable[[], object]:
        task = current_task()
        mine = current_scheduler().run_local(_Parts).parts.get(task)
        if mine is None:
            raise RuntimeError(f"give() was called by {task.label}, which is no fixture")
        part.append(mine)
        mine.hand_over(value, wake)
        return partial(setattr, mine, "_wake", None)

    def holder() -> list[Task[Any]]:
        front = part[0].runner.foreground if part else None
        return [] if front is None or front is part[0] else [front.task]

    return Suspend(arm, "the end of what it was given to", holder=holder)


def check_options(whose: str, options: dict[str, Any]) -> None:
    """Refuse what cannot be meant: an unknown keyword, clock or kind of leak, a limit not above 0.

    Raises:
        ValueError, TypeError: says whose it is.
    """
    for name, value in options.items():
        if name not in OPTIONS:
            near = get_close_matches(name, OPTIONS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(OPTIONS)}"
            raise TypeError(f"{whose} has no keyword {name!r}: {hint}")
        if name == "clock" and not callable(value) and value not in ("real", "virtual"):
            raise ValueError(f"{whose}: clock={value!r}: give 'real', 'virtual', or a function")
        if name in ("timeout", "wall") and value is not None:
            if check_number(value, f"{whose}: {name}=", "a duration") <= 0:
                raise ValueError(f"{whose}: {name}={value!r}: give seconds above 0")
        if name == "leaks":
            for kind in leaks_of(value):
                if kind not in KINDS:
                    raise ValueError(f"{whose}: leaks={kind!r}: there are {', '.join(KINDS)}")


def leaks_of(kinds: str | Iterable[str]) -> list[str]:
    """Return the kinds of leaks that are written in one string or in several."""
    return kinds.split() if isinstance(kinds, str) else list(kinds)


def left_behind(found: list[str]) -> str:
    """Return the message on what was left."""
    return "\n  ".join(["it has left behind:", *found])


def end_the_process(text: str) -> None:
    """End the process, since a step never ends: with the stacks of all threads, on stderr."""
    import faulthandler
    import sys

    print(f"corolib: {text}", file=sys.__stderr__, flush=True)
    if sys.__stderr__ is not None:
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
    os._exit(1)


def _place(code: types.CodeType) -> str:
    return f"{code.co_name} ({os.path.basename(code.co_filename)}:{code.co_firstlineno})"
