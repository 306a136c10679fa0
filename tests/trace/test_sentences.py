"""What an event means, in words: the sentences that the page and the text on stderr show."""

import pytest

from corolib.trace import State, sentence
from corolib.trace.sentences import place, span, wish_in_words

CODES = [["main", "/srv/chat.py", 30], ["echo", "/srv/chat.py", 40]]
BEGIN = [
    {"kind": "spawn", "task": 1, "name": "main", "daemon": False, "code": 0, "line": 31},
    {"kind": "wake", "task": 1, "why": "new"},
    {"kind": "step", "task": 1, "n": 1, "via": "send"},
    {
        "kind": "spawn",
        "task": 2,
        "name": "echo",
        "parent": 1,
        "daemon": False,
        "code": 0,
        "line": 33,
    },
    {"kind": "wake", "task": 2, "why": "new", "by": 1},
]


def said(*events, begin=BEGIN):
    """Return the sentence for the last of some events, which are 1 µs apart."""
    state = State()
    text = ""
    for i, event in enumerate([*begin, *events]):
        event = {"i": i, "ns": i * 1000, **event}
        state.apply(event)
        text = sentence(event, state, CODES)
    return text


def yields(task=1, trap="ReadWait", **on):
    return {"kind": "yield", "task": task, "trap": trap, "on": on, "code": 1, "line": 41}


def wakes(why, task=1, **more):
    return {"kind": "wake", "task": task, "why": why, **more}


def spawns(task, **more):
    about = {"name": "child", "parent": 1, "daemon": False, "code": 0, "line": 34}
    return {"kind": "spawn", "task": task, **about, **more}


