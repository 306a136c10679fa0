"""The programs of this folder, with a line each.

    $ python3 -m demos.web
    demos.web
      demos.web.static     A static file server: HTTP/1.1 with ranges, ...
      demos.web.websocket  A WebSocket server that sends each message back, on wsproto.

Each is run by its own name.
"""

from __future__ import annotations

import argparse

from demos.__main__ import show
from demos.start import start


def main(options: argparse.Namespace) -> None:
    show("web")


if __name__ == "__main__":
    start(main, __doc__)
