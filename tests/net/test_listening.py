"""Listening: addresses, ports and files; and accepting, whatever the system answers."""

import errno
import logging
import os
import socket
import stat
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path

import pytest

import corolib
from corolib import BusyError, ClosedError, Listener, Sleep, listen_tcp, listen_unix, run, spawn
from corolib.kernel import OwnedSocket
from corolib.net.listening import BATCH, DEAD, LOST, PORTS
from corolib.net.network import SUN_PATH, ListeningSocket
from corolib.testing import cancel_everywhere, open_files, virtual_time
from tests.helpers.faults import LATE, NUMBERS, FakeNetwork, FakeSocket
from tests.helpers.inside import file_of, sockets_of
from tests.helpers.sockets import reset

ROOT = Path(__file__).resolve().parents[2]
LOCAL = "127.0.0.1"
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


def unbound(**scripts):
    """A fake listening socket: bound and closed at its port by nobody but the script."""
    near = socket.socket()
    near.bind((LOCAL, 0))
    return FakeSocket((near, None), **scripts)


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")


def connect(listener, number=0):
    """A client of the listener; blocking, for the kernel connects it on its own."""
    address = listener.addresses[number]
    client = socket.socket(socket.AF_INET6 if len(address) == 4 else socket.AF_INET)
    client.connect(address)
    return client


# Addresses ----------------------------------------------------------------------------------------


def test_a_listener_is_made_outside_of_a_run_and_used_inside():
    def main(listener):
        with connect(listener) as client, (yield from listener.accept()) as stream:
            assert stream.peer == client.getsockname()

    with listen_tcp(LOCAL, 0) as listener:
        ((host, port),) = listener.addresses
        assert (host, port > 0) == (LOCAL, True)
        assert repr(listener) == f"<Listener on 127.0.0.1:{port}>"
        run(main, listener)
        run(main, listener)  # and in another run
    assert repr(listener) == f"<Listener on 127.0.0.1:{port}, closed>"
    listener.close()  # again


def test_a_port_may_have_a_name_and_several_hosts_get_one_port():
    with listen_tcp([LOCAL, "127.0.0.2", LOCAL], "0") as listener:
        assert [host for host, _ in listener.addresses] == [LOCAL, "127.0.0.2"]
        assert len({port for _, port in listener.addresses}) == 1


@needs_ipv6
def test_all_of_this_machine_is_ipv6_and_ipv4_on_one_port():
    with listen_tcp(port=0) as listener:
        assert {address[0] for address in listener.addresses} == {"::", "0.0.0.0"}
        assert len({address[1] for address in listener.addresses}) == 1
        assert "[::]:" in repr(listener)
    with listen_tcp(port=0, family=socket.AF_INET) as listener:
        assert {address[0] for address in listener.addresses} == {"0.0.0.0"}


@pytest.mark.found("N24")
@pytest.mark.parametrize("host", ["", [LOCAL, ""], []])
def test_an_empty_host_is_no_way_to_listen_on_all_addresses(host):
    before = open_files()
    with pytest.raises(ValueError, match="no host; None is all of this machine"):
        listen_tcp(host, 0)
    assert open_files() == before


def test_a_connection_sends_at_once_and_notices_when_its_peer_vanishes():
    def main(listener):
        with connect(listener), (yield from listener.accept()) as stream:
            conn = file_of(stream)
            assert conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert conn.gettimeout() == 0

    with listen_tcp(LOCAL, 0) as listener:
        run(main, listener)


def test_an_address_that_is_in_use_is_named(reserved):
    with listen_tcp(LOCAL, reserved) as listener:
        before = open_files()
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {reserved}") as caught:
            listen_tcp(*listener.addresses[0])
        assert str(caught.value).endswith(
            "Another program has that port: take another one, or 0 for any"
        )
        assert open_files() == before
    with listen_tcp(*listener.addresses[0]):
        pass  # it is free at once


def test_an_address_of_another_machine_is_refused_although_others_are_ours():
    before = open_files()
    with pytest.raises(OSError) as caught:
        listen_tcp([LOCAL, "192.0.2.1"], 0)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert open_files() == before


