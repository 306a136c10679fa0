"""The judge of the tour: what it says of the tour's own schedulers, of corolib, and of bad ones."""

import textwrap
from types import SimpleNamespace

import pytest

from demos.tour import (
    check,
    judged,
    starting,
    step10_generators,
    step11_timers,
    step14_join,
    step16_threads,
)
from demos.tour.check import FAILS, HOLDS, NOT_TRIED
from demos.tour.faults import sendall, sendall_blocking
from demos.tour.laws import ERRORS, FILES, LAWS, TIMES
from demos.tour.step14_join import Scheduler as Mended
from demos.tour.step14_task import Cancelled, Task
from tests.helpers.programs import outcome

BY_NAME = {law.program.__name__: law.number for law in LAWS}


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
    for law in LAWS:
        for text in (law.text, law.otherwise, law.hint):
            assert text[0].isupper() or text[0] == "`"
            assert text[-1] in ".?"


# The tour's own schedulers ------------------------------------------------------------------------


def test_twenty_lines_pass_the_first_stage_and_claim_no_other():
    found = outcomes(step10_generators)
    assert (found[HOLDS], found[FAILS]) == (of_stage(FILES), [])


def test_timers_pass_two_stages_and_have_three_faults():
    found = outcomes(step11_timers)
    assert found[HOLDS] == [*of_stage(FILES, TIMES), "ctrl_c"]
    others = ("no_reader", "ctrl_c")
    assert found[FAILS] == [name for name in of_stage(ERRORS) if name not in others]


def test_the_mended_one_passes_all_that_it_claims():
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


def test_functions_instead_of_a_class():
    scheduler = step11_timers.Scheduler()
    functions = SimpleNamespace(**vars(step11_timers))
    functions.Scheduler = None
    functions.spawn, functions.run = scheduler.spawn, scheduler.run
    for law in LAWS:
        if law.stage in (FILES, TIMES):
            assert check.try_law(law, functions).outcome == HOLDS


# Faults that are planted into the mended one ------------------------------------------------------


class Guarded(Mended):
    """Ends where it would hang."""

    def patience(self):
        found = super().patience()
        if found is None and not (self.readers or self.writers):
            raise RuntimeError("hangs")
        return found


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


class InnermostTask(Task):
    def cancel(self):
        body = self.body
        while getattr(body, "gi_yieldfrom", None) is not None:
            body = body.gi_yieldfrom
        if self.wait is None:
            self.pending = True
            return
        self.undo()
        try:
            body.throw(Cancelled())
        except (Cancelled, StopIteration):
            self.scheduler.resume(self)


class Innermost(Guarded):
    """Killing a task closes its innermost generator only (pyos8)."""

    def spawn(self, body):
        task = super().spawn(body)
        task.__class__ = InnermostTask
        return task


class RunsOn(Guarded):
    """Yielding 42 spins at full speed (bluelet)."""

    def wrong_yield(self, task, thing):
        return self.give_way(task, None)


class HandsBack(Guarded):
    """Yielding 42 hands 42 back (pycos)."""

    def wrong_yield(self, task, thing):
        self.resume(task, thing)
        return lambda: None


class LosesResults(Guarded):
    """`return value` is lost (bluelet, pyos8)."""

    def body_over(self, task, value, error):
        super().body_over(task, None, error)


class OldTimers(Guarded):
    """A sleep that was taken back wakes its task all the same."""

    def sleep(self, task, trap):
        super().sleep(task, trap)
        return lambda: None


class KeepsFiles(Guarded):
    """A wait for a file is not taken back."""

    def wait_file(self, waiting, task, trap):
        super().wait_file(waiting, task, trap)
        return lambda: None


class Spins(Guarded):
    """Asks again and again."""

    def patience(self):
        return 0


class LastFirst(Guarded):
    """Who came last is served first."""

    def turn(self):
        self.ready.reverse()
        super().turn()


class AnyWake(Guarded):
    """Each wake counts."""

    def suspend(self, task, trap):
        return trap.arm(lambda value=None, error=None: self.resume(task, value, error))


class Silent(Guarded):
    """Nobody is told of a failure."""

    def __init__(self):
        super().__init__(on_task_error=lambda task, error: None)


class Swallows(Guarded):
    """Takes Ctrl-C for a failure of the task."""

    def step(self, task):
        try:
            super().step(task)
        except KeyboardInterrupt:
            self.body_over(task, None, None)


class Restless(Guarded):
    """Looks at the clock each millisecond, whoever sleeps."""

    def patience(self):
        found = super().patience()
        return 0.001 if found is None else min(found, 0.001)


class Unordered(Guarded):
    """Compares tasks where two deadlines are equal."""

    def sleep(self, task, trap):
        undo = super().sleep(task, trap)
        for timer in self.timers:
            timer[1] = 0
        return undo


class Deaf(Guarded):
    """Leaves in the selector who does not wait any more."""

    def unwait_file(self, waiting, file):
        del waiting[file]


class OneJoiner(Guarded):
    """Wakes one of those who join a task."""

    def body_over(self, task, value, error):
        del task.joiners[1:]
        super().body_over(task, value, error)


class Hasty(Guarded):
    """Puts a task that is cancelled into the queue, though it stands there already."""

    def spawn(self, body):
        task = super().spawn(body)
        task.cancel = lambda: self.ready.append(task) or setattr(task, "error", Cancelled())
        return task


