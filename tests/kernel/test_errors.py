"""The exceptions: of what kind each is, and what it carries."""

import errno

import pytest

from corolib import (
    BusyError,
    Cancelled,
    ClosedError,
    Deadlock,
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
