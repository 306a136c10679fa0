"""Listening: sockets that clients connect to are opened here, and what comes in is accepted.

    tcp_sockets("localhost", 7007, ...)         one socket for each address of the name
    unix_socket("/run/app.sock", ...)           and its file, in the place of a stale one
    inherited(3, ...)                           what another program has opened

    stream = yield from listening.accept()      the next connection, from any of the sockets

All of them are opened by the `Network` of the run, or outside of one by the operating system's.
What becomes of an accepted connection is the matter of `servers.py`.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from corolib.coordination.first import first
from corolib.kernel import (
    ClosedError,
    Documented,
    ReadWait,
    Sleep,
    brief,
    class_name,
    current_scheduler,
    opens,
    waits,
)
from corolib.net.network import address_text, bind_hint, discard, named, network, refusal
from corolib.net.peer_log import Lines, server_log
from corolib.net.streams import Stream

L = TypeVar("L", bound="Listening")
Options = list[tuple[int, int, int]]

BACKLOG = 4096
"""Connections that may wait to be accepted: what Linux allows by default (net.core.somaxconn).
A system that allows less takes less."""

BATCH = 64
"""Connections accepted in one go. With more all others would wait for longer than 1 ms. After as
many that were lost, one after the other, there is a pause: it may be the same one each time."""

PAUSE = 0.1
"""Seconds without accepting, when it fails for want of files or memory."""

PORTS = 16
"""Tries to find one port that is free in every family."""


def _numbers(*names: str) -> frozenset[int]:
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


LOST = _numbers(
    *("ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "EINTR", "ENETDOWN"),
    *("ENETUNREACH", "ENONET", "ENOPROTOOPT", "EPERM", "EPIPE", "EPROTO", "ETIMEDOUT"),
)
"""What accepting fails with when one client is gone, or a firewall has dropped it: accept(2)."""

DEAD = _numbers("EBADF", "EINVAL", "ENOTSOCK")
"""What it fails with when the listening socket itself is no longer one; or when that is so of the
accepted one only."""


# Opening ------------------------------------------------------------------------------------------


def tcp_sockets(
    hosts: Iterable[str | None],
    port: int | str,
    family: int,
    backlog: int,
    reuse_port: bool,
    options: Options,
) -> list[socket.socket]:
    """Return a listening socket for each address of the hosts, all with one port; blocks.

    A host that has several addresses may lack some of them here: IPv6 that is switched off.
    """
    found: list[list[tuple[int, Any]]] = []
    for host in hosts:
        known = [address for addresses in found for address in addresses]
        found.append([a for a in _addresses(host, port, family) if a not in known])
    many = sum(map(len, found)) > 1
    tries = PORTS if many and found[0][0][1][1] == 0 else 1
    while True:
        tries -= 1
        try:
            return _bind_all(found, backlog, reuse_port, options)
        except OSError as exc:
            # The port that the kernel chose in one family may be used in another.
            if exc.errno != errno.EADDRINUSE or not tries:
                raise


def _addresses(host: str | None, port: int | str, family: int) -> list[tuple[int, Any]]:
    flags = socket.AI_PASSIVE
    try:
        infos = network().getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags)
    except OSError as exc:
        raise named(exc, f"{host}:{port}") from None
    return list(dict.fromkeys((info[0], info[4]) for info in infos))


def _bind_all(
    found: list[list[tuple[int, Any]]], backlog: int, reuse_port: bool, options: Options
) -> list[socket.socket]:
    """Return a socket for each address; or none of them, and the error."""
    sockets: list[socket.socket] = []
    port = 0
    try:
        for addresses in found:
            bound, missing = len(sockets), None
            for family, (host, wanted, *rest) in addresses:
                try:
                    address = (host, wanted or port, *rest)
                    sockets.append(_bind(family, address, backlog, reuse_port, options))
                except OSError as exc:
                    if exc.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        raise
                    missing = exc
                else:
                    port = sockets[0].getsockname()[1]
            if missing is not None and len(sockets) == bound:
                raise missing
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind(
    family: int, address: Any, backlog: int, reuse_port: bool, options: Options
) -> socket.socket:
    """Return a socket that listens on one address. Accepted connections inherit the options."""
    try:
        sock = network().socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":  # pragma: no branch - elsewhere it would let others in
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in options:
                sock.setsockopt(*option)
            sock.bind(address)
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        where = f"cannot listen on {address[0]} port {address[1]}"
        text = f"{where}: {exc.strerror}{bind_hint(exc, address[1])}"
        raise OSError(exc.errno, text) from None
    return sock


def unix_socket(
    path: str | bytes, mode: int | None, backlog: int
) -> tuple[socket.socket, SocketFile]:
    """Return a socket that listens on a path, and its file; takes the place of a stale one."""
    sock = network().socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        whole = _from_the_root(path)
        _clear(path)
        sock.bind(path)
        file = SocketFile(whole)
        try:
            if mode is not None:
                # Nobody can connect before listen().
                _set_mode(path, mode)
            sock.listen(backlog)
        except BaseException:
            file.remove()
            raise
    except BaseException as exc:
        sock.close()
        if isinstance(exc, OSError) and exc.filename is None:
            text = f"cannot listen on {brief(path)}: {exc.strerror or exc}"
            raise OSError(exc.errno, text) from None
        raise
    return sock, file


def _clear(path: str | bytes) -> None:
    """Remove a socket's file on which nobody listens any more; refuse if somebody does.

    Two programs that start on one path at the same moment may both get through: then the first
    listens on a file that is gone.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, ValueError):
        # A ValueError is for a name that begins with a zero byte, which has no file.
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "there is a file of another kind", path)
    probe = network().socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
        return
    except OSError:
        # Its backlog is full, or it is of another type: somebody has it open.
        pass
    finally:
        probe.close()
    raise OSError(errno.EADDRINUSE, "another program listens on it", path)


