"""The plugin for pytest, in a pytest of its own: what comes of the little suites in `suites/`."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.driving import FULL
from tests.helpers.programs import ROOT
from tests.trace.test_page import data_of

SUITES = Path(__file__).parent / "suites"
NAMES = sorted(
    path.stem for path in SUITES.glob("*.py") if path.stem not in ("__init__", "conftest")
)
INI = """
[pytest]
python_files = *.py
norecursedirs = *
addopts = -p no:cacheprovider --doctest-modules
corolib_teardown_timeout = 2
corolib_linger = 0.5
"""


class Session:
    """A session of pytest in a folder, which was made of `files` and perhaps of the suites."""

    def __init__(self, folder, files=(), ini=INI, suites=False, beside=()):
        """`beside` are the modules of other plugins, which are loaded, and no others."""
        self.folder, self.beside = folder, beside
        if suites:
            shutil.copytree(SUITES, folder, dirs_exist_ok=True)
            (folder / "__init__.py").unlink()
        else:
            shutil.copy(SUITES / "conftest.py", folder)
        for name, text in dict(files).items():
            (folder / name).write_text(textwrap.dedent(text))
        (folder / "pytest.ini").write_text(textwrap.dedent(ini))

    def start(self, *options, stdin=False):
        loaded = [f"-p{module}" for module in self.beside]
        command = [sys.executable, "-m", "pytest", *loaded, *options]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "RECORD_TO": str(self.record)}
        env.pop("PYTEST_ADDOPTS", None)
        env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        pipes["stdin"] = subprocess.PIPE if stdin else subprocess.DEVNULL
        return subprocess.Popen(command, cwd=self.folder, env=env, text=True, **pipes)

    @property
    def record(self):
        return self.folder / "record.json"

    def run(self, *options):
        """Return the exit status and what was printed."""
        with self.start(*options) as process:
            out, _ = process.communicate(timeout=200)
        return process.returncode, out

    def reports(self, *options):
        """Return the reports of each test."""
        status, out = self.run(*options)
        assert status in (0, 1), out
        found = {}
        for report in json.loads(self.record.read_text()):
            found.setdefault(report["test"], []).append(report)
        return found


def with_plugin(module):
    """Mark a test that needs a plugin, and is made in full runs only."""
    missing = find_spec(module.partition(".")[0]) is None
    return pytest.mark.skipif(missing or not FULL, reason=f"COROLIB_SWEEP=full, with {module}")


def complaints(reports):
    """Return in which ways a test did not do what its docstring says."""
    left = [line.strip() for line in reports[0]["expects"].strip().splitlines()]
    found = []
    for report in reports:
        when, outcome, text = report["when"], report["outcome"], report["text"]
        if outcome in ("skipped", "xfailed"):
            said = outcome
        elif outcome == "failed":
            said = f"{when} fails: "
        else:
            continue
        line = next((each for each in left if each.startswith(said)), None)
        if line is None:
            found.append(f"{said}{text}")
            continue
        left.remove(line)
        words = line[len(said) :]
        if not re.search(words, text):
            found.append(f"{said}not with {words!r}, but with:\n{text}")
    shown = "\n".join(text for report in reports for text in report["sections"].values())
    for line in left:
        if not (line.startswith("shows: ") and re.search(line.removeprefix("shows: "), shown)):
            found.append(f"not so: {line}\n{shown}")
    return found


def check(found, names=NAMES):
    for name in names:
        tests = [each for each in found if each.startswith(f"{name}.py::")]
        assert tests or name == "with_hypothesis", f"{name} has no tests"
    wrong = {test: said for test, reports in found.items() if (said := complaints(reports))}
    assert not wrong, "\n".join(f"--- {test}:\n{'; '.join(said)}" for test, said in wrong.items())


def test_what_comes_of_the_suites(tmp_path):
    check(Session(tmp_path, suites=True).reports())


# Sessions of their own ----------------------------------------------------------------------------


def test_strict_mode_leaves_pytests_own_errors_and_says_what_to_do(tmp_path):
    files = {"one.py": "def test_it():\n    yield\n", "two.py": "async def test_it():\n    pass\n"}
    status, out = Session(tmp_path, files).run("--continue-on-collection-errors")
    hint = "if it is to run on corolib: `@pytest.mark.corolib`, or `corolib_mode = auto`"
    assert status == 1
    assert "async def functions are not natively supported" in out
    refused = "'yield' keyword is allowed in fixtures, but not in tests" in out
    assert refused == (pytest.version_tuple >= (9,))
    assert out.count(hint) == 1 + refused


AUTO = {
    "auto.py": """
        import unittest
        import pytest
        from corolib import Sleep, current_task

        def test_generator():
            yield Sleep(0)
            assert current_task().name == "test_generator"

        async def test_async():
            await Sleep(0)

        @pytest.mark.trio
        async def test_of_another():
            "call fails: async def functions are not natively supported"

        def says_that_it_is_theirs(f):
            f._pytest_twisted_mark = "async_test"
            return f

        @says_that_it_is_theirs
        async def test_of_one_more():
            "call fails: async def functions are not natively supported"

        class Case(unittest.TestCase):
            def test_generator(self):
                "call fails: AssertionError"
                yield Sleep(0)
                self.fail()

        def test_plain():
            pass
    """
}


def test_auto_mode_takes_all_that_wait_and_that_no_other_plugin_claims(tmp_path):
    ini = f"{INI}corolib_mode = auto\ncorolib_leaks = tasks\nmarkers = trio\n"
    found = Session(tmp_path, AUTO, ini).reports()
    assert len(found) == 6
    check(found, ["auto"])


def test_in_auto_mode_an_async_method_of_unittests_is_left_to_its_class(tmp_path):
    files = {
        "methods.py": """
            import unittest
            from corolib import now

            class Awaits(unittest.TestCase):
                def _callTestMethod(self, method):
                    try:
                        method().send(None)
                    except StopIteration:
                        pass

                async def test_it(self):
                    with self.assertRaisesRegex(RuntimeError, "no scheduler"):
                        now()
        """
    }
    found = Session(tmp_path, files, f"{INI}corolib_mode = auto\n").reports()
    check(found, ["methods"])


@pytest.mark.parametrize(
    ("option", "mark", "complaint"),
    [
        ("corolib_mode=lax", "", "corolib_mode = lax: it is one of strict and auto"),
        ("corolib_trace=some", "", "corolib_trace = some: it is one of failed, all, off"),
        ("corolib_linger=soon", "", "corolib_linger = soon: give seconds"),
        ("corolib_timeout=-1", "", "corolib_timeout = -1: give seconds"),
        ("", "clok='virtual'", "mark.corolib has no keyword 'clok': did you mean 'clock'?"),
        ("", "timeout=0", "timeout=0: give seconds above 0"),
        ("", "60", "mark.corolib takes keywords alone"),
        ("corolib_clock=lunar", "", "clock='lunar': give 'real', 'virtual', or a function"),
    ],
)
def test_what_cannot_be_meant_ends_the_session_at_once(
    option, mark, complaint, tmp_path, monkeypatch, capsys
):
    text = f"import pytest\n@pytest.mark.corolib({mark})\ndef test_it():\n    yield\n"
    Session(tmp_path, {f"{tmp_path.name}.py": text})  # a name that no other module here has
    status = in_this_process(tmp_path, monkeypatch, *(["-o", option] if option else []))
    assert status == 4
    assert complaint in "".join(capsys.readouterr())


CLAIMED = {
    "claimed.py": """
        import pytest

        @pytest.mark.corolib
        async def test_it():
            pass
    """,
    "conftest.py": """
        import pytest
        import pytest_corolib

        def pytest_addoption(pluginmanager):
            pluginmanager.register(pytest_corolib, "corolib")

        def pytest_configure(config):
            if "worker" in config.rootpath.name:
                config.workerinput = {}  # as xdist does it

        class Claimed(pytest.Function):
            __module__ = "pytest_asyncio.plugin"

        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(items):
            for each in items:
                if "trio" in each.config.rootpath.name:
                    each.add_marker("trio")
                else:
                    each.__class__ = Claimed
    """,
}


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_what_another_plugin_has_claimed_ends_the_session_at_once(
    library, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / library
    folder.mkdir()
    Session(folder, CLAIMED, f"{INI}markers = trio\n")
    assert in_this_process(folder, monkeypatch) == 4
    said = "".join(capsys.readouterr())
    assert f"{library}_mode or a marker claims this async test for {library}: set" in said


def test_in_a_worker_of_xdists_the_test_fails_instead(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "worker"
    folder.mkdir()
    Session(folder, CLAIMED, f"{INI}markers = trio\n")
    assert in_this_process(folder, monkeypatch) == 1
    said = "".join(capsys.readouterr())
    assert "asyncio_mode or a marker claims this async test for asyncio: set" in said


def in_this_process(folder, monkeypatch, *options):
    """Run a session that ends before any test is run; return the exit status."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return pytest.main(["--import-mode=importlib", *options, "."])


