"""Tests that wait, for unittest, for pytest without the plugin, and for scripts.

@test(clock="virtual")      one function
class Case(TestCase): ...   each method may wait
"""

from __future__ import annotations

import functools
import inspect
import unittest
from collections.abc import Callable, Generator
from typing import Any, ClassVar

from corolib.coordination.timeouts import move_on_after
from corolib.testing.fixtures import can_wait
from corolib.testing.runner import Part, Runner, check_options, give

__unittest = True  # its frames are left out of the tracebacks of unittest


def test(f: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a plain function of a test that waits: `@test`, `@test(clock="virtual", timeout=5)`.

    The function has the same arguments, and fails as a test of the plugin does: also of a deadlock,
    of failures that nobody took, and of what is left behind. Call it from where no scheduler runs.

    Args:
        f: a generator function or an `async def`.
        options: `clock` and `leaks`, see `Runner`; `timeout` and `wall`, see `Runner.run`.

    Raises:
        TypeError, ValueError: an option cannot be meant; or `f` can wait for nothing.

    Example:
        >>> import corolib
        >>> @test(clock="virtual", timeout=7200)
        ... def test_an_hour(seconds=3600):
        ...     yield corolib.Sleep(seconds)
        ...     assert corolib.now() == 3600
        >>> test_an_hour()
    """
    check_options("test()", options)
    if f is None:
        return functools.partial(test, **options)
    if not can_wait(f) or inspect.isasyncgenfunction(f):
        raise TypeError(f"test({f.__qualname__}): give a generator function or an `async def`")
    limits = {name: options.pop(name) for name in ("timeout", "wall") if name in options}

    @functools.wraps(f)
    def plain(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with Runner(**options) as runner:
            call = functools.partial(f, *args, **kwargs)
            return runner.run(call, name=f.__name__, **limits)

    return plain


test.__test__ = False  # type: ignore[attr-defined]  # pytest: it is none


class TestCase(unittest.TestCase):
    """A `unittest.TestCase` whose methods may wait: tests, `setUp`, `tearDown`, and clean-ups.

    All that wait run in one task, one after another. Tasks that `setUp` has spawned live until the
    end of the test; one that is still at work then fails it, as in tests of the plugin. Methods
    that do not wait are called as ever, outside of that task.

    Attributes:
        options: the keywords of `test()` but `wall`, for all tests of the class. `timeout` bounds
            each method.
        runner: the `Runner` of the test.

    Example:
        >>> import corolib, unittest
        >>> class TestNaps(TestCase):
        ...     options = {"clock": "virtual"}
        ...     def setUp(self):
        ...         yield corolib.Sleep(60)
        ...     def test_nap(self):
        ...         yield corolib.Sleep(60)
        ...         self.assertEqual(corolib.now(), 120)
        >>> TestNaps("test_nap").run().wasSuccessful()
        True

    Source: `unittest.IsolatedAsyncioTestCase`.
    """

    options: ClassVar[dict[str, Any]] = {}
    runner: Runner

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test, on a runner of its own."""
        return self._on_a_runner(super().run, result)  # type: ignore[no-any-return]

    def debug(self) -> None:
        """Run the test without collecting results: what fails is raised."""
        self._on_a_runner(super().debug)

    def _on_a_runner(self, call: Callable[..., Any], *args: Any) -> Any:
        whose = f"{type(self).__name__}.options"
        check_options(whose, self.options)
        options = dict(self.options)
        if "wall" in options:
            raise TypeError(f"{whose}: `wall` is for single functions, see `test()`")
        self._limit = options.pop("timeout", None)
        self._part: Part | None = None  # made when something waits for the first time
        self._scope = move_on_after(None)
        self.runner = Runner(**options)
        # The clean-ups are called in reverse order.
        self.addCleanup(self._finish)
        try:
            return call(*args)
        finally:
            self.runner.scheduler.close()

    def _body(self) -> Generator[Any, Any, None]:
        """The task of the test: runs what it is given, one after another."""
        __tracebackhide__ = True
        outcome: Any = None
        while True:
            made = yield give(outcome)
            if made is None:
                return
            self._scope = move_on_after(None)
            try:
                assert self._part is not None
                with self._scope, self._part.bounded(self._limit, self._testMethodName):
                    outcome = ((yield from made), None)
            except BaseException as exc:
                outcome = (None, exc)
            made = None

    def _cancel_call(self, reason: str) -> None:
        """End what waits just now, and not all of the test; or, at the end, what is left of it."""
        assert self._part is not None
        task = self._part.task
        scope = task if self._scope.task is None else self._scope
        self.runner.scheduler.cancel_scope(task, scope, reason)

    def _wait_for(self, made: Any) -> Any:
        """Wait for what a method has returned, if that can wait, in the task of the test."""
        __tracebackhide__ = True
        if inspect.iscoroutine(made):
            made = made.__await__()
        if not inspect.isgenerator(made) and not hasattr(made, "send"):
            return made
        if self._part is None:
            self._part = Part(
                self.runner,
                self._body,
                (),
                name=self._testMethodName,
                gives=True,
                cancel=self._cancel_call,
            )
            self._part.begin()  # to its first `give`
        value, error = self._part.send(made)
        try:
            if error is not None:
                raise error
            return value
        finally:
            del error, self  # its traceback holds this frame: they would be a cycle

    def _callSetUp(self) -> None:
        self._wait_for(self.setUp())  # type: ignore[func-returns-value]

    def _callTearDown(self) -> None:
        self._wait_for(self.tearDown())  # type: ignore[func-returns-value]

    def _callTestMethod(self, method: Callable[[], Any]) -> None:
        self._wait_for(method())

    def _callCleanup(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self._wait_for(f(*args, **kwargs))

    def _finish(self) -> None:
        """End the task, and complain of what is left: the last clean-up."""
        with self.runner:
            if self._part is not None:
                self._part.end()
