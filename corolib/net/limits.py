"""The limits of a server: the keywords of `Listener.serve`, checked.

    limits = checked("serve", {"max_connections": 500})     all of them, the others by default

`serve_tcp` and `serve_unix` pass them on. A mistake is found where it is made, and not when the
first client comes; the message names the call that was typed. What they mean is said at
`Listener.serve`; what becomes of them is the matter of `servers.py`. What a handler has to be is
in `handlers.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from corolib.kernel import LateModule, brief, check_count, check_keywords, check_number
from corolib.net.proxy_header import Proxies
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
    proxy_from: Sequence[str] | None


def checked(caller: str, given: Limits, *others: str) -> Limits:
    """Return all limits; those that are not given are None, for no limit, or have a default.

    TypeError or ValueError for one that is not of its kind, TypeError for an unknown name; `others`
    are the names that the caller has besides.
    """
    check_keywords(caller, given, [*others, *Limits.__annotations__])
    check = _Check(caller, given)
    return Limits(
        max_connections=check.count("max_connections", places()),
        accept=check.function("accept"),
        idle_timeout=check.seconds("idle_timeout"),
        max_line=check.count("max_line"),
        tls=check.context("tls"),
        handshake=check.duration("handshake", 10.0),
        on_error=check.function("on_error"),
        grace=check.duration("grace", 5.0),
        drain=check.duration("drain", DRAIN),
        drain_limit=check.duration("drain_limit", DRAIN_LIMIT),
        max_message=check.count("max_message"),
        max_per_address=check.count("max_per_address"),
        evict_idle=check.seconds("evict_idle", EVICT_IDLE),
        min_rate=check.rate("min_rate"),
        proxy_from=check.proxies("proxy_from"),
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


def checked_for_datagrams(caller: str, given: DatagramLimits, *others: str) -> DatagramLimits:
    """Do the same for who serves datagrams."""
    check_keywords(caller, given, [*others, *DatagramLimits.__annotations__])
    check = _Check(caller, given)
    return DatagramLimits(
        rate=check.number("rate", RATE, 1),
        amplify=check.number("amplify", 1, 0),
        services=bool(given.get("services")),
        max_waiting=check.whole("max_waiting", AT_ONCE),
        max_per_address=check.whole("max_per_address", OF_ONE),
        on_error=check.function("on_error"),
        grace=check.duration("grace", 5.0),
    )


class _Check:
    """What was given to a call, and which of it is asked for."""

    def __init__(self, caller: str, given: Mapping[str, Any]) -> None:
        self._caller = caller
        self._given = given

    def _wrong(self, kind: type[Exception], name: str, value: object, text: str) -> Exception:
        return kind(f"{self._caller}({name}={brief(value)}): {text}")

    def whole(self, name: str, default: int | None) -> int:
        return check_count(self._given.get(name, default), f"{self._caller}({name}=)", 1)

    def count(self, name: str, default: int | None = None) -> int | None:
        return None if self._given.get(name, default) is None else self.whole(name, default)

    def duration(self, name: str, default: float | None) -> float:
        value = self._given.get(name, default)
        return check_number(value, f"{self._caller}({name}=)", "a duration")

    def seconds(self, name: str, default: float | None = None) -> float | None:
        value = self._given.get(name, default)
        if value is None:
            return None
        number = self.duration(name, default)
        if number <= 0:
            raise self._wrong(ValueError, name, value, "give a number of seconds, or None")
        return number

    def number(self, name: str, default: float, least: int) -> float:
        value = self._given.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(TypeError, name, value, "give a number; math.inf is no limit")
        if not value >= least:
            raise self._wrong(ValueError, name, value, f"give a number, at least {least}")
        return value

    def rate(self, name: str) -> float | None:
        value = self._given.get(name)
        if value is None:
            return None
        text = "give a number of bytes a second, or None"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(TypeError, name, value, text)
        if not 0 < value < math.inf:
            raise self._wrong(ValueError, name, value, text)
        return value

    def function(self, name: str) -> Any:
        value = self._given.get(name)
        if value is not None and not callable(value):
            raise self._wrong(TypeError, name, value, "give a function, or None")
        if getattr(getattr(value, "__code__", None), "co_flags", 0) & WAITS:
            text = "give an ordinary function, which cannot wait"
            raise self._wrong(TypeError, name, value, text)
        return value

    def context(self, name: str) -> Any:
        tls = self._given.get(name)
        if tls is None:
            return None
        if not isinstance(tls, ssl.SSLContext):
            text = "give an ssl.SSLContext, which has a certificate by load_cert_chain(path)"
            raise self._wrong(TypeError, name, tls, text)
        if tls.protocol == ssl.PROTOCOL_TLS_CLIENT:
            raise ValueError(
                f"{self._caller}({name}=...) got a context for clients: make it by "
                "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) and load_cert_chain()"
            )
        return tls

    def proxies(self, name: str) -> Any:
        """Return the `Proxies`, or None if there are none: nothing is asked of them then."""
        value = self._given.get(name)
        if not value and not isinstance(value, str):
            return None
        if isinstance(value, str) or not isinstance(value, Iterable):
            text = 'give a list of networks, as in ["10.0.0.0/8"]'
            raise self._wrong(TypeError, name, value, text)
        try:
            return Proxies(value)
        except (TypeError, ValueError) as exc:
            raise self._wrong(type(exc), name, value, str(exc)) from None
