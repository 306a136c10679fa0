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

import functools
import socket
import struct
import sys
from typing import Any

from corolib.net.network import Socket

# Python 3.11 does not have its name.
IP_PKTINFO: Any = getattr(socket, "IP_PKTINFO", 8 if sys.platform == "linux" else None)

SPACE = socket.CMSG_SPACE(12) + socket.CMSG_SPACE(20) if hasattr(socket, "CMSG_SPACE") else 0
"""Bytes for what is told of a datagram, by both families."""

ALL = ("0.0.0.0", "::")
"""All addresses of the machine, as a bound socket has them."""

MAPPED = "::ffff:"
"""How the address of an IPv4 host begins on a socket of IPv6 (RFC 4291, 2.5.5.2)."""


class Address(tuple[Any, ...]):
    """The address of who has sent a datagram; `local` is ours that it was sent to, or None if that
    was a group's.
    """

    local: Any = None


class PacketInfo:
    """A UDP socket that is told at which address a datagram came."""

    __slots__ = ("_both", "_port", "_sock")

    def __init__(self, sock: Socket, both: bool, port: int) -> None:
        self._sock = sock
        # Whether it is of both families.
        self._both = both
        self._port = port

    def recvfrom(self, most: int) -> tuple[bytes, Any]:
        """Do what the socket's `recvfrom` does; the address is an `Address`."""
        data, notes, _, peer = self._sock.recvmsg(most, SPACE)
        if self._both and peer[0].startswith(MAPPED):
            peer = (peer[0][len(MAPPED) :], peer[1])
        address = Address(peer)
        for level, _, note in notes:
            address.local = _told(level, note, self._port)
            if level == socket.IPPROTO_IP:
                # On a socket of both families this says more than what IPv6 makes of it.
                break
        return data, address

    def sendto(self, data: Any, address: Any) -> object:
        """Do what the socket's `sendto` does, from the address that an `Address` came to."""
        local = getattr(address, "local", None)
        if local is None:
            return self._sock.sendto(data, self._mapped(address))
        return self._sock.sendmsg((data,), _telling(local), 0, self._mapped(address))

    def _mapped(self, address: Any) -> Any:
        if self._both and isinstance(address, Address) and len(address) == 2:
            return (MAPPED + address[0], address[1])
        return address


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


@functools.lru_cache(256)
def _told(level: int, note: bytes, port: int) -> Any:
    """Return the address of ours that stands in what the system tells; None for a group's."""
    if level == socket.IPPROTO_IP:
        # For a broadcast or a group this is the address to answer from: ip(7).
        return socket.inet_ntoa(note[4:8]), port
    host = note[:16]
    if host[0] == 0xFF:
        return None
    (index,) = struct.unpack("=I", note[16:20])
    link_local = host[0] == 0xFE and host[1] & 0xC0 == 0x80
    return socket.inet_ntop(socket.AF_INET6, host), port, 0, index if link_local else 0


@functools.lru_cache(256)
def _telling(local: tuple[Any, ...]) -> list[tuple[int, int, bytes]]:
    """Return what is to be written beside an answer that leaves from `local`."""
    if len(local) == 2:
        note = struct.pack("=I4s4x", 0, socket.inet_aton(local[0]))
        return [(socket.IPPROTO_IP, IP_PKTINFO, note)]
    note = struct.pack("=16sI", socket.inet_pton(socket.AF_INET6, local[0]), local[3])
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, note)]
