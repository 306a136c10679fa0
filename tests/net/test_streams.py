"""Streams over pipes and sockets: order, bounds, fairness, and what a cancel leaves behind."""

import errno
import fcntl
import io
import os
import random
import selectors
import socket
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from corolib import (
    BusyError,
    Cancelled,
    ClosedError,
    LimitExceeded,
    Sleep,
    Stream,
    TaskCancelled,
    current_scheduler,
    current_task,
    move_on_after,
    now,
    run,
    spawn,
    timeout,
)
from corolib.kernel.context import BUDGET
from corolib.net.streams import CHUNK, LINE, PIECES, IncompleteRead
from corolib.system.pipe_ends import Pipe
from corolib.testing import cancel_everywhere, survivors, virtual_time
from tests.helpers.driving import FULL, turns
from tests.helpers.faults import LATE, ONE, SHORT, FakeSocket
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import (
    budget_of,
    file_of,
    reading_of,
    replace_buffer,
    set_budget,
    set_drained,
)
from tests.helpers.sockets import make_streams, tcp_pair

WHOLE = bytes(range(256)) * 4000  # what the file has that is sent


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

    def find(self, what, start, end):
        self.searched += min(len(self), end) - start
        return super().find(what, start, end)


@pytest.fixture
def ends():
    """The two ends of a pipe, as streams: first the one that is read."""
    r, w = os.pipe()
    os.set_blocking(r, False)
    os.set_blocking(w, False)
    with Stream(Watched(io.FileIO(r))) as reader, Stream(Pipe(io.FileIO(w, "wb"))) as writer:
        yield reader, writer


@pytest.fixture
def streams(pair):
    """Streams over two connected sockets."""
    with Stream(pair[0]) as near, Stream(pair[1]) as far:
        yield near, far


@pytest.fixture
def tcp():
    """Streams over two sockets that are connected over the loopback interface."""
    near, far = tcp_pair()
    near.setblocking(False)
    far.setblocking(False)
    with Stream(near) as one, Stream(far) as other:
        yield one, other


@pytest.fixture
def file():
    with tempfile.TemporaryFile() as file:
        file.write(WHOLE)
        file.flush()
        yield file


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


# Reading ------------------------------------------------------------------------------------------


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
    file = file_of(reader)

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
        file_of(reader).lies = 1
        line = yield from reader.readline()
        yield from writer.sendall(b"c")
        assert (yield from reader.recv(1)) == b"b"
        file_of(reader).lies = 1
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
    assert file_of(ends[0]).in_vain >= 1


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
        return seen == {id(reading_of(reader))}

    assert run(main)


def test_the_end_is_read_once_by_lines(ends):
    """A terminal goes on behind it."""
    reader, writer = ends

    def main():
        yield from writer.sendall(b"one\ntwo\n")
        lines = [(yield from reader.readline()), (yield from reader.readline())]
        writer.close()
        count = 0

        def recv(most):
            nonlocal count
            count += 1
            return b""

        file_of(reader).recv = recv
        lines.append((yield from reader.readline()))
        return lines, count

    assert run(main) == ([b"one\n", b"two\n", b""], 1)


@pytest.mark.parametrize("text", [b"four\n", b"ok\nfour\n", b"ok\nfour\nok\n"])
def test_a_whole_line_is_too_long_whatever_comes_with_it(tcp, text):
    near, far = tcp

    def main():
        far.max_line = 4
        yield from near.sendall(text)
        if text[:1] == b"o":
            assert (yield from far.readline()) == b"ok\n"
        with pytest.raises(LimitExceeded):
            yield from far.readline()
        return (yield from far.recv(100))

    assert run(main) == text.removeprefix(b"ok\n")


def test_lines_are_not_taken_from_under_another_reader(tcp):
    near, far = tcp

    def main():
        yield from near.sendall(b"one\ntwo\nthree\nrest")
        for _ in range(2):
            yield from far.readline()
        task = spawn(far.readexactly, 11)
        yield
        yield
        with pytest.raises(BusyError, match=r"task readexactly#\d+ .* is reading from it"):
            yield from far.readline()
        yield from near.sendall(b"!")
        return (yield from task)

    assert run(main) == b"three\nrest!"


@pytest.mark.parametrize("ending", ["", "three"])
def test_a_line_that_is_whole_and_one_that_is_not(tcp, ending):
    """Lines that come one at a time, several at once, and in pieces are the same lines."""
    near, far = tcp

    def sender():
        for piece in ("one\n", "\ntwo\n", "th", "ree\nfour\n\n", ending):
            yield from near.sendall(piece.encode())
            for _ in range(5):
                yield
        near.close()

    def main():
        spawn(sender)
        return (yield from lines_of(far))

    text = "one\n\ntwo\nthree\nfour\n\n" + ending
    assert run(main) == text.encode().splitlines(keepends=True)


# Long lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", [b"", b"\n"])
def test_a_line_that_is_too_long_is_refused_and_can_still_be_read(ends, newline):
    reader, writer = ends
    data = b"x" * 10 + newline

    def main():
        yield from writer.sendall(data)
        for _ in range(2):
            with pytest.raises(
                LimitExceeded, match=r"a line has more than 9 bytes, .* max_line= of"
            ) as caught:
                yield from reader.readline(limit=9)
            assert caught.value.limit == 9
            assert caught.value.seen == len(data)
        return (yield from reader.recv(100))

    assert run(main) == data


def test_a_line_may_be_as_long_as_its_limit_and_that_is_64_kib_unless_said_otherwise(ends):
    reader, writer = ends

    def main():
        task = spawn(writer.sendall, b"x" * (LINE - 1) + b"\n" + b"y" * (LINE + 1))
        assert len((yield from reader.readline())) == LINE
        with pytest.raises(LimitExceeded) as caught:
            yield from reader.readline()
        yield from task
        return caught.value.limit, caught.value.seen

    assert run(main) == (65536, 65537)


@pytest.mark.hazard("H29")
def test_no_byte_of_a_line_is_searched_twice_however_small_the_parts_it_comes_in(ends):
    reader, writer = ends
    buffer = replace_buffer(reader, Searched())
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


# Fairness -----------------------------------------------------------------------------------------


