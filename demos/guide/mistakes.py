"""Mistakes, and what is said of each: the page of wrong lines and right ones.

The wrong lines are written here, and nothing else: each is run when the site is made, and the page
shows what it said. The right line is the one that the message gives. Where a message describes the
cure in words, the right line stands here beside the wrong one.
"""

from __future__ import annotations

import gc
import logging
import re
import socket
import tempfile
import textwrap
import warnings
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from corolib import Stream, run

PROGRAM = """\
from functools import partial
import asyncio, math, os, socket, threading, time
from subprocess import PIPE
import corolib
from corolib import *

def slow(x=1):
    yield
    return x

def echo(stream):
    yield

def plain(x=None):
    return None

async def coroutine(x=1):
    return x

@waits
def marked(x=1):
    yield
    return x

def main():
    lock, event, queue = Lock("till"), Event(), Queue(3)
    yield
    {}
"""
ASYNC = PROGRAM.replace("def main", "async def main").replace("    yield\n    {}", "    {}")

# For each heading: wrong lines, and the right ones that no message gives.
MISTAKES: dict[str, dict[str, str]] = {
    "A `yield from` that is missing": {
        "data = stream.recv(100)\ntext = data.decode()": "",
        "x = slow(1) + 1": "",
        "x = yield from slow(1) + 1": "",
        "x = slow(1) + slow(2)": "",
        "a, b = gather(slow(), slow(), slow())": "",
        "yield from stream.sendall(stream.recv(5))": "",
        "s = open_tcp('127.0.0.1', 1)\ns.sendall(b'x')": "",
        'x = b"".join([stream.recv(1) for _ in range(3)])': "",
        "x = sum([slow(i) for i in range(3)])": "",
        "spawn(slow).join()": "",
        "if event.is_set: yield": "if event.is_set(): yield",
    },
    "`yield` and `yield from`": {
        "x = yield slow()": "",
        "yield slow": "",
        "yield every(1)": "",
        "x = yield queue": "",
        "yield event.wait": "",
        "yield lock": "with (yield from lock): ...",
        "yield spawn(slow)": "x = yield from spawn(slow)",
        "yield 0.5": "",
        "yield Sleep": "",
        "yield socket.socket()": "yield ReadWait(sock)",
        "yield [slow(), slow()]": "",
        "yield 'text'": "return 'text'",
        "yield from 5": "",
        "x = yield Topic(1).subscribe()": "",
        "yield from slow": "",
        "yield from queue": "",
        "yield from event": "",
        "yield from plain()": "",
        "yield from event.set()": "",
        "yield from ReadWait": "",
        "x = yield from as_completed(slow(), slow())": "",
        "x = yield from [slow(1), slow(2)]": "",
        "yield from coroutine(1)": "x = yield from spawn(coroutine, 1)",
        "yield coroutine(1)": "",
        "yield from asyncio.sleep(1)": "",
        "queue = asyncio.Queue()\nyield from queue.get()": "queue = Queue(10)",
        "from concurrent.futures import Future\nyield Future()": (
            "value = yield from wait_future(future)"
        ),
        "yield (lambda: 1)": "yield from slow()",
        "steps = as_completed(slow(), slow())\nyield from steps": "",
        "yield from plain": "",
        "yield asyncio.Future(loop=asyncio.new_event_loop())": (
            "result = Result()\nyield from result"
        ),
    },
    "Blocks and loops": {
        "with lock: yield": "",
        "with TaskGroup as g: yield": "",
        "with TaskGroup() as g: g.spawn(slow)": (
            "with TaskGroup() as g: g.spawn(slow); yield from g"
        ),
        "with timeout: yield": "",
        "yield from timeout(1)": "",
        "x = yield from timeout(0.1, queue.get())": "",
        "for item in queue: yield": "",
        "for line in stream: yield": "",
        "for tick in every: yield": "",
        "news = Topic(1).subscribe()\nitem = news.get()": "",
        "for item in Topic(1).subscribe(): yield": "",
    },
    "In an `async def`": {
        "await slow()": "@waits\ndef slow(x=1): ...",
        "await event": "",
        "await plain()": "",
        "await Sleep": "",
        "await asyncio.sleep(1)": "await Sleep(1)",
        "with await Lock(): pass": "",
        "async with timeout(1): pass": "",
        "with TaskGroup() as g: g.spawn(slow)": "",
        "for item in queue: pass": "",
        "async for step in as_completed(marked(1)): pass": "",
    },
    "`spawn` and `run`": {
        "spawn(plain)": "def plain(): yield",
        "spawn(5)": "spawn(slow, 5)",
        "spawn([slow(), slow()])": "tasks = [spawn(slow), spawn(slow)]",
        "spawn(event)": "spawn(event.wait)",
        "async def items(): yield 1\nspawn(items)": "def items(): yield",
        "spawn(slow, loop=None)": "spawn(slow)",
        'spawn(open_tcp, "127.0.0.1", 1, ssl=True)': "",
        "gather([slow(), slow()])": "yield from gather(*[slow(), slow()])",
        "gather(5)": "yield from gather(slow(5))",
        "spawn(slow(), 5)": "spawn(slow, 5)",
        "spawn(slow, patience=5)": "",
        "x = run(slow, 5)": "",
        "task = spawn(slow)\nx = task + 1": "",
        "a, b = spawn(slow)": "",
        "spawn(plain())": "def plain(x=None): yield",
        "yield from to_thread(spawn, slow)": "from_thread(scheduler, slow)  # in the thread",
        "yield from current_task()": "yield from spawn(slow)",
        "gather(slow, slow)": "yield from gather(slow(), slow())",
        "yield from first()": "yield from first(queue.getting(), Sleep(1))",
        "with TaskGroup() as g: yield from g\ng.spawn(slow)": (
            "with TaskGroup() as g: g.spawn(slow); yield from g"
        ),
        "yield from map_concurrent(slow, [1, 2])": (
            "yield from map_concurrent(slow, [1, 2], limit=10)"
        ),
        "yield from to_thread(slow(5))": "",
        "x = yield from to_thread(slow, 5)": "",
        "x = yield from to_thread(coroutine, 5)": "",
        "yield from to_thread(plain(5))": "",
    },
    "Arguments": {
        'yield from serve_tcp("127.0.0.1", 7007, echo)': "",
        'yield from serve_tcp(echo, "127.0.0.1:7007")': "",
        'yield from serve_tcp(echo, "127.0.0.1", 0, ssl=None)': "",
        'yield from serve_tcp(echo, "127.0.0.1", 0, max_clients=5)': "",
        'yield from serve_tcp(echo, "127.0.0.1", 0, idle_timeout=-1)': (
            'yield from serve_tcp(echo, "127.0.0.1", 0, idle_timeout=300)'
        ),
        'yield from serve_tcp(plain, "127.0.0.1", 0)': "def plain(stream): yield",
        'x = yield from open_tcp("127.0.0.1", 1, timeout=5)': "",
        'yield from serve_tcp(echo, "127.0.0.1", 0, certfile="a.pem")': (
            'yield from serve_tcp(echo, "127.0.0.1", 0, tls=context)'
        ),
        'with (yield from open_tcp("127.0.0.1", 1, timeout=5)): pass': (
            'with timeout(5):\n    stream = yield from open_tcp("127.0.0.1", 1)'
        ),
        "queue = Queue(maxsize=3)": "",
        "queue = Queue()": "queue = Queue(math.inf)",
        "queue = Queue(-1)": "queue = Queue(0)",
        "item = yield from queue.get(timeout=1)": "",
        "yield from event.wait(3)": "",
        "yield Sleep('1')": "yield Sleep(1)",
        "yield Sleep(math.nan)": "yield Sleep(math.inf)",
        "with timeout('3'): yield": "with timeout(3): yield",
        "yield from run_process('ls -l')": "yield from run_process(['ls', '-l'])",
        "x = yield from run_process('ls', '-l')": "",
        "process = yield from open_process(['true'])\nprocess.stdout.read()": "",
        "yield from run_process(['cat'], input='text')": (
            "yield from run_process(['cat'], input='text'.encode())"
        ),
    },
    "Files and streams": {
        'b"a line".split(" ")': 'b"a line".split(b" ")  # what streams carry is bytes',
        'yield from serve_tcp(Queue, "127.0.0.1", 0)': "def echo(stream): yield",
        "current_task.name": "",
        "other.setblocking(False)\ndata = other.recv(100)": "",
        "with listen_tcp('127.0.0.1', 0) as one:\n    listen_tcp(*one.addresses[0])": (
            "listener = listen_tcp('127.0.0.1', 0)  # any port that is free"
        ),
        "yield ReadWait(socket.socket())": "conn.setblocking(False)\nyield ReadWait(conn)",
        "yield ReadWait(5000)": "yield ReadWait(sock)",
        "def read(): yield ReadWait(other)\nother.setblocking(False); spawn(read)\nyield\n"
        "yield ReadWait(other)": "yield from spawn(read)  # one task reads for all",
        "yield from stream.sendall('text')": "yield from stream.sendall('text'.encode())",
        "yield from stream.recv(0)": "yield from stream.recv(65536)",
        "spawn(stream.recv, 5)\nyield\nyield from stream.recv(5)": (
            "data = yield from stream.recv(5)  # in one task, for all"
        ),
        "stream.close()\nyield from stream.recv(5)": (
            "data = yield from stream.recv(5)\nstream.close()"
        ),
        "other.sendall(b'abc'); other.shutdown(1)\nyield from stream.readexactly(5)": (
            "try:\n    data = yield from stream.readexactly(5)\n"
            "except IncompleteRead as exc:\n    print(exc.partial)"
        ),
        "stream.max_line = 4; other.sendall(b'a long line\\n')\nyield from stream.readline()": (
            "server = listener.serve(handler, max_line=4096)"
        ),
    },
    "Locks and queues": {
        "lock.release()": "with (yield from lock): ...",
        "lock = threading.Lock()\nyield from lock": "",
        "semaphore = BoundedSemaphore(1)\nsemaphore.release()": "with (yield from semaphore): ...",
        "condition = Condition()\ncondition.notify()": (
            "with (yield from condition): condition.notify()"
        ),
        "queue.get_nowait()": "item = yield from queue.get()",
        "queue = Queue(1); queue.put_nowait(1)\nqueue.put_nowait(2)": "yield from queue.put(2)",
        "queue.shutdown()\nyield from queue.put(1)": "yield from queue.put(1)\nqueue.shutdown()",
        "yield from event.wait()": "event.set()  # in another task that still runs",
    },
    "Names of other libraries": {
        "create_task(slow())": "",
        "task = spawn(slow)\ntask.result()": "result = yield from task",
        "task = spawn(slow)\ntask.add_done_callback(print)": "result = yield from task",
        "stream.write(b'x')": "",
        "yield from stream.read(5)": "",
        "queue.maxsize": "",
        "task = spawn(slow); yield from task\ntask.done()": "",
        "yield from queue.aclose()": "",
    },
    "Waits of your own": {
        "yield Suspend(lambda wake: None, 'a callback')": (
            "def arm(wake):\n    remove = register(wake)\n    return remove\n"
            "yield Suspend(arm, 'a callback')"
        ),
        "yield Suspend(lambda wake: wake(error=ValueError), 'x')": "wake(error=ValueError('why'))",
    },
    "Ended, and cancelled": {
        "def items():\n    with timeout(0.001): yield 1\nfor x in items(): yield Sleep(1)": (
            "with timeout(0.001):\n    for x in items(): yield Sleep(1)"
        ),
        "task = spawn(slow)\ntask.cancel()\nyield from task": (
            "try:\n    yield from task\nexcept TaskCancelled:\n    ..."
        ),
        "with timeout(0.001): yield Sleep(1)": (
            "try:\n    with timeout(0.001): yield Sleep(1)\nexcept TimeoutError:\n    ..."
        ),
        "scheduler = Scheduler()\nscheduler.close()\nscheduler.call_soon_threadsafe(print)": (
            "scheduler.call_soon_threadsafe(print)  # before its run has ended"
        ),
    },
}


