"""One cell of the matrix: a program, a system call, an error, and when; and what came of it.

`strace` is attached to a program that runs. From then on the call fails: once (the first, second or
third time that it is made), or each time, until `strace` is taken away. What must hold:

    it lives        the program goes on, and ends in order when it is told to
    it answers      after one error: a client, another than the one whom it may have hit
    it hears        when the errors have ended: a client, and one who was connected before
                    (he may have been sent away, but not forgotten)
    it rests        no loop turns without end meanwhile
    it is brief     what is logged is at most a line a second of each kind, beside those that tell
                    of one connection
"""

import errno
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.helpers.programs import start
from tests.net.system_errors.expected import expected

KINDS = "server", "tls", "threads", "udp", "client"

ONCE = "1", "2", "3"
ALWAYS = "1+"
"""When the call fails, as `strace` takes it."""

MANUAL = {
    "accept4": "EAGAIN EBADF ECONNABORTED EFAULT EINTR EINVAL EMFILE ENFILE ENOBUFS ENOTSOCK "
    "EOPNOTSUPP EPERM EPROTO",
    "bind": "EACCES EADDRINUSE EADDRNOTAVAIL EBADF EFAULT EINVAL ENOMEM ENOTSOCK",
    "close": "EBADF EINTR EIO ENOSPC",
    "connect": "EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF ECONNREFUSED "
    "EFAULT EINPROGRESS EINTR EISCONN ENETUNREACH ENOTSOCK EPROTOTYPE ETIMEDOUT",
    "epoll_create1": "EINVAL EMFILE ENFILE ENOMEM",
    "epoll_ctl": "EBADF EEXIST EINVAL ELOOP ENOENT ENOMEM ENOSPC EPERM",
    "epoll_wait": "EBADF EFAULT EINTR EINVAL",
    "fcntl": "EACCES EAGAIN EBADF EBUSY EFAULT EINTR EINVAL EMFILE EPERM",
    "getpeername": "EBADF EFAULT EINVAL ENOBUFS ENOTCONN ENOTSOCK",
    "getsockname": "EBADF EFAULT EINVAL ENOBUFS ENOTSOCK",
    "getsockopt": "EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK",
    "ioctl": "EBADF EFAULT EINVAL ENOTTY",
    "poll": "EFAULT EINTR EINVAL ENOMEM",
    "read": "EAGAIN EBADF EFAULT EINTR EINVAL EIO EISDIR",
    "recvfrom": "EAGAIN EBADF ECONNREFUSED EFAULT EINTR EINVAL ENOMEM ENOTCONN ENOTSOCK",
    "sendto": "EACCES EAGAIN EALREADY EBADF ECONNRESET EDESTADDRREQ EFAULT EINTR EINVAL EISCONN "
    "EMSGSIZE ENOBUFS ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP EPIPE",
    "setsockopt": "EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK",
    "shutdown": "EBADF EINVAL ENOTCONN ENOTSOCK",
    "socket": "EACCES EAFNOSUPPORT EINVAL EMFILE ENFILE ENOBUFS EPROTONOSUPPORT",
    "write": "EAGAIN EBADF EDESTADDRREQ EDQUOT EFAULT EFBIG EINTR EINVAL EIO ENOSPC EPERM EPIPE",
}
"""The errors that the manual pages of Linux name for each call, in their section 2."""
MANUAL |= {"recvmsg": MANUAL["recvfrom"], "sendmsg": MANUAL["sendto"]}

ANY = "EINTR", "ENOMEM", "ENOBUFS", "EIO", "EMFILE", "ENFILE", "ENOSPC", "EPERM"
"""What any call may fail with, whatever its manual says."""

WHILE = 1.0  # seconds for which a call fails each time
LIMIT = 60.0  # seconds that an answer may take, on a busy machine
ROUND = 0.4  # seconds for an answer while it is unknown whether there will be one
MESSAGE = b"x" * 64

RATE, EACH = 400, 60
"""Calls a second, and for each connection, above which the program does not rest. One that turns
without end makes some thousands, also under `strace`."""


class Cell(NamedTuple):
    library: str
    kind: str
    call: str
    error: str
    when: str

    def __str__(self):
        times = "always" if self.when == ALWAYS else f"once, call {self.when}"
        return f"{self.library} {self.kind}: {self.call} {self.error} {times}"


def errors_of(call):
    return sorted({*MANUAL.get(call, "").split(), *ANY})


def reason_to_skip():
    """Return why nothing can be tried here, or ""."""
    if shutil.which("strace") is None:
        return "there is no strace here"
    with subprocess.Popen(["sleep", "100"]) as victim:
        try:
            with Tracer(victim.pid, "read", "EIO", "60000"):
                return ""
        except Forbidden as exc:
            return str(exc)
        finally:
            victim.kill()