def test_a_name_that_is_not_known_is_an_error_of_the_lookup():
    def main():
        listen_tcp("nowhere", 0)
        yield

    with FakeNetwork(hosts={"nowhere": socket.gaierror(socket.EAI_NONAME, "unknown")}) as network:
        with pytest.raises(socket.gaierror, match="unknown: nowhere:0"):
            run(main, network=network)


def opening(network, *args, **kwargs):
    """Open a listener in a run on that network, and close it; return its addresses."""

    def main():
        yield
        with listen_tcp(*args, **kwargs) as listener:
            return listener.addresses

    return run(main, network=network)


BOTH = {"both": [("::1", 0, 0, 0), (LOCAL, 0)]}


@pytest.mark.parametrize("missing", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_name_may_have_an_address_of_a_family_that_is_switched_off(missing):
    lacking = missing if missing == errno.EAFNOSUPPORT else unbound(bind=[missing])
    with FakeNetwork(lacking, hosts=BOTH) as network:
        ((host, _),) = opening(network, "both", 0)
    assert host == LOCAL
    with FakeNetwork(missing, missing, hosts=BOTH) as network, pytest.raises(OSError) as caught:
        opening(network, "both", 0)
    assert caught.value.errno == missing


def test_a_port_that_is_free_in_one_family_only_is_given_up_for_another():
    taken = [unbound(), unbound(bind=[errno.EADDRINUSE])]
    with FakeNetwork(*taken, unbound(), unbound(), hosts=BOTH) as network:
        assert len(opening(network, "both", 0)) == 2
        assert all(sock.closed for sock in taken)
        assert len(network.opened) == 4


def test_it_does_not_look_for_a_free_port_for_ever():
    socks = [unbound(bind=[errno.EADDRINUSE] * (n % 2)) for n in range(2 * PORTS + 2)]
    with FakeNetwork(*socks, hosts=BOTH) as network, pytest.raises(OSError) as caught:
        opening(network, "both", 0)
    assert caught.value.errno == errno.EADDRINUSE
    assert len(network.opened) == 2 * PORTS
    assert all(sock.closed for sock in network.opened)


def test_a_port_that_was_asked_for_is_not_tried_again():
    with FakeNetwork(unbound(bind=[errno.EADDRINUSE]), unbound()) as network:
        with pytest.raises(OSError):
            opening(network, LOCAL, 7)
        assert len(network.opened) == 1


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("call", ["socket", "bind", "listen"])
def test_what_opening_fails_with_is_raised_and_nothing_is_left_open(call, name):
    number = getattr(errno, name)
    sock = number if call == "socket" else unbound(**{call: [number]})
    with FakeNetwork(unbound(), sock) as network:
        with pytest.raises(OSError) as caught:
            opening(network, [LOCAL, "127.0.0.2"], 0)
        assert caught.value.errno == number
        assert "127.0.0.2" in str(caught.value)
        assert all(sock.closed for sock in network.opened)


def test_several_processes_may_share_a_port():
    with listen_tcp(LOCAL, 0, reuse_port=True) as one:
        port = one.addresses[0][1]
        with listen_tcp(LOCAL, port, reuse_port=True) as two:
            assert two.addresses == one.addresses
        with pytest.raises(OSError):
            listen_tcp(LOCAL, port)


def test_the_backlog_is_what_was_asked_for():
    sock = unbound()
    seen = []
    sock.listen = seen.append
    with FakeNetwork(sock) as network:
        opening(network, LOCAL, 0, backlog=3)
    assert seen == [3]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((LOCAL,), {}),
        ((LOCAL, 0), {"fd": 3}),
        ((LOCAL,), {"fd": 3}),
        ((), {"port": 0, "fd": 3}),
    ],
)
def test_a_listener_has_a_port_or_sockets_that_listen(args, kwargs):
    with pytest.raises(TypeError, match="listen_tcp"):
        listen_tcp(*args, **kwargs)


def test_a_listener_without_sockets_is_none():
    with pytest.raises(ValueError, match="at least one"):
        Listener([])


