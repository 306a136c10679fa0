"""What the prose says, a machine checks: examples run, sections exist, lines fit the page."""

import doctest
import importlib
import inspect
import os
import pkgutil
import pydoc
import re
import textwrap
from pathlib import Path

import pytest

import corolib
from corolib.net.limits import DatagramLimits, Limits

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 100

# `__main__` is a command: importing it would run it.
MODULES = [
    "corolib",
    *sorted(
        found.name
        for found in pkgutil.walk_packages(corolib.__path__, "corolib.")
        if found.name != "corolib.__main__"
    ),
]

# The sections beyond the first line that each public function and class has.
SECTIONS = {
    "timeout": ["Args", "Raises", "Example", "Source"],
    "started": ["Raises", "Example", "Source"],
    "shield": ["Args", "Raises", "Example", "Source"],
    "race": ["Raises", "Example"],
    "move_on_after": ["Example", "Source"],
    "map_concurrent": ["Args", "Raises", "Example"],
    "gather": ["Args", "Raises", "Example", "Source"],
    "every": ["Args", "Raises", "Example", "Source"],
    "first_success": ["Args", "Raises", "Example", "Source"],
    "first": ["Args", "Raises", "Example", "Source"],
    "as_completed": ["Raises", "Example", "Source"],
    "TaskGroup": ["Args", "Raises", "Example", "Source"],
    "Barrier": ["Args", "Raises", "Example", "Source"],
    "BoundedSemaphore": ["Args", "Raises", "Example", "Source"],
    "Condition": ["Args", "Raises", "Example", "Source"],
    "DatagramSocket": ["Args", "Attributes", "Example", "Source"],
    "Event": ["Args", "Example", "Source"],
    "LifoQueue": ["Args", "Example", "Source"],
    "Listener": ["Args", "Example", "Source"],
    "Lock": ["Args", "Example", "Source"],
    "PriorityQueue": ["Args", "Example", "Source"],
    "Queue": ["Args", "Raises", "Example", "Source"],
    "RLock": ["Args", "Example", "Source"],
    "Result": ["Args", "Example", "Source"],
    "Semaphore": ["Args", "Raises", "Example", "Source"],
    "Topic": ["Args", "Raises", "Example", "Source"],
    "ReadWait": ["Args", "Raises", "Example", "Source"],
    "Scheduler": ["Args", "Attributes"],
    "Sleep": ["Args", "Raises", "Example"],
    "Stream": ["Args", "Attributes", "Raises", "Example", "Source"],
    "Suspend": ["Args", "Returns", "Raises", "Example"],
    "CancelScope": ["Attributes", "Example", "Source"],
    "Network": [],
    "Process": ["Attributes"],
    "DatagramServer": ["Attributes"],
    "Server": ["Attributes"],
    "SignalReceiver": [],
    "PeerCredentials": [],
    "StopReport": [],
    "Subscription": [],
    "ThreadEnd": ["Example"],
    "WorkerReport": [],
    "current_threads": [],
    "Task": ["Attributes"],
    "UrgentWait": ["Raises", "Example", "Source"],
    "WriteWait": ["Source"],  # and for the rest: see `ReadWait`
    "close": ["Raises"],
    "current_effective_deadline": ["Raises", "Example", "Source"],
    "current_scheduler": ["Raises"],
    "current_task": ["Raises"],
    "from_thread": ["Args", "Returns", "Raises", "Example", "Source"],
    "inherited_datagrams": ["Returns", "Raises", "Example", "Source"],
    "inherited_listeners": ["Returns", "Raises", "Example", "Source"],
    "listen_tcp": ["Args", "Raises", "Example", "Source"],
    "listen_unix": ["Args", "Raises", "Example", "Source"],
    "notify_systemd": ["Args", "Returns", "Raises", "Example", "Source"],
    "now": ["Raises"],
    "open_process": ["Args", "Raises", "Example", "Source"],
    "open_signal_receiver": ["Args", "Returns", "Raises", "Example", "Source"],
    "open_stdin": ["Raises", "Example", "Source"],
    "open_tcp": ["Args", "Raises", "Example", "Source"],
    "open_udp": ["Args", "Raises", "Example", "Source"],
    "open_unix": ["Args", "Raises", "Example", "Source"],
    "open_unix_datagrams": ["Args", "Raises", "Example", "Source"],
    "run": ["Args", "Returns", "Raises", "Example"],
    "run_workers": ["Args", "Returns", "Raises", "Source"],  # the example forks: in the guide
    "run_process": ["Args", "Returns", "Raises", "Example", "Source"],
    "serve_tcp": ["Args", "Returns", "Raises", "Example", "Source"],
    "serve_udp": ["Args", "Raises", "Example"],
    "serve_unix": ["Args", "Raises"],
    "spawn": ["Args", "Returns", "Raises", "Example"],
    "to_process": ["Args", "Returns", "Raises", "Example"],
    "to_thread": ["Args", "Returns", "Raises", "Example", "Source"],
    "wait_future": ["Args", "Returns", "Raises", "Example"],
    "waits": ["Example"],
}

