"""The open files and the children of this process: a tool of the tests of child processes."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from tests.helpers.programs import ROOT, without_slow_steps

strangers: set[int] = set()
"""Children of this process that other tests have left running."""


def fds() -> list[str]:
    """Return the files that are open, but for the one that lists them."""
    return sorted(os.listdir("/proc/self/fd"))[:-1]


def children() -> dict[int, str]:
    """Return the numbers and states of our children: those that run, and zombies."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return {}
    except AttributeError:  # a test has taken it away
        pass
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid() and int(name) not in strangers:
                found[int(name)] = fields[0]
    return found


def script(text: str) -> list[str]:
    """Return the command that runs a Python program in a process of its own."""
    return [sys.executable, "-c", textwrap.dedent(text)]


def outside(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program that uses corolib, apart from this one."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"capture_output": True, "text": True, "timeout": 60, "env": env, **options}
    done = subprocess.run(command, **options)
    done.stderr = without_slow_steps(done.stderr)
    return done
