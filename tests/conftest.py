"""What the tests share: pairs of sockets, a port of one's own, the selectors, a certificate.

Several runs of the tests may go on at once on one machine. So they share no names, files or ports:
each is chosen by the kernel, or lies in a folder of the test's own.
"""

import gc
import os
import selectors
import signal
import socket
import ssl
import threading

import pytest

from tests.helpers import certificates, children
from tests.helpers.driving import LONG, our_threads
from tests.helpers.postgres import find_programs, running_postgres
from tests.helpers.programs import SLOW
from tests.helpers.redis import PROGRAM, RedisServer
from tests.helpers.untraced import UNTRACED


def pytest_addoption(pluginmanager):
    """Load the plugin for tests that wait, where corolib is not installed but on the path."""
    if not (pluginmanager.has_plugin("corolib") or pluginmanager.is_blocked("corolib")):
        import pytest_corolib

        pluginmanager.register(pytest_corolib, "corolib")


def pytest_configure(config):
    """A shell that runs tests in the background has them ignore SIGINT, and with them all programs
    that they start; so does `nohup` with SIGHUP. And where Python was told to keep nothing that it
    compiles, each of some hundred programs would compile the library anew.

    What is tested is a run that nobody records, unless somebody asks for pages of it.
    """
    if config.getoption("corolib_trace", "off") is None:  # else the plugin is left out
        config.option.corolib_trace = "off"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """The collector finds nothing while modules are read, and is called all the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items):
    """Leave tests of runs that are not recorded out where each run is."""
    if os.environ.get("COROLIB_TRACE"):
        for item in items:
            if reason := UNTRACED.get(item.nodeid.partition("[")[0]):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish():
    """Keep what pytest and the imports have made from the garbage collector: many tests look for
    cycles, and each look would go through half a million objects that are none of theirs.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def caplog(caplog):
    """What is logged, without the slow steps that debug mode tells of: a busy machine has some."""

    def is_wanted(record):
        return SLOW not in record.getMessage()

    caplog.handler.addFilter(is_wanted)
    yield caplog
    caplog.handler.removeFilter(is_wanted)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server in a folder of its own."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    with running_postgres(programs) as server:
        yield server


@pytest.fixture
def redis_server(reserved, tmp_path):
    """A Redis server on a port of its own."""
    if PROGRAM is None:
        pytest.skip("Redis is not installed")
    server = RedisServer(reserved, tmp_path)
    server.start()
    server.wait()
    yield server
    server.kill()


@pytest.fixture
def pair():
    """Two connected non-blocking sockets."""
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


@pytest.fixture
def reserved(reserved_ports):
    """A port that nobody else is given meanwhile: for a server that is told the number (and sets
    SO_REUSEADDR, as all do), which may come later, end and come again.
    """
    return reserved_ports[0]


@pytest.fixture
def reserved_ports():
    """Two such ports."""
    with socket.socket() as one, socket.socket() as two:
        for sock in (one, two):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))  # who is bound and does not listen is in nobody's way
        yield one.getsockname()[1], two.getsockname()[1]


@pytest.fixture(params=["SelectSelector", "PollSelector", "EpollSelector", "default"])
def selector(request):
    """Each kind of selector, to be passed as `run(..., selector=selector)`."""
    if request.param == "default":
        from corolib.kernel.poller import default_selector

        return default_selector
    return getattr(selectors, request.param)


@pytest.fixture
def default_sigint():
    """A shell that runs tests in the background may have SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_thread_remains():
    """All threads of corolib's end soon after a test."""
    yield
    for thread in our_threads():
        thread.join(LONG)
    assert not our_threads()


@pytest.fixture
def nothing_left():
    """After a test there are the same open files and children as before."""
    children.strangers.clear()
    children.strangers.update(children.children())
    before = children.fds(), children.children()
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("end of "):
            thread.join(LONG)  # it may still hold the file into which it has written
    assert (children.fds(), children.children()) == before


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """The file with the certificate and its key: to be trusted by clients, and shown by servers."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_text(certificates.PEM)
    return str(path)


@pytest.fixture
def server_tls(certificate):
    """The context of a server that shows the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def client_tls(certificate):
    """The context of a client that trusts it, and nothing else."""
    return ssl.create_default_context(cafile=certificate)
