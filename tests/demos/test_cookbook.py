"""The cookbook of the demos: each program beside its old shape, whose fault is shown here.

What both must do, with the same bytes, is done with both. The faults of the old shapes come by
order and by counts, never by time: a process is stopped while its client acts, a call-back acts
just where the fault is, or there is more data than small buffers hold.
"""

import errno
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from corolib import (
    Event,
    Queue,
    Sleep,
    Stream,
    current_scheduler,
    listen_tcp,
    now,
    open_tcp,
    open_udp,
    run,
    spawn,
    timeout,
    to_thread,
)
from corolib.coordination.threads import ThreadEnd
from corolib.testing import virtual_time
from demos.cookbook import (
    accept_read,
    compare,
    event_queue,
    fibonacci,
    idle_tick,
    messages,
    operator_chat,
    queued,
    tcp_echo,
    upper,
)
from demos.cookbook.old import __main__ as old_main
from demos.cookbook.old import event_queue as old_event_queue
from demos.cookbook.old import fibonacci as old_fibonacci
from demos.cookbook.old import idle_tick as old_idle_tick
from demos.cookbook.old import messages as old_messages
from demos.cookbook.old import operator_chat as old_operator_chat
from demos.cookbook.old import queued as old_queued
from demos.cookbook.old import tcp_echo as old_tcp_echo
from demos.cookbook.old import upper as old_upper
from tests.helpers.driving import FULL
from tests.helpers.inside import file_of
from tests.helpers.programs import (
    PATIENCE,
    ROOT,
    Program,
    exchange,
    outcome,
    quiet,
    read_all,
    readable,
    start,
)
from tests.helpers.sockets import reset

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets the connection


class Keeping(socket.socket):
    """A listening socket that closes in the end what it has accepted, as a dying process would."""

    def __init__(self) -> None:
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.accepted = []

    def accept(self):
        conn, address = super().accept()
        self.accepted.append(conn)
        return conn, address

    def close(self) -> None:
        for conn in self.accepted:
            conn.close()
        super().close()


class Stop(Exception):
    """Ends an old shape, which has no end of its own."""


def twin(name: str, *args: str, **options) -> Program:
    return Program(f"demos.cookbook.{name}", *args, **options)


def processes(name: str) -> Program:
    return twin(name, "--pool=processes")


def old(name: str, **options) -> Program:
    return Program("demos.cookbook.old", name, **options)


@pytest.fixture(scope="module")
def shared():
    """Return the program of a shape and a name: one process for all tests that ask for it."""
    running = {}
    with ExitStack() as stack:

        def get(shape, name: str) -> Program:
            if (shape, name) not in running:
                running[shape, name] = stack.enter_context(shape(name))
            return running[shape, name]

        yield get


@contextmanager
def frail(name: str):
    """Run an old shape that may die of what is done in the block, or live on."""
    with old(name) as program:
        yield program
        program.stop()


BOTH = pytest.mark.parametrize("shape", [twin, old], ids=["twin", "old"])


def died(program: Program) -> str:
    """Wait until a program has died of an exception; return what it said of it."""
    _, err = program.process.communicate(timeout=PATIENCE)
    assert program.process.returncode == 1, err
    assert "Traceback" in err
    return err.splitlines()[-1]


def narrow(program: Program) -> socket.socket:
    """Return a client with small buffers: a few kilobytes that it does not read are much."""
    conn = socket.socket()
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    conn.settimeout(PATIENCE)
    conn.connect((program.host, program.port))
    return conn


@contextmanager
def held(program: Program):
    """Stop a process for the time of a block, so that what is done in it comes all at once."""
    pid = program.process.pid
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def at_rest(progress):
    """Wait until what `progress()` returns has been the same for 200 turns; return it."""
    seen, rests = progress(), 0
    while rests < 200:
        yield
        new = progress()
        seen, rests = new, rests + 1 if new == seen else 0
    return seen


# UDP time and echo --------------------------------------------------------------------------------


@BOTH
def test_udp_time(shape):
    with shape("udp_time") as program, program.udp() as sock:
        for data in (b"", b"what time is it?", bytes(9000)):
            before = int(time.time())
            sock.send(data)
            reply = sock.recv(100)
            assert len(reply) == 24
            assert before <= time.mktime(time.strptime(reply.decode("ascii"))) <= time.time()


@BOTH
def test_udp_echo(shape):
    with shape("udp_echo") as program, program.udp() as sock:
        for size in (0, 1, 8192):
            sock.send(bytes(size))
            assert sock.recv(65535) == bytes(size)
        data = bytes(range(250)) * 36
        assert len(data) == 9000
        sock.send(data)
        assert sock.recv(65535) == data[: 8192 if shape is old else 9000]
        if shape is twin:
            sock.send(bytes(65507))
            assert sock.recv(65535) == bytes(65507)


