"""The judge of the tour: what it says of the tour's own schedulers, of corolib, and of bad ones."""

import re
import selectors
import socket
import sys
import textwrap
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from demos.tour import (
    check,
    judged,
    laws,
    starting,
    step10_generators,
    step11_timers,
    step14_join,
    step16_threads,
)
from demos.tour.check import FAILS, HOLDS, NOT_TRIED
from demos.tour.faults import sendall, sendall_blocking
from demos.tour.laws import ERRORS, FILES, LAWS, TIMES
from demos.tour.step11_timers import READ, WRITE, ReadWait
from demos.tour.step14_join import Scheduler as Mended
from demos.tour.step14_task import Cancelled, Suspend, Task, nothing
from tests.helpers.programs import outcome

BY_NAME = {law.program.__name__: law.number for law in LAWS}


GOOD = "from demos.tour.step10_generators import ReadWait, Scheduler, WriteWait"


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Take back what loading a file changes in this process."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield
    sys.modules.pop("parts", None)


@pytest.fixture
def brief(monkeypatch):
    """Have the quiet times of the laws be short: enough for all but those who look now and then."""
    monkeypatch.setattr(laws, "QUIET", 0.1)


def outcomes(module):
    """Return the names of the laws by what became of them, with the judge in this process."""
    found = {HOLDS: [], FAILS: [], NOT_TRIED: []}
    for verdict in check.judge(lambda: module, check.abilities(module)):
        found[verdict.outcome].append(LAWS[verdict.law - 1].program.__name__)
    return found


def of_stage(*stages):
    return [law.program.__name__ for law in LAWS if law.stage in stages]


def test_there_are_enough_laws_and_they_differ():
    assert len(LAWS) >= 14
    assert [law.number for law in LAWS] == list(range(1, len(LAWS) + 1))
    for field in ("text", "otherwise", "hint"):
        assert len({getattr(law, field) for law in LAWS}) == len(LAWS)
    page = check.STARTING.with_name("README.md").read_text("utf-8")
    for step in re.findall(r"Step \d+", " ".join(law.stage for law in LAWS)):
        assert f"\n## {step}: " in page
    for law in LAWS:
        for text in (law.text, law.otherwise, law.hint):
            assert text[0].isupper() or text[0] == "`"
            assert text[-1] in ".?"


# The tour's own schedulers ------------------------------------------------------------------------


def test_twenty_lines_pass_the_first_stage_and_claim_no_other(brief):
    found = outcomes(step10_generators)
    assert (found[HOLDS], found[FAILS]) == (of_stage(FILES), [])


def test_timers_pass_two_stages_and_have_three_faults(brief):
    found = outcomes(step11_timers)
    assert found[HOLDS] == [*of_stage(FILES, TIMES), "ctrl_c"]
    others = ("no_reader", "ctrl_c")
    assert found[FAILS] == [name for name in of_stage(ERRORS) if name not in others]


def test_the_mended_one_passes_all_that_it_claims(brief):
    found = outcomes(step14_join)
    assert found[FAILS] == []
    assert found[NOT_TRIED] == [
        "no_reader",
        "thread_wakes",
        "called_by_the_scheduler",
        "many_calls",
        "deadlock",
        "time_limit",
        "closed_while_waiting",
    ]


def test_corolib_passes_all():
    assert outcomes(judged) == {HOLDS: list(BY_NAME), FAILS: [], NOT_TRIED: []}


def test_the_file_to_begin_with_runs_and_has_something_left_to_do():
    found = outcomes(starting)
    assert len(found[HOLDS]) >= 3
    assert "not_before_it_is_ready" in found[FAILS]
    assert set(found[HOLDS] + found[FAILS]) == set(of_stage(FILES))


def test_functions_instead_of_a_class(brief):
    scheduler = step11_timers.Scheduler()
    functions = SimpleNamespace(**vars(step11_timers))
    functions.Scheduler = None
    functions.spawn, functions.run = scheduler.spawn, scheduler.run
    for law in LAWS:
        if law.stage in (FILES, TIMES):
            assert check.try_law(law, functions).outcome == HOLDS


# Faults that are planted into a good one ----------------------------------------------------------


