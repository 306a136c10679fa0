"""PostgreSQL through psycopg, against a real server in a folder of its own."""

import inspect
import os
import selectors
import socket
import time
from collections import deque

import pytest

from corolib import (
    Scheduler,
    Sleep,
    TaskCancelled,
    TaskGroup,
    gather,
    move_on_after,
    run,
    spawn,
    timeout,
)
from corolib.testing import virtual_time
from tests.helpers.garbage import garbage_of

psycopg = pytest.importorskip(
    "psycopg", reason="psycopg does not run here (extra `postgres`)", exc_type=ImportError
)

from corolib.interop.psycopg import Connection, Cursor, Pool, ServerCursor  # noqa: E402

FULL = os.environ.get("COROLIB_SWEEP") == "full"


@pytest.fixture
def server(postgres):
    return postgres


@pytest.fixture
def conninfo(server):
    return server.conninfo


def value_of(conn, query, *params):
    """Return the one value that a query gives."""
    cursor = yield from conn.execute(query, params)
    (value,) = yield from cursor.fetchone()
    return value


def backends(conninfo):
    """Return how many connections the server has beside this one, and how many are not idle."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        query = (
            "select count(*), count(*) filter (where state <> 'idle') from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        return conn.execute(query).fetchone()


def asleep(conninfo, conn=None):
    """Wait until a query stands in `pg_sleep` on the server, that of `conn` or any."""
    pid = None if conn is None else conn.pgconn.backend_pid
    with psycopg.connect(conninfo, autocommit=True) as observer:
        query = "select array_agg(pid) from pg_stat_activity where wait_event = 'PgSleep'"
        while True:
            (found,) = observer.execute(query).fetchone()
            if found and pid in (None, *found):
                return
            yield Sleep(0.005)


def cancelled_while_asleep(conn, query, conninfo):
    """Wait until a query that sleeps on the server was cancelled and is gone."""
    task = spawn(conn.execute(query))
    yield from asleep(conninfo, conn)
    yield from task.stop()
    assert task.cancelled


def settles(conninfo, expected=(0, 0)):
    """Wait until the server has noticed which connections are closed, and there are as many."""
    for _ in range(1000):
        if backends(conninfo) == expected:
            return True
        time.sleep(0.005)
    return False


def test_generators_use_a_connection_with_yield_from(conninfo):
    def main():
        conn = yield from Connection.connect(conninfo)
        assert (yield from value_of(conn, "select %s::int + 1", 41)) == 42
        yield from conn.execute("create temp table t (i int, name text)")
        cursor = conn.cursor()
        yield from cursor.executemany("insert into t values (%s, %s)", [(1, "a"), (2, "b")])
        yield from conn.commit()
        yield from cursor.execute("select * from t order by i")
        assert (yield from cursor.fetchmany(1)) == [(1, "a")]
        assert (yield from cursor.fetchall()) == [(2, "b")]
        yield from cursor.scroll(0, "absolute")
        assert (yield from cursor.fetchone()) == (1, "a")
        yield from cursor.close()
        named = conn.cursor("on_the_server")
        yield from named.execute("select i from t order by i")
        assert (yield from named.fetchone()) == (1,)
        assert (yield from named.fetchmany(5)) == [(2,)]
        yield from named.scroll(0, "absolute")
        assert (yield from named.fetchall()) == [(1,), (2,)]
        yield from named.close()
        yield from conn.rollback()
        yield from conn.set_read_only(True)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            yield from conn.execute("create table no (i int)")
        yield from conn.rollback()
        yield from conn.set_autocommit(True)
        yield from conn.execute("select 1")
        assert conn.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        yield from conn.close()
        yield from conn.close()
        with pytest.raises(psycopg.OperationalError):
            yield from conn.execute("select 1")

    run(main)


def test_coroutines_use_blocks(conninfo):
    async def main():
        async with await Connection.connect(conninfo) as conn:
            await conn.execute("create temp table t (i int)")
            await conn.commit()
            with pytest.raises(psycopg.errors.DivisionByZero):
                async with conn.transaction():
                    await conn.execute("insert into t values (1)")
                    await conn.execute("select 1 / 0")
            async with conn.transaction(), conn.cursor() as cursor:
                await cursor.execute("insert into t values (2)")
            async with conn.cursor() as cursor:
                await cursor.execute("select * from t")
                rows = [row async for row in cursor]
            async with conn.pipeline() as pipeline:
                cursors = [await conn.execute("select %s::int", (i,)) for i in range(50)]
                await pipeline.sync()
                piped = [(await cursor.fetchone())[0] for cursor in cursors]
            async with conn.cursor() as cursor:
                streamed = [row async for row in cursor.stream("select generate_series(1, 3)")]
        assert conn.closed
        return rows, streamed, piped

    rows, streamed, piped = run(main)
    assert rows == [(2,)]
    assert streamed == [(1,), (2,), (3,)]
    assert piped == list(range(50))


def test_rows_are_copied_both_ways_in_flat_memory(conninfo):
    count = 1_000_000 if FULL else 20_000

    async def main():
        resident = []
        async with await Connection.connect(conninfo) as conn:
            await conn.execute("create temp table t (i int)")
            async with conn.cursor() as cursor:
                async with cursor.copy("copy t from stdin") as copy:
                    for i in range(count):
                        await copy.write_row((i,))
                        if i in (count // 10, count - 1):
                            resident.append(pages())
                await cursor.execute("select count(*), sum(i) from t")
                assert await cursor.fetchone() == (count, count * (count - 1) // 2)
                got = total = 0
                async with cursor.copy("copy t to stdout") as copy:
                    copy.set_types(["int4"])
                    async for row in copy.rows():
                        got += 1
                        total += row[0]
                        if got in (count // 10, count):
                            resident.append(pages())
        assert (got, total) == (count, count * (count - 1) // 2)
        return resident

    early_in, late_in, early_out, late_out = run(main)
    assert late_in - early_in < 4096  # pages of 4 KB: 16 MB, for rows of which all have 30 MB
    assert late_out - early_out < 4096


def pages():
    """Return how many pages of memory this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def test_others_go_on_while_rows_are_copied(conninfo):
    """COPY seldom waits: without giving way it would hold the loop until its end."""

    async def copy(conn):
        async with conn.cursor() as cursor, cursor.copy("copy t from stdin") as copy:
            for _ in range(20_000):  # two megabytes, in 60 pieces
                await copy.write_row(("x" * 100,))
        await conn.commit()

    def main():
        turns = 0
        conn = yield from Connection.connect(conninfo)
        yield from conn.execute("create temp table t (name text)")
        task = spawn(copy, conn)
        while not task.done:
            turns += 1
            yield
        yield from task
        yield from conn.close()
        return turns

    assert run(main) > 10


