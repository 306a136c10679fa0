"""`@waits`: a generator function that can be awaited, and is noticed when it never runs."""

import os
import sys
import textwrap

import pytest

from corolib import Scheduler, Task, current_task, spawn
from tests.helpers.children import outside
from tests.helpers.driving import FULL, double, go
from tests.helpers.programs import ROOT, at_terminal, python


def test_library_functions_can_be_awaited_and_delegated_to():
    async def coroutine():
        return await double(await double(1))

    def generator():
        return (yield from double((yield from double(1))))

    assert go(coroutine) == go(generator) == 4


WARNS = {"PYTHONWARNINGS": "default"}


FORGOTTEN = """
    import corolib, gc
    @corolib.waits
    def recv(n):
        yield corolib.Sleep(0)
        return n
    def main():
        recv(9)
        gc.collect()
        x = yield from recv(1)
        y = yield from corolib.spawn(recv, 2)
        print(corolib.spawn(recv, 3).label)
        return x + y
    print(corolib.run(main))
    async def awaits():
        return await recv(4)
    print(corolib.run(awaits), recv.__name__, type(recv(5)).__name__)
"""


@pytest.mark.hazard("H45")
def test_a_forgotten_yield_from_warns_in_debug_mode(tmp_path):
    path = tmp_path / "app.py"
    path.write_text(textwrap.dedent(FORGOTTEN).lstrip())
    code = f"import runpy; runpy.run_path({str(path)!r})"
    _, out, err = python(code, **WARNS, COROLIB_DEBUG="1")
    assert out.splitlines() == ["recv#3", "3", "4 recv generator"]
    assert (
        "RuntimeWarning: recv() was called at app.py:7 but never run; did you forget "
        "`yield from`? Write `yield from recv(9)`"
    ) in err
    assert err.count("RuntimeWarning") == 2  # and that of the last line
    _, out, err = python(code, **WARNS, COROLIB_DEBUG="0")
    assert out.splitlines() == ["recv#3", "3", "4 recv generator"]
    assert err == ""


@pytest.mark.parametrize("made", ["list(map(", "[*map(", "any(map("])
def test_calls_that_python_makes_are_shown_as_a_loop(made, tmp_path):
    path = tmp_path / "app.py"
    line = f"{made}queue.put, [1, 2]" + {"l": "))", "[": ")]", "a": "))"}[made[0]]
    path.write_text(
        f"from corolib import Queue\nqueue = Queue(5)\ndef main():\n    {line}\nmain()\n"
    )
    code = f"import runpy; runpy.run_path({str(path)!r})"
    _, _, err = python(code, **WARNS, COROLIB_DEBUG="1")
    assert "Write `for item in items: yield from put(item)`" in err


@pytest.mark.hazard("H45")
def test_python_x_dev_is_debug_mode_and_code_without_source_warns_too():
    _, out, err = python(FORGOTTEN, "-X", "dev", **WARNS, COROLIB_DEBUG="")
    assert out.splitlines()[0] == "recv#3"
    assert "RuntimeWarning: recv() was called at <string>:8 but never run" in err


@pytest.mark.found("T18")
def test_a_call_that_never_ran_warns_when_the_interpreter_ends(tmp_path):
    """Then nothing can be imported any more, and no file be read."""
    path = tmp_path / "app.py"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COROLIB_DEBUG": ""}
    path.write_text("import corolib\nforgotten = corolib.to_thread(int)\n")
    done = outside([sys.executable, "-X", "dev", str(path)], env=env)
    assert (done.returncode, done.stdout) == (0, "")
    warning, *source = done.stderr.splitlines()
    assert warning == (
        f"{path}:2: RuntimeWarning: to_thread() was called at app.py:2 but never run; did you "
        "forget `run`? Write `forgotten = run(corolib.to_thread(int))`"
    )
    # The interpreter adds it, if it can.
    assert source in ([], ["  forgotten = corolib.to_thread(int)"])
    program = "import corolib; forgotten = corolib.to_thread(int)"
    status, out, err = python(program, "-X", "dev", COROLIB_DEBUG="")
    assert (status, out) == (0, "")
    assert err.startswith(  # there is no file; newer Pythons know the source all the same
        "<string>:1: RuntimeWarning: to_thread() was called at <string>:1 but never run; did you "
        "forget `run`?"
    )


SHOW = "from corolib.kernel.waits import DEBUG; print(DEBUG)"


