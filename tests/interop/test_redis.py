"""Redis: calls, messages and lost connections, against a real server and against odd ones."""

import os
from contextlib import suppress

import pytest

from corolib import (
    QueueShutDown,
    Sleep,
    current_scheduler,
    first,
    gather,
    listen_tcp,
    move_on_after,
    now,
    run,
    spawn,
    timeout,
)
from corolib.testing import cancel_everywhere, survivors, virtual_time
from tests.helpers.driving import until

pytest.importorskip("hiredis", reason="hiredis is not installed (extra `redis`)")

from corolib.interop import redis as redis_module
from corolib.interop.redis import ConnectionLost, Redis, RedisError

RESTARTS = 20 if os.environ.get("COROLIB_SWEEP") == "full" else 3


@pytest.fixture
def server(redis_server):
    return redis_server


def test_calls_and_their_replies(server):
    def main():
        with Redis("127.0.0.1", server.port, db=3) as redis:
            assert (yield from redis.call("SET", "key", b"\x00value")) == b"OK"
            assert (yield from redis.call("GET", "key")) == b"\x00value"
            assert (yield from redis.call("GET", "none")) is None
            yield from redis.call("HSET", "hash", "a", 1, "b", 2.5)
            assert (yield from redis.call("HGETALL", "hash")) == {b"a": b"1", b"b": b"2.5"}
            with pytest.raises(RedisError, match="unknown command 'NOPE'"):
                yield from redis.call("NOPE")
            with pytest.raises(TypeError):
                yield from redis.call("SET", "key", object())
            replies = yield from redis.call_all(
                [("MULTI",), ("INCR", "n"), ("GET", "n"), ("EXEC",)]
            )
            assert replies == [b"OK", b"QUEUED", b"QUEUED", [1, b"1"]]
            assert (yield from redis.call_all([])) == []
            good, bad = yield from redis.call_all([("PING",), ("INCR", "key")])
            assert good == b"PONG"
            assert isinstance(bad, RedisError)
            numbers = yield from gather(*[redis.call("INCR", "many") for _ in range(500)])
            assert numbers == list(range(1, 501))
            assert redis.connections == 1
        with pytest.raises(ConnectionLost, match="was closed"):
            yield from redis.call("GET", "key")

    run(main)


def test_it_is_a_block_and_takes_no_url():
    def main():
        redis = Redis("127.0.0.1", 1)
        with pytest.raises(RuntimeError, match=r"`with Redis\(...\) as redis:`"):
            yield from redis.call("PING")
        with pytest.raises(RuntimeError, match="is a `with` block"):
            yield from redis.subscribe("room")

    run(main)
    with pytest.raises(ValueError, match="takes host and port apart"):
        Redis("redis://127.0.0.1:7379")


@pytest.mark.parametrize("name", ["SUBSCRIBE", "psubscribe", b"Unsubscribe", "MONITOR"])
def test_what_brings_messages_is_no_call(name):
    def main():
        with Redis("127.0.0.1", 1) as redis:
            with pytest.raises(ValueError, match=r"redis\.subscribe\(channel\)"):
                yield from redis.call(name, "room")
            with pytest.raises(ValueError, match="is no call"):
                yield from redis.call_all([("MULTI",), (name, "room")])

    run(main)


def test_messages_come_to_all_who_subscribed(server):
    def main():
        with Redis("127.0.0.1", server.port) as redis:
            with (yield from redis.subscribe("room", "other")) as one:
                with (yield from redis.subscribe("room")) as two:
                    assert (yield from redis.call("PUBLISH", "room", "hello")) == 1
                    yield from redis.call("PUBLISH", "other", b"\xff")
                    assert (yield from two.get()) == ("room", b"hello")
                    message = yield from one.get()
                    assert (message.channel, message.data) == ("room", b"hello")
                    _, message = yield from first(one.getting(), Sleep(30))
                    assert message == ("other", b"\xff")
                # `one` is there still
                assert (yield from redis.call("PUBLISH", "room", "again")) == 1
                assert (yield from one.get()) == ("room", b"again")
            assert (yield from redis.call("PUBLISH", "room", "nobody")) == 0
            with pytest.raises(QueueShutDown):
                yield from one.get()
            one.close()
            with (yield from redis.subscribe("room")) as three:
                yield from redis.call("PUBLISH", "room", "new")
                assert (yield from three.get()).data == b"new"
            with pytest.raises(ValueError, match="name of a channel"):
                yield from redis.subscribe()

    run(main)


def test_a_slow_reader_keeps_nobody_waiting(server):
    def main():
        with Redis("127.0.0.1", server.port) as redis:
            with (yield from redis.subscribe("room", backlog=2)) as slow:
                for number in range(5):
                    yield from redis.call("PUBLISH", "room", number)
                yield from redis.call("PING")
                assert slow.dropped == 3
                assert (yield from slow.get()).data == b"0"
                assert (yield from slow.get()).data == b"1"

    run(main)


