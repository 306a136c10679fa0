"""Non-blocking I/O: ask every client again and again whether there is data yet.

    $ python3 -m demos.models.nonblocking [--interval SECONDS]
    totals on 127.0.0.1 port 7050; try: nc 127.0.0.1 7050

The kernel does not let a call on a non-blocking socket sleep: where there is nothing, it says so
(EAGAIN, `BlockingIOError` in Python). So phase 1 is a loop of calls in vain, and phase 2 is the
last of them. As `strace` shows it:

    recvfrom(4, 0x7f.., 4096, 0, NULL, NULL) = -1 EAGAIN      phase 1, thousands of times
    recvfrom(4, "41\n", 4096, 0, NULL, NULL) = 3              phase 2

All clients are served together, by one thread. But look at it with `top`: it takes a whole core to
find out that nothing happens. With `--interval 0.05` it sleeps between two rounds; then each answer
is up to that much late, and the calls in vain are fewer, but not gone.
"""

from __future__ import annotations

import argparse
import socket
import time

from corolib.demo.start import at_least, start
from demos.models.job import CHUNK, Totals, listen


class Client:
    """A client on a non-blocking socket: `step()` does for it what can be done without waiting."""

    def __init__(self, conn: socket.socket) -> None:
        conn.setblocking(False)
        self.conn = conn
        self.totals = Totals()
        self.unsent = b""  # answers that the kernel had no room for
        self.gone = False

    def step(self) -> bool:
        """Return whether there was something to do. Who does not take answers is not read from."""
        try:
            if not self.unsent:
                data = self.conn.recv(CHUNK)
                self.gone = not data
                self.unsent = self.totals.answers(data)
            if self.unsent:
                self.unsent = self.unsent[self.conn.send(self.unsent) :]
        except BlockingIOError:
            return False
        except OSError:
            self.gone = True
        if self.gone:
            self.conn.close()
        return not self.gone


def newcomers(listener: socket.socket) -> list[Client]:
    """Return the clients that have connected since the last time."""
    clients = []
    try:
        while True:
            clients.append(Client(listener.accept()[0]))
    except BlockingIOError:
        pass
    except OSError:  # no file number is free, before a client leaves: back to them, but do not spin
        time.sleep(0.01)
    return clients


def main(options: argparse.Namespace) -> None:
    clients: list[Client] = []
    with listen(options) as listener:
        listener.setblocking(False)
        while True:
            clients += newcomers(listener)
            for client in clients:
                client.step()
            clients = [client for client in clients if not client.gone]
            if options.interval:
                time.sleep(options.interval)


if __name__ == "__main__":
    about = "seconds to sleep between two rounds; default: %(default)s"
    interval = {"type": at_least(0.0, 3600.0), "default": 0.0, "help": about}
    start(main, __doc__, port=7050, arguments={"--interval": interval})
