"""A run that is not recorded pays nothing, and one that is does what it does anyway."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from corolib import Cancelled, ReadWait, Sleep, current_task, move_on_after, run, spawn
from corolib.trace import Trace
from tests.helpers.driving import FULL, turns
from tests.helpers.odd import Unequal
from tests.helpers.untraced import UNTRACED
from tests.trace.test_events import of, traced

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import gc
import socket
import sys
from corolib import Stream, run, spawn
if sys.argv[1] == "imported":
    import corolib.trace

def give_way(count):
    for _ in range(count):
        yield

def answer(stream):
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data)

def echo(count):
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    one, other = map(Stream, ends)
    task = spawn(answer, other)
    for _ in range(count):
        yield from one.sendall(bytes(1024))
        yield from one.recv(65536)
    one.close()
    yield from task

gc.disable()  # which would come in one run and not in the other
run(globals()[sys.argv[2]], int(sys.argv[3]))
"""
FEW, MANY = 500, 2500


def counted(word, what, count):
    """Return the user instructions that the program takes. What the allocator of Python does
    depends on where it happens to find room: the one of the C library takes as long each time.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COROLIB_")}
    env = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", "PYTHONMALLOC": "malloc"}
    done = subprocess.run(
        [
            *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
            *(sys.executable, "-c", PROGRAM, word, what, str(count)),
        ],
        env={**plain, **env, "COROLIB_DEBUG": "0"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


@pytest.mark.skipif(not FULL, reason="valgrind takes its time: counted under COROLIB_SWEEP=full")
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
@pytest.mark.parametrize(("what", "within"), [("give_way", 0.003), ("echo", 0.01)])
def test_to_have_the_recorder_imported_costs_nothing(what, within):
    def each(word):
        counted(word, what, 1)  # the modules are compiled
        return (counted(word, what, MANY) - counted(word, what, FEW)) / (MANY - FEW)

    # How often the poller sweeps, and files are told to be ready, is up to the clock. To ask
    # whether somebody watches, in a local variable, would be one in sixty of a give-way.
    assert each("imported") == pytest.approx(each("plain"), rel=within)


def test_who_is_left_out_of_the_recorded_run_of_the_tests_exists():
    for name in UNTRACED:
        path, _, function = name.partition("::")
        assert f"\ndef {function}(" in (ROOT / path).read_text("utf-8"), name


# What a program gets wrong ------------------------------------------------------------------------


class Hashless(type):
    def __hash__(cls):
        raise RuntimeError("no hash")


class Odd(metaclass=Hashless):
    pass


def changed():
    trap = Sleep(1)
    trap.seconds = "soon"
    return trap


@pytest.mark.parametrize(
    "trap", [changed(), Sleep(1e300), Sleep(-1e300), Odd(), ReadWait(None), "text"]
)
def test_whatever_is_yielded_does_what_it_does_unrecorded(trap):
    def child():
        try:
            yield trap
        except Exception as exc:
            return str(exc)
        except Cancelled:
            return "cancelled"
        else:
            return "resumed"

    def main():
        task = spawn(child)
        yield from turns(2)
        task.cancel()
        return (yield from task)

    results = [run(main), run(main, trace=Trace())]
    assert results[0] == results[1]


def test_a_deadline_long_ago_and_one_that_never_comes_have_no_time():
    def main():
        for at in (-1e300, 1e300):
            with move_on_after(at=at):
                yield
        return current_task().name

    trace = traced(main)
    assert trace.left is None
    assert ["at" in event for event in of(trace, "scope.enter")] == [False, False]


def test_an_error_that_is_neither_true_nor_false_leaves_the_run():
    error = Unequal()

    def main():
        raise error
        yield

    trace, caught = Trace(), None
    try:
        run(main, trace=trace)
    except BaseException as exc:
        caught = exc
    assert caught is error
    assert of(trace, "end") == [{"reason": "Unequal"}]


def test_a_selector_that_is_none_is_named():
    with pytest.raises(TypeError, match="selector"):
        run(turns, 1, selector=5, trace=Trace())


def test_a_scheduler_of_ones_own_has_its_files_noted(pair):
    a, b = pair
    b.send(b"x")
    trace = Trace()
    scheduler = trace.scheduler()

    def main():
        yield ReadWait(a)

    scheduler.spawn(main)
    scheduler.open()
    while scheduler.tasks:
        scheduler.turn()
    scheduler.close()
    assert {"files": [[a.fileno(), "r"]], "count": 1} in of(trace, "polled")
    assert [event["why"] for event in of(trace, "wake")] == ["new", "io"]