FAILED = {"error": "ValueError", "message": "no such colour", "code": 1, "line": 47}
RAN = "main#1 ran for 3 µs to chat.py:41"
QUEUED = "goes to the end of the ready queue, place 2."
FIRST = "goes to the ready queue, where it is first."


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([], f"echo#2 is new, and {FIRST}"),
        ([{"kind": "run", "tasks": 1}], "The run begins."),
        ([{"kind": "turn", "n": 4, "ready": 0}], "Turn 4 begins. No task is ready yet."),
        ([{"kind": "turn", "n": 4, "ready": 1}], "Turn 4 begins. 1 task is ready."),
        ([{"kind": "turn", "n": 4, "ready": 2}], "Turn 4 begins. 2 tasks are ready."),
        ([yields(trap="")], f"{RAN} and gave way: it can go on after the others."),
        (
            [yields(read=11)],
            f"{RAN} and yielded ReadWait(fd 11). It is parked: nothing runs it until fd 11 can be "
            "read.",
        ),
        (
            [yields(trap="WriteWait", write=11)],
            f"{RAN} and yielded WriteWait(fd 11). It is parked: nothing runs it until fd 11 can be "
            "written.",
        ),
        (
            [yields(trap="UrgentWait", urgent=11)],
            f"{RAN} and yielded UrgentWait(fd 11). It is parked: nothing runs it until fd 11 has "
            "urgent data.",
        ),
        (
            [yields(trap="Sleep", until=1_500_000_000)],
            f"{RAN} and yielded Sleep. It is parked: nothing runs it until the clock says 1.5 s.",
        ),
        (
            [yields(trap="Sleep", until=1_500_000_000, **{"for": 3_000_000})],
            f"{RAN} and yielded Sleep. It is parked: nothing runs it in the next 3.0 ms.",
        ),
        (
            [yields(trap="Sleep", until=None)],
            f"{RAN} and yielded Sleep. It is parked for ever: only a cancel ends that.",
        ),
        (
            [yields(trap="Join", join=2)],
            f"{RAN}. It is parked: nothing runs it until echo#2 is done.",
        ),
        (
            [yields(trap="Enqueue", what="acquire Lock till")],
            f"{RAN}. It is parked, and waits to acquire Lock till.",
        ),
        (
            [yields(trap="Enqueue", what="acquire Lock till", holders=[2])],
            f"{RAN}. It is parked, and waits to acquire Lock till, held by echo#2.",
        ),
        ([yields(trap="int")], f"{RAN} and yielded int."),
        ([yields(trap=""), wakes("yield")], f"main#1 gave way and waits for nothing: it {QUEUED}"),
        (
            [yields(write=7), wakes("at once", by=1)],
            f"main#1 need not wait after all: it {QUEUED}",
        ),
        (
            [yields(read=7), wakes("io")],
            f"Now fd 7 can be read. main#1 waited for that, and {QUEUED}",
        ),
        (
            [yields(write=7), wakes("io")],
            f"Now fd 7 can be written. main#1 waited for that, and {QUEUED}",
        ),
        (
            [yields(urgent=7), wakes("io")],
            f"Now fd 7 has urgent data. main#1 waited for that, and {QUEUED}",
        ),
        (
            [yields(until=7), wakes("timer")],
            f"The time that main#1 waited for has come: main#1 {QUEUED}",
        ),
        (
            [yields(join=2), wakes("join", by=2)],
            f"main#1 waited for the end of echo#2, and {QUEUED}",
        ),
        (
            [yields(what="acquire Lock till"), wakes("lock", by=2)],
            f"main#1 was the first to wait for Lock till and holds it now: main#1 {QUEUED}",
        ),
        (
            [
                yields(what="acquire Lock till"),
                {"kind": "over", "task": 2, "how": "returned"},
                wakes("lock", by=2),
            ],
            "echo#2 ended and did not release Lock till. main#1 was the first to wait for it: "
            f"main#1 gets an error instead, and {FIRST}",
        ),
        (
            [yields(what="get from Queue 1"), wakes("queue", by=2)],
            f"echo#2 ends the wait of main#1 to get from Queue 1: main#1 {QUEUED}",
        ),
        (
            [yields(what="wait for Event 1"), wakes("event", by=2)],
            f"echo#2 ends the wait of main#1 for Event 1: main#1 {QUEUED}",
        ),
        (
            [yields(what="wait for Condition 1"), wakes("lock", by=2)],
            f"echo#2 ends the wait of main#1 for Condition 1: main#1 {QUEUED}",
        ),
        ([yields(), wakes("other")], f"The scheduler ends the wait of main#1: main#1 {QUEUED}"),
        (
            [yields(), wakes("cancel", by=2)],
            f"main#1 does not wait any more, and {QUEUED}",
        ),
        (
            [yields(), wakes("thread")],
            f"Another thread has ended the wait of main#1: main#1 {QUEUED}",
        ),
        (
            [yields(), wakes("signal")],
            f"A signal handler has ended the wait of main#1: main#1 {QUEUED}",
        ),
        (
            [yields(), {"kind": "step", "task": 2, "n": 1, "via": "send"}],
            "echo#2 is next, after 2 µs in the queue: the scheduler starts it.",
        ),
        (
            [yields(), {"kind": "step", "task": 1, "n": 2, "via": "send"}],
            "main#1 is next: the scheduler resumes it at chat.py:41.",
        ),
        (
            [yields(), {"kind": "step", "task": 1, "n": 2, "via": "throw", "error": "Cancelled"}],
            "main#1 is next: the scheduler resumes it at chat.py:41 by raising Cancelled.",
        ),
        (
            [
                yields(),
                {"kind": "step", "task": 1, "n": 2, "via": "throw", "error": "OSError"}
                | {"message": "no file."},
            ],
            "main#1 is next: the scheduler resumes it at chat.py:41 by raising OSError: no file.",
        ),
        (
            [{"kind": "over", "task": 1, "how": "returned"}],
            "main#1 ran and returned, after 3 µs. It is done when its child echo#2 is.",
        ),
        (
            [
                *(yields(), wakes("io"), {"kind": "step", "task": 1, "n": 2, "via": "send"}),
                {"kind": "over", "task": 1, "how": "returned"},
            ],
            "main#1 went on from chat.py:41 and returned, after 1 µs. "
            "It is done when its child echo#2 is.",
        ),
        (
            [spawns(7), spawns(8, daemon=True), {"kind": "over", "task": 1, "how": "returned"}],
            "main#1 ran and returned, after 5 µs. It is done when its children are: echo#2, "
            "child#7. Daemons are not waited for, but cancelled: child#8.",
        ),
        (
            [{"kind": "over", "task": 1, "how": "failed", "error": "ValueError"}],
            "main#1 ran for 3 µs and failed with ValueError. Its child echo#2 is cancelled.",
        ),
        (
            [
                *(spawns(n, daemon=n == 8) for n in range(3, 9)),
                {"kind": "over", "task": 1, "how": "failed", **FAILED},
            ],
            "main#1 ran for 9 µs and failed at chat.py:47 with ValueError: no such colour. "
            "Its children are cancelled: echo#2, child#3, child#4, child#5, child#6 and 2 more.",
        ),
        (
            [
                *(yields(), wakes("io"), {"kind": "step", "task": 1, "n": 2, "via": "send"}),
                {"kind": "over", "task": 1, "how": "failed", **FAILED, "line": 41},
            ],
            "main#1 ran for 1 µs and failed at chat.py:41 with ValueError: no such colour. "
            "Its child echo#2 is cancelled.",
        ),
        (
            [
                *(yields(), wakes("io"), {"kind": "step", "task": 1, "n": 2, "via": "send"}),
                yields(read=11),
            ],
            "main#1 ran for 1 µs to chat.py:41 again and yielded ReadWait(fd 11). "
            "It is parked: nothing runs it until fd 11 can be read.",
        ),
        (
            [{"kind": "over", "task": 1, "how": "cancelled"}],
            "main#1 ran for 3 µs and ended, for it was cancelled. Its child echo#2 is cancelled.",
        ),
        (
            [
                {"kind": "lock.take", "lock": 1, "label": "Lock till", "task": 2},
                {"kind": "over", "task": 2, "how": "failed", "error": "RuntimeError"},
            ],
            "echo#2 ran for some time and failed with RuntimeError. "
            "It still held Lock till: nobody gives that back any more.",
        ),
        ([{"kind": "done", "task": 2, "how": "returned"}], "echo#2 is done."),
        (
            [{"kind": "done", "task": 2, "how": "failed", "error": "ValueError"}],
            "echo#2 is done: it failed with ValueError.",
        ),
        ([{"kind": "done", "task": 2, "how": "cancelled"}], "echo#2 is done: it was cancelled."),
        (
            [{"kind": "done", "task": 2, "how": "abandoned"}],
            "echo#2 is left as it is: the run ends without it.",
        ),
        (
            [{"kind": "poll"}],
            "No task is ready, and no timer is set: the scheduler sleeps until a file is ready.",
        ),
        (
            [{"kind": "poll", "timeout": 0.5}],
            "No task is ready, and the next timer is due in 500.0 ms: the scheduler sleeps until "
            "then, or until a file is ready.",
        ),
        (
            [{"kind": "poll", "timeout": 0}],
            "Tasks are ready, so the scheduler does not sleep: it only asks the selector which "
            "files are ready.",
        ),
        (
            [
                {"kind": "step", "task": 2, "n": 1, "via": "send"},
                {"kind": "poll", "timeout": 0},
            ],
            "A timer is due, so the scheduler does not sleep: it only asks the selector which "
            "files are ready.",
        ),
        (
            [{"kind": "polled", "files": [[7, "r"], [8, "rw"]], "count": 2}],
            "The selector reports: fd 7 can be read, fd 8 can be read or written.",
        ),
        (
            [
                {"kind": "watch", "fd": 7, "mask": "r", "own": True},
                {"kind": "polled", "files": [[7, "r"]], "count": 1},
            ],
            "The selector reports: fd 7 can be read (the scheduler's own).",
        ),
        (
            [{"kind": "polled", "files": [], "count": 0}],
            "The selector reports that no file is ready.",
        ),
        (
            [{"kind": "watch", "fd": 7, "mask": "rw"}],
            "From now on the selector watches whether fd 7 can be read or written.",
        ),
        (
            [{"kind": "watch", "fd": 7, "mask": "r", "own": True}],
            "From now on the selector watches fd 7 for the scheduler itself: signals and other "
            "threads wake it by that.",
        ),
        ([{"kind": "unwatch", "fd": 7}], "The selector does not watch fd 7 any more."),
        (
            [{"kind": "cancel.ask", "task": 2, "scope": 0, "label": "echo#2", "by": 1}],
            "main#1 cancels echo#2.",
        ),
        (
            [
                {"kind": "over", "task": 1, "how": "returned"},
                {"kind": "cancel.ask", "task": 1, "scope": 0, "label": "main#1"}
                | {"reason": "the run ends"},
            ],
            "The scheduler cancels the children of main#1 (reason: the run ends). "
            "Its own body is over.",
        ),
        (
            [
                {
                    "kind": "cancel.ask",
                    "task": 2,
                    "scope": 3,
                    "label": "timeout of 5 s",
                    "reason": "the deadline has passed",
                }
            ],
            'The scheduler cancels the block "timeout of 5 s" of echo#2 '
            "(reason: the deadline has passed).",
        ),
        (
            [
                {
                    "kind": "cancel.deliver",
                    "task": 2,
                    "scope": 3,
                    "label": "shield",
                    "error": "Cancelled",
                }
            ],
            "The wait of echo#2 is undone: Cancelled will be raised there instead, so that the "
            'task leaves the block "shield".',
        ),
        (
            [
                yields(2, "Enqueue", what="acquire Lock till"),
                {"kind": "cancel.deliver", "task": 2, "scope": 0, "error": "Cancelled"},
            ],
            "The wait of echo#2 to acquire Lock till is undone: Cancelled will be raised there "
            "instead, so that the task ends.",
        ),
        (
            [{"kind": "scope.leave", "task": 2, "scope": 3, "label": "shield", "caught": False}],
            'echo#2 leaves the block "shield".',
        ),
        (
            [
                {
                    "kind": "scope.leave",
                    "task": 2,
                    "scope": 3,
                    "label": "CancelScope",
                    "caught": True,
                }
            ],
            'echo#2 leaves the block "CancelScope", which catches the exception that was raised '
            "for it.",
        ),
        (
            [{"kind": "timer.set", "id": 3, "at": 2_000, "for": "echo#2"}],
            "Timer 3 is set for echo#2: it is due when the clock says 2 µs.",
        ),
        (
            [{"kind": "timer.set", "id": 3, "for": "echo#2"}],
            "Timer 3 is set for echo#2, and is never due.",
        ),
        ([{"kind": "timer.fire", "id": 3}], "Timer 3 is due."),
        ([{"kind": "timer.fire", "id": 3, "late": 1_100_000}], "Timer 3 is due."),
        ([{"kind": "timer.fire", "id": 3, "late": 29_700_000}], "Timer 3 is due, 29.7 ms late."),
        (
            [
                {
                    "kind": "queue.put",
                    "queue": 1,
                    "label": "Queue 1",
                    "task": 1,
                    "length": 0,
                    "to": 2,
                }
            ],
            "main#1 puts an item into Queue 1. echo#2 waited for one, and gets it.",
        ),
        (
            [{"kind": "queue.put", "queue": 1, "label": "Queue 1", "length": 2}],
            "Code outside of the tasks puts an item into Queue 1, which has 2 items now.",
        ),
        (
            [{"kind": "queue.get", "queue": 1, "label": "Queue 1", "task": 1, "length": 0}],
            "main#1 takes an item out of Queue 1, which has no item now.",
        ),
        (
            [{"kind": "call", "from": "thread T", "function": "set"}],
            "The scheduler calls set, as the thread T asked for.",
        ),
        (
            [{"kind": "call", "from": "signal", "function": "set"}],
            "The scheduler calls set, as a signal handler asked for.",
        ),
        (
            [{"kind": "deadlock", "tasks": [1, 2], "cycle": []}],
            "A deadlock: no task can ever go on. All of them are cancelled.",
        ),
        (
            [{"kind": "deadlock", "tasks": [1, 2], "cycle": [1, 2]}],
            "A deadlock: main#1 waits for echo#2; echo#2 waits for main#1. No task can ever go on, "
            "and all of them are cancelled.",
        ),
        (
            [
                {"kind": "over", "task": 1, "how": "returned"},
                {"kind": "step", "task": 2, "n": 1, "via": "send"},
                yields(2, "Join", join=1),
                {"kind": "deadlock", "tasks": [1, 2], "cycle": [1, 2]},
            ],
            "A deadlock: main#1 waits for its child echo#2; echo#2 waits for main#1. "
            "No task can ever go on, and all of them are cancelled.",
        ),
        (
            [
                yields(1, "Enqueue", what="acquire Lock till"),
                {"kind": "step", "task": 2, "n": 1, "via": "send"},
                yields(2, "Suspend", what="a shout"),
                {"kind": "deadlock", "tasks": [1, 2], "cycle": [1, 2]},
            ],
            "A deadlock: main#1 waits to acquire Lock till, held by echo#2; "
            "echo#2 waits for main#1 for a shout. "
            "No task can ever go on, and all of them are cancelled.",
        ),
        (
            [
                {"kind": "lint", "task": 2, "lint": "never run", "code": 1, "line": 47}
                | {"call": "send", "cure": "yield from send(...)"}
            ],
            "A mistake in the source, chat.py:47: send() does nothing there, for nobody runs what "
            "it returns. Write `yield from send(...)`.",
        ),
        (
            [{"kind": "mark", "name": "begins", "data": {}}],
            "Code outside of the tasks notes: begins.",
        ),
        (
            [{"kind": "mark", "task": 2, "name": "begins", "data": {"n": "1"}}],
            "echo#2 notes: begins (n=1).",
        ),
        (
            [{"kind": "end", "reason": "returned"}],
            "The run is over: the main task returned.",
        ),
        (
            [{"kind": "end", "reason": "closed", "failed": 1, "first": "echo#2"}],
            "The run is over: the scheduler was closed. 1 task failed: echo#2.",
        ),
        (
            [{"kind": "end", "reason": "OSError", "message": "x", "failed": 3, "first": "echo#2"}],
            "The run is over: OSError: x. 3 tasks failed, echo#2 first.",
        ),
    ],
)
def test_each_event_has_its_sentence(events, text):
    assert said(*events) == text


