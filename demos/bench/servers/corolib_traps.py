"""corolib with raw traps: the README's first program. No TLS."""

from __future__ import annotations

import socket
from collections.abc import Callable

from corolib import Coro, ReadWait, Sleep, WriteWait, run, spawn
from demos.bench.servers import MIB, split

Handler = Callable[[socket.socket], Coro[None]]


def handle_echo(conn: socket.socket) -> Coro[None]:
    with conn:
        while True:
            yield ReadWait(conn)
            data = conn.recv(65536)
            if not data:
                return
            while data:
                try:
                    data = data[conn.send(data) :]
                except BlockingIOError:  # the kernel's buffer is full
                    yield WriteWait(conn)


def handle_lines(conn: socket.socket) -> Coro[None]:
    whole_lines = split()
    with conn:
        while True:
            yield ReadWait(conn)
            data = conn.recv(65536)
            if not data:
                return
            for line in whole_lines(data):
                yield from send(conn, line)


def handle_bulk(conn: socket.socket) -> Coro[None]:
    with conn:
        while True:
            yield ReadWait(conn)
            if not conn.recv(65536):
                return
            yield from send(conn, MIB)


def send(conn: socket.socket, data: bytes) -> Coro[None]:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[conn.send(rest) :]
        except BlockingIOError:
            yield WriteWait(conn)


def echo(listener: socket.socket) -> None:
    run(serve, listener, handle_echo)


def lines(listener: socket.socket) -> None:
    run(serve, listener, handle_lines)


def bulk(listener: socket.socket) -> None:
    run(serve, listener, handle_bulk)


def serve(listener: socket.socket, handler: Handler) -> Coro[None]:
    listener.setblocking(False)
    while True:
        yield ReadWait(listener)
        try:
            conn, _ = listener.accept()
        except OSError:
            yield Sleep(0.05)
            continue
        conn.setblocking(False)
        spawn(handler, conn)


def udp(sock: socket.socket) -> None:
    def main() -> Coro[None]:
        sock.setblocking(False)
        while True:
            yield ReadWait(sock)
            try:
                sock.sendto(*sock.recvfrom(65535))
            except OSError:
                pass

    run(main)
