"""Every way in which a connection may end, with TLS and without: what is left, counted and said."""

import os
import signal
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from corolib import (
    Cancelled,
    Event,
    Sleep,
    Stream,
    current_task,
    listen_tcp,
    move_on_after,
    open_signal_receiver,
    open_tcp,
    run,
    spawn,
    timeout,
)
from corolib.testing import virtual_time
from tests.helpers.certificates import RENEWED
from tests.helpers.driving import echo, turn, until
from tests.helpers.garbage import everything, garbage_of
from tests.helpers.inside import file_of, sockets_of
from tests.helpers.sockets import fill, make_streams, reset

LOCAL = "127.0.0.1"
LONG_HELLO = b"\x16\x03\x01\x02\x00\x01\x00"  # how a ClientHello begins


def dial(server):
    """Return a stream that is connected to a server: blocking until here."""
    sock = socket.create_connection(server.listener.addresses[0])
    sock.setblocking(False)
    return Stream(sock)


def wire_of(stream):
    """Return the socket of a stream, with TLS or without."""
    file = file_of(stream)
    return file if isinstance(file, socket.socket) else file_of(file)


# What a client does, when it is connected: `stream` has agreed on TLS, if that is to be.


def ends_in_order(stream):
    yield from stream.sendall(b"hello")
    yield from stream.recv(9)
    yield from stream.aclose()


def closes(stream):
    yield from stream.sendall(b"hello")
    stream.close()


def closes_in_the_middle(stream):
    yield from stream.sendall(bytes(5_000_000))


def half_closes(stream):
    yield from stream.sendall(b"hello")
    yield from stream.send_eof()
    while (yield from stream.recv(9)):
        pass


def resets(stream):
    yield from stream.sendall(b"hello")
    yield from stream.recv(9)
    reset(wire_of(stream))


def cuts(stream):
    yield from stream.sendall(b"hello")
    yield from stream.recv(9)
    wire_of(stream).shutdown(socket.SHUT_WR)
    while (yield from stream.recv(9)):
        pass


def sends_garbage(stream):
    wire_of(stream).send(b"\x17\x03\x03\x00\x05abcde and more")
    while (yield from stream.recv(9)):
        pass


def waits(stream):
    while (yield from stream.recv(9)):
        pass


def drips(stream):
    while True:
        yield from stream.sendall(b"x")
        yield from stream.recv(9)
        yield Sleep(5)


def sends_a_long_line(stream):
    yield from stream.sendall(bytes(1000))
    yield from waits(stream)


# What the server's handler does.


def fails(stream):
    yield from stream.recv(9)
    raise KeyError


def is_cancelled(stream):
    current_task().cancel()
    yield from stream.recv(9)


def gives_up(stream):
    with timeout(1):
        yield from stream.recv(9)


def reads_a_line(stream):
    yield from stream.readline()


def sends_much(stream):
    yield from stream.sendall(bytes(5_000_000))


def reads_and_sends(stream):
    spawn(stream.sendall, bytes(5_000_000))
    yield from stream.recv(9)


def returns(stream):
    yield from stream.sendall(b"bye")


def has_a_child(stream):
    spawn(echo, stream)
    yield from stream.more()


ENDS = {
    "in order": (echo, ends_in_order),
    "closed": (echo, closes),
    "closed in the middle": (echo, closes_in_the_middle),
    "half-closed": (echo, half_closes),
    "reset": (echo, resets),
    "cut": (echo, cuts),
    "garbage": (echo, sends_garbage),
    "handler failed": (fails, ends_in_order),
    "handler cancelled": (is_cancelled, waits),
    "handler gave up": (gives_up, waits),
    "handler returned": (returns, waits),
    "handler returned, client lingers": (returns, lambda stream: iter([Sleep(30)])),
    "line too long": (reads_a_line, sends_a_long_line),
    "not read, then closed": (sends_much, lambda stream: iter([Sleep(1)])),
    "not read, then reset": (sends_much, resets),
    "reset beside a writer": (reads_and_sends, resets),
    "idle": (echo, waits),
    "evicted": (echo, waits),
    "too slow": (echo, drips),
    "one too many of its address": (echo, waits),
    "stopped": (echo, waits),
    "a child had it": (has_a_child, resets),
}

OF_TLS = ("garbage",)


def client(server, do, context=None):
    with dial(server) as stream:
        if context is not None:
            yield from stream.start_tls(context, server_hostname="localhost")
        yield from do(stream)


def passed_over(call):
    """Make a call that may fail, for that is what it is for."""
    try:
        yield from call
    except (OSError, EOFError):
        pass


