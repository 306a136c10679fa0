"""Servers of datagrams: whom they answer and whom not, what they survive, and how they stop."""

import errno
import logging
import math
import signal
import socket
from collections import Counter

import pytest

import corolib
from corolib import (
    BusyError,
    ClosedError,
    DatagramServer,
    DatagramSocket,
    Event,
    Scheduler,
    Sleep,
    TaskCancelled,
    current_scheduler,
    current_task,
    listen_tcp,
    move_on_after,
    now,
    open_udp,
    open_unix_datagrams,
    run,
    serve_udp,
    shield,
    spawn,
)
from corolib.net.datagram_servers import FRAME, SOURCES
from corolib.net.limits import RATE
from corolib.testing import cancel_everywhere, virtual_time
from tests.helpers.driving import FULL, strike, until
from tests.helpers.driving import echo as stream_echo
from tests.helpers.faults import FakeSocket
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import counted_sources, question_counts
from tests.helpers.sockets import can_forge, forge

LOCAL = ("127.0.0.1", 0)
STRANGER = ("192.0.2.1", 5000)


def echo(data, sender):
    return data


def shout(data, sender):
    yield Sleep(0.1)
    return data.upper()


async def whisper(data, sender):
    await Sleep(0.1)
    return data.lower()


def served(scenario, handler=echo, local=LOCAL, **limits):
    """Run a scenario with a server, and return what it returns; the time is virtual."""

    def main():
        server = (yield from open_udp(local=local)).serve(handler, **limits)
        found = yield from scenario(server)
        yield from server.stop(grace=0)
        return found

    return run(main, **virtual_time())


def ask(server, data=b"x"):
    """Ask once, as somebody new; return the answer, None if there is none for two seconds."""
    with (yield from open_udp("127.0.0.1", server.sock.local[1])) as client:
        yield from client.send(data)
        with move_on_after(2):
            return (yield from client.recv())


class Asked:
    """A UDP socket to which datagrams come from wherever one likes; what is sent is kept.

    `with Asked() as asked:`; `asked.by(address, data)` lets one come.
    """

    def __init__(self, **scripts):
        near = socket.socket(type=socket.SOCK_DGRAM)
        near.bind(LOCAL)
        self.far = socket.socket(type=socket.SOCK_DGRAM)
        self.far.connect(near.getsockname())
        self.senders, self.sent = [], []
        self.sock = FakeSocket((near, self.far), **scripts)
        self.sock.script(recvfrom=[self.receive] * 50_000, sendto=[self.keep] * 50_000)
        self.sock.script(**scripts)

    def receive(self, sock, method, *args):
        data, _ = method(*args)
        return data, self.senders.pop(0)

    def keep(self, sock, method, data, address):
        self.sent.append((data, address))

    def by(self, address, data=b"x"):
        self.senders.append(address)
        self.far.send(data)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.sock.discard()


def asked_by(datagrams, handler=echo, **limits):
    """Return what a server sends when datagrams come from these addresses, and its counts."""

    def main():
        server = DatagramSocket(asked.sock).serve(handler, **limits)
        for address, data in datagrams:
            asked.by(address, data)
            yield Sleep(0.001)
        yield Sleep(1)
        yield from server.stop()
        return asked.sent, server.stats()

    with Asked() as asked:
        return run(main, **virtual_time())


# Handlers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "answer"),
    [
        (echo, b"Hello"),
        (shout, b"HELLO"),
        (whisper, b"hello"),
        (lambda data, sender: bytearray(data), b"Hello"),
        (lambda data, sender: memoryview(data)[1:], b"ello"),
        (lambda data, sender: None, None),
    ],
    ids=["function", "generator", "async", "bytearray", "memoryview", "nothing"],
)
def test_a_handler_is_an_ordinary_function_or_one_that_waits(handler, answer):
    assert served(lambda server: ask(server, b"Hello"), handler) == answer


def test_a_handler_is_told_who_has_sent_what():
    def handler(data, sender):
        told.append((data, sender))

    def scenario(server):
        with (yield from open_udp(*server.sock.local)) as client:
            for data in (b"", bytes(65507)):
                yield from client.send(data)
                yield Sleep(0.1)
            assert told == [(b"", client.local), (bytes(65507), client.local)]

    told = []
    served(scenario, handler)


