"""Code as users write it, for type checkers alone: a line with `# error` has one, no other has.

`test_types.py` runs the checkers, in their strict modes.
"""

from socket import socket
from typing import assert_type

from corolib import (
    Barrier,
    CancelScope,
    Condition,
    Coro,
    Event,
    Handler,
    Listener,
    Lock,
    Network,
    Process,
    Queue,
    ReadWait,
    Semaphore,
    Server,
    SignalReceiver,
    Sleep,
    StopReport,
    Stream,
    Subscription,
    Suspend,
    Task,
    TaskGroup,
    Topic,
    WorkerReport,
    as_completed,
    current_effective_deadline,
    every,
    first,
    first_success,
    gather,
    map_concurrent,
    move_on_after,
    race,
    run,
    serve_tcp,
    spawn,
    timeout,
    waits,
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


def waits_for_one(queue: Queue[str], event: Event, lock: Lock, sock: socket) -> Coro[None]:
    get = queue.getting()
    assert_type((yield from first(get, get)), tuple[int, str])
    assert_type((yield from first(get, event.waiting())), tuple[int, str | None])
    assert_type((yield from first(get, Sleep(1))), tuple[int, str | None])
    assert_type((yield from first(ReadWait(sock), Sleep(1))), tuple[int, None])
    assert_type((yield from first(get, ReadWait(sock), Sleep(1))), tuple[int, str | None])
    assert_type((yield from first(*[get, get])), tuple[int, str])
    numbers: Suspend[int] = Suspend(lambda wake: event.clear, "a number")
    assert_type((yield from first(get, numbers, get, Sleep(1))), tuple[int, str | int | None])
    first(queue.get())  # error
    first(get, lock)  # error
    first(get, 1.5)  # error


async def awaited(queue: Queue[str], lock: Lock, news: Topic[bytes]) -> float:
    assert_type(await queue.get(), str)
    assert_type(await gather(fetch("h"), count(1)), tuple[bytes, int])
    assert_type(await race(count(1), count(2)), tuple[int, int])
    assert_type(await first(queue.getting(), Sleep(1)), tuple[int, str | None])
    assert_type(await spawn(fetch, "h"), bytes)
    async with lock, TaskGroup() as g:
        assert_type(g.spawn(fetch, "h"), Task[bytes])
    async for item in queue:
        assert_type(item, str)
    with news.subscribe() as subscription:
        assert_type(subscription, Subscription[bytes])
        assert_type(await subscription.get(), bytes)
    return await halved(2)


@move_on_after(5)
async def halved(x: int) -> float:
    await Sleep(1)
    return x / 2


@waits
def doubled(x: int) -> Coro[int]:
    yield
    return 2 * x


def decorated() -> Coro[None]:
    assert_type((yield from bounded("1")), float)
    assert_type((yield from spawn(halved, 1)), float)
    assert_type((yield from doubled(1)), int)
    bounded(1)  # error
    halved("x")  # error
    doubled("x")  # error
    timeout("5")  # error
    every("1")  # error


def echo(stream: Stream) -> Coro[None]:
    yield from stream.sendall((yield from stream.recv(100)))


def ends(server: Server, process: Process, signals: SignalReceiver) -> Coro[WorkerReport | int]:
    report: StopReport = yield from server.stop(grace=1)
    assert_type(report.finished, int)
    assert_type((yield from signals), int)
    assert_type((yield from process.wait()), int)
    return report.finished


def serves(listener: Listener, handler: Handler, network: Network) -> None:
    assert_type(listener.serve(echo), Server)
    listener.serve(handler, max_connections=3)
    listener.serve(fetch)  # error
    listener.serve(echo, max_conn=3)  # error
    run(serve_tcp, echo, "127.0.0.1", 7007, network=network)
    spawn(serve_tcp, echo, "127.0.0.1", "80", 3)  # error


def meets(barrier: Barrier) -> Coro[int]:
    barrier.abort()
    barrier.reset()
    if barrier.broken:
        barrier.abort("why")  # error
    place = yield from barrier.wait()
    assert_type(place, int)
    assert_type(current_effective_deadline(), float)
    return place


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
    with CancelScope() as block:
        assert_type(block.cancelled_caught, bool)
        block.cancel("any", "more")  # error
    with (yield from lock) as nothing:
        assert_type(nothing, None)
    with (yield from Lock()):
        pass
    with (yield from Semaphore(2)), (yield from Condition()):
        pass
    with lock:
        return "no error here: it is one that is raised"


assert_type(run(fetch, "h"), bytes)
run(fetch, "h", banana=1)  # error
run(fetch, 1)  # error
