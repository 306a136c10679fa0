"""The load tool: what it counts, what it finds wrong, and what it prints."""

import json
import math
import os
import pty
import random
import re
import signal
import socket
import threading
from argparse import Namespace

import pytest

from corolib import Listener, Sleep, Stream, run
from demos.hammer import BOUNDS, Hammer, histogram, human, percentile, report
from tests.helpers.driving import echo
from tests.helpers.inside import buffer_of
from tests.helpers.programs import PATIENCE, Program, outcome, quiet, serving, start
from tests.helpers.sockets import reset


def hammer(server, begun=lambda tool: None, room=None, **options):
    """Run the tool against `server` in the same scheduler; return what it has found.

    `begun(tool)` is called before; `room` is for how many bytes the server's kernel has room.
    """
    settings = {"connections": 3, "messages": 100, "size": 64, "pipeline": 1, "timeout": 60.0}

    def main():
        sock = socket.create_server(("127.0.0.1", 0))
        if room is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        with Listener([sock]) as listener:
            serving = listener.serve(server, grace=0)
            host, port = listener.addresses[0]
            tool = Hammer(Namespace(to_host=host, to_port=port, **{**settings, **options}))
            begun(tool)
            yield from tool.run()
            yield from serving.stop()
            return tool.numbers()

    return run(main)


class TestCounts:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"size": 1},
            {"size": 2, "pipeline": 7},
            {"connections": 1},
            {"connections": 30, "messages": 20},  # ten of them have nothing to say
            {"pipeline": 16},
            {"size": 300_000, "messages": 20},  # more than the kernel's buffers hold
            {"size": 5000, "pipeline": 1000},
        ],
    )
    def test_what_was_sent_is_what_the_server_got_and_what_came_back(self, options):
        got = []

        def server(stream):
            mine = bytearray()
            got.append(mine)
            while data := (yield from stream.recv(65536)):
                mine.extend(data)
                yield from stream.sendall(data)

        found = hammer(server, **options)
        size, messages = found["size"], found["messages"]
        assert found["came_back"] == messages
        assert found["errors"] == {}
        assert sum(count for _, count in found["histogram"]) == messages
        assert len(got) == found["connections"]
        lines = b"".join(got).splitlines(keepends=True)
        assert len(lines) == messages and {len(line) for line in lines} == {size}
        assert len(set(lines)) == (messages if size > 4 else 10 ** (size - 1))
        assert found["per_second"] == pytest.approx(messages / found["seconds"])
        latency = found["latency"]
        assert list(latency) == ["p50", "p90", "p99", "p99.9", "max"]
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]

    def test_so_many_are_under_way_and_no_more(self):
        most = 0

        def server(stream):
            nonlocal most
            while first := (yield from stream.readline()):
                batch = [first]
                while len(batch) < 5:
                    batch.append((yield from stream.readline()))
                most = max(most, len(batch))
                assert not buffer_of(stream)  # the sixth is not sent before the fifth is back
                yield from stream.sendall(batch)

        found = hammer(server, pipeline=5, connections=2)
        assert (found["came_back"], found["errors"], most) == (100, {}, 5)

    @pytest.mark.parametrize("change", [bytes.upper, lambda data: data + b"!", bytes.lower])
    def test_a_wrong_echo_is_found(self, change):
        def server(stream):
            while data := (yield from stream.recv(65536)):
                yield from stream.sendall(change(data))

        found = hammer(server, connections=4)
        assert found["came_back"] == 0
        assert found["errors"] == {"a wrong answer": 4}

    def test_answers_that_are_mixed_up_are_found(self):
        def server(stream):
            yield from stream.readline()
            kept.append(stream)
            if len(kept) == 2:
                for one in kept:
                    yield from one.sendall(b"0 " + b"x" * 61 + b"\n")
            yield from stream.recv(1)

        kept: list[Stream] = []
        found = hammer(server, connections=2)
        assert found["errors"] == {"a wrong answer": 2}

    @pytest.mark.parametrize("how", [Stream.close, lambda stream: None])
    def test_a_server_that_dies_in_the_middle_is_counted(self, how):
        def server(stream):
            for _ in range(10):
                yield from stream.sendall((yield from stream.readline()))
            how(stream)

        found = hammer(server, connections=5, messages=1000)
        assert found["came_back"] == 50
        assert sum(found["errors"].values()) == 5
        assert set(found["errors"]) <= {"closed by the server", "Connection reset by peer"}

    def test_one_client_that_fails_stops_no_other(self):
        seen = []

        def server(stream):
            seen.append(stream)
            if len(seen) == 1:
                return
            yield from echo(stream)

        found = hammer(server, connections=4)
        assert found["came_back"] == 75
        assert sum(found["errors"].values()) == 1

    def test_a_server_that_is_silent_is_counted(self):
        def server(stream):
            while (yield from stream.recv(65536)):
                pass

        found = hammer(server, timeout=0.05)
        assert found["came_back"] == 0
        assert found["errors"] == {"no answer within 0.05 s": 3}
        assert (found["latency"], found["histogram"]) == ({}, [])

    def test_a_server_that_reads_all_before_it_answers_is_no_error(self):
        def server(stream):
            data = yield from stream.readexactly(2_000_000)
            yield from stream.sendall(data)

        found = hammer(server, size=1_000_000, pipeline=2, connections=1, messages=2)
        assert (found["came_back"], found["errors"]) == (2, {})

    def test_a_server_that_reads_on_only_when_its_answer_was_read_is_no_error(self):
        tools, size, count = [], 8000, 1000  # far more than the kernel takes while nobody reads

        def server(stream):
            yield from stream.sendall((yield from stream.readexactly(size)))
            while not tools[0].latencies:
                yield Sleep(0.001)
            yield from echo(stream)

        options = {"size": size, "pipeline": count, "messages": count, "connections": 1}
        found = hammer(server, tools.append, room=4096, **options)
        assert (found["came_back"], found["errors"]) == (count, {})


