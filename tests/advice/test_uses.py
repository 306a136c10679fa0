"""A thing that is used as what it is not: the note on the error shows the line that was meant."""

import os
import socket

import pytest

from corolib import Condition, Stream
from corolib.advice.foreign import waiting_call
from corolib.kernel.waits import DEBUG
from tests.helpers.wrong import COROUTINE, HEADER, said_of

pytestmark = pytest.mark.filterwarnings("ignore:.*(never run|never awaited)")

WRONG = {
    "x = yield from event": "Write `x = yield from event.wait()`",
    "yield from Event()": "Write `yield from Event().wait()`",
    "x = yield from queue": "Write `x = yield from queue.get()`",
    "yield from slow": "slow was not called: write `yield from slow()`",
    "yield from queue.get": "get was not called: write `yield from queue.get()`",
    "yield from plain": "plain was not called, and cannot wait: write `plain()`",
    "yield from plain()": "plain() cannot wait: write `plain()`, without `yield from`",
    'x = yield from print("")': 'print() cannot wait: write `print("")`, without `yield from`',
    "yield from ReadWait": "ReadWait is a class: write `yield ReadWait(...)`",
    "yield from timeout(1)": "timeout() bounds a block: write `with timeout(1):`",
    "for item in queue: yield": "Write `while True: item = yield from queue.get()`",
    "for item in (yield from queue): yield": "Write `while True: item = yield from queue.get()`",
    "for x in (yield from event): yield": "Write `for x in (yield from event.wait()): yield`",
    "for line in stream: yield": "Write `while line := (yield from stream.readline()):`",
    "for tick in every: yield": "Write `for tick in every(...): missed = yield from tick`",
    "for x in slow: yield": "slow was not called: write `for x in slow(): yield`",
    "with TaskGroup as g: yield": "TaskGroup is a class: write `with TaskGroup(...) as g: yield`",
    "with timeout: yield": "timeout is a class: write `with timeout(...): yield`",
    "x = slow(1) + 1, not_reached()": (
        "slow() waits, and was not run. Write `x = (yield from slow(1)) + 1, not_reached()`"
    ),
    "yield from 5": "Write `yield Sleep(5)`",
    "lock = asyncio.threads.events.threading.Lock(); yield from lock": (
        "It is made for threads. Write `from corolib import Lock`"
    ),
    "conn, address = stream": (
        "One stream is read and written. Write `stream = yield from ...`; `stream.peer` is who is "
        "there"
    ),
    'x = yield from slow() == b"x"': (
        'slow() waits, and was not run. Write `x = (yield from slow()) == b"x"`'
    ),
    "news = Topic(1).subscribe(); news.get()": (
        "It is the beginning of a block: write `with Topic(1).subscribe() as news:`"
    ),
    "for x in Topic(1).subscribe(): yield": (
        "It is the beginning of a block: write `with Topic(1).subscribe() as news:`"
    ),
    # A task is not what it returns.
    "task = spawn(slow); x = len(task)": (
        "A Task is not what it returns. Write `task = spawn(slow); x = len((yield from task))`"
    ),
    'task = spawn(slow); x = task["x"]': (
        'A Task is not what it returns. Write `task = spawn(slow); x = (yield from task)["x"]`'
    ),
    "task = spawn(slow); x = (yield from spawn(slow)) + task.upper()": (
        "A Task is not what it returns. Write `task = spawn(slow); x = (yield from spawn(slow)) + "
        "(yield from task).upper()`"
    ),
    "x = spawn(slow) + 1": (
        "A Task is not what it returns. Write `x = (yield from spawn(slow)) + 1`"
    ),
    "int(Result('x'))": None,
    "task = spawn(slow); a, b = task": (
        "A Task is not what it returns. Write `task = spawn(slow); a, b = yield from task`"
    ),
    "a, b = spawn(slow)": "A Task is not what it returns. Write `a, b = yield from spawn(slow)`",
    "class Task: pass\nx = Task() + 1": None,
    # Functions that ask, and bytes.
    "current_task.name": "current_task was not called: write `current_task().name`",
    "gather.name": None,
    **dict.fromkeys(
        (
            'b"x".split(" ")',
            'b"x" + "x"',
            '"x" + b"x"',
            '"x" in b"x"',
            'b"x".startswith("x")',
            '"".join([b"x"])',
            'b"".join(["x"])',
        ),
        'What is received and sent is bytes: b"..." is bytes, and `data.decode()` is text',
    ),
    'yield from stream.sendall("x")': None,
    # Nothing is known of these.
    "yield from plain(list(5))": None,
    "yield from plain(stream=[*plain()])": None,
    "[Topic(1)][0].subscribe().get()": None,
    "yield from None": None,
    "for x in event: yield": None,
    "for x in slow(1) if port == 1 else 5: yield": None,
    "with queue: yield": None,
    "with str: yield": None,
    "yield from asyncio": None,
}
WRONG_AWAITS = {
    "await event": "Write `await event.wait()`",
    "await queue.get": "get was not called: write `await queue.get()`",
    "with await Lock(): pass": "Write `async with Lock():`",
    "await marked": "marked was not called: write `await marked()`",
    "await plain()": "plain() cannot wait: write `plain()`, without `await`",
    "await Sleep": "Sleep is a class: write `await Sleep(...)`",
    "for item in queue: pass": "Write `async for item in queue:`",
    "await 0.5": "Write `await Sleep(0.5)`",
    "x = await as_completed(marked(1))": (
        "Write `for step in as_completed(marked(1)): value = await step`"
    ),
    "async for x in as_completed(marked(1)): pass": (
        "Write `for step in as_completed(marked(1)): value = await step`"
    ),
    "async for x in every(1): pass": "Write `for tick in every(1): missed = await tick`",
    "async with timeout(1): pass": (
        "It bounds a block without `async`: write `with timeout(...):`"
    ),
    "listener = listen_tcp('::1', 0); listener.close()\nasync for conn in listener: pass": (
        "Write `while True: conn = await listener.accept()`"
    ),
    "async for x in Topic(1).subscribe(): pass": (
        "It is the beginning of a block: write `with Topic(1).subscribe() as news:`"
    ),
    "async with Lock().acquire(): pass": (
        "acquire() waits, and was not run. Write `async with Lock(): pass`"
    ),
    "async with event: pass": None,
    "async for x in 5: pass": None,
}


