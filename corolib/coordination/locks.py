"""Synchronisation: Event, Lock, RLock, Semaphore, BoundedSemaphore, Condition, Barrier, Result.

    yield from event.wait()             until somebody calls event.set()
    with (yield from lock): ...         the same for semaphores and conditions
    index = yield from barrier.wait()   until enough tasks have come
    value = yield from result           until somebody calls result.set(value)

All are fair: first come, first served. What becomes free is handed over to the first in the wait
queue there and then, so that nobody comes in between. A waiter that is cancelled has left the queue
before the exception reaches it. One that was chosen before gets what it was given, and `Cancelled`
at its next wait: its `with` block then gives it back. So nothing is ever handed to nobody.

`x.waiting()`, `x.acquiring()` return the trap itself, for `first`. What can be had at once is had
without a trap. None of these may be used from another thread. What carries items from task to task
is in `queues.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from corolib.coordination.waitqueue import Waitable, enqueue, nothing, wake_all
from corolib.kernel import (
    Deadlock,
    Suspend,
    Task,
    Wake,
    asks,
    brief,
    check_count,
    class_name,
    current_task,
    in_queue,
    is_a,
    must_yield,
    public,
    serve,
    trace_of,
    waits,
    with_trace,
)

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")


@public
class Event(Waitable):
    """A flag that tasks can wait for: `yield from event.wait()`.

    `is_set()` says how it stands. A task that was woken finds the flag down if somebody cleared it
    before the task's step.

    Args:
        name: for reports.

    Example:
        >>> import corolib
        >>> def main():
        ...     event = corolib.Event()
        ...     def setter():
        ...         yield
        ...         event.set()
        ...     corolib.spawn(setter)
        ...     yield from event.wait()
        ...     return event.is_set()
        >>> corolib.run(main)
        True

    Source: threading.Event.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self._set = False

    @asks
    def is_set(self) -> bool:
        """Return whether the flag is up."""
        return self._set

    def set(self) -> None:
        """Raise the flag and wake all who wait for it; does not wait."""
        self._set = True
        wake_all(self._waiting)

    def clear(self) -> None:
        """Take the flag down; does not wait."""
        self._set = False

    def waiting(self) -> Suspend[None]:
        """Return the trap that waits for the flag, for `first`."""
        return Suspend(self._arm, ("wait for", self))

    @waits
    def wait(self) -> Generator[Any, Any, None]:
        """Wait until the flag is up; at once if it is.

        Raises:
            Cancelled: the wait was cancelled.
        """
        if not self._set:
            yield in_queue(self._waiting, self.waiting)
        elif must_yield():
            yield self.waiting()

    def _arm(self, wake: Wake) -> Callable[[], object]:
        if self._set:
            wake()
            return nothing
        return enqueue(self._waiting, wake)

    def _state(self) -> str:
        return "set" if self._set else "not set"


class Held:
    """What `with (yield from lock):` is about: leaving the block gives the lock back."""

    # There is no `__init__`: it would be half of what the object costs.
    __slots__ = ("depth", "task", "thing")
    task: Task[Any]
    thing: Acquirable
    depth: int  # how often a lock is then held

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self.thing.give_back(self.task, kind)


def held_by(task: Task[Any], thing: Acquirable, depth: int = 1) -> Held:
    """Return what the `with` block of `task` is about."""
    held = Held()
    held.task = task
    held.thing = thing
    held.depth = depth
    return held


