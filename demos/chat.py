"""A chat room: messages go to all clients, and a slow one delays no other.

    $ python3 -m demos.chat
    chat on 127.0.0.1 port 7010; try: nc 127.0.0.1 7010, in two terminals

Each guest has two tasks: one hears what the guest says and publishes it, the other tells the guest
what was published. Whichever ends first, `race` ends both: a guest who leaves, or is cut off.

What to look at is the `Topic`. A guest who does not read (try Ctrl-Z on one `nc`, and talk on in
another) holds nobody up. The last 100 lines are kept for him; he loses older ones, and is told how
many. So a guest costs a bounded amount of memory, whatever the others say.

`--redis HOST:PORT` makes one room of all servers that name the same Redis, on as many machines as
there are: what is said goes through a channel, and each name is a key, which somebody keeps alive.

Ctrl-D leaves the room; Ctrl-C, typed where the server runs, ends it.
"""

from __future__ import annotations

import argparse
import unicodedata
from functools import partial
from typing import TYPE_CHECKING, Any

from corolib import (
    Coro,
    LimitExceeded,
    Listener,
    QueueShutDown,
    Stream,
    Topic,
    every,
    listen_tcp,
    move_on_after,
    race,
    run,
    timeout,
)
from demos.extra import extra
from demos.ports import announce
from demos.start import start

BEHIND = 100  # lines that a guest may be behind
LINE = 1000  # bytes of a line
NAME = 20  # characters of a name
GUESTS = 1000
PATIENCE = 30  # seconds for a guest to give a name: until then he takes a place and says nothing
MARKS = 3  # accents on one letter: more of them would run over the lines above
CHANNEL = "chat"  # of Redis; the keys of names begin with it, too
ANSWER = 5  # seconds that Redis has for an answer
AWAY = 30  # seconds until the names of a server that is gone are free
SAME = str.maketrans("0i1", "oll")  # what looks alike in many fonts

if TYPE_CHECKING:
    from corolib.interop.redis import Redis, Subscription


class Room:
    """Who is there, and what is said."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.said: Topic[tuple[str, str]] = Topic(BEHIND, overflow="drop_old")

    def take(self, name: str) -> Coro[bool]:
        """Give a guest a name, unless somebody's looks like it."""
        if look(name) in map(look, self.names):
            return False
        self.names.add(name)
        return True
        yield

    def leave(self, name: str) -> Coro[None]:
        """A guest leaves, and so his name is free."""
        self.names.remove(name)
        yield from self.say(name, f"* {name} has left")

    def here(self) -> Coro[list[str]]:
        """Return who is there."""
        return sorted(self.names)
        yield

    def say(self, name: str, line: str) -> Coro[None]:
        """Tell all others: does not wait for them."""
        yield from self.said.publish((name, line))


class SharedRoom(Room):
    """The part of a room that is here: Redis has the whole, and `names` are those of our guests."""

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self.redis = redis

    def ask(self, *command: str | int) -> Coro[Any]:
        """Return what Redis replies. If it refuses, as when it is full, it is as good as away."""
        with timeout(ANSWER):
            (reply,) = yield from self.redis.call_all([command])
        if isinstance(reply, Exception):
            raise ConnectionError(f"Redis refuses: {reply}")
        return reply

    def take(self, name: str) -> Coro[bool]:
        if not (yield from super().take(name)):
            return False
        taken = False
        try:
            reply = yield from self.ask("SET", key(name), name, "NX", "EX", AWAY)
            taken = reply is not None
        except OSError:
            pass  # Redis is away, or was just now: the guest will ask again
        finally:
            if not taken:
                self.names.remove(name)
        return taken

    def leave(self, name: str) -> Coro[None]:
        yield from super().leave(name)
        yield from until_gone(self.ask("DEL", key(name)))

    def here(self) -> Coro[list[str]]:
        try:
            keys = yield from self.ask("KEYS", key("*"))  # all of them: the room is small
            names = yield from self.ask("MGET", *keys, key("nobody"))
        except OSError:
            return (yield from super().here())
        return sorted(readable(name) for name in names if name)

    def say(self, name: str, line: str) -> Coro[None]:
        try:
            yield from self.ask("PUBLISH", CHANNEL, f"{name} {line}")
        except OSError:
            yield from self.said.publish(("", "* the room was cut off: a line may be lost"))

    def hear_all(self, messages: Subscription) -> Coro[None]:
        """Hand on what is said anywhere to the guests that are here.

        Others than we may speak there, so it is read as what a guest says.
        """
        while True:
            try:
                message = yield from messages.get()
            except QueueShutDown:
                raise SystemExit("Redis does not let this server hear the room any more") from None
            name, _, line = readable(message.data).partition(" ")
            yield from self.said.publish((name, line))

    def keep_names(self) -> Coro[None]:
        """Say again and again which names are taken: those of a server that is gone are free."""
        for tick in every(AWAY / 3):
            yield from tick
            names = [("SET", key(name), name, "EX", AWAY) for name in self.names]
            yield from until_gone(self.redis.call_all(names))


