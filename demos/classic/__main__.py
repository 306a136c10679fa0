"""Echo, discard, daytime, qotd, chargen and time, on TCP and UDP, all on one scheduler.

    $ python3 -m demos.classic
    echo on 127.0.0.1 port 7007, TCP and UDP
    discard on 127.0.0.1 port 7009, TCP and UDP
    ...
    $ python3 -m demos.classic.client daytime
    $ python3 -m demos.classic.client chargen --udp

Each has its well-known port, plus 7000. Twelve servers and all of their clients share one thread:
read `services.py`, where each of the services is a few lines that look as if they had it to
themselves.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from corolib import Coro, DatagramSocket, Listener, gather, run
from demos.classic.services import Service, services
from demos.ports import Port, announce, open_ports
from demos.start import start


def serve(service: Service, ports: list[Port]) -> Coro[None]:
    """Serve both transports of one service, for ever."""
    for port in ports:
        DatagramSocket(port.udp).serve(service.answer, grace=0)
    listener = Listener([port.tcp for port in ports])
    yield from listener.serve(service.handler, grace=0, accept=announce)


def serve_all(ports: dict[str, list[Port]]) -> Coro[None]:
    known = services()
    yield from gather(*(serve(known[name], each) for name, each in ports.items()))


def main(options: argparse.Namespace) -> None:
    with ExitStack() as opened:
        ports = {}
        for name, service in services().items():
            number = options.port and options.port + service.number
            ports[name] = opened.enter_context(open_ports(options.host, number))
            host, number = ports[name][0].tcp.getsockname()[:2]
            print(f"{name} on {host} port {number}, TCP and UDP", flush=True)
        run(serve_all, ports)


if __name__ == "__main__":
    start(main, __doc__, port=7000)
