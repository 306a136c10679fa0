"""Signals as a stream of values: `open_signal_receiver`, a plain `with` block.

The handler that Python calls, in the main thread between two instructions, notes each signal in a
queue of its own; the wake-up pair only ends the wait of the selector, so a full pair loses nothing.
Ctrl-C as an exception is not here but in the kernel's `hooks.py`. A `SignalCall` hears a signal for
the library, as long as the program does not.
"""

from __future__ import annotations

import os
import signal
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from typing import Any

from corolib.coordination.waitqueue import WaitQueue, enqueue, wake_all
from corolib.kernel import (
    Scheduler,
    Suspend,
    Wake,
    brief,
    current_scheduler,
    handle_signal,
    handles_signals,
    public,
    serve,
    write_signals_to,
)


@public
def open_signal_receiver(*signums: int) -> SignalReceiver:
    """Receive signals as values: `with open_signal_receiver(SIGHUP, SIGTERM) as received: ...`.

    In the block, `signum = yield from received` waits for the next one, as does `async for signum
    in received`; they come in the order in which their handlers were called. Meanwhile they do
    nothing else: SIGTERM does not end the program, and Ctrl-C (SIGINT) raises nothing. Several
    tasks may wait; each signal goes to the one that has waited longest.

    No call of the handler is lost. The kernel and Python hand equal signals that are sent before
    the handler was called over as one, so do not count with them. When the block ends, the
    handlers from before are put back, and what nobody has received is sent once more to them, each
    number once: a signal that comes too late for the block does what it does outside of it.

    Args:
        signums: at least one number, such as `signal.SIGHUP`.

    Returns:
        The receiver. `received.receiving()` is its wait as a trap, for `first`.

    Raises:
        RuntimeError: not called in the main thread, where alone Python handles signals; no
            scheduler runs here; (at `with`) the receiver was used before, or another receiver is
            open for one of these signals; (at the wait) the block has ended.
        TypeError, ValueError: no signals, or these are none.
        OSError (at `with`): this signal cannot be handled, such as SIGKILL.
        Cancelled (at the wait): it was cancelled; no signal was taken.

    Example:
        >>> import corolib, os, signal
        >>> def main():
        ...     with corolib.open_signal_receiver(signal.SIGHUP) as received:
        ...         os.kill(os.getpid(), signal.SIGHUP)
        ...         signum = yield from received
        ...     return signum.name
        >>> corolib.run(main)
        'SIGHUP'

    Source: trio.open_signal_receiver.
    """
    if not handles_signals():
        raise RuntimeError(
            "open_signal_receiver() works only in the main thread of the main interpreter, where "
            "Python handles signals: let a scheduler there receive them, and call_soon_threadsafe "
            "into this one"
        )
    if not signums:
        raise TypeError("open_signal_receiver() takes at least one signal, such as signal.SIGHUP")
    known = {int(each): each for each in signal.valid_signals()}
    for each in signums:
        if isinstance(each, bool) or not isinstance(each, int):
            what = f"open_signal_receiver() got {brief(each)}"
            raise TypeError(f"{what}, which is no signal's number: give signal.SIGHUP, or another")
        if each not in known:
            what = f"open_signal_receiver() got {brief(each)}"
            raise ValueError(f"{what}: there is no such signal here")
    return SignalReceiver(current_scheduler(), {each: known[each] for each in signums})


