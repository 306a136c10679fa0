"""Programs made at random, the same for the same seed: tasks that do a little of everything."""

import random
import socket
from collections.abc import Callable
from typing import Any

from corolib import (
    Cancelled,
    Coro,
    Event,
    Lock,
    Queue,
    ReadWait,
    Sleep,
    Task,
    TaskGroup,
    WriteWait,
    current_scheduler,
    first,
    move_on_after,
    shield,
    spawn,
)

DEEPEST = 3
LONGEST = 6  # things that one task does
FIRST = 3  # children of main to begin with
MOST = 25  # tasks


class World:
    """What the tasks of a program share."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.locks = [Lock("a"), Lock("b"), Lock()]
        self.queues: list[Queue[int]] = [Queue(0, "direct"), Queue(1), Queue(3, "wide")]
        self.event = Event("go")
        self.tasks: list[Task[Any]] = []
        self.pair = socket.socketpair()
        for end in self.pair:
            end.setblocking(False)

    def close(self) -> None:
        for end in self.pair:
            end.close()


def program(seed: int) -> Callable[[], Coro[None]]:
    """Return the main function of the program number `seed`. It may fail, or lock up."""

    def main() -> Coro[None]:
        world = World(seed)
        try:
            for _ in range(FIRST):
                yield from have_child(world, 0)
            yield from life(world, 0)
        finally:
            world.close()

    return main


def life(world: World, depth: int) -> Coro[None]:
    """Do some things, each for as long as it takes or for two seconds."""
    for _ in range(world.random.randint(1, LONGEST)):
        with move_on_after(2):
            yield from world.random.choice(DEEDS)(world, depth)


def give_way(world: World, depth: int) -> Coro[None]:
    yield


def sleep(world: World, depth: int) -> Coro[None]:
    yield Sleep(world.random.choice([0, 0.1, 0.5, 1, 10]))


def have_child(world: World, depth: int) -> Coro[None]:
    if depth < DEEPEST and len(world.tasks) < MOST:
        daemon = world.random.random() < 0.2
        world.tasks.append(spawn(life, world, depth + 1, daemon=daemon))
    if world.random.random() < 0.3:
        yield


def join(world: World, depth: int) -> Coro[None]:
    if world.tasks:
        try:
            yield from world.random.choice(world.tasks)
        except Exception:
            pass


def cancel(world: World, depth: int) -> Coro[None]:
    if world.tasks:
        world.random.choice(world.tasks).cancel(world.random.choice([None, "enough"]))
    if world.random.random() < 0.5:
        yield


def lock(world: World, depth: int) -> Coro[None]:
    with (yield from world.random.choice(world.locks)):
        yield from world.random.choice([sleep, give_way, lock_another])(world, depth)


def lock_another(world: World, depth: int) -> Coro[None]:
    one = world.random.choice(world.locks)
    if not one.holders():
        with (yield from one):
            yield


def put(world: World, depth: int) -> Coro[None]:
    yield from world.random.choice(world.queues).put(depth)


def get(world: World, depth: int) -> Coro[None]:
    yield from world.random.choice(world.queues).get()


def raise_the_flag(world: World, depth: int) -> Coro[None]:
    world.event.set()
    yield
    world.event.clear()


def wait_for_the_flag(world: World, depth: int) -> Coro[None]:
    yield from world.event.wait()


def several(world: World, depth: int) -> Coro[None]:
    queue = world.random.choice(world.queues)
    yield from first(queue.getting(), world.event.waiting(), Sleep(0.7))


def group(world: World, depth: int) -> Coro[None]:
    if depth < DEEPEST and len(world.tasks) < MOST:
        with TaskGroup() as g:
            for _ in range(2):
                world.tasks.append(g.spawn(life, world, depth + 1))
            yield from g


def write(world: World, depth: int) -> Coro[None]:
    with shield():
        yield WriteWait(world.pair[0])
        world.pair[0].send(b"x")


def read(world: World, depth: int) -> Coro[None]:
    yield ReadWait(world.pair[1])
    try:
        world.pair[1].recv(10)
    except BlockingIOError:
        pass


def fail(world: World, depth: int) -> Coro[None]:
    if world.random.random() < 0.2:
        raise ValueError("at random")
    yield


def clean_up(world: World, depth: int) -> Coro[None]:
    try:
        yield Sleep(1)
    except Cancelled:
        yield Sleep(0.2)
        raise


def call(world: World, depth: int) -> Coro[None]:
    current_scheduler().call_soon_threadsafe(world.event.set)
    yield


DEEDS: list[Callable[[World, int], Coro[None]]] = [
    *(give_way, sleep, sleep, have_child, have_child, join, cancel, lock, lock, put, get),
    *(raise_the_flag, wait_for_the_flag, several, group, write, read, fail, clean_up, call),
]
