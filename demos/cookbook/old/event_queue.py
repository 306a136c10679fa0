"""Events of two devices, a mouse and a keyboard, looked for by one thread.

Faults: `scan` asks again and again, thousands of times for each event, and burns a processor.
`scan_blocking` waits for the mouse, and does not look at the keyboard while nothing clicks.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue

Device = SimpleQueue[str]
Handler = Callable[[str], object]


def scan(devices: dict[str, Device], handlers: dict[str, Handler]) -> None:
    while True:
        for kind, device in devices.items():
            try:
                handlers[kind](device.get_nowait())
            except Empty:
                pass


def scan_blocking(devices: dict[str, Device], handlers: dict[str, Handler]) -> None:
    while True:
        for kind, device in devices.items():
            handlers[kind](device.get())