@public
class SignalReceiver:
    """What `open_signal_receiver` returns: to be used once, in `with`."""

    gives_way = False
    """Whether another receiver of the same signal takes its place."""

    def __init__(self, scheduler: Scheduler, signums: dict[int, int]) -> None:
        self._scheduler = scheduler
        # For each number its name, if it has one.
        self._signums = signums
        self._waiting: WaitQueue = OrderedDict()
        # A handler may come in the middle of another one's: append is atomic, a count is not.
        self._arrived: deque[int] = deque()
        # Whether a call of `_hand_out` is under way.
        self._handing_out = False
        self._used = self._open = False
        self._undo: list[Callable[[], object]] = []
        self._process = 0

    def __enter__(self) -> SignalReceiver:
        if self._used:
            raise RuntimeError(f"{self!r} was used before: open a new one")
        self._used = self._open = True
        self._process = os.getpid()
        handlers = self._scheduler.run_local(SignalHandlers)
        try:
            for signum in self._signums:
                handlers.claim(signum, self)
                self._undo.append(handle_signal(signum, self._handle))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Put the handlers back, and send what nobody has received to them.

        In a forked child they were put back at once, and what has arrived is the parent's.
        """
        self._open = False
        if os.getpid() == self._process:
            self._give_back()

    def _give_back(self) -> None:
        for undo in self._undo:
            undo()
        self._undo.clear()
        self._scheduler.run_local(SignalHandlers).release(self)
        wake_all(self._waiting, error=self._closed)
        late = dict.fromkeys(self._arrived)
        self._arrived.clear()
        _send(list(late))

    def receiving(self) -> Suspend[int]:
        """Return the wait for the next signal, a trap: `yield` it, or hand it to `first`."""
        return Suspend(self._arm, f"receive {self._names()}", outside=True)

    def __iter__(self) -> Generator[Any, Any, int]:
        signum: int = yield self.receiving()
        return signum

    __await__ = __iter__

    def __aiter__(self) -> SignalReceiver:
        return self

    async def __anext__(self) -> int:
        return await self.receiving()

    def _arm(self, wake: Wake) -> Callable[[], object]:
        if not self._open:
            raise self._closed()
        undo = enqueue(self._waiting, wake)
        if self._arrived:
            self._hand_out()
        return undo

    def _handle(self, signum: int, frame: object) -> None:
        """Note a signal. Called by Python in the main thread, between any two instructions."""
        self._arrived.append(self._signums[signum])
        if not self._handing_out:
            self._handing_out = True
            self._scheduler.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        """Give what has arrived to those who wait."""
        self._handing_out = False
        while self._arrived and self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            serve(waiter, self._arrived.popleft())

    def _closed(self) -> RuntimeError:
        return RuntimeError(f"{self!r} is not open: receive inside its `with` block")

    def _names(self) -> str:
        return ", ".join(map(_name, self._signums.values()))

    def __repr__(self) -> str:
        return f"<SignalReceiver of {self._names()}>"


class SignalCall(SignalReceiver):
    """Has a signal make one call, in the loop and with no task running; further ones do nothing.

    It gives way: where the program opens a receiver, or sets a handler, that gets the signal.
    """

    gives_way = True

    def __init__(self, scheduler: Scheduler, signum: int, call: Callable[[], object]) -> None:
        super().__init__(scheduler, {signum: signum})
        self._call = call
        self._called = False

    def _handle(self, signum: int, frame: object) -> None:
        if not self._called:
            super()._handle(signum, frame)

    def _hand_out(self) -> None:
        if self._arrived:
            self._called = True
            self._arrived.clear()
            self._call()

    def _give_back(self) -> None:
        """Put the handler back. For what has come before, the call is made now."""
        self._hand_out()
        super()._give_back()


def _send(signums: list[int]) -> None:
    """Send each to this process, also when the handler of one raises."""
    if signums:
        try:
            signal.raise_signal(signums.pop(0))
        finally:
            _send(signums)


def _name(signum: int) -> str:
    return getattr(signum, "name", f"signal {signum}")


class SignalHandlers:
    """The receivers of a run, by signal; lives as long as the run. It also has each signal end the
    selector's wait.

    That takes `signal.set_wakeup_fd`: the kernel may hand a signal to any thread, and then the
    main thread, where the handler is to be called, sleeps on.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._wakeup_fd = scheduler.wakeup_fd
        self._receivers: dict[int, SignalReceiver] = {}
        self._write_elsewhere: Callable[[], object]

    def claim(self, signum: int, receiver: SignalReceiver) -> None:
        """Note that `receiver` handles `signum`; refuse if another one does."""
        other = self._receivers.get(signum)
        if other is not None and other.gives_way:
            other.close()
        elif other is not None:
            raise RuntimeError(
                f"{_name(signum)} is received by {brief(other)} already: it has one receiver; "
                "open it once, and hand its values on"
            )
        if not self._receivers:
            self._write_elsewhere = write_signals_to(self._wakeup_fd())
        self._receivers[signum] = receiver

    def release(self, receiver: SignalReceiver) -> None:
        """Forget `receiver`; after the last one the wake-up file from before is back."""
        mine = [signum for signum, each in self._receivers.items() if each is receiver]
        for signum in mine:
            del self._receivers[signum]
        if mine and not self._receivers:
            self._write_elsewhere()

    def end(self) -> None:
        """Close what a task has left open."""
        for receiver in dict.fromkeys(self._receivers.values()):
            receiver.close()
