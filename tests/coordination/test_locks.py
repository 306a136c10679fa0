"""Events, locks, semaphores, conditions, barriers, results: order, hand-over, and what is told."""

import gc
import itertools
import selectors
import traceback
from threading import BrokenBarrierError

import pytest

import corolib
from corolib import (
    Barrier,
    BoundedSemaphore,
    Cancelled,
    Condition,
    Deadlock,
    Event,
    Lock,
    Result,
    RLock,
    ScopeError,
    Semaphore,
    Sleep,
    TaskCancelled,
    current_scheduler,
    current_task,
    first,
    move_on_after,
    run,
    spawn,
    timeout,
)
from corolib.testing import survivors
from tests.helpers.driving import go, hold, turns
from tests.helpers.garbage import garbage_of

LOCKS = [Lock, RLock, Semaphore, BoundedSemaphore, Condition]


def ignore(task, exc):
    """Take a failure that somebody joins only later."""


def steps():
    return current_scheduler().stats()["steps"]


# What all of them share ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOCKS)
def test_a_with_block_without_yield_from_shows_the_right_line(kind):
    def main():
        with kind():
            yield

    with pytest.raises(TypeError, match=r"write `with \(yield from lock\):`, or `async with"):
        go(main)


@pytest.mark.parametrize("kind", LOCKS)
def test_a_yield_without_from_shows_the_right_line(kind):
    def main():
        yield kind()

    with pytest.raises(TypeError, match="Write `yield from` in front of it"):
        go(main)


@pytest.mark.parametrize("kind", LOCKS)
def test_async_with_gives_back_what_it_acquired(kind):
    lock, log = kind(), []

    async def work(n):
        async with lock:
            log.append(n)
            await Sleep(1)

    def main():
        yield from survivors([spawn(work, n) for n in range(3)])

    go(main)
    assert log == [0, 1, 2]
    assert lock.waiters == 0


@pytest.mark.parametrize("kind", LOCKS)
def test_acquire_and_release_work_without_a_block(kind):
    def main():
        lock = kind()
        for _ in range(2):
            yield from lock.acquire()
            lock.release()
        with (yield from lock.acquire()):
            pass
        return repr(lock)

    assert "held" not in go(main)


@pytest.mark.parametrize("kind", [Lock, RLock, Semaphore])
def test_the_trap_of_a_lock_can_be_one_of_several_waits(kind):
    def main():
        lock = kind()
        task = spawn(hold, lock, 2)
        yield
        assert (yield from first(lock.acquiring(), Sleep(1))) == (1, None)
        assert lock.waiters == 0
        index, held = yield from first(lock.acquiring(), Sleep(5))
        with held:
            assert task.done
        index, held = yield from first(lock.acquiring(), Sleep(5))  # at once
        with held:
            return index, lock.waiters

    assert go(main) == (0, 0)


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (Event, lambda e: e.wait()),
        (Result, lambda r: r.wait()),
        (Lock, lambda lock: _acquire_and_release(lock)),
        (Semaphore, lambda lock: _acquire_and_release(lock)),
        (lambda: Barrier(1), lambda b: b.wait()),
    ],
)
def test_what_can_be_had_at_once_gives_way_only_now_and_then(make, use):
    def main():
        thing = make()
        if not isinstance(thing, Lock | Semaphore | Barrier):
            thing.set(*([] if isinstance(thing, Event) else [1]))
        before = steps()
        for _ in range(640):
            yield from use(thing)
        return steps() - before

    assert go(main) == 10


def _acquire_and_release(lock):
    with (yield from lock):
        pass


