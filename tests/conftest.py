"""What the tests share: pairs of sockets, the selectors, a certificate."""

import selectors
import socket
import ssl

import certificates
import pytest


@pytest.fixture
def pair():
    """Two connected non-blocking sockets."""
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


@pytest.fixture(params=["SelectSelector", "PollSelector", "EpollSelector", "default"])
def selector(request):
    """Each kind of selector, to be passed as `run(..., selector=selector)`."""
    if request.param == "default":
        from corolib.poller import default_selector

        return default_selector
    return getattr(selectors, request.param)


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
