"""One peer's share of a server: places, time, bytes of a message, and lines in the log."""

import errno
import logging
import resource
import socket
import ssl
import sys
import time
from contextlib import ExitStack

import pytest

import corolib
from corolib import (
    Event,
    LimitExceeded,
    ReadWait,
    Sleep,
    Stream,
    TaskGroup,
    current_scheduler,
    gather,
    listen_tcp,
    listen_unix,
    move_on_after,
    now,
    open_udp,
    run,
    shield,
    spawn,
)
from corolib.net import network, progress, streams
from corolib.net.limits import RESERVE, places
from corolib.net.peer_log import PeerLog, printable
from corolib.net.progress import RATE_WINDOW, SLICE
from corolib.testing import open_files, virtual_time
from tests.helpers.clients import dial
from tests.helpers.driving import FULL, echo, until
from tests.helpers.inside import sockets_of, timers_set
from tests.helpers.sockets import make_pair, make_tcp, reset
from tests.net import abuse

LOCAL = "127.0.0.1"


def talk(sock, data=b"x"):
    """Send something to an echo server, and wait for the answer; `b""` at the end."""
    try:
        sock.send(data)
        yield ReadWait(sock)
        return sock.recv(len(data))
    except ConnectionError:
        return b""


def end_of(sock):
    """Wait for the end of what comes, and return when that was."""
    while True:
        yield ReadWait(sock)
        try:
            if not sock.recv(65536):
                return now()
        except ConnectionResetError:
            return now()


def serving(handler, scenario, options=None, path=None, **limits):
    """Run `scenario(server)` beside a server; return its result. Nothing is left open."""

    def main():
        server = (listen_tcp(LOCAL, 0) if path is None else listen_unix(path)).serve(
            handler, **limits
        )
        try:
            return (yield from scenario(server))
        finally:
            yield from server.stop(0)
            assert server.stats()["open"] == 0
            assert timers_set(current_scheduler()) == 0

    before = open_files()
    result = run(main, **(virtual_time() if options is None else options))
    assert open_files() == before
    return result


def counts_of(server, *names):
    stats = server.stats()
    return tuple(stats[name] for name in names)


# Children of a handler ----------------------------------------------------------------------------


def reading_and_writing(stream):
    """Two tasks on one connection, as a program has them that reads and writes on its own."""

    def reader():
        while (yield from stream.recv(100)):
            pass

    def writer():
        while True:
            yield from stream.sendall(bytes(1000))
            yield Sleep(0.1)

    spawn(reader)
    spawn(writer)
    yield Sleep(60)


def reading_and_writing_in_a_group(stream):
    with TaskGroup() as group:
        group.spawn(stream.readexactly, 100)
        group.spawn(stream.more)
        yield from group


def gathering(stream):
    def receive():
        while (yield from stream.recv(100)):
            pass

    def send():
        while True:
            yield from stream.sendall(bytes(1000))

    yield from gather(receive(), send())


@pytest.mark.found("N18")
@pytest.mark.parametrize("handler", [reading_and_writing, gathering])
def test_a_reset_that_the_children_of_a_handler_notice_is_counted_once_and_is_no_failure(
    handler, caplog
):
    def scenario(server):
        for _ in range(10):
            sock = dial(server)
            sock.send(b"x")
            yield ReadWait(sock)
            reset(sock)
        yield from until(lambda: not server.stats()["open"])
        return counts_of(server, "reset", "failed")

    assert serving(handler, scenario) == (10, 0)
    assert not caplog.records


@pytest.mark.found("N18")
def test_what_leaves_a_child_of_a_handler_is_told_to_on_error_with_the_stream():
    def child(depth):
        if depth:
            spawn(child, depth - 1)
        else:
            raise KeyError("bug")
        yield

    def handler(stream):
        spawn(child, 2)
        yield from echo(stream)

    def scenario(server):
        with dial(server) as sock:
            yield from until(lambda: server.stats()["failed"])
            assert (yield from talk(sock)) == b"x"  # the handler goes on
        return server.stats()["failed"]

    told, lost = [], []
    options = {**virtual_time(), "on_task_error": lambda task, exc: lost.append(exc)}
    hook = lambda exc, stream: told.append((repr(exc), type(stream)))  # noqa: E731
    assert serving(handler, scenario, options, on_error=hook) == 1
    assert (told, lost) == ([("KeyError('bug')", Stream)], [])


@pytest.mark.found("N18")
def test_an_exit_of_a_child_of_a_handler_ends_the_run():
    def handler(stream):
        def child(code):
            yield
            sys.exit(code)

        spawn(child, 7)
        spawn(child, 8)  # the second is no failure of the server's
        yield Sleep(60)

    def scenario(server):
        with dial(server):
            yield Sleep(60)

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler, on_error=lambda *args: told.append(args))
        yield from scenario(server)

    told = []
    with pytest.raises(SystemExit, match="7"):
        run(main)
    assert told == []


@pytest.mark.found("N18")
def test_a_task_that_no_handler_has_begun_is_told_to_the_hook_of_the_run():
    def child():
        yield
        raise KeyError

    def handler(stream):
        spawn(child, parent=current_scheduler().main)
        yield from echo(stream)

    def scenario(server):
        with dial(server) as sock:
            assert (yield from talk(sock)) == b"x"
        return server.stats()["failed"]

    lost = []
    options = {**virtual_time(), "on_task_error": lambda task, exc: lost.append(type(exc))}
    assert serving(handler, scenario, options) == 0
    assert lost == [KeyError]


