"""Timeouts and shields: the law of scopes sentence by sentence, and blocks that go astray."""

import contextlib
import functools
import gc
import itertools
import math
import re
import sys

import pytest

from corolib import (
    Barrier,
    Cancelled,
    Event,
    Lock,
    Queue,
    ReadWait,
    Result,
    ScopeError,
    Semaphore,
    Sleep,
    Suspend,
    TaskCancelled,
    TaskGroup,
    Topic,
    current_scheduler,
    current_task,
    gather,
    move_on_after,
    now,
    run,
    shield,
    spawn,
    timeout,
    waits,
)
from corolib.kernel.waits import DEBUG
from corolib.testing import virtual_time
from tests.helpers.driving import FULL, go, sleeper
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import timers_of


def line(offset=0):
    """The number of the line of the caller, and `offset`."""
    return sys._getframe(1).f_lineno + offset


# The law ------------------------------------------------------------------------------------------


def test_law_scopes_they_are_plain_with_blocks():
    def main():
        with timeout(5) as a, move_on_after(5) as b, shield() as c:
            yield Sleep(1)
        return type(a), type(b), type(c)

    assert go(main) == (timeout, move_on_after, shield)


def test_law_scopes_a_timeout_raises_and_move_on_after_goes_on_behind_the_block():
    def main():
        with pytest.raises(TimeoutError) as caught:
            with timeout(5):
                yield Sleep(60)
        assert type(caught.value) is TimeoutError and now() == 5
        assert isinstance(caught.value.__cause__, Cancelled)
        with move_on_after(5) as scope:
            yield Sleep(60)
        return scope.expired, now()

    assert go(main) == (True, 10)


@pytest.mark.hazard("H36")
@pytest.mark.parametrize(("outer", "inner"), [(0.01, 1), (1, 0.01), (0.5, 0.5)])
def test_law_scopes_the_scope_whose_deadline_passed_is_the_one_that_catches(outer, inner):
    def main():
        with move_on_after(outer) as a:
            with move_on_after(inner) as b:
                yield Sleep(60)
            assert now() == inner
            yield Sleep(60)
        at = now()
        yield Sleep(60)  # nothing comes later
        return a.expired, b.expired, at

    # of equal ones the outer catches, since the inner is abandoned with it; exactly once
    assert go(main) == (True, inner < outer, outer)


@pytest.mark.hazard("H36")
def test_law_scopes_nested_scopes_never_take_each_others_blame():
    said = []

    def main():
        try:
            with timeout(1):
                try:
                    with timeout(2):
                        yield Sleep(60)
                except TimeoutError as exc:
                    said.append(f"inner: {exc}")
        except TimeoutError as exc:
            said.append(f"outer: {exc}")

    go(main)
    assert len(said) == 1 and said[0].startswith("outer: timeout of 1 s, ")


@pytest.mark.hazard("H36")
@pytest.mark.parametrize("late", [{"seconds": 0}, {"seconds": -1}, {"at": 3}, {"at": -1e300}])
def test_law_scopes_a_deadline_in_the_past_fires_at_the_first_wait(late):
    armed = []

    def main():
        yield Sleep(4)
        with move_on_after(**late) as scope:
            armed.append("the block begins")
            assert scope.remaining() == 0
            yield Suspend(armed.append, "never made")
        return scope.expired, now()

    assert go(main) == (True, 4)
    assert armed == ["the block begins"]


@pytest.mark.hazard("H36")
def test_law_scopes_a_timeout_armed_again_in_finally_catches_its_own():
    """And so it does in each round of a loop."""
    log = []

    def main():
        for _ in range(3):
            with move_on_after(1) as outer:
                try:
                    yield Sleep(60)
                finally:
                    with move_on_after(0.5) as inner:
                        yield Sleep(60)
                    log.append((inner.expired, now()))
            log.append((outer.expired, now()))

    go(main)
    assert log == [(True, at) for at in (1.5, 1.5, 3, 3, 4.5, 4.5)]


def test_law_scopes_a_block_left_before_its_cancel_was_delivered_was_in_time():
    def main():
        with timeout(1) as scope:
            current_scheduler().clock.move(2)  # computing, past the deadline
        yield
        assert not scope.expired
        with timeout(0):
            pass
        yield

    go(main)


