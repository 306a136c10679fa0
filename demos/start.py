"""How every demo starts and ends: as `python3 -m corolib` does, whose `start` this is.

    if __name__ == "__main__":
        start(main, __doc__, port=7007)

Its source is `corolib/demo/start.py`.
"""

from corolib.demo.start import at_least as at_least
from corolib.demo.start import host as host
from corolib.demo.start import start as start
