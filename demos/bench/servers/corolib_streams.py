"""corolib with streams."""

from __future__ import annotations

import socket
import ssl

from corolib import Coro, DatagramSocket, Stream, listen_tcp, run
from corolib.net.servers import Handler
from demos.bench.servers import MIB, work


def handle_echo(stream: Stream) -> Coro[None]:
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data)


def handle_busy(stream: Stream) -> Coro[None]:
    while data := (yield from stream.recv(65536)):
        work()
        yield from stream.sendall(data)


def handle_lines(stream: Stream) -> Coro[None]:
    while line := (yield from stream.readline()):
        yield from stream.sendall(line)


def handle_bulk(stream: Stream) -> Coro[None]:
    while (yield from stream.recv(65536)):
        yield from stream.sendall(MIB)


def echo(listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
    run(serve, listener, handle_echo, tls)


def busy(listener: socket.socket) -> None:
    run(serve, listener, handle_busy)


def lines(listener: socket.socket) -> None:
    run(serve, listener, handle_lines)


def bulk(listener: socket.socket) -> None:
    run(serve, listener, handle_bulk)


def serve(
    listener: socket.socket, handler: Handler, tls: ssl.SSLContext | None = None
) -> Coro[None]:
    yield from listen_tcp(fd=listener.detach()).serve(handler, tls=tls)


def udp(sock: socket.socket) -> None:
    def main() -> Coro[None]:
        with DatagramSocket(sock) as datagrams:
            while True:
                data, peer = yield from datagrams.recvfrom()
                yield from datagrams.sendto(data, peer)

    run(main)
