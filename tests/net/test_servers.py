"""Servers: limits, isolation, the end of connections, stopping, signals, and load."""

import gc
import itertools
import math
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import ExitStack, suppress

import pytest

import corolib
from corolib import (
    ClosedError,
    Deadlock,
    Event,
    Listener,
    ReadWait,
    Sleep,
    Stream,
    TaskCancelled,
    current_scheduler,
    current_task,
    listen_tcp,
    listen_unix,
    move_on_after,
    now,
    open_tcp,
    run,
    serve_unix,
    shield,
    spawn,
    timeout,
    to_thread,
)
from corolib.kernel.waits import DEBUG
from corolib.net.progress import QUARTERS
from corolib.net.serving import NAMED
from corolib.testing import cancel_everywhere, open_files, virtual_time
from tests.helpers.clients import dial, everything
from tests.helpers.driving import FULL, MEASURED, echo, in_a_thread, turn, until
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import cancelled_by, connections_of, sockets_of, timers_set
from tests.helpers.odd import ODD
from tests.helpers.programs import ROOT, quiet
from tests.helpers.sockets import reset

LOCAL = "127.0.0.1"


@pytest.fixture(autouse=True, scope="module")
def files():
    """As many files as this process may open, which many systems grant only to who asks."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def part(number):
    """All of a number in the full sweep, else a tenth."""
    return number if FULL else number // 10


def serving(handler, scenario, options=None, hosts=LOCAL, **limits):
    """Run `scenario(server)` beside a server; return its result. Nothing is left open."""

    def main():
        server = listen_tcp(hosts, 0).serve(handler, **limits)
        try:
            return (yield from scenario(server))
        finally:
            yield from server.stop(0)
            assert server.stats()["open"] == 0

    before = open_files()
    result = run(main, **(options or {}))
    assert open_files() == before
    return result


class Failures:
    """An `on_error=` that keeps what it is told."""

    def __init__(self):
        self.told = []

    def __call__(self, exc, stream):
        self.told.append((type(exc), stream.peer))


# Serving ------------------------------------------------------------------------------------------


async def async_echo(stream):
    while data := await stream.recv(65536):
        await stream.sendall(data)


class EchoObject:
    def __call__(self, stream):
        return echo(stream)


@pytest.mark.parametrize("handler", [echo, async_echo, EchoObject()])
def test_a_handler_is_a_generator_function_or_an_async_def(handler):
    def scenario(server):
        with dial(server) as sock:
            sock.send(b"hello")
            sock.shutdown(socket.SHUT_WR)
            assert (yield from everything(sock)) == b"hello"
        yield from until(lambda: not server.stats()["open"])
        return server.stats()

    stats = serving(handler, scenario)
    assert (stats["accepted"], stats["failed"], stats["reset"]) == (1, 0, 0)


def test_a_stream_knows_its_server_and_its_peer():
    def handler(stream):
        seen.append((stream.server, stream.peer, stream.max_line))
        yield

    def scenario(server):
        with dial(server) as sock:
            yield from everything(sock)
            assert seen == [(server, sock.getsockname(), 77)]

    seen = []
    serving(handler, scenario, max_line=77)


def test_a_handlers_task_names_the_line_that_made_the_server():
    def handler(stream):
        seen.append(current_task().spawned_at)
        yield

    def scenario(server):
        with dial(server) as sock:
            yield from everything(sock)
            assert seen == [server.task.spawned_at]

    seen = []
    serving(handler, scenario)


def test_several_addresses_have_one_server():
    def scenario(server):
        for n in range(2):
            with dial(server, n) as sock:
                sock.send(b"x")
                yield ReadWait(sock)
                assert sock.recv(9) == b"x"
        assert server.stats()["accepted"] == 2
        assert repr(server).count(":") == 2

    serving(echo, scenario, hosts=[LOCAL, "127.0.0.2"])


def test_a_return_lets_the_peer_have_all_that_was_sent():
    """Also when it has sent what nobody read: a close at once would destroy the answer."""

    def handler(stream):
        yield from stream.sendall(bytes(1_000_000))

    def scenario(server):
        with dial(server) as sock:
            sock.send(b"unread" * 1000)
            yield Sleep(0.001)
            assert len((yield from everything(sock))) == 1_000_000
            sock.close()
        yield from until(lambda: not server.stats()["open"])

    serving(handler, scenario)


def test_a_connection_is_open_until_the_children_of_its_handler_are_done():
    def child(stream):
        yield from release.wait()
        yield from stream.sendall(b"late")

    def handler(stream):
        spawn(child, stream)
        yield

    def scenario(server):
        with dial(server) as sock:
            yield from until(lambda: server.stats()["open"] == 1)
            yield Sleep(0.002)
            assert server.stats()["open"] == 1
            release.set()
            assert (yield from everything(sock)) == b"late"

    release = Event()
    serving(handler, scenario)


def test_a_handler_may_close_its_stream_itself():
    def handler(stream):
        with stream:
            yield from stream.sendall(b"bye")

    def scenario(server):
        with dial(server) as sock:
            assert (yield from everything(sock)) == b"bye"
        yield from until(lambda: not server.stats()["open"])
        return server.stats()["failed"]

    assert serving(handler, scenario) == 0


def test_a_listener_has_one_server_and_a_server_one_handler():
    def main():
        yield
        with listen_tcp(LOCAL, 0) as listener:
            server = listener.serve(echo)
            with pytest.raises(RuntimeError, match="served already"):
                listener.serve(echo)
            with pytest.raises(TypeError, match="generator function"):
                listen_tcp(LOCAL, 0).serve(None)
        yield from server

    with pytest.warns(ResourceWarning):
        run(main)


def test_a_server_needs_a_run():
    with listen_tcp(LOCAL, 0) as listener, pytest.raises(RuntimeError, match="no scheduler"):
        listener.serve(echo)


def test_the_limits_are_seen_in_the_counts():
    limits = {
        "max_connections": 9,
        "max_per_address": 3,
        "evict_idle": 7.0,
        "min_rate": 100,
        "idle_timeout": 60.0,
        "max_line": 100,
        "max_message": 1000,
        "handshake": 3.0,
        "grace": 2.0,
        "drain": 4.0,
        "drain_limit": 50.0,
    }

    def scenario(server):
        yield
        return server.stats()

    stats = serving(echo, scenario, **limits)
    assert stats | limits == stats
    assert stats["backlog"] == 4096
    counts = {"accepted", "open", "refused", "failed", "reset", "idle", "full", "lost", "pauses"}
    counts |= {"crowded", "evicted", "slow"}
    assert {name: stats[name] for name in counts} == dict.fromkeys(counts, 0)


# Failures -----------------------------------------------------------------------------------------


@pytest.mark.hazard("H22")
def test_a_failure_of_a_handler_concerns_nobody_else():
    def handler(stream):
        number = next(numbers)
        if number % 3 == 2:
            raise KeyError(number)
        yield from stream.sendall(b"served")

    def scenario(server):
        heard = []
        for _ in range(300):
            with dial(server) as sock:
                heard.append((yield from everything(sock)))
        assert heard.count(b"served") == 200
        assert heard.count(b"") == 100
        yield from until(lambda: not server.stats()["open"])
        return server.stats()

    numbers = itertools.count()
    failures = Failures()
    stats = serving(handler, scenario, on_error=failures)
    assert (stats["accepted"], stats["failed"]) == (300, 100)
    assert len(failures.told) == 100
    assert {kind for kind, _ in failures.told} == {KeyError}
    assert len({peer for _, peer in failures.told}) == 100


def plain(stream):
    """No generator function: its body runs at the call. That it returns something hides that."""
    return stream


def test_a_handler_that_is_no_generator_function_is_a_failure_for_each_connection(caplog):
    def scenario(server):
        with dial(server) as sock:
            assert (yield from everything(sock)) == b""
        return server.stats()["failed"]

    assert serving(plain, scenario) == 1
    (record,) = caplog.records
    assert "no `yield`" in str(record.exc_info[1])


def fail(stream):
    yield
    raise KeyError("bug")


def test_a_failure_is_logged_with_its_peer_and_a_traceback(caplog):
    def scenario(server):
        with dial(server) as sock:
            yield from everything(sock)
            return sock.getsockname()

    host, port = serving(fail, scenario)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("corolib.server", "ERROR")
    assert f"the handler for {host}:{port} failed" in record.getMessage()
    assert 'raise KeyError("bug")' in caplog.text


@pytest.mark.parametrize("answer", [b"hello", "hello", b"", None, 5])
@pytest.mark.parametrize("tls", [False, True])
def test_an_answer_that_is_returned_is_not_sent_and_said_so(answer, tls, server_tls, caplog):
    def handler(stream):
        yield from stream.sendall(b"!")
        return answer

    def scenario(server):
        for _ in range(2):
            with (yield from open_tcp(*server.listener.addresses[0], tls=client_tls)) as stream:
                assert (yield from stream.recv(100)) == b"!"
                assert (yield from stream.recv(100)) == b""

    client_tls = None
    if tls:
        client_tls = ssl.create_default_context()
        client_tls.check_hostname = False
        client_tls.verify_mode = ssl.CERT_NONE
    serving(handler, scenario, tls=server_tls if tls else None)
    texts = [record.getMessage().partition(": ")[2] for record in caplog.records]
    if answer in (5, None, b""):
        assert texts == []
    else:
        assert texts[0] == (
            f"handler() returned {answer!r}, which is not sent: "
            "write `yield from stream.sendall(data)`"
        )
        assert len(texts) == 2 and "handler() returned (1 more of this" in caplog.text


@pytest.mark.found("T3")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("logged", [False, True])
def test_an_odd_failure_of_a_handler_concerns_its_connection_alone(kind, logged, caplog):
    def handler(stream):
        self = Proxy()  # noqa: F841 - where a method has its stream there may be anything
        yield
        raise kind()

    def scenario(server):
        for _ in range(2):
            with dial(server) as sock:
                assert (yield from everything(sock)) == b""
        yield from until(lambda: not server.stats()["open"])
        return server.stats()["failed"]

    failures = Failures()
    limits = {} if logged else {"on_error": failures}
    assert serving(handler, scenario, **limits) == 2
    assert len(failures.told) == (0 if logged else 2)
    assert ("ERROR" in [record.levelname for record in caplog.records]) == logged


class Proxy:
    """Raises whatever one asks it, its class too."""

    def __getattribute__(self, name):
        raise RuntimeError("working outside of the context")


def slow(stream):
    with timeout(0.001):
        yield from stream.readline()


def long(stream):
    yield from stream.readline()


def short(stream):
    yield from stream.readexactly(100)


@pytest.mark.parametrize(
    ("handler", "words"),
    [(slow, "TimeoutError"), (long, "LimitExceeded"), (short, "IncompleteRead")],
)
def test_a_failure_that_clients_can_bring_about_is_logged_in_one_line(handler, words, caplog):
    def scenario(server):
        with dial(server) as sock:
            if handler is not slow:
                sock.send(b"four")
            if handler is short:
                sock.shutdown(socket.SHUT_WR)
            yield from everything(sock)
        assert server.stats()["failed"] == 1

    serving(handler, scenario, max_line=3)
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert words in record.getMessage()


def test_a_peer_that_resets_is_counted_and_is_no_failure(caplog):
    def scenario(server):
        sock = dial(server)
        sock.send(b"x")
        yield ReadWait(sock)
        reset(sock)
        yield from until(lambda: not server.stats()["open"])
        return server.stats()

    stats = serving(echo, scenario)
    assert (stats["reset"], stats["failed"]) == (1, 0)
    assert not caplog.records


def test_a_reset_of_another_connection_of_the_handlers_is_a_failure():
    def handler(stream):
        yield
        raise ConnectionResetError("of the database")

    def scenario(server):
        with dial(server) as sock:
            yield from everything(sock)
        return server.stats()

    failures = Failures()
    stats = serving(handler, scenario, on_error=failures)
    assert (stats["reset"], stats["failed"]) == (0, 1)
    assert failures.told[0][0] is ConnectionResetError


def test_a_failing_hook_is_reported_and_the_server_goes_on():
    def hook(exc, stream):
        raise ZeroDivisionError

    def scenario(server):
        for _ in range(2):
            with dial(server) as sock:
                yield from everything(sock)
        yield

    reported = []
    serving(fail, scenario, {"on_task_error": lambda t, e: reported.append(type(e))}, on_error=hook)
    assert reported == [ZeroDivisionError] * 2


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_a_handler_ends_the_run(error, caplog):
    def handler(stream):
        yield
        raise error

    def main():
        listener = listen_tcp(LOCAL, 0)
        server = listener.serve(handler)
        with dial(server):
            yield from server

    before = open_files()
    with pytest.raises(error):
        run(main)
    assert open_files() == before
    assert not caplog.records


@pytest.mark.parametrize(
    ("spoil", "error"),
    [(lambda sock: sock.shutdown(socket.SHUT_RDWR), OSError), (socket.socket.close, ClosedError)],
    ids=["shut down", "closed"],
)
def test_a_server_whose_socket_was_spoilt_fails_and_its_owner_hears_of_it(spoil, error):
    def main():
        listener = listen_tcp(LOCAL, 0)
        server = listener.serve(echo)
        with dial(server) as sock:
            yield from until(lambda: server.stats()["open"])
            spoil(sockets_of(listener)[0])
            with pytest.raises(OSError) as caught:
                yield from server
            assert caught.type is error
            assert listener.closed
            assert (yield from everything(sock)) == b""

    run(main, **virtual_time())


def test_closing_the_listener_ends_the_server_when_the_last_connection_has_ended():
    def main():
        listener = listen_tcp(LOCAL, 0)
        server = listener.serve(echo)
        with dial(server):
            yield from until(lambda: server.stats()["open"])
            listener.close()
            yield from server.stopping.wait()
            assert server.stats()["open"] == 1
        report = yield from server
        assert (report.finished, report.cancelled) == (1, ())

    run(main)


# Limits -------------------------------------------------------------------------------------------


@pytest.mark.hazard("H31")
def test_with_as_many_as_may_be_open_the_next_waits_in_the_backlog():
    def handler(stream):
        active.append(stream)
        most.append(len(active))
        yield from stream.recv(1)
        active.remove(stream)

    def scenario(server):
        socks = [dial(server) for _ in range(10)]
        yield from until(lambda: len(active) == 2)
        yield Sleep(0.002)
        assert server.stats()["open"] == 2
        for sock in socks:
            sock.close()
        yield from until(lambda: server.stats()["accepted"] == 10)
        yield from until(lambda: not server.stats()["open"])
        return server.stats()["full"]

    active, most = [], []
    assert 1 <= serving(handler, scenario, max_connections=2) <= 9
    assert max(most) == 2


def test_a_full_server_can_be_stopped_and_cancelled():
    def scenario(server):
        with dial(server), dial(server):
            yield from until(lambda: server.stats()["full"])
            yield from server.stop(0)

    serving(echo, scenario, max_connections=1)

    def main():
        server = listen_tcp(LOCAL, 0).serve(echo, max_connections=1)
        with dial(server), dial(server):
            yield from until(lambda: server.stats()["full"])
            server.task.cancel()
            with pytest.raises(TaskCancelled):
                yield from server
            assert (yield from server.stop()) == (0, ())

    run(main)


def test_a_full_server_is_not_blamed_for_a_deadlock_and_names_itself():
    def handler(stream):
        yield from Event("that nobody sets").wait()

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler, max_connections=1, evict_idle=None)
        with dial(server):
            yield from server

    with pytest.raises(Deadlock, match="a place for one more connection"):
        run(spawning(main))


def spawning(main):
    """Run `main` in a task that is not the main task."""

    def outer():
        yield from spawn(main)

    return outer


def test_a_peer_that_is_not_accepted_is_closed_and_counted():
    def scenario(server):
        with dial(server) as sock:
            assert (yield from everything(sock)) == b""
            assert asked == [sock.getsockname()]
        return server.stats()

    asked = []
    stats = serving(echo, scenario, accept=asked.append)
    assert (stats["accepted"], stats["refused"], stats["open"]) == (1, 1, 0)


def test_a_predicate_that_fails_is_a_failure_of_that_connection():
    def scenario(server):
        with dial(server) as sock:
            assert (yield from everything(sock)) == b""
        return server.stats()["failed"]

    failures = Failures()
    assert serving(echo, scenario, accept=lambda peer: 1 / 0, on_error=failures) == 1
    assert failures.told[0][0] is ZeroDivisionError


def test_an_idle_connection_is_cut_never_early_and_a_quarter_late_at_most():
    def scenario(server):
        with dial(server) as sock:
            for _ in range(20):
                yield Sleep(7.3)
                sock.send(b"x")
                yield ReadWait(sock)
                assert sock.recv(9) == b"x"
            last = now()
            assert (yield from everything(sock)) == b""
            assert 8 <= now() - last <= 8 + 8 / QUARTERS
        return server.stats()

    stats = serving(echo, scenario, virtual_time(), idle_timeout=8)
    assert (stats["idle"], stats["failed"]) == (1, 0)


MUCH = 12_000_000


def read_slowly(sock, size, every, most):
    """Read so many bytes each time, until `most` have come or there are no more; return how many"""
    count = 0
    while count < most:
        yield Sleep(every)
        try:
            data = sock.recv(size)
        except BlockingIOError:
            continue
        if not data:
            break
        count += len(data)
    return count


@pytest.mark.found("N1")
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_who_reads_slowly_and_steadily_is_not_idle(kind, tmp_path):
    """The kernel takes megabytes at a time. What is left of them shrinks as the peer reads."""

    def handler(stream):
        yield from stream.sendall(bytes(MUCH))

    def main():
        listener = listen_unix(tmp_path / "s") if kind == "unix" else listen_tcp(LOCAL, 0)
        server = listener.serve(handler, idle_timeout=1)
        with dial(server, buffer=100_000) as sock:
            count = yield from read_slowly(sock, 30_000, 0.1, MUCH)
        yield from server.stop(0)
        return count, server.stats()["idle"]

    assert run(main, **virtual_time()) == (MUCH, 0)


def settle(server):
    """Let the kernel fill up the buffers of the peers, for which it needs time that is not virtual:
    until what it keeps for them is the same for a tenth of a second.
    """
    before = None
    while before != (unsent := [each.stream.unsent() for each in connections_of(server)]):
        before = unsent
        time.sleep(0.1)


@pytest.mark.found("N1")
def test_who_stops_to_read_is_idle():
    def handler(stream):
        try:
            yield from stream.sendall(bytes(MUCH))
        finally:
            ends.append(now())

    def scenario(server):
        with dial(server, buffer=100_000) as sock:
            yield from read_slowly(sock, 30_000, 0.1, MUCH // 4)
            settle(server)
            stopped = now()
            yield from until(lambda: ends)
            # What the kernel had taken is seen to have moved a quarter of a second later, and what
            # it takes in its place another one; then nothing moves for a second.
            assert 1 <= ends[0] - stopped <= 1 + 2 / QUARTERS
            assert server.stats()["idle"] == 1

    ends = []
    serving(handler, scenario, virtual_time(), idle_timeout=1)


@pytest.mark.found("N2")
def test_after_the_handler_a_peer_that_reads_slowly_gets_the_rest():
    def handler(stream):
        yield from stream.sendall(bytes(MUCH // 4))

    def scenario(server):
        with dial(server, buffer=100_000) as sock:
            sock.send(b"x")
            reading = spawn(read_slowly, sock, 100_000, 0.5, MUCH)
            for _ in range(10):
                yield Sleep(1)
                sock.send(b"x")  # in the middle: it would be answered by a reset
            assert (yield from reading) == MUCH // 4
        yield from until(lambda: not server.stats()["open"])

    serving(handler, scenario, virtual_time())


@pytest.mark.found("N2")
@pytest.mark.parametrize("rate", [200_000, 2_000_000])
def test_a_steady_reader_gets_all_of_twenty_megabytes(rate):
    """With every limit that might cut it: what it takes is seen in lumps of some hundred KB."""

    def handler(stream):
        yield from stream.sendall(bytes(20_000_000))

    def scenario(server):
        with dial(server, buffer=100_000) as sock:
            count = yield from read_slowly(sock, rate // 10, 0.1, 20_000_000)
            sock.shutdown(socket.SHUT_WR)
            yield from until(lambda: not server.stats()["open"])
        return count, server.stats()["idle"], server.stats()["slow"]

    limits = {"idle_timeout": 5, "min_rate": rate // 2, "drain_limit": 150}
    assert serving(handler, scenario, virtual_time(), **limits) == (20_000_000, 0, 0)


@pytest.mark.found("N2")
def test_who_is_served_late_is_not_slow(monkeypatch):
    """A task that gives way in the middle of sending is no sign: its peer has all that was sent."""
    time = 0.0

    def handler(stream):
        for _ in range(10_000):
            yield from stream.sendall(b"x")

    def scenario(server):
        nonlocal time
        with dial(server):
            while time < 20:
                time += 0.5
                yield
        return server.stats()["slow"]

    monkeypatch.setattr(Stream, "unsent", lambda self: 0)  # however late the system says so
    assert serving(handler, scenario, {"clock": lambda: time}, min_rate=10_000) == 0


@pytest.mark.found("N2")
def test_a_steady_reader_of_single_bytes_gets_all():
    """Its window is a thousand bytes, and opens by single ones: so it is what the kernel keeps."""

    def handler(stream):
        yield from stream.sendall(bytes(30_000))

    def scenario(server):
        with dial(server, buffer=1) as sock:  # the kernel takes what it has as its least
            return (yield from read_slowly(sock, 1, 0.001, 30_000))

    limits = {"idle_timeout": 5, "drain": 5, "drain_limit": 150}
    assert serving(handler, scenario, virtual_time(), **limits) == 30_000


@pytest.mark.found("N2")
def test_a_reader_that_stops_is_gone_after_twice_the_time_for_silence():
    """Once for what had moved before it stopped, and once for nothing."""

    def handler(stream):
        yield from stream.sendall(bytes(MUCH // 4))

    def scenario(server):
        with dial(server, buffer=100_000) as sock:
            yield from read_slowly(sock, 100_000, 0.1, MUCH // 8)
            settle(server)
            stopped = now()
            yield from until(lambda: not server.stats()["open"])
            return now() - stopped

    took = serving(handler, scenario, virtual_time(), drain=5, drain_limit=150)
    assert 0 < took <= 2 * 5 + 0.1


@pytest.mark.found("N2")
def test_after_the_handler_an_upload_goes_on_and_its_answer_arrives():
    def handler(stream):
        yield from stream.readline()
        yield from stream.sendall(b"413\r\n")

    def scenario(server):
        with (yield from open_tcp(*server.listener.addresses[0])) as client:
            yield from client.sendall(b"POST\n")
            for _ in range(50):
                yield from client.sendall(bytes(100_000))
                yield Sleep(0.1)
            yield from client.send_eof()
            return (yield from client.recv(100))

    assert serving(handler, scenario, virtual_time()) == b"413\r\n"


@pytest.mark.found("N2")
@pytest.mark.parametrize(("moves", "end"), [(False, 3), (True, 20)])
def test_after_the_handler_there_is_a_bound_for_silence_and_one_in_all(moves, end):
    def handler(stream):
        yield from stream.sendall(b"x")

    def scenario(server):
        with dial(server) as sock:
            yield from until(lambda: server.stats()["open"])
            begun = now()
            while server.stats()["open"]:
                yield Sleep(1)
                if moves:
                    with suppress(OSError):
                        sock.send(b"x")
            return now() - begun

    took = serving(handler, scenario, virtual_time(), drain=3, drain_limit=20)
    assert end - 0.1 <= took <= end + 2


def test_the_reason_of_an_idle_cut_says_so():
    def handler(stream):
        try:
            yield from stream.recv(1)
        except corolib.Cancelled as exc:
            reasons.append(exc.reason)
            raise

    def scenario(server):
        with dial(server) as sock:
            yield from everything(sock)
            assert now() == 8

    reasons = []
    serving(handler, scenario, virtual_time(), idle_timeout=8)
    assert reasons == ["idle for 8 s"]


@pytest.mark.parametrize("moves", [False, True])
def test_a_handler_that_swallows_an_idle_cut_loses_its_stream(moves):
    """Where the grace of the run does not end it."""

    def handler(stream):
        while True:
            try:
                if not (yield from stream.recv(1)):
                    return
                heard.append(now() - begun)
            except corolib.Cancelled:
                swallowed.append(now() - begun)

    def scenario(server):
        nonlocal begun
        with dial(server) as sock:
            yield from until(lambda: server.stats()["open"])
            begun = now()
            if moves:
                yield Sleep(11)
                sock.send(b"x")
            with timeout(100):
                assert (yield from everything(sock)) == b""
            ends.append(now() - begun)
        yield from until(lambda: not server.stats()["open"])
        return server.stats()

    begun, heard, swallowed, ends = 0, [], [], []
    failures = Failures()
    options = {**virtual_time(), "grace": math.inf}
    stats = serving(handler, scenario, options, idle_timeout=8, on_error=failures)
    assert [round(each) for each in swallowed] == [8]
    assert [round(each) for each in heard] == ([11] if moves else [])
    assert [round(each) for each in ends] == [28 if moves else 16]  # at most a quarter late
    assert failures.told == []  # it was cut, and is counted as that
    assert (stats["failed"], stats["idle"]) == (0, 1)


def test_no_timer_is_left_of_connections_that_have_ended():
    def scenario(server):
        for _ in range(20):
            with dial(server):
                yield from until(lambda: server.stats()["open"])
            yield from until(lambda: not server.stats()["open"])
        scheduler = current_scheduler()
        return timers_set(scheduler)

    assert serving(echo, scenario, idle_timeout=60) == 0


# Hazards of accepting -----------------------------------------------------------------------------


@pytest.mark.hazard("H17")
def test_clients_that_reset_before_they_are_accepted_do_no_harm(caplog):
    def scenario(server):
        for _ in range(part(1000) // 50):
            for _ in range(50):
                reset(dial(server))
            yield
        with dial(server) as sock:
            sock.send(b"x")
            yield ReadWait(sock)
            assert sock.recv(9) == b"x"
        yield from until(lambda: not server.stats()["open"])
        return server.stats()["failed"]

    assert serving(echo, scenario) == 0
    assert not caplog.records


@pytest.mark.hazard("H18")
def test_each_connection_is_served_or_closed_wherever_the_server_is_cancelled():
    def handler(stream):
        yield
        yield from stream.sendall(b"served")

    def scenario():
        server = listen_tcp(LOCAL, 0).serve(handler)
        socks = [dial(server) for _ in range(2)]
        for sock in socks:
            heard = b""
            try:
                heard = yield from everything(sock)
            finally:
                sock.close()
            assert heard in (b"", b"served")
        yield from server.stop(0)

    assert cancel_everywhere(scenario) > 10


@pytest.mark.hazard("H19")
def test_handlers_that_are_cancelled_before_their_first_step_leave_nothing_open():
    def handler(stream):
        tasks.append(current_task())
        yield from stream.recv(1)
        raise AssertionError("it was cancelled before")

    def scenario(server):
        count = part(1000)
        socks = [dial(server) for _ in range(count)]
        while server.stats()["accepted"] < count:
            yield
            for task in server.task.children:
                task.cancel()
        for sock in socks:
            assert (yield from everything(sock)) == b""
            sock.close()
        return server.stats()["failed"]

    tasks = []
    assert serving(handler, scenario) == 0


@pytest.mark.hazard("H21")
def test_a_crowd_of_clients_leaves_the_others_their_turns():
    """All come at once. A ticker is stepped in each turn; at most a batch is accepted in one."""

    def ticker(server):
        before = 0
        while True:
            accepted = server.stats()["accepted"]
            seen.append(accepted - before)
            before = accepted
            yield

    def scenario(server):
        count = part(2000)
        spawn(ticker, server, daemon=True)
        with ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(dial(server))
            yield from until(lambda: server.stats()["accepted"] == count)

    seen = []
    serving(echo, scenario)
    assert max(seen) == 64


@pytest.mark.hazard("H50")
def test_a_client_with_endless_data_starves_neither_others_nor_the_accepting():
    """It sends without end; the server reads it as fast as it can. Others are served meanwhile."""

    def sink(stream):
        while data := (yield from stream.recv(1000)):
            if data.startswith(b"ping"):
                yield from stream.sendall(b"pong")

    def flood(sock):
        stream = Stream(sock)
        with stream:
            while True:
                yield from stream.sendall(bytes(10000))

    def scenario(server):
        flooding = spawn(flood, dial(server))
        yield from until(lambda: server.stats()["open"])
        for _ in range(20):
            with dial(server) as sock:
                sock.send(b"ping")
                turns = turn()
                yield ReadWait(sock)
                assert sock.recv(9) == b"pong"
                assert turn() - turns < 30
        yield from flooding.stop()

    serving(sink, scenario)


SLOW = 500


@pytest.mark.hazard("H31")
def test_a_good_client_is_answered_at_once_while_many_slow_ones_send_byte_by_byte():
    """Each slow client is cut when its whole request has taken too long, not byte by byte."""

    def request(stream):
        while (yield from stream.more()):
            with timeout(10):
                yield from stream.readuntil(b"\r\n\r\n")
            yield from stream.sendall(b"answer")

    def drip(sock):
        with sock:
            try:
                while True:
                    sock.send(b"x")
                    yield Sleep(1)
            except OSError:
                return now()

    def scenario(server):
        drips = [spawn(drip, dial(server)) for _ in range(SLOW)]
        yield Sleep(5)
        assert server.stats()["open"] == SLOW
        with dial(server) as sock:
            sock.send(b"GET\r\n\r\n")
            yield ReadWait(sock)
            assert sock.recv(100) == b"answer"
            assert 5 <= now() < 6
        ends = []
        for task in drips:
            ends.append((yield from task))
        assert max(ends) <= 12  # one byte goes out after the cut before the next one fails
        assert server.stats()["failed"] == SLOW

    serving(request, scenario, virtual_time(), on_error=lambda exc, stream: None)


# Stopping -----------------------------------------------------------------------------------------


def test_stopping_lets_handlers_finish_and_tells_them():
    def handler(stream):
        yield from stream.server.stopping.wait()
        yield Sleep(2)
        yield from stream.sendall(b"done")

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler)
        with dial(server) as sock:
            yield from until(lambda: server.stats()["open"])
            begun = now()
            report = yield from server.stop(grace=5)
            # The handler ends after 2 s. The client does not end: what it is given to do so, 5 s
            # more, is cut at the end of the grace.
            assert 5 <= now() - begun < 5.1
            assert (yield from everything(sock)) == b"done"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(server.listener.addresses[0])
        assert (report.finished, report.cancelled) == (1, ())
        assert (yield from server.stop()) == report == (yield from server)
        assert str(report) == "1 finished, 0 had to be cancelled"
        assert "ended" in repr(server)
        scheduler = current_scheduler()
        assert timers_set(scheduler) == 0

    run(main, **virtual_time())


def lingering(stream):
    yield Event("that never comes").waiting() if stream is None else Sleep(1000)


def test_who_does_not_finish_in_the_grace_is_cancelled_and_named(caplog):
    def handler(stream):
        if stream.peer == quick.getsockname():
            yield Sleep(1)
        else:
            yield from lingering(stream)

    def main():
        nonlocal quick
        server = listen_tcp(LOCAL, 0).serve(handler)
        with dial(server) as quick, dial(server) as sock:
            yield from until(lambda: server.stats()["open"] == 2)
            before = now()
            report = yield from server.stop(grace=3)
            assert 3 <= now() - before < 3.1
            assert report.finished == 1
            (left,) = report.cancelled
            assert left.task.startswith("handler#")
            assert left.peer == sock.getsockname()
            assert re.fullmatch(r"test_servers\.py:\d+", left.where)
            assert left.doing == "Sleep(1000.0)"
            text = f"{left.task} for {LOCAL}:{left.peer[1]} at {left.where}: Sleep(1000.0)"
            assert str(report) == f"1 finished, 1 had to be cancelled\n  {text}"
            assert not caplog.records  # who calls `stop()` has the report

    quick = None
    run(main, **virtual_time())


def test_a_report_names_a_handler_that_waits_for_its_children():
    def child():
        yield Sleep(1000)

    def handler(stream):
        spawn(child)
        yield

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler)
        with dial(server):
            yield from until(lambda: server.stats()["open"])
            yield Sleep(0.01)
            (left,) = (yield from server.stop(grace=1)).cancelled
            assert left.doing.startswith("completing, waits for child#")

    run(main, **virtual_time())


def test_who_is_shielded_is_named_when_the_grace_is_over_and_waited_for():
    """What it does in peace is done whole; asking again does not change that."""

    def handler(stream):
        with shield(30):
            yield Sleep(20)
            done.append(round(now() - before))
        yield Sleep(1000)

    def main():
        nonlocal before
        server = listen_tcp(LOCAL, 0).serve(handler)
        with dial(server):
            yield from until(lambda: server.stats()["open"])
            before = now()
            stops = [spawn(server.stop(grace=grace)) for grace in (5, 0)]
            report = yield from stops[0]
            assert (yield from stops[1]) == report
        (left,) = report.cancelled
        assert left.doing == "Sleep(20.0)"
        return round(now() - before)

    done, before = [], 0
    assert run(main, **virtual_time()) == 20
    assert done == [20]


def test_a_long_report_has_a_short_text():
    def main():
        server = listen_tcp(LOCAL, 0).serve(lingering)
        with ExitStack() as stack:
            for _ in range(NAMED + 5):
                stack.enter_context(dial(server))
            yield from until(lambda: server.stats()["open"] == NAMED + 5)
            report = yield from server.stop(0)
        assert len(report.cancelled) == NAMED + 5
        lines = str(report).split("\n")
        assert len(lines) == NAMED + 2
        assert lines[-1] == "  and 5 more"

    run(main, **virtual_time())


def test_a_peer_that_does_not_hang_up_does_not_hold_a_stop_back():
    """Its handler has finished: it is not named."""

    def handler(stream):
        yield from stream.sendall(b"bye")

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler)
        with dial(server) as sock:
            assert (yield from everything(sock)) == b"bye"
            assert server.stats()["open"] == 1  # for the peer may have sent something
            before = now()
            report = yield from server.stop(grace=0.5)
            assert now() - before <= 0.5
            assert (report.finished, report.cancelled) == (0, ())

    run(main, **virtual_time())


def test_asking_again_shortens_the_grace_and_never_lengthens_it():
    def main():
        server = listen_tcp(LOCAL, 0).serve(lingering)
        with dial(server):
            yield from until(lambda: server.stats()["open"])
            before = now()
            stops = [spawn(server.stop(grace=grace)) for grace in (50, 2, 90, float("inf"))]
            reports = []
            for stop in stops:
                reports.append((yield from stop))
            assert 2 <= now() - before < 3
            assert reports == [reports[0]] * 4
            assert current_scheduler().stats()["timers"] <= 1

    run(main, **virtual_time())


def test_a_stop_that_is_cancelled_goes_on_all_the_same():
    def main():
        server = listen_tcp(LOCAL, 0).serve(lingering, grace=3)
        with dial(server):
            yield from until(lambda: server.stats()["open"])
            with move_on_after(1) as scope:
                yield from server.stop()
            assert scope.expired
            assert "stopping" in repr(server)
            report = yield from server
            assert len(report.cancelled) == 1

    run(main, **virtual_time())


@pytest.mark.parametrize("spelling", ["stop", "join"])
def test_a_handler_that_waits_for_the_end_of_its_server_is_told_what_to_write(spelling):
    def child(stream):
        yield from (stream.server.stop() if spelling == "stop" else stream.server)

    def handler(stream):
        yield from spawn(child, stream)

    def scenario(server):
        with dial(server) as sock:
            yield from everything(sock)
        assert not server.stopping.is_set()

    failures = Failures()
    serving(handler, scenario, on_error=failures)
    assert failures.told[0][0] is Deadlock


def test_a_handler_can_have_its_server_stopped():
    def handler(stream):
        spawn(stream.server.stop(grace=1), parent=current_scheduler().main)
        yield from stream.server.stopping.wait()
        yield from stream.sendall(b"off")

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler)
        with dial(server) as sock:
            report = yield from server
            assert (yield from everything(sock)) == b"off"
        assert report.finished == 1

    run(main, **virtual_time())


def test_a_stop_during_a_pause_for_want_of_files_is_prompt():
    from tests.helpers.faults import FakeSocket

    def main():
        near = socket.create_server((LOCAL, 0))
        server = Listener([FakeSocket((near, None), accept=[24] * 1000)]).serve(echo)
        with dial(server):
            yield Sleep(0.55)
            yield from server.stop()
        assert now() < 0.7
        assert server.stats()["pauses"] == 6

    run(main, **virtual_time())


def test_shielded_clean_up_has_its_time_when_the_grace_is_over():
    def handler(stream):
        with shield():
            yield Sleep(0.4)
            yield from stream.sendall(b"whole")

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler)
        with dial(server) as sock:
            yield from until(lambda: server.stats()["open"])
            yield from server.stop(0)
            assert (yield from everything(sock)) == b"whole"

    run(main, **virtual_time())


@pytest.mark.hazard("H57")
def test_a_stop_is_over_in_time_whatever_the_handlers_do():
    """Idle ones, some in mid-transfer, some stuck in `finally`, some in a thread."""
    release = threading.Event()
    count = part(1000)

    def handler(stream):
        kind = next(kinds) % 10
        if kind < 5:
            yield from stream.recv(1)
        elif kind < 8:
            while True:
                yield from stream.sendall(bytes(1_000_000))
        elif kind == 8:
            try:
                yield from stream.recv(1)
            finally:
                yield Sleep(1000)
        else:
            yield from to_thread(release.wait)

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler)
        with ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(dial(server))
            yield from until(lambda: server.stats()["open"] == count)
            yield from until(lambda: next(kinds) > count)
            before = now()
            report = yield from server.stop(grace=1)
            release.set()
            assert now() - before < 2.1
        assert len(report.cancelled) == count
        assert {each.doing.split("(")[0] for each in report.cancelled} >= {"ReadWait", "WriteWait"}
        assert current_scheduler().tasks == [current_task()]

    kinds = itertools.count()
    before = open_files()
    run(main, **virtual_time())
    assert open_files() == before


# As a child, and as the main task -----------------------------------------------------------------


def test_a_server_in_a_child_is_stopped_by_cancelling_it():
    def handler(stream):
        try:
            yield from stream.recv(1)
        finally:
            ended.append(now())

    def main():
        path = f"\0corolib-test-{os.getpid()}"
        task = spawn(serve_unix, handler, path)
        yield
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            yield Sleep(1)
            yield from task.stop()
            assert ended == [1]
            assert sock.recv(1) == b""
        assert current_scheduler().tasks == [current_task()]

    ended = []
    before = open_files()
    run(main, **virtual_time())
    assert open_files() == before


def test_a_server_in_a_block_that_is_left_is_gone_before_the_next_wait():
    def handler(stream):
        try:
            yield from stream.recv(1)
        finally:
            yield Sleep(0.5)
            ended.append(now())

    def main():
        path = f"\0corolib-test-{os.getpid()}"

        def client():
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                yield Sleep(20)

        spawn(client, daemon=True)
        with move_on_after(2) as scope:
            yield from serve_unix(handler, path)
        assert scope.expired and not ended
        yield
        assert ended == [2.5]

    ended = []
    run(main, **virtual_time())


def program(text, *args):
    """Start a program that serves; return the process, and the line that it prints first."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", text, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    return process, process.stdout.readline().strip()


