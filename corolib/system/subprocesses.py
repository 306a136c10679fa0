"""Child processes: start programs, talk to them over streams, and leave none behind.

    result = yield from run_process(["git", "log"], timeout=10)      result.stdout
    process = yield from open_process(["sort"], stdin=PIPE, stdout=PIPE)

All children of a run are started by one object, `Children`, which also terminates, kills and reaps
those that are left at its end. A child is reaped on the loop, and its status published in the same
step. Until then its number is its own, so no signal can ever reach another process.

For POSIX systems. The end of a child is learnt from a pidfd (Linux), elsewhere from a thread. The
input of this very program is in `stdin.py`.
"""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from corolib.coordination.thread_pool import PATIENCE
from corolib.coordination.timeouts import move_on_after, shield
from corolib.kernel import (
    LateModule,
    ReadWait,
    RunFinished,
    Scheduler,
    Suspend,
    Task,
    Wake,
    brief,
    current_scheduler,
    note,
    opens,
    public,
    spawn,
    to_stderr,
    told,
    uninterrupted,
    waits,
)
from corolib.net.streams import CHUNK, LimitExceeded, Stream
from corolib.system.pipe_ends import Pipe

if TYPE_CHECKING:
    import subprocess
else:
    subprocess = LateModule("subprocess")

Program = Sequence[str | bytes | os.PathLike[str]]

STUCK = 5.0
"""Seconds: a killed process that is still there then is stuck in the operating system."""

CAPTURE = 2**24
"""Bytes of each output that `run_process` keeps: much for a report, little against a memory."""

LAST = 90
"""Bytes of what a program wrote to stderr that are shown of it when it fails."""

EXAMPLE = "as in ['ls', '-l']"

OURS = ("text", "encoding", "errors", "universal_newlines", "bufsize")
"""Options of `subprocess` that are refused: streams carry bytes, unbuffered."""


@public
@opens
def open_process(
    args: Program,
    *,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    group: bool = False,
    **options: Any,
) -> Generator[Any, Any, Process]:
    """Wait for the next turn, start a program, and return its `Process`.

    `with (yield from open_process(["sort"], stdin=PIPE, stdout=PIPE)) as process: ...`

    The program runs when this returns. The start itself happens on the spot and stops the loop
    for about a millisecond; the turn before it is so that many starts in a row starve nobody.
    The child gets no file of ours but the three given, no blocked signals, and SIGPIPE's default.

    Args:
        args: the program and its arguments, as a list. For a shell write `["sh", "-c", line]`.
        stdin, stdout, stderr: what the child has there: None, the same as this program;
            `subprocess.PIPE`, a stream of the process's; `subprocess.DEVNULL`; an open file; for
            `stderr` also `subprocess.STDOUT`, the same as stdout.
        cwd: the folder in which it begins.
        env: its environment, instead of a copy of ours.
        group: True: the program and all that it starts are ended together. They are a process
            group of their own, which every signal reaches, also SIGKILL at the end of a `with`
            block; and when the program itself has ended, what is left of the group is killed. A
            Ctrl-C at the terminal does not reach it. What leaves the group (a daemon) is spared.
        options: others of `subprocess.Popen`, such as `start_new_session=True`.

    Raises:
        OSError: there is no such program or folder (FileNotFoundError), it may not be started, or
            there are no files or processes left. Nothing was started, and nothing is left open.
        TypeError, ValueError: `args` is no list, or an empty one; an option would make the streams
            carry text, or is none.
        RuntimeError: neither a file nor a thread is left to watch the program with. It was killed.
        Cancelled: the wait was cancelled; nothing was started.

    Example:
        >>> import corolib
        >>> from subprocess import PIPE
        >>> def main():
        ...     process = yield from corolib.open_process(["cat"], stdin=PIPE, stdout=PIPE)
        ...     with process:
        ...         yield from process.stdin.sendall(b"hello\\n")
        ...         line = yield from process.stdout.readline()
        ...         process.stdin.close()
        ...         return line, (yield from process.wait())
        >>> corolib.run(main)
        (b'hello\\n', 0)

    Source: subprocess.Popen; trio.lowlevel.open_process.
    """
    program = _check_program("open_process", args, options)
    yield
    files = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    children = current_scheduler().run_local(Children)
    try:
        return children.start(program, {**files, "cwd": cwd, "env": env, **options}, group)
    except FileNotFoundError as exc:
        if len(program) == 1 and " " in str(program[0]):
            note(exc, f"{EXAMPLE}: the program and each of its arguments are an item")
        raise


