"""A PostgreSQL server for tests, in a folder of its own, where PostgreSQL is installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OWNER = "postgres"  # the server refuses to run as root


def find_programs() -> Path | None:
    """Return the folder of the server's programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    if on_path:
        return Path(on_path).parent
    return found[-1].parent if found else None


class Postgres:
    """A server that listens on a Unix socket in its folder."""

    def __init__(self, programs: Path, folder: str) -> None:
        self._programs = programs
        self._folder = folder
        self._options: dict[str, Any] = {"user": OWNER, "group": OWNER} if os.geteuid() == 0 else {}
        self.conninfo = f"host={folder} user=postgres dbname=postgres"
        self.environment = {"PGHOST": folder, "PGUSER": "postgres", "PGDATABASE": "postgres"}

    def _do(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [self._programs / program, *args],
            **self._options,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout

    def make(self) -> None:
        if self._options:
            shutil.chown(self._folder, OWNER, OWNER)  # nobody else may look into it
        self._do("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses='' -c fsync=off -c max_connections=40"
        self._do("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", options)

    def stop(self, how: str = "immediate") -> None:
        self._do("pg_ctl", "stop", "-w", "-D", "data", "-m", how)

    def restart(self) -> None:
        self.stop("fast")
        self.start()


@contextmanager
def running_postgres(programs: Path) -> Iterator[Postgres]:
    """Run a server for the length of a block."""
    # A socket's path must be short, and the server's user must get there.
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:
        server = Postgres(programs, folder)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()
