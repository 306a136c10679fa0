"""What goes wrong for one task, whatever object it goes wrong with, concerns that task alone.

Each place in which the library touches an exception of the program's is tried with exceptions that
refuse what is usually asked of them.
"""

import traceback
from concurrent.futures import Future
from functools import partial

import pytest

from corolib import (
    Event,
    Queue,
    Result,
    Sleep,
    Suspend,
    TaskGroup,
    Topic,
    current_scheduler,
    first,
    from_thread,
    gather,
    map_concurrent,
    move_on_after,
    now,
    race,
    run,
    shield,
    spawn,
    timeout,
    to_thread,
    wait_future,
)
from corolib.testing import virtual_time
from tests.helpers.driving import Gate, until
from tests.helpers.odd import ODD, Frozen, Silent


def raising(error, seconds=0.0):
    yield Sleep(seconds)
    raise error


def raised_by(call):
    """Make a call, and return what it raises."""
    try:
        yield from call
    except BaseException as exc:
        return exc


def next_error(f, *args, **options):
    try:
        f(*args, **options)
    except BaseException as exc:
        return exc


def expect(error, call):
    """Have a call raise this very exception; no more is asked of it."""
    assert (yield from raised_by(call)) is error


def of_a_task(error):
    yield from expect(error, spawn(raising, error))


def of_a_task_that_was_done(error):
    group = spawn(raising, error)
    yield from expect(error, group)
    yield from expect(error, group)


def of_gather(error):
    yield from expect(error, gather(raising(error), raising(error, 1)))


def of_a_race(error):
    yield from expect(error, race(raising(error), raising(error, 1)))


def of_concurrent_calls(error):
    yield from expect(error, map_concurrent(partial(raising, error), [0, 1], limit=1))


def of_a_thread(error):
    def work():
        raise error

    yield from expect(error, to_thread(work))


def of_a_task_for_a_thread(error):
    def work(scheduler):
        from_thread(scheduler, raising, error)

    yield from expect(error, to_thread(work, current_scheduler()))


def of_a_future(error):
    future = Future()
    future.set_exception(error)
    yield from expect(error, wait_future(future))


def of_a_wake(error):
    def arm(wake):
        wake(error=error)

    yield from expect(error, Suspend(arm, "a wake"))


def of_an_arm(error):
    def arm(wake):
        raise error

    yield from expect(error, Suspend(arm, "a wake"))


def of_one_of_several(error):
    def arm(wake):
        wake(error=error)

    yield from expect(error, first(Sleep(1), Suspend(arm, "a wake")))


def of_a_result(error):
    result = Result()
    result.fail(error)
    repr(result)
    yield from expect(error, result)
    yield from expect(error, result)


def of_a_hold(error):
    def body():
        with current_scheduler().hold():
            yield
            raise error

    yield from expect(error, body())


def of_a_subscription(error):
    def body():
        with Topic(1).subscribe():
            yield
            raise error

    yield from expect(error, body())


def _of_a_block(error, bound):
    def body():
        with bound():
            yield
            raise error

    yield from expect(error, body())


def of_a_timeout(error):
    yield from _of_a_block(error, partial(timeout, 5))


def of_a_block_to_move_on_from(error):
    yield from _of_a_block(error, partial(move_on_after, 5))


def of_a_shield(error):
    yield from _of_a_block(error, shield)


def of_the_body_of_a_group(error):
    def body():
        with TaskGroup() as group:
            group.spawn(raising, ValueError())
            try:
                yield Sleep(1)
            finally:
                raise error

    yield from expect(error, body())


def of_the_start_of_a_task_in_a_group(error):
    with TaskGroup() as group:
        yield from expect(error, group.start(raising, error))
        yield from group


def of_tasks_in_a_group(error):
    def body():
        with TaskGroup() as group:
            group.spawn(raising, error)
            yield from group

    assert (yield from raised_by(body())).exceptions[0] is error


PLACES = [
    of_a_task,
    of_a_task_that_was_done,
    of_gather,
    of_a_race,
    of_concurrent_calls,
    of_a_thread,
    of_a_task_for_a_thread,
    of_a_future,
    of_a_wake,
    of_an_arm,
    of_one_of_several,
    of_a_result,
    of_a_hold,
    of_a_subscription,
    of_a_timeout,
    of_a_block_to_move_on_from,
    of_a_shield,
    of_the_body_of_a_group,
    of_the_start_of_a_task_in_a_group,
    of_tasks_in_a_group,
]


@pytest.mark.found("T3")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("place", PLACES)
def test_who_waits_gets_that_exception(place, kind):
    ended = []

    def main():
        spawn(neighbour)
        yield from place(kind())
        yield Sleep(10)

    def neighbour():
        yield Sleep(5)
        ended.append(now())

    run(main, on_task_error=lambda task, exc: None, **virtual_time())
    assert ended == [5]


