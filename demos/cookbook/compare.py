"""Each old program beside its twin: both get the same clients, and the results are shown.

    $ python3 -m demos.cookbook.compare
    program        what is done            the old shape                       its twin
    udp_time       somebody asks           24 bytes                            24 bytes
    udp_echo       9000 bytes are sent     8192 came back                      9000 came back
    ...

All run at the same time, so it takes some five seconds. With names, as in `compare hello upper`,
it takes those only. The first column has the names of the files, here and in `old/`.
"""

from __future__ import annotations

import argparse
import re
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple

from corolib import Coro, Queue, Sleep, current_scheduler, run, spawn
from demos.cookbook import event_queue
from demos.cookbook.old import event_queue as old_event_queue
from demos.start import start

HOST = "127.0.0.1"
PATIENCE = 5.0  # seconds until an answer is given up
MOMENT = 0.5  # seconds in which an answer would have come
CLIENTS = 20
LARGE = 200_000  # bytes: more than the small buffers hold
MESSAGE = b"hello\n"


class Server:
    """A program that runs in a process of its own, and talks to clients."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.address = (HOST, port)

    def connect(self, small: bool = False) -> socket.socket:
        """Return a client's connection; a small one has little room for what is not read."""
        conn = socket.socket()
        conn.settimeout(PATIENCE)
        if small:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        conn.connect(self.address)
        return conn

    def udp(self) -> socket.socket:
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.settimeout(PATIENCE)
        sock.connect(self.address)
        return sock

    def shown(self, patience: float = PATIENCE) -> str:
        """Return the next line that it prints; nothing if there is none for so long."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], patience)[0]:
            return ""
        return self.process.stdout.readline().strip()

    def death(self) -> str:
        """Say so if it has died of an exception."""
        with suppress(subprocess.TimeoutExpired):
            _, err = self.process.communicate(timeout=MOMENT)
            return "; it died" if "Traceback" in err else ""
        return ""


@contextmanager
def running(module: str, *arguments: str) -> Iterator[Server]:
    """Run a program on some port."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-u", "-m", module, *arguments, "--port=0"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"port (\d+)", process.stdout.readline())
            if found is None:
                raise RuntimeError(f"{module} did not start")
            yield Server(process, int(found[1]))
        finally:
            process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def read_all(conn: socket.socket) -> bytes:
    """Return what comes until the end, or for as long as there is patience."""
    parts = []
    with suppress(OSError):
        while part := conn.recv(65536):
            parts.append(part)
    return b"".join(parts)


def flood(server: Server) -> str:
    """Send much on a connection with little room, say that it was all, and then read."""
    with server.connect(small=True) as conn:
        with suppress(OSError):
            conn.sendall(bytes(LARGE))
            conn.shutdown(socket.SHUT_WR)
        count = len(read_all(conn))
    return ("all" if count == LARGE else f"{count} bytes") + f" came back{server.death()}"


# What is done to each -----------------------------------------------------------------------------


def udp_time(server: Server) -> str:
    with server.udp() as sock:
        sock.send(b"")
        return f"{len(sock.recv(100))} bytes"


def udp_echo(server: Server) -> str:
    with server.udp() as sock:
        sock.send(bytes(9000))
        return f"{len(sock.recv(65535))} came back"


def fibonacci(server: Server) -> str:
    with server.udp() as sock:
        with suppress(OSError):
            for message in (b"abc", b"10"):
                sock.send(message)
                answer = sock.recv(100)
            return f"the next one gets {answer.decode()}"
        return "no answer" + server.death()


def upper(server: Server) -> str:
    with server.connect(small=True) as conn:
        conn.sendall(bytes(LARGE))
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError), server.connect() as conn:
        conn.sendall(MESSAGE)
        if conn.recv(100) == MESSAGE.upper():
            return "the next one gets HELLO"
    return "the next one gets nothing" + server.death()


def urgent(server: Server) -> str:
    with server.connect() as conn:
        conn.sendall(MESSAGE)
        conn.recv(100)
        conn.send(b"!", socket.MSG_OOB)
        with suppress(OSError):
            shown = server.shown(MOMENT)
            conn.sendall(MESSAGE)
            if conn.recv(100):
                return "noticed, and it goes on" if "urgent" in shown else "it goes on"
    return "the connection is closed"


def messages(server: Server) -> str:
    time.sleep(MOMENT)  # its first look is over
    with server.connect() as conn:
        began = time.monotonic()
        conn.sendall(MESSAGE)
        server.shown()
        return f"shown after {time.monotonic() - began:.3f} s"


def idle_tick(server: Server) -> str:
    with server.connect():
        return re.sub(r"^[\d.]+:\d+", "the client", server.shown())


