"""A static file server: HTTP/1.1 with ranges, conditional requests and limits, on h11.

    $ python3 -m demos.web.static FOLDER
    files on 127.0.0.1 port 7080; try: curl -i http://127.0.0.1:7080/
    $ curl -r 0-99 http://127.0.0.1:7080/some/file

h11 reads requests and does no I/O: bytes go in, and what they mean comes out. This file is the I/O.
What is answered stands in `answers.py`, which does not wait.

What to look at: a connection is one loop, from request to request, although it may stay open for
minutes. A file goes from the disk to the network by `sendfile`, past this program. (A slow disk
stops all clients, for there is nothing to wait for: the system calls a disk always ready.) And what
a client can make the server keep, or wait for, is bounded: see the limits.

Ctrl-C and SIGTERM let the answers that are under way come to their end.
"""

from __future__ import annotations

import argparse
import mimetypes
import os
import re
import resource
import socket
import sys
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Any

from corolib import Coro, Listener, Stream, listen_tcp, move_on_after, race, run, timeout
from demos.extra import extra
from demos.ports import announce
from demos.start import start
from demos.web.answers import Answer, Part, answer, problem

with extra():
    import h11

CHUNK = 8192  # bytes that are read at once
HEAD = 16384  # bytes of a request's head, up to a chunk more or less: 431
BODY = 65536  # bytes of a request's body, which nobody wants: 413
PATIENCE = 10  # seconds for a request, from its first byte to its last: 408
IDLE = 30  # seconds in which nothing moves
WAITING = 1  # the same while others wait for a place, and over which they have to be fast
AHEAD = 1 << 17  # bytes that the system has ready for the network
SLOWEST = 20_000  # bytes a second that a client has to take
FOLDED = re.compile(rb"\n[ \t]")  # a header that goes on in the next line
UNREAD = {h11.IDLE, h11.SEND_BODY, h11.ERROR}  # the states in which a request has not ended
CLIENTS = 400  # each takes two files, a connection and what is sent: see places()
OTHERS = 20  # files that the program has open besides, and then some


def serve_client(root: bytes, stream: Stream) -> Coro[None]:
    """Answer one request after the other, until either side wants no more."""
    keep_little(stream)
    rest = b""  # what has come of the next request: a client need not wait for its answers
    while rest or (yield from is_another(stream)):
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
        request = None
        try:
            with timeout(PATIENCE):
                request = yield from read_head(stream, http, rest)
                if request is None:
                    return  # it has left
                yield from drop_body(stream, http)
            found = answer(root, request)
        except TimeoutError:
            found = problem(408)
        except h11.RemoteProtocolError as exc:
            found = problem(exc.error_status_hint)
        kept = (
            request is not None and may_stay(http, request) and not stream.server.stopping.is_set()
        )
        try:
            kept &= yield from send(stream, found, kept, request)
        finally:
            found.close()
        if not kept:
            return
        rest = http.trailing_data[0].lstrip(b"\r\n")
        yield  # a thousand requests may have come at once: the others have their turn


def keep_little(stream: Stream) -> None:
    """Have the system take of a file only what the network needs next. By default it takes more
    than a megabyte, which costs memory and time for a client that reads nothing of it.
    """
    if sys.platform == "linux" and stream.socket.family != socket.AF_UNIX:
        stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, AHEAD)


def is_another(stream: Stream) -> Coro[bool]:
    """Wait until the client begins a request; return False if it does not, or the server ends."""
    index, more = yield from race(stream.more(), stream.server.stopping.wait())
    return index == 0 and more