def _check_program(caller: str, args: Program, options: Mapping[str, Any]) -> list[Any]:
    """Return the program and its arguments as a list, if they can be started."""
    if isinstance(args, str | bytes):
        # The line itself is not shown: it may hold a password.
        raise TypeError(
            f"{caller}() of one string: write the program and its arguments as a list, {EXAMPLE}; "
            "for a shell, ['sh', '-c', line]"
        )
    if not isinstance(args, Iterable):
        raise TypeError(f"{caller}({brief(args)}): write a list, {EXAMPLE}")
    program = list(args)
    if not program:
        raise ValueError(f"{caller}([]): the list begins with the program, {EXAMPLE}")
    for each in program:
        if not isinstance(each, str | bytes | os.PathLike):
            raise TypeError(f"{caller}() got {brief(each)} in the list: write str({brief(each)})")
    for name in OURS:
        if name in options:
            what = "streams carry" if caller == "open_process" else "the result has"
            raise TypeError(
                f"{caller}({name}=): {what} bytes, unbuffered. Leave it out, and decode them: "
                "`text = data.decode()`"
            )
    return program


@public
@opens
def run_process(
    args: Program,
    *,
    input: bytes = b"",
    capture: bool = True,
    timeout: float | None = None,
    limit: float = CAPTURE,
    check: bool = False,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    group: bool = False,
    **options: Any,
) -> Generator[Any, Any, subprocess.CompletedProcess[bytes]]:
    """Wait until a program has run to its end, and return its exit code and what it wrote.

    `result = yield from run_process(["git", "log"])`, then `result.returncode` (minus the number
    of the signal that ended it), `result.stdout` and `result.stderr`, both bytes.

    Feeds the input and reads both outputs at once. The outputs end when everybody has closed
    them: a program that leaves others behind in the background is waited for until they end too,
    unless `group=True` has them killed.

    Args:
        args, cwd, env, group, options: as for `open_process()`.
        input: what the program reads. Without any it reads the end of the file.
        capture: False: it writes where this program does, and the result has None.
        timeout: seconds until it is ended; None: no limit.
        limit: bytes that each output may have; `math.inf`: as many as come.
        check: True: an exit code other than 0 is an error.

    Returns:
        A `subprocess.CompletedProcess`.

    Raises:
        TimeoutError: the program was still running. It got SIGTERM, and SIGKILL after the grace
            of the run (`run(grace=)`), and is gone. `stdout` and `stderr` are in the exception.
        LimitExceeded: it wrote more than `limit`. It was killed. The exception has them, too.
        subprocess.CalledProcessError: with `check`, and what the result would have had.
        OSError, TypeError, ValueError, RuntimeError: it could not be started; see `open_process()`.
        ValueError: both `input` and `stdin=` were given.
        PermissionError: it was to be ended, but has changed its user. It goes on.
        Cancelled: the wait was cancelled. The program was ended as after a timeout, and is gone.

    Example:
        >>> import corolib
        >>> def main():
        ...     result = yield from corolib.run_process(["sort"], input=b"b\\na\\n")
        ...     return result.returncode, result.stdout
        >>> corolib.run(main)
        (0, b'a\\nb\\n')

    Source: subprocess.run; trio.run_process.
    """
    from subprocess import DEVNULL, PIPE, CalledProcessError, CompletedProcess

    program = _check_run(args, input, options)
    files: dict[str, Any] = {
        "stdin": PIPE if input else DEVNULL,
        "stdout": PIPE if capture else None,
        "stderr": PIPE if capture else None,
    }
    files = {**files, "cwd": cwd, "env": env, "group": group, **options}
    with (yield from open_process(program, **files)) as process:
        code, out, err = yield from _communicate(process, input, limit, timeout)
    if check and code != 0:
        failure = CalledProcessError(code, process.args, out, err)
        if err:
            note(failure, f"It wrote to stderr: {brief(err[-LAST:].decode(errors='replace'))}")
        raise failure
    return CompletedProcess(process.args, code, out, err)


def _check_run(args: Program, input: bytes, options: Mapping[str, Any]) -> list[Any]:
    """Return the program and its arguments, if `run_process` can run it."""
    if input and "stdin" in options:
        raise ValueError("run_process() takes the input itself, input=, or its file, stdin=")
    if "capture_output" in options:
        raise TypeError("run_process() captures what a program writes, unless it has capture=False")
    if isinstance(input, str):
        raise TypeError("run_process(input=) takes bytes: write input=text.encode()")
    return _check_program("run_process", args, options)


