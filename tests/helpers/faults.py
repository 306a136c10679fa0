"""Sockets that misbehave on purpose, and the network that opens them: a tool of the tests.

    sock = FakeSocket(recv=[LATE, SHORT, errno.ECONNRESET])
    run(main, network=FakeNetwork(sock, hosts={"name": [("127.0.0.1", 80)]}))

A `FakeSocket` is a real socket, one end of a pair, whose methods go through a script first: each
call of a method takes the next outcome of its script, and when that is at its end the method does
what it always does. The other end is `sock.far`. So it can be waited for as any file can, and what
is to be read or written is really there. An outcome is

- a number: the `errno` of the OSError that is raised; `LATE` is that of a call which would have to
  wait: the wait that follows ends at once, in vain. `LATE, LATE`: woken twice in vain;
- an exception: it is raised;
- `Value(x)`: x is returned, and the real method is not called;
- a function, called as `outcome(sock, method, *args)`: `WELL`, `SHORT`, `ONE`, `ZERO`, `CLOSED`,
  `GONE`, `RESET`, `HALF`, `STUCK`, or another.
"""

import errno
import os
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from corolib.net.network import Network

LATE = errno.EAGAIN

Method = Callable[..., Any]

NUMBERS = (
    *("EINTR", "EAGAIN", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "ECONNRESET"),
    *("EPIPE", "ETIMEDOUT", "EHOSTUNREACH", "ENETDOWN", "EPERM", "EBADF", "ENOTCONN"),
)
"""The names of the errors of the fault matrix."""

UNMOVING = ("accept", "close", "getpeername", "getsockname", "shutdown")
"""Calls that move no bytes."""


class Value:
    """An outcome: `value` is returned."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __call__(self, sock: object, method: object, *args: object) -> object:
        return self.value


def limited(limit: Callable[[int], int]) -> Callable[..., Any]:
    """Return the outcome that lets a method have only `limit(n)` of the n bytes it was to move;
    and one that moves none, all.
    """

    def outcome(sock: object, method: Method, *args: Any) -> Any:
        if method.__name__ in UNMOVING:
            return method(*args)
        first, *rest = args
        if isinstance(first, int):  # recv(n)
            return method(limit(first), *rest)
        if isinstance(first, list | tuple):  # sendmsg(buffers)
            whole = b"".join(first)
            return method([whole[: limit(len(whole))]], *rest)
        view = memoryview(first).cast("B")  # send(data), recv_into(buffer)
        return method(view[: limit(len(view))], *rest)

    return outcome


def WELL(sock: object, method: Method, *args: Any) -> Any:  # noqa: N802 - an outcome, as the others
    """Nothing goes wrong: for places in the middle of a script."""
    return method(*args)


SHORT = limited(lambda n: n - 1)
ONE = limited(lambda n: min(n, 1))


def ZERO(sock: object, method: Method, *args: Any) -> Any:  # noqa: N802
    """No byte is moved: the end of the file, or nothing taken."""
    if method.__name__ in UNMOVING:
        return method(*args)
    return {"recv": b"", "recvfrom": (b"", None)}.get(method.__name__, 0)


def CLOSED(sock: "FakeSocket", method: Method, *args: Any) -> Any:  # noqa: N802
    """The socket was closed meanwhile."""
    sock.near.close()
    return method(*args)


def GONE(sock: "FakeSocket", method: Method, *args: Any) -> Any:  # noqa: N802
    """The other side has closed."""
    sock.far.close()
    return method(*args)


def HALF(sock: "FakeSocket", method: Method, *args: Any) -> Any:  # noqa: N802
    """The other side sends no more."""
    sock.far.shutdown(socket.SHUT_WR)
    return method(*args)


def RESET(sock: "FakeSocket", method: Method, *args: Any) -> Any:  # noqa: N802
    """The other side has closed, and refuses what it was sent. (For TCP: see `tcp_pair`.)"""
    sock.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.far.close()
    return method(*args)


def STUCK(sock: "FakeSocket", method: Method, *args: Any) -> None:  # noqa: N802
    """The call would have to wait, now and from now on."""
    sock.script(**{method.__name__: STUCK})
    raise BlockingIOError(LATE, os.strerror(LATE))


class FakeSocket:
    """A socket whose methods follow scripts: see the head of this file.

    Args:
        pair: the two real sockets, if not a new pair. The far one may be None.
        scripts: for each method its outcomes; or one alone.

    Attributes:
        near, far: the real sockets; closing this closes only the near one.
        calls: how often each method was called.
        played: how many outcomes have happened.
        family, address: what a `FakeNetwork` was asked for, and what it was connected to.
    """

    def __init__(self, pair: Any = None, **scripts: Any) -> None:
        self.near: socket.socket
        self.far: Any
        self.near, self.far = socket.socketpair() if pair is None else pair
        self.near.setblocking(False)
        self.family: int = self.near.family
        self.address: Any = None
        self.calls: Counter[str] = Counter()
        self.played = 0
        self._scripts: dict[str, deque[Any]] = {}
        self.script(**scripts)

    def __getattr__(self, name: str) -> Any:
        return partial(self.go, name, getattr(self.near, name))

    def go(self, name: str, method: Method, *args: Any) -> Any:
        """Call a method, or let happen what its script says."""
        self.calls[name] += 1
        script = self._scripts.get(name)
        if not script:
            return method(*args)
        self.played += 1
        return play(self, script.popleft(), method, args)

    def script(self, **scripts: Any) -> None:
        """Let methods follow these scripts from now on."""
        for name, script in scripts.items():
            self._scripts[name] = deque(script if isinstance(script, list | tuple) else [script])

    def connect(self, address: Any) -> None:
        """Be connected, unless the script says otherwise: the pair is."""
        self.address = address
        self.go("connect", lambda address: None, address)

    def setsockopt(self, *args: object) -> None:
        """Options of other families than the pair's mean nothing here."""
        self.calls["setsockopt"] += 1

    def bind(self, address: Any) -> None:
        """Only noted."""
        self.go("bind", lambda address: None, address)

    def fileno(self) -> int:
        return self.near.fileno()

    def close(self) -> None:
        """The socket is closed then, also if that fails: so it is with the real ones."""
        try:
            self.go("close", self.near.close)
        finally:
            self.near.close()

    @property
    def closed(self) -> bool:
        """Whether the library has closed it."""
        return self.near.fileno() == -1

    def fill(self) -> None:
        """Write until there is no more room: nobody who waits to write it is woken."""
        while True:
            try:
                self.near.send(bytes(65536))
            except BlockingIOError:
                return

    def drain(self) -> None:
        """Read at the far end until nothing is left: who waits to write is woken."""
        self.far.setblocking(False)
        while True:
            try:
                self.far.recv(65536)
            except BlockingIOError:
                return

    def discard(self) -> None:
        """Close both ends."""
        self.near.close()
        if self.far is not None:
            self.far.close()


