"""Do the tests notice a mistake? Make small ones in the kernel, one at a time, and see.

    python .ci/mutants.py [--count 400] [--seed 1] [FOLDER or FILE...]
    python .ci/mutants.py --only corolib/kernel/timers.py:61
    python .ci/mutants.py --mutant 3fa8c2d1 [FOLDER or FILE...]

A *mutant* is the sources with one mistake: a statement left out, a comparison turned round, a
number that is one more. It is *killed* when a test fails, or takes several times as long as it
should. What *survives* is either something that no test looks at, or *equivalent*: it makes no
difference that a test could see. Such a one is put into `.ci/equivalent-mutants.txt` as it stands
in the report, with a reason, and is not drawn again.

Each mutant is run with the tests that come through its line, and no others: those of the file that
is named after the module first, and of these and of the rest the quickest first, until one fails,
and does so again: tests that look at real time fail now and then on a busy machine, mutant or not.
Which test comes where is measured before, with coverage, and how long each takes, without it: then
they run the quickest first, too, and all have to pass. Both are kept in the folder `--cache` as
long as no source changes. Nothing is written into the working tree: all of it runs in copies.

This file is also the plugin of pytest that those runs use: see its end.
"""

from __future__ import annotations

import argparse
import ast
import faulthandler
import hashlib
import json
import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage, CoverageData
from coverage.config import CoverageConfig

HERE = Path(__file__).resolve().parent
TESTS = ["tests/kernel", "tests/advice", "tests/coordination", "tests/test_laws.py", "tests/net"]
TESTS += ["tests/testing"]
EQUIVALENT = HERE / "equivalent-mutants.txt"
# What survives is run with these again, in debug mode.
DEBUG = ["tests/kernel/test_diagnostics.py", "tests/kernel/test_cancellation.py"]
DEBUG += ["tests/coordination/test_timeouts.py"]
MEMORY = 4 << 30  # bytes: a mutant may ask for more and more

SWAPS = {"<": "<=", ">": ">=", "==": "!=", "is": "is not", "in": "not in", "and": "or"}
SWAPS |= {"+": "-", "+=": "-=", "break": "continue"}
SWAPS |= {new: old for old, new in SWAPS.items()}
OPERATOR = re.compile(rb"[<>]=?|[=!]=|is +not|not +in|\b(?:is|in|and|or)\b|[+-]=?")
TYPES = {"TypeVar", "ParamSpec", "Protocol"}  # calls and classes for type checkers alone


@dataclass(eq=False)
class Mutant:
    """One mistake, and what becomes of it."""

    path: str
    scope: str  # the class and function that the line is in
    old_line: str
    new_line: str
    nth: int  # of those that look the same
    edit: tuple[int, int, bytes]  # from where to where, and what stands there instead
    lines: range  # from the beginning of its statement to itself
    is_local: bool  # in a function: its line runs when a test calls that, and not at import
    tests: list[str] = field(default_factory=list)
    verdict: str = ""
    killer: str = ""  # the test that fails; none if not even the imports succeed
    output: str = ""

    def __post_init__(self) -> None:
        nth = f"#{self.nth}" if self.nth > 1 else ""
        where = " ".join(filter(None, (self.path, self.scope, nth)))
        self.text = f"{where}\n- {self.old_line}\n+ {self.new_line}"
        self.name = hashlib.sha256(self.text.encode()).hexdigest()[:8]
        self.place = f"{self.path}:{self.lines[-1]}"

    def applied_to(self, source: bytes) -> bytes:
        start, end, new = self.edit
        return source[:start] + new + source[end:]


