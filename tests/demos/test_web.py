"""The file server and the WebSocket echo, with curl, `websockets` and sockets of our own."""

import argparse
import errno
import hashlib
import http.client
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from corolib import (
    Sleep,
    Stream,
    current_scheduler,
    listen_tcp,
    move_on_after,
    now,
    open_tcp,
    run,
    spawn,
    timeout,
)
from corolib.net.streams import DRAIN
from corolib.testing import virtual_time
from tests.helpers.programs import PATIENCE, Program, outcome, quiet, read_all

for name in ("h11", "wsproto"):
    pytest.importorskip(name, reason=f"{name} is not installed: pip install -e '.[test]'")

from demos.web import answers, static, websocket  # noqa: E402 - they need the packages above

BIG = 50_000_000
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets the connection

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder to serve, and a secret beside it."""
    top = tmp_path_factory.mktemp("web")
    (top / "secret").write_text("secret")
    (top / "roots").mkdir()
    (top / "roots/secret").write_text("secret")
    root = top / "root"
    (root / "sub/deep").mkdir(parents=True)
    (root / "home").mkdir()
    (root / "empty").mkdir()
    for name in ("sub/a.txt", "home/index.html", "index.htm", "sub/a&<b>.css", "sub/x:ä y"):
        (root / name).write_text(name, "utf-8")
    (root / "nothing").touch()
    (root / "ten").write_text("0123456789")
    (root / ".hidden").write_text("secret")
    (root / ".git").mkdir()
    (root / ".git/config").write_text("secret")
    (root / "archive.tar.gz").write_text("packed")
    (root / "inside").symlink_to("sub/a.txt")
    (root / "outside").symlink_to("../secret")
    (root / "up").symlink_to("..")
    (root / "neighbour").symlink_to("../roots")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    with open(root / "big", "wb") as file:
        for at in range(0, BIG, BIG // 7):
            file.seek(at)
            file.write(b"mark %d" % at)
        file.truncate(BIG)
    return root


@pytest.fixture(scope="module")
def site(root):
    with Program("demos.web.static", str(root)) as program:
        yield program


def brief(value):
    """Return a name for a test: data may be long."""
    return ascii(value[:30]) if isinstance(value, bytes | str) else None


def request(target, method="GET", version="1.1", **headers):
    lines = [f"{method} {target} HTTP/{version}", "Host: x"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def send(site, data, method="GET"):
    """Send bytes on a new connection; return the first answer, read to its end."""
    with site.connect() as sock:
        sock.sendall(data)
        return receive(sock, method)


def receive(sock, method="GET"):
    with http.client.HTTPResponse(sock, method=method) as answer:
        answer.begin()
        answer.text = answer.read()
    return answer


def get(site, target, method="GET", **headers):
    return send(site, request(target, method, **headers), method)


# Files --------------------------------------------------------------------------------------------


@needs_curl
def test_curl_fetches_a_large_file_twice_on_one_connection_and_then_a_range(site, root, tmp_path):
    url = f"http://127.0.0.1:{site.port}/big"
    out = ["-o", str(tmp_path / "1"), "-o", str(tmp_path / "2")]
    seen = ["-w", "%{http_code} %{num_connects} %{size_download}\n"]
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", str(PATIENCE)]
    done = subprocess.run([*command, *out, *seen, url, url], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"200 1 {BIG}\n200 0 {BIG}\n", "")
    assert digest(tmp_path / "1") == digest(tmp_path / "2") == digest(root / "big")
    parts = [url, "-r", "0-29999999", "-o", str(tmp_path / "3")]
    rest = ["--next", *command[1:], *seen, "-C", "30000000", url, "-o", str(tmp_path / "4")]
    done = subprocess.run([*command, *seen, *parts, *rest], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("206 1 30000000\n206 0 20000000\n", "")
    with open(tmp_path / "3", "ab") as whole, open(tmp_path / "4", "rb") as end:
        shutil.copyfileobj(end, whole)
    assert digest(tmp_path / "3") == digest(root / "big")


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("wanted", "status", "body", "where"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=9-9", 206, b"9", "bytes 9-9/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=7-1000", 206, b"789", "bytes 7-9/10"),
        ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
        ("bytes=-1000", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=10-20", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=5-4", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("bytes=a-b", 200, b"0123456789", None),
        ("bytes=\xb2-\xb3", 200, b"0123456789", None),  # digits, but not to everybody
        (f"bytes={'9' * 5000}-", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
    ids=brief,
)
def test_a_single_range_is_served_and_anything_else_is_left_alone(
    site, wanted, status, body, where
):
    answer = get(site, "/ten", Range=wanted)
    assert (answer.status, answer.getheader("Content-Range")) == (status, where)
    if body is not None:
        assert answer.text == body
        assert answer.getheader("Accept-Ranges") == "bytes"
    head = get(site, "/ten", "HEAD", Range=wanted)
    assert (head.status, head.getheader("Content-Length")) == (200, "10")


def test_a_range_of_nothing(site):
    assert get(site, "/nothing").text == b""
    assert get(site, "/nothing", Range="bytes=0-").status == 416


def test_a_range_of_a_file_that_has_changed_is_not_served(site):
    known = get(site, "/ten")
    for tag in (known.getheader("ETag"), known.getheader("Last-Modified")):
        assert get(site, "/ten", Range="bytes=0-3", If_Range=tag).text == b"0123"
    for tag in ('"other"', "W/" + known.getheader("ETag"), "Thu, 01 Jan 1970 00:00:00 GMT"):
        answer = get(site, "/ten", Range="bytes=0-3", If_Range=tag)
        assert (answer.status, answer.text) == (200, b"0123456789")


def test_a_client_that_has_the_file_does_not_get_it_again(site):
    known = get(site, "/ten")
    tag, date = known.getheader("ETag"), known.getheader("Last-Modified")
    old = "Thu, 01 Jan 1970 00:00:00 GMT"
    again = [
        {"If-None-Match": tag},
        {"If-None-Match": f'"x", W/{tag}'},
        {"If-None-Match": "*"},
        {"If-None-Match": tag, "If-Modified-Since": old},
        {"If-Modified-Since": date},
        {"If-Modified-Since": "Sun, 06 Nov 2089 08:49:37 GMT"},
        {"If-None-Match": tag, "Range": "bytes=0-3"},
    ]
    for headers in again:
        for method in ("GET", "HEAD"):
            answer = get(site, "/ten", method, **headers)
            assert (answer.status, answer.text) == (304, b""), headers
            assert answer.getheader("ETag") == tag
            assert answer.getheader("Last-Modified") == date
            assert answer.getheader("Content-Length") is None
    anew = [
        {"If-None-Match": '"x"'},
        {"If-None-Match": '"x"', "If-Modified-Since": date},
        {"If-None-Match": "\xe4"},
        {"If-Modified-Since": old},
        {"If-Modified-Since": "yesterday"},
        {"If-Modified-Since": "Sun, 99 Nov 99999 08:49:37 GMT"},
    ]
    for headers in anew:
        assert get(site, "/ten", **headers).status == 200, headers


def test_a_file_that_was_changed_has_another_tag(site, root):
    before = get(site, "/ten").getheader("ETag")
    os.utime(root / "ten", ns=(0, 10**18))
    after = get(site, "/ten")
    assert after.getheader("ETag") != before
    assert after.getheader("Last-Modified") == "Sun, 09 Sep 2001 01:46:40 GMT"
    os.utime(root / "ten", ns=(0, 10**20))  # in the future: then it says now
    after = get(site, "/ten")
    assert after.getheader("Last-Modified") <= after.getheader("Date")
    os.utime(root / "ten", ns=(0, 10**18))


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/sub/a.txt", "text/plain; charset=utf-8"),
        ("/sub/a&%3cb%3E.css?query", "text/css; charset=utf-8"),
        ("/home/", "text/html; charset=utf-8"),
        ("/ten", "application/octet-stream"),
        ("/archive.tar.gz", "application/octet-stream"),
        ("/sub/", "text/html; charset=utf-8"),
        ("/not/there", "text/plain; charset=utf-8"),
    ],
)
def test_what_is_sent_has_a_type(site, target, kind):
    assert get(site, target).getheader("Content-Type") == kind


def test_a_head_is_that_of_the_answer_without_its_body(site):
    for target in ("/ten", "/home/", "/sub/", "/not/there", "/sub"):
        whole, head = get(site, target), get(site, target, "HEAD")
        assert (head.status, head.text) == (whole.status, b"")
        alike = [{**dict(each.getheaders()), "Date": ""} for each in (whole, head)]
        assert alike[0] == alike[1]
        assert head.getheader("Content-Length") == str(len(whole.text))


# Folders ------------------------------------------------------------------------------------------


def test_a_folder_shows_its_index_or_a_list(site):
    assert get(site, "/home/").text == b"home/index.html"
    page = get(site, "/sub/").text.decode()
    assert '<a href="./../">../</a>' in page
    assert '<a href="./deep/">deep/</a>' in page
    assert '<a href="./a%26%3Cb%3E.css">a&amp;&lt;b&gt;.css</a>' in page
    assert '<a href="./x%3A%C3%A4%20y">x:ä y</a>' in page
    assert get(site, "/sub/./x%3A%C3%A4%20y".replace("./", "")).text == "sub/x:ä y".encode()
    top = get(site, "/").text.decode()
    assert "../" not in top
    assert "hidden" not in top
    assert ".git" not in top
    assert get(site, "http://anything/home/").text == b"home/index.html"
    assert "sub" in get(site, "http://anything").text.decode()


def test_a_folder_without_its_slash_is_redirected_and_never_to_another_host(site):
    assert get(site, "/sub").getheader("Location") == "/sub/"
    assert get(site, "/sub?a=/b").getheader("Location") == "/sub/?a=/b"
    assert get(site, "//sub//deep").getheader("Location") == "/sub/deep/"
    assert get(site, "/sub").status == 301
    assert get(site, "/ten/").status == 404


@pytest.mark.parametrize(
    "target",
    [
        *("/../secret", "/sub/../../secret", "/%2e%2e/secret", "/..%2fsecret", "/.%2e/secret"),
        *("/sub/..%2f..%2fsecret", "/%2e%2e%2fsecret", "/..%5csecret", "//../secret", "/./ten"),
        *("/outside", "/up/secret", "/neighbour/secret", "/loop", "/pipe", "/" + "x" * 300),
        *("/.hidden", "/.git/config", "/%2ehidden", "/ten%00", "/ten%00.txt", "/%2fetc/passwd"),
        *("/sub%2fa.txt", "/ten/x", "/missing", "/%ff", "/up/", "http://x/../secret"),
        "/" + "x/" * 3000,
    ],
    ids=brief,
)
def test_there_is_no_way_out_of_the_root(site, target):
    answer = get(site, target)
    assert (answer.status, answer.text) == (404, b"404 Not Found\n")


def test_a_link_that_stays_inside_is_followed(site):
    assert get(site, "/inside").text == b"sub/a.txt"


def test_what_may_not_be_read_is_not_there(root, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(answers, "open", refuse, raising=False)
    monkeypatch.setattr(os, "scandir", refuse)
    for target in (b"/ten", b"/sub/"):
        asked = answers.h11.Request(method="GET", target=target, headers=[("Host", "x")])
        assert answers.answer(os.fsencode(root), asked).status == 404


def test_what_cannot_be_opened_now_may_be_there(root, monkeypatch):
    def refuse(path, *_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(answers, "open", refuse, raising=False)
    asked = answers.h11.Request(method="GET", target="/ten", headers=[("Host", "x")])
    assert answers.answer(os.fsencode(root), asked).status == 503


# The protocol -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /ten HTTP/1.1\r\n\r\n", 400),  # no host
        (b"GET /ten HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /ten HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /t\0en HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (request("*"), 400),
        (request("ten"), 400),
        (request("ftp://x/ten"), 400),
        (request("/ten", "POST", Content_Length=3) + b"abc", 405),
        (request("/ten", "POST", Content_Length=3, Expect="100-continue"), 405),
        (request("*", "OPTIONS"), 405),
        (request("x:80", "CONNECT"), 405),
        (request("/ten", "POST", Content_Length=70_000) + b"x" * 70_000, 413),
        (
            request("/ten", Transfer_Encoding="chunked") + b"11170\r\n" + b"x" * 70_000 + b"\r\n",
            413,
        ),
        (request("/ten", X="x" * 30_000), 431),
        (b"GET /" + b"x" * 30_000, 431),
        (b"x" * 1_000_000, 431),
    ],
    ids=brief,
)
def test_what_cannot_be_answered_is_told_so(site, data, status):
    """Also when not all of it was read: else the connection would be reset, the answer lost."""
    with site.connect() as sock:
        try:
            sock.sendall(data)
        except ConnectionError:
            pytest.fail("reset")
        answer = receive(sock)
        assert answer.status == status
        assert answer.getheader("Allow") == ("GET, HEAD" if status == 405 else None)
        if not answer.will_close:
            sock.sendall(request("/ten"))
            assert receive(sock).text == b"0123456789"


def test_an_answer_to_head_never_has_a_body(site):
    for data in (
        request("/ten", "HEAD", Content_Length=70_000) + b"x" * 70_000,
        request("/ten", "HEAD", Content_Length=9, Expect="100-continue"),
        request("/ten", "HEAD", Transfer_Encoding="chunked") + b"x\r\n",
    ):
        with site.connect() as sock:
            sock.sendall(data)
            assert read_all(sock).endswith(b"\r\n\r\n")


def test_requests_may_be_sent_at_once_and_are_answered_in_order(site):
    targets = ["/sub/a.txt", "/missing", "/ten", "/sub", "/home/"]
    with site.connect() as sock:
        last = request("/inside", Connection="close")
        sock.sendall(b"".join(map(request, targets)) + last)
        text = read_all(sock)
    bodies = [b"sub/a.txt", b"404 Not Found", b"0123456789", b"301 Moved", b"home/index", b"sub/a"]
    places = [text.index(b"\r\n\r\n" + body) for body in bodies[:-1]]
    assert places == sorted(places)
    assert text.endswith(bodies[0])
    assert text.count(b"HTTP/1.1 ") == 6
    assert text.count(b"Connection: close") == 1


def test_a_request_may_come_byte_by_byte(site):
    with site.connect() as sock:
        for byte in request("/ten"):
            sock.sendall(bytes([byte]))
        assert receive(sock).text == b"0123456789"


def test_a_connection_is_kept_unless_the_client_will_not_have_it(site):
    for data in (request("/ten", version="1.0"), request("/ten", Connection="close")):
        with site.connect() as sock:
            sock.sendall(data)
            assert read_all(sock).endswith(b"0123456789")
    with site.connect() as sock:
        sock.sendall(request("/ten", "POST", Content_Length=3, Expect="100-continue"))
        assert b"405" in read_all(sock)  # what comes now might be the body: so it is closed
    with site.connect() as sock:
        sock.sendall(request("/ten", Upgrade="h2c", Connection="Upgrade"))
        assert receive(sock).text == b"0123456789"
        sock.sendall(request("/sub/a.txt"))
        assert receive(sock).text == b"sub/a.txt"


@pytest.mark.found("N26")
def test_a_client_of_http_1_0_keeps_its_connection_if_it_says_so(site):
    """As `ab -k` does: the answer says that it is granted."""
    with site.connect() as sock:
        for _ in range(3):
            sock.sendall(request("/ten", version="1.0", Connection="Keep-Alive"))
            answer = receive(sock)
            assert answer.getheader("Connection") == "keep-alive"
            assert answer.text == b"0123456789"
        sock.sendall(request("/ten", version="1.0"))
        assert receive(sock).getheader("Connection") == "close"
        assert sock.recv(1) == b""


@pytest.mark.found("D4")
def test_empty_lines_before_a_request_are_ignored(site):
    with site.connect() as sock:
        for before in (b"\r\n", b"\r\n\r\n", b"\n", b""):
            sock.sendall(before + request("/ten"))
            assert receive(sock).text == b"0123456789"
        last = request("/ten", Connection="close")
        sock.sendall(b"\r\n".join([b"", request("/ten"), request("/ten"), b"", last]))
        assert read_all(sock).count(b"0123456789") == 3
    assert send(site, b"\r\n" + b"nonsense\r\n\r\n").status == 400


@pytest.mark.found("D4")
@pytest.mark.parametrize(
    "data",
    [
        request("/ten", "POST", Content_Length=5, Transfer_Encoding="chunked") + b"0\r\n\r\n",
        request("/ten", Transfer_Encoding="chunked", Content_Length=0) + b"0\r\n\r\n",
        b"GET /ten HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        b"GET /ten HTTP/1.1\nHost: x\nX: a\n\tContent-Length: 3\n\n",
    ],
    ids=brief,
)
def test_a_request_that_two_servers_might_read_in_two_ways_ends_the_connection(site, data):
    with site.connect() as sock:
        sock.sendall(data + request("/sub/a.txt"))
        answer = receive(sock)
        assert (answer.status, answer.getheader("Connection")) == (400, "close")
        assert sock.recv(1) == b""


@pytest.mark.found("D4")
def test_a_body_may_look_like_a_folded_header(site):
    body = b"a\n b"
    with site.connect() as sock:
        last = request("/ten", X="\n b", Connection="close")
        sock.sendall(request("/ten", Content_Length=len(body)) + body + last)
        text = read_all(sock)
    assert text.startswith(b"HTTP/1.1 200 ")
    assert text.count(b"HTTP/1.1 400 ") == 1


@pytest.mark.found("D4")
def test_a_date_without_a_zone_is_in_gmt(root, monkeypatch):
    """The form of C's asctime is one of the three that a server has to accept."""
    os.utime(root / "ten", ns=(0, 10**18))  # Sun, 09 Sep 2001 01:46:40 GMT
    monkeypatch.setenv("TZ", "Etc/GMT+5")
    time.tzset()
    try:
        for date, status in (
            ("Sun Sep  9 01:46:40 2001", 304),
            ("Sun Sep  9 01:46:39 2001", 200),
            ("Sunday, 09-Sep-01 01:46:40 GMT", 304),
        ):
            headers = [("Host", "x"), ("If-Modified-Since", date)]
            asked = answers.h11.Request(method="GET", target=b"/ten", headers=headers)
            found = answers.answer(os.fsencode(root), asked)
            found.close()
            assert found.status == status, date
    finally:
        monkeypatch.undo()
        time.tzset()