@pytest.mark.found("N13")
@pytest.mark.hazard("H55")
@pytest.mark.parametrize(
    ("end", "version"),
    [
        (end, version)
        for end in ENDS
        for version in (None, "TLSv1_2", "TLSv1_3")
        if version or end not in OF_TLS
    ],
)
def test_however_a_connection_ends_nothing_is_left_in_cycles(server_tls, client_tls, end, version):
    handler, do = ENDS[end]
    if version is not None:
        client_tls.maximum_version = client_tls.minimum_version = ssl.TLSVersion[version]

    def scenario():
        server = listen_tcp(LOCAL, 0).serve(
            handler,
            tls=None if version is None else server_tls,
            idle_timeout=4 if end == "idle" else None,
            max_connections=1 if end == "evicted" else None,
            max_per_address=1 if end == "one too many of its address" else None,
            min_rate=1000 if end == "too slow" else None,
            max_line=100,
            on_error=lambda exc, stream: None,
        )
        call = client(server, do, None if version is None else client_tls)
        task = spawn(passed_over(call))
        if end == "stopped":
            yield Sleep(1)
            yield from server.stop(0)
        if end in ("evicted", "one too many of its address"):
            yield Sleep(1)
            with dial(server):
                yield from until(lambda: server.stats()["accepted"] == 2)
            yield from server.stop(0)
        yield from task
        yield from until(lambda: not server.stats()["open"])
        yield from server.stop(0)
        counted = {
            "evicted": "evicted",
            "too slow": "slow",
            "one too many of its address": "crowded",
        }
        assert end not in counted or server.stats()[counted[end]] == 1

    assert garbage_of(scenario, everything) == []


def says(data, do):
    """Return a client that sends `data` in place of a handshake, and then does `do(stream)`."""

    def client(stream, context):
        yield from stream.sendall(data)
        yield from do(stream)

    return client


def resets_at_once(stream):
    reset(wire_of(stream))
    yield


def agrees(change):
    """Return a client that shakes hands with a context that `change(context)` has spoilt."""

    def client(stream, context):
        change(context)
        yield from stream.start_tls(context, server_hostname="localhost")
        yield from stream.sendall(b"hello")
        yield from waits(stream)

    return client


def speak_tls_1_2(context):
    context.maximum_version = ssl.TLSVersion.TLSv1_2


HANDSHAKES = {
    "HTTP": says(b"GET / HTTP/1.1\r\n\r\n", waits),
    "garbage": says(bytes(100), waits),
    "nothing": says(b"", lambda stream: iter([])),
    "nothing, for long": says(b"", waits),
    "begun and left": says(LONG_HELLO, lambda stream: iter([Sleep(1)])),
    "begun and reset": says(LONG_HELLO, resets_at_once),
    "begun, and no more": says(LONG_HELLO, waits),
    "without a certificate": agrees(lambda context: None),
    "without a certificate, TLS 1.2": agrees(speak_tls_1_2),
    "the server is not trusted": agrees(lambda context: None),
    "refused": agrees(lambda context: None),
    "stopped": says(LONG_HELLO, waits),
}


@pytest.mark.found("N13")
@pytest.mark.hazard("H55")
@pytest.mark.parametrize("kind", HANDSHAKES)
def test_however_a_handshake_fails_nothing_is_left_in_cycles(server_tls, certificate, kind):
    server_tls.verify_mode = ssl.CERT_REQUIRED
    server_tls.load_verify_locations(certificate)

    def scenario():
        server = listen_tcp(LOCAL, 0).serve(
            echo,
            tls=server_tls,
            handshake=4,
            accept=(lambda peer: False) if kind == "refused" else None,
            on_error=lambda exc, stream: None,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if kind != "the server is not trusted":
            context.load_verify_locations(certificate)
        with dial(server) as stream:
            task = spawn(passed_over(HANDSHAKES[kind](stream, context)))
            if kind == "stopped":
                yield Sleep(1)
                yield from server.stop(0)
            yield from task
        yield from until(lambda: not server.stats()["open"])
        yield from server.stop(0)

    assert garbage_of(scenario, everything) == []


@pytest.mark.found("N13")
def test_a_listener_that_was_shut_down_leaves_no_cycles():
    def scenario():
        with listen_tcp(LOCAL, 0) as listener:
            task = spawn(passed_over(listener.accept()))
            yield Sleep(1)
            sockets_of(listener)[0].shutdown(socket.SHUT_RDWR)
            yield from task

    assert garbage_of(scenario, everything) == []


@pytest.fixture
def agreed(server_tls, client_tls):
    """A function that waits until two new streams have agreed on TLS, and returns them.

    The session tickets have been read: what is closed with something unread is reset.
    """

    def agreed():
        near, far = make_streams()
        task = spawn(far.start_tls(server_tls, server_side=True))
        yield from near.start_tls(client_tls, server_hostname="localhost")
        yield from task
        yield from far.sendall(b"x")
        assert (yield from near.recv(9)) == b"x"
        return near, far

    return agreed


# What is counted, and what is said ----------------------------------------------------------------


def outcome(handler, scenario, options=None, **limits):
    """Run `scenario(server)` beside a server; return how many have failed, and how many were gone,
    when all connections have ended.
    """

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler, **limits)
        yield from scenario(server)
        yield from until(lambda: not server.stats()["open"])
        yield from server.stop(0)
        return server.stats()["failed"], server.stats()["reset"]

    return run(main, **(options or {}))