@pytest.mark.found("E2")
@pytest.mark.parametrize("line", [*WRONG, *WRONG_AWAITS])
def test_a_thing_that_is_used_wrongly_is_shown_in_the_right_line(line, tmp_path, pair):
    if line in WRONG:
        right, header = WRONG[line], {}
    else:
        right, header = WRONG_AWAITS[line], {"header": COROUTINE}
    with Stream(pair[0]) as stream:
        message, notes = said_of(line, tmp_path, stream=stream, **header)
    assert notes == ([] if right is None else [right]), message


NOT_READY = {
    "data = sock.recv(100)": "Write `yield ReadWait(sock)` in front of it",
    "data = os.read(sock.fileno(), 9)": "Write `yield ReadWait(sock.fileno())` in front of it",
    "while True: sock.send(bytes(2**20))": "Write `yield WriteWait(sock)` in front of it",
    "raise BlockingIOError(sock.fileno(), print(end=''))": None,
    "full.read()": None,
    "listener.accept()": "Write `yield ReadWait(listener)` in front of it",
    "with socket.socket(type=2048 + 1) as s: s.connect(listener.getsockname())": (
        "In corolib: stream = yield from open_tcp(host, port)"
    ),
}


class Full:
    def read(self):
        raise BlockingIOError


@pytest.mark.parametrize("line", NOT_READY)
def test_a_file_that_is_used_before_its_wait_is_told_of_the_wait(line, tmp_path, pair):
    for header, word in ((HEADER, "yield"), (COROUTINE, "await")):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            values = {"os": os, "socket": socket, "sock": pair[0], "listener": listener}
            values["full"] = Full()
            _, notes = said_of(line, tmp_path, header, **values)
        right = NOT_READY[line]
        right = right and right.replace("yield from", "yield").replace("yield", word)
        assert [note.replace("yield from", "yield") for note in notes] == [right] * bool(right)


