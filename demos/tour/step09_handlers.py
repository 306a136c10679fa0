"""Step 9 of the tour: an event loop with handler objects.

    $ python3 -m demos.tour.step09_handlers
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007

An object for each client remembers what the client is owed, and says what it wants next: so nothing
is lost, and nothing more is read from a client that does not take its answers.
"""

from __future__ import annotations

import argparse
import selectors
import socket
from typing import Protocol

from demos.start import start
from demos.tour.listening import listen

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Handler(Protocol):
    """What the loop knows of a socket."""

    def fileno(self) -> int: ...
    def wants(self) -> int: ...
    def handle(self) -> None: ...
    def close(self) -> None: ...


class Loop:
    """Calls the handlers whose sockets are ready, for ever."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def add(self, handler: Handler) -> None:
        self.selector.register(handler, handler.wants(), handler)

    def run(self) -> None:
        while True:
            for key, _ in self.selector.select():
                handler: Handler = key.data
                handler.handle()
                wants = handler.wants()
                if not wants:
                    self.selector.unregister(handler)
                    handler.close()
                elif wants != key.events:
                    self.selector.modify(handler, wants, handler)


class Acceptor:
    """The handler of the listening socket."""

    def __init__(self, loop: Loop, listener: socket.socket) -> None:
        self.loop = loop
        self.listener = listener
        self.fileno, self.close = listener.fileno, listener.close

    def wants(self) -> int:
        return READ

    def handle(self) -> None:
        conn, _ = self.listener.accept()
        conn.setblocking(False)
        self.loop.add(Client(conn))


class Client:
    """The handler of one client."""

    def __init__(self, conn: socket.socket) -> None:
        self.conn = conn
        self.fileno, self.close = conn.fileno, conn.close
        self.owed = b""  # what is still to be sent
        self.over = False

    def wants(self) -> int:
        if self.over:
            return 0
        return WRITE if self.owed else READ

    def handle(self) -> None:
        try:
            if self.owed:
                self.owed = self.owed[self.conn.send(self.owed) :]
            else:
                self.owed = self.conn.recv(65536)
                self.over = not self.owed
        except BlockingIOError:  # woken for nothing
            pass
        except OSError:  # the client broke off
            self.over = True


def main(options: argparse.Namespace) -> None:
    loop = Loop()
    with listen(options) as listener:
        loop.add(Acceptor(loop, listener))
        loop.run()


if __name__ == "__main__":
    start(main, __doc__, port=7007)