def test_law_scopes_a_result_that_came_first_is_in_time():
    def main():
        wakes = []
        with timeout(1) as scope:
            current_scheduler().call_at(now() + 1, lambda _: wakes[0]("just"), None)
            # the deadline was set first, so it fires first: set the wake's a moment earlier
            current_scheduler().call_at(now() + 0.5, lambda _: clock.move(0.5), None)
            value = yield Suspend(lambda wake: wakes.append(wake) or list, "a wake", outside=True)
        return value, scope.expired

    options = virtual_time()
    clock = options["clock"]
    with pytest.raises(TimeoutError):
        run(main, **options)

    def other():
        wakes = []
        current_scheduler().call_at(1, lambda _: wakes[0]("just"), None)
        with timeout(1) as scope:
            value = yield Suspend(lambda wake: wakes.append(wake) or list, "a wake", outside=True)
        return value, scope.expired

    assert go(other) == ("just", False)


def test_law_scopes_a_scope_bounds_its_own_task_only():
    def main():
        with move_on_after(1) as scope:
            task = spawn(sleeper, 5, "whole")
            yield Sleep(60)
        assert scope.expired
        return (yield from task), now()

    assert go(main) == ("whole", 5)


def test_law_scopes_the_message_says_how_long_where_and_what_for(pair):
    a, _ = pair
    lines = []

    def handler():
        lines.append(line(1))
        with timeout(5):
            yield ReadWait(a)

    def main():
        with pytest.raises(TimeoutError) as caught:
            yield from handler()
        return str(caught.value)

    assert go(main) == (
        f"timeout of 5 s, opened in handler (test_timeouts.py:{lines[0]}), expired while waiting "
        f"for ReadWait(<socket fd={a.fileno()}>)"
    )


def test_the_message_with_a_deadline_and_without_a_wait():
    def main():
        yield Sleep(2)
        with pytest.raises(TimeoutError) as caught:
            with timeout(at=1):
                yield Sleep(60)
        return str(caught.value)

    assert re.fullmatch(
        r"timeout of at=1\.0, opened in main \(test_timeouts\.py:\d+\), expired", go(main)
    )


def test_the_message_names_the_first_wait_not_that_of_the_clean_up():
    def main():
        with pytest.raises(TimeoutError) as caught:
            with timeout(1):
                try:
                    yield Sleep(50)
                finally:
                    yield Sleep(60)  # longer than the grace
        return str(caught.value), now()

    said, at = go(main)
    assert said.endswith("expired while waiting for Sleep(50.0)") and at == 2


def test_no_limit():
    def main():
        for scope in (timeout(None), timeout(), timeout(math.inf), timeout(at=math.inf)):
            assert scope.remaining() == math.inf
            with scope:
                assert scope.remaining() == math.inf
                assert len(timers_of(current_scheduler())) == 0
                yield Sleep(1e6)
            assert not scope.expired

    go(main)


def test_remaining_counts_down_to_zero():
    seen = []

    def main():
        scope = move_on_after(5)
        seen.append(scope.remaining())
        seen.append(move_on_after(-3).remaining())
        with scope:
            seen.append(scope.remaining())
            yield Sleep(2)
            seen.append(scope.remaining())
            yield Sleep(60)
        seen.append(scope.remaining())
        seen.append(timeout(at=9).remaining())
        spawned = yield from spawn(other, scope)
        seen.append(spawned)

    def other(scope):
        yield
        return scope.remaining()

    go(main)
    assert seen == [5, 0, 5, 3, 0, 4, 0]


def test_remaining_works_in_a_callback_between_two_steps():
    seen = []

    def main():
        with timeout(5) as scope:
            current_scheduler().call_at(2, lambda _: seen.append(scope.remaining()), None)
            yield Sleep(3)

    go(main)
    assert seen == [3]


@pytest.mark.parametrize("make", [timeout, move_on_after, shield])
def test_what_is_no_number_of_seconds_is_refused(make):
    for bad in ("1", True, b"1", [], math.nan, -math.inf):
        with pytest.raises((TypeError, ValueError), match=rf"^{make.__name__}\(\) got"):
            make(bad)
    if make is not shield:
        with pytest.raises(ValueError, match=rf"^{make.__name__}\(at=\) got nan as a deadline"):
            make(at=math.nan)
        with pytest.raises(TypeError, match="takes a duration, or a deadline as at=, not both"):
            make(1, at=1)


