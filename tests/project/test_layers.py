"""The house: who may import whom, read from the sources with `ast`.

    outside   __main__  testing  tracing  simulation      look at everything below
    above     workers                                     starts schedulers
    rooms     everything that is not named here           what programs use
    kernel    hosting  scheduler                          the loop, and the meaning of every trap
    parts     task  scopes  timers  poller  reports       data structures that do not know the
              inbox  wakes  surroundings  sockets         kernel
              urgent
    words     kinds  errors  traps  running               import nothing else from corolib

Kernel and rooms never meet in an import. Imports under `if TYPE_CHECKING:` are for readers and do
not count; those inside functions do. The package itself imports the kernel at once, and
everything above that when one of its names is first asked for.
"""

import ast
import inspect
import json
import subprocess
import sys
import types
from pathlib import Path
from textwrap import dedent

import pytest

import corolib
from tests.helpers.inside import late_names

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "corolib"

WORDS = {"kinds", "errors", "traps", "running"}
PARTS = {
    *("task", "scopes", "timers", "poller", "reports"),
    *("inbox", "wakes", "surroundings", "sockets", "urgent"),
}
KERNEL = {"hosting", "scheduler"}
OUTSIDE = {"__main__", "testing", "tracing", "simulation"}
ABOVE = {"workers"}
FACE = {"__init__"}

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


# What takes long to import beside the kernel itself: rooms may need it, and most programs do.
LONG = {"queue", "re", "threading", "typing"}


def name_of(path):
    """Return the name of a module inside the package: `traps`, or `folder.module`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


SOURCES = {name_of(path): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
ROOMS = set(SOURCES) - WORDS - PARTS - KERNEL - ABOVE - OUTSIDE - FACE
LATE = ROOMS | ABOVE  # imported when one of their names is first asked for


def is_for_types(node):
    """Return whether a node is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def imports(source, modules=frozenset(SOURCES), lazy=True):
    """Return the modules of corolib that a source imports at run time.

    `__init__` stands for the package itself. With `lazy` false, only those imported at once.
    """
    found = set()
    todo = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                assert node.level == 1, "the package is flat"
                base = f"corolib.{base}".rstrip(".")
            members = [f"{base}.{alias.name}" for alias in node.names]
            # `from corolib import errors` is about the module, `from corolib import run` is not
            names = [m if m.removeprefix("corolib.") in modules else base for m in members]
        else:
            names = []
            if is_for_types(node):
                todo += node.orelse
            elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                todo += ast.iter_child_nodes(node)
        for name in names:
            if name == "corolib":
                found.add("__init__")
            elif name.startswith("corolib."):
                found.add(name.removeprefix("corolib."))
    return found


def allowed(name):
    """Return the modules that a module may import."""
    if name == "running":
        return {"kinds", "traps"}
    if name in WORDS:
        return {"kinds"} - {name}
    if name in PARTS:
        return WORDS | PARTS
    if name in KERNEL:
        return WORDS | PARTS | KERNEL
    if name in ROOMS:
        return WORDS | PARTS | ROOMS
    if name in ABOVE:
        return WORDS | PARTS | KERNEL | ROOMS | ABOVE
    if name in FACE:
        return set(SOURCES) - OUTSIDE - FACE
    return set(SOURCES)  # outside


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_module_imports_only_from_its_own_layer_and_lower_ones(name):
    assert imports(SOURCES[name]) <= allowed(name)


def test_every_module_of_the_picture_that_the_kernel_needs_is_there():
    assert set(SOURCES) >= WORDS | PARTS | KERNEL


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import corolib.traps", {"traps"}),
        ("from corolib.traps import Sleep, waits", {"traps"}),
        ("from corolib import traps, run", {"traps", "__init__"}),
        ("from .traps import Sleep", {"traps"}),
        ("from . import traps", {"traps"}),
        ("import os, corolib", {"__init__"}),
        ("import corolibrary", set()),
        ("def f():\n    from corolib.task import Task", {"task"}),
        ("if TYPE_CHECKING:\n    from corolib.task import Task", set()),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import corolib.task", {"task"}),
        ("try:\n    import corolib.task\nexcept ImportError:\n    pass", {"task"}),
    ],
)
def test_the_reader_of_imports_sees_every_kind(source, found):
    assert imports(source) == found


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


def test_no_module_imports_itself_in_a_circle():
    assert circles({name: imports(source) for name, source in SOURCES.items()}) == set()


def test_a_circle_would_be_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {"b", "c"}