class Acquirable(Waitable):
    """What can be acquired and released: the spellings that locks and semaphores share."""

    @abstractmethod
    def release(self) -> None: ...
    @abstractmethod
    def take(self, task: Task[Any]) -> bool: ...

    def give_back(self, task: Task[Any], kind: type[BaseException] | None) -> None:
        """End a block of `task`, which is left by an exception of that kind, or by none."""
        self.release()

    def holders(self) -> tuple[Task[Any], ...]:
        """Return the tasks that hold it, as far as that is known."""
        return ()

    def acquiring(self) -> Suspend[Held]:
        """Return the trap that acquires it, for `first`: `with held:` then gives it back."""
        return Suspend(self._arm, ("acquire", self), holder=self.holders)

    @waits
    def acquire(self) -> Generator[Any, Any, Held]:
        """Wait until it is acquired: `with (yield from x):` also gives it back, which is better.

        Raises:
            Deadlock: a task acquires a `Lock` that it holds.
            RuntimeError: the task that held the lock ended without releasing it.
            Cancelled: the wait was cancelled; nothing was acquired.
        """
        task = current_task()
        if must_yield(task.scheduler):
            held: Held = yield self.acquiring()
            return held
        if not self.take(task):
            yield in_queue(self._waiting, self.acquiring)
        return held_by(task, self)

    if TYPE_CHECKING:  # checkers do not see that an alias is a method

        def __iter__(self) -> Generator[Any, Any, Held]: ...
    else:
        __iter__ = acquire

    def _arm(self, wake: Wake) -> Callable[[], object]:
        task = current_task()
        if self.take(task):
            wake(held_by(task, self))
            return nothing
        return enqueue(self._waiting, wake, held_by(task, self))

    def __enter__(self) -> None:
        raise TypeError(
            f"acquiring a {class_name(self)} can wait: write `with (yield from lock):`, "
            "or `async with lock:` in an `async def`"
        )

    def __exit__(self, *exc: object) -> None:
        """Is never called; without it `with` would not ask `__enter__`."""

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self.give_back(current_task(), kind)


