"""What is left of a run that was cut short, of other libraries and programs: it says so, or works.

See `tests/helpers/cuts.py`.
"""

import asyncio

import pytest

from corolib import (
    QueueShutDown,
    RunFinished,
    gather,
    listen_tcp,
    run,
    timeout,
)
from corolib.interop import open_asyncio
from corolib.testing import open_files
from tests.helpers.cuts import close_after, close_in_time_after, cut_short_everywhere
from tests.helpers.driving import FULL


@pytest.mark.found("T6")
def test_a_client_of_redis_and_its_subscription_are_closed():
    redis = pytest.importorskip("corolib.interop.redis")

    def serve(stream):
        """As far as it is needed here."""
        replies = {
            b"HELLO": b"%1\r\n+proto\r\n:3\r\n",
            b"SUBSCRIBE": b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
            b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n",
            b"PING": b"+PONG\r\n",
        }
        while data := (yield from stream.recv(1000)):
            for word in data.split():
                yield from stream.sendall(replies.get(word, b""))

    def work(things, done):
        listener = listen_tcp("127.0.0.1", 0)
        server = listener.serve(serve)
        with redis.Redis(*listener.addresses[0][:2]) as client:
            things["client"] = client
            with (yield from client.subscribe("a")) as messages:
                things["messages"] = messages
                yield from client.call("PING")
                yield from messages.get()
        yield from server.stop()

    def check(things, done):
        with timeout(60):
            if "client" in things:
                for use in (
                    lambda: things["client"].call("PING"),
                    lambda: things["client"].subscribe("a"),
                ):
                    with pytest.raises((redis.ConnectionLost, RunFinished)):
                        yield from use()
            if "messages" in things:
                with pytest.raises(QueueShutDown):
                    while True:
                        yield from things["messages"].get()
        yield

    before = open_files()
    cut_short_everywhere(close_after, dict, work, check)
    assert open_files() == before


@pytest.mark.found("T6")
def test_a_loop_of_asyncio_is_stopped_and_says_so():
    def work(things, done):
        with open_asyncio() as aio:
            things.append(aio)
            for _ in range(2):
                done.append((yield from aio(asyncio.sleep(0, "x"))))

    def check(things, done):
        for aio in things:
            awaitable = asyncio.sleep(0)
            with pytest.raises(RuntimeError):
                yield from aio(awaitable)
            awaitable.close()
        with open_asyncio() as aio:
            assert (yield from aio(asyncio.sleep(0, "new"))) == "new"

    cut_short_everywhere(close_in_time_after, list, work, check, run, 1 if FULL else 7)


@pytest.mark.found("T6")
def test_a_pool_of_connections_works_in_the_next_run(postgres):
    module = pytest.importorskip("corolib.interop.psycopg", exc_type=ImportError)

    def work(pools, done):
        pool = module.Pool(postgres.conninfo, size=1)
        pools.append(pool)
        yield from gather(*(pool.run(add_one) for _ in range(3)))
        pools.pop().close()

    def add_one(conn):
        cursor = yield from conn.execute("select 1")
        return (yield from cursor.fetchone())

    def check(pools, done):
        for pool in pools:
            with timeout(60):
                assert (yield from pool.run(add_one)) == (1,)
            pool.close()
        yield

    before = open_files()
    cut_short_everywhere(close_in_time_after, list, work, check, run, 1 if FULL else 7)
    assert open_files() == before
