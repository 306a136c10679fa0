"""The echo and time demos: as programs with real clients, and their parts inside a scheduler.

Whatever must be counted (tasks, files, calls) is counted with the server's tasks in this process;
what concerns the program (options, Ctrl-C, limits) is seen in a real one.
"""

import calendar
import errno
import os
import selectors
import shutil
import socket
import struct
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from corolib import (
    Coro,
    ReadWait,
    Scheduler,
    Sleep,
    WriteWait,
    close,
    current_scheduler,
    now,
    run,
    spawn,
)
from corolib.demo import daytime as time_demo
from corolib.demo import echo as echo_demo
from corolib.demo.ports import open_ports
from corolib.testing import virtual_time
from tests.helpers.driving import FULL
from tests.helpers.programs import PATIENCE, Program, outcome, quiet, read_all

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets the connection
MIB = 1 << 20


def same(data: bytes) -> bytes:
    return data


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def open_files() -> int:
    return len(os.listdir("/proc/self/fd" if os.path.exists("/proc/self/fd") else "/dev/fd"))


# Programs -----------------------------------------------------------------------------------------


def echo_program(**options: Any) -> Program:
    return Program("demos.echo", **options)


def time_program() -> Program:
    return Program("demos.time", "--daytime-port=0", ports=2)


