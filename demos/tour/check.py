"""Judges a scheduler of yours by the laws of the tour, in plain words.

    $ python3 -m demos.tour.check --start mine.py
    mine.py is a scheduler to begin with
    $ python3 -m demos.tour.check mine.py
    ...
    5 of 9 laws hold; 41 are not tried.

Your file has two traps, `ReadWait(sock)` and `WriteWait(sock)`, and a class `Scheduler` with the
methods `spawn(task)` and `run(main)`, or `spawn` and `run` as functions. Laws about what it does
not have are not tried: see "Your own" on the page of the tour. `--law 7` runs one law alone, with
all that your program prints.
"""

from __future__ import annotations

import argparse
import faulthandler
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from itertools import groupby
from pathlib import Path
from types import GeneratorType
from typing import IO, Any
from unittest import mock

from demos.start import at_least, start
from demos.tour import laws
from demos.tour.laws import LAWS, Law, made

HOLDS, FAILS, NOT_TRIED = "holds", "FAILS", "not tried"
LINES = 20  # of what a program says: more are not kept for the case that it hangs
IN_FILE, HANGS = "of your file", "it hung"
PLACE = re.compile(rf"{IN_FILE}|in line \d+ of ")
BEFORE = (", when the file was loaded", ", when a task that does nothing was run")
HUNG = """It hung: it waited in a line, or went round in a circle. Print what your scheduler knows
there. Is somebody ready? Then it must not wait. Is nobody waiting? Then `run` has to return.
Is somebody still registered who does not wait any more? Then nobody took that one out."""
HELPERS = ("QUIET", "later", "overhearing", "pair", "same_time", "watching")
TRIES = 3  # of a law that does not hold: a busy machine stops every program now and then
ENOUGH = 3  # laws that hang or end the process, after which the rest is not tried
STARTING = Path(__file__).with_name("starting.py")
ROOT = Path(__file__).parents[2]
MEMORY = 4 << 30  # bytes: what a file that is judged may have


@dataclass
class Verdict:
    """What became of one law."""

    law: int
    outcome: str
    why: str = ""  # the reason, when it is not that something else was said
    said: list[str] | None = None


class Mine:
    """What is judged, as the laws see it: the names of a file, and of a new scheduler of it."""

    def __init__(self, module: Any) -> None:
        scheduler = getattr(module, "Scheduler", None)
        self.places = [module] if scheduler is None else [scheduler(), module]

    def __getattr__(self, name: str) -> Any:
        for place in self.places:
            if hasattr(place, name):
                return getattr(place, name)
        raise AttributeError(f"the file has no `{name}`")


def load(path: str) -> Any:
    """Return the module that a file is; a new one each time, so that no law sees another's."""
    name = f"judged_{Path(path).stem}"  # it may be called select.py
    folder = str(Path(path).parent)
    if folder not in sys.path:  # what it imports may be beside it
        sys.path.insert(0, folder)
    sys.argv = [path]  # the judge's options are none of its own
    loader = SourceFileLoader(name, path)
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # as for an import: dataclasses look there
    loader.exec_module(module)
    return module


# In the process that runs the file ----------------------------------------------------------------


def abilities(module: Any) -> set[str]:
    """Return what of `law.needs` is there: names, and what the tasks have that `spawn` returns."""
    mine: Any = module
    tasks: list[Any] = []

    def main() -> Any:
        tasks.append(mine.spawn(child()))
        return
        yield

    def child() -> Any:
        return
        yield

    with suppress(BaseException):  # the laws will tell
        mine = Mine(module)
        mine.run(main())
    found = {name for law in LAWS for name in law.needs if hasattr(mine, name)}
    for task in tasks:
        if not isinstance(task, GeneratorType):  # one has an `__iter__`, and cannot be joined
            found |= {f"task.{name}" for name in ("cancel", "__iter__") if hasattr(task, name)}
    return found


def try_law(law: Law, module: Any, say: Callable[[str], object] = str) -> Verdict:
    """Run the program of a law in this process; `say` hears what the program says."""
    said: list[str] = []
    why = ""

    def hear(*words: object) -> None:
        said.append(" ".join(map(str, words)))
        say(said[-1])

    try:
        law.program(Mine(module), hear)
    except BaseException as exc:
        # A group, when all has been said, is what the tasks have raised.
        if not isinstance(exc, ExceptionGroup) or said != law.expected:
            what = last_line(exc).removeprefix(f"{type(exc).__module__}.")
            place = place_of(exc, getattr(module, "__file__", None))
            why = f"{what}{place or f', when `Scheduler()` {IN_FILE} was called'}"
    finally:
        for sock in made:
            sock.close()
        made.clear()
    holds = not why and said == law.expected
    return Verdict(law.number, HOLDS if holds else FAILS, why, said)


