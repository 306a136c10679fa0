"""Runs steps of the tour, and tells on demand what they are doing. Not a command; see moment.py.

Each step gets a process of its own, by `fork()`: so one start of Python is enough for all. In it,
and in the processes that it makes, a thread connects to a Unix socket and answers with a line of
JSON to each line:

    settle      who waits in which line, and which sockets are ready: what can be seen at low cost
    look        that, and the tasks, and what is in the selector
    hold        keep the main thread where it was at the last `settle`, until the process is killed
    small       have the connections that are accepted from now on hold little

The step does not know of it. What it waits for is read from its frames and generators, and what is
in the selector from `/proc`: so this needs Linux.
"""

from __future__ import annotations

import gc
import json
import linecache
import os
import re
import runpy
import select
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import CoroutineType, FrameType, GeneratorType
from typing import Any

TOUR = Path(__file__).parents[1] / "tour"
CALL = re.compile(r"(?:yield |await )?[\w.]+\((?:[^()]|\([^()]*\))*\)")
OBJECT = re.compile(r"(?:yield|await) \w+\((\w+)\)|(\w+)\.\w+\(")  # of a trap, or of a method

Look = dict[str, Any]
Asked = dict[int, tuple[list[Any], list[Any]]]  # by thread: what `select.select` was asked


class Probe:
    """The part of a process that answers."""

    def __init__(self, path: str, step: str) -> None:
        self.path = path
        self.step = step
        self.root = os.getpid()
        self.asked: Asked = {}
        self.held = threading.Event()
        self.rests_at = 0  # the line in which the main thread was seen last
        signal.signal(signal.SIGUSR1, self.stand_still)
        select.select = partial(self.select, select.select)
        os.register_at_fork(after_in_child=self.begin)
        self.begin()

    def begin(self) -> None:
        self.thread = threading.Thread(target=self.answer, daemon=True)
        self.thread.start()

    def stand_still(self, _: int, frame: FrameType | None) -> None:
        """Stay here, if it is the place where the main thread has come to rest."""
        inner = inner_frame(frame)
        if inner is not None and inner.f_lineno == self.rests_at:
            self.held.set()
            threading.Event().wait()

    def select(self, real: Callable[..., Any], *args: Any) -> Any:
        """Stand in for `select.select`, which does not tell what it was asked."""
        self.asked[threading.get_ident()] = (list(args[0]), list(args[1]))
        try:
            return real(*args)
        finally:
            del self.asked[threading.get_ident()]

    def answer(self) -> None:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.path)
            first = {"step": self.step, "pid": os.getpid(), "root": os.getpid() == self.root}
            with sock.makefile("rw") as lines:
                self.tell(lines, first)
                for line in lines:
                    self.tell(lines, self.obey(line.strip()))

    def tell(self, lines: Any, answer: object) -> None:
        print(json.dumps(answer), file=lines, flush=True)

    def obey(self, command: str) -> object:
        if command == "hold":
            while not self.held.wait(0.01):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            return True
        if command == "small":
            for sock in sockets():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            return None
        states = [ends(sock) for sock in sockets() if end(sock) is not None]
        found: Look = {"threads": self.threads(), "sockets": dict(states)}
        if command == "look":
            found |= {"tasks": list(tasks()), "selector": self.selector()}
        return found

    def threads(self) -> list[Look]:
        """Return where each thread stands, in the files of the tour."""
        found: list[Look] = []
        for ident, frame in sys._current_frames().items():
            inner = inner_frame(frame)
            if inner is not None and ident != self.thread.ident:
                main = ident == threading.main_thread().ident
                if main and not self.held.is_set():
                    self.rests_at = inner.f_lineno
                found.append(place(inner.f_code.co_name, inner) | {"main": main})
        return found

    def selector(self) -> list[Look]:
        """Return what is in the selector: which file, which direction, whose it is."""
        found: list[Look] = []
        handlers: dict[int, str] = {}
        for each in gc.get_objects():
            if isinstance(each, selectors.BaseSelector) and each.get_map():
                handlers |= {key.fd: handler(key.data) for key in each.get_map().values()}
        for path in Path("/proc/self/fdinfo").iterdir():
            with suppress(OSError):
                for fd, events in re.findall(r"tfd:\s*(\d+) events:\s*(\w+)", path.read_text()):
                    ways = ((select.EPOLLIN, "read"), (select.EPOLLOUT, "write"))
                    asked = [way for bit, way in ways if int(events, 16) & bit]
                    beside = handlers.get(int(fd), "")
                    found.append({"port": port_of(int(fd)), "for": asked, "handler": beside})
        for reading, writing in self.asked.values():
            for files, way in ((reading, "read"), (writing, "write")):
                for each in files:
                    fd = each if isinstance(each, int) else each.fileno()
                    found.append({"port": port_of(fd), "for": [way], "handler": ""})
        return [each for each in found if each["port"] is not None]


