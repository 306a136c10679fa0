"""asyncio with streams: its sequential style."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from demos.bench.servers import MIB, work

Runner = Callable[[Coroutine[Any, Any, None]], None]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


async def handle_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def handle_busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        work()
        writer.write(data)
        await writer.drain()
    writer.close()


async def handle_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def handle_bulk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        writer.write(MIB)
        await writer.drain()
    writer.close()


def echo(
    listener: socket.socket, tls: ssl.SSLContext | None = None, run: Runner = asyncio.run
) -> None:
    run(serve(listener, handle_echo, tls))


def busy(listener: socket.socket, run: Runner = asyncio.run) -> None:
    run(serve(listener, handle_busy))


def lines(listener: socket.socket, run: Runner = asyncio.run) -> None:
    run(serve(listener, handle_lines))


def bulk(listener: socket.socket, run: Runner = asyncio.run) -> None:
    run(serve(listener, handle_bulk))


async def serve(
    listener: socket.socket, handler: Handler, tls: ssl.SSLContext | None = None
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except OSError:
            writer.close()

    server = await asyncio.start_server(handle, sock=listener, ssl=tls, backlog=4096)
    await server.serve_forever()