@pytest.mark.found("T3")
def test_an_exit_that_refuses_everything_leaves_run_although_another_one_comes():
    class Exit(SystemExit):
        def __getattribute__(self, name):
            raise RuntimeError(f"no {name}")

    def main():
        for _ in range(2):
            spawn(raising, Exit(), 1)
        yield Sleep(10)

    assert type(next_error(run, main, **virtual_time())) is Exit


def in_a_call(error):
    def call():
        raise error

    current_scheduler().call_soon_threadsafe(call)
    yield Sleep(1)


def in_a_timer(error):
    def call(_):
        raise error

    scheduler = current_scheduler()
    scheduler.call_at(now() + 0.5, call, None)
    yield Sleep(1)


def in_a_task(error):
    spawn(raising, error)
    yield Sleep(1)


def in_a_watch(error):
    def watch(value, failure):
        raise error

    task = spawn(raising, KeyError())
    task.watch(watch)
    yield Sleep(1)


def in_a_group_that_was_left(error):
    def stubborn():
        try:
            yield Sleep(5)
        finally:
            raise error

    def body():
        with TaskGroup() as group:
            group.spawn(stubborn)
            yield
            raise error

    yield from expect(error, body())
    yield Sleep(1)


def in_an_undo(error):
    def undo():
        raise error

    with move_on_after(1):
        yield Suspend(lambda wake: undo, "nothing")


def in_a_thread_that_nobody_waits_for(error):
    gate = Gate(error)
    task = spawn(to_thread(gate))
    yield from until(gate.begun.is_set)
    yield from task.stop()
    gate.go.set()
    yield from until(lambda: LOST)


LOST = []


@pytest.mark.found("T3")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize(
    "place",
    [
        in_a_call,
        in_a_timer,
        in_a_task,
        in_a_watch,
        in_a_group_that_was_left,
        in_an_undo,
        in_a_thread_that_nobody_waits_for,
    ],
)
def test_the_hook_gets_that_exception(place, kind):
    error = kind()
    LOST.clear()
    run(place, error, on_task_error=lambda task, exc: LOST.append(exc), **virtual_time())
    assert any(lost is error for lost in LOST)


@pytest.mark.found("T3")
@pytest.mark.parametrize("kind", ODD)
def test_it_leaves_run(kind):
    error, caught = kind(), None
    try:
        run(raising, error)
    except BaseException as exc:
        caught = exc
    assert caught is error


@pytest.mark.found("T3")
@pytest.mark.parametrize("kind", ODD)
def test_it_is_written_if_the_hook_fails(kind, capfd):
    def hook(task, exc):
        raise exc

    run(in_a_task, kind(), on_task_error=hook, **virtual_time())
    assert capfd.readouterr().err.count("Traceback") == 2


@pytest.mark.found("T3")
@pytest.mark.parametrize("kind", ODD)
def test_it_is_logged_or_at_least_named(kind, capfd, caplog):
    run(in_a_task, kind(), **virtual_time())
    assert kind.__qualname__ in caplog.text + capfd.readouterr().err


@pytest.mark.found("T3")
def test_a_note_on_a_frozen_exception_is_left_out():
    error = Frozen()
    run(in_a_call, error, on_task_error=lambda task, exc: None, **virtual_time())
    assert not hasattr(error, "__notes__")


# Other objects that refuse ------------------------------------------------------------------------


class Mute:
    """Has no text, no truth value, and is equal to nothing."""

    def __repr__(self):
        raise RuntimeError("no repr")

    def __bool__(self):
        raise RuntimeError("no bool")

    def __eq__(self, other):
        raise RuntimeError("no ==")

    __str__ = __repr__
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.found("T3")
def test_a_value_may_be_anything():
    def returning(thing):
        yield
        return thing

    def main():
        thing = Mute()
        queue, result = Queue(1), Result()
        yield from queue.put(thing)
        assert (yield from queue.get()) is thing
        result.set(thing)
        repr(result)
        assert (yield from result) is thing
        assert (yield from spawn(returning, thing)) is thing
        assert (yield from gather(returning(thing)))[0] is thing
        assert (yield from race(returning(thing)))[1] is thing
        assert (yield from to_thread(lambda: thing)) is thing
        with TaskGroup() as group:
            group.spawn(returning, thing)
            assert (yield from group)[0] is thing
        with pytest.raises(TypeError, match="yielded a Mute"):
            yield thing

    run(main)


@pytest.mark.found("T3")
def test_a_reason_may_be_anything():
    def main():
        task = spawn(Event().wait())
        yield
        task.cancel(Mute())
        try:
            yield from task
        except Exception as exc:
            return str(exc)

    assert "whose str fails" in run(main)


@pytest.mark.found("T3")
def test_the_name_of_a_task_is_a_text():
    class Name:
        def __str__(self):
            return "named"

    def main():
        task = spawn(raising, KeyError(), name=Name())
        with pytest.raises(RuntimeError, match="no bool"):
            spawn(raising, KeyError(), name=Mute())
        with pytest.raises(KeyError):
            yield from task
        return task.label

    assert run(main) == "named#2"


