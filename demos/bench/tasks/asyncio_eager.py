"""asyncio with eager tasks, since Python 3.12: each begins within the call that makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from demos.bench.tasks import asyncio as usual


def run(main: Coroutine[Any, Any, None]) -> None:
    async def eagerly() -> None:
        factory: Any = vars(asyncio)["eager_task_factory"]  # Python 3.11 has none
        asyncio.get_running_loop().set_task_factory(factory)
        await main

    asyncio.run(eagerly())


def switch(n: int) -> None:
    usual.switch(n, run)


def spawn(n: int) -> None:
    usual.spawn(n, run)


def sleepers(n: int) -> None:
    usual.sleepers(n, run)


def handover(n: int) -> None:
    usual.handover(n, run)


def cancel(n: int) -> None:
    usual.cancel(n, run)


def lock(n: int) -> list[int]:
    return usual.lock(n, run)


def event(n: int, mark: Callable[[], None]) -> None:
    usual.event(n, mark, run)


def shutdown(n: int, mark: Callable[[], None]) -> None:
    usual.shutdown(n, mark, run)
