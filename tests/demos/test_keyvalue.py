"""The key-value server: with redis-cli and redis-benchmark, and its parts inside a scheduler."""

import os
import random
import re
import shutil
import socket
import struct
import subprocess
import tracemalloc
from contextlib import ExitStack

import pytest

import demos.keyvalue.__main__ as keyvalue
from corolib import Sleep, listen_tcp, now, open_tcp, run, spawn, timeout
from corolib.testing import virtual_time
from demos.keyvalue import protocol, store
from demos.keyvalue.__main__ import CLIENTS_OWN, COMMANDS, Client, Service, serve
from demos.keyvalue.protocol import Refused, Requests, batches, encode
from demos.keyvalue.store import ENTRY, STRING, Store
from tests.helpers.driving import FULL
from tests.helpers.programs import PATIENCE, Program, exchange, outcome, quiet

MIB = 1 << 20


def needs(program):
    reason = f"{program} is not installed: apt-get install redis-tools"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


def brief(value):
    """Return a name for a test: data may be long."""
    return ascii(value[:30])


def resp(*args):
    """Return a request as clients send it."""
    parts = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)


@pytest.fixture(scope="module")
def program():
    with Program("demos.keyvalue") as program:
        yield program


# Clients that nobody here wrote -------------------------------------------------------------------