def test_handlers_that_wait_keep_nobody_waiting():
    def handler(data, sender):
        yield Sleep(int(data))
        return data

    def scenario(server):
        with (yield from open_udp(*server.sock.local)) as client:
            for data in (b"3", b"1", b"2"):
                yield from client.send(data)
            got = []
            for _ in range(3):
                got.append((yield from client.recv()))
            assert now() == pytest.approx(3)
            return got, server.stats()["waiting"]

    assert served(scenario, handler) == ([b"1", b"2", b"3"], 0)


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
@pytest.mark.parametrize("handler", [echo, shout])
def test_an_answer_leaves_from_where_it_was_asked(host, handler):
    def scenario(server):
        with (yield from open_udp(host, server.sock.local[1])) as client:
            yield from client.send(b"X")
            return (yield from client.recv())

    assert served(scenario, handler, local=(None, 0)) == b"X"


def test_over_unix_sockets(tmp_path):
    def scenario():
        server = open_unix_datagrams(local=tmp_path / "server").serve(echo)
        with open_unix_datagrams(tmp_path / "server") as nobody:
            yield from nobody.send(b"who could answer me?")
        with open_unix_datagrams(tmp_path / "server", local="") as client:
            yield from client.send(b"x")
            answer = yield from client.recv()
        counts = server.stats()
        yield from server.stop()
        return answer, counts["received"], counts["answered"], counts["withheld"]

    assert run(scenario) == (b"x", 2, 1, 1)


# Whom it answers ----------------------------------------------------------------------------------


@pytest.mark.found("D1")
@pytest.mark.parametrize("handler", [echo, lambda data, sender: iter_of(data)])
def test_services_of_one_run_do_not_answer_each_other_nor_themselves(handler):
    """A datagram that is forged to come from one of them gets no answer."""

    def main():
        one = (yield from open_udp(local=LOCAL)).serve(handler)
        two = (yield from open_udp(local=LOCAL)).serve(echo)
        for sock in (one.sock, two.sock):
            yield from sock.sendto(b"x", one.sock.local)
        yield Sleep(1)
        counts = [server.stats() for server in (one, two)]
        assert [each["received"] for each in counts] == [2, 0]
        assert [each["withheld"] for each in counts] == [2, 0]
        # The port of one that is no server any more is as any other.
        port = two.sock.local
        yield from two.stop()
        with (yield from open_udp(*one.sock.local, local=port)) as client:
            yield from client.send(b"hello")
            assert (yield from client.recv()) == b"hello"
        yield from one.stop()

    run(main, **virtual_time())


def iter_of(data):
    """Return an answer later."""
    yield
    return data


@pytest.mark.found("D1")
def test_services_of_a_system_get_no_answer():
    senders = [("127.0.0.1", port) for port in (7, 1023, 1024, 0)]
    sent, counts = asked_by([(sender, b"x") for sender in senders])
    assert sent == [(b"x", ("127.0.0.1", 1024))]
    assert (counts["received"], counts["answered"], counts["withheld"]) == (4, 1, 3)


@pytest.mark.found("D1")
def test_a_protocol_that_tells_answers_from_questions_may_answer_services():
    def main():
        server = DatagramSocket(asked.sock).serve(echo, services=True)
        senders = [("127.0.0.1", 53), server.sock.local, ("127.0.0.1", 0)]
        for sender in senders:
            asked.by(sender)
        yield Sleep(1)
        assert asked.sent == [(b"x", sender) for sender in senders]
        yield from server.stop()

    with Asked() as asked:
        run(main, **virtual_time())


@pytest.mark.found("D1")
@pytest.mark.parametrize("handler", [echo, lambda data, sender: iter_of(data)])
def test_a_service_elsewhere_that_answers_each_answer_is_soon_left_alone(handler):
    """It is one datagram that goes to and fro; when it gets no answer the loop is over."""

    def elsewhere(sock):
        while True:
            data, sender = yield from sock.recvfrom()
            heard[now()] += 1
            yield from sock.sendto(data, sender)

    def scenario(server):
        with (yield from open_udp(local=LOCAL)) as sock:
            task = spawn(elsewhere, sock)
            yield from sock.sendto(b"forged", server.sock.local)
            yield Sleep(60)
            assert sum(heard.values()) == RATE
            counts = server.stats()
            assert (counts["received"], counts["limited"]) == (RATE + 1, 1)
            yield from task.stop()

    heard = Counter()
    served(scenario, handler)