MAIN = """
import signal, sys
from corolib import *

def handler(stream):
    yield from stream.sendall(b"hello")
    try:
        yield from stream.server.stopping.wait()
        yield from stream.sendall(b"bye")
        if sys.argv[1] == "stuck":
            yield Sleep(1000)
    finally:
        print("handler ended", flush=True)

listener = listen_tcp("127.0.0.1", 0)

def main():
    server = listener.serve(handler, grace=float(sys.argv[2]))
    print(listener.addresses[0][1], flush=True)
    return (yield from server)

print("report:", run(main))
print("SIGTERM is", signal.getsignal(signal.SIGTERM).name)
"""


def ended_by(signum, kind, grace, times=1):
    """Start the program, connect, send signals; return its exit code, output, errors."""
    process, port = program(MAIN, kind, grace)
    try:
        with process, socket.create_connection((LOCAL, int(port)), timeout=60) as sock:
            assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
            process.send_signal(signum)
            assert sock.recv(3, socket.MSG_WAITALL) == b"bye"
            for _ in range(times - 1):
                process.send_signal(signum)
            if kind == "well":
                assert sock.recv(1) == b""
            sock.close()
            out, err = process.communicate(timeout=60)
            return process.returncode, out, err
    finally:
        process.kill()


def test_sigterm_stops_a_server_in_the_main_task_and_the_run_returns_its_report():
    code, out, err = ended_by(signal.SIGTERM, "well", 30)
    assert code == 0, err
    assert out.splitlines() == [
        "handler ended",
        "report: 1 finished, 0 had to be cancelled",
        "SIGTERM is SIG_DFL",
    ]