@needs("redis-benchmark")
def test_redis_benchmark_ends_without_an_error(program):
    number = "20000" if FULL else "160"
    command = ["redis-benchmark", "-p", str(program.port)]
    command += ["-n", number, "-c", "50", "-P", "16", "--csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    _, *lines = done.stdout.splitlines()
    names = [re.match(r'"(\w+)[^"]*","[0-9.]+",', line)[1] for line in lines]
    expected = (
        "PING_INLINE PING_MBULK SET GET INCR LPUSH RPUSH LPOP RPOP SADD HSET SPOP ZADD ZPOPMIN"
    )
    assert names == [
        *expected.split(),
        "LPUSH",
        *[f"LRANGE_{n}" for n in (100, 300, 500, 600)],
        "MSET",
    ]
    with program.connect() as sock:
        assert exchange(sock, resp("GET", "counter:__rand_int__")).split()[1] == number.encode()


@needs("redis-cli")
def test_redis_cli_talks_to_it(program):
    def cli(*args, stdin=None):
        command = ["redis-cli", "-p", str(program.port), *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    assert cli("set", "greeting", "hello world", "ex", "100") == "OK\n"
    assert cli("get", "greeting") == "hello world\n"
    assert cli("ttl", "greeting") in ("100\n", "99\n")
    assert cli("--no-raw", "get", "nothing") == "(nil)\n"
    assert cli("--no-raw", "lpush", "numbers", "1", "2", "3") == "(integer) 3\n"
    assert cli("--no-raw", "lrange", "numbers", "0", "-1") == '1) "3"\n2) "2"\n3) "1"\n'
    assert "ERR unknown command 'FLY'" in cli("FLY")
    assert cli("-3", "ping") == "PONG\n"
    assert "proto" in cli("-3", "hello")
    assert "redis_version:0.0.0" in cli("info")
    assert cli("config", "get", "maxclients") == "maxclients\n1000\n"
    several = "incr n\nincr n\nincr greeting\ndel n greeting\n"
    wrong = "ERR value is not an integer or out of range"
    assert [line for line in cli(stdin=several).split("\n") if line] == ["1", "2", wrong, "2"]


# The program --------------------------------------------------------------------------------------


def test_the_program(program):
    assert f"redis-cli -p {program.port} ping" in program.lines[0]
    status, out, err = outcome("demos.keyvalue", f"--port={program.port}")
    assert (status, out, err.count("\n")) == (1, "", 1)
    status, out, err = outcome("demos.keyvalue", "--memory=0")
    assert (status, out) == (2, "")


def test_many_requests_at_once_are_answered_in_order_and_by_the_end_of_the_connection(program):
    requests = [resp("SET", "k", n) + resp("GET", "k") + resp("INCR", "k") for n in range(3000)]
    replies = [b"+OK\r\n$%d\r\n%d\r\n:%d\r\n" % (len(str(n)), n, n + 1) for n in range(3000)]
    with program.connect() as sock:
        assert exchange(sock, b"".join(requests)) == b"".join(replies)


def test_a_line_is_a_request_too(program):
    typed = b"set x 1\r\n\r\n  GET   x\nnonsense\nPING\r\nquit\r\nPING\r\n"
    with program.connect() as sock:
        sock.sendall(typed)
        replies = exchange(sock, b"")
    assert replies == b"+OK\r\n$1\r\n1\r\n-ERR unknown command 'nonsense'\r\n+PONG\r\n+OK\r\n"


def test_who_does_not_take_replies_is_not_read_from_and_holds_nobody_up(program):
    """Not one of 50 MB of replies is made before the one before it was taken."""
    with program.connect() as big, program.connect() as other:
        big.sendall(resp("SET", "big", b"x" * 500_000))
        assert big.recv(5) == b"+OK\r\n"
        big.sendall(resp("GET", "big") * 100)
        for _ in range(10):
            other.sendall(resp("PING"))
            assert other.recv(7) == b"+PONG\r\n"
        memory = resident(program.process.pid)
        assert memory is None or memory < 100 * MIB
        assert exchange(big, b"") == (b"$500000\r\n" + b"x" * 500_000 + b"\r\n") * 100


def resident(pid):
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return None


def test_clients_that_break_off_leave_the_others_alone(program):
    for data in (b"", b"PI", resp("GET", "big") * 10, resp("SET", "cut", "x" * 1000)[:-1]):
        sock = program.connect()
        sock.sendall(data)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    with program.connect() as sock:
        assert exchange(sock, resp("GET", "cut")) == b"$-1\r\n"


def test_the_end_of_the_program_waits_for_no_idle_client():
    with Program("demos.keyvalue") as program, program.connect() as idle, program.connect() as sock:
        sock.sendall(b"PING\r\n")
        assert sock.recv(7) == b"+PONG\r\n"
        program.process.terminate()
        assert idle.recv(1) == sock.recv(1) == b""
        out, err = program.process.communicate(timeout=PATIENCE)
        assert (program.process.returncode, out) == (0, "")
        assert quiet(err)


# Requests -----------------------------------------------------------------------------------------

VALUES = [
    *(b"", b"a", b"*10000\r\n", b"*99999999999\r\n$1\r\n", b"\r\n*1\r\n", b"$5\r\nhello\r\n"),
    *(b"*", b"**", b"~12345%12345|123456>1234567", b"*1234", b"\0\xff" * 30, b"PING\r\n"),
]


def cut(data, *places):
    """Feed data in pieces; return the requests, and the number of pieces that gave one."""
    requests = Requests()
    found = []
    for begin, end in zip([0, *places], [*places, len(data)], strict=True):
        found += requests.feed(data[begin:end])
    return found, requests


def test_requests_are_the_same_wherever_they_are_cut():
    wanted = [[b"SET", value, other] for value in VALUES for other in (VALUES[2], b"x")]
    data = b"".join(resp(*request) for request in wanted)
    assert cut(data)[0] == wanted
    for place in range(len(data)):
        found, requests = cut(data, place)
        assert found == wanted, place
    found, requests = cut(data, *range(1, len(data)))
    assert found == wanted
    assert requests.size == 0
    choose = random.Random(1)
    for _ in range(100):
        places = sorted(choose.choices(range(len(data)), k=9))
        assert cut(data, *places)[0] == wanted, places


def test_lines_are_the_same_wherever_they_are_cut():
    data = b"SET a *10000\r\n\r\nGET a\nPING\r\n" + resp("GET", "*12345") + resp("PING")
    data += b"GET b\r\n*0\r\n" + resp("GET", "c") + b"*-1\r\nPING\r\n*-10\r\n"
    wanted = [[b"SET", b"a", b"*10000"], [b"GET", b"a"], [b"PING"]]
    wanted += [[b"GET", b"*12345"], [b"PING"], [b"GET", b"b"], [b"GET", b"c"], [b"PING"]]
    for place in range(len(data)):
        assert cut(data, place)[0] == wanted, place
    assert cut(data, *range(1, len(data)))[0] == wanted


@pytest.mark.parametrize(
    "data",
    [
        b"*10001\r\n",
        b"*500000000\r\n",
        b"*4294967295\r\n",
        resp("PING") + b"*500000000\r\n",
        b"*2\r\n$3\r\nGET\r\n*500000000\r\n",
        b"*1\r\n~500000000\r\n",
        b"*1\r\n$500000000\r\n",
        b"*2\r\n$8\r\n*1000000\r\n*500000000\r\n",
    ],
    ids=brief,
)
def test_no_room_is_made_for_what_is_only_announced(data):
    tracemalloc.start()
    try:
        for places in ((), range(1, len(data))):
            with pytest.raises(Refused, match="Protocol error"):
                cut(data, *places)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        b"*1\r\n:1\r\n",
        b"*1\r\n*1\r\n$1\r\na\r\n",
        b"*1\r\n$-1\r\n",
        b"*x\r\n",
        b"*\r\n",
        b"*1_0\r\n",
        b"*1\r\n$1\r\nabc\r\n",
        b"*1\r\n$\r\n",
        b'SET a "b\r\n',
        b"SET a 'b'c\r\n",
        b"*1\r\nPING\r\n",
        b"*1\r\n-ERR\r\n",
        b"*1\r\n#f\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"*1\r\n" * 50_000 + b"$1\r\na\r\n",
        b"x" * (protocol.LINE + 1),
        b"*2\r\n$700000\r\n" + b"x" * 700_000 + b"\r\n$700000\r\n" + b"x" * 600_000,
    ],
    ids=brief,
)
def test_what_is_no_request_is_refused(data):
    with pytest.raises(Refused, match="Protocol error"):
        cut(data)
    with pytest.raises(Refused, match="Protocol error"):
        cut(data, *range(1000, len(data), 1000))


