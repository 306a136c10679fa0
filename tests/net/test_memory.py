"""Servers for which Python has no memory: what fails half-way to begin or to end leaves nothing."""

import gc
import sys

import pytest

from corolib import (
    Scheduler,
    Task,
    listen_tcp,
    move_on_after,
    open_tcp,
    open_udp,
    run,
    timeout,
)
from corolib.kernel.timers import Timers
from corolib.testing import open_files, virtual_time
from tests.helpers.driving import echo, until
from tests.helpers.inside import PLACES_ASKED, STEPS, counts_of, question_counts, refuse_memory

pytestmark = pytest.mark.filterwarnings(
    # Debug mode says so, and is right; or it has no memory for that.
    "ignore:.* was called at .* but never run:RuntimeWarning",
    "ignore:.* while calling deallocator:pytest.PytestUnraisableExceptionWarning",
)

LOCAL = "127.0.0.1"
MANY = 20
"""Pieces of memory that are refused, one after the other: no step of a server takes as many."""


@pytest.fixture(autouse=True)
def collected():
    """A call that could not be run may be garbage: what debug mode says of it belongs here."""
    yield
    gc.collect()


class Refusals:
    """What is refused while a server makes one step for a client, if `arm(...)` has been called."""

    def __init__(self, monkeypatch, step):
        owner, name = STEPS[step]
        method = getattr(owner, name)
        self._begin = None

        def refuse(*args):
            begin, self._begin = self._begin, None
            if begin is None:
                return method(*args)
            end = begin()
            try:
                return method(*args)
            finally:
                end()

        monkeypatch.setattr(owner, name, refuse)

    def arm(self, begin):
        """Have `begin()` called before the next step, and what it returns after it."""
        self._begin = begin

    def are_made(self):
        return self._begin is None


def piece(number):
    """Refuse one piece of memory.

    Where somebody has traced before, Python takes some at the next call of each function, before
    the first line of it. So each has to be called once before.
    """
    return lambda: refuse_memory(number)


def call(owner, name, after):
    """Refuse the memory that a call takes: before it has done anything, or behind that."""

    def begin():
        failed = []
        method = getattr(owner, name)

        def fails(*args, **options):
            if failed:
                return method(*args, **options)
            failed.append(name)
            if after:
                method(*args, **options)
            raise MemoryError

        patch = pytest.MonkeyPatch()
        patch.setattr(owner, name, fails)
        return patch.undo

    return begin


def ask(address):
    """Return what an echo server answers; or b"" if it sends the client away."""
    with (yield from open_tcp(*address)) as client:
        try:
            yield from client.sendall(b"hello")
            yield from client.send_eof()
            return (yield from client.recv(100))
        except OSError:
            return b""


def connections_lose(refusals, refused, handler, **limits):
    """Refuse something to one connection after the other; each time the next one has it all."""
    lost = []

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler, on_error=lambda e, _: lost.append(e), **limits)
        address = server.listener.addresses[0]
        yield from ask(address)  # see `piece`
        yield from until(lambda: counts_of(server) == (0, 0, {}))
        for each in refused:
            with timeout(5):
                refusals.arm(each)
                yield from ask(address)
                yield from until(refusals.are_made)
                assert (yield from ask(address)) == b"hello"
                yield from until(lambda: counts_of(server) == (0, 0, {}))
        return (yield from server.stop())

    before = open_files()
    report = run(main, on_task_error=lambda task, exc: lost.append(exc), **virtual_time())
    assert report.cancelled == ()
    assert open_files() == before
    return lost


def questions_lose(refusals, refused):
    """Do the same with questions to a server of datagrams."""
    lost = []

    def wait_and_answer(data, sender):
        yield
        return data

    def asks(client):
        yield from client.send(b"hello")
        return (yield from client.recv())

    def main():
        sock = yield from open_udp(local=(LOCAL, 0))
        server = sock.serve(wait_and_answer, rate=1000, on_error=lambda e, _: lost.append(e))
        with (yield from open_udp(*sock.local)) as client:
            yield from asks(client)  # see `piece`
        yield from until(lambda: not question_counts(server))
        for each in refused:
            with (yield from open_udp(*sock.local)) as client, timeout(5):
                refusals.arm(each)
                with move_on_after(0.1):
                    yield from asks(client)
                yield from until(refusals.are_made)
                assert (yield from asks(client)) == b"hello"
                yield from until(lambda: not question_counts(server))
        return (yield from server.stop())

    report = run(main, on_task_error=lambda task, exc: lost.append(exc), **virtual_time())
    assert report.cancelled == ()
    return lost


def ends_first(stream):
    """A handler after which the peer is given time to read the rest."""
    yield from stream.sendall((yield from stream.recv(100)))


LIMITS = {"max_per_address": 5, "idle_timeout": 5}
UNTRACED = pytest.mark.skipif(
    sys.gettrace() is not None or sys.version_info[:2] in ((3, 12), (3, 13)),
    reason="tracing takes memory, too; and these Pythons crash when some of it is refused",
)


@UNTRACED
@pytest.mark.parametrize(("handler", "limits"), [(echo, {}), (ends_first, LIMITS)])
@pytest.mark.parametrize("step", ["begins", "ends"])
def test_a_connection_for_which_there_is_no_memory_is_lost_alone(
    step, handler, limits, monkeypatch
):
    refused = map(piece, range(MANY))
    assert connections_lose(Refusals(monkeypatch, step), refused, handler, **limits)


@UNTRACED
@pytest.mark.parametrize("step", ["asks", "is answered"])
def test_a_datagram_for_which_there_is_no_memory_is_lost_alone(step, monkeypatch):
    questions_lose(Refusals(monkeypatch, step), map(piece, range(MANY)))


CALLS = [
    ("begins", Task, "watch", False),
    ("begins", Task, "watch", True),
    ("begins", Scheduler, "start", False),
    ("begins", Timers, "set", False),
    ("ends", Scheduler, "spawn", False),
    ("ends", Task, "watch", False),
    ("ends", Scheduler, "close_file", False),
]


def test_whatever_call_lacks_memory_one_connection_is_lost(monkeypatch):
    for step, *rest in CALLS:
        with monkeypatch.context() as patch:
            refused = [call(*rest)]
            # Of the two ends of one to which time is given, the first comes next.
            handler = echo if rest[0] is Scheduler and rest[1] == "close_file" else ends_first
            lost = connections_lose(Refusals(patch, step), refused, handler, **LIMITS)
            assert [type(each) for each in lost] == [MemoryError]


def test_whatever_call_lacks_memory_one_datagram_is_lost(monkeypatch):
    for step, *rest in CALLS[:3]:
        with monkeypatch.context() as patch:
            refused = [call(*rest)]
            lost = questions_lose(Refusals(patch, step.replace("begins", "asks")), refused)
            assert [type(each) for each in lost] == [MemoryError]


def test_a_server_goes_on_that_lacks_the_memory_to_look_whether_it_is_full(monkeypatch, caplog):
    def main():
        server = listen_tcp(LOCAL, 0).serve(echo)
        patch.setattr(*PLACES_ASKED, refuse)
        for _ in range(2):
            assert (yield from ask(server.listener.addresses[0])) == b"hello"
        assert server.stats()["pauses"] == 1
        yield from server.stop()

    def refuse(*args):
        patch.undo()
        raise MemoryError

    with monkeypatch.context() as patch:
        run(main, **virtual_time())
    assert [record.getMessage().count("Cannot allocate memory") for record in caplog.records] == [1]
