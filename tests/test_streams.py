"""Streams over pipes and sockets: order, bounds, fairness, and what an interrupt leaves behind."""

import fcntl
import io
import os
import socket

import pytest

from corolib import (
    BusyError,
    Cancelled,
    ClosedError,
    LimitExceeded,
    Sleep,
    Stream,
    TaskCancelled,
    current_task,
    move_on_after,
    run,
    spawn,
    timeout,
)
from corolib.streams import CHUNK, LINE, Pipe
from corolib.testing import virtual_time

FULL = os.environ.get("COROLIB_SWEEP") == "full"


class Watched(Pipe):
    """A pipe that counts the calls of `recv` and those that found nothing, and may lie once."""

    def __init__(self, raw):
        super().__init__(raw)
        self.reads = self.in_vain = 0
        self.lies = 0

    def recv(self, most):
        self.reads += 1
        if self.lies:
            self.lies -= 1
            raise BlockingIOError
        try:
            return super().recv(most)
        except BlockingIOError:
            self.in_vain += 1
            raise


class Endless:
    """A file that always has data, and takes all: its number is that of a readable socket."""

    def __init__(self):
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.send(b"x")

    def fileno(self):
        return self.near.fileno()

    def recv(self, most):
        return b"\n" * most

    def send(self, data):
        return len(data)

    def close(self):
        self.near.close()
        self.far.close()


class Searched(bytearray):
    """A buffer that counts the bytes that were searched."""

    searched = 0

    def find(self, what, start=0):
        self.searched += len(self) - start
        return super().find(what, start)


@pytest.fixture
def ends():
    """The two ends of a pipe, as streams: first the one that is read."""
    r, w = os.pipe()
    os.set_blocking(r, False)
    os.set_blocking(w, False)
    with Stream(Watched(io.FileIO(r))) as reader, Stream(Pipe(io.FileIO(w, "wb"))) as writer:
        yield reader, writer


@pytest.fixture
def endless():
    with Stream(Endless()) as stream:
        yield stream


def read_all(stream):
    chunks = []
    while data := (yield from stream.recv(CHUNK)):
        chunks.append(data)
    return b"".join(chunks)


def lines_of(stream):
    lines = []
    while line := (yield from stream.readline()):
        lines.append(line)
    return lines


# Reading ---------------------------------------------------------------------------------------


def test_recv_waits_for_data_and_returns_no_more_than_asked_and_then_the_end(ends):
    reader, writer = ends

    def main():
        task = spawn(reader.recv, 3)
        yield Sleep(0.01)
        assert task.state == "waiting"
        yield from writer.sendall(b"hello")
        got = [(yield from task), (yield from reader.recv(10))]
        writer.close()
        got.append((yield from reader.recv(10)))
        got.append((yield from reader.recv(10)))
        return got

    assert run(main) == [b"hel", b"lo", b"", b""]


@pytest.mark.parametrize("most", [0, -1])
def test_recv_of_nothing_is_refused_for_it_would_look_like_the_end(ends, most):
    with pytest.raises(ValueError, match=r"as at the end of the file"):
        run(ends[0].recv, most)


def test_lines_come_whole_and_the_last_needs_no_newline(ends):
    reader, writer = ends

    def main():
        task = spawn(lines_of, reader)
        for part in (b"on", b"e\ntwo\n\nth", b"ree"):
            yield from writer.sendall(part)
            yield Sleep(0.001)
        writer.close()
        return (yield from task)

    assert run(main) == [b"one\n", b"two\n", b"\n", b"three"]


def test_lines_can_be_read_with_async_for(ends):
    reader, writer = ends

    async def main():
        await writer.sendall(b"a\nb\nc")
        writer.close()
        return [line async for line in reader]

    assert run(main) == [b"a\n", b"b\n", b"c"]


def test_recv_gets_first_what_readline_has_read_too_much(ends):
    reader, writer = ends

    def main():
        yield from writer.sendall(b"head\nbody and more")
        line = yield from reader.readline()
        first = yield from reader.recv(4)
        return line, first, (yield from reader.recv(100))

    assert run(main) == (b"head\n", b"body", b" and more")


