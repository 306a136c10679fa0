"""What stands for `typing` at run time: it can be subscripted, and looked at."""

import typing

import pytest

from corolib import Coro, Queue, Suspend, Task, waits

T = typing.TypeVar("T")


@pytest.mark.parametrize("kind", [Task, Suspend, Queue], ids=lambda kind: kind.__name__)
def test_a_class_can_be_subscripted_and_derived_from(kind):
    class Mine(kind[int]):
        pass

    assert Mine.__mro__[1] is kind
    assert typing.get_origin(kind[int]) is kind
    assert typing.get_args(kind[int]) == (int,)
    assert kind[T][str] == kind[str]


def test_what_a_task_function_returns_can_be_subscripted_and_looked_at():
    def lengths(task: Task[str]) -> Coro[list[int]]:
        raise NotImplementedError

    hints = typing.get_type_hints(lengths)
    assert hints["task"] == Task[str]
    assert typing.get_args(hints["return"])[2] == list[int]
    assert Coro[T][int] == Coro[int]
    assert "~T" in repr(Coro)
    with pytest.raises(TypeError):
        Coro[int, str]


def test_the_kernels_own_hints_can_be_looked_at():
    assert typing.get_args(typing.get_type_hints(Task.stop)["return"])[2] is object
    assert "function" in typing.get_type_hints(waits)
