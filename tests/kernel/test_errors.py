"""The exceptions: of what kind each is, and what it carries."""

import copy
import errno
import pickle

import pytest

from corolib import (
    BusyError,
    Cancelled,
    ClosedError,
    Deadlock,
    IncompleteRead,
    LimitExceeded,
    QueueShutDown,
    RunFinished,
    ScopeError,
    TaskCancelled,
    current_task,
    run,
    spawn,
)
from tests.helpers.driving import go, sleeper


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Cancelled, BaseException),  # so that `except Exception` lets it pass
        (TaskCancelled, Exception),
        (Deadlock, RuntimeError),
        (BusyError, RuntimeError),
        (ScopeError, RuntimeError),
        (RunFinished, RuntimeError),
        (ClosedError, OSError),
    ],
)
def test_each_is_of_its_kind(error, kind):
    assert error.__bases__ == (kind,)


def test_a_closed_error_has_the_number_of_the_operating_system():
    error = ClosedError("the file is closed")
    assert (error.errno, error.strerror) == (errno.EBADF, "the file is closed")


@pytest.mark.parametrize(
    "error",
    [
        Cancelled("why"),
        Deadlock("all of them"),
        BusyError("another"),
        ClosedError("this file"),
        ScopeError("a block"),
        RunFinished(),
        IncompleteRead("too short", 5, b"abc"),
        LimitExceeded("too long", 10, 11),
        QueueShutDown("no more"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_reach_another_process_whole(error):
    error.add_note("a note")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


def test_that_a_task_was_cancelled_can_be_copied_and_reaches_no_other_process():
    def main():
        task = spawn(sleeper, 1)
        task.cancel("why")
        with pytest.raises(TaskCancelled) as caught:
            yield from task
        return caught.value

    error = go(main)
    again = copy.copy(error)
    assert (str(again), again.task, again.reason) == (str(error), error.task, "why")
    with pytest.raises((TypeError, AttributeError)):  # here, and not where it arrives
        pickle.dumps(error)


def test_without_a_reason_the_exception_says_nothing():
    def main():
        current_task().cancel()
        with pytest.raises(Cancelled) as caught:
            yield
        assert caught.value.args == () and caught.value.reason is None
        yield from ()

    go(main)


def test_a_reason_that_cannot_be_put_into_words_ends_nothing():
    class Rude:
        def __str__(self):
            raise ValueError("no words for it")

    def main():
        task = spawn(sleeper)
        yield
        task.cancel(Rude())
        with pytest.raises(TaskCancelled, match=r"was cancelled: a Rude \(whose str fails\)$"):
            yield from task
        return "still here"

    assert run(main) == "still here"
