"""A tick when `select` has waited for five seconds, in a program that does not accept anybody.

Fault: a listening socket with a client in its queue can be read, and stays so until the client is
accepted. `select` returns at once, for ever: no tick comes any more, and a processor is burnt.
"""

from __future__ import annotations

import socket
from select import select

MANY = 100_000  # returns of `select` after which it says how many there were


def serve(listener: socket.socket, interval: float = 5.0) -> None:
    returns = 0
    while True:
        readable, _, _ = select([listener], [], [], interval)
        if not readable:
            print("tick", flush=True)
            continue
        returns += 1  # it is ready, and nobody accepts
        if returns % MANY == 0:
            print(f"select has returned {returns} times", flush=True)
