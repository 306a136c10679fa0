"""What is given bytes of strangers: the parsers of the library, and those of the demos.

Each target says in a word what the bytes came to, and raises where something is wrong: an exception
that nobody expects, more memory or output than the limits allow, or an outcome that depends on how
the bytes were cut into segments.
"""

import contextlib
import io
import logging
import math
import os
import random
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from copy import copy
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from zlib import crc32

import pytest

from corolib import (
    Coro,
    Event,
    IncompleteRead,
    LimitExceeded,
    Sleep,
    Stream,
    gather,
    inherited_listeners,
    move_on_after,
    notify_systemd,
    run,
    spawn,
    timeout,
)
from corolib.net.proxy_header import ProxyHeaderError, missing, read_header
from corolib.testing import virtual_time
from corolib.trace import looking
from corolib.trace.command import convert
from demos.keyvalue.__main__ import TRANSACTION, Client, Service
from demos.keyvalue.protocol import ELEMENTS, REQUEST, Refused, Requests
from demos.keyvalue.store import SortedSet, Store, cost
from demos.web import static, websocket
from tests.fuzz.inputs import Target
from tests.helpers.inside import forget_handed_over

MAX_LINE = 100  # of the streams that are tried, so that short inputs reach it


def pieces(data: bytes, salt: int = 0) -> Iterator[bytes]:
    """Cut data into segments, always in the same way."""
    rng = random.Random(crc32(data) + salt)
    most = rng.choice((1, 3, 20, 10_000))
    at = 0
    while at < len(data):
        size = rng.randint(1, most)
        yield data[at : at + size]
        at += size


def served(handler: Callable[[Stream], Coro[object]], segments: list[bytes]) -> tuple[Any, bytes]:
    """Let a handler have what a client sends; return what it returned or raised, and its answer."""
    ours, theirs = socket.socketpair()
    with theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)

        def client() -> Coro[bytes]:
            peer = Stream(theirs)
            answer = b""
            with contextlib.suppress(ConnectionError):
                for each in segments:
                    yield from peer.sendall(each)
                    yield
                yield from peer.send_eof()
            with contextlib.suppress(ConnectionError):
                while data := (yield from peer.recv(65536)):
                    answer += data
            return answer

        def server() -> Coro[object]:
            with Stream(ours) as stream:
                stream.server = SimpleNamespace(stopping=Event())
                try:
                    return (yield from handler(stream))
                except Exception as exc:
                    return exc

        def both() -> Coro[tuple[object, bytes]]:
            return (yield from gather(server(), client()))

        options: Any = virtual_time()
        outcome, answer = run(both, **options)
    return outcome, answer


def lines(data: bytes) -> str:
    """Reads of a stream by lines, separators and counts: as if all had come at once."""

    def read(stream: Stream) -> Coro[list[Any]]:
        stream.max_line = MAX_LINE
        rng = random.Random(crc32(data))
        got: list[Any] = []
        while True:
            try:
                match rng.randrange(4):
                    case 0:
                        part = yield from stream.readline()
                    case 1:
                        part = yield from stream.readuntil(b"\r\n\r\n", b"\n\n", b"\0")
                    case 2:
                        part = yield from stream.readexactly(rng.randrange(1, 20))
                    case _:
                        # How much comes depends on the segments.
                        part = yield from stream.readexactly(1)
            except LimitExceeded:
                got.append("too long")
                part = yield from stream.readexactly(7)
            except IncompleteRead as exc:
                return [*got, "broken off", exc.partial]
            if not part:
                return [*got, "end"]
            got.append(part)

    results = [served(read, list(pieces(data, salt)))[0] for salt in (0, 1)]
    results.append(served(read, [data])[0])
    assert results[0] == results[1] == results[2], results
    found = results[0]
    assert isinstance(found, list), found
    whole = b"".join(part for part in found if isinstance(part, bytes))
    assert whole == data, whole
    kinds = {part if isinstance(part, str) else "part" for part in found}
    return ", ".join(sorted(kinds)) + f", {min(len(found), 20)}"