class Said(NamedTuple):
    """What is said of wrong lines: the message with its notes, and the right lines."""

    wrong: str
    message: str
    right: str


def all_said() -> dict[str, list[Said]]:
    """Return, for each heading, what is said of the lines below it."""
    logger = logging.getLogger("corolib")
    disabled, logger.disabled = logger.disabled, True
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
            redirect_stderr(StringIO()),  # what is left of a run is named there
        ):
            warnings.simplefilter("ignore")
            found = {}
            for heading, lines in MISTAKES.items():
                program = ASYNC if "async def" in heading else PROGRAM
                found[heading] = [said(*line, program, folder) for line in lines.items()]
            gc.collect()
            return found
    finally:
        logger.disabled = disabled


def said(wrong: str, right: str, program: str, folder: str) -> Said:
    """Run wrong lines; return what is said."""
    number = len(list(Path(folder).iterdir()))
    path = Path(folder) / f"app{number}.py"  # a name of its own: sources are read once
    text = program.replace("{}", wrong.replace("\n", "\n    "))
    path.write_text(text, "utf-8")
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs, Stream(ours) as stream:
        names: dict[str, Any] = {"__name__": "app", "stream": stream, "other": theirs}
        exec(compile(text, str(path), "exec"), names)
        names |= {"stream": stream, "other": theirs}
        try:
            run(names["main"], on_task_error=lambda task, error: None)
        except Exception as exc:
            message = "\n".join([f"{type(exc).__name__}: {exc}", *getattr(exc, "__notes__", ())])
        else:
            raise AssertionError(f"nothing is said of {wrong}")
        names.clear()
    message = message.replace(f"{folder}/", "").replace(path.name, "app.py")
    message = re.sub(r" (at )?0x[0-9a-f]+", "", message)  # the same each time
    return Said(wrong, message, right or right_line(message))


