"""Cases with full disks and with a limit on the size of files."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import injector
import toy_run
from forked import Response, run_forked
from kills import SharedProgress, check_final_files, check_recovery, expected_files

from vaezoo.errors import StorageError

CLONE_NEWNS = 0x20000  # gives the process a mount namespace of its own
DISK_SIZE = 4 << 20  # bytes, several times what a training needs


def file_size_limit(folder: Path, size: int) -> Response:
    """Trains while no file can grow beyond `size` bytes, then without the limit."""

    def lift_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    expected_files()

    def train() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        check_failure_and_recovery(folder / "run", lift_limit)

    run_forked(train)
    return {"error": None}


def check_failure_and_recovery(run: Path, lift_limit: Callable[[], None]) -> None:
    """Asserts that a training fails, with the hint to resume, and that it can be resumed without the limit."""
    progress = SharedProgress()
    try:
        toy_run.train_or_resume(run, progress)
    except StorageError as e:
        assert progress.acknowledged < 0 or f"vaezoo train --resume {run}" in e.hint, e.hint
    else:
        raise AssertionError("success although nothing can grow")
    finally:
        lift_limit()
    if run.exists():
        assert not toy_run.temp_files(run), toy_run.temp_files(run)
    check_recovery(run, progress.acknowledged)


def full_disk(folder: Path, fraction: float, missing: int) -> Response:
    """Trains on a disk with too little space, then with enough.

    With all bytes it must succeed, which shows that the measured need is right.

    Args:
        folder: The folder to work in.
        fraction: The part of the needed bytes that is free.
        missing: The bytes that are free less than that.
    """
    expected_files()

    def train() -> str | None:
        if reason := mount(folder, DISK_SIZE):
            return reason
        free = int(fraction * needed_bytes(folder)) - missing
        filler = folder / "filler"
        filler.write_bytes(bytes(free_bytes(folder) - free))
        assert free_bytes(folder) <= max(free, 0), (free_bytes(folder), free)
        if fraction == 1 and not missing:
            toy_run.train_or_resume(folder / "run")
            check_final_files(folder / "run")
        else:
            check_failure_and_recovery(folder / "run", filler.unlink)
        return None

    return {"error": None, "skipped": run_forked(train)}


def full_tmpdir(folder: Path) -> Response:
    """Trains while only the folder for temporary files is full."""
    expected_files()

    def train() -> str | None:
        (tmpdir := folder / "tmp").mkdir()
        if reason := mount(tmpdir, 4096):
            return reason
        (tmpdir / "filler").write_bytes(bytes(free_bytes(tmpdir)))
        os.environ["TMPDIR"] = str(tmpdir)
        tempfile.tempdir = None
        toy_run.train_or_resume(folder / "run")
        check_final_files(folder / "run")
        return None

    return {"error": None, "skipped": run_forked(train)}


def mount(folder: Path, size: int) -> str | None:
    """Mounts a disk in memory that only this process sees and that ends with it.

    Returns:
        Why that is not possible, or None if it worked.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        return f"no mount namespace: {os.strerror(ctypes.get_errno())}"
    for command in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]):
        result = subprocess.run(["mount", *command], capture_output=True, text=True)
        if result.returncode:
            return result.stderr.strip()
    return None


def free_bytes(folder: Path) -> int:
    """Returns the free bytes of the disk that a folder is on."""
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize


def needed_bytes(folder: Path) -> int:
    """Returns the most bytes that a training needs at any moment, by running one."""
    start, free = free_bytes(folder), [free_bytes(folder)]
    run = folder / "first" / "run"
    with injector.intercept(folder, lambda op: free.append(free_bytes(folder))):
        toy_run.train_or_resume(run)
    subprocess.run(["rm", "-r", str(run.parent)], check=True)
    assert free_bytes(folder) == start
    return start - min(free)
