"""The I/O models and the server structures: as programs with real clients, and measured."""

import errno
import os
import random
import re
import shutil
import signal
import socket
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from demos.models import completions, lines, ready, uring
from demos.models.clients import Job, at_once
from demos.models.findings import findings
from demos.models.job import LONGEST, Totals
from demos.models.measure import MODELS, STRUCTURES, Figures
from demos.models.picture import draw
from demos.models.ready import CALLS, IDLE, Cost, growth, quickest
from demos.models.table import COLUMNS, NAMES, heading, line, paragraph
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
    """Return the colour of each bar of a picture."""
    rects = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [kind for rect in rects if (kind := rect.get("class", "")) not in ("ground", "panel")]


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
    check_sentences(out)
    assert [row.split()[0] for row in out.splitlines() if re.match(r"\d+ {3}", row)] == [
        *map(str, IDLE),
        *map(str, ready.CLIENTS),
    ]
    kinds = bars(picture.read_text("utf-8"))
    panels = ["work", "stuck", "ready"] + ["edge"] * ("no strace" not in out)
    assert sorted(kinds) == sorted(panels * len(everyone))


def test_the_columns_of_the_table_are_aligned():
    (names, units, rule), rows = heading().splitlines(), [line(f) for f in figures_of()[0]]
    assert len({len(row) for row in [names, rule, *rows]}) == 1
    assert names.index("CPU") + 3 == units.rindex("ms") + 2 == rows[0].index("25.0") + 4
    assert "no strace" in line(figures_of(None)[0][0])


def table_of(out):
    """Return the figures of each server, as the table in an output has them."""
    known = {}
    for server in MODELS + STRUCTURES:
        for row in out.splitlines():
            if row.startswith(server.name.ljust(NAMES)):
                ends = [NAMES + sum(c.width for c in COLUMNS[:i]) for i in range(len(COLUMNS) + 1)]
                cells = [row[a:b].replace(" ", "") for a, b in pairwise(ends)]
                known[server.name] = [None if c == "nostrace" else float(c) for c in cells]
    return known


def number(text):
    return float(text.replace(" ", ""))


def check_sentences(out):
    """Compare what an output says with the table in it; return which kinds of sentences it has."""
    known = table_of(out)
    said = " ".join(out.split())
    kinds = set()
    for column, what, least in [
        (2, "CPU time", "least"),
        (3, "memory", "least"),
        (4, "system calls", "fewest"),
    ]:
        values = {name: row[column] for name, row in known.items()}
        match = re.search(
            rf"The {least} {what}: (.+?), ([\d. ]+).*?; the most: (.+?), ([\d. ]+)"
            rf"(?:MB|ms)?(?:, ([\d.]+) times as much)?\.",
            said,
        )
        if None in values.values():
            assert f"{least} {what}" not in said
        elif match:
            low, high = min(values.values()), max(values.values())
            assert values[match[1]] == number(match[2].rstrip()) == low
            assert values[match[3]] == number(match[4].rstrip()) == high
            assert (match[5] is None) == (low == 0)
            assert low == 0 or float(match[5]) == round(high / low, 1)
            kinds.add(what)
        else:
            assert f"The same {what} for all" in said and len(set(values.values())) == 1
            kinds.add(f"same {what}")
    alone = {name: row[1] for name, row in known.items() if row[0] == 1}
    together = {name: row[1] for name, row in known.items() if row[0] > 1}
    single = "There was one client" in said
    if alone and not single:
        listed = re.search(r"One client at a time: (.+?)\. (?=Up|The|-)", said)[1]
        assert {
            p.rpartition(", ")[0]: number(p.rpartition(", ")[2].removesuffix(" ms"))
            for p in listed.split("; ")
        } == alone
        kinds.add("alone")
    else:
        assert "One client at a time" not in said
    group = {name: row[1] for name, row in known.items()} if single else together
    span = re.search(r": from (.+?), ([\d. ]+) ms, to (.+?), ([\d. ]+) ms\.", said)
    if span:
        assert group[span[1]] == number(span[2]) == min(group.values())
        assert group[span[3]] == number(span[4]) == max(group.values())
        kinds.add("span")
    else:
        assert len(set(group.values())) <= 1
    if together and not single:
        most = re.search(r"Up to (\d+) of \d+ at once", said)[1]
        assert int(most) == max(row[0] for row in known.values())
        fewer = re.search(r"Fewer at once: (.+?)\.", said)
        assert dict(re.findall(r"([a-z][a-z -]*), (\d+)", fewer[1]) if fewer else []) == {
            name: f"{row[0]:g}" for name, row in known.items() if 1 < row[0] < int(most)
        }
    for column, what in ((1, "quicker"), (2, "less CPU time")):
        who, ours, theirs = re.search(
            rf"{what}: ([a-z ]+) \(([\d. ]+) and ([\d. ]+) ms\)", said
        ).groups()
        threads, events = (known[name][column] for name in ("thread per client", "event loop"))
        assert (number(ours), number(theirs)) == (threads, events)
        best = {True: "threads", False: "the event loop"}[threads < events]
        assert who == ("neither" if threads == events else best)
        kinds.add(f"{what}: {who}")
    return kinds


