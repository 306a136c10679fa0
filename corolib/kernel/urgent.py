"""Urgent data: what `UrgentWait` means.

TCP can mark a byte as urgent. Its socket is then in a third condition, neither readable nor
writable: `POLLPRI`, or the third set of `select()`. The system's calls know three directions. The
selectors that Python lays over them, and the poller, know two. But an epoll is itself a file, which
can be read when one of the files in it has something to report, and on Linux every selector can
watch one. So each of these waits makes an epoll with its one file in it, a *watch*, and a proxy
waiter waits for that. Where there is no epoll, the wait is refused.

It costs a file number and a few system calls more than other waits do, which is little for
something as rare as urgent data. In return the poller has no third direction, and not a step more
in its other two. And since a watch goes with its wait, it cannot outlive its file, as registrations
do.

What the poller knows of files in general (numbers, inodes, blocking sockets) is taken from there.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from corolib.kernel.diagnostics import busy
from corolib.kernel.errors import BusyError
from corolib.kernel.poller import check_nonblocking, closed, fileno, inode, number
from corolib.kernel.safely import brief
from corolib.kernel.traps import ReadWait, UrgentWait

if TYPE_CHECKING:
    from corolib.kernel.scheduler import Scheduler
    from corolib.kernel.task import Task


class Urgent:
    """The waits for urgent data. `watches` has the watch of each, by the number of its file."""

    def __init__(self, scheduler: Scheduler, watches: dict[int, UrgentWatch]) -> None:
        self._scheduler = scheduler
        self._watches = watches

    def wait(self, task: Task[Any], trap: UrgentWait) -> None:
        """Park `task` until the trap's file has urgent data."""
        fd = number(trap)
        if isinstance(trap.file, socket.socket):
            check_nonblocking(trap)
        other = self._watches.get(fd)
        if other is not None:
            if other.fileno() != -1:
                raise BusyError(busy(trap, other.task))
            # Its file was closed behind our back, and this one has its number now.
            other.file_closed()
        watch = UrgentWatch(task, trap, fd, self._end)
        try:
            watch.undo = self._scheduler.arm(ReadWait(watch), watch.fired)
        except BaseException:
            watch.close()
            raise
        task.wait = trap
        task.wait_state = self._watches[fd] = watch

    def undo(self, task: Task[Any]) -> None:
        """Take back the wait of `task`."""
        self._take_down(task.wait_state)

    def _end(self, watch: UrgentWatch, error: BaseException | None) -> None:
        """End the wait of a watch's task."""
        self._take_down(watch)
        self._scheduler.make_ready(watch.task, None, error)

    def _take_down(self, watch: UrgentWatch) -> None:
        assert watch.undo is not None
        watch.undo()
        watch.close()
        del self._watches[watch.fd]


class UrgentWatch:
    """A file that can be read when another one has urgent data, or an error to collect.

    When that one is closed, nothing is reported of it any more. Then the watch passes for closed
    too: so the sweep finds it, as it finds files that were closed behind the library's back.
    """

    __slots__ = ("_end", "_epoll", "_identity", "fd", "file", "task", "undo")

    def __init__(
        self,
        task: Task[Any],
        trap: UrgentWait,
        fd: int,
        end: Callable[[UrgentWatch, BaseException | None], object],
    ) -> None:
        if not hasattr(select, "epoll"):
            raise NotImplementedError(
                f"{brief(trap)}: urgent data can be waited for with epoll only, which Linux has; "
                "there any selector will do"
            )
        self.task = task
        self.fd = fd
        self.undo: Callable[[], object] | None = None
        self._end = end
        self.file = trap.file
        self._epoll = select.epoll()
        try:
            self._identity = inode(fd)
            self._epoll.register(fd, select.EPOLLPRI)
        except OSError as exc:
            self._epoll.close()
            raise OSError(exc.errno, f"{brief(trap)}: {exc.strerror}") from None

    def fileno(self) -> int:
        try:
            same = inode(fileno(self.file)) == self._identity
        except OSError:
            same = False
        return self._epoll.fileno() if same else -1

    def fired(self, value: Any = None, error: BaseException | None = None) -> None:
        """End the wait: there are urgent data, or it has failed. The proxy waiter's wake."""
        self._end(self, closed(self.task) if self.fileno() == -1 else error)

    def file_closed(self) -> None:
        """End the wait: the file is being closed, or was."""
        self._end(self, closed(self.task))

    def close(self) -> None:
        self._epoll.close()
        # The undo knows `fired`, and so this watch: they would be a cycle.
        self.undo = None