class Guarded(step16_threads.Scheduler):
    """The last one of the tour; it ends where it would hang."""

    def __init__(self):
        super().__init__()
        self.threads = set(threading.enumerate())  # some may be of a law before, and end

    def turn(self):
        if self.patience() is None:
            outside = {*threading.enumerate()} - self.threads  # somebody may still wake it
            if not self.selector.select(5 if outside else 0):
                raise RuntimeError("hangs")
        super().turn()


def with_tasks(cls):
    """Have a scheduler make its tasks of its own class `Task`."""

    def spawn(self, body):
        task = Guarded.spawn(self, body)
        task.__class__ = self.Task
        return task

    cls.spawn = spawn
    return cls


def fired(scheduler):
    """Do Act 1 of a turn: for those who do it in another order, or not always."""
    for key, events in scheduler.selector.select(scheduler.patience()):
        if events & READ:
            scheduler.resume(scheduler.readers.pop(key.data))
        if events & WRITE:
            scheduler.resume(scheduler.writers.pop(key.data))
        scheduler.watch(key.data)


def step_all(scheduler):
    for _ in range(len(scheduler.ready)):
        scheduler.step(scheduler.ready.popleft())


# How it waits.


class Spins(Guarded):
    """Asks again and again."""

    def patience(self):
        return 0


class Polls(Guarded):
    """Looks every 50 ms, whoever waits."""

    def patience(self):
        found = super().patience()
        return 0.05 if found is None else min(found, 0.05)


class PollsItsCalls(Guarded):
    """Looks every 50 ms whether a thread has left a call; so no thread need wake it."""

    def call_soon_threadsafe(self, f, *args):
        self.calls.append(partial(f, *args))

    def patience(self):
        while self.calls:
            self.calls.popleft()()
        found = super().patience()
        return 0.05 if found is None and not self.writers and len(self.readers) == 1 else found


class IgnoresTimes(Guarded):
    """Waits for files as if nobody slept."""

    def patience(self):
        return 0 if self.ready else None


class IgnoresTheClock(Guarded):
    """Takes each file for the end of a sleep."""

    def sleep(self, task, trap):
        undo = super().sleep(task, trap)
        self.timers[0][0] = time.monotonic() + 0.001
        return undo


class Sleeps(Guarded):
    """Sleeps itself when a task wants to."""

    def sleep(self, task, trap):
        time.sleep(trap.seconds)
        return self.give_way(task, None)


class OneAfterAnother(Guarded):
    """Waits for the file that was first asked for, and for no other."""

    def watch(self, file):
        super().watch(file)
        for key in list(self.selector.get_map().values())[2:]:
            self.selector.unregister(key.fileobj)


class AlwaysReady(Guarded):
    """Does not look whether a file is ready."""

    def wait_file(self, waiting, task, trap):
        if trap.file is self.here:
            return super().wait_file(waiting, task, trap)
        return self.give_way(task, None)


class AlwaysRoom(Guarded):
    """Does not look whether there is room."""

    def wait_file(self, waiting, task, trap):
        if waiting is self.writers:
            return self.give_way(task, None)
        return super().wait_file(waiting, task, trap)


class KnowsNoRoom(Guarded):
    """Waits for data, whatever a task waits for."""

    def wait_file(self, waiting, task, trap):
        return super().wait_file(self.readers, task, trap)


class OneDirection(Guarded):
    """Tells the selector of one direction of a file only."""

    def watch(self, file):
        super().watch(file)
        if file in self.readers and file in self.writers:
            self.selector.modify(file, READ, file)


class OnlyOnce(Guarded):
    """Tells the selector of a file once, and takes it out when it has fired."""

    def __init__(self):
        self.told = set()
        super().__init__()

    def watch(self, file):
        if file is self.here or file not in self.told or file not in self.readers:
            super().watch(file)
        self.told.add(file)


class GoesByNumber(Guarded):
    """Keeps in the selector what has fired, and knows it by its number."""

    def __init__(self):
        self.told = set()
        super().__init__()

    def watch(self, file):
        if file.fileno() not in self.told:
            super().watch(file)
        if file is not self.here:
            self.told.add(file.fileno())


class LeavesFired(Guarded):
    """Leaves in the selector what has fired, until it is waited for again."""

    def turn(self):
        for key, events in self.selector.select(self.patience()):
            if events & READ and key.data in self.readers:
                self.resume(self.readers.pop(key.data))
            if events & WRITE and key.data in self.writers:
                self.resume(self.writers.pop(key.data))
        step_all(self)