def tries(
    law: Law, module_of: Callable[[], Any], say: Callable[[str], object] = str
) -> Iterator[Verdict]:
    """Try a law until it holds, but not too often; each time with longer quiet times."""
    for count in range(TRIES):
        with mock.patch.object(laws, "QUIET", laws.QUIET * (count + 1)):
            verdict = try_law(law, module_of(), say)
        yield verdict
        if verdict.outcome == HOLDS or verdict.why:  # an exception is no matter of times
            return


def last_line(exc: BaseException) -> str:
    return traceback.format_exception_only(exc)[-1].strip()


def place_of(exc: BaseException, file: str | None) -> str:
    """Return where in the file an exception was raised; or in the program of a law, by a task."""
    if isinstance(exc, SyntaxError) and exc.lineno and (whose := words_for(exc.filename, file)):
        return f", in line {exc.lineno} {whose}"
    for frame in reversed(traceback.extract_tb(exc.__traceback__)):
        if whose := words_for(frame.filename, file):
            return f", in line {frame.lineno} {whose}, in {frame.name}"
        if frame.filename == laws.__file__ and frame.line:
            return f", in the program's line `{frame.line.partition('  #')[0]}`"
    return ""


def words_for(path: str | None, file: str | None) -> str:
    """Return what a file is called that is judged, or beside that; an empty string for others."""
    if path is None or file is None or path in (__file__, laws.__file__):
        return ""
    same_folder = Path(path).parent == Path(file).parent
    return IN_FILE if path == file else f"of {Path(path).name}" if same_folder else ""


def missing(law: Law, can: set[str]) -> str:
    """Return why a law is not tried; an empty string if it is."""
    names = [name for name in law.needs if name not in can]
    if not names:
        return ""
    words = {"task.cancel": "what `spawn` returns has no `cancel()`"}
    words["task.__iter__"] = "what `spawn` returns cannot be joined by `yield from`"
    return words.get(names[0], f"there is no `{names[0]}`")


def judge(
    module_of: Callable[[], Any], can: set[str], first: int = 1, say: Callable[[str], object] = str
) -> Iterator[Verdict]:
    """Try all laws from that number on, in this process: for what is sure to end."""
    for law in LAWS[first - 1 :]:
        why = missing(law, can)
        yield Verdict(law.number, NOT_TRIED, why) if why else list(tries(law, module_of, say))[-1]


def serve(path: str, first: int, limit: float, results: IO[str]) -> None:
    """Be the process that runs the file: write what became of it, a line for each thing."""

    def tell(thing: dict[str, Any]) -> None:
        print(json.dumps(thing), file=results, flush=True)
        # Whoever takes longer for the next is ended, by a thread that asks nobody.
        faulthandler.dump_traceback_later(limit, exit=True, file=trace)
        spoken.clear()

    def load_anew() -> Any:
        module = load(path)
        tell({"loaded": True})
        return module

    def hear(words: str) -> None:
        if len(spoken) < LINES:
            spoken.append(words)
            print(json.dumps({"said": words}), file=results, flush=True)

    spoken: list[str] = []
    with open(f"{results.name}.trace", "w") as trace:
        limit_memory()
        tell({"begun": True})
        try:
            module = load_anew()
        except BaseException as exc:
            tell({"not loaded": f"{last_line(exc)}{place_of(exc, path)}"})
        else:
            can = abilities(module)
            tell({"can": sorted(can)})
            for verdict in judge(load_anew, can, first, hear):
                tell(asdict(verdict))
        os._exit(0)  # whatever threads the file has started


