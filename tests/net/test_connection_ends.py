"""Every way in which a connection may end, with TLS and without: what is left, counted and said."""

import socket
import ssl

import pytest

from corolib import (
    Sleep,
    Stream,
    current_task,
    listen_tcp,
    spawn,
    timeout,
)
from tests.helpers.driving import echo, until
from tests.helpers.garbage import everything, garbage_of
from tests.helpers.inside import file_of, sockets_of
from tests.helpers.sockets import reset

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
            max_line=100,
            on_error=lambda exc, stream: None,
        )
        call = client(server, do, None if version is None else client_tls)
        task = spawn(passed_over(call))
        if end == "stopped":
            yield Sleep(1)
            yield from server.stop(0)
        yield from task
        yield from until(lambda: not server.stats()["open"])
        yield from server.stop(0)

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
