"""Tries cells by hand: see the package."""

import argparse
import sys
from collections import Counter

from tests.net.system_errors.cells import KINDS, Program, calls_of, cells, reason_to_skip, try_all


def main():
    parser = argparse.ArgumentParser(prog="tests.net.system_errors")
    parser.add_argument("words", nargs="*", help="of the cells to try: server accept4 EMFILE 1+")
    parser.add_argument("--library", default="corolib", choices=["corolib", "asyncio"])
    parser.add_argument("--part", default="1/1", help="I/N: the I-th of N parts")
    parser.add_argument("--all", action="store_true", help="show also what is as expected")
    options = parser.parse_args()
    if reason := reason_to_skip():
        sys.exit(reason)
    number, parts = map(int, options.part.split("/"))
    for kind in KINDS:
        if kind not in options.words and set(options.words) & set(KINDS):
            continue
        with Program(options.library, kind) as program:
            calls = calls_of(program)
        words = set(options.words) - set(KINDS)
        wanted = [cell for cell in cells(options.library, kind, calls) if words <= set(cell)]
        counts = Counter()
        for verdict in try_all(wanted[number - 1 :: parts]):
            counts[verdict.result()] += 1
            if options.all or verdict.unexpected():
                print(verdict, flush=True)
        print(f"{options.library} {kind}: {', '.join(calls)}: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main()
