"""The benchmark: its figures by hand, its servers one by one, and a small run of all of it.

And what the benchmark has counted exactly: corolib's own programs may not take more, or less, than
is recorded. No test here looks at a clock.
"""

import json
import os
import platform
import random
import re
import socket
import threading
import xml.etree.ElementTree as ElementTree
from contextlib import contextmanager

import pytest

from demos.bench import (
    chart,
    compiler,
    contestants,
    exact,
    measuring,
    processes,
    published,
    servers,
    table,
    work,
)
from demos.bench.contestants import SERVERS, TASKS, Contestant
from demos.bench.localhost import PEM
from demos.bench.measuring import Plan
from demos.bench.processes import Failed, Load, Server, cores
from demos.bench.statistics import interval, median, wide
from demos.bench.tasks import check_turns
from demos.bench.workloads import WORKLOADS, Exchanges, IdleConnections, Latency, Repeated
from tests.helpers.driving import FULL
from tests.helpers.programs import outcome, python

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="the benchmark needs Linux"
)

DEBUG = os.environ.get("COROLIB_DEBUG", "0") not in ("", "0")
PATIENCE = 60  # seconds: for what happens at once unless the machine is very busy
NAMES = {each.name: each for each in SERVERS}
READY = [each for each in SERVERS if each.installed]
SOME = READY if FULL else [NAMES[each] for each in ("corolib_streams", "epoll", "selectors")]
ECHO = Exchanges("echo", "echo", job="echo", connections=2)


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


def test_samples_of_a_pair_are_taken_in_alternating_order():
    order = []
    first = lambda: order.append("a") or {"cost": 1}  # noqa: E731
    second = lambda: order.append("b") or {"cost": 2}  # noqa: E731
    assert measuring.take(first, second) == [({"cost": 1}, {"cost": 2})] * 4
    assert "".join(order) == "abbaabba"


def test_a_pair_whose_samples_are_long_has_one_of_each(monkeypatch):
    monkeypatch.setattr(measuring, "LASTS", 0)
    assert len(measuring.take(lambda: {"cost": 1}, lambda: {"cost": 2})) == 1


# Pairs of processes -------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch):
    """Contestants whose costs are given, one for each of their processes, and who were started."""
    costs = {}
    started = []

    @contextmanager
    def opened(workload, contestant, seconds, shipped=False):
        started.append(contestant.name + ("+" if shipped else ""))
        cost = costs[contestant.name].pop(0)
        if cost is None:
            raise Failed("it does not start")
        yield lambda: {"cost": cost}

    monkeypatch.setattr(measuring, "opened", opened)
    return costs, started


def measure(names, pairs, shipped=False, kind=ECHO):
    ours, *others = (Contestant(each, each) for each in names)
    return measuring.measure(kind, ours, others, Plan(pairs, 0.01, shipped), lambda text: None)


def test_each_pair_is_of_new_processes_and_the_interval_that_of_the_pairs(fake):
    """However often each process is sampled, what differs between runs is in the interval."""
    costs, started = fake
    costs.update(a=[10.0] * 6, b=[10.0, 5.0, 20.0, 8.0, 10.0, 10.0])
    _, b = measure("ab", 6)
    assert started == ["a", "b"] * 6
    assert b.fair.ratios == [1, 2, 0.5, 1.25, 1, 1]
    assert b.fair.ratio == 1
    assert b.fair.interval == (0.5, 2)
    assert b.fair.wide
    assert b.fair.medians == {"cost": 10}


def test_contestants_take_turns_and_another_one_is_the_first_each_time(fake):
    costs, started = fake
    costs.update({each: [1.0] * 3 for each in "abc"})
    measure("abc", 3)
    assert started == [*"abc", *"acb", *"abc"]


