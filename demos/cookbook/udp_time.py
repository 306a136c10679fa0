"""The time over UDP: any datagram is answered with the date, as 24 characters.

    $ python3 -m demos.cookbook.udp_time
    time on 127.0.0.1 port 14000, UDP; try: echo | nc -u -w1 127.0.0.1 14000

The handler object that had one method for each event is one function here. From another machine
the question must have 24 bytes as well: whose address it bears may not be who has sent it, and
nobody shall get more from here than was sent in his name.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from corolib import Coro, open_udp, run
from corolib.demo.start import start


def tell(question: bytes, sender: Any) -> bytes:
    return time.ctime().encode("ascii")


def serve(host: str, port: int) -> Coro[None]:
    sock = yield from open_udp(local=(host, port))
    host, port, *_ = sock.local
    print(f"time on {host} port {port}, UDP; try: echo | nc -u -w1 {host} {port}", flush=True)
    yield from sock.serve(tell)


def main(options: argparse.Namespace) -> None:
    run(serve, options.host, options.port)


if __name__ == "__main__":
    start(main, __doc__, port=14000)
