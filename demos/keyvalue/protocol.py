r"""RESP, the protocol of Redis: requests out of bytes, replies into bytes. Nothing here waits.

A request is an array of strings: `*2\r\n$3\r\nGET\r\n$1\r\na\r\n`. Or it is a line, as a person
types it into `nc`: `GET a\r\n`, with quotes where a word has spaces. The two may follow each other
in any order.

Libraries that read RESP are made for clients: they read replies, which may be nested and of many
kinds, and make room for as many elements as are announced. A server has to read less, and trusts
nobody; so this is our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

REQUEST = 1 << 20  # bytes of a request
LINE = 65536  # bytes of a request that is a line
ELEMENTS = 10_000  # of a request
BATCH = 65536  # bytes of replies that are sent at once

NUMBER = re.compile(rb"-?[0-9]{1,10}")
WORD = re.compile(
    rb'\s*(?:"((?:\\.|[^"\\])*)"' rb"|'((?:\\.|[^'\\])*)'" rb"|([^\s\"']+))(?=\s|\Z)", re.DOTALL
)
ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)  # in a word with double quotes
ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


class Refused(Exception):
    """What a client is told in place of a reply. The first word is the kind of error."""


class Requests:
    """Cuts what a client sends into requests."""

    def __init__(self) -> None:
        self._read = 0  # bytes of the request that has begun
        self._data = bytearray()  # what was not read yet
        self._request: list[bytes] = []  # the elements that have come
        self._missing = 0  # elements that are still to come; 0 between two requests
        self._length = -1  # bytes of the element that comes now; -1 if that is not known yet

    @property
    def size(self) -> int:
        """How many bytes are kept, since their request has not come to its end."""
        return self._read + len(self._data)

    def feed(self, data: bytes) -> Iterator[list[bytes]]:
        """Yield the requests that are whole now; raise Refused where one can never be."""
        searched = len(self._data)  # there is no end of a line before
        self._data += data
        at = 0
        try:
            while True:
                if self._length >= 0:
                    end = at + self._length + 2
                    if end > len(self._data):
                        break
                    self._take(bytes(self._data[at:end]))
                else:
                    end = self._data.find(b"\n", max(at, searched)) + 1
                    if not end:
                        break
                    self._read_line(bytes(self._data[at:end].rstrip(b"\r\n")))
                self._read += end - at
                at = end
                if self._read > REQUEST:
                    raise error("the request is too big")
                if not self._missing:
                    request, self._request, self._read = self._request, [], 0
                    if request:
                        yield request
        finally:
            del self._data[:at]
        if self.size > (REQUEST if self._missing else LINE):
            raise error("the request is too big")

    def _read_line(self, line: bytes) -> None:
        if self._missing:
            if line[:1] != b"$":
                raise error(f"expected '$', got {ascii(line[:1])[1:]}")
            self._length = number(line[1:], "bulk length", 0, REQUEST)
        elif line[:1] == b"*":  # none, or less than none, is no request
            self._missing = max(0, number(line[1:], "multibulk length", -(10**10), ELEMENTS))
        else:
            self._request = words(line)

    def _take(self, element: bytes) -> None:
        if not element.endswith(b"\r\n"):
            raise error("a string is longer than it said")
        self._request.append(element[:-2])
        self._missing -= 1
        self._length = -1


def error(text: str) -> Refused:
    return Refused(f"ERR Protocol error: {text}")


def number(text: bytes, what: str, least: int, most: int) -> int:
    if NUMBER.fullmatch(text) is None or not least <= int(text) <= most:
        raise error(f"invalid {what}")
    return int(text)


def words(line: bytes) -> list[bytes]:
    """Return the words of a line. Those that stand in quotes may hold spaces."""
    found, at = [], 0
    line = line.strip()
    while at < len(line):
        word = WORD.match(line, at)
        if word is None:
            raise error("unbalanced quotes in request")
        double, single, bare = word.groups()
        if double is not None:
            found.append(ESCAPE.sub(unescape, double))
        else:
            found.append(bare if single is None else single.replace(rb"\'", b"'"))
        at = word.end()
    return found


def unescape(match: re.Match[bytes]) -> bytes:
    text = match[1]
    return bytes.fromhex(text[1:].decode()) if len(text) == 3 else ESCAPED.get(text, text)


def encode(reply: Any, version: int = 2) -> Iterator[bytes]:
    """Yield a reply in pieces, for it may be a long list; in version 2 of the protocol, or 3."""
    if isinstance(reply, bytes):
        yield b"$%d\r\n%b\r\n" % (len(reply), reply)
    elif isinstance(reply, str):
        yield b"+%b\r\n" % reply.encode()
    elif isinstance(reply, float):
        text = b"%.17g" % reply
        yield b",%b\r\n" % text if version == 3 else b"$%d\r\n%b\r\n" % (len(text), text)
    elif isinstance(reply, int):
        yield b":%d\r\n" % reply
    elif reply is None:
        yield b"_\r\n" if version == 3 else b"$-1\r\n"
    elif isinstance(reply, Refused):
        yield b"-%b\r\n" % " ".join(str(reply).split()).encode()
    elif isinstance(reply, dict):
        yield b"%%%d\r\n" % len(reply) if version == 3 else b"*%d\r\n" % (2 * len(reply))
        for pair in reply.items():
            for each in pair:
                yield from encode(each, version)
    else:
        kind = b"~" if version == 3 and isinstance(reply, set) else b"*"
        yield b"%b%d\r\n" % (kind, len(reply))
        for each in reply:
            yield from encode(each, version)


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
