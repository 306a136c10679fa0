"""Threads that do jobs, and how an outcome gets back to the task that waits for it.

    value = yield Job("to_thread", pool, f, args).done()

The threads are our own: those of `concurrent.futures` are joined when the interpreter exits, so one
job that never returns would keep the program from ending. Every outcome is handed over by a call
into the scheduler, and only there it is decided whether somebody still waits for it. So none is
delivered to another wait, and none is lost between a cancel and its delivery.

Which pools a run has, and what users call, is in `threads.py`.
"""

from __future__ import annotations

import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from time import monotonic
from typing import TYPE_CHECKING, Any

from corolib.kernel import (
    LateModule,
    RunFinished,
    Suspend,
    Wake,
    check_count,
    current_scheduler,
    current_task,
    forgive,
)

if TYPE_CHECKING:
    from concurrent import futures
else:
    futures = LateModule("concurrent.futures")

IDLE = 10.0
"""Seconds after which a thread without work ends."""

PATIENCE = 10.0
"""Seconds that the end of a run waits for threads and processes at most, if `grace` is longer."""


class Call:
    """A call that is made outside of the scheduler, and that one task waits for."""

    __slots__ = ("name", "scheduler", "wake")

    def __init__(self, name: str) -> None:
        self.name = name
        self.scheduler = current_scheduler()
        # None means that the wait has not begun, or was given up.
        self.wake: Wake | None = None

    def give_up(self) -> None:
        """Wait no more: the undo."""
        self.wake = None

    def settle(self, future: futures.Future[Any]) -> None:
        """Hand over the outcome of a future that is done; from any thread."""
        try:
            error = future.exception()
        except BaseException as exc:
            # The future was cancelled. The traceback holds this frame, which would be a cycle.
            error = exc.with_traceback(None)
        self.post(future.result() if error is None else None, error)

    def post(self, value: Any, error: BaseException | None) -> None:
        """Hand the outcome over; from any thread."""
        try:
            self.scheduler.call_soon_threadsafe(self._deliver, value, error)
        except RunFinished:
            pass

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        if isinstance(error, StopIteration | GeneratorExit):
            # To a generator these mean something else than a failure.
            wrapped = RuntimeError(f"{self.name} raised {type(error).__name__}")
            wrapped.__cause__, error = error, wrapped
        if self.wake is not None:
            self.wake(value, error)
        elif error is not None:
            self.late(error)

    def late(self, error: BaseException) -> None:
        """Do with a failure for which nobody waits any more: nothing, the future still has it."""


class Job(Call):
    """A call that a thread of a pool makes, for the task that is running."""

    __slots__ = ("args", "caller", "context", "f", "pool", "task", "worker")

    def __init__(
        self, caller: str, pool: Pool, f: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        super().__init__(getattr(f, "__qualname__", None) or repr(f))
        self.caller = caller
        self.pool = pool
        self.f = f
        self.args = args
        self.task = current_task()
        # Copied here, in the task: `_arm` is called outside of it.
        self.context: Context = copy_context()
        self.worker: Worker | None = None

    def done(self) -> Suspend[Any]:
        """Return the wait for this call, a trap."""
        return Suspend(self._arm, self, outside=True)

    def _arm(self, wake: Wake) -> Callable[[], object]:
        self.wake = wake
        self.pool.submit(self)
        return self.give_up

    def give_up(self) -> None:
        """Take it out of the queue, or leave it to its thread."""
        super().give_up()
        self.pool.withdraw(self)

    def run(self) -> None:
        """Make the call; in the thread."""
        value = error = None
        try:
            value = self.context.run(self.f, *self.args)
            if isinstance(value, types.GeneratorType | types.CoroutineType):
                forgive(value)
                raise TypeError(
                    f"{self.caller}() got {self.name}, which returned a {type(value).__name__}: "
                    f"its code would not run in the thread. Write `yield from spawn(f, *args)`"
                )
        except BaseException as exc:
            error = exc.with_traceback(exc.__traceback__ and exc.__traceback__.tb_next)
        self.post(value, error)
        # The frame of `f` holds this one, which would be a cycle.
        del value, error

    def late(self, error: BaseException) -> None:
        """Report a failure for which nobody waits any more."""
        error.add_note(f"({self.name} went on after its caller, {self.task.label}, was cancelled)")
        self.scheduler.report_failure(self.task, error)

    @property
    def what(self) -> str:
        """The job as the end of the run names it: `work, called by main#1`."""
        return f"{self.name}, called by {self.task.label}"

    def __str__(self) -> str:
        worker = self.worker
        return f"{self.caller}({self.name}) {f'in {worker.name}' if worker else 'in the queue'}"


class Worker:
    """One thread of a pool: its name, and the job that it does or None."""

    __slots__ = ("job", "name", "thread")

    def __init__(self, name: str) -> None:
        self.name = name
        self.job: Job | None = None
        self.thread: Any = None


class Starter:
    """Starts the threads, and waits for their end. A simulation puts another one in its place."""

    def start(self, work: Callable[..., object], args: tuple[Any, ...], name: str) -> Any:
        """Start a daemon thread that calls `work(*args)`; return its handle."""
        thread = threading.Thread(target=work, args=args, name=name, daemon=True)
        thread.start()
        return thread

    def join(self, threads: Sequence[Any], seconds: float) -> bool:
        """Wait until all these threads have ended, at most that long; return whether they have."""
        deadline = monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in threads)


