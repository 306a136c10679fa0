"""Every call of a socket with everything that may come of it: streams, TLS, servers, and a storm.

The calls that open, listen, connect and carry datagrams are in the tests of those modules.
"""

import contextlib
import errno
import math
import os
import random
import selectors
import socket
import ssl
import tempfile
from collections import Counter
from typing import Any, NamedTuple

import pytest

from corolib import (
    ClosedError,
    Listener,
    Sleep,
    Stream,
    current_scheduler,
    listen_tcp,
    open_tcp,
    run,
    spawn,
)
from corolib.net.streams import CHUNK, IncompleteRead
from corolib.testing import open_files, virtual_time
from tests.helpers.driving import FULL, until
from tests.helpers.faults import (
    CLOSED,
    GONE,
    HALF,
    LATE,
    NUMBERS,
    ONE,
    RESET,
    SHORT,
    STUCK,
    UNMOVING,
    ZERO,
    FakeSocket,
)
from tests.helpers.inside import connections_of, timers_set
from tests.helpers.sockets import make_streams, tcp_pair

LOCAL = "127.0.0.1"
DATA = b"012345678\n"

# What may come of a call --------------------------------------------------------------------------

OUTCOMES = {
    **{name: [getattr(errno, name)] for name in NUMBERS},
    "short by one": [SHORT],
    "one byte": [ONE],
    "zero bytes": [ZERO],
    "late": [LATE],
    "woken twice": [LATE, LATE],
    "peer gone": [GONE],
    "half-closed": [HALF],
    "reset": [RESET],
    "closed": [CLOSED],
    "closed during the wait": [STUCK],
    "stream closed during the wait": [STUCK],
}
MEANWHILE = {  # what another task does during the wait
    "closed during the wait": lambda stream, sock: sock.near.close(),
    "stream closed during the wait": lambda stream, sock: stream.close(),
}

ALL = "the operation succeeds"
FAILS = "it raises the error that the call has raised, in the task that has called it"
CAME = "it returns what had come before"
CUT = "IncompleteRead, with what had come before"
ENDED = "it returns b'' if nothing had come before, else IncompleteRead with that"


def results(**special: Any) -> dict[str, Any]:
    """Return what an operation does for each outcome: this, or what is special about it.

    A text above, an exception, several of them, or the value that it returns.
    """
    names = {name.replace(" ", "_").replace("-", "_"): name for name in OUTCOMES}
    return {
        **dict.fromkeys(OUTCOMES, ALL),
        **dict.fromkeys(NUMBERS, FAILS),
        "EAGAIN": ALL,
        "closed": OSError(errno.EBADF, ""),
        "closed during the wait": ClosedError(""),
        "stream closed during the wait": ClosedError(""),
        **{names[key]: result for key, result in special.items()},
    }


LOST = ConnectionResetError(errno.ECONNRESET, "")
BROKEN = (BrokenPipeError(errno.EPIPE, ""), LOST)
EOF = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "")
NEVER = dict.fromkeys(OUTCOMES, ALL)  # it never fails
KNOWN = dict(NEVER)  # nor is the call made at all

# What had come before a reset may be had or not: that is up to the kernel.
RECV = results(short_by_one=DATA[:-1], one_byte=DATA[:1], zero_bytes=b"", reset=(ALL, LOST))
MORE = results(zero_bytes=False, reset=(ALL, LOST))
LINE = results(zero_bytes=CAME, reset=(ALL, LOST))
MESSAGE = results(zero_bytes=CUT, reset=(ALL, LOST))
UNTIL = results(zero_bytes=ENDED, reset=(ALL, LOST))
SEND = results(peer_gone=BROKEN, reset=BROKEN)
SENDFILE = SEND | {"zero bytes": CAME}  # the file ends there
SHUTDOWN = results(reset=OSError(errno.ENOTCONN, ""))
CLOSE = NEVER | dict.fromkeys((*NUMBERS, "late", "woken twice"), FAILS)
ASK = NEVER | dict.fromkeys((*NUMBERS, "late", "woken twice", "reset", "closed", *MEANWHILE))
TLS_RECV = results(zero_bytes=EOF, reset=(ALL, LOST))
TLS_HELLO = results(peer_gone=(EOF, *BROKEN), reset=(EOF, *BROKEN), half_closed=(ALL, EOF))