def test_sigterm_again_changes_nothing_and_who_is_stuck_is_named():
    code, out, err = ended_by(signal.SIGTERM, "stuck", 0.3, times=3)
    assert code == 0, err
    assert "report: 0 finished, 1 had to be cancelled\n  handler#" in out
    assert "<string>:11: Sleep(1000.0)" in out
    assert "stopped: 0 finished, 1 had to be cancelled" in err  # the log


def test_ctrl_c_stops_a_server_in_the_main_task_and_leaves_the_run():
    code, out, err = ended_by(signal.SIGINT, "well", 30)
    assert code == -signal.SIGINT
    assert out.splitlines() == ["handler ended"]
    assert "KeyboardInterrupt" in err

    code, out, err = ended_by(signal.SIGINT, "stuck", 0.1)
    assert code == -signal.SIGINT
    assert "0 finished, 1 had to be cancelled" in err


def test_a_second_ctrl_c_ends_the_run_on_the_spot():
    code, _, err = ended_by(signal.SIGINT, "stuck", 1000, times=2)
    assert code == -signal.SIGINT
    assert "was abandoned" in err


WHOLE = """
import sys
from corolib import *

def hello(stream):
    yield from stream.sendall(b"hello")

print("starting", flush=True)
print("report:", run(serve_unix, hello, sys.argv[1]))
"""


