"""The processes of a measurement: a server on one core, the load on another, and what they cost.

with Server("curio", "echo") as server, Load(server.port, "tcp", 100, 0, 1024, 1024) as load:
    before = server.cpu()
    run = load.order("time 0.2")
    print((server.cpu() - before) / run.exchanges)
"""

from __future__ import annotations

import functools
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from demos.bench.compiler import compiled
from demos.bench.work import resident

ROOT = Path(__file__).parent.parent.parent
SOURCE = Path(__file__).with_name("load.c")
LIBRARIES = ("-DTLS", "-lssl", "-lcrypto")
PATIENCE = 180  # seconds that an answer may take


class Failed(Exception):
    """A process of a contestant, or the load, ended or said something else than expected."""


def cores() -> tuple[int, int]:
    """Return the core for the servers and that for the load; the same one if there is no other.

    Two threads of one core would disturb each other: they are taken only if there is nothing else.
    """
    allowed = sorted(os.sched_getaffinity(0))
    first = allowed[0]
    siblings = Path(f"/sys/devices/system/cpu/cpu{first}/topology/thread_siblings_list")
    try:
        near = {int(number) for number in re.split("[-,]", siblings.read_text())}
    except (OSError, ValueError):
        near = {first}
    far = [each for each in allowed if each not in near] or allowed
    return first, far[-1]


def plain_environment() -> dict[str, str]:
    """Return the environment without what would have Python do more than run the program, have the
    C library allocate in another way than it does by itself, or set up a contestant's loop.
    """
    names = ("COVERAGE", "COROLIB", "PYTHON", "MALLOC_", "GLIBC_TUNABLES", "GEVENT", "LIBEV", "UV_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(names)}
    kept["PYTHONHASHSEED"] = "0"
    kept["COROLIB_DEBUG"] = "0"  # else a terminal would switch it on
    return kept


class Child:
    """A process that is told something in a line, and answers with one. `with` ends it."""

    def __init__(self, command: list[str], core: int | None = None, root: Path = ROOT) -> None:
        self.name = " ".join(command[-6:])
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            cwd=root,
            env=plain_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        self._said = b""
        if core is not None:
            os.sched_setaffinity(self.process.pid, {core})

    def read(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        while b"\n" not in self._said:
            ready = poll.poll(PATIENCE * 1000)
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not data:
                why = f"ended: {self.complaint()}" if ready else f"said nothing for {PATIENCE} s"
                self.close()
                raise Failed(f"{self.name} {why}")
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()

    def tell(self, line: str) -> str:
        """Say a line to it; return the answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its end is seen in a moment
        return self.read()

    def complaint(self) -> str:
        """Return the last thing it said on stderr."""
        self.errors.seek(0)
        return (self.errors.read().strip().splitlines() or ["it said nothing"])[-1]

    def end(self, pid: int, number: int = signal.SIGTERM) -> None:
        """Signal a process that is this one or was started by it; wait for this one's end."""
        try:
            if self.process.poll() is None:
                os.kill(pid, number)
            self.process.wait(PATIENCE)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.end(self.process.pid, signal.SIGKILL)
        for file in (self.process.stdin, self.process.stdout, self.errors):
            if file is not None:
                try:
                    file.close()
                except BrokenPipeError:
                    pass


class Server(Child):
    """A contestant's server; `tool` is a command that it runs under, `root` where the code is."""

    def __init__(
        self,
        name: str,
        job: str,
        core: int | None = None,
        *,
        tool: tuple[str, ...] = (),
        memory: bool = False,
        shipped: bool = False,
        root: Path = ROOT,
    ) -> None:
        self.pid = 0
        options = ["--memory"] * memory + ["--as-shipped"] * shipped
        python = [sys.executable, "-m", "demos.bench.serve"]
        super().__init__([*tool, *python, name, job, *options], core, root)
        found = re.search(r"port (\d+), process (\d+)", self.read())
        assert found is not None
        self.port, self.pid = map(int, found.groups())
        # The kernel's name for the clock that counts what all threads of a process have used.
        self._clock = (~self.pid << 3) | 2

    def __enter__(self) -> Server:
        return self

    def close(self) -> None:
        if self.pid not in (0, self.process.pid) and self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)  # a tool that is killed would leave it behind
        super().close()

    def cpu(self) -> float:
        """Return the seconds of CPU, user's and system's, that it has used."""
        return time.clock_gettime(self._clock)

    def faults(self) -> int:
        """Return how often it used a page of memory that the kernel had to provide first."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[7])  # minflt, the tenth of all

    def resident(self) -> int:
        return resident(self.pid)

    def in_use(self) -> int:
        """Return the bytes that Python has in use, with `memory=True`."""
        return int(self.tell(""))


@dataclass(frozen=True)
class Run:
    """What the load has seen in one run; latencies are in microseconds."""

    exchanges: int
    seconds: float
    cpu: float
    p50: float
    p99: float
    p999: float


class Load(Child):
    """The load on a server's port: see `load.c`."""

    def __init__(
        self,
        port: int,
        kind: str,
        connections: int,
        idle: int,
        send: int,
        expect: int,
        line: int = 1 << 30,
        core: int | None = None,
    ) -> None:
        numbers = [str(each) for each in (port, connections, idle, send, expect, line)]
        super().__init__([*load_command(kind == "tls"), kind, *numbers], core)
        if (said := self.read()) != "ready":
            self.close()
            raise Failed(f"the load said {said!r}")

    def __enter__(self) -> Load:
        return self

    def order(self, order: str) -> Run:
        exchanges, *rest = self.tell(order).split()
        return Run(int(exchanges), *map(float, rest))


@functools.cache
def load_command(tls: bool) -> list[str]:
    """Return the command of the load: in C where that can be compiled, in Python else."""
    if os.environ.get("COROLIB_BENCH_LOAD") != "python":
        made = compiled(SOURCE, *LIBRARIES, "-lm")
        if made is None and not tls:  # without OpenSSL's headers
            made = compiled(SOURCE, "-lm")
        if made is not None:
            return [made]
    return [sys.executable, "-m", "demos.bench.load"]