class TestEchoProgram:
    def test_says_how_to_talk_to_it(self):
        with echo_program() as demo:
            port = demo.ports[0]
            assert demo.lines == [
                f"echo on 127.0.0.1 port {port}, TCP and UDP; try: nc 127.0.0.1 {port}\n"
            ]

    @pytest.mark.hazard("H27")
    def test_many_clients_at_once_get_a_mebibyte_back_whole_after_half_closing(self):
        count = 200 if FULL else 60
        source = os.urandom(MIB + count)
        with echo_program() as demo, selectors.DefaultSelector() as selector:
            clients = [demo.connect() for _ in range(count)]
            try:
                for i, conn in enumerate(clients):
                    conn.setblocking(False)
                    wanted = memoryview(source)[i : i + MIB]  # each client sends something else
                    # Per client: what is still to be sent, and what is still to come back.
                    events = selectors.EVENT_READ | selectors.EVENT_WRITE
                    selector.register(conn, events, [wanted, wanted])
                while selector.get_map():
                    events = selector.select(PATIENCE)
                    assert events, "the server has stopped answering"
                    for key, event in events:
                        self.transfer(selector, key, event)
            finally:
                for conn in clients:
                    conn.close()

    @staticmethod
    def transfer(selector, key, event):
        """Send some, receive some; unregister the client when all is back."""
        conn, (unsent, missing) = key.fileobj, key.data
        if event & selectors.EVENT_WRITE:
            key.data[0] = unsent = unsent[conn.send(unsent[:65536]) :]
            if not unsent:
                conn.shutdown(socket.SHUT_WR)
                selector.modify(conn, selectors.EVENT_READ, key.data)
        if event & selectors.EVENT_READ:
            data = conn.recv(65536)
            assert data == missing[: len(data)]
            key.data[1] = missing[len(data) :]
            if not data:
                assert not unsent and not missing
                selector.unregister(conn)

    @pytest.mark.parametrize("size", [0, 1, 9000, 65507])
    def test_sends_a_datagram_back(self, size):
        data = os.urandom(size)
        with echo_program() as demo, demo.udp() as sock:
            sock.send(data)
            assert sock.recv(65535) == data

    def test_ignores_datagrams_from_ports_below_1024(self):
        with echo_program() as demo:
            for port in range(1023, 1000, -1):
                try:
                    low = demo.udp(bind=("127.0.0.1", port))
                    break
                except PermissionError:
                    pytest.skip("ports below 1024 are not for this user")
                except OSError:
                    continue  # in use
            else:
                pytest.skip("no port below 1024 is free")
            with low, demo.udp() as ordinary:
                low.send(b"loop")
                ordinary.send(b"hello")
                assert ordinary.recv(100) == b"hello"  # so the earlier one has been dealt with
                low.setblocking(False)
                with pytest.raises(BlockingIOError):
                    low.recv(100)

    def test_serves_ipv6(self):
        if not has_ipv6():
            pytest.skip("no IPv6 here")
        with echo_program(host="::1") as demo:
            assert demo.lines[0].startswith("echo on ::1 port ")
            with demo.connect() as conn, demo.udp() as sock:
                for s in (conn, sock):
                    s.sendall(b"six")
                    assert s.recv(100) == b"six"

    def test_clients_that_break_off_leave_no_words(self):
        with echo_program() as demo:
            for linger in (False, True):
                for _ in range(10):
                    with demo.connect() as conn:
                        conn.settimeout(0)
                        try:
                            while True:
                                conn.send(bytes(65536))  # until nothing moves any more
                        except BlockingIOError:
                            pass
                        if linger:
                            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with demo.connect() as conn:
                conn.sendall(b"still there?")
                assert conn.recv(100) == b"still there?"
            status, _, err = demo.stop()
            assert status == 130
            assert "failed" not in err and "Traceback" not in err

    @pytest.mark.hazard("H16")
    @pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads /proc")
    def test_out_of_files_it_rests_and_goes_on_when_there_are_some_again(self):
        with echo_program(shell="ulimit -n 20") as demo:
            clients = [demo.connect() for _ in range(40)]
            try:
                for conn in clients:
                    conn.sendall(b"hello")
                served = self.answered(clients, wait=PATIENCE)
                while more := self.answered([c for c in clients if c not in served], wait=0.3):
                    served += more
                assert 0 < len(served) < 20  # the others are in the queue

                began, used = time.monotonic(), cpu_seconds(demo.process.pid)
                time.sleep(0.5)
                used = cpu_seconds(demo.process.pid) - used
                assert used < 0.25 * (time.monotonic() - began)  # spinning, it is nearly all

                while served:
                    for conn in served:
                        conn.close()
                        clients.remove(conn)
                    served = self.answered(clients, wait=PATIENCE) if clients else []
                assert not clients  # all have been served in the end
            finally:
                for conn in clients:
                    conn.close()

    @staticmethod
    def answered(clients, wait):
        """Return those that have an answer; wait for the first."""
        with selectors.DefaultSelector() as selector:
            for conn in clients:
                selector.register(conn, selectors.EVENT_READ)
            found = [key.fileobj for key, _ in selector.select(wait)]
        for conn in found:
            assert conn.recv(100) == b"hello"
        return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class TestTimeProgram:
    def test_says_how_to_talk_to_it(self):
        with time_program() as demo:
            one, two = demo.ports
            assert demo.lines == [
                f"time on 127.0.0.1 port {one}, TCP and UDP; try: rdate -p -o {one} 127.0.0.1\n",
                f"daytime on 127.0.0.1 port {two}, TCP and UDP; try: nc 127.0.0.1 {two}\n",
            ]

    @pytest.mark.parametrize("datagram", [b"", b"what time is it?"])
    def test_tells_the_seconds_since_1900(self, datagram):
        before = int(time.time())
        with time_program() as demo:
            with demo.connect() as conn:
                answers = [read_all(conn)]
            with demo.udp() as sock:
                sock.send(datagram)
                answers.append(sock.recv(100))
        for answer in answers:
            assert len(answer) == 4
            passed = (int.from_bytes(answer, "big") - 2208988800 - before) % 2**32
            assert passed <= time.time() - before

    def test_tells_the_time_of_day(self):
        before = int(time.time())
        with time_program() as demo:
            with demo.connect(demo.ports[1]) as conn:
                answers = [read_all(conn)]
            with demo.udp(demo.ports[1]) as sock:
                sock.send(b"")
                answers.append(sock.recv(100))
        for answer in answers:
            assert answer.endswith(b"\r\n")
            possible = {time.ctime(t) for t in range(before, int(time.time()) + 1)}
            assert answer[:-2].decode("ascii") in possible

    @pytest.mark.hazard("H26")
    @pytest.mark.parametrize("which", [0, 1])
    def test_what_a_client_has_sent_does_not_destroy_its_answer(self, which):
        with time_program() as demo:
            for _ in range(20):
                with demo.connect(demo.ports[which]) as conn:
                    conn.sendall(bytes(1000))
                    assert len(read_all(conn)) == (4, 26)[which]  # and no ConnectionResetError

    @pytest.mark.parametrize("options", [[], ["-u"]], ids=["TCP", "UDP"])
    def test_rdate_can_read_it(self, options):
        rdate = shutil.which("rdate") or shutil.which("rdate", path="/usr/sbin:/sbin")
        if rdate is None:
            pytest.skip("rdate is not installed")
        with time_program() as demo:
            before = int(time.time())
            done = subprocess.run(
                [rdate, "-p", *options, "-o", str(demo.ports[0]), "127.0.0.1"],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                env={**os.environ, "LC_ALL": "C"},
            )
            days = {time.ctime(t)[:10] for t in (before, time.time())}
            assert done.returncode == 0, done.stderr
            assert done.stdout[:10] in days


