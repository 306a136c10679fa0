"""Running programs: a text of Python, or the demos, with real clients."""

import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 60  # seconds: for what happens at once unless the machine is very busy
SLOW = "all other tasks waited meanwhile"
"""What the lines have in common that tell of slow steps."""


def python(
    source: str, *options: str, slow_steps: bool = False, **variables: str
) -> tuple[int, str, str]:
    """Run a text of Python in a process of its own; return exit status, output and stderr.

    Args:
        options: those of the interpreter.
        slow_steps: whether to keep what debug mode says of slow steps, as on a busy machine.
        variables: of the environment.
    """
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(source)],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=200,  # below that of a test
    )
    err = done.stderr if slow_steps else without_slow_steps(done.stderr)
    return done.returncode, done.stdout, err


FORKS = """
import json, os, sys
import corolib

folder, one_stream, statuses = sys.argv[1], sys.argv[2] == "True", []
for number, (path, source) in enumerate(json.load(sys.stdin)):
    pid = os.fork()
    if pid == 0:
        for fd in (1, 2):
            if fd == 1 or not one_stream:
                file = os.open(f"{folder}/{number}.{fd}", os.O_WRONLY | os.O_CREAT)
            os.dup2(file, fd)
        break
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
else:
    print(json.dumps(statuses))
    sys.exit()
main = sys.modules["__main__"] = type(sys)("__main__")
if one_stream:
    sys.stdout.reconfigure(write_through=True)
if path != "<string>":
    os.chdir(os.path.dirname(path))
    sys.argv, main.__file__ = [path], path
try:
    exec(compile(source, path, "exec"), vars(main))
except Exception as exc:
    sys.excepthook(type(exc), exc.with_traceback(exc.__traceback__.tb_next), None)
    sys.exit(1)
"""


def pythons(
    sources: Iterable[str], *, paths: list[str] | None = None, **variables: str
) -> list[tuple[int, str, str]]:
    """Run texts of Python one after another, each in a fork of one new process, which has imported
    corolib and has run nothing. To start a process for each takes ten times as long.

    Args:
        paths: of the files in which they stand, each in a folder of its own, where it is run. Then
            what is said on stderr stands between the lines of the output, as at a terminal.
        variables: of the environment.
    """
    texts = [textwrap.dedent(source) for source in sources]
    programs = list(zip(paths or ["<string>"] * len(texts), texts, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", FORKS, folder, str(bool(paths))],
            cwd=ROOT,
            env={**os.environ, **variables},
            input=json.dumps(programs),
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        found = []
        for number, status in enumerate(json.loads(done.stdout)):
            said = [Path(folder, f"{number}.{fd}") for fd in (1, 2)]
            out, err = (path.read_text("utf-8") if path.exists() else "" for path in said)
            found.append((status, out, without_slow_steps(err)))
        return found


def unmeasured() -> dict[str, str]:
    """Return the environment of a program that is not measured for coverage."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def start(*args: str, shell: str = "", **options: Any) -> subprocess.Popen[str]:
    """Start `python -m` with these arguments; `shell` is what a shell does before."""
    command = [sys.executable, "-m", *args]
    if shell:
        command = ["sh", "-c", f'{shell}; exec "$0" "$@"', *command]
    # A shell that starts the tests in the background has them ignore SIGINT, and children inherit
    # that; a handler is not inherited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    # To measure the demos for coverage would cost each program half a second.
    env = unmeasured()
    try:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": env}
        return subprocess.Popen(command, cwd=ROOT, text=True, **{**pipes, **options})
    finally:
        signal.signal(signal.SIGINT, before)


TEMPLATE = """
import argparse, json, os, runpy, signal, sys
from corolib import *

for line in sys.stdin:
    folder, patience, env, args = json.loads(line)
    pid = os.fork()
    if pid == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()
os.setpgid(0, 0)
signal.alarm(patience)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for fd in (1, 2):
    file = os.open(f"{folder}/{fd}", os.O_WRONLY | os.O_CREAT)
    os.dup2(file, fd)
    os.close(file)
os.environ.clear()
os.environ.update(env)
sys.argv = args
runpy.run_module(args[0], run_name="__main__", alter_sys=True)
"""


class Template:
    """A process that has imported corolib. Programs that end by themselves are run in forks of it,
    which takes a third of a new process.
    """

    running: "Template | None" = None

    def __init__(self) -> None:
        self._env = unmeasured()
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = [sys.executable, "-c", TEMPLATE]
        self._process = subprocess.Popen(command, cwd=ROOT, text=True, env=self._env, **pipes)

    def serves(self, env: dict[str, str]) -> bool:
        """Return whether corolib and Python would be the same with these variables."""
        both = env, self._env
        ours, those = ({k: v for k, v in e.items() if k[:6] in ("COROLI", "PYTHON")} for e in both)
        return ours == those

    def outcome(self, args: tuple[str, ...], env: dict[str, str]) -> tuple[int, str, str]:
        assert self._process.stdin and self._process.stdout
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps([folder, PATIENCE, env, args]), file=self._process.stdin, flush=True)
            status = int(self._process.stdout.readline())
            out, err = (Path(folder, fd).read_text("utf-8") for fd in "12")
        return status, out, err

    def __enter__(self) -> None:
        Template.running = self

    def __exit__(self, *exc: object) -> None:
        Template.running = None
        self._process.communicate()


def children_of(pid: int) -> dict[int, str]:
    """Return the numbers of a process' children, and which programs they are."""
    numbers = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return {each: Path(f"/proc/{each}/comm").read_text().strip() for each in numbers}


def outcome(*args: str, **options: Any) -> tuple[int, str, str]:
    """Return exit status, output and stderr of a program that ends by itself."""
    template = Template.running
    if template and not options and template.serves(unmeasured()):
        status, out, err = template.outcome(args, unmeasured())
        return status, out, without_slow_steps(err)
    with start(*args, **options) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return process.returncode, out, without_slow_steps(err)


def dialled(port: int, server: "subprocess.Popen[str]") -> socket.socket:
    """Return a connection to a server that may still be on its way up."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), PATIENCE)
        except ConnectionRefusedError:
            assert server.poll() is None, f"the server ended: {server.communicate()[0]}"
            assert time.monotonic() < give_up, "the server does not listen"
            time.sleep(0.01)


class Program:
    """A server of the demos that runs as a process, on a port of its own.

    `lines` are the first lines that it printed, one for each port that it names as "port N";
    `ports` are these, `port` is the first. Left normally, it must end quietly on Ctrl-C.
    """

    def __init__(
        self, name: str, *args: str, ports: int = 1, host: str = "127.0.0.1", **options: Any
    ) -> None:
        self.host = host
        self.process = start(name, f"--host={host}", "--port=0", *args, **options)
        assert self.process.stdout is not None
        self.lines = [self.process.stdout.readline() for _ in range(ports)]
        if not all(self.lines):
            pytest.fail(f"{name} did not start: {self.stop()}")
        self.ports = [int(number) for number in re.findall(r"port (\d+)", "".join(self.lines))]
        self.port = self.ports[0]

    def connect(self, port: int | None = None) -> socket.socket:
        return socket.create_connection((self.host, port or self.port), timeout=PATIENCE)

    def udp(self, port: int | None = None, bind: tuple[str, int] | None = None) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.settimeout(PATIENCE)
            if bind is not None:
                sock.bind(bind)
            sock.connect((self.host, port or self.port))
        except BaseException:
            sock.close()
            raise
        return sock

    def rests(self) -> None:
        """Wait until it sleeps. Who has been answered by a copy that the program has made of itself
        may be faster than the program, which has still to enter the copy among its children.
        """
        path = Path(f"/proc/{self.process.pid}/stat")
        while path.exists() and path.read_text().rpartition(")")[2].split()[0] == "R":
            time.sleep(0.001)

    def stop(self) -> tuple[int, str, str]:
        """Interrupt it as Ctrl-C does; return exit status, further output and stderr."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
        return self.process.returncode, out, err

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        if self.process.returncode is None:
            status, _, err = self.stop()
            if kind is None:
                assert status == 130, (status, err)
                assert "Traceback" not in err, err


@contextmanager
def serving(handler: Callable[[socket.socket], object]) -> Iterator[int]:
    """Serve each connection by `handler(conn)`, in a thread of its own; gives the port."""

    def serve(conn: socket.socket) -> None:
        with conn:
            try:
                conn.settimeout(PATIENCE)
                handler(conn)
            except OSError:
                pass  # the client is gone

    def accept() -> None:
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=[conn]))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [threading.Thread(target=accept)]
        threads[0].start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # which wakes accept()
            for thread in threads:
                thread.join(PATIENCE)


