"""Step 6 of the tour: `poll` and `epoll`, which remember what they were asked.

    $ python3 -m demos.tour.step06_poll
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007

The queues are those of step 5. New is that the sockets are registered once, and that a change is
told when there is one. `--kind poll` takes the older of the two calls.
"""

from __future__ import annotations

import argparse
import select
import socket
from collections import deque

from corolib.demo.start import start
from demos.tour.listening import listen
from demos.tour.step05_select import Queue, is_ending, receive, send

IN, OUT = select.POLLIN, select.POLLOUT  # epoll has the same numbers


def wanted(queue: Queue) -> int:
    """Return what a client with this queue is waited for."""
    return (0 if is_ending(queue) else IN) | (OUT if queue else 0)


def main(options: argparse.Namespace) -> None:
    poller: select.poll | select.epoll
    poller = select.epoll() if options.kind == "epoll" else select.poll()
    clients: dict[int, tuple[socket.socket, Queue]] = {}  # by the number of the socket
    with listen(options) as listener:
        poller.register(listener.fileno(), IN)
        while True:
            for number, events in poller.poll():
                if number == listener.fileno():
                    client, _ = listener.accept()
                    client.setblocking(False)
                    clients[client.fileno()] = (client, deque())
                    poller.register(client.fileno(), IN)
                    continue
                conn, queue = clients[number]
                if queue and events & ~IN and send(conn, queue):  # room; or an error to collect
                    poller.unregister(number)
                    del clients[number]
                    conn.close()
                    continue
                if events & ~OUT and not is_ending(queue):  # data, its end, or an error
                    receive(conn, queue)
                poller.modify(number, wanted(queue))


if __name__ == "__main__":
    best = "epoll" if hasattr(select, "epoll") else "poll"
    kind = {"choices": ["epoll", "poll"], "default": best, "help": "default: %(default)s"}
    start(main, __doc__, port=7007, arguments={"--kind": kind})
