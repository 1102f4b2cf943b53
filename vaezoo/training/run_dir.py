"""Creates run folders and locks them."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vaezoo.core import distributed
from vaezoo.core.atomic import TEMP_PREFIX, file_lock, fsync, make_dir, remove_leftovers, storage_errors
from vaezoo.errors import InputError, StorageError
from vaezoo.training.run import RUNS
from vaezoo.training.run_writer import CHECKPOINTS, LOG, SAMPLES

LOCK = ".lock"


def create_run_dir(out: str | os.PathLike[str] | None, stem: str) -> Path:
    """Creates the folder of a new run: `out`, or the first free one of `runs/STEM-1`, `runs/STEM-2` ...

    Raises:
        StorageError: If `out` is not empty, or the folder cannot be created.
    """
    with storage_errors(str(RUNS if out is None else out)):
        if out is not None:
            path = Path(out)
            if path.exists() and (not path.is_dir() or not all(is_leftover(entry) for entry in path.iterdir())):
                raise StorageError(f"{path} exists and is not empty", "choose another folder")
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


def remove_unsaved_run(path: Path) -> None:
    """Removes a run that failed before its first checkpoint, so that the name is free again.

    The folder may be `.` or the root of a disk, which cannot be renamed. So it is emptied first, and may stay.
    """
    if any((path / CHECKPOINTS).glob("step-*")):
        return
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with suppress(OSError):
                entry.unlink()
    with suppress(OSError):
        path.rmdir()


def is_leftover(entry: Path) -> bool:
    """Tells whether a training that was killed before it wrote anything leaves such an entry."""
    return entry.name == LOCK or entry.name.startswith(TEMP_PREFIX)


@contextmanager
def lock_run_dir(path: Path) -> Iterator[None]:
    """Locks a run folder and removes what a killed training left. The primary process does it for all.

    Raises:
        StorageError: If another process trains there.
        InputError: If something that will be written is a link, or a checkpoint is not a folder.
    """
    with ExitStack() as stack:
        if distributed.rank() == 0:
            for name in (LOCK, LOG, CHECKPOINTS, SAMPLES):
                if (path / name).is_symlink():
                    what = f"{path / name} is a link, so writing to it would change another place"
                    raise InputError(what, "replace the link by its target")
            for entry in (path / CHECKPOINTS).glob("step-*"):
                if entry.is_symlink() or not entry.is_dir():  # opening a named pipe would wait forever
                    raise InputError(f"{entry} is not a folder", "move it away")
            stack.enter_context(file_lock(path / LOCK, f"{path} is in use: another process trains there"))
            for folder in (path, path / CHECKPOINTS):
                if folder.exists():
                    remove_leftovers(folder)
        yield
