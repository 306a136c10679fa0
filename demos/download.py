"""A downloader: several files at once over plain HTTP/1.1, with limits.

    $ python3 -m demos.download --into /tmp http://example.org/ http://example.net/big.iso
    /tmp/index.html: 1256 bytes from http://example.org/
    http://example.net/big.iso: has more than 1000000000 bytes

At most `--at-once` files are on their way, none takes longer than `--seconds` or more than
`--bytes`. A file gets its name when it is whole, and replaces an older one. Until then it has a
name that nobody can guess, so that nobody can lay a link there; that is gone in the end, however
it comes.

What to look at: `fetch` and all below read from top to bottom, as if there were one file only.
`map_concurrent` does several of them, and `move_on_after` bounds one in time, both from outside.

Exit status: 0; 1 if a file is missing, with one line for each; 2: a wrong option; 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import string
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import SplitResult, quote, unquote, urlsplit

from corolib import (
    Coro,
    LimitExceeded,
    Stream,
    map_concurrent,
    move_on_after,
    open_tcp,
    run,
    spawn,
)
from demos.progress import show, wipe
from demos.start import at_least, start

CHUNK = 65536  # bytes that are read at once
UMASK = os.umask(0o022)  # it can only be asked for by setting it
os.umask(UMASK)
BAD = (OSError, EOFError, ValueError)  # a file that cannot be had: one line, and on to the others


class Download:
    """One file: where it is, where it shall be, and how much of it there is."""

    def __init__(self, url: SplitResult, options: argparse.Namespace) -> None:
        name = unquote(url.path.rpartition("/")[2]).replace("/", "_")
        name = "".join(each if each.isprintable() else "_" for each in name)
        self.url = url
        self.title = shown(url.geturl())
        self.path = Path(options.into, name if name.strip(".") else "index.html")
        self.most: int = options.bytes
        self.seconds: float = options.seconds
        self.size = 0
        self.state = ""

    def fetch(self) -> Coro[None]:
        """Fetch it within its time, and say how that ended."""
        try:
            with move_on_after(self.seconds) as time, whole(self.path) as file:
                yield from self.get(file)
            if time.expired:
                raise TimeoutError(f"took longer than {self.seconds:g} s")
        except BAD as exc:
            self.state = "failed"
            wipe()
            text = (
                "has a line that is too long" if isinstance(exc, LimitExceeded) else shown(str(exc))
            )
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)
        else:
            self.state = "done"
            wipe()
            print(f"{self.path}: {self.size} bytes from {self.title}", flush=True)

    def get(self, file: BinaryIO) -> Coro[None]:
        """Ask for it, and write down what comes."""
        url = self.url
        target = quote(url.path or "/", string.punctuation)
        if url.query:
            target += "?" + quote(url.query, string.punctuation)
        host = url.netloc.rpartition("@")[2].encode("idna").decode("ascii")
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        with (yield from open_tcp(url.hostname or "", url.port or 80)) as stream:
            yield from stream.sendall(request.encode("ascii"))
            fields = yield from read_head(stream)
            coding, size = fields.get("transfer-encoding"), fields.get("content-length")
            if coding is not None:
                if coding.lower() != "chunked":
                    raise ValueError(f"comes as {coding!r}")
                while (left := (yield from read_chunk_size(stream))) > 0:
                    yield from self.copy(stream, file, left)
                    if (yield from stream.readline()).strip():
                        raise ValueError("has a chunk that is longer than it says")
            elif size is not None:
                sizes = set(
                    re.split(r"[ \t]*,[ \t]*", size)
                )  # it may be said twice (RFC 9110, 8.6)
                if len(sizes) > 1 or not re.fullmatch("[0-9]{1,18}", size := sizes.pop()):
                    raise ValueError(f"has no size in {size!r}")
                yield from self.copy(stream, file, int(size))
            else:
                yield from self.copy(stream, file, math.inf)

    def copy(self, stream: Stream, file: BinaryIO, size: float) -> Coro[None]:
        """Write down so many bytes; if it is not known how many, all there are."""
        if size < math.inf and self.size + size > self.most:
            raise ValueError(f"has more than {self.most} bytes")
        while size:
            data = yield from stream.recv(int(min(size, CHUNK)))
            if not data:
                if size == math.inf:
                    return
                raise EOFError(f"broke off after {self.size} bytes")
            self.size += len(data)
            if self.size > self.most:
                raise ValueError(f"has more than {self.most} bytes")
            file.write(data)
            size -= len(data)


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name if the block ends well, and else is gone."""
    number, part = tempfile.mkstemp(".part", ".", path.parent)
    try:
        with open(number, "wb") as file:
            os.fchmod(number, 0o666 & ~UMASK)  # as any other new file; so far it was ours alone
            yield file
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def shown(text: str) -> str:
    """Return a text in which nothing plays tricks on a terminal."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def read_head(stream: Stream) -> Coro[dict[str, str]]:
    """Return the header fields of the answer; ValueError if it is not the file."""
    status = 100
    while status // 100 == 1:  # preliminary
        head = (yield from stream.readuntil(b"\r\n\r\n", b"\n\n")).decode("latin-1")
        first, *lines = head.split("\n")
        status = int(m[1]) if (m := re.match(r"HTTP/1\.[01] (\d{3})\b", first)) else 0
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    if status != 200:
        where = f", it is at {fields['location']!r}" if "location" in fields else ""
        raise ValueError(
            f"answers {first.strip()!r}{where}" if first else "closes without an answer"
        )
    return fields


def read_chunk_size(stream: Stream) -> Coro[int]:
    line = yield from stream.readline()
    if not (found := re.match(rb"([0-9a-fA-F]{1,15})[ \t]*[;\r\n]", line)):
        raise EOFError("broke off" if b"\n" not in line else f"has no chunk size in {line[:30]!r}")
    return int(found[1], 16)


def download(files: list[Download], at_once: int) -> Coro[None]:
    """Fetch all files, a few at a time."""

    def line() -> str:
        ended = sum(file.state != "" for file in files)
        return f"{ended} of {len(files)} files, {sum(file.size for file in files)} bytes"

    spawn(show, line, daemon=True)
    yield from map_concurrent(Download.fetch, files, limit=at_once)


def http_url(text: str) -> SplitResult:
    """Return a URL in its parts; the `type=` of an option."""
    url = urlsplit(text)
    if url.scheme != "http" or not url.hostname or url.port == 0:
        raise argparse.ArgumentTypeError(f"{shown(text)}: give an address that begins with http://")
    return url


def main(options: argparse.Namespace) -> None:
    files = [Download(url, options) for url in options.url]
    for path in {file.path for file in files}:
        if sum(file.path == path for file in files) > 1:
            sys.exit(f"{path}: several of these have this name")
    run(download, files, options.at_once)
    sys.exit(any(file.state != "done" for file in files))


if __name__ == "__main__":
    arguments: dict[str, dict[str, Any]] = {
        "url": {"nargs": "+", "type": http_url},
        "--into": {"default": ".", "metavar": "FOLDER", "help": "default: here"},
        "--at-once": {"default": 4, "type": at_least(1, 100), "help": "default: %(default)s"},
        "--bytes": {"default": 10**9, "type": at_least(0, 10**15), "help": "default: %(default)s"},
        "--seconds": {"default": 600.0, "type": at_least(0.0, 1e6), "help": "default: %(default)s"},
    }
    start(main, __doc__, arguments=arguments)
