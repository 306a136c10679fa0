"""A key-value server that redis-cli and redis-benchmark take for a small Redis.

    $ python3 -m demos.keyvalue
    keys and values on 127.0.0.1 port 7379; try: redis-cli -p 7379 set greeting hello
    $ redis-benchmark -p 7379 -n 20000 -c 50 -P 16 -q

It knows what `redis-benchmark` tries by itself, and what one needs to look at that:

- strings: GET, SET with EX, PX, NX and XX, MGET, MSET, INCR, INCRBY, DECR, DECRBY;
- lists: LPUSH, RPUSH, LPOP, RPOP, LLEN, LRANGE; sets: SADD, SPOP, SMEMBERS;
- hashes: HSET, HGET, HGETALL; sorted sets: ZADD, ZPOPMIN, ZRANGE;
- keys: DEL, EXISTS, EXPIRE, TTL; several commands as one: MULTI, EXEC, DISCARD;
- the server: PING, ECHO, INFO, CONFIG GET, and what clients of today say first: HELLO, CLIENT and
  SELECT 0.

Any other command is refused by its name. Everything is in memory and gone in the end.

What to look at: no lock guards the data, for no command waits: what stands between two `yield`s is
done as if nobody else were there. And a client that sends many requests without waiting for replies
gets its replies in batches; one that does not take them is not read from either, and what waits for
all of these is bounded. `protocol.py` cuts bytes into requests, `store.py` has the data.

There is no password. So that no web page in a browser beside it can write to it, a connection that
speaks HTTP is closed.

Ctrl-C and SIGTERM end it, when the requests that have come are answered.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import count
from typing import Any

from corolib import ClosedError, Coro, Listener, Stream, listen_tcp, now, run, spawn
from demos.keyvalue.protocol import Refused, Requests, batches, encode
from demos.keyvalue.store import Store, size
from demos.ports import announce
from demos.start import at_least, start

CHUNK = 16384  # bytes that are read at once: other clients wait while these are answered
CLIENTS = 1000
IDLE = 300  # seconds in which nothing moves
PENDING = 64 << 20  # bytes that may wait for clients, besides the memory for keys and values
TRANSACTION = 1 << 20  # bytes of what comes between MULTI and EXEC, about
NAME = 64  # bytes of a client's name
VERSION = "0.0.0"


class Client:
    """What is known of one connection, and the commands that concern nothing else."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = b""
        self.version = 2  # of the protocol
        self.requests = Requests()
        self.kept = 0  # bytes of `size`, as they are counted in the store
        self.ended = False  # there will be no more replies
        self.queue: list[list[bytes]] | None = None  # what comes between MULTI and EXEC
        self.queued = 0  # bytes of that
        self.broken = False  # something of it was refused: nothing of it will be done

    @property
    def size(self) -> int:
        """How many bytes are kept for later: of a request that is not whole, of a transaction."""
        return self.requests.size + self.queued

    def multi(self) -> str:
        """Begin a transaction: what comes is done at EXEC, and all of it at once."""
        if self.queue is not None:
            raise Refused("ERR MULTI calls can not be nested")
        self.queue, self.broken = [], False
        return "OK"

    def put_off(self, request: list[bytes]) -> str:
        """Keep a request of a transaction for later."""
        assert self.queue is not None
        if self.broken:
            return "QUEUED"  # EXEC will tell
        more = size(request)
        if self.queued + more > TRANSACTION:
            raise Refused("ERR the transaction is too big")
        self.queue.append(request)
        self.queued += more
        return "QUEUED"

    def end_transaction(self) -> list[list[bytes]]:
        """Return what is to be done: all that came since MULTI, or nothing."""
        queue = self.queue
        self.discard()
        if self.broken:
            raise Refused("EXECABORT Transaction discarded because of previous errors.")
        assert queue is not None
        return queue

    def discard(self) -> str:
        if self.queue is None:
            raise Refused("ERR there is no transaction: begin one with MULTI")
        self.queue, self.queued = None, 0
        return "OK"

    def hello(self, version: bytes = b"", *options: bytes) -> dict[bytes, Any]:
        """Agree on the version of the protocol. What comes with it is a name; nobody logs in."""
        if version and version not in (b"2", b"3"):
            raise Refused("NOPROTO unsupported protocol version")
        name = self.name
        words = iter(options)
        for word in words:
            if word.upper() == b"AUTH":
                raise Refused("ERR there is no password to log in with")
            if word.upper() != b"SETNAME":
                raise Refused("ERR syntax error in HELLO")
            name = next(words, b"")
        self.name = name[:NAME]
        self.version = int(version or self.version)
        return {
            b"server": b"corolib demo",
            b"version": VERSION.encode(),
            b"proto": self.version,
            b"id": self.number,
            b"mode": b"standalone",
            b"role": b"master",
            b"modules": [],
        }

    def client(self, verb: bytes, *args: bytes) -> Any:
        """Libraries tell their names, and wait for the answer."""
        match verb.upper(), args:
            case b"SETNAME", (name,):
                self.name = name[:NAME]
                return "OK"
            case b"GETNAME", ():
                return self.name or None
            case b"SETINFO", (_, _):
                return "OK"
            case b"ID", ():
                return self.number
        raise Refused(f"ERR unknown subcommand {ascii(verb[:64])[1:]}, or wrong arguments")

    def select(self, number: bytes) -> str:
        if number != b"0":
            raise Refused("ERR DB index is out of range")
        return "OK"

    def quit(self, *args: bytes) -> str:
        self.ended = True
        return "OK"