def planted(chance, clients, scale):
    """Return figures that a machine might have had, with ties, and nobody in his usual place."""
    traced = chance.random() < 0.8
    return [
        [
            Figures(
                server,
                chance.choice([1, chance.randint(1, clients)]),
                chance.randint(1, scale) / 1e4,
                chance.randint(0, scale) / 1e4,
                chance.randint(80, 80 + scale) * 100_000,
                chance.randint(1, scale) if traced else None,
            )
            for server in servers
        ]
        for servers in (MODELS, STRUCTURES)
    ]


def test_what_is_concluded_agrees_with_the_table_whatever_the_table_says():
    chance = random.Random(1)
    seen = set()
    for _ in range(300):
        job = Job(chance.choice([1, 2, 20, 500]), 10, chance.choice([0, 0.02]))
        groups = planted(chance, job.clients, chance.choice([1, 3, 100_000]))
        rows = [line(figures) for group in groups for figures in group]
        sentences = findings(job, groups)
        seen |= check_sentences("\n".join([*rows, paragraph(sentences)]))
        pauses = re.search(r"one client are ([\d. ]+) ms.* add up to ([\d. ]+) ms", sentences[0])
        assert bool(pauses) == bool(job.pause and job.clients > 1)
        if pauses:
            assert [number(each) for each in pauses.groups()] == [
                200.0,
                200.0 + 180.0 * (job.clients - 1),
            ]
    sides = {
        f"{what}: {who}"
        for what in ("quicker", "less CPU time")
        for who in ("threads", "the event loop", "neither")
    }
    same = {f"same {what}" for what in ("CPU time", "memory", "system calls")}
    assert seen >= sides | {"alone", "span", "CPU time", "memory", "system calls"}
    assert same & seen


# Below the models ---------------------------------------------------------------------------------


def test_what_the_kernel_does_is_seen():
    status, out, err = outcome("demos.models.kernel")
    assert status == 0 and quiet(err)
    numbers, sleep, switch, cache, edges = out.splitlines()
    first, _, closed, again = re.findall(r"\d+", numbers)
    assert first == closed == again
    waits, asks = re.search(r"time: ([\d.]+) ms of CPU .* again: ([\d.]+) ms", sleep).groups()
    assert float(waits) < float(asks)  # a process that is blocked, and one that asks
    assert int(re.search(r"with (\d+) switches", switch)[1]) >= 1  # it has waited for the other
    assert "4 MiB are written" in cache
    assert "the level 3 times, of the edge 1 time" in edges


# One ready client among idle ones ---------------------------------------------------------------


def test_select_ends_at_1024_files_and_the_others_do_not():
    rows = list(ready.costs((1, 1100), times=2))
    assert [row.clients for row in rows] == [1, 1100]
    for row in rows:
        assert [cost is None for cost in row.costs] == [row.clients > 1024, False, False]
        assert all(cost > 0 for cost in row.costs if cost is not None)


def test_the_table_ends_where_no_more_files_are_to_be_had(monkeypatch):
    limits = []
    monkeypatch.setattr(ready.resource, "getrlimit", lambda which: (64, 100))
    monkeypatch.setattr(ready.resource, "setrlimit", lambda which, pair: limits.append(pair))

    @contextmanager
    def silent(count):
        if count > 100:
            raise OSError(errno.EMFILE, "Too many open files")
        yield []

    monkeypatch.setattr(ready, "silent", silent)
    assert [row.clients for row in ready.costs((1, 90, 500), times=1)] == [1, 90]
    assert limits == [(100, 100), (64, 100)]  # what there is, and back