@pytest.mark.hazard("H50")
@pytest.mark.parametrize(
    "operation",
    [
        *("recv", "recv_into", "readexactly", "readline", "readuntil", "more"),
        *("sendall", "sendfile", "send_eof"),
    ],
)
def test_an_operation_that_never_has_to_wait_gives_way_now_and_then(endless, file, operation):
    file_of(endless).shutdown = lambda how: None
    arguments = {
        "recv": [100],
        "recv_into": [bytearray(10)],
        "readexactly": [10],
        "readuntil": [b"\n"],
        "sendall": [b"x"],
        "sendfile": [file, 0, 10],
    }.get(operation, [])

    def busy(log):
        for _ in range(1000):
            yield from getattr(endless, operation)(*arguments)
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


@pytest.mark.parametrize(("operation", "argument"), [("recv", 1), ("recv_into", bytearray(1))])
def test_reading_what_is_buffered_gives_way_too(endless, operation, argument):
    def main():
        yield from endless.readline()
        scheduler = current_task().scheduler
        before = scheduler.stats()["turns"]
        for _ in range(640):
            yield from getattr(endless, operation)(argument)
        return scheduler.stats()["turns"] - before

    assert run(main) == 10


@pytest.mark.hazard("H33")
def test_reading_at_the_end_of_the_file_in_a_loop_times_out(ends):
    reader, writer = ends
    writer.close()

    def main():
        with timeout(0.001):
            while True:
                yield from reader.recv(100)

    with pytest.raises(TimeoutError):
        run(main)


@pytest.mark.parametrize(
    ("operation", "argument"), [("recv", 10), ("recv_into", bytearray(9)), ("readline", 10)]
)
def test_a_loop_that_does_not_look_for_the_end_is_told(ends, operation, argument):
    reader, writer = ends
    writer.close()

    def main():
        while True:
            yield from getattr(reader, operation)(argument)

    with pytest.raises(RuntimeError, match="was read 1000 times since: leave the loop at"):
        run(main)


# One task in each direction -----------------------------------------------------------------------


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


@pytest.mark.hazard("H24")
def test_a_second_sender_is_refused_and_the_first_is_not_disturbed(ends):
    reader, writer = ends
    data = bytes(range(256)) * 2000

    def main():
        one = spawn(writer.sendall(data), name="one")
        yield
        yield
        with pytest.raises(
            BusyError, match=r"sendall\(\) on <Stream over <Pipe fd=\d+>>: task one.*take turns"
        ):
            yield from writer.sendall(b"in between")
        task = spawn(read_all, reader)
        yield from one
        writer.close()
        return (yield from task)

    assert run(main) == data


@pytest.mark.hazard("H24")
def test_a_second_sender_is_refused_also_when_something_has_just_been_read(streams):
    near, far = streams
    data = b"a" * 5_000_000

    def main():
        one = spawn(near.sendall(data), name="one")
        yield
        yield
        yield from far.sendall(b"?")
        yield from near.recv(9)
        got = file_of(far).recv(100_000)  # now there is room, and the first does not know it yet
        with pytest.raises(BusyError, match="task one#2"):
            yield from near.sendall(b"b")
        got += yield from far.readexactly(len(data) - len(got))
        yield from one
        return got == data

    assert run(main)


# Sending ------------------------------------------------------------------------------------------


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
    room = fcntl.fcntl(file_of(writer).fileno(), fcntl.F_GETPIPE_SZ)

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


def test_a_timeout_says_how_much_went_out(ends):
    writer = ends[1]

    def main():
        with pytest.raises(TimeoutError) as caught:
            with timeout(5):
                yield from writer.sendall(bytes(1_000_000))
        return caught.value.bytes_sent

    room = fcntl.fcntl(file_of(writer).fileno(), fcntl.F_GETPIPE_SZ)
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
        os.write(file_of(writer).fileno(), b"x")
        run(file_of(writer).recv, 1)


# Cancellation and closing -------------------------------------------------------------------------


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
        file_of(reader).lies = 10**9
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
        set_drained(stream, drained)
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


# Messages -----------------------------------------------------------------------------------------


def test_recv_into_fills_a_buffer_and_says_how_much(streams):
    near, far = streams

    def main():
        room = bytearray(5)
        task = spawn(near.recv_into, room)
        yield
        yield from far.sendall(b"abc")
        got = [(yield from task), bytes(room)]
        yield from far.sendall(b"line\n1234")
        yield from near.readline()
        got += [(yield from near.recv_into(memoryview(room)[1:])), bytes(room)]  # was buffered
        yield from far.sendall(b"zyxwvu")
        far.close()
        got += [(yield from near.recv_into(room)), bytes(room)]
        got += [(yield from near.recv_into(room)), bytes(room)]
        got += [(yield from near.recv_into(room)), near.ended]
        room.append(1)  # it is not locked any more
        return got

    wanted = [3, b"abc\0\0", 4, b"a1234", 5, b"zyxwv", 1, b"uyxwv", 0, True]
    assert run(main) == wanted


def test_recv_into_works_for_files_that_do_not_know_it(ends):
    reader, writer = ends

    def main():
        room = bytearray(4)
        yield from writer.sendall(b"abcdef")
        first = (yield from reader.recv_into(room)), bytes(room)
        return first, (yield from reader.recv_into(room)), bytes(room)

    assert run(main) == ((4, b"abcd"), 2, b"efcd")


def test_recv_into_nothing_is_refused_for_it_would_look_like_the_end(ends):
    with pytest.raises(ValueError, match="empty buffer"):
        run(ends[0].recv_into, bytearray())


def test_readexactly_returns_just_that_however_it_comes(streams):
    near, far = streams

    def main():
        task = spawn(near.readexactly, 5)
        for part in (b"a", b"bc", b"defgh"):
            yield from far.sendall(part)
            yield Sleep(0.001)
        got = [
            (yield from task),
            (yield from near.readexactly(0)),
            (yield from near.readexactly(2)),
        ]
        return [*got, (yield from near.recv(10))]

    assert run(main) == [b"abcde", b"", b"fg", b"h"]


