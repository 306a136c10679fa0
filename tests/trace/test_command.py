"""Recording a program from outside: the command line."""

import json
import os
import re
import subprocess
import sys
from inspect import signature
from pathlib import Path
from textwrap import dedent

import pytest

from corolib import run
from corolib.trace import command, read_lines
from tests.helpers.driving import sleeper
from tests.helpers.programs import without_slow_steps

PROGRAM = """
    import sys
    from corolib import run, Sleep, spawn
    import beside

    def child():
        yield Sleep(0.001)

    def main():
        number = len(sys.argv)
        yield from spawn(child)
        return number

    assert __name__ == "__main__"
    print(beside.WORD, run(main), sys.argv[1:])
    if sys.argv[1:] == ["again"]:
        run(main)
    if sys.argv[1:] == ["exit"]:
        sys.exit(7)
    if sys.argv[1:] == ["text"]:
        sys.exit("a reason")
    if sys.argv[1:] == ["fail"]:
        raise ValueError("on purpose")
    if sys.argv[1:] == ["ctrl-c"]:
        raise KeyboardInterrupt
"""


FORKS = """
    import os, sys
    from corolib import run

    def main():
        yield
        pid = os.fork()
        if not pid:
            sys.exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    run(main)
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text(dedent(PROGRAM), "utf-8")
    (tmp_path / "beside.py").write_text("WORD = 'beside'\n", "utf-8")
    (tmp_path / "idle.py").write_text("print('no run')\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    yield tmp_path
    sys.modules.pop("beside", None)


def record(*words):
    """Record, and return the exit status."""
    with pytest.raises(SystemExit) as left:
        command.record([str(word) for word in words])
    return left.value.code


def test_the_default_of_a_trace_says_what_it_is():
    assert repr(signature(run).parameters["trace"].default) == "COROLIB_TRACE"


def test_a_program_runs_as_python_would_run_it(folder, capsys):
    assert record("program.py", "a", "-o", "b") == 0
    out, err = capsys.readouterr()
    assert out == "beside 4 ['a', '-o', 'b']\n"
    assert err == f"{folder / 'trace.html'}\n"
    page = (folder / "trace.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert run(sleeper, 0, "not recorded") == "not recorded"
    assert [path.name for path in folder.glob("*.html")] == ["trace.html"]


@pytest.mark.parametrize(
    ("word", "status", "told"),
    [
        ("exit", 7, ""),
        ("text", 1, "a reason\n"),
        ("fail", 1, "ValueError: on purpose\n"),
        ("ctrl-c", 130, "KeyboardInterrupt\n"),
    ],
)
def test_its_exit_status_is_ours(folder, capsys, word, status, told):
    assert record("-o", f"{word}.jsonl", "program.py", word) == status
    err = capsys.readouterr().err
    assert err.endswith(f"{told}{folder / word}.jsonl\n")
    assert "runpy" not in err
    assert "corolib/" not in err
    assert read_lines((folder / f"{word}.jsonl").read_text())[1]


def test_options_are_the_traces(folder, capsys):
    assert record("-o", "a.jsonl", "--stacks", "--no-source", "program.py") == 0
    header, events = read_lines((folder / "a.jsonl").read_text())
    assert header["source"] == {}
    yields = [event for event in events if event["kind"] == "yield"]
    assert yields[0]["locals"] == {"number": "1"}
    assert yields[0]["stack"]
    assert record("-o", "b.json", "--last", 5, "--no-values", "program.py") == 0
    assert len(json.loads((folder / "b.json").read_text())["traceEvents"]) < 20
    assert record("-o", "-", "program.py") == 0
    assert "The run is over: the main task returned." in capsys.readouterr().err


def test_a_module_is_run_as_one_and_each_run_has_a_file(folder, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert record("-o", "m.html", "--open", "-m", "program", "again") == 0
    assert capsys.readouterr().err == f"{folder / 'm.html'}\n{folder / 'm-2.html'}\n"
    assert opened == [f"file://{folder / 'm-2.html'}"]


def test_a_program_that_never_runs_has_no_trace(folder, capsys):
    assert record("idle.py") == 1
    out, err = capsys.readouterr()
    assert out == "no run\n"
    assert err == "idle.py: no run() was recorded; there is no trace\n"
    assert not (folder / "trace.html").exists()


def test_no_path_is_named_where_nothing_could_be_written(folder, capsys):
    (folder / "p.html").mkdir()
    (folder / "p.jsonl").mkdir()
    assert record("-o", "p.html", "program.py") == 0
    assert capsys.readouterr().err == (
        f"corolib: the trace will not be written: {folder / 'p.html'} cannot be made or changed\n"
    )
    assert record("-o", "p.jsonl", "program.py") == 0
    assert capsys.readouterr().err.count("IsADirectoryError") == 1


def test_a_name_that_is_no_text_or_looks_like_a_mark_spoils_no_page(folder, capsys):
    for name in (b"caf\xe9.py", b"@@DATA@@.py"):
        path = os.fsdecode(name)
        (folder / path).write_text("from corolib import run, Sleep\nrun(Sleep(0).__iter__())\n")
        assert record("-o", "odd.html", path) == 0
    page = next(folder.glob("odd-2.html")).read_text("utf-8")
    assert "<title>@@DATA@@.py: a trace of corolib</title>" in page


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # idle ones of others
def test_a_forked_child_names_no_trace(folder):
    (folder / "forks.py").write_text(dedent(FORKS))
    done = subprocess.run(
        [sys.executable, "-m", "corolib", "trace", "-o", "f.jsonl", "forks.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    err = without_slow_steps(done.stderr)
    assert (done.returncode, done.stdout, err) == (0, "3\n", f"{folder / 'f.jsonl'}\n")
    assert read_lines((folder / "f.jsonl").read_text())[1][-1]["kind"] == "end"


def test_no_path_is_named_of_a_trace_that_ended_early(folder, capsys):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no device that is always full")
    (folder / "busy.py").write_text(
        "from corolib import run\ndef main():\n    for _ in range(600):\n        yield\nrun(main)\n"
    )
    (folder / "f.jsonl").symlink_to("/dev/full")
    assert record("-o", "f.jsonl", "busy.py") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"corolib: the trace in {folder / 'f.jsonl'} ends early: OSError: ")


@pytest.mark.parametrize("words", [[], ["-o", "out.txt", "program.py"], ["--nonsense"]])
def test_wrong_usage_is_refused(folder, capsys, words):
    assert record(*words) == 2
    assert "usage: python3 -m corolib trace" in capsys.readouterr().err


def convert(*words):
    with pytest.raises(SystemExit) as left:
        command.convert([str(word) for word in words])
    return left.value.code


def test_a_trace_is_turned_into_a_page_and_into_a_file_for_perfetto(folder, capsys):
    run(sleeper, 0, trace=folder / "t.jsonl")
    assert convert("t.jsonl", "t.html") == 0
    assert convert("t.jsonl", "t.json") == 0
    assert (folder / "t.html").read_text("utf-8").startswith("<!doctype html>")
    assert json.loads((folder / "t.json").read_text())["traceEvents"]
    Path("cut.jsonl").write_text((folder / "t.jsonl").read_text()[:900])
    assert convert("cut.jsonl", "cut.html") == 0
    assert capsys.readouterr().err == ""
    assert convert("nowhere.jsonl", "t.html") == 1
    assert convert("program.py", "t.html") == 1
    assert convert("t.jsonl", "t.txt") == 2
    assert "'t.txt': the suffix is .html for a page" in capsys.readouterr().err


def test_a_damaged_trace_is_told_in_one_line(folder, capsys):
    """Whatever line is missing, or has another type than it should have."""
    run(sleeper, 0, trace=folder / "t.jsonl")
    lines = (folder / "t.jsonl").read_text().splitlines()
    damages = [[*lines[:number], *lines[number + 1 :]] for number in range(1, len(lines))]
    damages += [[re.sub(r":\d+", ":null", line) for line in lines]]
    damages += [[line.replace('"kind"', '"king"') for line in lines]]
    ends = set()
    for damage in damages:
        Path("d.jsonl").write_text("\n".join(damage))
        for to in ("d.html", "d.json"):
            ends.add(status := convert("d.jsonl", to))
            err = capsys.readouterr().err
            assert (status, err.count("\n")) in ((0, 0), (1, 1)), err
    assert ends == {0, 1}
