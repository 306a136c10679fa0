"""The list of demos, the chat room, the port forwarder and the downloader."""

import errno
import importlib.util
import io
import math
import os
import re
import signal
import socket
import sys
import threading
import time
import warnings
from argparse import ArgumentTypeError, Namespace
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

import demos.__main__ as listing
from corolib import (
    Event,
    ReadWait,
    Sleep,
    Stream,
    TaskGroup,
    WriteWait,
    current_scheduler,
    gather,
    listen_tcp,
    move_on_after,
    now,
    open_tcp,
    run,
    spawn,
    timeout,
)
from corolib.demo.echo import accept_clients
from corolib.demo.ports import announce
from corolib.demo.start import at_least
from corolib.testing import virtual_time
from demos.chat import BEHIND, Room, serve, serve_shared, visit
from demos.download import Download, http_url
from demos.faults import CHUNK, QUEUED, Faults, Side, Struck, Way
from demos.forward import Forwarder
from tests.helpers.driving import echo, until
from tests.helpers.inside import file_of
from tests.helpers.programs import (
    PATIENCE,
    ROOT,
    Program,
    exchange,
    outcome,
    quiet,
    read_all,
    serving,
    start,
)
from tests.helpers.sockets import reset

# The list -----------------------------------------------------------------------------------------


class TestList:
    def test_it_has_a_line_for_each_demo_by_folder(self):
        status, out, err = outcome("demos")
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == "demos"
        for name, text in listing.demos().items():
            assert text.endswith("."), name
            assert re.fullmatch(rf"  {re.escape(name)} +{re.escape(text)}", lines.pop(1)), name
            while len(lines) > 1 and not lines[1].startswith(" "):
                assert lines.pop(1).startswith("demos.")
        assert len(lines) == 1

    def test_a_name_is_answered_by_how_to_run_it(self):
        for name in ("echo", "demos.echo"):
            status, out, err = outcome("demos", name)
            assert (status, out) == (1, "")
            assert err == "demos.echo is run by: python3 -m demos.echo\n"
        assert outcome("demos", "ecco") == (1, "", "demos.ecco is not among the demos\n")

    def test_a_folder_is_listed_by_its_name(self):
        status, out, err = outcome("demos", "web")
        assert (status, err) == (0, "")
        heading, *rows = out.splitlines()
        assert heading == "demos.web"
        names = [name for name in listing.demos() if name.startswith("demos.web.")]
        assert [row.split()[0] for row in rows] == names
        assert outcome("demos.web") == (0, out, "")

    def test_the_cookbook_is_listed_too(self):
        status, out, err = outcome("demos.cookbook")
        assert (status, err) == (0, "")
        assert "\n  demos.cookbook.compare " in out and "\n  demos.cookbook.old " in out

    def test_the_guide_says_of_each_server_whether_it_may_be_exposed(self):
        page = (ROOT / "demos" / "guide" / "exposing.md").read_text("utf-8")
        table = page[page.index("| may it be exposed? |") :]
        told = tuple(re.findall(r"`(demos\.[\w.]+)`", table))
        for path in (ROOT / "demos").rglob("*.py"):
            if "options.host" in path.read_text("utf-8"):
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                assert name.startswith(told), name

    @pytest.mark.parametrize("args", [[], ["--help"]])
    def test_a_reader_who_has_gone_ends_it_quietly(self, args):
        read, write = os.pipe()
        os.close(read)
        with open(write, "w") as nobody:
            assert outcome("demos", *args, stdout=nobody) == (141, None, "")

    def test_a_full_disk_gets_one_line(self):
        if not os.path.exists("/dev/full"):
            pytest.skip("no /dev/full here")
        with open("/dev/full", "w") as full:
            expected = f"cannot print: {os.strerror(errno.ENOSPC)}\n"
            assert outcome("demos", stdout=full) == (1, None, expected)

    def test_what_counts_as_a_demo(self, tmp_path, monkeypatch):
        files = {
            "__init__.py": "",
            "__main__.py": "def main(options): pass",
            "a.py": '"""First.\n\nNot this."""\nimport no_such_package\ndef main(options): pass',
            "b.py": "def other(): pass\nif True:\n    def main(options): pass",
            "c.py": "from a import main",
            "folder/__init__.py": "",
            "folder/__main__.py": '"""A package."""\nfrom x import y\ny()',
            "folder/1st.py": "def main(options): pass",
        }
        monkeypatch.setattr(listing, "HERE", tmp_path / "demos")
        for name, text in files.items():
            path = tmp_path / "demos" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        found = listing.demos()
        assert found == {"demos.a": "First.", "demos.folder": "A package.", "demos.folder.1st": ""}
        assert list(found) == ["demos.a", "demos.folder", "demos.folder.1st"]
        assert list(map(listing.folder_of, found)) == ["demos", "demos.folder", "demos.folder"]


# What all of them say and accept -----------------------------------------------------------------


def run_as_main(name, patch):
    """Do what `python -m` does. (`runpy` does not get on with how pytest may load modules.)"""
    spec = importlib.util.find_spec(name)
    if spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    module = ModuleType("__main__")
    module.__spec__, module.__file__ = spec, spec.origin
    patch.setitem(sys.modules, "__main__", module)
    exec(compile(Path(spec.origin).read_text("utf-8"), spec.origin, "exec"), vars(module))


@pytest.mark.found("D9")
def test_every_demo_shows_an_example_and_refuses_wrong_addresses_alike(
    monkeypatch, tmp_path, capsys
):
    """All in this process: to start one for each would take a minute."""

    def told(name, *args):
        with (tmp_path / "out").open("w+") as out, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "argv", [name, *args])
            with pytest.raises(SystemExit) as caught, warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # some are imported already
                run_as_main(name, patch)
            sys.stdout.flush()
            return caught.value.code, (tmp_path / "out").read_text(), capsys.readouterr().err

    servers = []
    for name in [*listing.demos(), "demos"]:
        status, out, err = told(name, "--help")
        assert (status, err) == (0, ""), name
        assert "example:\n" in out and f"python3 -m {name.removesuffix('.__main__')}" in out, name
        if "--port" in out:
            servers.append(name)
            for option in ("--port=99999", "--port=abc", "--host="):
                status, out, err = told(name, option)
                assert (status, out) == (2, ""), (name, option)
                assert err.count("\n") == 1 and "argument --" in err, (name, option)
    assert len(servers) > 20