def test_clients_that_break_off_leave_nothing_behind(site):
    files = f"/proc/{site.process.pid}/fd"
    if not os.path.isdir(files):
        pytest.skip("there is no /proc")
    get(site, "/ten")
    before = len(os.listdir(files))
    for number in range(20):
        sock = site.connect()
        sock.sendall(request("/big")[: 1000 if number % 2 else 10])
        if number % 2:
            sock.recv(1000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()
    with site.connect() as sock:  # it goes on, and looks at the others meanwhile
        while len(os.listdir(files)) > before + 1:
            sock.sendall(request("/ten"))
            assert receive(sock).text == b"0123456789"


# Time, and the end: in this process, where the clock can fly --------------------------------------


@contextmanager
def serving(handler, **limits):
    listener = listen_tcp("127.0.0.1", 0)
    server = listener.serve(handler, **limits)
    server.port = listener.addresses[0][1]
    try:
        yield server
    finally:
        server.task.cancel()


def scenario(f, *args):
    return run(f, *args, **virtual_time())


def everything(stream):
    """Wait for the end of a stream; return all that came."""
    parts = []
    while data := (yield from stream.recv(65536)):
        parts.append(data)
    return b"".join(parts)


def files_of(root):
    return partial(static.serve_client, os.fsencode(root))


def test_who_is_slow_with_a_request_is_told_and_who_sends_none_is_not(root):
    def main():
        with serving(files_of(root), idle_timeout=static.IDLE) as server:
            ends = []
            for data in (b"", request("/ten"), b"GET /t", request("/ten", Content_Length=9) + b"x"):
                with (yield from open_tcp("127.0.0.1", server.port)) as stream:
                    yield from stream.sendall(data)
                    ends.append((yield from everything(stream)).partition(b"\r\n")[0])
            with (yield from open_tcp("127.0.0.1", server.port)) as stream:
                task = spawn(everything, stream)
                for byte in request("/ten"):  # slowly, but surely
                    yield from stream.sendall(bytes([byte]))
                    yield Sleep(1)
                    if task.done:
                        break
                ends.append((yield from task).partition(b"\r\n")[0])
            assert server.stats()["failed"] == 0
        return ends

    late = b"HTTP/1.1 408 Request Timeout"
    assert scenario(main) == [b"", b"HTTP/1.1 200 OK", late, late, late]


@pytest.mark.found("D3")
def test_who_takes_an_answer_too_slowly_is_cut_off(root):
    def main():
        with serving(files_of(root), idle_timeout=1e6) as server:
            with (yield from open_tcp("127.0.0.1", server.port)) as stream:
                yield from stream.sendall(request("/big") * 2)
                seen = [(yield from stream.recv(1000))]
                while server.stats()["open"]:
                    seen.append((yield from stream.recv(1000)))
                    yield Sleep(600)
                seen.append((yield from everything(stream)))
            assert server.stats()["failed"] == 0
        return b"".join(seen)

    seen = scenario(main)
    assert len(seen) < BIG
    assert (
        seen.count(b"HTTP/1.1 ") == 1
    )  # what comes behind half a file would be taken for the rest


@pytest.mark.found("D3")
def test_who_takes_a_large_answer_slowly_and_steadily_is_cut_off_soon(root):
    def main():
        with listen_tcp("127.0.0.1", 0) as listener:
            task = spawn(static.serve, os.fsencode(root), listener)
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
                sock.connect(listener.addresses[0])
                sock.setblocking(False)
                sock.send(request("/big"))
                ended = False
                while not ended:
                    yield Sleep(0.5)
                    try:
                        ended = not sock.recv(2500)
                    except BlockingIOError:
                        pass
                    except ConnectionResetError:
                        ended = True
                took = now()
            yield from task.stop()
            return took

    assert 30 <= scenario(main) <= 46  # BIG / SLOWEST is 2500


@pytest.mark.found("D3")
def test_with_few_files_there_are_as_many_clients_as_can_be_answered(root):
    """Each of them takes two files, and whoever comes later waits for a place."""
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (64, 64))
    with (
        Program("demos.web.static", str(root), preexec_fn=few) as program,
        ExitStack() as clients,
    ):
        socks = [clients.enter_context(program.connect()) for _ in range(60)]
        for sock in socks:
            sock.sendall(request("/big", Connection="close"))
        for sock in socks:
            assert sock.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            sock.close()


