"""Exceptions that refuse what is asked of them, each as some program has them."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Frozen(Exception):
    """Refuses notes, and all else that is written to it."""

    text: str = "frozen"


@dataclass
class Unhashable(Exception):
    """Is equal to others like it, and so in no set."""

    text: str = "unhashable"


class Silent(Exception):
    """Has no text."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class Unequal(Exception):
    """Cannot be compared, and has no truth value."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no ==")

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise RuntimeError("no bool")


class Empty(Exception):
    """Is false."""

    def __len__(self) -> int:
        return 0


class Stubborn(Exception):
    """Takes no note and no traceback."""

    def add_note(self, note: str) -> None:
        raise RuntimeError("no note")

    def with_traceback(self, trace: Any) -> Any:
        raise RuntimeError("no traceback")


class Closed(Exception):
    """Raises whatever one asks it, its class too."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError(f"no {name}")


class _Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise AttributeError("no name")

    def __repr__(cls) -> str:
        raise RuntimeError("no repr")


class Nameless(Exception, metaclass=_Nameless):
    """Is of a class that does not say its name."""


class Name(str):
    """A name that refuses to be written, and to be compared."""

    def _refuse(self, *args: Any) -> Any:
        raise RuntimeError("no name")

    __str__ = __repr__ = __format__ = __eq__ = __len__ = __bool__ = _refuse
    startswith = lstrip = partition = _refuse
    __hash__ = str.__hash__


def misnamed(thing: Any, name: str = "odd") -> Any:
    """Return a function, a generator or a class with such a name."""
    thing.__name__, thing.__qualname__ = Name(name), Name(f"{name}.q")
    with suppress(AttributeError):
        thing.__module__ = Name("nowhere")
    return thing


ODD = [Frozen, Unhashable, Silent, Unequal, Empty, Stubborn, Closed, Nameless]