def test_a_client_that_is_refused_hears_why_and_no_more(program):
    with program.connect() as sock:
        replies = exchange(sock, resp("PING") + b"*1\r\n:1\r\n" + resp("PING"))
    assert replies.startswith(b"+PONG\r\n-ERR Protocol error")
    assert replies.count(b"\r\n") == 2


@pytest.mark.found("D5")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (rb'SET "a b" "\x41\n\"\\"', [b"SET", b"a b", b'A\n"\\']),
        (rb"SET 'a \' b' ''", [b"SET", b"a ' b", b""]),
        (rb'  GET   ""  ', [b"GET", b""]),
        (rb'"\q" "\t\x4"', [b"q", b"\tx4"]),
    ],
)
def test_a_word_in_quotes_may_hold_spaces(line, wanted):
    assert cut(line + b"\r\n")[0] == [wanted]


@pytest.mark.found("D5")
def test_a_web_page_in_a_browser_cannot_write(program):
    head = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"
    for request in (head, head[6:], b"PUT / HTTP/1.1\r\nhost: x\r\n\r\n"):
        with program.connect() as sock:
            replies = exchange(sock, request + b"SET web 1\r\n" + resp("SET", "web", 1))
        assert replies.endswith(b"-ERR this is no web server\r\n")
    with program.connect() as sock:
        assert exchange(sock, resp("GET", "web")) == b"$-1\r\n"


@pytest.mark.found("D5")
def test_lines_and_arrays_and_arrays_of_nothing_in_one_segment(program):
    data = b"PING\r\n" + resp("PING") + b"*0\r\n*-1\r\n*-10\r\nPING\r\n\r\n" + resp("PING")
    with program.connect() as sock:
        assert exchange(sock, data) == b"+PONG\r\n" * 4


@pytest.mark.found("D5")
def test_odd_commands_are_answered_and_fail_nothing():
    with Program("demos.keyvalue") as program, program.connect() as sock:
        data = b"%1\r\n*0\r\n+OK\r\n" + b"HELLO 3\r\nGET a\r\nQUIT x\r\nPING\r\n"
        replies = exchange(sock, data)
        program.process.terminate()
        _, err = program.process.communicate(timeout=PATIENCE)
        assert quiet(err)
    assert replies.startswith(b"-ERR unknown command '%1'\r\n-ERR unknown command '+OK'\r\n%7\r\n")
    assert replies.endswith(b"*0\r\n_\r\n+OK\r\n")


@needs("redis-cli")
@pytest.mark.found("D5")
def test_redis_cli_pipes_into_it(program):
    data = b"".join(resp("SET", f"piped{n}", "x" * 100) for n in range(5000))
    data += b"".join(b"INCR pipe\r\n" for _ in range(100))
    command = ["redis-cli", "-p", str(program.port), "--pipe"]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60)
    assert b"errors: 0, replies: 5100" in done.stdout


