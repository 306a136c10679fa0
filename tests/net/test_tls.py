"""TLS under streams: agreement, both directions at once, ends of every kind, and real programs."""

import errno
import os
import random
import shutil
import socket
import ssl
import tempfile
from subprocess import DEVNULL, PIPE, STDOUT

import pytest

from corolib import (
    BusyError,
    Cancelled,
    ClosedError,
    ReadWait,
    Sleep,
    Stream,
    TaskCancelled,
    TaskGroup,
    WriteWait,
    current_task,
    gather,
    move_on_after,
    open_process,
    run,
    spawn,
    timeout,
)
from corolib.net import tls as tls_module
from corolib.net.streams import CHUNK, IncompleteRead, LimitExceeded
from corolib.net.tls import HELD, RECORDS
from corolib.testing import cancel_everywhere, survivors, virtual_time
from tests.helpers.driving import FULL, turn, until
from tests.helpers.faults import LATE, FakeSocket
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import check_at_rest, disturb, file_of, sender_of, wrapped_by
from tests.helpers.openssl import REQUEST, Peer
from tests.helpers.sockets import reset, tcp_pair

OPENSSL = shutil.which("openssl")
CLOSE_NOTIFY = b"\x15\x03\x03\x00\x13"  # how the record begins that holds it, encrypted by TLS 1.3


@pytest.fixture
def plain(pair):
    """Streams over two connected sockets, still without TLS."""
    with Stream(pair[0]) as near, Stream(pair[1]) as far:
        yield near, far


@pytest.fixture
def agree(server_tls, client_tls):
    """A function that waits until two streams have agreed on TLS; the second is the server."""

    def agree(near, far, **options):
        task = spawn(far.start_tls(server_tls, server_side=True, **options))
        yield from near.start_tls(client_tls, server_hostname="localhost", **options)
        yield from task

    return agree


def read_all(stream):
    chunks = []
    while data := (yield from stream.recv(CHUNK)):
        chunks.append(data)
    return b"".join(chunks)


def over(file):
    file.setblocking(False)
    return Stream(file)


class Wire(socket.socket):
    """A socket that counts calls, and can be told to move less than it could."""

    def __init__(self, sock):
        super().__init__(fileno=sock.detach())
        self.setblocking(False)
        self.calls = []
        self.most = 1 << 30
        self.held = False  # nothing comes
        self.seen = b""

    def recv(self, most):
        if self.held:
            raise BlockingIOError(errno.EAGAIN, "held back")
        self.calls.append("recv")
        data = super().recv(min(most, self.most))
        self.seen += data
        return data

    def send(self, data):
        self.calls.append("send")
        return super().send(memoryview(data)[: self.most])


# Agreement ----------------------------------------------------------------------------------------


def test_every_operation_of_a_stream_works_over_tls(plain, agree):
    near, far = plain
    with tempfile.TemporaryFile() as file:
        file.write(b"from a file")
        file.flush()

        def main():
            assert near.tls is None
            yield from agree(near, far)
            assert near.tls.version() == far.tls.version()
            room = bytearray(4)
            yield from near.sendall([b"line\n", b"until;", b"exactly", b"into"])
            got = [(yield from far.readline()), (yield from far.readuntil(b";"))]
            got += [(yield from far.readexactly(7)), (yield from far.recv_into(room)), bytes(room)]
            yield from near.sendall(b"")
            yield from near.sendall([b"a" * 50_000, b"b" * 50_000])
            got += [(yield from far.readexactly(100_000)) == b"a" * 50_000 + b"b" * 50_000]
            got += [(yield from near.sendfile(file, 5)), (yield from far.recv(100))]
            yield from near.sendall(b"x")
            got += [(yield from far.more()), (yield from far.recv(1))]
            yield from near.send_eof()
            got += [(yield from far.more()), far.ended, (yield from far.recv(1))]
            return got

        assert run(main) == [
            *(b"line\n", b"until;", b"exactly", 4, b"into", True),
            *(6, b"a file", True, b"x", False, True, b""),
        ]


def test_the_two_sides_agree_on_a_protocol_and_the_server_hears_the_name(
    plain, agree, server_tls, client_tls
):
    near, far = plain
    names = []
    server_tls.set_alpn_protocols(["h2", "http/1.1"])
    client_tls.set_alpn_protocols(["spdy", "http/1.1"])
    server_tls.sni_callback = lambda connection, name, context: names.append(name)

    def main():
        yield from agree(near, far)
        return near.tls.selected_alpn_protocol(), far.tls.selected_alpn_protocol(), near.peer

    assert run(main) == ("http/1.1", "http/1.1", "")
    assert names == ["localhost"]


def test_addresses_are_those_of_the_connection_below(server_tls, client_tls, agree):
    near, far = map(over, tcp_pair())

    def main():
        yield from agree(near, far)
        return near.peer == far.local, far.peer == near.local, near.local[0]

    with near, far:
        assert run(main) == (True, True, "127.0.0.1")


def test_a_certificate_that_is_not_trusted_is_refused_and_both_sides_learn_it(plain, server_tls):
    near, far = plain
    errors = []

    def server():
        try:
            yield from far.start_tls(server_tls, server_side=True)
            yield from far.recv(1)
        except ssl.SSLError as exc:
            errors.append(exc)

    def main():
        task = spawn(server)
        said = r"handshake failed: .*self.signed.*; to trust it: tls=ssl.create_default_context\(ca"
        with pytest.raises(ssl.SSLCertVerificationError, match=said):
            yield from near.start_tls(ssl.create_default_context(), server_hostname="localhost")
        yield from task

    run(main)
    assert "ALERT" in errors[0].reason
    assert repr(near) == "<Stream over <TLS closed>>"


def test_a_name_that_the_certificate_does_not_have_is_refused(plain, server_tls, client_tls):
    near, far = plain

    def main():
        task = spawn(far.start_tls(server_tls, server_side=True))
        with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'elsewhere'"):
            yield from near.start_tls(client_tls, server_hostname="elsewhere")
        with pytest.raises(ssl.SSLError):
            yield from task
            yield from far.recv(1)

    run(main)


def test_arguments_that_do_not_go_together_are_refused_and_nothing_has_happened(
    plain, client_tls, server_tls
):
    near, far = plain

    def main():
        with pytest.raises(ValueError, match="checks the name of the server"):
            yield from near.start_tls(client_tls)
        with pytest.raises(ValueError, match="a client got a context for servers: make it by"):
            yield from near.start_tls(server_tls, server_hostname="localhost")
        yield from near.sendall(b"plain")
        return (yield from far.recv(9)), near.tls

    assert run(main) == (b"plain", None)


def test_what_the_errors_of_the_standard_library_are_told_by():
    assert tls_module.WANT_READ == ssl.SSL_ERROR_WANT_READ
    assert tls_module.ZERO_RETURN == ssl.SSL_ERROR_ZERO_RETURN
    assert tls_module.EOF == ssl.SSL_ERROR_EOF


def test_what_the_standard_library_wraps_has_the_methods_that_are_called(client_tls):
    """Its name is a private one."""
    wrapped = wrapped_by(client_tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), False, "localhost"))
    for name in ("do_handshake", "pending", "read", "write"):
        assert callable(getattr(wrapped, name))


