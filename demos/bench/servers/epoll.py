"""A loop on epoll written by hand: about the least that Python can do. No TLS.

It reads and writes by file number: `os.read` and `os.write` take a quarter fewer instructions than
the methods of a socket.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence

from demos.bench.servers import Answer, Answers, flood, split


def echo(listener: socket.socket) -> None:
    serve(listener, None)


def lines(listener: socket.socket) -> None:
    serve(listener, split)


def bulk(listener: socket.socket) -> None:
    serve(listener, flood)


def serve(listener: socket.socket, answers: Answers | None) -> None:
    """Send the answers to what comes; None: the same back."""
    listener.setblocking(False)
    listening = listener.fileno()
    read, write = os.read, os.write
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    answer: dict[int, Answer] = {}
    unsent: dict[int, memoryview] = {}  # for those of whom nothing is read meanwhile
    while True:
        for fd, _ in poll.poll():
            try:
                if fd == listening:
                    conn, _ = listener.accept()
                    conn.setblocking(False)
                    connections[conn.fileno()] = conn
                    if answers:
                        answer[conn.fileno()] = answers()
                    poll.register(conn, select.EPOLLIN)
                elif fd in unsent:
                    unsent[fd] = unsent[fd][write(fd, unsent[fd]) :]
                    if not unsent[fd]:
                        del unsent[fd]
                        poll.modify(fd, select.EPOLLIN)
                elif data := read(fd, 65536):
                    rest: bytes | memoryview = data
                    if answers:
                        rest = send(fd, answer[fd](data))
                    else:
                        try:
                            rest = data[write(fd, data) :]
                        except BlockingIOError:
                            pass
                    if rest:
                        unsent[fd] = memoryview(rest)
                        poll.modify(fd, select.EPOLLOUT)
                else:
                    raise ConnectionError("it was closed")
            except BlockingIOError:
                pass  # woken for nothing
            except ConnectionError:
                if fd != listening:
                    unsent.pop(fd, None)
                    connections.pop(fd).close()


def send(fd: int, parts: Sequence[bytes]) -> bytes | memoryview:
    """Send what can be sent; return the rest."""
    for number, part in enumerate(parts):
        try:
            sent = os.write(fd, part)
        except BlockingIOError:
            sent = 0
        if sent < len(part):
            rest = memoryview(part)[sent:]
            return b"".join([rest, *parts[number + 1 :]]) if parts[number + 1 :] else rest
    return b""


def udp(sock: socket.socket) -> None:
    sock.setblocking(False)
    poll = select.epoll()
    poll.register(sock, select.EPOLLIN)
    while True:
        poll.poll()
        try:
            while True:
                data, peer = sock.recvfrom(65535)
                sock.sendto(data, peer)
        except OSError:
            pass  # there is no more, or the answer cannot be sent
