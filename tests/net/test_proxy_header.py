"""The PROXY protocol: headers, whole, in pieces and mutated; and servers behind a balancer."""

import ipaddress
import logging
import random
import socket
import struct

import pytest

from corolib import ReadWait, current_scheduler, listen_tcp, listen_unix, now, open_tcp, run, spawn
from corolib.net.proxy_header import (
    LONGEST,
    LONGEST_LINE,
    SIGNATURE,
    Proxies,
    ProxyHeaderError,
    client,
    missing,
)
from corolib.testing import open_files, virtual_time
from tests.helpers import haproxy
from tests.helpers.clients import dial, everything
from tests.helpers.driving import echo, until

LOCAL = "127.0.0.1"
LINE4 = b"PROXY TCP4 192.0.2.1 198.51.100.7 51000 443\r\n"
LINE6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 51000 443\r\n"
LONG_LINE = b"PROXY UNKNOWN " + b" ".join([b":".join([b"ffff"] * 8)] * 2 + [b"65535"] * 2) + b"\r\n"


def header(command=0x21, kind=0x11, addresses=None, more=b"", size=None):
    """Return one of version 2."""
    if addresses is None:
        addresses = struct.pack("!4s4sHH", bytes([192, 0, 2, 1]), bytes(4), 51000, 443)
    rest = addresses + more
    return (
        SIGNATURE + struct.pack("!BBH", command, kind, len(rest) if size is None else size) + rest
    )


SIX = struct.pack(
    "!16s16sHH", socket.inet_pton(socket.AF_INET6, "2001:db8::1"), bytes(16), 51000, 1
)
HEADERS = [
    (LINE4, ("192.0.2.1", 51000)),
    (LINE6, ("2001:db8::1", 51000, 0, 0)),
    (b"PROXY UNKNOWN\r\n", None),
    (LONG_LINE, None),
    (header(), ("192.0.2.1", 51000)),
    (header(kind=0x21, addresses=SIX), ("2001:db8::1", 51000, 0, 0)),
    (header(more=b"\x04\x00\x03abc"), ("192.0.2.1", 51000)),
    (header(more=bytes(LONGEST - 28)), ("192.0.2.1", 51000)),
    (header(command=0x20), None),
    (header(command=0x20, kind=0, addresses=b""), None),
    (header(kind=0, addresses=b""), None),
    (header(kind=0x12), None),
    (header(kind=0x31, addresses=bytes(216)), None),
]
BROKEN = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00",
    b"PROXY TCP4 192.0.2.1\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 51000 443\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 51000 443 1\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 51000 65536\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 051000 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 -1 443\r\n",
    "PROXY TCP4 192.0.2.1 198.51.100.7 ٣ 443\r\n".encode(),
    b"PROXY TCP4 192.0.2.1 198.51.100.7 \xb2 443\r\n",
    b"PROXY TCP4 192.0.2 198.51.100.7 51000 443\r\n",
    b"PROXY TCP4 192.0.2.1\0 198.51.100.7 51000 443\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 51000 443\r\n",
    b"PROXY TCP5 192.0.2.1 198.51.100.7 51000 443\r\n",
    b"PROXY  TCP4 192.0.2.1 198.51.100.7 51000 443\r\n",
    b"PROXY UNKNOWN " + b"x" * LONGEST_LINE + b"\r\n",
    header(command=0x22),
    header(command=0x11),
    header(size=8),
    header(kind=0x21),
    header(size=LONGEST - 15, more=bytes(LONGEST)),
]


def take(data):
    """Read a header as from a socket that has all of `data`: how much of it is read, the client."""
    taken = 0
    while count := missing(data[:taken]):
        assert count > 0
        if taken == len(data):
            return taken, "more"
        taken = min(taken + count, len(data))
    return taken, client(data[:taken])


@pytest.mark.parametrize(("data", "peer"), HEADERS)
def test_a_header_is_read_to_its_last_byte_and_no_further(data, peer):
    for behind in (b"", b"\r\n", b"PROXY ", bytes(200)):
        assert take(data + behind) == (len(data), peer)