@pytest.mark.parametrize("name", ["udp_time", "udp_echo", "fibonacci"])
def test_services_of_the_system_get_no_answer(name):
    with twin(name) as program, socket.socket(type=socket.SOCK_DGRAM) as service:
        for port in range(1023, 512, -1):
            try:
                service.bind((program.host, port))
                break
            except PermissionError:
                pytest.skip("these ports are for root alone")
            except OSError:
                pass  # taken
        service.sendto(b"5", (program.host, program.port))
        with program.udp() as sock:
            sock.send(b"5")
            assert sock.recv(100)
        assert readable([service], 0) == []


# TCP echo -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("name", ["tcp_echo", "accept_read"])
def test_echo_of_a_conversation(shared, shape, name):
    program = shared(shape, name)
    with program.connect() as one, program.connect() as two:
        for i in range(5):
            for conn in (one, two):
                conn.sendall(b"%d" % i)
            for conn in (two, one):
                assert conn.recv(100) == b"%d" % i


@pytest.mark.parametrize("name", ["tcp_echo", "accept_read"])
def test_echo_gives_back_all_also_after_the_client_s_end(shared, name):
    program = shared(twin, name)
    data = bytes(range(250)) * 4000
    with narrow(program) as conn:
        assert exchange(conn, data) == data
    with narrow(program) as conn:
        with held(program):
            conn.sendall(data[:200])
            conn.shutdown(socket.SHUT_WR)
        assert read_all(conn) == data[:200]


def test_the_old_echo_server_dies_of_a_client_that_closes_its_side():
    with old("tcp_echo") as program, program.connect() as conn:
        with held(program):
            conn.sendall(b"hello")
            conn.shutdown(socket.SHUT_WR)
        assert read_all(conn) == b""
        assert f"[Errno {errno.EBADF}]" in died(program)


def test_the_old_echo_server_keeps_what_nobody_reads_and_throws_it_away_at_the_end():
    handlers = []
    with Keeping() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        host, port = listener.getsockname()
        old_tcp_echo.Server(listener, handlers)
        with narrow(SimpleNamespace(host=host, port=port)) as conn:
            old_tcp_echo.turn(handlers)
            client = handlers[1]
            conn.setblocking(False)
            while len(client.outgoing) < 2**20:  # nothing holds it up, though it reads nothing
                try:
                    conn.send(bytes(65536))
                except BlockingIOError:
                    pass
                old_tcp_echo.turn(handlers)
            conn.shutdown(socket.SHUT_WR)
            while client in handlers:
                old_tcp_echo.turn(handlers)
            assert len(client.outgoing) >= 2**20
            conn.settimeout(PATIENCE)
            assert len(read_all(conn)) < 2**18


def sends_without_reading(handler, size=2**24):
    """Have a client send as much as is taken, and then read all; return how much that was."""

    def main():
        listener = listen_tcp("127.0.0.1", 0)
        server = listener.serve(handler)
        with (yield from open_tcp(*listener.addresses[0])) as client:
            sent = 0

            def send():
                nonlocal sent
                try:
                    sent += file_of(client).send(bytes(min(65536, size - sent)))
                except BlockingIOError:
                    pass
                return sent

            yield from at_rest(send)
            yield from client.send_eof()
            assert len((yield from client.readexactly(sent))) == sent
            assert (yield from client.recv(1)) == b""
        yield from server.stop()
        assert server.stats()["failed"] == 0
        return sent

    return run(main)


@pytest.mark.parametrize(
    "handler",
    [tcp_echo.echo, upper.upper, queued.talk],
    ids=["tcp_echo", "upper", "queued"],
)
def test_who_does_not_read_is_not_read_from(handler):
    assert sends_without_reading(handler) < 2**24


def test_the_callback_s_twin_does_not_read_from_who_does_not_read():
    def handler(stream):
        sock = file_of(stream)
        conn = socket.socket(fileno=os.dup(sock.fileno()))
        conn.setblocking(False)
        yield from accept_read.read(conn)

    assert sends_without_reading(handler) < 2**24


def test_the_old_callback_sends_a_part_and_then_dies():
    with old("accept_read") as program, narrow(program) as conn:
        try:
            conn.sendall(bytes(200_000))
            conn.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has died already
        assert "BlockingIOError" in died(program)
        received = 0
        try:
            while data := conn.recv(65536):
                received += len(data)
        except ConnectionResetError:
            pass
        assert received < 200_000


# Fibonacci ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [twin, processes, old])
def test_fibonacci_numbers(shared, shape):
    with shared(shape, "fibonacci").udp() as sock:
        for message, reply in [
            (b"0", b"1"),
            (b"1", b"1"),
            (b"2", b"2"),
            (b" 10\n", b"89"),
            (b"20", b"10946"),
        ]:
            sock.send(message)
            assert sock.recv(100) == reply


