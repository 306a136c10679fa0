"""The end of a run by SIGTERM and Ctrl-C: all of its servers stop gracefully, whoever has them."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from signal import SIGINT, SIGTERM

import pytest

from corolib import (
    Cancelled,
    Queue,
    Scheduler,
    Sleep,
    TaskGroup,
    current_scheduler,
    gather,
    listen_tcp,
    move_on_after,
    now,
    open_signal_receiver,
    run,
    serve_tcp,
    spawn,
)
from corolib.testing import open_files, virtual_time
from tests.helpers.driving import FULL, echo, in_a_thread, strike, turn, until
from tests.helpers.inside import cancelled_by

LOCAL = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]
LIMIT = 100  # seconds; only a broken program waits that long


@pytest.fixture(autouse=True)
def handlers_are_put_back(default_sigint):
    assert signal.getsignal(SIGTERM) is signal.SIG_DFL
    before = open_files()
    yield
    assert signal.getsignal(SIGTERM) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1
    assert open_files() == before


def hit(signum=SIGTERM):
    """Send a signal, if somebody hears it: else it would end these tests."""
    assert signal.getsignal(signum) not in (signal.SIG_DFL, signal.default_int_handler)
    strike(signum)


def dial(server):
    """Return a client that has said all: its connection ends with the answer."""
    sock = socket.create_connection(server.listener.addresses[0])
    sock.shutdown(socket.SHUT_WR)
    sock.setblocking(False)
    return sock


def busy(seconds, log=None):
    """Return a handler that needs so many seconds for its answer."""

    def handler(stream):
        try:
            yield Sleep(seconds)
            yield from stream.sendall(b"answer")
        finally:
            if log is not None:
                log.append((seconds, now()))

    return handler


def begin(seconds, log=None, **limits):
    """Begin a server whose handler needs so many seconds; return it, and a client that waits."""
    server = listen_tcp(LOCAL, 0).serve(busy(seconds, log), **limits)
    return server, dial(server)


def accepted(*servers):
    return until(lambda: all(server.stats()["accepted"] for server in servers))


def answer(client):
    """Return all that a client was sent, when its server has ended."""
    with client:
        client.setblocking(True)
        data = b""
        while more := client.recv(100):
            data += more
        return data


# Real programs ------------------------------------------------------------------------------------

PROGRAM = """
    import signal, sys
    from corolib import *

    signal.signal(signal.SIGINT, signal.default_int_handler)
    listeners = [listen_tcp("127.0.0.1", 0) for _ in range(2)]
    for listener in listeners:
        print(listener.addresses[0][1], flush=True)
    first, second = listeners

    def handler(stream):
        yield from stream.sendall(b"one ")
        yield from stream.readline()
        yield from stream.sendall(b"answer")

    def serve(listener):
        return (yield from listener.serve(handler, grace=1000))

    def ticker():
        while True:
            yield Sleep(0.01)

    def gathered():
        yield from gather(serve(first), serve(second))

    def grouped():
        with TaskGroup() as g:
            g.spawn(serve, first)
            g.spawn(serve, second)
            yield from g

    def spawned_and_awaited():
        spawn(serve, first)
        yield from serve(second)

    def spawned():
        spawn(serve, first)
        second.serve(handler, grace=1000)
        yield from ticker()

    def left():
        spawn(ticker)
        spawn(serve, first)
        spawn(serve, second)
        yield

    async def awaited():
        async with TaskGroup() as g:
            g.spawn(serve, first)
            await second.serve(handler, grace=1000)

    try:
        run(globals()[sys.argv[1]])
        print("returned")
    except KeyboardInterrupt:
        print("interrupted")
        raise
