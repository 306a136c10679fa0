"""Blocking I/O: one call waits for the data and fetches it, and the program sleeps in it.

    $ python3 -m demos.models.blocking
    totals on 127.0.0.1 port 7050; try: nc 127.0.0.1 7050

Reading has two phases: waiting until data is there, and copying it from the kernel to the program.
Here both are in `recv()`. As `strace` shows it, with the pause in the middle of a call:

    recvfrom(4,                                       phase 1: the program sleeps
               "41\n", 4096, 0, NULL, NULL) = 3       phase 2: the kernel copies

It is the simplest server there is. But while it sleeps in a call for one client, it does nothing
for the others: they are served one after another. Connect with two `nc`, and type into the second.
"""

from __future__ import annotations

import argparse
import socket

from demos.models.job import CHUNK, Totals, accept, listen
from demos.start import start


def talk(conn: socket.socket) -> None:
    """Serve one client until it has no more."""
    with conn:
        totals = Totals()
        while data := conn.recv(CHUNK):  # both phases
            conn.sendall(totals.answers(data))  # waits too, for a client that does not read


def main(options: argparse.Namespace) -> None:
    with listen(options) as listener:
        while True:
            try:
                talk(accept(listener))
            except OSError:
                pass  # the client broke the connection off, which is no failure of the server


if __name__ == "__main__":
    start(main, __doc__, port=7050)