@pytest.mark.found("D5")
def test_a_client_library_with_its_defaults(program):
    redis = pytest.importorskip("redis")
    with redis.Redis(port=program.port, decode_responses=True) as client:
        assert client.ping()
        assert client.set("library", "1", ex=100)
        assert client.incr("library") == 2
        assert client.get("nothing") is None
        assert client.lpush("books", "a", "b") == 2
        assert client.lrange("books", 0, -1) == ["b", "a"]
        assert client.config_get("save") == {"save": ""}
        assert client.exists("library", "nothing") == 1
        assert client.decr("library") == 1
        assert client.mset({"x": "1", "y": "2"})
        assert client.mget("x", "y", "nothing") == ["1", "2", None]
        assert client.sadd("set", "a", "b") == 2
        assert client.smembers("set") == {"a", "b"}
        assert client.hset("hash", mapping={"a": "1", "b": "2"}) == 2
        assert client.hgetall("hash") == {"a": "1", "b": "2"}
        assert client.zadd("sorted", {"b": 1, "a": 2.5}) == 2
        assert client.zrange("sorted", 0, -1) == ["b", "a"]
        [[member, score]] = client.zpopmin("sorted")
        assert (member, score) == ("b", 1)
        with client.pipeline() as pipe:
            assert pipe.set("p", "1").incr("p").lpush("p", "no").get("p").execute(False)[3] == "2"


@pytest.mark.found("D5")
def test_what_waits_for_clients_is_bounded(monkeypatch):
    """Also when what they asked for is no longer kept; and one reply alone may be of any size."""
    monkeypatch.setattr(keyvalue, "PENDING", 100_000)

    def main(do, service):
        do("LPUSH", "l", *["x" * 100] * 300)
        clients = [Client(number) for number in range(10)]
        asked = [service.replies(client, resp("LRANGE", "l", 0, -1)) for client in clients]
        heads = [next(replies) for replies in asked]
        assert (
            heads
            == [b"*300\r\n"] * 2
            + [b"-ERR too many replies wait for clients that do not read them\r\n"] * 8
        )
        assert service.pending == 2 * store.size([b"x" * 100] * 300)
        for request in (("LPOP", "l"), ("SET", "l", "paid")):  # refused, and not done
            assert "too many replies" in str(do(*request))
        asked.pop().close()
        asked.pop(1).close()
        assert do("LLEN", "l") == 300
        assert do("DEL", "l") == 1
        assert len(list(asked[0])) == 300
        for replies in asked[1:]:
            replies.close()
        assert service.pending == 0
        begun = [resp("SET", "a", "x" * 60_000)[:50_000]] * 3
        parts = [
            b"".join(service.replies(client, part))
            for client, part in zip(clients, begun, strict=False)
        ]
        assert parts[:2] == [b"", b""]
        assert parts[2].startswith(b"-ERR too many requests wait for their rest")
        assert clients[2].ended
        assert service.pending == 100_000
        rest = resp("SET", "a", "x" * 60_000)[50_000:]
        assert b"".join(service.replies(clients[0], rest)) == b"+OK\r\n"
        assert service.pending == 50_000
        yield

    inside(main)


def test_a_transaction_is_bounded(monkeypatch):
    monkeypatch.setattr(keyvalue, "TRANSACTION", 2000)
    monkeypatch.setattr(keyvalue, "PENDING", 500)

    def main(do, service):
        do("SET", "a", "x" * 200)
        assert do("MULTI") == "OK"
        while (reply := do("GET", "a")) == "QUEUED":
            pass
        assert "the transaction is too big" in str(reply)
        assert do("DEL", "a") == "QUEUED"
        assert str(do("EXEC")).startswith("EXECABORT ")
        assert do("MULTI") == "OK"
        for request in (("GET", "a"), ("GET", "a"), ("GET", "a"), ("DEL", "a")):
            assert do(*request) == "QUEUED"
        *replies, late = do("EXEC")
        assert replies == [b"x" * 200] * 3
        assert "replies are too large" in str(late)
        assert do("EXISTS", "a") == 1
        yield

    inside(main)


def test_large_requests_do_not_count_together():
    requests = Requests()
    one = resp("SET", "a", b"x" * 500_000)
    for _ in range(10):
        assert sum(1 for _ in requests.feed(one + one[:1000])) == 1
        assert sum(1 for _ in requests.feed(one[1000:])) == 1