# Inherited sockets --------------------------------------------------------------------------------


def test_inherited_sockets_are_served_and_no_longer_inherited():
    def main():
        with listen_tcp(fd=[one.detach(), two.detach()]) as listener:
            with connect(listener, 1) as client:
                with (yield from listener.accept()) as stream:
                    assert stream.peer == client.getsockname()
            return [sock.get_inheritable() for sock in sockets_of(listener)], listener.addresses

    one, two = (socket.create_server((LOCAL, 0)) for _ in range(2))
    one.set_inheritable(True)
    addresses = [one.getsockname(), two.getsockname()]
    assert run(main) == ([False, False], addresses)


def test_an_inherited_unix_socket_leaves_the_file_to_its_owner(tmp_path):
    path = str(tmp_path / "s")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    with listen_unix(fd=sock.detach()) as listener:
        assert listener.addresses == [path]
        assert repr(listener) == f"<Listener on {path!r}>"
    assert os.path.exists(path)


def test_an_inherited_socket_of_the_wrong_kind_stays_the_callers():
    with socket.create_server((LOCAL, 0)) as good, socket.socket() as idle:
        with pytest.raises(ValueError, match=r"listen_tcp\(fd="):
            listen_tcp(fd=[good.fileno(), idle.fileno()])
        with pytest.raises(ValueError, match=r"listen_unix\(fd="):
            listen_unix(fd=good.fileno())
        assert good.getsockname() and idle.fileno() != -1
    with open(os.devnull) as file:
        with pytest.raises(OSError):
            listen_tcp(fd=file.fileno())
        file.read()


# Unix sockets -------------------------------------------------------------------------------------


def test_the_file_of_a_unix_socket_has_its_mode_and_goes_with_it(tmp_path):
    path = tmp_path / "s"
    with listen_unix(path, mode=0o640) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert listener.addresses == [str(path)]
    assert not path.exists()
    with listen_unix(os.fsencode(path)):
        assert path.is_socket()
    assert not path.exists()


def test_a_file_left_behind_is_replaced_and_one_in_use_is_not(tmp_path):
    path = str(tmp_path / "s")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(path)
    stale.close()
    with listen_unix(path):
        before = open_files()
        with pytest.raises(OSError, match="another program listens on it") as caught:
            listen_unix(path)
        assert caught.value.errno == errno.EADDRINUSE
        assert open_files() == before
        assert os.path.exists(path)


def test_a_socket_of_another_type_is_in_use_too(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, UDP) as sock:
        sock.bind(path)
        with pytest.raises(OSError, match="another program"):
            listen_unix(path)


def test_a_file_of_another_kind_is_left_alone(tmp_path):
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="another kind"):
        listen_unix(path)
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_or_a_name_that_is_too_long_is_named(tmp_path):
    before = open_files()
    with pytest.raises(FileNotFoundError, match=r"cannot listen on .*gone"):
        listen_unix(tmp_path / "gone" / "s")
    with pytest.raises(OSError, match="a Unix socket can have"):
        listen_unix(tmp_path / ("s" * 200))
    assert open_files() == before


def test_a_folder_one_may_not_look_into_is_named(tmp_path, monkeypatch):
    def lstat(path):
        raise PermissionError(errno.EACCES, "no", path)

    monkeypatch.setattr(os, "lstat", lstat)
    with pytest.raises(PermissionError, match="no"):
        listen_unix(tmp_path / "s")


def test_a_file_that_another_server_has_put_in_its_place_stays(tmp_path):
    path = tmp_path / "s"
    with listen_unix(path):
        path.unlink()
        other = listen_unix(path)
    assert path.exists()
    other.close()
    assert not path.exists()
    with listen_unix(path):
        path.unlink()  # and nothing in its place