@pytest.mark.parametrize(("data", "peer"), HEADERS)
def test_a_header_may_come_in_any_two_pieces(data, peer):
    """Of the first no byte too many is asked for: else the second would be short of one."""
    for cut in range(1, min(len(data), 300)):
        taken, found = take(data[:cut])
        assert (taken, found) == (cut, "more")
        assert missing(data[:cut]) <= len(data) - cut


@pytest.mark.parametrize("data", BROKEN)
def test_what_is_no_header_is_refused_at_once(data):
    with pytest.raises(ProxyHeaderError, match="no PROXY header"):
        take(data)


def test_a_header_that_never_ends_is_refused_when_it_is_too_long():
    endless = b"PROXY UNKNOWN" + b" x" * 1000
    for size in range(LONGEST_LINE):
        assert 0 < missing(endless[:size]) <= LONGEST_LINE - size
    with pytest.raises(ProxyHeaderError):
        missing(endless[:LONGEST_LINE])


def is_right(data, peer):
    """Return whether the standard library reads an address of a header as we do."""
    if data.startswith(SIGNATURE):
        assert data[12] == 0x21
        size = 4 if data[13] == 0x11 else 16
        host, port = data[16 : 16 + size], data[16 + 2 * size :][:2]
        return (str(ipaddress.ip_address(host)), *struct.unpack("!H", port)) == peer[:2]
    words = data[:-2].decode("ascii").split(" ")
    host = ipaddress.ip_address(words[2])
    assert (words[1], len(words)) == (f"TCP{host.version}", 6)
    ipaddress.ip_address(words[3])
    return (host, int(words[4])) == (ipaddress.ip_address(peer[0]), peer[1])


def mutated(count):
    """Yield headers with some bytes changed, put in, taken out or said twice."""
    chance = random.Random(20)
    sound = [data for data, _ in HEADERS if len(data) < 300]
    for _ in range(count):
        data = bytearray(chance.choice(sound))
        for _ in range(chance.choice((1, 1, 2, 4))):
            at = chance.randrange(len(data))
            match chance.randrange(4):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    data[at] ^= 1 << chance.randrange(8)
                case 2:
                    del data[at : at + chance.randrange(1, 4)]
                case _:
                    data[at:at] = chance.choice((data[at : at + 5], b"\r\n", b" ", b"0", b"\0"))
        yield bytes(data)


def test_a_mutated_header_is_refused_or_says_what_it_says():
    ends = {"refused": 0, "more": 0, "client": 0, "none": 0}
    for data in mutated(2000):
        try:
            taken, peer = take(data)
        except ProxyHeaderError:
            ends["refused"] += 1
            continue
        assert taken <= len(data)
        if peer == "more":
            ends["more"] += 1
        elif peer is None:
            ends["none"] += 1
        else:
            ends["client"] += 1
            assert is_right(data[:taken], peer)
    assert min(ends.values()) > 50


# Who is believed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "believed"),
    [
        (("10.1.2.3", 5), True),
        (("11.1.2.3", 5), False),
        (("::ffff:10.1.2.3", 5, 0, 0), True),
        (("fe80::1%2", 5, 0, 2), True),
        (("fe80::2", 5, 0, 2), False),
        ("", False),
    ],
)
def test_networks_are_believed(peer, believed):
    assert Proxies(["10.0.0.0/8", "fe80::1"]).trusts(peer) is believed


def test_a_unix_socket_is_believed_if_that_is_said():
    assert Proxies(["unix"]).trusts("")


# Servers ------------------------------------------------------------------------------------------


def say_who(stream):
    """Tell who the peer is, and send back what comes first."""
    data = yield from stream.recv(100)
    yield from stream.sendall(f"{stream.peer} {data}".encode())


def serving(scenario, handler=say_who, trusted=(LOCAL,), listen=None, options=None, **limits):
    """Run `scenario(server)` beside one that trusts 127.0.0.1; nothing is left open."""

    def main():
        listener = listen_tcp(LOCAL, 0) if listen is None else listen_unix(listen)
        server = listener.serve(handler, proxy_from=trusted, **limits)
        try:
            return (yield from scenario(server))
        finally:
            yield from server.stop(0)
            assert server.stats()["open"] == 0

    before = open_files()
    result = run(main, **({} if options is None else options))
    assert open_files() == before
    return result