@pytest.mark.parametrize("program", [echo_program, time_program])
def test_ctrl_c_ends_it_quietly(program):
    with program() as demo, demo.connect() as conn, demo.connect():
        conn.sendall(b"x")
        assert conn.recv(1)  # so it has accepted
        status, out, err = demo.stop()
        assert (status, out) == (130, "")
        assert quiet(err), err


@pytest.mark.parametrize("name", ["echo", "time"])
class TestBothPrograms:
    def test_help_names_the_options(self, name):
        status, out, err = outcome(f"demos.{name}", "--help")
        assert (status, err) == (0, "")
        assert "--host" in out and "--port" in out and "Ctrl-C" in out
        assert ("--daytime-port" in out) == (name == "time")

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (["--port=seven"], 2),
            (["--nonsense"], 2),
            (["--port=65536"], 2),
            (["--port=-1"], 2),
            (["--host="], 2),
            (["--host=127.0.0..1"], 1),
            (["--host=192.0.2.1", "--port=0"], 1),  # an address of nobody's (RFC 5737)
        ],
    )
    def test_a_wrong_option_gets_one_line(self, name, options, expected):
        status, out, err = outcome(f"demos.{name}", *options)
        assert (status, out) == (expected, "")
        assert err.count("\n") == 1 and err.endswith("\n"), err

    @pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
    def test_a_port_in_use_gets_one_line(self, name, kind):
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                taken.listen()
            port = taken.getsockname()[1]
            status, out, err = outcome(f"demos.{name}", f"--port={port}")
        assert (status, out) == (1, "")
        assert err.count("\n") == 1 and str(port) in err and "in use" in err, err


def test_the_second_port_of_time_in_use_gets_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = outcome("demos.time", "--port=0", f"--daytime-port={port}")
    assert status == 1
    assert err.count("\n") == 1 and str(port) in err, err


# The parts of echo, inside ------------------------------------------------------------------------


@pytest.fixture
def port():
    with open_ports("127.0.0.1", 0) as (port,):
        yield port


def client(port) -> socket.socket:
    conn = socket.create_connection(port.tcp.getsockname())
    conn.setblocking(False)
    return conn


def until(true) -> Coro[None]:
    """Wait until `true()`, or fail."""
    deadline = now() + PATIENCE
    while not true():
        assert now() < deadline
        yield Sleep(0.001)


def tasks() -> float:
    return current_scheduler().stats()["tasks"]


