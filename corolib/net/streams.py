"""Streams: a non-blocking file with a read buffer and methods that are called one after another.

    data = yield from stream.recv(65536)               b"" at the end of the file
    while line := (yield from stream.readline()): ...
    body = yield from stream.readexactly(length)
    yield from stream.sendall([head, body])            waits for the kernel to take it all
    yield from stream.aclose()                         lets the other side read what was sent
    stream.close()                                     at once

A stream asks little of its file: `Connection`. Sockets have it; `tls.TLS` gives it to a file below
it, and `Pipe`, in `system/pipe_ends.py`, to the ends of pipes and to terminals. Who opens the file
is no matter of this module's.

Reading and sending are two halves that know nothing of each other. Each has a short way for what
servers do all day, `recv()`, `readline()` and `sendall()` of one message, where every instruction
counts, and a general one for everything else.
"""

from __future__ import annotations

import errno
import io
import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from corolib.coordination.timeouts import move_on_after
from corolib.kernel import (
    BusyError,
    ClosedError,
    LateModule,
    ReadWait,
    Scheduler,
    Suspend,
    Task,
    WriteWait,
    brief,
    check_count,
    class_name,
    current_scheduler,
    current_task,
    file_name,
    must_yield,
    name_of,
    public,
    running_scheduler,
    waits,
    where,
)
from corolib.net.network import PeerCredentials, Socket, not_sent, peer_credentials, reset, unsent
from corolib.net.tls import HANDSHAKE, TLS, has_failed

if TYPE_CHECKING:
    import ssl
else:
    ssl = LateModule("ssl")

Bytes = bytes | bytearray | memoryview
Data = Bytes | list[Bytes] | tuple[Bytes, ...]

CHUNK = 65536
"""Bytes asked for at once: what a pipe holds, and as much as a large socket buffer."""

LINE = 65536
"""Bytes that a line may have: enough for any header, little against a memory."""

PIECES = 1024
"""Buffers for one call of the system's: IOV_MAX of Linux and the BSDs."""

WINDOW = 256
"""Bytes searched for all separators before those behind are searched for any."""

PAST_END = 1000
"""How often a stream may be read after its end: more is a loop that does not look for the end."""

DRAIN = 5.0
"""Seconds in which something has to move until the other side closes: some lost segments."""

DRAIN_LIMIT = 60.0
"""Seconds for that in all: twenty megabytes to somebody slow."""

NOT_HERE = (errno.EINVAL, errno.ENOSYS, errno.EOVERFLOW, errno.ENOTSOCK)
"""What `os.sendfile()` fails with where it cannot do it for these two files."""


@public
class LimitExceeded(ValueError):
    """Raised when a line, a message, or the output of a program, is longer than its limit.

    `limit` is what was allowed, `seen` how many bytes had come by then.
    """

    def __init__(self, message: str, limit: float, seen: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.seen = seen

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.limit, self.seen), vars(self)


@public
class IncompleteRead(EOFError):
    """Raised when a file ends in the middle of a message.

    `expected` is how many bytes it should have had (None: up to a separator), `partial` those that
    came; they are no longer in the stream.
    """

    def __init__(self, message: str, expected: int | None, partial: bytes) -> None:
        super().__init__(message)
        self.expected = expected
        self.partial = partial

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.expected, self.partial), vars(self)


class Connection(Protocol):
    """What a stream asks of its file. `recv` and `send` raise BlockingIOError where they would have
    to wait. As of a socket it may have `recv_into`, `sendmsg`, `shutdown`, `getpeername` and
    `getsockname` too; and traps of its own, `reading` and `writing`, if `ReadWait` and `WriteWait`
    do not tell when it is ready. Then it also wakes its waiters itself when it is closed. Where
    `reading` may be None there is `waiting()`, which returns the trap.
    """

    def fileno(self) -> int: ...
    def recv(self, most: int, /) -> bytes: ...
    def send(self, data: Bytes, /) -> int: ...
    def close(self) -> None: ...


