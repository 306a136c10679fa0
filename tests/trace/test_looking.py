"""`python3 -m corolib ps`: a program that runs is asked what its tasks do, and answers."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from corolib import Lock, Sleep, run, spawn, to_thread
from corolib.kernel import hooks, signal_is_caught
from corolib.kernel.asked import announce
from corolib.trace import looking
from corolib.trace.looking import ask, ps
from tests.helpers.driving import sleeper

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "corolib"


def outcome(capsys, *words):
    """Return exit status, output and stderr of the command."""
    with pytest.raises(SystemExit) as caught:
        ps([str(word) for word in words])
    return caught.value.code, *capsys.readouterr()


def asked(f, **options):
    """Run a program of which two tasks wait for each other; and `f`, in a thread."""

    def left(a, b):
        with (yield from a):
            yield
            yield from b

    def main():
        a, b = Lock("a"), Lock("b")
        one, other = spawn(left, a, b), spawn(left, b, a)
        yield Sleep(0.001)
        try:
            return (yield from to_thread(f))
        finally:
            one.cancel()
            other.cancel()

    return run(main, **options)


def test_a_program_with_a_dump_signal_is_asked_by_it(folder, capsys):
    me = os.getpid()

    def look():
        return outcome(capsys), outcome(capsys, me), ask(me)

    listed, told, found = asked(look, dump_signal=signal.SIGUSR1)
    assert listed == (0, f"{me:7}  {' '.join(sys.argv)}\n", "")
    status, out, err = told
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{me}  ")
    assert lines[2].startswith("thread MainThread: <Scheduler 3 tasks")
    assert "can never go on, though others run:" in out
    assert found["schema"] == "corolib-ps/1"
    (scheduler,) = found["schedulers"]
    assert scheduler["cycle"] in ([2, 3], [3, 2])
    main, one, other = scheduler["tasks"]
    assert (main["name"], main["parent"], one["parent"]) == ("main", None, 1)
    assert one["holders"] == [other["id"]]
    assert one["state"] == "waiting"
    assert one["wait"] == "acquire <Lock b>" or "b" in one["wait"]
    assert one["stack"][0][:2] == ["asked.<locals>.left", __file__]
    # When the run is over, nothing is left of it.
    assert os.listdir(folder) == []
    assert outcome(capsys) == (0, "there is no program that says it can be asked\n", "")


def test_a_step_that_does_not_end_is_told_too(monkeypatch, capsys):
    monkeypatch.setattr(hooks, "DUMP", signal.SIGUSR1)  # COROLIB_DUMP
    found = []
    thread = threading.Thread(target=lambda: found.append(ask(os.getpid())))

    def main():
        thread.start()
        while thread.is_alive():
            pass
        yield

    run(main)
    assert found[0]["schedulers"][0]["tasks"][0]["state"] == "running"
    # In another thread signals are nobody's, and the variable changes nothing.
    thread = threading.Thread(target=run, args=(sleeper, 0))
    thread.start()
    thread.join()

    def main_of_another():
        os.kill(os.getpid(), signal.SIGUSR1)
        yield

    run(main_of_another)  # nobody has asked: it is printed
    assert capsys.readouterr().err.startswith("<Scheduler 1 tasks")


def test_a_number_that_is_another_process_by_now_gets_no_signal(folder, capsys, monkeypatch):
    monkeypatch.delattr(sys, "remote_exec", raising=False)
    me = os.getpid()
    asked(lambda: None, dump_signal=signal.SIGUSR1)
    (folder / f"{me}.json").write_text(json.dumps({"pid": me, "signal": 10, "argv": []}))
    status, out, err = outcome(capsys, me)
    assert (status, out) == (3, "")
    assert err.startswith(f"process {me} cannot be asked: it has not said that it can.\nStart it")
    assert outcome(capsys)[1].startswith("there is no program")
    assert os.listdir(folder) == []
    monkeypatch.setattr(os.path, "exists", lambda path: False)  # a system without /proc
    assert signal_is_caught(2**22 + 1, 10)


def test_a_process_that_is_not_there_cannot_be_asked(capsys):
    status, _, err = outcome(capsys, 2**22 + 1)
    assert status == 3
    assert "No such process" in err


def test_who_gives_no_answer_is_told(monkeypatch, capsys):
    monkeypatch.setattr(looking, "PATIENCE", 0.0)
    status, _, err = asked(lambda: outcome(capsys, os.getpid()), dump_signal=signal.SIGUSR1)
    assert status == 3
    assert "it gave no answer" in err


def test_a_folder_that_others_may_read_is_not_used(folder, capsys):
    folder.mkdir(mode=0o755)
    assert asked(lambda: os.listdir(folder), dump_signal=signal.SIGUSR1) == []

    def main():
        os.kill(os.getpid(), signal.SIGUSR1)
        yield

    run(main, dump_signal=signal.SIGUSR1)
    assert capsys.readouterr().err.startswith("<Scheduler 1 tasks")
    status, _, err = outcome(capsys, os.getpid())
    assert status == 3
    assert "is not a folder of this user's alone" in err


def test_a_user_without_a_runtime_folder_has_one_in_tmp(monkeypatch):
    from corolib.kernel import asked, meeting_folder

    monkeypatch.delenv("XDG_RUNTIME_DIR")
    made = []
    monkeypatch.setattr(asked.os, "mkdir", lambda path, mode: made.append((path, mode)))
    try:
        meeting_folder()
    except OSError:
        pass  # it is not there
    assert made == [(f"/tmp/corolib-{os.getuid()}", 0o700)]


def test_a_forked_child_leaves_what_its_parent_has_said(folder, monkeypatch):
    me = os.getpid()
    undo = announce(signal.SIGUSR1)
    monkeypatch.setattr(os, "getpid", lambda: me + 1)
    undo()
    assert os.listdir(folder) == [f"{me}.json"]
    monkeypatch.setattr(os, "getpid", lambda: me)
    undo()
    undo()
    assert os.listdir(folder) == []


def test_a_program_can_be_watched(capsys, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(looking.time, "sleep", interrupt)
    assert outcome(capsys, "--watch", 1)[:2] == (
        130,
        "there is no program that says it can be asked\n",
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert outcome(capsys, "--watch", 1)[1].startswith("\033[H\033[J")


def test_an_answer_is_shown_as_json_too():
    found = {"pid": 1, "argv": ["a", "b"], "python": "3", "schedulers": []}
    assert json.loads(looking.shown(found, True)) == found
    assert looking.shown(found, False) == "1  a b  (Python 3)\nno scheduler has a task"


UNPREPARED = """
import corolib