@pytest.mark.found("D1")
def test_each_source_gets_so_many_answers_in_a_second_and_no_more(caplog):
    """A source is an address; over IPv6, where a host has as many as it likes, half of one."""

    def main():
        server = DatagramSocket(asked.sock).serve(handler, rate=3)
        for second in (1, 2):
            handled.clear()
            asked.sent.clear()
            for host in hosts:
                for port in range(2000, 2005):
                    address = (host, port, 0, 0) if ":" in host else (host, port)
                    asked.by(address)
                    yield Sleep(0.001)
            got = Counter(address[0] for _, address in asked.sent)
            assert got == {"192.0.2.1": 3, "192.0.2.2": 3, "2001:db8::1": 3, "2001:db8:0:1::1": 3}
            assert len(handled) == 12
            assert server.stats()["limited"] == second * 18
            yield Sleep(1)
        yield from server.stop()

    def handler(data, sender):
        handled.append(sender)
        return data

    hosts = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8::3%lo"]
    hosts.append("2001:db8:0:1::1")
    handled = []
    with Asked() as asked:
        run(main, **virtual_time())
    assert len(caplog.records) == 2  # the first, and at the end how many were left out
    assert "rate" in caplog.text and "192.0.2.1" in caplog.text


def test_who_only_listens_is_not_limited():
    sent, counts = asked_by([(STRANGER, b"x")] * 300, lambda data, sender: None, rate=1)
    assert (sent, counts["received"], counts["limited"]) == ([], 300, 0)


@pytest.mark.found("D1")
def test_who_asks_often_while_handlers_wait_gets_no_more_answers():
    sent, counts = asked_by([(STRANGER, b"x")] * 10, shout, rate=3)
    assert (len(sent), counts["limited"]) == (3, 7)


def test_a_rate_without_end():
    sent, _ = asked_by([(STRANGER, b"x")] * 300, rate=math.inf)
    assert len(sent) == 300


@pytest.mark.found("D1")
@pytest.mark.parametrize(
    ("sender", "asked", "answered", "amplify", "gets"),
    [
        (STRANGER, 100, 100, 1, True),
        (STRANGER, 100, 101, 1, False),
        (STRANGER, 0, FRAME, 1, True),
        (STRANGER, 0, FRAME + 1, 1, False),
        (STRANGER, 100, 300, 3, True),
        (STRANGER, 100, 301, 3, False),
        (STRANGER, 0, 60_000, math.inf, True),
        (STRANGER, 1, 60_000, math.inf, True),
        (STRANGER, 60_000, 0, 0, True),
        (("2001:db8::1", 5000, 0, 0), 0, 100, 1, False),
        (("127.9.9.9", 5000), 0, 100, 1, True),
        (("::1", 5000, 0, 0), 0, 100, 1, True),
    ],
)
def test_who_may_not_have_asked_gets_no_more_than_was_sent_in_its_name(
    caplog, sender, asked, answered, amplify, gets
):
    datagrams = [(sender, bytes(asked))]
    sent, counts = asked_by(datagrams, lambda *_: bytes(answered), amplify=amplify)
    assert sent == [(bytes(answered), sender)] * gets
    assert counts["withheld"] == (not gets)
    text = f"amplify: an answer of {answered} bytes to a question of {asked} was withheld"
    assert (text in caplog.text) == (not gets)


@pytest.mark.found("D1")
def test_what_is_kept_of_senders_has_a_bound():
    count = SOURCES * (2 if FULL else 1) + 10

    def main():
        server = DatagramSocket(asked.sock).serve(echo)
        most = 0
        for number in range(count):
            asked.by((f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 5000))
            yield
            most = max(most, counted_sources(server))
        while len(asked.sent) < count:
            yield
        assert most == SOURCES
        yield from server.stop()

    with Asked() as asked:
        run(main, **virtual_time())


# What it survives ---------------------------------------------------------------------------------

UNREACHABLE = [("127.0.0.1", 0), ("255.255.255.255", 5000), ("0.0.0.0", 0)]


