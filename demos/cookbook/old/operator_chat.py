"""Several clients talk to one person at the terminal, who is asked for an answer to each line.

Faults: while `input()` waits for the person, all clients wait. And when the client has left
meanwhile, the answer to it kills the server.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from select import select


def serve(listener: socket.socket, ask: Callable[[str], str] = input) -> None:
    clients: list[socket.socket] = []
    while True:
        readable, _, _ = select([listener, *clients], [], [])
        for sock in readable:
            if sock is listener:
                clients.append(listener.accept()[0])
            else:
                line = sock.recv(1024)
                reply = ask(f"client {clients.index(sock) + 1}: {line.decode().rstrip()}\n")
                sock.sendall(f"{reply}\n".encode())  # also to one that has left