@pytest.mark.found("E1")
@pytest.mark.parametrize(
    ("options", "wish", "here", "elsewhere"),
    [
        ((), "", "True", "False"),
        ((), "1", "True", "True"),
        ((), "0", "False", "False"),
        (("-O",), "", "False", "False"),
        (("-O",), "1", "False", "False"),
        (("-X", "dev"), "", "True", "True"),
        (("-X", "dev"), "0", "False", "False"),
    ],
)
def test_debug_mode_is_on_where_a_person_looks(options, wish, here, elsewhere, tmp_path):
    path = tmp_path / "show.py"
    path.write_text(SHOW)
    plain = not (options or wish)
    if FULL or plain or here == "False":  # what a terminal alone would not give
        assert at_terminal(path, *options, COROLIB_DEBUG=wish) == f"{here}\n"
    if FULL or plain or elsewhere == "True":  # what a pipe alone would not give
        assert python(SHOW, *options, COROLIB_DEBUG=wish) == (0, f"{elsewhere}\n", "")


LOOP = """
    import corolib
    @corolib.waits
    def recv(n):
        yield corolib.Sleep(0)
    def main():
        yield
        for _ in recv(1):
            pass
    try:
        corolib.run(main)
    except TypeError as exc:
        print(exc)
"""


@pytest.mark.found("E1")
def test_debug_mode_refuses_to_take_traps_for_items(tmp_path):
    path = tmp_path / "app.py"
    path.write_text(textwrap.dedent(LOOP))
    shown = "recv() waits, and gives no items. Write `for _ in (yield from recv(1)):`\n"
    assert at_terminal(path) == shown
    _, out, _ = python(LOOP, COROLIB_DEBUG="1")  # there is no file
    assert out in (shown, "recv() waits, and gives no items. Write `yield from recv()`\n")


GIVEN_UP = """
    import gc
    import corolib
    @corolib.waits
    def work(n):
        yield
    def fails(*_):
        raise TypeError
    def main():
        yield
        for call in (
            lambda: corolib.gather(work(1), fails()),
            lambda: corolib.gather(
                work(2),
                [1 / 0],
            ),
            lambda: corolib.first(corolib.Sleep(1), work(3)),
            lambda: corolib.race(work(4), 5),
            lambda: corolib.gather([work(5), 5]),
            lambda: corolib.timeout(1, work(6)),
        ):
            try:
                yield from call()
            except (TypeError, ZeroDivisionError):
                print("refused")
            gc.collect()
        made = work(8); made = fails
        print(work(9) is None)
        exec("print(work(10) is None)", {"work": work})
    corolib.run(main)
"""


def test_a_call_beside_one_that_fails_does_not_warn(tmp_path):
    path = tmp_path / "app.py"
    path.write_text(textwrap.dedent(GIVEN_UP).lstrip())
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COROLIB_DEBUG": "1"}
    done = outside([sys.executable, str(path)], env=env)
    assert done.stdout.splitlines() == ["refused"] * 6 + ["False"] * 2, done.stderr
    warned = [line for line in done.stderr.splitlines() if "RuntimeWarning: " in line]
    lines = [line.partition(": ")[0].rpartition(":")[2] for line in warned]
    assert lines == ["26", "27", "1"], warned


AGAIN_AND_AGAIN = """
import os, signal, sys
import corolib
signal.signal(signal.SIGINT, signal.default_int_handler)
@corolib.waits
def work():
    yield
@corolib.waits
def tick(n):
    yield
def strikes(*_):
    os.kill(os.getpid(), signal.SIGINT)
count, a = 0, strikes
def main():
    global count
    yield
    if sys.argv[1:]:
        for {name} in map(tick, range(1000)):
            strike()
    while True:
        work()
        strike()
def strike():
    global count
    count += 1
    if count in (100, 200):
        strikes()
    assert count < 300, "a Ctrl-C was lost"
try:
    corolib.run(main)
except KeyboardInterrupt:
    print("ended", count)
"""


@pytest.mark.parametrize(
    ("name", "options", "right"),
    [("t", ["x"], "missed = yield from t"), ("a.b", ["x"], ""), ("t", [], "yield from work()")],
)
def test_a_line_warns_once_and_the_second_ctrl_c_ends_it(name, options, right, tmp_path):
    path = tmp_path / "app.py"
    path.write_text(AGAIN_AND_AGAIN.format(name=name))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COROLIB_DEBUG": "1"}
    done = outside([sys.executable, str(path), *options], env=env)
    assert done.stdout == "ended 200\n", done.stderr
    assert done.stderr.count("RuntimeWarning: ") == 1
    assert ("Write `" in done.stderr) == bool(right)
    assert f"Write `{right}`\n" in done.stderr or not right


IN_A_WARNING = """
import os, signal, warnings
import corolib
signal.signal(signal.SIGINT, signal.default_int_handler)
@corolib.waits
def work():
    yield
def show(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    print("shown")
warnings.showwarning = show
def main():
    yield
    work()
    print("went on")
    while True:
        yield
try:
    corolib.run(main)
except KeyboardInterrupt:
    print("ended")
"""


