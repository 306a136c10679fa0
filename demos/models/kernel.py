"""The layer below the models: file numbers, sleep, switches, the page cache, levels and edges.

    $ python3 -m demos.models.kernel
    A file number is an index into a table: open() gives 3 and 4; 3 is closed, and ...
    A blocked process takes no time: 0.02 ms of CPU in 100 ms; one that asks ...: 99.1 ms
    ...

Each line is measured here and now. A program runs in *user space*; files, sockets and other
processes are the *kernel's*, and a system call is the way there. A process that waits in one is
taken off the processor: its registers are saved, and another process's are loaded. That is a
switch; the kernel counts them for each process.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress

from demos.start import start

MOMENT = 0.1  # seconds
ROUNDS = 500  # bytes that go to and fro between two processes
SIZE = 1 << 22  # bytes written to a file


def numbers() -> str:
    """Open, close, and open again: the lowest free place of the table is taken."""
    first = os.open(os.devnull, os.O_RDONLY)
    second = os.open(os.devnull, os.O_RDONLY)
    os.close(first)
    third = os.open(os.devnull, os.O_RDONLY)
    os.close(second)
    os.close(third)
    return (
        f"open() gives {first} and {second}; {first} is closed, and the next open() gives {third}"
    )


def child(work: Callable[[], object]) -> float:
    """Do something in another process; return the seconds of the processor that it took."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            before = time.process_time()
            with suppress(OSError):
                work()
            os.write(writes, str(time.process_time() - before).encode())
        os._exit(0)
    os.close(writes)
    with open(reads) as answer:
        seconds = float(answer.read())
    os.waitpid(pid, 0)
    return seconds


def ask_again_and_again(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def sleeping(seconds: float = MOMENT) -> tuple[float, float]:
    """Return the CPU seconds of a process that waits so long for data, and of one that asks."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(seconds)
        waits = child(lambda: ours.recv(1))
    asks = child(lambda: ask_again_and_again(seconds))
    return waits, asks


def round_trips(rounds: int = ROUNDS) -> tuple[float, float, int]:
    """Send bytes to and fro; return the seconds of one, in one process and between two; switches.

    The system calls are the same: two to write, two to read. With two processes each of them waits
    for the other. The third figure is how often this one was taken off the processor.
    """
    ours, theirs = socket.socketpair()

    def echo() -> None:
        for _ in range(rounds):
            theirs.send(theirs.recv(1))

    with ours, theirs:
        began = time.perf_counter()
        for _ in range(rounds):
            ours.send(b"x")
            theirs.send(theirs.recv(1))
            ours.recv(1)
        alone = (time.perf_counter() - began) / rounds
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                echo()
            os._exit(0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        began = time.perf_counter()
        for _ in range(rounds):
            ours.send(b"x")
            ours.recv(1)
        both = (time.perf_counter() - began) / rounds
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
        os.waitpid(pid, 0)
        return alone, both, switches


def page_cache(size: int = SIZE) -> tuple[float, float, float]:
    """Return the seconds to write a file, to have it put on the disk, and to read it again.

    What is written goes into memory of the kernel, and what is read again comes from there.
    """
    with tempfile.TemporaryFile(buffering=0) as file:
        data = bytes(size)
        times = [time.perf_counter()]
        file.write(data)
        times.append(time.perf_counter())
        os.fsync(file.fileno())
        times.append(time.perf_counter())
        file.seek(0)
        file.read(size)
        times.append(time.perf_counter())
    return times[1] - times[0], times[2] - times[1], times[3] - times[2]


def told(flags: int, looks: int = 3) -> int:
    """Return how often `epoll` tells of data that nobody reads, in so many looks."""
    ours, theirs = socket.socketpair()
    with ours, theirs, select.epoll() as poller:
        poller.register(ours, select.EPOLLIN | flags)
        theirs.send(b"x")
        return sum(bool(poller.poll(0)) for _ in range(looks))


def main(options: argparse.Namespace) -> None:
    if not sys.platform.startswith("linux"):
        sys.exit("epoll and the counts are those of Linux")
    print(f"A file number is an index into a table: {numbers()}", flush=True)
    waits, asks = sleeping()
    print(
        f"A blocked process takes no time: {waits * 1e3:.2f} ms of CPU in {MOMENT * 1e3:.0f} ms; "
        f"one that asks again and again: {asks * 1e3:.1f} ms",
        flush=True,
    )
    alone, both, switches = round_trips()
    print(
        f"A switch costs time: a byte to and fro in one process, {alone * 1e6:.1f} µs; "
        f"between two, {both * 1e6:.1f} µs, with {switches} switches in {ROUNDS}",
        flush=True,
    )
    wrote, synced, read = (seconds * 1e3 for seconds in page_cache())
    print(
        f"Files are buffered in the kernel: 4 MiB are written in {wrote:.1f} ms, and are on the "
        f"disk after {synced:.1f} more; they are read again in {read:.1f}",
        flush=True,
    )
    level, edge = told(0), told(select.EPOLLET)
    print(
        f"Data that nobody reads, in three looks: epoll tells of the level {level} times, "
        f"of the edge {edge} time",
        flush=True,
    )


if __name__ == "__main__":
    start(main, __doc__)