def test_the_repr_shows_state_and_waiters():
    def main():
        event, lock, rlock = Event("e"), Lock("l"), RLock("r")
        semaphore, barrier, result = Semaphore(2, "s"), Barrier(3, "b"), Result("f")
        news = Condition(lock, "c")
        assert repr(event) == "<Event e not set>"
        event.set()
        assert repr(event) == "<Event e set>"
        assert repr(lock) == "<Lock l free>"
        assert repr(semaphore) == "<Semaphore s 2 left>"
        spawn(barrier.wait())
        waiter = spawn(result.wait())
        with (yield from rlock):
            with (yield from rlock):
                with (yield from lock):
                    blocked = spawn(_acquire_and_release, lock)
                    yield
                    assert repr(rlock) == "<RLock r held 2 times by main#1>"
                    assert repr(lock) == "<Lock l held by main#1, 1 waiting>"
                    assert repr(news) == "<Condition c of <Lock l held by main#1, 1 waiting>>"
        assert repr(barrier) == "<Barrier b of 3, 1 waiting>"
        assert repr(result) == "<Result f pending, 1 waiting>"
        result.set(1)
        assert repr(result) == "<Result f set>"
        failed = Result("g")
        failed.fail(KeyError("x"))
        assert repr(failed) == "<Result g failed with KeyError('x')>"
        assert repr(Lock()).startswith("<Lock 0x")
        yield from survivors([waiter, blocked])
        for _ in range(2):
            spawn(barrier.wait())

    go(main)


# Locks --------------------------------------------------------------------------------------------


@pytest.mark.hazard("H37")
@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_is_handed_over_at_the_release_so_nobody_comes_in_between(kind):
    def main():
        lock, log = kind(), []
        with (yield from lock):
            spawn(hold, lock, 0, log, "waiter")
            yield
        with (yield from lock):  # asked for when the waiter had it already
            log.append("main")
        return log

    assert go(main) == ["waiter", "main"]


@pytest.mark.hazard("H37")
@pytest.mark.parametrize("kind", LOCKS)
def test_a_waiter_cancelled_after_it_was_chosen_gives_the_lock_back(kind):
    def main():
        lock, log = kind(), []
        held = yield from lock
        chosen = spawn(hold, lock, 1, log, "chosen")
        after = spawn(hold, lock, 1, log, "after")
        yield
        with held:
            pass
        chosen.cancel()
        yield from survivors([chosen, after])
        return log, chosen.cancelled

    assert go(main) == (["chosen", "after"], True)


@pytest.mark.hazard("H42")
@pytest.mark.parametrize("kind", [Lock, RLock])
@pytest.mark.parametrize("how", ["returns", "raises", "is cancelled"])
def test_a_holder_that_ends_without_releasing_is_an_error_for_all_who_wait(kind, how):
    def careless(lock):
        yield from lock
        yield
        if how == "raises":
            raise LookupError
        if how == "is cancelled":
            current_task().cancel()
            yield

    def main():
        lock, told = kind("till"), []

        def wait():
            try:
                with (yield from lock):
                    raise AssertionError("nobody gets it")
            except RuntimeError as exc:
                told.append(str(exc))

        owner = spawn(careless, lock)
        waiters = [spawn(wait) for _ in range(2)]
        yield from survivors(waiters)
        yield from survivors([spawn(wait)])
        with pytest.raises(RuntimeError, match="orphaned by careless#2"):
            lock.release()
        try:
            yield from owner
        except (LookupError, TaskCancelled):
            pass
        assert lock.owner is None
        return told

    told = go(main, on_task_error=ignore)
    assert len(told) == 3
    title = f"<{kind.__name__} till>: task careless#2, which held it, ended without releasing it"
    assert all(text.startswith(title) for text in told)


@pytest.mark.hazard("H42")
def test_who_waits_for_news_is_told_too_that_the_lock_is_lost():
    def main():
        news = Condition()
        told = []

        def wait():
            try:
                with (yield from news):
                    yield from news.wait()
            except RuntimeError as exc:
                told.append("careless#4, which held it" in str(exc))

        def careless():
            yield from news

        tasks = [spawn(wait), spawn(wait)]
        yield
        yield
        tasks.append(spawn(careless))
        yield from survivors(tasks)
        return told, news.waiters

    assert go(main, on_task_error=ignore) == ([True, True], 0)


def test_a_release_by_another_task_is_refused():
    def other(lock):
        with pytest.raises(RuntimeError, match=r"task other#2 releases <Lock l held by main#1>"):
            lock.release()
        yield

    def main():
        lock = Lock("l")
        with pytest.raises(RuntimeError, match="without holding it"):
            lock.release()
        with (yield from lock):
            yield from spawn(other, lock)
            assert lock.owner is current_task()

    go(main)


