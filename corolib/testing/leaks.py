"""What a test has left behind: tasks, timers, open files, threads, child processes.

Looks before and after, and names what is new. It closes nothing and ends nothing.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from corolib.kernel import Scheduler, doing

KINDS = ("tasks", "timers", "files", "threads", "children")
Identity = tuple[int, ...]


class Leaks:
    """What there was at one moment, and what is new since then.

    Args:
        kinds: which of `KINDS` are looked for.
        scheduler: the one whose tasks and timers are meant.
    """

    def __init__(self, kinds: Iterable[str], scheduler: Scheduler) -> None:
        self.kinds = frozenset(kinds)
        self._scheduler = scheduler
        self._found: list[str] = []
        self.take()

    def take(self) -> None:
        """What there is now is no leak."""
        self._tasks = set(self._scheduler.tasks)
        self._files = identities() if "files" in self.kinds else {}
        self._threads = set(threading.enumerate())
        self._children = child_processes() if "children" in self.kinds else set[int]()

    def new_tasks(self) -> list[Any]:
        """Return the tasks that are new, and are not done."""
        return [task for task in self._scheduler.tasks if task not in self._tasks]

    def look_at_scheduler(self, *, timers: bool = True) -> None:
        """Note tasks and timers: while the scheduler is not closed yet.

        A timer is of a task, as a rule: they are named only if no task is left.
        """
        tasks = self.new_tasks()
        if "tasks" in self.kinds:
            self._found += [
                f"task {task.label}, spawned at {task.spawned_at}: {doing(task)}" for task in tasks
            ]
        # The timer of the sweep is the library's own.
        count = len(self._scheduler.timers) - self._scheduler._poller.sweeping
        if timers and count and not tasks and "timers" in self.kinds:
            self._found.append(f"{count} timers, set with `call_at` or by an open block")

    def look_around(self) -> list[str]:
        """Look at the process; return all that was found, in words."""
        found, self._found = self._found, []
        if "files" in self.kinds and self._new_files():
            gc.collect()  # what only lies in a cycle is no leak: it has a ResourceWarning
            found += [f"open file {describe(number)}" for number in self._new_files()]
        if "threads" in self.kinds:
            found += [
                f"thread {each.name}"
                for each in threading.enumerate()
                if each not in self._threads and not each.name.startswith("corolib-")
            ]
        if "children" in self.kinds:
            found += [f"child process {n}" for n in sorted(child_processes() - self._children)]
        return found

    def _new_files(self) -> list[int]:
        now = identities()
        return [number for number in now if self._files.get(number) != now[number]]


def open_files() -> set[str]:
    """Return the numbers of the open file descriptors; none where that cannot be seen."""
    return set(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else set()


def identities() -> dict[int, Identity]:
    """Return the open files, each with what tells that its number is another file's now.

    The three standard ones do not count: who captures what is printed replaces them.
    """
    found: dict[int, Identity] = {}
    for number in sorted(map(int, open_files())):
        if number > 2:
            with suppress(OSError):  # the one that listed them is closed
                status = os.fstat(number)
                found[number] = (status.st_dev, status.st_ino, status.st_rdev)
    return found


def describe(number: int) -> str:
    """Return an open file in words: `7, socket:[tcp 127.0.0.1:40312]`, or its path."""
    try:
        name = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return str(number)
    if name.startswith("socket:"):
        import socket

        with socket.socket(fileno=os.dup(number)) as sock:
            kind = "udp" if sock.type == socket.SOCK_DGRAM else "tcp"
            address: Any = sock.getsockname()
        if isinstance(address, tuple):
            name = f"socket:[{kind} {address[0]}:{address[1]}]"
        else:
            name = f"socket:[unix {os.fsdecode(address) or 'without a name'}]"
    return f"{number}, {name}"


def child_processes() -> set[int]:
    """Return the numbers of the children of this process; none where that cannot be seen."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == os.getpid():
            found.add(int(path.parent.name))
    return found
