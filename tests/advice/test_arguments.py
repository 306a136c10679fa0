"""A call of ours with wrong arguments: the note on its error shows how it should be."""

import re
from collections import Counter

import pytest

import corolib
from corolib import Queue, open_tcp, run, serve_tcp, serve_udp, spawn
from corolib.advice.keywords import KEYWORDS, keyword_cure, keywords_of
from corolib.advice.places import Line, Place
from tests.helpers.wrong import COROUTINE, HEADER, said_of

pytestmark = pytest.mark.filterwarnings("ignore:.*never run")
HERE = '"127.0.0.1"'


@pytest.fixture
def counted(monkeypatch):
    """Count what is read of sources, and what is looked up."""
    found = Counter()

    def counts(owner, name, key):
        really = getattr(owner, name)

        def counting(*args, **kwargs):
            found[key] += 1
            return really(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    counts(Line, "__init__", "lines")
    counts(Place, "value_of", "names")
    return found


WRONG = {
    # Keywords of other libraries.
    f"yield from serve_tcp(echo, {HERE}, 0, ssl=None)": (
        f"Write `yield from serve_tcp(echo, {HERE}, 0, tls=None)`"
    ),
    f"yield from serve_tcp(echo, {HERE}, 0, max_clients=5, timeout=9)": (
        f"Write `yield from serve_tcp(echo, {HERE}, 0, max_connections=5, idle_timeout=9)`"
    ),
    f"yield from serve_tcp(client_connected_cb=echo, host={HERE}, port=0)": (
        f"Write `yield from serve_tcp(handler=echo, host={HERE}, port=0)`"
    ),
    f"yield from serve_tcp(echo, {HERE}, 0, reuse_address=True)": (
        "Leave it out, an address can be used again at once. "
        f"Write `yield from serve_tcp(echo, {HERE}, 0)`"
    ),
    f"x = open_tcp({HERE}, 1, ssl=True)": f"Write `x = yield from open_tcp({HERE}, 1, tls=True)`",
    f"x = yield from open_tcp({HERE}, 1, timeout=5)": (
        f"Write `with timeout(5): x = yield from open_tcp({HERE}, 1)`"
    ),
    f"with (yield from open_tcp({HERE}, 1, timeout=5)): pass": ("Put `with timeout(5):` around it"),
    f"listen_tcp({HERE}, 0, ssl=None)": ("In corolib, it is listener.serve(handler, tls=context)"),
    "x = yield from queue.get(timeout=port)": (
        "Write `with timeout(port): x = yield from queue.get()`"
    ),
    "yield from event.wait(3)": "Write `with timeout(3): yield from event.wait()`",
    "queue = Queue(maxsize=3)": "Write `queue = Queue(size=3)`",
    "yield Sleep(delay=1)": "Write `yield Sleep(seconds=1)`",
    "with move_on_after(timeout=1): yield": "Write `with move_on_after(seconds=1): yield`",
    'yield from to_thread(print, "x", sep="")': (
        'Write `yield from to_thread(partial(print, sep=""), "x")`'
    ),
    "yield from open_tcp('::1', 1, max_line=9)": "In corolib, it is stream.max_line = bytes",
    'x = yield from run_process("ls", "-l")': 'Write `x = yield from run_process(["ls", "-l"])`',
    # In another order.
    f"yield from serve_tcp({HERE}, 0, echo)": f"Write `yield from serve_tcp(echo, {HERE}, 0)`",
    f"yield from serve_tcp({HERE}, echo, 0)": f"Write `yield from serve_tcp(echo, {HERE}, 0)`",
    f"yield from serve_tcp(echo, 0, {HERE})": f"Write `yield from serve_tcp(echo, {HERE}, 0)`",
    f"yield from serve_tcp(({HERE}, 0), echo)": f"Write `yield from serve_tcp(echo, {HERE}, 0)`",
    "yield from serve_tcp(echo, 0)": f"Write `yield from serve_tcp(echo, {HERE}, 0)`",
    "yield from serve_tcp(echo, port=0)": (f"Write `yield from serve_tcp(echo, {HERE}, port=0)`"),
    "x = open_tcp(port=port)": f"Write `x = yield from open_tcp({HERE}, port=port)`",
    "listen_tcp(port=0, listen_backlog=5)": "Write `listen_tcp(port=0, backlog=5)`",
    'yield from serve_tcp(echo, "127.0.0.1:0")': f"Write `yield from serve_tcp(echo, {HERE}, 0)`",
    "yield from spawn(serve_tcp, 0, echo)": (
        f"Write `yield from spawn(serve_tcp, echo, {HERE}, 0)`"
    ),
    'yield from serve_unix("/x", echo)': 'Write `yield from serve_unix(echo, "/x")`',
    f"yield from serve_udp({HERE}, 0, lambda data, sender: data)": (
        f"Write `yield from serve_udp(lambda data, sender: data, {HERE}, 0)`"
    ),
    "listen_tcp(port)": f"Write `listen_tcp({HERE}, port)`",
    f"x = open_tcp(({HERE}, port))": f"Write `x = yield from open_tcp({HERE}, port)`",
    f"yield from open_tcp(port, {HERE})": f"Write `yield from open_tcp({HERE}, port)`",
    f"yield from open_udp(port, {HERE})": f"Write `yield from open_udp({HERE}, port)`",
    "yield from map_concurrent([1, 2], slow)": (
        "Write `yield from map_concurrent(slow, [1, 2], limit=...)`"
    ),
    "yield from map_concurrent(slow(), [1], limit=2)": (
        "Write `yield from map_concurrent(slow, [1], limit=2)`"
    ),
    # A call where there should be a function.
    'yield from to_thread(print("x"))': 'Write `yield from to_thread(print, "x")`',
    "yield from to_thread(slow(5))": "slow() waits by itself. Write `yield from slow(5)`",
    "to_thread(slow(5)).close(); yield from to_thread(plain())": (
        "Write `to_thread(slow(5)).close(); yield from to_thread(plain)`"
    ),
    # What has no `yield`.
    "spawn(plain())": (
        "plain() has no `yield`, so it is not a generator function, and its body has already run"
    ),
    "spawn(len([]))": None,
    "async def both(): yield\nspawn(both())": None,
    # What bounds a block.
    "x = yield from timeout(0.1, queue.get())": (
        "It bounds a block: write `with timeout(0.1): x = yield from queue.get()`"
    ),
    "with move_on_after(1, slow()): yield": (
        "It bounds a block: write `with move_on_after(1): yield from slow()`"
    ),
    "yield from shield(slow())": "It bounds a block: write `with shield(): yield from slow()`",
    "x = spawn(slow, Queue(maxsize=3))": "Write `x = spawn(slow, Queue(size=3))`",
    "yield from to_thread()": "In corolib: yield from to_thread(f, ",
    "yield from to_thread(plain(), nonsense=1)": "In corolib: yield from to_thread(f, ",
    # Where nothing more is known than what it takes.
    f"yield from open_tcp({HERE})": "In corolib: yield from open_tcp(host, port, *, tls=None, serv",
    f"open_tcp({HERE})": "In corolib: yield from open_tcp(host, port, *, tls=None, serv",
    "yield from open_tcp(port=None)": "In corolib: yield from open_tcp(host, port, *, tls=None, s",
    "yield from queue.put()": "In corolib: yield from queue.put(item)",
    "Barrier()": "In corolib: Barrier(parties, name='')",
    "timeout(0.1, 5)": "In corolib: timeout(seconds=None, *, at=None)",
    "spawn()": "In corolib: spawn(f, /, *args, name=None, daemon=False",
    f"yield from serve_tcp(*[{HERE}, 0, echo])": None,
    f"listen_tcp(echo, {HERE}, 0)": "In corolib: listen_tcp(host=None, port=None, *, family",
    # What says enough, and what is not ours.
    "with timeout('3'): yield": None,
    "spawn(slow, timeout=5)": None,
    "slow(1, 2, 3)": None,
    'int("x", bases=5)': None,
    'options = {"name": 5}\nspawn(5, **options)': None,
    'options = {"host": "::1"}\nx = yield from serve_tcp(echo, port, **options)': (
        "In corolib: yield from serve_tcp(handler, host, port, "
    ),
    'options = {"nonsense": 1}\nx = yield from map_concurrent([1], slow, **options)': (
        "Write `x = yield from map_concurrent(slow, [1], **options)`"
    ),
    "[].append()": None,
}


@pytest.mark.found("E2")
@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_call_is_shown_as_it_should_be(line, tmp_path):
    message, notes = said_of(line, tmp_path)
    right = WRONG[line]
    if right is None:
        assert notes == []
    else:
        (note,) = notes
        assert note.startswith(right) if right.startswith("In corolib:") else note == right
    assert not re.search(r"\b_[A-Za-z]|__init__", message), message


@pytest.mark.found("E2")
def test_in_an_async_def_it_is_shown_with_await(tmp_path):
    _, notes = said_of(f"x = open_tcp({HERE}, 1, ssl=True)", tmp_path, COROUTINE)
    assert notes == [f"Write `x = await open_tcp({HERE}, 1, tls=True)`"]


@pytest.mark.found("E2")
def test_what_is_given_to_run_is_shown_in_its_call(tmp_path):
    path = tmp_path / "app.py"
    path.write_text(f"from corolib import *\nrun(serve_tcp, {HERE}, 0, print)\n")
    with pytest.raises(TypeError) as caught:
        exec(compile(path.read_text(), str(path), "exec"), {"__name__": "app"})
    assert caught.value.__notes__ == [f"Write `run(serve_tcp, print, {HERE}, 0)`"]


@pytest.mark.found("E2")
@pytest.mark.parametrize("name", sorted(corolib.__all__))
def test_no_message_names_what_is_private(name, tmp_path):
    thing = getattr(corolib, name)
    if not callable(thing) or (isinstance(thing, type) and issubclass(thing, BaseException)):
        pytest.skip("this takes what it is given")
    try:
        thing(nonsense=1)
    except TypeError:
        message, notes = said_of(f"thing = corolib.{name}\nthing(nonsense=1)", tmp_path)
        message += "\n".join(notes)
        assert not re.search(r"\b_[A-Za-z]|__init__", message), message


# What it costs ------------------------------------------------------------------------------------


OFTEN = """
def refused(text):
    raise TypeError(text)

def deep(n, f, *args):
    return deep(n - 1, f, *args) if n else f(*args)

def item(name): ...

def task(f, *args):
    yield
    f(*args)

def failing(*args):
    try:
        yield from spawn(task, *args)
    except (TypeError, ValueError):
        pass

def unpack(text):
    a, b = text.split()
    return a, b, slow(), slow(), slow()

def iterate(items):
    for each in items: slow(), slow()
    slow(), slow(), slow()
"""


@pytest.mark.parametrize(
    ("call", "lines", "names"),
    [
        ("int, []", 0, 0),  # what is refused is not ours
        ("deep, 30, int, []", 0, 0),
        ("deep, 30, refused, 'get(): give a number'", 0, 0),
        ("deep, 30, Queue, 'x'", 0, 0),  # it is not in one of the lines
        ("deep, 5, lambda: item(1, 2)", 2, 20),
        ("unpack, 'x'", 2, 3 * 20),
        ("iterate, 5", 1, 20),
    ],
)
def test_lines_that_fail_again_and_again_are_read_once(call, lines, names, tmp_path, counted):
    said_of(f"for _ in range(20): yield from failing({call})\n1 / 0", tmp_path, HEADER + OFTEN)
    assert counted["lines"] <= lines
    assert counted["names"] <= names


# Keywords -----------------------------------------------------------------------------------------


def test_the_cure_of_a_keyword_is_one_that_the_function_has_or_a_sentence():
    assert keyword_cure("ssl", ["tls"]) == "tls"
    assert keyword_cure("ssl", []) == "it is listener.serve(handler, tls=context)"
    assert keyword_cure("nonsense", ["tls"]) is None
    ours = {word for name in corolib.__all__ for word in keywords_of(getattr(corolib, name))}
    ours |= set(keywords_of(corolib.Listener.serve))
    for word, cures in KEYWORDS.items():
        assert all(" " in cure or cure in ours for cure in cures), word


def test_the_keywords_of_a_function_are_also_those_that_it_passes_on():
    assert {"host", "grace", "tls"} <= set(keywords_of(serve_tcp))
    assert "amplify" in keywords_of(serve_udp)
    assert keywords_of(open_tcp)[:3] == ["host", "port", "tls"]
    assert "f" not in keywords_of(spawn)
    assert keywords_of(Queue) == ["size", "name"]
    assert keywords_of(5) == []


@pytest.mark.found("E2")
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ssl": 1}, "For serve_tcp() it is tls=: write `run(serve_tcp(..., tls=...))`"),
        ({"tls": 1}, "If 'tls' is for serve_tcp(), write `run(serve_tcp(..., tls=...))`"),
        ({"debug": True}, "In corolib, run it by python -X dev, or with COROLIB_DEBUG=1 in the "),
    ],
)
def test_a_keyword_for_the_function_that_is_run_goes_into_its_call(options, text):
    with pytest.raises(TypeError, match=re.escape(f"keywords are the scheduler's own. {text}")):
        run(serve_tcp, print, "127.0.0.1", 0, **options)
