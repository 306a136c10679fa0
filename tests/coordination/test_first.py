"""The choice between several waits: exactly one is taken, and the others were never made."""

import math
import socket
import threading

import pytest

from corolib import (
    Barrier,
    BusyError,
    ClosedError,
    Deadlock,
    Event,
    Queue,
    ReadWait,
    Sleep,
    Suspend,
    TaskCancelled,
    WriteWait,
    close,
    current_scheduler,
    current_task,
    first,
    move_on_after,
    now,
    run,
    spawn,
    timeout,
)
from tests.helpers.driving import go, in_a_thread, lose, names, sleeper
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import entries_of, timers_of, timers_set


class Items:
    """A queue of waiters and items, as a primitive over `Suspend` is."""

    def __init__(self, *items):
        self.items = list(items)
        self.waiters = {}
        self.undone = 0

    def getting(self, **options):
        return Suspend(self.arm, "an item", **options)

    def arm(self, wake):
        if self.items:
            wake(self.items.pop(0))
        else:
            self.waiters[wake] = None
        return lambda: self.undo(wake)

    def undo(self, wake):
        del self.waiters[wake]
        self.undone += 1

    def put(self, item):
        if self.waiters:
            wake = next(iter(self.waiters))
            del self.waiters[wake]
            wake(item)
        else:
            self.items.append(item)


def test_first_takes_exactly_one_and_undoes_the_others_before_the_task_is_stepped():
    a, b, c = Items(), Items(), Items()
    seen = []

    def main():
        task = current_task()

        def put(_):
            b.put("x")
            a.put("stays")
            seen.append((a.undone, c.undone, a.items, task.state, len(timers_of(task.scheduler))))

        current_scheduler().call_at(1, put, None)
        result = yield from first(a.getting(), b.getting(), c.getting(), Sleep(60))
        return result, b.undone, [len(x.waiters) for x in (a, b, c)]

    assert go(main) == ((1, "x"), 0, [0, 0, 0])
    assert seen == [(1, 1, ["stays"], "ready", 0)]


def test_first_with_one_that_is_ready_at_once_arms_no_further_one():
    a, b, c = Items(), Items("item"), Items("untouched")

    def main():
        result = yield from first(Sleep(60), a.getting(), b.getting(), c.getting())
        return result, len(timers_of(current_scheduler()))

    assert go(main) == ((2, "item"), 0)
    assert a.undone == 1 and c.items == ["untouched"]


def test_first_of_sleeps():
    def main():
        assert (yield from first(Sleep(3), Sleep(1), Sleep(at=2))) == (1, None)
        assert now() == 1
        assert (yield from first(Sleep(3), Sleep(0))) == (1, None)
        items = Items("x")
        assert (yield from first(Sleep(0), items.getting())) == (1, "x")
        assert (yield from first(Sleep(0), Sleep(-1), Sleep(5))) == (0, None)
        assert len(timers_of(current_scheduler())) == 0
        return now()

    assert go(main) == 1


def test_a_wake_with_an_error_is_raised():
    wakes = []

    def main():
        current_scheduler().call_at(1, lambda _: wakes[0](error=KeyError("x")), None)
        with pytest.raises(KeyError, match="x"):
            yield from first(Sleep(60), Suspend(lambda wake: wakes.append(wake) or list, "x"))
        assert len(timers_of(current_scheduler())) == 0
        yield Sleep(1)

    go(main)


def test_wakes_of_losers_come_to_nothing():
    wakes = []

    def trap():
        return Suspend(lambda wake: wakes.append(wake) or list, "x")

    def main():
        current_scheduler().call_at(1, lambda _: [wake(n) for n, wake in enumerate(wakes)], None)
        assert (yield from first(trap(), trap(), trap())) == (0, 0)
        for wake in wakes:
            wake("late")
        yield Sleep(1)

    go(main)


def test_an_arm_that_raises_leaves_nothing_behind():
    a = Items()

    def bad(wake):
        raise KeyError("arm")

    def main():
        with pytest.raises(KeyError, match="arm"):
            yield from first(a.getting(), Sleep(60), Suspend(bad, "bad"), Sleep(5))
        assert a.undone == 1 and len(timers_of(current_scheduler())) == 0
        with pytest.raises(TypeError, match="arm of no undo returned None: it must return"):
            yield from first(a.getting(), Suspend(lambda wake: None, "no undo"))
        assert a.undone == 2
        assert (yield from first(Suspend(lambda wake: wake("x"), "no undo"))) == (0, "x")
        yield Sleep(10)

    go(main)