def streams(data: bytes) -> str:
    """What the two sides of a connection do, with cancels at any time: no byte is lost."""
    doing, reading = data[: len(data) // 2], data[len(data) // 2 :]
    sent, got, came_to = bytearray(), bytearray(), set[str]()
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)

    def write() -> Coro[None]:
        stream = Stream(theirs)
        for op in doing:
            if op & 7 == 7:
                yield Sleep(op >> 3)
            else:
                part = b"%d" % len(sent) * (op >> 3) + (b"", b"\n", b"\r\n\r\n", b"\0")[op & 3]
                sent.extend(part)
                yield from stream.sendall(part)
        yield from stream.send_eof()

    def read() -> Coro[None]:
        stream = Stream(ours)
        stream.max_line = MAX_LINE
        for op in reading:
            with move_on_after((op >> 3) / 4) as scope:
                got.extend((yield from read_once(stream, op & 7, 1 + (op >> 3))))
            came_to.add("late" if scope.expired else "read")
        while part := (yield from stream.recv(65536)):
            got.extend(part)

    def read_once(stream: Stream, how: int, count: int) -> Coro[bytes]:
        try:
            match how:
                case 0:
                    return (yield from stream.readline())
                case 1:
                    return (yield from stream.readuntil(b"\r\n\r\n", b"\0"))
                case 2:
                    return (yield from stream.readexactly(count))
                case 3:
                    room = bytearray(count)
                    return bytes(room[: (yield from stream.recv_into(room))])
                case 4:
                    yield from stream.more()
                    return b""
                case 5:
                    yield Sleep(count)
                    return b""
                case _:
                    return (yield from stream.recv(count))
        except LimitExceeded:
            came_to.add("too long")
            return (yield from stream.recv(count))
        except IncompleteRead as exc:
            came_to.add("broken off")
            return exc.partial

    with ours, theirs:
        options: Any = virtual_time()
        run(lambda: gather(write(), read()), **options)
    assert got == sent, (got, sent)
    return ", ".join(sorted(came_to)) or "nothing"


def resp(data: bytes) -> str:
    """Requests of the key-value store, as arrays and as lines."""

    def requests(segments: list[bytes]) -> tuple[list[list[bytes]], str]:
        parser, found, end = Requests(), list[list[bytes]](), "open"
        try:
            for each in segments:
                found += parser.feed(each)
                assert parser.size <= REQUEST + len(each)
        except Refused as exc:
            end = str(exc)
        return found, end

    results = [requests(list(pieces(data, salt))) for salt in (0, 1)]
    results.append(requests([data]))
    assert results[0] == results[1] == results[2], results
    found, end = results[0]
    assert all(0 < len(request) <= max(ELEMENTS, len(data)) for request in found)
    return f"{min(len(found), 5)} requests, {end}"


def http(data: bytes) -> str:
    """Requests of the web server: answers, and no way out of its folder."""
    with tempfile.TemporaryDirectory() as outside:
        root = Path(outside, "root")
        root.mkdir()
        (root / "a.txt").write_bytes(b"inside")
        Path(outside, "secret").write_bytes(b"OUTSIDE")
        serve = lambda stream: static.serve_client(os.fsencode(root), stream)  # noqa: E731
        outcomes = [served(serve, list(pieces(data, salt))) for salt in (0, 1)]
    words = []
    for outcome, answer in outcomes:
        assert outcome is None or isinstance(outcome, ConnectionError), outcome
        assert b"OUTSIDE" not in answer
        assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:100]
        words.append(b" ".join(re.findall(rb"HTTP/1\.1 (\d{3})", answer)[:4]).decode())
    assert words[0] == words[1] or "Connection" in repr(outcomes), words
    return words[0] or "no answer"


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frames(data: bytes) -> str:
    """Frames of a WebSocket, after its handshake."""
    return handshake(HANDSHAKE + data)


def handshake(data: bytes) -> str:
    """All that may come to the WebSocket server."""
    outcome, answer = served(websocket.serve_client, list(pieces(data)))
    expected = (ConnectionError, IncompleteRead)
    assert outcome is None or isinstance(outcome, expected), outcome
    assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:100]
    head, _, rest = answer.partition(b"\r\n\r\n")
    codes = re.findall(rb"\x88[\x02-\x7d](..)", rest, re.DOTALL)
    closed = int.from_bytes(codes[-1], "big") if codes else 0
    return f"{head[9:12].decode()}, closed with {closed}, {type(outcome).__name__}"