@pytest.mark.parametrize("busy", ["recv", "readline", "sendall"])
def test_nobody_else_may_use_the_stream_meanwhile(plain, server_tls, busy):
    near, far = plain
    argument = {"recv": [9], "readline": [], "sendall": [b"x"]}[busy]

    def main():
        task = spawn(far.start_tls(server_tls, server_side=True), name="shaking")
        yield
        yield
        with pytest.raises(BusyError, match="shaking#2"):
            yield from getattr(far, busy)(*argument)
        near.close()
        with pytest.raises(ssl.SSLEOFError, match="the other side sent nothing"):
            yield from task

    run(main)


# Both directions ----------------------------------------------------------------------------------


@pytest.mark.hazard("H73")
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("most", [1 << 30, 5000, 1])
def test_both_sides_send_at_once_through_any_wire(server_tls, client_tls, agree, version, most):
    sizes = {1: 2000, 5000: 500_000} if FULL else {1: 500, 5000: 200_000}
    size = sizes.get(most, 10_000_000 if FULL else 1_000_000)
    data = os.urandom(size)
    client_tls.maximum_version = client_tls.minimum_version = ssl.TLSVersion[version]

    def main():
        wires[0].most = wires[1].most = most
        yield from agree(near, far)
        assert near.tls.version() == version.replace("_", ".")
        got = yield from gather(
            near.sendall(data),
            far.sendall(data),
            near.readexactly(size),
            far.readexactly(size),
        )
        yield from gather(near.aclose(), far.aclose())
        return got

    wires = [Wire(sock) for sock in tcp_pair()]
    near, far = map(Stream, wires)
    with near, far:
        assert run(main) == [None, None, data, data]


def test_a_message_takes_one_recv_and_one_send(agree):
    wires = [Wire(sock) for sock in socket.socketpair()]
    near, far = map(Stream, wires)

    def echo():
        while data := (yield from far.recv(CHUNK)):
            yield from far.sendall(data)

    def main():
        yield from agree(near, far)
        task = spawn(echo)
        for _ in range(3):
            yield from near.sendall(b"x" * 1024)
            yield from near.recv(CHUNK)
        wires[1].calls.clear()
        for _ in range(50):
            yield from near.sendall(b"x" * 1024)
            yield from near.recv(CHUNK)
        calls = list(wires[1].calls)
        yield from task.stop()
        return calls

    with near, far:
        assert run(main) == ["recv", "send"] * 50


@pytest.mark.hazard("H78")
def test_data_that_is_decrypted_already_is_seen_though_the_wire_is_silent(agree):
    wires = [Wire(sock) for sock in socket.socketpair()]
    near, far = map(Stream, wires)
    data = os.urandom(16_384)

    def main():
        yield from agree(near, far)
        yield from near.sendall(data)
        got = yield from far.recv(1)
        wires[1].held = True
        while len(got) < len(data):
            got += yield from far.recv(1)
        return got

    with near, far:
        assert run(main) == data


@pytest.mark.hazard("H78")
def test_several_records_that_came_at_once_are_all_seen(agree):
    wires = [Wire(sock) for sock in socket.socketpair()]
    near, far = map(Stream, wires)

    def main():
        yield from agree(near, far)
        for n in range(10):
            yield from near.sendall(b"%d" % n)
        yield from near.send_eof()
        got = yield from far.recv(3)
        wires[1].held = True
        got += yield from far.recv(100)
        return got, (yield from far.recv(100)), far.ended

    with near, far:
        assert run(main) == (b"0123456789", b"", True)


@pytest.mark.hazard("H78")
def test_what_had_come_when_sending_ended_is_read_without_the_file(agree):
    wires = [Wire(sock) for sock in socket.socketpair()]
    near, far = map(Stream, wires)

    def main():
        yield from agree(near, far)
        yield from near.sendall(b"x")
        yield from far.recv(9)
        for n in range(10):
            yield from near.sendall(b"%d" % n)
        got = yield from far.recv(3)
        yield from far.send_eof()
        wires[1].held = True
        return got + (yield from far.recv(100))

    with near, far:
        assert run(main) == b"0123456789"


def test_who_waits_for_nothing_but_data_waits_as_without_tls(plain, agree):
    near, far = plain

    def main():
        yield from agree(near, far)
        yield from near.sendall(b"x")
        assert (yield from far.recv(9)) == b"x"
        task = spawn(far.recv, 9)
        yield
        yield
        assert isinstance(task.wait, ReadWait)
        with pytest.raises(BusyError, match=rf"task {task.label} .* is reading from it"):
            yield from far.recv(9)
        far.close()
        with pytest.raises(ClosedError):
            yield from task

    run(main)


@pytest.mark.parametrize("reads_first", [True, False])
def test_who_reads_waits_for_both_directions_while_there_is_output(plain, agree, reads_first):
    """What a cancelled sendall() has committed leaves while its task, or another one, reads."""
    near, far = plain
    data = os.urandom(5_000_000)

    def sender():
        try:
            yield from near.sendall(data)
        except Cancelled as exc:
            return exc.bytes_sent

    def main():
        yield from agree(near, far)
        yield from far.sendall(b"x")
        assert (yield from near.recv(9)) == b"x"
        readers = [spawn(near.recv, 9)] if reads_first else []
        task = spawn(sender)
        yield Sleep(0.01)
        sent = yield from task.stop()
        readers += [] if reads_first else [spawn(near.recv, 9)]
        got = yield from far.readexactly(sent)
        yield from far.sendall(b"thanks")
        return got == data[:sent], (yield from readers[0])

    assert run(main) == (True, b"thanks")


@pytest.mark.hazard("H73")
def test_who_must_first_wait_for_another_that_sends_reads_in_both_directions(plain, agree):
    """What is in the way of its wait is a task whose clean-up leaves something to be sent."""
    near, far = plain
    data = os.urandom(5_000_000)
    sent = []

    def sender():
        try:
            yield Sleep(10)
        finally:
            try:
                with timeout(0.1):
                    yield from near.sendall(data)
            except TimeoutError as exc:
                sent.append(exc.bytes_sent)

    def reader():
        try:
            with TaskGroup() as group:
                group.spawn(sender)
                yield
                yield
                raise LookupError
        except LookupError:
            return (yield from near.recv(9))

    def main():
        yield from agree(near, far)
        yield from far.sendall(b"x")
        assert (yield from near.recv(9)) == b"x"
        with timeout(5):
            task = spawn(reader)
            while not sent:
                yield Sleep(0.01)
            got = yield from far.readexactly(sent[0])
            yield from far.sendall(b"thanks")
            return got == data[: sent[0]], (yield from task)

    assert run(main, **virtual_time()) == (True, b"thanks")


def test_a_sendall_may_be_given_up_when_the_run_is_over(plain, agree):
    near, far = plain

    def main():
        yield from agree(near, far)
        sending = near.sendall(bytes(50_000_000))
        for _ in range(100):  # until the wire is full, and longer
            sending.send(None)
        return sending

    run(main).close()


