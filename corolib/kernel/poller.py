"""The poller: who waits for which file, and the selector under it.

All bookkeeping of selector registrations is here and nowhere else, because here speed and safety
pull in opposite directions. Registering at each wait and unregistering at each wake is safe and
costs twice the time. Leaving files registered is fast, and dangerous: numbers are used again for
other files, and a `dup` keeps a closed file alive in epoll for ever. So:

- The registration of a `socket.socket` is kept between waits, for a socket never changes its
  number. It is held by a weak reference and goes with the socket. Numbers and all other objects
  are registered at each wait and unregistered at each wake.
- A registration belongs to an *object*, not to its number. The number in the hands of another
  object means that the old file is gone: its waiters get `ClosedError`.
- A file that fires while nobody waits is disarmed. A wait that is taken back is unregistered at
  once, before its task can do anything with the file.
- Closing behind the library's back is noticed by a sweep, in slices, at most once a second.
- A selector that reports a file nobody registered, or a number that is not ready, or returns early
  and empty three times, holds something that cannot be removed, and is made anew.
- If `select()` itself raises, each file is tried alone, and the waiters of the bad ones get the
  error.

A waiter is a task, of which the poller touches `wait`, `wait_state` and `outcome`; one that is
woken is appended to the ready queue. Imports from corolib the words, and the wording of one
complaint.
"""

from __future__ import annotations

import os
import select
import selectors
import socket
from _thread import get_ident
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import KeyedRef, getweakrefs

from corolib.kernel.diagnostics import busy
from corolib.kernel.errors import BusyError, ClosedError
from corolib.kernel.traps import HasFileno, ReadWait, Trap, UrgentWait, WriteWait

if TYPE_CHECKING:
    from corolib.kernel.task import Task
    from corolib.kernel.timers import Timers
    from corolib.kernel.urgent import UrgentWatch

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE  # what is asked of the selector
IN, OUT, ERR = 1, 4, 8  # what is reported, by poll's numbers; all but the first two concern both
SWEEP_EVERY = 1.5  # seconds between two looks for files closed behind our back; of the two that
# are promised, half a one is left for its slices: ten turns when 20 000 files are open
SWEEP_SLICE = 2000  # files a turn: about 0.2 ms
EARLY = 3  # empty returns before the time, in a row, that make a selector suspect

Selector = Callable[[], selectors.BaseSelector]

if hasattr(selectors, "EpollSelector"):

    class DirectEpoll(selectors.EpollSelector):
        """EpollSelector that also hands out epoll's own pairs of number and event.

        The list of keys that `select()` makes of them costs 1700 instructions a message, a sixth
        of an echo. `_selector` is a private name of the standard library; a test pins it.
        """

        def __init__(self) -> None:
            super().__init__()
            self.pairs: Callable[[float | None], list[tuple[int, int]]]
            self.pairs = self._selector.poll  # type: ignore[attr-defined]

    default_selector: Selector = DirectEpoll
else:  # pragma: no cover - systems without epoll; the suite runs on the other selectors by name
    default_selector = selectors.DefaultSelector


class OwnedSocket(socket.socket):
    """A connection that nobody but the library holds, so nobody closes it behind our back: the
    poller looks for that at all other sockets, which costs 500 instructions each.
    """

    __slots__ = ()


OwnedSocket.__name__ = "socket"  # as messages call it


class Entry:
    """One registered file: its number, who waits for it, and what the selector was told."""

    __slots__ = (
        *("asker", "fd", "identity", "kept", "ref", "watched"),
        *("reads", "mask", "poller", "reader", "writer"),
    )

    def __init__(self, poller: Poller, fd: int, ref: Callable[[], Any], kept: bool) -> None:
        self.poller: Poller | None = poller
        self.fd = fd
        self.ref = ref  # returns the file object, or None when it is gone
        self.kept = kept  # the registration stays between waits
        self.watched = True  # it may be closed behind our back
        self.identity: tuple[int, int] | None = None  # device and inode, unless it is a socket
        self.asker: select.poll | None = None  # asks whether the file takes data at once
        self.set_mask(0)
        self.reader: Task[Any] | None = None
        self.writer: Task[Any] | None = None

    def set_mask(self, mask: int) -> None:
        """Note what the selector was told. (`reads` is READ of it: asked at each wait.)"""
        self.mask = mask
        self.reads = bool(mask & READ)

    def wanted(self) -> int:
        """Return the directions in which somebody waits."""
        return (READ if self.reader else 0) | (WRITE if self.writer else 0)


