"""An echo server (RFC 862), over TCP and UDP: what you send comes back.

    $ python3 -m corolib demo echo
    echo on 127.0.0.1 port 7007, TCP and UDP; try: nc 127.0.0.1 7007

Written with nothing but the traps `ReadWait`, `WriteWait` and `Sleep`, on plain sockets of the
standard library. There is one task for each client, and it reads from top to bottom.

Ctrl-C ends it, with exit status 130. Status 1: the port cannot be opened; 2: a wrong option.
"""

from __future__ import annotations

import argparse
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from corolib import Coro, ReadWait, Sleep, WriteWait, gather, run, spawn
from corolib.demo.ports import Port, announce, open_ports

Handler = Callable[[socket.socket], Coro[None]]


def echo(conn: socket.socket) -> Coro[None]:
    """Send back what a client sends, until it has no more."""
    with conn:
        while True:
            yield ReadWait(conn)
            try:
                data = conn.recv(65536)
            except BlockingIOError:  # woken for nothing: wait again
                continue
            if not data:
                return
            while data:
                try:
                    data = data[conn.send(data) :]
                except BlockingIOError:  # the kernel's buffer is full
                    yield WriteWait(conn)


def session(conn: socket.socket, handler: Handler) -> Coro[None]:
    """Serve one client. If it breaks the connection off, that is no failure of the server."""
    conn.setblocking(False)
    try:
        yield from handler(conn)
    except OSError:
        pass  # nobody is left to talk to, and the handler's `with` has closed the socket


def accept_clients(listener: socket.socket, handler: Handler) -> Coro[None]:
    """Start a task for each client that connects."""
    while True:
        yield ReadWait(listener)
        try:
            for _ in range(64):  # at most so many at once, then it is the other tasks' turn
                conn, peer = listener.accept()
                announce(peer)
                spawn(session, conn, handler)
                del conn  # held by its session alone, it is gone with that
        except (BlockingIOError, ConnectionAbortedError):  # nobody is there, or not any more
            continue
        except OSError:  # out of files, say. The client stays in the queue: do not spin
            yield Sleep(0.1)


def accept_all(listeners: list[socket.socket], handler: Handler) -> Coro[None]:
    """Do so at several addresses, for ever."""
    yield from gather(*[accept_clients(listener, handler) for listener in listeners])


RATE = 100  # answers that one address gets in a second; two services would ask far more often
SHORT = 18  # bytes of an answer to a question of none: as long, in the smallest frame of Ethernet
MANY = 10_000  # addresses whose answers are counted


class Caution:
    """Whom a UDP service answers.

    The address of a datagram's sender can be forged. So an answer may hit somebody who has not
    asked, or another service, which answers it in turn, for ever (CERT CA-1996-01).
    """

    def __init__(self, ports: Collection[int]) -> None:
        self.ports = ports  # of our own services
        self.second = 0
        self.answers: Counter[str] = Counter()  # in that second

    def allows(self, question: bytes, sender: Any, answer: bytes) -> bool:
        """Return whether an answer may be sent."""
        host, port = sender[:2]
        if port < 1024 or port in self.ports:  # a service of the system, or one of ours
            return False
        here = host.startswith("127.") or host == "::1"  # which nobody elsewhere can forge
        if len(answer) > max(len(question), SHORT) and not here:
            return False
        second = int(time.monotonic())
        if second != self.second or len(self.answers) >= MANY:
            self.second = second
            self.answers.clear()
        self.answers[host] += 1
        return self.answers[host] <= RATE


def answer_datagrams(
    sock: socket.socket, answer: Callable[[bytes], bytes], ports: Collection[int]
) -> Coro[None]:
    """Answer each datagram with one, if it is wise to; an empty one is a datagram, too.

    `ports` are those of all services of this program. What goes to all addresses of a machine with
    several may be answered from another one; `serve_udp()` of corolib answers from the same.
    """
    caution = Caution(ports)
    while True:
        yield ReadWait(sock)
        try:
            question, sender = sock.recvfrom(65535)
            reply = answer(question)
            if caution.allows(question, sender, reply):
                sock.sendto(reply, sender)
        except OSError:
            pass  # woken for nothing, or this answer cannot be sent: datagrams may get lost


def serve(
    ports: list[Port],
    handler: Handler,
    answer: Callable[[bytes], bytes],
    others: Collection[int] = (),
) -> Coro[None]:
    """Serve both transports of some ports, for ever; `others` are those that are served beside."""
    numbers = {port.number for port in ports} | {*others}
    for port in ports:
        spawn(answer_datagrams, port.udp, answer, numbers)
    yield from accept_all([port.tcp for port in ports], handler)


def main(options: argparse.Namespace) -> None:
    """Open the ports, say where they are, and serve until Ctrl-C."""
    with open_ports(options.host, options.port) as ports:
        host, number = ports[0].tcp.getsockname()[:2]
        print(f"echo on {host} port {number}, TCP and UDP; try: nc {host} {number}", flush=True)
        run(serve, ports, echo, lambda data: data)
