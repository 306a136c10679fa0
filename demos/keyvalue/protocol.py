r"""RESP, the protocol of Redis: requests out of bytes, replies into bytes. Nothing here waits.

A request is an array of strings, which hiredis reads: `*2\r\n$3\r\nGET\r\n$1\r\na\r\n`. Or it is
a line, as a person types it into `nc`: `GET a\r\n`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from demos.extra import extra

with extra():
    import hiredis

REQUEST = 1 << 20  # bytes of a request
LINE = 65536  # bytes of a request that is a line
BATCH = 65536  # bytes of replies that are sent at once
# What may be the head of an array of 10000 elements or more, or of which more is to come.
HEAD = re.compile(rb"[*~%>|]([0-9]{5,}|[0-9]*\Z)")
PART = object()  # of a request: there is no whole one yet


class Refused(Exception):
    """What a client is told in place of a reply. The first word is the kind of error."""


class Requests:
    """Cuts what a client sends into requests.

    hiredis makes room for as many elements as the head of an array announces, and a head of 12
    bytes can announce four billion. So it does not get to see such heads. Whether `*10000` is one,
    or stands in a value, can be told by hiredis: it takes a value only when that is whole, and all
    else at once. So if it has left nothing of what comes before, then this is no value.

    Attributes:
        ended: True when the client is to get no more replies.
    """

    def __init__(self) -> None:
        self.reader = hiredis.Reader(notEnoughData=PART)
        self.between = True  # two requests
        self.held = b""  # until more of it comes
        self.size = 0  # bytes that came since the last whole request, or a little more
        self.ended = False

    def feed(self, data: bytes) -> Iterator[list[bytes]]:
        """Yield the requests that are whole now; raise Refused where one can never be."""
        data, self.held = self.held + data, b""
        self.size += len(data)
        begin = 0
        while self.between and begin < len(data) and not data.startswith(b"*", begin):
            end = data.find(b"\n", begin) + 1
            if not end:
                self.held = data[begin:]
                break
            yield data[begin:end].split()
            begin = end
        else:
            yield from self._arrays(data, begin)
        if self.between:
            self.size = len(self.held)
        if self.size > REQUEST or len(self.held) > LINE:
            raise Refused("ERR Protocol error: the request is too big")

    def _arrays(self, data: bytes, begin: int) -> Iterator[list[bytes]]:
        for head in HEAD.finditer(data, begin):
            yield from self._read(data[begin : head.start()])
            begin = head.start()
            if not self.reader.has_data():
                if len(head[1]) >= 5:
                    raise Refused("ERR Protocol error: invalid multibulk length")
                self.held = head[0]
                return
        yield from self._read(data[begin:])

    def _read(self, data: bytes) -> Iterator[list[bytes]]:
        if not data:
            return
        self.between = False
        self.reader.feed(data)
        try:
            while (request := self.reader.gets()) is not PART:
                if type(request) is not list or not all(type(each) is bytes for each in request):
                    raise Refused("ERR Protocol error: a request is an array of strings")
                self.between = not self.reader.has_data()
                self.size = len(data)
                yield request
        except hiredis.ProtocolError as exc:
            raise Refused(
                f"ERR Protocol error: {str(exc).removeprefix('Protocol error, ')}"
            ) from None


def encode(reply: Any) -> Iterator[bytes]:
    """Yield a reply in pieces, for it may be a long list."""
    if isinstance(reply, bytes):
        yield b"$%d\r\n%b\r\n" % (len(reply), reply)
    elif isinstance(reply, str):
        yield b"+%b\r\n" % reply.encode()
    elif isinstance(reply, int):
        yield b":%d\r\n" % reply
    elif reply is None:
        yield b"$-1\r\n"
    elif isinstance(reply, Refused):
        yield b"-%b\r\n" % " ".join(str(reply).split()).encode()
    else:
        yield b"*%d\r\n" % len(reply)
        for each in reply:
            yield from encode(each)


def batches(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Put small pieces together."""
    batch, size = [], 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size > BATCH:
            yield b"".join(batch)
            batch, size = [], 0
    if batch:
        yield b"".join(batch)
