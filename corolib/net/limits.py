"""The limits of a server: the keywords of `Listener.serve`, checked.

    limits = checked({"max_connections": 500})      all of them, the others by default

`serve_tcp` and `serve_unix` pass them on. A mistake is found where it is made, and not when the
first client comes. What they mean is said at `Listener.serve`; what becomes of them is the matter
of `servers.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict

from corolib.kernel import LateModule, check_number
from corolib.net.streams import Stream

if TYPE_CHECKING:
    import ssl
else:
    ssl = LateModule("ssl")

WAITS = 0x20 | 0x80 | 0x200
"""Flags of code that can wait: a generator, a coroutine, an async generator."""


class Limits(TypedDict, total=False):
    """The limits, by name: see `Listener.serve`."""

    max_connections: int | None
    accept: Callable[[Any], object] | None
    idle_timeout: float | None
    max_line: int | None
    tls: ssl.SSLContext | None
    handshake: float
    on_error: Callable[[BaseException, Stream], object] | None
    grace: float


def checked(given: Limits) -> Limits:
    """Return all limits; those that are not given are None, for no limit, or have a default.

    TypeError or ValueError for one that is not of its kind, TypeError for an unknown name.
    """
    check_names("serve", given)
    return Limits(
        max_connections=_count("max_connections", given.get("max_connections")),
        accept=_function("accept", given.get("accept")),
        idle_timeout=_seconds("idle_timeout", given.get("idle_timeout")),
        max_line=_count("max_line", given.get("max_line")),
        tls=_context(given.get("tls")),
        handshake=check_number(given.get("handshake", 10.0), "serve(handshake=)", "a duration"),
        on_error=_function("on_error", given.get("on_error")),
        grace=check_number(given.get("grace", 5.0), "serve(grace=)", "a duration"),
    )


def check_names(caller: str, given: Limits, *others: str) -> None:
    """Refuse a keyword that is no limit; `others` are those that the caller has besides."""
    for word in given:
        if word not in Limits.__annotations__:
            known = ", ".join([*others, *Limits.__annotations__])
            raise TypeError(f"{caller}() has no keyword {word!r}; its keywords are {known}")


def _count(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"serve({name}={value!r}): give a number, at least 1, or None")
    return value


def _seconds(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    number = check_number(value, f"serve({name}=)", "a duration")
    if number <= 0:
        raise ValueError(f"serve({name}={value!r}): give a number of seconds, or None")
    return number


def _function(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"serve({name}={value!r}): give a function, or None")
    if getattr(getattr(value, "__code__", None), "co_flags", 0) & WAITS:
        raise TypeError(f"serve({name}={value!r}): give an ordinary function, which cannot wait")
    return value


def _context(tls: Any) -> Any:
    if tls is None:
        return None
    if not isinstance(tls, ssl.SSLContext):
        raise TypeError(f"serve(tls={tls!r}): give an ssl.SSLContext that has a certificate")
    if tls.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(
            "serve(tls=...) got a context for clients: make it by "
            "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) and load_cert_chain()"
        )
    return tls
