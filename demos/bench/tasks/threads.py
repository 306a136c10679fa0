"""Threads, of which nobody starts 50 000, and which cannot be cancelled.

Their lock goes to whoever comes first, mostly to the one that had it last: it is left out.
"""

from __future__ import annotations

import queue
import threading

from demos.bench.tasks import nothing


def spawn(n: int) -> None:
    for _ in range(n):
        thread = threading.Thread(target=nothing)
        thread.start()
        thread.join()


def handover(n: int) -> None:
    items: queue.Queue[int] = queue.Queue(1)

    def produce() -> None:
        for item in range(n):
            items.put(item)

    producer = threading.Thread(target=produce)
    producer.start()
    for _ in range(n):
        items.get()
    producer.join()
