"""A port forwarder that can put faults between a client and a server.

    $ python3 -m demos.echo &
    $ python3 -m demos.forward 127.0.0.1 7007 --delay 0.5 --pieces 3
    forward from 127.0.0.1 port 7011 to 127.0.0.1 port 7007; try: nc 127.0.0.1 7011

Without an option it passes on what comes, in both directions, and each direction ends by itself.
The options: `--delay` and `--jitter` in seconds, `--rate` in bytes per second, `--pieces` of at
most so many bytes; and `--after` so many bytes `--then` the connection is cut (it ends as if
nothing were missing), reset, or becomes a hole, in which all is lost and nothing ends. `--only`
puts the faults on requests or on answers, `--chance` on some of the connections. What is random
depends on `--seed` and on the number of the connection alone, and is the same in each run.

How a direction is passed on, with its faults, is in `faults.py`. Here the connections are made, by
hand: `open_tcp` would do it, but to reset a connection one needs the socket itself.

A line for each connection tells what was passed on. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import errno
import math
import os
import socket
import sys
from itertools import count
from random import Random
from typing import Any

from corolib import Coro, TaskGroup, WriteWait, gather, run
from demos.echo import accept_all
from demos.faults import Broken, Faults, Side, Struck, Way
from demos.ports import open_listeners
from demos.start import at_least, start


class Forwarder:
    """Where to, and what shall happen on the way."""

    def __init__(self, options: argparse.Namespace) -> None:
        host, port = options.to_host, options.to_port
        try:
            self.there = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as exc:
            sys.exit(f"{host} port {port}: {exc.strerror}")
        self.options = options
        self.numbers = count(1)

    def forward(self, conn: socket.socket) -> Coro[None]:
        """Pass on what comes on one connection, and what is answered."""
        number = next(self.numbers)
        client = Side(conn)
        with client:
            try:
                server = Side((yield from connect(self.there)))
            except OSError as exc:
                print(f"{number}: {exc}", flush=True)
                client.reset()
                return
            with server:
                requests, answers = self.ways(number, client, server)
                end = yield from self.pass_on(requests, answers)
                passed = f"{requests.passed} bytes there, {answers.passed} back"
                print(f"{number}: {passed}; {end}", flush=True)
                yield from finish(end, client, server)

    def ways(self, number: int, client: Side, server: Side) -> tuple[Way, Way]:
        """Return both directions of a connection, with their faults."""
        seed = f"{self.options.seed} {number}"
        o = self.options
        faults = Faults(o.delay, o.jitter, o.rate, o.pieces, o.after)
        if Random(seed).random() >= o.chance:
            faults = Faults()
        there = faults if o.only != "answers" else Faults()
        back = faults if o.only != "requests" else Faults()
        return Way(client, server, there, f"{seed} >"), Way(server, client, back, f"{seed} <")

    def pass_on(self, *ways: Way) -> Coro[str]:
        """Pass on what comes in both directions; return how that ended."""
        end = "ended"
        try:
            with TaskGroup() as g:
                for way in ways:
                    g.spawn(way.pass_on)
                yield from g
        except* Broken:
            end = "reset"
        except* Struck:
            end = self.options.then
        return "reset" if end == "ended" and any(way.lost for way in ways) else end


def finish(end: str, *sides: Side) -> Coro[None]:
    """Bring a connection to the end that it is to have; nobody reads or sends any more."""
    if end == "cut":
        yield from gather(*[side.aclose() for side in sides])
    elif end == "hole":
        yield from gather(*[side.swallow() for side in sides])
    elif end == "reset":
        yield from gather(*[side.wait_sent() for side in sides])
        for side in sides:
            side.reset()


def connect(infos: list[Any]) -> Coro[socket.socket]:
    """Return a connected socket, to the first address that answers. (`open_tcp` makes a stream;
    here the socket itself is wanted, to reset it.)
    """
    error = 0
    for family, kind, _, _, address in infos:
        sock = socket.socket(family, kind)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            error = sock.connect_ex(address)
            if error == errno.EINPROGRESS:
                yield WriteWait(sock)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not error:
                return sock
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise OSError(error, os.strerror(error))


def main(options: argparse.Namespace) -> None:
    forwarder = Forwarder(options)
    with open_listeners(options.host, options.port) as listeners:
        for listener in listeners:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
        host, port = listeners[0].getsockname()[:2]
        there = f"{options.to_host} port {options.to_port}"
        print(f"forward from {host} port {port} to {there}; try: nc {host} {port}", flush=True)
        run(accept_all, listeners, forwarder.forward)


if __name__ == "__main__":
    seconds = {"type": at_least(0.0, 3600.0), "default": 0.0, "metavar": "SECONDS"}
    arguments: dict[str, dict[str, Any]] = {
        "to_host": {"help": "the server"},
        "to_port": {"type": at_least(1, 65535), "help": "its port"},
        "--delay": {**seconds, "help": "by which all data is delayed"},
        "--jitter": {**seconds, "help": "of further delay at random, at most"},
        "--rate": {"type": at_least(1.0, 1e12), "default": math.inf, "help": "bytes per second"},
        "--pieces": {"type": at_least(1, 1_000_000_000), "help": "bytes of a piece, at most"},
        "--after": {
            "type": at_least(0, sys.maxsize),
            "default": sys.maxsize,
            "help": "bytes, do this:",
        },
        "--then": {"choices": ["cut", "reset", "hole"], "default": "cut", "help": "default: cut"},
        "--only": {"choices": ["requests", "answers"], "help": "put faults on these alone"},
        "--chance": {
            "type": at_least(0.0, 1.0),
            "default": 1.0,
            "help": "that a connection has faults",
        },
        "--seed": {"type": int, "default": 0, "help": "of what is random; default: %(default)s"},
    }
    start(main, __doc__, port=7011, arguments=arguments)
