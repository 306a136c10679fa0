"""Worker processes: served by all, started again, stopped together; as real programs."""

import functools
import math
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP, SIGTERM

import pytest

import corolib
from corolib import Sleep, run, run_workers, spawn
from corolib.system.workers import ALONE, MINUTE, PAUSES, START
from tests.helpers.driving import in_a_thread
from tests.helpers.inside import EXIT_STATUS, Place, exit_status, run_until
from tests.helpers.programs import without_slow_steps

ROOT = str(Path(__file__).resolve().parents[2])
LOCAL = "127.0.0.1"
LIMIT = 200  # seconds, below that of the test itself; nothing here is meant to take one

# A server whose handler tells its worker, computes, waits in the midst of an answer.
SERVER = """
    import os, signal, sys
    from corolib import Sleep, current_scheduler, listen_tcp, listen_unix, run_workers

    def handler(stream):
        while line := (yield from stream.readline()):
            if line == b"pid\\n":
                yield from stream.sendall(b"%d\\n" % os.getpid())
            elif line == b"turns\\n":
                yield from stream.sendall(b"%d\\n" % current_scheduler().stats()["turns"])
            elif line == b"half\\n":
                yield from stream.sendall(b"one ")
                yield from stream.readline()
                yield from stream.sendall(b"answer\\n")
                return
            else:
                yield from stream.sendall(line)

    def main(listener):
        server = listener.serve(handler, grace=GRACE)
        yield
        print("ready", os.getpid(), flush=True)
        return (yield from server)
"""
TCP = """
    GRACE = 1000
    if __name__ == "__main__":
        listener = listen_tcp("127.0.0.1", 0)
        print("port", listener.addresses[0][1], flush=True)
        print(*run_workers(2, main, listener, kill_after=float("inf")), sep="\\n")
"""


# A shell that runs tests in the background may have SIGINT ignored.
BEGIN = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"


class Program:
    """A Python program in a session of its own, killed with all its children in the end."""

    def __init__(self, folder, *parts):
        self.path = path = folder / "program.py"
        path.write_text(BEGIN + "".join(map(textwrap.dedent, parts)))
        self.err = open(folder / "stderr", "w+")
        env = {**os.environ, "PYTHONPATH": ROOT}
        env.pop("PYTHONUNBUFFERED", None)  # a line shall be written as a whole
        self.process = subprocess.Popen(
            [sys.executable, str(path)],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=self.err,
            text=True,
            start_new_session=True,
        )
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        try:
            os.killpg(self.pid, SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process.stdout.close()
        self.err.close()

    def told(self, word):
        """Return the number that the next line, which begins with that word, tells."""
        line = self.process.stdout.readline()
        assert line.startswith(word + " "), line + self.complaints()
        return int(line.split()[1])

    def send(self, signum):
        os.kill(self.pid, signum)

    def end(self):
        """Return the status and the rest of the output, of all processes."""
        out, _ = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, out

    def complains(self, text):
        """Wait until it does."""
        while text not in self.complaints():
            time.sleep(0.001)

    def complaints(self):
        self.err.seek(0)
        return without_slow_steps(self.err.read()).removesuffix("\n")


@pytest.fixture
def program(tmp_path):
    """Starts a program, and has it end with the test."""
    started = []

    def start(*parts):
        started.append(Program(tmp_path, *parts))
        return started[-1]

    yield start
    for each in started:
        each.__exit__()


class Client:
    """A blocking client of one connection."""

    def __init__(self, address):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family)
        self.sock.settimeout(LIMIT)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self.file = self.sock.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()
        self.sock.close()

    def ask(self, line):
        self.sock.sendall(line + b"\n")
        return self.file.readline()


