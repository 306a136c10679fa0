"""Traces as files: lines as they come, what a kill leaves of them, and the same again when read."""

import asyncio
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from corolib import Sleep, run, spawn
from corolib.interop import run_in_asyncio
from corolib.kernel import signal_named
from corolib.trace import Trace, read_lines, recorder, replay, write
from corolib.trace.traces import can_be_written
from tests.helpers.driving import sleeper, turns
from tests.helpers.programs import python
from tests.helpers.random_programs import program
from tests.trace.test_events import traced

ROOT = Path(__file__).resolve().parents[2]


def test_what_was_written_line_by_line_is_what_was_kept(tmp_path):
    for seed in range(5):
        path = tmp_path / f"{seed}.jsonl"
        traced(program(seed), trace=Trace(path))
        header, events = read_lines(path.read_text())
        kept = traced(program(seed))
        assert [event["kind"] for event in events] == [event["kind"] for event in kept.events]
        assert header["code"] == kept.header["code"]
        assert header["tasks"] == kept.header["tasks"]
        assert __file__ not in header["source"]
        assert any(name.endswith("random_programs.py") for name in header["source"])
        assert replay(events, len(events)).ended == replay(kept.events, len(events)).ended


def test_a_dump_is_read_as_it_was(tmp_path):
    trace = traced(program(1), trace=Trace(source=False, stacks=True))
    path = trace.dump(tmp_path / "out-%p.jsonl")
    assert str(os.getpid()) in path
    header, events = read_lines(Path(path).read_text())
    assert events == json.loads(json.dumps(trace.events))
    assert header == json.loads(json.dumps({**trace.header, "tasks": {}})) | {
        "tasks": trace.header["tasks"]
    }
    assert header["source"] == {}
    with pytest.raises(ValueError, match="suffix"):
        trace.dump(tmp_path / "out.txt")


def test_a_file_that_was_cut_anywhere_is_read_up_to_there(tmp_path):
    path = tmp_path / "out.jsonl"
    traced(program(2), trace=Trace(path))
    text = path.read_text()
    _, whole = read_lines(text)
    first = text.index("\n") + 1
    for cut in range(first, len(text), len(text) // 40):
        header, events = read_lines(text[:cut])
        assert events == whole[: len(events)]
        assert header["schema"] == "corolib-trace/1"
    for other in ("", "{}", "[1]\n", '{"schema": "other"}\n', "<html>"):
        with pytest.raises(ValueError, match="no trace"):
            read_lines(other)


def test_events_are_written_in_blocks_while_the_program_runs(tmp_path):
    path = tmp_path / "out.jsonl"
    sizes = []

    def main():
        for _ in range(600):
            yield
            sizes.append(path.stat().st_size)

    run(main, trace=path)
    assert sizes[0] == 0
    assert sizes[-1] > 65536
    assert len(read_lines(path.read_text())[1]) > 1800


def test_text_has_a_sentence_for_each_event(capsys):
    def main():
        yield from spawn(sleeper, 0.001)

    trace = Trace("-")
    run(main, trace=trace)
    lines = capsys.readouterr().err.splitlines()
    assert all(re.match(r" *\d+\.\d{3} ms  [A-Za-z]", line) for line in lines)
    assert lines[0].endswith("The run begins.")
    assert "The run is over: the main task returned." in lines[-1]
    assert any("main#1 waited for the end of sleeper#2, and" in line for line in lines)
    assert trace.tasks == {}


def test_of_a_run_in_another_thread_text_and_header_say_in_which(capsys):
    trace = Trace()

    def work():
        run(sleeper, 0, trace="-")
        run(sleeper, 0, trace=trace)

    thread = threading.Thread(target=work, name="T1")
    thread.start()
    thread.join()
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(" ms  [T1] " in line for line in lines)
    assert trace.header["thread"] == "T1"


@pytest.mark.parametrize("to", ["-", "jsonl", "function", "last"])
def test_a_trace_of_a_service_grows_no_more_however_many_tasks_there_were(to, tmp_path, capsys):
    counts = []

    def main():
        for n in range(320):
            yield from spawn(sleeper, 0)
            if n in (160, 310):
                capsys.readouterr()
                gc.collect()
                counts.append(len(gc.get_objects()))

    if to == "last":
        trace = Trace(tmp_path / "crash.html", last=40)
    else:
        trace = Trace({"-": "-", "jsonl": tmp_path / "out.jsonl"}.get(to, lambda event: None))
    run(main, trace=trace)
    # For each task there was one object at least. The names of a flight recorder come and go.
    assert counts[1] - counts[0] < (100 if to == "last" else 20)


def test_a_run_is_as_it_was_if_its_trace_cannot_be_written(tmp_path, capsys):
    folder = tmp_path / "gone"
    for suffix in ("html", "jsonl"):
        folder.mkdir()
        trace = Trace(folder / f"out.{suffix}")

        def main(suffix=suffix):
            yield
            if suffix == "html":
                folder.rmdir()
            return "value"

        assert run(main, trace=trace) == "value"
    assert "corolib: the trace could not be written to " in capsys.readouterr().err


def test_a_full_disk_ends_the_trace_and_not_the_program(tmp_path, capsys):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no device that is always full")
    path = tmp_path / "out.jsonl"
    path.symlink_to("/dev/full")

    def main():
        before = len(os.listdir("/dev/fd"))
        yield from turns(600)
        return before - len(os.listdir("/dev/fd"))

    assert run(main, trace=path) == 1  # its file is closed
    (line,) = capsys.readouterr().err.splitlines()
    assert "out.jsonl ends early: OSError: [Errno 28] No space left" in line
    assert path.is_symlink()


@pytest.mark.parametrize("suffix", ["html", "json"])
def test_of_a_page_a_full_disk_leaves_nothing(tmp_path, capsys, suffix):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no device that is always full")
    path = tmp_path / f"out.{suffix}"
    path.symlink_to("/dev/full")
    trace = Trace(path)
    assert run(turns, 600, trace=trace) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"corolib: the trace could not be written to {path}: "
        "OSError: [Errno 28] No space left on device"
    )
    assert trace.path == ""
    assert not path.is_symlink()
    path.mkdir()
    with pytest.raises(OSError):
        trace.dump(path)
    assert path.exists()  # what could not be opened stays


