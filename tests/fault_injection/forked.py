"""Work in a child process, forked from one that has imported everything and has a single thread."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

LIMIT = 120  # seconds, after which a child hangs
Answer = dict[str, Any]  # of a trial: "bad" tells what went wrong, or is None


def forked(work: Callable[[], Any], meddle: Callable[[int], None] = lambda pid: None) -> Any:
    """Runs `work` in a child and returns what it returned; None if it was killed. `meddle` is given the child's id.

    Raises:
        AssertionError: If the work raised, with its traceback, or hangs.
    """
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.close(out)
        signal.alarm(LIMIT)
        try:
            answer = {"value": work()}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        with contextlib.suppress(OSError), open(into, "w") as f:
            json.dump(answer, f)
        os._exit(0)
    os.close(into)
    meddle(child)
    with open(out) as f:
        text = f.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, f"died of signal {os.WTERMSIG(status)}"
        return None
    answer = json.loads(text)
    assert "error" not in answer, answer["error"]
    return answer["value"]
