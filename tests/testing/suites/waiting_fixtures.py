"""Fixtures whose setup and teardown may wait, for one test each."""

import pytest

from corolib import Event, Sleep, TaskGroup, current_task, move_on_after, now, spawn, timeout
from corolib.testing import fixture, give

pytestmark = pytest.mark.corolib(clock="virtual")

log = []


@fixture
def gives():
    yield Sleep(1)
    yield give("given")
    yield Sleep(1)
    log.append(f"gives torn down at {now()}")


@fixture
def returns():
    yield Sleep(1)
    return "returned"


@fixture
def returns_and_leaves_a_child():
    def forever():
        try:
            yield Sleep(1e9)
        finally:
            log.append("the child is gone")

    yield
    return spawn(forever)


@fixture
async def awaits():
    await Sleep(1)
    await give("awaited")
    await Sleep(1)
    log.append("awaits torn down")


@fixture
async def returns_async():
    await Sleep(1)
    return "returned"


@pytest.fixture
async def yields():
    await Sleep(1)
    yield "yielded"
    await Sleep(1)
    log.append("yields torn down")


@pytest.fixture
async def plain_async():
    await Sleep(1)
    return "returned"


@pytest.fixture
def on_top(gives):
    log.append("on_top set up")
    yield f"on {gives}"
    log.append("on_top torn down")


@fixture
def on_an_ordinary_one(on_top):
    yield
    yield give(f"{on_top}, again")
    log.append("on_an_ordinary_one torn down")


@fixture(params=["a", "b"], name="letter")
def make_letter(request):
    yield Sleep(1)
    yield give(request.param)


def test_gives(gives):
    yield Sleep(1)
    assert gives == "given"
    assert now() == 2


def test_gives_was_torn_down_on_the_same_clock():
    assert log == ["gives torn down at 3.0"]
    log.clear()


def test_returns(returns):
    yield
    assert returns == "returned"


def test_a_child_of_what_has_returned(returns_and_leaves_a_child):
    yield Sleep(100)
    assert returns_and_leaves_a_child.state == "waiting"


def test_that_child_is_gone():
    assert log == ["the child is gone"]
    log.clear()


def test_async_ones(awaits, returns_async, yields, plain_async):
    yield
    assert (awaits, returns_async) == ("awaited", "returned")
    assert (yields, plain_async) == ("yielded", "returned")


def test_async_ones_were_torn_down_in_reverse_order():
    assert log == ["yields torn down", "awaits torn down"]
    log.clear()


def test_stacked(on_an_ordinary_one):
    yield
    assert on_an_ordinary_one == "on given, again"


def test_the_stack_was_torn_down_in_reverse_order():
    assert log == [
        "on_top set up",
        "on_an_ordinary_one torn down",
        "on_top torn down",
        "gives torn down at 2.0",
    ]
    log.clear()


def test_parameters(letter):
    yield
    assert letter in "ab"


class TestMethods:
    @fixture
    def mine(self):
        self.value = 5
        yield Sleep(1)
        yield give(self)

    @pytest.fixture
    async def mine_async(self):
        self.other = 6
        yield self

    def test_it_is_of_this_instance(self, mine, mine_async):
        yield
        assert mine is self is mine_async
        assert (self.value, self.other) == (5, 6)


@fixture(autouse=True)
def always():
    yield give(None)


# Blocks around a give -----------------------------------------------------------------------------


@fixture
def in_blocks():
    with move_on_after(1e6), TaskGroup() as group:
        group.spawn(Sleep(10).__iter__())
        with timeout(1e6):
            yield give(group)
        yield from group


def test_blocks_are_open_around_a_give(in_blocks):
    yield Sleep(100)
    assert in_blocks


def fail_after(seconds):
    yield Sleep(seconds)
    raise LookupError("a child has failed")


@fixture
def a_group_that_fails():
    with TaskGroup() as group:
        group.spawn(fail_after, 10)
        yield give(None)
        yield from group


def test_what_it_stands_on_fails(a_group_that_fails):
    """call fails: LookupError: a child has failed"""
    yield Sleep(100)


def test_it_had_failed_too_late(a_group_that_fails):
    """teardown fails: LookupError: a child has failed"""
    yield Sleep(1)


