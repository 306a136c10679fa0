"""Asynchronous I/O: a call returns at once, and the program is told when the data has been copied.

    $ python3 -m demos.models.asynchronous [--helpers]
    totals on 127.0.0.1 port 7050; try: nc 127.0.0.1 7050
    asynchronous calls by io_uring

Both phases are the kernel's. The four other models are told at best that data has come, and copy it
themselves; here it is in the buffer already when `has_read` is called. As `strace` shows it, with
the calls and their results in memory that both sides share:

    io_uring_enter(3, 2,                      two calls begun; asleep: both phases, for all
                        1, IORING_ENTER_GETEVENTS, NULL, 0) = 2

The other side of the coin: each client has a buffer under way all the time, also one that says
nothing for hours.

Python's library has no such calls. Where Linux lets this program, they are io_uring's, by way of
`ctypes` (`uring.py`). Elsewhere, or with `--helpers`, threads make blocking calls: that looks the
same from here, but is the blocking model below (`completions.py`).
"""

from __future__ import annotations

import argparse
import socket
import time
from contextlib import suppress

from corolib.demo.start import start
from demos.models.completions import Completions, open_completions
from demos.models.job import CHUNK, Totals, listen


class Client:
    """A client that is always being read from or written to."""

    def __init__(self, conn: socket.socket, server: Server) -> None:
        self.conn = conn
        self.server = server
        self.totals = Totals()
        self.buffer = bytearray(CHUNK)
        self.unsent = b""
        server.clients.add(self)
        self.go_on()

    def go_on(self) -> None:
        if self.unsent:
            self.server.io.send(self.conn, self.unsent, self.has_sent)
        else:
            self.server.io.recv(self.conn, self.buffer, self.has_read)

    def has_read(self, count: int) -> None:
        if count <= 0:  # the end, or an error number
            return self.server.lose(self)
        self.unsent = self.totals.answers(bytes(self.buffer[:count]))
        return self.go_on()

    def has_sent(self, count: int) -> None:
        if count <= 0:
            return self.server.lose(self)
        self.unsent = self.unsent[count:]
        return self.go_on()


class Server:
    """The clients, and the call that waits for the next one."""

    def __init__(self, listener: socket.socket, io: Completions) -> None:
        self.listener = listener
        self.io = io
        self.clients: set[Client] = set()
        io.accept(listener, self.has_accepted)

    def has_accepted(self, number: int) -> None:
        if number >= 0:
            Client(socket.socket(fileno=number), self)
        else:
            time.sleep(0.1)  # no file number is free, perhaps: do not spin
        self.io.accept(self.listener, self.has_accepted)

    def lose(self, client: Client) -> None:
        client.conn.close()
        self.clients.remove(client)

    def run(self) -> None:
        try:
            while True:
                for then, result in self.io.wait():
                    then(result)
        finally:
            for sock in (self.listener, *[client.conn for client in self.clients]):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # what is under way on it is over
            self.io.close()


def main(options: argparse.Namespace) -> None:
    io = open_completions(options.helpers)
    with listen(options) as listener:
        print(f"asynchronous calls by {io.name}", flush=True)
        Server(listener, io).run()


if __name__ == "__main__":
    about = "have threads make blocking calls, even where the kernel has better ones"
    helpers = {"action": "store_true", "help": about}
    start(main, __doc__, port=7050, arguments={"--helpers": helpers})