def test_ten_queries_on_ten_connections_wait_at_the_same_time(conninfo):
    """For a lock, until another connection, which has it, sees that all of them wait."""

    def ask(conn, text, *values):
        cursor = yield from conn.execute(text, values)
        return (yield from cursor.fetchone())[0]

    def query(number):
        conn = yield from Connection.connect(conninfo, autocommit=True)
        yield from conn.execute("select pg_advisory_lock_shared(1)")
        number = yield from ask(conn, "select %s::int", number)
        yield from conn.close()
        return number

    def main():
        conn = yield from Connection.connect(conninfo, autocommit=True)
        yield from conn.execute("select pg_advisory_lock(1)")
        tasks = [spawn(query, n) for n in range(10)]
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        while (yield from ask(conn, waiting)) < 10:
            assert not any(task.done for task in tasks)
        yield from conn.close()
        assert (yield from gather(*tasks)) == list(range(10))

    run(main)


def test_notifications_come_as_values_also_beside_queries(conninfo):
    def main():
        listener = yield from Connection.connect(conninfo, autocommit=True)
        sender = yield from Connection.connect(conninfo, autocommit=True)
        yield from listener.execute("listen news")
        with move_on_after(0.01) as scope:
            yield from listener.notification()
        assert scope.expired
        yield from sender.execute("notify news, 'one'")
        yield from sender.execute("notify news, 'two'")
        yield from listener.execute("select 1")  # brings them along
        yield from sender.execute("notify news, 'three'")
        got = []
        for _ in range(3):
            notify = yield from listener.notification()
            got.append((notify.channel, notify.payload))
        yield from listener.close()
        yield from sender.close()
        return got

    assert run(main) == [("news", "one"), ("news", "two"), ("news", "three")]


