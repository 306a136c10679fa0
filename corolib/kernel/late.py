"""Modules that are imported when one of their names is first asked for.

Annotations name classes of `ssl`, `subprocess` and `concurrent.futures`, which take long to import
and which most programs do not need. `typing.get_type_hints()` then finds them all the same.

Imports nothing else from corolib.
"""

from __future__ import annotations

from typing import Any


class LateModule:
    """Stands for the module of that name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        from importlib import import_module

        return getattr(import_module(self._name), name)
