"""A client for each of the classic services, over TCP or UDP.

    $ python3 -m demos.classic.client daytime
    Mon Jan  5 12:00:00 2026
    $ echo hello | python3 -m demos.classic.client echo --udp
    hello
    $ python3 -m demos.classic.client chargen --lines 3

Start `python3 -m demos.classic` first. Over UDP a question or its answer may get lost: see `ask`,
which asks three times. What a stream is told arrives, or the connection breaks.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from corolib import Coro, move_on_after, open_stdin, open_tcp, open_udp, run, timeout
from demos.classic.services import services
from demos.start import at_least, host, start
from demos.time import FROM_1900_TO_1970

TRIES = 3
PATIENCE = 2.0  # seconds for an answer
MOST = 65536  # bytes of an answer that are taken
QUESTION = bytes(512)  # says nothing; but a careful server answers no more than it was sent


def ask(host: str, port: int, udp: bool, question: bytes = QUESTION) -> Coro[bytes]:
    """Return what a service has to say: all that it sends, or one datagram."""
    if not udp:
        with timeout(TRIES * PATIENCE):
            with (yield from open_tcp(host, port)) as stream:
                answer = b""
                while len(answer) < MOST and (data := (yield from stream.recv(MOST))):
                    answer += data
                return answer
    with (yield from open_udp(host, port)) as sock:
        for _ in range(TRIES):
            with move_on_after(PATIENCE):
                yield from sock.send(question)
                return (yield from sock.recv())
    raise TimeoutError(f"no answer from {host} port {port}")


def show(text: bytes) -> None:
    """Print lines, however they end."""
    write("".join(f"{line}\n" for line in text.decode("ascii", "replace").splitlines()).encode())


def write(data: bytes) -> None:
    """Print bytes as they are, at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def show_text(options: argparse.Namespace) -> Coro[None]:
    """The client of qotd and daytime."""
    show((yield from ask(options.host, options.port, options.udp)))


def instant_of(answer: bytes, near: float) -> int:
    """Return the time that RFC 868's four bytes tell, in seconds since 1970.

    They begin anew every 136 years, next in 2036. Of all times that they may mean, it is the one
    that is next to `near`.
    """
    behind = (int.from_bytes(answer, "big") - FROM_1900_TO_1970 - int(near)) % 2**32
    return int(near) + (behind if behind < 2**31 else behind - 2**32)


def show_time(options: argparse.Namespace) -> Coro[None]:
    """The client of time."""
    answer = yield from ask(options.host, options.port, options.udp)
    if len(answer) != 4:
        sys.exit("the server does not know the time")
    show(time.ctime(instant_of(answer, near=time.time())).encode())


def show_characters(options: argparse.Namespace) -> Coro[None]:
    """The client of chargen: so many lines of an endless stream, or one datagram."""
    if options.udp:
        show((yield from ask(options.host, options.port, udp=True)))
        return
    with (yield from open_tcp(options.host, options.port)) as stream:
        for _ in range(options.lines):
            show((yield from stream.readuntil(b"\r\n")))


def show_echo(options: argparse.Namespace) -> Coro[None]:
    """The client of echo: sends its standard input, and prints what comes back."""
    with open_stdin() as typed:
        if options.udp:
            while data := (yield from typed.recv(8192)):
                write((yield from ask(options.host, options.port, True, data)))
            return
        with (yield from open_tcp(options.host, options.port)) as stream:
            while data := (yield from typed.recv(8192)):
                yield from stream.sendall(data)
                write((yield from stream.readexactly(len(data))))


def send_away(options: argparse.Namespace) -> Coro[None]:
    """The client of discard: sends its standard input, and that is all."""
    with open_stdin() as typed:
        if options.udp:
            with (yield from open_udp(options.host, options.port)) as sock:
                while data := (yield from typed.recv(8192)):
                    yield from sock.send(data)
            return
        with (yield from open_tcp(options.host, options.port)) as stream:
            while data := (yield from typed.recv(8192)):
                yield from stream.sendall(data)
            yield from stream.aclose()


CLIENTS = {
    "echo": show_echo,
    "discard": send_away,
    "daytime": show_text,
    "qotd": show_text,
    "chargen": show_characters,
    "time": show_time,
}


def main(options: argparse.Namespace) -> None:
    if options.port is None:
        options.port = 7000 + services()[options.service].number
    try:
        run(CLIENTS[options.service], options)
    except (TimeoutError, EOFError, ConnectionError) as exc:
        text = os.strerror(number) if (number := getattr(exc, "errno", None)) else exc
        sys.exit(f"{options.service} at {options.host} port {options.port}: {text}")


if __name__ == "__main__":
    start(
        main,
        __doc__,
        arguments={
            "service": {"choices": list(CLIENTS)},
            "--udp": {"action": "store_true", "help": "instead of TCP"},
            "--host": {"default": "127.0.0.1", "type": host, "help": "default: %(default)s"},
            "--port": {
                "type": at_least(0, 65535),
                "help": "default: the well-known one, plus 7000",
            },
            "--lines": {
                "type": at_least(1, 1_000_000),
                "default": 95,
                "help": "of chargen; default: %(default)s",
            },
        },
    )