def test_switched_off(tmp_path):
    files = {
        "off.py": """
            from corolib import Sleep
            from corolib.testing import fixture, give, test

            @fixture
            def waits():
                yield give(1)

            @test
            def test_it():
                yield Sleep(0)

            def test_with_a_fixture(waits):
                "setup fails: the fixture waits may wait, and the plugin of corolib is off"
        """
    }
    check(Session(tmp_path, files).reports("-p", "no:corolib"), ["off"])


@pytest.mark.parametrize(
    ("wish", "told"), [(None, True), ("0", False), *[("", False), ("1", True)] * FULL]
)
def test_a_call_that_was_never_run_is_told_of(wish, told, tmp_path, monkeypatch):
    files = {
        "forgotten.py": """
            import corolib
            import pytest

            @corolib.waits
            def work():
                yield

            @pytest.mark.corolib
            def test_it():
                yield
                work()
        """,
        "conftest.py": "",
    }
    monkeypatch.delenv("COROLIB_DEBUG")
    if wish is not None:
        monkeypatch.setenv("COROLIB_DEBUG", wish)
    session = Session(tmp_path, files)
    text = "RuntimeWarning: work() was called at forgotten.py:12 but never run"
    if told or FULL:  # who is not even told when warnings are errors is not told at all
        found, out = session.run("-p", "pytest_corolib")
        assert (found, text in out) == (0, told), out
    found, out = session.run("-p", "pytest_corolib", "-W", "error")
    assert (found, text in out) == (int(told), told), out


