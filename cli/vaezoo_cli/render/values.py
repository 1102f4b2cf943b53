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
    """Returns a table as CSV. A category is the number of the most probable one.

    Args:
        x: Rows in the form of the data `(N, columns)`, or of the decoder's output, with k probabilities for a category.
        columns: `name:real` or `name:k`.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(column.rpartition(":")[0] for column in columns)
    for row in x:
        values, position = [], 0
        for column in columns:
            size = column.rpartition(":")[2]
            width = int(size) if size.isdigit() and len(row) > len(columns) else 1
            part = row[position : position + width]
            position += width
            values.append(str(int(part.argmax() if width > 1 else part[0])) if size.isdigit() else f"{part[0]:.6g}")
        writer.writerow(values)
    return file.getvalue().encode()


def npy(x: NDArray[Any]) -> bytes:
    """Returns an array as a .npy file."""
    import numpy as np

    file = io.BytesIO()
    np.save(file, x, allow_pickle=False)
    return file.getvalue()