@public
class Stream:
    """A connection, read and written in sequence: `recv`, `readline`, `sendall`, `aclose`.

    Made by `open_tcp()`, `open_unix()`, `open_process()`, `open_stdin()` and by servers. `with
    stream:` closes it at the end of the block; `async for line in stream:` reads lines. One task
    may read while another writes; a second one in the same direction gets `BusyError`.

    Operations that succeed without waiting give way now and then, so a task with endless data
    starves no other. Data that was read and not yet returned is kept: an operation that is
    cancelled, or finds a message too long, loses nothing.

    Args:
        file: a non-blocking file with `fileno()`, `recv()`, `send()`, `close()`: a socket, or see
            `Connection`. The stream owns it from here on.
        reading: the trap that waits until `recv()` may succeed, if it is not `ReadWait(file)`.
        peer: the address of the other side, if it is known already.

    Attributes:
        max_line: the bytes that a line may have where no other limit is given.
        max_message: the same of a message, for `readexactly()` and `readuntil()`. None: what
            `readexactly()` is asked for is not bounded, and `readuntil()` by `max_line`.
        ended: True once the end of the file was read.
        server: the server that has accepted the connection, or None.
        moved: set to True when data came, to 1 when it went, and never back to False: for who
            watches idle connections. (A `sendall()` right after data came need not give way.)

    Raises:
        ValueError: the socket is blocking: one call would stop every task.

    Example:
        >>> import corolib, socket
        >>> def main():
        ...     a, b = socket.socketpair()
        ...     a.setblocking(False)
        ...     b.setblocking(False)
        ...     with corolib.Stream(a) as left, corolib.Stream(b) as right:
        ...         yield from left.sendall(b"two\\nlines\\n")
        ...         return (yield from right.readline())
        >>> corolib.run(main)
        b'two\\n'

    Source: curio's and trio's streams.
    """

    __slots__ = (
        "_between",
        "_buffer",
        "_calm",
        "_drained",
        "_file",
        "_home",
        "_past",
        "_peer",
        "_reader",
        "_reading",
        "_writer",
        "ended",
        "max_line",
        "max_message",
        "moved",
        "server",
    )

    def __init__(
        self, file: Connection, *, reading: Suspend[Any] | None = None, peer: Any = None
    ) -> None:
        if isinstance(file, socket.socket) and file.gettimeout() != 0:
            text = "the socket is blocking; call setblocking(False) first"
            raise ValueError(f"Stream({file_name(file)}): {text}")
        self._file: Any = file
        # Made once: to make it at each wait costs a tenth of a small echo. With None the file is
        # asked for it.
        self._reading: Any = ReadWait(file) if reading is None else reading
        # The scheduler whose `budget` the short ways count; see `must_yield()`.
        self._home: Scheduler | None = None
        # What was read, and nobody has asked for.
        self._buffer = bytearray()
        # Whether a read waits first, else it tries first: the last may not have emptied the file,
        # and to wait for a socket, which is registered once, costs less than to try in vain.
        self._drained = True
        # The task that is in the middle of a message, and the one in the middle of a sendall().
        self._reader: Task[Any] | None = None
        self._writer: Task[Any] | None = None
        # Drained, nothing buffered, no reader: recv() goes the short way. While one does so this is
        # False, so of all four exactly that says that somebody reads and has left no name.
        self._calm = True
        # Whether somebody waits for a message that has not begun: in more().
        self._between = False
        self._peer = peer
        # How often it was read after its end.
        self._past = 0
        self.ended = False
        self.max_line = LINE
        self.max_message: float | None = None
        self.moved: int = False
        self.server: Any = None

    # Reading --------------------------------------------------------------------------------------

    @waits
    def recv(self, most: int) -> Generator[Any, Any, bytes]:
        """Wait for data, and return at most `most` bytes of it: `b""` at the end of the file.

        Less than `most` does not mean that there is no more.

        Raises:
            BusyError: another task reads from this stream.
            ClosedError: the stream is closed, or was closed during the wait.
            ValueError: `most` is less than 1, which would look like the end of the file.
            RuntimeError: it was read a thousand times after its end.
            OSError: as the operating system says.
            Cancelled: the wait was cancelled; nothing was read.
        """
        if self._calm and most > 0:
            # Meanwhile nobody else reads: see `_Reading`.
            self._calm = False
            try:
                yield self._reading or self._file.reading
                data: bytes = self._file.recv(most)
            except BaseException as exc:
                self._calm = True
                if not isinstance(exc, BlockingIOError):
                    raise
            else:
                if len(data) == most and not self._tells_all():
                    self._drained = False
                else:
                    self._calm = True
                if data:
                    self.moved = True
                elif self.ended:
                    self._read_past_end()
                else:
                    self.ended = True
                return data
        return (yield from self._recv(most))

    def _tells_all(self) -> bool:
        """Return whether the selector tells of all that is there to read: it does of a socket, if
        the class has no `recv()` of its own, behind which data may be kept.
        """
        plain = getattr(type(self._file), "recv", None) is socket.socket.recv
        return plain and self._reading is not None and self._reading.entry is not None

    def _recv(self, most: int) -> Generator[Any, Any, bytes]:
        """Do what `recv()` does, the general way."""
        if most < 1:
            raise ValueError(f"recv({most}) could only return b'', as at the end of the file")
        with _Reading(self, "recv()"):
            if self._buffer and must_yield():
                yield
            data: bytes = self._take(most) or (yield from self._read(most))
            return data

    @waits
    def recv_into(self, buffer: bytearray | memoryview) -> Generator[Any, Any, int]:
        """Wait for data, put it into `buffer`, and return how many bytes: 0 at the end of the file.

        Raises:
            ValueError: the buffer has no room, so that 0 would look like the end of the file.
            BusyError, ClosedError, OSError, Cancelled: as for `recv()`.
        """
        with memoryview(buffer) as view, view.cast("B") as room, _Reading(self, "recv_into()"):
            if room.readonly:
                raise TypeError(f"recv_into() of {class_name(buffer)}: give it a bytearray")
            if not room:
                raise ValueError("recv_into() of an empty buffer could only return 0")
            if self._buffer and must_yield():
                yield
            if self._buffer or not hasattr(self._file, "recv_into"):
                data = self._take(len(room)) or (yield from self._read(len(room)))
                room[: len(data)] = data
                return len(data)
            size: int = yield from self._read(len(room), room)
            return size

    def _read(self, most: int, room: memoryview | None = None) -> Generator[Any, Any, Any]:
        """Wait for data of the file; return it, or put it into `room` and return how much it is."""
        while True:
            try:
                if self._drained or must_yield():
                    yield self._reading or self._file.reading or self._file.waiting()
                if room is None:
                    data = self._file.recv(most)
                    size = len(data)
                else:
                    data = size = self._file.recv_into(room)
            except BlockingIOError:
                self._drained = True
                continue
            self._drained = size < most
            if size:
                self.moved = True
            elif self.ended:
                self._read_past_end()
            else:
                self.ended = True
            return data

    def _read_past_end(self) -> None:
        """Stop a loop that does not look for the end: it would keep the processor busy for ever."""
        self._past += 1
        if self._past >= PAST_END:
            raise RuntimeError(
                f"the peer of {self!r} sends no more, and it was read {PAST_END} times since: "
                "leave the loop at the end of the data: `if not data: return`"
            )

    def _fill(self) -> Generator[Any, Any, bool]:
        """Wait for data of the file, and put it into the buffer; return False at its end."""
        data = yield from self._read(CHUNK)
        self._buffer += data
        return bool(data)

    def _take(self, most: int) -> bytes:
        buffer = self._buffer
        data = bytes(buffer[:most])
        # This moves the beginning of a bytearray, and not its bytes.
        del buffer[:most]
        return data

    @waits
    def more(self) -> Generator[Any, Any, bool]:
        """Wait until there is something to read; return False at the end of the file.

        So that the time between two requests does not count as part of one:
        `while (yield from stream.more()): with timeout(10): line = yield from stream.readline()`.

        Raises:
            BusyError, ClosedError, OSError: as for `recv()`.
            Cancelled: the wait was cancelled; nothing is lost.
        """
        with _Reading(self, "more()"):
            if self._buffer and must_yield():
                yield
            if self._buffer:
                return True
            self._between = True
            try:
                return (yield from self._fill())
            finally:
                self._between = False

    @waits
    def readexactly(self, count: int, limit: float | None = None) -> Generator[Any, Any, bytes]:
        """Wait for exactly `count` bytes, and return them.

        By default, any number. If the other side has said it, give a limit.

        Args:
            limit: bytes that they may be; by default `max_message`.

        Raises:
            LimitExceeded: it is more; nothing was read.
            IncompleteRead: the file ended before; it has what came.
            ValueError: `count` is less than 0. TypeError: it is no whole number.
            BusyError, ClosedError, OSError: as for `recv()`.
            Cancelled: the wait was cancelled; what was read is kept.
        """
        check_count(count, "readexactly()", 0)
        limit = self.max_message if limit is None else limit
        if limit is not None and count > _checked(limit, "message"):
            text = f"{self!r}: a message has {count} bytes, more than {limit}"
            raise LimitExceeded(text, limit, len(self._buffer))
        with _Reading(self, "readexactly()"):
            if len(self._buffer) >= count and must_yield():
                yield
            while len(self._buffer) < count:
                if not (yield from self._fill()):
                    text = f"{self!r} ended after {len(self._buffer)} of {count} bytes"
                    raise IncompleteRead(text, count, self._take(count))
            return self._take(count)

    @waits
    def readline(self, limit: float | None = None) -> Generator[Any, Any, bytes]:
        """Wait for a line, and return it with its `\\n`: `b""` at the end of the file.

        The last line counts as one also without a `\\n`.

        Args:
            limit: bytes that the line may have, the `\\n` included; by default `max_line`.

        Raises:
            LimitExceeded: the line is longer. What was read of it is kept for `recv()`.
            BusyError, ClosedError, OSError: as for `recv()`.
            Cancelled: the wait was cancelled; what was read of the line is kept.
        """
        if limit is None:
            buffer, home = self._buffer, self._home
            if self._calm:
                data = yield from self.recv(CHUNK)
                end = data.find(b"\n") + 1
                # This is what most clients send, one line; or nothing, at the end.
                if end == len(data) <= self.max_line:
                    return data
                buffer += data
                self._calm = False
            elif (
                self._reader is None
                and home is not None
                and (home.budget > 1 or home.pace.allows(home))
            ):
                # As `_has_budget()` does, without the call.
                home.budget -= 1
                end = buffer.find(b"\n") + 1
            else:
                end = 0
            if 0 < end <= self.max_line:
                line = bytes(buffer[:end])
                del buffer[:end]
                if not buffer:
                    self._calm = self._drained
                return line
        with _Reading(self, "readline()"):
            if limit is None:
                limit = self.max_line
            return self._take((yield from self._find((b"\n",), limit, "line")))

    @waits
    def readuntil(
        self, *separators: bytes, limit: float | None = None
    ) -> Generator[Any, Any, bytes]:
        """Wait for the first of the separators; return what comes before it, and it as well.

        `head = yield from stream.readuntil(b"\\r\\n\\r\\n")`. Returns `b""` at the end of the file,
        if nothing is left before that. Of several separators that one counts which ends first.

        Args:
            limit: bytes that the message may have, the separator included; by default
                `max_message`, or if that is None, `max_line`.

        Raises:
            LimitExceeded: the message is longer. What was read of it is kept for `recv()`.
            IncompleteRead: the file ended in the middle of it; the error has what came.
            ValueError: there is no separator, or an empty one. TypeError: one is not bytes.
            BusyError, ClosedError, OSError: as for `recv()`.
            Cancelled: the wait was cancelled; what was read is kept.
        """
        if not all(isinstance(each, bytes) for each in separators):
            text = "separators are bytes, each an argument of its own; a limit is limit="
            raise TypeError(f"readuntil{brief(separators)}: {text}")
        if not all(separators) or not separators:
            raise ValueError(f"readuntil{brief(separators)}: give separators, none of them empty")
        if limit is None:
            limit = self.max_line if self.max_message is None else self.max_message
        with _Reading(self, "readuntil()"):
            data = self._take((yield from self._find(separators, limit, "message")))
            if data and not data.endswith(separators):
                text = f"{self!r} ended before a separator, {len(data)} bytes after the last"
                raise IncompleteRead(text, None, data)
            return data

    def _find(
        self, separators: tuple[bytes, ...], limit: float, what: str
    ) -> Generator[Any, Any, int]:
        """Read until the buffer has a separator; return where it ends, or where the file does."""
        _checked(limit, what)
        buffer = self._buffer
        if buffer and must_yield():
            yield
        searched = 0
        while True:
            end = _end_of_first(separators, buffer, searched)
            searched = len(buffer)
            seen = end or searched
            if seen > limit:
                text = f"{self!r}: a {what} has more than {limit} bytes, {seen} so far"
                more = f"limit= of the call, or max_{what}= of its server, allows more"
                raise LimitExceeded(f"{text}: {more}; recv() still gets them", limit, seen)
            if end or not (yield from self._fill()):
                return seen

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    # Sending --------------------------------------------------------------------------------------

    @waits
    def sendall(self, data: Data) -> Generator[Any, Any, None]:
        """Wait until the kernel has taken all of `data`: bytes, or a list of several buffers.

        Nothing is kept here: when this returns, the data is on its way, although not yet read.

        Raises:
            BusyError: another task is sending to this stream.
            ClosedError: the stream is closed, or was closed during the wait.
            BrokenPipeError, ConnectionResetError: nobody will read it.
            ssl.SSLError: under TLS, the other side has said why it does not, by an alert.
            Cancelled: the wait was cancelled.

            All of them have `bytes_sent`: how much of it all had been taken by then. So has the
            `TimeoutError` that a `timeout()` around this makes of its `Cancelled`. What follows
            them may be sent next. Under TLS that is what has been made into records; the last of
            these may still have to leave, which the next operation sees to.
        """
        if (
            self._writer is None
            and type(data) is bytes
            and (self.moved is True or (data and self._has_budget()))
        ):
            try:
                sent = self._file.send(data)
            except BlockingIOError:
                sent = 0
            except BaseException as exc:
                exc.bytes_sent = _settle(self._file)  # type: ignore[attr-defined]
                raise
            if sent == len(data):
                self.moved = 1
                return
            yield from self._sendall(data, sent)
        else:
            yield from self._sendall(data, None)

    def _has_budget(self) -> bool:
        """Return whether an operation may go the short way: none has to give way by now.

        It counts as `must_yield()` does, at a fifth of its price. The general way gives way, and
        sets `_home` right, which another run or thread has left wrong for so many operations at
        most.
        """
        home = self._home
        if home is None:
            return False
        if home.budget > 1:
            home.budget -= 1
            return True
        return home.pace.allows(home)

    def _sendall(self, data: Data, sent: int | None) -> Generator[Any, Any, None]:
        """Do what `sendall()` does, the general way; of `data`, `sent` bytes are gone, if any were
        offered.
        """
        rest: deque[memoryview] = deque()
        with _Sending(self, "sendall()") as sending:
            try:
                rest.extend(_views(data))
                if sent is not None:
                    sending.took(sent, rest)
                    yield sending.trap()
                elif not rest and must_yield():
                    yield
                yield from self._push(sending, rest)
            finally:
                # A traceback may keep this frame, and must not keep buffers locked.
                rest.clear()

    def _push(self, sending: _Sending, rest: deque[memoryview]) -> Generator[Any, Any, None]:
        """Send the buffers `rest`, and take from it what was sent."""
        while rest:
            if must_yield() or not self._offer(sending, rest):
                yield sending.trap()

    def _offer(self, sending: _Sending, rest: deque[memoryview]) -> bool:
        """Let the file take from the buffers `rest`; return whether it may take more at once."""
        file = self._file
        several = len(rest) > 1 and hasattr(file, "sendmsg")
        batch = list(islice(rest, PIECES if several else 1))
        size = sum(map(len, batch))
        try:
            count = file.sendmsg(batch) if several else file.send(batch[0])
        except BlockingIOError:
            count = 0
        finally:
            # As in `_sendall`: no buffer stays locked.
            batch.clear()
        sending.took(count, rest)
        return bool(count == size)

    @waits
    def sendfile(
        self, file: Any, offset: int = 0, count: int | None = None
    ) -> Generator[Any, Any, int]:
        """Wait until the kernel has taken what an open file has; return how many bytes it was.

        On a plain socket they do not come into this program at all. A slow disk stops the loop, as
        with every other way to read a file but a thread. The position of the file is neither used
        nor changed.

        Args:
            file: a regular file, open for reading in binary mode.
            offset: where to begin.
            count: how many bytes; by default, and at most, up to its end.

        Raises:
            ValueError: `offset` or `count` is less than 0. TypeError: this is no open file.
            BusyError, ClosedError, OSError, Cancelled: as for `sendall()`, with `bytes_sent`.
        """
        if offset < 0 or (count is not None and count < 0):
            what = f"sendfile(offset={brief(offset)}, count={brief(count)})"
            raise ValueError(f"{what}: that is less than nothing")
        _check_on_disk(file)
        direct = isinstance(self._file, socket.socket) and hasattr(os, "sendfile")
        with _Sending(self, "sendfile()") as sending:
            while count is None or sending.sent < count:
                if must_yield():
                    yield sending.trap()
                at = offset + sending.sent
                most = CHUNK if count is None else min(CHUNK, count - sending.sent)
                if not direct:
                    data = os.pread(file.fileno(), most, at)
                    if not data:
                        break
                    yield from self._push(sending, deque([memoryview(data)]))
                    continue
                try:
                    size = os.sendfile(self._file.fileno(), file.fileno(), at, most)
                except (BlockingIOError, ClosedError):
                    yield sending.trap()
                except OSError as exc:
                    if exc.errno not in NOT_HERE:
                        raise
                    direct = False
                else:
                    if not size:
                        break
                    sending.took(size)
            return sending.sent

    @waits
    def send_eof(self) -> Generator[Any, Any, None]:
        """Wait until the end of what is sent can be announced; reading goes on.

        A pipe is closed by it. Under TLS it is a `close_notify`.

        Raises:
            BusyError: another task is sending to this stream.
            ClosedError: the stream is closed, or was closed during the wait.
            OSError: as the operating system says: there is no connection any more.
            io.UnsupportedOperation: the file has one direction only.
            Cancelled: the wait was cancelled. It may be called again.
        """
        with _Sending(self, "send_eof()") as sending:
            if not hasattr(self._file, "shutdown"):
                raise io.UnsupportedOperation(f"{self!r} can only be read")
            while True:
                if must_yield():
                    yield sending.trap()
                try:
                    self._file.shutdown(socket.SHUT_WR)
                    return
                except BlockingIOError:
                    yield sending.trap()

    # TLS ------------------------------------------------------------------------------------------

    @waits
    def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        within: float | None = HANDSHAKE,
        allow_truncation: bool = False,
    ) -> Generator[Any, Any, None]:
        """Wait until the two sides have agreed on TLS; from here on all data is encrypted.

        What was read before and nobody has asked for is taken as the beginning of the handshake,
        never as data: so nobody can smuggle in plain text, and a header may come with the
        handshake in one segment. Afterwards `stream.tls` tells what was agreed on.

        Args:
            context: an `ssl.SSLContext`, with its settings of certificates, ALPN and SNI.
            server_side: whether this is the server.
            server_hostname: the name of the server, for its certificate and for SNI.
            within: seconds for the handshake; None: no limit.
            allow_truncation: take a connection that ends without a `close_notify` as ended in
                order. Only for protocols whose messages say themselves where they end.

        Raises:
            ssl.SSLError: they could not agree, or the other side does not speak TLS; an
                `ssl.SSLCertVerificationError` says what is wrong with its certificate.
            TimeoutError: the handshake took too long.
            ValueError: the arguments do not go together; nothing was sent.
            BusyError: another task reads from this stream or sends to it.
            ClosedError, OSError: as for `recv()`.
            Cancelled: the wait was cancelled.

            After all but ValueError and BusyError the stream is closed.

        Source: RFC 8446; RFC 2595, section 3.1, and CVE-2011-0411 on what was read before.
        """
        with _Reading(self, "start_tls()"), _Sending(self, "start_tls()"):
            peer = self.peer
            tls = TLS(
                self._file,
                context,
                bytes(self._buffer),
                server_side=server_side,
                server_hostname=server_hostname,
                allow_truncation=allow_truncation,
            )
            self._file, self._reading = tls, None
            self._buffer.clear()
            self._peer = peer
            try:
                with move_on_after(within) as scope:
                    yield from tls.shake_hands()
                if scope.expired:
                    whom = peer or file_name(self._file)
                    text = f"the TLS handshake with {whom} took longer than {within:g} s"
                    raise TimeoutError(text)
            except BaseException:
                self.close()
                raise

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS session: `version()`, `selected_alpn_protocol()`, `getpeercert()`, or None."""
        return self._file.ssl if isinstance(self._file, TLS) else None

    # Closing --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; does not wait. Tasks that wait for it get `ClosedError`.

        What the other side has not read yet may be lost: `aclose()` waits for it. Under TLS a
        close_notify is sent, if it can be at once, and nothing was sent in part. `with stream:`
        sends none if the block is left by an exception: the other side shall not take for all what
        it has got by then.
        """
        file, reading = self._file, self._reading
        if isinstance(file, _Closed):
            return
        try:
            self._file = _Closed(file)
            self._reading = None
            self._buffer.clear()
            # No task is busy with it any more.
            self._calm = True
            scheduler = running_scheduler()
            if scheduler is not None and isinstance(reading, ReadWait):
                scheduler.close_file(file)
            else:
                # The run is over and nobody waits; or the file wakes its waiters itself.
                file.close()
        except MemoryError:
            # Those who wait learn of it when the poller finds that the file is closed.
            file.close()
            raise

    def reset(self) -> None:
        """Close the file so that the other side learns that this is no orderly end; does not wait.

        Over TCP the peer gets ConnectionResetError, and data that has not arrived is discarded.
        TLS sends no close_notify. Pipes and Unix sockets are just closed. Tasks that wait for it
        get `ClosedError`.

        Source: RFC 9293, 3.10.5 (ABORT); SO_LINGER in socket(7).
        """
        try:
            reset(self.socket)
        except OSError:
            # Closed already, or no socket.
            pass
        self.close()

    @waits
    def aclose(
        self, within: float = DRAIN_LIMIT, *, quiet: float = DRAIN
    ) -> Generator[Any, Any, None]:
        """Wait until the other side has closed as well, so that it gets all that was sent; close.

        Tells it that no more will be sent, and throws away what it still sends. (A connection that
        is closed with something unread is reset, and what was sent on it lost.) One that is gone,
        or does not close in time, is closed at once; that is not an error. Over TLS, if something
        was sent in part, the other side learns that the connection was cut off.

        Args:
            within: seconds to wait at most.
            quiet: seconds to wait while nothing moves: nothing comes from the other side, and it
                takes nothing of what the kernel still keeps for it.

        Raises:
            BusyError: another task reads from this stream or sends to it; it is closed at once.
            ssl.SSLError: under TLS, the other side has reported an error by an alert, or what it
                sent is no TLS; the stream is closed.
            Cancelled: the wait was cancelled; the stream is closed.

        Source: RFC 9112, section 9.6.
        """
        if isinstance(self._file, _Closed):
            return
        try:
            with move_on_after(within):
                if is_broken_off(self):
                    with _Sending(self, "aclose()"):
                        self.socket.shutdown(socket.SHUT_WR)
                else:
                    yield from self.send_eof()
                yield from self._drain(quiet)
        except OSError as exc:
            # Else the other side is gone, or the file has one direction only.
            if has_failed(exc):
                raise
        finally:
            self.close()

    def _drain(self, quiet: float) -> Generator[Any, Any, None]:
        """Throw away what comes, until there is no more, or nothing has moved for so long."""
        left, come = self.unsent(), received(self)
        while not self.ended:
            with move_on_after(quiet) as time:
                yield from self.recv(CHUNK)
            if time.expired:
                before = left, come
                left, come = self.unsent(), received(self)
                if left >= before[0] and come == before[1]:
                    return

    def unsent(self) -> int:
        """Return how many of the bytes that were sent the kernel still keeps. Does not wait.

        It shrinks as the other side reads; 0 where this is not known, as of a pipe.
        """
        return self._kept(unsent)

    def _kept(self, count: Callable[[Any], int]) -> int:
        try:
            return count(self.socket)
        except (OSError, ValueError):
            return 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            break_off(self)
        self.close()

    # Names ----------------------------------------------------------------------------------------

    @property
    def peer(self) -> Any:
        """The address of the other side, as the kind of socket has it; None if there is none."""
        return self._address("getpeername") if self._peer is None else self._peer

    @property
    def local(self) -> Any:
        """The address of this side; None if there is none, or the stream is closed."""
        return self._address("getsockname")

    @property
    def socket(self) -> Socket:
        """The socket itself, also that under TLS, for its options: `s.socket.setsockopt(...)`.

        Data that is read from it or written to it bypasses the stream. `ClosedError` if the stream
        is closed, `io.UnsupportedOperation` if its file is no socket.
        """
        file = self._file
        while isinstance(file, TLS):
            file = file.below
        if isinstance(file, _Closed):
            raise ClosedError(f"{self!r} is closed")
        if not hasattr(file, "setsockopt"):
            raise io.UnsupportedOperation(f"{self!r} is not a socket's")
        return file  # type: ignore[no-any-return]

    @property
    def peer_credentials(self) -> PeerCredentials:
        """The peer of a Unix socket, as the kernel knows it: pid, uid, gid (Linux).

        `io.UnsupportedOperation` for other files, `ClosedError` if the stream is closed.

        Source: SO_PEERCRED in unix(7).
        """
        return peer_credentials(self.socket)

    def _address(self, name: str) -> Any:
        try:
            return getattr(self._file, name)()
        except (OSError, AttributeError):
            # The file is closed, or is of a kind that has no addresses.
            return None

    def __repr__(self) -> str:
        return f"<Stream over {file_name(self._file)}>"