def read_head(stream: Stream, http: h11.Connection, data: bytes) -> Coro[h11.Request | None]:
    """Wait for a request, of which `data` has come already; return None if there is none.

    Empty lines before it are ignored (RFC 9112, section 2.2), headers that go on in a second line
    are refused (5.2), and so is a length beside a transfer coding (6.1): another server on the way
    may have taken either of them for the end.
    """
    head = b""
    while not data or (event := feed(http, data)) is h11.NEED_DATA:
        head += data
        data = yield from stream.recv(CHUNK)
        if not data:
            http.receive_data(b"")
            event = http.next_event()
            break
        if not head:
            data = data.lstrip(b"\r\n")
    if not isinstance(event, h11.Request):
        return None
    head += data
    if FOLDED.search(head, 0, len(head) - len(http.trailing_data[0])):
        raise h11.RemoteProtocolError("a header has two lines")
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
        raise h11.RemoteProtocolError("the end of the body is said twice")
    return event


def feed(http: h11.Connection, data: bytes) -> Any:
    http.receive_data(data)
    return http.next_event()


def next_event(stream: Stream, http: h11.Connection) -> Coro[Any]:
    """Wait for the next part of what the client says."""
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data((yield from stream.recv(CHUNK)))
    return event


def drop_body(stream: Stream, http: h11.Connection) -> Coro[None]:
    """Read a request to its end; but a client that asks whether to send a body need not."""
    size = 0
    while not http.they_are_waiting_for_100_continue:
        event = yield from next_event(stream, http)
        if not isinstance(event, h11.Data):
            return
        size += len(event.data)
        if size > BODY:
            raise h11.RemoteProtocolError("the body is too long", error_status_hint=413)
        yield  # what was read at once may be a thousand parts: the others have their turn


def may_stay(http: h11.Connection, request: h11.Request) -> bool:
    """Tell whether another request may follow: this one has ended, and the client wants it so."""
    said = b",".join(value for name, value in request.headers if name == b"connection")
    options = {option.strip() for option in said.lower().split(b",")}
    wanted = b"keep-alive" in options or request.http_version != b"1.0"
    return wanted and b"close" not in options and http.their_state not in UNREAD


def send(stream: Stream, found: Answer, kept: bool, request: h11.Request | None) -> Coro[bool]:
    """Send an answer; return whether all of it has left."""
    headers = [("Date", formatdate(usegmt=True)), *found.headers]
    headers.append(("Connection", "keep-alive" if kept else "close"))
    lines = [f"HTTP/1.1 {found.status} {HTTPStatus(found.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    body = b"" if request is not None and request.method == b"HEAD" else found.body
    with move_on_after(PATIENCE + len(body) / SLOWEST):
        if not isinstance(body, Part):
            yield from stream.sendall([head, body])
            return True
        yield from stream.sendall(head)
        sent = yield from stream.sendfile(body.file, body.offset, body.count)
        return sent == body.count  # or the file has become shorter
    return False


def places() -> int:
    """Return how many clients can be answered at once with the files that this process may open."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return CLIENTS if files < 0 else max(1, min(CLIENTS, (files - OTHERS) // 2))


def serve(root: bytes, listener: Listener) -> Coro[None]:
    yield from listener.serve(
        partial(serve_client, root),
        max_connections=places(),
        idle_timeout=IDLE,
        evict_idle=WAITING,
        min_rate=SLOWEST,
        accept=announce,
    )


def folder(name: str) -> bytes:
    if not os.path.isdir(name):
        raise argparse.ArgumentTypeError(f"{name} is no folder")
    return os.path.realpath(os.fsencode(name))


def main(options: argparse.Namespace) -> None:
    mimetypes.init()  # reads files of the system: now, and not at the first request
    with listen_tcp(options.host, options.port) as listener:
        host, port = listener.addresses[0][:2]
        address = f"[{host}]" if ":" in host else host
        print(f"files on {host} port {port}; try: curl -i http://{address}:{port}/", flush=True)
        run(serve, options.folder, listener)


if __name__ == "__main__":
    what = {"nargs": "?", "type": folder, "default": ".", "help": "what to serve; default: here"}
    start(main, __doc__, port=7080, arguments={"folder": what})
