"""Time servers, over TCP and UDP: the time for machines (RFC 868) and for people (RFC 867).

    $ python3 -m corolib demo time
    time on 127.0.0.1 port 7037, TCP and UDP; try: rdate -p -o 7037 127.0.0.1
    daytime on 127.0.0.1 port 7013, TCP and UDP; try: nc 127.0.0.1 7013

The first server sends the seconds since 1900 as four bytes, the second sends a line of text. What
they have in common with the echo server, how to accept clients and to answer datagrams, is in
`echo.py`, which is to be read first. Over UDP another machine must ask for the line of text with as
many bytes as it has, 26: nobody shall get more from here than was sent in his name.

Ctrl-C ends it, with exit status 130. Status 1: a port cannot be opened; 2: a wrong option.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Callable
from functools import partial

from corolib import Coro, ReadWait, Sleep, WriteWait, close, run, spawn
from corolib.demo.echo import serve
from corolib.demo.ports import Port, open_ports
from corolib.demo.start import at_least

FROM_1900_TO_1970 = 2208988800  # seconds
PATIENCE = 2.0  # seconds that a client has to take its answer and to close
ARGUMENTS = {
    "--daytime-port": {"default": 7013, "type": at_least(0, 65535), "help": "default: %(default)s"}
}

Answer = Callable[[float], bytes]


def time_of(now: float) -> bytes:
    """Return the seconds since 1900, as RFC 868 wants them: they begin anew in February 2036."""
    return ((int(now) + FROM_1900_TO_1970) & 0xFFFFFFFF).to_bytes(4, "big")


def daytime_of(now: float) -> bytes:
    """Return the local time as a line of text."""
    return time.ctime(now).encode("ascii") + b"\r\n"


def tell(answer: Answer, conn: socket.socket) -> Coro[None]:
    """Send a client the time, and close in such a way that it arrives.

    Closing a socket with unread input resets the connection, and a reset may destroy what is
    under way. So what the client sends is read, and thrown away, until it closes, too.
    """
    with conn:
        spawn(hang_up, conn, daemon=True)
        data = answer(time.time())
        while data:
            try:
                data = data[conn.send(data) :]
            except BlockingIOError:
                yield WriteWait(conn)
        conn.shutdown(socket.SHUT_WR)
        while True:
            yield ReadWait(conn)
            try:
                if not conn.recv(65536):
                    return
            except BlockingIOError:
                continue


def hang_up(conn: socket.socket) -> Coro[None]:
    """Close a connection when its time is up. As a daemon of `tell` it ends with it."""
    yield Sleep(PATIENCE)
    close(conn)  # `tell` gets a ClosedError where it waits


def serve_time(ports: list[Port], answer: Answer, others: list[Port]) -> Coro[None]:
    """Serve one of the two services, for ever."""
    numbers = [port.number for port in others]
    yield from serve(ports, partial(tell, answer), lambda _: answer(time.time()), numbers)


def serve_both(time_ports: list[Port], daytime_ports: list[Port]) -> Coro[None]:
    """Serve both, for ever."""
    spawn(serve_time, daytime_ports, daytime_of, time_ports)
    yield from serve_time(time_ports, time_of, daytime_ports)


def main(options: argparse.Namespace) -> None:
    """Open the ports, say where they are, and serve until Ctrl-C."""
    with (
        open_ports(options.host, options.port) as time_ports,
        open_ports(options.host, options.daytime_port) as daytime_ports,
    ):
        host, number = time_ports[0].tcp.getsockname()[:2]
        print(f"time on {host} port {number}, TCP and UDP; try: rdate -p -o {number} {host}")
        number = daytime_ports[0].number
        print(f"daytime on {host} port {number}, TCP and UDP; try: nc {host} {number}")
        sys.stdout.flush()
        run(serve_both, time_ports, daytime_ports)
