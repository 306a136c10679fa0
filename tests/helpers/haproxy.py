"""An HAProxy for tests, in a folder of its own, where it is installed."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAM = shutil.which("haproxy")

HEAD = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
"""


@contextmanager
def running_haproxy(folder: Path, servers: list[str]) -> Iterator[list[int]]:
    """Run one that has a port for each line `ADDRESS:PORT [OPTION]...` of a server; give the ports.

    It inherits their sockets, so it listens from the beginning.
    """
    assert PROGRAM is not None
    with ExitStack() as stack:
        sockets = []
        text = HEAD
        for number, server in enumerate(servers):
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            sockets.append(sock)
            text += f"listen l{number}\n    bind fd@{sock.fileno()}\n    server s {server}\n"
        (folder / "haproxy.cfg").write_text(text)
        program = subprocess.Popen(
            [PROGRAM, "-db", "-q", "-f", "haproxy.cfg"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            pass_fds=[sock.fileno() for sock in sockets],
        )
        try:
            yield [sock.getsockname()[1] for sock in sockets]
        finally:
            program.terminate()
            program.wait()
