"""A thread for each connection, and blocking sockets."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable

from demos.bench.servers import MIB


def echo(listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
    def handle(conn: socket.socket) -> None:
        if tls:
            conn = tls.wrap_socket(conn, server_side=True)
        with conn:
            while data := conn.recv(65536):
                conn.sendall(data)

    serve(listener, handle)


def lines(listener: socket.socket) -> None:
    def handle(conn: socket.socket) -> None:
        with conn, conn.makefile("rb") as file:
            for line in file:
                conn.sendall(line)

    serve(listener, handle)


def bulk(listener: socket.socket) -> None:
    def handle(conn: socket.socket) -> None:
        with conn:
            while conn.recv(65536):
                conn.sendall(MIB)

    serve(listener, handle)


def serve(listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    def safely(conn: socket.socket) -> None:
        try:
            handle(conn)
        except OSError:
            pass

    while True:
        conn, _ = listener.accept()
        threading.Thread(target=safely, args=(conn,), daemon=True).start()


def udp(sock: socket.socket) -> None:
    while True:
        data, peer = sock.recvfrom(65535)
        try:
            sock.sendto(data, peer)
        except OSError:
            pass