@pytest.mark.parametrize(("count", "error"), [(-1, ValueError), (3.0, TypeError), ("3", TypeError)])
def test_readexactly_of_what_is_no_number_of_bytes_is_refused(ends, count, error):
    text = rf"readexactly\(\) takes a whole number, at least 0, not {count!r}"
    with pytest.raises(error, match=text):
        run(ends[0].readexactly, count)


@pytest.mark.parametrize("operation", ["readline", "readuntil"])
def test_a_limit_that_is_no_number_is_refused(ends, operation):
    arguments = [b";"] if operation == "readuntil" else []
    with pytest.raises(
        TypeError, match=r"the limit of a .* is a number of bytes, or math.inf, not '7'"
    ):
        run(getattr(ends[0], operation)(*arguments, limit="7"))


def test_a_file_that_ends_in_the_middle_is_an_error_that_has_what_came(streams):
    near, far = streams

    def main():
        yield from far.sendall(b"abc")
        far.close()
        with pytest.raises(IncompleteRead, match="after 3 of 5 bytes") as caught:
            yield from near.readexactly(5)
        with pytest.raises(IncompleteRead) as again:
            yield from near.readexactly(1)
        return caught.value, again.value

    first, second = run(main)
    assert isinstance(first, EOFError)
    assert (first.expected, first.partial) == (5, b"abc")
    assert (second.expected, second.partial) == (1, b"")


@pytest.mark.parametrize("cut", range(1, 9))
def test_readuntil_finds_a_separator_that_comes_in_parts(streams, cut):
    near, far = streams
    data = b"a\r\n\r\nb\r\r\n\r\n"

    def main():
        task = spawn(near.readuntil, b"\r\n\r\n")
        yield from far.sendall(data[:cut])
        yield Sleep(0.001)
        yield from far.sendall(data[cut:])
        return [(yield from task), (yield from near.readuntil(b"\r\n\r\n"))]

    assert run(main) == [b"a\r\n\r\n", b"b\r\r\n\r\n"]


def test_of_several_separators_that_one_counts_which_ends_first(streams):
    near, far = streams

    def main():
        yield from far.sendall(b"one;two\nthree\r\n<four></four>")
        got = []
        for separators in [(b"\n", b";"), (b"\n", b";"), (b"\n", b"\r\n"), (b"</four>", b"r>")]:
            got.append((yield from near.readuntil(*separators)))
        return got

    assert run(main) == [b"one;", b"two\n", b"three\r\n", b"<four>"]


@pytest.mark.parametrize("separators", [(), (b"",), (b"a", b"")])
def test_readuntil_nothing_is_refused(ends, separators):
    with pytest.raises(ValueError, match="give separators"):
        run(ends[0].readuntil, *separators)


def test_readuntil_at_the_end_of_the_file(streams):
    near, far = streams

    def main():
        yield from far.sendall(b"a;b")
        far.close()
        first = yield from near.readuntil(b";")
        with pytest.raises(IncompleteRead, match="1 bytes after") as caught:
            yield from near.readuntil(b";")
        return first, caught.value.partial, caught.value.expected, (yield from near.readuntil(b";"))

    assert run(main) == (b"a;", b"b", None, b"")


@pytest.mark.parametrize(
    ("data", "limit", "seen"),
    [(b"abcd;", 5, None), (b"abcde;", 5, 6), (b"abcdef", 5, 6), (b"abcde", 5, None)],
)
def test_a_message_may_be_as_long_as_its_limit(streams, data, limit, seen):
    near, far = streams

    def main():
        yield from far.sendall(data)
        if seen is not None:
            with pytest.raises(LimitExceeded, match="message has more than 5") as caught:
                yield from near.readuntil(b";", limit=limit)
            assert (caught.value.limit, caught.value.seen) == (limit, seen)
            return (yield from near.recv(100))
        yield from far.sendall(b";" if b";" not in data else b"")
        return (yield from near.readuntil(b";", limit=limit + (b";" not in data)))

    assert run(main) == data + (b";" if seen is None and b";" not in data else b"")


@pytest.mark.parametrize("operation", ["readline", "readuntil"])
def test_the_last_line_may_have_all_the_bytes_that_the_limit_allows(streams, operation):
    near, far = streams

    def main():
        yield from far.sendall(b"12345")
        far.close()
        if operation == "readline":
            return (yield from near.readline(limit=5))
        with pytest.raises(IncompleteRead) as caught:
            yield from near.readuntil(b"\n", limit=5)
        return caught.value.partial

    assert run(main) == b"12345"


def test_the_limit_of_a_stream_holds_where_no_other_is_given(streams):
    near, far = streams
    near.max_line = 3

    def main():
        yield from far.sendall(b"ab\nabc\n")
        assert (yield from near.readline()) == b"ab\n"
        with pytest.raises(LimitExceeded):
            yield from near.readline()
        with pytest.raises(LimitExceeded):
            yield from near.readuntil(b"\n")
        return (yield from near.readline(limit=4))

    assert run(main) == b"abc\n"


@pytest.mark.hazard("H30")
@pytest.mark.parametrize("separators", [(b"\n",), (b"\n", b"\0\0")])
def test_a_line_without_end_is_given_up_one_read_beyond_its_limit(endless, separators):
    reads = []

    def counted(most):
        reads.append(most)
        return b"x" * most

    file_of(endless).recv = counted

    def main():
        with pytest.raises(LimitExceeded) as caught:
            yield from endless.readuntil(*separators)
        return caught.value.seen

    assert LINE < run(main) <= LINE + CHUNK
    assert sum(reads) <= LINE + CHUNK


@pytest.mark.hazard("H29")
@pytest.mark.parametrize(("lines", "length"), [(2000, 1), (150, 300)])
def test_a_separator_that_never_comes_costs_no_more_than_one_that_does(ends, lines, length):
    """Each line is short, and the other separator is in none: it must not be looked for in all that
    was read, at each line.
    """
    reader, writer = ends
    buffer = replace_buffer(reader, Searched())

    def main():
        yield from writer.sendall((b"x" * (length - 1) + b"\n") * lines)
        for _ in range(lines):
            yield from reader.readuntil(b"\0", b"\n")

    run(main)
    assert buffer.searched <= lines * 2 * (256 + 2 * length)


