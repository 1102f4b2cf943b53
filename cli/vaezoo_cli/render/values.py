"""Data that are not images, as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def text_lines(ids: NDArray[Any], symbols: Sequence[str]) -> bytes:
    """Returns token ids as lines of text. Padding is left out. Without symbols, the numbers of the ids are written."""
    rows = [[symbols[i] if symbols else str(i) for i in row.tolist() if i] for row in ids]
    return "".join(("" if symbols else " ").join(row).rstrip("\n") + "\n" for row in rows).encode()


def csv_table(x: NDArray[Any], columns: Sequence[str]) -> bytes:
    """Returns a table as CSV. A category is its number.

    Args:
        x: Rows, `(N, columns)`.
        columns: `name:real` or `name:k`.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names, _, sizes = zip(*(column.rpartition(":") for column in columns), strict=True)
    writer.writerow(names)
    for row in x:
        cells = zip(row.tolist(), sizes, strict=True)
        writer.writerow(str(int(value)) if size.isdigit() else f"{value:.6g}" for value, size in cells)
    return file.getvalue().encode()


def npy(x: NDArray[Any]) -> bytes:
    """Returns an array as a .npy file."""
    import numpy as np

    file = io.BytesIO()
    np.save(file, x, allow_pickle=False)
    return file.getvalue()