@pytest.mark.hazard("H23")
@pytest.mark.parametrize("how", ["cancelled", "timed out"])
@pytest.mark.parametrize("size", [0, 1, 100_000, 1_000_000])
def test_sending_goes_on_where_bytes_sent_says(plain, agree, how, size):
    near, far = plain
    data = os.urandom(4_000_000)

    def sender():
        try:
            with timeout(1 if how == "timed out" else None):
                yield from near.sendall(data)
        except (Cancelled, TimeoutError) as exc:
            return exc.bytes_sent

    def main():
        yield from agree(near, far)
        task = spawn(sender)
        got = yield from far.readexactly(size)
        yield Sleep(2)
        sent = (yield from task.stop()) or task.result
        assert size <= sent < len(data)
        task = spawn(near.sendall, data[sent:])
        got += yield from far.readexactly(len(data) - size)
        yield from task
        return got == data

    assert run(main, **virtual_time())


def test_a_writer_and_a_reader_may_wait_for_the_same_direction(plain, agree):
    near, far = plain
    data = os.urandom(3_000_000)

    def main():
        yield from agree(near, far)
        task = spawn(near.sendall, data)
        yield Sleep(0.01)
        yield from task.stop()  # some output is left
        reader = spawn(near.recv, 9)
        yield Sleep(0.01)
        writer = spawn(near.sendall, b"more")
        yield from until(lambda: reader.state == writer.state == "waiting")
        rest = spawn(read_all, far)
        yield from writer
        yield from near.send_eof()
        got = yield from rest
        yield from far.sendall(b"thanks")
        return got[-4:], (yield from reader)

    assert run(main) == (b"more", b"thanks")


def test_a_file_below_that_somebody_else_waits_for_is_refused(plain, agree):
    near, far = plain

    def main():
        yield from agree(near, far)
        task = spawn(ReadWait(file_of(file_of(near))).__iter__(), name="other")
        yield Sleep(0.01)  # it gets the tickets' wake-up
        yield from task
        task = spawn(ReadWait(file_of(file_of(far))).__iter__(), name="other")
        yield
        yield
        with pytest.raises(BusyError, match="task other#"):
            yield from far.recv(9)
        yield from task.stop()
        yield from near.sendall(b"x")
        return (yield from far.recv(9))

    assert run(main) == b"x"


def test_a_file_below_that_somebody_else_waits_for_is_refused_in_the_handshake(plain, server_tls):
    far = plain[1]

    def main():
        task = spawn(ReadWait(file_of(far)).__iter__(), name="other")
        yield
        yield
        with pytest.raises(BusyError, match="task other#"):
            yield from far.start_tls(server_tls, server_side=True)
        with pytest.raises(ClosedError):
            yield from task

    run(main)


def test_tls_may_run_over_tls(plain, agree):
    near, far = plain
    data = os.urandom(1_000_000)

    def main():
        yield from agree(near, far)
        yield from agree(near, far)
        got = yield from gather(
            near.sendall(data),
            far.sendall(data),
            near.readexactly(len(data)),
            far.readexactly(len(data)),
        )
        task = spawn(near.recv, 1)
        yield Sleep(0.001)
        near.close()
        with pytest.raises(ClosedError):
            yield from task
        return got, (yield from far.recv(1))

    assert run(main) == ([None, None, data, data], b"")


@pytest.mark.hazard("H27")
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_the_end_of_what_one_side_sends_does_not_end_what_the_other_does(
    plain, agree, client_tls, version
):
    near, far = plain
    client_tls.maximum_version = client_tls.minimum_version = ssl.TLSVersion[version]
    data = os.urandom(1_000_000)

    def server():
        question = yield from read_all(far)
        yield from far.sendall(question + data)
        yield from far.send_eof()

    def main():
        yield from agree(near, far)
        yield from far.sendall(b"hello ")  # still unread when its reader says that it is done
        task = spawn(server)
        yield Sleep(0.001)
        yield from near.sendall(b"question ")
        assert (yield from near.recv(1)) == b"h"
        yield from near.send_eof()
        with pytest.raises(BrokenPipeError):
            yield from near.sendall(b"too late")
        got = yield from read_all(near)
        yield from task
        return got

    assert run(main) == b"ello question " + data


# Ends ---------------------------------------------------------------------------------------------


def proxy(inside, outside, amount):
    """Carry `amount` bytes from one socket to the other, and then cut both connections."""
    got = yield from inside.readexactly(amount)
    yield from outside.sendall(got)
    inside.close()
    outside.close()


@pytest.mark.hazard("H74")
@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("cut", ["between records", "in a record", "in its head"])
def test_a_connection_that_is_cut_off_has_not_ended_in_order(server_tls, client_tls, cut, allowed):
    near, inside = map(over, socket.socketpair())
    outside, far = map(over, socket.socketpair())

    def carry(source, target):
        while data := (yield from source.recv(CHUNK)):
            yield from target.sendall(data)

    def server():
        yield from far.start_tls(server_tls, server_side=True)
        yield from far.sendall(b"whole")
        yield from far.recv(1)
        yield from far.sendall(b"broken off")

    def main():
        spawn(server, daemon=True)
        carriers = [spawn(carry, inside, outside), spawn(carry, outside, inside)]
        yield from near.start_tls(client_tls, server_hostname="localhost", allow_truncation=allowed)
        assert (yield from near.recv(100)) == b"whole"
        yield from carriers[1].stop()
        yield from near.sendall(b"x")
        yield Sleep(0.01)
        amount = {"between records": 0, "in a record": 20, "in its head": 3}[cut]
        spawn(proxy, outside, inside, amount)
        if allowed:
            assert (yield from near.recv(100)) == b""
            assert near.ended
            return
        for _ in range(2):
            with pytest.raises(ssl.SSLEOFError, match="without the close_notify"):
                yield from near.recv(100)
        assert not near.ended

    with near, far, inside, outside:
        run(main, on_task_error=lambda task, exc: None)


@pytest.mark.hazard("H74")
def test_after_a_close_notify_the_end_is_an_end(plain, agree):
    near, far = plain

    def main():
        yield from agree(near, far)
        yield from near.sendall(b"last")
        yield from near.send_eof()
        yield from near.send_eof()
        near.close()
        got = []
        for _ in range(3):
            got.append((yield from far.recv(9)))
        return got

    assert run(main) == [b"last", b"", b""]


@pytest.mark.hazard("H76")
@pytest.mark.parametrize("order", ["server first", "client first", "client does not read"])
def test_tickets_and_ends_in_any_order_lose_nothing(agree, order):
    near, far = map(over, tcp_pair())
    data = os.urandom(1_000_000)

    def server():
        yield from far.sendall(data)
        yield from far.aclose()

    def main():
        yield from agree(near, far)
        if order == "client does not read":  # not even the session tickets
            yield from near.sendall(data)
            task = spawn(near.aclose())
            got = yield from read_all(far)
            yield from far.aclose()
            yield from task
            return got
        task = spawn(server)
        got = yield from near.readexactly(len(data))
        if order == "server first":
            got += yield from near.recv(1)
        yield from near.aclose()
        yield from task
        return got

    with near, far:
        assert run(main) == data


@pytest.mark.parametrize("end", ["garbage", "reset"])
def test_a_connection_that_goes_bad_says_so_every_time(server_tls, client_tls, agree, end):
    near, far = map(over, tcp_pair())

    def main():
        yield from agree(near, far)
        if end == "garbage":
            file_of(file_of(far)).send(b"\x17\x03\x03\x00\x05abcde")
            for _ in range(2):
                with pytest.raises(ssl.SSLError) as caught:
                    yield from near.recv(9)
                assert caught.value.reason
                assert caught.value.library == "SSL"
            with pytest.raises(OSError):
                yield from near.sendall(b"x")
                yield from near.sendall(b"x")
        else:
            reset(file_of(file_of(far)))
            with pytest.raises(ConnectionResetError):
                yield from near.recv(9)

    with near, far:
        run(main)


