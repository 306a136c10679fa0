"""TLS over any file that a stream can use: what `stream.start_tls()` puts between the two.

OpenSSL reads and writes two buffers in memory, and this module carries ciphertext between them and
the file below. So what was read before the handshake can be handed to it, and what OpenSSL must
write in order to read, or read in order to write, waits for what it really needs, whatever the
stream's own operation is: both of its tasks may wait for both directions of the file.

`TLS` has the methods of a socket, and two traps, `reading` and `writing`. The module `ssl` is
imported when the first handshake begins. What reads lines and messages is in `streams.py`; which
context a connection gets is decided in `connecting.py` and `servers.py`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from corolib.kernel import (
    ClosedError,
    LateModule,
    ReadWait,
    Suspend,
    Trap,
    Wake,
    WriteWait,
    close,
    current_scheduler,
    current_task,
    file_name,
    running_scheduler,
)

if TYPE_CHECKING:
    import ssl
else:
    ssl = LateModule("ssl")

HANDSHAKE = 10.0
"""Seconds: several round trips to anywhere, over a bad connection."""

CHUNK = 65536
"""Bytes of ciphertext read at once, and of plain text encrypted at once: 4 records."""

WANT_READ, ZERO_RETURN, EOF = 2, 6, 8
"""Of ssl.SSLErrorNumber: what the `errno` of an error says."""

SEEN = 24
"""Of the first bytes of a peer that does not speak TLS: enough to recognise it by."""


class TLS:
    """An encrypted connection over `file`, with the methods of a non-blocking socket.

    `send()` takes all of a chunk or raises BlockingIOError; then it is to be called again with the
    same data. Data is committed when it has been made into records, which cannot be taken back:
    `settle()` tells how much of it no `send()` has returned, for a task that sends no more.

    Args:
        file: what a stream asks for; it must not be used otherwise any more.
        context: an `ssl.SSLContext`.
        received: what was read of the file already.
        server_side, server_hostname: as for `SSLContext.wrap_bio`.
        allow_truncation: the end of the file without a close_notify is no error.
    """

    __slots__ = (
        "_allow_truncation",
        "_committed",
        "_end",
        "_file",
        "_first",
        "_incoming",
        "_notified",
        "_out",
        "_outgoing",
        "_plain",
        "_quiet",
        "_readable",
        "_starved",
        "_trap",
        "_writable",
        "ssl",
    )

    def __init__(
        self,
        file: Any,
        context: ssl.SSLContext,
        received: bytes,
        *,
        server_side: bool,
        server_hostname: str | None,
        allow_truncation: bool,
    ) -> None:
        if not isinstance(context, ssl.SSLContext):
            raise TypeError(f"TLS got {context!r} as its context: give an ssl.SSLContext")
        if context.check_hostname and not (server_side or server_hostname):
            raise ValueError("the context checks the name of the server: give server_hostname=")
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self._incoming.write(received)
        self._first = received[:SEEN]
        self._allow_truncation = allow_truncation
        self._file = file
        trap = self._trap = None if hasattr(file, "reading") else ReadWait(file)
        self._readable = SharedWait(lambda: file.reading if trap is None else trap)
        writing = getattr(file, "writing", None) or WriteWait(file)
        self._writable = SharedWait(lambda: writing)
        # What was decrypted before anybody asked for it.
        self._plain = bytearray()
        # Ciphertext that the file has not taken yet.
        self._out: bytes | memoryview = b""
        # Bytes of plain text that `send()` has encrypted and not returned yet.
        self._committed = 0
        # Whether OpenSSL needs input in order to go on.
        self._starved = False
        # Whether close_notify was sent.
        self._notified = False
        # Makes what reading ends with, once that is known.
        self._end: Callable[[], OSError | None] | None = None
        # Nothing is here and nobody else waits to read: a reader needs nothing but the file.
        self._quiet = False

    @property
    def below(self) -> Any:
        """The file that the ciphertext goes through."""
        return self._file

    # Waiting --------------------------------------------------------------------------------------

    @property
    def reading(self) -> Trap:
        """The trap that waits until `recv()` may succeed; meanwhile all output leaves.

        To be asked for at each wait. Mostly it is the file's own, which costs a tenth of the other;
        but not for a task that must first wait for others, which may use this connection.
        """
        trap = self._trap
        if self._quiet and not self._out and trap is not None and not current_task().await_first:
            return trap
        return Suspend(self._arm_reading, f"TLS from {file_name(self._file)}", outside=True)

    def is_to_read(self, wait: Any) -> bool:
        """Return whether `wait`, of some task, is one that `reading` has given."""
        if isinstance(wait, Suspend):
            return wait.arm == self._arm_reading
        return wait is not None and wait is self._trap

    @property
    def writing(self) -> Suspend[None]:
        """The trap that waits until `send()`, or the handshake, may get further."""
        return Suspend(self._arm_writing, f"TLS to {file_name(self._file)}", outside=True)

    def _arm_reading(self, wake: Wake) -> Callable[[], object]:
        if self._is_ready():
            wake()
            return _nothing
        return first_of([self._readable, self._writable] if self._out else [self._readable], wake)

    def _arm_writing(self, wake: Wake) -> Callable[[], object]:
        if self._out:
            return first_of([self._writable], wake)
        if self._starved and not self._is_ready():
            return first_of([self._readable], wake)
        wake()
        return _nothing

    def _is_ready(self) -> bool:
        """Return whether reading would get further without the file."""
        return bool(self._plain or self._incoming.pending or self.ssl.pending() or self._end)

    # Reading --------------------------------------------------------------------------------------

    def recv(self, most: int, /) -> bytes:
        """Return decrypted data: less than `most` only if there is no more without the file.

        Asks the file once at most. `b""` after a close_notify; ssl.SSLEOFError if the file ended
        without.
        """
        if self._out or not self._quiet:
            self._push_what_goes()
        if self._quiet or not self._is_ready():
            self._pull()
        data = self._take(most) if self._plain else self._decrypt(most)
        if data:
            return data
        if self._end is None:
            raise BlockingIOError(errno.EAGAIN, "no whole record has come")
        error = self._end()
        if error is not None:
            raise error
        return b""

    def _pull(self) -> None:
        """Hand OpenSSL what has come."""
        data = self._file.recv(CHUNK)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        if len(self._first) < SEEN:
            self._first += data[: SEEN - len(self._first)]
        if self._starved:
            # It may be another task that waits for this.
            self._starved = False
            self._readable.wake_all()

    def _decrypt(self, most: int) -> bytes:
        """Return at most `most` bytes of what has come; notes the end if that has come too."""
        parts = []
        incoming, connection = self._incoming, self.ssl
        more = True
        while most and more and self._end is None:
            try:
                part = connection.read(most)
            except OSError as exc:
                if exc.errno != WANT_READ:
                    self._end = self._end_by(exc)
                more = False
                break
            if not part:
                # A close_notify has come.
                self._end = _nothing
                break
            parts.append(part)
            most -= len(part)
            more = bool(incoming.pending or connection.pending() or incoming.eof)
        self._push_what_goes()
        self._quiet = not (more or self._end or self._plain or self._starved)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _end_by(self, exc: Any) -> Callable[[], OSError | None]:
        """Return what makes the error of reading: it has failed, and will in the same way for ever.

        An exception that is raised twice would keep the frames of both.
        """
        kind, args, library, reason = type(exc), exc.args, exc.library, exc.reason
        if exc.errno == ZERO_RETURN or (exc.errno == EOF and self._allow_truncation):
            return _nothing
        if exc.errno == EOF:
            args = (EOF, "the connection was cut off: it ended without the close_notify of TLS")

        def make() -> OSError:
            error: Any = kind(*args)
            error.library, error.reason = library, reason
            return error  # type: ignore[no-any-return]

        return make

    def _take(self, most: int) -> bytes:
        data = bytes(self._plain[:most])
        del self._plain[:most]
        return data

    # Sending --------------------------------------------------------------------------------------

    def send(self, data: Any, /) -> int:
        """Encrypt a chunk of `data`, and return how much when the file has taken it all."""
        if self._notified:
            raise BrokenPipeError(errno.EPIPE, "send_eof() was called")
        if self._out:
            self._push()
        if not self._committed:
            try:
                self._committed = self.ssl.write(data[:CHUNK]) if data else 0
            except OSError as exc:
                if exc.errno != WANT_READ:
                    raise
                self._look_ahead()
            self._push()
        count, self._committed = self._committed, 0
        return count

    def sendmsg(self, buffers: Sequence[Any], /) -> int:
        """Do what `send()` does with several small buffers, in one record if they fit."""
        batch, size = [], 0
        for buffer in buffers:
            batch.append(buffer[: CHUNK - size])
            size += len(batch[-1])
            if size == CHUNK:
                break
        return self.send(b"".join(batch))

    def _look_ahead(self) -> None:
        """The two sides agree anew, in the middle of the connection: read, so that this goes on,
        and keep what comes.
        """
        self._push()
        self._starved, self._quiet = True, False
        self._pull()
        self._decrypt_all()
        raise BlockingIOError(errno.EAGAIN, "the handshake goes on")

    def _decrypt_all(self) -> None:
        """Decrypt what has come, and keep it."""
        while data := self._decrypt(CHUNK):
            self._plain += data

    def settle(self) -> int:
        """Return how much is committed and was not returned by `send()`, and count it as sent.

        What of it has not left goes with what is done next; also if that has begun already.
        """
        count, self._committed = self._committed, 0
        if self._out:
            self._readable.wake_all()
        return count

    def _push(self) -> None:
        """Have the file take all output, or raise BlockingIOError."""
        while out := self._out or self._outgoing.read():
            self._out = out
            count = self._file.send(out)
            if count < len(out):
                self._out = memoryview(out)[count:]
                raise BlockingIOError(errno.EAGAIN, "the file has not taken all yet")
            self._out = b""

    def _push_what_goes(self) -> None:
        """Have the file take output that nobody sends: OpenSSL's answers and alerts."""
        try:
            self._push()
        except OSError:
            # Not now; or nobody is there to read it, which reading will show.
            pass

    # Beginning and end ----------------------------------------------------------------------------

    def shake_hands(self) -> Generator[Trap, Any, None]:
        """Wait until the two sides have agreed, or raise why they cannot."""
        while True:
            try:
                self._shake_hands()
                return
            except BlockingIOError:
                yield self.writing
            except ssl.SSLError as exc:
                # This sends the alert, by which the other side learns of it.
                self._push_what_goes()
                exc.strerror = self._explain(exc)
                raise

    def _shake_hands(self) -> None:
        """Get as far as possible."""
        while True:
            try:
                self.ssl.do_handshake()
            except OSError as exc:
                if exc.errno != WANT_READ:
                    raise
                self._push()
                self._starved = True
                self._pull()
            else:
                self._push()
                return

    def _explain(self, exc: Any) -> str:
        """Return what OpenSSL says of a failed handshake, and what it means."""
        first = self._first
        if exc.errno == EOF:
            what = "ended the connection in the middle" if first else "sent nothing"
        elif first and first[0] not in (0x15, 0x16):
            # This is neither an alert nor a handshake.
            what = f"does not speak TLS, it sent {first!r}"
        else:
            return f"the TLS handshake failed: {exc.strerror}"
        return f"the TLS handshake failed: the other side {what} ({exc.strerror})"

    def shutdown(self, how: int, /) -> None:
        """Tell the other side that no more will be sent: close_notify."""
        if not self._notified:
            self._push()
            # What has come is kept: OpenSSL would drop it.
            self._decrypt_all()
            self._notified = True
            try:
                self.ssl.unwrap()
            except OSError:
                # OpenSSL would now wait for the other side's close_notify; `recv()` does that.
                pass
        self._push()

    def fileno(self) -> int:
        number: int = self._file.fileno()
        return number

    def getsockname(self) -> Any:
        return self._file.getsockname()

    def close(self) -> None:
        """Close the file at once, without a close_notify; wakes those who wait."""
        for shared in (self._readable, self._writable):
            shared.wake_all(ClosedError(f"{file_name(self._file)}: closed during the wait"))
        if running_scheduler() is None or hasattr(self._file, "reading"):
            self._file.close()
        else:
            close(self._file)


