"""The limits of a server: the keywords of `Listener.serve`, checked.

    limits = checked({"max_connections": 500})      all of them, the others by default

`serve_tcp` and `serve_unix` pass them on. A mistake is found where it is made, and not when the
first client comes. What they mean is said at `Listener.serve`; what becomes of them is the matter
of `servers.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from corolib.kernel import LateModule, brief, check_count, check_number
from corolib.net.streams import DRAIN, DRAIN_LIMIT, Stream

if TYPE_CHECKING:
    import ssl
else:
    ssl = LateModule("ssl")

AT_ONCE = 1000
"""Handlers of datagrams that may wait at the same time, each with one of up to 64 KiB."""

OF_ONE = 100
"""Those of one address."""

RATE = 100
"""Answers that one address gets in a second: enough for a person and most programs. Two services
that answer each other exceed it at once, and then it is over."""

RESERVE = 64
"""Files that connections leave to the rest of the program, or half of those that it may have: what
it has open at the start, logs, look-ups of names, and some for handlers."""

EVICT_IDLE = 10.0
"""Seconds without movement after which a connection makes room on a full server."""

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
    drain: float
    drain_limit: float
    max_message: int | None
    max_per_address: int | None
    evict_idle: float | None
    min_rate: float | None


def checked(given: Limits) -> Limits:
    """Return all limits; those that are not given are None, for no limit, or have a default.

    TypeError or ValueError for one that is not of its kind, TypeError for an unknown name.
    """
    check_names("serve", given)
    return Limits(
        max_connections=_count("max_connections", given.get("max_connections", places())),
        accept=_function("accept", given.get("accept")),
        idle_timeout=_seconds("idle_timeout", given.get("idle_timeout")),
        max_line=_count("max_line", given.get("max_line")),
        tls=_context(given.get("tls")),
        handshake=check_number(given.get("handshake", 10.0), "serve(handshake=)", "a duration"),
        on_error=_function("on_error", given.get("on_error")),
        grace=check_number(given.get("grace", 5.0), "serve(grace=)", "a duration"),
        drain=check_number(given.get("drain", DRAIN), "serve(drain=)", "a duration"),
        drain_limit=check_number(
            given.get("drain_limit", DRAIN_LIMIT), "serve(drain_limit=)", "a duration"
        ),
        max_message=_count("max_message", given.get("max_message")),
        max_per_address=_count("max_per_address", given.get("max_per_address")),
        evict_idle=_seconds("evict_idle", given.get("evict_idle", EVICT_IDLE)),
        min_rate=_rate("min_rate", given.get("min_rate")),
    )


def places() -> int | None:
    """Return how many connections the limit of files of this process leaves room for; None if there
    is no limit.
    """
    try:
        import resource
    except ImportError:
        # This is Windows, where a process may have as many as there is memory for.
        return None
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return None
    return max(1, files - min(RESERVE, files // 2))


class DatagramLimits(TypedDict, total=False):
    """The limits of who serves datagrams, by name: see `DatagramSocket.serve`."""

    rate: float
    amplify: float
    services: bool
    max_waiting: int
    max_per_address: int
    on_error: Callable[[BaseException, Any], object] | None
    grace: float


def checked_for_datagrams(given: DatagramLimits) -> DatagramLimits:
    """Do the same for who serves datagrams."""
    check_names("serve", given, kind=DatagramLimits)
    return DatagramLimits(
        rate=_number("rate", given.get("rate", RATE), 1),
        amplify=_number("amplify", given.get("amplify", 1), 0),
        services=bool(given.get("services")),
        max_waiting=check_count(given.get("max_waiting", AT_ONCE), "serve(max_waiting=)", 1),
        max_per_address=check_count(
            given.get("max_per_address", OF_ONE), "serve(max_per_address=)", 1
        ),
        on_error=_function("on_error", given.get("on_error")),
        grace=check_number(given.get("grace", 5.0), "serve(grace=)", "a duration"),
    )


def check_names(caller: str, given: Mapping[str, Any], *others: str, kind: Any = Limits) -> None:
    """Refuse a keyword that is no limit; `others` are those that the caller has besides."""
    for word in given:
        if word not in kind.__annotations__:
            known = ", ".join([*others, *kind.__annotations__])
            raise TypeError(f"{caller}() has no keyword {brief(word)}; its keywords are {known}")


def _count(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"serve({name}={brief(value)}): give a number, at least 1, or None")
    return value


def _seconds(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    number = check_number(value, f"serve({name}=)", "a duration")
    if number <= 0:
        raise ValueError(f"serve({name}={brief(value)}): give a number of seconds, or None")
    return number


def _rate(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"serve({name}={brief(value)}): give a number of bytes a second, or None")
    if not 0 < value < math.inf:
        raise ValueError(f"serve({name}={brief(value)}): give a number of bytes a second, or None")
    return value


def _number(name: str, value: float, least: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"serve({name}={brief(value)}): give a number; math.inf is no limit")
    if not value >= least:
        raise ValueError(f"serve({name}={brief(value)}): give a number, at least {least}")
    return value


def _function(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"serve({name}={brief(value)}): give a function, or None")
    if getattr(getattr(value, "__code__", None), "co_flags", 0) & WAITS:
        text = "give an ordinary function, which cannot wait"
        raise TypeError(f"serve({name}={brief(value)}): {text}")
    return value


def _context(tls: Any) -> Any:
    if tls is None:
        return None
    if not isinstance(tls, ssl.SSLContext):
        raise TypeError(f"serve(tls={brief(tls)}): give an ssl.SSLContext that has a certificate")
    if tls.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(
            "serve(tls=...) got a context for clients: make it by "
            "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) and load_cert_chain()"
        )
    return tls