def test_a_ctrl_c_in_a_warning_is_raised_at_the_next_turn():
    status, out, err = python(IN_A_WARNING, **WARNS, COROLIB_DEBUG="1")
    assert (status, out) == (0, "shown\nwent on\nended\n")
    assert "ignored" not in err


def test_frames_are_the_same_in_both_modes():
    def main():
        task = spawn(outer)
        yield
        yield
        names = [frame.f_code.co_name for frame in task.stack()]
        yield from task
        return names

    def outer():
        yield from double(1)

    assert go(main) == ["outer", "double"]


def test_the_classes_that_the_library_uses_too_show_what_programs_may_use():
    for kind in (Scheduler, Task):
        shown = [name for name in dir(kind) if not name.startswith("__")]
        assert shown == sorted(kind.__documented__.split())
        assert {"__init__", "__repr__"} < set(dir(kind))

    def main():
        yield
        return dir(current_task())

    assert go(main) == dir(Task)


NOT_YIELDED = """
import atexit, corolib
from corolib import *
def main():
    Sleep(0.01)
    for _ in range(2):
        Sleep(0.01)
    yield Sleep(0.01)
    trap = Sleep(1); del trap
    made = Sleep(1)
    made = None
    (yield Sleep(0)), Sleep(0)
    list().append(Sleep(0))
    corolib.Sleep(0.01)
    # What was made elsewhere is dropped here.
    Queue(1).getting()
    kept = [Sleep(1), [Sleep(1)]]
    kept.pop()
    kept.pop()
    dict(a=Sleep(1)).pop("a")
    print(end="", *[Sleep(3)])
    [Sleep(1) for _ in range(2)]
async def awaits():
    Sleep(0.01)
run(main)
run(awaits)
exec("Sleep(2)")  # without its source it is not known that it is this call
atexit.register(Sleep, 3)  # dies where there is no frame
"""


@pytest.mark.found("E1")
def test_a_trap_that_is_made_and_not_yielded_warns_in_debug_mode(tmp_path):
    path = tmp_path / "app.py"
    path.write_text(NOT_YIELDED.lstrip())
    code = f"import runpy; runpy.run_path({str(path)!r})"
    _, _, err = python(code, **WARNS, COROLIB_DEBUG="1")
    said = [
        line.partition("RuntimeWarning: ")[2] for line in err.splitlines() if "Warning: " in line
    ]
    text = "{} was made at {} and not yielded, so nothing waits{}"
    assert "Exception ignored" not in err
    assert said == [
        text.format("Sleep(...)", "app.py:4", ". Write `yield Sleep(0.01)`"),
        text.format("Sleep(...)", "app.py:6", ". Write `yield Sleep(0.01)`"),
        text.format("Sleep(...)", "app.py:13", ". Write `yield corolib.Sleep(0.01)`"),
        text.format("Sleep(...)", "app.py:23", ". Write `await Sleep(0.01)`"),
    ]
    assert python(code, **WARNS, COROLIB_DEBUG="0")[2] == ""


NOT_LOOPED = """
from corolib import *
def once():
    yield
def main():
    every(1)
    as_completed(once(), once())
    every(1) if 0 else as_completed(once())
    for step in as_completed(once(), once()):
        shown = str(step)
    for step in as_completed(once()):
        yield from step
        break
    steps = as_completed(once())
    steps = None
async def awaits():
    as_completed(once())
    for tick in every(1):
        break
    tick = None
    for step in as_completed(once(), once()):
        if step:
            break
run(main)
run(awaits)
"""


@pytest.mark.found("E2")
def test_what_is_made_for_a_loop_and_not_looped_over_warns_in_debug_mode(tmp_path):
    path = tmp_path / "app.py"
    path.write_text(NOT_LOOPED.lstrip())
    code = f"import runpy; runpy.run_path({str(path)!r})"
    _, _, err = python(code, **WARNS, COROLIB_DEBUG="1")
    said = [
        line.partition("RuntimeWarning: ")[2] for line in err.splitlines() if "Warning: " in line
    ]
    assert "Exception ignored" not in err
    alone = "{}() was called at app.py:{} without a loop, so nothing waits"
    loop = "the loop at app.py:{} does not wait for each {}, as it has to. Write `{}`"
    call = "as_completed(once())"
    assert said == [
        f"{alone.format('every', 5)}. Write `for tick in every(1): missed = yield from tick`",
        f"{alone.format('as_completed', 6)}. Write `for step in as_completed(once(), once()): "
        "value = yield from step`",
        alone.format("as_completed", 7),
        loop.format(8, "step", "value = yield from step"),
        f"{alone.format('as_completed', 16)}. Write `for step in {call}: value = await step`",
    ]
    assert python(code, **WARNS, COROLIB_DEBUG="0")[2] == ""
