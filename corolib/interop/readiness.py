"""Drive a generator that says for which file it waits, and how: `ReadinessDriver`.

    with ReadinessDriver() as driver:
        value = yield from driver.drive(generator, fd)

Some libraries do not wait themselves. They have a protocol as a generator, or as calls that say
"again, when this file can be read". The caller waits in whatever way it likes. psycopg 3 is the
first of them: its generators can be driven as they are. Here is nothing of any such library.
"""

from __future__ import annotations

from collections.abc import Generator
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any, Self, TypeVar

from corolib.coordination.first import first
from corolib.kernel import (
    BorrowedFile,
    ReadWait,
    WriteWait,
    brief,
    must_yield,
    running_scheduler,
    waits,
)

T = TypeVar("T")

EITHER = EVENT_READ | EVENT_WRITE


class ReadinessDriver:
    """Drives generators that yield the events they wait for, over one file at a time.

    A file that `drive()` is told is registered with the selector once, at the first wait, and stays
    so between waits and between generators. `close()`, or the end of a `with` block, gives the
    registration back. So does an error of a generator, after which its library may have closed the
    file. One that the generator names itself is registered anew at each wait: it may be another
    file with the same number.

    Close the driver before the file is closed. Else a file that gets the same number meanwhile may
    be taken for this one.

    Example:
        >>> import corolib, os, selectors
        >>> from corolib.interop import ReadinessDriver
        >>> def first_bytes(fd):
        ...     yield selectors.EVENT_READ
        ...     return os.read(fd, 100)
        >>> def main(fd):
        ...     with ReadinessDriver() as driver:
        ...         return (yield from driver.drive(first_bytes(fd), fd))
        >>> reader, writer = os.pipe()
        >>> _ = os.write(writer, b"hello")
        >>> corolib.run(main, reader)
        b'hello'
        >>> os.close(reader), os.close(writer)
        (None, None)

    Source: the generators of psycopg 3 (`psycopg.generators`, D. Varrazzo); "sans-I/O" protocols.
    """

    __slots__ = ("_fd", "_file", "_readable", "_writable")

    def __init__(self) -> None:
        self._fd: int | None = None
        self._file: BorrowedFile | None = None
        self._readable: ReadWait
        self._writable: WriteWait

    @waits
    def drive(
        self, generator: Generator[Any, Any, T], fd: int | None = None
    ) -> Generator[Any, Any, T]:
        """Wait until a generator has ended; return what it returned.

        The generator yields `selectors.EVENT_READ` (1), `EVENT_WRITE` (2), or both in one number;
        or a pair of a file number and such events. It is sent the events that came: one of the two
        if it waits for either. At its first step it is sent None.

        Args:
            generator: any object with `send()`, as a generator has it.
            fd: the number of the file, if the generator does not say it. It is made non-blocking.

        Returns:
            What the generator returned.

        Raises:
            What left the generator.
            ValueError: it asked for something else, or no file is known.
            BusyError: another task waits for that file; ClosedError: the driver was closed.
            OSError: the number is no open file. After these the generator stands at its `yield`.
            Cancelled: the wait was cancelled. The generator stands at its `yield`, neither closed
                nor told. To let it come to its end, drive it again: it is sent None.
        """
        if must_yield():
            yield
        came: int | None = None
        while True:
            try:
                asked = generator.send(came)
            except StopIteration as end:
                value: T = end.value
                return value
            except BaseException:
                self.close()
                raise
            number, events = fd, asked
            if isinstance(asked, tuple) and len(asked) == 2:
                number, events = asked
                self.close()
            if events not in (EVENT_READ, EVENT_WRITE, EITHER) or type(number) is not int:
                raise ValueError(
                    f"drive(): the generator yielded {brief(asked)}. It may yield EVENT_READ (1), "
                    "EVENT_WRITE (2) or both (3), if drive() is told the file; or (fd, events)"
                )
            came = yield from self._wait(number, events)

    def _wait(self, fd: int, events: int) -> Generator[Any, Any, int]:
        """Wait for some events of a file; return which came."""
        if self._file is None or fd != self._fd:
            self.close()
            self._file = BorrowedFile(fd)
            self._fd = fd
            self._readable = ReadWait(self._file)
            self._writable = WriteWait(self._file)
        if events == EITHER:
            which, _ = yield from first(self._readable, self._writable)
            return EVENT_WRITE if which else EVENT_READ
        yield self._readable if events == EVENT_READ else self._writable
        return events

    def close(self) -> None:
        """Give the registration back; tasks that wait for the file get ClosedError. It stays open.

        It may be called again, also after the run. The next `drive` registers anew.
        """
        file, self._file = self._file, None
        if file is None:
            return
        scheduler = running_scheduler()
        if scheduler is None:
            file.close()
        else:
            scheduler.close_file(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
