"""Queues: Queue, PriorityQueue, LifoQueue. An item that is put goes to one task.

    yield from queue.put(x)             waits while the queue is full
    x = yield from queue.get()          waits while it is empty
    yield from queue.join()             until each item that was put was reported as done

First come, first served: an item goes from `put` to the first that waits in `get` there and then,
and what is taken out makes room for the first that waits in `put`. A cancelled `put` has put
nothing, a cancelled `get` has taken nothing.

`queue.getting()`, `queue.putting(x)` return the trap itself, for `first`. None of these may be
used from another thread: that is what `ThreadEnd` in `threads.py` is for. What gives one item to
many tasks is in `topics.py`.
"""

from __future__ import annotations

import math
import queue
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from functools import partial
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

from corolib.coordination.waitqueue import Waitable, WaitQueue, enqueue, nothing, wake_all
from corolib.kernel import (
    Suspend,
    Wake,
    asks,
    check_count,
    class_name,
    in_queue,
    must_yield,
    public,
    serve,
    waits,
    with_trace,
)

T = TypeVar("T")
Items = deque[Any] | list[Any]
Store = tuple[Items, Callable[[Any], object], Callable[[], Any]]


class Unsaid:
    """The default of what must be said, as `help()` shows it."""

    def __repr__(self) -> str:
        return "<must be given>"


UNSAID: Any = Unsaid()


@public
class QueueEmpty(queue.Empty):
    """Raised by `get_nowait()` when the queue has no item."""


@public
class QueueFull(queue.Full):
    """Raised by `put_nowait()` when the queue has no room."""


@public
class QueueShutDown(Exception):
    """Raised by `put` and `get` of a queue that was shut down; by `get` when no item is left."""


def check_size(size: float, kind: str, least: int) -> float:
    """Return the size of a queue or topic, or raise what is wrong with it."""
    if size is UNSAID:
        raise TypeError(
            f"{kind}() needs a size: `{kind}(10)`, or `{kind}(math.inf)` for one without bound"
        )
    if size == math.inf:
        return size
    return check_count(size, f"{kind}()", least, "math.inf or ")  # type: ignore[arg-type]