def test_closing_wakes_who_reads_and_who_sends(plain, agree):
    near, far = plain

    def main():
        yield from agree(near, far)
        tasks = [spawn(near.recv, 9), spawn(near.sendall, bytes(5_000_000))]
        for _ in range(20):  # until the tickets of the handshake have been read
            yield
        with pytest.raises(BusyError, match=r"task recv#\d+ "):
            yield from near.recv(9)
        first = spawn(far.recv, 9, name="first")
        yield
        with pytest.raises(BusyError, match=r"task first#\d+ .* is reading from it"):
            yield from far.recv(9)
        yield from first.stop()
        near.close()
        near.close()
        for task in tasks:
            with pytest.raises(ClosedError):
                yield from task
        for operation in (lambda: near.recv(9), lambda: near.sendall(b"x"), lambda: near.more()):
            with pytest.raises(ClosedError):
                yield from operation()
        assert near.tls is None

    run(main)


# Alerts and key updates ---------------------------------------------------------------------------


@pytest.fixture
def strict_tls(server_tls, certificate):
    """The context of a server that wants to see a certificate of the client."""
    server_tls.verify_mode = ssl.CERT_REQUIRED
    server_tls.load_verify_locations(certificate)
    return server_tls


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_client_may_show_a_certificate(plain, strict_tls, client_tls, certificate, version):
    near, far = plain
    client_tls.load_cert_chain(certificate)
    client_tls.maximum_version = client_tls.minimum_version = ssl.TLSVersion[version]

    def main():
        task = spawn(far.start_tls(strict_tls, server_side=True))
        yield from near.start_tls(client_tls, server_hostname="localhost")
        yield from task
        yield from near.sendall(b"x")
        return dict(far.tls.getpeercert()["subject"][0]), (yield from far.recv(9))

    assert run(main) == ({"commonName": "localhost"}, b"x")


def test_a_client_whose_certificate_is_not_trusted_is_refused(
    plain, server_tls, client_tls, certificate
):
    near, far = plain
    server_tls.verify_mode = ssl.CERT_REQUIRED
    client_tls.load_cert_chain(certificate)
    client_tls.maximum_version = ssl.TLSVersion.TLSv1_2

    def main():
        task = spawn(near.start_tls(client_tls, server_hostname="localhost"))
        said = r"; to trust it: context.load_verify_locations\(path\)"
        with pytest.raises(ssl.SSLCertVerificationError, match=said):
            yield from far.start_tls(server_tls, server_side=True)
        with pytest.raises(ssl.SSLError):
            yield from task

    run(main, on_task_error=lambda task, exc: None)


@pytest.mark.found("N11")
def test_under_tls_1_2_a_client_without_a_certificate_is_told_in_the_handshake(
    plain, strict_tls, client_tls
):
    near, far = plain
    client_tls.maximum_version = ssl.TLSVersion.TLSv1_2

    def server():
        with pytest.raises(ssl.SSLError, match="did not return a certificate"):
            yield from far.start_tls(strict_tls, server_side=True)

    def main():
        task = spawn(server)
        with pytest.raises(ssl.SSLError, match=r"handshake failed: .*alert handshake failure"):
            yield from near.start_tls(client_tls, server_hostname="localhost")
        yield from task

    run(main)


@pytest.mark.found("N11")
@pytest.mark.parametrize("first", ["sendall", "recv", "send_eof", "aclose"])
def test_under_tls_1_3_a_client_without_a_certificate_is_told_by_whatever_it_does_next(
    plain, strict_tls, client_tls, first
):
    """Its side of the handshake is over before the server has looked."""
    near, far = plain
    argument = {"sendall": [b"x"], "recv": [9]}.get(first, [])

    def server():
        with pytest.raises(ssl.SSLError, match="did not return a certificate"):
            yield from far.start_tls(strict_tls, server_side=True)

    def main():
        task = spawn(server)
        yield from near.start_tls(client_tls, server_hostname="localhost")
        yield from task
        for _ in range(1 if first == "aclose" else 2):
            with pytest.raises(ssl.SSLError, match="certificate required"):
                yield from getattr(near, first)(*argument)
        if first in ("sendall", "recv"):
            for operation in (near.sendall(b"x"), near.recv(9), near.aclose()):
                with pytest.raises(ssl.SSLError, match="certificate required"):
                    yield from operation

    run(main)


@pytest.mark.found("N11")
def test_over_tcp_too_what_the_last_alert_says_is_raised(strict_tls, client_tls):
    """There what is sent after the end of the other side succeeds once, and then fails."""
    near, far = map(over, tcp_pair())

    def main():
        task = spawn(far.start_tls(strict_tls, server_side=True))
        yield from near.start_tls(client_tls, server_hostname="localhost")
        with pytest.raises(ssl.SSLError):
            yield from task
        with pytest.raises(ssl.SSLError, match="certificate required"):
            while True:
                yield from near.sendall(b"x")

    with near, far:
        run(main)


@pytest.mark.found("N11")
def test_what_came_before_an_alert_is_still_read(plain, agree):
    near, far = plain

    def main():
        yield from agree(near, far)
        reader = spawn(near.recv, 2)
        yield from until(lambda: isinstance(reader.wait, ReadWait))
        yield from far.sendall(b"data")
        assert (yield from reader) == b"da"
        file_of(file_of(near)).send(b"\x17\x03\x03\x00\x05abcde")
        with pytest.raises(ssl.SSLError):
            yield from far.recv(9)
        far.close()
        with pytest.raises(ssl.SSLError, match="alert") as caught:
            yield from near.sendall(b"x")
        assert caught.value.bytes_sent == 1
        assert (yield from near.recv(9)) == b"ta"
        for _ in range(2):
            with pytest.raises(ssl.SSLError, match="alert"):
                yield from near.recv(9)
            with pytest.raises(ssl.SSLError, match="alert"):
                yield from near.sendall(b"x")

    run(main)


def test_who_was_cut_off_can_send_no_more(plain, agree):
    """For OpenSSL the connection has failed, in both directions."""
    near, far = plain

    def main():
        yield from agree(near, far)
        file_of(file_of(far)).shutdown(socket.SHUT_WR)
        with pytest.raises(ssl.SSLEOFError, match="cut off"):
            yield from near.recv(9)
        for _ in range(2):
            with pytest.raises(ssl.SSLEOFError):
                yield from near.sendall(b"x")

    run(main)


@pytest.mark.found("N11")
def test_a_reader_learns_what_a_sender_has_found(plain, agree):
    """It waits for nothing but the file, and what was there has been taken."""
    near, far = plain

    def main():
        yield from agree(near, far)
        yield from far.sendall(b"x")
        assert (yield from near.recv(9)) == b"x"
        reader = spawn(near.recv, 9)
        yield
        yield
        assert isinstance(reader.wait, ReadWait)
        file_of(file_of(near)).send(b"\x17\x03\x03\x00\x05abcde")
        far_file = file_of(file_of(far))
        with pytest.raises(ssl.SSLError):
            yield from far.recv(9)
        far_file.shutdown(socket.SHUT_RD)
        with pytest.raises(ssl.SSLError, match="alert"):
            yield from near.sendall(b"x")
        with pytest.raises(ssl.SSLError, match="alert"):
            yield from reader

    run(main)