def limit_memory() -> None:
    """Have a file that asks for more and more memory get a MemoryError, not the whole machine."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, most))


# In the process of the judge ----------------------------------------------------------------------


def judge_apart(path: str, limit: float) -> list[Verdict]:
    """Try all laws, each within so many seconds, in a process that is made anew when it is lost."""
    verdicts: list[Verdict] = []
    hung = 0
    with tempfile.TemporaryDirectory() as folder:
        while len(verdicts) < len(LAWS):
            number = len(verdicts) + 1
            lines, end = run_apart(path, number, limit, Path(folder, str(number)))
            verdicts += [Verdict(**line) for line in lines if "law" in line]
            number = len(verdicts) + 1
            if number > len(LAWS):
                break
            seen = {
                key: value for line in lines if "law" not in line for key, value in line.items()
            }
            if "can" not in seen:
                why = seen.get("not loaded", end)
                what = BEFORE["loaded" in seen]
                return [
                    Verdict(number, FAILS, f"{why}{what}"),
                    *rest_of(number, "nothing could be run"),
                ]
            done = max(n for n, line in enumerate(lines) if "said" not in line)
            said = [line["said"] for line in lines[done + 1 :]]
            verdicts.append(Verdict(number, FAILS, end, said))
            hung += 1
            if hung == ENOUGH:
                verdicts += rest_of(number, f"{ENOUGH} laws have ended the process")
    return verdicts


def rest_of(number: int, why: str) -> list[Verdict]:
    return [Verdict(law.number, NOT_TRIED, why) for law in LAWS[number:]]


def run_apart(path: str, first: int, limit: float, file: Path) -> tuple[list[dict[str, Any]], str]:
    """Run the file in a process; return the lines that it wrote, and how it ended."""
    command = [sys.executable, "-m", "demos.tour.check", path, f"--limit={limit}"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [*command, f"--serve={first}:{file}"],
        cwd=ROOT,
        stdin=quiet,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
    )
    try:
        process.wait(limit * (len(LAWS) + 3))
    except subprocess.TimeoutExpired:  # it has taken the limit off
        pass
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
        process.wait()
    lines = [json.loads(line) for line in read(file).splitlines()]
    return lines, how_it_ended(read(Path(f"{file}.trace")), path, limit, process.returncode)


def read(file: Path) -> str:
    return file.read_text("utf-8") if file.exists() else ""


def how_it_ended(trace: str, path: str, limit: float, status: int) -> str:
    if not trace:
        return f"it ended the process, with status {status}"
    for file, line, name in re.findall(r'File "(.*)", line (\d+) in (\S+)', trace):
        if whose := words_for(file, path):
            return f"{HANGS}, for {limit:g} s: it was in line {line} {whose}, in {name}"
    return f"{HANGS}, for {limit:g} s"


# What is told -------------------------------------------------------------------------------------


def report(verdicts: list[Verdict], path: str) -> str:
    """Return what is told of all laws."""
    lines = []
    pairs = list(zip(LAWS, verdicts, strict=True))
    for stage, group in groupby(pairs, lambda pair: pair[0].stage):
        members = list(group)
        rest = pairs[members[0][0].number - 1 :]
        if len({kind_of(verdict) for _, verdict in rest}) == 1 and stage != LAWS[-1].stage:
            if rest[0][1].outcome == NOT_TRIED:  # all the rest, for the same reason
                lines += ["All others", *told_of(rest)]
                break
        lines += [stage, *told_of(members)]
    tried = [verdict for verdict in verdicts if verdict.outcome != NOT_TRIED]
    failed = [verdict for verdict in tried if verdict.outcome == FAILS]
    count = f"{len(tried) - len(failed)} of {len(tried)} laws hold"
    untried = [verdict for verdict in verdicts if verdict.outcome == NOT_TRIED]
    lines += ["", f"{count}; {len(untried)} are not tried." if untried else f"{count}."]
    lines += faults(failed)
    if failed:
        lines += ["", f"The first of these, number {failed[0].law}:", "", detail(failed[0], path)]
        again = f"python3 -m demos.tour.check --law {failed[0].law} {shlex.quote(str(path))}"
        lines.append(f"Alone, with all that it prints: {again}")
    elif untried:
        following = untried[0]
        law = LAWS[following.law - 1]
        lines.append(f"To go on, law {law.number}: {law.text} Not tried, since {following.why}.")
    return "\n".join(lines)


def told_of(pairs: list[tuple[Law, Verdict]]) -> Iterator[str]:
    """Say what became of each law; of those that were not tried for one reason, in one line."""
    for (outcome, why), same in groupby(pairs, lambda pair: kind_of(pair[1])):
        found = [law for law, _ in same]
        if outcome == NOT_TRIED:
            yield f"  {numbers_of([law.number for law in found])}: not tried, since {why}"
        else:
            yield from (f"  {law.number:2} {outcome:5}  {law.text}" for law in found)


def faults(failed: list[Verdict]) -> Iterator[str]:
    """Say what was wrong; what struck several laws at the same place is told as one thing."""
    shared = Counter(verdict.why for verdict in failed if PLACE.search(verdict.why))
    for verdict in failed:
        count = shared[verdict.why]
        if count > 1:
            shared[verdict.why] = 0
            numbers = [each.law for each in failed if each.why == verdict.why]
            yield f"{numbers_of(numbers)}. The same each time: {verdict.why}."
        elif verdict.why.endswith(BEFORE):
            yield f"{verdict.law}. It did not come so far."
        elif count or verdict.why not in shared:
            hung = " (It hung.)" if HANGS in verdict.why else ""
            yield f"{verdict.law}. {LAWS[verdict.law - 1].otherwise}{hung}"


def numbers_of(numbers: list[int]) -> str:
    """Return numbers as words: "4", "4 to 7", "4, 5, 8"."""
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 1 and numbers == list(range(first, last + 1)):
        return f"{first} to {last}"
    return ", ".join(map(str, numbers))


def kind_of(verdict: Verdict) -> tuple[str, str]:
    """Return what the laws have in common that are told of together."""
    return verdict.outcome, verdict.why if verdict.outcome == NOT_TRIED else ""


def detail(verdict: Verdict, path: str) -> str:
    """Return what a law wants, what was seen, the program that shows it, and a hint."""
    law = LAWS[verdict.law - 1]
    hints = [f"Hint: {law.hint}"]
    if HANGS in verdict.why:
        hints.append(HUNG)
    if verdict.why.endswith(BEFORE):  # no law has been tried
        return "\n".join([f"It did not come so far: {verdict.why}.", *hints[1:], ""])
    parts = [law.text]
    if verdict.why:
        parts.append(f"It did not come to its end: {verdict.why}.")
    if verdict.said is not None:
        parts.append(f"said:      {'; '.join(verdict.said) or 'nothing'}")
    parts.append(f"should be: {'; '.join(law.expected)}")
    program = textwrap.indent(program_of(law, path), "    ")
    shown = ["", "The smallest program that shows it:", "", program]
    return "\n".join([*parts, *shown, *hints, ""])


def program_of(law: Law, path: str) -> str:
    """Return the program of a law as a program of its own, without types."""
    source = inspect.getsource(law.program)
    body = textwrap.dedent(source[source.index(":\n", source.index("\ndef ")) + 2 :])
    body = re.sub(r": (Any|str|int|float|bool|socket\.socket)\b", "", body)
    body = re.sub(r" -> \w+:", ":", body)
    body = re.sub(r"(\w+): list\[\w+\] =", r"\1 =", body)
    used = [name for name in HELPERS if re.search(rf"\b{name}\b", body)]
    head = ["from demos.tour.check import Mine, load"]
    head += [f"from demos.tour.laws import {', '.join(used)}"] if used else []
    head += [f"import {name}" for name in ("threading", "time") if f"{name}." in body]
    return "\n".join([*head, "", f'mine, say = Mine(load("{path}")), print', "", body])


# The command --------------------------------------------------------------------------------------


def one_law(number: int, path: str) -> int:
    """Run one law in this process, so that all is seen that it prints."""
    law = LAWS[number - 1]
    try:
        module = load(path)
    except (Exception, SystemExit) as exc:
        why = f"{last_line(exc)}{place_of(exc, path)}{BEFORE[0]}"
        print(detail(Verdict(number, FAILS, why), path), end="")
        return 1
    why = missing(law, abilities(module))
    if why:
        print(f"{law.text} Not tried: {why}.")
        return 1
    for verdict in tries(law, lambda: load(path), print):
        print(f"{number} {verdict.outcome}")
    if verdict.outcome == FAILS:
        print(f"{law.otherwise}\n\n{detail(verdict, path)}", end="")
    return int(verdict.outcome == FAILS)


def begin(path: str) -> int:
    """Write a scheduler to begin with, if there is no such file."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(STARTING.read_text("utf-8"))
    except OSError as exc:
        print(f"{path}: {exc.strerror}", file=sys.stderr)
        return 1
    print(f"{path} is a scheduler to begin with")
    return 0


