"""One direction of a connection, and the faults that it may have; see `forward.py`.

What to look at: each direction has two tasks, with a queue of a few chunks between them. One reads,
and notes when a chunk is due; the other waits for that moment, and sends. So a delay costs no
throughput; and where the receiver is too slow the queue is full, and the sender has to wait, too.
"""

from __future__ import annotations

import fcntl
import math
import socket
import struct
import sys
import termios
from random import Random
from typing import NamedTuple

from corolib import Coro, Queue, Sleep, Stream, move_on_after, now, spawn

CHUNK = 65536  # bytes that are read at once
QUEUED = 16  # chunks that may be under way
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets the connection
WORTH = 1  # seconds to wait until what was sent has arrived


class Faults(NamedTuple):
    """What happens to the bytes that pass in one direction; by default nothing."""

    delay: float = 0.0
    jitter: float = 0.0
    rate: float = math.inf
    pieces: int | None = None
    after: int = sys.maxsize


class Struck(Exception):
    """As many bytes have passed as may."""


class Broken(Exception):
    """The source has broken off, and everything that came before has been passed on."""


class Side(Stream):
    """A stream that can be closed in such a way that the other end gets ECONNRESET."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.sock = sock

    def reset(self) -> None:
        if self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def wait_sent(self) -> Coro[None]:
        """Wait until the other end's kernel has all that was sent: a reset would drop the rest."""
        with move_on_after(WORTH):
            while self.sock.fileno() >= 0 and unsent(self.sock):
                yield Sleep(0.01)

    def swallow(self) -> Coro[None]:
        """Read all that comes, and drop it."""
        try:
            while (yield from self.recv(CHUNK)):
                pass
        except OSError:
            pass


def unsent(sock: socket.socket) -> int:
    """Return how many bytes the kernel keeps, since the other end has not acknowledged them."""
    count = fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0")
    return int.from_bytes(count, sys.byteorder)


class Way:
    """One direction of a connection.

    If the target is gone, what still comes is lost. That ends this direction alone: in the other
    one things may be under way.

    Attributes:
        passed: bytes that were passed on.
        lost: True if the target was gone before the end.
    """

    def __init__(self, source: Side, target: Side, faults: Faults, seed: str) -> None:
        self.source = source
        self.target = target
        self.faults = faults
        self.seed = seed
        self.queue: Queue[tuple[float, bytes | OSError]] = Queue(QUEUED)
        self.passed = 0
        self.lost = False

    def pass_on(self) -> Coro[None]:
        """Pass on what comes, up to its end; raise Broken or Struck if it has another end."""
        reading = spawn(self.read)
        try:
            yield from self.write()
        except OSError:
            self.lost = True
        reading.cancel()

    def read(self) -> Coro[None]:
        """Take what comes, and last the end, and note when it is due."""
        random = Random(f"{self.seed} jitter")
        due = 0.0
        data: bytes | OSError = b"?"
        while data and not isinstance(data, OSError):
            try:
                data = yield from self.source.recv(CHUNK)
            except OSError as exc:
                data = exc
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
            if isinstance(data, OSError):
                yield Sleep(at=due)
                raise Broken from data
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