def test_notifications_that_came_before_or_with_another_query_are_not_missed(conninfo):
    def main():
        conn = yield from Connection.connect(conninfo, autocommit=True)
        yield from conn.execute("listen news")
        yield from conn.execute("notify news, 'early'")
        with timeout(30):
            assert (yield from conn.notification()).payload == "early"
            query = spawn(conn.execute("select pg_notify('news', 'beside')"))
            yield
            assert (yield from conn.notification()).payload == "beside"
        yield from query
        yield from conn.close()

    run(main)


def test_a_connection_that_was_left_in_the_middle_is_not_lent_again(conninfo):
    async def leaves(conn):
        async for _ in conn.cursor().stream("select generate_series(1, 100000)"):
            break
        return "left"

    def changes(conn):
        yield from conn.set_autocommit(True)

    def keeps(conn):
        kept.append(conn.cursor())
        yield

    def one(conn):
        assert conn.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert not conn.autocommit
        return (yield from value_of(conn, "select 1"))

    def main():
        with Pool(conninfo, size=1) as pool, timeout(30):
            assert (yield from pool.run(leaves)) == "left"
            assert (yield from pool.run(one)) == 1
            yield from pool.run(changes)
            assert (yield from pool.run(one)) == 1
            yield from pool.run(keeps)
            yield from kept[0].execute("select 1")  # it begins a transaction
            assert (yield from pool.run(one)) == 1

    kept = []
    with pytest.raises(ValueError, match="lends is a transaction"):
        Pool(conninfo, autocommit=True)
    run(main)


def test_a_stream_of_notifications_has_a_timeout(conninfo):
    async def main():
        async with await Connection.connect(conninfo, autocommit=True) as conn:
            await conn.execute("listen news")
            await conn.execute("notify news, 'x'")
            return [notify.payload async for notify in conn.notifies(timeout=0.05)]

    assert run(main) == ["x"]


def test_a_cancelled_wait_cancels_the_query_on_the_server(conninfo):
    def main():
        conn = yield from Connection.connect(conninfo)
        yield from cancelled_while_asleep(conn, "select pg_sleep(60)", conninfo)
        assert conn.pgconn.transaction_status == psycopg.pq.TransactionStatus.INERROR
        yield from conn.rollback()
        assert (yield from value_of(conn, "select 7")) == 7
        assert settles(conninfo, (1, 1))  # in its transaction, and nothing else is active
        yield from conn.close()

    run(main)


def test_where_the_server_does_not_hear_the_cancel_the_connection_is_closed(conninfo, caplog):
    class Deaf(Connection):
        def cancel_safe(self, **options):
            return super().cancel_safe(timeout=0)

    def main():
        conn = yield from Deaf.connect(conninfo)
        yield from cancelled_while_asleep(conn, "select pg_sleep(60)", conninfo)
        assert conn.closed
        with pytest.raises(psycopg.OperationalError, match="closed"):
            yield from conn.execute("select 1")

    run(main)
    assert "could not be cancelled" in caplog.text


STUBBORN = (  # however often it is cancelled
    "do $$ begin loop begin perform pg_sleep(60); exception when query_canceled then null; "
    "end; end loop; end $$"
)


def end_all(conninfo):
    """End all connections but this one."""
    with psycopg.connect(conninfo) as conn:
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )


