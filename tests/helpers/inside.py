"""What tests see of corolib's inside, and change there: the one place that knows private names.

Each is a small function, so that a name that changes is one edit. A test of the project holds that
no other test has a private name of corolib's.
"""

import os
import re
import subprocess
import threading
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, Self, TypeVar

import pytest

import corolib
from corolib import (
    CancelScope,
    DatagramServer,
    DatagramSocket,
    Listener,
    Lock,
    Process,
    Scheduler,
    Server,
    Stream,
    Task,
    TaskGroup,
    WriteWait,
    current_scheduler,
    now,
)
from corolib.coordination import signals, threads
from corolib.kernel import diagnostics, hooks
from corolib.kernel.callqueue import CallQueue, WakeupPair
from corolib.kernel.context import LOOK
from corolib.kernel.poller import SWEEP_EVERY as SWEEP_EVERY
from corolib.kernel.poller import Poller
from corolib.kernel.timers import Timers
from corolib.kernel.traps import Wake
from corolib.net.datagram_servers import _Question
from corolib.net.progress import Watch
from corolib.net.servers import _Connection
from corolib.system import systemd, workers
from corolib.system.stdin import ThreadedInput
from corolib.testing import VirtualClock, sweeps

T = TypeVar("T")

# The scheduler ------------------------------------------------------------------------------------


def timers_of(scheduler: Scheduler) -> Timers:
    return scheduler.timers


def timers_set(scheduler: Scheduler) -> int:
    """Return how many timers there are, without that of the poller's sweep."""
    return len(scheduler.timers) - scheduler._poller.sweeping


def parts_of(scheduler: Scheduler) -> dict[str, type]:
    """Return the types of a scheduler and of its parts, by name."""
    return {
        "scheduler": type(scheduler),
        "ready": type(scheduler._ready),
        "timers": type(scheduler.timers),
        "cancellation": type(scheduler.cancellation),
        "poller": type(scheduler._poller),
    }


def methods_are_swapped() -> bool:
    """Return whether a trace has methods of blocks and queues swapped just now."""
    from corolib.trace.watching import is_swapped_in

    return is_swapped_in()


def suspended(scheduler: Scheduler) -> Collection[Task[Any]]:
    """Return the tasks that only another task can set going."""
    return scheduler._suspended


def when_it_sleeps(
    scheduler: Scheduler, call: Callable[..., object], *args: Any
) -> threading.Thread:
    """Start a thread that makes a call as soon as the scheduler waits for files; return it."""

    def wait() -> None:
        while not scheduler.polling:
            time.sleep(0.001)
        call(*args)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def poll(scheduler: Scheduler) -> None:
    """Let the scheduler look at the files, and step no task."""
    scheduler.poll(0, 0)


def budget_of(scheduler: Scheduler) -> int:
    """Return how many operations away the one is that gives way, if the clock does not say more."""
    left = scheduler.pace._left
    return scheduler.budget + (0 if left <= LOOK else left)


def set_budget(scheduler: Scheduler, count: int) -> None:
    """Have the operation that is so many away give way."""
    scheduler.budget = count
    scheduler.pace._left = 0


def local(scheduler: Scheduler, factory: Callable[..., Any]) -> Any:
    """Return what a module keeps for the length of a run."""
    return scheduler.run_local(factory)


def fork_in_child(scheduler: Scheduler) -> None:
    """Do what a fork does in the child."""
    scheduler._lifecycle.on_fork()


def signal_module() -> Any:
    """Return the module from which the hooks take the functions for signals."""
    return vars(hooks)["signal"]


def before_fork() -> None:
    """Do what is done before a fork; after it in the parent; and in the child."""
    hooks._raise_nothing()
    hooks._before_fork()


def after_fork() -> None:
    hooks._after_fork()


def in_child() -> None:
    hooks._in_child()


def drop(scheduler: Scheduler, generator: AsyncGenerator[Any, None]) -> None:
    """Do what is done when the garbage collector finds an asynchronous generator."""
    scheduler._lifecycle.on_dropped_asyncgen(generator)


def forget_schedulers() -> None:
    """Forget the schedulers that would be told of a fork."""
    hooks._told.clear()


def lifecycle_of(scheduler: Scheduler) -> Any:
    """Return what is told when the process has forked."""
    return scheduler._lifecycle


# The poller ---------------------------------------------------------------------------------------


def poller_of(scheduler: Scheduler) -> Poller:
    return scheduler._poller


def entries_of(scheduler: Scheduler) -> dict[int, Any]:
    """Return the poller's table: for each number who waits for it."""
    return scheduler._poller.entries


def selector_of(poller: Poller) -> Any:
    return poller._selector


