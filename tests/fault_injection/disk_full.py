"""Trials on disks that are full."""

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
from forked import Answer, forked
from kills import Acknowledged, ends_as_expected, expected, recovers

from vaezoo.errors import StorageError

NEWNS = 0x20000  # CLONE_NEWNS: mounts of one's own
ROOMY = 4 << 20


def limited(folder: Path, size: int) -> Answer:
    """Trains where no file can grow beyond `size` bytes, and goes on without the limit."""

    def release() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    expected()

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        fails_then_recovers(folder / "run", release)

    forked(work)
    return {"bad": None}


def fails_then_recovers(run: Path, release: Callable[[], None]) -> None:
    """Trains where that must fail, then where it need not."""
    told = Acknowledged()
    try:
        toy_run.go(run, told)
    except StorageError as e:
        assert told.step < 0 or f"vaezoo train --resume {run}" in e.hint, e.hint
    else:
        raise AssertionError("success although nothing can grow")
    finally:
        release()
    if run.exists():
        assert not toy_run.temporaries(run), toy_run.temporaries(run)
    recovers(run, told.step)


def full_disk(folder: Path, part: float, less: int) -> Answer:
    """Trains on a disk that has `part` of the bytes that it takes, `less` some, then on one with more.

    With all of them it has to succeed, which shows that the number is right.
    """
    expected()

    def work() -> str | None:
        if reason := mount(folder, ROOMY):
            return reason
        free = int(part * needed(folder)) - less
        filler = folder / "filler"
        filler.write_bytes(bytes(room(folder) - free))
        assert room(folder) <= max(free, 0), (room(folder), free)
        if part == 1 and not less:
            toy_run.go(folder / "run")
            ends_as_expected(folder / "run")
        else:
            fails_then_recovers(folder / "run", filler.unlink)
        return None

    return {"bad": None, "skipped": forked(work)}


def full_tmpdir(folder: Path) -> Answer:
    """Trains where only the folder for temporary files is full."""
    expected()

    def work() -> str | None:
        (elsewhere := folder / "tmp").mkdir()
        if reason := mount(elsewhere, 4096):
            return reason
        (elsewhere / "filler").write_bytes(bytes(room(elsewhere)))
        os.environ["TMPDIR"] = str(elsewhere)
        tempfile.tempdir = None
        toy_run.go(folder / "run")
        ends_as_expected(folder / "run")
        return None

    return {"bad": None, "skipped": forked(work)}


def mount(folder: Path, size: int) -> str | None:
    """Mounts a disk in memory that only this process sees, and that goes with it; says why not, if that fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEWNS):
        return f"no mounts of our own: {os.strerror(ctypes.get_errno())}"
    for command in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]):
        done = subprocess.run(["mount", *command], capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip()
    return None


def room(folder: Path) -> int:
    """Returns the bytes that are free."""
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize


def needed(folder: Path) -> int:
    """Returns how many bytes a training takes when it takes most, found by doing it."""
    start, least = room(folder), [room(folder)]
    run = folder / "first" / "run"
    with injector.watched(folder, lambda op: least.append(room(folder))):
        toy_run.go(run)
    subprocess.run(["rm", "-r", str(run.parent)], check=True)
    assert room(folder) == start
    return start - min(least)
