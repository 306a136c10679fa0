"""bluelet. Its time for many sleepers grows with the square of their number: left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bluelet

from demos.bench.tasks import SWITCHERS


def switch(n: int) -> None:
    def switcher() -> Iterator[Any]:
        for _ in range(n // SWITCHERS):
            yield bluelet.null()

    def main() -> Iterator[Any]:
        for _ in range(SWITCHERS):
            yield bluelet.spawn(switcher())

    bluelet.run(main())


def spawn(n: int) -> None:
    def task() -> Iterator[Any]:
        yield bluelet.null()  # one that ends before it is joined would be waited for, for ever

    def main() -> Iterator[Any]:
        for _ in range(n):
            started = task()
            yield bluelet.spawn(started)
            yield bluelet.join(started)

    bluelet.run(main())
