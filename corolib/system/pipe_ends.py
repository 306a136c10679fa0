"""Pipes and terminals as streams take them: files with the methods of a socket.

    stream = Stream(Pipe(raw))

Who opens them is in `subprocesses.py` and `stdin.py`; what a stream asks of a file is `Connection`
in `net/streams.py`.
"""

from __future__ import annotations

import errno
import io

from corolib.net.streams import Bytes


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
        if self._raw.closed:
            raise BrokenPipeError(errno.EPIPE, "send_eof() was called")
        sent = self._raw.write(data)
        if sent is None:
            raise BlockingIOError(errno.EAGAIN, "the pipe is full")
        return sent

    def shutdown(self, how: int, /) -> None:
        """Send no more, which is all that this end of a pipe is for."""
        if not self._raw.closed and not self._raw.writable():
            raise io.UnsupportedOperation("this end of a pipe can only be read")
        self._raw.close()

    def close(self) -> None:
        self._raw.close()
