"""`to_process`: a function in another process, what it does, and what becomes of it at the end."""

import concurrent.futures
import dataclasses
import os
import pickle
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from types import ModuleType, SimpleNamespace

import pytest

from corolib import current_scheduler, run, spawn, to_process
from corolib.coordination.threads import Threads
from corolib.system.process_pool import Processes, remote_call
from tests.helpers.children import outside
from tests.helpers.driving import LONG, Gate, until
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import NEW_POOL, local
from tests.helpers.programs import ROOT, python

pytestmark = pytest.mark.usefixtures("no_thread_remains")


def raise_stop(value):
    raise StopIteration(value)


def work():
    yield


def test_a_function_runs_in_another_process_and_what_it_does_comes_back():
    def main():
        pids = []
        for _ in range(2):
            pids.append((yield from to_process(os.getpid)))
        assert pids[0] != os.getpid()
        with pytest.raises(ValueError, match="invalid literal"):
            yield from to_process(int, "x")
        with pytest.raises(RuntimeError, match="raise_stop raised StopIteration"):
            yield from to_process(raise_stop, 1)
        with pytest.raises(Exception, match=r"pickle|local object") as caught:
            yield from to_process(lambda: None)
        assert "its `def` at the top of a module" in caught.value.__notes__[-1]
        with pytest.raises(TypeError, match=r"got work, .* Write `yield from spawn\(work\(\)\)`"):
            yield from to_process(work)
        return pids

    pids = run(main)
    for pid in pids:  # they ended with the run, and were waited for
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


UNPROTECTED = """
import corolib
def main(log=__name__):
    yield from corolib.to_process(pow, 2, 3)
corolib.run(main)
"""


@pytest.mark.found("E2")
def test_a_program_that_other_processes_would_begin_again_is_told_of_its_guard(tmp_path):
    path = tmp_path / "app.py"
    path.write_text(UNPROTECTED)
    done = outside([sys.executable, str(path)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.splitlines()[-1] == (
        "RuntimeError: to_process() starts new interpreters, each of which runs app.py from its "
        "top, and so would come to line 5 again. Put that line, and what else is to run only once, "
        'under `if __name__ == "__main__":`'
    )


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('if __name__ == "__main__": begin()', {}),
        ("begin()", {"__spec__": SimpleNamespace(name="app.__main__")}),
        ("begin()", {"__file__": None}),
        ("begin()", {"__file__": "nowhere.py"}),
    ],
)
def test_a_program_that_is_protected_or_not_begun_again_has_its_processes(
    source, names, tmp_path, monkeypatch
):
    path = tmp_path / "app.py"
    path.write_text(source)
    program = ModuleType("__main__")
    program.__dict__.update({"__file__": str(path), **names})

    def main():
        program.begin = lambda: Processes(current_scheduler())
        monkeypatch.setitem(sys.modules, "__main__", program)
        exec(compile(source, str(path), "exec"), vars(program))
        yield

    run(main)


def test_processes_that_cannot_be_had_are_an_ordinary_failure(monkeypatch):
    def refuse():
        raise OSError("no more processes")

    def main():
        with pytest.raises(OSError, match="no more processes"):
            yield from to_process(int)

    monkeypatch.setattr(NEW_POOL, refuse)
    run(main)


class FakePool:
    """Stands for a `ProcessPoolExecutor` that has started one process by the time it fails."""

    _broken = False

    def __init__(self, submit):
        self._processes = {1: self}
        self._submit = submit
        self.killed = threading.Event()

    def submit(self, f, *args):
        return self._submit()

    def kill(self):
        self.killed.set()

    def shutdown(self, cancel_futures):
        assert cancel_futures


def test_a_process_that_nothing_could_look_after_is_killed(monkeypatch):
    def refuse():
        raise RuntimeError("can't start new thread")

    def main():
        for pool in pools:
            monkeypatch.setattr(NEW_POOL, lambda pool=pool: pool)
            with pytest.raises(RuntimeError, match="new thread"):
                yield from to_process(int)
        monkeypatch.undo()
        return (yield from to_process(int))

    pools = [FakePool(refuse), FakePool(refuse)]
    assert run(main) == 0
    assert all(pool.killed.is_set() for pool in pools)


def test_processes_that_work_are_left_alone_when_one_more_cannot_be_started(monkeypatch):
    def submit():
        if next(turns) == 1:
            raise RuntimeError("can't start new thread")
        future = concurrent.futures.Future()
        future.set_result(remote_call(pickle.dumps((str, ["done"]))))
        return future

    def main():
        first_one = yield from to_process(int)
        with pytest.raises(RuntimeError, match="new thread"):
            yield from to_process(int)
        return first_one, (yield from to_process(int)), pool.killed.is_set()

    turns = iter(range(3))
    pool = FakePool(submit)
    monkeypatch.setattr(NEW_POOL, lambda: pool)
    assert run(main) == ("done", "done", False)


