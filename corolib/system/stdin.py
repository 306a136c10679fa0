"""The input of this very program as a stream: `open_stdin`.

A pipe or a terminal is watched by the selector. What it cannot watch (a redirected file, another
user's pipe) is read in a thread. The input and output of other programs are in `subprocesses.py`.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys
from collections.abc import Callable, Generator
from typing import Any

from corolib.coordination.threads import to_thread
from corolib.kernel import (
    ClosedError,
    Suspend,
    Task,
    Wake,
    current_scheduler,
    public,
    spawn,
    with_trace,
)
from corolib.net.streams import CHUNK, Stream
from corolib.system.pipe_ends import Pipe

STDIN = "/proc/self/fd/0"
"""What to open for a new description of the same file."""


@public
def open_stdin() -> Stream:
    """Return a stream that reads the standard input of this program; does not wait.

    `stream = open_stdin()`, then `while line := (yield from stream.readline()): ...`

    The file description of the standard input is shared with the shell, with other programs, and
    on a terminal with our own output. It is left as it is, blocking: a pipe or a terminal is opened
    once more; anything else, and where that is not possible, is read in a thread. So `print()`
    goes on to work, and what is started afterwards finds what it expects.

    Make one for the whole program: what a stream has read, and nobody has asked for, is its own.
    Closing it leaves the standard input itself open.

    Raises:
        OSError: the program has no standard input.

    Example:
        >>> import corolib, sys
        >>> program = '''
        ... import corolib
        ... def main():
        ...     with corolib.open_stdin() as stream:
        ...         while line := (yield from stream.readline()):
        ...             print(line.decode().upper(), end="")
        ... corolib.run(main)
        ... '''
        >>> command = [sys.executable, "-c", program]
        >>> corolib.run(corolib.run_process(command, input=b"a\\nb\\n")).stdout
        b'A\\nB\\n'

    Source: proc(5) on /proc/PID/fd; D. J. Bernstein, "Non-blocking BSD socket connections".
    """
    if sys.__stdin__ is None:
        # The number 0 may be some other file's by now.
        raise OSError(errno.EBADF, "the program has no standard input")
    if stat.S_ISFIFO(os.fstat(0).st_mode) or os.isatty(0):
        try:
            return Stream(Pipe(open(STDIN, "rb", buffering=0, opener=_open_once_more)))
        except OSError:
            # There is no /proc, or the file is another user's.
            pass
    source = ThreadedInput(0)
    return Stream(source, reading=source.reading)


def _open_once_more(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


class ThreadedInput:
    """A file that is read in a thread: one read at a time, and only when somebody waits for it.

    A read goes on when the wait for it is cancelled; what it brings is kept for the next.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = bytearray()
        self._at_end = False
        self._error: Exception | None = None
        # The task that is reading just now.
        self._task: Task[None] | None = None
        # There is one at most: the stream lets nobody else in.
        self._waiter: Wake | None = None

    @property
    def reading(self) -> Suspend[None]:
        """The trap that waits until something was read. Kept here, it would be a cycle."""
        return Suspend(self._arm, f"input from file {self._fd}", outside=True)

    def fileno(self) -> int:
        return self._fd

    def recv(self, most: int, /) -> bytes:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            # The error's traceback holds this frame: they would be a cycle.
            del error
        if not self._data and not self._at_end:
            raise BlockingIOError(errno.EAGAIN, "nothing was read yet")
        # On a terminal more may come after an end.
        self._at_end = False
        data = bytes(self._data[:most])
        del self._data[:most]
        return data

    def send(self, data: object, /) -> int:
        raise io.UnsupportedOperation("this stream can only be read")

    def close(self) -> None:
        self._fd = -1
        if self._waiter is not None:
            self._wake(ClosedError("the stream was closed during the wait"))

    def _arm(self, wake: Wake) -> Callable[[], object]:
        if self._data or self._at_end or self._error:
            wake()
            return self._forget
        self._waiter = wake
        if self._task is None:
            main = current_scheduler().main
            self._task = spawn(self._read, name="stdin", daemon=True, parent=main)
        return self._forget

    def _forget(self) -> None:
        self._waiter = None

    def _wake(self, error: Exception | None = None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter(error=error)

    def _read(self) -> Generator[Any, Any, None]:
        try:
            data = yield from to_thread(_read_blocking, self._fd)
            self._data += data
            self._at_end = not data
        except Exception as exc:
            # Its traceback holds this frame, and so what keeps it.
            with_trace(exc, None)
            self._error = exc
        finally:
            self._task = None
        self._wake()


def _read_blocking(fd: int) -> bytes:
    """Read what there is, and wait for something if there is nothing; in a thread."""
    while True:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            # Whoever started this program has made the file non-blocking.
            select.select([fd], [], [])
