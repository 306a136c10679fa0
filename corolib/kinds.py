"""What the kernel needs of `typing`, without importing it: that takes long beside all of corolib.

Type checkers see the real things. At run time the names are there, and so are subscripts such as
`Task[int]`; corolib itself looks at none of them. Modules that are imported when asked for use
`typing` itself.

Imports nothing from corolib.
"""

from types import GenericAlias

TYPE_CHECKING = False  # checkers take a variable of this name for true

if TYPE_CHECKING:
    from typing import Any, Generic, ParamSpec, Protocol, TypeVar
else:
    Any = object

    class Generic:
        """A base class: what is derived from it can be subscripted."""

        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)

    class Protocol:
        """A base class that says what others must have."""

        __slots__ = ()

    class TypeVar:
        """A place in an alias: `Coro[int]` puts a type there."""

        def __init__(self, name, *, bound=None, covariant=False):
            self.__name__ = name

        def __typing_subst__(self, kind):
            return kind

        def __or__(self, other):
            return object

        def __repr__(self):
            return f"~{self.__name__}"

    def ParamSpec(name):  # noqa: N802
        """Return what stands for any arguments."""
        return ...


__all__ = ["TYPE_CHECKING", "Any", "Generic", "ParamSpec", "Protocol", "TypeVar"]
