"""A loop on epoll in C, `epoll_c.c`: what is left of an echo without any Python."""

from __future__ import annotations

import ctypes
import signal
import socket
from pathlib import Path

from demos.bench.compiler import compiled


def echo(listener: socket.socket) -> None:
    library = compiled(Path(__file__).with_suffix(".c"), "-shared", "-fPIC")
    listener.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would never be run
    ctypes.CDLL(library).serve(listener.fileno())