def test_a_read_waits_first_when_the_last_one_emptied_the_pipe_and_tries_first_when_not(ends):
    reader, writer = ends
    file = reader._file

    def main():
        turns = []
        for size in (4, 8, 16):
            yield from writer.sendall(b"x" * size)
            turn = current_task().scheduler.stats()["turns"]
            yield from reader.recv(8)
            turns.append(current_task().scheduler.stats()["turns"] - turn)
        return turns

    # Before the first read and after one of 4 of 8 bytes it waits; after one of 8 of 8 it tries.
    assert run(main) == [1, 1, 0]
    assert (file.reads, file.in_vain) == (3, 0)


def test_a_wake_without_data_is_waited_out(ends):
    reader, writer = ends

    def main():
        yield from writer.sendall(b"a\nb")
        reader._file.lies = 1
        line = yield from reader.readline()
        yield from writer.sendall(b"c")
        assert (yield from reader.recv(1)) == b"b"
        reader._file.lies = 1
        return line, (yield from reader.recv(1))

    assert run(main) == (b"a\n", b"c")


def test_a_file_filled_exactly_is_waited_for_when_there_is_no_more(ends):
    reader, writer = ends

    def main():
        yield from writer.sendall(b"abcd")
        assert (yield from reader.recv(4)) == b"abcd"
        with move_on_after(0.001) as scope:
            yield from reader.recv(4)
        assert scope.expired
        yield from writer.sendall(b"x" * CHUNK)
        with move_on_after(0.001) as scope:
            yield from reader.readline(limit=CHUNK + 1)
        assert scope.expired
        yield from writer.sendall(b"\n")
        return len((yield from reader.readline(limit=CHUNK + 1)))

    assert run(main) == CHUNK + 1
    assert ends[0]._file.in_vain >= 1


def test_the_traps_of_a_stream_are_made_once(ends):
    reader, writer = ends

    def main():
        seen = set()
        for _ in range(3):
            task = spawn(reader.recv, 10)
            yield
            yield
            seen.add(id(task.wait))
            yield from writer.sendall(b"x")
            yield from task
        return seen == {id(reader._reading)}

    assert run(main)


# Long lines ------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", [b"", b"\n"])
def test_a_line_that_is_too_long_is_refused_and_can_still_be_read(ends, newline):
    reader, writer = ends
    data = b"x" * 10 + newline

    def main():
        yield from writer.sendall(data)
        for _ in range(2):
            with pytest.raises(LimitExceeded, match="a line has more than 10 bytes") as caught:
                yield from reader.readline(limit=10)
            assert caught.value.limit == 10
            assert caught.value.seen == len(data)
        return (yield from reader.recv(100))

    assert run(main) == data


def test_a_line_may_be_as_long_as_its_limit_and_that_is_64_kib_unless_said_otherwise(ends):
    reader, writer = ends

    def main():
        task = spawn(writer.sendall, b"x" * (LINE - 1) + b"\n" + b"y" * LINE)
        assert len((yield from reader.readline())) == LINE
        with pytest.raises(LimitExceeded) as caught:
            yield from reader.readline()
        yield from task
        return caught.value.limit, caught.value.seen

    assert run(main) == (65536, 65536)


def test_no_byte_of_a_line_is_searched_twice_however_small_the_parts_it_comes_in(ends):
    reader, writer = ends
    buffer = reader._buffer = Searched()
    size = 10_000 if FULL else 1_000

    def main():
        task = spawn(reader.readline)
        for _ in range(size):
            yield from writer.sendall(b"x")
            yield
            yield
        yield from writer.sendall(b"\n")
        return len((yield from task))

    assert run(main) == size + 1
    assert buffer.searched == size + 1


# Fairness --------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["recv", "readline", "sendall"])
def test_an_operation_that_never_has_to_wait_gives_way_now_and_then(endless, operation):
    def busy(log):
        argument = {"recv": [100], "readline": [], "sendall": [b"x"]}[operation]
        for _ in range(1000):
            yield from getattr(endless, operation)(*argument)
        log.append("busy")

    def other(log):
        for _ in range(10):
            yield
        log.append("other")

    def main():
        log = []
        tasks = [spawn(busy, log), spawn(other, log)]
        for task in tasks:
            yield from task
        return log

    assert run(main) == ["other", "busy"]


