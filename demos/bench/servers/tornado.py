"""Tornado: its streams. No UDP."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.tcpserver import TCPServer

from demos.bench.servers import MIB


class Echo(TCPServer):
    async def handle_stream(self, stream: Any, address: Any) -> None:
        try:
            while True:
                await self.answer(stream)
        except StreamClosedError:
            pass

    async def answer(self, stream: Any) -> None:
        await stream.write(await stream.read_bytes(65536, partial=True))


class Lines(Echo):
    async def answer(self, stream: Any) -> None:
        await stream.write(await stream.read_until(b"\n"))


class Bulk(Echo):
    async def answer(self, stream: Any) -> None:
        await stream.read_bytes(65536, partial=True)
        await stream.write(MIB)


def echo(listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
    asyncio.run(serve(Echo(ssl_options=tls), listener))


def lines(listener: socket.socket) -> None:
    asyncio.run(serve(Lines(), listener))


def bulk(listener: socket.socket) -> None:
    asyncio.run(serve(Bulk(), listener))


async def serve(server: TCPServer, listener: socket.socket) -> None:
    listener.setblocking(False)
    server.add_sockets([listener])
    await asyncio.Event().wait()
