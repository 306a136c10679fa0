"""Traces as files of lines: each line is JSON, an event or a part of the header.

The first line is the header, as far as it is known when the run begins. A code object stands in a
line of its own, `{"code": [...]}`, before the first event that names its number. The tasks have
their names from the events that spawned them. The last line has the source. So a file that was cut
short can be read up to there, and who writes one has no more to remember the longer it runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from corolib.trace.events import SCHEMA, Codes, Event, decode

BLOCK = 65536  # characters that are written at a time: so much a kill may lose


class LineWriter:
    """Writes events to a file as they come."""

    def __init__(self, path: str, header: dict[str, Any], t0: int, codes: Codes) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - see `close`
        self._t0 = t0
        self._codes = codes
        self._told = 0  # of the code objects
        self._count = 0
        self._lines = [as_json(header)]
        self._size = 0

    def __call__(self, event: tuple[Any, ...]) -> None:
        line = as_json(decode(event, self._count, self._t0, self._codes))
        self._count += 1
        for code in self._codes.table[self._told :]:
            self._lines.append(as_json({"code": code}))
        self._told = len(self._codes.table)
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BLOCK:
            self.flush()

    def flush(self) -> None:
        data = ("\n".join(self._lines) + "\n").encode()
        while data:
            data = data[self._file.write(data) :]
        self._lines = []
        self._size = 0

    def leave(self) -> None:
        """Write nothing more."""
        with suppress(OSError):
            self._file.close()

    def close(self, source: dict[str, str]) -> None:
        """Write the rest, and what is known only now."""
        with self._file:
            self._lines.append(as_json({"source": source}))
            self.flush()


def as_json(thing: object) -> str:
    """Return JSON without spaces. What was no text, as a file name may be, is escaped."""
    return json.dumps(thing, separators=(",", ":"))


def lines_of(header: dict[str, Any], events: Sequence[Event]) -> str:
    """Return a whole trace as lines."""
    rest = {
        name: value for name, value in header.items() if name not in ("tasks", "code", "source")
    }
    lines = [as_json(rest)]
    lines += [as_json({"code": code}) for code in header["code"]]
    lines += [as_json(event) for event in events]
    lines += [as_json({name: header[name]}) for name in ("tasks", "source")]
    return "\n".join(lines) + "\n"


def read_lines(text: str) -> tuple[dict[str, Any], list[Event]]:
    """Return header and events of a trace that was written as lines; up to where it was cut.

    Raises:
        ValueError: this is no trace, or one of a form that is not known here.
    """
    header: dict[str, Any] = {"dropped": 0, "tasks": {}, "code": [], "source": {}}
    events: list[Event] = []
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            break
        if not isinstance(found, dict):
            break
        if "kind" in found:
            events.append(found)
            if found["kind"] == "spawn":
                _, file, _ = header["code"][found["code"]]
                site = f"{file}:{found['line']}"
                header["tasks"][found["task"]] = [found["name"], found.get("parent"), site]
        elif "code" in found:
            header["code"].append(found["code"])
        elif "tasks" in found:
            # It has those whose spawn was dropped, too.
            header["tasks"] = {int(number): task for number, task in found["tasks"].items()}
        else:
            header.update(found)
    if header.get("schema") != SCHEMA:
        raise ValueError(f"this is no trace that can be read: its first line does not say {SCHEMA}")
    return header, events
