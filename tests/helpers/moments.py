"""The moments at which Python calls signal handlers, one after the other: a tool of the tests.

They are behind calls, at the beginning of functions, and at the end of each round of a loop.
"""

import subprocess
import sys
from collections.abc import Callable
from dis import opname
from types import FrameType
from typing import Any

import corolib

WITHIN = (*corolib.__path__, subprocess.__file__)


class Moment:
    """Does `act()` at one moment: the nth from `sys.settrace(moment.trace)` on, in the library, and
    in what of the standard library may leave something behind.

    What `act()` raises is raised there. `come`: whether there were as many moments.
    """

    def __init__(self, n: int, act: Callable[[], object]) -> None:
        self.come = False
        self._left = n
        self._act = act
        self._last: dict[FrameType, int] = {}

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(WITHIN):
            return None
        frame.f_trace_opcodes = True
        done = self._last.get(frame)
        self._last[frame] = frame.f_lasti
        if event != "opcode" or done is None:
            return self.trace
        name = opname[frame.f_code.co_code[done]]
        self._left -= name.startswith(("RESUME", "CALL", "JUMP_BACKWARD"))
        if self._left < 0:
            sys.settrace(None)
            self._last.clear()  # they would live on
            self.come = True
            self._act()
        return self.trace