def said(caplog):
    """Return what servers have logged; of long steps, in debug mode, another logger tells."""
    return [each for each in caplog.records if each.name == "corolib.server"]


@pytest.mark.found("N10")
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("how", ["at once", "after a talk", "in a sendall"])
def test_who_leaves_the_block_of_a_connection_has_ended_it_in_order(
    server_tls, client_tls, caplog, version, how
):
    client_tls.maximum_version = client_tls.minimum_version = ssl.TLSVersion[version]

    def handler(stream):
        data = yield from stream.recv(65536)
        if data:
            yield from stream.sendall(data)
            data += yield from stream.recv(9)
        got.append(data)

    def scenario(server):
        address = server.listener.addresses[0]
        with (yield from open_tcp(*address, tls=client_tls, server_hostname="localhost")) as client:
            if how != "at once":
                yield from client.sendall(b"hello")
            if how == "after a talk":
                assert (yield from client.recv(9)) == b"hello"

    got = []
    failed, gone = outcome(handler, scenario, tls=server_tls)
    # When the client is gone before the answer, or the session tickets, the kernel resets.
    assert (failed, gone + len(got)) == (0, 1)
    assert got in ([b"" if how == "at once" else b"hello"], [])
    assert got or how != "after a talk"
    assert said(caplog) == []


@pytest.mark.found("N10")
def test_close_tries_to_send_a_close_notify_and_does_not_wait(agreed):
    """If there is no room for it, the other side learns that the connection was cut off."""

    def main():
        near, far = yield from agreed()
        yield from near.sendall(b"last")
        turns = turn()
        near.close()
        assert turn() == turns
        with far:
            got = (yield from far.recv(9)), (yield from far.recv(9))
        near, far = yield from agreed()
        fill(wire_of(near))
        near.close()
        with far, pytest.raises(ssl.SSLError):
            while (yield from far.recv(65536)):
                pass
        return got

    assert run(main) == (b"last", b"")


@pytest.mark.found("N10")
@pytest.mark.parametrize("size", [1000, 5_000_000])
@pytest.mark.parametrize(
    ("how", "kind"),
    [
        *(("closed", "bytes"), ("closed", "buffers"), ("cancelled", "bytes")),
        *(("cancelled", "buffers"), ("cancelled", "file"), ("resumed", "bytes")),
        *(("resumed", "buffers"), ("resumed", "file")),
    ],
)
def test_what_was_sent_in_part_does_not_end_in_order(agreed, tmp_path, size, how, kind):
    """The other side would take it for the whole."""
    data = os.urandom(size)
    path = tmp_path / "data"
    path.write_bytes(data)

    def send(near, begin):
        if kind == "file":
            with path.open("rb") as file:
                yield from near.sendfile(file, begin)
        else:
            rest = data[begin:]
            yield from near.sendall(rest if kind == "bytes" else [rest[:500], rest[500:]])

    def first(near):
        try:
            yield from send(near, 0)
        except (OSError, Cancelled) as exc:
            sent.append(exc.bytes_sent)

    def read(far):
        while part := (yield from far.recv(65536)):
            got.append(part)

    def main():
        near, far = yield from agreed()
        task = spawn(first, near)
        yield
        reader = spawn(read, far)
        if how != "closed":
            yield from task.stop()
            if how == "resumed" and sent:
                yield from send(near, sent[0])
            # All output leaves, while somebody reads.
            whole = size if how == "resumed" or not sent else sent[0]
            receiver = spawn(near.recv, 1)
            yield from until(lambda: sum(map(len, got)) == whole)
            yield from receiver.stop()
        near.close()
        yield from task.stop()
        with far:
            yield from reader

    sent, got = [], []
    if size == 1000 or how == "resumed":
        run(main)
        assert b"".join(got) == data
    else:
        with pytest.raises(ssl.SSLEOFError, match="cut off"):
            run(main)


