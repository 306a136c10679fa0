"""The limits of a server: what is none is refused, and the right ones are named."""

import os
import ssl

import pytest

from corolib import listen_tcp, run, serve_tcp, serve_unix
from corolib.testing import open_files
from tests.helpers.driving import echo

LOCAL = "127.0.0.1"


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"max_connections": 0}, ValueError),
        ({"max_connections": True}, TypeError),
        ({"max_connections": 1.5}, TypeError),
        ({"max_connections": "5"}, TypeError),
        ({"max_line": 0}, ValueError),
        ({"max_message": 0}, ValueError),
        ({"max_per_address": 0}, ValueError),
        ({"evict_idle": 0}, ValueError),
        ({"min_rate": 0}, ValueError),
        ({"min_rate": float("inf")}, ValueError),
        ({"min_rate": "9"}, TypeError),
        ({"idle_timeout": 0}, ValueError),
        ({"idle_timeout": "9"}, TypeError),
        ({"accept": 1}, TypeError),
        ({"on_error": 1}, TypeError),
        ({"accept": echo}, TypeError),  # its answer would be a generator, which is true
        ({"on_error": echo}, TypeError),  # nobody would run it
        ({"tls": True}, TypeError),
        ({"tls": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}, ValueError),
        ({"grace": "9"}, TypeError),
        ({"handshake": None}, TypeError),
        ({"proxy_from": "10.0.0.1"}, TypeError),
        ({"proxy_from": 7}, TypeError),
        ({"proxy_from": [10]}, TypeError),
        ({"proxy_from": [b"\x0a\0\0\1"]}, TypeError),
        ({"proxy_from": ["10.0.0.1/8"]}, ValueError),
        ({"max_conections": 9}, TypeError),
    ],
)
def test_a_limit_that_is_none_is_refused_and_nothing_is_left_open(limits, error):
    before = open_files()
    with pytest.raises(error, match=rf"^serve_tcp\(.*{next(iter(limits))}"):
        run(serve_tcp(echo, LOCAL, 0, **limits))
    assert open_files() == before


def test_an_unknown_keyword_is_told_the_right_ones(tmp_path):
    limits = "max_connections, accept, idle_timeout, max_line, tls, handshake, on_error, grace, "
    limits += "drain, drain_limit, max_message, max_per_address, evict_idle, min_rate, "
    limits += "proxy_from$"

    def main():
        with listen_tcp(LOCAL, 0) as listener:
            with pytest.raises(
                TypeError, match=r"^serve\(\) has no keyword 'odd'; .* are " + limits
            ):
                listener.serve(echo, odd=5)
        text = (
            r"^serve_tcp\(\) has no keyword 'odd'; its keywords are family, backlog, reuse_port, "
            "keepalive, user_timeout, "
        )
        with pytest.raises(TypeError, match=text + limits):
            yield from serve_tcp(echo, LOCAL, 0, odd=5)
        text = r"^serve_unix\(\) has no keyword 'reuse_port'; its keywords are mode, backlog, "
        with pytest.raises(TypeError, match=text + limits):
            yield from serve_unix(echo, tmp_path / "s", reuse_port=True)

    run(main)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("max_conn", "max_connections"), ("timeout", "idle_timeout"), ("on_errors", "on_error")],
)
def test_a_keyword_that_is_nearly_right_is_told_which_one_is(word, meant):
    text = rf"^serve_tcp\(\) has no keyword '{word}'; did you mean {meant}=\? Its keywords are fam"
    with pytest.raises(TypeError, match=text):
        run(serve_tcp(echo, LOCAL, 0, **{word: 5}))
