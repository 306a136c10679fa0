"""Three cashiers put what they take into one till. In the end it should have 60."""

from corolib import Coro, Sleep, run, spawn
from corolib.trace import mark

till = {"total": 0}


def cashier(price: int) -> Coro[None]:
    for _ in range(2):
        total = till["total"]
        yield Sleep(0.002)  # the card reader takes its time
        till["total"] = total + price
        mark("the till is closed", total=till["total"])


def evening() -> Coro[None]:
    till["total"] = 0
    for task in [spawn(cashier, 10) for _ in range(3)]:
        yield from task
    mark("in the end", total=till["total"])


if __name__ == "__main__":
    run(evening)
    print(till["total"])
