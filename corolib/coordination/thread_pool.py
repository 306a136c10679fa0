"""Threads that do jobs, and how an outcome gets back to the task that waits for it.

    value = yield Job("to_thread", pool, f, args).done()

The threads are our own: those of `concurrent.futures` are joined when the interpreter exits, so one
job that never returns would keep the program from ending. Every outcome is handed over by a call
into the scheduler, and only there it is decided whether somebody still waits for it. So none is
delivered to another wait, and none is lost between a cancel and its delivery.

Which pools a run has, and what users call, is in `threads.py`.
"""

from __future__ import annotations

import _thread
import threading
import types
from _thread import RLock, _local, allocate_lock
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from corolib.kernel import (
    Block,
    LateModule,
    RunFinished,
    Scheduler,
    Suspend,
    TaskCancelled,
    Waiting,
    Wake,
    brief,
    check_count,
    class_name,
    forgive,
    is_a,
    name_of,
    note,
    tell_of_fork,
    to_stderr,
    trace_of,
    uninterrupted,
    with_trace,
)

if TYPE_CHECKING:
    from concurrent import futures
else:
    futures = LateModule("concurrent.futures")

IDLE = 10.0
"""Seconds after which a thread without work ends."""

PATIENCE = 10.0
"""Seconds that the end of a run waits for threads and processes at most, if `grace` is longer."""

RAISED = "_corolib_raised"
"""The attribute in which a future keeps the traceback that its failure came with."""


# A union would be made anew at each look.
MEANT_FOR_GENERATORS = (StopIteration, GeneratorExit)
"""To a generator these mean something else than a failure."""

NOT_RUN = (types.GeneratorType, types.CoroutineType, Waiting)
"""What a call returns whose code would have to be run by a scheduler."""


def check_was_run(caller: str, name: str, args: tuple[Any, ...], value: object) -> None:
    """Raise TypeError if what a call has returned is only a call, which nobody would run."""
    if isinstance(value, NOT_RUN):
        forgive(value)
        own = name.rpartition(".")[2]  # of `main.<locals>.work`
        call = f"{own if own.isidentifier() else 'f'}({'...' if args else ''})"
        raise TypeError(
            f"{caller}() got {name}, which returned a {class_name(value)}: its code would not run "
            f"in there. Write `yield from spawn({call})`"
        )


class Call:
    """A call that is made outside of the scheduler, and that one task waits for."""

    __slots__ = ("name", "scheduler", "wake")

    def __init__(self, name: str, scheduler: Scheduler) -> None:
        self.name = name
        self.scheduler = scheduler
        # None means that the wait has not begun, or was given up.
        self.wake: Wake | None = None

    def give_up(self) -> None:
        """Wait no more: the undo."""
        self.wake = None

    def settle(self, future: futures.Future[Any]) -> None:
        """Hand over the outcome of a future that is done; from any thread."""
        try:
            error = future.exception()
            if error is not None:
                # The future may be waited for again. What the delivery adds does not belong there.
                with suppress(TypeError):  # of a foreign one that keeps nothing
                    with_trace(error, vars(future).setdefault(RAISED, trace_of(error)))
        except BaseException as exc:
            # The future was cancelled. The traceback holds this frame, which would be a cycle.
            error = with_trace(exc, None)
        self.post(future.result() if error is None else None, error)

    def post(self, value: Any, error: BaseException | None) -> None:
        """Hand the outcome over; from any thread."""
        try:
            self.scheduler.call_soon_threadsafe(self.deliver, value, error)
        except RunFinished:
            pass

    def deliver(self, value: Any, error: BaseException | None) -> None:
        """Wake the task, if it still waits; in the scheduler's thread."""
        if error is not None and is_a(error, MEANT_FOR_GENERATORS):
            wrapped = RuntimeError(f"{self.name} raised {class_name(error)}")
            wrapped.__cause__, error = error, wrapped
        if self.wake is not None:
            self.wake(value, error)
        elif error is not None:
            self.late(error)

    def late(self, error: BaseException) -> None:
        """Do with a failure for which nobody waits any more: nothing, the future still has it."""


