"""Who is measured: a table of the contestants, and what can be known of each without running it."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from demos.bench.compiler import compiler

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Contestant:
    """A way to write a server, or tasks: `servers/NAME.py`, `tasks/NAME.py`."""

    name: str
    title: str
    library: str = ""  # that has to be installed; as it is imported
    tls_library: str = ""  # that its TLS needs besides
    compiled: bool = False  # whether it is written in C, and needs a compiler
    most: int = 1_000_000  # connections that it can serve
    asked: bool = False  # whether it is measured only if asked for by name
    since: tuple[int, int] = (3, 11)  # the first Python that has it

    @property
    def version(self) -> str:
        """Return its library's version, "" if that comes with Python."""
        if self.library == "corolib":
            import corolib

            return corolib.__version__
        return importlib.metadata.version(self.library) if self.library else ""

    @property
    def installed(self) -> bool:
        if sys.version_info < self.since:
            return False
        return compiler() is not None if self.compiled else there(self.library)

    @property
    def missing(self) -> str:
        """Return what would have to be installed, or ""."""
        if sys.version_info < self.since:
            return f"Python {'.'.join(map(str, self.since))} for {self.title}"
        if not self.installed:
            return "a C compiler" if self.compiled else self.library
        return "" if there(self.tls_library) else f"{self.tls_library} for the TLS of {self.title}"

    def jobs(self, folder: str) -> set[str]:
        """Return the names of the functions in its file there, `tls` for an echo that has it."""
        path = HERE / folder / f"{self.name}.py"
        if not path.exists():
            return set()
        found = set()
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                found.add(node.name)
                takes_tls = "tls" in [each.arg for each in node.args.args]
                if node.name == "echo" and takes_tls and there(self.tls_library):
                    found.add("tls")
        return found


def there(library: str) -> bool:
    """Tell whether a library can be imported; "" is none."""
    return not library or importlib.util.find_spec(library) is not None


SERVERS = [
    Contestant("corolib_streams", "corolib streams", "corolib"),
    Contestant("corolib_traps", "corolib traps", "corolib"),
    Contestant("corolib_once", "corolib traps made once", "corolib"),
    Contestant("corolib_async", "corolib async def", "corolib"),
    Contestant("corolib_writewait", "corolib waiting for each send", "corolib", asked=True),
    Contestant("epoll_c", "C on epoll", compiled=True),
    Contestant("epoll", "epoll by hand"),
    Contestant("selectors", "selectors, callbacks"),
    Contestant("threads", "threads", most=2000),  # ten thousand need more of a system than is usual
    Contestant("asyncio_protocol", "asyncio protocol"),
    Contestant("asyncio_streams", "asyncio streams"),
    Contestant("uvloop_protocol", "uvloop protocol", "uvloop"),
    Contestant("uvloop_streams", "uvloop streams", "uvloop"),
    Contestant("curio", "curio", "curio"),
    Contestant("trio", "trio streams", "trio"),
    Contestant("trio_sockets", "trio sockets", "trio"),
    Contestant("trio_readable", "trio, wait_readable", "trio"),
    Contestant("gevent", "gevent", "gevent"),
    Contestant("tornado", "Tornado", "tornado"),
    Contestant("twisted", "Twisted", "twisted", tls_library="OpenSSL"),
    Contestant("bluelet", "bluelet", "bluelet", most=1000),  # select() knows file numbers to 1023
    Contestant("pycos", "pycos", "pycos"),
]

# Tornado and Twisted have no tasks of their own: Tornado's are asyncio's.
TASKS = [
    Contestant("corolib", "corolib", "corolib"),
    Contestant("corolib_async", "corolib async def", "corolib"),
    Contestant("deque", "a deque of generators"),
    Contestant("asyncio", "asyncio"),
    Contestant("asyncio_executor", "asyncio, run_in_executor"),
    Contestant("asyncio_eager", "asyncio, eager tasks", since=(3, 12)),
    Contestant("uvloop", "uvloop", "uvloop"),
    Contestant("uvloop_executor", "uvloop, run_in_executor", "uvloop"),
    Contestant("curio", "curio", "curio"),
    Contestant("trio", "trio", "trio"),
    Contestant("gevent", "gevent", "gevent"),
    Contestant("threads", "threads"),
    Contestant("bluelet", "bluelet", "bluelet"),
    Contestant("pycos", "pycos", "pycos"),
]


def interpreter() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"