def test_restarts_under_load(server):
    """Each reply is the right one, or a loss that was told; and messages come again."""
    told, running = 0, True

    def client(redis, number):
        nonlocal told
        count = 0
        while running:
            count += 1
            try:
                text = f"{number} {count}"
                assert (yield from redis.call("ECHO", text)) == text.encode()
            except ConnectionLost:
                told += 1

    def publish(redis):
        while running:
            try:
                yield from redis.call("PUBLISH", "room", "tick")
            except ConnectionLost:
                pass
            yield Sleep(0.005)

    def main():
        nonlocal running
        with Redis("127.0.0.1", server.port) as redis, Redis("127.0.0.1", server.port) as other:
            messages = yield from redis.subscribe("room")
            tasks = [spawn(client, redis, number) for number in range(20)]
            tasks.append(spawn(publish, other))
            for _ in range(RESTARTS):
                yield from messages.get()
                server.kill()
                while (yield from drain(messages)):
                    pass
                server.start()
                server.wait()
                yield from messages.get()
            running = False
            yield from gather(*tasks)
            messages.close()
            return redis.connections

    def drain(messages):
        with move_on_after(0.02):
            yield from messages.get()
            return True
        return False

    assert run(main) == RESTARTS + 1
    assert told >= RESTARTS  # calls were under way each time


def test_a_server_that_refuses_says_so_to_each_call(server, caplog):
    def main():
        server.kill()
        server.start("--requirepass", "secret")
        server.wait()
        with Redis("127.0.0.1", server.port) as redis:
            for _ in range(2):
                with pytest.raises(RedisError, match="NOAUTH"):
                    yield from redis.call("PING")
        with Redis("127.0.0.1", server.port, password="wrong") as redis:
            with pytest.raises(RedisError, match="WRONGPASS"):
                yield from redis.call("PING")
        with Redis("127.0.0.1", server.port, password="secret") as redis:
            assert (yield from redis.call("PING")) == b"PONG"

    run(main)
    assert caplog.text.count("it refuses us") == 2  # once for each client


def test_a_channel_that_is_refused_is_an_error_of_who_subscribes(redis_server):
    """The refusal is a plain error: no other call takes it for its reply."""

    def refuses(redis):
        with pytest.raises(RedisError, match="NOPERM"):
            yield from redis.subscribe("other")

    def main():
        redis_server.kill()
        user = "user limited on >secret ~* +@all resetchannels &allowed"
        redis_server.start("--user", *user.removeprefix("user ").split())
        redis_server.wait()
        limited = {"username": "limited", "password": "secret"}
        with Redis("127.0.0.1", redis_server.port, **limited) as redis, timeout(30):
            yield from redis.call("SET", "key", "value")
            refused = spawn(refuses, redis)
            got = yield from gather(*[redis.call("GET", "key") for _ in range(3)])
            assert got == [b"value"] * 3
            yield from refused
            with (yield from redis.subscribe("allowed")) as messages:
                yield from redis.call("PUBLISH", "allowed", "x")
                assert (yield from messages.get()).data == b"x"
            # The server comes back, and has changed its mind.
            messages = yield from redis.subscribe("allowed")
            redis_server.kill()
            redis_server.start("--user", *user.replace("&allowed", "").split()[1:])
            redis_server.wait()
            with pytest.raises(QueueShutDown):
                yield from messages.get()
        limited["password"] = "wrong"
        with Redis("127.0.0.1", redis_server.port, **limited) as redis, timeout(30):
            with pytest.raises(RedisError, match="WRONGPASS"):
                yield from redis.subscribe("allowed")

    run(main)


# Without a server ---------------------------------------------------------------------------------


def test_pauses_between_attempts_are_as_promised(monkeypatch, caplog):
    attempts = []

    def refused(*args, **options):
        attempts.append(round(now(), 6))
        raise ConnectionRefusedError(111, "refused")
        yield

    monkeypatch.setattr(redis_module, "open_tcp", refused)

    def main():
        with Redis("127.0.0.1", 1) as redis, move_on_after(2):
            yield from redis.call("PING")

    run(main, **virtual_time())
    assert attempts == pytest.approx([0, 0.05, 0.15, 0.35, 0.75, 1.15, 1.55, 1.95])
    assert len(caplog.records) == 1


def odd_server(talk):
    """Run a client against a server that does `talk(stream)`, and count its connections."""
    count = 0

    def handle(stream):
        nonlocal count
        count += 1
        yield from talk(stream)

    def with_client(use):
        listener = listen_tcp("127.0.0.1", 0)
        server = listener.serve(handle)
        with Redis(*listener.addresses[0][:2]) as redis:
            value = yield from use(redis)
        yield from server.stop(grace=0)
        return value, count

    return with_client


def hello(stream):
    """Answer the greeting."""
    yield from stream.recv(1000)
    yield from stream.sendall(b"%1\r\n+proto\r\n:3\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        *(b"?what\r\n", b"+cut sh", b"", b">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n+x\r\n"),
        b"%1\r\n*0\r\n:1\r\n",
    ],
    ids=["not the protocol", "cut short", "closed", "too much", "lists as keys"],
)
def test_a_server_that_does_not_keep_to_the_protocol(answer):
    """The call is told; the connection is made anew."""

    def talk(stream):
        yield from hello(stream)
        yield from stream.recv(1000)
        yield from stream.sendall(answer)

    def use(redis):
        for _ in range(2):
            with timeout(30), suppress(ConnectionLost):
                yield from redis.call("GET", "x")
        while redis.connections < 3:
            yield Sleep(0.01)

    _, count = run(odd_server(talk), use)
    assert count >= 3