def test_a_trace_serves_once():
    trace = Trace()
    run(sleeper, 0, trace=trace)
    with pytest.raises(RuntimeError, match="make a new one"):
        run(sleeper, 0, trace=trace)


def test_a_flight_recorder_writes_on_cause_only(tmp_path):
    path = tmp_path / "crash.html"
    kept = {"last": 20}
    assert run(sleeper, 0, "fine", trace=Trace(path, **kept)) == "fine"
    assert not path.exists()

    def fails():
        yield
        raise ValueError

    def main():
        for _ in range(5):
            spawn(fails)
        yield Sleep(0.001)

    lost = []
    run(main, trace=Trace(path, **kept), on_task_error=lambda task, exc: lost.append(exc))
    assert len(lost) == 5
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(ValueError):
        run(fails, trace=Trace(tmp_path / "left-%p.json", **kept))
    assert (tmp_path / f"left-{os.getpid()}.json").exists()
    run(sleeper, 0, trace=Trace(tmp_path / "always.jsonl", **kept))
    assert (tmp_path / "always.jsonl").exists()


def test_a_signal_has_a_trace_written_while_the_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recorder, "SIGNAL", signal.SIGUSR2)

    def main(name):
        os.kill(os.getpid(), signal.SIGUSR2)
        yield
        assert signal.getsignal(signal.SIGUSR2) is not signal.SIG_DFL
        return (tmp_path / name).exists()

    assert run(main, "crash.json", trace=Trace(tmp_path / "crash.json", last=20))
    assert run(main, "out.html", trace=tmp_path / "out.html")
    # Events are written as they come, and others are kept in memory.
    assert run(main, "out.jsonl", trace=tmp_path / "out.jsonl")
    run(main, "-", trace=lambda event: None)
    err = capsys.readouterr().err
    assert err == "".join(
        f"corolib: a trace was written to {tmp_path / name}\n"
        for name in ("crash.json", "out.html")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("crash.json", "out-2.html", "out.html", "out.jsonl")
    ]
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    # In another thread no signal is handled.
    thread = threading.Thread(target=run, args=(sleeper, 0), kwargs={"trace": Trace()})
    thread.start()
    thread.join()


def test_a_trace_that_could_not_be_written_is_not_told_to_be_there(tmp_path, capsys):
    folder = tmp_path / "gone"
    folder.mkdir()
    trace = Trace(folder / "out.html")

    def main():
        folder.rmdir()
        trace.write_now()
        yield

    run(main, trace=trace)
    first, again = capsys.readouterr().err.splitlines()
    assert f"the trace could not be written to {folder}/out.html" in first
    assert f"the trace could not be written to {folder}/out-2.html" in again


@pytest.mark.parametrize(
    ("name", "signum"), [("USR1", 10), ("SIGUSR1", 10), ("12", 12), ("", None), (None, None)]
)
def test_a_signal_is_named_in_the_environment(name, signum, monkeypatch):
    if name is not None:
        monkeypatch.setenv("COROLIB_X", name)
    assert signal_named("COROLIB_X") == signum


