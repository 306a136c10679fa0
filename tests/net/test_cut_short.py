"""What outlives a run that was cut short, streams and servers: they work in the next, or say so."""

from contextlib import suppress

import pytest

from corolib import ClosedError, RunFinished, listen_tcp, open_tcp, open_udp, timeout
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
