"""pycos: generators that pass messages. Its TLS needs what Python 3.12 has no more: left out."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from typing import Any

import pycos

from demos.bench.servers import MIB, split


def handle_echo(conn: Any) -> Generator[Any, Any, None]:
    while data := (yield conn.recv(65536)):
        yield conn.sendall(data)


def handle_lines(conn: Any) -> Generator[Any, Any, None]:
    whole_lines = split()
    while data := (yield conn.recv(65536)):
        for line in whole_lines(data):
            yield conn.sendall(line)


def handle_bulk(conn: Any) -> Generator[Any, Any, None]:
    while (yield conn.recv(65536)):
        yield conn.sendall(MIB)


def echo(listener: socket.socket) -> None:
    serve(listener, handle_echo)


def lines(listener: socket.socket) -> None:
    serve(listener, handle_lines)


def bulk(listener: socket.socket) -> None:
    serve(listener, handle_bulk)


def serve(listener: socket.socket, handler: Callable[[Any], Generator[Any, Any, None]]) -> None:
    def handle(conn: Any, task: Any = None) -> Generator[Any, Any, None]:
        try:
            yield from handler(conn)
        except OSError:
            pass
        conn.close()

    def main(task: Any = None) -> Generator[Any, Any, None]:
        listening = pycos.AsyncSocket(listener)
        while True:
            conn, _ = yield listening.accept()
            pycos.Task(handle, conn)

    pycos.Task(main).value()


def udp(sock: socket.socket) -> None:
    def main(task: Any = None) -> Generator[Any, Any, None]:
        datagrams = pycos.AsyncSocket(sock)
        while True:
            data, peer = yield datagrams.recvfrom(65535)
            yield datagrams.sendto(data, peer)

    pycos.Task(main).value()