@pytest.mark.found("D3")
@pytest.mark.parametrize(("files", "most"), [(64, 22), (1024, 400), (20, 1), (-1, 400)])
def test_the_number_of_clients_is_what_the_limit_of_files_allows(monkeypatch, files, most):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (files, files))
    assert static.places() == most


def test_the_end_of_the_server_waits_for_answers_and_for_nobody_else(root):
    def main():
        with serving(files_of(root)) as server:
            idle = yield from open_tcp("127.0.0.1", server.port)
            kept = yield from open_tcp("127.0.0.1", server.port)
            busy = yield from open_tcp("127.0.0.1", server.port)
            with idle, kept, busy:
                yield from kept.sendall(request("/ten"))
                assert (yield from kept.readline()) == b"HTTP/1.1 200 OK\r\n"
                yield from busy.sendall(request("/big") * 2)
                yield from busy.readline()
                stop = spawn(server.stop, 1000)
                assert (yield from everything(idle)) == b""
                assert (yield from everything(kept)).endswith(b"0123456789")
                _, body = (yield from everything(busy)).split(b"\r\n\r\n", 1)
                assert len(body) > BIG  # the second answer said that it is the last
                assert body.count(b"Connection: close\r\n") == 1
            report = yield from stop
            return report.cancelled

    assert list(scenario(main)) == []


