"""Two workers behind HAProxy, before Redis: one is killed, and one drains."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.helpers.driving import FULL
from tests.helpers.programs import PATIENCE, children_of, outcome, start, without_slow_steps

pytest.importorskip("hiredis")

MISSING = [name for name in ("haproxy", "redis-server") if shutil.which(name) is None]
CLIENTS = 100 if FULL else 8


needs_both = pytest.mark.skipif(bool(MISSING), reason="HAProxy or Redis is not installed")


@needs_both
def test_a_worker_that_dies_is_seen_by_its_clients_alone_and_one_that_drains_by_nobody():
    options = ["--port=0", f"--clients={CLIENTS}", "--settle=0.3"]
    with start("demos.cluster", *options, stdin=subprocess.PIPE) as program:
        try:
            said = "".join(program.stdout.readline() for _ in range(3))
            program.stdin.write("k\nt\nq\n")
            program.stdin.close()
            program.stdin = None
            out, err = program.communicate(timeout=PATIENCE)
        finally:
            program.kill()
    assert (program.returncode, without_slow_steps(err)) == (0, "")
    assert re.search(r"a serves \d+ clients, b serves \d+ clients; \d+ answers in a second", said)
    ends = re.findall(
        r"[ab] is killed: (\d+) clients lost (\d+) questions; .* after ([\d.]+) s at most\n"
        r"meanwhile the other (\d+) clients lost (\d+), and .* after ([\d.]+) s at most",
        out,
    )
    [(its, lost, slowest, others, lost_by_others, _)] = ends
    assert int(its) and int(others), "each has served some"
    assert int(lost) <= int(its)
    assert int(lost_by_others) == 0
    assert re.search(r"[ab] has drained: \d+ clients lost 0 questions;", out)
    if FULL:
        assert float(slowest) < 0.5, out


@needs_both
def test_a_worker_that_others_kill_is_started_again_and_sigterm_leaves_nothing_behind():
    with start("demos.cluster", "--port=0", "--clients=4", "--settle=0.1") as program:
        try:
            pid = re.search(r"a, process (\d+)", program.stdout.readline())[1]
            folder = Path(os.readlink(f"/proc/{pid}/cwd"))
            os.kill(int(pid), signal.SIGKILL)
            while "a is started again" not in program.stdout.readline():
                assert program.poll() is None
            children = children_of(program.pid)
            assert len(children) == 4
            program.terminate()
            _, err = program.communicate(timeout=PATIENCE)
        finally:
            program.kill()
    assert (program.returncode, without_slow_steps(err)) == (143, "")
    assert not folder.exists()
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


@needs_both
@pytest.mark.parametrize("name", ["redis-server", "haproxy"])
def test_without_what_it_needs_the_cluster_ends_and_says_so(name):
    with start("demos.cluster", "--port=0", "--clients=4") as program:
        try:
            program.stdout.readline()
            # Linux names a process a moment later than it says that it has begun.
            while not (found := [p for p, it in children_of(program.pid).items() if it == name]):
                assert program.poll() is None
            os.kill(found[0], signal.SIGKILL)
            _, err = program.communicate(timeout=PATIENCE)
        finally:
            program.kill()
    assert program.returncode == 1
    assert without_slow_steps(err).splitlines()[-1].startswith(f"{name} has ended with status -9:")


def test_what_is_missing_is_said(tmp_path):
    status, out, err = outcome("demos.cluster", "--port=0", env={"PATH": str(tmp_path)})
    assert (status, out) == (1, "")
    assert err.startswith("this demo needs haproxy and redis-server: apt install")
