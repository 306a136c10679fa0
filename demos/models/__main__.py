"""The five I/O models and the three server structures, measured on the same clients.

    $ python3 -m demos.models --svg models.svg
    20 clients, 10 lines each, 0.02 s before each line
    Linux 6.18, Python 3.11.7, asynchronous calls by io_uring
    ...

Runs the eight servers of this folder one after another, with the same clients, and prints a table:
how many clients each serves at once, and what it takes of time, CPU, memory and system calls; then
what is in the table, in sentences; and the two tables of `ready.py`. With `--svg FILE` it draws a
picture as well. See `README.md`. Needs Linux; counts calls with `strace`.
"""

from __future__ import annotations

import argparse
import platform
import sys

from demos.drawing import picture_file
from demos.models.clients import Job
from demos.models.completions import open_completions
from demos.models.findings import findings
from demos.models.measure import MODELS, STRUCTURES, Figures, can_trace, measure
from demos.models.picture import draw
from demos.models.ready import report
from demos.models.table import heading, line, paragraph
from demos.start import at_least, start


def main(options: argparse.Namespace) -> None:
    if not sys.platform.startswith("linux"):
        sys.exit("the figures come from /proc: this needs Linux (most of the servers do not)")
    job = Job(options.clients, options.lines, options.pause)
    what = f"{job.clients} clients, {job.lines} lines each, {job.pause:g} s before each line"
    linux = ".".join(platform.release().split(".")[:2])
    calls = open_completions().name
    where = f"Linux {linux}, Python {platform.python_version()}, asynchronous calls by {calls}"
    print(f"{what}\n{where}\n\n{heading()}", flush=True)
    groups: list[list[Figures]] = []
    for servers in (MODELS, STRUCTURES):
        group: list[Figures] = []
        for server in servers:
            group.append(measure(server, job))
            print(line(group[-1]), flush=True)
        print()
        groups.append(group)
    print(paragraph(findings(job, groups)))
    if not can_trace():
        print("\nNo system calls are counted: strace is not there, or may not trace.")
    print()
    report()
    if options.svg:
        options.svg.write_text(draw(groups, what, where), encoding="utf-8")
        print(f"\nThe picture is in {options.svg}")


if __name__ == "__main__":
    default = "default: %(default)s"
    pause = at_least(0.0, 60.0)
    arguments = {
        "--clients": {"type": at_least(1, 500), "default": 20, "help": default},
        "--lines": {"type": at_least(2, 500), "default": 10, "help": f"of each; {default}"},
        "--pause": {"type": pause, "default": 0.02, "help": f"seconds before a line; {default}"},
        "--svg": {"type": picture_file, "metavar": "FILE", "help": "draw the figures, too"},
    }
    start(main, __doc__, arguments=arguments)
