"""Programs that end at random moments: forks, signals, kills. A tool of the tests, and a program.

    python -m tests.helpers.endings SEED ROUNDS

Each round is a program of its own, with a signal receiver, threads and child processes, which forks
while it runs, from any thread. It is sent signals at random moments. These must hold each time:

- the program ends, and so does every child that it has forked, with a status that fits;
- no child takes what was meant for the parent, nor the other way round;
- no byte comes into a file into which nobody has written: see `canaries`;
- nothing is left: no process, no zombie, no thread, no open file, no handler, no blocked signal.

What a round does follows from its number. When the signals come follows from the machine as well.
The number of a round in which something was wrong is printed with that.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import random
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGABRT, SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR1
from typing import Any

from corolib import (
    Coro,
    Sleep,
    current_scheduler,
    from_thread,
    open_process,
    open_signal_receiver,
    run,
    spawn,
    to_thread,
)
from corolib.testing import open_files

LONG = 60
"""Seconds after which something hangs."""

WRONG = 99
"""The status of a process in which something was not as it must be."""

STOPPED, LEFT, INTERRUPTED = 5, 7, 130
"""Statuses: of a child that SIGTERM has told to stop, that has left by itself; and after Ctrl-C."""

PR_SET_CHILD_SUBREAPER = 36
"""Of <linux/prctl.h>: who loses its parent becomes a child of this process."""


def check(condition: object, what: str) -> None:
    if not condition:
        raise AssertionError(what)


# In every process ---------------------------------------------------------------------------------


def children() -> set[int]:
    """Return the children of this process, zombies too; at least one if there is any."""
    while True:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return set()
        found: set[int] = set()
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # a thread that has just ended
                found.update(map(int, (task / "children").read_text().split()))
        if found:
            return found


def reap(pid: int) -> int:
    """Wait for the end of a child, and return its status; if it hangs, let it say where."""
    deadline = time.monotonic() + LONG
    pause = 0.0001
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, SIGABRT)
            os.waitpid(pid, 0)
            raise AssertionError(f"process {pid} hangs")
        time.sleep(pause)
        pause = min(2 * pause, 0.01)


@contextmanager
def canaries() -> Iterator[None]:
    """Open pipes, which get the numbers that are free now; into none of them may come a byte."""
    pipes = [os.pipe2(os.O_NONBLOCK) for _ in range(8)]
    try:
        yield
        readable, _, _ = select.select([reader for reader, _ in pipes], [], [], 0)
        check(not readable, f"stray bytes: {[os.read(each, 100) for each in readable]}")
    finally:
        for pipe in pipes:
            for fd in pipe:
                os.close(fd)


def be_a_process(body: Callable[[], int]) -> None:
    """In a child that was just forked: do `body`, and end with the status that it returns."""
    status = WRONG
    try:
        status = body()
    except BaseException:
        os.write(2, f"process {os.getpid()}: {traceback.format_exc()}".encode())
    finally:
        os._exit(status)


# Children that the program forks while it runs ----------------------------------------------------


def leaves() -> int:
    return LEFT


def sleeps() -> int:
    time.sleep(10 * LONG)
    return WRONG


def listens() -> int:
    """Handles a signal of its own, which wakes nothing and nobody."""
    seen: list[int] = []
    signal.signal(SIGUSR1, lambda signum, frame: seen.append(signum))
    with canaries():
        for _ in range(3):
            os.kill(os.getpid(), SIGUSR1)
        check(seen == [SIGUSR1] * 3, "signals were lost in a child")
        check(signal.set_wakeup_fd(-1) == -1, "signals are written somewhere")
    return LEFT


def runs() -> int:
    """Has a run of its own, until SIGTERM ends it."""

    def main() -> Coro[int]:
        with open_signal_receiver(SIGTERM) as received:
            yield from to_thread(int)
            yield from received
        return STOPPED

    return run(main)


BODIES = [leaves, sleeps, listens, runs]


class Forked:
    """The children that a program has forked itself."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.pids: dict[int, bool] = {}

    def fork(self) -> None:
        """Fork one, in whatever thread this is; perhaps end it at once."""
        body = self._rng.choice(BODIES)
        at_once = self._rng.random() < 0.5
        pid = os.fork()
        if pid == 0:
            be_a_process(body)
        if at_once:
            os.kill(pid, SIGTERM)
        self.pids[pid] = at_once

    def end(self) -> None:
        """End and reap them all. Those that were told at once are not told a second time."""
        while found := children():
            for pid in found:
                if not self.pids.get(pid):
                    os.kill(pid, SIGTERM)
                status = reap(pid)
                check(status in (-SIGTERM, STOPPED, LEFT), f"a child ended with {status}")


# The program --------------------------------------------------------------------------------------


