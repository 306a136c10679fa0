"""The seam to the network: what it hands out, and that a run uses the one it was given."""

import builtins
import errno
import os
import socket
from itertools import islice

import pytest

from corolib import ReadWait, Scheduler, run
from corolib.kernel import OwnedSocket
from corolib.net.network import (
    NUMERIC,
    Network,
    address_text,
    bind_hint,
    discard,
    network,
    pauses,
    unsent,
)
from tests.helpers.sockets import make_pair


def test_a_new_socket_does_not_block_and_is_not_inherited():
    with network().socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert sock.gettimeout() == 0
        assert not sock.get_inheritable()
        assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_DGRAM)


def test_what_a_socket_of_the_library_accepts_is_owned_and_the_socket_itself_is_not():
    with network().socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not isinstance(listener, OwnedSocket)
        with socket.create_connection(listener.getsockname()) as client:
            conn, peer = listener.accept()
            with conn:
                assert isinstance(conn, OwnedSocket)
                assert peer == conn.getpeername() == client.getsockname()
                assert (conn.family, conn.type, conn.proto) == (
                    (listener.family, listener.type, listener.proto)
                )
                assert f"<socket fd={conn.fileno()}>" in repr(ReadWait(conn))
                client.sendall(b"x")
                assert conn.recv(2) == b"x"


def test_an_adopted_socket_does_not_block_and_is_no_longer_inherited():
    with socket.create_server(("127.0.0.1", 0)) as given:
        fd = os.dup(given.fileno())
        os.set_inheritable(fd, True)
        with network().adopt(fd) as sock:
            assert sock.fileno() == fd
            assert sock.gettimeout() == 0
            assert not sock.get_inheritable()
            assert sock.getsockname() == given.getsockname()


def test_what_is_no_socket_is_not_adopted_and_stays_open():
    r, w = os.pipe()
    with pytest.raises(OSError):
        network().adopt(r)
    os.close(r)
    os.close(w)


def test_a_numeric_address_is_known_at_once():
    found = network().getaddrinfo("127.0.0.1", 80, 0, socket.SOCK_STREAM, 0, NUMERIC)
    assert [info[4] for info in found] == [("127.0.0.1", 80)]


@pytest.mark.parametrize("port", [-1, 65536, 70000, "70000"])
def test_a_port_that_there_is_not_is_refused_and_not_taken_for_another(port):
    with pytest.raises(ValueError, match=f"port {port} of '127.0.0.1'"):
        network().getaddrinfo("127.0.0.1", port)


@pytest.mark.parametrize("port", [None, True, 7.0])
def test_a_port_that_is_none_is_not_taken_for_any(port):
    with pytest.raises(TypeError, match=f"port {port} of '127.0.0.1': give a number, 0 for any"):
        network().getaddrinfo("127.0.0.1", port)


def test_a_run_uses_the_network_that_it_was_given_and_others_that_of_the_system():
    class Mine(Network):
        pass

    mine = Mine()
    system = network()

    def main():
        yield
        return network()

    assert run(main, network=mine) is mine
    assert run(main) is system
    assert network() is system


@pytest.mark.parametrize("wrong", [Network, "127.0.0.1"])
def test_what_is_no_network_is_refused(wrong):
    with pytest.raises(TypeError, match=r"network=.*: give a Network"):
        Scheduler(network=wrong)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        (("fe80::1", 80, 0, 2), "[fe80::1%2]:80"),
        ("/tmp/path", "'/tmp/path'"),
        ("", "an unnamed socket"),
        (None, "an unnamed socket"),
        (b"\0name", r"b'\x00name'"),
    ],
)
def test_an_address_is_named_as_people_write_it(address, text):
    assert address_text(address) == text


def test_pauses_begin_short_and_do_not_grow_without_end():
    first, *_, last = islice(pauses(), 20)
    assert first == 0.001
    assert last == 0.05


def test_a_socket_is_discarded_with_and_without_a_run():
    def main(sock):
        yield
        discard(sock)

    a, b = socket.socketpair()
    discard(a)
    run(main, b)
    assert a.fileno() == b.fileno() == -1


@pytest.mark.found("N1")
def test_to_ask_what_the_kernel_keeps_imports_nothing(monkeypatch):
    """It is asked for each connection at each look; and there may be no file number left for it."""

    def refuse(*args, **kwargs):
        raise AssertionError

    a, b = make_pair()
    with a, b:
        a.send(b"hello")
        monkeypatch.setattr(builtins, "__import__", refuse)
        kept = unsent(a)
        monkeypatch.undo()
        assert kept >= 5
    monkeypatch.setattr("corolib.net.network.fcntl", None)  # as on Windows
    assert unsent(a) == 0


@pytest.mark.parametrize(
    ("number", "port", "hint"),
    [
        (errno.EADDRINUSE, 7007, ". Another program has that port: take another one, or 0 for any"),
        (errno.EACCES, 80, ". A port below 1024 needs a permission: take one above, or 0 for any"),
        (errno.EACCES, 7007, ""),
        (errno.EADDRNOTAVAIL, 80, ""),
    ],
)
def test_what_to_do_about_an_address_that_is_not_to_be_had(number, port, hint):
    assert bind_hint(OSError(number, "x"), port) == hint
