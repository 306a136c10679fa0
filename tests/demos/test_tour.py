"""The tour of the demos: each step with real clients, its faults where they belong, and its page.

What is shown by a step as a fault is reproduced here on that step, and shown to be absent in the
later ones. All of it by order and by counts: a client that must not be answered yet is waited for a
moment, and no such moment can be too short; one that must be answered is waited for as long as it
takes.
"""

import ast
import inspect
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from demos.tour import __main__ as way_in
from demos.tour import faults, step10_generators, step11_timers, step14_join, step17_corolib
from demos.tour.client import break_off, flood, visit
from demos.tour.step11_timers import ReadWait, Sleep, WriteWait
from demos.tour.step14_task import BusyError, Cancelled, Suspend
from tests.helpers.programs import (
    PATIENCE,
    ROOT,
    Program,
    exchange,
    outcome,
    python,
    quiet,
    read_all,
    readable,
    serving,
    start,
)
from tests.helpers.sockets import reset

TOUR = ROOT / "demos" / "tour"
KERNEL = ROOT / "corolib" / "kernel"
MOMENT = 0.05  # seconds: for what will not happen
FIRST = "step01_one_at_a_time"
CALLBACKS = "step08_callbacks"
SERVERS = [
    FIRST,
    "step02_processes",
    "step03_threads",
    "step04_polling",
    "step05_select",
    "step06_poll --kind=epoll",
    "step06_poll --kind=poll",
    CALLBACKS,
    "step09_handlers",
    "step10_generators",
    "step11_timers",
    "step12_errors",
    "step13_cancel",
    "step14_join",
    "step17_corolib",
]
STOPPED_BY_A_RESET = ["step10_generators", "step11_timers"]
REPORTING = ["step12_errors", "step13_cancel", "step14_join", "step17_corolib"]


def serve(command):
    name, *args = command.split()
    return Program(f"demos.tour.{name}", *args)


def most(buffer):
    """Return how much the buffer of a connection may hold: "tcp_wmem" or "tcp_rmem"."""
    path = Path("/proc/sys/net/ipv4", buffer)
    return int(path.read_text().split()[2]) if path.exists() else 4_000_000


def flood_size(command):
    """Return a number of bytes that do not fit into the buffers of a connection.

    For the callbacks it is more: what the client has sent may lie unread in the server's buffer,
    and still what was read must be more than the way back can hold.
    """
    if command == CALLBACKS:
        return most("tcp_rmem") + 2 * most("tcp_wmem") + 1_000_000
    return max(8_000_000, 2 * most("tcp_wmem"))


# The steps with clients ---------------------------------------------------------------------------


class Step:
    """One of the servers; its tests share a process."""

    def __init__(self, command):
        self.command = command
        self.broken_off = False  # by a client
        self.program = serve(command)
        self.address = (self.program.host, self.program.port)
        self.connect = self.program.connect


@pytest.fixture(
    scope="module", params=SERVERS, ids=lambda command: command.replace(" --kind=", "-")
)
def step(request):
    step = Step(request.param)
    with step.program as program:
        line = f"echo on 127.0.0.1 port {program.port}; try: nc 127.0.0.1 {program.port}\n"
        assert program.lines == [line]
        yield step
        with step.connect() as last:
            last.sendall(b"still there")
            assert last.recv(100) == b"still there"
            program.rests()
            status, out, err = program.stop()
            assert (status, out.replace("tick\n", "")) == (130, "")
            if step.broken_off and step.command in REPORTING:
                assert "ConnectionResetError" in err
            else:
                assert quiet(err), err
            try:
                assert last.recv(1) == b"", "whoever served it has ended, too"
            except ConnectionResetError:
                pass


def test_what_a_client_sends_comes_back(step):
    data = os.urandom(300_000 if step.command != CALLBACKS else 1000)
    for _ in range(3):
        with step.connect() as conn:
            assert exchange(conn, data) == data


def test_a_client_that_sends_nothing_gets_nothing(step):
    with step.connect() as conn:
        assert exchange(conn, b"") == b""


