"""A cluster: HAProxy in front, Redis behind, and two workers, one of which is killed on a key.

    $ python3 -m demos.cluster
    clients talk to HAProxy at 127.0.0.1 port 7020; workers: a, process 4711; b, process 4712
    k, Enter: kill -9 a worker; t, Enter: have it drain (SIGTERM); q, Enter: end
    a serves 10 clients, b serves 10 clients; 390 answers in a second, the slowest after 0.004 s
    k
    a is killed: 10 clients lost 10 questions; each had its answer after 0.031 s at most
    meanwhile the other 10 clients lost 0, and had each answer after 0.004 s at most
    a is started again, process 4719

Nothing of this is home-made. HAProxy deals the connections out, looks after the workers, and tells
them who the client is (PROXY protocol, which `serve_unix(proxy_from=["unix"])` reads); Redis holds
what the workers share, here a number that grows with each answer. On several machines it is the
same, with addresses in the place of the Unix sockets.

A client asks twenty times a second. What it lost, it asks again on a new connection; that is what
may be seen of a `kill -9`. Of SIGTERM nothing is lost: a worker that is to end takes no more
connections, answers on each one question more, says that it was the last, and then closes.

HAProxy and Redis must be installed: `apt install haproxy redis-server`.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import count
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from corolib import (
    Coro,
    Event,
    Process,
    Sleep,
    Stream,
    every,
    move_on_after,
    now,
    open_process,
    open_stdin,
    open_tcp,
    run,
    serve_unix,
    spawn,
    timeout,
)
from demos.ending import end_by_signal
from demos.extra import extra
from demos.start import at_least, start

with extra("redis"):
    from corolib.interop.redis import Redis

WORKERS = "ab"
PAUSE = 0.05  # seconds between an answer and the next question
AGAIN = 0.01  # seconds until a question that was lost is asked again
CHECK = 0.2  # seconds between two looks of HAProxy's at a worker
ANSWER = 5.0  # seconds that an answer may take
QUESTIONS = 40  # on one connection: then a client makes a new one, and is dealt out anew
DRAINED = 5.0  # seconds until a worker that was to drain is killed
STATUS = 2.0  # seconds between two lines on who serves whom

CONFIG = """
global
    maxconn 2000
defaults
    mode tcp
    timeout connect 200ms
    timeout client 30s
    timeout server 30s
    retries 5
    option redispatch 1
listen cluster
    bind fd@{fd}
    balance leastconn
    server a unix@{folder}/a send-proxy-v2 check inter {check:.0f}ms fall 1 rise 1
    server b unix@{folder}/b send-proxy-v2 check inter {check:.0f}ms fall 1 rise 1
"""


# A worker -----------------------------------------------------------------------------------------


def answer(name: str, redis: Redis, stream: Stream) -> Coro[None]:
    """Answer the questions of one client, until it goes, or the worker is to end."""
    last = False
    while not last and (yield from stream.readline()):
        number = yield from redis.call("INCR", "answers")
        last = stream.server.stopping.is_set()
        words = f"{name} says {number} to port {stream.peer[1]}{', its last' if last else ''}\n"
        yield from stream.sendall(words.encode())


def work(options: argparse.Namespace) -> Coro[None]:
    """Serve, until SIGTERM, and then until each client has been told."""
    with Redis("127.0.0.1", options.redis) as redis:
        handler = partial(answer, options.worker, redis)
        yield from serve_unix(handler, options.worker, proxy_from=["unix"], grace=2)


# The clients --------------------------------------------------------------------------------------


class Client:
    """Who asks, again and again: by whom it is served, what it lost, and how long it waited."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.worker = ""
        self.asked = now()
        self.answers = self.lost = 0
        self.slowest = 0.0
        self.again = False  # whether this question was asked before

    def talk(self) -> Coro[None]:
        """Ask for ever: what got no answer is asked again, on a new connection."""
        while True:
            self.worker = ""  # HAProxy decides
            try:
                with timeout(ANSWER):
                    stream = yield from open_tcp("127.0.0.1", self.port)
                with stream:
                    yield from self.ask(stream)
            except OSError:
                self.lost += not self.again
                self.again = True
                yield Sleep(AGAIN)

    def ask(self, stream: Stream) -> Coro[None]:
        """Ask on one connection, as long as the worker has more answers."""
        for _ in range(QUESTIONS):
            with timeout(ANSWER):
                yield from stream.sendall(b"how many?\n")
                line = yield from stream.readline()
            if not line.endswith(b"\n"):
                raise ConnectionError("the worker is gone")
            words = line.split()
            self.worker = words[0].decode()
            self.answers += 1
            self.again = False
            self.slowest = max(self.slowest, now() - self.asked)
            last = words[-1] == b"last"
            if not last:
                yield Sleep(PAUSE)
            self.asked = now()
            if last:
                return


