"""The cost of one ready client among many silent ones: `select`, `poll`, `epoll`, threads.

    $ python3 -m demos.models.ready --svg ready.svg
    idle          select      poll     epoll
    10              5.74      4.29      2.52
    100            38.71     26.40      3.56
    ...

The first table has the time, in microseconds, in which a program learns who is ready, and reads
what it has said. `select` gets its list anew for each call, and the kernel looks at each file in
it; so does `poll`, with a list that is kept in Python's memory; `epoll` has its list in the kernel,
and looks at those only that are ready. `select` takes no file whose number is 1 024 or more.

The second table is about few connections. It has the time of one question and its answer, with a
thread for each client and with one loop for all: a thread that waits for one client needs two
system calls for that (`recv`, `send`), the loop needs three. In both tables the figure is the
median of many.
"""

from __future__ import annotations

import argparse
import resource
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from demos.drawing import picture_file
from demos.models.clients import HOST
from demos.models.lines import draw
from demos.models.measure import MODELS, STRUCTURES, running
from demos.models.table import paragraph
from demos.start import start

IDLE = (10, 100, 400, 1500)
CLIENTS = (1, 10, 100)
CALLS = ("select", "poll", "epoll")
ANSWERING = [STRUCTURES[1], MODELS[2], STRUCTURES[2]]  # threads, one loop, one loop with tasks
TIMES = 300  # measurements, of which the median is taken
WIDTH = 10

Wait = Callable[[], object]


class Cost(NamedTuple):
    """A row: how many are silent, and what each way costs (µs; None: it cannot)."""

    clients: int
    costs: tuple[float | None, ...]


def waiting(call: str, files: list[socket.socket]) -> Wait:
    """Return a function that waits until one of these files can be read."""
    if call == "select":
        return lambda: select.select(files, [], [])
    poller = select.epoll() if call == "epoll" else select.poll()
    for file in files:
        poller.register(file.fileno(), select.POLLIN)
    return poller.poll


@contextmanager
def silent(count: int) -> Iterator[list[socket.socket]]:
    """Open sockets to which nobody sends anything."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(count)]


def cost(call: str, idle: list[socket.socket], times: int = TIMES) -> float | None:
    """Return the microseconds until it is known who is ready, and its data is read.

    None: the call does not take so many files.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wait = waiting(call, [*idle, ours])
        found = []
        try:
            for _ in range(times):
                theirs.send(b"x")
                began = time.perf_counter()
                wait()
                ours.recv(1)
                found.append(time.perf_counter() - began)
        except ValueError:  # "filedescriptor out of range in select()"
            return None
        return statistics.median(found) * 1e6


def costs(counts: tuple[int, ...] = IDLE, times: int = TIMES) -> Iterator[Cost]:
    """Measure the first table, row by row, as far as the limit of open files goes."""
    with more_files(max(counts) + 100):
        for count in counts:
            try:
                with silent(count) as idle:
                    row = Cost(count, tuple(cost(call, idle, times) for call in CALLS))
            except OSError:
                return  # so many are not to be had
            yield row


@contextmanager
def more_files(count: int) -> Iterator[None]:
    """Have so many open files allowed meanwhile, or as many as can be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def answers(counts: tuple[int, ...] = CLIENTS, times: int = TIMES) -> Iterator[Cost]:
    """Measure the second table: one client asks, the others have asked once and are silent."""
    with ExitStack() as stack:
        ports = [stack.enter_context(running(server))[1] for server in ANSWERING]
        for count in counts:
            yield Cost(count, tuple(answer(port, count, times) for port in ports))


def answer(port: int, clients: int, times: int) -> float:
    """Return the microseconds of a question and its answer, with so many clients connected."""
    with ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection((HOST, port))) for _ in range(clients)
        ]
        for sock in socks:
            ask(sock)
        found = []
        for _ in range(times):
            began = time.perf_counter()
            ask(socks[0])
            found.append(time.perf_counter() - began)
        return statistics.median(found) * 1e6


def ask(sock: socket.socket) -> None:
    sock.sendall(b"0\n")
    while not sock.recv(100).endswith(b"\n"):
        pass


# In words -----------------------------------------------------------------------------------------


def spell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def table(first: str, names: tuple[str, ...], rows: list[Cost]) -> str:
    """Return a table: a row for each count, a column for each way."""
    widths = [max(WIDTH, len(name) + 3) for name in names]
    lines = [f"{first:<10}" + "".join(f"{n:>{w}}" for n, w in zip(names, widths, strict=True))]
    for row in rows:
        cells = zip(row.costs, widths, strict=True)
        lines.append(f"{row.clients:<10}" + "".join(f"{spell(c):>{w}}" for c, w in cells))
    return "\n".join(lines)


def growth(rows: list[Cost], names: tuple[str, ...] = CALLS) -> list[str]:
    """Say of each call how its cost grows with the silent clients, and where it ends."""
    found = []
    for place, name in enumerate(names):
        measured = [(row.clients, row.costs[place]) for row in rows]
        known = [(count, round(value, 2)) for count, value in measured if value is not None]
        text = f"{name}: it takes none of these numbers of files."
        if known:
            (few, low), (many, high) = known[0], known[-1]
            text = f"{name}: {low:.2f} µs with {few} idle clients"
            if few != many:
                text += f", {high:.2f} with {many}, which is {compared(low, high)}"
            text += "."
        refused = [count for count, value in measured if value is None]
        if refused and known:
            text += f" With {refused[0]} it fails: no file number may reach 1 024."
        found.append(text)
    return found


def compared(low: float, high: float) -> str:
    """Say how a figure has changed; one that is not larger is no so many times as much."""
    times = round(high / low, 1)
    return f"{times} times as much" if times > 1 else "about as much" if times == 1 else "less"


def quickest(rows: list[Cost], names: tuple[str, ...]) -> list[str]:
    """Say who answers first with so many clients, and by how much."""
    found = []
    for row in rows:
        shown = [
            (round(value, 2), name)
            for value, name in zip(row.costs, names, strict=True)
            if value is not None
        ]
        (best, winner), (worst, loser) = min(shown), max(shown)
        clients = f"{row.clients} client" + "s" * (row.clients > 1)
        if best == worst:
            found.append(f"With {clients} all take {best:.2f} µs.")
        else:
            found.append(
                f"With {clients}: {winner} is the quickest, {best:.2f} µs; "
                f"{loser} takes {worst - best:.2f} more."
            )
    return found


def report(svg: Path | None = None, say: Callable[[str], object] = print) -> None:
    """Measure both tables, print them, and say what is in them."""
    rows = list(costs())
    say("One ready client among idle ones: who is it, and what has it said? (µs)\n")
    say(table("idle", CALLS, rows))
    say("\n" + paragraph(growth(rows)))
    names = tuple(server.name for server in ANSWERING)
    few = list(answers())
    say("\nOne question and its answer, with so many clients connected (µs)\n")
    say(table("clients", names, few))
    say("\n" + paragraph(quickest(few, names)))
    if svg:
        svg.write_text(draw(rows, CALLS), encoding="utf-8")
        say(f"\nThe picture of the first table is in {svg}")


def main(options: argparse.Namespace) -> None:
    if not hasattr(select, "epoll"):
        sys.exit("epoll is Linux's: this needs Linux")
    report(options.svg)


if __name__ == "__main__":
    svg = {"type": picture_file, "metavar": "FILE", "help": "draw the first table, too"}
    start(main, __doc__, arguments={"--svg": svg})
