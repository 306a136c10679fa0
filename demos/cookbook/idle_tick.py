"""A server that says so when nobody has connected for five seconds.

    $ python3 -m demos.cookbook.idle_tick
    idle_tick on 127.0.0.1 port 9904; try: nc 127.0.0.1 9904
    tick
    127.0.0.1:50000 is here
    tick

What was the last argument of `select` is a block here, `move_on_after`, which bounds whatever
stands in it: also waits that are deep inside other functions. The old shape, `old/idle_tick.py`,
accepts nobody: then `select` returns at once, for ever.
"""

from __future__ import annotations

import argparse

from corolib import Coro, Listener, Stream, listen_tcp, move_on_after, run, spawn
from demos.start import at_least, start


def stay(stream: Stream) -> Coro[None]:
    """Listen to a client, without interest, until it leaves."""
    with stream:
        try:
            while (yield from stream.recv(65536)):
                pass
        except OSError:
            pass  # in whatever way


def serve(listener: Listener, interval: float) -> Coro[None]:
    while True:
        with move_on_after(interval) as scope:
            stream = yield from listener.accept()
            host, port, *_ = stream.peer
            print(f"{host}:{port} is here", flush=True)
            spawn(stay, stream)
        if scope.expired:
            print("tick", flush=True)


def main(options: argparse.Namespace) -> None:
    with listen_tcp(options.host, options.port) as listener:
        host, port, *_ = listener.addresses[0]
        print(f"idle_tick on {host} port {port}; try: nc {host} {port}", flush=True)
        run(serve, listener, options.interval)


if __name__ == "__main__":
    interval = {"type": at_least(0.01, 3600.0), "default": 5.0, "help": "seconds; default: 5"}
    start(main, __doc__, port=9904, arguments={"--interval": interval})