def test_twenty_clients_one_after_another_in_the_first_step_and_together_in_all_others(step):
    if step.command == FIRST:
        order = visit(step.address, 20, MOMENT)
        assert order == [f"{sign}{n}" for n in range(1, 21) for sign in "+-"]
    else:
        order = visit(step.address, 20, PATIENCE)
        assert set(order[:20]) == {f"+{n}" for n in range(1, 21)}
        assert set(order[20:]) == {f"-{n}" for n in range(1, 21)}


def test_an_idle_client_keeps_the_next_waiting_in_the_first_step_and_in_no_other(step):
    blocks = step.command == FIRST
    order = []
    with step.connect() as idle, step.connect() as second:
        second.sendall(b"hello")
        if readable([second], MOMENT if blocks else PATIENCE):
            order.append("the second is answered")
        idle.close()
        order.append("the first leaves")
        if blocks and readable([second], PATIENCE):
            order.append("the second is answered")
        assert second.recv(100) == b"hello"
    expected = ["the second is answered", "the first leaves"]
    assert order == (expected[::-1] if blocks else expected)


def test_a_client_that_does_not_read_keeps_nobody_else_waiting(step):
    if step.command == FIRST:
        return  # there every client keeps all others waiting
    with step.connect() as deaf, step.connect() as other:
        deaf.setblocking(False)
        unsent = memoryview(bytes(flood_size(FIRST)))
        try:
            while unsent:
                unsent = unsent[deaf.send(unsent) :]
        except BlockingIOError:
            pass
        for _ in range(10):
            other.sendall(b"hello")
            assert other.recv(100) == b"hello"
        deaf.settimeout(PATIENCE)
        deaf.shutdown(socket.SHUT_WR)
        read_all(deaf)


def test_the_callbacks_lose_what_a_short_send_leaves_over_and_no_other_step_does(step):
    size = flood_size(step.command)
    if step.command == CALLBACKS:
        assert 200_000 < len(flood(step.address, size, PATIENCE)) < size
    else:
        data = bytes(range(256)) * (size // 256 + 1)
        assert flood(step.address, size, MOMENT) == data[:size]


def test_a_client_that_breaks_off_ends_nobody_else(step):
    if step.command in STOPPED_BY_A_RESET:
        return  # it ends the server: see the next test
    with step.connect() as other:
        if step.command != FIRST:  # there it could not even be answered
            other.sendall(b"hello")
            assert other.recv(100) == b"hello"
        else:
            other.close()
        break_off(step.address)
        step.broken_off = True
        if step.command != FIRST:
            assert exchange(other, b"hello") == b"hello"
    with step.connect() as later:
        assert exchange(later, b"hello") == b"hello"


@pytest.mark.parametrize("command", STOPPED_BY_A_RESET)
def test_fault_2_in_the_steps_that_have_it_one_client_ends_all(command):
    with serve(command) as program, program.connect() as other:
        other.sendall(b"hello")
        assert other.recv(100) == b"hello"
        break_off((program.host, program.port))
        _, err = program.process.communicate(timeout=PATIENCE)
        assert program.process.returncode == 1
        assert "ConnectionResetError" in err.splitlines()[-1]
        assert other.recv(1) == b""


@pytest.mark.parametrize("command", ["step11_timers", "step14_join", "step17_corolib"])
def test_it_ticks_while_clients_are_served(command):
    with serve(f"{command} --tick=0.01") as program:
        assert program.process.stdout.readline() == "tick\n"
        with program.connect() as conn:
            assert exchange(conn, b"hello") == b"hello"
        assert program.process.stdout.readline() == "tick\n"


@pytest.mark.parametrize("command", ["step11_timers", "step14_join", "step17_corolib"])
def test_it_ends_quietly_when_nobody_reads_what_a_task_prints(command):
    with serve(f"{command} --tick=0.01") as program:
        program.process.stdout.close()
        _, err = program.process.communicate(timeout=PATIENCE)
        assert program.process.returncode == 141
        assert quiet(err)


def test_ctrl_c_that_reaches_all_processes_at_a_terminal_is_quiet():
    program = Program("demos.tour.step02_processes", start_new_session=True)
    with program.connect() as conn:
        conn.sendall(b"hello")
        assert conn.recv(100) == b"hello"
        os.killpg(program.process.pid, signal.SIGINT)
        assert program.process.communicate(timeout=PATIENCE) == ("", "")
        assert program.process.returncode == 130
        assert conn.recv(1) == b""


# The commands -------------------------------------------------------------------------------------


def test_a_port_in_use_gives_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = outcome("demos.tour.step09_handlers", f"--port={port}")
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"127\.0\.0\.1 port {port}: .*in use.*\n", err)