@pytest.mark.found("N23")
@pytest.mark.parametrize("handler", [echo, shout])
@pytest.mark.parametrize("sender", UNREACHABLE)
def test_an_address_to_which_nothing_can_be_sent_costs_one_answer(handler, sender):
    def main():
        server = DatagramSocket(asked.sock).serve(handler, services=True)
        asked.sock.script(sendto=[])  # it is really sent
        with pytest.raises(OSError):
            asked.sock.near.sendto(b"X", sender)
        asked.by(sender, b"X")
        with (yield from open_udp(local=LOCAL)) as client:
            asked.by(client.local, b"X")
            assert (yield from client.recv()) == b"X"
        counts = server.stats()
        assert (counts["unsent"], counts["answered"], counts["failed"]) == (1, 1, 0)
        yield from server.stop()

    with Asked() as asked:
        run(main, **virtual_time())


@pytest.mark.found("N23")
@pytest.mark.skipif(not can_forge(), reason="this user can forge no datagrams")
@pytest.mark.parametrize("services", [True, False])
def test_a_datagram_from_port_0_ends_nothing(services):
    def scenario(server):
        forge(b"x", ("127.0.0.1", 0), server.sock.local)
        assert (yield from ask(server)) == b"x"
        counts = server.stats()
        return counts["received"], counts["unsent" if services else "withheld"]

    assert served(scenario, services=services) == (2, 1)


@pytest.mark.found("N23")
@pytest.mark.parametrize("call", ["recvfrom", "sendto"])
@pytest.mark.parametrize(
    "error",
    [
        *(errno.ECONNREFUSED, errno.EMSGSIZE, errno.EINVAL, errno.EACCES, errno.EPERM),
        *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOBUFS, errno.ENOMEM, errno.EIO),
        *(errno.EAGAIN, errno.EINTR),
    ],
    ids=errno.errorcode.get,
)
def test_no_error_of_the_system_ends_it(call, error):
    def main():
        server = DatagramSocket(asked.sock).serve(echo)
        working = {"recvfrom": asked.receive, "sendto": asked.keep}[call]
        asked.sock.script(**{call: [error] * 3 + [working] * 10})
        for _ in range(4):
            asked.by(STRANGER)
        yield Sleep(1)
        vain = call == "recvfrom" and error in (errno.EAGAIN, errno.EINTR)
        errors = server.stats()["errors" if call == "recvfrom" else "unsent"]
        assert errors == (0 if vain else 3)
        assert len(asked.sent) == (4 if call == "recvfrom" else 1)
        yield from server.stop()

    with Asked() as asked:
        run(main, **virtual_time())


@pytest.mark.found("N22")
@pytest.mark.parametrize("times", [1, 2, 500])
@pytest.mark.parametrize("error", [errno.EIO, MemoryError()], ids=["EIO", "memory"])
def test_that_nothing_is_received_for_long_is_said_now_and_then(times, error, caplog):
    """A single error may be a complaint about an earlier answer."""

    def main():
        server = DatagramSocket(asked.sock).serve(echo)
        asked.sock.script(recvfrom=[error] * times + [asked.receive] * 10)
        asked.by(STRANGER)
        yield from until(lambda: asked.sent)
        asked.sock.script(recvfrom=[error, asked.receive])
        asked.by(STRANGER)
        yield Sleep(1)
        assert server.stats()["errors"] == times + 1
        yield from server.stop()

    with Asked() as asked:
        run(main, **virtual_time())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == {1: 0, 2: 1, 500: 2}[times]  # and what was left out
    assert all("receiv" in line for line in lines)


def test_an_answer_that_is_too_long_for_a_datagram_is_lost():
    def scenario(server):
        assert (yield from ask(server)) is None
        return server.stats()["unsent"]

    assert served(scenario, lambda data, sender: bytes(70_000)) == 1


def fails(data, sender):
    raise ValueError("bad luck")


def fails_later(data, sender):
    yield
    raise ValueError("bad luck")


def forgets(data, sender):
    return "text"


def forgets_later(data, sender):
    yield
    return "text"