@pytest.mark.parametrize(
    "name", ["USR9", "0", "-1", "1000", "X", "SIG_IGN", "SIG_DFL", "SIG_BLOCK"]
)
def test_a_signal_that_is_none_is_named(name, monkeypatch):
    monkeypatch.setenv("COROLIB_X", name)
    with pytest.raises(ValueError, match=f"COROLIB_X={name}: there is no such signal"):
        signal_named("COROLIB_X")


@pytest.mark.parametrize("name", ["KILL", "SIGSTOP", "INT", "9", "2"])
def test_a_signal_that_is_not_free_is_named(name, monkeypatch):
    monkeypatch.setenv("COROLIB_X", name)
    with pytest.raises(ValueError, match=f"^COROLIB_X={name}: no program hears KILL and STOP"):
        signal_named("COROLIB_X")


def test_a_run_inside_asyncio_is_recorded(tmp_path):
    path = tmp_path / "guest.jsonl"
    asyncio.run(run_in_asyncio(sleeper, 0.001, trace=path))
    header, events = read_lines(path.read_text())
    assert [task[0] for task in header["tasks"].values()] == ["sleeper"]
    assert events[-1]["reason"] == "closed"

    def fails():
        yield
        raise ValueError

    crash = tmp_path / "crash.json"
    with pytest.raises(ValueError):
        asyncio.run(run_in_asyncio(fails, trace=Trace(crash, last=20)))
    assert crash.exists()


def test_the_second_run_writes_beside_the_first(tmp_path):
    for _ in range(3):
        run(sleeper, 0, trace=tmp_path / "out.jsonl")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["out-2.jsonl", "out-3.jsonl", "out.jsonl"]


KILLED = """
import os, signal, sys, corolib
def main():
    for _ in range(2000):
        yield
    os.kill(os.getpid(), signal.SIGKILL)
corolib.run(main, trace=sys.argv[1])
"""


def test_a_kill_loses_one_block_at_most(tmp_path):
    path = tmp_path / "out.jsonl"
    subprocess.run(
        [sys.executable, "-c", KILLED, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    _, events = read_lines(path.read_text())
    # A turn is four events of some 60 characters each.
    assert replay(events, len(events)).turn > 2000 - 65536 / 150


def calls_of_a_give_way(trace):
    """Return how many calls a traced run makes each time that a task gives way."""
    calls_of(1, trace())  # the first run reads the source of this file
    few, many = calls_of(100, trace()), calls_of(300, trace())
    return (many - few) / 200


def calls_of(count, trace):
    calls = 0

    def watch(frame, event, arg):
        nonlocal calls
        calls += event in ("call", "c_call")

    def main():
        sys.setprofile(watch)
        for _ in range(count):
            yield
        sys.setprofile(None)

    run(main, trace=trace)
    return calls


def test_what_a_trace_costs_a_give_way_is_bounded():
    """Debug mode adds four calls."""
    assert calls_of_a_give_way(lambda: Trace(last=10_000)) < 36
    # In full, and each event as it comes.
    assert calls_of_a_give_way(lambda: lambda event: None) < 53


def test_a_suffix_decides_how_a_trace_is_written(tmp_path):
    trace = traced(program(4))
    for suffix, begins in (("html", "<!doctype html>"), ("json", "{"), ("jsonl", '{"schema"')):
        path = tmp_path / f"out.{suffix}"
        write(str(path), trace.header, trace.events)
        assert path.read_text().startswith(begins)


def test_sleep_is_told_in_the_time_of_the_clock():
    def main():
        yield Sleep(at=7)

    trace = traced(main)
    assert [each["on"] for each in trace.events if each["kind"] == "yield"] == [
        {"until": 7_000_000_000}
    ]


FORKS = """
import os
from corolib import run


def main():
    yield


def child():
    run(main, trace="out.html")
    run(main, trace="out.jsonl")
    run(main, trace="of-%p.html")
    run(main, trace="out.html")


os.chdir({folder!r})
run(main, trace="out.jsonl")
pid = os.fork()
if pid == 0:
    child()
    raise SystemExit  # as a child ends that may be measured
os.waitpid(pid, 0)
names = [f"out-{{pid}}.html", f"out-{{pid}}-2.html", f"out-{{pid}}.jsonl", f"of-{{pid}}.html"]
assert sorted(os.listdir()) == sorted(["out.jsonl", *names]), os.listdir()
run(main, trace="out.html")
assert "out.html" in os.listdir()
"""


def test_a_forked_child_writes_files_of_its_own(tmp_path):
    assert python(FORKS.format(folder=str(tmp_path))) == (0, "", "")


def test_a_link_that_leads_to_no_file_yet_can_be_written(tmp_path):
    path, target = tmp_path / "out.html", tmp_path / "folder" / "target.html"
    path.symlink_to(target)
    assert not can_be_written(str(path))
    target.parent.mkdir()
    assert can_be_written(str(path))
    path.write_text("x")
    assert can_be_written(str(path))