def test_a_block_whose_lock_was_released_inside_complains_unless_it_fails():
    def main(error):
        lock = Lock()
        with (yield from lock):
            lock.release()
            if error:
                raise error

    with pytest.raises(RuntimeError, match="without holding it"):
        go(main, None)
    with pytest.raises(LookupError):
        go(main, LookupError())


def test_acquiring_a_lock_that_one_holds_is_refused_at_once():
    def main():
        lock = Lock("l")
        with (yield from lock):
            for way in (lock.acquire(), first(lock.acquiring(), Sleep(1))):
                with pytest.raises(Deadlock, match="main#1 acquires <Lock l>, which it holds"):
                    yield from way
            assert lock.owner is current_task()
        return repr(lock)

    assert go(main) == "<Lock l free>"


def test_an_rlock_is_free_when_each_was_released():
    def main():
        lock, log = RLock(), []
        with (yield from lock):
            spawn(hold, lock, 0, log, "other")
            with (yield from lock):
                yield
            yield
            assert log == []
            _, held = yield from first(lock.acquiring(), Sleep(1))
            with held:
                yield
        yield
        return log

    assert go(main) == ["other"]


@pytest.mark.hazard("H54")
def test_locks_taken_crosswise_are_a_deadlock_with_holders_and_cycle():
    def grab(one, other):
        with (yield from one):
            yield
            with (yield from other):
                pass

    def main():
        a, b = Lock("A"), Lock("B")
        left = spawn(grab, a, b, name="left")
        right = spawn(grab, b, a, name="right")
        yield from left
        yield from right

    with pytest.raises(Deadlock) as caught:
        go(main)
    lines = [" ".join(line.split()) for line in str(caught.value).split("\n")]
    assert lines[1].startswith("main#1 join left#2 at main (test_locks.py:")
    assert lines[2].startswith("left#2 acquire <Lock B> (held by right#3) at grab (test_locks.py:")
    assert lines[3].startswith("right#3 acquire <Lock A> (held by left#2) at grab (test_locks.py:")
    assert lines[4] == "cycle: left#2 -> right#3 -> left#2"


@pytest.mark.hazard("H54")
@pytest.mark.found("T15")
def test_locks_taken_crosswise_beside_a_task_that_runs_are_told_by_the_report():
    def left(a, b):
        with (yield from a):
            yield
            yield from first(b.acquiring(), b.acquiring())

    def right(a, b):
        with (yield from b):
            yield
            yield from a

    def main():
        locks = Lock("A"), Lock("B")
        tasks = spawn(left, *locks), spawn(right, *locks)
        yield Sleep(1)
        report = current_scheduler().report()
        for task in tasks:
            task.cancel()
        return report.splitlines()

    rows = go(main)
    assert f"    right#3  acquire <Lock A>  (held by left#2)  spawned at {__file__}" in "".join(
        rows
    )
    found = rows[rows.index("can never go on, though others run:") + 1 :]
    assert [row.split(" at ")[0] for row in found] == [
        "  left#2   the first of acquire <Lock B>, acquire <Lock B>  (held by right#3) ",
        "  right#3  acquire <Lock A>                                 (held by left#2)  ",
        "  cycle: left#2 -> right#3 -> left#2",
    ]


@pytest.mark.parametrize(
    ("wait", "what"),
    [
        (lambda: Event("e").wait(), "wait for <Event e>"),
        (lambda: Semaphore(0, "s").acquire(), "acquire <Semaphore s>"),
        (lambda: Barrier(2, "b").wait(), "wait at <Barrier b>"),
        (lambda: Result("r").wait(), "wait for <Result r>"),
    ],
)
def test_a_wait_that_nobody_ends_is_a_deadlock_that_says_what_for(wait, what):
    def main():
        yield from wait()

    with pytest.raises(Deadlock) as caught:
        go(main)
    assert f"main#1  {what}  at main" in str(caught.value)