def tried(table, number):
    """Return the outcomes to try of a table: in a plain run those of which something special comes,
    and of the others every third; with each number other ones.
    """
    values = list(table.values())
    usual = max(values, key=values.count)
    alike = [outcome for outcome in OUTCOMES if table[outcome] == usual]
    left_out = set() if FULL else {*alike} - {*alike[number % 3 :: 3]}
    return [outcome for outcome in OUTCOMES if outcome not in left_out]


# What makes the calls -----------------------------------------------------------------------------


def into(stream):
    room = bytearray(len(DATA))
    count = yield from stream.recv_into(room)
    return bytes(room[:count])


def answer(stream):
    """Send just after a wait for something to read: the short way."""
    yield from stream.recv(100)
    yield from stream.sendall(DATA)


def send_file(stream):
    with tempfile.TemporaryFile() as file:
        file.write(DATA)
        file.flush()
        return (yield from stream.sendfile(file))


def close(stream):
    stream.close()
    return
    yield


def ask(name):
    def operation(stream):
        address = getattr(stream, name)
        return address and address[0]
        yield

    return operation


TLS = {}
"""The two sides of a handshake: arguments of `start_tls()`."""


@pytest.fixture(autouse=True, scope="module")
def contexts(certificate):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=certificate)
    TLS["server"] = {"context": server, "server_side": True, "allow_truncation": True}
    TLS["client"] = {"context": client, "server_hostname": "localhost"}


def shake_hands(stream):
    yield from stream.start_tls(**TLS["client"])


def aclose(stream):
    yield from stream.aclose()


def send_eof(stream):
    yield from stream.send_eof()


class Row(NamedTuple):
    """One operation of a stream: the call of the file that goes wrong, and what comes of it."""

    call: str
    operation: Any
    gives: Any
    results: dict[str, Any]
    before: tuple[list[Any], ...] = ([],)  # scripts that come first
    sends: int | None = None  # bytes; None: its errors need not say how many
    tcp: bool = False
    tls: bool = False


AT_ONCE = ([], [LATE])
IN_PARTS = ([], [ONE], [LATE, ONE, LATE])
BOTH = [DATA[:4], DATA[4:]]