def state(pid):
    """Return the letter that the system has for what a process does."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def gone(pid):
    """Wait until a process has ended; who is to reap it may take its time."""
    try:
        while state(pid) not in "ZX":
            time.sleep(0.001)
    except (FileNotFoundError, ProcessLookupError):
        pass


class stopped:  # noqa: N801 - reads as a statement: `with stopped(pid):`
    """Have a worker do nothing at all for a while, so that another one must."""

    def __init__(self, pid):
        self.pid = pid

    def __enter__(self):
        os.kill(self.pid, SIGSTOP)
        while state(self.pid) != "T":
            time.sleep(0.001)

    def __exit__(self, *exc):
        os.kill(self.pid, SIGCONT)


def refused(address):
    """Wait until nobody listens there any more."""
    while True:
        try:
            Client(address).__exit__()
        except (ConnectionRefusedError, ConnectionResetError):
            return
        time.sleep(0.001)


def served_by(pid, others, address):
    """Return a client of one worker of several."""
    [stop.__enter__() for stop in map(stopped, others)]
    client = Client(address)
    assert int(client.ask(b"pid")) == pid
    for other in others:
        stopped(other).__exit__()
    return client


# Serving ------------------------------------------------------------------------------------------


def test_all_workers_serve_one_listener_and_are_reported(program):
    server = program(SERVER, TCP)
    address = LOCAL, server.told("port")
    first, second = (server.told("ready") for _ in range(2))
    with served_by(first, [second], address) as a, served_by(second, [first], address) as b:
        assert (a.ask(b"hello"), b.ask(b"hello")) == (b"hello\n", b"hello\n")
    server.send(SIGTERM)
    status, out = server.end()
    assert (status, server.complaints()) == (0, "")
    reports = re.findall(r"WorkerReport\(pid=(\d+), status=0, restarts=0\)", out)
    assert {int(pid) for pid in reports} == {first, second}


def test_a_worker_is_a_clean_process_with_a_run_of_its_own(program):
    server = program(
        """
        import os, signal
        from corolib import current_scheduler, listen_tcp, run_workers

        def noted():
            return (
                [signal.getsignal(n) for n in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)],
                signal.pthread_sigmask(signal.SIG_BLOCK, ()),
                signal.set_wakeup_fd(-1),
                sorted(os.listdir("/proc/self/fd")),
            )

        def main(listener, word):
            yield
            (child, term, interrupt), mask, _, files = noted()
            assert (child, term, mask) == (signal.SIG_DFL, signal.SIG_DFL, set())
            assert interrupt is not signal.SIG_IGN, "programs that it starts would inherit that"
            interrupt(signal.SIGINT, None)
            assert (listener.batch, current_scheduler().grace, word) == (8, 7, "word")
            print(len(files), flush=True)

        if __name__ == "__main__":
            with listen_tcp("127.0.0.1", 0) as listener:
                print("in the buffer, ", end="")
                before = noted()
                (report,) = run_workers(1, main, listener, "word", grace=7)
                after = noted()
                assert before[:3] == after[:3]
                assert listener.closed
                # without the listener; those of the worker were as many, and two of its selector
                print(len(before[3]) - len(after[3]))
            print(report.status, report.restarts)
        """
    )
    status, out = server.end()
    assert (status, server.complaints()) == (0, "")
    assert re.fullmatch(r"in the buffer, \d+\n1\n0 0\n", out)


@pytest.mark.found("N14")
def test_workers_do_without_ctypes(program):
    server = program("import sys\nsys.modules['ctypes'] = None\n", SERVER, TCP)
    address = LOCAL, server.told("port")
    with Client(address) as client:
        assert client.ask(b"hello") == b"hello\n"
    server.send(SIGTERM)
    assert server.end()[0] == 0
    assert server.complaints() == ""


@pytest.mark.found("N4")
@pytest.mark.parametrize("signum", [SIGTERM, SIGINT])
def test_workers_that_have_two_servers_each_stop_both_gracefully(program, signum):
    server = program(
        SERVER,
        """
        from corolib import gather

        GRACE = 1000

        def both(first, second):
            yield from gather(main(first), main(second))

        if __name__ == "__main__":
            listeners = [listen_tcp("127.0.0.1", 0) for _ in range(2)]
            for listener in listeners:
                print("port", listener.addresses[0][1], flush=True)
            try:
                run_workers(2, both, *listeners, kill_after=float("inf"))
            finally:
                print("all", len({os.getpid()}), flush=True)
        """,
    )
    addresses = [(LOCAL, server.told("port")) for _ in range(2)]
    for _ in range(4):
        server.told("ready")
    clients = [half_an_answer(address) for address in addresses]
    os.killpg(server.pid, SIGINT) if signum == SIGINT else server.send(SIGTERM)
    for address, client in zip(addresses, clients, strict=True):
        refused(address)
        with client:
            assert client.ask(b"go on") == b"answer\n"
    status, out = server.end()
    assert (status, out) == (0 if signum == SIGTERM else -SIGINT, "all 1\n")


def test_a_lost_race_for_a_connection_is_not_an_error():
    served = []

    def accept(name, listener):
        while True:
            with (yield from listener.accept()) as stream:
                served.append((name, stream.peer))

    def main():
        with socket.create_server((LOCAL, 0)) as sock:
            listeners = [corolib.Listener([sock.dup()]) for _ in range(3)]
            tasks = [
                spawn(accept, n, listener, daemon=True) for n, listener in enumerate(listeners)
            ]
            clients = []
            for count in range(1, 6):
                yield Sleep(0.001)
                clients.append(socket.create_connection(sock.getsockname()))
                while len(served) < count:  # all of them are woken, one accepts
                    yield
            assert [peer for _, peer in served] == [c.getsockname() for c in clients]
            assert not any(task.done for task in tasks)
            assert [(each.lost, each.pauses) for each in listeners] == 3 * [(0, 0)]
            for each in (*clients, *listeners):
                each.close()
            for task in tasks:
                task.cancel()

    run(main)


# Crashes ------------------------------------------------------------------------------------------


def test_a_killed_worker_loses_its_own_connections_only_and_another_takes_its_place(program):
    """Under load: each client asks, and asks again, without a pause."""
    server = program(SERVER, TCP)
    address = LOCAL, server.told("port")
    first, second = (server.told("ready") for _ in range(2))
    lost = [served_by(first, [second], address) for _ in range(3)]
    kept = [served_by(second, [first], address) for _ in range(3)]
    counts = dict.fromkeys([*lost, *kept], 0)
    failed = []
    enough = threading.Event()

    def load(client):
        try:
            while not enough.is_set():
                if client.ask(b"%d" % counts[client]) != b"%d\n" % counts[client]:
                    raise ConnectionResetError
                counts[client] += 1
        except ConnectionError:
            failed.append(client)

    threads = [threading.Thread(target=load, args=(client,)) for client in counts]
    for thread in threads:
        thread.start()
    try:
        while min(counts.values()) < 10:
            time.sleep(0.001)
        os.kill(first, SIGKILL)
        third = server.told("ready")
        reached = max(counts.values())
        while min(counts[client] for client in kept) < reached + 10:
            time.sleep(0.001)
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert set(failed) == set(lost)
    with served_by(third, [second], address) as client:
        assert client.ask(b"hello") == b"hello\n"
    for client in counts:
        client.__exit__()
    server.send(SIGTERM)
    status, out = server.end()
    assert status == 0
    assert f"pid={third}, status=0, restarts=1" in out
    assert f"pid={second}, status=0, restarts=0" in out
    assert re.fullmatch(
        rf"worker \d \(pid {first}\) was killed by SIGKILL: it is started again in 0.1 s",
        server.complaints(),
    )


CRASHING = """
    import os, sys
    import corolib.system.workers
    from corolib import run_workers

    corolib.system.workers.PAUSES = 0.001, 0.01
