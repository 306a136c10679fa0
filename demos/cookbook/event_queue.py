"""Events that carry their handlers, from a mouse, the keyboard, and threads, handled in order.

    $ python3 -m demos.cookbook.event_queue
    [ hello ]  [ count ]  [ quit ]                   (in a terminal: click there, or type something)
    clock says 1: handled as event 1
    hello: handled as event 2                                                        (a click)
    key 'x': handled as event 3                                                      (typed)
    ...

The old shape, `old/event_queue.py`, was a thread that scanned its devices: either it asked them
again and again, which burns a processor, or it waited for one of them, and did not see the others.
Here each source waits for itself, and puts what comes into one queue, together with the function
that is to handle it: a button's `onclick`, the screen's `onkeydown`. A source need not know the
handlers, and `handle`, which runs them one after another, need not know the events.

The mouse is that of the terminal, which reports a click as characters among those that are typed
(`ESC [ < button ; column ; row M`). `terminal` waits for them by `ReadWait(stdin)`. The clock is a
thread; `ThreadEnd` is the end of the queue for threads: `put` blocks there while the queue is full.

Ctrl-D, q, or a click on `quit` ends it. Without a terminal it reads the same characters from a
pipe.
"""

from __future__ import annotations

import argparse
import codecs
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from corolib import (
    CancelScope,
    Coro,
    Queue,
    QueueShutDown,
    ReadWait,
    RunFinished,
    ThreadEnd,
    gather,
    run,
    spawn,
    to_thread,
)
from demos.start import at_least, start

Handler = Callable[[str], str]

CLICK = re.compile(r"\x1b\[<(\d+);(\d+);(\d+)([Mm])")  # button, column, row; m: let go again
OTHER = re.compile(r"\x1b\[[\d;?<]*[@-~]|\x1bO.|\x1b[^\[O]")  # arrows and the like
UNFINISHED = re.compile(r"\x1b(\[[\d;?<]*|O)?\Z")
END = ("q", "\x04")  # \x04: Ctrl-D

# What the terminal is told: report clicks, in this form; and no more of it.
MOUSE_ON, MOUSE_OFF = "\x1b[?1000h\x1b[?1006h", "\x1b[?1006l\x1b[?1000l"


class Event(NamedTuple):
    """Something that has happened, and the function that is to handle it."""

    handler: Handler
    about: str


class Button(NamedTuple):
    """A place on the first row of the screen, with its handler."""

    label: str
    column: int
    onclick: Handler

    def __contains__(self, place: object) -> bool:
        return isinstance(place, int) and 0 <= place - self.column < len(self.label) + 4


@dataclass
class Screen:
    """What can be clicked on, and what is done then; it knows nothing of where events come from."""

    quits: Callable[[], object]
    buttons: list[Button] = field(default_factory=list)
    clicks: int = 0

    def __post_init__(self) -> None:
        column = 1
        for label in ("hello", "count", "quit"):
            self.buttons.append(Button(label, column, getattr(self, f"on_{label}")))
            column += len(label) + 6

    def on_hello(self, about: str) -> str:
        return "hello"

    def on_count(self, about: str) -> str:
        self.clicks += 1  # no lock: handlers run one after another
        return f"clicked {self.clicks} times"

    def on_quit(self, about: str) -> str:
        self.quits()
        return "good bye"

    def onclick(self, about: str) -> str:
        return f"there is nothing at {about}"

    def onkeydown(self, about: str) -> str:
        if about in END:
            return self.on_quit(about)
        return f"key {about!r}"

    def click(self, column: int, row: int) -> Event:
        """Return the event of a click at a place: its handler is that of what is there."""
        hit = [button for button in self.buttons if row == 1 and column in button]
        return Event(hit[0].onclick if hit else self.onclick, f"column {column}, row {row}")

    def draw(self) -> str:
        return "  ".join(f"[ {button.label} ]" for button in self.buttons)


def decode(text: str, screen: Screen) -> tuple[list[Event], str]:
    """Return the events in what a terminal has sent, and the rest: a sequence without its end."""
    events = []
    while text:
        if match := CLICK.match(text):
            if match[4] == "M":
                events.append(screen.click(int(match[2]), int(match[3])))
        elif UNFINISHED.match(text):
            break
        elif not (match := OTHER.match(text)):
            events.append(Event(screen.onkeydown, text[0]))
        text = text[match.end() if match else 1 :]
    return events, text


def terminal(events: Queue[Event], screen: Screen, stdin: int) -> Coro[None]:
    """Make events of clicks and keys, which come by the same way."""
    characters = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while True:
        yield ReadWait(stdin)
        data = os.read(stdin, 1024)
        if not data:
            return
        found, rest = decode(rest + characters.decode(data), screen)
        for event in found:
            yield from events.put(event)


def ontick(about: str) -> str:
    return f"clock says {about}"


def clock(events: ThreadEnd[Event], ticks: int, pause: float, over: threading.Event) -> None:
    """Put so many events; an ordinary function, called in a thread."""
    try:
        for number in range(1, ticks + 1):
            if over.wait(pause):
                return
            events.put(Event(ontick, str(number)))
    except (RunFinished, QueueShutDown):
        pass  # nobody is there any more


def show(words: str) -> None:
    print(words, flush=True)


def handle(events: Queue[Event], show: Callable[[str], object] = show) -> Coro[None]:
    """Run the handler of each event, one after another."""
    number = 0
    while True:
        try:
            event = yield from events.get()
        except QueueShutDown:
            return
        number += 1
        show(f"{event.handler(event.about)}: handled as event {number}")


def play(ticks: int, pause: float, stdin: int) -> Coro[None]:
    """Start the sources, and wait until none has any more events, or somebody quits."""
    events: Queue[Event] = Queue(10)
    handling = spawn(handle, events)
    over = threading.Event()
    try:
        with CancelScope() as scope:
            ticking = to_thread(clock, ThreadEnd(events), ticks, pause, over)
            yield from gather(terminal(events, Screen(scope.cancel), stdin), ticking)
    finally:
        over.set()
    events.shutdown()  # `handle` still gets what is in it
    yield from handling


@contextmanager
def reporting(stdin: int) -> Iterator[None]:
    """Have a terminal send each key at once, and clicks; draw the buttons on its first row."""
    if not os.isatty(stdin):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(stdin)
    try:
        tty.setcbreak(stdin)  # keys come at once, and are not shown; Ctrl-C is still Ctrl-C
        buttons = Screen(int).draw()
        print(f"\x1b[2J\x1b[1;1H{buttons}\x1b[3r\x1b[3;1H{MOUSE_ON}", end="", flush=True)
        yield
    finally:
        print(f"{MOUSE_OFF}\x1b[r\x1b[999;1H", flush=True)
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def main(options: argparse.Namespace) -> None:
    with reporting(sys.stdin.fileno()):
        try:
            run(play, options.ticks, options.pause, sys.stdin.fileno())
        except PermissionError:
            sys.exit("a file cannot be waited for: give a terminal, or a pipe")


if __name__ == "__main__":
    start(
        main,
        __doc__,
        arguments={
            "--ticks": {
                "type": at_least(0, 1_000_000),
                "default": 5,
                "help": "of the clock; default: 5",
            },
            "--pause": {
                "type": at_least(0.0, 3600.0),
                "default": 2.0,
                "help": "seconds; default: 2",
            },
        },
    )