class Finder:
    """Finds the mutants of one file. In each of them all lines keep their numbers."""

    def __init__(self, path: str, source: bytes, excluded: set[int]) -> None:
        self.path, self.source, self.excluded = path, source, excluded
        self.starts = list(accumulate(map(len, source.splitlines(keepends=True)), initial=0))
        self.mutants: dict[tuple[int, int, bytes], Mutant] = {}
        self.same: Counter[tuple[str, ...]] = Counter()
        self.visit(ast.parse(source))

    def visit(
        self, node: Any, statement: int = 0, scope: tuple[str, ...] = (), is_local: bool = False
    ) -> None:
        """Find what can be done to the node, and to what is in it."""
        if isinstance(node, (ast.Assert, ast.JoinedStr)):  # for type checkers; messages
            return
        if any(getattr(base, "id", "") in TYPES for base in getattr(node, "bases", ())):
            return
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in TYPES:
            return
        statement = node.lineno if isinstance(node, ast.stmt) else statement
        self.statement, self.scope, self.is_local = statement, scope, is_local
        self.mutate(node)
        is_block = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        for name, value in ast.iter_fields(node):
            inside = scope, is_local
            if name == "body" and is_block:
                inside = (*scope, node.name), not isinstance(node, ast.ClassDef)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and name not in ("annotation", "returns"):
                    self.visit(child, statement, *inside)

    def mutate(self, node: Any) -> None:
        match node:
            case ast.Assign() if not self.is_local:
                pass  # without its constants and tables no module can be imported
            case (
                ast.Assign()
                | ast.AugAssign()
                | ast.AnnAssign(value=ast.expr())
                | ast.Delete()
                | ast.Raise()
                | ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom() | ast.Await())
            ):
                self.replace(node, "pass")
            case ast.Break() | ast.Continue():
                self.replace(node, SWAPS[type(node).__name__.lower()])
            case ast.Return(value=ast.expr()):
                self.replace(node.value, "None")
            case ast.If() | ast.IfExp():
                self.replace(node.test, "True")
                self.replace(node.test, "False")
            case ast.Constant(value=bool() as value):
                self.replace(node, str(not value))
            case ast.Constant(value=int() as value):
                self.replace(node, str(value + 1))
                if value == 1:
                    self.replace(node, "0")
            case ast.Call():
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and type(argument.value) is int:
                        self.replace(argument, str(argument.value - 1))
                for keyword in node.keywords:
                    if keyword.arg:
                        self.replace(keyword, "**{}")  # as if it were not given
            case ast.Compare():
                self.swap([node.left, *node.comparators])
            case ast.BoolOp():
                self.swap(node.values)
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                self.swap([node.left, node.right])
            case ast.UnaryOp(op=ast.Not()):
                start, _ = self.span(node)
                self.add(start, start + len("not "), "")
        if isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Add, ast.Sub)):
            self.swap([node.target, node.value])

    def span(self, node: Any) -> tuple[int, int]:
        start = self.starts[node.lineno - 1] + node.col_offset
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset

    def replace(self, node: Any, new: str) -> None:
        start, end = self.span(node)
        rest = "\n" * self.source.count(b"\n", start, end)
        self.add(
            start, end, f"({new}{rest})" if rest and isinstance(node, ast.expr) else new + rest
        )

    def swap(self, operands: list[Any]) -> None:
        """Swap each operator between two of the operands."""
        for left, right in pairwise(map(self.span, operands)):
            if found := OPERATOR.search(self.source, left[1], right[0]):
                self.add(*found.span(), SWAPS[found[0].decode()])

    def add(self, start: int, end: int, text: str) -> None:
        new = text.encode()
        line = self.source.count(b"\n", 0, start) + 1
        if self.source[start:end] == new or {line, self.statement} & self.excluded:
            return
        first, last = self.starts[line - 1], self.starts[line]
        old_line = self.source[first:last].decode().strip()
        new_line = (self.source[first:start] + new + self.source[end:last]).decode()
        look = ".".join(self.scope), old_line, new_line.partition("\n")[0].strip()
        if (start, end, new) not in self.mutants:
            self.same[look] += 1
            lines = range(min(line, self.statement), line + 1)
            self.mutants[start, end, new] = Mutant(
                self.path, *look, self.same[look], (start, end, new), lines, self.is_local
            )