def children(program: Program) -> list[int]:
    """Return the processes that a program has started."""
    found = []
    for path in Path("/proc").glob("[1-9]*/stat"):
        try:
            parent = path.read_text().rpartition(")")[2].split()[1]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        if int(parent) == program.process.pid:
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="there is no /proc")
def test_others_are_served_while_a_large_number_is_computed(shared):
    program = shared(processes, "fibonacci")
    with program.udp() as one, program.udp() as two:
        one.send(b"20")
        assert one.recv(100) == b"10946"
        workers = children(program)
        for pid in workers:  # so that it takes as long as we like
            os.kill(pid, signal.SIGSTOP)
        try:
            one.send(b"21")
            for _ in range(10):
                two.send(b"5")
                assert two.recv(100) == b"8"
            assert workers and readable([one], 0) == []
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        assert one.recv(100) == b"17711"
        for _ in range(20):  # as many completions at once, and none is lost
            one.send(b"16")
            two.send(b"17")
        assert {one.recv(100) for _ in range(20)} == {b"1597"}
        assert {two.recv(100) for _ in range(20)} == {b"2584"}


@pytest.mark.found("D1")
def test_every_message_has_an_answer_but_for_errors():
    """Two of these servers would tell each other for ever that an error is not a number."""
    with twin("fibonacci", "--largest=5000") as program, program.udp() as sock:
        for message, reply in [
            (b"abc", b"error: b'abc' is not a whole number"),
            (b"", b"error: b'' is not a whole number"),
            (b"\xff" * 9000, None),
            (b"5001", b"error: that is more than 5000"),
            (b"5000", None),  # a RecursionError in the pool
            (b"20", b"10946"),
        ]:
            sock.send(message)
            sock.send(b"error: an answer itself, which gets none")
            answer = sock.recv(65535)
            assert answer == reply or (reply is None and answer.startswith(b"error: "))
            assert len(answer) < 200


def test_so_many_numbers_are_under_way_and_no_more(monkeypatch, capsys):
    computed = Event()
    waits = lambda f, n: (yield from computed.wait()) or n  # noqa: E731
    monkeypatch.setitem(fibonacci.POOLS, "threads", waits)

    def main():
        serving = spawn(fibonacci.serve, "127.0.0.1", 0, 40, "threads")
        while not (line := capsys.readouterr().out):
            yield
        port = int(re.search(r"port (\d+)", line)[1])
        idle = len(current_scheduler().tasks)
        for number, each in enumerate(("127.0.0.2", "127.0.0.3", "127.0.0.4"), 1):
            clients.append((yield from open_udp("127.0.0.1", port, local=(each, 0))))
            for _ in range(fibonacci.OF_ONE + 5):
                yield from clients[-1].send(b"20")
            # A busy kernel may be slow to deliver them, and then the next ones come before them.
            expected = idle + min(number * fibonacci.OF_ONE, fibonacci.AT_ONCE)
            while len(current_scheduler().tasks) < expected:
                yield
            yield from at_rest(lambda: len(current_scheduler().tasks))
        computed.set()
        yield from at_rest(lambda: len(current_scheduler().tasks))
        for sock in clients[:2]:
            for _ in range(fibonacci.OF_ONE):
                assert (yield from sock.recv()) == b"20"
        for sock in clients:
            with sock, pytest.raises(BlockingIOError):
                sock.socket.recv(100)
        yield from serving.stop()

    clients = []
    assert fibonacci.AT_ONCE == 2 * fibonacci.OF_ONE

    run(main)