# Who comes next.


class LastFirst(Guarded):
    """Who came last is served first."""

    def turn(self):
        self.ready.reverse()
        super().turn()


class LastTimerFirst(Guarded):
    """Of equal deadlines, the last one comes first."""

    def sleep(self, task, trap):
        self.count -= 2
        return super().sleep(task, trap)


class LastJoinerFirst(Guarded):
    """Who joined last is woken first."""

    def body_over(self, task, value, error):
        task.joiners.reverse()
        super().body_over(task, value, error)


class LastCallFirst(Guarded):
    """What a thread asked for last is called first."""

    def make_calls(self):
        while True:
            yield ReadWait(self.here)
            self.here.recv(4096)
            while self.calls:
                self.calls.pop()()


class Unordered(Guarded):
    """Compares tasks where two deadlines are equal."""

    def sleep(self, task, trap):
        undo = super().sleep(task, trap)
        for timer in self.timers:
            timer[1] = 0
        return undo


class Starves(Guarded):
    """Looks at files and timers when nobody is ready any more."""

    def turn(self):
        if self.ready:
            step_all(self)
        else:
            super().turn()


class RunsTwice(Guarded):
    """Makes a task ready twice."""

    def resume(self, task, value=None, error=None):
        super().resume(task, value, error)
        self.ready.append(task)


class StepsAtOnce(Guarded):
    """Runs the first step of a new task inside a step of another one."""

    def spawn(self, body):
        task = super().spawn(body)
        self.step(self.ready.pop())
        return task


class EndsWithMain(Guarded):
    """Returns when the main task is over."""

    def run(self, body):
        main = self.spawn(body)
        with self.here, self.there:
            while not main.done:
                self.turn()


# What goes wrong.


class Replaces(Guarded):
    """The second waiter replaces the first (12.12, pyos8)."""

    def wait_file(self, waiting, task, trap):
        waiting.pop(trap.file, None)
        return super().wait_file(waiting, task, trap)


class Stops(Guarded):
    """One exception stops all (12.12)."""

    def body_over(self, task, value, error):
        super().body_over(task, value, error)
        if isinstance(error, Exception) and not task.joiners and task is not self.main:
            raise error


class FailsItself(Guarded):
    """Takes a mistake in a trap for its own."""

    def resume(self, task, value=None, error=None):
        if isinstance(error, ValueError):
            raise error
        super().resume(task, value, error)


class Silent(Guarded):
    """Tells nobody of a failure."""

    def __init__(self):
        super().__init__()
        self.on_task_error = lambda task, error: None


class TellsAtTheEnd(Guarded):
    """Tells of failures when the run is over."""

    def run(self, body):
        told = []
        self.on_task_error = lambda task, error: told.append(error)
        super().run(body)
        print(told)


class SwallowsErrors(Guarded):
    """Takes a failure for an end."""

    def body_over(self, task, value, error):
        super().body_over(task, value, None)


class SwallowsCtrlC(Guarded):
    """Takes Ctrl-C for a failure of the task."""

    def step(self, task):
        try:
            super().step(task)
        except KeyboardInterrupt:
            self.body_over(task, None, None)


class RunsOn(Guarded):
    """Yielding 42 spins at full speed (bluelet)."""

    def wrong_yield(self, task, thing):
        return self.give_way(task, None)


class HandsBack(Guarded):
    """Yielding 42 hands 42 back (pycos)."""

    def wrong_yield(self, task, thing):
        self.resume(task, thing)
        return nothing


class EndsWhoErrs(Guarded):
    """Ends a task that yields 42."""

    def wrong_yield(self, task, thing):
        self.body_over(task, None, TypeError(thing))
        return nothing


# Taking a wait back.


@with_tasks
class Innermost(Guarded):
    """Killing a task closes its innermost generator only (pyos8)."""

    class Task(Task):
        def cancel(self):
            body = self.body
            while getattr(body, "gi_yieldfrom", None) is not None:
                body = body.gi_yieldfrom
            self.undo()
            with suppress(Cancelled, StopIteration):
                body.throw(Cancelled())
            self.scheduler.resume(self)


@with_tasks
class CancelsLate(Guarded):
    """Lets the wait come to its end first."""

    class Task(Task):
        def cancel(self):
            self.pending = True


