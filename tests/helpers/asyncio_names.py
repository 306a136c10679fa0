"""What asyncio calls the things that corolib has: so that asyncio's own tests run on corolib.

Each name is a line or two over ours. Where the two differ nothing is made up here: the test fails,
and `test_asyncios_own.py` lists it with its reason. `load` gives a module of those tests this one
in the place of asyncio. Time is virtual there, also that of `time.sleep`.
"""

import importlib
import importlib.util
import inspect
import math
import sys
import time as real_time
import unittest
from builtins import TimeoutError as TimeoutError
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextvars import Context
from threading import BrokenBarrierError as BrokenBarrierError
from types import ModuleType, SimpleNamespace
from typing import Any, Self
from unittest import mock

import corolib
from corolib import Cancelled as CancelledError
from corolib import Event as Event
from corolib import QueueEmpty as QueueEmpty
from corolib import QueueFull as QueueFull
from corolib import QueueShutDown as QueueShutDown
from corolib import Result, Sleep, TaskCancelled, current_scheduler, now
from corolib.testing import virtual_time

tasks = timeouts = taskgroups = queues = locks = sys.modules[__name__]


class Task:
    """A task of corolib's, asked in asyncio's words."""

    def __init__(self, task: corolib.Task[Any]) -> None:
        self.task = task

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            return (yield from self.task)
        except TaskCancelled as exc:
            raise CancelledError(exc.reason) from None

    def cancel(self, msg: object = None) -> bool:
        asked = not self.task.done
        self.task.cancel(msg)
        return asked

    def cancelled(self) -> bool:
        return self.task.done and self.task.cancelled

    def done(self) -> bool:
        return self.task.done

    def result(self) -> Any:
        return self.task.result

    def exception(self) -> BaseException | None:
        return self.task.exception

    def cancelling(self) -> int:
        return int(self.task.cancel_request is not None)

    def get_name(self) -> str:
        return self.task.name


class Future:
    def __init__(self) -> None:
        self.settled = Result[Any]()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self.settled)

    def set_result(self, value: object) -> None:
        self.settled.set(value)

    def done(self) -> bool:
        return self.settled.done


class Loop:
    def time(self) -> float:
        return now()

    def create_future(self) -> Future:
        return Future()

    def create_task(self, coro: Any) -> Task:
        return create_task(coro)

    def call_later(self, delay: float, f: Callable[..., object], *args: Any) -> None:
        current_scheduler().call_at(now() + delay, lambda _: f(*args), None)

    def run_until_complete(self, coro: Any) -> Any:
        return corolib.run(coro)


def get_running_loop() -> Loop:
    return Loop()


get_event_loop = get_running_loop


def set_event_loop_policy(policy: object) -> None:
    """There are none."""


def create_task(coro: Any) -> Task:
    """All are of the run, as in asyncio, and end with it."""
    scheduler = current_scheduler()
    return Task(scheduler.spawn(coro, parent=scheduler.main, daemon=True))


def current_task() -> Task:
    return Task(corolib.current_task())


async def sleep(seconds: float, result: object = None) -> object:
    await Sleep(seconds)
    return result


async def gather(*calls: Any, return_exceptions: bool = False) -> list[Any]:
    inner = [call.task if isinstance(call, Task) else call for call in calls]
    collect: Any = corolib.gather
    return list(await collect(*inner, return_exceptions=return_exceptions))


async def wait(them: Iterable[Task]) -> tuple[set[Task], set[Task]]:
    await gather(*them, return_exceptions=True)
    return set(them), set()


async def wait_for(call: Any, seconds: float | None) -> Any:
    with corolib.timeout(seconds):
        return await call


async def await_without_task(coro: Coroutine[Any, Any, Any]) -> None:
    """Run `coro` where no task runs, and raise what it raises."""
    raised: list[BaseException] = []

    def step() -> None:
        try:
            coro.send(None)
        except BaseException as exc:
            raised.append(exc)

    current_scheduler().call_soon_threadsafe(step)
    await Sleep(0)
    for exc in raised:
        raise exc