@pytest.mark.hazard("H29")
def test_a_long_message_is_searched_twice_at_most(ends):
    reader, writer = ends
    buffer = replace_buffer(reader, Searched())

    def main():
        task = spawn(writer.sendall, b"x" * 60_000 + b"\n")
        yield from reader.readuntil(b"\0", b"\n")
        yield from task

    run(main)
    assert buffer.searched <= 2 * 2 * 61_000


def test_more_tells_whether_there_is_anything_to_read(streams):
    near, far = streams

    def main():
        task = spawn(near.more())
        yield
        yield
        assert task.state == "waiting"
        yield from far.sendall(b"a\nb\n")
        got = [(yield from task)]
        yield from near.readline()
        got += [(yield from near.more()), (yield from near.readline())]
        far.close()
        return [*got, (yield from near.more()), near.ended, (yield from near.recv(1))]

    assert run(main) == [True, True, b"b\n", False, True, b""]


@pytest.mark.hazard("H31")
def test_a_deadline_for_a_whole_request_does_not_count_the_time_between_requests(streams):
    near, far = streams

    def client():
        yield Sleep(100)
        yield from far.sendall(b"quick\n")
        yield Sleep(100)
        for _ in range(20):  # a byte now and then
            yield from far.sendall(b"s")
            yield Sleep(1)

    def main():
        task = spawn(client)
        got = []
        try:
            while (yield from near.more()):
                with timeout(10):
                    got.append((yield from near.readline()))
        except TimeoutError:
            got.append(current_task().scheduler.clock())
        yield from task.stop()
        return got

    assert run(main, **virtual_time()) == [b"quick\n", 210]


def test_what_a_cancelled_reader_has_read_is_kept(streams):
    near, far = streams
    operations = [
        (near.recv_into, bytearray(9)),
        (near.readexactly, 100),
        (near.readuntil, b";"),
        (near.readline,),
    ]

    def main():
        for number, (operation, *arguments) in enumerate(operations):
            task = spawn(operation, *arguments)
            if number:
                yield from far.sendall(b"%d" % number)
                yield from turns(5)
            yield from task.stop()
        assert not near.ended
        return (yield from near.recv(100))

    assert run(main) == b"123"


def test_streams_tell_that_something_has_moved(streams):
    near, far = streams
    seen = []

    def main():
        for operation in (
            lambda: far.sendall(b"a"),
            lambda: near.recv(9),
            lambda: near.sendall(b"b"),
            lambda: far.more(),
            lambda: far.recv(9),  # from the buffer: nothing moves
            lambda: far.sendall(bytearray(b"c\n")),
            lambda: near.readline(),
        ):
            near.moved = far.moved = False
            yield from operation()
            seen.append((bool(near.moved), bool(far.moved)))

    run(main)
    assert seen == [
        *[(False, True), (True, False), (True, False), (False, True)],
        *[(False, False), (False, True), (True, False)],
    ]


@pytest.mark.parametrize("nothing", [b"", bytearray(), []])
def test_sending_nothing_moves_nothing_and_gives_way_all_the_same(streams, nothing):
    _, far = streams

    def main():
        yield from far.sendall([b"x"])
        far.moved = False
        yield from far.sendall(nothing)
        assert far.moved is False
        far.moved = True
        before = current_scheduler().stats()["turns"]
        for _ in range(3 * BUDGET):
            yield from far.sendall(nothing)
        return current_scheduler().stats()["turns"] - before

    assert run(main) >= 2


@pytest.mark.parametrize("operation", ["readline", "sendall"])
def test_a_stream_gives_way_in_every_run_and_thread_that_it_is_used_in(tcp, operation):
    near, far = tcp

    def main(rounds):
        turns = []
        for _ in range(rounds):
            if operation == "sendall":
                yield from near.sendall(b"x")
            else:
                assert (yield from far.readline()) == b"line\n"
            turns.append(current_scheduler().stats()["turns"])
        return max(Counter(turns).values())

    def begin():
        yield from near.sendall(b"line\n" * 2000)
        return (yield from main(3))

    def elsewhere():
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(run, main, 4 * BUDGET).result()

    run(begin)
    assert run(main, 4 * BUDGET) <= 2 * BUDGET
    assert elsewhere() <= 2 * BUDGET


def test_operations_give_way_however_another_thread_has_miscounted(streams):
    def main():
        yield
        set_budget(current_scheduler(), 0)
        before = current_scheduler().stats()["turns"]
        for _ in range(2 * BUDGET):
            yield from streams[0].readexactly(0)
        return current_scheduler().stats()["turns"] - before

    assert run(main) >= 2


# Spurious wake-ups --------------------------------------------------------------------------------


class Fickle(socket.socket):
    """A socket that often says that there is nothing, although a task was woken for it."""

    random = random.Random(5)

    def recv(self, most):
        if self.random.random() < 0.7:
            raise BlockingIOError(errno.EAGAIN, "not yet")
        return super().recv(self.random.randrange(1, most + 1))

    def send(self, data):
        if self.random.random() < 0.7:
            raise BlockingIOError(errno.EAGAIN, "not yet")
        return super().send(data[: self.random.randrange(1, 100)])


@pytest.mark.hazard("H12")
def test_waking_in_vain_ends_nothing_early(pair):
    rounds = 400 if FULL else 40
    fickle = [Fickle(fileno=sock.detach()) for sock in pair]
    for sock in fickle:
        sock.setblocking(False)
    near, far = map(Stream, fickle)

    def sender():
        for n in range(rounds):
            yield from near.sendall(b"%d\n" % n)
            yield from near.sendall(b"0123456789")
        yield from near.send_eof()

    def main():
        task = spawn(sender)
        for n in range(rounds):
            assert (yield from far.readline()) == b"%d\n" % n
            assert (yield from far.readexactly(4)) == b"0123"
            rest = b""
            while len(rest) < 6:
                part = yield from far.recv(6 - len(rest))
                assert part
                rest += part
            assert rest == b"456789"
        assert (yield from far.recv(1)) == b""
        yield from task

    with near, far:
        run(main)


# Several buffers, files ---------------------------------------------------------------------------


