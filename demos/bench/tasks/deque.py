"""A deque, and `generator.send`: what switching between generators costs at the least."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator

from demos.bench.tasks import SWITCHERS


def switch(n: int) -> None:
    def switcher() -> Generator[None, None, None]:
        for _ in range(n // SWITCHERS):
            yield

    ready = deque(switcher() for _ in range(SWITCHERS))
    while ready:
        task = ready.popleft()
        try:
            task.send(None)
        except StopIteration:
            continue
        ready.append(task)