class timeout_at:  # noqa: N801
    def __init__(self, when: float | None) -> None:
        self.block = corolib.timeout(at=math.inf if when is None else when)

    async def __aenter__(self) -> Self:
        self.block.__enter__()
        return self

    async def __aexit__(self, *exc: Any) -> bool | None:
        return self.block.__exit__(*exc)

    def when(self) -> float | None:
        deadline = self.block.deadline
        return None if deadline == math.inf else deadline

    def reschedule(self, when: float | None) -> None:
        self.block.deadline = when

    def expired(self) -> bool:
        return self.block.expired


def timeout(delay: float | None) -> timeout_at:
    return timeout_at(None if delay is None else now() + delay)


class TaskGroup:
    def __init__(self) -> None:
        self.group = corolib.TaskGroup()

    async def __aenter__(self) -> Self:
        await self.group.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> bool | None:
        return await self.group.__aexit__(*exc)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None
    ) -> Task:
        return Task(self.group.spawn(coro, name=name, context=context))

    @property
    def _tasks(self) -> list[corolib.Task[Any]]:
        return self.group.tasks


class Barrier:
    def __init__(self, parties: int) -> None:
        self.barrier = corolib.Barrier(parties)
        self.parties = parties

    async def wait(self) -> int:
        return await self.barrier.wait()

    __aenter__ = wait

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def abort(self) -> None:
        self.barrier.abort()

    async def reset(self) -> None:
        self.barrier.reset()

    @property
    def broken(self) -> bool:
        return self.barrier.broken

    @property
    def n_waiting(self) -> int:
        return self.barrier.waiters

    def __repr__(self) -> str:
        return repr(self.barrier)


class Queue(corolib.Queue[Any]):
    def __init__(self, maxsize: float = 0) -> None:
        super().__init__(maxsize if maxsize > 0 else math.inf)
        self.maxsize = maxsize

    def qsize(self) -> int:
        return len(self)

    def empty(self) -> bool:
        return not len(self)

    def full(self) -> bool:
        return len(self) >= self.size


class LifoQueue(Queue, corolib.LifoQueue[Any]):
    pass


class PriorityQueue(Queue, corolib.PriorityQueue[Any]):
    pass


# The tests ----------------------------------------------------------------------------------------


class Case(unittest.TestCase):
    """What `IsolatedAsyncioTestCase` is, on a run of corolib's."""

    async def asyncSetUp(self) -> None:
        pass

    def _callTestMethod(self, method: Callable[[], Any]) -> None:  # noqa: N802
        if not inspect.iscoroutinefunction(method):
            method()
            return

        async def main() -> None:
            await self.asyncSetUp()
            await method()

        options: Any = {"on_task_error": lambda task, exc: None, **virtual_time()}
        corolib.run(main, **options)


def busy(seconds: float) -> None:
    """What `time.sleep` is where time is virtual."""
    current_scheduler().clock.move(seconds)  # type: ignore[attr-defined]


def load(name: str) -> ModuleType:
    """Import a module of asyncio's tests, with this one in the place of asyncio."""
    # These have to be imported while asyncio has its place.
    for known in ("asyncio.taskgroups", "test.test_asyncio.utils"):
        importlib.import_module(known)
    spec = importlib.util.find_spec(f"test.test_asyncio.{name}")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    ours = {"asyncio": sys.modules[__name__], "asyncio.taskgroups": sys.modules[__name__]}
    with (
        mock.patch.dict(sys.modules, ours),
        mock.patch.object(unittest, "IsolatedAsyncioTestCase", Case),
    ):
        spec.loader.exec_module(module)
    if hasattr(module, "await_without_task"):
        vars(module)["await_without_task"] = await_without_task
    if hasattr(module, "time"):
        vars(module)["time"] = SimpleNamespace(**{**vars(real_time), "sleep": busy})
    return module