def each_turn(monkeypatch, place, name):
    """Have a generator function counted; return how often it is called in each turn."""
    f = getattr(place, name)
    calls = Counter()

    def counted(*args):
        calls[current_scheduler().stats()["turns"]] += 1
        return f(*args)

    monkeypatch.setattr(place, name, counted)
    return calls


def test_a_body_of_many_parts_holds_nobody_up(root, monkeypatch):
    calls = each_turn(monkeypatch, static, "next_event")

    def main():
        with serving(files_of(root)) as server:
            with (yield from open_tcp("127.0.0.1", server.port)) as stream:
                head = request("/ten", Transfer_Encoding="chunked", Connection="close")
                yield from stream.sendall(head + b"1\r\nx\r\n" * 500 + b"0\r\n\r\n")
                assert (yield from everything(stream)).endswith(b"0123456789")

    scenario(main)
    assert calls.total() > 500
    assert max(calls.values()) <= 2


@pytest.mark.found("D3")
def test_requests_that_came_at_once_are_answered_one_in_a_turn(root, monkeypatch):
    calls = Counter()

    def counted(*args):
        calls[current_scheduler().stats()["turns"]] += 1
        return answers.answer(*args)

    monkeypatch.setattr(static, "answer", counted)

    def main():
        with serving(files_of(root)) as server:
            with (yield from open_tcp("127.0.0.1", server.port)) as stream:
                yield from stream.sendall(request("/sub/") * 100)
                yield from stream.send_eof()
                return (yield from everything(stream))

    assert scenario(main).count(b"HTTP/1.1 200 OK") == 100
    assert max(calls.values()) == 1