@pytest.mark.hazard("H54")
def test_who_was_notified_waits_for_the_holder_of_the_lock():
    def wait(news):
        with (yield from news):
            yield from news.wait()

    def notify(news):
        with (yield from news):
            news.notify()
            yield from Event("never").wait()

    def main():
        news = Condition(name="n")
        tasks = [spawn(wait, news), spawn(wait, news), spawn(notify, news)]
        yield from survivors(tasks)

    with pytest.raises(Deadlock) as caught:
        go(main)
    lines = [" ".join(line.split()) for line in str(caught.value).split("\n")]
    assert lines[2].startswith("wait#2 wait for <Condition n> (held by notify#4)")
    assert lines[3].startswith("wait#3 wait for <Condition n> at wait")


# Semaphores ---------------------------------------------------------------------------------------


def test_a_semaphore_lets_in_as_many_as_it_has_permits():
    def main():
        two, inside, most = Semaphore(2), 0, 0

        def work():
            nonlocal inside, most
            with (yield from two):
                inside += 1
                most = max(most, inside)
                yield Sleep(1)
                inside -= 1

        yield from survivors([spawn(work) for _ in range(7)])
        return most, two.value, corolib.now()

    assert go(main) == (2, 2, 4.0)


def test_a_permit_may_be_released_by_anybody():
    def main():
        none = Semaphore(0)
        task = spawn(none.acquire())
        yield
        none.release()
        none.release()
        yield from task
        return none.value

    assert go(main) == 1


def test_a_bounded_semaphore_refuses_one_release_too_many():
    one = BoundedSemaphore(1, "one")
    with pytest.raises(ValueError, match="<BoundedSemaphore one 1 left> is released more often"):
        one.release()
    assert one.value == 1


@pytest.mark.parametrize("kind", [Semaphore, BoundedSemaphore, Barrier])
def test_what_is_counted_is_a_whole_number_and_large_enough(kind):
    least = 1 if kind is Barrier else 0
    text = rf"{kind.__name__}\(\) takes a whole number, at least {least}, not "
    for wrong in (1.5, 2.0, "1", True, None):
        with pytest.raises(TypeError, match=text + repr(wrong)):
            kind(wrong)
    with pytest.raises(ValueError, match=text + str(least - 1)):
        kind(least - 1)
    kind(least)


# Conditions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["wait", "notify", "notify_all"])
def test_a_condition_is_used_with_its_lock_held(what):
    def main():
        news = Condition(Lock("l"))
        with pytest.raises(RuntimeError, match=r"task main#1 .* <Lock l free> without holding it"):
            yield from getattr(news, what)() or ()

    go(main)


def test_notified_waiters_go_on_in_order_one_after_the_other():
    def main():
        news, log = Condition(), []

        def wait(n):
            with (yield from news):
                yield from news.wait()
                log.append(n)
                yield
                log.append(n)

        tasks = [spawn(wait, n) for n in range(4)]
        yield
        yield
        with (yield from news):
            news.notify(2)
            assert (news.waiters, news.lock.waiters) == (2, 2)
            yield
            assert log == []  # the lock is not free
        yield Sleep(1)
        assert log == [0, 0, 1, 1]
        with (yield from news):
            news.notify_all()
            news.notify()  # nobody is left
        yield from survivors(tasks)
        return log

    assert go(main) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_waiting_lets_go_of_an_rlock_however_often_it_is_held():
    def main():
        news = Condition(RLock("r"))

        def wait():
            with (yield from news):
                with (yield from news):
                    yield from news.wait()
                    return repr(news.lock)

        task = spawn(wait)
        yield
        with (yield from news):
            news.notify()
        return (yield from task), repr(news.lock)

    assert go(main) == ("<RLock r held 2 times by wait#2>", "<RLock r free>")


@pytest.mark.hazard("H38")
def test_a_cancelled_wait_leaves_with_the_lock_held():
    def main():
        news, log = Condition(), []

        def wait():
            with (yield from news):
                try:
                    yield from news.wait()
                except Cancelled:
                    log.append(news.lock.owner is current_task())
                    raise

        task = spawn(wait)
        yield
        with (yield from news):
            task.cancel()
            yield Sleep(0.5)
            assert log == []
        yield from survivors([task])
        return log, task.cancelled, repr(news.lock.owner)

    assert go(main) == ([True], True, "None")


