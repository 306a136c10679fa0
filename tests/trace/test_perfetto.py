"""The file for Perfetto: slices that nest, times that rise, arrows with both ends in slices."""

import json
from collections import defaultdict
from itertools import pairwise

import pytest

from corolib import Sleep, run, spawn
from corolib.trace import Trace, mark, write
from corolib.trace.perfetto import SCHEDULER
from tests.helpers.driving import FULL
from tests.helpers.random_programs import program
from tests.trace.test_events import traced


def perfetto(trace, folder):
    path = folder / "out.json"
    write(str(path), trace.header, trace.events)
    return json.loads(path.read_text())["traceEvents"]


def check(found):
    """Check what a viewer relies on."""
    tracks, arrows, last = defaultdict(list), defaultdict(dict), -1.0
    for each in found:
        if each["ph"] == "M":
            continue
        assert each["ts"] >= last
        last = each["ts"]
        if each["ph"] == "X":
            assert each["dur"] >= 0
            tracks[each["tid"]].append((each["ts"], each["ts"] + each["dur"]))
        elif each["ph"] in "sf":
            assert each["ph"] not in arrows[each["id"]]
            arrows[each["id"]][each["ph"]] = each
    for slices in tracks.values():
        for (_, ended), (began, _) in pairwise(slices):
            assert began >= ended - 1e-6
    for arrow in arrows.values():
        assert set(arrow) == {"s", "f"}
        for end in arrow.values():
            where = tracks[end["tid"]]
            assert any(began - 1e-6 <= end["ts"] <= ended + 1e-6 for began, ended in where)
        assert arrow["s"]["ts"] <= arrow["f"]["ts"]
    return tracks, arrows


@pytest.mark.parametrize("ten", range(20 if FULL else 1))
def test_files_of_random_programs_are_sound(ten, tmp_path):
    arrows = 0
    for seed in range(10 * ten, 10 * ten + 10):
        arrows += len(check(perfetto(traced(program(seed)), tmp_path))[1])
    assert arrows > 0


def test_tracks_say_what_a_task_did_and_marks_stand_on_them(tmp_path):
    def main():
        task = spawn(sleep)
        mark("begins")
        yield
        yield from task

    def sleep():
        yield Sleep(0.001)

    trace = Trace(tmp_path / "out.json")
    run(main, trace=trace)
    found = json.loads((tmp_path / "out.json").read_text())["traceEvents"]
    names = {each["tid"]: each["args"]["name"] for each in found if each["ph"] == "M"}
    assert names == {SCHEDULER: "scheduler", 1001: "#1 main", 1002: "#2 sleep"}
    of_main = [each["name"] for each in found if each["ph"] == "X" and each["tid"] == 1001]
    assert of_main == [
        "runnable",
        "run",
        "give way",
        "runnable",
        "run",
        "Join",
        "runnable",
        "run",
    ] or (of_main[0] == "runnable" and "Join" in of_main)
    assert any(each["ph"] == "i" and each["name"] == "mark begins" for each in found)
    assert {each["ph"] for each in found} == {"M", "X", "C", "i", "s", "f"}
    check(found)


def test_a_trace_that_was_cut_has_its_open_slices_too(tmp_path):
    trace = traced(program(3))
    events = trace.events[:-20]
    path = tmp_path / "cut.json"
    write(str(path), trace.header, events)
    tracks, _ = check(json.loads(path.read_text())["traceEvents"])
    assert tracks
    write(str(path), trace.header, [])
    assert [each["ph"] for each in json.loads(path.read_text())["traceEvents"]] == ["M"]
    polled = next(event["i"] for event in trace.events if event["kind"] == "polled")
    for begin in (*range(1, 20), polled):
        write(str(path), trace.header, trace.events[begin:])
        check(json.loads(path.read_text())["traceEvents"])
    part = traced(program(3), trace=Trace(last=40))
    check(perfetto(part, tmp_path))
