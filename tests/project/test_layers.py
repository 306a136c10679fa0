"""The layers: who may import whom, read from the sources with `ast`.

The layers are drawn in the docstring of `corolib/__init__.py`, and these are the laws:

1. A package imports from the layers below it, never from one above.
2. From the kernel the upper layers import through its interface: `from corolib.kernel import X`.
3. Inside the kernel, the words import only each other.
4. The parts import words and other parts, without circles, and never the scheduler.
5. The scheduler imports the parts; nothing in the kernel imports it but its interface.
6. For types all that may be imported under `if TYPE_CHECKING:`, within a layer and downwards.
7. `import corolib` imports the kernel at once, and everything else on first use.
8. Nothing imports the layer of tools but, for a run that is to be watched, `kernel.observing`.
9. What only advises stands beside the kernel, imports a few of its words, and is imported within
   functions alone, where an error is made.

Imports under `if TYPE_CHECKING:` are for readers and do not count but for law 6; those inside
functions do.
"""

import abc
import ast
import inspect
import itertools
import json
import pydoc
import re
import subprocess
import sys
import types
import typing
from pathlib import Path
from textwrap import dedent
from typing import Protocol

import pytest

import corolib
from corolib.kernel import frames
from tests.helpers.inside import late_names
from tests.helpers.programs import pythons

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "corolib"

LAYERS = [{"kernel", "advice"}, {"coordination"}, {"net"}, {"system"}]
LAYERS += [{"testing", "demo", "trace", "interop"}]
WORD_NAMES = ["errors", "traps", "waits", "context", "checks", "late", "safely", "source"]
WORDS = {f"kernel.{name}" for name in WORD_NAMES}
TOP = {"__init__", "__main__"}
ADVICE = {"kernel.frames", "kernel.safely", "kernel.source"}  # what may be imported by who advises

HEAVY = {
    "asyncio",
    "concurrent.futures",
    "dataclasses",
    "inspect",
    "logging",
    "ssl",
    "subprocess",
    "traceback",
}


# What takes long to import beside the kernel itself: other modules may need it.
LONG = {"queue", "threading"}


def name_of(path):
    """Return the name of a module inside the package: `kernel.traps`, or `kernel` for a package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
PACKAGES = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
PARTS = {n for n in SOURCES if n.startswith("kernel.")} - WORDS - {"kernel.scheduler"}
ADVISERS = {name for name in SOURCES if name.split(".")[0] == "advice"}
LATE = {  # imported when one of their names is first asked for
    name for name in SOURCES if name.split(".")[0] in {"coordination", "net", "system"}
}


def layer(name):
    """Return the number of the layer that a module is in: 0 for the kernel."""
    package = name.split(".")[0]
    return next(number for number, packages in enumerate(LAYERS) if package in packages)


def is_for_types(node):
    """Return whether a node is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


@pytest.fixture(scope="module")
def trees():
    """The syntax tree of each module."""
    return {name: ast.parse(source) for name, source in SOURCES.items()}


