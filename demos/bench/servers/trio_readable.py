"""trio below its sockets: Python's own, and a wait for each. No TLS."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import trio
from trio.lowlevel import wait_readable, wait_writable

from demos.bench.servers import MIB, split, work

Handler = Callable[[socket.socket], Awaitable[None]]


async def handle_echo(conn: socket.socket) -> None:
    while data := await receive(conn):
        await send(conn, data)


async def handle_busy(conn: socket.socket) -> None:
    while data := await receive(conn):
        work()
        await send(conn, data)


async def handle_lines(conn: socket.socket) -> None:
    whole_lines = split()
    while data := await receive(conn):
        for line in whole_lines(data):
            await send(conn, line)


async def handle_bulk(conn: socket.socket) -> None:
    while await receive(conn):
        await send(conn, MIB)


async def receive(conn: socket.socket) -> bytes:
    while True:
        await wait_readable(conn)
        try:
            return conn.recv(65536)
        except BlockingIOError:  # woken for nothing
            continue


async def send(conn: socket.socket, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[conn.send(rest) :]
        except BlockingIOError:  # the kernel's buffer is full
            await wait_writable(conn)


def echo(listener: socket.socket) -> None:
    trio.run(serve, listener, handle_echo)


def busy(listener: socket.socket) -> None:
    trio.run(serve, listener, handle_busy)


def lines(listener: socket.socket) -> None:
    trio.run(serve, listener, handle_lines)


def bulk(listener: socket.socket) -> None:
    trio.run(serve, listener, handle_bulk)


async def serve(listener: socket.socket, handler: Handler) -> None:
    async def handle(conn: socket.socket) -> None:
        with conn:
            try:
                await handler(conn)
            except OSError:
                pass

    listener.setblocking(False)
    async with trio.open_nursery() as nursery:
        while True:
            await wait_readable(listener)
            try:
                conn, _ = listener.accept()
            except OSError:
                continue
            conn.setblocking(False)
            nursery.start_soon(handle, conn)


def udp(sock: socket.socket) -> None:
    async def main() -> None:
        sock.setblocking(False)
        while True:
            await wait_readable(sock)
            try:
                sock.sendto(*sock.recvfrom(65535))
            except OSError:
                pass

    trio.run(main)