@pytest.mark.found("D9")
@pytest.mark.parametrize("name", ["echo", "cookbook.hello"])
def test_at_a_terminal_a_client_gets_a_line_and_ctrl_c_leaves_the_cursor_at_the_margin(name):
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as terminal, open(theirs, "wb") as stderr:
        with Program(f"demos.{name}", stderr=stderr) as program:
            with program.connect() as conn:
                host, port = conn.getsockname()
                line = f"a client: {host} port {port}\r\n".encode()
                shown = b""
                while line not in shown:
                    shown += terminal.read(1000)
            status, _, _ = program.stop()
        assert status == 130
        assert terminal.read(1000).endswith(b"\r\n")


def test_no_more_than_ten_clients_a_second_get_a_line(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    clock = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    monkeypatch.setattr(sys, "stderr", Terminal())
    for _ in range(3):
        for port in range(20):
            assert announce(("::1", port, 0, 0))
        clock += 1.5
    assert len(sys.stderr.getvalue().splitlines()) == 30
    monkeypatch.setattr(sys, "stderr", None)
    assert announce(("::1", 1, 0, 0))


# Chat ---------------------------------------------------------------------------------------------


class Guest:
    """A client of the chat room that reads lines."""

    def __init__(self, program: Program, name: str) -> None:
        self.sock = program.connect()
        self.file = self.sock.makefile("rb")
        self.say(name)
        assert self.hear() == "* your name?"

    def say(self, *lines: str) -> None:
        self.sock.sendall("".join(f"{line}\n" for line in lines).encode())

    def hear(self) -> str:
        return self.file.readline().decode().rstrip("\n")

    def close(self) -> None:
        self.file.close()
        self.sock.close()


@pytest.fixture(scope="class")
def chat():
    with Program("demos.chat") as program:
        yield program


@pytest.fixture
def join(chat):
    """Return a function that lets somebody come to the room; all are gone afterwards."""
    guests = []

    def come(name):
        guests.append(Guest(chat, name))
        return guests[-1]

    yield come
    for guest in guests:
        guest.close()
    empty = Guest(chat, "last")  # nobody is left when the next test begins
    while empty.hear() != "* welcome, last; here: last":
        empty.say("last")
        time.sleep(0.01)
        empty.close()
        empty = Guest(chat, "last")
    empty.sock.shutdown(socket.SHUT_WR)
    assert read_all(empty.sock) == b""
    empty.close()


def test_too_few_open_files_are_one_line():
    status, _, err = outcome("demos.chat", "--port=0", shell="ulimit -n 6")
    assert (status, err) == (1, "Too many open files\n")


class TestChat:
    def test_everybody_hears_the_others(self, chat, join):
        ann = join("ann")
        assert ann.hear() == "* welcome, ann; here: ann"
        bob = join("bob")
        assert bob.hear() == "* welcome, bob; here: ann, bob"
        assert ann.hear() == "* bob is here"
        ann.say("hello", "", " \t ", "how are you?")
        bob.say("Grüße")
        assert [bob.hear(), bob.hear()] == ["<ann> hello", "<ann> how are you?"]
        assert ann.hear() == "<bob> Grüße"
        ann.sock.shutdown(socket.SHUT_WR)
        assert bob.hear() == "* ann has left"
        assert ann.hear() == ""
        reset(join("carl").sock)
        assert bob.hear() in ("* carl is here", "* carl has left")

    def test_a_name_is_short_and_nobody_elses(self, join):
        ann = join("ann")
        assert ann.hear() == "* welcome, ann; here: ann"
        other = join("ann")
        for name in ("", "two words", "x" * 21, "\x1b[2J", "bob"):
            assert other.hear() == "* take up to 20 letters and digits, a to z and 0 to 9,"
            assert other.hear() == "* that look like nobody else's name"
            assert other.hear() == "* your name?"
            other.say(name)
        assert other.hear() == "* welcome, bob; here: ann, bob"

    @pytest.mark.found("D8")
    def test_nobody_can_be_taken_for_another(self, join):
        ann = join("Olli10")
        assert ann.hear() == "* welcome, Olli10; here: Olli10"
        other = join("OLLI10")
        for name in ("0lliIO", "olIil0", "\u041ell\u0456", "e\u0301" * 5, "\uff21nn", "bob"):
            assert other.hear().startswith("* take up to 20 letters")
            assert other.hear() == "* that look like nobody else's name"
            assert other.hear() == "* your name?"
            other.say(name)
        assert other.hear() == "* welcome, bob; here: Olli10, bob"

    @pytest.mark.found("D8")
    def test_piles_of_accents_are_cut_and_accents_are_not(self, join):
        ann, bob = join("ann"), join("bob")
        assert ann.hear() == "* welcome, ann; here: ann" and ann.hear() == "* bob is here"
        bob.sock.sendall(("e" + "\u0301" * 400 + " a\u0323\u0302 ok\n").encode())
        assert ann.hear() == "<bob> e" + "\u0301" * 3 + " a\u0323\u0302 ok"

    @pytest.mark.found("D8")
    def test_who_gives_no_name_makes_room(self, monkeypatch):
        monkeypatch.setattr("demos.chat.GUESTS", 2)

        def main():
            with listen_tcp("127.0.0.1", 0) as listener:
                serving = spawn(serve, listener)
                silent = []
                for _ in range(2):
                    silent.append((yield from open_tcp(*listener.addresses[0])))
                yield from silent[1].sendall(b"\n" * 3)
                with silent[0], silent[1], (yield from open_tcp(*listener.addresses[0])) as guest:
                    with timeout(100):
                        assert (yield from guest.readline()) == b"* your name?\n"
                    assert 30 <= now() < 45  # with the time in which they may still read
                    for each in silent:
                        while (yield from each.readline()):
                            pass
                yield from serving.stop()

        run(main, **virtual_time())

    def test_what_plays_tricks_on_terminals_is_left_out(self, join):
        ann, bob = join("ann"), join("bob")
        assert ann.hear() == "* welcome, ann; here: ann" and ann.hear() == "* bob is here"
        bob.sock.sendall(b"\x1b[2Jone\x07\rtwo\xff\r\n")
        assert ann.hear() == "<bob> [2Jonetwo\ufffd"

    def test_a_line_that_is_too_long_ends_the_visit(self, join):
        ann, bob = join("ann"), join("bob")
        assert ann.hear() == "* welcome, ann; here: ann" and ann.hear() == "* bob is here"
        bob.say("x" * 999)
        assert ann.hear() == f"<bob> {'x' * 999}"
        bob.sock.sendall(b"x" * 1001)
        assert ann.hear() == "* bob has left"
        assert bob.hear().startswith("* welcome")
        assert bob.hear() == "* a line has at most 1000 bytes; good-bye"
        assert bob.hear() == ""

    def test_who_breaks_off_has_left(self, join):
        ann, bob = join("ann"), join("bob")
        assert ann.hear() == "* welcome, ann; here: ann" and ann.hear() == "* bob is here"
        bob.file.close()
        reset(bob.sock)
        assert ann.hear() == "* bob has left"

    def test_a_guest_who_does_not_read_holds_nobody_up_and_is_told_what_he_lost(self):
        """Inside, on Unix sockets: TCP's buffers may hold any number of lines."""
        count, at_once = 2000, BEHIND // 2

        def host(room, stream):
            with stream:
                yield from visit(room, stream)

        def join(room, name):
            ours, theirs = socket.socketpair()
            for sock in (ours, theirs):
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            spawn(host, room, Stream(theirs), daemon=True)
            guest = Stream(ours)
            yield from guest.sendall(f"{name}\n".encode())
            while not (yield from guest.readline()).startswith(b"* welcome"):
                pass
            return guest

        def number(line):
            return int(line.removeprefix(b"<ann>"))

        def main():
            room = Room()
            slow = yield from join(room, "slow")
            bob = yield from join(room, "bob")
            ann = yield from join(room, "ann")
            assert (yield from bob.readline()) == b"* ann is here\n"
            with ann, bob, slow:
                for begin in range(0, count, at_once):
                    some = range(begin, begin + at_once)
                    yield from ann.sendall(b"".join(b"%990d\n" % i for i in some))
                    for i in some:
                        assert number((yield from bob.readline())) == i
                for who in (b"bob", b"ann"):
                    assert (yield from slow.readline()) == b"* %s is here\n" % who
                came, lost = 0, 0
                while came + lost < count:
                    line = yield from slow.readline()
                    if told := re.fullmatch(rb"\* you were too slow for (\d+) lines\n", line):
                        assert not lost
                        lost = int(told[1])
                    else:
                        assert number(line) == came + lost
                        came += 1
                assert BEHIND < came < count / 2, "what its buffers held, and the last hundred"
                yield from ann.sendall(b"done\n")
                assert (yield from slow.readline()) == b"<ann> done\n"

        run(main)

    def test_who_breaks_off_while_he_is_told_something_is_no_failure(self):
        """The two tasks of a guest both get the error, in the same turn."""
        failed = []

        def waits_to_write():
            return any(isinstance(task.wait, WriteWait) for task in current_scheduler().tasks)

        def main():
            room = Room()
            with listen_tcp("127.0.0.1", 0) as listener:
                server = listener.serve(partial(visit, room), grace=0)
                with (yield from open_tcp(*listener.addresses[0])) as guest:
                    yield from guest.sendall(b"bob\n")
                    while "bob" not in room.names:
                        yield
                    while not waits_to_write():
                        yield from room.say("ann", "x" * 100_000)
                        yield
                    reset(file_of(guest))
                while room.names:
                    yield
                yield from server.stop()

        run(main, on_task_error=lambda task, exc: failed.append(exc))
        assert failed == []

    def test_there_is_room_for_so_many_guests(self, monkeypatch):
        monkeypatch.setattr("demos.chat.GUESTS", 2)

        def main():
            with listen_tcp("127.0.0.1", 0) as listener:
                serving = spawn(serve, listener)
                guests = []
                for _ in range(3):
                    guests.append((yield from open_tcp(*listener.addresses[0])))
                with guests[0] as first, guests[1] as second, guests[2] as third:
                    for name, guest in ((b"ann", first), (b"bob", second)):
                        assert (yield from guest.readline()) == b"* your name?\n"
                        yield from guest.sendall(name + b"\n")
                    with move_on_after(1000) as scope:
                        yield from third.more()
                    assert scope.expired
                    first.close()
                    assert (yield from third.readline()) == b"* your name?\n"
                yield from serving.stop()

        run(main, **virtual_time())

    def test_ctrl_c_ends_it_although_guests_are_there(self):
        with Program("demos.chat") as program:
            guest = Guest(program, "ann")
            assert guest.hear().startswith("* welcome")
            status, out, err = program.stop()
            assert (status, out) == (130, "")
            assert quiet(err), err
            assert guest.hear() == ""
            guest.close()


def test_a_room_of_several_servers(redis_server, monkeypatch):
    """Two servers, each with its own client of Redis's; then Redis is away, and comes again."""
    pytest.importorskip("hiredis")

    def join(listener, *names):
        guest = yield from open_tcp(*listener.addresses[0])
        for name in names:
            while not (yield from guest.readline()).endswith(b"your name?\n"):
                pass
            yield from guest.sendall(f"{name}\n".encode())
        return guest

    def heard(guest, *lines):
        for line in lines:
            assert (yield from guest.readline()).decode() == f"{line}\n"

    def say_again(guest):
        while True:
            yield from guest.sendall(b"again\n")
            yield Sleep(0.01)

    def main():
        with listen_tcp("127.0.0.1", 0) as one, listen_tcp("127.0.0.1", 0) as two:
            where = "127.0.0.1", redis_server.port
            servers = [spawn(serve_shared, listener, *where) for listener in (one, two)]
            ann = yield from join(one, "Ann")
            yield from heard(ann, "* welcome, Ann; here: Ann")
            bob = yield from join(two, "ANN", "bob")
            with ann:
                with bob:
                    yield from heard(bob, "* welcome, bob; here: Ann, bob")
                    yield from heard(ann, "* bob is here")
                    yield from ann.sendall("Grüße an alle\n".encode())
                    yield from heard(bob, "<Ann> Grüße an alle")
                yield from heard(ann, "* bob has left")
                redis_server.kill()
                monkeypatch.setattr("demos.chat.ANSWER", 0.1)
                yield from ann.sendall(b"hello?\n")
                yield from heard(ann, "* the room was cut off: a line may be lost")
                carl = yield from join(two, "carl")
                yield from heard(carl, "* take up to 20 letters and digits, a to z and 0 to 9,")
                carl.close()
                redis_server.start()
                monkeypatch.undo()
                dora = yield from join(two, "dora")
                with dora:
                    yield from heard(dora, "* welcome, dora; here: dora")
                    # Ann's server may hear of the room only later.
                    teller = spawn(say_again, dora)
                    while (yield from ann.readline()) != b"<dora> again\n":
                        pass
                    yield from teller.stop()
            for server in servers:
                yield from server.stop()

    run(main)


def test_a_shared_room_bears_what_others_do_to_redis(redis_server):
    """Foreign messages and keys; a Redis that is full, or forbids: and no traceback."""
    pytest.importorskip("hiredis")

    def ask(*command):
        parts = [b"*%d\r\n" % len(command)]
        parts += [b"$%d\r\n%s\r\n" % (len(each), each) for each in command]
        redis.sendall(b"".join(parts))
        assert not redis.recv(100).startswith(b"-")

    with (
        Program("demos.chat", f"--redis=127.0.0.1:{redis_server.port}") as program,
        socket.create_connection(("127.0.0.1", redis_server.port), PATIENCE) as redis,
    ):
        ann = Guest(program, "ann")
        assert ann.hear() == "* welcome, ann; here: ann"
        ask(b"SET", b"chat:other", b"\xff\x1b[2J")
        ask(b"PUBLISH", b"chat", b"other \xff\x1b[2J")
        assert ann.hear() == "\ufffd[2J"
        bob = Guest(program, "bob")
        assert bob.hear() == "* welcome, bob; here: ann, bob, \ufffd[2J"
        assert ann.hear() == "* bob is here"
        ask(b"CONFIG", b"SET", b"maxmemory", b"1")
        carl = Guest(program, "carl")
        assert carl.hear().startswith("* take up to 20 letters")
        ann.say("hello")
        assert bob.hear() == "<ann> hello"
        ask(b"ACL", b"SETUSER", b"default", b"-publish", b"-keys")
        ann.say("hello?")
        assert bob.hear() == "* the room was cut off: a line may be lost"
        ask(b"CONFIG", b"SET", b"maxmemory", b"0")
        carl.say("carl")
        while not (said := carl.hear()).startswith("* welcome"):
            pass
        assert said == "* welcome, carl; here: ann, bob, carl"
        status, _, err = program.stop()
        assert status == 130
        assert quiet(err), err
        for guest in (ann, bob, carl):
            guest.close()


@pytest.mark.parametrize("when", ["at first", "later"])
def test_a_shared_room_that_may_not_hear_ends_with_a_word(redis_server, when):
    pytest.importorskip("hiredis")
    with socket.create_connection(("127.0.0.1", redis_server.port), PATIENCE) as redis:
        if when == "at first":
            redis.sendall(b"ACL SETUSER default -subscribe\r\n")
            assert redis.recv(100) == b"+OK\r\n"
        with Program("demos.chat", f"--redis=127.0.0.1:{redis_server.port}") as program:
            if when == "later":
                guest = Guest(program, "ann")
                assert guest.hear().startswith("* welcome")
                redis.sendall(b"ACL SETUSER default -subscribe\r\n")
                assert redis.recv(100) == b"+OK\r\n"
                redis.sendall(b"CLIENT KILL TYPE pubsub\r\n")
                assert guest.hear() == ""
                guest.close()
            _, err = program.process.communicate(timeout=PATIENCE)
            assert program.process.returncode == 1
            assert re.match("Redis (refuses|does not let this server hear)", err.splitlines()[-1])
            assert "Traceback" not in err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_shared_room_ends_without_an_error(redis_server, signum):
    pytest.importorskip("hiredis")
    with Program("demos.chat", f"--redis=127.0.0.1:{redis_server.port}") as program:
        program.connect().close()
        program.process.send_signal(signum)
        _, err = program.process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err, err


# The port forwarder -------------------------------------------------------------------------------


class Source:
    """Says what stands in its script, each at its time, and then that it is the end."""

    def __init__(self, *script: tuple[float, bytes]) -> None:
        self.script = list(script)

    def recv(self, most):
        if not self.script:
            return b""
        at, data = self.script.pop(0)
        yield Sleep(at=at)
        return data


class Target:
    """Keeps what it is sent, and when."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, bytes]] = []

    def sendall(self, data):
        self.sent.append((now(), bytes(data)))
        yield

    def send_eof(self):
        yield from self.sendall(b"")


def passed(*script, seed="", **faults):
    """Return what comes out, and when, where `script` goes in; and whether the fault struck."""
    target = Target()
    way = Way(Source(*script), target, Faults(**faults), seed)

    def main():
        with TaskGroup() as g:
            g.spawn(way.read)
            g.spawn(way.write)
            yield from g

    struck = False
    try:
        run(main, **virtual_time())
    except* Struck:
        struck = True
    return target.sent, struck


class TestFaults:
    def test_without_one_all_passes_at_once(self):
        assert passed((0, b"a"), (5, b"b" * 65536)) == (
            [(0, b"a"), (5, b"b" * 65536), (5, b"")],
            False,
        )

    def test_a_delay_is_one_for_each_and_not_one_after_the_other(self):
        script = [(0, b"a"), (1, b"b"), (1, b"c")]
        assert passed(*script, delay=10) == ([(10, b"a"), (11, b"b"), (11, b"c"), (11, b"")], False)

    def test_jitter_lets_nothing_overtake_and_depends_on_the_seed(self):
        script = [(i / 10, b"%d" % i) for i in range(100)]
        sent, _ = passed(*script, jitter=1, delay=5)
        times = [at for at, _ in sent]
        assert [data for _, data in sent] == [data for _, data in script] + [b""]
        assert times == sorted(times)
        assert all(at - due >= 5 for (due, _), (at, _) in zip(script, sent, strict=False))
        assert len(set(times)) > 10
        assert passed(*script, jitter=1, delay=5) == (sent, False)
        assert passed(*script, jitter=1, delay=5, seed="2") != (sent, False)

    def test_the_rate_is_kept_smoothly_and_saved_time_is_not_spent_later(self):
        script = [(0, b"x" * 500), (60, b"x" * 500)]
        sent, _ = passed(*script, rate=100)
        assert [len(data) for _, data in sent] == [5] * 200 + [0]
        assert [at for at, _ in sent] == pytest.approx(
            [(i + 1) / 20 for i in range(100)] + [60 + (i + 1) / 20 for i in range(100)] + [65]
        )

    def test_pieces_are_short_and_cut_at_the_same_places_however_the_data_comes(self):
        data = bytes(range(256))

        def cuts(*script, seed=""):
            sent, _ = passed(*script, pieces=7, seed=seed)
            sizes = [len(data) for _, data in sent]
            assert b"".join(data for _, data in sent) == data and sizes.pop() == 0
            assert set(sizes) <= set(range(1, 8)) and len(set(sizes)) > 3
            return {sum(sizes[:i]) for i in range(len(sizes))}

        whole = cuts((0, data))
        assert cuts((0, data)) == whole
        assert cuts((0, data), seed="2") != whole
        for at in range(1, 256, 25):
            assert cuts((0, data[:at]), (1, data[at:])) == whole | {at}

    @pytest.mark.parametrize(("size", "struck"), [(99, False), (100, True), (101, True)])
    def test_it_strikes_after_so_many_bytes(self, size, struck):
        sent, really = passed((0, bytes(60)), (1, bytes(size - 60)), after=100)
        assert really is struck
        assert sum(len(data) for _, data in sent) == min(size, 100)
        assert (sent[-1][1] == b"") is not struck

    def test_it_strikes_before_anything_has_come(self):
        assert passed((1000, b"x"), after=0) == ([], True)


@pytest.fixture
def forwarding(capsys):
    """Return a function that runs `client(address)` with a forwarder at that address, in front of
    `server`, and returns what the forwarder says.
    """
    settings = {"delay": 0.0, "jitter": 0.0, "rate": math.inf, "pieces": None, "only": None}
    settings |= {"after": sys.maxsize, "then": "cut", "chance": 1.0, "seed": 0}

    def forward(client, server=echo, **faults):
        def main():
            with (
                listen_tcp("127.0.0.1", 0) as there,
                socket.create_server(("127.0.0.1", 0)) as here,
            ):
                serving = there.serve(server, grace=0)
                host, port = there.addresses[0]
                options = {"to_host": host, "to_port": port, **settings, **faults}
                here.setblocking(False)
                forwarder = spawn(accept_clients, here, Forwarder(Namespace(**options)).forward)
                with timeout(PATIENCE):
                    yield from client(here.getsockname())
                yield from forwarder.stop()
                yield from serving.stop()

        run(main)
        out, err = capsys.readouterr()
        assert quiet(err), err
        return out.splitlines()

    return forward


def read_to_the_end(stream):
    """Return all that comes, and whether the end was a reset."""
    data, broken = bytearray(), False
    try:
        while part := (yield from stream.recv(65536)):
            data += part
    except ConnectionResetError:
        broken = True
    return bytes(data), broken


class TestForward:
    def test_each_direction_ends_by_itself(self, forwarding):
        def server(stream):
            question, _ = yield from read_to_the_end(stream)
            yield from stream.sendall(question.upper())

        def client(address):
            with (yield from open_tcp(*address)) as stream:
                yield from stream.sendall(b"is anybody there?")
                yield from stream.send_eof()
                assert (yield from read_to_the_end(stream)) == (b"IS ANYBODY THERE?", False)
            yield Sleep(0.01)

        assert forwarding(client, server) == ["1: 17 bytes there, 17 back; ended"]

    def test_the_server_may_be_the_first_to_end(self, forwarding):
        heard = []

        def server(stream):
            yield from stream.sendall(b"speak")
            yield from stream.send_eof()
            heard.append((yield from read_to_the_end(stream)))

        def client(address):
            with (yield from open_tcp(*address)) as stream:
                assert (yield from read_to_the_end(stream)) == (b"speak", False)
                yield from stream.sendall(b"thank you")
            yield from until(lambda: heard)

        assert forwarding(client, server) == ["1: 9 bytes there, 5 back; ended"]
        assert heard == [(b"thank you", False)]

    @pytest.mark.parametrize("faults", [{}, {"pieces": 5000, "delay": 0.001}])
    def test_much_passes_whole_both_ways(self, forwarding, faults):
        data = os.urandom(1 << 20)

        def send(stream):
            yield from stream.sendall(data)
            yield from stream.send_eof()

        def client(address):
            with (yield from open_tcp(*address)) as stream:
                _, answer = yield from gather(send(stream), read_to_the_end(stream))
                assert answer == (data, False)

        assert forwarding(client, **faults) == [f"1: {1 << 20} bytes there, {1 << 20} back; ended"]

    def test_who_does_not_read_stops_the_sender(self):
        """A `Way` from a source without an end to a stream that nobody reads."""
        ours, theirs = socket.socketpair()
        source = Source(*[(0, bytes(CHUNK))] * 200)

        def main():
            for sock in (ours, theirs):
                sock.setblocking(False)
            with Side(ours) as target, Stream(theirs) as reader:
                way = Way(source, target, Faults(), "")
                with TaskGroup() as g:
                    g.spawn(way.read)
                    g.spawn(way.write)
                    yield Sleep(1)
                    assert len(way.queue) == QUEUED
                    assert 200 - len(source.script) == way.passed // CHUNK + 1 + QUEUED + 1
                    data, _ = yield from read_to_the_end(reader)
                    assert len(data) == 200 * CHUNK
                    yield from g

        run(main, **virtual_time())

    def test_cut_off_it_ends_as_if_that_were_all(self, forwarding):
        heard = []

        def server(stream):
            yield from stream.sendall(bytes(1000))
            heard.append((yield from read_to_the_end(stream)))

        def client(address):
            with (yield from open_tcp(*address)) as stream:
                assert (yield from read_to_the_end(stream)) == (bytes(600), False)
            yield from until(lambda: heard)

        lines = forwarding(client, server, after=600)
        assert lines == ["1: 0 bytes there, 600 back; cut"]
        assert heard == [(b"", False)]

    def test_reset_both_sides_are_told(self, forwarding):
        heard = []

        def server(stream):
            heard.append((yield from read_to_the_end(stream)))

        def client(address):
            with (yield from open_tcp(*address)) as stream:
                yield from stream.sendall(bytes(1000))
                assert (yield from read_to_the_end(stream)) == (b"", True)
            yield from until(lambda: heard)

        lines = forwarding(client, server, after=600, then="reset")
        assert lines == ["1: 600 bytes there, 0 back; reset"]
        assert heard == [(bytes(600), True)]

    def test_in_a_hole_all_is_lost_and_nothing_ends(self, forwarding):
        heard, over = [], Event()

        def listen(stream):
            with move_on_after(0.1):
                heard.append((yield from stream.recv(1)))

        def server(stream):
            heard.append((yield from stream.readexactly(600)))
            yield from listen(stream)
            yield from over.wait()

        def client(address):
            with (yield from open_tcp(*address)) as stream:
                yield from stream.sendall(bytes(1000))
                yield from until(lambda: heard)
                yield from stream.sendall(bytes(1000))
                yield from stream.send_eof()
                yield from listen(stream)
                over.set()

        lines = forwarding(client, server, after=600, then="hole")
        assert lines == ["1: 600 bytes there, 0 back; hole"]
        assert heard == [bytes(600)]

    @pytest.mark.parametrize(
        ("only", "line"),
        [
            ("requests", "1: 600 bytes there, 0 back; cut"),
            ("answers", "1: 1000 bytes there, 600 back; cut"),
        ],
    )
    def test_one_direction_alone_may_have_the_fault(self, forwarding, only, line):
        def server(stream):
            question, _ = yield from read_to_the_end(stream)
            if len(question) == 1000:
                yield from stream.sendall(question)

        def client(address):
            with (yield from open_tcp(*address)) as stream:
                yield from stream.sendall(bytes(1000))
                yield from stream.send_eof()
                data, _ = yield from read_to_the_end(stream)
                assert len(data) == (0 if only == "requests" else 600)

        assert forwarding(client, server, after=600, only=only) == [line]

    def test_the_seed_says_which_connections_have_faults(self, forwarding):
        def struck(seed):
            def client(address):
                for _ in range(40):
                    with (yield from open_tcp(*address)) as stream:
                        yield from stream.sendall(b"hello")
                        yield from stream.send_eof()
                        data, _ = yield from read_to_the_end(stream)
                        found.append(data != b"hello")

            found = []
            forwarding(client, after=3, chance=0.3, seed=seed)
            return found

        first = struck(1)
        assert 0 < sum(first) < 40
        assert struck(1) == first
        assert struck(2) != first

    def test_what_breaks_off_on_one_side_is_reset_on_the_other(self, forwarding):
        heard = []

        def server(stream):
            yield from stream.sendall(b"hello")
            heard.append((yield from read_to_the_end(stream)))

        def client(address):
            with (yield from open_tcp(*address)) as stream:
                assert (yield from stream.recv(100)) == b"hello"
            sock = socket.create_connection(address)
            sock.setblocking(False)
            yield ReadWait(sock)
            reset(sock)
            yield from until(lambda: len(heard) == 2)

        assert forwarding(client, server) == [
            "1: 0 bytes there, 5 back; ended",
            "2: 0 bytes there, 5 back; reset",
        ]
        assert heard == [(b"", False), (b"", True)]

    @pytest.mark.found("D2")
    def test_what_was_answered_arrives_though_the_server_has_gone(self, forwarding):
        """It closes while its client still sends, so that the next piece is answered by a reset."""
        size = 60_000
        gone, heard = Event(), []

        def server(stream):
            yield from stream.recv(1)
            yield from stream.sendall(b"x" * size)
            stream.close()
            gone.set()

        def client(address):
            with (yield from open_tcp(*address)) as stream:
                yield from stream.sendall(b"first")
                yield from gone.wait()
                sending = spawn(send_on, stream)
                data, _ = yield from read_to_the_end(stream)
                heard.append(len(data))
                sending.cancel()

        def send_on(stream):
            with suppress(OSError):
                while True:
                    yield from stream.sendall(b"more")
                    yield Sleep(0.001)

        lines = forwarding(client, server, delay=0.05)
        assert heard == [size]
        assert re.fullmatch(rf"1: \d+ bytes there, {size} back; reset", lines[0])

    def test_without_a_server_the_client_is_refused(self, forwarding, reserved):
        def client(address):
            with (yield from open_tcp(*address)) as stream:
                assert (yield from read_to_the_end(stream)) == (b"", True)

        lines = forwarding(client, to_port=reserved)
        assert lines == ["1: [Errno 111] Connection refused"]

    def test_a_connection_that_leads_nowhere_yet_is_closed_with_its_task(self, monkeypatch):
        monkeypatch.setattr("demos.forward.connect", lambda there: (yield Sleep(math.inf)))
        ours, theirs = socket.socketpair()

        def main():
            forwarder = Forwarder(Namespace(to_host="127.0.0.1", to_port=7))
            task = spawn(forwarder.forward, ours)
            yield
            yield from task.stop()

        with theirs:
            ours.setblocking(False)
            run(main)
            assert ours.fileno() == -1


class TestWithoutInput:
    """What a program does whose standard input is closed, as after `<&-`."""

    close = staticmethod(partial(os.close, 0))

    def test_it_is_as_if_the_input_were_empty(self):
        status, out, err = outcome("demos.tour", preexec_fn=self.close)
        assert (status, err) == (0, "") and out.startswith(" 1  one client at a time\n")
        status, out, err = outcome(
            "demos.classic.client", "daytime", "--port=0", preexec_fn=self.close
        )
        assert (status, out) == (1, "") and len(err.splitlines()) == 1

    def test_a_program_that_cannot_go_on_says_so_in_one_line(self):
        status, out, err = outcome("demos.cookbook.event_queue", "--ticks=0", preexec_fn=self.close)
        assert (status, out) == (1, "")
        assert err == "a file cannot be waited for: give a terminal, or a pipe\n"


class TestLimitsOfOptions:
    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            (at_least(1, 9), "0"),
            (at_least(1, 9), "1.5"),
            (at_least(1, 9), "many"),
            (at_least(1, 65535), "65536"),
            (at_least(0.0, 1.0), "-0.1"),
            (at_least(0.0, 1.0), "nan"),
            (at_least(0.0, 1.0), "inf"),
            (at_least(0.0, 1.0), "1.1"),
        ],
    )
    def test_others_are_refused(self, kind, text):
        with pytest.raises((ArgumentTypeError, ValueError)):
            kind(text)

    def test_the_limits_themselves_are_not(self):
        assert at_least(1, 65535)("1") == 1 and at_least(1, 65535)("65535") == 65535
        assert at_least(0.0, 1.0)("0") == 0.0 and at_least(0.0, 1.0)("1") == 1.0
        assert type(at_least(0.0, 1.0)("1")) is float
        assert at_least(1, 9).__name__ == "int"

    def test_far_too_much_is_refused_in_one_line(self):
        status, out, err = outcome("demos.tour.client", "--clients", str(10**9))
        assert (status, out) == (2, "")
        assert err.splitlines()[-1].endswith(
            "--clients: 1000000000: give a number that is at least 1, at most 1000"
        )

    def test_no_option_is_without_a_most(self):
        with pytest.raises(TypeError, match="most"):
            at_least(1)


class TestForwardProgram:
    def test_it_forwards_and_ends_quietly(self):
        with serving(lambda conn: conn.sendall(read_all(conn).upper())) as port:
            with Program("demos.forward", "127.0.0.1", str(port), "--pieces=3") as program:
                assert program.lines[0].endswith(
                    f"to 127.0.0.1 port {port}; try: nc 127.0.0.1 {program.port}\n"
                )
                with program.connect() as sock:
                    assert exchange(sock, b"hello" * 100) == b"HELLO" * 100
                with program.connect() as sock:
                    sock.sendall(b"x")
                    status, out, err = program.stop()
                    assert status == 130 and quiet(err), err
                    assert out == "1: 500 bytes there, 500 back; ended\n"

    @pytest.mark.parametrize(
        ("options", "status"),
        [
            (["127.0.0.1"], 2),
            (["127.0.0.1", "70000"], 2),
            (["127.0.0.1", "7", "--delay=nan"], 2),
            (["nobody.invalid", "7"], 1),
            (["127.0.0.1", "7", "--host=192.0.2.1"], 1),
        ],
    )
    def test_a_wrong_option_gets_one_line(self, options, status):
        found, out, err = outcome("demos.forward", "--port=0", *options)
        assert (found, out) == (status, "")
        assert err.count("\n") == 1, err


@pytest.mark.parametrize("options", [["demos.chat"], ["demos.forward", "127.0.0.1", "7"]])
def test_a_port_in_use_gets_one_line(options):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = outcome(*options, f"--port={port}")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1 and str(port) in err and "in use" in err, err


# The downloader -----------------------------------------------------------------------------------

MUCH = bytes(range(256)) * 1000
OK = b"HTTP/1.1 200 OK\r\n"
SIZE = b"Content-Length: %d\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

ANSWERS = {
    "size": OK + SIZE % len(MUCH) + MUCH + b"and more",
    "chunks": CHUNKED + b"3;x=y\r\nabc\r\n3E800\r\n" + MUCH + b"\r\n0\r\nTrailer: 1\r\n\r\n",
    "until-the-end": OK + b"Server: old\n\n" + MUCH,
    "early": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + SIZE % 2 + b"hi",
    "nothing": OK + SIZE % 0,
    "twice": OK + b"Content-Length: 5, 5\r\ncontent-length: 5\r\n\r\nhello",
}

REFUSED = {
    "missing": (
        b"HTTP/1.1 404 Not \x1b[2J Found\r\n" + SIZE % 0,
        r"answers 'HTTP/1.1 404 Not \x1b[2J Found'",
    ),
    "moved": (
        b"HTTP/1.1 301 Moved\r\nLocation: http://x/y\r\n\r\n",
        "answers 'HTTP/1.1 301 Moved', it is at 'http://x/y'",
    ),
    "broken-size": (OK + SIZE % len(MUCH) + MUCH[:-1], f"broke off after {len(MUCH) - 1} bytes"),
    "broken-chunk": (CHUNKED + b"5\r\nhel", "broke off after 3 bytes"),
    "broken-chunks": (CHUNKED + b"5\r\nhello\r\n", "broke off"),
    "bad-chunk": (CHUNKED + b"-5\r\nhello\r\n", "has no chunk size in b'-5\\r\\n'"),
    "long-chunk": (
        CHUNKED + b"5\r\nhello, you\r\n0\r\n\r\n",
        "has a chunk that is longer than it says",
    ),
    "packed": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nxx", "comes as 'gzip, chunked'"),
    "bad-size": (OK + b"Content-Length: -5\r\n\r\nhello", "has no size in '-5'"),
    "two-sizes": (OK + b"Content-Length: 5, 6\r\n\r\nhello", "has no size in '5, 6'"),
    "long-line": (OK + b"X: " + b"x" * 100_000, "has a line that is too long"),
    "too-large": (OK + SIZE % 10**9, "has more than 300000 bytes"),
    "too-large-chunk": (CHUNKED + b"FFFFFFFF\r\n", "has more than 300000 bytes"),
    "endless": (OK + b"\r\n" + bytes(300001), "has more than 300000 bytes"),
    "silent": (b"", "closes without an answer"),
    "something-else": (b"220 smtp ESMTP\r\n\r\n", "answers '220 smtp ESMTP'"),
}


def asked(conn):
    """Return the path that a client asks for."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += conn.recv(4096)
    first, *fields = head.decode("ascii").split("\r\n")
    assert "Connection: close" in fields
    assert any(field.startswith("Host: 127.0.0.1:") for field in fields)
    return re.fullmatch(r"GET /(\S*) HTTP/1.1", first)[1]


def download(port, *names, into, options=(), **settings):
    urls = [f"http://127.0.0.1:{port}/{name}" for name in names]
    return outcome("demos.download", f"--into={into}", *options, *urls, **settings)


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def lines_of(text, port):
    return sorted(text.replace(f"http://127.0.0.1:{port}/", "").splitlines())


class TestDownload:
    def test_it_fetches_files_however_they_are_sent(self, tmp_path):
        def answer(conn):
            conn.sendall(ANSWERS[asked(conn)])

        (tmp_path / "nothing").write_text("something older")
        with serving(answer) as port:
            status, out, err = download(port, *ANSWERS, into=tmp_path)
        assert (status, err) == (0, "")
        sizes = {"size": len(MUCH), "chunks": len(MUCH) + 3, "until-the-end": len(MUCH)}
        sizes |= {"early": 2, "nothing": 0, "twice": 5}
        expected = [f"{tmp_path}/{name}: {size} bytes from {name}" for name, size in sizes.items()]
        assert lines_of(out, port) == sorted(expected)
        assert sorted(os.listdir(tmp_path)) == sorted(ANSWERS)
        assert (tmp_path / "size").read_bytes() == MUCH
        assert (tmp_path / "chunks").read_bytes() == b"abc" + MUCH
        assert (tmp_path / "until-the-end").read_bytes() == MUCH
        assert (tmp_path / "early").read_bytes() == b"hi"
        assert (tmp_path / "nothing").read_bytes() == b""

    def test_what_cannot_be_had_gets_a_line_each_and_leaves_nothing(self, tmp_path):
        def answer(conn):
            name = asked(conn)
            if name == "reset":
                conn.sendall(OK + SIZE % len(MUCH) + MUCH[:1000])
                reset(conn)
            elif name == "good":
                conn.sendall(OK + SIZE % 4 + b"good")
            else:
                conn.sendall(REFUSED[name][0])

        (tmp_path / "broken-size").write_text("an older one")
        (tmp_path / "taken").mkdir()
        with serving(answer) as port:
            names = [*REFUSED, "reset", "good"]
            options = ["--bytes=300000", "--at-once=3"]
            status, out, err = download(port, *names, into=tmp_path, options=options)
        assert status == 1
        assert lines_of(out, port) == [f"{tmp_path}/good: 4 bytes from good"]
        expected = [f"{name}: {text}" for name, (_, text) in REFUSED.items()]
        expected.append("reset: [Errno 104] Connection reset by peer")
        assert lines_of(err, port) == sorted(expected)
        assert sorted(os.listdir(tmp_path)) == ["broken-size", "good", "taken"]
        assert (tmp_path / "broken-size").read_text() == "an older one"

    def test_names_come_from_the_url_and_stay_in_the_folder(self, tmp_path):
        paths = []

        def answer(conn):
            paths.append(asked(conn))
            conn.sendall(OK + SIZE % 2 + b"hi")

        names = ["", "a/b%20c", "..%2F..%2Fup?x=1&y=%20", "ü d", "a/.."]
        with serving(answer) as port:
            status, out, err = download(port, *names[:-1], into=tmp_path)
            assert (status, err) == (0, ""), err
            assert sorted(os.listdir(tmp_path)) == sorted(["index.html", "b c", ".._.._up", "ü d"])
            assert sorted(paths) == sorted(["", *names[1:3], "%C3%BC%20d"])
            status, out, err = download(port, "", *names[-1:], into=tmp_path)
            assert (status, out) == (1, "")
            assert err == f"{tmp_path}/index.html: several of these have this name\n"

    @pytest.mark.found("D6")
    def test_nobody_can_lay_a_link_where_it_writes(self, tmp_path):
        """The name of the part cannot be guessed; a link with the file's own name is replaced."""
        seen = []

        def answer(conn):
            asked(conn)
            seen.extend(each for each in os.listdir(into) if each.endswith(".part"))
            conn.sendall(OK + SIZE % 4 + b"good")

        into, secret = tmp_path / "into", tmp_path / "secret"
        into.mkdir()
        secret.write_text("secret")
        (into / "file").symlink_to(secret)
        with serving(answer) as port:
            for _ in range(2):
                assert download(port, "file", into=into)[0] == 0
        assert secret.read_text() == "secret"
        assert not (into / "file").is_symlink()
        assert (into / "file").stat().st_mode & 0o777 == 0o666 & ~umask()
        assert len(seen) == len(set(seen)) == 2
        assert not any("file" in name for name in seen)

    @pytest.mark.found("D6")
    def test_a_name_outside_ascii_is_asked_for_as_dns_has_it(self, tmp_path):
        heads = []

        def answer(conn):
            heads.append(conn.recv(4096))
            conn.sendall(OK + SIZE % 2 + b"hi")

        with serving(answer) as port:
            url = http_url(f"http://bücher.example:{port}/x")
            options = Namespace(into=tmp_path, bytes=100, seconds=PATIENCE)
            file = Download(url, options)
            with pytest.MonkeyPatch.context() as patch:
                here = partial(open_tcp, "127.0.0.1", port)
                patch.setattr("demos.download.open_tcp", lambda host, port: here())
                run(file.fetch)
        assert file.state == "done"
        assert f"Host: xn--bcher-kva.example:{port}\r\n".encode() in heads[0]

    @pytest.mark.found("D6")
    def test_what_is_printed_plays_no_tricks_on_a_terminal(self, tmp_path):
        def answer(conn):
            asked(conn)
            conn.sendall(OK + SIZE % 2 + b"hi")

        with serving(answer) as port:
            status, out, err = download(port, "a\x1b[2J\u202eb", "%1b%e2%80%aec", into=tmp_path)
        assert (status, err) == (0, "")
        assert out.isascii()
        assert r"from http://127.0.0.1" in out
        assert r"/a\x1b[2J\u202eb" in out
        assert sorted(os.listdir(tmp_path)) == ["__c", "a_[2J_b"]
        status, out, err = outcome("demos.download", "ftp://x/\x1b[2J")
        assert status == 2
        assert "\x1b" not in err

    def test_so_many_at_once_and_no_more(self, tmp_path):
        lock, together = threading.Lock(), threading.Barrier(3)
        active, most = 0, 0

        def answer(conn):
            nonlocal active, most
            name = asked(conn)
            with lock:
                active += 1
                most = max(most, active)
            together.wait(PATIENCE)  # with fewer than three at once this would never end
            with lock:
                active -= 1
            conn.sendall(OK + SIZE % 1 + name[:1].encode())

        with serving(answer) as port:
            names = [f"{i}.txt" for i in range(9)]
            status, out, err = download(port, *names, into=tmp_path, options=["--at-once=3"])
        assert (status, err) == (0, "")
        assert len(out.splitlines()) == 9 and most == 3

    def test_who_is_too_slow_is_left(self, tmp_path):
        def answer(conn):
            asked(conn)
            conn.sendall(OK + SIZE % 10 + b"hel")
            read_all(conn)

        with serving(answer) as port:
            options = ["--seconds=0.2"]
            status, out, err = download(port, "slow", into=tmp_path, options=options)
        assert (status, out) == (1, "")
        assert lines_of(err, port) == ["slow: took longer than 0.2 s"]
        assert os.listdir(tmp_path) == []

    def test_ctrl_c_in_the_middle_leaves_nothing(self, tmp_path):
        begun = threading.Semaphore(0)

        def answer(conn):
            asked(conn)
            conn.sendall(OK + SIZE % 10 + b"hel")
            begun.release()
            read_all(conn)

        with serving(answer) as port:
            urls = [f"http://127.0.0.1:{port}/{name}" for name in "ab"]
            with start("demos.download", f"--into={tmp_path}", *urls) as process:
                assert begun.acquire(timeout=PATIENCE) and begun.acquire(timeout=PATIENCE)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out) == (130, "")
        assert quiet(err), err
        assert os.listdir(tmp_path) == []

    def test_another_kind_of_url_gets_one_line(self):
        for url in ("https://x/", "x", "http://", "http://:80/", "http://x:99999/", "http://x:0/"):
            with pytest.raises((ArgumentTypeError, ValueError)):
                http_url(url)
        status, out, err = outcome("demos.download", "http://127.0.0.1/", "https://example.org/")
        assert (status, out) == (2, "")
        assert err.count("\n") == 1 and "https://example.org/" in err
