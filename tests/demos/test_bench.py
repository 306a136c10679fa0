"""The benchmark: its figures by hand, its servers one by one, and a small run of all of it.

And what the benchmark has counted exactly: corolib's own programs may not take more, or less, than
is recorded. No test here looks at a clock.
"""

import json
import os
import random
import re
import socket
import threading
import xml.etree.ElementTree as ElementTree

import pytest

from demos.bench import chart, exact, measuring, processes, table
from demos.bench.contestants import SERVERS, TASKS, Contestant
from demos.bench.localhost import PEM
from demos.bench.processes import Failed, Load, Server, cores
from demos.bench.statistics import interval, median, wide
from demos.bench.workloads import WORKLOADS, IdleConnections
from tests.helpers.driving import FULL
from tests.helpers.programs import outcome

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="the benchmark needs Linux"
)

DEBUG = os.environ.get("COROLIB_DEBUG", "0") not in ("", "0")
PATIENCE = 60  # seconds: for what happens at once unless the machine is very busy
NAMES = {each.name: each for each in SERVERS}
READY = [each for each in SERVERS if each.installed]
SOME = READY if FULL else [NAMES[each] for each in ("corolib_streams", "epoll", "selectors")]


# Statistics ---------------------------------------------------------------------------------------


def test_the_median_is_the_middle_one_or_between_the_two_in_the_middle():
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 3, 2]) == 2.5


def test_the_interval_is_that_of_the_binomial_distribution():
    values = list(range(1, 32))
    random.Random(1).shuffle(values)
    assert interval(values) == (10, 22)  # as in tables of the sign test for 31
    assert interval(range(1, 11)) == (2, 9)
    assert interval(range(6)) == (0, 5)  # outside with probability 1/32
    assert interval(range(31), sure=0.99) == (7, 23)


def test_too_few_values_have_no_interval():
    assert interval(range(5)) is None
    assert interval([]) is None


def test_an_interval_wider_than_a_twentieth_of_the_median_is_marked():
    assert not wide([100, 101, 102, 103, 104, 105])
    assert wide([100, 101, 102, 103, 104, 106])
    assert wide([1, 1, 1])  # there is none


def test_the_interval_holds_the_true_median_as_often_as_it_says():
    numbers = random.Random(7)
    held = 0
    for _ in range(1000):
        low, high = interval([numbers.expovariate(1) for _ in range(31)])
        held += low < 0.6931 < high
    assert 940 <= held <= 990  # 97.1 % with these ranks


def test_pairs_are_taken_in_alternating_order():
    order = []
    first = lambda: order.append("a") or {"cost": 1}  # noqa: E731
    second = lambda: order.append("b") or {"cost": 2}  # noqa: E731
    assert measuring.take(first, second, 3) == [({"cost": 1}, {"cost": 2})] * 3
    assert "".join(order) == "abbaab"


# The tables ---------------------------------------------------------------------------------------


def test_all_workloads_are_there():
    echoes = [f"echo-{size}-{n}" for size in ("64", "1k", "64k") for n in (1, 100, 1000)]
    assert [each.name for each in WORKLOADS] == [
        *echoes,
        *[f"{each}-idle" for each in echoes],
        *["lines", "close", "bulk", "tls", "udp", "latency-100", "latency-1000"],
        *["switch", "spawn", "sleepers", "handover", "timeout", "cancel", "lock", "thread"],
        *["idle-task", "idle-connection", "import"],
    ]
    idle = {each.idle for each in WORKLOADS if each.name.endswith("-idle")}
    assert idle == {10_000}
    assert {each.number for each in WORKLOADS if each.name == "sleepers"} == {50_000}


def test_all_contestants_are_there_and_each_has_its_file():
    others = (
        "epoll selectors threads asyncio_protocol asyncio_streams uvloop_protocol uvloop_streams"
        " curio trio gevent tornado twisted bluelet pycos"
    )
    ours = "streams traps once async writewait"
    assert list(NAMES) == [*(f"corolib_{each}" for each in ours.split()), *others.split()]
    for each in SERVERS:
        assert "echo" in each.jobs("servers"), each.name
    for each in TASKS:
        assert "spawn" in each.jobs("tasks") or each.name == "deque", each.name
    for each in WORKLOADS:
        assert measuring.fits(each, SERVERS[0]) or measuring.fits(each, TASKS[0]), each.name


def test_what_a_contestant_lacks_or_cannot_serve_is_not_measured():
    by_name = {each.name: each for each in WORKLOADS}
    assert measuring.fits(by_name["tls"], NAMES["asyncio_streams"])
    assert not measuring.fits(by_name["tls"], NAMES["epoll"])
    assert not measuring.fits(by_name["udp"], NAMES["tornado"])
    assert measuring.fits(by_name["echo-1k-1000"], NAMES["bluelet"])
    assert not measuring.fits(by_name["echo-1k-1-idle"], NAMES["bluelet"])