class Counting(socket.socket):
    """A socket that counts calls, and can be told to take less."""

    def __init__(self, sock):
        super().__init__(fileno=sock.detach())
        self.setblocking(False)
        self.calls = []
        self.most = 1 << 30

    def recv(self, most):
        self.calls.append("recv")
        return super().recv(most)

    def send(self, data):
        self.calls.append("send")
        return super().send(memoryview(data).cast("B")[: self.most])

    def sendmsg(self, buffers):
        self.calls.append("sendmsg")
        whole = b"".join(buffers)
        return super().sendmsg([whole[: self.most]])


@pytest.mark.parametrize("most", [1 << 30, 7, 1])
def test_several_buffers_are_sent_in_one_call_where_the_file_can(pair, most):
    data = [b"head ", bytearray(b"body "), b"", memoryview(b"1234").cast("I"), b"tail"]

    def main():
        file_of(near).most = most
        yield from near.sendall(data)
        yield from near.sendall(tuple(data))
        yield from near.sendall([])
        near.close()
        return (yield from read_all(far))

    with Stream(Counting(pair[0])) as near, Stream(pair[1]) as far:
        calls = file_of(near).calls
        assert run(main) == b"head body 1234tail" * 2
    if most == 1 << 30:
        assert calls == ["sendmsg", "sendmsg"]


def test_more_buffers_than_one_call_takes_are_sent(streams):
    near, far = streams
    parts = [b"%d," % n for n in range(3 * PIECES + 1)]

    def main():
        task = spawn(near.sendall, parts)
        got = yield from far.readexactly(sum(map(len, parts)))
        yield from task
        return got

    assert run(main) == b"".join(parts)


def test_several_buffers_go_down_a_pipe_too(ends):
    reader, writer = ends

    def main():
        yield from writer.sendall([b"a", b"", b"b" * 10])
        return (yield from reader.recv(100))

    assert run(main) == b"a" + b"b" * 10


def test_a_buffer_of_numbers_is_sent_whole_also_if_the_kernel_takes_as_many_bytes_as_numbers(pair):
    """Two numbers are eight bytes: two bytes taken are not all."""
    data = memoryview(b"12345678").cast("I")

    def main():
        yield from far.sendall(b"?")
        yield from near.recv(9)  # so that it goes the short way
        file_of(near).most = len(data)
        yield from near.sendall(data)
        return (yield from far.readexactly(8))

    with Stream(Counting(pair[0])) as near, Stream(pair[1]) as far:
        assert run(main) == b"12345678"


def test_an_echo_takes_one_recv_and_one_send_and_no_change_of_registrations(pair):
    changes = []

    class Selector(selectors.EpollSelector):
        def register(self, *args):
            changes.append("register")
            return super().register(*args)

        def modify(self, *args):
            changes.append("modify")
            return super().modify(*args)

        def unregister(self, *args):
            changes.append("unregister")
            return super().unregister(*args)

    def echo():
        while data := (yield from near.recv(CHUNK)):
            yield from near.sendall(data)

    def main():
        task = spawn(echo)
        for _ in range(10):
            yield from far.sendall(b"x" * 1024)
            yield from far.recv(CHUNK)
        changes.clear()
        file_of(near).calls.clear()
        for _ in range(100):
            yield from far.sendall(b"x" * 1024)
            yield from far.recv(CHUNK)
        counts = file_of(near).calls.count("recv"), file_of(near).calls.count("send"), list(changes)
        far.close()
        yield from task
        return counts

    with Stream(Counting(pair[0])) as near, Stream(pair[1]) as far:
        assert run(main, selector=Selector) == (100, 100, [])


@pytest.mark.parametrize("kind", ["streams", "ends"])
@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, None), (1000, None), (1000, 500_000), (0, 0), (1_023_990, 100), (2_000_000, None)],
)
def test_a_file_is_sent(request, kind, file, offset, count):
    near, far = request.getfixturevalue(kind)
    if kind == "ends":
        near, far = far, near
    wanted = WHOLE[offset:][:count]

    def main():
        task = spawn(read_all, far)
        position = file.tell()
        sent = yield from near.sendfile(file, offset, count)
        assert file.tell() == position
        near.close()
        return sent, (yield from task)

    assert run(main) == (len(wanted), wanted)


@pytest.mark.parametrize("thing", [io.BytesIO(b"x"), "path", 7])
def test_what_is_no_file_on_a_disk_cannot_be_sent_as_one(streams, thing):
    text = (
        r"sendfile\(\) got .*: give a file on a disk, as open\(path, 'rb'\) returns; bytes are for"
    )
    with pytest.raises(TypeError, match=text):
        run(streams[0].sendfile, thing)


@pytest.mark.parametrize("arguments", [(-1,), (0, -1)])
def test_a_part_of_a_file_that_cannot_be_is_refused(streams, file, arguments):
    with pytest.raises(ValueError, match="less than nothing"):
        run(streams[0].sendfile, file, *arguments)


@pytest.mark.parametrize("reason", [errno.EINVAL, errno.EIO])
def test_a_file_that_the_kernel_cannot_send_by_itself_is_read_here(
    streams, file, monkeypatch, reason
):
    near, far = streams
    calls = []

    def refuse(*args):
        calls.append(args)
        raise OSError(reason, "no")

    monkeypatch.setattr(os, "sendfile", refuse)

    def main():
        task = spawn(read_all, far)
        if reason == errno.EIO:
            with pytest.raises(OSError) as caught:
                yield from near.sendfile(file)
            near.close()
            return caught.value.errno, caught.value.bytes_sent, (yield from task)
        sent = yield from near.sendfile(file)
        near.close()
        return sent, len(calls), (yield from task)

    wanted = (errno.EIO, 0, b"") if reason == errno.EIO else (len(WHOLE), 1, WHOLE)
    assert run(main) == wanted


@pytest.mark.parametrize("kind", ["streams", "ends"])
def test_a_cancelled_sendfile_says_how_much_went_out(request, kind, file):
    near, far = request.getfixturevalue(kind)
    if kind == "ends":
        near, far = far, near

    def main():
        with pytest.raises(TimeoutError) as caught:
            with timeout(1):
                yield from near.sendfile(file)
        near.close()
        return caught.value.bytes_sent, (yield from read_all(far))

    sent, got = run(main, **virtual_time())
    assert 0 < sent < len(WHOLE)
    assert got == WHOLE[:sent]


