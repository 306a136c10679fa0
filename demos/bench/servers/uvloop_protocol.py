"""uvloop with a Protocol: asyncio's program on a loop that is written in C."""

from __future__ import annotations

import socket
import ssl

import uvloop

from demos.bench.servers import asyncio_protocol


def echo(listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
    asyncio_protocol.echo(listener, tls, run=uvloop.run)


def busy(listener: socket.socket) -> None:
    asyncio_protocol.busy(listener, run=uvloop.run)


def lines(listener: socket.socket) -> None:
    asyncio_protocol.lines(listener, run=uvloop.run)


def bulk(listener: socket.socket) -> None:
    asyncio_protocol.bulk(listener, run=uvloop.run)


def udp(sock: socket.socket) -> None:
    asyncio_protocol.udp(sock, run=uvloop.run)
