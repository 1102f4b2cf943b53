"""Atomic writes: under its final name, a file or folder is always complete."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vaezoo.errors import InputError, StorageError

TEMP_PREFIX = ".tmp-"  # the names of unfinished files and folders begin with it


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns an OSError of the block into a StorageError that names what was written."""
    try:
        yield
    except OSError as e:
        reason = e.strerror or type(e).__name__
        raise StorageError(f"cannot write {what}: {reason}", "check the disk's space and the permissions") from e


@contextlib.contextmanager
def atomic_dir(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside `target` and renames it to `target` when the block succeeds.

    Files and folder are synced before the rename, so after a power cut `target` is complete or absent.
    If the block fails, nothing is left.

    Args:
        target: The final path.
        replace: Replace an existing folder. Otherwise an existing folder is an error.

    Raises:
        StorageError: If writing fails or `target` is in the way.
    """
    with storage_errors(str(target)):
        make_dir(target.parent)
        work = Path(tempfile.mkdtemp(prefix=f"{TEMP_PREFIX}{os.getpid()}-", dir=target.parent))
    try:
        with storage_errors(str(target)):
            work.chmod(0o777 & ~_umask())
            yield work
            for file in sorted(work.rglob("*")):
                fsync(file)
            fsync(work)
            if replace and target.exists():
                _swap(work, target)
            else:
                os.rename(work, target)
            fsync(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Writes a file atomically: under a temporary name, synced, then renamed.

    Raises:
        StorageError: If writing fails. A previous file of that name is then unchanged.
    """
    with atomic_file(path) as file:
        file.write_bytes(data)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Gives an empty temporary file beside `path` and renames it to `path`, synced, when the block succeeds.

    If the block fails, nothing is left.

    Raises:
        StorageError: If writing fails. A previous file of that name is then unchanged.
    """
    with storage_errors(str(path)):
        make_dir(path.parent)
        handle, name = tempfile.mkstemp(prefix=f"{TEMP_PREFIX}{os.getpid()}-", dir=path.parent)
        os.close(handle)
        try:
            yield Path(name)
            os.chmod(name, 0o666 & ~_umask())
            atomic_replace(Path(name), path)
        finally:
            Path(name).unlink(missing_ok=True)


def atomic_replace(source: Path, target: Path) -> None:
    """Syncs a written file, then renames it to `target` in the same folder.

    Raises:
        OSError: If that fails. A previous file at `target` is then unchanged.
    """
    fsync(source)
    os.replace(source, target)
    fsync(target.parent)


def make_dir(path: Path) -> None:
    """Creates a folder and its missing parents, synced so that they survive a power cut."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for p in missing:
        fsync(p.parent)


def remove_dir(folder: Path) -> None:
    """Removes a folder atomically: under its own name it is complete or absent, also after a power cut."""
    doomed = folder.with_name(f"{TEMP_PREFIX}{os.getpid()}-{folder.name}")
    with storage_errors(str(folder)):
        os.rename(folder, doomed)
        fsync(folder.parent)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files that killed processes left in a folder.

    The caller makes sure that no other process writes there. The folder is synced first: a power cut must not undo
    a rename that later work builds on. A leftover that cannot be removed stays and does no harm.

    Raises:
        StorageError: If the folder cannot be synced.
    """
    with storage_errors(str(folder)):
        fsync(folder)
    for path in folder.glob(f"{TEMP_PREFIX}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def file_lock(path: Path, message: str) -> Iterator[None]:
    """Holds a lock on a file inside the block, without waiting for it. The file stays afterwards.

    The system frees the lock however the process ends.

    Raises:
        StorageError: With this message if another process holds the lock, or if the file cannot be opened.
    """
    from filelock import lock_descriptor  # takes 0.1 s, and exports run without this package

    with storage_errors(str(path)):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            locked = lock_descriptor(handle, blocking=False)
        except OSError:  # some network disks have no locks (ENOLCK, ENOSYS ...): work continues without one
            locked = True
        if not locked:
            raise StorageError(message, "wait until it ends, or stop it")
        yield
    finally:
        os.close(handle)


def read_file(path: Path, max_bytes: int) -> bytes:
    """Reads an untrusted file of at most `max_bytes` bytes.

    Raises:
        InputError: If it cannot be read, is not a regular file or is larger.
    """
    try:
        with open_regular(path) as f:
            size = os.fstat(f.fileno()).st_size
            if size > max_bytes:
                raise InputError(f"{path} is damaged: {size:,} bytes, more than {max_bytes:,}", "restore the file")
            return f.read(size)  # read(max_bytes) would allocate max_bytes
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}", "check the path") from e


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading. On a pipe, open() would wait for a writer; a device may never end.

    Raises:
        OSError: If it cannot be opened or is not a regular file.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(handle, "rb")


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk."""
    try:
        # Windows syncs only what is open for writing.
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:
        if path.is_dir():  # Windows cannot open a folder; NTFS keeps a journal of its names
            return
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(work: Path, target: Path) -> None:
    """Exchanges two folders. On Linux `target` exists at every moment, as the old folder or the new one."""
    if not _exchange(work, target):
        aside = work.with_name(work.name + "-old")
        os.rename(target, aside)
        try:
            os.rename(work, target)
        except OSError:
            os.rename(aside, target)
            raise
        os.rename(aside, work)  # the caller removes it once the new folder is on the disk


def _exchange(first: Path, second: Path) -> bool:
    """Exchanges two paths in one step, and tells whether the system can. Python has no function for it."""
    at_fdcwd, rename_exchange = -100, 2  # constants of Linux: AT_FDCWD, RENAME_EXCHANGE
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux, or an old C library
        return False
    done: bool = renameat2(at_fdcwd, os.fsencode(first), at_fdcwd, os.fsencode(second), rename_exchange) == 0
    return done


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
