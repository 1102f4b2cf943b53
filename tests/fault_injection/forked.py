"""Runs functions in forked child processes.

The parent has imported everything and has one thread, so a fork is cheap and safe.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

HANG_SECONDS = 900  # a child that takes longer is killed
Response = dict[str, Any]  # of a request to the worker: "error" says what went wrong, or is None


def run_forked(function: Callable[[], Any], on_start: Callable[[int], None] = lambda pid: None) -> Any:
    """Runs `function` in a child process and returns its result, or None if the child was killed.

    Args:
        function: Its result must be JSON.
        on_start: Called in the parent with the child's process id.

    Raises:
        AssertionError: If the function raised, with its traceback, or if the child hangs.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(read_end)
        signal.alarm(HANG_SECONDS)
        try:
            outcome = {"value": function()}
        except BaseException:
            outcome = {"error": traceback.format_exc()}
        with contextlib.suppress(OSError), open(write_end, "w") as f:
            json.dump(outcome, f)
        os._exit(0)
    os.close(write_end)
    on_start(child)
    with open(read_end) as f:
        text = f.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, f"died of signal {os.WTERMSIG(status)}"
        return None
    outcome = json.loads(text)
    assert "error" not in outcome, outcome["error"]
    return outcome["value"]