# How much went out --------------------------------------------------------------------------------


@pytest.mark.hazard("H23")
@pytest.mark.parametrize("kind", ["streams", "tcp"])
@pytest.mark.parametrize("size", [0, 1, 65_535, 1_000_000])
@pytest.mark.parametrize("shape", ["bytes", "several"])
def test_a_cancelled_sendall_says_exactly_what_the_other_side_will_read(request, kind, size, shape):
    near, far = request.getfixturevalue(kind)
    data = os.urandom(10_000_000)

    def sender():
        try:
            parts = [data[i : i + 70_000] for i in range(0, len(data), 70_000)]
            yield from near.sendall(data if shape == "bytes" else parts)
        except Cancelled as exc:
            return exc.bytes_sent

    def main():
        task = spawn(sender)
        got = b""
        while len(got) < size:
            got += yield from far.recv(size - len(got))
        yield Sleep(0.01)
        sent = yield from task.stop()
        near.close()
        got += yield from read_all(far)
        return sent, got

    sent, got = run(main)
    assert size <= sent < len(data)
    assert got == data[:sent]


@pytest.mark.hazard("H23")
@pytest.mark.parametrize("shots", [[ONE, SHORT, errno.ECONNRESET], [errno.EPIPE], [LATE, ONE, ONE]])
def test_a_failed_sendall_says_it_too(shots):
    sock = FakeSocket(send=[*shots, errno.EPIPE])
    sock.far.setblocking(False)

    def main():
        with pytest.raises(OSError) as caught:
            yield from Stream(sock).sendall(b"0123456789")
        return caught.value.bytes_sent

    try:
        sent = run(main)
        got = sock.far.recv(100) if sent else b""
    finally:
        sock.discard()
    assert len(got) == sent
    assert sent == {errno.ECONNRESET: 9, errno.EPIPE: 0, ONE: 2}[shots[-1]]


def test_whatever_ends_a_sendall_says_how_much_went_out(streams):
    near = streams[0]

    def main():
        seen = []
        for data in ("text", [b"x", 5]):
            with pytest.raises(TypeError) as caught:
                yield from near.sendall(data)
            seen.append(caught.value.bytes_sent)
        task = spawn(near.sendall, bytes(10_000_000))
        yield
        yield
        with pytest.raises(BusyError) as busy:
            yield from near.sendall(b"x")
        seen.append(busy.value.bytes_sent)
        near.close()
        with pytest.raises(ClosedError) as caught:
            yield from task
        seen.append(caught.value.bytes_sent > 0)
        with pytest.raises(ClosedError) as caught:
            yield from near.sendall(b"x")
        return [*seen, caught.value.bytes_sent]

    assert run(main) == [0, 0, 0, True, 0]


def test_the_short_way_says_it_as_well(streams):
    near, far = streams

    def main():
        yield from far.sendall(b"?")
        yield from near.recv(9)
        far.close()
        with pytest.raises(OSError) as caught:
            yield from near.sendall(b"!")
        return caught.value.bytes_sent

    assert run(main) == 0


@pytest.mark.parametrize("full", [True, False])
def test_the_short_way_may_find_the_file_full(streams, full):
    near, far = streams
    data = os.urandom(5_000_000)

    def main():
        filled = 0
        if full:
            with pytest.raises(BlockingIOError):
                while True:
                    filled += file_of(near).send(b"x" * 1000)
        yield from far.sendall(b"?")
        yield from near.recv(9)
        task = spawn(near.sendall, data)
        yield
        yield
        assert task.state == "waiting"
        got = yield from far.readexactly(filled + len(data))
        yield from task
        return got[filled:]

    assert run(main) == data


def test_buffers_are_not_kept_locked_by_the_error_of_a_sendall(streams):
    near = streams[0]
    parts = [bytearray(1_000_000) for _ in range(5)]

    def main():
        task = spawn(near.sendall, parts)
        yield
        yield
        near.close()
        with pytest.raises(ClosedError) as caught:
            yield from task
        for part in parts:
            part.append(1)
        return caught.value

    run(main)


def test_nor_by_the_error_of_a_call():
    parts = [bytearray(b"abc"), bytearray(b"def")]
    sock = FakeSocket(sendmsg=errno.EPIPE)

    def main():
        with pytest.raises(BrokenPipeError) as caught:
            yield from Stream(sock).sendall(parts)
        for part in parts:
            part.append(1)
        return caught.value

    try:
        run(main)
    finally:
        sock.discard()


@pytest.mark.hazard("H28")
def test_a_sender_is_held_up_by_a_reader_that_does_not_read(tcp):
    """Nothing is kept on the way: what was taken is what the kernel's two buffers hold."""
    near = tcp[0]
    taken = []

    def producer():
        chunk = bytes(100_000)
        while True:
            yield from near.sendall(chunk)
            taken.append(len(chunk))

    def main():
        task = spawn(producer)
        stood = -1
        while len(taken) > stood or task.state != "waiting":
            stood = len(taken)
            assert sum(taken) < 100_000_000
            yield Sleep(0.05)
        assert repr(task.wait).startswith("WriteWait")
        yield from task.stop()

    run(main)


@pytest.mark.hazard("H50")
def test_a_task_that_talks_to_itself_starves_nobody(streams):
    near, far = streams
    rounds = 2000

    def busy():
        for _ in range(rounds):
            yield from near.sendall(b"x" * 100)
            yield from far.recv(1)
            yield from far.recv(1000)

    def main():
        task = spawn(busy)
        ticks = 0
        while not task.done:
            yield
            ticks += 1
        return ticks

    assert run(main) >= rounds // 64


# The two ends of a connection ---------------------------------------------------------------------


@pytest.mark.hazard("H25")
def test_who_writes_to_a_dead_peer_gets_a_broken_pipe_and_can_still_read_its_last_words(tcp):
    near, far = tcp

    def main():
        yield from far.sendall(b"last words")
        far.close()
        yield from near.sendall(b"into the void")  # the first one succeeds
        yield Sleep(0.01)
        with pytest.raises(BrokenPipeError):
            yield from near.sendall(b"again")
        return (yield from near.recv(100))

    assert run(main) == b"last words"