@pytest.mark.found("N10")
@pytest.mark.parametrize("secure", [False, True])
def test_a_server_that_lets_a_client_go_between_two_messages_says_so(
    server_tls, client_tls, secure
):
    """By an idle limit, or a stop."""

    def scenario(server):
        for kind in (b"idle", b"stop"):
            with dial(server) as client:
                # Its kernel says late what has arrived.
                client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
                if secure:
                    yield from client.start_tls(client_tls, server_hostname="localhost")
                yield from client.sendall(kind)
                if kind == b"stop":
                    yield from until(lambda: len(seen) == 2)
                    spawn(server.stop(0))
                assert (yield from client.readexactly(5)) == b"whole"
                assert (yield from client.recv(9)) == b""

    def handler(stream):
        while (yield from stream.more()):
            seen.append((yield from stream.recv(9)))
            yield from stream.sendall(b"whole")

    seen = []
    tls = server_tls if secure else None
    assert outcome(handler, scenario, virtual_time(), tls=tls, idle_timeout=0.2) == (0, 0)


def fails_half_way(stream):
    raise KeyError
    yield


def is_cancelled_half_way(stream):
    current_task().cancel()
    yield


def gives_up_half_way(stream):
    """It returns, but has not sent all."""
    with move_on_after(0.05):
        yield from stream.sendall(bytes(20_000_000))


def has_a_child_that_fails_half_way(stream):
    spawn(fails_half_way, stream)
    yield


def is_idle_half_way(stream):
    yield from stream.recv(9)


@pytest.mark.found("N10")
@pytest.mark.hazard("H74")
@pytest.mark.parametrize(
    "ends",
    [
        *(fails_half_way, is_cancelled_half_way, gives_up_half_way, is_idle_half_way),
        has_a_child_that_fails_half_way,
    ],
)
def test_what_a_handler_has_sent_before_it_failed_is_not_taken_for_all(
    server_tls, client_tls, ends
):
    """Each `sendall()` is whole; the answer is not."""

    def handler(stream):
        yield from stream.recv(9)
        yield from stream.sendall(b"half of the answer")
        yield from ends(stream)

    def scenario(server):
        with dial(server) as client:
            yield from client.start_tls(client_tls, server_hostname="localhost")
            yield from client.sendall(b"ask")
            got.append((yield from client.recv(18)))
            yield Sleep(0.1)
            with pytest.raises(ssl.SSLEOFError, match="cut off"):
                while (yield from client.recv(65536)):
                    pass

    got = []
    idle = 1 if ends is is_idle_half_way else None
    outcome(handler, scenario, tls=server_tls, idle_timeout=idle, on_error=lambda *_: 0)
    assert got == [b"half of the answer"]


@pytest.mark.hazard("H74")
@pytest.mark.parametrize(
    ("reads", "resets", "ends"), [(9, False, b""), (1, False, "reset"), (9, True, "reset")]
)
def test_over_tcp_a_failed_handler_ends_as_one_that_returns_unless_it_resets(reads, resets, ends):
    """What it has sent before is there in any case: the client has taken it meanwhile."""

    def handler(stream):
        yield from stream.recv(reads)
        yield from stream.sendall(b"what has failed")
        yield from taken.wait()
        if resets:
            stream.reset()
        raise ValueError("bad luck")

    def scenario(server):
        with dial(server) as client:
            yield from client.sendall(b"ask")
            got.append((yield from client.recv(100)))
            taken.set()
            try:
                got.append((yield from client.recv(100)))
            except ConnectionResetError:
                got.append("reset")

    got, taken = [], Event()
    outcome(handler, scenario, on_error=lambda *_: 0)
    assert got == [b"what has failed", ends]


@pytest.mark.found("N10")
@pytest.mark.hazard("H74")
def test_what_a_handler_has_sent_before_the_run_was_over_is_not_taken_for_all(
    server_tls, client_tls
):
    def handler(stream):
        yield from stream.sendall(b"half of the answer")
        asked.wait()
        raise SystemExit(7)

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler, tls=server_tls)
        client.submit(ask, server.listener.addresses[0]).add_done_callback(answers.append)
        yield from server

    def ask(address):
        with socket.create_connection(address) as sock:
            with client_tls.wrap_socket(
                sock, server_hostname="localhost", suppress_ragged_eofs=False
            ) as secure:
                got = secure.recv(100)
                asked.set()
                return got, secure.recv(100)

    asked, answers = threading.Event(), []
    with ThreadPoolExecutor(1) as client:
        with pytest.raises(SystemExit, match="7"):
            run(main)
    (answer,) = answers
    with pytest.raises(ssl.SSLEOFError):
        answer.result()


