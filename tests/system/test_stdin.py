"""`open_stdin`: the input of the program, which others may share, read without changing it."""

import fcntl
import io
import os
import pty
import select
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest

from corolib import BusyError, ClosedError, Sleep, move_on_after, open_stdin, run, spawn, to_thread
from corolib.system.stdin import ThreadedInput
from tests.helpers.children import outside, script
from tests.helpers.driving import FULL
from tests.helpers.garbage import everything, garbage_of
from tests.helpers.inside import file_of, reader_task_of
from tests.helpers.programs import ROOT

pytestmark = pytest.mark.usefixtures("nothing_left")

COPY = """
    import corolib, sys
    def main():
        stream = corolib.open_stdin()
        with stream:
            while line := (yield from stream.readline()):
                if line == b"stop\\n":
                    break
                print("got", line.decode().strip(), flush=True)
    corolib.run(main)
"""


FLAGS = "import fcntl, os; print(bool(fcntl.fcntl(0, fcntl.F_GETFL) & os.O_NONBLOCK))"


@pytest.mark.hazard("H15")
def test_the_shared_input_is_left_blocking_for_the_shell_and_what_comes_after():
    copy, flags = script(COPY), [sys.executable, "-c", FLAGS]
    shell = ["sh", "-c", '"$0" -c "$1"; "$0" -c "$2"; cat', sys.executable, copy[2], flags[2]]
    r, w = os.pipe()
    with subprocess.Popen(
        shell, stdin=r, stdout=PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        os.close(r)
        os.write(w, b"a\n")
        assert process.stdout.readline() == b"got a\n"
        os.write(w, b"stop\n")
        assert process.stdout.readline() == b"False\n"
        os.write(w, b"for cat\n")
        os.close(w)
        assert process.stdout.read() == b"for cat\n"


def wait_until_stuck(process, file):
    """Wait until a program has written what `file` takes, and waits for its reader."""
    before = -1
    while True:
        (waiting,) = struct.unpack("i", fcntl.ioctl(file, termios.FIONREAD, bytes(4)))
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z" or (state == "S" and waiting == before > 0):
            return
        before = waiting
        time.sleep(0.01)


@pytest.mark.hazard("H15")
@pytest.mark.found("T21")
@pytest.mark.parametrize("where", ["pipe", "terminal"])
def test_printing_much_to_a_slow_reader_does_not_fail_while_the_input_is_open(where):
    program = script(
        """
        import corolib, fcntl, os
        def main():
            with corolib.open_stdin() as stream:
                word = yield from stream.readline()
                print("x" * 1_000_000)
                print(word.decode().strip(), (yield from stream.readline()).decode().strip())
                print([fd for fd in range(3) if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK])
        corolib.run(main)
        """
    )
    # Without debug mode, which would tell, in between, of a step that the reader makes slow.
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COROLIB_DEBUG": "0"}
    if where == "pipe":
        with subprocess.Popen(program, stdin=PIPE, stdout=PIPE, stderr=STDOUT, env=env) as process:
            process.stdin.write(b"one\ntwo\n")
            process.stdin.flush()
            wait_until_stuck(process, process.stdout)
            got = process.stdout.read()
    else:
        leader, follower = pty.openpty()
        with subprocess.Popen(
            program, stdin=follower, stdout=follower, stderr=follower, env=env
        ) as process:
            os.close(follower)
            os.write(leader, b"one\ntwo\n")
            wait_until_stuck(process, leader)
            got = b""
            try:
                while data := os.read(leader, 65536):
                    got += data
            except OSError:  # the other side is gone
                pass
        os.close(leader)
    got = got.replace(b"\r\n", b"\n")
    assert b"x" * 1_000_000 + b"\n" in got
    assert got.endswith(b"\none two\n[]\n")


@pytest.fixture
def as_stdin():
    """Return a function that makes a file the standard input; it is put back in the end."""
    saved = os.dup(0)

    def replace(fd):
        os.dup2(fd, 0)
        os.close(fd)

    yield replace
    os.dup2(saved, 0)
    os.close(saved)


def all_lines():
    lines = []
    with open_stdin() as stream:
        while line := (yield from stream.readline()):
            lines.append(line)
    return lines


@pytest.mark.hazard("H15")
@pytest.mark.parametrize("again", [True, False])
def test_a_pipe_is_read_without_touching_it(as_stdin, again, monkeypatch):
    if not again:
        monkeypatch.setattr("corolib.system.stdin.STDIN", "/proc/none")
    r, w = os.pipe()
    as_stdin(r)

    def main():
        task = spawn(all_lines)
        os.write(w, b"one\ntw")
        yield Sleep(0.01)
        assert not fcntl.fcntl(0, fcntl.F_GETFL) & os.O_NONBLOCK
        os.write(w, b"o\n")
        os.close(w)
        return (yield from task)

    assert run(main) == [b"one\n", b"two\n"]
    os.fstat(0)  # is still open


@pytest.mark.hazard("H10")
def test_a_plain_file_is_read_in_a_thread(as_stdin, tmp_path):
    path, count = tmp_path / "lines", 100_000 if FULL else 50_000
    path.write_bytes(b"a\n" * count)
    as_stdin(os.open(path, os.O_RDONLY))
    assert run(all_lines) == [b"a\n"] * count


def test_an_input_that_somebody_has_made_nonblocking_is_waited_for(as_stdin, monkeypatch):
    near, far = socket.socketpair()
    near.setblocking(False)
    as_stdin(near.detach())
    wait, waits = select.select, threading.Event()
    monkeypatch.setattr(select, "select", lambda *files: waits.set() or wait(*files))

    def main():
        task = spawn(all_lines)
        yield from to_thread(waits.wait)
        far.send(b"late\n")
        far.close()
        return (yield from task)

    assert run(main) == [b"late\n"]


def test_a_cancelled_read_of_a_thread_is_kept_for_the_next(as_stdin):
    near, far = socket.socketpair()
    as_stdin(near.detach())

    def main():
        with open_stdin() as stream:
            for _ in range(2):
                with move_on_after(0.01) as scope:
                    yield from stream.recv(10)
                assert scope.expired
            far.send(b"precious")
            yield Sleep(0.01)
            parts = [(yield from stream.recv(3)), (yield from stream.recv(100))]
            far.send(b"four")
            parts.append((yield from stream.recv(4)))
            spawn(lambda: closing(far))
            return [*parts, (yield from stream.recv(10))]

    def closing(end):
        yield Sleep(0.01)
        end.close()

    assert run(main) == [b"pre", b"cious", b"four", b""]


def test_a_threaded_input_has_one_reader_and_wakes_it_when_it_is_closed(as_stdin):
    near, far = socket.socketpair()
    as_stdin(near.detach())

    def main():
        stream = open_stdin()
        task = spawn(stream.recv(10), name="one")
        yield
        yield
        with pytest.raises(BusyError, match="one#2"):
            yield from stream.recv(10)
        stream.close()
        with pytest.raises(ClosedError, match="during the wait"):
            yield from task
        with pytest.raises(ClosedError, match="closed>> is closed"):
            yield from stream.recv(10)
        with pytest.raises(ClosedError, match="is closed"):
            yield from stream.sendall(b"x")
        stream.close()
        far.close()

    run(main)


def test_a_threaded_input_passes_on_what_is_wrong(as_stdin, tmp_path):
    as_stdin(os.open(tmp_path, os.O_RDONLY))

    def main():
        with open_stdin() as stream:
            assert repr(stream) == "<Stream over <ThreadedInput fd=0>>"
            with pytest.raises(IsADirectoryError):
                yield from stream.recv(10)
            with pytest.raises(io.UnsupportedOperation):
                yield from stream.sendall(b"x")

    run(main)


@pytest.mark.found("N13")
@pytest.mark.parametrize("read", [True, False])
def test_a_threaded_input_that_fails_leaves_no_cycles(as_stdin, tmp_path, read):
    as_stdin(os.open(tmp_path, os.O_RDONLY))

    def scenario():
        with open_stdin() as stream:
            if read:
                with pytest.raises(IsADirectoryError):
                    yield from stream.recv(10)
                return
            task = spawn(stream.recv, 10)
            yield
            yield
            yield from task.stop()
            while reader_task_of(file_of(stream)) is not None:
                yield

    assert garbage_of(scenario, everything) == []


def test_a_read_that_brings_something_while_nobody_waits_is_found_by_the_next(as_stdin):
    r, w = os.pipe()
    as_stdin(r)

    def main():
        source = ThreadedInput(0)
        with move_on_after(0.001):
            yield source.reading
        os.write(w, b"x")
        while reader_task_of(source) is not None:
            yield Sleep(0.001)
        yield source.reading
        os.close(w)
        return source.recv(10)

    assert run(main) == b"x"


def test_without_a_standard_input_there_is_no_stream():
    """Within a run, the number 0 is some other file's."""
    program = """
import corolib

def main():
    yield
    corolib.open_stdin()

corolib.run(main)
"""
    done = outside(["sh", "-c", 'exec "$0" -c "$1" <&-', sys.executable, program])
    assert "OSError: [Errno 9] the program has no standard input" in done.stderr