@pytest.mark.found("D3")
def test_a_listing_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "LISTED", 3)
    for number in range(3):
        (tmp_path / str(number)).touch()
    assert b"There is more" not in answers.listing(os.fsencode(tmp_path), []).body
    (tmp_path / "3").touch()
    page = answers.listing(os.fsencode(tmp_path), []).body
    assert page.count(b"<li>") == 3
    assert b"There is more" in page


def test_a_file_that_gets_shorter_ends_the_connection(root, tmp_path):
    def main():
        with open(tmp_path / "file", "wb") as file:
            file.truncate(BIG)
        with serving(files_of(tmp_path), idle_timeout=static.IDLE) as server:
            with (yield from open_tcp("127.0.0.1", server.port)) as stream:
                yield from stream.sendall(request("/file") * 2)
                yield from stream.readline()
                os.truncate(tmp_path / "file", 100_000)
                return (yield from everything(stream))

    seen = scenario(main)
    assert len(seen) < BIG
    assert b"HTTP/1.1" not in seen


@pytest.mark.found("D3")
def test_who_waits_outside_comes_in_when_the_idle_are_let_go(root, monkeypatch):
    monkeypatch.setattr(static, "CLIENTS", 2)
    monkeypatch.setattr(websocket, "CLIENTS", 2)

    def main(serve, data, patience):
        with listen_tcp("127.0.0.1", 0) as listener, ExitStack() as clients:
            serving = spawn(serve, listener)
            for _ in range(3):
                stream = yield from open_tcp(*listener.addresses[0])
                clients.enter_context(stream)
            yield from stream.sendall(data)
            with timeout(1000):
                assert (yield from stream.readline()).startswith(b"HTTP/1.1 ")
            # The idle are told, and given the time of a drain to end. It may be begun once more:
            # the kernel's acknowledgement of what they were told comes in real time.
            assert patience <= now() <= patience + 2 * DRAIN
            yield from serving.stop()

    scenario(main, partial(static.serve, os.fsencode(root)), request("/ten"), static.WAITING)
    scenario(main, websocket.serve, HANDSHAKE, websocket.PATIENCE)


