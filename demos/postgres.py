"""A job queue in PostgreSQL: two workers, and nothing is lost when one of them is killed.

    $ python3 -m demos.postgres --conninfo 'host=/run/postgresql user=me dbname=me'
    20 jobs; worker a has process 4711, worker b has 4712
    b has done 1: job 1
    a has done 1: job 2
    ...
    worker a is killed in the middle of a job
    ...
    all 20 jobs are done, each once: 2 by a, 18 by b

The queue is a table. A worker takes a job with `FOR UPDATE SKIP LOCKED`: the row is locked, and
the other one passes it over. It does the job, and marks it as done in the same transaction. When a
worker dies, the server notices, and rolls its transaction back: the row is free again, and the
other one takes it. So a job is done once, as far as it is work in this database; what it does
elsewhere may have been done by the one that died, too.

Who puts jobs in says so with NOTIFY, and a worker that finds none waits for that with
`conn.notification()`. Nobody notifies of a job that comes back from the dead. So each worker looks
again after a second, too.

`--worker NAME` is one worker alone: start as many as you like, on as many machines. The connection
is made by `corolib.interop.psycopg`; without `--conninfo` it is what the environment says (PGHOST).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from subprocess import PIPE
from typing import Any

from corolib import (
    Coro,
    Process,
    Sleep,
    TaskGroup,
    move_on_after,
    open_process,
    run,
    spawn,
    started,
)
from demos.ending import end_by_signal
from demos.extra import extra
from demos.start import at_least, start

with extra("postgres"):
    from psycopg import Error

    from corolib.interop.psycopg import Connection, Pool

LOOK_AGAIN = 1.0  # seconds

TABLE = "create table corolib_jobs (id int primary key, done_by text, times int default 0)"
TAKE = (
    "select id from corolib_jobs where done_by is null order by id limit 1 for update skip locked"
)
DONE = "update corolib_jobs set done_by = %s, times = times + 1 where id = %s"


def do_one(conn: Connection[Any], name: str, seconds: float) -> Coro[int | None]:
    """Take a job, do it, and mark it; return its number, None if there is none."""
    cursor = yield from conn.execute(TAKE)
    row = yield from cursor.fetchone()
    if row is None:
        return None
    yield Sleep(seconds)  # the work
    yield from conn.execute(DONE, (name, row[0]))
    return int(row[0])


def work(options: argparse.Namespace) -> Coro[None]:
    """Do jobs for ever."""
    listener = yield from Connection.connect(options.conninfo, autocommit=True)
    yield from listener.execute("listen corolib_jobs")
    with Pool(options.conninfo, size=1) as pool:
        while True:
            job = yield from pool.run(do_one, options.worker, options.seconds)
            if job is not None:
                print(job, flush=True)
                continue
            with move_on_after(LOOK_AGAIN):
                yield from listener.notification()


def keep_worker(name: str, victim: bool, options: argparse.Namespace) -> Coro[None]:
    """Run a worker as a program of its own, and say what it has done.

    The victim is killed when it has done enough.
    """
    args = ["--worker", name, "--seconds", str(options.seconds), "--conninfo", options.conninfo]
    command = [sys.executable, "-m", "demos.postgres", *args]
    with (yield from open_process(command, stdout=PIPE, group=True)) as worker:
        assert worker.stdout is not None
        started(worker)
        count = 0
        while line := (yield from worker.stdout.readline()):
            count += 1
            print(f"{name} has done {count}: job {int(line)}", flush=True)
            if victim and count == max(1, options.jobs // 8):
                yield Sleep(options.seconds / 2)
                worker.kill()
                print(f"worker {name} is killed in the middle of a job", flush=True)


def is_over(conn: Connection[Any]) -> Coro[bool]:
    cursor = yield from conn.execute("select count(*) from corolib_jobs where done_by is null")
    row = yield from cursor.fetchone()
    return row == (0,)


def show(options: argparse.Namespace) -> Coro[None]:
    """Put jobs in, have two workers do them, kill one, and look whether each was done once."""
    spawn(end_by_signal, daemon=True)
    conn = yield from Connection.connect(options.conninfo, autocommit=True)
    yield from conn.execute("drop table if exists corolib_jobs")
    yield from conn.execute(TABLE)
    with TaskGroup() as group:
        a: Process = yield from group.start(keep_worker, "a", True, options)
        b: Process = yield from group.start(keep_worker, "b", False, options)
        pids = f"worker a has process {a.pid}, worker b has {b.pid}"
        print(f"{options.jobs} jobs; {pids}", flush=True)
        numbers = "insert into corolib_jobs select generate_series(1, %s)"
        yield from conn.execute(numbers, (options.jobs,))
        yield from conn.execute("notify corolib_jobs")
        while not (yield from is_over(conn)):
            if b.returncode is not None:
                raise SystemExit("worker b is gone, too: what is left waits for another one")
            yield Sleep(0.1)
        group.cancel("all jobs are done")
    cursor = yield from conn.execute("select done_by, times from corolib_jobs")
    rows = yield from cursor.fetchall()
    yield from conn.execute("drop table corolib_jobs")
    yield from conn.close()
    done = Counter(name for name, _ in rows)
    once = "each once" if {times for _, times in rows} == {1} else "NOT each once"
    by = ", ".join(f"{count} by {name}" for name, count in sorted(done.items()))
    print(f"all {options.jobs} jobs are done, {once}: {by}", flush=True)


def main(options: argparse.Namespace) -> None:
    try:
        run(work if options.worker else show, options)
    except Error as exc:
        sys.exit(f"PostgreSQL: {exc}")


if __name__ == "__main__":
    start(
        main,
        __doc__,
        arguments={
            "--conninfo": {"default": "", "help": "how to reach PostgreSQL"},
            "--jobs": {"type": at_least(2, 10_000), "default": 20, "help": "default: %(default)s"},
            "--seconds": {
                "type": at_least(0.0, 3600.0),
                "default": 0.2,
                "help": "that a job takes",
            },
            "--worker": {"metavar": "NAME", "help": "be one worker, and nothing else"},
        },
    )
