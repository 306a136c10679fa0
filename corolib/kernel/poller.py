"""The poller: who waits for which file, and the selector under it.

Speed and safety pull in opposite directions here. To register a file at each wait and unregister it
at each wake is safe, and costs twice the time. To leave it registered is fast, and dangerous. So
all bookkeeping of registrations is in this file. One thing alone is done elsewhere: the loop of
`scheduler.py` notes itself who waits to read a file that is registered already.

What can go wrong. A file is closed behind the library's back: epoll forgets it without a word, and
its task waits for ever. Or epoll keeps it, since a `dup` or another process has the file open: it
goes on reporting it, under a number by which nobody can unregister it any more. The number of a
closed file is used again, and the new file is taken for the old. Two tasks wait for one file, and
the second takes the place of the first. A hang-up is reported of a file that is registered for
nothing at all, and the loop never sleeps again. One of the files that an answer of the selector
names is closed before its task runs, and another file gets its number. A selector refuses regular
files, or fails as a whole because of a single file. It reports what is not so, or returns early
with nothing. So these are the rules:

1.  A file has one waiter in each direction. A second one gets `BusyError`; the first is left alone.
2.  Waking promises nothing: a woken task tries its call, and may wait again. So a false report does
    no harm. A hang-up or an error is in neither direction, and wakes both waiters.
3.  A registration belongs to an *object*, not to its number. Where a task gives the number itself,
    device and inode say which file that is. If a number is in the hands of another file, the old
    one is gone, and its waiters get `ClosedError`.
4.  The registration of a socket is kept between waits, for a socket never changes its number. So
    is that of a `BorrowedFile`. All other objects, and numbers, are registered at each wait and
    unregistered at each wake.
5.  A kept registration refers to its socket weakly. A socket that is dropped leaves the table.
6.  A file that is reported while nobody waits in that direction is no longer asked for in it. What
    is asked for in no direction is not registered.
7.  When a wait is taken back, so is what the selector was told of it, before its task can do
    anything with the file.
8.  All events of one answer become woken tasks before any of these runs. After that no number is
    looked up any more.
9.  A file that cannot be watched is an error of the task that waits for it, and of nobody else. If
    `select()` as a whole fails because of a file, the files are *weeded*: each is tried alone, and
    the waiters of those that fail get the error.
10. A file that is closed through the library is unregistered first, and its waiters get
    `ClosedError`. One that is closed in another way is found within two seconds by a *sweep*, which
    looks at all files in slices. It passes over numbers, which cannot say that they are closed, and
    sockets that only the library holds. None is planned while no task runs, for then hardly a file
    is closed.
11. A selector holds something that cannot be unregistered if it reports a number that nobody has
    registered; or one that is not ready, of a file that was closed before it was unregistered (the
    number is *doubtful* from then on); or if it returns early and empty three times in a row. Then
    it is *remade*: closed, and made anew with what is waited for.
12. What the system refuses for want of memory, of numbers or of whatever else is no file's fault,
    is tried again after a pause. Meanwhile tasks wait on, and nothing is lost. It is logged, once a
    second at most.

A waiter is a task, of which the poller touches `wait`, `wait_state` and `outcome`. One that is
woken is appended to the ready queue. What `UrgentWait` means is said in `urgent.py`; here are only
its watches, for the closing of a file must end them too.
"""

from __future__ import annotations

import errno
import os
import select
import selectors
import socket
import time
from _thread import get_ident
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, getweakrefs

from corolib.kernel.diagnostics import Throttle, busy, log_refusal
from corolib.kernel.errors import BusyError, ClosedError
from corolib.kernel.safely import brief, class_name, trace_of
from corolib.kernel.traps import HasFileno, ReadWait, Trap, UrgentWait, WriteWait

if TYPE_CHECKING:
    from corolib.kernel.task import Task
    from corolib.kernel.timers import Timers
    from corolib.kernel.urgent import UrgentWatch