def _from_the_root(path: str | bytes) -> str | bytes:
    """Return a path that leads to the same file when the program has gone to another folder.

    It is not simplified: `..` behind a symbolic link leads somewhere else.
    """
    if path[:1] in ("\0", b"\0", "/", b"/"):
        return path
    if isinstance(path, bytes):
        return os.path.join(os.getcwdb(), path)
    return os.path.join(os.getcwd(), path)


def _set_mode(path: str | bytes, mode: int) -> None:
    """Set the mode of a socket's file. A link that somebody has laid in its place is not followed.

    This is not done by the umask, which all threads share: it would change the files that they
    make meanwhile.
    """
    if not hasattr(os, "O_PATH"):  # pragma: no cover - this is not Linux
        os.chmod(path, mode, follow_symlinks=False)
        return
    # With an older C library, chmod() can follow only.
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise FileExistsError(errno.EEXIST, "another file has taken its place", path)
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


class SocketFile:
    """The file of a Unix socket: removed by the process that made it, if it is still the same."""

    def __init__(self, path: str | bytes) -> None:
        self._path = path
        self._process = os.getpid()
        self._inode = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self._path)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return found.st_dev, found.st_ino

    def remove(self) -> None:
        """Remove it, unless a forked child asks, or another program has taken its place. OSError if
        this may not be done, or not be found out.
        """
        if self._inode is not None and self._process == os.getpid():
            if self._look() == self._inode:
                os.unlink(self._path)
            self._inode = None


def inherited(
    fds: int | Sequence[int], families: Sequence[int], who: str, options: Options | None = None
) -> list[socket.socket]:
    """Return sockets that another program has opened and listens on; it stays their owner's
    business where they are bound.
    """
    sockets: list[socket.socket] = []
    try:
        for fd in (fds,) if isinstance(fds, int) else fds:
            try:
                sock = network().adopt(fd)
            except OSError as exc:
                raise named(exc, f"{who}(fd={fd})") from None
            sockets.append(sock)
            if sock.family not in families or not listens(sock):
                raise ValueError(f"{who}(fd={fd}): this is not a listening socket of that family")
            for option in options or ():
                sock.setsockopt(*option)
    except BaseException:
        for sock in sockets:
            # The files stay the caller's.
            sock.detach()
        raise
    return sockets


def listens(sock: socket.socket) -> bool:
    """Return whether a socket is open and listens."""
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


# Accepting ----------------------------------------------------------------------------------------


