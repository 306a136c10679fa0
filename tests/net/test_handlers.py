"""What can be no handler is refused when the server is made, and told how it should be."""

import functools
import re
from collections.abc import Generator

import pytest

from corolib import listen_tcp, open_udp, run, serve_tcp, serve_udp, serve_unix, waits
from corolib.net.handlers import DATAGRAM, STREAM, check_handler
from corolib.testing import open_files
from tests.helpers.driving import echo

LOCAL = "127.0.0.1"


def two(reader, writer):
    yield


def none():
    yield


def by_keyword(stream, *, limit):
    yield


def nothing(stream):
    print(stream)


def bare(stream):
    if stream:
        return
    print()


async def both(stream):
    yield stream


def last(database, size, stream):
    yield


class Service:
    def handle(self, stream, more):
        yield

    def nothing(self):
        yield


def is_told(handler, said, kind=STREAM):
    with pytest.raises(TypeError, match=f"^{re.escape(said)}") as caught:
        check_handler("serve_tcp", handler, kind)
    return str(caught.value)


@pytest.mark.parametrize(
    ("handler", "takes", "cure"),
    [
        (two, "(reader, writer)", "Write `def two(stream): ...`"),
        (none, "()", "Write `def none(stream): ...`"),
        (lambda: None, "()", "Write `lambda stream: ...`"),
        (Service().nothing, "()", "Write `def nothing(self, stream): ...`"),
        (Service.handle, "(self, stream, more)", "of an object, as `Service().handle` is"),
        (by_keyword, "(stream, limit)", "give it the rest by `partial(by_keyword, limit=...)`, of"),
        (Service().handle, "(stream, more)", "the rest by `partial(handle, more=...)`, of functoo"),
        (last, "(database, size, stream)", "give it the rest by `partial(last, database, size)`, "),
    ],
)
def test_a_handler_that_takes_something_else_is_told_what_it_gets(handler, takes, cure):
    name = handler.__name__
    line = handler.__code__.co_firstlineno
    said = is_told(
        handler,
        f"serve_tcp() calls {name}() (test_handlers.py:{line}) with (stream), but it takes {takes}",
    )
    assert cure in said
    assert ("read and written, and `stream.peer` is who has connected" in said) == ("Wri" in cure)


def test_a_class_is_no_handler_but_a_method_of_its_objects_may_be():
    said = is_told(Service, "serve_tcp() got the class Service: give a generator function of one")
    assert said.endswith("or the method of an object, as `Service().handle` may be")
    check_handler("serve_tcp", Body, STREAM)
    check_handler("serve_udp", bytes, DATAGRAM)


class Body(Generator):
    """A generator that is written by hand."""

    def __init__(self, stream): ...
    def send(self, value): ...
    def throw(self, *error): ...


@pytest.mark.found("E2")
@pytest.mark.parametrize("handler", [nothing, bare, lambda stream: None])
def test_a_handler_that_cannot_wait_is_named_with_its_line(handler):
    name, line = handler.__name__, handler.__code__.co_firstlineno
    is_told(handler, f"serve_tcp() got {name}() (test_handlers.py:{line}): it has no `yield`")


def test_a_generator_that_is_asynchronous_as_well_is_none():
    is_told(
        both, f"serve_tcp() got both() (test_handlers.py:{both.__code__.co_firstlineno}), which"
    )


@pytest.mark.parametrize("call", [echo, waits(echo)])
def test_a_call_is_no_handler(call):
    is_told(call(None), "serve_tcp() got the call echo(...): give the function, `serve_tcp(echo, ")


def test_what_cannot_be_called_is_none():
    is_told(5, "serve_tcp() got 5: give a generator function of one stream")
    is_told(5, "serve_tcp() got 5: give a function of a datagram and a sender", DATAGRAM)
    is_told(echo, "serve_tcp() calls echo() (driving.py:", DATAGRAM)


def test_what_may_return_something_that_waits_is_found_out_by_calling_it():
    class Callable:
        def __call__(self, stream):
            return echo(stream)

    def default(stream, limit=5, *rest, more=None):
        return echo(stream)

    for handler in [
        echo,
        default,
        Callable(),
        Callable().__call__,
        functools.partial(two, None),
        lambda stream: echo(stream),
        lambda *args: echo(*args),
        print,
    ]:
        check_handler("serve_tcp", handler, STREAM)
    check_handler("serve_udp", lambda data, sender: None, DATAGRAM)


def test_each_call_names_itself_and_leaves_nothing_open(tmp_path):
    def of_a_listener():
        yield
        with listen_tcp(LOCAL, 0) as listener:
            listener.serve(nothing)

    def of_a_socket():
        with (yield from open_udp(local=(LOCAL, 0))) as sock:
            sock.serve(nothing)

    before = open_files()
    for call, caller in [
        (serve_tcp(nothing, LOCAL, 0), "serve_tcp"),
        (serve_unix(nothing, tmp_path / "s"), "serve_unix"),
        (serve_udp(nothing, LOCAL, 0), "serve_udp"),
        (of_a_listener(), "serve"),
        (of_a_socket(), "serve"),
    ]:
        with pytest.raises(TypeError, match=rf"^{caller}\(\) (got|calls) nothing\(\) \(test_hand"):
            run(call)
    assert open_files() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backlog", [-1, "5", True])
def test_a_backlog_is_a_number_of_connections(backlog, tmp_path):
    for call, caller in [
        (lambda: listen_tcp(LOCAL, 0, backlog=backlog), "listen_tcp"),
        (lambda: run(serve_tcp(echo, LOCAL, 0, backlog=backlog)), "serve_tcp"),
        (lambda: run(serve_unix(echo, tmp_path / "s", backlog=backlog)), "serve_unix"),
    ]:
        kind = ValueError if backlog == -1 else TypeError
        with pytest.raises(kind, match=rf"^{caller}\(backlog=\) takes a whole number, at least 0"):
            call()


def test_serve_tcp_and_serve_unix_are_named_where_the_address_is_wrong(tmp_path):
    for call, said in [
        (serve_tcp(echo, 7007, LOCAL), r"serve_tcp\(7007, '127.0.0.1'\): the host comes first"),
        (serve_tcp(echo, "", 0), r"serve_tcp\('', 0\): no host; None is all of this machine"),
        (serve_tcp(echo, LOCAL, 0, keepalive=0), r"serve_tcp\(keepalive=\) got 0"),
        (serve_unix(echo, ""), r"serve_unix\(''\): the path is empty"),
        (serve_unix(echo, tmp_path / "s", mode=660), r"serve_unix\(mode=660\) is 0o1224"),
    ]:
        with pytest.raises((TypeError, ValueError), match=f"^{said}"):
            run(call)
