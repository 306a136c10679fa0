"""gevent: greenlets, and sockets that look as if they blocked."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

import gevent
import gevent.server
import gevent.socket
import gevent.ssl

from demos.bench import localhost
from demos.bench.servers import MIB, work


def handle_echo(conn: Any, address: Any) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def handle_busy(conn: Any, address: Any) -> None:
    while data := conn.recv(65536):
        work()
        conn.sendall(data)


def handle_lines(conn: Any, address: Any) -> None:
    with conn.makefile("rb") as file:
        for line in file:
            conn.sendall(line)


def handle_bulk(conn: Any, address: Any) -> None:
    while conn.recv(65536):
        conn.sendall(MIB)


def echo(listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
    if tls:  # it takes only contexts of a class of its own
        tls = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(localhost.PEM)
        serve(listener, handle_echo, ssl_context=tls)
    else:
        serve(listener, handle_echo)


def busy(listener: socket.socket) -> None:
    serve(listener, handle_busy)


def lines(listener: socket.socket) -> None:
    serve(listener, handle_lines)


def bulk(listener: socket.socket) -> None:
    serve(listener, handle_bulk)


def serve(listener: socket.socket, handler: Callable[[Any, Any], None], **tls: Any) -> None:
    def handle(conn: Any, address: Any) -> None:
        try:
            handler(conn, address)
        except OSError:
            pass

    gevent.server.StreamServer(_own(listener), handle, **tls).serve_forever()


def udp(sock: socket.socket) -> None:
    datagrams = _own(sock)
    while True:
        data, peer = datagrams.recvfrom(65535)
        datagrams.sendto(data, peer)


def _own(sock: socket.socket) -> Any:
    return gevent.socket.socket(fileno=sock.detach())
