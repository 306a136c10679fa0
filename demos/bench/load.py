"""The load where there is no C compiler: the program of `load.c`, orders and answers as there.

It is slower than most of the servers, so messages per second say little then; the server's CPU time
per message says the same.
"""

from __future__ import annotations

import itertools
import math
import random
import select
import socket
import ssl
import sys
import time
from typing import Any

from demos.bench.serve import allow_many_files


class Connection:
    """One connection to the server, and its exchanges."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.answered = self.open = self.owed = self.got = 0
        self.since = 0.0
        self.writing = False
        self.connect()

    def connect(self) -> None:
        kind, address = self.load.kind, ("127.0.0.1", self.load.port)
        if kind == "udp":
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.connect(address)
        else:
            source = (f"127.0.0.{self.load.turn % 250 + 1}", 0) if kind == "close" else None
            self.load.turn += 1
            sock = socket.create_connection(address, source_address=source)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.load.context:
            sock = self.load.context.wrap_socket(sock)
        sock.setblocking(False)
        self.sock: socket.socket | None = sock
        self.load.poll.register(sock, select.EPOLLIN)
        self.load.connections[sock.fileno()] = self

    def begin(self, when: float) -> None:
        self.load.begun += 1
        self.open += 1
        self.since = when
        if self.sock is None:
            self.connect()
        self.owed += self.load.send
        self.flush()

    def flush(self) -> None:
        assert self.sock is not None
        size = self.load.send
        while self.owed:
            try:
                left = (self.owed - 1) % size + 1  # of this message
                self.owed -= self.sock.send(self.load.message[size - left :])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
        if self.writing != (self.owed > 0):
            self.writing = self.owed > 0
            how = select.EPOLLIN | (select.EPOLLOUT if self.writing else 0)
            self.load.poll.modify(self.sock, how)

    def receive(self) -> None:
        while self.sock is not None:
            try:
                data = self.sock.recv(1 << 18)
            except (BlockingIOError, ssl.SSLWantReadError, ConnectionRefusedError):
                return
            if not data:
                raise ConnectionError("the server closed a connection")
            if self.load.kind == "udp" and not self.open:
                return  # the answer to a datagram that was sent again
            self.got += len(data)
            while self.got >= self.load.expect:
                self.got -= self.load.expect
                self.end()
            if not self.load.context:
                return

    def end(self) -> None:
        load, t = self.load, time.perf_counter()
        if load.rate:
            self.since = load.start + load.due[self.number + self.answered * load.active]
        load.latencies.append(t - self.since)
        self.answered += 1
        self.open -= 1
        if load.kind == "close" and self.sock is not None:
            del load.connections[self.sock.fileno()]
            self.sock.close()
            self.sock = None
        if not load.rate and load.begun < load.limit and t < load.deadline:
            self.begin(t)

    number = 0  # among those that are active


class Load:
    """All connections, and the run that is under way."""

    def __init__(self, words: list[str]) -> None:
        self.kind = words[0]
        numbers = [int(word) for word in words[1:]]
        self.port, self.active, idle, self.send, self.expect, line = numbers
        text = bytearray(b"x" * self.send)
        text[line - 1 :: line] = b"\n" * len(text[line - 1 :: line])
        self.message = memoryview(text)
        self.poll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.turn = 0
        self.context: ssl.SSLContext | None = None
        if self.kind == "tls":
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE
        self.all = [Connection(self) for _ in range(self.active + idle)]
        for number, each in enumerate(self.all):
            each.number = number
        for first in range(0, len(self.all), 100):  # not all at once: a server may be slow
            some = self.all[first : first + 100]
            self.go(some, limit=len(some))

    def go(
        self,
        some: list[Connection],
        limit: float = math.inf,
        seconds: float = math.inf,
        rate: float = 0.0,
    ) -> None:
        self.limit, self.rate, self.begun = limit, rate, 0
        if rate:
            numbers = random.Random(1)
            gaps = (numbers.expovariate(rate) for _ in range(int(limit)))
            self.due = list(itertools.accumulate(gaps))
        self.latencies: list[float] = []
        self.start = time.perf_counter()
        self.deadline = self.start + seconds
        for each in some:
            each.answered = 0
        for each in some:
            if not rate and self.begun < limit:
                each.begin(time.perf_counter())
        while True:
            wait = self.begin_due(some) if rate else 0.5
            if len(self.latencies) == self.begun and (not rate or self.begun >= limit):
                return
            events = self.poll.poll(wait)
            if not events and wait == 0.5 and self.kind == "udp":
                for each in some:
                    if each.open and not each.owed:  # a datagram was lost
                        each.owed = self.send
                        each.flush()
            for fd, event in events:
                if event & select.EPOLLOUT:
                    self.connections[fd].flush()
                if event & ~select.EPOLLOUT:
                    self.connections[fd].receive()

    def begin_due(self, some: list[Connection]) -> float:
        """Begin what is due; return how many seconds may be slept."""
        t = time.perf_counter()
        while self.begun < self.limit:
            due = self.start + self.due[self.begun]
            if due > t:
                return max(due - t - 0.001, 0)
            some[self.begun % len(some)].begin(due)
        return 0.5

    def obey(self, order: str, *numbers: float) -> list[Any]:
        active = self.all[: self.active]
        cpu = time.process_time()
        if order == "count":
            self.go(active, limit=numbers[0])
        elif order == "time":
            self.go(active, seconds=numbers[0])
        else:
            self.go(active, limit=int(numbers[0] * numbers[1]), rate=numbers[0])
        seconds = time.perf_counter() - self.start
        cpu = time.process_time() - cpu
        found = sorted(self.latencies)
        last = len(found) - 1
        at = [found[min(int(len(found) * part), last)] * 1e6 for part in (0.5, 0.99, 0.999)]
        return [len(found), seconds, cpu, *(round(each, 1) for each in at)]


if __name__ == "__main__":
    allow_many_files()
    load = Load(sys.argv[1:])
    print("ready", flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        print(*load.obey(word, *map(float, rest)), flush=True)
