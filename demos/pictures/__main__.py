"""Draws the pictures of the tour anew, each from a run.

    $ python3 -m demos.pictures
    one_at_a_time.svg
    processes.svg
    ...

With names, as in `demos.pictures select generators`, it draws those only. They are written
into this folder, or into `--into FOLDER`. Needs Linux.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from demos.pictures import compute, edge, lanes, story
from demos.pictures.draw import draw
from demos.pictures.moment import moments, steps
from demos.start import start

HERE = Path(__file__).parent
OTHERS: dict[str, Callable[[], str]] = {  # those that are no moment of a server
    "edge": edge.draw,
    "compute": lambda: compute.draw(compute.measure()),
    "lanes": lambda: lanes.draw(lanes.measure()),
    **{name: partial(story.draw, name) for name in story.STORIES},
}


def main(options: argparse.Namespace) -> None:
    if not sys.platform.startswith("linux"):
        sys.exit("what is in a selector is read from /proc: this needs Linux")
    if not options.into.is_dir():
        sys.exit(f"{options.into}: there is no such folder")
    known = [*steps(), *OTHERS]
    names = options.names or known
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"{unknown[0]} is not among {', '.join(known)}")
    served = [name for name in names if name not in OTHERS]
    drawn = {name: draw(found) for name, found in (moments(served) if served else {}).items()}
    drawn |= {name: OTHERS[name]() for name in names if name in OTHERS}
    for name, picture in drawn.items():
        path = options.into / f"{name}.svg"
        path.write_text(picture, encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    names = {"nargs": "*", "metavar": "NAME", "help": "those only"}
    into = {"type": Path, "default": HERE, "metavar": "FOLDER", "help": "where to write them"}
    start(main, __doc__, arguments={"names": names, "--into": into})