"""


@pytest.mark.found("N17")
def test_no_place_is_given_up_however_many_requests_crash_their_worker(program):
    server = program(
        CRASHING,
        """
        from corolib import listen_tcp

        def handler(stream):
            line = yield from stream.readline()
            if line == b"poison\\n":
                os._exit(1)
            yield from stream.sendall(line)

        def main(listener):
            yield from listener.serve(handler)

        if __name__ == "__main__":
            listener = listen_tcp("127.0.0.1", 0)
            print("port", listener.addresses[0][1], flush=True)
            print(*run_workers(2, main, listener))
        """,
    )
    address = LOCAL, server.told("port")
    for _ in range(14):
        with Client(address) as client:
            try:
                assert client.ask(b"poison") == b""
            except ConnectionError:
                pass
    with Client(address) as client:
        assert client.ask(b"hello") == b"hello\n"
    server.send(SIGTERM)
    status, out = server.end()
    assert status == 0
    assert sum(map(int, re.findall(r"restarts=(\d+)", out))) >= 13


def test_what_leaves_a_worker_is_printed_and_one_that_crashes_too_often_is_given_up(program):
    server = program(
        CRASHING,
        """
        def main():
            yield
            raise ValueError("no such luck")

        if __name__ == "__main__":
            run_workers(1, main, restarts=3)
        """,
    )
    status, _ = server.end()
    text = server.complaints()
    assert status == 1
    assert text.count("\nValueError: no such luck\n") == 4
    assert text.count("ended with status 1: it is started again in ") == 3
    assert text.count("ended with status 1: that is too often, it is not started again") == 1
    last = r"RuntimeError: no worker is left, and too many crashed: worker 0 \(pid .* status 1"
    assert re.fullmatch(last, text.splitlines()[-1])


def test_a_mistake_of_the_program_at_its_start_ends_all_workers(program):
    server = program(
        """
        from corolib import gather, listen_tcp, run_workers

        def echo(stream):
            yield

        def main(listener):
            yield from gather(listener.serve(echo))

        if __name__ == "__main__":
            run_workers(2, main, listen_tcp("127.0.0.1", 0))
        """
    )
    status, _ = server.end()
    text = server.complaints()
    assert status == 1
    assert "started again in" not in text
    # Of the workers only their own lines are shown, and what these have called.
    traces = text.split("Traceback (most recent call last):\n")[1:]
    for trace in traces[:-1]:
        assert trace.startswith(f'  File "{server.path}", line 10, in main\n')
        assert trace.count("  File ") < 8
        assert "TypeError: gather() got <Server on 127.0.0.1:" in trace
    end = r"RuntimeError: worker \d \(pid \d+\) ended with status 70, by a mistake in the program, "
    assert re.match(end, traces[-1].splitlines()[-1])
    assert len(traces) in (2, 3)  # the other worker may have been told to stop before


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_what_ends_a_worker_is_written_as_one_piece(tmp_path, variables):
    """So the tracebacks of several workers do not get into each other."""
    path = tmp_path / "program.py"
    path.write_text(
        "from corolib import gather, run_workers\n"
        "def main(): yield from gather(5)\n"
        "run_workers(1, main)\n"
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, str(path)],
                env={**os.environ, "PYTHONPATH": ROOT, **variables},
                stderr=theirs,
            )
        with process:
            try:
                piece = ours.recv(65536).decode()
            finally:
                process.terminate()
    assert piece.startswith("Traceback (most recent call last):\n")
    assert piece.count("\n") > 3 and piece.splitlines()[-1].startswith("TypeError: gather() got 5")


def test_a_mistake_that_shows_later_makes_one_more_crash(program):
    server = program(
        CRASHING,
        """
        def main():
            yield
            with open(__file__ + ".count", "a") as file:
                print("once more", file=file)
            with open(__file__ + ".count") as file:
                count = len(file.readlines())
            if count < 3:
                os.kill(os.getpid(), 40) if count == 1 else 5()

        if __name__ == "__main__":
            print([report[1:] for report in run_workers(1, main)])
        """,
    )
    status, out = server.end()
    assert (status, out) == (0, "[(0, 2)]\n")
    assert "ended with status 70: it is started again in" in server.complaints()


@pytest.mark.found("N14")
def test_what_keeps_a_worker_from_its_beginning_is_shown(program):
    server = program(
        """
        import os, signal
        from corolib import run_workers

        mask, parent = signal.pthread_sigmask, os.getpid()

        def failing(*args):
            if os.getpid() != parent:
                raise OSError("no such thing here")
            return mask(*args)

        if __name__ == "__main__":
            signal.pthread_sigmask = failing
            run_workers(1, print, restarts=0)
        """
    )
    status, _ = server.end()
    text = server.complaints()
    assert status == 1
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.count("\nOSError: no such thing here\n") == 1


def test_when_one_is_given_up_the_others_go_on(program):
    server = program(
        SERVER,
        """
        GRACE = 1000
        if __name__ == "__main__":
            listener = listen_tcp("127.0.0.1", 0)
            print("port", listener.addresses[0][1], flush=True)
            print(*run_workers(2, main, listener, restarts=0), sep="\\n")
        """,
    )
    address = LOCAL, server.told("port")
    first, second = (server.told("ready") for _ in range(2))
    os.kill(first, signal.SIGUSR1)
    server.complains("was killed by SIGUSR1: that is too often, it is not started again")
    with Client(address) as client:
        assert int(client.ask(b"pid")) == second
        assert client.ask(b"hello") == b"hello\n"
    server.send(SIGTERM)
    status, out = server.end()
    assert status == 0
    assert f"pid={first}, status=-{int(signal.SIGUSR1)}, restarts=0" in out


def test_a_worker_that_returns_has_done_its_work(program):
    server = program(
        CRASHING,
        """
        def main(statuses):
            yield
            if os.path.exists(__file__ + ".again"):
                return
            open(__file__ + ".again", "x").close()
            os.kill(os.getpid(), 40)

        def leave():
            yield
            sys.exit()

        if __name__ == "__main__":
            print([report[1:] for report in run_workers(1, main, [])])
            print([report[1:] for report in run_workers(3, leave)])
        """,
    )
    status, out = server.end()
    assert (status, out) == (0, "[(0, 1)]\n[(0, 0), (0, 0), (0, 0)]\n")
    assert "was killed by signal 40: it is started again in 0.001 s" in server.complaints()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: sys.exit(), 0, ""),
        (lambda: sys.exit(0), 0, ""),
        (lambda: sys.exit(3), 3, ""),
        (lambda: sys.exit(-1), 255, ""),
        (lambda: sys.exit(True), 1, ""),
        (lambda: sys.exit("in words"), 1, "in words\n"),
        (lambda: {"other": 0}["key"], 1, "KeyError: 'key'\n"),
        (functools.partial(eval, "none_of_that_name"), 70, "'none_of_that_name' is not defined\n"),
        (functools.partial(run, 5), 70, "what one returned, `run(f(x))`\n"),
    ],
)
def test_the_status_of_a_worker_is_that_of_a_program(body, status, said, capsys):
    assert exit_status(body) == status
    sys.stderr.flush()  # which a worker does in the end
    assert capsys.readouterr().err.endswith(said)


def pauses(place, lives, alone=False):
    """Return the pauses after workers that have lived for so many seconds each."""
    found, now = [], 0.0
    for seconds in lives:
        place.started, now = now, now + seconds
        found.append(place.pause(now, alone))
        now += found[-1]
    return found


def test_the_pause_before_a_start_grows_while_workers_crash_at_their_start():
    longest = PAUSES[1]
    expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, longest, longest]
    assert pauses(Place(0, math.inf), [0.0] * 9) == pytest.approx(expected)
    # One that has lived for a while does not make the next one wait for long.
    lives = [0.0, 0.0, START, 0.0, 0.0, 1000.0, 0.0]
    assert pauses(Place(0, math.inf), lives) == [0.1, 0.2, 0.1, 0.2, 0.4, 0.1, 0.2]


@pytest.mark.found("N26")
def test_clients_do_not_wait_for_long_for_a_worker_that_crashes_once_a_second():
    assert pauses(Place(0, math.inf), [1.0 - PAUSES[0]] * 100) == [PAUSES[0]] * 100
    # And where no other worker is there, not even for one that crashes at its start.
    expected = [0.1, 0.2, 0.4, 0.8, ALONE, ALONE, ALONE]
    assert pauses(Place(0, math.inf), [0.0] * 7, alone=True) == expected


def test_a_place_may_be_given_up_after_so_many_crashes_in_a_minute():
    place = Place(0, 5)
    assert [place.pause(now, False) is None for now in (0.0, 1.0, 2.0, 3.0, 4.0)] == [False] * 5
    assert (place.pause(5.0, True), place.given_up) == (None, True)
    place = Place(0, 5)
    assert None not in [place.pause(MINUTE / 5 * n, False) for n in range(20)]
    assert Place(0, 0).pause(0.0, False) is None


def test_the_parent_sleeps_until_something_happens(program):
    server = program(
        """
        from corolib import Sleep, run_workers
        from corolib.system import workers

        def main():
            yield Sleep(0.3)

        if __name__ == "__main__":
            waits = []
            wait = workers._Signals.wait
            workers._Signals.wait = lambda self, until: [waits.append(until), wait(self, until)]
            run_workers(2, main)
            print(len(waits), set(waits))
        """
    )
    status, out = server.end()
    assert status == 0
    count, rest = out.split(" ", 1)
    assert int(count) <= 2  # one for each end
    assert rest == "{inf}\n"


@pytest.mark.found("N22")
@pytest.mark.parametrize("what", ["read", "poll"])
def test_the_parent_survives_that_a_wake_up_cannot_be_read(what, program):
    server = program(
        f"WHAT = {what!r}",
        """
        import errno
        import select
        from corolib import Sleep, run_workers
        from corolib.system import workers

        def main():
            yield Sleep(0.3)

        if __name__ == "__main__":
            tries = []

            def short(pair):
                tries.append("read")
                raise OSError(errno.ENOBUFS, "No buffer space available")

            class Short:
                def __init__(self):
                    self.real = real()
                    self.register = self.real.register

                def poll(self, most):
                    if tries:
                        return self.real.poll(most)
                    tries.append("poll")
                    raise OSError(errno.ENOMEM, "Cannot allocate memory")

            if WHAT == "read":
                workers.WakeupPair.read = short
            else:
                real, select.poll = select.poll, Short
            workers.time.sleep = lambda seconds: tries.append("pause")
            print([report.status for report in run_workers(1, main)], tries)
        """,
    )
    status, out = server.end()
    assert (status, out) == (0, f"[0] [{what!r}, 'pause']\n")


FORK = """
    import os
    from corolib import Sleep, run_workers

    fork = os.fork
    calls = []

    def broken(numbers):
        def call():
            calls.append(None)
            if len(calls) in numbers:
                raise BlockingIOError(11, "no more processes")
            return fork()
        os.fork = call

    def main(seconds):
        print("started", flush=True)
        yield Sleep(seconds)
        raise SystemExit(5)
