"""Datagrams: whole or not at all, the network's complaints, senders and receivers that wait."""

import contextlib
import errno
import os
import pickle
import socket
import struct
import threading
from collections import Counter

import pytest

import corolib
from corolib import (
    BusyError,
    ClosedError,
    DatagramSocket,
    Sleep,
    current_scheduler,
    now,
    open_udp,
    open_unix_datagrams,
    run,
    spawn,
)
from corolib.kernel.context import BUDGET
from corolib.net import packet_info
from corolib.net.datagrams import PATIENCE, PAUSE, SHORTAGE
from corolib.testing import cancel_everywhere, open_files, survivors, virtual_time
from tests.helpers.driving import FULL, turn
from tests.helpers.faults import (
    CLOSED,
    GONE,
    LATE,
    NUMBERS,
    ONE,
    SHORT,
    WELL,
    FakeNetwork,
    FakeSocket,
    Value,
)
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import known_addresses, patience_of, poll, set_budget, set_patience

LOCAL = ("127.0.0.1", 0)


def udp(host="127.0.0.1"):
    """Return a real UDP socket with an address of its own, not blocking."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.setblocking(False)
    return sock


@pytest.fixture
def far():
    with udp() as sock:
        yield sock


@pytest.fixture
def closed_port():
    """An address where nobody receives: the socket that has it hears only itself. Another may get
    it with SO_REUSEADDR.
    """
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(LOCAL)
        sock.connect(sock.getsockname())
        yield sock.getsockname()


def fake(connected=True, **scripts):
    """Return a fake socket over two real ones of UDP; near is connected to far if it shall be."""
    near, far = udp(), udp()
    far.connect(near.getsockname())
    if connected:
        near.connect(far.getsockname())
    return FakeSocket((near, far), **scripts)


@pytest.fixture
def scripted():
    """Make fake sockets, which are closed at the end."""
    made = []

    def make(*args, **scripts):
        made.append(fake(*args, **scripts))
        return made[-1]

    yield make
    for sock in made:
        sock.discard()


def is_waiting(task):
    """Let the others run for a while; return whether the task waits all the same."""
    for _ in range(10):
        yield
    return task.state == "waiting"


# Sending and receiving ----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_is_sent_to_an_address_can_be_answered(host):
    def main():
        with (yield from open_udp(local=(host, 0))) as server:
            with (yield from open_udp(family=server.socket.family)) as client:
                yield from client.sendto(b"question", server.local)
                data, address = yield from server.recvfrom()
                yield from server.sendto(data.upper(), address)
                answer, sender = yield from client.recvfrom()
                assert sender == server.local
                return answer

    assert run(main) == b"QUESTION"


def test_a_connected_socket_sends_to_one_and_hears_nobody_else(far):
    def main():
        with (yield from open_udp(*far.getsockname(), local=LOCAL)) as sock, udp() as stranger:
            assert sock.peer == far.getsockname()
            yield from sock.send(b"hello")
            assert far.recvfrom(10) == (b"hello", sock.local)
            stranger.sendto(b"stranger", sock.local)
            far.sendto(b"friend", sock.local)
            return (yield from sock.recv())

    assert run(main) == b"friend"


@pytest.mark.hazard("H32")
def test_an_empty_datagram_is_a_datagram_like_any_other(far):
    def main():
        with (yield from open_udp(local=LOCAL)) as sock:
            for data in (b"", b"x", b""):
                far.sendto(data, sock.local)
                got, address = yield from sock.recvfrom()
                yield from sock.sendto(got, address)
                yield corolib.ReadWait(far)
                assert far.recv(10) == got == data

    run(main)


@pytest.mark.hazard("H32")
def test_a_datagram_that_is_too_long_is_refused_and_the_socket_works_afterwards(far):
    def main():
        with (yield from open_udp(*far.getsockname())) as sock:
            for send in (sock.send, lambda data: sock.sendto(data, far.getsockname())):
                with pytest.raises(OSError) as caught:
                    yield from send(bytes(70_000))
                assert caught.value.errno == errno.EMSGSIZE
                yield from send(bytes(65_507))
                yield corolib.ReadWait(far)
                assert far.recv(70_000) == bytes(65_507)

    run(main)


@pytest.mark.hazard("H32")
def test_a_datagram_that_was_cut_is_flagged(far):
    def main():
        got = []
        with (yield from open_udp(local=LOCAL)) as sock:
            assert not sock.truncated
            for data, most in [(b"abc", 2), (b"abc", 3), (b"abc", 0), (b"", 0), (b"abc", 1)]:
                far.sendto(data, sock.local)
                data, _ = yield from sock.recvfrom(most)
                got.append((data, sock.truncated))
            far.sendto(b"whole", sock.local)
            got.append(((yield from sock.recv()), sock.truncated))
        return got

    whole = [(b"abc", False), (b"", False), (b"whole", False)]
    cut = [(b"ab", True), (b"", True), (b"a", True)]
    assert run(main) == [cut[0], whole[0], cut[1], whole[1], cut[2], whole[2]]


def test_less_than_nothing_cannot_be_asked_for(far):
    with pytest.raises(ValueError, match=r"recvfrom\(-1\)"):
        run(DatagramSocket(far).recvfrom, -1)


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_all_kinds_of_bytes_can_be_sent(far, data):
    def main():
        with (yield from open_udp(*far.getsockname())) as sock:
            yield from sock.send(data)
            yield from sock.sendto(data, far.getsockname())

    run(main)
    assert far.recv(10) == far.recv(10) == b"abc"


# The network's complaints -------------------------------------------------------------------------


@pytest.mark.hazard("H32")
def test_each_complaint_is_raised_once_by_what_receives(closed_port):
    def main():
        with (yield from open_udp(*closed_port)) as sock:
            for _ in range(10):
                yield from sock.send(b"is there anybody?")
                with pytest.raises(ConnectionRefusedError):
                    yield from sock.recv()
            task = spawn(sock.recv)
            assert (yield from is_waiting(task))
            with socket.socket(type=socket.SOCK_DGRAM) as late:
                late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                late.bind(closed_port)
                yield from sock.send(b"and now?")
                late.sendto(b"yes", sock.local)
                return (yield from task)

    assert run(main) == b"yes"


@pytest.mark.hazard("H32")
def test_each_complaint_is_raised_once_by_what_sends(closed_port):
    def main():
        outcomes = []
        with (yield from open_udp(*closed_port)) as sock:
            for _ in range(10):
                try:
                    yield from sock.send(b"is there anybody?")
                    outcomes.append("sent")
                except ConnectionRefusedError:
                    outcomes.append("refused")
        return outcomes

    assert run(main) == ["sent", "refused"] * 5


def test_who_waits_to_receive_is_told(closed_port):
    def main():
        with (yield from open_udp(*closed_port)) as sock:
            task = spawn(sock.recv)
            assert (yield from is_waiting(task))
            yield from sock.send(b"is there anybody?")
            with pytest.raises(ConnectionRefusedError):
                yield from task

    run(main)


def test_a_socket_that_is_not_connected_is_told_nothing(closed_port):
    def main():
        with (yield from open_udp(local=LOCAL)) as sock:
            for _ in range(10):
                yield from sock.sendto(b"is there anybody?", closed_port)
            task = spawn(sock.recvfrom)
            assert (yield from is_waiting(task))
            task.cancel()

    run(main)


@pytest.mark.parametrize("call", ["recvfrom", "sendto", "send"])
def test_who_passes_over_an_error_that_stays_does_not_spin(scripted, call):
    error = errno.EIO if call == "recvfrom" else errno.ENOBUFS

    def passes_over(datagrams):
        address = sock.far.getsockname()
        args = {"recvfrom": (), "sendto": (b"x", address), "send": (b"x",)}[call]
        while True:
            with contextlib.suppress(OSError):
                yield from getattr(datagrams, call)(*args)

    def main():
        with DatagramSocket(sock) as datagrams:
            sock.far.send(b"to be ready")
            task = spawn(passes_over, datagrams)
            yield Sleep(1)
            assert 90 <= sock.calls[call] <= 110
            assert current_scheduler().stats()["steps"] < 400
            yield from task.stop()

    sock = scripted(call == "send", **{call: [error] * 10_000})
    run(main, **virtual_time())


# Waiting, closing, cancelling ---------------------------------------------------------------------


def test_a_second_receiver_is_refused_and_does_not_disturb_the_first(far):
    def main():
        with (yield from open_udp(local=LOCAL)) as sock:
            task = spawn(sock.recv)
            yield
            yield
            with pytest.raises(BusyError, match="recv#2"):
                yield from sock.recv()
            far.sendto(b"hello", sock.local)
            return (yield from task)

    assert run(main) == b"hello"


def test_closing_wakes_who_receives_and_refuses_who_comes_later():
    def main():
        sock = yield from open_udp(local=LOCAL)
        task = spawn(sock.recv)
        assert (yield from is_waiting(task))
        sock.close()
        with pytest.raises(ClosedError):
            yield from task
        for late in (sock.recv(), sock.recvfrom(), sock.send(b""), sock.sendto(b"", LOCAL)):
            with pytest.raises(ClosedError):
                yield from late
        sock.close()

    run(main)


def test_a_socket_can_be_closed_when_the_run_is_over():
    def main():
        return (yield from open_udp())

    sock = run(main)
    with sock:
        assert "fd=" in repr(sock)
    assert repr(sock) == "<DatagramSocket over <socket closed>>"
    assert (sock.local, sock.peer) == (None, None)


def test_receivers_cancelled_at_every_step_lose_no_datagram():
    def receive(sock):
        got.append((yield from sock.recv()))

    def scenario():
        got.clear()
        with (yield from open_udp(local=LOCAL)) as sock, udp() as far:
            first = spawn(receive, sock)
            yield
            far.sendto(b"1", sock.local)
            far.sendto(b"2", sock.local)
            yield from survivors([first])
            second = spawn(receive, sock)
            yield from survivors([second])
            while len(got) < 2:
                got.append((yield from sock.recv()))
            assert got == [b"1", b"2"]

    got = []
    assert cancel_everywhere(scenario, pairs=True) > 5


def test_senders_and_openers_cancelled_at_every_step_leave_nothing():
    def work(address):
        with (yield from open_udp(*address)) as sock:
            yield from sock.sendto(b"x", address)
            yield from sock.send(b"x")

    def scenario():
        with (yield from open_udp(local=LOCAL)) as sock:
            yield from survivors([spawn(work, sock.local) for _ in range(30)])

    assert cancel_everywhere(scenario, every=1 if FULL else 10) > 10


def test_who_sends_for_ever_gives_way_now_and_then(far):
    def sender(sock):
        while True:
            yield from sock.sendto(b"x", far.getsockname())

    def main():
        with (yield from open_udp()) as sock:
            task = spawn(sender, sock)
            for _ in range(5):
                yield
            yield from task.stop()

    run(main)


def test_who_opens_for_ever_gives_way_now_and_then():
    def opener():
        while True:
            (yield from open_udp()).close()

    def main():
        task = spawn(opener)
        for _ in range(5):
            yield
        yield from task.stop()

    run(main)


@pytest.mark.parametrize("most", [10, 65535])
def test_who_receives_for_ever_gives_way(far, most):
    def receiver(sock):
        while True:
            yield from sock.recv(most)
            received.append(turn())

    def main():
        with (yield from open_udp(local=LOCAL)) as sock:
            for _ in range(200):
                far.sendto(b"x", sock.local)
            task = spawn(receiver, sock)
            while len(received) < 200:
                yield
            yield from task.stop()

    received = []
    run(main)
    assert max(Counter(received).values()) <= BUDGET
    assert len(set(received)) < 50  # what has come already is mostly received without a wait


def test_who_receives_what_comes_now_and_then_seldom_asks_in_vain(scripted):
    """One datagram at a time: waiting is cheaper than an exception."""
    sock = scripted()

    def main():
        with DatagramSocket(sock) as datagrams:
            receiver = spawn(read, datagrams)
            for _ in range(100):
                sock.far.send(b"x")
                yield
                yield
                yield
            yield from receiver.stop()

    def read(datagrams):
        while True:
            received.append((yield from datagrams.recv()))

    received = []
    run(main)
    assert received == [b"x"] * 100
    assert sock.calls["recvfrom"] <= 100 + 100 // PATIENCE


def test_a_second_receiver_is_refused_also_after_one_that_did_not_wait(far):
    def main():
        with (yield from open_udp(local=LOCAL)) as sock:
            for _ in range(200):
                far.sendto(b"x", sock.local)
            for _ in range(200):
                yield from sock.recv()
            task = spawn(sock.recv, name="one")
            yield
            yield
            with pytest.raises(BusyError, match="task one#"):
                yield from sock.recv()
            yield from task.stop()

    run(main)


def test_a_receiver_that_came_when_another_was_woken_waits_no_more_often_for_it(far):
    def main():
        with (yield from open_udp(local=LOCAL)) as sock:
            set_patience(sock, 1)
            task = spawn(sock.recv)
            assert (yield from is_waiting(task))
            far.sendto(b"one", sock.local)
            far.sendto(b"two", sock.local)
            poll(current_scheduler())  # the task is woken, and has not come to it yet
            assert (yield from sock.recv()) == b"two"
            assert task.result == b"one"
            return patience_of(sock)

    assert run(main) == 0


@pytest.mark.parametrize("waits", [0, PATIENCE])
def test_a_socket_that_was_closed_refuses_also_who_would_not_wait(far, waits):
    def main():
        sock = yield from open_udp(local=LOCAL)
        far.sendto(b"x", sock.local)
        data, address = yield from sock.recvfrom()
        set_patience(sock, waits)
        sock.close()
        for late in (sock.sendto(data, address), sock.recv(), sock.sendto(data, address)):
            with pytest.raises(ClosedError):
                yield from late

    run(main)


def test_a_socket_that_is_closed_before_a_receiver_that_was_woken_comes_to_it(far):
    def main():
        sock = yield from open_udp(local=LOCAL)
        task = spawn(sock.recv)
        assert (yield from is_waiting(task))
        far.sendto(b"x", sock.local)
        while task.wait is not None:
            poll(current_scheduler())
        sock.close()
        with pytest.raises(ClosedError):
            yield from task

    run(main)


def test_an_answer_that_fails_says_so(scripted):
    sock = scripted(connected=False, sendto=[errno.EPERM])

    def main():
        with DatagramSocket(sock) as datagrams:
            sock.far.send(b"question")
            question, address = yield from datagrams.recvfrom()
            with pytest.raises(PermissionError):
                yield from datagrams.sendto(question, address)
            yield from datagrams.sendto(question, address)
            return sock.far.recv(100)

    assert run(main) == b"question"


def test_a_receiver_that_gives_way_is_still_the_only_one(far):
    def main():
        with (yield from open_udp(local=LOCAL)) as sock:
            for _ in range(20):
                far.sendto(b"x", sock.local)
            for _ in range(15):  # by then nothing is waited for
                yield from sock.recv()
            set_budget(current_scheduler(), 1)
            task = spawn(sock.recv, name="one")
            yield
            with pytest.raises(BusyError, match="task one#"):
                yield from sock.recv()
            return (yield from task)

    assert run(main) == b"x"


def test_who_answers_for_ever_gives_way_now_and_then(far):
    def main():
        with (yield from open_udp(local=LOCAL)) as sock:
            far.sendto(b"x", sock.local)
            data, address = yield from sock.recvfrom()
            turns = turn()
            for _ in range(3 * BUDGET):
                yield from sock.sendto(data, address)
            return turn() - turns

    assert run(main) >= 2


def test_an_answer_that_finds_no_room_waits_for_it(scripted):
    sock = scripted(connected=False, sendto=[LATE])

    def main():
        with DatagramSocket(sock) as datagrams:
            sock.far.send(b"question")
            question, address = yield from datagrams.recvfrom()
            yield from datagrams.sendto(question, address)
            return sock.far.recv(100)

    assert run(main) == b"question"


def test_a_datagram_waits_until_there_is_room():
    def main():
        sock.fill()
        with DatagramSocket(sock) as datagrams:
            tasks = [spawn(datagrams.send, data) for data in (b"1", b"2", b"3")]
            yield Sleep(10)
            assert [task.state for task in tasks] == ["waiting"] * 3
            steps = current_scheduler().stats()["steps"]
            yield Sleep(1)
            # one waits for the socket, two ask again, not more than twenty times a second
            assert current_scheduler().stats()["steps"] - steps <= 45
            sock.drain()
            for task in tasks:
                yield from task
            sent = set()
            while len(sent) < 3:
                sent.add(sock.far.recv(10))
            return sent

    pair = socket.socketpair(type=socket.SOCK_DGRAM)
    sock = FakeSocket(pair)
    try:
        assert run(main, **virtual_time()) == {b"1", b"2", b"3"}
    finally:
        sock.discard()


def test_one_that_waits_for_room_can_be_cancelled_and_another_takes_its_place():
    def main():
        sock.fill()
        with DatagramSocket(sock) as datagrams:
            first = spawn(datagrams.send, b"1")
            assert (yield from is_waiting(first))
            assert "WriteWait" in repr(first.wait)
            yield from first.stop()
            second = spawn(datagrams.send, b"2")
            assert (yield from is_waiting(second))
            assert "WriteWait" in repr(second.wait)
            third = spawn(datagrams.send, b"3")
            assert (yield from is_waiting(third))
            assert "Sleep" in repr(third.wait)
            datagrams.close()
            for task in (second, third):
                with pytest.raises(ClosedError):
                    yield from task

    sock = FakeSocket(socket.socketpair(type=socket.SOCK_DGRAM))
    try:
        run(main, **virtual_time())
    finally:
        sock.discard()


# Opening ------------------------------------------------------------------------------------------


def test_names_are_looked_up_in_a_thread_and_numbers_are_not(far):
    class Threaded(FakeNetwork):
        def getaddrinfo(self, *args):
            threads.append(threading.current_thread().name)
            return super().getaddrinfo(*args)

    def main(host):
        with (yield from open_udp()) as sock:
            yield from sock.sendto(b"x", (host, far.getsockname()[1]))

    threads = []
    run(main, "127.0.0.1", network=Threaded())
    assert threads == []
    run(main, "name", network=Threaded(hosts={"name": [far.getsockname()]}))
    assert threads == ["MainThread", "corolib-lookup-1"]
    assert far.recv(10) == far.recv(10) == b"x"


def test_the_scope_of_an_address_is_kept(scripted):
    sock = scripted()
    sock.family = socket.AF_INET6
    sent = []
    sock.script(sendto=[Value(None), lambda sock, method, *args: sent.append(args)])
    run(DatagramSocket(sock).sendto, b"x", ("::1", 80))
    run(DatagramSocket(sock).sendto, b"x", ("fe80::1%lo", 80))
    assert sent == [(b"x", ("fe80::1", 80, 0, socket.if_nametoindex("lo")))]


def test_a_socket_without_any_address_is_of_ipv4_or_of_the_family_asked_for():
    def main(**more):
        with (yield from open_udp(**more)) as sock:
            return sock.socket.family, sock.peer

    assert run(main) == (socket.AF_INET, None)
    assert run(lambda: main(family=socket.AF_INET6)) == (socket.AF_INET6, None)


def test_all_addresses_of_this_machine(far):
    def main():
        with (yield from open_udp(local=(None, 0), family=socket.AF_INET)) as sock:
            far.sendto(b"x", ("127.0.0.1", sock.local[1]))
            return sock.local[0], (yield from sock.recv())

    assert run(main) == ("0.0.0.0", b"x")


@pytest.mark.found("N7")
def test_no_address_means_all_of_both_families():
    """And who sends over IPv4 has an address as anywhere else."""

    def main():
        with (yield from open_udp(local=(None, 0))) as server:
            for host in ("127.0.0.1", "::1", "127.0.0.2"):
                with (yield from open_udp(host, server.local[1])) as client:
                    yield from client.send(host.encode())
                    data, address = yield from server.recvfrom()
                    assert (data, address) == (host.encode(), client.local)
                    yield from server.sendto(b"1", address)
                    assert (yield from client.recv()) == b"1"
                    # An address that was written by hand is no less understood.
                    yield from server.sendto(b"2", tuple(address)[:2])
                    if host != "127.0.0.2":  # which it does not say to answer from
                        assert (yield from client.recv()) == b"2"

    run(main)


@pytest.mark.found("N7")
@pytest.mark.parametrize("hosts", [("0.0.0.0", "::"), ("::", "0.0.0.0")])
def test_all_addresses_of_each_family_have_sockets_beside_each_other(hosts):
    def main():
        with (yield from open_udp(local=(hosts[0], 0))) as one:
            with (yield from open_udp(local=(hosts[1], one.local[1]))) as two:
                for sock in (one, two):
                    near = "::1" if ":" in sock.local[0] else "127.0.0.1"
                    with udp(near) as far:
                        far.sendto(b"x", (near, one.local[1]))
                        data, address = yield from sock.recvfrom()
                        assert (data, address) == (b"x", far.getsockname())

    run(main)


@pytest.mark.found("N7")
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_all_addresses_are_not_half_of_them(host):
    """If one family has the port in use, what is asked for is not to be had."""

    def main():
        with (yield from open_udp(local=(host, 0))) as sock:
            with pytest.raises(OSError, match="in use") as caught:
                yield from open_udp(local=(None, sock.local[1]))
            assert caught.value.errno == errno.EADDRINUSE

    run(main)


@pytest.mark.found("N7")
@pytest.mark.parametrize("error", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_where_there_is_no_ipv6_all_addresses_are_those_of_ipv4(scripted, error):
    six = error if error == errno.EAFNOSUPPORT else scripted(bind=error)
    with FakeNetwork(six, hosts={None: [("::", 0), ("0.0.0.0", 0)]}) as network:
        with run(lambda: open_udp(local=(None, 0)), network=network) as sock:
            assert sock.socket.family == socket.AF_INET


# At which address a datagram came -----------------------------------------------------------------

ASKED = [("0.0.0.0", "127.0.0.2"), ("::", "::1"), (None, "127.0.0.2"), (None, "::1")]


@pytest.mark.found("N8")
@pytest.mark.parametrize(("bound", "host"), ASKED)
def test_an_answer_leaves_from_the_address_that_was_asked(bound, host):
    """At once or later: a connected client hears no other."""

    def main():
        with (yield from open_udp(local=(bound, 0))) as server:
            port = server.local[1]
            with (yield from open_udp(host, port)) as client, udp(host) as other:
                yield from client.send(b"now")
                data, address = yield from server.recvfrom()
                assert address.local == client.peer
                yield from server.sendto(data, address)
                assert (yield from client.recv()) == b"now"
                other.sendto(b"", (host, port))
                _, stranger = yield from server.recvfrom()
                yield from server.sendto(b"later", address)
                assert (yield from client.recv()) == b"later"
                # It is an address as any other, and may travel.
                assert (address, address == client.local) == (client.local, True)
                assert {client.local: 1}[address] == 1
                again = pickle.loads(pickle.dumps(address))
                assert (again, again.local) == (address, address.local)
                yield from server.sendto(b"again", again)
                assert (yield from client.recv()) == b"again"
                assert stranger == other.getsockname()

    run(main)


@pytest.mark.found("N8")
def test_a_socket_of_both_families_that_somebody_else_has_opened():
    def main():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        with DatagramSocket(sock) as server:
            with (yield from open_udp("127.0.0.2", server.local[1])) as client:
                yield from client.send(b"x")
                data, address = yield from server.recvfrom()
                assert address.local == client.peer
                yield from server.sendto(data, address)
                return (yield from client.recv())

    assert run(main) == b"x"


@pytest.mark.found("N8")
@pytest.mark.parametrize("most", [2, 3, 4])
def test_what_is_told_of_a_datagram_changes_nothing_of_it(far, most):
    def main():
        with (yield from open_udp(local=("0.0.0.0", 0))) as sock:
            far.sendto(b"abc", ("127.0.0.1", sock.local[1]))
            data, _ = yield from sock.recvfrom(most)
            return data, sock.truncated

    assert run(main) == (b"abc"[:most], most < 3)


@pytest.mark.found("N8")
def test_what_a_group_was_asked_is_answered_from_an_address_of_ours(far):
    def main():
        with (yield from open_udp(local=("0.0.0.0", 0))) as server:
            ours = socket.inet_aton("127.0.0.1")
            request = socket.inet_aton("224.1.2.3") + ours
            server.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
            far.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, ours)
            far.sendto(b"x", ("224.1.2.3", server.local[1]))
            data, sender = yield from server.recvfrom()
            assert (sender, sender.local) == (far.getsockname(), ("127.0.0.1", server.local[1]))
            yield from server.sendto(data, sender)
            yield corolib.ReadWait(far)
            return far.recvfrom(10)[1] == sender.local

    assert run(main)


def note(host, index):
    """Return what the system tells of a datagram of IPv6."""
    data = socket.inet_pton(socket.AF_INET6, host) + struct.pack("=I", index)
    return (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, data)


@pytest.mark.found("N8")
@pytest.mark.parametrize(
    ("come", "local", "gone"),
    [
        (note("fe80::1", 7), ("fe80::1", 9, 0, 7), note("fe80::1", 7)),
        (note("2001:db8::1", 7), ("2001:db8::1", 9, 0, 0), note("2001:db8::1", 0)),
        (note("ff02::1", 7), None, None),  # a group: no answer can leave from there
        (None, None, None),
    ],
    ids=["link-local", "global", "group", "not told"],
)
def test_addresses_of_ipv6_that_this_machine_does_not_have(come, local, gone):
    """The interface belongs to those that each interface has."""
    near = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    near.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    near.bind(("::", 0))
    sender, sent = ("fe80::2", 5, 0, 7), []
    sock = FakeSocket(
        (near, None),
        getsockname=Value(("::", 9, 0, 0)),
        recvmsg=lambda sock, recvmsg, *args: (recvmsg(*args)[0], [come] if come else [], 0, sender),
        sendmsg=lambda sock, sendmsg, *args: sent.append(args),
    )
    sock.family = socket.AF_INET6

    def main():
        with DatagramSocket(sock) as server, udp("::1") as far:
            far.sendto(b"x", near.getsockname())
            data, address = yield from server.recvfrom()
            assert (data, address, address.local) == (b"x", sender, local)
            yield from server.sendto(b"answer", address)

    run(main)
    assert sent == [((b"answer",), (gone,) if gone else (), 0, sender)]


@pytest.mark.found("N8")
def test_what_is_remembered_of_our_addresses_has_a_bound(far):
    """A machine may have a whole network of them."""
    near = udp("0.0.0.0")
    numbers = [n.to_bytes(4, "big") for n in range(3 * packet_info.KNOWN)] * 2
    come = [
        lambda sock, recvmsg, *args, n=n: (recvmsg(*args)[0], [(0, 8, bytes(4) + n + n)], 0, LOCAL)
        for n in numbers
    ]
    sock = FakeSocket((near, far), recvmsg=come)

    def main():
        with DatagramSocket(sock) as server:
            for number in numbers:
                far.sendto(b"x", ("127.0.0.1", near.getsockname()[1]))
                _, address = yield from server.recvfrom()
                assert address.local == (socket.inet_ntoa(number), near.getsockname()[1])
                assert known_addresses(server) <= packet_info.KNOWN

    run(main)


@pytest.mark.parametrize("how", ["no name", "an error"])
def test_where_the_system_does_not_tell_addresses_are_plain(far, how, monkeypatch):
    class Mute(socket.socket):
        def setsockopt(self, *args):
            raise OSError(errno.ENOPROTOOPT, "no such option")

    def main():
        sock = (Mute if how == "an error" else socket.socket)(type=socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", 0))
        with DatagramSocket(sock) as server:
            far.sendto(b"x", ("127.0.0.1", server.local[1]))
            data, address = yield from server.recvfrom()
            assert type(address) is tuple
            yield from server.sendto(data, address)
            return far.recv(10)

    if how == "no name":
        monkeypatch.setattr(packet_info, "IP_PKTINFO", None)
    assert run(main) == b"x"


def test_a_blocking_socket_is_made_one_that_does_not_block():
    with DatagramSocket(socket.socket(type=socket.SOCK_DGRAM)) as sock:
        assert sock.socket.gettimeout() == 0


@pytest.mark.parametrize("args", [("127.0.0.1",), (None, 80)])
def test_a_host_without_a_port_is_refused(args):
    with pytest.raises(TypeError, match=r"open_udp\(host, port\)"):
        run(open_udp, *args)


@pytest.mark.parametrize("local", ["127.0.0.1", ("127.0.0.1", 0, 0)])
def test_a_local_address_without_a_port_is_refused(local):
    with pytest.raises(TypeError, match=r"local=\) got .*: give an address and a port"):
        run(lambda: open_udp(local=local))


def test_an_address_in_use_is_named(far):
    host, port = far.getsockname()
    with pytest.raises(
        OSError, match=rf"cannot receive on 127\.0\.0\.1 port {port}: .* in use\. Another program"
    ) as caught:
        run(lambda: open_udp(local=(host, port)))
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.found("N5")
def test_a_socket_is_not_connected_to_itself():
    """As if the system had chosen the port of the other side, where nobody is, for our own."""

    class Unlucky(FakeNetwork):
        def socket(self, family, kind, proto=0):
            sock = super().socket(family, kind, proto)
            if not opened:
                sock.bind(address)
            opened.append(sock)
            return sock

    def main():
        with (yield from open_udp(*address)) as sock:
            assert sock.peer == address != sock.local
            assert opened[0].fileno() == -1
            yield from sock.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                yield from sock.recv()

    opened = []
    with udp() as sock:
        address = sock.getsockname()
    run(main, network=Unlucky())
    assert len(opened) == 2


def test_who_wants_to_be_connected_to_itself_is():
    def main():
        with udp() as sock:
            address = sock.getsockname()
        with (yield from open_udp(*address, local=address)) as sock:
            yield from sock.send(b"x")
            return (yield from sock.recv())

    assert run(main) == b"x"


def test_the_first_address_is_taken_to_which_there_is_a_way(scripted):
    hosts = {"name": [("2001:db8::1", 80, 0, 0), ("192.0.2.1", 80), ("192.0.2.2", 80)]}
    socks = [errno.EAFNOSUPPORT, scripted(connect=errno.ENETUNREACH), scripted()]
    with FakeNetwork(*socks, hosts=hosts) as network:
        sock = run(open_udp, "name", 80, network=network)
        assert sock.socket is socks[2]
        assert socks[1].closed
        assert socks[2].address == ("192.0.2.2", 80)


def test_failures_of_all_addresses_are_named(scripted):
    hosts = {"name": [("192.0.2.1", 80), ("192.0.2.2", 80)]}
    socks = [scripted(connect=errno.ENETUNREACH) for _ in range(2)]
    with FakeNetwork(*socks, hosts=hosts) as network:
        with pytest.raises(
            OSError, match=r"192\.0\.2\.1 port 80: .*; .*192\.0\.2\.2 port 80: "
        ) as caught:
            run(open_udp, "name", 80, network=network)
        assert caught.value.errno == errno.ENETUNREACH
        assert [exc.__traceback__ for exc in caught.value.__cause__.exceptions] == [None] * 2
        assert all(sock.closed for sock in socks)


def test_datagrams_leave_nothing_for_the_garbage_collector(far, closed_port):
    def scenario():
        with (yield from open_udp(*closed_port, local=LOCAL)) as sock:
            yield from sock.send(b"x")
            try:
                yield from sock.recv()
            except ConnectionRefusedError:
                pass
            try:
                yield from open_udp(local=sock.local)
            except OSError:
                pass
            try:
                yield from open_udp("name", 80)
            except OSError:
                pass

    class Unreachable(FakeNetwork):
        def getaddrinfo(self, host, port, family=0, kind=0, proto=0, flags=0):
            flags = 0 if host in self.hosts else flags
            return super().getaddrinfo(host, port, family, kind, proto, flags)

    hosts = {"name": [("255.255.255.255", 80), ("255.255.255.255", 81)]}
    assert garbage_of(scenario, network=Unreachable(hosts=hosts)) == []


# Unix sockets -------------------------------------------------------------------------------------


def test_unix_datagrams_with_and_without_a_connection(tmp_path):
    def main():
        path = tmp_path / "server"
        with open_unix_datagrams(local=path) as server:
            with open_unix_datagrams(str(path), local=tmp_path / "client") as client:
                assert client.peer == server.local == str(path)
                yield from client.send(b"one")
                data, address = yield from server.recvfrom()
                assert (data, address) == (b"one", client.local)
                yield from server.sendto(b"two", address)
                assert (yield from client.recv()) == b"two"
            with open_unix_datagrams() as stranger:
                assert (stranger.local, stranger.peer) == (None, None)
                yield from stranger.sendto(b"", os.fsencode(path))
                return (yield from server.recvfrom())

    assert run(main) == (b"", None)


def test_unix_datagrams_may_be_longer_than_any_of_udp(tmp_path):
    def main():
        with open_unix_datagrams(local="") as server, open_unix_datagrams() as client:
            yield from client.sendto(bytes(100_000), server.local)
            yield from client.sendto(bytes(100_000), server.local)
            cut = yield from server.recv()
            assert (len(cut), server.truncated) == (65535, True)
            whole = yield from server.recv(2**20)
            assert (len(whole), server.truncated) == (100_000, False)

    run(main)


@pytest.mark.parametrize("connected", [True, False])
def test_a_full_queue_of_a_unix_receiver_is_waited_for(connected):
    def main():
        with open_unix_datagrams(local="") as server:
            with open_unix_datagrams(server.local if connected else None) as client:

                def sender():
                    for n in range(1000):
                        data = n.to_bytes(2, "big")
                        if connected:
                            yield from client.send(data)
                        else:
                            yield from client.sendto(data, server.local)

                task = spawn(sender)
                yield Sleep(60)
                assert task.state == "waiting"
                steps = current_scheduler().stats()["steps"]
                yield Sleep(1)
                # not more than twenty times a second; connected, not at all
                most = 5 if connected else 25
                assert current_scheduler().stats()["steps"] - steps <= most
                got = []
                for _ in range(1000):
                    got.append(int.from_bytes((yield from server.recv()), "big"))
                yield from task
                return got

    assert run(main, **virtual_time()) == list(range(1000))


@pytest.mark.parametrize("address", [(), ("127.0.0.1",), (1, 2), "127.0.0.1", None, ["::1", 80]])
def test_what_is_no_address_is_refused(far, address):
    def main():
        with (yield from open_udp()) as sock:
            yield from sock.sendto(b"x", address)

    with pytest.raises(
        TypeError, match=r"sendto\(\) got .* as the address: give a host and a port"
    ):
        run(main)


@pytest.mark.parametrize("host", ["\udcff", "exa\0mple", "a..b"])
def test_what_can_be_neither_an_address_nor_a_name_is_refused(host):
    def main():
        with (yield from open_udp()) as sock:
            yield from sock.sendto(b"x", (host, 80))

    with pytest.raises((ValueError, socket.gaierror), match=r"cannot be a host|not known"):
        run(main)


@pytest.mark.parametrize(
    ("options", "text", "number"),
    [
        ({"path": "/nowhere"}, "'/nowhere'", errno.ENOENT),
        ({"local": "/nowhere/at/all"}, "'/nowhere/at/all'", errno.ENOENT),
        ({"path": "\0nobody-receives"}, "nobody-receives", errno.ECONNREFUSED),
        ({"path": "x" * 200}, "a path of 200 bytes; .*: 'xxx", errno.ENAMETOOLONG),
        ({"local": "x" * 200}, "a path of 200 bytes; .*: 'xxx", errno.ENAMETOOLONG),
    ],
)
def test_a_unix_socket_that_cannot_be_opened(options, text, number):
    before = open_files()
    with pytest.raises(OSError, match=text) as caught:
        open_unix_datagrams(**options)
    assert caught.value.errno == number
    assert open_files() == before


def test_a_unix_path_in_use(tmp_path):
    with open_unix_datagrams(local=tmp_path / "socket"):
        with pytest.raises(OSError) as caught:
            open_unix_datagrams(local=tmp_path / "socket")
    assert caught.value.errno == errno.EADDRINUSE


# Each call of the system, with each outcome -------------------------------------------------------

ERRORS = [getattr(errno, name) for name in NUMBERS]
ERRORS += [errno.ECONNREFUSED, errno.EMSGSIZE, errno.ENETUNREACH]
TRIED_AGAIN = {errno.EINTR, LATE}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_receiving_with_each_error(scripted, error, times):
    """It is raised, once each; and nothing is lost by it."""

    def main():
        with DatagramSocket(sock) as datagrams:
            sock.far.send(b"hello")
            for _ in range(0 if error in TRIED_AGAIN else times):
                with pytest.raises(OSError) as caught:
                    yield from datagrams.recvfrom()
                assert caught.value.errno == error
            return (yield from datagrams.recvfrom())

    sock = scripted(recvfrom=[error] * times)
    assert run(main) == (b"hello", sock.far.getsockname())
    assert sock.calls["recvfrom"] == times + 1


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["send", "sendto"])
def test_sending_with_each_error(scripted, call, error, times):
    """It is raised, once each, and that datagram was not sent; a later one is."""

    def main():
        with DatagramSocket(sock) as datagrams:

            def send(data):
                return datagrams.send(data) if call == "send" else datagrams.sendto(data, address)

            for _ in range(0 if error in TRIED_AGAIN else times):
                with pytest.raises(OSError) as caught:
                    yield from send(b"lost")
                assert caught.value.errno == error
            yield from send(b"hello")
            assert sock.calls[call] == times + 1
            return now() - before

    sock = scripted(call == "send", **{call: [error] * times})
    address = sock.far.getsockname()
    before = 0
    took = run(main, **virtual_time())
    # woken in vain more than once, it asks again after pauses: 1 ms, 2 ms, 4 ms and so on; and who
    # passes over a want of memory does not spin
    expected = {1: 0, 2: 0.001, 5: 0.015}[times] if error in TRIED_AGAIN else 0
    if error in SHORTAGE:
        expected = PAUSE * times
    assert took == pytest.approx(expected)
    assert sock.far.recv(10) == b"hello"
    with pytest.raises(BlockingIOError):
        sock.far.recv(10)


@pytest.mark.parametrize(
    ("outcome", "got", "truncated"),
    [(WELL, b"hello", False), (ONE, b"h", False), (SHORT, b"hello", False)],
)
def test_receiving_less_than_was_asked_for(scripted, outcome, got, truncated):
    """A datagram is what the system says it is. (Less than what is there it never says.)"""

    def main():
        with DatagramSocket(sock) as datagrams:
            sock.far.send(b"hello")
            return (yield from datagrams.recv()), datagrams.truncated

    sock = scripted(recvfrom=outcome)
    assert run(main) == (got, truncated)


@pytest.mark.parametrize("call", ["recv", "recvfrom", "send", "sendto"])
def test_a_socket_that_was_closed_meanwhile(scripted, call):
    def main():
        datagrams = DatagramSocket(sock)
        sock.far.send(b"hello")
        address = sock.far.getsockname()
        args = {"send": (b"x",), "sendto": (b"x", address)}.get(call, ())
        with pytest.raises(OSError) as caught:
            yield from getattr(datagrams, call)(*args)
        assert caught.value.errno == errno.EBADF
        with pytest.raises(ClosedError):
            yield from getattr(datagrams, call)(*args)

    sock = scripted(**{"recvfrom" if call == "recv" else call: CLOSED})
    run(main)


def test_the_other_side_has_gone(scripted):
    """Its last datagram is still received; the complaint comes after the next that is sent."""

    def main():
        with DatagramSocket(sock) as datagrams:
            sock.far.send(b"last")
            got = yield from datagrams.recv()
            yield from datagrams.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                yield from datagrams.recv()
            return got

    sock = scripted(recvfrom=GONE)
    assert run(main) == b"last"


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["socket", "bind", "connect"])
def test_opening_with_each_error(scripted, call, error):
    """It is raised as it is, with the address; the socket is closed."""
    sock = error if call == "socket" else scripted(**{call: error})
    with FakeNetwork(sock) as network:
        with pytest.raises(OSError, match=r"cannot .* 127\.0\.0\.[12] port 8[01]: ") as caught:
            run(lambda: open_udp("127.0.0.1", 80, local=("127.0.0.2", 81)), network=network)
        assert caught.value.errno == error
        assert call == "socket" or sock.closed


def test_a_socket_that_cannot_be_made_at_all():
    with pytest.raises(OSError, match="cannot open a socket: Too many open files"):
        run(open_udp, network=FakeNetwork(errno.EMFILE))
