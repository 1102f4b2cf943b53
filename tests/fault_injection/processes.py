"""Commands as processes of their own."""

import os
import time

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def wait_for(file, process, seconds=60):
    """Returns when a process has made a file; one that ends before or does not come to it fails the test."""
    until = time.monotonic() + seconds
    while not file.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert file.exists(), process.communicate(timeout=5)
