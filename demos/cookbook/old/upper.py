"""Upper-casing, with three collections for `select` and a queue of answers for each connection.

Faults: `send` may take a part of an answer, whose rest is lost. And a client that vanishes while
answers wait for it is taken out of one collection only: its entries stay in the others, and the
next `select` finds a closed file there, and the server dies.
"""

from __future__ import annotations

import socket
from queue import SimpleQueue
from select import select


class Loop:
    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.inputs = [listener]
        self.outputs: list[socket.socket] = []
        self.answers: dict[socket.socket, SimpleQueue[bytes]] = {}

    def turn(self) -> None:
        readable, writable, _ = select(self.inputs, self.outputs, [])
        for sock in readable:
            if sock is self.listener:
                self.accept()
            else:
                self.read(sock)
        for sock in writable:
            if sock.fileno() != -1:
                self.send(sock)

    def accept(self) -> None:
        conn, _ = self.listener.accept()
        conn.setblocking(False)
        self.inputs.append(conn)
        self.answers[conn] = SimpleQueue()

    def read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.inputs.remove(sock)  # and from `outputs`, and from `answers`?
            sock.close()
            return
        self.answers[sock].put(data.upper())
        if sock not in self.outputs:
            self.outputs.append(sock)

    def send(self, sock: socket.socket) -> None:
        if self.answers[sock].empty():
            self.outputs.remove(sock)
        else:
            sock.send(self.answers[sock].get())  # or a part of it


def serve(listener: socket.socket) -> None:
    loop = Loop(listener)
    while True:
        loop.turn()