@public
class Lock(Acquirable):
    """A lock that one task at a time holds: `with (yield from lock): ...`.

    If a task ends while it holds the lock, the state that the lock guards is unknown: tasks that
    wait for the lock, or acquire it later, get a RuntimeError that names the task. `owner` is the
    task that holds it, or None.

    Args:
        name: for reports.

    Example:
        >>> import corolib
        >>> def main():
        ...     lock = corolib.Lock("till")
        ...     with (yield from lock):
        ...         return repr(lock)
        >>> corolib.run(main)
        '<Lock till held by main#1>'

    Source: threading.Lock; the hand-over to the first waiter is trio's.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.owner: Task[Any] | None = None
        # How often the owner holds it: more than once only an RLock.
        self._depth = 0
        # The task that ended while it held the lock: then nobody gets it any more.
        self._orphaned = ""
        # Those that use this lock, in the order in which they came.
        self._conditions: WeakKeyDictionary[Condition, None] | None = None

    def take(self, task: Task[Any], depth: int = 1) -> bool:
        """Take it for `task` if it can be had at once; return whether it could."""
        if self._orphaned:
            raise self._lost()
        if self.owner is None:
            self._own(task, depth)
            return True
        return self.owner is task and self._again()

    def release(self) -> None:
        """Give the lock back, to the first waiter if there is one; does not wait.

        Raises:
            RuntimeError: the caller does not hold it.
        """
        self.check_holder(current_task(), "releases")
        self._release()

    def give_back(self, task: Task[Any], kind: type[BaseException] | None) -> None:
        """End a block of `task`, which is left by an exception of that kind, or by none.

        After a `Condition.wait()` that could not get the lock back it is somebody else's.
        """
        if self.owner is task:
            self._release()
        elif kind is None:
            self.check_holder(task, "releases")

    @asks
    def locked(self) -> bool:
        """Return whether a task holds it."""
        return self.owner is not None

    def check_holder(self, task: Task[Any], does: str) -> None:
        """Raise RuntimeError if `task` does not hold the lock."""
        if self.owner is not task:
            cure = ": write `with (yield from condition):` around it" if does != "releases" else ""
            raise RuntimeError(f"task {task.label} {does} {self!r} without holding it{cure}")

    def holders(self) -> tuple[Task[Any], ...]:
        """Return the task that holds it, if one does."""
        return () if self.owner is None else (self.owner,)

    def let_go(self) -> int:
        """Hand the lock to the first that waits, or to nobody; return how often it was held."""
        depth = self._depth
        del self.owner.holds[self]  # type: ignore[union-attr]
        if self._waiting:
            waiter, held = self._waiting.popitem(last=False)
            if isinstance(waiter, Task):
                self._own(waiter, 1)
            else:
                self._own(held.task, held.depth)
            serve(waiter, held)
        else:
            self.owner = None
        return depth

    @waits
    def get_back(self, depth: int) -> Generator[Any, Any, None]:
        """Wait until the lock that was let go is held again; at once if it was not let go."""
        task = current_task()
        if self.owner is not task and not self.take(task, depth):
            arm = partial(enqueue, self._waiting, item=held_by(task, self, depth))
            yield Suspend(arm, ("acquire", self), holder=self.holders)

    def attach(self, condition: Condition) -> None:
        """Remember a condition: its waiters wait for this lock too."""
        if self._conditions is None:
            self._conditions = WeakKeyDictionary()
        self._conditions[condition] = None

    def orphaned(self, task: Task[Any]) -> None:
        """The body of the holder has ended: raise in all who wait for the lock, now or later."""
        self.owner = None
        self._orphaned = task.label
        for each in (self, *(self._conditions or ())):
            wake_all(each._waiting, error=self._lost)

    def _own(self, task: Task[Any], depth: int) -> None:
        self.owner = task
        self._depth = depth
        if task.holds is None:
            task.holds = {}
        task.holds[self] = None

    _release = let_go

    def _again(self) -> bool:
        """Take a lock that the taker holds."""
        assert self.owner is not None
        raise Deadlock(
            f"task {self.owner.label} acquires {self.title()}, which it holds: it would wait for "
            "itself. An RLock can be held more than once"
        )

    def _lost(self) -> RuntimeError:
        return RuntimeError(
            f"{self.title()}: task {self._orphaned}, which held it, ended without releasing it; "
            "what the lock guards may be half done"
        )

    def _state(self) -> str:
        if self.owner is None:
            return f"orphaned by {self._orphaned}" if self._orphaned else "free"
        times = f" {self._depth} times" if self._depth > 1 else ""
        return f"held{times} by {self.owner.label}"


@public
class RLock(Lock):
    """A lock that its holder may acquire again; it is free when each was released.

    Args:
        name: for reports.

    Example:
        >>> import corolib
        >>> def main():
        ...     lock = corolib.RLock("till")
        ...     with (yield from lock):
        ...         with (yield from lock):
        ...             return repr(lock)
        >>> corolib.run(main)
        '<RLock till held 2 times by main#1>'

    Source: threading.RLock.
    """

    def _release(self) -> int:
        self._depth -= 1
        return self._depth or self.let_go()

    def _again(self) -> bool:
        self._depth += 1
        return True


@public
class Semaphore(Acquirable):
    """A number of permits: acquiring takes one, or waits for one. `with (yield from s): ...`.

    `value` is the number of permits left. Permits have no owner: any task may release, also one
    that has acquired nothing, and a report cannot say who holds them.

    Args:
        value: how many permits there are in the beginning.
        name: for reports.

    Raises:
        TypeError, ValueError: `value` is no whole number, or is negative.

    Example:
        >>> import corolib
        >>> def main():
        ...     two = corolib.Semaphore(2)
        ...     with (yield from two):
        ...         return two.value
        >>> corolib.run(main)
        1

    Source: E. W. Dijkstra, "Over de sequentialiteit van procesbeschrijvingen" (1962).
    """

    def __init__(self, value: int = 1, name: str = "") -> None:
        super().__init__(name)
        self.value = check_count(value, f"{class_name(self)}()", 0)

    def take(self, task: Task[Any]) -> bool:
        """Take a permit if there is one; return whether there was."""
        if self.value == 0:
            return False
        self.value -= 1
        return True

    def release(self) -> None:
        """Give a permit back, to the first waiter if there is one; does not wait."""
        if self._waiting:
            waiter, held = self._waiting.popitem(last=False)
            serve(waiter, held)
        else:
            self.value += 1

    @asks
    def locked(self) -> bool:
        """Return whether no permit is left."""
        return self.value == 0

    def _state(self) -> str:
        return f"{self.value} left"


@public
class BoundedSemaphore(Semaphore):
    """A semaphore that refuses to be released more often than it was acquired.

    Args:
        value: how many permits there are in the beginning, and at most.
        name: for reports.

    Raises:
        TypeError, ValueError: `value` is no whole number, or is negative; or at `release()`: all
            permits are there.

    Example:
        >>> import corolib
        >>> corolib.BoundedSemaphore(2, "two").release()
        Traceback (most recent call last):
        ValueError: <BoundedSemaphore two 2 left> is released more often than it was acquired

    Source: threading.BoundedSemaphore.
    """

    def __init__(self, value: int = 1, name: str = "") -> None:
        super().__init__(value, name)
        self._bound = value

    def release(self) -> None:
        """Give a permit back, to the first waiter if there is one; does not wait.

        Raises:
            ValueError: all permits are there.
        """
        if self.value == self._bound:
            raise ValueError(f"{self!r} is released more often than it was acquired")
        super().release()


@public
class Condition(Waitable):
    """A lock, and a wait queue of tasks that wait for a change of what it guards.

    with (yield from condition):
        yield from condition.wait_for(lambda: items)

    A waiter that was notified moves to the wait queue of the lock, so it is woken once, when it
    holds the lock again. There is no trap of this for `first`: what it would leave half done is
    not undone in one step.

    Args:
        lock: the `Lock` or `RLock` to use, which several conditions may share; None: a new `Lock`.
        name: for reports.

    Raises:
        TypeError: `lock` is something else.

    Example:
        >>> import corolib
        >>> def main():
        ...     items, news = [], corolib.Condition()
        ...     def produce():
        ...         with (yield from news):
        ...             items.append("bread")
        ...             news.notify()
        ...     corolib.spawn(produce)
        ...     with (yield from news):
        ...         yield from news.wait_for(lambda: items)
        ...         return items.pop()
        >>> corolib.run(main)
        'bread'

    Source: C. A. R. Hoare, "Monitors" (1974); threading.Condition; "wait morphing" of pthreads.
    """

    def __init__(self, lock: Lock | None = None, name: str = "") -> None:
        if not isinstance(lock, Lock | None):
            raise TypeError(
                f"Condition() got {brief(lock)} as its lock: give it a Lock or an RLock; "
                'a name is given as `Condition(name="...")`'
            )
        super().__init__(name)
        self.lock = Lock(name) if lock is None else lock
        self.lock.attach(self)

    @waits
    def acquire(self) -> Generator[Any, Any, Held]:
        """Wait until the lock is acquired; see `Lock.acquire`."""
        return (yield from self.lock.acquire())

    if TYPE_CHECKING:  # checkers do not see that an alias is a method

        def __iter__(self) -> Generator[Any, Any, Held]: ...
    else:
        __iter__ = acquire

    def release(self) -> None:
        """Give the lock back; see `Lock.release`."""
        self.lock.release()

    @asks
    def locked(self) -> bool:
        """Return whether a task holds the lock."""
        return self.lock.locked()

    @waits
    def wait(self) -> Generator[Any, Any, None]:
        """Wait, without the lock, until notified; and with it again.

        However this ends, the caller holds the lock again, with two exceptions: clean-up after a
        cancel may wait for the length of the grace, and if the lock is not to be had by then,
        `Cancelled` leaves without it; and a generator that is closed cannot wait at all. A block
        that is left by one of these raises nothing about the lock.

        Raises:
            RuntimeError: the caller does not hold the lock; or its holder ended without releasing
                it, and nobody gets it any more.
            Cancelled, or what else the wait was ended by (SystemExit, ScopeError): a notification
                that was already on its way went on to the next waiter.
        """
        task = current_task()
        self.lock.check_holder(task, "waits for")
        depth = self.lock._depth
        holder = partial(self._holders, task)
        try:
            yield Suspend(self._arm, ("wait for", self), holder=holder)
        except GeneratorExit:
            # A generator that is closed cannot wait.
            raise
        except BaseException:
            try:
                yield from self.lock.get_back(depth)
            except RuntimeError:
                # The lock was orphaned meanwhile.
                pass
            raise

    @waits
    def wait_for(self, predicate: Callable[[], T]) -> Generator[Any, Any, T]:
        """Wait until `predicate()` is true; it is called with the lock held. Returns its value.

        Raises:
            RuntimeError, Cancelled: as `wait`.
        """
        while not (value := predicate()):
            yield from self.wait()
        return value

    def notify(self, n: int = 1) -> None:
        """Let `n` waiters go on, those who came first; does not wait.

        Raises:
            RuntimeError: the caller does not hold the lock.
        """
        self.lock.check_holder(current_task(), "notifies")
        self._notify(n)

    def notify_all(self) -> None:
        """Let all waiters go on, one after the other as the lock becomes free; does not wait.

        Raises:
            RuntimeError: the caller does not hold the lock.
        """
        self.notify(len(self._waiting))

    def _arm(self, wake: Wake) -> Callable[[], object]:
        self._waiting[wake] = held_by(current_task(), self.lock, self.lock.let_go())
        return partial(self._undo, wake)

    def _undo(self, wake: Wake) -> None:
        if self._waiting.pop(wake, None) is None:
            # It was notified, so it waits for the lock, and another one is notified instead.
            del self.lock._waiting[wake]
            self._notify(1)

    def _notify(self, n: int) -> None:
        for _ in range(min(n, len(self._waiting))):
            wake, item = self._waiting.popitem(last=False)
            self.lock._waiting[wake] = item

    def _holders(self, task: Task[Any]) -> tuple[Task[Any], ...]:
        """Return who keeps `task` waiting: the lock's holder, if it was notified."""
        return self.lock.holders() if task.wait_state in self.lock._waiting else ()

    def __enter__(self) -> None:
        self.lock.__enter__()

    def __exit__(self, *exc: object) -> None:
        """Is never called; see `Lock`."""

    async def __aenter__(self) -> None:
        await self.lock.acquire()

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self.lock.give_back(current_task(), kind)

    def _state(self) -> str:
        return f"of {brief(self.lock)}"