"""
SHAPES = ["gathered", "grouped", "spawned_and_awaited", "spawned", "left", "awaited"]


def start(text, *args):
    return subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(text), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def refused(address):
    """Wait until nobody listens there any more."""
    while True:
        try:
            socket.create_connection(address).close()
        except (ConnectionRefusedError, ConnectionResetError):
            return


@pytest.mark.found("N4")
@pytest.mark.parametrize(
    ("shape", "signum"),
    [
        (shape, signum)
        for number, shape in enumerate(SHAPES)
        for signum in (SIGTERM, SIGINT)
        if FULL or (signum == SIGINT) == number % 2 or number == 0
    ],
)
def test_law_ctrl_c_and_sigterm_stop_every_server_of_the_run_in_whatever_task(shape, signum):
    with start(PROGRAM, shape) as process:
        try:
            addresses = [(LOCAL, int(process.stdout.readline())) for _ in range(2)]
            clients = [socket.create_connection(address, LIMIT) for address in addresses]
            for client in clients:
                assert client.recv(4, socket.MSG_WAITALL) == b"one "
            process.send_signal(signum)
            for address in addresses:
                refused(address)  # nobody is accepted, and both are still served
            for client in clients:
                with client:
                    client.sendall(b"go on\n")
                    assert client.recv(100, socket.MSG_WAITALL) == b"answer"
            out, err = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    if signum == SIGTERM:
        assert (process.returncode, out) == (0, "returned\n"), err
    else:
        assert (process.returncode, out) == (-SIGINT, "interrupted\n"), err


STAYS = """
    import os, signal, sys
    import encodings.idna, linecache, traceback  # while Python's own files can be read
    from corolib import *

    def handler(stream):
        yield from stream.sendall(b"one ")
        yield from stream.readline()
        yield from stream.sendall(b"answer")

    def main():
        server = listen_unix(sys.argv[1]).serve(handler, grace=1000)
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        else:
            os.chmod(os.path.dirname(sys.argv[1]), 0o500)
        print("ready", flush=True)
        return (yield from server)

    print(run(main))
"""


@pytest.mark.found("N3")
def test_a_server_that_became_another_user_stops_gracefully_though_its_file_stays(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    path = str(folder / "s")
    with start(STAYS, path) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(LIMIT)
                client.connect(path)
                assert client.recv(4, socket.MSG_WAITALL) == b"one "
                process.send_signal(SIGTERM)
                with pytest.raises(ConnectionRefusedError):
                    while True:
                        with socket.socket(socket.AF_UNIX) as other:
                            other.connect(path)
                client.sendall(b"go on\n")
                assert client.recv(100, socket.MSG_WAITALL) == b"answer"
            out, err = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
            folder.chmod(0o700)
    assert (process.returncode, out) == (0, "1 finished, 0 had to be cancelled\n"), err
    assert f"{path!r}: while this was closed: [Errno 13] Permission denied" in err
    assert os.path.exists(path)


LOAD = """
    import json, os, random, signal, socket, sys, threading, time
    from corolib import *

    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = random.Random(sys.argv[1])
    shots = json.loads(sys.argv[2])
    sent, read, answered = [], [], []
    lock, over = threading.Lock(), False

    def handler(stream):
        line = yield from stream.readline()
        if line:
            read.append(int(line))
            yield Sleep(rng.uniform(0, 0.02))
            yield from stream.sendall(line)

    def client(first):
        for number in range(first, 100, 20):
            try:
                with socket.create_connection(listeners[number % 2].addresses[0]) as sock:
                    sock.sendall(b"%d\\n" % number)
                    if sock.recv(100) == b"%d\\n" % number:
                        answered.append(number)
            except OSError:
                pass
            time.sleep(0.02)

    def shoot():
        began = time.monotonic()
        for moment, signum in shots:
            time.sleep(max(began + moment - time.monotonic(), 0))
            with lock:
                if over:
                    return
                sent.append(signum)
                os.kill(os.getpid(), signum)

    def main():
        global over
        servers = [listener.serve(handler, grace=30) for listener in listeners]
        try:
            threading.Thread(target=shoot).start()
            yield from gather(*(server.task for server in servers))
        finally:
            with lock:  # what comes later is not for this run
                over = True

    listeners = [listen_tcp("127.0.0.1", 0) for _ in range(2)]
    threads = [threading.Thread(target=client, args=(n,), daemon=True) for n in range(20)]
    for thread in threads:
        thread.start()
    try:
        run(main)
    finally:
        if sent.count(signal.SIGINT) < 2:  # else the second has ended it on the spot
            for thread in threads:
                thread.join()
        print(json.dumps({"sent": sent, "read": read, "answered": answered}))