@pytest.mark.hazard("H26")
def test_a_graceful_close_lets_the_other_side_read_all(tcp):
    near, far = tcp
    data = os.urandom(3_000_000)

    def server():
        yield from near.sendall(data)
        yield from near.aclose()

    def main():
        yield from far.sendall(bytes(1000))  # which the server never reads
        task = spawn(server)
        got = yield from read_all(far)
        far.close()
        yield from task
        return got == data

    assert run(main)


@pytest.mark.hazard("H27")
@pytest.mark.parametrize("kind", ["streams", "tcp"])
def test_the_end_of_what_one_side_sends_does_not_end_what_the_other_does(request, kind):
    near, far = request.getfixturevalue(kind)
    data = os.urandom(1_000_000)

    def server():
        question = yield from read_all(near)
        yield from near.sendall(question + data)
        yield from near.send_eof()

    def main():
        task = spawn(server)
        yield from far.sendall(b"question ")
        yield from far.send_eof()
        with pytest.raises(BrokenPipeError):
            yield from far.sendall(b"too late")
        got = yield from read_all(far)
        yield from task
        return got

    assert run(main) == b"question " + data


def test_the_end_of_a_pipe_is_its_closing(ends):
    reader, writer = ends

    def main():
        yield from writer.sendall(b"x")
        yield from writer.send_eof()
        yield from writer.send_eof()
        with pytest.raises(BrokenPipeError):
            yield from writer.sendall(b"y")
        with pytest.raises(io.UnsupportedOperation, match="can only be read"):
            yield from reader.send_eof()
        return (yield from read_all(reader))

    assert run(main) == b"x"


def test_a_file_of_one_direction_says_so(endless):
    with pytest.raises(io.UnsupportedOperation):
        run(endless.send_eof)


def test_a_graceful_close_takes_no_longer_than_it_may(streams):
    near, far = streams

    def main():
        yield from near.aclose(within=5)
        yield from near.aclose()
        return now(), (yield from far.recv(9)), repr(near)

    assert run(main, **virtual_time()) == (5, b"", "<Stream over <socket closed>>")


def test_a_graceful_close_throws_away_what_comes_and_is_not_kept_by_it(endless):
    def main():
        with pytest.raises(io.UnsupportedOperation):
            yield from endless.send_eof()
        file_of(endless).shutdown = lambda how: None
        yield from endless.aclose(0.01)

    run(main)
    assert repr(endless) == "<Stream over <Endless closed>>"


@pytest.mark.parametrize("ended", [True, False])
def test_a_graceful_close_does_not_read_beyond_the_end(pair, ended):
    def main():
        pair[1].close()
        if ended:
            yield from near.recv(1)
        file_of(near).calls.clear()
        yield from near.aclose()
        return calls

    near = Stream(Counting(pair[0]))
    calls = file_of(near).calls
    assert run(main) == ([] if ended else ["recv"])


@pytest.mark.parametrize("kind", ["reset", "reader", "writer"])
def test_a_graceful_close_of_what_is_gone_or_goes_one_way_closes_it(tcp, ends, kind):
    stream = {"reset": tcp[0], "reader": ends[0], "writer": ends[1]}[kind]

    def main():
        if kind == "reset":
            yield from stream.sendall(b"unread")
            yield Sleep(0.01)
            tcp[1].close()
        before = now()
        yield from stream.aclose()
        assert now() == before, "there is nothing to wait for, although the writer stays"

    run(main, **virtual_time())
    assert repr(stream).endswith("closed>>")


def test_a_graceful_close_that_is_cancelled_closes(streams):
    near = streams[0]

    def main():
        task = spawn(near.aclose())
        yield
        yield
        yield from task.stop()
        return repr(near)

    assert run(main) == "<Stream over <socket closed>>"


@pytest.mark.parametrize("other", ["recv", "readline", "sendall"])
def test_a_graceful_close_in_the_middle_of_anothers_work_closes_at_once(streams, other):
    near = streams[0]
    argument = {"recv": [9], "readline": [], "sendall": [bytes(10_000_000)]}[other]

    def main():
        task = spawn(getattr(near, other), *argument)
        yield
        yield
        with pytest.raises(BusyError):
            yield from near.aclose()
        with pytest.raises(ClosedError):
            yield from task

    run(main)


def test_addresses_are_told_as_long_as_there_are_any_and_asking_never_fails(tcp, ends, pair):
    near, far = tcp
    assert near.peer == far.local
    assert far.peer == near.local
    assert Stream(pair[0], peer="somebody").peer == "somebody"
    assert Stream(pair[1]).peer == ""
    assert ends[0].peer is None
    assert ends[0].local is None
    near.close()
    assert near.peer is None
    assert near.local is None


def test_a_reader_that_gives_way_is_still_the_only_one(endless):
    """Between its look at the buffer and its wait nobody else may come in."""

    def main():
        scheduler = current_task().scheduler
        yield from endless.readline()  # the buffer has more
        while budget_of(scheduler) > 1:
            yield from endless.readline()
        task = spawn(endless.readline(), name="one")
        yield
        assert not task.done
        for operation in (
            lambda: endless.recv(1),
            lambda: endless.readexactly(1),
            lambda: endless.more(),
            lambda: endless.recv_into(bytearray(1)),
            lambda: endless.readuntil(b"\n"),
        ):
            with pytest.raises(BusyError, match=r"task one#2 .* is reading from it"):
                yield from operation()
        yield from task

    run(main)


# What is left -------------------------------------------------------------------------------------


def leaves_closed():
    near, far = make_streams()
    yield from near.sendall([b"a\n", b"b"])
    yield from far.readline()
    near.close()
    far.close()


def leaves_in_the_middle():
    near, far = make_streams()
    for call in (near.readline(), near.sendall(bytes(10_000_000)), far.more()):
        spawn(call)  # what it raises is reported: who joined it would be in its traceback
    yield
    yield
    near.close()
    far.close()


