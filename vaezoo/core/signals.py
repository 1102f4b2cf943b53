"""Signals that ask the process to end. They end it at once, or, where work would be lost, at the next safe point.

The library installs no handler by itself. The commands call `handle_signals`, and other programs may do so. Without it
a keyboard interrupt is Python's own, and the newest checkpoint stays valid.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# Seconds in which a second SIGINT counts as the first: the terminal and torchrun (or another launcher) both send one.
REPEAT_WINDOW = 1.0


class Stopped(KeyboardInterrupt):
    """The process was asked to end. Like KeyboardInterrupt it is not an Exception, so no handler swallows it.

    Attributes:
        exit_code: 130 after an interrupt, 143 after a request to terminate or a lost terminal.
        hint: How to continue, where that is possible.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__("interrupted" if number == signal.SIGINT else "asked to terminate")
        self.exit_code = 130 if number == signal.SIGINT else 143
        self.hint = "files written so far are complete"


_pending = 0  # the first signal that arrived
_pending_since = 0.0
_deferring = False


@contextmanager
def handle_signals() -> Iterator[None]:
    """Turns the signals that ask a process to end into `Stopped`, in the main thread and inside the block.

    A second keyboard interrupt ends the process at once. Signals that were already ignored stay ignored.
    """
    global _pending, _deferring
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup, background jobs
    before = {number: signal.signal(number, _on_signal) for number in handled}
    _pending, _deferring = 0, False
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _pending = 0


@contextmanager
def defer_signals() -> Iterator[None]:
    """Only records signals inside the block. The block calls `raise_if_stopped` where it is safe to end."""
    global _deferring
    before, _deferring = _deferring, True
    try:
        yield
    finally:
        _deferring = before


@contextmanager
def allow_signals() -> Iterator[None]:
    """Lets signals raise again within `defer_signals`.

    It is for slow work that changes nothing and communicates with no other process.

    Raises:
        Stopped: At once if a signal has arrived already.
    """
    global _deferring
    before, _deferring = _deferring, False
    try:
        raise_if_stopped()
        yield
    finally:
        _deferring = before


def pending_signal() -> int:
    """Returns the signal that asked this process to end, or 0."""
    return _pending


def raise_if_stopped() -> None:
    """Raises Stopped if the process was asked to end."""
    if _pending:
        raise Stopped(_pending)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _pending, _pending_since
    if _pending:
        if number == signal.SIGINT and time.monotonic() - _pending_since > REPEAT_WINDOW:
            os._exit(130)
        return
    _pending, _pending_since = number, time.monotonic()
    if not _deferring:
        raise Stopped(number)
