"""Fixtures of pytest whose setup and teardown may wait.

To pytest such a fixture is an ordinary generator function, which drives a part of a runner to its
`give`, and after the test to its end. So scopes, parameters, methods, `request` and the order of
teardown are pytest's own. Which runner it is, says the plugin, while pytest sets the fixture up.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from corolib.testing.runner import Part, Runner, give


class Place:
    """Where the fixtures live that are being set up: the plugin says it."""

    def __init__(self) -> None:
        self.find_runner: Callable[[], Runner] | None = None
        self.teardown_timeout: float | None = None


place = Place()


def fixture(f: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a fixture of pytest whose setup and teardown may wait: `@fixture`, `@fixture(...)`.

    It hands its value to the test with `yield give(value)`, in an `async def` with `await`; what
    follows is the teardown. Or it returns the value: then what it has spawned is cancelled after
    the test. An `async def` may also `yield value`, as for other plugins; but there no group and no
    timeout can be open around the `yield`.

    A fixture of a function's scope lives on the runner of its test. All that are wider live on one
    runner, which the tests that use them share.

    Args:
        f: a generator function or an `async def`.
        options: `scope`, `params`, `ids`, `name` and `autouse`, as those of `pytest.fixture`.

    Raises:
        TypeError: `f` can wait for nothing: that is a fixture for `pytest.fixture`.

    Example:
        >>> import corolib
        >>> @fixture(scope="module")
        ... def server():
        ...     listener = corolib.listen_tcp("127.0.0.1", 0)
        ...     running = listener.serve(handler)
        ...     yield give(listener.addresses[0])
        ...     yield from running.stop()

    Source: `pytest.fixture`; `contextlib.contextmanager`.
    """
    if f is None:
        return functools.partial(fixture, **options)
    if not can_wait(f):
        raise TypeError(f"fixture({f.__qualname__}): it can wait for nothing: use pytest.fixture")
    import pytest

    return pytest.fixture(**options)(setup_of(f))


def can_wait(f: Any) -> bool:
    """Return whether a function is a generator function or an `async def`."""
    return inspect.isgeneratorfunction(f) or is_async(f)


def is_async(f: Any) -> bool:
    """Return whether a function is an `async def`, with or without a `yield`."""
    return inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f)


def setup_of(f: Callable[..., Any]) -> Callable[..., Generator[Any, None, None]]:
    """Return what pytest is given in the place of `f`."""
    body = _given_by(f) if inspect.isasyncgenfunction(f) else f

    @functools.wraps(f)
    def setup(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        __tracebackhide__ = True
        if place.find_runner is None:
            raise RuntimeError(
                f"the fixture {f.__name__} may wait, and the plugin of corolib is off: "
                "pytest needs its entry point, or `-p pytest_corolib`"
            )
        limit = place.teardown_timeout
        call = functools.partial(body, *args, **kwargs)
        part = Part(place.find_runner(), call, (), name=f.__name__, gives=True)
        yield part.begin()
        part.end(limit)

    setup.corolib_waits = True  # type: ignore[attr-defined]  # for the plugin
    return setup


def _given_by(f: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., Any]:
    """Return the `async def` that gives what an async generator yields to its consumer."""

    @functools.wraps(f)
    async def body(*args: Any, **kwargs: Any) -> None:
        agen = f(*args, **kwargs)
        try:
            async for value in agen:
                await give(value)
        finally:
            await agen.aclose()

    return body
