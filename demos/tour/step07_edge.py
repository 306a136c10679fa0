"""Step 7 of the tour: told as long as there is something, or told once.

    $ python3 -m demos.tour.step07_edge
    level, 5 bytes at a time
    ...

A server that asks for edges and reads too little has clients that wait for ever. Here is the least
that shows it: one socket, ten bytes, three looks.
"""

from __future__ import annotations

import argparse
import select
import socket
import sys

from demos.start import start


def look(poller: select.epoll, sock: socket.socket, size: int) -> str:
    """Ask once, without waiting; if the socket is ready, read so many bytes. Return what was."""
    if not poller.poll(0):
        return "silent"
    return f"ready, reads {sock.recv(size).decode()}"


def look_and_empty(poller: select.epoll, sock: socket.socket, size: int) -> str:
    """Ask once; if the socket is ready, read until nothing is left."""
    if not poller.poll(0):
        return "silent"
    parts = []
    while True:
        try:
            parts.append(sock.recv(size).decode())
        except BlockingIOError:  # now it is empty: only now it may be told anew
            return f"ready, reads {' and '.join(parts)}"


def main(options: argparse.Namespace) -> None:
    if not hasattr(select, "epoll"):
        sys.exit("there is no epoll here: it is a call of Linux")
    level, edge = select.EPOLLIN, select.EPOLLIN | select.EPOLLET
    for title, events, asking in [
        ("level, 5 bytes at a time", level, look),
        ("edge, 5 bytes at a time", edge, look),
        ("edge, until nothing is left", edge, look_and_empty),
    ]:
        print(title)
        ours, theirs = socket.socketpair()
        with ours, theirs, select.epoll() as poller:
            ours.setblocking(False)
            poller.register(ours, events)
            theirs.send(b"HelloWorld")
            for _ in range(3):
                print("   ", asking(poller, ours, 5))
            theirs.send(b"Again")
            print("    another 5 bytes come:", asking(poller, ours, 5))


if __name__ == "__main__":
    start(main, __doc__)
