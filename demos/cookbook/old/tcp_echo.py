"""Echo over TCP, with handlers in a list: each client's is added, and removed in the end.

Faults: a client that closes its side does not get back what is still `outgoing`, and if it could
just have been sent, the server dies: `select` said so of a socket that is closed by then. And
`outgoing` grows without bound while a client sends and does not read.
"""

from __future__ import annotations

import socket
from select import select


class Handler:
    def __init__(self, sock: socket.socket, handlers: list[Handler]) -> None:
        self.sock = sock
        self.handlers = handlers
        self.handlers.append(self)

    def fileno(self) -> int:
        return self.sock.fileno()

    def wants_to_send(self) -> bool:
        return False

    def can_read(self) -> None: ...

    def can_send(self) -> None: ...


class Server(Handler):
    def can_read(self) -> None:
        conn, _ = self.sock.accept()
        conn.setblocking(False)
        Client(conn, self.handlers)


class Client(Handler):
    outgoing = b""

    def can_read(self) -> None:
        data = self.sock.recv(8192)
        if data:
            self.outgoing += data  # however much there is already
        else:
            self.sock.close()  # and `outgoing`?
            self.handlers.remove(self)

    def wants_to_send(self) -> bool:
        return bool(self.outgoing)

    def can_send(self) -> None:
        sent = self.sock.send(self.outgoing)
        self.outgoing = self.outgoing[sent:]


def serve(listener: socket.socket) -> None:
    handlers: list[Handler] = []
    Server(listener, handlers)
    while True:
        turn(handlers)


def turn(handlers: list[Handler]) -> None:
    senders = [each for each in handlers if each.wants_to_send()]
    readable, writable, _ = select(handlers, senders, [])
    for each in readable:
        each.can_read()
    for each in writable:  # one of them may have been closed above
        each.can_send()