def program(seed: int, say: Callable[[], object]) -> int:
    """Run until a signal comes, or not as long as that; look at what is left."""
    rng = random.Random(seed)
    signal.signal(SIGHUP, signal.SIG_IGN)
    forked = Forked(rng)
    status = INTERRUPTED
    before = open_files()
    # No more than two come, and the second may do so at any moment after the first: also in the
    # `__exit__` of a block, which these are not.
    try:
        try:
            say()
            run(main, rng, forked)
            status = 0
        except KeyboardInterrupt:
            pass
        signal.signal(SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        signal.signal(SIGINT, signal.SIG_IGN)
    with canaries():
        deadline = time.monotonic() + LONG
        while len(threads := threading.enumerate()) > 1:
            check(time.monotonic() < deadline, f"threads hang: {threads}")
            time.sleep(0.0001)
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children()}
    strangers = [cmd for pid, cmd in commands.items() if b"sleep" in cmd.split(b"\0")[0]]
    check(not strangers, f"left: {strangers}")
    forked.end()
    gc.collect()
    check(open_files() <= before, f"open files: {open_files() - before}")
    check(signal.set_wakeup_fd(-1) == -1, "signals are still written somewhere")
    check(not signal.pthread_sigmask(signal.SIG_BLOCK, ()), "signals are blocked")
    check(signal.getsignal(SIGHUP) is signal.SIG_IGN, "SIGHUP is still handled")
    check(signal.getsignal(SIGTERM) is signal.SIG_DFL, "SIGTERM is still handled")
    return status


def main(rng: random.Random, forked: Forked) -> Coro[None]:
    scheduler = current_scheduler()
    with open_signal_receiver(SIGTERM, SIGHUP) as received:
        programs = rng.randrange(3)
        for _ in range(programs):
            spawn(keep_a_program, rng.random() * 0.01)
        for _ in range(rng.randrange(4)):
            spawn(keep_threads_at_work, scheduler)
        for _ in range(rng.randrange(4)):
            # A child that another thread forks while a program is started inherits a pipe of
            # `subprocess`, which waits until that child has ended.
            spawn(keep_forking, rng, forked, 2 if programs else 4)
        if rng.random() < 0.3:
            yield Sleep(rng.random() * 0.03)
        else:
            while (yield from received) != SIGTERM:
                pass
        for child in scheduler.main.children if scheduler.main else ():
            child.cancel()


def keep_a_program(seconds: float) -> Coro[None]:
    """Start a program that would run for long, and kill it after some time."""
    while True:
        with (yield from open_process(["sleep", str(10 * LONG)])) as process:
            yield Sleep(seconds)
            os.kill(process.pid, SIGKILL)
            check((yield from process.wait()) == -SIGKILL, "a killed process has another status")


def keep_threads_at_work(scheduler: Any) -> Coro[None]:
    def task() -> Coro[str]:
        yield from to_thread(int)
        return "done"

    def job() -> None:
        check(from_thread(scheduler, task) == "done", "a thread got another outcome")

    while True:
        yield from to_thread(job)


def keep_forking(rng: random.Random, forked: Forked, ways: int) -> Coro[None]:
    """Fork in this task, in a callback, in a thread of the run's and in one of its own."""
    for _ in range(rng.randrange(1, 4)):
        yield Sleep(rng.random() * 0.005)
        how = rng.randrange(ways)
        if how == 0:
            forked.fork()
        elif how == 1:
            current_scheduler().call_soon_threadsafe(forked.fork)
        elif how == 2:
            yield from to_thread(forked.fork)
        else:
            threading.Thread(target=forked.fork).start()


# The rounds ---------------------------------------------------------------------------------------


def one_round(seed: int) -> None:
    """Start the program, send it signals, and see how it ends."""
    rng = random.Random(-seed - 1)
    signums = rng.choice([[SIGINT], [SIGINT, SIGINT], [SIGTERM], [SIGKILL]])
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        be_a_process(lambda: program(seed, lambda: os.close(writer)))
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    for signum in [SIGHUP] * rng.randrange(3) + signums:
        time.sleep(rng.random() * 0.03)
        os.kill(pid, signum)
    status = reap(pid)
    if status == -signums[0]:
        # It was killed: by SIGTERM only before or after its receiver was open.
        end_children()
        return
    check(status != WRONG, f"see above; after {[each.name for each in signums]}")
    check(status in (0, INTERRUPTED), f"the program ended with {status}")
    check(not children(), f"the program ended with {status} and has left processes behind")


def end_children() -> None:
    while found := children():
        for pid in found:
            os.kill(pid, SIGKILL)
            os.waitpid(pid, 0)


def play(seed: int, rounds: int) -> int:
    """Play the rounds from `seed` on; return how many were wrong."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))
    signal.signal(SIGINT, signal.default_int_handler)
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
    faulthandler.enable()
    wrong = 0
    for number in range(seed, seed + rounds):
        try:
            one_round(number)
        except Exception as exc:
            wrong += 1
            print(f"round {number}: {exc}; to repeat it: {number} 1", file=sys.stderr, flush=True)
            end_children()
    return wrong


if __name__ == "__main__":
    seed, rounds = map(int, sys.argv[1:])
    wrong = play(seed, rounds)
    print(f"{rounds} rounds from {seed} on, {wrong} wrong")
    sys.exit(wrong > 0)