def main():
    print("begun", flush=True)
    yield corolib.Sleep(1000)

corolib.run(main)
"""


@pytest.mark.skipif(not hasattr(sys, "remote_exec"), reason="from Python 3.14 on")
def test_a_program_that_is_not_prepared_is_made_to_answer():
    with subprocess.Popen(
        [sys.executable, "-c", UNPREPARED], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        process.stdout.readline()
        found = ask(process.pid)
        process.kill()
    assert [task["name"] for task in found["schedulers"][0]["tasks"]] == ["main"]


def test_a_program_of_another_python_cannot_be_made_to_answer(monkeypatch, capsys):
    def refuse(pid, path):
        raise RuntimeError("another Python")

    monkeypatch.setattr(sys, "remote_exec", refuse, raising=False)
    status, _, err = outcome(capsys, os.getpid())
    assert status == 3
    assert "another Python" in err


def test_who_is_made_to_answer_is_woken(monkeypatch):
    me, sent = os.getpid(), []
    monkeypatch.setattr(
        sys, "remote_exec", lambda pid, path: exec(Path(path).read_text()), raising=False
    )
    monkeypatch.setattr(looking.os, "kill", lambda *given: sent.append(given))
    assert ask(me)["pid"] == me
    assert sent == [(me, 0), (me, signal.SIGSTOP), (me, signal.SIGCONT)]
