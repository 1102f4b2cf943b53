"""Reads .h5ad files with anndata: counts in X or in a layer, the names of columns, and a column of labels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaezoo.core.dependencies import install_hint
from vaezoo.data.columns import kept_names
from vaezoo.data.counts.layout import Array, first_other
from vaezoo.data.counts.sparse import require_memory
from vaezoo.errors import InputError, VaezooError, first_line, safe_repr, suggest

SUFFIX = ".h5ad"
MAX_LISTED = 6  # names in a hint


class Annotated(NamedTuple):
    """The counts of a file.

    Attributes:
        x: The counts, `(N, columns)`.
        names: The names of the columns. Empty if a run cannot keep them.
        labels: The label of each row, or None.
    """

    x: Array
    names: tuple[str, ...]
    labels: Array | None


def is_annotated(path: Path) -> bool:
    """Tells whether a path is that of a .h5ad file."""
    return path.suffix.lower() == SUFFIX


def read_annotated(path: Path, layer: str, label_column: str, *, labels_required: bool = True) -> Annotated:
    """Reads a .h5ad file.

    Args:
        path: The file.
        layer: The layer that holds the counts. Empty: X.
        label_column: The column of the observations that holds labels. Empty: none.
        labels_required: Whether the file must have that column. Otherwise there are no labels without it.

    Raises:
        InputError: If the file is missing or damaged, has no such layer or column, or the values are not counts.
        VaezooError: If anndata is not installed.
    """
    data = _open(path)
    matrix = _layer(path, data, layer)
    rows, columns = matrix.shape
    require_memory(rows, columns, f"'{path}'")
    values = matrix.data if hasattr(matrix, "nnz") else matrix
    if not _are_counts(values):
        raise InputError(f"{_called(layer)} of '{path}' has values that are not counts", _layer_hint(data, layer))
    x = matrix.toarray() if hasattr(matrix, "nnz") else np.asarray(matrix)
    has_labels = labels_required or label_column in data.obs
    labels = _labels(path, data, label_column) if label_column and has_labels else None
    return Annotated(x, kept_names(list(data.var_names), f"'{path}'"), labels)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"no file '{path}'", "check the path")
    try:
        import anndata
    except ImportError:
        raise VaezooError(f"'{path}' needs anndata, which is not installed", install_hint("counts")) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that repeat, which are an error below, and of older formats
            return anndata.read_h5ad(path)
    except Exception as error:  # a damaged file raises errors of HDF5, of anndata and of pandas
        raise InputError(
            f"'{path}' is not a .h5ad file, or is damaged: {first_line(error)}", "write the file again"
        ) from error


def _layer(path: Path, data: Any, layer: str) -> Any:
    """Returns a matrix of a file, dense or sparse."""
    if layer and layer not in data.layers:
        names = [*data.layers]
        choices = f"its layers are {', '.join(names[:MAX_LISTED])}" if names else "leave out --layer: it has none"
        raise InputError(f"'{path}' has no layer '{safe_repr(layer)}'", suggest(layer, names, choices))
    matrix = data.layers[layer] if layer else data.X
    if matrix is None:
        raise InputError(f"'{path}' has no X", _layer_hint(data, layer))
    return matrix


def _called(layer: str) -> str:
    return f"layer '{layer}'" if layer else "X"


def _are_counts(values: Array) -> bool:
    return values.dtype.kind in "biuf" and first_other(values) is None


def _layer_hint(data: Any, layer: str) -> str:
    """Returns which layers of a file hold counts, as a hint."""
    matrices = {name: data.layers[name] for name in data.layers if name != layer}
    parts = {name: matrix.data if hasattr(matrix, "nnz") else matrix for name, matrix in matrices.items()}
    found = [name for name, values in parts.items() if _are_counts(values)]
    if not found:
        return "give raw counts, non-negative integers: no layer of the file holds them"
    return f"give --layer {found[0]}" + (f", or {', '.join(found[1:MAX_LISTED])}" if found[1:] else "")


def _labels(path: Path, data: Any, label_column: str) -> Array:
    if label_column not in data.obs:
        names = [str(name) for name in data.obs]
        choices = f"its columns are {', '.join(names[:MAX_LISTED])}" if names else "leave out --label-column"
        what = f"the observations of '{path}' have no column '{safe_repr(label_column)}'"
        raise InputError(what, suggest(label_column, names, choices))
    labels: Array = data.obs[label_column].to_numpy()
    return labels