def test_a_client_without_a_server_gives_one_line(reserved):
    status, out, err = outcome("demos.tour.client", f"--port={reserved}")
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"127\.0\.0\.1 port {reserved}: .*refused.*\n", err)


@pytest.mark.parametrize("kind", [["--clients=2"], ["--flood=8000000"]], ids=["visit", "flood"])
def test_a_client_whose_server_breaks_off_gives_one_line(kind):
    with serving(lambda conn: conn.recv(1) and reset(conn)) as port:
        status, out, err = outcome("demos.tour.client", f"--port={port}", *kind)
    assert (status, out) == (1, "")
    assert err == "the server has broken off; look there for the reason\n"


def test_a_client_without_patience_sends_all_the_same():
    def echo(conn):
        while data := conn.recv(65536):
            conn.sendall(data)

    with serving(echo) as port:
        size = flood_size(FIRST)
        data = bytes(range(256)) * (size // 256 + 1)
        assert flood(("127.0.0.1", port), size, 0) == data[:size]


def test_a_wrong_option_gives_one_line():
    status, out, err = outcome("demos.tour.step04_polling", "--pause=inf")
    assert (status, out) == (2, "")
    assert "argument --pause: inf: give a number" in err.splitlines()[-1]


def test_the_client_sees_an_echo_that_is_none():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "demos.tour.client", f"--port={port}", "--clients=1"]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as client:
            with listener.accept()[0] as conn:
                conn.recv(100)
                conn.sendall(b"something else")
                _, err = client.communicate(timeout=PATIENCE)
    assert client.returncode == 1
    assert err == "client 1 did not get back what it had sent\n"


# The small schedulers -----------------------------------------------------------------------------

OLD, NEW = step11_timers.Scheduler, step14_join.Scheduler


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands, for both modules; `skip()` is a selector that moves it."""
    clock = SimpleNamespace(now=100.0)
    fake = SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr(step11_timers, "time", fake)
    monkeypatch.setattr(step14_join, "time", fake)

    def select(timeout):
        clock.now += timeout
        return []

    clock.skip = SimpleNamespace(select=select)
    return clock


@pytest.fixture(params=[OLD, NEW], ids=["step11", "step14"])
def scheduler(request):
    return request.param()


def test_the_twenty_lines_are_about_twenty():
    tree = ast.parse(inspect.getsource(step10_generators.Scheduler))
    source = ast.unparse(tree).splitlines()
    lines = [line for line in source if line.strip() and '"""' not in line]
    assert 18 <= len(lines) <= 22


def test_timers_expire_in_order_and_equal_ones_in_the_order_they_were_set(scheduler, clock):
    scheduler.selector = clock.skip
    seen = []

    def nap(seconds, name):
        yield Sleep(seconds)
        seen.append((name, clock.now))

    def main():
        for seconds, name in [(3, "a"), (1, "b"), (2, "c"), (1, "d"), (0, "e")]:
            scheduler.spawn(nap(seconds, name))
        yield

    scheduler.run(main())
    assert seen == [("e", 100), ("b", 101), ("d", 101), ("c", 102), ("a", 103)]


def test_what_is_made_ready_during_a_turn_runs_in_the_next(scheduler):
    seen = []

    def child(name):
        seen.append(name)
        yield
        seen.append(name)

    def main():
        scheduler.spawn(child("first"))
        scheduler.spawn(child("second"))
        seen.append("main")
        yield
        seen.append("main")

    scheduler.spawn(main())
    turns = []
    for _ in range(3):
        scheduler.turn()
        turns.append(seen.copy())
        seen.clear()
    assert turns == [["main"], ["first", "second", "main"], ["first", "second"]]


def test_one_task_may_read_a_file_while_another_writes_it(scheduler, pair):
    a, b = pair
    seen = []

    def reader():
        yield ReadWait(a)
        seen.append(a.recv(100))

    def writer():
        yield WriteWait(a)
        seen.append("written")
        b.send(b"read")

    def main():
        scheduler.spawn(reader())
        scheduler.spawn(writer())
        yield

    scheduler.run(main())
    assert seen == ["written", b"read"]
    assert not scheduler.selector.get_map()


