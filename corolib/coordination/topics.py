"""Topics: one item, many subscribers.

    with topic.subscribe() as news:         a queue of one's own, `news`
        item = yield from news.get()
    yield from topic.publish(item)          waits while a subscriber has no room

What happens when a subscriber's queue is full, the topic says. What a queue does by itself is in
`queues.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from corolib.coordination.queues import Closable, Queue, check_size
from corolib.coordination.waitqueue import enqueue, nothing, wake_all
from corolib.kernel import (
    Block,
    Suspend,
    Wake,
    brief,
    class_name,
    in_queue,
    must_yield,
    public,
    serve,
    waits,
)

T = TypeVar("T")


@public
class Subscription(Queue[T]):
    """A subscriber's own queue, which a topic fills; made by `Topic.subscribe`.

    `dropped` counts the items that were thrown away for being too old.
    """

    def __init__(self, topic: Topic[T]) -> None:
        super().__init__(topic.size, topic.name)
        self._topic = topic
        self.dropped = 0

    def has_room(self) -> bool:
        """Return whether the next item that is published can be put."""
        return len(self._items) < self.size or bool(self._getters)

    def give(self, item: T) -> None:
        """Put what is published; the oldest, if it must go for that, counts as dealt with."""
        if self._topic.overflow == "drop_old" and not self.has_room():
            self._pop()
            self.dropped += 1
            self._forget(1)
        self._put(item)

    def shutdown(self, immediate: bool = False) -> None:
        """Take no more news: the topic goes on without this subscriber. See `Queue.shutdown`."""
        self._topic.leave(self)
        super().shutdown(immediate)

    def _get(self) -> T:
        item = super()._get()
        self._topic.look_at(self)
        self._topic.let_in()
        return item


@public
class Topic(Closable, Generic[T]):
    """News for any number of subscribers: each gets every item published while it is subscribed.

    with topic.subscribe() as news:
        item = yield from news.get()

    Subscriptions are queues: `get`, `getting`, `get_nowait`, `async for`. A subscription lasts from
    the beginning of its block to the end. After that publishing does not wait for it. All
    subscribers get the items in the same order. Without a subscriber, publishing succeeds, and the
    item is dropped.

    Args:
        size: how many items a subscriber may be behind, at least 1.
        overflow: what becomes of an item for which one of them has no room. "wait": publishing
            waits, for the slowest; "drop_old": the subscriber loses its oldest, and counts it in
            `dropped`.
        name: for reports.

    Raises:
        TypeError, ValueError: another `overflow`, or a bad size.

    Example:
        >>> import corolib
        >>> def listen(topic):
        ...     with topic.subscribe() as news:
        ...         return (yield from news.get())
        >>> def main():
        ...     topic = corolib.Topic(1)
        ...     tasks = [corolib.spawn(listen, topic) for _ in range(2)]
        ...     yield
        ...     yield from topic.publish("rain")
        ...     received = []
        ...     for task in tasks:
        ...         received.append((yield from task))
        ...     return received
        >>> corolib.run(main)
        ['rain', 'rain']

    Source: the broadcast channels of tokio; "drop_old" as ROS 2's keep-last.
    """

    def __init__(
        self, size: float, overflow: Literal["wait", "drop_old"] = "wait", name: str = ""
    ) -> None:
        if overflow not in ("wait", "drop_old"):
            raise ValueError(f'overflow={brief(overflow)}: give "wait" or "drop_old"')
        super().__init__(name)
        self.size = check_size(size, class_name(self), 1)
        self.overflow = overflow
        self._shut = False
        self._subscriptions: dict[Subscription[T], None] = {}
        # Those without room are kept, so that no `get` has to look at all subscriptions.
        self._full: set[Subscription[T]] = set()

    def subscribe(self) -> Block[Subscription[T]]:
        """Subscribe for the length of a block; does not wait: `with topic.subscribe() as news:`.

        Raises (at the `with`):
            QueueShutDown: the topic was shut down.
        """
        news = Subscription(self)
        return Block(partial(self._admit, news), partial(news.shutdown, immediate=True))

    def _admit(self, news: Subscription[T]) -> Subscription[T]:
        self._check_open()
        self._subscriptions[news] = None
        self.look_at(news)
        return news

    def publishing(self, item: T) -> Suspend[None]:
        """Return the trap that publishes `item`, for `first`."""
        return Suspend(partial(self._arm, item), ("publish in", self))

    @waits
    def publish(self, item: T) -> Generator[Any, Any, None]:
        """Wait until all subscribers have room for `item`, and give it to all of them at once.

        Raises:
            QueueShutDown: the topic was shut down, before or during the wait.
            Cancelled: the wait was cancelled; nobody got the item.
        """
        if not self._takes():
            yield in_queue(self._waiting, partial(self.publishing, item), item)
        elif must_yield():
            yield self.publishing(item)
        else:
            self._publish(item)

    def shutdown(self) -> None:
        """Publish nothing any more. Subscribers may take what they have; then `get` raises."""
        self._shut = True
        wake_all(self._waiting, error=self._end)
        for news in list(self._subscriptions):
            news.shutdown()

    def leave(self, news: Subscription[T]) -> None:
        """Go on without a subscriber."""
        self._subscriptions.pop(news, None)
        self._full.discard(news)
        self.let_in()

    def look_at(self, news: Subscription[T]) -> None:
        """Note whether a subscriber has room."""
        if news.has_room() or news not in self._subscriptions:
            self._full.discard(news)
        else:
            self._full.add(news)

    def let_in(self) -> None:
        """Publish what has waited for room, as long as all subscribers have some."""
        while self._waiting and not self._full:
            waiter, item = self._waiting.popitem(last=False)
            self._publish(item)
            serve(waiter)

    def _takes(self) -> bool:
        """Return whether an item can be published now."""
        self._check_open()
        return self.overflow == "drop_old" or not (self._waiting or self._full)

    def _publish(self, item: T) -> None:
        for news in list(self._subscriptions):
            news.give(item)
            self.look_at(news)

    def _arm(self, item: T, wake: Wake) -> Callable[[], object]:
        if self._takes():
            self._publish(item)
            wake()
            return nothing
        return enqueue(self._waiting, wake, item)

    def _state(self) -> str:
        shut = ", shut down" if self._shut else ""
        return f"with {len(self._subscriptions)} subscribers{shut}"
