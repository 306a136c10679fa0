"""asyncio's older way to a thread, below `to_thread`: it copies no context."""

from __future__ import annotations

import asyncio

from demos.bench.tasks import nothing
from demos.bench.tasks.asyncio import Runner


def thread(n: int, run: Runner = asyncio.run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(n):
            await loop.run_in_executor(None, nothing)

    run(main())