class TestEchoParts:
    def test_clients_that_break_off_leave_nothing_behind(self, port):
        failures = []

        def send_until_full(conn):
            with pytest.raises(BlockingIOError):
                while True:
                    conn.send(bytes(65536))
            yield Sleep(0)

        def leave(conn, how):
            if how % 3 == 0:
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            elif how % 3 == 1:
                conn.shutdown(socket.SHUT_WR)
            conn.close()

        def main():
            server = spawn(echo_demo.serve, [port], echo_demo.echo, same)
            first = client(port)
            first.send(b"hello")
            yield ReadWait(first)
            assert first.recv(100) == b"hello"
            close(first)
            yield from until(lambda: tasks() == 4)  # main, serve, one for each transport
            files = open_files()
            for stuck in (False, True):
                clients = [client(port) for _ in range(30)]
                if stuck:  # in the middle of a transfer: the server waits to write
                    for conn in clients:
                        yield from send_until_full(conn)
                yield from until(lambda: tasks() == 34)
                for i, conn in enumerate(clients):
                    leave(conn, i)
                yield from until(lambda: tasks() == 4)
                assert open_files() == files
                assert current_scheduler().stats()["files"] == 2  # the server's own
            yield from server.stop()
            assert tasks() == 1
            assert open_files() == files

        run(main, on_task_error=lambda task, exc: failures.append(exc))
        assert failures == []

    @pytest.mark.hazard("H18")
    @pytest.mark.hazard("H19")
    def test_stopped_after_any_number_of_turns_it_closes_all_that_it_accepted(self):
        before = open_files()
        for turns in range(8):
            with open_ports("127.0.0.1", 0) as ports:
                scheduler = Scheduler()
                server = scheduler.spawn(echo_demo.serve, ports, echo_demo.echo, same)
                clients = [client(ports[0]) for _ in range(5)]
                for _ in range(turns):
                    scheduler.turn(0)
                server.cancel()
                while scheduler.tasks:
                    scheduler.turn(0)
                scheduler.close()
            for conn in clients:
                with conn:
                    conn.settimeout(PATIENCE)
                    try:
                        assert conn.recv(1) == b""
                    except ConnectionResetError:
                        pass  # it was still in the queue
        assert open_files() == before

    @pytest.mark.hazard("H21")
    def test_a_crowd_is_accepted_in_bounded_helpings(self, port):
        clients = [client(port) for _ in range(200)]
        helpings = []

        def main():
            server = spawn(echo_demo.serve, [port], echo_demo.echo, same)
            before = tasks()
            while (
                len(helpings) < 100 and sum(helpings) < 202
            ):  # the clients, and the two that serve
                yield
                helpings.append(tasks() - before)
                before = tasks()
            yield from server.stop()

        run(main)
        for conn in clients:
            conn.close()
        assert sum(helpings) == 202
        assert max(helpings) <= 65 and len(helpings) <= 20

    @pytest.mark.hazard("H17")
    @pytest.mark.parametrize(
        "code",
        ["ECONNABORTED", "EPERM", "EPROTO", "ENETDOWN", "EMFILE", "ENFILE", "ENOBUFS", "EAGAIN"],
    )
    def test_it_survives_what_accepting_throws(self, code):
        listener = Listener([getattr(errno, code)] * 3)
        with listener, socket.create_connection(listener.getsockname()) as conn:
            conn.setblocking(False)

            def main():
                server = spawn(echo_demo.accept_clients, listener, echo_demo.echo)
                conn.send(b"hello")
                yield ReadWait(conn)
                yield from server.stop()

            run(main, **virtual_time())
            assert conn.recv(100) == b"hello"
        assert listener.errors == []

    def test_it_rests_only_when_accepting_fails(self):
        for code, then in [
            (errno.EAGAIN, ReadWait),
            (errno.ECONNABORTED, ReadWait),
            (errno.EMFILE, Sleep),
            (errno.ENOMEM, Sleep),
        ]:
            with Listener([code]) as listener:
                task = echo_demo.accept_clients(listener, echo_demo.echo)
                assert [type(next(task)) for _ in range(3)][:2] == [ReadWait, then]
                task.close()

    @pytest.mark.hazard("H16")
    def test_out_of_files_it_tries_ten_times_a_second(self):
        listener = Listener([errno.EMFILE] * 1000)
        with listener, socket.create_connection(listener.getsockname()):

            def main():
                server = spawn(echo_demo.accept_clients, listener, echo_demo.echo)
                yield Sleep(10)
                yield from server.stop()

            run(main, **virtual_time())
        assert 90 <= 1000 - len(listener.errors) <= 101

    @pytest.mark.hazard("H12")
    def test_a_wake_for_nothing_is_no_end_of_file(self, pair):
        ours, theirs = pair
        spurious = Spurious(ours)

        def main():
            task = spawn(echo_demo.echo, spurious)
            theirs.send(b"hello")
            theirs.shutdown(socket.SHUT_WR)
            yield from task

        run(main)
        assert read_all(theirs) == b"hello"
        assert spurious.times == 2

    def test_datagrams_from_ports_below_1024_and_errors_are_passed_over(self):
        udp = Datagrams(
            [
                (b"echo", ("127.0.0.1", 7)),
                (b"time", ("127.0.0.1", 1023)),
                ConnectionRefusedError(errno.ECONNREFUSED, "of an earlier answer"),
                BlockingIOError(errno.EAGAIN, "woken for nothing"),
                (b"unreachable", ("127.0.0.1", 5000)),
                (b"", ("127.0.0.1", 1024)),
                (b"hello", ("::1", 1024, 0, 0)),
            ]
        )
        with udp:

            def main():
                server = spawn(echo_demo.answer_datagrams, udp, same, [])
                yield from until(lambda: not udp.script)
                yield
                yield from server.stop()

            run(main)
        assert udp.sent == [(b"", ("127.0.0.1", 1024)), (b"hello", ("::1", 1024, 0, 0))]