def test_reading_what_is_buffered_gives_way_too(endless):
    def main():
        yield from endless.readline()
        scheduler = current_task().scheduler
        before = scheduler.stats()["turns"]
        for _ in range(640):
            yield from endless.recv(1)
        return scheduler.stats()["turns"] - before

    assert run(main) == 10


def test_reading_at_the_end_of_the_file_in_a_loop_times_out(ends):
    reader, writer = ends
    writer.close()

    def main():
        with timeout(0.01):
            while True:
                yield from reader.recv(100)

    with pytest.raises(TimeoutError):
        run(main)


# One task in each direction --------------------------------------------------------------------


@pytest.mark.parametrize("first", ["recv", "readline"])
@pytest.mark.parametrize("second", ["recv", "readline"])
def test_a_second_reader_is_refused_and_the_first_is_not_disturbed(ends, first, second):
    reader, writer = ends
    arguments = {"recv": [10], "readline": []}

    def main():
        one = spawn(getattr(reader, first)(*arguments[first]), name="one")
        yield
        yield
        if first == "readline":
            yield from writer.sendall(b"begun ")
            yield Sleep(0.001)
        with pytest.raises(BusyError, match="task one#2"):
            yield from getattr(reader, second)(*arguments[second])
        yield from writer.sendall(b"line\n")
        return (yield from one)

    assert run(main) == (b"line\n" if first == "recv" else b"begun line\n")


def test_a_second_sender_is_refused_and_the_first_is_not_disturbed(ends):
    reader, writer = ends
    data = bytes(range(256)) * 2000

    def main():
        one = spawn(writer.sendall(data), name="one")
        yield
        yield
        with pytest.raises(
            BusyError, match=r"sendall\(\) to <Stream over <Pipe fd=\d+>>: task one"
        ):
            yield from writer.sendall(b"in between")
        task = spawn(read_all, reader)
        yield from one
        writer.close()
        return (yield from task)

    assert run(main) == data


# Sending ---------------------------------------------------------------------------------------


def test_sendall_waits_until_all_is_taken(ends):
    reader, writer = ends
    data = os.urandom(1_000_000)

    def main():
        task = spawn(read_all, reader)
        yield from writer.sendall(data)
        writer.close()
        return (yield from task)

    assert run(main) == data


@pytest.mark.parametrize(
    "data", [b"", b"ab", bytearray(b"ab"), memoryview(b"ab"), memoryview(b"abcdefgh").cast("I")]
)
def test_anything_made_of_bytes_can_be_sent(ends, data):
    reader, writer = ends

    def main():
        yield from writer.sendall(data)
        yield from writer.sendall(bytearray())
        writer.close()
        return (yield from read_all(reader))

    assert run(main) == bytes(data)


def test_a_pipe_that_is_full_from_the_start_is_waited_for(ends):
    reader, writer = ends
    room = fcntl.fcntl(writer._file.fileno(), fcntl.F_GETPIPE_SZ)

    def main():
        yield from writer.sendall(bytes(room))
        task = spawn(writer.sendall, b"more")
        yield Sleep(0.001)
        assert task.state == "waiting"
        got = len((yield from reader.recv(room)))
        yield from task
        return got, (yield from reader.recv(10))

    assert run(main) == (room, b"more")


def test_text_cannot_be_sent(ends):
    with pytest.raises(TypeError, match="bytes-like"):
        run(ends[1].sendall, "text")


def test_a_sendall_that_is_cancelled_says_how_much_went_out(ends):
    reader, writer = ends
    data = bytearray(os.urandom(300_000))
    told = []

    def sender():
        try:
            yield from writer.sendall(data)
        except Cancelled as exc:
            told.append(exc.bytes_sent)
            raise

    def main():
        task = spawn(sender)
        yield
        yield
        first = yield from reader.recv(50_000)
        yield Sleep(0.001)
        yield from task.stop()
        data.append(1)  # it is not locked any more
        writer.close()
        return first + (yield from read_all(reader))

    got = run(main)
    assert 65536 <= told[0] < 300_000
    assert got == data[: told[0]]


