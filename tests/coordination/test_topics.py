"""Topics: one item, many subscribers; who waits for whom, and what a slow one loses."""

import math

import pytest

from corolib import QueueShutDown, Sleep, Topic, first, spawn
from corolib.coordination.topics import Subscription
from corolib.testing import survivors
from tests.helpers.driving import get_all, go

pytestmark = pytest.mark.corolib(clock="virtual")


def listen(topic, got):
    with topic.subscribe() as news:
        yield from get_all(news, got)


def put_all_in(topic, items):
    for item in items:
        yield from topic.publish(item)


@pytest.mark.parametrize("size", [0, 1, math.inf])
def test_every_subscriber_gets_every_item_in_the_same_order(size):
    topic = Topic(1)
    heard = [[] for _ in range(3)]
    ears = [spawn(listen, topic, got) for got in heard]
    yield
    yield from survivors([spawn(put_all_in, topic, range(n, n + 20)) for n in (0, 100)])
    topic.shutdown()
    yield from survivors(ears)
    assert sorted(heard[0]) == [*range(20), *range(100, 120)]
    assert heard[0] == heard[1] == heard[2]


def test_publishing_waits_for_the_slowest_and_no_longer_for_who_has_left():
    topic, got = Topic(1, name="t"), []
    spawn(listen, topic, got)
    assert repr(topic) == "<Topic t with 0 subscribers>"

    def slow():
        with topic.subscribe():
            yield Sleep(10)

    task = spawn(slow)
    yield
    publisher = spawn(put_all_in, topic, range(5))
    yield Sleep(1)
    assert got == [0]
    assert repr(topic) == "<Topic t with 2 subscribers, 1 waiting>"
    task.cancel()
    yield from publisher
    topic.shutdown()
    yield
    yield
    with pytest.raises(QueueShutDown, match="<Topic t> was shut down"):
        yield from topic.publish(1)
    with pytest.raises(QueueShutDown), topic.subscribe():
        raise AssertionError("no news")
    assert (got, repr(topic)) == ([0, 1, 2, 3, 4], "<Topic t with 0 subscribers, shut down>")


def test_a_cancelled_publisher_has_published_nothing():
    topic = Topic(1)
    with topic.subscribe() as news:
        yield from topic.publish(1)
        task = spawn(topic.publish(2))
        yield
        yield from task.stop()
        assert (yield from first(topic.publishing(3), Sleep(1))) == (1, None)
        assert (yield from news.get()) == 1
        assert (yield from first(topic.publishing(4), Sleep(1))) == (0, None)
        assert (yield from news.get()) == 4
        assert (len(news), topic.waiters) == (0, 0)


def test_with_drop_old_a_slow_subscriber_loses_its_oldest():
    topic = Topic(2, "drop_old")
    with topic.subscribe() as news, topic.subscribe() as other:
        for n in range(5):
            yield from topic.publish(n)
            assert other.get_nowait() == n
            other.task_done()
        got = [news.get_nowait(), news.get_nowait()]
        assert other.dropped == 0
        yield from other.join()
        assert (got, news.dropped) == ([3, 4], 3)


def test_a_subscriber_may_say_done_before_it_gets_and_publishers_go_on():
    topic = Topic(2, "drop_old")
    with topic.subscribe() as news:
        for n in range(2):
            yield from topic.publish(n)
            news.task_done()  # before it was got
        yield from topic.publish(2)  # drops an item that is counted as done
        assert news.dropped == 1
        joiner = spawn(news.join())
        yield
        assert not joiner.done
        news.task_done()
        yield from joiner
        assert (news.get_nowait(), news.get_nowait()) == (1, 2)


def test_what_a_subscriber_does_is_no_work_for_the_number_of_the_others(monkeypatch):
    looks = 0

    def main():
        topic = Topic(1)
        heard = [[] for _ in range(100)]
        ears = [spawn(listen, topic, got) for got in heard]
        yield
        yield from put_all_in(topic, range(5))
        topic.shutdown()
        yield from survivors(ears)
        return heard

    def counted(self):
        nonlocal looks
        looks += 1
        return has_room(self)

    has_room = Subscription.has_room
    monkeypatch.setattr(Subscription, "has_room", counted)
    assert go(main) == [[0, 1, 2, 3, 4]] * 100
    assert looks <= 100 * 5 * 4


def test_a_subscriber_may_end_its_subscription_inside_the_block():
    topic = Topic(1)
    with topic.subscribe() as news:
        yield from topic.publish("kept")
        task = spawn(topic.publish("missed"))
        yield
        news.shutdown()
        yield from task
        got = []
        yield from get_all(news, got)
        assert got == ["kept"]


def test_a_topic_that_ends_tells_publishers_and_subscribers():
    def main():
        topic, got = Topic(1), []
        with topic.subscribe() as news:
            publisher = spawn(put_all_in, topic, range(3))
            yield
            topic.shutdown()
            with pytest.raises(QueueShutDown):
                yield from publisher
            yield from get_all(news, got)
        return got

    assert go(main, on_task_error=lambda task, exc: None) == [0]


def test_a_topic_has_one_of_two_ways_with_an_overflow():
    with pytest.raises(ValueError, match='give "wait" or "drop_old"'):
        Topic(1, "drop_new")


def test_a_topic_keeps_at_least_one_item():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Topic(0)
