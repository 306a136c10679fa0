"""The call queue: calls that other threads and signal handlers leave for the scheduler.

A call is first put into the queue, and then announced in a file that the selector watches. A full
file is success, for then a wake-up is on its way already. `append` and `popleft` of a deque are
atomic. So nothing here takes a lock, and a signal handler may interrupt anything. Calls may be left
before the files are there: who opens them looks at the queue before it waits.

There are two such files. Signals are announced by Python itself, which writes a byte for each:
`signal.set_wakeup_fd` takes a socket on every system, and so a pair of them. For calls a pair will
do too. But where the system has an `eventfd`, that is used: to write it needs no memory, and one
read takes off whatever was announced.

What the calls do is not known here, and neither are tasks. When they are made is said in
`scheduler.py`.
"""

from __future__ import annotations

import io
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from corolib.kernel.errors import RunFinished

ONE = (1).to_bytes(8, sys.byteorder)
"""What is written: an `eventfd` takes 8 bytes, which are a number that it adds to its own."""

AGAIN = 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1
"""Seconds between the tries to announce a call for which the system has no memory just now."""


class WakeupPair:
    """Two connected sockets: the one can be read when something was written to the other."""

    SIZE = 4096
    """Bytes to read at once. If there are more, the next turn reads them."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """Return the number to watch."""
        return self._reader.fileno()

    def wakeup_fd(self) -> int:
        """Return the number to which `signal.set_wakeup_fd` may write."""
        return self._writer.fileno()

    def write(self, data: bytes) -> object:
        """Write, unless it is full: then it can be read all the same."""
        try:
            return self._writer.send(data)
        except BlockingIOError:
            return None

    def read(self, size: int = SIZE) -> object:
        """Read what was written, if there is anything."""
        try:
            return self._reader.recv(size)
        except BlockingIOError:
            return None

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class WakeupEvent(io.FileIO):
    """An `eventfd`: a number in the kernel, which can be read when it is not 0, and then is.

    It is closed when nobody refers to it any more. A thread that writes refers to it meanwhile: so
    what it writes never gets into another file, which has been given the same number.
    """

    SIZE = 8

    def __init__(self) -> None:
        super().__init__(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), "r+")

    # That of FileIO would warn.
    __del__ = io.FileIO.close


class CallQueue:
    """Calls to make, oldest first, and the files that announce them and signals."""

    def __init__(self) -> None:
        self.calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.opened = self.closed = False
        # Nobody waits yet who would have to be told.
        self._announced = True
        self._pair: WakeupPair
        self._file: WakeupPair | WakeupEvent
        self._write: Callable[[bytes], object]
        self._read: Callable[[int], object]

    def open(self) -> None:
        """Make the files, if there are none."""
        if not self.opened:
            pair = WakeupPair()
            try:
                self._file = WakeupEvent() if hasattr(os, "eventfd") else pair
            except BaseException:
                pair.close()
                raise
            self._pair = pair
            self._write, self._read = self._file.write, self._file.read
            self.opened = True
            self._announced = False

    def files(self) -> dict[int, Callable[[], object]]:
        """Return the numbers to watch for reading, each with what takes the announcements off."""
        return {self._pair.fileno(): self._pair.read, self._file.fileno(): self.drain}

    def wakeup_fd(self) -> int:
        """Return the number to which `signal.set_wakeup_fd` may write."""
        return self._pair.wakeup_fd()

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
                self._write(ONE)
            except OSError:
                self._announce_later()

    def _announce_later(self) -> None:
        """Announce a call that the system could not have announced just now."""
        for pause in AGAIN:
            time.sleep(pause)
            with suppress(OSError):
                self._write(ONE)
                return
        # The next one tries again.
        self._announced = False

    def wake_loop(self) -> None:
        """End the wait of the loop, or of a loop around it: something has come that it must see."""
        self.put(int, ())

    def check_open(self) -> None:
        """Raise RunFinished if nobody will make calls any more."""
        if self.closed:
            raise RunFinished

    def drain(self) -> None:
        """Take the announcements of calls off; who drains looks at `calls` afterwards.

        The file is emptied before the mark is taken away. A call that still finds the mark is in
        `calls` by then, and one that comes later announces itself. The mark also goes if a signal
        handler of the program's raises here, or if the system has no memory for it just now.
        """
        try:
            self._read(self._file.SIZE)
        finally:
            self._announced = False

    def drain_if_announced(self) -> None:
        """Drain, if a call was announced: to find out otherwise takes a system call."""
        if self._announced:
            with suppress(OSError):
                self.drain()

    def close(self) -> None:
        """Take no more calls. Those left before stay in `calls`."""
        self.closed = True
        if self.opened:
            # These are the references to an eventfd: see there. Those in their place do nothing.
            self._file, self._write, self._read = self._pair, len, repr
            self._pair.close()
