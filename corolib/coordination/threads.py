"""Threads and other processes: `to_thread`, `to_process`, `from_thread`, `wait_future`.

    value = yield from to_thread(f, *args)      a plain function that would block, in a thread
    value = yield from to_process(f, *args)     one that computes for long, in another process
    value = yield from wait_future(future)      what somebody else computes
    value = from_thread(scheduler, f, *args)    the way back: in a thread, run a task and wait

What a run keeps for this are two rooms, `Threads` and `Processes`. The threads are our own: those
of `concurrent.futures` are joined when the interpreter exits, so one job that never returns would
keep the program from ending. Every outcome is handed over by a call into the scheduler, and only
there it is decided whether somebody still waits for it: so none is delivered to a stranger, and
none is lost between a cancel and its delivery.
"""

from __future__ import annotations

import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextvars import Context, copy_context
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from corolib.kernel import (
    LateModule,
    RunFinished,
    Runnable,
    Scheduler,
    Suspend,
    Task,
    Wake,
    check_count,
    current_scheduler,
    current_task,
    forgive,
    public,
    running_scheduler,
    waits,
)

if TYPE_CHECKING:
    from concurrent import futures
else:
    futures = LateModule("concurrent.futures")

T = TypeVar("T")
Item = TypeVar("Item")

LIMIT = 40  # threads at work for `to_thread`, as in trio and anyio: enough for waiting in parallel
LOOKUPS = 8  # threads that look names up: a dead name server holds each for ten seconds and more
IDLE = 10.0  # seconds after which a thread without work ends
PATIENCE = 10.0  # seconds that the end of a run waits for threads at most, if `grace` is longer


# To a thread ------------------------------------------------------------------------------------


@public
@waits
def to_thread(f: Callable[..., T], /, *args: Any) -> Generator[Any, Any, T]:
    """Wait until `f(*args)`, a plain function, has run in a thread of its own.

    `value = yield from to_thread(f, *args)`. The other tasks go on meanwhile. The function runs
    in a copy of the caller's `contextvars` context. No more than 40 run at once, further calls
    stand in a queue: `current_threads()` shows both and sets the limit. Calls of one task follow
    one another; for several at once use a group. The next call may get another thread.

    A cancelled call releases the task at once. If the function had not begun, it never will; if
    it has, nothing in Python can stop it: its thread goes on and counts until it ends, its value
    is dropped, its failure is reported. What still runs when the run ends is waited for as long
    as `grace`, then named on stderr and left behind: it does not keep the program from exiting.

    Args:
        f: a function that may block. For keyword arguments use `functools.partial`.

    Returns:
        What `f(*args)` returned.

    Raises:
        What `f(*args)` raised; RuntimeError from a StopIteration, which cannot pass a generator.
        TypeError: it returned a generator or a coroutine, whose code would not run in the thread.
        RuntimeError: no thread can be started; no scheduler runs here.
        Cancelled: the wait was interrupted; see above.

    Example:
        >>> import corolib
        >>> def main():
        ...     return (yield from to_thread(pow, 2, 10))
        >>> corolib.run(main)
        1024

    Source: curio.run_in_thread, trio.to_thread.
    """
    value: T = yield Job("to_thread", current_threads().jobs, f, args).done()
    return value


@waits
def lookup(f: Callable[..., T], /, *args: Any) -> Generator[Any, Any, T]:
    """Wait until `f(*args)`, a name lookup, has run in a thread.

    As `to_thread`, but the threads are kept for this: slow jobs do not delay a lookup.
    """
    value: T = yield Job("lookup", current_threads().lookups, f, args).done()
    return value


class Call:
    """A call to the world outside that one task waits for, and the way of its outcome back."""

    __slots__ = ("name", "scheduler", "wake")

    def __init__(self, name: str) -> None:
        self.name = name
        self.scheduler = current_scheduler()
        self.wake: Wake | None = None  # None: not begun, or given up

    def give_up(self) -> None:
        """Wait no more: the undo."""
        self.wake = None

    def settle(self, future: futures.Future[Any]) -> None:
        """Hand over the outcome of a future that is done; from any thread."""
        try:
            error = future.exception()
        except BaseException as exc:  # it was cancelled
            error = exc.with_traceback(None)  # which holds this frame: that would be a cycle
        self.post(future.result() if error is None else None, error)

    def post(self, value: Any, error: BaseException | None) -> None:
        """Hand the outcome over; from any thread."""
        try:
            self.scheduler.call_soon_threadsafe(self._deliver, value, error)
        except RunFinished:
            pass

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        if isinstance(error, StopIteration | GeneratorExit):  # means something else to a generator
            wrapped = RuntimeError(f"{self.name} raised {type(error).__name__}")
            wrapped.__cause__, error = error, wrapped
        if self.wake is not None:
            self.wake(value, error)
        elif error is not None:
            self.late(error)

    def late(self, error: BaseException) -> None:
        """Nobody waits any more for this failure: it is still where it came from."""


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
        self.context: Context = copy_context()  # here in the task; `_arm` is called outside of it
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
        del value, error  # the frame of `f` holds this one: that would be a cycle

    def late(self, error: BaseException) -> None:
        """Nobody waits any more for this failure: report it."""
        error.add_note(f"({self.name} went on after its caller, {self.task.label}, was cancelled)")
        self.scheduler.report_failure(self.task, error)

    @property
    def what(self) -> str:
        """As the end of the run names it: `work, called by main#1`."""
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
    """The seam: what really starts threads, and waits for their end."""

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
                if not self.workers:  # else one of them will come to it
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
            del job  # it may hold much

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