def test_without_an_alert_the_error_of_the_file_is_raised(plain, agree):
    near, far = plain

    def main():
        yield from agree(near, far)
        file_of(file_of(far)).close()
        for _ in range(2):
            with pytest.raises(BrokenPipeError):
                yield from near.sendall(b"x")
        yield from near.aclose()

    run(main)


def small_pair():
    """Return connected sockets that hold little."""
    a, b = socket.socketpair()
    for sock in (a, b):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5000)
    return a, b


def stuck(*tasks):
    """Wait until all of them wait, and nothing moves any more."""
    count = 0
    while count < 50:
        yield
        assert not any(task.done for task in tasks)
        count = count + 1 if all(task.state == "waiting" for task in tasks) else 0


@pytest.mark.found("N12")
def test_who_asks_for_new_keys_and_does_not_read_is_not_read_any_more(server_tls, client_tls):
    a, b = small_pair()
    near, far = Peer(a, client_tls, server_hostname="localhost"), Stream(b)
    count = 10_000

    def flood():
        near.ask_for_new_keys(count)
        rest = near.output()
        left.append(len(rest))
        while rest:
            yield WriteWait(a)
            rest = rest[a.send(rest) :]
            left[0] = len(rest)

    def main():
        task = spawn(far.start_tls(server_tls, server_side=True))
        yield from near.shake_hands()
        yield from task
        reader = spawn(far.recv, 9)
        flooder = spawn(flood)
        yield from stuck(reader, flooder)
        # Two chunks wait here, one was not looked at, and as much may be on the way again.
        assert count * REQUEST - left[0] < 240_000
        yield from reader.stop()
        before = left.copy()
        reader = spawn(far.recv, 9)
        yield from stuck(reader, flooder)
        assert left == before
        near.ssl.write(b"hello")
        while not flooder.done:
            yield from near.receive()
        yield from near.flush()
        return (yield from reader)

    left = []
    with a, far:
        assert run(main) == b"hello"


@pytest.mark.found("N12")
def test_requests_for_new_keys_take_their_turns(server_tls, client_tls):
    """One takes OpenSSL up to 50 microseconds, and it would return only after the last."""
    a, b = (Wire(sock) for sock in socket.socketpair())
    near, far = Peer(a, client_tls, server_hostname="localhost"), Stream(b)

    def main():
        task = spawn(far.start_tls(server_tls, server_side=True))
        yield from near.shake_hands()
        yield from task
        near.ask_for_new_keys(640)
        near.ssl.write(b"hello")
        yield from near.flush()
        b.calls.clear()
        turns = turn()
        assert (yield from far.recv(9)) == b"hello"
        return turn() - turns, b.calls.count("recv")

    with a, far:
        turns, calls = run(main)
    assert 640 / RECORDS <= turns <= 640 / RECORDS + 5
    assert calls <= 3


