"""What the tests share: pairs of sockets, the three selectors, a look at what is left behind."""

import selectors
import socket

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