def test_who_has_no_such_tests_pays_nothing_until_one_asks_for_the_runner(tmp_path):
    """No module of corolib is imported, and pytest's own fixtures are left alone. Who asks while a
    test is set up, or runs, has a runner that ends with the test.
    """
    files = {
        "plain.py": """
            import sys
            import unittest
            import pytest

            @pytest.fixture
            def own():
                yield 5

            def test_it(own):
                assert own == 5
                assert not [name for name in sys.modules if name.startswith("corolib")]

            class TestCase(unittest.TestCase):
                def test_it(self):
                    pass
        """,
        "plain_then_not.py": """
            import pytest

            before = []

            @pytest.fixture
            def late(request):
                return request.getfixturevalue("corolib_runner")

            def test_in_setup(late):
                assert late.run(lambda: (yield)) is None
                before.append(late)

            def test_in_the_body(request):
                runner = request.getfixturevalue("corolib_runner")
                assert before[0].scheduler.is_closed
                assert runner.run(lambda: (yield)) is None
                assert not runner.scheduler.is_closed
        """,
        "conftest.py": """
            def pytest_addoption(pluginmanager):
                if not pluginmanager.has_plugin("corolib"):
                    import pytest_corolib
                    pluginmanager.register(pytest_corolib, "corolib")
        """,
    }
    status, out = Session(tmp_path, files).run()
    assert (status, "4 passed" in out) == (0, True), out


def test_help_and_markers_show_what_there_is_in_few_lines(tmp_path, monkeypatch, capsys):
    Session(tmp_path)
    in_this_process(tmp_path, monkeypatch, "--help")
    lines = [line for line in capsys.readouterr().out.splitlines() if "corolib_" in line]
    assert 5 <= len(lines) <= 10
    in_this_process(tmp_path, monkeypatch, "--markers")
    assert "@pytest.mark.corolib(clock=, timeout=, wall=, leaks=): " in capsys.readouterr().out


