"""asyncio beside corolib: `open_asyncio` calls its libraries, `run_in_asyncio` is a guest in it.

    with open_asyncio() as aio:                          a loop of asyncio's, in a thread
        page = yield from aio(fetch(url))                what an `async def` of asyncio's returns

    value = await run_in_asyncio(f, *args)               a run of corolib in a program of asyncio's

In a guest `open_asyncio()` takes the loop that is there already, in the same thread. A wait that is
cancelled cancels what it waits for on the other side, and goes on when that is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from contextvars import copy_context
from inspect import isawaitable, iscoroutine, isgenerator
from math import inf
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, TypeVarTuple

from corolib.coordination.locks import Result
from corolib.coordination.thread_pool import current_job
from corolib.coordination.threads import to_thread
from corolib.kernel import (
    RunFinished,
    Runnable,
    Scheduler,
    Suspend,
    Wake,
    body_of,
    current_scheduler,
    name_of,
    note,
    observed,
    spawn,
    told,
    waits,
)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def open_asyncio() -> Asyncio:
    """Return a loop of asyncio's for a `with` block: `with open_asyncio() as aio: ...`.

    `value = yield from aio(f(x))` runs a coroutine of asyncio's, as one task of its loop, and waits
    until it has ended. Several tasks may call at once, so one block serves a whole program. The
    loop runs in a thread from here to the end of the block. What the coroutines have left behind
    there is cancelled then. The task that opened it is not done before that is gone.

    In `run_in_asyncio` no thread is made: the loop is the one that is there.

    Objects of asyncio's belong to its loop. So make and use a client session or a lock of asyncio's
    inside an `async def` that `aio` runs.

    Example:
        >>> import asyncio, corolib
        >>> from corolib.interop import open_asyncio
        >>> async def double(x):
        ...     await asyncio.sleep(0.001)
        ...     return 2 * x
        >>> def main():
        ...     with open_asyncio() as aio:
        ...         return (yield from aio(double(21)))
        >>> corolib.run(main)
        42

    Source: trio-asyncio (M. Urlichs), which runs both in one thread.
    """
    return Asyncio()


class Asyncio:
    """What `open_asyncio` returns: a loop of asyncio's, which is called as a function."""

    def __init__(self) -> None:
        self._scheduler = current_scheduler()
        self._loop: Result[asyncio.AbstractEventLoop] = Result("the loop of asyncio")
        self._stop: Callable[[], object] | None = None  # in the thread's loop
        self._open = False

    def __enter__(self) -> Self:
        self._open = True
        if self._scheduler.embedded:
            self._loop.set(asyncio.get_running_loop())
        else:
            spawn(to_thread(self._run_loop), name="asyncio")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        if self._stop is not None:
            self._stop()

    @waits
    def __call__(self, awaitable: Awaitable[T]) -> Generator[Any, Any, T]:
        """Wait until a coroutine of asyncio's has ended.

        Args:
            awaitable: a coroutine, or anything else that asyncio can await. It runs in a copy of
                the caller's `contextvars` context.

        Returns:
            What it returned.

        Raises:
            What left it, also `asyncio.CancelledError`.
            TypeError: it waits in corolib, for a queue or a stream, say, which asyncio cannot do.
            RuntimeError: the block has not begun, or is over.
            Cancelled: the wait was cancelled. The coroutine was cancelled too, and has ended;
                unless that took longer than the clean-up of a task may (see `grace`).
        """
        call: _Call[T] = _Call(self._scheduler, awaitable)
        try:
            self._check_open()
            call.loop = yield from self._loop
            self._check_open()  # it may have ended meanwhile
            value: T = yield Suspend(call.arm, call, outside=True)
            return value
        except GeneratorExit:  # nothing can be waited for any more
            raise
        except BaseException:
            if call.begun and not call.over:
                yield Suspend(call.arm_again, call, outside=True)
            raise
        finally:
            if not call.begun:
                call.discard()
            # A failure's traceback holds this frame, which would be a cycle.
            del call, self, awaitable

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError(
                "aio() is for the block `with open_asyncio() as aio:`, "
                "which has not begun or is over"
            )

    def _run_loop(self) -> None:
        """Run the loop until the block ends; in its thread."""
        job = current_job()
        assert job is not None
        job.pool.discount(job)  # it does not compute: others may have its place
        try:
            with asyncio.Runner() as runner:
                loop = runner.get_loop()
                over = asyncio.Event()

                def stop() -> None:
                    with suppress(RuntimeError):  # the loop is closed
                        loop.call_soon_threadsafe(over.set)

                self._stop = stop
                if not self._open:  # the block ended before `stop` was there
                    over.set()
                self._scheduler.call_soon_threadsafe(self._loop.set, loop)
                while True:
                    # SystemExit and KeyboardInterrupt stop a loop. They are the caller's, which has
                    # them when the loop goes on.
                    with suppress(SystemExit, KeyboardInterrupt):
                        runner.run(over.wait())
                    if over.is_set():
                        break
        except RunFinished:
            pass
        except BaseException as exc:
            with suppress(RunFinished):
                self._scheduler.call_soon_threadsafe(self._fail, exc)

    def _fail(self, error: BaseException) -> None:
        """There is no loop, or it has failed at its end."""
        if self._loop.done:
            self._scheduler.report_failure(None, error)
        else:
            self._loop.fail(error)


