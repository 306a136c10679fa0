"""What each of the six classic services does: with a connection, and with a datagram.

    echo     (RFC 862)   sends back what it gets
    discard  (RFC 863)   throws it away
    chargen  (RFC 864)   sends characters as fast as they are taken
    qotd     (RFC 865)   sends the quote of the day
    daytime  (RFC 867)   sends the date and time as a line of text
    time     (RFC 868)   sends the seconds since 1900 as four bytes

Compare `demos/echo.py` and `demos/time.py`, which do three of them with nothing but traps. What
they do by hand, the stream and its server do here: `sendall` waits for the client to take what is
sent; when a handler returns, the server tells the client that this was all, throws away what still
comes, and closes when the client does (or after two seconds).

Datagrams get no answer where that might do harm to somebody in whose name they are sent: see
`DatagramSocket.serve`. So another machine must ask with as many bytes as it wants to have, as
`client.py` does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from corolib import Coro, Stream, spawn
from corolib.demo.daytime import daytime_of, time_of

Clock = Callable[[], float | None]  # seconds since 1970; None: it is not known what time it is
Content = Callable[[], bytes | None]  # what a service has to say; None: nothing


class Service(NamedTuple):
    number: int  # of its well-known port
    handler: Callable[[Stream], Coro[None]]
    answer: Callable[[bytes, Any], bytes | None]  # to a datagram of a sender; None: there is none


# With what a client sends -------------------------------------------------------------------------


def echo(stream: Stream) -> Coro[None]:
    """Send back what a client sends; while it does not read, no more is read from it."""
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data)


def discard(stream: Stream) -> Coro[None]:
    """Throw away what a client sends."""
    while (yield from stream.recv(65536)):
        pass


# Characters ---------------------------------------------------------------------------------------

RING = bytes(range(32, 127))  # the 95 printable characters of ASCII, the space among them
LINES = [(RING[i:] + RING[:i])[:72] + b"\r\n" for i in range(len(RING))]
PATTERN = b"".join(LINES)  # after these 95 lines it begins anew


def chargen(stream: Stream) -> Coro[None]:
    """Send characters until the client is gone; while it does not read, `sendall` waits."""
    spawn(ignore, stream, daemon=True)  # it ends with this task
    while True:
        yield from stream.sendall(PATTERN)


def ignore(stream: Stream) -> Coro[None]:
    """Throw away what a client sends, while another task sends to it."""
    try:
        yield from discard(stream)
    except OSError:
        pass  # the client is gone, which the other task learns as well


def some_characters(question: bytes, sender: Any) -> bytes:
    """Return up to 512 characters; no more than it was asked with, if that may be forged."""
    here = sender[0].startswith("127.") or sender[0] == "::1"
    return PATTERN[: random.randint(0, 512 if here else min(len(question), 512))]


# One thing to say ---------------------------------------------------------------------------------

QUOTES = (  # of fewer than 512 characters each; one for each day, in turn
    b'"Brevity is the soul of wit."\r\n    William Shakespeare, Hamlet\r\n',
    b'"I have made this longer than usual because I have not had time to make it shorter."\r\n'
    b"    Blaise Pascal, Provincial Letters\r\n",
    b'"What has been will be again; there is nothing new under the sun."\r\n    Ecclesiastes\r\n',
    b'"They also serve who only stand and wait."\r\n    John Milton, When I Consider\r\n',
    b'"All things are difficult before they are easy."\r\n    Thomas Fuller, Gnomologia\r\n',
)


def quote_of(now: float) -> bytes:
    """Return the quote of the day."""
    return QUOTES[int(now // 86400) % len(QUOTES)]


def says(number: int, content: Content) -> Service:
    """Return the service that says one thing, whatever the client sends."""

    def tell(stream: Stream) -> Coro[None]:
        data = content()
        if data is not None:
            yield from stream.sendall(data)

    return Service(number, tell, lambda question, sender: content())


def at(clock: Clock, form: Callable[[float], bytes]) -> Content:
    """Return the function that says `form` of what the clock shows, and nothing without a time."""

    def content() -> bytes | None:
        now = clock()
        return None if now is None else form(now)

    return content


def services(clock: Clock = time.time) -> dict[str, Service]:
    """Return all six, by their names."""
    return {
        "echo": Service(7, echo, lambda data, sender: data),
        "discard": Service(9, discard, lambda data, sender: None),
        "daytime": says(13, at(clock, daytime_of)),
        "qotd": says(17, at(clock, quote_of)),
        "chargen": Service(19, chargen, some_characters),
        "time": says(37, at(clock, time_of)),
    }
