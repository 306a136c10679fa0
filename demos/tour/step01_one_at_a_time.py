"""Step 1 of the tour: blocking sockets, and one client at a time.

    $ python3 -m demos.tour.step01_one_at_a_time
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007

The shortest server there is, and the easiest to read. The second client is served when the first
has left.
"""

from __future__ import annotations

import argparse
import socket
from contextlib import suppress

from corolib.demo.start import start
from demos.tour.listening import listen


def echo(conn: socket.socket) -> None:
    """Send back what a client sends, until it has no more."""
    with conn, suppress(OSError):  # a client may break off: that is no failure of the server
        while data := conn.recv(65536):
            conn.sendall(data)


def main(options: argparse.Namespace) -> None:
    with listen(options) as listener:
        while True:
            conn, _ = listener.accept()
            echo(conn)


if __name__ == "__main__":
    start(main, __doc__, port=7007)
