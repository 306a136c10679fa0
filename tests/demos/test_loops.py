"""Forged datagrams against the demos that speak UDP: no two services answer each other for ever."""

import select
import socket
import time

import pytest

from corolib.demo.echo import RATE
from tests.helpers.driving import FULL
from tests.helpers.programs import PATIENCE, Program
from tests.helpers.sockets import Wiretap, can_forge, forge

pytestmark = pytest.mark.skipif(not can_forge(), reason="this user can forge no datagrams")

LOCAL = "127.0.0.1"
OTHER = "127.0.0.2"  # another address of this machine: who asks from there has a rate of its own

# Each program, how many ports it serves, and a question that all of them answer.
PROGRAMS = {
    "demos.echo": (1, b"x"),
    "demos.time": (2, b"x"),
    "demos.classic": (6, b"x" * 512),
    "demos.cookbook.udp_echo": (1, b"x"),
    "demos.cookbook.udp_time": (1, b"x"),
    "demos.cookbook.fibonacci": (1, b"seven"),  # the answer is an error
}
MORE = {"demos.time": ["--daytime-port=0"]}


def begin(name):
    return Program(name, *MORE.get(name, ()), ports=PROGRAMS[name][0])


def ask(port, question=b"x"):
    """Ask from another address; what came before is handled when the answer is here."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        sock.bind((OTHER, 0))
        sock.connect((LOCAL, port))
        sock.send(question)
        return sock.recv(65535)


def answering(program):
    """Return the ports that answer datagrams: all but that of discard."""
    found = zip(program.lines, program.ports, strict=True)
    return [port for line, port in found if not line.startswith("discard")]


ECHOES = ["demos.echo", "demos.cookbook.udp_echo"]
PAIRS = [(name, other) for name in PROGRAMS for other in ECHOES][:: 1 if FULL else 4]


def rounds(tap, most):
    """Return how many datagrams go to and fro until there are no more, or `most` and some; and in
    how many seconds.
    """
    heard, began, ended = [], time.monotonic(), 0.0
    while len(heard) <= most:
        if not select.select([tap.sock], [], [], 0.5 if len(heard) > 1 else PATIENCE)[0]:
            break
        heard += tap.heard()
        ended = time.monotonic()
    return len(heard), ended - began


@pytest.mark.found("D1")
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_service_answers_itself_or_another_of_its_program(name):
    with begin(name) as program, Wiretap(*program.ports) as tap:
        ports = answering(program)
        for sender in program.ports:
            for receiver in ports:
                forge(PROGRAMS[name][1], (LOCAL, sender), (LOCAL, receiver))
        for port in ports:
            assert ask(port, PROGRAMS[name][1])
        assert len(tap.heard()) == len(program.ports) * len(ports)


@pytest.mark.found("D1")
@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_services_of_two_programs_soon_leave_each_other_alone(name, other):
    """They cannot know each other's ports. It is one datagram that goes to and fro, and the first
    that gets no answer ends that.
    """
    with begin(name) as one, begin(other) as two:
        a, b = answering(one)[0], answering(two)[0]
        with Wiretap(a, b) as tap:
            forge(PROGRAMS[name][1], (LOCAL, b), (LOCAL, a))
            count, seconds = rounds(tap, 6 * RATE)
            assert 2 <= count <= 2 * RATE * (seconds + 2) + 2  # on a busy machine that takes longer
            for port in (a, b):
                assert ask(port, PROGRAMS[name][1])
