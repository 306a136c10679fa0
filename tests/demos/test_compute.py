"""The server that has its requests computed: here by threads, in the place of Dask."""

import sys
from argparse import Namespace
from concurrent.futures import BrokenExecutor, Future

import pytest

from corolib import listen_tcp, open_tcp, run, spawn
from demos import compute
from tests.helpers.driving import until


class Engine:
    """Keeps what it is given, until somebody computes it."""

    def __init__(self):
        self.futures = []

    def submit(self, f, *args):
        self.futures.append((Future(), f, args))
        return self.futures[-1][0]

    def compute(self):
        future, f, args = self.futures.pop(0)
        future.set_result(f(*args))


def serving(scenario):
    def main():
        engine = Engine()
        with listen_tcp("127.0.0.1", 0) as listener:
            server = spawn(compute.serve, listener, engine)
            with (yield from open_tcp(*listener.addresses[0])) as client:
                yield from scenario(engine, client)
            yield from server.stop()

    run(main)


def test_each_question_is_answered_in_turn():
    def scenario(engine, client):
        yield from client.sendall(b"10\n0\nten\n-1\n99999999\n100\n")
        for line in ("4 primes below 10", "0 primes below 0", *["give a number"] * 3):
            if line[0].isdigit():
                yield from until(lambda: engine.futures)
                engine.compute()
            assert (yield from client.readline()).decode().startswith(line)
        yield from until(lambda: engine.futures)
        engine.futures[0][0].cancel()
        assert (yield from client.readline()) == b"the cluster has given that up\n"
        yield from client.sendall(b"100\n")
        yield from until(lambda: len(engine.futures) == 2)
        engine.futures[1][0].set_exception(BrokenExecutor("a worker was killed"))
        assert (yield from client.readline()) == b"the cluster has failed: BrokenExecutor\n"

    serving(scenario)


def test_who_leaves_takes_his_questions_with_him():
    def scenario(engine, client):
        yield from client.sendall(b"1000000\n1000\n")
        yield from until(lambda: engine.futures)
        client.close()
        [(future, _, _)] = engine.futures
        yield from until(future.cancelled)
        assert len(engine.futures) == 1, "the next one was never asked"

    serving(scenario)


@pytest.mark.parametrize(("number", "count"), [(0, 0), (2, 0), (3, 1), (30, 10), (1000, 168)])
def test_primes_are_counted(number, count):
    assert compute.primes_below(number) == count


def test_without_dask_one_line_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        SystemExit, match=r"this demo needs distributed; .* pip install .*\[compute\]"
    ):
        compute.main(Namespace())