"""


@pytest.mark.found("N4")
@pytest.mark.parametrize("number", range(200 if FULL else 3))
def test_three_signals_at_random_moments_of_a_load_lose_no_request_that_was_read(number):
    seed = number if FULL else random.SystemRandom().randrange(10**9)
    print("seed:", seed)
    rng = random.Random(seed)
    shots = sorted((rng.uniform(0, 0.15), rng.choice([SIGTERM, SIGTERM, SIGINT])) for _ in range(3))
    with start(LOAD, seed, json.dumps(shots)) as process:
        try:
            out, err = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    if [signum for _, signum in shots].count(SIGINT) >= 2:
        # The second ends the run on the spot, and what comes then may be faster.
        assert process.returncode in (0, -SIGINT, -SIGTERM), err
        return
    found = json.loads(out)
    assert process.returncode == (-SIGINT if SIGINT in found["sent"] else 0), err
    assert found["sent"]
    assert set(found["read"]) <= set(found["answered"])
    assert "had to be cancelled" not in err


# After SIGTERM -----------------------------------------------------------------------------------


def test_after_sigterm_who_has_waited_for_a_server_goes_on_and_then_the_rest_is_cancelled():
    log = []

    def ticker():
        try:
            while True:
                yield Sleep(0.1)
        finally:
            log.append(("ticker ends", now()))

    def serve(seconds):
        server, client = begin(seconds, drain=0)
        clients.append(client)
        servers.append(server)
        yield from server
        yield Sleep(10)  # longer than any grace
        log.append(("written down", now()))

    def main():
        spawn(ticker)
        spawn(ticker, daemon=True)
        first, second = spawn(serve, 1.0), spawn(serve, 3.0)
        yield
        yield from accepted(*servers)
        hit()
        yield from first
        yield from second
        log.append(("main goes on", now()))
        yield Sleep(5)
        return "result"

    clients, servers = [], []
    assert run(main, **virtual_time()) == "result"
    assert [what for what, _ in log] == ["written down"] * 2 + ["main goes on"] + [
        "ticker ends"
    ] * 2
    began = log[0][1] - 11
    assert [round(when - began) for _, when in log] == [11, 13, 13, 18, 18]
    assert [answer(client) for client in clients] == [b"answer"] * 2


def test_after_sigterm_a_main_task_that_waits_for_something_else_is_cancelled():
    def main(end):
        server, client = begin(1.0)
        with client:
            yield from accepted(server)
            hit()
            try:
                yield from Queue(1).get()
            except Cancelled as exc:
                reasons.append(str(exc))
                return (yield from end())

    def passes():
        raise Cancelled
        yield

    def fails():
        yield Sleep(0.1)
        raise ValueError("the program's own")

    def returns():
        yield Sleep(0.1)
        return "result"

    def loops():
        yield Sleep(1000)

    reasons = []
    assert run(main, returns, **virtual_time()) == "result"
    assert reasons == ["SIGTERM, and the servers have ended"]
    assert run(main, loops, **virtual_time()) is None
    with pytest.raises(ValueError, match="the program's own"):
        run(main, fails, **virtual_time())
    with pytest.raises(Cancelled):  # nobody has asked for this one
        run(main, passes, **virtual_time())


def test_after_sigterm_a_main_task_that_is_over_keeps_its_result():
    def forever():
        while True:
            yield Sleep(1)

    def main():
        server, client = begin(1.0)
        clients.append(client)
        yield from accepted(server)
        spawn(forever)
        hit()
        return "result"

    clients = []
    assert run(main, **virtual_time()) == "result"
    assert answer(clients[0]) == b"answer"


def test_another_sigterm_changes_nothing_until_the_run_is_over():
    def main():
        server, client = begin(2.0)
        with client:
            yield from accepted(server)
            for _ in range(3):
                hit()
            yield Sleep(1)
            hit()
            report = yield from server
            hit()
            yield Sleep(1)
            return str(report)

    assert run(main, **virtual_time()) == "1 finished, 0 had to be cancelled"


def test_each_server_stops_within_its_own_grace(caplog):
    def main():
        short, first = begin(100.0, log, grace=1)
        long, second = begin(100.0, log, grace=3)
        with first, second:
            yield from accepted(short, long)
            hit()
            reports = yield from gather(short.task, long.task)
            assert reports == [None, None]
            return [len(cancelled_by(server)) for server in (short, long)]

    log = []
    began = 0
    assert run(main, **virtual_time()) == [1, 1]
    began = log[0][1] - 1
    assert [round(when - began, 3) for _, when in log] == [1, 3]
    lines = [record.getMessage() for record in caplog.records]
    assert [": stopped: 0 finished, 1 had to be cancelled" in line for line in lines] == [True] * 2


def test_a_stop_that_fails_does_not_keep_the_others_from_theirs(monkeypatch):
    def main():
        servers = [listen_tcp(LOCAL, 0).serve(echo) for _ in range(3)]
        fail(servers[1])
        yield
        hit()
        yield from servers[0]
        yield from servers[2]
        assert not servers[1].stopping.is_set()
        yield from servers[1].stop()

    def fail(server):
        monkeypatch.setattr(server, "stop_for_signal", lambda: 1 / 0)

    failures = []
    run(main, on_task_error=lambda task, exc: failures.append(type(exc)))
    assert failures == [ZeroDivisionError]


# Ctrl-C ------------------------------------------------------------------------------------------


def test_ctrl_c_is_raised_in_main_when_all_servers_have_ended():
    def main():
        first, one = begin(1.0)
        second, two = begin(3.0)
        clients.extend([one, two])
        yield from accepted(first, second)
        hit(SIGINT)
        try:
            while True:
                yield Sleep(0.1)
        finally:
            log.append((first.task.done, second.task.done, second.stats()["open"]))

    log, clients = [], []
    with pytest.raises(KeyboardInterrupt):
        run(main, **virtual_time())
    assert log == [(True, True, 0)]
    assert [answer(client) for client in clients] == [b"answer"] * 2


@pytest.mark.parametrize(
    "signals", [(SIGTERM, SIGINT), (SIGINT, SIGTERM), (SIGINT, SIGTERM, SIGTERM)]
)
def test_both_signals_stop_once_and_ctrl_c_leaves_the_run(signals):
    def main():
        server, client = begin(2.0)
        clients.append(client)
        yield from accepted(server)
        for signum in signals:
            hit(signum)
            yield Sleep(0.1)
        yield from server

    clients = []
    with pytest.raises(KeyboardInterrupt):
        run(main, **virtual_time())
    assert answer(clients[0]) == b"answer"


@pytest.mark.parametrize("looks", [True, False])
def test_ctrl_c_tells_at_a_terminal_for_whom_it_waits(looks, monkeypatch, capfd):
    def main():
        first, *ones = begin(1.0)
        second, *others = begin(3.0)
        idle = listen_tcp(LOCAL, 0).serve(echo, grace=1000)
        clients.extend([*ones, *others])
        yield from accepted(first, second)
        hit(SIGINT)
        yield from idle
        yield Sleep(100)

    clients = []
    monkeypatch.setattr(os, "isatty", lambda fd: looks)
    with pytest.raises(KeyboardInterrupt):
        run(main, **virtual_time())
    for client in clients:
        client.close()
    said = "\nstopping: 2 handlers may finish, within 5 s; Ctrl-C again ends all at once\n"
    assert capfd.readouterr().err == (said if looks else "")


def test_ctrl_c_tells_of_connections_that_are_only_being_closed(monkeypatch, capfd):
    def leaves(stream):
        yield

    def main():
        server = listen_tcp(LOCAL, 0).serve(leaves)
        clients.append(socket.create_connection(server.listener.addresses[0]))
        yield from accepted(server)
        yield Sleep(0.1)
        hit(SIGINT)
        yield from server
        yield Sleep(100)

    clients = []
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    with pytest.raises(KeyboardInterrupt):
        run(main, **virtual_time())
    clients[0].close()
    said = "\nstopping: 1 client may read the rest and close, within 5 s; Ctrl-C again ends"
    assert capfd.readouterr().err.startswith(said)


def test_ctrl_c_says_nothing_where_nobody_is_waited_for(monkeypatch, capfd):
    def main():
        server = listen_tcp(LOCAL, 0).serve(echo)
        yield
        hit(SIGINT)
        yield from server
        yield Sleep(100)

    monkeypatch.setattr(os, "isatty", lambda fd: True)
    with pytest.raises(KeyboardInterrupt):
        run(main)
    assert capfd.readouterr().err == ""


def test_ctrl_c_while_the_rest_goes_on_after_sigterm_is_raised_at_once():
    def main():
        server = listen_tcp(LOCAL, 0).serve(echo)
        yield
        hit()
        yield from server
        hit(SIGINT)
        try:
            yield Sleep(1000)
        finally:
            log.append(now())

    log = []
    with pytest.raises(KeyboardInterrupt):
        run(main, **virtual_time(start=5.0))
    assert log == [5.0]


def test_a_second_ctrl_c_ends_the_stop_of_all_servers_on_the_spot(capfd):
    def main():
        servers, clients = zip(begin(1000.0, grace=1000), begin(1000.0, grace=1000), strict=True)
        with clients[0], clients[1]:
            yield from accepted(*servers)
            hit(SIGINT)
            yield Sleep(1)
            hit(SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(main, **virtual_time())
    assert capfd.readouterr().err.count("was abandoned") >= 2


def test_a_main_task_that_catches_ctrl_c_may_serve_again_and_be_interrupted_again():
    def main():
        for _ in range(2):
            server, client = begin(1.0)
            clients.append(client)
            yield from accepted(server)
            hit(SIGINT)
            with pytest.raises(KeyboardInterrupt):
                yield from server
            assert signal.getsignal(SIGTERM) is signal.SIG_DFL
        return "result"

    clients = []
    assert run(main, **virtual_time()) == "result"
    assert [answer(client) for client in clients] == [b"answer"] * 2


# Servers that begin or end meanwhile -------------------------------------------------------------


def test_a_server_that_begins_during_the_stop_accepts_nobody_and_does_not_delay_the_end():
    def late():
        listener = listen_tcp(LOCAL, 0)
        with socket.socket() as client:
            client.connect(listener.addresses[0])
            server = listener.serve(echo)
            assert server.stopping.is_set() and listener.closed
            report = yield from server
            log.append((str(report), server.stats()["accepted"]))

    def main():
        server, client = begin(2.0)
        clients.append(client)
        yield from accepted(server)
        hit()
        yield
        spawn(late)
        yield from server

    log, clients = [], []
    run(main, **virtual_time())
    assert log == [("0 finished, 0 had to be cancelled", 0)]
    assert answer(clients[0]) == b"answer"


@pytest.mark.parametrize("signum", [SIGTERM, SIGINT])
@pytest.mark.parametrize("how_many", [1, 2])
def test_tasks_that_serve_again_and_again_come_to_an_end_and_wait_for_all_servers(signum, how_many):
    """They begin one in vain, wait until all others have ended, and are over."""

    def again():
        while True:
            counts.append(turn())
            yield from serve_tcp(echo, LOCAL, 0)

    def main():
        server, client = begin(2.0)
        clients.append(client)
        yield from accepted(server)
        try:
            if how_many == 1:
                yield Sleep(0.1)
                spawn(hit, signum) if False else current_scheduler().call_at(
                    now() + 1, lambda _: hit(signum), None
                )
                yield from again()
            else:
                tasks = [spawn(again) for _ in range(2)]
                yield Sleep(0.1)
                hit(signum)
                yield from gather(*tasks)
        finally:
            ended.append(server.task.done or server.stats()["open"] == 0)

    counts, clients, ended = [], [], []
    if signum == SIGTERM:
        assert run(main, **virtual_time()) is None
    else:
        with pytest.raises(KeyboardInterrupt):
            run(main, **virtual_time())
    assert how_many < len(counts) <= 4 * how_many
    assert ended == [True]
    assert answer(clients[0]) == b"answer"


def test_a_task_that_serves_again_does_not_cut_short_what_another_one_has_to_finish():
    def again():
        while True:
            yield from serve_tcp(echo, LOCAL, 0)

    def main():
        task = spawn(again)
        server = listen_tcp(LOCAL, 0).serve(echo)
        yield Sleep(0.1)
        hit()
        yield from server
        yield Sleep(100)
        assert task.done
        return "finished"

    assert run(main, **virtual_time()) == "finished"


def test_a_handler_that_begins_a_server_during_the_stop_has_its_grace():
    def handler(stream):
        yield from stream.server.stopping.wait()
        inner = listen_tcp(LOCAL, 0).serve(echo)
        yield from inner
        yield Sleep(1)
        yield from stream.sendall(b"answer")

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler)
        client = dial(server)
        clients.append(client)
        yield from accepted(server)
        hit()
        yield from server

    clients = []
    run(main, **virtual_time())
    assert answer(clients[0]) == b"answer"


def test_a_server_that_begins_in_a_callback_during_the_stop_stops_too():
    def main():
        server, client = begin(2.0)
        with client:
            yield from accepted(server)
            hit()
            yield
            current_scheduler().call_soon_threadsafe(
                lambda: servers.append(listen_tcp(LOCAL, 0).serve(echo))
            )
            yield from server
            assert servers[0].stopping.is_set()

    servers = []
    run(main, **virtual_time())


def test_a_group_that_fails_during_the_stop_takes_its_server_along():
    def fails():
        yield Sleep(1)
        raise ValueError("the program's own")

    def main():
        server, client = begin(3.0)
        with client:
            yield from accepted(server)
            with pytest.raises(ExceptionGroup):
                with TaskGroup() as g:
                    g.spawn(serve_tcp, echo, LOCAL, 0)
                    g.spawn(fails)
                    yield
                    yield
                    hit()
                    yield from g
            report = yield from server
            return report.finished

    assert run(main, **virtual_time()) == 1


def test_a_block_that_ends_during_the_stop_takes_its_server_along():
    def handler(stream):
        yield Sleep(1000)

    def main():
        with move_on_after(1) as scope:
            spawn(interrupt)
            yield from serve_tcp(handler, LOCAL, 0, grace=1000)
        yield Sleep(1)
        return scope.expired

    def interrupt():
        yield
        yield
        hit()

    assert run(main, **virtual_time()) is False  # nobody was connected: it has ended before


def test_a_handler_that_stops_its_server_before_the_signal_does_changes_nothing():
    def handler(stream):
        spawn(stream.server.stop(), parent=current_scheduler().main)
        yield Sleep(1)
        yield from stream.sendall(b"answer")

    def main():
        server = listen_tcp(LOCAL, 0).serve(handler)
        client = dial(server)
        clients.append(client)
        yield from server.stopping.wait()
        hit()
        report = yield from server
        return report.finished

    clients = []
    assert run(main, **virtual_time()) == 1
    assert answer(clients[0]) == b"answer"


# Who hears SIGTERM -------------------------------------------------------------------------------


def test_sigterm_is_heard_while_there_are_servers():
    def main():
        for _ in range(2):
            assert signal.getsignal(SIGTERM) is signal.SIG_DFL
            first, second = (listen_tcp(LOCAL, 0).serve(echo) for _ in range(2))
            heard = signal.getsignal(SIGTERM)
            assert heard is not signal.SIG_DFL
            yield from first.stop()
            assert signal.getsignal(SIGTERM) == heard
            yield from second.stop()
        assert signal.getsignal(SIGTERM) is signal.SIG_DFL

    run(main)


def test_a_receiver_that_the_program_opens_afterwards_gets_the_signal():
    def main():
        server = listen_tcp(LOCAL, 0).serve(echo)
        with open_signal_receiver(SIGTERM) as received:
            hit()
            assert (yield from received) == SIGTERM
            assert not server.stopping.is_set()
            other = listen_tcp(LOCAL, 0).serve(echo)
            hit()
            assert (yield from received) == SIGTERM
            yield from other.stop()
        assert signal.getsignal(SIGTERM) is signal.SIG_DFL
        third = listen_tcp(LOCAL, 0).serve(echo)
        hit()
        yield from third
        assert server.task.done
        return "its own"

    assert run(main) == "its own"


def test_a_signal_that_came_before_the_program_opens_a_receiver_is_not_lost():
    def main():
        server, client = begin(1.0)
        with client:
            yield from accepted(server)
            hit()
            with open_signal_receiver(SIGTERM):
                assert server.stopping.is_set()
                yield from server
        return "ended"

    assert run(main, **virtual_time()) == "ended"


def test_a_signal_that_came_before_the_last_server_had_ended_still_ends_the_run():
    """In the same turn: before anybody was told of the signal."""

    def hitter():
        yield
        hit()
        log.append(server.task.done)
        yield
        log.append(server.task.done)

    def closer():
        server.listener.close()
        yield

    def main():
        nonlocal server
        server = listen_tcp(LOCAL, 0).serve(echo)
        yield
        spawn(hitter)
        spawn(closer)
        yield Sleep(1000)

    log, server = [], None
    assert run(main, **virtual_time()) is None
    assert log == [False]  # cancelled at the wait that would have followed


def test_a_handler_that_the_program_sets_afterwards_stays():
    def main():
        server = listen_tcp(LOCAL, 0).serve(echo)
        signal.signal(SIGTERM, own)
        strike(SIGTERM)
        yield
        assert not server.stopping.is_set()
        yield from server.stop()
        assert signal.getsignal(SIGTERM) is own

    def own(signum, frame):
        seen.append(signum)

    seen = []
    try:
        run(main)
        assert seen == [SIGTERM]
    finally:
        signal.signal(SIGTERM, signal.SIG_DFL)


def test_a_scheduler_whose_turns_the_program_makes_leaves_the_signal_alone():
    def main():
        server = listen_tcp(LOCAL, 0).serve(echo)
        assert signal.getsignal(SIGTERM) is signal.SIG_DFL
        yield from server.stop()

    scheduler = Scheduler()
    task = scheduler.spawn(main)
    while not task.done:
        scheduler.turn(0)
    scheduler.close()


def test_a_run_in_another_thread_leaves_the_signal_alone():
    def main():
        server = listen_tcp(LOCAL, 0).serve(echo)
        assert signal.getsignal(SIGTERM) is signal.SIG_DFL
        yield from server.stop()

    in_a_thread(lambda: run(main))


def test_a_run_that_is_cut_short_puts_the_handler_back():
    def main():
        listen_tcp(LOCAL, 0).serve(echo)
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        run(main)