def test_replies():
    def reply(value):
        return b"".join(encode(value))

    assert reply(["a", b"b", 1, None, []]) == b"*5\r\n+a\r\n$1\r\nb\r\n:1\r\n$-1\r\n*0\r\n"
    assert reply({"a": [1], "b": None}) == b"*4\r\n+a\r\n*1\r\n:1\r\n+b\r\n$-1\r\n"
    newer = b"".join(encode({"a": [None], "b": 2}, 3))
    assert newer == b"%2\r\n+a\r\n*1\r\n_\r\n+b\r\n:2\r\n"
    assert reply(Refused("ERR two\r\nlines")) == b"-ERR two lines\r\n"
    sizes = [len(batch) for batch in batches(encode([b"x" * 1000] * 1000))]
    assert max(sizes) < protocol.BATCH + 2000
    assert len(sizes) == 16
    assert list(batches(iter([]))) == []


# Commands -----------------------------------------------------------------------------------------


def scenario(f, *args):
    return run(f, *args, **virtual_time())


def inside(f, memory=MIB):
    """Run `f(do, service)` in a scheduler; `do("SET", "a", 1)` returns the reply."""

    def main():
        with listen_tcp("127.0.0.1", 0) as listener:
            service = Service(listener, memory)
            client = Client(1)
            yield
            try:
                yield from f(lambda *args: service.execute(client, *map(as_bytes, args)), service)
            finally:
                service.server.task.cancel()

    scenario(main)


def as_bytes(value):
    return value if isinstance(value, bytes) else str(value).encode()