def test_a_process_that_is_being_started_when_the_run_ends_is_killed(monkeypatch, capfd):
    """It would outlive the run, and be waited for when the interpreter exits."""
    gate = Gate(concurrent.futures.Future())
    pool = FakePool(gate)
    monkeypatch.setattr(NEW_POOL, lambda: pool)

    def main():
        task = spawn(to_process(int))
        yield from until(gate.begun.is_set)
        yield from task.stop()

    run(main, grace=0.01)
    assert "corolib-starter-1 still runs int" in capfd.readouterr().err
    gate.go.set()
    assert pool.killed.wait(LONG)


def test_a_process_that_is_started_as_the_run_ends_is_nobodys_failure(monkeypatch):
    """The thread that starts it is waited for; what it tells comes when nobody listens any more."""
    gate = Gate(concurrent.futures.Future())
    pool = FakePool(gate)
    monkeypatch.setattr(NEW_POOL, lambda: pool)
    reported = []

    def main():
        task = spawn(to_process(int))
        yield from until(gate.begun.is_set)
        yield from task.stop()
        starter = local(current_scheduler(), Threads).starter
        join = starter.join

        def let_go(*args):
            gate.go.set()
            assert pool.killed.wait(LONG)
            return join(*args)

        starter.join = let_go

    run(main, grace=LONG, on_task_error=lambda *failure: reported.append(failure))
    assert reported == []


def test_processes_are_killed_when_no_thread_is_left_to_end_them(capfd):
    reported = []

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    def main():
        pid = yield from to_process(os.getpid)
        task = spawn(to_process(time.sleep, 1000), name="caller")
        processes = local(current_scheduler(), Processes)
        yield from until(lambda: any(call.future.running() for call in processes.calls))
        yield from task.stop()
        processes.starter.start = refuse
        return pid

    pid = run(main, on_task_error=lambda task, exc: reported.append(str(exc)))
    assert reported == ["can't start new thread"]
    said = capfd.readouterr().err
    assert said == "corolib: a process still runs sleep, called by caller#2; it is killed\n"
    with pytest.raises(ProcessLookupError):
        while True:
            os.kill(pid, 0)
            time.sleep(0.001)


class Stubborn(Exception):
    """Is pickled, and cannot be unpickled: it needs two arguments and keeps one."""

    def __init__(self, what, why):
        super().__init__(f"{what}: {why}")


class Disguised(Exception):
    """Is unpickled as something else."""

    def __reduce__(self):
        return str, ("no exception",)


class Private(Exception):
    """Cannot be pickled."""

    def __reduce__(self):
        raise TypeError("this stays here")


class Silent(Exception):
    """Cannot be unpickled, and says nothing about itself."""

    def __init__(self, what, why):
        super().__init__()

    def __str__(self):
        raise KeyError("its text")