"""


def test_when_not_all_can_be_started_none_is_left(program):
    server = program(
        FORK,
        """
        if __name__ == "__main__":
            broken([3])
            try:
                run_workers(4, main, 1000)
            except OSError as exc:
                print(exc, len(calls))
        """,
    )
    status, out = server.end()  # all have ended: nobody has the pipe open
    assert (status, server.complaints()) == (0, "")
    assert out.endswith("[Errno 11] no more processes 3\n")


def test_a_start_that_fails_is_tried_again(program):
    server = program(
        FORK,
        """
        if __name__ == "__main__":
            broken([2, 3])
            try:
                run_workers(1, main, 0, restarts=3)
            except RuntimeError as exc:
                print(exc)
        """,
    )
    status, out = server.end()
    text = server.complaints()
    assert status == 0
    assert out.count("started") == 2
    assert text.count("worker 0 cannot be started, [Errno 11] no more processes: it is st") == 2
    assert "no worker is left, and too many crashed: worker 0 (pid" in out


# Stopping -----------------------------------------------------------------------------------------


def half_an_answer(address):
    client = Client(address)
    client.sock.sendall(b"half\n")
    assert client.file.read(4) == b"one "
    return client


@pytest.mark.parametrize("signum", [SIGTERM, SIGINT])
def test_who_is_in_the_midst_of_an_answer_gets_all_of_it(program, signum):
    """SIGINT comes from a terminal: to the parent, and to each worker as well."""
    server = program(SERVER, TCP)
    address = LOCAL, server.told("port")
    first, second = (server.told("ready") for _ in range(2))
    with half_an_answer(address) as a, half_an_answer(address) as b:
        served_by(first, [second], address).__exit__()
        served_by(second, [first], address).__exit__()
        if signum == SIGINT:
            os.killpg(server.pid, SIGINT)
        else:
            server.send(SIGTERM)
        refused(address)  # at once, and not only when all have ended
        server.send(SIGTERM)  # changes nothing
        for client in (a, b):
            assert client.ask(b"go on") == b"answer\n"
    status, out = server.end()
    if signum == SIGTERM:
        assert (status, server.complaints()) == (0, "")
        assert out.count("status=0, restarts=0") == 2
    else:
        assert (status, out) == (-SIGINT, "")
        assert server.complaints().count("Traceback") == 1
        assert server.complaints().endswith("\nKeyboardInterrupt")


def test_a_second_ctrl_c_kills(program):
    server = program(SERVER, TCP)
    address = LOCAL, server.told("port")
    with half_an_answer(address) as client:
        os.killpg(server.pid, SIGINT)
        refused(address)
        os.killpg(server.pid, SIGINT)
        assert client.file.read() == b""
        status, _ = server.end()
    assert status == -SIGINT
    assert "has not ended, and is killed" in server.complaints()


def test_who_does_not_stop_in_time_is_killed_and_who_fails_is_named(program):
    server = program(
        """
        import os, signal
        from corolib import Sleep, open_signal_receiver, run_workers

        def main(then):
            with open_signal_receiver(signal.SIGTERM) as received:
                print("ready", os.getpid(), flush=True)
                yield from received
                then()
                yield Sleep(1000)

        if __name__ == "__main__":
            print("first", *[report.status for report in run_workers(1, main, os.abort)])
            print("second", *[report.status for report in run_workers(1, main, int, kill_after=0)])
        """
    )
    server.told("ready")
    server.send(SIGTERM)
    assert server.told("first") == -signal.SIGABRT
    server.told("ready")
    server.send(SIGTERM)
    assert server.told("second") == -SIGKILL
    assert server.end()[0] == 0
    assert "was killed by SIGABRT when told to stop" in server.complaints()
    assert "has not ended, and is killed" in server.complaints()


@pytest.mark.found("N26")
def test_a_worker_that_somebody_has_stopped_does_not_put_the_end_off(program):
    """For ever: `kill_after` is endless."""
    server = program(SERVER, TCP)
    server.told("port")
    first = server.told("ready")
    server.told("ready")
    os.kill(first, SIGSTOP)
    while state(first) != "T":
        time.sleep(0.001)
    server.send(SIGTERM)
    status, out = server.end()
    assert (status, out.count("status=0, restarts=0")) == (0, 2)


def test_a_worker_that_ends_at_the_moment_of_a_stop_does_not_put_the_end_off(program):
    """The parent hears of both at once."""
    server = program(
        """
        import os, signal
        from corolib import run_workers

        def main():
            parent = os.getppid()
            end, ours = os.pipe()
            if os.fork() == 0:
                os.close(ours)
                os.read(end, 1)  # until there is no worker any more
                os.kill(parent, signal.SIGCONT)
                os._exit(0)
            os.kill(parent, signal.SIGSTOP)
            os.kill(parent, signal.SIGTERM)
            os._exit(0)
            yield

        if __name__ == "__main__":
            run_workers(1, main, kill_after=1000)
        """
    )
    assert server.end() == (0, "")


@pytest.mark.found("N26")
def test_a_worker_that_is_stopped_while_all_end_does_not_put_that_off_either(program):
    server = program(
        """
        import os, signal
        from corolib import open_signal_receiver, run_workers

        def main():
            with open_signal_receiver(signal.SIGTERM) as received:
                print("ready", os.getpid(), flush=True)
                yield from received
                os.kill(os.getpid(), signal.SIGSTOP)

        if __name__ == "__main__":
            print(*run_workers(1, main, kill_after=float("inf")))
        """
    )
    server.told("ready")
    server.send(SIGTERM)
    status, out = server.end()
    assert (status, out.count("status=0, restarts=0")) == (0, 1)


def test_a_signal_that_comes_while_the_workers_are_made_is_heard_by_all(program):
    server = program(
        """
        import os, signal
        from corolib import Sleep, run_workers

        fork = os.fork

        def struck():
            os.kill(os.getpid(), signal.SIGTERM)
            pid = fork()
            if pid:
                os.kill(pid, signal.SIGTERM)
            return pid

        def main():
            yield Sleep(1000)

        if __name__ == "__main__":
            os.fork = struck
            print(run_workers(3, main))
        """
    )
    status, out = server.end()
    assert (status, server.complaints()) == (0, "")
    assert out.count("status=-15, restarts=0") == 3


def test_signals_that_the_program_handles_are_its_own(program):
    server = program(
        SERVER,
        """
        GRACE = 1000

        def leave(signum, frame):
            if os.getpid() == parent:
                raise SystemExit(7)
            os._exit(7)  # an exception would be lost if it met a finalizer just then

        if __name__ == "__main__":
            parent = os.getpid()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, leave)
            listener = listen_tcp("127.0.0.1", 0)
            print("port", listener.addresses[0][1], flush=True)
            run_workers(1, main, listener)
        """,
    )
    address = LOCAL, server.told("port")
    server.told("ready")
    os.killpg(server.pid, SIGINT)
    with Client(address) as client:
        assert client.ask(b"hello") == b"hello\n"
    server.send(SIGTERM)
    assert server.end() == (7, "")  # the worker, whose handler it is too, ends by it
    assert "ended with status 7 when told to stop" in server.complaints()


def test_the_file_of_a_unix_socket_is_the_parents(program, tmp_path):
    path = str(tmp_path / "app.sock")
    server = program(
        SERVER,
        """
        GRACE = 1000
        if __name__ == "__main__":
            run_workers(2, main, listen_unix(PATH))
        """.replace("PATH", repr(path)),
    )
    first, second = (server.told("ready") for _ in range(2))
    os.kill(first, SIGTERM)  # it closes its listener
    gone(first)
    with Client(path) as client:
        assert int(client.ask(b"pid")) == second
    assert os.path.exists(path)
    server.send(SIGTERM)
    assert server.end() == (0, "")
    assert not os.path.exists(path)


@pytest.mark.found("N3")
def test_workers_are_told_to_stop_also_where_the_file_cannot_be_removed(program, tmp_path):
    path = str(tmp_path / "app.sock")
    server = program(
        SERVER,
        """
        GRACE = 1000

        def unlink(path):
            raise PermissionError(13, "Permission denied", path)

        if __name__ == "__main__":
            listener = listen_unix(PATH)
            os.unlink = unlink
            run_workers(2, main, listener, kill_after=float("inf"))
        """.replace("PATH", repr(path)),
    )
    for _ in range(2):
        server.told("ready")
    with half_an_answer(path) as client:
        server.send(SIGTERM)
        refused(path)
        assert client.ask(b"go on") == b"answer\n"
    assert server.end() == (0, "")
    text = f"{path!r}: while this was closed: [Errno 13] Permission denied: {path!r}"
    assert server.complaints() == text
    assert os.path.exists(path)


def test_a_worker_that_stops_is_not_kept_busy_by_clients_of_the_others(program):
    """It has closed a socket that stays open in its parent, and that is ready now and then."""
    server = program(SERVER, TCP)
    address = LOCAL, server.told("port")
    first, second = (server.told("ready") for _ in range(2))
    with served_by(first, [second], address) as client:
        os.kill(first, SIGTERM)
        with stopped(second):
            while still_listens(first, client):
                time.sleep(0.001)
            with Client(address):  # nobody takes it
                before = int(client.ask(b"turns"))
                time.sleep(0.05)
                assert int(client.ask(b"turns")) - before <= 4
    server.send(SIGTERM)
    assert server.end()[0] == 0


def still_listens(pid, client):
    """Return whether a worker still has the listening socket open: it has one file more then."""
    assert int(client.ask(b"pid")) == pid
    sockets = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # it was closed meanwhile
            sockets.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    inode = listening_inode(client.sock.getpeername()[1])
    return f"socket:[{inode}]" in sockets


def listening_inode(port):
    with open("/proc/net/tcp") as file:
        for line in file:
            words = line.split()
            if words[1].endswith(f":{port:04X}") and words[3] == "0A":
                return words[9]
    raise AssertionError("nobody listens")


def test_workers_end_when_their_parent_is_killed(program):
    server = program(SERVER, TCP)
    check_that_they_end_with_their_parent(server, [server.told("port")])


def check_that_they_end_with_their_parent(server, ports):
    first, second = (server.told("ready") for _ in range(2))
    clients = [half_an_answer((LOCAL, port)) for port in ports]
    server.send(SIGKILL)
    for port, client in zip(ports, clients, strict=True):
        refused((LOCAL, port))
        with client:
            assert client.ask(b"go on") == b"answer\n"
    assert server.end() == (-SIGKILL, "")  # its output has ended: so have both
    for pid in (first, second):
        gone(pid)


# Handlers of a server of the tests, in workers that are another user.
DROPPED = """
    def main(listener, *drop):
        for call in drop:
            call()
        server = listener.serve(handler, grace=GRACE)
        yield
        print("ready", os.getpid(), flush=True)
        return (yield from server)

    GRACE = 1000
    if __name__ == "__main__":
        listener = listen_tcp("127.0.0.1", 0)
        print("port", listener.addresses[0][1], flush=True)
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.mark.found("N16")
@needs_root
@pytest.mark.parametrize(
    "call",
    [
        "run_workers(2, main, listener, lambda: os.setgid(65534), lambda: os.setuid(65534))",
        "run_workers(2, main, listener, user=65534, group=65534)",
    ],
)
def test_workers_that_are_another_user_end_when_their_parent_is_killed(program, call):
    server = program(SERVER, DROPPED + "        " + call)
    check_that_they_end_with_their_parent(server, [server.told("port")])


