"""Intercepts the file operations of vaezoo, to record them, to fail them or to kill the process before one of them.

It patches `os` and raw files, below all buffers. `test_power.py` shows that no operation escapes: the recorded
operations are replayed on an empty model of a disk, and the result must equal the real folder.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from vaezoo.core import atomic

ALL_FAULTS = os.environ.get("VAEZOO_FAULTS") == "all"
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EACCES", "EFBIG", "SHORT", "EINTR")  # SHORT: half is written, then ENOSPC
DISK_FULL_ERRORS = ("ENOSPC", "EDQUOT", "EFBIG", "SHORT")  # a sticky one means a full disk ...
GROWING_OPERATIONS = ("create", "mkdir", "write")  # ... which stops only these operations
RETRIED_OPERATIONS = ("create", "truncate", "write", "fsync")  # after EINTR Python retries them for ever (PEP 475)


class Operation(NamedTuple):
    """An operation that is about to happen.

    Attributes:
        kind: The name of the operation, such as "write".
        path: The file or folder.
        other: The second path of a rename or an exchange.
        offset: Where a write begins, or the new length of a truncated file.
        data: The bytes of a write.
    """

    kind: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""


Hook = Callable[[Operation], int | None]  # may raise OSError or return the most bytes to write


class Fault:
    """Kills the process at operation number `at`, counted from 1, or makes that operation fail.

    Args:
        at: The number of the operation.
        how: "kill", or one of ERRORS.
        sticky: All later operations fail as well.

    Attributes:
        count: The number of operations so far.
        failed: The operations that failed.
    """

    def __init__(self, at: int, how: str, sticky: bool = False) -> None:
        self.at, self.how, self.sticky = at, how, sticky
        self.count = 0
        self.failed: list[Operation] = []

    def __call__(self, op: Operation) -> int | None:
        self.count += 1
        if not self._fails(op):
            return None
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self.failed.append(op)
        if self.how == "SHORT" and self.count == self.at and op.kind == "write":
            return len(op.data) // 2
        number = errno.ENOSPC if self.how == "SHORT" else getattr(errno, self.how)
        raise OSError(number, os.strerror(number), op.path)

    def _fails(self, op: Operation) -> bool:
        if self.count <= self.at:
            return self.count == self.at
        if not self.sticky:
            # After a short write Python writes the rest: that write fails.
            follows = self.how == "SHORT" and self.count == self.at + 1
            return follows and op.kind == self.failed[0].kind == "write" and op.path == self.failed[0].path
        if self.how in DISK_FULL_ERRORS:
            return op.kind in GROWING_OPERATIONS
        return not (self.how == "EINTR" and op.kind in RETRIED_OPERATIONS)


@contextmanager
def intercept(root: Path, hook: Hook) -> Iterator[None]:
    """Calls `hook` before each operation that changes something under `root`."""
    folder = os.path.realpath(root)

    def notify(kind: str, path: str, other: str = "", offset: int = 0, data: bytes = b"") -> int | None:
        below = any(p == folder or p.startswith(folder + "/") for p in (path, other))
        return hook(Operation(kind, path, other, offset, data)) if below else None

    class HookedFileIO(io.FileIO):
        def write(self, data):  # type: ignore[no-untyped-def]
            data = bytes(data)
            limit = notify("write", absolute(self.fileno()), "", self.tell(), data)
            return super().write(data if limit is None else data[:limit])

        def truncate(self, size=None):  # type: ignore[no-untyped-def]
            notify("truncate", absolute(self.fileno()), "", self.tell() if size is None else size)
            return super().truncate(size)

    with (
        mock.patch.multiple(os, **_hooked_os(notify)),
        mock.patch.object(atomic, "_exchange", _hooked_exchange(notify)),
    ):
        opener = _hooked_open(notify, HookedFileIO)
        with mock.patch.object(io, "open", opener), mock.patch.object(builtins, "open", opener):
            yield


def absolute(path: object, dir_fd: int | None = None) -> str:
    """Returns the absolute path of a name or of an open file."""
    if isinstance(path, int):
        return REAL_READLINK(f"/proc/self/fd/{path}")
    name = os.fsdecode(path)  # type: ignore[arg-type]
    return os.path.join(os.getcwd() if dir_fd is None else absolute(dir_fd), name)


REAL_READLINK = os.readlink
REAL_OPEN = io.open


def _hooked_os(notify: Callable[..., int | None]) -> dict[str, object]:
    """Returns replacements for the functions of `os` that change files."""
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "truncate", "chmod", "fchmod")}

    def open_(path, flags, mode=0o777, *, dir_fd=None):  # type: ignore[no-untyped-def]
        if flags & os.O_TRUNC:
            notify("truncate", absolute(path, dir_fd))
        elif flags & os.O_CREAT:
            notify("create", absolute(path, dir_fd))
        return real["open"](path, flags, mode, dir_fd=dir_fd)

    def write(fd, data):  # type: ignore[no-untyped-def]
        limit = notify("write", absolute(fd), "", os.lseek(fd, 0, os.SEEK_CUR), bytes(data))
        return real["write"](fd, data if limit is None else data[:limit])

    def fsync(fd):  # type: ignore[no-untyped-def]
        notify("fsync", absolute(fd))
        real["fsync"](fd)

    def truncate(path, length):  # type: ignore[no-untyped-def]
        notify("truncate", absolute(path), "", length)
        real["truncate"](path, length)

    def chmod(path, mode, **options):  # type: ignore[no-untyped-def]
        notify("chmod", absolute(path))
        real["chmod"](path, mode, **options)

    def one_path(kind: str, function: Callable[..., None]) -> Callable[..., None]:
        def call(path, *args, dir_fd=None, **options):  # type: ignore[no-untyped-def]
            notify(kind, absolute(path, dir_fd))
            function(path, *args, dir_fd=dir_fd, **options)

        return call

    def two_paths(function: Callable[..., None]) -> Callable[..., None]:
        def call(src, dst, *, src_dir_fd=None, dst_dir_fd=None):  # type: ignore[no-untyped-def]
            notify("rename", absolute(src, src_dir_fd), absolute(dst, dst_dir_fd))
            function(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        return call

    return {
        "open": open_,
        "write": write,
        "fsync": fsync,
        "truncate": truncate,
        "ftruncate": truncate,
        "chmod": chmod,
        "fchmod": chmod,
        "mkdir": one_path("mkdir", os.mkdir),
        "rmdir": one_path("rmdir", os.rmdir),
        "unlink": one_path("unlink", os.unlink),
        "remove": one_path("unlink", os.remove),
        "rename": two_paths(os.rename),
        "replace": two_paths(os.replace),
    }


def _hooked_exchange(notify: Callable[..., int | None]) -> Callable[[Path, Path], bool]:
    real = atomic._exchange

    def exchange(first: Path, second: Path) -> bool:
        try:
            notify("exchange", absolute(first), absolute(second))
        except OSError:
            return False  # like the system call
        return real(first, second)

    return exchange


def _hooked_open(notify: Callable[..., int | None], raw_type: type[io.FileIO]) -> Callable[..., object]:
    def open_(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):  # type: ignore[no-untyped-def]
        if not set(mode) & set("wax+"):
            return REAL_OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if not isinstance(file, int):
            notify("truncate" if "w" in mode else "create", absolute(file))
        raw = raw_type(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding, errors, newline)

    return open_