class TestMended:
    def run(self, body, failures=None):
        """Run a main task; what fails and is not joined goes to `failures`, or fails the test."""
        found = []
        scheduler = NEW(lambda task, exc: found.append((task.name, type(exc))))
        try:
            return scheduler.run(body(scheduler))
        finally:
            assert found == (failures or [])
            assert not scheduler.selector.get_map()
            assert not (scheduler.readers or scheduler.writers or scheduler.ready)

    def test_run_returns_what_the_main_task_returns_or_raises_what_left_it(self):
        def good(scheduler):
            yield
            return 42

        def bad(scheduler):
            yield
            raise KeyError

        assert self.run(good) == 42
        with pytest.raises(KeyError):
            self.run(bad)

    @pytest.mark.parametrize(
        "trap", [lambda sock: ReadWait(sock), lambda sock: Sleep(1e9)], ids=["read", "sleep"]
    )
    def test_cancel_takes_the_wait_back_and_passes_every_finally(self, pair, trap, clock):
        seen = []

        def inner():
            try:
                yield trap(pair[0])
            finally:
                seen.append("inner")

        def outer():
            try:
                yield from inner()
            finally:
                seen.append("outer")

        def main(scheduler):
            task = scheduler.spawn(outer())
            yield
            yield
            task.cancel()
            assert not (scheduler.readers or scheduler.selector.get_map())
            with pytest.raises(Cancelled):
                yield from task

        self.run(main)
        assert seen == ["inner", "outer"]

    def test_a_sleep_that_was_taken_back_wakes_nobody(self, clock):
        def sleeper():
            try:
                yield Sleep(1)
            except Cancelled:
                yield Sleep(10)
            return clock.now

        def main(scheduler):
            scheduler.selector = SimpleNamespace(
                select=clock.skip.select, get_map=scheduler.selector.get_map
            )
            task = scheduler.spawn(sleeper())
            yield
            yield
            task.cancel()
            return (yield from task)

        assert self.run(main) == 110

    def test_a_new_task_runs_to_its_first_trap_before_it_is_cancelled(self, pair):
        def owner(sock):
            with sock:
                yield ReadWait(sock)

        def main(scheduler):
            scheduler.spawn(owner(pair[0])).cancel()
            yield
            yield
            yield
            assert pair[0].fileno() == -1

        self.run(main)

    def test_join_gives_the_result_early_and_late_and_to_several(self):
        def child():
            yield
            return "done"

        def joiner(task):
            return (yield from task)

        def main(scheduler):
            task = scheduler.spawn(child())
            joiners = [scheduler.spawn(joiner(task)) for _ in range(3)]
            results = []
            for each in [*joiners, task]:
                results.append((yield from each))
            return results

        assert self.run(main) == ["done"] * 4

    def test_join_raises_what_left_the_task_and_that_is_not_reported(self):
        def child():
            yield
            raise KeyError

        def main(scheduler):
            task = scheduler.spawn(child())
            for _ in range(2):
                with pytest.raises(KeyError):
                    yield from task

        self.run(main)

    def test_a_joiner_that_is_cancelled_leaves_the_task_running(self):
        def child():
            for _ in range(9):
                yield
            return "done"

        def joiner(task):
            return (yield from task)

        def main(scheduler):
            task = scheduler.spawn(child())
            other = scheduler.spawn(joiner(task))
            yield
            yield
            other.cancel()
            assert task.joiners == []
            return (yield from task)

        assert self.run(main) == "done"

    @pytest.mark.parametrize("early", [True, False])
    def test_the_first_wake_counts(self, early):
        def main(scheduler):
            wakes = []

            def arm(wake):
                wakes.append(wake)
                if early:
                    wake("first")
                return lambda: None

            def waker():
                yield
                wakes[0]("first" if not early else "second")
                wakes[0]("second")

            scheduler.spawn(waker())
            value = yield Suspend(arm)
            for _ in range(3):
                assert (yield) is None
            return value

        assert self.run(main) == "first"

    def test_a_file_that_cannot_be_waited_for_is_the_fault_of_one_task(self, pair):
        def main(scheduler):
            pair[0].close()
            for trap in (ReadWait, WriteWait):
                with pytest.raises(ValueError):
                    yield trap(pair[0])

        self.run(main)

    def test_the_second_reader_gets_the_error_where_it_waits(self, pair):
        a, b = pair

        def reader():
            yield ReadWait(a)
            return a.recv(100)

        def main(scheduler):
            first = scheduler.spawn(reader())
            yield
            with pytest.raises(BusyError):
                yield ReadWait(a)
            yield WriteWait(a)
            b.send(b"hello")
            return (yield from first)

        assert self.run(main) == b"hello"

    def test_a_wrong_yield_is_an_error_at_that_yield(self):
        def main(scheduler):
            with pytest.raises(TypeError, match=r"yielded 0\.5, which is not a trap"):
                yield 0.5
            return "goes on"

        assert self.run(main) == "goes on"