def test_a_worker_whose_parent_is_gone_from_the_start_ends_too(program):
    server = program(
        """
        import os, signal
        from corolib import Sleep, run_workers

        fork = os.fork

        def main():
            print("ready", os.getpid(), flush=True)
            yield Sleep(1000)

        def fork_and_die():
            if fork():
                os.kill(os.getpid(), signal.SIGKILL)
            while os.getppid() == parent:
                pass
            return 0

        if __name__ == "__main__":
            parent = os.getpid()
            os.fork = fork_and_die
            run_workers(1, main)
        """
    )
    pid = server.told("ready")
    assert server.end() == (-SIGKILL, "")
    gone(pid)


def test_a_deadlock_is_found_in_a_worker_too(program):
    """Although it waits for the end of its parent."""
    server = program(
        """
        from corolib import Event, run_workers

        def main():
            yield from Event().wait()

        if __name__ == "__main__":
            try:
                run_workers(1, main, restarts=0)
            except RuntimeError:
                print("given up")
        """
    )
    assert server.end() == (0, "given up\n")
    assert "corolib.Deadlock: no task can ever run again" in server.complaints()


# What happens in the child, done here, where it can be looked at ----------------------------------


class Exited(BaseException):
    """Raised in the place of an exit that nothing follows."""


@pytest.mark.parametrize(("handler", "taken"), [(signal.default_int_handler, True), (None, False)])
def test_a_worker_puts_the_signals_back_and_goes_no_further_than_its_exit(
    monkeypatch, handler, taken
):
    def leave(status):
        assert signal.getsignal(SIGTERM) is before[SIGTERM]
        assert (signal.getsignal(SIGINT) is not handler) == taken
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        raise Exited(status)

    handler = handler or (lambda signum, frame: None)
    before = {signum: signal.getsignal(signum) for signum in (SIGTERM, SIGINT)}
    signal.signal(SIGINT, handler)
    monkeypatch.setattr(os, "fork", lambda: 0)
    monkeypatch.setattr(os, "_exit", leave)
    try:
        with pytest.raises(Exited) as info:
            run_workers(3, nothing)
        assert info.value.args == (0,)
        monkeypatch.setattr(EXIT_STATUS, lambda body: 1 / body())
        with pytest.raises(Exited) as info:
            run_workers(3, nothing)
        assert info.value.args == (1,)
    finally:
        signal.signal(SIGINT, before[SIGINT])


