"""Sparse matrices in .npz files, as `scipy.sparse.save_npz` writes them, read by NumPy alone."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from vaezoo.core.memory import machine_memory
from vaezoo.data.counts.layout import Array
from vaezoo.data.npy import read_arrays
from vaezoo.errors import InputError

MEMBERS = ("data", "indices", "indptr", "shape")
FORMAT = "format"
SUFFIX = ".npz"


def is_sparse(path: Path) -> bool:
    """Tells whether a file is a .npz file with the arrays of a sparse matrix."""
    if path.suffix.lower() != SUFFIX or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{name}.npy" for name in (*MEMBERS, FORMAT)} <= {*archive.namelist()}
    except (zipfile.BadZipFile, OSError):
        return False  # the reader of arrays says what is wrong


def read_sparse(path: Path) -> Array:
    """Reads a sparse matrix of compressed rows as a dense array.

    Raises:
        InputError: If the file is damaged or forged, holds another format, or the array does not fit in memory.
    """
    arrays = read_arrays(path, (*MEMBERS, FORMAT), texts=(FORMAT,))
    kind = arrays[FORMAT]
    text = kind.item() if kind.ndim == 0 else ""
    text = text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)
    if text != "csr":
        raise InputError(f"'{path}' holds a sparse matrix of the format '{text}'", "save it as matrix.tocsr()")
    values, indices, starts, shape = (arrays[name] for name in MEMBERS)
    if not _fits(values, indices, starts, shape):
        raise InputError(f"'{path}' is not a sparse matrix of compressed rows", "save it again with scipy.sparse")
    rows, columns = (int(n) for n in shape)
    require_memory(rows, columns, f"'{path}'")
    dense = np.zeros((rows, columns), values.dtype)
    borders = starts.astype(np.int64)
    row = np.repeat(np.arange(rows), borders[1:] - borders[:-1])
    np.add.at(dense, (row, indices.astype(np.int64)), values)  # entries of one place are added, as SciPy does
    return dense


def _fits(values: Array, indices: Array, starts: Array, shape: Array) -> bool:
    """Tells whether the arrays of a matrix fit each other."""
    if shape.shape != (2,) or any(a.ndim != 1 for a in (values, indices, starts)):
        return False
    if any(a.dtype.kind not in "iu" for a in (indices, starts, shape)) or len(starts) < 1:
        return False
    rows, columns = (int(n) for n in shape)
    ordered = int(starts[0]) == 0 and bool((starts[1:] >= starts[:-1]).all()) and int(starts[-1]) == len(values)
    in_range = len(indices) == 0 or (int(indices.min()) >= 0 and int(indices.max()) < columns)
    return min(rows, columns) >= 0 and len(starts) == rows + 1 and len(indices) == len(values) and ordered and in_range


def require_memory(rows: int, columns: int, name: str) -> None:
    """Raises InputError unless the dense float32 array of a matrix fits in memory."""
    size = 4 * rows * columns
    if size > machine_memory():
        what = f"{name} has {rows:,} rows of {columns:,} columns, which are {size / 2**30:.1f} GiB as a dense array"
        raise InputError(what, "leave out rows, or columns that hardly vary")