TRACED = {
    "traced.py": """
        import pytest
        from corolib import Sleep, spawn
        from corolib.testing import fixture, give

        pytestmark = pytest.mark.corolib(clock="virtual")

        @fixture
        def begins_badly():
            yield Sleep(1)
            raise ValueError

        @fixture
        def ends_badly():
            yield give(1)
            yield Sleep(1)
            raise ValueError

        @fixture(scope="module")
        def wide():
            yield give(1)

        @pytest.mark.parametrize("n", [1, 2])
        def test_it(n):
            for _ in range(30):
                yield Sleep(n)
            assert n == 2

        def test_setup(begins_badly):
            yield

        def test_teardown(ends_badly):
            yield

        @pytest.mark.corolib(clock="real")
        def test_on_the_shared_runner(wide):
            yield
            assert False

        def test_leaves_a_task(corolib_runner):
            corolib_runner.scheduler.spawn(Sleep(9).__iter__(), name="left")

        @pytest.mark.xfail
        def test_is_known_to_fail():
            yield
            assert False

        def test_never_yields():
            assert False
    """,
    "small.py": """
        import pytest_corolib

        pytest_corolib.PAGES, pytest_corolib.LAST = 3, 40
    """,
}


def pages_of(folder):
    """Return the header and the events of each page in a folder, by the name of its file."""
    found = {}
    for path in (folder / ".corolib").glob("*.html"):
        data = data_of(path.read_text("utf-8"))
        found[path.name] = data["header"], data["rows"]
    return found


@pytest.mark.parametrize(
    "options",
    [[], pytest.param(["-n", "2"], marks=with_plugin("xdist.plugin"))],
    ids=["alone", "xdist"],
)
def test_a_page_is_kept_of_a_test_that_fails(options, tmp_path):
    session = Session(tmp_path, TRACED, beside=["xdist.plugin"] if options else [])
    reports = session.reports(*options, "traced.py")
    told = {
        (test.partition("::")[2], each["when"]): each["sections"]["corolib trace"]
        for test, found in reports.items()
        for each in found
        if "corolib trace" in each["sections"]
    }
    assert told.keys() == {
        ("test_it[1]", "call"),
        ("test_setup", "setup"),
        ("test_teardown", "teardown"),
        ("test_on_the_shared_runner", "call"),
        ("test_leaves_a_task", "teardown"),
    }
    pages = pages_of(tmp_path)
    assert sorted(told.values()) == sorted(f".corolib/{name}" for name in pages)
    header, rows = pages[told["test_it[1]", "call"].removeprefix(".corolib/")]
    assert header["argv"] == ["test_it[1]"]
    assert header["dropped"] == 0
    assert len(rows) > 150
    assert [name for name, *_ in header["tasks"].values()] == ["test_it"]
    assert (tmp_path / ".corolib" / ".gitignore").read_text() == "*\n"


def test_pages_are_few_and_of_what_came_last(tmp_path):
    session = Session(tmp_path, TRACED)
    junit = tmp_path / "junit.xml"
    status, out = session.run("-p", "small", "--corolib-trace=all", f"--junitxml={junit}")
    assert status == 1, out
    pages = pages_of(tmp_path)
    rows = {header["argv"][0]: (len(rows), header["dropped"]) for header, rows in pages.values()}
    assert rows.keys() == {"test_it[1]", "test_it[2]", "test_setup"}
    for name in ("test_it[1]", "test_it[2]"):
        kept, dropped = rows[name]
        assert (kept, dropped > 0) == (40, True)
    assert re.search(r"^3 pages of what the scheduler did: .corolib; \d not kept$", out, re.M), out
    assert "not kept: 3 pages were written before" in out
    assert 'name="corolib_trace" value=".corolib/traced.py-test_it-1-' in junit.read_text()


def test_a_page_that_cannot_be_written_is_no_failure(tmp_path):
    reports = Session(tmp_path, TRACED).reports(
        "--corolib-trace-dir=conftest.py/pages", "traced.py", "-k", "test_it or setup"
    )
    sections = [each["sections"] for found in reports.values() for each in found]
    told = [each["corolib trace"] for each in sections if "corolib trace" in each]
    assert len(told) == 2
    assert all(each.startswith("not kept: [Errno") for each in told)


UNRULY = {
    "unruly.py": """
        import os
        import pytest

        class Told(Exception):
            exceptions = ["no exception", 5]

        @pytest.mark.corolib
        def test_raises():
            yield
            raise Told

        @pytest.mark.corolib
        def test_goes_away(tmp_path):
            (tmp_path / "gone").mkdir()
            os.chdir(tmp_path / "gone")
            os.rmdir(tmp_path / "gone")
            yield
            assert False

        @pytest.mark.corolib
        def test_breaks_what_pages_need(monkeypatch):
            import zlib

            monkeypatch.setattr(zlib, "compress", None)
            yield
            assert False
    """
}


