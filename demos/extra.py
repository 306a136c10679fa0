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
        how = "pip install 'corolib[demos]', or in a clone: pip install -e '.[demos]'"
        sys.exit(f"this demo needs {exc.name}: {how}")
