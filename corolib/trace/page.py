"""A trace as a page: one file, which needs nothing else and asks no network for anything.

The data is JSON, deflated, in base64, so nothing that comes from the program can be taken for
markup; and the page puts it in as text. What the page shows, and how, is in the folder `assets`.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import zlib
from collections.abc import Sequence
from typing import Any

from corolib.trace.events import EVENTS, Event
from corolib.trace.sentences import WORDS

_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "assets")
SCRIPTS = ("reducer.js", "view.js", "lanes.js", "page.js")  # in this order


def page_of(header: dict[str, Any], events: Sequence[Event]) -> str:
    """Return the page of a trace."""
    program = os.path.basename((header.get("argv") or ["?"])[0]) or "python"
    program = program.encode("utf-8", "replace").decode()  # a file's name may be no text
    parts = {
        "TITLE": html.escape(f"{program}: a trace of corolib"),
        "STYLE": _read("page.css"),
        "SCRIPT": script(*SCRIPTS),
        "DATA": pack(header, events),
    }
    # At once: what is put in may have such a mark in it.
    return re.sub("@@([A-Z]+)@@", lambda mark: parts[mark[1]], _read("page.html"))


def script(*names: str) -> str:
    """Return what the page does, or the parts of that that are named."""
    return "\n".join(_read(name) for name in names)


def pack(header: dict[str, Any], events: Sequence[Event]) -> str:
    """Return header and events as the page unpacks them."""
    first = events[0]["i"] if events else 0
    data = {"header": header, "first": first, "rows": rows_of(events)}
    return packed({**data, "kinds": EVENTS, "words": WORDS})


def rows_of(events: Sequence[Event]) -> list[list[Any]]:
    """Return events in short.

    One is a row: the number of its kind, its time as the difference to the one before, and its
    fields, without those at the end that are None.
    """
    kinds = list(EVENTS)
    rows = []
    last = 0
    for event in events:
        kind = event["kind"]
        row = [kinds.index(kind), event["ns"] - last]
        row += [event.get(name) for name in EVENTS[kind]]
        while row[-1] is None:
            row.pop()
        rows.append(row)
        last = event["ns"]
    return rows


def packed(data: object) -> str:
    """Return data as letters of base64."""
    text = json.dumps(data, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _read(name: str) -> str:
    with open(os.path.join(_FOLDER, name), encoding="utf-8") as file:
        return file.read()