@pytest.mark.hazard("H37")
@pytest.mark.hazard("H38")
def test_a_waiter_cancelled_on_its_way_to_the_lock_passes_the_notify_on():
    def main():
        news, log = Condition(), []

        def wait(n):
            with (yield from news):
                yield from news.wait()
                log.append(n)

        tasks = [spawn(wait, n) for n in range(2)]
        yield
        with (yield from news):
            news.notify()
            tasks[0].cancel()
        yield from survivors(tasks)  # with the notify lost this is a deadlock
        return log, tasks[0].cancelled

    assert go(main) == ([1], True)


@pytest.mark.hazard("H38")
def test_a_lock_that_is_not_to_be_had_within_the_grace_is_not_given_back():
    def main():
        news = Condition()

        def wait():
            with (yield from news):
                yield from news.wait()

        def wait_and_go_on():
            with (yield from news):
                with move_on_after(0.5):
                    yield from news.wait()

        task, other = spawn(wait), spawn(wait_and_go_on)
        yield
        with (yield from news):
            task.cancel()
            yield Sleep(5)
            assert task.done and task.cancelled
            assert other.done
            assert news.lock.owner is current_task()
        with pytest.raises(RuntimeError, match="without holding it"):
            yield from other  # it caught the cancel inside the block, where it has no lock

    go(main, on_task_error=ignore)


@pytest.mark.hazard("H38")
def test_a_cancelled_wait_whose_lock_is_lost_is_cancelled_all_the_same():
    def main():
        news = Condition()

        def wait():
            with (yield from news):
                yield from news.wait()

        def careless():
            yield from news
            yield Sleep(0.5)

        early, late = spawn(wait), spawn(wait)
        yield
        owner = spawn(careless)
        yield
        early.cancel()
        yield from owner
        late.cancel()
        yield from survivors([early])
        with pytest.raises(RuntimeError, match="careless#4"):
            yield from late
        return early.cancelled

    assert go(main, on_task_error=ignore) is True


def test_a_cancel_before_the_wait_leaves_the_lock_where_it_is():
    def main():
        news = Condition()
        with (yield from news):
            with move_on_after(0):
                yield from news.wait()
            assert news.lock.owner is current_task()
            with pytest.raises(TimeoutError, match="wait for <Condition"):
                with timeout(1):
                    yield from news.wait()
            return news.lock.owner is current_task()

    assert go(main) is True


class Exits(selectors.SelectSelector):
    """A selector whose wait a signal handler of the program's ends by `sys.exit(3)`."""

    asked = False

    def select(self, timeout=None):
        if Exits.asked:
            Exits.asked = False
            raise SystemExit(3)
        return super().select(timeout)


@pytest.mark.hazard("H38")
def test_a_wait_that_ends_by_exit_leaves_with_the_lock_held():
    log = []

    def hold_for_a_while(news):
        with (yield from news):
            Exits.asked = True
            yield Sleep(0.01)
            log.append("released")

    def main():
        news = Condition()
        with (yield from news):
            spawn(hold_for_a_while, news)
            try:
                yield from news.wait()
            finally:
                log.append(news.lock.owner is current_task())

    with pytest.raises(SystemExit):
        run(main, selector=Exits)
    assert log == ["released", True]


@pytest.mark.hazard("H38")
def test_a_wait_that_ends_by_a_mistake_of_scopes_leaves_with_the_lock_held():
    def astray():
        with move_on_after(1):
            yield "a value to the consumer"

    def main():
        news, values = Condition(), astray()
        with (yield from news):
            next(values)
            with pytest.raises(ScopeError):
                yield from news.wait()
            assert news.lock.owner is current_task()
        values.close()
        return repr(news.lock.owner)

    assert go(main) == "None"


@pytest.mark.hazard("H40")
def test_a_wait_that_is_closed_does_not_wait_for_the_lock():
    def main():
        news = Condition()
        held = yield from news
        wait = news.wait()
        undo = next(wait).arm(lambda value=None, error=None: None)  # as a scheduler does it
        spawn(hold, news, 5)
        yield
        wait.close()
        undo()
        with pytest.raises(LookupError), held:
            raise LookupError
        return news.waiters

    assert go(main) == 0


