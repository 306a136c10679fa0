"""The classic services of the demos: as programs with real clients, and their parts inside."""

import argparse
import shutil
import socket
import subprocess
import time

import pytest

from corolib import (
    Stream,
    current_scheduler,
    listen_tcp,
    open_tcp,
    open_udp,
    run,
    spawn,
)
from corolib.testing import virtual_time
from demos.classic import client as clients
from demos.classic.services import PATTERN, QUOTES, chargen, services, some_characters
from tests.helpers.inside import file_of
from tests.helpers.programs import (
    PATIENCE,
    Program,
    exchange,
    outcome,
    quiet,
    read_all,
    start,
)

NAMES = ("echo", "discard", "daytime", "qotd", "chargen", "time")
OFFSET = 2208988800  # RFC 868: from 1900 to 1970

# The first two lines of the pattern, as RFC 864 has them, and the last of a round.
FIRST = rb""" !"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefg"""
SECOND = rb"""!"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefgh"""
LAST = rb"""~ !"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdef"""


# The program --------------------------------------------------------------------------------------


class Classic(Program):
    """The program, with the ports by the names of the services."""

    def __init__(self, *args, **options):
        super().__init__("demos.classic", *args, ports=6, **options)
        self.of = {line.split()[0]: port for line, port in zip(self.lines, self.ports, strict=True)}

    def ask(self, name: str, data: bytes = b"") -> bytes:
        """Return the answer to a datagram."""
        with self.udp(self.of[name]) as sock:
            sock.send(data)
            return sock.recv(65535)

    def hear(self, name: str) -> bytes:
        """Return what a service says to a client that connects and closes its side."""
        with self.connect(self.of[name]) as conn:
            return exchange(conn, b"whatever")


@pytest.fixture(scope="module")
def served():
    with Classic() as program:
        yield program


def test_it_says_where_each_service_is(served):
    assert [line.split()[0] for line in served.lines] == list(NAMES)


def test_echo(served):
    data = bytes(range(256)) * 1000
    with served.connect(served.of["echo"]) as conn:
        assert exchange(conn, data) == data
    for size in (0, 1, 9000, 65507):
        assert served.ask("echo", data[:size]) == data[:size]


def test_discard(served):
    with served.connect(served.of["discard"]) as conn:
        assert exchange(conn, bytes(300_000)) == b""


def test_chargen(served):
    with served.connect(served.of["chargen"]) as conn:
        conn.sendall(bytes(300_000))  # is thrown away, also while nobody reads
        with conn.makefile("rb") as file:
            lines = [file.readline() for _ in range(2 * 95 + 1)]
            assert lines[0] == lines[95] == lines[190] == FIRST + b"\r\n"
            assert lines[1] == lines[96] == SECOND + b"\r\n"
            assert lines[94] == lines[189] == LAST + b"\r\n"
            assert {len(line) for line in lines} == {74} and len(set(lines)) == 95
            conn.shutdown(socket.SHUT_WR)  # is no end for one who only listens
            assert [file.readline() for _ in range(95)] == lines[1:96]
    answers = [served.ask("chargen") for _ in range(20)]
    pattern = b"".join(lines)
    assert all(len(each) <= 512 and pattern.startswith(each) for each in answers)
    assert len({len(each) for each in answers}) > 1


def test_qotd(served):
    for quote in (served.hear("qotd"), served.ask("qotd")):
        assert quote in QUOTES


def test_daytime(served):
    for ask in (served.hear, served.ask):
        before = int(time.time())
        line = ask("daytime")
        assert line.endswith(b"\r\n") and line[:-2].decode().isprintable()
        assert before <= time.mktime(time.strptime(line[:-2].decode("ascii"))) <= time.time()


def test_time(served):
    for ask in (served.hear, served.ask):
        before = int(time.time())
        number = int.from_bytes(ask("time"), "big")
        assert (number - OFFSET - before) % 2**32 <= time.time() - before


