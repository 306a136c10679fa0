"""What a recorder is told: a subclass of the scheduler notes each moment, and changes nothing."""

from collections import deque

import pytest

from corolib import (
    Event,
    Lock,
    Scheduler,
    Sleep,
    TaskCancelled,
    TaskGroup,
    current_scheduler,
    first,
    spawn,
    timeout,
)
from corolib.testing import virtual_time
from tests.helpers.driving import sleeper


class Noting(deque):
    """A ready queue that notes who becomes ready, and who is taken out to be stepped."""

    def __init__(self, note):
        super().__init__()
        self.note = note

    def append(self, task):
        self.note("ready", getattr(task, "task", task).id)
        super().append(task)


class Recorder(Scheduler):
    """Notes what happens, and leaves all of it to the scheduler."""

    def __init__(self, **options):
        self.events = []
        super().__init__(**options)

    def note(self, *event):
        self.events.append(event)

    def make_ready_queue(self, make):
        super().make_ready_queue(make)
        return Noting(self.note)

    def task_made(self, task):
        self.note("made", task.id, task.name, task.parent and task.parent.id)
        super().task_made(task)

    def make_stepper(self, context):
        step = super().make_stepper(context)

        def noting(f, value):
            task = self.current
            self.note("step", task.id)
            try:
                trap = step(f, value)
            except BaseException as exc:
                self.note("over", task.id, type(exc).__name__)
                raise
            self.note("yield", task.id, type(trap).__name__)
            return trap

        return noting

    def task_done(self, task):
        self.note("done", task.id)
        return super().task_done(task)

    def cancel_asked(self, task, scope, reason):
        self.note("asked", task.id, type(scope).__name__, reason)
        super().cancel_asked(task, scope, reason)

    def cancel_delivered(self, task, scope, error):
        self.note("delivered", task.id, type(scope).__name__, type(error).__name__)
        super().cancel_delivered(task, scope, error)

    def poll(self, timeout, deadline):
        self.note("poll")
        super().poll(timeout, deadline)
        self.note("polled")


def record(main):
    """Run `main` and return what was recorded of it."""
    recorder = Recorder(**virtual_time(), on_task_error=lambda task, exc: None)
    try:
        recorder.run(main)
    except Exception as exc:
        recorder.note("left", type(exc).__name__)
    finally:
        recorder.close()
    return recorder.events


def of(events, *kinds):
    return [event for event in events if event[0] in kinds]


def test_each_moment_in_the_life_of_a_task_is_told_once_and_in_order():
    def child():
        yield Sleep(1)
        return "value"

    def main():
        return (yield from spawn(child))

    events = record(main)
    assert [event for event in events if event[0] not in ("poll", "polled")] == [
        ("made", 1, "main", None),
        ("ready", 1),
        ("step", 1),
        ("made", 2, "child", 1),
        ("ready", 2),
        ("yield", 1, "Join"),
        ("step", 2),
        ("yield", 2, "Sleep"),
        ("ready", 2),
        ("step", 2),
        ("over", 2, "StopIteration"),
        ("done", 2),
        ("ready", 1),
        ("step", 1),
        ("over", 1, "StopIteration"),
        ("done", 1),
    ]
    assert len(of(events, "poll")) == len(of(events, "polled")) == 1


def test_a_cancel_is_told_when_it_is_asked_for_and_when_it_is_delivered():
    def child():
        yield Sleep(100)

    def main():
        task = spawn(child)
        yield
        task.cancel("no more")
        task.cancel("again")
        with pytest.raises(TaskCancelled):
            yield from task
        with pytest.raises(TimeoutError), timeout(1):
            yield Sleep(100)

    assert of(record(main), "asked", "delivered") == [
        ("asked", 2, "Task", "no more"),
        ("delivered", 2, "Task", "Cancelled"),
        ("asked", 1, "timeout", "the deadline has passed"),
        ("delivered", 1, "timeout", "Cancelled"),
    ]


def test_a_deadlock_cancels_all_that_are_left_and_each_is_told():
    def child(event):
        yield from event.wait()

    def main():
        event = Event()
        spawn(child, event)
        yield from event.wait()

    events = record(main)
    assert of(events, "left") == [("left", "Deadlock")]
    assert [event[:2] for event in of(events, "delivered", "done")] == [
        ("delivered", 1),
        ("delivered", 2),
        ("done", 2),
        ("done", 1),
    ]


def test_a_deep_family_is_told_from_the_inside_out():
    depth = 3000  # beyond what can be done by recursion

    def nest(n):
        if n:
            spawn(nest, n - 1)
        return
        yield

    def main():
        spawn(nest, depth)
        return
        yield

    assert [event[1] for event in of(record(main), "done")] == list(range(depth + 2, 0, -1))


def test_a_busy_program_between_two_yields_of_a_task_there_is_one_step_and_one_wake():
    def worker(lock, event, n):
        for _ in range(3):
            with (yield from lock):
                yield
        yield from first(Sleep(n), event.waiting())

    def main():
        lock, event = Lock(), Event()
        with TaskGroup() as g:
            for n in range(1, 6):
                g.spawn(worker, lock, event, n)
            g.spawn(sleeper, 2)
            yield Sleep(3)
            event.set()
            yield from g

    events = record(main)
    state = {}
    for kind, *rest in events:
        if kind in ("ready", "step", "yield", "over"):
            number = rest[0]
            allowed = {
                None: ("ready",),
                "ready": ("step", "ready"),  # a proxy waiter is made ready in its task's name
                "step": ("yield", "over", "ready"),
                "yield": ("ready", "step"),
            }
            assert kind in allowed[state.get(number)], (kind, number)
            if not (kind == "ready" and state.get(number) == "step"):
                state[number] = kind
    assert set(state.values()) == {"over"}
    assert len(of(events, "made")) == len(of(events, "done")) == 7


def test_what_is_spawned_in_a_recorded_run_knows_its_line():
    def main():
        task = spawn(sleeper, 1)
        yield from task
        line = main.__code__.co_firstlineno + 1
        assert task.spawned_at == f"{__file__}:{line}"
        assert isinstance(current_scheduler(), Recorder)

    assert of(record(main), "left") == []