def test_every_second_pair_is_also_taken_as_shipped(fake):
    costs, started = fake
    costs.update(a=[1.0] * 5, b=[2.0, 4.0, 2.0, 2.0, 4.0])
    a, b = measure("ab", 3, shipped=True)
    assert started == [*"ab", "a+", "b+", *"ab", *"ab", "a+", "b+"]
    assert (b.fair.ratios, b.shipped.ratios) == ([0.5] * 3, [0.25] * 2)
    assert a.shipped.medians == {"cost": 1}
    started.clear()
    costs.update(a=[1.0], b=[2.0])
    _, b = measure("ab", 1, shipped=True, kind=Repeated("spawn", "", job="spawn"))
    assert started == ["a", "b"]
    assert b.shipped is None


def test_few_pairs_have_no_interval_and_no_mark(fake):
    costs, _ = fake
    costs.update(a=[1.0] * 3, b=[1.0, 2.0, 3.0])
    _, b = measure("ab", 3)
    assert b.fair.interval is None
    assert not b.fair.wide


def test_who_fails_is_named_and_not_tried_again(fake):
    costs, started = fake
    costs.update(a=[1.0] * 3, b=[1.0, None], c=[1.0] * 3)
    _, b, c = measure("abc", 3)
    assert b.failed == "it does not start"
    assert len(c.fair.ratios) == 3
    assert started.count("b") == 2


def test_who_takes_too_long_has_fewer_pairs(fake, monkeypatch):
    costs, _ = fake
    costs.update(a=[1.0] * 3, b=[1.0] * 3)
    monkeypatch.setattr(measuring, "LONGEST", 1e-12)  # seconds
    _, b = measure("ab", 3)
    assert b.fair.ratios == [1]


# The tables ---------------------------------------------------------------------------------------


def test_all_workloads_are_there():
    echoes = [f"echo-{size}-{n}" for size in ("64", "1k", "64k") for n in (1, 100, 1000)]
    assert [each.name for each in WORKLOADS] == [
        *echoes,
        *[f"{each}-idle" for each in echoes],
        *["lines", "close", "bulk", "tls", "udp"],
        *["latency-100", "latency-1000", "latency-busy"],
        *["switch", "spawn", "sleepers", "handover", "timeout", "cancel", "shutdown", "lock"],
        *["thread", "growth-1000", "growth-10000", "growth-100000"],
        *["growth-frozen", "growth-rarely", "growth-off"],
        *["idle-task", "idle-connection", "import", "import-all"],
    ]
    idle = {each.idle for each in WORKLOADS if each.name.endswith("-idle")}
    assert idle == {10_000}
    assert {each.number for each in WORKLOADS if each.name == "sleepers"} == {50_000}


def test_all_contestants_are_there_and_each_has_its_file():
    others = (
        "epoll_c epoll selectors threads asyncio_protocol asyncio_streams uvloop_protocol"
        " uvloop_streams curio trio trio_sockets trio_readable gevent tornado twisted bluelet pycos"
    )
    ours = "streams traps once async writewait"
    assert list(NAMES) == [*(f"corolib_{each}" for each in ours.split()), *others.split()]
    for each in SERVERS:
        assert "echo" in each.jobs("servers"), each.name
    for each in TASKS:
        assert each.jobs("tasks") & {"spawn", "switch", "thread"}, each.name
    for each in WORKLOADS:
        assert measuring.fits(each, SERVERS[0]) or measuring.fits(each, TASKS[0]), each.name