DIALOGUES = """
    PING => PONG
    ping x => 'x'
    PING 1 2 => ERR wrong number of arguments for 'ping' command
    ECHO x => 'x'
    ECHO => ERR wrong number of arguments for 'echo' command
    QUIT => OK
    COMMAND DOCS => []
    CONFIG GET Save => {'Save': ''}
    CONFIG GET x => {}
    CONFIG GET save x appendonly => {'save': '', 'appendonly': 'no'}
    CONFIG SET save => ERR the settings cannot be changed

    CLIENT GETNAME => nil
    CLIENT SETINFO LIB-NAME redis-py => OK
    CLIENT ID => 1
    CLIENT LIST => ERR unknown subcommand 'LIST', or wrong arguments
    CLIENT SETNAME a b => ERR unknown subcommand 'SETNAME', or wrong arguments
    client setname me => OK
    CLIENT GETNAME => 'me'
    HELLO 4 => NOPROTO unsupported protocol version
    HELLO 3 AUTH x y => ERR there is no password to log in with
    HELLO 3 NAME => ERR syntax error in HELLO
    CLIENT GETNAME => 'me'
    SELECT 0 => OK
    SELECT 1 => ERR DB index is out of range
    QUIT x => OK

    GET a => nil
    SET a 1 => OK
    GET a => '1'
    SET a => ERR wrong number of arguments for 'set' command

    SET a 1 NX => OK
    SET a 2 nx => nil
    GET a => '1'
    SET a 2 XX EX 9 => OK
    TTL a => 9
    SET a 3 => OK
    TTL a => -1
    SET b 1 XX => nil
    TTL b => -2
    SET b 1 PX 1600 NX => OK
    TTL b => 2
    GET b => '1'

    SET a 1 EX => ERR value is not an integer or out of range
    SET a 1 EX x => ERR value is not an integer or out of range
    SET a 1 EX 0 => ERR invalid expire time in 'set' command
    SET a 1 PX -5 => ERR invalid expire time in 'set' command
    SET a 1 NX XX => ERR syntax error
    SET a 1 EX 1 PX 1 => ERR syntax error
    SET a 1 YY => ERR syntax error
    GET a => nil

    DEL a => 0
    SET a 1 => OK
    DEL a b a => 1
    GET a => nil
    del => ERR wrong number of arguments for 'del' command

    INCR a => 1
    INCR a => 2
    EXPIRE a 9 => 1
    INCR a => 3
    GET a => '3'
    TTL a => 9
    SET a x => OK
    INCR a => ERR value is not an integer or out of range
    SET a 1_0 => OK
    INCR a => ERR value is not an integer or out of range
    SET a -1 => OK
    INCR a => 0
    SET a 9223372036854775806 => OK
    INCR a => 9223372036854775807
    INCR a => ERR increment or decrement would overflow
    GET a => '9223372036854775807'
    SET a 9223372036854775808 => OK
    INCR a => ERR value is not an integer or out of range
    SET a -9223372036854775808 => OK
    INCR a => -9223372036854775807
    INCRBY a -2 => ERR increment or decrement would overflow
    INCRBY a 10 => -9223372036854775797
    INCRBY a => ERR wrong number of arguments for 'incrby' command
    SET a  => ERR wrong number of arguments for 'set' command

    LPUSH l 1 2 3 => 3
    LPUSH l 4 => 4
    LPUSH l => ERR wrong number of arguments for 'lpush' command
    LRANGE l 0 -1 => ['4', '3', '2', '1']
    LRANGE l 0 0 => ['4']
    LRANGE l 1 2 => ['3', '2']
    LRANGE l -2 -1 => ['2', '1']
    LRANGE l -100 1 => ['4', '3']
    LRANGE l 3 100 => ['1']
    LRANGE l 4 9 => []
    LRANGE l 9 100 => []
    LRANGE l 2 1 => []
    LRANGE l 0 -5 => []
    LRANGE l 0 -100 => []
    LRANGE l 0 x => ERR value is not an integer or out of range
    LRANGE no 0 -1 => []
    GET no => nil

    LPUSH l 1 => 1
    GET l => WRONGTYPE Operation against a key holding the wrong kind of value
    INCR l => WRONGTYPE Operation against a key holding the wrong kind of value
    SET l 1 => OK
    GET l => '1'
    LPUSH l 1 => WRONGTYPE Operation against a key holding the wrong kind of value
    LRANGE l 0 1 => WRONGTYPE Operation against a key holding the wrong kind of value

    RPUSH l 1 2 => 2
    LPUSH l 0 => 3
    RPUSH l => ERR wrong number of arguments for 'rpush' command
    LRANGE l 0 -1 => ['0', '1', '2']
    LLEN l => 3
    LPOP l => '0'
    RPOP l => '2'
    RPOP l => '1'
    RPOP l => nil
    LLEN l => 0
    EXISTS l l => 0
    SADD l a => 1
    LPOP l => WRONGTYPE Operation against a key holding the wrong kind of value
    EXISTS l l no => 2

    SADD s a b a => 2
    SADD s a => 0
    SMEMBERS no => []
    SPOP no => nil
    SADD t a => 1
    SMEMBERS t => ['a']
    SPOP t => 'a'
    SPOP t => nil
    SADD t b => 1

    HSET h a 1 b => ERR wrong number of arguments for 'hset' command
    HSET h a 1 b 22 => 2
    HSET h a 333 c 4 c 5 => 1
    HGET h a => '333'
    HGET h z => nil
    HGET no z => nil
    HGETALL h => {'a': '333', 'b': '22', 'c': '5'}
    HGETALL no => {}
    DEL h => 1

    ZADD z 2 b 1 c => 2
    ZADD z 1 a 3 c x => ERR syntax error
    ZADD z x a => ERR value is not a valid float
    ZADD z nan a => ERR value is not a valid float
    ZADD z 1e4_0 a => ERR value is not a valid float
    ZADD z 1 a 3 c => 1
    ZRANGE z 0 -1 => ['a', 'b', 'c']
    ZRANGE z -2 0 => []
    ZPOPMIN z => ['a', 1.0]
    ZPOPMIN z => ['b', 2.0]
    ZPOPMIN z => ['c', 3.0]
    ZADD z +.5E1 x -inf y => 2
    ZPOPMIN z => ['y', -inf]
    ZPOPMIN z => ['x', 5.0]
    ZPOPMIN z => []
    ZRANGE z 0 -1 => []

    MSET a 1 b => ERR wrong number of arguments for 'mset' command
    MSET a 1 b 2 => OK
    LPUSH l 1 => 1
    MGET a b l no => ['1', '2', nil, nil]
    DECR a => 0
    DECRBY a 5 => -5
    DECRBY a x => ERR value is not an integer or out of range

    EXEC => ERR there is no transaction: begin one with MULTI
    DISCARD => ERR there is no transaction: begin one with MULTI
    MULTI => OK
    MULTI => ERR MULTI calls can not be nested
    EXEC => EXECABORT Transaction discarded because of previous errors.
    MULTI => OK
    SET a 1 => QUEUED
    LPUSH a 1 => QUEUED
    GET a => QUEUED
    EXEC => [OK, WRONGTYPE Operation against a key holding the wrong kind of value, '1']
    MULTI => OK
    SET a 2 => QUEUED
    DISCARD => OK
    GET a => '1'
    MULTI => OK
    EXEC => []

    MULTI => OK
    SET a 1 => QUEUED
    FLY => ERR unknown command 'FLY'
    SET c 3 => QUEUED
    EXEC => EXECABORT Transaction discarded because of previous errors.
    MGET a c => [nil, nil]
    EXEC => ERR there is no transaction: begin one with MULTI
    MULTI => OK
    SET a => ERR wrong number of arguments for 'set' command
    DISCARD => OK
    MULTI => OK
    GET a => QUEUED
    QUIT => OK
    EXEC => [nil]

    EXPIRE a 1 => 0
    SET a 1 => OK
    TTL a => -1
    EXPIRE a 5 => 1
    TTL a => 5
    EXPIRE a x => ERR value is not an integer or out of range
    EXPIRE a 0 => 1
    TTL a => -2
"""


