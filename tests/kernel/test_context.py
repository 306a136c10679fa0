"""Which scheduler and task run in this thread, and the plain calls that ask."""

import pytest

import corolib
from corolib import Sleep, current_scheduler, current_task, now, spawn
from tests.helpers.driving import go, sleeper


def test_outside_of_a_run_the_plain_calls_say_so():
    calls = (
        lambda: spawn(sleeper),
        now,
        current_task,
        current_scheduler,
        lambda: corolib.close(0),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match=r"no scheduler runs in this thread.*from_thread"):
            call()


def test_in_a_callback_no_task_is_running():
    said = []

    def call():
        try:
            current_task()
        except RuntimeError as exc:
            said.append(str(exc))
        said.append(spawn(sleeper).parent)

    def main():
        current_scheduler().call_soon_threadsafe(call)
        yield Sleep(1)
        return current_task()

    main_task = go(main)
    assert said == [
        "no task is running: this was called between two steps, in a callback",
        main_task,
    ]