class Copy:
    """A copy of the project, to run tests in."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, self.project = folder, folder / "project"
        unwanted = shutil.ignore_patterns(".git", ".venv", "venv", "__pycache__", ".coverage*")
        shutil.copytree(root, self.project, ignore=unwanted)

    def pytest(
        self, *arguments: str, limits: dict[str, float] | None = None, debug: bool = False
    ) -> tuple[int | None, str]:
        """Run pytest; return its status, None if it has hung, and what it printed.

        Args:
            limits: the tests to run, in this order, and the seconds that each may take.
            debug: in debug mode.
        """
        (self.folder / "limits.json").write_text(json.dumps(limits))
        for name in ("hung", "test"):
            (self.folder / name).write_text("")
        hidden = ("COV", "PYTHON", "PYTEST", "COROLIB")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
        environment["PYTHONPATH"] = f"{self.project}:{HERE}"
        environment["COROLIB_DEBUG"] = str(int(debug))
        environment["MUTANTS_FOLDER"] = str(self.folder)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "mutants", "-p", "no:cacheprovider"]
        command += ["--rootdir=.", f"--basetemp={self.folder}/tmp", *arguments]
        command += dict.fromkeys(test.partition("::")[0] for test in limits or ())
        streams: Any = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        with (self.folder / "output").open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=self.project,
                env=environment,
                process_group=0,
                stdout=output,
                **streams,
            )
            try:
                status = process.wait()
            finally:  # also of what it has left running
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        hung = (self.folder / "hung").read_text()  # says where
        printed = (self.folder / "output").read_text(errors="replace")
        return None if hung else status, printed + hung

    def measure(self, tests: list[str], kept: Path) -> None:
        """Find out which test comes where and how long it takes, and write it into a folder."""
        print("measuring which tests come through which line ...", flush=True)
        cover = ["--cov", "--cov-context=test", "--cov-report="]
        status, output = self.pytest(*cover, *tests)
        if status == 0:
            print("measuring how long each test takes ...", flush=True)
            seconds = json.loads((self.folder / "seconds.json").read_text())
            order = sorted(seconds, key=seconds.__getitem__)
            status, output = self.pytest(limits=dict.fromkeys(order, 600))
        if status != 0:
            sys.exit(f"{output}\nwithout a mutant the tests must pass")
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "sources").unlink(missing_ok=True)
        shutil.copy(self.project / ".coverage", kept / "coverage")
        shutil.copy(self.folder / "seconds.json", kept)

    def examine(self, mutant: Mutant, seconds: dict[str, float], patience: float) -> Mutant:
        """Run its tests with the mutant; note what becomes of it."""
        file = self.project / mutant.path
        source = file.read_bytes()
        mutated = mutant.applied_to(source)
        ast.parse(mutated)  # a mistake in the language would be one of ours
        file.write_bytes(mutated)
        os.utime(file, (0, int(mutant.name, 16)))  # so that no bytecode of another seems to fit
        # To begin with, the tests of one file: to read all the others takes seconds.
        begins = mutant.tests[0].partition("::")[0] + "::"
        first = [test for test in mutant.tests if test.startswith(begins)]
        others = [test for test in mutant.tests if not test.startswith(begins)]
        debug = [test for test in seconds if test.partition("::")[0] in DEBUG]

        def fails(tests: list[str], debug: bool) -> bool:
            limits = {test: max(patience, 5 * seconds[test]) for test in tests}
            status, mutant.output = self.pytest("-x", limits=limits, debug=debug)
            mutant.killer = (self.folder / "test").read_text()
            if status in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
                mutant.verdict = "survived"
            else:
                mutant.verdict = "timeout" if status is None else "killed"
            return mutant.verdict != "survived"

        try:
            for tests, mode in ((first, False), (others, False), (debug, True)):
                if tests and fails(tests, mode):  # for good? alone, or where others went before it
                    if not mutant.killer or fails([mutant.killer], mode) or fails(tests, mode):
                        break
        finally:
            file.write_bytes(source)
        return mutant


def give_tests(mutants: list[Mutant], measured: Path, most: float) -> dict[str, float]:
    """Give each mutant its tests; return how long each test takes.

    Those of the file that is named after the module all, of the others what fits in `most` seconds.
    """
    seconds: dict[str, float] = json.loads((measured / "seconds.json").read_text())
    data = CoverageData(str(measured / "coverage"))
    data.read()
    for path in {mutant.path for mutant in mutants}:
        lines: dict[int, set[str]] = {}
        for file in data.measured_files():
            if file.endswith(f"/project/{path}"):
                for line, contexts in data.contexts_by_lineno(file).items():
                    lines[line] = seconds.keys() & {each.rpartition("|")[0] for each in contexts}
        name = f"/test_{Path(path).stem}.py::"
        anywhere = {test for test in seconds if name in test}.union(*lines.values())
        for mutant in (mutant for mutant in mutants if mutant.path == path):
            here = set().union(*(lines.get(n, ()) for n in mutant.lines))
            if not mutant.is_local or not here:  # at import, or in a program that a test starts
                here = anywhere or set(seconds)
            favour = Counter(test.partition("::")[0] for test in here).most_common(1)[0][0] + "::"
            if any(name in test for test in here):
                favour = name
            total = 0.0
            for test in sorted(here, key=lambda test: (favour not in test, seconds[test])):
                if name not in test:
                    total += seconds[test]
                if total <= most or name in test:
                    mutant.tests.append(test)
    return seconds


def find(project: Path, paths: list[str]) -> Iterator[Iterable[Mutant]]:
    """Yield the mutants of each file."""
    config = project / "pyproject.toml"
    coverage = Coverage(data_file=None, config_file=config.exists() and str(config))
    for path in map(project.joinpath, paths):
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            excluded = set(coverage.analysis2(str(file))[2])  # `pragma: no cover` and the like
            name = str(file.relative_to(project))
            yield Finder(name, file.read_bytes(), excluded).mutants.values()


def draw(files: list[list[Mutant]], count: int, seed: int) -> Iterator[Mutant]:
    """Yield `count` mutants, of each file as many as are its share of all.

    Which ones hangs on the seed and on their names, so that most stay when the sources change.
    """
    ends = list(accumulate(map(len, files), initial=0))
    bounds = [round(end * min(1, count / max(1, ends[-1]))) for end in ends]
    for mutants, (low, high) in zip(files, pairwise(bounds), strict=True):
        order = sorted(mutants, key=lambda m: hashlib.sha256(f"{seed} {m.name}".encode()).digest())
        yield from order[: high - low]


def read_equivalents(path: Path) -> set[str]:
    """Return the mutants of the list: of each block, what comes after its lines of reason."""
    found = set()
    for block in path.read_text().strip().split("\n\n") if path.exists() else ():
        mutant = [line for line in block.split("\n") if not line.startswith("# ")]
        if not block.startswith("# "):
            sys.exit(f"{path.name}: there is no reason above\n{block}")
        found.add("\n".join(mutant))
    return found - {""}  # the block at the top says what the list is


def report(drawn: list[Mutant], equivalent: list[Mutant], least: float) -> bool:
    """Print the survivors and the figures; return whether enough were killed."""
    survivors = [mutant for mutant in drawn if mutant.verdict == "survived"]
    for mutant in survivors:
        files = Counter(test.partition("::")[0] for test in mutant.tests)
        tests = ", ".join(f"{count} of {file}" for file, count in files.most_common(3))
        more = "" if len(files) <= 3 else f" and {len(files) - 3} more files"
        print(f"\n{mutant.place} ({mutant.name})")
        print(f"survived {len(mutant.tests)} tests: {tests}{more}\n{mutant.text}")
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant in (*drawn, *equivalent):
        for row in (mutant.path, "in total"):
            rows[row][mutant.verdict or "equivalent"] += 1
    columns = ("killed", "timeout", "survived", "equivalent")
    print(f"\n{'':32}", *(f"{column:>10}" for column in columns))
    for row in sorted(rows, key=lambda row: (row == "in total", row)):
        print(f"{row:32}", *(f"{rows[row][column]:10}" for column in columns))
    percent = 100 - 100 * len(survivors) / len(drawn)
    print(f"\n{percent:.1f} % of {len(drawn)} killed, at least {least:g} % wanted")
    return percent >= least


def examine_all(
    drawn: list[Mutant], copies: list[Copy], seconds: dict[str, float], patience: float
) -> Iterator[Mutant]:
    """Examine the mutants, one at a time in each copy; yield each when that is done."""
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def examine(mutant: Mutant) -> Mutant:
        copy = free.get()
        try:
            return copy.examine(mutant, seconds, patience)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        try:
            for done in as_completed([pool.submit(examine, mutant) for mutant in drawn]):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        default=["corolib/kernel", "corolib/advice"],
        help="the files and folders to change",
    )
    add("--count", type=int, default=400, help="how many mutants")
    add("--seed", type=int, default=1, help="which ones")
    add("--jobs", type=int, default=2, help="how many at a time")
    add("--least", type=float, default=95, help="percent that must be killed")
    add("--seconds", type=float, default=60, help="of tests that are not named after the module")
    add("--patience", type=float, default=10, help="seconds that a test may take at least")
    add("--only", metavar="FILE:LINE", help="all mutants of a line; shows what pytest prints")
    add("--mutant", metavar="NAME", help="the one with this name, which a report has shown")
    add("--tests", nargs="+", default=TESTS, help="the files and folders of tests")
    cache = Path(tempfile.gettempdir(), f"mutants-{hashlib.sha256(bytes(HERE)).hexdigest()[:8]}")
    add("--cache", type=Path, default=cache, help="the folder to keep in what is measured")
    options = parser.parse_args()
    if options.only:
        options.paths = [options.only.partition(":")[0]]
    return options


def main(options: argparse.Namespace, work: Path) -> bool:
    for number in (signal.SIGINT, signal.SIGHUP):  # ignored in the background, and under nohup
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # the tests inherit no handler, as they need it
    copies = [Copy(HERE.parent, work / "0")]
    project = copies[0].project
    files = [list(mutants) for mutants in find(project, options.paths)]
    every = [mutant for mutants in files for mutant in mutants]
    if options.only or options.mutant:
        equivalent = []
        drawn = [m for m in every if options.only == m.place or options.mutant == m.name]
    else:
        listed = read_equivalents(EQUIVALENT)
        equivalent = [mutant for mutant in every if mutant.text in listed]
        for text in sorted(listed - {mutant.text for mutant in equivalent}):
            print(f"{EQUIVALENT.name} lists what is no mutant of these files:\n{text}")
        files = [[m for m in mutants if m.text not in listed] for mutants in files]
        drawn = list(draw(files, options.count, options.seed))
    if not drawn:
        sys.exit("there is no such mutant")
    print(f"{len(drawn)} of {len(every)} mutants", flush=True)

    sources = hashlib.sha256(repr((sys.version, options.tests)).encode())
    for path in sorted([*project.rglob("*.py"), *project.rglob("*.toml")]):
        sources.update(path.read_bytes())
    mark = options.cache / "sources"
    if not mark.exists() or mark.read_text() != sources.hexdigest():
        copies[0].measure(options.tests, options.cache)
        mark.write_text(sources.hexdigest())
    seconds = give_tests(drawn, options.cache, options.seconds)
    copies += [Copy(project, work / str(number)) for number in range(1, options.jobs)]
    for mutant in examine_all(drawn, copies, seconds, options.patience):
        by = f"by {mutant.killer}" if mutant.verdict != "survived" else ""
        print(mutant.verdict, mutant.place, f"({mutant.name})", by, flush=True)
        if options.only or options.mutant:
            print(f"{mutant.text}\n{mutant.output}")
    return report(drawn, equivalent, options.least)


# The plugin of pytest -----------------------------------------------------------------------------


class Plugin:
    """Runs the tests that are asked for, in that order, and ends the run if one takes too long."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.limits = json.loads((folder / "limits.json").read_text())
        self.seconds: dict[str, float] = defaultdict(float)
        self.hung = (folder / "hung").open("w")
        self.limit(60)  # for the imports

    def limit(self, seconds: float) -> None:
        if self.limits:
            faulthandler.dump_traceback_later(seconds, exit=True, file=self.hung)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.limits:
            order = {test: number for number, test in enumerate(self.limits)}
            items[:] = [item for item in items if item.nodeid in order]
            items.sort(key=lambda item: order[item.nodeid])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        (self.folder / "test").write_text(item.nodeid)
        if self.limits:
            self.limit(self.limits[item.nodeid])
        if settings := os.environ.get("COVERAGE_PROCESS_CONFIG"):
            # The lines of Python programs that the test starts are lines of this test.
            config = CoverageConfig.deserialize(settings)
            config.context = f"{item.nodeid}|program"
            os.environ["COVERAGE_PROCESS_CONFIG"] = config.serialize()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        (self.folder / "seconds.json").write_text(json.dumps(self.seconds))
        self.limit(60)  # for what it left running


def pytest_configure(config: pytest.Config) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    config.pluginmanager.register(Plugin(Path(os.environ["MUTANTS_FOLDER"])))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="mutants-") as work:
        began = time.monotonic()
        passed = main(read_options(), Path(work))
        print(f"{time.monotonic() - began:.0f} s")
    sys.exit(not passed)
