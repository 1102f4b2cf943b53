"""Counts in files: data to train on, and rows for a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from vaezoo.core.scaling import Scaling
from vaezoo.data import arrays, npy
from vaezoo.data.base import Splits
from vaezoo.data.columns import column_places
from vaezoo.data.counts.annotated import is_annotated, read_annotated
from vaezoo.data.counts.layout import Array, count_rows
from vaezoo.data.counts.sparse import is_sparse, read_sparse
from vaezoo.data.series.options import SeriesOptions
from vaezoo.data.spec import DataSpec
from vaezoo.errors import InputError, VaezooError


def load(path: Path, options: SeriesOptions, scale: str | Scaling) -> Splits:
    """Reads counts to train on.

    Args:
        path: A .h5ad file, or a .npy or .npz file. A .npz file has dense arrays as `from_arrays` takes them, or is one
            that `scipy.sparse.save_npz` wrote of a matrix of compressed rows.
        options: The options.
        scale: That of counts.

    Raises:
        InputError: If the file cannot be read, or does not hold counts.
        VaezooError: If an option does not fit the file.
    """
    layer, label_column = options.layer or "", options.label_column or ""
    if is_annotated(path):
        x, names, labels = read_annotated(path, layer, label_column)
        splits = arrays.to_splits(x, labels, None, None, f" of '{path}'", scale, count_rows)
        return splits._replace(column_names=names, layer=layer, label_column=label_column)
    if layer or label_column:
        option = "--layer" if layer else "--label-column"
        raise VaezooError(f"{option} is for .h5ad files, and '{path}' is none", f"leave out {option}")
    if is_sparse(path):
        return arrays.to_splits(read_sparse(path), None, None, None, f" of '{path}'", scale, count_rows)
    if path.is_dir() or path.suffix.lower() not in npy.SUFFIXES:
        raise InputError(f"'{path}' holds no counts that can be read", "name a .h5ad, a .npy or a .npz file")
    return arrays.load(path, scale, count_rows)


class Rows(NamedTuple):
    """Counts that a trained model is applied to.

    Attributes:
        x: `(N, columns)`, in the order of the training.
        labels: The label of each row, or None.
    """

    x: Array
    labels: Array | None = None


def read_rows(path: Path, spec: DataSpec) -> Rows | None:
    """Reads the counts of a .h5ad file or of a sparse matrix for a trained model. None for other files.

    A .h5ad file is read with the layer and the column of labels of the training. Its columns are found by their names.
    Labels are left out if the file has no such column.

    Raises:
        InputError: If the file cannot be read.
        UnsupportedDataError: If the file has other columns than the model.
    """
    if is_sparse(path):
        return Rows(read_sparse(path))
    if not is_annotated(path):
        return None
    x, names, labels = read_annotated(path, spec.layer, spec.label_column, labels_required=False)
    places = column_places(names, spec.column_names, f"'{path}'") if names and spec.column_names else None
    return Rows(x if places is None else x[:, places], labels)
