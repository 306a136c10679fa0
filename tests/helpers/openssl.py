"""A peer that speaks TLS as it is told to, and what OpenSSL can do that `ssl` cannot ask it for.

Its functions are those of the library that `ssl` is linked with. They are given the connection of
an `SSLObject`, a pointer that CPython keeps behind the head of the object and one other pointer.
"""

import _ssl
import ctypes
import socket
import ssl
from typing import Any

from corolib import Coro, ReadWait, WriteWait
from tests.helpers.inside import wrapped_by

LIBRARY = ctypes.CDLL(_ssl.__file__)
BEHIND_THE_HEAD = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
UPDATE_REQUESTED = 1  # the other side shall change its keys as well
REQUEST = 27  # bytes of a request for new keys


class Peer:
    """One side of TLS over a non-blocking socket, which sends and reads only when it is told to."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, **options: Any) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._incoming, self._outgoing, **options)

    def shake_hands(self) -> Coro[None]:
        while True:
            try:
                self.ssl.do_handshake()
                yield from self.flush()
                return
            except ssl.SSLWantReadError:
                yield from self.flush()
                yield from self.receive()

    def receive(self) -> Coro[None]:
        """Wait for ciphertext."""
        yield ReadWait(self.sock)
        data = self.sock.recv(65536)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def read(self, most: int = 65536) -> Coro[bytes]:
        """Wait for data; OpenSSL may answer meanwhile."""
        while True:
            try:
                return self.ssl.read(most)
            except ssl.SSLWantReadError:
                yield from self.flush()
                yield from self.receive()

    def ask_for_new_keys(self, count: int = 1) -> None:
        """Make requests of TLS 1.3 for new keys."""
        for _ in range(count):
            assert LIBRARY.SSL_key_update(self._connection(), UPDATE_REQUESTED) == 1
            self.ssl.do_handshake()

    def ask_for_a_handshake(self) -> None:
        """Make a HelloRequest, by which a server of TLS 1.2 asks for a new handshake."""
        assert LIBRARY.SSL_renegotiate(self._connection()) == 1
        self.ssl.do_handshake()

    def output(self) -> bytes:
        """Return the ciphertext that was made and not sent."""
        return self._outgoing.read()

    def flush(self) -> Coro[None]:
        """Wait until what was made is sent."""
        rest = self.output()
        while rest:
            yield WriteWait(self.sock)
            rest = rest[self.sock.send(rest) :]

    def _connection(self) -> ctypes.c_void_p:
        return ctypes.c_void_p.from_address(id(wrapped_by(self.ssl)) + BEHIND_THE_HEAD)