ROWS = {
    "recv": Row("recv", lambda s: s.recv(10), DATA, RECV, AT_ONCE),
    "recv_into": Row("recv_into", into, DATA, RECV, AT_ONCE),
    "more": Row("recv", lambda s: s.more(), True, MORE, AT_ONCE),
    "readline": Row("recv", lambda s: s.readline(), DATA, LINE, IN_PARTS),
    "readexactly": Row("recv", lambda s: s.readexactly(10), DATA, MESSAGE, IN_PARTS),
    "readuntil": Row("recv", lambda s: s.readuntil(b"8\n"), DATA, UNTIL, IN_PARTS),
    "sendall": Row("send", lambda s: s.sendall(DATA), None, SEND, IN_PARTS, 10),
    "answer": Row("send", answer, None, SEND, IN_PARTS, 10),
    "sendmsg": Row("sendmsg", lambda s: s.sendall(BOTH), None, SEND, IN_PARTS, 10),
    "sendfile": Row("sendfile", send_file, 10, SENDFILE, IN_PARTS, 10),
    "sendfile by send": Row("send", send_file, 10, SEND, IN_PARTS, 10),
    "send_eof": Row("shutdown", send_eof, None, SHUTDOWN, AT_ONCE, 0),
    "aclose, shutdown": Row("shutdown", aclose, None, NEVER, AT_ONCE),
    "aclose, recv": Row("recv", aclose, None, NEVER, AT_ONCE),
    "aclose, close": Row("close", aclose, None, CLOSE),
    "close": Row("close", close, None, CLOSE),
    "peer": Row("getpeername", ask("peer"), LOCAL, ASK, tcp=True),
    "local": Row("getsockname", ask("local"), LOCAL, ASK | {"reset": ALL}, tcp=True),
    "handshake, recv": Row("recv", shake_hands, None, TLS_HELLO | {"zero bytes": EOF}, IN_PARTS),
    "handshake, send": Row("send", shake_hands, None, TLS_HELLO, IN_PARTS),
    "TLS recv": Row("recv", lambda s: s.recv(10), DATA, TLS_RECV, IN_PARTS, tls=True),
    "TLS readline": Row("recv", lambda s: s.readline(), DATA, TLS_RECV, IN_PARTS, tls=True),
    "TLS sendall": Row("send", lambda s: s.sendall(DATA), None, SEND, IN_PARTS, 10, tls=True),
    "TLS answer": Row("send", answer, None, SEND, IN_PARTS, 10, tls=True),
    "TLS sendmsg": Row("send", lambda s: s.sendall(BOTH), None, SEND, IN_PARTS, 10, tls=True),
    "TLS send_eof": Row("send", send_eof, None, SEND, IN_PARTS, 0, tls=True),
    "TLS aclose, recv": Row("recv", aclose, None, NEVER, AT_ONCE, tls=True),
    "TLS aclose, send": Row("send", aclose, None, NEVER, AT_ONCE, tls=True),
    "TLS close": Row("close", close, None, CLOSE, tls=True),
    "TLS peer": Row("getpeername", ask("peer"), LOCAL, KNOWN, tls=True, tcp=True),
}
MOVING = ("recv", "recv_into", "send", "sendmsg", "sendfile")  # bytes


# Streams ------------------------------------------------------------------------------------------


class Bystander:
    """Another connection of the same run: an echo, which is asked before and after."""

    def __init__(self):
        self.near, far = make_streams()
        self.task = spawn(echo, far)

    def ask(self):
        yield from self.near.sendall(b"hello\n")
        assert (yield from self.near.readline()) == b"hello\n"

    def leave(self):
        self.near.close()
        yield from self.task


def echo(stream):
    with stream:
        while data := (yield from stream.recv(CHUNK)):
            yield from stream.sendall(data)


def nothing_left():
    """Give way, and see that no other task, file or timer is left in the run."""
    yield
    scheduler = current_scheduler()
    stats = scheduler.stats()
    assert (stats["tasks"], stats["ready"], stats["files"]) == (1, 0, 0)
    assert timers_set(scheduler) == 0


def failure_of(generator):
    """Run it to its end; return what it gives and None, or None and the OSError or EOFError."""
    try:
        return (yield from generator), None
    except (OSError, EOFError) as exc:
        return None, exc.with_traceback(None)


def play_out(row, outcome, before):
    """Let an operation have an outcome, after the outcomes `before`, and see what becomes of it,
    of the connection, and of everything else.
    """
    complaints = []
    opened = open_files()
    sock = FakeSocket(tcp_pair() if row.tcp or outcome == "reset" else None)
    sock.far.setblocking(False)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "sendfile", scripted_sendfile(sock))
            main = scene(row, outcome, before, sock)
            run(main, on_task_error=lambda *args: complaints.append(args), **virtual_time())
        assert sock.closed
    finally:
        sock.discard()
    if row.results is not KNOWN and (waits(row) or outcome not in MEANWHILE):
        assert sock.played > len(before)
    assert complaints == []
    assert sock.calls.keys() <= {*MOVING, *UNMOVING}
    assert open_files() == opened


def scripted_sendfile(sock):
    real = os.sendfile

    def function(out, file, at, most):
        def sendfile(most):
            return real(out, file, at, most)

        return sock.go("sendfile", sendfile, most)

    return function