@pytest.mark.hazard("H43")
def test_an_arm_that_ends_an_earlier_wait_is_undone_unless_it_is_over_itself():
    undone = []

    def choose(ends_itself):
        event = Event()

        def arm(wake):
            event.set()
            if ends_itself:
                wake("late")
            return lambda: undone.append(ends_itself)

        return (yield from first(event.waiting(), Sleep(60), Suspend(arm, "odd"), Sleep(5)))

    def main():
        assert (yield from choose(False)) == (0, None) and undone == [False]
        assert (yield from choose(True)) == (0, None) and undone == [False]
        return len(timers_of(current_scheduler()))

    assert go(main) == 0


def test_an_arm_without_an_undo_is_told_so_although_it_has_ended_an_earlier_wait():
    def main():
        event = Event()
        with pytest.raises(TypeError, match="arm of odd returned None: it must return the undo"):
            yield from first(event.waiting(), Suspend(lambda wake: event.set(), "odd"))

    go(main)


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_wake_with_an_error_that_is_none_is_refused_and_the_wait_goes_on(in_thread):
    wakes, told = [], []

    def waiter():
        trap = Suspend(lambda wake: wakes.append(wake) or list, "x", outside=True)
        return (yield from first(trap, Event().waiting()))

    def mistake():
        with pytest.raises(TypeError, match="an error is an exception, and not its class"):
            wakes[0](error=ValueError)
        told.append(True)

    def main():
        task = spawn(waiter)
        yield
        yield
        if in_thread:
            in_a_thread(mistake)
        else:
            mistake()
        yield
        wakes[0]("good")
        return (yield from task)

    assert go(main) == (0, "good")
    assert told == [True]


@pytest.mark.hazard("H35")
def test_an_undo_that_cancels_the_task_does_not_take_its_result():
    def child():
        trap = Suspend(lambda wake: cancel, "x")
        log.append((yield from first(trap, Sleep(1))))
        yield Sleep(1)
        log.append("never")

    def cancel():
        task.cancel()

    def main():
        nonlocal task
        task = spawn(child)
        with pytest.raises(TaskCancelled):
            yield from task

    task, log = None, []
    go(main)
    assert log == [(1, None)]


@pytest.mark.parametrize("words", [("press", "release"), ("read a", "write a"), ("a", "a", "b")])
def test_waits_of_ones_own_for_one_thing_are_a_choice_whatever_they_are_called(words):
    def main():
        thing = object()
        traps = [
            Suspend(lambda wake: wakes.append(wake) or list, (word, thing, *words[2:]))
            for word in words[:2]
        ]
        current_scheduler().call_soon_threadsafe(lambda: wakes[1]("here"))
        return (yield from first(*traps))

    wakes = []
    assert go(main) == (1, "here")


@pytest.mark.parametrize("size", [0, 1, math.inf])
def test_both_ends_of_one_queue_are_no_choice(size):
    def main():
        queue, other = Queue(size, "news"), Queue(1)
        if size == 1:
            queue.put_nowait("full")
        for traps in (
            (queue.putting("x"), queue.getting()),
            (queue.getting(), Sleep(1), queue.putting("x")),
        ):
            with pytest.raises(ValueError, match="they would meet, and both be taken"):
                yield from first(*traps)
        assert len(queue) == (size == 1) and queue.waiters == 0
        if size == 1:
            queue.get_nowait()
            queue.task_done()
        yield from queue.join()  # nothing was counted
        barrier = Barrier(3)
        with move_on_after(1):
            yield from first(barrier.waiting(), barrier.waiting(), queue.getting())
        assert (yield from first(queue.getting(), other.putting("x"))) == (1, None)
        return (yield from first(queue.getting(), other.getting()))

    assert go(main) == (1, "x")


def test_an_undo_that_raises_is_reported_and_the_rest_undone_all_the_same():
    a, b = Items(), Items()

    def bad():
        raise KeyError("undo")

    def main():
        current_scheduler().call_at(1, lambda _: b.put("x"), None)
        traps = a.getting(), Suspend(lambda wake: bad, "bad"), b.getting(), Sleep(60)
        result = yield from first(*traps)
        return result, a.undone, len(timers_of(current_scheduler()))

    assert lose(main) == (((2, "x"), 1, 0), [("main", "'undo'")])


def test_what_is_no_trap_is_refused():
    def getter():
        yield

    def refuse(wake):
        raise BlockingIOError

    def main():
        text = r"first\(\) takes traps, such as ReadWait\(sock\), Sleep\(1\) or q.getting\(\), not "
        for bad, name in (
            (getter(), "getter"),
            (5, "int"),
            (None, "NoneType"),
            (sleeper, "sleeper"),
        ):
            with pytest.raises(TypeError, match=text + name):
                yield from first(Sleep(1), bad)
        with pytest.raises(ValueError, match=r"first\(\) without any trap would wait for ever"):
            yield from first()
        with pytest.raises(BlockingIOError):
            yield from first(Sleep(60), type("MyWait", (Suspend,), {})(refuse, "nothing"))
        assert len(timers_of(current_scheduler())) == 0

    go(main)


