"""How a demo imports a package that corolib does without: one line says what is missing.

with extra():
    import h11
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str = "demos") -> Iterator[None]:
    """Import in a `with` block what the extra `name` of corolib brings."""
    try:
        yield
    except ModuleNotFoundError as exc:
        how = f"in this checkout: pip install -e '.[{name}]'"
        sys.exit(f"this demo needs {exc.name}; {how}")
