"""The job queue in PostgreSQL: a worker is killed, and nothing is lost."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.helpers.programs import PATIENCE, children_of, outcome, start, without_slow_steps

pytest.importorskip("psycopg", reason="psycopg does not run here", exc_type=ImportError)


def test_each_job_is_done_once_though_a_worker_is_killed(postgres):
    env = {**os.environ, **postgres.environment}
    status, out, err = outcome("demos.postgres", "--jobs", "20", "--seconds", "0.05", env=env)
    assert (status, err) == (0, "")
    assert "worker a is killed in the middle of a job" in out
    last = re.fullmatch(
        r"all 20 jobs are done, each once: (\d+) by a, (\d+) by b", out.splitlines()[-1]
    )
    assert last, out
    assert int(last[1]) + int(last[2]) == 20
    assert int(last[2]) >= 1  # that in the middle of which the other one was killed


def test_where_no_worker_is_left_it_says_so(postgres):
    env = {**os.environ, **postgres.environment}
    with start("demos.postgres", "--jobs", "1000", env=env) as program:
        line = program.stdout.readline()
        os.kill(int(re.search(r"b has (\d+)", line)[1]), signal.SIGKILL)
        _, err = program.communicate(timeout=PATIENCE)
    assert (program.returncode, without_slow_steps(err)) == (
        1,
        "worker b is gone, too: what is left waits for another one\n",
    )


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_its_workers_end_with_it(postgres, signum):
    env = {**os.environ, **postgres.environment}
    with start("demos.postgres", "--jobs", "1000", env=env) as program:
        program.stdout.readline()
        workers = children_of(program.pid)
        program.send_signal(signum)
        _, err = program.communicate(timeout=PATIENCE)
    assert len(workers) == 2
    assert (program.returncode, without_slow_steps(err)) == (128 + signum, "")
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_no_server_is_one_line():
    status, out, err = outcome("demos.postgres", "--conninfo", "host=/nonexistent")
    assert (status, out) == (1, "")
    assert err.startswith("PostgreSQL: connection is bad")
