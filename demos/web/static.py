"""A static file server: HTTP/1.1 with ranges, conditional requests and limits, on h11.

    $ python3 -m demos.web.static FOLDER
    files on 127.0.0.1 port 7080; try: curl -i http://127.0.0.1:7080/
    $ curl -r 0-99 http://127.0.0.1:7080/some/file

h11 knows the protocol and does no I/O: bytes go in, and come out. This file is the I/O. What is
answered stands in `answers.py`, which does not wait.

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
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Any

from corolib import Coro, Listener, Stream, listen_tcp, move_on_after, race, run, timeout
from demos.extra import extra
from demos.start import start
from demos.web.answers import Answer, Part, answer, problem

with extra():
    import h11

CHUNK = 8192  # bytes that are read at once
HEAD = 16384  # bytes of a request's head, up to a chunk more or less: 431
BODY = 65536  # bytes of a request's body, which nobody wants: 413
PATIENCE = 10  # seconds for a request, from its first byte to its last: 408
IDLE = 30  # seconds in which nothing moves
SLOWEST = 5000  # bytes a second that a client has to take
CLIENTS = 400  # with a file each they stay below the 1024 that a process may have open


def serve_client(root: bytes, stream: Stream) -> Coro[None]:
    """Answer one request after the other, until either side wants no more."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
    while (yield from is_another(stream, http)):
        request = None
        try:
            with timeout(PATIENCE):
                request = yield from next_event(stream, http)
                if not isinstance(request, h11.Request):
                    return  # it has left
                yield from drop_body(stream, http)
            found = answer(root, request)
        except TimeoutError:
            found = problem(408)
        except h11.RemoteProtocolError as exc:
            found = problem(exc.error_status_hint)
        try:
            yield from send(stream, http, found, request is not None and request.method == b"HEAD")
        finally:
            found.close()
        if not http.our_state is http.their_state is h11.DONE:
            return
        http.start_next_cycle()


def is_another(stream: Stream, http: h11.Connection) -> Coro[bool]:
    """Wait until the client begins a request; return False if it does not, or the server ends."""
    if http.trailing_data[0]:  # it has not waited for the last answer
        return True
    index, more = yield from race(stream.more(), stream.server.stopping.wait())
    return index == 0 and more


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


def send(stream: Stream, http: h11.Connection, found: Answer, head_only: bool) -> Coro[None]:
    """Send an answer. If that fails h11 is told, and there will be no further request."""
    headers = [("Date", formatdate(usegmt=True)), *found.headers]
    unread = http.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR)
    if stream.server.stopping.is_set or unread:
        headers.append(("Connection", "close"))
    reason = HTTPStatus(found.status).phrase
    events: list[h11.Event] = [
        h11.Response(status_code=found.status, headers=headers, reason=reason),
        h11.EndOfMessage(),
    ]
    if found.body and not head_only:
        events.insert(1, h11.Data(found.body))  # type: ignore[arg-type] # it may be a `Part`
    pieces: list[Any] = []
    for event in events:
        pieces += http.send_with_data_passthrough(event) or ()
    with move_on_after(PATIENCE + sum(map(len, pieces)) / SLOWEST) as scope:
        yield from stream.sendall([piece for piece in pieces if isinstance(piece, bytes)])
        for part in (piece for piece in pieces if isinstance(piece, Part)):
            sent = yield from stream.sendfile(part.file, part.offset, part.count)
            if sent < part.count:  # the file has become shorter
                http.send_failed()
    if scope.expired:
        http.send_failed()


def serve(root: bytes, listener: Listener) -> Coro[None]:
    handler = partial(serve_client, root)
    yield from listener.serve(handler, max_connections=CLIENTS, idle_timeout=IDLE)


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
