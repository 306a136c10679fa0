"""`python3 -m corolib ps`: look at a program that runs, from outside.

A program that has said how it wants to be asked, by `run(dump_signal=)` or COROLIB_DUMP=USR1 in its
environment, is asked by that signal: see `kernel/asked.py`. Another one, if it and this are of the
same Python, 3.14 or newer, is made to run a line of ours: `sys.remote_exec`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from corolib.kernel import meeting_folder, signal_is_caught, user_of
from corolib.net.peer_log import printable

PATIENCE = 2.0  # seconds until an answer must be there
CANNOT = 3  # the exit status
DAY = 86_400.0  # seconds
CURE = """\
process {pid} cannot be asked: {why}.
Start it with COROLIB_DUMP=USR1 in its environment, or have it say run(f, dump_signal=...).
Where both are the same Python, 3.14 or newer, nothing need be prepared; but
PYTHON_DISABLE_REMOTE_DEBUG must not be set there, and Linux must let one process look at another:
kernel.yama.ptrace_scope is 0, or you are root."""

NO_ANSWER = "what it has answered is of another form than this corolib's"

# What the other process does. It may have no corolib.
SCRIPT = """\
import sys
if "corolib" in sys.modules:
    from corolib.kernel.asked import answer
    from corolib.kernel.lifecycle import living
    answer({path!r}, living())
"""


class CannotAsk(Exception):
    """The process gives no answer; why, in words."""


def ps(words: Sequence[str]) -> NoReturn:
    """Do what `python3 -m corolib ps WORDS` asks for, and exit."""
    parser = argparse.ArgumentParser(
        prog="python3 -m corolib ps",
        description="Look at the tasks of a program that runs. Without PID: who can be asked.",
    )
    parser.add_argument("--json", action="store_true", help="all of it, for programs")
    parser.add_argument("--watch", type=seconds, metavar="SECONDS", help="again and again")
    parser.add_argument("pid", type=process, metavar="PID", nargs="?")
    options = parser.parse_args(words)
    try:
        while True:
            text = listed() if options.pid is None else shown(ask(options.pid), options.json)
            if options.watch is None:
                print(text)
                sys.exit(0)
            print(f"\033[H\033[J{text}" if sys.stdout.isatty() else text, flush=True)
            time.sleep(options.watch)
    except (CannotAsk, OSError) as exc:
        if options.pid is None:
            print(f"it cannot be told who can be asked: {exc}", file=sys.stderr)
        else:
            print(CURE.format(pid=options.pid, why=exc), file=sys.stderr)
        sys.exit(CANNOT)
    except KeyboardInterrupt:
        sys.exit(130)


def seconds(word: str) -> float:
    """Return the pause between two looks; raises ValueError."""
    found = float(word)
    if not 0 <= found <= DAY:
        raise ValueError
    return found


def process(word: str) -> int:
    """Return the number of a process; raises ValueError: also for what names a group of them."""
    found = int(word)
    if not 0 < found < 2**31:
        raise ValueError
    return found


def listed() -> str:
    """Return who can be asked of this user's programs, a line for each process."""
    folder = meeting_folder()
    names = [name.removesuffix(".json") for name in os.listdir(folder) if name.endswith(".json")]
    lines = []
    for pid in sorted(int(name) for name in names if name.isdecimal()):
        told = announced(folder, pid)
        if told is None:  # it was killed
            with suppress(OSError):
                os.remove(os.path.join(folder, f"{pid}.json"))
        else:
            lines.append(f"{pid:7}  {printable(' '.join(told[1]))}")
    return "\n".join(lines) or "there is no program that says it can be asked"


def announced(folder: str, pid: int) -> tuple[int, list[str]] | None:
    """Return by which signal a process wants to be asked, and its command line.

    None: it has not said so, or it does not hear that signal any more. The number may be another
    process's by now, which such a signal would end.
    """
    try:
        path = os.path.join(folder, f"{pid}.json")
        with open(path, encoding="utf-8", opener=regular) as file:
            told = json.load(file)
        signum, argv = int(told["signal"]), [str(word) for word in told["argv"]]
        return (signum, argv) if signal_is_caught(pid, signum) else None
    except Exception:  # of a file that is not there, or has whatever else in it
        return None


def ask(pid: int) -> dict[str, Any]:
    """Return what a process answers.

    Raises:
        CannotAsk: it gives no answer.
        OSError: there is no such process, or we may not ask it.
    """
    os.kill(pid, 0)
    folder = meeting_folder(user_of(pid))
    stem = os.path.join(folder, str(pid))
    told = announced(folder, pid)
    asked = f"{stem}.ask"
    for path in (f"{stem}.answer", asked):
        with suppress(FileNotFoundError):
            os.remove(path)
    try:
        # A new file: root must not write through a link that another user has put there.
        with open(asked, "x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(SCRIPT.format(path=f"{stem}.answer"))
        if told is not None:
            os.kill(pid, told[0])
        else:
            run_there(pid, asked)
        return answer_at(f"{stem}.answer")
    finally:
        with suppress(FileNotFoundError):
            os.remove(asked)


def run_there(pid: int, path: str) -> None:
    """Have a process run the file, as soon as its main thread runs Python again."""
    remote_exec = getattr(sys, "remote_exec", None)
    if remote_exec is None:
        raise CannotAsk("it has not said that it can")
    try:
        remote_exec(pid, path)
    except (RuntimeError, ValueError) as exc:
        raise CannotAsk(str(exc)) from None
    # This ends a wait in the selector.
    os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGCONT)


def answer_at(path: str) -> dict[str, Any]:
    """Wait until the answer is there, and return it."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        with suppress(FileNotFoundError), open(path, encoding="utf-8", opener=regular) as file:
            try:
                found: dict[str, Any] = json.load(file)
            except (ValueError, RecursionError):
                raise CannotAsk(NO_ANSWER) from None
            os.remove(path)
            return found
        time.sleep(0.005)
    raise CannotAsk(f"it gave no answer in {PATIENCE:g} seconds, or has no corolib")


def regular(path: str, flags: int) -> int:
    """Open a file, which another user may have made: not a pipe or a device that is read for ever.

    Raises CannotAsk: it is no regular file.
    """
    fd = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise CannotAsk(NO_ANSWER)


def shown(found: dict[str, Any], as_json: bool) -> str:
    """Return an answer as text. Who has written it is another user, perhaps, and root reads it.

    Raises CannotAsk: it is not what corolib answers.
    """
    try:
        if as_json:
            return json.dumps(found, indent=1)
        lines = [f"{found['pid']}  {' '.join(found['argv'])}  (Python {found['python']})"]
        for each in found["schedulers"]:
            lines += ["", *f"thread {each['thread']}: {each['report']}".split("\n")]
        if not found["schedulers"]:
            lines.append("no scheduler has a task")
    except (LookupError, TypeError, RecursionError):
        raise CannotAsk(NO_ANSWER) from None
    return "\n".join(map(printable, lines))
