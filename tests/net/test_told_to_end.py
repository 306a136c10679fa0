"""A task gets what it waits for, is told to end, and loses its file, all in one turn.

It goes on once, with what it has got, and finds its file closed. That is no failure: it has ended
as it was told. If nobody told it, it is one.
"""

import os
import socket
import tempfile
from contextlib import ExitStack

import pytest

from corolib import ClosedError, DatagramSocket, ReadWait, Stream, TaskCancelled, listen_tcp, spawn
from corolib.system.pipe_ends import Pipe
from tests.helpers.driving import go
from tests.helpers.sockets import empty, make_pair

BIG = bytes(10_000_000)


def for_ever(operation, *args):
    while True:
        yield from operation(*args)


def over_a_pair(operation, arrive):
    """Return a stream, its operation, and what makes that go on."""
    near, far = make_pair()
    stream = Stream(near)
    return stream, lambda: operation(stream), lambda: arrive(far), far


def lines():
    return over_a_pair(lambda stream: stream.readline(), lambda far: far.send(b"a part"))


def chunks():
    return over_a_pair(lambda stream: for_ever(stream.recv, 10), lambda far: far.send(b"some"))


def sending():
    return over_a_pair(lambda stream: stream.sendall(BIG), empty)


def sending_a_file():
    def send(stream):
        with tempfile.TemporaryFile() as file:
            file.truncate(len(BIG))
            yield from stream.sendfile(file)

    return over_a_pair(send, empty)


def a_pipe():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    stream, far = Stream(Pipe(open(reader, "rb", 0))), open(writer, "wb", 0)
    return stream, stream.readline, lambda: far.write(b"a part"), far


def accepting():
    listener, far = listen_tcp("127.0.0.1", 0), socket.socket()
    return listener, listener.accept, lambda: far.connect(listener.addresses[0]), far


def datagrams():
    near, far = socket.socketpair(type=socket.SOCK_DGRAM)
    near.setblocking(False)
    udp = DatagramSocket(near)
    return udp, lambda: for_ever(udp.recv), lambda: far.send(b"x"), far


KINDS = [lines, chunks, sending, sending_a_file, a_pipe, accepting, datagrams]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_is_told_to_end_and_finds_its_file_closed_has_not_failed(kind, told):
    with ExitStack() as stack:
        bell, ring = map(stack.enter_context, make_pair())
        thing, operation, arrive, far = kind()
        stack.enter_context(far)

        def end(task):
            yield ReadWait(bell)
            assert task.wait is None, "both were woken in the same turn, and this one is first"
            if told:
                task.cancel()
            thing.close()

        def main():
            task = spawn(operation)
            spawn(end, task)
            yield
            yield
            ring.send(b"!")
            arrive()
            with pytest.raises(TaskCancelled if told else ClosedError):
                yield from task

        go(main)
