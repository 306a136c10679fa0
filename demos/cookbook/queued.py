"""Each message comes back, in order, from a queue that each client has.

    $ python3 -m demos.cookbook.queued
    queued on 127.0.0.1 port 9000; try: nc 127.0.0.1 9000

The old shape, `old/queued.py`, took no notice of a client that closed in order. Its socket stayed
readable, with no bytes to read, so an empty message was queued and sent, again and again; and each
message put the client among the writers once more. Here one task reads and one writes, with the
queue between them. At the end of the file the queue is shut down: the writer sends what is in it,
and both are done. The queue has a size: who does not read is not read from.
"""

from __future__ import annotations

import argparse

from corolib import Coro, Listener, Queue, QueueShutDown, Stream, gather, listen_tcp, run
from demos.start import start

WAITING = 10  # messages of a client that may be in its queue


def talk(stream: Stream) -> Coro[None]:
    messages: Queue[bytes] = Queue(WAITING)
    yield from gather(read(stream, messages), write(messages, stream))


def read(stream: Stream, messages: Queue[bytes]) -> Coro[None]:
    while message := (yield from stream.recv(1024)):
        yield from messages.put(message)
    messages.shutdown()  # what is in it can still be taken


def write(messages: Queue[bytes], stream: Stream) -> Coro[None]:
    while True:
        try:
            message = yield from messages.get()
        except QueueShutDown:
            return
        yield from stream.sendall(message)


def serve(listener: Listener) -> Coro[None]:
    yield from listener.serve(talk, grace=0)


def main(options: argparse.Namespace) -> None:
    with listen_tcp(options.host, options.port) as listener:
        host, port, *_ = listener.addresses[0]
        print(f"queued on {host} port {port}; try: nc {host} {port}", flush=True)
        run(serve, listener)


if __name__ == "__main__":
    start(main, __doc__, port=9000)
