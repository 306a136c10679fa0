"""A chat room: everybody hears everybody, and nobody waits for the slowest.

    $ python3 -m demos.chat
    chat on 127.0.0.1 port 7010; try: nc 127.0.0.1 7010, in two terminals

Each guest has two tasks: one hears what the guest says and publishes it, the other tells the guest
what was published. Whichever ends first, `race` ends both: a guest who leaves, or is cut off.

What to look at is the `Topic`. A guest who does not read (try Ctrl-Z on one `nc`, and talk on in
another) holds nobody up. The last 100 lines are kept for him; he loses older ones, and is told how
many. So a guest costs a bounded amount of memory, whatever the others say.

Ctrl-D leaves the room; Ctrl-C, typed where the server runs, ends it.
"""

from __future__ import annotations

import argparse
import unicodedata
from functools import partial

from corolib import (
    Coro,
    LimitExceeded,
    Listener,
    Stream,
    Topic,
    listen_tcp,
    move_on_after,
    race,
    run,
)
from demos.ports import announce
from demos.start import start

BEHIND = 100  # lines that a guest may be behind
LINE = 1000  # bytes of a line
NAME = 20  # characters of a name
GUESTS = 1000
PATIENCE = 30  # seconds for a guest to give a name: until then he takes a place and says nothing
MARKS = 3  # accents on one letter: more of them would run over the lines above
SAME = str.maketrans("0i1", "oll")  # what looks alike in many fonts


class Room:
    """Who is there, and what is said."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.said: Topic[tuple[str, str]] = Topic(BEHIND, overflow="drop_old")

    def say(self, name: str, line: str) -> Coro[None]:
        """Tell all others: does not wait for them."""
        yield from self.said.publish((name, line))


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
        room.names.add(name)
        try:
            sides = tell(room, stream, name), hear(room, stream, name)
            yield from race(*map(until_gone, sides))
        finally:
            room.names.remove(name)
            yield from room.say(name, f"* {name} has left")
    except LimitExceeded:
        yield from send(stream, f"* a line has at most {LINE} bytes; good-bye")


def ask_name(room: Room, stream: Stream) -> Coro[str]:
    """Return a name that nobody has yet; none if the guest leaves.

    It is in ASCII: letters of other scripts may look like these.
    """
    while True:
        yield from send(stream, "* your name?")
        line = yield from stream.readline()
        name = readable(line)
        fits = name.isascii() and name.isalnum() and len(name) <= NAME
        if not line or (fits and look(name) not in map(look, room.names)):
            return name
        yield from send(stream, f"* take up to {NAME} letters and digits, a to z and 0 to 9,")
        yield from send(stream, "* that look like nobody else's name")


def until_gone(side: Coro[None]) -> Coro[None]:
    """Let one side of a talk end where the guest has gone, which both may be the first to see."""
    try:
        yield from side
    except OSError:
        pass


def tell(room: Room, stream: Stream, name: str) -> Coro[None]:
    """Send a guest what the others say."""
    lost = 0
    with room.said.subscribe() as news:
        yield from send(stream, f"* welcome, {name}; here: {', '.join(sorted(room.names))}")
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


def serve(listener: Listener) -> Coro[None]:
    """Serve all guests, for ever; when the program is to end, nobody is waited for."""
    handler = partial(visit, Room())
    # A guest who says nothing for long is no worse than who comes later: nobody makes room.
    yield from listener.serve(
        handler,
        max_connections=GUESTS,
        max_line=LINE,
        evict_idle=None,
        grace=0,
        accept=announce,
    )


def main(options: argparse.Namespace) -> None:
    with listen_tcp(options.host, options.port) as listener:
        host, port = listener.addresses[0][:2]
        print(f"chat on {host} port {port}; try: nc {host} {port}, in two terminals", flush=True)
        run(serve, listener)


if __name__ == "__main__":
    start(main, __doc__, port=7010)
