"""A program that can be asked from outside what its tasks do: `python3 -m corolib ps PID`.

A run with a dump signal leaves a file, `PID.json`, in a folder that only its user can read. Who
asks puts `PID.ask` there and sends the signal. Then the answer is written to `PID.answer`, and not
to stderr. It is made in the handler of the signal, so a task that computes and computes is told
too.

Who asks is the command `ps`; how a report looks on stderr is in `diagnostics.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from corolib.kernel.diagnostics import doing, find_cycle, holders

if TYPE_CHECKING:
    from corolib.kernel.scheduler import Scheduler
    from corolib.kernel.task import Task

SCHEMA = "corolib-ps/1"
# The same in every environment: who asks may have another one, as a login shell and a service have.
# A service that has a /tmp of its own, by systemd's PrivateTmp=, is found only from within.
FOLDER = "/tmp/corolib-{uid}"


def meeting_folder(uid: int | None = None) -> str:
    """Return the folder where questions and answers are left; it is made if it is not there.

    Args:
        uid: of which user's processes; of our own if it is not given. Root may ask those of others.

    Raises:
        OSError: it cannot be made; or it is not that user's alone, who would then read what others
            have put there.
    """
    owner = os.getuid() if uid is None else uid
    path = FOLDER.format(uid=owner)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
        os.chown(path, owner, -1)
    found = os.lstat(path)
    # A folder, and no link to one; nobody else may write there, or read.
    if found.st_mode & 0o170077 != 0o040000 or found.st_uid != owner:
        raise PermissionError(f"{path} is not a folder of its user's alone")
    return path


def announce(signum: int) -> Callable[[], object]:
    """Say that this process can be asked by a signal; return the undo.

    If that cannot be done, it cannot be asked so, and nothing else is wrong.
    """
    pid = os.getpid()
    try:
        path = os.path.join(meeting_folder(), f"{pid}.json")
        _write(path, {"pid": pid, "signal": int(signum), "argv": sys.argv})
    except Exception:
        return lambda: None

    def undo() -> None:
        if os.getpid() == pid:  # else this is a forked child
            with suppress(OSError):
                os.remove(path)

    return undo


def answer_if_asked(schedulers: Callable[[], Iterable[Scheduler]]) -> bool:
    """Answer a question that was left for this process; return whether there was one."""
    try:
        stem = os.path.join(meeting_folder(), str(os.getpid()))
        os.remove(f"{stem}.ask")
        answer(f"{stem}.answer", schedulers())
    except Exception:
        return False
    return True


def answer(path: str, schedulers: Iterable[Scheduler]) -> None:
    """Write down what the tasks of these schedulers do."""
    _write(path, snapshot(schedulers))


def _write(path: str, thing: object) -> None:
    """Write JSON to a file, which is there when it is whole."""
    import json

    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(thing, file)
    os.replace(f"{path}.new", path)


def snapshot(schedulers: Iterable[Scheduler]) -> dict[str, Any]:
    """Return what the tasks of these schedulers do, as plain data."""
    return {
        "schema": SCHEMA,
        "pid": os.getpid(),
        "argv": list(sys.argv),
        "python": sys.version.split()[0],
        "corolib": sys.modules["corolib"].__version__,
        "schedulers": [_of_scheduler(each) for each in schedulers],
    }


def _of_scheduler(scheduler: Scheduler) -> dict[str, Any]:
    threading = sys.modules.get("threading")
    threads = [] if threading is None else threading.enumerate()
    names = [each.name for each in threads if each.ident == scheduler.thread]
    tasks = scheduler.tasks
    return {
        "thread": names[0] if names else str(scheduler.thread),
        "stats": scheduler.stats(),
        "report": scheduler.report(),
        "tasks": [_of_task(task) for task in tasks],
        "cycle": [task.id for task in find_cycle(tasks, holders)],
    }


def _of_task(task: Task[Any]) -> dict[str, Any]:
    return {
        "id": task.id,
        "name": task.name,
        "parent": None if task.parent is None else task.parent.id,
        "state": task.state,
        "wait": doing(task),
        "holders": [each.id for each in holders(task)],
        "spawned_at": task.spawned_at,
        "stack": [
            [frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno]
            for frame in task.stack()
        ],
    }