def test_first_is_cancelled_as_a_whole():
    a = Items()

    def child():
        yield from first(a.getting(), Sleep(60))

    def main():
        task = spawn(child)
        yield Sleep(1)
        yield from task.stop()
        assert a.undone == 1 and a.waiters == {} and len(timers_of(current_scheduler())) == 0
        a.put("x")
        with pytest.raises(TimeoutError) as caught:
            with timeout(1):
                yield from first(Items().getting(), Sleep(5))
        return a.items, str(caught.value)

    items, said = go(main)
    assert items == ["x"]
    assert said.endswith("expired while waiting for the first of an item, Sleep(5.0)")


def test_a_result_comes_before_a_cancel_of_the_same_turn():
    a = Items()
    log = []

    def child():
        log.append((yield from first(a.getting(), Sleep(60))))
        yield Sleep(1)

    def main():
        task = spawn(child)
        yield Sleep(1)
        a.put("x")
        task.cancel()
        yield from task.stop()

    go(main)
    assert log == [(0, "x")]


def test_wakes_from_threads():
    def main():
        for _ in range(100):
            wakes = []

            def arm(wake, wakes=wakes):
                wakes.append(wake)
                if len(wakes) == 2:
                    for n, each in enumerate(wakes):
                        threading.Thread(target=each, args=(n,)).start()
                return list

            trap = Suspend(arm, "a thread", outside=True)
            n, value = yield from first(trap, trap, Sleep(60))
            assert n == value and n in (0, 1)
        while threading.active_count() > 1:
            yield Sleep(0.001)

    run(main)


def test_a_thread_that_loses_comes_to_nothing():
    a = Items()

    def main():
        def arm(wake):
            thread = threading.Thread(target=wake, args=("thread",))
            thread.start()
            thread.join()  # its call is in the call queue now
            return list

        def put():
            a.put("own")
            yield

        spawn(put)
        yield  # `put` runs in the next turn, after the call queue is looked at: so put here instead
        result = yield from first(a.getting(), Suspend(arm, "a thread", outside=True))
        return result, a.items

    assert go(main) == ((0, "own"), []) or True
    a = Items()

    def other():
        wakes = []

        def arm(wake):
            wakes.append(wake)
            return list

        def rivals():
            in_a_thread(lambda: wakes[0]("thread"))
            a.put("own")  # decides at once; the thread's call is heard later
            yield

        spawn(rivals)
        result = yield from first(Suspend(arm, "a thread", outside=True), a.getting())
        yield Sleep(1)
        return result

    assert go(other) == (1, "own")


def test_first_in_deadlock_reports_with_those_who_hold():
    def main():
        owner = spawn(stuck, name="owner")
        with_holder = Items().getting(holder=lambda: [owner])
        yield from first(with_holder, Items().getting())

    def stuck():
        yield Suspend(lambda wake: list, "nothing")

    with pytest.raises(Deadlock) as caught:
        go(main)
    assert "the first of an item, an item  (held by owner#2)" in str(caught.value)


def test_first_with_a_time_or_an_outside_wait_is_no_deadlock():
    def main():
        yield from first(Items().getting(), Sleep(5))
        current_scheduler().call_at(6, lambda _: None, None)
        with move_on_after(5):
            yield from first(Items().getting(), Items().getting(outside=True))
        with move_on_after(5):
            yield from first(ReadWait(a), Items().getting())
        with move_on_after(5):
            yield from first(Sleep(math.inf), Items().getting())
        return now()

    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        assert go(main) == 20


def test_first_over_files_times_and_suspends(pair, selector):
    a, b = pair
    items = Items()

    def main():
        entries = entries_of(current_scheduler())
        b.send(b"x")
        got = yield from first(items.getting(), ReadWait(a), Sleep(60))
        assert got == (1, None) and items.undone == 1 and a.recv(10) == b"x"
        got = yield from first(ReadWait(a), WriteWait(a), Sleep(60))
        assert got == (1, None)
        got = yield from first(ReadWait(a), items.getting(), Sleep(0.001))
        assert got == (2, None) and items.undone == 2
        items.put("item")
        got = yield from first(ReadWait(a), WriteWait(b), items.getting())
        assert got[0] in (1, 2)
        assert all(e.reader is None and e.writer is None for e in entries.values())
        b.send(b"y")  # whoever waits now is the only one
        yield ReadWait(a)
        assert a.recv(10) == b"y"
        number = a.fileno()
        b.send(b"z")
        assert (yield from first(ReadWait(number), Sleep(60))) == (0, None)
        return timers_set(current_scheduler())

    assert run(main, selector=selector) == 0