def shown(reply):
    """Return a reply as it stands above."""
    if isinstance(reply, list | set):
        return f"[{', '.join(map(shown, reply))}]"
    if isinstance(reply, dict):
        return f"{{{', '.join(f'{shown(name)}: {shown(reply[name])}' for name in reply)}}}"
    return "nil" if reply is None else ascii(reply)[1:] if type(reply) is bytes else str(reply)


@pytest.mark.parametrize("dialogue", DIALOGUES.strip().split("\n\n"), ids=brief)
def test_commands(dialogue):
    def main(do, service):
        for line in dialogue.splitlines():
            request, _, wanted = line.strip().partition(" => ")
            assert shown(do(*request.split())) == wanted, request
            assert service.used == sum(store.cost(*item) for item in service.values.items())
        yield

    inside(main)


def test_what_cannot_be_typed():
    def main(do, service):
        assert str(do(b"\xff\r\n")) == r"ERR unknown command '\xff\r\n'"
        assert do("SET", "a", "9" * 5000) == "OK"
        assert isinstance(do("INCR", "a"), Refused)
        assert do("SET", b"\0", b"") == "OK"
        assert do("GET", b"\0") == b""
        assert isinstance(do("INCR", b"\0"), Refused)
        yield

    inside(main)


def test_every_command_that_is_promised_is_there():
    there = {name.decode() for name in COMMANDS | CLIENTS_OWN}
    promised = set(re.findall(r"\b[A-Z]{3,}\b", keyvalue.__doc__)) - {"HTTP", "SIGTERM", "GNU"}
    assert there - {"COMMAND", "QUIT"} == promised


