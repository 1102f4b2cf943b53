"""Answers a line of JSON each with a trial, so that one process, warmed up, does hundreds.

To do one again: echo '{"trial": "fail_at", "at": 65, "how": "EIO", "sticky": false}' | python tests/fault_injection/worker.py
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import disk_full
import exports
import kills
import power
import torch
from forked import Answer

TRIALS: dict[str, Callable[..., Answer]] = {
    trial.__name__: trial
    for trial in (
        kills.operations,
        kills.kill_at,
        kills.kill_twice,
        kills.fail_at,
        kills.kill_randomly,
        kills.finished,
        exports.export_operations,
        exports.kill_export,
        exports.fail_export,
        power.lose_power,
        power.replay,
        disk_full.limited,
        disk_full.full_disk,
        disk_full.full_tmpdir,
    )
}


def answer(request: dict[str, object], folder: Path) -> Answer:
    """Does a trial in a new folder."""
    folder.mkdir()
    try:
        return TRIALS[str(request.pop("trial"))](folder, **request)
    except Exception as e:
        return {"bad": str(e) or repr(e)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Answers requests until there are no more."""
    torch.set_num_threads(1)
    # In memory, if possible: nothing here depends on a real disk, and a sync costs nothing.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as root:
        answers, sys.stdout = sys.stdout, sys.stderr
        os.environ["FAULTS_FOLDER"] = root
        for number, line in zip(itertools.count(), sys.stdin):
            print(json.dumps(answer(json.loads(line), Path(root) / str(number))), file=answers, flush=True)


if __name__ == "__main__":
    main()
