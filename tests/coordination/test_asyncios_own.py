"""asyncio's own tests of timeouts, groups, barriers and queues, with corolib in asyncio's place.

They are not copied: the interpreter has them, in its package `test`. What is not passed is listed
here with the reason, which is never that something is missing.
"""

import importlib.util
import sys
import unittest

import pytest

from tests.helpers import asyncio_names

HAS_THEM = (
    sys.version_info < (3, 14)
    and importlib.util.find_spec("test") is not None
    and importlib.util.find_spec("test.test_asyncio") is not None
)

CLOSED = "test_taskgroup_no_create_task_after_failure"

NOT_PASSED = {
    "messages and reprs are in other words": """
        TimeoutTests.test_repr_active test_repr_disabled test_repr_expired test_repr_finished
        TimeoutTests.test_timeout_already_entered test_timeout_double_enter
        TestTaskGroup.test_taskgroup_already_entered test_taskgroup_double_enter
        TestTaskGroup.test_taskgroup_finished test_taskgroup_not_entered
        TestTaskGroup.test_coro_closed_when_tg_closed test_taskgroup_without_parent_task
        BarrierTests.test_barrier test_filling_task_by_task test_repr
        QueueBasicTests.test_repr test_str
        QueueJoinTests.test_format QueueShutdownTests.test_format
        LifoQueueJoinTests.test_format LifoQueueShutdownTests.test_format
        PriorityQueueJoinTests.test_format PriorityQueueShutdownTests.test_format
    """,
    "what the body of a group raises, a cancel too, leaves it as it is, not in an ExceptionGroup;"
    " failures of tasks are noted on it, and reported": """
        TestTaskGroup.test_taskgroup_08 test_taskgroup_09 test_taskgroup_10 test_taskgroup_11
        TestTaskGroup.test_taskgroup_12 test_taskgroup_14 test_taskgroup_15 test_taskgroup_16
        TestTaskGroup.test_taskgroup_18 test_taskgroup_19 test_taskgroup_20a test_taskgroup_21a
        TestTaskGroup.test_taskgroup_context_manager_exit_raises
        TimeoutTests.test_timeout_taskgroup
    """,
    "a deadline may be set at any time, also when that changes nothing any more": """
        TimeoutTests.test_timeout_expired test_timeout_expiring test_timeout_finished
        TimeoutTests.test_timeout_not_entered test_timeout_without_task
    """,
    "of two blocks whose deadlines pass at the same moment the outer one has expired": """
        TimeoutTests.test_nested_timeouts
    """,
    "a task is cancelled once: to ask again, when it has swallowed that, changes nothing": """
        TimeoutTests.test_cancel_in_timeout_after_cancellation
    """,
    "the context of an exception is not rewritten: what was handled was the cancel": """
        TimeoutTests.test_foreign_exception_on_timeout test_foreign_exception_on_timeout_2
    """,
    "a round of a barrier is over when the last has come: who comes then waits in the next one": """
        BarrierTests.test_abort_barrier_when_tasks_half_draining_half_blocking test_draining_state
        BarrierTests.test_reset_barrier_when_tasks_half_draining
        BarrierTests.test_reset_barrier_when_tasks_half_draining_half_blocking
        BarrierTests.test_reset_barrier_while_tasks_draining
    """,
    "what a task was given before it was cancelled is delivered": """
        QueuePutTests.test_cancelled_put_silence_value_error_exception
        QueuePutTests.test_get_cancel_drop_many_pending_readers
    """,
    "it looks at what is private to asyncio.Queue": """
        QueueGetTests.test_get_with_putters
    """,
    "a generic class of corolib's is a typing.Generic": """
        QueueBasicTests.test_generic_alias
    """,
    "a queue for one item and a third is refused": """
        QueuePutTests.test_float_maxsize
    """,
    "a coroutine that a group refuses is closed, as in asyncio, but only since Python 3.13": """
        TestTaskGroup."""
    + CLOSED,
}


def listed():
    """Return the tests that are not passed: `Class.test`. A class stands for those behind it."""
    found = set()
    for names in NOT_PASSED.values():
        case = None
        for name in names.split():
            case = name.partition(".")[0] if "." in name else case
            found.add(f"{case}.{name.rpartition('.')[2]}")
    return found


def outcomes(module, kind):
    """Run the tests of a module, in classes named so; return for each what was wrong."""
    found = {}
    for name, case in vars(module).items():
        if isinstance(case, type) and issubclass(case, unittest.TestCase) and kind in name:
            for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
                result = unittest.TestResult()
                test.run(result)
                wrong = "".join(text for _, text in result.errors + result.failures)
                found[f"{name}.{test.id().rpartition('.')[2]}"] = wrong
    return found


@pytest.mark.skipif(not HAS_THEM, reason="this Python has no tests of asyncio that are known here")
@pytest.mark.parametrize(
    ("name", "kind", "least"),
    [
        ("test_timeouts", "Timeout", 30),
        ("test_taskgroups", "TaskGroup", 30),
        ("test_locks", "Barrier", 20),
        ("test_queues", "Queue", 40),
    ],
)
def test_asyncios_own_tests_pass_but_for_those_that_are_listed(name, kind, least):
    found = outcomes(asyncio_names.load(name), kind)
    assert len(found) >= least
    wrong = {test: text for test, text in found.items() if text and test not in listed()}
    assert not wrong, "\n".join(wrong.values())
    if sys.version_info >= (3, 13):  # older Pythons have some in another form
        passed = {test for test in found if not found[test]}
        assert passed & listed() <= {f"TestTaskGroup.{CLOSED}"}, "they are passed by now"


def test_no_test_is_listed_twice():
    names = " ".join(NOT_PASSED.values()).split()
    assert len(names) == len(listed())