def test_what_a_contestant_lacks_or_cannot_serve_is_not_measured():
    by_name = {each.name: each for each in WORKLOADS}
    assert measuring.fits(by_name["tls"], NAMES["asyncio_streams"])
    assert not measuring.fits(by_name["tls"], NAMES["epoll"])
    assert not measuring.fits(by_name["udp"], NAMES["tornado"])
    assert measuring.fits(by_name["echo-1k-1000"], NAMES["bluelet"])
    assert not measuring.fits(by_name["echo-1k-1-idle"], NAMES["bluelet"])
    assert measuring.fits(by_name["close"], NAMES["epoll_c"])
    assert not measuring.fits(by_name["idle-connection"], NAMES["epoll_c"])  # has no Python's


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(contestants, "there", lambda library: library not in ("OpenSSL", "curio"))
    monkeypatch.setattr(contestants, "compiler", lambda: None)
    monkeypatch.setattr(contestants.sys, "version_info", (3, 12, 0))
    assert not NAMES["epoll_c"].installed
    assert not NAMES["curio"].installed
    assert NAMES["twisted"].installed
    assert "tls" not in NAMES["twisted"].jobs("servers")
    assert "tls" in NAMES["tornado"].jobs("servers")
    assert measuring.left_out() == ["OpenSSL for the TLS of Twisted", "a C compiler", "curio"]
    monkeypatch.setattr(exact, "missing_tool", lambda: "strace")
    assert published.missing() == [*measuring.left_out(), "strace"]


def test_what_a_newer_python_has_is_named_and_not_asked_for(monkeypatch):
    eager = next(each for each in TASKS if each.name == "asyncio_eager")
    monkeypatch.setattr(contestants.sys, "version_info", (3, 11, 7))
    assert not eager.installed
    assert "Python 3.12 for asyncio, eager tasks" in measuring.left_out()
    assert not any("Python" in each for each in published.missing())
    chosen = {w.name: others for w, _, others in published.matches(published.NEWER)}
    assert eager not in chosen["spawn"]
    monkeypatch.setattr(contestants.sys, "version_info", (3, 12, 0))
    assert eager.installed
    chosen = {w.name: others for w, _, others in published.matches(published.NEWER)}
    assert eager in chosen["spawn"]
    assert list(chosen) == list(published.NEWER)


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
        pytest.skip(f"{NAMES[name].missing} is not installed")
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


@pytest.mark.parametrize("name", [each.name for each in SOME if "busy" in each.jobs("servers")])
def test_a_server_echoes_after_some_work(name):
    with Server(name, "busy") as server, connect(server.port) as conn:
        for data in (b"one", b"two"):
            conn.sendall(data)
            assert receive(conn, 3) == data


def test_the_work_lasts_as_long_as_it_says(monkeypatch):
    times = iter([1.0, 1.00005, 1.0000999, 1.0001001, 2.0])
    monkeypatch.setattr(servers.time, "perf_counter", lambda: next(times))
    servers.work()
    assert next(times) == 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is settled is glibc's")
def test_the_allocator_is_settled_for_every_server():
    """asyncio asks for 256 KiB for each message. As shipped it gets them from the kernel, page by
    page, each time, unless something as large was freed while it was imported, as in Python 3.15.
    """
    with Server("asyncio_protocol", "echo") as server:
        with Load(server.port, "tcp", 1, 0, 1024, 1024) as load:
            load.order("count 10")
            before = server.faults()
            load.order("count 500")
            assert (server.faults() - before) / 500 < 0.1


@pytest.mark.parametrize("module", ["work", "serve"])
@pytest.mark.parametrize(("options", "times"), [([], 1), (["--as-shipped"], 0)])
def test_the_allocator_is_settled_unless_it_is_told_otherwise(module, options, times):
    program = f"""
import importlib, io, runpy, sys
from demos.bench import allocator
allocator.settle = lambda: print("settled", flush=True)
importlib.import_module("demos.bench.servers.selectors").echo = lambda sock: None
sys.argv = ["", *{["asyncio"] if module == "work" else ["selectors", "echo"]}, *{options}]
sys.stdin = io.StringIO("")
runpy.run_module("demos.bench.{module}", run_name="__main__")
"""
    status, out, err = python(program)
    assert (status, err) == (0, "")
    assert out.count("settled\n") == times