def operator_chat(server: Server) -> str:
    with server.connect() as one, server.connect() as two:
        one.sendall(MESSAGE)
        shown = [server.shown()]
        two.sendall(MESSAGE)
        shown.append(server.shown(MOMENT))
        return f"{sum('client' in line for line in shown)} of 2 lines are shown"


def hello(server: Server) -> str:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(CLIENTS + 1)]
        for conn in clients[1:]:  # the first says nothing
            conn.sendall(MESSAGE)
        answered = 0
        waiting = clients[1:]
        while waiting and (ready := select.select(waiting, [], [], MOMENT)[0]):
            answered += sum(conn.recv(100) == MESSAGE for conn in ready)
            waiting = [conn for conn in waiting if conn not in ready]
        return f"{answered} of {CLIENTS} are answered"


def queued(server: Server) -> str:
    with server.connect() as conn:
        conn.sendall(MESSAGE)
        conn.recv(100)
    before = cpu(server.process.pid)
    time.sleep(MOMENT)
    used = cpu(server.process.pid) - before
    return f"{used * 1e3:.0f} ms of CPU in the next {MOMENT:g} s"


def cpu(pid: int) -> float:
    """Return the CPU time of a process, in seconds."""
    return time.clock_gettime(~pid << 3 | 2)  # as clock_getcpuclockid(3) makes the clock's number


# Those that are no servers ------------------------------------------------------------------------


class Device(SimpleQueue[str]):
    """A keyboard that counts how often it is asked for a key, which comes after a while."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.comes = time.monotonic() + MOMENT

    def get_nowait(self) -> str:
        self.looks += 1
        if time.monotonic() < self.comes:
            raise Empty
        return "a key"


class Handled(Exception):
    """Ends the old scan, which has no end of its own."""


def scanned() -> str:
    def onkeydown(key: str) -> None:
        raise Handled

    keyboard = Device()
    with suppress(Handled):
        handlers: dict[str, Callable[[str], object]] = dict.fromkeys(("click", "key"), onkeydown)
        old_event_queue.scan({"click": SimpleQueue(), "key": keyboard}, handlers)
    return f"{keyboard.looks} looks for one key"


def queue_of_events() -> str:
    def main() -> Coro[float]:
        events: Queue[event_queue.Event] = Queue(10)
        handling = spawn(event_queue.handle, events, lambda words: None)
        before = current_scheduler().stats()["turns"]
        yield Sleep(MOMENT)
        yield from events.put(event_queue.Event(lambda key: key, "a key"))
        events.shutdown()
        yield from handling
        return current_scheduler().stats()["turns"] - before

    return f"{run(main):.0f} turns for one key"


# The table ----------------------------------------------------------------------------------------


class Trial(NamedTuple):
    what: str  # is done
    to: Callable[[Server], str]


TRIALS = {
    "udp_time": Trial("somebody asks", udp_time),
    "udp_echo": Trial("9000 bytes are sent", udp_echo),
    "tcp_echo": Trial("200 000, and no more", flood),
    "fibonacci": Trial("abc, and then 10", fibonacci),
    "upper": Trial("a client vanishes", upper),
    "urgent": Trial("urgent data", urgent),
    "messages": Trial("a message", messages),
    "idle_tick": Trial("a client connects", idle_tick),
    "operator_chat": Trial("two lines, no answer", operator_chat),
    "hello": Trial("one is silent", hello),
    "queued": Trial("a client closes", queued),
    "accept_read": Trial("200 000, and no more", flood),
}
NO_SERVER = "event_queue"
NAMES = (*TRIALS, NO_SERVER)


def try_old(name: str) -> str:
    if name == NO_SERVER:
        return scanned()
    with running("demos.cookbook.old", name) as server:
        return TRIALS[name].to(server)


def try_twin(name: str) -> str:
    if name == NO_SERVER:
        return queue_of_events()
    with running(f"demos.cookbook.{name}") as server:
        return TRIALS[name].to(server)


def name_of(text: str) -> str:
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"{text} is not among {', '.join(NAMES)}")
    return text


def main(options: argparse.Namespace) -> None:
    names = options.names or NAMES
    print(f"{'program':<15}{'what is done':<24}{'the old shape':<36}its twin", flush=True)
    with ThreadPoolExecutor(2 * len(NAMES)) as pool:
        found = [(name, pool.submit(try_old, name), pool.submit(try_twin, name)) for name in names]
        for name, old, new in found:
            what = "one key, after a while" if name == NO_SERVER else TRIALS[name].what
            print(f"{name:<15}{what:<24}{old.result():<36}{new.result()}", flush=True)


if __name__ == "__main__":
    names = {"nargs": "*", "metavar": "NAME", "type": name_of, "help": "those programs only"}
    start(main, __doc__, arguments={"names": names})