class Job(Call):
    """A call that a thread of a pool makes, for the task that is running."""

    __slots__ = (
        *("args", "caller", "context", "f", "pool", "task", "worker"),
        *("asking", "counted", "given_up"),
    )

    def __init__(
        self, caller: str, pool: Pool, f: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        if not callable(f):
            text = f"give a function and its arguments, `{caller}(f, x)`"
            forgive(f)
            raise TypeError(f"{caller}() got {brief(f)}: {text}")
        # Without a call of the other `__init__`, which would take longer than all of this.
        self.name = name_of(f, which="__qualname__")
        self.scheduler = pool.scheduler
        self.wake = None
        self.caller = caller
        self.pool = pool
        self.f = f
        self.args = args
        self.task: Any = pool.scheduler.current
        # Copied here, in the task: `_arm` is called outside of it.
        self.context: Context = copy_context()
        self.worker: Worker | None = None
        # Whether it counts against the limit of its pool just now.
        self.counted = False
        # What its thread waits for in a scheduler, in `from_thread`.
        self.asking: Asking | None = None
        self.given_up: GivenUp | None = None

    def done(self) -> Suspend[Any]:
        """Return the wait for this call, a trap."""
        return Suspend(self._arm, self, outside=True)

    def _arm(self, wake: Wake) -> Callable[[], object]:
        self.wake = wake
        self.pool.submit(self)
        return self.give_up

    def give_up(self) -> None:
        """Take it out of the queue; or leave it to its thread, and cancel what that waits for."""
        super().give_up()
        if not self.pool.withdraw(self):
            self.given_up = GivenUp(self)
            asking = self.asking
            if asking is not None:
                asking.cancel_soon()

    def run(self) -> tuple[Any, BaseException | None]:
        """Make the call, and return what came of it; in the thread."""
        error: BaseException | None = None
        try:
            value = self.context.run(self.f, *self.args)
            check_was_run(self.caller, self.name, self.args, value)
            return value, None
        except BaseException as exc:
            error = with_trace(exc, getattr(trace_of(exc), "tb_next", None))
            return None, error
        finally:
            # The frame of `f` holds this one, which would be a cycle.
            del error

    def asks(self, asking: Asking) -> Block[None]:
        """While its thread waits for what it asks of a scheduler: it does not count, and a cancel
        of the job reaches that.
        """

        def begin() -> None:
            self.asking = asking
            self.pool.discount(self)

        def end() -> None:
            self.asking = None
            self.pool.count(self)

        return Block(begin, end)

    # Do with what `run` has returned what is to be done; in the thread, which is free then.
    hand_over = Call.post

    def late(self, error: BaseException) -> None:
        """Report a failure for which nobody waits any more.

        It is none if what the thread has asked of a scheduler was cancelled too, or came too late.
        """
        if is_a(error, (TaskCancelled, RunFinished)):
            return
        note(error, f"({self.name} went on after its caller, {self.task.label}, was cancelled)")
        self.scheduler.report_failure(self.task, error)

    @property
    def what(self) -> str:
        """The job as the end of the run names it: `work, called by main#1`."""
        return f"{self.name}, called by {self.task.label}"

    def __str__(self) -> str:
        worker = self.worker
        return f"{self.caller}({self.name}) {f'in {worker.name}' if worker else 'in the queue'}"


class Asking(Protocol):
    """What a job's thread waits for in a scheduler."""

    def cancel_soon(self) -> None: ...


class GivenUp:
    """A job that goes on in its thread although its caller was cancelled.

    A thread cannot be cancelled, but what it asks of a scheduler can: as for a task, that is done
    once, and what comes afterwards is clean-up, which may take as long as `grace`.
    """

    def __init__(self, job: Job) -> None:
        self.reason = f"{job.task.label}, whose call this is, was cancelled"
        self._clock = job.scheduler.clock
        self._due = self._clock()
        self._grace_ends = self._due + job.scheduler.grace

    def next_cancel(self) -> float:
        """Return in how many seconds what the thread asks for next is to be cancelled."""
        due, self._due = self._due, self._grace_ends
        return max(0.0, due - self._clock())


class Worker:
    """One thread of a pool, and the job that it does or None.

    While it is free it waits for its lock. Who lets that go has given it a job, or it is to end.
    """

    __slots__ = ("job", "lock", "name", "thread")

    def __init__(self, name: str) -> None:
        self.name = name
        self.job: Job | None = None
        self.lock = allocate_lock()
        self.lock.acquire()
        self.thread: Any = None


class _Here(_local):
    """What runs in this thread: a worker of a pool, or None."""

    worker: Worker | None = None


_here = _Here()


def current_job() -> Job | None:
    """Return the job that this thread does, if it is one of a pool's."""
    worker = _here.worker
    return None if worker is None else worker.job


class Starter:
    """Starts the threads, and waits for their end. A simulation puts another one in its place."""

    def start(self, work: Callable[..., object], args: tuple[Any, ...], name: str) -> Any:
        """Start a daemon thread that calls `work(*args)`; return its handle.

        There are none in most subinterpreters: there the end waits for what the thread does.
        """
        allows = getattr(_thread, "daemon_threads_allowed", None)  # new in Python 3.12
        daemon = allows is None or allows()
        thread = threading.Thread(target=work, args=args, name=name, daemon=daemon)
        thread.start()
        return thread

    def join(self, threads: Sequence[Any], seconds: float) -> bool:
        """Wait until all these threads have ended, at most that long; return whether they have."""
        deadline = monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in threads)


