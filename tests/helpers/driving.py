"""Running tasks and watching them: what the tests of all packages begin with."""

import os
import selectors
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from corolib import (
    Cancelled,
    Coro,
    QueueShutDown,
    Sleep,
    Stream,
    Task,
    current_scheduler,
    run,
    waits,
)
from corolib.kernel.poller import default_selector
from corolib.testing import virtual_time

FULL = os.environ.get("COROLIB_SWEEP") == "full"
"""Whether sweeps shall try every case, and counts be large."""

monitoring = getattr(sys, "monitoring", None)
MEASURED = bool(sys.gettrace() or (monitoring and any(map(monitoring.get_tool, range(6)))))
"""Whether somebody counts lines, as coverage does. It takes memory."""

LONG = 60  # seconds; only a broken program waits that long


def standard(selector: Any) -> Any:
    """Return `selector`, or one of the standard library in the place of our own, with its keys."""
    return selectors.DefaultSelector if selector is default_selector else selector


def go(f: Any, *args: Any, **options: Any) -> Any:
    """Run `f(*args)` in virtual time; failures that nobody takes fail the test."""
    lost: list[BaseException] = []
    options.setdefault("on_task_error", lambda task, exc: lost.append(exc))
    result = run(f, *args, **{**virtual_time(), **options})
    assert lost == []
    return result


def lose(f: Any, *args: Any, **options: Any) -> tuple[Any, list[tuple[str | None, str]]]:
    """Run `f(*args)` in virtual time; return its result and the failures that nobody took."""
    lost: list[tuple[str | None, str]] = []

    def hook(task: Task[Any] | None, exc: BaseException) -> None:
        lost.append((task.name if task else None, str(exc)))

    return run(f, *args, on_task_error=hook, **{**virtual_time(), **options}), lost


# Tasks --------------------------------------------------------------------------------------------


def sleeper(seconds: float = 1.0, value: Any = None) -> Coro[Any]:
    yield Sleep(seconds)
    return value


def failing(seconds: float, error: BaseException) -> Coro[None]:
    yield Sleep(seconds)
    raise error


@waits
def double(x: int) -> Coro[int]:
    """As a function of the library: to be awaited, and delegated to."""
    yield Sleep(1)
    return 2 * x


def outcome(trap: Any) -> Coro[object]:
    """Wait once; return the exception that came of it, or "woken"."""
    try:
        yield trap
    except Exception as exc:
        return exc
    return "woken"


def hold(
    lock: Any, seconds: float = 1.0, log: list[Any] | None = None, name: Any = None
) -> Coro[None]:
    """Hold a lock for some time; put `name` into the log when it is had."""
    with (yield from lock):
        if log is not None:
            log.append(name)
        yield Sleep(seconds)


def get_all(queue: Any, got: list[Any]) -> Coro[None]:
    """Get until the queue, or the subscription, is shut down."""
    try:
        while True:
            got.append((yield from queue.get()))
    except QueueShutDown:
        return


def echo(stream: Stream) -> Coro[None]:
    """Send back all that comes."""
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data)


def swallow(times: int, wait: Callable[[], Any] = lambda: Sleep(1000)) -> Coro[int]:
    """Wait `times` times in spite of every cancel; return how many were raised."""
    count = 0
    for _ in range(times):
        try:
            yield wait()
        except Cancelled:
            count += 1
    return count


def turns(count: int) -> Coro[None]:
    """Give way `count` times."""
    for _ in range(count):
        yield


def until(condition: Callable[[], object]) -> Coro[None]:
    """Let other tasks, and threads, go on until a condition holds."""
    while not condition():
        yield Sleep(0.001)


# What can be seen of them -------------------------------------------------------------------------


def turn() -> float:
    """Return how many turns there have been, with this one."""
    return current_scheduler().stats()["turns"]


def files() -> float:
    """Return how many files the scheduler knows."""
    return current_scheduler().stats()["files"]


def names(tasks: Iterable[Task[Any]]) -> list[str]:
    return [task.name for task in tasks]


def line(f: Callable[..., object], offset: int) -> str:
    """Return `file.py:12` for the line that lies `offset` below the `def` of `f`."""
    code = f.__code__
    return f"{os.path.basename(code.co_filename)}:{code.co_firstlineno + offset}"


# Threads and signals ------------------------------------------------------------------------------


def in_a_thread(call: Callable[[], object]) -> None:
    """Make a call in a thread, and wait for its end."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def in_threads(
    count: int, f: Callable[[int], object]
) -> tuple[list[threading.Thread], list[BaseException]]:
    """Start `count` threads that do `f(number)`; return them, and the list of what they raise."""
    raised: list[BaseException] = []

    def body(number: int) -> None:
        try:
            f(number)
        except BaseException as exc:
            raised.append(exc)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads, raised


def our_threads() -> list[threading.Thread]:
    """Return the threads that corolib has started."""
    return [each for each in threading.enumerate() if each.name.startswith("corolib-")]


class Gate:
    """A job for a thread: says that it has begun, and goes on when it is let go."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> Any:
        self.begun.set()
        assert self.go.wait(LONG)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


def strike(signum: int = signal.SIGINT) -> None:
    """Send a signal to this thread; its handler has been called when this returns.

    (One to the process may be taken by a thread that another test has left, and two become one.)
    """
    signal.raise_signal(signum)
