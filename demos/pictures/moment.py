"""One moment in the run of a step: what its process says of itself, when its clients have acted.

Three clients connect. Ann says hello, gets it back, and is silent. Bob sends a lot, and does not
read. Cleo is silent. When nothing changes any more, the server is held where it stands; then Cleo
says hello, and Dan connects. So at that moment something is ready, and something waits.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

TOUR = Path(__file__).parents[1] / "tour"
MUCH = 200_000  # bytes: more than the server's small buffers hold
PAUSE = 0.03  # seconds
RESTS = 3  # so many pauses in which nothing has changed: then it is settled
PATIENCE = 20.0  # seconds
NAMES = ("Ann", "Bob", "Cleo", "Dan")
TOLD = ("_errors", "_cancel", "_join")  # their pictures tell what happens: see `story`


class Wait(NamedTuple):
    """Somebody who waits in a line of the step."""

    who: str  # the function; "main" is the first thread
    call: str  # the call, or the trap, that it waits in
    code: str  # the whole line
    on: str  # a client, "listener", or "" for neither
    kind: str  # "process", "thread" or "task"


class Moment(NamedTuple):
    """What is to be drawn of a step."""

    title: str
    waits: tuple[Wait, ...]
    selector: dict[str, tuple[tuple[str, ...], str]]  # whom it is asked about: ways, handler
    accepted: dict[str, tuple[bool, bool]]  # can be read, can be written
    queue: tuple[str, ...]  # those who are not accepted yet

    def asked(self) -> dict[str, set[str]]:
        """Return what each socket is waited for: "read", "write"."""
        found = {name: set(ways) for name, (ways, _) in self.selector.items()}
        for wait in self.waits:
            if wait.on:
                way = "write" if re.search(r"send|Write", wait.call) else "read"
                found.setdefault(wait.on, set()).add(way)
        return found

    def can(self) -> dict[str, set[str]]:
        """Return what can be done with each socket, without waiting."""
        found: dict[str, set[str]] = {"listener": {"read"} if self.queue else set()}
        for name, (reads, writes) in self.accepted.items():
            states = {"read": reads, "write": writes}
            found[name] = {way for way, is_so in states.items() if is_so}
        return found

    def ready(self) -> list[str]:
        """Return those who have got what they are waited for."""
        asked = self.asked()
        return [name for name, ways in self.can().items() if ways & asked.get(name, set())]

    def unheard(self) -> list[str]:
        """Return those who have something to read, and nobody waits for them at all."""
        asked = self.asked()
        return [name for name, ways in self.can().items() if "read" in ways and not asked.get(name)]

    def held_up(self) -> list[str]:
        """Return those who are waited for to read first: nothing is read from them meanwhile."""
        asked = self.asked()
        return [n for n, ways in self.can().items() if "read" in ways and asked.get(n) == {"write"}]


def steps() -> dict[str, str]:
    """Return the steps that show a moment: the name of each picture, and the module.

    They are the servers, but for those whose tasks wait as those of another one do.
    """
    found = {}
    for path in sorted(TOUR.glob("step*.py")):
        if "port=7007" in path.read_text("utf-8") and not path.stem.endswith(TOLD):
            found[re.sub(r"^step\w*?_", "", path.stem)] = f"demos.tour.{path.stem}"
    return found


def title_of(module: str) -> str:
    """Return the first line of a step, without its number."""
    source = TOUR.joinpath(f"{module.rpartition('.')[2]}.py").read_text("utf-8")
    words = source.partition("\n")[0].strip('"').rpartition("of the tour: ")[2].rstrip(".")
    words = words.partition(";")[0].replace("`", "")
    return words if "`" in source.partition("\n")[0][:30] else words[0].upper() + words[1:]


class Process:
    """A process of a step, by the thread in it that answers."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.lines = sock.makefile("rw")
        self.about: dict[str, Any] = json.loads(self.lines.readline())

    def ask(self, command: str) -> Any:
        print(command, file=self.lines, flush=True)
        return json.loads(self.lines.readline())

    def close(self) -> None:
        """End the process, too."""
        with suppress(ProcessLookupError):
            os.kill(self.about["pid"], signal.SIGKILL)
        with self.sock, self.lines:
            pass


