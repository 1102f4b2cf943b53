"""Runs one case for each line of JSON on standard input, and prints one line of JSON with the response.

One process that has imported everything runs hundreds of cases. To repeat a case, give its request:
echo '{"case": "fail_at", "at": 65, "how": "EIO", "sticky": false}' | python tests/fault_injection/worker.py
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
import export_faults
import filelock  # noqa: F401  # else every forked child would import it again
import kills
import power
import torch
from forked import Response

CASES: dict[str, Callable[..., Response]] = {
    case.__name__: case
    for case in (
        kills.list_operations,
        kills.kill_at,
        kills.kill_twice,
        kills.fail_at,
        kills.kill_randomly,
        kills.resume_finished,
        export_faults.export_operations,
        export_faults.kill_export,
        export_faults.fail_export,
        power.lose_power,
        power.replay,
        disk_full.file_size_limit,
        disk_full.full_disk,
        disk_full.full_tmpdir,
    )
}


def run_case(request: dict[str, object], folder: Path) -> Response:
    """Runs a case in a new folder, which is removed afterwards."""
    folder.mkdir()
    try:
        return CASES[str(request.pop("case"))](folder, **request)
    except Exception as e:
        return {"error": str(e) or repr(e)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Answers requests until standard input ends."""
    torch.set_num_threads(1)
    # Use memory if possible: nothing here depends on a real disk, and an fsync costs nothing there.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as root:
        responses, sys.stdout = sys.stdout, sys.stderr
        os.environ["FAULTS_FOLDER"] = root
        for number, line in zip(itertools.count(), sys.stdin):
            print(json.dumps(run_case(json.loads(line), Path(root) / str(number))), file=responses, flush=True)


if __name__ == "__main__":
    main()