@pytest.mark.parametrize("make", [lambda: "news", Semaphore, Condition])
def test_the_lock_of_a_condition_is_a_lock(make):
    wrong = make()
    with pytest.raises(TypeError, match=r"as its lock: give it .* `Condition\(name=") as caught:
        Condition(wrong)
    assert repr(wrong) in str(caught.value)


def test_wait_for_returns_what_the_predicate_says():
    def main():
        news, items = Condition(), []

        def produce():
            for n in range(2):
                yield Sleep(1)
                with (yield from news):
                    if n:
                        items.append("bread")
                    news.notify()

        spawn(produce)
        with (yield from news):
            yield from news.wait_for(lambda: True)
            return (yield from news.wait_for(lambda: items)), corolib.now()

    assert go(main) == (["bread"], 2.0)


def test_a_condition_can_be_held_by_acquire_and_async_with():
    def main():
        news = Condition()
        yield from news.acquire()
        news.release()

        async def wait():
            async with news:
                await news.wait()
                return "woken"

        task = spawn(wait)
        yield
        with (yield from news):
            news.notify()
        return (yield from task)

    assert go(main) == "woken"


# Events, barriers, results ------------------------------------------------------------------------


def test_an_event_wakes_all_and_can_be_cleared():
    def main():
        event, log = Event(), []

        def wait(n):
            yield from event.wait()
            log.append(n)

        tasks = [spawn(wait, n) for n in range(3)]
        yield
        event.set()
        event.clear()
        tasks.append(spawn(wait, 3))
        yield
        yield
        assert log == [0, 1, 2]
        event.set()
        yield from survivors(tasks)
        assert (yield from first(event.waiting(), Sleep(1))) == (0, None)
        return log

    assert go(main) == [0, 1, 2, 3]


def test_a_barrier_gives_places_and_works_round_after_round():
    def main():
        barrier, places = Barrier(3), []

        def meet(n):
            for _ in range(3):
                places.append((n, (yield from barrier.wait())))

        yield from survivors([spawn(meet, n) for n in range(3)])
        return places

    places = go(main)
    for i in range(0, 9, 3):
        assert sorted(place for _, place in places[i : i + 3]) == [0, 1, 2]
    assert len(places) == 9


@pytest.mark.hazard("H37")
def test_who_is_cancelled_at_a_barrier_has_not_come():
    def main():
        barrier = Barrier(2)
        task = spawn(barrier.wait())
        yield
        yield from task.stop()
        other = spawn(barrier.wait())
        yield
        assert barrier.waiters == 1
        assert (yield from first(barrier.waiting(), Sleep(1))) == (0, 1)
        return (yield from other)

    assert go(main) == 0


def test_a_result_is_given_to_all_now_and_later():
    def main():
        result = Result()

        async def wait():
            return await result

        tasks = [spawn(wait), spawn(result.wait())]
        yield
        assert not result.done
        result.set(None)
        assert result.done
        with pytest.raises(RuntimeError, match="it can be set once"):
            result.set(2)
        with pytest.raises(RuntimeError, match="it can be set once"):
            result.fail(LookupError())
        later = yield from result
        return (yield from survivors(tasks)), later, (yield from first(result.waiting(), Sleep(1)))

    assert go(main) == ([None, None], None, (0, None))


def test_a_failed_result_is_raised_in_all():
    def main():
        result = Result()
        task = spawn(result.wait())
        yield
        with pytest.raises(TypeError, match="give an exception"):
            result.fail(LookupError)
        result.fail(LookupError("x"))
        for way in (task.__iter__(), result.__iter__(), result.waiting().__iter__()):
            with pytest.raises(LookupError, match="x"):
                yield from way

    go(main)


def test_each_that_a_failed_result_is_raised_in_sees_its_own_traceback_alone():
    def main():
        result, found = Result(), []

        def wait():
            try:
                yield from result
            except LookupError as exc:
                found.append([frame.name for frame in traceback.extract_tb(exc.__traceback__)])

        def find_out():
            raise LookupError("x")

        waiters = [spawn(wait) for _ in range(20)]
        yield
        try:
            find_out()
        except LookupError as exc:
            result.fail(exc)
        yield from survivors(waiters)
        for _ in range(100):  # at once; and after giving way
            yield from wait()
        for names in found:
            assert names.count("wait") <= 2  # the function above, and the method
            assert names[-1] == "find_out"
        return len(found)

    assert go(main) == 120


