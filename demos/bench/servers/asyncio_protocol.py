"""asyncio with a Protocol: its callback style."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, cast

from demos.bench.servers import MIB, split, work

Runner = Callable[[Coroutine[Any, Any, None]], None]


class Echo(asyncio.Protocol):
    """What is sent is buffered; while the buffer is over its limit, nothing is read."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Busy(Echo):
    def data_received(self, data: bytes) -> None:
        work()
        self.transport.write(data)


class Lines(Echo):
    def __init__(self) -> None:
        self.answer = split()

    def data_received(self, data: bytes) -> None:
        for line in self.answer(data):
            self.transport.write(line)


class Bulk(Echo):
    def data_received(self, data: bytes) -> None:
        self.transport.write(MIB)


class Datagrams(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


def echo(
    listener: socket.socket, tls: ssl.SSLContext | None = None, run: Runner = asyncio.run
) -> None:
    run(serve(listener, Echo, tls))


def busy(listener: socket.socket, run: Runner = asyncio.run) -> None:
    run(serve(listener, Busy))


def lines(listener: socket.socket, run: Runner = asyncio.run) -> None:
    run(serve(listener, Lines))


def bulk(listener: socket.socket, run: Runner = asyncio.run) -> None:
    run(serve(listener, Bulk))


def udp(sock: socket.socket, run: Runner = asyncio.run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(Datagrams, sock=sock)
        await asyncio.Event().wait()

    run(main())


async def serve(
    listener: socket.socket,
    protocol: Callable[[], asyncio.Protocol],
    tls: ssl.SSLContext | None = None,
) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, sock=listener, ssl=tls, backlog=4096)
    await server.serve_forever()
