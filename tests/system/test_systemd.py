"""Sockets that systemd hands over, and what it is told."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from corolib import (
    inherited_datagrams,
    inherited_listeners,
    notify_systemd,
    open_tcp,
    open_udp,
    open_unix,
    run,
)
from corolib.system import systemd
from corolib.testing import open_files
from tests.helpers.inside import forget_handed_over

ROOT = str(Path(__file__).resolve().parents[2])
LOCAL = "127.0.0.1"
LIMIT = 200  # seconds, below that of the test itself
HIGH = 300  # a number above all files that are open here


@pytest.fixture
def handed_over(monkeypatch):
    """Hands sockets over to this process, as to one that was just started."""
    handed = []
    forget_handed_over()

    def hand_over(*sockets, names=None, pid=None, count=None):
        start = fcntl.fcntl(0, fcntl.F_DUPFD, HIGH)
        os.close(start)
        for number, sock in enumerate(sockets):
            os.dup2(sock.fileno(), start + number)
            handed.append(start + number)
        monkeypatch.setattr(systemd, "FIRST", start)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if pid is None else pid)
        monkeypatch.setenv("LISTEN_FDS", str(len(sockets)) if count is None else count)
        if names is not None:
            monkeypatch.setenv("LISTEN_FDNAMES", names)
        return handed

    yield hand_over
    forget_handed_over()
    for fd in handed:
        try:
            os.close(fd)
        except OSError:
            pass


def tcp():
    return socket.create_server((LOCAL, 0))


def udp():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((LOCAL, 0))
    return sock


def announced():
    """Return the variables that are still there."""
    return {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & set(os.environ)


def test_what_nobody_handed_over_is_not_found():
    forget_handed_over()
    assert inherited_listeners() == {}
    assert inherited_datagrams() == {}


def test_sockets_are_found_by_name_and_those_of_one_name_are_one_listener(handed_over, tmp_path):
    path = str(tmp_path / "socket")

    def main(listeners):
        for number in (0, 1):
            client = yield from open_tcp(*listeners["web"].addresses[number])
            with client, (yield from listeners["web"].accept()) as stream:
                yield from client.sendall(b"hello")
                assert (yield from stream.recv(10)) == b"hello"
        client = yield from open_unix(path)
        with client, (yield from listeners["control"].accept()):
            pass

    with tcp() as a, tcp() as b, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        handed = handed_over(a, unix, b, names="web:control:web")
        listeners = inherited_listeners()
        assert list(listeners) == ["web", "control"]
        assert listeners["web"].addresses == [a.getsockname(), b.getsockname()]
        assert listeners["control"].addresses == [path]
        assert not any(os.get_inheritable(fd) or os.get_blocking(fd) for fd in handed)
        run(main, listeners)
        for listener in listeners.values():
            listener.close()
        assert os.path.exists(path), "it belongs to systemd"
        socket.create_connection(a.getsockname()).close()  # which goes on listening
        assert not announced()


@pytest.mark.found("N15")
def test_another_call_returns_the_same(handed_over):
    with tcp() as a, udp() as b:
        handed_over(a, b, names="web:dns")
        listeners, datagrams = inherited_listeners(), inherited_datagrams()
        assert not announced()
        assert (inherited_listeners(), inherited_datagrams()) == (listeners, datagrams)
        listeners.clear()
        datagrams["dns"].clear()
        with inherited_listeners()["web"], inherited_datagrams()["dns"][0]:
            pass


@pytest.mark.found("N15")
def test_sockets_of_tcp_and_udp_that_came_together_are_both_served(handed_over):
    def main():
        listener, (datagrams,) = inherited_listeners()["dns"], inherited_datagrams()["dns"]
        with listener, datagrams:
            client = yield from open_tcp(*a.getsockname())
            with client, (yield from listener.accept()) as stream:
                yield from client.sendall(b"hello")
                assert (yield from stream.recv(10)) == b"hello"
            with (yield from open_udp(*b.getsockname())) as client:
                yield from client.send(b"question")
                data, peer = yield from datagrams.recvfrom()
                yield from datagrams.sendto(data.upper(), peer)
                assert (yield from client.recv()) == b"QUESTION"

    with tcp() as a, udp() as b:
        handed = handed_over(b, a, names="dns:dns")
        run(main)
        assert not any(fd in open_files() for fd in handed)


def test_sockets_for_datagrams_of_one_name_stay_apart(handed_over, tmp_path):
    path = str(tmp_path / "socket")
    with udp() as a, udp() as b, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        unix.bind(path)
        handed = handed_over(a, unix, b, names="dns:log:dns")
        found = inherited_datagrams()
        assert [sock.local for sock in found["dns"]] == [a.getsockname(), b.getsockname()]
        assert [sock.local for sock in found["log"]] == [path]
        assert inherited_listeners() == {}
        assert not any(os.get_inheritable(fd) or os.get_blocking(fd) for fd in handed)
        for sock in (*found["dns"], *found["log"]):
            sock.close()


@pytest.mark.found("N15")
def test_files_of_other_kinds_stay_as_they_are(handed_over, tmp_path):
    """A FIFO, and a socket that keeps the bounds of messages."""
    os.mkfifo(tmp_path / "fifo")
    with (
        open(os.open(tmp_path / "fifo", os.O_RDWR), "rb", buffering=0) as fifo,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as packets,
        socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM) as kernel,
        tcp() as a,
    ):
        handed = handed_over(fifo, packets, kernel, a, names="fifo:packets:kernel:web")
        with inherited_listeners().pop("web") as listener:
            assert listener.addresses == [a.getsockname()]
        assert inherited_datagrams() == {}
        assert all(os.get_inheritable(fd) and os.get_blocking(fd) for fd in handed[:3])


def test_sockets_without_names_are_one_listener(handed_over):
    with tcp() as a, tcp() as b:
        handed_over(a, b)
        listeners = inherited_listeners()
        with listeners.pop("unknown") as listener:
            assert listener.addresses == [a.getsockname(), b.getsockname()]
        assert listeners == {}


@pytest.mark.parametrize("pid", ["", "1", "x"])
def test_what_is_for_another_process_is_left_alone(handed_over, pid):
    with tcp() as a:
        (fd,) = handed_over(a, pid=pid)
        assert inherited_listeners() == inherited_datagrams() == {}
        assert os.get_inheritable(fd)
        assert not announced()


def test_a_number_that_is_missing_or_zero_is_nothing(handed_over, monkeypatch):
    handed_over(names="")
    monkeypatch.delenv("LISTEN_FDNAMES")
    assert inherited_listeners() == {}
    handed_over()
    monkeypatch.delenv("LISTEN_FDS")
    assert inherited_listeners() == {}


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"count": "-1"}, "LISTEN_FDS='-1'"),
        ({"count": "one"}, "LISTEN_FDS='one'"),
        ({"count": "9" * 30}, "LISTEN_FDS='99999"),
        ({"names": "a:b"}, "LISTEN_FDNAMES='a:b': these are not the names of 1 files"),
    ],
)
def test_variables_that_make_no_sense_are_an_error(handed_over, variables, text):
    with tcp() as a:
        handed_over(a, **variables)
        for call in (inherited_listeners, inherited_datagrams, inherited_listeners):
            with pytest.raises(ValueError, match=text):
                call()


def test_what_does_not_listen_is_an_error_and_all_stay_open(handed_over):
    with tcp() as a, socket.create_connection(a.getsockname()) as b, udp() as c:
        handed = handed_over(c, a, b)
        before = open_files()
        with pytest.raises(ValueError, match="not a listening socket"):
            inherited_listeners()
        assert open_files() == before
        assert all(map(os.fstat, handed))
        assert len(announced()) == 2
        handed_over(a, count="2")
        with pytest.raises(OSError):
            inherited_listeners()


# Real programs ------------------------------------------------------------------------------------

SERVER = """
    import os
    from corolib import inherited_listeners, run

    def main(listener):
        stream = yield from listener.accept()
        with stream:
            yield from stream.sendall(names.encode())

    listeners = inherited_listeners()
    assert "LISTEN_FDS" not in os.environ
    names = " ".join(f"{name}={len(l.addresses)}" for name, l in listeners.items())
    run(main, listeners["web"])
