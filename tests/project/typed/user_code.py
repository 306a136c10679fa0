"""Code as users write it, for type checkers alone: a line with `# error` has one, no other has.

`test_types.py` runs the checkers, in their strict modes.
"""

from typing import assert_type

from corolib import (
    Coro,
    Lock,
    Queue,
    Sleep,
    Task,
    TaskGroup,
    as_completed,
    every,
    first_success,
    gather,
    map_concurrent,
    move_on_after,
    race,
    run,
    spawn,
    timeout,
)


def fetch(host: str, port: int = 80) -> Coro[bytes]:
    with timeout(5):
        yield
        return host.encode() * port


async def count(n: int) -> int:
    await Sleep(1)
    return n


@timeout(5)
def bounded(x: str) -> Coro[float]:
    yield
    return float(x)


def spawns() -> Coro[None]:
    assert_type(spawn(fetch, "h"), Task[bytes])
    assert_type(spawn(fetch, "h", 1), Task[bytes])
    assert_type(spawn(fetch("h", port=1)), Task[bytes])
    assert_type(spawn(count, 1), Task[int])
    assert_type((yield from spawn(bounded, "1")), float)
    queue: Queue[str] = Queue(1)
    assert_type((yield from queue.get()), str)
    spawn(queue.put, "x")
    spawn(queue.put, 3)  # error
    spawn(fetch)  # error
    spawn(fetch, 1)  # error
    spawn(fetch, "h", 1, 2)  # error
    spawn(fetch, "h", port=1)  # error
    spawn(len, "h")  # error
    spawn(3)  # error


def several() -> Coro[None]:
    a, b = yield from gather(fetch("h"), count(1))
    assert_type(a, bytes)
    assert_type(b, int)
    assert_type((yield from gather(*[count(1)])), list[int])
    outcomes = yield from gather(count(1), fetch("h"), return_exceptions=True)
    assert_type(outcomes, tuple[int | BaseException, bytes | BaseException])
    assert_type((yield from race(fetch("h"), count(1))), tuple[int, bytes | int])
    assert_type((yield from first_success(count(1), count(2), stagger=1)), tuple[int, int])
    for step in as_completed(count(1), count(2)):
        assert_type((yield from step), int)
    assert_type((yield from map_concurrent(fetch, ["a"], limit=2)), list[bytes])
    yield from map_concurrent(fetch, [1], limit=2)  # error
    yield from gather(fetch)  # error
    for tick in every(1):
        assert_type((yield from tick), int)


def blocks(lock: Lock) -> Coro[str]:
    with move_on_after(5) as scope:
        scope.deadline = None
        scope.deadline += 1
        scope.cancel("enough")
        scope.deadline = "soon"  # error
    with TaskGroup() as g:
        assert_type(g.spawn(count, 1), Task[int])
        g.spawn(count, "x")  # error
        yield from g
    with (yield from lock):
        pass
    with lock:
        return "no error here: it is one that is raised"


assert_type(run(fetch, "h"), bytes)
run(fetch, "h", banana=1)  # error
run(fetch, 1)  # error
