"""How a demo imports a package that corolib does without: one line says what is missing.

with extra():
    import h11
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as exc:
        sys.exit(f"this demo needs {exc.name}: python3 -m pip install {exc.name}")