@with_tasks
class CancelsNew(Guarded):
    """Throws into a generator that has not begun."""

    class Task(Task):
        def cancel(self):
            self.error = Cancelled()


@with_tasks
class CancelsByException(Guarded):
    """Takes an exception like any other for it."""

    class Task(Task):
        def cancel(self):
            self.undo()
            self.scheduler.resume(self, None, RuntimeError("cancelled"))


@with_tasks
class CancelsTwice(Guarded):
    """Puts a task that is cancelled into the queue, though it stands there already."""

    class Task(Task):
        def cancel(self):
            self.scheduler.ready.append(self)
            self.error = Cancelled()


class TellsOfCancels(Guarded):
    """Takes a cancel for a failure."""

    def body_over(self, task, value, error):
        super().body_over(task, value, error)
        if isinstance(error, Cancelled):
            self.on_task_error(task, error)


class OldTimers(Guarded):
    """A sleep that was taken back wakes its task all the same."""

    def sleep(self, task, trap):
        super().sleep(task, trap)
        return nothing


class KeepsFiles(Guarded):
    """A wait for a file is not taken back."""

    def wait_file(self, waiting, task, trap):
        super().wait_file(waiting, task, trap)
        return nothing


class Deaf(Guarded):
    """Leaves in the selector who does not wait any more."""

    def unwait_file(self, waiting, file):
        del waiting[file]


class KeepsSuspended(Guarded):
    """The undo of a `Suspend` is forgotten."""

    def suspend(self, task, trap):
        super().suspend(task, trap)
        return nothing


class UndoesWhatIsOver(Guarded):
    """Undoes a wait that has ended in a wake."""

    def resume(self, task, value=None, error=None):
        if isinstance(task.wait, Suspend) and not isinstance(error, Cancelled):
            task.undo()
        super().resume(task, value, error)


# Joins, wakes, threads.


class LosesResults(Guarded):
    """`return value` is lost (bluelet, pyos8)."""

    def body_over(self, task, value, error):
        super().body_over(task, None, error)


class OneJoiner(Guarded):
    """Wakes one of those who join a task."""

    def body_over(self, task, value, error):
        del task.joiners[1:]
        super().body_over(task, value, error)


@with_tasks
class JoinsByAsking(Guarded):
    """Asks in each turn whether the other task is over."""

    class Task(Task):
        def __iter__(self):
            while not self.done:
                yield
            return self.returned


@with_tasks
class CancelsTheJoined(Guarded):
    """Who cancels a joiner cancels whom it joins."""

    class Task(Task):
        def join(self, wake):
            super().join(wake)
            return self.cancel


class AnyWake(Guarded):
    """Each wake counts."""

    def suspend(self, task, trap):
        return trap.arm(partial(self.resume, task))


class LosesEarlyWakes(Guarded):
    """A wake that comes before `arm` has returned is lost."""

    def suspend(self, task, trap):
        task.wait = None
        undo = super().suspend(task, trap)
        task.wait = trap
        return undo


class CallsItself(Guarded):
    """The thread makes the call."""

    def call_soon_threadsafe(self, f, *args):
        f(*args)
        super().call_soon_threadsafe(str)


class OneCallEach(Guarded):
    """Makes one call, however many bytes have come."""

    def make_calls(self):
        while True:
            yield ReadWait(self.here)
            self.here.recv(4096)
            if self.calls:
                self.calls.popleft()()


class ReadsTooLate(Guarded):
    """Takes the bytes away after the calls, and with them that of a call made meanwhile."""

    def make_calls(self):
        while True:
            yield ReadWait(self.here)
            for _ in range(len(self.calls)):
                self.calls.popleft()()
            self.here.recv(4096)


def with_scheduler(scheduler, **names):
    return SimpleNamespace(**{**vars(step14_join), "Scheduler": scheduler, **names})


def with_judged(**names):
    return SimpleNamespace(**{**vars(judged), **names})


class NeverStuck(judged.Scheduler):
    """Returns when no task can go on, as if all were over."""

    def __init__(self):
        super().__init__()
        self.run = self.run_quietly

    def run_quietly(self, main):
        with suppress(judged.Deadlock):
            self.scheduler.run(main)


@contextmanager
def looks_at_the_end(seconds):
    """A time limit that waits for the wait."""
    end = time.monotonic() + seconds
    yield
    if time.monotonic() > end:
        raise TimeoutError