def test_the_test_has_its_own_failure(a_group_that_fails):
    """
    call fails: KeyError: 'mine'
    teardown fails: LookupError: a child has failed
    """
    try:
        yield Sleep(100)
    finally:
        raise KeyError("mine")


@fixture
def needs_it(a_group_that_fails):
    yield Sleep(100)
    yield give(None)


def test_a_fixture_that_stands_on_it(needs_it):
    """setup fails: LookupError: a child has failed"""
    yield


@fixture
def spawns_what_fails():
    spawn(fail_after, 5)
    yield give(None)


def test_a_child_that_nobody_joins_fails_the_test(spawns_what_fails):
    """call fails: (?s)tasks failed, and nobody joined them.*a child has failed"""
    yield Sleep(10)


@fixture
def has_nobody_who_joins():
    yield give(None)
    spawn(fail_after, 0)


def test_a_child_of_a_teardown_that_fails(has_nobody_who_joins):
    """teardown fails: (?s)tasks failed, and nobody joined them.*a child has failed"""
    yield


# What goes wrong ----------------------------------------------------------------------------------


@fixture
def fails_in_setup():
    yield
    raise LookupError("in setup")


def test_failing_setup(fails_in_setup):
    """setup fails: LookupError: in setup"""
    yield


@fixture
def fails_in_setup_beside_a_child():
    spawn(Sleep(1e9).__iter__())
    yield
    raise LookupError("beside a child")


def test_failing_setup_beside_a_child(fails_in_setup_beside_a_child):
    """setup fails: LookupError: beside a child"""
    yield


@fixture
def fails_in_teardown():
    yield give(1)
    yield
    raise LookupError("in teardown")


def test_failing_teardown_and_the_next_is_run(gives, fails_in_teardown):
    """teardown fails: LookupError: in teardown"""
    yield


def test_the_next_was_run():
    assert [entry for entry in log if entry.startswith("gives")] == ["gives torn down at 2.0"]
    log.clear()


@fixture
def hangs_in_teardown():
    yield give(1)
    with current_task().scheduler.hold():
        yield from Event().wait()


def test_hanging_teardown(hangs_in_teardown):
    """teardown fails: the teardown of hangs_in_teardown took more than 2 s: wait for <Event"""
    yield


@fixture
def waits_for_ever_in_teardown():
    yield give(1)
    yield from Event().wait()


def test_deadlock_in_teardown(waits_for_ever_in_teardown):
    """teardown fails: Deadlock: no task can ever run again"""
    yield


@fixture
def waits_for_ever_in_setup():
    yield from Event().wait()


def test_deadlock_in_setup(waits_for_ever_in_setup):
    """setup fails: Deadlock: no task can ever run again"""
    yield


@fixture
def gives_twice():
    yield give(1)
    yield give(2)


def test_gives_twice(gives_twice):
    """teardown fails: gives_twice gives twice"""
    yield


@pytest.fixture
async def yields_twice():
    yield 1
    yield 2


def test_yields_twice(yields_twice):
    """teardown fails: yields_twice gives twice"""
    yield


@fixture
def lets_a_child_give():
    def child():
        yield give(1)

    yield from spawn(child)


def test_a_child_gives(lets_a_child_give):
    """setup fails: give\\(\\) was called by child#\\d+, which is no fixture"""
    yield


@fixture
def yields_a_value():
    yield 5


def test_a_yielded_value(yields_a_value):
    """setup fails: (?s)which is not a trap.*to hand a value to the test: `yield give"""
    yield


@fixture
def is_cancelled():
    current_task().cancel("by itself")
    yield Sleep(1)


def test_a_cancelled_setup(is_cancelled):
    """setup fails: TaskCancelled: .*by itself"""
    yield


@fixture
def is_left_with_children():
    def forever():
        yield Sleep(1e9)

    yield give(1)
    spawn(forever, name="lingers")


def test_children_of_a_teardown(is_left_with_children):
    """teardown fails: the body of is_left_with_children is over; it waits for lingers#"""
    yield


def test_asked_for_in_the_middle(request):
    """call fails: gives cannot begin in here: a scheduler already runs in this thread"""
    yield
    request.getfixturevalue("gives")


def test_a_plain_test_may_use_one(gives):
    assert gives == "given"
