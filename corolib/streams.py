"""Streams: a non-blocking file with a read buffer and methods that are called one after another.

    data = yield from stream.recv(65536)               b"" at the end of the file
    while line := (yield from stream.readline()): ...
    yield from stream.sendall(data)                    waits for the kernel to take it all
    stream.close()

A stream asks four things of its file: `fileno()`, `close()`, and, as of a socket, `recv(most)` and
`send(data)`, which raise BlockingIOError where they would have to wait. `Pipe` gives them to the
ends of pipes and to terminals. Who opens the file is no matter of this module's.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from corolib.errors import BusyError, ClosedError
from corolib.reports import where
from corolib.running import close, current_task, register, tired
from corolib.traps import ReadWait, Suspend, WriteWait, file_name, waits

if TYPE_CHECKING:
    from corolib.task import Task

Bytes = bytes | bytearray | memoryview

CHUNK = 65536  # bytes asked for at once: what a pipe holds, and a large socket buffer's worth
LINE = 65536  # bytes that a line may have: enough for any header, little against a memory


class LimitExceeded(ValueError):
    """Raised when a line, or the output of a program, is longer than its limit.

    `limit` is what was allowed, `seen` how many bytes had come by then.
    """

    def __init__(self, message: str, limit: float, seen: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.seen = seen


class Connection(Protocol):
    """What a stream asks of its file."""

    def fileno(self) -> int: ...
    def recv(self, most: int, /) -> bytes: ...
    def send(self, data: Bytes, /) -> int: ...
    def close(self) -> None: ...


class Pipe:
    """The end of a pipe, or a terminal: a raw, non-blocking file with the methods of a socket.

    It owns the file. A `Pipe` that is dropped open warns and closes, as every file does.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw

    def fileno(self) -> int:
        return -1 if self._raw.closed else self._raw.fileno()

    def recv(self, most: int, /) -> bytes:
        data = self._raw.read(most)
        if data is None:
            raise BlockingIOError(errno.EAGAIN, "the pipe is empty")
        return data

    def send(self, data: Bytes, /) -> int:
        sent = self._raw.write(data)
        if sent is None:
            raise BlockingIOError(errno.EAGAIN, "the pipe is full")
        return sent

    def close(self) -> None:
        self._raw.close()