def registered() -> set[Any]:
    """Return the numbers that the running scheduler's selector holds, the wake-up files apart."""
    scheduler: Any = current_scheduler()
    poller = poller_of(scheduler)
    try:
        held = set(poller._selector.get_map())
    except AttributeError:
        # Then it is the system's epoll, and the system says it.
        told = Path(f"/proc/self/fdinfo/{poller._selector.fileno()}").read_text()
        held = {int(fd) for fd in re.findall(r"^tfd: *(\d+)", told, re.MULTILINE)}
    return held - poller._wakeups.keys()


def wait_write(scheduler: Scheduler, task: Task[Any], trap: WriteWait) -> None:
    """Make a wait of `task`, without a step of it."""
    scheduler._poller.wait_write(task, trap)


def sweep(scheduler: Scheduler, count: int) -> None:
    """Look at `count` files for such as were closed behind the scheduler's back."""
    scheduler._poller.sweep(count)


SWEEP_SLICE = "corolib.kernel.poller.SWEEP_SLICE"
"""How many files are looked at in one turn: a name to put another number under."""


def remake_selector(scheduler: Scheduler) -> None:
    scheduler._poller._remake()


# Calls from other threads -------------------------------------------------------------------------


def wakeup_file_of(callqueue: CallQueue) -> Any:
    """Return the file that announces calls: it has `read`, `write` and `fileno`."""
    return callqueue._file


def replace_read(callqueue: CallQueue, read: Callable[[int], object]) -> None:
    """Put another function in the place of what reads that file."""
    callqueue._read = read


def replace_write(callqueue: CallQueue, write: Callable[[bytes], object]) -> None:
    callqueue._write = write


def call_queue_of(scheduler: Scheduler) -> CallQueue:
    return scheduler._callqueue


def replace_signal_read(
    scheduler: Scheduler, read: Callable[[int], object]
) -> Callable[[int], object]:
    """Put another function in the place of what reads what signals have written; return that."""
    pair = scheduler._callqueue._pair
    scheduler._poller._wakeups[pair.fileno()] = lambda: read(pair.SIZE)
    return pair.read


def sockets_of_pair(pair: WakeupPair) -> tuple[Any, Any]:
    """Return the socket that is read, and the one that is written."""
    return pair._reader, pair._writer


# Scopes -------------------------------------------------------------------------------------------


class Bound(CancelScope):
    """The least of a block: a stretch of a task with a deadline or a shield."""

    def __init__(
        self,
        seconds: float | None = None,
        *,
        at: float | None = None,
        shield: float | None = None,
    ) -> None:
        self.seconds, self.at, self.shield = seconds, at, shield
        self.expired = False

    def __enter__(self) -> Self:
        self.scheduler: Any = self.begin(1).scheduler
        at = self.at if self.seconds is None else now() + self.seconds
        self.call = at is not None and self.scheduler.call_at(at, self.cancel, "deadline")
        return self

    def cancel(self, reason: object = None) -> None:
        self.scheduler.cancel_scope(self.task, self, reason)

    def __exit__(self, kind: Any, exc: BaseException | None, trace: object) -> bool:
        if self.call:
            self.scheduler.timers.cancel(self.call)
        self.scheduler.cancellation.leave(self, kind)
        self.expired = caught_by(self, exc)
        return self.expired


def caught_by(scope: Any, exc: BaseException | None) -> bool:
    """Return whether `exc` is the `Cancelled` of the request of `scope`."""
    return bool(scope.is_left_by(exc))


# Words --------------------------------------------------------------------------------------------


def at_yield(frame: FrameType | None) -> tuple[str, str]:
    """Return what stands before the `yield` at which a frame is, and behind it; or nothing."""
    return diagnostics._at_yield(frame)


# Coordination -------------------------------------------------------------------------------------


def queue_of(thing: Any) -> Any:
    """Return those who wait for a lock, an event, ..., first come, first served."""
    return thing._waiting


def queues_of(thing: Any) -> list[Any]:
    """Return all queues of those who wait for a thing, whatever for."""
    names = ("_waiting", "_getters", "_putters", "_joiners")
    return [getattr(thing, name) for name in names if hasattr(thing, name)]


def turns_of(group: TaskGroup) -> Any:
    """Return what the tasks of a group with a limit wait for."""
    return group._turns


def await_first(task: Task[Any], other: Task[Any]) -> None:
    """Let the next wait of `task` first wait for the end of another."""
    assert task.await_first is not None
    task.await_first.append(other)


class LossyLock(Lock):
    """Forgets to take a cancelled waiter out of its queue."""

    def _arm(self, wake: Wake) -> Callable[[], object]:
        super()._arm(wake)
        return lambda: None

    def __iter__(self) -> Any:
        return (yield self.acquiring())


def receivers_of(scheduler: Scheduler) -> Collection[int]:
    """Return the signals that are received."""
    return scheduler.run_local(signals.SignalHandlers)._receivers


NEW_POOL = "corolib.system.process_pool._new_pool"
"""What makes the pool of processes: a name to put another in its place."""