@pytest.mark.found("N12")
def test_answers_that_nobody_will_read_are_not_waited_for_and_do_not_pile_up(
    server_tls, client_tls
):
    """The other side has closed that direction: there is always room, and nothing leaves."""
    a, b = socket.socketpair()
    a.setblocking(False)
    near, far = Peer(a, client_tls, server_hostname="localhost"), over(b)

    def main():
        task = spawn(far.start_tls(server_tls, server_side=True))
        yield from near.shake_hands()
        yield from task
        a.shutdown(socket.SHUT_RD)
        for _ in range(2):
            near.ask_for_new_keys(10)
            yield from near.flush()
        reader = spawn(far.recv, 9)
        yield Sleep(0.01)
        turns = turn()
        yield Sleep(0.01)
        assert turn() - turns < 10
        near.ssl.write(b"hello")
        yield from near.flush()
        got = yield from reader
        reader = spawn(far.recv, 9)
        near.ask_for_new_keys(HELD // REQUEST + 1)
        flooder = spawn(near.flush())
        with pytest.raises(BrokenPipeError, match="nobody reads the answers"):
            yield from reader
        yield from flooder.stop()
        return got

    with a, far:
        assert run(main) == b"hello"


@pytest.mark.found("N12")
def test_data_without_end_in_the_middle_of_a_handshake_waits_for_its_reader(server_tls, client_tls):
    """A client writes; the server of TLS 1.2 has asked for a new handshake, and sends data instead
    of its part of that.
    """
    client_tls.maximum_version = ssl.TLSVersion.TLSv1_2
    a, b = map(Wire, socket.socketpair())
    near, far = Stream(a), Peer(b, server_tls, server_side=True)
    data = os.urandom(16_384)

    def main():
        task = spawn(far.shake_hands())
        yield from near.start_tls(client_tls, server_hostname="localhost")
        yield from task
        yield from near.sendall(b"x")
        assert (yield from far.read()) == b"x"
        far.ask_for_a_handshake()
        far.ssl.write(b"go")
        yield from far.flush()
        assert (yield from near.recv(9)) == b"go"
        writer = spawn(near.sendall, b"question")
        sent = 0
        while sent < 40:
            far.ssl.write(data)
            rest = far.output()
            for _ in range(100):
                try:
                    rest = rest[b.send(rest) :]
                except BlockingIOError:
                    yield
                if not rest:
                    break
            else:
                break
            sent += 1
        assert sent < 30  # what the wire holds, and what may wait here
        assert writer.state == "waiting"
        yield from stuck(writer)
        before = len(a.calls)
        got = yield from near.recv(1)
        assert len(a.calls) == before
        while len(a.calls) == before:  # there is room: the writer reads on
            got += yield from near.recv(len(data))
            yield from stuck(writer)
        got += yield from near.readexactly(len(data) * sent - len(got))
        assert got == data * sent
        b.send(rest)
        task = spawn(near.readexactly, len(data) + 3)
        assert (yield from far.read()) == b"question"
        far.ssl.write(b"end")
        yield from far.flush()
        yield from writer
        return (yield from task) == data + b"end"

    with near, b:
        assert run(main)


# Plain text before --------------------------------------------------------------------------------


@pytest.mark.hazard("H75")
def test_plain_text_that_came_before_the_upgrade_is_never_taken_for_data_after_it(
    plain, server_tls
):
    near, far = plain
    commands = []

    def server():
        commands.append((yield from far.readline()))
        yield from far.start_tls(server_tls, server_side=True)
        commands.append((yield from far.readline()))

    def main():
        yield from near.sendall(b"STARTTLS\r\nEVIL\r\n")
        with pytest.raises(ssl.SSLError, match=r"does not speak TLS, it sent b'EVIL\\r\\n'"):
            yield from spawn(server)

    run(main)
    assert commands == [b"STARTTLS\r\n"]


@pytest.mark.parametrize("size", [1, 100])
def test_a_message_of_the_handshake_may_be_cut_into_many_records(server_tls, client_tls, size):
    a, b = socket.socketpair()
    a.setblocking(False)
    near, far = Peer(a, client_tls, server_hostname="localhost"), over(b)

    def main():
        with pytest.raises(ssl.SSLWantReadError):
            near.ssl.do_handshake()
        head, hello = near.output().split(b"\x16\x03\x01", 1)
        assert head == b""
        parts = [hello[at : at + size] for at in range(2, len(hello), size)]
        a.send(b"".join(b"\x16\x03\x01" + len(x).to_bytes(2, "big") + x for x in parts))
        task = spawn(far.start_tls(server_tls, server_side=True))
        yield from near.shake_hands()
        yield from task
        near.ssl.write(b"hello")
        yield from near.flush()
        return (yield from far.recv(9))

    with a, far:
        assert run(main) == b"hello"


@pytest.mark.hazard("H75")
def test_a_header_may_come_in_one_segment_with_the_handshake(server_tls, client_tls):
    near, far = map(over, socket.socketpair())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_tls.wrap_bio(incoming, outgoing, server_hostname="localhost")

    def server():
        header = yield from far.readline()
        yield from far.start_tls(server_tls, server_side=True)
        yield from far.sendall(b"after: " + header)
        return (yield from far.readline())

    def main():
        task = spawn(server)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        yield from near.sendall(b"PROXY TCP4 ...\r\n" + outgoing.read())
        while True:
            incoming.write((yield from near.recv(CHUNK)))
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        client.write(b"first line\n")
        yield from near.sendall(outgoing.read())
        while True:
            try:
                got = client.read(100)
                break
            except ssl.SSLWantReadError:
                incoming.write((yield from near.recv(CHUNK)))
        return got, (yield from task)

    with near, far:
        assert run(main) == (b"after: PROXY TCP4 ...\r\n", b"first line\n")


def test_a_stream_may_be_upgraded_in_the_middle_of_a_talk(plain, server_tls, client_tls):
    near, far = plain

    def server():
        assert (yield from far.readline()) == b"STARTTLS\n"
        yield from far.sendall(b"go ahead\n")
        yield from far.start_tls(server_tls, server_side=True)
        while line := (yield from far.readline()):
            yield from far.sendall(line.upper())

    def main():
        task = spawn(server)
        yield from near.sendall(b"STARTTLS\n")
        assert (yield from near.readline()) == b"go ahead\n"
        yield from near.start_tls(client_tls, server_hostname="localhost")
        yield from near.sendall(b"secret\n")
        got = yield from near.readline()
        yield from near.send_eof()
        yield from task
        return got

    assert run(main) == b"SECRET\n"


# Handshakes that do not succeed -------------------------------------------------------------------


BAD = {
    "nothing": (b"", TimeoutError, r"handshake with .* took longer than 5 s"),
    "half a hello": (b"\x16\x03\x01\x02\x00\x01\x00", TimeoutError, "took longer than 5 s"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ssl.SSLError, "not speak TLS, it sent b'GET / "),
    "garbage": (b"\0" * 100, ssl.SSLError, "does not speak TLS"),
    "bad hello": (b"\x16\x03\x01\x00\x05abcdefgh", ssl.SSLError, "handshake failed: "),
}


@pytest.mark.hazard("H77")
@pytest.mark.parametrize("kind", BAD)
def test_a_client_that_does_not_speak_tls_is_let_go_at_the_deadline_or_before(
    server_tls, client_tls, agree, kind
):
    data, error, text = BAD[kind]
    bad, far = map(over, socket.socketpair())
    good, server = map(over, socket.socketpair())

    def main():
        yield from bad.sendall(data)
        task = spawn(far.start_tls(server_tls, server_side=True, within=5))
        yield from agree(good, server)  # meanwhile others are served
        yield from server.sendall(b"x")
        assert (yield from good.recv(1)) == b"x"
        with pytest.raises(error, match=text):
            yield from task
        assert repr(far) == "<Stream over <TLS closed>>"
        assert current_task().scheduler.stats()["files"] <= 4
        return current_task().scheduler.clock()

    with bad, far, good, server:
        assert run(main, **virtual_time()) == (5 if error is TimeoutError else 0)


@pytest.mark.hazard("H77")
@pytest.mark.parametrize(
    ("data", "text"), [(b"", "sent nothing"), (b"\x16\x03\x01", "ended the connection in the mid")]
)
def test_a_client_that_goes_away_during_the_handshake(plain, server_tls, data, text):
    near, far = plain

    def main():
        yield from near.sendall(data)
        near.close()
        with pytest.raises(ssl.SSLEOFError, match=text):
            yield from far.start_tls(server_tls, server_side=True)

    run(main)


def test_a_client_learns_that_the_server_does_not_speak_tls(plain, client_tls):
    near, far = plain

    def main():
        yield from far.sendall(b"220 mail.example.org ESMTP\r\n")
        with pytest.raises(ssl.SSLError, match="does not speak TLS, it sent b'220 mail"):
            yield from near.start_tls(client_tls, server_hostname="localhost")

    run(main)


@pytest.mark.hazard("H77")
def test_a_shutdown_that_is_not_answered_ends_at_its_deadline(plain, agree):
    near, far = plain

    def main():
        yield from agree(near, far)
        yield from near.aclose(within=3)
        return current_task().scheduler.clock(), (yield from far.recv(9))

    assert run(main, **virtual_time()) == (3, b"")


def test_a_handshake_that_is_cancelled_closes(plain, server_tls):
    far = plain[1]

    def main():
        task = spawn(far.start_tls(server_tls, server_side=True, within=None))
        yield
        yield
        yield from task.stop()
        return repr(far)

    assert run(main) == "<Stream over <TLS closed>>"


def test_output_that_has_no_room_is_waited_for_during_the_handshake(server_tls, client_tls):
    wires = [Wire(sock) for sock in socket.socketpair()]
    near, far = map(Stream, wires)
    filling = b"x" * 1000

    def main():
        filled = 0
        with pytest.raises(BlockingIOError):
            while True:
                filled += wires[0].send(filling)
        task = spawn(near.start_tls(client_tls, server_hostname="localhost"))
        yield Sleep(0.001)
        assert repr(task.wait).startswith("TLS to <Wire fd=")
        yield from far.readexactly(filled)
        yield from far.start_tls(server_tls, server_side=True)
        yield from task
        yield from near.sendall(b"through")
        return (yield from far.recv(9))

    with near, far:
        assert run(main) == b"through"


@pytest.mark.parametrize("method", ["recv", "send"])
@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.EPIPE, errno.ENOBUFS, errno.EAGAIN])
def test_errors_of_the_file_below_are_the_operations(server_tls, client_tls, method, number):
    sock = FakeSocket(**{method: [LATE, number]})
    near, far = Stream(sock), over(sock.far)

    def main():
        task = spawn(far.start_tls(server_tls, server_side=True))
        try:
            yield from near.start_tls(client_tls, server_hostname="localhost")
            yield from task
        except OSError as exc:
            far.close()
            with pytest.raises(OSError):
                yield from task
            return exc.errno

    with near, far:
        assert run(main) == (None if number == errno.EAGAIN else number)


# What is left -------------------------------------------------------------------------------------


def new_pair():
    near, far = map(over, socket.socketpair())
    return near, far


