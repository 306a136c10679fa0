"""Started by systemd: the sockets that it has opened for this program, and messages to it.

    listeners = inherited_listeners()           {"web.socket": <Listener on 0.0.0.0:80>}
    datagrams = inherited_datagrams()           {"dns.socket": [<DatagramSocket ...>]}
    notify_systemd("READY=1")                   with Type=notify in the unit

Environment variables, inherited sockets and one datagram: nothing here needs systemd or a library
of its, and all of it does nothing where another program has started this one. No call waits.

The servers never send anything by themselves: what it means to be ready, and which process says
so, is known to the program alone. Inherited sockets that systemd has not announced are for
`listen_tcp(fd=)`.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import NamedTuple

from corolib.kernel import brief, public
from corolib.net.datagrams import DatagramSocket
from corolib.net.listening import inherited
from corolib.net.network import discard, network
from corolib.net.servers import Listener

FIRST = 3
"""The number of the first socket, SD_LISTEN_FDS_START: before it are the three standard files."""

DIGITS = 9
"""A number of files has no more: file numbers are C ints."""

UNNAMED = "unknown"
"""What sd_listen_fds_with_names() says where there are no names."""

VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class _HandedOver(NamedTuple):
    """What this program was given, by name."""

    listeners: dict[str, Listener]
    datagrams: dict[str, list[DatagramSocket]]


# What was found in the variables, which are then removed.
_handed_over = _HandedOver({}, {})


@public
def inherited_listeners() -> dict[str, Listener]:
    """Return the listening sockets that systemd has opened for this program, by name.

    Does not wait; call it at the start, before a run or inside of one. The name is that of the
    socket unit (`web.socket`), or its `FileDescriptorName=`, and "unknown" where there is none.
    Sockets of one name are one listener, in their order. They go on listening, for systemd, when
    the listener is closed: clients wait for the next start of the program. Sockets for datagrams
    are found by `inherited_datagrams()`; files of other kinds are left open as they are.

    The environment variables LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES are removed, so that
    programs started from here do not take the sockets for theirs. Another call returns the same.

    Returns:
        A dict, which is empty if nothing was handed over, or something to another process.

    Raises:
        ValueError: the variables contradict each other, or a socket is for one connection, and does
            not listen. All stay open as they are, and so do the variables.
        OSError: one of these files is not open.

    Example:
        >>> import corolib
        >>> listeners = corolib.inherited_listeners()
        >>> listener = listeners.get("web.socket") or corolib.listen_tcp("127.0.0.1", 0)
        >>> listener.close()

    Source: sd_listen_fds(3), sd_listen_fds_with_names(3), systemd.socket(5).
    """
    _take()
    return _handed_over.listeners.copy()


@public
def inherited_datagrams() -> dict[str, list[DatagramSocket]]:
    """Return the sockets for datagrams that systemd has opened for this program, by name.

    Does not wait. A unit may have several, as one for IPv4 and one for IPv6, and listening sockets
    of the same name besides. For all else see `inherited_listeners()`.

    Returns:
        A dict, which is empty if there are none.

    Raises:
        ValueError, OSError: as `inherited_listeners()`.

    Example:
        >>> import corolib
        >>> corolib.inherited_datagrams()
        {}

    Source: ListenDatagram= in systemd.socket(5).
    """
    _take()
    return {name: sockets.copy() for name, sockets in _handed_over.datagrams.items()}


def _take() -> None:
    """Take what the variables announce, if they are there and for this process."""
    global _handed_over
    pid, count, text = map(os.environ.get, VARIABLES)
    if pid == str(os.getpid()) and count is not None:
        _handed_over = _found(count, text)
    for name in VARIABLES:
        os.environ.pop(name, None)


def _found(count: str, text: str | None) -> _HandedOver:
    """Return the sockets, of which there are `count`; `text` has their names."""
    if not count.isdecimal():
        raise ValueError(f"LISTEN_FDS={brief(count)}: this is no number of files")
    if len(count) > DIGITS:
        raise ValueError(f"LISTEN_FDS={brief(count)}: there are never so many files")
    fds = range(FIRST, FIRST + int(count))
    names = None if text is None else text.split(":")
    if names is not None and len(names) != len(fds):
        raise ValueError(f"LISTEN_FDNAMES={brief(text)}: these are not the names of {count} files")
    kinds = [_kind(fd) for fd in fds]
    names = names or [UNNAMED] * len(kinds)
    streams = [fd for fd, kind in zip(fds, kinds, strict=True) if kind == socket.SOCK_STREAM]
    listening = iter(inherited(streams, FAMILIES, "inherited_listeners"))
    of_one_name: dict[str, list[socket.socket]] = {}
    datagrams: dict[str, list[DatagramSocket]] = {}
    for name, fd, kind in zip(names, fds, kinds, strict=True):
        if kind == socket.SOCK_STREAM:
            of_one_name.setdefault(name, []).append(next(listening))
        elif kind == socket.SOCK_DGRAM:
            datagrams.setdefault(name, []).append(DatagramSocket(network().adopt(fd)))
    return _HandedOver({name: Listener(all) for name, all in of_one_name.items()}, datagrams)


def _kind(fd: int) -> int | None:
    """Return the type of a socket of the internet or of Unix; None for a file of another kind."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return None
    sock = socket.socket(fileno=fd)
    kind = sock.type if sock.family in FAMILIES else None
    sock.detach()
    return kind


@public
def notify_systemd(state: str) -> bool:
    """Tell systemd how this program is: `notify_systemd("READY=1")`; return whether it was sent.

    Does not wait, and may be called outside of a run. Send READY=1 when clients can be served,
    that is, after `listen_tcp()` or the like; with `run_workers`, before that call, since systemd
    listens to the main process alone (`NotifyAccess=main`).

    Args:
        state: one assignment, or several on lines of their own: `"STOPPING=1\\nSTATUS=bye"`.

    Returns:
        False where nobody has asked for it: NOTIFY_SOCKET is not set. True says that it was sent,
        not that it was read.

    Raises:
        ValueError: NOTIFY_SOCKET is neither a path nor an abstract name that begins with "@".
        OSError: nobody listens on it, or (BlockingIOError) its queue is full; nothing was sent.

    Example:
        >>> import corolib, os, socket, tempfile
        >>> with tempfile.TemporaryDirectory() as folder, socket.socket(
        ...     socket.AF_UNIX, socket.SOCK_DGRAM
        ... ) as manager:
        ...     os.environ["NOTIFY_SOCKET"] = os.path.join(folder, "notify")
        ...     manager.bind(os.environ["NOTIFY_SOCKET"])
        ...     sent = corolib.notify_systemd("READY=1")
        ...     del os.environ["NOTIFY_SOCKET"]
        ...     sent, manager.recv(100)
        (True, b'READY=1')

    Source: sd_notify(3).
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address[0] not in "/@":
        text = "this is neither a path nor an abstract name"
        raise ValueError(f"NOTIFY_SOCKET={brief(address)}: {text}")
    sock = network().socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.connect("\0" + address[1:] if address[0] == "@" else address)
        sock.send(state.encode())
    finally:
        discard(sock)
    return True
