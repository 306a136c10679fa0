"""Connecting: names, the race of addresses, each way to fail, and that no socket is left."""

import errno
import math
import os
import shutil
import socket
import ssl
import subprocess
import threading
from functools import partial

import pytest

import corolib
from corolib import (
    Sleep,
    Stream,
    TaskCancelled,
    listen_tcp,
    move_on_after,
    now,
    open_tcp,
    open_udp,
    open_unix,
    run,
    spawn,
    timeout,
)
from corolib.net.network import Network, named
from corolib.net.resolving import failure, interleaved
from corolib.testing import cancel_everywhere, open_files, survivors, virtual_time
from tests.helpers.driving import FULL, files
from tests.helpers.faults import (
    CLOSED,
    GONE,
    HALF,
    LATE,
    NUMBERS,
    RESET,
    FakeNetwork,
    FakeSocket,
    Value,
)
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import file_of
from tests.helpers.sockets import tcp_pair

IN_PROGRESS = errno.EINPROGRESS
V4 = [(f"192.0.2.{n}", 80) for n in range(1, 5)]
V6 = [(f"2001:db8::{n}", 80, 0, 0) for n in range(1, 5)]


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def closed_port():
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


@pytest.fixture
def full():
    """A listener whose queue is full: who connects next waits."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        clients = []
        waiting = False
        while not waiting:
            clients.append(socket.socket())
            clients[-1].setblocking(False)
            clients[-1].connect_ex(sock.getsockname())
            try:
                clients[-1].getpeername()
            except OSError:
                waiting = True
        yield sock
        for client in clients:
            client.close()


class Numeric(FakeNetwork):
    """Takes every name for a numeric one: no thread is needed, so that runs go the same way."""

    def getaddrinfo(self, host, port, family=0, kind=0, proto=0, flags=0):
        return super().getaddrinfo(host, port, family, kind, proto, 0)


class Diary(Numeric):
    """Notes when each socket was opened, on the run's clock."""

    def __init__(self, *sockets, **more):
        super().__init__(*sockets, **more)
        self.times = []

    def socket(self, family, kind, proto=0):
        self.times.append(now())
        return super().socket(family, kind, proto)


def stuck():
    """Return a socket whose connection is never answered."""
    sock = FakeSocket(connect=IN_PROGRESS)
    sock.fill()
    return sock


def connect(*args, **more):
    """Open a TCP connection, close it; return the fake socket, or the local address."""
    with (yield from open_tcp(*args, **more)) as stream:
        return (
            file_of(stream)
            if isinstance(file_of(stream), FakeSocket)
            else file_of(stream).getsockname()
        )


def run_with(network, main, *args):
    """Run with a network, virtual time, and no failure that nobody takes."""
    failures = []
    try:
        return run(
            main,
            *args,
            network=network,
            on_task_error=lambda task, exc: failures.append(exc),
            **virtual_time(),
        )
    finally:
        assert failures == []
        for sock in network.opened:
            assert sock.closed


# Real connections ---------------------------------------------------------------------------------


def exchange(host, port, **more):
    with (yield from open_tcp(host, port, **more)) as stream:
        yield from stream.sendall(b"question\n")
        return (yield from stream.readline())


def answer(listener):
    """Serve one connection, in a thread."""

    def serve():
        conn, address = listener.accept()
        peers.append(address)
        with conn:
            conn.sendall(conn.recv(100).upper())

    peers = []
    thread = threading.Thread(target=serve)
    thread.start()
    return thread, peers


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_connection_is_opened_and_carries_data(listener, host):
    thread, _ = answer(listener)
    assert run(exchange, host, listener.getsockname()[1]) == b"QUESTION\n"
    thread.join()


def test_a_connection_is_opened_over_ipv6():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        thread, _ = answer(listener)
        assert run(exchange, "::1", listener.getsockname()[1]) == b"QUESTION\n"
        thread.join()


def test_a_connection_comes_from_the_source_address(listener):
    thread, peers = answer(listener)
    run(lambda: exchange(*listener.getsockname(), source=("127.0.0.2", 0)))
    thread.join()
    assert peers[0][0] == "127.0.0.2"


def test_small_messages_are_not_held_back(listener):
    def main():
        with (yield from open_tcp(*listener.getsockname())) as stream:
            return file_of(stream).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert run(main)


@pytest.mark.hazard("H13")
def test_nobody_listens_there(closed_port):
    host, port = closed_port
    with pytest.raises(ConnectionRefusedError, match=rf"refused: 127\.0\.0\.1:{port}"):
        run(open_tcp, host, port)