def test_a_block_is_entered_once():
    def main():
        scope = timeout(5)
        with scope:
            yield
        with pytest.raises(RuntimeError, match="timeout of 5 s was entered before: make a new one"):
            with scope:
                pass
        assert current_task().innermost is None

    go(main)


def test_outside_a_run_there_is_nothing_to_bound():
    with pytest.raises(RuntimeError, match="no scheduler runs"):
        with timeout(5):
            pass
    with pytest.raises(RuntimeError, match="no scheduler runs"):
        timeout(at=5).remaining()


def test_other_exceptions_pass_and_a_swallowed_cancel_does_not_count_as_expired():
    def main():
        with pytest.raises(KeyError):
            with timeout(5):
                raise KeyError
        with move_on_after(1) as scope:
            try:
                yield Sleep(60)
            except Cancelled:
                pass
        assert not scope.expired
        with pytest.raises(ZeroDivisionError):
            with timeout(1):
                try:
                    yield Sleep(60)
                except Cancelled:
                    1 / 0
        yield Sleep(60)  # nothing comes later

    go(main)


# Cancel at every step -----------------------------------------------------------------------------


# Shields ------------------------------------------------------------------------------------------


def test_a_shield_puts_off_a_timeout_around_it_for_the_grace():
    def main():
        with move_on_after(1) as scope:
            with shield():
                yield Sleep(1.5)
            assert now() == 1.5
            yield Sleep(60)
        assert scope.expired and now() == 1.5
        with move_on_after(1) as scope:
            with shield():
                yield Sleep(60)
        assert scope.expired
        return now()

    assert go(main) == 1.5 + 1 + 1


def test_a_shield_without_bound_and_one_of_so_many_seconds():
    def main():
        with move_on_after(1):
            with shield(math.inf):
                yield Sleep(100)
            assert now() == 100
            yield Sleep(1)
        assert now() == 100
        with move_on_after(1):
            with shield(7):
                yield Sleep(100)
        return now()

    assert go(main) == 108


def test_a_shield_lets_a_timeout_inside_it_through():
    def main():
        with shield(math.inf):
            with move_on_after(1) as scope:
                yield Sleep(100)
        return scope.expired, now()

    assert go(main) == (True, 1)


def test_a_shield_says_what_it_is():
    def main():
        yield
        with shield() as block:
            assert block.shield == current_scheduler().grace
            assert repr(block) == "shield"
        assert repr(timeout(2.5)) == "timeout of 2.5 s"
        assert repr(move_on_after(at=3)) == "move_on_after of at=3.0"

    go(main, grace=3)


# Astray -------------------------------------------------------------------------------------------


def lines_of(seconds, places):
    places.append(line(1))
    with timeout(seconds):
        yield Sleep(0.5)
        yield "a value"
        yield Sleep(0.5)


def consume(seconds, places, wait):
    """Iterate over a generator that yields from inside its block, and wait in the loop."""
    for x in lines_of(seconds, places):
        if x == "a value":
            places.append(line(1))
            yield wait


def test_law_scopes_a_value_yielded_from_inside_a_scope_is_refused_in_the_consumer():
    places = []

    def main():
        for x in lines_of(5, places):
            if isinstance(x, Sleep):  # a mistake of its own: the wait of another generator
                continue
            places.append(line(1))
            yield Sleep(60)

    with pytest.raises(ScopeError) as caught:
        go(main)
    opened, consumer = places
    assert str(caught.value) == (
        f"timeout of 5 s, opened in lines_of (test_timeouts.py:{opened}), is still open in a "
        f"generator that has yielded to its consumer, at test_timeouts.py:{consumer}: it would "
        "bound the consumer. Yield values outside the block"
    )


def test_law_scopes_it_is_refused_at_the_next_wait_in_debug_mode_else_at_the_cancel():
    seen = []

    def main():
        try:
            yield from consume(5, [], Sleep(60))
        except ScopeError:
            seen.append(now())
            yield Sleep(100)  # the block bounds nobody any more
            seen.append(now())

    go(main)
    assert seen == ([0, 100] if DEBUG else [5, 105])


def test_law_scopes_without_a_cancel_only_debug_mode_minds():
    def main():
        try:
            yield from consume(5, [], Sleep(1))
            return "not seen"
        except ScopeError:
            return "seen"

    assert go(main) == ("seen" if DEBUG else "not seen")