def test_a_forked_child_leaves_the_file_to_its_parent(tmp_path):
    """In a program of its own: from Python 3.15 on, a process with threads may not fork when
    warnings are errors, and pytest has one.
    """
    program = """
        import os, sys
        from corolib import listen_unix

        with listen_unix(sys.argv[1]) as listener:
            child = os.fork()
            if child == 0:
                listener.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert os.path.exists(sys.argv[1])
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "s")]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == 0


def test_what_fails_after_the_file_was_made_removes_it(tmp_path, monkeypatch):
    def chmod(path, mode):
        assert os.path.exists(path)
        raise PermissionError(errno.EPERM, "no", path)

    monkeypatch.setattr(os, "chmod", chmod)
    before = open_files()
    with pytest.raises(PermissionError):
        listen_unix(tmp_path / "s", mode=0o600)
    assert not os.path.exists(tmp_path / "s")
    assert open_files() == before


@pytest.mark.found("N24")
@pytest.mark.parametrize("kind", [str, os.fsencode])
def test_the_file_of_a_relative_path_is_removed_wherever_the_program_has_gone(
    tmp_path, monkeypatch, kind
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with listen_unix(kind("s")) as listener:
        assert listener.addresses == ["s"]
        monkeypatch.chdir(tmp_path)
        (tmp_path / "s").touch()  # what has the same name there is another file
    assert os.listdir(tmp_path / "here") == []
    assert (tmp_path / "s").exists()


def test_a_path_that_goes_back_from_a_linked_folder_is_the_systems(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    os.symlink(tmp_path / "a" / "b", tmp_path / "link")
    with listen_unix(tmp_path / "link" / ".." / "s"):
        assert (tmp_path / "a" / "s").is_socket()
    assert not (tmp_path / "a" / "s").exists()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777, 0])
def test_the_mode_is_what_was_asked_for_and_no_other_thread_notices(tmp_path, monkeypatch, mode):
    def umask(mask):
        raise AssertionError("all threads have one")

    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", umask)
            with listen_unix(tmp_path / "s", mode=mode):
                assert stat.S_IMODE(os.stat(tmp_path / "s").st_mode) == mode
    finally:
        os.umask(before)


@pytest.mark.found("N24")
def test_a_link_that_is_laid_in_the_place_of_the_file_is_not_followed(tmp_path, monkeypatch):
    def bind(sock, path):
        socket.socket.bind(sock, path)
        os.unlink(path)
        os.symlink(victim, path)

    victim = tmp_path / "victim"
    victim.touch(0o600)
    before = open_files()
    monkeypatch.setattr(ListeningSocket, "bind", bind, raising=False)
    with pytest.raises(FileExistsError, match="another file has taken its place"):
        listen_unix(tmp_path / "s", mode=0o666)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    assert open_files() == before


@pytest.mark.found("N3")
def test_a_file_that_cannot_be_removed_is_logged_and_the_sockets_are_closed(
    tmp_path, monkeypatch, caplog
):
    def unlink(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    path = str(tmp_path / "s")
    before = open_files()
    listener = listen_unix(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        listener.close()
        listener.close()
    assert open_files() == before
    assert os.path.exists(path)
    text = f"{path!r}: while this was closed: [Errno 13] Permission denied: {path!r}"
    assert [record.getMessage() for record in caplog.records] == [text]
    with listen_unix(path):  # the next one replaces it
        pass
    assert not os.path.exists(path)


@pytest.mark.found("N3")
def test_a_socket_whose_number_somebody_has_closed_keeps_no_other_one_open(caplog):
    before = open_files()
    listener = listen_tcp([LOCAL, "127.0.0.2"], 0)
    os.close(sockets_of(listener)[0].fileno())
    listener.close()
    assert open_files() == before
    (record,) = caplog.records
    assert record.getMessage().endswith("while this was closed: [Errno 9] Bad file descriptor")


@pytest.mark.skipif(sys.platform != "linux", reason="names without a file are Linux's")
def test_a_name_without_a_file():
    name = f"\0corolib-{os.getpid()}"
    with listen_unix(name) as listener:
        assert listener.addresses == [os.fsencode(name)]
        with pytest.raises(OSError, match="cannot listen"):
            listen_unix(name)


def test_a_unix_listener_has_a_path_or_sockets():
    for kwargs in ({}, {"path": "s", "fd": 3}):
        with pytest.raises(TypeError, match="listen_unix"):
            listen_unix(**kwargs)


# Accepting ----------------------------------------------------------------------------------------


def fake_listener(*scripts):
    """A listener of fake sockets that follow these scripts when they accept."""
    socks = []
    for script in scripts:
        near = socket.socket()
        near.bind((LOCAL, 0))
        near.listen()
        socks.append(FakeSocket((near, None), accept=script))
    return Listener(socks)


def accept_one(listener):
    """Accept the connection of one client; return the time it took."""

    def main():
        with connect(listener) as client, (yield from listener.accept()) as stream:
            assert stream.peer == client.getsockname()
            return round(corolib.now(), 3)

    with listener:
        return run(main, **virtual_time())


LOST_NAMES = (
    *("EINTR", "ECONNABORTED", "ECONNRESET", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH"),
    *("ENETDOWN", "EPERM", "EPROTO"),
)


@pytest.mark.hazard("H17")
@pytest.mark.parametrize("name", LOST_NAMES)
def test_a_client_that_was_lost_before_it_was_accepted_is_passed_over(name, caplog):
    listener = fake_listener([getattr(errno, name), getattr(errno, name)])
    assert accept_one(listener) == 0
    assert listener.lost == 2
    assert listener.pauses == 0
    assert not caplog.records


SHORT_OF = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")


@pytest.mark.hazard("H16")
@pytest.mark.parametrize("name", [*SHORT_OF, "ENOTCONN", "EOPNOTSUPP"])
def test_accepting_pauses_while_there_are_no_files_or_whatever_else_is_wrong(name, caplog):
    number = getattr(errno, name)
    listener = fake_listener([number, number])
    assert accept_one(listener) == 0.2
    assert (listener.lost, listener.pauses) == (0, 2)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("corolib.server", "WARNING")
    assert os.strerror(number) in record.getMessage()


DEAD_NAMES = "EBADF", "EINVAL", "ENOTSOCK"


def shut_down(sock):
    sock.shutdown(socket.SHUT_RDWR)


def replace_by_a_file(sock):
    with open(os.devnull) as file:
        os.dup2(file.fileno(), sock.fileno(), inheritable=False)


@pytest.mark.parametrize("end", [shut_down, replace_by_a_file])
@pytest.mark.parametrize("name", DEAD_NAMES)
def test_a_socket_that_listens_no_more_is_an_error(name, end):
    def stop_listening(sock, method):
        end(sock.near)
        raise OSError(getattr(errno, name), "said by the system")

    with pytest.raises(OSError, match="said by the system") as caught:
        accept_one(fake_listener([stop_listening]))
    assert caught.value.errno == getattr(errno, name)


@pytest.mark.found("N22")
@pytest.mark.parametrize("name", DEAD_NAMES)
def test_a_socket_that_listens_all_the_same_is_tried_again(name, caplog):
    listener = fake_listener([getattr(errno, name)] * 2)
    assert accept_one(listener) == 0.2
    assert listener.pauses == 2
    assert len(caplog.records) == 1


@pytest.mark.found("N22")
def test_one_that_is_refused_again_and_again_for_ever_is_no_endless_loop(caplog):
    listener = fake_listener([errno.EPERM] * (2 * BATCH + 2))
    assert accept_one(listener) == 0.2
    assert (listener.lost, listener.pauses) == (2 * BATCH, 2)


@pytest.mark.found("N22")
@pytest.mark.parametrize("step", ["__init__", "setblocking"])
@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, "no memory"), MemoryError()], ids=repr)
def test_a_connection_of_which_the_system_makes_no_socket_is_lost_alone(
    step, error, monkeypatch, caplog
):
    def refuse(sock, *args, **options):
        monkeypatch.undo()
        raise error

    def main(listener):
        with connect(listener) as first, connect(listener) as second:
            monkeypatch.setattr(OwnedSocket, step, refuse)
            with (yield from listener.accept()) as stream:
                assert stream.peer == second.getsockname()
            assert first.recv(9) == b""

    before = open_files()
    with listen_tcp(LOCAL, 0) as listener:
        run(main, listener, **virtual_time())
        assert listener.pauses == 1
    assert open_files() == before
    assert len(caplog.records) == 1


def test_every_number_of_the_matrix_has_its_place():
    numbers = {getattr(errno, name) for name in NUMBERS}
    pauses = {getattr(errno, name) for name in (*SHORT_OF, "ENOTCONN")}
    assert numbers - LOST - DEAD - pauses == {errno.EAGAIN}
    assert not LOST & DEAD


def test_a_client_that_another_process_took_is_waited_for_again():
    listener = fake_listener([LATE, LATE])
    assert accept_one(listener) == 0
    assert sockets_of(listener)[0].calls["accept"] == 3


def test_a_listening_socket_that_is_closed_meanwhile_says_so():
    def close(sock, method):
        sock.near.close()
        return method()

    with pytest.raises(ClosedError, match="closed"):
        accept_one(fake_listener([close]))


def half_close(client):
    client.shutdown(socket.SHUT_WR)


@pytest.mark.hazard("H17")
@pytest.mark.parametrize(
    ("leave", "reading"),
    [
        (reset, pytest.raises(ConnectionResetError)),
        (socket.socket.close, nullcontext()),
        (half_close, nullcontext()),
    ],
    ids=["reset", "closed", "half-closed"],
)
def test_a_client_that_has_left_before_it_was_accepted_is_a_stream_all_the_same(leave, reading):
    """Linux accepts it; what became of it, the first read says."""

    def main(listener):
        with connect(listener) as client:
            name = client.getsockname()
            leave(client)
            with (yield from listener.accept()) as stream:
                assert stream.peer == name
                with reading:
                    assert (yield from stream.recv(1)) == b""
        assert listener.lost == 0

    with listen_tcp(LOCAL, 0) as listener:
        run(main, listener)


@pytest.mark.hazard("H16")
def test_a_lack_of_files_is_logged_once_a_second_at_most(caplog):
    listener = fake_listener([errno.EMFILE] * 35)
    assert accept_one(listener) == 3.5
    assert listener.pauses == 35
    assert len(caplog.records) == 4


def test_the_sockets_of_a_listener_take_turns():
    def main():
        socks = [connect(listener, n % 2) for n in range(6)]
        order = []
        for _ in socks:
            with (yield from listener.accept()) as stream:
                order.append([sock.getsockname() for sock in socks].index(stream.peer) % 2)
        assert order == [0, 1, 0, 1, 0, 1]
        for sock in socks:
            sock.close()

    with listen_tcp([LOCAL, "127.0.0.2"], 0) as listener:
        run(main)


@pytest.mark.hazard("H21")
@pytest.mark.parametrize("batch", [BATCH, 1])
def test_a_crowd_is_accepted_in_batches_with_turns_of_the_others_in_between(batch):
    """A ticker is stepped in every turn: it counts what was accepted since its last step."""
    seen = []

    def ticker():
        before = 0
        while True:
            yield
            seen.append(len(streams) - before)
            before = len(streams)

    def main():
        spawn(ticker, daemon=True)
        socks = [connect(listener) for _ in range(3 * batch)]
        for _ in socks:
            streams.append((yield from listener.accept()))
        yield
        for each in [*socks, *streams]:
            each.close()

    streams = []
    with listen_tcp(LOCAL, 0, backlog=3 * batch) as listener:
        listener.batch = batch
        run(main)
    assert max(seen) == batch
    assert sum(seen) == 3 * batch


@pytest.mark.hazard("H18")
@pytest.mark.parametrize("hosts", [[LOCAL], [LOCAL, "127.0.0.2"]])
def test_a_client_is_served_or_refused_wherever_the_accepting_task_is_cancelled(hosts):
    """Nothing is left open, and no socket is dropped: that would be a ResourceWarning."""

    def serve(listener):
        with listener:
            while True:
                with (yield from listener.accept()) as stream:
                    yield
                    yield from stream.sendall(b"served")

    def scenario():
        listener = listen_tcp(hosts, 0)
        task = spawn(serve, listener)
        for n in range(2):
            with connect(listener, n % len(hosts)) as client:
                client.setblocking(False)
                heard = b""
                try:
                    yield corolib.ReadWait(client)
                    heard = client.recv(100)
                except ConnectionResetError:
                    assert task.done  # it was in the backlog when the listener was closed
                assert heard == (b"" if task.cancelled else b"served")
            if task.done:
                break
        yield from task.stop()

    assert cancel_everywhere(scenario) > 5


def test_closing_a_listener_tells_who_accepts_from_it():
    def accept(listener):
        with pytest.raises(ClosedError):
            yield from listener.accept()
        with pytest.raises(ClosedError, match="is closed"):
            yield from listener.accept()

    def main(listener):
        task = spawn(accept, listener)
        yield Sleep(0.001)
        listener.close()
        yield from task

    for hosts in (LOCAL, [LOCAL, "127.0.0.2"]):
        run(main, listen_tcp(hosts, 0))


def test_a_listener_that_is_closed_in_a_pause_says_so():
    def main(listener):
        task = spawn(listener.accept())
        yield Sleep(0.05)
        listener.close()
        with pytest.raises(ClosedError):
            yield from task

    listener = fake_listener([errno.EMFILE])
    with connect(listener):
        run(main, listener, **virtual_time())


def test_two_tasks_do_not_accept_from_one_listener():
    def main(listener):
        first = spawn(listener.accept())
        yield
        with pytest.raises(BusyError):
            yield from listener.accept()
        with connect(listener) as client, (yield from first) as stream:
            assert stream.peer == client.getsockname()

    with listen_tcp(LOCAL, 0) as listener:
        run(main, listener)


def test_a_program_out_of_files_can_still_be_told_so():
    """The logging is there before the files run out."""
    with listen_tcp(LOCAL, 0) as listener:
        assert listener.log is logging.getLogger("corolib.server")


def test_an_inherited_number_that_is_no_socket_is_named_in_the_error():
    with open(os.devnull) as file, pytest.raises(OSError, match=f"fd={file.fileno()}"):
        listen_tcp(fd=file.fileno())


def test_a_port_in_the_place_of_the_host_is_refused():
    with pytest.raises(TypeError, match="the host comes first"):
        listen_tcp(7007, LOCAL)


@pytest.mark.parametrize("path", ["", b""])
def test_an_empty_path_is_refused_and_no_nameless_socket_made(path):
    with pytest.raises(ValueError, match="the path is empty"):
        listen_unix(path)


def test_permissions_that_were_not_written_in_octal_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is 0o1224: write it in octal"):
        listen_unix(tmp_path / "socket", mode=660)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("path", "mode", "text"),
    [
        (
            "\0name",
            0o660,
            r"listen_unix\('.x00name', mode=0o660\): .*no permissions; leave mode= out",
        ),
        (b"\0name", 0o660, r"leave mode= out"),
        ("/tmp/a\0b", None, r"'/tmp/a.x00b': no path can have a zero byte"),
    ],
)
def test_a_name_with_a_zero_byte_is_no_path(path, mode, text):
    before = open_files()
    with pytest.raises(ValueError, match=text):
        listen_unix(path, mode=mode)
    assert open_files() == before


@pytest.mark.parametrize("path", ["x" * 108, b"x" * 108, "\0" + "x" * 108, "\u00e9" * 54])
def test_a_path_that_is_too_long_is_told_how_long_it_may_be(path):
    with pytest.raises(OSError, match=r"a path of 10[89] bytes; a Unix socket can have") as caught:
        listen_unix(path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENAMETOOLONG, path)


def test_the_longest_path_is_listened_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = "x" * (SUN_PATH - 1)
    with listen_unix(path) as listener:
        assert listener.addresses == [path]


@pytest.mark.parametrize("hosts", [[], ()])
def test_no_host_at_all_is_refused(hosts):
    with pytest.raises(ValueError, match=r"listen_tcp\(.*, 80\): no host; None is all"):
        listen_tcp(hosts, 80)