@public
class Barrier(Waitable):
    """A meeting point: `index = yield from barrier.wait()` goes on when `parties` tasks have come.

    Then the next round begins. A waiter that is cancelled has left, and does not count. If one of
    those that the others wait for will never come, `abort()` tells them. `broken` says whether that
    was done.

    Args:
        parties: how many tasks make a round, at least 1.
        name: for reports.

    Raises:
        TypeError, ValueError: `parties` is no whole number, or is less than 1.

    Example:
        >>> import corolib
        >>> def main():
        ...     barrier = corolib.Barrier(2)
        ...     other = corolib.spawn(barrier.wait())
        ...     yield
        ...     mine = yield from barrier.wait()
        ...     return mine, (yield from other)
        >>> corolib.run(main)
        (1, 0)

    Source: threading.Barrier; H. F. Jordan, "A special purpose architecture" (1978).
    """

    def __init__(self, parties: int, name: str = "") -> None:
        super().__init__(name)
        self.parties = check_count(parties, "Barrier()", 1)
        self.broken = False

    def abort(self) -> None:
        """Break the barrier: each wait for it raises BrokenBarrierError; does not wait.

        It stays broken, also for later waits, until `reset()`.
        """
        self.broken = True
        wake_all(self._waiting, error=self._breach)

    def reset(self) -> None:
        """Begin a new round: waits for the old one raise BrokenBarrierError; does not wait."""
        wake_all(self._waiting, error=self._breach)
        self.broken = False

    def waiting(self) -> Suspend[int]:
        """Return the trap that waits for the others, for `first`."""
        return Suspend(self._arm, ("wait at", self))

    @waits
    def wait(self) -> Generator[Any, Any, int]:
        """Wait until all parties have come. Returns the place among them, 0 for the first.

        Raises:
            threading.BrokenBarrierError: a RuntimeError: the barrier was broken by `abort()`, or
                reset meanwhile.
            Cancelled: the wait was cancelled; this one does not count as having come.
        """
        index: int
        if self.broken:
            raise self._breach()
        if len(self._waiting) + 1 < self.parties:
            index = yield in_queue(self._waiting, self.waiting)
        elif must_yield():
            index = yield self.waiting()
        else:
            index = self._open()
        return index

    def _arm(self, wake: Wake) -> Callable[[], object]:
        if self.broken:
            raise self._breach()
        if len(self._waiting) + 1 == self.parties:
            wake(self._open())
            return nothing
        return enqueue(self._waiting, wake)

    def _open(self) -> int:
        """Let all go on that wait; return the place of the one who came last."""
        for index in range(self.parties - 1):
            waiter, _ = self._waiting.popitem(last=False)
            serve(waiter, index)
        return self.parties - 1

    def _breach(self) -> RuntimeError:
        from threading import BrokenBarrierError  # which takes long to import

        was = "is broken" if self.broken else "was reset"
        return BrokenBarrierError(f"{self.title()} {was}: not all of {self.parties} have come")

    def _state(self) -> str:
        return f"of {self.parties}{' broken' if self.broken else ''}"