def main(options: argparse.Namespace) -> None:
    path = str(Path(options.file).resolve())
    if options.start:
        sys.exit(begin(options.file))
    if Path(path).is_dir():
        sys.exit(f"{options.file} is a folder: name the file in it that has your scheduler")
    if not Path(path).is_file():
        sys.exit(f"{options.file}: there is no such file; --start writes one to begin with")
    if options.serve:
        first, _, file = options.serve.partition(":")
        with open(file, "w", encoding="utf-8") as results:
            serve(path, int(first), options.limit, results)
    if options.law:
        sys.exit(one_law(options.law, path))
    verdicts = judge_apart(path, options.limit)
    print(report(verdicts, options.file))
    sys.exit(int(any(verdict.outcome == FAILS for verdict in verdicts)))


if __name__ == "__main__":
    start(
        main,
        __doc__,
        arguments={
            "file": {"help": "your scheduler"},
            "--start": {"action": "store_true", "help": "write a file to begin with"},
            "--law": {
                "type": at_least(1, len(LAWS)),
                "metavar": "NUMBER",
                "help": "run this law alone, here",
            },
            "--limit": {
                "type": at_least(1.0, 3600.0),  # a law may take 0.6 s
                "default": 5.0,
                "help": "seconds after which a law hangs; default: %(default)s",
            },
            "--serve": {"help": argparse.SUPPRESS},
        },
    )
