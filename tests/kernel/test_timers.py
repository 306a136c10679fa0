"""Timers, sleeps and virtual time: order, bounds, and every odd number that can be a duration.

Clocks that are moved by hand wherever that will do; where real time must pass, the tests bound
turns and selector calls, never seconds from above.
"""

import itertools
import math
import os
import random
import selectors
import time
from collections import deque

import pytest

import corolib.kernel.timers
from corolib import (
    Cancelled,
    ReadWait,
    Scheduler,
    Sleep,
    Suspend,
    current_scheduler,
    now,
    run,
    spawn,
)
from corolib.kernel.timers import SPARE_HUSKS, Timers
from corolib.testing import JumpingSelector, VirtualClock, virtual_time
from tests.helpers.driving import FULL, standard, turn
from tests.helpers.inside import timers_of


class Incomparable:
    """A comparison that reaches it is an error."""

    def __lt__(self, other):
        raise AssertionError("a comparison reached what a timer holds")

    __gt__ = __le__ = __ge__ = __eq__ = __lt__
    __hash__ = object.__hash__

    def __call__(self, arg):
        return None


# The heap -----------------------------------------------------------------------------------------


def test_calls_are_made_in_the_order_of_their_deadlines_and_none_early():
    timers, made = Timers(), []
    deadlines = [5, 1, 4, 2, 3]
    for deadline in deadlines:
        timers.set(deadline, made.append, deadline)
    assert timers.next() == 1
    timers.expire(0.999)
    assert made == []
    timers.expire(3)
    assert made == [1, 2, 3]
    assert len(timers) == 2
    timers.expire(100)
    assert made == sorted(deadlines)
    assert timers.size == 0


@pytest.mark.hazard("H62")
def test_law_order_holds_for_equal_deadlines_among_cancelled_ones():
    timers, made = Timers(), []
    calls = [timers.set(7.0, made.append, number) for number in range(5000)]
    for call in calls[1::2]:
        timers.cancel(call)
    timers.expire(7.0)
    assert made == list(range(0, 5000, 2))
    assert timers.size == 0
    assert len(timers) == 0


@pytest.mark.hazard("H62")
def test_comparisons_never_reach_what_a_timer_holds():
    timers = Timers()
    calls = [timers.set(n % 3, Incomparable(), Incomparable()) for n in range(3000)]
    for call in calls[::2]:
        timers.cancel(call)
    timers.expire(5)
    assert timers.size == 0


@pytest.mark.hazard("H62")
@pytest.mark.parametrize("living", [0, 10, 5000])
def test_setting_and_cancelling_a_million_times_leaves_a_small_heap(living):
    timers = Timers()
    for n in range(living):
        timers.set(n, Incomparable(), None)
    for n in range(1_000_000 if FULL else 100_000):
        timers.cancel(timers.set(n % 1000, Incomparable(), None))
        assert timers.size <= 2 * living + SPARE_HUSKS + 2
        assert len(timers) == living
    assert SPARE_HUSKS <= 1000


def test_cancelled_calls_are_swept_out_when_they_outnumber_a_thousand_and_the_living():
    timers = Timers()
    calls = [timers.set(n, Incomparable(), None) for n in range(2 * SPARE_HUSKS + 2)]
    for call in calls[: SPARE_HUSKS + 1]:
        timers.cancel(call)
    assert timers.size == len(calls)
    timers.cancel(calls[-1])
    assert timers.size == len(timers) == SPARE_HUSKS
    for call in calls[SPARE_HUSKS + 1 : -1]:
        timers.cancel(call)
    assert (timers.size, len(timers)) == (SPARE_HUSKS, 0)  # as many as may be


@pytest.mark.hazard("H62")
@pytest.mark.parametrize("looked_at", [False, True])
def test_cancelling_every_second_of_many_keeps_the_heap_in_order(looked_at):
    timers, made = Timers(), []
    chance = random.Random(62)
    calls = {n: timers.set(chance.random(), made.append, n) for n in range(20_000)}
    if looked_at:
        timers.next()
    order = sorted(calls, key=lambda n: calls[n][0])
    gone = set(chance.sample(range(20_000), 15_000))
    for n in gone:
        timers.cancel(calls[n])
    assert len(timers) == 5000
    timers.expire(0.5)
    timers.expire(1)
    assert made == [n for n in order if n not in gone]
    assert timers.size == len(timers) == 0