@pytest.mark.found("N26")
def test_where_few_files_may_be_open_no_more_are_let_in_than_can_be_answered(root):
    with (
        Program("demos.web.static", str(root), shell="ulimit -n 64") as program,
        ExitStack() as clients,
    ):
        socks = [clients.enter_context(program.connect()) for _ in range(100)]
        for sock in socks:
            sock.sendall(request("/ten", Connection="close"))
        statuses = Counter()
        for sock in socks:
            statuses[receive(sock).status] += 1
            sock.close()
        assert statuses == {200: len(socks)}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot be told")
def test_the_system_takes_little_of_a_file_for_who_does_not_read_it(root):
    streams = []

    def handler(stream):
        streams.append(stream)
        yield from static.serve_client(os.fsencode(root), stream)

    def main():
        with serving(handler) as server, socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
            sock.connect(("127.0.0.1", server.port))
            sock.send(request("/big"))
            yield Sleep(1)
            return streams[0].unsent()

    assert 0 < scenario(main) < 4 * static.AHEAD


def test_files_go_by_sendfile(root, monkeypatch):
    calls = []
    sendfile = Stream.sendfile
    monkeypatch.setattr(
        Stream,
        "sendfile",
        lambda *args: (yield from sendfile(calls.append(args[2:]) or args[0], *args[1:])),
    )

    def main():
        with serving(files_of(root)) as server:
            with (yield from open_tcp("127.0.0.1", server.port)) as stream:
                for headers in ({}, {"Range": "bytes=2-3"}, {"Connection": "close"}):
                    method = "HEAD" if "Connection" in headers else "GET"
                    yield from stream.sendall(request("/ten", method, **headers))
                return (yield from everything(stream))

    scenario(main)
    assert calls == [(0, 10), (2, 2)]