class Listening(metaclass=Documented):
    """Listening sockets, from which connections are accepted in turn."""

    __documented__ = "accept close"

    def __init__(
        self,
        sockets: Iterable[socket.socket],
        *,
        file: SocketFile | None = None,
        backlog: int | None = None,
    ) -> None:
        self.log = server_log()
        self._sockets = list(sockets)
        if not self._sockets:
            raise ValueError("a Listener takes at least one listening socket")
        for sock in self._sockets:
            sock.setblocking(False)
        # Each waits until somebody may have come to one of the sockets.
        self.arrivals = [ReadWait(sock) for sock in self._sockets]
        self.addresses = [sock.getsockname() for sock in self._sockets]
        self.place = ", ".join(map(address_text, self.addresses))
        self._file = file
        # Those where more may have come.
        self._ready: deque[socket.socket] = deque()
        # Connections accepted since the last wait.
        self._taken = 0
        # Connections that were lost since one was accepted.
        self._misses = 0
        # Called when there are no more files for connections.
        self.ran_out: Callable[[], object] | None = None
        self.backlog = backlog
        self.batch = BATCH
        self.closed = False
        self.lost = 0
        self.pauses = 0

    @opens
    def accept(self) -> Generator[Any, Any, Stream]:
        """Wait for the next connection, and return it as a stream.

        Connections that were lost before they were accepted are passed over. While the system has
        no files or no memory for a new one, or refuses it for another reason, accepting is tried
        ten times a second, and that is logged, as a warning of "corolib.server", once a second at
        most, whichever listeners of the run it concerns.

        Raises:
            ClosedError: the listener is closed, or was closed during the wait.
            BusyError: another task accepts from it.
            OSError: the socket was shut down, or is no listening one.
            Cancelled: the wait was cancelled; nothing was accepted.
        """
        try:
            return (yield from self.take())
        except ClosedError:
            yield  # a task that is to end is ended by that
            raise

    @waits
    def take(self) -> Generator[Any, Any, Stream]:
        """Do what `accept()` does, at less cost for a call: for servers."""
        while True:
            try:
                if not self._ready or self._taken >= self.batch:
                    yield from self._arrival()
                conn, peer = self._ready[0].accept()
            except BlockingIOError:
                self._ready.popleft()
                continue
            except (OSError, MemoryError) as exc:
                self._taken += 1
                if self._ready and refusal(exc).errno in LOST and self._misses < BATCH:
                    self._misses += 1
                    self.lost += 1
                    continue
                if self.is_dead(exc):
                    raise
                self.report(exc)
            else:
                self._taken += 1
                self._misses = 0
                self._ready.rotate(1)
                try:
                    conn.setblocking(False)
                    return Stream(conn, peer=peer)
                except (OSError, MemoryError) as exc:
                    self.report(exc)
                    with suppress(OSError):
                        conn.close()
            yield Sleep(PAUSE)

    def _arrival(self) -> Generator[Any, Any, None]:
        """Wait until somebody may have come to one of the sockets."""
        self._ready.clear()
        if self.closed:
            raise ClosedError(f"{self!r} is closed")
        if len(self.arrivals) == 1:
            yield self.arrivals[0]
        else:
            yield from first(*self.arrivals)
        self._taken = 0
        self._ready.extend(self._sockets)

    def is_dead(self, exc: OSError | MemoryError) -> bool:
        """Return whether accepting, which has failed so, will never succeed again."""
        if isinstance(exc, ClosedError):
            return True
        if any(sock.fileno() == -1 for sock in self._sockets):
            raise ClosedError(f"{self!r}: the socket was closed")
        return refusal(exc).errno in DEAD and not all(map(listens, self._sockets))

    def report(self, error: OSError | MemoryError) -> None:
        """Say that there is a pause, and why: once a second at most, in a run."""
        exc = refusal(error)
        self._misses = 0
        self.pauses += 1
        if exc.errno in (errno.EMFILE, errno.ENFILE) and self.ran_out is not None:
            self.ran_out()
        with suppress(MemoryError):
            if current_scheduler().run_local(Lines).pauses.passes(str(exc.errno)) is not None:
                self.log.warning("%s: nobody is accepted for %g s: %s", self.place, PAUSE, exc)

    def close(self) -> None:
        """Close the sockets; does not wait. A task that waits to accept gets `ClosedError`.

        Clients that were not accepted yet are refused. The file of a Unix socket is removed, if
        this process has made it. A failure of that, for instance after a change of the user, is
        logged as a warning of "corolib.server".
        """
        if self.closed:
            return
        self.closed = True
        self._ready.clear()
        steps: list[Callable[[], object]] = [partial(discard, sock) for sock in self._sockets]
        if self._file is not None:
            # First: a program that listens there next makes a file of its own.
            steps.insert(0, self._file.remove)
        failures = []
        for step in steps:
            try:
                step()
            except OSError as exc:
                failures.append(exc)
        for failure in failures:
            self.log.warning("%s: while this was closed: %s", self.place, failure)

    def __enter__(self: L) -> L:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{class_name(self)} on {self.place}{', closed' if self.closed else ''}>"