@pytest.mark.found("N18")
def test_a_group_of_resets_is_a_reset_and_a_group_with_something_else_a_failure(caplog):
    def handler(stream):
        kind = yield from stream.recv(1)

        def child(own):
            if own:
                raise LimitExceeded("too long", 1, 2)
            yield from stream.recv(100)

        with TaskGroup() as group:
            group.spawn(child, kind == b"l")
            yield from group

    def scenario(server):
        for kind in (b"r", b"l"):
            sock = dial(server)
            sock.send(kind)
            yield Sleep(0.1)
            reset(sock)
            yield from until(lambda: not server.stats()["open"])
        return counts_of(server, "reset", "failed")

    assert serving(handler, scenario) == (1, 1)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "LimitExceeded: too long" in record.getMessage()


@pytest.mark.found("N18")
def test_what_leaves_a_child_of_a_handler_of_datagrams_is_its_failure():
    def handler(data, sender):
        def child():
            yield
            raise KeyError

        spawn(child)
        yield Sleep(1)
        return data

    def main():
        with (yield from open_udp(local=(LOCAL, 0))) as sock:
            server = sock.serve(handler, on_error=lambda exc, sender: told.append(type(exc)))
            with (yield from open_udp(*sock.local[:2])) as client:
                yield from client.send(b"x")
                assert (yield from client.recv()) == b"x"
            yield from server.stop()
        return server.stats()["failed"]

    told, lost = [], []
    assert run(main, **virtual_time(), on_task_error=lambda *args: lost.append(args)) == 1
    assert (told, lost) == ([KeyError], [])


# Time ---------------------------------------------------------------------------------------------


