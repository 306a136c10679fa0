"""Step 8 of the tour: `selectors` and callbacks; and a fault that most tests do not find.

    $ python3 -m demos.tour.step08_callbacks
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007

Beside each socket lies the function that is to be called when the socket is ready. This is how the
documentation of the module shows it, hope included: some of the 8000000 bytes do not come back.
"""

from __future__ import annotations

import argparse
import selectors
import socket

from demos.start import start
from demos.tour.listening import listen

selector = selectors.DefaultSelector()  # epoll, or what this system has in its place


def accept(listener: socket.socket) -> None:
    conn, _ = listener.accept()
    conn.setblocking(False)
    selector.register(conn, selectors.EVENT_READ, read)


def read(conn: socket.socket) -> None:
    try:
        data = conn.recv(65536)
        if data:
            conn.send(data)  # hope it won't block
            return
    except BlockingIOError:  # woken for nothing
        return
    except OSError:  # the client broke off
        pass
    selector.unregister(conn)
    conn.close()


def main(options: argparse.Namespace) -> None:
    with listen(options) as listener:
        selector.register(listener, selectors.EVENT_READ, accept)
        while True:
            for key, _ in selector.select():
                callback = key.data
                callback(key.fileobj)


if __name__ == "__main__":
    start(main, __doc__, port=7007)