def scene(row, outcome, before, sock):
    bystander = Bystander()
    yield from bystander.ask()
    near = Stream(sock.near if row.call == "sendfile" else sock)  # the kernel wants a real one
    far = Stream(sock.far)
    shaking = yield from prepare(row, near, far)
    value, error = yield from perform(row, outcome, before, near, sock)
    check(row, outcome, before.count(ONE), value, error)
    yield from go_on(row, outcome, near, far, sock, value, error)
    near.close()
    far.close()
    yield from shaking
    yield from bystander.ask()
    yield from bystander.leave()
    yield from nothing_left()


def prepare(row, near, far):
    """Let the far side do its part; return its task."""
    shakes = row.tls or row.operation is shake_hands
    shaking = spawn(failure_of(far.start_tls(**TLS["server"]) if shakes else Sleep(0).__iter__()))
    if row.tls:
        yield from near.start_tls(**TLS["client"])
        yield from shaking
    if row.operation is not shake_hands:
        yield from far.sendall(DATA)
    if row.operation is aclose:
        yield from far.send_eof()
    return shaking


def waits(row):
    """Return whether the operation may wait for the call that goes wrong."""
    return row.call in MOVING or row.call == "shutdown"


def perform(row, outcome, before, near, sock):
    """Let the operation happen, and its outcome; return what it gives, and what it raises."""
    meanwhile = MEANWHILE.get(outcome)
    if meanwhile and not waits(row):
        meanwhile(near, sock)
        return (yield from failure_of(row.operation(near)))
    sock.script(**{row.call: [*before, *OUTCOMES[outcome]]})
    task = spawn(failure_of(row.operation(near)))
    if meanwhile:
        yield from turns(lambda: sock.played > len(before))
        yield
        assert not task.done
        meanwhile(near, sock)
    return (yield from task)


def check(row, outcome, done, value, error):
    """Compare what has come of the operation with the table; `done` bytes had moved before."""
    wanted = row.results[outcome]
    if wanted is FAILS:
        wanted = OSError(getattr(errno, outcome, LATE), "")
    several = wanted if isinstance(wanted, tuple) else (wanted,)
    if wanted is CUT or (wanted is ENDED and done):
        assert type(error) is IncompleteRead
        assert error.partial == DATA[:done]
    elif error is not None:
        kinds = [(type(each), each.errno) for each in several if isinstance(each, OSError)]
        assert (type(error), error.errno) in kinds
        if row.sends is not None:
            assert error.bytes_sent == (row.sends if row.tls else done)
    else:
        came = done if row.sends else DATA[:done]
        meaning = {ALL: row.gives, CAME: came, ENDED: b""}
        assert value in [meaning.get(each, each) for each in several]


def go_on(row, outcome, near, far, sock, value, error):
    """Go on with the connection, if it is still there: nothing is lost, and nothing comes twice."""
    again = error is not None and outcome in NUMBERS
    if row.operation in (close, aclose) or (row.operation is shake_hands and error):
        assert sock.closed
    elif outcome in ("peer gone", "half-closed", "reset") and not row.sends:
        pass
    elif row.operation is shake_hands:
        yield from turns(lambda: False)
        yield from far.sendall(DATA)
        assert (yield from near.recv(100)) == DATA
    elif outcome in ("peer gone", "reset"):
        pass
    elif row.sends:
        yield from go_on_sending(row, outcome, near, far, value, error)
    elif row.call in ("recv", "recv_into") or row.operation is send_eof:
        if again:
            assert (yield from row.operation(near)) == row.gives


def go_on_sending(row, outcome, near, far, value, error):
    sent = error.bytes_sent if error else row.sends if value is None else value
    lives = outcome in NUMBERS or error is None
    if lives:
        yield from near.sendall(DATA[sent:] + b"!")
    near.close()
    heard = b""
    while data := (yield from failure_of(far.recv(CHUNK)))[0]:
        heard += data
    if lives:
        assert heard == DATA + b"!"
    elif row.tls:
        assert DATA[:sent].startswith(heard)
    else:
        assert heard == DATA[:sent]


