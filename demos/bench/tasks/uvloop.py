"""uvloop: asyncio's program on a loop that is written in C."""

from __future__ import annotations

from collections.abc import Callable

import uvloop

from demos.bench.tasks import asyncio


def switch(n: int) -> None:
    asyncio.switch(n, uvloop.run)


def spawn(n: int) -> None:
    asyncio.spawn(n, uvloop.run)


def sleepers(n: int) -> None:
    asyncio.sleepers(n, uvloop.run)


def handover(n: int) -> None:
    asyncio.handover(n, uvloop.run)


def timeout(n: int) -> None:
    asyncio.timeout(n, uvloop.run)


def cancel(n: int) -> None:
    asyncio.cancel(n, uvloop.run)


def lock(n: int) -> list[int]:
    return asyncio.lock(n, uvloop.run)


def thread(n: int) -> None:
    asyncio.thread(n, uvloop.run)


def event(n: int, mark: Callable[[], None]) -> None:
    asyncio.event(n, mark, uvloop.run)


def shutdown(n: int, mark: Callable[[], None]) -> None:
    asyncio.shutdown(n, mark, uvloop.run)
