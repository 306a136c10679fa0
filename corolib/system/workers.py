"""More than one core: `run_workers` forks processes that serve the same listeners.

    listener = listen_tcp("0.0.0.0", 7007)
    run_workers(4, main, listener)          each of four processes does `run(main, listener)`

The parent runs no task. It waits for its children, starts a crashed one again, and when it is told
to stop, tells them. Everything about connections is in the workers, as in a server of one process.

One listener for all, opened before the fork, and not one for each that shares the port: so the
connections that wait when a worker dies are served by another. Each worker accepts a few in a
turn, so a busy one, whose turns are long, takes fewer. The price: a new connection wakes every
worker that has nothing to do, and those that come too late find nothing and wait again. Measured
on two processors, that is one wake-up in vain for 20 connections with two workers, and for two
with four. (EPOLLEXCLUSIVE would wake only one of them, but prefers the same one again and again,
and forbids to change a registration, which the poller does.)

What a worker does with its listener is in `net/servers.py`. Functions that run in another process
are in `process_pool.py`.
"""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from signal import SIGINT, SIGTERM
from typing import Any, NamedTuple, NoReturn

from corolib.kernel import (
    CallQueue,
    Runnable,
    Scheduler,
    check_number,
    public,
    run,
    running_scheduler,
)
from corolib.net.listening import Listening

MINUTE = 60.0
"""Seconds in which a worker may crash so many times."""

PAUSES = 0.1, 10.0
"""Seconds before a start: after the first crash in a minute, and at most."""

BATCH = 8
"""Connections accepted in one go: with more, one worker takes a crowd for itself."""

LONGEST_WAIT = 1e6
"""Seconds: `poll` refuses more than 24 days."""

PR_SET_PDEATHSIG = 1
"""Of <linux/prctl.h>: have this process get a signal when its parent is gone."""


@public
class WorkerReport(NamedTuple):
    """How one worker ended: its `pid`, its `status`, and how often it was started again.

    The status is the one it exited with, or minus the number of the signal that killed it.
    """

    pid: int
    status: int
    restarts: int


@public
def run_workers(
    n: int,
    f: Callable[..., Runnable[Any]],
    /,
    *args: Any,
    restarts: float = 5,
    kill_after: float = 30.0,
    **options: Any,
) -> list[WorkerReport]:
    """Fork `n` worker processes, each of which does `run(f, *args)`; return when all have ended.

    `run_workers(4, main, listener)`, where `def main(listener): yield from listener.serve(echo)`.

    An ordinary call, before any run and before threads are started: a fork copies locks that a
    thread holds, and Python 3.12 and newer warn of that. Listeners among `args` are handed over:
    they are closed here when the workers are told to stop, or have ended, and the file of a Unix
    socket goes. To have a socket for each worker, let `f` open it with `reuse_port=True`.

    A worker that ends with a status other than 0, or is killed, has crashed: its connections are
    lost, the others go on, and after a pause another one takes its place. That is logged to
    "corolib.workers". One whose `f` returns has done its work. What leaves `f` is printed as
    Python does, and makes status 1; SystemExit brings its own. A worker waits for no threads and
    calls no `atexit` functions, which are the parent's.

    SIGTERM, unless the program handles it, is passed on to the workers, whose servers then stop
    within their grace. Ctrl-C does the same, and KeyboardInterrupt is raised in the end; a second
    one kills. The workers themselves take no notice of SIGINT, which a terminal sends to all. If
    this process is killed, they get SIGTERM from the system (on Linux only).

    Args:
        n: how many. `len(os.sched_getaffinity(0))` is one for each processor.
        f: what each worker runs; with `functools.partial` it may have keywords.
        restarts: how often a worker is started again within a minute; `math.inf` for any number.
            After one crash more its place stays empty, and the others go on.
        kill_after: seconds that workers have to end when told to, before they are killed: more
            than the `grace` of their servers.
        options: those of `run`.

    Returns:
        A list of `n` reports, each of the last process in its place: `pid`, `status` (minus the
        number of the signal that killed it) and `restarts`.

    Raises:
        RuntimeError: a scheduler runs here, or this is not the main thread, where alone Python
            handles signals; (in the end) all workers have ended, one by crashing too often.
        KeyboardInterrupt: Ctrl-C, when all workers have ended.
        OSError: no process can be made; those that were are stopped again.
        TypeError, ValueError: an argument is not of its kind.
        NotImplementedError: this system cannot fork.

    Source: the pre-fork servers of W. R. Stevens, UNIX Network Programming, chapter 30; the bound
    on restarts is that of the supervisors of Erlang/OTP.
    """
    _check_place()
    _check_arguments(n, f, options)
    listeners = [each for each in args if isinstance(each, Listening)]
    places = [
        _Place(number, check_number(restarts, "restarts=", "a number")) for number in range(n)
    ]
    kill_after = check_number(kill_after, "kill_after=", "a duration")
    for listener in listeners:
        listener.batch = BATCH
    return _Parent(places, partial(run, f, *args, **options), listeners, kill_after).run()


