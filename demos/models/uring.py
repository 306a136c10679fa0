"""A small io_uring, the asynchronous calls of Linux, by ctypes. Not a command; see completions.py.

Program and kernel share two rings in memory. The program puts its calls into one (64 bytes each,
`CALL`), the kernel puts what they returned into the other (`RESULT`); who puts in moves the tail,
who takes out moves the head. One system call, `io_uring_enter()`, hands over all that was begun and
waits for a result. So several clients at once need less than one system call each.

A buffer belongs to the kernel until its call is over: till then it is kept in `pending`.

Needs Linux 5.7, and leave to use it: many containers have none. The numbers below are those of
`linux/io_uring.h`, and are the same on all common machines.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
from itertools import count
from typing import Any

from demos.models.completions import Then

SETUP, ENTER = 425, 426  # numbers of the system calls
WAIT = 1  # a flag of ENTER: wait for a result
ONE_MAPPING, FAST_POLL = 1 << 0, 1 << 5  # features; Linux has the second since 5.7
CALLS = 0x10000000  # where the calls are in the ring's file; heads, tails and results are at 0
ACCEPT, SEND, RECV = 13, 26, 27
CALL = struct.Struct("=B3xi8xQI4xQ24x")  # what, file, address, length, the number we gave it
RESULT = struct.Struct("=Qi4x")  # that number, what the call returned


def words(*names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_uint32) for name in names]


class Parts(ctypes.Structure):
    """Where the parts of a ring are, in bytes. What the last five are depends on the ring."""

    _fields_ = [*words("head", "tail", "mask", "size", "a", "b", "c", "d"), ("e", ctypes.c_uint64)]


class Setup(ctypes.Structure):
    """What the kernel tells of the rings that it has made: `struct io_uring_params`."""

    _fields_ = [
        *words("calls", "results", "flags", "cpu", "idle", "features", "workers", "x", "y", "z"),
        ("call", Parts),
        ("result", Parts),
    ]


class Ring:
    """Both rings, and what is under way."""

    name = "io_uring"

    def __init__(self, size: int = 256) -> None:
        self.syscall = ctypes.CDLL(None, use_errno=True).syscall
        self.syscall.argtypes = [ctypes.c_long]  # of those that all calls have; the others differ
        self.setup = setup = Setup()
        self.file = self.syscall(SETUP, size, ctypes.byref(setup))
        if self.file < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        if not (setup.features & ONE_MAPPING and setup.features & FAST_POLL):
            os.close(self.file)
            raise OSError(errno.ENOSYS, "io_uring is too old")
        indexes, results = setup.call.c, setup.result.b  # where in the first mapping they are
        length = max(indexes + 4 * setup.calls, results + RESULT.size * setup.results)
        self.rings = mmap.mmap(self.file, length)
        self.calls = mmap.mmap(self.file, CALL.size * setup.calls, offset=CALLS)
        self.words = memoryview(self.rings).cast("I")
        for i in range(setup.calls):  # the ring has indexes of calls: each place its own, for ever
            self.words[indexes // 4 + i] = i
        self.begun: list[bytes] = []
        self.pending: dict[int, tuple[Then, object]] = {}
        self.numbers = count()

    def recv(self, conn: socket.socket, buffer: bytearray, then: Then) -> None:
        self.begin(RECV, conn, buffer, then)

    def send(self, conn: socket.socket, data: bytes, then: Then) -> None:
        self.begin(SEND, conn, bytearray(data), then)

    def accept(self, listener: socket.socket, then: Then) -> None:
        self.begin(ACCEPT, listener, bytearray(), then)

    def begin(self, what: int, file: socket.socket, buffer: bytearray, then: Then) -> None:
        number, length = next(self.numbers), len(buffer)
        held = (ctypes.c_char * length).from_buffer(buffer)  # nor can it be resized
        self.pending[number] = (then, held)
        address = ctypes.addressof(held) if length else 0
        self.begun.append(CALL.pack(what, file.fileno(), address, length, number))

    def wait(self) -> list[tuple[Then, int]]:
        """Hand over what was begun; wait, and return what is over by now."""
        fresh = self.hand_over()
        at_least = 0 if self.begun else 1  # not all had room: do not wait yet
        no_mask = (None, ctypes.c_size_t(0))
        if self.syscall(ENTER, self.file, fresh, at_least, WAIT, *no_mask) < 0:
            if ctypes.get_errno() not in (errno.EINTR, errno.EAGAIN, errno.EBUSY):
                raise OSError(ctypes.get_errno(), "io_uring_enter")
        return self.take()

    def hand_over(self) -> int:
        """Put calls into their ring; return how many are there that the kernel has not taken."""
        size, at = self.setup.calls, self.setup.call
        head, tail = self.words[at.head // 4], self.words[at.tail // 4]
        room = size - (tail - head) % 2**32
        for call in self.begun[:room]:
            place = tail % size * CALL.size
            self.calls[place : place + CALL.size] = call
            tail = (tail + 1) % 2**32
        del self.begun[:room]
        self.words[at.tail // 4] = tail
        untaken: int = (tail - head) % 2**32
        return untaken

    def take(self) -> list[tuple[Then, int]]:
        """Take all results from their ring."""
        over, at = [], self.setup.result
        head, tail = self.words[at.head // 4], self.words[at.tail // 4]
        while head != tail:
            place = at.b + head % self.setup.results * RESULT.size
            number, result = RESULT.unpack_from(self.rings, place)
            over.append((self.pending.pop(number)[0], result))
            head = (head + 1) % 2**32
        self.words[at.head // 4] = head
        return over

    def close(self) -> None:
        """Wait until nothing is under way, lest the kernel write into a buffer that is gone."""
        while self.pending:
            self.wait()
        os.close(self.file)
