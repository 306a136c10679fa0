"""Fibonacci numbers over UDP: a large one is computed in a pool of threads, the others go on.

    $ python3 -m demos.cookbook.fibonacci
    fibonacci on 127.0.0.1 port 16000, UDP; try: nc -u 127.0.0.1 16000, then type 30

Type 34, and then 5 in another terminal: the second answer does not wait for the first. With `--pool
processes` the pool is one of processes: several numbers at once then use several cores, where
threads of Python take turns.

The faults of the old shape, `old/fibonacci.py`: what is no number killed the server; a failure in
the pool was never answered; and its list of completions, which two threads changed, could lose one.
Here the task that asks for a number waits for it. What may fail stands in its `try`, and
`sock.serve()` sends what it returns.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from corolib import Coro, open_udp, run, to_process, to_thread
from demos.start import at_least, start

SMALL = 15  # what is less is computed at once: to hand it over would take longer
AT_ONCE = 100  # numbers that may be under way; what is asked beyond gets no answer
OF_ONE = 50  # those of one address
POOLS = {"threads": to_thread, "processes": to_process}


def fib(n: int) -> int:
    """Compute a Fibonacci number in the slowest way."""
    return 1 if n <= 1 else fib(n - 1) + fib(n - 2)


def answer(message: bytes, sender: Any, largest: int, pool: str) -> Coro[bytes | None]:
    """Wait for the answer to a message: a number, or what is wrong.

    An error gets none, for it is an answer itself. Two of these servers would tell each other for
    ever that this is not a number.
    """
    if message.startswith(b"error"):
        return None
    try:
        n = int(message)
    except ValueError:
        return b"error: %.40r is not a whole number" % message
    if n > largest:
        return b"error: that is more than %d" % largest
    try:
        number = fib(n) if n < SMALL else (yield from POOLS[pool](fib, n))
    except Exception as exc:  # whatever went wrong there: the client waits for an answer
        return f"error: {type(exc).__name__}: {exc}".encode()
    return b"%d" % number


def serve(host: str, port: int, largest: int, pool: str) -> Coro[None]:
    sock = yield from open_udp(local=(host, port))
    host, port, *_ = sock.local
    try_it = f"try: nc -u {host} {port}, then type 30"
    print(f"fibonacci on {host} port {port}, UDP; {try_it}", flush=True)
    handler = partial(answer, largest=largest, pool=pool)
    yield from sock.serve(handler, max_waiting=AT_ONCE, max_per_address=OF_ONE)


def main(options: argparse.Namespace) -> None:
    run(serve, options.host, options.port, options.largest, options.pool)


if __name__ == "__main__":
    largest = {
        "type": at_least(0, 100_000),
        "default": 40,
        "help": "that is computed; default: %(default)s",
    }
    pool = {"choices": list(POOLS), "default": "threads", "help": "default: %(default)s"}
    start(main, __doc__, port=16000, arguments={"--largest": largest, "--pool": pool})
