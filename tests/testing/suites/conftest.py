"""Loads the plugin where there is no entry point, and writes down what comes of each test."""

import asyncio
import inspect
import json
import os

import pytest

from corolib import listen_tcp
from corolib.testing import fixture, give


def pytest_addoption(pluginmanager):
    if not (pluginmanager.has_plugin("corolib") or pluginmanager.is_blocked("corolib")):
        import pytest_corolib

        pluginmanager.register(pytest_corolib, "corolib")


def pytest_fixture_setup(fixturedef, request):
    """Have asyncio run what `beside_others` leaves to other plugins."""
    f = fixturedef.func
    if inspect.iscoroutinefunction(f) and f.__module__.endswith("beside_others"):
        value = asyncio.run(f())
        fixturedef.cached_result = value, fixturedef.cache_key(request), None
        return value
    return None


def pytest_itemcollected(item):
    text = item.function.__doc__ if isinstance(item, pytest.Function) else None
    item.user_properties.append(("expects", text or ""))


class Recorder:
    """Writes down the reports of all tests, at the end of the session."""

    def __init__(self):
        self.reports = []

    def pytest_runtest_logreport(self, report):
        self.reports.append(
            {
                "test": report.nodeid,
                "when": report.when,
                "outcome": "xfailed" if hasattr(report, "wasxfail") else report.outcome,
                "text": report.longreprtext,
                "sections": dict(report.sections),
                "expects": dict(report.user_properties).get("expects", ""),
            }
        )

    def pytest_sessionfinish(self):
        with open(os.environ["RECORD_TO"], "w") as file:
            json.dump(self.reports, file)


def pytest_configure(config):
    if "RECORD_TO" in os.environ and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder())


def echo(stream):
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data)


set_up = []


@fixture(scope="session")
def server():
    """An echo server that all share; gives its address."""
    set_up.append("server")
    listener = listen_tcp("127.0.0.1", 0)
    running = listener.serve(echo)
    yield give(listener.addresses[0])
    yield from running.stop()


@pytest.fixture
def set_ups():
    """What was set up in this session."""
    return set_up