@contextlib.contextmanager
def named(*what):
    """Tell of what leaves the block in which cell of the table that was."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"in the cell {what}")
        raise


@pytest.mark.parametrize("name", ROWS)
def test_an_operation_with_each_outcome(name):
    """After each of the scripts that may come before; in the fixed sample after one of them."""
    row = ROWS[name]
    for number, outcome in enumerate(tried(row.results, list(ROWS).index(name))):
        for before in row.before if FULL else [row.before[number % len(row.before)]]:
            with named(name, outcome, before):
                play_out(row, outcome, before)


def test_the_tables_have_every_call_and_every_outcome():
    streams = {row.call for row in ROWS.values()}
    servers = {service.call for service in SERVICES.values()}
    assert streams == {*MOVING, *UNMOVING} - {"accept"}
    assert servers == {*MOVING, *UNMOVING} - {"sendfile", "getpeername", "getsockname"}
    assert set(OUTCOMES) > set(NUMBERS) and len(OUTCOMES) == len(NUMBERS) + 11
    for table in [*(row.results for row in ROWS.values()), *(s.counts for s in SERVICES.values())]:
        assert table.keys() == OUTCOMES.keys()


# Servers ------------------------------------------------------------------------------------------

SERVED = {}
FAILED = {"failed": 1}
FAILED_TWICE = {"failed": 2}
GONE_FIRST = {"reset": 1}
LOST_FIRST = {"lost": 1}
PAUSED = {"pauses": 1}
DEAD = "the listening socket is dead: the server ends with that error, and its connections too"
OVER = "the listener was closed: the server takes no more connections"


def counts(**special):
    """Return what a server counts for each outcome: these, or what is special."""
    away = ("ECONNABORTED", "ECONNRESET", "EPIPE", "ENOTCONN")
    unreachable = ("ETIMEDOUT", "EHOSTUNREACH", "ENETDOWN")
    return {
        **dict.fromkeys(OUTCOMES, SERVED),
        **dict.fromkeys(NUMBERS, FAILED),
        **dict.fromkeys((*away, *unreachable), GONE_FIRST),
        "EAGAIN": SERVED,
        "reset": GONE_FIRST,
        **dict.fromkeys(("closed", *MEANWHILE), FAILED),
        **{name.replace("_", " "): result for name, result in special.items()},
    }


def answering(stream):
    yield from stream.sendall((yield from stream.recv(100)))


def answering_in_parts(stream):
    data = yield from into(stream)
    yield from stream.sendall([data[:4], data[4:]])


def failing(stream):
    yield from stream.recv(100)
    raise LookupError("in the handler")


def reading(stream):
    """Read the end of the file: then there is nothing to wait for before it is closed."""
    while (yield from stream.recv(100)):
        pass


class Service(NamedTuple):
    """What a handler does, the call that goes wrong for it, and when; and what is counted then."""

    call: str
    handler: Any
    counts: dict[str, Any]
    when: str = "begin"  # "before" it is accepted, at its "accept", "begin" or "end"
    tls: bool = False


UNHEARD = dict.fromkeys(OUTCOMES, SERVED)  # of the last bytes nothing is counted
UNCLOSED = dict.fromkeys((*NUMBERS, "late", "woken twice"))
CLOSE_COUNTS = UNHEARD | dict.fromkeys(UNCLOSED, FAILED)
LAST = dict.fromkeys(("half-closed", "reset"), FAILED)  # the client cannot any more: it fails, too
ACCEPT = {
    **UNHEARD,
    **dict.fromkeys(NUMBERS, LOST_FIRST),
    **dict.fromkeys(("EBADF", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ENOTCONN"), PAUSED),
    **dict.fromkeys(("closed", "closed during the wait"), DEAD),
    "stream closed during the wait": OVER,
    "EAGAIN": SERVED,
    "reset": GONE_FIRST,
}
TLS_COUNTS = counts(peer_gone=(SERVED, GONE_FIRST))  # a reset, if it had not read the tickets
HELLO = counts(peer_gone=GONE_FIRST, reset=GONE_FIRST)
HELLO |= {"half-closed": GONE_FIRST}

SERVICES = {
    "accept": Service("accept", answering, ACCEPT, "before"),
    "recv": Service("recv", answering, counts()),
    "send": Service("send", answering, counts()),
    "recv_into": Service("recv_into", answering_in_parts, counts()),
    "sendmsg": Service("sendmsg", answering_in_parts, counts()),
    "shutdown": Service("shutdown", send_eof, counts()),
    "aclose, shutdown": Service("shutdown", answering, UNHEARD, "end"),
    "aclose, recv": Service("recv", answering, UNHEARD, "end"),
    "aclose, close": Service("close", answering, CLOSE_COUNTS | LAST, "end"),
    "close at the end": Service("close", reading, CLOSE_COUNTS, "end"),
    "close of a failure": Service(
        "close",
        failing,
        dict.fromkeys(OUTCOMES, FAILED) | dict.fromkeys(UNCLOSED, FAILED_TWICE),
        "end",
    ),
    "TLS recv": Service("recv", answering, TLS_COUNTS | {"zero bytes": GONE_FIRST}, tls=True),
    "TLS send": Service("send", answering, TLS_COUNTS, tls=True),
    "TLS aclose, recv": Service("recv", answering, UNHEARD, "end", tls=True),
    "TLS aclose, send": Service("send", answering, UNHEARD, "end", tls=True),
    "handshake, recv": Service(
        "recv", answering, HELLO | {"zero bytes": GONE_FIRST}, "accept", True
    ),
    "handshake, send": Service("send", answering, HELLO, "accept", True),
}
COUNTED = ("refused", "failed", "reset", "idle", "full", "lost", "pauses")


class Stage:
    """A server, one of whose connections goes wrong; and its clients."""

    def __init__(self, service, outcome):
        self.service, self.outcome = service, outcome
        self.client = socket.socket()
        self.name = None  # of the client for which it goes wrong
        self.sock = None  # the one that goes wrong
        self.wrong = False  # from now on
        self.listening = FakeSocket((socket.create_server((LOCAL, 0)), self.client))
        self.listening.near.setblocking(False)
        # Else what is sent second waits for an answer, and the virtual clock for nothing.
        self.listening.near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if service.when != "before":
            self.listening.accept = self.accept
        self.listener = Listener([self.listening])
        self.told = []

    def accept(self):
        conn, peer = self.listening.near.accept()
        if peer != self.name:
            return conn, peer
        self.sock = FakeSocket((conn, self.client))
        self.at("accept")
        return self.sock, peer

    def handle(self, stream):
        if stream.peer != self.name:
            yield from echo(stream)
            return
        self.at("begin")
        try:
            yield from self.service.handler(stream)
        finally:
            self.at("end")

    def at(self, when):
        """Let it go wrong from now on, if this is when."""
        call = self.service.call
        if when == self.service.when:
            self.wrong = True
            if call == "close" and self.outcome in MEANWHILE:  # nobody waits for that
                self.close()
            else:
                self.sock.calls.clear()
                self.sock.script(**{call: OUTCOMES[self.outcome]})

    def close(self):
        streams = [
            each.stream for each in connections_of(self.server) if each.stream.peer == self.name
        ]
        MEANWHILE[self.outcome](streams[0] if streams else self.listener, self.sock)

    def connect(self, sock):
        sock.connect(self.listener.addresses[0])
        sock.setblocking(False)
        return Stream(sock)

    def be_the_client(self):
        """Be the one for which it goes wrong; return what was heard."""
        heard = b""
        with self.connect(self.client) as stream:
            self.name = stream.local
            if self.service.tls:
                yield from failure_of(stream.start_tls(**TLS["client"]))
            if self.service.when == "begin":
                yield from turns(lambda: self.wrong)
            yield from failure_of(stream.sendall(DATA))
            if self.service.when != "end" or self.service.handler is reading:
                yield from failure_of(stream.send_eof())
            while data := (yield from failure_of(stream.recv(CHUNK)))[0]:
                heard += data
        return heard

    def be_another(self):
        """Be served as ever; return the stream."""
        stream = self.connect(socket.socket())
        if self.service.tls:
            yield from stream.start_tls(**TLS["client"])
        yield from speak(stream)
        return stream

    def play(self):
        tls = TLS["server"]["context"] if self.service.tls else None
        tell = lambda *args: self.told.append(args)  # noqa: E731
        self.server = self.listener.serve(self.handle, tls=tls, on_error=tell)
        with (yield from self.be_another()) as bystander:
            if self.service.when == "before":
                self.sock = self.listening
                self.at("before")
            client = spawn(self.be_the_client)
            if self.outcome in MEANWHILE and self.service.call != "close":
                yield from turns(lambda: self.wrong and self.sock.calls[self.service.call])
                self.close()
            heard = yield from client
            if self.outcome in ("EAGAIN", "late", "woken twice") and answers(self.service):
                assert heard == DATA
            yield from self.see(bystander, self.service.counts[self.outcome])
        yield from nothing_left()

    def see(self, bystander, wanted):
        server = self.server
        if wanted is DEAD:
            with pytest.raises(OSError) as caught:
                yield from server.stop()
            assert caught.value.errno == errno.EBADF
            return
        yield from speak(bystander)
        if wanted is OVER:
            assert server.stopping.is_set()
        else:
            newcomer = yield from self.be_another()
            yield from newcomer.aclose()
        yield from bystander.aclose()
        yield from until(lambda: server.stats()["open"] == 0)
        yield from server.stop()
        if wanted is not OVER:
            stats = server.stats()
            assert stats["accepted"] == 3
            several = wanted if isinstance(wanted, tuple) else (wanted,)
            assert {name: stats[name] for name in COUNTED if stats[name]} in several
            assert len(self.told) == stats["failed"]


def answers(service):
    return service.handler in (answering, answering_in_parts)


def speak(stream):
    yield from stream.sendall(DATA)
    assert (yield from stream.readexactly(len(DATA))) == DATA


def turns(condition):
    """Give way, and no time, until a condition holds; not for ever."""
    for _ in range(100):
        yield
        if condition():
            return


def play_on(service, outcome):
    """Let a connection of a server have an outcome, and see what becomes of the others."""
    complaints = []
    opened = open_files()
    stage = Stage(service, outcome)
    try:
        run(stage.play, on_task_error=lambda *args: complaints.append(args), **virtual_time())
        assert stage.sock.closed
        assert stage.sock.played or (service.call == "close" and outcome in MEANWHILE)
    finally:
        stage.listening.discard()
        if stage.sock is not None:
            stage.sock.discard()
    assert len(complaints) == (service.counts[outcome] is DEAD)
    assert open_files() == opened


@pytest.mark.parametrize("name", SERVICES)
def test_a_server_with_each_outcome(name):
    for outcome in tried(SERVICES[name].counts, list(SERVICES).index(name)):
        with named(name, outcome):
            play_on(SERVICES[name], outcome)


# A storm ------------------------------------------------------------------------------------------

MUCH = 4_000_000  # bytes, more than any socket takes


class Storm:
    """Makes selectors that, for so many rounds, wake everybody at random, with nothing to read."""

    def __init__(self):
        self.rounds = 0
        self.woken = Counter()  # for each number
        self.random = random.Random(12)

    def selector(self):
        storm = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout=None):
                if not storm.rounds:
                    return super().select(timeout)
                storm.rounds -= 1
                keys = [key for key in self.get_map().values() if storm.random.random() < 0.5]
                storm.woken.update(key.fd for key in keys)
                return [(key, key.events) for key in keys]

        return Selector()


def encrypted():
    near, far = make_streams()
    shaking = spawn(far.start_tls(**TLS["server"]))
    yield from near.start_tls(**TLS["client"])
    yield from shaking
    return near, far


def reads(operation, result=DATA, streams=None):
    """Return a task that waits, what makes its wait end, its result, and what is to be closed."""
    near, far = streams or make_streams()
    return spawn(operation(near)), far.sendall(DATA), result, (near, far)


def sends(operation, result=None, streams=None):
    near, far = streams or make_streams()
    return spawn(operation(near)), far.readexactly(MUCH), result, (near, far)


def shakes_hands(one, other):
    near, far = make_streams()
    return spawn(near.start_tls(**TLS[one])), far.start_tls(**TLS[other]), None, (near, far)


def closes():
    near, far = make_streams()
    return spawn(near.aclose(math.inf)), far.send_eof(), None, (near, far)


def accepts(hosts):
    listener = listen_tcp(hosts, 0)

    def task():
        with (yield from listener.accept()) as stream:
            return stream.peer[0]

    def feed():
        (yield from open_tcp(*listener.addresses[0])).close()

    return spawn(task), feed(), LOCAL, (listener,)


def is_served():
    """A server whose client has said nothing yet."""
    server = listen_tcp(LOCAL, 0).serve(echo)
    stream = yield from open_tcp(*server.listener.addresses[0])

    def feed():
        yield from speak(stream)
        stream.close()
        yield from server.stop()

    return server.task, feed(), None, (stream,)


def send_much(stream):
    yield from stream.sendall(bytes(MUCH))


def send_much_in_parts(stream):
    yield from stream.sendall([bytes(MUCH // 2)] * 2)


def send_a_large_file(stream):
    with tempfile.TemporaryFile() as file:
        file.truncate(MUCH)
        return (yield from stream.sendfile(file))


def everybody():
    """Return tasks that wait for everything that streams and servers wait for."""
    return [
        reads(lambda s: s.recv(100)),
        reads(into),
        reads(lambda s: s.more(), True),
        reads(lambda s: s.readline()),
        reads(lambda s: s.readexactly(10)),
        reads(lambda s: s.readuntil(b"8\n", b"9\n")),
        sends(send_much),
        sends(send_much_in_parts),
        sends(send_a_large_file, MUCH),
        reads(lambda s: s.recv(100), streams=(yield from encrypted())),
        reads(lambda s: s.readline(), streams=(yield from encrypted())),
        sends(send_much, streams=(yield from encrypted())),
        shakes_hands("client", "server"),
        shakes_hands("server", "client"),
        closes(),
        accepts(LOCAL),
        accepts([LOCAL, "127.0.0.2"]),
        (yield from is_served()),
    ]


@pytest.mark.hazard("H12")
def test_in_a_storm_of_wakes_in_vain_nothing_ends_early():
    rounds = 10_000 if FULL else 1_000
    storm = Storm()

    def main():
        waiting = yield from everybody()
        yield from turns(lambda: False)  # until all of them wait
        files = current_scheduler().stats()["files"]
        storm.rounds = rounds
        while storm.rounds:
            yield
            assert not any(task.done for task, *_ in waiting)
        yield from turns(lambda: False)
        assert current_scheduler().stats()["files"] == files  # all of them wait again
        assert len(storm.woken) > len(waiting)  # and the one for other threads and signals
        for task, feed, result, things in waiting:
            assert not any(getattr(thing, "ended", False) for thing in things)
            feeding = spawn(feed)
            assert (yield from task) == result
            yield from feeding
            for thing in things:
                thing.close()
        yield from nothing_left()

    opened = open_files()
    run(main, selector=storm.selector, clock=lambda: 0.0)  # no deadline passes, however slow it is
    assert min(storm.woken.values()) > rounds // 4
    assert open_files() == opened