@pytest.mark.parametrize("handler", [fails, fails_later, forgets, forgets_later])
def test_a_failure_concerns_one_datagram_and_is_logged_now_and_then(caplog, handler):
    def scenario(server):
        for _ in range(3):
            assert (yield from ask(server)) is None  # which takes two seconds
            for _ in range(10):
                with (yield from open_udp(*server.sock.local)) as client:
                    yield from client.send(b"x")
        yield Sleep(0.5)
        return server.stats()["failed"]

    assert served(scenario, handler) == 33
    assert len(caplog.records) == 2  # the first, and at the end how many were left out
    record = caplog.records[0]
    assert (record.name, record.levelno) == ("corolib.server", logging.ERROR)
    assert "the handler for 127.0.0.1:" in record.getMessage()
    cause = record.exc_info[1]
    if handler in (fails, fails_later):
        assert isinstance(cause, ValueError)
    else:
        assert "returned 'text'" in str(cause) and "encode" in str(cause)


@pytest.mark.parametrize("handler", [fails, fails_later])
def test_failures_can_be_taken(handler):
    def scenario(server):
        yield from ask(server)

    taken = []
    served(scenario, handler, on_error=lambda exc, sender: taken.append((type(exc), sender[0])))
    assert taken == [(ValueError, "127.0.0.1")]


def test_a_hook_that_fails_is_reported_and_the_server_goes_on():
    def handler(data, sender):
        if data == b"bad":
            raise ValueError
        return data

    def main():
        server = (yield from open_udp(local=LOCAL)).serve(handler, on_error=lambda *_: 1 / 0)
        assert (yield from ask(server, b"bad")) is None
        assert (yield from ask(server, b"good")) == b"good"
        yield from server.stop()

    reported = []
    run(main, on_task_error=lambda task, exc: reported.append(type(exc)), **virtual_time())
    assert reported == [ZeroDivisionError]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("waits", [True, False])
def test_an_exit_in_a_handler_ends_the_run(error, waits):
    def handler(data, sender):
        raise error

    def later(data, sender):
        yield
        raise error

    with pytest.raises(error):
        served(ask, later if waits else handler)


def test_a_handler_that_is_cancelled_answers_nothing():
    def handler(data, sender):
        current_task().cancel()
        yield

    def scenario(server):
        answer = yield from ask(server)
        counts = server.stats()
        return answer, counts["failed"], counts["waiting"]

    assert served(scenario, handler) == (None, 0, 0)


@pytest.mark.parametrize("closes", [True, False])
def test_a_socket_that_is_closed_ends_the_server(closes):
    def main():
        sock = yield from open_udp(local=LOCAL)
        server = sock.serve(echo)
        yield Sleep(1)
        sock.close() if closes else corolib.close(sock.socket)
        return (yield from server), server.stopping.is_set()

    report, stopping = run(main, **virtual_time())
    assert report == (0, ()) and stopping


def test_who_receives_already_is_not_disturbed():
    def main():
        with (yield from open_udp(local=LOCAL)) as sock:
            task = spawn(sock.recv)
            yield
            yield
            server = sock.serve(echo)
            with pytest.raises(BusyError, match="recv#"):
                yield from server
            with pytest.raises(ClosedError):  # the socket was the server's
                yield from task

    run(main)


# How many wait ------------------------------------------------------------------------------------


def test_so_many_handlers_wait_and_no_more():
    """In all, and of one source."""

    def handler(data, sender):
        yield from done.wait()
        return data

    def main():
        server = DatagramSocket(asked.sock).serve(handler, max_waiting=5, max_per_address=2)
        for n in range(1, 5):
            for _ in range(3):
                asked.by((f"192.0.2.{n}", 5000))
                yield Sleep(0.001)
        counts = server.stats()
        assert (counts["received"], counts["waiting"], counts["dropped"]) == (12, 5, 7)
        done.set()
        yield Sleep(1)
        assert Counter(address[0][-1] for _, address in asked.sent) == {"1": 2, "2": 2, "3": 1}
        assert question_counts(server) == {}
        asked.by(("192.0.2.1", 5000))
        yield Sleep(1)
        assert len(asked.sent) == 6
        yield from server.stop()

    done = Event("done")
    with Asked() as asked:
        run(main, **virtual_time())


# Stopping -----------------------------------------------------------------------------------------


