"""What outlives a run that was cut short, streams and servers: they work in the next, or say so."""

import socket
from contextlib import suppress

import pytest

from corolib import (
    ClosedError,
    RunFinished,
    Stream,
    TaskGroup,
    listen_tcp,
    open_tcp,
    open_udp,
    spawn,
    timeout,
)
from corolib.testing import open_files
from tests.helpers.cuts import close_after, cut_short_everywhere
from tests.helpers.driving import echo


def talk(things, done):
    """A client asks twice and leaves, and the server stops."""
    things["listener"] = listener = listen_tcp("127.0.0.1", 0)
    things["server"] = server = listener.serve(echo)
    things["stream"] = stream = yield from open_tcp(*listener.addresses[0][:2])
    for _ in range(2):
        yield from stream.sendall(b"x")
        yield from stream.recv(10)
    stream.close()
    yield from server.stop()


def the_stream_ends(things, done):
    """What was sent arrives, and then the end: nobody is at the other side any more."""
    if "stream" in things:
        with timeout(60), suppress(ConnectionResetError, ClosedError):
            while (yield from things["stream"].recv(100)):
                pass
    yield


def the_server_is_told_of(things, done):
    if "server" in things:
        server = things["server"]
        with timeout(60):
            if server.task.done:
                yield from server
                return
            with pytest.raises(RunFinished):
                yield from server
            with pytest.raises(RunFinished):
                yield from server.stop()
    yield


def the_listener_is_closed(things, done):
    if "listener" in things:
        with pytest.raises(ClosedError):
            yield from things["listener"].accept()
        with pytest.raises(RuntimeError, match="closed> is served already"):
            things["listener"].serve(echo)
    yield


@pytest.mark.found("T6")
@pytest.mark.parametrize("ask", [the_stream_ends, the_server_is_told_of, the_listener_is_closed])
def test_what_a_client_and_a_server_leave_of_a_run_that_was_cut_short(ask):
    before = open_files()

    def check(things, done):
        yield from ask(things, done)
        if "stream" in things:
            things["stream"].close()

    cut_short_everywhere(close_after, dict, talk, check)
    assert open_files() == before


@pytest.mark.found("T6")
def test_a_listener_that_nobody_served_goes_on_in_the_next_run():
    def work(things, done):
        things.append(listen_tcp("127.0.0.1", 0))
        accepting = spawn(accept_two, things[0])
        yield from greet_two(things[0])
        yield from accepting
        things.pop().close()

    def accept_two(listener):
        for _ in range(2):
            with (yield from listener.accept()) as stream:
                yield from stream.sendall(b"welcome")

    def greet_two(listener):
        for _ in range(2):
            with (yield from open_tcp(*listener.addresses[0][:2])) as stream:
                assert (yield from stream.readexactly(7)) == b"welcome"

    def check(things, done):
        for listener in things:
            with listener, timeout(60), TaskGroup() as g:
                # Those who came before have gone.
                g.spawn(accept_until_welcome, listener)
                yield from greet_two(listener)
                g.cancel()

    def accept_until_welcome(listener):
        while True:
            with (yield from listener.accept()) as stream, suppress(ConnectionError):
                yield from stream.sendall(b"welcome")

    cut_short_everywhere(close_after, list, work, check)


@pytest.mark.found("T6")
def test_no_byte_of_a_stream_is_lost_or_comes_twice():
    """What a reader was given it has taken; what it had in part only comes in the next run."""

    def make():
        a, b = socket.socketpair()
        a.setblocking(False)
        b.setblocking(False)
        made[:] = Stream(a), Stream(b)
        return tuple(made)

    def work(pair, done):
        spawn(read_lines, pair[1], done)
        for number in range(4):
            for part in b"%d" % number * 3, b"\n":
                yield from pair[0].sendall(part)
                yield
        yield from pair[0].send_eof()

    def read_lines(stream, done):
        while line := (yield from stream.readline()):
            done.append(line)

    def check(pair, done):
        a, b = pair
        with a, b:
            with suppress(ClosedError, OSError):
                yield from a.send_eof()
            while line := (yield from b.readline()):
                done.append(line)
        whole = b"".join(b"%d" % number * 3 + b"\n" for number in range(4))
        assert whole.startswith(b"".join(done))
        assert all(line.endswith(b"\n") for line in done[:-1])
        lengths.add(len(b"".join(done)))

    lengths, made = set(), []
    cut_short_everywhere(close_after, make, work, check)
    for stream in made:
        stream.close()
    assert lengths == {0, 3, 4, 7, 8, 11, 12, 15, 16}


@pytest.mark.found("T6")
def test_a_server_for_datagrams_is_closed_and_says_so():
    def work(things, done):
        things["socket"] = sock = yield from open_udp(local=("127.0.0.1", 0))
        things["server"] = server = sock.serve(lambda data, sender: data)
        with (yield from open_udp(*sock.local)) as client:
            for _ in range(2):
                yield from client.send(b"x")
                yield from client.recv()
        yield from server.stop()

    def check(things, done):
        if "server" in things:
            with pytest.raises(ClosedError):
                yield from things["socket"].recvfrom()
            if not things["server"].task.done:
                with pytest.raises(RunFinished):
                    yield from things["server"].stop()
        elif "socket" in things:
            things["socket"].close()
        yield

    before = open_files()
    cut_short_everywhere(close_after, dict, work, check)
    assert open_files() == before


@pytest.mark.found("T6")
def test_a_server_that_waits_for_headers_of_proxies_is_closed_and_says_so():
    """One has said nothing, one the half, one all; that one is served."""
    header = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n"

    def work(things, done):
        things["listener"] = listener = listen_tcp("127.0.0.1", 0)
        things["server"] = server = listener.serve(echo, proxy_from=["127.0.0.1"])
        address = listener.addresses[0][:2]
        things["streams"] = streams = []
        for _ in range(3):
            streams.append((yield from open_tcp(*address)))
        yield from streams[1].sendall(header[:20])
        for part in header[:9], header[9:], b"x":
            yield from streams[2].sendall(part)
            yield
        yield from streams[2].recv(10)
        yield from server.stop(grace=0.1)
        for stream in streams:
            stream.close()

    def check(things, done):
        for stream in things.get("streams", ()):
            yield from the_stream_ends({"stream": stream}, done)
            stream.close()
        yield from the_server_is_told_of(things, done)
        yield from the_listener_is_closed(things, done)

    before = open_files()
    cut_short_everywhere(close_after, dict, work, check)
    assert open_files() == before


@pytest.mark.found("T6")
def test_a_datagram_socket_goes_on_in_the_next_run():
    def work(socks, done):
        socks.append((yield from open_udp(local=("127.0.0.1", 0))))
        for _ in range(3):
            yield from socks[0].sendto(b"old", socks[0].local)
            yield from socks[0].recvfrom()
        socks.pop().close()

    def check(socks, done):
        for sock in socks:
            yield from sock.sendto(b"new", sock.local)
            with timeout(60):
                while (yield from sock.recvfrom())[0] != b"new":
                    pass
            sock.close()
        yield

    cut_short_everywhere(close_after, list, work, check)