class Stream:
    """A file read and written in sequence: `recv`, `readline`, `sendall`, `close`.

    Made by `open_process()` and `open_stdin()`. `with stream:` closes it at the end of the block;
    `async for line in stream:` reads lines. One task may read while another writes; a second one
    in the same direction gets `BusyError`.

    Every operation that succeeds without waiting gives way now and then, so a task with endless
    data starves no other.

    Args:
        file: a non-blocking file with `fileno()`, `recv()`, `send()`, `close()`. The stream owns
            it from here on.
        reading: the trap that waits until `recv()` may succeed, if it is not `ReadWait(file)`.

    Example:
        >>> import corolib, socket
        >>> def main():
        ...     a, b = socket.socketpair()
        ...     a.setblocking(False)
        ...     b.setblocking(False)
        ...     with Stream(a) as left, Stream(b) as right:
        ...         yield from left.sendall(b"two\\nlines\\n")
        ...         return (yield from right.readline())
        >>> corolib.run(main)
        b'two\\n'

    Source: curio's and trio's streams.
    """

    __slots__ = (
        "_buffer",
        "_drained",
        "_file",
        "_reader",
        "_reading",
        "_recv",
        "_send",
        "_writer",
        "_writing",
    )

    def __init__(self, file: Connection, *, reading: Suspend[Any] | None = None) -> None:
        self._file = file
        self._recv = file.recv
        self._send = file.send
        # The traps are made once: making one at each wait costs a fifth of a small echo.
        self._reading = ReadWait(file) if reading is None else reading
        self._writing = WriteWait(file)
        self._buffer = bytearray()  # what readline() has read too much
        # Whether the last read emptied the file: then a read waits first, else it tries first.
        # True whenever a task waits, so that a second reader waits too, and gets its BusyError.
        self._drained = True
        self._reader: Task[Any] | None = None  # in the middle of a line
        self._writer: Task[Any] | None = None  # in the middle of a sendall()

    @waits
    def recv(self, most: int) -> Generator[Any, Any, bytes]:
        """Wait for data, and return at most `most` bytes of it: `b""` at the end of the file.

        Less than `most` does not mean that there is no more.

        Raises:
            BusyError: another task reads from this stream.
            ClosedError: the stream is closed, or was closed during the wait.
            ValueError: `most` is less than 1, which would look like the end of the file.
            OSError: as the operating system says.
            Cancelled: the wait was interrupted; nothing was read.
        """
        if most < 1:
            raise ValueError(f"recv({most}) could only return b'', as at the end of the file")
        if self._reader is not None:
            raise BusyError(f"recv() from {self!r}: {_busy(self._reader)} reading a line from it")
        if self._buffer and tired():
            yield
        if self._buffer:
            return self._take(most)
        while True:
            if self._drained or tired():
                self._drained = True
                yield self._reading
            try:
                data = self._recv(most)
            except BlockingIOError:
                self._drained = True
                continue
            self._drained = len(data) < most
            return data

    @waits
    def readline(self, limit: int = LINE) -> Generator[Any, Any, bytes]:
        """Wait for a line, and return it with its `\\n`: `b""` at the end of the file.

        What the file ends with counts as a line, also without a `\\n`.

        Args:
            limit: bytes that the line may have, the `\\n` included.

        Raises:
            LimitExceeded: the line is longer. What was read of it is kept for `recv()`.
            BusyError, ClosedError, OSError: as for `recv()`.
            Cancelled: the wait was interrupted; what was read of the line is kept.
        """
        if self._reader is not None:
            raise BusyError(f"readline() from {self!r}: {_busy(self._reader)} reading one already")
        buffer = self._buffer
        if buffer and tired():
            yield
        end = buffer.find(b"\n")
        if end < 0:
            end = yield from self._read_to_newline(limit)
        if end >= limit:
            raise _too_long(self, limit, end + 1)
        return self._take(end + 1)

    def _read_to_newline(self, limit: int) -> Generator[Any, Any, int]:
        """Read until the buffer has a whole line; return where that ends. No byte is searched
        twice.
        """
        buffer = self._buffer
        self._reader = current_task()
        try:
            while True:
                searched = len(buffer)
                if searched >= limit:
                    raise _too_long(self, limit, searched)
                if self._drained or tired():
                    self._drained = True
                    yield self._reading
                try:
                    data = self._recv(CHUNK)
                except BlockingIOError:
                    self._drained = True
                    continue
                self._drained = len(data) < CHUNK
                if not data:
                    return searched - 1
                buffer += data
                end = buffer.find(b"\n", searched)
                if end >= 0:
                    return end
        finally:
            self._reader = None

    def _take(self, most: int) -> bytes:
        buffer = self._buffer
        data = bytes(buffer[:most])
        del buffer[:most]  # moves the beginning of a bytearray, not its bytes
        return data

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    @waits
    def sendall(self, data: Bytes) -> Generator[Any, Any, None]:
        """Wait until the kernel has taken all of `data`.

        Nothing is kept here: when this returns, the data is on its way, although not yet read.

        Raises:
            BusyError: another task is sending to this stream.
            ClosedError: the stream is closed, or was closed during the wait.
            BrokenPipeError, ConnectionResetError: nobody will read it.
            Cancelled: the wait was interrupted.

            All of them have `bytes_sent`: how much had been taken by then. So has the
            `__cause__` of a `TimeoutError` that a `timeout()` around this makes of its `Cancelled`.
        """
        if self._writer is not None:
            raise BusyError(f"sendall() to {self!r}: {_busy(self._writer)} sending to it")
        rest: Bytes = data
        if type(data) is not bytes:
            rest = memoryview(data)
            rest = rest.cast("B") if rest.nbytes else b""
        sent = 0
        try:
            if tired():
                self._writer = current_task()
                yield self._writing
            while True:
                try:
                    count = self._send(rest)
                except BlockingIOError:
                    count = 0
                sent += count
                if count == len(rest):
                    return
                rest = memoryview(rest)[count:]
                self._writer = current_task()
                yield self._writing
        except BaseException as exc:
            exc.bytes_sent = sent  # type: ignore[attr-defined]
            raise
        finally:
            self._writer = None
            del rest  # a traceback may keep this frame, and must not keep a bytearray locked

    def close(self) -> None:
        """Close the file; does not wait. Tasks that wait for it get `ClosedError`."""
        self._recv = self._send = self._refuse
        self._buffer.clear()
        if register.scheduler is not None and type(self._reading) is ReadWait:
            close(self._file)
        else:  # nobody waits any more: the run is over; or the file wakes its waiters itself
            self._file.close()

    def _refuse(self, _: object, /) -> Any:
        raise ClosedError(f"{self!r} is closed")

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Stream over {file_name(self._file)}>"


def _busy(task: Task[Any]) -> str:
    return f"task {task.label} ({where(task)}) is"


def _too_long(stream: Stream, limit: int, seen: int) -> LimitExceeded:
    text = f"{stream!r}: a line has more than {limit} bytes, {seen} so far; recv() still gets them"
    return LimitExceeded(text, limit, seen)