def test_a_stop_takes_nothing_new_and_lets_handlers_finish():
    def handler(data, sender):
        assert not server.stopping.is_set()
        yield from server.stopping.wait()
        yield Sleep(3)
        return data

    def main():
        nonlocal server
        server = (yield from open_udp(local=LOCAL)).serve(handler)
        with (yield from open_udp(*server.sock.local)) as client:
            yield from client.send(b"one")
            yield Sleep(1)
            stopping = spawn(server.stop(grace=5))
            yield
            yield from client.send(b"two")
            assert repr(server).endswith("stopping, 1 waiting>")
            report = yield from stopping
            assert now() == 4
            assert (yield from client.recv()) == b"one"
            assert repr(server).endswith("ended, 0 waiting>")
            with pytest.raises(ConnectionRefusedError):
                yield from client.send(b"three")
                yield from client.recv()
        return report

    server = None
    assert run(main, **virtual_time()) == (1, ())


def test_who_is_not_done_after_the_grace_is_cancelled_and_named():
    def handler(data, sender):
        if data == b"shielded":
            with shield():
                yield Sleep(0.5)
            return data
        yield Sleep(1000)

    def main():
        server = (yield from open_udp(local=LOCAL)).serve(handler, grace=2)
        with (yield from open_udp(*server.sock.local)) as client:
            yield from client.send(b"slow")
            yield Sleep(1)
            report = yield from server.stop()
            assert now() == 3
            (each,) = report.cancelled
            assert each.peer == client.local and each.doing == "Sleep(1000.0)"
            assert f"127.0.0.1:{client.local[1]} at {each.where}" in str(report)
            assert report.finished == 0

    run(main, **virtual_time())


@pytest.mark.parametrize("turns", range(4))
def test_a_server_can_be_stopped_at_once(turns):
    def main():
        server = (yield from open_udp(local=LOCAL)).serve(echo)
        for _ in range(turns):
            yield
        report = yield from server.stop()
        assert server.sock.socket.fileno() == -1
        return report

    assert run(main) == (0, ())


def test_a_stop_loses_no_datagram_that_was_read():
    """It comes while the task has been woken, and has not read yet."""

    def main():
        server = (yield from open_udp(local=LOCAL)).serve(echo)
        with (yield from open_udp(*server.sock.local)) as client:
            yield Sleep(1)
            yield from client.send(b"x")
            while server.task.state == "waiting":
                yield
            yield from server.stop()
            return server.stats()["received"], server.stats()["answered"]

    received, answered = run(main)
    assert received == answered


def test_a_cancelled_server_ends_its_handlers():
    def main():
        server = (yield from open_udp(local=LOCAL)).serve(shout)
        with (yield from open_udp(*server.sock.local)) as client:
            yield from client.send(b"x")
            yield Sleep(0.05)
            assert server.stats()["waiting"] == 1
            server.task.cancel("enough")
            with pytest.raises(TaskCancelled):
                yield from server.task
        assert server.stats()["waiting"] == 0
        assert server.sock.socket.fileno() == -1
        assert current_scheduler().tasks == [current_task()]

    run(main, **virtual_time())


def test_handlers_cancelled_at_every_step_leave_nothing():
    def scenario():
        server = (yield from open_udp(local=LOCAL)).serve(shout)
        with (yield from open_udp(*server.sock.local)) as client:
            yield from client.send(b"x")
            yield Sleep(0.05)
            with move_on_after(1):
                yield from client.recv()
        yield from server.stop()

    assert cancel_everywhere(scenario) > 5


def test_a_server_leaves_nothing_for_the_garbage_collector():
    def scenario():
        for handler in (echo, shout, fails, fails_later):
            server = (yield from open_udp(local=LOCAL)).serve(handler, on_error=print)
            with (yield from open_udp(*server.sock.local)) as client:
                yield from client.send(b"x")
                yield Sleep(0.05)
            yield from server.stop()

    assert garbage_of(scenario) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_with_all_other_servers_of_the_run(default_sigint, signum):
    def slow(data, sender):
        yield Sleep(3)
        return data

    def main():
        servers = [listen_tcp("127.0.0.1", 0).serve(stream_echo)]
        clients = []
        for _ in range(2):
            servers.append((yield from open_udp(local=LOCAL)).serve(slow))
            clients.append((yield from open_udp(*servers[-1].sock.local)))
            yield from clients[-1].send(b"x")
            yield from until(lambda: servers[-1].stats()["waiting"])
        begun = now()
        strike(signum)
        try:
            for server in servers:
                reports.append((yield from server))
            assert signum == signal.SIGTERM and reports == [(0, ()), (1, ()), (1, ())]
        except KeyboardInterrupt:
            assert signum == signal.SIGINT
        assert 2.9 < now() - begun <= 3
        for client in clients:
            with client:
                answers.append(client.socket.recv(10))

    answers, reports = [], []
    run(main, **virtual_time())
    assert answers == [b"x", b"x"]