def requests_of(scheduler: Scheduler) -> Collection[object]:
    """Return the calls of `from_thread` that wait for their task."""
    return scheduler.run_local(threads.Threads)._requests


# Sockets ------------------------------------------------------------------------------------------


def file_of(stream: Any) -> Any:
    """Return the file that a stream was made of: for one with TLS the stream below."""
    return stream._file


def buffer_of(stream: Stream) -> bytearray:
    """Return what was read too much."""
    return stream._buffer


def replace_buffer(stream: Stream, buffer: T) -> T:
    """Give a stream another buffer, and return it."""
    stream._buffer = buffer  # type: ignore[assignment]
    return buffer


def reading_of(stream: Stream) -> Any:
    """Return the trap that the stream's readers yield."""
    return stream._reading


def set_drained(stream: Stream, drained: bool) -> None:
    """Let a stream believe that its file has no more just now, or has."""
    stream._drained = drained


def disturb(stream: Stream) -> None:
    """Let the next read try first, and go the long way."""
    stream._drained = stream._calm = False


def check_at_rest(stream: Stream) -> None:
    """See that nobody is in the middle of a read, and that the marks fit what there is."""
    assert stream._calm == (stream._drained and not stream._buffer)
    assert stream._reader is None


def sender_of(stream: Stream) -> Task[Any] | None:
    """Return who is in the middle of a `sendall()`."""
    return stream._writer


def patience_of(sock: DatagramSocket) -> int:
    """Return how many waits are still made until a read is tried without one."""
    return sock._patience


def set_patience(sock: DatagramSocket, waits: int) -> None:
    sock._patience = waits


def known_addresses(sock: DatagramSocket) -> int:
    """Return how many addresses of ours are remembered."""
    return len(sock._calls._known)


def counted_sources(server: DatagramServer) -> int:
    """Return of how many senders the answers are counted."""
    return len(server._answers)


def question_counts(server: DatagramServer) -> dict[Any, int]:
    """Return how many handlers wait for each sender."""
    return dict(server._waiting)


def sockets_of(listener: Listener) -> list[Any]:
    return listener._sockets


def wrapped_by(sslobject: Any) -> Any:
    """Return what an `SSLObject` of the standard library wraps."""
    return sslobject._sslobj


def connections_of(server: Server) -> Iterable[Any]:
    return server._open


def counts_of(server: Server) -> tuple[int, int, dict[Any, int]]:
    """Return how many connections are open, how many places are taken, how many each source has."""
    return len(server._open), server._watch.places.taken, dict(server._sources)


STEPS = {
    "begins": (Server, "_begin"),
    "ends": (_Connection, "__call__"),
    "asks": (DatagramServer, "_handle"),
    "is answered": (_Question, "__call__"),
}
"""What servers do for one client, by what becomes of it."""


def refuse_memory(number: int) -> Callable[[], object]:
    """Refuse Python one piece of memory, that after so many others; return what ends that."""
    capi = pytest.importorskip("_testcapi")
    capi.set_nomemory(number, number + 1)
    end: Callable[[], object] = capi.remove_mem_hooks
    return end


PLACES_ASKED = Watch, "is_full"
"""What a server asks before it accepts somebody."""


def cancelled_by(server: Server) -> list[Any]:
    """Return the connections that the end of the server has cancelled."""
    return server._cancelled


# The system ---------------------------------------------------------------------------------------


def take_pidfds_away(monkeypatch: Any) -> None:
    """Make this a system without pidfds."""
    monkeypatch.delattr(os, "pidfd_open")
    take_pidfds_from_subprocess(monkeypatch)


def take_pidfds_from_subprocess(monkeypatch: Any) -> None:
    """Let `subprocess` do without: from Python 3.15 on it opens one while it waits."""
    monkeypatch.setattr(subprocess, "_CAN_USE_PIDFD_OPEN", False, raising=False)


def popen_of(process: Process) -> Any:
    return process._popen


def stop_watching(process: Process) -> None:
    """Take back the wait for the end of a program."""
    assert process._undo is not None
    process._undo()


def reader_task_of(source: ThreadedInput) -> Task[Any] | None:
    """Return the task that reads the standard input in a thread just now."""
    return source._task


def forget_handed_over() -> None:
    """Forget the sockets that systemd has handed over."""
    systemd._handed_over = systemd._HandedOver({}, {})


EXIT_STATUS = "corolib.system.workers._exit_status"
"""The name of what a worker does last, to put something else in its place."""

exit_status = workers._exit_status
run_until = workers._run_until
Place = workers._Place


# The package, and the tools for tests -------------------------------------------------------------


def late_names() -> dict[str, str]:
    """Return for each module that is imported late the public names that it has."""
    names: dict[str, str] = vars(corolib)["_LATE"]  # which type checkers do not see
    return names


def impatient(selector: Any) -> Any:
    """Return the selector of a run that fails when nothing can happen any more."""
    return sweeps._Impatient(selector, VirtualClock())
