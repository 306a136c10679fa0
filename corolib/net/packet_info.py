"""At which of our addresses a datagram came, so that its answer can leave from there.

A UDP socket that is bound to all addresses of a machine is asked at one of them, and a connected
client takes an answer from no other. What the system writes beside a datagram tells which it was
(IP_PKTINFO, IPV6_PKTINFO), and written beside an answer it chooses the address:

    info = packet_info(sock)                    None: the socket has one address, or cannot tell
    data, address = info.recvfrom(most)         address.local: ours, that it was sent to
    info.sendto(data, address)                  from there

A socket of both families gets datagrams of IPv4 from addresses as "::ffff:192.0.2.1". Here they are
plain "192.0.2.1", in both directions.

Who waits for datagrams is in `datagrams.py`.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

from corolib.net.network import MAPPED, Socket, plain_host

# Python 3.11 does not have its name.
IP_PKTINFO: Any = getattr(socket, "IP_PKTINFO", 8 if sys.platform == "linux" else None)

SPACE = socket.CMSG_SPACE(12) + socket.CMSG_SPACE(20) if hasattr(socket, "CMSG_SPACE") else 0
"""Bytes for what is told of a datagram, by both families."""

ALL = ("0.0.0.0", "::")
"""All addresses of the machine, as a bound socket has them."""


KNOWN = 256
"""Of our addresses how many are remembered, in the forms in which the system tells them."""

Note = tuple[int, int, bytes]
"""What is told of a datagram or its answer: level, kind and data of a control message."""


class Address(tuple[Any, ...]):
    """The address of who has sent a datagram, and ours that it was sent to."""

    # That, and the notes with which an answer leaves from there.
    asked: tuple[Any, tuple[Note, ...]] = (None, ())

    @property
    def local(self) -> Any:
        """The address that it was sent to; None if that was a group's."""
        return self.asked[0]


class PacketInfo:
    """A UDP socket that is told at which address a datagram came."""

    __slots__ = ("_both", "_known", "_port", "_sock")

    def __init__(self, sock: Socket, both: bool, port: int) -> None:
        self._sock = sock
        # Whether it is of both families.
        self._both = both
        self._port = port
        # For each note what an `Address` has of it.
        self._known: dict[Note, tuple[Any, tuple[Note, ...]]] = {}

    def recvfrom(self, most: int) -> tuple[bytes, Any]:
        """Do what the socket's `recvfrom` does; the address is an `Address`."""
        data, notes, _, peer = self._sock.recvmsg(most, SPACE)
        if self._both and peer[0].startswith(MAPPED):
            peer = (plain_host(peer[0]), peer[1])
        address = Address(peer)
        if notes:
            # Of IPv4 on a socket of both families there are two. The last is its own.
            address.asked = self._known.get(notes[-1]) or self._learn(notes[-1])
        return data, address

    def sendto(self, data: Any, address: Any) -> object:
        """Do what the socket's `sendto` does, from the address that an `Address` came to."""
        if type(address) is not Address:
            return self._sock.sendto(data, address)
        notes = address.asked[1]
        if self._both and len(address) == 2:
            address = (MAPPED + address[0], address[1])
        return self._sock.sendmsg((data,), notes, 0, address)

    def _learn(self, note: Note) -> tuple[Any, tuple[Note, ...]]:
        """Remember which address of ours stands in a note, and what to write beside an answer."""
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known[note] = asked = _asked_at(note, self._port)
        return asked


def packet_info(sock: Socket) -> PacketInfo | None:
    """Have a UDP socket told where datagrams come to, if it is bound to all addresses; return what
    receives and sends then. None: the socket has one address, or the system does not tell.
    """
    try:
        host, port = sock.getsockname()[:2]
        if host not in ALL or not port or IP_PKTINFO is None:
            return None
        both = False
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            both = not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        if both or sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    except (OSError, ValueError, AttributeError):
        # A Unix socket, a closed one, or another system.
        return None
    return PacketInfo(sock, both, port)


def _asked_at(note: Note, port: int) -> tuple[Any, tuple[Note, ...]]:
    level, kind, data = note
    if level == socket.IPPROTO_IP:
        # The second field is the address to answer from, also for a broadcast or a group: ip(7).
        local: Any = (socket.inet_ntoa(data[4:8]), port)
        return local, ((level, kind, bytes(4) + data[4:8] + bytes(4)),)
    host = data[:16]
    if host[0] == 0xFF:
        return None, ()
    # Of addresses that begin with fe80 each interface has its own.
    each = host[0] == 0xFE and host[1] & 0xC0 == 0x80
    index = data[16:20] if each else bytes(4)
    local = (socket.inet_ntop(socket.AF_INET6, host), port, 0, struct.unpack("=I", index)[0])
    return local, ((level, kind, host + index),)
