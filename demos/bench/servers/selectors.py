"""Callbacks on the standard `selectors`, as in its manual, but with short sends. No TLS."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Sequence

from demos.bench.servers import Answer, Answers, flood, split

selector = selectors.DefaultSelector()
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def echo(listener: socket.socket) -> None:
    serve(listener, lambda: lambda data: (data,))


def lines(listener: socket.socket) -> None:
    serve(listener, split)


def bulk(listener: socket.socket) -> None:
    serve(listener, flood)


class Connection:
    def __init__(self, conn: socket.socket, answer: Answer) -> None:
        conn.setblocking(False)
        self.conn = conn
        self.answer = answer
        self.unsent = memoryview(b"")
        selector.register(conn, READ, self.read)

    def read(self) -> None:
        try:
            data = self.conn.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.send(self.answer(data))
        else:
            self.close()

    def send(self, parts: Sequence[bytes]) -> None:
        for part in parts:
            if self.unsent:
                self.unsent = memoryview(b"".join([self.unsent, part]))
                continue
            try:
                sent = self.conn.send(part)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            if sent < len(part):
                self.unsent = memoryview(part)[sent:]
                selector.modify(self.conn, WRITE, self.write)

    def write(self) -> None:
        try:
            self.unsent = self.unsent[self.conn.send(self.unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self.close()
        else:
            if not self.unsent:
                selector.modify(self.conn, READ, self.read)

    def close(self) -> None:
        selector.unregister(self.conn)
        self.conn.close()


def serve(listener: socket.socket, answers: Answers) -> None:
    def accept() -> None:
        try:
            Connection(listener.accept()[0], answers())
        except OSError:
            pass

    listener.setblocking(False)
    selector.register(listener, READ, accept)
    run()


def udp(sock: socket.socket) -> None:
    def answer() -> None:
        try:
            sock.sendto(*sock.recvfrom(65535))
        except OSError:
            pass

    sock.setblocking(False)
    selector.register(sock, READ, answer)
    run()


def run() -> None:
    while True:
        for key, _ in selector.select():
            key.data()