def test_law_scopes_leaving_out_of_order_is_refused():
    places = []

    def main():
        yield
        outer, inner = timeout(5), move_on_after(6)
        places.append(line(1))
        outer.__enter__()
        inner.__enter__()
        with pytest.raises(ScopeError) as caught:
            outer.__exit__(None, None, None)
        assert str(caught.value) == (
            f"timeout of 5 s, opened in main (test_timeouts.py:{places[0]}), is left while "
            f"move_on_after of 6 s, opened in main (test_timeouts.py:{places[0] + 1}), is still "
            "open inside it"
        )
        yield Sleep(5.5)  # the one that was left no longer bounds
        inner.__exit__(None, None, None)
        assert current_task().innermost is None
        yield Sleep(60)

    go(main)


def test_out_of_order_among_three_takes_off_the_right_one():
    def main():
        yield
        a, b, c = blocks = [move_on_after(5), move_on_after(6), move_on_after(7)]
        for block in blocks:
            block.__enter__()
        with pytest.raises(ScopeError, match="is left while move_on_after of 6 s"):
            a.__exit__(None, None, None)
        assert current_task().innermost is c and c.outer is b and b.outer is current_task()
        with pytest.raises(ScopeError, match="is left while move_on_after of 7 s"):
            b.__exit__(None, None, None)
        assert current_task().innermost is c and c.outer is current_task()
        c.__exit__(None, None, None)
        assert current_task().innermost is None
        with shield() as shielded:
            pass
        for block in [*blocks, shielded]:  # once more changes nothing
            block.__exit__(None, None, None)

    go(main)


def test_a_consumer_that_goes_on_is_bound_neither_by_the_block_nor_by_its_cancel():
    log = []

    def main():
        source = lines_of(1, [])
        for x in source:
            if x == "a value":
                break
        with move_on_after(50) as own:
            with pytest.raises(ScopeError):
                yield Sleep(60)
            yield Sleep(5)  # longer than a grace
            log.append("went on")
            yield Sleep(100)
        assert own.expired and now() == 50
        source.close()
        yield Sleep(1)

    go(main)
    assert log == ["went on"]


def test_a_cancel_of_the_consumer_is_a_cancel():
    def child():
        with contextlib.suppress(ScopeError):
            yield from consume(50, [], Sleep(60))
        yield Sleep(1000)

    def main():
        task = spawn(child)
        yield Sleep(1)
        assert (yield from task.stop()) is None
        assert task.cancelled

    go(main)


@contextlib.contextmanager
def limit(seconds):
    with timeout(seconds) as scope:
        yield scope


@contextlib.contextmanager
def doubly(seconds):
    with limit(seconds) as scope:
        yield scope


class Limit(contextlib.ContextDecorator):
    """A context manager in the form of a class."""

    def __enter__(self):
        self.scope = timeout(5)
        return self.scope.__enter__()

    def __exit__(self, *exc):
        return self.scope.__exit__(*exc)


def source_of_a_contextmanager():
    with doubly(5):
        yield "a value"


def source_of_a_class():
    with Limit():
        yield "a value"


def source_of_an_exit_stack():
    with contextlib.ExitStack() as stack:
        stack.enter_context(timeout(5))
        yield "a value"


def source_of_a_contextmanager_on_an_exit_stack():
    with contextlib.ExitStack() as stack:
        stack.enter_context(doubly(5))
        yield "a value"


def source_of_a_class_on_an_exit_stack():
    with contextlib.ExitStack() as stack:
        stack.enter_context(Limit())
        yield "a value"


def source_of_a_plain_function():
    def enter(stack):
        stack.enter_context(doubly(5))

    with contextlib.ExitStack() as stack:
        enter(stack)
        yield "a value"


def source_of_wrappers():
    """Functions of functools that call, in Python, what enters the block."""

    @functools.singledispatch
    def enter(scope, stack):
        stack.enter_context(scope)

    with contextlib.ExitStack() as stack:
        functools.partial(functools.cache(enter), timeout(5), stack)()
        yield "a value"


def source_of_calls_by_hand():
    scope = timeout(5)
    scope.__enter__()
    yield "a value"
    scope.__exit__(None, None, None)


def named(prefix):
    """Return the functions of this file whose names begin so, up to here."""
    return [value for name, value in globals().items() if name.startswith(prefix)]