def _check_place() -> None:
    if not hasattr(os, "fork"):
        raise NotImplementedError(
            "run_workers() forks, which this system cannot: start the program several times, each "
            "with listen_tcp(host, port, reuse_port=True)"
        )
    if running_scheduler() is not None:
        raise RuntimeError("run_workers() is called before any run: a scheduler runs here already")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run_workers() works only in the main thread, as signals do")


def _check_arguments(n: int, f: object, options: dict[str, Any]) -> None:
    """Raise here what each worker would otherwise crash with."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"run_workers({n!r}): give the number of workers, at least 1")
    if not callable(f):
        raise TypeError(f"run_workers() got {f!r}: give the function, which each worker calls")
    for name in options:
        if name not in (Scheduler.__init__.__kwdefaults__ or ()):
            raise TypeError(
                f"run_workers() has no keyword {name!r}: its keywords are its own and those of "
                f"run(). If {name!r} is for the function, use functools.partial"
            )
    scheduler = Scheduler(**options)
    try:
        scheduler.open()
    finally:
        scheduler.close()


class _Place:
    """The place of one worker: the process that is there, or when the next one is due."""

    def __init__(self, number: int, restarts: float) -> None:
        self.number = number
        self.pid = 0
        self.alive = False
        self.status = 0
        self.restarts = 0
        self.due = math.inf
        self.given_up = False
        self._limit = restarts
        self._pause = 0.0
        # The times of the crashes in the last minute.
        self._crashes: deque[float] = deque()

    def pause(self, now: float) -> float | None:
        """Note a crash; return the seconds until the next start, None if there were too many."""
        while self._crashes and self._crashes[0] <= now - MINUTE:
            self._crashes.popleft()
        if len(self._crashes) >= self._limit:
            self.given_up = True
            return None
        shortest, longest = PAUSES
        self._pause = min(2 * self._pause, longest) if self._crashes else shortest
        self._crashes.append(now)
        return self._pause

    def report(self) -> WorkerReport:
        return WorkerReport(self.pid, self.status, self.restarts)

    def __str__(self) -> str:
        if self.alive:
            return f"worker {self.number} (pid {self.pid})"
        how = f"ended with status {self.status}"
        if self.status < 0:
            how = f"was killed by {_name(-self.status)}"
        return f"worker {self.number} (pid {self.pid}) {how}"


def _name(signum: int) -> str:
    known = {int(each): each for each in signal.valid_signals()}
    return getattr(known.get(signum), "name", f"signal {signum}")


def _handled() -> tuple[int, ...]:
    """Return the signals that the parent handles. A function: without fork there is no SIGCHLD."""
    return SIGINT, SIGTERM, signal.SIGCHLD


class _Signals:
    """The signals that this process gets: in `with`, they end `wait`, and do nothing else.

    Of those that end a program only where nobody else handles them.
    """

    def __init__(self) -> None:
        # Each SIGTERM and each SIGINT that has come.
        self.stops: list[int] = []
        self._callqueue = CallQueue()
        self._callqueue.open()
        self._undo = ExitStack()
        self._poll = select.poll()
        self._poll.register(self._callqueue.fileno(), select.POLLIN)

    def __enter__(self) -> _Signals:
        undo = self._undo.callback
        undo(self._callqueue.close)
        undo(
            signal.set_wakeup_fd,
            signal.set_wakeup_fd(self._callqueue.wakeup_fd(), warn_on_full_buffer=False),
        )
        usual: dict[int, object] = {SIGTERM: signal.SIG_DFL, SIGINT: signal.default_int_handler}
        for signum in _handled():
            before = signal.getsignal(signum)
            if signum == signal.SIGCHLD or before is usual[signum]:
                undo(signal.signal, signum, before)
                signal.signal(signum, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Put everything back."""
        self._undo.close()

    def _handle(self, signum: int, frame: object) -> None:
        if signum != signal.SIGCHLD:
            self.stops.append(signum)

    def wait(self, until: float) -> None:
        """Wait for a signal, or for that time to come. May return early."""
        seconds = min(max(until - time.monotonic(), 0), LONGEST_WAIT)
        self._poll.poll(seconds * 1000)
        self._callqueue.drain()