def key(name: str) -> str:
    """Return the key of a name in Redis."""
    return f"{CHANNEL}:{look(name)}"


def readable(line: bytes) -> str:
    """Return a line as text, without what would play tricks on a terminal."""
    kept, marks = [], 0
    for each in filter(str.isprintable, line.decode("utf-8", "replace")):
        marks = marks + 1 if unicodedata.category(each).startswith("M") else 0
        if marks <= MARKS:
            kept.append(each)
    return "".join(kept).strip()


def look(name: str) -> str:
    """Return what a name looks like: nobody is to be taken for another."""
    return name.lower().translate(SAME)


def send(stream: Stream, line: str) -> Coro[None]:
    yield from stream.sendall(f"{line}\n".encode())


def visit(room: Room, stream: Stream) -> Coro[None]:
    """Serve one guest, from the first word to the last."""
    try:
        name = ""
        with move_on_after(PATIENCE):
            name = yield from ask_name(room, stream)
        if not name:
            return
        try:
            sides = tell(room, stream, name), hear(room, stream, name)
            yield from race(*map(until_gone, sides))
        finally:
            yield from room.leave(name)
    except LimitExceeded:
        yield from send(stream, f"* a line has at most {LINE} bytes; good-bye")


def ask_name(room: Room, stream: Stream) -> Coro[str]:
    """Return a name that nobody had yet, and that is taken now; none if the guest leaves.

    It is in ASCII: letters of other scripts may look like these.
    """
    while True:
        yield from send(stream, "* your name?")
        line = yield from stream.readline()
        name = readable(line)
        fits = name.isascii() and name.isalnum() and len(name) <= NAME
        if not line:
            return ""
        if fits and (yield from room.take(name)):
            return name
        yield from send(stream, f"* take up to {NAME} letters and digits, a to z and 0 to 9,")
        yield from send(stream, "* that look like nobody else's name")


def until_gone(side: Coro[object]) -> Coro[None]:
    """Let one side of a talk end where the other is gone: a guest, which both may see, or Redis."""
    try:
        yield from side
    except OSError:
        pass


def tell(room: Room, stream: Stream, name: str) -> Coro[None]:
    """Send a guest what the others say."""
    lost = 0
    with room.said.subscribe() as news:
        names = yield from room.here()
        yield from send(stream, f"* welcome, {name}; here: {', '.join(names)}")
        while True:
            speaker, line = yield from news.get()
            if news.dropped > lost:
                yield from send(stream, f"* you were too slow for {news.dropped - lost} lines")
                lost = news.dropped
            if speaker != name:
                yield from send(stream, line)


def hear(room: Room, stream: Stream, name: str) -> Coro[None]:
    """Publish what a guest says, until there is no more."""
    yield from room.say(name, f"* {name} is here")
    while line := (yield from stream.readline()):
        if text := readable(line):
            yield from room.say(name, f"<{name}> {text}")


def serve(listener: Listener, room: Room | None = None) -> Coro[None]:
    """Serve all guests, for ever; when the program is to end, nobody is waited for."""
    handler = partial(visit, room or Room())
    # A guest who says nothing for long is no worse than who comes later: nobody makes room.
    yield from listener.serve(
        handler,
        max_connections=GUESTS,
        max_line=LINE,
        evict_idle=None,
        grace=0,
        accept=announce,
    )


def serve_shared(listener: Listener, host: str, port: int) -> Coro[None]:
    """Serve guests in a room that is everywhere where the same Redis is named."""
    with extra("redis"):
        from corolib.interop.redis import Redis, RedisError
    with Redis(host, port) as redis:
        room = SharedRoom(redis)
        try:
            messages = yield from redis.subscribe(CHANNEL)
        except RedisError as exc:
            raise SystemExit(f"Redis refuses: {exc}") from None
        with messages:
            # The others end with the server, and before what they listen to.
            yield from race(serve(listener, room), room.hear_all(messages), room.keep_names())


def address(text: str) -> tuple[str, int]:
    """Return HOST:PORT in two parts, which is the `type=` of an option."""
    host, _, port = text.rpartition(":")
    if not (host and port.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text}: give HOST:PORT")
    return host.strip("[]"), int(port)


def main(options: argparse.Namespace) -> None:
    with listen_tcp(options.host, options.port) as listener:
        host, port = listener.addresses[0][:2]
        print(f"chat on {host} port {port}; try: nc {host} {port}, in two terminals", flush=True)
        if options.redis:
            run(serve_shared, listener, *options.redis)
        else:
            run(serve, listener)


if __name__ == "__main__":
    redis = {"type": address, "metavar": "HOST:PORT", "help": "share the room with other servers"}
    start(main, __doc__, port=7010, arguments={"--redis": redis})