@pytest.mark.found("T13")
@pytest.mark.parametrize("source", named("source_"))
def test_law_scopes_it_is_refused_whatever_stands_between_the_block_and_its_generator(source):
    """contextlib, a class, a plain function: whose block it is, is the generator that yields."""

    def main():
        for _ in source():
            with pytest.raises(ScopeError, match=rf"^timeout of 5 s, opened in {source.__name__} "):
                yield Sleep(60)
            assert now() == (0 if DEBUG else 5)
            yield Sleep(60)  # nobody is bounded any more

    go(main)


DECORATORS = [lambda: doubly(5), Limit]
OF_THIS_FILE = r"^timeout of 5 s, opened in \w+ \(test_timeouts.py:\d+\)"
HELD = sys.version_info >= (3, 15)  # by decorators of contextlib, until a generator is over


@pytest.mark.found("T13")
@pytest.mark.parametrize("decorator", DECORATORS)
def test_the_block_of_a_decorator_bounds_no_consumer(decorator):
    """From Python 3.15 on, a generator in contextlib holds it open. Before, it was over with the
    call that made the generator, and bounded nothing at all.
    """

    @decorator()
    def source():
        yield "a value"

    def main():
        for _ in source():
            if HELD:
                with pytest.raises(
                    ScopeError, match=r"5 s, opened in \w+ \(test_timeouts.py:\d+\)"
                ):
                    yield Sleep(60)
            yield Sleep(60)

    go(main)


@pytest.mark.found("T13")
@pytest.mark.parametrize("decorator", DECORATORS)
def test_the_block_of_a_decorator_bounds_the_task_that_runs_its_generator(decorator):
    @decorator()
    def late():
        yield Sleep(60)

    def main():
        if HELD:
            with pytest.raises(TimeoutError, match=OF_THIS_FILE):
                yield from late()
        else:
            yield from late()

    go(main)


def bounded(wait=True):
    """A generator as it should be: values outside, waits inside."""
    for n in range(3):
        with timeout(50):
            if wait:
                yield Sleep(1)
        yield n


def with_contextmanager():
    with limit(5) as scope:
        yield Sleep(1)
    with doubly(5) as scope:
        yield Sleep(1)
    with pytest.raises(TimeoutError, match=r"opened in with_contextmanager \(.*\), expired"):
        with doubly(5):
            yield Sleep(60)
    with move_on_after(5) as scope, doubly(10):
        yield Sleep(60)
    assert scope.expired


def with_exit_stack():
    with contextlib.ExitStack() as stack:
        scope = stack.enter_context(move_on_after(5))
        stack.enter_context(timeout(50))
        stack.enter_context(doubly(60))
        yield Sleep(10)
    assert scope.expired


def with_exit_stack_of_a_function():
    def enter(stack):
        return stack.enter_context(move_on_after(5))

    with contextlib.ExitStack() as stack:
        scope = enter(stack)
        yield Sleep(60)
    assert scope.expired


def with_exit_stack_of_a_generator_that_is_over():
    def enter(stack, fail):
        scope = stack.enter_context(move_on_after(5))
        yield Sleep(1)
        if fail:
            raise KeyError
        return scope

    with contextlib.ExitStack() as stack:
        scope = yield from enter(stack, False)
        with contextlib.suppress(KeyError):
            yield from enter(stack, True)
        yield Sleep(1)
        yield Sleep(60)
    assert scope.expired


def with_exit_stack_closed_elsewhere():
    def close(stack):
        yield Sleep(1)
        stack.close()

    stack = contextlib.ExitStack()
    stack.enter_context(timeout(5))
    yield Sleep(1)
    yield from close(stack.pop_all())
    yield Sleep(60)


def with_nested_generators():
    def inner():
        with timeout(5):
            yield Sleep(1)
            yield from deeper()

    def deeper():
        with move_on_after(2) as scope:
            yield Sleep(10)
        return scope.expired

    with timeout(20):
        yield from inner()


def with_a_decorator():
    @doubly(5)
    def inner():
        yield Sleep(1)
        return "inner"

    @Limit()
    def inmost():
        return (yield from inner())

    assert (yield from inmost()) == "inner"
    with limit(5):
        assert (yield from inmost()) == "inner"


def with_a_class():
    with Limit():
        yield Sleep(1)
    with pytest.raises(TimeoutError):
        with Limit():
            yield Sleep(60)


def with_a_generator_that_is_consumed():
    total = 0
    for x in bounded(wait=False):
        total += x
        yield Sleep(1)
    assert total == 3