@public
class Result(Waitable, Generic[T]):
    """A value that one task sets and others wait for: `value = yield from result`.

    Args:
        name: for reports.

    Example:
        >>> import corolib
        >>> def main():
        ...     answer = corolib.Result()
        ...     def work():
        ...         yield
        ...         answer.set(42)
        ...     corolib.spawn(work)
        ...     return (yield from answer)
        >>> corolib.run(main)
        42

    Source: H. Baker and C. Hewitt, "The incremental garbage collection of processes" (1977), which
    names futures; concurrent.futures.Future without its states.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self._done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        # The traceback that the error came with, before any wait raised it.
        self._raised: TracebackType | None = None

    @property
    def done(self) -> bool:
        """Whether there is a value, or a failure."""
        return self._done

    def set(self, value: T) -> None:
        """Give the value to all who wait for it, now or later; does not wait.

        Raises:
            RuntimeError: the result is there already.
        """
        self._settle(value, None)

    def fail(self, error: BaseException) -> None:
        """Have `error` raised in all who wait, now or later; does not wait.

        Raises:
            RuntimeError: the result is there already.
            TypeError: this is no exception.
        """
        if not is_a(error, BaseException):
            text = "give an exception, as `fail(ValueError(...))`"
            raise TypeError(f"fail() got {brief(error)}: {text}")
        self._settle(None, error)

    def waiting(self) -> Suspend[T]:
        """Return the trap that waits for the result, for `first`."""
        return Suspend(self._arm, ("wait for", self))

    @waits
    def wait(self) -> Generator[Any, Any, T]:
        """Wait for the result; at once if it is there. The same as `yield from result`.

        Raises:
            What `fail()` was given. Cancelled: the wait was cancelled.
        """
        try:
            value: T
            if not self._done:
                value = yield in_queue(self._waiting, self.waiting)
            elif must_yield():
                value = yield self.waiting()
            elif self._error is not None:
                raise self._error
            else:
                value = self._value  # type: ignore[assignment]
            return value
        except BaseException as exc:
            if exc is self._error:
                # The frames of other waits that raised it do not belong here. Nor does this one:
                # it holds the result.
                with_trace(exc, self._raised)
            raise

    def __iter__(self) -> Generator[Any, Any, T]:
        try:
            return (yield from self.wait())
        finally:
            # The traceback of a failure holds this frame, which would be a cycle.
            del self

    __await__ = __iter__

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        if self._done:
            raise RuntimeError(f"{self!r} is there already: it can be set once")
        self._done, self._value, self._error = True, value, error
        self._raised = None if error is None else trace_of(error)
        wake_all(self._waiting, value, lambda: error)

    def _arm(self, wake: Wake) -> Callable[[], object]:
        if self._done:
            wake(self._value, self._error)
            return nothing
        return enqueue(self._waiting, wake)

    def _state(self) -> str:
        if not self._done:
            return "pending"
        return "set" if self._error is None else f"failed with {brief(self._error)}"