def leaves_refused():
    near, far = make_streams()
    calls = [near.recv(1), near.recv(1), near.readline(1), near.recv(0)]
    calls += [near.sendall(bytes(10_000_000)), near.sendall(b"x")]
    calls += [far.readline(3), far.readuntil(b"\n")]
    for call in calls:
        spawn(call)
    yield
    yield
    far.close()
    yield
    near.close()


def leaves_timed_out():
    near, far = make_streams()
    with near, far:
        try:
            with timeout(1):
                yield from near.sendall(bytes(10_000_000))
        except TimeoutError:
            pass
        with move_on_after(1):
            yield from near.readexactly(5)


def leaves_gracefully_closed():
    near, far = make_streams()
    spawn(near.aclose())
    spawn(far.aclose())
    yield


@pytest.mark.hazard("H55")
@pytest.mark.parametrize(
    "scenario",
    [
        leaves_closed,
        leaves_in_the_middle,
        leaves_refused,
        leaves_timed_out,
        leaves_gracefully_closed,
    ],
)
def test_streams_leave_no_garbage(scenario):
    assert garbage_of(scenario) == []


def talk():
    """Two sides that talk, of which any may be cancelled anywhere: the other one notices."""
    near, far = make_streams()
    far.max_line = near.max_line = 500_000

    def server():
        with far:
            while line := (yield from far.readline()):
                yield from far.sendall([b"you said ", line])
            yield from far.aclose(1)

    def client():
        with near:
            for n in range(3):
                yield from near.sendall(b"%d" % n * 400_000 + b"\n")
                if not (yield from near.readuntil(b"\n")):
                    return
            yield from near.aclose(1)

    def careful(f):
        try:
            yield from f()
        except (OSError, EOFError):
            pass

    with near, far:
        tasks = [spawn(careful, server), spawn(careful, client)]
        yield from survivors(tasks)


def test_a_talk_that_is_cancelled_anywhere_leaves_nothing():
    assert cancel_everywhere(talk) > 20


def test_a_buffer_that_cannot_be_written_to_is_refused_and_no_data_is_lost(pair):
    def main():
        with Stream(pair[0]) as near, Stream(pair[1]) as far:
            yield from near.sendall(b"line\nrest")
            yield from far.readline()
            with pytest.raises(TypeError, match="give it a bytearray"):
                yield from far.recv_into(b"four")
            return (yield from far.recv(100))

    assert run(main) == b"rest"


@pytest.mark.parametrize("separators", ["\n", (b"\n", b"\r"), 100])
def test_a_separator_that_is_not_bytes_is_refused_before_anything_is_waited_for(pair, separators):
    def main():
        with Stream(pair[0]) as near:
            with pytest.raises(TypeError, match="separators are bytes"):
                yield from near.readuntil(separators)

    run(main)


@pytest.mark.parametrize("data", ["text", ["text"], 7])
def test_what_is_not_bytes_is_refused_by_sendall_in_its_own_words(pair, data):
    def main():
        with Stream(pair[0]) as near:
            with pytest.raises(TypeError, match=r"sendall\(\) takes bytes") as caught:
                yield from near.sendall(data)
            assert caught.value.bytes_sent == 0

    run(main)


def test_law_one_waiter_a_reader_that_was_woken_in_vain_is_not_displaced(pair):
    a, b = pair
    stream = Stream(a)

    def main():
        first = spawn(stream.recv, 9)
        yield
        yield
        b.send(b"x")
        yield  # from here on the first is ready, and comes after this task
        assert a.recv(1) == b"x"  # a thief, for instance another process
        with pytest.raises(BusyError, match=r"recv\(\) on .*: another task is reading from it"):
            yield from stream.recv(9)
        yield
        with pytest.raises(BusyError, match=rf"task {first.label} .*is reading from it"):
            yield from stream.recv(9)
        b.send(b"y")
        assert (yield from first) == b"y"
        stream.close()

    run(main)


def test_a_blocking_socket_is_refused_at_once():
    a, b = socket.socketpair()
    with (
        a,
        b,
        pytest.raises(ValueError, match=r"Stream\(<socket fd=\d+>\): the socket is blocking"),
    ):
        Stream(a)


def test_a_socket_that_gave_all_that_was_asked_for_is_waited_for_before_it_is_asked_again(pair):
    """Messages that are just as long: an attempt in between would fail each time."""
    a, b = pair
    asked = []

    def profile(frame, event, function):
        if event == "c_call" and function.__name__ == "recv" and function.__self__ is a:
            asked.append(function)

    def main():
        with Stream(a) as stream:
            for _ in range(10):
                reading = spawn(stream.recv(8))
                yield
                yield  # now it waits
                b.send(b"message!")
                assert (yield from reading) == b"message!"
            b.send(b"two messages!")
            return (yield from stream.recv(8)), (yield from stream.recv(8))

    sys.setprofile(profile)
    try:
        assert run(main) == (b"two mess", b"ages!")
    finally:
        sys.setprofile(None)
    assert len(asked) == 12


def test_a_socket_that_keeps_data_to_itself_is_asked_until_it_has_no_more(pair):
    a, b = pair

    class Hoard(socket.socket):
        kept = b""

        def recv(self, most):
            self.kept = self.kept or super().recv(65536)
            data, self.kept = self.kept[:most], self.kept[most:]
            return data

    def main():
        hoard = Hoard(fileno=a.detach())
        hoard.setblocking(False)
        with Stream(hoard) as stream:
            b.send(b"123456")
            for each in (b"12", b"34", b"56"):
                assert (yield from stream.recv(2)) == each

    run(main)


@pytest.mark.found("T9")
def test_a_deadline_that_has_passed_misses_nothing_that_was_read_already(pair):
    a, b = pair
    reads = [
        lambda stream: stream.recv(1),
        lambda stream: stream.recv_into(bytearray(1)),
        lambda stream: stream.readexactly(1),
        lambda stream: stream.readline(),
        lambda stream: stream.readuntil(b"\n"),
        lambda stream: stream.more(),
    ]

    def main():
        stream = Stream(a)
        b.send(b"\n" * 2000)
        yield from stream.more()
        for n in range(1200):
            with move_on_after(0) as scope:
                assert (yield from reads[n % 6](stream))
            assert not scope.expired

    run(main)
