"""What is measured: a table of the workloads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

IDLE = 10_000
MIB = 1 << 20


@dataclass(frozen=True)
class Workload:
    """Something to be done again and again; `unit` is what its cost is counted for."""

    name: str
    title: str
    unit: str = "message"
    job: str = ""  # the function in the contestant's file
    quick: bool = False  # whether it belongs to a quick run
    folder: ClassVar[str] = "servers"  # where that file is
    most_pairs: ClassVar[int] = 1000  # that are worth their time

    @property
    def jobs(self) -> tuple[str, ...]:
        """The functions that a contestant must have."""
        return (self.job,)


@dataclass(frozen=True)
class Exchanges(Workload):
    """Connections on which an exchange sends so many bytes and awaits so many."""

    kind: str = "tcp"
    connections: int = 100
    idle: int = 0
    send: int = 1024
    expect: int = 1024
    line: int = 1 << 30  # bytes between two newlines
    units: int = 1  # in an exchange


@dataclass(frozen=True)
class Latency(Exchanges):
    """The same at a rate; what counts is when an answer comes after its exchange was planned.

    Each contestant gets this share of what it can do itself, as measured just before. At one rate
    for all, a server that takes less time for a message would be less busy, and for that alone
    answer sooner: that is told by the CPU time already. The rates are in the table.
    """

    share: float = 0.5


@dataclass(frozen=True)
class Repeated(Workload):
    """Something that tasks do, so many times."""

    number: int = 0
    folder: ClassVar[str] = "tasks"


@dataclass(frozen=True)
class Growth(Workload):
    """Many tasks at a time: they wait for one event, or sleep until they are cancelled."""

    number: int = 0
    collector: str = "default"  # how the garbage collector is set: see `work.py`
    folder: ClassVar[str] = "tasks"
    most_pairs: ClassVar[int] = 3  # they take seconds, and show how cost grows

    @property
    def jobs(self) -> tuple[str, ...]:
        return ("event", "shutdown")


@dataclass(frozen=True)
class IdleConnections(Workload):
    """The memory that a connection takes on which nothing happens."""

    number: int = 1000
    most_pairs: ClassVar[int] = 1  # it is the same each time


@dataclass(frozen=True)
class IdleTasks(Workload):
    """The memory that a task takes which sleeps."""

    number: int = 10_000
    folder: ClassVar[str] = "tasks"
    most_pairs: ClassVar[int] = 1


@dataclass(frozen=True)
class Import(Workload):
    """The time that it takes to import the library."""

    statement: str = "import {}"
    folder: ClassVar[str] = "tasks"


def echoes(idle: int) -> list[Workload]:
    beside = f", beside {idle:,} idle ones" if idle else ""
    return [
        Exchanges(
            f"echo-{short}-{connections}" + ("-idle" if idle else ""),
            f"echo of {size}, {connections:,} connection{'s' * (connections > 1)}{beside}",
            job="echo",
            connections=connections,
            idle=idle,
            send=number,
            expect=number,
            quick=not idle and short == "1k" and connections == 100,
        )
        for short, size, number in (
            ("64", "64 B", 64),
            ("1k", "1 KiB", 1024),
            ("64k", "64 KiB", 65536),
        )
        for connections in (1, 100, 1000)
    ]


WORKLOADS: list[Workload] = [
    *echoes(0),
    *echoes(IDLE),
    Exchanges(
        "lines",
        "lines of 64 B, 16 in flight on each of 100 connections, each answered by itself",
        "line",
        "lines",
        send=1024,
        line=64,
        units=16,
        quick=True,
    ),
    Exchanges(
        "close", "connect, echo 1 KiB, close; 100 at a time", "connection", "echo", kind="close"
    ),
    Exchanges(
        "bulk",
        "one way: 1 MiB to each who asks, 10 connections",
        "MiB",
        "bulk",
        connections=10,
        send=1,
        expect=MIB,
    ),
    Exchanges("tls", "TLS echo of 1 KiB, 100 connections", job="tls", kind="tls"),
    Exchanges("udp", "UDP echo of 1 KiB, 100 sockets", job="udp", kind="udp"),
    Latency(
        "latency-100", "latency at half of capacity, echo of 1 KiB, 100 connections", job="echo"
    ),
    Latency(
        "latency-1000",
        "latency at half of capacity, echo of 1 KiB, 1,000 connections",
        job="echo",
        connections=1000,
    ),
    Latency(
        "latency-busy",
        "latency at 80 % of capacity, echo of 1 KiB after 100 µs of work, 100 connections",
        job="busy",
        share=0.8,
    ),
    Repeated("switch", "100 tasks give way", "switch", "switch", number=20_000, quick=True),
    Repeated("spawn", "spawn a task and join it", "task", "spawn", number=2000, quick=True),
    Repeated("sleepers", "50,000 tasks sleep", "task", "sleepers", number=50_000),
    Repeated("handover", "hand over through Queue(1)", "item", "handover", number=2000, quick=True),
    Repeated(
        "timeout", "timeout around one give-way", "timeout", "timeout", number=2000, quick=True
    ),
    Repeated("cancel", "cancel a task that sleeps", "task", "cancel", number=1000),
    Repeated("shutdown", "cancel 10,000 tasks that sleep", "task", "shutdown", number=10_000),
    Repeated("lock", "10 tasks take a lock in turn", "turn", "lock", number=2000),
    Repeated("thread", "call a function in a thread", "call", "thread", number=500),
    *[
        Growth(f"growth-{number}", f"{number:,} tasks at a time", "task", number=number)
        for number in (1000, 10_000, 100_000)
    ],
    *[
        Growth(
            f"growth-{collector}",
            f"100,000 tasks at a time, collector {collector}",
            "task",
            number=100_000,
            collector=collector,
        )
        for collector in ("frozen", "rarely", "off")
    ],
    IdleTasks("idle-task", "memory of an idle task", "task", "shutdown"),
    IdleConnections("idle-connection", "memory of an idle connection", "connection", "echo"),
    Import("import", "`import` of the library", "import"),
    Import("import-all", "import of all its names", "import", statement="from {} import *"),
]