class TestNumbers:
    def test_percentiles_of_a_known_distribution(self):
        thousand = list(range(1, 1001))
        found = {p: percentile(thousand, p) for p in (50, 90, 99, 99.9, 100)}
        assert found == {50: 500, 90: 900, 99: 990, 99.9: 999, 100: 1000}
        ten = list(range(1, 11))
        assert [percentile(ten, p) for p in (50, 90, 99, 99.9, 100)] == [5, 9, 10, 10, 10]
        assert [percentile([7], p) for p in (0, 50, 100)] == [7, 7, 7]

    def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(self):
        values = sorted(random.Random(1).expovariate(1) for _ in range(777))
        for p in (1, 10, 33.3, 50, 75, 90, 99, 99.9):
            found = percentile(values, p)
            assert sum(v <= found for v in values) >= 777 * p / 100
            assert sum(v < found for v in values) < 777 * p / 100

    def test_the_histogram_counts_each_value_once(self):
        assert histogram([]) == []
        assert histogram([0.0015]) == [(0.002, 1)]
        found = histogram([0.002, 0.0020001, 0.03])
        assert found == [(0.002, 1), (0.005, 1), (0.01, 0), (0.02, 0), (0.05, 1)]
        values = sorted(10 ** random.Random(1).uniform(-6, 2) for _ in range(1000))
        found = histogram(values)
        assert sum(count for _, count in found) == 1000
        assert [bound for bound, _ in found] == sorted(bound for bound, _ in found)
        assert histogram([1e-9, 1e8])[0] == (1e-6, 1)
        assert all(math.isfinite(bound) for bound in BOUNDS)

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.0000005, "0.5 us"),
            (0.000999, "999 us"),
            (0.001, "1 ms"),
            (0.0123456, "12.3 ms"),
            (0.9999, "1000 ms"),
            (1, "1 s"),
            (1234, "1230 s"),
        ],
    )
    def test_durations_for_people(self, seconds, text):
        assert human(seconds) == text

    def test_the_report(self):
        found = {
            "connections": 2,
            "messages": 4,
            "size": 500,
            "pipeline": 1,
            "came_back": 3,
            "seconds": 0.5,
            "per_second": 6.0,
            "latency": {"p50": 0.001, "max": 0.1},
            "histogram": [(0.001, 2), (0.002, 0), (0.005, 1)],
            "errors": {"a wrong answer": 1},
        }
        assert report(found).splitlines() == [
            "3 of 4 messages of 500 bytes came back, on 2 connections, 1 at a time",
            "0.500 s: 6 messages per second, 0.00 MB per second each way",
            "p50 1 ms, max 100 ms",
            f"  up to   1 ms  {'#' * 50}  2",
            f"  up to   2 ms  {' ' * 50}  0",
            f"  up to   5 ms  {'#' * 25 + ' ' * 25}  1",
            "failed: a wrong answer (1 times)",
        ]


