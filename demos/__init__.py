"""Programs to run and to learn from: `python3 -m demos` lists them, with a line each.

This file is read by older Pythons too, down to 2.7: they are told that they are too old.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - no pip sees to that
    version = ".".join(map(str, sys.version_info[:3]))
    sys.exit("corolib needs Python 3.11 or newer; this is Python " + version)
