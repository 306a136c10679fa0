"""The call queue: calls that other threads and signal handlers leave for the scheduler.

A call is first put into the queue, and then announced: by a byte in a socket pair that the selector
watches. A full pair is success, for then a wake-up is on its way already. `append` and `popleft` of
a deque are atomic. So nothing here takes a lock, and a signal handler may interrupt anything. Calls
may be left before the pair is there: who opens it looks at the queue before it waits.

What the calls do is not known here, and neither are tasks. When they are made is said in
`scheduler.py`.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from corolib.kernel.errors import RunFinished


class CallQueue:
    """Calls to make, oldest first, and the socket pair that announces them."""

    def __init__(self) -> None:
        self.calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.opened = self.closed = False
        # Nobody waits yet who would have to be told.
        self._announced = True
        self._reader: socket.socket
        self._writer: socket.socket

    def open(self) -> None:
        """Make the socket pair, if there is none."""
        if not self.opened:
            self._reader, self._writer = socket.socketpair()
            self.opened = True
            self._reader.setblocking(False)
            self._writer.setblocking(False)
            self._announced = False

    def fileno(self) -> int:
        """Return the number that can be read when something was announced."""
        return self._reader.fileno()

    def wakeup_fd(self) -> int:
        """Return the number to which `signal.set_wakeup_fd` may write."""
        return self._writer.fileno()

    def put(self, f: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Leave a call, from any thread; RunFinished if nobody will make it any more.

        That is asked after the call was put, too: who closes looks at the queue once more.
        """
        if not self.closed:
            self.calls.append((f, args))
        if self.closed:
            raise RunFinished
        if not self._announced:
            self._announced = True
            try:
                self._writer.send(b"\0")
            except OSError:
                # The pair is full, or is being closed at this moment.
                pass

    def wake_loop(self) -> None:
        """End the wait of the loop, or of a loop around it: something has come that it must see."""
        self.put(int, ())

    def check_open(self) -> None:
        """Raise RunFinished if nobody will make calls any more."""
        if self.closed:
            raise RunFinished

    def drain(self) -> None:
        """Take the announcements off; who drains looks at `calls` afterwards.

        The pair is emptied before the mark is taken away. A call that still finds the mark is in
        `calls` by then, and one that comes later announces itself. The mark also goes if a signal
        handler of the program's raises here.
        """
        try:
            while self._reader.recv(4096):
                pass
        except BlockingIOError:
            pass
        finally:
            self._announced = False

    def drain_if_announced(self) -> None:
        """Drain, if something was announced: to find out otherwise takes a system call."""
        if self._announced:
            self.drain()

    def close(self) -> None:
        """Take no more calls. Those left before stay in `calls`."""
        self.closed = True
        if self.opened:
            self._reader.close()
            self._writer.close()