def is_ours(filename: str) -> bool:
    """Tell whether a file is one of the steps, or what they share."""
    return Path(filename).parent == TOUR


def inner_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame of the tour, of a thread that is in this one."""
    while frame is not None and not is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def place(name: str, frame: FrameType) -> Look:
    """Return where a frame stands, which call is in that line, and for which socket."""
    code = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    call = (CALL.findall(code) or [code])[0]
    found = OBJECT.match(call)
    value = frame.f_locals.get(found[1] or found[2]) if found else None
    port = end(value) if isinstance(value, socket.socket) else None
    return {"name": name, "code": code, "call": call, "port": port}


def tasks() -> Iterator[Look]:
    """Find the generators and coroutines of the steps that wait in a `yield`."""
    running = [e for e in gc.get_objects() if isinstance(e, GeneratorType | CoroutineType)]
    inner_ones = {id(inner_of(each)) for each in running}
    for each in running:
        chain = list(chain_of(each))
        if id(each) in inner_ones or not chain:
            continue  # it is in another one's chain, or not of the tour
        found = [place(name, frame) for name, frame in chain]
        waits = [each for each in found if each["port"] is not None or "Sleep" in each["code"]]
        best = (waits or found)[-1]
        if "yield" in best["code"] or "await" in best["code"]:
            yield best


def inner_of(each: Any) -> Any:
    return each.gi_yieldfrom if isinstance(each, GeneratorType) else each.cr_await


def chain_of(each: Any) -> Iterator[tuple[str, FrameType]]:
    """Return the names and frames of a task, from the outside inwards."""
    while isinstance(each, GeneratorType | CoroutineType):
        frame = each.gi_frame if isinstance(each, GeneratorType) else each.cr_frame
        if frame is None or sys._current_frames().get(threading.get_ident()) is frame:
            return
        if is_ours(frame.f_code.co_filename):
            yield each.__name__, frame
        each = inner_of(each)


def handler(data: object) -> str:
    """Return the name of what a selector keeps beside a file."""
    if isinstance(data, GeneratorType):
        return ""  # that one is found among the tasks
    if callable(data) and hasattr(data, "__name__"):
        return f"{data.__name__}()"
    return (
        type(data).__name__
        if is_ours(getattr(sys.modules.get(type(data).__module__), "__file__", "") or "")
        else ""
    )


def sockets() -> Iterator[socket.socket]:
    """Return the TCP sockets of this process, as objects of our own."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    if sock.family == socket.AF_INET:
                        yield sock


def port_of(fd: int) -> int | None:
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        return end(sock)
    return None


def end(sock: socket.socket) -> int | None:
    """Return the port of the client; 0 for a listening socket; None for what is none of ours."""
    with suppress(OSError):
        if sock.family != socket.AF_INET:
            return None
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return 0
        return int(sock.getpeername()[1])
    return None


def ends(sock: socket.socket) -> tuple[int, Look]:
    """Return whose a socket is, and what it is ready for."""
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN | select.POLLOUT)
    events = dict(poller.poll(0)).get(sock.fileno(), 0)
    state = {"read": bool(events & select.POLLIN), "write": bool(events & select.POLLOUT)}
    return end(sock) or 0, state | {"at": sock.getsockname()[1]}


def run(path: str, step: str) -> None:
    """Be the process of one step."""
    os.setpgid(0, 0)
    gc.freeze()  # what is there already is none of the step's: it need not be looked through
    sys.argv = [step, "--port=0"]
    Probe(path, step)
    runpy.run_module(step, run_name="__main__", alter_sys=True)


def run_all(path: str, steps: list[str]) -> None:
    """Fork for each step, and wait until all have ended."""
    import corolib  # noqa: F401  (once, for all)

    children = []
    for step in steps:
        pid = os.fork()
        if pid == 0:
            with suppress(KeyboardInterrupt):
                run(path, step)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    run_all(sys.argv[1], sys.argv[2:])
