"""More than one core: `run_workers` forks processes that serve the same listeners.

    listener = listen_tcp("0.0.0.0", 7007)
    run_workers(4, main, listener)          each of four processes does `run(main, listener)`

The parent runs no task. It waits for its children, starts a crashed one again, and when it is told
to stop, tells them. Everything about connections is in the workers, as in a server of one process.

Each worker waits for the end of a pipe, whose other end the parent alone has: so it notices, on any
system and as whatever user, that the parent is gone, and stops as by SIGTERM. (Linux would send a
signal, PR_SET_PDEATHSIG; but it forgets that when a process becomes another user.)

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
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from signal import SIGINT, SIGTERM
from typing import Any, NamedTuple, NoReturn

from corolib.kernel import (
    DEFAULT_TRACE,
    Coro,
    ReadWait,
    Runnable,
    Scheduler,
    Suspend,
    Wake,
    WakeupPair,
    brief,
    check_number,
    check_trace,
    current_scheduler,
    handle_signal,
    handles_signals,
    is_a,
    observed,
    public,
    run,
    running_scheduler,
    to_stderr,
    trace_of,
    users_part,
    write_signals_to,
)
from corolib.net.listening import Listening
from corolib.system.identity import Identity

MINUTE = 60.0
"""Seconds in which a worker may crash `restarts` times."""

PAUSES = 0.1, 10.0
"""Seconds before a start, at first and at most. They double while workers crash at their start."""

START = 0.5
"""Seconds for which a worker has lived that did not crash at its start."""

TRIAL = 5.0
"""Seconds in which the first workers show whether the program works at all."""

MISTAKES = (TypeError, AttributeError, NameError, ImportError, SyntaxError)
"""Errors that are mistakes in the program: another worker would end by the same one."""

MISTAKE = 70
"""The status that they make: EX_SOFTWARE of sysexits.h."""

ALONE = 1.0
"""Seconds before a start, at most, where no other worker serves the clients meanwhile."""

BATCH = 8
"""Connections accepted in one go: with more, one worker takes a crowd for itself."""

SHORT_OF_MEMORY = 0.05
"""Seconds until what the system could not do is tried again."""

LONGEST_WAIT = 1e6
"""Seconds: `poll` refuses more than 24 days."""


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
    restarts: float = math.inf,
    kill_after: float = 30.0,
    user: str | int | None = None,
    group: str | int | None = None,
    **options: Any,
) -> list[WorkerReport]:
    """Fork `n` worker processes, each of which does `run(f, *args)`; return when all have ended.

    `run_workers(4, main, listener)`, where `def main(listener): yield from listener.serve(echo)`.

    An ordinary call, before any run and before threads are started: a fork copies locks that a
    thread holds, and Python 3.12 and newer warn of that. Listeners among `args` are handed over:
    they are closed here when the workers are told to stop, or have ended, and the file of a Unix
    socket goes. To have a socket for each worker, let `f` open it with `reuse_port=True`.

    A worker that ends with a status other than 0, or is killed, has crashed: its connections are
    lost, the others go on, and another one takes its place. That is logged to "corolib.workers".
    Before it comes a pause of 0.1 s, which doubles while workers crash within half a second of
    their start: up to 10 s, or to 1 s where no other worker is left. One whose `f` returns has done
    its work. What leaves `f` is printed, and makes status 1; SystemExit brings its own. A mistake
    in the program, as a TypeError is, makes 70: after that of a first worker, within five seconds,
    all end. A worker waits for no threads and calls no `atexit` functions, which are the parent's.

    SIGTERM, unless the program handles it, is passed on to the workers, whose servers then stop
    within their grace. Ctrl-C does the same, and KeyboardInterrupt is raised in the end; a second
    one kills. The workers themselves take no notice of SIGINT, which a terminal sends to all. If
    this process is killed, they notice, and stop as by SIGTERM.

    Args:
        n: how many. `len(os.sched_getaffinity(0))` is one for each processor.
        f: what each worker runs; with `functools.partial` it may have keywords.
        restarts: how often a worker is started again within a minute. After one crash more its
            place stays empty, and the others go on. By default there is no end to it.
        kill_after: seconds that workers have to end when told to, before they are killed: more
            than the `grace` of their servers.
        user, group: the user that the workers become before `f`, by name or number, with the
            supplementary groups of that user, or none if it has no name. The group is by default
            the user's. This process stays who it is, and the environment what it is.
        options: those of `run`; in the name of a trace comes the pid, as in `out-4711.html`.

    Returns:
        A list of `n` reports, each of the last process in its place: `pid`, `status` (minus the
        number of the signal that killed it) and `restarts`.

    Raises:
        RuntimeError: a scheduler runs here, or this is not the main thread, where alone Python
            handles signals; (in the end) all have ended, one by crashing too often or by a mistake.
        KeyboardInterrupt: Ctrl-C, when all workers have ended.
        OSError: no process can be made, and those that were end again; none can be that user.
        TypeError, ValueError: an argument is not of its kind; there is no such user or group.
        NotImplementedError: this system cannot fork.

    Source: the pre-fork servers of W. R. Stevens, UNIX Network Programming, chapter 30; the bound
    on restarts is that of the supervisors of Erlang/OTP.
    """
    check_place()
    _check(n, f, options)
    listeners = [each for each in args if isinstance(each, Listening)]
    restarts = check_number(restarts, "restarts=", "a number")
    places = [_Place(number, restarts) for number in range(n)]
    kill_after = check_number(kill_after, "kill_after=", "a duration")
    identity = Identity.checked(user, group)
    parent = _Parent(places, partial(_run_until, identity, f, args, options), listeners, kill_after)
    if SIGINT in parent.run():
        raise KeyboardInterrupt
    return parent.reports()


def check_place() -> None:
    """Raise if workers cannot be forked here."""
    if not hasattr(os, "fork"):
        raise NotImplementedError(
            "run_workers() forks, which this system cannot: start the program several times, each "
            "with listen_tcp(host, port, reuse_port=True)"
        )
    if running_scheduler() is not None:
        raise RuntimeError("run_workers() is called before any run: a scheduler runs here already")
    if not handles_signals():
        raise RuntimeError(
            "run_workers() works only in the main thread of the main interpreter, as signals do"
        )


def _check(n: int, f: object, options: dict[str, Any]) -> None:
    """Raise here what each worker would otherwise crash with."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"run_workers({brief(n)}): give the number of workers, at least 1")
    if not callable(f):
        raise TypeError(f"run_workers() got {brief(f)}: give the function, which each worker calls")
    known: dict[str, Any] = run.__kwdefaults__ or {}
    for name in options:
        if name not in known:
            raise TypeError(
                f"run_workers() has no keyword {brief(name)}: its keywords are its own and those "
                f"of run(). If {brief(name)} is for the function, use functools.partial"
            )
    check_trace(options.get("trace", DEFAULT_TRACE))
    scheduler = observed(Scheduler, **{**options, "trace": None})
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
        # When the process was started, or that was tried; and when the next one is.
        self.started = -math.inf
        self.due = math.inf
        self.given_up = False
        self._limit = restarts
        self._pause = 0.0
        # The times of the crashes in the last minute.
        self._crashes: deque[float] = deque()

    def pause(self, now: float, alone: bool) -> float | None:
        """Note a crash; return the seconds until the next start, None if there were too many.

        Where workers crash at their start, as without a database, the next one is not likely to do
        better soon. One that has lived for longer was killed by what it did just then.
        """
        while self._crashes and self._crashes[0] <= now - MINUTE:
            self._crashes.popleft()
        if len(self._crashes) >= self._limit:
            self.given_up = True
            return None
        self._crashes.append(now)
        shortest, longest = PAUSES
        at_start = now - self.started < START
        self._pause = min(2 * self._pause, longest) if at_start and self._pause else shortest
        return min(self._pause, ALONE) if alone else self._pause

    def age(self) -> float:
        """Return the seconds since its process was started."""
        return time.monotonic() - self.started

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
        self._pair = WakeupPair()
        self._undo = ExitStack()
        self._poll = select.poll()
        self._poll.register(self._pair.fileno(), select.POLLIN)

    def __enter__(self) -> _Signals:
        undo = self._undo.callback
        undo(self._pair.close)
        undo(write_signals_to(self._pair.wakeup_fd()))
        usual: dict[int, object] = {SIGTERM: signal.SIG_DFL, SIGINT: signal.default_int_handler}
        for signum in _handled():
            before = signal.getsignal(signum)
            if signum == signal.SIGCHLD or before is usual[signum]:
                undo(handle_signal(signum, self._handle))
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
        try:
            self._poll.poll(seconds * 1000)
            self._pair.read()
        except OSError:
            # The system has no memory for it just now.
            time.sleep(SHORT_OF_MEMORY)