# Servers ------------------------------------------------------------------------------------------


def receive(conn, count):
    """Read so many bytes, slowly at first, so that the other side cannot send all at once."""
    parts = []
    while count:
        part = conn.recv(min(count, 65536))
        assert part, "the server closed the connection"
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def connect(port):
    conn = socket.socket()
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    conn.settimeout(PATIENCE)
    conn.connect(("127.0.0.1", port))
    return conn


def send_in_thread(conn, data):
    thread = threading.Thread(target=conn.sendall, args=(data,))
    thread.start()
    return thread


@pytest.mark.parametrize("name", NAMES)
def test_a_server_echoes_also_what_the_kernel_takes_in_parts_only(name):
    if not NAMES[name].installed:
        pytest.skip(f"{NAMES[name].library} is not installed")
    data = random.Random(3).randbytes(2_000_000)
    with Server(name, "echo") as server, connect(server.port) as conn, connect(server.port) as two:
        two.sendall(b"before")
        assert receive(two, 6) == b"before"
        sender = send_in_thread(conn, data)
        two.sendall(b"meanwhile")  # nobody reads from the first one yet
        assert receive(two, 9) == b"meanwhile"
        assert receive(conn, len(data)) == data
        sender.join()
        conn.close()
        two.sendall(b"after")
        assert receive(two, 5) == b"after"


@pytest.mark.parametrize("name", [each.name for each in SOME if "lines" in each.jobs("servers")])
def test_a_server_answers_lines_and_sends_much(name):
    with Server(name, "lines") as server, connect(server.port) as conn:
        conn.sendall(b"one\ntwo\nthr")
        assert receive(conn, 8) == b"one\ntwo\n"
        conn.sendall(b"ee\n")
        assert receive(conn, 6) == b"three\n"
    with Server(name, "bulk") as server, connect(server.port) as conn:
        conn.sendall(b"?")
        assert receive(conn, 1 << 20) == bytes(1 << 20)
        conn.sendall(b"?")
        assert receive(conn, 1 << 20) == bytes(1 << 20)


@pytest.mark.parametrize("name", [each.name for each in SOME if "udp" in each.jobs("servers")])
def test_a_server_echoes_datagrams(name):
    with Server(name, "udp") as server, socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", server.port))
        for data in (b"one", bytes(9000), b"two"):
            sock.send(data)
            assert sock.recv(65535) == data


@pytest.mark.parametrize("name", [each.name for each in SOME if "tls" in each.jobs("servers")])
def test_a_server_echoes_over_tls(name):
    with Server(name, "tls") as server, Load(server.port, "tls", 2, 0, 100_000, 100_000) as load:
        assert load.order("count 10").exchanges == 10


def test_the_certificate_is_that_of_the_tests():
    from tests.helpers import certificates

    with open(PEM) as file:
        assert file.read() == certificates.PEM


@pytest.mark.parametrize("name", [each.name for each in TASKS if each.installed])
def test_tasks_do_their_jobs(name):
    contestant = next(each for each in TASKS if each.name == name)
    jobs = [each.job for each in WORKLOADS if each.job in contestant.jobs("tasks")]
    assert jobs
    with measuring.working(contestant) as worker:
        for job in jobs:
            assert float(worker.tell(f"{job} 100")) >= 0 or job == "idle"


# The load -----------------------------------------------------------------------------------------


@pytest.fixture(params=["", "python"])
def load(request, monkeypatch):
    """The load in C, if there is a compiler, and in Python."""
    monkeypatch.setenv("COROLIB_BENCH_LOAD", request.param)
    processes.load_command.cache_clear()
    yield Load
    processes.load_command.cache_clear()


def test_the_load_makes_as_many_exchanges_as_it_is_told(load):
    with Server("epoll", "echo") as server:
        before = server.cpu()
        with load(server.port, "tcp", 3, 4, 1000, 1000) as some:
            assert some.order("count 10").exchanges == 10
            assert some.order("count 1").exchanges == 1
            assert some.order("time 0.01").exchanges >= 3
            run = some.order("rate 1000 0.05")
            assert run.exchanges == 50
            assert run.p50 <= run.p99 <= run.p999
        with load(server.port, "close", 2, 0, 100_000, 100_000) as some:
            assert some.order("count 10").exchanges == 10
        assert server.cpu() > before


def test_the_load_sends_lines_datagrams_and_over_tls(load):
    with Server("threads", "lines") as server:
        with load(server.port, "tcp", 1, 0, 100, 100, 10) as some:
            assert some.order("count 5").exchanges == 5
    with Server("epoll", "udp") as server:
        with load(server.port, "udp", 5, 0, 1000, 1000) as some:
            assert some.order("count 50").exchanges == 50
    with Server("threads", "tls") as server:
        with load(server.port, "tls", 2, 0, 100_000, 100_000) as some:
            assert some.order("count 6").exchanges == 6