def read_all(sock: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send all and half-close while reading; return all that comes until the other side closes."""

    def send() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return read_all(sock)
    finally:
        sender.join()


def readable(socks: list[socket.socket], wait: float) -> list[socket.socket]:
    """Return those of the sockets that can be read, waiting for the first."""
    with selectors.DefaultSelector() as selector:
        for sock in socks:
            selector.register(sock, selectors.EVENT_READ)
        ready = {key.fd for key, _ in selector.select(wait)}
        return [sock for sock in socks if sock.fileno() in ready]


def without_slow_steps(err: str) -> str:
    """Return stderr without the slow steps that debug mode tells of: a busy machine has some.

    A program may be in debug mode although these tests are not.
    """
    return "".join(line for line in err.splitlines(keepends=True) if SLOW not in line)


def quiet(err: str) -> bool:
    """Tell whether nothing was said on stderr, except of slow steps."""
    return without_slow_steps(err) == ""


def at_terminal(
    path: Path,
    *options: str,
    watch: Callable[[int, bytes], object] = lambda pid, shown: None,
    **variables: str,
) -> str:
    """Run a file of Python at a terminal of its own, and return all that it shows there.

    Args:
        options: those of the interpreter.
        watch: called each time something is shown, with the number of the process and with all
            that was shown so far.
        variables: of the environment; "" is none.
    """
    import pty

    main, terminal = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COROLIB_DEBUG": "", "TERM": "dumb", **variables}
    with subprocess.Popen(
        [sys.executable, *options, str(path)],
        cwd=path.parent,
        env=env,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as process:
        os.close(terminal)
        shown = bytearray()
        try:
            while data := os.read(main, 65536):
                shown += data
                watch(process.pid, bytes(shown))
        except OSError:
            pass  # that is the end of a terminal, on Linux
        finally:
            os.close(main)
            process.kill()
    return without_slow_steps(shown.decode().replace("\r\n", "\n"))