def test_the_call_of_one_line_is_a_whole_server(tmp_path):
    path = str(tmp_path / "s")
    process, _ = program(WHOLE, path)
    with process:
        sock = socket.socket(socket.AF_UNIX)
        for _ in range(6000):
            try:
                sock.connect(path)
                break
            except OSError:
                threading.Event().wait(0.01)
        with sock:
            assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert quiet(err)
    assert re.fullmatch(r"report: [01] finished, 0 had to be cancelled\n", out)
    assert not os.path.exists(path)


def test_a_program_that_handles_sigterm_itself_keeps_its_handler():
    def main():
        server = listen_tcp(LOCAL, 0).serve(echo)
        spawn(stopper, server)
        yield from server

    def stopper(server):
        yield
        signal.raise_signal(signal.SIGTERM)
        yield
        assert not server.stopping.is_set()
        yield from server.stop()

    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        run(main)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


def test_a_server_in_another_thread_does_not_ask_for_signals():
    def main():
        server = listen_tcp(LOCAL, 0).serve(echo)
        spawn(server.stop())
        reports.append((yield from server))

    reports = []
    in_a_thread(lambda: run(main))
    assert reports[0].finished == 0


# TLS ----------------------------------------------------------------------------------------------


def test_a_server_speaks_tls_and_reads_lines(server_tls, client_tls):
    def handler(stream):
        versions.append(stream.tls.version())
        yield from echo(stream)

    def scenario(server):
        with Stream(dial(server)) as client:
            yield from client.start_tls(client_tls, server_hostname="localhost")
            yield from client.sendall(b"hello\n")
            assert (yield from client.readline()) == b"hello\n"
            yield from client.aclose()
        yield from until(lambda: not server.stats()["open"])
        return server.stats()

    versions = []
    stats = serving(handler, scenario, tls=server_tls)
    assert versions == ["TLSv1.3"]
    assert (stats["failed"], stats["reset"]) == (0, 0)


