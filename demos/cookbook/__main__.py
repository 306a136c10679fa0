"""The programs of this folder, with a line each.

    $ python3 -m demos.cookbook
    demos.cookbook
      demos.cookbook.accept_read    Echo, with the functions `accept` and `read`, ...
      ...

Each is run by its own name.
"""

from __future__ import annotations

import argparse

from demos.__main__ import show
from demos.start import start


def main(options: argparse.Namespace) -> None:
    show("cookbook")


if __name__ == "__main__":
    start(main, __doc__)