def test_late_answers_count_from_the_planned_time(load):
    """A server that answers nothing until all was sent: each answer is late by what is left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)

        def answer():
            conn, _ = listener.accept()
            with conn:
                conn.sendall(receive(conn, 4))  # the exchange at the beginning
                conn.sendall(receive(conn, 400))  # a hundred of them

        thread = threading.Thread(target=answer)
        thread.start()
        with load(listener.getsockname()[1], "tcp", 1, 0, 4, 4) as some:
            run = some.order("rate 1000 0.1")
        thread.join()
    assert run.exchanges == 100
    assert run.p99 >= 90_000  # the first ones were planned 99 ms before the last was sent
    assert run.p50 >= 45_000


def test_a_process_that_ends_is_told_with_its_last_words():
    with pytest.raises(Failed, match=r"there is none|No module named"):
        Server("nobody", "echo")
    with Server("epoll", "echo") as server:
        load = Load(server.port, "tcp", 1, 0, 10, 10)
        server.end(server.pid)
        with load, pytest.raises(Failed, match="ended"):
            load.order("count 1")


def test_two_cores_are_named_that_this_process_may_use():
    assert set(cores()) <= os.sched_getaffinity(0)


# The command --------------------------------------------------------------------------------------


def bench(*args):
    return outcome("demos.bench", *args)


def test_a_small_run_gives_a_table_json_and_a_chart(tmp_path):
    workloads = ["echo-1k-1", "switch", "import"]
    contestants = ["epoll", "selectors", "deque"]
    status, out, err = bench(
        *["--workloads", *workloads, "--contestants", *contestants],
        *["--pairs", "6", "--seconds", "0.01", "--out", str(tmp_path)],
    )
    assert status == 0, err
    report = json.loads((tmp_path / "bench.json").read_text())
    assert (report["pairs"], report["seconds"]) == (6, 0.01)
    found = {
        each["name"]: [result["contestant"] for result in each["results"]]
        for each in report["workloads"]
    }
    assert found == {
        "echo-1k-1": ["corolib_streams", "epoll", "selectors"],
        "switch": ["corolib", "deque"],
        "import": ["corolib"],
    }
    for workload in report["workloads"]:
        reference, *others = workload["results"]
        assert reference["ratio"] is None
        assert not any(each["failed"] for each in workload["results"]), workload
        assert all(each["medians"]["cost"] > 0 and each["pairs"] == 6 for each in others)
        if workload["kind"] == "Exchanges":
            assert all(
                low <= each["ratio"] <= high for each in others for low, high in [each["interval"]]
            )
    assert (tmp_path / "bench.md").read_text() == out.removesuffix("\n")
    check_markdown(out)
    check_svg((tmp_path / "bench.svg").read_text(), bars=3)


def test_memory_is_measured_once_and_a_contestant_that_fails_is_named():
    nobody = Contestant("nobody", "nobody")
    workload = IdleConnections("idle-connection", "", job="echo", number=200)
    ours, other, failed = measuring.measure(
        workload, NAMES["corolib_streams"], [NAMES["epoll"], nobody], 31, 0.01, lambda text: None
    )
    assert ours.pairs == other.pairs == 1
    assert ours.medians["python"] > 1000 > other.medians["python"]
    assert not other.wide
    assert "nobody" in failed.failed


def check_markdown(text):
    """Each table has a line under its head, and as many cells in each line as there."""
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert tables
    for each in tables:
        lines = each.splitlines()
        assert re.fullmatch(r"\| --- \|( ---: \|)+", lines[1])
        assert len({line.count("|") for line in lines}) == 1


def check_svg(text, bars):
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    rects = [each for each in root.iter(f"{space}rect") if "bar" in each.get("class")]
    assert len(rects) == bars
    lengths = [float(each.get("width")) for each in rects]
    assert lengths == sorted(lengths)
    assert "prefers-color-scheme: dark" in text


def workload(**changes):
    medians = {"cost": 1e-5, "cpu": 1e-5, "per_second": 1e5, "load_busy": 0.2, "server_busy": 0.9}
    ours = {"contestant": "corolib_streams", "title": "corolib streams", "medians": medians}
    ours |= {"failed": "", "ratio": None, "interval": None, "wide": False}
    other = ours | {"contestant": "x", "title": "a <library> & more", "ratio": 0.5, **changes}
    kind = {"name": "echo", "title": "echo", "unit": "message", "kind": "Exchanges"}
    return kind | {"results": [ours, other]}


def test_a_wide_interval_and_a_busy_load_are_marked():
    plain = table.one(workload(interval=(0.49, 0.51)))
    assert "| a <library> & more | 10.00 | 100,000 | 0.50 | 0.49 to 0.51 |" in plain
    assert table.WIDE in table.one(workload(interval=(0.4, 0.6), wide=True))
    slow = workload()["results"][0]["medians"] | {"load_busy": 1.0}
    assert f"100,000{table.BOUND}" in table.one(workload(medians=slow))
    [failure] = table.failures(workload(failed="it is gone"))
    assert failure.endswith("more failed: it is gone")


def test_a_chart_is_well_formed_whatever_the_names_are():
    check_svg(chart.svg(workload(), "<about> & so"), bars=2)
    check_svg(chart.svg(workload(failed="it is gone"), ""), bars=1)


def test_the_list_names_workloads_and_contestants():
    status, out, err = bench("--list")
    assert (status, err) == (0, "")
    for each in [*WORKLOADS, *SERVERS, *TASKS]:
        assert re.search(rf"^  {re.escape(each.name)} +\S", out, re.MULTILINE), each.name
    for each in SERVERS:
        left_out = f"{each.title}: left out, {each.library} is not installed"
        assert (left_out in out) == (not each.installed)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--workloads", "nonsense"], "no workload is called nonsense; --list names them all\n"),
        (["--contestants", "nobody"], "no contestant is called nobody; --list names them all\n"),
    ],
)
def test_a_wrong_name_is_told_in_one_line(args, told):
    assert bench(*args) == (1, "", told)


# Exact counters -----------------------------------------------------------------------------------


def near(found, recorded):
    return abs(found - recorded) <= 0.05 * recorded


PROGRAMS = exact.OURS if FULL else ("corolib_streams",)


@pytest.mark.parametrize("name", PROGRAMS)
def test_our_own_programs_take_what_is_recorded(name):
    """A change that makes them slower is seen here; one that makes them faster records anew:

    python3 -m demos.bench --record
    """
    if reason := exact.reason_not_to_compare():
        pytest.skip(reason)
    if DEBUG:
        pytest.skip("debug mode is not what was recorded")
    recorded = exact.recorded()["programs"][name]
    calls = exact.system_calls(name)
    # The shared wait is a fiftieth of a message, memory for the program is rarer still: how often
    # these occur is up to the machine.
    for each in calls.keys() | recorded["calls"].keys():
        counts = calls.get(each, 0), recorded["calls"].get(each, 0)
        assert near(*counts) or max(counts) < 0.05, (each, counts)
    assert near(exact.instructions(name), recorded["instructions"])


def test_what_is_counted_is_for_each_unit_of_the_workload(monkeypatch):
    """Two counts of fake servers, which take 1000 to begin and then 7 for each exchange."""
    counted = []

    def count(name, workload, rounds):
        counted.append((name, workload.name, rounds))
        return 1000 + 7 * rounds

    monkeypatch.setattr(exact, "compile_modules", lambda *args: counted.append("compiled"))
    monkeypatch.setattr(exact, "counted_instructions", count)
    monkeypatch.setattr(exact, "counted_calls", lambda *args: {"recvfrom": count(*args), "brk": 5})
    lines, bulk = (each for each in WORKLOADS if each.name in ("lines", "bulk"))
    epoll = NAMES["epoll"]
    assert exact.figures("epoll", lines) == {
        "instructions": 7 / 16,
        "calls": {"recvfrom": round(7 / 16, 3)},
    }
    assert counted.pop(0) == "compiled"  # before the first of the counts, which run side by side
    assert set(counted) == {("epoll", "lines", 500), ("epoll", "lines", 2500)}
    assert exact.figures("epoll", bulk)["instructions"] == 7
    assert {each[2] for each in counted if each[1] == "bulk"} == {50, 250}

    def fails(*args):
        raise Failed("it does not start")

    said = []
    report = exact.report([lines, bulk], [epoll], said.append)
    monkeypatch.setattr(exact, "counted_calls", fails)
    report["workloads"] += exact.report([bulk], [epoll], said.append)["workloads"]
    text = table.exact(report)
    check_markdown(text)
    assert "1 MiB to each who asks, 10 connections, for each MiB" in text
    assert f"{epoll.title} failed: it does not start" in text
    assert len(said) == 3


def test_figures_are_recorded_for_all_of_our_programs():
    assert list(exact.recorded()["programs"]) == list(exact.OURS)
    assert exact.build().split()[0].count(".") == 2


def test_without_the_tools_or_the_build_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(exact, "missing_tool", lambda: "valgrind")
    assert exact.reason_not_to_compare() == "valgrind is not installed"
    monkeypatch.setattr(exact, "missing_tool", lambda: "")
    monkeypatch.setattr(exact, "build", lambda: "another one")
    assert "this is another one" in exact.reason_not_to_compare()
