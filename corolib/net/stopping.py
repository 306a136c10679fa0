"""The servers of a run, and the signals that end it: all stop gracefully, whichever task has them.

    servers = scheduler.run_local(Servers)
    servers.add(server)                     from now on a signal stops it
    servers.ended(server)                   it is over

SIGTERM, unless the program handles it, and the first Ctrl-C have each server stop within its grace.
When all have ended, Ctrl-C is raised in the main task. After SIGTERM the run ends without an error:
the tasks that have waited for a server go on to their ends, and then all others are cancelled.

How a server stops is said in `servers.py`, and how Ctrl-C is raised in the kernel's `lifecycle.py`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Protocol

from corolib.coordination.signals import SignalCall
from corolib.kernel import Scheduler, Task, handles_signals, holders, to_stderr

REASON = "SIGTERM, and the servers have ended"


class Stoppable(Protocol):
    """What a signal stops: it takes nothing new, and ends when what is under way has ended, for
    which it gives that `grace` in seconds. Or, if the run ends before that, it is abandoned: it
    closes all that is open.
    """

    task: Task[Any]
    grace: float

    def under_way(self) -> tuple[int, int]: ...
    def stop_for_signal(self) -> None: ...
    def abandon(self) -> None: ...


class Servers:
    """The servers of one run that have not ended; lives as long as the run."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._open: dict[Stoppable, None] = {}
        # Those of them that a signal stops.
        self._running: dict[Stoppable, None] = {}
        self._sigterm: SignalCall | None = None
        # Whether SIGTERM has come, and what raises a Ctrl-C that waits until all have ended.
        self._terminated = False
        self._raise_ctrl_c: Callable[[], object] | None = None
        # Tasks that have waited for a server, which ended by SIGTERM; until they are over.
        self._going_on: dict[Task[Any], None] = {}

    @property
    def _main(self) -> Task[Any]:
        main = self._scheduler.main
        assert main is not None, "without one no signal is heard"
        return main

    def add(self, server: Stoppable) -> None:
        """Have signals stop a server that begins; at once, if one has come already."""
        self._open[server] = None
        if self._scheduler.main is None:
            # Somebody else makes the turns, and handles the signals.
            return
        if self._terminated or self._raise_ctrl_c is not None:
            server.stop_for_signal()
            self._hold_up(self._scheduler.current or self._main)
            return
        self._running[server] = None
        if _sigterm_kills():
            self._sigterm = SignalCall(self._scheduler, signal.SIGTERM, self._terminate)
            self._sigterm.__enter__()

    def _hold_up(self, task: Task[Any]) -> None:
        """A task has begun a server in vain: see that it does not do so again and again.

        It waits for all that is still to come to its end, and then it is over. Handlers of those
        that stop have their grace for what they do.
        """
        for each in [task, *_waiting_for(task, self._scheduler.tasks)]:
            self._going_on.pop(each, None)
        stopping = [server.task for server in self._running]
        others = [each for each in [*stopping, *self._going_on] if not _is_within(task, each)]
        if others:
            task.await_first = [*(task.await_first or ()), *others]
            task.pending = True
        elif self._going_on:
            task.cancel(REASON)
        else:
            self._end_run()

    def ended(self, server: Stoppable) -> bool:
        """Note that a server is over, and return whether that is new; called before those who wait
        for it are told.
        """
        self._open.pop(server, None)
        if server not in self._running:
            return False
        del self._running[server]
        if self._terminated:
            for task in _waiting_for(server.task, self._scheduler.tasks):
                task.holds = {**(task.holds or {}), self: None}
                self._going_on[task] = None
        if not self._running:
            self._all_ended()
        return True

    def orphaned(self, task: Task[Any]) -> None:
        """Note that the body of a task that has waited for a server is over."""
        self._going_on.pop(task, None)
        self._end_run()

    def put_off(self, raise_ctrl_c: Callable[[], object]) -> bool:
        """Stop all servers, and call `raise_ctrl_c` when they have ended; False: there are none."""
        if not self._running:
            return False
        self._raise_ctrl_c = raise_ctrl_c
        self._stop_all()
        if os.isatty(2):
            self._tell_who_is_left()
        return True

    def _tell_who_is_left(self) -> None:
        """Say at a terminal why the program does not end at once, if it does not."""
        left = [server for server in self._running if any(server.under_way())]
        if left:
            handlers, closing = map(sum, zip(*(server.under_way() for server in left), strict=True))
            parts = [f"{handlers} handler{'s' * (handlers > 1)} may finish"] if handlers else []
            if closing:
                parts.append(f"{closing} client{'s' * (closing > 1)} may read the rest and close")
            grace = max(server.grace for server in left)
            # The terminal has shown ^C.
            to_stderr(
                f"\nstopping: {' and '.join(parts)}, within {grace:g} s; Ctrl-C again ends all at "
                "once"
            )

    def end(self) -> None:
        """The run is over. That it was told to end is no failure of its main task."""
        self._forget_sigterm()
        for server in list(self._open):
            self._scheduler.call(server.abandon, ())
        if self._terminated:
            self._main.cancelled = False

    def _terminate(self) -> None:
        """SIGTERM has come."""
        if self._raise_ctrl_c is None:
            self._terminated = True
            self._stop_all()
            self._end_run()

    def _stop_all(self) -> None:
        for server in list(self._running):
            self._scheduler.call(server.stop_for_signal, ())

    def _all_ended(self) -> None:
        raise_ctrl_c, self._raise_ctrl_c = self._raise_ctrl_c, None
        if not self._terminated:
            self._forget_sigterm()
        if raise_ctrl_c is not None:
            raise_ctrl_c()
        self._end_run()

    def _end_run(self) -> None:
        """After SIGTERM, cancel all tasks, if no server is left, and no task that is to go on."""
        if self._terminated and not (self._running or self._going_on):
            self._main.cancel(REASON)

    def _forget_sigterm(self) -> None:
        sigterm, self._sigterm = self._sigterm, None
        if sigterm is not None:
            sigterm.close()


def _is_within(task: Task[Any] | None, owner: Task[Any]) -> bool:
    """Return whether `owner` is `task`, or one of its ancestors."""
    while task is not None and task is not owner:
        task = task.parent
    return task is owner


def _waiting_for(task: Task[Any], tasks: list[Task[Any]]) -> list[Task[Any]]:
    """Return those of `tasks` whose bodies go on when `task` has ended: they wait for it, or for
    one that does.
    """
    waiting: dict[Task[Any], list[Task[Any]]] = {}
    for each in tasks:
        for holder in holders(each):
            waiting.setdefault(holder, []).append(each)
    found: dict[Task[Any], None] = {}
    todo = [task]
    while todo:
        for each in waiting.pop(todo.pop(), ()):
            found[each] = None
            todo.append(each)
    return [each for each in found if not each.body_over]


def _sigterm_kills() -> bool:
    """Return whether SIGTERM would end the program now, and can be received in this thread."""
    return handles_signals() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
