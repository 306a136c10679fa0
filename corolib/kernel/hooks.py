"""What a run changes in the process and the thread around it, and puts back.

- SIGINT: only in the main thread, and only if Python's default handler is in place. Then a signal
  also wakes the selector, through `signal.set_wakeup_fd`.
- `dump_signal`: a handler that prints the report of all tasks on stderr.
- the hooks for async generators: one that a task drops half-way is closed by a task of its own.
- fork: what a run has changed is put back in the child, and its schedulers are told that they are
  the parent's.

What is to be done then is said in `lifecycle.py`: this file imports nothing from corolib.
"""

from __future__ import annotations

import os
import sys
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from corolib.kernel.safely import is_a, trace_of, with_trace

if TYPE_CHECKING:
    import signal

    from corolib.kernel.lifecycle import Lifecycle
else:  # the other makes enums of all numbers and handlers, at six times the cost of the calls
    import _signal as signal

# A number that no open file has. What `set_wakeup_fd` looks at first is whether it may be called.
_NO_FILE = 2**31 - 1


def handles_signals() -> bool:
    """Return whether Python handles signals here: in the main thread of the main interpreter.

    What `threading` takes for the main thread is another one in a subinterpreter, and on Python
    3.11 the one that has imported it.
    """
    try:
        signal.set_wakeup_fd(_NO_FILE)
    except ValueError:
        return False
    except OSError:
        pass
    return True


def signal_named(variable: str) -> int | None:
    """Return the signal that a variable of the environment names: `USR1`, `SIGUSR1` or `10`.

    None: it is not set. Raises ValueError: there is no such signal, or it is not free for that.
    """
    name = os.environ.get(variable)
    if not name:
        return None
    full = name if name.startswith("SIG") else f"SIG{name}"
    found = getattr(signal, full, 0) if full.isalnum() else 0  # SIG_IGN is none
    signum = int(name if name.isdecimal() else found)
    if not 0 < signum < signal.NSIG:
        raise ValueError(f"{variable}={name}: there is no such signal; write USR1, for SIGUSR1")
    if signum in [getattr(signal, each, 0) for each in ("SIGKILL", "SIGSTOP", "SIGINT")]:
        raise ValueError(
            f"{variable}={name}: no program hears KILL and STOP, and INT is Ctrl-C; write USR1"
        )
    return signum


DUMP = signal_named("COROLIB_DUMP")  # of programs that say nothing of `dump_signal=`