# Tasks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [each.name for each in TASKS if each.installed])
def test_tasks_do_their_jobs(name):
    """With `lock`, the process also fails unless the lock was handed over each time."""
    contestant = next(each for each in TASKS if each.name == name)
    jobs = {each.job: 100 for each in WORKLOADS if each.job in contestant.jobs("tasks")}
    assert jobs
    with measuring.working(contestant) as worker:
        for job, number in jobs.items():
            float(worker.tell(f"{job} {number}"))
        if "shutdown" in jobs:
            float(worker.tell("idle 100"))
            found = [float(each) for each in worker.tell("growth 100 rarely").split()]
            assert len(found) == 5
            assert all(each >= 0 for each in found[:4])


def test_a_lock_that_is_not_handed_over_is_refused():
    check_turns([3, 1, 2, 0, 4, 5, 9, 8, 7, 6] * 3)
    for order in ([0] * 100, [*range(10), *range(9), 0], list(range(10)) * 2 + [1], [], [0, 1] * 5):
        with pytest.raises(ValueError, match="not taken in turn"):
            check_turns(order)

    def lock(number):
        return None

    with pytest.raises(ValueError, match="not taken in turn"):
        work.seconds(lock, 10)


def test_the_beginning_and_the_end_of_a_loop_are_not_counted(monkeypatch):
    now = 0.0

    def job(number):
        nonlocal now
        now += 5 + 2 * number

    monkeypatch.setattr(work.time, "process_time", lambda: now)
    assert work.seconds(job, 10) == 20


def test_phases_are_told_apart():
    clock = iter([10, 17, 18.5])

    def job(number, mark):
        for _ in range(3):
            mark()

    assert work.phases(job, 5, lambda: next(clock)) == (7, 1.5)


@pytest.mark.parametrize("collector", work.COLLECTORS)
def test_the_collector_is_set_as_it_is_told(collector):
    program = f"""
import gc
from demos.bench.work import COLLECTORS
before = gc.get_freeze_count()  # Python 3.12 begins with some
COLLECTORS[{collector!r}]()
print(gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count() > before)
"""
    expected = {
        "default": "True 700 False",
        "rarely": "True 100000 False",
        "frozen": "True 700 True",
        "off": "False 700 False",
    }
    status, out, err = python(program)
    assert (status, err) == (0, "")
    assert re.sub(r"\b2000\b", "700", out.strip()) == expected[collector]  # Python 3.13 has 2000


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
            assert some.order("rate 500 0.2").seconds >= 0.1  # at random, but not all at once
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
    assert run.p99 >= 70_000  # the first ones were planned some 100 ms before the last was sent
    assert run.p50 >= 25_000


def test_latency_is_measured_at_a_share_of_what_the_server_itself_can_do(monkeypatch):
    orders = []

    @contextmanager
    def exchanging(workload, contestant, shipped):
        def take(order):
            orders.append(order)
            return {"per_second": 3000.0, "cost": 1e-5, "p99": 2e-3}

        yield take

    monkeypatch.setattr(measuring, "exchanging", exchanging)
    workload = Latency("latency", "", job="echo", share=0.8)
    with measuring.opened(workload, NAMES["epoll"], 0.06) as sample:
        found = sample()
    assert orders == ["time 0.5", "rate 2400.0 1.0"]
    assert (found["cost"], found["rate"]) == (2e-3, 2400)


def test_a_process_that_ends_is_told_with_its_last_words():
    with pytest.raises(Failed, match=r"there is none|No module named"):
        Server("nobody", "echo")
    with Server("epoll", "echo") as server:
        load = Load(server.port, "tcp", 1, 0, 10, 10)
        server.end(server.pid)
        with load, pytest.raises(Failed, match="ended"):
            load.order("count 1")


def test_nothing_from_outside_makes_a_program_do_more(monkeypatch):
    kept = {"PATH": "/bin", "LANG": "C"}
    dropped = ("COROLIB_DEBUG", "PYTHONDEVMODE", "COVERAGE_RUN", "MALLOC_ARENA_MAX", "GEVENT_LOOP")
    monkeypatch.setattr(os, "environ", kept | dict.fromkeys(dropped, "1"))
    assert processes.plain_environment() == kept | {
        "PYTHONHASHSEED": "0",
        "COROLIB_DEBUG": "0",
    }


