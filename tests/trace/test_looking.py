"""`python3 -m corolib ps`: a program that runs is asked what its tasks do, and answers."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from corolib import Lock, run, spawn, to_thread
from corolib.kernel import asked as kernel_asked
from corolib.kernel import hooks, meeting_folder, signal_is_caught, user_of
from corolib.kernel.asked import announce
from corolib.trace import looking
from corolib.trace.looking import ask, ps
from tests.helpers.driving import LONG, sleeper, turns

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_asked, "FOLDER", f"{tmp_path}/corolib-{{uid}}")
    monkeypatch.setattr(looking, "PATIENCE", LONG)
    return tmp_path / f"corolib-{os.getuid()}"


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
        yield from turns(5)
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
    assert any(line.startswith("thread MainThread: <Scheduler 3 tasks") for line in lines)
    assert "can never go on, though others run:" in out
    assert found["schema"] == "corolib-ps/1"
    # Other tests may have left schedulers that are not closed.
    (scheduler,) = (each for each in found["schedulers"] if each["cycle"])
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
    tasks = [task for each in found[0]["schedulers"] for task in each["tasks"]]
    assert [task["name"] for task in tasks if task["state"] == "running"] == ["main"]
    # In another thread signals are nobody's, and the variable changes nothing.
    thread = threading.Thread(target=run, args=(sleeper, 0))
    thread.start()
    thread.join()

    def main_of_another():
        os.kill(os.getpid(), signal.SIGUSR1)
        yield

    run(main_of_another)  # nobody has asked: it is printed
    assert "<Scheduler 1 tasks" in capsys.readouterr().err


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
    assert user_of(2**22 + 1) == os.getuid()


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
    assert "<Scheduler 1 tasks" in capsys.readouterr().err
    status, _, err = outcome(capsys, os.getpid())
    assert status == 3
    assert "is not a folder of its user's alone" in err


def test_who_asks_in_another_environment_looks_in_the_same_folder(monkeypatch):
    def other():
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")  # as in a login shell
        monkeypatch.setenv("TMPDIR", "/var/tmp")
        return ask(os.getpid())

    assert asked(other, dump_signal=signal.SIGUSR1)["pid"] == os.getpid()


def test_root_asks_in_the_folder_of_the_user_whose_process_it_is(folder, monkeypatch):
    given = []
    other = os.getuid() + 1
    monkeypatch.setattr(looking, "user_of", lambda pid: other)
    monkeypatch.setattr(os, "chown", lambda *args: given.append(args))
    # The folder is made, and given to the other; here it is not, and so it is not used.
    with pytest.raises(PermissionError, match="is not a folder of its user's alone"):
        ask(os.getpid())
    assert given == [(str(folder.with_name(f"corolib-{other}")), other, -1)]
    assert user_of(os.getpid()) == os.getuid()


def test_no_question_is_written_through_a_link(folder, tmp_path, monkeypatch):
    monkeypatch.delattr(sys, "remote_exec", raising=False)
    precious = tmp_path / "precious"
    precious.write_text("of root's")
    link = Path(meeting_folder(), f"{os.getpid()}.ask")
    link.symlink_to(precious)
    with pytest.raises(looking.CannotAsk):
        ask(os.getpid())
    assert precious.read_text() == "of root's"
    # Nor if it comes at the last moment.
    link.symlink_to(precious)
    monkeypatch.setattr(os, "remove", lambda path: None)
    with pytest.raises(FileExistsError):
        ask(os.getpid())
    assert precious.read_text() == "of root's"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "[]",
        "{}",
        '{"signal": "x", "argv": []}',
        '{"signal": -9, "argv": []}',
        '{"signal": 10, "argv": 1}',
        '{"signal": 1e400, "argv": []}',
        "[" * 100_000,
    ],
)
def test_what_is_no_announcement_is_passed_over(text, folder, capsys):
    me = os.getpid()
    Path(meeting_folder(), "settings.json").touch()
    Path(meeting_folder(), f"{me}.json").write_text(text)
    assert outcome(capsys) == (0, "there is no program that says it can be asked\n", "")
    assert os.listdir(folder) == ["settings.json"]


@pytest.mark.parametrize("answer", ["", "{", "[]", "{}", "[" * 100_000, '{"argv": 1, "pid": 1}'])
def test_an_answer_that_corolib_does_not_give_is_refused(answer, monkeypatch, capsys):
    """Another user may have written it, and root reads it."""
    reply = lambda pid, path: Path(path).with_suffix(".answer").write_text(answer)  # noqa: E731
    monkeypatch.setattr(looking, "run_there", reply)
    status, out, err = outcome(capsys, os.getpid())
    assert (status, out) == (looking.CANNOT, "")
    assert "what it has answered is of another form" in err


def test_a_pipe_in_the_place_of_an_answer_is_not_read_for_ever(monkeypatch, capsys):
    reply = lambda pid, path: os.mkfifo(Path(path).with_suffix(".answer"))  # noqa: E731
    monkeypatch.setattr(looking, "run_there", reply)
    status, out, err = outcome(capsys, os.getpid())
    assert (status, out) == (looking.CANNOT, "")
    assert "what it has answered is of another form" in err
    os.mkfifo(Path(meeting_folder(), "7.json"))
    assert outcome(capsys) == (0, "there is no program that says it can be asked\n", "")


def test_neither_an_answer_nor_an_announcement_moves_the_cursor(monkeypatch, capsys):
    odd, shown = "\x1b[2J\ud800", "\\x1b[2J\\ud800"
    report = {"thread": odd, "report": f"1 task\n{odd}"}
    answer = json.dumps({"pid": 1, "argv": [odd], "python": odd, "schedulers": [report]})
    reply = lambda pid, path: Path(path).with_suffix(".answer").write_text(answer)  # noqa: E731
    monkeypatch.setattr(looking, "run_there", reply)
    lines = [f"1  {shown}  (Python {shown})", "", f"thread {shown}: 1 task", shown, ""]
    assert outcome(capsys, os.getpid()) == (0, "\n".join(lines), "")
    monkeypatch.setattr(looking, "signal_is_caught", lambda pid, signum: True)
    told = json.dumps({"signal": 10, "argv": [odd]})
    Path(meeting_folder(), "7.json").write_text(told)
    assert outcome(capsys) == (0, f"      7  {shown}\n", "")


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        *((("--watch", each), "invalid seconds value") for each in ("-1", "nan", "inf", "1e9")),
        *(((each,), "invalid process value") for each in ("-1", "0", "99999999999")),
    ],
)
def test_what_is_no_pause_and_no_process_is_refused(words, wrong, capsys):
    status, _, err = outcome(capsys, *words)
    assert status == 2
    assert wrong in err


def test_who_can_be_asked_is_not_known_without_the_folder(folder, capsys):
    folder.mkdir(mode=0o755)
    status, _, err = outcome(capsys)
    assert status == 3
    assert err.startswith(f"it cannot be told who can be asked: {folder} is not a folder")


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