class TestWhomUDPAnswers:
    """Whoever sends a datagram can forge the address that the answer goes to."""

    def allowed(self, senders, question=b"x", answer=b"x", ports=()):
        caution = echo_demo.Caution(ports)
        return [sender for sender in senders if caution.allows(question, sender, answer)]

    @pytest.mark.found("D1")
    def test_no_service_of_the_system_and_none_of_the_program(self):
        senders = [("127.0.0.1", port) for port in (0, 7, 1023, 1024, 7013, 7037, 7038)]
        assert self.allowed(senders, ports={7013, 7037}) == [senders[3], senders[6]]

    @pytest.mark.found("D1")
    def test_nobody_too_often(self, monkeypatch):
        clock = [10.0]
        monkeypatch.setattr(echo_demo.time, "monotonic", lambda: clock[0])
        caution = echo_demo.Caution(())
        for _ in range(2):
            for host in ("192.0.2.1", "2001:db8::1"):
                senders = [(host, 2000 + n) for n in range(echo_demo.RATE + 5)]
                allowed = [each for each in senders if caution.allows(b"x", each, b"x")]
                assert len(allowed) == echo_demo.RATE
            clock[0] += 1

    @pytest.mark.found("D1")
    def test_nobody_elsewhere_with_more_than_was_sent_in_its_name(self):
        near = [("127.0.0.1", 5000), ("127.9.9.9", 5000), ("::1", 5000, 0, 0)]
        far = [("192.0.2.1", 5000), ("2001:db8::1", 5000, 0, 0)]
        assert self.allowed(near + far, b"", bytes(26)) == near
        assert self.allowed(near + far, bytes(25), bytes(26)) == near
        assert self.allowed(near + far, bytes(26), bytes(26)) == near + far
        # RFC 868 has no bytes in a question; on the wire an answer of four is no longer
        assert self.allowed(near + far, b"", bytes(4)) == near + far

    @pytest.mark.found("D1")
    def test_what_it_remembers_has_a_bound(self):
        caution = echo_demo.Caution(())
        for n in range(3 * echo_demo.MANY):
            assert caution.allows(b"x", (f"192.0.{n >> 8}.{n & 255}", 5000), b"x")
            assert len(caution.answers) <= echo_demo.MANY