class Pool:
    """Threads that do jobs, first come, first served; and the queue of the jobs not begun."""

    def __init__(self, name: str, limit: int, starter: Starter) -> None:
        self.name = name
        self.starter = starter
        self.idle = IDLE
        self.queue: OrderedDict[Job, None] = OrderedDict()
        self.workers: set[Worker] = set()
        self._limit = limit
        self._made = 0
        self._ended = False
        self._changed = threading.Condition(threading.Lock())

    @property
    def limit(self) -> int:
        """How many jobs are done at once; what is set takes effect as jobs end."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        check_count(limit, "the limit of threads", 1)
        with self._changed:
            self._limit = limit
            self._grow()
            self._changed.notify_all()

    def submit(self, job: Job) -> None:
        """Put a job into the queue, and see to it that there is a thread for it."""
        with self._changed:
            self.queue[job] = None
            try:
                self._grow()
            except BaseException:
                # If there is a worker, it will come to the job.
                if not self.workers:
                    del self.queue[job]
                    raise
            self._changed.notify()

    def withdraw(self, job: Job) -> None:
        """Take a job out of the queue, if it is still there."""
        with self._changed:
            self.queue.pop(job, None)

    def end(self) -> None:
        """Have the threads end: at once, or after the job each is doing."""
        with self._changed:
            self._ended = True
            self.queue.clear()
            self._changed.notify_all()

    def at_work(self) -> list[Job]:
        """Return the jobs that threads are doing."""
        with self._changed:
            return [job for worker in self.workers if (job := worker.job) is not None]

    def _grow(self) -> None:
        """Start threads for the jobs that no free one will take."""
        free = sum(worker.job is None for worker in self.workers)
        while free < len(self.queue) and len(self.workers) < self._limit:
            self._made += 1
            worker = Worker(f"corolib-{self.name}-{self._made}")
            self.workers.add(worker)
            try:
                worker.thread = self.starter.start(self._work, (worker,), worker.name)
            except BaseException:
                self.workers.discard(worker)
                raise
            free += 1

    def _work(self, worker: Worker) -> None:
        """Do jobs; this is the thread."""
        while (job := self._take(worker)) is not None:
            job.run()
            # It may hold much, and the next job may come late.
            del job

    def _take(self, worker: Worker) -> Job | None:
        """Return the next job; None if the thread is to end."""

        def news() -> bool:
            return bool(self.queue) or self._ended or len(self.workers) > self._limit

        with self._changed:
            worker.job = None
            self._changed.wait_for(news, self.idle)
            if self.queue and len(self.workers) <= self._limit:
                job, _ = self.queue.popitem(last=False)
                worker.job, job.worker = job, worker
                return job
            self.workers.discard(worker)
            return None


def end_threads(pools: tuple[Pool, ...], starter: Starter, grace: float) -> None:
    """End the threads of some pools; name on stderr those that are still at work after `grace`."""
    for pool in pools:
        pool.end()
    try:
        threads = [worker.thread for pool in pools for worker in pool.workers.copy()]
        starter.join(threads, min(grace, PATIENCE))
    finally:
        # Also after Ctrl-C, which may end the wait.
        for job in [job for pool in pools for job in pool.at_work()]:
            assert job.worker is not None
            complain(f"{job.worker.name} still runs {job.what}; it is left behind")


def complain(text: str) -> None:
    """Name on stderr what is left at the end of a run."""
    print(f"corolib: {text}", file=sys.stderr)