# The faults of the ancestors ----------------------------------------------------------------------

THEN_AND_NOW = {
    "1. A second task waits for the same file.": (
        ["second reads b'hello'"],
        ["reader fails: BusyError", "first reads b'hello'"],
    ),
    "2. A task raises an exception.": (
        ["the scheduler stops: ValueError"],
        ["bad fails: ValueError", "the others go on"],
    ),
    "3. A task is killed in an inner generator.": (
        ["inner is closed", "outer carries on"],
        ["inner is closed", "outer is closed"],
    ),
    "4. A task yields 42.": (["99 steps"], ["wrong fails: TypeError", "1 steps"]),
    "4. A task yields 42, on a trampoline.": (
        ["got 42 back"],
        ["wrong fails: TypeError", "1 steps"],
    ),
    "5. A client does not read.": (
        ["frozen", "another task is served"],
        ["another task is served", "all is sent"],
    ),
    "6. An inner generator returns a value.": (
        ["the result is None"],
        ["the result is 42", "that of a task is 42"],
    ),
}


def test_all_six_faults_are_here():
    titles = [title for title, _, _ in faults.FAULTS]
    assert titles == list(THEN_AND_NOW)
    assert {title[0] for title in titles} == set("123456")


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault[0])
def test_a_fault_is_there_in_the_old_shape_and_not_in_ours(fault):
    title, old, new = fault
    assert (faults.run_old(old), faults.run_new(new)) == THEN_AND_NOW[title]


# The files ----------------------------------------------------------------------------------------


