"""One process for each client: the blocking server, and a copy of it for each.

    $ python3 -m demos.models.process_per_client
    totals on 127.0.0.1 port 7050; try: nc 127.0.0.1 7050

Each process waits for one client, in `recv()`, as `blocking.py` does; while it sleeps, the others
are served. A client that brings its process down harms nobody else, and all cores are used. The
price is a `fork()` for each client, and the memory of a process: look with `ps` or `pstree -p`.

A child that ended stays in the process table until its parent has asked how: SIGCHLD says when.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
from contextlib import suppress
from typing import NoReturn

from demos.models.blocking import talk
from demos.models.job import accept, listen
from demos.start import start

HELD = (signal.SIGCHLD, signal.SIGINT)  # while parent and child are parting


def child(conn: socket.socket) -> NoReturn:
    """Serve one client, in a process that ends with it."""
    for number in HELD:
        signal.signal(number, signal.SIG_DFL)  # so Ctrl-C ends it without a word
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    with suppress(OSError):
        talk(conn)
    os._exit(0)


def serve(listener: socket.socket, children: set[int]) -> None:
    """Fork for each client, for ever."""
    while True:
        with accept(listener) as conn:
            signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
            try:
                pid = os.fork()
                if pid == 0:
                    listener.close()
                    child(conn)
                children.add(pid)
            except OSError:
                pass  # there are too many processes: this client is turned away
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


def bury(children: set[int]) -> None:
    """Let those children go that have ended: perhaps several, for one signal."""
    with suppress(ChildProcessError):  # that was the last one
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            children.discard(pid)


def main(options: argparse.Namespace) -> None:
    children: set[int] = set()
    signal.signal(signal.SIGCHLD, lambda *_: bury(children))
    with listen(options) as listener:
        try:
            serve(listener, children)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
            for pid in children:
                with suppress(ProcessLookupError):  # if Ctrl-C interrupted its burial
                    os.kill(pid, signal.SIGTERM)
                    os.waitpid(pid, 0)


if __name__ == "__main__":
    start(main, __doc__, port=7050)