class _Call(Generic[T]):
    """A call into a loop of asyncio's, which one task waits for."""

    def __init__(self, scheduler: Scheduler, awaitable: Awaitable[T]) -> None:
        self.loop: asyncio.AbstractEventLoop
        self.begun = False
        self.over = False
        self._scheduler = scheduler
        self._caller = scheduler.current
        self._awaitable: Any = awaitable
        self._context = copy_context()
        self._wake: Wake | None = None
        self._given_up = False
        self._task: asyncio.Task[T]  # of the loop's thread

    def arm(self, wake: Wake) -> Callable[[], object]:
        """Begin, and wait for the end."""
        self.loop.call_soon_threadsafe(self._begin)
        self.begun = True
        self._wake = wake
        return self._cancel

    def arm_again(self, wake: Wake) -> Callable[[], object]:
        """Wait for the end of what was cancelled."""
        self._wake = wake
        return self._wait_no_more

    def _wait_no_more(self) -> None:
        self._wake = None

    def _cancel(self) -> None:
        self._wait_no_more()
        self._given_up = True
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._cancel_there)

    def discard(self) -> None:
        """Close a coroutine that has not begun, or has ended, so that it does not complain."""
        if iscoroutine(self._awaitable):
            self._awaitable.close()

    # In the thread of the loop

    def _begin(self) -> None:
        self._task = self.loop.create_task(_result_of(self._awaitable), context=self._context)
        self._task.add_done_callback(self._done)

    def _cancel_there(self) -> None:
        self._task.cancel()

    def _done(self, task: asyncio.Task[T]) -> None:
        error: BaseException | None
        try:
            error = task.exception()
        except asyncio.CancelledError as exc:
            error = exc
        self.discard()  # it may have been cancelled before its first step
        try:
            value = task.result() if error is None else None
            with suppress(RunFinished):
                self._scheduler.call_soon_threadsafe(self._deliver, value, error)
        finally:
            del error  # its traceback holds this frame, which would be a cycle

    # In the thread of the scheduler

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        self.over = True
        wake, self._wake = self._wake, None
        if not self._given_up:
            assert wake is not None
            wake(value, error)
            return
        if error is not None and not isinstance(error, asyncio.CancelledError):
            note(error, "(it ended so after its caller was cancelled)")
            self._scheduler.report_failure(self._caller, error)
        if wake is not None:
            wake()

    def __str__(self) -> str:
        return f"asyncio: {name_of(self._awaitable, which='__qualname__')}"