class Clients:
    """All of them, and what became of them since somebody asked last."""

    def __init__(self, count: int, port: int) -> None:
        self.all = [Client(port) for _ in range(count)]
        self.watched = False  # by somebody else, who counts
        self.since = now()
        for client in self.all:
            spawn(client.talk, daemon=True)

    def of(self, worker: str) -> list[Client]:
        return [client for client in self.all if client.worker == worker]

    def begin(self) -> None:
        """Count from here on."""
        self.since = now()
        for client in self.all:
            client.answers = client.lost = 0
            client.slowest = 0.0

    def follow(self) -> Coro[None]:
        """Say now and then who is served by whom."""
        for tick in every(STATUS):
            yield from tick
            if self.watched:
                continue
            serves = Counter(client.worker for client in self.all)
            each = ", ".join(f"{name} serves {serves[name]} clients" for name in WORKERS)
            answers = sum(client.answers for client in self.all) / (now() - self.since)
            slowest = max(client.slowest for client in self.all)
            say(f"{each}; {answers:.0f} answers in a second, the slowest after {slowest:.3f} s")
            self.begin()


def lost_and_slowest(clients: Iterable[Client]) -> tuple[int, float]:
    clients = list(clients)
    lost = sum(client.lost for client in clients)
    return lost, max((client.slowest for client in clients), default=0.0)


# The cluster --------------------------------------------------------------------------------------


class Cluster:
    """The programs, in a folder of their own."""

    def __init__(self, folder: str, fd: int, redis: int, settle: float) -> None:
        self.folder = folder
        self.settle = settle
        self.fd = fd
        self.redis = redis
        self.workers: dict[str, Process] = {}
        self.serving = {name: Event() for name in WORKERS}

    def start(self) -> Coro[None]:
        """Start Redis, the workers, and HAProxy when they are there."""
        listen = ["--port", str(self.redis), "--bind", "127.0.0.1"]
        yield from self.open("redis-server", *listen, "--save", "", "--logfile", "")
        for name in WORKERS:
            spawn(self.keep_worker, name, daemon=True)
        for name in WORKERS:
            yield from self.serving[name].wait()
        config = CONFIG.format(fd=self.fd, folder=self.folder, check=1000 * CHECK)
        Path(self.folder, "haproxy.cfg").write_text(config)
        yield from self.open("haproxy", "-db", "-f", "haproxy.cfg", fds=[self.fd])

    def open(self, *command: str, fds: Iterable[int] = ()) -> Coro[None]:
        """Start a program that writes what it has to say into the folder."""
        log = Path(self.folder, f"{command[0]}.log")
        with open(log, "w") as file:
            files: dict[str, Any] = {"stdin": DEVNULL, "stdout": file, "stderr": file}
            process = yield from open_process(
                command, cwd=self.folder, pass_fds=fds, group=True, **files
            )
        spawn(self.watch, process, log, daemon=True)

    def watch(self, program: Process, log: Path) -> Coro[None]:
        """Wait for the end of a program without which there is no cluster."""
        with program:
            status = yield from program.wait()
        words = log.read_text("utf-8", "replace").strip().splitlines() or ["it has said nothing"]
        raise SystemExit(f"{log.stem} has ended with status {status}: {words[-1]}")

    def keep_worker(self, name: str) -> Coro[None]:
        """Run a worker, and start it again whenever it has ended."""
        options = ["--worker", name, "--redis", str(self.redis), "--folder", self.folder]
        command = [sys.executable, "-m", "demos.cluster", *options]
        place = Path(self.folder, name)
        for again in count():
            place.unlink(missing_ok=True)  # of one that was killed
            with (yield from open_process(command, stdin=DEVNULL, group=True)) as worker:
                self.workers[name] = worker
                while not place.exists() and worker.returncode is None:
                    yield Sleep(0.01)
                if worker.returncode is None:
                    self.serving[name].set()
                    if again:
                        say(f"{name} is started again, process {worker.pid}")
                yield from worker.wait()
            self.serving[name].clear()
            yield Sleep(self.settle)

    def end_worker(self, clients: Clients, number: int) -> Coro[None]:
        """End the worker that has most to do, and say what its clients saw."""
        name = max(WORKERS, key=lambda name: len(clients.of(name)))
        its = clients.of(name)
        others = [client for other in WORKERS if other != name for client in clients.of(other)]
        clients.begin()
        clients.watched = True
        worker = self.workers[name]
        worker.send_signal(number)
        with move_on_after(DRAINED):
            yield from worker.wait()
        worker.kill()  # if it could not even drain, as when it is stopped
        yield from worker.wait()
        yield Sleep(self.settle)
        how = "is killed" if number == signal.SIGKILL else "has drained"
        lost, slowest = lost_and_slowest(its)
        say(
            f"{name} {how}: {len(its)} clients lost {lost} questions; "
            f"each had its answer after {slowest:.3f} s at most"
        )
        lost, slowest = lost_and_slowest(others)
        say(
            f"meanwhile the other {len(others)} clients lost {lost}, "
            f"and had each answer after {slowest:.3f} s at most"
        )
        yield from self.serving[name].wait()
        yield Sleep(2 * CHECK)  # until HAProxy knows of it
        clients.watched = False
        clients.begin()

    def end(self) -> None:
        """End the workers; then what they use can end, too."""
        for worker in self.workers.values():
            worker.kill()


