"""Step 5 of the tour: `select`, and a queue for each client.

    $ python3 -m demos.tour.step05_select
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007

The operating system is asked once about all sockets, and the answer may take its time: while
nobody has anything to say, the program sleeps.
"""

from __future__ import annotations

import argparse
import select
import socket
from collections import deque

from corolib.demo.start import start
from demos.tour.listening import listen

Queue = deque[bytes]  # what a client is still to be sent
END = b""  # comes last in a queue: the client has no more to say


def is_ending(queue: Queue) -> bool:
    return bool(queue) and queue[-1] == END


def receive(conn: socket.socket, queue: Queue) -> None:
    """Put what a client has sent into its queue; END at the end, or if it broke off."""
    try:
        queue.append(conn.recv(65536))
    except BlockingIOError:  # woken for nothing
        pass
    except OSError:
        queue.append(END)


def send(conn: socket.socket, queue: Queue) -> bool:
    """Send the first of a queue, or as much of it as goes; tell whether it is finished."""
    data = queue.popleft()
    try:
        rest = data[conn.send(data) :]
    except BlockingIOError:
        rest = data
    except OSError:
        return True
    if rest:
        queue.appendleft(rest)
    return data == END


def main(options: argparse.Namespace) -> None:
    queues: dict[socket.socket, Queue] = {}
    with listen(options) as listener:
        while True:
            readers = [conn for conn, queue in queues.items() if not is_ending(queue)]
            writers = [conn for conn, queue in queues.items() if queue]
            readable, writable, _ = select.select([listener, *readers], writers, [])
            for conn in writable:
                if send(conn, queues[conn]):
                    del queues[conn]
                    conn.close()
            for conn in readable:
                if conn is listener:
                    client, _ = listener.accept()
                    client.setblocking(False)
                    queues[client] = deque()
                elif conn in queues:
                    receive(conn, queues[conn])


if __name__ == "__main__":
    start(main, __doc__, port=7007)
