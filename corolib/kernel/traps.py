"""The traps: what a task yields to ask something of the scheduler.

    yield ReadWait(sock)                until `sock` can be read
    yield WriteWait(sock)               until `sock` can be written
    yield UrgentWait(sock)              until `sock` has urgent data
    yield Sleep(0.5)                    until half a second has passed
    value = yield Suspend(arm, what)    until somebody calls `wake`
    yield                               give way: until the next turn

A trap is a plain description and does nothing by itself; `scheduler.py` says where each one is made
a wait. Every trap works with `yield`, `yield from` and `await`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from corolib.kernel.checks import check_number, file_name
from corolib.kernel.safely import brief, class_name
from corolib.kernel.waits import public

if TYPE_CHECKING:
    from corolib.kernel.task import Task

T_co = TypeVar("T_co", covariant=True)

Coro = Generator[Any, Any, T_co]
"""What a task function returns: `def double(x: int) -> Coro[int]: yield; return 2 * x`."""


class HasFileno(Protocol):
    """A file object: a socket, a pipe, anything with a number of the operating system's."""

    def fileno(self) -> int: ...


class _FileWait:
    """What the waits for files share."""

    __slots__ = ("entry", "file")

    def __init__(self, file: HasFileno | int) -> None:
        self.file = file
        self.entry: Any = None  # the poller's, once it keeps a registration of the file

    def __iter__(self) -> Generator[_FileWait, Any, None]:
        yield self

    __await__ = __iter__

    def __repr__(self) -> str:
        return f"{class_name(self)}({file_name(self.file)})"


@public
class ReadWait(_FileWait):
    """Wait until a file can be read: data, end of file, an error, or a client to accept.

    Ready does not mean that a read will succeed: another process may have been faster. Put the
    call in a loop, and wait again on BlockingIOError. Once a socket was waited for, do not make it
    blocking, and lay no other file over its number (`os.dup2`): nobody looks at that again.

    Args:
        file: a non-blocking socket, another file that the selector can watch, or its number.

    Raises (at the `yield`):
        BusyError: another task is already waiting to read this file.
        ClosedError: the file is closed, or was closed during the wait.
        ValueError, TypeError, OSError: this is not a file that can be waited for.
        Cancelled: the wait was cancelled; it is as if it had not been made.

    Example:
        >>> import corolib, socket
        >>> def first_bytes(sock):
        ...     yield corolib.ReadWait(sock)
        ...     return sock.recv(100)
        >>> a, b = socket.socketpair()
        >>> with a, b:
        ...     a.setblocking(False)
        ...     _ = b.send(b"hello")
        ...     corolib.run(first_bytes, a)
        b'hello'

    Source: recipe 12.12 of the Python Cookbook (ReadSocket); pyos8 (ReadWait).
    """

    __slots__ = ()


@public
class WriteWait(_FileWait):
    """Wait until a file can be written: there is room in its buffer, or an error to collect.

    Ready means room for one byte: a write may be short. For arguments and errors see `ReadWait`.

    Source: recipe 12.12 of the Python Cookbook (WriteSocket); pyos8 (WriteWait).
    """

    __slots__ = ()


@public
class UrgentWait(_FileWait):
    """Wait until a file has urgent data: then `sock.recv(1, socket.MSG_OOB)` takes the byte.

    What the system calls an exceptional condition (`POLLPRI`): for TCP, a byte sent with `MSG_OOB`.
    It lasts until that byte is taken, or others behind it are read. A newer urgent byte takes the
    place of one that was not taken. With `SO_OOBINLINE` it stays among the others, and an ordinary
    `recv` stops in front of it.

    The wait also ends with an error of the connection, or its end in both directions. Then there
    may be nothing to take, which is an OSError. The end of what comes in does not end it: another
    task may read at the same time.

    The wait needs Linux and one more file number. For arguments and errors see `ReadWait`.

    Raises (at the `yield`):
        NotImplementedError: this system has no epoll.

    Example:
        >>> import corolib, socket
        >>> def urgent_byte(sock):
        ...     yield corolib.UrgentWait(sock)
        ...     return sock.recv(1, socket.MSG_OOB)
        >>> with socket.create_server(("127.0.0.1", 0)) as listener:
        ...     a = socket.create_connection(listener.getsockname())
        ...     b, _ = listener.accept()
        >>> with a, b:
        ...     b.setblocking(False)
        ...     _ = a.send(b"!", socket.MSG_OOB)
        ...     corolib.run(urgent_byte, b)
        b'!'

    Source: the third set of `select()` (4.2BSD). RFC 6093 advises new programs against urgent data.
    """

    __slots__ = ()