class _Parent:
    """The process that has the workers."""

    def __init__(
        self,
        places: list[_Place],
        body: Callable[[socket.socket], object],
        listeners: list[Listening],
        kill_after: float,
    ) -> None:
        # Imported now, and not when there are no files left to import it with.
        import logging

        self._log = logging.getLogger("corolib.workers")
        self._places = places
        self._body = body
        self._listeners = listeners
        for listener in listeners:
            listener.batch = BATCH
        self._kill_after = kill_after
        self._signals = _Signals()
        # The end that this process alone has, and the one that says to the workers when it is gone.
        self._ours, self._theirs = socket.socketpair()

    def run(self) -> list[int]:
        """Return the signals that told all to stop, when all have ended."""
        with self._signals as signals:
            try:
                for place in self._places:
                    self._fork(place)
                self._watch()
            finally:
                self._stop()
                self._ours.close()
                self._theirs.close()
        return signals.stops

    def reports(self) -> list[WorkerReport]:
        """Return how the last process in each place has ended."""
        lost = [str(place) for place in self._places if place.given_up]
        if lost and not self._signals.stops:
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
                if place.status == MISTAKE and not place.restarts and place.age() < TRIAL:
                    raise RuntimeError(
                        f"{place}, by a mistake in the program, which its traceback shows: none is "
                        "started again"
                    )
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
        pause = place.pause(now, alone=not self._alive())
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
        self._send(SIGTERM)
        for listener in self._listeners:
            listener.close()
        deadline = time.monotonic() + self._kill_after
        stops = self._signals.stops
        while True:
            # Before any wait: the signal that told of an end may be read already.
            for place in self._reap():
                # By SIGTERM it may have ended before it had a server.
                # And those that end by the same mistake have told.
                if place.status not in (0, -SIGTERM, MISTAKE):
                    self._log.warning("%s when told to stop", place)
            if not self._alive() or time.monotonic() >= deadline or stops.count(SIGINT) >= 2:
                break
            # One that somebody has stopped, or stops now, would not hear of it.
            self._send(signal.SIGCONT)
            self._signals.wait(deadline)
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
        place.started = time.monotonic()
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
            status = _exit_status(partial(self._begin, mask))
            _flush()
        finally:
            os._exit(status)

    def _begin(self, mask: set[int]) -> None:
        """Let go of what is the parent's, and do the work."""
        self._signals.close()
        if signal.getsignal(SIGINT) is signal.default_int_handler:
            # Not SIG_IGN, which programs that the worker starts would inherit.
            signal.signal(SIGINT, lambda signum, frame: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._ours.close()
        self._body(self._theirs)


def _run_until(
    identity: Identity | None,
    f: Callable[..., Runnable[Any]],
    args: tuple[Any, ...],
    options: dict[str, Any],
    lifeline: socket.socket,
) -> None:
    """Run `f(*args)` as the user that was asked for; SIGTERM comes at the end of `lifeline`."""
    if identity is not None:
        identity.take()
    lifeline.setblocking(False)
    scheduler = observed(Scheduler, **options)
    # It becomes a child of the main task, which comes first.
    scheduler.call_soon_threadsafe(lambda: scheduler.spawn(_end_with, lifeline, daemon=True))
    scheduler.run(f, *args)


def _end_with(lifeline: socket.socket) -> Coro[None]:
    """Wait until the parent is gone; then SIGTERM comes. Deadlocks are found all the same."""

    def arm(wake: Wake) -> Callable[[], object]:
        return current_scheduler().arm(ReadWait(lifeline), wake)

    yield Suspend(arm, "the end of the parent process")
    os.kill(os.getpid(), SIGTERM)


def _exit_status(body: Callable[[], object]) -> int:
    """Call `body` and return the status with which Python would exit after it, and say why."""
    try:
        body()
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return (exc.code or 0) & 0xFF
        to_stderr(exc.code)
        return 1
    except BaseException as exc:
        # How the library has come to the program's code says nothing, if it has.
        whole = trace_of(exc)
        # Written as one piece, with `_flush`: the other workers may write there at the same time.
        with suppress(Exception):
            stderr: Any = sys.stderr
            stderr.reconfigure(line_buffering=False, write_through=False)
        sys.excepthook(type(exc), exc, trace_of(users_part(exc, "corolib.")) or whole)
        return MISTAKE if is_a(exc, MISTAKES) else 1
    return 0


def _flush() -> None:
    for file in (sys.stdout, sys.stderr):
        # There may be no such file, it may be closed, or nobody reads it any more.
        with suppress(Exception):
            file.flush()
