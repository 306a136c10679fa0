"""Echo over UDP: the same bytes come back, up to the largest datagram, and also none.

    $ python3 -m demos.cookbook.udp_echo
    echo on 127.0.0.1 port 15000, UDP; try: nc -u 127.0.0.1 15000

The faults of the old shape, `old/udp_echo.py`: it asked for 8192 bytes at most, and the rest of a
longer datagram was lost. And it answered whoever seemed to ask, another echo server too, which
answers that, and so on for ever. `sock.serve()` takes the largest datagram there is, and knows whom
not to answer.
"""

from __future__ import annotations

import argparse
from typing import Any

from corolib import Coro, open_udp, run
from corolib.demo.start import start


def echo(data: bytes, sender: Any) -> bytes:
    return data


def serve(host: str, port: int) -> Coro[None]:
    sock = yield from open_udp(local=(host, port))
    host, port, *_ = sock.local
    print(f"echo on {host} port {port}, UDP; try: nc -u {host} {port}", flush=True)
    yield from sock.serve(echo)


def main(options: argparse.Namespace) -> None:
    run(serve, options.host, options.port)


if __name__ == "__main__":
    start(main, __doc__, port=15000)
