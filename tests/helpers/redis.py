"""A Redis server for tests, in a folder of its own, where Redis is installed."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAM = shutil.which("redis-server")
PATIENCE = 30  # seconds, on a machine that is busy


class RedisServer:
    """A server on a port of its own, that can be killed and come again."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        assert PROGRAM is not None
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *options]
        self._process = subprocess.Popen(
            [PROGRAM, *settings, "--logfile", "log"], cwd=self._folder, stdin=subprocess.DEVNULL
        )

    def wait(self) -> None:
        """Wait until it listens; blocks."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                assert time.monotonic() < give_up, "the server does not listen"
                time.sleep(0.005)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