@pytest.mark.found("T3")
def test_a_future_may_refuse_to_be_described_and_to_keep_anything():
    class Plain:
        __slots__ = ("call",)

        def __repr__(self):
            raise RuntimeError("no repr")

        def add_done_callback(self, call):
            self.call = call
            call(self)

        def exception(self):
            return error

        def result(self):
            raise AssertionError("it has failed")

    def main():
        for _ in range(3):
            yield from expect(error, wait_future(Plain()))

    error = KeyError()
    run(main)


@pytest.mark.found("T3")
def test_what_runs_without_a_module_of_its_own():
    """As code that `exec` runs may: its frames have no name to look at."""
    space = {"__name__": None, "Sleep": Sleep, "timeout": timeout}
    exec("def body():\n    with timeout(5):\n        yield Sleep(1)\n        raise KeyError", space)

    def main():
        with pytest.raises(KeyError):
            yield from spawn(space["body"])

    run(main, **virtual_time())


# Tracebacks and notes stay as long as what they tell of -------------------------------------------


def entries(error):
    return len(traceback.extract_tb(error.__traceback__))


def again_and_again(wait):
    """Wait a hundred times for what has failed; return the numbers of entries in the tracebacks."""

    def main():
        found = set()
        for n in range(100):
            try:
                yield from wait(n)
            except KeyError as exc:
                if n:
                    found.add(entries(exc))
        return found

    return run(main, on_task_error=lambda task, exc: None, **virtual_time())


def failed_task():
    return spawn(raising, KeyError())


@pytest.mark.found("T7")
def test_a_failed_task_that_is_joined_again_keeps_its_traceback():
    tasks = []

    def join(n):
        tasks.append(tasks[0] if tasks else failed_task())
        yield from tasks[0]

    def result(n):
        tasks.append(tasks[0] if tasks else failed_task())
        yield Sleep(0)
        yield
        return tasks[0].result

    def stop(n):
        tasks.append(tasks[0] if tasks else failed_task())
        yield Sleep(0)
        yield
        yield from tasks[0].stop()

    def together(n):
        tasks.append(tasks[0] if tasks else failed_task())
        yield from gather(tasks[0])

    def against_nobody(n):
        tasks.append(tasks[0] if tasks else failed_task())
        yield from race(tasks[0])

    def from_a_callback(n):
        tasks.append(tasks[0] if tasks else failed_task())
        yield Suspend(lambda wake: tasks[0].watch(wake), "the end of a task")

    for way in (join, result, stop, together, against_nobody, from_a_callback):
        tasks.clear()
        assert len(again_and_again(way)) == 1, way.__name__


@pytest.mark.found("T7")
def test_what_a_task_raised_is_the_end_of_each_traceback():
    def main():
        task = failed_task()
        texts = []
        for _ in range(3):
            try:
                yield from task
            except KeyError as exc:
                texts.append("".join(traceback.format_exception(exc)))
        assert texts[1] == texts[2]
        assert all("raise error" in text for text in texts)

    run(main)


@pytest.mark.found("T7")
@pytest.mark.parametrize("kind", ["raised", "set"])
def test_a_failed_future_that_is_waited_for_again_keeps_its_traceback(kind):
    future = Future()
    try:
        raise KeyError
    except KeyError as exc:
        future.set_exception(exc if kind == "raised" else KeyError())

    def wait(n):
        yield from wait_future(future)

    assert len(again_and_again(wait)) == 1


@pytest.mark.found("T7")
def test_a_failed_result_that_is_waited_for_again_keeps_its_traceback():
    def main():
        result = Result()
        result.fail(KeyError())
        found = set()
        for _ in range(100):
            with pytest.raises(KeyError) as caught:
                yield from result
            found.add(entries(caught.value))
        return found

    assert len(run(main)) == 1


@pytest.mark.found("T7")
def test_only_a_few_failures_are_noted_on_the_error_of_a_body():
    def failing_late():
        try:
            yield Sleep(60)
        finally:
            raise Silent

    def main():
        try:
            with TaskGroup() as group:
                for _ in range(1000):
                    group.spawn(failing_late)
                yield Sleep(1)
                raise KeyError
        except KeyError as exc:
            yield
            return exc.__notes__

    lost = []
    notes = run(main, on_task_error=lambda task, exc: lost.append(exc), **virtual_time())
    assert len(lost) == 1000
    assert len(notes) == 6
    assert notes[-1] == "and so did more of them, which are reported"


@pytest.mark.found("T7")
def test_a_group_that_is_not_waited_for_names_a_few_of_its_tasks():
    def main():
        with pytest.raises(RuntimeError, match="1000 tasks were running") as caught:
            with TaskGroup() as group:
                for _ in range(1000):
                    group.spawn(Event().wait())
                yield
        return str(caught.value)

    assert len(run(main)) < 300