def test_a_query_that_goes_on_after_its_cancel_closes_the_connection(conninfo, monkeypatch, caplog):
    monkeypatch.setattr("corolib.interop.psycopg.CANCEL", 0.1)

    def main():
        conn = yield from Connection.connect(conninfo, autocommit=True)
        yield from cancelled_while_asleep(conn, STUBBORN, conninfo)
        assert conn.closed
        yield from conn.cancel_safe()  # of a closed one: nothing
        assert not (yield from spawn(conn.cancel_safe()))

    run(main, grace=30)
    assert "did not end" in caplog.text
    end_all(conninfo)


def test_an_old_client_library_is_told_to_cancel_in_a_thread(conninfo, monkeypatch):
    monkeypatch.setattr(psycopg.capabilities, "has_cancel_safe", lambda: False)

    def main():
        conn = yield from Connection.connect(conninfo, autocommit=True)
        yield from cancelled_while_asleep(conn, "select pg_sleep(60)", conninfo)
        assert (yield from value_of(conn, "select 7")) == 7
        yield from conn.close()

    run(main)


def test_a_wait_is_resumed_after_its_interval_and_ends_at_its_timeout(conninfo):
    def nothing(log):
        while len(log) < 3:
            log.append((yield 1))
        return log

    def main():
        conn = yield from Connection.connect(conninfo)
        assert (yield from conn.wait(nothing([]), interval=0.001)) == [None] * 3
        with pytest.raises(psycopg.Error, match="timeout expired"):
            yield from conn.wait(nothing([]), timeout=0.001)
        yield from conn.close()

    run(main)


def test_clean_up_that_takes_longer_than_the_grace_closes_the_connection(conninfo):
    def main():
        conn = yield from Connection.connect(conninfo)
        yield from cancelled_while_asleep(conn, STUBBORN, conninfo)
        assert conn.closed

    run(main, grace=0.1)
    end_all(conninfo)


@pytest.mark.parametrize("listens", [False, True])
def test_a_run_that_is_abandoned_leaves_no_connection_half_way(conninfo, listens):
    """One with a query is closed; one that only listens is as it was."""
    conns = []

    def task():
        conn = yield from Connection.connect(conninfo, autocommit=True)
        yield from conn.execute("listen news")
        conns.append(conn)
        if listens:
            yield from conn.notification()
        yield from conn.execute("select pg_sleep(0.5)")

    scheduler = Scheduler()
    task = scheduler.spawn(task)
    while not (conns and task.state == "waiting"):
        scheduler.turn(1)
    scheduler.close()
    assert conns[0].closed is not listens
    conns[0].finish()


def test_several_hosts_are_tried_and_what_each_said_is_told(conninfo, tmp_path):
    def main():
        conn = yield from Connection.connect(conninfo.replace("host=", f"host={tmp_path},"))
        yield from conn.close()
        with pytest.raises(psycopg.OperationalError, match="No such file"):
            yield from Connection.connect(f"host={tmp_path}")
        with pytest.raises(psycopg.OperationalError, match=r"(?s)No such file.*; .*No such file"):
            yield from Connection.connect(f"host={tmp_path},{tmp_path}")

    run(main)


def test_a_server_that_does_not_answer_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def main():
            with pytest.raises(psycopg.errors.ConnectionTimeout, match="no answer in 2 s"):
                yield from Connection.connect(f"host=127.0.0.1 port={port} connect_timeout=1")

        run(main, **virtual_time())


# The pool -----------------------------------------------------------------------------------------


def test_every_method_can_be_waited_for_with_yield_from(conninfo):
    """Also those for transactions in two phases; what is left are blocks and loops."""
    for kind in (Connection, Cursor, ServerCursor):
        names = [name for name in dir(kind) if not name.startswith("_")]
        assert not [name for name in names if inspect.iscoroutinefunction(getattr(kind, name))]

    def main():
        conn = yield from Connection.connect(conninfo)
        yield from conn.execute("create temp table two (x int)")
        yield from conn.commit()
        for end in (conn.tpc_commit, conn.tpc_rollback):
            yield from conn.tpc_begin("one of two")
            yield from conn.execute("insert into two values (1)")
            yield from end()
        assert (yield from value_of(conn, "select count(*) from two")) == 1
        yield from conn.rollback()
        assert (yield from conn.tpc_recover()) == []
        yield from conn.close()

    run(main)


