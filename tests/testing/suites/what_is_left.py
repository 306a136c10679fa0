"""Failures that nobody took, deadlocks, and what a test leaves behind."""

import math
import os
import socket
import subprocess
import sys
import threading

import pytest

from corolib import Event, Sleep, current_scheduler, shield, spawn
from corolib.testing import fixture, give

pytestmark = pytest.mark.corolib(clock="virtual")

kept = []


def fail():
    yield
    raise LookupError("lost")


def test_a_lost_failure():
    """
    call fails: (?s)tasks failed, and nobody joined them.*LookupError: lost.*task fail#2, spawned
    """
    spawn(fail)
    yield Sleep(1)


def test_a_lost_failure_that_is_meant(corolib_runner):
    spawn(fail)
    yield Sleep(1)
    assert [type(each) for each in corolib_runner.failures] == [LookupError]
    corolib_runner.failures.clear()


def test_a_lost_failure_beside_that_of_the_body():
    """call fails: (?s)KeyError: 'body'.*and nobody took LookupError\\('lost'\\) .task fail#2"""
    spawn(fail)
    yield Sleep(1)
    raise KeyError("body")


def test_a_failure_in_a_callback():
    """call fails: (?s)nobody joined them.*ZeroDivisionError"""
    current_scheduler().call_soon_threadsafe(lambda: 1 / 0)
    yield Sleep(1)


def test_children_still_at_work():
    """
    call fails: test_children_still_at_work is over; it waits for child#2, spawned at .*: stop
    """

    def child():
        yield Sleep(1000)

    spawn(child)
    yield


def test_children_who_end():
    def child():
        yield Sleep(0.4)

    spawn(child)
    yield


def test_daemons():
    def child():
        yield Sleep(1e9)

    spawn(child, daemon=True)
    yield


def test_deadlock():
    """call fails: (?s)Deadlock: no task can ever run again:.*test_deadlock#1  wait for <Event"""
    yield from Event().wait()


def test_deadlock_whose_clean_up_waits():
    """call fails: Deadlock"""
    try:
        yield from Event().wait()
    finally:
        kept.append("cleaned up")
        yield Sleep(0.5)
        kept.append("to its end")


def test_it_was_cleaned_up():
    assert kept == ["cleaned up", "to its end"]
    kept.clear()


def test_deadlock_whose_clean_up_waits_for_ever():
    """call fails: Deadlock"""
    try:
        yield from Event().wait()
    finally:
        with shield(math.inf):
            yield from Event().wait()


@fixture
def idle():
    yield give(1)


def test_deadlock_beside_a_fixture(idle):
    """call fails: idle#1 +the end of what it was given to  .held by test_deadlock"""
    yield from Event().wait()


def test_a_file():
    """teardown fails: (?s)left behind:\\n  open file \\d+, socket:.tcp 127.0.0.1:\\d+"""
    kept.append(socket.create_server(("127.0.0.1", 0)))
    yield


def test_files_of_other_kinds(tmp_path):
    """
    teardown fails: (?s)left behind:.*udp 127.0.0.1:\\d+.*unix without a name.*unix .*sock.*/file
    """
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    pair = socket.socketpair()
    named = socket.socket(socket.AF_UNIX)
    os.chdir(tmp_path)
    named.bind("sock")
    kept.extend([udp, *pair, named, open("file", "w")])
    yield


def test_tidy_up():
    while kept:
        kept.pop().close()


def test_a_file_in_a_cycle_is_no_leak():
    class Cycle:
        pass

    cycle = Cycle()
    cycle.me = cycle
    cycle.read, cycle.write = os.pipe()

    class Owner:
        def __init__(self, number):
            self.number = number

        def __del__(self):
            os.close(self.number)

    cycle.owners = [Owner(cycle.read), Owner(cycle.write)]
    yield


@pytest.mark.corolib(leaks=())
def test_a_file_that_may_be_left():
    kept.append(socket.create_server(("127.0.0.1", 0)))
    yield


def test_a_timer():
    """teardown fails: left behind:\\n  1 timers"""
    test_tidy_up()
    scheduler = current_scheduler()
    scheduler.call_at(scheduler.clock() + 1e6, print, None)
    yield


@fixture
def a_parent():
    yield give(current_scheduler().current)


def test_a_task(a_parent):
    """teardown fails: the body of a_parent is over; it waits for child#"""

    def child():
        yield Sleep(1e9)

    spawn(child, parent=a_parent)
    yield


def test_a_task_of_nobody(corolib_runner):
    """teardown fails: (?s)left behind:.*task child#2, spawned at .*: Sleep\\(1000000000"""

    def child():
        yield Sleep(1e9)

    yield
    corolib_runner.scheduler.main = None
    corolib_runner.scheduler.call_soon_threadsafe(spawn, child)
    yield


@pytest.mark.corolib(leaks="threads")
def test_a_thread():
    """teardown fails: left behind:\\n  thread named by me"""
    event = threading.Event()
    kept.append(event)
    threading.Thread(target=event.wait, name="named by me", daemon=True).start()
    yield


@pytest.mark.corolib(leaks=["children"])
def test_a_child_process():
    """teardown fails: left behind:\\n  child process \\d+"""
    kept.pop().set()
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
    yield


def test_the_child_process_ends():
    child = kept.pop()
    child.communicate()


def test_after_a_failure_leaks_are_a_section():
    """
    call fails: KeyError
    shows: (?s)left behind:\\n  open file
    """
    kept.append(socket.create_server(("127.0.0.1", 0)))
    yield
    raise KeyError


@fixture
def fails_at_the_end():
    yield give(1)
    raise LookupError("teardown")


def test_after_a_failed_teardown_too(fails_at_the_end):
    """
    teardown fails: LookupError: teardown
    shows: (?s)left behind:\\n  open file
    """
    test_tidy_up()
    kept.append(socket.create_server(("127.0.0.1", 0)))
    yield


def test_async_generators_that_are_left_half_way_are_closed():
    test_tidy_up()

    async def numbers():
        try:
            yield 1
        finally:
            await Sleep(0.5)
            kept.append("closed")

    async def half():
        async for _ in agen:
            break

    agen = numbers()
    kept.append(agen)
    yield from spawn(half)


def test_it_was_closed():
    assert kept.pop() == "closed"
    kept.clear()


def test_system_exit():
    """call fails: SystemExit: 3"""
    yield
    sys.exit(3)


def test_system_exit_of_a_child(idle):
    """call fails: SystemExit: 4"""

    def child():
        yield
        sys.exit(4)

    yield from spawn(child)
