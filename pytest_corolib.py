"""The plugin for pytest: tests and fixtures that wait, on corolib.

    @pytest.mark.corolib(clock="virtual", timeout=60)
    def test_echo(server):
        with (yield from open_tcp(*server)) as stream: ...

A test that waits is a generator function or an `async def`. To pytest both are made to look like
plain functions, which run the test on a `corolib.testing.Runner`: what that does is said there.
This file says which tests these are, with which options, and on which runner.

Only pytest is imported here, and corolib when the first test of its kind is found: who has none
pays nothing, and the coverage of corolib is measured from its first line on.

corolib sees by this module that it is imported under pytest, and has debug mode on then.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import re
import sys
import traceback
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from corolib.testing import Runner
    from corolib.testing.leaks import Leaks
    from corolib.trace import Trace

MODES = ("strict", "auto")
OTHERS = ("asyncio", "anyio", "trio", "tornado_asyncio")  # whose marker claims an `async def`
# What other plugins have set on functions that are theirs.
CLAIMS = ("_force_asyncio_fixture", "_force_trio_fixture", "_pytest_twisted_mark")
REFUSED = "'yield' keyword is allowed in fixtures, but not in tests"
# What is raised where others run what is corolib's; and the other way round.
RUN_BY_OTHERS = (
    "async def functions are not natively supported",
    "with no plugin or hook that handled it",
    "no scheduler runs in this thread",
    "Task got bad yield: ",
    "trio.run received unrecognized yield message",
    "Tests run under @given should return None, but",
)
RUN_BY_COROLIB = (
    "no running event loop",
    "Not currently running on any asynchronous event loop",
    "must be called from async context",
)
# Classes of unittest's whose methods may wait.
RUN_THEIR_METHODS = (
    "corolib.testing.cases.TestCase",
    "unittest.async_case.IsolatedAsyncioTestCase",
)
FIXTURE_HINT = "a fixture that spawns, or waits, is a `@corolib.testing.fixture`, which yields"
HINT = (
    "if it is to run on corolib: `@pytest.mark.corolib`, or `corolib_mode = auto`, on a generator "
    "function or an `async def`"
)
THEIR_FIXTURE_HINT = "corolib ran it: a fixture of another's says so, as `@pytest_asyncio.fixture`"
THEIR_HINT = "corolib ran it: a test of another's says so, as `@pytest.mark.asyncio`"

INI = {
    "corolib_mode": ("strict: tests with the marker `corolib`; auto: all that wait", "strict"),
    "corolib_clock": ("the clock of tests: real or virtual", "real"),
    "corolib_shared_clock": ("the clock of fixtures wider than a function", "real"),
    "corolib_timeout": ("seconds, on its clock, that a test may take", ""),
    "corolib_teardown_timeout": ("real seconds that the teardown of a fixture may take", "10"),
    "corolib_linger": ("seconds in which children may end when the body is over", "5"),
    "corolib_trace": ("whose page of what the scheduler did is kept: failed, all, off", "failed"),
    "corolib_trace_dir": ("the folder of these pages", ".corolib"),
    "corolib_leaks": ("what must not be left: tasks timers files threads children", ""),
}

NUMBERS = ("corolib_timeout", "corolib_teardown_timeout", "corolib_linger")

TRACED = ("failed", "all", "off")
LAST = 20_000  # events that a page goes back at most
PAGES = 50  # that a session writes at most
TRACE = "corolib trace"  # the section of a report that says where its page is

MARKER = (
    "corolib(clock=, timeout=, wall=, leaks=): run a test that yields, or an `async def`, on "
    "corolib. clock: 'real', 'virtual' or a function; timeout: seconds on it; wall: real seconds; "
    "leaks: what must not be left."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, (text, default) in INI.items():
        parser.addini(name, text, default=default)
    group = parser.getgroup("corolib")
    what = "see the ini option of that name"
    group.addoption("--corolib-trace", choices=TRACED, help=what)
    group.addoption("--corolib-trace-dir", metavar="DIR", help=what)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    mode = config.getini("corolib_mode")
    if mode not in MODES:
        raise pytest.UsageError(f"corolib_mode = {mode}: it is one of {' and '.join(MODES)}")
    if wish(config, "corolib_trace") not in TRACED:
        raise pytest.UsageError(
            f"corolib_trace = {wish(config, 'corolib_trace')}: it is one of {', '.join(TRACED)}"
        )
    for name in NUMBERS:
        number(config, name)
    config.stash[STATE] = State(config)


# Which tests ------------------------------------------------------------------------------------


def waits(f: Any) -> bool:
    """Return whether a test waits: a generator function or an `async def`."""
    return inspect.isgeneratorfunction(f) or inspect.iscoroutinefunction(f)


def inner_test(f: Any) -> Any:
    """Return the test itself, for one that hypothesis has wrapped."""
    return getattr(getattr(f, "hypothesis", None), "inner_test", f)


def is_wanted(config: pytest.Config, f: Any, marks: set[str]) -> bool:
    """Return whether a test that waits is ours."""
    if "corolib" in marks:
        return True
    claimed = not marks.isdisjoint(OTHERS) or is_claimed(f)
    if inspect.iscoroutinefunction(f) and claimed:
        return False
    mode: str = config.getini("corolib_mode")
    return mode == "auto"


def is_claimed(f: Any) -> bool:
    """Return whether another plugin has said of a function that it is its own."""
    return any(hasattr(f, name) for name in CLAIMS)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> Any:
    """Show pytest a plain function in the place of a generator function, which it would refuse."""
    f = getattr(obj, "__func__", obj)  # a static method, a class method
    if not inspect.isgeneratorfunction(f):
        return None
    marks = {mark.name for mark in getattr(f, "pytestmark", ())}
    marks.update(mark.name for mark in collector.iter_markers())
    if not is_wanted(collector.config, f, marks):
        return None

    @functools.wraps(f)
    def plain() -> None:
        """Stands for the test while pytest collects, and is never called."""

    return collector.ihook.pytest_pycollect_makeitem(collector=collector, name=name, obj=plain)


def pytest_collection_finish(session: pytest.Session) -> None:
    state = session.config.stash[STATE]
    for item in session.items:
        if isinstance(item, pytest.Function) and waits(inner_test(item.obj)):
            state.needed = True
            plan_for(item)
    if "corolib" in sys.modules or state.needed:
        need_hooks(session.config)


def plan_for(item: pytest.Function) -> None:
    """Find out whether a test that waits is ours. By now the other plugins have marked theirs."""
    f = inner_test(item.obj)
    marks = {mark.name for mark in item.iter_markers()}
    if not is_wanted(item.config, f, marks) or is_of_unittest(item, marks):
        return
    try:
        if inspect.iscoroutinefunction(f):
            refuse_claims(item, marks)
        item.stash[PLAN] = Plan(item)
    except pytest.UsageError as exc:
        if not hasattr(item.config, "workerinput"):
            raise
        item.stash[MISUSE] = str(exc)  # no such error gets out of a worker of xdist's


def refuse_claims(item: pytest.Function, marks: set[str]) -> None:
    """Refuse an `async def` of ours that another plugin has taken, and would run."""
    for library, mode, has_claimed in (
        ("asyncio", "strict", type(item).__module__.startswith("pytest_asyncio")),
        ("trio", "false", "trio" in marks),
    ):
        if has_claimed:
            raise pytest.UsageError(
                f"{item.nodeid}: {library}_mode or a marker claims this async test for {library}: "
                f"set {library}_mode = {mode} and take that marker off, or write a generator"
            )


def is_of_unittest(item: pytest.Function, marks: set[str]) -> bool:
    """Return whether a test is a method of unittest's that its class runs in a way of its own."""
    names = {f"{each.__module__}.{each.__name__}" for each in getattr(item.cls, "__mro__", ())}
    if "unittest.case.TestCase" not in names:
        return False
    # Such as Twisted's run an `async def`, too.
    unknown = inspect.iscoroutinefunction(item.obj) and "corolib" not in marks
    return unknown or not names.isdisjoint(RUN_THEIR_METHODS)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.failed and REFUSED in str(report.longrepr):
        report.sections.append(("corolib", HINT))
    return report