class Closable(Waitable):
    """What queues and topics share: they can be shut down."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._shut = False

    @property
    def is_shut(self) -> bool:
        """Whether `shutdown()` was called."""
        return self._shut

    def _check_open(self) -> None:
        if self._shut:
            raise self._end()

    def _end(self) -> QueueShutDown:
        return QueueShutDown(f"{self.title()} was shut down; to end there: `except QueueShutDown`")


@public
class Queue(Closable, Generic[T]):
    """A queue of at most `size` items between tasks: first in, first out.

    The size must be said: 0 is a rendezvous, where `put` waits until somebody gets the item;
    `math.inf` is without bound, where `put` never waits, and a consumer that is too slow costs
    memory. (The queues of the standard library mean "without bound" by 0.)

    Args:
        size: how many items there is room for.
        name: for reports.

    Raises:
        ValueError, TypeError: `size` is negative, or is no whole number and not `math.inf`.

    Example:
        >>> import corolib
        >>> def produce(queue):
        ...     for item in "abc":
        ...         yield from queue.put(item)
        ...     queue.shutdown()
        >>> def main():
        ...     queue, got = corolib.Queue(1), ""
        ...     corolib.spawn(produce, queue)
        ...     while True:
        ...         try:
        ...             got += yield from queue.get()
        ...         except corolib.QueueShutDown:
        ...             return got
        >>> corolib.run(main)
        'abc'

    Source: queue.Queue and its `shutdown` (Python 3.13); size 0 from C. A. R. Hoare,
    "Communicating Sequential Processes" (1978).
    """

    def __init__(self, size: float = UNSAID, name: str = "") -> None:
        super().__init__(name)
        self.size = check_size(size, class_name(self), 0)
        self._items, self._push, self._pop = self._store()
        # While a getter waits there is no item, and while a putter waits there is no room.
        self._getters = self._waiting
        self._putters: WaitQueue = OrderedDict()
        self._joiners: WaitQueue = OrderedDict()
        self._unfinished = 0

    def _store(self) -> Store:
        """Return what the items are kept in, and how one is put there and taken out."""
        items: deque[Any] = deque()
        return items, items.append, items.popleft

    @property
    def waiters(self) -> int:
        """How many tasks wait for it: to get, to put, to join."""
        return len(self._getters) + len(self._putters) + len(self._joiners)

    def __len__(self) -> int:
        """Return the number of items that can be had without a putter's help."""
        return len(self._items)

    def __bool__(self) -> bool:
        """A queue is true, also an empty one."""
        return True

    @asks
    def qsize(self) -> int:
        """Return the number of items, as `len(queue)` does."""
        return len(self._items)

    @asks
    def empty(self) -> bool:
        """Return whether there is no item to get at once."""
        return not (self._items or self._putters)

    @asks
    def full(self) -> bool:
        """Return whether an item cannot be put at once."""
        return not self._getters and len(self._items) >= self.size

    # Without waiting.

    def put_nowait(self, item: T) -> None:
        """Put an item into the queue, or raise; does not wait.

        Raises:
            QueueFull: there is no room; with size 0: nobody waits for an item.
            QueueShutDown: the queue was shut down.
        """
        self._check_open()
        if not (self._getters or len(self._items) < self.size):
            raise QueueFull(f"{self!r} has no room: `yield from queue.put(item)` waits for it")
        self._put(item)

    def get_nowait(self) -> T:
        """Take an item from the queue, or raise; does not wait.

        Raises:
            QueueEmpty: there is none.
            QueueShutDown: there is none, and there will be none: the queue was shut down.
        """
        if not (self._items or self._putters):
            self._check_open()
            raise QueueEmpty(f"{self!r} has no item: `yield from queue.get()` waits for one")
        return self._get()

    def task_done(self) -> None:
        """Say that an item that was got is dealt with; when all are, `join()` returns.

        Raises:
            ValueError: called more often than items were put.
        """
        if self._unfinished == 0:
            raise ValueError(f"task_done() was called more often than items were put into {self!r}")
        self._forget(1)

    def shutdown(self, immediate: bool = False) -> None:
        """Take no more items: `put` raises `QueueShutDown` from now on, `get` when none is left.

        Those who wait in vain get it at once. Calling it again is no mistake.

        Args:
            immediate: also throw away the items that are in the queue.
        """
        self._shut = True
        if immediate:
            thrown_away = len(self._items)
            self._items.clear()
            self._forget(thrown_away)
        wake_all(self._putters, error=self._end)
        wake_all(self._getters, error=self._end)

    # Waiting.

    def putting(self, item: T) -> Suspend[None]:
        """Return the trap that puts `item` into the queue, for `first`."""
        return Suspend(lambda wake: self._arm_put(item, wake), ("put into", self))

    def getting(self) -> Suspend[T]:
        """Return the trap that takes an item from the queue, for `first`."""
        return Suspend(self._arm_get, ("get from", self))

    @waits
    def put(self, item: T) -> Generator[Any, Any, None]:
        """Wait until the item is in the queue, or in somebody's hands.

        Raises:
            QueueShutDown: the queue was shut down, before or during the wait.
            Cancelled: the wait was cancelled; the item was not put.
        """
        room = self._getters or len(self._items) < self.size
        if room and not (self._shut or must_yield()):
            self._put(item)
        elif room or self._shut:
            yield self.putting(item)
        else:
            yield in_queue(self._putters, partial(self.putting, item), item)

    @waits
    def get(self) -> Generator[Any, Any, T]:
        """Wait for an item and take it.

        Raises:
            QueueShutDown: no item is left, and the queue was shut down, before or during the wait.
            Cancelled: the wait was cancelled; nothing was taken.
        """
        there = self._items or self._putters
        if there and not must_yield():
            return self._get()
        item: T
        if there or self._shut:
            item = yield self.getting()
        else:
            item = yield in_queue(self._getters, self.getting)
        return item

    @waits
    def join(self) -> Generator[Any, Any, None]:
        """Wait until `task_done()` was called for each item that was put.

        Raises:
            Cancelled: the wait was cancelled.
        """
        if self._unfinished or must_yield():
            yield Suspend(self._arm_join, ("join", self))

    def __aiter__(self) -> Queue[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.get()
        except QueueShutDown:
            raise StopAsyncIteration from None

    # Inside.

    def _put(self, item: T) -> None:
        """Put an item where there is room, or a getter."""
        if self._getters:
            waiter, _ = self._getters.popitem(last=False)
            serve(waiter, item)
        else:
            push = self._push
            push(item)
        self._unfinished += 1

    def _get(self) -> T:
        """Take an item where there is one, or a putter; and let in the first that waits for room.

        One is let in before the item is taken only at a rendezvous.
        """
        item: T
        # Called as a method, it would be looked up the slow way; so would `_push`.
        pop = self._pop
        if not self._putters:
            item = pop()
        elif self._items:
            item = pop()
            self._let_in()
        else:
            waiter, item = self._putters.popitem(last=False)
            self._unfinished += 1
            serve(waiter)
        return item

    def _let_in(self) -> None:
        """Give the room of one item to the first putter whose item can be put.

        What a comparison raises is the fault of the item that is put, and goes to its putter.
        """
        push = self._push
        while self._putters:
            waiter, item = self._putters.popitem(last=False)
            try:
                push(item)
            except BaseException as exc:
                # Its traceback leads to the getter, which would be a cycle.
                serve(waiter, error=with_trace(exc, None))
            else:
                self._unfinished += 1
                serve(waiter)
                return

    def _arm_put(self, item: T, wake: Wake) -> Callable[[], object]:
        if self._shut:
            raise self._end()
        if self._getters or len(self._items) < self.size:
            self._put(item)
            wake()
            return nothing
        return enqueue(self._putters, wake, item)

    def _arm_get(self, wake: Wake) -> Callable[[], object]:
        if self._items or self._putters:
            wake(self._get())
            return nothing
        if self._shut:
            raise self._end()
        return enqueue(self._getters, wake)

    def _arm_join(self, wake: Wake) -> Callable[[], object]:
        if self._unfinished == 0:
            wake()
            return nothing
        return enqueue(self._joiners, wake)

    def _forget(self, count: int) -> None:
        """Note that so many items are dealt with, and wake the joiners if those were the last.

        There may be fewer: `task_done()` may have been called beforehand for what nobody got.
        """
        self._unfinished = max(0, self._unfinished - count)
        if self._unfinished == 0:
            wake_all(self._joiners)

    def _state(self) -> str:
        size = "any number of" if self.size == math.inf else self.size
        shut = ", shut down" if self._shut else ""
        return f"{len(self._items)} of {size} items{shut}"


@public
class PriorityQueue(Queue[T]):
    """A queue that gives the least of its items first; items are compared with `<`.

    An item goes to a task that waits for one without being compared. To keep equal ones in order,
    put `(priority, count, item)`. When items cannot be compared, `put` or `get` raises what the
    comparison did, whichever makes it. What is in the queue then is undefined.

    Args:
        size, name: see `Queue`.

    Example:
        >>> import corolib
        >>> def main():
        ...     queue = corolib.PriorityQueue(10)
        ...     for item in (3, 1, 2):
        ...         yield from queue.put(item)
        ...     return queue.get_nowait()
        >>> corolib.run(main)
        1

    Source: queue.PriorityQueue.
    """

    def _store(self) -> Store:
        items: list[Any] = []
        return items, partial(heappush, items), partial(heappop, items)


@public
class LifoQueue(Queue[T]):
    """A queue that gives the item first that was put last: a stack.

    Args:
        size, name: see `Queue`.

    Example:
        >>> import corolib
        >>> def main():
        ...     queue = corolib.LifoQueue(10)
        ...     for item in (1, 2, 3):
        ...         yield from queue.put(item)
        ...     return queue.get_nowait()
        >>> corolib.run(main)
        3

    Source: queue.LifoQueue.
    """

    def _store(self) -> Store:
        items: list[Any] = []
        return items, items.append, items.pop
