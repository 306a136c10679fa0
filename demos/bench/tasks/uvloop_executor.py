"""uvloop with asyncio's older way to a thread."""

from __future__ import annotations

import uvloop

from demos.bench.tasks import asyncio_executor


def thread(n: int) -> None:
    asyncio_executor.thread(n, uvloop.run)