def test_two_cores_are_named_that_this_process_may_use():
    assert set(cores()) <= os.sched_getaffinity(0)


# The command --------------------------------------------------------------------------------------


def bench(*args):
    return outcome("demos.bench", *args)


def test_a_small_run_gives_a_table_json_and_a_chart(tmp_path):
    pairs = 2 if FULL else 1
    workloads = ["echo-1k-1", "switch", "import"]
    contestants = ["epoll", "deque"]
    status, out, err = bench(
        *["--workloads", *workloads, "--contestants", *contestants],
        *["--pairs", str(pairs), "--seconds", "0.01", "--out", str(tmp_path)],
    )
    assert status == 0, err
    report = json.loads((tmp_path / "bench.json").read_text())
    assert (report["pairs"], report["seconds"]) == (pairs, 0.01)
    assert report["libc"] == " ".join(platform.libc_ver())
    found = {
        each["name"]: [result["contestant"] for result in each["results"]]
        for each in report["workloads"]
    }
    assert found == {
        "echo-1k-1": ["corolib_streams", "epoll"],
        "switch": ["corolib", "deque"],
        "import": ["corolib"],
    }
    for workload in report["workloads"]:
        reference, *others = workload["results"]
        assert reference["fair"]["ratio"] is None
        assert not any(each["failed"] for each in workload["results"]), workload
        for figures in (each["fair"] for each in others):
            assert figures["ratio"] > 0
            assert figures["medians"]["cost"] > 0
            assert len(figures["ratios"]) == pairs
        servers = workload["kind"] == "Exchanges"
        assert all(
            len(e["shipped"]["ratios"]) == 1 if servers else not e["shipped"] for e in others
        )
    assert (tmp_path / "bench.md").read_text() == out.removesuffix("\n")
    check_markdown(out)
    check_svg((tmp_path / "bench.svg").read_text(), bars=2)


def test_memory_is_measured_once_and_a_contestant_that_fails_is_named():
    nobody = Contestant("nobody", "nobody")
    workload = IdleConnections("idle-connection", "", job="echo", number=200)
    said = []
    ours, other, failed = measuring.measure(
        workload, NAMES["corolib_streams"], [NAMES["epoll"], nobody], Plan(31), said.append
    )
    assert said == ["idle-connection: 1 of 1"]
    assert len(other.fair.ratios) == 1
    assert ours.fair.medians["python"] > 1000 > other.fair.medians["python"]
    assert not other.fair.wide
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


MEDIANS = {"cost": 1e-5, "per_second": 1e5, "load_busy": 0.2, "server_busy": 0.9, "faults": 2.0}


def figures(**changes):
    return {"medians": MEDIANS, "ratio": None, "interval": None, "wide": False, **changes}


def workload(failed="", shipped=None, **changes):
    ours = {"contestant": "corolib_streams", "title": "corolib streams", "failed": ""}
    ours |= {"fair": figures(), "shipped": shipped}
    fair = figures(ratio=0.5, **changes)
    other = ours | {"contestant": "x", "title": "a <library> & more", "fair": fair}
    kind = {"name": "echo-1k-100", "title": "echo", "unit": "message", "kind": "Exchanges"}
    return kind | {"results": [ours, other | {"failed": failed}]}


def test_a_wide_interval_and_a_busy_load_are_marked():
    plain = table.one(workload(interval=(0.49, 0.51)))
    assert "| a <library> & more | 10.00 | 100,000 | 0.50 | 0.49 to 0.51 |" in plain
    assert "as shipped" not in plain
    assert table.WIDE in table.one(workload(interval=(0.4, 0.6), wide=True))
    slow = MEDIANS | {"load_busy": 1.0}
    assert f"100,000{table.BOUND}" in table.one(workload(medians=slow))
    [failure] = table.failures(workload(failed="it is gone"))
    assert failure.endswith("more failed: it is gone")