class Rejected:
    """A value that cannot be unpickled."""

    def __reduce__(self):
        return int, ("no number",)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Has attributes that nobody may set: not even its cause and its traceback."""

    def __reduce__(self):
        return Frozen, ()


def misbehave(what):
    if what == "value":
        return Rejected()
    if what == "secret":
        return threading.Lock()
    wrong = {
        "stubborn": lambda: Stubborn("this", "that"),
        "silent": lambda: Silent("this", "that"),
    }
    raise wrong[what]() if what in wrong else {"odd": Disguised, "private": Private}[what]()


@pytest.mark.found("T5")
def test_what_cannot_be_unpickled_is_an_error_of_its_own_caller_and_of_nobody_else(
    tmp_path, monkeypatch
):
    """The process goes on, and so does the other one, with the call that it does."""
    for name in ("cpu_count", "process_cpu_count"):  # there are two, whatever this machine has
        monkeypatch.setattr(os, name, lambda: 2, raising=False)
    begun, go = tmp_path / "begun", tmp_path / "go"

    def main():
        bystander = spawn(to_process(wait_for_file, begun, go))
        yield from until(begun.exists)
        pid = yield from to_process(os.getpid)
        for what, error, says in (
            (
                "stubborn",
                RuntimeError,
                r"misbehave raised .*Stubborn: this: that, which cannot be"
                r" unpickled: TypeError: .*'why'",
            ),
            ("silent", RuntimeError, r"misbehave raised .*Silent.*, which cannot be unpickled"),
            ("odd", RuntimeError, r"misbehave raised .*Disguised, which is unpickled as str"),
            ("private", RuntimeError, r"raised .*Private, which cannot be pickled: .*stays here"),
            ("value", RuntimeError, r"misbehave returned what cannot be unpickled: ValueError"),
            ("secret", TypeError, r"cannot pickle"),
        ):
            with pytest.raises(error, match=says) as caught:
                yield from to_process(misbehave, what)
            if what != "value":
                assert "in misbehave" in str(caught.value.__cause__) or what == "secret"
        with pytest.raises(ValueError, match="no number"):
            yield from to_process(misbehave, Rejected())
        os.kill(pid, 0)  # it is still there
        go.touch()
        return (yield from bystander)

    assert run(main) == "served"


def wait_for_file(begun, go):
    begun.touch()
    while not go.exists():
        time.sleep(0.001)
    return "served"


def raise_frozen():
    raise Frozen


@pytest.mark.found("T5")
def test_an_exception_whose_attributes_cannot_be_set_comes_back_whole():
    def main():
        with pytest.raises(Frozen) as caught:
            yield from to_process(raise_frozen)
        assert "in raise_frozen" in str(caught.value.__cause__)

    run(main)


def test_a_process_that_dies_is_an_error_and_the_next_call_works_again():
    def main():
        with pytest.raises(BrokenProcessPool):
            yield from to_process(os._exit, 1)
        return (yield from to_process(pow, 2, 3))

    assert run(main) == 8


def test_a_cancelled_call_of_a_process_releases_the_task_and_the_rest_is_killed(capfd):
    reported = []

    def main():
        task = spawn(to_process(time.sleep, 1000), name="caller")
        processes = local(current_scheduler(), Processes)
        yield from until(lambda: processes.calls)
        shown = repr(task.wait)
        [call] = processes.calls
        yield from until(lambda: call.future.running())
        yield from task.stop()
        return shown

    assert run(main, grace=0.1, on_task_error=lambda *f: reported.append(f)) == "to_process(sleep)"
    said = capfd.readouterr().err
    assert said == "corolib: a process still runs sleep, called by caller#2; it is killed\n"
    assert reported == []


def test_a_call_that_had_not_begun_is_taken_out_and_a_late_failure_is_reported(tmp_path):
    reported = []
    mark = tmp_path / "mark"

    def main():
        processes = local(current_scheduler(), Processes)
        yield from to_process(int)
        futures = []

        def submit(f, args):
            futures.append(concurrent.futures.Future())
            return futures[-1]

        processes.submit = submit
        waiting = spawn(to_process(mark.touch))
        yield from until(lambda: processes.calls)
        yield from waiting.stop()
        assert futures[0].cancelled() and not processes.calls
        running = spawn(to_process(int, "x"))
        yield from until(lambda: processes.calls)
        futures[1].set_running_or_notify_cancel()
        yield from running.stop()
        futures[1].set_exception(ValueError("late"))
        yield from until(lambda: reported)

    run(main, on_task_error=lambda task, exc: reported.append(exc))
    assert [str(error) for error in reported] == ["late"]


def test_a_call_that_is_given_up_while_it_is_handed_over_is_taken_out():
    begun, go = threading.Event(), threading.Event()
    futures = []

    def submit(f, args):
        begun.set()
        assert go.wait(LONG)
        futures.append(concurrent.futures.Future())
        return futures[0]

    def main():
        local(current_scheduler(), Processes).submit = submit
        task = spawn(to_process(int))
        yield from until(begun.is_set)
        yield from task.stop()
        go.set()
        yield from until(lambda: futures and futures[0].cancelled())

    run(main)


def test_a_program_with_a_process_that_never_ends_exits():
    status, out, err = python(
        """
        import corolib, os, time
        from corolib.system.process_pool import Processes, remote_call
        from tests.helpers.inside import local

        def main():
            pid = yield from corolib.to_process(os.getpid)
            task = corolib.spawn(corolib.to_process(time.sleep, 1000))
            calls = local(corolib.current_scheduler(), Processes).calls
            while not calls or not next(iter(calls)).future.running():
                yield corolib.Sleep(0.001)
            yield from task.stop()
            return pid

        pid = corolib.run(main, grace=0.01)
        print(os.path.exists(f"/proc/{pid}"))
        """
    )
    assert (status, out) == (0, "False\n")
    assert err == "corolib: a process still runs sleep, called by to_process#2; it is killed\n"


def test_a_failure_leaves_no_cycle():
    def fail(*_):
        raise KeyError("x")

    def scenario():
        local(current_scheduler(), Processes).submit = fail
        with pytest.raises(KeyError):
            yield from to_process(int)

    assert garbage_of(scenario) == []
