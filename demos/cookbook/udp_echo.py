"""Echo over UDP: the same bytes come back, up to the largest datagram, and also none.

    $ python3 -m demos.cookbook.udp_echo
    echo on 127.0.0.1 port 15000, UDP; try: nc -u 127.0.0.1 15000

The fault of the old shape, `old/udp_echo.py`: it asked for 8192 bytes at most, and the rest of a
longer datagram was lost. `recvfrom()` of corolib takes the largest there is, unless told otherwise.
"""

from __future__ import annotations

import argparse

from corolib import Coro, open_udp, run
from demos.start import start


def serve(host: str, port: int) -> Coro[None]:
    with (yield from open_udp(local=(host, port))) as sock:
        host, port, *_ = sock.local
        print(f"echo on {host} port {port}, UDP; try: nc -u {host} {port}", flush=True)
        while True:
            try:
                data, sender = yield from sock.recvfrom()
                if sender[1] >= 1024:  # below are services: two that echo would do so for ever
                    yield from sock.sendto(data, sender)
            except OSError:
                pass  # an answer that cannot be sent, or did not arrive: datagrams may get lost


def main(options: argparse.Namespace) -> None:
    run(serve, options.host, options.port)


if __name__ == "__main__":
    start(main, __doc__, port=15000)
