"""The socket under a stream: its options, who is at the other end, and how it is reset."""

import io
import os
import socket
import subprocess
import sys

import pytest

from corolib import (
    ClosedError,
    PeerCredentials,
    Stream,
    TaskGroup,
    listen_tcp,
    listen_unix,
    open_process,
    open_tcp,
    open_unix,
    run,
    spawn,
)
from tests.helpers.driving import echo
from tests.helpers.sockets import make_tcp

LOCAL = "127.0.0.1"
ME = PeerCredentials(os.getpid(), os.getuid(), os.getgid())

# Linux's, of tcp(7): number and unit.
OPTIONS = {
    "keep-alive": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    "idle": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    "interval": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    "probes": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    "user timeout": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    "no delay": (socket.IPPROTO_TCP, socket.TCP_NODELAY),
}


def options_of(sock):
    return {name: sock.getsockopt(*option) for name, option in OPTIONS.items()}


def both_ends(options, **listening):
    """Return the options of a client's socket, and of the one that the server has accepted."""

    def handler(stream):
        seen.append(options_of(stream.socket))
        yield from stream.recv(1)

    def main():
        server = listen_tcp(**(listening or {"host": LOCAL, "port": 0}), **options).serve(handler)
        with (yield from open_tcp(*server.listener.addresses[0], **options)) as stream:
            seen.append(options_of(stream.socket))
            yield from stream.sendall(b"x")
            yield from stream.recv(1)
        yield from server.stop()
        return seen

    seen = []
    return run(main)


@pytest.fixture
def system():
    """What a socket of the system has."""
    with socket.socket() as sock:
        yield options_of(sock)


@pytest.mark.found("N9")
def test_the_socket_of_a_stream_is_there_for_its_options(pair):
    with Stream(pair[0]) as stream:
        assert stream.socket is pair[0]
    with pytest.raises(ClosedError, match="closed"):
        stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)


@pytest.mark.found("N9")
def test_a_pipe_has_no_socket():
    def main():
        process = yield from open_process([sys.executable, "-c", ""], stdout=subprocess.PIPE)
        with pytest.raises(io.UnsupportedOperation, match="not a socket"):
            process.stdout.socket.fileno()
        process.stdout.reset()
        with pytest.raises(ClosedError):
            yield from process.stdout.recv(1)
        yield from process.wait()

    run(main)


# Peers that vanish --------------------------------------------------------------------------------


@pytest.mark.found("N9")
def test_both_ends_are_kept_alive_with_the_times_of_the_system(system):
    for seen in both_ends({}):
        assert seen == {**system, "keep-alive": 1, "no delay": 1}


@pytest.mark.found("N9")
@pytest.mark.parametrize(
    ("seconds", "idle", "interval"), [(60, 60, 15), (0.5, 1, 1), (9.5, 10, 3), (1e9, 32767, 8192)]
)
def test_how_soon_a_silent_peer_is_asked_can_be_said(system, seconds, idle, interval):
    for seen in both_ends({"keepalive": seconds}):
        times = {"idle": idle, "interval": interval, "probes": 4}
        assert seen == {**system, "keep-alive": 1, "no delay": 1, **times}


@pytest.mark.found("N9")
@pytest.mark.parametrize(("seconds", "ms"), [(30, 30_000), (0.0001, 1), (1e9, 2**31 - 1)])
def test_how_long_may_be_sent_into_the_void_can_be_said(system, seconds, ms):
    for seen in both_ends({"user_timeout": seconds}):
        assert seen == {**system, "keep-alive": 1, "no delay": 1, "user timeout": ms}


@pytest.mark.found("N9")
def test_inherited_sockets_hand_their_options_on_as_well(system):
    sock = socket.create_server((LOCAL, 0))
    for seen in both_ends({"keepalive": 60, "user_timeout": 30}, fd=sock.detach()):
        times = {"idle": 60, "interval": 15, "probes": 4, "user timeout": 30_000}
        assert seen == {**system, "keep-alive": 1, "no delay": 1, **times}


@pytest.mark.parametrize("keyword", ["keepalive", "user_timeout"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_what_is_no_time_is_refused(keyword, value, error):
    with pytest.raises(error, match=rf"listen_tcp\({keyword}=\) got"):
        listen_tcp(LOCAL, 0, **{keyword: value})
    with pytest.raises(error, match=rf"open_tcp\({keyword}=\) got"):
        run(lambda: open_tcp(LOCAL, 1, **{keyword: value}))


# Peers of Unix sockets ----------------------------------------------------------------------------


@pytest.mark.found("N9")
@pytest.mark.parametrize("let_in", [True, False])
def test_a_unix_server_knows_who_is_there(tmp_path, let_in):
    def accept(who):
        asked.append(who)
        return let_in and who.uid == os.getuid()

    def main():
        server = listen_unix(tmp_path / "socket").serve(echo, accept=accept)
        with (yield from open_unix(tmp_path / "socket")) as stream:
            assert stream.peer_credentials == ME
            if let_in:
                yield from stream.sendall(b"x")
            got = yield from stream.recv(1)
        assert server.stats()["refused"] == (not let_in)
        yield from server.stop()
        return got

    asked = []
    assert run(main) == (b"x" if let_in else b"")
    assert asked == [ME]


@pytest.mark.found("N9")
def test_over_tcp_nobody_is_known(monkeypatch):
    a, b = make_tcp()
    with b, Stream(a) as stream:
        with pytest.raises(io.UnsupportedOperation, match="only Unix sockets"):
            _ = stream.peer_credentials
        with pytest.raises(ClosedError):
            stream.close()
            _ = stream.peer_credentials
    monkeypatch.delattr(socket, "SO_PEERCRED")
    a, b = socket.socketpair()
    a.setblocking(False)
    with b, Stream(a) as stream, pytest.raises(io.UnsupportedOperation, match="on Linux"):
        _ = stream.peer_credentials


# Resets -------------------------------------------------------------------------------------------


@pytest.mark.found("N9")
def test_a_reset_is_told_from_an_end():
    def main():
        a, b = make_tcp()
        with Stream(a) as near, Stream(b) as far:
            reader = spawn(near.recv, 1)
            yield
            yield from far.sendall(b"x")
            yield from reader
            reader = spawn(near.recv, 1)
            yield
            near.reset()
            near.reset()
            with pytest.raises(ClosedError):
                yield from reader
            with pytest.raises(ConnectionResetError):
                yield from far.recv(1)

    run(main)


def test_a_stream_can_be_reset_when_the_run_is_over():
    a, b = make_tcp()
    stream = Stream(a)
    stream.reset()
    with b, pytest.raises(ConnectionResetError):
        b.recv(1)


@pytest.mark.found("N9")
def test_under_tls_it_is_the_connection_that_is_reset(server_tls, client_tls):
    def main():
        a, b = make_tcp()
        with Stream(a) as near, Stream(b) as far:
            with TaskGroup() as group:
                group.spawn(far.start_tls(server_tls, server_side=True))
                group.spawn(near.start_tls(client_tls, server_hostname="localhost"))
                yield from group
            assert near.socket is a
            yield from far.sendall(b"x")
            assert (yield from near.recv(1)) == b"x"
            reader = spawn(near.recv, 1)
            yield
            near.reset()
            with pytest.raises(ClosedError):
                yield from reader
            with pytest.raises(ConnectionResetError):
                yield from far.recv(1)

    run(main)
