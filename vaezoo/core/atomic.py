"""Writing so that nothing is ever half there under its final name."""

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

TEMP_PREFIX = ".tmp-"  # what the names of things begin with that are not finished


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns an OSError of the block into a StorageError that says what was being written."""
    try:
        yield
    except OSError as e:
        format_error = e.strerror or type(e).__name__
        raise StorageError(f"cannot write {what}: {format_error}", "check the disk's space and the permissions") from e


@contextlib.contextmanager
def atomic_dir(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside `target` that becomes `target` when the block ends well.

    Files and folder are synced before the rename, so that after a power cut `target` is whole or absent.
    If the block fails, nothing is left.

    Args:
        target: The final path.
        replace: Take the place of a folder that is there; otherwise that is an error.

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
    """Writes a file whole: under a temporary name, synced, then renamed.

    Raises:
        StorageError: If writing fails; what was there before is then still there.
    """
    with storage_errors(str(path)):
        make_dir(path.parent)
        handle, name = tempfile.mkstemp(prefix=f"{TEMP_PREFIX}{os.getpid()}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as f:
                f.write(data)
            os.chmod(name, 0o666 & ~_umask())
            atomic_replace(Path(name), path)
        finally:
            Path(name).unlink(missing_ok=True)


def make_dir(path: Path) -> None:
    """Makes a folder and those above it, if they are not there, to last through a power cut."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for p in missing:
        fsync(p.parent)


def remove_dir(folder: Path) -> None:
    """Removes a folder with all that is in it: under its own name it is whole, then gone, through a power cut, too."""
    doomed = folder.with_name(f"{TEMP_PREFIX}{os.getpid()}-{folder.name}")
    with storage_errors(str(folder)):
        os.rename(folder, doomed)
        fsync(folder.parent)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what writers who were killed left in a folder, for one who knows that no other writes there now.

    What they renamed last is made to last first: nothing may build on a name that a power cut could undo. What cannot
    be removed stays, and is in nobody's way.

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
def file_lock(file: Path, what: str) -> Iterator[None]:
    """Holds a file locked while the context lasts. However the process ends, the system frees it.

    Raises:
        StorageError: If another process holds it; `what` says what that one does.
    """
    with storage_errors(str(file)):
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        import fcntl  # which Windows lacks

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass
    except OSError as e:
        # Some network disks have no locks (ENOLCK, ENOSYS ...): a training there is no worse off than before.
        if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(handle)
            raise StorageError(what, "wait for it, or stop it first") from e
    try:
        yield
    finally:
        os.close(handle)


def read_file(path: Path, most: int) -> bytes:
    """Reads a file that may be anything.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        InputError: If it cannot be read, is no regular file or is larger.
    """
    try:
        with open_regular(path) as f:
            size = os.fstat(f.fileno()).st_size
            if size > most:
                raise InputError(f"{path} is damaged: {size:,} bytes, more than {most:,}", "restore the file")
            return f.read(size)  # not `most`: so many bytes would be allocated
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}", "check the path") from e


def atomic_replace(work: Path, target: Path) -> None:
    """Gives a written file its final name, in the same folder, once it lies on the disk.

    Raises:
        OSError: If that fails; what was at `target` before is then still there.
    """
    fsync(work)
    os.replace(work, target)
    fsync(target.parent)


def open_regular(path: Path) -> BinaryIO:
    """Opens a file to read it. A pipe of that name would make open() wait for a writer, and a device never end.

    Raises:
        OSError: If it cannot be opened or is no regular file.
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


def _swap(work: Path, target: Path) -> None:
    """Puts `work` in the place of `target`, which on Linux is there at every moment, old or new."""
    if not _exchange(work, target):
        aside = work.with_name(work.name + "-old")
        os.rename(target, aside)
        try:
            os.rename(work, target)
        except OSError:
            os.rename(aside, target)
            raise
        os.rename(aside, work)  # for the caller to remove, once the new one is on the disk


def _exchange(first: Path, second: Path) -> bool:
    """Lets two paths change places at once; False where the system cannot. Python has no word for it."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux, or an old C library
        return False
    done: bool = renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0
    return done


def fsync(path: Path) -> None:
    """Waits until a file or a folder's list of names is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