def test_limits():
    def main(do, service):
        assert do("SET", "a", "x" * STRING) == "OK"
        for request in (
            ("SET", "a", "x" * (STRING + 1)),
            ("SET", "k" * (STRING + 1), "x"),
            ("LPUSH", "l", "x", "x" * (STRING + 1)),
        ):
            assert "exceeds maximum allowed size" in str(do(*request))
        assert "OOM" in str(do("MSET", "a", "y", "b", "x" * STRING, "c", "x" * STRING))
        assert do("GET", "a") == b"x" * STRING
        assert "OOM" in str(do("SET", "b", "x" * STRING))  # with what both cost besides
        assert "OOM" in str(do("LPUSH", "b", *["x" * (STRING // 2)] * 2))
        assert do("GET", "b") is None
        assert do("SET", "a", "y" * STRING) == "OK"  # in place of the other
        assert do("SET", "a", "y") == "OK"
        assert do("SET", "b", "x" * STRING) == "OK"
        assert do("DEL", "a", "b") == 2
        assert service.used == 0
        count = 0
        while do("LPUSH", "l", count) == count + 1:
            count += 1
        assert MIB // (ENTRY + 10) < count < MIB // ENTRY
        assert "OOM" in str(do("INCR", "n"))
        assert do("LRANGE", "l", 0, 0) == [b"%d" % (count - 1)]
        assert do("DEL", "l") == 1
        assert do("INCR", "n") == 1
        yield

    inside(main)


# Time ---------------------------------------------------------------------------------------------


def test_a_key_lives_as_long_as_it_was_told():
    def main(do, service):
        assert do("SET", "a", 1, "PX", 1500) == "OK"
        assert do("SET", "b", 1) == "OK"
        assert do("LPUSH", "l", 1) == 1
        assert do("EXPIRE", "l", 2) == do("EXPIRE", "b", 3) == 1
        yield Sleep(1.4)
        assert (do("GET", "a"), do("TTL", "a"), do("TTL", "l")) == (b"1", 0, 1)
        yield Sleep(0.1)
        assert (do("GET", "a"), do("TTL", "a"), do("DEL", "a")) == (None, -2, 0)
        yield Sleep(1)
        assert do("LRANGE", "l", 0, -1) == []
        assert do("LPUSH", "l", 2) == 1  # a new one, which has no deadline
        assert do("TTL", "l") == -1
        assert do("EXPIRE", "b", 10) == 1
        yield Sleep(1)
        assert do("SET", "b", 2, "XX") == "OK"
        yield Sleep(100)
        assert do("GET", "b") == b"2"
        assert service.expired == 2

    inside(main)


def test_what_nobody_asks_for_is_swept_out_a_few_at_a_time():
    def main(do, service):
        for n in range(500):
            do("SET", f"short {n}", n, "EX", 2)
            do("SET", f"long {n}", n, "EX", 20)
            do("SET", f"kept {n}", n)
        looks = []
        find = service.find
        service.find = lambda key: looks.append(now()) or find(key)
        spawn(service.sweep, daemon=True)
        yield Sleep(1.95)
        assert len(service.values) == 1500
        yield Sleep(0.5)
        assert len(service.values) == 1000  # without a pause, as long as there are many
        looks.clear()
        yield Sleep(10)
        assert len(looks) <= 101 * store.SWEPT  # and with one, when there are few
        yield Sleep(10)
        assert len(service.values) == 500
        assert len(service.deadlines) == 0
        assert service.expired == 1000
        assert service.used == sum(store.cost(*item) for item in service.values.items())

    inside(main)


def test_the_server_sweeps():
    def main():
        listener = listen_tcp("127.0.0.1", 0)
        task = spawn(serve, listener, MIB)
        with (yield from open_tcp(*listener.addresses[0])) as stream:
            yield from stream.sendall(b"SET a 1 EX 1\r\n")
            assert (yield from stream.readline()) == b"+OK\r\n"
            yield Sleep(10)
            yield from stream.sendall(b"INFO\r\n")
            yield from stream.readuntil(b"expired_keys:1\r\nkeys:0\r\n")
        yield from task.stop()

    scenario(main)


def test_who_waits_outside_comes_in_when_the_idle_are_let_go(monkeypatch):
    monkeypatch.setattr(keyvalue, "CLIENTS", 2)

    def main():
        with listen_tcp("127.0.0.1", 0) as listener, ExitStack() as clients:
            serving = spawn(serve, listener, MIB)
            for _ in range(3):
                stream = yield from open_tcp(*listener.addresses[0])
                clients.enter_context(stream)
            yield from stream.sendall(b"PING\r\n")
            with timeout(1000):
                assert (yield from stream.readline()) == b"+PONG\r\n"
            # Seconds: who has been idle for that long makes room on a server that is full.
            assert 10 <= now() < 10 + 5
            yield from serving.stop()

    scenario(main)


def test_info():
    def main(do, service):
        port = service.server.listener.addresses[0][1]
        do("SET", "a", 1)
        with (yield from open_tcp("127.0.0.1", port)) as stream:
            yield from stream.sendall(b"PING\r\n")
            assert (yield from stream.readline()) == b"+PONG\r\n"
            yield Sleep(10)
            facts = dict(line.split(":") for line in do("INFO", "server").decode().splitlines())
        assert facts["connected_clients"] == facts["total_connections_received"] == "1"
        assert facts["uptime_in_seconds"] == "10"
        assert facts["keys"] == "1"
        assert facts["used_memory"] == str(ENTRY + 2)

    inside(main)


def test_a_store_needs_no_server():
    def main():
        kept = Store(MIB)
        kept.set(b"a", b"1")
        yield
        return kept.get(b"a")

    assert scenario(main) == b"1"
