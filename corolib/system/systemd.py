"""Started by systemd: the sockets that it has opened for this program, and messages to it.

    listeners = inherited_listeners()           {"web.socket": <Listener on 0.0.0.0:80>}
    notify_systemd("READY=1")                   with Type=notify in the unit

Environment variables, inherited sockets and one datagram: nothing here needs systemd or a library
of its, and all of it does nothing where another program has started this one. Neither call waits.

The servers never send anything by themselves: what it means to be ready, and which process says
so, is known to the program alone. Inherited sockets that systemd has not announced are for
`listen_tcp(fd=)`.
"""

from __future__ import annotations

import os
import socket

from corolib.kernel import public
from corolib.net.listening import inherited
from corolib.net.network import discard, network
from corolib.net.servers import Listener

FIRST = 3
"""The number of the first socket, SD_LISTEN_FDS_START: before it are the three standard files."""

UNNAMED = "unknown"
"""What sd_listen_fds_with_names() says where there are no names."""


@public
def inherited_listeners() -> dict[str, Listener]:
    """Return the listening sockets that systemd has opened for this program, by name.

    Does not wait; call it once, at the start, before a run or inside of one. The name is that of
    the socket unit (`web.socket`), or its `FileDescriptorName=`, and "unknown" where there is
    none. Sockets of one name are one listener, in their order. They go on listening, for systemd,
    when the listener is closed: clients wait for the next start of the program.

    The environment variables LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES are removed, so that
    programs started from here do not take the sockets for theirs.

    Returns:
        A dict, which is empty if nothing was handed over, or something to another process.

    Raises:
        ValueError: the variables contradict each other, or a socket is not one that listens for
            TCP or Unix connections. All stay open as they are.
        OSError: one of these files is not open, or no socket.

    Example:
        >>> import corolib
        >>> listeners = corolib.inherited_listeners()
        >>> listener = listeners.get("web.socket") or corolib.listen_tcp("127.0.0.1", 0)
        >>> listener.close()

    Source: sd_listen_fds(3), sd_listen_fds_with_names(3), systemd.socket(5).
    """
    variables = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    pid, count, text = (os.environ.pop(name, None) for name in variables)
    if pid != str(os.getpid()) or count is None:
        return {}
    if not count.isdecimal():
        raise ValueError(f"LISTEN_FDS={count!r}: this is no number of files")
    fds = range(FIRST, FIRST + int(count))
    names = [UNNAMED] * len(fds) if text is None else text.split(":")
    if len(names) != len(fds):
        raise ValueError(f"LISTEN_FDNAMES={text!r}: these are not the names of {count} files")
    families = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
    found: dict[str, list[socket.socket]] = {}
    for name, sock in zip(names, inherited(fds, families, "inherited_listeners"), strict=True):
        found.setdefault(name, []).append(sock)
    return {name: Listener(sockets) for name, sockets in found.items()}


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
        raise ValueError(f"NOTIFY_SOCKET={address!r}: this is neither a path nor an abstract name")
    sock = network().socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.connect("\0" + address[1:] if address[0] == "@" else address)
        sock.send(state.encode())
    finally:
        discard(sock)
    return True