class TestProgram:
    def test_against_the_echo_demo(self):
        with Program("demos.echo") as program:
            address = (program.host, str(program.port))
            status, out, err = outcome("demos.hammer", *address, "-c", "20", "-n", "1000", "--json")
            assert (status, err) == (0, "")
            found = json.loads(out)
            assert (found["came_back"], found["connections"], found["errors"]) == (1000, 20, {})
            status, out, err = outcome("demos.hammer", *address, "-n=64", "--pipeline=8")
            assert (status, err) == (0, "")
            first, second, third, *bars = out.splitlines()
            assert first.startswith("64 of 64 messages of 64 bytes came back, on 50 connections, 8")
            assert "messages per second" in second and third.startswith("p50 ")
            assert sum(int(bar.split()[-1]) for bar in bars) == 64

    def test_on_a_terminal_it_shows_how_far_it_is(self):
        with Program("demos.echo") as program:
            ours, theirs = pty.openpty()
            with open(ours, "rb", buffering=0) as terminal:
                args = (program.host, str(program.port), "-n=10", "-c=1")
                process = start("demos.hammer", *args, stderr=theirs)
                with process:
                    out, _ = process.communicate(timeout=PATIENCE)
                shown = os.read(ours, 10000)
                os.close(theirs)
                assert terminal
        assert process.returncode == 0 and "10 of 10" in out
        assert shown.startswith(b"\r\x1b[K0 of 10 messages, 0 errors")
        assert shown.endswith(b"\r\x1b[K")

    def test_nobody_there_gets_exit_status_1(self, reserved):
        status, out, err = outcome("demos.hammer", "127.0.0.1", str(reserved), "-c=3")
        assert (status, err) == (1, "")
        assert out.splitlines()[0].startswith("0 of 10000 messages of 64 bytes came back")
        assert out.splitlines()[-1] == f"failed: Connection refused: 127.0.0.1:{reserved} (3 times)"

    def test_a_server_that_is_killed_is_no_end_of_the_world(self):
        answers = threading.Semaphore(99)  # one fewer than each of ten clients sends

        def serve(conn):
            while data := conn.recv(64):
                if not answers.acquire(blocking=False):
                    reset(conn)
                    return
                conn.sendall(data)

        with serving(serve) as port:
            status, out, err = outcome(
                "demos.hammer", "127.0.0.1", str(port), "-c=10", "-n=1000", "--json"
            )
        assert status == 1 and err == "", err
        found = json.loads(out)
        assert found["came_back"] == 99
        assert found["errors"] == {"Connection reset by peer": 10}

    def test_ctrl_c_ends_it_quietly(self):
        asked = threading.Event()

        def serve(conn):
            while conn.recv(65536):
                asked.set()

        with serving(serve) as port:
            with start("demos.hammer", "127.0.0.1", str(port), "-c=3") as process:
                assert asked.wait(PATIENCE)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out) == (130, "")
        assert quiet(err), err

    @pytest.mark.parametrize("options", [[], ["127.0.0.1", "7", "-c=0"]])
    def test_a_wrong_option_gets_one_line(self, options):
        status, out, err = outcome("demos.hammer", *options)
        assert (status, out) == (2, "")
        assert re.fullmatch(r"python3 -m demos\.hammer: error: [^\n]+\n", err)