class Threads:
    """The threads of a run: see `current_threads`. A room."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.starter = Starter()
        self.jobs = Pool("thread", LIMIT, self.starter)
        self.lookups = Pool("lookup", LOOKUPS, self.starter)
        self._requests: set[Request] = set()
        self._ended = False

    @property
    def limit(self) -> int:
        """How many functions `to_thread` runs at once."""
        return self.jobs.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self.jobs.limit = limit

    def stats(self) -> dict[str, int]:
        """Return counts: `limit`, `threads`, `running` jobs, those of them `abandoned` by a
        cancelled caller, and jobs `queued`; `lookups` running and `lookups_queued`.
        """
        running = self.jobs.at_work()
        return {
            "limit": self.jobs.limit,
            "threads": len(self.jobs.workers),
            "running": len(running),
            "abandoned": sum(job.wake is None for job in running),
            "queued": len(self.jobs.queue),
            "lookups": len(self.lookups.at_work()),
            "lookups_queued": len(self.lookups.queue),
        }

    def ask(self, request: Request) -> None:
        """Let a request of `from_thread` in; from any thread."""
        self._requests.add(request)
        try:
            if self._ended:  # looked at after the add: who ends looks at the set afterwards
                raise RunFinished
            self.scheduler.call_soon_threadsafe(request.start, self._requests)
        except RunFinished:
            self._requests.discard(request)
            raise

    def end(self) -> None:
        """Answer those who wait for the run, end the threads, name those that do not."""
        self._ended = True
        for request in list(self._requests):
            request.answer(None, RunFinished())
        end_threads((self.jobs, self.lookups), self.starter, self.scheduler.grace)


def end_threads(pools: tuple[Pool, ...], starter: Starter, grace: float) -> None:
    """End the threads of some pools; name on stderr those that are still at work after `grace`."""
    for pool in pools:
        pool.end()
    try:
        threads = [worker.thread for pool in pools for worker in pool.workers.copy()]
        starter.join(threads, min(grace, PATIENCE))
    finally:  # Ctrl-C may end the wait
        for job in [job for pool in pools for job in pool.at_work()]:
            assert job.worker is not None
            complain(f"{job.worker.name} still runs {job.what}; it is left behind")


def complain(text: str) -> None:
    """Name on stderr what the end of a run finds."""
    print(f"corolib: {text}", file=sys.stderr)


@public
def current_threads() -> Threads:
    """Return the threads of the run in this thread: `limit` and `stats()`.

    `current_threads().limit = 8` bounds what `to_thread` does at once.

    Raises:
        RuntimeError: no scheduler runs in this thread.

    Example:
        >>> import corolib
        >>> def main():
        ...     yield from to_thread(print, "hello")
        ...     return current_threads().stats()["queued"]
        >>> corolib.run(main)
        hello
        0
    """
    return current_scheduler().run_local(Threads)


# From a thread ----------------------------------------------------------------------------------


@public
def from_thread(scheduler: Scheduler, f: Callable[..., Runnable[T]], /, *args: Any) -> T:
    """In another thread: run `f(*args)` as a task of `scheduler` and block until it is done.

    `f` is a generator function or an `async def`. The task is a child of the main task and runs
    in a copy of the calling thread's `contextvars` context. For a plain call that need not be
    waited for use `scheduler.call_soon_threadsafe(f, *args)`.

    Args:
        scheduler: what `current_scheduler()` returned in the run.
        f: what to run.

    Returns:
        What the task returned.

    Raises:
        What left the task; TaskCancelled if it was cancelled.
        RunFinished: the run has ended, or ends before the task is done.
        RuntimeError: a scheduler runs in this thread, which would wait for itself; so also in
            signal handlers, which interrupt it.
        TypeError: `f` gives no generator or coroutine.
        What a signal handler raises, in the main thread: the task is then cancelled.

    Example:
        >>> import corolib
        >>> def double(x):
        ...     yield corolib.Sleep(0.001)
        ...     return 2 * x
        >>> def work(scheduler):
        ...     return from_thread(scheduler, double, 20) + 2
        >>> def main():
        ...     return (yield from to_thread(work, corolib.current_scheduler()))
        >>> corolib.run(main)
        42

    Source: trio.from_thread.run, asyncio.run_coroutine_threadsafe.
    """
    scheduler.at_once()  # RunFinished, if its thread is free again, or another one by now
    if running_scheduler() is not None or threading.get_ident() == scheduler.thread:
        raise RuntimeError(
            "from_thread() blocks the thread it is called in, and this one is a scheduler's: "
            "use `yield from spawn(f, *args)`; a signal handler uses call_soon_threadsafe(f, *args)"
        )
    request = Request(scheduler, f, args)
    error: BaseException | None = None
    try:
        value, error = request.make()
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]
    finally:
        del request, error  # the traceback holds this frame: that would be a cycle


class Request:
    """What a thread wants of a scheduler, and the answer."""

    def __init__(self, scheduler: Scheduler, f: Any, args: tuple[Any, ...]) -> None:
        self._scheduler = scheduler
        self._f = f
        self._args = args
        self._context = copy_context()
        self._task: Task[Any] | None = None
        self._pending: set[Request] = set()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def start(self, pending: set[Request]) -> None:
        """Spawn the task; in the scheduler's thread."""
        self._pending = pending
        main = self._scheduler.main
        try:
            if main is not None and main.done:
                raise RunFinished
            self._task = self._scheduler.spawn(self._f, *self._args, context=self._context)
        except BaseException as exc:
            self.answer(None, exc)
        else:
            self._task.watch(self.answer)

    def answer(self, value: Any, error: BaseException | None) -> None:
        """Set the thread free; in the scheduler's thread."""
        self._pending.discard(self)
        self._answers.put((value, error))

    def make(self) -> tuple[Any, BaseException | None]:
        """Ask, and block until the answer is there; in the thread."""
        try:
            self._scheduler.run_local(Threads).ask(self)
            return self._answers.get()
        except BaseException:
            try:
                self._scheduler.call_soon_threadsafe(self._cancel)
            except RunFinished:
                pass
            raise

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel("the thread that waited for it was interrupted")


