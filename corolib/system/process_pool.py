"""A function in another process: `value = yield from to_process(f, *args)`.

For work that computes: threads share one interpreter, processes do not. The pool starts with the
first call and ends with the run. Functions that block are for `coordination/threads.py`. Programs
are in `subprocesses.py`, and copies of this one in `workers.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from corolib.coordination.thread_pool import PATIENCE, Job, Pool, check_was_run, end_threads
from corolib.coordination.threads import Threads
from corolib.kernel import (
    RunFinished,
    Scheduler,
    class_name,
    current_scheduler,
    is_a,
    name_of,
    note,
    public,
    to_stderr,
    waits,
)

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor
    from types import FrameType

T = TypeVar("T")


@public
@waits
def to_process(f: Callable[..., T], /, *args: Any) -> Generator[Any, Any, T]:
    """Wait until `f(*args)`, a plain function, has run in another process.

    `value = yield from to_process(f, *args)`, for what computes long in Python: threads would take
    turns with it. The processes are started as they are needed, as many as the machine has CPUs
    (some 0.1 s each), and end with the run. They are new interpreters, not copies of this one: as
    with `multiprocessing`, the function must be found by import, and a program protects its start
    with `if __name__ == "__main__":`. Ctrl-C does not reach them.

    A cancelled call releases the task at once. If the function had not begun, it never will; if it
    has, it goes on, its value is dropped, its failure is reported. What still runs when the run
    ends is waited for as long as `grace`, then named on stderr and killed.

    Args:
        f: a function; it, the arguments and the value are pickled.

    Returns:
        What `f(*args)` returned.

    Raises:
        What `f(*args)` raised, its traceback in the other process being the cause; RuntimeError if
            that cannot be pickled or unpickled. What pickling the call or the value raises.
        RuntimeError: the program's start is not protected.
        concurrent.futures.process.BrokenProcessPool: a process died, perhaps this call's: all
            calls that were under way get this. The next one finds new processes.
        RuntimeError: from a StopIteration; no scheduler runs here.
        Cancelled: the wait was cancelled; see above.

    Example:
        >>> import corolib
        >>> def main():
        ...     return (yield from corolib.to_process(pow, 2, 10))
        >>> corolib.run(main)
        1024
    """
    value: T = yield RemoteCall(current_scheduler().run_local(Processes), f, args).done()
    return value


class RemoteCall(Job):
    """A call that another process makes. A thread hands it over: to start a process takes long."""

    __slots__ = ("future", "processes")

    def __init__(self, processes: Processes, f: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__("to_process", processes.starters, f, args)
        self.processes = processes
        self.future: Future[Any] | None = None

    def run(self) -> tuple[Future[Any] | None, BaseException | None]:
        """Hand the call to a process; in the thread."""
        try:
            self.future = self.processes.submit(self.f, self.args)
            return self.future, None
        except BaseException as exc:
            return None, exc

    def hand_over(self, value: Any, error: BaseException | None) -> None:
        """Have the outcome handed over when there is one."""
        if self.future is None:
            self.post(None, error)
            return
        self.processes.calls.add(self)
        self.future.add_done_callback(self.settle)
        if self.wake is None:
            # It was given up before there was a future to cancel.
            self.future.cancel()

    def give_up(self) -> None:
        """Take it out of the queue, or leave it to its process."""
        super().give_up()
        if self.future is not None:
            self.future.cancel()

    def settle(self, future: Future[Any]) -> None:
        """Hand the outcome over; called in a thread of the process pool's."""
        self.processes.calls.discard(self)
        if future.cancelled():
            return
        error = future.exception()
        value = None
        if error is None:
            value, error = _outcome(self.name, *future.result())
        self.post(value, error)

    def late(self, error: BaseException) -> None:
        """Report a failure of the function itself, though nobody waits any more."""
        from concurrent.futures import BrokenExecutor

        if not is_a(error, (BrokenExecutor, RunFinished)):
            super().late(error)

    def __str__(self) -> str:
        return f"{self.caller}({self.name})"


