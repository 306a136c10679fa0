"""What a task can yield: the traps as objects, made, shown and awaited."""

import pytest

from corolib import ReadWait, Sleep, Suspend, WriteWait, now, spawn
from tests.helpers.driving import go, turn


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Sleep(), TypeError, "either a duration, Sleep(0.5), or a deadline, Sleep(at=t)"),
        (lambda: Sleep(1, at=2), TypeError, "either a duration"),
        (lambda: Sleep("1"), TypeError, "Sleep() got '1' as a duration: write a number of seconds"),
        (lambda: Sleep(True), TypeError, "not a bool"),
        (lambda: Sleep(at=None), TypeError, "either"),
        (lambda: Sleep(at="x"), TypeError, "Sleep(at=) got 'x' as a deadline"),
        (lambda: Sleep(float("nan")), ValueError, "only finite numbers and math.inf will do"),
        (lambda: Sleep(float("-inf")), ValueError, "Sleep() got -inf as a duration"),
        (lambda: Sleep([]), TypeError, "not a list"),
        (lambda: Suspend(5, "x"), TypeError, "arm must be a function of `wake`, not 5"),
    ],
)
def test_traps_made_of_wrong_things(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)


def test_reprs():
    assert repr(Sleep(1)) == "Sleep(1.0)" and repr(Sleep(at=2)) == "Sleep(at=2.0)"
    assert repr(Suspend(list, "acquire <Lock B>")) == "acquire <Lock B>"
    assert repr(ReadWait(3)) == "ReadWait(<int fd=3>)"
    assert repr(WriteWait(None)) == "WriteWait(None)"

    def main():
        task = spawn(giver)
        yield
        assert repr(task.wait) == "give way"
        yield from task

    def giver():
        yield
        yield

    go(main)


def test_traps_can_be_awaited(pair):
    a, b = pair

    async def main():
        await Sleep(1)
        await WriteWait(a)
        a.send(b"x")
        await ReadWait(b)
        assert await Suspend(lambda wake: wake("woken") or list, "x") == "woken"
        return b.recv(5), now()

    assert go(main) == (b"x", 1)


def test_a_bare_yield_of_an_awaitable_is_a_turn():
    class GiveWay:
        def __await__(self):
            yield

    async def main():
        before = turn()
        await GiveWay()
        return turn() - before

    assert go(main) == 1