def test_whatever_a_test_does_its_failure_is_reported(tmp_path):
    reports = Session(tmp_path, UNRULY).reports("unruly.py")
    told = {
        test.partition("::")[2]: each["sections"]["corolib trace"]
        for test, found in reports.items()
        for each in found
        if each["when"] == "call"
    }
    assert told.keys() == {"test_raises", "test_goes_away", "test_breaks_what_pages_need"}
    assert told.pop("test_breaks_what_pages_need").startswith("not kept: ")
    assert all((tmp_path / path).exists() for path in told.values())


def test_no_page_is_made_where_none_is_wanted(tmp_path):
    _, out = Session(tmp_path, TRACED).run("--corolib-trace=off", "traced.py")
    assert "corolib trace" not in out
    assert "pages of what" not in out
    assert not (tmp_path / ".corolib").exists()


ENDLESS = {
    "endless.py": """
        import threading
        import pytest

        @pytest.mark.corolib(wall=0.1)
        def test_it():
            print("what it has printed")
            threading.Event().wait(100)
            yield
    """
}


def test_a_step_that_never_ends_fails_the_session_with_all_stacks(tmp_path):
    status, out = Session(tmp_path, ENDLESS).run()
    assert status == 1
    assert "what it has printed" in out
    assert "corolib: test_it took more than 0.1 s, the limit `wall`, and does not end" in out
    assert re.search(r'endless.py", line 8 in test_it', out)


INTERRUPTED = {
    "interrupted.py": """
        import pytest
        from corolib import Sleep, spawn
        from corolib.testing import fixture, give

        pytestmark = pytest.mark.corolib

        def forever(where):
            print("\\nwaits", flush=True)
            try:
                yield Sleep(1e6)
            finally:
                print(f"\\n{where} left", flush=True)

        @fixture(scope="session")
        def wide():
            yield give(1)
            yield Sleep(0)
            print("\\nwide torn down", flush=True)

        @fixture
        def narrow():
            yield give(1)
            yield Sleep(0)
            print("\\nnarrow torn down", flush=True)

        @fixture
        def waits_in_setup():
            yield from forever("setup")
            yield give(1)

        @fixture
        def waits_in_teardown():
            yield give(1)
            yield from forever("teardown")

        def test_body(wide, narrow):
            yield from forever("body")

        def test_child(narrow):
            yield from spawn(forever, "child")

        def test_setup(narrow, waits_in_setup):
            yield

        def test_teardown(narrow, waits_in_teardown):
            yield

        def test_later():
            print("\\nlater", flush=True)
    """
}


@pytest.mark.parametrize("where", ["body", "setup"] + ["child", "teardown"] * FULL)
def test_ctrl_c_ends_the_session_and_teardowns_run(where, tmp_path, default_sigint):
    session = Session(tmp_path, INTERRUPTED)
    with session.start("-s", "-k", f"test_{where} or later") as process:
        out = ""
        while "waits" not in out:
            line = process.stdout.readline()
            assert line, out
            out += line
        process.send_signal(signal.SIGINT)
        out += process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert f"{where} left" in out
    assert "narrow torn down" in out
    assert ("wide torn down" in out) == (where == "body")
    assert "later" not in out
    assert "abandoned" not in out


def test_the_entry_point_is_named():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert '[project.entry-points.pytest11]\ncorolib = "pytest_corolib"' in text
    assert 'py-modules = ["pytest_corolib"]' in text


# Beside others ------------------------------------------------------------------------------------


full = with_plugin("pytest")

LOOP_SCOPE = "asyncio_default_fixture_loop_scope=function"


@pytest.mark.parametrize(
    ("plugin", "options"),
    [
        pytest.param(plugin, options, marks=with_plugin(plugin), id=plugin)
        for plugin, options in {
            "hypothesis.extra.pytestplugin": [],
            "anyio.pytest_plugin": [],
            "flaky.flaky_pytest_plugin": [],
            "pytest_asyncio.plugin": ["-o", LOOP_SCOPE],
            "pytest_cov.plugin": ["--cov", "--cov-report="],
            "pytest_repeat": [],
            "pytest_rerunfailures": [],
            "pytest_timeout": ["--timeout=60"],
            "pytest_trio.plugin": [],
            "xdist.plugin": ["-n", "2", "--dist", "loadfile"],
        }.items()
    ],
)
def test_what_comes_of_the_suites_beside_others(plugin, options, tmp_path):
    check(Session(tmp_path, suites=True, beside=[plugin]).reports(*options))


