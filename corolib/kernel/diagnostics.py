"""What is found, put into words; how long steps take; and failures that nobody takes.

A message says who, what, where, and what to write instead. To find out that something is wrong is
not done here. Nothing heavy is imported, and nothing late that it cannot do without: a program that
has run out of files is told its mistakes too.
"""

from __future__ import annotations

import math
import os
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from corolib.kernel.checks import check_callable
from corolib.kernel.errors import RunFinished
from corolib.kernel.safely import (
    Block,
    attribute,
    brief,
    class_module,
    class_name,
    is_a,
    kind_of,
    module_of,
    name_of,
    note,
    trace_of,
)
from corolib.kernel.source import LOOPS, lines_of, loop_over
from corolib.kernel.traps import ReadWait, Sleep, Suspend, UrgentWait, WriteWait
from corolib.kernel.waits import PendingCall, Steps, forgive

if TYPE_CHECKING:
    from corolib.kernel.scheduler import Scheduler
    from corolib.kernel.task import Task

SLOW_STEP = 0.05  # seconds; a longer step is reported in debug mode
DEEPEST = 20  # levels of tasks below each other that a report shows by its margin
CHAIN = 3  # tasks that are named of a long chain, in which each has spawned the next and ended
WIDEST = 60  # characters to which a column is filled up
TAKES_ARGUMENTS = ("spawn", "run", "run_in_asyncio", "pool.run")  # as f(x); others take calls
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# Errors that newcomers' mistakes end in.
MISTAKES = (
    *(AttributeError, BlockingIOError, KeyError, NameError, TypeError, ValueError, RuntimeError),
)

_TRAPS = (ReadWait, WriteWait, UrgentWait, Sleep, Suspend)

N = TypeVar("N")

ErrorHook = Callable[["Task[Any] | None", BaseException], object]


