"""A session's fixture: it lives on one runner, which the tests that use it share."""

import pytest

from corolib import Sleep, current_scheduler, open_tcp, spawn
from corolib.testing import fixture, give

pytestmark = pytest.mark.corolib

schedulers = set()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_server_of_the_session(server, set_ups, n):
    schedulers.add(current_scheduler())
    with (yield from open_tcp(*server)) as stream:
        yield from stream.sendall(b"hi")
        assert (yield from stream.readexactly(2)) == b"hi"
    assert set_ups == ["server"]


def test_they_have_shared_a_scheduler():
    assert len(schedulers) == 1


def test_without_it_there_is_one_for_each():
    yield
    assert current_scheduler() not in schedulers


@pytest.mark.corolib(clock="virtual")
def test_a_virtual_clock_is_refused(server):
    """setup fails: clock='virtual': but server is wider than a function"""
    yield


kept = []


def test_a_connection_that_is_kept(server):
    """
    teardown fails: (?s)left behind.*task echo#\\d+.*open file \\d+, socket:.tcp 127.0.0.1
    """
    kept.append((yield from open_tcp(*server)))


def test_that_one_is_no_leak_of_the_next(server):
    yield
    kept.pop().close()


@fixture(scope="module")
def of_the_module(server):
    yield Sleep(0.001)
    yield give(server)
    yield Sleep(0.001)


def test_one_of_the_module_on_one_of_the_session(of_the_module, server):
    yield
    assert of_the_module == server


def test_it_can_never_go_on_though_the_server_does(server):
    """call fails: (?s)Deadlock: .*can never go on, though others run:.*cycle:"""
    tasks = []

    def child():
        yield
        yield from tasks[1]

    def other():
        yield
        yield from tasks[0]

    tasks += [spawn(child), spawn(other)]
    yield from tasks[0]


@pytest.fixture(scope="module")
def a_file_of_the_module(tmp_path_factory):
    with open(tmp_path_factory.mktemp("module") / "file", "w") as file:
        yield file


def test_what_a_wide_fixture_has_open_is_no_leak(a_file_of_the_module):
    yield


@fixture
def narrow():
    yield give(current_scheduler())


@pytest.mark.corolib(clock="virtual")
def test_a_plain_test_with_the_wrong_clock(server, narrow):
    """setup fails: clock='virtual': but server is wider than a function"""


def test_a_narrow_one_beside_it(server, narrow):
    yield
    assert narrow is current_scheduler()


def test_a_plain_test_may_use_it(server):
    assert server[0] == "127.0.0.1"