# As a program -------------------------------------------------------------------------------------


def test_the_file_server_as_a_program(site, root):
    status, out, err = outcome("demos.web.static", f"--port={site.port}")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert str(site.port) in err
    status, out, err = outcome("demos.web.static", str(root / "missing"))
    assert (status, out) == (2, "")
    assert "missing is no folder" in err
    assert site.lines[0].count("curl -i http://127.0.0.1:") == 1


def test_a_folder_is_a_folder_and_its_links_are_resolved(root):
    assert static.folder(str(root / "up")) == os.fsencode(root.parent)
    with pytest.raises(argparse.ArgumentTypeError):
        static.folder(str(root / "ten"))


@pytest.mark.parametrize(
    ("program", "package"),
    [("web.static", "h11"), ("web.websocket", "wsproto")],
)
def test_a_package_that_is_missing_is_named_in_one_line(program, package, monkeypatch):
    for module in [each for each in sys.modules if each.startswith("demos.web")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as caught:
        __import__(f"demos.{program}")
    assert f"needs {package}; in this checkout: pip install" in str(caught.value)
    assert "\n" not in str(caught.value)


# WebSocket ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def echo():
    with Program("demos.web.websocket") as program:
        yield program


@contextmanager
def dial(program, **options):
    client = pytest.importorskip("websockets.sync.client")
    with client.connect(f"ws://127.0.0.1:{program.port}/x", **options) as ws:
        yield ws


def test_messages_come_back_as_they_went(echo):
    with dial(echo) as ws:
        for message in ("hello", b"\0\xff" * 1000, "", b"", "ä€\U0001f600" * 1000, "x" * (1 << 20)):
            ws.send(message)
            assert ws.recv(PATIENCE) == message
        assert ws.subprotocol is None
        for number in range(100):
            ws.send(str(number))
        assert [ws.recv(PATIENCE) for _ in range(100)] == [str(number) for number in range(100)]


def test_fragments_become_one_message_and_pings_between_them_are_answered(echo):
    with dial(echo) as ws:

        def pieces():
            for piece in ("in ", "", "three ", "pieces"):
                pongs.append(ws.ping(piece or "nothing"))
                yield piece

        pongs = []
        ws.send(pieces())
        assert ws.recv(PATIENCE) == "in three pieces"
        assert all(pong.wait(PATIENCE) for pong in pongs)
        ws.pong(b"unasked")
        ws.send([b"a", b"b"])
        assert ws.recv(PATIENCE) == b"ab"


def test_a_close_is_answered_with_the_same_code(echo):
    for code in (1000, 1001, 3000):
        with dial(echo) as ws:
            ws.close(code, "bye")
            assert (ws.close_code, ws.close_reason) == (code, "bye")
    raw = upgraded(echo)
    with raw:
        raw.sendall(frame(8, b""))
        assert read_all(raw) == b"\x88\x00"


HANDSHAKE = (
    request("/", Upgrade="websocket", Connection="Upgrade")[:-2]
    + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def upgraded(echo):
    sock = echo.connect()
    sock.sendall(HANDSHAKE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # as in RFC 6455
    return sock


def frame(opcode, payload, fin=True, mask=b"\0\0\0\0"):
    size = len(payload)
    if size < 126:
        length = bytes([128 | size])
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([128 * fin | opcode]) + length + mask + payload


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(2, b"x" * ((1 << 20) + 1)), 1009),
        (frame(2, b"x" * (1 << 20), fin=False) + frame(0, b"y"), 1009),
        (frame(2, b"x" * 5000, fin=False) + frame(0, b"x" * 5000, fin=False) * 300, 1009),
        (frame(1, b"\xff"), 1007),
        (frame(1, b"a")[:1] + b"\x01a", 1002),  # not masked
        (frame(3, b""), 1002),  # no such kind
        (frame(0, b"x"), 1002),  # continues nothing
        (frame(9, b"", fin=False), 1002),  # a ping in pieces
        (frame(8, b"x"), 1002),  # half a code
        (b"\xc1" + frame(1, b"x")[1:], 1002),  # says that it is compressed
    ],
    ids=brief,
)
def test_what_breaks_the_rules_or_is_too_long_ends_the_connection_with_the_reason(echo, data, code):
    with upgraded(echo) as sock:
        sock.sendall(data + frame(1, b"after"))
        sock.shutdown(socket.SHUT_WR)
        end = read_all(sock)
    assert end[0] == 0x88
    assert int.from_bytes(end[2:4], "big") == code
    assert b"after" not in end


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (request("/"), 400),
        (request("/", "POST", Upgrade="websocket", Connection="Upgrade"), 400),
        (
            request("/", Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Version="12"),
            426,
        ),
        (request("/", Connection="\xff"), 400),
        (request("/", X="x" * 100_000), 400),
    ],
    ids=brief,
)
def test_what_asks_for_no_websocket_is_turned_away(echo, data, status):
    assert send(echo, data).status == status