PLANTED = [
    (Replaces, ["second_reader"]),
    (Stops, ["one_exception", "wrong_yield"]),
    (Innermost, ["every_finally"]),
    (RunsOn, ["wrong_yield", "error_at_the_yield"]),
    (HandsBack, ["wrong_yield", "error_at_the_yield"]),
    (LosesResults, ["join_gives_the_result", "run_returns_the_result", "joiner_cancelled"]),
    (OldTimers, ["undone_sleep"]),
    (KeepsFiles, ["undone_file"]),
    (Spins, ["does_not_spin"]),
    (LastFirst, ["give_way"]),
    (AnyWake, ["first_wake_counts"]),
    (Silent, ["failures_are_told"]),
    (Swallows, ["ctrl_c"]),
    (Restless, ["does_not_spin", "does_not_spin_in_a_sleep"]),
    (Unordered, ["same_deadline"]),
    (Deaf, ["unheard_file"]),
    (OneJoiner, ["two_joiners"]),
    (Hasty, ["value_first"]),
]


def with_scheduler(scheduler, **names):
    return SimpleNamespace(**{**vars(step14_join), "Scheduler": scheduler, **names})


@pytest.mark.parametrize(
    ("scheduler", "laws"), PLANTED, ids=[scheduler.__name__ for scheduler, _ in PLANTED]
)
def test_a_planted_fault_is_named(scheduler, laws):
    module = with_scheduler(scheduler)
    for name in laws:
        assert check.try_law(LAWS[BY_NAME[name] - 1], module).outcome == FAILS


@pytest.mark.parametrize(
    ("function", "result"), [(sendall, HOLDS), (sendall_blocking, FAILS)], ids=["waits", "blocks"]
)
def test_fault_5_is_named(function, result):
    module = with_scheduler(Mended, sendall=function)
    verdict = check.try_law(LAWS[BY_NAME["no_reader"] - 1], module)
    assert verdict.outcome == result


def test_a_call_that_the_thread_makes_itself_is_named():
    class Direct(step16_threads.Scheduler):
        def call_soon_threadsafe(self, f, *args):
            f(*args)
            super().call_soon_threadsafe(str)

    module = with_scheduler(Direct)
    verdict = check.try_law(LAWS[BY_NAME["called_by_the_scheduler"] - 1], module)
    assert (verdict.outcome, verdict.said) == (FAILS, ["called by the thread"])


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
    whys = [verdict.why for verdict in verdicts[:8]]
    assert [verdict.outcome for verdict in verdicts[:8]] == [HOLDS, *[FAILS] * 5, HOLDS, HOLDS]
    assert whys == [
        "",
        "SystemExit: no more, in line 9 of your file, in run",
        "KeyError: 'not_before_it_is_ready', in line 13 of your file, in run",
        "it hung, for 1 s: it was in line 15 of your file, in run",
        "EOFError: EOF when reading a line, in line 20 of your file, in run",
        "it ended the process, with status 7",
        "",
        "",
    ]
    assert {verdict.outcome for verdict in verdicts[8:]} == {NOT_TRIED}
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
    verdicts = check.judge_apart(path, 0.3)
    assert [verdict.outcome for verdict in verdicts[:4]] == [FAILS, FAILS, FAILS, NOT_TRIED]
    assert verdicts[-1].why == "3 laws have ended the process"
    assert verdicts[0].said == ["main is over", "the child is over"]
    told = check.report(verdicts, path)
    hung = "it hung, for 0.3 s: it was in line 7 of your file, in run"
    assert f"1 to 3. The same each time: {hung}.\n" in told and check.HUNG in told
    assert f"  4 to 8: not tried, since {verdicts[-1].why}\nAll others\n  9 to" in told


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
        ("while True: pass", "it hung, for 0.5 s: it was in line 1 of your file, in <module>"),
        ("import os; os._exit(3)", "it ended the process, with status 3, when the file was loaded"),
    ],
    ids=["syntax", "raises", "hangs", "ends"],
)
def test_a_file_that_cannot_be_loaded_fails_the_first_law(tmp_path, text, why):
    first, *others = check.judge_apart(write(tmp_path, text), 0.5)
    assert first.outcome == FAILS
    assert first.why.startswith(why)
    assert {verdict.outcome for verdict in others} == {NOT_TRIED}


# The command --------------------------------------------------------------------------------------


def test_it_tells_in_plain_words_what_does_not_hold():
    status, out, err = outcome("demos.tour.check", "demos/tour/step11_timers.py")
    assert (status, err) == (1, "")
    assert f"18 of 24 laws hold; {len(LAWS) - 24} are not tried." in out
    first, last = BY_NAME["every_finally"], BY_NAME["cancel_is_no_exception"]
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
    assert check.one_law(9, path) == 1
    assert "Not tried: there is no `Sleep`." in capsys.readouterr().out


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.program.__name__)
def test_a_program_that_is_shown_is_a_program(law, capsys):
    text = check.program_of(law, judged.__file__)
    for sign in (" -> ", ": Any", "list["):
        assert sign not in text
    exec(compile(text, "shown", "exec"), {})
    assert capsys.readouterr().out.splitlines() == law.expected
