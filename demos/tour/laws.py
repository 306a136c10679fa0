"""The laws that `demos.tour.check` holds a scheduler against, in the order of the tour.

Each law is the smallest program that shows whether it holds. `mine` is what is judged: the traps of
the file, and `spawn` and `run` of a new scheduler. What the program says, by `say`, is compared
with what it has to say. How it is run, and what is told, is in `check.py`.
"""

from __future__ import annotations

import io
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any
from unittest import mock

Say = Callable[..., None]
Coro = Generator[Any, Any, Any]


@dataclass
class Law:
    """What has to hold, what it means if it does not, a hint, and the program that shows it."""

    number: int
    stage: str
    needs: tuple[str, ...]  # what the file must have, or the law is not tried
    text: str
    otherwise: str
    hint: str
    expected: list[str]
    program: Callable[[Any, Say], object]


LAWS: list[Law] = []

FILES = "Tasks that wait for files (Step 10)"
TIMES = "Times, and giving way (Step 11)"
ERRORS = "What goes wrong concerns one task (Step 12)"
CANCEL = "Taking a wait back (Step 13)"
JOIN = "Waiting for another task (Step 14)"
THREADS = "Other threads (Step 16)"
BEYOND = "What corolib has, and the tour has not"


def law(
    stage: str, text: str, *expected: str, needs: str, otherwise: str, hint: str
) -> Callable[[Callable[[Any, Say], object]], Callable[[Any, Say], object]]:
    """Make the program under it a law."""

    def keep(program: Callable[[Any, Say], object]) -> Callable[[Any, Say], object]:
        number = len(LAWS) + 1
        found = (number, stage, tuple(needs.split()), text, otherwise, hint, list(expected))
        LAWS.append(Law(*found, program))
        return program

    return keep


# What the programs use ----------------------------------------------------------------------------


