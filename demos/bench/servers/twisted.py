"""Twisted: protocols on its reactor."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.protocols.basic import LineReceiver

from demos.bench import localhost
from demos.bench.servers import MIB


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        self.transport.write(data)


class Lines(LineReceiver):
    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:  # noqa: N802
        self.transport.write(line + b"\n")


class Bulk(Protocol):
    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        self.transport.write(MIB)


class Datagrams(DatagramProtocol):
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:  # noqa: N802
        self.transport.write(datagram, addr)


def echo(listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
    factory: Any = Factory.forProtocol(Echo)
    if tls:  # it has its own, of pyOpenSSL
        from twisted.internet.ssl import PrivateCertificate
        from twisted.protocols.tls import TLSMemoryBIOFactory

        with open(localhost.PEM) as file:
            options = PrivateCertificate.loadPEM(file.read()).options()
        factory = TLSMemoryBIOFactory(options, False, factory)
    serve(listener, factory)


def lines(listener: socket.socket) -> None:
    serve(listener, Factory.forProtocol(Lines))


def bulk(listener: socket.socket) -> None:
    serve(listener, Factory.forProtocol(Bulk))


def serve(listener: socket.socket, factory: Any) -> None:
    loop: Any = reactor
    listener.setblocking(False)
    loop.adoptStreamPort(listener.fileno(), socket.AF_INET, factory)
    loop.run()


def udp(sock: socket.socket) -> None:
    loop: Any = reactor
    sock.setblocking(False)
    loop.adoptDatagramPort(sock.fileno(), socket.AF_INET, Datagrams(), 65535)
    loop.run()