def play(sock: Any, outcome: Any, method: Any, args: tuple[Any, ...]) -> Any:
    """Let an outcome happen."""
    if isinstance(outcome, BaseException):
        raise outcome
    if isinstance(outcome, int):
        raise OSError(outcome, os.strerror(outcome))
    return outcome(sock, method, *args)


class FakeNetwork(Network):
    """Hands out the sockets it was given, in order; an errno or exception among them is raised.

    Args:
        sockets: `FakeSocket`s, errnos and exceptions. When they are at their end, real sockets.
        hosts: for each name its addresses, (host, port) or (host, port, flow, scope), in order;
            or an exception. Others are asked of the real network.

    `with FakeNetwork(...) as network:` closes all sockets at the end. `opened` lists those that
    were handed out, `asked` the names that were looked up, not those that are numeric.
    """

    def __init__(self, *sockets: Any, hosts: dict[str, Any] | None = None) -> None:
        self.sockets = deque(sockets)
        self.hosts = hosts or {}
        self.opened: list[FakeSocket] = []
        self.asked: list[str] = []

    def socket(self, family: int, kind: int, proto: int = 0) -> Any:
        if not self.sockets:
            return super().socket(family, kind, proto)
        sock = self.sockets.popleft()
        if not isinstance(sock, FakeSocket):
            play(None, sock, None, ())
        sock.family = family
        self.opened.append(sock)
        return sock

    def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, kind: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        if host not in self.hosts:
            return super().getaddrinfo(host, port, family, kind, proto, flags)
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.asked.append(host)
        found = self.hosts[host]
        if isinstance(found, BaseException):
            raise found
        infos = [(socket.AF_INET6 if ":" in a[0] else socket.AF_INET, a) for a in found]
        return [(f, kind, proto, "", a) for f, a in infos if family in (0, f)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in [*self.opened, *self.sockets]:
            if isinstance(sock, FakeSocket):
                sock.discard()