class Service(Store):
    """The store, with what concerns clients and the server itself."""

    def __init__(self, listener: Listener, memory: int) -> None:
        super().__init__(memory)
        self.server = listener.serve(
            self.serve_client, max_connections=CLIENTS, idle_timeout=IDLE, accept=announce
        )
        self.idle: set[Stream] = set()
        self.numbers = count(1)  # of clients
        self.pending = 0  # bytes of replies that are not taken, and of requests that are not whole
        self.begun = now()
        self.settings = {  # redis-benchmark asks for the first two
            b"save": b"",
            b"appendonly": b"no",
            b"maxclients": b"%d" % CLIENTS,
            b"maxmemory": b"%d" % memory,
        }

    def serve_client(self, stream: Stream) -> Coro[None]:
        """Answer requests until the client, or the server, wants no more."""
        client = Client(next(self.numbers))
        try:
            while not (client.ended or self.server.stopping.is_set()):
                data = yield from self.receive(stream)
                if not data:
                    return
                with closing(self.replies(client, data)) as replies:
                    for batch in batches(replies):
                        yield from stream.sendall(batch)
        finally:
            self.pending -= client.kept

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

    def replies(self, client: Client, data: bytes) -> Generator[bytes, None, None]:
        """Yield the replies to what a client sent, in pieces."""
        try:
            for request in client.requests.feed(data):
                reply = self.execute(client, *request)
                self.pending += (cost := size(reply))
                try:
                    yield from encode(reply, client.version)
                finally:
                    self.pending -= cost
                if client.ended:
                    return
            self.keep(client)
        except Refused as exc:
            client.ended = True
            yield from encode(exc)

    def keep(self, client: Client) -> None:
        """Count what a client has sent that is kept for later, or refuse it."""
        more = client.size - client.kept
        if more > 0 and not self.has_room(more):
            raise Refused("ERR too many requests wait for their rest")
        client.kept += more
        self.pending += more

    def has_room(self, size: int = 0) -> bool:
        """Tell whether so much more may wait for clients. Of replies, the next one may be of any
        size: what is done is not refused afterwards.
        """
        return self.pending + size <= PENDING

    def execute(self, client: Client, *request: bytes) -> Any:
        """Return the reply to one request. One that is refused has done nothing."""
        try:
            return self.do(client, *request)
        except Refused as exc:
            client.broken = True  # if it has begun a transaction
            return exc

    def do(self, client: Client, name: bytes, *args: bytes) -> Any:
        """Return the reply to one request, or refuse it."""
        upper = name.upper()
        if upper in (b"POST", b"HOST:"):
            client.ended = True
            raise Refused("ERR this is no web server")
        if not self.has_room():
            raise Refused("ERR too many replies wait for clients that do not read them")
        if upper in CLIENTS_OWN:
            command, least, most = CLIENTS_OWN[upper]
            owner: Any = client
        elif upper in COMMANDS:
            command, least, most = COMMANDS[upper]
            owner = self
        else:
            raise Refused(f"ERR unknown command {ascii(name[:64])[1:]}")
        if not least <= len(args) <= most:
            raise Refused(f"ERR wrong number of arguments for {ascii(name.lower())[1:]} command")
        if upper == b"EXEC":
            return self.execute_all(client, client.end_transaction())
        if client.queue is not None and upper not in (b"MULTI", b"DISCARD", b"QUIT"):
            return client.put_off([name, *args])
        return command(owner, *args)

    def execute_all(self, client: Client, requests: list[list[bytes]]) -> list[Any]:
        """Return the replies to all requests of a transaction, as far as there is room for them."""
        replies: list[Any] = []
        room = PENDING
        for request in requests:
            if room > 0:
                reply = self.execute(client, *request)
                room -= size(reply)
            else:
                reply = Refused("ERR the replies are too large; what comes after is not done")
            replies.append(reply)
        return replies

    # Commands that concern no key -----------------------------------------------------------------

    def ping(self, text: bytes | None = None) -> str | bytes:
        return "PONG" if text is None else text

    def echo(self, text: bytes) -> bytes:
        return text

    def command(self, *args: bytes) -> list[bytes]:
        """redis-cli asks for the documentation of all commands, and does without."""
        return []

    def config(self, verb: bytes, *names: bytes) -> dict[bytes, bytes]:
        if verb.upper() != b"GET":
            raise Refused("ERR the settings cannot be changed")
        return {
            name: self.settings[name.lower()] for name in names if name.lower() in self.settings
        }

    def info(self, *sections: bytes) -> bytes:
        counts = self.server.stats()
        facts = {
            "redis_version": VERSION,
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
CLIENTS_OWN: dict[bytes, tuple[Callable[..., Any], int, float]] = {
    b"HELLO": (Client.hello, 0, math.inf),
    b"CLIENT": (Client.client, 1, math.inf),
    b"SELECT": (Client.select, 1, 1),
    b"QUIT": (Client.quit, 0, math.inf),
    b"MULTI": (Client.multi, 0, 0),
    b"DISCARD": (Client.discard, 0, 0),
    b"EXEC": (Client.end_transaction, 0, 0),
}
COMMANDS: dict[bytes, tuple[Callable[..., Any], int, float]] = {
    b"GET": (Service.get, 1, 1),
    b"SET": (Service.set, 2, math.inf),
    b"MGET": (Service.mget, 1, math.inf),
    b"MSET": (Service.mset, 2, math.inf),
    b"DEL": (Service.delete, 1, math.inf),
    b"EXISTS": (Service.exists, 1, math.inf),
    b"INCR": (Service.incr, 1, 1),
    b"INCRBY": (Service.incr, 2, 2),
    b"DECR": (Service.decr, 1, 1),
    b"DECRBY": (Service.decr, 2, 2),
    b"LPUSH": (Service.lpush, 2, math.inf),
    b"RPUSH": (Service.rpush, 2, math.inf),
    b"LPOP": (Service.lpop, 1, 1),
    b"RPOP": (Service.rpop, 1, 1),
    b"LLEN": (Service.llen, 1, 1),
    b"LRANGE": (Service.lrange, 3, 3),
    b"SADD": (Service.sadd, 2, math.inf),
    b"SPOP": (Service.spop, 1, 1),
    b"SMEMBERS": (Service.smembers, 1, 1),
    b"HSET": (Service.hset, 3, math.inf),
    b"HGET": (Service.hget, 2, 2),
    b"HGETALL": (Service.hgetall, 1, 1),
    b"ZADD": (Service.zadd, 3, math.inf),
    b"ZPOPMIN": (Service.zpopmin, 1, 1),
    b"ZRANGE": (Service.zrange, 3, 3),
    b"EXPIRE": (Service.expire, 2, 2),
    b"TTL": (Service.ttl, 1, 1),
    b"PING": (Service.ping, 0, 1),
    b"ECHO": (Service.echo, 1, 1),
    b"INFO": (Service.info, 0, math.inf),
    b"COMMAND": (Service.command, 0, math.inf),
    b"CONFIG": (Service.config, 2, math.inf),
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
    limit = {"type": at_least(1, 1 << 20), "default": 256, "metavar": "MIB"}
    limit["help"] = "for keys and values, about; default: %(default)s"
    start(main, __doc__, port=7379, arguments={"--memory": limit})
