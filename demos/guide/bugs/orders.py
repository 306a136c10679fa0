"""Two customers order. Each order is checked and packed, and then a letter is sent."""

from corolib import Coro, Sleep, run, spawn
from corolib.trace import mark


def check(order: int) -> Coro[None]:
    yield Sleep(0.001)
    mark("checked", order=order)


def send_letter(order: int) -> Coro[None]:
    yield Sleep(0.002)
    mark("letter sent", order=order)


def pack(order: int) -> Coro[None]:
    yield Sleep(0.001)
    mark("packed", order=order)


def customer(order: int) -> Coro[None]:
    yield from check(order)
    yield from pack(order)
    send_letter(order)
    mark("all is done", order=order)


def shop() -> Coro[None]:
    for task in [spawn(customer, order) for order in (1, 2)]:
        yield from task


if __name__ == "__main__":
    run(shop)