def variables(data: bytes) -> str:
    """What the environment says of sockets that were handed over, and of the service manager."""
    count, names, address = [*data.decode("latin-1").replace("\0", "").split("\n"), "", ""][:3]
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": names}
    outcomes = []
    with mock.patch.dict(os.environ, {**environ, "NOTIFY_SOCKET": address}):
        for call in (inherited_listeners, lambda: notify_systemd("READY=1")):
            try:
                call()
                outcomes.append("done")
            except (ValueError, OSError) as exc:
                outcomes.append(f"{type(exc).__name__}: {exc}")
    forget_handed_over()
    assert all(len(each) < 1000 for each in outcomes)
    return ", ".join(each.partition(":")[0] for each in outcomes)


def answers(data: bytes) -> str:
    """What a web server answers to the downloader."""
    from demos import download

    def fetch(stream: Stream) -> Coro[tuple[str, bytes, str]]:
        each: Any = object.__new__(download.Download)
        each.size, each.most = 0, 10_000
        each.url = SimpleNamespace(path="/", query="", netloc="x", hostname="x", port=80)
        file = io.BytesIO()

        def open_tcp(*_: object) -> Coro[Stream]:
            yield
            return stream

        with mock.patch.object(download, "open_tcp", open_tcp):
            try:
                yield from each.get(file)
            except download.BAD as exc:
                return type(exc).__name__, file.getvalue(), download.shown(str(exc))
        assert each.size == len(file.getvalue()) <= each.most
        return "done", file.getvalue(), ""

    results = [served(fetch, list(pieces(data, salt)))[0] for salt in (0, 1)]
    for result in results:
        assert isinstance(result, tuple), result
        assert result[2].isprintable()
    assert results[0][0] == results[1][0], results
    if results[0][0] == "done":
        assert results[0] == results[1]
    return f"{results[0][0]}, {int(math.log2(len(results[0][1]) + 1))}"


def proxies(data: bytes) -> str:
    """The header that a balancer sends before anything else, of both versions."""

    def read(stream: Stream) -> Coro[tuple[Any, bytes]]:
        peer = yield from read_header(stream, 10, {})
        rest = b""
        while part := (yield from stream.recv(65536)):
            rest += part
        return peer, rest

    results = [served(read, list(pieces(data, salt)))[0] for salt in (0, 1)]
    results.append(served(read, [data] if data else [])[0])
    if any(isinstance(each, ProxyHeaderError) for each in results):
        assert all(isinstance(each, ProxyHeaderError) for each in results), results
        assert all(str(each).isprintable() and len(str(each)) < 300 for each in results)
        return "refused"
    assert results[0] == results[1] == results[2], results
    peer, rest = results[0]
    if peer is None:
        assert not data
        return "nothing"
    header = data[: len(data) - len(rest)]
    assert data == header + rest
    assert missing(header) == 0
    assert all(1 <= missing(header[:at]) <= len(header) - at for at in range(len(header)))
    if not isinstance(peer, tuple):
        return "its own"
    assert ip_address(peer[0]).version == (4 if len(peer) == 2 else 6)
    assert 0 <= peer[1] <= 0xFFFF
    return f"version {2 - header.startswith(b'PROXY')}, {len(peer)}, {min(len(rest), 1)}"


def commands(data: bytes) -> str:
    """Requests of two clients of the key-value store, a line each; `@` lets time pass.

    What is refused has changed nothing, and what is counted is there.
    """
    memory = 8000
    service: Any = object.__new__(Service)
    Store.__init__(service, memory)
    service.pending, service.begun, service.settings = 0, 0, {}
    service.server = SimpleNamespace(stats=lambda: {"open": 2, "accepted": 2})
    clients = [Client(1), Client(2)]
    came_to = set[str]()

    def check() -> None:
        assert service.used == sum(cost(*each) for each in service.values.items()) <= memory
        assert service.deadlines.keys() <= service.values.keys()
        assert all(value or value == b"" for value in service.values.values())
        assert service.pending == sum(client.kept for client in clients)
        for value in service.values.values():
            if isinstance(value, SortedSet):
                assert value.order == sorted((score, each) for each, score in value.scores.items())

    def view() -> dict[bytes, Any]:
        return {
            key: value.order.copy() if isinstance(value, SortedSet) else copy(value)
            for key, value in service.values.items()
        }

    def feed(client: Client, line: bytes) -> None:
        before, queue = view(), client.queue
        reply = b"".join(service.replies(client, line + b"\r\n"))
        assert reply.endswith(b"\r\n") or not reply
        assert client.size <= REQUEST + TRANSACTION + len(line)
        if reply.startswith(b"-") and reply.count(b"\n") == 1:
            assert view() == before or service.expired
            assert queue is None or client.queue is None or client.broken or client.ended
        came_to.add(re.sub(rb"[^-+:$*%,_].*", b"", reply[:1]).decode() or "other")

    def main() -> Coro[None]:
        for number, line in enumerate(data.split(b"\n")):
            client = clients[line[:1] == b"2"]
            if line.startswith(b"@"):
                yield Sleep(min(len(line), 50) / 10)
                for key in list(service.deadlines):
                    service.find(key)
            elif not client.ended:
                feed(client, line.removeprefix(b"2"))
            check()
            if number % 100 == 99:
                yield

    options: Any = virtual_time()
    run(main, **options)
    kinds = {type(value).__name__ for value in service.values.values()}
    return " ".join(sorted(came_to)) + ", " + " ".join(sorted(kinds))