def shut_down(sock):
    """Close a file, as far as its waiter can see."""
    sock.shutdown(socket.SHUT_RDWR)


PLANTED = [
    (Spins, "does_not_spin left_unread does_not_spin_in_a_sleep unheard_file join_does_not_spin"),
    (Polls, "does_not_spin left_unread does_not_spin_in_a_sleep unheard_file thread_wakes"),
    (PollsItsCalls, "thread_wakes"),
    (IgnoresTimes, "sleeps_and_files sleeps_in_order"),
    (IgnoresTheClock, "no_sleep_ends_early"),
    (Sleeps, "sleeps_in_order"),
    (OneAfterAnother, "others_go_on"),
    (AlwaysReady, "not_before_it_is_ready does_not_spin left_unread"),
    (AlwaysRoom, "does_not_spin"),
    (KnowsNoRoom, "waits_for_room"),
    (OneDirection, "two_directions"),
    (OnlyOnce, "again_and_again"),
    (GoesByNumber, "numbers_come_again"),
    (LeavesFired, "left_unread"),
    (LastFirst, "give_way"),
    (LastTimerFirst, "same_deadline"),
    (LastJoinerFirst, "two_joiners"),
    (LastCallFirst, "many_calls"),
    (Unordered, "same_deadline"),
    (Starves, "nobody_starves"),
    (RunsTwice, "runs_to_the_end"),
    (StepsAtOnce, "spawn_is_no_call"),
    (EndsWithMain, "waits_for_all"),
    (Replaces, "second_reader"),
    (Stops, "one_exception wrong_yield"),
    (FailsItself, "closed_file"),
    (Silent, "failures_are_told"),
    (TellsAtTheEnd, "failures_are_told"),
    (SwallowsErrors, "failures_are_told join_raises_the_error run_raises_the_error"),
    (SwallowsCtrlC, "ctrl_c"),
    (RunsOn, "wrong_yield error_at_the_yield"),
    (HandsBack, "wrong_yield error_at_the_yield"),
    (EndsWhoErrs, "error_at_the_yield"),
    (Innermost, "every_finally"),
    (CancelsLate, "every_finally"),
    (CancelsNew, "cancelled_when_new"),
    (CancelsByException, "cancel_is_no_exception"),
    (CancelsTwice, "value_first"),
    (TellsOfCancels, "cancel_is_no_failure"),
    (OldTimers, "undone_sleep"),
    (KeepsFiles, "undone_file"),
    (Deaf, "unheard_file"),
    (KeepsSuspended, "undo_is_called"),
    (UndoesWhatIsOver, "undo_is_called"),
    (LosesResults, "join_gives_the_result run_returns_the_result"),
    (OneJoiner, "two_joiners"),
    (JoinsByAsking, "join_does_not_spin"),
    (CancelsTheJoined, "joiner_cancelled"),
    (AnyWake, "first_wake_counts"),
    (LosesEarlyWakes, "wake_with_a_value"),
    (CallsItself, "called_by_the_scheduler"),
    (OneCallEach, "many_calls"),
    (ReadsTooLate, "many_calls"),
]
IN_OTHER_PARTS = [
    (with_scheduler(Mended, sendall=sendall_blocking), "no_reader"),
    (with_judged(Scheduler=NeverStuck), "deadlock"),
    (with_judged(timeout=looks_at_the_end), "time_limit"),
    (with_judged(close=shut_down), "closed_while_waiting"),
]
FAULTS = [(with_scheduler(scheduler), names) for scheduler, names in PLANTED] + IN_OTHER_PARTS


def test_the_good_one_has_none_of_the_faults(brief):
    found = outcomes(with_scheduler(Guarded, sendall=sendall))
    assert found[FAILS] == []
    assert found[NOT_TRIED] == ["deadlock", "time_limit", "closed_while_waiting"]


class RaisesAtTheEnd(Guarded):
    """Tells of failures, and raises them all when the run is over."""

    def run(self, body):
        told, failures = self.on_task_error, []

        def keep(task, error):
            told(task, error)
            failures.append(error)

        self.on_task_error = keep
        value = super().run(body)
        if failures:
            raise ExceptionGroup("failures", failures)
        return value