def test_others_are_served_while_a_thread_of_the_pool_computes(monkeypatch):
    """The old shape had a pool of threads; so has its twin, and the loop stays free."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(n):
        begun.set()
        assert threading.current_thread() is not threading.main_thread()
        assert go_on.wait(PATIENCE)
        return n

    def main():
        large = spawn(fibonacci.answer, b"21", None, 40, "threads")
        while not begun.is_set():
            yield
        for _ in range(10):
            assert (yield from fibonacci.answer(b"5", None, 40, "threads")) == b"8"
        assert not large.done
        go_on.set()
        assert (yield from large) == b"21"

    real = fibonacci.fib
    monkeypatch.setattr(fibonacci, "fib", lambda n: real(n) if n < fibonacci.SMALL else slow(n))
    run(main)


def test_the_old_fibonacci_server_dies_of_what_is_no_number():
    with old("fibonacci") as program, program.udp() as sock:
        sock.send(b"abc")
        assert "ValueError" in died(program)


@pytest.fixture
def udp_pair():
    """A server's UDP socket, and a client's that is connected to it."""
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.connect(server.getsockname())
            client.settimeout(PATIENCE)
            yield server, client


@pytest.fixture
def completions():
    found = old_fibonacci.Completions()
    with found.read_end, found.write_end:
        yield found


def test_a_failure_in_the_old_pool_gets_no_answer(udp_pair, completions, caplog):
    server, client = udp_pair
    with ThreadPoolExecutor(1) as pool:
        client.send(b"5000")
        old_fibonacci.turn(server, completions, pool)
    assert "RecursionError" in caplog.text  # it is done with, in the thread of the pool
    assert completions.done == [] and readable([completions.read_end], 0) == []


def test_the_old_list_of_completions_loses_one(udp_pair, completions):
    server, client = udp_pair

    class Interleaved(list):
        """Another thread appends to it just when it has been gone through."""

        def __iter__(self):
            yield from super().copy()
            done = SimpleNamespace(result=lambda: 21)
            thread = threading.Thread(
                target=completions.complete, args=(done, client.getsockname())
            )
            thread.start()
            thread.join()

    completions.done = Interleaved()
    completions.complete(SimpleNamespace(result=lambda: 13), client.getsockname())
    completions.can_read(server)
    assert client.recv(100) == b"13"
    assert completions.done == []  # and where is the other one?
    assert readable([client], 0) == []


# Upper case ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [twin, frail], ids=["twin", "old"])
def test_the_client_talks_on_two_sockets_in_turn(shape):
    with shape("upper") as program:
        status, out, err = outcome("demos.cookbook.upper_client", f"--port={program.port}")
    assert status == 0 and quiet(err)
    lines = [line.split(" ", 1) for line in out.splitlines()]
    one, two = dict.fromkeys(who for who, _ in lines)
    assert lines == [
        [who, f"{verb} {part.upper() if verb == 'got' else part!r}"]
        for part in (b"This is the message. ", b"It will be sent ", b"in parts.")
        for verb in ("sends", "got")
        for who in (one, two)
    ]


def test_the_client_says_when_the_server_hangs_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with start("demos.cookbook.upper_client", f"--port={port}") as process:
            conns = [listener.accept()[0] for _ in range(2)]
            for conn in conns:
                conn.close()
            _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and err.count("\n") == 1 and str(port) in err, err


def test_a_long_message_comes_back_whole(shared):
    with narrow(shared(twin, "upper")) as conn:
        assert exchange(conn, b"a long story, " * 20_000) == b"A LONG STORY, " * 20_000


def test_the_old_server_loses_the_rest_of_a_long_message():
    with frail("upper") as program, narrow(program) as conn:
        assert len(exchange(conn, bytes(65536))) < 65536


def test_a_client_that_vanishes_leaves_entries_in_the_old_collections():
    with Keeping() as listener:
        loop = old_upper.Loop(listener)
        conn = socket.create_connection(listener.getsockname())
        loop.turn()
        accepted = loop.inputs[1]
        conn.sendall(b"hello")
        loop.turn()
        reset(conn)
        loop.turn()
        assert loop.inputs == [listener] and accepted.fileno() == -1
        assert accepted in loop.outputs and accepted in loop.answers
        with pytest.raises(ValueError, match="negative"):
            loop.turn()


def test_clients_that_vanish_leave_nothing_behind():
    def main():
        listener = listen_tcp("127.0.0.1", 0)
        server = listener.serve(upper.upper)
        for _ in range(20):
            client = yield from open_tcp(*listener.addresses[0])
            yield from client.sendall(b"hello")
            file_of(client).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
        while server.stats()["accepted"] < 20 or server.stats()["open"]:
            yield
        assert server.stats()["failed"] == 0
        assert current_scheduler().stats()["tasks"] == 2
        yield from server.stop()

    run(main)


# A queue for each client --------------------------------------------------------------------------


@BOTH
def test_each_message_comes_back_from_a_queue(shape):
    """Not by a program that others share: the old one turns for ever once a client has gone."""
    with shape("queued") as program, program.connect() as one, program.connect() as two:
        for number in range(5):
            for conn in (one, two):
                conn.sendall(b"%d" % number)
            for conn in (two, one):
                assert conn.recv(100) == b"%d" % number


def test_what_is_in_the_queue_is_sent_when_a_client_has_closed_its_side(shared):
    data = bytes(range(250)) * 4000
    with narrow(shared(twin, "queued")) as conn:
        assert exchange(conn, data) == data


def test_a_client_that_closes_stays_in_the_old_loop_for_ever():
    with Keeping() as listener:
        loop = old_queued.Loop(listener)
        with socket.create_connection(listener.getsockname()) as conn:
            loop.turn()
            conn.sendall(b"hello")
            loop.turn()
            loop.turn()
            assert conn.recv(100) == b"hello"
            conn.shutdown(socket.SHUT_WR)
            for _ in range(1000):  # `select` returns each time, though nobody has anything to say
                loop.turn()
        (gone,) = loop.inputs[1:]
        assert loop.outputs.count(gone) > 1  # a second entry among the writers, and more
        assert gone.recv(1) == b""


def test_a_client_that_closes_is_gone():
    def main():
        listener = listen_tcp("127.0.0.1", 0)
        server = listener.serve(queued.talk)
        for ends in (Stream.close, lambda client: reset(file_of(client))):
            client = yield from open_tcp(*listener.addresses[0])
            yield from client.sendall(b"hello")
            assert (yield from client.readexactly(5)) == b"hello"
            ends(client)
            while server.stats()["open"]:
                yield
        assert server.stats()["accepted"] == 2 and server.stats()["failed"] == 0
        assert current_scheduler().stats()["tasks"] == 2
        turns = current_scheduler().stats()["turns"]
        yield Sleep(3600)
        assert current_scheduler().stats()["turns"] - turns < 10
        yield from server.stop()

    run(main, **virtual_time())


# Urgent data --------------------------------------------------------------------------------------


@BOTH
def test_messages_without_urgent_data(shape):
    with shape("urgent") as program, program.connect() as conn:
        for data in (b"hello", b"again"):
            conn.sendall(data)
            assert conn.recv(100) == data.upper()


def test_urgent_data_is_noticed_and_the_rest_goes_on():
    with twin("urgent") as program, program.connect() as conn, program.connect() as other:
        for mark in (b"!", b"?"):
            conn.sendall(b"before ")
            assert conn.recv(100) == b"BEFORE "
            conn.send(mark, socket.MSG_OOB)
            host, port = conn.getsockname()
            line = program.process.stdout.readline()
            assert line == f"urgent from {host}:{port}: {mark!r}\n"
            conn.sendall(b"after")
            assert conn.recv(100) == b"AFTER"
        with held(program):
            conn.sendall(b"all ")
            conn.send(b"!", socket.MSG_OOB)
            conn.sendall(b"at once")
            conn.shutdown(socket.SHUT_WR)
        assert read_all(conn) == b"ALL AT ONCE"
        assert program.process.stdout.readline().startswith(f"urgent from {host}:{port}: b'")
        other.sendall(b"here")
        assert other.recv(100) == b"HERE"
        reset(other)  # is nothing urgent
        status, out, err = program.stop()
        assert (status, out) == (130, "") and quiet(err)


def test_the_old_server_drops_a_connection_with_urgent_data():
    with old("urgent") as program, program.connect() as conn:
        conn.sendall(b"hello")
        assert conn.recv(100) == b"HELLO"
        conn.send(b"!", socket.MSG_OOB)
        try:
            assert conn.recv(100) == b""
        except ConnectionResetError:
            pass


# Looking every four seconds -----------------------------------------------------------------------


def test_one_message_of_each_client_is_printed():
    with twin("messages") as program:
        for message in (b"hello\n", b"\x1b[2J", b"x" * 1024):
            with program.connect() as conn:
                conn.sendall(message)
                assert read_all(conn) == b""
                line = program.process.stdout.readline()
                host, port = conn.getsockname()
                assert line == f"{host}:{port}: {message!r}\n"
        with program.connect() as silent, program.connect() as conn:
            conn.sendall(b"not held up")
            assert "not held up" in program.process.stdout.readline()
            silent.shutdown(socket.SHUT_WR)
            assert read_all(silent) == b""


def test_the_old_server_lets_a_message_wait_for_the_next_look(capsys):
    slept = []
    clients = []
    shown = []

    def sleep(seconds):
        """Pass the time between two looks."""
        shown.append(capsys.readouterr().out)
        slept.append(seconds)
        if len(slept) == 1:
            clients.append(socket.create_connection(listener.getsockname()))
            clients[0].sendall(b"hello")
        elif len(slept) == 100:
            raise Stop

    with Keeping() as listener:
        with pytest.raises(Stop):
            old_messages.serve(listener, sleep=sleep)
        host, port = clients[0].getsockname()
        clients[0].close()
    assert shown[:2] == ["", f"{host}:{port}: b'hello'\n"]
    assert slept[0] == 4.0  # between the message and the line
    assert shown[2:] == [""] * 98  # and so many looks in vain


def test_a_message_is_printed_when_it_comes_and_nobody_looks_meanwhile(capsys):
    def main():
        listener = listen_tcp("127.0.0.1", 0)
        serving = spawn(messages.serve, listener)
        yield Sleep(1.5)
        with (yield from open_tcp(*listener.addresses[0])) as client:
            turns = current_scheduler().stats()["turns"]
            yield Sleep(3600)
            assert current_scheduler().stats()["turns"] - turns < 10
            came = now()
            yield from client.sendall(b"hello")
            while not (shown := capsys.readouterr().out):
                yield
            assert now() == came and "b'hello'" in shown
        yield from serving.stop()

    run(main, **virtual_time())


# An idle tick -------------------------------------------------------------------------------------


def test_the_tick_comes_after_five_seconds_without_a_client(capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(
        idle_tick, "print", lambda text, flush: shown.append((now(), text)), raising=False
    )

    def main(listener):
        serving = spawn(idle_tick.serve, listener, 5.0)
        yield Sleep(12)
        with (yield from open_tcp(*listener.addresses[0])) as client:
            yield Sleep(10.5)
            name = "{}:{} is here".format(*client.local)
        yield from serving.stop()
        assert shown == [(5, "tick"), (10, "tick"), (12, name), (17, "tick"), (22, "tick")]

    with listen_tcp("127.0.0.1", 0) as listener:
        run(main, listener, **virtual_time())


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH])
def test_a_client_may_leave_in_any_way(monkeypatch, number):
    def gone(stream, most):
        yield
        raise OSError(number, os.strerror(number))

    with listen_tcp("127.0.0.1", 0) as listener:
        client = socket.create_connection(listener.addresses[0])

        def main():
            stream = yield from listener.accept()
            monkeypatch.setattr(Stream, "recv", gone)
            yield from idle_tick.stay(stream)
            client.settimeout(PATIENCE)
            assert client.recv(1) == b""

        with client:
            run(main)


def test_connections_are_accepted_between_ticks():
    with twin("idle_tick", "--interval=0.01") as program:
        output = program.process.stdout
        assert output.readline() == "tick\n"
        with program.connect() as one, program.connect() as two:
            names = {"{}:{} is here\n".format(*conn.getsockname()) for conn in (one, two)}
            seen = set()
            while not names <= seen:
                line = output.readline()
                assert line in names or line == "tick\n"
                seen.add(line)
            one.sendall(b"whatever")
            reset(two)


class Calls:
    """Stands in for `select.select`: passes calls on, with no time to wait, and counts them."""

    def __init__(self, most):
        self.most = most
        self.ready = 0

    def __call__(self, reading, writing, failing, patience):
        found = select.select(reading, writing, failing, 0)
        self.ready += bool(found[0])
        if self.ready > self.most:
            raise Stop
        return found


def test_the_old_program_that_accepts_nobody_is_told_of_the_client_for_ever(monkeypatch, capsys):
    calls = Calls(100_000)
    monkeypatch.setattr(old_idle_tick, "select", calls)
    with Keeping() as listener, socket.create_connection(listener.getsockname()):
        with pytest.raises(Stop):
            old_idle_tick.serve(listener)
    assert calls.ready == 100_001
    assert capsys.readouterr().out == "select has returned 100000 times\n"  # and no tick


def test_the_old_program_ticks_while_nobody_connects(monkeypatch, capsys):
    waited = []

    def nobody(reading, writing, failing, patience):
        waited.append(patience)
        if len(waited) == 3:
            raise Stop
        return [], [], []

    monkeypatch.setattr(old_idle_tick, "select", nobody)
    with pytest.raises(Stop):
        old_idle_tick.serve(None)
    assert waited == [5.0] * 3 and capsys.readouterr().out == "tick\ntick\n"


# Operator chat ------------------------------------------------------------------------------------


def test_the_operator_answers_whom_he_likes_and_nobody_waits_for_him():
    with twin("operator_chat", stdin=subprocess.PIPE) as program:
        output = program.process.stdout

        def types(text):
            program.process.stdin.write(text)
            program.process.stdin.flush()

        with program.connect() as one, program.connect() as two, program.connect() as three:
            for number, conn in enumerate((one, two, three), 1):  # he types nothing meanwhile
                conn.sendall(b"hello, I am number %d\x07\n" % number)
                assert output.readline() == f"client {number}: hello, I am number {number}\n"
            types("2 good morning\n")
            assert two.recv(100) == b"good morning\n"
            types("9 good morning\nhello?\n")
            assert "there is no client 9;" in output.readline()
            assert "there is no client hello?;" in output.readline()
            three.sendall(b"I have to go\n")
            assert output.readline() == "client 3: I have to go\n"
            reset(three)
            assert output.readline() == "client 3 has left\n"
            types("3 good bye\n")
            assert "there is no client 3;" in output.readline()
            types("1 and you?\n")
            assert one.recv(100) == b"and you?\n"
            keyboard, program.process.stdin = program.process.stdin, None
            keyboard.close()  # the operator goes home, and the clients go on
            two.sendall(b"and now?\n")
            assert output.readline() == "client 2: and now?\n"
        assert {output.readline(), output.readline()} == {
            "client 1 has left\n",
            "client 2 has left\n",
        }


def test_a_client_that_does_not_read_is_left_after_a_while(monkeypatch):
    def main():
        clients = {"1": streams[0]}
        monkeypatch.setattr(operator_chat, "open_stdin", lambda: streams[2])
        operating = spawn(operator_chat.operate, clients)
        with timeout(1000):
            while socks[0].fileno() != -1:
                yield from streams[3].sendall(b"1 %s\n" % (b"x" * 10_000))
                yield Sleep(0.01)
        assert now() >= operator_chat.PATIENCE
        yield from operating.stop()

    with ExitStack() as stack:
        socks = [*socket.socketpair(), *socket.socketpair()]
        for sock in socks:
            sock.setblocking(False)
        streams = [stack.enter_context(Stream(sock)) for sock in socks]
        run(main, **virtual_time())


def test_the_old_operator_stops_every_other_client_and_dies_of_one_that_leaves():
    asked = []

    def ask(text):
        """Be the person, who thinks for so long that this happens meanwhile."""
        asked.append(text)
        two.sendall(b"hello?\n")
        assert readable([two], 0) == []
        reset(one)
        return "good morning"

    with Keeping() as listener:
        with socket.create_connection(listener.getsockname()) as one:
            with socket.create_connection(listener.getsockname()) as two:
                one.sendall(b"hello\n")
                with pytest.raises(ConnectionError):
                    old_operator_chat.serve(listener, ask)
    assert asked == ["client 1: hello\n"]  # of the other client nothing was seen


# Blocking -----------------------------------------------------------------------------------------


def test_twenty_clients_are_answered_together_and_in_any_order():
    with twin("hello") as program:
        clients = [program.connect() for _ in range(20)]
        for conn in reversed(clients):  # the first is idle until all others are served
            conn.sendall(b"hello")
            assert read_all(conn) == b"hello"
            conn.close()


def test_the_old_server_answers_twenty_clients_one_after_another():
    with old("hello") as program:
        clients = [program.connect() for _ in range(20)]
        for conn in clients[1::2]:  # every second one; before each of them is one who is silent
            conn.sendall(b"hello")
        for first in range(0, 20, 2):
            assert readable(clients[first:], 0) == []  # all wait for this one
            clients[first].sendall(b"hello")
            for conn in clients[first : first + 2]:
                assert read_all(conn) == b"hello"
                conn.close()


# Events -------------------------------------------------------------------------------------------


def test_the_old_scan_looks_thousands_of_times_for_each_event():
    handled = []

    class Keyboard(SimpleQueue):
        looks = 0

        def get_nowait(self):
            self.looks += 1
            if self.looks == 5000:
                self.put("a key")
            if self.looks == 5001:
                raise Stop
            return super().get_nowait()

    keyboard = Keyboard()
    handlers = {"click": handled.append, "key": handled.append}
    with pytest.raises(Stop):
        old_event_queue.scan({"click": SimpleQueue(), "key": keyboard}, handlers)
    assert handled == ["a key"] and keyboard.looks == 5001


def test_the_old_blocking_scan_does_not_look_at_the_keyboard():
    handled = []
    keyboard = SimpleQueue()

    class Mouse(SimpleQueue):
        def get(self):
            """Wait for a click; meanwhile somebody types."""
            if handled:
                raise Stop
            keyboard.put("a key")
            assert handled == [] and keyboard.qsize() == 1
            return "a click"

    handlers = {"click": handled.append, "key": handled.append}
    with pytest.raises(Stop):
        old_event_queue.scan_blocking({"click": Mouse(), "key": keyboard}, handlers)
    assert handled == ["a click", "a key"]  # though it was typed before


def click(column, row, button=0, end="M"):
    """Return what a terminal sends for a click."""
    return f"\x1b[<{button};{column};{row}{end}"


def said(text, cut=None):
    """Return what the handlers say of a text; cut: it comes in pieces of so many characters."""
    screen = event_queue.Screen(lambda: None)
    found, rest = [], ""
    for at in range(0, len(text), cut or len(text)):
        events, rest = event_queue.decode(rest + text[at : at + (cut or len(text))], screen)
        found += [event.handler(event.about) for event in events]
    return found, rest


@pytest.mark.parametrize("cut", [None, 1, 2, 7])
def test_a_click_runs_the_handler_of_what_is_there_and_keys_come_beside_it(cut):
    row = event_queue.Screen(int).draw()
    hello, count = row.index("hello") + 1, row.index("count") + 1
    text = (
        click(hello, 1) + click(hello, 1, end="m") + "x" + click(count, 1) + "\x1b[A" + "ä"
        + click(count, 1) + click(hello, 2) + click(100, 1)
    )  # fmt: skip
    assert said(text, cut) == (
        [
            "hello",
            "key 'x'",
            "clicked 1 times",
            "key 'ä'",
            "clicked 2 times",
            f"there is nothing at column {hello}, row 2",
            "there is nothing at column 100, row 1",
        ],
        "",
    )
    assert said("a\x1b[<0;1", cut) == (["key 'a'"], "\x1b[<0;1")


def test_clicks_and_keys_of_a_terminal_and_events_of_a_thread_are_handled_in_order():
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        termios = pytest.importorskip("termios")
        before = termios.tcgetattr(theirs)
        command = [sys.executable, "-m", "demos.cookbook.event_queue", "--ticks=1", "--pause=0"]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs
        ) as process:
            shown = ""

            def wait_for(text):
                nonlocal shown
                while text not in shown:
                    assert readable([SimpleNamespace(fileno=lambda: ours)], PATIENCE), shown
                    shown += os.read(ours, 65536).decode()

            wait_for("\x1b[?1006h")  # clicks are reported from now on
            assert "[ hello ]  [ count ]  [ quit ]" in shown
            wait_for("clock says 1: handled as event 1")
            os.write(ours, click(3, 1).encode())
            wait_for("hello: handled as event 2")
            os.write(ours, b"x" + click(13, 1).encode() + b"y")
            wait_for(
                "key 'x': handled as event 3\r\nclicked 1 times: handled as event 4\r\nkey 'y'"
            )
            os.write(ours, click(24, 1).encode())
            wait_for("good bye: handled as event 6")
            assert process.wait(PATIENCE) == 0
            wait_for("\x1b[?1000l")  # no longer
            assert "Traceback" not in shown
        assert termios.tcgetattr(theirs)[3] == before[3]  # it is as it was
    finally:
        os.close(ours)
        os.close(theirs)


def test_without_a_terminal_the_keys_come_from_a_pipe():
    with start("demos.cookbook.event_queue", "--ticks=0", stdin=subprocess.PIPE) as process:
        out, err = process.communicate("a" + click(3, 1) + "b", timeout=PATIENCE)
    assert process.returncode == 0 and quiet(err)
    whats = ["key 'a'", "hello", "key 'b'"]
    assert out.splitlines() == [f"{w}: handled as event {n}" for n, w in enumerate(whats, 1)]
    with open(os.devnull) as nothing:
        status, out, err = outcome("demos.cookbook.event_queue", stdin=nothing)
    assert (status, out) == (1, "") and err.count("\n") == 1 and "pipe" in err


def test_events_of_one_thread_stay_in_order_and_the_task_waits_without_looking():
    handled = []

    def post(end, name):
        for number in range(50):
            end.put(event_queue.Event(lambda about: handled.append(about) or "", (name, number)))

    def main():
        queue = Queue(3)
        handling = spawn(event_queue.handle, queue, lambda words: None)
        yield
        turns = current_scheduler().stats()["turns"]
        yield Sleep(3600)
        assert current_scheduler().stats()["turns"] - turns < 5
        end = ThreadEnd(queue)
        for task in [spawn(to_thread(post, end, name)) for name in "abcd"]:
            yield from task
        queue.shutdown()
        yield from handling

    run(main, **virtual_time())
    for name in "abcd":
        assert [number for who, number in handled if who == name] == list(range(50))


# Both, side by side -------------------------------------------------------------------------------

DIFFERENCES = {
    "udp_time": ("24 bytes", "24 bytes"),
    "udp_echo": ("8192 came back", "9000 came back"),
    "tcp_echo": (r"\d+ bytes came back(; it died)?", "all came back"),
    "fibonacci": ("no answer(; it died)?", "the next one gets 89"),
    "upper": ("the next one gets nothing(; it died)?", "the next one gets HELLO"),
    "urgent": ("the connection is closed", "noticed, and it goes on"),
    "messages": (r"shown after [123]\.\d+ s", r"shown after 0\.\d+ s"),
    "idle_tick": ("select has returned 100000 times", "the client is here"),
    "operator_chat": ("1 of 2 lines are shown", "2 of 2 lines are shown"),
    "hello": ("0 of 20 are answered", "20 of 20 are answered"),
    "queued": (r"[1-9]\d* ms of CPU in the next 0.5 s", "0 ms of CPU in the next 0.5 s"),
    "accept_read": (r"\d+ bytes came back(; it died)?", "all came back"),
    "event_queue": (r"\d{3,} looks for one key", r"\d turns for one key"),
}


def test_one_command_shows_what_differs():
    names = list(DIFFERENCES) if FULL else ["udp_echo", "hello"]
    status, out, err = outcome("demos.cookbook.compare", *names)
    assert status == 0, err
    assert quiet(err)
    heading, *rows = out.splitlines()
    at, end = heading.index("the old shape"), heading.index("its twin")
    assert [row.split()[0] for row in rows] == names
    for row in rows:
        expected = DIFFERENCES[row.split()[0]]
        for pattern, cell in zip(expected, (row[at:end], row[end:]), strict=True):
            assert re.fullmatch(pattern, cell.strip()), row


def test_every_old_program_is_compared():
    folder = ROOT / "demos" / "cookbook" / "old"
    old_ones = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    assert set(compare.NAMES) == old_ones == set(DIFFERENCES)
    assert set(old_main.PORTS) == set(compare.TRIALS)


# As programs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["udp_echo", "upper", "urgent"])
def test_a_port_in_use_gets_one_line(name):
    kind = socket.SOCK_DGRAM if name == "udp_echo" else socket.SOCK_STREAM
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = str(taken.getsockname()[1])
        status, _, err = outcome(f"demos.cookbook.{name}", f"--port={port}")
    assert status == 1 and err.count("\n") == 1 and port in err, err


@pytest.mark.parametrize(("name", "reply"), [("udp_echo", b"hello"), ("fibonacci", b"error: ")])
def test_ipv6_over_udp(name, reply):
    with twin(name, host="::1") as program, program.udp() as sock:
        sock.send(b"hello")
        assert sock.recv(100).startswith(reply)


@pytest.mark.parametrize("name", ["tcp_echo", "accept_read", "hello", "queued", "upper", "urgent"])
def test_ipv6_over_tcp(name):
    with twin(name, host="::1") as program, program.connect() as conn:
        assert exchange(conn, b"hello").lower() == b"hello"


@pytest.mark.parametrize("name", ["messages", "idle_tick", "operator_chat"])
def test_ipv6_over_tcp_where_something_is_shown(name):
    with twin(name, host="::1", stdin=subprocess.DEVNULL) as program, program.connect() as conn:
        conn.sendall(b"hello\n")
        shown = {"messages": f"{conn.getsockname()[1]}: b'hello\\n'\n", "idle_tick": "is here\n"}
        line = program.process.stdout.readline()
        assert line.endswith(shown.get(name, "client 1: hello\n"))


def test_clients_at_work_do_not_hold_ctrl_c_up():
    with twin("upper") as program, program.connect() as idle, narrow(program) as stuck:
        idle.sendall(b"x")
        assert idle.recv(1) == b"X"
        stuck.settimeout(0)
        with pytest.raises(BlockingIOError):
            while True:
                stuck.send(bytes(65536))
        status, _, err = program.stop()
    assert status == 130 and quiet(err)
