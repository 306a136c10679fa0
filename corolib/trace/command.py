"""`python3 -m corolib trace` and `convert`: record a program, and turn a trace into another form.

The program runs as `python PROGRAM` would run it, and its exit status is ours. Each `run()` in it
is recorded as if it had `trace=`. Where the file is, the last line on stderr says.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from corolib.kernel import DEFAULT_TRACE, Scheduler, told, trace_of, with_trace
from corolib.trace.files import read_lines
from corolib.trace.traces import Trace, suffix_of, write

_COMMAND = (__name__, "runpy")
USAGE = """\
python3 -m corolib trace [-o FILE] [OPTIONS] PROGRAM [ARG...]
       python3 -m corolib trace [-o FILE] [OPTIONS] -m MODULE [ARG...]"""


def record(words: Sequence[str]) -> NoReturn:
    """Do what `python3 -m corolib trace WORDS` asks for, and exit."""
    parser = argparse.ArgumentParser(
        prog="python3 -m corolib trace",
        usage=USAGE,
        description="Record what the scheduler does while a program runs.",
    )
    add = parser.add_argument
    add("-o", dest="to", metavar="FILE", default="trace.html",
        help=".html: a page; .jsonl: events; .json: for Perfetto; -: text on stderr. "
             "Default: %(default)s")  # fmt: skip
    add("--last", type=int, metavar="N", help="keep only the last N events")
    add("--no-values", action="store_true", help="do not note local variables")
    add("--stacks", action="store_true", help="note all frames of a task, not the innermost")
    add("--no-source", action="store_true", help="leave the source of what ran out")
    add("--open", action="store_true", help="show the page in a browser")
    add("-m", dest="module", action="store_true", help="PROGRAM is a module, as for python3 -m")
    add("program", metavar="PROGRAM")
    add("arguments", metavar="ARG", nargs=argparse.REMAINDER)
    options = parser.parse_args(words)
    wanted = {
        "last": options.last,
        "values": not options.no_values,
        "stacks": options.stacks,
        "source": not options.no_source,
    }
    if not (options.module or os.path.exists(options.program)):
        file, _, function = options.program.rpartition(":")
        text = f"{options.program}: there is no such program here, in {os.getcwd()}"
        if os.path.exists(file):
            command = f"python3 -m corolib run {file}:{function} --trace {options.to}"
            text += f"; a function is recorded by `{command}`"
        sys.exit(text)
    traces: list[Trace] = []

    class Each(Trace):
        """Records each run by itself."""

        def scheduler(self, **scheduler: Any) -> Scheduler:
            traces.append(Trace(options.to, **wanted))
            traces[-1].on_cause = False  # it is asked for here and now
            return traces[-1].scheduler(**scheduler)

    try:
        each = Each(options.to, **wanted)
    except ValueError as exc:
        parser.error(str(exc))
    status = _run(options, each)
    written = [trace.path for trace in traces if trace.path]
    if not traces and not status:
        print(f"{options.program}: no run() was recorded; there is no trace", file=sys.stderr)
        status = 1
    for path in written:
        print(path, file=sys.stderr)
    if options.open and written:
        import webbrowser

        webbrowser.open(f"file://{os.path.abspath(written[-1])}")
    sys.exit(status)


def _run(options: argparse.Namespace, trace: Trace) -> Any:
    """Run the program as its own main module; return its exit status."""
    sys.argv = [options.program, *options.arguments]
    before, DEFAULT_TRACE.trace = DEFAULT_TRACE.trace, trace
    try:
        if options.module:
            sys.path.insert(0, os.getcwd())
            runpy.run_module(options.program, run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = os.path.dirname(os.path.abspath(options.program))
            runpy.run_path(options.program, run_name="__main__")
    except SystemExit as exc:
        if isinstance(exc.code, str):
            print(exc.code, file=sys.stderr)
            return 1
        return exc.code
    except BaseException as exc:
        # The first frames are those of this command and of `runpy`.
        trace_back = trace_of(exc)
        while trace_back is not None and trace_back.tb_frame.f_globals.get("__name__") in _COMMAND:
            trace_back = trace_back.tb_next
        sys.excepthook(type(exc), with_trace(exc, trace_back), trace_back)
        return 130 if isinstance(exc, KeyboardInterrupt) else 1
    finally:
        DEFAULT_TRACE.trace = before
    return 0


def convert(words: Sequence[str]) -> NoReturn:
    """Do what `python3 -m corolib convert WORDS` asks for, and exit."""
    parser = argparse.ArgumentParser(
        prog="python3 -m corolib convert",
        description="Make a page, or a file for Perfetto, of a trace.",
    )
    parser.add_argument("trace", metavar="TRACE.jsonl")
    parser.add_argument("to", metavar="OUT.html|OUT.json")
    options = parser.parse_args(words)
    try:
        suffix_of(options.to)
    except ValueError as exc:
        parser.error(str(exc))
    try:
        with open(options.trace, encoding="utf-8") as file:
            header, events = read_lines(file.read())
        write(options.to, header, events)
    except (OSError, ValueError) as exc:
        print(f"{options.trace}: {exc}", file=sys.stderr)
        sys.exit(1)
    except Exception as exc:  # its events do not go together, in whichever way
        print(f"{options.trace}: this trace is damaged: {told(exc)}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)