def test_the_cause_of_a_timeout_says_how_much_went_out(ends):
    writer = ends[1]

    def main():
        with pytest.raises(TimeoutError) as caught:
            with timeout(5):
                yield from writer.sendall(bytes(1_000_000))
        return caught.value.__cause__.bytes_sent

    room = fcntl.fcntl(writer._file.fileno(), fcntl.F_GETPIPE_SZ)
    assert run(main, **virtual_time()) == room


def test_sending_to_nobody_is_an_error(ends):
    reader, writer = ends
    reader.close()

    def main():
        with pytest.raises(BrokenPipeError) as caught:
            yield from writer.sendall(b"x")
        return caught.value.bytes_sent

    assert run(main) == 0


def test_a_stream_goes_one_way_only_if_its_file_does(ends):
    reader, writer = ends
    with pytest.raises(io.UnsupportedOperation):
        run(reader.sendall, b"x")
    with pytest.raises(io.UnsupportedOperation):
        os.write(writer._file.fileno(), b"x")
        run(writer._file.recv, 1)


# Interrupts and closing ------------------------------------------------------------------------


def test_a_line_that_was_begun_when_its_reader_was_cancelled_is_kept(ends):
    reader, writer = ends

    def main():
        yield from writer.sendall(b"be")
        task = spawn(reader.readline)
        yield Sleep(0.001)
        yield from task.stop()
        yield from writer.sendall(b"gun\n")
        return (yield from reader.readline())

    assert run(main) == b"begun\n"


def test_closing_wakes_who_reads_and_who_sends(ends):
    reader, writer = ends

    def main():
        tasks = [spawn(reader.readline), spawn(writer.sendall, bytes(1_000_000))]
        # The reader of the pipe must not take what fills it.
        reader._file.lies = 10**9
        yield Sleep(0.001)
        writer.close()
        reader.close()
        kinds = []
        for task in tasks:
            try:
                yield from task
            except Exception as exc:
                kinds.append(type(exc))
        return kinds

    assert run(main) == [ClosedError, ClosedError]


@pytest.mark.parametrize("operation", ["recv", "readline", "sendall"])
@pytest.mark.parametrize("drained", [True, False])
def test_a_closed_stream_refuses_everything_but_being_closed_again(ends, operation, drained):
    stream = ends[operation == "sendall"]

    def main():
        stream._drained = drained
        stream.close()
        stream.close()
        argument = {"recv": [10], "readline": [], "sendall": [b"x"]}[operation]
        with pytest.raises(ClosedError):
            yield from getattr(stream, operation)(*argument)

    run(main)
    assert repr(stream).endswith(" closed>>")


def test_what_was_buffered_is_gone_with_the_stream(ends):
    reader, writer = ends

    def main():
        yield from writer.sendall(b"a\nb\n")
        yield from reader.readline()
        reader.close()
        with pytest.raises(ClosedError):
            yield from reader.readline()

    run(main)


def test_a_stream_that_is_dropped_open_warns():
    r, w = os.pipe()
    os.close(w)
    stream = Stream(Pipe(io.FileIO(r)))
    with pytest.warns(ResourceWarning, match="unclosed file"):
        del stream
    with pytest.raises(OSError):
        os.fstat(r)


def test_sockets_do_as_well(pair):
    def echo(stream):
        while data := (yield from stream.recv(1000)):
            yield from stream.sendall(data)

    def main():
        with Stream(pair[0]) as near, Stream(pair[1]) as far:
            task = spawn(echo, far)
            yield from near.sendall(b"there and back\n")
            line = yield from near.readline()
            yield from task.stop()
        return line

    assert run(main) == b"there and back\n"


@pytest.mark.parametrize("step", range(12))
def test_a_reader_cancelled_at_any_step_loses_nothing(ends, step):
    """What was read was returned, or is still there."""
    reader, writer = ends
    got = []

    def consume():
        while line := (yield from reader.readline()):
            got.append(line)
            yield

    def main():
        task = spawn(consume)
        for i in range(step):
            yield from writer.sendall(b"%d\n%d" % (i, i))
            yield
        task.cancel()
        with pytest.raises(TaskCancelled):
            yield from task
        writer.close()
        got.append((yield from read_all(reader)))

    run(main)
    assert b"".join(got) == b"".join(b"%d\n%d" % (i, i) for i in range(step))
