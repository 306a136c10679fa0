"""What stands in the place of parts of the scheduler while it is traced, and notes what they do.

Each is told the scheduler that it notes for, and hands everything on to what it stands for.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

from corolib.coordination.queues import Queue
from corolib.coordination.waitqueue import Waitable
from corolib.kernel import (
    Cancellation,
    CancelScope,
    ProxyWaiter,
    Scope,
    Task,
    Timers,
    attribute,
    class_name,
    name_of,
    plain,
    running_scheduler,
)

if TYPE_CHECKING:
    from corolib.trace.recorder import TracedScheduler

_MASKS = ("", "r", "w", "rw")  # what is asked of a selector
NEVER = 1e18  # ns: thirty years
_BITS = (0, 1, 4, 5)  # what `epoll` would report


class NotingQueue:
    """A ready queue."""

    __slots__ = ("_inner", "append", "append_reported", "popleft")

    def __init__(self, scheduler: TracedScheduler, inner: Any) -> None:
        push = inner.append

        def append(task: Any) -> None:
            scheduler.woken(task)
            push(task)

        def append_reported(task: Any) -> None:
            """Append a task whose file the selector has just reported."""
            if type(task) is Task:
                add = scheduler.add
                add(("wake", scheduler.latest, task.id, "io", None))
            else:
                scheduler.woken(task)
            push(task)

        self._inner = inner
        self.append = append
        self.append_reported = append_reported
        self.popleft = inner.popleft

    def __len__(self) -> int:
        return len(self._inner)


class NotingTimers(Timers):
    """Timers. What was set before the trace began is not known to it."""

    __slots__ = ("_scheduler",)

    def __init__(self, scheduler: TracedScheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def set(self, deadline: float, f: Callable[[Any], object], arg: Any) -> list[Any]:
        scheduler = self._scheduler
        fires = _Fires(self, f, deadline)
        call = super().set(deadline, fires, arg)
        fires.number = call[1]
        scheduler.note("timer.set", call[1], scheduler.time(deadline), _whose(f, arg))
        return call

    def cancel(self, call: list[Any]) -> None:
        if call[2] is not None:
            self._scheduler.note("timer.cancel", call[1])
        super().cancel(call)

    def fires(self, number: int, deadline: float) -> None:
        """A timer is about to make its call."""
        self._scheduler.note("timer.fire", number, in_ns(self._now - deadline))

    def expire(self, now: float) -> None:
        scheduler = self._scheduler
        before, scheduler.phase = scheduler.phase, "timer"
        try:
            super().expire(now)
        finally:
            scheduler.phase = before


class _Fires:
    """The function of a timer."""

    __slots__ = ("_deadline", "_f", "_timers", "number")

    def __init__(self, timers: NotingTimers, f: Callable[[Any], object], deadline: float) -> None:
        self._timers = timers
        self._f = f
        self._deadline = deadline
        self.number = 0

    def __call__(self, arg: Any) -> object:
        self._timers.fires(self.number, self._deadline)
        return self._f(arg)


def in_ns(seconds: float) -> int | None:
    """Return a time in ns; None: one that does not come or that never was."""
    ns = seconds * 1e9
    return round(ns) if -NEVER < ns < NEVER else None


def _whose(f: Any, arg: Any) -> str:
    """Return for whom a timer is."""
    if isinstance(arg, Task | ProxyWaiter):
        return arg.label
    if isinstance(arg, CancelScope):
        whose = "?" if arg.task is None else arg.task.label
        return f"{class_name(arg)} of {whose}"
    name = name_of(f).strip("_<>")
    ours = plain(attribute(f, "__module__")).startswith("corolib.")
    return f"corolib itself ({name})" if ours else name


class NotingCancellation(Cancellation):
    """Cancels: here blocks are left."""

    __slots__ = ("_traced",)

    def __init__(self, scheduler: TracedScheduler) -> None:
        super().__init__(scheduler)
        self._traced = scheduler

    def leave(self, scope: CancelScope, kind: type[BaseException] | None) -> None:
        task = scope.task
        assert task is not None
        number, label = self._traced.labels.scope(task, scope)
        caught = scope.cancel_request is not None and kind is not None
        try:
            super().leave(scope, kind)
        finally:
            self._traced.note("scope.leave", task.id, number, label, caught)


class Holds(dict[Any, None]):
    """What a task holds."""

    def __init__(self, scheduler: TracedScheduler, task: int) -> None:
        self._scheduler = scheduler
        self._task = task

    def __setitem__(self, lock: Any, value: None) -> None:
        super().__setitem__(lock, value)
        self._scheduler.note("lock.take", *self._scheduler.labels.of(lock), self._task)

    def __delitem__(self, lock: Any) -> None:
        self._scheduler.note("lock.give", *self._scheduler.labels.of(lock), self._task)
        super().__delitem__(lock)


def noting_selector(scheduler: TracedScheduler, make: Callable[[], Any]) -> Callable[[], Any]:
    """Return what makes a selector as `make` does, which notes what it is told and what it reports.

    The poller makes others beside it to try files alone: those are no part of the trace.
    """
    present: list[NotingSelector] = []

    def made() -> Any:
        inner = make()
        if present:
            return inner
        present.append(NotingSelector(scheduler, inner, present.clear))
        return present[0]

    return made


class NotingSelector:
    """A selector, with keys or with `pairs`."""

    def __init__(
        self, scheduler: TracedScheduler, inner: Any, closed: Callable[[], object]
    ) -> None:
        self._scheduler = scheduler
        self._inner = inner
        self._closed = closed
        self._files: dict[int, None] = {}
        if hasattr(inner, "pairs"):
            self.pairs = self._pairs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def register(self, fd: int, mask: int) -> None:
        self._inner.register(fd, mask)
        self._watch(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        self._inner.modify(fd, mask)
        self._watch(fd, mask)

    def unregister(self, fd: int) -> None:
        self._unwatch(fd)
        self._inner.unregister(fd)

    def close(self) -> None:
        for fd in list(self._files):
            self._unwatch(fd)
        self._closed()
        self._inner.close()

    def select(self, timeout: float | None) -> Any:
        found = self._inner.select(timeout)
        self._scheduler.reported([(key.fd, _BITS[mask]) for key, mask in found])
        return found

    def _pairs(self, timeout: float | None) -> Any:
        found = self._inner.pairs(timeout)
        self._scheduler.reported(found)
        return found

    def _watch(self, fd: int, mask: int) -> None:
        self._files[fd] = None
        scheduler = self._scheduler
        task = None if scheduler.current is None else scheduler.current.id
        own = True if fd in scheduler._poller._wakeups else None
        scheduler.note("watch", fd, _MASKS[mask], task, own)

    def _unwatch(self, fd: int) -> None:
        self._files.pop(fd, None)
        self._scheduler.note("unwatch", fd)


class Labels:
    """Numbers and names of scopes, locks and queues; it keeps none of them alive."""

    def __init__(self) -> None:
        # By the address, and not by what the thing calls equal.
        self._known: dict[int, tuple[ref[Any], int, str]] = {}
        self._count = 0

    def of(self, thing: Any) -> tuple[int, str]:
        """Return the number of a thing, and what it is called: `Lock till`, `Lock 3`."""
        address = id(thing)
        found = self._known.get(address)
        if found is None:
            self._count += 1
            known = self._known
            name = attribute(thing, "name")
            label = f"{class_name(thing)} {name if type(name) is str and name else self._count}"
            gone = ref(thing, lambda _: known.pop(address, None))
            found = known[address] = (gone, self._count, label)
        return found[1:]

    def scope(self, task: Task[Any], scope: Scope) -> tuple[int, str]:
        """Return the number of a scope, 0 for the task itself, and what it is called."""
        if scope is task:
            return 0, task.label
        number, _ = self.of(scope)
        seconds = getattr(scope, "_seconds", None)
        name = class_name(scope)
        return number, name if seconds is None else f"{name} of {seconds:g} s"

    def what(self, what: object) -> tuple[str, str]:
        """Return why a wait for `what` will end, and what it is, in words."""
        if type(what) is str:
            return "other", what
        if type(what) is tuple and len(what) == 2 and type(what[0]) is str:
            verb, thing = what
            if isinstance(thing, Waitable):
                _, label = self.of(thing)
                kind = next((why for name, why in _KINDS if name in class_name(thing)), "lock")
                return kind, f"{verb} {label}"
            return "other", f"{verb} {_kind(thing)}".rstrip()
        return "other", _kind(what)


def _kind(thing: object) -> str:
    """Return what kind of thing a wait is for, in words."""
    name = class_name(thing)
    return _WORDS.get(name, f"a {name}")


_WORDS = {
    "Job": "a call in a thread",
    "TaskGroup": "",  # the verb says it
    "_FirstOf": "the first of several",
    "_TaskSet": "several tasks",
}
_KINDS = (("Queue", "queue"), ("Topic", "queue"), ("Subscription", "queue"), ("Event", "event"))


# Swapped in classes while any trace is being made -------------------------------------------------

_begin, _put, _get = CancelScope.begin, Queue._put, Queue._get
_traces = 0
_swap = allocate_lock()


def is_swapped_in() -> bool:
    """Return whether the methods are swapped just now."""
    return CancelScope.begin is not _begin or Queue._put is not _put or Queue._get is not _get


def swap_in() -> None:
    """A trace begins."""
    global _traces
    with _swap:
        _traces += 1
        CancelScope.begin = noting_begin  # type: ignore[method-assign]
        Queue._put = noting_put  # type: ignore[method-assign]
        Queue._get = noting_get  # type: ignore[method-assign]


def swap_out() -> None:
    """A trace ends. The last one puts the methods back."""
    global _traces
    with _swap:
        _traces -= 1
        if _traces == 0:
            CancelScope.begin = _begin  # type: ignore[method-assign]
            Queue._put = _put  # type: ignore[method-assign]
            Queue._get = _get  # type: ignore[method-assign]


def _traced() -> Any:
    """Return the scheduler that runs in this thread if it is traced, else None."""
    scheduler = running_scheduler()
    return scheduler if hasattr(scheduler, "seen_turn") else None


def noting_begin(self: CancelScope, depth: int) -> Task[Any]:
    """In the place of `CancelScope.begin`."""
    task = _begin(self, depth + 1)
    scheduler: Any = task.scheduler
    if hasattr(scheduler, "seen_turn"):
        number, label = scheduler.labels.scope(task, self)
        scheduler.note("scope.enter", task.id, number, label, scheduler.time(self._deadline))
    return task


def noting_put(self: Any, item: Any) -> None:
    """In the place of `Queue._put`. Who is handed the item is told of it first."""
    scheduler = _traced()
    if scheduler is None:
        _put(self, item)
        return
    running = scheduler.current
    task = None if running is None else running.id
    number, label = scheduler.labels.of(self)
    if self._getters:
        first = next(iter(self._getters))
        to = first.id if isinstance(first, Task) else None
        scheduler.note("queue.put", number, label, task, len(self._items), to)
        _put(self, item)
    else:
        _put(self, item)
        scheduler.note("queue.put", number, label, task, len(self._items), None)


def noting_get(self: Any) -> Any:
    """In the place of `Queue._get`."""
    item = _get(self)
    scheduler = _traced()
    if scheduler is not None:
        running = scheduler.current
        task = None if running is None else running.id
        scheduler.note("queue.get", *scheduler.labels.of(self), task, len(self._items))
    return item