# How they are run -------------------------------------------------------------------------------


class Plan:
    """How one test is run: its options, its runner, and what must not be left."""

    def __init__(self, item: pytest.Item, runs_test: bool = True) -> None:
        from corolib.testing.runner import DEFAULT_LEAKS, check_options, leaks_of

        config = item.config
        options: dict[str, Any] = {"clock": config.getini("corolib_clock")}
        seconds = number(config, "corolib_timeout")
        options["timeout"] = None if math.isinf(seconds) else seconds
        options["leaks"] = config.getini("corolib_leaks") or DEFAULT_LEAKS
        options["wall"] = None
        for mark in reversed(list(item.iter_markers("corolib"))):
            if mark.args:
                raise pytest.UsageError(f"{item.nodeid}: mark.corolib takes keywords alone")
            options.update(mark.kwargs)
        try:
            check_options(f"{item.nodeid}: mark.corolib", options)
        except (TypeError, ValueError) as exc:
            raise pytest.UsageError(str(exc)) from None
        self.item = item
        # Whether the test is ours; if not, it has a fixture that is.
        self.runs_test = runs_test
        self.clock: Any = options["clock"]
        self.timeout: float | None = options["timeout"]
        self.wall: float | None = options["wall"]
        self.kinds = leaks_of(options["leaks"])
        self.shared = False
        self.failed = False
        self.sections: dict[str, str] = {}  # of the report, if it fails
        self.runner: Runner | None = None
        self.leaks: Leaks | None = None
        self.trace: Trace | None = None  # of the last run

    def begin(self, state: State) -> None:
        """Find or make the runner."""
        info = getattr(self.item, "_fixtureinfo", None)
        used = [each[-1] for each in getattr(info, "name2fixturedefs", {}).values()]
        wide = [each for each in used if self.may_wait(each) and each.scope != "function"]
        clock = state.config.getini("corolib_shared_clock")
        self.shared = bool(wide)
        self.failed = False
        self.sections.clear()
        if self.shared:
            if self.clock != clock:
                names = ", ".join(each.argname for each in wide)
                pytest.fail(
                    f"clock={self.clock!r}: but {names} is wider than a function, and lives on the "
                    f"runner of corolib_shared_clock = {clock}",
                    pytrace=False,
                )
            self.runner = state.shared_runner()
        else:
            self.runner = state.make_runner(self.clock)
        self.trace = self.runner.trace
        self.look()

    def may_wait(self, definition: pytest.FixtureDef[Any]) -> bool:
        """Return whether a fixture is corolib's; or an `async def` of a test of ours that no other
        plugin claims.
        """
        f = definition.func
        if getattr(f, "corolib_waits", False) is True:
            return True
        is_async = inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f)
        claimed = is_claimed(f) or "anyio_backend" in definition.argnames
        return self.runs_test and is_async and not claimed

    def look(self) -> None:
        """What there is now is no leak: before the first fixture, and after each wide one."""
        from corolib.testing.leaks import Leaks

        assert self.runner is not None
        self.leaks = Leaks(self.kinds, self.runner.scheduler)

    def plain(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Return a plain function that runs the test `f`."""
        runner = self.runner
        assert runner is not None

        @functools.wraps(f)
        def run(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = is_hidden
            return self.run(runner, functools.partial(f, *args, **kwargs))

        return run

    def example(self, state: State, f: Callable[..., Any]) -> Callable[..., Any]:
        """Return a plain function that runs one example of hypothesis's.

        Each has a run of its own, unless fixtures live on the runner.
        """
        if self.runner is None or self.runner.parts:
            return self.plain(f)

        @functools.wraps(f)
        def run(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = is_hidden
            self.failed = True  # unless it ends well, without leaks
            with state.make_runner(self.clock, leaks=self.kinds) as runner:
                self.trace = runner.trace
                value = self.run(runner, functools.partial(f, *args, **kwargs))
            self.failed = False
            return value

        return run

    def run(self, runner: Runner, call: functools.partial[Any]) -> Any:
        from corolib.testing.runner import Part

        __tracebackhide__ = True
        name = getattr(call.func, "__name__", self.item.name)
        part = Part(runner, call, (), timeout=self.timeout, wall=self.wall, name=name)
        try:
            value = part.finish()
            if self.shared and self.leaks is not None:
                runner.settle(self.leaks)
            return value
        except pytest.skip.Exception:
            raise
        except BaseException as exc:
            self.failed = True
            hide_the_library()
            if part.report:
                self.sections["corolib tasks"] = part.report
            if isinstance(exc, TimeoutError) and self.clock == "virtual":
                text = "the clock is virtual: data that is still on its way does not hold it back"
                self.sections["corolib clock"] = text
            raise

    def finish(self) -> list[str]:
        """The test and its teardown are over. Return what they have left, in words."""
        runner, leaks = self.runner, self.leaks
        self.runner = self.leaks = None
        if runner is None or leaks is None:
            return []
        if not self.shared:
            return runner.close(leaks)
        leaks.look_at_scheduler(timers=False)  # the fixtures that live on have theirs
        return leaks.look_around()


class State:
    """What a session remembers: the test that is run, and the runner that fixtures share."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.item: pytest.Item | None = None
        self.shared: Runner | None = None
        # Whether a test waits.
        self.needed = False
        self.pages = 0  # that were written

    @property
    def plan(self) -> Plan | None:
        return None if self.item is None else self.item.stash.get(PLAN, None)

    def make_runner(self, clock: Any, leaks: Any = ()) -> Runner:
        from corolib.testing import Runner

        trace = None
        if wish(self.config, "corolib_trace") != "off":
            from corolib.trace import Trace

            trace = Trace(last=LAST)
        linger = number(self.config, "corolib_linger")
        runner = Runner(clock=clock, leaks=leaks, linger=linger, trace=trace)
        runner.on_hang = functools.partial(end_the_session, self.config)
        return runner

    def shared_runner(self) -> Runner:
        if self.shared is None:
            self.shared = self.make_runner(self.config.getini("corolib_shared_clock"))
        return self.shared

    def runner_for(self, scope: str) -> Runner:
        """Return the runner on which a fixture of that scope lives.

        A test that does not wait may ask for it as well: what lives there stands still meanwhile.
        """
        if scope != "function":
            return self.shared_runner()
        assert self.item is not None
        plan = self.plan
        if plan is None:
            plan = self.item.stash[PLAN] = Plan(self.item, runs_test=False)
            plan.begin(self)
        assert plan.runner is not None
        return plan.runner


PLAN = pytest.StashKey[Plan]()
MISUSE = pytest.StashKey[str]()
STATE = pytest.StashKey[State]()


def wish(config: pytest.Config, name: str) -> str:
    """Return what the command line says, or else the ini file."""
    return str(config.getoption(name) or config.getini(name))


def number(config: pytest.Config, name: str) -> float:
    """Return a number of seconds of the ini file; nothing there means any time."""
    text = config.getini(name)
    try:
        seconds = float(text or "inf")
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise pytest.UsageError(f"{name} = {text}: give seconds")
    return seconds


def hide_the_library() -> None:
    """Have pytest leave corolib's frames out of tracebacks, but for `--full-trace`."""
    for name, module in list(sys.modules.items()):
        if name.startswith("corolib."):
            vars(module)["__tracebackhide__"] = True


def end_the_session(config: pytest.Config, text: str) -> None:
    """A step never ends: show what was captured, and end the process with all stacks."""
    from corolib.testing.runner import end_the_process

    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
        for part in capture.read_global_capture():
            sys.stderr.write(part)
    end_the_process(text)


@pytest.hookimpl(tryfirst=True)
def begin_protocol(item: pytest.Item) -> None:
    item.config.stash[STATE].item = item


@pytest.hookimpl(tryfirst=True)
def begin_test(item: pytest.Item) -> None:
    if MISUSE in item.stash:
        pytest.fail(item.stash[MISUSE], pytrace=False)
    plan = item.stash.get(PLAN, None)
    if plan is not None:
        plan.begin(item.config.stash[STATE])
    elif isinstance(item, pytest.Function):
        marks = {mark.name for mark in item.iter_markers()}
        if is_wanted(item.config, item.obj, marks):  # perhaps one that should wait, and does not
            from corolib.kernel import check_sources

            check_sources([item.obj])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def set_up_fixture(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    state = request.config.stash[STATE]
    before = fixturedef.func
    ours = getattr(before, "corolib_waits", False) is True
    if not (ours or (state.plan is not None and state.plan.may_wait(fixturedef))):
        result = yield
    else:
        from corolib.testing.fixtures import place

        outer = place.find_runner
        # Called by the setup itself: what fails here would confuse pytest.
        place.find_runner = functools.partial(state.runner_for, fixturedef.scope)
        place.teardown_timeout = number(request.config, "corolib_teardown_timeout")
        try:
            if not ours:
                vars(fixturedef)["func"] = as_setup(before)
            result = yield
        finally:
            place.find_runner = outer
            vars(fixturedef)["func"] = before
    if fixturedef.scope != "function" and state.plan is not None:
        state.plan.look()
    return result


def as_setup(f: Any) -> Any:
    """Return what sets up a fixture that is an `async def`, bound as that is."""
    from corolib.testing.fixtures import setup_of

    setup = setup_of(getattr(f, "__func__", f))
    return setup.__get__(f.__self__) if inspect.ismethod(f) else setup


def is_hidden(excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
    """Hide a frame of the plugin; but pytest 8 cannot show a group without any frame."""
    return pytest.version_tuple >= (9,) or not isinstance(excinfo.value, BaseExceptionGroup)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def call_test(item: pytest.Item) -> Generator[None, Any, Any]:
    __tracebackhide__ = is_hidden
    plan = item.stash.get(PLAN, None)
    if plan is None or not plan.runs_test or not isinstance(item, pytest.Function):
        return (yield)
    before = item.obj
    handle = getattr(before, "hypothesis", None)
    if handle is None:
        item.obj = plan.plain(before)
        try:
            return (yield)
        finally:
            item.obj = before
    inner = handle.inner_test
    handle.inner_test = plan.example(item.config.stash[STATE], inner)
    try:
        return (yield)
    finally:
        handle.inner_test = inner


@pytest.hookimpl(wrapper=True)
def make_report(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.excinfo is not None:
        plan = item.stash.get(PLAN, None)
        if plan is not None and call.when == "call":
            report.sections.extend(plan.sections.items())
        ours = plan is not None and plan.runs_test
        hint = hint_on("\n".join(messages_of(call.excinfo.value)), call.when, ours)
        if hint:
            report.sections.append(("corolib", hint))
    keep_trace(item, report)
    return report


def messages_of(error: BaseException) -> Iterator[str]:
    """Yield the text of an exception, and of all that it is a group of."""
    yield from traceback.format_exception_only(error)
    for each in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        yield from messages_of(each)


def hint_on(text: str, when: str, ours: bool) -> str | None:
    """Return what to do if a test, or a fixture of it, was run by the wrong library."""
    if any(each in text for each in RUN_BY_OTHERS):
        if when == "setup":
            return FIXTURE_HINT
        return None if ours else HINT
    if ours and any(each in text for each in RUN_BY_COROLIB):
        return THEIR_FIXTURE_HINT if when == "setup" else THEIR_HINT
    return None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def tear_down_test(item: pytest.Item) -> Generator[None, Any, Any]:
    plan = item.stash.get(PLAN, None)
    if plan is None:
        return (yield)
    try:
        result = yield
    except BaseException:
        say_what_is_left(plan)
        raise
    found = say_what_is_left(plan)
    if found and not plan.failed:
        pytest.fail(found, pytrace=False)
    return result


def say_what_is_left(plan: Plan) -> str:
    """Close the runner of a test; return the message on what is left. It is a section as well."""
    from corolib.testing.runner import left_behind

    found = plan.finish()
    if not found:
        return ""
    text = left_behind(found)
    plan.item.add_report_section("teardown", "corolib leaks", text)
    return text


def keep_trace(item: pytest.Item, report: pytest.TestReport) -> None:
    """Keep a page of what the scheduler did, if the test has failed; the report says where."""
    plan, over = item.stash.get(PLAN, None), report.when == "teardown"
    if plan is None or plan.trace is None:
        return
    trace, config = plan.trace, item.config
    wanted = report.failed or (over and wish(config, "corolib_trace") == "all")
    if wanted and trace.kept:
        page = ("corolib_trace", keep_page(config.stash[STATE], item, trace))
        report.sections.append((TRACE, page[1]))
        report.user_properties.append(page)
        item.user_properties.append(page)  # for the reports that follow
    if wanted or over:
        plan.trace = None


def keep_page(state: State, item: pytest.Item, trace: Trace) -> str:
    """Write the page of a test; return its path, or why there is none."""
    from corolib.trace import write

    if state.pages == PAGES:
        return f"not kept: {PAGES} pages were written before"
    config = state.config
    folder = config.rootpath / wish(config, "corolib_trace_dir")
    here = config.invocation_params.dir  # a test may go to another folder
    mark = hashlib.sha256(item.nodeid.encode()).hexdigest()[:8]  # what is cut may be alike
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', item.nodeid)[:100]}-{mark}.html"
    header, events = trace.recorded()
    header["argv"] = [item.name.replace("/", "-")]
    try:
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / ".gitignore").write_text("*\n")
        write(str(path), header, events)
    except Exception as exc:  # what a test has replaced by its own is not back yet
        return f"not kept: {exc}"
    state.pages += 1
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many pages there are, and how many would not fit in."""
    found = [
        text
        for reports in terminalreporter.stats.values()
        for report in reports
        for title, text in getattr(report, "sections", ())
        if title == TRACE
    ]
    missing = sum(text.startswith("not kept") for text in found)
    if found:
        folder = wish(terminalreporter.config, "corolib_trace_dir")
        kept = len(found) - missing
        words = f"{kept} page{'s' * (kept != 1)} of what the scheduler did: {folder}"
        terminalreporter.write_line(f"{words}; {missing} not kept" if missing else words)


class EachTest:
    """What is called for each test. A suite that has nothing to do with corolib is spared it."""

    pytest_runtest_protocol = staticmethod(begin_protocol)
    pytest_runtest_setup = staticmethod(begin_test)
    pytest_fixture_setup = staticmethod(set_up_fixture)
    pytest_runtest_call = staticmethod(call_test)
    pytest_runtest_teardown = staticmethod(tear_down_test)
    pytest_runtest_makereport = staticmethod(make_report)


HOOKS = EachTest()


def need_hooks(config: pytest.Config) -> None:
    if not config.pluginmanager.is_registered(HOOKS):
        config.pluginmanager.register(HOOKS)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    state = session.config.stash[STATE]
    try:
        return (yield)  # what was interrupted is torn down here
    finally:
        plan, state.item = state.plan, None
        if plan is not None:
            plan.finish()
        if state.shared is not None:
            state.shared.close()


# Ready-made fixtures ----------------------------------------------------------------------------


@pytest.fixture
def corolib_runner(request: pytest.FixtureRequest) -> Any:
    """The `corolib.testing.Runner` of this test: its scheduler, and the failures nobody took."""
    state = request.config.stash[STATE]
    # Nothing before may have needed the hooks: who asks for this may do so while a test runs.
    need_hooks(request.config)
    state.item = request.node
    return state.runner_for("function")


@pytest.fixture
def free_tcp_port() -> int:
    """A TCP port of 127.0.0.1 that nobody used just now. Better listen on port 0, and ask."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
async def network_pair() -> Any:
    """Two connected streams."""
    import socket

    from corolib import Stream

    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with Stream(a) as one, Stream(b) as other:
        yield one, other
