"""I/O multiplexing: one call waits for all clients, and says which of them can be read.

    $ python3 -m demos.models.multiplexing
    totals on 127.0.0.1 port 7050; try: nc 127.0.0.1 7050

Phase 1 is a call of its own, `select()` or one of its kind, in which the program sleeps for all
clients at once. Phase 2, `recv()`, does not wait, for there is something. As `strace` shows it:

    epoll_wait(4,                                          phase 1: asleep, for all clients
                  [{events=EPOLLIN, ..}], 3, -1) = 1
    recvfrom(5, "41\n", 4096, 0, NULL, NULL) = 3           phase 2

Two calls where the blocking server needs one, and none in vain. `Client` is the one of
`nonblocking.py`: even a socket that can be written takes only as much as there is room for.
"""

from __future__ import annotations

import argparse
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector

from corolib.demo.start import start
from demos.models.job import listen
from demos.models.nonblocking import Client, newcomers


def serve(client: Client, selector: DefaultSelector) -> None:
    """Let a client take its step, and wait for what it needs next."""
    client.step()
    if client.gone:
        selector.unregister(client.conn)
    else:
        selector.modify(client.conn, EVENT_WRITE if client.unsent else EVENT_READ, client)


def main(options: argparse.Namespace) -> None:
    with listen(options) as listener, DefaultSelector() as selector:
        listener.setblocking(False)
        selector.register(listener, EVENT_READ)
        while True:
            for key, _ in selector.select():  # phase 1, for all
                if key.fileobj is listener:
                    for client in newcomers(listener):
                        selector.register(client.conn, EVENT_READ, client)
                else:
                    serve(key.data, selector)  # phase 2, for one


if __name__ == "__main__":
    start(main, __doc__, port=7050)
