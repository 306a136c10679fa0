"""See it run: what the scheduler did, when and why, for people and programs that read it later.

    run(main, trace="out.html")
    python3 -m corolib trace program.py

The recorder is a scheduler that notes what it does; one that is not traced is another class, and
knows nothing of this package.

    command -> traces -> recorder -> watching     files, page, perfetto: forms of a trace
    sentences -> state -> events     recorder -> messages
    observing -> watchdog, measuring     looking: for a run that goes on
"""

from __future__ import annotations

from corolib.trace.events import EVENTS
from corolib.trace.files import read_lines
from corolib.trace.measuring import MeasuredScheduler, Measures
from corolib.trace.sentences import sentence
from corolib.trace.state import State, TaskState, replay
from corolib.trace.traces import Trace, mark, write

__all__ = [
    "EVENTS",
    "MeasuredScheduler",
    "Measures",
    "State",
    "TaskState",
    "Trace",
    "mark",
    "read_lines",
    "replay",
    "sentence",
    "write",
]