class _Reading:
    """The block in which one task reads: a second one is refused."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream, what: str) -> None:
        self._stream = stream
        reader = stream._reader
        if reader is None and stream._drained and not (stream._calm or stream._buffer):
            # One goes the short way of recv(), and has left no name. If it waits, it can be found.
            waiting = [t for t in current_scheduler().tasks if _is_to_read(t.wait, stream)]
            raise _busy(stream, what, waiting[0] if waiting else None, "reading from")
        if reader is not None:
            raise _busy(stream, what, reader, "reading from")

    def __enter__(self) -> None:
        stream = self._stream
        stream._reader = current_task()
        stream._home = stream._reader.scheduler
        stream._calm = False

    def __exit__(self, *error: object) -> None:
        stream = self._stream
        stream._reader = None
        stream._calm = stream._drained and not stream._buffer


class _Sending:
    """The block in which one task sends: a second one is refused, and what leaves it by an error
    says how much was sent.
    """

    __slots__ = ("_file", "_stream", "_trap", "sent")

    def __init__(self, stream: Stream, what: str) -> None:
        self._stream = stream
        # Kept, since the stream may be closed meanwhile.
        self._file = stream._file
        self._trap: Any = None
        self.sent = 0
        if stream._writer is not None:
            raise _busy(stream, what, stream._writer, "sending to")

    def __enter__(self) -> _Sending:
        stream = self._stream
        stream._writer = current_task()
        stream._home = stream._writer.scheduler
        return self

    def trap(self) -> Any:
        """Return the trap that waits until more can be sent."""
        file = self._stream._file
        if self._trap is None or file is not self._file:
            self._trap = getattr(file, "writing", None) or WriteWait(file)
        return self._trap

    def took(self, count: int, rest: deque[memoryview] | None = None) -> None:
        """Note that `count` bytes were taken, and take them from the buffers `rest`."""
        self.sent += count
        if count:
            self._stream.moved = 1
        while rest and count:
            size = len(rest[0])
            if count < size:
                rest[0] = rest[0][count:]
                return
            rest.popleft()
            count -= size

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stream = self._stream
        stream._writer = None
        if error is not None:
            error.bytes_sent = self.sent + _settle(self._file)  # type: ignore[attr-defined]


def _settle(file: Any) -> int:
    """Return how much a file has committed itself to send, beside what it said it has sent."""
    count: int = getattr(file, "settle", int)()
    return count


class _Closed:
    """Stands where the file of a stream was: what it is asked for has to be waited for, and that
    wait is refused. So a task that is to end, and finds the stream closed, is ended, and no
    failure.
    """

    __slots__ = ("_kind",)

    def __init__(self, file: Connection) -> None:
        self._kind = type(file)

    @property
    def reading(self) -> Suspend[None]:
        """The trap that waits for the file."""
        return Suspend(self._refuse, "a closed stream")

    writing = reading

    def _refuse(self, *_: object) -> Any:
        raise ClosedError(f"<Stream over {self!r}> is closed")

    def recv(self, *_: object) -> Any:
        raise BlockingIOError(errno.EAGAIN, "the wait for it will be refused")

    recv_into = send = sendmsg = shutdown = recv

    fileno = getpeername = getsockname = _refuse

    def __repr__(self) -> str:
        return f"<{name_of(self._kind)} closed>"


def _checked(limit: float, what: str) -> float:
    if not isinstance(limit, int | float):
        text = f"the limit of a {what} is a number of bytes, or math.inf"
        raise TypeError(f"{text}, not {brief(limit)}")
    return limit


def _end_of_first(separators: tuple[bytes, ...], buffer: bytearray, searched: int) -> int:
    """Return where the separator ends that ends first, 0 if there is none in the buffer.

    `searched` is how far the buffer has been searched before. The windows grow, so that what one
    separator is far from is not searched again and again while another is near.
    """
    size = len(buffer) if len(separators) == 1 else WINDOW
    begin = searched
    while begin < len(buffer):
        ends = []
        for separator in separators:
            at = buffer.find(separator, max(0, begin - len(separator) + 1), begin + size)
            if at >= 0:
                ends.append(at + len(separator))
        if ends:
            return min(ends)
        begin += size
        size *= 2
    return 0


def _views(data: Data) -> list[memoryview]:
    """Return the buffers of `data` that have something in them, byte by byte."""
    try:
        views = [memoryview(each) for each in (data if isinstance(data, list | tuple) else (data,))]
    except TypeError as exc:
        text = "; text has encode()" if str(exc).endswith("'str'") else ""
        raise TypeError(f"sendall() takes bytes, or a list of buffers{text}: {exc}") from None
    return [view.cast("B") for view in views if view.nbytes]


def _check_on_disk(file: Any) -> None:
    """Refuse what is no file of the system's: a path, or an `io.BytesIO`."""
    try:
        file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        text = "give a file on a disk, as open(path, 'rb') returns; bytes are for sendall()"
        raise TypeError(f"sendfile() got {brief(file)}: {text}") from None


