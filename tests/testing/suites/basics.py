"""Tests of every kind, with the marker on the module."""

import pytest

from corolib import Sleep, current_task, listen_tcp, now, run

pytestmark = pytest.mark.corolib(clock="virtual")


def test_a_generator():
    yield Sleep(3600)
    assert now() == 3600


async def test_an_async_function():
    await Sleep(3600)
    assert now() == 3600


def test_a_plain_function_is_what_it_is_elsewhere():
    def nap():
        yield Sleep(0)
        return "slept"

    assert run(nap) == "slept"


@pytest.mark.parametrize("seconds", [1, 2, pytest.param(3, id="three")])
def test_parameters(seconds, request):
    yield Sleep(seconds)
    assert now() == seconds
    assert current_task().name == "test_parameters"
    assert request.node.name in (
        "test_parameters[1]",
        "test_parameters[2]",
        "test_parameters[three]",
    )


class TestMethods:
    greeting = "hello"

    @pytest.fixture
    def name(self):
        return "you"

    def test_a_generator(self, name):
        yield
        assert (self.greeting, name) == ("hello", "you")

    async def test_an_async_function(self, name):
        await Sleep(1)
        assert (self.greeting, name) == ("hello", "you")

    @pytest.mark.parametrize("n", [1, 2])
    def test_parameters(self, n):
        yield Sleep(n)
        assert now() == n

    @staticmethod
    def test_a_static_method():
        yield Sleep(1)


def test_a_free_port(free_tcp_port):
    with listen_tcp("127.0.0.1", free_tcp_port) as listener:
        yield
        assert listener.addresses == [("127.0.0.1", free_tcp_port)]


def test_a_failed_assertion_says_what_was_compared():
    """call fails: assert 1 == 2"""
    one = 1
    yield
    assert one == 2


def test_frames_of_the_library_are_hidden(network_pair):
    """call fails: yield from one.recv.-1.\\nE       ValueError: recv"""
    one, _ = network_pair
    yield from one.recv(-1)


def test_skip():
    """skipped"""
    yield
    pytest.skip("not today")


def test_fail():
    """call fails: with intent"""
    yield
    pytest.fail("with intent")


@pytest.mark.xfail(raises=ZeroDivisionError)
def test_expected_failure():
    """xfailed"""
    yield
    raise ZeroDivisionError


@pytest.mark.skip
def test_skipped_by_a_mark():
    """skipped"""
    yield


def test_a_run_inside_it_is_refused():
    """call fails: a scheduler already runs in this thread"""
    yield
    run(test_a_generator)


def test_a_returned_value_is_a_fault_as_elsewhere():
    yield
    return


def test_what_is_no_trap():
    """call fails: (?s)which is not a trap((?!give).)*$"""
    yield 5


def test_something_else_than_a_generator():
    """call fails: gives"""
    from corolib.testing import give

    yield give(1)