@full
def test_what_comes_of_the_suites_when_nothing_is_captured(tmp_path):
    check(Session(tmp_path, suites=True).reports("-s"))


PASSES_AND_FAILS = {
    "two.py": """
        import pytest
        from corolib import Sleep

        pytestmark = pytest.mark.corolib(clock="virtual")

        def test_passes():
            yield Sleep(1)
            for n in range(2):
                yield

        def test_fails():
            yield Sleep(1)
            one = 1
            assert one == 2
    """
}


@with_plugin("pytest_cov.plugin")
def test_each_line_of_a_test_that_waits_is_counted(tmp_path):
    text = PASSES_AND_FAILS["two.py"]
    session = Session(tmp_path, {"two.py": text}, beside=["pytest_cov.plugin"])
    _, out = session.run("--cov=two", "--cov-branch", "--cov-report=term")
    assert re.search(r"two.py +\d+ +0 +\d+ +0 +100%", out), out


@full
def test_the_options_of_pytest_are_what_they_are(tmp_path):
    session = Session(tmp_path, PASSES_AND_FAILS, INI.replace("-p no:cacheprovider", ""))
    status, out = session.run("--junitxml=junit.xml")
    assert (status, "1 failed, 1 passed" in out) == (1, True)
    junit = (tmp_path / "junit.xml").read_text()
    assert "corolib tasks" not in junit and 'failures="1"' in junit
    assert " 1 failed in " in session.run("--lf")[1]
    assert "1 passed, 1 deselected" in session.run("-k", "passes")[1]
    with session.start("--pdb", "-s", stdin=True) as process:
        out = process.communicate("p one + 41\nq\n", timeout=60)[0]
    assert "\n(Pdb) 42\n" in out, out


ASYNCIO = {
    "both.py": """
        import asyncio
        import pytest
        import pytest_asyncio
        from corolib import Sleep, now
        from corolib.testing import fixture, give

        @pytest_asyncio.fixture
        async def theirs():
            await asyncio.sleep(0)
            yield 1

        @pytest.fixture
        async def ours():
            await Sleep(1)
            yield 2

        @pytest.mark.asyncio
        async def test_theirs(theirs):
            await asyncio.sleep(0)
            assert theirs == 1

        @pytest.mark.corolib(clock="virtual")
        async def test_ours(ours):
            await Sleep(1)
            assert (ours, now()) == (2, 2)

        @pytest.mark.corolib
        def test_with_theirs(theirs):
            yield
            assert theirs == 1
    """
}


@with_plugin("pytest_asyncio.plugin")
def test_beside_pytest_asyncio(tmp_path):
    session = Session(tmp_path, ASYNCIO, beside=["pytest_asyncio.plugin"])
    found = session.reports("-o", LOOP_SCOPE, "-o", "asyncio_mode=strict")
    assert len(found) == 3
    check(found, ["both"])
    status, out = session.run("-o", LOOP_SCOPE, "-o", "asyncio_mode=auto")
    assert status == 4
    assert "asyncio_mode or a marker claims this async test for asyncio: set" in out


ANYIO = {
    "both.py": """
        import asyncio
        import anyio
        import pytest
        from corolib import Sleep

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        async def theirs(anyio_backend):
            await anyio.sleep(0)
            yield 1

        @pytest.mark.anyio
        async def test_theirs(theirs):
            await anyio.sleep(0)
            assert theirs == 1

        async def test_ours():
            await Sleep(0)

        def test_with_theirs(theirs):
            yield Sleep(0)
            assert theirs == 1
    """
}


@with_plugin("anyio.pytest_plugin")
def test_beside_anyio(tmp_path):
    ini = f"{INI}corolib_mode = auto\n"
    found = Session(tmp_path, ANYIO, ini, beside=["anyio.pytest_plugin"]).reports()
    assert len(found) == 3
    check(found, ["both"])