def test_main_is_made_by_nobody_and_others_by_who_spawns_them():
    assert said(begin=BEGIN[:1]) == "main#1 is made at chat.py:31."
    assert said(begin=BEGIN[:4]) == (
        "main#1 spawns echo#2 at chat.py:33. The new task does not run at once."
    )


def test_what_was_dropped_is_not_known_and_the_rest_is_said_all_the_same():
    step = {"kind": "step", "task": 9, "n": 3, "via": "send"}
    assert said(step, begin=[]) == "?#9 is next: the scheduler resumes it."
    for why, text in (
        ("io", "Now a file is ready. ?#9 waited for that, and"),
        ("join", "?#9 waited for the end of another task, and"),
        ("lock", "The scheduler ends the wait of ?#9: ?#9"),
    ):
        assert said(wakes(why, 9), begin=[]) == f"{text} {FIRST}"
    assert said(yields(9, read=11), begin=[]).startswith("?#9 ran for some time to chat.py:41 and")
    assert said({"kind": "polled", "files": [], "count": 0}, begin=[]).endswith("no file is ready.")
    assert said({"kind": "over", "task": 9, "how": "returned"}, begin=[]).startswith(
        "?#9 ran and returned, after some time"
    )


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        *((0, "0 ns"), (999, "999 ns"), (1000, "1 µs"), (18_400, "18 µs"), (1_500_000, "1.5 ms")),
        *((999_960_000, "1000.0 ms"), (12_340_000_000, "12.3 s")),
    ],
)
def test_times_are_said_with_the_digits_that_matter(ns, text):
    assert span(ns) == text


