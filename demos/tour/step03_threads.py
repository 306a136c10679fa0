"""Step 3 of the tour: a thread for each client.

    $ python3 -m demos.tour.step03_threads
    echo on 127.0.0.1 port 7007; try: nc 127.0.0.1 7007

The same `echo` again. The threads share one process and its memory, so each costs far less than a
process; and from now on two clients can get into each other's way.
"""

from __future__ import annotations

import argparse
import threading

from corolib.demo.start import start
from demos.tour.listening import listen
from demos.tour.step01_one_at_a_time import echo


def main(options: argparse.Namespace) -> None:
    with listen(options) as listener:
        while True:
            conn, _ = listener.accept()
            threading.Thread(target=echo, args=(conn,), daemon=True).start()


if __name__ == "__main__":
    start(main, __doc__, port=7007)