def replies(data: bytes) -> str:
    """What a server answers to the client of Redis."""
    redis = pytest.importorskip("corolib.interop.redis")
    lost: list[object] = []
    connections: list[Any] = []
    came_to: list[str] = []

    def open_tcp(*_: object, **__: object) -> Coro[Stream]:
        yield
        if connections:
            raise ConnectionRefusedError
        connections.extend(socket.socketpair())
        for sock in connections:
            sock.setblocking(False)
        spawn(server, Stream(connections[1]), daemon=True)
        return Stream(connections[0])

    def server(stream: Stream) -> Coro[None]:
        with contextlib.suppress(ConnectionError):
            yield from stream.recv(65536)
            for piece in pieces(data):
                yield from stream.sendall(piece)
                yield Sleep(0.01)
            yield from stream.send_eof()
            while (yield from stream.recv(65536)):
                pass

    def ask(call: Any) -> Coro[None]:
        try:
            with timeout(60):
                came_to.append(type((yield from call)).__name__)
        except (redis.RedisError, ConnectionError, TimeoutError) as exc:
            came_to.append(type(exc).__name__)

    def main() -> Coro[None]:
        with redis.Redis("x", 1) as client:
            made = client.subscribe("a", "b", backlog=2)
            yield from gather(
                ask(client.call("GET", "a")), ask(made), ask(client.call_all([["A"], ["B"]]))
            )

    with mock.patch.object(redis, "open_tcp", open_tcp):
        options: Any = {**virtual_time(), "on_task_error": lambda task, exc: lost.append(exc)}
        logging.disable()
        try:
            run(main, **options)
        finally:
            logging.disable(logging.NOTSET)
            for sock in connections:
                sock.close()
    assert lost == []
    return ", ".join(came_to)


def traces(data: bytes) -> str:
    """A file that is said to be a trace, and is to become a page or a file for Perfetto."""
    came_to = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.jsonl")
        path.write_bytes(data)
        for suffix in (".html", ".json"):
            to, err = path.with_suffix(suffix), io.StringIO()
            with contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
                convert([str(path), str(to)])
            said = err.getvalue().removesuffix("\n")
            assert said.isprintable(), said
            assert len(said) < 1000
            assert bool(said) != to.exists(), said
            if not said and suffix == ".html":
                page = to.read_text("utf-8")
                assert page.count("</script>") == page.count("<script") <= 2, page[:1000]
            why = re.match(r"[a-z ]*(: \w+)?", said.partition(": ")[2])
            came_to.append(why[0] if said and why else "done")
    return ", ".join(came_to)


def dumps(data: bytes) -> str:
    """What another process is said to answer to `ps`."""
    out = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "1.json").write_bytes(data)
        Path(folder, "1.answer").write_bytes(data)
        told = looking.announced(folder, 1)
        out.append("none" if told is None else "told")
        for as_json in (False, True):
            Path(folder, "1.answer").write_bytes(data)
            try:
                text = looking.shown(looking.answer_at(str(Path(folder, "1.answer"))), as_json)
                if not as_json:
                    assert all(line.isprintable() for line in text.split("\n")), text
                out.append("shown")
            except looking.CannotAsk:
                out.append("refused")
    return ", ".join(out)


TARGETS: dict[str, Target] = {
    "answers": answers,
    "commands": commands,
    "dumps": dumps,
    "frames": frames,
    "handshake": handshake,
    "http": http,
    "lines": lines,
    "proxies": proxies,
    "replies": replies,
    "resp": resp,
    "streams": streams,
    "traces": traces,
    "variables": variables,
}