def test_no_module_shadows_a_standard_one():
    assert not {name.split(".")[0] for name in SOURCES} & (
        sys.stdlib_module_names - {"__main__", "__init__"}
    )


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_module_opens_with_what_it_is(name):
    text = ast.get_docstring(ast.parse(SOURCES[name]))
    assert text
    assert text.split("\n")[0].endswith((".", ":")), "the first line is a sentence of its own"


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_function_is_longer_than_a_screen(name):
    for node in ast.walk(ast.parse(SOURCES[name])):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno <= 70 or name == "testing", (
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
    assert "corolib.scheduler" in after
    assert not {f"corolib.{room}" for room in LATE} & set(after), "they come when asked for"
    assert not LONG & set(after)
    assert not (HEAVY | LONG) & set(before), "the interpreter itself has them: this shows nothing"
    assert {f"corolib.{room}" for room in LATE} <= set(everything)
    assert not HEAVY & set(everything)


# The face -----------------------------------------------------------------------------------------


def test_all_is_sorted_and_lists_what_the_package_binds():
    names = corolib.__all__
    assert names == sorted(names)
    assert len(names) == len(set(names))
    bound = set()
    rooms = {}
    for node in ast.parse(SOURCES["__init__"]).body:
        for each in node.body if is_for_types(node) else [node]:
            if isinstance(each, ast.ImportFrom) and each.module not in ("typing", "corolib.kinds"):
                bound |= {alias.asname or alias.name for alias in each.names}
                if each is not node:
                    room = each.module.removeprefix("corolib.")
                    rooms[room] = " ".join(sorted(alias.name for alias in each.names))
            elif ast.unparse(each) == "import sys":
                pass  # to tell older Pythons that they are too old
            elif isinstance(each, ast.Import | ast.FunctionDef | ast.ClassDef):
                raise AssertionError(f"line {each.lineno}: the face only re-exports by name")
    assert bound == set(names)
    assert rooms == late_names(), "what is imported late, and what readers of types see"
    for name in names:
        assert not isinstance(getattr(corolib, name), types.ModuleType)


FACES = {
    "the modules as attributes": """
        assert corolib.threads.current_threads is sys.modules["corolib.threads"].current_threads
        assert corolib.streams.Stream is corolib.Stream
    """,
    "a module that was imported before": """
        import corolib.streams
        assert corolib.Stream is corolib.streams.Stream
    """,
    "all names at once": """
        from corolib import *
        assert all(globals()[name] is getattr(corolib, name) for name in corolib.__all__)
    """,
    "what is listed": """
        assert set(corolib.__all__) <= set(dir(corolib))
        assert "corolib.sync" not in sys.modules, "to list is not to import"
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
        assert corolib.Queue is vars(corolib)["Queue"] is sys.modules["corolib.queues"].Queue
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
        assert corolib.to_thread is corolib.threads.to_thread
        with mock.patch.object(corolib, "timeout", print):
            assert corolib.timeout is print
        assert corolib.timeout is corolib.timeouts.timeout
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


@pytest.mark.parametrize("what", FACES)
def test_the_face_is_whole_though_rooms_come_when_asked_for(what):
    program = f"import sys\nsys.path.insert(0, sys.argv[1])\nimport corolib\n{dedent(FACES[what])}"
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_public_names_are_defined_in_the_library_and_not_passed_on_from_elsewhere():
    for name in corolib.__all__:
        thing = getattr(corolib, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__module__.startswith("corolib.")
            assert thing.__name__ == name


# If it can wait, it has `yield` in front. ---------------------------------------------------------

WAIT = [
    corolib.first,
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
    corolib.processes.Process.wait,
    corolib.Listener.accept,
    corolib.serve_tcp,
    corolib.serve_unix,
    corolib.servers.Server.__iter__,
    corolib.servers.Server.stop,
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
    corolib.DatagramSocket.close,
    corolib.processes.Process.exiting,
    corolib.processes.Process.kill,
    corolib.processes.Process.send_signal,
    corolib.processes.Process.terminate,
    corolib.Listener.close,
    corolib.Listener.serve,
    corolib.inherited_listeners,
    corolib.listen_tcp,
    corolib.listen_unix,
    corolib.notify_systemd,
    corolib.run_workers,
    corolib.servers.Server.stats,
    corolib.Stream.close,
    corolib.close,
    corolib.current_scheduler,
    corolib.current_task,
    corolib.from_thread,
    corolib.now,
    corolib.open_signal_receiver,
    corolib.run,
    corolib.spawn,
    corolib.waits,
    corolib.Scheduler.call_soon_threadsafe,
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
    if function.__globals__["__name__"] == "corolib.traps":
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


INNER = {  # of tasks and schedulers: for the other modules of the library
    *("adopt", "part", "end_body", "give_up", "resume", "take_back", "woken"),
    *("watch", "arm", "held_by", "knows_its_frames", "start", "refuse_circle"),
}


def test_every_public_function_is_in_one_of_the_lists():
    functions = {f for f in (getattr(corolib, n) for n in corolib.__all__) if inspect.isfunction(f)}
    assert functions <= {*WAIT, *DO_NOT_WAIT, *BEGIN_AT_THE_CALL}
    for kind in (corolib.Task, corolib.Scheduler):
        for name, member in vars(kind).items():
            inner = name in INNER
            if inspect.isfunction(member) and not name.startswith("_") and not inner:
                assert member in [*WAIT, *DO_NOT_WAIT], f"{kind.__name__}.{name}"
