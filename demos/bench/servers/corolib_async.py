"""corolib with streams and `async def`."""

from __future__ import annotations

import socket
import ssl

from corolib import Stream, run
from demos.bench.servers import MIB, work
from demos.bench.servers.corolib_streams import serve


async def handle_echo(stream: Stream) -> None:
    while data := await stream.recv(65536):
        await stream.sendall(data)


async def handle_busy(stream: Stream) -> None:
    while data := await stream.recv(65536):
        work()
        await stream.sendall(data)


async def handle_lines(stream: Stream) -> None:
    async for line in stream:
        await stream.sendall(line)


async def handle_bulk(stream: Stream) -> None:
    while await stream.recv(65536):
        await stream.sendall(MIB)


def echo(listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
    run(serve, listener, handle_echo, tls)


def busy(listener: socket.socket) -> None:
    run(serve, listener, handle_busy)


def lines(listener: socket.socket) -> None:
    run(serve, listener, handle_lines)


def bulk(listener: socket.socket) -> None:
    run(serve, listener, handle_bulk)