@pytest.mark.found("N10")
@pytest.mark.parametrize("fails", [False, True])
def test_who_leaves_the_block_of_a_connection_by_an_exception_has_not_ended_it_in_order(
    server_tls, client_tls, fails
):
    def handler(stream):
        try:
            while data := (yield from stream.recv(65536)):
                got.append(data)
                yield from stream.sendall(b"got it")
            got.append(b"all")
        except ssl.SSLEOFError:
            got.append(b"cut off")

    def scenario(server):
        address = server.listener.addresses[0]
        try:
            with (yield from open_tcp(*address, tls=client_tls, server_hostname="localhost")) as c:
                yield from c.sendall(b"half of it")
                yield from c.recv(9)
                if fails:
                    raise KeyError
        except KeyError:
            pass

    got = []
    outcome(handler, scenario, tls=server_tls)
    assert got == [b"half of it", b"cut off" if fails else b"all"]


@pytest.mark.found("N10")
def test_health_checks_and_other_clients_that_leave_are_counted_and_nobody_is_warned(
    server_tls, client_tls, caplog
):
    def scenario(server):
        dial(server).close()
        with dial(server) as client:
            yield from client.sendall(LONG_HELLO)
        with dial(server) as client:
            yield from client.sendall(LONG_HELLO)
            reset(wire_of(client))
        with dial(server) as client:
            yield from client.start_tls(client_tls, server_hostname="localhost")
            yield from passed_over(cuts(client))

    def ends(stream):
        while (yield from stream.recv(9)):
            yield from stream.sendall(b"hello")

    assert outcome(ends, scenario, tls=server_tls) == (0, 4)
    assert said(caplog) == []


@pytest.mark.found("N10")
def test_what_another_connection_of_the_handlers_ends_with_is_a_failure(
    server_tls, client_tls, caplog
):
    """A backend that cuts a connection off is none of the peers of this server."""

    def handler(stream):
        with dial(backend[0]) as client:
            yield from client.start_tls(client_tls, server_hostname="localhost")
            while (yield from client.recv(9)):
                pass

    def cutting(stream):
        wire_of(stream).shutdown(socket.SHUT_WR)
        yield from stream.more()

    def scenario(server):
        backend.append(listen_tcp(LOCAL, 0).serve(cutting, tls=server_tls))
        with dial(server) as client:
            assert (yield from client.recv(9)) == b""
        yield from backend[0].stop(0)

    backend = []
    assert outcome(handler, scenario) == (1, 0)
    assert "SSLEOFError" in caplog.text


@pytest.mark.found("N11")
def test_an_alert_that_comes_when_all_was_sent_is_said_in_one_line(
    server_tls, client_tls, certificate, caplog
):
    def bad(client):
        while (yield from client.recv(9)):
            pass
        wire_of(client).send(b"\x15\x03\x03\x00\x02\x02\x28 an alert without encryption")
        yield Sleep(0.01)

    def scenario(server):
        with dial(server) as client:
            yield from client.start_tls(client_tls, server_hostname="localhost")
            yield from bad(client)

    assert outcome(returns, scenario, tls=server_tls) == (1, 0)
    assert [(each.levelname, each.exc_info) for each in said(caplog)] == [("WARNING", None)]


# A new certificate --------------------------------------------------------------------------------


def test_a_certificate_is_renewed_on_a_signal_and_no_connection_is_lost(
    server_tls, certificate, tmp_path
):
    """A context is asked at each handshake: connections that are open keep what they have."""
    renewed = tmp_path / "renewed.pem"
    renewed.write_text(RENEWED)
    client_tls = ssl.create_default_context(cafile=certificate)
    client_tls.load_verify_locations(renewed)

    def reload():
        with open_signal_receiver(signal.SIGHUP) as received:
            while True:
                yield from received
                server_tls.load_cert_chain(renewed)
                reloaded.set()

    def scenario(server):
        reloading = spawn(reload)
        yield
        clients = []
        for _ in range(2):
            client = dial(server)
            yield from client.start_tls(client_tls, server_hostname="localhost")
            clients.append(client)
            os.kill(os.getpid(), signal.SIGHUP)
            yield from reloaded.wait()
        for client in clients:
            yield from client.sendall(b"hello")
            assert (yield from client.recv(9)) == b"hello"
            serials.append(client.tls.getpeercert()["serialNumber"])
            yield from client.aclose()
        yield from reloading.stop()

    serials, reloaded = [], Event()
    assert outcome(echo, scenario, tls=server_tls) == (0, 0)
    assert serials == ["01", "02"]