def with_an_iterator_of_c():
    with timeout(5):
        yield from itertools.chain([Sleep(1)], [Sleep(1)])
    with pytest.raises(TimeoutError):
        with timeout(5):
            yield from itertools.chain([Sleep(60)])


def with_a_generator_closed_by_the_collector():
    source = bounded()
    next(source)
    loop = [source]
    loop.append(loop)
    del source, loop
    gc.collect()
    assert current_task().innermost is None
    yield Sleep(60)


def with_a_generator_closed_while_another_block_is_open():
    source = bounded()
    next(source)
    with timeout(70) as inner:
        source.close()  # it has no say in the order
        assert current_task().innermost is inner and inner.outer is current_task()
        yield Sleep(60)


@pytest.mark.parametrize(
    "scenario",
    named("with_"),
)
def test_no_false_alarm(scenario):
    def main():
        yield from scenario()
        assert current_task().innermost is None
        return "fine"

    assert go(main) == "fine"


@contextlib.asynccontextmanager
async def alimit(seconds):
    with timeout(seconds) as scope:
        await Sleep(0.5)
        yield scope


class AsyncLimit:
    """An asynchronous context manager in the form of a class."""

    async def __aenter__(self):
        self.scope = move_on_after(5)
        self.scope.__enter__()
        await Sleep(1)
        return self.scope

    async def __aexit__(self, *exc):
        return self.scope.__exit__(*exc)


class LimitOfTypes(AsyncLimit):
    """One whose `__aenter__` is a generator."""

    @waits
    def __aenter__(self):
        return (yield from super().__aenter__().__await__())


class Through:
    """Awaits a coroutine in a wrapper's way."""

    def __init__(self, coroutine):
        self.coroutine = coroutine

    def __await__(self):
        return self.coroutine.__await__()


async def apart():
    for n in range(3):
        with timeout(50):
            await Sleep(1)
        yield n


async def awith_manager():
    async with alimit(5):
        await Sleep(1)
    with pytest.raises(TimeoutError):
        async with alimit(5):
            await Sleep(60)


async def awith_exit_stack():
    async def enter(stack):
        return await stack.enter_async_context(alimit(5))

    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(timeout(50))
        await stack.enter_async_context(alimit(10))
        await enter(stack)
        await Sleep(1)
    with pytest.raises(TimeoutError):
        async with contextlib.AsyncExitStack() as stack:
            await enter(stack)
            await Sleep(60)


async def awith_class():
    async with AsyncLimit() as scope:
        await Sleep(1)
        await Sleep(60)
    assert scope.expired


async def awith_wrapper():
    async def inner():
        with move_on_after(5) as scope:
            await Through(deeper())
        return scope.expired

    async def deeper():
        with timeout(50):
            await Sleep(10)

    assert await Through(inner())


async def awith_generator():
    async for _ in apart():
        await Sleep(60)
    source = apart()
    with move_on_after(1.5) as scope:
        await source.asend(None)
        await anext(source)
    assert scope.expired
    await source.aclose()


async def awith_marked():
    @waits
    def inner():
        with move_on_after(5) as scope:
            yield Sleep(60)
        return scope.expired

    assert await inner()


@pytest.mark.parametrize(
    "scenario",
    named("awith_"),
)
def test_no_false_alarm_in_async_functions(scenario):
    async def main():
        await scenario()
        assert current_task().innermost is None
        return "fine"

    assert go(main) == "fine"


async def asource_of_a_block():
    with timeout(5):
        yield 1


async def asource_of_a_contextmanager():
    async with alimit(5):
        yield 1


async def asource_of_a_class():
    async with AsyncLimit():
        yield 1


async def asource_of_a_function_of_types():
    async with LimitOfTypes():
        yield 1


async def asource_of_an_exit_stack():
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(doubly(5))
        yield 1


async def asource_of_a_contextmanager_on_an_exit_stack():
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(alimit(5))
        yield 1


async def asource_of_a_class_on_an_exit_stack():
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(AsyncLimit())
        yield 1


@pytest.mark.found("T13")
@pytest.mark.parametrize("source", named("asource_"))
def test_an_async_generator_that_yields_from_inside_its_block_is_refused(source):
    async def main():
        async for _ in source():
            with pytest.raises(ScopeError, match=rf"of 5 s, opened in {source.__name__} "):
                await Sleep(60)
            await Sleep(60)

    go(main)