class Forbidden(Exception):
    """The system does not let a program be traced."""


class Tracer:
    """`strace`, attached to a process: `with` it, the process is traced."""

    def __init__(self, pid, call, error="", when=""):
        self._dir = tempfile.TemporaryDirectory()
        self._out = Path(self._dir.name, "calls")
        calls = call if call.startswith("%") else f"{call},epoll_wait"
        inject = [f"--inject={call}:error={error}:when={when}"] if error else []
        argv = ["strace", "-f", "-qq", "-o", self._out, "-e", f"trace={calls}", *inject]
        self._pid = pid
        self._process = subprocess.Popen(
            [*argv, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self):
        status = Path(f"/proc/{self._pid}/status")
        while self._process.poll() is None:
            with suppress(OSError):
                if "TracerPid:\t0\n" not in status.read_text():
                    return self
            time.sleep(0.005)
        raise Forbidden(self._process.stderr.read().strip() or "strace cannot trace here")

    def lines(self):
        """Return the calls that were made, as `strace` writes them."""
        with suppress(FileNotFoundError):
            return self._out.read_text(errors="replace").splitlines()
        return []

    def hits(self):
        """Return how many calls were made to fail."""
        return sum("(INJECTED)" in line for line in self.lines())

    def __exit__(self, *exc):
        self._process.terminate()
        self._process.communicate()
        self.calls = self.lines()
        self._dir.cleanup()


@dataclass
class Verdict:
    """What came of a cell: `wrong` has a word for each thing that did not hold."""

    cell: Cell
    reached: bool
    wrong: list[str]
    calls: int
    records: Counter

    def result(self):
        """Return the verdict in a word or two."""
        if not self.reached:
            return "not reached"
        return "wrong" if self.unexpected() else "differs" if self.wrong else "right"

    def unexpected(self):
        """Return the words that `expected.py` does not expect."""
        return [word for word in self.wrong if word != expected(self.cell)]

    def __str__(self):
        if not self.reached:
            return f"{self.cell}: not reached"
        said = ", ".join(f"{count} x {text}" for text, count in self.records.most_common(3))
        return f"{self.cell}: {' '.join(self.wrong) or 'ok'} [{self.calls} calls] {said}"


class Program:
    """One of the programs, running; `try_cell` may be called again and again."""

    def __init__(self, library, kind):
        self.library, self.kind = library, kind
        self._stack = ExitStack()
        self._rounds = 0

    def __enter__(self):
        with ExitStack() as stack:
            self._log = stack.enter_context(tempfile.NamedTemporaryFile("r"))
            argv = ["tests.net.system_errors.programs", self.library, self.kind]
            if self.kind == "client":
                self._peer = stack.enter_context(EchoServer())
                argv.append(str(self._peer.port))
            # In debug mode slow steps would be logged, and under `strace` each may be slow.
            env = {**os.environ, "COROLIB_DEBUG": "0"}
            with open(self._log.name, "w") as log:
                self._process = start(*argv, stderr=log, env=env)
            stack.callback(self._end)
            if self.kind != "client":
                self._port = int(self._process.stdout.readline())
            self._held = None
            stack.callback(self._let_go)
            if not self._answers(LIMIT):
                raise RuntimeError(f"{self.library} {self.kind} does not run")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        self._stack.close()

    def _end(self):
        self._process.kill()
        self._process.communicate()

    def ends(self):
        """Tell the program to end; return whether it does, in order."""
        self._process.terminate()
        try:
            status = self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            return False
        # What answers no SIGTERM is ended by it.
        return status in (0, -signal.SIGTERM)

    @property
    def pid(self):
        return self._process.pid

    def _said(self):
        """Return what was logged: the first line of each record, without numbers."""
        text = Path(self._log.name).read_text(errors="replace")
        return [re.sub(r"\d+", "N", line) for line in text.splitlines() if line.startswith("LOG ")]

    # Asking -----------------------------------------------------------------------------------

    def _answers(self, within):
        """Return whether the program answers in so many seconds."""
        end = time.monotonic() + within
        while True:
            self._rounds += 1
            left = end - time.monotonic()
            if self.asked(max(min(left, 2.0), 0.05)):
                return True
            if left <= 0 or self._process.poll() is not None:
                return False
            time.sleep(0.02)

    def asked(self, within):
        """Ask once; return whether there was an answer."""
        if self.kind == "client":
            return self._peer.served(within)
        if self.kind == "udp":
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.settimeout(within)
                with suppress(OSError):
                    sock.connect(("127.0.0.1", self._port))
                    sock.send(MESSAGE)
                    return sock.recv(100) == MESSAGE
            return False
        try:
            # Two at once: with the one that is held, one more than there are places.
            with ExitStack() as stack:
                for sock in [stack.enter_context(self._dial(within)) for _ in range(2)]:
                    with self._secured(sock) as client:
                        if not echoed(client):
                            return False
            if self._held is None:
                self._held = self._secured(self._dial(within))
        except OSError:
            return False
        return self._held_is_answered()

    def _held_is_answered(self):
        """Return whether the one who was connected is answered. If he is sent away, let him go."""
        try:
            if echoed(self._held):
                return True
        except TimeoutError:
            return False
        except OSError:
            pass
        self._let_go()
        return False

    def _secured(self, sock):
        return CLIENT.wrap_socket(sock) if self.kind == "tls" else sock

    def _dial(self, within):
        return socket.create_connection(("127.0.0.1", self._port), within)

    def _forgotten(self):
        """Return whether the one who was connected is neither answered nor sent away."""
        if self._held is None:
            return False
        self._held.settimeout(LIMIT)
        return not self._held_is_answered() and self._held is not None

    def _let_go(self):
        if self._held is not None:
            self._held.close()
            self._held = None

    # One cell ---------------------------------------------------------------------------------

    def try_cell(self, cell):
        wrong = []
        self._rounds = 0
        said = Counter(self._said())
        began = time.monotonic()
        with Tracer(self.pid, cell.call, cell.error, cell.when) as tracer:
            if cell.when == ALWAYS:
                end = began + WHILE
                while time.monotonic() < end and self._process.poll() is None:
                    self._answers(ROUND)
                    time.sleep(0.05)
            else:
                end = began + LIMIT
                tries = 0
                while not tracer.hits() and tries < 4 and self._process.poll() is None:
                    tries += 1
                    self._answers(ROUND)
                if tracer.hits() and not self._answers(LIMIT):
                    wrong.append("unanswered")
            reached = bool(tracer.hits())
            took = time.monotonic() - began
        if self._process.poll() is not None:
            wrong.append("died")
        else:
            if self._forgotten():
                wrong.append("forgets")
            self._let_go()
            if not self._answers(LIMIT):
                wrong.append("deaf")
        calls = len(tracer.calls)
        connections = 3 * self._rounds
        if calls > RATE * took + EACH * connections:
            wrong.append("spins")
        records = Counter(self._said()) - said
        if any(
            count > took + 2 + (connections if of_one(record) else 0)
            for record, count in records.items()
        ):
            wrong.append("loud")
        return Verdict(cell, reached, wrong, calls, records)


def of_one(record):
    """Return whether what was logged is about one connection."""
    return "N.N.N.N:N" in record


def echoed(sock):
    sock.sendall(MESSAGE)
    data = b""
    while len(data) < len(MESSAGE):
        more = sock.recv(100)
        if not more:
            return False
        data += more
    return True


def _client_context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


CLIENT = _client_context()


class EchoServer:
    """Answers the client, in a thread; counts whom it has served to the end."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        self._count = 0
        self._more = threading.Condition()

    def __enter__(self):
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self):
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            with conn, suppress(OSError):
                conn.settimeout(0.5)
                data = conn.recv(1000)
                conn.sendall(data)
                if data and not conn.recv(1000):
                    with self._more:
                        self._count += 1
                        self._more.notify_all()

    def served(self, within):
        """Return whether one more is served in so many seconds."""
        with self._more:
            before = self._count
            return self._more.wait_for(lambda: self._count > before, within)

    def __exit__(self, *exc):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def calls_of(program):
    """Return the system calls on files that a program makes, once it has started."""
    with Tracer(program.pid, "%desc,%network,%file") as tracer:
        for _ in range(3):
            program.asked(LIMIT)
    names = {re.match(r"\d+ +(\w+)\(", line) for line in tracer.calls}
    return sorted({match[1] for match in names if match})


def cells(library, kind, calls, whens=(*ONCE, ALWAYS)):
    """Return all cells of a program."""
    return [
        Cell(library, kind, call, error, when)
        for call in calls
        for error in errors_of(call)
        for when in whens
        if hasattr(errno, error)
    ]


def try_all(wanted, program=None):
    """Try these cells, of one program; yield the verdicts. One that has failed is replaced.

    Args:
        program: one that runs, to begin with; it is ended.
    """
    try:
        for cell in wanted:
            if program is None:
                program = Program(cell.library, cell.kind).__enter__()
            verdict = program.try_cell(cell)
            yield verdict
            if verdict.wrong:
                program.__exit__()
                program = None
        if program is not None and not program.ends():
            yield Verdict(wanted[-1], True, ["does not end"], 0, Counter())
    finally:
        if program is not None:
            program.__exit__()
