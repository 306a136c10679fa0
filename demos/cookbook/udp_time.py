"""The time over UDP: any datagram is answered with the date, as 24 characters.

    $ python3 -m demos.cookbook.udp_time
    time on 127.0.0.1 port 14000, UDP; try: echo | nc -u -w1 127.0.0.1 14000

The handler object that had one method for each event is one loop here.
"""

from __future__ import annotations

import argparse
import time

from corolib import Coro, open_udp, run
from demos.start import start


def serve(host: str, port: int) -> Coro[None]:
    with (yield from open_udp(local=(host, port))) as sock:
        host, port, *_ = sock.local
        print(f"time on {host} port {port}, UDP; try: echo | nc -u -w1 {host} {port}", flush=True)
        while True:
            try:
                _, sender = yield from sock.recvfrom()
                if sender[1] >= 1024:  # below are services, which might answer the answer
                    yield from sock.sendto(time.ctime().encode("ascii"), sender)
            except OSError:
                pass  # an answer that cannot be sent, or did not arrive: datagrams may get lost


def main(options: argparse.Namespace) -> None:
    run(serve, options.host, options.port)


if __name__ == "__main__":
    start(main, __doc__, port=14000)
