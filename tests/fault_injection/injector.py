"""Stands between vaezoo and the operating system: sees each operation about to change a folder, and may stop it.

The level is that of `os` and of raw files, below all buffers. `disk.py` proves that nothing gets past it: operations
that were seen, done again, give the folder that is there.
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

ALL = os.environ.get("VAEZOO_FAULTS") == "all"
CORES = 2  # trials at once
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EACCES", "EFBIG", "SHORT", "EINTR")  # SHORT: half is written, then ENOSPC
FULL = ("ENOSPC", "EDQUOT", "EFBIG", "SHORT")  # for good, these are a disk that is full ...
GROWING = ("create", "mkdir", "write")  # ... which stops only these
RETRIED = ("create", "truncate", "write", "fsync")  # by the interpreter after EINTR (PEP 475): it would do so for good


class Operation(NamedTuple):
    """What is about to happen: to a path, with another path for a rename, or bytes at an offset for a write."""

    kind: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""


Before = Callable[[Operation], int | None]  # may raise OSError, or say how many bytes to write at most


class Fault:
    """Kills the process or fails operation number `at`, counted from 1; all later ones too if it is sticky.

    Attributes:
        count: Operations seen.
        hit: Those that failed.
    """

    def __init__(self, at: int, how: str, sticky: bool = False) -> None:
        self.at, self.how, self.sticky = at, how, sticky
        self.count = 0
        self.hit: list[Operation] = []

    def __call__(self, op: Operation) -> int | None:
        self.count += 1
        if not self._fails(op):
            return None
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self.hit.append(op)
        if self.how == "SHORT" and self.count == self.at and op.kind == "write":
            return len(op.data) // 2
        number = errno.ENOSPC if self.how == "SHORT" else getattr(errno, self.how)
        raise OSError(number, os.strerror(number), op.path)

    def _fails(self, op: Operation) -> bool:
        if self.count <= self.at:
            return self.count == self.at
        if not self.sticky:
            rest = self.how == "SHORT" and self.count == self.at + 1 and op.kind == self.hit[0].kind == "write"
            return rest and op.path == self.hit[0].path
        if self.how in FULL:
            return op.kind in GROWING
        return not (self.how == "EINTR" and op.kind in RETRIED)


@contextmanager
def watched(root: Path, before: Before) -> Iterator[None]:
    """Calls `before` ahead of each operation that changes something under `root`, while the context lasts."""
    inside = os.path.realpath(root)

    def tell(kind: str, path: str, other: str = "", offset: int = 0, data: bytes = b"") -> int | None:
        touched = any(p == inside or p.startswith(inside + "/") for p in (path, other))
        return before(Operation(kind, path, other, offset, data)) if touched else None

    class Raw(io.FileIO):
        def write(self, data):  # type: ignore[no-untyped-def]
            data = bytes(data)
            most = tell("write", where(self.fileno()), "", self.tell(), data)
            return super().write(data if most is None else data[:most])

        def truncate(self, size=None):  # type: ignore[no-untyped-def]
            tell("truncate", where(self.fileno()), "", self.tell() if size is None else size)
            return super().truncate(size)

    with mock.patch.multiple(os, **_os_calls(tell)), mock.patch.object(atomic, "_exchange", _exchange(tell)):
        opener = _opener(tell, Raw)
        with mock.patch.object(io, "open", opener), mock.patch.object(builtins, "open", opener):
            yield


def where(path: object, dir_fd: int | None = None) -> str:
    """Returns the absolute path of a name or of an open file."""
    if isinstance(path, int):
        return REAL_READLINK(f"/proc/self/fd/{path}")
    name = os.fsdecode(path)  # type: ignore[arg-type]
    return os.path.join(os.getcwd() if dir_fd is None else where(dir_fd), name)


REAL_READLINK = os.readlink
REAL_OPEN = io.open


def _os_calls(tell: Callable[..., int | None]) -> dict[str, object]:
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "truncate", "ftruncate", "chmod")}

    def open_(path, flags, mode=0o777, *, dir_fd=None):  # type: ignore[no-untyped-def]
        if flags & os.O_TRUNC:
            tell("truncate", where(path, dir_fd))
        elif flags & os.O_CREAT:
            tell("create", where(path, dir_fd))
        return real["open"](path, flags, mode, dir_fd=dir_fd)

    def write(fd, data):  # type: ignore[no-untyped-def]
        most = tell("write", where(fd), "", os.lseek(fd, 0, os.SEEK_CUR), bytes(data))
        return real["write"](fd, data if most is None else data[:most])

    def fsync(fd):  # type: ignore[no-untyped-def]
        tell("fsync", where(fd))
        real["fsync"](fd)

    def truncate(path, length):  # type: ignore[no-untyped-def]
        tell("truncate", where(path), "", length)
        real["truncate"](path, length)

    def chmod(path, mode, **options):  # type: ignore[no-untyped-def]
        tell("chmod", where(path))
        real["chmod"](path, mode, **options)

    def one_path(kind: str, function: Callable[..., None]) -> Callable[..., None]:
        def call(path, *args, dir_fd=None, **options):  # type: ignore[no-untyped-def]
            tell(kind, where(path, dir_fd))
            function(path, *args, dir_fd=dir_fd, **options)

        return call

    def two_paths(function: Callable[..., None]) -> Callable[..., None]:
        def call(src, dst, *, src_dir_fd=None, dst_dir_fd=None):  # type: ignore[no-untyped-def]
            tell("rename", where(src, src_dir_fd), where(dst, dst_dir_fd))
            function(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        return call

    return {
        "open": open_,
        "write": write,
        "fsync": fsync,
        "truncate": truncate,
        "ftruncate": truncate,
        "chmod": chmod,
        "mkdir": one_path("mkdir", os.mkdir),
        "rmdir": one_path("rmdir", os.rmdir),
        "unlink": one_path("unlink", os.unlink),
        "remove": one_path("unlink", os.remove),
        "rename": two_paths(os.rename),
        "replace": two_paths(os.replace),
    }


def _exchange(tell: Callable[..., int | None]) -> Callable[[Path, Path], bool]:
    real = atomic._exchange

    def exchange(first: Path, second: Path) -> bool:
        try:
            tell("exchange", where(first), where(second))
        except OSError:
            return False  # as the system call does
        return real(first, second)

    return exchange


def _opener(tell: Callable[..., int | None], raw_type: type[io.FileIO]) -> Callable[..., object]:
    def open_(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):  # type: ignore[no-untyped-def]
        if not set(mode) & set("wax+"):
            return REAL_OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if not isinstance(file, int):
            tell("truncate" if "w" in mode else "create", where(file))
        raw = raw_type(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding, errors, newline)

    return open_