class AnyQueue(Protocol[Item]):
    """What `ThreadEnd` needs of a queue."""

    def put(self, item: Item) -> Generator[Any, Any, Any]: ...
    def get(self) -> Generator[Any, Any, Item]: ...


@public
class ThreadEnd(Generic[Item]):
    """The end of a queue that other threads use: `end = ThreadEnd(queue)`, made in a task.

    In a thread `end.put(item)` and `item = end.get()` block as the queue's own methods wait, and
    raise what they raise, and what `from_thread` does. Each is a task of its own: some ten
    microseconds. For many small items, put lists of them.

    Example:
        >>> import corolib
        >>> def produce(end):
        ...     for number in range(3):
        ...         end.put(number)
        >>> def main():
        ...     queue = corolib.Queue(1)
        ...     producer = corolib.spawn(to_thread(produce, ThreadEnd(queue)))
        ...     found = []
        ...     for _ in range(3):
        ...         found.append((yield from queue.get()))
        ...     yield from producer
        ...     return found
        >>> corolib.run(main)
        [0, 1, 2]
    """

    def __init__(self, queue: AnyQueue[Item]) -> None:
        self._scheduler = current_scheduler()
        self._queue = queue

    def put(self, item: Item) -> None:
        """Put an item in, and block while the queue is full."""
        from_thread(self._scheduler, self._queue.put, item)

    def get(self) -> Item:
        """Take an item out, and block while the queue is empty."""
        return from_thread(self._scheduler, self._queue.get)


# Futures ----------------------------------------------------------------------------------------


@public
@waits
def wait_future(future: futures.Future[T]) -> Generator[Any, Any, T]:
    """Wait until a `concurrent.futures.Future` is done.

    `value = yield from wait_future(pool.submit(f, x))`. For any future that calls back from
    whichever thread it likes: those of thread pools, of process pools, of other engines. A wait is
    like a join: if it is interrupted, the work goes on, and others may wait for it too. To give
    the work up as well, cancel the future: `try: ... finally: future.cancel()`.

    Args:
        future: not one of asyncio's, which belongs to asyncio's own loop.

    Returns:
        The result of the future.

    Raises:
        What the work raised; RuntimeError from a StopIteration, which cannot pass a generator.
        concurrent.futures.CancelledError, an ordinary exception: the future was cancelled.
        TypeError: this is no such future.
        Cancelled: the wait was interrupted; the future is as it was.

    Example:
        >>> import corolib
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> def main(pool):
        ...     return (yield from wait_future(pool.submit(pow, 2, 10)))
        >>> with ThreadPoolExecutor() as pool:
        ...     corolib.run(main, pool)
        1024
    """
    try:
        value: T = yield future_done(future)
        return value
    finally:
        del future  # the traceback of its failure holds this frame: that would be a cycle


def future_done(future: futures.Future[T]) -> Suspend[T]:
    """Return the wait of `wait_future` as a trap, for `first`."""
    if not hasattr(future, "add_done_callback") or hasattr(future, "get_loop"):
        raise TypeError(f"wait_future() takes a concurrent.futures.Future, not {future!r}")

    def arm(wake: Wake) -> Callable[[], object]:
        # The future keeps this small object until it is done: it has no way to take a callback
        # back. Many short waits for one long future would be better served by one task that waits.
        call = Call(f"{future!r}")
        call.wake = wake
        future.add_done_callback(call.settle)
        return call.give_up

    return Suspend(arm, future, outside=True)


# Processes --------------------------------------------------------------------------------------