CURE = re.compile(r"(?:[Ww]rite |mean |can wait: |In corolib: )`([^`]+)`|In corolib: ([^`].*)$")


def right_line(message: str) -> str:
    """Return the line that a message gives, or nothing."""
    found = next(filter(None, map(CURE.search, reversed(message.splitlines()))), None)
    return (found[1] or found[2]) if found else ""


# The page -----------------------------------------------------------------------------------------

WIDTH = 96  # characters of a message in one line


def page(found: dict[str, list[Said]]) -> str:
    """Return the page: for each mistake its line, what is said, and the right line."""
    parts = [
        "# Wrong lines, right lines",
        "Frequent mistakes: the wrong line, the message, and the right line. Each wrong line is "
        "run when this page is made, so the messages are true. The lines stand in a task `main`. "
        "It has a `lock`, an `event`, a `queue` and a `stream`. `slow` is a generator function, "
        "`marked` has `@waits` as well, `plain` is an ordinary function, and `coroutine` is an "
        "`async def`.",
        "[All messages](messages.md) lists every message of corolib. [Other names](other-names.md) "
        "translates names of asyncio, trio, curio and threads.",
    ]
    for heading, lines in found.items():
        parts.append(f"## {heading}")
        for each in lines:
            parts.append(f"### `{each.wrong.splitlines()[-1].strip()}`")
            if "\n" in each.wrong:
                parts.append(fence("python wrong", each.wrong))
            parts.append(fence("text message", wrapped(each.message)))
            parts.append(fence("python right", each.right))
    return "\n\n".join(parts) + "\n"


def fence(kind: str, text: str) -> str:
    return f"```{kind}\n{text}\n```"


def wrapped(text: str) -> str:
    """Return lines of a message that are not too long."""
    lines = []
    for line in text.splitlines():
        margin = " " * (len(line) - len(line.lstrip()) + 4)
        lines.append(textwrap.fill(line, WIDTH, subsequent_indent=margin, break_long_words=False))
    return "\n".join(lines)
