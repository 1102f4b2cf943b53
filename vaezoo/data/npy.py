"""Reads .npy and .npz files that may be damaged or forged.

A header of a hundred bytes can declare terabytes, and a small zip file can unpack to gigabytes. So the declared size is
compared with the size of the file before NumPy reads the numbers. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import numpy.typing as npt

from vaezoo.core.memory import machine_memory
from vaezoo.errors import InputError, first_line

SUFFIXES = (".npy", ".npz")
MAX_BYTES = 16 * 2**30  # of numbers in one file
NUMBERS, TEXTS = "biuf", "US"  # kinds of NumPy types
MAX_NAMES = 6  # of arrays in an error
MAX_HEADER_BYTES = 2**14  # enough for every header that NumPy accepts, which has at most 10,000 characters

Array: TypeAlias = npt.NDArray[np.generic]


def read_arrays(path: Path, names: Collection[str], texts: Collection[str] = ()) -> Mapping[str, Array]:
    """Reads arrays from a file.

    Args:
        path: A .npy file, or a .npz file as `np.savez` writes it.
        names: The names of the arrays to read.
        texts: The names of those that may hold text.

    Returns:
        The arrays by name, of numbers or bools, or of text. The array of a .npy file has the name "". So has the only
        array of a .npz file, if its name is not in `names`.

    Raises:
        InputError: If the file is missing, damaged or forged, contains objects, text or records, or contains several
            arrays with other names.
    """
    if not path.is_file():
        raise InputError(f"no file '{path}'", "name a .npy or .npz file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns about headers that Python 2 wrote
            if path.suffix.lower() == ".npy":
                with path.open("rb") as file:
                    return {"": _load(file, _check_memory(path.stat().st_size))}
            with zipfile.ZipFile(path) as archive:
                members = _select(path, archive, names)
                _check_memory(sum(member.file_size for member in members.values()))
                return {
                    name: _load(archive.open(member), member.file_size, NUMBERS + TEXTS if name in texts else NUMBERS)
                    for name, member in members.items()
                }
    except InputError:
        raise
    except Exception as error:  # damaged files raised fourteen types of error in our fuzz tests
        raise InputError(
            f"array file '{path}' cannot be read: {first_line(error)}", "save it again with numpy.save or numpy.savez"
        ) from error


def _select(path: Path, archive: zipfile.ZipFile, names: Collection[str]) -> dict[str, zipfile.ZipInfo]:
    """Returns the members of a .npz file to read, under the names that `read_arrays` promises."""
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    selected = {name: members[name] for name in names if name in members}
    if not selected and len(members) != 1:
        listed = ", ".join(f"'{name}'" for name in sorted(members)[:MAX_NAMES]) or "nothing"
        raise InputError(
            f"array file '{path}' holds {listed}, and it is not clear which array has the examples",
            "save them as numpy.savez(path, x=..., y=...)",
        )
    return selected or {"": next(iter(members.values()))}


def _check_memory(size: int) -> int:
    """Returns `size`, in bytes, if that much fits in memory."""
    if size > min(MAX_BYTES, machine_memory()):
        raise ValueError(f"{size / 2**30:.1f} GiB do not fit in memory")
    return size


def _load(file: IO[bytes], size: int, kinds: str = NUMBERS) -> Array:
    """Reads an array of one of some kinds from a file of `size` bytes, which its header must declare."""
    start = io.BytesIO(file.read(MAX_HEADER_BYTES))  # a forged header may declare its own length as 4 GiB
    version = np.lib.format.read_magic(start)
    if version not in ((1, 0), (2, 0)):  # NumPy writes version 3 for records only
        raise ValueError(f"format version {version[0]}.{version[1]} is not supported")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(start)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code")
    if dtype.kind not in kinds:
        raise ValueError(f"it holds {dtype}, not numbers")
    declared, actual = math.prod(shape) * dtype.itemsize, size - start.tell()
    if min(shape, default=0) < 0 or declared != actual:
        raise ValueError(f"its header declares {declared:,} bytes of numbers and it has {actual:,}")
    file.seek(0)
    array: Array = np.load(file, allow_pickle=False)
    return array
