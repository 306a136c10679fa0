"""The old shapes of the cookbook's programs, with their faults: to be looked at, and broken.

    $ python3 -m demos.cookbook.old hello
    hello, the old shape, on 127.0.0.1 port 8888
    $ nc 127.0.0.1 8888                                       (and say nothing: it serves nobody)

The sockets have the smallest send buffers that there are. So a few kilobytes that a client does not
read do here what otherwise takes a slow network and some megabytes.
"""

from __future__ import annotations

import argparse
import socket
from importlib import import_module

from demos.start import at_least, host, start

PORTS = {
    "udp_time": 14000,
    "udp_echo": 15000,
    "tcp_echo": 16000,
    "fibonacci": 16000,
    "upper": 10000,
    "urgent": 8090,
    "messages": 6667,
    "idle_tick": 9904,
    "operator_chat": 8801,
    "hello": 8888,
    "queued": 9000,
    "accept_read": 1234,
}
UDP = {"udp_time", "udp_echo", "fibonacci"}


def main(options: argparse.Namespace) -> None:
    kind = socket.SOCK_DGRAM if options.name in UDP else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # accepted ones inherit it
        sock.bind((options.host, PORTS[options.name] if options.port is None else options.port))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        host, port = sock.getsockname()
        print(f"{options.name}, the old shape, on {host} port {port}", flush=True)
        import_module(f"demos.cookbook.old.{options.name}").serve(sock)


if __name__ == "__main__":
    start(
        main,
        __doc__,
        arguments={
            "name": {"choices": list(PORTS)},
            "--host": {"default": "127.0.0.1", "type": host, "help": "default: %(default)s"},
            "--port": {"type": at_least(0, 65535), "help": "default: that of its twin; 0: any"},
        },
    )