def ask(server, *pieces):
    """Connect, send the pieces one after another, and wait for what comes back."""
    with dial(server) as sock:
        for piece in pieces:
            sock.send(piece)
            yield
        return (yield from everything(sock)).decode()


def settled(server, **counts):
    """Wait until nobody is served, and look at counts."""
    yield from until(lambda: not server.stats()["open"])
    yield from until(lambda: counts.items() <= server.stats().items())


def test_the_peer_is_the_client():
    def scenario(server):
        for data, peer in HEADERS:
            if peer is not None:
                assert (yield from ask(server, data + b"x")) == f"{peer} b'x'"
        assert (yield from ask(server, LINE4[:20], LINE4[20:], b"x")).startswith("('192.0.2.1'")
        with dial(server) as sock:
            sock.send(b"PROXY UNKNOWN\r\nx")
            assert (yield from everything(sock)).decode() == f"{sock.getsockname()} b'x'"
        yield from settled(server, failed=0, reset=0)

    serving(scenario)


def test_nothing_behind_the_header_is_read():
    """So a handler may read from the socket itself, and TLS begins where it begins."""

    def handler(stream):
        yield from stream.sendall(stream.socket.recv(100))

    def scenario(server):
        for data, _ in HEADERS:
            assert (yield from ask(server, data + b"all of it")) == "all of it"

    serving(scenario, handler)


def test_the_header_of_a_stranger_is_data():
    def scenario(server):
        with dial(server) as sock:
            sock.send(LINE4)
            assert (yield from everything(sock)).decode() == f"{sock.getsockname()} {LINE4!r}"

    serving(scenario, trusted=["10.0.0.0/8", "127.0.0.2"])
    serving(scenario, trusted=[])


def test_of_two_headers_the_second_is_data():
    def scenario(server):
        answer = yield from ask(server, LINE6 + LINE4)
        assert answer == f"{('2001:db8::1', 51000, 0, 0)} {LINE4!r}"

    serving(scenario)


def test_a_proxy_without_a_right_header_is_cut_with_one_line_for_all(caplog):
    def scenario(server):
        for data in BROKEN:
            assert (yield from ask(server, data)) == ""
        with dial(server) as sock:
            sock.send(LINE4[:30])
            sock.shutdown(socket.SHUT_WR)
            assert (yield from everything(sock)).decode() == ""
        yield from settled(server, failed=len(BROKEN) + 1, reset=0)

    with caplog.at_level(logging.WARNING, "corolib.server"):
        serving(scenario)
    first, rest = caplog.messages
    assert "ProxyHeaderError: this is no PROXY header: b'GET / HTTP" in first
    assert f"({len(BROKEN)} more" in rest


def test_a_header_that_does_not_come_in_time_is_told_to_on_error():
    def scenario(server):
        with dial(server) as sock:
            sock.send(LINE4[:30])
            began = current_scheduler().clock()
            assert (yield from everything(sock)).decode() == ""
            assert current_scheduler().clock() - began == pytest.approx(3)
        yield from settled(server, failed=1)

    told = []
    options = virtual_time()
    serving(scenario, on_error=lambda *it: told.append(it), handshake=3, options=options)
    [(error, stream)] = told
    assert (type(error), stream.peer[0]) == (ProxyHeaderError, LOCAL)
    assert "has come in 3 s" in str(error)


def test_who_only_looks_whether_somebody_listens_is_no_failure(caplog):
    def scenario(server):
        with dial(server):
            pass
        yield from settled(server, reset=1, failed=0)

    serving(scenario)
    assert not caplog.messages


def test_a_server_that_stops_does_not_wait_for_a_header_that_has_not_begun():
    def scenario(server):
        with dial(server) as silent, dial(server) as begun:
            begun.send(LINE4[:30])
            yield from until(lambda: server.stats()["open"] == 2)
            yield
            stopping = spawn(server.stop)
            assert (yield from everything(silent)).decode() == ""
            assert now() < 1
            begun.send(LINE4[30:] + b"x")
            assert (yield from everything(begun)).decode().endswith("b'x'")
            begun.close()
            assert (yield from stopping).cancelled == ()
        assert now() < 1
        assert server.stats()["reset"] == 0

    serving(scenario, options=virtual_time())


