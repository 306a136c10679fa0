"""Six faults of the first generator schedulers, and their repairs: steps 12 to 14 of the tour.

    $ python3 -m demos.tour.faults

Each program is run twice. First as it used to be: by the scheduler of step 11, and, where
`yield from` was not yet known, on a trampoline. Then by the scheduler of step 14.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable
from types import GeneratorType
from typing import Any

from demos.start import start
from demos.tour.step11_timers import Coro, ReadWait, Sleep, WriteWait
from demos.tour.step11_timers import Scheduler as Old
from demos.tour.step14_join import Scheduler as New

Log = Callable[[str], object]
Program = Callable[[Any, Log], Coro[None]]


def trampoline(stack: list[Coro[Any]]) -> Coro[None]:
    """Run generators that call each other by `x = yield f()`; the innermost is the last."""
    value = None
    while stack:
        try:
            got = stack[-1].send(value)
        except StopIteration:  # it is over, and its caller goes on
            stack.pop()
            value = None
            continue
        value = None
        if isinstance(got, GeneratorType):  # a call
            stack.append(got)
        elif got is None or isinstance(got, ReadWait | WriteWait | Sleep):  # for the scheduler
            yield got
        else:  # a result for the caller; if there is none, it is handed back
            value = got
            if len(stack) > 1:
                stack.pop()


# 1. A second task that waits for the same file silently replaces the first, which hangs.


def two_readers(scheduler: Old | New, log: Log) -> Coro[None]:
    a, b = socket.socketpair()

    def reader(name: str) -> Coro[None]:
        yield ReadWait(a)
        log(f"{name} reads {a.recv(100)!r}")

    with a, b:
        scheduler.spawn(reader("first"))
        scheduler.spawn(reader("second"))
        yield
        b.sendall(b"hello")
        yield
        yield


# 2. One exception stops the whole scheduler.


def one_exception(scheduler: Old | New, log: Log) -> Coro[None]:
    def bad() -> Coro[None]:
        yield
        raise ValueError

    scheduler.spawn(bad())
    for _ in range(3):
        yield
    log("the others go on")


# 3. Killing a task closes only its innermost generator, and the outer one carries on.


def inner(log: Log) -> Coro[None]:
    try:
        for _ in range(9):
            yield
    finally:
        log("inner is closed")


def kill(scheduler: Old, log: Log) -> Coro[None]:
    def outer() -> Coro[None]:
        yield inner(log)
        log("outer carries on")

    stack = [outer()]
    scheduler.spawn(trampoline(stack))
    yield
    stack[-1].close()


def cancel(scheduler: New, log: Log) -> Coro[None]:
    def outer() -> Coro[None]:
        try:
            yield from inner(log)
            log("outer carries on")
        finally:
            log("outer is closed")

    task = scheduler.spawn(outer())
    yield
    task.cancel()


# 4. Yielding 42 spins at full speed without a word, or hands 42 back.


def forty_two(scheduler: Old | New, log: Log) -> Coro[None]:
    steps = 0

    def wrong() -> Coro[None]:
        nonlocal steps
        while steps < 99:
            steps += 1
            yield 42

    scheduler.spawn(wrong())
    for _ in range(100):
        yield
    log(f"{steps} steps")


def forty_two_back(scheduler: Old, log: Log) -> Coro[None]:
    def wrong() -> Coro[None]:
        log(f"got {(yield 42)} back")

    yield from trampoline([wrong()])


# 5. One client that does not read freezes everybody.

MUCH = bytes(10_000_000)


def sendall_blocking(conn: socket.socket, data: bytes) -> Coro[None]:
    yield WriteWait(conn)  # there is room: for one byte at least
    conn.settimeout(0.1)  # without that it is for ever
    conn.sendall(data)


def sendall(conn: socket.socket, data: bytes) -> Coro[None]:
    while data:
        try:
            data = data[conn.send(data) :]
        except BlockingIOError:
            yield WriteWait(conn)


def no_reader(sendall: Callable[[socket.socket, bytes], Coro[None]]) -> Program:
    def program(scheduler: Old | New, log: Log) -> Coro[None]:
        a, b = socket.socketpair()

        def sender() -> Coro[None]:
            with a:
                a.setblocking(False)
                try:
                    yield from sendall(a, MUCH)
                    log("all is sent")
                except TimeoutError:
                    log("frozen")

        with b:
            scheduler.spawn(sender())
            for _ in range(3):
                yield
            log("another task is served")
            received = 1
            while received:  # until the sender closes
                yield ReadWait(b)
                received = len(b.recv(1_000_000))

    return program


# 6. `return value` in a generator that another one calls is lost.


def double(x: int) -> Coro[int]:
    yield
    return 2 * x


def lost_result(scheduler: Old, log: Log) -> Coro[None]:
    def caller() -> Coro[None]:
        result = yield double(21)
        log(f"the result is {result}")

    yield from trampoline([caller()])


def result(scheduler: New, log: Log) -> Coro[None]:
    value = yield from double(21)  # a call
    log(f"the result is {value}")
    value = yield from scheduler.spawn(double(21))  # a task
    log(f"that of a task is {value}")


FAULTS: list[tuple[str, Program, Program]] = [
    ("1. A second task waits for the same file.", two_readers, two_readers),
    ("2. A task raises an exception.", one_exception, one_exception),
    ("3. A task is killed in an inner generator.", kill, cancel),
    ("4. A task yields 42.", forty_two, forty_two),
    ("4. A task yields 42, on a trampoline.", forty_two_back, forty_two),
    ("5. A client does not read.", no_reader(sendall_blocking), no_reader(sendall)),
    ("6. An inner generator returns a value.", lost_result, result),
]


def run_old(program: Program) -> list[str]:
    """Run a program by the old shape; return what it logs."""
    seen: list[str] = []
    scheduler = Old()
    try:
        scheduler.run(program(scheduler, seen.append))
    except Exception as exc:
        seen.append(f"the scheduler stops: {type(exc).__name__}")
    return seen


def run_new(program: Program) -> list[str]:
    """Run a program by ours; return what it logs, and which tasks failed."""
    seen: list[str] = []
    scheduler = New(lambda task, exc: seen.append(f"{task.name} fails: {type(exc).__name__}"))
    scheduler.run(program(scheduler, seen.append))
    return seen


def main(options: argparse.Namespace) -> None:
    for title, old, new in FAULTS:
        print(title)
        print("    then:", "; ".join(run_old(old)))
        print("    now: ", "; ".join(run_new(new)))


if __name__ == "__main__":
    start(main, __doc__)