def test_a_run_that_is_cut_short_closes_the_socket():
    def main():
        servers.append((yield from open_udp(local=LOCAL)).serve(shout))
        with (yield from open_udp(*servers[0].sock.local)) as client:
            yield from client.send(b"x")
            yield Sleep(1000)

    servers = []
    scheduler = Scheduler()
    scheduler.spawn(main)
    while not (servers and servers[0].stats()["waiting"]):
        scheduler.turn(0.1)
    scheduler.close()
    assert servers[0].sock.socket.fileno() == -1


def test_a_second_ctrl_c_leaves_no_socket_open(default_sigint, capfd):
    def stubborn(data, sender):
        strike(signal.SIGINT)
        yield Sleep(0)
        strike(signal.SIGINT)
        yield Sleep(1000)

    def main():
        servers.append((yield from open_udp(local=LOCAL)).serve(stubborn, grace=1000))
        with (yield from open_udp(*servers[0].sock.local)) as client:
            yield from client.send(b"x")
            yield Sleep(1000)

    servers = []
    with pytest.raises(KeyboardInterrupt):
        run(main)
    assert servers[0].sock.socket.fileno() == -1
    assert "was abandoned" in capfd.readouterr().err


def test_serve_udp_serves_until_it_is_cancelled():
    def main():
        with (yield from open_udp(local=LOCAL)) as sock:
            address = sock.local
        task = spawn(serve_udp(echo, *address, rate=5))
        yield Sleep(1)
        with (yield from open_udp(*address)) as client:
            yield from client.send(b"x")
            assert (yield from client.recv()) == b"x"
            yield from task.stop()
            assert current_scheduler().tasks == [current_task()]
            with pytest.raises(ConnectionRefusedError):
                yield from client.send(b"x")
                yield from client.recv()

    run(main, **virtual_time())


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "error", "text"),
    [
        ({"rate": 0}, ValueError, r"rate=0\): give a number, at least 1"),
        ({"amplify": -1}, ValueError, r"amplify=-1\): give a number, at least 0"),
        ({"rate": math.nan}, ValueError, "rate=nan"),
        ({"rate": None}, TypeError, r"rate=None\): give a number; math.inf is no limit"),
        ({"rate": True}, TypeError, "rate=True"),
        ({"amplify": "3"}, TypeError, "amplify='3'"),
        ({"max_waiting": 0}, ValueError, "max_waiting"),
        ({"max_per_address": 1.5}, TypeError, "max_per_address"),
        ({"on_error": 1}, TypeError, "on_error=1"),
        ({"grace": "5"}, TypeError, "grace"),
        ({"max_connections": 5}, TypeError, r"did you mean max_waiting=\? Its keywords are rate,"),
    ],
)
def test_limits_that_are_none_are_refused(limits, error, text):
    def main():
        with (yield from open_udp(local=LOCAL)) as sock:
            with pytest.raises(error, match=text):
                sock.serve(echo, **limits)
            assert current_task().children == []

    run(main)


def test_serve_udp_names_its_own_keywords():
    with pytest.raises(
        TypeError, match=r"serve_udp\(\) has no keyword 'hots'; .* are family, rate"
    ):
        run(lambda: serve_udp(echo, "127.0.0.1", 0, hots=1))


def test_what_is_no_handler_is_refused():
    def main():
        with (yield from open_udp(local=LOCAL)) as sock:
            with pytest.raises(TypeError, match="give a function of a datagram and a sender"):
                sock.serve(b"answer")
        with pytest.raises(ClosedError):
            sock.serve(echo)

    run(main)


def test_a_server_needs_a_run():
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(RuntimeError, match="no sch"):
        DatagramSocket(sock).serve(echo)


def test_the_limits_are_seen_in_the_counts():
    def scenario(server):
        assert isinstance(server, DatagramServer)
        assert repr(server) == f"<DatagramServer on {server.place}, serving, 0 waiting>"
        return server.stats()
        yield

    limits = {"rate": 5, "amplify": 2, "services": True, "max_waiting": 7, "max_per_address": 3}
    assert served(scenario, **limits, grace=1).items() >= {**limits, "grace": 1}.items()
