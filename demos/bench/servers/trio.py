"""trio with its streams. For UDP it has sockets only."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from demos.bench.servers import MIB, split, work


async def handle_echo(stream: Any) -> None:
    while data := await stream.receive_some(65536):
        await stream.send_all(data)


async def handle_busy(stream: Any) -> None:
    while data := await stream.receive_some(65536):
        work()
        await stream.send_all(data)


async def handle_lines(stream: Any) -> None:
    whole_lines = split()
    while data := await stream.receive_some(65536):
        for line in whole_lines(data):
            await stream.send_all(line)


async def handle_bulk(stream: Any) -> None:
    while await stream.receive_some(65536):
        await stream.send_all(MIB)


def echo(listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
    trio.run(serve, listener, handle_echo, tls)


def busy(listener: socket.socket) -> None:
    trio.run(serve, listener, handle_busy)


def lines(listener: socket.socket) -> None:
    trio.run(serve, listener, handle_lines)


def bulk(listener: socket.socket) -> None:
    trio.run(serve, listener, handle_bulk)


async def serve(
    listener: socket.socket,
    handler: Callable[[Any], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> None:
    async def handle(stream: Any) -> None:
        try:
            await handler(stream)
        except trio.BrokenResourceError:
            pass

    listening: Any = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    if tls:
        listening = trio.SSLListener(listening, tls, https_compatible=True)
    await trio.serve_listeners(handle, [listening])