@pytest.mark.found("D7")
def test_a_page_that_is_no_websocket_says_what_this_is(echo):
    answer = send(echo, request("/"))
    assert answer.getheader("Content-Type") == "text/plain"
    assert b"This is a WebSocket server" in answer.text


@pytest.mark.found("D7")
def test_a_frame_may_come_with_the_handshake(echo):
    with echo.connect() as sock:
        sock.sendall(HANDSHAKE + frame(1, b"first") + frame(8, b""))
        assert read_all(sock).endswith(b"\r\n\r\n\x81\x05first\x88\x00")


@pytest.mark.found("D7")
def test_a_message_takes_the_memory_of_its_bytes_however_many_fragments_it_has():
    client = websocket.Client(None)
    data = [bytes([0, number % 256]) for number in range(1000)]  # small objects that are not shared
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            event = websocket.BytesMessage(data[number % 1000], message_finished=False)
            assert list(client.react(event)) == []
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(client.message) == 40_000
    assert after - before < 2 * len(client.message)


def test_a_message_of_many_parts_holds_nobody_up(monkeypatch):
    calls = each_turn(monkeypatch, websocket.Client, "react")

    def main():
        with serving(websocket.serve_client) as server:
            with (yield from open_tcp("127.0.0.1", server.port)) as stream:
                yield from stream.sendall(HANDSHAKE)
                yield from stream.readuntil(b"\r\n\r\n")
                parts = frame(1, b"x", fin=False) + frame(0, b"", fin=False) * 500
                yield from stream.sendall(parts + frame(0, b"y"))
                assert (yield from stream.readexactly(4)) == b"\x81\x02xy"

    scenario(main)
    assert calls.total() == 502
    assert max(calls.values()) == 1


def test_a_websocket_that_reads_nothing_is_given_up_or_hears_the_end(monkeypatch):
    """Both while an echo is under way: a close frame does not go into the middle of it."""
    serve_client = websocket.serve_client

    def main(stop):
        with listen_tcp("127.0.0.1", 0) as listener:
            server = []

            def keep(stream):
                server.append(stream.server)
                yield from serve_client(stream)

            monkeypatch.setattr(websocket, "serve_client", keep)
            serving = spawn(websocket.serve, listener)
            with (yield from open_tcp(*listener.addresses[0])) as stream:
                yield from stream.sendall(HANDSHAKE)
                yield from stream.readuntil(b"\r\n\r\n")
                with move_on_after(10):
                    while True:
                        yield from stream.sendall(frame(2, b"x" * 1_000_000))
                if not stop:
                    yield Sleep(1000)
                    return server[0].stats()["open"]
                stopping = spawn(server[0].stop, 1000)
                yield
                seen = yield from everything(stream)
                yield from stopping
                yield from serving
                return seen

    assert scenario(main, False) == 0
    assert scenario(main, True).endswith(b"x\x88\x02\x03\xe9")


def test_a_websocket_that_is_quiet_is_pinged_and_given_up():
    def main():
        with serving(websocket.serve_client) as server:
            ends = []
            for answers in (0, 1, 5):
                with (yield from open_tcp("127.0.0.1", server.port)) as stream:
                    yield from stream.sendall(HANDSHAKE)
                    yield from stream.readuntil(b"\r\n\r\n")
                    pings = 0
                    while (yield from stream.recv(100)) == b"\x89\x00":
                        pings += 1
                        if pings <= answers:
                            yield from stream.sendall(frame(10, b""))
                    ends.append(pings)
            with (yield from open_tcp("127.0.0.1", server.port)) as stream:
                yield from stream.sendall(b"GET / HTTP/1.1\r\n")  # and no more
                ends.append((yield from everything(stream)))
            assert server.stats()["failed"] == 0
        return ends

    assert scenario(main) == [1, 2, 6, b""]


def test_the_end_of_the_server_is_told_to_its_websockets():
    closed = pytest.importorskip("websockets.exceptions").ConnectionClosed
    with Program("demos.web.websocket") as program, dial(program) as ws:
        ws.send("hello")
        assert ws.recv(PATIENCE) == "hello"
        program.process.send_signal(signal.SIGTERM)
        with pytest.raises(closed):
            ws.recv(PATIENCE)
        assert ws.close_code == 1001
        out, err = program.process.communicate(timeout=PATIENCE)
        assert (program.process.returncode, out) == (0, "")
        assert quiet(err)