class Listener(socket.socket):
    """A listening socket whose `accept` fails with each of `errors` first."""

    def __init__(self, errors: list[int]) -> None:
        super().__init__()
        self.errors = errors
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.setblocking(False)

    def accept(self):
        if self.errors:
            code = self.errors.pop()
            raise OSError(code, os.strerror(code))
        return super().accept()


class Spurious(socket.socket):
    """A socket whose first two reads find nothing."""

    times = 0

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.setblocking(False)

    def recv(self, size):
        if self.times < 2:
            self.times += 1
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        return super().recv(size)


class Datagrams(socket.socket):
    """A UDP socket that is always readable, receives what stands in `script`, and keeps `sent`."""

    def __init__(self, script: list) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.script = script
        self.sent = []
        self.bind(("127.0.0.1", 0))
        self.setblocking(False)
        super().sendto(b"to be readable", self.getsockname())

    def recvfrom(self, size):
        assert size == 65535
        if not self.script:
            return super().recvfrom(size)
        item = self.script.pop(0)
        if isinstance(item, OSError):
            raise item
        return item

    def sendto(self, data, address):
        if data == b"unreachable":
            raise OSError(errno.ENETUNREACH, "no way there")
        if address[1] != self.getsockname()[1]:  # not the one of our own that is left at the end
            self.sent.append((data, address))


def test_port_0_gives_tcp_and_udp_the_same_number():
    for _ in range(20):
        with open_ports("127.0.0.1", 0) as ((tcp, udp),):
            assert tcp.getsockname() == udp.getsockname()
            assert not tcp.getblocking() and not udp.getblocking()


def test_port_0_tries_again_when_a_number_is_free_for_tcp_only(monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        create_server = socket.create_server
        numbers = []

        def create(address, **options):
            tcp = create_server(address, **options)
            numbers.append(tcp.getsockname())
            if len(numbers) == 1:
                with suppress(OSError):  # then somebody else has it
                    taken.bind(numbers[0])
            return tcp

        monkeypatch.setattr(socket, "create_server", create)
        with open_ports("127.0.0.1", 0) as ((tcp, udp),):
            assert tcp.getsockname() == udp.getsockname() == numbers[-1]
        assert len(numbers) > 1


@pytest.mark.found("D9")
def test_a_name_with_two_addresses_has_one_number_at_both(monkeypatch):
    """Whether or not the names of this machine say so."""
    if not has_ipv6():
        pytest.skip("no IPv6 here")
    infos = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),  # nobody's (RFC 5737)
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: infos)
    with open_ports("name", 0) as ports:
        assert [port.tcp.getsockname()[0] for port in ports] == ["::1", "127.0.0.1"]
        assert len({port.number for port in ports}) == 1
        assert [port.udp.getsockname() for port in ports] == [
            port.tcp.getsockname() for port in ports
        ]
    del infos[:2], infos[1:]
    with pytest.raises(SystemExit, match=r"cannot listen on name port 0: .*assign"):
        with open_ports("name", 0):
            pass


def test_a_port_that_cannot_be_opened_leaves_no_socket_open():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        before = open_files()
        with pytest.raises(SystemExit, match="in use"), open_ports(*taken.getsockname()):
            pass
        assert open_files() == before


# The parts of time, inside ------------------------------------------------------------------------


