"""The client of the upper-casing server: it talks on two sockets in turn.

    $ python3 -m demos.cookbook.upper_client
    127.0.0.1:50000 sends b'This is the message. '
    127.0.0.1:50001 sends b'This is the message. '
    127.0.0.1:50000 got b'THIS IS THE MESSAGE. '
    ...

Start `python3 -m demos.cookbook.upper` first.
"""

from __future__ import annotations

import argparse
import sys

from corolib import Coro, Stream, open_tcp, run
from corolib.demo.start import start

PARTS = (b"This is the message. ", b"It will be sent ", b"in parts.")


def name(stream: Stream) -> str:
    return "{}:{}".format(*stream.local)


def talk(host: str, port: int) -> Coro[None]:
    """Send each part on both sockets, then wait for both answers."""
    with (yield from open_tcp(host, port)) as one, (yield from open_tcp(host, port)) as two:
        for part in PARTS:
            for stream in (one, two):
                print(f"{name(stream)} sends {part!r}", flush=True)
                yield from stream.sendall(part)
            for stream in (one, two):
                # As many bytes as were sent: an answer may come in pieces.
                answer = yield from stream.readexactly(len(part))
                print(f"{name(stream)} got {answer!r}", flush=True)


def main(options: argparse.Namespace) -> None:
    try:
        run(talk, options.host, options.port)
    except (EOFError, ConnectionResetError, BrokenPipeError) as exc:
        sys.exit(f"the server at {options.host} port {options.port} has hung up: {exc}")


if __name__ == "__main__":
    start(main, __doc__, port=10000)
