"""Helpers for tests that run commands in processes of their own."""

import os
import time

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
HANG_SECONDS = 600  # far more than any wait takes on a busy machine: what lasts longer hangs


def wait_for(file, process):
    """Waits until a process has created a file. Fails if the process ends first, or hangs."""
    deadline = time.monotonic() + HANG_SECONDS
    while not file.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if not file.exists():
        process.kill()
        raise AssertionError(f"{file.name} was not created: {process.communicate()}")
