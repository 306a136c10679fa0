"""The time over UDP, with a handler object in a list for `select`.

It has no fault but its size: a class and a loop, for what is one function in its twin.
"""

from __future__ import annotations

import socket
import time
from select import select


class Handler:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        return self.sock.fileno()

    def can_read(self) -> None:
        _, sender = self.sock.recvfrom(1)
        self.sock.sendto(time.ctime().encode("ascii"), sender)


def serve(sock: socket.socket) -> None:
    handlers = [Handler(sock)]
    while True:
        readable, _, _ = select(handlers, [], [])
        for handler in readable:
            handler.can_read()
