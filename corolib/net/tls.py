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
    brief,
    class_module,
    close,
    current_scheduler,
    file_name,
    running_scheduler,
    with_trace,
)

if TYPE_CHECKING:
    import ssl
else:
    ssl = LateModule("ssl")

HANDSHAKE = 10.0
"""Seconds: several round trips to anywhere, over a bad connection."""

CHUNK = 65536
"""Bytes of ciphertext read at once, and of plain text encrypted at once: 4 records."""

HELD = 2 * CHUNK
"""Bytes of output that may wait while reading goes on: one chunk of a sender's, and as much of the
answers that OpenSSL makes to what it reads.
"""

RECORDS = 32
"""Records that OpenSSL gets at once, for it may return only after the last: one that asks for new
keys has 27 bytes, and takes it up to 50 microseconds.
"""

UNTRUSTED = (18, 19, 20, 21)
"""What OpenSSL says of a certificate that nobody has vouched for whom the context knows."""

HEAD = 5
"""Bytes at the beginning of a record: its kind, a version in two, and the length of the rest."""

LARGEST = HEAD + (1 << 14) + 2048
"""Bytes that a record may have (RFC 5246, section 6.2.3)."""

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
        "_openssl",
        "_out",
        "_outgoing",
        "_plain",
        "_readable",
        "_rest",
        "_starved",
        "_trap",
        "_unheard",
        "_whole",
        "_writable",
        "broken_off",
        "reading",
        "received",
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
            raise TypeError(f"TLS got {brief(context)} as its context: give an ssl.SSLContext")
        if context.protocol == ssl.PROTOCOL_TLS_SERVER and not server_side:
            raise ValueError(
                "a client got a context for servers: make it by ssl.create_default_context()"
            )
        if context.check_hostname and not (server_side or server_hostname):
            raise ValueError("the context checks the name of the server: give server_hostname=")
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        # What that wraps: its own methods cost a hundredth of an echo. `_sslobj` is a private name
        # of the standard library; a test pins it.
        self._openssl: Any = self.ssl._sslobj  # type: ignore[attr-defined]
        self._first = received[:SEEN]
        self._allow_truncation = allow_truncation
        self._file = file
        # The trap that waits until `recv()` may succeed, while that needs nothing but the file;
        # else None, and there is `waiting()`.
        self.reading: ReadWait | None = None
        # That trap, while it is not out of date.
        self._trap: ReadWait | None = None
        self._readable = SharedWait(partial(trap_to_read, file))
        self._writable = SharedWait(partial(trap_to_write, file))
        # How many bytes have come: a record that is under way is progress, too.
        self.received = 0
        # What was read of the file, and OpenSSL has not got yet: it gets whole records.
        self._rest = b""
        # Whether there may be a whole one in it.
        self._whole = False
        # What was decrypted before anybody asked for it.
        self._plain = bytearray()
        # Ciphertext that the file has not taken yet.
        self._out: bytes | memoryview = b""
        # Bytes of plain text that `send()` has encrypted and not returned yet.
        self._committed = 0
        # Whether what was sent last is the beginning of something. Then `close()` says no farewell:
        # the other side shall not take that for the whole.
        self.broken_off = False
        # Whether OpenSSL needs input in order to go on.
        self._starved = False
        # Whether close_notify was sent.
        self._notified = False
        # Makes what reading ends with, once that is known.
        self._end: Callable[[], OSError | None] | None = None
        # Whether the file has refused the last output, for nobody is there to read it.
        self._unheard = False
        self._feed(received)

    @property
    def below(self) -> Any:
        """The file that the ciphertext goes through."""
        return self._file

    # Waiting --------------------------------------------------------------------------------------

    def waiting(self) -> Suspend[None]:
        """Return the trap that waits until `recv()` may succeed; meanwhile all output leaves.

        Where there is `reading`, that costs a tenth.
        """
        return Suspend(self._arm_reading, f"TLS from {file_name(self._file)}", outside=True)

    def is_to_read(self, wait: Any) -> bool:
        """Return whether `wait`, of some task, is one that `reading` or `waiting()` has given."""
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
        if not self._out or self._unheard:
            return first_of([self._readable], wake)
        held_up = self._is_held_up()
        return first_of([self._writable] if held_up else [self._readable, self._writable], wake)

    def _arm_writing(self, wake: Wake) -> Callable[[], object]:
        if self._out:
            return first_of([self._writable], wake)
        if self._starved and self._has_room():
            return first_of([self._readable], wake)
        if self._starved:
            return self._readable.hang(wake)
        wake()
        return _nothing

    def _is_ready(self) -> bool:
        """Return whether reading would get further without the file."""
        incoming = self._incoming
        here = self._plain or self._whole or incoming.pending or self._openssl.pending()
        return bool(here or incoming.eof or self._end)

    def _is_held_up(self) -> bool:
        """Return whether too much output waits: the other side asks, and reads no answers."""
        return len(self._out) + self._outgoing.pending > HELD

    def _has_room(self) -> bool:
        """Return whether there is room for what is decrypted before anybody asks for it."""
        return len(self._plain) < CHUNK

    def _recall(self) -> None:
        """Have the reader ask anew how to wait, for it needs more than the file by now.

        It may not wait yet, but for other tasks that it must await first: see `OUT_OF_DATE`.
        """
        trap, self._trap, self.reading = self._trap, None, None
        scheduler = running_scheduler()
        if trap is not None and scheduler is not None:
            scheduler.wake_reader(trap)
            trap.file, trap.entry = OUT_OF_DATE, None
        self._readable.wake_all()

    # Reading --------------------------------------------------------------------------------------

    def recv(self, most: int, /) -> bytes:
        """Return decrypted data: less than `most` if there is no more just now.

        Asks the file once at most. `b""` after a close_notify; ssl.SSLEOFError if the file ended
        without.
        """
        if self.reading is not None or self._needs_the_file():
            self._pull()
        data = self._take(most) if self._plain else self._decrypt(most)
        if data:
            return data
        if self._end is None:
            raise BlockingIOError(errno.EAGAIN, "no whole record has come")
        if (error := self._end()) is not None:
            try:
                raise error
            finally:
                # The error's traceback holds this frame: they would be a cycle.
                del error
        return b""

    def _needs_the_file(self) -> bool:
        """Let output leave, and hand OpenSSL what is here; return whether that is nothing."""
        self._push_what_goes()
        if self._whole and not self._incoming.pending:
            self._feed(self._rest)
        if self._is_ready():
            return False
        if self._is_held_up():
            if self._unheard:
                raise BrokenPipeError(errno.EPIPE, "nobody reads the answers")
            raise BlockingIOError(errno.EAGAIN, "the answers have not left yet")
        return True

    def _pull(self) -> bytes:
        """Read of the file, and hand OpenSSL what has come."""
        data: bytes = self._file.recv(CHUNK)
        self.received += len(data)
        if not data:
            self._incoming.write(self._rest)
            self._incoming.write_eof()
            self._rest = b""
            self.reading = None
        elif not self._rest and len(data) > HEAD and HEAD + 256 * data[3] + data[4] == len(data):
            # Mostly it is one record.
            self._incoming.write(data)
        else:
            self._feed(self._rest + data)
        if self._starved:
            # It may be another task that waits for this.
            self._starved = False
            self._recall()
        return data

    def _feed(self, data: bytes) -> None:
        """Hand OpenSSL the first records of `data`, and keep what is behind them."""
        end = 0
        self._whole = True
        for _ in range(RECORDS):
            size = record_size(data, end)
            if end + size > len(data):
                self._whole = False
                break
            end += size
        self._incoming.write(data[:end])
        self._rest = data[end:]

    def _decrypt(self, most: int) -> bytes:
        """Return at most `most` bytes of what OpenSSL has got; notes the end if that has come."""
        data = b""
        incoming, connection = self._incoming, self._openssl
        try:
            while most and self._end is None:
                # No data is longer than its ciphertext, and a smaller buffer costs less.
                size = incoming.pending or CHUNK
                part = connection.read(size if size < most else most)
                if not part:
                    # A close_notify has come.
                    self._end = _nothing
                    break
                # Of at most as many records as OpenSSL gets at once.
                data = data + part if data else part
                most -= len(part)
                if not incoming.pending:
                    break
        except OSError as exc:
            if exc.errno != WANT_READ:
                self._end = self._end_by(exc)
        if self._outgoing.pending:
            self._push_what_goes()
        if self.reading is None or not most or self._end or self._whole or self._out:
            self._set_reading()
        return data

    def _set_reading(self) -> None:
        """Note whether a reader needs nothing but the file."""
        if self._out or self._starved or hasattr(self._file, "reading") or self._is_ready():
            self.reading = None
        else:
            self._trap = self.reading = self._trap or ReadWait(self._file)

    def _decrypt_all(self) -> None:
        """Decrypt what OpenSSL has got, and keep it."""
        while data := self._decrypt(CHUNK):
            self._plain += data
        self._set_reading()

    def _get_more(self) -> None:
        """Hand OpenSSL more: of what is here, or of the file."""
        if self._whole:
            self._feed(self._rest)
        else:
            data = self._pull()
            self._first += data[: SEEN - len(self._first)]

    def _look_ahead(self) -> None:
        """Read, and keep what comes."""
        self._get_more()
        self._decrypt_all()
        self._recall()

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
        if self._starved:
            # A writer may wait for the room.
            self._readable.wake_all()
        return data

    # Sending --------------------------------------------------------------------------------------

    def send(self, data: Any, /, *, more: bool = False) -> int:
        """Encrypt a chunk of `data`, and return how much when the file has taken it all.

        `more` says that something follows that belongs to it.
        """
        if self._notified:
            raise BrokenPipeError(errno.EPIPE, "send_eof() was called")
        try:
            if self._out:
                self._push()
            if data and not self._committed:
                self.broken_off = more or len(data) > CHUNK
                self._committed = self._openssl.write(data[:CHUNK] if self.broken_off else data)
            self._push()
        except ssl.SSLWantReadError:
            self._await_handshake()
        except (ConnectionError, ssl.SSLError):
            self._raise_what_was_told()
            raise
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
        return self.send(b"".join(batch), more=size < sum(map(len, buffers)))

    def _await_handshake(self) -> None:
        """The two sides agree anew, in the middle of the connection: read, so that this goes on."""
        self._push()
        self._starved = True
        self._recall()
        if self._has_room():
            self._look_ahead()
            self._starved = False
        raise BlockingIOError(errno.EAGAIN, "the handshake goes on")

    def settle(self) -> int:
        """Return how much is committed and was not returned by `send()`, and count it as sent.

        What of it has not left goes with what is done next; also if that has begun already.
        """
        count, self._committed = self._committed, 0
        self.broken_off = True
        if self._out:
            self._recall()
        return count

    def _push(self) -> None:
        """Have the file take all output, or raise BlockingIOError."""
        old = self._out
        while out := old or self._outgoing.read():
            self._out = out
            try:
                count = self._file.send(out)
            except ConnectionError:
                self._unheard = True
                raise
            self._unheard = False
            if count < len(out):
                self._out = memoryview(out)[count:]
                raise BlockingIOError(errno.EAGAIN, "the file has not taken all yet")
            self._out = b""
            if not old:
                # `read()` has given all there was.
                break
            old = b""

    def _push_what_goes(self) -> None:
        """Have the file take output that nobody sends: OpenSSL's answers and alerts."""
        try:
            self._push()
        except OSError:
            # Not now; or nobody is there to read it, which reading will show.
            pass

    def _raise_what_was_told(self) -> None:
        """After an error of sending, raise that which the other side has told by an alert, if one
        has come: it says why nobody reads any more.
        """
        try:
            while self._end is None and self._has_room():
                self._look_ahead()
        except OSError:
            # No more has come.
            pass
        told = None if self._end is None else self._end()
        try:
            if told is not None and has_failed(told):
                raise told from None
        finally:
            del told

    # Beginning and end ----------------------------------------------------------------------------

    def shake_hands(self) -> Generator[Trap, Any, None]:
        """Wait until the two sides have agreed, or raise why they cannot."""
        while True:
            try:
                self._shake_hands()
                break
            except BlockingIOError:
                yield self.writing
            except ssl.SSLError as exc:
                # This sends the alert, by which the other side learns of it.
                self._push_what_goes()
                exc.strerror = self._explain(exc)
                raise
        self._first = b""
        self._set_reading()

    def _shake_hands(self) -> None:
        """Get as far as possible."""
        try:
            while True:
                try:
                    self._openssl.do_handshake()
                except ssl.SSLWantReadError:
                    self._push()
                    self._starved = True
                    self._get_more()
                    self._starved = False
                else:
                    self._push()
                    return
        except ConnectionError:
            self._raise_what_was_told()
            raise

    def _explain(self, exc: Any) -> str:
        """Return what OpenSSL says of a failed handshake, and what it means."""
        first = self._first
        if exc.errno == EOF:
            what = "ended the connection in the middle" if first else "sent nothing"
        elif first and first[0] not in (0x15, 0x16):
            # This is neither an alert nor a handshake.
            what = f"does not speak TLS, it sent {brief(first)}"
        else:
            trust = ""
            if getattr(exc, "verify_code", None) in UNTRUSTED:
                trust = "; to trust it: context.load_verify_locations(path)"
                if not self.ssl.server_side:
                    trust = "; to trust it: tls=ssl.create_default_context(cafile=path)"
            return f"the TLS handshake failed: {exc.strerror}{trust}"
        return f"the TLS handshake failed: the other side {what} ({exc.strerror})"

    def shutdown(self, how: int, /) -> None:
        """Tell the other side that no more will be sent: close_notify."""
        try:
            self._push()
            if not self._notified:
                # What has come is kept: OpenSSL would drop it.
                self._decrypt_all()
                self._notify()
        except ConnectionError:
            self._raise_what_was_told()
            raise

    def _notify(self) -> None:
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
        """Close the file; wakes those who wait.

        A close_notify leaves before, if it can at once, and nothing is broken off.
        """
        try:
            self._push()
            if not (self._notified or self.broken_off):
                self._notify()
        except OSError:
            # It cannot, or there was no handshake.
            pass
        for shared in (self._readable, self._writable):
            shared.wake_all(ClosedError(f"{file_name(self._file)}: closed during the wait"))
        if running_scheduler() is None or hasattr(self._file, "reading"):
            self._file.close()
        else:
            close(self._file)