@pytest.mark.found("N19")
@pytest.mark.parametrize("operation", ["readline", "readexactly", "sendall", "put"])
def test_a_step_that_has_lasted_a_millisecond_gives_way_at_its_next_operation(operation):
    """The clock says when a step computes; so nothing here depends on how fast it really is."""

    def clock():
        return seconds

    def work(near, far, queue):
        nonlocal seconds
        yield from near.sendall(b"line\n" * 1000)
        yield from far.more()
        for _ in range(100):
            if operation == "readline":
                yield from far.readline()
            elif operation == "readexactly":
                yield from far.readexactly(5)
            elif operation == "sendall":
                yield from far.sendall(b"x")
            else:
                yield from queue.put(1)
            seconds += 0.005
        done.set()

    def other():
        while not done.is_set():
            began = seconds
            yield
            waits.append(seconds - began)

    def main():
        a, b = make_tcp()
        queue = corolib.Queue(10_000)
        with Stream(a) as near, Stream(b) as far:
            yield from gather(work(near, far, queue), other())

    seconds, waits = 0.0, []
    done = Event()
    run(main, clock=clock)
    assert max(waits) <= 0.041  # two looks at the clock, of which the second finds it out
    assert sorted(waits)[len(waits) // 2] <= 0.011  # and from then on, each operation looks


@pytest.mark.found("N19")
def test_after_long_steps_come_short_ones_and_the_clock_is_looked_at_less_often_again():
    def clock():
        nonlocal looks
        looks += 1
        return seconds

    def main():
        nonlocal seconds
        queue = corolib.Queue(100_000)
        for _ in range(20):
            yield from queue.put(1)
            seconds += 0.005
        yield
        yield from queue.put(1)
        before = looks
        for _ in range(640):
            yield from queue.put(1)
        return looks - before

    seconds, looks = 0.0, 0
    assert run(main, clock=clock) < 300


# Places -------------------------------------------------------------------------------------------


@pytest.fixture
def file_limit():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.found("N20")
@pytest.mark.parametrize("files", [600, 100])
def test_by_default_there_are_as_many_places_as_the_limit_of_files_leaves(file_limit, files):
    def scenario(server):
        yield
        return counts_of(server, "max_connections", "evict_idle", "max_per_address", "min_rate")

    file_limit(files)
    most = max(files - RESERVE, files // 2)
    assert serving(echo, scenario) == (most, 10, None, None)
    assert serving(echo, scenario, max_connections=None)[0] is None


@pytest.mark.parametrize(("given", "lines"), [({}, 1), ({"max_connections": 3}, 0)])
def test_a_server_that_is_full_by_the_limit_of_files_says_so(monkeypatch, caplog, given, lines):
    def scenario(server):
        with ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(dial(server))
            yield Sleep(1)
            return counts_of(server, "accepted")

    monkeypatch.setattr("corolib.net.limits.places", lambda: 3)
    assert serving(echo, scenario, virtual_time(), **given) == (3,)
    assert caplog.text.count("3 connections are open, all `ulimit -n` bears") == lines


@pytest.mark.found("N20")
def test_without_a_limit_of_files_there_is_none_of_places(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    assert places() is None
    monkeypatch.setitem(sys.modules, "resource", None)
    assert places() is None


@pytest.mark.found("N20")
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_when_all_places_are_taken_the_connection_that_has_been_idle_longest_makes_room(
    kind, tmp_path
):
    def scenario(server):
        with ExitStack() as stack:
            socks = []
            for _ in range(4):
                socks.append(stack.enter_context(dial(server)))
                yield Sleep(1)
            assert (yield from talk(socks[0])) == b"x"  # now the second is the oldest
            yield Sleep(13)
            late = stack.enter_context(dial(server))
            begun = now()
            assert (yield from talk(late)) == b"x"
            assert now() - begun <= 0.15
            assert counts_of(server, "evicted", "open", "full") == (1, 4, 2)
            assert (yield from end_of(socks[1])) - begun <= 0.15
            for sock in (socks[0], socks[2], socks[3]):
                assert (yield from talk(sock)) == b"x"

    path = None if kind == "tcp" else tmp_path / "s"
    serving(echo, scenario, path=path, max_connections=4)


@pytest.mark.found("N20")
def test_nobody_is_cut_while_there_is_room_or_nobody_waits():
    def scenario(server):
        with ExitStack() as stack:
            socks = [stack.enter_context(dial(server)) for _ in range(4)]
            yield Sleep(1000)
            assert counts_of(server, "evicted", "open") == (0, 4)
            for sock in socks:
                assert (yield from talk(sock)) == b"x"

    serving(echo, scenario, max_connections=4)
    serving(echo, scenario, max_connections=100)
    serving(echo, scenario)


@pytest.mark.found("N20")
def test_who_moves_now_and_then_is_not_idle_and_the_next_waits_for_a_place():
    def busy(sock):
        while True:
            assert (yield from talk(sock)) == b"x"
            yield Sleep(5)

    def scenario(server):
        with dial(server) as one, dial(server) as two, dial(server) as late:
            tasks = [spawn(busy, sock) for sock in (one, two)]
            with move_on_after(100) as scope:
                yield from talk(late)
            assert scope.expired
            assert counts_of(server, "evicted", "open") == (0, 2)
            yield from tasks[1].stop()  # from now on it is idle, and seen to be so
            with move_on_after(13):
                yield ReadWait(late)
                assert late.recv(9) == b"x"
            assert counts_of(server, "evicted", "open") == (1, 2)
            yield from tasks[0].stop()

    serving(echo, scenario, max_connections=2)


@pytest.mark.found("N20")
def test_with_evict_idle_none_the_next_waits_for_as_long_as_it_takes():
    def scenario(server):
        with dial(server) as one, dial(server) as late:
            with move_on_after(1000) as scope:
                yield from talk(late)
            assert scope.expired
            assert counts_of(server, "evicted", "evict_idle", "full") == (0, None, 1)
            one.close()
            yield ReadWait(late)
            assert late.recv(9) == b"x"

    serving(echo, scenario, max_connections=1, evict_idle=None)


@pytest.mark.found("N20")
def test_who_does_not_leave_for_another_loses_its_stream():
    def handler(stream):
        for _ in range(2):
            try:
                yield from stream.recv(1)
            except corolib.Cancelled:
                swallowed.append(now())

    def scenario(server):
        with dial(server) as one:
            yield Sleep(20)
            with dial(server) as late:
                begun = now()
                late.send(b"x")
                yield from end_of(one)
                assert 10 <= now() - begun <= 13
                yield from until(lambda: server.stats()["accepted"] == 2)
                assert server.stats()["evicted"] == 1

    swallowed = []
    options = {**virtual_time(), "grace": 1000}
    serving(handler, scenario, options, max_connections=1, on_error=lambda exc, stream: None)
    assert len(swallowed) == 1


@pytest.mark.found("N20")
def test_who_does_not_hang_up_after_its_answer_makes_room_too():
    def handler(stream):
        yield from stream.sendall(b"x")

    def scenario(server):
        with dial(server) as one:
            yield Sleep(13)
            with dial(server) as late:
                begun = now()
                yield ReadWait(late)
                assert late.recv(9) == b"x"
                assert now() - begun <= 0.15
            one.close()

    serving(handler, scenario, max_connections=1, drain=1000, drain_limit=1000)


@pytest.mark.found("N20")
def test_so_many_connections_are_looked_at_in_one_turn():
    def scenario(server):
        with ExitStack() as stack:
            count = SLICE + 10
            for number in range(count):
                stack.enter_context(dial(server))
                if number % 500 == 0:
                    yield from until(lambda n=number: server.stats()["accepted"] > n)
            yield from until(lambda: server.stats()["accepted"] == count)
            yield Sleep(13)
            assert server.stats()["idle"] == count
            yield from until(lambda: not server.stats()["open"])

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        serving(echo, scenario, idle_timeout=10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.found("N20")
def test_who_leaves_during_a_look_that_takes_many_turns_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(progress, "SLICE", 1)

    def scenario(server):
        with ExitStack() as stack:
            socks = [stack.enter_context(dial(server)) for _ in range(20)]
            yield from until(lambda: server.stats()["accepted"] == 20)
            yield Sleep(at=2.5)  # when the first of them is looked at
            for sock in socks[5:]:
                sock.close()
            yield Sleep(9)
            assert counts_of(server, "idle", "failed", "open") == (5, 0, 0)

    serving(echo, scenario, idle_timeout=10)


@pytest.mark.found("N20")
def test_nobody_looks_any_more_when_less_than_half_the_places_are_taken():
    def scenario(server):
        with dial(server) as one, dial(server) as two:
            yield from until(lambda: server.stats()["open"] == 2)
            assert timers_set(current_scheduler()) == 1
            two.close()
            yield Sleep(3)
            assert timers_set(current_scheduler()) == 0
            assert (yield from talk(one)) == b"x"

    serving(echo, scenario, max_connections=4)


@pytest.mark.found("N20")
def test_one_address_has_no_more_than_its_share():
    def scenario(server):
        with ExitStack() as stack:
            socks = [stack.enter_context(dial(server, source="127.0.0.2")) for _ in range(5)]
            heard = []
            for sock in socks:
                heard.append((yield from talk(sock)))
            assert heard == [b"x", b"x", b"", b"", b""]
            assert counts_of(server, "accepted", "crowded", "open") == (5, 3, 2)
            with dial(server, source="127.0.0.3") as other:
                assert (yield from talk(other)) == b"x"
            socks[0].close()
            yield from until(lambda: server.stats()["open"] == 1)
            with dial(server, source="127.0.0.2") as again:
                assert (yield from talk(again)) == b"x"
        assert server.stats()["max_per_address"] == 2

    serving(echo, scenario, max_per_address=2)


@pytest.mark.found("N20")
def test_on_a_unix_socket_one_user_has_no_more_than_its_share(tmp_path):
    def scenario(server):
        with dial(server) as one, dial(server) as two:
            assert (yield from talk(one)) == b"x"
            assert (yield from talk(two)) == b""
            assert server.stats()["crowded"] == 1

    serving(echo, scenario, path=tmp_path / "s", max_per_address=1)


# A least rate -------------------------------------------------------------------------------------


def drip(sock, every):
    try:
        while True:
            sock.send(b"x")
            yield Sleep(every)
    except OSError:
        return


@pytest.mark.found("N20")
def test_a_client_that_sends_a_byte_now_and_then_is_cut_by_a_least_rate():
    def handler(stream):
        yield from stream.readline()

    def scenario(server):
        with dial(server) as sock:
            dripping = spawn(drip, sock, 5)
            ended = yield from end_of(sock)
            yield from dripping.stop()
            assert RATE_WINDOW <= ended <= 1.3 * RATE_WINDOW
        assert counts_of(server, "slow", "idle", "min_rate") == (1, 0, 100)

    serving(handler, scenario, min_rate=100)


@pytest.mark.found("N20")
@pytest.mark.parametrize("child", [False, True])
def test_a_client_that_reads_too_little_is_cut_by_a_least_rate_and_one_that_reads_enough_is_not(
    child,
):
    def handler(stream):
        if child:
            yield from spawn(stream.sendall, bytes(12_000_000))
        else:
            yield from stream.sendall(bytes(12_000_000))

    def read(sock, size):
        begun, count = now(), 0
        while now() < begun + 100:
            yield Sleep(0.5)
            try:
                data = sock.recv(size)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                break
            if not data:
                break
            count += len(data)
        return now() - begun

    def scenario(server):
        with dial(server, buffer=100_000) as slow, dial(server, buffer=100_000) as fast:
            task = spawn(read, slow, 4000)  # 8 000 bytes a second
            assert (yield from read(fast, 30_000)) > 99  # 60 000 bytes a second
            assert (yield from task) < 100
            assert server.stats()["slow"] == 1

    serving(handler, scenario, min_rate=20_000)


@pytest.mark.found("N20")
def test_one_of_the_slow_makes_room_on_a_full_server_as_soon_as_who_is_idle():
    def handler(stream):
        yield from stream.readline()

    def scenario(server):
        with dial(server) as one, dial(server) as two, dial(server) as three, dial(server) as fast:
            dripping = [spawn(drip, slow, 1) for slow in (one, two, three)]
            sending = spawn(drip, fast, 0.25)
            yield Sleep(15)
            assert counts_of(server, "slow", "open") == (0, 4)
            came = now()
            with dial(server) as late:
                late.send(b"hello\n")
                yield from end_of(late)
                assert now() - came <= 10 / 4 * 1.1
                assert counts_of(server, "slow", "evicted") == (1, 0)
            yield Sleep(20)
            assert counts_of(server, "slow", "evicted", "open") == (3, 0, 1)
            for task in (*dripping, sending):
                yield from task.stop()

    serving(handler, scenario, min_rate=2, max_connections=4)


@pytest.mark.found("N20")
def test_a_crowd_that_is_slow_makes_room_for_all_who_wait_behind_it():
    """Not one in each quarter of `evict_idle`: who is last would wait for half a minute."""

    def handler(stream):
        yield from stream.readline()

    def scenario(server):
        with ExitStack() as stack:
            crowd = [stack.enter_context(dial(server)) for _ in range(20)]
            dripping = [spawn(drip, sock, 1) for sock in crowd]
            yield Sleep(9)
            came = now()
            for sock in [stack.enter_context(dial(server)) for _ in range(20)]:
                sock.send(b"hello\n")
                yield from end_of(sock)
            assert now() - came < 8
            assert server.stats()["evicted"] == 0
            for task in dripping:
                yield from task.stop()

    serving(handler, scenario, min_rate=2, max_connections=20)


@pytest.mark.found("N20")
def test_who_waits_for_a_slow_answer_or_says_nothing_is_not_slow():
    def handler(stream):
        yield from stream.recv(1)
        yield Sleep(200)
        yield from stream.sendall(b"x")

    def scenario(server):
        with dial(server) as sock, dial(server):
            assert (yield from talk(sock)) == b"x"
            assert counts_of(server, "slow", "open") == (0, 2)

    serving(handler, scenario, min_rate=100)


@pytest.mark.found("N20")
@pytest.mark.parametrize("pause", [0.1, 3])
def test_who_takes_at_once_what_is_sent_slowly_is_not_slow(pause):
    """Whether a child of the handler reads, or something is on its way when one looks."""

    def handler(stream):
        reader = spawn(stream.recv, 1)
        for _ in range(int(100 / pause)):
            yield from stream.sendall(b"tick")
            yield Sleep(pause)
        yield from reader.stop()

    def scenario(server):
        with dial(server) as sock:
            yield from end_of(sock)
            assert now() > 98
        assert counts_of(server, "slow", "failed") == (0, 0)

    serving(handler, scenario, min_rate=1000)


@pytest.mark.found("N20")
def test_what_is_on_its_way_when_one_looks_does_not_make_slow(monkeypatch):
    def handler(stream):
        for _ in range(100):
            yield from stream.sendall(b"tick")
            yield Sleep(1)

    def scenario(server):
        with dial(server) as sock:
            yield from end_of(sock)
            assert now() > 98
        assert counts_of(server, "slow", "failed") == (0, 0)

    monkeypatch.setattr(streams, "unsent", lambda sock: 4)  # the network takes its time
    serving(handler, scenario, min_rate=1000)


@pytest.mark.found("N20")
def test_who_was_waited_for_only_lately_is_not_slow_yet():
    """A long time of computing, and then a long answer, is no fault of the peer's."""

    def handler(stream):
        yield from stream.recv(1)
        yield from stream.sendall(b"wait")
        yield Sleep(RATE_WINDOW - 1)
        yield from stream.sendall(bytes(12_000_000))

    def scenario(server):
        with dial(server, buffer=100_000) as sock:
            sock.send(b"x")
            yield Sleep(RATE_WINDOW + 1)
            while sock.recv(1_000_000):
                yield Sleep(0.1)
                yield ReadWait(sock)
        return counts_of(server, "slow", "failed")

    assert serving(handler, scenario, min_rate=100_000) == (0, 0)


@pytest.mark.found("N20")
@pytest.mark.parametrize("child", [False, True])
def test_who_is_shielded_from_a_cut_and_loses_its_stream_has_not_failed(child):
    """It was cut, and is counted as that; what comes of it is not said as well."""

    def shielded(stream):
        with shield(1000):
            yield from stream.recv(1)

    def handler(stream):
        if child:
            spawn(shielded, stream)
            yield Sleep(1000)
        else:
            yield from shielded(stream)

    def scenario(server):
        with dial(server) as sock:
            assert 16 <= (yield from end_of(sock)) <= 20
        yield from until(lambda: not server.stats()["open"])
        return counts_of(server, "idle", "failed", "reset")

    options = {**virtual_time(), "grace": 1000}
    told = []
    limits = {"idle_timeout": 8, "on_error": lambda exc, stream: told.append(exc)}
    assert serving(handler, scenario, options, **limits) == (1, 0, 0)
    assert told == []


@pytest.mark.found("N20")
def test_what_fails_on_another_stream_after_a_cut_is_a_failure():
    def handler(stream):
        with shield(1000):
            try:
                yield from stream.recv(1)
            except corolib.ClosedError:
                raise KeyError from None

    def scenario(server):
        with dial(server) as sock:
            yield from end_of(sock)
        yield from until(lambda: not server.stats()["open"])
        return counts_of(server, "idle", "failed")

    options = {**virtual_time(), "grace": 1000}
    limits = {"idle_timeout": 8, "on_error": lambda exc, stream: None}
    assert serving(handler, scenario, options, **limits) == (1, 1)


@pytest.mark.found("N20")
def test_who_is_slow_and_does_not_end_loses_its_stream():
    def handler(stream):
        while True:
            try:
                if not (yield from stream.recv(1)):
                    return
            except corolib.Cancelled:
                pass

    def scenario(server):
        with dial(server) as sock:
            dripping = spawn(drip, sock, 5)
            ended = yield from end_of(sock)
            yield from dripping.stop()
            assert 2 * RATE_WINDOW <= ended <= 2.6 * RATE_WINDOW
        assert server.stats()["slow"] == 1

    options = {**virtual_time(), "grace": 1000}
    serving(handler, scenario, options, min_rate=100, on_error=lambda exc, stream: None)


@pytest.mark.found("N20")
def test_on_a_unix_socket_nobody_knows_the_rate(tmp_path):
    def scenario(server):
        with dial(server) as sock:
            for _ in range(50):
                assert (yield from talk(sock)) == b"x"
                yield Sleep(5)
            assert counts_of(server, "slow", "open") == (0, 1)

    serving(echo, scenario, path=tmp_path / "s", min_rate=100)


# The length of a message --------------------------------------------------------------------------


@pytest.mark.found("N21")
def test_a_length_from_the_wire_is_bounded_before_anything_is_read():
    def main():
        a, b = make_pair()
        with Stream(a) as near, Stream(b) as far:
            yield from near.sendall(b"12345678")
            yield from far.more()
            with pytest.raises(LimitExceeded) as caught:
                yield from far.readexactly(50_000_000, limit=1000)
            assert (caught.value.limit, caught.value.seen) == (1000, 8)
            far.max_message = 4
            with pytest.raises(LimitExceeded, match="a message has 5 bytes, more than 4"):
                yield from far.readexactly(5)
            assert (yield from far.readexactly(5, limit=5)) == b"12345"  # nothing is lost
            assert (yield from far.readexactly(3)) == b"678"
            with pytest.raises(TypeError, match="the limit of a message"):
                yield from far.readexactly(3, limit="3")

    run(main)


@pytest.mark.found("N21")
def test_the_limit_of_a_server_for_messages_is_that_of_both_ways_to_read_one():
    def handler(stream):
        kind = yield from stream.readexactly(1)
        if kind == b"n":
            yield from stream.readexactly(11)
        elif kind == b"u":
            yield from stream.readuntil(b";")
        else:
            yield from stream.readline()  # this is bounded by `max_line`
            yield from stream.sendall(b"x")

    def scenario(server):
        for data in (b"n", b"u" + 20 * b"x", b"l" + 20 * b"x" + b"\n"):
            with dial(server) as sock:
                sock.send(data)
                yield from end_of(sock)
        yield from until(lambda: not server.stats()["open"])
        assert counts_of(server, "failed", "max_message") == (2, 10)

    told = []
    serving(handler, scenario, max_message=10, on_error=lambda exc, stream: told.append(type(exc)))
    assert told == [LimitExceeded] * 2


# The log ------------------------------------------------------------------------------------------


@pytest.mark.found("N25")
def test_of_one_kind_there_is_one_line_in_ten_seconds_and_the_next_says_how_many(caplog):
    def handler(stream):
        kind = yield from stream.recv(1)
        if kind == b"k":
            raise KeyError("bug")
        yield from stream.readexactly(100)

    def scenario(server):
        for _ in range(11):
            for kind in b"xk":
                for _ in range(5):
                    with dial(server) as sock:
                        sock.send(bytes([kind]))
                        sock.shutdown(socket.SHUT_WR)
                        yield from end_of(sock)
            yield Sleep(1)
        assert server.stats()["failed"] == 110

    serving(handler, scenario)
    lines = [record.getMessage() for record in caplog.records]
    assert [("the handler" in line, "(49 more" in line) for line in lines[:4]] == [
        *[(False, False), (True, False)],
        *[(False, True), (True, True)],
    ]
    assert len(lines) == 6  # what was left out at last is said when the run ends
    assert "IncompleteRead (4 more of this kind since the last line)" in lines[4]
    assert "KeyError at " in lines[5]
    assert ["bug" in line for line in lines] == [False, False, False, True, False, False]
    assert caplog.text.count("Traceback") == 1  # the next one comes ten minutes later


@pytest.mark.found("N25")
def test_a_peer_that_chooses_among_many_servers_gets_no_more_lines_for_that(caplog):
    def handler(stream):
        yield from stream.readexactly(100)

    def main():
        servers = [listen_tcp(LOCAL, 0).serve(handler) for _ in range(20)]
        for server in servers:
            with dial(server) as sock:
                sock.shutdown(socket.SHUT_WR)
                yield from end_of(sock)
            server.listener.report(OSError(errno.EMFILE, "Too many open files"))
        yield from until(lambda: sum(server.stats()["failed"] for server in servers) == 20)
        for server in servers:
            yield from server.stop(0)

    run(main, **virtual_time())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert "IncompleteRead" in lines[0] and "nobody is accepted" in lines[1]
    assert lines[2] == "IncompleteRead (19 more of this kind since the last line)"


@pytest.mark.found("N25")
def test_a_line_says_whose_address_is_which(caplog):
    def handler(stream):
        yield from stream.readexactly(100)

    def scenario(server):
        with dial(server) as sock:
            sock.shutdown(socket.SHUT_WR)
            yield from end_of(sock)
            yield from until(lambda: caplog.records)
            return server.place, "{}:{}".format(*sock.getsockname())

    place, peer = serving(handler, scenario)
    assert caplog.records[0].getMessage().startswith(f"{place}: the peer {peer}: IncompleteRead")


FORGED = "bad \x1b[31m\r2026-01-01 root logged in\n2026-01-01 root logged out \u202e"


@pytest.mark.found("N25")
def test_what_peers_have_sent_is_escaped_in_a_line(caplog):
    def handler(stream):
        yield
        raise LimitExceeded(FORGED, 1, 2)

    def scenario(server):
        with dial(server) as sock:
            yield from end_of(sock)
            yield from until(lambda: caplog.records)

    serving(handler, scenario)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.isprintable()
    assert r"bad \x1b[31m\r2026-01-01 root logged in\n2026" in message


@pytest.mark.found("N25")
@pytest.mark.parametrize("grouped", [False, True])
def test_what_peers_have_sent_is_escaped_in_a_traceback(grouped, caplog):
    def handler(stream):
        yield
        error = ValueError(FORGED)
        raise ExceptionGroup(FORGED, [error]) if grouped else error from KeyError(FORGED)

    def scenario(server):
        with dial(server) as sock:
            yield from end_of(sock)
            yield from until(lambda: caplog.records)

    serving(handler, scenario)
    (record,) = caplog.records
    text = logging.Formatter().format(record)
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("2026") for line in lines)
    assert "raise ExceptionGroup(FORGED" in text
    assert "\nKeyError: " in text
    assert "\nThe above exception was the direct cause" in text
    assert record.exc_info[1] is not None


@pytest.mark.found("N25")
def test_a_line_that_nobody_wants_costs_nothing(caplog):
    caplog.set_level(logging.CRITICAL, logger="corolib.server")

    def main():
        log = PeerLog("here", current_scheduler())
        log.warn("kind", "text")
        log.fail(KeyError(), "text %s", "with an argument")
        log.warn("kind", "text")
        yield

    run(main)
    assert not caplog.records
    assert printable("plain") == "plain"


@pytest.mark.found("N25")
def test_a_traceback_comes_again_with_the_next_line_after_ten_minutes(caplog):
    def main():
        log = PeerLog("here", current_scheduler())
        for seconds in (0, 595, 601, 611, 700):
            yield Sleep(at=seconds)
            log.fail(KeyError("bug"), "failed")

    run(main, **virtual_time())
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, True, False]


@pytest.mark.found("N25")
@pytest.mark.parametrize("partly", [False, True])
def test_under_tls_a_report_of_the_stop_names_the_programs_handler(partly, server_tls, client_tls):
    from functools import partial

    def stuck(stream, *more):
        yield from stream.sendall(b"x")
        yield Sleep(1000)

    def main():
        handler = partial(stuck) if partly else stuck
        server = listen_tcp(LOCAL, 0).serve(handler, tls=server_tls)
        with (yield from corolib.open_tcp(*server.listener.addresses[0], tls=client_tls)) as client:
            yield from client.recv(1)
            report = yield from server.stop(0)
        return report.cancelled[0]

    cancelled = run(main)
    assert cancelled.task.startswith("stuck#")
    assert cancelled.where.startswith("test_share.py:")


# All at once --------------------------------------------------------------------------------------


@pytest.mark.found("N20")
@pytest.mark.found("N25")
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_much_abuse_at_once_locks_nobody_out_and_takes_little():
    """The long version is an hour's worth; and only there is the machine to be left alone."""
    seconds = 150 if FULL else 2
    found = abuse.measure(seconds)  # which goes on until all kinds have come
    plain, tls, _ = found["counts"]
    print(found)
    assert found["asked"] > seconds  # and each of them was answered
    # The first seconds fill caches and lists of what is free: a leak shows in the long run.
    assert found["memory"][1] - found["memory"][0] < (5_000_000 if FULL else 10_000_000)
    assert found["log"] < 100 * max(1, seconds / 60)
    assert found["raw"] == 0
    if FULL:
        assert found["p99"] < 0.05 and found["turn"] < 0.05
        assert plain["crowded"]
        assert plain["slow"] > 20 and tls["failed"] > 20


# What is taken for progress, and for whose -------------------------------------------------------


@pytest.mark.found("N1")
def test_time_in_which_the_program_stood_still_is_no_idleness_of_its_peers():
    """What had come meanwhile was not read before the look, which came late."""
    clock = [0.0]

    def scenario(server):
        with dial(server) as one:
            assert (yield from talk(one)) == b"x"
            for _ in range(3):
                yield Sleep(0.1)
                one.send(b"y")
                clock[0] += 60  # somebody's slow step, or the program was suspended
                yield ReadWait(one)
                assert one.recv(9) == b"y"
            return counts_of(server, "idle", "open")

    options = {"clock": lambda: time.monotonic() + clock[0]}
    assert serving(echo, scenario, options, idle_timeout=30) == (0, 1)


@pytest.mark.found("N1")
@pytest.mark.parametrize("drain", [False, True])
def test_a_record_of_tls_that_is_under_way_is_progress(drain, server_tls, client_tls):
    """None of it can be decrypted before all of it has come."""
    record, step = 16000, 1000

    def handler(stream):
        yield from stream.recv(9)
        if drain:
            yield from stream.sendall(b"413")
        else:
            read.append(len((yield from stream.readexactly(record))))

    def scenario(server):
        with dial(server) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or it would keep pieces
            come, go = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_tls.wrap_bio(come, go, server_hostname="localhost")
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.send(go.read())
                    yield ReadWait(sock)
                    come.write(sock.recv(65536))
            tls.write(b"go")
            tls.write(bytes(record))
            data = go.read()
            for start in range(0, len(data), step):
                sock.send(data[start : start + step])
                yield Sleep(0.8)
            return counts_of(server, "idle", "failed")

    read = []
    limits = {"drain": 1} if drain else {"idle_timeout": 1}
    assert serving(handler, scenario, tls=server_tls, **limits) == (0, 0)
    assert drain or read == [record]


@pytest.mark.found("N20")
def test_the_addresses_of_ipv4_are_told_apart_on_a_socket_of_both_families():
    one, other = (network.source_of((f"::ffff:192.0.2.{n}", 80, 0, 0)) for n in (1, 2))
    assert (one, other) == ("192.0.2.1", "192.0.2.2")
    assert network.source_of(("::ffff:1", 80, 0, 0)) == "::/64"


@pytest.mark.found("N20")
def test_a_family_of_any_depth_is_asked_whether_it_waits_for_the_peer():
    def link(stream, depth):
        yield
        if depth:
            spawn(link, stream, depth - 1)
        else:
            yield from stream.recv(1)

    def main():
        a, b = make_pair()
        with Stream(a) as stream, b:
            top = spawn(link, stream, 2000)
            yield Sleep(1)
            assert streams.waits_for_peer(top, stream)
            b.send(b"x")
            yield Sleep(1)
            assert not streams.waits_for_peer(top, stream)

    run(main, **virtual_time())


@pytest.mark.found("N20")
def test_where_there_are_no_more_files_who_is_idle_makes_room():
    """Another server, or the program itself, has taken the files: the places are not all taken."""

    def scenario(server):
        with ExitStack() as stack:
            socks = [stack.enter_context(dial(server)) for _ in range(3)]
            yield Sleep(20)
            assert (yield from talk(socks[1])) == b"x"
            server.listener.report(OSError(errno.EMFILE, "Too many open files"))
            yield Sleep(0.1)
            return counts_of(server, "evicted", "open")

    assert serving(echo, scenario) == (1, 2)


@pytest.mark.found("N20")
def test_the_files_that_one_server_lacks_another_one_has_idle():
    """Whoever has been idle longest makes room, whatever server has him, if that allows it."""

    def main():
        servers = [listen_tcp(LOCAL, 0).serve(echo) for _ in range(3)]
        kept = listen_tcp(LOCAL, 0).serve(echo, evict_idle=None)
        with ExitStack() as stack:
            for server in (kept, *servers[:2]):
                for _ in range(3):
                    stack.enter_context(dial(server))
                yield Sleep(5)
            yield Sleep(10)
            evicted = []
            for _ in range(3):
                servers[2].listener.report(OSError(errno.EMFILE, "Too many open files"))
                yield Sleep(1)
                evicted.append([server.stats()["evicted"] for server in (kept, *servers)])
        for server in (kept, *servers):
            yield from server.stop(0)
        return evicted

    assert run(main, **virtual_time()) == [[0, 1, 0, 0], [0, 2, 0, 0], [0, 3, 0, 0]]


@pytest.mark.found("N20")
def test_servers_that_say_nothing_of_places_share_those_of_the_process(monkeypatch):
    """One that waits to accept already, when the last place is taken, takes one more."""

    def main():
        first, second = (listen_tcp(LOCAL, 0).serve(echo) for _ in range(2))
        other = listen_tcp(LOCAL, 0).serve(echo, max_connections=1000)
        servers = (first, second, other)
        with ExitStack() as stack:
            for server, count in ((first, 14), (other, 6)):
                for _ in range(count):
                    stack.enter_context(dial(server))
                yield Sleep(1)
            late = [stack.enter_context(dial(server)) for server in (*servers, first, second)]
            yield Sleep(1)
            assert [server.stats()["open"] for server in servers] == [15, 1, 7]
            yield Sleep(30)
            for sock in late:
                assert (yield from talk(sock)) == b"x"
            assert [server.stats()["evicted"] for server in servers] == [5, 0, 0]
        for server in servers:
            yield from server.stop(0)
            assert server.stats()["open"] == 0
        assert timers_set(current_scheduler()) == 0

    monkeypatch.setattr("corolib.net.limits.places", lambda: 20)
    run(main, **virtual_time())


@pytest.mark.found("N20")
def test_who_has_places_of_its_own_does_not_wait_for_those_of_others():
    def main():
        first, second = (
            listen_tcp(LOCAL, 0).serve(echo, max_connections=1, evict_idle=None) for _ in range(2)
        )
        with dial(first) as one, dial(first) as two, dial(second) as three:
            yield Sleep(1)
            assert (yield from talk(three)) == b"x"
            three.close()
            yield Sleep(1)  # no place on the first one
            assert counts_of(first, "open", "accepted") == (1, 1)
            one.close()
            assert (yield from talk(two)) == b"x"
        for server in (first, second):
            yield from server.stop(0)

    run(main, **virtual_time())


@pytest.mark.found("N20")
def test_one_who_takes_long_to_leave_is_enough_for_one_who_waits():
    def handler(stream):
        try:
            yield from stream.recv(1)
        finally:
            with shield(30):
                yield Sleep(8)

    def scenario(server):
        with ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(dial(server))
            yield Sleep(12)
            stack.enter_context(dial(server))
            yield Sleep(9)
            return counts_of(server, "evicted", "accepted")

    assert serving(handler, scenario, {**virtual_time(), "grace": 30}, max_connections=5) == (1, 6)


@pytest.mark.found("N20")
def test_a_crowd_that_waits_for_places_gets_them_quickly():
    """Who keeps many waiting, so that nobody else is let in, cannot do so by the pauses."""

    def scenario(server):
        with ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(dial(server))
            yield Sleep(20)
            for _ in range(50):
                stack.enter_context(dial(server))
            begun = now()
            yield from until(lambda: server.stats()["accepted"] == 100)
            return now() - begun, server.stats()["evicted"]

    took, evicted = serving(echo, scenario, max_connections=50)
    assert (took < 1, evicted) == (True, 50)


@pytest.mark.found("N20")
def test_where_nobody_is_waited_for_who_is_idle_for_another_reason_makes_room():
    def handler(stream):
        yield Sleep(1000)

    def scenario(server):
        with dial(server):
            yield Sleep(12)
            with dial(server):
                yield from until(lambda: server.stats()["accepted"] == 2)
                return server.stats()["evicted"]

    assert serving(handler, scenario, max_connections=1) == 1


@pytest.mark.found("N20")
def test_a_full_server_whose_listener_is_closed_accepts_nobody_and_ends():
    def main():
        server = listen_tcp(LOCAL, 0).serve(echo, max_connections=1)
        with dial(server) as sock:
            yield Sleep(1)
            server.listener.close()
            yield Sleep(1)
            assert (yield from talk(sock)) == b"x"
        return (yield from server)

    assert run(main, **virtual_time()).finished == 1


@pytest.mark.found("N20")
def test_where_a_place_is_free_in_a_moment_nobody_has_to_leave():
    def scenario(server):
        with dial(server), dial(server) as leaves:
            yield Sleep(20)
            with dial(server):
                yield Sleep(0.05)
                leaves.close()
                yield from until(lambda: server.stats()["accepted"] == 3)
                yield Sleep(1)
                return server.stats()["evicted"]

    assert serving(echo, scenario, max_connections=2) == 0


@pytest.mark.found("N20")
def test_a_worker_lets_nobody_leave_for_who_was_accepted_by_another():
    def scenario(server):
        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(dial(server))
            yield Sleep(12)
            dial(server).close()
            yield Sleep(0.05)
            conn, _ = sockets_of(server.listener)[0].accept()  # as another process does
            conn.close()
            yield Sleep(30)
            return counts_of(server, "evicted", "open")

    assert serving(echo, scenario, max_connections=2) == (0, 2)


@pytest.mark.found("N18")
def test_what_another_connection_says_is_not_said_of_the_client(caplog):
    def handler(stream):
        a, b = make_pair()
        b.send(b"abc")
        b.close()
        with Stream(a) as upstream:
            yield from upstream.readexactly(10)

    def scenario(server):
        with dial(server) as sock:
            yield from end_of(sock)
            yield Sleep(1)

    serving(handler, scenario)
    (record,) = caplog.records
    assert record.levelname == "ERROR" and record.exc_info