@pytest.mark.hazard("H55")
@pytest.mark.parametrize("scenario", ["closed", "waiting", "cut off", "refused", "late", "taken"])
def test_tls_leaves_no_garbage(server_tls, client_tls, agree, scenario):
    def closed():
        near, far = new_pair()
        yield from agree(near, far)
        yield from near.sendall(b"x")
        yield from gather(near.aclose(), far.aclose())

    def waiting():
        near, far = new_pair()
        yield from agree(near, far)
        for call in (near.recv(9), near.sendall(bytes(5_000_000)), near.recv(9)):
            spawn(call)  # what it raises is reported: who joined it would be in its traceback
        yield
        yield
        near.close()
        far.close()

    def cut_off():
        near, far = new_pair()
        yield from agree(near, far)
        near.close()
        spawn(far.recv, 9)
        yield Sleep(1)
        far.close()

    def refused():
        near, far = new_pair()
        yield from near.sendall(b"GET / HTTP/1.1\r\n\r\n")
        spawn(far.start_tls(server_tls, server_side=True))
        yield Sleep(1)
        near.close()

    def taken():
        near, far = new_pair()
        yield from agree(near, far)
        spawn(ReadWait(file_of(file_of(far))).__iter__())  # somebody waits for the file below
        yield
        yield
        spawn(far.recv, 9)
        yield Sleep(1)
        near.close()
        far.close()

    def late():
        near, far = new_pair()
        spawn(far.start_tls(server_tls, server_side=True))
        yield Sleep(100)
        near.close()

    scenarios = {"closed": closed, "waiting": waiting, "cut off": cut_off}
    scenarios |= {"refused": refused, "late": late, "taken": taken}
    assert garbage_of(scenarios[scenario]) == []


def test_a_secured_talk_that_is_cancelled_anywhere_leaves_nothing(agree, server_tls, client_tls):
    def talk():
        near, far = new_pair()

        def server():
            with far:
                yield from far.start_tls(server_tls, server_side=True)
                while line := (yield from far.readline()):
                    yield from far.sendall([b"you said ", line])
                yield from far.aclose(1)

        def client():
            with near:
                yield from near.start_tls(client_tls, server_hostname="localhost")
                for _ in range(2):
                    yield from near.sendall(b"hello\n")
                    if not (yield from near.readline()):
                        return
                yield from near.aclose(1)

        def careful(f):
            try:
                yield from f()
            except (OSError, TimeoutError):
                pass

        with near, far:
            yield from survivors([spawn(careful, server), spawn(careful, client)])

    assert cancel_everywhere(talk) > 20


# Real programs ------------------------------------------------------------------------------------


needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="there is no openssl program")


def said(stream, what):
    """Read until `what` was said; return all up to there."""
    got = b""
    while what not in got:
        data = yield from stream.recv(CHUNK)
        assert data, got
        got += data
    return got


