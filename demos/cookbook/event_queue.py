"""Events from threads and from the keyboard, handled in order by one task.

    $ python3 -m demos.cookbook.event_queue
    type something; two mice click meanwhile
    mouse 1 clicks: handled as event 1
    mouse 2 clicks: handled as event 2
    hello                                                      (typed)
    somebody types 'hello': handled as event 3
    ...

The old shape, `old/event_queue.py`, was a thread that scanned its devices: either it asked them
again and again, which burns a processor, or it waited for one of them, and did not see the others.
Here each source waits for itself and puts what comes into one queue. `ThreadEnd` is the end of the
queue for threads: `put` blocks there, while the queue is full.

Only `handle` runs handlers: they need no lock. Ctrl-D, when all have clicked, ends the program.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from corolib import (
    Coro,
    Queue,
    QueueShutDown,
    RunFinished,
    gather,
    open_stdin,
    run,
    spawn,
    to_thread,
)
from corolib.coordination.threads import ThreadEnd
from corolib.demo.start import at_least, start

Event = tuple[str, str]  # what kind of event, and what about it


def mouse(events: ThreadEnd[Event], name: str, clicks: int, pause: float) -> None:
    """Click so many times; an ordinary function, called in a thread."""
    try:
        for _ in range(clicks):
            time.sleep(pause)
            events.put(("click", name))
    except RunFinished:
        pass  # nobody is there any more


def keyboard(events: Queue[Event]) -> Coro[None]:
    """Make an event of each line that is typed."""
    with open_stdin() as typed:
        while line := (yield from typed.readline()):
            yield from events.put(("line", line.decode("utf-8", "replace").rstrip("\n")))


def on_click(name: str) -> str:
    return f"{name} clicks"


def on_line(text: str) -> str:
    return f"somebody types {text!r}"


HANDLERS: dict[str, Callable[[str], str]] = {"click": on_click, "line": on_line}


def handle(events: Queue[Event]) -> Coro[None]:
    """Run the handler of each event, one after another."""
    number = 0
    while True:
        try:
            kind, about = yield from events.get()
        except QueueShutDown:
            return
        number += 1
        print(f"{HANDLERS[kind](about)}: handled as event {number}", flush=True)


def play(clicks: int, pause: float) -> Coro[None]:
    """Start the sources, and wait until none has any more events."""
    events: Queue[Event] = Queue(10)
    spawn(handle, events)
    end = ThreadEnd(events)
    mice = [to_thread(mouse, end, f"mouse {number}", clicks, pause) for number in (1, 2)]
    yield from gather(keyboard(events), *mice)
    events.shutdown()  # `handle` still gets what is in it


def main(options: argparse.Namespace) -> None:
    print("type something; two mice click meanwhile", flush=True)
    run(play, options.clicks, options.pause)


if __name__ == "__main__":
    start(
        main,
        __doc__,
        arguments={
            "--clicks": {"type": at_least(0), "default": 5, "help": "of each mouse; default: 5"},
            "--pause": {"type": at_least(0.0), "default": 0.5, "help": "seconds; default: 0.5"},
        },
    )
