"""A key-value server that redis-cli and redis-benchmark take for a small Redis.

    $ python3 -m demos.keyvalue
    keys and values on 127.0.0.1 port 7379; try: redis-cli -p 7379 set greeting hello
    $ redis-benchmark -p 7379 -t ping,set,get,incr,lpush -n 20000 -c 50 -P 16 -q

It knows PING, ECHO, GET, SET with EX, PX, NX and XX, DEL, INCR, LPUSH, LRANGE, EXPIRE, TTL and
INFO. Everything is in memory and gone in the end.

What to look at: no lock guards the data, for no command waits: what stands between two `yield`s is
done as if nobody else were there. And a client that sends many requests without waiting for replies
gets its replies in batches; one that does not take them is not read from either. `protocol.py` cuts
bytes into requests, `store.py` has the data.

Ctrl-C and SIGTERM end it, when the requests that have come are answered.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any

from corolib import ClosedError, Coro, Listener, Stream, listen_tcp, now, run, spawn
from demos.keyvalue.protocol import Refused, Requests, batches, encode
from demos.keyvalue.store import Store
from demos.start import at_least, start

CHUNK = 16384  # bytes that are read at once: other clients wait while these are answered
CLIENTS = 1000
IDLE = 300  # seconds in which nothing moves


class Service(Store):
    """The store, with what concerns clients and the server itself."""

    def __init__(self, listener: Listener, memory: int) -> None:
        super().__init__(memory)
        self.server = listener.serve(self.serve_client, max_connections=CLIENTS, idle_timeout=IDLE)
        self.idle: set[Stream] = set()
        self.begun = now()
        self.settings = {  # redis-benchmark asks for the first two
            b"save": b"",
            b"appendonly": b"no",
            b"maxclients": b"%d" % CLIENTS,
            b"maxmemory": b"%d" % memory,
        }

    def serve_client(self, stream: Stream) -> Coro[None]:
        """Answer requests until the client, or the server, wants no more."""
        requests = Requests()
        while not (requests.ended or self.server.stopping.is_set):
            data = yield from self.receive(stream)
            if not data:
                return
            for batch in batches(self.replies(requests, data)):
                yield from stream.sendall(batch)

    def receive(self, stream: Stream) -> Coro[bytes]:
        """Wait for data; return b"" when there is no more, or the server ends."""
        self.idle.add(stream)
        try:
            return (yield from stream.recv(CHUNK))
        except ClosedError:  # by `hang_up`
            return b""
        finally:
            self.idle.remove(stream)

    def hang_up(self) -> Coro[None]:
        """Wait for the end of the server, and close the connections on which nothing goes on."""
        yield from self.server.stopping.wait()
        for stream in self.idle:
            stream.close()

    def replies(self, requests: Requests, data: bytes) -> Iterator[bytes]:
        """Yield the replies to what a client sent, in pieces."""
        try:
            for request in requests.feed(data):
                if request:
                    yield from encode(self.execute(*request))
                    if request[0].upper() == b"QUIT":
                        requests.ended = True
                        return
        except Refused as exc:
            requests.ended = True
            yield from encode(exc)

    def execute(self, name: bytes, *args: bytes) -> Any:
        """Return the reply to one request."""
        if name.upper() not in COMMANDS:
            return Refused(f"ERR unknown command {ascii(name[:64])[1:]}")
        command, least, most = COMMANDS[name.upper()]
        if not least <= len(args) <= most:
            return Refused(f"ERR wrong number of arguments for {ascii(name.lower())[1:]} command")
        try:
            return command(self, *args)
        except Refused as exc:
            return exc

    # Commands that concern no key -----------------------------------------------------------------

    def ping(self, text: bytes | None = None) -> str | bytes:
        return "PONG" if text is None else text

    def echo(self, text: bytes) -> bytes:
        return text

    def quit(self) -> str:
        return "OK"

    def command(self, *args: bytes) -> list[bytes]:
        """redis-cli asks for the documentation of all commands, and does without."""
        return []

    def config(self, verb: bytes, name: bytes) -> list[bytes]:
        if verb.upper() != b"GET":
            raise Refused("ERR the settings cannot be changed")
        found = self.settings.get(name.lower())
        return [] if found is None else [name, found]

    def info(self, *sections: bytes) -> bytes:
        counts = self.server.stats()
        facts = {
            "redis_version": "0.0.0",
            "uptime_in_seconds": int(now() - self.begun),
            "connected_clients": counts["open"],
            "total_connections_received": counts["accepted"],
            "used_memory": self.used,
            "maxmemory": self.memory,
            "expired_keys": self.expired,
            "keys": len(self.values),
        }
        return "".join(f"{name}:{value}\r\n" for name, value in facts.items()).encode()


# What does it, and how many arguments it takes: from, and up to.
COMMANDS: dict[bytes, tuple[Callable[..., Any], int, float]] = {
    b"GET": (Service.get, 1, 1),
    b"SET": (Service.set, 2, math.inf),
    b"DEL": (Service.delete, 1, math.inf),
    b"INCR": (Service.incr, 1, 1),
    b"LPUSH": (Service.lpush, 2, math.inf),
    b"LRANGE": (Service.lrange, 3, 3),
    b"EXPIRE": (Service.expire, 2, 2),
    b"TTL": (Service.ttl, 1, 1),
    b"PING": (Service.ping, 0, 1),
    b"ECHO": (Service.echo, 1, 1),
    b"INFO": (Service.info, 0, math.inf),
    b"QUIT": (Service.quit, 0, math.inf),
    b"COMMAND": (Service.command, 0, math.inf),
    b"CONFIG": (Service.config, 2, 2),
}


def serve(listener: Listener, memory: int) -> Coro[None]:
    service = Service(listener, memory)
    spawn(service.sweep, daemon=True)
    spawn(service.hang_up, daemon=True)
    yield from service.server


def main(options: argparse.Namespace) -> None:
    with listen_tcp(options.host, options.port) as listener:
        host, port = listener.addresses[0][:2]
        there = f"-p {port}" if host == "127.0.0.1" else f"-h {host} -p {port}"
        print(f"keys and values on {host} port {port}; try: redis-cli {there} ping", flush=True)
        run(serve, listener, options.memory << 20)


if __name__ == "__main__":
    limit = {"type": at_least(1), "default": 256, "metavar": "MIB"}
    limit["help"] = "for keys and values, about; default: %(default)s"
    start(main, __doc__, port=7379, arguments={"--memory": limit})