def _communicate(
    process: Process, data: bytes, limit: float, timeout: float | None
) -> Generator[Any, Any, tuple[int, bytes | None, bytes | None]]:
    """Feed a program, read its outputs, wait for its end; or see to it that it is gone."""
    written: list[bytearray | None] = []
    helpers: list[Task[Any]] = []
    for stream in (process.stdout, process.stderr):
        output = None if stream is None else bytearray()
        written.append(output)
        if stream is not None and output is not None:
            helpers.append(spawn(_read_all, process, stream, limit, output))
    if process.stdin is not None:
        helpers.append(spawn(_feed, process.stdin, data))
    try:
        with move_on_after(timeout) as scope:
            yield _end_of(helpers, heed=True)
            code = yield from process.wait()
        if scope.expired:
            raise TimeoutError(f"{process.label} took longer than {timeout:g} s, and was ended")
        out, err = _copies(written)
        return code, out, err
    except GeneratorExit:
        raise
    except BaseException as exc:
        if isinstance(exc, LimitExceeded):
            process.kill()
        yield from _finish(process, helpers)
        if isinstance(exc, TimeoutError | LimitExceeded):
            exc.stdout, exc.stderr = _copies(written)  # type: ignore[union-attr]
        raise
    finally:
        # A traceback holds this frame, and they hold the error, which would be a cycle.
        del helpers


def _copies(written: Iterable[bytearray | None]) -> list[bytes | None]:
    return [None if output is None else bytes(output) for output in written]


def _feed(stream: Stream, data: bytes) -> Generator[Any, Any, None]:
    """Send the input of a program. One that does not want it all may leave the rest."""
    with stream:
        try:
            yield from stream.sendall(data)
        except BrokenPipeError:
            pass


def _read_all(
    process: Process, stream: Stream, limit: float, output: bytearray
) -> Generator[Any, Any, None]:
    """Read an output of a program to its end."""
    while chunk := (yield from stream.recv(CHUNK)):
        output += chunk
        if (seen := len(output)) > limit:
            del output[int(limit) :]
            text = f"{process.label} wrote more than {limit} bytes to one output, and was killed"
            raise LimitExceeded(text, limit, seen)


def _end_of(tasks: Sequence[Task[Any]], heed: bool) -> Suspend[None]:
    """Return the wait for the end of all `tasks`; with `heed`, for the first failure too."""

    def arm(wake: Wake) -> Callable[[], object]:
        def over(task: Task[Any], value: Any, error: BaseException | None) -> None:
            left.discard(task)
            if heed and error is not None:
                wake(error=error)
            elif not left:
                wake()

        left = set(tasks)
        undos = [task.watch(partial(over, task)) for task in tasks]
        if not tasks:
            wake()
        return lambda: [undo() for undo in undos]

    return Suspend(arm, "the input and output of a process", holder=lambda: tasks)


def _finish(process: Process, helpers: Sequence[Task[Any]]) -> Generator[Any, Any, None]:
    """Terminate a program, kill it after the grace, and wait until it and the helpers are gone."""
    try:
        process.terminate()
        with move_on_after(current_scheduler().grace):
            yield process.exiting()
    finally:
        # The end of a killed program takes no time, as far as anybody can help it.
        with shield():
            try:
                process.kill()
                yield process.exiting()
            finally:
                for task in helpers:
                    task.cancel("the program has ended")
                yield _end_of(helpers, heed=False)