# What is asked of the selector.
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
# What is reported, by poll's numbers. All but the first two concern both directions (rule 2).
IN, OUT, ERR = 1, 4, 8
# A file closed behind our back is promised to be found within two seconds. Half a second of them is
# left for the slices of the sweep, which are ten turns when 20 000 files are open.
SWEEP_EVERY = 1.5  # seconds between two sweeps
SWEEP_SLICE = 2000  # files a turn: about 0.2 ms
PAUSE = 0.05  # seconds until what the system has refused is tried again (rule 12)
REPORT_EVERY = 1.0  # seconds between two reports of that
EARLY = 3  # empty returns before the time, in a row, that make a selector suspect (rule 11)

# What a selector says of a single file, or of its own: this will not change by waiting.
FAULTS = {errno.EBADF, errno.EINVAL, errno.ELOOP, errno.EPERM}

Selector = Callable[[], selectors.BaseSelector]
Pairs = list[tuple[int, int]]  # numbers of files and what is reported of each

if hasattr(select, "epoll"):

    class Epoll:
        """What the poller asks of a selector, asked of epoll itself: without keys, but in `pairs`.

        The key that an `EpollSelector` makes of each file costs 9000 instructions a connection, and
        its list of those that are ready 1700 a message, a sixth of an echo.
        """

        MASKS = (0, IN, OUT, IN | OUT)

        def __init__(self) -> None:
            epoll = select.epoll()
            self.fileno = epoll.fileno
            self.close = epoll.close
            self.unregister = epoll.unregister
            self.pairs: Callable[[float | None], Pairs] = epoll.poll
            self._epoll = epoll

        def register(self, fd: int, mask: int) -> None:
            self._epoll.register(fd, self.MASKS[mask])

        def modify(self, fd: int, mask: int) -> None:
            self._epoll.modify(fd, self.MASKS[mask])

    default_selector: Any = Epoll
else:  # pragma: no cover - systems without epoll; the suite runs on the other selectors by name
    default_selector = selectors.DefaultSelector