@pytest.mark.parametrize(
    ("what", "text"),
    [
        *(("wait for Event go", " for Event go"), ("wait at Barrier 1", " at Barrier 1")),
        *(("put into Queue 1", " to put into Queue 1"), ("receive SIGHUP", " to receive SIGHUP")),
        *(("a shout", " for a shout"), ("the tasks of a group", " for the tasks of a group")),
        *(("see a Thing", " (see a Thing)"), ("", "")),
    ],
)
def test_what_a_wait_is_for_is_part_of_the_sentence(what, text):
    assert wish_in_words(what) == text


def test_holders_are_named_beside_what_they_hold_back():
    waits = yields(what="the tasks of a group", holders=[2])
    assert said(waits) == f"{RAN}. It is parked, and waits for the tasks of a group (echo#2)."


def test_time_that_no_event_tells_of_is_said_to_have_passed():
    over = {"kind": "over", "task": 1, "how": "failed", "error": "OSError", "ns": 9_000_000}
    done = {"kind": "done", "task": 1, "how": "failed", "error": "OSError", "ns": 27_700_000}
    assert said(over).endswith("Its child echo#2 is cancelled.")  # for so long the task ran
    assert said(over, done) == (
        "main#1 is done: it failed with OSError. "
        "Since the event before, 18.7 ms have passed: the failure was looked into, or reported."
    )
    turn = {"kind": "turn", "n": 2, "ready": 1, "ns": 29_700_000}
    assert said(over, done, turn).endswith(
        " 2.0 ms have passed: the failure was looked into, or reported."
    )
    assert said(over, done, {**turn, "ns": 29_699_999}).endswith("1 task is ready.")
    later = {**turn, "n": 3, "ns": 40_000_000}
    assert said(over, done, turn, later).endswith(" Since the event before, 10.3 ms have passed.")
    poll, polled = {"kind": "poll", "ns": 50_000_000}, {"kind": "polled", "files": [], "count": 0}
    assert said(over, poll, {**polled, "ns": 90_000_000}).endswith("no file is ready.")


def test_a_task_that_stands_in_the_library_alone_stands_in_no_line():
    waits = {"kind": "yield", "task": 1, "trap": "ReadWait", "on": {"read": 4}}
    assert said(waits).startswith("main#1 ran for 3 µs and yielded ReadWait(fd 4).")
    assert place(CODES, -1, -1) == "no line of the program"
