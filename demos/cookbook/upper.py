"""Each message comes back in upper case, in order.

    $ python3 -m demos.cookbook.upper
    upper on 127.0.0.1 port 10000; try: python3 -m demos.cookbook.upper_client

The old shape, `old/upper.py`, kept a queue of answers for each connection, and three lists for
`select`. A client that vanished stayed in some of them, and when `send` took a part of an answer,
the rest was lost. Here the queue is the client's own, in its kernel: nothing more is read until the
answer is sent. And there is nothing to remove a client from, when its task ends.
"""

from __future__ import annotations

import argparse

from corolib import Coro, Listener, Stream, listen_tcp, run
from demos.ports import announce
from demos.start import start


def upper(stream: Stream) -> Coro[None]:
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data.upper())


def serve(listener: Listener) -> Coro[None]:
    yield from listener.serve(upper, grace=0, accept=announce)


def main(options: argparse.Namespace) -> None:
    with listen_tcp(options.host, options.port) as listener:
        host, port, *_ = listener.addresses[0]
        try_it = f"try: python3 -m demos.cookbook.upper_client --host {host} --port {port}"
        print(f"upper on {host} port {port}; {try_it}", flush=True)
        run(serve, listener)


if __name__ == "__main__":
    start(main, __doc__, port=10000)
