"""curio: a small kernel for `async def`."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import curio
import curio.io

from demos.bench.servers import MIB


async def handle_echo(client: Any, address: Any) -> None:
    while data := await client.recv(65536):
        await client.sendall(data)


async def handle_lines(client: Any, address: Any) -> None:
    stream = client.as_stream()
    while line := await stream.readline():
        await client.sendall(line)


async def handle_bulk(client: Any, address: Any) -> None:
    while await client.recv(65536):
        await client.sendall(MIB)


def echo(listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
    serve(listener, handle_echo, tls)


def lines(listener: socket.socket) -> None:
    serve(listener, handle_lines)


def bulk(listener: socket.socket) -> None:
    serve(listener, handle_bulk)


def serve(
    listener: socket.socket,
    handler: Callable[[Any, Any], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> None:
    async def handle(client: Any, address: Any) -> None:
        try:
            await handler(client, address)
        except OSError:
            pass

    context = curio.ssl.CurioSSLContext(tls) if tls else None
    curio.run(curio.network.run_server(curio.io.Socket(listener), handle, context))


def udp(sock: socket.socket) -> None:
    async def main() -> None:
        datagrams = curio.io.Socket(sock)
        while True:
            data, peer = await datagrams.recvfrom(65535)
            await datagrams.sendto(data, peer)

    curio.run(main)