def waits_for_peer(task: Task[Any], stream: Stream) -> bool:
    """Return whether something is up to the other side of a stream: to take what was sent, or to
    send what the task waits for.
    """
    return bool(stream.unsent()) or waits_for_data(task, stream)


def waits_for_data(task: Task[Any], stream: Stream) -> bool:
    """Return whether the task or a child of it waits for the rest of something."""
    return not stream._between and any(_is_to_read(each.wait, stream) for each in family(task))


def held_back(stream: Stream) -> int:
    """Return how many bytes the peer has no room for: less than `unsent()`, which counts also what
    it has not acknowledged yet.
    """
    return stream._kept(not_sent)


def is_between(stream: Stream) -> bool:
    """Return whether somebody waits for a message that has not begun: in `more()`."""
    return stream._between


def is_sending(stream: Stream) -> bool:
    """Return whether somebody is in the middle of a `sendall()`: the kernel takes no more."""
    return stream._writer is not None


def introduce(stream: Stream, peer: Any) -> None:
    """Note who is on the other side of a stream, though somebody stands between."""
    stream._peer = peer


def break_off(stream: Stream) -> None:
    """Note that what was sent on a stream is not all: under TLS, to close it says no farewell,
    unless something whole is sent before.
    """
    if isinstance(stream._file, TLS):
        stream._file.broken_off = True


