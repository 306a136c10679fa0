"""Many kinds of abuse at once against one server, with a good client that was there before.

    $ python3 -m tests.net.abuse --seconds 120

Three processes: a server of TCP, TLS and UDP, those who abuse it, and the good client. They slow
down reading and writing to almost nothing, ask for new keys of TLS and never read, begin handshakes
and leave, forge senders of datagrams, come in floods from one address, and send what is logged.

Printed is, as one line of JSON, how long the good client waited for an answer, how long the turns
of the server were by the clock of its processor, how much memory it took at a third of the time and
at the end, how many lines it logged, and what it counted. The first of these also tells how busy
the machine is with other things; the second is what the server itself makes everybody wait.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import corolib
from corolib import Coro, Scheduler, Sleep, Stream, TaskGroup, now, run, timeout
from tests.helpers.certificates import PEM
from tests.helpers.openssl import Peer
from tests.helpers.sockets import can_forge, forge

HERE = "127.0.0.1"
AT_ONCE = 20  # clients of each kind of abuse
SHARE = 100  # connections that one address may have

# The server ---------------------------------------------------------------------------------------


def answer(stream: Stream) -> Coro[None]:
    """Send each line back; of `get 1000` so many bytes instead."""
    while (yield from stream.more()):
        with timeout(60):
            line = yield from stream.readline()
        if line.startswith(b"get "):
            yield from stream.sendall(bytes(int(line[4:])))
        else:
            yield from stream.sendall(line)


def memory() -> int:
    """Return the bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Measured(Scheduler):
    """Notes what each turn takes of the processor, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[float] = []
        self._polled = time.thread_time()

    def poll(self, timeout: float | None, deadline: float) -> None:
        self.turns.append(time.thread_time() - self._polled)
        super().poll(timeout, deadline)
        self._polled = time.thread_time()


def serve(folder: Path) -> Coro[None]:
    """Serve until the control connection is closed."""
    (folder / "cert.pem").write_text(PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem")
    limits: Any = {"min_rate": 1000, "max_per_address": SHARE, "max_connections": 2000}
    plain = corolib.listen_tcp(HERE, 0).serve(answer, **limits)
    tls = corolib.listen_tcp(HERE, 0).serve(answer, tls=context, **limits)
    with (yield from corolib.open_udp(local=(HERE, 0))) as sock:
        udp = sock.serve(lambda data, sender: data)

        def control(stream: Stream) -> Coro[None]:
            ports = [server.listener.addresses[0][1] for server in (plain, tls)]
            yield from stream.sendall(json.dumps([*ports, sock.local[1]]).encode() + b"\n")
            while (yield from stream.readline()):
                counts = [plain.stats(), tls.stats(), udp.stats()]
                scheduler = corolib.current_scheduler()
                assert isinstance(scheduler, Measured)
                turns, scheduler.turns = sorted(scheduler.turns), []
                said = {"memory": memory(), "counts": counts, "turn": turns[len(turns) * 99 // 100]}
                yield from stream.sendall(json.dumps(said).encode() + b"\n")
            done.set()

        done = corolib.Event()
        corolib.listen_unix(folder / "control").serve(control)
        print("ready", flush=True)
        yield from done.wait()
        corolib.current_task().cancel()
        yield


# The abuse ----------------------------------------------------------------------------------------


def source(kind: int, number: int) -> str:
    return f"127.0.{kind}.{number + 1}"


def connect(port: int, address: str, buffer: int | None = None) -> socket.socket:
    sock = socket.socket()
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.bind((address, 0))
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        sock.connect((HERE, port))
    return sock


def again(attack: Callable[..., Coro[None]], *args: Any) -> Coro[None]:
    """Whoever is cut comes again."""
    while True:
        with contextlib.suppress(OSError, ssl.SSLError, AssertionError):
            yield from attack(*args)
        yield Sleep(0.1)


def read_slowly(port: int, tls: int, number: int) -> Coro[None]:
    with connect(port, source(1, number), 4096) as sock:
        yield corolib.WriteWait(sock)
        sock.send(b"get 10000000\n")
        while True:
            yield Sleep(1)
            with contextlib.suppress(BlockingIOError):
                if not sock.recv(100):
                    return


def write_slowly(port: int, tls: int, number: int) -> Coro[None]:
    with connect(port, source(2, number)) as sock:
        while True:
            yield corolib.WriteWait(sock)
            sock.send(b"x")
            yield Sleep(1)


def ask_for_new_keys(port: int, tls: int, number: int) -> Coro[None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connect(tls, source(3, number)) as sock:
        yield corolib.WriteWait(sock)
        peer = Peer(sock, context)
        yield from peer.shake_hands()
        while True:
            peer.ask_for_new_keys(20)
            yield from peer.flush()
            yield Sleep(0.1)


def begin_a_handshake(port: int, tls: int, number: int) -> Coro[None]:
    with connect(tls, source(4, number)) as sock:
        yield corolib.WriteWait(sock)
        sock.send(b"\x16\x03\x01\x02\x00\x01")
        yield Sleep(0.5 if number % 2 else 30)


def flood(port: int, tls: int, number: int) -> Coro[None]:
    """All from one address: some hundred a second."""
    socks = []
    try:
        for _ in range(20):
            socks.append(connect(port, source(5, 0)))
            yield Sleep(0.1)
    finally:
        for sock in socks:
            sock.close()


def be_logged(port: int, tls: int, number: int) -> Coro[None]:
    where, data = [
        (port, b"x" * 70_000),  # a line that is too long
        (tls, b"GET / HTTP/1.1\r\n\x1b[31m\r\n"),
        (port, b"get \x1b]0;forged\r\n"),  # this fails in the handler
        (port, b"get -1\n"),
    ][number % 4]
    with connect(where, source(6, number)) as sock:
        yield corolib.WriteWait(sock)
        sock.send(data)
        yield Sleep(0.2)


ATTACKS = [read_slowly, write_slowly, ask_for_new_keys, begin_a_handshake, flood, be_logged]


def spoof(udp: int) -> Coro[None]:
    """From addresses that are not ours, and from the port of the server itself."""
    number = 0
    while can_forge():
        for _ in range(20):
            number += 1
            sender = (f"127.1.{number % 250}.1", 7 if number % 2 else udp)
            forge(b"x" * 100, sender, (HERE, udp))
        yield Sleep(0.05)


def abuse(ports: list[int]) -> Coro[None]:
    plain, tls, udp = ports
    with TaskGroup() as group:
        for attack in ATTACKS:
            for number in range(AT_ONCE):
                group.spawn(again, attack, plain, tls, number)
        group.spawn(spoof, udp)
        yield from group


# The good client ----------------------------------------------------------------------------------


def ask(stream: Stream) -> Coro[float]:
    """Return how long it takes to get an answer."""
    began = now()
    with timeout(30):
        yield from stream.sendall(b"hello\n")
        assert (yield from stream.readline()) == b"hello\n"
    return now() - began


def be_good(
    ports: list[int], waited: list[float], begin: Callable[[], object], over: corolib.Event
) -> Coro[None]:
    """Connect first; then ask all the time, and now and then on a new connection too."""
    with (yield from corolib.open_tcp(HERE, ports[0])) as stream:
        yield from ask(stream)
        begin()
        while not over.is_set():
            for _ in range(20):
                waited.append((yield from ask(stream)))
                yield Sleep(0.02)
            with (yield from corolib.open_tcp(HERE, ports[0])) as other:
                waited.append((yield from ask(other)))


def all_were_heard(plain: dict[str, int], tls: dict[str, int], datagrams: dict[str, int]) -> bool:
    """Return whether those who abuse it have come in all three ways."""
    return bool(plain["failed"] and tls["accepted"] and (datagrams["withheld"] or not can_forge()))


@contextlib.contextmanager
def process(*args: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.net.abuse", *map(str, args)]
    with subprocess.Popen(command, text=True, **options) as child:
        try:
            yield child
        finally:
            child.kill()


def measure(seconds: float) -> dict[str, Any]:
    """Do it all, and return what was found."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context(open(folder / "log", "w"))
        options: Any = {"stdout": subprocess.PIPE, "stderr": log}
        server = stack.enter_context(process("--serve", folder, **options))
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n", (folder / "log").read_text()
        control = stack.enter_context(socket.socket(socket.AF_UNIX))
        control.connect(str(folder / "control"))
        lines = stack.enter_context(control.makefile("rw"))
        ports = json.loads(lines.readline())

        def look() -> dict[str, Any]:
            lines.write("\n")
            lines.flush()
            found: dict[str, Any] = json.loads(lines.readline())
            return found

        def begin() -> None:
            stack.enter_context(process("--abuse", json.dumps(ports)))

        def watch() -> Coro[list[Any]]:
            waited: list[float] = []
            over = corolib.Event()
            task = corolib.spawn(be_good, ports, waited, begin, over)
            yield Sleep(seconds / 3)
            early = yield from corolib.to_thread(look)
            yield Sleep(seconds * 2 / 3)
            late = yield from corolib.to_thread(look)
            while not all_were_heard(*late["counts"]):  # on a busy machine they begin late
                yield Sleep(0.1)
                late = yield from corolib.to_thread(look)
            over.set()
            yield from task
            return [early, late, sorted(waited)]

        early, late, waited = run(watch)
        log.flush()
        written = (folder / "log").read_text().splitlines()
    return {
        "asked": len(waited),
        "median": waited[len(waited) // 2],
        "p99": waited[len(waited) * 99 // 100],
        "longest": waited[-1],
        "turn": late["turn"],
        "memory": [early["memory"], late["memory"]],
        "log": len(written),
        "raw": sum(not line.isprintable() for line in written),
        "counts": late["counts"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--abuse", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 10_000), hard))
    if options.serve:
        logging.basicConfig()
        with contextlib.suppress(corolib.TaskCancelled):
            Measured().run(serve, options.serve)
    elif options.abuse:
        run(abuse, options.abuse)
    else:
        print(json.dumps(measure(options.seconds)))


if __name__ == "__main__":
    main()