def obey(cluster: Cluster, clients: Clients) -> Coro[None]:
    """Do what the person at the terminal wants, until that is to end."""
    signals = {b"k": signal.SIGKILL, b"t": signal.SIGTERM}
    with open_stdin() as keys:
        while key := (yield from keys.readline()):
            if key.strip() == b"q":
                return
            if key.strip() in signals:
                yield from cluster.end_worker(clients, signals[key.strip()])
    yield Sleep(math.inf)


def show(options: argparse.Namespace, listener: socket.socket) -> Coro[None]:
    """Start everything, have clients ask, and end it all."""
    spawn(end_by_signal, daemon=True)
    host, port = listener.getsockname()[:2]
    # Bound, and not listening: so nobody else gets the number, and Redis does.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        redis = place.getsockname()[1]
        cluster = Cluster(folder, listener.fileno(), redis, options.settle)
        yield from cluster.start()
        pids = "; ".join(f"{name}, process {it.pid}" for name, it in cluster.workers.items())
        say(f"clients talk to HAProxy at {host} port {port}; workers: {pids}")
        say("k, Enter: kill -9 a worker; t, Enter: have it drain (SIGTERM); q, Enter: end")
        clients = Clients(options.clients, port)
        spawn(clients.follow, daemon=True)
        try:
            yield from obey(cluster, clients)
        finally:
            cluster.end()


def say(text: str) -> None:
    print(text, flush=True)


def main(options: argparse.Namespace) -> None:
    if options.worker:
        os.chdir(options.folder)
        run(work, options)
        return
    missing = [name for name in ("haproxy", "redis-server") if shutil.which(name) is None]
    if missing:
        sys.exit(f"this demo needs {' and '.join(missing)}: apt install {' '.join(missing)}")
    with socket.create_server((options.host, options.port), backlog=1024) as listener:
        run(show, options, listener)


if __name__ == "__main__":
    start(
        main,
        __doc__,
        port=7020,
        arguments={
            "--clients": {"type": at_least(1, 500), "default": 20, "help": "default: %(default)s"},
            "--settle": {
                "type": at_least(0.0, 3600.0),
                "default": 1.0,
                "help": "seconds until a worker that has ended is started again",
            },
            "--worker": {"metavar": "NAME", "help": argparse.SUPPRESS},
            "--redis": {"type": int, "metavar": "PORT", "help": argparse.SUPPRESS},
            "--folder": {"help": argparse.SUPPRESS},
        },
    )
