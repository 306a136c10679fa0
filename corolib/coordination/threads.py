"""Blocking calls in threads, and the way back: `to_thread`, `from_thread`, `wait_future`.

    value = yield from to_thread(f, *args)      a plain function that would block, in a thread
    value = yield from wait_future(future)      what somebody else computes
    value = from_thread(scheduler, f, *args)    the way back: in a thread, run a task and wait

A run has one `Threads`, which lives as long as it does. How a thread does a job, and how the
outcome gets back, is in `thread_pool.py`. Functions in other processes are in
`system/process_pool.py`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from contextlib import nullcontext, suppress
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from corolib.coordination.thread_pool import Call, Job, Pool, Starter, current_job, end_threads
from corolib.kernel import (
    LateModule,
    RunFinished,
    Runnable,
    Scheduler,
    Suspend,
    Task,
    Wake,
    brief,
    current_scheduler,
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

LIMIT = 40
"""Threads at work for `to_thread`, as in trio and anyio: enough for waiting in parallel."""

LOOKUPS = 8
"""Names that are looked up at once: a dead name server holds each for ten seconds and more."""


# To a thread ------------------------------------------------------------------------------------


@public
@waits
def to_thread(f: Callable[..., T], /, *args: Any) -> Generator[Any, Any, T]:
    """Wait until `f(*args)`, a plain function, has run in a thread of its own.

    `value = yield from to_thread(f, *args)`. The other tasks go on meanwhile. The function runs
    in a copy of the caller's `contextvars` context. No more than 40 run at once, further calls
    stand in a queue: `current_threads()` shows both and sets the limit. One that waits in
    `from_thread` does not count meanwhile, for it may wait for another call. Calls of one task
    follow one another; for several at once use a group. The next call may get another thread.

    A cancelled call releases the task at once. If the function had not begun, it never will; if
    it has, nothing in Python can stop it: its thread goes on and counts until it ends, its value
    is dropped, its failure is reported. But if it is in `from_thread`, that is cancelled too, or
    else the next one; what it asks for afterwards, to clean up, may take as long as `grace`. What
    still runs when the run ends is waited for as long as `grace`, then named on stderr and left
    behind: it does not keep the program from exiting.

    Args:
        f: a function that may block. For keyword arguments use `functools.partial`.

    Returns:
        What `f(*args)` returned.

    Raises:
        What `f(*args)` raised; RuntimeError from a StopIteration, which cannot pass a generator.
        TypeError: it returned a generator or a coroutine, whose code would not run in the thread.
        RuntimeError: no thread can be started; no scheduler runs here.
        Cancelled: the wait was cancelled; see above.

    Example:
        >>> import corolib
        >>> def main():
        ...     return (yield from corolib.to_thread(pow, 2, 10))
        >>> corolib.run(main)
        1024

    Source: curio.run_in_thread, trio.to_thread.
    """
    value: T = yield Job("to_thread", current_scheduler().run_local(Threads).jobs, f, args).done()
    return value


@waits
def lookup(f: Callable[..., T], /, *args: Any) -> Generator[Any, Any, T]:
    """Wait until `f(*args)`, a name lookup, has run in a thread.

    As `to_thread`, but the threads are kept for this: slow jobs do not delay a lookup. Nor do
    lookups that were cancelled: those do not count.
    """
    value: T = yield Job("lookup", current_threads().lookups, f, args).done()
    return value


class Threads:
    """The threads of a run, as long as it lives: see `current_threads`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.starter = Starter()
        self.jobs = Pool("thread", LIMIT, scheduler, self.starter)
        self.lookups = Pool("lookup", LOOKUPS, scheduler, self.starter, spares_given_up=True)
        self._requests: set[Request] = set()
        self._ended = False

    @property
    def limit(self) -> int:
        """How many functions `to_thread` runs at once."""
        return self.jobs.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self.jobs.limit = limit

    @property
    def lookup_limit(self) -> int:
        """How many names are looked up at once."""
        return self.lookups.limit

    @lookup_limit.setter
    def lookup_limit(self, limit: int) -> None:
        self.lookups.limit = limit

    def stats(self) -> dict[str, int]:
        """Return counts: `limit`, `threads`, `running` jobs, those of them `abandoned` by a
        cancelled caller, and jobs `queued`; `lookups` running and `lookups_queued`. Those that were
        cancelled are among `lookups`.
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
            # Looked at after the add: `end` sets this first, and then looks at the set.
            if self._ended:
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


@public
def current_threads() -> Threads:
    """Return the threads of the run in this thread: `limit`, `lookup_limit` and `stats()`.

    `current_threads().limit = 8` bounds what `to_thread` does at once; `lookup_limit`, how many
    names are looked up at once for `open_tcp` and others, which is 8.

    Raises:
        RuntimeError: no scheduler runs in this thread.

    Example:
        >>> import corolib
        >>> def main():
        ...     yield from corolib.to_thread(print, "hello")
        ...     return corolib.current_threads().stats()["queued"]
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
        What left the task; TaskCancelled if it was cancelled, as it is when this thread works for a
            `to_thread` whose caller was.
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
        ...     return corolib.from_thread(scheduler, double, 20) + 2
        >>> def main():
        ...     return (yield from corolib.to_thread(work, corolib.current_scheduler()))
        >>> corolib.run(main)
        42

    Source: trio.from_thread.run, asyncio.run_coroutine_threadsafe.
    """
    # Raises RunFinished if its run is over, also when another one runs in its thread by now.
    scheduler.at_once()
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
        # The traceback of a failure holds this frame, which would be a cycle.
        del request, error


class Request:
    """What a thread wants of a scheduler, and the answer."""

    def __init__(self, scheduler: Scheduler, f: Any, args: tuple[Any, ...]) -> None:
        self._scheduler = scheduler
        self._f = f
        self._args = args
        self._context = copy_context()
        # If it is a pool's thread: for which call it is made.
        self._job = current_job()
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
            self._cancel_if_given_up()

    def answer(self, value: Any, error: BaseException | None) -> None:
        """Set the thread free; in the scheduler's thread."""
        self._pending.discard(self)
        self._answers.put((value, error))

    def make(self) -> tuple[Any, BaseException | None]:
        """Ask, and block until the answer is there; in the thread."""
        try:
            with nullcontext() if self._job is None else self._job.asks(self):
                self._scheduler.run_local(Threads).ask(self)
                return self._answers.get()
        except BaseException:
            self._leave(self._cancel, "the thread that waited for it was interrupted")
            raise

    def cancel_soon(self) -> None:
        """The call for which this is made was given up: cancel the task; from any thread."""
        self._leave(self._cancel_if_given_up)

    def _leave(self, f: Callable[..., object], *args: Any) -> None:
        with suppress(RunFinished):
            self._scheduler.call_soon_threadsafe(f, *args)

    def _cancel_if_given_up(self) -> None:
        given_up = self._job and self._job.given_up
        if given_up and self._task is not None and not self._task.done:
            due = self._scheduler.clock() + given_up.next_cancel()
            if due < math.inf:
                self._scheduler.call_at(due, self._cancel, given_up.reason)

    def _cancel(self, reason: str) -> None:
        if self._task is not None:
            self._task.cancel(reason)


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
        ...     producer = corolib.spawn(corolib.to_thread(produce, corolib.ThreadEnd(queue)))
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
def wait_future(future: futures.Future[T], *, cancel: bool = False) -> Generator[Any, Any, T]:
    """Wait until a `concurrent.futures.Future` is done.

    `value = yield from wait_future(pool.submit(f, x))`. For any future that calls back from
    whichever thread it likes: those of thread pools, of process pools, of other engines. A wait is
    like a join: if it is cancelled, the work goes on, and others may wait for it too.

    Args:
        future: not one of asyncio's, which belongs to asyncio's own loop.
        cancel: give the work up as well when the wait is cancelled, by `future.cancel()`. What that
            means is the future's: a call that runs in a thread already goes on.

    Returns:
        The result of the future.

    Raises:
        What the work raised; RuntimeError from a StopIteration, which cannot pass a generator.
        concurrent.futures.CancelledError, an ordinary exception: the future was cancelled.
        TypeError: this is no such future.
        Cancelled: the wait was cancelled; the future is as it was, but for `cancel`.

    Example:
        >>> import corolib
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> def main(pool):
        ...     return (yield from corolib.wait_future(pool.submit(pow, 2, 10)))
        >>> with ThreadPoolExecutor() as pool:
        ...     corolib.run(main, pool)
        1024
    """
    try:
        value: T = yield future_done(future, cancel)
        return value
    finally:
        # The traceback of its failure holds this frame, which would be a cycle.
        del future


def future_done(future: futures.Future[T], cancel: bool = False) -> Suspend[T]:
    """Return the wait of `wait_future` as a trap, for `first`."""
    if not hasattr(future, "add_done_callback") or hasattr(future, "get_loop"):
        raise TypeError(f"wait_future() takes a concurrent.futures.Future, not {brief(future)}")

    def arm(wake: Wake) -> Callable[[], object]:
        # The future keeps this small object until it is done: it has no way to take a callback
        # back. Many short waits for one long future would be better served by one task that waits.
        call = Call(brief(future), current_scheduler())
        call.wake = wake
        future.add_done_callback(call.settle)

        def give_up() -> None:
            call.give_up()
            if cancel:
                future.cancel()

        return give_up

    return Suspend(arm, future, outside=True)
