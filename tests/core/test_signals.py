"""Signals raise at once, or where a deferred block asks for them."""

import signal
import threading

import pytest

from vaezoo.core.signals import (
    Stopped,
    allow_signals,
    defer_signals,
    handle_signals,
    pending_signal,
    raise_if_stopped,
)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_raises_at_once(number, exit_code):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as e, handle_signals():
        signal.raise_signal(number)
    assert e.value.exit_code == exit_code and not isinstance(e.value, Exception)
    assert signal.getsignal(number) is before and pending_signal() == 0


def test_deferred_signal_waits():
    with handle_signals(), defer_signals():
        raise_if_stopped()
        signal.raise_signal(signal.SIGTERM)
        assert pending_signal() == signal.SIGTERM
        with pytest.raises(Stopped):
            raise_if_stopped()


def test_allowed_signal_raises():
    with handle_signals(), defer_signals():
        with pytest.raises(Stopped), allow_signals():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped), allow_signals():  # it came before the block
            raise AssertionError


def test_second_signal_counts_once():
    """The terminal and the launcher both send a Ctrl-C."""
    with handle_signals(), defer_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert pending_signal() == signal.SIGINT


def test_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with handle_signals():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_install_nothing():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run():
        with handle_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