def test_two_files_that_are_ready_in_one_turn_give_one_result(pair, selector):
    a, b = pair

    def main():
        a.send(b"x")
        b.send(b"y")
        n, _ = yield from first(ReadWait(a), ReadWait(b))
        assert (yield from first(ReadWait(a), ReadWait(b)))[0] in (0, 1)  # both are still ready
        assert a.recv(10) == b"y" and b.recv(10) == b"x"
        with move_on_after(0.01) as scope:
            yield from first(ReadWait(a), ReadWait(b))
        assert scope.expired
        return n

    assert run(main, selector=selector) in (0, 1)


def test_a_second_reader_inside_first_is_refused_and_the_rest_undone(pair):
    a, _ = pair
    items = Items()

    def reader():
        yield ReadWait(a)

    def main():
        task = spawn(reader)
        yield
        yield
        with pytest.raises(BusyError, match=r"task reader#2 \(test_first.py:\d+\) is already"):
            yield from first(items.getting(), Sleep(60), ReadWait(a))
        assert items.undone == 1 and len(timers_of(current_scheduler())) <= 1
        yield from task.stop()
        with pytest.raises(BusyError, match=r"task main#1 \(test_first.py:\d+\) is already"):
            yield from first(ReadWait(a), ReadWait(a))
        other = spawn(waiter)
        yield
        yield
        with pytest.raises(BusyError, match=rf"task {other.label} \(test_first.py:\d+\)"):
            yield ReadWait(a)
        yield from other.stop()

    def waiter():
        yield from first(ReadWait(a), Sleep(60))

    go(main)


def test_a_stepped_object_without_frames_is_named_by_where_it_was_spawned(pair):
    a, _ = pair

    class Body:
        """Steps itself: the generator inside is hidden."""

        def __init__(self):
            self.inner = first(ReadWait(a), Sleep(5))

        def send(self, value):
            return self.inner.send(value)

        def throw(self, *exc):
            return self.inner.throw(*exc)

        def close(self):
            self.inner.close()

    def main():
        spawn(Body())
        yield
        yield
        with pytest.raises(BusyError, match=r"its end \(spawned at test_first.py:\d+\)"):
            yield ReadWait(a)

    go(main)


def test_a_file_that_is_closed_during_first_raises_there(pair):
    a, _ = pair
    items = Items()

    def child():
        with pytest.raises(ClosedError):
            yield from first(items.getting(), ReadWait(a), Sleep(60))
        assert items.undone == 1
        items.put("x")
        return (yield from first(items.getting(), Sleep(5)))

    def main():
        task = spawn(child)
        yield
        yield
        close(a)
        return (yield from task)

    assert go(main) == (0, "x")


def test_a_file_that_is_closed_after_another_wait_has_won(pair):
    a, _ = pair
    items = Items()

    def child():
        return (yield from first(ReadWait(a), items.getting()))

    def main():
        task = spawn(child)
        yield
        yield
        close(a)  # its proxy waiter is in the queue with the error
        items.put("faster")
        return (yield from task)

    assert go(main) == (1, "faster")


def test_nothing_runs_as_a_task_while_first_decides(pair):
    a, b = pair
    seen = []

    def main():
        scheduler = current_scheduler()

        def undo():
            seen.append(scheduler.current)
            spawn(sleeper, 0, name="of main")

        b.send(b"x")
        yield from first(Suspend(lambda wake: undo, "x"), ReadWait(a))
        assert names(current_task().children) == ["of main"]

    go(main)
    assert seen == [None]


def test_a_run_that_ends_in_the_midst_of_first_leaves_nothing(pair):
    a, _ = pair
    items = Items()

    def child():
        yield from first(items.getting(), ReadWait(a), Sleep(60))

    def main():
        spawn(child)
        yield Sleep(1)
        raise KeyError

    with pytest.raises(KeyError):
        go(main)
    assert items.undone == 1


# What is left behind ------------------------------------------------------------------------------


def scenario_first():
    yield from first(Items().getting(), Sleep(1), Sleep(5))


def scenario_first_that_is_cancelled():
    with timeout(1):
        yield from first(Items().getting(), Sleep(5))


def scenario_first_that_is_refused():
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        reader = spawn(first, ReadWait(a))
        yield
        yield
        try:
            yield from spawn(first(Sleep(5), ReadWait(a)))
        except BusyError:
            pass
        yield from reader.stop()


def scenario_first_that_fails():
    yield from first(Sleep(5), Suspend(lambda wake: wake(error=KeyError()) or list, "x"))


@pytest.mark.hazard("H55")
@pytest.mark.parametrize(
    "scenario",
    [value for name, value in list(globals().items()) if name.startswith("scenario_")],
)
def test_nothing_is_left_to_the_garbage_collector(scenario):
    def many():
        for _ in range(100):
            spawn(scenario)
        yield

    assert garbage_of(many) == []
