"""The five programs with a bug: the page of a run says enough to name it, and its line."""

import re

import pytest

import corolib
from corolib import run
from corolib.testing import virtual_time
from corolib.trace import State, sentence
from demos.guide import bugs
from tests.trace.test_page import data_of

# One of them is told of in debug mode before it begins.
pytestmark = pytest.mark.filterwarnings("ignore:.*never runs")


@pytest.fixture(scope="module")
def told():
    """Of each program: its events, what is said of each, and the state at the end."""
    found = {}
    for name in bugs.NAMES:
        with pytest.MonkeyPatch.context() as patch:
            # That one computes. The others sleep, and none of them is late in virtual time.
            if name != "sums":
                patch.setattr(corolib, "run", lambda f: run(f, **virtual_time()))
            trace = bugs.record(name)
        events, header = trace.events, trace.header
        state = State(header["tasks"])
        sentences = []
        for event in events:
            state.apply(event)
            sentences.append(sentence(event, state, header["code"]))
        found[name] = events, sentences, state
    return found


def line_of(name, code):
    lines = (bugs.HERE / f"{name}.py").read_text("utf-8").splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if line.strip().startswith(code)]
    return number


def waited(events):
    """Return the lines in which tasks have waited, outer ones included."""
    return {line for event in events for _, line in event.get("stack", ())}


def test_three_cashiers_read_the_same_total(told):
    events, sentences, _ = told["till"]
    assert "evening#1 notes: in the end (total=20)." in sentences
    assert sum("the till is closed (total=10)" in each for each in sentences) == 3
    read = [event["locals"]["total"] for event in events if "total" in event.get("locals", {})]
    assert read[:3] == ["0", "0", "0"]


def test_nobody_waits_where_the_letter_would_be_sent(told):
    events, sentences, _ = told["orders"]
    assert not any("letter sent" in each for each in sentences)
    lines = waited(events)
    assert line_of("orders", "yield from check") in lines
    assert line_of("orders", "yield from pack") in lines
    assert line_of("orders", "send_letter(") not in lines
    assert line_of("orders", "yield Sleep(0.002)") not in lines
    at = line_of("orders", "send_letter(")
    (found,) = [each for each in sentences if each.startswith("A mistake")]
    assert found.startswith(f"A mistake in the source, orders.py:{at}: send_letter() does nothing")


def test_who_ends_with_the_lock_is_named(told):
    _, sentences, state = told["printer"]
    assert any(
        re.fullmatch(r"bob#3 went on from printer.py:8 and .* It still held Lock printer.*", s)
        for s in sentences
    )
    assert state.task(3).held == ["Lock printer"]
    assert state.task(2).held == []
    assert (state.task(4).how, state.task(4).error) == ("failed", "RuntimeError")
    assert sentences[-1].startswith(
        "The run is over: the main task returned. 1 task failed: cleo#4."
    )
    end = next(n for n, each in enumerate(sentences) if "It still held" in each)
    assert sentences[end + 1].startswith(
        "bob#3 ended and did not release Lock printer. cleo#4 was the first to wait for it: "
        "cleo#4 gets an error instead"
    )
    before = State()
    for event in told["printer"][0][:end]:
        before.apply(event)
    assert before.waits_for()[4] == [3]  # though it was Ann who held it when Cleo came


def test_the_long_step_and_who_has_to_wait_for_it_are_seen(told):
    events, sentences, state = told["sums"]
    long = 4  # heartbeat is 2, and the second client asks for the long sum
    end = next(
        n
        for n, event in enumerate(events)
        if event.get("task") == long and "answer" in event.get("locals", {})
    )
    begin = max(n for n in range(end) if events[n]["kind"] == "step")
    assert events[begin]["task"] == long
    first, last = line_of("sums", "yield from opened"), line_of("sums", "yield Sleep(0.001)")
    assert re.match(
        rf"client#4 ran for .* from sums.py:{first} to sums.py:{last} and yielded", sentences[end]
    )
    before = State()
    for event in events[: begin + 1]:
        before.apply(event)
    assert before.ready[:2] == [5, 6]  # and so they are until it is over
    assert state.task(long).longest >= events[end]["ns"] - events[begin]["ns"]


def test_each_of_two_holds_what_the_other_one_wants(told):
    events, sentences, _ = told["transfers"]
    assert (
        "A deadlock: to_bob#2 waits to acquire Lock bob, held by to_ann#3; "
        "to_ann#3 waits to acquire Lock ann, held by to_bob#2. "
        "No task can ever go on, and all of them are cancelled."
    ) in sentences
    state = State()
    for event in events:
        state.apply(event)
        if event["kind"] == "deadlock":
            break
    assert sorted(state.locks.values()) == [["Lock ann", 2], ["Lock bob", 3]]
    assert (state.waits_for()[2], state.waits_for()[3]) == ([3], [2])
    want = line_of("transfers", "with (yield from taker.lock)")
    assert [state.task(number).line for number in (2, 3)] == [want, want]


LINES = {  # in which each bug is
    "till": 'till["total"] = total',
    "orders": "send_letter(",
    "printer": "return",
    "sums": "answer = ",
    "transfers": "with (yield from taker.lock)",
}


def test_a_page_has_the_source_and_neither_the_answer_nor_a_path():
    pages = dict(bugs.pages())
    answers = (bugs.HERE.parent / "bugs.md").read_text("utf-8").partition("## Answers")[2]
    for name in bugs.NAMES:
        data = data_of(pages[name])
        assert list(data["header"]["source"]) == [f"{name}.py"]
        assert str(bugs.HERE) not in str(data)
        for word in ("bug", "wrong", "lost", "forgotten", "deadlock", "hog"):
            assert word not in data["header"]["source"][f"{name}.py"].lower()
        answer = answers.partition(f"<summary>{name}.py</summary>")[2].partition("</details>")[0]
        assert f"in line {line_of(name, LINES[name])}" in " ".join(answer.split())