async def _result_of(awaitable: Awaitable[T]) -> T:
    """Await anything, as a task of asyncio's. (A failure's traceback holds this frame.)"""
    what = "a generator"
    try:
        if not isgenerator(awaitable) or isawaitable(awaitable):
            value: T = await awaitable
            return value
    except RuntimeError as exc:
        what = told(exc).partition("Task got bad yield: ")[2]
        if not what:
            raise
    name = name_of(awaitable, which="__qualname__")
    raise TypeError(
        f"aio() got {name}, which waits in corolib ({what}): asyncio cannot do that. "
        "Call what is corolib's without aio(): `yield from f(x)`"
    )


async def run_in_asyncio(
    f: Callable[[*Ts], Runnable[T]] | Runnable[T], /, *args: *Ts, **options: Any
) -> T:
    """Wait, in a program of asyncio's, until `f(*args)` and all tasks below it are done.

    `value = await run_in_asyncio(f, *args)` is what `run(f, *args)` is elsewhere. Both loops are in
    one thread, and nobody polls: asyncio watches the scheduler's selector and its next deadline.
    The rest of the program goes on meanwhile. Inside, `open_asyncio()` calls asyncio's coroutines.

    If the wait is cancelled, the main task is cancelled; asyncio has its CancelledError when all
    tasks are done.

    Args:
        f: a generator function or an `async def` for corolib; or what a call of one returned.
        options: those of `run`. The selector must have a number, as epoll and kqueue have.

    Returns:
        What the body of the main task returned.

    Raises:
        What left the main task, or SystemExit and KeyboardInterrupt that left any.
        RuntimeError: a scheduler runs in this thread already; or no loop of asyncio's does.
        asyncio.CancelledError: the wait was cancelled; see above.
        A deadlock is not raised: what tasks wait for may be done by the rest of the program.

    Example:
        >>> import asyncio, corolib
        >>> from corolib.interop import run_in_asyncio
        >>> def double(x):
        ...     yield corolib.Sleep(0.001)
        ...     return 2 * x
        >>> asyncio.run(run_in_asyncio(double, 21))
        42

    Source: the guest mode of trio (`trio.lowlevel.start_guest_run`), which uses a thread.
    """
    guest = _Guest(observed(Scheduler, **options))
    try:
        value: T = await guest.run(f, args)
        return value
    finally:
        guest.close()
        # A failure's traceback holds this frame, which would be a cycle.
        del guest, f, args


class _Guest:
    """A scheduler whose turns are taken by a loop of asyncio's."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self._next: asyncio.Handle | None = None  # the next turn, if it is known when that is
        self._over = self._loop.create_future()  # its error is what ends the run early

    async def run(self, f: Any, args: tuple[Any, ...]) -> Any:
        """Take turns until all tasks are done; return what the main task returned."""
        scheduler = self._scheduler
        scheduler.embed(self._watch)
        self._watch()
        main = scheduler.spawn(body_of("run_in_asyncio", f, args))
        main.taken = True
        cancelled = None
        self._turn()
        while not self._over.done():
            try:
                await asyncio.wait([self._over])
            except asyncio.CancelledError as exc:
                cancelled = exc
                main.cancel("the wait in asyncio was cancelled")
        self._over.result()
        if cancelled is not None:
            raise cancelled
        return main.result

    def _watch(self) -> None:
        """Watch the selector; called again when that was remade."""
        if self._fd != -1:
            self._loop.remove_reader(self._fd)
        self._fd = self._scheduler.fileno()
        self._loop.add_reader(self._fd, self._turn)

    def _turn(self) -> None:
        """Take a turn, and plan the next one."""
        scheduler = self._scheduler
        if self._next is not None:
            self._next.cancel()
            self._next = None
        try:
            scheduler.turn(0)
        except BaseException as exc:
            self._over.set_exception(exc)
            return
        if not scheduler.tasks:
            self._over.set_result(None)
        elif scheduler.has_work:
            self._next = self._loop.call_soon(self._turn)
        elif (deadline := scheduler.next_deadline()) != inf:
            delay = max(deadline - scheduler.clock(), 0)
            self._next = self._loop.call_later(delay, self._turn)

    def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
        if self._fd != -1:
            self._loop.remove_reader(self._fd)
        self._scheduler.close()
