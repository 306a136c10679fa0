"""uvloop with streams: asyncio's program on a loop that is written in C."""

from __future__ import annotations

import socket
import ssl

import uvloop

from demos.bench.servers import asyncio_streams


def echo(listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
    asyncio_streams.echo(listener, tls, run=uvloop.run)


def busy(listener: socket.socket) -> None:
    asyncio_streams.busy(listener, run=uvloop.run)


def lines(listener: socket.socket) -> None:
    asyncio_streams.lines(listener, run=uvloop.run)


def bulk(listener: socket.socket) -> None:
    asyncio_streams.bulk(listener, run=uvloop.run)
