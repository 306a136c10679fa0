"""Fibonacci numbers over UDP, computed by a pool of threads, which wake the loop by a socket.

Faults: `int(b"abc")` kills the server. A failure in the pool is raised in the pool's thread, where
nobody is: no answer. And a completion that arrives between the loop in `can_read` and the line
after it is thrown away.
"""

from __future__ import annotations

import socket
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from select import select
from typing import Any


def fib(n: int) -> int:
    return 1 if n <= 1 else fib(n - 1) + fib(n - 2)


class Completions:
    """What the pool has done, and the pair of sockets by which it says so."""

    def __init__(self) -> None:
        self.read_end, self.write_end = socket.socketpair()
        self.done: list[tuple[int, Any]] = []

    def complete(self, future: Future[int], sender: Any) -> None:
        """Called in a thread of the pool."""
        self.done.append((future.result(), sender))  # which raises what the work raised
        self.write_end.send(b"x")

    def can_read(self, sock: socket.socket) -> None:
        for number, sender in self.done:
            sock.sendto(str(number).encode("ascii"), sender)
            self.read_end.recv(1)
        self.done = []  # and what has been appended since the last look?


def serve(sock: socket.socket) -> None:
    with ThreadPoolExecutor(16) as pool:
        completions = Completions()
        while True:
            turn(sock, completions, pool)


def turn(sock: socket.socket, completions: Completions, pool: Executor) -> None:
    readable, _, _ = select([sock, completions.read_end], [], [])
    if sock in readable:
        message, sender = sock.recvfrom(128)
        future = pool.submit(fib, int(message))
        future.add_done_callback(lambda done: completions.complete(done, sender))
    if completions.read_end in readable:
        completions.can_read(sock)
