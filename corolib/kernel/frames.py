"""Where code stands: frames of a body, the line that made a task, the user's part of a traceback.

Generators, coroutines and tracebacks are known here, and no task.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, TracebackType
from typing import Any

from corolib.kernel.safely import attribute, class_name, is_a, module_of, trace_of, with_trace
from corolib.kernel.source import line_of as line_of
from corolib.kernel.waits import SKIPPED

CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x200  # as in `inspect`
SUSPENDABLE = CO_GENERATOR | CO_COROUTINE | 0x100 | 0x200  # of `types.coroutine`, and async ones

_OPTIMIZED = 0x1  # code whose local variables are in no dictionary of the program's

KERNEL = ("corolib.kernel.", "corolib.trace.")  # what steps the user's code
LIBRARY = "corolib."
PACKAGES = frozenset(
    f"corolib.{name}"
    for name in ("kernel", "advice", "coordination", "net", "system", "testing", "interop", "trace")
)
Site = tuple[CodeType, int]  # a place in the code: what was called there, and which instruction
# Attributes of generators, coroutines, async generators: the code, the frame, what is delegated to.
_BODIES = (
    ("gi_code", "gi_frame", "gi_yieldfrom"),
    ("cr_code", "cr_frame", "cr_await"),
    ("ag_code", "ag_frame", "ag_await"),
)


def call_site(depth: int) -> Site:
    """Return code and instruction of the innermost caller outside the library.

    It is `depth` frames up, or further: to look at each of them costs as much as all the rest. To
    find the line takes longer, and is left to those that ask: `Task.spawned_at`.
    """
    try:
        frame = sys._getframe(depth)
    except ValueError:
        # C made the call, and nobody's frame is behind it.
        frame = sys._getframe(1)
    while frame.f_globals.get("__package__") in PACKAGES and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def users_part(error: BaseException, library: str | tuple[str, ...] = KERNEL) -> BaseException:
    """Return `error` without the frames by which the library reached the user's code.

    These are the kernel's; or all of the `LIBRARY`'s, where a wait could not be made. They say
    nothing, and they would tie the error and the task into a cycle.
    """
    trace = trace_of(error)
    while trace is not None and module_of(trace.tb_frame).startswith(library):
        trace = trace.tb_next
    return with_trace(error, trace)


def programs_lines(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of the library, and of what it has called of Python's.

    What the program has called of Python's stays.
    """
    kept: list[TracebackType] = []
    internal = True
    while trace is not None:
        module = module_of(trace.tb_frame)
        pythons = module.partition(".")[0] in sys.stdlib_module_names
        internal = module.startswith(LIBRARY) or (internal and pythons)
        if not internal:
            kept.append(trace)
        trace = trace.tb_next
    for each in reversed(kept):
        each.tb_next = trace
        trace = each
    return trace


def frames_of(body: Any, running: bool) -> list[FrameType]:
    """Return the frames of a body and of all that it delegates to, outermost first.

    If it is running, they are the calls that it is in.
    """
    frames = list(_suspended(body))
    if frames and running:
        frames = _inwards(frames[0]) or frames
    return [frame for frame in frames if frame.f_code not in SKIPPED]


def variables_of(frame: FrameType) -> dict[str, Any]:
    """Return the local variables of a function that is suspended, and leave all as it was."""
    kept = frame.f_locals
    found = dict(kept)
    if type(kept) is dict and frame.f_code.co_flags & _OPTIMIZED:  # pragma: no cover - before 3.13
        # Else the frame would keep them alive for as long as it lives. But this function, the frame
        # and the count alone must have that dictionary: the program gets it from `locals()`.
        if sys.getrefcount(kept) == 3:
            kept.clear()
    return found


def knows_its_frames(body: Any) -> bool:
    """Return whether the frames of a body can all be seen: nothing foreign hides what is below."""
    while body is not None:
        body, known = _below(body)
        if not known:
            return False
    return True


def _inwards(outermost: FrameType) -> list[FrameType]:
    """Return the frames of this thread from `outermost` inwards, less those that ask for them.

    There are none if it runs in another thread.
    """
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not outermost:
        frames.append(frame)
        frame = frame.f_back
    if frame is None:
        return []
    while frames and module_of(frames[0]).startswith(LIBRARY):
        del frames[0]
    return [outermost, *reversed(frames)]


def _suspended(body: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended body and of all that it delegates to, outermost first."""
    while body is not None:
        for _, name, _ in _BODIES:
            frame = attribute(body, name)
            if type(frame) is FrameType:  # an object may answer every attribute
                yield frame
        body, _ = _below(body)


def _below(body: Any) -> tuple[Any, bool]:
    """Return what a suspended body delegates to, or None; and whether that could be seen at all.

    The awaitables of async generators and of `coroutine.__await__()` name what they run to nobody
    but the garbage collector.
    """
    for of_code, _, name in _BODIES:
        if type(attribute(body, of_code)) is CodeType:
            return attribute(body, name), True
    if class_name(body) in (
        "async_generator_asend",
        "async_generator_athrow",
        "coroutine_wrapper",
    ):
        kinds = (AsyncGeneratorType, CoroutineType)
        return next(it for it in gc.get_referents(body) if is_a(it, kinds)), True
    return None, False