class _Parent:
    """The process that has the workers."""

    def __init__(
        self,
        places: list[_Place],
        body: Callable[[], object],
        listeners: list[Listening],
        kill_after: float,
    ) -> None:
        # Imported now, and not when there are no files left to import it with.
        import logging

        self._log = logging.getLogger("corolib.workers")
        self._places = places
        self._body = body
        self._listeners = listeners
        self._kill_after = kill_after
        self._signals = _Signals()
        self._pid = os.getpid()

    def run(self) -> list[WorkerReport]:
        with self._signals as signals:
            try:
                for place in self._places:
                    self._fork(place)
                self._watch()
            finally:
                self._stop()
        if SIGINT in signals.stops:
            raise KeyboardInterrupt
        lost = [str(place) for place in self._places if place.given_up]
        if lost and not signals.stops:
            raise RuntimeError(f"no worker is left, and too many crashed: {', '.join(lost)}")
        return [place.report() for place in self._places]

    def _alive(self) -> list[_Place]:
        return [place for place in self._places if place.alive]

    def _watch(self) -> None:
        """Keep the places filled, until a signal comes or nobody is left."""
        while (due := min(place.due for place in self._places)) < math.inf or self._alive():
            self._signals.wait(due)
            if self._signals.stops:
                return
            for place in self._reap():
                if place.status != 0:
                    self._crashed(place, str(place))
            for place in self._places:
                if place.due <= time.monotonic():
                    self._start_again(place)

    def _reap(self) -> list[_Place]:
        """Return the places whose processes have ended."""
        ended = []
        for place in self._alive():
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if pid:
                place.alive = False
                place.status = os.waitstatus_to_exitcode(status)
                ended.append(place)
        return ended

    def _crashed(self, place: _Place, what: str) -> None:
        now = time.monotonic()
        pause = place.pause(now)
        if pause is None:
            self._log.error("%s: that is too often, it is not started again", what)
        else:
            self._log.warning("%s: it is started again in %g s", what, pause)
            place.due = now + pause

    def _start_again(self, place: _Place) -> None:
        place.due = math.inf
        try:
            self._fork(place)
        except OSError as exc:
            self._crashed(place, f"worker {place.number} cannot be started, {exc}")
        else:
            place.restarts += 1

    def _stop(self) -> None:
        """Tell the workers to stop, wait until they have ended, and kill those that do not."""
        for listener in self._listeners:
            listener.close()
        self._send(SIGTERM)
        deadline = time.monotonic() + self._kill_after
        stops = self._signals.stops
        while self._alive() and time.monotonic() < deadline and stops.count(SIGINT) < 2:
            self._signals.wait(deadline)
            for place in self._reap():
                # By SIGTERM it may have ended before it had a server.
                if place.status not in (0, -SIGTERM):
                    self._log.warning("%s when told to stop", place)
        for place in self._alive():
            self._log.warning("%s has not ended, and is killed", place)
        self._send(signal.SIGKILL)
        while self._alive():
            self._signals.wait(math.inf)
            self._reap()

    def _send(self, signum: int) -> None:
        for place in self._alive():
            # It is not reaped yet, so no other process has this number.
            os.kill(place.pid, signum)

    # In both processes ------------------------------------------------------------------------

    def _fork(self, place: _Place) -> None:
        """Start a process. What is sent to it at once is not lost: it reads it a bit later."""
        # Else what is in the buffers would be written by both.
        _flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _handled())
        try:
            pid = os.fork()
            if pid == 0:
                self._work(before)
            place.pid, place.alive = pid, True
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _work(self, mask: set[int]) -> NoReturn:
        """Be a worker. Whatever happens, nothing goes on here that is the parent's."""
        status = 1
        try:
            self._signals.close()
            if signal.getsignal(SIGINT) is signal.default_int_handler:
                # Not SIG_IGN, which programs that the worker starts would inherit.
                signal.signal(SIGINT, lambda signum, frame: None)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _end_with(self._pid)
            status = _exit_status(self._body)
            _flush()
        finally:
            os._exit(status)


def _end_with(parent: int) -> None:
    """Have this process get SIGTERM when its parent is gone, however that comes."""
    if sys.platform == "linux":  # pragma: no branch - elsewhere there is no such thing
        from ctypes import CDLL, c_ulong

        CDLL(None).prctl(PR_SET_PDEATHSIG, c_ulong(SIGTERM))
    if os.getppid() != parent:
        # The parent is gone already.
        os.kill(os.getpid(), SIGTERM)


def _exit_status(body: Callable[[], object]) -> int:
    """Call `body` and return the status with which Python would exit after it, and say why."""
    try:
        body()
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return (exc.code or 0) & 0xFF
        print(exc.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _flush() -> None:
    for file in (sys.stdout, sys.stderr):
        # There may be no such file, it may be closed, or nobody reads it any more.
        with suppress(Exception):
            file.flush()
