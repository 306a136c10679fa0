"""Each message comes back from a queue, with three collections for `select`, one of errors.

Faults: a client that closes in order is never removed. It stays readable, and an empty message is
queued and sent for ever. And each message makes one more entry among the writers.
"""

from __future__ import annotations

import socket
from queue import Empty, SimpleQueue
from select import select


class Loop:
    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.inputs = [listener]
        self.outputs: list[socket.socket] = []
        self.messages: dict[socket.socket, SimpleQueue[bytes]] = {}

    def turn(self) -> None:
        readable, writable, failed = select(self.inputs, self.outputs, self.inputs)
        for sock in readable:
            if sock is self.listener:
                conn, _ = sock.accept()
                self.inputs.append(conn)
                self.messages[conn] = SimpleQueue()
            else:
                self.messages[sock].put(sock.recv(1024))  # also the empty one, at the end
                self.outputs.append(sock)  # once more
        for sock in writable:
            try:
                sock.send(self.messages[sock].get_nowait())
            except Empty:
                self.outputs.remove(sock)
        for sock in failed:
            self.inputs.remove(sock)
            sock.close()


def serve(listener: socket.socket) -> None:
    loop = Loop(listener)
    while True:
        loop.turn()
