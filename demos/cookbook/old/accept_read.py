"""Echo, with a selector and two callbacks.

Faults: `send` may take a part of the data, whose rest is lost; and when it can take nothing at all
it raises, which kills the server.
"""

from __future__ import annotations

import selectors
import socket
from typing import Any


def serve(listener: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, accept)
        while True:
            for key, _ in selector.select():
                key.data(key.fileobj, selector)


def accept(listener: Any, selector: selectors.BaseSelector) -> None:
    conn, _ = listener.accept()
    conn.setblocking(False)
    selector.register(conn, selectors.EVENT_READ, read)


def read(conn: Any, selector: selectors.BaseSelector) -> None:
    data = conn.recv(1000)
    if data:
        conn.send(data)  # in the hope that there is room
    else:
        selector.unregister(conn)
        conn.close()