def test_run_may_raise_a_group_of_the_failures_at_its_end(brief):
    assert outcomes(with_scheduler(RaisesAtTheEnd, sendall=sendall))[FAILS] == []


class Elsewhere(selectors.DefaultSelector):
    """A selector that has its `select` called in a thread, and waits for the answer."""

    def select(self, timeout=None):
        if timeout is not None and timeout <= 0:
            return super().select(0)
        threading.Thread(target=self.answer, args=(timeout, super().select)).start()
        return self.get()


class InAQueue(Elsewhere):
    def __init__(self):
        super().__init__()
        self.answers = SimpleQueue()
        self.get = self.answers.get

    def answer(self, timeout, select):
        self.answers.put(select(timeout))


class InASocket(Elsewhere):
    def __init__(self):
        super().__init__()
        self.here, self.there = socket.socketpair()

    def answer(self, timeout, select):
        self.found = select(timeout)
        self.there.send(b"!")

    def get(self):
        self.here.recv(1)
        return self.found

    def __del__(self):
        self.here.close()
        self.there.close()


@pytest.mark.parametrize("selector", [InAQueue, InASocket])
def test_it_does_not_matter_in_which_call_a_scheduler_waits(selector, monkeypatch, brief):
    monkeypatch.setattr(selectors, "DefaultSelector", selector)
    assert outcomes(with_scheduler(step16_threads.Scheduler, sendall=sendall))[FAILS] == []


def test_a_law_that_does_not_hold_is_tried_three_times(brief):
    law = LAWS[BY_NAME["does_not_spin"] - 1]

    def tried(*schedulers):
        modules = map(with_scheduler, schedulers)
        return [verdict.outcome for verdict in check.tries(law, lambda: next(modules))]

    assert tried(Spins, Guarded, Guarded) == [FAILS, HOLDS]
    assert tried(*[Spins] * 4) == [FAILS] * 3


def test_a_law_that_raises_is_tried_once():
    law = LAWS[BY_NAME["not_before_it_is_ready"] - 1]
    assert [verdict.outcome for verdict in check.tries(law, lambda: starting)] == [FAILS]


class Stalls(Guarded):
    """Loses the processor for a moment before each of its first steps."""

    steps = 0

    def step(self, task):
        self.steps += 1
        if self.steps < 5:
            time.sleep(0.012)
        super().step(task)


class Talks(Guarded):
    """Prints what it does."""

    def step(self, task):
        print("step", task.body.__name__)
        super().step(task)


def test_a_scheduler_may_print_its_steps():
    law = LAWS[BY_NAME["cancel_is_no_failure"] - 1]
    assert check.try_law(law, with_scheduler(Talks)).outcome == HOLDS


def test_sleeps_are_in_order_on_a_busy_machine():
    law = LAWS[BY_NAME["sleeps_in_order"] - 1]
    assert check.try_law(law, with_scheduler(Stalls)).outcome == HOLDS


@pytest.mark.parametrize(
    ("module", "law"),
    [(module, law) for module, names in FAULTS for law in names.split()],
    ids=lambda what: what if isinstance(what, str) else what.Scheduler.__name__,
)
def test_a_planted_fault_is_named(module, law, capsys, request):
    tries = 3  # on a busy machine one of many waits may be so long that it passes for the only one
    if module.Scheduler not in (Polls, PollsItsCalls):
        request.getfixturevalue("brief")
        tries = 1
    assert FAILS in (check.try_law(LAWS[BY_NAME[law] - 1], module).outcome for _ in range(tries))


def test_there_is_a_fault_for_each_law():
    assert {law for _, names in FAULTS for law in names.split()} == set(BY_NAME)


# Files that do worse than to fail -----------------------------------------------------------------

BAD = """
    import os, sys
    from demos.tour.step10_generators import ReadWait, Scheduler as Good, WriteWait

    class Scheduler(Good):
        def run(self, main):
            law = main.__qualname__.partition(".")[0]
            if law == "waits_for_all":
                sys.exit("no more")
            if law == "not_before_it_is_ready":
                for _ in range(1000):
                    print("x" * 1000)
                raise KeyError(law)
            if law == "others_go_on":
                while True: pass
            if law == "waits_for_room":
                os._exit(7)
            super().run(main)
            if law == "again_and_again":
                print(input())
"""