@public
class Process:
    """A child process: made by `open_process()`.

    `with process:` kills it at the end of the block and closes its streams; it is reaped as soon
    as it is gone. (To be there when it is: `yield from process.wait()`.) Without `with`, it lives
    as long as it likes, but at the longest until the end of the run.

    Attributes:
        args: the program and its arguments.
        pid: its number.
        stdin, stdout, stderr: the streams to and from it, where PIPE was asked for; else None.
        returncode: None until it was reaped, then its exit code, or minus the number of the signal
            that ended it.
    """

    __slots__ = (
        "_children",
        "_ended",
        "_group",
        "_in_thread",
        "_lost",
        "_pidfd",
        "_popen",
        "_undo",
        "_waiters",
        "args",
        "killed",
        "pid",
        "returncode",
        "stderr",
        "stdin",
        "stdout",
    )

    def __init__(
        self, children: Children, popen: subprocess.Popen[bytes], group: bool = False
    ) -> None:
        self.args: list[Any] = popen.args  # type: ignore[assignment]
        self.pid = popen.pid
        self.stdin = _stream(popen.stdin)
        self.stdout = _stream(popen.stdout)
        self.stderr = _stream(popen.stderr)
        self.returncode: int | None = None
        self._children = children
        self._popen = popen
        # Whether it is the head of a process group, which is signalled as a whole.
        self._group = group
        self._ended = self.killed = False
        # Why it could not be watched any more, and was killed.
        self._lost = ""
        # Whether the thread that watches it takes its status.
        self._in_thread = False
        self._waiters: dict[Wake, None] = {}
        self._pidfd: io.FileIO | None = None
        self._undo: Callable[[], object] | None = None

    @property
    def label(self) -> str:
        """Program and number, as reports write them: `sleep (pid 123)`."""
        return f"{os.fsdecode(self.args[0])} (pid {self.pid})"

    @waits
    def wait(self) -> Generator[Any, Any, int]:
        """Wait until the process has ended, and return its exit code.

        That is minus the number of a signal that ended it. A program that writes to a full pipe
        does not end: read its outputs meanwhile.

        Raises:
            ChildProcessError: it has ended, but something else in this program has taken its
                status: SIGCHLD is ignored, or `os.wait()` was called.
            RuntimeError: neither a file nor a thread was left to watch it with. It was killed.
            Cancelled: the wait was cancelled; the process goes on.
        """
        code: int = yield self.exiting()
        if self._lost:
            raise RuntimeError(f"{self.label} could not be watched, and was killed: {self._lost}")
        if self.returncode is None:
            raise ChildProcessError(f"{self.label}: something else has taken its exit status")
        return code

    def exiting(self) -> Suspend[int | None]:
        """Return the trap that waits for the end of the process, for `first()`.

        Its value is `returncode`.
        """

        def arm(wake: Wake) -> Callable[[], object]:
            if self._ended:
                wake(self.returncode)
            else:
                self._waiters[wake] = None
            return lambda: self._waiters.pop(wake, None)

        return Suspend(arm, f"the end of {self.label}", outside=True)

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens if the process has ended. Does not wait.

        With `open_process(group=True)` all processes of its group get it. In a fork of this
        program nothing happens either: the process is the parent's.

        Raises:
            PermissionError: the process has changed its user.
        """
        if self._popen.returncode is not None or os.getpid() != self._children.pid:
            return
        try:
            if self._group:
                os.killpg(self.pid, number)
            elif self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd.fileno(), number)
            else:
                # It is not reaped yet, so the number is still its own.
                os.kill(self.pid, number)
        except ProcessLookupError:
            # Something else has reaped it.
            pass

    def terminate(self) -> None:
        """Ask the process to end: SIGTERM. Does not wait."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process: SIGKILL, which it cannot refuse. Does not wait."""
        self.send_signal(signal.SIGKILL)
        self.killed = True

    def watch(self) -> None:
        """Have `exited` called on the loop when the process has ended."""
        try:
            self._pidfd = io.FileIO(os.pidfd_open(self.pid))
            self._undo = self._children.scheduler.arm(ReadWait(self._pidfd), self.exited)
        except (AttributeError, OSError, ValueError):
            # There is no pidfd, or none that can be watched.
            self._watch_in_a_thread()

    def _watch_in_a_thread(self) -> None:
        import threading

        def watch() -> None:
            try:
                # This waits, and leaves it to be reaped.
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            except AttributeError:
                # On macOS before Python 3.13 it is reaped here, and published later.
                self._in_thread = True
                self._popen.wait()
            except ChildProcessError:
                pass
            try:
                self._children.scheduler.call_soon_threadsafe(self.exited)
            except RunFinished:
                pass

        try:
            threading.Thread(target=watch, name=f"end of {self.label}", daemon=True).start()
        except BaseException:
            # Nobody would learn of its end.
            with suppress(PermissionError):
                self.kill()
            self.wait_until(time.monotonic() + STUCK)
            raise

    def exited(self, value: Any = None, error: BaseException | None = None) -> None:
        """The process has ended: reap it, and wake who waits for that."""
        self._undo = None
        if self._ended:
            return
        if not self.reap():
            # The pidfd cannot be watched after all.
            try:
                self._watch_in_a_thread()
                return
            except Exception as exc:
                self._lost = told(exc)
        # A wake may take back another wait, which must not change this dict meanwhile.
        waiters, self._waiters = self._waiters, {}
        for wake in waiters:
            wake(self.returncode)

    def reap(self) -> bool:
        """Take the status if the process has ended, and return whether it has."""
        if self._group and self._popen.returncode is None and not self._end_group():
            return False
        with uninterrupted:  # else the status could be lost, or the pidfd stay open
            if self._popen.returncode is None:
                if self._in_thread:
                    return False
                try:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:
                    # Something else was faster. With a code, `subprocess` does not look for itself.
                    self._popen.returncode = 0
                else:
                    if pid == 0:
                        return False
                    self._popen.returncode = self.returncode = os.waitstatus_to_exitcode(status)
            else:
                self.returncode = self._popen.returncode
            self._ended = True
            self._children.running.pop(self, None)
            if self._undo is not None:
                self._undo()
            if self._pidfd is not None:
                self._pidfd.close()
        return True

    def _end_group(self) -> bool:
        """Kill what is left of the group, if its head has ended; return whether it has.

        The number of the group is its own as long as its head has not been reaped.
        """
        # Something else may have reaped it, or what is left has changed its user; and on macOS
        # before Python 3.13 nobody can look without reaping it.
        with suppress(ChildProcessError, ProcessLookupError, PermissionError, AttributeError):
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return False
            os.killpg(self.pid, signal.SIGKILL)
        return True

    def wait_until(self, deadline: float) -> bool:
        """Wait without the scheduler, in real time: for the end of the run. Return whether it has
        ended.
        """
        # `Popen.wait` would reap the head of a group before the rest was killed. And a Ctrl-C in it
        # may leave a lock of its own taken, so that whoever calls it again waits in vain.
        while not self.reap():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.kill()

    def __repr__(self) -> str:
        state = f"ended with {self.returncode}" if self._ended else "running"
        return f"<Process {self.label} {state}>"


