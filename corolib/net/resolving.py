"""Names and addresses: which addresses a name has, and in which order to try them.

    infos = yield from resolve("example.org", 80, 0, SOCK_STREAM)
    pairs = yield from candidates("example.org", 80, source, 0, SOCK_STREAM)

A name is looked up in the threads that are kept for it; a numeric address needs no thread. The
lookup itself, which blocks, is the network's, in `network.py`. Who connects to what is found is in
`connecting.py` and `datagrams.py`. Servers look names up at once, before they run: that is in
`listening.py`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Generator, Iterable, Sequence
from itertools import zip_longest
from typing import Any

from corolib.coordination.threads import lookup
from corolib.kernel import brief, waits
from corolib.net.network import NUMERIC, AddressInfo, address_text, named, network

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Port = int | str
Source = tuple[str | None, Port]


@waits
def resolve(
    host: str | None, port: Port, family: int, kind: int, flags: int = 0
) -> Generator[Any, Any, Iterable[AddressInfo]]:
    """Wait until the addresses of a name are known, and return them in the order of the system.

    Those of a numeric address are known at once. A name is looked up in a thread; nobody heeds
    what comes of it after a cancel.
    """
    net = network()

    def ask(flags: int) -> list[AddressInfo] | OSError:
        try:
            return net.getaddrinfo(host, port, family, kind, 0, flags)
        except OSError as exc:
            return exc

    # As reports name it.
    ask.__qualname__ = f"{host}:{port}"
    found = ask(flags | NUMERIC)
    if isinstance(found, OSError):
        found = yield from lookup(ask, flags)
    if not found:
        found = socket.gaierror(socket.EAI_NONAME, "no address is known")
    if isinstance(found, OSError):
        raise named(found, f"{host}:{port}")
    # Some resolvers say the same thing twice.
    return dict.fromkeys(found)


@waits
def candidates(
    host: str, port: Port, source: Source | None, family: int, kind: int
) -> Generator[Any, Any, list[tuple[AddressInfo, Any]]]:
    """Wait until the addresses of a name are known; return each with the address to connect from.

    The families take turns, and the one that the system puts first begins. (That is IPv6 where
    this machine has it: RFC 6724.) With a source, only addresses of its family are left.
    """
    found = interleaved((yield from resolve(host, port, family, kind)))
    if source is None:
        return [(info, None) for info in found]
    own: dict[int, Any] = {}
    for info in (yield from resolve(*source, family, kind, socket.AI_PASSIVE)):
        own.setdefault(info[0], info[4])
    if left := [(info, own[info[0]]) for info in found if info[0] in own]:
        return left
    text = f"{host}:{port} has no address of the family of {address_text(source)}"
    raise OSError(errno.EADDRNOTAVAIL, text)


def check_host(who: str, host: object) -> None:
    """Refuse what cannot be the name of a host."""
    if not isinstance(host, str):
        text = "give a name or an address, as a str"
        raise TypeError(f"{who} got the host {brief(host)}: {text}")


def check_pair(who: str, pair: Source | None) -> None:
    """Refuse what is not an address and a port."""
    if pair is not None and (not isinstance(pair, tuple) or len(pair) != 2):
        raise TypeError(f"{who} got {brief(pair)}: give an address and a port, ('127.0.0.1', 0)")


def interleaved(found: Iterable[AddressInfo]) -> list[AddressInfo]:
    """Return addresses so that the families take turns; within a family the order is kept."""
    families: dict[int, list[AddressInfo]] = {}
    for info in found:
        families.setdefault(info[0], []).append(info)
    rounds = zip_longest(*families.values())
    return [info for each in rounds for info in each if info is not None]


def failure(what: str, causes: Sequence[Exception]) -> Exception:
    """Return one error for several: itself if it is the only one, else one that names all.

    What is no OSError is no failure of the network, and returned itself.
    """
    failures = [each for each in causes if isinstance(each, OSError)]
    others = [each for each in causes if not isinstance(each, OSError)]
    if others or len(failures) == 1:
        return [*others, *failures][0]
    text = f"{what}: {'; '.join(each.strerror or str(each) for each in failures)}"
    kinds = {each.errno for each in failures}
    kind = kinds.pop() if len(kinds) == 1 else None
    error = OSError(text) if kind is None else OSError(kind, text)
    error.__cause__ = ExceptionGroup(what, failures)
    return error