def write(folder, text):
    path = folder / "mine.py"
    path.write_text(textwrap.dedent(text), "utf-8")
    return str(path)


def test_a_file_that_exits_prints_spins_and_vanishes_hangs_no_judge(tmp_path):
    path = write(tmp_path, BAD)
    verdicts = check.judge_apart(path, 1.0)
    whys = [verdict.why for verdict in verdicts[:9]]
    assert [verdict.outcome for verdict in verdicts[:9]] == [HOLDS, *[FAILS] * 5, *[HOLDS] * 3]
    assert whys == [
        "",
        "SystemExit: no more, in line 9 of your file, in run",
        "KeyError: 'not_before_it_is_ready', in line 13 of your file, in run",
        "it hung, for 1 s: it was in line 15 of your file, in run",
        "EOFError: EOF when reading a line, in line 20 of your file, in run",
        "it ended the process, with status 7",
        *[""] * 3,
    ]
    assert {verdict.outcome for verdict in verdicts[9:]} == {NOT_TRIED}
    assert verdicts[4].said == ["100 times there and back"]


def test_after_three_laws_that_hang_the_rest_is_not_tried(tmp_path):
    path = write(
        tmp_path,
        """
        from demos.tour.step10_generators import ReadWait, Scheduler as Good, WriteWait

        class Scheduler(Good):
            def run(self, main):
                super().run(main)
                while main.__qualname__.partition(".")[0] != "abilities": pass
        """,
    )
    verdicts = check.judge_apart(path, 1.0)
    assert [verdict.outcome for verdict in verdicts[:4]] == [FAILS, FAILS, FAILS, NOT_TRIED]
    assert verdicts[-1].why == "3 laws have ended the process"
    assert verdicts[0].said == ["main is over", "the child is over"]
    told = check.report(verdicts, path)
    hung = "it hung, for 1 s: it was in line 7 of your file, in run"
    assert f"1 to 3. The same each time: {hung}.\n" in told and check.HUNG in told
    assert f"  4 to 9: not tried, since {verdicts[-1].why}\nAll others\n  10 to" in told


def test_an_exception_is_told_where_it_was_raised(tmp_path):
    verdict = check.try_law(LAWS[BY_NAME["not_before_it_is_ready"] - 1], starting)
    assert verdict.why.endswith('in the program\'s line `say("reads", a.recv(100).decode())`')


def test_a_scheduler_that_cannot_be_made_is_told_of_once():
    class Module:
        __file__ = "mine.py"

        class Scheduler:
            def __init__(self, size):
                pass

    verdicts = [check.try_law(law, Module) for law in LAWS[:2]]
    (told,) = check.faults(verdicts)
    assert told.startswith("1 to 2. The same each time: TypeError: ")
    assert told.endswith("'size', when `Scheduler()` of your file was called.")


def test_the_page_knows_the_number_of_the_law_that_it_names():
    page = check.STARTING.with_name("README.md").read_text("utf-8")
    assert f"as law {BY_NAME['undone_sleep']}:" in page


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "def run(:",
            "SyntaxError: invalid syntax, in line 1 of your file, when the file was loaded",
        ),
        (
            "raise ValueError('no')",
            "ValueError: no, in line 1 of your file, in <module>, when the file was loaded",
        ),
        ("while True: pass", "it hung, for 1 s: it was in line 1 of your file, in <module>"),
        ("import os; os._exit(3)", "it ended the process, with status 3, when the file was loaded"),
    ],
    ids=["syntax", "raises", "hangs", "ends"],
)
def test_a_file_that_cannot_be_loaded_fails_the_first_law(tmp_path, text, why):
    first, *others = check.judge_apart(write(tmp_path, text), 1.0)
    assert first.outcome == FAILS
    assert first.why.startswith(why)
    assert {verdict.outcome for verdict in others} == {NOT_TRIED}