class SharedWait:
    """A wait for one direction of a file that several tasks may share.

    `ask()` returns the trap that waits for the file.
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
            try:
                undo = current_scheduler().arm(self._ask(), self._over)
            except BaseException:
                del self._wakes[wake]
                raise
            # Without wakes the file was ready at once.
            if self._wakes:
                self._undo = undo
        return partial(self._leave, wake)

    def hang(self, wake: Callable[..., object]) -> Callable[[], object]:
        """Have `wake()` called by `wake_all()` at the latest; returns the undo."""
        self._wakes[wake] = None
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


class OutOfDate:
    """The file of a wait that its reader shall not make any more: who tries is told to ask anew."""

    def fileno(self) -> int:
        raise BlockingIOError(errno.EAGAIN, "there is more to wait for")


OUT_OF_DATE = OutOfDate()


def trap_to_read(file: Any) -> Trap:
    """Return the trap that waits until `file` may be read."""
    if isinstance(file, TLS):
        return file.waiting()
    return getattr(file, "reading", None) or ReadWait(file)


def trap_to_write(file: Any) -> Trap:
    """Return the trap that waits until `file` may be written."""
    return getattr(file, "writing", None) or WriteWait(file)


def record_size(data: bytes, at: int) -> int:
    """Return how many bytes the record has that begins there, as far as its head has come.

    What cannot be a record counts as one, for OpenSSL can say best what is wrong with it.
    """
    if len(data) < at + HEAD:
        return HEAD
    kind, version = data[at : at + 2]
    size = HEAD + 256 * data[at + 3] + data[at + 4]
    if 20 <= kind <= 24 and version == 3 and size <= LARGEST:
        return size
    return len(data) - at


def has_failed(error: BaseException) -> bool:
    """Return whether TLS itself has failed: by an alert, say, or a record that is none."""
    return class_module(error) == "ssl" and getattr(error, "errno", None) != EOF


def is_cut_off(error: BaseException) -> bool:
    """Return whether TLS has ended before its end: nobody is there any more."""
    return class_module(error) == "ssl" and getattr(error, "errno", None) == EOF


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
        woken(error=with_trace(exc, None))
    return leave


def _nothing() -> None:
    """The undo of a wait that is over; and what a connection that ended in order ends with."""
