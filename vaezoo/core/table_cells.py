"""How the numbers of a model become the cells of a table again, and how they are rounded. It needs numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from vaezoo.core.tables import EPOCH, WHOLE, Array, Column

FIRST_DAY, LAST_DAY = (datetime.min - EPOCH).days, (datetime.max - EPOCH).days
SIGNIFICANT = 7  # digits of a number without fixed decimals: float32 has no more
MAX_INTEGER = 2.0**53  # float64 holds each whole number up to it


def to_cells(columns: Sequence[Column], values: Array, *, typed: bool = True) -> dict[str, Array]:
    """Returns the cells of a table by column, as the table of the training has them.

    Args:
        columns: The columns.
        values: `(N, columns)`, in the units of the data. NaN: a missing cell.
        typed: Whether dates and categories with the texts of numbers or of true and false get such a type. Otherwise
            they are texts.
    """
    return {column.name: _cells(column, values[:, i].astype(np.float64), typed) for i, column in enumerate(columns)}


def _cells(column: Column, values: Array, typed: bool) -> Array:
    missing = np.isnan(values)
    if missing.any():
        cells = np.full(len(values), None if typed else "", object)
        cells[~missing] = _cells(column, values[~missing], typed).tolist()
        return cells
    if column.categories:
        names: Array = np.array(column.categories)
        chosen: Array = (_with_type(names) if typed else names)[values.astype(int)]
        return chosen
    values = rounded(column, values)
    if column.kind == "date":
        return _dates(column.detail, values, typed)
    if column.detail == "0" or (column.kind == "integer" and not column.detail):
        return np.clip(values, -MAX_INTEGER, MAX_INTEGER).astype(np.int64)
    return values


def rounded(column: Column, values: Array) -> Array:
    """Returns the numbers of a column as its cells show them, float64."""
    values = values.astype(np.float64)
    if column.kind == "date":
        unit = 86400.0 if _has_time(column.detail) else 1.0
        return np.round(np.clip(values, FIRST_DAY, LAST_DAY) * unit) / unit
    if column.kind == "integer":
        return np.clip(np.round(values), -MAX_INTEGER, MAX_INTEGER)
    if column.kind == "continuous" and column.detail:
        return np.round(values, int(column.detail))
    return values if column.categories else np.array([float(f"{v:.{SIGNIFICANT}g}") for v in values.tolist()])


def _with_type(names: Array) -> Array:
    """Returns the names of categories as bools or numbers, if all are."""
    texts = names.tolist()
    if [text.lower() for text in texts] == ["false", "true"]:
        return np.array([False, True])
    if all(WHOLE.fullmatch(text) for text in texts) and all(abs(float(text)) < MAX_INTEGER for text in texts):
        whole = np.array([int(float(text)) for text in texts])
        return whole if len(set(whole.tolist())) == len(texts) else names
    return names


def _has_time(date_format: str) -> bool:
    return any(code in date_format for code in ("%H", "%M", "%S"))


def _dates(date_format: str, values: Array, typed: bool) -> Array:
    if typed:
        seconds = np.round(values * 86400).astype("int64").astype("datetime64[s]")
        return seconds if _has_time(date_format) else seconds.astype("datetime64[D]")
    return np.array([(EPOCH + timedelta(seconds=round(v * 86400))).strftime(date_format) for v in values.tolist()])
