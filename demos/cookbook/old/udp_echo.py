"""Echo over UDP. Faults: what is longer than the buffer comes back cut off, and a datagram that
seems to come from another echo server, or from this one, is answered for ever.
"""

from __future__ import annotations

import socket


def serve(sock: socket.socket) -> None:
    while True:
        data, sender = sock.recvfrom(8192)  # the rest of a longer datagram is lost
        sock.sendto(data, sender)
