"""corolib: network servers written as plain generators.

A task yields `ReadWait(sock)` or `WriteWait(sock)`; a scheduler on the standard `selectors` module
resumes it when the socket is ready. If it can wait, it has `yield` in front: `yield` a trap,
`yield from` a function. If it cannot wait, it is an ordinary call.

What is public is listed here; everything else may change. The kernel is imported with the package,
and each room above it when one of its names is first asked for. `from corolib import timeout` asks
at the beginning of a program, `corolib.timeout` only where it is reached: there it may be the first
thing for which no file number is left, or a module that was replaced since the program began.

This file is read by older Pythons too, down to 2.7: they are told that they are too old.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # pragma: no cover - it runs in old ones
    version = ".".join(map(str, sys.version_info[:3]))
    raise ImportError("corolib needs Python 3.11 or newer; this is Python " + version)

from corolib.errors import (
    BusyError,
    Cancelled,
    ClosedError,
    Deadlock,
    RunFinished,
    ScopeError,
    TaskCancelled,
)
from corolib.kinds import TYPE_CHECKING
from corolib.running import close, current_scheduler, current_task, now, spawn
from corolib.scheduler import Scheduler, run
from corolib.task import Task
from corolib.traps import Coro, ReadWait, Sleep, Suspend, UrgentWait, WriteWait, waits

if TYPE_CHECKING:
    from corolib.activation import inherited_listeners, notify_systemd
    from corolib.choice import first
    from corolib.connecting import open_tcp, open_unix
    from corolib.datagrams import DatagramSocket, open_udp, open_unix_datagrams
    from corolib.groups import TaskGroup, as_completed, gather, map_concurrent, race, started
    from corolib.processes import open_process, open_stdin, run_process
    from corolib.queues import (
        LifoQueue,
        PriorityQueue,
        Queue,
        QueueEmpty,
        QueueFull,
        QueueShutDown,
        Topic,
    )
    from corolib.servers import Listener, listen_tcp, listen_unix, serve_tcp, serve_unix
    from corolib.signals import open_signal_receiver
    from corolib.streams import IncompleteRead, LimitExceeded, Stream
    from corolib.sync import (
        Barrier,
        BoundedSemaphore,
        Condition,
        Event,
        Lock,
        Result,
        RLock,
        Semaphore,
    )
    from corolib.threads import from_thread, to_process, to_thread, wait_future
    from corolib.timeouts import move_on_after, shield, timeout
    from corolib.workers import run_workers
else:
    _ROOMS = {
        "activation": "inherited_listeners notify_systemd",
        "choice": "first",
        "connecting": "open_tcp open_unix",
        "datagrams": "DatagramSocket open_udp open_unix_datagrams",
        "groups": "TaskGroup as_completed gather map_concurrent race started",
        "processes": "open_process open_stdin run_process",
        "queues": "LifoQueue PriorityQueue Queue QueueEmpty QueueFull QueueShutDown Topic",
        "servers": "Listener listen_tcp listen_unix serve_tcp serve_unix",
        "signals": "open_signal_receiver",
        "streams": "IncompleteRead LimitExceeded Stream",
        "sync": "Barrier BoundedSemaphore Condition Event Lock RLock Result Semaphore",
        "threads": "from_thread to_process to_thread wait_future",
        "timeouts": "move_on_after shield timeout",
        "workers": "run_workers",
    }

    def __getattr__(name):
        """Import the room of this name, or that has this name."""
        from importlib import import_module

        for room, names in _ROOMS.items():
            if name == room:
                return import_module("corolib." + room)
            if name in names.split():
                found = globals()[name] = getattr(import_module("corolib." + room), name)
                return found
        raise AttributeError("module 'corolib' has no attribute " + repr(name))

    def __dir__():
        return sorted(set(globals()) | set(__all__))


__version__ = "0.1.0"

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "BusyError",
    "Cancelled",
    "ClosedError",
    "Condition",
    "Coro",
    "DatagramSocket",
    "Deadlock",
    "Event",
    "IncompleteRead",
    "LifoQueue",
    "LimitExceeded",
    "Listener",
    "Lock",
    "PriorityQueue",
    "Queue",
    "QueueEmpty",
    "QueueFull",
    "QueueShutDown",
    "RLock",
    "ReadWait",
    "Result",
    "RunFinished",
    "Scheduler",
    "ScopeError",
    "Semaphore",
    "Sleep",
    "Stream",
    "Suspend",
    "Task",
    "TaskCancelled",
    "TaskGroup",
    "Topic",
    "UrgentWait",
    "WriteWait",
    "as_completed",
    "close",
    "current_scheduler",
    "current_task",
    "first",
    "from_thread",
    "gather",
    "inherited_listeners",
    "listen_tcp",
    "listen_unix",
    "map_concurrent",
    "move_on_after",
    "notify_systemd",
    "now",
    "open_process",
    "open_signal_receiver",
    "open_stdin",
    "open_tcp",
    "open_udp",
    "open_unix",
    "open_unix_datagrams",
    "race",
    "run",
    "run_process",
    "run_workers",
    "serve_tcp",
    "serve_unix",
    "shield",
    "spawn",
    "started",
    "timeout",
    "to_process",
    "to_thread",
    "wait_future",
    "waits",
]
