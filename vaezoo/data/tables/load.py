"""Data sets of tables, and rows of new tables for a trained model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaezoo.core.scaling import Scaling, fit
from vaezoo.core.tables import Column, parse_model_column, rows_of, to_numbers
from vaezoo.data.base import Dataset, DataSource, TensorSplit, train_valid_split
from vaezoo.data.spec import DataSpec
from vaezoo.data.tables.kinds import find_columns
from vaezoo.data.tables.reading import Table, from_frame, read_table
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError

Values: TypeAlias = npt.NDArray[Any]
MAX_TEXT_BYTES = 1 << 20  # of the names of columns and categories, because a run records them


def load(
    path: Path,
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    likelihood: str | None = None,
    scale: str | Scaling = "unit",
    data_dir: Path | None = None,
) -> Dataset:
    """Loads a .csv or .parquet file; for the arguments see `vaezoo.load_data`."""
    if not isinstance(scale, Scaling) and scale not in ("unit", "standardize"):
        raise VaezooError(f"the real columns of a table are standardized, not scaled by {scale}", "leave out --scale")
    source = DataSource(
        data=str(path),
        data_dir=None if data_dir is None else str(data_dir),
        likelihood=likelihood,
        scale="standardize",
        columns=tuple(f"{column}={kind}" for column, kind in (columns or {}).items()),
    )
    fixed = scale if isinstance(scale, Scaling) else None
    return make_dataset(read_table(path), name, columns or {}, likelihood, fixed, source)


def from_table(
    frame: Any,
    *,
    columns: Mapping[str, str] | None = None,
    name: str = "table",
    likelihood: str | None = None,
    scaling: Scaling | None = None,
) -> Dataset:
    """Makes a data set of a frame of pandas or polars with columns of any kind. One row in ten is held out.

    Args:
        frame: The frame. Cells hold numbers, texts, bools or dates. None and NaN are missing cells.
        columns: Kinds of columns, such as {"age": "continuous"}. Those of the other columns are found. They are
            continuous, integer, category, boolean, date, constant and identifier.
        name: The name of the data set.
        likelihood: As in `vaezoo.likelihoods.make.make_likelihood`. The default is "table".
        scaling: The scaling of a run, `run.data.scaling`, instead of one that is fitted to the training part.

    Raises:
        InputError: If a column has no values or values of several kinds.
        VaezooError: If a column or a kind is unknown.
    """
    return make_dataset(from_frame(frame, name), name, columns or {}, likelihood, scaling, None)


def is_mixed_frame(values: object) -> bool:
    """Tells whether this is a frame that has a column without numbers."""
    labels = getattr(values, "columns", None)
    if labels is None or not hasattr(values, "to_numpy"):
        return False
    frame: Any = values
    return any(frame[label].to_numpy().dtype.kind not in "biuf" for label in labels)


def make_dataset(
    table: Table,
    name: str,
    kinds: Mapping[str, str],
    likelihood: str | None,
    scaling: Scaling | None,
    source: DataSource | None,
) -> Dataset:
    """Makes a data set of a table. Its scaling is fitted to the training part, unless it is given."""
    columns, left_out = find_columns(table, kinds)
    values = np.stack([to_numbers(c, table.columns[c.name], table.where) for c in columns], 1)
    train, valid = train_valid_split(TensorSplit(torch.from_numpy(values), None))
    scaling = fit_columns(columns, train.x.numpy()) if scaling is None else scaling
    spec = describe(name, columns, values, scaling, likelihood or "table", tuple(left_out))
    texts = (spec.columns, spec.categories, spec.left_out)
    if (size := len(json.dumps(texts))) > MAX_TEXT_BYTES:
        raise InputError(
            f"the names and categories of {table.name} have {size:,} bytes, and a run keeps at most {MAX_TEXT_BYTES:,}",
            "leave out a column with long texts, with --columns NAME=identifier",
        )
    parts = [replace(split, x=torch.from_numpy(scaling.apply(split.x.numpy()))) for split in (train, valid)]
    return Dataset(spec=spec, train=parts[0], valid=parts[1], test=None, source=source)


def describe(
    name: str,
    columns: Sequence[Column],
    values: Values,
    scaling: Scaling,
    likelihood: str = "table",
    left_out: tuple[str, ...] = (),
) -> DataSpec:
    """Returns the description of a table. `values` are all of its rows, `(N, columns)`: NaN is a missing cell."""
    return DataSpec(
        name=name,
        shape=(len(columns),),
        likelihood=likelihood,
        kind="table",
        columns=tuple(model_column(c, bool(np.isnan(values[:, i]).any())) for i, c in enumerate(columns)),
        column_formats=tuple(column.notation for column in columns),
        categories=tuple(column.categories for column in columns),
        left_out=left_out,
        offset=scaling.offset,
        factor=scaling.factor,
    )


def model_column(column: Column, may_miss: bool) -> str:
    """Returns a column as a model sees it: `name:real` or `name:k`, with `?` where cells may be missing."""
    return f"{column.name}:{len(column.categories) or 'real'}{'?' if may_miss else ''}"


def fit_columns(columns: Sequence[Column], values: Values) -> Scaling:
    """Fits mean and standard deviation of real columns to their observed cells. Categories keep their numbers.

    Raises:
        InputError: If a column has no value in the training part, or a range that float64 cannot hold.
    """
    offset, factor = [0.0] * len(columns), [1.0] * len(columns)
    for i, column in enumerate(columns):
        observed = values[~np.isnan(values[:, i]), i]
        if column.categories:
            continue
        if not len(observed):
            raise InputError(
                f"column '{column.name}' has no value among the training rows",
                f"leave it out with --columns '{column.name}=identifier'",
            )
        scaling = fit("standardize", observed[:, None])
        offset[i], factor[i] = scaling.offset[0], scaling.factor[0]
    return Scaling("table", tuple(offset), tuple(factor))


def kinds_of(spec: DataSpec) -> dict[str, str]:
    """Returns the kinds of all columns of a training, so that its table is read again as it was."""
    kinds = dict.fromkeys(spec.left_out, "identifier")
    return kinds | {column.name: column.notation for column in spec.table_columns}


def new_rows(source: Path | object, spec: DataSpec, name: str = "x") -> Tensor:
    """Returns the rows of a new table for a model, `(N, columns)`, scaled as those of the training.

    Args:
        source: The path of a .csv or .parquet file, or a frame.
        spec: The data of the model.
        name: What errors call a frame.

    Raises:
        InputError: If a cell does not fit its column, such as an unknown category.
        UnsupportedDataError: If the model was not made for a table, or the table has other columns.
    """
    if not spec.column_formats:
        raise UnsupportedDataError(
            f"the model was made for data of kind {spec.kind}, not for a table of cells",
            "give data like those of the training, such as a .npy or a .npz file",
        )
    table = read_table(source) if isinstance(source, Path) else from_frame(source, name)
    missing = [bool(column and column.may_miss) for column in map(parse_model_column, spec.columns)]
    values = rows_of(table.columns, spec.table_columns, missing, spec.left_out, table.name, table.where)
    return torch.from_numpy(spec.scaling.apply(values))