class Poller:
    """The table of waits for files. `ready` is the queue to which woken tasks are appended."""

    def __init__(
        self,
        make: Selector,
        ready: Any,
        clock: Callable[[], float],
        timers: Timers,
        remade: Callable[[], object],
    ) -> None:
        self.entries: dict[int, Entry] = {}
        self.watches: dict[
            int, UrgentWatch
        ] = {}  # of waits for urgent data, by the file: see urgent.py
        self._make = make
        self._append = ready.append
        self._clock = clock
        self._timers = timers
        self._remade = remade  # called when the selector is another one
        self.sweeping = False  # a sweep is planned
        self.used = False  # by steps, since the last sweep began: any of them may close a file
        self._wakeup: int
        self._drain: Callable[[], object]
        self._selector: selectors.BaseSelector
        self.opened = False
        self._thread = get_ident()
        self._early = 0
        self._stale = False
        self._unswept: list[Entry] = []
        # Numbers whose file was closed before it was unregistered: a `dup` may keep them in epoll.
        self._doubtful: set[int] = set()
        # Whether a file can be asked if it is ready; not on Windows.
        self._can_ask = hasattr(select, "poll")
        self._forget = self._collected  # made once: it is 64 bytes, and each file has it

    def open(self, wakeup: int, drain: Callable[[], object]) -> None:
        """Make the selector, if there is none. When the file `wakeup` can be read, `drain()` is
        called: the way in for other threads and signals.
        """
        if not self.opened:
            self._wakeup, self._drain = wakeup, drain
            self._new_selector()

    def selector_fileno(self) -> int:
        """Return the number of the selector, which can be read when a file is ready."""
        if not self.opened:
            raise RuntimeError("the scheduler is not open: call `open()` first")
        try:
            return self._selector.fileno()  # type: ignore[attr-defined, no-any-return]
        except AttributeError:
            kind = type(self._selector).__name__
            raise NotImplementedError(f"{kind} has no number that can be watched") from None

    def _new_selector(self) -> None:
        self._selector = self._make()
        self.opened = True
        self._pairs = getattr(self._selector, "pairs", self._translated)
        self._selector.register(self._wakeup, READ)

    def _translated(self, timeout: float | None) -> list[tuple[int, int]]:
        """Return what a standard selector reports, as epoll would; and an error for closed files,
        which poll() reports as ready.
        """
        bits = (0, IN, OUT, IN | OUT)
        pairs = []
        for key, events in self._selector.select(timeout):
            entry = self.entries.get(key.fd)
            gone = entry is not None and fileno(entry.ref()) == -1
            pairs.append((key.fd, bits[events] | (ERR if gone else 0)))
        return pairs

    # Waiting ----------------------------------------------------------------------------------

    def wait_read(self, task: Task[Any], trap: ReadWait) -> None:
        """Park `task` until the trap's file can be read. For a file that is watched already, the
        scheduler does that itself.
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
            ref = entry.ref  # as a method, a slot is looked up the slow way
            room = ref() is file and entry.writer is None and entry.asker.poll(0)
        except (AttributeError, KeyError, TypeError):
            pass  # it was not asked yet; or it is no socket, or none that is known
        if room is None:
            room = self._has_room(trap)
        if room:
            append = self._append  # and so is what an object has of its own
            append(task)
        else:
            self._admit(task, trap, WRITE).writer = task

    def _has_room(self, trap: WriteWait) -> bool:
        """Return whether a socket can take data at once. Its entry keeps what was made to ask it,
        300 bytes: to make that costs as much as to ask four times.
        """
        file: Any = trap.file
        if not isinstance(file, socket.socket):
            return False
        entry = self.entries.get(file.fileno())
        waiting = entry is not None and entry.writer is not None
        if waiting or not self._can_ask or file.fileno() == -1:
            return False  # `_admit` finds out what is wrong, or waits
        check_nonblocking(trap)
        asker = select.poll()
        asker.register(file, select.POLLOUT)
        if entry is not None and entry.ref() is file:
            entry.asker = asker
        return bool(asker.poll(0))

    def _admit(self, task: Task[Any], trap: ReadWait | WriteWait, bit: int) -> Entry:
        """Note the wait in the table and tell the selector; or raise, with nothing left behind."""
        file = trap.file
        fd = number(trap)
        if isinstance(file, socket.socket):
            check_nonblocking(trap)
        entry = self.entries.get(fd)
        if entry is not None and not self._is_of(entry, file):
            self._drop(entry)
            entry = None
        if entry is None:
            entry = self._new_entry(file, fd, type(trap).__name__)
        waiter = entry.reader if bit == READ else entry.writer
        if waiter is not None:
            raise BusyError(busy(trap, waiter))
        if not entry.mask & bit:
            try:
                self._set_mask(entry, entry.mask | bit)
            except PermissionError as exc:
                raise PermissionError(
                    exc.errno,
                    f"{trap!r}: the selector cannot watch a regular file or a device that is "
                    "always ready; read and write it in a thread: `yield from to_thread(f.read)`",
                ) from None
        if bit == READ and entry.kept:
            trap.entry = entry
        task.wait = trap
        task.wait_state = entry
        return entry

    def _new_entry(self, file: Any, fd: int, name: str) -> Entry:
        if isinstance(file, socket.socket):
            entry = Entry(self, fd, KeyedRef(file, self._forget, fd), True)
            entry.watched = not isinstance(file, OwnedSocket)
            return entry
        entry = Entry(self, fd, lambda: file, False)
        try:
            entry.identity = inode(fd)
        except OSError as exc:
            raise OSError(exc.errno, f"{name}({fd}): no file is open under this number") from None
        return entry

    def _is_of(self, entry: Entry, file: object) -> bool:
        """Return whether `entry` is for the open file behind `file`, which has its number now."""
        owner = entry.ref()
        if isinstance(owner, int):
            return entry.identity == inode(entry.fd)
        return owner is file or fileno(owner) == entry.fd  # or two living objects over one file

    def undo_read(self, task: Task[Any]) -> None:
        """Take back the wait of a reader."""
        entry = task.wait_state
        entry.reader = None
        self._settle(entry, entry.mask & ~READ)

    def undo_write(self, task: Task[Any]) -> None:
        """Take back the wait of a writer."""
        entry = task.wait_state
        entry.writer = None
        self._settle(entry, entry.mask & ~WRITE)

    # Waking -----------------------------------------------------------------------------------

    def poll(self, timeout: float | None, deadline: float) -> None:
        """Wait for files, at most `timeout` seconds (None: no limit), and wake their tasks.

        `deadline` is the same moment on the clock, to tell an early return from a late one.
        All events are turned into woken tasks before any of these runs, so a number that one of
        them closes and uses again concerns nobody else.
        """
        try:
            pairs = self._pairs(timeout)
        except (OSError, ValueError):
            if not self._weed():
                raise
            return
        entries = self.entries
        append = self._append
        for fd, event in pairs:
            try:
                entry = entries[fd]
            except KeyError:  # the wake-up pipe's, or a stranger's
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
        if self._stale:
            self._remake()
        elif pairs:
            self._early = 0
        elif timeout != 0 and self._clock() < deadline:
            self._early += 1
            if self._early == EARLY:
                self._remake()

    def _fired(self, fd: int, entry: Entry | None, event: int) -> None:
        """Act on one event: wake who waits for it, disarm what nobody waits for."""
        if entry is None:
            if fd == self._wakeup:
                self._drain()
            else:
                self._stale = True
            return
        unwanted = 0
        if event & ~OUT and not self._wake_reader(entry):
            unwanted |= READ
        if event & ~IN and not self._wake_writer(entry):
            unwanted |= WRITE
        self._settle(entry, entry.mask & ~unwanted)

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
        """Let `mask` be what the selector is told of the entry, less what need not be kept."""
        if not entry.kept:
            mask = entry.wanted()
        if mask != entry.mask and self.entries.get(entry.fd) is entry:
            try:
                self._set_mask(entry, mask)
            except OSError as exc:  # the number was closed or changed behind our back
                self._drop(entry, exc)

    def _set_mask(self, entry: Entry, mask: int) -> None:
        """Tell the selector; an entry is in the table exactly while it is registered."""
        fd = entry.fd
        if entry.mask == 0:
            self._register(fd, mask)
            self.entries[fd] = entry
        elif mask == 0:
            del self.entries[fd]
            entry.set_mask(0)
            if fileno(entry.ref()) != fd:
                self._doubtful.add(fd)
            self._unregister(fd)
        else:
            try:
                self._selector.modify(fd, mask)
            except OSError:  # epoll forgot it: the number was closed, and perhaps opened again
                self._unregister(fd)
                self._register(fd, mask)
        entry.set_mask(mask)

    def _register(self, fd: int, mask: int) -> None:
        try:
            self._selector.register(fd, mask)
        except FileExistsError:  # left in epoll by a `dup` of a file that had this number
            self._remake()
            self._selector.register(fd, mask)

    def _unregister(self, fd: int) -> None:
        try:
            self._selector.unregister(fd)
        except KeyError:  # a failed `modify` has dropped it already
            pass

    def _drop(self, entry: Entry, cause: OSError | ValueError | None = None) -> None:
        """Take a file out of the table. Who waits for it gets `ClosedError`, if that is so or no
        other cause is known.
        """
        if self.entries.get(entry.fd) is entry:
            self._set_mask(entry, 0)
        if fileno(entry.ref()) == -1:
            cause = None
        waiters = (entry.reader, entry.writer)
        entry.reader = entry.writer = None
        for task in waiters:
            if task is not None:
                error = closed(task) if cause is None else type(cause)(*cause.args)
                task.outcome = (None, error)
                task.wait = None
                self._append(task)

    def _collected(self, ref: KeyedRef[int, Any]) -> None:
        """Forget a socket that was dropped: nobody can wait for it any more.

        One that was dropped in another thread is left to the sweep.
        """
        entry = self.entries.get(ref.key)
        if entry is not None and entry.ref is ref:
            entry.watched = True
            if get_ident() == self._thread:
                self._set_mask(entry, 0)

    def _remake(self) -> None:
        """Make the selector anew, with what is waited for and nothing else."""
        self._selector.close()
        self._new_selector()
        self._doubtful.clear()
        self._stale = False
        self._early = 0
        entries = list(self.entries.values())
        self.entries.clear()
        for entry in entries:
            entry.set_mask(0)
            if entry.wanted():
                try:
                    self._set_mask(entry, entry.wanted())
                except (OSError, ValueError) as exc:
                    self._drop(entry, exc)
        self._remade()

    def _weed(self) -> bool:
        """Try each file alone; drop those that `select()` refuses, and return if there were any."""
        found = False
        for entry in list(self.entries.values()):
            alone = self._make()
            try:
                alone.register(entry.fd, entry.mask)
                alone.select(0)
            except (OSError, ValueError) as exc:
                self._drop(entry, exc)
                found = True
            finally:
                alone.close()
        return found

    # Closing ----------------------------------------------------------------------------------

    def close_file(self, file: HasFileno | int) -> None:
        """Close a file; who waits for it gets `ClosedError`, with nothing in between."""
        if isinstance(file, bool) or not (isinstance(file, int) or hasattr(file, "fileno")):
            raise TypeError(f"close({file!r}): a {type(file).__name__} is not a file")
        fd = fileno(file)
        if fd == -1:  # closed behind our back; somebody may wait for it all the same
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
        """Return the entry of a file that has lost its number already."""
        if isinstance(file, socket.socket):  # our weak reference to it knows the number
            keys = [ref.key for ref in getweakrefs(file) if isinstance(ref, KeyedRef)]
            entries = [self.entries[key] for key in keys if key in self.entries]
        else:
            entries = list(self.entries.values())
        return next((entry for entry in entries if entry.ref() is file), None)

    def sweep_later(self, last: float) -> None:
        """Plan a sweep, for some time after `last`, the beginning of the last one or now. None is
        planned while nothing runs here: then hardly a file is closed.
        """
        self.sweeping = True
        self._timers.set(last + SWEEP_EVERY, self._sweep, None)

    def _sweep(self, began: float | None) -> None:
        """Look through some files for closed ones, and go on in the next turn if there are more."""
        if began is None:
            began = self._clock()
            self.used = False
        if self.sweep(SWEEP_SLICE):
            self._timers.set(self._clock(), self._sweep, began)
        elif self.used:  # what was seen first may have been closed since
            self.sweep_later(began)
        else:
            self.sweeping = False

    def sweep(self, most: int) -> bool:
        """Look through at most `most` files for closed ones; return whether more are to be seen."""
        if not self._unswept:
            self._unswept = [entry for entry in self.entries.values() if entry.watched]
            if self._doubtful:
                self._check_doubtful()
        part = self._unswept[-most:]
        del self._unswept[-most:]  # at the end: all the others stay where they are
        for entry in part:
            ref = entry.ref
            try:
                if ref().fileno() != -1:  # by far the most: 500 instructions each
                    continue
            except Exception:
                pass  # a number, or a file that is gone
            if fileno(ref()) == -1:
                self._drop(entry)
        return bool(self._unswept)

    def _check_doubtful(self) -> None:
        """Remake the selector if it reports a doubtful number that is not ready: then a closed
        file is still in it, under a number that another file has now.
        """
        if not self._can_ask:
            return
        try:
            told = [(fd, event) for fd, event in self._pairs(0) if fd in self._doubtful]
        except (OSError, ValueError):  # `select()` itself found something: the next `poll` does too
            return
        asker = select.poll()
        for fd, event in told:
            asker.register(fd, event)
        if len(asker.poll(0)) < len(told):
            self._remake()

    def close(self) -> None:
        """Close the selector. Also right in a forked child: it touches no registration."""
        for entry in self.entries.values():
            entry.poller = None  # traps that outlive the run keep their entries
        self.entries.clear()
        self._unswept.clear()
        if self.opened:
            self._selector.close()
        for watch in self.watches.values():
            watch.close()
        self.watches.clear()


def number(trap: ReadWait | WriteWait | UrgentWait) -> int:
    """Return the number of the trap's file, or raise what is wrong with it."""
    file: Any = trap.file
    if isinstance(file, bool) or not (isinstance(file, int) or hasattr(file, "fileno")):
        raise TypeError(
            f"{type(trap).__name__}({file!r}): a {type(file).__name__} is not a file; "
            "give a socket, an object with a fileno() method, or a file number"
        )
    fd = file if isinstance(file, int) else file.fileno()
    if not isinstance(fd, int):
        raise TypeError(f"{trap!r}: its fileno() returned {fd!r}, which is not a number")
    if fd == -1 and not isinstance(file, int):
        raise ClosedError(f"{trap!r}: the file is closed")
    if not 0 <= fd < 2**31:
        raise ValueError(f"{type(trap).__name__}({fd}): no file has this number")
    return fd


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
    if file.gettimeout() != 0 and file.fileno() != -1:
        raise ValueError(f"{trap!r}: the socket is blocking; call conn.setblocking(False) first")


def closed(task: Task[Any]) -> ClosedError:
    """Return the error for a task whose file was closed behind the library's back."""
    return ClosedError(f"{task.wait!r}: the file was closed during the wait")