PUBLIC = {
    name: thing
    for name, thing in ((name, getattr(corolib, name)) for name in corolib.__all__)
    if inspect.isfunction(thing) or inspect.isclass(thing)
}
EXCEPTIONS = {n for n, t in PUBLIC.items() if inspect.isclass(t) and issubclass(t, BaseException)}


def examples(name):
    """Return the doctests of a module, or of a public name: that runs where nothing is defined."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    if name in PUBLIC:
        tests = finder.find(PUBLIC[name], name, module=False, globs={"__name__": "__main__"})
    else:
        tests = finder.find(importlib.import_module(name))
    return [test for test in tests if test.examples]


@pytest.mark.found("E7")
@pytest.mark.parametrize("name", [*MODULES, *PUBLIC])
def test_the_examples_do_what_they_show(name):
    runner = doctest.DocTestRunner()
    said = []
    for test in examples(name):
        runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)


def test_there_are_examples():
    for name, sections in SECTIONS.items():
        assert ("Example" not in sections) or examples(name), name
    shown = {test.name for module in MODULES for test in examples(module)}
    assert "corolib.testing.clocks.virtual_time" in shown


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_opens_with_one_line_that_is_a_sentence(name):
    text = inspect.getdoc(PUBLIC[name])
    assert text
    first, *rest = text.split("\n")
    assert first.endswith("."), first
    assert not rest or rest[0] == ""


def test_every_public_function_and_class_is_in_the_list_of_sections():
    assert set(SECTIONS) == set(PUBLIC) - EXCEPTIONS


@pytest.mark.parametrize(("name", "sections"), SECTIONS.items())
def test_a_docstring_has_its_sections_in_order(name, sections):
    text = inspect.getdoc(PUBLIC[name])
    titles = re.findall(
        r"^(Args|Attributes|Returns|Raises|Example|Source)\b.*:", text, re.MULTILINE
    )
    order = ["Args", "Attributes", "Returns", "Raises", "Example", "Source"]
    assert set(sections) <= set(titles)
    assert sorted(titles, key=order.index) == titles


@pytest.mark.parametrize("name", [n for n, sections in SECTIONS.items() if "Args" in sections])
def test_every_parameter_is_explained(name):
    text = inspect.getdoc(PUBLIC[name])
    for parameter in inspect.signature(PUBLIC[name]).parameters.values():
        # `f` and `args` are shown by the shape of use; `unknown` collects mistakes
        if parameter.name not in ("args", "unknown"):
            assert re.search(rf"\b{parameter.name}\b", text), parameter.name


@pytest.mark.found("E8")
@pytest.mark.parametrize("function", [corolib.serve_tcp, corolib.serve_unix, corolib.serve_udp])
def test_the_help_of_a_server_shows_its_limits(function):
    kind = DatagramLimits if function is corolib.serve_udp else Limits
    text = pydoc.plain(pydoc.render_doc(function))
    assert [name for name in kind.__annotations__ if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("name", sorted(EXCEPTIONS))
def test_an_exception_says_when_it_is_raised(name):
    assert "aised" in inspect.getdoc(PUBLIC[name])


def test_help_begins_with_a_server_the_rule_and_where_to_go_on():
    begin, _, drawing = corolib.__doc__.partition("The layers")
    program = textwrap.dedent(begin[begin.index("    from corolib") : begin.index("The one rule")])
    assert len([line for line in program.splitlines() if line]) == 5
    names = {}
    exec(program.replace("run(", "served = ("), names)
    serve, handler, *address = names["served"]
    assert (serve, handler, address) == (corolib.serve_tcp, names["echo"], ["127.0.0.1", 7007])
    assert "`yield` a trap" in begin
    named = re.findall(r"`(\w+)`", begin[begin.index("Where to go on") : begin.index("The guide")])
    assert set(named) <= set(corolib.__all__)
    assert "layer 1" in drawing


def test_every_class_and_function_of_the_library_says_what_it_is():
    """But for what is plain from its place: private ones, and the members of a protocol."""
    silent = []
    for name in MODULES:
        module = importlib.import_module(name)
        for thing in vars(module).values():
            own = getattr(thing, "__module__", "") == name
            if not own or not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue
            if not thing.__name__.startswith("_") and not thing.__doc__:
                silent.append(f"{name}.{thing.__name__}")
    assert silent == []


def texts():
    """Return the files of this tree that people write and read."""
    for folder, folders, names in os.walk(ROOT):
        here = Path(folder)
        folders[:] = sorted(
            name
            for name in folders
            if (not name.startswith(".") or name == ".ci")
            and name not in ("__pycache__", "build", "dist", "htmlcov")
            and not name.endswith(".egg-info")
            and not (here / name / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            path = here / name
            if path.suffix in (".py", ".md", ".toml", ".sh", ".txt") or here.name == ".ci":
                yield path


def test_lines_fit_the_page():
    assert {ROOT / "README.md", ROOT / "corolib" / "kernel" / "scheduler.py"} <= set(texts())
    long = [
        f"{path.relative_to(ROOT)}:{number}: {len(line)}"
        for path in texts()
        for number, line in enumerate(path.read_text("utf-8").split("\n"), 1)
        if len(line) > WIDTH and not (path.suffix == ".md" and line.startswith("|"))
    ]  # the row of a table cannot go on in the next line
    assert long == []
