"""Upper case again, and urgent data (TCP's out-of-band byte) is noticed while the rest goes on.

    $ python3 -m demos.cookbook.urgent
    urgent on 127.0.0.1 port 8090; try: nc 127.0.0.1 8090
    urgent from 127.0.0.1:50000: b'!'

The old shape, `old/urgent.py`, had a third list for `select`, of the exceptional conditions, and
closed every connection that came up in it. But urgent data is no error. `UrgentWait` waits for it
(`POLLPRI` in the words of poll), in a task beside the one that reads, and both go on.

A client sends it by `sock.send(b"!", socket.MSG_OOB)`.
"""

from __future__ import annotations

import argparse
import socket

from corolib import Coro, Stream, UrgentWait, run, spawn
from demos.echo import accept_all
from demos.ports import open_listeners
from demos.start import start


def talk(conn: socket.socket) -> Coro[None]:
    """Answer a client in upper case, until it has no more to say."""
    with Stream(conn) as stream:
        spawn(notice, conn, daemon=True)  # it ends with this task
        while data := (yield from stream.recv(65536)):
            yield from stream.sendall(data.upper())


def notice(conn: socket.socket) -> Coro[None]:
    """Print the urgent data of a client."""
    while True:
        try:
            yield UrgentWait(conn)
            host, port, *_ = conn.getpeername()
        except OSError:
            return  # the connection has ended or failed, which `talk` learns as well
        try:
            data = conn.recv(1, socket.MSG_OOB)
        except OSError:
            data = b""  # `talk` has read what came after it; then TCP forgets it
        print(f"urgent from {host}:{port}: {data!r}", flush=True)


def main(options: argparse.Namespace) -> None:
    with open_listeners(options.host, options.port) as listeners:
        host, port, *_ = listeners[0].getsockname()
        print(f"urgent on {host} port {port}; try: nc {host} {port}", flush=True)
        run(accept_all, listeners, talk)


if __name__ == "__main__":
    start(main, __doc__, port=8090)
