"""Echo over TCP: one task for each client, where a handler object was added and removed.

    $ python3 -m demos.cookbook.tcp_echo
    echo on 127.0.0.1 port 16000; try: nc 127.0.0.1 16000

The faults of the old shape, `old/tcp_echo.py`: when a client closed its side, what it had not got
back yet was thrown away, and the server died when it came to send it; and all that a client sent
without reading was kept in memory. Here the task that reads is the one that sends. So it reads the
end of the file when everything is sent, and nothing while nobody takes it.
"""

from __future__ import annotations

import argparse

from corolib import Coro, Listener, Stream, listen_tcp, run
from demos.ports import announce
from demos.start import start


def echo(stream: Stream) -> Coro[None]:
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data)


def serve(listener: Listener) -> Coro[None]:
    yield from listener.serve(echo, grace=0, accept=announce)


def main(options: argparse.Namespace) -> None:
    with listen_tcp(options.host, options.port) as listener:
        host, port, *_ = listener.addresses[0]
        print(f"echo on {host} port {port}; try: nc {host} {port}", flush=True)
        run(serve, listener)


if __name__ == "__main__":
    start(main, __doc__, port=16000)