QUIET = 0.2  # seconds in which nothing happens; more when a law is tried again
MANY = 500  # calls in that time: so many are no waiting, however long one takes on a busy machine
RESTS, POLLS = "waits in one call", "asks again and again"
SPINS, GOES_ON = "keeps the processor busy", "does not wait"
made: list[socket.socket] = []  # by `pair`: who runs a law closes what it leaves open


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two sockets that are connected to each other; their calls do not block."""
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    made.extend([a, b])
    return a, b


def later(seconds: float, call: Callable[..., object], *args: object) -> None:
    """Have a thread make a call after that time."""

    def wait() -> None:
        time.sleep(seconds)
        with suppress(Exception):  # the law has ended in another way meanwhile
            call(*args)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def watching() -> Iterator[Callable[[], Callable[[], str]]]:
    """Time the calls of C functions in the block; give a function that begins a quiet time.

    That returns a function which tells, when the QUIET seconds have passed, how the scheduler has
    waited in them: in one call, if the longest took three quarters of the time. (So a scheduler
    that looks only now and then is found out if it looks twice.) Which function it waits in does
    not matter: `select`, `sleep`, `recv`, the `get` of a queue, or another one.
    """
    took: list[float] = []  # seconds, of each call that has called no other function
    began = 0.0  # when the last one began, if nothing has happened since

    def see(frame: object, event: str, arg: object) -> None:
        nonlocal began
        now = time.monotonic()
        if began and event != "c_call":
            took.append(now - began)
        began = now if event == "c_call" else 0.0

    def watch() -> Callable[[], str]:
        took.clear()
        begin = time.monotonic()

        def told() -> str:
            passed = time.monotonic() - begin
            if passed < QUIET / 4:
                return GOES_ON
            if max(took, default=0.0) >= 0.75 * QUIET and len(took) < MANY:
                return RESTS
            return POLLS if sum(each for each in took if each > 0.001) > passed / 2 else SPINS

        return told

    before = sys.getprofile()
    sys.setprofile(see)  # out here: in a task it has crashed Python 3.11
    try:
        yield watch
    finally:
        sys.setprofile(before)


@contextmanager
def same_time() -> Iterator[Callable[[], None]]:
    """Have the clock stand still, until what is given is called, or the block is left."""
    still = [True]

    def stopped(clock: Callable[[], float]) -> Callable[[], float]:
        now = clock()
        return lambda: now if still else clock()

    with (
        mock.patch.object(time, "monotonic", stopped(time.monotonic)),
        mock.patch.object(time, "time", stopped(time.time)),
    ):
        yield still.clear


@contextmanager
def overhearing() -> Iterator[io.StringIO]:
    """Collect what is printed in the block, or logged."""
    with redirect_stderr(io.StringIO()) as heard, redirect_stdout(heard):
        handler = logging.StreamHandler(heard)
        logging.getLogger().addHandler(handler)
        try:
            yield heard
        finally:
            logging.getLogger().removeHandler(handler)


# Tasks that wait for files ------------------------------------------------------------------------

TRAPS = "ReadWait WriteWait"


@law(
    FILES,
    "Tasks are run to their end; then `run` returns.",
    "main is over",
    "the child is over",
    "run has returned",
    needs=TRAPS,
    otherwise="Not all of a program of two tasks was run.",
    hint="`task.send(None)` runs a task to its next `yield`. Who does that again, and when?",
)
def runs_to_the_end(mine: Any, say: Say) -> None:
    a, b = pair()

    def child() -> Coro:
        for _ in range(3):
            yield mine.WriteWait(a)  # there is room: it need not wait
        say("the child is over")

    def main() -> Coro:
        mine.spawn(child())
        yield mine.WriteWait(b)
        say("main is over")

    mine.run(main())
    say("run has returned")


@law(
    FILES,
    "`run` returns when all tasks are over, not when the first is.",
    "the child reads hello",
    needs=TRAPS,
    otherwise="`run` returned while a task was still waiting.",
    hint="How does the scheduler know that somebody is waiting? Ask that, and not how `main` is.",
)
def waits_for_all(mine: Any, say: Say) -> None:
    a, b = pair()

    def child() -> Coro:
        yield mine.ReadWait(a)
        say("the child reads", a.recv(100).decode())

    def main() -> Coro:
        mine.spawn(child())
        yield mine.WriteWait(b)
        b.send(b"hello")

    mine.run(main())


@law(
    FILES,
    "A task that waits to read goes on when there is something to read, and not before.",
    "reads hello",
    needs=TRAPS,
    otherwise="A task went on although there was nothing to read for it.",
    hint="What the task yields says which file it waits for. Who tells you which files are ready?",
)
def not_before_it_is_ready(mine: Any, say: Say) -> None:
    a, b = pair()

    def reader() -> Coro:
        yield mine.ReadWait(a)
        say("reads", a.recv(100).decode())  # BlockingIOError if nothing is there

    def main() -> Coro:
        mine.spawn(reader())
        for _ in range(3):
            yield mine.WriteWait(b)
        b.send(b"hello")

    mine.run(main())


@law(
    FILES,
    "While one task waits, the others go on.",
    "second",
    "first",
    needs=TRAPS,
    otherwise="A task that waits kept another one from its own file, which was ready.",
    hint="Wait for all files in one call, as `select` does, and not for one after another.",
)
def others_go_on(mine: Any, say: Say) -> None:
    a, b = pair()
    c, d = pair()

    def reader(name: str, sock: socket.socket) -> Coro:
        yield mine.ReadWait(sock)
        sock.send(sock.recv(100))
        say(name)

    def main() -> Coro:
        mine.spawn(reader("first", a))
        mine.spawn(reader("second", c))
        yield mine.WriteWait(d)
        d.send(b"hello")
        yield mine.ReadWait(d)
        b.send(b"hello")

    mine.run(main())


@law(
    FILES,
    "A task can wait for the same file again and again.",
    "100 times there and back",
    needs=TRAPS,
    otherwise="Two tasks that write to each other in turn did not come to the end.",
    hint="What was registered once must be taken out when it has fired, or be expected there.",
)
def again_and_again(mine: Any, say: Say) -> None:
    a, b = pair()

    def player(sock: socket.socket) -> Coro:
        for _ in range(100):
            yield mine.ReadWait(sock)
            sock.send(sock.recv(1))
        if sock is a:
            say("100 times there and back")

    def main() -> Coro:
        mine.spawn(player(a))
        yield mine.WriteWait(b)
        b.send(b"x")
        yield from player(b)

    mine.run(main())


@law(
    FILES,
    "A task that waits to write goes on when there is room.",
    "1000000 bytes came",
    needs=TRAPS,
    otherwise="A task that waits for room, while another one reads, did not send everything.",
    hint="To read and to write are two kinds of waiting: the selector has a bit for each.",
)
def waits_for_room(mine: Any, say: Say) -> None:
    a, b = pair()

    def writer() -> Coro:
        data = bytes(1_000_000)
        while data:
            try:
                data = data[a.send(data) :]
            except BlockingIOError:
                yield mine.WriteWait(a)
        a.close()

    def reader() -> Coro:
        count = 0
        part = b"x"
        while part:
            yield mine.ReadWait(b)
            part = b.recv(65536)
            count += len(part)
        say(count, "bytes came")

    def main() -> Coro:
        mine.spawn(reader())
        yield from writer()

    mine.run(main())


@law(
    FILES,
    "While nobody is ready, to read or to write, the scheduler waits in one call.",
    RESTS,
    needs=TRAPS,
    otherwise="It asked over and over, or did not wait, though nobody was ready.",
    hint="How long may the call that waits for files take? For ever, when nothing else is to do.",
)
def does_not_spin(mine: Any, say: Say) -> None:
    a, b = pair()
    c, d = pair()

    def reader() -> Coro:
        yield mine.ReadWait(a)

    def main() -> Coro:
        mine.spawn(reader())
        try:
            while c.send(bytes(65536)):
                """Until there is no room."""
        except BlockingIOError:
            pass
        yield mine.WriteWait(b)  # there is room; and the reader waits by now
        later(QUIET, d.recv, 1_000_000)
        told = watch()
        yield mine.WriteWait(c)
        b.send(b"x")
        say(told())

    with watching() as watch:
        mine.run(main())


@law(
    FILES,
    "What nobody waits for, though it is there, keeps nobody busy.",
    RESTS,
    needs=TRAPS,
    otherwise="It asked over and over, or did not wait: a file was ready that nobody waited for.",
    hint="When a file has fired, and its task goes on: does the selector still tell of that file?",
)
def left_unread(mine: Any, say: Say) -> None:
    a, b = pair()
    c, d = pair()

    def main() -> Coro:
        b.send(b"hello")
        yield mine.ReadWait(a)  # and reads nothing
        later(QUIET, d.send, b"x")
        told = watch()
        yield mine.ReadWait(c)
        say(told())

    with watching() as watch:
        mine.run(main())


@law(
    FILES,
    "The number of a closed file may be given to a new one.",
    "one",
    "two",
    needs=TRAPS,
    otherwise="The second socket, which got the number of the first, was not waited for.",
    hint="What is still registered when a task goes on, and its file is closed?",
)
def numbers_come_again(mine: Any, say: Say) -> None:
    def main() -> Coro:
        for word in ("one", "two"):
            a, b = pair()
            with a, b:
                b.send(word.encode())
                yield mine.ReadWait(a)
                say(a.recv(100).decode())

    mine.run(main())


# Times, and giving way ----------------------------------------------------------------------------


@law(
    TIMES,
    "Sleeps end in the order of their deadlines.",
    "shortest",
    "middle",
    "longest",
    needs=f"{TRAPS} Sleep",
    otherwise="A task that sleeps longer went on before one that sleeps less.",
    hint="Which of the timers is looked at first? A heap keeps its smallest item in front.",
)
def sleeps_in_order(mine: Any, say: Say) -> None:
    def nap(seconds: float, name: str) -> Coro:
        yield mine.Sleep(seconds)
        say(name)

    def main() -> Coro:
        for seconds, name in ((0.03, "longest"), (0.01, "shortest"), (0.02, "middle")):
            mine.spawn(nap(seconds, name))
        yield
        yield
        go_on()

    with same_time() as go_on:  # however long the machine takes from one step to the next
        mine.run(main())


@law(
    TIMES,
    "Sleeps with the same deadline end in the order in which they began.",
    "first",
    "second",
    "third",
    needs=f"{TRAPS} Sleep",
    otherwise="Sleeps with the same deadline ended in another order, or not at all.",
    hint="A heap compares its items: what does it compare when two deadlines are equal?",
)
def same_deadline(mine: Any, say: Say) -> None:
    def nap(name: str) -> Coro:
        yield mine.Sleep(0.01)
        say(name)

    def main() -> Coro:
        for name in ("first", "second", "third"):
            mine.spawn(nap(name))
        yield
        yield
        go_on()

    with same_time() as go_on:
        mine.run(main())


@law(
    TIMES,
    "No sleep ends early.",
    "slept",
    needs=f"{TRAPS} Sleep",
    otherwise="A task went on before its time.",
    hint="When the call that waits for files returns, ask the clock before you wake a sleeper.",
)
def no_sleep_ends_early(mine: Any, say: Say) -> None:
    _, b = pair()

    def noise() -> Coro:
        for _ in range(20):
            yield mine.WriteWait(b)

    def main() -> Coro:
        mine.spawn(noise())
        begin = time.monotonic()
        yield mine.Sleep(0.05)
        passed = time.monotonic() - begin
        say("slept" if passed > 0.049 else f"was woken after {passed} s")

    mine.run(main())


@law(
    TIMES,
    "While all sleep, the scheduler waits in one call.",
    RESTS,
    needs=f"{TRAPS} Sleep",
    otherwise="It asked over and over, while everybody slept.",
    hint="The call that waits for files has an argument: for how long. When is the next deadline?",
)
def does_not_spin_in_a_sleep(mine: Any, say: Say) -> None:
    def main() -> Coro:
        told = watch()
        yield mine.Sleep(QUIET)
        say(told())

    with watching() as watch:
        mine.run(main())


@law(
    TIMES,
    "A sleep keeps no file waiting, and a file no sleep.",
    "the file",
    "the sleep",
    needs=f"{TRAPS} Sleep",
    otherwise="A task that sleeps, or one that waits for a file, kept the other waiting.",
    hint="How long may the call that waits for files take? Until the next deadline, and no longer.",
)
def sleeps_and_files(mine: Any, say: Say) -> None:
    a, b = pair()

    def sleeper() -> Coro:
        yield mine.Sleep(0.1)
        say("the sleep")
        b.send(b"x")

    def reader() -> Coro:
        yield mine.WriteWait(a)
        say("the file")
        yield mine.ReadWait(a)  # comes when the sleeper has slept

    def main() -> Coro:
        mine.spawn(sleeper())
        yield from reader()

    mine.run(main())


@law(
    TIMES,
    "A bare `yield` gives way: ready tasks go on in turn, first come, first served.",
    *["a", "b"] * 3,
    needs=f"{TRAPS} Sleep",
    otherwise="Two tasks that give way to each other did not take turns.",
    hint="A task that yields nothing waits for nothing: put it behind all that are ready.",
)
def give_way(mine: Any, say: Say) -> None:
    def speaker(name: str) -> Coro:
        for _ in range(3):
            say(name)
            yield

    def main() -> Coro:
        mine.spawn(speaker("a"))
        mine.spawn(speaker("b"))
        yield

    mine.run(main())


@law(
    TIMES,
    "A task that is always ready keeps neither files nor times waiting.",
    "the file",
    "ten turns",
    "the sleep",
    "ten turns",
    needs=f"{TRAPS} Sleep",
    otherwise="A task that gives way over and over kept a file or a sleep waiting.",
    hint="Look at files and at timers in every turn, also while somebody is ready.",
)
def nobody_starves(mine: Any, say: Say) -> None:
    a, b = pair()

    def reader() -> Coro:
        yield mine.ReadWait(a)
        say("the file")

    def sleeper() -> Coro:
        yield mine.Sleep(0.02)
        say("the sleep")

    def ten_turns() -> Coro:
        for _ in range(10):
            yield
        say("ten turns")

    def main() -> Coro:
        mine.spawn(reader())
        b.send(b"x")
        yield from ten_turns()
        mine.spawn(sleeper())
        yield
        yield  # by now it sleeps
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            yield
        yield from ten_turns()

    mine.run(main())


@law(
    TIMES,
    "One task may read a file while another one writes it.",
    "written",
    "read",
    needs=f"{TRAPS} Sleep",
    otherwise="Two tasks could not use the two directions of one file.",
    hint="The selector has one entry for a file. Who waits in which direction is for you to keep.",
)
def two_directions(mine: Any, say: Say) -> None:
    a, b = pair()

    def reader() -> Coro:
        yield mine.ReadWait(a)
        say("read")

    def writer() -> Coro:
        yield mine.Sleep(0.01)  # the reader waits by now
        yield mine.WriteWait(a)
        say("written")
        b.send(b"x")

    def main() -> Coro:
        mine.spawn(reader())
        yield from writer()

    mine.run(main())


@law(
    TIMES,
    "A task that spawns a task that spawns a task is no pile of calls.",
    "the last of 2000",
    needs=f"{TRAPS} Sleep",
    otherwise="The first step of a new task was run inside a step of the old one.",
    hint="`spawn` need not run the task: it is enough that the task is ready.",
)
def spawn_is_no_call(mine: Any, say: Say) -> None:
    def link(count: int) -> Coro:
        if count == 2000:
            say("the last of 2000")
        else:
            mine.spawn(link(count + 1))
        yield

    mine.run(link(1))


# What goes wrong concerns one task ----------------------------------------------------------------


@law(
    ERRORS,
    "A second task that waits for the same file does not make the first one hang.",
    "first reads hello",
    needs=f"{TRAPS} Sleep",
    otherwise="Two tasks waited for the same file, and one of them came to harm.",
    hint="Before you write into the table, look whether somebody stands there, and say so to the "
    "second task. If that error ends the whole run, the next law is what does not hold.",
)
def second_reader(mine: Any, say: Say) -> None:
    a, b = pair()

    def reader(name: str) -> Coro:
        yield mine.ReadWait(a)
        if data := a.recv(100):
            say(name, "reads", data.decode())

    def main() -> Coro:
        mine.spawn(reader("first"))
        mine.spawn(reader("second"))
        yield mine.Sleep(0.01)
        b.send(b"hello")
        yield mine.Sleep(0.01)
        b.close()  # whoever waits still: it is over

    mine.run(main())


@law(
    ERRORS,
    "An exception ends the task that it leaves, and no other.",
    "the others go on",
    needs=f"{TRAPS} Sleep",
    otherwise="One task raised an exception, and all were ended.",
    hint="Where does the exception go that leaves `task.send(None)`?",
)
def one_exception(mine: Any, say: Say) -> None:
    def bad() -> Coro:
        yield
        raise ValueError

    def main() -> Coro:
        mine.spawn(bad())
        for _ in range(5):
            yield
        say("the others go on")

    mine.run(main())


@law(
    ERRORS,
    "A failure that nobody waits for is told, while the others go on.",
    "told",
    needs=f"{TRAPS} Sleep",
    otherwise="A task ended with an exception, and nobody was told.",
    hint="Whoever catches the exceptions of all tasks is the only one who can still print them.",
)
def failures_are_told(mine: Any, say: Say) -> None:
    def bad() -> Coro:
        yield
        raise ValueError

    def main() -> Coro:
        mine.spawn(bad())
        with overhearing() as heard:
            for _ in range(10):
                yield
            yield mine.Sleep(0.01)
        say("told" if "ValueError" in heard.getvalue() else "nothing is printed")

    mine.run(main())


@law(
    ERRORS,
    "A `KeyboardInterrupt` that leaves a task ends the run.",
    "ended",
    needs=f"{TRAPS} Sleep",
    otherwise="A Ctrl-C that came while a task was running was swallowed.",
    hint="`except Exception` lets pass what is meant for the whole program; `except:` does not.",
)
def ctrl_c(mine: Any, say: Say) -> None:
    def stopped() -> Coro:
        yield
        raise KeyboardInterrupt

    def main() -> Coro:
        mine.spawn(stopped())
        for _ in range(5):
            yield
        say("goes on")

    try:
        mine.run(main())
    except KeyboardInterrupt:
        say("ended")


@law(
    ERRORS,
    "A task that yields what is not a trap gets an error, and is not run at full speed.",
    "1 step",
    needs=f"{TRAPS} Sleep",
    otherwise="A task that yields 42 was run on, as if it had asked for something.",
    hint="What does the last `else` of your `step` do with a thing that it does not know?",
)
def wrong_yield(mine: Any, say: Say) -> None:
    steps: list[str] = []

    def wrong() -> Coro:
        while len(steps) < 100:
            steps.append("step")
            yield 42

    def main() -> Coro:
        mine.spawn(wrong())
        for _ in range(200):
            yield
        say(len(steps), "step")

    mine.run(main())


@law(
    ERRORS,
    "That error is raised at the `yield`; a task that catches it goes on.",
    "an error at the yield",
    "goes on",
    needs=f"{TRAPS} Sleep",
    otherwise="A task that yields 42 could not catch an error at that `yield`.",
    hint="`task.throw(error)` resumes a task with an exception.",
)
def error_at_the_yield(mine: Any, say: Say) -> None:
    def wrong() -> Coro:
        try:
            got = yield 42
            say("got", got)
        except Exception:
            say("an error at the yield")
        yield
        say("goes on")

    def main() -> Coro:
        mine.spawn(wrong())
        for _ in range(5):
            yield

    mine.run(main())


@law(
    ERRORS,
    "A file that cannot be waited for is an error of the task that waits for it.",
    "an error at the yield",
    "the others go on",
    needs=f"{TRAPS} Sleep",
    otherwise="A task waited for a closed file, and that did not arrive where it waits.",
    hint="What `register` raises is raised inside your scheduler. Whose mistake was it?",
)
def closed_file(mine: Any, say: Say) -> None:
    a, _ = pair()
    a.close()

    def wrong() -> Coro:
        try:
            yield mine.ReadWait(a)
        except Exception:
            say("an error at the yield")

    def main() -> Coro:
        mine.spawn(wrong())
        for _ in range(5):
            yield
        say("the others go on")

    mine.run(main())


@law(
    ERRORS,
    "`sendall` to somebody who does not read keeps nobody waiting.",
    "another task goes on",
    "all is sent",
    needs=f"{TRAPS} Sleep sendall",
    otherwise="One client that does not read froze everybody.",
    hint="Ready to be written means room for one byte at least. Which call waits for more?",
)
def no_reader(mine: Any, say: Say) -> None:
    a, b = pair()

    def sender() -> Coro:
        with a:
            yield from mine.sendall(a, bytes(1_000_000))
            say("all is sent")

    def main() -> Coro:
        mine.spawn(sender())
        for _ in range(5):
            yield
        say("another task goes on")
        while True:
            yield mine.ReadWait(b)
            if not b.recv(65536):
                return

    mine.run(main())


# Taking a wait back -------------------------------------------------------------------------------

CANCELS = f"{TRAPS} Sleep task.cancel"


@law(
    CANCEL,
    "A task that is cancelled passes every `finally`, from the inside outwards.",
    "inner is left",
    "outer is left",
    "ten turns later",
    needs=CANCELS,
    otherwise="Not all generators of the task were left, one carried on, or it took long.",
    hint="Raise an exception at the innermost wait: Python carries it outwards, to your `step`.",
)
def every_finally(mine: Any, say: Say) -> None:
    def inner() -> Coro:
        try:
            yield mine.Sleep(0.1)
        finally:
            say("inner is left")

    def outer() -> Coro:
        try:
            yield from inner()
            say("outer carries on")
        finally:
            say("outer is left")

    def main() -> Coro:
        task = mine.spawn(outer())
        yield mine.Sleep(0.01)
        task.cancel()
        for _ in range(10):
            yield
        say("ten turns later")

    mine.run(main())


@law(
    CANCEL,
    "A sleep that was taken back wakes nobody.",
    "slept in full",
    needs=CANCELS,
    otherwise="An undone wait still woke its task: an old timer ended another sleep.",
    hint="How does an old timer learn that nobody waits? And `close()` lets no `finally` wait.",
)
def undone_sleep(mine: Any, say: Say) -> None:
    def sleeper() -> Coro:
        try:
            yield mine.Sleep(0.1)
        finally:  # clean-up that takes a while
            begin = time.monotonic()
            yield mine.Sleep(0.15)
            passed = time.monotonic() - begin
            say("slept in full" if passed > 0.149 else "was woken by the old timer")

    def main() -> Coro:
        task = mine.spawn(sleeper())
        yield
        yield
        task.cancel()

    mine.run(main())


@law(
    CANCEL,
    "A file that a cancelled task waited for is free for another one.",
    "another one reads hello",
    needs=CANCELS,
    otherwise="An undone wait still stood in the way of another task that waits for the file.",
    hint="`cancel` has to take the task out of the table of who waits for which file.",
)
def undone_file(mine: Any, say: Say) -> None:
    a, b = pair()

    def reader(name: str) -> Coro:
        yield mine.ReadWait(a)
        say(name, "reads", a.recv(100).decode())

    def main() -> Coro:
        task = mine.spawn(reader("the cancelled one"))
        yield mine.Sleep(0.01)
        task.cancel()
        mine.spawn(reader("another one"))
        yield mine.Sleep(0.01)
        b.send(b"hello")

    mine.run(main())


@law(
    CANCEL,
    "A file that nobody waits for any more wakes nobody.",
    RESTS,
    needs=CANCELS,
    otherwise="A file still woke the scheduler after the wait for it had been taken back.",
    hint="The selector goes on to tell of a file until it is told that nobody wants to know.",
)
def unheard_file(mine: Any, say: Say) -> None:
    a, b = pair()

    def reader() -> Coro:
        yield mine.ReadWait(a)

    def main() -> Coro:
        task = mine.spawn(reader())
        yield mine.Sleep(0.01)
        task.cancel()
        b.send(b"x")
        told = watch()
        yield mine.Sleep(QUIET)
        say(told())

    with watching() as watch:
        mine.run(main())


@law(
    CANCEL,
    "A task that is cancelled before its first step closes what it was given.",
    "closed",
    needs=CANCELS,
    otherwise="The socket that was given to a new task stayed open.",
    hint="An exception thrown into a generator that has not begun passes no `with`.",
)
def cancelled_when_new(mine: Any, say: Say) -> None:
    a, _ = pair()

    def owner(sock: socket.socket) -> Coro:
        with sock:
            yield mine.ReadWait(sock)

    def main() -> Coro:
        mine.spawn(owner(a)).cancel()
        for _ in range(5):
            yield
        say("closed" if a.fileno() == -1 else "open")

    mine.run(main())


@law(
    CANCEL,
    "`except Exception` does not keep a task from being cancelled.",
    "left",
    needs=CANCELS,
    otherwise="A task took the cancel for an ordinary error, and went on.",
    hint="Which class are `KeyboardInterrupt` and `GeneratorExit` derived from, and why?",
)
def cancel_is_no_exception(mine: Any, say: Say) -> None:
    def careful() -> Coro:
        for _ in range(3):
            try:
                yield mine.Sleep(0.02)
            except Exception:
                say("went on")
        say("came to its end")

    def main() -> Coro:
        task = mine.spawn(careful())
        yield
        yield
        task.cancel()
        say("left")

    mine.run(main())


@law(
    CANCEL,
    "A cancel is no failure: nobody is told of it.",
    "nobody is told",
    needs=CANCELS,
    otherwise="A task was cancelled, as somebody had asked for, and that was told as a failure.",
    hint="What ended the task? Tell of it only if it is an `Exception`.",
)
def cancel_is_no_failure(mine: Any, say: Say) -> None:
    names: list[str] = []

    def sleeper() -> Coro:
        try:
            yield mine.Sleep(1)
        except BaseException as exc:
            names.append(type(exc).__name__)
            raise

    def main() -> Coro:
        task = mine.spawn(sleeper())
        yield mine.Sleep(0.01)
        with overhearing() as heard:
            task.cancel()
            for _ in range(10):
                yield
        say("told" if any(name in heard.getvalue() for name in names) else "nobody is told")

    mine.run(main())


# Waiting for another task -------------------------------------------------------------------------

JOINS = f"{TRAPS} Sleep task.__iter__"


@law(
    JOIN,
    "`yield from task` gives what the task returned, also when it is over already.",
    "42",
    "42",
    needs=JOINS,
    otherwise="What a task returned was lost.",
    hint="`StopIteration` has a `value`. Keep it: who wakes those who join a task that is over?",
)
def join_gives_the_result(mine: Any, say: Say) -> None:
    def double(number: int) -> Coro:
        yield
        return 2 * number

    def main() -> Coro:
        task = mine.spawn(double(21))
        say((yield from task))
        say((yield from task))

    mine.run(main())


@law(
    JOIN,
    "All tasks that wait for another one get its result.",
    "one gets 42",
    "two gets 42",
    needs=JOINS,
    otherwise="Two waited for the same task, and not both went on.",
    hint="A task may have more than one joiner. In what are they kept?",
)
def two_joiners(mine: Any, say: Say) -> None:
    def child() -> Coro:
        for _ in range(5):
            yield
        return 42

    def joiner(name: str, task: Any) -> Coro:
        result = yield from task
        say(name, "gets", result)

    def main() -> Coro:
        task = mine.spawn(child())
        mine.spawn(joiner("one", task))
        mine.spawn(joiner("two", task))
        yield

    mine.run(main())


@law(
    JOIN,
    "Who waits for another task does nothing meanwhile.",
    RESTS,
    needs=JOINS,
    otherwise="It asked over and over whether the other task was over.",
    hint="The one that ends a task knows who waits for it. Who has to be asked, then?",
)
def join_does_not_spin(mine: Any, say: Say) -> None:
    def child() -> Coro:
        yield mine.Sleep(QUIET)

    def main() -> Coro:
        task = mine.spawn(child())
        yield
        yield
        told = watch()
        yield from task
        say(told())

    with watching() as watch:
        mine.run(main())


@law(
    JOIN,
    "`yield from task` raises what ended the task.",
    "KeyError",
    needs=JOINS,
    otherwise="A task that waited for one that failed was not told.",
    hint="There are two ways to resume a task: with a value, and with an error.",
)
def join_raises_the_error(mine: Any, say: Say) -> None:
    def bad() -> Coro:
        yield
        raise KeyError

    def main() -> Coro:
        task = mine.spawn(bad())
        try:
            yield from task
            say("no error")
        except KeyError:
            say("KeyError")

    mine.run(main())


@law(
    JOIN,
    "`run` returns what `main` returned.",
    "42",
    needs=JOINS,
    otherwise="What `main` returned was lost.",
    hint="`run` is the one that joins the main task.",
)
def run_returns_the_result(mine: Any, say: Say) -> None:
    def main() -> Coro:
        yield
        return 42

    say(mine.run(main()))


@law(
    JOIN,
    "`run` raises what left `main`.",
    "KeyError",
    needs=JOINS,
    otherwise="`main` failed, and the caller of `run` was not told.",
    hint="Which of your tasks has nobody but the caller of `run` to wait for it?",
)
def run_raises_the_error(mine: Any, say: Say) -> None:
    def main() -> Coro:
        yield
        raise KeyError

    try:
        mine.run(main())
        say("no error")
    except KeyError:
        say("KeyError")


@law(
    JOIN,
    "A task goes on when somebody who waits for it is cancelled.",
    "done",
    needs=f"{JOINS} task.cancel",
    otherwise="The wrong task was cancelled, or its end woke somebody who had gone.",
    hint="The undo of a join takes the joiner out of the list, and does nothing else.",
)
def joiner_cancelled(mine: Any, say: Say) -> None:
    def child() -> Coro:
        for _ in range(9):
            yield
        return "done"

    def joiner(task: Any) -> Coro:
        say((yield from task))

    def main() -> Coro:
        task = mine.spawn(child())
        other = mine.spawn(joiner(task))
        yield
        yield
        other.cancel()
        say((yield from task))

    mine.run(main())


SUSPENDS = f"{TRAPS} Sleep Suspend"


@law(
    JOIN,
    "A task that is suspended gets what it is woken with.",
    "early",
    "late",
    needs=SUSPENDS,
    otherwise="`wake(value)` did not bring the value to the task, early or late.",
    hint="`wake` may be called before `arm` has returned: is the task parked by then?",
)
def wake_with_a_value(mine: Any, say: Say) -> None:
    wakes = []

    def nothing() -> None:
        """The undo: there is nothing to take back."""

    def at_once(wake: Any) -> Any:
        wake("early")
        return nothing

    def keep(wake: Any) -> Any:
        wakes.append(wake)
        return nothing

    def waker() -> Coro:
        yield mine.Sleep(0.01)
        wakes[0]("late")

    def main() -> Coro:
        mine.spawn(waker())
        say((yield mine.Suspend(at_once)))
        say((yield mine.Suspend(keep)))

    mine.run(main())


@law(
    JOIN,
    "Only the first `wake` counts.",
    "first",
    "slept in full",
    needs=SUSPENDS,
    otherwise="A second call of `wake` ended a wait that was not its own.",
    hint="How can `wake` know that the task still waits in the trap that it was made for?",
)
def first_wake_counts(mine: Any, say: Say) -> None:
    def nothing() -> None:
        """The undo: there is nothing to take back."""

    wakes = []

    def arm(wake: Any) -> Any:
        wakes.append(wake)
        return nothing

    def waker() -> Coro:
        yield mine.Sleep(0.01)
        wakes[0]("first")
        yield
        yield  # by now it sleeps
        wakes[0]("second")

    def main() -> Coro:
        mine.spawn(waker())
        say((yield mine.Suspend(arm)))
        begin = time.monotonic()
        yield mine.Sleep(0.04)
        say("slept in full" if time.monotonic() - begin > 0.039 else "woken by the second")

    mine.run(main())


@law(
    JOIN,
    "A task that has its value already gets it, and a cancel at its next wait.",
    "its value",
    "left",
    "slept in full",
    needs=f"{SUSPENDS} task.cancel",
    otherwise="A task that was ready when it was cancelled lost its value, or was resumed twice.",
    hint="Is the task in the queue already? Then it must not be put there a second time.",
)
def value_first(mine: Any, say: Say) -> None:
    def nothing() -> None:
        """The undo: there is nothing to take back."""

    def at_once(wake: Any) -> Any:
        wake("its value")
        return nothing

    def child() -> Coro:
        say((yield mine.Suspend(at_once)))
        try:
            yield mine.Sleep(0.02)
        finally:
            say("left")
            begin = time.monotonic()
            yield mine.Sleep(0.04)
            say("slept in full" if time.monotonic() - begin > 0.039 else "woken by the old timer")

    def main() -> Coro:
        task = mine.spawn(child())
        yield  # it is woken, and has not gone on yet
        task.cancel()

    mine.run(main())


@law(
    JOIN,
    "A suspended task that is cancelled has its undo called; one that is woken has not.",
    "undone",
    "woken",
    needs=f"{SUSPENDS} task.cancel",
    otherwise="The undo that `arm` returned was not called, or was called after a wake.",
    hint="What `arm` returns is the undo of that wait: `cancel` calls it, and nobody else does.",
)
def undo_is_called(mine: Any, say: Say) -> None:
    wakes = []

    def arm(wake: Any) -> Any:
        wakes.append(wake)
        return lambda: say("undone")

    def waiter() -> Coro:
        yield mine.Suspend(arm)
        say("woken")

    def main() -> Coro:
        cancelled, woken = mine.spawn(waiter()), mine.spawn(waiter())
        yield mine.Sleep(0.01)
        cancelled.cancel()
        yield mine.Sleep(0.01)
        wakes[1]()
        yield mine.Sleep(0.01)
        woken.cancel()  # it is over: there is nothing to take back

    mine.run(main())


# Other threads ------------------------------------------------------------------------------------

CALLS = f"{SUSPENDS} call_soon_threadsafe"


@law(
    THREADS,
    "A thread can wake a scheduler that waits for nothing else.",
    "from the thread",
    RESTS,
    needs=CALLS,
    otherwise="A thread called `call_soon_threadsafe`: that woke nobody, or somebody kept looking.",
    hint="What ends a `select`? A file that can be read. And whoever wakes must find the call.",
)
def thread_wakes(mine: Any, say: Say) -> None:
    wakes: list[Any] = []

    def nothing() -> None:
        """The undo: there is nothing to take back."""

    def arm(wake: Any) -> Any:
        wakes.append(wake)
        return nothing

    def thread() -> None:
        mine.call_soon_threadsafe(wakes[0], "from the thread")

    def main() -> Coro:
        later(QUIET, thread)
        told = watch()
        say((yield mine.Suspend(arm)))
        say(told())

    with watching() as watch:
        mine.run(main())


@law(
    THREADS,
    "What a thread asks for is called by the scheduler, not by the thread.",
    "called by the scheduler",
    needs=CALLS,
    otherwise="The call was made in the other thread, in the middle of a step, perhaps.",
    hint="The thread only leaves a note. Who reads it, and in which act of a turn?",
)
def called_by_the_scheduler(mine: Any, say: Say) -> None:
    here = threading.get_ident()

    def nothing() -> None:
        """The undo: there is nothing to take back."""

    def arm(wake: Any) -> Any:
        def note() -> None:
            is_here = threading.get_ident() == here
            say("called by", "the scheduler" if is_here else "the thread")
            wake()

        later(0.01, mine.call_soon_threadsafe, note)
        return nothing

    def main() -> Coro:
        yield mine.Suspend(arm)

    mine.run(main())


@law(
    THREADS,
    "However many calls are made, none is lost, none has to wait, and none overtakes another.",
    "5000 calls, in order",
    "and one by one of them",
    needs=CALLS,
    otherwise="Calls were lost or came in another order, or the one who made them stood still.",
    hint="One byte in the socket says: look into the queue. When may that byte be taken away?",
)
def many_calls(mine: Any, say: Say) -> None:
    calls: list[int] = []

    def last() -> None:
        mine.call_soon_threadsafe(say, "and one by one of them")
        mine.call_soon_threadsafe(calls.append, 5000)

    def until(count: int) -> Coro:
        end = time.monotonic() + 0.5
        while len(calls) < count and time.monotonic() < end:
            yield mine.Sleep(0.001)

    def main() -> Coro:
        for number in range(5000):
            mine.call_soon_threadsafe(calls.append, number)
        yield from until(5000)
        say(len(calls), "calls, in order" if calls == sorted(calls) else "calls, in disorder")
        mine.call_soon_threadsafe(last)
        yield from until(5001)

    mine.run(main())


# What corolib has, and the tour has not -----------------------------------------------------------


@law(
    BEYOND,
    "When no task can ever go on, `run` says so.",
    "Deadlock",
    needs=f"{JOINS} Deadlock",
    otherwise="Two tasks that wait for each other hung, and nobody was told.",
    hint="Nobody is ready, nobody sleeps, nobody waits for a file: what is left?",
)
def deadlock(mine: Any, say: Say) -> None:
    tasks: list[Any] = []

    def joiner(other: int) -> Coro:
        yield
        yield from tasks[other]

    def main() -> Coro:
        tasks.extend([mine.spawn(joiner(1)), mine.spawn(joiner(0))])
        yield

    try:
        mine.run(main())
    except mine.Deadlock:
        say("Deadlock")


@law(
    BEYOND,
    "A time limit ends the wait that it is about.",
    "TimeoutError",
    "goes on",
    "a longer sleep ends",
    needs=f"{TRAPS} Sleep timeout",
    otherwise="`with timeout(seconds)` did not end a wait that took longer.",
    hint="A time limit is a timer that cancels, and a `with` that knows its own cancel.",
)
def time_limit(mine: Any, say: Say) -> None:
    def sleeper() -> Coro:
        yield mine.Sleep(0.1)
        say("a longer sleep ends")

    def main() -> Coro:
        mine.spawn(sleeper())
        try:
            with mine.timeout(0.01):
                yield mine.Sleep(0.2)
        except TimeoutError:
            say("TimeoutError")
        yield
        say("goes on")

    mine.run(main())


@law(
    BEYOND,
    "A file that is closed while a task waits for it wakes the task, with an error.",
    "an error at the yield",
    "ten turns later",
    needs=f"{TRAPS} Sleep close",
    otherwise="A task waited on for a file that was closed.",
    hint="`close` knows the file, and the table knows who waits for it.",
)
def closed_while_waiting(mine: Any, say: Say) -> None:
    a, _ = pair()

    def reader() -> Coro:
        try:
            yield mine.ReadWait(a)
        except OSError:
            say("an error at the yield")

    def main() -> Coro:
        mine.spawn(reader())
        yield mine.Sleep(0.01)
        mine.close(a)
        for _ in range(10):
            yield
        say("ten turns later")

    mine.run(main())
