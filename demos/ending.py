"""How a demo that starts programs ends them, whatever ends it.

    spawn(end_by_signal, daemon=True)

SIGTERM, and the end of the terminal, would end this process at once, and leave its children behind.
So they end the run instead, as Ctrl-C does, with all its blocks and clean-ups. The children are
started with `group=True`: a Ctrl-C at the terminal is for this program, which ends them.
"""

from __future__ import annotations

import signal

from corolib import Coro, open_signal_receiver


def end_by_signal() -> Coro[None]:
    """Wait for such a signal, unless it is ignored, as under `nohup`; then end the run."""
    heard = [e for e in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(e) is signal.SIG_DFL]
    if heard:
        with open_signal_receiver(*heard) as ended:
            signum = yield from ended
        raise SystemExit(128 + signum)