def imports(tree, modules=frozenset(SOURCES), types_too=False):
    """Return the modules of corolib that a module imports at run time.

    `__init__` stands for the package itself, and `kernel` for its interface.
    """
    found = set()
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are written out"
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from corolib.net import tls` is about the module, `from corolib import run` is not
            names = [m if m.removeprefix("corolib.") in modules else node.module for m in members]
            if node.module == "corolib.kernel":  # `waits` is the function: modules are written out
                names = [node.module]
        else:
            names = []
            if is_for_types(node) and not types_too:
                todo += node.orelse
            else:
                todo += ast.iter_child_nodes(node)
        for name in names:
            if name == "corolib":
                found.add("__init__")
            elif name.startswith("corolib."):
                found.add(name.removeprefix("corolib."))
    return found


def imports_at_once(tree):
    """Return the modules of corolib that are imported as soon as a module is."""
    body = [each for each in tree.body if not isinstance(each, ast.FunctionDef | ast.ClassDef)]
    return imports(ast.Module(body, []))


def allowed(name):
    """Return the modules that a module may import at run time."""
    if name == "__init__":
        return {"kernel"} | LATE
    if name == "__main__":
        return set(SOURCES)
    if name.startswith("demo."):
        return {"__init__", *(each for each in SOURCES if each.startswith("demo."))}
    if name in ADVISERS:
        return ADVISERS | ADVICE
    if name in WORDS:
        return WORDS
    if name == "kernel.observing":
        return WORDS | PARTS | {"trace.observing"}
    if name in PARTS or name == "kernel.scheduler":
        return WORDS | PARTS
    if name == "kernel":
        return {each for each in SOURCES if each.startswith("kernel.")}
    below = {each for each in SOURCES if each not in TOP and layer(each) <= layer(name)}
    return {each for each in below if not each.startswith("kernel.")}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_module_imports_only_what_the_laws_allow(trees, name):
    found = imports(trees[name])
    if name not in ADVISERS:  # law 9
        assert not ADVISERS & imports_at_once(trees[name])
        found -= ADVISERS
    assert found <= allowed(name)


@pytest.mark.parametrize("name", sorted(set(SOURCES) - TOP))
def test_no_types_are_taken_from_a_layer_above(trees, name):
    known = imports(trees[name], types_too=True) - {"__init__"}
    if name == "kernel.observing":
        known -= {"trace.observing"}  # law 8
    assert {each for each in known if layer(each) > layer(name)} == set()


def test_the_kernel_knows_which_frames_are_the_librarys():
    """Those of `demo/` are programs, as a user's."""
    assert {f"corolib.{package}" for package in PACKAGES - {"demo"}} == frames.PACKAGES


def drawn():
    """Return the modules that the drawing shows, by package."""
    text = corolib.__doc__
    found = {}
    package = None
    for line in text[text.index("The layers") : text.index("What is public")].splitlines():
        start = re.match(r"    (\w+)/ ", line)
        if start:
            package = start[1]
            found[package] = set()
        elif package and line.startswith("        "):
            words = re.sub(r"\(.*?\)|[-+>|=]", " ", line)
            found[package] |= set(re.findall(r"[a-z_]+", words))
    return found


def test_the_drawing_shows_the_packages_and_modules_that_there_are():
    there = {package: set() for package in PACKAGES}
    for name in SOURCES:
        package, _, module = name.partition(".")
        if module:
            there[package].add(module)
    assert set(drawn()) == PACKAGES
    for package, modules in there.items():
        missing = modules - drawn()[package]
        assert missing == set(), f"{package}/ has modules that the drawing does not show"
        words = {"files", "wakes", "times", "other", "threads", "words", "import", "next", "to"}
        extra = drawn()[package] - modules - words - {"nothing", "opens", "sockets", "looks"}
        assert extra == set(), f"the drawing shows modules that {package}/ does not have"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import corolib.kernel.traps", {"kernel.traps"}),
        ("from corolib.kernel.traps import Sleep, waits", {"kernel.traps"}),
        ("from corolib.net import tls, streams", {"net.tls", "net.streams"}),
        ("from corolib.kernel import waits, run", {"kernel"}),
        ("from corolib import run", {"__init__"}),
        ("import os, corolib", {"__init__"}),
        ("import corolibrary", set()),
        ("def f():\n    from corolib.kernel.task import Task", {"kernel.task"}),
        ("if TYPE_CHECKING:\n    from corolib.kernel.task import Task", set()),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import corolib.net.tls", {"net.tls"}),
        ("try:\n    import corolib.net.tls\nexcept ImportError:\n    pass", {"net.tls"}),
    ],
)
def test_the_reader_of_imports_sees_every_kind(source, found):
    assert imports(ast.parse(source)) == found


def circles(graph):
    """Return the modules that can reach themselves."""
    found = set()
    for start in graph:
        seen, todo = set(), list(graph[start])
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += graph.get(name, ())
        if start in seen:
            found.add(start)
    return found


def test_no_module_imports_itself_in_a_circle(trees):
    graph = {name: imports(tree) for name, tree in trees.items()}
    graph["kernel.observing"] -= {"trace.observing"}  # law 8
    assert circles(graph) == set()


def test_a_circle_would_be_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {"b", "c"}


def test_no_module_shadows_a_standard_one():
    names = {part for name in SOURCES for part in name.split(".")} - TOP
    assert names & sys.stdlib_module_names <= {"trace"}  # which nobody imports by that name alone


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_module_opens_with_what_it_is(trees, name):
    text = ast.get_docstring(trees[name])
    assert text
    assert text.split("\n")[0].endswith((".", ":")), "the first line is a sentence of its own"


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_function_is_longer_than_a_screen(trees, name):
    for node in ast.walk(trees[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno <= 70 or name == "testing.sweeps", (
                f"{node.name} is too long"
            )


def test_importing_corolib_is_cheap():
    # -I and -S: nothing of the user's or of the site's may import anything beforehand.
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules); "
        "import corolib; after = set(sys.modules); from corolib import *; import json; "
        "print(json.dumps([sorted(each) for each in (before, after, sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    before, after, everything = json.loads(done.stdout)
    assert "corolib.kernel.scheduler" in after
    assert not {f"corolib.{name}" for name in LATE} & set(after), "they come when asked for"
    assert not LONG & set(after)
    assert not (HEAVY | LONG) & set(before), "the interpreter itself has them: this shows nothing"
    assert {f"corolib.{name}" for name in LATE} <= set(everything)
    assert not HEAVY & set(everything)
    assert not [name for name in everything if name.startswith(("corolib.trace", "corolib.advice"))]


MESSAGES = """
import socket, sys
from corolib import ReadWait, Sleep, move_on_after, run, spawn

seen = set()


def watch(frame, event, arg):
    name = frame.f_globals.get("__name__", "")
    if event == "call" and name.startswith("corolib."):
        seen.add(name)


def sleeper():
    yield Sleep(1000)


def stop():
    task = spawn(sleeper)
    yield
    sys.setprofile(watch)
    yield from task.stop()
    sys.setprofile(None)


def expire():
    sys.setprofile(watch)
    with move_on_after(1e-9):
        yield Sleep(1000)
    sys.setprofile(None)


def echo():
    a, b = socket.socketpair()

    def serve():
        readable = ReadWait(a)
        while True:
            yield readable
            a.send(a.recv(100))

    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        spawn(serve, daemon=True)
        for round in range(3):
            b.send(b"x")
            yield ReadWait(b)
            b.recv(100)
            sys.setprofile(watch if round == 1 else None)


run({what})
print(len(seen), *sorted(seen))
"""


def test_one_message_and_one_cancel_can_be_followed_through_few_modules():
    most = {"echo": 4, "stop": 6, "expire": 8}
    programs = [MESSAGES.replace("{what}", what) for what in most]
    for modules, found in zip(most.values(), pythons(programs, COROLIB_DEBUG="0"), strict=True):
        assert (found[0], found[2]) == (0, ""), found
        assert 0 < int(found[1].split()[0]) <= modules, found


# The public names ---------------------------------------------------------------------------------


def test_all_is_sorted_and_lists_what_the_package_binds(trees):
    names = corolib.__all__
    assert names == sorted(names)
    assert len(names) == len(set(names))
    bound = set()
    late = {}
    for node in trees["__init__"].body:
        for each in node.body if is_for_types(node) else [node]:
            if isinstance(each, ast.ImportFrom):
                bound |= {alias.asname or alias.name for alias in each.names}
                if each is not node:
                    module = each.module.removeprefix("corolib.")
                    late[module] = " ".join(sorted(alias.name for alias in each.names))
    assert bound == set(names)
    assert late == late_names(), "what is imported late, and what readers of types see"
    for name in names:
        assert not isinstance(getattr(corolib, name), types.ModuleType)


def test_the_kernel_exports_what_it_imports_and_the_layers_above_use_all_of_it(trees):
    from corolib import kernel

    assert kernel.__all__ == sorted(kernel.__all__)
    used = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "corolib.kernel":
                used |= {alias.name for alias in node.names}
    assert used == set(kernel.__all__)


def public_things():
    """Yield what `corolib` exports and can say where it is from."""
    for name in corolib.__all__:
        thing = getattr(corolib, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            yield name, thing


def test_public_things_say_corolib_as_their_module_and_have_their_own_names():
    for name, thing in public_things():
        assert (thing.__module__, thing.__name__) == ("corolib", name)


@pytest.mark.found("E5")
@pytest.mark.parametrize("name", [name for name, _ in public_things()])
def test_the_types_of_public_functions_and_classes_can_be_asked_for(name):
    thing = getattr(corolib, name)
    functions = [thing]
    if inspect.isclass(thing):
        members = [inspect.getattr_static(thing, each) for each in dir(thing)]
        members += [each.fget for each in members if isinstance(each, property)]
        functions = [each for each in members if inspect.isfunction(each)]
        assert set(typing.get_type_hints(thing)) >= set(thing.__annotations__)
    for function in functions:
        if inspect.unwrap(function).__globals__["__name__"].startswith("corolib."):
            hints = typing.get_type_hints(function)
            assert "return" in hints or function.__name__ == "__dir__" or not hints


@pytest.mark.found("E8")
@pytest.mark.parametrize(
    "name",
    [
        *("CancelScope", "TaskGroup", "move_on_after", "shield", "timeout"),
        *("DatagramServer", "Listener", "Scheduler", "Server", "Stream", "Task"),
    ],
)
def test_dir_and_help_of_a_class_show_what_is_documented(name):
    kind = getattr(corolib, name)
    shown = [name for name in dir(kind) if not name.startswith("_")]
    if kind is not corolib.Stream:  # whose working fields all begin with an underscore
        documented = (vars(each).get("__documented__", "").split() for each in kind.__mro__)
        assert shown == sorted(itertools.chain(*documented))
    docs = "".join(each.__doc__ or "" for each in kind.__mro__)
    for name in shown:
        member = inspect.getattr_static(kind, name)
        assert getattr(member, "__doc__", None) or re.search(rf"\b{name}\b", docs), name
    text = pydoc.plain(pydoc.render_doc(kind))
    members = re.findall(r"^ \|  (\w+)(?:\(| = |$)", text, re.MULTILINE)
    assert {name for name in members if not name.startswith("__")} <= {*shown, kind.__name__}


def test_dir_of_a_subclass_shows_what_is_its_own_as_well():
    class Mixed:
        def mixed_in(self): ...

    class Own(corolib.Scheduler, Mixed):
        def own(self): ...

        def poll(self, timeout, deadline): ...

    scheduler = Own()
    scheduler.kept = 1
    own = {"mixed_in", "own", "poll"}
    assert set(dir(Own)) - set(dir(corolib.Scheduler)) == {*own, "__dict__"}
    assert set(dir(scheduler)) - set(dir(Own)) == {"kept"}
    text = pydoc.plain(pydoc.render_doc(Own))
    assert all(name in text for name in own)


def test_a_stream_may_be_derived_from_together_with_any_other_class():
    class Readable(Protocol):
        def recv(self, most): ...

    class Abstract(corolib.Stream, abc.ABC): ...

    class Explicit(corolib.Stream, Readable): ...

    assert issubclass(Abstract, corolib.Stream)
    assert issubclass(Explicit, corolib.Stream)


@pytest.mark.found("E8")
def test_dir_of_the_package_shows_what_is_public():
    assert [name for name in dir(corolib) if not name.startswith("__")] == corolib.__all__


PUBLIC = {
    "a module that was imported before": """
        import corolib.net.streams
        assert corolib.Stream is corolib.net.streams.Stream
    """,
    "all names at once": """
        from corolib import *
        assert all(globals()[name] is getattr(corolib, name) for name in corolib.__all__)
    """,
    "what is listed": """
        assert set(corolib.__all__) <= set(dir(corolib))
        assert "corolib.coordination.locks" not in sys.modules, "to list is not to import"
        import pydoc
        text = pydoc.plain(pydoc.render_doc(corolib))
        assert all(name in text for name in corolib.__all__)
    """,
    "names that are not there": """
        assert not hasattr(corolib, "nonsense")
        assert not hasattr(corolib, "testing")
        try:
            corolib.spwan
        except AttributeError as exc:
            assert str(exc) == "module 'corolib' has no attribute 'spwan'"
            assert (exc.name, exc.obj) == ("spwan", corolib)  # so Python asks: did you mean?
    """,
    "names that are found once": """
        assert "Queue" not in vars(corolib)
        assert corolib.Queue is vars(corolib)["Queue"]
        assert corolib.Queue is sys.modules["corolib.coordination.queues"].Queue
    """,
    "pickles": """
        import pickle
        for kind in (corolib.Queue, corolib.serve_tcp, corolib.TaskCancelled, corolib.timeout):
            assert pickle.loads(pickle.dumps(kind)) is kind
    """,
    "names that a test has put another thing under": """
        from unittest import mock
        with mock.patch("corolib.to_thread", print):
            assert corolib.to_thread is print
        assert corolib.to_thread is sys.modules["corolib.coordination.threads"].to_thread
        with mock.patch.object(corolib, "timeout", print):
            assert corolib.timeout is print
        assert corolib.timeout is sys.modules["corolib.coordination.timeouts"].timeout
    """,
    "threads that ask at once": """
        import threading
        sys.setswitchinterval(1e-6)
        barrier, got = threading.Barrier(8), []
        def ask(names):
            barrier.wait()
            got.append([getattr(corolib, name) for name in names])
        names = corolib.__all__
        orders = [names[n:] + names[:n] for n in range(0, len(names), 1 + len(names) // 8)]
        threads = [threading.Thread(target=ask, args=(order,)) for order in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 8
        assert all(set(each) == set(got[0]) for each in got)
    """,
}


@pytest.fixture(scope="module")
def public():
    """What comes of each of these programs."""
    return dict(
        zip(
            PUBLIC,
            pythons(f"import sys\nimport corolib\n{dedent(t)}" for t in PUBLIC.values()),
            strict=True,
        )
    )


@pytest.mark.parametrize("what", PUBLIC)
def test_the_public_names_are_whole_though_modules_come_when_asked_for(public, what):
    assert public[what] == (0, "", "")


# If it can wait, it has `yield` in front. --------------------------------------------------------

WAIT = [
    corolib.first,
    corolib.first_success,
    corolib.map_concurrent,
    corolib.TaskGroup.start,
    corolib.TaskGroup.__iter__,
    corolib.Barrier.wait,
    corolib.Condition.acquire,
    corolib.Condition.wait,
    corolib.Condition.wait_for,
    corolib.Event.wait,
    corolib.Lock.acquire,
    corolib.Lock.__iter__,
    corolib.Queue.get,
    corolib.Queue.join,
    corolib.Queue.put,
    corolib.Result.wait,
    corolib.Result.__iter__,
    corolib.Semaphore.acquire,
    corolib.Topic.publish,
    corolib.to_process,
    corolib.to_thread,
    corolib.wait_future,
    corolib.Task.stop,
    corolib.Task.__iter__,
    corolib.open_process,
    corolib.open_tcp,
    corolib.open_udp,
    corolib.open_unix,
    corolib.DatagramSocket.recv,
    corolib.DatagramSocket.recvfrom,
    corolib.DatagramSocket.send,
    corolib.DatagramSocket.sendto,
    corolib.run_process,
    corolib.Process.wait,
    corolib.Listener.accept,
    corolib.serve_tcp,
    corolib.serve_udp,
    corolib.serve_unix,
    corolib.Server.__iter__,
    corolib.Server.stop,
    corolib.Stream.aclose,
    corolib.Stream.more,
    corolib.Stream.readexactly,
    corolib.Stream.readline,
    corolib.Stream.readuntil,
    corolib.Stream.recv,
    corolib.Stream.recv_into,
    corolib.Stream.send_eof,
    corolib.Stream.sendall,
    corolib.Stream.sendfile,
    corolib.Stream.start_tls,
]
DO_NOT_WAIT = [
    corolib.as_completed,  # its steps do
    corolib.every,  # its ticks do
    corolib.Barrier.abort,
    corolib.Barrier.reset,
    corolib.CancelScope.cancel,
    corolib.current_effective_deadline,
    corolib.started,
    corolib.TaskGroup.spawn,
    corolib.Barrier.waiting,
    corolib.Condition.notify,
    corolib.Condition.notify_all,
    corolib.Condition.release,
    corolib.Event.clear,
    corolib.Event.set,
    corolib.Event.waiting,
    corolib.Lock.acquiring,
    corolib.Lock.release,
    corolib.Queue.get_nowait,
    corolib.Queue.getting,
    corolib.Queue.put_nowait,
    corolib.Queue.putting,
    corolib.Queue.shutdown,
    corolib.Queue.task_done,
    corolib.Result.fail,
    corolib.Result.set,
    corolib.Result.waiting,
    corolib.Semaphore.release,
    corolib.Topic.publishing,
    corolib.Topic.shutdown,
    corolib.Topic.subscribe,
    corolib.open_stdin,
    corolib.open_unix_datagrams,
    corolib.DatagramServer.stats,
    corolib.DatagramSocket.close,
    corolib.DatagramSocket.serve,
    corolib.Process.exiting,
    corolib.Process.kill,
    corolib.Process.send_signal,
    corolib.Process.terminate,
    corolib.Listener.close,
    corolib.Listener.serve,
    corolib.inherited_datagrams,
    corolib.inherited_listeners,
    corolib.listen_tcp,
    corolib.listen_unix,
    corolib.notify_systemd,
    corolib.run_workers,
    corolib.Server.stats,
    corolib.Stream.close,
    corolib.Stream.reset,
    corolib.close,
    corolib.current_threads,
    corolib.current_scheduler,
    corolib.current_task,
    corolib.from_thread,
    corolib.now,
    corolib.open_signal_receiver,
    corolib.run,
    corolib.spawn,
    corolib.waits,
    corolib.Scheduler.call_soon_threadsafe,
    corolib.Scheduler.close,
    corolib.Scheduler.deadlock,
    corolib.Scheduler.embed,
    corolib.Scheduler.fileno,
    corolib.Scheduler.next_deadline,
    corolib.Scheduler.open,
    corolib.Scheduler.hold,
    corolib.Scheduler.report,
    corolib.Scheduler.run,
    corolib.Scheduler.spawn,
    corolib.Scheduler.stats,
    corolib.Scheduler.turn,
    corolib.Task.cancel,
    corolib.Task.stack,
]


def is_generator_function(function):
    """Return whether a call of it makes a generator. In debug mode `@waits` wraps it once more."""
    if function.__globals__["__name__"] == "corolib.kernel.waits":
        function = inspect.unwrap(function)
    return inspect.isgeneratorfunction(function)


@pytest.mark.parametrize("function", WAIT, ids=lambda f: f.__qualname__)
def test_what_waits_is_called_with_yield_from(function):
    assert is_generator_function(function)


@pytest.mark.parametrize("function", DO_NOT_WAIT, ids=lambda f: f.__qualname__)
def test_what_does_not_wait_is_an_ordinary_call(function):
    assert not is_generator_function(function)
    assert not inspect.iscoroutinefunction(function)


BEGIN_AT_THE_CALL = [corolib.gather, corolib.race]  # and wait with `yield from`


@pytest.mark.parametrize("function", BEGIN_AT_THE_CALL, ids=lambda f: f.__qualname__)
def test_what_begins_at_the_call_is_called_with_yield_from(function):
    def nothing():
        yield

    def main():
        waiting = function(nothing())
        assert inspect.isgenerator(waiting)
        yield from waiting

    corolib.run(main)


def test_every_public_function_is_in_one_of_the_lists():
    functions = {f for f in (getattr(corolib, n) for n in corolib.__all__) if inspect.isfunction(f)}
    assert functions <= {*WAIT, *DO_NOT_WAIT, *BEGIN_AT_THE_CALL}
    for kind in (corolib.Task, corolib.Scheduler):
        for name in kind.__documented__.split():
            member = inspect.getattr_static(kind, name)
            if inspect.isfunction(member):
                assert member in [*WAIT, *DO_NOT_WAIT], f"{kind.__name__}.{name}"