def is_broken_off(stream: Stream) -> bool:
    """Return whether what was sent last on a stream over TLS is not all."""
    return isinstance(stream._file, TLS) and stream._file.broken_off


def family(task: Task[Any]) -> Iterator[Task[Any]]:
    """Yield a task and all below it, however deep they are."""
    left = [task]
    while left:
        yield (one := left.pop())
        left += one.children


def received(stream: Stream) -> int:
    """Return how many bytes have come on a stream over TLS, of which some make no message yet; 0
    without it.
    """
    return stream._file.received if isinstance(stream._file, TLS) else 0


def _is_to_read(wait: Any, stream: Stream) -> bool:
    """Return whether a task whose wait this is waits to read from the stream."""
    if isinstance(stream._file, TLS):
        return stream._file.is_to_read(wait)
    return wait is not None and wait is stream._reading


def _busy(stream: Stream, what: str, task: Task[Any] | None, doing: str) -> BusyError:
    who = "another task" if task is None else f"task {task.label} ({where(task)})"
    error = BusyError(
        f"{what} on {brief(stream)}: {who} is {doing} it. Let one task do that for all, or take "
        "turns: "
        "`with (yield from lock):` around each whole message"
    )
    error.bytes_sent = 0  # type: ignore[attr-defined]
    return error
