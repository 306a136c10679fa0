"""Threads, of which nobody starts 50 000, and which cannot be cancelled."""

from __future__ import annotations

import queue
import threading

from demos.bench.tasks import LOCKERS, nothing


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


def lock(n: int) -> None:
    mutex = threading.Lock()

    def locker() -> None:
        for _ in range(n // LOCKERS):
            with mutex:
                pass

    lockers = [threading.Thread(target=locker) for _ in range(LOCKERS)]
    for each in lockers:
        each.start()
    for each in lockers:
        each.join()
