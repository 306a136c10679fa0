"""What a run changes in the process and the thread around it, and puts back.

- SIGINT: only in the main thread, and only if Python's default handler is in place. Then a signal
  also wakes the selector, through `signal.set_wakeup_fd`.
- `dump_signal`: a handler that prints the report of all tasks on stderr.
- the hooks for async generators: one that a task drops half-way is closed by a task of its own.
- fork: in the child the schedulers of the parent are told that they are dead.

What is to be done then is said in `lifecycle.py`: this file imports nothing from corolib.
"""

from __future__ import annotations

import os
import sys
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import signal

    from corolib.kernel.lifecycle import Lifecycle
else:  # the other makes enums of all numbers and handlers, at six times the cost of the calls
    import _signal as signal

# It is the main thread, if nobody knows better.
_IMPORTED_IN = get_ident()


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

    def _set_up(
        self, open_files: Callable[[], object], close_files: Callable[[], object] | None
    ) -> None:
        owner = self._owner
        # Not imported here: on Python 3.11 `threading` takes who imports it for the main thread.
        threading = sys.modules.get("threading")
        main = _IMPORTED_IN if threading is None else threading.main_thread().ident
        in_main_thread = get_ident() == main
        ours = in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours:
            self._handle(signal.SIGINT, owner.on_ctrl_c)
        if close_files is not None:
            self._undo.append(close_files)
        open_files()
        if ours:
            old_fd = signal.set_wakeup_fd(owner.wakeup_fd(), warn_on_full_buffer=False)
            self._undo.append(lambda: signal.set_wakeup_fd(old_fd))
        hooks = sys.get_asyncgen_hooks()
        self._undo.append(lambda: sys.set_asyncgen_hooks(*hooks))
        sys.set_asyncgen_hooks(owner.on_new_asyncgen, owner.on_dropped_asyncgen)
        if self.dump_signal is not None:
            if not in_main_thread:
                raise RuntimeError("dump_signal= works only in the main thread, as signals do")
            self._handle(self.dump_signal, owner.on_dump)

    def _handle(self, signum: int, call: Callable[[], None]) -> None:
        before = signal.signal(signum, lambda signum, frame: call())
        self._undo.append(lambda: signal.signal(signum, before))


class CtrlC:
    """Counts interrupts from the keyboard.

    The first is made into one `KeyboardInterrupt`, which is under way for as long as that
    exception lives: until it was caught and let go of. One that comes before or meanwhile is the
    second, and is raised on the spot.
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
            raise KeyboardInterrupt
        self.pending = True

    def take(self) -> KeyboardInterrupt:
        """Return the first as an exception, which is under way from now on."""
        error = KeyboardInterrupt()
        error.__dict__["life"] = life = self._Life()
        self._life = weakref.ref(life)
        self.pending = False
        return error


_schedulers: list[weakref.ref[Any]] = []


def tell_of_fork(scheduler: Any) -> None:
    """Have `scheduler.on_fork()` called in every child that is forked while it lives.

    They are not in a `WeakSet`: a Ctrl-C that comes while it drops a dead member would be ignored.
    """
    for each in _schedulers.copy():
        if each() is None:
            # Another thread may have been faster.
            with suppress(ValueError):
                _schedulers.remove(each)
    _schedulers.append(weakref.ref(scheduler))


def _in_child() -> None:
    for scheduler in filter(None, [each() for each in _schedulers]):
        scheduler.on_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows cannot fork
    os.register_at_fork(after_in_child=_in_child)