class ProcessHooks:
    """Signal handlers and async-generator hooks for the time of a run, or of one turn.

    Opens the scheduler after SIGINT got its new handler, and closes it before SIGINT gets the old
    one back. So a Ctrl-C at any moment either finds the handler, or nothing that could leak.
    """

    def __init__(self, owner: Lifecycle, dump_signal: int | None) -> None:
        self._owner = owner
        self.dump_signal = dump_signal
        self._undo: list[Callable[[], object]] = []

    def install(
        self, open_files: Callable[[], object], close_files: Callable[[], object] | None = None
    ) -> None:
        """Set everything up; or, if that fails, change nothing."""
        try:
            self._set_up(open_files, close_files)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Put back what was before: all of it, even if a second Ctrl-C is raised meanwhile. Each
        undo may then be called twice.
        """
        try:
            while self._undo:
                self._undo[-1]()
                del self._undo[-1]  # without a call: a signal comes before or after it
        except KeyboardInterrupt:
            self.remove()
            raise
        except BaseException:
            # That one cannot be undone.
            del self._undo[-1:]
            self.remove()
            raise

    def _set_up(
        self, open_files: Callable[[], object], close_files: Callable[[], object] | None
    ) -> None:
        owner = self._owner
        here = handles_signals()
        ours = here and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours:
            self._undo.append(handle_signal(signal.SIGINT, lambda *_: owner.on_ctrl_c()))
        if close_files is not None:
            self._undo.append(close_files)
        with uninterrupted:
            open_files()
        if ours:
            self._undo.append(write_signals_to(owner.wakeup_fd()))
        hooks = sys.get_asyncgen_hooks()
        self._undo.append(lambda: sys.set_asyncgen_hooks(*hooks))
        sys.set_asyncgen_hooks(owner.on_new_asyncgen, owner.on_dropped_asyncgen)
        if self.dump_signal is None and DUMP is not None and here and close_files is not None:
            self._hear(DUMP)
        if self.dump_signal is not None:
            if not here:
                raise RuntimeError(
                    "dump_signal= works only in the main thread of the main interpreter, as "
                    "signals do"
                )
            self._hear(self.dump_signal)

    def _hear(self, signum: int) -> None:
        """Handle the signal that has the tasks told."""
        self._undo.append(handle_signal(signum, lambda *_: self._owner.on_dump()))
        self._undo.append(self._owner.announce(signum))


class CtrlC:
    """Counts interrupts from the keyboard.

    The first is made into one `KeyboardInterrupt`, which is under way for as long as that
    exception lives: until it was caught and let go of. One that comes before or meanwhile is the
    second, and is raised on the spot; if that is in an `uninterrupted` block, after the step.
    """

    class _Life:
        """Is an attribute of the exception and dies with it. Exceptions have no weak references."""

    def __init__(self) -> None:
        self.pending = False
        self.second = False
        self._life: Callable[[], object] = lambda: None

    def strike(self) -> None:
        """Count one; called by the signal handler, between any two steps of the interpreter."""
        if self.pending or self._life() is not None:
            self.second = True
            if _forking or get_ident() in _uninterrupted:
                return
            raise KeyboardInterrupt
        self.pending = True

    def take(self) -> KeyboardInterrupt:
        """Return the first as an exception, which is under way from now on."""
        error = KeyboardInterrupt()
        error.__dict__["life"] = life = self._Life()
        self._life = weakref.ref(life)
        self.pending = False
        return error

    def ends_all(self, error: BaseException | None) -> BaseException:
        """Return the second as an exception: the `error` that has left a step, if it is that one.

        Its traceback shows where the program hung.
        """
        if error is not None and is_a(error, KeyboardInterrupt):
            return with_trace(KeyboardInterrupt(), trace_of(error))
        return KeyboardInterrupt()


_uninterrupted: list[int] = []  # the threads in such blocks
_forking: list[None] = []  # the forks that go on


class _Uninterrupted:
    """For a short block that makes what nobody would know of if a second Ctrl-C were raised in it.

    `with uninterrupted: ...`. The scheduler raises it when it comes to the next turn.
    """

    def __enter__(self) -> None:
        _uninterrupted.append(get_ident())

    def __exit__(self, *_: object) -> None:
        me = get_ident()
        if me in _uninterrupted:  # else this is a child that was forked in the block
            _uninterrupted.remove(me)


uninterrupted = _Uninterrupted()


# Signals and forks --------------------------------------------------------------------------------


class Change:
    """Something of signals that a run changes. Called, it is put back, the first time.

    It is known before it is made: what comes in between, if only that no more calls can be nested,
    would leave it there for ever.
    """

    def __init__(
        self,
        make: Callable[[], object],
        put_back: Callable[[], object],
        signum: int | None = None,
    ) -> None:
        self._put_back = put_back
        self.signum = signum
        _hear_of_forks()
        _changes[self] = None
        try:
            make()
        except BaseException:
            self()
            raise

    def __call__(self) -> None:
        if self in _changes:
            self._put_back()
            _changes.pop(self, None)  # a second Ctrl-C may have come before


# What is not put back yet, the oldest change first.
_changes: dict[Change, None] = {}
# By thread, while it forks: the signals that it had blocked before.
_masks: dict[int, set[int]] = {}
_told: list[weakref.ref[Any]] = []
_heard: list[None] = []  # that the functions for forks are registered


def handle_signal(signum: int, handler: Callable[[int, Any], object]) -> Change:
    """Have `handler(signum, frame)` called for a signal; return the undo.

    In a forked child that is undone at once: its handlers are those from before.
    """
    # None is a handler that is not Python's, and that Python cannot put back.
    before = signal.getsignal(signum) or signal.SIG_DFL

    def put_back() -> None:
        # The program may have set a handler of its own meanwhile.
        if signal.getsignal(signum) is handler:
            signal.signal(signum, before)

    return Change(lambda: signal.signal(signum, handler), put_back, signum)


def write_signals_to(fd: int) -> Change:
    """Have each signal written to `fd`, which ends the wait for that file; return the undo.

    In a forked child they are written nowhere, at once: that file is the parent's too, and so is
    whichever it was before.
    """
    pid = os.getpid()
    before = -1

    def make() -> None:
        nonlocal before
        before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)

    def put_back() -> None:
        found = signal.set_wakeup_fd(-1)
        if os.getpid() == pid:
            # Somebody else may have set it meanwhile; and that may be the end of a turn.
            signal.set_wakeup_fd(before if found == fd else found)

    return Change(make, put_back)


def signal_is_caught(pid: int, signum: int) -> bool:
    """Return whether a process handles a signal, as far as that can be known."""
    try:
        caught = _status(pid, b"SigCgt:")
    except FileNotFoundError:
        return not os.path.exists("/proc/self/status")  # this system does not say
    return bool(int(caught, 16) >> (signum - 1) & 1)


def user_of(pid: int) -> int:
    """Return whose process this is, as far as that can be known: else it is ours.

    The owner of its folder in /proc is root, if it has given rights up.
    """
    try:
        return int(_status(pid, b"Uid:"))
    except FileNotFoundError:
        return os.getuid()


def _status(pid: int, name: bytes) -> bytes:
    """Return the first word that Linux tells of a process by this name."""
    with open(f"/proc/{pid}/status", "rb") as file:
        return next(line.split()[1] for line in file if line.startswith(name))


def told_of_forks() -> list[Any]:
    """Return those that live of whom `tell_of_fork` was told."""
    return [thing for each in _told.copy() if (thing := each()) is not None]


def tell_of_fork(thing: Any) -> None:
    """Have `thing.on_fork()` called in every child that is forked while it lives.

    They are not in a `WeakSet`: a Ctrl-C that comes while it drops a dead member would be ignored.
    """
    for each in _told.copy():
        if each() is None:
            # Another thread may have been faster.
            with suppress(ValueError):
                _told.remove(each)
    _hear_of_forks()
    _told.append(weakref.ref(thing))


def _before_fork() -> None:
    """Let the signals that runs handle wait until the child has its own handlers.

    One that is sent to the child at once would be noted for the parent, and lost.
    """
    if signums := {each.signum for each in _changes.copy() if each.signum is not None}:
        # What a pending signal raises here leaves the mask as it is, or known.
        _masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, signums)


def _after_fork() -> None:
    try:
        mask = _masks.pop(get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    finally:
        del _forking[-1:]  # without a call, after which a signal could come


# What is raised during a fork would be ignored, and the rest of the function that it leaves not
# done. So this is called first, and it is no Python function: no signal handler runs in it.
_raise_nothing = partial(_forking.append, None)


def _in_child() -> None:
    try:
        for change in reversed(list(_changes)):
            change()
        for thing in filter(None, [each() for each in _told]):
            thing.on_fork()
    finally:
        _uninterrupted.clear()  # of threads that are not there
        _forking.clear()
        _after_fork()


def _hear_of_forks() -> None:
    """Have these called from now on.

    Not before there is something to do: Python ignores a Ctrl-C that comes in one of them, which a
    program that has only imported corolib would miss.
    """
    if not _heard and hasattr(os, "register_at_fork"):  # Windows cannot fork
        _heard.append(None)
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child
        )
        os.register_at_fork(before=_raise_nothing)  # the last one is called first