class SharedWait:
    """A wait for one direction of a file that several tasks may share.

    `ask()` returns the trap that waits for the file. A task that yields that trap itself is woken
    in vain when another one comes, so that it joins this wait as well.
    """

    __slots__ = ("_ask", "_undo", "_wakes")

    def __init__(self, ask: Callable[[], Trap]) -> None:
        self._ask = ask
        # The undo of the wait for the file, while there is one.
        self._undo: Callable[[], object] | None = None
        self._wakes: dict[Callable[..., object], None] = {}

    def join(self, wake: Callable[..., object]) -> Callable[[], object]:
        """Have `wake(error=)` called once, when the file is ready; returns the undo."""
        self._wakes[wake] = None
        if self._undo is None:
            self._fetch_reader()
            try:
                undo = current_scheduler().arm(self._ask(), self._over)
            except BaseException:
                del self._wakes[wake]
                raise
            # Without wakes the file was ready at once.
            if self._wakes:
                self._undo = undo
        return partial(self._leave, wake)

    def _leave(self, wake: Callable[..., object]) -> None:
        self._wakes.pop(wake, None)
        if not self._wakes:
            self._stop()

    def _stop(self) -> None:
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def _over(self, value: object = None, error: BaseException | None = None) -> None:
        """The wait is over: wake all."""
        self._undo = None
        wakes, self._wakes = self._wakes, {}
        for wake in wakes:
            wake(error=error)

    def wake_all(self, error: BaseException | None = None) -> None:
        """Wake all who wait, whether the file is ready or not."""
        self._stop()
        self._over(error=error)
        if error is None:
            self._fetch_reader()

    def _fetch_reader(self) -> None:
        """Wake the task that yields the trap itself: it will join this wait."""
        scheduler = running_scheduler()
        if scheduler is not None:
            scheduler.wake_reader(self._ask())


def first_of(waits: list[SharedWait], wake: Wake) -> Callable[[], object]:
    """Have `wake` called when the first of the waits is over; returns the undo."""

    def leave() -> None:
        while undos:
            undos.pop()()

    def woken(value: object = None, error: BaseException | None = None) -> None:
        leave()
        wake(error=error)

    undos: list[Callable[[], object]] = []
    try:
        for wait in waits:
            undos.append(wait.join(woken))
    except BaseException as exc:
        # The file is closed, or somebody else waits for it. The traceback would hold the task,
        # which would be a cycle.
        woken(error=exc.with_traceback(None))
    return leave


def _nothing() -> None:
    """The undo of a wait that is over; and what a connection that ended in order ends with."""