@public
class Sleep:
    """Wait until a time has come: `Sleep(seconds)` from now, or `Sleep(at=deadline)`.

    Never ends early. Zero and less give way, as a bare `yield` does; `math.inf` waits for ever.

    Args:
        seconds: a duration.
        at: a deadline on the clock of `now()`.

    Raises:
        TypeError, ValueError: not a number, NaN, or minus infinity (here, not at the `yield`).
        Cancelled (at the `yield`): the wait was cancelled.

    Example:
        >>> import corolib
        >>> def nap():
        ...     before = corolib.now()
        ...     yield corolib.Sleep(0.01)
        ...     return corolib.now() - before >= 0.01
        >>> corolib.run(nap)
        True
    """

    __slots__ = ("at", "seconds")

    def __init__(self, seconds: float | None = None, *, at: float | None = None) -> None:
        if (seconds is None) == (at is None):
            raise TypeError(
                "Sleep() takes either a duration, Sleep(0.5), or a deadline, Sleep(at=t)"
            )
        self.seconds = None if seconds is None else check_number(seconds, self, "a duration")
        self.at = None if at is None else check_number(at, self, "a deadline")

    def __iter__(self) -> Generator[Sleep, Any, None]:
        yield self

    __await__ = __iter__

    def __repr__(self) -> str:
        return f"Sleep(at={self.at})" if self.seconds is None else f"Sleep({self.seconds})"


class Wake(Protocol):
    """What `arm` is given: call it once, from any thread or signal handler, to end the wait."""

    def __call__(self, value: Any = None, error: BaseException | None = None) -> None: ...


@public
class Suspend(Generic[T_co]):
    """Wait until somebody calls `wake`: for everything that is not a file or a time.

    Args:
        arm: called once as `arm(wake)` when the wait begins; starts the operation and returns its
            undo. What it raises, the task gets at its `yield`. `wake(value=None, error=None)`
            may be called inside `arm`, late, or twice; only the first call counts. The undo is
            called only when the wait is taken back, never after a wake.
        what: what is waited for, in the words of a report: "acquire <Lock B>"; or a verb and a
            thing, `("acquire", lock)`: a report takes its `title()` if it has one, or its `repr`.
        holder: returns the tasks on which the end of this wait depends, for deadlock reports; and
            None with them if it may come from elsewhere, too.
        outside: True when something the scheduler cannot see (a thread, a child process, a
            signal) may end the wait; such a wait is never counted as part of a deadlock.

    Returns (at the `yield`): the value given to `wake`, or its error is raised.

    Raises (at the `yield`):
        Cancelled: the wait was cancelled; its undo was called first.

    Example:
        >>> import corolib
        >>> def shout(wake):
        ...     wake("hello")
        ...     return lambda: None
        >>> def hear():
        ...     return (yield corolib.Suspend(shout, "a shout"))
        >>> corolib.run(hear)
        'hello'
    """

    __slots__ = ("arm", "holder", "outside", "what")

    def __init__(
        self,
        arm: Callable[[Wake], Callable[[], object]],
        what: object,
        *,
        holder: Callable[[], Iterable[Task[Any] | None]] | None = None,
        outside: bool = False,
    ) -> None:
        if not callable(arm):
            raise TypeError(f"Suspend(): arm must be a function of `wake`, not {brief(arm)}")
        self.arm = arm
        self.what = what
        self.holder = holder
        self.outside = outside

    def __iter__(self) -> Generator[Suspend[T_co], Any, T_co]:
        try:
            value: T_co = yield self
            return value
        finally:
            # What `arm` belongs to may hold the error, whose traceback holds this frame.
            del self

    __await__ = __iter__

    def __repr__(self) -> str:
        try:
            if type(self.what) is not tuple:
                return f"{self.what}"
            verb, thing = self.what
            return f"{verb} {thing.title() if hasattr(thing, 'title') else brief(thing)}"
        except Exception:
            return f"a {class_name(self.what)} (whose str fails)"


Trap = ReadWait | WriteWait | UrgentWait | Sleep | Suspend[Any]
