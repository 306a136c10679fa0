"""The clients that all servers get: each sends numbered lines, with pauses, and checks the answers.

What they see is an order: who was answered when. `at_once()` reads from it how many clients a
server was serving at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from corolib import Coro, Sleep, TaskGroup, open_tcp, timeout

HOST = "127.0.0.1"
PATIENCE = 120  # seconds beyond those that the pauses need, one client after another


class Job(NamedTuple):
    clients: int
    lines: int  # of each client
    pause: float  # seconds before each line


def crowd(port: int, job: Job, answered: Callable[[int], object]) -> Coro[None]:
    """Be all clients; call `answered(number)` for each answer that a client got."""
    with timeout(PATIENCE + 2 * job.clients * job.lines * job.pause), TaskGroup() as group:
        for number in range(job.clients):
            group.spawn(client, port, job, number, answered)
        yield from group


def client(port: int, job: Job, number: int, answered: Callable[[int], object]) -> Coro[None]:
    """Be one client, which is right in the end only if the server takes no line for another."""
    yield Sleep(job.pause * number / job.clients)  # they do not come all at the same moment
    with (yield from open_tcp(HOST, port)) as stream:
        total = 0
        for line in range(1, job.lines + 1):
            yield Sleep(job.pause)
            total += line + number
            yield from stream.sendall(b"%d\n" % (line + number))
            answer = yield from stream.readline()
            if answer != b"%d\n" % total:
                raise ValueError(f"client {number} expected {total}, and got {answer!r}")
            answered(number)


def at_once(order: list[int]) -> int:
    """Return how many clients were at most between their first answer and their last."""
    first = {number: when for when, number in reversed(list(enumerate(order)))}
    last = {number: when for when, number in enumerate(order)}
    return max(sum(first[n] <= when <= last[n] for n in first) for when in first.values())