"""


@pytest.fixture
def server(tmp_path):
    path = tmp_path / "server.py"
    path.write_text(textwrap.dedent(SERVER))
    return str(path)


def answer(address):
    with socket.create_connection(address, LIMIT) as client:
        return client.recv(100)


# As systemd does it: after the fork the sockets become 3, 4, ...; then the program takes the place.
HAND_OVER = """
import fcntl, os, sys
path, *fds = sys.argv[1:]
for number, fd in enumerate([fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in fds]):
    os.dup2(fd, 3 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES="web:admin")
os.execv(sys.executable, [sys.executable, path])
"""


def test_a_program_that_was_started_with_sockets_serves_them(server):
    with tcp() as a, tcp() as b:
        fds = [a.fileno(), b.fileno()]
        with subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, server, *map(str, fds)],
            env={**os.environ, "PYTHONPATH": ROOT},
            cwd=ROOT,
            pass_fds=fds,
        ) as process:
            assert answer(a.getsockname()) == b"web=1 admin=1"
            assert process.wait(LIMIT) == 0


@pytest.mark.skipif(
    not shutil.which("systemd-socket-activate"), reason="there is no systemd-socket-activate here"
)
def test_systemd_hands_over_a_tcp_and_a_unix_socket(server, tmp_path):
    with tcp() as free:
        address = free.getsockname()
    command = ["systemd-socket-activate", f"--listen={LOCAL}:{address[1]}"]
    command += [f"--listen={tmp_path}/socket", "--fdname=web:control", "--setenv=PYTHONPATH"]
    with subprocess.Popen(
        [*command, sys.executable, server],
        env={**os.environ, "PYTHONPATH": ROOT},
        cwd=ROOT,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            for line in process.stderr:
                if b"/socket" in line:  # it listens on the second, and so on the first
                    break
            assert answer(address) == b"web=1 control=1"
            assert process.wait(LIMIT) == 0
        finally:
            process.send_signal(signal.SIGKILL)


# A word back --------------------------------------------------------------------------------------


@pytest.fixture
def manager():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        yield sock


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_is_told_on_a_path_or_an_abstract_name(manager, monkeypatch, tmp_path, kind):
    def main():
        yield
        return notify_systemd("STOPPING=1\nSTATUS=tsch\u00fcs")

    name = str(tmp_path / "notify")
    manager.bind(name if kind == "path" else "\0" + name)
    monkeypatch.setenv("NOTIFY_SOCKET", name if kind == "path" else "@" + name)
    before = open_files()
    assert notify_systemd("READY=1") is True
    assert run(main) is True
    assert open_files() == before
    assert manager.recv(100) == b"READY=1"
    assert manager.recv(100).decode() == "STOPPING=1\nSTATUS=tsch\u00fcs"
    assert os.environ["NOTIFY_SOCKET"], "there may be more to tell"


def test_where_nobody_wants_to_hear_it_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify_systemd("READY=1") is False
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    assert notify_systemd("READY=1") is False


def test_what_cannot_be_told_is_an_error(manager, monkeypatch, tmp_path):
    path = str(tmp_path / "notify")
    before = open_files()
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1234")
    with pytest.raises(ValueError, match=r"NOTIFY_SOCKET='vsock:2:1234'.*neither a path"):
        notify_systemd("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with pytest.raises(FileNotFoundError):
        notify_systemd("READY=1")
    manager.bind(path)
    with pytest.raises(BlockingIOError):
        while True:  # nobody reads
            notify_systemd("READY=1")
    manager.close()
    with pytest.raises(ConnectionRefusedError):
        notify_systemd("READY=1")
    assert len(open_files()) == len(before) - 1