@pytest.mark.found("N5")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_to_itself_is_refused_and_its_port_is_free(host):
    """As if the system had chosen the port that is connected to, where nobody listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        port = sock.getsockname()[1]
    before = open_files()
    with pytest.raises(ConnectionRefusedError, match=rf"refused: .*:{port}$"):
        run(lambda: open_tcp(host, port, source=(host, port)))
    assert open_files() == before
    with socket.socket(family) as sock:  # without SO_REUSEADDR: nothing is left of it
        sock.bind((host, port))


@pytest.mark.found("N5")
def test_the_next_address_is_tried_after_a_connection_to_itself(listener):
    with socket.socket() as sock:
        sock.bind(("127.0.0.2", 0))
        closed = sock.getsockname()

    class Unlucky(FakeNetwork):
        def socket(self, family, kind, proto=0):
            sock = super().socket(family, kind, proto)
            if not tried:
                sock.bind(closed)
            tried.append(sock)
            return sock

    def main():
        with (yield from open_tcp("name", 80)) as stream:
            return stream.peer

    tried = []
    network = Unlucky(hosts={"name": [closed, listener.getsockname()]})
    assert run(main, network=network) == listener.getsockname()
    assert len(tried) == 2


@pytest.mark.hazard("H13")
def test_a_connection_to_a_full_queue_waits_until_there_is_room(full):
    def main():
        task = spawn(connect, *full.getsockname())
        for _ in range(20):
            yield
        assert task.state == "waiting"
        while not task.done:
            try:
                full.accept()[0].close()
            except BlockingIOError:
                yield Sleep(0.05)
        return (yield from task)

    full.setblocking(False)
    assert run(main)[0] == "127.0.0.1"


@pytest.mark.hazard("H13")
def test_a_connection_to_a_full_queue_can_be_bounded_in_time(full):
    def main():
        with timeout(0.01):
            yield from open_tcp(*full.getsockname())

    with pytest.raises(TimeoutError, match=r"opened in main .*WriteWait"):
        run(main)


@pytest.mark.hazard("H13")
@pytest.mark.found("N22")
def test_a_wake_up_in_vain_is_no_connection_and_is_followed_by_a_pause():
    def main():
        sock = yield from connect("192.0.2.1", 80)
        assert now() > 4  # the pauses grow
        return sock

    sock = FakeSocket(connect=IN_PROGRESS, getpeername=[errno.ENOTCONN] * 100)
    with FakeNetwork(sock) as network:
        assert run_with(network, main) is sock
        assert sock.calls["getsockopt"] == sock.calls["getpeername"] == 101
        assert sock.calls["connect"] == 1


@pytest.mark.hazard("H20")
def test_a_cancelled_connection_leaves_no_socket_and_no_registration(full):
    def main():
        before = open_files()
        for _ in range(200):
            task = spawn(open_tcp, *full.getsockname())
            yield
            yield
            assert task.state == "waiting"
            yield from task.stop()
        assert open_files() == before
        return files()

    assert run(main) == 0


@pytest.mark.hazard("H20")
def test_connections_cancelled_at_every_step_leave_nothing(listener, closed_port, tmp_path):
    hosts = {"name": [closed_port, listener.getsockname()]}
    unix = str(tmp_path / "socket")

    def open_and_close(opening):
        try:
            with (yield from opening) as stream:
                yield from stream.sendall(b"x")
        except TaskCancelled:  # the last attempt, alone
            yield

    def scenario():
        calls = [open_tcp("name", 80), open_unix(unix)]
        tasks = [spawn(open_and_close, call) for call in calls]
        yield from survivors(tasks)
        for each in (listener, queue):
            try:
                while True:
                    each.accept()[0].close()
            except BlockingIOError:
                pass

    listener.setblocking(False)
    with socket.socket(socket.AF_UNIX) as queue:
        queue.bind(unix)
        queue.listen()
        queue.setblocking(False)
        options = {"pairs": True}
        assert cancel_everywhere(scenario, network=Numeric(hosts=hosts), **options) > 5


@pytest.mark.hazard("H20")
def test_races_cancelled_at_every_step_leave_nothing():
    class Slow(Numeric):
        def socket(self, family, kind, proto=0):
            sock = FakeSocket() if len(self.opened) % 4 == 3 else stuck()
            self.opened.append(sock)
            return sock

    def racer():
        with (yield from open_tcp("name", 80)):
            yield

    def scenario():
        try:
            yield from survivors([spawn(racer) for _ in range(3)])
            assert all(sock.closed for sock in network.opened)
        finally:
            for sock in network.opened:
                sock.discard()
            network.opened.clear()

    network = Slow(hosts={"name": [*V6, *V4]})
    every = 1 if FULL else 100
    assert cancel_everywhere(scenario, pairs=True, every=every, network=network) > 200


def test_an_attempt_that_is_dropped_outside_of_a_run_closes_its_socket():
    sock = stuck()
    with FakeNetwork(sock) as network:
        scheduler = corolib.Scheduler(network=network)
        opening = open_tcp("192.0.2.1", 80)
        scheduler.spawn(opening)
        while not sock.calls["connect"]:
            scheduler.turn(0)
        opening.close()
        scheduler.close()
        assert sock.closed


# Names --------------------------------------------------------------------------------------------


class Threaded(FakeNetwork):
    """Notes in which threads names are looked up."""

    def __init__(self, *sockets, **more):
        super().__init__(*sockets, **more)
        self.threads = []

    def getaddrinfo(self, *args):
        self.threads.append(threading.current_thread().name)
        return super().getaddrinfo(*args)


def test_a_name_is_looked_up_in_a_thread():
    with Threaded(FakeSocket(), hosts={"name": V4[:1]}) as network:
        run_with(network, connect, "name", 80)
        assert network.threads == ["MainThread", "corolib-lookup-1"]
        assert network.opened[0].address == V4[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%lo", "fe80::1%1"])
def test_a_numeric_address_needs_no_thread(host):
    with Threaded(FakeSocket()) as network:
        run_with(network, connect, host, 80)
        assert network.threads == ["MainThread"]


def test_the_scope_of_an_address_is_kept():
    with FakeNetwork(FakeSocket()) as network:
        run_with(network, connect, "fe80::1%lo", 80)
        assert network.opened[0].address == ("fe80::1", 80, 0, socket.if_nametoindex("lo"))


def test_a_service_may_be_named():
    with FakeNetwork(FakeSocket()) as network:
        run_with(network, connect, "127.0.0.1", "http")
        assert network.opened[0].address == ("127.0.0.1", 80)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_there_is_not_is_refused(port):
    with pytest.raises(ValueError, match=f"port {port}"):
        run(open_tcp, "127.0.0.1", port)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b", ".", "\udcff"])
@pytest.mark.parametrize("call", [open_tcp, open_udp, listen_tcp])
def test_a_host_that_cannot_be_a_name_is_refused(host, call):
    with pytest.raises(ValueError, match=r"cannot be a host: .*parts of 1 to 63") as caught:
        made = call(host, 80)
        run(lambda: made)
    assert str(caught.value).startswith(repr(host))


def test_a_lookup_that_fails_names_the_host():
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with FakeNetwork(hosts={"name": error}) as network:
        with pytest.raises(socket.gaierror, match="not known: name:80") as caught:
            run_with(network, connect, "name", 80)
        assert caught.value.errno == socket.EAI_NONAME


def test_nobody_heeds_what_comes_of_a_lookup_after_a_cancel():
    asked, go_on = threading.Event(), threading.Event()

    class Slow(FakeNetwork):
        def getaddrinfo(self, host, port, family=0, kind=0, proto=0, flags=0):
            if not flags & socket.AI_NUMERICHOST:
                scheduler.call_soon_threadsafe(asked.set)
                go_on.wait()
            return super().getaddrinfo(host, port, family, kind, proto, flags)

    def main():
        task = spawn(open_tcp, "name", 80)
        while not asked.is_set():
            yield Sleep(0.001)
        assert "lookup(name:80)" in repr(task.wait)
        yield from task.stop()
        go_on.set()

    failures = []
    network = Slow(hosts={"name": socket.gaierror(socket.EAI_AGAIN, "later")})
    scheduler = corolib.Scheduler(
        network=network, on_task_error=lambda task, exc: failures.append(exc)
    )
    scheduler.run(main)
    assert failures == []
    assert network.asked == ["name"]


@pytest.mark.found("N6")
def test_hanging_lookups_that_were_given_up_keep_no_other_name_waiting():
    go_on = threading.Event()

    class Hanging(FakeNetwork):
        def getaddrinfo(self, host, port, family=0, kind=0, proto=0, flags=0):
            if host == "dead" and not flags & socket.AI_NUMERICHOST:
                go_on.wait()
            return super().getaddrinfo(host, port, family, kind, proto, flags)

    def main():
        for _ in range(16):
            with move_on_after(0.001):
                yield from open_tcp("dead", 80)
        stream = yield from open_tcp("name", 80)
        stream.close()
        go_on.set()

    hosts = {"name": V4[:1], "dead": socket.gaierror(socket.EAI_AGAIN, "later")}
    with Hanging(FakeSocket(), hosts=hosts) as network:
        run_with(network, main)
        assert network.opened[0].address == V4[0]


def test_an_address_that_is_found_twice_is_tried_once():
    with Diary(errno.ENETUNREACH, hosts={"name": [V4[0], V4[0]]}) as network:
        with pytest.raises(OSError, match="unreachable"):
            run_with(network, connect, "name", 80)
        assert len(network.times) == 1


# The race -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ([], []),
        (V4[:2], V4[:2]),
        ([*V6[:3], *V4[:2]], [V6[0], V4[0], V6[1], V4[1], V6[2]]),
        ([V4[0], V4[1], V6[0], V6[1]], [V4[0], V6[0], V4[1], V6[1]]),
    ],
)
def test_families_take_turns_and_the_one_that_the_system_prefers_begins(found, order):
    infos = [(socket.AF_INET6 if ":" in a[0] else socket.AF_INET, 1, 6, "", a) for a in found]
    assert [info[4] for info in interleaved(infos)] == order


def test_one_attempt_is_begun_after_the_other_a_quarter_of_a_second_apart():
    socks = [stuck(), stuck(), stuck(), FakeSocket()]
    with Diary(*socks, hosts={"name": [*V6[:2], *V4[:2]]}) as network:
        assert run_with(network, connect, "name", 80) is socks[3]
        assert network.times == [0, 0.25, 0.5, 0.75]
        assert [sock.address for sock in socks] == [V6[0], V4[0], V6[1], V4[1]]


@pytest.mark.parametrize(
    ("delay", "times"), [(0.1, [0, 0.1, 0.2]), (0, [0, 0, 0]), (-1, [0, 0, 0])]
)
def test_the_delay_between_attempts_can_be_set(delay, times):
    with Diary(stuck(), stuck(), FakeSocket(), hosts={"name": V4[:3]}) as network:
        run_with(network, lambda: connect("name", 80, delay=delay))
        assert network.times == pytest.approx(times)


def test_without_end_of_the_delay_only_a_failure_begins_the_next():
    def main():
        task = spawn(lambda: connect("name", 80, delay=math.inf))
        yield Sleep(1000)
        assert len(network.opened) == 1
        first.drain()
        return (yield from task)

    first = FakeSocket(connect=IN_PROGRESS, getsockopt=Value(errno.ECONNREFUSED))
    first.fill()
    last = FakeSocket()
    with Diary(first, last, hosts={"name": V4[:2]}) as network:
        assert run_with(network, main) is last
        assert network.times == [0, 1000]


@pytest.mark.parametrize("delay", ["1", math.nan, None, True])
def test_a_delay_that_is_no_number_of_seconds_is_refused(delay):
    with pytest.raises((TypeError, ValueError), match="delay="):
        run(lambda: open_tcp("127.0.0.1", 80, delay=delay))


def test_a_failure_begins_the_next_attempt_at_once():
    socks = [FakeSocket(connect=errno.ECONNREFUSED), errno.EMFILE, stuck(), FakeSocket()]
    with Diary(*socks, hosts={"name": V4}) as network:
        assert run_with(network, connect, "name", 80) is socks[3]
        assert network.times == [0, 0, 0, 0.25]


def test_a_late_failure_begins_the_next_attempt_at_once():
    def main():
        task = spawn(connect, "name", 80)
        yield Sleep(0.3)
        late.drain()
        return (yield from task)

    late = FakeSocket(connect=IN_PROGRESS, getsockopt=Value(errno.ETIMEDOUT))
    late.fill()
    socks = [stuck(), late, FakeSocket()]
    with Diary(*socks, hosts={"name": V4[:3]}) as network:
        assert run_with(network, main) is socks[2]
        assert network.times == [0, 0.25, 0.3]


def test_an_attempt_that_was_begun_early_may_still_win():
    def main():
        task = spawn(connect, "name", 80)
        yield Sleep(0.6)
        early.drain()
        return (yield from task)

    early = stuck()
    socks = [early, stuck(), stuck()]
    with Diary(*socks, hosts={"name": V4}) as network:
        assert run_with(network, main) is early
        assert len(network.opened) == 3


def test_only_one_of_two_that_are_connected_at_the_same_time_is_kept():
    def main():
        task = spawn(lambda: connect("name", 80, delay=0))
        yield Sleep(0.1)
        for sock in socks:
            sock.drain()
        kept = yield from task
        assert [sock.calls["getpeername"] for sock in socks] == [1, 1]
        return kept

    socks = [stuck(), stuck()]
    with Diary(*socks, hosts={"name": V4[:2]}) as network:
        assert run_with(network, main) in socks


@pytest.mark.hazard("H20")
def test_a_cancelled_race_leaves_no_socket():
    def main():
        task = spawn(open_tcp, "name", 80)
        yield Sleep(0.6)
        assert len(network.opened) == 3
        yield from task.stop()
        return files()

    with Diary(*[stuck() for _ in range(4)], hosts={"name": V4}) as network:
        assert run_with(network, main) == 0


@pytest.mark.hazard("H20")
def test_a_race_that_is_cut_short_has_closed_its_sockets_when_the_error_is_looked_at():
    def main():
        with pytest.raises(TimeoutError) as caught, timeout(0.6):
            yield from open_tcp("name", 80)
        # the traceback holds the frames, and all that is in them
        assert caught.value.__cause__.__traceback__
        return [sock.closed for sock in network.opened]

    with Diary(*[stuck() for _ in range(4)], hosts={"name": V4}) as network:
        assert run_with(network, main) == [True] * 3


def test_the_only_failure_is_raised_itself():
    with Diary(FakeSocket(connect=errno.ECONNREFUSED), hosts={"name": V4[:1]}) as network:
        with pytest.raises(ConnectionRefusedError) as caught:
            run_with(network, connect, "name", 80)
    assert str(caught.value) == "[Errno 111] Connection refused: 192.0.2.1:80"
    assert caught.value.__cause__ is None


def test_several_failures_of_one_kind_are_one_of_that_kind_that_names_all():
    socks = [FakeSocket(connect=errno.ECONNREFUSED) for _ in range(2)]
    with Diary(*socks, hosts={"name": [V6[0], V4[0]]}) as network:
        with pytest.raises(ConnectionRefusedError) as caught:
            run_with(network, connect, "name", 80)
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.strerror == (
        "cannot connect to name:80: Connection refused: [2001:db8::1]:80; "
        "Connection refused: 192.0.2.1:80"
    )
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert [exc.errno for exc in caught.value.__cause__.exceptions] == [errno.ECONNREFUSED] * 2
    assert [exc.__traceback__ for exc in caught.value.__cause__.exceptions] == [None] * 2


def test_failures_of_several_kinds_are_an_oserror_that_names_all():
    socks = [errno.EAFNOSUPPORT, FakeSocket(connect=errno.ECONNREFUSED)]
    with Diary(*socks, hosts={"name": [V6[0], V4[0]]}) as network:
        with pytest.raises(OSError, match=r"not supported.*::1\]:80; Connection refused") as caught:
            run_with(network, connect, "name", 80)
    assert type(caught.value) is OSError
    assert caught.value.errno is None


def test_a_failure_without_a_number_is_named_as_well():
    errors = [named(OSError("path too long"), "'x'"), OSError(errno.EPERM, "no")]
    assert str(errors[0]) == "path too long: 'x'"
    assert str(failure("cannot connect", errors)) == "cannot connect: path too long: 'x'; no"
    assert str(failure("no", [OSError("a"), OSError("b")])) == "no: a; b"


def test_races_leave_nothing_for_the_garbage_collector(listener, closed_port):
    def scenario():
        for name in ("none", "one", "second"):
            try:
                corolib.close(file_of((yield from open_tcp(name, 80))))
            except OSError:
                assert name != "second"
            else:
                listener.accept()[0].close()

    hosts = {
        "none": [closed_port, closed_port],
        "one": [closed_port],
        "second": [closed_port, listener.getsockname()],
    }
    hosts["none"][1] = (closed_port[0], 0)
    assert garbage_of(scenario, network=Numeric(hosts=hosts)) == []


def test_connections_that_are_there_at_once_give_way_now_and_then():
    class Endless(Network):
        def socket(self, family, kind, proto=0):
            nonlocal opened
            opened += 1
            return FakeSocket(ends)

    def opener():
        while True:
            stream = yield from open_unix("/nowhere")
            assert not file_of(stream).closed

    def main():
        task = spawn(opener)
        for _ in range(5):
            yield
        task.cancel()

    opened = 0
    ends = socket.socketpair()
    with ends[0], ends[1]:
        run(main, network=Endless())
    assert opened < 500


# Source addresses ---------------------------------------------------------------------------------


class Bound(FakeSocket):
    """Notes what it was bound to."""

    bound = None

    def bind(self, address):
        super().bind(address)
        self.bound = address


def test_with_a_source_only_addresses_of_its_family_are_tried():
    socks = [Bound(connect=errno.ECONNREFUSED), Bound()]
    with Diary(
        *socks, hosts={"name": [*V6[:2], *V4[:2]], "192.0.2.9": [("192.0.2.9", 0)]}
    ) as network:
        run_with(network, lambda: connect("name", 80, source=("192.0.2.9", 0)))
        assert [sock.address for sock in socks] == V4[:2]
        assert {sock.bound for sock in socks} == {("192.0.2.9", 0)}


def test_with_a_source_of_both_families_each_address_gets_its_own():
    hosts = {"name": [V6[0], V4[0]], "mine": [V4[2], V6[2], V4[3]]}
    socks = [Bound(connect=errno.ECONNREFUSED), Bound()]
    with Diary(*socks, hosts=hosts) as network:
        run_with(network, lambda: connect("name", 80, source=("mine", 0)))
        assert [sock.bound for sock in socks] == [V6[2], V4[2]]


def test_no_address_of_the_family_of_the_source():
    with Diary(hosts={"name": V6, "mine": V4[:1]}) as network:
        with pytest.raises(
            OSError, match="name:80 has no address of the family of mine:0"
        ) as error:
            run_with(network, lambda: connect("name", 80, source=("mine", 0)))
    assert error.value.errno == errno.EADDRNOTAVAIL


def test_a_source_without_a_port_is_refused():
    with pytest.raises(
        TypeError, match=r"source=\) got '127\.0\.0\.1': give an address and a port"
    ):
        run(lambda: open_tcp("127.0.0.1", 80, source="127.0.0.1"))


def test_a_source_that_is_none_of_this_machines():
    with pytest.raises(OSError, match=r"127\.0\.0\.1:80") as caught:
        run(lambda: open_tcp("127.0.0.1", 80, source=("192.0.2.1", 0)))
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_family_can_be_chosen():
    with Diary(FakeSocket(), hosts={"name": [V6[0], V4[0]]}) as network:
        run_with(network, lambda: connect("name", 80, family=socket.AF_INET))
        assert network.opened[0].address == V4[0]


# Unix sockets -------------------------------------------------------------------------------------


@pytest.fixture
def unix(tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.listen(1)
        yield sock


def test_a_unix_connection_is_opened_and_carries_data(unix, tmp_path):
    def main(path):
        with (yield from open_unix(path)) as stream:
            yield from stream.sendall(b"hello")

    for path in (tmp_path / "socket", unix.getsockname(), os.fsencode(unix.getsockname())):
        run(main, path)
        with unix.accept()[0] as conn:
            assert conn.recv(10) == b"hello"


@pytest.mark.hazard("H13")
def test_a_full_queue_of_a_unix_listener_is_asked_again_and_again(unix):
    def main():
        streams = []
        for _ in range(2):
            streams.append((yield from open_unix(unix.getsockname())))
        before = now()
        task = spawn(open_unix, unix.getsockname())
        yield Sleep(60)
        steps = corolib.current_scheduler().stats()["steps"]
        assert task.state == "waiting"
        yield Sleep(1)
        # not more than twenty times a second, of two steps each; and ours
        assert corolib.current_scheduler().stats()["steps"] - steps <= 45
        unix.accept()[0].close()
        streams.append((yield from task))
        for stream in streams:
            stream.close()
        return now() - before

    assert 61 <= run(main, **virtual_time()) <= 61.1


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        ("/nowhere/at/all", FileNotFoundError, "No such file or directory: '/nowhere/at/all'"),
        (
            "x" * 200,
            OSError,
            "a path of 200 bytes; a Unix socket can have 10[37]: write it .*: 'xxx",
        ),
        ("\0nobody-listens-here", ConnectionRefusedError, r"'\\x00nobody-listens-here'"),
    ],
)
def test_a_unix_path_where_nobody_listens(path, kind, text):
    with pytest.raises(kind, match=text):
        run(open_unix, path)


def test_a_unix_path_that_is_none():
    with pytest.raises(TypeError):
        run(open_unix, None)


# TLS ----------------------------------------------------------------------------------------------


@pytest.fixture
def handshakes(monkeypatch):
    """Let no stream do a handshake; return what they were asked for, and what is to happen."""

    def start_tls(stream, context, **options):
        asked.append((context, options))
        yield from outcomes.pop(0)() if outcomes else ()

    asked, outcomes = [], []
    monkeypatch.setattr(Stream, "start_tls", start_tls, raising=False)
    return asked, outcomes


@pytest.mark.parametrize(
    ("host", "given", "expected"),
    [
        ("example.org", None, "example.org"),
        ("example.org.", None, "example.org"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("fe80::1%lo", None, "fe80::1"),
        ("127.0.0.1", "example.org", "example.org"),
    ],
)
def test_the_certificate_of_the_host_is_expected_or_of_another_name(
    handshakes, host, given, expected
):
    context = ssl.create_default_context()
    with Numeric(FakeSocket(), hosts={host: V4}) as network:
        run_with(network, lambda: connect(host, 80, tls=context, server_hostname=given))
    assert handshakes[0] == [(context, {"server_hostname": expected})]


def test_the_default_context_is_made_once_in_a_run_and_in_a_thread(handshakes, monkeypatch):
    def make():
        threads.append(threading.current_thread().name)
        return real()

    def main():
        for _ in range(3):
            yield from connect("192.0.2.1", 443, tls=True)

    threads = []
    real = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", make)
    with FakeNetwork(*[FakeSocket() for _ in range(3)]) as network:
        run_with(network, main)
    assert threads == ["corolib-thread-1"]
    (context,) = {id(context): context for context, _ in handshakes[0]}.values()
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize("tls", [None, False])
def test_a_name_for_a_certificate_without_tls_is_refused(tls):
    for opening in (partial(open_tcp, "127.0.0.1", 80), partial(open_unix, "/nowhere")):
        with pytest.raises(ValueError, match=r"server_hostname=\.\.\.\) is for TLS: add tls=True"):
            run(lambda: opening(tls=tls, server_hostname="example.org"))


def test_what_is_no_context_is_refused_before_anything_is_opened():
    with pytest.raises(TypeError, match=r"open_tcp\(tls='x'\): give True, or an ssl\.SSLContext"):
        run(open_tcp("127.0.0.1", 1, tls="x"))


def test_a_handshake_that_fails_closes_the_socket(handshakes):
    def refuse():
        yield
        raise ssl.SSLError("no")

    handshakes[1].append(refuse)
    with FakeNetwork(FakeSocket()) as network:
        with pytest.raises(ssl.SSLError):
            run_with(network, lambda: connect("192.0.2.1", 443, tls=True))
        assert network.opened[0].closed


def test_a_handshake_that_is_cancelled_closes_the_socket(handshakes):
    def main():
        task = spawn(connect("192.0.2.1", 443, tls=True))
        while not handshakes[0]:
            yield Sleep(0.01)
        assert not network.opened[0].closed
        yield from task.stop()

    handshakes[1].append(Sleep(math.inf).__iter__)
    with FakeNetwork(FakeSocket()) as network:
        run_with(network, main)


def test_a_real_handshake_and_one_that_does_not_trust_the_other_side(listener, tmp_path):
    def serve():
        for _ in range(2):
            try:
                with server.wrap_socket(listener.accept()[0], server_side=True) as conn:
                    conn.sendall(conn.recv(100).upper())
            except OSError:
                pass

    def main():
        answer = yield from exchange(
            "127.0.0.1", listener.getsockname()[1], tls=trusting, server_hostname="localhost"
        )
        with pytest.raises(ssl.SSLCertVerificationError):
            yield from open_tcp(*listener.getsockname(), tls=True)
        return answer

    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    certificate = str(tmp_path / "certificate")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", certificate),
            *("-out", str(tmp_path / "public")),
        ],
        check=True,
        capture_output=True,
    )
    with open(certificate, "a") as file:
        file.write((tmp_path / "public").read_text())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=tmp_path / "public")
    thread = threading.Thread(target=serve)
    thread.start()
    assert run(main) == b"QUESTION\n"
    thread.join()


def test_tls_over_a_unix_socket(handshakes, unix):
    def main():
        context = ssl.create_default_context()
        (yield from open_unix(unix.getsockname(), tls=context, server_hostname="name")).close()
        assert handshakes[0] == [(context, {"server_hostname": "name"})]

    run(main)


# Each call of the system, with each outcome -------------------------------------------------------

ERRORS = [getattr(errno, name) for name in NUMBERS] + [errno.ECONNREFUSED, errno.ENETUNREACH]
GOES_ON = {  # what is no failure
    "connect": {errno.EINTR, LATE},
    "getpeername": {errno.ENOTCONN},
}
CALLS = ("socket", "bind", "connect", "getsockopt", "SO_ERROR", "getpeername")


def scripted(call, error):
    """Return a socket of which one call has this outcome; or that of the call that opens it."""
    if call == "socket":
        return error
    if call == "bind":
        return FakeSocket(bind=error)
    if call == "connect":
        return FakeSocket(connect=error)
    if call == "SO_ERROR":
        return FakeSocket(connect=IN_PROGRESS, getsockopt=Value(error))
    return FakeSocket(connect=IN_PROGRESS, **{call: error})


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", CALLS)
def test_each_call_with_each_error(call, error):
    """A failure is raised as it is, with the address; the socket is closed."""
    options = {"source": ("127.0.0.1", 0)} if call == "bind" else {}
    with FakeNetwork(scripted(call, error)) as network:

        def main():
            return (yield from connect("192.0.2.1", 80, **options))

        if error in GOES_ON.get(call, ()):
            assert run_with(network, main) is network.opened[0]
        else:
            with pytest.raises(OSError, match=r"192\.0\.2\.1:80$") as caught:
                run_with(network, main)
            assert caught.value.errno == error
            assert type(caught.value) is type(OSError(error, ""))


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", CALLS)
def test_each_call_with_each_error_beside_an_address_that_answers(call, error):
    """Whatever happens to one address, the next one is tried at once."""
    hosts = {"name": V4[:2], "127.0.0.1": [("127.0.0.1", 0)]}
    options = {"source": ("127.0.0.1", 0)} if call == "bind" else {}
    good = FakeSocket()
    with Diary(scripted(call, error), good, hosts=hosts) as network:

        def main():
            return (yield from connect("name", 80, **options))

        winner = run_with(network, main)
        assert (winner is good) == (error not in GOES_ON.get(call, ()))
        assert set(network.times) == {0}


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_a_lookup_with_each_error(error):
    with FakeNetwork(hosts={"name": OSError(error, os.strerror(error))}) as network:
        with pytest.raises(OSError, match="name:80") as caught:
            run_with(network, connect, "name", 80)
        assert caught.value.errno == error


@pytest.mark.parametrize("name", ["EAI_NONAME", "EAI_AGAIN", "EAI_FAIL", "EAI_NODATA"])
def test_a_lookup_with_each_error_of_its_own(name):
    code = getattr(socket, name)
    with FakeNetwork(hosts={"name": socket.gaierror(code, name)}) as network:
        with pytest.raises(socket.gaierror, match=f"{name}: name:80") as caught:
            run_with(network, connect, "name", 80)
        assert caught.value.errno == code


def test_a_lookup_that_finds_nothing():
    with FakeNetwork(hosts={"name": []}) as network:
        with pytest.raises(socket.gaierror, match="no address is known: name:80"):
            run_with(network, connect, "name", 80)


@pytest.mark.parametrize("call", ["getsockopt", "getpeername"])
def test_a_socket_that_was_closed_meanwhile(call):
    with FakeNetwork(FakeSocket(connect=IN_PROGRESS, **{call: CLOSED})) as network:
        with pytest.raises(OSError) as caught:
            run_with(network, connect, "192.0.2.1", 80)
        assert caught.value.errno == errno.EBADF


def test_a_socket_that_is_closed_during_the_wait():
    def main():
        task = spawn(open_tcp, "192.0.2.1", 80)
        yield
        yield
        corolib.close(sock)
        with pytest.raises(corolib.ClosedError):
            yield from task

    sock = stuck()
    with FakeNetwork(sock) as network:
        run_with(network, main)


@pytest.mark.parametrize("call", ["getsockopt", "getpeername"])
@pytest.mark.parametrize("outcome", [GONE, HALF, RESET])
def test_the_other_side_leaves_while_it_is_being_connected_to(call, outcome):
    """A reset is found out; an end of the file is a connection."""
    sock = FakeSocket(tcp_pair(), connect=IN_PROGRESS, **{call: outcome})
    with FakeNetwork(sock) as network:
        if outcome is RESET:  # found at the next look, if this one was at getpeername()
            with pytest.raises(ConnectionResetError):
                run_with(network, connect, "192.0.2.1", 80)
        else:
            assert run_with(network, connect, "192.0.2.1", 80) is sock


@pytest.mark.parametrize("n", range(1, 5))
def test_a_connection_that_begins_late(n):
    with FakeNetwork(FakeSocket(connect=[LATE] * n)) as network:
        sock = run_with(network, connect, "192.0.2.1", 80)
        assert sock.calls["connect"] == n + 1


@pytest.mark.parametrize("host", [None, b"127.0.0.1"])
def test_a_host_that_is_no_str_is_refused_before_a_socket_is_opened(listener, host):
    with pytest.raises(TypeError, match="got the host"):
        run(open_tcp(host, listener.getsockname()[1]))