class Processes:
    """The processes of a run, as long as it lives."""

    def __init__(self, scheduler: Scheduler) -> None:
        _check_guard()
        self.scheduler = scheduler
        self.starter = scheduler.run_local(Threads).starter
        self.starters = Pool("starter", 1, scheduler, self.starter)
        # Those under way.
        self.calls: set[RemoteCall] = set()
        self._pool: ProcessPoolExecutor | None = None
        self._ended = False

    def submit(self, f: Callable[..., Any], args: tuple[Any, ...]) -> Future[Any]:
        """Hand a call to the processes; only in the thread of `starters`."""
        pool = self._pool
        if pool is None or pool._broken:
            pool = _new_pool()
        try:
            future = pool.submit(remote_call, _given(f, args))
            if self._ended:
                # The run has ended meanwhile.
                raise RunFinished
        except BaseException:
            if pool is not self._pool:
                # Nothing else would end the processes that it has started.
                _kill(pool)
            raise
        self._pool = pool
        return future

    def end(self) -> None:
        """End the processes; name and kill those that do not."""
        grace = min(self.scheduler.grace, PATIENCE)
        self._ended = True
        end_threads((self.starters,), self.starter, grace)
        # The pool is freed here, and not later in the midst of anything.
        pool, self._pool = self._pool, None
        if pool is None:
            return
        shutdown = partial(pool.shutdown, cancel_futures=True)
        gone = False
        try:
            thread = self.starter.start(shutdown, (), "corolib-shutdown")
            gone = self.starter.join((thread,), grace)
        finally:
            # Also when no thread could be started for it, and after Ctrl-C, which ends the wait.
            if not gone:
                for call in self.calls.copy():
                    to_stderr(f"corolib: a process still runs {call.what}; it is killed")
                _kill(pool)
        if not gone:
            self.starter.join((thread,), PATIENCE)


# What goes to a process and comes back is pickled here, and the pool sees bytes alone. An object
# that fails there would end the process or break the pool, and with it the calls of others.


def _pickled(thing: object) -> bytes:
    from multiprocessing.reduction import ForkingPickler

    return bytes(ForkingPickler.dumps(thing))


def _given(f: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    try:
        return _pickled((f, args))
    except Exception as exc:
        note(
            exc,
            "to_process() pickles the function and its arguments: give one that has its `def` at "
            "the top of a module, where the other process finds it by its name",
        )
        raise


def remote_call(data: bytes) -> tuple[bytes, str, str, str]:
    """Make a call that comes as bytes, in the process.

    Returns its value or what it raised, as bytes; what was raised, in words, and its traceback;
    and why it could not be pickled, if so.
    """
    import pickle
    import traceback

    try:
        f, args = pickle.loads(data)
        value = f(*args)
        check_was_run("to_process", name_of(f, "f"), args, value)
        return _pickled(value), "", "", ""
    except BaseException as exc:
        what, trace = _words(exc), "".join(traceback.format_exception(exc))
        try:
            return _pickled(exc), what, trace, ""
        except Exception as reason:
            return b"", what, trace, f"cannot be pickled: {_words(reason)}"


def _outcome(
    name: str, data: bytes, what: str, trace: str, fault: str
) -> tuple[Any, BaseException | None]:
    """Return the value and the error of a call that another process has made."""
    import pickle

    thing: Any = None
    if not fault:
        try:
            thing = pickle.loads(data)
        except BaseException as exc:
            fault = f"cannot be unpickled: {_words(exc)}"
        else:
            if what and not isinstance(thing, BaseException):
                fault = f"is unpickled as {class_name(thing)}"
    if not what:
        return thing, RuntimeError(f"{name} returned what {fault}") if fault else None
    error = RuntimeError(f"{name} raised {what}, which {fault}") if fault else thing
    # Not as an assignment: its class may be a frozen dataclass.
    BaseException.__setattr__(error, "__cause__", RemoteTraceback(trace))
    return None, error


def _words(error: BaseException) -> str:
    """Return class and text of an error, also if its `str` fails."""
    import traceback

    return traceback.format_exception_only(error)[0].strip()


class RemoteTraceback(Exception):
    """A traceback from another process, as the cause of an error: tracebacks cannot be pickled."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


# What programs say that heed that they are run again, in each process. (`__name__` alone is said
# for logs, too.)
GUARDS = ("__main__", "__mp_main__", "current_process", "parent_process")


def _check_guard() -> None:
    """Refuse processes for a program that each of them would begin from its top, and not end.

    A new process runs the main script, to find the function. There this `run()` would be called
    again, and each process would say so in its own hundred lines, or serve and never answer.
    """
    main = sys.modules["__main__"]
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not (
        frame.f_globals is vars(main) and frame.f_code.co_name == "<module>"
    ):
        frame = frame.f_back
    path, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if frame is None or path is None or (spec and spec.name.split(".")[-1] == "__main__"):
        return  # none is found, or it is not run again
    from linecache import getlines

    source = "".join(getlines(path))
    if source and not any(guard in source for guard in GUARDS):
        raise RuntimeError(
            f"to_process() starts new interpreters, each of which runs {os.path.basename(path)} "
            f"from its top, and so would come to line {frame.f_lineno} again. Put that line, and "
            'what else is to run only once, under `if __name__ == "__main__":`'
        )


def _new_pool() -> ProcessPoolExecutor:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # A plain fork would copy the locks of our threads in whatever state they are.
    return ProcessPoolExecutor(None, get_context("spawn"), initializer=ignore_ctrl_c)


def _kill(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.kill()


def ignore_ctrl_c() -> None:
    """Leave Ctrl-C to the program: called in each process when it starts."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
