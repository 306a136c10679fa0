"""The first minute of a newcomer: the lines that people write wrong, as a terminal shows them.

Each program is run at a terminal, where debug mode is on without being asked for. What it shows
must have the right line. That it is wrong without a word in the middle of a server is what E1 is
about: the first programs here are servers of a few lines.

One interpreter runs all of them, one after the other, as `python3 FILE` would.
"""

import re
import textwrap

import pytest

from tests.helpers.programs import at_terminal

RUN_ALL = """
import gc, runpy, sys
from pathlib import Path

for path in sorted(Path(__file__).parent.glob("case*.py")):
    print("====", path.name, file=sys.stderr, flush=True)
    try:
        runpy.run_path(str(path), run_name="__main__")
    except BaseException:
        sys.excepthook(*sys.exc_info())
    gc.collect()
"""

SERVER = """
from corolib import *

def echo(stream):
    {}

def main():
    with listen_tcp("127.0.0.1", 0) as listener:
        server = listener.serve(echo)
        with (yield from open_tcp(*listener.addresses[0])) as client:
            yield from client.sendall(b"hello\\n")
            with move_on_after(0.1):
                yield from client.recv(10)
        yield from server.stop(grace=0)

run(main)
"""

PROGRAM = """
from corolib import *

def slow(x=1):
    yield Sleep(0.01)
    return x

def main():
    yield
    {}

run(main)
"""

MODULE = """
from corolib import *

def echo(stream):
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data)

{}
"""

