"""The client of the tour: twenty at once, one that does not read, or one that breaks off.

    $ python3 -m demos.tour.client
    +1 -1 +2 -2 +3 -3 +4 -4 +5 -5 +6 -6 +7 -7 +8 -8 +9 -9 +10 -10 ...
    1 of 20 got an answer before the first one left

All connect, and each says hello. `+3`: the third has its answer; `-3`: it leaves. A client that
has its answer stays until nobody else gets one, so the order shows how many are served at the same
time.

    $ python3 -m demos.tour.client --flood 8000000
    8000000 bytes sent, 8000000 came back

Sends that much, and does not read as long as the server takes more.

    $ python3 -m demos.tour.client --reset
    the connection is broken off
"""

from __future__ import annotations

import argparse
import select
import socket
import struct
import sys
import textwrap
from collections import deque
from contextlib import suppress
from threading import Thread

from demos.start import at_least, start

LOST = 30  # seconds without an answer after which nobody has hope


def visit(address: tuple[str, int], count: int, patience: float) -> list[str]:
    """Have `count` clients served; return who was answered and who left, in order."""
    waiting: dict[socket.socket, int] = {}
    for number in range(1, count + 1):
        conn = socket.create_connection(address)
        conn.sendall(b"hello from %d\n" % number)
        waiting[conn] = number
    numbers = dict(waiting)
    answered: deque[socket.socket] = deque()
    order: list[str] = []
    while waiting or answered:
        readable: list[socket.socket] = []
        if waiting:
            readable = select.select(list(waiting), [], [], patience if answered else LOST)[0]
        for conn in readable:
            number = waiting.pop(conn)
            if conn.recv(100) != b"hello from %d\n" % number:
                sys.exit(f"client {number} did not get back what it had sent")
            order.append(f"+{number}")
            answered.append(conn)
        if not readable:
            if not answered:
                sys.exit(f"{len(waiting)} clients get no answer")
            conn = answered.popleft()
            conn.close()
            order.append(f"-{numbers[conn]}")
    return order


def flood(address: tuple[str, int], size: int, patience: float) -> bytes:
    """Send `size` bytes without reading, as long as the server takes them; then read, too."""
    data = memoryview(bytes(range(256)) * (size // 256 + 1))[:size]
    with socket.create_connection(address) as conn:
        for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            conn.setsockopt(socket.SOL_SOCKET, buffer, 65536)  # little fits in
        conn.settimeout(patience)
        try:
            while data:
                data = data[conn.send(data) :]
        except (TimeoutError, BlockingIOError):  # it wants its answers read first
            pass
        conn.settimeout(None)

        def send_the_rest() -> None:
            with suppress(OSError):  # who reads the answers will notice, too
                conn.sendall(data)
                conn.shutdown(socket.SHUT_WR)  # "that was all", while the answers are still read

        sender = Thread(target=send_the_rest, daemon=True)
        sender.start()
        parts = []
        while part := conn.recv(65536):
            parts.append(part)
        sender.join()
        return b"".join(parts)


def break_off(address: tuple[str, int]) -> None:
    """Be served, and go as a computer that loses its power: without a proper end."""
    with socket.create_connection(address) as conn:
        conn.sendall(b"hello")
        conn.recv(100)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def main(options: argparse.Namespace) -> None:
    address = (options.host, options.port)
    try:
        if options.reset:
            break_off(address)
            print("the connection is broken off")
        elif options.flood:
            echo = flood(address, options.flood, options.patience)
            print(f"{options.flood} bytes sent, {len(echo)} came back")
        else:
            order = visit(address, options.clients, options.patience)
            print(textwrap.fill(" ".join(order), 80, break_on_hyphens=False))
            together = [event[0] for event in order].index("-")
            print(f"{together} of {options.clients} got an answer before the first one left")
    except (ConnectionResetError, BrokenPipeError):
        sys.exit("the server has broken off; look there for the reason")


if __name__ == "__main__":
    start(
        main,
        __doc__,
        port=7007,
        arguments={
            "--clients": {"type": at_least(1, 1000), "default": 20, "help": "default: %(default)s"},
            "--patience": {
                "type": at_least(0.0, 3600.0),
                "default": 0.2,
                "help": "seconds after which nothing more is expected; default: %(default)s",
            },
            "--flood": {
                "type": at_least(1, 1_000_000_000),
                "metavar": "BYTES",
                "help": "send so much without reading",
            },
            "--reset": {"action": "store_true", "help": "break the connection off"},
        },
    )