def _stream(raw: Any) -> Stream | None:
    """Return a stream over our end of a pipe. The other end, the child's, stays blocking."""
    if raw is None:
        return None
    os.set_blocking(raw.fileno(), False)
    return Stream(Pipe(raw))


class Children:
    """The children of one run: starts them all, and leaves none behind.

    To start them otherwise (in a simulation, say), replace its `spawn`.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        # Of the process whose children they are.
        self.pid = os.getpid()
        # Those that run, in the order in which they began.
        self.running: dict[Process, None] = {}

    def spawn(self, args: list[Any], options: dict[str, Any]) -> subprocess.Popen[bytes]:
        """Start a program as `subprocess` does, which leaks nothing if that fails."""
        from subprocess import Popen

        if signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            # This thread blocks some signals. The child is to block none.
            unblock = partial(signal.pthread_sigmask, signal.SIG_SETMASK, ())
            options = {"preexec_fn": unblock, **options}
        return Popen(args, bufsize=0, **options)

    def start(self, args: list[Any], options: dict[str, Any], group: bool = False) -> Process:
        """Start a program and watch it."""
        if group:
            options = {**options, "process_group": 0}
        with uninterrupted:
            process = Process(self, self.spawn(args, options), group)
            self.running[process] = None
            try:
                process.watch()
            except BaseException:
                with process:
                    raise
        return process

    def end(self) -> None:
        """Terminate, kill and reap what still runs, and name it on stderr."""
        try:
            for process in list(self.running):
                if not (process.reap() or process.killed):
                    to_stderr(f"corolib: process {process.label} outlives the run; it is ended now")
                    with suppress(PermissionError):
                        process.terminate()
            self._wait(min(self.scheduler.grace, PATIENCE))
        finally:
            # Also after Ctrl-C, which may end the wait.
            with uninterrupted:
                for process in self.running:
                    with suppress(PermissionError):
                        process.kill()
                self._wait(STUCK)
        for process in self.running:
            to_stderr(f"corolib: process {process.label} cannot be ended")

    def _wait(self, seconds: float) -> None:
        """Wait without the scheduler until all have ended. In real time: the clock of the run may
        be a virtual one, but children have no other.
        """
        deadline = time.monotonic() + seconds
        for process in list(self.running):
            process.wait_until(deadline)
