"""gevent."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import gevent.event
import gevent.lock
import gevent.queue

from demos.bench.tasks import LOCKERS, LONG, SWITCHERS, nothing, pause


def switch(n: int) -> None:
    def switcher() -> None:
        for _ in range(n // SWITCHERS):
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(switcher) for _ in range(SWITCHERS)])


def spawn(n: int) -> None:
    for _ in range(n):
        gevent.spawn(nothing).join()


def sleepers(n: int) -> None:
    gevent.joinall([gevent.spawn(gevent.sleep, pause(number)) for number in range(n)])


def handover(n: int) -> None:
    queue = gevent.queue.SimpleQueue(1)  # cheaper than its Queue, which also counts what is done

    def produce() -> None:
        for item in range(n):
            queue.put(item)

    producer = gevent.spawn(produce)
    for _ in range(n):
        queue.get()
    producer.join()


def timeout(n: int) -> None:
    for _ in range(n):
        with gevent.Timeout(5):
            gevent.sleep(0)


def cancel(n: int) -> None:
    for _ in range(n):
        task = gevent.spawn(gevent.sleep, LONG)
        gevent.sleep(0)
        task.kill()


def lock(n: int) -> list[int]:
    mutex = gevent.lock.Semaphore(1)  # cheaper than its other locks
    order: list[int] = []

    def locker(number: int) -> None:
        for _ in range(n // LOCKERS):
            with mutex:
                order.append(number)
                gevent.sleep(0)
            gevent.sleep(0)  # else who released it would take it again, before all who wait for it

    gevent.joinall([gevent.spawn(locker, number) for number in range(LOCKERS)])
    return order


def thread(n: int) -> None:
    pool = gevent.get_hub().threadpool
    for _ in range(n):
        pool.spawn(nothing).get()


def event(n: int, mark: Callable[[], None]) -> None:
    happened = gevent.event.Event()
    mark()
    tasks = [gevent.spawn(happened.wait) for _ in range(n)]
    gevent.sleep(0)
    mark()
    happened.set()
    gevent.joinall(tasks)
    mark()


def shutdown(n: int, mark: Callable[[], None]) -> None:
    mark()
    tasks = [gevent.spawn(gevent.sleep, LONG) for _ in range(n)]
    gevent.sleep(0)
    mark()
    gevent.killall(tasks)
    mark()