def imported_by(path):
    """Return the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_no_step_but_the_last_imports_corolib():
    users = {
        path.name
        for path in TOUR.glob("*.py")
        if any(name.split(".")[0] == "corolib" for name in imported_by(path))
    }
    assert users == {"step17_corolib.py", "judged.py"}


def test_the_tasks_stay_the_same_from_the_generators_to_corolib():
    def body(function):
        return inspect.getsource(function).split("\n", 1)[1]

    assert body(step10_generators.echo) == body(step11_timers.echo)
    for name in ("echo", "accept_clients", "tick"):
        old, last = getattr(step11_timers, name), getattr(step17_corolib, name)
        assert body(old) == body(last)
        if name != "accept_clients":
            assert inspect.getsource(old) == inspect.getsource(last)


# The page -----------------------------------------------------------------------------------------

PAGE = (TOUR / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^(?:<!-- (.*?) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [match.groups() for match in BLOCK.finditer(PAGE)]
LISTINGS = [
    (note.removeprefix("from "), text) for note, kind, text in BLOCKS if note and kind == "python"
]
SESSIONS = [
    (note.removeprefix("with "), text) for note, kind, text in BLOCKS if note and kind == "text"
]
PROGRAMS = [
    (text, after)
    for (note, kind, text), after in zip(BLOCKS, [*BLOCKS[1:], None], strict=True)
    if kind == "python" and not note
]


def test_every_block_of_the_page_is_one_of_those_that_are_tested():
    assert PAGE.count("\n```") == 2 * len(BLOCKS)
    kinds = [(kind, (note or "").split(" ")[0]) for note, kind, _ in BLOCKS]
    assert set(kinds) == {
        ("python", "from"),
        ("python", ""),
        ("sh", ""),
        ("text", "with"),
        ("text", ""),
    }
    assert kinds.count(("text", "")) == 1  # the output of the only program that is not a server
    assert len(LISTINGS) > 30
    assert len(SESSIONS) >= 10
    assert {name for name, _ in SESSIONS} <= {*SERVERS, "nothing"}
    assert len(PROGRAMS) == 3


@pytest.mark.parametrize(("name", "text"), LISTINGS, ids=[name for name, _ in LISTINGS])
def test_a_listing_is_in_its_file(name, text):
    assert f"\n{text}" in (TOUR / name).read_text("utf-8")


def test_every_step_is_on_the_page_in_its_order():
    files = sorted(path.name for path in TOUR.glob("step*.py"))
    named = [name for name, _ in LISTINGS if name != "faults.py"]
    assert set(named) == set(files)
    assert [int(name[4:6]) for name in named] == sorted(int(name[4:6]) for name in named)
    headings = re.findall(r"^## Step (\d+): ", PAGE, re.MULTILINE)
    assert headings == [str(number) for number in range(1, 18)]
    for section in re.split(r"^## Step ", PAGE, flags=re.MULTILINE)[1:]:
        assert "**What it shows.**" in section or "### Fault" in section
        assert section.index("**What will it print?**") < section.index("**Try it.**")
        if not section.startswith("17"):
            assert "**What is wrong.**" in section


def as_shown(text):
    """Return the output of the client without what may differ from one run to the next."""

    def sort(match):
        return " ".join(sorted(match[0].split()))

    def compare(match):
        return "all came back" if match[1] == match[2] else "some came back"

    text = re.sub(r"(?<=\d)\n(?=[+-]\d)", " ", text)  # where the lines end depends on the order
    text = re.sub(r"\+\d+( \+\d+)+|-\d+( -\d+)+", sort, text)
    return re.sub(r"(\d+) bytes sent, (\d+) came back", compare, text)


def commands_of(session):
    """Yield each command of a session, and the output that is shown."""
    for part in re.split(r"^\$ python3 -m ", session, flags=re.MULTILINE)[1:]:
        yield part.split("\n", 1)


def check(session, name, port):
    """Have the client do what is shown."""
    for command, shown in commands_of(session):
        # How long it waits for what will not happen is no part of what is shown.
        waits = name == CALLBACKS if "--flood" in command else name != FIRST
        patience = PATIENCE if waits else MOMENT
        command = command.replace("8000000", str(flood_size(name)))
        shown = shown.replace("8000000", str(flood_size(name)))
        status, out, err = outcome(*command.split(), f"--port={port}", f"--patience={patience}")
        assert (status, as_shown(out), err) == (0, as_shown(shown), "")


def test_the_sessions_go_as_they_are_shown(step):
    for name, session in SESSIONS:
        if name == step.command and "--reset" not in session:
            check(session, name, step.program.port)


def test_the_sessions_in_which_a_client_breaks_off_go_as_they_are_shown():
    (old, old_session), (new, new_session) = [s for s in SESSIONS if "--reset" in s[1]]
    assert (old, new) == ("step11_timers", "step12_errors")
    with serve(old) as program:
        check(old_session, old, program.port)
        assert "ConnectionResetError" in program.process.communicate(timeout=PATIENCE)[1]
    with serve(new) as program:
        check(new_session, new, program.port)
        status, _, err = program.stop()
    assert status == 130
    assert f"`{err.strip()}`" in PAGE


def test_the_programs_that_need_no_client_print_what_is_shown():
    commands = [c for name, session in SESSIONS if name == "nothing" for c in commands_of(session)]
    assert len(commands) == 4
    for command, shown in commands:
        if "edge" in command and not hasattr(select, "epoll"):
            continue
        status, out, err = outcome(*command.split())
        assert (status, err) == (0, "")
        pattern = re.sub(r"[1-9]\d* ticks", r"\\d+ ticks", re.escape(shown).replace(r"\ ", " "))
        assert re.fullmatch(pattern, out), out


def test_the_program_that_shows_what_a_generator_is_prints_what_is_shown():
    (text, (_, _, shown)), *_ = PROGRAMS
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")


@pytest.mark.parametrize("text", [text for text, _ in PROGRAMS[1:]], ids=["yield", "await"])
def test_the_echo_server_with_streams_serves_twenty_clients_together(text, tmp_path, reserved):
    app = tmp_path / "app.py"
    app.write_text(text.replace("7007", str(reserved)), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(app)], env=environment, stderr=subprocess.DEVNULL
    ) as server:
        try:
            while True:
                assert server.poll() is None
                try:
                    socket.create_connection(("127.0.0.1", reserved)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.01)
            order = visit(("127.0.0.1", reserved), 20, PATIENCE)
        finally:
            server.kill()
    assert set(order[:20]) == {f"+{n}" for n in range(1, 21)}


def test_the_commands_on_the_page_exist_with_their_options():
    lines = [line for _, kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    assert len(lines) >= 15
    started = set()
    for line in lines:
        if line.startswith("diff "):
            assert all((ROOT / path).exists() for path in line.split()[1:])
            continue
        name, *options = re.fullmatch(r"python3 -m demos\.tour\b\.?(.*)", line)[1].split() or [
            "__main__"
        ]
        source = (TOUR / f"{name}.py").read_text("utf-8")
        started.add(name)
        assert "\ndef main(options" in source
        for option in options:
            if option.startswith("--"):
                assert f'"{option}"' in source
    assert started == {path.stem for path in TOUR.glob("*.py") if "\ndef main(" in path.read_text()}


def test_the_pointers_lead_from_the_small_scheduler_to_the_real_one():
    rows = re.findall(r"^\| `(.*?)` \| (\d+) \| `([\w/]+\.py)`: `(.*?)` \|", PAGE, re.MULTILINE)
    assert len(rows) >= 15
    for ours, number, name, theirs in rows:
        sources = [path.read_text("utf-8") for path in TOUR.glob(f"step{int(number):02}*.py")]
        assert any(ours in source for source in sources), ours
        assert theirs in (KERNEL / name).read_text("utf-8"), theirs


# In the order in which the page explains them.
WORDS = """
server; clients?; connection; socket; port; echo; listening socket; end of file; accept loop;
blocking; process; thread; context switch; race condition; lock; deadlock; non-blocking; polling;
user space; kernel; kernel space;
system call; buffers; kernel buffer; short send; ready; file number; file descriptor; level trigger;
edge trigger; selector; callback; event loop; handlers?; back-pressure; generator function;
generator; task; coroutine; trap; spawn; scheduler; wake; timer; deadline; heap; turn; parked;
give way; body; cancel; undo; trampoline; join; stream; laws
"""


def test_no_word_is_used_before_it_is_explained():
    prose = BLOCK.sub("", PAGE)
    prose = re.sub(r"^#.*$", "", prose, flags=re.MULTILINE)
    prose = " ".join(re.sub(r"`[^`]*`", "", prose).split())
    place = 0
    for word in WORDS.replace("\n", " ").split(";"):
        word = word.strip()
        first = re.search(rf"\b{word}\b", prose, re.IGNORECASE)
        assert first, word
        around = prose[first.start() - 2 : first.end() + 2]
        context = prose[max(first.start() - 60, 0) : first.end() + 60]
        if word == "generator":  # explained with the one before
            first = re.search(r"\*\*generator\*\*", prose)
        else:
            assert around.startswith("**") and around.endswith("**"), f"{word}: {context}"
        assert first.start() > place, word
        place = first.start()


def test_links_of_the_page_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert "://" in target or (TOUR / target).exists()
    for name in re.findall(r"`(?:demos/tour/)?([\w/]+\.py)`", PAGE):
        places = (TOUR, KERNEL, ROOT / "corolib")
        assert any((place / name).exists() for place in places), name


# The way in ---------------------------------------------------------------------------------------


def test_the_way_in_knows_each_step_and_its_program():
    steps = way_in.steps()
    headings = re.findall(r"^## Step (\d+): (.*)$", PAGE, re.MULTILINE)
    assert [(str(step.number), step.title) for step in steps] == [
        (number, title.replace("`", "")) for number, title in headings
    ]
    programs = [step.program.split()[0].rpartition(".")[2] for step in steps]
    assert programs == [
        path.stem for path in sorted(TOUR.glob("step*.py")) if path.stem != "step14_task"
    ]
    alone = [step.number for step in steps if not way_in.is_server(step)]
    assert alone == [7, 15, 16]
    others = {step.number: step.others for step in steps if step.others}
    assert others == {14: ["demos.tour.faults"]}


def test_without_a_terminal_the_way_in_lists_the_steps_and_says_how_to_go_on():
    status, out, err = outcome("demos.tour", stdin=subprocess.DEVNULL)
    assert (status, err) == (0, "")
    *lines, empty, last = out.splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(1, 18))
    assert (empty, last.endswith("python3 -m demos.tour 1")) == ("", True)
    status, out, err = outcome("demos.tour", "18")
    assert (status, out) == (2, "")
    assert err.endswith("18: give a number that is at least 1, at most 17\n")


def test_a_step_is_shown_and_run_with_its_client_beside_it():
    status, out, err = outcome("demos.tour", "2")
    assert (status, err) == (0, "")
    assert out.startswith("Step 2: a process for each client\n")
    assert "<!--" not in out
    ran = out.partition("--- python3 -m demos.tour.step02_processes\n")[2].splitlines()
    assert ran[0].startswith("server: echo on 127.0.0.1 port ")
    assert ran[1] == "--- python3 -m demos.tour.client"
    # On a busy machine one may leave before all have got theirs: the client has little patience.
    assert re.fullmatch(r"\d+ of 20 got an answer before the first one left", ran[-1])


def test_at_a_terminal_the_way_in_goes_from_step_to_step():
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    with start("demos.tour", stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        os.write(master, b"7\n\n?\n17\n\n")
        text = b""
        while True:
            try:
                text += os.read(master, 65536)
            except OSError:  # nobody writes any more
                break
        assert process.wait(PATIENCE) == 0
    os.close(master)
    assert b"Step 7: told" in text
    assert b"another 5 bytes come: ready, reads World" in text
    assert b"(Picture demos/pictures/edge.svg: With edges, " in text
    assert b"Which step? Enter: 8; q: end." in text
    assert text.rstrip().endswith(b'"Your own" on.')


def test_the_way_in_explains_the_job_before_the_first_step():
    first, second, *_ = way_in.steps()
    assert first.text.startswith("The job\n\nA **server** is")
    assert "\nStep 1: one client at a time\n" in first.text
    assert second.text.startswith("Step 2: a process for each client\n")


def test_ctrl_c_ends_the_program_of_a_step_and_not_the_way_in(monkeypatch, capsys):
    answers = ["2", "", "q"]
    asked = []

    def interrupt(step):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", lambda words: asked.append(words) or answers.pop(0))
    monkeypatch.setattr(way_in, "run", interrupt)
    way_in.ask(way_in.steps())
    assert asked[-1] == "\nWhich step? Enter: 3; q: end. "


# The exercises ------------------------------------------------------------------------------------

EXERCISES = (TOUR / "exercises.md").read_text("utf-8")


def test_each_step_has_three_exercises_each_with_a_solution():
    sections = re.split(r"^## ", EXERCISES, flags=re.MULTILINE)[1:]
    assert [int(section.split(":")[0].removeprefix("Step ")) for section in sections] == [
        *range(1, 18)
    ]
    for section in sections:
        parts = re.split(r"^\*\*(\d)\.\*\* ", section, flags=re.MULTILINE)
        assert parts[1::2] == ["1", "2", "3"]
        for part in parts[2::2]:
            assert part.count("<details><summary>Solution</summary>") == 1
            assert (part.count("```python"), part.count("```text")) == (1, 1)
            assert part.rstrip().endswith("</details>")


def test_the_solutions_print_what_is_shown():
    """All in one process of their own, for some of them fork."""
    status, out, err = python(
        f"""
        import contextlib, io, json, re, select
        from pathlib import Path

        text = Path({str(TOUR / "exercises.md")!r}).read_text("utf-8")
        found = re.findall(r"```python\\n(.*?)```\\n\\n```text\\n(.*?)```", text, re.DOTALL)
        wrong = []
        for number, (code, shown) in enumerate(found):
            if "select.epoll" in code and not hasattr(select, "epoll"):
                continue
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(code, f"solution {{number}}", "exec"), {{"__name__": "solution"}})
            if output.getvalue() != shown:
                wrong.append((code, output.getvalue()))
        print(json.dumps([len(found), wrong]))
        """,
        "-Werror",
    )
    assert (status, err) == (0, "")
    assert json.loads(out) == [51, []]
