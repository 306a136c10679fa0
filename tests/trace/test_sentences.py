"""What an event means, in words: the sentences that the page and the text on stderr show."""

import pytest

from corolib.trace import State, sentence
from corolib.trace.sentences import span

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


RAN = "main#1 ran for 3 µs to chat.py:41"
QUEUED = "goes to the end of the ready queue, place 2."


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([], "echo#2 is new, and goes to the end of the ready queue, place 1."),
        ([{"kind": "run", "tasks": 1}], "The run begins."),
        ([{"kind": "turn", "n": 4, "ready": 0}], "Turn 4 begins. No task is ready yet."),
        ([{"kind": "turn", "n": 4, "ready": 1}], "Turn 4 begins. 1 task is ready."),
        ([{"kind": "turn", "n": 4, "ready": 2}], "Turn 4 begins. 2 tasks are ready."),
        ([yields(trap="")], f"{RAN} and gave way: it can go on, after the others."),
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
            [yields(trap="Sleep", until=None)],
            f"{RAN} and yielded Sleep. It is parked for ever: only a cancel ends that.",
        ),
        (
            [yields(trap="Join", join=2)],
            f"{RAN}. It is parked: nothing runs it until echo#2 is done.",
        ),
        (
            [yields(trap="Enqueue", what="acquire Lock till")],
            f"{RAN}. It is parked, and waits: acquire Lock till.",
        ),
        (
            [yields(trap="Enqueue", what="acquire Lock till", holders=[2])],
            f"{RAN}. It is parked, and waits: acquire Lock till, which depends on echo#2.",
        ),
        ([yields(trap="int")], f"{RAN} and yielded int."),
        ([yields(trap=""), wakes("yield")], f"main#1 gave way: it waits for nothing, and {QUEUED}"),
        (
            [yields(write=7), wakes("at once", by=1)],
            f"main#1 need not wait, for what it asked for is there. It {QUEUED}",
        ),
        (
            [yields(read=7), wakes("io")],
            f"What main#1 waited for has happened: fd 7 can be read. It {QUEUED}",
        ),
        (
            [yields(write=7), wakes("io")],
            f"What main#1 waited for has happened: fd 7 can be written. It {QUEUED}",
        ),
        (
            [yields(urgent=7), wakes("io")],
            f"What main#1 waited for has happened: fd 7 has urgent data. It {QUEUED}",
        ),
        (
            [yields(until=7), wakes("timer")],
            f"The time that main#1 waited for has come. It {QUEUED}",
        ),
        (
            [yields(join=2), wakes("join", by=2)],
            f"echo#2 is done, and main#1 waited for that. It {QUEUED}",
        ),
        (
            [yields(what="acquire Lock till"), wakes("lock", by=2)],
            "echo#2 lets go, and main#1 was the first in line: acquire Lock till. It has it now, "
            f"and {QUEUED}",
        ),
        (
            [
                yields(what="acquire Lock till"),
                {"kind": "over", "task": 2, "how": "returned"},
                wakes("lock", by=2),
            ],
            "echo#2 has ended and gives nothing back, so main#1, the first in line, gets an error "
            "instead: acquire Lock till. It goes to the end of the ready queue, place 1.",
        ),
        (
            [yields(what="get from Queue 1"), wakes("queue", by=2)],
            f"echo#2 ends the wait of main#1: get from Queue 1. It {QUEUED}",
        ),
        (
            [yields(what="wait for Event 1"), wakes("event", by=2)],
            f"echo#2 ends the wait of main#1: wait for Event 1. It {QUEUED}",
        ),
        ([yields(), wakes("other")], f"The scheduler ends the wait of main#1. It {QUEUED}"),
        (
            [yields(), wakes("cancel", by=2)],
            f"The wait of main#1 is taken back, and Cancelled is waiting for it. It {QUEUED}",
        ),
        ([yields(), wakes("thread")], f"Another thread has ended the wait of main#1. It {QUEUED}"),
        (
            [yields(), wakes("signal")],
            f"A signal handler has ended the wait of main#1. It {QUEUED}",
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
            [{"kind": "over", "task": 1, "how": "returned"}],
            "main#1 ran for 3 µs and returned. It is done when its children are, if it has any.",
        ),
        (
            [{"kind": "over", "task": 1, "how": "failed", "error": "ValueError"}],
            "main#1 ran for 3 µs and raised ValueError. Its children, if any, are cancelled.",
        ),
        (
            [{"kind": "over", "task": 1, "how": "cancelled"}],
            "main#1 ran for 3 µs and ended, as it was asked to.",
        ),
        (
            [{"kind": "over", "task": 2, "how": "failed", "error": "RuntimeError"}],
            "echo#2 ran for 0 ns and raised RuntimeError. Its children, if any, are cancelled.",
        ),
        ([{"kind": "done", "task": 2, "how": "returned"}], "echo#2 is done."),
        (
            [{"kind": "done", "task": 2, "how": "failed", "error": "ValueError"}],
            "echo#2 is done: ValueError left it.",
        ),
        ([{"kind": "done", "task": 2, "how": "cancelled"}], "echo#2 is done: it was cancelled."),
        (
            [{"kind": "done", "task": 2, "how": "abandoned"}],
            "echo#2 is left as it is: the run ends without it.",
        ),
        (
            [{"kind": "poll"}],
            "Nobody is ready, and no timer is set: the scheduler sleeps until a file is ready.",
        ),
        (
            [{"kind": "poll", "timeout": 0.5}],
            "Nobody is ready, and the next timer is due in 500.0 ms: the scheduler sleeps at most "
            "so long.",
        ),
        (
            [{"kind": "poll", "timeout": 0}],
            "The scheduler looks which files are ready, and does not wait: tasks are ready.",
        ),
        (
            [
                {"kind": "step", "task": 2, "n": 1, "via": "send"},
                {"kind": "poll", "timeout": 0},
            ],
            "The scheduler looks which files are ready, and does not wait: a timer is due.",
        ),
        (
            [{"kind": "polled", "files": [[7, "r"], [8, "rw"]], "count": 2}],
            "The selector reports: fd 7 can be read, fd 8 can be read or written.",
        ),
        ([{"kind": "polled", "files": [], "count": 0}], "The selector reports no file."),
        (
            [{"kind": "watch", "fd": 7, "mask": "rw"}],
            "The selector is told to watch fd 7, to be read or written.",
        ),
        ([{"kind": "unwatch", "fd": 7}], "The selector is told to watch fd 7 no more."),
        (
            [{"kind": "cancel.ask", "task": 2, "scope": 0, "label": "echo#2", "by": 1}],
            "main#1 asks echo#2 to end: no reason is given.",
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
            "The scheduler asks echo#2 to leave the block timeout of 5 s: the deadline has passed.",
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
            "The wait that echo#2 was in is undone. Cancelled will be raised there, so that it "
            "leaves shield.",
        ),
        (
            [{"kind": "cancel.deliver", "task": 2, "scope": 0, "error": "Cancelled"}],
            "The wait that echo#2 was in is undone. Cancelled will be raised there, so that it "
            "ends.",
        ),
        (
            [{"kind": "scope.leave", "task": 2, "scope": 3, "label": "shield", "caught": False}],
            "echo#2 leaves the block shield.",
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
            "echo#2 leaves the block CancelScope, which catches the Cancelled that was meant for "
            "it.",
        ),
        (
            [{"kind": "timer.set", "id": 3, "at": 2_000, "for": "echo#2"}],
            "The timer 3 is set, for echo#2: it is due when the clock says 2 µs.",
        ),
        (
            [{"kind": "timer.set", "id": 3, "for": "echo#2"}],
            "The timer 3 is set, for echo#2, and is never due.",
        ),
        ([{"kind": "timer.fire", "id": 3}], "The clock says that the timer 3 is due."),
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
            "main#1 puts an item into Queue 1. It is handed to echo#2, who waited for one.",
        ),
        (
            [{"kind": "queue.put", "queue": 1, "label": "Queue 1", "length": 2}],
            "The scheduler puts an item into Queue 1, which has 2 now.",
        ),
        (
            [{"kind": "queue.get", "queue": 1, "label": "Queue 1", "task": 1, "length": 0}],
            "main#1 takes an item out of Queue 1, which has 0 now.",
        ),
        (
            [{"kind": "call", "from": "thread T", "function": "set"}],
            "A call from outside of the tasks is made (thread T): set.",
        ),
        (
            [{"kind": "deadlock", "tasks": [1, 2], "cycle": []}],
            "No task can ever run again: a deadlock. All are cancelled.",
        ),
        (
            [{"kind": "deadlock", "tasks": [1, 2], "cycle": [1, 2]}],
            "No task can ever run again, for some wait for each other: main#1 waits for echo#2 (?)"
            ", echo#2 waits for main#1 (?). All are cancelled.",
        ),
        (
            [
                {"kind": "over", "task": 1, "how": "returned"},
                {"kind": "step", "task": 2, "n": 1, "via": "send"},
                yields(2, "Join", join=1),
                {"kind": "deadlock", "tasks": [1, 2], "cycle": [1, 2]},
            ],
            "No task can ever run again, for some wait for each other: "
            "main#1 waits for echo#2 (its child), echo#2 waits for main#1 (its end). "
            "All are cancelled.",
        ),
        ([{"kind": "mark", "name": "begins", "data": {}}], "The scheduler notes: begins."),
        (
            [{"kind": "mark", "task": 2, "name": "begins", "data": {"n": "1"}}],
            "echo#2 notes: begins (n=1).",
        ),
        ([{"kind": "end", "reason": "returned"}], "The run is over: returned."),
    ],
)
def test_each_event_has_its_sentence(events, text):
    assert said(*events) == text


def test_main_is_made_by_nobody_and_others_by_who_spawns_them():
    assert said(begin=BEGIN[:1]) == "main#1 is made at chat.py:31."
    assert said(begin=BEGIN[:4]) == (
        "main#1 spawns echo#2 at chat.py:33. "
        "It takes its first step when those before it have had theirs."
    )


def test_what_was_dropped_is_not_known_and_the_rest_is_said_all_the_same():
    step = {"kind": "step", "task": 9, "n": 3, "via": "send"}
    assert said(step, begin=[]) == "?#9 is next: the scheduler resumes it at its end."
    assert said(wakes("io", 9), begin=[]) == (
        "What ?#9 waited for has happened: ?. It goes to the end of the ready queue, place 1."
    )
    assert said({"kind": "polled", "files": [], "count": 0}, begin=[]).endswith("no file.")
    assert said({"kind": "over", "task": 9, "how": "returned"}, begin=[]).startswith(
        "?#9 ran for 0 ns"
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
