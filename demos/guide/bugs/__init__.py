"""Five programs with a bug each, and the pages of a run of each: find the bug; see `../bugs.md`.

    $ python3 -m corolib trace --stacks -o till.html demos/guide/bugs/till.py

No program says what is wrong with it. The pages are made anew each time.
"""

from __future__ import annotations

import linecache
import logging
import runpy
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from corolib import Deadlock
from corolib.kernel import DEFAULT_TRACE
from corolib.trace import Trace
from corolib.trace.page import page_of

HERE = Path(__file__).parent
NAMES = ("till", "orders", "printer", "sums", "transfers")


def record(name: str) -> Trace:
    """Run a program, and return what was recorded."""
    before = DEFAULT_TRACE.trace
    DEFAULT_TRACE.trace = trace = Trace(values=True, stacks=True)
    logger = logging.getLogger("corolib.task")  # it may fail
    logger.addFilter(nothing)
    try:
        with redirect_stdout(StringIO()), suppress(Deadlock):
            runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
    finally:
        DEFAULT_TRACE.trace = before
        logger.removeFilter(nothing)
    return trace


def nothing(_: logging.LogRecord) -> bool:
    return False


def pages() -> Iterator[tuple[str, str]]:
    """Record each program, and yield its name and its page, which knows no path of this machine."""
    for name in NAMES:
        trace = record(name)
        header, events = trace.recorded()
        yield name, page_of(without_paths(header, f"{name}.py"), events)


def without_paths(header: dict[str, Any], program: str) -> dict[str, Any]:
    codes = [[name, Path(file).name, line] for name, file, line in header["code"]]
    tasks = {
        number: [name, parent, Path(site).name]
        for number, (name, parent, site) in header["tasks"].items()
    }
    source = {program: "".join(linecache.getlines(str(HERE / program)))}
    return {**header, "argv": [program], "code": codes, "tasks": tasks, "source": source}
