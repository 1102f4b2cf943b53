"""Reads .npy and .npz files that may be damaged or forged.

A header of a hundred bytes can ask for terabytes, and a small zip can unpack to them. So the header
is read first, and what it asks for must be what the file holds. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import lzma
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import numpy.typing as npt

from vaezoo.core.memory import machine_memory
from vaezoo.errors import InputError

SUFFIXES = (".npy", ".npz")
MAX_BYTES = 16 * 2**30  # of numbers in one file
NAMED = 6  # how many arrays an error names
HEAD_BYTES = 2**14  # enough for each header that NumPy accepts, 10,000 characters

# What NumPy, zipfile and the decompressors raise on damaged files, by our fuzz tests.
READ_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    MemoryError,
    RuntimeError,
    OverflowError,
    EOFError,
    KeyError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)

Array: TypeAlias = npt.NDArray[np.generic]


def read_arrays(path: Path, wanted: Collection[str]) -> Mapping[str, Array]:
    """Reads arrays from a file.

    Args:
        path: A .npy file, or a .npz file as `np.savez` writes it.
        wanted: The names of arrays to read.

    Returns:
        The arrays by name, of numbers or bits. Of a .npz that has none of these names but only one
        array, and of a .npy, that array under the name "".

    Raises:
        InputError: If the file is missing, damaged or forged, holds objects, text or records, or
            holds several arrays with other names.
    """
    if not path.is_file():
        raise InputError(f"no file '{path}'", "name a .npy or .npz file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of headers that Python 2 wrote
            return _read_npy(path) if path.suffix.lower() == ".npy" else _read_npz(path, wanted)
    except READ_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"array file '{path}' cannot be read: {reason}", "write it anew with numpy.save or numpy.savez"
        ) from error


def _read_npy(path: Path) -> dict[str, Array]:
    """Reads the one array of a .npy file."""
    with path.open("rb") as file:
        return {"": _read(file, _bounded(path.stat().st_size))}


def _read_npz(path: Path, wanted: Collection[str]) -> dict[str, Array]:
    """Reads those arrays of a .npz file that `_choose` chooses."""
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        chosen = _choose(path, members, wanted)
        _bounded(sum(members[member].file_size for member in chosen.values()))
        for name, member in chosen.items():
            with archive.open(members[member]) as file:
                arrays[name] = _read(file, members[member].file_size)
    return arrays


def _choose(path: Path, members: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """Returns which members of a .npz to read, by the names that `read_arrays` promises."""
    found = {name: name for name in wanted if name in members}
    if not found and len(members) == 1:
        return {"": next(iter(members))}
    if not found:
        names = ", ".join(f"'{name}'" for name in sorted(members)[:NAMED]) or "nothing"
        raise InputError(
            f"array file '{path}' holds {names}, and it is not clear which are the examples",
            "save them as numpy.savez(path, x=..., y=...)",
        )
    return found


def _bounded(size: int) -> int:
    """Returns `size`, in bytes, unless it is too large to be read."""
    if size > min(MAX_BYTES, machine_memory()):
        raise ValueError(f"{size / 2**30:.1f} GiB are too much to hold in memory")
    return size


def _read(file: IO[bytes], file_size: int) -> Array:
    """Reads an array from `file`, which holds `file_size` bytes.

    Raises:
        ValueError: With the reason, among other errors.
    """
    head = io.BytesIO(file.read(HEAD_BYTES))  # a forged header may claim to be gigabytes long
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(head)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(head)
    else:  # version 3 is written for records only
        raise ValueError(f"format version {version[0]}.{version[1]}")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code")
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds {dtype}, not numbers")
    claimed, there = math.prod(shape) * dtype.itemsize, file_size - head.tell()
    if min(shape, default=0) < 0 or claimed != there:
        raise ValueError(f"its header says {claimed:,} bytes of numbers and it holds {there:,}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