class Run:
    """A step that runs, with its processes: the first one, and those that it has made."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.processes: list[Process] = []

    def ask(self, command: str) -> list[Any]:
        """Return the answers of all processes, without those that have ended."""
        found = []
        for process in list(self.processes):
            with suppress(OSError, ValueError):
                found.append(process.ask(command))
        return found

    def first(self) -> Process:
        return next(each for each in self.processes if each.about["root"])

    def settle(self) -> None:
        """Wait until nothing changes any more."""
        deadline = time.monotonic() + PATIENCE
        before: object = None
        rests = 0
        while rests < RESTS:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.step} does not come to rest")
            now = self.ask("settle")
            rests, before = rests + 1 if now == before else 0, now
            time.sleep(PAUSE)

    def port(self) -> int:
        """Return the port on which it listens."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for each in self.processes:
                if listener := each.ask("settle")["sockets"].get("0"):
                    return int(listener["at"])
            time.sleep(0.005)
        raise TimeoutError(f"{self.step} does not listen")


@contextmanager
def running(modules: list[str]) -> Iterator[dict[str, Run]]:
    """Run steps, all at the same time."""
    runs = {module: Run(module) for module in modules}
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as control:
        path = str(Path(folder) / "control")
        control.bind(path)
        control.listen(100)
        command = [sys.executable, "-m", "demos.pictures.probe", path, *modules]
        nowhere = subprocess.DEVNULL
        with ThreadPoolExecutor(1) as pool, subprocess.Popen(command, stdout=nowhere) as probe:
            try:
                pool.submit(take, control, runs)
                deadline = time.monotonic() + PATIENCE
                while not all(run.processes for run in runs.values()):
                    if time.monotonic() > deadline or probe.poll() is not None:
                        raise TimeoutError("not all steps have started")
                    time.sleep(0.005)
                yield runs
            finally:
                for run in runs.values():
                    for process in run.processes:
                        process.close()
                control.shutdown(socket.SHUT_RDWR)


def take(control: socket.socket, runs: dict[str, Run]) -> None:
    """Accept the processes of all runs."""
    with suppress(OSError):
        while True:
            process = Process(control.accept()[0])
            runs[process.about["step"]].processes.append(process)


def look(run: Run) -> Moment:
    """Be the clients of a step, and return the moment."""
    with ExitStack() as stack:
        address = ("127.0.0.1", run.port())
        run.ask("small")

        def connect() -> socket.socket:
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(PATIENCE)
            sock.connect(address)
            return sock

        ann = connect()
        ann.sendall(b"hello")
        ann.recv(100)
        bob = connect()
        bob.sendall(bytes(MUCH))
        cleo = connect()
        run.settle()
        run.first().ask("hold")
        cleo.sendall(b"hello")
        dan = connect()
        run.settle()
        ports = {
            sock.getsockname()[1]: name
            for sock, name in zip((ann, bob, cleo, dan), NAMES, strict=True)
        }
        return moment(run.step, run.ask("look"), {0: "listener", **ports})


def moment(step: str, looks: list[Any], names: dict[int, str]) -> Moment:
    """Put together what the processes of a step have said."""
    waits: set[Wait] = set()
    selector: dict[str, tuple[tuple[str, ...], str]] = {}
    states: dict[str, tuple[bool, bool]] = {}
    for found in looks:
        places = [(each, "task") for each in found["tasks"]]
        kind = "thread" if len(looks) == 1 else "process"
        places += [(each, kind) for each in found["threads"]]
        for each, kind in places:
            name = "main" if each.get("main") and "0" in found["sockets"] else each["name"]
            on = names.get(each["port"], "")
            waits.add(Wait(name, each["call"], each["code"], on, kind))
        for each in found["selector"]:
            ways, handler = selector.get(names[each["port"]], ((), ""))
            ways = (*ways, *each["for"])
            selector[names[each["port"]]] = (ways, each["handler"] or handler)
        for port, state in found["sockets"].items():
            states[names[int(port)]] = (state["read"], state["write"])
    accepted = {name: states[name] for name in NAMES if name in states}
    queue = tuple(name for name in NAMES if name not in accepted)
    order = ["listener", *NAMES, ""]
    ordered = sorted(waits, key=lambda wait: (order.index(wait.on), wait))
    listed = {name: selector[name] for name in order if name in selector}
    return Moment(title_of(step), tuple(ordered), listed, accepted, queue)


def moments(names: list[str] | None = None) -> dict[str, Moment]:
    """Run steps (None: all), and return the moment of each, under the name of its picture."""
    known = steps()
    wanted = {name: known[name] for name in names or known}
    with running(list(wanted.values())) as runs, ThreadPoolExecutor(len(wanted)) as pool:
        looks = {name: pool.submit(look, runs[module]) for name, module in wanted.items()}
        return {name: future.result() for name, future in looks.items()}
