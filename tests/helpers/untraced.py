"""Tests that are left out where COROLIB_TRACE has each run recorded, with the reason.

All others pass there, too: what a program does is the same whether it is recorded or not. Those
below ask for what only a run has that is not recorded.
"""

MEMORY = "counts the memory or the calls of a plain run"
MODULES = "counts the modules that a plain run goes through"
FILES = "counts the open files of the process, of which the trace is one"
USER = "runs as another user, who may not write into the folder of the traces, and is told so"
UNTRACED = {
    "tests/demos/test_cookbook.py::test_one_command_shows_what_differs": (
        "asks who is answered within a few milliseconds"
    ),
    "tests/kernel/test_hooks.py::"
    "test_a_run_in_a_thread_that_threading_does_not_know_is_not_taken_for_the_main_one": (
        "the recorder knows queues, whose module imports `threading`, here in that thread"
    ),
    "tests/kernel/test_hooks.py::"
    "test_signals_are_written_elsewhere_at_the_end_only_if_they_still_come_to_us": FILES,
    "tests/kernel/test_lifecycle.py::"
    "test_two_interrupts_at_any_line_of_the_end_leave_run_and_everything_is_put_back": (
        "interrupts at each line, also at some of the recorder's where no signal can come"
    ),
    "tests/kernel/test_poller.py::"
    "test_what_a_signal_handler_raises_while_a_wait_is_made_is_the_tasks": (
        "the file tells its number to the recorder first, and raises only once"
    ),
    "tests/net/test_memory.py::test_a_connection_for_which_there_is_no_memory_is_lost_alone": FILES,
    "tests/net/test_servers.py::test_the_memory_of_an_idle_connection": MEMORY,
    "tests/net/test_servers.py::test_a_short_connection_costs_few_calls": MEMORY,
    "tests/project/test_layers.py::"
    "test_one_message_and_one_cancel_can_be_followed_through_few_modules": MODULES,
    "tests/system/test_identity.py::"
    "test_the_workers_are_that_user_and_the_parent_stays_who_it_is": USER,
    "tests/system/test_identity.py::"
    "test_who_may_not_become_another_user_is_told_before_there_is_a_worker": USER,
    "tests/system/test_subprocesses.py::"
    "test_one_more_ctrl_c_at_any_moment_after_the_start_of_a_program_leaves_none_behind": (
        "interrupts at any moment, also while the file of the trace is being opened"
    ),
}
"""Of each test, without parameters, why it is left out."""