def test_a_worker_gets_sigterm_when_its_lifeline_ends(monkeypatch):
    killed = []
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    ours, theirs = socket.socketpair()

    def main():
        yield Sleep(0.001)
        assert killed == []
        ours.close()
        while not killed:
            yield

    with theirs:
        run_until(None, main, (), {}, theirs)
    assert killed == [(os.getpid(), SIGTERM)]


# Mistakes -----------------------------------------------------------------------------------------


def nothing():
    yield


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", None])
def test_the_number_of_workers_is_a_number(n):
    with pytest.raises(ValueError, match="give the number of workers, at least 1"):
        run_workers(n, nothing)


def test_wrong_arguments_are_told_before_there_is_a_worker(monkeypatch):
    monkeypatch.setattr(os, "fork", None)
    body = nothing()
    with pytest.raises(TypeError, match=r"got <generator .* give the function, which each worker"):
        run_workers(2, body)
    with pytest.raises(TypeError, match=r"no keyword 'port'.*use functools.partial"):
        run_workers(2, nothing, port=80)
    with pytest.raises(TypeError, match="selector=3"):
        run_workers(2, nothing, selector=3)
    with pytest.raises(ValueError, match=r"out.txt.*the suffix is .html"):
        run_workers(2, nothing, trace=Path("out.txt"))
    with pytest.raises(TypeError, match="trace=5: give a path, a Trace, or a function"):
        run_workers(2, nothing, trace=5)
    with pytest.raises(ValueError, match="watchdog=0"):
        run_workers(2, nothing, watchdog=0, trace="out-%p-x.html")
    with pytest.raises(ValueError, match="restarts="):
        run_workers(2, nothing, restarts=math.nan)
    with pytest.raises(TypeError, match="kill_after="):
        run_workers(2, nothing, kill_after="1")


def test_it_is_refused_inside_a_run_in_a_thread_and_where_nothing_forks(monkeypatch):
    found = []

    def call():
        with pytest.raises(RuntimeError) as info:
            run_workers(2, nothing)
        found.append(str(info.value))

    def main():
        yield
        call()

    run(main)
    in_a_thread(call)
    monkeypatch.delattr(os, "fork")
    call()
    in_run, in_thread, nowhere = found
    assert "a scheduler runs here already" in in_run
    assert "only in the main thread" in in_thread
    assert "start the program several times" in nowhere