def test_under_tls_a_handler_may_be_an_async_def(server_tls, client_tls):
    def scenario(server):
        with Stream(dial(server)) as client:
            yield from client.start_tls(client_tls, server_hostname="localhost")
            yield from client.sendall(b"hello")
            assert (yield from client.recv(9)) == b"hello"
            yield from client.aclose()

    serving(async_echo, scenario, tls=server_tls)


@pytest.mark.hazard("H77")
def test_a_client_that_never_shakes_hands_is_cut_while_others_are_served(
    server_tls,
    client_tls,
    caplog,
):
    """One says nothing, one talks garbage, one plain HTTP, one leaves half-way."""

    def scenario(server):
        silent, garbage, http, gone = (dial(server) for _ in range(4))
        garbage.send(bytes(range(256)))
        http.send(b"GET / HTTP/1.1\r\n\r\n")
        gone.send(b"\x16\x03\x01")
        gone.shutdown(socket.SHUT_WR)
        with Stream(dial(server)) as client:
            yield from client.start_tls(client_tls, server_hostname="localhost")
            yield from client.sendall(b"hello")
            assert (yield from client.recv(9)) == b"hello"
            yield from client.aclose()
        for sock in (garbage, http, gone):
            yield from everything(sock)
            sock.close()
        assert now() < 3
        yield from everything(silent)
        silent.close()
        assert now() == pytest.approx(3, abs=0.1)
        return server.stats()

    stats = serving(echo, scenario, virtual_time(), tls=server_tls, handshake=3)
    assert (stats["failed"], stats["reset"]) == (3, 1)
    assert len(caplog.records) == 3
    assert {(each.levelname, each.exc_info) for each in caplog.records} == {("WARNING", None)}
    assert sum("took longer than 3 s" in each.getMessage() for each in caplog.records) == 1