def test_a_connection_that_is_closed_beside_a_query_is_an_error_of_psycopgs(conninfo):
    def main():
        conn = yield from Connection.connect(conninfo)
        task = spawn(conn.execute, "select pg_sleep(100)")
        yield from asleep(conninfo, conn)
        pid = conn.pgconn.backend_pid
        yield from conn.close()
        with psycopg.connect(conninfo) as other:  # the query is left to the server
            other.execute("select pg_terminate_backend(%s)", (pid,))
        with pytest.raises(psycopg.OperationalError, match="was closed while a query ran on it"):
            yield from task
        with pytest.raises(psycopg.OperationalError, match="closed"):
            yield from conn.execute("select 1")

    run(main)


def test_what_a_pool_cannot_run_is_told_by_the_name_of_the_call(conninfo):
    def main():
        with Pool(conninfo, size=1) as pool:
            with pytest.raises(TypeError, match=r"^pool.run\(\) got 5: .*`pool.run\(f, x\)`"):
                yield from pool.run(5)

    run(main)


def test_a_pool_is_fair_and_has_a_bound(conninfo):
    served = []
    at_once = most = 0

    def work(conn, number):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        served.append(number)
        assert (yield from value_of(conn, "select %s::int", number)) == number
        at_once -= 1

    def main():
        with Pool(conninfo, size=4) as pool, TaskGroup() as g:
            yield from gather(*[pool.run(work, -1) for _ in range(4)])
            served.clear()
            for number in range(1000 if FULL else 60):
                g.spawn(pool.run, work, number)
            yield from g

    run(main)
    assert served == sorted(served)
    assert most == 4
    assert settles(conninfo)


def test_a_pool_commits_or_rolls_back(conninfo):
    def insert(conn, number):
        yield from conn.execute("insert into pooled values (%s)", (number,))
        if number == 2:
            raise KeyError(number)
        return number

    async def count(conn):
        cursor = await conn.execute("select array_agg(i order by i) from pooled")
        return (await cursor.fetchone())[0]

    async def blocks(pool):
        async with pool.connection() as conn:
            await conn.execute("insert into pooled values (4)")
        with pytest.raises(KeyError):
            async with pool.connection() as conn:
                await conn.execute("insert into pooled values (5)")
                raise KeyError(5)

    def make(conn):
        yield from conn.execute("create table pooled (i int)")

    def main():
        with Pool(conninfo, size=1) as pool:
            yield from pool.run(make)
            assert (yield from pool.run(insert, 1)) == 1
            with pytest.raises(KeyError):
                yield from pool.run(insert, 2)
            with timeout(5):
                yield from pool.run(insert, 3)
            yield from spawn(blocks, pool)
            return (yield from pool.run(count))

    try:
        assert run(main) == [1, 3, 4]
    finally:
        with psycopg.connect(conninfo) as conn:
            conn.execute("drop table pooled")


def test_a_pool_lends_no_connection_that_is_broken_or_in_a_transaction(conninfo):
    def broken(conn):
        conn.finish()
        yield

    def one(conn):
        return (yield from value_of(conn, "select 1"))

    def main():
        pool = Pool(conninfo, size=1)
        yield from pool.run(broken)
        assert (yield from pool.run(one)) == 1
        with pytest.raises(TypeError, match="run\\(\\) got"):
            yield from pool.run(id)
        assert (yield from pool.run(one)) == 1
        pool.close()
        with pytest.raises(RuntimeError, match="closed"):
            yield from pool.run(one)

    run(main)
    assert settles(conninfo)


def test_a_pool_whose_server_is_away_fails_and_recovers(server):
    def one(conn):
        return (yield from value_of(conn, "select 1"))

    def main():
        with Pool(server.conninfo, size=1) as pool:
            server.stop()
            for _ in range(2):  # the place was given back
                with pytest.raises(psycopg.OperationalError):
                    yield from pool.run(one)
            server.start()
            assert (yield from pool.run(one)) == 1

    run(main)