def test_what_is_measured_as_shipped_comes_after_what_is_fair():
    shipped = figures(ratio=0.25, medians=MEDIANS | {"cost": 2e-5})
    text = table.one(workload(shipped=shipped, interval=(0.4, 0.6)))
    check_markdown(text + "\n")
    assert "| 0.50 | 0.40 to 0.60 | 20.00 | 0.25 | 2.00 |" in text
    heads = text.splitlines()[0]
    assert heads.index("95 % interval") < heads.index("as shipped")


def test_a_chart_is_well_formed_whatever_the_names_are():
    check_svg(chart.svg(workload(), "<about> & so"), bars=2)
    check_svg(chart.svg(workload(failed="it is gone"), ""), bars=1)


def test_the_list_names_workloads_and_contestants():
    status, out, err = bench("--list")
    assert (status, err) == (0, "")
    for each in [*WORKLOADS, *SERVERS, *TASKS]:
        assert re.search(rf"^  {re.escape(each.name)} +\S", out, re.MULTILINE), each.name
    for each in SERVERS:
        assert (f"{each.title}: left out, {each.missing} is" in out) == bool(each.missing)


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


@pytest.mark.skipif(not FULL, reason="the full sweep counts them: valgrind takes its time")
@pytest.mark.parametrize("name", exact.OURS)
def test_our_own_programs_take_what_is_recorded(name):
    """A change that makes them slower is seen here; one that makes them faster records anew:

    python3 -m demos.bench --record exact
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

    def count(name, workload, rounds, root=None):
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


def test_our_own_programs_are_counted_at_paths_of_several_lengths(monkeypatch):
    """Three copies, of which the middle count is taken; who is no part of corolib has one."""
    roots = []

    def count(name, workload, rounds, root):
        assert (root / "corolib" / "__init__.py").exists()
        assert (root / "demos" / "bench" / "serve.py").exists()
        roots.append(root)
        return rounds * {0: 5, 1: 90, 2: 6}[list(dict.fromkeys(roots)).index(root)]

    monkeypatch.setattr(exact, "compile_modules", lambda *args: None)
    monkeypatch.setattr(exact, "counted_instructions", count)
    monkeypatch.setattr(exact, "counted_calls", lambda *args: {"brk": 5})
    assert exact.figures("corolib_traps")["instructions"] == 6
    copies = set(roots)
    assert len({len(str(each)) for each in copies}) == 3
    assert not any(each.exists() for each in copies)
    roots.clear()
    assert exact.figures("epoll")["instructions"] == 5
    assert set(roots) == {processes.ROOT}


def test_figures_are_recorded_for_all_of_our_programs():
    assert list(exact.recorded()["programs"]) == list(exact.OURS)
    assert exact.build().split()[0].count(".") == 2


def test_without_the_tools_or_the_build_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(exact, "missing_tool", lambda: "valgrind")
    assert exact.reason_not_to_compare() == "valgrind is not installed"
    monkeypatch.setattr(exact, "missing_tool", lambda: "")
    monkeypatch.setattr(exact, "build", lambda: "another one")
    assert "this is another one" in exact.reason_not_to_compare()


# What the guide shows -----------------------------------------------------------------------------


def test_the_guide_shows_what_is_recorded():
    """Nobody writes a figure there by hand: python3 -m demos.bench --record text"""
    text = published.PAGE.read_text("utf-8")
    recorded = exact.recorded()
    assert re.findall(r"<!-- recorded: (\w+) -->", text) == list(published.TABLES)
    assert published.shown(text, recorded) == text
    assert published.CHART.read_text() == published.picture(recorded)
    for name in published.TABLES.keys() - {"where"}:
        check_markdown(published.TABLES[name](recorded) + "\n")


def test_a_figure_that_changes_is_changed_in_the_guide():
    recorded = exact.recorded()
    found = published.workload(recorded["clock"], "echo-1k-100")["results"]
    other = next(each for each in found if each["contestant"] == "asyncio_streams")
    other["fair"] |= {"ratio": 77.123, "wide": False}
    other["shipped"] |= {"ratio": 88.123, "wide": True}
    text = published.shown("a\n<!-- recorded: servers -->\n1\n<!-- end -->\nb\n", recorded)
    assert text.startswith("a\n<!-- recorded: servers -->\n| ")
    assert text.endswith(" |\n<!-- end -->\nb\n")
    assert "| 77.12 (88.12†) |" in text
    assert "| 77.12 |" in published.echo(recorded)


def test_each_figure_of_the_guide_is_measured():
    matches = published.matches()
    assert [each[0].name for each in matches] == list(published.SHOWN)
    shown = {
        name: [e.name for e in others] for (name, others) in ((w.name, o) for w, _, o in matches)
    }
    assert {"epoll", "selectors", "asyncio_streams"} <= set(shown["echo-1k-100"])
    assert "corolib_writewait" not in shown["echo-1k-100"]  # only if asked for
    assert shown["udp"][:2] == ["epoll", "asyncio_protocol"]
    assert "asyncio_executor" in shown["thread"]


def test_recording_keeps_what_is_not_measured_anew(monkeypatch, tmp_path):
    page = tmp_path / "speed.md"
    page.write_text("<!-- recorded: counted -->\n<!-- end -->\ntext\n<!-- end -->\n")
    record = tmp_path / "recorded.json"
    peers = {"of": "other versions", "programs": {}}
    record.write_text(json.dumps(exact.recorded() | {"peers": peers}))
    measured = []
    found = {"instructions": 1234.5, "calls": {"sendto": 1.0}}
    monkeypatch.setattr(published, "PAGE", page)
    monkeypatch.setattr(published, "CHART", tmp_path / "echo.svg")
    monkeypatch.setattr(exact, "RECORDED", record)
    monkeypatch.setattr(exact, "figures", lambda name: measured.append(name) or found)
    clock = exact.recorded()["clock"]
    monkeypatch.setattr(published, "report", lambda *args: clock | {"minutes": 12.3456})
    published.record_exact(lambda text: None)
    assert measured == list(exact.OURS)
    assert exact.recorded()["programs"] == dict.fromkeys(exact.OURS, found)
    assert exact.recorded()["clock"] == clock
    assert "|" not in page.read_text()
    measured.clear()
    published.record(Plan(), lambda text: None)
    published.record(Plan(), lambda text: None)  # nothing has changed: the peers are kept
    assert measured == [*exact.OURS, *published.COUNTED, *exact.OURS]
    assert exact.recorded()["clock"]["minutes"] == 12.35
    newer = exact.recorded()["newer"]
    published.record_newer(Plan(), lambda text: None)
    assert exact.recorded()["newer"] == exact.recorded()["clock"] != newer
    assert set(exact.recorded()) == {"build", "programs", "peers", "clock", "newer"}
    assert "| **corolib streams** | 1 234 | 1.0 |" in page.read_text()
    assert page.read_text().endswith(" |\n<!-- end -->\ntext\n<!-- end -->\n")
    assert (tmp_path / "echo.svg").exists()


def test_recorded_numbers_have_four_digits():
    assert published.rounded({"a": [1.23456, 7], "b": (123456.7, "x", None, True)}) == {
        "a": [1.235, 7],
        "b": [123500.0, "x", None, True],
    }


def test_a_program_is_compiled_once(tmp_path, monkeypatch):
    if compiler.compiler() is None:
        pytest.skip("there is no C compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "one.c"
    source.write_text("int main(void) { return NUMBER; }\n")
    made = compiler.compiled(source, "-DNUMBER=1")
    assert compiler.compiled(source, "-DNUMBER=1") == made
    assert compiler.compiled(source, "-DNUMBER=2") not in (made, None)
    assert compiler.compiled(source, "-DNUMBER=)") is None  # as without a library that it needs
    monkeypatch.setattr(compiler, "compiler", lambda: None)
    assert compiler.compiled(source, "-DNUMBER=1") is None