def test_a_server_that_stops_does_not_wait_for_a_handshake_that_has_not_begun(
    server_tls, client_tls, caplog
):
    def scenario(server):
        with dial(server) as silent, dial(server) as begun, Stream(dial(server)) as client:
            begun.send(b"\x16\x03\x01")
            yield from client.start_tls(client_tls, server_hostname="localhost")
            yield from until(lambda: server.stats()["open"] == 3)
            yield
            stopping = spawn(server.stop, 5)
            assert (yield from everything(silent)) == b""
            assert now() < 1
            yield from client.sendall(b"hello")
            assert (yield from client.recv(9)) == b"hello"
            yield from client.aclose()
            [cut] = (yield from stopping).cancelled
            assert cut.peer == begun.getsockname()
        return server.stats()

    stats = serving(echo, scenario, virtual_time(), tls=server_tls)
    assert (stats["failed"], stats["reset"]) == (0, 0)
    assert not caplog.records


def test_a_handshake_that_has_come_but_was_not_read_yet_has_begun(server_tls):
    def scenario(server):
        with dial(server) as sock:
            yield from until(lambda: server.stats()["open"])
            yield
            sock.send(b"\x16\x03\x01")
            [cut] = (yield from server.stop(5)).cancelled
            assert cut.peer == sock.getsockname()

    serving(echo, scenario, virtual_time(), tls=server_tls)


def test_a_peer_that_resets_in_the_handshake_is_no_failure(server_tls):
    def scenario(server):
        sock = dial(server)
        sock.send(b"\x16\x03\x01")
        yield from until(lambda: server.stats()["open"])
        yield Sleep(0.001)
        reset(sock)
        yield from until(lambda: not server.stats()["open"])
        return server.stats()

    stats = serving(echo, scenario, tls=server_tls)
    assert (stats["failed"], stats["reset"]) == (0, 1)


# Real clients -------------------------------------------------------------------------------------

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n"


def hello(stream):
    with timeout(10):
        yield from stream.readuntil(b"\r\n\r\n")
    yield from stream.sendall(HELLO)


def outcome(*command, server, stdin=b""):
    """Run a program against a server; return its exit code and output.

    `PORT` in the command stands for the server's.
    """
    address = server.listener.addresses[0]
    port = str(address[1]) if isinstance(address, tuple) else ""
    words = [part.replace("PORT", port) for part in command]
    result = yield from corolib.run_process(words, input=stdin, timeout=60)
    return result.returncode, result.stdout


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"there is no {program} here")


CURL = ("curl", "-sS", "--noproxy", "*")


@needs("curl")
def test_curl_gets_an_answer():
    def scenario(server):
        ended = yield from outcome(*CURL, "http://127.0.0.1:PORT/", server=server)
        assert ended == (0, b"hello\n")
        return server.stats()["failed"]

    assert serving(hello, scenario) == 0


@needs("curl")
def test_curl_gets_an_answer_over_tls(server_tls, certificate):
    def scenario(server):
        args = ("--cacert", certificate, "https://localhost:PORT/")
        assert (yield from outcome(*CURL, *args, server=server)) == (0, b"hello\n")
        return server.stats()["failed"]

    assert serving(hello, scenario, tls=server_tls) == 0


@needs("curl")
def test_curl_talks_to_a_unix_socket(tmp_path):
    def main():
        path = str(tmp_path / "s")
        server = listen_unix(path, mode=0o600).serve(hello)
        args = ("--unix-socket", path, "http://localhost/")
        assert (yield from outcome(*CURL, *args, server=server)) == (0, b"hello\n")
        yield from server.stop()

    run(main)