class Pool:
    """Threads that do jobs, first come, first served; and the queue of the jobs not begun.

    Of the free ones that which became free last is taken, so that the others can end. No more jobs
    are begun than `limit`, but some do not count: one whose thread waits for a scheduler, and so
    perhaps for another job; and one that was given up, where `spares_given_up` says so.
    """

    def __init__(
        self,
        name: str,
        limit: int,
        scheduler: Scheduler,
        starter: Starter,
        spares_given_up: bool = False,
    ) -> None:
        self.name = name
        self.scheduler = scheduler
        self.starter = starter
        self.idle = IDLE
        self.queue: OrderedDict[Job, None] = OrderedDict()
        self.workers: set[Worker] = set()
        self._free: list[Worker] = []
        # The jobs under way that count.
        self._busy = 0
        self._limit = limit
        self._spares_given_up = spares_given_up
        self._made = 0
        self._ended = False
        # For all of these, and for `counted` and `worker` of the jobs. A signal handler may come in
        # between, and cancel a task whose job is here. A second Ctrl-C must not: it could be raised
        # when the lock is taken and the block has not begun, or between two things that belong
        # together.
        self._lock = RLock()
        tell_of_fork(self)

    @property
    def limit(self) -> int:
        """How many jobs are done at once; what is set takes effect as jobs end."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        check_count(limit, "the limit of threads", 1)
        with uninterrupted, self._lock:
            self._limit = limit
            self._begin()
            self._end_spare()

    def submit(self, job: Job) -> None:
        """Begin a job if there is room, or put it into the queue."""
        with uninterrupted, self._lock:
            # While a thread is free that may begin one, there is none in the queue.
            if self._free and self._busy < self._limit:
                self._give(job)
            else:
                self.queue[job] = None
                self._begin()

    def withdraw(self, job: Job) -> bool:
        """Take a job out of the queue, for which nobody waits; return whether it was there."""
        with uninterrupted, self._lock:
            if job in self.queue:
                del self.queue[job]
                return True
            if self._spares_given_up:
                self._discount(job)
            return False

    def discount(self, job: Job) -> None:
        """Do not count a job meanwhile: its thread is going to wait for a scheduler."""
        with uninterrupted, self._lock:
            self._discount(job)

    def count(self, job: Job) -> None:
        """Count a job again, which may be one more than the limit: its thread goes on at once.

        If it had to wait for room, it might wait for who waits for it.
        """
        with uninterrupted, self._lock:
            if not job.counted and (job.wake is not None or not self._spares_given_up):
                job.counted = True
                self._busy += 1

    def end(self) -> None:
        """Have the threads end: at once, or after the job each is doing."""
        with uninterrupted, self._lock:
            self._ended = True
            self.queue.clear()
            self._end_spare()

    def at_work(self) -> list[Job]:
        """Return the jobs that threads are doing."""
        with uninterrupted, self._lock:
            return [job for worker in self.workers if (job := worker.job) is not None]

    def on_fork(self) -> None:
        """This is a child process: its only thread is the one that has forked, whichever it is.

        If that is one of ours, it ends with its job.
        """
        self._lock = RLock()
        self._ended = True

    # With the lock ----------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin the jobs for which there is room.

        If no thread can be started for them, and none is at work that will come to them, they fail.
        """
        while self.queue and self._busy < self._limit:
            if self._free:
                job, _ = self.queue.popitem(last=False)
                self._give(job)
                continue
            try:
                self._add_worker()
            except Exception as exc:
                while self.queue and not self._busy:
                    job, _ = self.queue.popitem(last=False)
                    job.post(None, type(exc)(*exc.args))
                return

    def _give(self, job: Job) -> None:
        """Have a free thread do a job: that which became free last."""
        worker = self._free.pop()
        worker.job, job.worker = job, worker
        job.counted = True
        self._busy += 1
        worker.lock.release()

    def _add_worker(self) -> None:
        """Start a thread, which is free."""
        self._made += 1
        worker = Worker(f"corolib-{self.name}-{self._made}")
        worker.thread = self.starter.start(self._work, (worker,), worker.name)
        self.workers.add(worker)
        self._free.append(worker)

    def _discount(self, job: Job) -> None:
        if job.counted:
            job.counted = False
            self._busy -= 1
            self._begin()

    def _end_spare(self) -> None:
        """Have the free threads end that are more than the limit, or all at the end."""
        while self._free and (self._ended or self._busy + len(self._free) > self._limit):
            self._free.pop(0).lock.release()

    # In the thread ----------------------------------------------------------------------------

    def _work(self, worker: Worker) -> None:
        """Do jobs; this is the thread."""
        _here.worker = worker
        while (job := self._next_job(worker)) is not None:
            value, error = job.run()
            # First, for what waits for the outcome may need a thread at once.
            self._set_free(worker, job)
            job.hand_over(value, error)
            # They may hold much, and the next job may come late.
            del job, value, error

    def _next_job(self, worker: Worker) -> Job | None:
        """Wait until there is a job for this thread, and return it; None if it is to end."""
        while not worker.lock.acquire(True, self.idle):
            with self._lock:
                # Else it has been given one at this very moment.
                if worker in self._free:
                    self._free.remove(worker)
                    break
        if worker.job is None:
            with self._lock:
                self.workers.discard(worker)
        return worker.job

    def _set_free(self, worker: Worker, job: Job) -> None:
        with self._lock:
            worker.job = None
            if job.counted:
                job.counted = False
                self._busy -= 1
            self._free.append(worker)
            if self.queue:
                self._begin()
            if self._ended or self._busy + len(self._free) > self._limit:
                self._end_spare()


def end_threads(pools: tuple[Pool, ...], starter: Starter, grace: float) -> None:
    """End the threads of some pools; name on stderr those that are still at work after `grace`."""
    with uninterrupted:  # nobody would do the rest
        for pool in pools:
            pool.end()
    try:
        threads = [worker.thread for pool in pools for worker in pool.workers.copy()]
        starter.join(threads, min(grace, PATIENCE))
    finally:
        # Also after Ctrl-C, which may end the wait.
        for job in [job for pool in pools for job in pool.at_work()]:
            assert job.worker is not None
            to_stderr(f"corolib: {job.worker.name} still runs {job.what}; it is left behind")