def swallow(waiting):
    with pytest.raises(LookupError):
        yield from waiting


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("way", ["wait", "__iter__", "waiting"])
def test_a_failed_result_leaves_no_cycle_of_references(way, early):
    def scenario():
        result = Result()
        task = spawn(swallow(iter(getattr(result, way)())))
        if early:
            yield
        result.fail(LookupError())
        yield from task

    assert garbage_of(scenario) == []


@pytest.mark.hazard("H46")
def test_a_result_may_be_a_stop_iteration():
    def main():
        result, failed = Result(), Result()
        tasks = [spawn(result.wait()), spawn(failed.wait())]
        yield
        value = StopIteration(7)
        result.set(value)
        failed.fail(StopIteration(8))
        assert (yield from tasks[0]) is value
        assert (yield from result) is value
        for way in (tasks[1].__iter__(), failed.__iter__()):
            with pytest.raises(RuntimeError, match="StopIteration"):
                yield from way
        return "to the end"

    assert go(main, on_task_error=ignore) == "to the end"


def test_a_cycle_of_references_is_left_by_none_of_them():
    def main():
        gc.collect()
        gc.disable()
        try:
            lock, event, result, barrier = Lock(), Event(), Result(), Barrier(2)
            news = Condition(lock)
            for wait, _ in itertools.product((event.wait, result.wait, barrier.wait), range(10)):
                with move_on_after(0.1):
                    yield from wait()
            with (yield from news):
                with move_on_after(0.1):
                    yield from news.wait()
            del lock, event, result, barrier, news, wait
            yield  # the step in which the last cancel was delivered knows it to its end
            return [x for x in gc.get_objects() if isinstance(x, Lock | Event | Result | Barrier)]
        finally:
            gc.enable()

    assert go(main) == []


def test_those_who_wait_for_conditions_of_a_lost_lock_are_told_in_the_order_of_the_conditions():
    """Runs can be repeated: no order comes from an address."""
    told = []

    def waiter(condition, n):
        try:
            with (yield from condition):
                yield from condition.wait()
        except RuntimeError:
            told.append(n)

    def main():
        lock = Lock()
        conditions = [Condition(lock) for _ in range(30)]
        tasks = [spawn(waiter, each, n) for n, each in enumerate(conditions)]
        yield from turns(100)

        def forgets():
            yield from lock.acquire()

        yield from spawn(forgets)
        for task in tasks:
            yield from task

    go(main)
    assert told == list(range(30))


# A barrier that is broken -------------------------------------------------------------------------


def meet(barrier, log):
    try:
        log.append((yield from barrier.wait()))
    except BrokenBarrierError as exc:
        log.append(str(exc))


@pytest.mark.found("T20")
def test_who_waits_at_a_barrier_that_is_broken_is_told_and_so_is_who_comes_later():
    def main():
        log = []
        barrier = Barrier(3, "gate")
        spawn(meet, barrier, log)
        spawn(meet, barrier, log)
        yield Sleep(1)
        assert not barrier.broken
        barrier.abort()
        assert barrier.broken and barrier.waiters == 0
        yield
        yield from meet(barrier, log)
        with pytest.raises(BrokenBarrierError):
            yield from first(barrier.waiting(), Sleep(1))
        return log, repr(barrier)

    text = "<Barrier gate> is broken: not all of 3 have come"
    assert go(main) == ([text] * 3, "<Barrier gate of 3 broken>")


@pytest.mark.found("T20")
def test_a_barrier_that_is_reset_begins_anew():
    def main():
        log = []
        barrier = Barrier(2, "gate")
        spawn(meet, barrier, log)
        yield
        barrier.reset()
        yield
        barrier.abort()
        barrier.reset()
        assert not barrier.broken
        spawn(meet, barrier, log)
        yield
        yield from meet(barrier, log)
        yield
        return log

    assert go(main) == ["<Barrier gate> was reset: not all of 2 have come", 1, 0]