def test_the_client_is_who_is_judged():
    def scenario(server):
        assert (yield from ask(server, LINE6 + b"x")) == ""
        with dial(server) as one:
            one.send(LINE4)
            yield from until(lambda: server.stats()["open"] == 1)
            assert (yield from ask(server, LINE4 + b"x")) == ""
            one.send(b"x")
            assert (yield from everything(one)).decode().endswith("b'x'")
        yield from settled(server, refused=1, crowded=1, accepted=3)
        assert (yield from ask(server, LINE4 + b"x")).endswith("b'x'")

    serving(scenario, max_per_address=1, accept=lambda peer: peer[0] == "192.0.2.1")


def test_proxies_have_no_share_of_their_own():
    def scenario(server):
        with dial(server) as one, dial(server) as two:
            two.send(LINE6 + b"x")
            assert (yield from everything(two)).decode().endswith("b'x'")
            one.send(LINE4 + b"x")
            assert (yield from everything(one)).decode().endswith("b'x'")

    serving(scenario, max_per_address=1)


def test_a_unix_socket_may_stand_behind_a_proxy(tmp_path):
    def scenario(server):
        assert (yield from ask(server, LINE4 + b"x")) == f"{('192.0.2.1', 51000)} b'x'"

    serving(scenario, trusted=["unix"], listen=tmp_path / "s", accept=lambda peer: peer[1] == 51000)


def test_the_header_comes_before_tls(server_tls, client_tls):
    def scenario(server):
        stream = yield from open_tcp(*server.listener.addresses[0])
        with stream:
            yield from stream.sendall(header())
            yield from stream.start_tls(client_tls, server_hostname="localhost")
            yield from stream.sendall(b"x")
            assert (yield from stream.recv(100)) == f"{('192.0.2.1', 51000)} b'x'".encode()

    serving(scenario, tls=server_tls)


def test_header_and_handshake_have_one_time(server_tls):
    def scenario(server):
        began = current_scheduler().clock()
        with dial(server) as sock:
            sock.send(LINE4)
            assert (yield from everything(sock)).decode() == ""
        assert current_scheduler().clock() - began == pytest.approx(4)

    told = []
    options = virtual_time()
    limits = {"tls": server_tls, "handshake": 4, "on_error": lambda exc, _: told.append(type(exc))}
    serving(scenario, options=options, **limits)
    assert told == [TimeoutError]


@pytest.mark.skipif(haproxy.PROGRAM is None, reason="HAProxy is not installed")
def test_behind_a_real_balancer_the_peer_is_the_client(tmp_path, server_tls, client_tls):
    def main():
        plain = listen_tcp(LOCAL, 0).serve(echo_peer, proxy_from=[LOCAL])
        secret = listen_tcp(LOCAL, 0).serve(echo_peer, proxy_from=[LOCAL], tls=server_tls)
        servers = [
            f"{LOCAL}:{server.listener.addresses[0][1]} {how}"
            for server in (plain, secret)
            for how in ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id")
        ]
        with haproxy.running_haproxy(tmp_path, servers) as ports:
            for number, port in enumerate(ports):
                tls = client_tls if number >= 3 else None
                stream = yield from open_tcp(LOCAL, port, tls=tls)
                with stream:
                    yield from stream.sendall(b"x")
                    assert (yield from stream.recv(100)) == str(stream.local).encode()
        for server in (plain, secret):
            yield from server.stop()
            assert server.stats()["failed"] == 0

    def echo_peer(stream):
        yield from stream.recv(1)
        yield from stream.sendall(str(stream.peer).encode())

    run(main)


def test_without_proxies_nothing_is_asked():
    def scenario(server):
        with dial(server) as sock:
            sock.send(LINE4)
            yield ReadWait(sock)
            assert sock.recv(100) == LINE4

    serving(scenario, echo, trusted=None)