def test_a_file_beside_it_is_named_with_the_line(tmp_path):
    (tmp_path / "parts.py").write_text("def stop(what):\n    raise ValueError(what)\n", "utf-8")
    path = write(
        tmp_path,
        """
        from demos.tour.step10_generators import ReadWait, Scheduler as Good, WriteWait
        from parts import stop

        class Scheduler(Good):
            def run(self, main):
                stop("no")
        """,
    )
    why = "ValueError: no, in line 2 of parts.py, in stop"
    assert check.try_law(LAWS[0], check.load(path)).why == why
    verdicts = [check.try_law(law, check.load(path)) for law in LAWS[:2]]
    assert list(check.faults(verdicts)) == [f"1 to 2. The same each time: {why}."]
    trace = f'File "/lib/selectors.py", line 1 in f\n  File "{tmp_path}/parts.py", line 2 in stop\n'
    hung = "it hung, for 3 s: it was in line 2 of parts.py, in stop"
    assert check.how_it_ended(trace, path, 3, 1) == hung
    (tmp_path / "parts.py").write_text("def stop(:\n", "utf-8")
    first = check.judge_apart(path, 3)[0]
    assert first.why.endswith(", in line 1 of parts.py, when the file was loaded")


def test_a_file_may_have_any_name_and_read_its_command_line(tmp_path):
    path = tmp_path / "mine"
    path.write_text(f"{GOOD}\nimport argparse\nargparse.ArgumentParser().parse_args()\n", "utf-8")
    assert check.judge_apart(str(path), 3)[0].outcome == HOLDS
    assert check.one_law(1, str(path)) == 0


# The command --------------------------------------------------------------------------------------


def test_it_tells_in_plain_words_what_does_not_hold():
    status, out, err = outcome("demos.tour.check", "demos/tour/step11_timers.py")
    assert (status, err) == (1, "")
    assert f"19 of 25 laws hold; {len(LAWS) - 25} are not tried." in out
    first, last = BY_NAME["every_finally"], BY_NAME["cancel_is_no_failure"]
    assert f"  {first} to {last}: not tried, since what `spawn` returns has no `cancel()`" in out
    law = LAWS[BY_NAME["second_reader"] - 1]
    for text in (law.text, law.otherwise, law.hint, "yield mine.ReadWait(a)"):
        assert text in out
    assert "said:      second reads hello\nshould be: first reads hello\n" in out


def test_a_file_to_begin_with_is_written_once(tmp_path):
    path = tmp_path / "mine.py"
    status, out, err = outcome("demos.tour.check", "--start", str(path))
    assert (status, out, err) == (0, f"{path} is a scheduler to begin with\n", "")
    assert path.read_text("utf-8") == check.STARTING.read_text("utf-8")
    status, out, err = outcome("demos.tour.check", "--start", str(path))
    assert (status, out, err) == (1, "", f"{path}: File exists\n")


def test_a_file_that_is_not_there_gets_one_line(tmp_path):
    status, out, err = outcome("demos.tour.check", "nowhere.py")
    assert (status, out) == (1, "")
    assert err == "nowhere.py: there is no such file; --start writes one to begin with\n"


def test_a_folder_gets_one_line(tmp_path):
    status, out, err = outcome("demos.tour.check", str(tmp_path))
    assert (status, out) == (1, "")
    assert err == f"{tmp_path} is a folder: name the file in it that has your scheduler\n"


def test_one_law_alone_of_a_file_that_cannot_be_loaded(tmp_path, capsys):
    path = write(tmp_path, "import no_such_module")
    assert check.one_law(3, path) == 1
    why = (
        "ModuleNotFoundError: No module named 'no_such_module', in line 1 of your file, in <module>"
    )
    told = capsys.readouterr().out
    assert told == f"It did not come so far: {why}, when the file was loaded.\n"


def test_one_law_alone_shows_what_the_file_prints(tmp_path, capsys):
    path = write(
        tmp_path,
        """
        from demos.tour.step10_generators import ReadWait, Scheduler as Good, WriteWait

        class Scheduler(Good):
            def run(self, main):
                super().run(main)
                print("here")
        """,
    )
    assert check.one_law(1, path) == 0
    assert (
        capsys.readouterr().out
        == "here\nmain is over\nthe child is over\nhere\nrun has returned\n1 holds\n"
    )
    assert check.one_law(BY_NAME["sleeps_in_order"], path) == 1
    assert "Not tried: there is no `Sleep`." in capsys.readouterr().out


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.program.__name__)
def test_a_program_that_is_shown_is_a_program(law, capsys, brief):
    text = check.program_of(law, judged.__file__)
    for sign in (" -> ", ": Any", "list["):
        assert sign not in text
    exec(compile(text, "shown", "exec"), {})
    assert capsys.readouterr().out.splitlines() == law.expected
