"""How a process that is asked to end does so: at once, or, where work would be lost, as soon as that is safe.

Nothing here is installed by the library: the commands call `handle_signals`, and so may a program. Until then a keyboard
interrupt is Python's own, and what was saved last stands.
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
REPEAT_WINDOW = (
    1.0  # seconds: one Ctrl-C reaches a process from the terminal and again from torchrun or another launcher
)


class Stopped(KeyboardInterrupt):
    """The process was asked to end. No Exception, as KeyboardInterrupt is none: nobody may go on.

    Attributes:
        exit_code: 130 after an interrupt, 143 after a request to terminate or a lost terminal.
        hint: How to go on, where there is something to go on with.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__("interrupted" if number == signal.SIGINT else "asked to terminate")
        self.exit_code = 130 if number == signal.SIGINT else 143
        self.hint = "what was written before is whole"


_pending = 0  # the first signal that came
_pending_since = 0.0
_deferring = False


@contextmanager
def handle_signals() -> Iterator[None]:
    """Turns the signals that ask a process to end into `Stopped`, in the main thread and while the context lasts.

    A second keyboard interrupt ends the process at once. What the process was started to ignore stays ignored.
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
    """Lets signals only be noted while the context lasts; what runs in it asks `raise_if_stopped` where it can leave."""
    global _deferring
    before, _deferring = _deferring, True
    try:
        yield
    finally:
        _deferring = before


@contextmanager
def allow_signals() -> Iterator[None]:
    """Lets signals raise again within `defer_signals`: in what takes long, changes nothing and asks nobody.

    Raises:
        Stopped: At once, if a signal has come already.
    """
    global _deferring
    before, _deferring = _deferring, False
    try:
        raise_if_stopped()
        yield
    finally:
        _deferring = before


def pending_signal() -> int:
    """Returns the signal that asked this process to end; 0: none did."""
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