class NoSelector:
    """Stands for a selector that the system did not let be made, and refuses all in its words."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    def _refuse(self, *args: object) -> Any:
        raise OSError(*self._error.args)

    register = modify = unregister = pairs = fileno = _refuse

    def close(self) -> None:
        """Nothing is open."""


class OwnedSocket(socket.socket):
    """A connection that nobody but the library holds: so nobody closes it behind our back.

    The sweep looks at all other sockets, which costs 500 instructions each.
    """

    __slots__ = ()


OwnedSocket.__name__ = "socket"  # as messages call it


class BorrowedFile:
    """A file that another library opened, and closes; its registration is kept until `close()`.

    It never changes its number, as a socket (rule 4). Who has it closes it before the file.
    """

    __slots__ = ("__weakref__", "_fd")

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """Let go of the number: the file stays open."""
        self._fd = -1


KEPT = (socket.socket, BorrowedFile)  # of these the registration is kept between waits


class SocketRef(ReferenceType[Any]):
    """A weak reference to what is kept, which knows the number of that even when it is closed."""

    __slots__ = ("fd",)
    fd: int


class Entry:
    """One registered file: its number, who waits for it, and what the selector was told."""

    __slots__ = (
        *("asker", "fd", "identity", "kept", "ref", "watched"),
        *("reads", "mask", "poller", "reader", "writer"),
    )

    def __init__(self, poller: Poller | None, fd: int, ref: Callable[[], Any], kept: bool) -> None:
        self.poller = poller
        self.fd = fd
        self.ref = ref  # returns the file object, or None when it is gone (rule 5)
        self.kept = kept  # the registration stays between waits (rule 4)
        self.watched = True  # it may be closed behind our back: sweeps look at it (rule 10)
        self.identity: tuple[int, int] | None = None  # device and inode, unless it is a socket
        self.asker: select.poll | None = None  # asks whether the file takes data at once
        self.mask = 0
        self.reads = False
        self.reader: Task[Any] | None = None
        self.writer: Task[Any] | None = None

    def set_mask(self, mask: int) -> None:
        """Note what the selector was told.

        `reads` says whether READ is in it. The loop asks that at each wait, and an attribute is
        faster than a method.
        """
        self.mask = mask
        self.reads = bool(mask & READ)

    def wanted(self) -> int:
        """Return the directions in which somebody waits."""
        return (READ if self.reader else 0) | (WRITE if self.writer else 0)


UNKNOWN = Entry(None, -1, lambda: None, False)
"""Stands for the entry of a file that no poller knows."""


class Poller:
    """The table of waits for files. `ready` is the queue to which woken tasks are appended."""

    def __init__(
        self,
        make: Selector,
        ready: Any,
        clock: Callable[[], float],
        timers: Timers,
    ) -> None:
        self.entries: dict[int, Entry] = {}
        # The watches of the waits for urgent data, by the number of their file: see urgent.py.
        self.watches: dict[int, UrgentWatch] = {}
        self._make = make
        self._append = ready.append
        self._clock = clock
        self._timers = timers
        # Called when the selector is another one.
        self.remade: Callable[[], object] = lambda: None
        self.sweeping = False  # a sweep is planned
        # Whether a step or a call was made since the last sweep began: it may have closed a file.
        self.used = False
        self._wakeups: dict[int, Callable[[], object]]
        self._selector: Any
        self._pairs: Callable[[float | None], Pairs]
        self.opened = False
        self._thread = get_ident()
        self._early = 0  # empty returns before the time, in a row
        self._stale = False  # the selector has reported a number that nobody registered
        self._unswept: list[Entry] = []
        self._refused: set[int] = set()  # numbers that are to be registered (rule 12)
        self._retrying = False  # that is planned
        self._reports = Throttle(clock, REPORT_EVERY)
        # Numbers whose file was closed before it was unregistered: a `dup` may keep them in epoll.
        self._doubtful: set[int] = set()
        # Whether a file can be asked if it is ready; not on Windows.
        self._can_ask = hasattr(select, "poll")
        # Each access to the method would make 64 bytes, and each file keeps one.
        self._forget = self._collected

    def open(self, wakeups: dict[int, Callable[[], object]]) -> None:
        """Make the selector, if there is none.

        When a file of `wakeups` can be read, the call beside its number is made. They are the way
        in for other threads and signals.
        """
        if not self.opened:
            self._wakeups = wakeups
            self._use(self._make())
            self.opened = True
            for fd in wakeups:
                self._selector.register(fd, READ)

    def selector_fileno(self) -> int:
        """Return the number of the selector, which can be read when a file is ready."""
        if not self.opened:
            raise RuntimeError("the scheduler is not open: call `open()` first")
        try:
            return self._selector.fileno()  # type: ignore[no-any-return]
        except AttributeError:
            kind = class_name(self._selector)
            raise NotImplementedError(f"{kind} has no number that can be watched") from None

    def _use(self, selector: Any) -> None:
        self._selector = selector
        self._pairs = self._pairs_of(selector)

    def _pairs_of(self, selector: Any) -> Callable[[float | None], Pairs]:
        return getattr(selector, "pairs", None) or partial(self._translated, selector)

    def _translated(self, selector: selectors.BaseSelector, timeout: float | None) -> Pairs:
        """Return what a standard selector reports, as epoll would.

        A file that is closed gets an error beside: `poll()` reports it as ready.
        """
        bits = (0, IN, OUT, IN | OUT)
        pairs = []
        for key, events in selector.select(timeout):
            entry = self.entries.get(key.fd)
            gone = entry is not None and fileno(entry.ref()) == -1
            pairs.append((key.fd, bits[events] | (ERR if gone else 0)))
        return pairs

    # Waiting ----------------------------------------------------------------------------------

    def wait_read(self, task: Task[Any], trap: ReadWait) -> None:
        """Park `task` until the trap's file can be read.

        For a file that is registered already the loop in `scheduler.py` does that itself.
        """
        self._admit(task, trap, READ).reader = task

    def wait_write(self, task: Task[Any], trap: WriteWait) -> None:
        """Park `task` until the trap's file can be written.

        A socket that can take data at once is not registered: its task is ready. Whether one is
        blocking is asked at its first wait.
        """
        file: Any = trap.file
        room: Any = None
        try:
            entry: Any = self.entries[file.fileno()]
            # Called as `entry.ref()`, a slot is looked up the slow way.
            ref = entry.ref
            room = ref() is file and entry.writer is None and entry.asker.poll(0)
        except (AttributeError, KeyError, TypeError, ValueError):
            # It was not asked yet; or it is no socket, or none that is known.
            pass
        if room is None:
            room = self._has_room(trap)
        if room:
            append = self._append
            append(task)
        else:
            self._admit(task, trap, WRITE).writer = task

    def _has_room(self, trap: WriteWait) -> bool:
        """Return whether a socket can take data at once.

        Its entry keeps the object that asks, which has 300 bytes: to make one costs as much as to
        ask four times.
        """
        file: Any = trap.file
        if not isinstance(file, KEPT):
            return False
        entry = self.entries.get(file.fileno())
        waiting = entry is not None and entry.writer is not None
        if waiting or not self._can_ask or file.fileno() == -1:
            # `_admit` finds out what is wrong, or waits.
            return False
        check_nonblocking(trap)
        asker = select.poll()
        asker.register(file, select.POLLOUT)
        if entry is not None and entry.ref() is file:
            entry.asker = asker
        return bool(asker.poll(0))

    def _admit(self, task: Task[Any], trap: ReadWait | WriteWait, bit: int) -> Entry:
        """Note the wait in the table and tell the selector; or raise, with nothing left behind.

        Here is what is wrong with a single file raised, in the task that waits for it (rule 9).
        """
        file = trap.file
        fd = number(trap)
        check_nonblocking(trap)
        entry = self.entries.get(fd)
        if entry is not None and not self._is_of(entry, file):
            self._drop(entry)  # rule 3
            entry = None
        if entry is None:
            entry = self._new_entry(file, fd, trap)
        waiter = entry.reader if bit == READ else entry.writer
        if waiter is not None:
            raise BusyError(busy(trap, waiter))  # rule 1
        if not entry.mask & bit:
            try:
                self._set_mask(entry, entry.mask | bit)
            except PermissionError as exc:
                raise PermissionError(
                    exc.errno,
                    f"{brief(trap)}: the selector cannot watch a regular file or a device that is "
                    "always ready; read and write it in a thread: `yield from to_thread(f.read)`",
                ) from None
        if bit == READ and entry.kept:
            trap.entry = entry
        task.wait = trap
        task.wait_state = entry
        return entry

    def _new_entry(self, file: Any, fd: int, trap: Trap) -> Entry:
        if isinstance(file, KEPT):
            ref = SocketRef(file, self._forget)
            ref.fd = fd
            entry = Entry(self, fd, ref, True)  # rules 4 and 5
            entry.watched = not isinstance(file, OwnedSocket)
            return entry
        entry = Entry(self, fd, lambda: file, False)
        try:
            entry.identity = inode(fd)
        except OSError as exc:
            text = f"{class_name(trap)}({fd}): no file is open under this number"
            raise OSError(exc.errno, text) from None
        return entry

    def _is_of(self, entry: Entry, file: object) -> bool:
        """Return whether `entry` is for the open file behind `file`, which has its number now.

        It may have been made for another object over the same file, if that is still open (rule 3).
        """
        owner = entry.ref()
        if isinstance(owner, int):
            return entry.identity == inode(entry.fd)
        return owner is file or fileno(owner) == entry.fd

    def undo_read(self, task: Task[Any]) -> None:
        """Take back the wait of a reader (rule 7)."""
        entry = task.wait_state
        entry.reader = None
        self._settle(entry, entry.mask & ~READ)

    def undo_write(self, task: Task[Any]) -> None:
        """Take back the wait of a writer (rule 7)."""
        entry = task.wait_state
        entry.writer = None
        self._settle(entry, entry.mask & ~WRITE)

    # Waking -----------------------------------------------------------------------------------

    def poll(self, timeout: float | None, deadline: float) -> None:
        """Wait for files, at most `timeout` seconds (None: no limit), and wake their tasks.

        `deadline` is the same moment on the clock, to tell an early return from a late one. No task
        runs in here, so no number changes its file while the events are looked at (rule 8).
        """
        try:
            pairs = self._pairs(timeout)
        except (OSError, ValueError, MemoryError) as exc:
            if not self._look_into(exc, timeout):
                raise
            return
        entries = self.entries
        append = self._append
        for fd, event in pairs:
            try:
                entry = entries[fd]
            except KeyError:
                self._fired(fd, None, event)
                continue
            if event == IN:
                task = entry.reader
                if task is not None:
                    entry.reader = None
                    task.wait = None
                    append(task)
                    if entry.kept:
                        continue
            self._fired(fd, entry, event)
        if self._stale:  # rule 11
            self._remake()
        elif pairs:
            self._early = 0
        elif timeout != 0 and self._clock() < deadline:
            self._early += 1
            if self._early == EARLY:
                self._remake()

    def _look_into(self, error: Exception, timeout: float | None) -> bool:
        """Do something about a selector that fails as a whole, and wait a moment (rule 12).

        Returns whether it has failed: else the error is a signal handler's, or the poller is
        closed, as in a child that was forked.
        """
        if not self.opened:
            return False
        if is_fault(error) and self._weed():  # rule 9
            return True
        if not is_of_system(error):
            return False
        if is_fault(error):
            # The selector's own number is bad: somebody has closed it.
            self._remake()
        self._report("the files cannot be watched", error)
        time.sleep(PAUSE if timeout is None else min(timeout, PAUSE))
        return True

    def _fired(self, fd: int, entry: Entry | None, event: int) -> None:
        """Act on one event: wake who waits for it, and ask no more for what nobody waits for.

        Without an entry it is a wake-up's, or a stranger's.
        """
        if entry is None:
            if fd in self._wakeups:
                self._drain(fd)
            else:
                self._stale = True
            return
        unwanted = 0  # rules 2 and 6
        if event & ~OUT and not self._wake_reader(entry):
            unwanted |= READ
        if event & ~IN and not self._wake_writer(entry):
            unwanted |= WRITE
        self._settle(entry, entry.mask & ~unwanted)

    def _drain(self, fd: int) -> None:
        """Read a wake-up file. If the system refuses, it is not watched until the pause is over."""
        try:
            self._wakeups[fd]()
        except OSError as exc:
            if not is_of_system(exc):
                raise
            self._unregister(fd)
            self._put_off(fd, exc)

    def wake_reader(self, trap: Trap) -> None:
        """Wake who waits with this very trap for a file to read, as if it could be read."""
        entry = self.entries.get(fileno(trap.file)) if isinstance(trap, ReadWait) else None
        if entry is not None and entry.reader is not None and entry.reader.wait is trap:
            self._wake_reader(entry)
            self._settle(entry, entry.mask)

    def _wake_reader(self, entry: Entry) -> bool:
        task, entry.reader = entry.reader, None
        return self._wake(entry, task)

    def _wake_writer(self, entry: Entry) -> bool:
        task, entry.writer = entry.writer, None
        return self._wake(entry, task)

    def _wake(self, entry: Entry, task: Task[Any] | None) -> bool:
        if task is None:
            return False
        if fileno(entry.ref()) == -1:
            task.outcome = (None, closed(task))
        task.wait = None
        self._append(task)
        return True

    # Registrations ----------------------------------------------------------------------------

    def _settle(self, entry: Entry, mask: int) -> None:
        """Let `mask` be what the selector is told of the entry, less what need not be kept.

        If the selector refuses, the number was closed or changed behind our back.
        """
        if not entry.kept:
            mask = entry.wanted()  # rule 4
        if mask != entry.mask and self.entries.get(entry.fd) is entry:
            try:
                self._set_mask(entry, mask)
            except OSError as exc:
                self._drop(entry, exc)

    def _set_mask(self, entry: Entry, mask: int) -> None:
        """Tell the selector; an entry is in the table exactly while it is registered."""
        fd = entry.fd
        if mask == 0:
            del self.entries[fd]
            entry.set_mask(0)
            if fileno(entry.ref()) != fd:
                self._doubtful.add(fd)  # rule 11
            self._unregister(fd)
            return
        if entry.mask == 0:
            self._register(fd, mask)
            self.entries[fd] = entry
        else:
            try:
                self._selector.modify(fd, mask)
            except (KeyError, OSError):
                # It was refused. Or epoll forgot it: it was closed, and perhaps opened again.
                self._unregister(fd)
                self._register(fd, mask)
        entry.set_mask(mask)

    def _register(self, fd: int, mask: int) -> None:
        try:
            self._selector.register(fd, mask)
        except (FileExistsError, KeyError):
            # A `dup` of a file that had this number has left it in epoll. Or want of memory has
            # left it in the selector.
            self._remake()
            self._register_anew(fd, mask)
        except OSError as exc:
            self._put_off(fd, exc)

    def _register_anew(self, fd: int, mask: int) -> None:
        """Register a file with a selector that cannot have it yet."""
        try:
            self._selector.register(fd, mask)
        except OSError as exc:
            self._put_off(fd, exc)

    def _put_off(self, fd: int, error: OSError) -> None:
        """Register later what is refused just now (rule 12). Raise what will be refused again."""
        if (is_fault(error) and fd not in self._wakeups) or not is_of_system(error):
            raise error
        self._refused.add(fd)
        self._report("a file cannot be watched or read", error)
        if not self._retrying:
            self._retrying = True
            self._timers.set(self._clock() + PAUSE, self._retry, None)

    def _retry(self, _: None) -> None:
        """Register what was refused, or make the selector that could not be made."""
        self._retrying = False
        if type(self._selector) is NoSelector:
            self._remake()
            return
        refused, self._refused = self._refused, set()
        for fd in refused:
            entry = self.entries.get(fd)
            try:
                self._register_anew(fd, READ if entry is None else entry.mask)
            except (OSError, ValueError) as exc:
                assert entry is not None
                self._drop(entry, exc)

    def _report(self, what: str, error: Exception) -> None:
        if self._reports.passes("refused") is not None:
            log_refusal(what, error)

    def _unregister(self, fd: int) -> None:
        self._refused.discard(fd)
        try:
            self._selector.unregister(fd)
        except (KeyError, OSError):
            # The file is closed, or a failed `modify` has dropped it already.
            pass

    def _drop(self, entry: Entry, cause: OSError | ValueError | None = None) -> None:
        """Take a file out of the table, and wake its waiters with an error.

        It is `ClosedError` if the file is closed or no other cause is known.
        """
        if self.entries.get(entry.fd) is entry:
            self._set_mask(entry, 0)
        if cause is not None and fileno(entry.ref()) == -1:
            cause = None
        waiters = (entry.reader, entry.writer)
        entry.reader = entry.writer = None
        for task in waiters:
            if task is not None:
                error = closed(task) if cause is None else type(cause)(*cause.args)
                task.outcome = (None, error)
                task.wait = None
                self._append(task)

    def _collected(self, ref: SocketRef) -> None:
        """Forget a socket that was dropped: nobody can wait for it any more (rule 5).

        The sweep finds one that was dropped in another thread: the table belongs to ours.
        """
        entry = self.entries.get(ref.fd)
        if entry is not None and entry.ref is ref:
            entry.watched = True
            if get_ident() == self._thread:
                self._set_mask(entry, 0)

    def _remake(self) -> None:
        """Make the selector anew, with what is waited for and nothing else (rule 11)."""
        with suppress(OSError):
            # It is closed by that all the same.
            self._selector.close()
        self._doubtful.clear()
        self._refused.clear()
        self._stale = False
        self._early = 0
        try:
            self._use(self._make())
        except OSError as exc:
            self._use(NoSelector(exc))
            for fd in self._wakeups:
                self._put_off(fd, exc)
            return
        for fd in self._wakeups:
            self._register_anew(fd, READ)
        entries = list(self.entries.values())
        self.entries.clear()
        for entry in entries:
            mask = entry.wanted()
            entry.set_mask(0)
            if mask:
                try:
                    self._register_anew(entry.fd, mask)
                except (OSError, ValueError) as exc:
                    self._drop(entry, exc)
                    continue
                self.entries[entry.fd] = entry
                entry.set_mask(mask)
        self.remade()

    def _weed(self) -> bool:
        """Try each file alone; drop those that fail, and return whether there were any (rule 9)."""
        if self._try_alone(None) is not None:
            # It fails without a file, too.
            return False
        found = False
        for entry in list(self.entries.values()):
            error = self._try_alone(entry)
            if error is not None:
                self._drop(entry, error)
                found = True
        return found

    def _try_alone(self, entry: Entry | None) -> OSError | ValueError | None:
        """Return what a selector says of a file that it has alone, if that is a fault."""
        try:
            with closing(self._make()) as alone:
                if entry is not None:
                    alone.register(entry.fd, entry.mask)
                self._pairs_of(alone)(0)
        except (OSError, ValueError) as exc:
            return exc if is_fault(exc) else None
        return None

    # Closing ----------------------------------------------------------------------------------

    def close_file(self, file: HasFileno | int) -> None:
        """Close a file; who waits for it gets `ClosedError`, with nothing in between (rule 10)."""
        if isinstance(file, bool) or not (isinstance(file, int) or hasattr(file, "fileno")):
            raise TypeError(f"close({brief(file)}): a {class_name(file)} is not a file")
        fd = fileno(file)
        if fd == -1:
            # It was closed behind our back. Somebody may wait for it all the same.
            entry = self._entry_of_closed(file)
            watch = next((watch for watch in self.watches.values() if watch.file is file), None)
        else:
            entry = self.entries.get(fd)
            watch = self.watches.get(fd)
        if entry is not None and (fd == -1 or self._is_of(entry, file)):
            self._drop(entry)
        if watch is not None:
            watch.file_closed()
        if isinstance(file, int):
            os.close(file)
        else:
            file.close()  # type: ignore[attr-defined]

    def _entry_of_closed(self, file: Any) -> Entry | None:
        """Return the entry of a file that has lost its number already.

        Our weak reference to a socket still knows the number.
        """
        if isinstance(file, KEPT):
            fds = [ref.fd for ref in getweakrefs(file) if isinstance(ref, SocketRef)]
            entries = [self.entries[fd] for fd in fds if fd in self.entries]
        else:
            entries = list(self.entries.values())
        return next((entry for entry in entries if entry.ref() is file), None)

    def sweep_later(self, last: float) -> None:
        """Plan a sweep, for some time after `last`: the beginning of the last one, or now."""
        self.sweeping = True
        self._timers.set(last + SWEEP_EVERY, self._sweep, None)

    def _sweep(self, began: float | None) -> None:
        """Look through some files for closed ones, and go on in the next turn if there are more.

        If tasks ran meanwhile, what was seen first may have been closed since: look again later.
        """
        if began is None:
            began = self._clock()
            self.used = False
        if self.sweep(SWEEP_SLICE):
            self._timers.set(self._clock(), self._sweep, began)
        elif self.used:
            self.sweep_later(began)
        else:
            self.sweeping = False

    def sweep(self, most: int) -> bool:
        """Look through at most `most` files for closed ones; return whether more are to be seen."""
        if not self._unswept:
            self._unswept = [entry for entry in self.entries.values() if entry.watched]
            if self._doubtful:
                self._check_doubtful()
        # Taken from the end, all the others stay where they are.
        part = self._unswept[-most:]
        del self._unswept[-most:]
        for entry in part:
            ref = entry.ref
            try:
                # By far the most are open, and done with here: 500 instructions each.
                if ref().fileno() != -1:
                    continue
            except Exception:
                # A number, or a file that is gone.
                pass
            if fileno(ref()) == -1:
                self._drop(entry)
        return bool(self._unswept)

    def _check_doubtful(self) -> None:
        """Remake the selector if it reports a doubtful number that is not ready (rule 11).

        Then a closed file is still in it, under a number that another file has now.
        """
        if not self._can_ask:
            return
        try:
            told = [(fd, event) for fd, event in self._pairs(0) if fd in self._doubtful]
        except (OSError, ValueError):
            # `select()` as a whole fails. The next `poll` finds that too, and weeds.
            return
        asker = select.poll()
        for fd, event in told:
            asker.register(fd, event)
        with suppress(OSError):
            if len(asker.poll(0)) < len(told):
                self._remake()

    def close(self) -> None:
        """Close the selector. Also right in a forked child: it touches no registration.

        Traps that outlive the run keep their entries, which then belong to no poller.
        """
        for entry in self.entries.values():
            entry.poller = None
        self.entries.clear()
        self._unswept.clear()
        if self.opened:
            self.opened = False
            with suppress(OSError):
                self._selector.close()
        for watch in self.watches.values():
            watch.close()
        self.watches.clear()


def number(trap: ReadWait | WriteWait | UrgentWait) -> int:
    """Return the number of the trap's file, or raise what is wrong with it."""
    file: Any = trap.file
    if isinstance(file, socket.socket) and (fd := file.fileno()) != -1:
        return fd
    if isinstance(file, bool) or not (isinstance(file, int) or hasattr(file, "fileno")):
        raise TypeError(
            f"{class_name(trap)}({brief(file)}): a {class_name(file)} is not a file; "
            "give a socket, an object with a fileno() method, or a file number"
        )
    if getattr(file, "closed", False) is True:  # of such a file `fileno()` is a ValueError
        raise ClosedError(f"{brief(trap)}: the file is closed")
    fd = file if isinstance(file, int) else file.fileno()
    if not isinstance(fd, int):
        raise TypeError(f"{brief(trap)}: its fileno() returned {brief(fd)}, which is not a number")
    if fd == -1 and not isinstance(file, int):
        raise ClosedError(f"{brief(trap)}: the file is closed")
    if not 0 <= fd < 2**31:
        raise ValueError(f"{class_name(trap)}({fd}): no file has this number")
    return fd