SAID, SHOUTED = b"one line\n", b"ONE LINE\n"


def shout(stream):
    """Answer when the peer has sent all, as `nc -N` and socat do it."""
    text = b""
    while data := (yield from stream.recv(65536)):
        text += data
    yield from stream.sendall(text.upper())


def shout_line(stream):
    """Answer one line: not every program half-closes TLS."""
    line = yield from stream.readline()
    yield from stream.sendall(line.upper())


def socat(path, certificate):
    """Return the commands for TCP, a Unix socket and TLS."""
    return (
        ("socat", "-t", "60", "-", "TCP:127.0.0.1:PORT"),
        ("socat", "-t", "60", "-", f"UNIX-CONNECT:{path}"),
        ("socat", "-t", "60", "-", f"OPENSSL:localhost:PORT,pf=ip4,cafile={certificate}"),
    )


def ncat(path, certificate):
    """Return the commands for TCP, a Unix socket and TLS."""
    tls = ("--ssl-verify", "--ssl-trustfile", certificate)
    return (
        ("ncat", "127.0.0.1", "PORT"),
        ("ncat", "-U", path),
        ("ncat", "-4", *tls, "localhost", "PORT"),
    )


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["tcp", "unix", "tls"])
@pytest.mark.parametrize(
    "program", [pytest.param(f, marks=needs(f.__name__)) for f in (socat, ncat)]
)
def test_other_clients_send_all_and_read_the_answer(
    program,
    kind,
    tmp_path,
    server_tls,
    certificate,
):
    def main():
        path = str(tmp_path / "s")
        listener = listen_unix(path) if kind == 1 else listen_tcp(LOCAL, 0)
        tls = server_tls if kind == 2 else None
        server = listener.serve(shout_line if tls else shout, tls=tls)
        command = program(path, certificate)[kind]
        assert (yield from outcome(*command, server=server, stdin=SAID)) == (0, SHOUTED)
        yield from server.stop()

    run(main)


@needs("openssl")
def test_openssl_talks_to_a_server(server_tls, certificate):
    def scenario(server):
        args = ("-connect", "127.0.0.1:PORT", "-CAfile", certificate, "-verify_return_error")
        command = ("openssl", "s_client", "-quiet", *args)
        _, heard = yield from outcome(*command, server=server, stdin=SAID)
        assert heard == SHOUTED

    serving(shout_line, scenario, tls=server_tls)


# Nothing is left ----------------------------------------------------------------------------------


@pytest.mark.hazard("H55")
def test_a_server_leaves_no_cycles():
    def handler(stream):
        kind = next(kinds) % 4
        if kind == 0:
            yield from stream.sendall(b"x")
        elif kind == 1:
            raise KeyError
        elif kind == 2:
            yield from stream.recv(1)  # idle, and cancelled for it
        else:
            with timeout(1):
                yield from stream.recv(1)

    def scenario():
        server = listen_tcp(LOCAL, 0).serve(
            handler, idle_timeout=8, max_connections=5, on_error=lambda exc, stream: None
        )
        for _ in range(8):
            with dial(server) as sock:
                yield from everything(sock)
        with dial(server), dial(server), dial(server):
            yield from until(lambda: server.stats()["accepted"] == 11)
            yield from server.stop(1)

    kinds = itertools.count()
    assert garbage_of(scenario) == []


def test_connections_that_end_in_five_ways_leave_nothing_behind():
    """Clean, reset by the peer, cancelled, timed out, failed; each as often as the others."""

    def handler(stream):
        kind = yield from stream.recv(1)
        if kind == b"f":
            raise KeyError
        if kind == b"x":
            current_task().cancel()
        with timeout(0.01 if kind == b"t" else 60):
            yield from echo(stream)

    def one(server, kind):
        sock = dial(server)
        sock.send(kind)
        if kind == b"r":
            yield
            reset(sock)
        elif kind == b"c":
            sock.send(b"hello")
            sock.shutdown(socket.SHUT_WR)
            assert (yield from everything(sock)) == b"hello"
        else:
            assert (yield from everything(sock)) == b""
        sock.close()

    def lot(server, count):
        for _ in range(count // 50):
            tasks = [spawn(one, server, kind) for kind in (b"c", b"r", b"x", b"t", b"f") * 10]
            for task in tasks:
                yield from task
        yield from until(lambda: not server.stats()["open"])
        yield Sleep(100)  # what is left of timers that were taken back is swept out
        gc.collect()

    many = 20_000 if FULL else 800

    def scenario(server):
        yield from lot(server, 200)
        files, objects = open_files(), len(gc.get_objects())
        tasks = len(current_scheduler().tasks)
        tracemalloc.start()
        try:
            yield from lot(server, 200)
            before = tracemalloc.get_traced_memory()[0]
            yield from lot(server, many)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < 40_000
        assert open_files() == files
        assert len(current_scheduler().tasks) == tasks
        assert len(gc.get_objects()) - objects < 200
        return server.stats()

    stats = serving(handler, scenario, virtual_time(), on_error=lambda exc, stream: None)
    assert stats["accepted"] == 400 + many
    assert stats["failed"] == stats["accepted"] * 2 / 5
    assert stats["reset"] <= stats["accepted"] / 5  # some are reset before the handler reads


# Many connections ---------------------------------------------------------------------------------

CLIENTS = """
import socket, sys
socks = []
for n in range(int(sys.argv[2])):
    sock = socket.create_connection((f"127.0.0.{n % 4 + 1}", int(sys.argv[1])))
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"
    socks.append(sock)
print("connected", flush=True)
for line in sys.stdin:
    for sock in socks:
        sock.sendall(b"y")
    for sock in socks:
        assert sock.recv(1) == b"y"
    print("echoed", flush=True)
"""


class Clients:
    """Many clients in a process of their own: in this one they would be counted too."""

    def __init__(self, server, count):
        port = str(server.listener.addresses[0][1])
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENTS, port, str(count)],
            bufsize=0,  # a buffer is memory of this process, 128 KiB each from Python 3.14 on
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait(self):
        """Wait until they have done what they were told to."""
        yield ReadWait(self._process.stdout)
        assert os.read(self._process.stdout.fileno(), 100)

    def echo(self):
        """Wait until each has had one more echo."""
        self._process.stdin.write(b"\n")
        yield from self.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._process.communicate()
        if exc[0] is None:
            assert self._process.returncode == 0


LIMITS = {
    "max_connections": 100_000,
    "accept": lambda peer: True,
    "idle_timeout": 600,
    "max_line": 1000,
    "on_error": lambda exc, stream: None,
}


@pytest.mark.found("T14")
@pytest.mark.hazard("H79")
@pytest.mark.parametrize(("limits", "most"), [({}, 2400), (LIMITS, 2900)])
@pytest.mark.skipif(DEBUG, reason="the watch over forgotten calls is not counted")
@pytest.mark.skipif(MEASURED, reason="who counts lines takes memory for each")
def test_the_memory_of_an_idle_connection(limits, most):
    count = part(20_000) // 2

    def scenario(server):
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            with Clients(server, count) as clients:
                yield from clients.wait()
                gc.collect()
                grown = tracemalloc.get_traced_memory()[0] - before
                assert server.stats()["open"] == count
        finally:
            tracemalloc.stop()
        return grown / count

    assert serving(echo, scenario, hosts="0.0.0.0", **limits) <= most


@pytest.mark.skipif(DEBUG, reason="the watch over forgotten calls is not counted")
def test_a_short_connection_costs_few_calls():
    """Those of functions, in Python and in C, while clients connect, have one echo, and leave."""

    def profile(frame, event, arg):
        nonlocal calls
        calls += event.endswith("call") and frame.f_code.co_filename != __file__

    def cost(server, count):
        nonlocal calls
        with ExitStack() as stack:
            for _ in range(count):
                client = stack.enter_context(dial(server))
                client.send(b"x")
                client.shutdown(socket.SHUT_WR)
            calls, end = 0, server.stats()["accepted"] + count
            sys.setprofile(profile)
            while server.stats()["open"] or server.stats()["accepted"] < end:
                yield
            sys.setprofile(None)
        return calls

    def scenario(server):
        few = yield from cost(server, 10)
        return ((yield from cost(server, 60)) - few) / 50

    calls = 0
    # Three of them are for the limits of idleness, such as a look at the clock. One calls who
    # watches the task, where a failure of it is reported as of any other call. Four count what is
    # open so that it stays right when a beginning fails.
    assert serving(echo, scenario) <= 118.1


