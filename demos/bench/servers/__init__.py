"""The contestants' servers. A file is a contestant; a function in it is a service that it offers.

    echo(listener), echo(listener, tls=None)    what comes goes back
    busy(listener)                              the same, after 100 µs of work
    lines(listener)                             each line goes back by itself
    bulk(listener)                              whatever comes, a MiB goes back
    udp(sock)                                   the datagram goes back

`listener` is a socket that listens, and blocks; `tls` is an `ssl.SSLContext`, and a server without
that parameter has no TLS. Each is written as its library's manual would, and none takes for granted
that the kernel takes all of a message at once. `demos.bench.serve` starts them.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence

MIB = bytes(1 << 20)
WORK = 100e-6  # seconds

# What is sent for what came, piece by piece; and a function that makes one for each connection.
Answer = Callable[[bytes], Sequence[bytes]]
Answers = Callable[[], Answer]


def work() -> None:
    """Compute something, as what answers a request would."""
    until = time.perf_counter() + WORK
    while time.perf_counter() < until:
        pass


def flood() -> Answer:
    """Answer with a MiB."""
    return lambda data: (MIB,)


def split() -> Answer:
    """Answer with the lines that are complete, each by itself: where there is no `readline()`."""
    rest = b""

    def whole_lines(data: bytes) -> Sequence[bytes]:
        nonlocal rest
        lines = io.BytesIO(rest + data).readlines()  # `split()` would leave the newlines out
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
        return lines

    return whole_lines
