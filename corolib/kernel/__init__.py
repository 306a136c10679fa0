"""The kernel: what `import corolib` loads, and its interface.

The upper layers import from here alone: `from corolib.kernel import Suspend, waits`. Beside what is
public they may take `Trap`, `Wake`, `Runnable`, `Waiting`, `Selector` and `LateModule` for types;
`Steps`, which a loop takes waits from; the marks `public`, `opens`, `asks` and `Documented`;
`in_queue` and `serve`; `must_yield` and `running_scheduler`; `observed`, which makes the scheduler
of a run, `DEFAULT_TRACE` and `check_trace`; what a run changes in the process, `handle_signal`,
`handles_signals`, `signal_named`, `signal_is_caught`, `write_signals_to`, `WakeupPair`,
`tell_of_fork` and `uninterrupted`; for who asks from outside, `meeting_folder` and `user_of`;
`OwnedSocket` and `BorrowedFile`; `body_of`, `check_sources` and `forgive`; `users_part` of an
error; `variables_of` a frame; `holders`, `never_again` and `find_cycle`, on whom a wait depends;
the words for messages, `doing`, `where`, `function_at`, `file_name`, `some`, `no_error`, `no_undo`,
`to_stderr`, and `Throttle` for logs;
what a recorder stands in for or asks, `Cancellation`, `Scope`, `Timers`, `default_selector`,
`Join`, `Enqueue`, `ProxyWaiter`; what asks the program's objects and cannot fail, from `safely.py`;
and checks of what a caller gives.

To read it, begin with `traps.py`. Then the first three parts of `scheduler.py`: the loop, what the
traps mean, how tasks begin and end. Then `task.py`, `timers.py`, `cancellation.py`, `suspend.py`,
`lifecycle.py` with `hooks.py`, `callqueue.py`; and last the hard part, `poller.py` and `urgent.py`.
"""

import sys

from corolib.kernel.asked import meeting_folder
from corolib.kernel.bodies import body_of, check_sources
from corolib.kernel.callqueue import WakeupPair
from corolib.kernel.cancellation import (
    Cancellation,
    CancelScope,
    Scope,
    current_effective_deadline,
)
from corolib.kernel.checks import check_count, check_keywords, check_number, file_name
from corolib.kernel.context import (
    Runnable,
    close,
    current_scheduler,
    current_task,
    must_yield,
    now,
    running_scheduler,
    spawn,
)
from corolib.kernel.diagnostics import (
    Throttle,
    doing,
    find_cycle,
    function_at,
    holders,
    never_again,
    no_error,
    no_undo,
    some,
    to_stderr,
    where,
)
from corolib.kernel.errors import (
    BusyError,
    Cancelled,
    ClosedError,
    Deadlock,
    RunFinished,
    ScopeError,
    TaskCancelled,
)
from corolib.kernel.frames import users_part, variables_of
from corolib.kernel.hooks import (
    handle_signal,
    handles_signals,
    signal_is_caught,
    signal_named,
    tell_of_fork,
    uninterrupted,
    user_of,
    write_signals_to,
)
from corolib.kernel.late import LateModule
from corolib.kernel.observing import DEFAULT_TRACE, check_trace, observed
from corolib.kernel.poller import BorrowedFile, OwnedSocket, Selector, default_selector
from corolib.kernel.safely import (
    Block,
    attribute,
    brief,
    class_module,
    class_name,
    is_a,
    name_of,
    note,
    plain,
    told,
    trace_of,
    with_trace,
)
from corolib.kernel.scheduler import Scheduler, run
from corolib.kernel.suspend import Enqueue, ProxyWaiter, in_queue, serve
from corolib.kernel.task import Join, Task
from corolib.kernel.timers import Timers
from corolib.kernel.traps import Coro, ReadWait, Sleep, Suspend, Trap, UrgentWait, Wake, WriteWait
from corolib.kernel.waits import (
    Documented,
    Steps,
    Waiting,
    asks,
    forgive,
    notice_dropped,
    opens,
    public,
    waits,
)

# Annotations name classes that their module cannot import, since that would be a circle. Now that
# all are there they are made known, for `typing.get_type_hints()` of public functions.
for _name, _module in list(sys.modules.items()):
    if _name.startswith("corolib.kernel."):
        for _class in (Task, Scheduler):
            vars(_module).setdefault(_class.__name__, _class)

for _kind in (ReadWait, WriteWait, UrgentWait, Sleep, Suspend, Steps):
    notice_dropped(_kind)

__all__ = [
    "Block",
    "BorrowedFile",
    "BusyError",
    "CancelScope",
    "Cancellation",
    "Cancelled",
    "ClosedError",
    "Coro",
    "DEFAULT_TRACE",
    "Deadlock",
    "Documented",
    "Enqueue",
    "Join",
    "LateModule",
    "OwnedSocket",
    "ProxyWaiter",
    "ReadWait",
    "RunFinished",
    "Runnable",
    "Scheduler",
    "Scope",
    "ScopeError",
    "Selector",
    "Sleep",
    "Steps",
    "Suspend",
    "Task",
    "TaskCancelled",
    "Throttle",
    "Timers",
    "Trap",
    "UrgentWait",
    "Waiting",
    "Wake",
    "WakeupPair",
    "WriteWait",
    "asks",
    "attribute",
    "body_of",
    "brief",
    "check_count",
    "check_keywords",
    "check_number",
    "check_sources",
    "check_trace",
    "class_module",
    "class_name",
    "close",
    "current_effective_deadline",
    "current_scheduler",
    "current_task",
    "default_selector",
    "doing",
    "file_name",
    "find_cycle",
    "forgive",
    "function_at",
    "handle_signal",
    "handles_signals",
    "holders",
    "in_queue",
    "is_a",
    "meeting_folder",
    "must_yield",
    "name_of",
    "never_again",
    "no_error",
    "no_undo",
    "note",
    "now",
    "observed",
    "opens",
    "plain",
    "public",
    "run",
    "running_scheduler",
    "serve",
    "signal_is_caught",
    "signal_named",
    "some",
    "spawn",
    "tell_of_fork",
    "to_stderr",
    "told",
    "trace_of",
    "uninterrupted",
    "user_of",
    "users_part",
    "variables_of",
    "waits",
    "where",
    "with_trace",
    "write_signals_to",
]
