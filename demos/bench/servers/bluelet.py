"""bluelet: generators on `select()`, so at most 1000 connections. No TLS, no UDP."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import bluelet

from demos.bench.servers import MIB


def echo(listener: socket.socket) -> None:
    def handle(conn: Any) -> Iterator[Any]:
        while data := (yield conn.recv(65536)):
            yield send(conn, data)

    serve(listener, handle)


def lines(listener: socket.socket) -> None:
    def handle(conn: Any) -> Iterator[Any]:
        while line := (yield conn.readline()):
            yield send(conn, line)

    serve(listener, handle)


def bulk(listener: socket.socket) -> None:
    def handle(conn: Any) -> Iterator[Any]:
        while (yield conn.recv(65536)):
            yield send(conn, MIB)

    serve(listener, handle)


def send(conn: Any, data: bytes) -> Iterator[Any]:
    """Its own `sendall()` would stop everybody while one client does not read."""
    rest = memoryview(data)
    while rest:
        rest = rest[(yield conn.send(rest)) :]


def serve(listener: socket.socket, handler: Callable[[Any], Iterator[Any]]) -> None:
    def handle(conn: Any) -> Iterator[Any]:
        conn.sock.setblocking(False)
        try:
            yield handler(conn)
        finally:
            conn.close()

    def main() -> Iterator[Any]:
        listening = object.__new__(bluelet.Listener)  # it opens none but with a backlog of 5
        listening._closed, listening.sock = False, listener
        while True:
            conn = yield listening.accept()
            yield bluelet.spawn(handle(conn))

    bluelet.run(main())
