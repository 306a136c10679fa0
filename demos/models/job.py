"""The job that all servers here do: numbers come in, one on a line; the total so far goes out.

    1       ->      1
    41      ->      42
    hello   ->      ?

What is here is the same for all of them. How they wait for their clients is what they differ in,
and that is in their own files.
"""

from __future__ import annotations

import argparse
import socket
import time

CHUNK = 4096  # bytes that are read at most at once
LONGEST = 20  # bytes of a line; a longer one is no number


class Totals:
    """What a server remembers of one client. It knows nothing about sockets."""

    def __init__(self) -> None:
        self.total = 0
        self.unfinished = b""  # a line whose end has not come yet

    def answers(self, data: bytes) -> bytes:
        """Return the answers to the lines that are complete with this data."""
        *lines, rest = (self.unfinished + data).split(b"\n")
        self.unfinished = rest[: LONGEST + 1]  # enough to see that it is too long
        return b"".join([self.answer(line) for line in lines])

    def answer(self, line: bytes) -> bytes:
        try:
            if len(line) > LONGEST:
                raise ValueError
            self.total += int(line)
        except ValueError:
            return b"?\n"
        return b"%d\n" % self.total


def listen(options: argparse.Namespace) -> socket.socket:
    """Open the socket that clients connect to, and say where it is."""
    family = socket.getaddrinfo(options.host, None)[0][0]
    listener = socket.create_server((options.host, options.port), family=family, backlog=1024)
    announce(*listener.getsockname()[:2])
    return listener


def announce(host: str, port: int) -> None:
    print(f"totals on {host} port {port}; try: nc {host} {port}", flush=True)


def accept(listener: socket.socket) -> socket.socket:
    """Wait for the next client: for servers that do nothing else in this thread meanwhile."""
    while True:
        try:
            return listener.accept()[0]
        except OSError:  # it has gone already; or no file number is free, which may take a while
            time.sleep(0.1)