class Diagnostics:
    """The hook for failures, the counts, and the clock on the steps."""

    __slots__ = ("_hook", "_scheduler", "longest_step")

    def __init__(self, scheduler: Scheduler, hook: ErrorHook | None) -> None:
        self._scheduler = scheduler
        self._hook = log_task_error if hook is None else hook
        check_callable(self._hook, "on_task_error", "a function")
        self.longest_step = 0.0  # seconds; measured in debug mode only

    def stats(self) -> dict[str, float]:
        """See `Scheduler.stats`."""
        scheduler = self._scheduler
        return {
            "turns": scheduler._turns,
            "steps": scheduler._steps,
            "spawned": scheduler._spawned,
            "tasks": len(scheduler._tasks),
            "ready": len(scheduler._ready),
            "timers": len(scheduler.timers),
            "files": len(scheduler._poller.entries),
            "longest_step": self.longest_step,
        }

    def report_failure(self, task: Task[Any] | None, error: BaseException) -> None:
        """Hand a failure that nobody takes to who answers for an ancestor of the task, or else to
        the hook; if that fails, both go to stderr.

        What leaves `run()` is seen there.
        """
        scheduler = self._scheduler
        lifecycle = scheduler._lifecycle
        if error is lifecycle.fatal:
            return
        # No task is running meanwhile: what the hook spawns is main's.
        current, scheduler.current = scheduler.current, None
        try:
            (_who_answers_for(task) or self._hook)(task, error)
        except (SystemExit, KeyboardInterrupt) as exc:
            if lifecycle.ctrl_c.second:
                raise
            lifecycle.end(exc)
        except BaseException as exc:
            # This needs no import, which may be what has failed.
            for each in (error, exc):
                sys.__excepthook__(type(each), each, trace_of(each))
        finally:
            scheduler.current = current

    def call_failed(self, task: Task[Any] | None, error: BaseException) -> None:
        """Report the failure of a call outside of any step, as of `task` or of main.

        A call that was left for a run which has ended meanwhile is too late: that is no failure.
        In a forked child, where nothing else is done, it leaves `run()`.
        """
        scheduler = self._scheduler
        lifecycle = scheduler._lifecycle
        if lifecycle.forked:
            raise error
        if is_a(error, (SystemExit, KeyboardInterrupt)):
            if lifecycle.ctrl_c.second:
                raise error
            lifecycle.end(error)
        elif not (is_a(error, RunFinished) and scheduler.is_closed):
            if task is None:
                note(error, "(raised in a callback of the scheduler's, not in a task)")
            scheduler.report_failure(task or scheduler.main, error)

    def timed(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Return `step` with a look at the clock before and after: debug mode."""
        scheduler = self._scheduler

        def timed_step(f: Callable[..., Any], value: Any) -> Any:
            began = scheduler.clock()
            try:
                return step(f, value)
            finally:
                # A traceback may hold this frame: it must not hold the body or the task.
                del f, value
                task = scheduler.current
                if task is not None and task.innermost is not None:
                    scheduler.cancellation.check(task)
                took = scheduler.clock() - began
                self.longest_step = max(self.longest_step, took)
                # At the end of one that fails, the mistake is looked for, which takes a while.
                if took > SLOW_STEP and task is not None and task.failure is None:
                    with suppress(Exception):  # it is not the task's fault if nobody can be told
                        log().warning(slow_step(task, took))
                del task

        return timed_step


def _who_answers_for(task: Task[Any] | None) -> ErrorHook | None:
    """Return what takes the failures of a task that nobody takes, because it watches one of its
    ancestors and has a method `child_failed`; None if nothing does.
    """
    while task is not None and task.parent is not None:
        task = task.parent
        for watcher in task.joiners or ():
            hook: ErrorHook | None = getattr(watcher, "child_failed", None)
            if hook is not None:
                return hook
    return None


def log_task_error(task: Task[Any] | None, error: BaseException) -> None:
    """Log a failure that nobody takes: the default of `on_task_error=`."""
    who = "a callback" if task is None else f"task {task.label}, spawned at {task.spawned_at},"
    log().error("%s failed", who, exc_info=(type(error), error, trace_of(error)))


class Throttle:
    """Lets one line of each kind into a log in so many seconds, and counts the others.

    Who provokes failures in a loop would fill a disk. There is one for all of a run that a peer can
    choose from, servers or files; else the lines would be as many as those.

    Args:
        clock: tells the time in seconds.
        every: seconds between two lines of one kind.
    """

    __slots__ = ("_clock", "_every", "_kinds")

    def __init__(self, clock: Callable[[], float], every: float) -> None:
        self._clock = clock
        self._every = every
        # Of each kind: when a line was let through last, and how many were left out since then.
        self._kinds: dict[str, tuple[float, int]] = {}

    def passes(self, kind: str) -> int | None:
        """Return how many of a kind were left out since the last line, if one may be written now.

        None: this one is left out as well.
        """
        last, more = self._kinds.get(kind, (-math.inf, 0))
        now = self._clock()
        if now < last + self._every:
            self._kinds[kind] = last, more + 1
            return None
        self._kinds[kind] = now, 0
        return more

    def left_out(self) -> list[tuple[str, int]]:
        """Return the kinds of which some were left out since the last line, and how many."""
        return [(kind, more) for kind, (_, more) in self._kinds.items() if more]


def log_refusal(what: str, error: Exception) -> None:
    """Log that the system refuses something, which is tried again."""
    # Without free file numbers, the module may be what cannot be had.
    with suppress(Exception):
        log().warning("%s, which is tried again: %s", what, error)


def log() -> Any:
    """Return the logger of failures and slow steps."""
    import logging

    return logging.getLogger("corolib.task")


def to_stderr(thing: object) -> None:
    """Print on stderr, if that can be: nothing that must be done depends on it."""
    with suppress(Exception):
        print(thing, file=sys.stderr, flush=True)


def frame_of(task: Task[Any]) -> FrameType | None:
    """Return the innermost frame of the task that is not the library's own, if it has one."""
    users = [f for f in task.stack() if not f.f_code.co_filename.startswith(_HERE)]
    return users[-1] if users else None


def where(task: Task[Any]) -> str:
    """Return where a task stands in the program: `file.py:12`.

    A call of the library's, `spawn(stream.recv, 100)`, and a task that is at its end stand nowhere
    in it: for them it is where they were spawned.
    """
    frame = frame_of(task)
    if frame is None:
        spawned = f"spawned at {short(task.spawned_at)}"
        return f"a call {spawned}" if task.stack() else f"its end ({spawned})"
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def short(site: str) -> str:
    """Return `dir/file.py:12` without its directory."""
    return os.path.basename(site)


def explained(error: BaseException) -> BaseException:
    """Return an error that leaves a task, with a note if it is a mistake that is known."""
    if is_a(error, MISTAKES):
        with suppress(Exception):  # an error without its note is better than another error
            from corolib.advice.mistakes import note_on

            text = note_on(error)
            if text and text not in (attribute(error, "__notes__") or ()):
                note(error, text)
    return error


def busy(trap: ReadWait | WriteWait | UrgentWait, waiter: Task[Any]) -> str:
    """Return the message for the second waiter in one direction."""
    goals = {WriteWait: "to write", UrgentWait: "for urgent data of"}
    goal = goals.get(kind_of(trap, goals), "to read")
    return (
        f"{brief(trap)}: task {waiter.label} ({where(waiter)}) is already waiting {goal} this "
        "file. Let one task do that for all"
    )


def _at_yield(frame: FrameType | None) -> tuple[str, str]:
    """Return the line in which a frame yields, as what stands before the `yield` and what stands
    behind it; nothing of that if it cannot be had.
    """
    if frame is None:
        return "", ""
    positions = islice(frame.f_code.co_positions(), frame.f_lasti // 2, None)
    line, last, column, _ = next(positions, (None,) * 4)
    lines = lines_of(frame.f_code.co_filename)
    if line is None or line != last or line > len(lines):
        return "", ""
    row = lines[line - 1].encode()
    if row[column:][:5] != b"yield":
        return "", ""
    return row[:column].decode().lstrip(), row[column:][5:].decode().rstrip()


def wrong_yield(task: Task[Any], thing: Any) -> str:
    """Return the message for a task that yielded something other than a trap."""
    frame = frame_of(task)
    who = f"task {task.label} at {where(task)}"
    kinds = {id(types.GeneratorType): "generator", id(types.CoroutineType): "coroutine"}
    kinds[id(PendingCall)] = "generator"
    # They are compared by id, since a metaclass may define any `==`.
    kind = kinds.get(id(type(thing)))
    if kind is not None and not _is_asyncios(thing):
        name = f"{name_of(thing).lstrip('_')}()"  # `gather()` returns a `_gather()`
        forgive(thing)
        before, after = _at_yield(frame)
        after = after or f" {name}"
        if after.startswith(" from "):
            return f"{who} did `{before}yield{after}`: {_several(before, after[6:], thing)}"
        did = f"{before}yield{after}"
        cure = f"{before}yield from{after}"
        if kind == "coroutine":
            cure = f"yield from spawn({name})"
        return (
            f"{who} did `{did}`: that hands the scheduler the {kind} {name} instead of running it. "
            f"Write `{cure}`"
        )
    try:
        advice = _advice(thing, *_at_yield(frame))
    except Exception:
        # Things may fail at whatever one asks them.
        advice = ""
    return f"{who} yielded {brief(thing)}, which is not a trap. {advice}".rstrip()


def _several(before: str, after: str, thing: Any) -> str:
    """Return what is wrong with `yield from` in front of what gives one call after the other."""
    name = name_of(thing).lstrip("_")
    forgive(thing)
    for maker, (each, _) in LOOPS.items():
        if name == each:
            right = loop_over(maker, after, "yield from")
            return f"{maker}() gives one wait after the other. Write `{right}`"
    return f"that gives calls, and runs none. Write `{before}yield from gather(*{after})`"


def no_undo(trap: Suspend[Any], undo: object) -> str:
    """Return the message for an `arm` that returned something other than the undo."""
    return f"arm of {brief(trap)} returned {brief(undo)}: it must return the undo, a function"


def no_error(thing: object) -> str:
    """Return the message for a `wake` that was given something other than an exception."""
    return f"wake(error={brief(thing)}): an error is an exception, and not its class"


def _advice(thing: Any, before: str, after: str) -> str:
    """Return the sentence on what to write instead of yielding `thing`, or nothing.

    Args:
        before, after: what stands around the `yield`, if that is known.
    """
    from corolib.advice.foreign import ASYNCIO, asyncio_cure, waiting_call

    kind = type(thing)
    if _is_asyncios(thing):
        thing.close()
        return asyncio_cure(name_of(thing))
    if kind is int or kind is float:
        return f"Did you mean `yield Sleep({brief(thing)})`?"
    if isinstance(thing, type) and thing in _TRAPS:
        return f"Did you mean `yield {name_of(thing)}(...)`, an instance of it?"
    if kind is list or kind is tuple:
        calls = [each for each in thing if isinstance(each, types.GeneratorType)]
        for each in calls:
            forgive(each)
        if calls:
            return f"It gives calls, and runs none. Write `{before}yield from gather(*{after[1:]})`"
    if kind is Block:
        name = before.removesuffix(" = ").rstrip("( ")
        return f"It is the beginning of a block: write `with{after} as {name or 'news'}:`"
    if kind is Steps:
        loop = loop_over(thing.maker, after, "yield from")
        return f"It gives one wait after the other. Write `{loop}`"
    module = class_module(thing)
    if module.startswith(("asyncio", "_asyncio")):
        return f"It is asyncio's, and corolib cannot wait for it. {ASYNCIO}"
    if module.startswith("concurrent.futures"):
        return "Write `yield from wait_future(...)`"
    if module.startswith("corolib"):
        if hasattr(kind, "__iter__"):
            return "Write `yield from` in front of it"
        if call := waiting_call(kind):
            owner = next(each for each in kind.__mro__ if call.partition("(")[0] in vars(each))
            name = after if after[1:].isidentifier() else f" {name_of(owner).lower()}"
            return f"Did you mean `{before}yield from{name}.{call}`?"
    if hasattr(kind, "__await__"):
        return "In a generator, an `async def` is called with `yield from spawn(f, *args)`"
    if hasattr(thing, "fileno"):
        return "Did you mean `yield ReadWait(...)` or `yield WriteWait(...)`?"
    if callable(thing):
        name = after if after[1:].replace(".", "").isidentifier() else " f"
        return f"Was it to be called? If it can wait: `{before}yield from{name}()`"
    return (
        "A task yields ReadWait, WriteWait, Sleep, Suspend, or nothing. What it gives back stands "
        "after `return`"
    )


def _is_asyncios(thing: Any) -> bool:
    """Return whether a thing is the call of an `async def` of asyncio's."""
    frame = getattr(thing, "cr_frame", None) if type(thing) is types.CoroutineType else None
    return frame is not None and module_of(frame).startswith("asyncio")


def not_runnable(caller: str, f: Any, made: Any) -> str:
    """Return the message for `spawn(f)` or `run(f)` where no generator or coroutine came out."""
    if isinstance(made, types.AsyncGeneratorType):
        return (
            f"{caller}() got an async generator from {function_at(f)}: it has both `async` and "
            "`yield`; a task is one or the other. Use `await` instead of `yield`: `await Sleep(1)`"
        )
    if made is f:
        got = f"{caller}() got {brief(f)}"
        many = caller not in TAKES_ARGUMENTS
        if isinstance(f, (list, tuple, set)):
            ways = f"`{caller}(*calls)`" if many else "`gather(*calls)` takes many"
            return f"{got}, a {class_name(f)}: give calls one by one; {ways}"
        if hasattr(type(f), "__await__"):
            return (
                f"{got}, which is no call, and is waited for by `yield from`. "
                f"Give a call, as `serve_tcp(f, host, port)` is one: `{caller}(f(x))`"
            )
        if many:
            return f"{got}: give what a generator function returned, `{caller}(f(x))`"
        return (
            f"{got}: give a generator function and its arguments, `{caller}(f, x)`, or what one "
            f"returned, `{caller}(f(x))`"
        )
    if isinstance(made, types.FunctionType | types.MethodType):
        return (
            f"{function_at(f)} returned the function {function_at(made)}, which was not called: "
            f"write `{name_of(made)}(...)` there"
        )
    return (
        f"{caller}() got {brief(made)} from {function_at(f)}: it has no `yield`, so it is not a "
        "generator function, and its body has already run"
    )


def function_at(f: Any) -> str:
    """Return how messages name a function: `echo() (app.py:3)`."""
    name = f"{name_of(f, brief(f))}()"
    code = attribute(f, "__code__")
    if isinstance(code, types.CodeType) and not code.co_filename.startswith(_HERE):
        name += f" ({os.path.basename(code.co_filename)}:{code.co_firstlineno})"
    return name


def slow_step(task: Task[Any], seconds: float) -> str:
    """Return the message for a step that kept all other tasks waiting.

    One that stands in the library alone has no work of the program's, which could be elsewhere.
    """
    text = (
        f"task {task.label} took {seconds:.3f} s for one step, which ended at {where(task)}; "
        "all other tasks waited meanwhile"
    )
    if frame_of(task) is None and task.stack():
        return text
    return f"{text}. Work that long belongs in a thread: `to_thread(f)`"


def doing(task: Task[Any]) -> str:
    """Return what a task is doing, in a few words: what it waits for, or its state."""
    if task.state == "waiting":
        return brief(task.wait)
    if task.state == "completing":
        return "completing, waits for " + some([c.label for c in task.children])
    return task.state


def some(labels: list[str]) -> str:
    """Return the first of many, and how many more there are."""
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    return ", ".join(labels[:5]) + more


def depends_on(task: Task[Any]) -> list[Task[Any] | None]:
    """Return the tasks on which the end of this task's wait depends. None: on something else too.

    There are none if nobody knows.
    """
    if task.state == "completing":
        return [*task.children]
    holder = getattr(task.wait, "holder", None)
    if holder is not None:
        try:
            return [each for each in holder() if each is None or hasattr(each, "label")]
        except Exception:  # a report is no place to fail in
            return []
    return []


def holders(task: Task[Any]) -> list[Task[Any]]:
    """Return the tasks that are known to keep this one waiting."""
    return [each for each in depends_on(task) if each is not None]


def held_by(task: Task[Any], what: str) -> str:
    """Return `(held by b#3)`, or nothing if there is none whom the words `what` do not name."""
    if task.state == "completing":
        return ""
    named = what.replace(",", " ").split()
    labels = [each.label for each in dict.fromkeys(holders(task)) if each.label not in named]
    return f"(held by {some(labels)})" if labels else ""


def stuck(tasks: Iterable[Task[Any]]) -> list[Task[Any]]:
    """Return those that can go on no more unless they are cancelled, whatever the others do.

    Each of them depends on tasks that are all among them. They are what is left when all are taken
    away that something else may set going, and all that depend on one of these. A deadline is
    something else, also one of a parent.
    """
    left: dict[Task[Any], list[Task[Any] | None]] = {}
    bounded = set()
    for task in tasks:
        if task.parent in bounded or _has_deadline(task):
            bounded.add(task)
        elif not (task.pending or getattr(task.wait, "outside", False)):
            left[task] = depends_on(task)
    dependants: dict[Task[Any] | None, list[Task[Any]]] = {}
    gone: list[Task[Any] | None] = [task for task in left if not left[task]]
    for task, others in left.items():
        for other in others:
            dependants.setdefault(other, []).append(task)
            if other not in left:
                gone.append(other)
    while gone:
        each = gone.pop()
        left.pop(each, None)  # type: ignore[arg-type]
        gone += dependants.pop(each, ())
    return list(left)


def _has_deadline(task: Task[Any]) -> bool:
    """Return whether a block of the task ends by itself."""
    scope = task.innermost
    while scope is not None:
        if getattr(scope, "deadline", None) not in (None, math.inf):
            return True
        scope = scope.outer
    return False


def deadlock(tasks: Iterable[Task[Any]]) -> str:
    """Return the report on tasks of which none can ever run again, with the cycle if there is one.

    Source: the wait-for graph of operating-system textbooks.
    """
    tasks = list(tasks)
    lines = ["no task can ever run again:", *_who_waits_for_whom(tasks)]
    if len(tasks) > 1 and not find_cycle(tasks, holders):
        lines.append(
            "  (a task that only works for others may end with them: `spawn(f, daemon=True)`; "
            "or let one of these `cancel()` the others)"
        )
    lines.append(
        "  (if a thread or a signal handler of yours will wake one of them, say so: "
        "`with current_scheduler().hold():`)"
    )
    return "\n".join(lines)


def never_again(task: Task[Any], tasks: Iterable[Task[Any]]) -> str | None:
    """Return the report on a task that can go on no more, though others run; None if it can."""
    lost = stuck(tasks)
    if task not in lost:
        return None
    title = f"{task.label} can never go on, though others run:"
    return "\n".join([title, *_who_waits_for_whom(lost)])


def _who_waits_for_whom(tasks: list[Task[Any]]) -> list[str]:
    rows = []
    for task in tasks:
        what = doing(task)
        frame = frame_of(task)
        place = f"at {frame.f_code.co_name} ({where(task)})" if frame else f"at {where(task)}"
        rows.append((task.label, what, held_by(task, what), place))
    lines = _columns(rows)
    cycle = find_cycle(tasks, holders)
    if cycle:
        lines.append("  cycle: " + " -> ".join(task.label for task in [*cycle, cycle[0]]))
    return lines


def find_cycle(nodes: Iterable[N], waits_for: Callable[[N], Iterable[N]]) -> list[N]:
    """Return nodes of which each waits for the next, and the last for the first; or none."""
    finished: set[N] = set()
    for start in nodes:
        path: dict[N, None] = {}
        trail = [iter([start])]
        while trail:
            node = next(trail[-1], None)
            if node is None:
                trail.pop()
                if path:
                    finished.add(path.popitem()[0])
            elif node in path:
                return list(path)[list(path).index(node) :]
            elif node not in finished:
                path[node] = None
                trail.append(iter(waits_for(node)))
    return []


def dump(tasks: Iterable[Task[Any]], summary: str) -> str:
    """Return all tasks as text, children under their parents: what, since where, standing where.

    Below them come those that can never go on, as in the report on a deadlock.
    """
    tasks = list(tasks)
    below: dict[Task[Any] | None, list[Task[Any]]] = {}
    for task in tasks:
        below.setdefault(task.parent, []).append(task)
    lines = [summary]
    todo = [(task, 0) for task in reversed(below.get(None, []))]
    links = 0
    while todo:
        task, depth = todo.pop()
        children = below.get(task, [])
        todo += [(child, depth + 1) for child in reversed(children)]
        indent = "  " * min(depth + 1, DEEPEST)
        # Each of them has spawned the next, and ended.
        if task.state == "completing" and len(children) == 1:
            links += 1
            if links > CHAIN:
                continue
        elif links > CHAIN:
            lines.append(f"{indent}({links - CHAIN} more, each the parent of the next)")
            links = 0
        else:
            links = 0
        daemon = " (daemon)" if task.daemon else ""
        what = doing(task)
        held = held_by(task, what)
        what = f"{what}  {held}" if held else what
        lines.append(f"{indent}{task.label}{daemon}  {what}  spawned at {task.spawned_at}")
        for frame in task.stack():
            code = frame.f_code
            lines.append(f"{indent}    in {code.co_name} at {code.co_filename}:{frame.f_lineno}")
    lost = stuck(tasks)
    if lost:
        lines += ["can never go on, though others run:", *_who_waits_for_whom(lost)]
    return "\n".join(lines)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows of words as aligned lines."""
    widths = [
        min(WIDEST, max(len(row[i]) for row in rows)) for i in range(len(rows[0]) if rows else 0)
    ]
    return [
        "  " + "  ".join(word.ljust(w) for word, w in zip(row, widths, strict=True) if w).rstrip()
        for row in rows
    ]
