"""The session's fixture, in a second module."""

import pytest

from corolib import open_tcp

pytestmark = pytest.mark.corolib


async def test_the_same_server(server, set_ups):
    with await open_tcp(*server) as stream:
        await stream.sendall(b"hi")
        assert await stream.readexactly(2) == b"hi"
    assert set_ups == ["server"]
