"""Upper-casing, with a branch for the exceptional conditions of `select`.

Fault: urgent data, which is what is exceptional in TCP, is taken for an error: the connection is
dropped, and with it whatever was under way.
"""

from __future__ import annotations

import socket
from select import select


def serve(listener: socket.socket) -> None:
    clients: list[socket.socket] = []
    while True:
        readable, _, exceptional = select([listener, *clients], [], clients)
        for sock in exceptional:
            clients.remove(sock)
            sock.close()
        for sock in readable:
            if sock is listener:
                clients.append(sock.accept()[0])
            elif sock in clients:
                data = sock.recv(65536)
                if data:
                    sock.sendall(data.upper())
                else:
                    clients.remove(sock)
                    sock.close()