LINES = {
    # A forgotten `yield from`, in eight forms.
    "alone": (
        SERVER,
        "stream.sendall((yield from stream.recv(100)))",
        "Write `yield from stream.sendall((yield from stream.recv(100)))`",
    ),
    "assigned": (
        SERVER,
        "data = stream.recv(100); yield from stream.sendall(data.upper())",
        "Write `data = (yield from stream.recv(100)); yield from stream.sendall(data.upper())`",
    ),
    "in a condition": (
        SERVER,
        "while data := stream.recv(100): yield from stream.sendall(data)",
        "Write `while data := (yield from stream.recv(100)): yield from stream.sendall(data)`",
    ),
    "as an argument": (
        SERVER,
        "yield from stream.sendall(stream.recv(100))",
        "Write `yield from stream.sendall((yield from stream.recv(100)))`",
    ),
    "of a function of one's own": (PROGRAM, "slow()", "Write `yield from slow()`"),
    "of one's own in a condition": (
        PROGRAM,
        "if not slow(5): print('never')",
        "Write `if not (yield from slow(5)): print('never')`",
    ),
    "by map": (
        PROGRAM,
        "list(map(Queue(5).put, [1, 2])); yield",
        "Write `for item in items: yield from put(item)`",
    ),
    "returned": (SERVER, "yield; return stream.recv(100)", "(yield from stream.recv(100))`"),
    "unpacked": (
        PROGRAM,
        "a, b = gather(slow(), slow())",
        "Write `a, b = yield from gather(slow(), slow())`",
    ),
    "in a loop": (
        SERVER,
        "for line in stream.readline(): print(line); yield",
        "Write `while line := (yield from stream.readline()):`",
    ),
    "in a block": (
        PROGRAM,
        'with open_tcp("127.0.0.1", 1) as stream: pass',
        'Write `with (yield from open_tcp("127.0.0.1", 1)) as stream: pass`',
    ),
    "before a method": (
        PROGRAM,
        'stream = open_tcp("127.0.0.1", 1); stream.sendall(b"x")',
        'Write `stream = (yield from open_tcp("127.0.0.1", 1)); stream.sendall(b"x")`',
    ),
    "without a run": (
        MODULE,
        'serve_tcp(echo, "127.0.0.1", 7007)',
        'Write `run(serve_tcp(echo, "127.0.0.1", 7007))`',
    ),
    # `yield`, where it must be something else.
    "yield for yield from": (PROGRAM, "x = yield slow()", "Write `x = yield from slow()`"),
    "yield of a number": (PROGRAM, "yield 0.5", "Did you mean `yield Sleep(0.5)`?"),
    "yield from what cannot wait": (
        PROGRAM,
        "event = Event(); yield from event.set()",
        "write `event.set()`, without `yield from`",
    ),
    "no yield at all": (
        SERVER,
        "print('hello')",
        "serve() got echo() (app.py:3): it has no `yield`, so it is not a generator function. What "
        "waits has `yield from` in front: `data = yield from stream.recv(65536)`",
    ),
    "a function without yield": (
        PROGRAM,
        "spawn(print, 5)",
        "spawn() got None from print(): it has no `yield`, so it is not a generator function",
    ),
    "a lock without yield from": (
        PROGRAM,
        "with Lock(): pass",
        "write `with (yield from lock):`",
    ),
    # Names of other libraries.
    "from corolib import sleep": (
        MODULE,
        "from corolib import sleep",
        "ImportError: cannot import name 'sleep' from 'corolib'. In corolib: yield Sleep(seconds)",
    ),
    "open_connection": (
        "import corolib\ncorolib.{}",
        "open_connection",
        "In corolib: stream = yield from open_tcp(host, port)",
    ),
    "task.join()": (PROGRAM, "spawn(slow).join()", "In corolib: result = yield from task"),
    "task.done()": (
        PROGRAM,
        "task = spawn(slow); yield from task; task.done()",
        "Task.done is no method. In corolib: task.done",
    ),
    "task.result()": (
        PROGRAM,
        "task = spawn(slow); yield from task; task.result()",
        "Task.result is no method. In corolib: result = yield from task",
    ),
    "stream.write()": (
        SERVER,
        "yield; stream.write(b'x')",
        "In corolib: yield from stream.sendall(data)",
    ),
    "if event.is_set:": (
        PROGRAM,
        "if Event().is_set: pass",
        "is a method: write `is_set()`",
    ),
    "asyncio.sleep": (
        PROGRAM,
        "import asyncio; yield from asyncio.sleep(1)",
        "asyncio.sleep() is asyncio's, and corolib cannot wait for it. In corolib: yield Sleep(",
    ),
    "yield asyncio.sleep": (
        PROGRAM,
        "import asyncio; yield asyncio.sleep(1)",
        "asyncio.sleep() is asyncio's, and corolib cannot wait for it. In corolib: yield Sleep(",
    ),
    # Wrong arguments.
    "no port": (
        PROGRAM,
        'yield from open_tcp("127.0.0.1")',
        "In corolib: yield from open_tcp(host, port, *, tls=None,",
    ),
    "a keyword of asyncio's": (
        MODULE,
        "run(serve_tcp(echo, '127.0.0.1', 0, ssl=None, max_clients=5))",
        'Write `run(serve_tcp(echo, "127.0.0.1", 0, tls=None, max_connections=5))`',
    ),
    "arguments in another order": (
        MODULE,
        "run(serve_tcp, '127.0.0.1', 0, echo)",
        'Write `run(serve_tcp, echo, "127.0.0.1", 0)`',
    ),
    "a function and its arguments": (
        PROGRAM,
        "yield from gather(slow, 5)",
        "gather() takes calls, and got slow() (app.py:3): write `gather(slow(5))`",
    ),
    "a call for a thread": (
        PROGRAM,
        "yield from to_thread(print('x'))",
        'Write `yield from to_thread(print, "x")`',
    ),
    "a time limit as a function": (
        PROGRAM,
        "x = yield from timeout(0.1, slow())",
        "It bounds a block: write `with timeout(0.1): x = yield from slow()`",
    ),
    "an event instead of its wait": (
        PROGRAM,
        "event = Event(); yield from event",
        "Write `event = Event(); yield from event.wait()`",
    ),
    "a loop over a stream": (
        SERVER,
        "for line in stream: yield",
        "Write `while line := (yield from stream.readline()):`",
    ),
    "a method that is not called": (PROGRAM, "spawn(slow).cancel", "is not called. Write `spawn"),
    "a task instead of its result": (
        PROGRAM,
        "x = spawn(slow) + 1",
        "A Task is not what it returns. Write `x = (yield from spawn(slow)) + 1`",
    ),
    "a socket before its wait": (
        PROGRAM,
        "import socket; a, b = socket.socketpair(); a.setblocking(False); a.recv(5)",
        "Write `yield ReadWait(a)` in front of it",
    ),
    "a sleep without yield": (PROGRAM, "Sleep(0.5)", "so nothing waits. Write `yield Sleep(0.5)`"),
    "a keyword for the function": (
        PROGRAM,
        "spawn(slow, x=1)",
        "write `spawn(slow(..., x=...))`",
    ),
    "a limit through run": (
        MODULE,
        'run(serve_tcp, echo, "127.0.0.1", 0, max_connections=10)',
        "write `run(serve_tcp(..., max_connections=...))`",
    ),
    "a list": (
        PROGRAM,
        "yield from gather([slow(), slow()])",
        "a list: give calls one by one; `gather(*calls)`",
    ),
    "a handler of two arguments": (
        MODULE,
        "def handle(conn, addr): yield\nrun(serve_tcp, handle, '127.0.0.1', 0)",
        "serve_tcp() calls handle() (app.py:7) with (stream), but it takes (conn, addr): the "
        "stream is read and written, and `stream.peer` is who has connected",
    ),
    "a handler that is called": (
        MODULE,
        "run(serve_tcp(echo(None), '127.0.0.1', 0))",
        "serve_tcp() got the call echo(...): give the function, `serve_tcp(echo, ...)`",
    ),
    "a keyword that is nearly right": (
        MODULE,
        "run(serve_tcp(echo, '127.0.0.1', 0, max_conn=5))",
        "serve_tcp() has no keyword 'max_conn'; did you mean max_connections=? Its keywords are",
    ),
    "a limit in words": (
        MODULE,
        "run(serve_tcp(echo, '127.0.0.1', 0, max_connections='5'))",
        "TypeError: serve_tcp(max_connections=) takes a whole number, at least 1, not '5'",
    ),
    "host and port exchanged": (
        MODULE,
        "run(serve_tcp, echo, 7007, '127.0.0.1')",
        "serve_tcp(7007, '127.0.0.1'): the host comes first, then the port",
    ),
    "a server that runs already": (
        SERVER.replace("{}", "yield").replace("server = listener.serve(echo)", "{}"),
        "yield from gather(listener.serve(echo))",
        "which is no call, and is waited for by `yield from`. Give a call, as `serve_tcp(f, host, "
        "port)` is one",
    ),
    "a queue without a size": (MODULE, "Queue()", "`Queue(math.inf)` for one without bound"),
    "spawn without a run": (
        MODULE,
        "spawn(echo, None)",
        "call this from a task, under corolib.run(",
    ),
    "a result instead of a function": (PROGRAM, "spawn(5)", "`spawn(f, x)`"),
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Run all programs, and return what each one shows."""
    folder = tmp_path_factory.mktemp("minute")
    names = {}
    for number, what in enumerate(LINES):
        program, wrong, _ = LINES[what]
        path = folder / f"case{number:02}.py"
        path.write_text(program.lstrip().replace("{}", wrong))
        names[path.name] = what
    (folder / "all.py").write_text(RUN_ALL)
    parts = at_terminal(folder / "all.py").split("==== ")[1:]
    assert len(parts) == len(LINES), parts
    return {names[part.partition("\n")[0]]: part for part in parts}


@pytest.mark.found("E1")
@pytest.mark.found("E2")
@pytest.mark.found("E3")
@pytest.mark.found("E4")
@pytest.mark.parametrize("what", LINES)
def test_a_wrong_line_ends_at_a_terminal_in_a_message_with_the_right_one(what, shown):
    text = re.sub(r"case\d+\.py", "app.py", shown[what])
    assert LINES[what][2] in text, textwrap.indent(LINES[what][0], "    ") + text


@pytest.mark.found("E1")
def test_so_does_a_program_that_has_the_terminal_for_itself(tmp_path):
    program, wrong, right = LINES["assigned"]
    path = tmp_path / "app.py"
    path.write_text(program.lstrip().replace("{}", wrong))
    assert right in at_terminal(path)