def is_fault(error: Exception) -> bool:
    """Return whether a selector says that a file, or itself, cannot be watched at all.

    Else the system refuses just now what it can do at another time, or Python has no memory.
    """
    return error.errno in FAULTS if isinstance(error, OSError) else isinstance(error, ValueError)


def is_of_system(error: BaseException) -> bool:
    """Return whether the system has refused a call of ours: else a signal handler raised that.

    Python calls a handler with the frame that it has interrupted, and nothing else has that.
    """
    trace: Any = trace_of(error)
    while trace.tb_next is not None:
        interrupted, trace = trace.tb_frame, trace.tb_next
        for value in trace.tb_frame.f_locals.values():
            given = value if type(value) is tuple else (value,)
            if any(each is interrupted for each in given):
                return False
    return True


def fileno(file: Any) -> int:
    """Return the number of `file`, -1 if it is closed."""
    try:
        fd: int = file if isinstance(file, int) else file.fileno()
    except Exception:
        return -1
    return fd


def inode(fd: int) -> tuple[int, int]:
    """Return what identifies the open file `fd`; OSError if there is none."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def check_nonblocking(trap: ReadWait | WriteWait | UrgentWait) -> None:
    """Refuse a socket whose next call could stop the whole program."""
    file: Any = trap.file
    if isinstance(file, socket.socket) and file.gettimeout() != 0 and file.fileno() != -1:
        text = "the socket is blocking; call conn.setblocking(False) first"
        raise ValueError(f"{brief(trap)}: {text}")


def closed(task: Task[Any]) -> ClosedError:
    """Return the error for a task whose file was closed behind the library's back."""
    return ClosedError(f"{brief(task.wait)}: the file was closed during the wait")