@pytest.mark.hazard("H62")
def test_a_sweep_between_two_steps_of_a_look_at_the_heap_loses_nobody(monkeypatch):
    """A wake in a signal handler may take a timeout back at any moment, and so set a sweep off."""

    def interrupted(heap, call):
        push(heap, call)
        while cancelled:
            timers.cancel(cancelled.popleft())

    push = corolib.kernel.timers.heappush
    timers, made, cancelled = Timers(), [], deque()
    for count in (3 * SPARE_HUSKS, 3 * SPARE_HUSKS // 2):
        cancelled += [timers.set(1, made.append, "cancelled") for _ in range(count)]
        for n in range(5):
            timers.set(1, made.append, n)
    monkeypatch.setattr(corolib.kernel.timers, "heappush", interrupted)
    timers.expire(1)
    assert made == [*range(5), *range(5)]


@pytest.mark.hazard("H62")
def test_a_hundred_thousand_timers_that_fired_leave_an_empty_heap():
    timers, made = Timers(), []
    for n in range(100_000):
        timers.set(n % 977, made.append, n)
    assert len(timers) == 100_000
    timers.expire(976)
    assert len(made) == 100_000
    assert timers.size == 0
    assert timers.next() == math.inf


def test_a_cancelled_call_is_not_made_and_cancelling_again_changes_nothing():
    timers, made = Timers(), []
    call = timers.set(1, made.append, "x")
    timers.set(2, made.append, "y")
    timers.cancel(call)
    timers.cancel(call)
    assert len(timers) == 1
    assert timers.next() == 2
    timers.expire(5)
    assert made == ["y"]


def test_cancelling_a_call_that_was_made_changes_nothing():
    timers, made = Timers(), []
    call = timers.set(1, made.append, "x")
    timers.expire(1)
    timers.cancel(call)
    assert made == ["x"]
    assert len(timers) == 0


def test_a_call_may_cancel_one_that_is_due_at_the_same_time():
    timers, made = Timers(), []
    timers.set(1, lambda _: timers.cancel(second), None)
    second = timers.set(1, made.append, "second")
    timers.set(1, made.append, "third")
    timers.expire(1)
    assert made == ["third"]
    assert len(timers) == 0


def test_a_call_may_cancel_itself_while_it_is_made():
    timers, made = Timers(), []

    def itself(_):
        timers.cancel(call)
        made.append("x")

    call = timers.set(1, itself, None)
    timers.expire(1)
    assert made == ["x"]
    assert len(timers) == 0


def test_a_call_that_cancels_thousands_while_it_is_made_leaves_the_others():
    timers, made = Timers(), []
    calls = []
    timers.set(1, lambda _: [timers.cancel(call) for call in calls], None)
    calls += [timers.set(1, made.append, "cancelled") for _ in range(5000)]
    for n in range(10):
        timers.set(1, made.append, n)
    timers.expire(1)
    assert made == list(range(10))
    assert timers.size == 0


def test_law_order_a_call_set_by_a_call_is_for_the_next_turn():
    timers, made = Timers(), []

    def again(n):
        made.append(n)
        timers.set(0, again, n + 1)

    timers.set(0, again, 0)
    for count in range(1, 5):
        timers.expire(10)
        assert made == list(range(count))


@pytest.mark.hazard("H62")
def test_a_call_that_always_sets_another_in_the_past_holds_up_nobody():
    timers, made = Timers(), []

    def again(_):
        made.append("again")
        timers.set(-1, again, None)

    timers.set(0, again, None)
    timers.set(1, made.append, "other")
    timers.expire(2)
    timers.expire(2)
    assert "other" in made


# Sleeping -----------------------------------------------------------------------------------------


@pytest.mark.hazard("H60")
@pytest.mark.parametrize("seconds", [0, -1, -0.0, -1e300, False + 0.0, -(10**400)])
def test_a_sleep_of_zero_or_less_gives_way_for_one_turn(seconds):
    def main():
        stats = current_scheduler().stats
        before = stats()["turns"]
        yield Sleep(seconds)
        assert stats()["turns"] == before + 1
        assert len(timers_of(current_scheduler())) == 0

    run(main)


@pytest.mark.hazard("H60")
@pytest.mark.parametrize(
    "seconds", [1e10, 1e300, math.inf, 2**31 / 1000, 2**31, 2**63, 10**400, 1.7e308]
)
def test_a_sleep_of_any_length_is_accepted_and_can_be_cancelled(selector, seconds):
    def sleep():
        try:
            yield Sleep(seconds)
        except Cancelled:
            return "cancelled"

    def main():
        task = spawn(sleep)
        yield Sleep(0.01)
        assert task.state == "waiting"
        task.cancel()
        assert (yield from task) == "cancelled"

    run(main, selector=selector)


@pytest.mark.hazard("H60")
@pytest.mark.parametrize("seconds", [1e10, 2**31, 1e300, math.inf])
def test_a_selector_is_never_asked_to_wait_longer_than_it_can(selector, seconds):
    """Nothing else is there to shorten the wait; another thread's call ends it."""
    asked = []

    class Watched(selector):
        def __init__(self):
            super().__init__()
            if hasattr(self, "pairs"):
                self.pairs = self.asked(self.pairs)

        def asked(self, f):
            def call(timeout):
                asked.append(timeout)
                if timeout is None or timeout > 1:
                    f(0 if timeout is None else timeout * 1e-9)  # as good as waited
                    scheduler.call_soon_threadsafe(task.cancel)
                    return f(0)
                return f(timeout)

            return call

        def select(self, timeout=None):
            return self.asked(super().select)(timeout)

    def main():
        try:
            yield Sleep(seconds)
        except Cancelled:
            return "cancelled"

    scheduler = Scheduler(selector=Watched)
    try:
        task = scheduler.spawn(main)
        while not task.done:
            scheduler.turn()
        assert task.result == "cancelled"
    finally:
        scheduler.close()
    # The time left, as given to the selectors: at most 2**31 milliseconds.
    assert all(timeout is None or 0 <= timeout < 2**31 / 1000 for timeout in asked)


class Suspending(JumpingSelector):
    """In the third wait the computer is suspended: the clock jumps, and the selector waits on."""

    def __init__(self, clock, asked):
        super().__init__(selectors.DefaultSelector(), clock)
        self._clock = clock
        self._asked = asked

    def select(self, timeout=None):
        found = super().select(timeout)
        if timeout:
            self._asked.append(timeout)
            if len(self._asked) == 3:
                self._clock.move(3600)
        return found


@pytest.mark.found("T11")
@pytest.mark.parametrize(
    ("longest_wait", "waits", "end"),
    [
        (None, [0.25, 1, 1], 3602.25),
        (20, [0.25, 20, 20], 3640.25),
        (math.inf, [0.25, 1799.75], 1800),
    ],
)
def test_a_clock_that_jumps_is_looked_at_while_the_selector_waits(longest_wait, waits, end):
    """It can be told how often, and need not be looked at if the selector moves it."""
    clock, asked, others = VirtualClock(), [], []

    def jumping():
        return clock()

    def main():
        spawn(other)
        yield Sleep(1800)
        return now()

    def other():
        yield Sleep(0.25)
        others.append(now())

    if longest_wait is not None:
        jumping.longest_wait = longest_wait
    assert run(main, clock=jumping, selector=lambda: Suspending(clock, asked)) == end
    assert (asked, others) == (waits, [0.25])


@pytest.mark.found("T11")
def test_a_wait_that_is_cut_into_pieces_makes_no_selector_suspect():
    clock, made = VirtualClock(), []

    def jumping():
        return clock()

    def make():
        made.append(now)
        return JumpingSelector(selectors.DefaultSelector(), clock)

    def main():
        yield Sleep(100)

    run(main, clock=jumping, selector=make)
    assert len(made) == 1 and clock() == 100


def test_virtual_time_is_not_cut_into_pieces():
    def main():
        before = turn()
        yield Sleep(365 * 86400)
        return turn() - before

    assert run(main, **virtual_time()) == 16


@pytest.mark.hazard("H61")
def test_sleeps_beside_a_thousand_others_are_never_early():
    chance = random.Random(6161)
    woken = []

    def sleep(length):
        deadline = now() + length
        yield Sleep(length)
        assert now() >= deadline
        woken.append(deadline)

    def main():
        tasks = [spawn(sleep, chance.uniform(0, 100)) for _ in range(1000)]
        for task in tasks:
            yield from task
        assert woken == sorted(woken)
        assert turn() <= 2 * 1000 + 10

    run(main, **virtual_time())


@pytest.mark.hazard("H62")
def test_cancelled_sleeps_leave_a_small_heap():
    def sleep():
        yield Sleep(1000)

    def main():
        for _ in range(50):
            tasks = [spawn(sleep) for _ in range(100)]
            yield
            yield
            for task in tasks:
                task.cancel()
            yield
            timers = timers_of(current_scheduler())
            # The grace of each cancelled task is a timer as well.
            assert timers.size <= 2 * 200 + SPARE_HUSKS + 2
        return len(timers)

    assert run(main, **virtual_time()) == 0


@pytest.mark.parametrize("before", ["nothing", "a file", "a sleep", "a suspend"])
def test_a_sleep_for_ever_can_be_cancelled_whatever_was_waited_for_before(pair, before):
    a, b = pair

    def suspend(wake):
        wake()
        return lambda: None

    def sleep():
        if before == "a file":
            yield ReadWait(a)
        elif before == "a sleep":
            yield Sleep(1)
        elif before == "a suspend":
            yield Suspend(suspend, "nothing")
        try:
            yield Sleep(math.inf)
        except Cancelled:
            ended.append(now())
            raise

    ended = []
    b.send(b"x")
    scheduler = Scheduler(**virtual_time())
    try:
        task = scheduler.spawn(sleep)
        for _ in range(5):
            scheduler.turn(1)
        assert task.state == "waiting"
        assert repr(task.wait) == "Sleep(inf)"
        task.cancel()
        scheduler.turn(1)
        assert ended
        assert task.done
    finally:
        scheduler.close()


@pytest.mark.hazard("H59")
@pytest.mark.parametrize("jump", [86400, -86400])
def test_a_jump_of_the_wall_clock_moves_no_timer(monkeypatch, jump):
    wall = time.time

    def sleep(length):
        began = time.monotonic()
        yield Sleep(length)
        assert time.monotonic() - began >= length

    def main():
        stats = current_scheduler().stats
        tasks = [spawn(sleep, length) for length in (0.01, 0.02, 0.03)]
        yield
        monkeypatch.setattr(time, "time", lambda: wall() + jump)
        before = stats()["turns"]
        for task in tasks:
            yield from task
        assert stats()["turns"] - before <= 12
        assert len(timers_of(current_scheduler())) == 0

    try:
        run(main)
    finally:
        monkeypatch.undo()


@pytest.mark.hazard("H59")
def test_the_default_clock_is_the_monotonic_one():
    def main():
        before = time.monotonic()
        assert before <= now() <= time.monotonic()
        yield

    run(main)
    scheduler = Scheduler()
    try:
        before = time.monotonic()
        assert before <= scheduler.clock() <= time.monotonic()
    finally:
        scheduler.close()


# Virtual time -------------------------------------------------------------------------------------


def test_virtual_time_takes_any_start():
    def main():
        assert now() == 1e9
        yield Sleep(0.25)
        return now()

    assert run(main, **virtual_time(start=1e9)) == 1e9 + 0.25


def test_virtual_time_lets_ready_tasks_and_files_go_first(pair, selector):
    a, b = pair

    def read():
        yield ReadWait(a)
        return now()

    def main():
        task = spawn(read)
        yield from itertools.repeat(None, 5)
        assert now() == 0
        b.send(b"x")
        assert (yield from task) == 0

    run(main, **virtual_time(selector=standard(selector)))


def test_virtual_time_really_waits_for_a_file_when_nothing_else_is_due(pair, selector):
    a, b = pair
    r, w = os.pipe()

    def read(file):
        yield ReadWait(file)
        return now()

    def main():
        task = spawn(read, a)
        yield Sleep(3)
        b.send(b"x")
        assert (yield from task) == 3

    try:
        run(main, **virtual_time(selector=standard(selector)))
    finally:
        os.close(r)
        os.close(w)


def test_virtual_time_moves_on_though_the_step_is_lost_in_rounding():
    clock = VirtualClock(2.0**60)
    clock.move(1e-9)
    assert clock() > 2.0**60

    def main():
        before = now()
        yield Sleep(at=math.nextafter(before, math.inf))
        assert now() > before

    run(main, **virtual_time(start=2.0**60))


def test_the_jumping_selector_is_a_whole_selector(pair, selector):
    a, b = pair
    clock = VirtualClock()
    with JumpingSelector(standard(selector)(), clock) as jumping:
        jumping.register(a, selectors.EVENT_READ, "data")
        assert jumping.get_key(a).data == "data"
        assert jumping.select(0) == []
        assert clock() == 0
        assert jumping.select(7) == []
        assert clock() == 7
        jumping.modify(a, selectors.EVENT_WRITE, "more")
        [(key, events)] = jumping.select(7)
        assert (key.data, events) == ("more", selectors.EVENT_WRITE)
        assert clock() == 7
        jumping.unregister(a)
        assert len(jumping.get_map()) == 0
        jumping.register(a, selectors.EVENT_READ)
        b.send(b"x")
        assert jumping.select(None)
        assert clock() == 7


def test_what_a_call_sets_is_for_the_next_turn_also_if_it_asks_for_the_next_deadline():
    timers, made = Timers(), []

    def again(n):
        made.append(n)
        timers.set(0, again, n + 1)
        timers.next()

    timers.set(0, again, 0)
    timers.expire(1)
    assert made == [0]
    timers.expire(1)
    assert made == [0, 1]
