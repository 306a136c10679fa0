"""One message of each client is printed, by a server that looks at its sockets every 4 seconds.

Fault: what comes right after a look waits for the next one. A shorter interval makes that less, and
burns more time on looks in vain.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


def serve(
    listener: socket.socket, interval: float = 4.0, sleep: Callable[[float], object] = time.sleep
) -> None:
    listener.setblocking(False)
    clients: list[socket.socket] = []
    while True:
        look(listener, clients)
        sleep(interval)


def look(listener: socket.socket, clients: list[socket.socket]) -> None:
    """Accept who is there, and print what is there; with many clients most of this is in vain."""
    try:
        clients.append(listener.accept()[0])
        clients[-1].setblocking(False)
    except BlockingIOError:
        pass
    for conn in list(clients):
        try:
            message = conn.recv(1024)
        except BlockingIOError:
            continue
        host, port = conn.getpeername()
        print(f"{host}:{port}: {message!r}", flush=True)
        clients.remove(conn)
        conn.close()
