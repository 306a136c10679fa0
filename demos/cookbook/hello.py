"""Each client gets back what it says, once, however many come together.

    $ python3 -m demos.cookbook.hello
    hello on 127.0.0.1 port 8888; try: echo hello | nc 127.0.0.1 8888

The old shape, `old/hello.py`, with blocking sockets, served one client at a time: the second of
twenty waited for the first, and one that said nothing blocked all. The handler below is as simple,
and each client has one of its own.
"""

from __future__ import annotations

import argparse

from corolib import Coro, Listener, Stream, listen_tcp, run
from demos.ports import announce
from demos.start import start


def answer(stream: Stream) -> Coro[None]:
    message = yield from stream.recv(1024)
    yield from stream.sendall(message)


def serve(listener: Listener) -> Coro[None]:
    yield from listener.serve(answer, grace=0, accept=announce)


def main(options: argparse.Namespace) -> None:
    with listen_tcp(options.host, options.port) as listener:
        host, port, *_ = listener.addresses[0]
        print(f"hello on {host} port {port}; try: echo hello | nc {host} {port}", flush=True)
        run(serve, listener)


if __name__ == "__main__":
    start(main, __doc__, port=8888)