TIMEOUT = {
    "late.py": """
        import pytest
        from corolib import Sleep

        pytestmark = pytest.mark.corolib

        @pytest.mark.timeout(0.2, method="signal")
        def test_waits_too_long():
            "call fails: Timeout .*0.2"
            yield Sleep(60)

        @pytest.mark.timeout(0.2, method="signal")
        def test_works_too_long():
            "call fails: Timeout .*0.2"
            yield
            while True:
                pass

        def test_next():
            yield
    """
}


@with_plugin("pytest_timeout")
def test_beside_pytest_timeout(tmp_path):
    found = Session(tmp_path, TIMEOUT, beside=["pytest_timeout"]).reports()
    assert len(found) == 3
    check(found, ["late"])


TRIO = {
    "both.py": """
        import pytest
        import pytest_trio
        import trio
        from corolib import Sleep
        from corolib.testing import fixture, give

        @fixture
        def ours():
            yield give(1)

        @pytest.fixture
        async def theirs():
            await trio.sleep(0)
            return 2

        @pytest.mark.trio
        async def test_theirs(ours, theirs):
            await trio.sleep(0)
            assert (ours, theirs) == (1, 2)

        @pytest.mark.corolib
        async def test_ours(ours):
            await Sleep(0)
    """
}


@with_plugin("pytest_trio.plugin")
def test_beside_pytest_trio(tmp_path):
    session = Session(tmp_path, TRIO, beside=["pytest_trio.plugin"])
    found = session.reports()
    assert len(found) == 2
    check(found, ["both"])
    status, out = session.run("-o", "trio_mode=true")
    assert status == 4
    assert "trio_mode or a marker claims this async test for trio: set" in out


TWISTED = {
    "both.py": """
        import pytest
        import pytest_twisted
        from corolib import Sleep
        from corolib.testing import fixture, give
        from twisted.internet import reactor, task

        def soon():
            return task.deferLater(reactor, 0.001, lambda: 1)

        @fixture
        def ours():
            yield give(2)

        @pytest_twisted.async_fixture
        async def theirs():
            return await soon()

        @pytest_twisted.ensureDeferred
        async def test_theirs(ours, theirs):
            assert await soon() == 1
            assert (ours, theirs) == (2, 1)

        def test_ours(ours, theirs):
            yield Sleep(0)
            assert (ours, theirs) == (2, 1)
    """
}


@with_plugin("pytest_twisted")
def test_beside_pytest_twisted(tmp_path):
    # The reactor opens its pipes in the first test.
    ini = f"{INI}corolib_mode = auto\ncorolib_leaks = tasks\n"
    found = Session(tmp_path, TWISTED, ini, beside=["pytest_twisted"]).reports()
    assert len(found) == 2
    check(found, ["both"])


PLAIN = {
    "plain.py": """
        import pytest
        from corolib import Sleep

        def wait():
            yield Sleep(1)

        @pytest.mark.corolib
        def test_it():
            wait()
    """,
    "conftest.py": "",
}


@pytest.mark.parametrize("options", [(), ("-Werror",), ("-o", "corolib_mode=auto")])
def test_a_marked_test_that_does_not_wait_is_told_what_it_forgets(options, tmp_path, monkeypatch):
    monkeypatch.delenv("COROLIB_DEBUG", raising=False)
    files = PLAIN
    if "corolib_mode=auto" in options:
        unmarked = PLAIN["plain.py"].replace("@pytest.mark.corolib", "")
        files = {**PLAIN, "plain.py": unmarked.replace("import pytest", "")}
    status, out = Session(tmp_path, files).run("-p", "pytest_corolib", *options)
    assert status == ("-Werror" in options), out
    assert "RuntimeWarning: wait() at plain.py:" in out
    assert "Write `yield from wait()`" in out


RERUN = {
    "again.py": """
        import pytest
        from corolib import Sleep
        from corolib.testing import fixture, give

        pytestmark = pytest.mark.corolib
        made = []

        @fixture
        def ours():
            made.append(1)
            yield give(len(made))
            yield Sleep(0)

        @pytest.mark.flaky(reruns=2)
        def test_it(ours):
            yield Sleep(0)
            assert ours == 3
    """
}


@with_plugin("pytest_rerunfailures")
def test_beside_pytest_rerunfailures(tmp_path):
    status, out = Session(tmp_path, RERUN, beside=["pytest_rerunfailures"]).run()
    assert (status, "1 passed, 2 rerun" in out) == (0, True), out
