"""A WebSocket server that sends each message back, on wsproto.

    $ python3 -m demos.web.websocket
    websocket echo on 127.0.0.1 port 7081; try: python3 -m websockets ws://127.0.0.1:7081/

Text comes back as text and bytes as bytes, in one piece, however the client has cut them. Pings are
answered, and a client that says nothing for long is pinged itself. Everybody may talk to an echo,
so `Origin` is not looked at; nor is the path.

What to look at: wsproto knows the protocol and does no I/O, so `serve_client` is the whole story of
a connection. Two tasks send on it, since the end of the server comes at any time; a `Lock` has them
take turns. A connection ends by words on both sides: a close frame is answered with one.

Ctrl-C and SIGTERM say good-bye to each client, and wait a little for its answer.
"""

from __future__ import annotations

import argparse

from corolib import (
    Coro,
    LimitExceeded,
    Listener,
    Lock,
    Stream,
    listen_tcp,
    move_on_after,
    run,
    spawn,
)
from demos.extra import extra
from demos.ports import announce
from demos.start import start

with extra():
    from wsproto import ConnectionType, WSConnection
    from wsproto.connection import ConnectionState
    from wsproto.events import (
        AcceptConnection,
        BytesMessage,
        CloseConnection,
        Event,
        Ping,
        RejectConnection,
        RejectData,
        Request,
        TextMessage,
    )
    from wsproto.frame_protocol import CloseReason
    from wsproto.utilities import RemoteProtocolError

CHUNK = 65536  # bytes that are read at once
MESSAGE = 1 << 20  # bytes of a message
PATIENCE = 10  # seconds for the handshake
QUIET = 30  # seconds until a client is pinged, and the same again for its answer
CLIENTS = 1000
ABOUT = b"This is a WebSocket server, and that was no WebSocket request.\n"


class Client:
    """One connection: the stream, what wsproto knows of it, and the message that is coming in."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.ws = WSConnection(ConnectionType.SERVER)
        self.turn = Lock()
        self.message = bytearray()  # not a list of its parts: each of them might be a byte

    def shake_hands(self) -> Coro[bool]:
        """Wait for the request, and answer it; return whether there is a WebSocket now."""
        try:
            # The frames that may have come with it stay in the stream: wsproto would drop them.
            self.ws.receive_data((yield from self.stream.readuntil(b"\r\n\r\n")))
            for event in self.ws.events():
                if isinstance(event, Request):
                    yield from self.stream.sendall(self.ws.send(AcceptConnection()))
                    return True
        except (RemoteProtocolError, UnicodeError, LimitExceeded) as exc:
            hint = getattr(exc, "event_hint", None) or RejectConnection()
            headers = [*hint.headers, (b"Content-Type", b"text/plain")]
            reject = RejectConnection(hint.status_code, headers, has_body=True)
            yield from self.stream.sendall(self.ws.send(reject) + self.ws.send(RejectData(ABOUT)))
        return False

    def receive(self) -> Coro[bytes]:
        """Wait for data; return b"" when there is no more, and when nobody answers a ping."""
        with move_on_after(QUIET):
            return (yield from self.stream.recv(CHUNK))
        yield from self.send(Ping())
        with move_on_after(QUIET):
            return (yield from self.stream.recv(CHUNK))
        return b""

    def send(self, event: Event) -> Coro[None]:
        """Send, unless a close frame has gone: that was the last."""
        with (yield from self.turn):
            if self.ws.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
                yield from self.stream.sendall(self.ws.send(event))

    def react(self, event: Event) -> Coro[None]:
        """Do what an event asks for."""
        if isinstance(event, TextMessage | BytesMessage):
            self.message += event.data.encode() if isinstance(event, TextMessage) else event.data
            if len(self.message) > MESSAGE:
                yield from self.send(CloseConnection(CloseReason.MESSAGE_TOO_BIG))
            elif event.message_finished:
                whole = bytes(self.message)
                self.message.clear()
                is_text = isinstance(event, TextMessage)
                yield from self.send(
                    TextMessage(whole.decode()) if is_text else BytesMessage(whole)
                )
        elif isinstance(event, Ping | CloseConnection):
            yield from self.send(event.response())

    def say_goodbye(self) -> Coro[None]:
        """Wait for the end of the server, and tell the client. It has to answer."""
        yield from self.stream.server.stopping.wait()
        yield from self.send(CloseConnection(CloseReason.GOING_AWAY))


def serve_client(stream: Stream) -> Coro[None]:
    """Serve one client, from its request to its close frame."""
    client = Client(stream)
    agreed = False
    with move_on_after(PATIENCE):
        agreed = yield from client.shake_hands()
    if not agreed:
        return
    spawn(client.say_goodbye, daemon=True)
    while client.ws.state is ConnectionState.OPEN and (data := (yield from client.receive())):
        client.ws.receive_data(data)
        for event in client.ws.events():
            yield from client.react(event)
            yield  # what was read at once may be ten thousand frames: the others have their turn


def serve(listener: Listener) -> Coro[None]:
    yield from listener.serve(
        serve_client,
        max_connections=CLIENTS,
        idle_timeout=4 * QUIET,
        evict_idle=None,
        grace=2,
        accept=announce,
    )


def main(options: argparse.Namespace) -> None:
    with listen_tcp(options.host, options.port) as listener:
        host, port = listener.addresses[0][:2]
        address = f"ws://[{host}]:{port}/" if ":" in host else f"ws://{host}:{port}/"
        client = f"python3 -m websockets {address}"
        print(f"websocket echo on {host} port {port}; try: {client}", flush=True)
        run(serve, listener)


if __name__ == "__main__":
    start(main, __doc__, port=7081)