@pytest.mark.hazard("H79")
def test_one_more_echo_costs_the_same_however_many_are_idle():
    """Counted in steps, turns and calls of functions, which are the same each time."""

    def profile(frame, event, arg):
        nonlocal calls
        calls += 1

    def cost(server, idle):
        nonlocal calls
        with ExitStack() as stack:
            for n in range(idle):
                stack.enter_context(dial(server))
                if n % 1000 == 0:
                    yield from until(lambda: server.stats()["accepted"] > n)
            with dial(server) as sock:
                yield from until(lambda: server.stats()["open"] == idle + 1)
                for count in (10, 100):
                    calls, before = 0, current_scheduler().stats()
                    sys.setprofile(profile)
                    for _ in range(count):
                        sock.send(b"x")
                        yield ReadWait(sock)
                        assert sock.recv(9) == b"x"
                    sys.setprofile(None)
                    after = current_scheduler().stats()
        yield from until(lambda: not server.stats()["open"])
        return calls, after["steps"] - before["steps"], after["turns"] - before["turns"]

    def scenario(server):
        none = yield from cost(server, 0)
        return none, (yield from cost(server, part(5000)))

    calls = 0
    profiled = sys.getprofile()
    try:
        none, many = serving(echo, scenario)
    finally:
        sys.setprofile(profiled)
    assert none[1:] == many[1:]
    assert abs(none[0] - many[0]) <= none[0] * 0.01


HOLDING = """
import resource, sys
from corolib import *

def echo(stream):
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data)

def kilobytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

listener = listen_tcp("0.0.0.0", 0)

def measure(stream):
    yield from stream.sendall(b"%d\\n" % kilobytes())

def main():
    control = listen_unix(sys.argv[1]).serve(measure)
    server = listener.serve(echo)
    print(listener.addresses[0][1], flush=True)
    yield from server
    yield from control.stop()

run(main)
"""


def rss(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        return int(sock.makefile("rb").readline())


@pytest.mark.hazard("H79")
@pytest.mark.skipif(not FULL, reason="the full sweep holds them; a part of them is held above")
def test_all_the_connections_that_a_process_may_have_are_held_and_echoed(tmp_path, files):
    count = min(19_500, files - 100)
    process, port = program(HOLDING, tmp_path / "s")
    clients = subprocess.Popen(
        [sys.executable, "-c", CLIENTS, port, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process, clients:
        before = rss(str(tmp_path / "s"))
        assert clients.stdout.readline() == "connected\n"
        clients.stdin.write("\n")
        clients.stdin.flush()
        assert clients.stdout.readline() == "echoed\n"
        grown = rss(str(tmp_path / "s")) - before
        clients.communicate()
        process.terminate()
        _, err = process.communicate()
        assert process.returncode == 0 and quiet(err)
    assert grown * 1024 <= 60_000_000


@pytest.mark.found("N22")
def test_a_full_server_whose_listener_cannot_be_watched_just_now_goes_on(caplog):
    def main():
        with listen_tcp("127.0.0.1", 0) as listener, open(os.devnull) as never_watched:
            arrivals = listener.arrivals

            def come_in(peer):
                listener.arrivals = [ReadWait(never_watched)]
                return True

            server = listener.serve(echo, max_connections=1, accept=come_in)
            with socket.create_connection(listener.addresses[0]):
                yield Sleep(1.05)
                assert server.stats()["open"] == 1
            pauses = listener.pauses
            assert 9 <= pauses <= 11
            yield Sleep(1)
            listener.arrivals = arrivals
            with (yield from open_tcp(*listener.addresses[0])) as client:
                yield from client.sendall(b"x")
                assert (yield from client.recv(1)) == b"x"
            yield from server.stop(grace=0)

    run(main, **virtual_time())
    assert 2 <= len(caplog.records) <= 4


OUT_OF_FILES = """
import os, resource, sys
from corolib import *

def echo(stream):
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data)

listener = listen_tcp("127.0.0.1", 0)

def main():
    server = listener.serve(echo, grace=0)
    yield Sleep(0.01)
    used = os.open(os.devnull, os.O_RDONLY)
    os.close(used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, used + 10))
    print(listener.addresses[0][1], flush=True)
    while server.stats()["pauses"] < 2:
        yield Sleep(0.01)
    before = current_scheduler().stats()["turns"]
    pauses = server.stats()["pauses"]
    while server.stats()["pauses"] < pauses + 4:
        yield Sleep(0.5)
    turns = current_scheduler().stats()["turns"] - before
    pauses = server.stats()["pauses"] - pauses
    print(turns / pauses, flush=True)
    yield from server

run(main)
"""


@pytest.mark.hazard("H16")
def test_a_server_that_has_run_out_of_files_pauses_and_serves_again_by_itself():
    process, port = program(OUT_OF_FILES)
    with process, ExitStack() as stack:
        address = (LOCAL, int(port))
        socks = [socket.create_connection(address, timeout=60) for _ in range(30)]
        turns = float(process.stdout.readline())
        assert turns < 4  # to each pause: nothing spins
        for sock in socks[:28]:
            sock.close()
        for sock in socks[28:]:
            stack.enter_context(sock)
        with socket.create_connection(address, timeout=60) as sock:
            sock.sendall(b"hello")
            assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert 1 <= err.count("Too many open files") <= 5
    assert err.count("nobody is accepted for 0.1 s") == err.count("Too many open files")


OUT_OF_MODULES = """
import importlib.abc, os, signal, sys
from corolib import *

def handler(stream):
    if (yield from stream.recv(1)) == b"f":
        raise ValueError("the handler's own")

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        raise OSError(24, "Too many open files", name)

listener = listen_tcp("127.0.0.1", 0)

def client():
    stream = yield from open_tcp(*listener.addresses[0])
    yield from stream.sendall(b"f")
    assert (yield from stream.recv(1)) == b""
    stream.close()
    os.kill(os.getpid(), signal.SIGTERM)

def main():
    server = listener.serve(handler)
    spawn(client)
    sys.meta_path.insert(0, Refuse())
    yield from server

try:
    run(main)
finally:
    del sys.meta_path[0]
"""


@pytest.mark.found("T14")
@pytest.mark.hazard("H16")
def test_a_server_that_runs_imports_nothing_more_for_which_it_might_have_no_file_number_left():
    """To serve, to hear SIGTERM and to tell of a handler's failure need what is there already."""
    process, _ = program(OUT_OF_MODULES)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "ValueError: the handler's own" in err
    assert "Too many open files" not in err
    assert "Logging error" not in err


def test_a_listener_that_no_run_could_serve_is_served_in_the_next():
    def main(listener):
        return (yield from listener.serve(echo).stop())

    with listen_tcp(LOCAL, 0) as listener:
        with pytest.raises(RuntimeError, match="no scheduler"):
            listener.serve(echo)
        assert run(main, listener).finished == 0


def test_a_closed_listener_cannot_be_served():
    def main(listener):
        listener.serve(echo)
        yield

    with listen_tcp(LOCAL, 0) as listener:
        pass
    with pytest.raises(ClosedError, match="closed> cannot be served"):
        run(main, listener)


def test_a_tls_client_that_has_ended_first_is_told_of_the_end_of_the_answer(server_tls, client_tls):
    def answer(stream):
        while (yield from stream.recv(100)):
            pass
        yield from stream.sendall(b"answer")

    def scenario(server):
        with Stream(dial(server)) as client:
            yield from client.start_tls(client_tls, server_hostname="localhost")
            yield from client.send_eof()
            return (yield from client.readexactly(6)), (yield from client.recv(100))

    assert serving(answer, scenario, tls=server_tls) == (b"answer", b"")


def test_who_is_cancelled_and_does_not_end_yet_is_named_once_however_often_it_is_asked_for():
    def stubborn(stream):
        go = stream.server.go = Event()
        try:
            yield from stream.recv(1)
        finally:
            with shield():
                yield from go.wait()

    def scenario(server):
        with dial(server):
            yield from until(lambda: hasattr(server, "go"))
            first = spawn(server.stop(0))
            yield from until(lambda: cancelled_by(server))
            second = spawn(server.stop(0))
            yield Sleep(0.01)
            server.go.set()
            return len((yield from first).cancelled), len((yield from second).cancelled)

    assert serving(stubborn, scenario) == (1, 1)