@pytest.mark.found("E2")
def test_what_gives_waits_is_not_waited_for_itself(tmp_path):
    for made in ("as_completed(slow(1), slow(2))", "[slow(1), slow(2)]", "every(1)"):
        message, _ = said_of(f"x = yield from {made}", tmp_path)
        right = {
            "as": f"Write `for step in {made}: value = yield from step`",
            "[s": f"Write `x = yield from gather(*{made})`",
            "ev": f"Write `for tick in {made}: missed = yield from tick`",
        }[made[:2]]
        assert message.endswith(right)
        assert said_of(f"yield {made}", tmp_path)[0].endswith(right.replace("x = ", ""))
    message, _ = said_of("steps = as_completed(slow(1)); yield steps", tmp_path)
    assert message.endswith("Write `for step in as_completed(...): value = yield from step`")
    message, _ = said_of("steps = as_completed(slow(1)); yield from steps", tmp_path)
    assert message.endswith("Write `for step in as_completed(...): value = yield from step`")


TAKEN = {
    "for data in stream.recv(9): yield": "while data := (yield from stream.recv(9)):",
    "for item in queue.get(): yield": "while True: item = yield from queue.get()",
    "for x in marked(1): yield": "for x in (yield from marked(1)): yield",
    "for i, x in enumerate(queue.get()): yield": (
        "for i, x in enumerate((yield from queue.get())): yield"
    ),
    "x = (yield from slow()), [*queue.get()]": (
        "x = (yield from slow()), [*(yield from queue.get())]"
    ),
    'exec("for item in queue.get(): pass")': "yield from get()",
}


@pytest.mark.found("E2")
@pytest.mark.skipif(not DEBUG, reason="it is noticed in debug mode")
@pytest.mark.parametrize("line", TAKEN)
def test_a_call_that_gives_one_item_is_repeated(line, tmp_path, pair):
    with Stream(pair[0]) as stream:
        message, _ = said_of(line, tmp_path, stream=stream)
    assert message.endswith(f"waits, and gives no items. Write `{TAKEN[line]}`")


@pytest.mark.found("E2")
def test_what_is_yielded_instead_of_called_is_shown_by_its_name(tmp_path):
    for line, right in [
        ("x = yield slow", "`x = yield from slow()`"),
        ("yield event.wait", "`yield from event.wait()`"),
        ("x = yield queue", "Did you mean `x = yield from queue.get()`?"),
        ("yield Event()", "Did you mean `yield from event.wait()`?"),
        ("yield [print][0]", "`yield from f()`"),
        ("x = yield Topic(1).subscribe()", "write `with Topic(1).subscribe() as x:`"),
        ("x = yield [slow(1), slow(2)]", "`x = yield from gather(*[slow(1), slow(2)])`"),
    ]:
        message, _ = said_of(line, tmp_path)
        assert message.endswith(right), message


@pytest.mark.found("E2")
def test_a_group_in_an_async_def_is_told_of_await(tmp_path):
    message, _ = said_of("with TaskGroup() as g: g.spawn(slow)", tmp_path, COROUTINE)
    assert "without `await group`: write `async with TaskGroup() as group:`; 1 task" in message


class Remote:
    """Has every attribute, as the methods of `xmlrpc.client` have."""

    def __init__(self, depth=0):
        self.depth = depth

    def __getattr__(self, name):
        assert self.depth < 1000
        return Remote(self.depth + 1)

    def __call__(self):
        return 5


def test_an_object_that_has_every_attribute_is_not_followed_for_ever(tmp_path):
    _, notes = said_of("x = yield from ping()", tmp_path, ping=Remote())
    assert notes == ["ping() cannot wait: write `ping()`, without `yield from`"]


def test_what_a_thing_is_waited_for_by():
    assert waiting_call(Stream) == "recv(65536)"
    assert waiting_call(Condition) == "wait()"
    assert waiting_call(int) is None
