"""The PROXY protocol: who stands behind a connection that a balancer has made.

    proxies = Proxies(["127.0.0.1", "10.0.0.0/8"])          those who are believed
    peer = yield from read_header(stream, 10.0, silent)     the client's address, as it says it

The header comes before anything else, TLS included. It is read to its last byte and no further: of
the bytes that must still come, as many are asked for. Version 1 is a line, whose length is not
known before its end; version 2 says its length.

Whose header is read, and what becomes of the client, is decided in `servers.py`.

Source: "The PROXY protocol, versions 1 & 2", Willy Tarreau, in the documents of HAProxy.
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

from corolib.coordination.timeouts import move_on_after
from corolib.kernel import CancelScope, LateModule, brief
from corolib.net.network import plain_host

if TYPE_CHECKING:
    import ipaddress

    from corolib.net.streams import Stream
else:
    ipaddress = LateModule("ipaddress")

WORD = b"PROXY "
"""What a header of version 1 begins with."""

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""What one of version 2 begins with."""

SHORTEST = len(b"PROXY UNKNOWN\r\n")
"""Bytes that every header has."""

LONGEST_LINE = 107
"""Bytes that one of version 1 may have: two addresses of IPv6, written out."""

FIXED = 16
"""Bytes of version 2 that say how many follow."""

LONGEST = 4096
"""Bytes of version 2 that are taken: nginx takes as many. The addresses have 36; what a proxy may
tell besides is seldom more than a few hundred, and is passed over."""

LOCAL, PROXY = 0x20, 0x21
"""The two commands of version 2: the proxy speaks for itself, or for a client."""

TCP4, TCP6 = 0x11, 0x21
"""Families and protocols of version 2."""

UNIX = "unix"
"""Names, among networks, those who have come through a Unix socket."""


class ProxyHeaderError(ValueError):
    """Raised when a proxy that is trusted sends no header, or one that is not right."""


class Proxies:
    """The networks whose headers are believed; ValueError if one is none, TypeError if it is no
    text: of a number, `ipaddress` would make an address.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        names = list(networks)
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"{brief(name)} is no text")
        self._unix = UNIX in names
        self._networks = [ipaddress.ip_network(name) for name in names if name != UNIX]

    def trusts(self, peer: Any) -> bool:
        """Return whether who has connected from this address is one of them."""
        if not isinstance(peer, tuple):
            return self._unix
        address = ipaddress.ip_address(plain_host(peer[0]).partition("%")[0])
        return any(address in network for network in self._networks)


def read_header(
    stream: Stream, within: float, silent: dict[CancelScope, Stream]
) -> Generator[Any, Any, Any]:
    """Wait for the header; return the client's address. If the proxy speaks for itself that is its
    own, and None if it has gone without a word.

    Until its first byte, `silent` has the scope of the wait: who cancels it has None returned.
    """
    data = b""
    with move_on_after(within) as scope:
        silent[scope] = stream
        try:
            while count := missing(data):
                piece = yield from stream.recv(count)
                silent.pop(scope, None)
                if not (data or piece):
                    return None
                if not piece:
                    raise ProxyHeaderError(f"the PROXY header ends too early: {brief(data)}")
                data += piece
        finally:
            silent.pop(scope, None)
    if scope.expired:
        raise ProxyHeaderError(f"no whole PROXY header has come in {within:g} s: {brief(data)}")
    if scope.cancelled_caught:
        return None
    return client(data) or stream.peer


def missing(data: bytes) -> int:
    """Return how many bytes the header has still at least, of which `data` is the beginning: 0 when
    it is whole. ProxyHeaderError if this begins none, or one that is too long.
    """
    if not data:
        return SHORTEST
    if data.startswith(SIGNATURE[: len(data)]):
        if len(data) < FIXED:
            return FIXED - len(data)
        size = FIXED + int.from_bytes(data[14:16])
        if data[12] not in (LOCAL, PROXY) or size > LONGEST:
            raise _wrong(data)
        return size - len(data)
    if not data.startswith(WORD[: len(data)]):
        raise _wrong(data)
    if data.endswith(b"\r\n"):
        return 0
    if b"\n" in data or len(data) >= LONGEST_LINE:
        raise _wrong(data)
    if len(data) < SHORTEST:
        return SHORTEST - len(data)
    end = 1 if data.endswith(b"\r") else 2
    # Each word that is to come has a space before it.
    words = 5 - data.count(b" ") if data.startswith(b"TCP", len(WORD)) else 0
    return min(end + 2 * max(words, 0), LONGEST_LINE - len(data))


def client(data: bytes) -> Any:
    """Return the address of the client that a whole header names, as sockets have it; None if it
    names none that is reached by TCP.
    """
    if data.startswith(WORD):
        return _client_of_line(data)
    command, kind, rest = data[12], data[13], data[FIXED:]
    size = {TCP4: 4, TCP6: 16}.get(kind)
    if command == LOCAL or size is None:
        return None
    if len(rest) < 2 * size + 4:
        raise _wrong(data)
    family = socket.AF_INET if kind == TCP4 else socket.AF_INET6
    port = int.from_bytes(rest[2 * size : 2 * size + 2])
    return _address(family, rest[:size], port)


def _client_of_line(data: bytes) -> Any:
    words = data[len(WORD) : -2].decode("latin-1").split(" ")
    if words[0] == "UNKNOWN":
        return None
    try:
        kind, source, target, *ports = words
        family = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6}[kind]
        hosts = [socket.inet_pton(family, host) for host in (source, target)]
        port, _ = map(_port, ports)
    except (ValueError, KeyError, OSError):
        raise _wrong(data) from None
    return _address(family, hosts[0], port)


def _port(text: str) -> int:
    port = int(text) if text.isdecimal() else -1
    if not 0 <= port <= 0xFFFF or text != str(port):
        raise ValueError
    return port


def _address(family: int, host: bytes, port: int) -> Any:
    address = socket.inet_ntop(family, host), port
    return address if family == socket.AF_INET else (*address, 0, 0)


def _wrong(data: bytes) -> ProxyHeaderError:
    return ProxyHeaderError(f"this is no PROXY header: {brief(data)}")