def test_a_transaction_that_cannot_be_ended_is_an_error_of_who_had_it(server, caplog):
    def ends(conn, failure):
        yield from conn.execute("select 1")
        server.restart()
        if failure:
            raise failure

    def main():
        with Pool(server.conninfo, size=1) as pool:
            with pytest.raises(psycopg.OperationalError):
                yield from pool.run(ends, None)  # it was to be committed
            assert "could not be rolled back" not in caplog.text
            with pytest.raises(KeyError):
                yield from pool.run(ends, KeyError())
            assert "could not be rolled back" in caplog.text

    run(main)


def test_a_restart_of_the_server_costs_those_in_the_middle_and_nobody_else(server):
    def one(conn):
        return (yield from value_of(conn, "select 1"))

    def slow(conn):
        yield from value_of(conn, "select pg_sleep(60)")

    def main():
        with Pool(server.conninfo, size=2) as pool:
            yield from gather(*[pool.run(one) for _ in range(4)])
            task = spawn(pool.run, slow)
            yield from asleep(server.conninfo)
            server.restart()
            with pytest.raises(psycopg.OperationalError):
                yield from task
            return (yield from gather(*[pool.run(one) for _ in range(4)]))

    assert run(main) == [1] * 4


# Cancel at every step -----------------------------------------------------------------------------


class Sniper:
    """A queue of ready tasks that cancels the task of a name before a step of it."""

    def __init__(self, name, step):
        self._queue = deque()
        self._name = name
        self._left = step

    def append(self, task):
        self._queue.append(task)

    def popleft(self):
        task = self._queue[0]
        if task.name == self._name:
            self._left -= 1
            if not self._left:
                task.cancel("the sweep")
        return self._queue.popleft()

    def __len__(self):
        return len(self._queue)

    @property
    def hit(self):
        return self._left <= 0


def work(conn, number):
    """Use a connection in several ways; return what only this number gives."""
    first = yield from value_of(conn, "select %s::int", number)
    second = yield from value_of(conn, "select %s::text || pg_sleep(0)", str(number))
    yield from conn.commit()
    return first, second, (yield from value_of(conn, "select %s::int * 2", number))


def right(number):
    return number, str(number), 2 * number


def one_run(conninfo, target):
    """Run 8 tasks on a pool of 4, of which one may be cancelled."""
    with Pool(conninfo, size=4) as pool:
        tasks = [spawn(pool.run, work, n, name=f"work {n}") for n in range(8)]
        for number, task in enumerate(tasks):
            try:
                assert (yield from task) == right(number)
            except TaskCancelled:
                assert number == target
        # Everybody is served once more, on the same connections; none is in a transaction.
        again = yield from gather(*[pool.run(work, number) for number in range(100, 104)])
        assert again == [right(number) for number in range(100, 104)]


def test_each_step_of_a_transaction_can_be_cancelled(conninfo):
    for target in range(8) if FULL else (0, 5):
        for step in range(1, 100):
            sniper = Sniper(f"work {target}", step)
            run(one_run, conninfo, target, ready=lambda sniper=sniper: sniper)
            if not sniper.hit:
                break
        assert 6 < step < 99
    assert settles(conninfo)


def test_nothing_is_left_in_cycles(conninfo):
    def main():
        conn = yield from Connection.connect(conninfo)
        yield from conn.execute("select 1")
        with pytest.raises(psycopg.errors.DivisionByZero):
            yield from conn.execute("select 1 / 0")
        yield from conn.close()

    real = {"clock": time.monotonic, "selector": selectors.DefaultSelector}
    assert garbage_of(main, rest=0, **real) == []


def test_two_tasks_share_a_connection_one_after_another(conninfo):
    def main():
        conn = yield from Connection.connect(conninfo, autocommit=True)
        slow = spawn(value_of(conn, "select pg_sleep(0.05)::text || 'slow'"))
        fast = spawn(value_of(conn, "select 'fast'"))
        assert (yield from gather(slow, fast)) == ["slow", "fast"]
        yield from conn.close()

    run(main)