def test_what_is_said_of_the_costs_is_in_their_table():
    rows = [
        Cost(10, (4.0, 2.004, 1.5)),
        Cost(400, (90.0, 60.5, 1.25)),
        Cost(1500, (None, 300.25, 1.5)),
    ]
    shown = ready.table("idle", CALLS, rows)
    assert [row.split() for row in shown.splitlines()] == [
        ["idle", "select", "poll", "epoll"],
        ["10", "4.00", "2.00", "1.50"],
        ["400", "90.00", "60.50", "1.25"],
        ["1500", "-", "300.25", "1.50"],
    ]
    assert growth(rows) == [
        "select: 4.00 µs with 10 idle clients, 90.00 with 400, which is 22.5 times as much. "
        "With 1500 it fails: no file number may reach 1 024.",
        "poll: 2.00 µs with 10 idle clients, 300.25 with 1500, which is 150.1 times as much.",
        "epoll: 1.50 µs with 10 idle clients, 1.50 with 1500, which is about as much.",
    ]
    assert growth([Cost(1500, (None, 1.0, 1.0))])[:2] == [
        "select: it takes none of these numbers of files.",
        "poll: 1.00 µs with 1500 idle clients.",
    ]
    (less,) = growth([Cost(10, (2.0,)), Cost(400, (1.8,))], ("epoll",))
    assert less == "epoll: 2.00 µs with 10 idle clients, 1.80 with 400, which is less."
    names = ("a", "b")
    assert quickest([Cost(1, (2.0, 1.5)), Cost(9, (1.0, 3.25)), Cost(9, (1.001, 1.0))], names) == [
        "With 1 client: b is the quickest, 1.50 µs; a takes 0.50 more.",
        "With 9 clients: a is the quickest, 1.00 µs; b takes 2.25 more.",
        "With 9 clients all take 1.00 µs.",
    ]


def test_the_picture_of_the_costs_has_a_curve_for_each_call():
    rows = [Cost(10, (4.0, 2.0, 1.5)), Cost(400, (90.0, 60.0, 1.6)), Cost(1500, (None, 300.0, 1.5))]
    drawn = ElementTree.fromstring(lines.draw(rows, CALLS))
    words = [each.text for each in drawn.iter(f"{SVG}text")]
    assert {"select 90.0, ends at 1 024", "poll 300.0", "epoll 1.5"} <= set(words)
    points = {
        each.get("class"): [
            tuple(map(float, pair.split(","))) for pair in each.get("points").split()
        ]
        for each in drawn.iter(f"{SVG}polyline")
        if each.get("stroke-width") == "2.5" and len(each.get("points").split()) > 2
    }
    assert set(points) == {"work-line", "ready-line"}
    (_, first), _, (_, last) = points["work-line"]
    assert first - last > 100  # it rises
    (_, first), _, (_, last) = points["ready-line"]
    assert first == last


def test_without_strace_the_picture_has_no_bars_of_calls():
    svg = draw(figures_of(None), "3 clients & more", "<here>")
    assert bars(svg).count("edge") == 0
    assert svg.count("no strace") == 8
    words = [each.text for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert "3 clients & more." in words and "<here>." in words
    assert bars(draw(figures_of(0), "", "")).count("edge") == 8


@pytest.mark.parametrize("name", ["missing/models.svg", "."])
def test_a_picture_that_cannot_be_written_is_said_before_the_work(tmp_path, name):
    picture = tmp_path / name
    status, out, err = outcome("demos.models", f"--svg={picture}")
    assert (status, out) == (2, "")
    assert re.search(rf"argument --svg: cannot draw {re.escape(str(picture))}: [\w ]+\n$", err)


def test_the_page_names_the_servers_in_the_order_in_which_they_are_measured():
    page = (ROOT / "demos/models/README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)\.py` \|", page, re.MULTILINE)
    assert rows == [
        "job",
        *[server.module for server in MODELS + STRUCTURES],
        "kernel",
        "phases",
        "ready",
    ]
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