def test_a_server_that_never_greets_is_given_up(monkeypatch):
    monkeypatch.setattr(redis_module, "CONNECT", 0.02)

    begun = 0

    def silent(stream):
        nonlocal begun
        begun += 1
        yield from stream.recv(1000)
        yield from stream.recv(1000)

    def use(redis):
        task = spawn(redis.call, "PING")
        yield from until(lambda: begun == 2)
        assert not task.done
        yield from task.stop()

    run(odd_server(silent), use)


def test_a_server_that_resets_while_much_is_sent():
    def talk(stream):
        yield from hello(stream)
        yield from stream.recv(10)
        stream.reset()

    def use(redis):
        with pytest.raises(ConnectionLost), timeout(30):
            yield from redis.call("SET", "x", bytes(10_000_000))

    run(odd_server(talk), use)


def test_a_subscription_that_is_cancelled_or_cut_off_is_gone():
    def talk(stream):
        yield from hello(stream)
        while (yield from stream.recv(1000)):
            pass

    def use(redis):
        with move_on_after(0.01):
            yield from redis.subscribe("room")  # it is never confirmed
        waiting = [spawn(redis.subscribe("room")) for _ in range(2)]
        yield Sleep(0.01)
        return waiting

    def main():
        waiting, _ = yield from odd_server(talk)(use)
        for task in waiting:
            with pytest.raises(ConnectionLost, match="was closed"):
                yield from task

    run(main)


def test_what_is_no_message_is_passed_over():
    """RESP3 has more kinds of pushes than those that were asked for."""
    pushes = b">2\r\n+invalidate\r\n*1\r\n+key\r\n>0\r\n>3\r\n+message\r\n:1\r\n:2\r\n"

    def talk(stream):
        yield from hello(stream)
        yield from stream.recv(1000)
        yield from stream.sendall(pushes + b"+PONG\r\n")
        yield from stream.recv(1000)

    def use(redis):
        return (yield from redis.call("PING"))

    assert run(odd_server(talk), use)[0] == b"PONG"


def test_cancel_everywhere():
    """A call that is cancelled takes nobody's reply."""

    def scenario():
        def echo(stream):
            yield from hello(stream)
            while line := (yield from stream.readline()):  # *2, $4, ECHO, $1, the text
                yield from stream.readline()
                yield from stream.readline()
                yield from stream.readline()
                text = yield from stream.readline()
                assert line == b"*2\r\n"
                yield from stream.sendall(b"+" + text)

        def ask(number):
            for _ in range(2):
                assert (yield from redis.call("ECHO", str(number))) == str(number).encode()

        listener = listen_tcp("127.0.0.1", 0)
        server = listener.serve(echo)
        with Redis(*listener.addresses[0][:2]) as redis:
            tasks = [spawn(ask, number, name=f"ask {number}") for number in range(3)]
            yield from survivors(tasks)
        yield from server.stop(grace=0)

    def is_asking(task):
        return task.name.startswith("ask")

    assert cancel_everywhere(scenario, target=is_asking) > 5


def test_a_client_that_was_closed_while_it_greets_and_one_that_is_used_again():
    def greets(stream):
        yield from hello(stream)
        yield from stream.recv(1000)

    def main():
        listener = listen_tcp("127.0.0.1", 0)
        server = listener.serve(greets)
        for turns in range(30):  # in one of these the greeting has just come
            with Redis(*listener.addresses[0][:2]):
                for _ in range(turns):
                    yield
        yield from server.stop(grace=0)
        redis = Redis("127.0.0.1", 1)
        with redis:
            yield
        with pytest.raises(RuntimeError, match="make a new one"), redis:
            pass

    run(main)


def test_a_fault_of_ours_is_told_to_those_who_wait(monkeypatch, caplog):
    def broken(*args, **options):
        yield
        raise KeyError("a fault")

    monkeypatch.setattr(redis_module, "open_tcp", broken)

    def main():
        with Redis("127.0.0.1", 1) as redis, timeout(30):
            with pytest.raises(KeyError, match="a fault"):
                yield from redis.call("PING")

    run(main)
    assert "a fault" in caplog.text


def test_no_scheduler_no_client():
    with pytest.raises(RuntimeError):
        Redis().__enter__()
    with pytest.raises(RuntimeError):
        current_scheduler()


def test_a_client_whose_block_is_over_lets_nobody_wait():
    def main():
        with Redis("127.0.0.1", 1) as redis:
            yield
        for use in (redis.call("PING"), redis.call_all([["PING"]]), redis.subscribe("room")):
            with pytest.raises(ConnectionLost, match="was closed"):
                yield from use

    run(main, **virtual_time())