def test_a_datagram_s_content_changes_nothing(served):
    for name in ("daytime", "qotd", "time"):
        with served.udp(served.of[name]) as sock:
            for data in (b"", bytes(9000)):
                sock.send(data)
                assert len(sock.recv(65535)) in (4, 26, *map(len, QUOTES))


@pytest.mark.skipif(not shutil.which("rdate"), reason="rdate is not installed")
@pytest.mark.parametrize("transport", [[], ["-u"]], ids=["tcp", "udp"])
def test_rdate_reads_the_time(served, transport):
    command = ["rdate", "-p", *transport, "-o", str(served.of["time"]), "127.0.0.1"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert found.returncode == 0, found
    assert str(time.gmtime().tm_year) in found.stdout


def test_over_ipv6_it_ends_quietly_with_clients_at_work():
    with Classic(host="::1") as program:
        assert program.ask("echo", b"hello") == b"hello"
        assert len(program.hear("time")) == 4
        with program.connect(program.of["chargen"]) as conn, program.connect() as idle:
            conn.recv(100)
            idle.sendall(b"x")
            assert idle.recv(1) == b"x"
            status, out, err = program.stop()
            read_all(conn)
    assert (status, out) == (130, "") and quiet(err)


def test_a_port_in_use_gets_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = outcome("demos.classic", f"--port={port - 7}")
    assert status == 1
    assert err.count("\n") == 1 and str(port) in err, err


# The clients --------------------------------------------------------------------------------------


def shown(capfd, served, name: str, *, udp: bool, **options) -> str:
    """Return what the client of a service prints."""
    options = {"lines": 3, "host": "127.0.0.1", "port": served.of[name], **options}
    clients.main(argparse.Namespace(service=name, udp=udp, **options))
    return capfd.readouterr().out


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_each_service_has_a_client(served, capfd, udp):
    for name in ("daytime", "time"):
        before = int(time.time())
        text = shown(capfd, served, name, udp=udp)
        assert before <= time.mktime(time.strptime(text.rstrip("\n"))) <= time.time()
    text = shown(capfd, served, "qotd", udp=udp)
    assert text.replace("\n", "\r\n").encode() in QUOTES
    text = shown(capfd, served, "chargen", udp=udp)
    if udp:
        assert text.replace("\n", "") == "" or text.startswith(FIRST.decode()[: len(text) - 1])
    else:
        lines = text.split("\n")
        assert lines[:2] == [FIRST.decode(), SECOND.decode()] and len(lines) == 4


@pytest.mark.parametrize("udp", [[], ["--udp"]], ids=["tcp", "udp"])
@pytest.mark.parametrize(("name", "back"), [("echo", "hello\nyou\n"), ("discard", "")])
def test_clients_that_send_what_is_typed(served, name, back, udp):
    port = f"--port={served.of[name]}"
    with start("demos.classic.client", name, port, *udp, stdin=subprocess.PIPE) as process:
        out, err = process.communicate("hello\nyou\n", timeout=PATIENCE)
    assert (process.returncode, out) == (0, back) and quiet(err)


def test_a_client_without_a_server_says_so_in_one_line():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        status, out, err = outcome("demos.classic.client", "time", f"--port={port}")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1 and str(port) in err, err
    status, _, err = outcome("demos.classic.client", "gopher")
    assert status == 2 and "daytime" in err


def test_a_client_over_udp_says_who_does_not_answer():
    with socket.socket(type=socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        unused.connect(("127.0.0.1", port))  # it hears only itself
        status, out, err = outcome("demos.classic.client", "time", "--udp", f"--port={port}")
    assert (status, out) == (1, "")
    assert err == f"time at 127.0.0.1 port {port}: Connection refused\n"


def test_a_client_whose_output_nobody_reads_any_more_ends_quietly(served):
    port = f"--port={served.of['chargen']}"
    with start("demos.classic.client", "chargen", port, "--lines=1000000") as process:
        assert process.stdout.readline() == FIRST.decode() + "\n"
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 141 and quiet(err), err


def test_a_client_asks_three_times():
    asked = []

    def main():
        with (yield from open_udp(local=("127.0.0.1", 0))) as deaf:
            with pytest.raises(TimeoutError, match=str(deaf.local[1])):
                yield from clients.ask(*deaf.local, True, b"anybody?")
            deaf.socket.settimeout(0)
            while True:
                try:
                    asked.append(deaf.socket.recv(100))
                except BlockingIOError:
                    return

    run(main, **virtual_time())
    assert asked == [b"anybody?"] * clients.TRIES


# What the services say, by a clock of ours --------------------------------------------------------

CLOCKS = [
    (0, 2208988800),  # RFC 868's own: 1970-01-01
    (2398291200 - OFFSET, 2398291200),  # 1976-01-01
    (2524521600 - OFFSET, 2524521600),  # 1980-01-01
    (2629584000 - OFFSET, 2629584000),  # 1983-05-01
    (2**31 - 1, 2**31 - 1 + OFFSET - 2**32),
    (2085978495, 0xFFFFFFFF),  # 2036-02-07, the last before it begins anew
    (2085978496, 0),
]


def asked_of(service, ask):
    """Serve one service inside, TCP and UDP, and return what `ask(host, port)` returns."""

    def main():
        with listen_tcp("127.0.0.1", 0) as listener:
            address = listener.addresses[0]
            datagrams = (yield from open_udp(local=address)).serve(service.answer)
            server = listener.serve(service.handler)
            value = yield from ask(*address)
            for each in (server, datagrams):
                yield from each.stop(grace=0)
                assert each.stats()["failed"] == 0
            return value

    return run(main)


@pytest.mark.parametrize(("clock", "number"), CLOCKS)
def test_time_and_daytime_at(clock, number):
    def ask(host, port):
        by_tcp = yield from clients.ask(host, port, False)
        by_udp = yield from clients.ask(host, port, True)
        return [by_tcp, by_udp]

    known = services(lambda: clock)
    assert asked_of(known["time"], ask) == [number.to_bytes(4, "big")] * 2
    line = time.ctime(clock).encode("ascii") + b"\r\n"
    assert asked_of(known["daytime"], ask) == [line] * 2
    assert asked_of(known["qotd"], ask) == [QUOTES[clock // 86400 % len(QUOTES)]] * 2


@pytest.mark.parametrize("name", ["time", "daytime", "qotd"])
def test_without_a_time_nothing_is_said(name):
    clock = [None, 0.0]  # by the second question, the time is known
    service = services(lambda: clock.pop(0))[name]

    def by_tcp(host, port):
        first = yield from clients.ask(host, port, False)
        second = yield from clients.ask(host, port, False)
        return [first, second]

    def by_udp(host, port):
        with (yield from open_udp(host, port)) as sock:
            yield from sock.send(b"")
            yield from sock.send(b"")
            answers = [(yield from sock.recv())]
            with pytest.raises(BlockingIOError):
                sock.socket.recv(100)
            return answers

    nothing, something = asked_of(service, by_tcp)
    assert nothing == b"" and something
    clock = [None, 0.0]
    assert asked_of(service, by_udp) == [something]


def test_quotes_are_short_and_plain():
    allowed = set(range(32, 127)) | set(b"\r\n")
    for quote in QUOTES:
        assert 0 < len(quote) < 512 and set(quote) <= allowed and quote.endswith(b"\r\n")


def test_discard_has_no_answer_to_datagrams():
    assert services()["discard"].answer(b"hello", ("127.0.0.1", 5000)) is None


@pytest.mark.found("D1")
def test_who_may_not_have_asked_gets_no_more_characters_than_bytes_came_in_its_name():
    """As a server that answers no more than it was asked needs it, to answer at all."""
    for size in (0, 1, 100, 512, 9000):
        for host in ("192.0.2.1", "2001:db8::1"):
            sizes = {len(some_characters(bytes(size), (host, 5000))) for _ in range(1000)}
            assert max(sizes) <= min(size, 512) and (len(sizes) > 1 or size == 0)
        for host in ("127.0.0.1", "::1"):
            assert max(len(some_characters(b"", (host, 5000))) for _ in range(1000)) > 100


@pytest.mark.found("D1")
def test_the_clients_ask_with_as_many_bytes_as_they_want_to_have():
    longest = max(map(len, QUOTES))
    assert max(longest, 512, len(time.ctime()) + 2) <= len(clients.QUESTION)


@pytest.mark.parametrize(("clock", "number"), CLOCKS)
def test_the_client_knows_which_136_years_are_meant(clock, number):
    answer = number.to_bytes(4, "big")
    for ahead in (-1e9, -1, 0, 0.5, 1, 2**31 - 2):
        assert clients.instant_of(answer, near=clock + ahead) == clock


def test_a_client_of_a_server_without_a_time(capfd):
    def ask(host, port):
        yield from clients.show_time(argparse.Namespace(host=host, port=port, udp=False))

    with pytest.raises(SystemExit, match="does not know the time"):
        asked_of(services(lambda: None)["time"], ask)


# Clients that do not read, and clients that leave -------------------------------------------------


class Counted(socket.socket):
    """A socket that counts what is sent."""

    calls = sent = 0

    def send(self, data):
        self.calls += 1
        count = super().send(data)
        self.sent += count
        return count


def counted(sock: socket.socket) -> Counted:
    conn = Counted(sock.family, sock.type, sock.proto, fileno=sock.detach())
    conn.setblocking(False)
    return conn


def at_rest(progress):
    """Wait until what `progress()` returns has been the same for 200 turns; return it."""
    seen, rests = progress(), 0
    while rests < 200:
        yield
        now = progress()
        seen, rests = now, rests + 1 if now == seen else 0
    return seen


def test_chargen_stops_while_the_client_does_not_read(pair):
    ours, theirs = counted(pair[0]), Stream(pair[1])

    def main():
        with Stream(ours) as stream, theirs:
            task = spawn(chargen, stream)
            calls, sent = 0, 0
            for size in (10, 2**19, 2**20):  # it goes on as it is read from, and loses nothing
                data = yield from theirs.readexactly(size)
                assert data == (PATTERN * (size // len(PATTERN) + 1))[:size]
                assert not task.done
                before, (calls, sent) = calls, (yield from at_rest(lambda: (ours.calls, ours.sent)))
                assert sent < 2**24 and calls > before
                yield from theirs.readexactly(-size % len(PATTERN))
            yield from theirs.sendall(b"this is thrown away")
            theirs.close()
            with pytest.raises(ConnectionError):
                yield from task

    run(main)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("name", ["chargen", "echo", "discard"])
def test_clients_that_leave_are_no_failure(name, how):
    def main():
        listener = listen_tcp("127.0.0.1", 0)
        server = listener.serve(services()[name].handler)
        for _ in range(5):
            client = yield from open_tcp(*listener.addresses[0])
            yield from client.sendall(b"hello")
            if name != "discard":
                yield from client.recv(1)
            if how == "reset":
                file_of(client).setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4)
                )
            client.close()
        while server.stats()["open"] or server.stats()["accepted"] < 5:
            yield
        assert server.stats()["failed"] == 0
        yield from server.stop()
        assert current_scheduler().stats()["tasks"] == 1

    run(main, on_task_error=lambda task, exc: pytest.fail(repr(exc)))


def test_echo_stops_reading_while_the_client_does_not_read():
    """What it holds is one message and what the kernel holds, however much the client has."""

    def main():
        listener = listen_tcp("127.0.0.1", 0)
        server = listener.serve(services()["echo"].handler)
        with (yield from open_tcp(*listener.addresses[0])) as client:
            sent = 0

            def send_more():
                nonlocal sent
                try:
                    sent += file_of(client).send(bytes(65536))
                except BlockingIOError:
                    pass
                assert sent < 2**26
                return sent

            yield from at_rest(send_more)
            yield from client.send_eof()
            assert len((yield from client.readexactly(sent))) == sent
            assert (yield from client.recv(1)) == b""
        yield from server.stop()

    run(main)
