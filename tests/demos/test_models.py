"""The I/O models and the server structures: as programs with real clients, and measured."""

import os
import random
import re
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from demos.models import completions, uring
from demos.models.clients import at_once
from demos.models.job import LONGEST, Totals
from demos.models.measure import MODELS, STRUCTURES, Figures
from demos.models.picture import draw
from demos.models.table import heading, line
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

TOGETHER = [  # the blocking one is the only one that is not among them
    "nonblocking",
    "nonblocking --interval=0.001",
    "multiplexing",
    "signal_driven",
    "asynchronous",
    "asynchronous --helpers",
    "process_per_client",
    "thread_per_client",
    "event_loop",
]
FLOOD = 100_000  # lines
MOMENT = 0.1  # seconds: for what will not happen
SVG = "{http://www.w3.org/2000/svg}"


def program(command: str, **options: Any) -> Program:
    module, *arguments = command.split()
    return Program(f"demos.models.{module}", *arguments, **options)


def children(pid: int) -> list[int]:
    """Return the children of a process, also those that have ended and were not waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def ask(sock: socket.socket, data: bytes, count: int = 1) -> list[bytes]:
    """Send data, and return as many lines of answers."""
    sock.sendall(data)
    answers = b""
    while answers.count(b"\n") < count:
        part = sock.recv(65536)
        assert part, answers
        answers += part
    assert answers.endswith(b"\n")
    return answers.split()


# The job ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "answers"),
    [
        (b"1\n41\n", b"1\n42\n"),
        (b"5\r\n-7\n", b"5\n-2\n"),
        (b"hello\n\n3\n", b"?\n?\n3\n"),
        (b"9" * LONGEST + b"\n", b"9" * LONGEST + b"\n"),
        (b"9" * (LONGEST + 1) + b"\n1\n", b"?\n1\n"),
        (b"9" * 100_000 + b"\n1\n", b"?\n1\n"),
        (b"1\n2", b"1\n"),
        (b"", b""),
    ],
)
def test_answers_do_not_depend_on_how_the_data_is_cut(data, answers):
    assert Totals().answers(data) == answers
    for seed in range(10):
        totals = Totals()
        rest, said = data, b""
        while rest:
            count = random.Random(seed).randint(1, max(1, len(rest) // 3))
            said += totals.answers(rest[:count])
            rest = rest[count:]
            assert len(totals.unfinished) <= LONGEST + 1
        assert said == answers


def test_how_many_were_served_at_once_is_read_from_the_order_of_the_answers():
    assert at_once([0, 0, 1, 1, 2]) == 1
    assert at_once([0, 1, 0, 1]) == 2
    assert at_once([0, 1, 2, 0, 1, 2, 3]) == 3
    assert at_once([7]) == 1


# The programs -------------------------------------------------------------------------------------


def test_the_blocking_server_serves_one_client_after_another():
    with program("blocking") as server, server.connect() as first, server.connect() as second:
        assert ask(first, b"1\n") == [b"1"]
        second.sendall(b"10\n20\n")  # it has come first, but it will be answered last
        order = [(1, ask(first, b"%d\n" % number)) for number in (2, 3, 4)]
        assert not readable([second], 0)
        first.close()
        order.append((2, ask(second, b"", 2)))
        assert order == [(1, [b"3"]), (1, [b"6"]), (1, [b"10"]), (2, [b"10", b"30"])]

        with server.connect() as broken:
            ask(second, b"hello\n")
            broken.sendall(b"1\n2\n3\n")
            reset(broken)  # before it was its turn
        second.close()
        with server.connect() as last, server.connect():
            assert ask(last, b"1\n") == [b"1"]
            status, _, err = server.stop()  # with a client that is being served, and one that waits
            assert status == 130
            assert quiet(err)


@pytest.mark.parametrize("command", TOGETHER)
def test_all_others_serve_their_clients_together(command):
    with program(command) as server:
        first, second, idle = (server.connect() for _ in range(3))
        with first, second, idle:
            # Each answer is waited for before the other client speaks: one after another cannot be.
            assert ask(first, b"1\n") == [b"1"]
            assert ask(second, b"10\n") == [b"10"]
            assert ask(first, b"2\n") == [b"3"]
            assert ask(second, b"20\n2") == [b"30"]
            assert ask(first, b"hello\n" + b"9" * 9000 + b"\n3\n", 3) == [b"?", b"?", b"6"]
            assert ask(second, b"0\n") == [b"50"]
            reset(first)
            assert ask(second, b"1\n") == [b"51"]

            with server.connect() as silent:  # it asks a lot, and reads no answers for a while
                flood = ask_a_lot(silent)
                assert [ask(second, b"1\n") for _ in range(3)] == [[b"52"], [b"53"], [b"54"]]
                silent.settimeout(PATIENCE)
                lines = exchange(silent, flood).splitlines()
                assert lines == [b"%d" % number for number in range(1, FLOOD + 1)]

            left = children(server.process.pid)
            status, _, err = server.stop()  # with clients
            assert status == 130
            assert quiet(err)
            assert not [pid for pid in left if os.path.exists(f"/proc/{pid}")]
            assert bool(left) == (command == "process_per_client")
            assert read_all(second) == b""


def ask_a_lot(sock: socket.socket) -> bytes:
    """Send so many lines that the answers find no room; return what was not taken."""
    data = b"1\n" * FLOOD
    sock.setblocking(False)
    try:
        while data:
            data = data[sock.send(data) :]
    except BlockingIOError:
        pass
    return data


@pytest.mark.parametrize("command", TOGETHER)
def test_a_full_table_of_files_stops_nobody_who_is_being_served(command):
    with program(command, shell="ulimit -n 20") as server:
        served: list[socket.socket] = []
        waiting: list[socket.socket] = []
        while len(served) < 20 and len(waiting) < 2:  # there are files for fewer than 20
            sock = server.connect()
            sock.sendall(b"1\n")
            (served if readable([sock], MOMENT) else waiting).append(sock)
        while waiting:
            assert ask(served[0], b"1\n2\n", 3) == [b"1", b"2", b"4"]
            served.pop(0).close()
            answered = readable(waiting, PATIENCE)
            assert answered, "somebody has left, and nobody is let in"
            served += answered
            waiting = [sock for sock in waiting if sock not in answered]
        for sock in served:
            sock.close()


def test_a_process_per_client_leaves_no_dead_ones_behind():
    with program("process_per_client") as server:
        for _ in range(5):
            clients = [server.connect() for _ in range(10)]
            assert [ask(sock, b"1\n") for sock in clients] == [[b"1"]] * 10
            assert len(children(server.process.pid)) == 10
            for sock in clients:
                sock.close()
            deadline = time.monotonic() + PATIENCE
            while children(server.process.pid):
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_a_port_in_use_gives_one_line():
    with program("event_loop") as server:
        for module in ("blocking", "asynchronous"):
            status, out, err = outcome(f"demos.models.{module}", f"--port={server.port}")
            assert (status, out) == (1, "")
            assert f"127.0.0.1 port {server.port}" in err
            assert err.count("\n") == 1


def test_helpers_take_over_where_the_kernel_has_no_asynchronous_calls(monkeypatch):
    def forbidden(self: uring.Ring) -> None:
        raise PermissionError("io_uring_setup")

    assert isinstance(completions.open_completions(helpers=True), completions.Helpers)
    monkeypatch.setattr(uring.Ring, "__init__", forbidden)
    assert isinstance(completions.open_completions(), completions.Helpers)


def ring() -> uring.Ring:
    try:
        return uring.Ring(4)
    except OSError as exc:
        pytest.skip(f"no io_uring here: {exc}")


def test_a_ring_takes_more_calls_than_it_has_places():
    io = ring()
    pairs = [socket.socketpair() for _ in range(20)]
    buffers = [bytearray(10) for _ in pairs]
    got: dict[int, int] = {}
    for number, (ours, theirs) in enumerate(pairs):
        io.recv(ours, buffers[number], lambda count, number=number: got.update({number: count}))
        theirs.sendall(b"%d" % number)
    while len(got) < len(pairs):
        for then, result in io.wait():
            then(result)
    assert got == {number: len(str(number)) for number in range(20)}
    assert [bytes(buffer).rstrip(b"\0") for buffer in buffers] == [b"%d" % n for n in range(20)]

    io.recv(pairs[0][0], buffers[0], got.clear)
    pairs[0][1].close()
    io.close()  # comes back when nothing is under way
    assert not io.pending
    for pair in pairs:
        for sock in pair:
            sock.close()


# The measuring ------------------------------------------------------------------------------------


def figures_of(calls: int | None = 1234) -> list[list[Figures]]:
    return [
        [Figures(server, 20, 1.5, 0.025, 12_300_000, calls) for server in servers]
        for servers in (MODELS, STRUCTURES)
    ]


def bars(svg: str) -> list[str]:
    """Return the class of each bar of a picture: "bar" and its panel."""
    rects = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [kind for rect in rects if (kind := rect.get("class", "")).startswith("bar ")]


def test_one_command_measures_all_servers_and_draws_a_picture(tmp_path):
    picture = tmp_path / "models.svg"
    job = ["--clients=3", "--lines=2", "--pause=0.01"]
    status, out, err = outcome("demos.models", *job, f"--svg={picture}")
    assert status == 0, err
    assert quiet(err)
    assert out.startswith("3 clients, 2 lines each, 0.01 s before each line\n")
    everyone = MODELS + STRUCTURES
    assert len(everyone) == 8
    for server in everyone:
        (row,) = [row for row in out.splitlines() if row.startswith(server.name.ljust(20))]
        at_once, seconds, cpu, memory, *calls = row.removeprefix(server.name).split()
        assert 1 <= int(at_once) <= (1 if server.name == "blocking" else 3)
        assert float(seconds) > 0
        assert float(cpu) >= 0
        assert float(memory) > 1
        if shutil.which("strace") and calls != ["no", "strace"]:
            # Less than the start of Python takes, and more than one for each client.
            assert int("".join(calls)) > 3
        else:
            assert calls == ["no", "strace"]
    kinds = bars(picture.read_text("utf-8"))
    panels = ["time", "cpu", "memory"] + ["calls"] * ("no strace" not in out)
    assert sorted(kinds) == sorted(f"bar {panel}" for panel in panels for _ in everyone)


def test_the_columns_of_the_table_are_aligned():
    (names, units, rule), rows = heading().splitlines(), [line(f) for f in figures_of()[0]]
    assert len({len(row) for row in [names, rule, *rows]}) == 1
    assert names.index("CPU") + 3 == units.index("ms") + 2 == rows[0].index("25") + 2
    assert "no strace" in line(figures_of(None)[0][0])


def test_without_strace_the_picture_has_no_bars_of_calls():
    svg = draw(figures_of(None), "3 clients & more", "<here>")
    assert bars(svg).count("bar calls") == 0
    assert svg.count("no strace") == 8
    words = [each.text for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert "3 clients & more. <here>." in words
    assert bars(draw(figures_of(0), "", "")).count("bar calls") == 8


@pytest.mark.parametrize("name", ["missing/models.svg", "."])
def test_a_picture_that_cannot_be_written_is_said_before_the_work(tmp_path, name):
    picture = tmp_path / name
    status, out, err = outcome("demos.models", f"--svg={picture}")
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"cannot draw {re.escape(str(picture))}: [\w ]+\n", err)


def test_the_page_names_the_servers_in_the_order_in_which_they_are_measured():
    page = (ROOT / "demos/models/README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)\.py` \|", page, re.MULTILINE)
    assert rows == ["job", *[server.module for server in MODELS + STRUCTURES]]
    drawn = (ROOT / "demos/models/picture.svg").read_text("utf-8")
    words = [each.text for each in ElementTree.fromstring(drawn).iter(f"{SVG}text")]
    names = [server.name for server in MODELS + STRUCTURES]
    assert [word for word in words if word in names] == names


def test_ctrl_c_ends_the_servers_that_are_measured():
    with start("demos.models", "--pause=30") as process:
        while not process.stdout.readline().startswith("---"):
            pass
        deadline = time.monotonic() + PATIENCE
        while not (servers := children(process.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert quiet(err)
    assert not [pid for pid in servers if os.path.exists(f"/proc/{pid}")]
