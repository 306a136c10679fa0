"""Each client gets back what it says, once, from a server with blocking sockets.

Fault: clients are served one after another, and one that says nothing blocks all behind it.
"""

from __future__ import annotations

import socket


def serve(listener: socket.socket) -> None:
    while True:
        conn, _ = listener.accept()
        with conn:
            conn.sendall(conn.recv(1024))