@pytest.mark.found("T13")
@pytest.mark.parametrize("decorator", DECORATORS + [lambda: alimit(5)] * HELD)
def test_the_block_of_a_decorator_bounds_no_consumer_of_an_async_generator(decorator):
    @decorator()
    async def source():
        yield 1

    async def main():
        async for _ in source():
            if HELD:
                with pytest.raises(ScopeError, match=OF_THIS_FILE):
                    await Sleep(60)
            await Sleep(60)

    go(main)


@pytest.mark.found("T13")
@pytest.mark.parametrize(
    ("decorator", "held"), [*((each, HELD) for each in DECORATORS), (lambda: alimit(5), True)]
)
def test_the_block_of_a_decorator_bounds_the_task_that_runs_its_coroutine(decorator, held):
    @decorator()
    async def late():
        await Sleep(60)

    async def main():
        if held:
            with pytest.raises(TimeoutError, match=OF_THIS_FILE):
                await late()
        else:
            await late()

    go(main)


class Late:
    """Waits in a block while it is entered."""

    async def __aenter__(self):
        with move_on_after(5) as scope:
            await Sleep(60)
        return scope.expired

    def send(self, value):
        """Be a task, if not a generator: open a block, and end."""
        with move_on_after(5) as scope:
            raise StopIteration(scope.frame.f_code.co_name)

    throw = close = send


@pytest.mark.found("T13")
def test_whose_a_block_is_is_looked_for_in_its_task_alone():
    def around():  # a generator that runs a scheduler
        yield go(Late().__aenter__)
        yield go(Late())

    assert list(around()) == [True, "send"]


def test_a_helper_that_is_over_is_looked_for_once(monkeypatch):
    asked = []

    def enter(stack):
        stack.enter_context(move_on_after(5))
        yield Sleep(1)

    def main():
        with contextlib.ExitStack() as stack:
            yield from enter(stack)
            block = current_task().innermost
            asked.append(block.is_astray())
            assert block.frame is None
            asked.append(block.is_astray())
            yield Sleep(60)

    go(main)
    assert asked == [False, False]


# What is left behind ------------------------------------------------------------------------------


def leaves_timeouts_in_time():
    def child():
        with timeout(5), move_on_after(6), shield():
            yield Sleep(1)

    for _ in range(500):
        spawn(child)
    yield


def leaves_timeouts_that_fire():
    def child(n):
        if n % 2:
            with move_on_after(0.1) as scope:
                yield Sleep(1)
            assert scope.expired
        else:
            with timeout(0.1):
                yield Suspend(lambda wake: list, "x", outside=True)

    for n in range(500):
        spawn(child, n)
    yield


def leaves_timeouts_around_joins():
    def child():
        with pytest.raises(TimeoutError):
            with timeout(0.1) as scope:
                yield from spawn(sleeper, 1)
        assert scope.waited_for is not None

    for _ in range(250):
        spawn(child)
    yield


def leaves_scope_errors():
    def child():
        source = lines_of(1, [])
        for _ in zip(source, range(2), strict=False):
            pass
        try:
            yield Sleep(60)
        except ScopeError:
            pass

    for _ in range(100):
        spawn(child)
    yield


@pytest.mark.hazard("H55")
@pytest.mark.parametrize(
    "scenario",
    named("leaves_"),
)
def test_timeouts_leave_nothing_to_the_garbage_collector(scenario):
    assert garbage_of(scenario) == []


# What is at hand ----------------------------------------------------------------------------------


def take(lock):
    with (yield from lock):
        pass


def at_hand():
    """Return functions that make the call of an operation which need not wait."""
    queue, topic, event, result = Queue(math.inf), Topic(1, "drop_old"), Event(), Result()
    event.set()
    result.set(1)
    full = Queue(math.inf)
    for n in range(10_000):
        full.put_nowait(n)
    return {
        "get": full.get,
        "put": lambda: queue.put(1),
        "lock": functools.partial(take, Lock()),
        "semaphore": functools.partial(take, Semaphore()),
        "event": event.wait,
        "result": result.wait,
        "barrier": Barrier(1).wait,
        "publish": lambda: topic.publish(1),
        "join": queue.join,
    }


