"""Tries new inputs for one target: `python3 -m tests.fuzz http --seconds 600`."""

import argparse
import random
import sys
import time

from tests.fuzz.inputs import keep, tried
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=60, help="default: %(default)s")
    parser.add_argument("--seed", type=int, help="which inputs; by default others each time")
    options = parser.parse_args()
    if options.target is None:
        for name, target in sorted(TARGETS.items()):
            print(f"{name:12}{(target.__doc__ or '').splitlines()[0]}")
        return 0
    seed = random.randrange(10**6) if options.seed is None else options.seed
    end = time.monotonic() + options.seconds
    try:
        count, came_to = tried(
            TARGETS[options.target],
            options.target,
            random.Random(seed),
            lambda count: time.monotonic() < end,
        )
    except Exception as exc:
        path = keep(options.target, exc.input)  # type: ignore[attr-defined]
        print(f"kept as {path}", file=sys.stderr)
        raise
    print(f"{options.target}: {count} inputs, seed {seed}")
    for outcome, times in sorted(came_to.items(), key=lambda item: -item[1]):
        print(f"{times:9}  {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
