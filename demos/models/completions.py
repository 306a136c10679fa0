"""Asynchronous calls: started now, told of when they are over. Not a command; see asynchronous.py.

    io = open_completions()
    io.recv(conn, buffer, then)       starts; then(n) is called when n bytes are in the buffer
    io.send(conn, data, then)         then(n): n bytes have been taken
    io.accept(listener, then)         then(n): n is the number of the new connection
    for then, n in io.wait(): then(n)
    io.close()                        at the end, when the sockets have been shut down

A negative n is an error number. Nothing here waits but `wait()`. There are two of the kind: `Ring`,
in `uring.py`, where the kernel does both phases by itself; and `Helpers`, where it cannot.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

Then = Callable[[int], object]


class Completions(Protocol):
    """What `asynchronous.py` needs."""

    name: str

    def recv(self, conn: socket.socket, buffer: bytearray, then: Then) -> None: ...
    def send(self, conn: socket.socket, data: bytes, then: Then) -> None: ...
    def accept(self, listener: socket.socket, then: Then) -> None: ...
    def wait(self) -> Iterable[tuple[Then, int]]: ...
    def close(self) -> None: ...


class Helpers:
    """Asynchronous on top of blocking calls: for each that is under way, a thread sleeps in it.

    POSIX `aio_read()` of the GNU C library is made in the same way. To the program it looks like
    the real thing; the machine pays for the threads.
    """

    name = "helper threads"

    def __init__(self) -> None:
        self.calls: SimpleQueue[tuple[Callable[[], int], Then]] = SimpleQueue()
        self.over: SimpleQueue[tuple[Then, int]] = SimpleQueue()
        self.under_way = 0
        self.threads = 0

    def recv(self, conn: socket.socket, buffer: bytearray, then: Then) -> None:
        self.begin(lambda: conn.recv_into(buffer), then)

    def send(self, conn: socket.socket, data: bytes, then: Then) -> None:
        self.begin(lambda: conn.send(data), then)

    def accept(self, listener: socket.socket, then: Then) -> None:
        self.begin(lambda: listener.accept()[0].detach(), then)

    def begin(self, call: Callable[[], int], then: Then) -> None:
        self.under_way += 1
        if self.under_way > self.threads:  # perhaps all of them are asleep
            self.threads += 1
            Thread(target=self.help, daemon=True).start()
        self.calls.put((call, then))

    def help(self) -> None:
        """Make one call after the other: the life of a thread."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it has to wake the main thread
        while True:
            call, then = self.calls.get()
            try:
                result = call()
            except OSError as exc:
                result = -(exc.errno or 1)
            self.over.put((then, result))

    def wait(self) -> Iterable[tuple[Then, int]]:
        yield self.over.get()
        self.under_way -= 1

    def close(self) -> None:
        pass  # the threads end with the program


def open_completions(helpers: bool = False) -> Completions:
    """Return the kernel's where it has them, and lets this program use them; else helpers."""
    if not helpers:
        from demos.models.uring import Ring

        try:
            return Ring()
        except (OSError, AttributeError):  # an old kernel, one that forbids it, or another system
            pass
    return Helpers()
