"""trio with its plain sockets: less careful than its streams, and cheaper. No TLS."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from demos.bench.servers import MIB, split, work


async def handle_echo(conn: Any) -> None:
    while data := await conn.recv(65536):
        await send(conn, data)


async def handle_busy(conn: Any) -> None:
    while data := await conn.recv(65536):
        work()
        await send(conn, data)


async def handle_lines(conn: Any) -> None:
    whole_lines = split()
    while data := await conn.recv(65536):
        for line in whole_lines(data):
            await send(conn, line)


async def handle_bulk(conn: Any) -> None:
    while await conn.recv(65536):
        await send(conn, MIB)


async def send(conn: Any, data: bytes) -> None:
    sent = await conn.send(data)
    while sent < len(data):
        sent += await conn.send(memoryview(data)[sent:])


def echo(listener: socket.socket) -> None:
    trio.run(serve, listener, handle_echo)


def busy(listener: socket.socket) -> None:
    trio.run(serve, listener, handle_busy)


def lines(listener: socket.socket) -> None:
    trio.run(serve, listener, handle_lines)


def bulk(listener: socket.socket) -> None:
    trio.run(serve, listener, handle_bulk)


async def serve(listener: socket.socket, handler: Callable[[Any], Awaitable[None]]) -> None:
    async def handle(conn: Any) -> None:
        with conn:
            try:
                await handler(conn)
            except OSError:
                pass

    listening = trio.socket.from_stdlib_socket(listener)
    async with trio.open_nursery() as nursery:
        while True:
            conn, _ = await listening.accept()
            nursery.start_soon(handle, conn)


def udp(sock: socket.socket) -> None:
    async def main() -> None:
        datagrams = trio.socket.from_stdlib_socket(sock)
        while True:
            data, peer = await datagrams.recvfrom(65535)
            await datagrams.sendto(data, peer)

    trio.run(main)
