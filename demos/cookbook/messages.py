"""One message of each client is printed, when it comes.

    $ python3 -m demos.cookbook.messages
    messages on 127.0.0.1 port 6667; try: echo hello | nc 127.0.0.1 6667
    127.0.0.1:50000: b'hello\\n'

The old shape, `old/messages.py`, looked at its sockets every four seconds. So a message waited for
up to four seconds, and looking more often would only have burnt more time. A task that waits costs
nothing, and goes on when there is something.
"""

from __future__ import annotations

import argparse

from corolib import Coro, Listener, Stream, listen_tcp, run
from demos.ports import announce
from demos.start import start


def show(stream: Stream) -> Coro[None]:
    message = yield from stream.recv(1024)
    if message:  # else it has left without a word
        host, port, *_ = stream.peer
        print(f"{host}:{port}: {message!r}", flush=True)


def serve(listener: Listener) -> Coro[None]:
    yield from listener.serve(show, grace=0, accept=announce)


def main(options: argparse.Namespace) -> None:
    with listen_tcp(options.host, options.port) as listener:
        host, port, *_ = listener.addresses[0]
        print(f"messages on {host} port {port}; try: echo hello | nc {host} {port}", flush=True)
        run(serve, listener)


if __name__ == "__main__":
    start(main, __doc__, port=6667)
