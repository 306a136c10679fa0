"""A server that computes requests with Dask, and cancels those of clients that leave.

    $ python3 -m demos.compute
    computing on 127.0.0.1 port 7021, with a Dask cluster of 2 processes; try: nc 127.0.0.1 7021
    $ nc 127.0.0.1 7021
    1000000
    78498 primes below 1000000

Each line is a question: how many primes are below this number? Meanwhile the server has time for
everybody: it only waits, with `wait_future(..., cancel=True)`.

Who leaves takes his questions with him. What Dask has not begun is not begun any more; what a
worker is in the middle of is its last step for nobody. For that one task reads, and sees the end,
while another waits for Dask. So a client has to keep its side open until it has its answers.

All is bounded: the questions of one client, what Dask is given at a time, the size of a question.

`--scheduler tcp://HOST:8786` takes a cluster that is there, instead of one on this machine.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import CancelledError, Executor
from functools import partial

from corolib import (
    Coro,
    Listener,
    Queue,
    Semaphore,
    Stream,
    TaskGroup,
    listen_tcp,
    run,
    wait_future,
)
from demos.extra import extra
from demos.ports import announce
from demos.start import at_least, start

LARGEST = 10_000_000  # which takes some seconds, and ten megabytes
ASKED = 10  # questions of one client that wait
AT_ONCE = 100  # questions that Dask has at a time
CLIENTS = 1000
LINE = 100  # bytes of a question


def primes_below(number: int) -> int:
    """Count them, with the sieve of Eratosthenes: this runs in a process of Dask's."""
    sieve = bytearray([1]) * max(number, 2)
    sieve[:2] = b"\0\0"
    for n in range(2, int(number**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, number, n)))
    return sum(sieve)


def visit(engine: Executor, places: Semaphore, stream: Stream) -> Coro[None]:
    """Read the questions of one client, until it leaves: then nobody waits for the answers."""
    questions: Queue[bytes] = Queue(ASKED)
    with TaskGroup() as group:
        group.spawn(answer_all, engine, places, questions, stream)
        while line := (yield from stream.readline()):
            yield from questions.put(line)
        group.cancel("the client has left")
        yield from group


def answer_all(
    engine: Executor, places: Semaphore, questions: Queue[bytes], stream: Stream
) -> Coro[None]:
    """Answer the questions of one client, one after another."""
    while True:
        words = yield from answer(engine, places, (yield from questions.get()))
        yield from stream.sendall(f"{words}\n".encode())


def answer(engine: Executor, places: Semaphore, question: bytes) -> Coro[str]:
    """Have one question computed; if that is cancelled, so is the computing."""
    text = question.strip()
    number = int(text) if text.isdigit() else -1
    if not 0 <= number <= LARGEST:
        return f"give a number from 0 to {LARGEST}"
    with (yield from places):
        try:
            count = yield from wait_future(engine.submit(primes_below, number), cancel=True)
        except CancelledError:
            return "the cluster has given that up"
        except Exception as exc:  # its own, as when each worker that has begun this was killed
            return f"the cluster has failed: {type(exc).__name__}"
    return f"{count} primes below {number}"


def serve(listener: Listener, engine: Executor) -> Coro[None]:
    """Serve all clients, for ever."""
    handler = partial(visit, engine, Semaphore(AT_ONCE))
    yield from listener.serve(
        handler, max_connections=CLIENTS, max_line=LINE, grace=0, accept=announce
    )


def main(options: argparse.Namespace) -> None:
    with extra("compute"):
        from distributed import Client, LocalCluster
    with listen_tcp(options.host, options.port) as listener:
        host, port = listener.addresses[0][:2]
        place = options.scheduler
        if place is None:
            # With a thread for each process: Python computes in one at a time.
            place = LocalCluster(
                n_workers=options.workers, threads_per_worker=1, dashboard_address=None
            )
        with Client(place) as client:
            if options.scheduler is None:
                client.run(os.nice, 10)  # on the same cores: computing gives way to the server
            what = options.scheduler or f"a Dask cluster of {options.workers} processes"
            print(
                f"computing on {host} port {port}, with {what}; try: nc {host} {port}", flush=True
            )
            # `pure=False`: each question is a task of its own, which can be given up alone.
            run(serve, listener, client.get_executor(pure=False))


if __name__ == "__main__":
    start(
        main,
        __doc__,
        port=7021,
        arguments={
            "--workers": {"type": at_least(1, 100), "default": 2, "help": "default: %(default)s"},
            "--scheduler": {"metavar": "ADDRESS", "help": "of a cluster that is there"},
        },
    )