@pytest.mark.found("T9")
@pytest.mark.parametrize("name", at_hand())
def test_a_deadline_that_has_passed_misses_nothing_that_is_at_hand(name):
    def main():
        yield
        operation = at_hand()[name]
        for _ in range(200):
            with move_on_after(0) as scope:
                yield from operation()
                if name != "lock":  # a block may have several
                    yield from operation()
            assert not scope.expired
        return "got all"

    assert go(main) == "got all"


def again_and_again(operation, counts):
    for n in range(1000):
        counts.append(n)
        yield from operation()


def until_late(operation, counts):
    with timeout(0):
        yield from again_and_again(operation, counts)


def until_cancelled(operation, counts):
    current_task().cancel()
    yield from again_and_again(operation, counts)


@pytest.mark.found("T9")
@pytest.mark.parametrize("name", at_hand())
@pytest.mark.parametrize(
    ("greedy", "error"), [(until_late, TimeoutError), (until_cancelled, TaskCancelled)]
)
def test_who_never_waits_is_cut_short_all_the_same(name, greedy, error):
    """It keeps the others from their turns twice as long at most."""

    def main():
        counts = []
        with pytest.raises(error):
            yield from gather(spawn(greedy, at_hand()[name], counts))
        return len(counts)

    assert go(main) <= 128


def test_a_million_timeouts_that_were_in_time_leave_a_small_heap_and_no_growth():
    count = 1_000_000 if FULL else 30_000
    lengths = []

    def main():
        scheduler = current_scheduler()
        for n in range(10):
            for _ in range(count // 10):
                with timeout(5):
                    pass
            yield
            gc.collect()
            lengths.append((timers_of(scheduler).size, len(gc.get_objects()), n))

    go(main)
    assert max(length for length, _, _ in lengths) <= 2 * 1001
    assert lengths[-1][1] - lengths[1][1] < 2 * 1001  # at most the husks


# A block that another task leaves -----------------------------------------------------------------


AT_THE_END = pytest.mark.skipif(DEBUG, reason="debug mode refuses the first task at its next wait")


def passed_on(bound, seconds=1):
    """Wait inside a block twice, and once outside of it."""
    with bound():
        yield Sleep(1)
        yield Sleep(seconds)
    yield Sleep(1)


@AT_THE_END
@pytest.mark.found("T16")
@pytest.mark.parametrize("bound", [lambda: timeout(5), lambda: move_on_after(5), shield, TaskGroup])
def test_law_scopes_a_block_that_another_task_leaves_is_refused_there(bound):
    def finish(body):
        yield from body

    def main():
        body = passed_on(bound)
        yield next(body)
        with pytest.raises(ScopeError, match=r"by task main#1, is left by task finish#2: a block"):
            yield from spawn(finish, body)
        # The block bounds nobody any more.
        yield Sleep(10)
        with timeout(5):
            yield Sleep(1)
        return now()

    assert go(main) == 13


@AT_THE_END
@pytest.mark.found("T16")
@pytest.mark.parametrize("bound", [timeout, move_on_after])
def test_law_scopes_whose_deadline_comes_in_another_task_is_refused_there(bound):
    def finish(body):
        yield from body

    def main():
        body = passed_on(lambda: bound(5), 60)
        next(body)
        task = spawn(finish, body)
        yield Sleep(7)
        assert task.done
        with pytest.raises(ScopeError, match=r"by task main#1, is open in task finish#2: a block"):
            yield from task
        return now()

    lost = []
    assert go(main, on_task_error=lambda task, exc: lost.append(exc)) == 7
    assert [type(exc) for exc in lost] == [ScopeError]


@AT_THE_END
@pytest.mark.found("T16")
def test_a_block_of_a_task_that_is_done_is_refused_where_it_is_left():
    def begin(bodies):
        bodies.append(passed_on(lambda: timeout(5)))
        yield next(bodies[0])

    def main():
        bodies = []
        yield from spawn(begin, bodies)
        with pytest.raises(ScopeError, match=r"by task begin#2, is left by task main#1"):
            yield from bodies[0]

    go(main)


@AT_THE_END
@pytest.mark.found("T16")
def test_a_generator_that_is_thrown_away_by_another_task_is_not_refused():
    def main():
        body = passed_on(lambda: timeout(5))
        next(body)
        yield from spawn(throw_away, [body])
        del body
        yield Sleep(10)
        return now()

    def throw_away(bodies):
        yield
        bodies.pop().close()

    assert go(main) == 10
