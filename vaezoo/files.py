"""Writing so that nothing is ever half there under its final name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from vaezoo.errors import InputError, StorageError

MOST_JSON = 1 << 20  # bytes; ours are a few kilobytes


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns an OSError of the block into a StorageError that says what was being written."""
    try:
        yield
    except OSError as e:
        reason = e.strerror or type(e).__name__
        raise StorageError(f"cannot write {what}: {reason}", "check the disk's space and the permissions") from e


@contextlib.contextmanager
def new_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
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
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".tmp-{os.getpid()}-", dir=target.parent))
    try:
        with storage_errors(str(target)):
            work.chmod(0o777 & ~_umask())
            yield work
            for file in sorted(work.rglob("*")):
                _sync(file)
            _sync(work)
            if replace and target.exists():
                _swap(work, target)
            else:
                os.rename(work, target)
            _sync(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Writes a file whole: under a temporary name, synced, then renamed.

    Raises:
        StorageError: If writing fails; what was there before is then still there.
    """
    with storage_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".tmp-{os.getpid()}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
            _sync(path.parent)
        finally:
            Path(name).unlink(missing_ok=True)


def settle(work: Path, target: Path) -> None:
    """Gives a written file its final name, in the same folder, once it lies on the disk.

    Raises:
        OSError: If that fails; what was at `target` before is then still there.
    """
    _sync(work)
    os.replace(work, target)
    _sync(target.parent)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Writes a JSON file whole; see `write_file`."""
    write_file(path, json_bytes(value))


def json_bytes(value: Mapping[str, object]) -> bytes:
    """Returns an object as JSON that people can read."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> dict[str, object]:
    """Reads a JSON file that holds an object.

    Raises:
        InputError: If it cannot be read, is too large, is damaged or holds something else.
    """

    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        with path.open("rb") as f:
            data = f.read(MOST_JSON + 1)
        if len(data) > MOST_JSON:
            raise ValueError("larger than 1 MiB")
        value = json.loads(data, parse_constant=refuse)
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}", "check the path") from e
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path} is damaged: {e}", "restore the file, or make the folder anew") from e
    return value


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _swap(work: Path, target: Path) -> None:
    """Puts `work` in the place of `target`, which moves aside until the new one stands."""
    aside = work.with_name(work.name + "-old")
    os.rename(target, aside)
    try:
        os.rename(work, target)
    except OSError:
        os.rename(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
