"""Money is moved between two accounts, in both directions, and each account has a lock."""

from corolib import Coro, Lock, Sleep, run, spawn
from corolib.trace import mark


class Account:
    def __init__(self, owner: str, money: int) -> None:
        self.owner = owner
        self.money = money
        self.lock = Lock(owner)


def transfer(giver: Account, taker: Account, money: int) -> Coro[None]:
    with (yield from giver.lock):
        yield Sleep(0.001)  # the bank looks whether there is enough
        with (yield from taker.lock):
            giver.money -= money
            taker.money += money
            mark("moved", money=money)


def bank() -> Coro[None]:
    ann, bob = Account("ann", 100), Account("bob", 100)
    spawn(transfer, ann, bob, 10, name="to_bob")
    spawn(transfer, bob, ann, 20, name="to_ann")
    yield


if __name__ == "__main__":
    run(bank)
