"""One direction of a connection, and the faults that it may have; see `forward.py`.

What to look at: each direction has two tasks, with a queue of a few chunks between them. One reads,
and notes when a chunk is due; the other waits for that moment, and sends. So a delay costs no
throughput; and where the receiver is too slow the queue is full, and the sender has to wait, too.
"""

from __future__ import annotations

import math
import socket
import struct
import sys
from random import Random
from typing import NamedTuple

from corolib import Coro, Queue, Sleep, Stream, now

CHUNK = 65536  # bytes that are read at once
QUEUED = 16  # chunks that may be under way
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets the connection


class Faults(NamedTuple):
    """What happens to the bytes that pass in one direction; by default nothing."""

    delay: float = 0.0
    jitter: float = 0.0
    rate: float = math.inf
    pieces: int | None = None
    after: int = sys.maxsize


class Struck(Exception):
    """As many bytes have passed as may."""


class Side(Stream):
    """A stream that can be closed in such a way that the other end gets ECONNRESET."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.sock = sock

    def reset(self) -> None:
        if self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def swallow(self) -> Coro[None]:
        """Read all that comes, and drop it."""
        try:
            while (yield from self.recv(CHUNK)):
                pass
        except OSError:
            pass


class Way:
    """One direction of a connection."""

    def __init__(self, source: Side, target: Side, faults: Faults, seed: str) -> None:
        self.source = source
        self.target = target
        self.faults = faults
        self.seed = seed
        self.queue: Queue[tuple[float, bytes]] = Queue(QUEUED)
        self.passed = 0

    def read(self) -> Coro[None]:
        """Take what comes, and last the end, and note when it is due."""
        random = Random(f"{self.seed} jitter")
        due, data = 0.0, b"?"
        while data:
            data = yield from self.source.recv(CHUNK)
            late = self.faults.delay + random.uniform(0, self.faults.jitter)
            due = max(due, now() + late)  # nothing overtakes
            yield from self.queue.put((due, data))

    def write(self) -> Coro[None]:
        """Send what is due, piece by piece, and last the end."""
        random = Random(f"{self.seed} pieces")
        _, _, rate, pieces, after = self.faults
        smooth = int(max(1, min(CHUNK, rate / 20)))  # twenty times a second
        free = 0.0  # when the line will be free
        left = 0  # bytes up to the next cut: cuts are at the same places in each run
        while self.passed < after:
            due, data = yield from self.queue.get()
            rest = memoryview(data)
            while rest and self.passed < after:
                left = left or (random.randint(1, pieces) if pieces else len(rest))
                piece = rest[: min(left, smooth, after - self.passed)]
                free = max(due, free) + len(piece) / rate
                yield Sleep(at=free)
                yield from self.target.sendall(piece)
                rest = rest[len(piece) :]
                left -= len(piece)
                self.passed += len(piece)
            if not data:
                yield Sleep(at=due)
                yield from self.target.send_eof()
                return
        raise Struck