class TestTimeParts:
    @pytest.mark.parametrize(
        ("clock", "number"),
        [
            (0, 2208988800),  # RFC 868's own: 1970-01-01
            (2398291200 - 2208988800, 2398291200),  # 1976-01-01
            (2524521600 - 2208988800, 2524521600),  # 1980-01-01
            (2629584000 - 2208988800, 2629584000),  # 1983-05-01
            (2**31 - 1, 2**31 - 1 + 2208988800 - 2**32),
            (2085978495, 0xFFFFFFFF),  # the last before it begins anew
            (2085978495.999, 0xFFFFFFFF),
            (2085978496, 0),
        ],
    )
    def test_seconds_since_1900(self, clock, number):
        assert time_demo.time_of(clock) == number.to_bytes(4, "big")

    def test_the_dates_of_the_rfc(self):
        for number, date in [
            (2208988800, (1970, 1, 1)),
            (2398291200, (1976, 1, 1)),
            (2524521600, (1980, 1, 1)),
            (2629584000, (1983, 5, 1)),
        ]:
            clock = calendar.timegm((*date, 0, 0, 0))
            assert time_demo.time_of(clock) == number.to_bytes(4, "big")

    def test_daytime_is_one_line(self):
        for clock in (0, 951_782_400, 2**31, 1.5):
            line = time_demo.daytime_of(clock)
            assert line == time.ctime(clock).encode() + b"\r\n"
            assert len(line) == 26 and line[:-2].decode().isprintable()

    @pytest.mark.parametrize("talks", [False, True], ids=["silent", "talks"])
    def test_a_client_that_does_not_close_is_hung_up_on(self, pair, talks):
        ours, theirs = pair

        def main():
            task = spawn(echo_demo.session, ours, partial(time_demo.tell, time_demo.time_of))
            yield ReadWait(theirs)
            assert len(theirs.recv(100)) == 4
            yield ReadWait(theirs)
            assert theirs.recv(100) == b""
            while talks and not task.done:
                try:
                    theirs.send(b"and another thing")
                except BrokenPipeError:
                    break
                yield Sleep(0.1)
            yield from task
            assert tasks() == 1
            return now()

        assert time_demo.PATIENCE <= run(main, **virtual_time()) <= time_demo.PATIENCE + 0.2
        assert ours.fileno() == -1

    def test_a_client_that_closes_is_gone_at_once(self, pair):
        ours, theirs = pair

        def main():
            task = spawn(echo_demo.session, ours, partial(time_demo.tell, time_demo.time_of))
            yield ReadWait(theirs)
            theirs.close()
            yield from task
            assert current_scheduler().stats()["timers"] <= 1  # the poller's own
            return now()

        assert run(main, **virtual_time()) == 0

    def test_an_answer_waits_for_room(self, pair):
        ours, theirs = pair
        answer = bytes(MIB)

        def main():
            spawn(echo_demo.session, ours, partial(time_demo.tell, lambda now: answer))
            received = 0
            while True:
                yield ReadWait(theirs)
                data = theirs.recv(65536)
                if not data:
                    break
                received += len(data)
            theirs.close()
            return received

        assert run(main) == MIB

    def test_clients_leave_nothing_behind(self):
        failures = []

        def main():
            server = spawn(time_demo.serve_both, one, two)
            # main, serve_both, serve_time, and one for each transport of both
            yield from until(lambda: tasks() == 7)
            yield Sleep(0)
            files = open_files()
            for port, size in ((one[0], 4), (two[0], 26)) * 10:
                with client(port) as conn:
                    yield WriteWait(conn)
                    conn.send(b"x")
                    yield ReadWait(conn)
                    assert len(conn.recv(100)) == size
                    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            yield from until(lambda: tasks() == 7)
            assert open_files() == files
            yield from server.stop()

        with open_ports("127.0.0.1", 0) as one, open_ports("127.0.0.1", 0) as two:
            run(main, on_task_error=lambda task, exc: failures.append(exc))
        assert failures == []