def serve_once(server_tls, handle, wire=Wire):
    """Return a listening port, and a function that serves one client."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)

    def serve():
        yield ReadWait(listener)
        with Stream(wire(listener.accept()[0])) as stream:
            listener.close()
            if server_tls is not None:
                yield from stream.start_tls(server_tls, server_side=True)
            return (yield from handle(stream))

    return listener.getsockname()[1], serve


def s_client(port, *options, stderr=DEVNULL):
    command = [OPENSSL, "s_client", "-connect", f"127.0.0.1:{port}", *options]
    return open_process(command, stdin=PIPE, stdout=PIPE, stderr=stderr)


def echo(stream):
    while line := (yield from stream.readline()):
        yield from stream.sendall(b"echo " + line)
    yield from stream.aclose()


@needs_openssl
@pytest.mark.hazard("H73")
def test_openssls_client_updates_its_keys(server_tls):
    port, serve = serve_once(server_tls, echo)

    def main():
        task = spawn(serve)
        with (yield from s_client(port, "-tls1_3", stderr=STDOUT)) as process:
            for command in (b"", b"k\n", b"K\n", b"K\n"):
                if command:
                    yield from process.stdin.sendall(command)
                    yield from said(process.stdout, b"KEYUPDATE\n")
                yield from process.stdin.sendall(b"hello\n")
                yield from said(process.stdout, b"echo hello\n")
            yield from process.stdin.sendall(b"Q\n")
            yield from process.wait()
        yield from task

    run(main)


class Renegotiating(Wire):
    """A wire that holds back what comes after the second ClientHello until it is let go."""

    armed = False

    def recv(self, most):
        data = super().recv(most)
        if self.armed and data[:1] == b"\x16":
            self.held, self.armed = True, False
        return data


@needs_openssl
@pytest.mark.hazard("H73")
@pytest.mark.parametrize("writes", ["alone", "beside a reader"])
def test_a_client_may_agree_anew_while_the_server_writes(server_tls, writes):
    """Then a read must write, and a write must read."""
    server_tls.maximum_version = ssl.TLSVersion.TLSv1_2
    server_tls.options |= 0x100  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION
    data = b"0123456789" * 10_000 + b"\n"

    def handle(stream):
        wire = file_of(file_of(stream))
        assert (yield from stream.readline()) == b"first\n"
        wire.armed = True
        yield from stream.sendall(b"go\n")
        reader = spawn(stream.readline, name="reader")
        while not wire.held:
            yield Sleep(0.001)
        if writes == "alone":
            yield from reader.stop()
        task = spawn(stream.sendall, data, name="writer")
        for _ in range(5):
            yield
        assert not task.done
        wire.held = False
        yield from task
        if writes == "alone":
            reader = spawn(stream.readline)
        return (yield from reader)

    port, serve = serve_once(server_tls, handle, Renegotiating)

    def main():
        task = spawn(serve)
        with (yield from s_client(port, "-tls1_2")) as process:
            yield from process.stdin.sendall(b"first\n")
            yield from said(process.stdout, b"go\n")
            yield from process.stdin.sendall(b"R\n")
            got = yield from said(process.stdout, data[-100:])
            assert data in got
            yield from process.stdin.sendall(b"second\n")
            return (yield from task)

    assert run(main) == b"second\n"


@needs_openssl
@pytest.mark.hazard("H73")
def test_a_writer_learns_of_what_a_reader_has_read_without_waiting(server_tls):
    """The client's part of a new handshake comes to a reader that tries first; it is the last that
    comes, and the writer waits for it.
    """
    server_tls.maximum_version = ssl.TLSVersion.TLSv1_2
    server_tls.options |= 0x100  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION
    inner, outer = map(over, socket.socketpair())

    def handle(raw):
        task = spawn(outer.start_tls(server_tls, server_side=True))
        while not task.done:  # carry the handshake
            with move_on_after(0.01):
                yield from inner.sendall((yield from raw.recv(CHUNK)))
            with move_on_after(0.01):
                yield from raw.sendall((yield from inner.recv(CHUNK)))
        back = spawn(carry, inner, raw)
        yield from inner.sendall((yield from raw.recv(CHUNK)))
        assert (yield from outer.readline()) == b"first\n"
        yield from outer.sendall(b"go\n")
        yield from inner.sendall((yield from raw.recv(CHUNK)))  # its new ClientHello
        reader = spawn(outer.recv, 9)  # it answers that
        last = yield from raw.recv(CHUNK)
        yield from reader.stop()
        writer = spawn(outer.sendall, b"0123456789\n")
        yield from until(lambda: writer.state == "waiting")
        yield from inner.sendall(last)
        disturb(outer)
        with move_on_after(0.01):
            yield from outer.recv(9)
        yield from writer
        outer.close()
        yield from back

    def carry(source, target):
        while data := (yield from source.recv(CHUNK)):
            yield from target.sendall(data)

    port, serve = serve_once(None, handle)

    def main():
        task = spawn(serve)
        with (yield from s_client(port, "-tls1_2")) as process:
            yield from process.stdin.sendall(b"first\n")
            yield from said(process.stdout, b"go\n")
            yield from process.stdin.sendall(b"R\n")
            yield from said(process.stdout, b"0123456789\n")
            yield from task

    with inner, outer:
        run(main)


@needs_openssl
def test_openssls_server_is_understood(certificate, client_tls):
    def main():
        command = [OPENSSL, "s_server", "-accept", "127.0.0.1:0", "-cert", certificate, "-rev"]
        with (yield from open_process(command, stdout=PIPE, stdin=PIPE, stderr=DEVNULL)) as process:
            line = b""
            while not line.startswith(b"ACCEPT"):
                line = yield from process.stdout.readline()
            port = int(line.rpartition(b":")[2])
            with over(socket.create_connection(("127.0.0.1", port))) as stream:
                yield from stream.start_tls(client_tls, server_hostname="localhost")
                yield from stream.sendall(b"hello\n")
                line = yield from stream.readline()
                yield from stream.aclose()
        return line

    assert run(main) == b"olleh\n"


def test_a_reader_that_waits_is_not_disturbed_by_who_begins_tls(plain, server_tls):
    near, far = plain

    def main():
        reader = spawn(near.recv(100))
        yield Sleep(0)
        with pytest.raises(BusyError, match="recv"):
            yield from near.start_tls(server_tls, server_side=True)
        yield from far.sendall(b"plain text")
        return (yield from reader)

    assert run(main) == b"plain text"


def test_a_reader_of_tls_is_not_disturbed_by_who_begins_tls_in_it(plain, agree, server_tls):
    near, far = plain

    def main():
        yield from agree(near, far)
        reader = spawn(far.recv(100))
        yield Sleep(0)
        with pytest.raises(BusyError, match="is reading from it"):
            yield from far.start_tls(server_tls, server_side=True)
        yield from near.sendall(b"data")
        return (yield from reader)

    assert run(main) == b"data"


def test_what_is_no_context_is_refused_and_nothing_is_sent(plain):
    near, far = plain

    def main():
        with pytest.raises(TypeError, match=r"True .*give an ssl.SSLContext"):
            yield from near.start_tls(True)
        yield from near.sendall(b"plain text")
        return (yield from far.recv(100))

    assert run(main) == b"plain text"


# Any sequence of operations -----------------------------------------------------------------------


class Fickle(Wire):
    """A wire that now and then has nothing, or takes nothing, and else moves any part of it."""

    random = random.Random(0)

    def recv(self, most):
        self.tire()
        return super().recv(self.random.choice([most, self.random.randint(1, most)]))

    def send(self, data):
        self.tire()
        return super().send(data[: self.random.choice([1 << 20, self.random.randint(1, 200)])])

    def tire(self):
        if self.random.random() < 0.2:
            raise BlockingIOError(errno.EAGAIN, "not now")


def model(rest, operation, argument):
    """Return what a read returns when `rest` is all that has not been read yet, "" if it has the
    choice; and how many bytes it takes.
    """
    if operation in ("recv", "recv_into"):
        return "", 0
    if operation == "more":
        return bool(rest), 0
    if operation == "readexactly":
        size = argument
    else:
        separators = (b"\n",) if operation == "readline" else argument
        size = min((rest.find(s) + len(s) for s in separators if s in rest), default=len(rest))
        limit = argument if operation == "readline" else None
        if limit is not None and size > limit:
            return LimitExceeded, 0
        if operation == "readline" or not rest or rest[:size].endswith(separators):
            return rest[:size], size
        size = len(rest) + 1
    return (rest[:size], size) if size <= len(rest) else (IncompleteRead, len(rest))


def any_read(dice, stream, text, done):
    """Do reads, cancelled or not, until `text` has been read; check each against the model."""
    at = 0
    while not done or at < len(text) or dice.random() < 0.9:
        operation, argument = dice.choice(
            [
                *(("recv", dice.choice([1, 30, CHUNK])), ("recv_into", bytearray(20))),
                *(("readline", None), ("readline", None), ("readline", 10), ("more", None)),
                *(("readexactly", dice.randint(0, 60)), ("readuntil", (b";", b"\n\n"))),
            ]
        )
        arguments = argument if operation == "readuntil" else (argument,) * (operation != "more")
        task = spawn(getattr(stream, operation)(*arguments))
        yield
        for _ in range(dice.randrange(20)):
            if task.done:
                break
            if dice.random() < 0.2:
                with pytest.raises(BusyError):
                    yield from stream.recv(1)
            yield
        else:
            if dice.random() < 0.5:
                task.cancel()
        expected, size = model(text[at:], operation, argument)
        try:
            got = yield from task
            if expected == "":
                data = got if operation == "recv" else bytes(argument[:got])
                size = len(data)
                expected = text[at : at + size] if got else text[at:]
                got = data
            assert got == expected, operation
            at += size
        except TaskCancelled:
            pass
        except (LimitExceeded, IncompleteRead) as exc:
            if type(exc) is not expected:
                raise
            at += size
        check_at_rest(stream)


def any_send(dice, stream, messages, sent):
    """Send the messages, cancelled or not; put what was sent into `sent`."""
    errors = []

    def send(data):
        try:
            yield from stream.sendall(data)
        except Cancelled as exc:
            errors.append(exc.bytes_sent)

    for data in messages:
        task = spawn(send, dice.choice([bytes, bytearray, lambda data: [data, b""]])(data))
        for _ in range(dice.randrange(20)):
            yield
        if dice.random() < 0.5:
            task.cancel()
        yield from task
        sent += data[: errors.pop()] if errors else data
        assert sender_of(stream) is None
    yield from stream.send_eof()


@pytest.mark.hazard("H23")
@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("seed", range(100 if FULL else 10))
def test_any_reads_and_sends_that_are_cancelled_anywhere_lose_nothing(agree, layers, seed):
    """Over a plain file, over TLS, and over TLS over TLS."""
    dice = Fickle.random = random.Random(seed)
    near, far = (Stream(Fickle(sock)) for sock in socket.socketpair())
    messages = [
        b"".join(dice.choices([b"a", b"bcdefg", b";", b"\n", b"one line\n"], k=dice.randrange(50)))
        for _ in range(100)
    ]
    answers = [dice.randbytes(dice.choice([0, 10, 1000, 300_000])) for _ in range(20)]
    answered = bytearray()

    def main():
        for _ in range(layers):
            yield from agree(near, far)
        spawn(far_side)
        task = spawn(any_send, dice, near, answers, answered)
        yield from any_read(dice, near, b"".join(messages), finished)
        yield from task

    def far_side():
        task = spawn(read_all, far)
        for data in messages:
            yield from far.sendall(data)
            for _ in range(dice.choice([0, 0, 0, 5])):
                yield
        yield from far.send_eof()
        finished.append(True)
        assert (yield from task) == answered

    finished = []
    with near, far:
        run(main)
