"""Two workers behind HAProxy, before Redis: one is killed, and one drains."""

import re
import shutil
import subprocess

import pytest

from tests.helpers.driving import FULL
from tests.helpers.programs import PATIENCE, outcome, start, without_slow_steps

pytest.importorskip("hiredis")

MISSING = [name for name in ("haproxy", "redis-server") if shutil.which(name) is None]
CLIENTS = 100 if FULL else 8


@pytest.mark.skipif(bool(MISSING), reason="HAProxy or Redis is not installed")
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


def test_what_is_missing_is_said(tmp_path):
    status, out, err = outcome("demos.cluster", "--port=0", env={"PATH": str(tmp_path)})
    assert (status, out) == (1, "")
    assert err.startswith("this demo needs haproxy and redis-server: apt install")
