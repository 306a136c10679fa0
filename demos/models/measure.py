"""Measuring a server, as a process of its own, while it does the job: time, CPU, memory, calls.

Reads `/proc`, so it needs Linux; and counts system calls if `strace` is there, in a run of their
own, for a program that is traced is slow.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from corolib import run
from demos.models.clients import Job, at_once, crowd

PATIENCE = 120  # seconds, however busy the machine is: who takes longer hangs
ENDED_BY_CTRL_C = 130
TICKS = os.sysconf("SC_CLK_TCK")  # in which `/proc` counts CPU time


class Server(NamedTuple):
    """A row of the table: a module of this package, and what it is known for."""

    name: str
    waits: str
    module: str


MODELS = [
    Server("blocking", "asleep in recv()", "blocking"),
    Server("non-blocking", "asks again and again", "nonblocking"),
    Server("multiplexing", "epoll for all", "multiplexing"),
    Server("signal-driven", "SIGIO, then asks all", "signal_driven"),
    Server("asynchronous", "told when it is copied", "asynchronous"),
]
STRUCTURES = [
    Server("process per client", "fork()", "process_per_client"),
    Server("thread per client", "shared memory", "thread_per_client"),
    Server("event loop", "a task per client", "event_loop"),
]


class Figures(NamedTuple):
    server: Server
    at_once: int  # clients that were served at the same time
    seconds: float  # from the first client's beginning to the last one's end
    cpu: float  # seconds of it, without the start of Python
    memory: int  # bytes, at most
    calls: int | None  # system calls; None: there is no strace


def measure(server: Server, job: Job) -> Figures:
    """Run a server twice, once for the clock and once for the system calls."""
    order: list[int] = []
    sizes: list[int] = []

    def answered(number: int) -> None:
        order.append(number)
        if len(order) % max(1, job.clients * job.lines // 8) == 0:
            sizes.append(memory(process.pid))

    with running(server) as (process, port):
        before = cpu(process.pid)
        began = time.monotonic()
        run(crowd, port, job, answered)
        seconds = time.monotonic() - began
        wait_for_children(process.pid)
        used = cpu(process.pid) - before
    return Figures(server, at_once(order), seconds, used, max(sizes), calls(server, job))


@contextmanager
def running(server: Server, *tracer: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a server in a process group of its own; in the end, press its Ctrl-C."""
    end_with = signal.SIGKILL  # before it is ready, which is before it has children
    process = begin([*tracer, sys.executable, "-m", f"demos.models.{server.module}", "--port=0"])
    with process:
        assert process.stdout is not None
        try:
            found = re.search(r"port (\d+)", process.stdout.readline())
            if found is None:
                raise RuntimeError(f"{server.module} did not start")
            end_with = signal.SIGINT
            yield process, int(found[1])
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, end_with)
            try:
                status = process.wait(PATIENCE)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    if status != ENDED_BY_CTRL_C:
        raise RuntimeError(f"{server.module} ended with status {status}")


def begin(command: list[str]) -> subprocess.Popen[str]:
    """Start a process. A Ctrl-C meanwhile comes afterwards: or it would be started, and forgotten.

    It does not ignore SIGINT even if this one does, as those do that are started in the background:
    what a handler is for here has its default meaning there.
    """
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        process.kill()
        process.communicate()
        raise KeyboardInterrupt
    return process


def processes(group: int) -> list[int]:
    """Return a server and its children."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == group:
                found.append(pid)
    return found


def wait_for_children(group: int) -> None:
    """Wait until those have ended that served clients: their CPU time is their parent's then."""
    deadline = time.monotonic() + PATIENCE
    while len(processes(group)) > 1:
        if time.monotonic() > deadline:
            raise RuntimeError("children were left behind")
        time.sleep(0.01)


def cpu(pid: int) -> float:
    """Return the CPU time of a process, in seconds, and of those children that have ended."""
    own = time.clock_gettime(~pid << 3 | 2)  # as clock_getcpuclockid(3) makes the clock's number
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return own + (int(fields[13]) + int(fields[14])) / TICKS


def memory(group: int) -> int:
    """Return the bytes that a server occupies, and its children beyond what they share with it."""
    total = 0
    for pid in processes(group):
        with suppress(OSError):  # it has ended
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
            parts = ["Rss"] if pid == group else ["Private_Clean", "Private_Dirty"]
            total += sum(sizes[part] for part in parts) * 1024
    return total


def calls(server: Server, job: Job) -> int | None:
    """Count the system calls of a server, from when it is ready to its Ctrl-C."""
    if not can_trace():
        return None
    with TemporaryDirectory() as folder:
        log = Path(folder) / "calls"
        with running(server, "strace", "-f", "-qq", "-o", str(log)) as (_, port):
            run(crowd, port, job, lambda _: None)
        ready = log.read_text(errors="replace").partition('"totals on ')[2]
    served = ready.partition("--- SIGINT")[0]
    return len(re.findall(r"^\d+ +\w+\(", served, re.MULTILINE))


@cache
def can_trace() -> bool:
    """Tell whether strace is there, and may do its work."""
    try:
        trial = ["strace", "-f", "-qq", "-o", os.devnull, sys.executable, "-S", "-c", ""]
        return subprocess.run(trial, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False
