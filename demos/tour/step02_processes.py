"""Step 2 of the tour: a process for each client.

    $ python3 -m demos.tour.step02_processes
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007

The same `echo`. Each client has a copy of the whole program to itself, and the operating system
shares out the time. Look at `ps` while clients are connected.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
from contextlib import suppress

from demos.start import start
from demos.tour.listening import listen
from demos.tour.step01_one_at_a_time import echo


def echo_in_child(listener: socket.socket, conn: socket.socket) -> None:
    listener.close()  # a copy, too: only the first process accepts
    with suppress(KeyboardInterrupt):  # Ctrl-C at a terminal reaches the copies, too
        echo(conn)


def main(options: argparse.Namespace) -> None:
    fork = multiprocessing.get_context("fork")
    with listen(options) as listener:
        while True:
            conn, _ = listener.accept()
            with conn:  # the child has its copy; ours is closed
                fork.Process(target=echo_in_child, args=(listener, conn), daemon=True).start()


if __name__ == "__main__":
    start(main, __doc__, port=7007)
