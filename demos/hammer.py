"""A load tool for echo servers: throughput, and how long each of many clients has to wait.

    $ python3 -m demos.echo &
    $ python3 -m demos.hammer 127.0.0.1 7007 -c 200 -n 100000
    100000 of 100000 messages of 64 bytes came back, on 200 connections, 1 at a time
    4.587 s: 21801 messages per second, 1.40 MB per second each way
    p50 8.54 ms, p90 12.1 ms, p99 16.3 ms, p99.9 24.6 ms, max 31.2 ms
      up to  5 ms  #                                                   811
      up to 10 ms  ##################################################  71032
      ...

Each message is a line of its own, different from all others, and what comes back is compared with
what was sent. With `--pipeline 16`, each client sends 16 messages at a time, and then waits for all
16. A client whose connection fails gives up, which is counted; the others go on. `--json` prints
the numbers for a program, all times in seconds.

What to look at: `converse` is one client. The latencies are those that these clients have met: a
client that waits sends nothing, so a server that stalls is asked less meanwhile.

Exit status: 0; 1 if not all has come back; 2: a wrong option; 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import string
import sys
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import Any

from corolib import Coro, Stream, gather, map_concurrent, open_tcp, run, spawn, timeout
from demos.progress import show
from demos.start import at_least, start

CHUNK = 65536  # bytes that are read at once
CONNECTING = 100  # connections that are opened at a time
AT_ONCE = 16384  # bytes that can be sent though nobody reads
BAR = 50  # characters
BOUNDS = [float(f"{m}e{e}") for e in range(-6, 9) for m in (1, 2, 5)]  # seconds
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9, "max": 100}


class Hammer:
    """A number of clients, and what they have met."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.filling = "".join(random.Random(0).choices(string.ascii_letters, k=options.size))
        self.latencies = array("d")  # of each message that came back, in seconds
        self.errors: Counter[str] = Counter()
        self.seconds = 0.0

    def run(self) -> Coro[None]:
        """Open all connections, then talk on all of them."""
        messages, clients = self.options.messages, self.options.connections
        spawn(show, self.line, daemon=True)
        with ExitStack() as self.open:
            streams = yield from map_concurrent(self.connect, range(clients), limit=CONNECTING)
            began = perf_counter()
            shares = [
                range(i * messages // clients, (i + 1) * messages // clients)
                for i in range(clients)
            ]
            yield from gather(*map(self.converse, streams, shares))
            self.seconds = perf_counter() - began

    def line(self) -> str:
        done, errors = len(self.latencies), self.errors.total()
        return f"{done} of {self.options.messages} messages, {errors} errors"

    def connect(self, _: int) -> Coro[Stream | None]:
        try:
            with timeout(self.options.timeout):
                stream = yield from open_tcp(self.options.to_host, self.options.to_port)
        except OSError as exc:
            self.note(exc)
            return None
        return self.open.enter_context(stream)

    def converse(self, stream: Stream | None, share: range) -> Coro[None]:
        """Be one client: send a few messages, wait until they are back, send the next."""
        if stream is None:
            return
        try:
            with stream:
                for begin in range(share.start, share.stop, self.options.pipeline):
                    some = range(begin, min(begin + self.options.pipeline, share.stop))
                    with timeout(self.options.timeout):
                        yield from self.exchange(stream, b"".join(map(self.message, some)))
        except (OSError, EOFError, ValueError) as exc:
            self.note(exc)

    def message(self, number: int) -> bytes:
        """Return a line; the last digits come first, so that short ones differ, too."""
        text = f"{str(number)[::-1]} {self.filling}"
        return f"{text[: self.options.size - 1]}\n".encode()

    def exchange(self, stream: Stream, sent: bytes) -> Coro[None]:
        """Send some messages, and wait until they are back."""
        size, came = self.options.size, 0
        began = perf_counter()
        if len(sent) <= AT_ONCE:
            yield from stream.sendall(sent)
        else:  # the server may stop reading until we read
            spawn(push, stream, sent, daemon=True)
        while came < len(sent):
            data = yield from stream.recv(CHUNK)
            if not data:
                raise EOFError("closed by the server")
            if data != sent[came : came + len(data)]:
                raise ValueError("a wrong answer")
            whole = (came + len(data)) // size - came // size
            came += len(data)
            self.latencies.extend([perf_counter() - began] * whole)

    def note(self, exc: Exception) -> None:
        """Count what a client has met. (What `timeout` raises has no text of the system's.)"""
        slow = f"no answer within {self.options.timeout:g} s"
        self.errors[exc.strerror or slow if isinstance(exc, OSError) else str(exc)] += 1

    def numbers(self) -> dict[str, Any]:
        """Return what was found out."""
        o, ordered = self.options, sorted(self.latencies)
        return {
            "connections": o.connections,
            "messages": o.messages,
            "size": o.size,
            "pipeline": o.pipeline,
            "came_back": len(ordered),
            "seconds": self.seconds,
            "per_second": len(ordered) / self.seconds if self.seconds else 0.0,
            "latency": {name: percentile(ordered, p) for name, p in PERCENTILES.items() if ordered},
            "histogram": histogram(ordered),
            "errors": dict(self.errors),
        }


def push(stream: Stream, data: bytes) -> Coro[None]:
    """Send beside the task that reads; if that fails, it is the one to be told."""
    try:
        yield from stream.sendall(data)
    except OSError:
        pass


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the least value that so many percent of the values do not exceed."""
    return ordered[max(1, math.ceil(round(len(ordered) * percent / 100, 6))) - 1]


def histogram(ordered: Sequence[float]) -> list[tuple[float, int]]:
    """Return bounds, and how many values are up to each and above the one before; beginning with
    the first that counts any, and up to the last.
    """
    found, before = [], 0
    for bound in BOUNDS:
        upto = bisect_right(ordered, bound)
        if upto and before < len(ordered):
            found.append((bound, upto - before))
        before = upto
    return found


def human(seconds: float) -> str:
    """Return a duration with three digits and a unit."""
    unit, factor = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("us", 1e6)
    return f"{float(f'{seconds * factor:.3g}'):g} {unit}"


def report(found: dict[str, Any]) -> str:
    """Return what was found out, for people."""
    megabytes = found["per_second"] * found["size"] / 1e6
    lines = [
        "{came_back} of {messages} messages of {size} bytes came back, on {connections} "
        "connections, {pipeline} at a time".format(**found),
        f"{found['seconds']:.3f} s: {found['per_second']:.0f} messages per second, "
        f"{megabytes:.2f} MB per second each way",
        ", ".join(f"{name} {human(value)}" for name, value in found["latency"].items()),
    ]
    most = max((count for _, count in found["histogram"]), default=0)
    for bound, count in found["histogram"]:
        bar = "#" * math.ceil(BAR * count / most)
        lines.append(f"  up to {human(bound):>6}  {bar:{BAR}}  {count}")
    lines += [f"failed: {text} ({times} times)" for text, times in found["errors"].items()]
    return "\n".join(filter(None, lines))


def main(options: argparse.Namespace) -> None:
    hammer = Hammer(options)
    run(hammer.run)
    found = hammer.numbers()
    print(json.dumps(found) if options.json else report(found))
    sys.exit(found["came_back"] < options.messages or bool(found["errors"]))


if __name__ == "__main__":
    many = at_least(1, 10_000_000)
    arguments: dict[str, dict[str, Any]] = {
        "to_host": {"help": "the server"},
        "to_port": {"type": at_least(1, 65535), "help": "its port"},
        "-c": {
            "dest": "connections",
            "type": at_least(1, 20_000),
            "default": 50,
            "help": "clients",
        },
        "-n": {"dest": "messages", "type": many, "default": 10000, "help": "messages of all"},
        "--size": {"type": many, "default": 64, "help": "bytes of a message"},
        "--pipeline": {"type": many, "default": 1, "help": "messages a client sends at a time"},
        "--timeout": {
            "type": at_least(0.0, 3600.0),
            "default": 10.0,
            "help": "seconds for an answer",
        },
        "--json": {"action": "store_true", "help": "print the numbers for a program"},
    }
    start(main, __doc__, arguments=arguments)
