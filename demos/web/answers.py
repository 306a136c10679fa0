"""What the file server in `static.py` answers: files, parts of them, listings, errors.

Nothing here waits: a request comes in, an `Answer` goes out. A client sees what is below the root
and not hidden. So these are not found, as if they were not there:

- names that begin with a dot, and with them `..`, `.git` and `.env`;
- names that hold a slash or a NUL, which can only come in encoded: `%2f`, `%00`;
- symbolic links that lead out of the root; those that stay inside are followed;
- what is neither a file nor a folder, and what this program may not read.

Whoever can change the folder while it is served is trusted.
"""

from __future__ import annotations

import errno
import html
import mimetypes
import os
import re
import time
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from itertools import islice
from typing import BinaryIO
from urllib.parse import quote, unquote_to_bytes

from demos.extra import extra

with extra():
    import h11

FULL = {errno.EMFILE, errno.ENFILE}  # no more files can be opened
LISTED = 2000  # names in a listing, at most: more would keep the other clients waiting
TARGET = re.compile(rb"(?:https?://[^/?]+)?(/[^?]*)?(\?.*)?", re.IGNORECASE)
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class Part:
    """A part of an open file, which stands for its bytes."""

    def __init__(self, file: BinaryIO, offset: int, count: int) -> None:
        self.file = file
        self.offset = offset
        self.count = count

    def __len__(self) -> int:
        return self.count


class Answer:
    """A status, headers, and what is to be sent: bytes, or a part of a file that is still open."""

    def __init__(self, status: int, body: bytes | Part = b"", /, **headers: str) -> None:
        self.status = status
        self.body = body
        self.headers = [(name.replace("_", "-"), value) for name, value in headers.items()]
        if status != HTTPStatus.NOT_MODIFIED:
            self.headers.append(("Content-Length", str(len(body))))

    def close(self) -> None:
        if isinstance(self.body, Part):
            self.body.file.close()


def problem(status: int, **headers: str) -> Answer:
    """Return an answer that says what is wrong."""
    text = f"{status} {HTTPStatus(status).phrase}\n"
    return Answer(status, text.encode(), Content_Type="text/plain; charset=utf-8", **headers)


def answer(root: bytes, request: h11.Request) -> Answer:
    """Return the answer to a request; `root` is a folder, without links in its path."""
    if request.method not in (b"GET", b"HEAD"):
        return problem(405, Allow="GET, HEAD")
    match = TARGET.fullmatch(request.target)
    if match is None:
        return problem(400)
    path, query = match[1] or b"/", match[2] or b""
    names = [unquote_to_bytes(name) for name in path.split(b"/") if name]
    try:
        found = locate(root, names)
        if os.path.isdir(found) and not path.endswith(b"/"):
            return problem(301, Location=url(names) + "/" + query.decode("ascii"))
        if os.path.isdir(found):
            try:
                found = locate(root, [*names, b"index.html"])
            except FileNotFoundError:
                return listing(found, names)
        elif path.endswith(b"/"):
            return problem(404)
        return of_file(found, request)
    except OSError as exc:  # it is not there, not for us, or its name is too long; or it may be
        return problem(503 if exc.errno in FULL else 404)


def locate(root: bytes, names: list[bytes]) -> bytes:
    """Return the path of what a client may see; raise OSError if there is nothing."""
    path = b"/".join([root, *names])
    if any(name.startswith(b".") or b"/" in name or b"\0" in name for name in names):
        raise FileNotFoundError(path)
    real = os.path.realpath(path, strict=True)  # follows the links
    if os.path.commonpath([root, real]) != root:
        raise FileNotFoundError(path)
    return real


def url(names: list[bytes]) -> str:
    return "".join("/" + quote(name) for name in names)


def listing(folder: bytes, names: list[bytes]) -> Answer:
    """Return a page with links to what is in a folder."""
    with os.scandir(folder) as entries:
        shown = (entry for entry in entries if not entry.name.startswith(b"."))
        inside = sorted(
            e.name + b"/" * e.is_dir(follow_symlinks=False) for e in islice(shown, LISTED)
        )
        more = next(shown, None) is not None
    title = html.escape(os.fsdecode(b"/".join([b"", *names, b""])))
    lines = ["<!DOCTYPE html>", '<meta charset="utf-8">', f"<title>{title}</title>", "<ul>"]
    for name in [b"../"] * bool(names) + inside:
        lines.append(f'<li><a href="./{quote(name)}">{html.escape(os.fsdecode(name))}</a>')
    page = "\n".join([*lines, "</ul>", "<p>There is more." * more, ""]).encode("utf-8", "replace")
    return Answer(200, page, Content_Type="text/html; charset=utf-8")


def of_file(path: bytes, request: h11.Request) -> Answer:
    """Return a file, a part of it, or that the client has it already."""
    if not os.path.isfile(path):  # a pipe, say: opening it would wait for its other end
        return problem(404)
    asked = {name.decode(): value.decode("latin-1") for name, value in request.headers}
    file = open(path, "rb")  # noqa: SIM115 - closed with the answer
    status = os.fstat(file.fileno())
    size, modified = status.st_size, int(min(status.st_mtime, time.time()))
    known = {
        "ETag": f'"{status.st_mtime_ns:x}-{size:x}"',
        "Last_Modified": formatdate(modified, usegmt=True),
        "Accept_Ranges": "bytes",
    }
    if has_already(asked, known["ETag"], modified):
        file.close()
        return Answer(304, **known)
    wanted = range_of(asked.get("range", ""), size) if request.method == b"GET" else None
    if wanted is None or asked.get("if-range", known["ETag"]) not in known.values():
        return Answer(200, Part(file, 0, size), **known, **kind(path))
    begin, end = wanted
    if begin >= end:
        file.close()
        return problem(416, Content_Range=f"bytes */{size}")
    known["Content_Range"] = f"bytes {begin}-{end - 1}/{size}"
    return Answer(206, Part(file, begin, end - begin), **known, **kind(path))


def kind(path: bytes) -> dict[str, str]:
    """Return the header with the type of a file, as its name tells."""
    found, encoding = mimetypes.guess_type(os.fsdecode(path))
    if found is None or encoding is not None:  # what is compressed is handed out as it is
        found = "application/octet-stream"
    return {"Content_Type": found + "; charset=utf-8" * found.startswith("text/")}


def range_of(value: str, size: int) -> tuple[int, int] | None:
    """Return where the wanted range begins and ends; None if there is not exactly one."""
    match = RANGE.fullmatch(value)
    if match is None or value == "bytes=-":
        return None
    first, last = match.groups()
    if not first:  # so many at the end
        return max(0, size - int(last)), size
    if not last:
        return int(first), size
    return (int(first), min(int(last) + 1, size)) if int(first) <= int(last) else None


def has_already(asked: dict[str, str], etag: str, modified: int) -> bool:
    """Tell whether the client's copy is as good as the file. Its tag counts more than its date."""
    if "if-none-match" in asked:
        tags = [tag.strip().removeprefix("W/") for tag in asked["if-none-match"].split(",")]
        return etag in tags or "*" in tags
    try:
        since = parsedate_to_datetime(asked.get("if-modified-since", ""))
    except (TypeError, ValueError, OverflowError):  # there is no date, or it is none
        return False
    if since.tzinfo is None:  # the form of C's asctime names no zone: it is GMT (RFC 9110, 5.6.7)
        since = since.replace(tzinfo=UTC)
    return modified <= since.timestamp()
