"""Who may train in a run folder: its making, and its lock."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vaezoo.core import distributed
from vaezoo.core.atomic import TEMP_PREFIX, file_lock, fsync, make_dir, remove_leftovers, storage_errors
from vaezoo.errors import InputError, StorageError
from vaezoo.training.run import RUNS
from vaezoo.training.run_writer import CHECKPOINTS, LOG

LOCK = ".lock"


def create_run_dir(out: str | os.PathLike[str] | None, stem: str) -> Path:
    """Makes the folder of a new run: `out`, or the first of `runs/STEM-1`, `runs/STEM-2` ... that nobody has.

    Raises:
        StorageError: If `out` is not empty, or the folder cannot be made.
    """
    with storage_errors(str(RUNS if out is None else out)):
        if out is not None:
            path = Path(out)
            if path.exists() and (not path.is_dir() or not all(is_ours(entry) for entry in path.iterdir())):
                raise StorageError(f"{path} is in the way: it exists and is not empty", "name another folder")
            make_dir(path)
            return path
        make_dir(RUNS)
        for number in itertools.count(1):
            path = RUNS / f"{stem}-{number}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            fsync(RUNS)
            return path
    raise AssertionError


def is_ours(entry: Path) -> bool:
    """Tells whether a folder's entry is what a training leaves that was killed before it wrote anything."""
    return entry.name == LOCK or entry.name.startswith(TEMP_PREFIX)


@contextmanager
def lock_run_dir(path: Path) -> Iterator[None]:
    """Keeps other trainings out of a run folder, and removes what a killed one left; rank 0 for all.

    Raises:
        StorageError: If another process trains there.
        InputError: If something that is written to is a link, or a checkpoint no folder.
    """
    with ExitStack() as stack:
        if distributed.rank() == 0:
            for name in (LOCK, LOG, CHECKPOINTS):
                if (path / name).is_symlink():
                    what = f"{path / name} is a link: what is written there would land elsewhere"
                    raise InputError(what, "put what it links to in its place")
            for entry in (path / CHECKPOINTS).glob("step-*"):
                if entry.is_symlink() or not entry.is_dir():  # what takes its place could wait for ever to open it
                    raise InputError(f"{entry} is no folder", "move it away")
            stack.enter_context(file_lock(path / LOCK, f"{path} is in use: another process trains there"))
            for folder in (path, path / CHECKPOINTS):
                if folder.exists():
                    remove_leftovers(folder)
        yield
