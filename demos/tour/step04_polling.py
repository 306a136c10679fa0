"""Step 4 of the tour: one thread that asks every socket, again and again.

    $ python3 -m demos.tour.step04_polling
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007

A non-blocking socket does not wait: it raises BlockingIOError. Look at `top`: with `--pause 0` the
server takes a whole processor for doing nothing; with `--pause 1` each answer takes up to a second.
"""

from __future__ import annotations

import argparse
import socket
import time

from demos.start import at_least, start
from demos.tour.listening import listen

Owed = dict[socket.socket, bytes]  # the clients, and what each of them is still to be sent


def ask_listener(listener: socket.socket, owed: Owed) -> bool:
    """Accept a client, if there is one; tell whether there was."""
    try:
        conn, _ = listener.accept()
    except BlockingIOError:
        return False
    conn.setblocking(False)
    owed[conn] = b""
    return True


def ask_client(conn: socket.socket, owed: Owed) -> bool:
    """Read from a client, or send what it is owed; tell whether it was ready for that."""
    try:
        data = owed[conn] or conn.recv(65536)
        if data:
            owed[conn] = data  # it is ours now, whether it can be sent or not
            owed[conn] = data[conn.send(data) :]
            return True
    except BlockingIOError:
        return False
    except OSError:  # the client broke off
        pass
    del owed[conn]
    conn.close()
    return True


def main(options: argparse.Namespace) -> None:
    owed: Owed = {}
    with listen(options) as listener:
        listener.setblocking(False)
        while True:
            busy = ask_listener(listener, owed)
            for conn in list(owed):
                busy |= ask_client(conn, owed)
            if not busy:
                time.sleep(options.pause)


if __name__ == "__main__":
    pause = {"type": at_least(0.0, 3600.0), "default": 0.05, "help": "default: %(default)s"}
    start(main, __doc__, port=7007, arguments={"--pause": pause})
